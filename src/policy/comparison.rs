//! What a staged plan counts in one of its steps, and from where on that is a breach. Two sources: samples, which are asked
//! of both sides, and what clients got from each of them.

use std::time::Duration;

use super::sketch::Sketch;

/// Fewer samples are no comparison.
const SAMPLES_MIN: u32 = 200;
/// So many batches that found no key at all are one: there is nothing to compare.
const EMPTY_MIN: u32 = 100;
/// Single wrong values may come of a key that was written to and fro while it was compared.
const WRONG_MAX: u32 = 1;
/// Hundredths of the samples that may be missing, or fail, on the next one.
const MISSING_PERCENT_MAX: u32 = 1;
const FAILED_PERCENT_MAX: u32 = 1;
/// How much slower the next one may be than the old one, or than it usually is: so many times, and so much beyond that, which
/// is what `failover.performance_min_shift` is by default: less is not worth leaving a server for.
const SLOWER_TIMES_MAX: u32 = 3;
const SLOWER_SLACK: Duration = Duration::from_millis(5);
/// The same for the slowest hundredth of clients' requests, which is at the mercy of one pause.
const TAIL_SLACK: Duration = Duration::from_millis(20);
/// Requests of a class, on either side, from which its median, and its slowest hundredth, say something.
const MEDIAN_MIN: u64 = 200;
const TAIL_MIN: u64 = 1_000;
/// Clients' requests that may fail on the next side: so many whatever the share; then a hundredth more than twice the share
/// that fails on the old one.
const ERRORS_MIN: u64 = 5;
const ERROR_SHARE_MAX: f64 = 0.01;

/// How one sample compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    Same,
    /// Another value, or another type.
    Wrong,
    /// Where its value counts the key is there, on the other side it is not.
    Missing,
    /// The side that is not the key's home, or the next one, answered with an error or not at all.
    Failed,
}

/// What one look at keys of both sides found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub sampled: Vec<Sampled>,
    /// How long the same keys took on either side.
    pub old: Duration,
    pub next: Duration,
    /// Neither side had a key to show.
    pub is_empty: bool,
    /// A wrong value for the evidence: how it differs, never what it is.
    pub example: Option<String>,
}

/// What clients got from one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    pub requests: u64,
    /// Of those, the ones that speak against the server.
    pub failed: u64,
    pub reads: Sketch,
    pub writes: Sketch,
}

/// What is a breach, and what is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The old side serves everything.
    Before,
    /// Both serve.
    Both,
    /// The next one serves everything: what the old one lacks is no reason to go back to it.
    After,
}

/// What was counted in the present step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub samples: u32,
    pub wrong: u32,
    pub missing: u32,
    pub failed: u32,
    /// How long batches took on the side that is left, and on the next one. Their medians are compared: one pause of ours
    /// falls into one batch of one side.
    old: Sketch,
    next: Sketch,
    empty: u32,
    example: Option<String>,
    of_old: Traffic,
    of_next: Traffic,
}

impl Traffic {
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failed = self.failed.saturating_add(other.failed);
        self.reads.merge(&other.reads);
        self.writes.merge(&other.writes);
    }

    fn failed_share(&self) -> f64 {
        // A lost connection is a failure, and no request that ended.
        let all = self.requests.max(self.failed);
        if all == 0 { 0.0 } else { self.failed as f64 / all as f64 }
    }

    fn words(&self) -> String {
        let median = self.reads.quantile(0.5).or(self.writes.quantile(0.5)).unwrap_or_default();
        format!("{} requests, {} failed, median {median:?}", self.requests, self.failed)
    }
}

impl Tally {
    pub(super) fn count(&mut self, batch: Batch) {
        for sample in &batch.sampled {
            self.samples += 1;
            match sample {
                Sampled::Same => {}
                Sampled::Wrong => self.wrong += 1,
                Sampled::Missing => self.missing += 1,
                Sampled::Failed => self.failed += 1,
            }
        }
        if !batch.old.is_zero() && !batch.next.is_zero() {
            self.old.record(batch.old.as_micros() as u64, 1);
            self.next.record(batch.next.as_micros() as u64, 1);
        }
        self.empty += u32::from(batch.is_empty);
        self.example = self.example.take().or(batch.example);
    }

    pub(super) fn count_traffic(&mut self, of_next: bool, traffic: &Traffic) {
        if of_next { self.of_next.merge(traffic) } else { self.of_old.merge(traffic) }
    }

    /// Whether enough was compared to go on.
    pub(super) fn is_enough(&self) -> bool {
        self.samples >= SAMPLES_MIN || (self.samples == 0 && self.empty >= EMPTY_MIN)
    }

    /// What was found, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { samples, wrong, missing, failed, .. } = self;
        let (old, next) = (median(&self.old), median(&self.next));
        let sampled = format!(
            "{samples} samples, {wrong} wrong, {missing} missing, {failed} failed; a batch took {old:?} on the old side and \
             {next:?} on the next"
        );
        if self.of_next.requests + self.of_next.failed == 0 {
            return sampled;
        }
        format!(
            "{sampled}; clients got {} of the old side and {} of the next",
            self.of_old.words(),
            self.of_next.words()
        )
    }

    /// Why the comparison is not passed, with the evidence. `usual` is what a read took on the next one when it served
    /// clients and was well: a primary that is further away than its backup is not slow for that.
    pub(super) fn breach(&self, scope: Scope, usual: Duration) -> Option<String> {
        let over = |count: u32, percent: u32| {
            scope != Scope::After
                && self.samples >= SAMPLES_MIN
                && count > 1
                && u64::from(count) * 100 > u64::from(self.samples) * u64::from(percent)
        };
        let is_slower =
            self.samples >= SAMPLES_MIN && slower(median(&self.old).max(usual), median(&self.next), SLOWER_SLACK);
        let what = if self.wrong > WRONG_MAX {
            "they hold other values"
        } else if over(self.missing, MISSING_PERCENT_MAX) {
            "keys are missing on the other side"
        } else if over(self.failed, FAILED_PERCENT_MAX) {
            "the next one fails"
        } else if is_slower {
            "the next one is slower"
        } else if scope != Scope::Before && self.fails_clients() {
            "requests of clients fail on the next one"
        } else if scope == Scope::Both && self.is_slower_for_clients(usual) {
            "the next one is slower for clients"
        } else {
            return None;
        };
        let example = self.example.as_ref().map(|key| format!("; for example {key}")).unwrap_or_default();
        Some(format!("{what}: {}{example}", self.words()))
    }

    fn fails_clients(&self) -> bool {
        let allowed = ERROR_SHARE_MAX + 2.0 * self.of_old.failed_share();
        self.of_next.failed >= ERRORS_MIN && self.of_next.failed_share() > allowed
    }

    fn is_slower_for_clients(&self, usual: Duration) -> bool {
        let classes = [(&self.of_old.reads, &self.of_next.reads), (&self.of_old.writes, &self.of_next.writes)];
        classes.into_iter().any(|(old, next)| {
            let quantile = |sketch: &Sketch, q| sketch.quantile(q).unwrap_or_default();
            let requests = old.count().min(next.count());
            let is_slower = |q, slack| slower(quantile(old, q).max(usual), quantile(next, q), slack);
            requests >= MEDIAN_MIN && is_slower(0.5, SLOWER_SLACK)
                || requests >= TAIL_MIN && is_slower(0.99, TAIL_SLACK)
        })
    }
}

fn median(sketch: &Sketch) -> Duration {
    sketch.quantile(0.5).unwrap_or_default()
}

fn slower(old: Duration, next: Duration, slack: Duration) -> bool {
    next > old * SLOWER_TIMES_MAX + slack
}
