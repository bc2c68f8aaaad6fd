//! What the engine wants done, and the record of why.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{BackendId, CommandClass, SwitchResult};
use super::incident::Incident;
use super::plan::Plan;
use super::proposals::ProposalId;
use super::time::Time;
use super::view::Health;

/// Carried out in the order given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Enter `to` and publish the route. At most one is wanted at a time: a switch with a higher id supersedes the one
    /// before, which must not publish any more; answer it `Failed`.
    Switch(Switch),
    /// Lead through a staged plan (`Rollout`), and tell by `Event::Rollout` what it comes to. At most one at a time.
    Rollout { from: BackendId, to: BackendId, plan: Plan, why: String },
    /// Requests are served, held or refused from now on. A switch that is `Done`
    /// implies `Serving`, and `Serving` is also said when it was otherwise before.
    Publish { availability: Availability },
    /// How long a request of this class may go without progress on this backend.
    SetAllowance { backend: BackendId, class: CommandClass, allowance: Duration },
    /// Do not wait for the next interval. Nothing to do while a probe of it is unanswered.
    ProbeNow { backend: BackendId },
    /// For the event history.
    Record(Decision),
    /// An incident began, or ended (`Incident::resolved`). Each is told twice, with the same id.
    Incident(Incident),
}

/// Names one switch within an engine; only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SwitchId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    pub id: SwitchId,
    pub from: BackendId,
    /// Equal to `from` when the active is entered anew (`SwitchKind::Reentry`).
    pub to: BackendId,
    pub trigger: Trigger,
    pub kind: SwitchKind,
    /// The old active lives: there is time to drain and to reconcile.
    pub planned: bool,
    /// By which steps; of weight only while the old active lives.
    #[serde(default)]
    pub plan: Plan,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchKind {
    Failover,
    /// To the primary, or from the last resort to a real backend.
    Recovery,
    Manual,
    /// The active restarted or came back after everything was down: it is entered again like any other.
    Reentry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    HealthCheck,
    Connection,
    Performance,
    Timeout,
    Cascade,
    Manual,
}

impl SwitchKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Recovery => "recovery",
            Self::Manual => "manual",
            Self::Reentry => "reentry",
        }
    }
}

impl Trigger {
    pub const ALL: [Self; 6] =
        [Self::HealthCheck, Self::Connection, Self::Performance, Self::Timeout, Self::Cascade, Self::Manual];

    pub const fn name(self) -> &'static str {
        match self {
            Self::HealthCheck => "health_check",
            Self::Connection => "connection",
            Self::Performance => "performance",
            Self::Timeout => "timeout",
            Self::Cascade => "cascade",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What clients get at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    Serving,
    /// Requests wait for the active to come back, at most until then (`failover.hold`).
    Holding {
        until: Time,
    },
    /// Nobody can serve: requests wait for their deadline and then get `-NOBACKEND`.
    NoBackend,
}

/// One decision, also one to stay, with what it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub at: Time,
    pub kind: DecisionKind,
    /// The backend it is about.
    pub backend: BackendId,
    pub trigger: Option<Trigger>,
    /// The switch that it began or ended.
    pub switch: Option<SwitchId>,
    pub switch_kind: Option<SwitchKind>,
    /// Set on `SwitchEnded`.
    pub result: Option<SwitchResult>,
    /// From the first evidence to this decision, where there was evidence.
    pub evidence_for: Option<Duration>,
    /// Every backend that was weighed, best first, the chosen one included.
    pub candidates: Vec<Candidate>,
    /// Every guard that was asked and every condition that was verified, with its answer.
    pub checks: Vec<Check>,
    /// How sure the rule is of what it saw, 0 to 1; absent where nothing was inferred.
    pub confidence: Option<f64>,
    /// How long the switch will take, by those before it.
    pub estimated_delay: Option<Duration>,
    /// The proposal that it made or ended.
    pub proposal: Option<ProposalId>,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    SwitchBegan,
    SwitchEnded,
    /// A staged plan began.
    RolloutBegan,
    /// Nothing changed although something asked for it: a refused recovery, a lone bad backend, a rejected command.
    Stayed,
    /// A switch waits for a person's word (`Mode::SemiAutomatic`).
    Proposed,
    /// A proposal was confirmed, declined, withdrawn or has expired; `why` says which.
    ProposalEnded,
    /// Requests are held for a restart, or served again.
    Held,
    NoBackend,
    /// Authentication began to fail or to work again; never a reason to switch.
    Authentication,
    /// Evidence was set aside because this process itself ran late.
    SelfSuspected,
    /// An operator's command was carried out without a switch: a pin, an exclusion, their end.
    Commanded,
    /// An operator's command was refused; `why` is the answer.
    Rejected,
}

/// One backend as it was weighed: the inputs of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub backend: BackendId,
    pub name: String,
    pub score: u8,
    pub health: Health,
    /// What lowers the score, as [`super::Reason::text`].
    pub reasons: Vec<String>,
    /// Probes' latency when it is well, and now.
    pub baseline: Option<Duration>,
    pub latency: Option<Duration>,
    /// Score times weight with all bonuses and deductions: the order among those that may be chosen.
    pub value: u32,
    /// `None` for the chosen one; else what spoke against it.
    pub against: Option<String>,
}

/// One question that a decision depended on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: CheckName,
    pub passed: bool,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    Trigger,
    Mode,
    Pin,
    Cooldown,
    PerHour,
    /// The target is better than what is left.
    Better,
    /// Not everything is slow alike.
    SlowAlike,
    /// This process itself runs in time.
    Ourselves,
    Delay,
    Connect,
    Role,
    Ready,
    Write,
    Latency,
    Memory,
    Standing,
}

impl CheckName {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Mode => "mode",
            Self::Pin => "pin",
            Self::Cooldown => "cooldown",
            Self::PerHour => "per_hour",
            Self::Better => "better",
            Self::SlowAlike => "slow_alike",
            Self::Ourselves => "ourselves",
            Self::Delay => "delay",
            Self::Connect => "connect",
            Self::Role => "role",
            Self::Ready => "ready",
            Self::Write => "write",
            Self::Latency => "latency",
            Self::Memory => "memory",
            Self::Standing => "standing",
        }
    }
}

impl Check {
    pub(super) fn new(name: CheckName, passed: bool, text: impl Into<String>) -> Self {
        Self { name, passed, text: text.into() }
    }
}

impl Decision {
    pub(super) fn about(at: Time, kind: DecisionKind, backend: BackendId, why: String) -> Self {
        Self {
            at,
            kind,
            backend,
            trigger: None,
            switch: None,
            switch_kind: None,
            result: None,
            evidence_for: None,
            candidates: Vec::new(),
            checks: Vec::new(),
            confidence: None,
            estimated_delay: None,
            proposal: None,
            why,
        }
    }
}
