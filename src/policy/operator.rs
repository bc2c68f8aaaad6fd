//! What operators ask for. Every command ends in a switch or in a recorded answer, and may be sent twice.
//!
//! A failover by an operator stays: the engine does not go back to the primary by itself until `Recover`. Should the
//! chosen backend fail, the engine still leaves it. So with a pin: it keeps the engine from leaving for anything but a
//! death, and is the place to go back to as long as it lasts. An excluded backend is never entered, whatever happens.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Decision, DecisionKind, SwitchId, SwitchKind, Trigger};
use super::engine::{Engine, Purpose, Wanted};
use super::event::BackendId;
use super::plan::Plan;
use super::proposals::ProposalId;
use super::selection::{self, Weighing};
use super::time::{Roughly, Time};

/// A pin lasts no longer than this: what is meant for longer is a failover, or a change of the configuration.
const PIN_MAX: Duration = Duration::from_secs(30 * 86_400);

/// An operator's word. Idempotent; what it came to is recorded as a `Decision`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCommand {
    pub order: Order,
    pub reason: String,
    /// How the switch is made, if one follows; as configured if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// To this backend, or to the best other one (the last resort has to be named while another serves). The engine then stays away from the primary until `Recover`.
    Failover {
        to: Option<BackendId>,
    },
    /// Back to the primary now if it can serve; lifts what an earlier `Failover` or `Pin` held.
    Recover,
    /// To this backend, and stay there for so long.
    Pin {
        backend: BackendId,
        lasts: Duration,
    },
    Unpin,
    /// Leave it if it serves, in order, and do not enter it until `Include`.
    Drain {
        backend: BackendId,
    },
    /// Do not enter it until `Include`. If it serves, it goes on.
    Exclude {
        backend: BackendId,
    },
    Include {
        backend: BackendId,
    },
    /// Make the proposed switch; the one that stands if none is named.
    Confirm {
        proposal: Option<ProposalId>,
    },
    Decline {
        proposal: Option<ProposalId>,
    },
}

/// The engine stays on this backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub backend: BackendId,
    pub until: Time,
    pub reason: String,
    /// The switch by which it is entered; the pin is void if that fails.
    pub entering: Option<SwitchId>,
}

/// A backend that is not entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    pub since: Time,
    pub reason: String,
    /// The switch by which it is left; the exclusion is void if that fails.
    pub leaving: Option<SwitchId>,
}

/// What operators' words left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Operators {
    /// An operator chose the active: no recovery by itself.
    pub(super) held: bool,
    pub(super) pin: Option<Pin>,
    /// By backend.
    pub(super) excluded: Vec<Option<Exclusion>>,
}

impl Operators {
    pub(super) fn new(backends: usize) -> Self {
        Self { held: false, pin: None, excluded: vec![None; backends] }
    }

    pub(super) fn pinned(&self, now: Time) -> Option<&Pin> {
        self.pin.as_ref().filter(|pin| now < pin.until)
    }

    pub(super) fn pin_ends(&self) -> Option<Time> {
        self.pin.as_ref().map(|pin| pin.until)
    }

    pub(super) fn is_excluded(&self, id: BackendId) -> bool {
        self.excluded.get(id.index()).is_some_and(Option::is_some)
    }
}

impl Engine {
    pub(super) fn on_operator(&mut self, now: Time, command: OperatorCommand, actions: &mut Vec<Action>) {
        let OperatorCommand { order, reason, plan } = command;
        if let Some(id) = order.backend().filter(|id| id.index() >= self.backends.len()) {
            return self.reject(now, self.active, format!("there is no backend {id}"), actions);
        }
        let switches =
            matches!(order, Order::Failover { .. } | Order::Recover | Order::Pin { .. } | Order::Drain { .. });
        if switches && !self.settings.failover.triggers.manual {
            let why = "failover.triggers does not hold \"manual\"".to_owned();
            return self.reject(now, self.active, why, actions);
        }
        match order {
            Order::Failover { to: Some(to) } if to == self.primary => self.recover(now, plan, reason, actions),
            Order::Failover { to: Some(to) } => self.fail_over_to(now, to, plan, reason, actions),
            Order::Failover { to: None } => {
                let best = selection::best(&self.backends, &self.settings, self.weighing(now, false));
                let serves = self.backend(self.active).failure.is_none();
                match best {
                    // Nobody loses a server that works to a store in this process's memory for want of a name.
                    Some(to) if serves && self.backend(to).settings.last_resort => {
                        let name = self.name(to);
                        let why = format!("only {name} could be entered, the last resort: name it to enter it");
                        self.reject(now, self.active, why, actions);
                    }
                    Some(to) => self.fail_over_to(now, to, plan, reason, actions),
                    None => self.reject(now, self.active, "no other backend can be entered".to_owned(), actions),
                }
            }
            Order::Recover => self.recover(now, plan, reason, actions),
            Order::Pin { backend, lasts } => self.pin(now, backend, lasts, reason, actions),
            Order::Unpin => self.unpin(now, &reason, actions),
            Order::Drain { backend } => self.drain(now, backend, reason, actions),
            Order::Exclude { backend } => self.exclude(now, backend, reason, actions),
            Order::Include { backend } => self.include(now, backend, &reason, actions),
            Order::Confirm { proposal } => self.confirm(now, proposal, &reason, actions),
            Order::Decline { proposal } => self.decline(now, proposal, &reason, actions),
        }
    }

    /// Ends a pin whose time is over.
    pub(super) fn end_pin(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some(pin) = self.operators.pin.take_if(|pin| now >= pin.until) {
            let why = format!("the time of the pin to {} is over", self.name(pin.backend));
            self.answer(now, DecisionKind::Commanded, pin.backend, why, actions);
        }
    }

    /// An operator's failover to `to` was carried out: the newest word holds, and a pin elsewhere is over.
    pub(super) fn chosen(&mut self, to: BackendId) {
        self.operators.held = to != self.primary;
        self.operators.pin.take_if(|pin| pin.backend != to);
    }

    /// A switch has ended otherwise than wished: what depended on it is void.
    pub(super) fn disappoint(&mut self, id: SwitchId) {
        self.operators.pin.take_if(|pin| pin.entering == Some(id));
        for exclusion in &mut self.operators.excluded {
            exclusion.take_if(|exclusion| exclusion.leaving == Some(id));
        }
    }

    fn fail_over_to(
        &mut self,
        now: Time,
        to: BackendId,
        plan: Option<Plan>,
        reason: String,
        actions: &mut Vec<Action>,
    ) {
        if to == self.active {
            self.operators.held = true;
            self.operators.pin.take_if(|pin| pin.backend != to);
            let why = format!("{} serves already, and stays by the operator's word: {reason}", self.name(to));
            return self.answer(now, DecisionKind::Stayed, to, why, actions);
        }
        let wanted = self.by_operator(to, SwitchKind::Manual, Purpose::Failover, plan.unwrap_or_default(), reason);
        self.enter_by_operator(now, wanted, actions);
    }

    fn recover(&mut self, now: Time, plan: Option<Plan>, reason: String, actions: &mut Vec<Action>) {
        let plan = plan.unwrap_or(self.settings.recovery.plan);
        self.operators.held = false;
        self.operators.pin = None;
        if self.active == self.primary {
            let why = format!("the primary serves already: {reason}");
            return self.answer(now, DecisionKind::Stayed, self.primary, why, actions);
        }
        let wanted = self.by_operator(self.primary, SwitchKind::Recovery, Purpose::Recover, plan, reason);
        self.enter_by_operator(now, wanted, actions);
    }

    fn pin(&mut self, now: Time, to: BackendId, lasts: Duration, reason: String, actions: &mut Vec<Action>) {
        if lasts.is_zero() || lasts > PIN_MAX {
            let why = format!("a pin lasts up to {} days and more than nothing", PIN_MAX.as_secs() / 86_400);
            return self.reject(now, to, why, actions);
        }
        let until = now + lasts;
        let pin = Pin { backend: to, until, reason: reason.clone(), entering: None };
        if to == self.active && self.pending.is_none() {
            self.operators.pin = Some(pin);
            let why = format!("{} serves already, and is pinned for {}: {reason}", self.name(to), Roughly(lasts));
            return self.answer(now, DecisionKind::Commanded, to, why, actions);
        }
        if to == self.active {
            return self.reject(now, to, "another switch is under way".to_owned(), actions);
        }
        let wanted = self.by_operator(to, SwitchKind::Manual, Purpose::Pin, Plan::default(), reason);
        if self.enter_by_operator(now, wanted, actions) {
            let entering = self.pending.as_ref().map(|pending| pending.switch.id);
            self.operators.pin = Some(Pin { entering, ..pin });
        }
    }

    fn unpin(&mut self, now: Time, reason: &str, actions: &mut Vec<Action>) {
        let why = match self.operators.pin.take() {
            Some(pin) => format!("{} is not pinned any more: {reason}", self.name(pin.backend)),
            None => format!("no backend is pinned: {reason}"),
        };
        self.answer(now, DecisionKind::Commanded, self.active, why, actions);
    }

    fn drain(&mut self, now: Time, id: BackendId, reason: String, actions: &mut Vec<Action>) {
        if id != self.active {
            return self.exclude(now, id, reason, actions);
        }
        let best = selection::best(&self.backends, &self.settings, self.weighing(now, false));
        let Some(to) = best.filter(|to| !self.backend(*to).settings.last_resort) else {
            let why = format!("{} serves, and no other backend could take over", self.name(id));
            return self.reject(now, id, why, actions);
        };
        let wanted = self.by_operator(to, SwitchKind::Manual, Purpose::Drain, Plan::default(), reason.clone());
        if self.enter_by_operator(now, wanted, actions) {
            let leaving = self.pending.as_ref().map(|pending| pending.switch.id);
            self.operators.pin.take_if(|pin| pin.backend == id);
            // One that an operator excluded before stays so whatever becomes of the switch.
            self.operators.excluded[id.index()].get_or_insert(Exclusion { since: now, reason, leaving });
        }
    }

    fn exclude(&mut self, now: Time, id: BackendId, reason: String, actions: &mut Vec<Action>) {
        let name = self.name(id);
        let serves = if id == self.active { "; it serves now, and goes on until it is drained" } else { "" };
        let why = match &self.operators.excluded[id.index()] {
            Some(before) => format!("{name} is excluded already: {}", before.reason),
            None => format!("{name} is not entered from now on{serves}: {reason}"),
        };
        let since = now;
        self.operators.excluded[id.index()].get_or_insert(Exclusion { since, reason, leaving: None });
        self.answer(now, DecisionKind::Commanded, id, why, actions);
    }

    fn include(&mut self, now: Time, id: BackendId, reason: &str, actions: &mut Vec<Action>) {
        let name = self.name(id);
        let why = match self.operators.excluded[id.index()] {
            Some(_) => format!("{name} may be entered again: {reason}"),
            None => format!("{name} is not excluded: {reason}"),
        };
        self.operators.excluded[id.index()] = None;
        self.answer(now, DecisionKind::Commanded, id, why, actions);
    }

    fn by_operator(&self, to: BackendId, kind: SwitchKind, purpose: Purpose, plan: Plan, why: String) -> Wanted {
        let planned = self.backend(self.active).failure.is_none();
        let trigger = Trigger::Manual;
        Wanted { to, trigger, kind, planned, plan, purpose, confidence: None, checks: Vec::new(), why }
    }

    /// True when the switch, or the plan that leads to it, is under way.
    pub(super) fn enter_by_operator(&mut self, now: Time, wanted: Wanted, actions: &mut Vec<Action>) -> bool {
        let to = wanted.to;
        if let Some((kind, why)) = self.against_another_plan(&wanted) {
            self.answer(now, kind, to, why, actions);
            return kind == DecisionKind::Stayed;
        }
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.switch.to == to) {
            if !matches!(wanted.purpose, Purpose::Automatic | Purpose::Improve) {
                pending.purpose = wanted.purpose;
            }
            let why = format!("a switch there is under way: {}", wanted.why);
            self.answer(now, DecisionKind::Stayed, to, why, actions);
            return true;
        }
        // A person may know that what was in the way a moment ago is mended.
        self.backend_mut(to).entry = Default::default();
        let weighing = Weighing { leaving: None, ..self.weighing(now, false) };
        if let Some(against) = selection::against(self.backend(to), &self.settings, weighing) {
            let why = format!("{}: {against}", self.name(to));
            self.reject(now, to, why, actions);
            return false;
        }
        self.begin(now, wanted, actions);
        true
    }

    pub(super) fn reject(&mut self, now: Time, backend: BackendId, why: String, actions: &mut Vec<Action>) {
        self.answer(now, DecisionKind::Rejected, backend, why, actions);
    }

    pub(super) fn answer(
        &self,
        now: Time,
        kind: DecisionKind,
        backend: BackendId,
        why: String,
        actions: &mut Vec<Action>,
    ) {
        let decision = Decision::about(now, kind, backend, why);
        self.note(Decision { trigger: Some(Trigger::Manual), ..decision }, actions);
    }

    /// Where the engine goes back to: the pinned backend while there is one, else the primary.
    pub(super) fn home(&self, now: Time) -> BackendId {
        self.operators.pinned(now).map_or(self.primary, |pin| pin.backend)
    }
}

impl OperatorCommand {
    pub fn new(order: Order, reason: impl Into<String>) -> Self {
        Self { order, reason: reason.into(), plan: None }
    }

    /// By this plan instead of the configured one.
    #[must_use]
    pub fn by(self, plan: Option<Plan>) -> Self {
        Self { plan, ..self }
    }
}

impl Order {
    /// The backend that it names.
    pub const fn backend(&self) -> Option<BackendId> {
        match self {
            Self::Failover { to } => *to,
            Self::Pin { backend, .. }
            | Self::Drain { backend }
            | Self::Exclude { backend }
            | Self::Include { backend } => Some(*backend),
            Self::Recover | Self::Unpin | Self::Confirm { .. } | Self::Decline { .. } => None,
        }
    }
}
