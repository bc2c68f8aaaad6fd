//! Runs the plan `blue_green` (`policy::BlueGreen`): compares samples of both backends, tells it what it sees, and carries out
//! what it wishes. One at a time in a group; it ends with the process.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::api::{CommandError, CommandOutcome, PlanReport};
use super::entry::words;
use super::group::{GroupControl, Message};
use super::operators::Answer;
use super::sampling::Side;
use super::shared::Shared;
use crate::backend::{Reply, clock};
use crate::policy::{
    BackendId, BlueGreen, Event, Health, OperatorCommand, Order, Plan, PlanNews, PlanWish, Sampled, Switch, SwitchId,
    SwitchResult,
};
use crate::telemetry::events::{Event as Entry, EventKind, Severity};

/// Keys of one batch, and the pause between two: about 300 samples a second at most.
const BATCH_KEYS: usize = 10;
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// What was acknowledged on the one side is told to its mirror within this.
const TOLD_WITHIN: Duration = Duration::from_millis(5);
/// So long is waited for the other side to have confirmed what was written before a batch was read.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(500);
/// After a side could not be asked.
const PAUSE_FAILED: Duration = Duration::from_millis(200);

/// A plan under way.
pub(super) struct Running {
    plan: BlueGreen,
    switch: Option<SwitchId>,
    _sampler: AbortOnDropHandle<()>,
}

/// What an operator says of the plan under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Pause,
    Resume,
    Rollback,
}

impl GroupControl {
    /// Begins the plan, or says what it would do.
    pub(super) fn begin_blue_green(
        &mut self,
        to: BackendId,
        dwell: Duration,
        reason: &str,
        dry_run: bool,
    ) -> Result<CommandOutcome, CommandError> {
        let from = self.shared.group.route().active;
        let (old, next) = (self.shared.rules(from).name.clone(), self.shared.rules(to).name.clone());
        let refused = |why: String, hint: &str| Err(CommandError::Refused { why, hint: hint.to_owned() });
        if self.blue_green.is_some() {
            let why = "a plan is under way".to_owned();
            return Err(CommandError::Busy { why });
        }
        if to == from {
            return Ok(self.nothing_switched("nothing_to_do", Some(format!("backend {next} serves already"))));
        }
        for (id, name) in [(from, &old), (to, &next)] {
            if !self.shared.may_mirror(id) {
                let why =
                    format!("plan blue_green keeps both backends in step, and {name} is not of those that can be");
                return refused(why, "a backup needs data = \"mirrored\", the primary mirror.primary = true");
            }
        }
        let steps = [
            format!("in_step: wait until {next} is filled and kept in step with {old}"),
            format!(
                "compare: compare samples of both for {dwell:?}; a breach ends the plan, and {old} goes on serving"
            ),
            format!("cut_over: switch to {next} by plan drain"),
            format!("watch: compare on for {dwell:?} while {old} is kept in step; a breach leads back to it"),
        ];
        let message = format!("plan blue_green from {old} to {next}");
        let outcome = |result: &str, message: String, steps: Vec<String>| CommandOutcome {
            from: Some(old.clone()),
            to: Some(next.clone()),
            steps,
            ..self.nothing_switched(result, Some(message))
        };
        if dry_run {
            return Ok(outcome("dry_run", format!("{message} would begin"), steps.to_vec()));
        }
        let answer = outcome("begun", format!("{message} is under way; `standin status` shows it"), steps.to_vec());
        let messages = self.shared.messages.clone();
        let sampler = tokio::task::spawn_local(sample(Rc::clone(&self.shared), (from, to), messages));
        self.blue_green = Some(Running {
            plan: BlueGreen::new(from, to, dwell, clock::now()),
            switch: None,
            _sampler: AbortOnDropHandle::new(sampler),
        });
        self.say_of_plan((from, to), "begun", Severity::Info, format!("{message} began: {reason}"), None);
        Ok(answer)
    }

    /// An operator's word about the plan under way.
    pub(super) fn word_of_plan(&mut self, word: Word, reason: String) -> Result<CommandOutcome, CommandError> {
        let Some(running) = &self.blue_green else {
            let hint = "`standin failover NAME --plan blue_green` begins one".to_owned();
            return Err(CommandError::Refused { why: "no plan is under way".to_owned(), hint });
        };
        let sides = (running.plan.from, running.plan.to);
        let (news, message) = match word {
            Word::Pause => (PlanNews::Pause, "the plan is paused"),
            Word::Resume => (PlanNews::Resume, "the plan goes on"),
            Word::Rollback => (PlanNews::Rollback(reason.clone()), "the plan is rolled back"),
        };
        self.say_of_plan(
            sides,
            "operator",
            Severity::Info,
            format!("{message}, by an operator's word: {reason}"),
            None,
        );
        self.tell_plan(news);
        Ok(self.nothing_switched("done", Some(message.to_owned())))
    }

    pub(super) fn plan_report(&self) -> Option<PlanReport> {
        let Running { plan, .. } = self.blue_green.as_ref()?;
        Some(PlanReport {
            plan: "blue_green".into(),
            from: self.shared.rules(plan.from).name.clone(),
            to: self.shared.rules(plan.to).name.clone(),
            phase: plan.phase.name().into(),
            paused: plan.paused,
            samples: plan.tally.samples.into(),
            wrong: plan.tally.wrong.into(),
            missing: plan.tally.missing.into(),
            failed: plan.tally.failed.into(),
        })
    }

    /// Called with each tick.
    pub(super) fn look_at_plan(&mut self) {
        let Some(Running { plan, .. }) = &self.blue_green else { return };
        let active = self.shared.group.route().active;
        let other = if active == plan.to { plan.from } else { plan.to };
        let control = self.shared.mirror(other);
        let is_filled = control.fill.borrow().is_done || !self.shared.mirror_settings.fill;
        let in_step = control.is_on() && is_filled;
        let view = self.engine.view(clock::now());
        let next = &view.backends[plan.to.index()];
        let is_unwell = matches!(next.health, Health::Critical | Health::Failed);
        let unwell = is_unwell.then(|| format!("backend {} is {}", next.name, next.health.name()));
        self.tell_plan(PlanNews::Look { active, in_step, unwell });
    }

    /// A switch has ended; perhaps it is the plan's.
    pub(super) fn plan_switched(&mut self, switch: &Switch, result: &SwitchResult) {
        let is_ours = self.blue_green.as_ref().is_some_and(|running| running.switch == Some(switch.id));
        if is_ours {
            self.tell_plan(PlanNews::Switched(match result {
                SwitchResult::Done => Ok(()),
                SwitchResult::Refused { why } | SwitchResult::Failed { why } => Err(why.clone()),
            }));
        }
    }

    pub(super) fn tell_plan(&mut self, news: PlanNews) {
        let Some(running) = &mut self.blue_green else { return };
        let sides = (running.plan.from, running.plan.to);
        let mut wishes = Vec::new();
        running.plan.handle(clock::now(), news, &mut wishes);
        let tally = running.plan.tally.words();
        for wish in wishes {
            match wish {
                PlanWish::Say(text) => self.say_of_plan(sides, "step", Severity::Info, text, None),
                PlanWish::Switch { to, why } => self.switch_by_plan(to, why),
                PlanWish::End { well, why } => {
                    self.blue_green = None;
                    let (result, severity) =
                        if well { ("done", Severity::Info) } else { ("rolled_back", Severity::Warning) };
                    let text = format!("plan blue_green has ended: {why}");
                    self.say_of_plan(sides, result, severity, text, Some(&tally));
                }
            }
        }
    }

    fn switch_by_plan(&mut self, to: BackendId, why: String) {
        let command = OperatorCommand::new(Order::Failover { to: Some(to) }, format!("plan blue_green: {why}"));
        let command = command.by(Some(Plan::Drain));
        let before = self.actions.len();
        self.engine.handle(clock::now(), Event::Operator(command), &mut self.actions);
        let answer = Answer::of(&self.actions[before..]);
        let news = match answer {
            Answer::Switch(switch) => {
                if let Some(running) = &mut self.blue_green {
                    running.switch = Some(switch.id);
                }
                None
            }
            Answer::Refused(why) => Some(PlanNews::Switched(Err(why))),
            Answer::Done(_, why) => Some(PlanNews::Switched(Err(why.unwrap_or_default()))),
        };
        self.act();
        if let Some(news) = news {
            self.tell_plan(news);
        }
    }

    fn say_of_plan(
        &self,
        (from, to): (BackendId, BackendId),
        result: &'static str,
        severity: Severity,
        text: String,
        evidence: Option<&str>,
    ) {
        let (from, to) = (&self.shared.rules(from).name, &self.shared.rules(to).name);
        let mut event =
            Entry::new(EventKind::Plan, text).severity(severity).switch(Some(from), Some(to)).result(result);
        if let Some(evidence) = evidence {
            event = event.detail(json!({ "plan": "blue_green", "evidence": evidence }));
        }
        self.shared.record(event);
    }
}

/// Compares samples for as long as the plan runs.
async fn sample(shared: Rc<Shared>, (from, to): (BackendId, BackendId), messages: mpsc::UnboundedSender<Message>) {
    let mut sides: Option<(u64, Side, Side)> = None;
    let mut turn = 0;
    loop {
        tokio::time::sleep(BATCH_PAUSE).await;
        let route = shared.group.route();
        let other = if route.active == to { from } else { to };
        if !shared.mirror(other).is_on() || !shared.newest_is_done() || (route.active != from && route.active != to) {
            sides = None;
            continue;
        }
        if sides.as_ref().is_none_or(|(epoch, ..)| *epoch != route.epoch) {
            sides = match (Side::connect(&shared, route.active).await, Side::connect(&shared, other).await) {
                (Ok(serving), Ok(other)) => Some((route.epoch, serving, other)),
                _ => None,
            };
        }
        let Some((_, serving, following)) = &mut sides else {
            tokio::time::sleep(PAUSE_FAILED).await;
            continue;
        };
        let databases = shared.group.databases_used();
        turn = (turn + 1) % databases.len().max(1);
        match batch(&shared, databases[turn], other, serving, following).await {
            Ok(news) if shared.group.route().epoch == route.epoch => {
                let _ = messages.send(Message::Plan(news));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "samples could not be compared");
                sides = None;
                tokio::time::sleep(PAUSE_FAILED).await;
            }
        }
    }
}

/// Reads keys where clients are served, waits until the other side has confirmed everything that was written before, reads
/// them there, and once more on the first side: a key that was not the same both times is not judged.
async fn batch(
    shared: &Rc<Shared>,
    database: u32,
    other: BackendId,
    serving: &mut Side,
    following: &mut Side,
) -> io::Result<PlanNews> {
    let found = serving.ask(database, vec![words(&["RANDOMKEY"]); BATCH_KEYS]).await?;
    let ours = shared.own_prefix.as_bytes();
    let mut keys: Vec<Vec<u8>> = found
        .iter()
        .filter_map(|key| if let Reply::Bulk(key) = key { Some(key.to_vec()) } else { None })
        .filter(|key| !key.starts_with(ours))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let gets: Vec<_> = keys.iter().map(|key| vec![b"GET".to_vec(), key.clone()]).collect();
    let mut news = Vec::new();
    let (mut took, mut took_there, mut example) = (Duration::ZERO, Duration::ZERO, None);
    if !keys.is_empty() {
        let began = Instant::now();
        let first = serving.ask(database, gets.clone()).await?;
        took = began.elapsed();
        if !confirmed(shared, other).await {
            return Ok(PlanNews::Samples { sampled: news, serving: took, other: took_there, example });
        }
        let began = Instant::now();
        let there = following.ask(database, gets.clone()).await;
        took_there = began.elapsed();
        let again = serving.ask(database, gets).await?;
        let record = shared.group.record(other);
        let Ok(there) = there else {
            let sampled = vec![Sampled::Failed; keys.len()];
            return Ok(PlanNews::Samples { sampled, serving: took, other: took_there, example });
        };
        for (((key, first), there), again) in keys.iter().zip(&first).zip(&there).zip(&again) {
            let is_text = matches!(first, Reply::Bulk(_));
            if !is_text || first != again || record.contains(database, key) {
                continue;
            }
            news.push(match there {
                same if same == first => Sampled::Same,
                Reply::Null => Sampled::Missing,
                refusal if refusal.error().is_some() => Sampled::Failed,
                _ => {
                    example = example.or_else(|| difference(first, there));
                    Sampled::Wrong
                }
            });
        }
    }
    Ok(PlanNews::Samples { sampled: news, serving: took, other: took_there, example })
}

/// Where two values differ; keys and values themselves are never shown.
fn difference(here: &Reply, there: &Reply) -> Option<String> {
    let (Reply::Bulk(here), Reply::Bulk(there)) = (here, there) else { return None };
    let at = here.iter().zip(there.iter()).take_while(|(here, there)| here == there).count();
    let (len, other_len) = (here.len(), there.len());
    Some(format!(
        "a value of {len} bytes where clients are served, of {other_len} on the other side, alike for {at} bytes"
    ))
}

/// Waits until everything that was acknowledged until now has been confirmed by the other side.
async fn confirmed(shared: &Rc<Shared>, other: BackendId) -> bool {
    tokio::time::sleep(TOLD_WITHIN).await;
    let (until, began) = (clock::micros(), Instant::now());
    while began.elapsed() < CONFIRMED_WITHIN {
        let waiting = shared.group.mirrors[other.index()].waiting();
        if waiting.copying == 0 && (waiting.since_us == 0 || waiting.since_us > until) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}
