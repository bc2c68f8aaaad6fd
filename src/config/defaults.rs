//! Every default, once. `config/standin.toml` shows them to the operator, and a test holds it against these.

use std::net::SocketAddr;
use std::time::Duration;

use super::schema::*;
use crate::limits;
use crate::policy::Plan;

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
            region: None,
            data: DataMode::Cold,
            persistent: false,
            replication_address: None,
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
            initialization: Initialization::default(),
            health: Health::default(),
            failover: Failover::default(),
            recovery: Recovery::default(),
            divergence: Divergence::default(),
            mirror: Mirror::default(),
            replica: Replica::default(),
            sampling: Sampling::default(),
            objectives: Objectives::default(),
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
            reply_depth_max: limits::REPLY_DEPTH_MAX,
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
        Self {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            // Several probes in a row make a verdict anyway, see `failover.failure_threshold`.
            probes: 1,
            probe_delay: Duration::from_millis(50),
            policy: ProbePolicy::All,
            write_probe: true,
        }
    }
}

impl Default for Initialization {
    fn default() -> Self {
        Self { policy: InitializationPolicy::One, timeout: Duration::from_secs(2) }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            availability: 0.95,
            error_rate: 0.05,
            response_time: Duration::from_secs(1),
            replication_lag: Duration::from_secs(60),
        }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            profile: Profile::Default,
            mode: FailoverMode::Automatic,
            triggers: TriggerName::ALL.to_vec(),
            cascade: true,
            // With probes alone, two misses are 1.65 s at worst; one would let a single lost packet decide.
            failure_threshold: 2,
            // A fifth that fails must be plainly over it, not on it: at 10 requests/s chance alone would decide.
            failure_rate_threshold: 0.1,
            min_failures: 5,
            performance_degradation_threshold: 0.5,
            performance_min_shift: Duration::from_millis(5),
            max_attempts: 5,
            cooldown: Duration::from_secs(5),
            cooldown_max: Duration::from_secs(1_800),
            max_per_hour: 12,
            confirm_within: Duration::from_secs(300),
            zone: None,
            region: None,
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
            grace_period: Duration::from_secs(60),
            plan: Plan::Drain,
            dwell: Duration::from_secs(30),
            latency_factor: 3.0,
        }
    }
}

impl Default for Divergence {
    fn default() -> Self {
        Self {
            policy: DivergencePolicy::Auto,
            source: DivergenceSource::Commands,
            scripts: DivergenceScripts::Declared,
            record_bytes: limits::DIVERGENCE_RECORD_BYTES,
            mark_prefix: "standin:".to_owned(),
        }
    }
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            buffer: limits::MIRROR_BUFFER_BYTES,
            fill: true,
            read_fill: false,
            primary: true,
            // Some 3 % of what a server can do, so that filling a new backup is not felt.
            copy_rate: 10_000,
            value_max: 8 * 1024 * 1024,
        }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            mode: SamplingMode::Repair,
            share: 1.0,
            // Some eight small reads for each key: not to be told from noise on either server.
            rate: 10,
            value_max: 64 * 1024,
            ttl_tolerance: Duration::from_secs(1),
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
