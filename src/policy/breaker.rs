//! A circuit breaker on the error rate of one backend. `open` means that traffic is stopped.
//!
//! Two half-windows slide by time, not by count, so that it means the same at 1 and at 100,000 requests/s.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerSettings {
    /// Share of failed requests from which it opens, 0 to 1.
    pub failure_rate_threshold: f64,
    /// Failures within the window below which the share means nothing.
    pub min_failures: u32,
    pub window: Duration,
    /// How long it stays open at first; doubles with each opening that follows a failed trial.
    pub open: Duration,
    pub open_max: Duration,
    /// Successes in the half-open state that close it.
    pub trials: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    settings: BreakerSettings,
    /// `Time::ZERO` while closed, so that the check is one comparison.
    open_until: Time,
    opened: bool,
    openings_in_row: u32,
    trials_passed: u32,
    half_window_ends: Time,
    current: Counts,
    previous: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counts {
    succeeded: u64,
    failed: u64,
}

impl Breaker {
    pub fn new(settings: BreakerSettings, now: Time) -> Self {
        let half_window_ends = now + settings.window / 2;
        Self {
            settings,
            open_until: Time::ZERO,
            opened: false,
            openings_in_row: 0,
            trials_passed: 0,
            half_window_ends,
            current: Counts::default(),
            previous: Counts::default(),
        }
    }

    /// Whether traffic may pass: closed, or the open time is over and a trial is due.
    #[inline]
    pub fn allows(&self, now: Time) -> bool {
        now >= self.open_until
    }

    pub fn state(&self, now: Time) -> BreakerState {
        match (self.opened, self.allows(now)) {
            (false, _) => BreakerState::Closed,
            (true, false) => BreakerState::Open,
            (true, true) => BreakerState::HalfOpen,
        }
    }

    /// Counts what ended since the last call. Returns true when this opened the breaker.
    pub fn record(&mut self, now: Time, succeeded: u64, failed: u64) -> bool {
        if self.opened {
            return self.record_trial(now, succeeded, failed);
        }
        self.slide(now);
        self.current.succeeded += succeeded;
        self.current.failed += failed;
        if failed == 0 || !self.tripped() {
            return false;
        }
        self.open(now);
        true
    }

    /// Opens it whatever the counts say: a verdict of failure was reached by other means.
    pub fn trip(&mut self, now: Time) {
        if !self.opened {
            self.open(now);
        }
    }

    /// Closes it and forgets: what it was opened for is over.
    pub fn reset(&mut self, now: Time) {
        self.close(now);
    }

    /// Failed and all requests within the window.
    pub fn counts(&self) -> (u64, u64) {
        let failed = self.current.failed + self.previous.failed;
        (failed, failed + self.current.succeeded + self.previous.succeeded)
    }

    /// Share of failed requests within the window, 0 to 1.
    pub fn failure_rate(&self) -> f64 {
        let (failed, all) = self.counts();
        if all == 0 { 0.0 } else { failed as f64 / all as f64 }
    }

    fn tripped(&self) -> bool {
        let (failed, _) = self.counts();
        failed >= u64::from(self.settings.min_failures) && self.failure_rate() >= self.settings.failure_rate_threshold
    }

    fn record_trial(&mut self, now: Time, succeeded: u64, failed: u64) -> bool {
        if !self.allows(now) {
            return false;
        }
        if failed > 0 {
            self.open(now);
            return true;
        }
        self.trials_passed = self.trials_passed.saturating_add(u32::try_from(succeeded).unwrap_or(u32::MAX));
        if self.trials_passed >= self.settings.trials {
            self.close(now);
        }
        false
    }

    fn open(&mut self, now: Time) {
        let doublings = self.openings_in_row.min(16);
        let open = self.settings.open.saturating_mul(1 << doublings).min(self.settings.open_max);
        self.opened = true;
        self.open_until = now + open;
        self.openings_in_row = self.openings_in_row.saturating_add(1);
        self.trials_passed = 0;
    }

    fn close(&mut self, now: Time) {
        self.opened = false;
        self.open_until = Time::ZERO;
        self.openings_in_row = 0;
        self.current = Counts::default();
        self.previous = Counts::default();
        self.half_window_ends = now + self.settings.window / 2;
    }

    fn slide(&mut self, now: Time) {
        if now < self.half_window_ends {
            return;
        }
        let half = self.settings.window / 2;
        let skipped = now >= self.half_window_ends + half;
        self.previous = if skipped { Counts::default() } else { self.current };
        self.current = Counts::default();
        self.half_window_ends = if skipped { now + half } else { self.half_window_ends + half };
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failure_rate_threshold: 0.2,
            min_failures: 5,
            window: Duration::from_secs(5),
            open: Duration::from_secs(1),
            open_max: Duration::from_secs(60),
            trials: 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings::default(), Time::ZERO)
    }

    #[test]
    fn a_rate_under_the_threshold_keeps_it_closed() {
        let mut breaker = breaker();
        for second in 0..60 {
            assert!(!breaker.record(Time::from_secs(second), 85, 15));
        }
        assert_eq!(breaker.state(Time::from_secs(60)), BreakerState::Closed);
    }

    #[test]
    fn few_failures_mean_nothing_whatever_their_share() {
        let mut breaker = breaker();
        assert!(!breaker.record(Time::from_millis(1), 0, 4));
        assert!(breaker.allows(Time::from_millis(1)));
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = breaker();
        breaker.record(Time::from_millis(1), 0, 4);
        assert!(!breaker.record(Time::from_secs(6), 0, 4));
    }

    #[test]
    fn it_opens_at_the_rate_tries_after_its_time_and_closes_after_good_trials() {
        let mut breaker = breaker();
        assert!(breaker.record(Time::from_millis(10), 20, 5));
        assert_eq!(breaker.state(Time::from_millis(10)), BreakerState::Open);
        assert!(!breaker.allows(Time::from_millis(1_009)));
        assert_eq!(breaker.state(Time::from_millis(1_010)), BreakerState::HalfOpen);
        breaker.record(Time::from_millis(1_020), 2, 0);
        assert_eq!(breaker.state(Time::from_millis(1_020)), BreakerState::HalfOpen);
        breaker.record(Time::from_millis(1_030), 1, 0);
        assert_eq!(breaker.state(Time::from_millis(1_030)), BreakerState::Closed);
    }

    #[test]
    fn a_failed_trial_doubles_the_open_time_up_to_its_bound() {
        let mut breaker = breaker();
        breaker.trip(Time::ZERO);
        let mut now = Time::ZERO;
        for open_secs in [2, 4, 8, 16, 32, 60, 60] {
            now += Duration::from_secs(60);
            assert!(breaker.record(now, 0, 1));
            assert!(!breaker.allows(now + Duration::from_secs(open_secs) - Duration::from_millis(1)));
            assert!(breaker.allows(now + Duration::from_secs(open_secs)));
        }
    }
}
