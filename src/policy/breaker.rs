//! A circuit breaker on the requests of one backend. `open` means that traffic is stopped.
//!
//! It opens on a share of failures that is believed: the plain share over the threshold, and Wilson's lower bound of it
//! over half the threshold. So five failures of five at 1 request/s open it, one of two does not, and at 100,000
//! requests/s the bound is no obstacle. Failures that all came with one tick's news are one event (a link that hung with
//! a pipeline on it) and never open it. Calls that are answered too late have a threshold of their own.
//!
//! Half-open, a bounded number of trials decides; each opening that follows a failed trial lasts twice as long, with
//! jitter, so that the sidecars of a fleet do not try in one instant.
//!
//! Where traffic goes on although it is open (a backend that is kept for want of a better one), that traffic decides, not
//! the clock: as long as it fails the breaker stays open, without growing, and when it has been well it closes. So it
//! neither tells of errors that are over, nor forgets those that go on because a few trials were lucky.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::seed::mix;
use super::slices::Slices;
use super::statistics::{CONFIDENT_Z, confidence_over, wilson_lower};
use super::time::Time;

/// Slices of the window: old calls go in tenths of it.
const SLICES: u64 = 10;
/// Up to so many percent are added to each open time.
const JITTER_PERCENT_MAX: u64 = 20;
/// Records with failures among them that a share must be made of.
const FAILING_RECORDS_MIN: u64 = 2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerSettings {
    /// Share of failed requests from which it opens, 0 to 1.
    pub failure_rate_threshold: f64,
    /// Share of slow requests from which it opens, 0 to 1; those that failed are not counted again.
    pub slow_rate_threshold: f64,
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

/// What ended since the last record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// In good time.
    pub succeeded: u64,
    pub failed: u64,
    /// Answered, but too late to be of use.
    pub slow: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    settings: BreakerSettings,
    seed: u64,
    /// `Time::ZERO` while closed, so that the check is one comparison.
    open_until: Time,
    opened: bool,
    openings_in_row: u32,
    openings: u64,
    trials_passed: u32,
    /// Trials that were let through and have not been answered.
    trials_out: u32,
    window: Slices<Tally>,
    opened_at: Time,
    /// The last call that failed or was slow.
    bad_at: Time,
    /// Good calls of traffic that goes on although it is open, since the last bad one.
    well_since: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    calls: Calls,
    failing_records: u64,
    slow_records: u64,
}

impl Calls {
    pub fn all(self) -> u64 {
        self.succeeded.saturating_add(self.failed).saturating_add(self.slow)
    }
}

impl Breaker {
    pub fn new(settings: BreakerSettings, seed: u64) -> Self {
        let window = Slices::new(settings.window / SLICES as u32, SLICES);
        Self {
            settings,
            seed,
            open_until: Time::ZERO,
            opened: false,
            openings_in_row: 0,
            openings: 0,
            trials_passed: 0,
            trials_out: 0,
            window,
            opened_at: Time::ZERO,
            bad_at: Time::ZERO,
            well_since: 0,
        }
    }

    /// Other rules from now on; what was counted stays.
    pub(super) fn configure(&mut self, settings: BreakerSettings) {
        self.settings = settings;
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

    /// As [`Self::allows`], and half-open it lets only so many through as would close it; each is to be recorded.
    pub fn try_pass(&mut self, now: Time) -> bool {
        if !self.opened {
            return true;
        }
        let room = self.allows(now) && self.trials_passed + self.trials_out < self.settings.trials;
        self.trials_out += u32::from(room);
        room
    }

    /// Counts what ended since the last call, of traffic that nothing holds back. Returns true when this opened the breaker.
    #[inline]
    pub fn record(&mut self, now: Time, calls: Calls) -> bool {
        let tally = self.window.at(now);
        tally.calls.succeeded += calls.succeeded;
        if calls.failed == 0 && calls.slow == 0 {
            if self.opened {
                self.went_well(now, calls.succeeded);
            }
            return false;
        }
        tally.calls.failed += calls.failed;
        tally.calls.slow += calls.slow;
        tally.failing_records += u64::from(calls.failed > 0);
        tally.slow_records += u64::from(calls.slow > 0);
        self.bad_at = now;
        if self.opened {
            self.went_badly(now, calls.succeeded);
            return false;
        }
        if !self.tripped(now) {
            return false;
        }
        self.open(now);
        true
    }

    /// Counts what was let through to try it. Returns true when that opened the breaker anew.
    pub fn record_trial(&mut self, now: Time, calls: Calls) -> bool {
        let ended = u32::try_from(calls.all()).unwrap_or(u32::MAX);
        self.trials_out = self.trials_out.saturating_sub(ended);
        if !self.opened || !self.allows(now) {
            return false;
        }
        if calls.failed + calls.slow > 0 {
            self.open(now);
            return true;
        }
        self.trials_passed = self.trials_passed.saturating_add(ended);
        let fails_all_the_same = self.bad_at > self.opened_at && self.is_failing(now);
        if self.trials_passed >= self.settings.trials && !fails_all_the_same {
            self.reset();
        }
        false
    }

    /// What it was opened for goes on, as far as is known: a bad call lately, and no fewer of them than half of what opens
    /// it.
    pub fn is_failing(&self, now: Time) -> bool {
        let lately = now - self.bad_at.max(self.opened_at) <= self.settings.window / 2;
        let half = |share: f64, threshold: f64| share > 0.0 && share >= threshold / 2.0;
        self.opened
            && lately
            && (half(self.failure_rate(now), self.settings.failure_rate_threshold)
                || half(self.slow_rate(now), self.settings.slow_rate_threshold))
    }

    /// Opens it whatever the counts say: a verdict of failure was reached by other means.
    pub fn trip(&mut self, now: Time) {
        if !self.opened {
            self.open(now);
        }
    }

    /// Closes it and forgets: what it was opened for is over.
    pub fn reset(&mut self) {
        self.opened = false;
        self.open_until = Time::ZERO;
        self.openings_in_row = 0;
        self.trials_out = 0;
        self.window.clear();
    }

    /// What ended within the window.
    pub fn calls(&self, now: Time) -> Calls {
        self.tally(now).calls
    }

    /// Share of failed requests within the window, 0 to 1.
    pub fn failure_rate(&self, now: Time) -> f64 {
        let calls = self.calls(now);
        share(calls.failed, calls.all())
    }

    /// Share of slow requests within the window, 0 to 1.
    pub fn slow_rate(&self, now: Time) -> f64 {
        let calls = self.calls(now);
        share(calls.slow, calls.all())
    }

    /// The share of failed requests is at least this, with 95 % confidence.
    pub fn failure_rate_at_least(&self, now: Time) -> f64 {
        let calls = self.calls(now);
        wilson_lower(calls.failed, calls.all(), CONFIDENT_Z)
    }

    /// How sure it is that one of the shares is over half its threshold, 0 to 1.
    pub fn confidence(&self, now: Time) -> f64 {
        let (calls, settings) = (self.calls(now), &self.settings);
        let failed = confidence_over(calls.failed, calls.all(), settings.failure_rate_threshold / 2.0);
        failed.max(confidence_over(calls.slow, calls.all(), settings.slow_rate_threshold / 2.0))
    }

    fn tally(&self, now: Time) -> Tally {
        self.window.all(now).fold(Tally::default(), |sum, slice| Tally {
            calls: Calls {
                succeeded: sum.calls.succeeded.saturating_add(slice.calls.succeeded),
                failed: sum.calls.failed.saturating_add(slice.calls.failed),
                slow: sum.calls.slow.saturating_add(slice.calls.slow),
            },
            failing_records: sum.failing_records + slice.failing_records,
            slow_records: sum.slow_records + slice.slow_records,
        })
    }

    fn tripped(&self, now: Time) -> bool {
        let (tally, settings) = (self.tally(now), &self.settings);
        let all = tally.calls.all();
        let over = |hits: u64, records: u64, threshold: f64| {
            hits >= u64::from(settings.min_failures)
                && records >= FAILING_RECORDS_MIN
                && share(hits, all) >= threshold
                && wilson_lower(hits, all, CONFIDENT_Z) >= threshold / 2.0
        };
        over(tally.calls.failed, tally.failing_records, settings.failure_rate_threshold)
            || over(tally.calls.slow, tally.slow_records, settings.slow_rate_threshold)
    }

    /// Traffic goes on and fails: nothing is to be tried before it has been well for a while.
    fn went_badly(&mut self, now: Time, succeeded: u64) {
        self.trials_passed = 0;
        if self.is_failing(now) {
            self.well_since = 0;
            self.open_until = self.open_until.max(now + self.settings.open);
        } else {
            // A failure now and then is no reason to be open.
            self.went_well(now, succeeded);
        }
    }

    /// Traffic goes on and is well.
    fn went_well(&mut self, now: Time, succeeded: u64) {
        self.well_since = self.well_since.saturating_add(succeeded);
        if self.well_since >= u64::from(self.settings.trials) && !self.is_failing(now) {
            self.reset();
        }
    }

    fn open(&mut self, now: Time) {
        let doublings = self.openings_in_row.min(16);
        let open = self.settings.open.saturating_mul(1 << doublings).min(self.settings.open_max);
        let percent = mix(self.seed ^ self.openings) % (JITTER_PERCENT_MAX + 1);
        self.opened = true;
        self.opened_at = now;
        self.well_since = 0;
        self.open_until = now + open + open / 100 * percent as u32;
        self.openings_in_row = self.openings_in_row.saturating_add(1);
        self.openings = self.openings.wrapping_add(1);
        self.trials_passed = 0;
        self.trials_out = 0;
    }
}

fn share(hits: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { hits as f64 / all as f64 }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failure_rate_threshold: 0.1,
            slow_rate_threshold: 0.5,
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

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings::default(), 1)
    }

    fn calls(succeeded: u64, failed: u64) -> Calls {
        Calls { succeeded, failed, slow: 0 }
    }

    /// A breaker that sees `per_second` requests of which every `nth` fails, in ticks of 50 ms; when it opened.
    fn opens_after(per_second: u64, nth: u64) -> Option<Duration> {
        let mut breaker = breaker();
        let (mut due, mut seen) = (0.0, 0);
        for tick in 0..20 * 60 * 10_u64 {
            let now = Time::from_millis(tick * 50);
            due += per_second as f64 / 20.0;
            let mut ended = Calls::default();
            while due >= 1.0 {
                due -= 1.0;
                seen += 1;
                let failed = seen % nth == 0;
                ended.failed += u64::from(failed);
                ended.succeeded += u64::from(!failed);
            }
            if ended.all() > 0 && breaker.record(now, ended) {
                return Some(now - Time::ZERO);
            }
        }
        None
    }

    #[test]
    fn it_means_the_same_at_any_load() {
        // A backend all of whose requests fail: five failures are needed, whatever they take to come.
        for (per_second, within_ms) in [(1, 5_000), (10, 600), (200, 100), (50_000, 100), (100_000, 100)] {
            let after = opens_after(per_second, 1);
            assert!(after.is_some_and(|after| after <= within_ms * MS), "{per_second}/s: {after:?}");
        }
        for per_second in [10, 20, 200, 50_000] {
            let after = opens_after(per_second, 5);
            assert!(after.is_some_and(|after| after <= 5_000 * MS), "a fifth of {per_second}/s: {after:?}");
            assert_eq!(opens_after(per_second, 50), None, "2 % of {per_second}/s are no reason");
        }
    }

    #[test]
    fn few_failures_mean_nothing_whatever_their_share() {
        let mut breaker = breaker();
        for step in 0..4 {
            assert!(!breaker.record(Time::from_millis(step), calls(0, 1)));
        }
        assert!(breaker.allows(Time::from_millis(4)));
    }

    #[test]
    fn failures_of_one_instant_are_one_event() {
        let mut breaker = breaker();
        assert!(!breaker.record(Time::from_millis(1), calls(0, 900)));
        assert!(breaker.record(Time::from_millis(51), calls(0, 1)), "two are a series");
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = breaker();
        breaker.record(Time::from_millis(1), calls(0, 4));
        assert!(!breaker.record(Time::from_secs(6), calls(0, 4)));
    }

    #[test]
    fn slow_calls_open_it_at_their_own_share() {
        let mut breaker = breaker();
        for tick in 0..100 {
            assert!(!breaker.record(Time::from_millis(tick * 50), Calls { succeeded: 6, failed: 0, slow: 4 }));
        }
        let slow = (100..200)
            .find(|tick| breaker.record(Time::from_millis(tick * 50), Calls { succeeded: 2, failed: 0, slow: 8 }));
        assert!(slow.is_some_and(|tick| tick < 160), "{slow:?}");
    }

    #[test]
    fn it_tries_after_its_time_and_closes_after_good_trials() {
        let mut breaker = breaker();
        breaker.record(Time::from_millis(5), calls(10, 2));
        let opened = Time::from_millis(10);
        assert!(breaker.record(opened, calls(10, 3)));
        assert_eq!(breaker.state(opened), BreakerState::Open);
        assert!(!breaker.try_pass(opened + 999 * MS));
        let later = opened + 1_200 * MS;
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        let passed = (0..10).filter(|_| breaker.try_pass(later)).count();
        assert_eq!(passed, 3, "a bounded number of trials");
        breaker.record_trial(later, calls(2, 0));
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        breaker.record_trial(later, calls(1, 0));
        assert_eq!(breaker.state(later), BreakerState::Closed);
        assert!(breaker.try_pass(later));
    }

    #[test]
    fn a_failed_or_slow_trial_doubles_the_open_time_up_to_its_bound() {
        for bad in [calls(2, 1), Calls { slow: 1, ..Calls::default() }] {
            let mut breaker = breaker();
            breaker.trip(Time::ZERO);
            let mut now = Time::ZERO;
            for open_secs in [2, 4, 8, 16, 32, 60, 60] {
                now += Duration::from_secs(100);
                assert!(breaker.record_trial(now, bad));
                assert!(!breaker.allows(now + Duration::from_secs(open_secs) - MS));
                assert!(breaker.allows(now + Duration::from_secs(open_secs) * 12 / 10));
            }
        }
    }

    /// Opened by errors, kept in service: ten requests in each 100 ms, `failed` of them, and a good trial twice a second.
    fn goes_on(breaker: &mut Breaker, from: Time, lasts: Duration, failed: u64) -> Time {
        let until = from + lasts;
        let mut now = from;
        while now < until {
            now += 100 * MS;
            breaker.record(now, calls(10 - failed, failed));
            if now.as_micros().is_multiple_of(500_000) {
                breaker.record_trial(now, calls(1, 0));
            }
        }
        now
    }

    #[test]
    fn errors_that_go_on_keep_it_open_for_as_long_as_they_do_and_no_longer() {
        for lasts in [Duration::from_secs(3), Duration::from_secs(600)] {
            let mut breaker = breaker();
            let mut now = goes_on(&mut breaker, Time::from_secs(1), Duration::from_secs(2), 4);
            let until = now + lasts;
            while now < until {
                now = goes_on(&mut breaker, now, 100 * MS, 4);
                assert!(breaker.is_failing(now) && breaker.state(now) != BreakerState::Closed, "{now}");
            }
            let ended = now;
            while breaker.state(now) != BreakerState::Closed {
                now = goes_on(&mut breaker, now, 100 * MS, 0);
                assert!(now - ended <= 2_600 * MS, "it closes soon, however long they went on");
            }
            assert!(!breaker.is_failing(now));
        }
    }

    #[test]
    fn a_failure_now_and_then_does_not_keep_it_open() {
        let mut breaker = breaker();
        let mut now = goes_on(&mut breaker, Time::from_secs(1), Duration::from_secs(2), 10);
        assert!(breaker.is_failing(now));
        for tick in 0..60 {
            // 2 % of the requests.
            now = goes_on(&mut breaker, now, 100 * MS, u64::from(tick % 5 == 0));
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert!(!breaker.is_failing(now));
    }

    #[test]
    fn without_traffic_what_opened_it_is_no_news_any_more_after_half_its_window() {
        let mut breaker = breaker();
        let now = goes_on(&mut breaker, Time::from_secs(1), Duration::from_secs(2), 10);
        let half = BreakerSettings::default().window / 2;
        assert!(breaker.is_failing(now + half));
        assert!(!breaker.is_failing(now + half + MS));
    }

    #[test]
    fn the_open_time_differs_between_seeds() {
        let until = |seed| {
            let mut breaker = Breaker::new(BreakerSettings::default(), seed);
            breaker.trip(Time::ZERO);
            breaker.open_until
        };
        let mut all: Vec<_> = (0..100).map(until).collect();
        all.sort_unstable();
        assert!(all[0] >= Time::from_millis(1_000) && all[99] <= Time::from_millis(1_200));
        all.dedup();
        assert!(all.len() > 10, "{all:?}");
    }
}
