//! Every decision of one group: which backend serves, when it is left, when the primary serves again, and why.
//!
//! Events go in, actions come out (`Engine::handle`). Pure: no IO, no clock, no randomness, no async, no locks and no
//! logging; `now` and a seed are handed in, so a recorded event list replays bit for bit. This room knows nothing of
//! sockets, RESP, routes or keys: whether a backend may be entered is told to it (`Event::Standing`).

mod action;
mod allowance;
mod backend;
mod breaker;
mod engine;
mod event;
mod evidence;
mod operator;
mod recovery;
mod score;
mod selection;
mod settings;
mod switching;
mod time;
mod view;

pub use action::{Action, Availability, Candidate, Decision, DecisionKind, Switch, SwitchId, SwitchKind, Trigger};
pub use breaker::{Breaker, BreakerSettings, BreakerState};
pub use engine::Engine;
pub use event::{
    BackendId, ClassLatency, CommandClass, Edge, ErrorCounts, Event, NotReadyWord, OperatorCommand, ProbeOutcome, Role,
    Standing, SwitchResult, WindowSummary,
};
pub use settings::{
    BackendRole, BackendSettings, DataMode, FailoverSettings, ProbeSettings, RecoverySettings, Settings,
    TimeoutSettings,
};
pub use time::Time;
pub use view::{BackendView, Factor, Health, Reason, Status, View};

#[cfg(test)]
mod tests;
