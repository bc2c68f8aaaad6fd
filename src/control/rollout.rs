//! Leads through a staged plan (`policy::Rollout`): tells it what it sees, and carries out what it wishes. One at a time in a
//! group, begun at the engine's word; it ends with the process, and so does what was moved by then.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::api::{CommandError, CommandOutcome, How, PlanReport};
use super::comparing::compare;
use super::group::{GroupControl, Message};
use super::operators::Answer;
use super::shared::Shared;
use crate::backend::clock;
use crate::policy::{
    BackendId, BackendRole, BackendView, CommandClass, Event, Order, Phase, Plan, PlanNews, PlanWish, Rollout,
    RolloutNews, Sight, Standing, Switch, SwitchId, SwitchResult, Traffic, WindowSummary,
};
use crate::telemetry::events::{Event as Entry, EventKind, Severity};
use crate::telemetry::metrics::PLAN_TRIGGER;

/// A plan under way.
pub(super) struct Running {
    plan: Rollout,
    /// Tells it from those before it.
    number: u64,
    switch: Option<SwitchId>,
    /// An operator wants the old side back.
    is_rolled_back: bool,
    _sampler: AbortOnDropHandle<()>,
}

/// What became of a share that was to be moved, or withdrawn.
pub(super) struct ShareTold {
    plan: u64,
    is_withdrawal: bool,
    result: Result<Duration, String>,
}

/// What an operator says of the plan under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Pause,
    Resume,
    Rollback,
}

impl GroupControl {
    /// Why the staged plan that an operator names cannot begin; `None` when it can, or when none is named.
    pub(super) fn against_plan(&self, order: &Order, how: How) -> Option<CommandError> {
        let configured = self.engine.settings().recovery.plan;
        if how.dwell.is_some() && how.plan.is_none() && !configured.is_staged() {
            let why = format!("a dwell is of the plans that compare, and recovery.plan is {configured}");
            return Some(CommandError::Refused { why, hint: "name a plan: gradual, canary or blue_green".to_owned() });
        }
        let plan = how.plan.filter(|plan| plan.is_staged())?;
        if let Some(running) = &self.rollout {
            return Some(CommandError::Busy { why: format!("plan {} is under way", running.plan.plan) });
        }
        let active = self.shared.group.route().active;
        let primary = || self.shared.rules.iter().find(|rules| rules.role == BackendRole::Primary);
        let to = match order {
            Order::Failover { to: Some(to) } => *to,
            Order::Recover => primary()?.id,
            _ => {
                let why = format!("plan {plan} needs another backend that is kept in step, and there is none now");
                let hint = "a backup with data = \"mirrored\"; `standin status` says why one is not in step".to_owned();
                return Some(CommandError::Refused { why, hint });
            }
        };
        let apart = [active, to].into_iter().find(|id| to != active && !self.shared.may_mirror(*id))?;
        let name = &self.shared.rules(apart).name;
        let why = format!("plan {plan} keeps both backends in step, and {name} is not of those that can be");
        let hint = "a backup needs data = \"mirrored\", the primary mirror.primary = true".to_owned();
        Some(CommandError::Refused { why, hint })
    }

    /// Without a name a staged plan leads to the best of those that are kept in step.
    pub(super) fn chosen_for_plan(&self, order: Order, how: How) -> Order {
        let is_open = matches!(order, Order::Failover { to: None }) && how.plan.is_some_and(Plan::is_staged);
        if !is_open {
            return order;
        }
        let active = self.shared.group.route().active;
        let view = self.engine.view(clock::now());
        let fits = |id: BackendId| {
            let is_refused = matches!(self.shared.standing(id), Standing::Refused { .. });
            id != active && self.shared.may_mirror(id) && self.shared.mirror(id).is_on() && !is_refused
        };
        let all = self.shared.rules.iter().filter(|rules| fits(rules.id));
        let best = all.max_by_key(|rules| {
            let view = &view.backends[rules.id.index()];
            (view.score, rules.weight, std::cmp::Reverse(rules.id))
        });
        Order::Failover { to: best.map(|rules| rules.id) }
    }

    /// How long each comparison lasts at least.
    pub(super) fn dwell(&self, how: How) -> Duration {
        how.dwell.unwrap_or(self.dwell_default)
    }

    /// What a plan that begins, or would, does.
    pub(super) fn plan_outcome(
        &self,
        result: &str,
        plan: Plan,
        (from, to): (BackendId, BackendId),
        dwell: Duration,
    ) -> CommandOutcome {
        let (old, next) = (&self.shared.rules(from).name, &self.shared.rules(to).name);
        let under_way = if result == "dry_run" { "would begin" } else { "is under way; `standin status` shows it" };
        CommandOutcome {
            from: Some(old.clone()),
            to: Some(next.clone()),
            steps: steps(plan, old, next, dwell),
            ..self.nothing_switched(result, Some(format!("plan {plan} from {old} to {next} {under_way}")))
        }
    }

    /// At the engine's word.
    pub(super) fn begin_rollout(&mut self, plan: Plan, from: BackendId, to: BackendId) {
        let dwell = self.dwell_wished.unwrap_or(self.dwell_default);
        self.rollouts += 1;
        let view = self.engine.view(clock::now());
        let classes = &view.backends[to.index()].figures.classes;
        let usual = classes.iter().find(|class| class.class == CommandClass::Read).and_then(|class| class.baseline);
        let sampler = compare(Rc::clone(&self.shared), (from, to), self.shared.messages.clone());
        self.rollout = Some(Running {
            plan: Rollout::new(plan, from, to, dwell, clock::now()).usually(usual),
            number: self.rollouts,
            switch: None,
            is_rolled_back: false,
            _sampler: AbortOnDropHandle::new(tokio::task::spawn_local(sampler)),
        });
    }

    /// An operator's word about the plan under way.
    pub(super) fn word_of_plan(&mut self, word: Word, reason: String) -> Result<CommandOutcome, CommandError> {
        if self.rollout.is_none() {
            let hint = "`standin failover NAME --plan gradual` begins one".to_owned();
            return Err(CommandError::Refused { why: "no plan is under way".to_owned(), hint });
        }
        let (news, message) = match word {
            Word::Pause => (PlanNews::Pause, "the plan is paused"),
            Word::Resume => (PlanNews::Resume, "the plan goes on"),
            Word::Rollback => (PlanNews::Rollback(reason.clone()), "the plan is rolled back"),
        };
        self.say_of_plan("operator", Severity::Info, format!("{message}, by an operator's word: {reason}"));
        if let Some(running) = self.rollout.as_mut().filter(|_| word == Word::Rollback) {
            running.is_rolled_back = true;
        }
        self.tell_plan(news);
        Ok(self.nothing_switched("done", Some(message.to_owned())))
    }

    pub(super) fn plan_report(&self) -> Option<PlanReport> {
        let Running { plan, .. } = self.rollout.as_ref()?;
        let (stage, stages) = plan.stage();
        Some(PlanReport {
            plan: plan.plan.name().into(),
            from: self.shared.rules(plan.from).name.clone(),
            to: self.shared.rules(plan.to).name.clone(),
            phase: plan.phase.name().into(),
            paused: plan.paused,
            percent: plan.percent,
            stage: stage as u64,
            stages: stages as u64,
            samples: plan.tally.samples.into(),
            wrong: plan.tally.wrong.into(),
            missing: plan.tally.missing.into(),
            failed: plan.tally.failed.into(),
        })
    }

    /// Called with each tick.
    pub(super) fn look_at_plan(&mut self) {
        let Some(Running { plan, .. }) = &self.rollout else { return };
        let (from, to) = (plan.from, plan.to);
        let route = self.shared.group.route();
        let is_in_step = |id| {
            let control = self.shared.mirror(id);
            control.is_on() && control.is_filled(&self.shared.mirror_settings)
        };
        let in_step = match &route.split {
            // What the old one holds is complete; it only has to hear of what is written on the other side.
            Some(_) => is_in_step(to) && self.shared.mirror(from).is_on(),
            None => is_in_step(if route.active == to { from } else { to }),
        };
        let control = self.shared.mirror(to);
        let progress = control.fill.borrow().keys + control.copied.get();
        let view = self.engine.view(clock::now());
        let (old, next) = (&view.backends[from.index()], &view.backends[to.index()]);
        let (health, ill) = next.present_health();
        let sight = Sight {
            active: route.active,
            in_step,
            progress,
            health,
            ill: ill.map(|reason| reason.text.clone()),
            slowed: slowed(old, next),
            is_split: route.split.is_some(),
            withdraw: route.split.as_ref().and_then(|split| split.end_asked()),
        };
        self.tell_plan(PlanNews::Look(sight));
    }

    /// What clients got from a backend within a tick.
    pub(super) fn traffic_of_plan(&mut self, of: BackendId, window: &WindowSummary) {
        let Some(Running { plan, .. }) = &self.rollout else { return };
        let is_of_plan = of == plan.from || of == plan.to;
        if !is_of_plan || !matches!(plan.phase, Phase::Share | Phase::Watch) {
            return;
        }
        let traffic = Traffic {
            requests: window.requests,
            failed: window.errors.against_backend(),
            reads: window.latency[CommandClass::Read.index()].clone(),
            writes: window.latency[CommandClass::Write.index()].clone(),
        };
        self.tell_plan(PlanNews::Traffic { of, traffic });
    }

    /// A switch has ended; perhaps it is the plan's.
    pub(super) fn plan_switched(&mut self, switch: &Switch, result: &SwitchResult) {
        let is_ours = self.rollout.as_ref().is_some_and(|running| running.switch == Some(switch.id));
        if is_ours {
            self.tell_plan(PlanNews::Switched(match result {
                SwitchResult::Done => Ok(()),
                SwitchResult::Refused { why } | SwitchResult::Failed { why } => Err(why.clone()),
            }));
        }
    }

    pub(super) fn on_share(&mut self, told: ShareTold) {
        let ShareTold { plan, is_withdrawal, result } = told;
        let held = self.shared.sharing.held.take();
        if !held.is_zero() {
            self.publisher.held(PLAN_TRIGGER, held.as_secs_f64());
        }
        if self.rollout.as_ref().is_some_and(|running| running.number == plan) {
            self.tell_plan(if is_withdrawal { PlanNews::Withdrawn(result) } else { PlanNews::Shared(result) });
        }
    }

    pub(super) fn tell_plan(&mut self, news: PlanNews) {
        let Some(running) = &mut self.rollout else { return };
        let mut wishes = Vec::new();
        running.plan.handle(clock::now(), news, &mut wishes);
        for wish in wishes {
            match wish {
                PlanWish::Say(text) => self.say_step(Severity::Info, &text),
                PlanWish::Switch { to, why } => self.switch_by_plan(to, why),
                PlanWish::Share { percent, why } => self.share_by_plan(percent, why),
                PlanWish::Withdraw { why } => self.withdraw_by_plan(why),
                PlanWish::End { well, why } => self.end_plan(well, why),
            }
        }
    }

    fn end_plan(&mut self, well: bool, why: String) {
        let Some(running) = &self.rollout else { return };
        let (result, severity) = if well { ("done", Severity::Info) } else { ("rolled_back", Severity::Warning) };
        self.say_of_plan(result, severity, format!("plan {} has ended: {why}", running.plan.plan));
        let by_operator = running.is_rolled_back;
        self.rollout = None;
        self.feed(Event::Rollout(RolloutNews::Ended { well, by_operator }));
    }

    fn switch_by_plan(&mut self, to: BackendId, why: String) {
        let before = self.actions.len();
        self.engine.handle(clock::now(), Event::Rollout(RolloutNews::Switch { to, why }), &mut self.actions);
        let news = match Answer::of(&self.actions[before..]) {
            Answer::Switch(switch) => {
                if let Some(running) = &mut self.rollout {
                    running.switch = Some(switch.id);
                }
                None
            }
            Answer::Refused(why) => Some(PlanNews::Switched(Err(why))),
            Answer::Done(_, why) => Some(PlanNews::Switched(Err(why.unwrap_or_default()))),
            Answer::Rollout { .. } => None,
        };
        self.act();
        if let Some(news) = news {
            self.tell_plan(news);
        }
    }

    fn share_by_plan(&mut self, percent: u8, why: String) {
        let Some(Running { plan, number, .. }) = &self.rollout else { return };
        let (from, to, number) = (plan.from, plan.to, *number);
        let text = match percent {
            0 => format!("what was moved goes back: {why}"),
            percent => format!("{percent} % of the hash slots are moved to it: {why}"),
        };
        let severity = if percent == 0 { Severity::Warning } else { Severity::Info };
        self.say_step(severity, &text);
        let shared = Rc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            let result = shared.move_share(from, to, percent).await;
            tell_of_share(&shared, ShareTold { plan: number, is_withdrawal: false, result });
        });
    }

    fn withdraw_by_plan(&mut self, why: String) {
        let Some(Running { number, .. }) = &self.rollout else { return };
        let (shared, number) = (Rc::clone(&self.shared), *number);
        self.say_step(Severity::Warning, &format!("what was moved is withdrawn at once: {why}"));
        tokio::task::spawn_local(async move {
            let result = shared.withdraw_share().await;
            tell_of_share(&shared, ShareTold { plan: number, is_withdrawal: true, result });
        });
    }

    fn say_step(&self, severity: Severity, text: &str) {
        let Some(Running { plan, .. }) = &self.rollout else { return };
        self.say_of_plan("step", severity, format!("plan {}: {text}", plan.plan));
    }

    /// An event about the plan under way, with what was counted in its present step.
    fn say_of_plan(&self, result: &'static str, severity: Severity, text: String) {
        let Some(Running { plan, .. }) = &self.rollout else { return };
        let (from, to) = (&self.shared.rules(plan.from).name, &self.shared.rules(plan.to).name);
        let (stage, stages) = plan.stage();
        let detail = json!({
            "plan": plan.plan.name(),
            "phase": plan.phase.name(),
            "percent": plan.percent,
            "stage": stage,
            "stages": stages,
            "evidence": plan.tally.words(),
        });
        let event = Entry::new(EventKind::Plan, text).severity(severity).switch(Some(from), Some(to)).result(result);
        self.shared.record(event.detail(detail));
    }
}

fn tell_of_share(shared: &Shared, told: ShareTold) {
    let _ = shared.messages.send(Message::Share(told));
}

/// The next one has become slower than it usually is, and the old one has not.
fn slowed(old: &BackendView, next: &BackendView) -> Option<String> {
    let slow = next.figures.slowdown.filter(|_| old.figures.slowdown.is_none())?;
    let (class, latency, usually) = (slow.class.name(), slow.latency, slow.baseline);
    Some(format!("{class} requests take {latency:?}, usually {usually:?}"))
}

/// The steps of a plan, one sentence each.
fn steps(plan: Plan, old: &str, next: &str, dwell: Duration) -> Vec<String> {
    let mut steps = vec![format!("in_step: wait until {next} is filled and kept in step with {old}")];
    if plan.shares().is_empty() {
        steps.push(format!(
            "compare: compare samples of both for {dwell:?}; a breach ends the plan, and {old} goes on serving"
        ));
    }
    steps.extend(plan.shares().iter().map(|percent| {
        format!(
            "share: move {percent} % of the hash slots to {next}, and compare both, and what clients get of them, for \
             {dwell:?}; a breach gives everything back to {old}"
        )
    }));
    let rest = if plan.shares().is_empty() { "switch" } else { "the rest, by a switch" };
    steps.push(format!("cut_over: {rest} to {next} by plan drain"));
    steps.push(format!("watch: compare on for {dwell:?} while {old} is kept in step; a breach leads back to it"));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_names_every_share_and_how_long_it_is_watched() {
        let of = |plan| steps(plan, "blue", "green", Duration::from_secs(30));
        let names = |plan| -> Vec<String> {
            of(plan).iter().map(|step| step.split(':').next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names(Plan::BlueGreen), ["in_step", "compare", "cut_over", "watch"]);
        assert_eq!(names(Plan::Gradual), ["in_step", "share", "share", "share", "share", "cut_over", "watch"]);
        let canary = of(Plan::Canary);
        assert!(canary[1].contains("move 5 % of the hash slots to green") && canary[1].contains("30s"), "{canary:?}");
        assert!(canary[6].contains("the rest, by a switch to green by plan drain"), "{canary:?}");
    }
}
