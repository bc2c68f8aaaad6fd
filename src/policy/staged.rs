//! What the engine knows of a staged plan. It asks for one where else it would ask for a switch, by an operator's word or for
//! a recovery; the control plane leads through it (`super::rollout`), asks for its switches, and says when it is over.
//! Meanwhile no recovery begins. A failure is left at once whatever a plan wants, and ends it.

use serde::{Deserialize, Serialize};

use super::action::{Action, Decision, DecisionKind, SwitchKind, Trigger};
use super::engine::{Engine, Purpose, Wanted};
use super::event::{BackendId, RolloutNews};
use super::plan::Plan;
use super::time::Time;

/// A staged plan under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Staged {
    from: BackendId,
    pub(super) to: BackendId,
    pub(super) plan: Plan,
    trigger: Trigger,
    kind: SwitchKind,
    purpose: Purpose,
}

impl Engine {
    /// Begins the staged plan that a switch is wanted by. `Some`: a switch has to do, at once.
    pub(super) fn stage(&mut self, now: Time, mut wanted: Wanted, actions: &mut Vec<Action>) -> Option<Wanted> {
        if !wanted.plan.is_staged() {
            return Some(wanted);
        }
        let moves = wanted.planned && wanted.to != self.active;
        let against = self.against_staging(wanted.to).filter(|_| moves);
        if let Some(why) = &against {
            wanted.why = format!("{}; by plan drain instead of {}, since {why}", wanted.why, wanted.plan);
        }
        if against.is_some() || !moves {
            wanted.plan = wanted.plan.of_switch();
            return Some(wanted);
        }
        let Wanted { to, trigger, kind, plan, purpose, confidence, checks, why, .. } = wanted;
        let (from, candidates) = (self.active, self.explain(now, to));
        let text = format!("plan {plan} from {} to {} began: {why}", self.name(from), self.name(to));
        let decision = Decision {
            trigger: Some(trigger),
            switch_kind: Some(kind),
            candidates,
            checks,
            confidence,
            ..Decision::about(now, DecisionKind::RolloutBegan, to, text)
        };
        actions.push(Action::Record(decision));
        actions.push(Action::Rollout { from, to, plan, why });
        self.staged = Some(Staged { from, to, plan, trigger, kind, purpose });
        self.forget_stay();
        None
    }

    fn against_staging(&self, to: BackendId) -> Option<String> {
        if let Some(staged) = &self.staged {
            return Some(format!("plan {} is under way", staged.plan));
        }
        let both = [self.active, to];
        let apart = both.into_iter().find(|id| !self.backend(*id).settings.kept_in_step)?;
        Some(format!("{} is not of those that are kept in step", self.name(apart)))
    }

    pub(super) fn on_rollout(&mut self, now: Time, news: RolloutNews, actions: &mut Vec<Action>) {
        match news {
            RolloutNews::Switch { to, why } => self.switch_by_plan(now, to, why, actions),
            RolloutNews::Ended { well, by_operator } => {
                let staged = self.staged.take();
                if staged.is_some_and(|staged| staged.kind == SwitchKind::Recovery) && !well {
                    self.recovery.put_off(now, &self.settings.recovery);
                    self.operators.held |= by_operator && self.active != self.primary;
                }
            }
        }
    }

    fn switch_by_plan(&mut self, now: Time, to: BackendId, why: String, actions: &mut Vec<Action>) {
        let Some(staged) = self.staged.as_ref().filter(|staged| to == staged.to || to == staged.from) else {
            return self.reject(now, self.active, "no plan leads there".to_owned(), actions);
        };
        if self.pending.as_ref().is_some_and(|pending| pending.switch.to != to) {
            return self.reject(now, to, "another switch is under way".to_owned(), actions);
        }
        let is_back = to == staged.from;
        let wanted = Wanted {
            to,
            trigger: staged.trigger,
            kind: if is_back && staged.kind == SwitchKind::Recovery { SwitchKind::Failover } else { staged.kind },
            planned: self.backend(self.active).failure.is_none(),
            plan: staged.plan.of_switch(),
            purpose: staged.purpose,
            confidence: None,
            checks: Vec::new(),
            why: format!("plan {}: {why}", staged.plan),
        };
        self.enter_by_operator(now, wanted, actions);
    }

    /// The answer to an operator who wants a staged plan while that cannot begin; `None` when it can.
    pub(super) fn against_another_plan(&self, wanted: &Wanted) -> Option<(DecisionKind, String)> {
        if !wanted.plan.is_staged() {
            return None;
        }
        if let Some(staged) = &self.staged {
            let kind = if staged.to == wanted.to { DecisionKind::Stayed } else { DecisionKind::Rejected };
            return Some((kind, format!("plan {} to {} is under way", staged.plan, self.name(staged.to))));
        }
        let other = self.pending.as_ref().filter(|pending| pending.switch.to != wanted.to);
        other.map(|_| (DecisionKind::Rejected, "another switch is under way".to_owned()))
    }
}
