//! What the load measured: counts, latencies, and the longest time in which nothing succeeded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::policy::{LATENCY_BUCKETS, latency_bucket, latency_bucket_bound};

/// Different texts of errors that are kept; the rest are counted only.
const ERROR_TEXTS_MAX: usize = 8;

/// Latencies in log-linear buckets: 16 exact ones, then 8 for each doubling, so that a quantile is at most 12.5 % too high.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Histogram {
    buckets: [u64; LATENCY_BUCKETS],
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; LATENCY_BUCKETS], count: 0 }
    }
}

impl Histogram {
    fn record(&mut self, latency: Duration) {
        self.buckets[latency_bucket(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX))] += 1;
        self.count += 1;
    }

    /// The upper bound in microseconds of the bucket that holds the quantile; `None` while nothing was recorded.
    pub(super) fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let rank = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut passed = 0;
        let bucket = self.buckets.iter().position(|count| {
            passed += count;
            passed >= rank
        });
        bucket.map(latency_bucket_bound)
    }
}

/// How a request ended for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// A value older than one that this client had seen or was told is stored.
    Stale,
    /// The text goes to the summary: an error reply, a lost connection, a reply that cannot be right.
    Error(String),
}

/// Counts and latencies of a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Requests that ended, whatever way.
    pub(super) operations: u64,
    pub(super) errors: u64,
    pub(super) stale_reads: u64,
    pub(super) latencies: Histogram,
}

impl Tally {
    fn add(&mut self, latency: Duration, outcome: &Outcome) {
        self.operations += 1;
        match outcome {
            Outcome::Success => self.latencies.record(latency),
            Outcome::Stale => self.stale_reads += 1,
            Outcome::Error(_) => self.errors += 1,
        }
    }
}

/// A time in which no request of any client succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gap {
    /// First, so that the longest is the greatest.
    pub(super) length: Duration,
    /// When it began, counted from the beginning of the load: the machine's own hiccups are told from switches by it.
    pub(super) since: Duration,
}

/// Filled by the load's clients, read by the view.
#[derive(Debug)]
pub(super) struct Meter {
    whole: Tally,
    window: Tally,
    window_since: Instant,
    begun: Instant,
    last_success: Instant,
    gap_longest: Gap,
    error_texts: BTreeMap<String, u64>,
}

/// The figures of the whole run so far and of the window that ended with this reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) whole: Tally,
    pub(super) window: Tally,
    pub(super) window_length: Duration,
    /// Between two successes, or since the last one.
    pub(super) gap_longest: Gap,
    /// Each text and how often it came.
    pub(super) error_texts: Vec<(String, u64)>,
}

impl Reading {
    pub(super) fn operations_per_second(&self) -> f64 {
        let seconds = self.window_length.as_secs_f64();
        if seconds > 0.0 { self.window.operations as f64 / seconds } else { 0.0 }
    }
}

impl Meter {
    /// The first gap begins at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            whole: Tally::default(),
            window: Tally::default(),
            window_since: now,
            begun: now,
            last_success: now,
            gap_longest: Gap::default(),
            error_texts: BTreeMap::new(),
        }
    }

    pub(super) fn record(&mut self, now: Instant, latency: Duration, outcome: &Outcome) {
        self.whole.add(latency, outcome);
        self.window.add(latency, outcome);
        match outcome {
            Outcome::Success => {
                self.gap_longest = self.gap_longest.max(self.gap(now));
                self.last_success = now;
            }
            Outcome::Stale => {}
            Outcome::Error(text) => self.keep(text),
        }
    }

    fn gap(&self, now: Instant) -> Gap {
        Gap { length: now.saturating_duration_since(self.last_success), since: self.last_success - self.begun }
    }

    fn keep(&mut self, text: &str) {
        if let Some(count) = self.error_texts.get_mut(text) {
            *count += 1;
        } else if self.error_texts.len() < ERROR_TEXTS_MAX {
            self.error_texts.insert(text.to_owned(), 1);
        }
    }

    /// The figures at `now`; a new window begins.
    pub(super) fn read(&mut self, now: Instant) -> Reading {
        let window = std::mem::take(&mut self.window);
        let window_length = now.saturating_duration_since(std::mem::replace(&mut self.window_since, now));
        Reading {
            whole: self.whole.clone(),
            window,
            window_length,
            gap_longest: self.gap_longest.max(self.gap(now)),
            error_texts: self.error_texts.iter().map(|(text, count)| (text.clone(), *count)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_longest_gap_counts_between_successes_and_up_to_now() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.record(start + ms(5), ms(1), &Outcome::Success);
        meter.record(start + ms(30), ms(1), &Outcome::Error("lost".to_owned()));
        meter.record(start + ms(45), ms(1), &Outcome::Success);
        assert_eq!(meter.read(start + ms(50)).gap_longest, Gap { length: ms(40), since: ms(5) });
        let unended = Gap { length: ms(100), since: ms(45) };
        assert_eq!(meter.read(start + ms(145)).gap_longest, unended, "a gap that has not ended is one");
    }

    #[test]
    fn a_window_begins_anew_with_each_reading_and_the_whole_goes_on() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for n in 0..4 {
            meter.record(start + ms(n), ms(1), &Outcome::Success);
        }
        let reading = meter.read(start + ms(500));
        assert_eq!((reading.window.operations, reading.operations_per_second()), (4, 8.0));
        meter.record(start + ms(600), ms(1), &Outcome::Stale);
        let reading = meter.read(start + ms(1_500));
        assert_eq!((reading.window.operations, reading.operations_per_second()), (1, 1.0));
        assert_eq!((reading.whole.operations, reading.whole.stale_reads, reading.whole.errors), (5, 1, 0));
    }

    #[test]
    fn a_quantile_is_at_most_an_eighth_too_high() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for us in 1..=1_000 {
            meter.record(start, Duration::from_micros(us), &Outcome::Success);
        }
        let whole = meter.read(start).whole.latencies;
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let measured = whole.quantile_us(quantile).unwrap() as f64;
            assert!((exact..=exact * 1.125).contains(&measured), "{quantile}: {measured}");
        }
        assert_eq!(Histogram::default().quantile_us(0.5), None);
    }

    #[test]
    fn the_texts_of_errors_are_counted_and_bounded() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for n in 0..100 {
            meter.record(start, ms(1), &Outcome::Error("the same".to_owned()));
            meter.record(start, ms(1), &Outcome::Error(format!("another {n:03}")));
        }
        let reading = meter.read(start);
        assert_eq!((reading.error_texts.len(), reading.whole.errors), (ERROR_TEXTS_MAX, 200));
        assert!(reading.error_texts.contains(&("the same".to_owned(), 100)));
    }
}
