//! When the primary serves again, and how long it must have been well: `delay`, doubled with each relapse.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, SwitchKind, Trigger};
use super::engine::{Engine, Wanted};
use super::event::{BackendId, Standing};
use super::seed::mix;
use super::selection;
use super::settings::RecoverySettings;
use super::time::Time;

/// First wait before the last resort is left again for a backend that did not last; doubles with each relapse.
const LAST_RESORT_WAIT: Duration = Duration::from_millis(500);

/// The memory of earlier recoveries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Recovery {
    /// Recoveries that did not last, and when the last one was counted.
    relapses: u32,
    relapsed_at: Time,
    /// The present active was entered by a recovery then.
    recovered_at: Option<Time>,
    /// 0 to 50 thousandths of the delay are added, so that the sidecars of a fleet do not return in one instant.
    spread_permille: u32,
}

impl Recovery {
    pub(super) fn new(seed: u64) -> Self {
        Self { relapses: 0, relapsed_at: Time::ZERO, recovered_at: None, spread_permille: (mix(seed) % 51) as u32 }
    }

    /// Relapses that are not yet forgotten.
    pub(super) fn relapses(&self, now: Time, settings: &RecoverySettings) -> u32 {
        let forget_after = settings.forget_after.max(Duration::from_secs(1));
        let forgotten = (now - self.relapsed_at).as_micros() / forget_after.as_micros();
        self.relapses.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    pub(super) fn in_grace(&self, now: Time, settings: &RecoverySettings) -> bool {
        self.recovered_at.is_some_and(|at| now - at < settings.grace_period)
    }

    /// The active was entered, by a recovery or otherwise.
    pub(super) fn entered(&mut self, now: Time, by_recovery: bool) {
        self.recovered_at = by_recovery.then_some(now);
    }

    /// The active is left because it failed.
    pub(super) fn left(&mut self, now: Time, settings: &RecoverySettings) {
        if self.in_grace(now, settings) {
            self.relapses = self.relapses(now, settings).saturating_add(1);
            self.relapsed_at = now;
        }
        self.recovered_at = None;
    }

    fn delay(&self, now: Time, settings: &RecoverySettings) -> Duration {
        let doubled = settings.delay.saturating_mul(1 << self.relapses(now, settings).min(20));
        let delay = doubled.min(settings.delay_max.max(settings.delay));
        delay.saturating_add(delay / 1_000 * self.spread_permille)
    }
}

impl Engine {
    /// Goes back to the primary when all conditions hold.
    pub(super) fn consider_recovery(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(due) = self.recovery_due(now) else {
            self.stayed = None;
            return;
        };
        if now < due {
            return;
        }
        let primary = self.backend(self.primary);
        if let Standing::Refused { why } = &primary.standing {
            let why = format!("{} is well but may not be entered: {why}", primary.settings.name);
            self.note_stay(now, self.primary, why, actions);
            return;
        }
        let recovery = &self.settings.recovery;
        if !primary.baseline.within(recovery.latency_factor, recovery.latency_slack) {
            let why = format!("{} is back but slower than usual", primary.settings.name);
            self.note_stay(now, self.primary, why, actions);
            return;
        }
        if primary.entry.blocks(now) {
            return;
        }
        let why = format!("{} good probes in a row: the primary is well again", primary.probes_ok_in_row);
        let (trigger, kind) = (Trigger::HealthCheck, SwitchKind::Recovery);
        self.begin(now, Wanted { to: self.primary, trigger, kind, planned: true, why }, actions);
    }

    /// Leaves the embedded store as soon as a real backend can serve.
    pub(super) fn leave_last_resort(&mut self, now: Time, actions: &mut Vec<Action>) {
        let weighing = self.weighing(now, true);
        let Some(to) = selection::best(&self.backends, &self.settings, weighing) else { return };
        if self.backend(to).healthy_since.is_none_or(|since| now < since + self.last_resort_wait(now)) {
            return;
        }
        let why = "a real backend can serve again".to_owned();
        let (trigger, kind) = (Trigger::HealthCheck, SwitchKind::Recovery);
        self.begin(now, Wanted { to, trigger, kind, planned: true, why }, actions);
    }

    /// When the primary will have been well long enough, if nothing but time is missing.
    pub(super) fn recovery_waits_until(&self) -> Option<Time> {
        if self.backend(self.active).settings.last_resort && !self.held_by_operator {
            let since = self.backends.iter().filter_map(|backend| backend.healthy_since).min()?;
            return Some(since + self.last_resort_wait(since));
        }
        self.recovery_due(self.backend(self.primary).healthy_since?)
    }

    fn last_resort_wait(&self, now: Time) -> Duration {
        match self.recovery.relapses(now, &self.settings.recovery) {
            0 => Duration::ZERO,
            relapses => LAST_RESORT_WAIT.saturating_mul(1 << (relapses - 1).min(10)).min(self.settings.recovery.delay),
        }
    }

    fn recovery_due(&self, now: Time) -> Option<Time> {
        let (recovery, primary) = (&self.settings.recovery, self.backend(self.primary));
        let wanted = recovery.enabled && !self.held_by_operator && self.active != self.primary;
        if !wanted || primary.probes_ok_in_row < recovery.threshold || !primary.looks_well(now) {
            return None;
        }
        primary.healthy_since.map(|since| since + self.recovery.delay(now, recovery))
    }

    pub(super) fn is_recovery_of(&self, to: BackendId, kind: SwitchKind) -> bool {
        kind == SwitchKind::Recovery || to == self.primary && self.active != self.primary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_with_each_relapse_up_to_its_bound_and_decays() {
        let settings = RecoverySettings::default();
        let mut recovery = Recovery { spread_permille: 0, ..Recovery::new(7) };
        let mut now = Time::from_secs(1);
        for seconds in [15, 30, 60, 120, 240, 300, 300] {
            assert_eq!(recovery.delay(now, &settings), Duration::from_secs(seconds));
            recovery.entered(now, true);
            now += Duration::from_secs(59);
            recovery.left(now, &settings);
        }
        assert_eq!(recovery.relapses(now, &settings), 7);
        assert_eq!(recovery.delay(now + Duration::from_secs(600 * 6), &settings), Duration::from_secs(30));
        assert_eq!(recovery.delay(now + Duration::from_secs(600 * 7), &settings), Duration::from_secs(15));
    }

    #[test]
    fn a_failure_long_after_a_recovery_is_no_relapse() {
        let settings = RecoverySettings::default();
        let mut recovery = Recovery::new(7);
        recovery.entered(Time::from_secs(1), true);
        recovery.left(Time::from_secs(100), &settings);
        assert_eq!(recovery.relapses(Time::from_secs(100), &settings), 0);
    }

    #[test]
    fn the_spread_is_within_five_percent_whatever_the_seed() {
        let settings = RecoverySettings::default();
        let delays: Vec<_> = (0..100).map(|seed| Recovery::new(seed).delay(Time::ZERO, &settings)).collect();
        assert!(delays.iter().all(|delay| (15_000..=15_750).contains(&delay.as_millis())), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
