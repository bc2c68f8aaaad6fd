//! What the control API speaks: commands, reports (`report.rs`), and the handle by which HTTP and others reach the control task.
//!
//! Knows nothing of HTTP. The control task owns all state; a [`Request`] carries the place for its answer. Everything that
//! is shown is text or numbers already made: addresses without credentials, no keys, no values.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::limits;
use crate::policy::{Plan, Recording};
use crate::telemetry::events::{Event, History, Word};

mod report;

pub use self::report::{
    BackendReport, DivergenceReport, GroupReport, IdentityReport, IncidentReport, LatencyReport, MirrorReport,
    ObjectivesReport, PlanReport, ProbeReport, ProposalReport, ReadFillReport, RecoveryReport, ReliabilityReport,
    ReplicationReport, SamplingReport, SignalsReport, StatisticsReport, StatusReport, SwitchReport,
};

/// What can be replayed; `None` before the first event.
pub type RecordingReport = Option<Arc<Recording>>;

/// An operator's order, by the names of backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Failover { to: Option<String> },
    Recover,
    Pin { backend: String, lasts: Duration },
    Unpin,
    Drain { backend: String },
    Exclude { backend: String },
    Include { backend: String },
    Confirm { proposal: Option<u64> },
    Reject { proposal: Option<u64> },
}

/// Who gives an order, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    pub by: String,
    pub reason: String,
}

/// How an order that ends in a switch is carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// As configured if absent.
    pub plan: Option<Plan>,
    /// How long each comparison of a staged plan lasts at least; as configured if absent.
    pub dwell: Option<Duration>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What is asked of the staged plan under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanOrder {
    Pause,
    Resume,
    /// The backend that served before serves again.
    Rollback,
}

/// The answer to a command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutcome {
    pub group: String,
    /// `done`, `begun` (a plan that goes on by itself), `nothing_to_do` when things were already as asked, or `dry_run`.
    pub result: Word,
    /// One sentence.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The route's epoch after the command.
    pub epoch: u64,
    pub duration_us: u64,
    /// So long requests waited; of a switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_us: Option<u64>,
    /// The steps of the switch, one sentence each, of a dry run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
}

/// One finding of `standin check --connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckLine {
    /// `group/name` where there are several groups, else the name.
    pub backend: String,
    /// A problem when false: the check then fails.
    pub ok: bool,
    /// What was found, in one sentence.
    pub text: String,
    /// The one command that mends it.
    pub mend: Option<String>,
}

/// Why a command was not carried out. Nothing changed then, except after [`CommandError::TimedOut`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("there is no group named '{name}'")]
    UnknownGroup { name: String, known: Vec<String> },
    #[error("group '{group}' has no backend named '{name}'")]
    UnknownBackend { group: String, name: String, known: Vec<String> },
    /// No group was named, and there are several.
    #[error("there are several groups, and none was named")]
    GroupNeeded { known: Vec<String> },
    /// A guard said no; `hint` says what would help.
    #[error("refused: {why}")]
    Refused { why: String, hint: String },
    /// Another switch is under way, or too many commands wait.
    #[error("busy: {why}")]
    Busy { why: String },
    /// The command may still be carried out.
    #[error("no answer within {} s; the command may still be carried out", .waited.as_secs())]
    TimedOut { waited: Duration },
    #[error("the control task has ended; the process is stopping")]
    Stopped,
}

impl CommandError {
    /// What the caller can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownGroup { known, .. } | Self::GroupNeeded { known } => {
                format!("name one of the groups: {}", known.join(", "))
            }
            Self::UnknownBackend { known, .. } => format!("the backends of the group are: {}", known.join(", ")),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Busy { .. } => "try again in a few seconds; `standin status` shows what is under way".to_owned(),
            Self::TimedOut { .. } => "look at `standin status` and `standin events` before you try again".to_owned(),
            Self::Stopped => "wait until it has started again".to_owned(),
        }
    }
}

pub type CommandReply = oneshot::Sender<Result<CommandOutcome, CommandError>>;

/// What the control task is asked. A reply whose receiver has gone is dropped; the command is carried out all the same.
#[derive(Debug)]
pub enum Request {
    Status {
        reply: oneshot::Sender<StatusReport>,
    },
    /// Every group's.
    Statistics {
        reply: oneshot::Sender<Vec<StatisticsReport>>,
    },
    Recording {
        group: Option<String>,
        event: Option<u64>,
        reply: oneshot::Sender<Result<RecordingReport, CommandError>>,
    },
    Order {
        group: Option<String>,
        order: Order,
        how: How,
        note: Note,
        reply: CommandReply,
    },
    /// About the staged plan under way.
    Plan {
        group: Option<String>,
        order: PlanOrder,
        note: Note,
        reply: CommandReply,
    },
    /// Standin may from now on empty this backend.
    Adopt {
        group: Option<String>,
        backend: String,
        reply: CommandReply,
    },
    /// Standin may no longer empty this backend.
    Disown {
        group: Option<String>,
        backend: String,
        reply: CommandReply,
    },
}

/// The control task's end.
#[derive(Debug)]
pub struct Receiver {
    requests: mpsc::Receiver<Request>,
}

impl Receiver {
    /// The next request; `None` when every handle is gone. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Request> {
        self.requests.recv().await
    }
}

/// The callers' end: cheap to clone, bounded, and never waits for ever.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    history: Arc<History>,
}

/// Both ends. The history is read past the control task, so that it can be read even if that task is stuck.
pub fn channel(history: Arc<History>) -> (Handle, Receiver) {
    let (sender, receiver) = mpsc::channel(limits::CONTROL_QUEUE_MAX);
    (Handle { requests: sender, history }, Receiver { requests: receiver })
}

impl Handle {
    pub async fn status(&self) -> Result<StatusReport, CommandError> {
        self.ask(limits::CONTROL_STATUS_TIMEOUT, |reply| Request::Status { reply }).await
    }

    /// With `since`: up to `limit` events newer than that id, the oldest first. Without: the newest `limit`.
    pub async fn events(&self, since: Option<u64>, limit: usize) -> Vec<Event> {
        match since {
            Some(id) => self.history.since(id, limit),
            None => self.history.latest(limit),
        }
    }

    /// The id of the newest event. Lower than an id seen before means that the process was restarted.
    pub fn last_event_id(&self) -> u64 {
        self.history.last_id()
    }

    /// The event with this id, and up to `around` of its group's before and after it; `None` when it is not kept.
    pub async fn event(&self, id: u64, around: usize) -> Option<(Event, Vec<Event>, Vec<Event>)> {
        let event = self.history.get(id)?;
        let of_group = |other: &Event| other.group == event.group;
        let before = self.history.since(id.saturating_sub(around as u64 + 1), around);
        let before = before.into_iter().filter(|other| other.id < id && of_group(other)).collect();
        let after = self.history.since(id, around).into_iter().filter(of_group).collect();
        Some((event, before, after))
    }

    pub async fn statistics(&self) -> Result<Vec<StatisticsReport>, CommandError> {
        self.ask(limits::CONTROL_STATUS_TIMEOUT, |reply| Request::Statistics { reply }).await
    }

    /// The recording that holds this event; without one, what the engine was told lately.
    pub async fn recording(&self, group: Option<String>, event: Option<u64>) -> Result<RecordingReport, CommandError> {
        self.ask(limits::CONTROL_STATUS_TIMEOUT, |reply| Request::Recording { group, event, reply }).await?
    }

    /// `group` may be left out where there is one group.
    pub async fn order(
        &self,
        group: Option<String>,
        order: Order,
        how: How,
        note: Note,
    ) -> Result<CommandOutcome, CommandError> {
        self.command(|reply| Request::Order { group, order, how, note, reply }).await
    }

    pub async fn plan(
        &self,
        group: Option<String>,
        order: PlanOrder,
        note: Note,
    ) -> Result<CommandOutcome, CommandError> {
        self.command(|reply| Request::Plan { group, order, note, reply }).await
    }

    pub async fn adopt(&self, group: Option<String>, backend: String) -> Result<CommandOutcome, CommandError> {
        self.command(|reply| Request::Adopt { group, backend, reply }).await
    }

    pub async fn disown(&self, group: Option<String>, backend: String) -> Result<CommandOutcome, CommandError> {
        self.command(|reply| Request::Disown { group, backend, reply }).await
    }

    async fn command(&self, request: impl FnOnce(CommandReply) -> Request) -> Result<CommandOutcome, CommandError> {
        self.ask(limits::CONTROL_COMMAND_TIMEOUT, request).await?
    }

    async fn ask<T>(
        &self,
        timeout: Duration,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                CommandError::Busy { why: "too many requests wait for the control task".to_owned() }
            }
            mpsc::error::TrySendError::Closed(_) => CommandError::Stopped,
        })?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(CommandError::Stopped),
            Err(_elapsed) => Err(CommandError::TimedOut { waited: timeout }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
