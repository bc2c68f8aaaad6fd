//! Every decision of one group: which backend serves, when it is left, when the primary serves again, and why.
//!
//! Events go in, actions come out (`Engine::handle`). Pure: no IO, no clock, no randomness, no async, no locks and no
//! logging; `now` and a seed are handed in, so a recorded event list replays bit for bit. This room knows nothing of
//! sockets, RESP, routes or keys: whether a backend may be entered is told to it (`Event::Standing`).
//!
//! What the engine expects of its caller:
//! - events in the order in which they happened, `IdentityChanged` before the `HandshakeDone` of the same handshake, and
//!   a fresh `Window` before a `Stalled` edge;
//! - every handshake of a data link and every link lost; failed connection attempts at once, unthrottled up to the
//!   second one of an outage (two of them are a death);
//! - one probe unanswered at a time, its timeout not under `timeout.floor`, one outcome for each;
//! - every switch answered once; a switch with a higher id supersedes, and the superseded one is not published any more;
//! - a staged plan (`Action::Rollout`) led to its end by a `Rollout`, whose switches are asked for, and whose end is told, by
//!   `Event::Rollout`; it ends with any switch that is not its own;
//! - a switch whose `to` is its `from` (`SwitchKind::Reentry`) carried out like any other: requests wait, the backend is
//!   entered, the route is published;
//! - `handle_timeout` when `poll_timeout` is due, and `TickStalled` first thing when it was called late.
//!
//! Where the rules are: `failure` is the table of what failures mean; `backend` turns news into verdicts (death, freeze, trouble), `switching` turns verdicts into
//! switches, `selection` and `score` choose, `recovery` and `operator` lead back and away, `plan` says by
//! which steps, `rollout` leads through the plans of several (the engine knows of them by `staged`). `guards` are asked about
//! switches that can wait, never about a death. All switches that nobody ordered pass `Engine::want` (`proposals`), the one
//! gate of a mode that asks before it acts.

mod action;
mod allowance;
mod backend;
mod baseline;
mod breaker;
mod comparison;
mod engine;
mod event;
mod evidence;
mod failure;
mod figures;
mod guards;
mod incident;
mod memory;
mod objectives;
mod operator;
mod performance;
mod periods;
mod phi;
mod plan;
mod proposals;
mod recording;
mod recovery;
mod reliability;
mod replication;
mod rollout;
mod score;
mod seed;
mod selection;
mod settings;
mod signals;
mod sketch;
mod slices;
mod staged;
mod statistics;
mod switching;
mod time;
mod view;

pub use action::{
    Action, Availability, Candidate, Check, CheckName, Decision, DecisionKind, Switch, SwitchId, SwitchKind, Trigger,
};
pub use breaker::{Breaker, BreakerSettings, BreakerState, Calls};
pub use comparison::{Batch, Sampled, Tally as RolloutTally, Traffic};
pub use engine::Engine;
pub use event::{
    BackendId, CommandClass, Edge, ErrorCounts, Event, MemoryUse, NotReadyWord, ProbeAnswer, ProbeOutcome, Role,
    RolloutNews, Standing, SwitchResult, WindowSummary,
};
pub use failure::{Cause, FAILURES, FailureKind, Fault, Meaning, RetryVerdict, Strategy};
pub use figures::{ClassFigures, ExpectedLatency, Figures, LatencyBasis, Slowdown};
pub use incident::{Incident, Resolution};
pub use memory::{BackendMemory, OperatorWords};
pub use objectives::{Conditions, Loss, Moments, Objectives, RecoveryTime};
pub use operator::{Exclusion, OperatorCommand, Order, Pin};
pub use periods::{Counts, HOURS_OF_A_DAY, HOURS_OF_A_MONTH, Periods};
pub use phi::Phi;
pub use plan::{Plan, Situation, Step};
pub use proposals::{Proposal, ProposalId};
pub use recording::{Difference, RECORDING_VERSION, RecordedEngine, Recording, Rerun, Told};
pub use reliability::{LastFailure, ReliabilityView, Tally};
pub use replication::{Lack, Look, Stream};
pub use rollout::{News as PlanNews, Phase, Rollout, Sight, Wish as PlanWish};
pub use settings::{
    BackendRole, BackendSettings, DataMode, FailoverSettings, HealthSettings, Mode, PerformanceSettings, PhiSettings,
    ProbeSettings, RecoverySettings, Settings, TimeoutSettings, Triggers,
};
pub use sketch::{LATENCY_BUCKETS, Sketch, latency_bucket, latency_bucket_bound};
pub use time::{Roughly, Time};
pub use view::{BackendView, Factor, Health, Reason, Status, View};

#[cfg(test)]
mod tests;
