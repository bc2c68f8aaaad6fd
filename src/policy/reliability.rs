//! How reliable a backend has proved to be: requests and failures of its lifetime and of the last 30 days, its outages,
//! the mean time between them and to recovery. Kept across restarts; see `memory`.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Trigger;
use super::event::ErrorCounts;
use super::failure::FailureKind;
use super::time::Time;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Days that are kept, today included.
pub(super) const DAYS_KEPT: usize = 30;
/// Of the last failure's text.
const TEXT_BYTES_MAX: usize = 256;

/// The record of one backend. Times are durations, so that it means the same in the next process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Reliability {
    /// Since it was first watched; a day ends so long after the process that began it.
    lifetime: Tally,
    /// The newest first.
    days: VecDeque<Tally>,
    /// How much of the newest day has passed.
    today: Duration,
    /// Failed requests, probes and connections, by [`FailureKind::index`].
    failures: [u64; FailureKind::COUNT],
    outages: u64,
    recoveries: u64,
    /// Watched time, and how much of it it had failed, recovered outages alone.
    watched: Duration,
    down: Duration,
    last: Option<LastFailure>,
    /// The present outage began so long ago.
    failing_for: Option<Duration>,
    /// Up to when the above is told. Means nothing in another process.
    #[serde(skip_serializing_if = "is_zero")]
    updated: Time,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub succeeded: u64,
    /// What speaks against the backend; the application's own errors are successes of the server.
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastFailure {
    pub ago: Duration,
    pub trigger: Trigger,
    pub why: String,
}

/// What people are shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityView {
    pub lifetime: Tally,
    pub last_30_days: Tally,
    /// By [`FailureKind::index`].
    pub failures: [u64; FailureKind::COUNT],
    pub outages: u64,
    pub watched: Duration,
    /// Working time for each outage; `None` before the first.
    pub mean_between_failures: Option<Duration>,
    /// `None` before the first recovery.
    pub mean_to_recovery: Option<Duration>,
    pub last_failure: Option<LastFailure>,
}

impl Tally {
    /// Share of successes, 0 to 1; `None` when nothing was seen.
    #[must_use]
    pub fn success(self) -> Option<f64> {
        let all = self.succeeded.saturating_add(self.failed);
        (all > 0).then(|| self.succeeded as f64 / all as f64)
    }

    fn add(&mut self, other: Self) {
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

impl Reliability {
    pub(super) fn begin(&mut self, now: Time) {
        self.updated = now;
    }

    /// Requests that ended.
    pub(super) fn requests(&mut self, now: Time, succeeded: u64, errors: &ErrorCounts) {
        let failed = errors.against_backend();
        if succeeded == 0 && failed == 0 && errors.data == 0 && errors.authentication == 0 {
            return;
        }
        self.advance(now);
        self.tally(Tally { succeeded, failed });
        for kind in FailureKind::ALL {
            let count = &mut self.failures[kind.index()];
            *count = count.saturating_add(errors.get(kind));
        }
    }

    /// A probe ended, or a connection could not be made (`Some`: of which kind the failure was).
    pub(super) fn attempt(&mut self, now: Time, failure: Option<FailureKind>) {
        self.advance(now);
        self.tally(Tally { succeeded: u64::from(failure.is_none()), failed: u64::from(failure.is_some()) });
        if let Some(kind) = failure {
            let count = &mut self.failures[kind.index()];
            *count = count.saturating_add(1);
        }
    }

    /// A verdict of failure was reached.
    pub(super) fn failed(&mut self, now: Time, trigger: Trigger, why: &str) {
        self.advance(now);
        if self.failing_for.is_some() {
            return;
        }
        self.outages = self.outages.saturating_add(1);
        self.failing_for = Some(Duration::ZERO);
        let end = why.floor_char_boundary(TEXT_BYTES_MAX);
        self.last = Some(LastFailure { ago: Duration::ZERO, trigger, why: why[..end].to_owned() });
    }

    /// It answers again.
    pub(super) fn recovered(&mut self, now: Time) {
        self.advance(now);
        if let Some(failing_for) = self.failing_for.take() {
            self.down = self.down.saturating_add(failing_for);
            self.recoveries = self.recoveries.saturating_add(1);
        }
    }

    pub(super) fn view(&self, now: Time) -> ReliabilityView {
        let mut told = self.clone();
        told.advance(now);
        let down = told.down.saturating_add(told.failing_for.unwrap_or_default());
        let mean = |total: Duration, count: u64| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (count > 0).then(|| total / count)
        };
        let mut last_30_days = Tally::default();
        told.days.iter().for_each(|day| last_30_days.add(*day));
        ReliabilityView {
            lifetime: told.lifetime,
            last_30_days,
            failures: told.failures,
            outages: told.outages,
            watched: told.watched,
            mean_between_failures: mean(told.watched.saturating_sub(down), told.outages),
            mean_to_recovery: mean(told.down, told.recoveries),
            last_failure: told.last,
        }
    }

    /// To be kept: as of `now`, so that nothing in it depends on this process's clock.
    pub(super) fn remember(&self, now: Time) -> Self {
        let mut told = self.clone();
        told.advance(now);
        told.updated = Time::ZERO;
        told
    }

    /// Takes up what an earlier process remembered `age` ago. An outage that it did not see end goes on until the first
    /// answer; how it fared in between nobody saw, and is not counted.
    pub(super) fn recall(remembered: Self, now: Time, age: Duration) -> Self {
        let mut told = remembered;
        told.days.truncate(DAYS_KEPT);
        told.today = told.today.min(DAY);
        told.turn_days(age);
        if let Some(last) = &mut told.last {
            last.ago = last.ago.saturating_add(age);
            last.why.truncate(last.why.floor_char_boundary(TEXT_BYTES_MAX));
        }
        told.updated = now;
        told
    }

    fn tally(&mut self, ended: Tally) {
        self.lifetime.add(ended);
        if self.days.is_empty() {
            self.days.push_front(Tally::default());
        }
        if let Some(today) = self.days.front_mut() {
            today.add(ended);
        }
    }

    fn advance(&mut self, now: Time) {
        let passed = now - self.updated;
        self.updated = self.updated.max(now);
        self.watched = self.watched.saturating_add(passed);
        if let Some(failing_for) = &mut self.failing_for {
            *failing_for = failing_for.saturating_add(passed);
        }
        if let Some(last) = &mut self.last {
            last.ago = last.ago.saturating_add(passed);
        }
        self.turn_days(passed);
    }

    fn turn_days(&mut self, passed: Duration) {
        self.today = self.today.saturating_add(passed);
        let turned = (self.today.as_micros() / DAY.as_micros()).min(DAYS_KEPT as u128) as usize;
        if turned == 0 {
            return;
        }
        self.today = Duration::from_micros((self.today.as_micros() % DAY.as_micros()) as u64);
        for _ in 0..turned {
            self.days.push_front(Tally::default());
        }
        self.days.truncate(DAYS_KEPT);
    }
}

fn is_zero(time: &Time) -> bool {
    *time == Time::ZERO
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn errors(timeout: u64, data: u64) -> ErrorCounts {
        ErrorCounts { timeout, data, ..ErrorCounts::default() }
    }

    #[test]
    fn the_means_are_those_of_working_time_and_of_ended_outages() {
        let mut record = Reliability::default();
        record.begin(Time::ZERO);
        let mut now = Time::ZERO;
        for _ in 0..4 {
            now += 9 * HOUR;
            record.failed(now, Trigger::Connection, "connection refused, 2 times");
            record.failed(now + HOUR / 2, Trigger::Timeout, "still down");
            now += HOUR;
            record.recovered(now);
        }
        let view = record.view(now);
        assert_eq!((view.outages, view.watched), (4, 40 * HOUR));
        assert_eq!((view.mean_between_failures, view.mean_to_recovery), (Some(9 * HOUR), Some(HOUR)));
        let last = view.last_failure.unwrap();
        assert_eq!(
            (last.ago, last.trigger, last.why.as_str()),
            (HOUR, Trigger::Connection, "connection refused, 2 times")
        );
    }

    #[test]
    fn what_is_older_than_30_days_counts_for_the_lifetime_alone() {
        let mut record = Reliability::default();
        record.begin(Time::ZERO);
        for day in 0..40_u64 {
            record.requests(Time::from_secs(day * 24 * 3_600 + 60), 90, &errors(10, 5));
        }
        let view = record.view(Time::from_secs(39 * 24 * 3_600 + 120));
        assert_eq!((view.lifetime.succeeded, view.lifetime.failed), (3_600, 400));
        assert_eq!((view.last_30_days.succeeded, view.last_30_days.failed), (2_700, 300));
        assert_eq!(view.last_30_days.success(), Some(0.9));
        assert_eq!(view.failures[FailureKind::Data.index()], 200);
        assert_eq!(record.days.len(), DAYS_KEPT);
    }

    #[test]
    fn a_record_goes_on_in_the_next_process() {
        let mut record = Reliability::default();
        record.begin(Time::from_secs(5));
        record.requests(Time::from_secs(10), 10, &errors(0, 0));
        record.failed(Time::from_secs(20), Trigger::Timeout, &"x".repeat(2_000));
        let text = serde_json::to_string(&record.remember(Time::from_secs(30))).unwrap();
        assert!(text.len() < 1_000, "{text}");

        let kept: Reliability = serde_json::from_str(&text).unwrap();
        let mut next = Reliability::recall(kept, Time::from_millis(1), 29 * DAY);
        let view = next.view(Time::from_millis(1));
        assert_eq!((view.lifetime.succeeded, view.last_30_days.succeeded, view.outages), (10, 10, 1));
        assert_eq!(view.last_failure.unwrap().ago, 29 * DAY + Duration::from_secs(10));
        assert_eq!(view.watched, Duration::from_secs(25), "what nobody watched is not counted");
        next.failed(Time::from_millis(1), Trigger::Timeout, "the same outage");
        next.recovered(Time::from_secs(2));
        assert_eq!((next.outages, next.recoveries), (1, 1));
        let later = Reliability::recall(next.remember(Time::from_secs(2)), Time::ZERO, DAY);
        assert_eq!(later.view(Time::ZERO).last_30_days, Tally::default());
    }

    #[test]
    fn a_clock_that_jumps_far_ahead_does_no_harm() {
        let mut record = Reliability::default();
        record.attempt(Time(u64::MAX), None);
        record.attempt(Time::ZERO, Some(FailureKind::Connection));
        assert_eq!(record.view(Time(u64::MAX)).lifetime, Tally { succeeded: 1, failed: 1 });
        assert!(record.days.len() <= DAYS_KEPT);
    }
}
