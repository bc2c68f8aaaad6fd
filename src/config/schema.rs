//! The resolved configuration, as the rest of the program sees it: no optional defaults, no raw strings, no units.
//!
//! The defaults are in `defaults.rs` and nowhere else. Sizes are bytes, counts are counts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use crate::policy::Plan;

/// Everything one process needs, checked as a whole by the loader.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// At least one; the flat form of the file is one group named `default`. Names are unique.
    pub groups: Vec<Group>,
    pub control: Control,
    /// The second, read-only listener for metrics, livez and readyz; absent unless `[observe]` is in the file.
    pub observe: Option<Observe>,
    pub workers: Workers,
    pub drain: Drain,
    pub state: State,
    pub log: Log,
}

/// One front door and the backends behind it. Its policy tables default to the top-level ones of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    pub listen: Listen,
    /// In the order of the file; exactly one is the primary. Names are unique within the group.
    pub backends: Vec<Backend>,
    pub timeout: Timeout,
    pub retry: Retry,
    pub links: Links,
    pub pinned: Pinned,
    pub health_check: HealthCheck,
    pub initialization: Initialization,
    pub health: Health,
    pub failover: Failover,
    pub recovery: Recovery,
    pub divergence: Divergence,
    pub mirror: Mirror,
    pub replica: Replica,
    pub sampling: Sampling,
    pub objectives: Objectives,
    pub embedded: Embedded,
}

/// `[listen]`: the front door.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    pub address: ListenAddress,
    /// What a client must give in AUTH as the user `default`; absent means that no password is asked.
    pub password: Option<Secret>,
    pub users: Vec<ListenUser>,
    /// Served as TLS only, when present.
    pub tls: Option<ListenTls>,
    pub clients_max: usize,
    /// Unsent reply bytes at which a client is closed.
    pub output_limit: usize,
    /// Unsent reply bytes at which a client is no longer read; below `output_limit`.
    pub output_pause: usize,
    /// Unanswered requests of one client at which it is no longer read.
    pub in_flight_max: u32,
    /// A client silent for this long is closed; zero means never.
    pub idle_timeout: Duration,
    /// A client whose request stays half-sent for this long is closed; zero means never.
    pub frame_timeout: Duration,
    /// Longest whole request, bytes.
    pub frame_bytes_max: usize,
    /// Longest single argument, bytes.
    pub bulk_bytes_max: usize,
    /// Most arguments of one request.
    pub elements_max: usize,
    /// Commands refused at the front door.
    pub deny: Vec<DeniedCommand>,
    /// Idle time before the first TCP keepalive probe; zero turns keepalive off.
    pub tcp_keepalive: Duration,
}

/// Where Standin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// `[[listen.users]]`: a front-door user and the backend user whose rights its commands have.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenUser {
    pub name: String,
    pub password: Secret,
    /// Absent: the backend's own `username` and `password` serve this user too.
    pub backend_username: Option<String>,
    pub backend_password: Option<Secret>,
}

/// `[listen.tls]`: PEM files, re-read when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate signed by one of these authorities, when present.
    pub client_ca: Option<PathBuf>,
}

/// An entry of `listen.deny`: a whole command (`SHUTDOWN`) or one subcommand (`CONFIG SET`). Upper case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeniedCommand {
    pub command: String,
    pub subcommand: Option<String>,
}

/// `[control]`: the operators' port.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    pub address: SocketAddr,
    /// Bearer token; always present when `address` is not loopback.
    pub token: Option<Secret>,
}

/// `[observe]`: metrics, livez and readyz alone, for the kubelet and Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    pub address: SocketAddr,
}

/// `[[backend]]`: one cache server.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub name: String,
    pub role: Role,
    pub address: BackendAddress,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub database: u32,
    /// Preference among equals; 100 is neutral.
    pub weight: u32,
    pub zone: Option<String>,
    pub region: Option<String>,
    pub data: DataMode,
    /// The content is not a cache's: it is never flushed.
    pub persistent: bool,
    /// Where the other servers reach it, for REPLICAOF; absent means at `address`.
    pub replication_address: Option<HostPort>,
    /// Present for `rediss://` addresses and where `[backend.tls]` is given.
    pub tls: Option<BackendTls>,
}

/// `"host:port"`; IPv6 hosts are kept without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    Backup,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// The host is resolved again on every connect. IPv6 hosts are kept without brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    /// The in-process store, set up by the group's `[embedded]`.
    Embedded,
}

/// How a backup's content relates to the primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMode {
    /// Empty while it waits.
    Cold,
    /// Kept in step by Standin.
    Mirrored,
    /// Kept in step by the servers' own replication.
    Replica,
}

/// `[backend.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTls {
    /// PEM file of the authorities to trust; absent means the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate and key: both or neither.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Name to verify and to send as SNI; absent means the address's host.
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

/// `[timeout]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// TCP connect, name resolution included.
    pub connect: Duration,
    /// TLS, HELLO, AUTH, SELECT and identity together.
    pub handshake: Duration,
    /// Whole life of a request, repeats included.
    pub request: Duration,
    /// The adaptive request timeout never goes below this.
    pub floor: Duration,
    /// Allowance of slow-class commands (KEYS, EVAL, ...).
    pub slow: Duration,
    /// Unacknowledged bytes kill a backend's socket after this long (TCP_USER_TIMEOUT).
    pub tcp_user_timeout: Duration,
    /// Idle time before the first TCP keepalive probe to a backend.
    pub tcp_keepalive: Duration,
}

/// `[retry]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// The highest category that is sent again after an ambiguous fault.
    pub ceiling: RetryCeiling,
    /// Sendings of one request at most, the first included.
    pub attempts: u32,
    /// Repeats on the same backend, as a share of its requests.
    pub budget_percent: f64,
    /// Repeats each second that are allowed whatever the share.
    pub budget_floor_per_second: u32,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

/// Ordered: each category includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryCeiling {
    Read,
    LastWriteWins,
    Checked,
    Accumulating,
}

/// `[links]`: the multiplexed connections to each backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// Unanswered requests on one link; beyond it requests are shed.
    pub in_flight_max: usize,
    /// Request bytes held by one link; beyond it requests are shed.
    pub bytes_max: usize,
    /// Deepest nesting of a reply.
    pub reply_depth_max: usize,
    /// Elements of one reply, summed over its nesting.
    pub reply_elements_max: usize,
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
}

/// `[pinned]`: connections that one client session owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Of the whole group, idle ones included.
    pub max: usize,
    /// An unused connection is kept this long for the next session.
    pub idle: Duration,
}

/// `[health_check]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub interval: Duration,
    pub timeout: Duration,
    /// Questions that one probe asks at most.
    pub probes: u32,
    /// Between two of them.
    pub probe_delay: Duration,
    /// How many of them must be answered well.
    pub policy: ProbePolicy,
    /// Also write a small key of Standin's own with a TTL; seen: servers that PING well and cannot write.
    pub write_probe: bool,
}

/// `[health]`: past any of these a backend is degraded; it is not left for one of them alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Least share of good probes within a minute, 0 to 1.
    pub availability: f64,
    /// Share of failed requests, 0 to 1.
    pub error_rate: f64,
    /// A request of a bounded class that takes longer counts as slow, whatever it usually takes.
    pub response_time: Duration,
    /// Replicas: since when nothing came from the master.
    pub replication_lag: Duration,
}

/// Of several questions of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbePolicy {
    All,
    Majority,
    Any,
}

/// `[initialization]`: what is waited for before the process says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialization {
    pub policy: InitializationPolicy,
    /// Ready after this in any case: a cache outage must not keep an application from starting.
    pub timeout: Duration,
}

/// How many backends of each group must have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitializationPolicy {
    All,
    Majority,
    One,
}

/// `[failover]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    pub profile: Profile,
    pub mode: FailoverMode,
    /// What may cause a switch.
    pub triggers: Vec<TriggerName>,
    /// Whether another backup follows when the backup fails too.
    pub cascade: bool,
    /// Failures in a row (probes, timeouts, refused connections) before the active is left.
    pub failure_threshold: u32,
    /// Share of failed requests from which the active is left, 0 to 1.
    pub failure_rate_threshold: f64,
    /// Failed requests below which the share means nothing.
    pub min_failures: u32,
    /// Latency over the baseline, as a share of it.
    pub performance_degradation_threshold: f64,
    /// And by this much at least.
    pub performance_min_shift: Duration,
    /// Backends tried in a row in one outage.
    pub max_attempts: u32,
    /// After a switch none that can wait is made for so long; doubles with each, up to `cooldown_max`.
    pub cooldown: Duration,
    pub cooldown_max: Duration,
    /// Switches within an hour past which none that can wait is made.
    pub max_per_hour: u32,
    /// A proposal expires after this.
    pub confirm_within: Duration,
    /// Where this process runs.
    pub zone: Option<String>,
    pub region: Option<String>,
    /// How long requests are held before a cold backup is entered.
    pub hold: Duration,
}

/// `fast` trades pauses for reaction: it changes the defaults of `timeout.floor` and of `[health_check]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Default,
    Fast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverMode {
    Automatic,
    SemiAutomatic,
    Manual,
}

/// An entry of `failover.triggers`; a cascade has `failover.cascade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerName {
    HealthCheck,
    Connection,
    Performance,
    Timeout,
    Manual,
}

/// `[recovery]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    pub enabled: bool,
    /// Good probes in a row.
    pub threshold: u32,
    /// Least time since the primary came back; doubles with each relapse, up to `delay_max`.
    pub delay: Duration,
    pub delay_max: Duration,
    /// A primary that fails within this time after a recovery has relapsed.
    pub grace_period: Duration,
    /// How clients are brought back.
    pub plan: Plan,
    /// How long each comparison of a staged plan lasts at least.
    pub dwell: Duration,
    /// Probe latency must be under this multiple of the baseline.
    pub latency_factor: f64,
}

/// `[divergence]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    pub policy: DivergencePolicy,
    pub source: DivergenceSource,
    pub scripts: DivergenceScripts,
    /// Bytes of dirty keys remembered for each backend; beyond it the backend is `unknown`.
    pub record_bytes: usize,
    /// Begins every key of Standin's own on a backend.
    pub mark_prefix: String,
}

/// From where it is known which keys were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivergenceSource {
    /// From the commands that pass.
    Commands,
    /// Also from the active itself, which sees other writers.
    Tracking,
}

/// Which keys a script may have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivergenceScripts {
    /// Those that it declares.
    Declared,
    /// Any.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivergencePolicy {
    Auto,
    Flush,
    Refuse,
    Trust,
}

/// `[mirror]`: how backends with `data = "mirrored"` are kept in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Bytes of writes that may wait for one backend; what does not fit enters its record.
    pub buffer: usize,
    /// A mirrored backend that is empty is filled from the active.
    pub fill: bool,
    /// What clients read is copied to it as well, where it lacks it.
    pub read_fill: bool,
    /// What the primary has missed is copied to it before it serves again, whatever the data mode of the backups.
    pub primary: bool,
    /// Keys copied each second at most.
    pub copy_rate: u32,
    /// A value whose serialised form is longer is removed from the mirrored backend instead of copied.
    pub value_max: usize,
}

/// `[replica]`: backends with `data = "replica"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Whether Standin says REPLICAOF to the servers; else it waits for whoever does, and follows.
    pub promote: bool,
}

/// `[sampling]`: how the active is compared with what mirrored backends and replicas hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    pub mode: SamplingMode,
    /// Of the keys that a walk through the databases finds, those that are compared: 0 to 1.
    pub share: f64,
    /// Keys compared each second at most, for each backend.
    pub rate: u32,
    /// Bytes in memory; of longer values only type and time of life are compared.
    pub value_max: usize,
    /// Times of life may differ by so much.
    pub ttl_tolerance: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingMode {
    Off,
    /// Differences are counted and told.
    Report,
    /// They are also made right on mirrored backends.
    Repair,
}

/// `[objectives]`: what an outage may cost; absent means that nothing is promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objectives {
    /// From the last success to the next one.
    pub rto: Option<Duration>,
    /// Age of the oldest acknowledged write that may be lost.
    pub rpo: Option<Duration>,
}

/// `[embedded]`: the in-process store behind `address = "embedded"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Bytes of keys and values; beyond it the least recently used go.
    pub memory: usize,
    /// Each process has a store of its own, so locks and counters in it are not what they seem.
    pub locks_and_counters: bool,
}

/// `[workers]`: the data plane's threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    pub count: usize,
}

/// `[drain]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// After SIGTERM clients are served until the last has gone or this long.
    pub timeout: Duration,
}

/// `[state]`: what outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Absent: `$STATE_DIRECTORY`, or nothing is kept.
    pub directory: Option<PathBuf>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A tracing filter: `info`, or `info,standin::backend=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

impl Group {
    /// The one backend whose role is primary; the loader refuses a group without it.
    pub fn primary(&self) -> &Backend {
        &self.backends[self.primary_index()]
    }

    pub fn primary_index(&self) -> usize {
        self.backends.iter().position(|backend| backend.role == Role::Primary).expect("checked by the loader")
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Embedded => f.write_str("embedded"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for DeniedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subcommand {
            Some(subcommand) => write!(f, "{} {subcommand}", self.command),
            None => f.write_str(&self.command),
        }
    }
}

impl TriggerName {
    pub const ALL: [Self; 5] = [Self::HealthCheck, Self::Connection, Self::Performance, Self::Timeout, Self::Manual];
}
