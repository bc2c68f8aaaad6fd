//! What all clients of a load saw together, and what may be asserted of it.

use std::fmt;
use std::time::{Duration, Instant};

use super::stall_meter::Stall;

/// One error as the client saw it.
#[derive(Debug, Clone)]
pub(crate) struct LoadError {
    pub(super) at: Instant,
    pub(crate) client: usize,
    pub(crate) request: String,
    pub(crate) text: String,
}

/// What one client saw.
#[derive(Debug, Default)]
pub(super) struct ClientResult {
    pub(super) successes: Vec<Instant>,
    pub(super) waits: Vec<(Instant, Duration)>,
    pub(super) errors: Vec<LoadError>,
    pub(super) error_count: u64,
    pub(super) misses: u64,
    pub(super) stale: Vec<String>,
    pub(super) foreign: Vec<String>,
}

/// What all clients saw together.
#[derive(Debug)]
pub(crate) struct LoadReport {
    pub(crate) operations: u64,
    pub(crate) error_count: u64,
    pub(crate) errors: Vec<LoadError>,
    /// Longest time in which no client had a success, and when it began.
    pub(crate) longest_gap: Duration,
    pub(crate) longest_gap_at: Duration,
    /// Longest time that one request took.
    pub(crate) longest_wait: Duration,
    pub(crate) longest_wait_at: Duration,
    /// Reads that found nothing although a value was acknowledged.
    pub(crate) misses: u64,
    pub(crate) stale: Vec<String>,
    pub(crate) foreign: Vec<String>,
    origin: Instant,
    success_times: Vec<Duration>,
    stalls: Vec<Stall>,
}

impl LoadReport {
    pub(super) fn new(origin: Instant, ended: Duration, results: Vec<ClientResult>, stalls: Vec<Stall>) -> Self {
        let mut success_times: Vec<Duration> = Vec::new();
        let mut waits = Vec::new();
        let mut report = Self {
            operations: 0,
            error_count: 0,
            errors: Vec::new(),
            longest_gap: Duration::ZERO,
            longest_gap_at: Duration::ZERO,
            longest_wait: Duration::ZERO,
            longest_wait_at: Duration::ZERO,
            misses: 0,
            stale: Vec::new(),
            foreign: Vec::new(),
            origin,
            success_times: Vec::new(),
            stalls,
        };
        for result in results {
            success_times.extend(result.successes.iter().map(|at| at.saturating_duration_since(origin)));
            waits.extend(result.waits);
            report.errors.extend(result.errors);
            report.error_count += result.error_count;
            report.misses += result.misses;
            report.stale.extend(result.stale);
            report.foreign.extend(result.foreign);
        }
        success_times.sort_unstable();
        report.operations = success_times.len() as u64 + report.error_count;
        report.success_times = success_times;
        (report.longest_gap_at, report.longest_gap) = report.gap_between(Duration::ZERO, ended);
        if let Some((sent, wait)) = waits.into_iter().max_by_key(|(_, wait)| *wait) {
            report.longest_wait = wait;
            report.longest_wait_at = sent.saturating_duration_since(origin);
        }
        report
    }

    /// The longest time without a success between two moments of the load, with its beginning. The edges count.
    pub(crate) fn gap_between(&self, from: Duration, to: Duration) -> (Duration, Duration) {
        let mut longest = (from, Duration::ZERO);
        let mut previous = from;
        let inside = self.success_times.iter().copied().filter(|at| *at > from && *at < to);
        for at in inside.chain([to]) {
            if at.saturating_sub(previous) > longest.1 {
                longest = (previous, at.saturating_sub(previous));
            }
            previous = at;
        }
        longest
    }

    #[track_caller]
    pub(crate) fn assert_no_errors(&self) {
        let first: Vec<String> = self.errors.iter().take(10).map(|error| self.describe(error)).collect();
        assert_eq!(self.error_count, 0, "clients saw errors, the first: {first:#?}\n{self}");
    }

    /// No client ever saw an older value than one acknowledged or seen before, nor one that it never wrote.
    #[track_caller]
    pub(crate) fn assert_no_stale_reads(&self) {
        assert!(self.stale.is_empty(), "stale reads: {:#?}\n{self}", &self.stale[..self.stale.len().min(10)]);
        assert!(self.foreign.is_empty(), "foreign values: {:#?}\n{self}", &self.foreign[..self.foreign.len().min(10)]);
    }

    /// Neither all clients together nor any single request waited longer, but for the longest time in which the machine
    /// stood still meanwhile (none, when it is quiet).
    #[track_caller]
    pub(crate) fn assert_no_gap_over(&self, limit: Duration) {
        let allowed = limit + self.longest_stall_within(self.longest_gap_at, self.longest_gap);
        assert!(self.longest_gap <= allowed, "a gap over {limit:?}\n{self}");
        let allowed = limit + self.longest_stall_within(self.longest_wait_at, self.longest_wait);
        assert!(self.longest_wait <= allowed, "one request waited over {limit:?}\n{self}");
    }

    /// The longest time the machine did not run us, of those that touch the given time.
    pub(crate) fn longest_stall_within(&self, at: Duration, length: Duration) -> Duration {
        let touches = |stall: &&Stall| {
            let began = stall.began.saturating_duration_since(self.origin);
            began < at + length && began + stall.length > at
        };
        self.stalls.iter().filter(touches).map(|stall| stall.length).max().unwrap_or_default()
    }

    /// Every error begins with one of these words.
    #[track_caller]
    pub(crate) fn assert_errors_are_only(&self, words: &[&str]) {
        let other = self.errors.iter().find(|error| !words.iter().any(|word| error.text.starts_with(word)));
        assert!(other.is_none(), "an error other than {words:?}: {}\n{self}", self.describe(other.expect("one")));
    }

    fn describe(&self, error: &LoadError) -> String {
        let at = error.at.saturating_duration_since(self.origin);
        format!("at {at:?} client {}: {} -> {}", error.client, error.request, error.text)
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "operations {}, errors {}, longest gap {:.1?} at {:.2?}, longest wait {:.1?} at {:.2?}, misses {}, stale {}, \
             longest stall of the machine {:.1?}",
            self.operations,
            self.error_count,
            self.longest_gap,
            self.longest_gap_at,
            self.longest_wait,
            self.longest_wait_at,
            self.misses,
            self.stale.len(),
            self.longest_stall_within(Duration::ZERO, Duration::MAX / 2)
        )
    }
}
