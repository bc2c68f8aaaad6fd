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
    pub health: HealthSettings,
    pub performance: PerformanceSettings,
    pub phi: PhiSettings,
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

/// `[health]`: past these a backend is not healthy, though it is not left for them alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthSettings {
    /// Least share of good probes within the last minute, 0 to 1.
    pub availability: f64,
    /// Share of failed requests, 0 to 1.
    pub error_rate: f64,
    /// A reply of a bounded class that takes longer counts as failed.
    pub response_time: Duration,
    /// For replicas.
    pub replication_lag: Duration,
}

/// When a backend that answers is too slow to be kept: part of `[failover]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PerformanceSettings {
    /// Share over the baseline from which a class of requests is degraded: 0.5 is half as slow again.
    pub degradation_threshold: f64,
    /// And by this much at least: half of very little is very little.
    pub min_shift: Duration,
}

/// The accrual failure detector (Hayashibara 2004).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PhiSettings {
    /// Suspicion from here: one in 10^8 healthy intervals lasts so long.
    pub suspect: f64,
    /// Believed from here, where replies are due.
    pub failed: f64,
    /// The interval that is expected before anything was learnt; that of the probes.
    pub interval: Duration,
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
        let phi = PhiSettings { interval: Duration::from_millis(100), ..PhiSettings::default() };
        Self { timeout: TimeoutSettings::fast(), phi, ..Self::default() }
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

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            availability: 0.95,
            error_rate: 0.05,
            response_time: Duration::from_secs(1),
            replication_lag: Duration::from_secs(60),
        }
    }
}

impl Default for PerformanceSettings {
    fn default() -> Self {
        Self { degradation_threshold: 0.5, min_shift: Duration::from_millis(5) }
    }
}

impl Default for PhiSettings {
    fn default() -> Self {
        Self { suspect: 8.0, failed: 16.0, interval: Duration::from_millis(500) }
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
