//! What the operator may set, as plain data; the config room fills it. Defaults are those of a production sidecar.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Trigger;
use super::breaker::BreakerSettings;
use super::event::BackendId;
use super::plan::Plan;

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
    /// Where this process runs: backends in the same region, and in the same zone, are preferred among near equals.
    pub zone: Option<String>,
    pub region: Option<String>,
}

/// `[failover]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailoverSettings {
    pub mode: Mode,
    pub triggers: Triggers,
    /// When the backup fails too: whether another backup is taken, or only the primary and the last resort.
    pub cascade: bool,
    /// Pieces of connection evidence within one outage that make a failure.
    pub failure_threshold: u32,
    /// Backends tried in a row in one outage, before the last resort serves or clients are told that nobody does.
    pub max_attempts: u32,
    /// After a switch no other is made that can wait; doubles with each switch, up to `cooldown_max`.
    pub cooldown: Duration,
    pub cooldown_max: Duration,
    /// Switches within an hour past which none is made that can wait.
    pub max_per_hour: u32,
    /// A proposal (`Mode::SemiAutomatic`) that nobody answered expires after this.
    pub confirm_within: Duration,
    /// How long requests wait for a restarting active before a cold backup is entered; zero enters at once.
    pub hold: Duration,
    /// A switch that has not been answered for this long is given up for the next candidate.
    pub switch_timeout: Duration,
    /// The same for a planned switch, which has time to reconcile before it holds requests.
    pub planned_timeout: Duration,
    /// A target that could not be entered is left alone this long at first; doubles up to `retry_max`.
    pub retry: Duration,
    pub retry_max: Duration,
}

/// Who has the last word about a switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decides and acts.
    #[default]
    Automatic,
    /// Decides, proposes, and acts when a person confirms.
    SemiAutomatic,
    /// Acts on commands alone.
    Manual,
}

/// Which triggers may cause a switch. `Cascade` has a key of its own, `failover.cascade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Triggers {
    pub health_check: bool,
    pub connection: bool,
    pub performance: bool,
    pub timeout: bool,
    pub manual: bool,
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
    /// How clients are brought back.
    pub plan: Plan,
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
    pub region: Option<String>,
    pub data: DataMode,
    /// While another serves it is kept in step by mirroring, so that a staged plan may lead to it or away from it.
    #[serde(default)]
    pub kept_in_step: bool,
    /// While it follows another server, it can be promoted by entering it (`replica.promote`); so it may follow one by rights
    /// though its data mode is not `Replica`: a primary that was left.
    #[serde(default)]
    pub promotable: bool,
    /// The embedded store: entered only when nobody else can be, left as soon as somebody else can.
    pub last_resort: bool,
}

impl BackendSettings {
    /// A backend with every default.
    pub fn new(id: BackendId, name: &str, role: BackendRole) -> Self {
        Self {
            id,
            name: name.to_owned(),
            role,
            weight: 100,
            zone: None,
            region: None,
            data: DataMode::Cold,
            kept_in_step: false,
            promotable: false,
            last_resort: false,
        }
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

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::SemiAutomatic => "semi_automatic",
            Self::Manual => "manual",
        }
    }
}

impl Triggers {
    pub const ALL: Self = Self { health_check: true, connection: true, performance: true, timeout: true, manual: true };
    pub const NONE: Self =
        Self { health_check: false, connection: false, performance: false, timeout: false, manual: false };

    /// Whether a failure of this kind may be acted on. A cascade is a failure like the first; `failover.cascade` says
    /// how far it goes.
    pub const fn allows(self, trigger: Trigger) -> bool {
        match trigger {
            Trigger::HealthCheck => self.health_check,
            Trigger::Connection => self.connection,
            Trigger::Performance => self.performance,
            Trigger::Timeout => self.timeout,
            Trigger::Manual => self.manual,
            Trigger::Cascade => true,
        }
    }
}

impl Default for Triggers {
    fn default() -> Self {
        Self::ALL
    }
}

impl Default for FailoverSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Automatic,
            triggers: Triggers::ALL,
            cascade: true,
            failure_threshold: 2,
            max_attempts: 5,
            cooldown: Duration::from_secs(5),
            cooldown_max: Duration::from_secs(1_800),
            max_per_hour: 12,
            confirm_within: Duration::from_secs(300),
            hold: Duration::ZERO,
            switch_timeout: Duration::from_secs(2),
            planned_timeout: Duration::from_secs(30),
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
            plan: Plan::Drain,
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
