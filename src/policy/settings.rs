//! What the operator may set, as plain data; the config room fills it. Defaults are those of a production sidecar.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::breaker::BreakerSettings;
use super::event::BackendId;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub failover: FailoverSettings,
    pub recovery: RecoverySettings,
    pub probe: ProbeSettings,
    pub timeout: TimeoutSettings,
    pub breaker: BreakerSettings,
    /// Our own zone: a backend in it is preferred among near equals.
    pub zone: Option<String>,
}

/// `[failover]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailoverSettings {
    /// Pieces of connection evidence within one outage that make a failure.
    pub failure_threshold: u32,
    /// How long requests wait for a restarting active before a cold backup is entered; zero enters at once.
    pub hold: Duration,
    /// A switch that has not been answered for this long is given up for the next candidate.
    pub switch_timeout: Duration,
    /// A target that could not be entered is left alone this long at first; doubles up to `retry_max`.
    pub retry: Duration,
    pub retry_max: Duration,
}

/// `[recovery]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecoverySettings {
    /// False: only an operator brings the primary back.
    pub enabled: bool,
    /// Good probes in a row.
    pub threshold: u32,
    /// Least time since the primary became healthy; doubles with each relapse.
    pub delay: Duration,
    pub delay_max: Duration,
    /// A primary that fails within this time after a recovery has relapsed; status `recovered` lasts as long.
    pub grace_period: Duration,
    /// Each such time without a relapse forgets one.
    pub forget_after: Duration,
    /// Probe latency must be within this many baselines, plus `latency_slack`.
    pub latency_factor: f64,
    pub latency_slack: Duration,
}

/// `[health_check]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeSettings {
    /// Failed probes in a row (of any kind) that make a failure.
    pub failure_threshold: u32,
    /// Probes in a row answered with LOADING, MASTERDOWN, READONLY... that make the active not ready.
    pub not_ready_threshold: u32,
}

/// `[timeout]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeoutSettings {
    /// A backend that owes something and is silent this long has failed; no allowance is shorter.
    pub floor: Duration,
    /// No allowance of a bounded class is longer.
    pub request: Duration,
    /// Allowance of the slow class.
    pub slow: Duration,
    /// How late news of progress may arrive: one tick of the control task. Waited for before silence is believed.
    pub tick: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendRole {
    Primary,
    Backup,
}

/// How a backup's content relates to the primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataMode {
    Cold,
    Mirrored,
    Replica,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendSettings {
    /// Equal to its place in the list handed to `Engine::new`.
    pub id: BackendId,
    pub name: String,
    pub role: BackendRole,
    /// 100 is neutral; selection weighs score x weight.
    pub weight: u32,
    pub zone: Option<String>,
    pub data: DataMode,
    /// The embedded store: entered only when nobody else can be, left as soon as somebody else can.
    pub last_resort: bool,
}

impl BackendSettings {
    /// A backend with every default.
    pub fn new(id: BackendId, name: &str, role: BackendRole) -> Self {
        Self { id, name: name.to_owned(), role, weight: 100, zone: None, data: DataMode::Cold, last_resort: false }
    }
}

impl Settings {
    /// `failover.profile = "fast"`: pauses up to 150 ms are forgiven instead of 500 ms.
    pub fn fast() -> Self {
        Self { timeout: TimeoutSettings::fast(), ..Self::default() }
    }
}

impl TimeoutSettings {
    pub fn fast() -> Self {
        Self { floor: Duration::from_millis(190), tick: Duration::from_millis(10), ..Self::default() }
    }
}

impl Default for FailoverSettings {
    fn default() -> Self {
        Self {
            failure_threshold: 2,
            hold: Duration::ZERO,
            switch_timeout: Duration::from_secs(2),
            retry: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
        }
    }
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            threshold: 3,
            delay: Duration::from_secs(15),
            delay_max: Duration::from_secs(300),
            grace_period: Duration::from_secs(60),
            forget_after: Duration::from_secs(600),
            latency_factor: 3.0,
            latency_slack: Duration::from_millis(5),
        }
    }
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { failure_threshold: 3, not_ready_threshold: 3 }
    }
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            floor: Duration::from_millis(650),
            request: Duration::from_secs(2),
            slow: Duration::from_secs(30),
            tick: Duration::from_millis(50),
        }
    }
}
