//! From trouble to a switch: when the active is left, for whom, and what follows when that does not work.

use std::time::Duration;

use super::action::{Action, Availability, Decision, DecisionKind, Switch, SwitchId, SwitchKind, Trigger};
use super::engine::{Engine, Pending, Wanted};
use super::event::{BackendId, Standing, SwitchResult};
use super::evidence::Failure;
use super::selection::{self, Weighing};
use super::settings::DataMode;
use super::time::Time;

/// A planned switch (a recovery) that was refused is not tried again sooner than this.
const PLANNED_RETRY: Duration = Duration::from_secs(1);

/// How often everybody is asked while nobody serves: who is back serves within 200 ms.
pub(super) const PROBE_ALL_EVERY: Duration = Duration::from_millis(100);

impl Engine {
    /// Runs after every event: looks at everything that is known and begins at most one switch.
    pub(super) fn decide(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.give_up_hopeless(now, actions);
        self.look_again(now, actions);
        if self.pending.is_none() {
            if self.availability == Availability::NoBackend {
                self.return_to_service(now, actions);
            } else if let Some(failure) = self.hard_failure(now) {
                self.fail_over(now, &failure, actions);
            } else {
                self.end_hold(now, actions);
                self.improve(now, actions);
            }
        }
        self.schedule(now);
    }

    /// A first sign that the active is not ready, or a replica, is confirmed or refuted within moments.
    fn look_again(&mut self, now: Time, actions: &mut Vec<Action>) {
        let active = self.active;
        if self.backend(active).look_due(&self.settings).is_some_and(|due| now >= due) {
            self.backend_mut(active).look();
            actions.push(Action::ProbeNow { backend: active });
        }
    }

    pub(super) fn weighing(&self, now: Time, only_well: bool) -> Weighing {
        Weighing { now, leaving: Some(self.active), sticky: self.sticky, only_well }
    }

    /// Begins a switch; one that is under way is superseded.
    pub(super) fn begin(&mut self, now: Time, wanted: Wanted, actions: &mut Vec<Action>) {
        let Wanted { to, trigger, kind, planned, why } = wanted;
        if let Some(pending) = self.pending.take() {
            self.abandoned = Some(pending.switch);
        }
        self.last_id += 1;
        self.attempts = self.attempts.saturating_add(1);
        let id = SwitchId(self.last_id);
        // An attempt that follows a fruitless one to the same backend is recorded only if it ends otherwise.
        let recorded = self.backend(to).entry.why.is_none();
        if recorded {
            let weighing =
                Weighing { leaving: Some(self.active).filter(|active| *active != to), ..self.weighing(now, false) };
            let decision = Decision {
                trigger: Some(trigger),
                switch: Some(id),
                evidence_for: self.backend(self.active).evidence_for(now),
                candidates: selection::explain(&self.backends, &self.settings, weighing, Some(to)),
                ..Decision::about(now, DecisionKind::SwitchBegan, to, why.clone())
            };
            actions.push(Action::Record(decision));
        }
        let switch = Switch { id, from: self.active, to, trigger, kind, planned, reason: why };
        actions.push(Action::Switch(switch.clone()));
        self.pending = Some(Pending { switch, deadline: now + self.settings.failover.switch_timeout, recorded });
    }

    pub(super) fn on_switch_done(&mut self, now: Time, id: SwitchId, result: SwitchResult, actions: &mut Vec<Action>) {
        if self.pending.as_ref().is_some_and(|pending| pending.switch.id == id) {
            if let Some(pending) = self.pending.take() {
                self.end(now, pending, result, actions);
            }
        } else if self.abandoned.as_ref().is_some_and(|switch| switch.id == id) && result == SwitchResult::Done {
            // Given up here but carried out there: the route is what it is.
            if let Some(switch) = self.abandoned.take() {
                self.entered(now, &switch, actions);
            }
        }
    }

    /// Ends a switch that cannot succeed any more, or that nobody answered.
    fn give_up_hopeless(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(pending) = &self.pending else { return };
        let to = self.backend(pending.switch.to);
        let result = if let Some(failure) = &to.failure {
            SwitchResult::Failed { why: failure.why.clone() }
        } else if let Standing::Refused { why } = &to.standing {
            SwitchResult::Refused { why: why.clone() }
        } else if now >= pending.deadline {
            SwitchResult::Failed { why: "not carried out in time".to_owned() }
        } else {
            return;
        };
        if let Some(pending) = self.pending.take() {
            self.abandoned = Some(pending.switch.clone());
            self.end(now, pending, result, actions);
        }
    }

    fn end(&mut self, now: Time, pending: Pending, result: SwitchResult, actions: &mut Vec<Action>) {
        let switch = pending.switch;
        let (failover, planned) = (&self.settings.failover, switch.planned);
        let first = if planned { PLANNED_RETRY.max(failover.retry) } else { failover.retry };
        let longest = failover.retry_max.max(first);
        let to = self.backend_mut(switch.to);
        let recorded = match &result {
            SwitchResult::Done => true,
            SwitchResult::Refused { why } | SwitchResult::Failed { why } => {
                let news = pending.recorded || to.entry.why.as_ref() != Some(why);
                let refused = matches!(result, SwitchResult::Refused { .. });
                to.entry.block(now, why.clone(), refused, first, longest);
                to.entry.planned = planned && !refused;
                news
            }
        };
        if recorded {
            let decision = Decision {
                trigger: Some(switch.trigger),
                switch: Some(switch.id),
                result: Some(result.clone()),
                ..Decision::about(now, DecisionKind::SwitchEnded, switch.to, switch.reason.clone())
            };
            actions.push(Action::Record(decision));
        }
        if result == SwitchResult::Done {
            self.entered(now, &switch, actions);
        }
    }

    fn entered(&mut self, now: Time, switch: &Switch, actions: &mut Vec<Action>) {
        if !switch.planned && switch.to != self.active {
            self.recovery.left(now, &self.settings.recovery);
            // Probes may have been well all the time: the delay of the way back counts from here.
            let left = self.active;
            self.backend_mut(left).unwell();
        }
        let by_recovery = self.is_recovery_of(switch.to, switch.kind);
        if switch.to != self.active {
            self.recovery.entered(now, by_recovery);
        }
        if switch.kind == SwitchKind::Manual {
            self.held_by_operator = switch.to != self.primary;
        }
        if switch.to != self.primary {
            self.sticky = Some(switch.to);
        }
        self.active = switch.to;
        self.epoch += 1;
        self.attempts = 0;
        self.stayed = None;
        self.backend_mut(switch.to).entered(now);
        self.publish(Availability::Serving, actions);
    }

    /// Why the active cannot serve at all, if so.
    fn hard_failure(&self, now: Time) -> Option<Failure> {
        let active = self.backend(self.active);
        if let Some(failure) = &active.failure {
            return Some(failure.clone());
        }
        let refusal = match &active.standing {
            Standing::Refused { why } => why.clone(),
            _ if active.needs_entry && active.entry.blocks(now) => active.entry.why.clone().unwrap_or_default(),
            _ => return None,
        };
        let why = format!("its content may not be served: {refusal}");
        Some(Failure { at: now, since: now, trigger: Trigger::HealthCheck, why })
    }

    fn fail_over(&mut self, now: Time, failure: &Failure, actions: &mut Vec<Action>) {
        let weighing = self.weighing(now, false);
        let best = selection::best(&self.backends, &self.settings, weighing);
        if let Some(to) = best {
            if self.hold(now, failure, to, actions) {
                return;
            }
            let trigger = self.trigger_of(failure);
            let why = format!("{}: {}", self.backend(self.active).settings.name, failure.why);
            self.begin(now, Wanted { to, trigger, kind: SwitchKind::Failover, planned: false, why }, actions);
            return;
        }
        let candidates = selection::explain(&self.backends, &self.settings, weighing, None);
        let why = format!("nobody can serve: {}", failure.why);
        let decision = Decision::about(now, DecisionKind::NoBackend, self.active, why);
        self.note(Decision { trigger: Some(failure.trigger), candidates, ..decision }, actions);
        self.publish(Availability::NoBackend, actions);
        self.probe_all(now, actions);
    }

    /// While nobody serves, the next interval is too far away.
    fn probe_all(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.probed_all_at.is_none_or(|last| now - last >= PROBE_ALL_EVERY) {
            self.probed_all_at = Some(now);
            actions.extend(self.backends.iter().map(|backend| Action::ProbeNow { backend: backend.settings.id }));
        }
    }

    /// Waits for a restarting active instead of entering a cold backup at once. True while it does.
    fn hold(&mut self, now: Time, failure: &Failure, to: BackendId, actions: &mut Vec<Action>) -> bool {
        let hold = self.settings.failover.hold;
        let applies = failure.trigger == Trigger::Connection
            && self.attempts == 0
            && self.backend(to).settings.data == DataMode::Cold
            && !hold.is_zero();
        let until = failure.since + hold;
        if !applies || now >= until {
            return false;
        }
        if !matches!(self.availability, Availability::Holding { .. }) {
            let why = format!("requests wait until {until} for a restart: {}", failure.why);
            let decision = Decision::about(now, DecisionKind::Held, self.active, why);
            self.note(Decision { trigger: Some(failure.trigger), ..decision }, actions);
            self.publish(Availability::Holding { until }, actions);
        }
        true
    }

    fn end_hold(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.attempts = 0;
        if matches!(self.availability, Availability::Holding { .. }) && !self.backend(self.active).needs_entry {
            let why = "the active came back within failover.hold".to_owned();
            self.note(Decision::about(now, DecisionKind::Held, self.active, why), actions);
            self.publish(Availability::Serving, actions);
        }
    }

    /// Nobody served until now: takes the first who can be entered, the old active included.
    fn return_to_service(&mut self, now: Time, actions: &mut Vec<Action>) {
        let weighing = Weighing { leaving: None, ..self.weighing(now, false) };
        let Some(to) = selection::best(&self.backends, &self.settings, weighing) else {
            return self.probe_all(now, actions);
        };
        let kind = if to == self.active { SwitchKind::Reentry } else { SwitchKind::Failover };
        let why = format!("{} answers: nobody served until now", self.backend(to).settings.name);
        self.begin(now, Wanted { to, trigger: Trigger::Cascade, kind, planned: false, why }, actions);
    }

    /// The active serves; is there something better to do?
    fn improve(&mut self, now: Time, actions: &mut Vec<Action>) {
        let active = self.backend(self.active);
        if active.needs_entry {
            let why = format!("{} has another identity: it is entered anew", active.settings.name);
            self.begin(
                now,
                Wanted {
                    to: self.active,
                    trigger: Trigger::Connection,
                    kind: SwitchKind::Reentry,
                    planned: false,
                    why,
                },
                actions,
            );
        } else if let Some(failure) = active.soft_failure(now, &self.settings) {
            self.leave_troubled(now, &failure, actions);
        } else if active.settings.last_resort && !self.held_by_operator {
            self.leave_last_resort(now, actions);
        } else {
            self.consider_recovery(now, actions);
        }
    }

    /// The active lives but serves badly: it is left only for somebody who is well.
    fn leave_troubled(&mut self, now: Time, failure: &Failure, actions: &mut Vec<Action>) {
        let name = &self.backend(self.active).settings.name;
        let why = format!("{name}: {}", failure.why);
        match selection::best(&self.backends, &self.settings, self.weighing(now, true)) {
            Some(to) => {
                let trigger = self.trigger_of(failure);
                self.begin(now, Wanted { to, trigger, kind: SwitchKind::Failover, planned: false, why }, actions);
            }
            None => {
                // The percentage in a rate failure changes with every window; the reason to stay does not.
                let why = format!("{name} serves badly but nobody else is well");
                self.note_stay(now, self.active, why, actions);
            }
        }
    }

    fn trigger_of(&self, failure: &Failure) -> Trigger {
        let cascading = self.active != self.primary || self.attempts > 0;
        if cascading { Trigger::Cascade } else { failure.trigger }
    }
}
