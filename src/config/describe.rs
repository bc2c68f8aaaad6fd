//! The configuration in force, for the control port and `check`: every key, no secret's value.

use serde_json::{Map, Value as Json, json};

use super::schema::*;
use super::secret::Secret;
use super::units::{show_duration, show_size};

/// Every group written out, with the words and units of the file. Secrets are `***` whatever their source.
pub fn describe_effective(config: &Config) -> Json {
    json!({
        "group": config.groups.iter().map(group).collect::<Vec<_>>(),
        "control": { "address": config.control.address.to_string(), "token": secret(config.control.token.as_ref()) },
        "observe": config.observe.as_ref().map(|observe| json!({ "address": observe.address.to_string() })),
        "workers": { "count": config.workers.count },
        "drain": { "timeout": show_duration(config.drain.timeout) },
        "state": { "directory": config.state.directory },
        "log": { "level": config.log.level, "format": config.log.format.word() },
    })
}

fn secret(secret: Option<&Secret>) -> Json {
    secret.map_or(Json::Null, |_| json!("***"))
}

fn group(group: &Group) -> Json {
    let mut tables = policies(group);
    tables.insert("name".to_owned(), json!(group.name));
    tables.insert("listen".to_owned(), listen(&group.listen));
    tables.insert("backend".to_owned(), group.backends.iter().map(backend).collect());
    Json::Object(tables)
}

fn listen(listen: &Listen) -> Json {
    let users = listen.users.iter().map(|user| {
        json!({
            "name": user.name,
            "password": "***",
            "backend_username": user.backend_username,
            "backend_password": secret(user.backend_password.as_ref()),
        })
    });
    json!({
        "address": listen.address.to_string(),
        "password": secret(listen.password.as_ref()),
        "users": users.collect::<Vec<_>>(),
        "tls": listen.tls.as_ref().map(|tls| json!({ "cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca })),
        "clients_max": listen.clients_max,
        "output_limit": show_size(listen.output_limit),
        "output_pause": show_size(listen.output_pause),
        "in_flight_max": listen.in_flight_max,
        "idle_timeout": show_duration(listen.idle_timeout),
        "frame_timeout": show_duration(listen.frame_timeout),
        "frame_bytes_max": show_size(listen.frame_bytes_max),
        "bulk_bytes_max": show_size(listen.bulk_bytes_max),
        "elements_max": listen.elements_max,
        "deny": listen.deny.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tcp_keepalive": show_duration(listen.tcp_keepalive),
    })
}

fn backend(backend: &Backend) -> Json {
    let tls = backend.tls.as_ref().map(|tls| {
        json!({
            "ca": tls.ca,
            "cert": tls.cert,
            "key": tls.key,
            "server_name": tls.server_name,
            "insecure_skip_verify": tls.insecure_skip_verify,
        })
    });
    json!({
        "name": backend.name,
        "role": backend.role.word(),
        "address": backend.address.to_string(),
        "username": backend.username,
        "password": secret(backend.password.as_ref()),
        "database": backend.database,
        "weight": backend.weight,
        "zone": backend.zone,
        "region": backend.region,
        "data": backend.data.word(),
        "persistent": backend.persistent,
        "replication_address": backend.replication_address.as_ref().map(ToString::to_string),
        "tls": tls,
    })
}

fn policies(group: &Group) -> Map<String, Json> {
    let Json::Object(tables) = json!({
        "timeout": {
            "connect": show_duration(group.timeout.connect),
            "handshake": show_duration(group.timeout.handshake),
            "request": show_duration(group.timeout.request),
            "floor": show_duration(group.timeout.floor),
            "slow": show_duration(group.timeout.slow),
            "tcp_user_timeout": show_duration(group.timeout.tcp_user_timeout),
            "tcp_keepalive": show_duration(group.timeout.tcp_keepalive),
        },
        "retry": {
            "ceiling": group.retry.ceiling.word(),
            "attempts": group.retry.attempts,
            "budget_percent": group.retry.budget_percent,
            "budget_floor_per_second": group.retry.budget_floor_per_second,
            "backoff_min": show_duration(group.retry.backoff_min),
            "backoff_max": show_duration(group.retry.backoff_max),
        },
        "links": {
            "in_flight_max": group.links.in_flight_max,
            "bytes_max": show_size(group.links.bytes_max),
            "reply_depth_max": group.links.reply_depth_max,
            "reply_elements_max": group.links.reply_elements_max,
            "reconnect_min": show_duration(group.links.reconnect_min),
            "reconnect_max": show_duration(group.links.reconnect_max),
        },
        "pinned": { "max": group.pinned.max, "idle": show_duration(group.pinned.idle) },
        "health_check": {
            "interval": show_duration(group.health_check.interval),
            "timeout": show_duration(group.health_check.timeout),
            "probes": group.health_check.probes,
            "probe_delay": show_duration(group.health_check.probe_delay),
            "policy": group.health_check.policy.word(),
            "write_probe": group.health_check.write_probe,
        },
        "initialization": {
            "policy": group.initialization.policy.word(),
            "timeout": show_duration(group.initialization.timeout),
        },
        "failover": {
            "profile": group.failover.profile.word(),
            "mode": group.failover.mode.word(),
            "triggers": group.failover.triggers.iter().map(|trigger| trigger.word()).collect::<Vec<_>>(),
            "cascade": group.failover.cascade,
            "failure_threshold": group.failover.failure_threshold,
            "failure_rate_threshold": group.failover.failure_rate_threshold,
            "min_failures": group.failover.min_failures,
            "performance_degradation_threshold": group.failover.performance_degradation_threshold,
            "performance_min_shift": show_duration(group.failover.performance_min_shift),
            "max_attempts": group.failover.max_attempts,
            "cooldown": show_duration(group.failover.cooldown),
            "cooldown_max": show_duration(group.failover.cooldown_max),
            "max_per_hour": group.failover.max_per_hour,
            "confirm_within": show_duration(group.failover.confirm_within),
            "zone": group.failover.zone,
            "region": group.failover.region,
            "hold": show_duration(group.failover.hold),
        },
        "health": {
            "availability": group.health.availability,
            "error_rate": group.health.error_rate,
            "response_time": show_duration(group.health.response_time),
            "replication_lag": show_duration(group.health.replication_lag),
        },
        "recovery": {
            "enabled": group.recovery.enabled,
            "threshold": group.recovery.threshold,
            "delay": show_duration(group.recovery.delay),
            "delay_max": show_duration(group.recovery.delay_max),
            "grace_period": show_duration(group.recovery.grace_period),
            "plan": group.recovery.plan.word(),
            "dwell": show_duration(group.recovery.dwell),
            "latency_factor": group.recovery.latency_factor,
        },
        "divergence": {
            "policy": group.divergence.policy.word(),
            "source": group.divergence.source.word(),
            "scripts": group.divergence.scripts.word(),
            "record_bytes": show_size(group.divergence.record_bytes),
            "mark_prefix": group.divergence.mark_prefix,
        },
        "mirror": {
            "buffer": show_size(group.mirror.buffer),
            "fill": group.mirror.fill,
            "read_fill": group.mirror.read_fill,
            "primary": group.mirror.primary,
            "copy_rate": group.mirror.copy_rate,
            "value_max": show_size(group.mirror.value_max),
        },
        "replica": { "promote": group.replica.promote },
        "sampling": {
            "mode": group.sampling.mode.word(),
            "share": group.sampling.share,
            "rate": group.sampling.rate,
            "value_max": show_size(group.sampling.value_max),
            "ttl_tolerance": show_duration(group.sampling.ttl_tolerance),
        },
        "objectives": {
            "rto": group.objectives.rto.map(show_duration),
            "rpo": group.objectives.rpo.map(show_duration),
        },
        "embedded": {
            "memory": show_size(group.embedded.memory),
            "locks_and_counters": group.embedded.locks_and_counters,
        },
    }) else {
        unreachable!("written as an object above")
    };
    tables
}
