//! Incidents: from the moment at which the active failed until somebody serves as clients should be served.

use serde::{Deserialize, Serialize};

use super::action::{Action, SwitchKind, Trigger};
use super::engine::Engine;
use super::event::BackendId;
use super::evidence::Failure;
use super::time::Time;

/// One outage or trouble of the active, told when it begins and when it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Only grows within an engine.
    pub id: u64,
    /// The first evidence, and the verdict.
    pub since: Time,
    pub opened_at: Time,
    /// The active then.
    pub backend: BackendId,
    pub trigger: Trigger,
    /// It served nobody; else it served badly.
    pub hard: bool,
    pub confidence: f64,
    /// Switches that were begun for it.
    pub attempts: u32,
    pub why: String,
    pub resolved: bool,
    pub resolved_at: Option<Time>,
    pub resolution: Option<Resolution>,
    /// Who serves since then.
    pub served_by: Option<BackendId>,
}

/// What ended an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// The first backend that was tried.
    Failover,
    /// A further one.
    Cascade,
    /// The same backend, entered anew.
    Reentry,
    /// It came back by itself, or was held for.
    Waited,
    /// A person's command.
    Operator,
}

impl Resolution {
    pub const ALL: [Self; 5] = [Self::Failover, Self::Cascade, Self::Reentry, Self::Waited, Self::Operator];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Cascade => "cascade",
            Self::Reentry => "reentry",
            Self::Waited => "waited",
            Self::Operator => "operator",
        }
    }
}

impl Engine {
    /// The one that is not over.
    pub fn incident(&self) -> Option<&Incident> {
        self.incident.as_ref()
    }

    pub(super) fn open_incident(&mut self, now: Time, failure: &Failure, hard: bool, actions: &mut Vec<Action>) {
        if let Some(incident) = &mut self.incident {
            incident.hard |= hard;
            return;
        }
        self.last_incident += 1;
        let incident = Incident {
            id: self.last_incident,
            since: failure.since.min(now),
            opened_at: now,
            backend: self.active,
            trigger: failure.trigger,
            hard,
            confidence: failure.confidence(),
            attempts: 0,
            why: format!("{}: {}", self.name(self.active), failure.why),
            resolved: false,
            resolved_at: None,
            resolution: None,
            served_by: None,
        };
        actions.push(Action::Incident(incident.clone()));
        self.incident = Some(incident);
    }

    /// A backend was entered; the last resort is a bridge, not an end.
    pub(super) fn resolve_by_switch(
        &mut self,
        now: Time,
        to: BackendId,
        kind: SwitchKind,
        trigger: Trigger,
        actions: &mut Vec<Action>,
    ) {
        if self.backend(to).settings.last_resort {
            return;
        }
        let cascaded = self.incident.as_ref().is_some_and(|incident| incident.attempts > 1);
        let resolution = match kind {
            SwitchKind::Reentry => Resolution::Reentry,
            SwitchKind::Manual => Resolution::Operator,
            _ if trigger == Trigger::Manual => Resolution::Operator,
            SwitchKind::Failover | SwitchKind::Recovery if cascaded => Resolution::Cascade,
            SwitchKind::Failover | SwitchKind::Recovery => Resolution::Failover,
        };
        self.resolve_incident(now, resolution, actions);
    }

    pub(super) fn resolve_incident(&mut self, now: Time, resolution: Resolution, actions: &mut Vec<Action>) {
        let Some(incident) = self.incident.take() else { return };
        actions.push(Action::Incident(Incident {
            resolved: true,
            resolved_at: Some(now),
            resolution: Some(resolution),
            served_by: Some(self.active),
            ..incident
        }));
    }
}

impl Failure {
    /// How sure the rule that reached it is, 0 to 1, from what was measured.
    pub(super) fn confidence(&self) -> f64 {
        self.confidence
    }
}
