//! What keeps the engine from switching too often, for nothing, or because of itself.
//!
//! Guards are asked about switches that can wait: away from an active that lives but serves badly, and back to the
//! primary. Never about an active that is dead: a living backend is better than a dead one whatever happened before, so
//! neither the cool-down nor the hourly bound can keep clients there; nor on one that refuses everything, or every write.
//! A person's command passes them all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Check, CheckName, Trigger};
use super::backend::Backend;
use super::engine::Engine;
use super::event::{BackendId, CommandClass};
use super::evidence::Failure;
use super::score::score;
use super::settings::{FailoverSettings, RecoverySettings, Settings};
use super::time::{Roughly, Time};

const HOUR: Duration = Duration::from_secs(3_600);
/// After a stall of our own, what looks slow or failing is not believed for this long at least: every figure of that time
/// is tainted.
const SUSPECT_MIN: Duration = Duration::from_secs(1);
const SUSPECT_MAX: Duration = Duration::from_secs(10);
/// What was slow alike is well again alike, but not in one instant: probes tell of it sooner than rare requests.
const ALIKE_FOR: Duration = Duration::from_secs(5);
/// Late ticks below this are ordinary.
const SUSPECT_FROM: Duration = Duration::from_millis(250);

/// What guards remember of earlier switches. There are two ladders: one for leaving a living backend that serves badly, one
/// for ways back. Deaths are nobody's choice and climb neither: else clients would be kept for up to an hour on a backend
/// that serves badly, or away from a primary that is well, because others had died.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Guards {
    improvements: Ladder,
    returns: Ladder,
    /// The last automatic switch of any kind.
    moved_at: Option<Time>,
    /// Improvements, the newest last; as many as the hourly bound needs.
    improved_at: Vec<Time>,
    /// This process ran late: nothing soft is believed until then.
    suspect_until: Option<Time>,
}

/// An automatic switch from one backend to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Away from what is dead, or serves nothing.
    Rescue,
    /// Away from what lives and serves badly.
    Improve,
    Return,
}

/// A cool-down that doubles with each switch and decays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Ladder {
    last: Option<Time>,
    level: u32,
}

impl Ladder {
    /// The present length: doubled by each switch after the first.
    fn cooldown(self, failover: &FailoverSettings) -> Duration {
        let doublings = self.level.saturating_sub(1).min(20);
        failover.cooldown.saturating_mul(1 << doublings).min(failover.cooldown_max.max(failover.cooldown))
    }

    /// One doubling goes with each `forget_after` without a switch after `cooled`, the end of the cool-down. Were the
    /// cool-down itself counted, a flapping primary would be forgiven while it is waited for.
    fn climb(&mut self, now: Time, cooled: Option<Time>, recovery: &RecoverySettings) {
        let forget_after = recovery.forget_after.max(Duration::from_secs(1));
        let forgotten = cooled.map_or(0, |cooled| (now - cooled).as_micros() / forget_after.as_micros());
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.level = self.level.saturating_sub(forgotten).saturating_add(1);
        self.last = Some(now);
    }
}

impl Guards {
    /// The route has moved without an operator's word.
    pub(super) fn switched(&mut self, now: Time, way: Way, failover: &FailoverSettings, recovery: &RecoverySettings) {
        match way {
            Way::Rescue => {}
            Way::Return => self.returns.climb(now, self.returns_until(failover), recovery),
            Way::Improve => {
                self.improvements.climb(now, self.cools_until(failover), recovery);
                let keep = failover.max_per_hour.max(1) as usize;
                if self.improved_at.len() >= keep {
                    self.improved_at.drain(..=self.improved_at.len() - keep);
                }
                self.improved_at.push(now);
            }
        }
        self.moved_at = Some(now);
    }

    pub(super) fn ran_late(&mut self, now: Time, late: Duration) {
        if late >= SUSPECT_FROM {
            self.suspect_until = self.suspect_until.max(Some(now + late.clamp(SUSPECT_MIN, SUSPECT_MAX)));
        }
    }

    /// Until when leaving a living active has to wait; `None` before the first switch. A new active gets the shortest
    /// cool-down at least.
    pub(super) fn cools_until(&self, failover: &FailoverSettings) -> Option<Time> {
        let since_moved = self.moved_at.map(|at| at + failover.cooldown);
        since_moved.max(self.improvements.last.map(|last| last + self.improvements.cooldown(failover)))
    }

    /// Until when the way back has to wait: as long since the last switch as the earlier ways back have doubled it.
    fn returns_until(&self, failover: &FailoverSettings) -> Option<Time> {
        let next = Ladder { level: self.returns.level.saturating_add(1), ..self.returns };
        self.moved_at.map(|at| at + next.cooldown(failover))
    }

    fn within_an_hour(&self, now: Time) -> usize {
        self.improved_at.iter().filter(|at| now - **at < HOUR).count()
    }

    /// When the oldest of the improvements that fill the hour is an hour old.
    pub(super) fn hour_is_full_until(&self, now: Time, failover: &FailoverSettings) -> Option<Time> {
        let allowed = failover.max_per_hour.max(1) as usize;
        let full = self.within_an_hour(now) >= allowed;
        full.then(|| self.improved_at[self.improved_at.len() - allowed] + HOUR)
    }

    pub(super) fn suspect_until(&self, now: Time) -> Option<Time> {
        self.suspect_until.filter(|until| now < *until)
    }
}

/// Whether probes of a backend take longer than they should, by the rule for leaving the active.
pub(super) fn is_slow(backend: &Backend, settings: &Settings) -> bool {
    let (Some(well), Some(recent)) = (backend.baseline.well(), backend.baseline.recent()) else { return false };
    let performance = &settings.performance;
    let limit = well.mul_f64(1.0 + performance.degradation_threshold).max(well + performance.min_shift);
    recent > limit
}

impl Engine {
    /// Answers of the guards about a switch that can wait, for the reasons of `trigger`.
    pub(super) fn guard(&self, now: Time, way: Way, trigger: Trigger, to: Option<BackendId>) -> Vec<Check> {
        let failover = &self.settings.failover;
        let cools_until = match way {
            Way::Return => self.return_cools_until(now),
            Way::Improve | Way::Rescue => self.guards.cools_until(failover),
        };
        let full_until = self.guards.hour_is_full_until(now, failover).filter(|_| way != Way::Return);
        let mut checks = Vec::new();
        let mut check = |name, passed, text: String| checks.push(Check::new(name, passed, text));
        match self.operators.pinned(now) {
            Some(pin) if pin.backend == self.active && to != Some(self.active) => {
                check(CheckName::Pin, false, format!("an operator pinned {}: {}", self.name(pin.backend), pin.reason));
            }
            _ => check(CheckName::Pin, true, "no pin is in the way".to_owned()),
        }
        match cools_until.filter(|until| now < *until) {
            Some(until) => check(
                CheckName::Cooldown,
                false,
                format!("the last switch is too recent, for another {}", Roughly(until - now)),
            ),
            None => check(CheckName::Cooldown, true, "no switch lately".to_owned()),
        }
        match full_until {
            Some(until) => {
                let left = Roughly(until - now);
                let text = format!("{} switches within an hour, for another {left}", failover.max_per_hour);
                check(CheckName::PerHour, false, text);
            }
            None => check(CheckName::PerHour, true, "fewer switches in this hour than allowed".to_owned()),
        }
        match self.guards.suspect_until(now) {
            Some(until) => {
                let left = Roughly(until - now);
                let text = format!("this process ran late: what looks slow may be itself, for another {left}");
                check(CheckName::Ourselves, false, text);
            }
            None => check(CheckName::Ourselves, true, "this process runs in time".to_owned()),
        }
        if matches!(trigger, Trigger::Performance | Trigger::Timeout) {
            checks.push(self.slow_alike(now));
        }
        checks
    }

    /// The cool-down of the way back. One that has been well for `recovery.delay_max` is no flapping one: it is not waited
    /// for any longer.
    pub(super) fn return_cools_until(&self, now: Time) -> Option<Time> {
        let well_since = self.backend(self.home(now)).healthy_since;
        let enough = well_since.map(|since| since + self.settings.recovery.delay_max.max(self.settings.recovery.delay));
        let until = self.guards.returns_until(&self.settings.failover)?;
        Some(enough.map_or(until, |enough| until.min(enough)))
    }

    /// The guards of a switch away from a living active, also: is the target any better?
    pub(super) fn guard_soft(
        &self,
        now: Time,
        failure: &Failure,
        faster_than: Option<(CommandClass, Duration)>,
        to: Option<BackendId>,
    ) -> Vec<Check> {
        let mut checks = self.guard(now, Way::Improve, failure.trigger, to);
        if failure.total {
            // What it would spare clients is a switch; what it would cost them is everything they ask.
            let spares = |check: &&mut Check| matches!(check.name, CheckName::Cooldown | CheckName::PerHour);
            for check in checks.iter_mut().filter(spares).filter(|check| !check.passed) {
                check.passed = true;
                check.text.push_str(", but what is left serves nothing");
            }
        }
        if let (Some(to), Some((class, limit))) = (to, faster_than) {
            // Compared in what it is left for: the score of a backend that serves nobody knows of no slow requests.
            let latency = self.backend(to).expected_latency(now, class).map(|expected| expected.latency);
            let faster = latency.is_some_and(|latency| latency < limit);
            let text = format!("{} is expected to take {latency:?}, less than {limit:?}", self.name(to));
            checks.push(Check::new(CheckName::Better, faster, text));
        } else if let Some(to) = to {
            let (here, there) =
                (score(self.backend(self.active), &self.settings, now), score(self.backend(to), &self.settings, now));
            let names = (self.name(self.active), self.name(to));
            let text = format!("{} has a score of {here}, {} of {there}", names.0, names.1);
            checks.push(Check::new(CheckName::Better, there > here, text));
        }
        checks
    }

    /// When every other living backend is slower than usual too, the fault is ours or the network's.
    fn slow_alike(&self, now: Time) -> Check {
        let others = self.backends.iter().filter(|backend| {
            backend.settings.id != self.active && !backend.settings.last_resort && backend.failure.is_none()
        });
        let measured: Vec<_> = others.filter(|backend| backend.baseline.well().is_some()).collect();
        let slow_lately = |backend: &&&Backend| backend.slow_at.is_some_and(|at| now - at <= ALIKE_FOR);
        let slow = measured.iter().filter(slow_lately).count();
        if !measured.is_empty() && slow == measured.len() {
            let text = format!("all {slow} others are slower than usual too: the fault is ours or the network's");
            Check::new(CheckName::SlowAlike, false, text)
        } else {
            Check::new(CheckName::SlowAlike, true, format!("{slow} of {} others are slow too", measured.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_cool_down_doubles_with_each_switch_up_to_its_bound_and_decays() {
        let (failover, recovery) = (FailoverSettings::default(), RecoverySettings::default());
        let mut guards = Guards::default();
        let mut now = Time::from_secs(1);
        assert_eq!(guards.cools_until(&failover), None);
        for seconds in [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 1_800, 1_800] {
            guards.switched(now, Way::Improve, &failover, &recovery);
            assert_eq!(guards.cools_until(&failover), Some(now + Duration::from_secs(seconds)));
            now += MINUTE;
        }
        now += Duration::from_secs(1_800 - 60) + 10 * recovery.forget_after;
        guards.switched(now, Way::Improve, &failover, &recovery);
        assert_eq!(guards.cools_until(&failover), Some(now + Duration::from_secs(10)), "one of eleven was left");
        now += 100 * recovery.forget_after;
        guards.switched(now, Way::Improve, &failover, &recovery);
        assert_eq!(guards.cools_until(&failover), Some(now + Duration::from_secs(5)));
    }

    #[test]
    fn deaths_keep_nobody_from_better_service_longer_than_the_shortest_cool_down() {
        let (failover, recovery) = (FailoverSettings::default(), RecoverySettings::default());
        let mut guards = Guards::default();
        let mut now = Time::from_secs(1);
        for _ in 0..20 {
            now += MINUTE;
            guards.switched(now, Way::Rescue, &failover, &recovery);
        }
        assert_eq!(guards.cools_until(&failover), Some(now + failover.cooldown));
        assert_eq!(guards.returns_until(&failover), Some(now + failover.cooldown));
        assert_eq!(guards.hour_is_full_until(now, &failover), None);
    }

    #[test]
    fn an_hour_that_is_full_empties_with_its_oldest_switch() {
        let failover = FailoverSettings { max_per_hour: 3, ..FailoverSettings::default() };
        let recovery = RecoverySettings::default();
        let mut guards = Guards::default();
        for minute in [0, 10, 20, 30] {
            guards.switched(Time::ZERO + minute * MINUTE, Way::Improve, &failover, &recovery);
        }
        let now = Time::ZERO + 31 * MINUTE;
        assert_eq!(guards.hour_is_full_until(now, &failover), Some(Time::ZERO + 70 * MINUTE));
        assert_eq!(guards.hour_is_full_until(Time::ZERO + 70 * MINUTE, &failover), None);
        assert_eq!(guards.improved_at.len(), 3, "no more is remembered than is needed");
    }

    #[test]
    fn a_small_delay_of_ours_is_ordinary_and_a_long_one_is_suspect_for_a_bounded_time() {
        let mut guards = Guards::default();
        let now = Time::from_secs(100);
        guards.ran_late(now, Duration::from_millis(200));
        assert_eq!(guards.suspect_until(now), None);
        guards.ran_late(now, Duration::from_millis(300));
        assert_eq!(guards.suspect_until(now), Some(now + SUSPECT_MIN));
        guards.ran_late(now, Duration::from_secs(300));
        assert_eq!(guards.suspect_until(now), Some(now + SUSPECT_MAX));
        assert_eq!(guards.suspect_until(now + SUSPECT_MAX), None);
    }
}
