//! The flight recorder: what the engine was told and what it asked for, so that any decision can be run again.
//!
//! A recording is an engine as it was, and everything that came after. Segments follow each other, each beginning with
//! its own copy of the engine, so the oldest can go without spoiling the rest: what is kept is bounded in events.
//! Replaying compares every action and, at the end, the whole state: a difference means that the engine is not pure.

use std::collections::VecDeque;
use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::engine::Engine;
use super::event::{BackendId, Event, RolloutNews, SwitchResult};
use super::settings::{BackendSettings, Settings};
use super::time::Time;
use crate::limits;

/// Changes when older recordings cannot be read any more.
pub const RECORDING_VERSION: u32 = 2;

/// What the engine was told at one moment, and what it asked for in answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub at: Time,
    /// `None`: `Engine::handle_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Action>,
}

/// A stretch of one engine's life that can be run again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    pub version: u32,
    pub group: String,
    /// Milliseconds since 1970 at the engine's time zero, for people.
    pub epoch_ms: u64,
    /// As it was before the first event.
    pub before: Engine,
    pub told: Vec<Told>,
    /// As it was after the last.
    pub after: Engine,
}

/// What an engine with other settings made of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Rerun {
    pub asked: Vec<(Time, Action)>,
    pub after: Engine,
}

/// An engine that remembers what it was told lately.
#[derive(Clone, Debug)]
pub struct RecordedEngine {
    engine: Engine,
    /// The oldest first.
    segments: VecDeque<Segment>,
}

#[derive(Clone, Debug)]
struct Segment {
    before: Engine,
    told: Vec<Told>,
}

/// Where a replay left the recording.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Difference {
    #[error("this is a recording of version {found}; this build reads version {RECORDING_VERSION}")]
    Version { found: u32 },
    #[error("event {index} at {at}: the recorded engine asked for {recorded:?}, this one for {replayed:?}")]
    Actions { index: usize, at: Time, recorded: Vec<Action>, replayed: Vec<Action> },
    #[error("every action is the same, but the state after the last event is not")]
    State,
}

impl Recording {
    /// Runs the recorded events through the engine again; `Ok` when every action and the end state are the same, bit for
    /// bit.
    ///
    /// # Errors
    /// Where the first difference is.
    pub fn verify(&self) -> Result<(), Difference> {
        if self.version != RECORDING_VERSION {
            return Err(Difference::Version { found: self.version });
        }
        let mut engine = self.before.clone();
        for (index, told) in self.told.iter().enumerate() {
            let replayed = tell(&mut engine, told.at, told.event.clone());
            if replayed != told.asked {
                return Err(Difference::Actions { index, at: told.at, recorded: told.asked.clone(), replayed });
            }
        }
        if engine == self.after { Ok(()) } else { Err(Difference::State) }
    }

    /// What an engine with other settings would have asked for. The world is the recorded one: backends answer as they did,
    /// and requests went where they went, so what follows from the first other decision is an estimate. A switch to a
    /// backend ends as one to it did in the recording, or well; a staged plan comes to its switch as soon as one to that
    /// backend did, or at once.
    #[must_use]
    pub fn rerun(&self, settings: Settings, backends: &[BackendSettings]) -> Rerun {
        let mut engine = self.before.clone().reconfigured(settings, backends);
        let mut asked = Vec::new();
        let mut ends = Ends::default();
        let mut told = self.told.iter().filter(|told| is_of_the_world(told)).peekable();
        while let Some(next) = told.peek() {
            let end = ends.first();
            let due = engine.poll_timeout().into_iter().chain(end).min();
            let (at, event) = match due.filter(|due| *due <= next.at) {
                Some(at) if end == Some(at) => (at, ends.take()),
                Some(at) => (at, None),
                None => (next.at, told.next().and_then(|told| told.event.clone())),
            };
            for action in tell(&mut engine, at, event) {
                match &action {
                    Action::Switch(switch) => {
                        let (took, result) = self.end_of_a_switch_to(switch.to);
                        let well = result == SwitchResult::Done;
                        ends.add(at + took, Event::SwitchDone { id: switch.id, result });
                        // A plan survives no other switch either.
                        if engine.staged.is_some() {
                            ends.add(at + took, Event::Rollout(RolloutNews::Ended { well, by_operator: false }));
                        }
                    }
                    Action::Rollout { to, .. } => {
                        let why = "its last step".to_owned();
                        ends.add(at + self.stages_before(*to), Event::Rollout(RolloutNews::Switch { to: *to, why }));
                    }
                    _ => {}
                }
                asked.push((at, action));
            }
        }
        Rerun { asked, after: engine }
    }

    /// How long the recorded plan to this backend took until its switch.
    fn stages_before(&self, to: BackendId) -> Duration {
        let began = self.actions().find(|(_, action)| matches!(action, Action::Rollout { to: id, .. } if *id == to));
        let switch = self
            .told
            .iter()
            .find(|told| matches!(&told.event, Some(Event::Rollout(RolloutNews::Switch { to: id, .. })) if *id == to));
        began.zip(switch).map_or(Duration::ZERO, |((began, _), switch)| switch.at - began)
    }

    /// How long the recorded switches to this backend took and how the first of them ended.
    fn end_of_a_switch_to(&self, to: BackendId) -> (Duration, SwitchResult) {
        let began = self.actions().find_map(|(at, action)| match action {
            Action::Switch(switch) if switch.to == to => Some((at, switch.id)),
            _ => None,
        });
        let recorded = began.and_then(|(began, id)| {
            self.told.iter().find_map(|told| match &told.event {
                Some(Event::SwitchDone { id: ended, result }) if *ended == id => {
                    Some((told.at - began, result.clone()))
                }
                _ => None,
            })
        });
        recorded.unwrap_or((Duration::from_millis(5), SwitchResult::Done))
    }

    /// Every action that was asked for, in order.
    pub fn actions(&self) -> impl Iterator<Item = (Time, &Action)> {
        self.told.iter().flat_map(|told| told.asked.iter().map(move |action| (told.at, action)))
    }
}

impl RecordedEngine {
    pub fn new(engine: Engine) -> Self {
        Self { engine, segments: VecDeque::new() }
    }

    /// As [`Engine::handle`].
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        self.told(now, Some(event.clone()));
        let first = actions.len();
        self.engine.handle(now, event, actions);
        self.asked(&actions[first..]);
    }

    /// As [`Engine::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.told(now, None);
        let first = actions.len();
        self.engine.handle_timeout(now, actions);
        self.asked(&actions[first..]);
    }

    /// What is kept from the segment that holds `from` on; everything without it. `None` before the first event.
    pub fn recording(&self, group: &str, epoch_ms: u64, from: Option<Time>) -> Option<Recording> {
        let began = |segment: &Segment| segment.told.first().map(|told| told.at);
        let first = match from {
            Some(from) => self.segments.iter().rposition(|segment| began(segment).is_some_and(|at| at <= from)),
            None => None,
        };
        let first = first.unwrap_or(0);
        let segments = self.segments.iter().skip(first);
        Some(Recording {
            version: RECORDING_VERSION,
            group: group.to_owned(),
            epoch_ms,
            before: self.segments.get(first)?.before.clone(),
            told: segments.flat_map(|segment| segment.told.iter().cloned()).collect(),
            after: self.engine.clone(),
        })
    }

    fn told(&mut self, at: Time, event: Option<Event>) {
        let full = self.segments.back().is_none_or(|last| last.told.len() >= limits::RECORDING_SEGMENT_EVENTS_MAX);
        if full {
            if self.segments.len() == limits::RECORDING_SEGMENTS_MAX {
                self.segments.pop_front();
            }
            self.segments.push_back(Segment { before: self.engine.clone(), told: Vec::new() });
        }
        if let Some(last) = self.segments.back_mut() {
            last.told.push(Told { at, event, asked: Vec::new() });
        }
    }

    fn asked(&mut self, actions: &[Action]) {
        if let Some(told) = self.segments.back_mut().and_then(|last| last.told.last_mut()) {
            told.asked.extend_from_slice(actions);
        }
    }
}

/// Everything that only looks.
impl Deref for RecordedEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

/// What a rerun has still to tell its engine, the earliest first.
#[derive(Default)]
struct Ends(VecDeque<(Time, Event)>);

impl Ends {
    fn first(&self) -> Option<Time> {
        self.0.front().map(|(at, _)| *at)
    }

    fn take(&mut self) -> Option<Event> {
        self.0.pop_front().map(|(_, event)| event)
    }

    fn add(&mut self, at: Time, event: Event) {
        let place = self.0.partition_point(|(other, _)| *other <= at);
        self.0.insert(place, (at, event));
    }
}

/// Neither the engine's own timer nor the end of a switch or a plan that another engine may not have begun.
fn is_of_the_world(told: &Told) -> bool {
    !matches!(told.event, None | Some(Event::SwitchDone { .. } | Event::Rollout(_)))
}

/// Tells an engine one thing; what it asked for.
pub(super) fn tell(engine: &mut Engine, at: Time, event: Option<Event>) -> Vec<Action> {
    let mut actions = Vec::new();
    match event {
        Some(event) => engine.handle(at, event, &mut actions),
        None => engine.handle_timeout(at, &mut actions),
    }
    actions
}
