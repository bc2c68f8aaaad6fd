//! The names of the keys, beside the fields they fill: one function for each table of the file.

use std::path::PathBuf;
use std::time::Duration;

use super::address::Target;
use super::schema::*;
use super::section::Section;
use super::value::Size;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;

fn bytes(section: &Section<'_>, key: &'static str, default: usize, least: usize, most: usize) -> usize {
    section.take_within(key, Size(default), Size(least), Size(most)).0
}

pub(super) fn listen(section: Section<'_>) -> Listen {
    let default = Listen::default();
    let listen = Listen {
        address: section.required("address").unwrap_or(default.address),
        password: section.optional("password"),
        users: section.tables("users").into_iter().map(listen_user).collect(),
        tls: section.table_if_present("tls", &["cert", "key", "client_ca"]).map(listen_tls),
        clients_max: section.take_within("clients_max", default.clients_max, 1, 1_000_000),
        output_limit: bytes(&section, "output_limit", default.output_limit, 64 * KIB, 64 * GIB),
        output_pause: bytes(&section, "output_pause", default.output_pause, 16 * KIB, 16 * GIB),
        in_flight_max: section.take_within("in_flight_max", default.in_flight_max, 1, 1_000_000),
        idle_timeout: section.take_within("idle_timeout", default.idle_timeout, Duration::ZERO, 365 * DAY),
        frame_timeout: section.take_within("frame_timeout", default.frame_timeout, Duration::ZERO, DAY),
        frame_bytes_max: bytes(&section, "frame_bytes_max", default.frame_bytes_max, 64 * KIB, 64 * GIB),
        bulk_bytes_max: bytes(&section, "bulk_bytes_max", default.bulk_bytes_max, KIB, 64 * GIB),
        elements_max: section.take_within("elements_max", default.elements_max, 16, 1 << 30),
        deny: section.take("deny", default.deny),
        tcp_keepalive: section.take_within("tcp_keepalive", default.tcp_keepalive, Duration::ZERO, DAY),
    };
    section.finish();
    listen
}

fn listen_user(section: Section<'_>) -> ListenUser {
    let user = ListenUser {
        name: section.required("name").unwrap_or_default(),
        password: section.required("password").unwrap_or_else(|| super::Secret::literal("")),
        backend_username: section.optional("backend_username"),
        backend_password: section.optional("backend_password"),
    };
    section.finish();
    user
}

fn listen_tls(section: Section<'_>) -> ListenTls {
    let tls = ListenTls {
        cert: section.required("cert").unwrap_or_default(),
        key: section.required("key").unwrap_or_default(),
        client_ca: section.optional("client_ca"),
    };
    section.finish();
    tls
}

pub(super) fn control(section: Section<'_>) -> Control {
    let default = Control::default();
    let control = Control { address: section.take("address", default.address), token: section.optional("token") };
    section.finish();
    control
}

pub(super) fn observe(section: Section<'_>) -> Option<Observe> {
    let address = section.required("address");
    section.finish();
    Some(Observe { address: address? })
}

pub(super) fn backend(section: Section<'_>) -> Backend {
    let name: String = section.required("name").unwrap_or_default();
    let default = Backend::new(&name, Role::Backup, "", 0);
    let role = section.required("role").unwrap_or(default.role);
    let target = section.required::<Target>("address");
    let (username, password) = (section.optional("username"), section.optional("password"));
    let database = section.take_within("database", default.database, 0, 1_000_000);
    let target = target.unwrap_or(Target {
        address: default.address,
        username: None,
        password: None,
        database: None,
        tls: false,
    });
    for (key, twice) in [
        ("username", target.username.is_some() && username.is_some()),
        ("password", target.password.is_some() && password.is_some()),
        ("database", target.database.is_some() && section.has("database")),
    ] {
        if twice {
            let message = "this is given here and in the URL of `address`; remove one of them";
            section.reader().fail(&section.path_of(key), message);
        }
    }
    let tls = section.table_if_present("tls", &TLS_KEYS).map(backend_tls);
    let backend = Backend {
        name,
        role,
        address: target.address,
        username: target.username.or(username),
        password: target.password.or(password),
        database: target.database.unwrap_or(database),
        weight: section.take_within("weight", default.weight, 1, 10_000),
        zone: section.optional("zone"),
        region: section.optional("region"),
        data: section.take("data", default.data),
        persistent: section.take("persistent", default.persistent),
        replication_address: section.optional("replication_address"),
        tls: tls.or(target.tls.then(BackendTls::default)),
    };
    section.finish();
    backend
}

const TLS_KEYS: [&str; 5] = ["ca", "cert", "key", "server_name", "insecure_skip_verify"];

fn backend_tls(section: Section<'_>) -> BackendTls {
    let tls = BackendTls {
        ca: section.optional::<PathBuf>("ca"),
        cert: section.optional("cert"),
        key: section.optional("key"),
        server_name: section.optional("server_name"),
        insecure_skip_verify: section.take("insecure_skip_verify", false),
    };
    section.finish();
    tls
}

pub(super) fn timeout(section: Section<'_>, profile: Profile) -> Timeout {
    let default = Timeout::of(profile);
    let timeout = Timeout {
        connect: section.take_within("connect", default.connect, MILLISECOND, MINUTE),
        handshake: section.take_within("handshake", default.handshake, MILLISECOND, MINUTE),
        request: section.take_within("request", default.request, 10 * MILLISECOND, HOUR),
        floor: section.take_within("floor", default.floor, MILLISECOND, HOUR),
        slow: section.take_within("slow", default.slow, 10 * MILLISECOND, DAY),
        tcp_user_timeout: section.take_within("tcp_user_timeout", default.tcp_user_timeout, 10 * MILLISECOND, HOUR),
        tcp_keepalive: section.take_within("tcp_keepalive", default.tcp_keepalive, SECOND, DAY),
    };
    section.finish();
    timeout
}

pub(super) fn retry(section: Section<'_>) -> Retry {
    let default = Retry::default();
    let retry = Retry {
        ceiling: section.take("ceiling", default.ceiling),
        attempts: section.take_within("attempts", default.attempts, 1, 100),
        budget_percent: section.take_within("budget_percent", default.budget_percent, 0.0, 100.0),
        budget_floor_per_second: section.take_within(
            "budget_floor_per_second",
            default.budget_floor_per_second,
            0,
            1_000_000,
        ),
        backoff_min: section.take_within("backoff_min", default.backoff_min, MILLISECOND, MINUTE),
        backoff_max: section.take_within("backoff_max", default.backoff_max, MILLISECOND, MINUTE),
    };
    section.finish();
    retry
}

pub(super) fn links(section: Section<'_>) -> Links {
    let default = Links::default();
    let links = Links {
        in_flight_max: section.take_within("in_flight_max", default.in_flight_max, 16, 1 << 24),
        bytes_max: bytes(&section, "bytes_max", default.bytes_max, 64 * KIB, 64 * GIB),
        reply_depth_max: section.take_within("reply_depth_max", default.reply_depth_max, 8, 65_536),
        reply_elements_max: section.take_within("reply_elements_max", default.reply_elements_max, 1024, 1 << 32),
        reconnect_min: section.take_within("reconnect_min", default.reconnect_min, MILLISECOND, MINUTE),
        reconnect_max: section.take_within("reconnect_max", default.reconnect_max, MILLISECOND, MINUTE),
    };
    section.finish();
    links
}

pub(super) fn pinned(section: Section<'_>) -> Pinned {
    let default = Pinned::default();
    let pinned = Pinned {
        max: section.take_within("max", default.max, 1, 1_000_000),
        idle: section.take_within("idle", default.idle, Duration::ZERO, DAY),
    };
    section.finish();
    pinned
}

pub(super) fn health_check(section: Section<'_>, profile: Profile) -> HealthCheck {
    let default = HealthCheck::of(profile);
    let health_check = HealthCheck {
        interval: section.take_within("interval", default.interval, 10 * MILLISECOND, HOUR),
        timeout: section.take_within("timeout", default.timeout, 10 * MILLISECOND, MINUTE),
        probes: section.take_within("probes", default.probes, 1, 100),
        probe_delay: section.take_within("probe_delay", default.probe_delay, MILLISECOND, MINUTE),
        policy: section.take("policy", default.policy),
        write_probe: section.take("write_probe", default.write_probe),
    };
    section.finish();
    health_check
}

pub(super) fn initialization(section: Section<'_>) -> Initialization {
    let default = Initialization::default();
    let initialization = Initialization {
        policy: section.take("policy", default.policy),
        timeout: section.take_within("timeout", default.timeout, Duration::ZERO, HOUR),
    };
    section.finish();
    initialization
}

pub(super) fn health(section: Section<'_>) -> Health {
    let default = Health::default();
    let health = Health {
        availability: section.take_within("availability", default.availability, 0.0, 1.0),
        error_rate: section.take_within("error_rate", default.error_rate, 0.001, 1.0),
        response_time: section.take_within("response_time", default.response_time, MILLISECOND, HOUR),
        replication_lag: section.take_within("replication_lag", default.replication_lag, SECOND, DAY),
    };
    section.finish();
    health
}

pub(super) fn failover(section: Section<'_>) -> Failover {
    let default = Failover::default();
    let failover = Failover {
        profile: section.take("profile", default.profile),
        mode: section.take("mode", default.mode),
        triggers: section.take("triggers", default.triggers),
        cascade: section.take("cascade", default.cascade),
        failure_threshold: section.take_within("failure_threshold", default.failure_threshold, 1, 1_000),
        failure_rate_threshold: section.take_within(
            "failure_rate_threshold",
            default.failure_rate_threshold,
            0.001,
            1.0,
        ),
        min_failures: section.take_within("min_failures", default.min_failures, 1, 1_000_000),
        performance_degradation_threshold: section.take_within(
            "performance_degradation_threshold",
            default.performance_degradation_threshold,
            0.01,
            1_000.0,
        ),
        performance_min_shift: section.take_within(
            "performance_min_shift",
            default.performance_min_shift,
            MILLISECOND / 100,
            HOUR,
        ),
        max_attempts: section.take_within("max_attempts", default.max_attempts, 1, 1_000),
        cooldown: section.take_within("cooldown", default.cooldown, Duration::ZERO, DAY),
        cooldown_max: section.take_within("cooldown_max", default.cooldown_max, Duration::ZERO, 7 * DAY),
        max_per_hour: section.take_within("max_per_hour", default.max_per_hour, 1, 1_000),
        confirm_within: section.take_within("confirm_within", default.confirm_within, SECOND, 30 * DAY),
        zone: section.optional("zone"),
        region: section.optional("region"),
        hold: section.take_within("hold", default.hold, Duration::ZERO, HOUR),
    };
    section.finish();
    failover
}

pub(super) fn recovery(section: Section<'_>) -> Recovery {
    let default = Recovery::default();
    let recovery = Recovery {
        enabled: section.take("enabled", default.enabled),
        threshold: section.take_within("threshold", default.threshold, 1, 1_000),
        delay: section.take_within("delay", default.delay, Duration::ZERO, DAY),
        delay_max: section.take_within("delay_max", default.delay_max, Duration::ZERO, DAY),
        grace_period: section.take_within("grace_period", default.grace_period, Duration::ZERO, DAY),
        plan: section.take("plan", default.plan),
        dwell: section.take_within("dwell", default.dwell, Duration::ZERO, DAY),
        latency_factor: section.take_within("latency_factor", default.latency_factor, 1.0, 1_000.0),
    };
    section.finish();
    recovery
}

pub(super) fn divergence(section: Section<'_>) -> Divergence {
    let default = Divergence::default();
    let divergence = Divergence {
        policy: section.take("policy", default.policy),
        source: section.take("source", default.source),
        scripts: section.take("scripts", default.scripts),
        record_bytes: bytes(&section, "record_bytes", default.record_bytes, 4 * KIB, 16 * GIB),
        mark_prefix: section.take("mark_prefix", default.mark_prefix),
    };
    section.finish();
    divergence
}

pub(super) fn mirror(section: Section<'_>) -> Mirror {
    let default = Mirror::default();
    let mirror = Mirror {
        buffer: bytes(&section, "buffer", default.buffer, 64 * KIB, 16 * GIB),
        fill: section.take("fill", default.fill),
        read_fill: section.take("read_fill", default.read_fill),
        primary: section.take("primary", default.primary),
        copy_rate: section.take_within("copy_rate", default.copy_rate, 10, 10_000_000),
        value_max: bytes(&section, "value_max", default.value_max, KIB, GIB / 2),
    };
    section.finish();
    mirror
}

pub(super) fn replica(section: Section<'_>) -> Replica {
    let replica = Replica { promote: section.take("promote", Replica::default().promote) };
    section.finish();
    replica
}

pub(super) fn sampling(section: Section<'_>) -> Sampling {
    let default = Sampling::default();
    let sampling = Sampling {
        mode: section.take("mode", default.mode),
        share: section.take_within("share", default.share, 0.0001, 1.0),
        rate: section.take_within("rate", default.rate, 1, 100_000),
        value_max: bytes(&section, "value_max", default.value_max, KIB, GIB / 2),
        ttl_tolerance: section.take_within("ttl_tolerance", default.ttl_tolerance, Duration::ZERO, DAY),
    };
    section.finish();
    sampling
}

pub(super) fn objectives(section: Section<'_>) -> Objectives {
    let objectives = Objectives { rto: section.optional("rto"), rpo: section.optional("rpo") };
    section.finish();
    objectives
}

pub(super) fn embedded(section: Section<'_>) -> Embedded {
    let default = Embedded::default();
    let embedded = Embedded {
        memory: bytes(&section, "memory", default.memory, 64 * KIB, 1024 * GIB),
        locks_and_counters: section.take("locks_and_counters", default.locks_and_counters),
    };
    section.finish();
    embedded
}

pub(super) fn workers(section: Section<'_>) -> Workers {
    let workers = Workers { count: section.take_within("count", Workers::default().count, 1, 64) };
    section.finish();
    workers
}

pub(super) fn drain(section: Section<'_>) -> Drain {
    let drain = Drain { timeout: section.take_within("timeout", Drain::default().timeout, Duration::ZERO, DAY) };
    section.finish();
    drain
}

pub(super) fn state(section: Section<'_>) -> State {
    let state = State { directory: section.optional("directory") };
    section.finish();
    state
}

pub(super) fn log(section: Section<'_>) -> Log {
    let default = Log::default();
    let log = Log { level: section.take("level", default.level), format: section.take("format", default.format) };
    section.finish();
    log
}
