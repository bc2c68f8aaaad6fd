//! When the primary serves again, and how long it must have been well: `delay`, doubled with each relapse.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Check, CheckName, SwitchKind, Trigger};
use super::engine::{Engine, Purpose, Stay, Wanted};
use super::event::{BackendId, Standing};
use super::guards::Way;
use super::seed::mix;
use super::selection::{self, Weighing};
use super::settings::RecoverySettings;
use super::time::Time;

/// First wait before the last resort is left again for a backend that did not last; doubles with each relapse.
const LAST_RESORT_WAIT: Duration = Duration::from_millis(500);

/// A server that evicts nothing is full from here: what it missed is still to come.
const FULL_SHARE: f64 = 0.95;

/// The memory of earlier recoveries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Recovery {
    /// Recoveries that did not last, and when the last one was counted.
    relapses: u32,
    relapsed_at: Time,
    /// The present active was entered by a recovery then.
    recovered_at: Option<Time>,
    /// After a staged plan that did not end well, the next recovery waits until then.
    #[serde(default)]
    put_off_until: Option<Time>,
    /// 0 to 50 thousandths of the delay are added, so that the sidecars of a fleet do not return in one instant.
    spread_permille: u32,
}

impl Recovery {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            relapses: 0,
            relapsed_at: Time::ZERO,
            recovered_at: None,
            put_off_until: None,
            spread_permille: (mix(seed) % 51) as u32,
        }
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

    /// A staged plan did not end well: that is a relapse, and what was well all the time waits as if it had just come back.
    pub(super) fn put_off(&mut self, now: Time, settings: &RecoverySettings) {
        self.relapses = self.relapses(now, settings).saturating_add(1);
        self.relapsed_at = now;
        self.put_off_until = Some(now + self.delay(now, settings));
    }

    fn delay(&self, now: Time, settings: &RecoverySettings) -> Duration {
        let doubled = settings.delay.saturating_mul(1 << self.relapses(now, settings).min(20));
        let delay = doubled.min(settings.delay_max.max(settings.delay));
        delay.saturating_add(delay / 1_000 * self.spread_permille)
    }
}

impl Engine {
    /// Goes back to the primary (or to where an operator pinned) when all conditions hold.
    pub(super) fn consider_recovery(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(due) = self.recovery_due(now) else {
            self.forget_stay();
            return;
        };
        if now < due {
            return;
        }
        let to = self.home(now);
        let mut checks = self.verify(now, to);
        checks.extend(self.guard(now, Way::Return, Trigger::HealthCheck, Some(to)));
        let name = self.name(to).to_owned();
        if let Some(check) = checks.iter().find(|check| !check.passed) {
            let why = match check.name {
                CheckName::Latency => format!("{name} is back but slower than usual"),
                CheckName::Standing => format!("{name} is well but may not be entered: {}", check.text),
                _ => format!("{name} is back but does not serve yet: {}", check.text),
            };
            let topic = format!("{name} is back: {}", check.name.name());
            return self.note_stay(now, Stay { backend: to, topic, why, checks, confidence: None }, actions);
        }
        if self.backend(to).entry.blocks(now) {
            return;
        }
        let who = if to == self.primary { "the primary" } else { "the pinned backend" };
        let wanted = Wanted {
            to,
            trigger: Trigger::HealthCheck,
            kind: SwitchKind::Recovery,
            planned: true,
            plan: self.settings.recovery.plan,
            purpose: Purpose::Automatic,
            confidence: None,
            checks,
            why: format!("{} good probes in a row: {who} is well again", self.backend(to).probes_ok_in_row),
        };
        self.want(now, wanted, actions);
    }

    /// Everything that is asked of a backend before clients are brought back to it.
    fn verify(&self, now: Time, id: BackendId) -> Vec<Check> {
        let (backend, recovery) = (self.backend(id), &self.settings.recovery);
        let ok = backend.probes_ok_in_row;
        let latency = match (backend.baseline.recent(), backend.baseline.well()) {
            (Some(recent), Some(well)) => format!("probes take {recent:?}, usually {well:?}"),
            _ => "no baseline yet".to_owned(),
        };
        let standing = match &backend.standing {
            Standing::Enterable => "its content may be served".to_owned(),
            Standing::Unknown => "not known yet; the switch itself finds out".to_owned(),
            Standing::Refused { why } => why.clone(),
        };
        let memory = backend.signals.memory;
        let full =
            memory.is_some_and(|memory| !memory.evicts && memory.share().is_some_and(|share| share >= FULL_SHARE));
        let room = match memory {
            Some(memory) if memory.max_bytes > 0 => {
                format!("{} of {} bytes are used", memory.used_bytes, memory.max_bytes)
            }
            _ => "its memory has no limit, as far as is known".to_owned(),
        };
        vec![
            Check::new(CheckName::Memory, !full, room),
            Check::new(CheckName::Connect, ok >= recovery.threshold, format!("{ok} good probes in a row")),
            Check::new(
                CheckName::Role,
                !backend.wrong_role.any(now),
                "it is a master, or follows the active by rights",
            ),
            Check::new(CheckName::Ready, !backend.not_ready.signs.any(now), "it is not loading, and can write"),
            Check::new(CheckName::Standing, !matches!(backend.standing, Standing::Refused { .. }), standing),
            Check::new(
                CheckName::Latency,
                backend.baseline.within(recovery.latency_factor, recovery.latency_slack),
                latency,
            ),
        ]
    }

    /// Leaves the embedded store as soon as a real backend can serve: for the best, which is the primary if it is as well
    /// as the others.
    pub(super) fn leave_last_resort(&mut self, now: Time, actions: &mut Vec<Action>) {
        let weighing = Weighing { home: Some(self.home(now)), ..self.weighing(now, true) };
        let Some(to) = selection::best(&self.backends, &self.settings, weighing) else { return };
        if self.backend(to).healthy_since.is_none_or(|since| now < since + self.last_resort_wait(now)) {
            return;
        }
        let wanted = Wanted {
            to,
            trigger: Trigger::HealthCheck,
            kind: SwitchKind::Recovery,
            planned: true,
            plan: self.settings.recovery.plan,
            purpose: Purpose::Automatic,
            confidence: None,
            checks: Vec::new(),
            why: "a real backend can serve again".to_owned(),
        };
        self.want(now, wanted, actions);
    }

    /// When the primary will have been well long enough, if nothing but time is missing.
    pub(super) fn recovery_waits_until(&self, now: Time) -> Option<Time> {
        if self.backend(self.active).settings.last_resort && !self.operators.held {
            let since = self.backends.iter().filter_map(|backend| backend.healthy_since).min()?;
            return Some(since + self.last_resort_wait(since));
        }
        self.recovery_due(now)
    }

    fn last_resort_wait(&self, now: Time) -> Duration {
        match self.recovery.relapses(now, &self.settings.recovery) {
            0 => Duration::ZERO,
            relapses => LAST_RESORT_WAIT.saturating_mul(1 << (relapses - 1).min(10)).min(self.settings.recovery.delay),
        }
    }

    /// The recovery's own delay, and whatever else a switch has to wait for that can wait.
    fn recovery_due(&self, now: Time) -> Option<Time> {
        let id = self.home(now);
        let (settings, home) = (&self.settings, self.backend(id));
        let recovery = &settings.recovery;
        let pinned = id != self.primary;
        let wanted = (recovery.enabled || pinned) && !self.operators.held && self.active != id;
        if !wanted || self.operators.is_excluded(id) || self.staged.is_some() {
            return None;
        }
        if home.probes_ok_in_row < recovery.threshold || !home.looks_well(now) {
            return None;
        }
        let since = home.healthy_since?;
        let due = since + self.recovery.delay(now, recovery);
        let waits = [self.return_cools_until(now), self.guards.suspect_until(now), self.recovery.put_off_until];
        Some(waits.into_iter().flatten().fold(due, Time::max))
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
