//! Commands on keys of any type: existence, names, copies, whole databases. Expiry and SCAN have files of their own.

use super::*;
use crate::embedded::arguments::{integer, is};
use crate::embedded::dispatch::{FAST, GROWS, LOCK, READ, WRITE};
use crate::embedded::glob;
use crate::embedded::value::Value;

pub(super) const ROWS: &[Row] = &[
    row("del", -2, WRITE, ALL_KEYS, del),
    row("unlink", -2, WRITE | FAST, ALL_KEYS, del),
    row("exists", -2, READ | FAST, ALL_KEYS, exists),
    row("touch", -2, READ | FAST, ALL_KEYS, exists),
    row("type", 2, READ | FAST, ONE_KEY, type_of),
    row("keys", 2, READ, NO_KEYS, keys),
    row("randomkey", 1, READ, NO_KEYS, randomkey),
    row("rename", 3, WRITE, TWO_KEYS, rename),
    row("renamenx", 3, WRITE | LOCK | FAST, TWO_KEYS, renamenx),
    row("copy", -3, WRITE | GROWS, TWO_KEYS, copy),
    row("move", 3, WRITE | FAST, ONE_KEY, move_key),
    row("object", -2, READ, (2, 2, 1), object),
    row("dbsize", 1, READ | FAST, NO_KEYS, dbsize),
    row("flushdb", -1, WRITE, NO_KEYS, flushdb),
    row("flushall", -1, WRITE, NO_KEYS, flushall),
    row("swapdb", 3, WRITE | FAST, NO_KEYS, swapdb),
    row("wait", 3, FAST, NO_KEYS, wait),
];

fn del(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(arguments[1..].iter().filter(|key| database.remove(key).is_some()).count());
    Ok(())
}

fn exists(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(arguments[1..].iter().filter(|key| database.get(key).is_some()).count());
    Ok(())
}

fn type_of(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.simple(database.peek(arguments[1]).map_or("none", |entry| entry.value.type_name()));
    Ok(())
}

fn keys(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let database = &*database;
    let found: Vec<&[u8]> = database
        .entries()
        .iter()
        .filter(|(key, entry)| !database.is_expired(entry) && glob::matches(arguments[1], key))
        .map(|(key, _)| key)
        .collect();
    reply.bulks(found.into_iter());
    Ok(())
}

fn randomkey(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    // Expired keys may be picked; a few tries, then whichever lives.
    for _ in 0..100 {
        let random = context.state.random();
        let (database, reply) = context.split();
        if database.len() == 0 {
            break;
        }
        let picked = database.entries().at((random % database.len() as u64) as usize);
        if let Some((key, entry)) = picked
            && !database.is_expired(entry)
        {
            reply.bulk(key);
            return Ok(());
        }
    }
    let (database, reply) = context.split();
    let living = database.entries().iter().find(|(_, entry)| !database.is_expired(entry));
    reply.bulk_or_null(living.map(|(key, _)| key));
    Ok(())
}

fn rename(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let database = context.database();
    let entry = database.remove(arguments[1]).ok_or(error::NO_SUCH_KEY)?;
    database.put(arguments[2], entry.value, entry.expires_at_ms);
    context.reply.ok();
    Ok(())
}

fn renamenx(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let database = context.database();
    if !database.contains(arguments[1]) {
        return Err(error::NO_SUCH_KEY);
    }
    let free = !database.contains(arguments[2]);
    if free && let Some(entry) = database.remove(arguments[1]) {
        database.put(arguments[2], entry.value, entry.expires_at_ms);
    }
    context.reply.flag(free);
    Ok(())
}

pub(super) fn database_number(context: &Context<'_>, argument: &[u8]) -> Result<usize, Error> {
    let number = integer(argument)?;
    usize::try_from(number).ok().filter(|&number| number < context.state.databases.len()).ok_or(error::DATABASE_INDEX)
}

fn copy(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (from, to) = (arguments[1], arguments[2]);
    let (mut number, mut replace) = (context.session.database, false);
    let mut rest = arguments[3..].iter();
    while let Some(option) = rest.next() {
        if is(option, "replace") {
            replace = true;
        } else if is(option, "db") {
            number = database_number(context, rest.next().ok_or(error::SYNTAX)?)?;
        } else {
            return Err(error::SYNTAX);
        }
    }
    if number == context.session.database && from == to {
        return Err(Error::text("ERR source and destination objects are the same"));
    }
    let Some(bytes) = context.database().peek(from).map(|entry| entry.value.memory_bytes()) else {
        context.reply.integer(0);
        return Ok(());
    };
    if context.state.databases[number].contains(to) && !replace {
        context.reply.integer(0);
        return Ok(());
    }
    context.state.make_room(bytes)?;
    // The eviction may have taken the source itself.
    let copied = context.database().peek(from).map(|entry| (entry.value.clone(), entry.expires_at_ms));
    if let Some((value, expires_at_ms)) = &copied {
        context.state.databases[number].put(to, value.clone(), *expires_at_ms);
    }
    context.reply.flag(copied.is_some());
    Ok(())
}

fn move_key(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let number = database_number(context, arguments[2])?;
    if number == context.session.database {
        return Err(Error::text("ERR source and destination objects are the same"));
    }
    let possible = !context.state.databases[number].contains(arguments[1]);
    let moved = if possible { context.database().remove(arguments[1]) } else { None };
    context.reply.flag(moved.is_some());
    if let Some(entry) = moved {
        context.state.databases[number].put(arguments[1], entry.value, entry.expires_at_ms);
    }
    Ok(())
}

/// The encoding that Redis 7 would have at its default thresholds; ours has no such distinction.
fn encoding(value: &Value) -> &'static str {
    const COMPACT_ENTRIES_MAX: usize = 128;
    const COMPACT_BYTES_MAX: usize = 64;
    let short = |bytes: &[u8]| bytes.len() <= COMPACT_BYTES_MAX;
    match value {
        Value::String(text) if crate::embedded::arguments::parse_integer(text).is_some() => "int",
        Value::String(text) if text.len() <= 44 => "embstr",
        Value::String(_) => "raw",
        Value::List(_) => "quicklist",
        Value::Hash(hash) => {
            let fields = hash.fields();
            let compact = fields.len() <= 512 && fields.iter().all(|(field, value)| short(field) && short(value));
            if compact { "listpack" } else { "hashtable" }
        }
        Value::Set(set) => {
            let integers = set.iter().all(|member| crate::embedded::arguments::parse_integer(member).is_some());
            if integers && set.len() <= 512 { "intset" } else { "hashtable" }
        }
        Value::SortedSet(set) => {
            let compact = set.len() <= COMPACT_ENTRIES_MAX && set.iter().all(|(member, _)| short(member));
            if compact { "listpack" } else { "skiplist" }
        }
    }
}

fn object(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let subcommand = arguments[1];
    if is(subcommand, "help") && arguments.len() == 2 {
        context.reply.bulks([&b"OBJECT (ENCODING|FREQ|IDLETIME|REFCOUNT) <key>"[..]].into_iter());
        return Ok(());
    }
    let known = ["encoding", "refcount", "idletime", "freq", "help"].iter().find(|name| is(subcommand, name));
    let Some(name) = known else { return Err(error::unknown_subcommand("object", subcommand)) };
    if arguments.len() != 3 || *name == "help" {
        return Err(error::wrong_arguments(&format!("object|{name}")));
    }
    let now_ms = context.state.now_ms;
    let (database, reply) = context.split();
    let Some(entry) = database.peek(arguments[2]) else {
        reply.null();
        return Ok(());
    };
    match *name {
        "encoding" => reply.bulk(encoding(&entry.value).as_bytes()),
        "refcount" => reply.integer(1),
        "idletime" => reply.integer((now_ms.saturating_sub(entry.used_at_ms) / 1000) as i64),
        _ => {
            return Err(Error::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    }
    Ok(())
}

fn dbsize(context: &mut Context<'_>, _: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(database.len());
    Ok(())
}

fn check_flush(arguments: &[&[u8]]) -> Result<(), Error> {
    match &arguments[1..] {
        [] => Ok(()),
        [how] if is(how, "async") || is(how, "sync") => Ok(()),
        _ => Err(error::SYNTAX),
    }
}

fn flushdb(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    check_flush(arguments)?;
    context.database().clear();
    context.reply.ok();
    Ok(())
}

fn flushall(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    check_flush(arguments)?;
    context.state.databases.iter_mut().for_each(|database| database.clear());
    context.reply.ok();
    Ok(())
}

fn swapdb(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let index =
        |argument, which: &str| integer(argument).map_err(|_| Error::from(format!("ERR invalid {which} DB index")));
    index(arguments[1], "first")?;
    index(arguments[2], "second")?;
    let (first, second) = (database_number(context, arguments[1])?, database_number(context, arguments[2])?);
    context.state.databases.swap(first, second);
    context.state.note_waiters();
    for number in [first, second] {
        context.state.databases[number].note_all_filled();
    }
    context.reply.ok();
    Ok(())
}

/// There are no replicas, so none has acknowledged anything, and none will.
fn wait(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    integer(arguments[1])?;
    let timeout_ms = integer(arguments[2]).map_err(|_| Error::text("ERR timeout is not an integer or out of range"))?;
    if timeout_ms < 0 {
        return Err(error::TIMEOUT_NEGATIVE);
    }
    context.reply.integer(0);
    Ok(())
}
