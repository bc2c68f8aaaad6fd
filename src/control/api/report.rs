//! What is shown of the process, its groups and their backends. Everything is text or numbers already made: addresses
//! without credentials, no keys, no values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Counts;
use crate::telemetry::events::Word;
use crate::telemetry::wall_time::WallTime;

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    pub version: String,
    pub process_id: u32,
    pub at: WallTime,
    pub uptime_seconds: u64,
    /// Client connections over all groups.
    pub clients: u64,
    pub draining: bool,
    pub groups: Vec<GroupReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    pub name: String,
    /// The address that clients connect to, as it was bound.
    pub listen: String,
    /// `active`, `failing_over`, `failed_over`, `recovering` or `recovered`.
    pub status: Word,
    /// When the status became what it is.
    pub since: WallTime,
    /// The backend that serves now; absent while none does.
    pub active: Option<String>,
    /// The route's epoch; only grows.
    pub epoch: u64,
    /// What clients get now: `serving`, `holding` (requests wait for the active to come back) or `no_backend`.
    pub availability: Word,
    /// `automatic`, `semi_automatic` or `manual`.
    #[serde(default)]
    pub mode: Word,
    /// Waits for `standin confirm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<ProposalReport>,
    #[serde(default)]
    pub objectives: ObjectivesReport,
    /// Switches and incidents of the last 24 hours.
    #[serde(default)]
    pub switches_today: u64,
    #[serde(default)]
    pub incidents_today: u64,
    /// Absent while none is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanReport>,
    /// Absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_switch: Option<SwitchReport>,
    /// What is under way or held back, one sentence each: a switch, a recovery that waits or that an operator holds.
    #[serde(default)]
    pub notes: Vec<String>,
    pub clients: u64,
    /// The active first, then as configured.
    pub backends: Vec<BackendReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendReport {
    pub name: String,
    /// `primary` or `backup`.
    pub role: Word,
    /// Without user and password.
    pub address: String,
    pub active: bool,
    /// `healthy`, `degraded`, `critical`, `failed` or `unknown`.
    pub health: Word,
    /// 0 to 100; absent while nothing was observed.
    pub score: Option<f64>,
    /// What the score lacks to 100, one sentence each, the weightiest first.
    pub reasons: Vec<String>,
    /// Recorded latency when it is well, in microseconds, by command class.
    pub baseline_us: BTreeMap<String, u64>,
    /// Absent while nothing was measured.
    pub latency: Option<LatencyReport>,
    pub probes: ProbeReport,
    /// `closed` (traffic flows), `open` (stopped) or `half_open` (tried).
    pub breaker: Word,
    pub in_flight: u64,
    pub links: u32,
    pub pinned_connections: u32,
    pub divergence: DivergenceReport,
    /// Whether it could begin to serve as things stand.
    pub enterable: bool,
    /// Why it could not, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// The one command that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// As the server said in the last handshake; absent before the first.
    pub identity: Option<IdentityReport>,
    /// `cold`, `mirrored` or `replica`.
    pub data: Word,
    /// Of a backend that is kept in step while another serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorReport>,
    /// Of servers that replicate each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationReport>,
    /// Of a backend that is compared with the active: what that has found since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingReport>,
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default)]
    pub signals: SignalsReport,
    #[serde(default)]
    pub reliability: ReliabilityReport,
}

/// What is measured of a backend now; see "The signals" in docs/failover.md.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SignalsReport {
    /// How surprising its present silence is; suspicious from `phi_suspect`, and believed from `phi_failed`.
    pub phi: f64,
    pub phi_suspect: f64,
    pub phi_failed: f64,
    /// Of the last ten seconds.
    pub requests: u64,
    pub success_percent: Option<f64>,
    /// Good probes of the last minute.
    pub availability_percent: Option<f64>,
    /// Of the last ten seconds, by command class.
    pub latency: BTreeMap<String, LatencyReport>,
    /// A sustained slowdown, in one sentence.
    pub slowdown: Option<String>,
    /// What a point read can be expected to take, and whether `requests` or `probes` tell.
    pub expected_read_us: Option<u64>,
    pub expected_read_by: Option<Word>,
    pub replication_lag_ms: Option<u64>,
    pub replication_offset: Option<u64>,
    pub memory_used: Option<u64>,
    /// Absent without a limit.
    pub memory_max: Option<u64>,
    /// Score times weight in percent.
    pub weighted_score: u32,
}

/// How a backend has proved itself; kept across restarts with `state.directory`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReliabilityReport {
    /// Requests and probes together, since it was first watched and in the last 30 days.
    pub success_percent: Option<f64>,
    pub success_percent_30_days: Option<f64>,
    /// Failed requests, probes and connections by kind; kinds that never occurred are left out.
    pub failures: BTreeMap<String, u64>,
    pub outages: u64,
    pub watched_seconds: u64,
    pub mean_seconds_between_failures: Option<u64>,
    pub mean_ms_to_recovery: Option<u64>,
    pub last_failure_seconds_ago: Option<u64>,
    pub last_failure: Option<String>,
}

/// A switch that waits for a person's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalReport {
    pub id: u64,
    pub from: String,
    pub to: String,
    pub trigger: Word,
    pub kind: Word,
    pub why: String,
    pub at: WallTime,
    pub expires_at: WallTime,
}

/// One outage or trouble of the active.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentReport {
    pub id: u64,
    pub backend: String,
    pub trigger: Word,
    /// It served nobody; else it served badly.
    pub hard: bool,
    /// How sure the rule was, 0 to 1.
    pub confidence: f64,
    pub why: String,
    pub since: WallTime,
    pub opened_at: WallTime,
    pub resolved: bool,
    pub resolved_at: Option<WallTime>,
    /// `failover`, `cascade`, `reentry`, `waited` or `operator`.
    pub resolution: Option<Word>,
    pub served_by: Option<String>,
    /// Switches that were tried.
    pub attempts: u32,
    /// Of an outage, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryReport>,
}

/// What an outage took and cost, measured on the data path. The parts add up to `rto_us`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryReport {
    /// From the last success on the backend that failed to the first one afterwards.
    pub rto_us: u64,
    /// To the verdict, to the beginning of the switch that ended it, to its route.
    pub detection_us: u64,
    pub decision_us: u64,
    pub switch_us: u64,
    /// To the first reply; absent when nobody asked anything within 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_success_us: Option<u64>,
    /// What is lost of what was acknowledged before: `at_most`, `everything` or `unknown`.
    pub loss: Word,
    /// Of `at_most`: no write older than this, and no more than so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_lost_max: Option<u64>,
    /// Targets that were missed, one sentence each.
    pub breaches: Vec<String>,
}

/// Recovery time and recovery point of a group: targets, as they would be if the active failed now, and the worst since the
/// start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectivesReport {
    pub rto_target_us: Option<u64>,
    pub rpo_target_us: Option<u64>,
    /// The backend that would serve.
    pub next: Option<String>,
    /// Absent while there is nobody to go to.
    pub rto_present_us: Option<u64>,
    /// `at_most`, `everything` or `unknown`.
    pub loss_present: Word,
    /// Absent while nothing bounds what would be lost.
    pub rpo_present_us: Option<u64>,
    pub rto_worst_us: Option<u64>,
    pub rpo_worst_us: Option<u64>,
    /// Nothing bounded what one of the outages has cost.
    pub rpo_worst_is_unbounded: bool,
    /// Targets that were missed.
    pub missed: u64,
    /// From when on the worst and the missed are counted; a restart goes on with `[state] directory`.
    pub worst_since: WallTime,
}

/// One group's part of `GET /v1/statistics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatisticsReport {
    pub group: String,
    pub at: WallTime,
    /// The last 24 hours and the last 30 days, to the hour.
    pub day: Counts,
    pub month: Counts,
    /// Backends whose breaker is not closed now.
    pub open_breakers: Vec<String>,
    /// The newest last.
    pub incidents: Vec<IncidentReport>,
}

/// A plan under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// `blue_green`, `gradual` or `canary`.
    pub plan: Word,
    pub from: String,
    pub to: String,
    /// `in_step`, `compare`, `move`, `share`, `cut_over`, `watch`, `return` or `way_back`.
    pub phase: Word,
    pub paused: bool,
    /// Hundredths of the hash slots that `to` serves.
    #[serde(default)]
    pub percent: u8,
    /// The step that it is in, of so many: one for each share, and the cut-over.
    #[serde(default)]
    pub stage: u64,
    #[serde(default)]
    pub stages: u64,
    /// Of the present comparison, or of the last.
    pub samples: u64,
    pub wrong: u64,
    pub missing: u64,
    pub failed: u64,
}

/// The last switch, whatever came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchReport {
    pub at: WallTime,
    pub from: String,
    pub to: String,
    /// `immediate` or `drain`; absent when the one that was left had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Word>,
    pub trigger: Word,
    /// `done`, `refused` or `failed`.
    pub result: Word,
    pub took_us: u64,
    /// So long requests waited.
    pub held_us: u64,
}

/// Over the last window, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyReport {
    pub p50_us: u64,
    pub p99_us: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    pub ok_in_a_row: u64,
    pub failed_in_a_row: u64,
    pub last_ok_ms_ago: Option<u64>,
    /// Of the last failed probe, kept until one succeeds.
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergenceReport {
    /// `clean`, `empty`, `keys` or `unknown`.
    pub state: Word,
    pub keys: u64,
    pub bytes: u64,
    /// Whether Standin may empty it: found empty at first contact, or adopted.
    pub owned: bool,
}

/// How a backend is kept in step with the active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorReport {
    /// `in_step`, `filling` (it does not hold everything yet) or `off`.
    pub state: Word,
    /// Age of the oldest write that it has not confirmed; 0 when it has confirmed all.
    pub lag_us: u64,
    /// Requests that it has not confirmed, and keys whose value is being read.
    pub waiting: u64,
    pub waiting_bytes: u64,
    /// Writes that were mirrored as commands since the start.
    pub commands: u64,
    /// Keys whose value was copied, and keys that were removed because theirs could not be, since the start.
    pub copied: u64,
    pub removed: u64,
    /// Writes for which there was no room (`mirror.buffer`); their keys were recorded and copied.
    pub dropped: u64,
    /// Keys that the filling has found on the active.
    pub filled: u64,
    /// What clients read, with `mirror.read_fill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_fill: Option<ReadFillReport>,
    /// Why it is off, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a backend is filled with what clients read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadFillReport {
    pub is_on: bool,
    /// Keys that were read, and that it was asked for, since the start.
    pub asked: u64,
    /// Those that it lacked, and that are copied.
    pub copied: u64,
    /// Why it is off, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The place of a server among those that replicate each other, as it said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationReport {
    /// `master` or `replica`.
    pub role: Word,
    /// The master that it follows, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_is_up: Option<bool>,
    /// It is taking over the whole content of its master.
    pub is_syncing: bool,
    /// How long it has heard nothing from its master, to the second; masters speak every ten seconds at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// Bytes of the stream that it has produced, or taken in.
    pub offset: u64,
    /// Of a replica: what it lacks of what was acknowledged to our clients. `behind_bytes` is what is known to be missing;
    /// no more writes than `behind_writes`, and none older than `behind_ms`, are. Absent while the master is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_writes: Option<u64>,
    /// Bandwidth of the stream over the last ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Why it could not be promoted, or made to follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How a backend's content compares with that of the active. Counts are of keys, since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingReport {
    pub compared: u64,
    /// Those that differed when nothing was under way; the sum of the next four.
    pub differing: u64,
    /// The active has them, this one has not.
    pub missing: u64,
    /// This one has them, the active has not.
    pub extra: u64,
    /// Another type or value.
    pub value: u64,
    /// Another time of life.
    pub lifetime: u64,
    /// Of the last 1,000 compared; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agree_percent: Option<f64>,
    /// Copied again, and found alike afterwards.
    pub repaired: u64,
    /// Written too often, or the backend too far behind, to be judged.
    pub unsettled: u64,
    /// Times that all keys of the active were gone through.
    pub rounds: u64,
    /// Why nothing is compared now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityReport {
    pub run_id: String,
    pub version: String,
    /// What the server says of itself: `master` or `slave`.
    pub server_role: String,
}
