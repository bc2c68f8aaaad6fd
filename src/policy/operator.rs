//! What operators ask for. Every command ends in a switch or in a recorded answer.
//!
//! A failover by an operator stays: the engine does not go back to the primary by itself until `Recover`. Should the
//! chosen backend fail, the engine still leaves it.

use super::action::{Action, Decision, DecisionKind, SwitchKind, Trigger};
use super::engine::{Engine, Wanted};
use super::event::{BackendId, OperatorCommand};
use super::selection::{self, Weighing};
use super::time::Time;

impl Engine {
    pub(super) fn on_operator(&mut self, now: Time, command: OperatorCommand, actions: &mut Vec<Action>) {
        match command {
            OperatorCommand::Failover { to: Some(to), reason } if to == self.primary => {
                self.recover(now, reason, actions);
            }
            OperatorCommand::Failover { to: Some(to), reason } => self.fail_over_to(now, to, reason, actions),
            OperatorCommand::Failover { to: None, reason } => {
                match selection::best(&self.backends, &self.settings, self.weighing(now, false)) {
                    Some(to) => self.fail_over_to(now, to, reason, actions),
                    None => self.reject(now, self.active, "no other backend can be entered".to_owned(), actions),
                }
            }
            OperatorCommand::Recover { reason } => self.recover(now, reason, actions),
        }
    }

    fn fail_over_to(&mut self, now: Time, to: BackendId, reason: String, actions: &mut Vec<Action>) {
        let Some(target) = self.backends.get(to.index()) else {
            return self.reject(now, self.active, format!("there is no backend {to}"), actions);
        };
        if to == self.active {
            self.held_by_operator = true;
            let why = format!("{} serves already, and stays by the operator's word: {reason}", target.settings.name);
            return self.answer(now, DecisionKind::Stayed, to, why, actions);
        }
        self.enter_by_operator(now, to, SwitchKind::Manual, reason, actions);
    }

    fn recover(&mut self, now: Time, reason: String, actions: &mut Vec<Action>) {
        self.held_by_operator = false;
        if self.active == self.primary {
            let why = format!("the primary serves already: {reason}");
            return self.answer(now, DecisionKind::Stayed, self.primary, why, actions);
        }
        self.enter_by_operator(now, self.primary, SwitchKind::Recovery, reason, actions);
    }

    fn enter_by_operator(
        &mut self,
        now: Time,
        to: BackendId,
        kind: SwitchKind,
        reason: String,
        actions: &mut Vec<Action>,
    ) {
        if self.pending.as_ref().is_some_and(|pending| pending.switch.to == to) {
            let why = format!("a switch there is under way: {reason}");
            return self.answer(now, DecisionKind::Stayed, to, why, actions);
        }
        // A person may know that what was in the way a moment ago is mended.
        self.backend_mut(to).entry = Default::default();
        let weighing = Weighing { leaving: None, ..self.weighing(now, false) };
        if let Some(against) = selection::against(self.backend(to), weighing) {
            let why = format!("{}: {against}", self.backend(to).settings.name);
            return self.reject(now, to, why, actions);
        }
        let planned = self.backend(self.active).failure.is_none();
        self.begin(now, Wanted { to, trigger: Trigger::Manual, kind, planned, why: reason }, actions);
    }

    fn reject(&mut self, now: Time, backend: BackendId, why: String, actions: &mut Vec<Action>) {
        self.answer(now, DecisionKind::Rejected, backend, why, actions);
    }

    fn answer(&self, now: Time, kind: DecisionKind, backend: BackendId, why: String, actions: &mut Vec<Action>) {
        let decision = Decision::about(now, kind, backend, why);
        self.note(Decision { trigger: Some(Trigger::Manual), ..decision }, actions);
    }
}
