//! What the engine is told. Everything here is plain data that serialises: a recorded list of it is an incident.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::SwitchId;
use super::failure::{Cause, FailureKind};
use super::operator::OperatorCommand;
use super::sketch::Sketch;
use super::time::Time;

/// A backend's index within its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(pub u8);

impl BackendId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One thing that happened. Events about a backend that the group does not have are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Something sudden, reported at once by a link, a probe connection or a pinned connection.
    Edge {
        backend: BackendId,
        edge: Edge,
    },
    /// What one backend did since its last summary. Expected every tick for the active (25 ms with the fast profile,
    /// else 100 ms or less), and at once before a `Stalled` edge, so that silence is judged by fresh news.
    Window {
        backend: BackendId,
        window: WindowSummary,
    },
    Probe {
        backend: BackendId,
        outcome: ProbeOutcome,
    },
    /// Divergence's opinion: may this backend be entered?
    Standing {
        backend: BackendId,
        standing: Standing,
    },
    /// This backend serves already: it did when an earlier process ended, and its content is what was acknowledged.
    Joined {
        backend: BackendId,
    },
    Operator(OperatorCommand),
    /// What becomes of an `Action::Rollout`.
    Rollout(RolloutNews),
    /// What became of an `Action::Switch`. Every switch is answered once, also a superseded one.
    SwitchDone {
        id: SwitchId,
        result: SwitchResult,
    },
    /// The control task itself ran late, or the clock jumped, by this much until now: suspect ourselves.
    TickStalled {
        late: Duration,
    },
}

/// News of a staged plan, from whoever leads through it. Its end is told once, whatever it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutNews {
    /// Its switch is due: to the next backend, or back to the one that was left.
    Switch { to: BackendId, why: String },
    /// It is over. After a recovery that did not end well the next one waits; after one that an operator rolled back, for
    /// their word.
    Ended { well: bool, by_operator: bool },
}

/// Sudden news from one connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// An established link closed or was reset. Not a failure by itself; what comes next is evidence.
    LinkLost,
    ConnectRefused,
    /// Unreachable, DNS, TLS: the connection could not be made, and the answer came at once.
    ConnectFailed,
    ConnectTimedOut,
    /// Closed or reset between connect and the handshake's last reply.
    HandshakeReset,
    HandshakeTimedOut,
    /// Connected in the full sense: the handshake was answered. Sent after `IdentityChanged` when both hold.
    HandshakeDone,
    /// The head request of a link made no progress for its class's allowance. `silent_for` is measured by that link.
    Stalled {
        silent_for: Duration,
    },
    AuthenticationFailed,
    NotReady(NotReadyWord),
    /// READONLY, or a role that is not the expected one.
    WrongRole,
    /// The handshake was answered by another run id or replication id than before: its content is another.
    IdentityChanged,
}

/// Why a living server does not serve, by the first word of its error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NotReadyWord {
    Loading,
    MasterDown,
    ClusterDown,
    /// Writes are refused because the server cannot persist.
    Misconf,
    NoReplicas,
    TryAgain,
    /// A script or a module command blocks the server.
    Busy,
}

/// The classes whose latency is recorded apart, so that a KEYS is not a gray failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandClass {
    /// Bounded work on one key, no effect.
    Read,
    /// Bounded work on one key, with an effect.
    Write,
    /// Work that grows with its arguments: MGET, DEL of many, SUNION.
    MultiKey,
    /// Work that nothing bounds: KEYS, SORT, EVAL, FCALL. Its allowance is `timeout.slow`.
    Slow,
}

impl CommandClass {
    pub const COUNT: usize = 4;
    pub const ALL: [Self; Self::COUNT] = [Self::Read, Self::Write, Self::MultiKey, Self::Slow];

    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::MultiKey => "multi_key",
            Self::Slow => "slow",
        }
    }
}

/// One tick's counters of one backend, over all links, pinned connections and workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSummary {
    /// Requests that ended in this window, errors included.
    pub requests: u64,
    pub errors: ErrorCounts,
    /// Latency of what was answered, errors included; indexed by [`CommandClass::index`].
    pub latency: [Sketch; CommandClass::COUNT],
    /// Requests unanswered at the window's end.
    pub in_flight: u32,
    /// Last reply byte of any kind, on any link or probe connection.
    pub last_progress: Option<Time>,
    /// While a slow-class request is unanswered: when its allowance ends.
    pub slow_in_flight_until: Option<Time>,
}

/// Failed requests by type, as the failure classification names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCounts {
    pub connection: u64,
    pub timeout: u64,
    pub overloaded: u64,
    pub not_ready: u64,
    pub wrong_role: u64,
    pub authentication: u64,
    pub protocol: u64,
    /// The application's own errors (WRONGTYPE, errors inside scripts): counted, never held against a backend.
    pub data: u64,
}

impl ProbeAnswer {
    /// An answer about which no more is known.
    #[must_use]
    pub fn new(latency: Duration, role: Role) -> Self {
        Self { latency, role, ..Self::default() }
    }
}

impl MemoryUse {
    /// Share of the limit that is used; `None` without a limit.
    #[must_use]
    pub fn share(self) -> Option<f64> {
        (self.max_bytes > 0).then(|| self.used_bytes as f64 / self.max_bytes as f64)
    }
}

impl ErrorCounts {
    /// Counts `n` more failures of one kind.
    pub fn add(&mut self, kind: FailureKind, n: u64) {
        let count = match kind {
            FailureKind::Connection => &mut self.connection,
            FailureKind::Timeout => &mut self.timeout,
            FailureKind::Overloaded => &mut self.overloaded,
            FailureKind::NotReady => &mut self.not_ready,
            FailureKind::WrongRole => &mut self.wrong_role,
            FailureKind::Authentication => &mut self.authentication,
            FailureKind::Protocol => &mut self.protocol,
            FailureKind::Data => &mut self.data,
        };
        *count = count.saturating_add(n);
    }

    #[must_use]
    pub fn get(&self, kind: FailureKind) -> u64 {
        match kind {
            FailureKind::Connection => self.connection,
            FailureKind::Timeout => self.timeout,
            FailureKind::Overloaded => self.overloaded,
            FailureKind::NotReady => self.not_ready,
            FailureKind::WrongRole => self.wrong_role,
            FailureKind::Authentication => self.authentication,
            FailureKind::Protocol => self.protocol,
            FailureKind::Data => self.data,
        }
    }

    /// Errors that speak against the backend. Authentication is a person's to mend, data the application's.
    pub fn against_backend(&self) -> u64 {
        self.connection + self.timeout + self.overloaded + self.not_ready + self.wrong_role + self.protocol
    }
}

/// What one probe (PING, ROLE, and a write where it is asked for) came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    Ok(ProbeAnswer),
    /// The probe's connection could not be made or was lost.
    Failed(Edge),
    /// No answer within the probe's timeout, which is best not under `timeout.floor`. Sent once for each probe.
    TimedOut {
        silent_for: Duration,
    },
    NotReady(NotReadyWord),
    AuthenticationFailed,
}

/// What a server says of itself when it is asked. Fields may be added: start from `ProbeAnswer::new` or the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeAnswer {
    /// From the first byte sent to the last reply, all of the probe's commands together.
    pub latency: Duration,
    pub role: Role,
    /// `None` when no write was tried.
    pub write_ok: Option<bool>,
    /// Replicas only: how long it has heard nothing from its master, as far as it says (whole seconds).
    pub replication_lag: Option<Duration>,
    /// Bytes of the replication stream that it has produced (a master) or taken in (a replica).
    pub replication_offset: Option<u64>,
    /// Not read with every probe.
    pub memory: Option<MemoryUse>,
}

/// A server's memory, from INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    pub used_bytes: u64,
    /// `maxmemory`; 0: no limit.
    pub max_bytes: u64,
    /// At the limit it makes room by itself (`maxmemory-policy` other than noeviction); else it refuses writes.
    pub evicts: bool,
}

/// The server's replication role, from ROLE or HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Master,
    Replica,
    Sentinel,
    /// ROLE is not permitted or not known.
    #[default]
    Unknown,
}

/// Whether a backend may be entered as far as its content goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Clean, empty, or what it missed can be reconciled.
    Enterable,
    /// Never entered while this holds; `why` is for people.
    Refused { why: String },
    /// Not known yet: tried only when nothing better lives; the switch itself finds out.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchResult {
    /// The route is published: the target serves.
    Done,
    /// The target must not be entered (divergence, role): it answers, but not to be served from.
    Refused { why: String },
    /// The target could not be reached or reconciled.
    Failed { why: String },
}

impl Edge {
    /// Its row in the table of failures; `None` for what is no failure.
    #[must_use]
    pub fn cause(self) -> Option<Cause> {
        Some(match self {
            Self::LinkLost => Cause::LinkLost,
            Self::ConnectRefused => Cause::Refused,
            Self::ConnectFailed => Cause::Unreachable,
            Self::ConnectTimedOut => Cause::ConnectUnanswered,
            Self::HandshakeReset => Cause::HandshakeReset,
            Self::HandshakeTimedOut => Cause::HandshakeUnanswered,
            Self::Stalled { .. } => Cause::Silent,
            Self::AuthenticationFailed => Cause::WrongPassword,
            Self::NotReady(word) => word.cause(),
            Self::WrongRole => Cause::ReadOnly,
            Self::HandshakeDone | Self::IdentityChanged => return None,
        })
    }
}

impl NotReadyWord {
    pub const ALL: [Self; 7] = [
        Self::Loading,
        Self::MasterDown,
        Self::ClusterDown,
        Self::Misconf,
        Self::NoReplicas,
        Self::TryAgain,
        Self::Busy,
    ];

    #[must_use]
    pub fn cause(self) -> Cause {
        match self {
            Self::Loading => Cause::Loading,
            Self::MasterDown => Cause::MasterDown,
            Self::ClusterDown => Cause::ClusterDown,
            Self::Misconf => Cause::Misconf,
            Self::NoReplicas => Cause::NoReplicas,
            Self::TryAgain => Cause::TryAgain,
            Self::Busy => Cause::Busy,
        }
    }
}

impl fmt::Display for NotReadyWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "LOADING",
            Self::MasterDown => "MASTERDOWN",
            Self::ClusterDown => "CLUSTERDOWN",
            Self::Misconf => "MISCONF",
            Self::NoReplicas => "NOREPLICAS",
            Self::TryAgain => "TRYAGAIN",
            Self::Busy => "BUSY",
        })
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkLost => f.write_str("link lost"),
            Self::ConnectRefused => f.write_str("connection refused"),
            Self::ConnectFailed => f.write_str("connection failed"),
            Self::ConnectTimedOut => f.write_str("connection attempt unanswered"),
            Self::HandshakeReset => f.write_str("connection reset before the handshake was answered"),
            Self::HandshakeTimedOut => f.write_str("handshake unanswered"),
            Self::HandshakeDone => f.write_str("handshake answered"),
            Self::Stalled { silent_for } => write!(f, "no progress for {silent_for:?}"),
            Self::AuthenticationFailed => f.write_str("authentication refused"),
            Self::NotReady(word) => write!(f, "not ready: {word}"),
            Self::WrongRole => f.write_str("not a master"),
            Self::IdentityChanged => f.write_str("another identity: it restarted or was replaced"),
        }
    }
}
