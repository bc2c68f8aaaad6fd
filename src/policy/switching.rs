//! From trouble to a switch: when the active is left, for whom, and what follows when that does not work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{
    Action, Availability, Check, CheckName, Decision, DecisionKind, Switch, SwitchId, SwitchKind, Trigger,
};
use super::backend::Backend;
use super::engine::{Engine, Pending, Purpose, Stay, Wanted};
use super::event::{BackendId, CommandClass, Standing, SwitchResult};
use super::evidence::Failure;
use super::guards::Way;
use super::incident::Resolution;
use super::plan::Plan;
use super::selection::{self, Weighing};
use super::settings::{DataMode, Mode};
use super::time::{Roughly, Time};

/// A planned switch (a recovery) that was refused is not tried again sooner than this.
const PLANNED_RETRY: Duration = Duration::from_secs(1);

/// How often everybody is asked while nobody serves: who is back serves within 200 ms.
pub(super) const PROBE_ALL_EVERY: Duration = Duration::from_millis(100);

/// How long switches take, learnt from those that were made; before the first, as measured on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Delays {
    planned: Duration,
    urgent: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { planned: Duration::from_millis(10), urgent: Duration::from_millis(5) }
    }
}

impl Delays {
    pub(super) fn estimate(self, planned: bool) -> Duration {
        if planned { self.planned } else { self.urgent }
    }

    /// A quarter of the way to the newest: a handful of switches is all there ever is.
    fn learn(&mut self, planned: bool, took: Duration) {
        let kept = if planned { &mut self.planned } else { &mut self.urgent };
        *kept = *kept - *kept / 4 + took / 4;
    }
}

impl Engine {
    /// Runs after every event: looks at everything that is known and begins at most one switch.
    pub(super) fn decide(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.end_pin(now, actions);
        self.give_up_hopeless(now, actions);
        self.look_again(now, actions);
        if self.pending.is_none() {
            self.look_at_proposal(now, actions);
            if self.availability == Availability::NoBackend {
                self.return_to_service(now, actions);
            } else if let Some(failure) = self.hard_failure(now) {
                self.fail_over(now, &failure, actions);
            } else {
                self.end_hold(now, actions);
                self.improve(now, actions);
            }
            self.withdraw_unwished(now, actions);
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

    pub(super) fn weighing(&self, now: Time, only_well: bool) -> Weighing<'_> {
        Weighing {
            now,
            leaving: Some(self.active),
            sticky: self.sticky,
            home: None,
            only_well,
            only_writable: false,
            no_cascade_but: None,
            spent: false,
            faster_than: None,
            excluded: &self.operators.excluded,
        }
    }

    /// Who may follow an active that is dead.
    fn weighing_in_need(&self, now: Time) -> Weighing<'_> {
        let failover = &self.settings.failover;
        let cascading = self.active != self.primary || self.attempts > 0;
        Weighing {
            no_cascade_but: (cascading && !failover.cascade).then_some(self.primary),
            spent: self.attempts >= failover.max_attempts,
            ..self.weighing(now, false)
        }
    }

    pub(super) fn next(&self, now: Time) -> Option<BackendId> {
        selection::best(&self.backends, &self.settings, self.weighing_in_need(now))
    }

    /// Begins a switch, or the staged plan that leads to it; a switch that is under way is superseded.
    pub(super) fn begin(&mut self, now: Time, wanted: Wanted, actions: &mut Vec<Action>) {
        let Some(wanted) = self.stage(now, wanted, actions) else { return };
        let Wanted { to, trigger, kind, planned, plan, purpose, confidence, checks, why } = wanted;
        if let Some(pending) = self.pending.take() {
            self.disappoint(pending.switch.id);
            self.abandoned = Some(pending);
        }
        self.last_id += 1;
        self.attempts = self.attempts.saturating_add(1);
        if let Some(incident) = &mut self.incident {
            incident.attempts = incident.attempts.saturating_add(1);
        }
        let id = SwitchId(self.last_id);
        // An attempt that follows a fruitless one to the same backend is recorded only if it ends otherwise.
        let recorded = self.backend(to).entry.why.is_none();
        if recorded {
            let decision = Decision {
                trigger: Some(trigger),
                switch: Some(id),
                switch_kind: Some(kind),
                evidence_for: self.backend(self.active).evidence_for(now),
                candidates: self.explain(now, to),
                checks,
                confidence,
                estimated_delay: Some(self.delays.estimate(planned)),
                ..Decision::about(now, DecisionKind::SwitchBegan, to, why.clone())
            };
            actions.push(Action::Record(decision));
        }
        let switch = Switch { id, from: self.active, to, trigger, kind, planned, plan, reason: why };
        actions.push(Action::Switch(switch.clone()));
        let failover = &self.settings.failover;
        let deadline = now + if planned { failover.planned_timeout } else { failover.switch_timeout };
        self.pending = Some(Pending { switch, began: now, deadline, purpose, recorded });
    }

    pub(super) fn on_switch_done(&mut self, now: Time, id: SwitchId, result: SwitchResult, actions: &mut Vec<Action>) {
        if self.pending.as_ref().is_some_and(|pending| pending.switch.id == id) {
            if let Some(pending) = self.pending.take() {
                self.end(now, pending, result, actions);
            }
        } else if self.abandoned.as_ref().is_some_and(|pending| pending.switch.id == id) && result == SwitchResult::Done
        {
            // Given up here but carried out there: the route is what it is.
            if let Some(pending) = self.abandoned.take() {
                self.entered(now, &pending, actions);
            }
        }
    }

    /// Ends a switch that cannot succeed any more, or that nobody answered.
    fn give_up_hopeless(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(pending) = &self.pending else { return };
        let to = self.backend(pending.switch.to);
        let left = self.backend(pending.switch.from).failure.as_ref().filter(|_| pending.switch.planned);
        let result = if let Some(failure) = left {
            // What is planned waits for the one that is left; now whoever lives must serve at once.
            SwitchResult::Failed { why: format!("the one that was to be left failed meanwhile: {}", failure.why) }
        } else if let Some(failure) = &to.failure {
            SwitchResult::Failed { why: failure.why.clone() }
        } else if let Standing::Refused { why } = &to.standing {
            SwitchResult::Refused { why: why.clone() }
        } else if now >= pending.deadline {
            SwitchResult::Failed { why: "not carried out in time".to_owned() }
        } else {
            return;
        };
        if let Some(pending) = self.pending.take() {
            self.abandoned = Some(pending.clone());
            self.end(now, pending, result, actions);
        }
    }

    fn end(&mut self, now: Time, pending: Pending, result: SwitchResult, actions: &mut Vec<Action>) {
        let switch = &pending.switch;
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
                switch_kind: Some(switch.kind),
                result: Some(result.clone()),
                ..Decision::about(now, DecisionKind::SwitchEnded, switch.to, switch.reason.clone())
            };
            actions.push(Action::Record(decision));
        }
        if result == SwitchResult::Done {
            self.delays.learn(planned, now - pending.began);
            self.entered(now, &pending, actions);
        } else {
            self.disappoint(switch.id);
        }
    }

    fn entered(&mut self, now: Time, pending: &Pending, actions: &mut Vec<Action>) {
        let switch = &pending.switch;
        let moved = switch.to != self.active;
        if moved && !switch.planned {
            self.recovery.left(now, &self.settings.recovery);
            // Probes may have been well all the time: the delay of the way back counts from here.
            let left = self.active;
            self.backend_mut(left).unwell();
        }
        let by_recovery = self.is_recovery_of(switch.to, switch.kind);
        if moved {
            self.recovery.entered(now, by_recovery);
            if switch.trigger != Trigger::Manual {
                let way = match (by_recovery, pending.purpose) {
                    (true, _) => Way::Return,
                    (false, Purpose::Improve) => Way::Improve,
                    (false, _) => Way::Rescue,
                };
                self.guards.switched(now, way, &self.settings.failover, &self.settings.recovery);
            }
        }
        match pending.purpose {
            Purpose::Failover => self.chosen(switch.to),
            // On the primary nothing is held any more, whoever brought it there: what fails later is returned to.
            Purpose::Recover | Purpose::Automatic | Purpose::Improve | Purpose::Pin | Purpose::Drain => {
                self.operators.held &= switch.to != self.primary;
            }
        }
        if switch.to != self.primary {
            self.sticky = Some(switch.to);
        }
        if !self.backend(switch.to).settings.last_resort {
            self.last_real = switch.to;
        }
        self.active = switch.to;
        self.epoch += 1;
        self.attempts = 0;
        self.outage = None;
        self.forget_stay();
        self.backend_mut(switch.to).entered(now);
        self.overtake_proposal(now, actions);
        self.resolve_by_switch(now, switch.to, switch.kind, switch.trigger, actions);
        self.publish(Availability::Serving, actions);
    }

    /// Begins where an earlier process ended; of no weight once a switch has been ordered.
    pub(super) fn on_joined(&mut self, now: Time, to: BackendId, actions: &mut Vec<Action>) {
        let is_known = to.index() < self.backends.len();
        if !is_known || self.last_id > 0 || self.active == to {
            return;
        }
        self.active = to;
        self.sticky = Some(to);
        self.backend_mut(to).entered(now);
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
        Some(Failure { at: now, since: now, trigger: Trigger::HealthCheck, confidence: 1.0, total: true, why })
    }

    /// The active is dead. No guard is asked: whoever lives is better.
    fn fail_over(&mut self, now: Time, failure: &Failure, actions: &mut Vec<Action>) {
        self.open_incident(now, failure, true, actions);
        if !self.settings.failover.triggers.allows(failure.trigger) {
            return self.serve_nobody(now, failure, actions);
        }
        let Some(to) = selection::best(&self.backends, &self.settings, self.weighing_in_need(now)) else {
            return self.serve_nobody(now, failure, actions);
        };
        if self.hold(now, failure, to, actions) {
            return;
        }
        let wanted = Wanted {
            to,
            trigger: self.trigger_of(failure),
            kind: SwitchKind::Failover,
            planned: false,
            plan: Plan::Immediate,
            purpose: Purpose::Automatic,
            confidence: Some(failure.confidence()),
            checks: vec![self.trigger_check(failure)],
            why: format!("{}: {}", self.name(self.active), failure.why),
        };
        if !self.want(now, wanted, actions) && !self.bridge(now, &failure.why, actions) {
            self.serve_nobody(now, failure, actions);
        }
    }

    fn trigger_check(&self, failure: &Failure) -> Check {
        let (allowed, name) = (self.settings.failover.triggers.allows(failure.trigger), failure.trigger.name());
        let text = if allowed { format!("{name} may switch") } else { format!("failover.triggers lacks {name}") };
        Check::new(CheckName::Trigger, allowed, text)
    }

    /// While a person is asked, the last resort serves if there is one.
    fn bridge(&mut self, now: Time, why: &str, actions: &mut Vec<Action>) -> bool {
        if self.settings.failover.mode != Mode::SemiAutomatic {
            return false;
        }
        let weighing = Weighing { spent: true, ..self.weighing(now, false) };
        let Some(to) = selection::best(&self.backends, &self.settings, weighing) else { return false };
        let wanted = Wanted {
            to,
            trigger: Trigger::Cascade,
            kind: SwitchKind::Failover,
            planned: false,
            plan: Plan::Immediate,
            purpose: Purpose::Automatic,
            confidence: None,
            checks: Vec::new(),
            why: format!("{}: {why}; bridged until a person confirms", self.name(self.active)),
        };
        self.want(now, wanted, actions)
    }

    fn serve_nobody(&mut self, now: Time, failure: &Failure, actions: &mut Vec<Action>) {
        let check = self.trigger_check(failure);
        let waits = match &self.proposals.current {
            _ if !check.passed => format!(" ({})", check.text),
            Some(proposal) => format!(" before proposal {} is confirmed", proposal.id),
            None => String::new(),
        };
        let weighing = self.weighing_in_need(now);
        let candidates = selection::explain(&self.backends, &self.settings, weighing, None);
        let why = format!("nobody can serve{waits}: {}", failure.why);
        let decision = Decision::about(now, DecisionKind::NoBackend, self.active, why);
        let (trigger, confidence) = (Some(failure.trigger), Some(failure.confidence()));
        self.note(Decision { trigger, confidence, candidates, checks: vec![check], ..decision }, actions);
        self.outage = Some(failure.trigger);
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
            let why = format!("requests wait {} for a restart: {}", Roughly(until - now), failure.why);
            let decision = Decision::about(now, DecisionKind::Held, self.active, why);
            let confidence = Some(failure.confidence());
            self.note(Decision { trigger: Some(failure.trigger), confidence, ..decision }, actions);
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

    /// Nobody served until now: takes the first who can be entered, the old active included. Where nothing may be done
    /// without a person's word, only the old active and the last resort.
    fn return_to_service(&mut self, now: Time, actions: &mut Vec<Action>) {
        let failover = &self.settings.failover;
        let allowed = self.outage.is_none_or(|trigger| failover.triggers.allows(trigger));
        let weighing = Weighing { leaving: None, home: Some(self.home(now)), ..self.weighing(now, false) };
        let weighing = Weighing { no_cascade_but: self.weighing_in_need(now).no_cascade_but, ..weighing };
        let active = self.backend(self.active);
        let bound = !allowed || failover.mode != Mode::Automatic;
        // A cascade that is off keeps the engine from further backups, not from the one that it is on.
        let unbound = Weighing { no_cascade_but: None, ..weighing };
        let active_fits = selection::against(active, &self.settings, unbound).is_none();
        let best = match selection::best(&self.backends, &self.settings, weighing) {
            _ if bound && active_fits => Some(self.active),
            None if active_fits => Some(self.active),
            best => best.filter(|_| allowed),
        };
        let Some(to) = best else { return self.probe_all(now, actions) };
        let kind = if to == self.active { SwitchKind::Reentry } else { SwitchKind::Failover };
        let wanted = Wanted {
            to,
            trigger: Trigger::Cascade,
            kind,
            planned: false,
            plan: Plan::Immediate,
            purpose: Purpose::Automatic,
            confidence: None,
            checks: Vec::new(),
            why: format!("{} answers: nobody served until now", self.name(to)),
        };
        if !self.want(now, wanted, actions) && !self.bridge(now, "nobody served until now", actions) {
            self.probe_all(now, actions);
        }
    }

    /// The active serves; is there something better to do?
    fn improve(&mut self, now: Time, actions: &mut Vec<Action>) {
        let active = self.backend(self.active);
        if active.needs_entry {
            let wanted = Wanted {
                to: self.active,
                trigger: Trigger::Connection,
                kind: SwitchKind::Reentry,
                planned: false,
                plan: Plan::Immediate,
                purpose: Purpose::Automatic,
                confidence: None,
                checks: Vec::new(),
                why: format!("{} has another identity: it is entered anew", active.settings.name),
            };
            return self.begin(now, wanted, actions);
        }
        if let Some(failure) = active.soft_failure(now, &self.settings) {
            return self.leave_troubled(now, &failure, actions);
        }
        let bridged = active.settings.last_resort;
        if !bridged {
            self.resolve_incident(now, Resolution::Waited, actions);
        }
        if bridged && !self.operators.held && self.operators.pinned(now).is_none() {
            self.leave_last_resort(now, actions);
        } else {
            self.consider_recovery(now, actions);
        }
    }

    /// The active lives but serves badly: it is left only for somebody who is well, and better, and if no guard is against
    /// it.
    fn leave_troubled(&mut self, now: Time, failure: &Failure, actions: &mut Vec<Action>) {
        self.open_incident(now, failure, false, actions);
        let name = self.name(self.active).to_owned();
        let slow = self.backend(self.active).slowdown(now, &self.settings);
        let slow = slow.filter(|_| failure.trigger == Trigger::Performance);
        let faster_than = slow.as_ref().map(|slow| (slow.class, slow.degraded_from));
        // One that answers nothing is left for whoever answers reads; else a replica that nobody promotes is no gain.
        let only_writable = !failure.total || self.backend(self.active).wrong_role.any(now);
        let weighing = Weighing { faster_than, only_writable, ..self.weighing(now, true) };
        let best = selection::best(&self.backends, &self.settings, weighing);
        let mut checks = vec![self.trigger_check(failure)];
        checks.extend(self.guard_soft(now, failure, faster_than, best));
        let (backend, confidence) = (self.active, Some(failure.confidence()));
        if let Some(check) = checks.iter().find(|check| !check.passed) {
            // What guards say of the time that is left changes with every look, and so do scores; the reason to stay does not.
            let topic = format!("{name} stays: {}", check.name.name());
            let why = match check.name {
                CheckName::Better => format!("{name} serves badly but nobody else is better"),
                _ => format!("{name} serves badly but stays: {}", check.text),
            };
            return self.note_stay(now, Stay { backend, topic, why, checks, confidence }, actions);
        }
        match best {
            Some(to) if !self.answers_afresh(now, to, faster_than, actions) => {}
            Some(to) => {
                let wanted = Wanted {
                    to,
                    trigger: self.trigger_of(failure),
                    kind: SwitchKind::Failover,
                    // The active lives: a replica of it takes over only by plan, in step, and never while it is a master.
                    planned: !failure.total && self.backend(to).follows(),
                    plan: Plan::Immediate,
                    purpose: if failure.total { Purpose::Automatic } else { Purpose::Improve },
                    confidence,
                    checks,
                    why: format!("{name}: {}", failure.why),
                };
                self.want(now, wanted, actions);
            }
            None => {
                let why = format!("{name} serves badly but nobody else is well");
                self.note_stay(now, Stay { backend, topic: why.clone(), why, checks, confidence }, actions);
            }
        }
    }

    /// Whether `to` was found well just now. Else everybody who could follow is asked, and the answer decides, a round trip
    /// later: what took the active's memory may have taken the backup's within the same interval of the probers.
    fn answers_afresh(
        &mut self,
        now: Time,
        to: BackendId,
        faster_than: Option<(CommandClass, Duration)>,
        actions: &mut Vec<Action>,
    ) -> bool {
        if !self.would_act(now, to, SwitchKind::Failover) || self.backend(to).well_afresh(now) {
            return true;
        }
        self.keep_wish();
        let weighing = Weighing { faster_than, ..self.weighing(now, true) };
        let fit = |backend: &&Backend| selection::against(backend, &self.settings, weighing).is_none();
        let fit: Vec<_> = self.backends.iter().filter(fit).map(|backend| backend.settings.id).collect();
        for backend in fit {
            if self.backend_mut(backend).ask(now) {
                actions.push(Action::ProbeNow { backend });
            }
        }
        false
    }

    fn trigger_of(&self, failure: &Failure) -> Trigger {
        let cascading = self.active != self.primary || self.attempts > 0;
        if cascading { Trigger::Cascade } else { failure.trigger }
    }
}
