//! The resolved configuration, as the rest of the program sees it: no optional defaults, no raw strings, no units.
//!
//! The defaults are the `Default` and `of` functions at the end, and nowhere else. Sizes are bytes, counts are counts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use crate::limits;

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
    pub failover: Failover,
    pub recovery: Recovery,
    pub divergence: Divergence,
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
    pub data: DataMode,
    /// The content is not a cache's: it is never flushed.
    pub persistent: bool,
    /// Present for `rediss://` addresses and where `[backend.tls]` is given.
    pub tls: Option<BackendTls>,
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

/// How a backup's content relates to the primary's. Mirrored backups are refused until mirroring exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataMode {
    Cold,
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
    /// Also write a small key of Standin's own with a TTL; seen: servers that PING well and cannot write.
    pub write_probe: bool,
}

/// `[failover]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    pub profile: Profile,
    pub mode: FailoverMode,
    /// Failures in a row (probes, timeouts, refused connections) before the active is left.
    pub failure_threshold: u32,
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
    /// Probe latency must be under this multiple of the baseline.
    pub latency_factor: f64,
}

/// `[divergence]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    pub policy: DivergencePolicy,
    /// Bytes of dirty keys remembered for each backend; beyond it the backend is `unknown`.
    pub record_bytes: usize,
    /// Begins every key of Standin's own on a backend.
    pub mark_prefix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivergencePolicy {
    Auto,
    Flush,
    Refuse,
    Trust,
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

impl Backend {
    /// A plain TCP backend with every default; what tests and the demo start from.
    pub fn new(name: &str, role: Role, host: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            role,
            address: BackendAddress::Tcp { host: host.to_owned(), port },
            username: None,
            password: None,
            database: 0,
            weight: 100,
            zone: None,
            data: DataMode::Cold,
            persistent: false,
            tls: None,
        }
    }
}

impl Group {
    /// A group with every default around these backends; what tests and the demo start from.
    pub fn new(name: &str, listen: SocketAddr, backends: Vec<Backend>) -> Self {
        Self {
            name: name.to_owned(),
            listen: Listen { address: ListenAddress::Tcp(listen), ..Listen::default() },
            backends,
            timeout: Timeout::of(Profile::Default),
            retry: Retry::default(),
            links: Links::default(),
            pinned: Pinned::default(),
            health_check: HealthCheck::of(Profile::Default),
            failover: Failover::default(),
            recovery: Recovery::default(),
            divergence: Divergence::default(),
            embedded: Embedded::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 6380))),
            password: None,
            users: Vec::new(),
            tls: None,
            clients_max: 10_000,
            output_limit: limits::CLIENT_OUTPUT_BYTES_MAX,
            output_pause: limits::CLIENT_OUTPUT_PAUSE_BYTES,
            in_flight_max: limits::CLIENT_IN_FLIGHT_MAX,
            idle_timeout: Duration::ZERO,
            frame_timeout: Duration::from_secs(60),
            frame_bytes_max: limits::REQUEST_BYTES_MAX,
            bulk_bytes_max: limits::BULK_BYTES_MAX,
            elements_max: limits::REQUEST_ARGUMENTS_MAX,
            deny: Vec::new(),
            // As `tcp-keepalive` of Redis.
            tcp_keepalive: Duration::from_secs(300),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9180)), token: None }
    }
}

impl Timeout {
    /// The floor is above the pauses that must never cause a switch: 500 ms, or 150 ms with the fast profile.
    pub fn of(profile: Profile) -> Self {
        Self {
            connect: Duration::from_millis(250),
            handshake: Duration::from_millis(500),
            request: Duration::from_secs(2),
            floor: match profile {
                Profile::Default => Duration::from_millis(650),
                Profile::Fast => Duration::from_millis(190),
            },
            slow: Duration::from_secs(30),
            tcp_user_timeout: Duration::from_secs(5),
            tcp_keepalive: Duration::from_secs(15),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            ceiling: RetryCeiling::LastWriteWins,
            attempts: 3,
            budget_percent: 10.0,
            budget_floor_per_second: 10,
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(100),
        }
    }
}

impl Default for Links {
    fn default() -> Self {
        Self {
            in_flight_max: limits::LINK_IN_FLIGHT_MAX,
            bytes_max: limits::LINK_BYTES_MAX,
            reply_depth_max: limits::FRAME_DEPTH_MAX,
            reply_elements_max: limits::REPLY_ELEMENTS_MAX,
            reconnect_min: Duration::from_millis(10),
            // "Once a backend is back, requests are served within 200 ms": the longest wait leaves room for the rest.
            reconnect_max: Duration::from_millis(100),
        }
    }
}

impl Default for Pinned {
    fn default() -> Self {
        Self { max: limits::PINNED_CONNECTIONS_MAX, idle: Duration::from_secs(30) }
    }
}

impl HealthCheck {
    pub fn of(profile: Profile) -> Self {
        let (interval, timeout) = match profile {
            Profile::Default => (500, 650),
            Profile::Fast => (100, 190),
        };
        Self { interval: Duration::from_millis(interval), timeout: Duration::from_millis(timeout), write_probe: true }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            profile: Profile::Default,
            mode: FailoverMode::Automatic,
            // With probes alone, two misses are 1.65 s at worst; one would let a single lost packet decide.
            failure_threshold: 2,
            hold: Duration::ZERO,
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            enabled: true,
            threshold: 3,
            delay: Duration::from_secs(15),
            delay_max: Duration::from_secs(300),
            latency_factor: 3.0,
        }
    }
}

impl Default for Divergence {
    fn default() -> Self {
        Self {
            policy: DivergencePolicy::Auto,
            record_bytes: limits::DIVERGENCE_RECORD_BYTES,
            mark_prefix: "standin:".to_owned(),
        }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self { memory: 64 * 1024 * 1024, locks_and_counters: false }
    }
}

impl Default for Workers {
    /// A sidecar has a slice of a core; a second worker costs more than it brings there.
    fn default() -> Self {
        Self { count: 1 }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
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

impl fmt::Display for DeniedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subcommand {
            Some(subcommand) => write!(f, "{} {subcommand}", self.command),
            None => f.write_str(&self.command),
        }
    }
}
