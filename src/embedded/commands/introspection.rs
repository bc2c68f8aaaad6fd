//! What the server says of itself: INFO, COMMAND, CONFIG, ROLE.

use std::fmt::Write;

use super::*;
use crate::embedded::arguments::{is, parse_integer};
use crate::embedded::dispatch::{self, ADMIN, BLOCKING, FAST, GROWS, LOCK, NO_AUTH, PUBSUB, READ, WRITE};
use crate::embedded::glob;
use crate::embedded::reply::Reply;
use crate::embedded::store::{Eviction, State};

pub(super) const ROWS: &[Row] = &[
    row("info", -1, 0, NO_KEYS, info),
    row("command", -1, 0, NO_KEYS, command),
    row("config", -2, ADMIN, NO_KEYS, config),
    row("role", 1, FAST, NO_KEYS, role),
    row("lolwut", -1, FAST, NO_KEYS, lolwut),
    row("lastsave", 1, FAST, NO_KEYS, lastsave),
];

type Section = (&'static str, fn(&State, &mut String));

const SECTIONS: &[Section] = &[
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("cluster", cluster),
    ("keyspace", keyspace),
];

fn info(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let wanted = &arguments[1..];
    let everything = wanted.iter().any(|word| ["all", "default", "everything"].iter().any(|one| is(word, one)));
    let mut text = String::new();
    for (name, write_section) in SECTIONS {
        if wanted.is_empty() || everything || wanted.iter().any(|word| is(word, name)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let (first, rest) = name.split_at(1);
            text.push_str(&format!("# {}{rest}\r\n", first.to_uppercase()));
            write_section(context.state, &mut text);
        }
    }
    context.reply.verbatim(&text);
    Ok(())
}

/// One `name:value` line. Writing to a string cannot fail.
fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(text, "{name}:{value}\r\n");
}

fn server(state: &State, text: &mut String) {
    let up_seconds = state.now_ms.saturating_sub(state.started_at_ms) / 1000;
    line(text, "redis_version", connection::REDIS_VERSION);
    line(text, "redis_mode", "standalone");
    line(text, "standin_version", env!("CARGO_PKG_VERSION"));
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "process_id", std::process::id());
    line(text, "run_id", &state.run_id);
    line(text, "server_time_usec", state.now_ms * 1000);
    line(text, "uptime_in_seconds", up_seconds);
    line(text, "uptime_in_days", up_seconds / 86_400);
}

fn clients(state: &State, text: &mut String) {
    line(text, "connected_clients", state.clients.len());
    line(text, "maxclients", crate::limits::EMBEDDED_CLIENTS_MAX);
    line(text, "blocked_clients", state.waiters.len());
    let subscribers = state.clients.values().filter(|client| client.channels + client.patterns > 0).count();
    line(text, "pubsub_clients", subscribers);
}

fn memory(state: &State, text: &mut String) {
    line(text, "used_memory", state.memory_bytes());
    line(text, "used_memory_dataset", state.memory_bytes());
    line(text, "maxmemory", state.options.max_memory_bytes);
    line(text, "maxmemory_policy", policy(state));
}

fn policy(state: &State) -> &'static str {
    match state.options.eviction {
        Eviction::LeastRecentlyUsed => "allkeys-lru",
        Eviction::SoonestExpiryFirst => "volatile-ttl",
        Eviction::Refuse => "noeviction",
    }
}

fn persistence(_: &State, text: &mut String) {
    for name in ["loading", "async_loading", "rdb_changes_since_last_save", "rdb_bgsave_in_progress", "aof_enabled"] {
        line(text, name, 0);
    }
    line(text, "rdb_last_bgsave_status", "ok");
}

fn stats(state: &State, text: &mut String) {
    let sum = |field: fn(&crate::embedded::database::Counters) -> u64| {
        state.databases.iter().map(|database| field(&database.counters)).sum::<u64>()
    };
    line(text, "total_connections_received", state.connections);
    line(text, "total_commands_processed", state.commands);
    line(text, "keyspace_hits", sum(|counters| counters.hits));
    line(text, "keyspace_misses", sum(|counters| counters.misses));
    line(text, "expired_keys", sum(|counters| counters.expired));
    line(text, "evicted_keys", sum(|counters| counters.evicted));
    line(text, "pubsub_channels", state.channels.len());
    line(text, "pubsub_patterns", state.patterns.len());
}

fn replication(state: &State, text: &mut String) {
    line(text, "role", "master");
    line(text, "connected_slaves", 0);
    line(text, "master_failover_state", "no-failover");
    line(text, "master_replid", &state.replication_id);
    line(text, "master_replid2", "0".repeat(40));
    line(text, "master_repl_offset", 0);
    line(text, "second_repl_offset", -1);
    line(text, "repl_backlog_active", 0);
}

/// No measured times: an embedded store has no process of its own to measure.
fn cpu(_: &State, text: &mut String) {
    line(text, "used_cpu_sys", "0.000000");
    line(text, "used_cpu_user", "0.000000");
}

fn cluster(_: &State, text: &mut String) {
    line(text, "cluster_enabled", 0);
}

fn keyspace(state: &State, text: &mut String) {
    for (number, database) in state.databases.iter().enumerate() {
        if database.len() > 0 {
            let counts = format!("keys={},expires={},avg_ttl=0", database.len(), database.expiring());
            line(text, &format!("db{number}"), counts);
        }
    }
}

/// The rows that this store serves: without those that its options refuse.
fn served(state: &State) -> impl Iterator<Item = &'static Row> {
    let allows_locks = state.options.allow_locks_and_counters;
    TABLE.iter().flat_map(|rows| rows.iter()).filter(move |row| allows_locks || !row.has(LOCK))
}

const COMMAND_SUBCOMMANDS: &[(&str, i16, Handler)] = &[
    ("count", 2, command_count),
    ("list", -2, command_list),
    ("info", -2, command_info),
    ("docs", -2, command_docs),
    ("getkeys", -4, command_getkeys),
];

fn command(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if arguments.len() == 1 {
        return command_info(context, &[b"command", b"info"]);
    }
    subcommand("command", COMMAND_SUBCOMMANDS, context, arguments)
}

fn command_count(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    let count = served(context.state).count();
    context.reply.count(count);
    Ok(())
}

fn command_info(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let rows: Vec<Option<&Row>> = match &arguments[2..] {
        [] => served(context.state).map(Some).collect(),
        names => names.iter().map(|name| served(context.state).find(|row| is(name, row.name))).collect(),
    };
    context.reply.array(rows.len());
    for row in rows {
        match row {
            Some(row) => describe(&mut context.reply, row),
            None => context.reply.null_array(),
        }
    }
    Ok(())
}

fn command_list(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let pattern = match &arguments[2..] {
        [] => &b"*"[..],
        [by, kind, pattern] if is(by, "filterby") && is(kind, "pattern") => pattern,
        [by, kind, _] if is(by, "filterby") && (is(kind, "module") || is(kind, "aclcat")) => b"",
        _ => return Err(error::SYNTAX),
    };
    let names: Vec<&[u8]> = served(context.state)
        .map(|row| row.name.as_bytes())
        .filter(|name| glob::matches(&pattern.to_ascii_lowercase(), name))
        .collect();
    context.reply.bulks(names.into_iter());
    Ok(())
}

const FLAG_NAMES: &[(u16, &str)] = &[
    (WRITE, "write"),
    (READ, "readonly"),
    (GROWS, "denyoom"),
    (ADMIN, "admin"),
    (PUBSUB, "pubsub"),
    (BLOCKING, "blocking"),
    (NO_AUTH, "no_auth"),
    (FAST, "fast"),
];

/// A row as COMMAND INFO has it since 7.0: ten elements, the last four empty.
fn describe(reply: &mut Reply<'_>, row: &Row) {
    reply.array(10);
    reply.bulk(row.name.as_bytes());
    reply.integer(i64::from(row.arity));
    let flags: Vec<&str> = FLAG_NAMES.iter().filter(|(flag, _)| row.has(*flag)).map(|(_, name)| *name).collect();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    for key in [row.keys.0, row.keys.1, row.keys.2] {
        reply.integer(i64::from(key));
    }
    reply.set(0);
    reply.array(0);
    reply.array(0);
    reply.array(0);
}

fn command_docs(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let names = &arguments[2..];
    let rows: Vec<&Row> =
        served(context.state).filter(|row| names.is_empty() || names.iter().any(|name| is(name, row.name))).collect();
    let reply = &mut context.reply;
    reply.map(rows.len());
    for row in rows {
        reply.bulk(row.name.as_bytes());
        reply.map(2);
        for (key, value) in [("summary", "As in Redis 7.0."), ("since", "1.0.0")] {
            reply.bulk(key.as_bytes());
            reply.bulk(value.as_bytes());
        }
    }
    Ok(())
}

fn command_getkeys(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let words = &arguments[2..];
    let row = dispatch::find(words[0]).ok_or(Error::text("ERR Invalid command specified"))?;
    if !row.takes(words.len()) {
        return Err(Error::text("ERR Invalid number of arguments specified for command"));
    }
    let (first, last, step) = row.keys;
    if first == 0 {
        return Err(Error::text("ERR The command has no key arguments"));
    }
    let last = if last < 0 { words.len() as i64 + i64::from(last) } else { i64::from(last) };
    let positions = (i64::from(first)..=last).step_by(step.max(1) as usize);
    let keys: Vec<&[u8]> = positions.filter_map(|at| words.get(at as usize).copied()).collect();
    context.reply.bulks(keys.into_iter());
    Ok(())
}

/// The settings that clients ask for, as they are here. None is kept anywhere else.
fn settings(state: &State, password: Option<&str>) -> Vec<(&'static str, String)> {
    vec![
        ("appendonly", "no".into()),
        ("databases", state.databases.len().to_string()),
        ("hash-max-listpack-entries", "512".into()),
        ("maxclients", crate::limits::EMBEDDED_CLIENTS_MAX.to_string()),
        ("maxmemory", state.options.max_memory_bytes.to_string()),
        ("maxmemory-policy", policy(state).into()),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", crate::limits::BULK_BYTES_MAX.to_string()),
        ("requirepass", password.unwrap_or_default().into()),
        ("save", String::new()),
        ("timeout", "0".into()),
    ]
}

const CONFIG_SUBCOMMANDS: &[(&str, i16, Handler)] =
    &[("get", -3, config_get), ("set", -4, config_set), ("resetstat", 2, config_resetstat)];

fn config(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    subcommand("config", CONFIG_SUBCOMMANDS, context, arguments)
}

fn config_get(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let mut found = settings(context.state, context.session.password.as_deref());
    found.retain(|(name, _)| {
        arguments[2..].iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    });
    context.reply.map(found.len());
    for (name, value) in found {
        context.reply.bulk(name.as_bytes());
        context.reply.bulk(value.as_bytes());
    }
    Ok(())
}

/// `maxmemory` and `maxmemory-policy` take effect; `save`, `appendonly` and `timeout` are accepted where they say what
/// is so anyhow; the rest is refused.
fn config_set(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if !arguments.len().is_multiple_of(2) {
        return Err(error::wrong_arguments("config|set"));
    }
    for pair in arguments[2..].chunks_exact(2) {
        let (name, value) = (pair[0], pair[1]);
        let options = &mut context.state.options;
        let invalid = |why: &str| {
            Error::from(format!(
                "ERR CONFIG SET failed (possibly related to argument '{}') - {why}",
                String::from_utf8_lossy(name)
            ))
        };
        if is(name, "maxmemory") {
            options.max_memory_bytes = parse_integer(value)
                .and_then(|bytes| usize::try_from(bytes).ok())
                .filter(|&bytes| bytes > 0)
                .ok_or_else(|| invalid("argument must be a number of bytes above 0: this store is always bounded"))?;
        } else if is(name, "maxmemory-policy") {
            options.eviction = match value {
                b"allkeys-lru" => Eviction::LeastRecentlyUsed,
                b"volatile-ttl" => Eviction::SoonestExpiryFirst,
                b"noeviction" => Eviction::Refuse,
                _ => return Err(invalid("argument must be one of allkeys-lru, volatile-ttl, noeviction")),
            };
        } else {
            let fixed = [("save", ""), ("appendonly", "no"), ("timeout", "0"), ("notify-keyspace-events", "")];
            if !fixed.iter().any(|(fixed, only)| is(name, fixed) && is(value, only)) {
                return Err(invalid("can't set immutable config"));
            }
        }
    }
    context.reply.ok();
    Ok(())
}

fn config_resetstat(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.state.databases.iter_mut().for_each(|database| database.counters = Default::default());
    context.state.commands = 0;
    context.state.connections = 0;
    context.reply.ok();
    Ok(())
}

fn role(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.reply.array(3);
    context.reply.bulk(b"master");
    context.reply.integer(0);
    context.reply.array(0);
    Ok(())
}

fn lolwut(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.reply.verbatim(concat!("Standin ver. ", env!("CARGO_PKG_VERSION"), "\n"));
    Ok(())
}

/// Nothing is ever saved; the start is the moment from which the content is.
fn lastsave(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    context.reply.integer((context.state.started_at_ms / 1000) as i64);
    Ok(())
}
