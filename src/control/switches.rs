//! Switches under way: begun at the engine's word, carried out by `entry`, recorded when they have ended.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{CommandError, CommandOutcome, SwitchReport};
use super::entry;
use super::facts;
use super::group::{GroupControl, Message};
use super::steps::{self, Outcome, Wanted};
use crate::backend::clock;
use crate::policy::{BackendId, Event, Switch, SwitchKind, SwitchResult};
use crate::telemetry::events::{Event as Entry, EventKind};
use crate::telemetry::wall_time::WallTime;

impl GroupControl {
    pub(super) fn begin_switch(&mut self, switch: Switch) {
        self.started = true;
        let shared = Rc::clone(&self.shared);
        shared.newest_switch.set(switch.id.0);
        shared.switches_begun.set(shared.switches_begun.get() + 1);
        let others = self.others();
        self.attempt_began(&switch);
        let began = Instant::now();
        tokio::task::spawn_local(async move {
            let wanted = Wanted { others, ..Wanted::from(&switch) };
            let outcome = steps::carry_out(Rc::clone(&shared), wanted).await;
            let _ = shared.messages.send(Message::SwitchDone(switch, outcome, began.elapsed()));
        });
    }

    pub(super) fn on_switch_done(&mut self, switch: &Switch, outcome: Outcome, took: Duration) {
        self.record_switch(switch, &outcome, took);
        self.attempt_ended(switch, &outcome);
        if outcome.result == SwitchResult::Done && !switch.planned && switch.from != switch.to {
            // That event says what became of the one that was left; it is not said a second time.
            self.last_health[switch.from.index()] = crate::policy::Health::Failed;
        }
        if let Some((reply, began)) = self.waiting.remove(&switch.id.0) {
            let _ = reply.send(self.command_outcome(switch, &outcome, began.elapsed()));
        }
        if self.shared.newest_switch.get() == switch.id.0 {
            self.shared.newest_switch.set(0);
        }
        self.feed(Event::SwitchDone { id: switch.id, result: outcome.result.clone() });
        // What an operator wished for is true now, or void.
        self.keeper.hurry();
        self.plan_switched(switch, &outcome.result);
        for index in 0..self.collectors.len() {
            self.update_standing(BackendId(index as u8));
        }
        self.unseal_active();
    }

    pub(super) fn command_outcome(
        &self,
        switch: &Switch,
        outcome: &Outcome,
        took: Duration,
    ) -> Result<CommandOutcome, CommandError> {
        let (from, to) = (&self.shared.rules(switch.from).name, &self.shared.rules(switch.to).name);
        match &outcome.result {
            SwitchResult::Done => Ok(CommandOutcome {
                group: self.shared.group.name.clone(),
                result: "done".into(),
                message: format!("backend {to} serves"),
                from: Some(from.clone()),
                to: Some(to.clone()),
                epoch: outcome.epoch,
                duration_us: took.as_micros() as u64,
                held_us: Some(outcome.held.as_micros() as u64),
                steps: Vec::new(),
            }),
            SwitchResult::Refused { why } | SwitchResult::Failed { why } => Err(CommandError::Refused {
                why: format!("backend {to} was not entered: {why}"),
                hint: self.mend(switch.to, why),
            }),
        }
    }

    /// What helps against a refusal.
    pub(super) fn mend(&self, id: BackendId, why: &str) -> String {
        if why == entry::STILL_FILLING {
            return "wait until `standin status` shows it in step".to_owned();
        }
        if self.shared.promotes() && self.shared.is_replicated(id) && self.shared.is_replica(id) {
            return "wait until `standin status` shows it in step with the server that serves".to_owned();
        }
        facts::mend(self.shared.rules(id), &self.shared.facts.borrow()[id.index()])
    }

    pub(super) fn record_switch(&mut self, switch: &Switch, outcome: &Outcome, took: Duration) {
        let (from, to) = (&self.shared.rules(switch.from).name, &self.shared.rules(switch.to).name);
        let reason = &switch.reason;
        let (kind, result, message) = match &outcome.result {
            SwitchResult::Done => {
                let kind = match switch.kind {
                    SwitchKind::Failover | SwitchKind::Manual => EventKind::Failover,
                    SwitchKind::Recovery => EventKind::Recovery,
                    SwitchKind::Reentry => EventKind::Reentry,
                };
                let content = match (outcome.flushed, outcome.removed) {
                    (true, _) => ", after it was emptied".to_owned(),
                    (false, 0) => String::new(),
                    (false, n) => format!(", after {n} keys that it had missed were removed"),
                };
                let what = match switch.kind {
                    SwitchKind::Reentry => "was entered again".to_owned(),
                    _ => format!("serves now instead of {from}"),
                };
                let promotion = outcome.promotion.text();
                (kind, "done", format!("backend {to} {what}{content}{promotion}: {reason}"))
            }
            SwitchResult::Refused { why } => {
                let mend = self.mend(switch.to, why);
                (
                    EventKind::SwitchRefused,
                    "refused",
                    format!("backend {to} was not entered: {why}. To mend it: {mend}"),
                )
            }
            SwitchResult::Failed { why } => {
                (EventKind::SwitchFailed, "failed", format!("the switch from {from} to {to} was given up: {why}"))
            }
        };
        let began = self.began.iter().position(|decision| decision.switch == Some(switch.id));
        let began = began.map(|index| self.began.remove(index));
        let seconds = took.as_secs_f64();
        self.publisher.switched(switch.trigger.name(), result, seconds);
        if !outcome.held.is_zero() {
            self.publisher.held(switch.trigger.name(), outcome.held.as_secs_f64());
        }
        self.last_switch = Some(SwitchReport {
            at: WallTime::now(),
            from: from.clone(),
            to: to.clone(),
            plan: (switch.planned && switch.from != switch.to).then(|| switch.plan.name().into()),
            trigger: switch.trigger.name().into(),
            result: result.into(),
            took_us: took.as_micros() as u64,
            held_us: outcome.held.as_micros() as u64,
        });
        let steps =
            outcome.steps.iter().map(|(step, took)| json!({ "step": step.name(), "us": took.as_micros() as u64 }));
        let steps: Vec<_> = steps.collect();
        let detail = json!({
            "held_us": outcome.held.as_micros() as u64,
            "keys_removed": outcome.removed,
            "flushed": outcome.flushed,
            "planned": switch.planned,
            "plan": switch.plan.name(),
            "steps": steps,
            "promotion": outcome.promotion.detail(),
            "reason": reason,
            // What it was decided from; absent for an attempt that follows a fruitless one like it.
            "decision": began,
        });
        let mut event = Entry::new(kind, message)
            .backend(to.clone())
            .switch(Some(from), Some(to))
            .trigger(switch.trigger.name())
            .duration(took)
            .result(result)
            .detail(detail);
        if outcome.epoch > 0 {
            event = event.epoch(outcome.epoch);
        }
        let id = self.shared.record(event);
        self.account.flights.decided(id, clock::now());
    }
}
