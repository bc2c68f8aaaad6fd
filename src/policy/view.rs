//! A snapshot of the engine for the status page, metrics and people.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Availability, Switch};
use super::breaker::BreakerState;
use super::event::{BackendId, Standing};
use super::figures::Figures;
use super::incident::Incident;
use super::operator::{Exclusion, Pin};
use super::proposals::Proposal;
use super::score;
use super::settings::{BackendRole, Mode};
use super::time::Time;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub at: Time,
    pub status: Status,
    pub active: BackendId,
    pub availability: Availability,
    /// Grows by one with every completed switch; 1 at the start.
    pub epoch: u64,
    /// The switch that is being carried out.
    pub switching: Option<Switch>,
    pub mode: Mode,
    /// Waits for a person's word.
    pub proposal: Option<Proposal>,
    pub pin: Option<Pin>,
    /// Until then no switch is made that can wait.
    pub cools_until: Option<Time>,
    /// The one that is not resolved.
    pub incident: Option<Incident>,
    /// An operator chose the active: no automatic recovery until `Recover`.
    pub recovery_held_by_operator: bool,
    /// Earliest automatic recovery, while one is waited for.
    pub recovery_at: Option<Time>,
    /// Recoveries that did not last; the delay doubles with each.
    pub relapses: u32,
    /// Who would follow the active if it died now.
    #[serde(default)]
    pub next: Option<BackendId>,
    /// In the order of their ids.
    pub backends: Vec<BackendView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    pub id: BackendId,
    pub name: String,
    pub role: BackendRole,
    pub health: Health,
    /// 0 to 100; 100 less the points of the reasons.
    pub score: u8,
    pub reasons: Vec<Reason>,
    /// Probe latency when it is well; `None` until enough good probes.
    pub baseline: Option<Duration>,
    pub probe_latency: Option<Duration>,
    pub probes_ok_in_row: u32,
    pub probes_failed_in_row: u32,
    pub breaker: BreakerState,
    pub standing: Standing,
    pub in_flight: u32,
    /// The verdict stands that it serves nobody.
    #[serde(default)]
    pub failed: bool,
    pub last_progress: Option<Time>,
    /// By an operator.
    pub excluded: Option<Exclusion>,
    pub last_failure: Option<(Time, String)>,
    pub figures: Figures,
}

impl BackendView {
    /// Its health, and the first of its reasons, but for what tells of an outage that is over: one that has just come back is
    /// not ill for having been away.
    #[must_use]
    pub fn present_health(&self) -> (Health, Option<&Reason>) {
        let is_past = |reason: &&Reason| match reason.factor {
            Factor::Availability => true,
            Factor::Breaker => self.breaker == BreakerState::HalfOpen,
            _ => false,
        };
        let past: u8 = self.reasons.iter().filter(is_past).fold(0, |sum: u8, reason| sum.saturating_add(reason.points));
        let health = match self.health {
            Health::Unknown => Health::Unknown,
            health if self.failed || past == 0 => health,
            _ => score::of(self.score.saturating_add(past)),
        };
        (health, self.reasons.iter().find(|reason| !is_past(reason)))
    }
}

/// One thing that lowers a score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub factor: Factor,
    pub points: u8,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    Failed,
    Unknown,
    Connection,
    Silence,
    Probes,
    Readiness,
    Role,
    Authentication,
    Errors,
    Latency,
    Breaker,
    /// Its silence is surprising.
    Suspicion,
    Availability,
    ReplicationLag,
    InFlight,
}

/// Where the group is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The primary serves.
    Active,
    FailingOver,
    FailedOver,
    Recovering,
    /// The primary serves again, for less than `recovery.grace_period`.
    Recovered,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::FailingOver => "failing_over",
            Self::FailedOver => "failed_over",
            Self::Recovering => "recovering",
            Self::Recovered => "recovered",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Score from 95.
    Healthy,
    /// Score from 80.
    Degraded,
    /// Score from 50.
    Critical,
    /// Score under 50, or a verdict of failure stands.
    Failed,
    /// Never heard from.
    Unknown,
}

impl Health {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
