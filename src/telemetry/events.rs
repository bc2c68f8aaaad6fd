//! The history of events: what happened, why, and what to do, for the person woken at night.
//!
//! An event is rare (a switch, a backend lost), never one request. Messages must not carry secrets, keys or values: they
//! travel to logs and to everyone who may read the status.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wall_time::WallTime;
use crate::limits;

/// A word of a closed set whose owner is elsewhere (a trigger, a status, a result).
///
/// Text and not an enum of its own, so that an older command line can read a newer Standin.
pub type Word = Cow<'static, str>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What an event is about. Scripts and alerts match on it, so a name never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The listeners are bound and the first route is published.
    Started,
    /// SIGTERM came; clients are served until the last has gone or `drain.timeout` has passed.
    Drain,
    /// The process ends.
    Stopped,
    /// A backend was left for another.
    Failover,
    /// The primary serves again.
    Recovery,
    /// The active restarted, or came back after an outage of all, and serves again; no other backend was entered.
    Reentry,
    /// A switch was wanted, and a guard said no.
    SwitchRefused,
    /// A switch began and was taken back.
    SwitchFailed,
    BackendDown,
    BackendDegraded,
    BackendUp,
    /// Every backend of the group is down.
    NoBackend,
    /// A backend refuses our user or password. Never a reason to switch.
    AuthenticationFailed,
    /// A backup could not be entered as things stand.
    NotEnterable,
    /// A backup that could not be entered now can be.
    Enterable,
    /// A backend restarted or is another server than before: its content is not what it was.
    IdentityChanged,
    /// All connections to a backend were lost at once.
    LinksLost,
    /// More keys were dirtied than the record may hold; the backend's content counts as unknown.
    DivergenceOverflow,
    /// What a backend had missed was removed from it or copied to it.
    Reconciled,
    /// A server was promoted, or made to follow another, or could not be.
    Replication,
    /// A mirrored backend or a replica holds something else than the active, though nothing was under way.
    Difference,
    /// Configuration was read, reloaded or refused.
    Config,
    /// An operator's command by the control port.
    Operator,
    /// A staged plan began, took a step, or has ended (`result`).
    Plan,
    /// A switch waits for `standin confirm` (`failover.mode = "semi_automatic"`).
    Proposed,
    /// A proposal was confirmed or rejected by a person, withdrawn, overtaken, or has expired.
    ProposalEnded,
    /// An outage or trouble of the active began (`result` is `open`) or is over (`resolved`).
    Incident,
    /// An outage is over and was measured: how long it took, by its parts, and what was lost at most.
    ObjectiveMeasured,
    /// The same, and a target of `[objectives]` was missed.
    ObjectiveMissed,
    /// A decision to stay, to hold requests, or to distrust our own clock.
    Decision,
}

impl EventKind {
    pub const ALL: [Self; 30] = [
        Self::Started,
        Self::Drain,
        Self::Stopped,
        Self::Failover,
        Self::Recovery,
        Self::Reentry,
        Self::SwitchRefused,
        Self::SwitchFailed,
        Self::BackendDown,
        Self::BackendDegraded,
        Self::BackendUp,
        Self::NoBackend,
        Self::AuthenticationFailed,
        Self::NotEnterable,
        Self::Enterable,
        Self::IdentityChanged,
        Self::LinksLost,
        Self::DivergenceOverflow,
        Self::Reconciled,
        Self::Replication,
        Self::Difference,
        Self::Config,
        Self::Operator,
        Self::Plan,
        Self::Proposed,
        Self::ProposalEnded,
        Self::Incident,
        Self::ObjectiveMeasured,
        Self::ObjectiveMissed,
        Self::Decision,
    ];

    /// The name in JSON, logs and the terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Drain => "drain",
            Self::Stopped => "stopped",
            Self::Failover => "failover",
            Self::Recovery => "recovery",
            Self::Reentry => "reentry",
            Self::SwitchRefused => "switch_refused",
            Self::SwitchFailed => "switch_failed",
            Self::BackendDown => "backend_down",
            Self::BackendDegraded => "backend_degraded",
            Self::BackendUp => "backend_up",
            Self::NoBackend => "no_backend",
            Self::AuthenticationFailed => "authentication_failed",
            Self::NotEnterable => "not_enterable",
            Self::Enterable => "enterable",
            Self::IdentityChanged => "identity_changed",
            Self::LinksLost => "links_lost",
            Self::DivergenceOverflow => "divergence_overflow",
            Self::Reconciled => "reconciled",
            Self::Replication => "replication",
            Self::Difference => "difference",
            Self::Config => "config",
            Self::Operator => "operator",
            Self::Plan => "plan",
            Self::Proposed => "proposed",
            Self::ProposalEnded => "proposal_ended",
            Self::Incident => "incident",
            Self::ObjectiveMeasured => "objective_measured",
            Self::ObjectiveMissed => "objective_missed",
            Self::Decision => "decision",
        }
    }

    /// The severity unless the writer knows better (see [`Event::severity`]).
    const fn usual_severity(self) -> Severity {
        match self {
            Self::Started
            | Self::Drain
            | Self::Stopped
            | Self::Recovery
            | Self::Reentry
            | Self::BackendUp
            | Self::Enterable
            | Self::Reconciled
            | Self::Replication
            | Self::Config
            | Self::Operator
            | Self::Plan
            | Self::ProposalEnded
            | Self::Incident
            | Self::ObjectiveMeasured
            | Self::Decision => Severity::Info,
            Self::Failover
            | Self::ObjectiveMissed
            | Self::Proposed
            | Self::SwitchRefused
            | Self::BackendDown
            | Self::BackendDegraded
            | Self::NotEnterable
            | Self::IdentityChanged
            | Self::LinksLost
            | Self::Difference
            | Self::DivergenceOverflow => Severity::Warning,
            Self::SwitchFailed | Self::NoBackend | Self::AuthenticationFailed => Severity::Error,
        }
    }
}

/// One thing that happened. Made by [`Event::new`] and the methods that add to it; [`History::record`] numbers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event of this process, from 1. 0 until it is recorded.
    pub id: u64,
    pub at: WallTime,
    pub kind: EventKind,
    pub severity: Severity,
    /// Absent for what concerns the whole process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The backend that was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The backend that was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Word>,
    /// The route's epoch after the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Word>,
    /// One plain sentence or two: what happened, why, what to do.
    pub message: String,
    /// Whatever helps to explain it later: the figures that a decision was taken from.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl Event {
    /// An event that happens now, with the severity that its kind usually has.
    pub fn new(kind: EventKind, message: impl Into<String>) -> Self {
        Self {
            id: 0,
            at: WallTime::now(),
            kind,
            severity: kind.usual_severity(),
            group: None,
            backend: None,
            from: None,
            to: None,
            trigger: None,
            epoch: None,
            duration_us: None,
            result: None,
            message: message.into(),
            detail: Value::Null,
        }
    }

    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    #[must_use]
    pub fn backend(mut self, backend: impl Into<String>) -> Self {
        self.backend = Some(backend.into());
        self
    }

    /// The backend that was left, if any served, and the one that was entered.
    #[must_use]
    pub fn switch(mut self, from: Option<&str>, to: Option<&str>) -> Self {
        self.from = from.map(str::to_owned);
        self.to = to.map(str::to_owned);
        self
    }

    #[must_use]
    pub fn trigger(mut self, trigger: impl Into<Word>) -> Self {
        self.trigger = Some(trigger.into());
        self
    }

    #[must_use]
    pub fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration_us = Some(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self
    }

    #[must_use]
    pub fn result(mut self, result: impl Into<Word>) -> Self {
        self.result = Some(result.into());
        self
    }

    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// One line in the log, with the fields that are present.
    fn log(&self) {
        // What a switch was decided from is for `standin explain`, and too long for a line.
        let mut detail = self.detail.clone();
        if let Some(fields) = detail.as_object_mut() {
            fields.remove("decision");
        }
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "standin::event",
                    id = self.id,
                    event = self.kind.as_str(),
                    group = self.group.as_deref(),
                    backend = self.backend.as_deref(),
                    from = self.from.as_deref(),
                    to = self.to.as_deref(),
                    trigger = self.trigger.as_deref(),
                    epoch = self.epoch,
                    duration_us = self.duration_us,
                    result = self.result.as_deref(),
                    detail = (!detail.is_null()).then(|| tracing::field::display(&detail)),
                    "{}",
                    self.message
                )
            };
        }
        match self.severity {
            Severity::Info => line!(info),
            Severity::Warning => line!(warn),
            Severity::Error => line!(error),
        }
    }
}

/// The last [`limits::EVENTS_KEPT_MAX`] events, and the log line of each.
///
/// Any thread may record: the mutex is held for one push, and never while logging.
#[derive(Debug)]
pub struct History {
    kept_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Ids are consecutive, the oldest in front.
    events: VecDeque<Event>,
    last_id: u64,
}

impl Default for History {
    fn default() -> Self {
        Self::with_bound(limits::EVENTS_KEPT_MAX)
    }
}

impl History {
    /// A history that keeps at most `kept_max` events (at least one).
    pub fn with_bound(kept_max: usize) -> Self {
        Self { kept_max: kept_max.max(1), kept: Mutex::default() }
    }

    /// Numbers the event, keeps it, logs it once, and answers its id. The oldest goes when the history is full.
    pub fn record(&self, mut event: Event) -> u64 {
        let id = {
            let mut kept = self.lock();
            kept.last_id += 1;
            event.id = kept.last_id;
            if kept.events.len() == self.kept_max {
                kept.events.pop_front();
            }
            kept.events.push_back(event.clone());
            event.id
        };
        event.log();
        id
    }

    /// The id of the newest event, 0 before the first.
    pub fn last_id(&self) -> u64 {
        self.lock().last_id
    }

    /// Up to `limit` events with an id above `id`, the oldest first: who asks again with the last id it saw misses none
    /// that is still kept.
    pub fn since(&self, id: u64, limit: usize) -> Vec<Event> {
        let kept = self.lock();
        let newer = usize::try_from(kept.last_id.saturating_sub(id)).unwrap_or(usize::MAX);
        let skipped = kept.events.len().saturating_sub(newer);
        kept.events.iter().skip(skipped).take(limit).cloned().collect()
    }

    /// The event with this id, if it is still kept.
    pub fn get(&self, id: u64) -> Option<Event> {
        let kept = self.lock();
        let first = kept.events.front()?.id;
        kept.events.get(usize::try_from(id.checked_sub(first)?).ok()?).cloned()
    }

    /// The newest `count` events, the oldest of them first.
    pub fn latest(&self, count: usize) -> Vec<Event> {
        let kept = self.lock();
        kept.events.iter().skip(kept.events.len().saturating_sub(count)).cloned().collect()
    }

    /// A thread that panicked while it held the lock left a whole deque behind, so the history goes on.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbered(history: &History, count: usize) {
        for number in 1..=count {
            history.record(Event::new(EventKind::Config, format!("event {number}")));
        }
    }

    fn ids(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn a_full_history_drops_its_oldest_and_keeps_counting() {
        let history = History::with_bound(3);
        numbered(&history, 5);
        assert_eq!(ids(&history.latest(10)), [3, 4, 5]);
        assert_eq!(history.last_id(), 5);
        assert_eq!(history.latest(1)[0].message, "event 5");
    }

    #[test]
    fn since_answers_what_is_newer_and_the_oldest_of_it_first() {
        let history = History::with_bound(4);
        assert!(history.since(0, 10).is_empty());
        numbered(&history, 6);
        assert_eq!(ids(&history.since(0, 10)), [3, 4, 5, 6]);
        assert_eq!(ids(&history.since(4, 10)), [5, 6]);
        assert_eq!(ids(&history.since(3, 2)), [4, 5]);
        assert!(history.since(6, 10).is_empty());
        assert!(history.since(u64::MAX, 10).is_empty());
        assert_eq!(history.get(4).map(|event| event.message), Some("event 4".to_owned()));
        assert_eq!((history.get(2), history.get(7), history.get(0)), (None, None, None));
    }

    #[test]
    fn events_recorded_by_many_threads_have_consecutive_ids() {
        let history = History::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| numbered(&history, 100));
            }
        });
        assert_eq!(ids(&history.latest(1000)), (1..=800).collect::<Vec<u64>>());
    }

    #[test]
    fn the_default_history_is_bounded_by_its_limit() {
        let history = History::default();
        numbered(&history, limits::EVENTS_KEPT_MAX + 1);
        assert_eq!(history.latest(usize::MAX).len(), limits::EVENTS_KEPT_MAX);
    }

    #[test]
    fn an_event_is_written_with_its_present_fields_and_read_back() {
        let event = Event::new(EventKind::Failover, "primary was left")
            .group("default")
            .switch(Some("primary"), Some("backup-a"))
            .trigger("connection")
            .epoch(2)
            .duration(Duration::from_micros(840))
            .result("ok");
        let text = serde_json::to_string(&event).unwrap();
        assert!(
            text.contains(r#""kind":"failover","severity":"warning","group":"default","from":"primary""#),
            "{text}"
        );
        assert!(!text.contains(r#""backend""#) && !text.contains("detail"), "{text}");
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn every_kind_has_one_name_in_json_and_in_the_log() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), Value::from(kind.as_str()));
        }
        for severity in [Severity::Info, Severity::Warning, Severity::Error] {
            assert_eq!(serde_json::to_value(severity).unwrap(), Value::from(severity.as_str()));
        }
    }
}
