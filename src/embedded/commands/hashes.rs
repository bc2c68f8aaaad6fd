//! Hashes.

use super::counters::{add_floats, add_integers};
use super::*;
use crate::embedded::arguments::{float, integer};
use crate::embedded::dispatch::{FAST, GROWS, LOCK, READ, WRITE};
use crate::embedded::value::Hash;

pub(super) const ROWS: &[Row] = &[
    row("hset", -4, WRITE | GROWS | FAST, ONE_KEY, hset),
    row("hmset", -4, WRITE | GROWS | FAST, ONE_KEY, hmset),
    row("hsetnx", 4, WRITE | GROWS | LOCK | FAST, ONE_KEY, hsetnx),
    row("hget", 3, READ | FAST, ONE_KEY, hget),
    row("hmget", -3, READ | FAST, ONE_KEY, hmget),
    row("hgetall", 2, READ, ONE_KEY, hgetall),
    row("hkeys", 2, READ, ONE_KEY, hkeys),
    row("hvals", 2, READ, ONE_KEY, hvals),
    row("hlen", 2, READ | FAST, ONE_KEY, hlen),
    row("hexists", 3, READ | FAST, ONE_KEY, hexists),
    row("hstrlen", 3, READ | FAST, ONE_KEY, hstrlen),
    row("hdel", -3, WRITE | FAST, ONE_KEY, hdel),
    row("hincrby", 4, WRITE | GROWS | LOCK | FAST, ONE_KEY, hincrby),
    row("hincrbyfloat", 4, WRITE | GROWS | LOCK | FAST, ONE_KEY, hincrbyfloat),
    row("hrandfield", -2, READ, ONE_KEY, hrandfield),
];

fn set_fields(context: &mut Context<'_>, arguments: &[&[u8]], name: &str) -> Result<usize, Error> {
    if !arguments.len().is_multiple_of(2) {
        return Err(error::wrong_arguments(name));
    }
    context.database().upsert(arguments[1], |hash: &mut Hash| {
        arguments[2..].chunks_exact(2).filter(|pair| hash.set(pair[0], pair[1])).count()
    })
}

fn hset(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let new = set_fields(context, arguments, "hset")?;
    context.reply.count(new);
    Ok(())
}

fn hmset(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    set_fields(context, arguments, "hmset")?;
    context.reply.ok();
    Ok(())
}

fn hsetnx(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let set = database.upsert(arguments[1], |hash: &mut Hash| {
        hash.get(arguments[2]).is_none() && hash.set(arguments[2], arguments[3])
    })?;
    reply.flag(set);
    Ok(())
}

fn hget(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let value = database.read::<Hash>(arguments[1])?.and_then(|hash| hash.get(arguments[2]));
    reply.bulk_or_null(value.map(Vec::as_slice));
    Ok(())
}

fn hmget(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let hash = database.read::<Hash>(arguments[1])?;
    reply.array(arguments.len() - 2);
    for field in &arguments[2..] {
        reply.bulk_or_null(hash.and_then(|hash| hash.get(field)).map(Vec::as_slice));
    }
    Ok(())
}

fn hgetall(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let Some(hash) = database.read::<Hash>(arguments[1])? else {
        reply.map(0);
        return Ok(());
    };
    reply.map(hash.fields().len());
    for (field, value) in hash.fields().iter() {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

fn hkeys(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    match database.read::<Hash>(arguments[1])? {
        Some(hash) => reply.bulks(hash.fields().iter().map(|(field, _)| field)),
        None => reply.array(0),
    }
    Ok(())
}

fn hvals(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    match database.read::<Hash>(arguments[1])? {
        Some(hash) => reply.bulks(hash.fields().iter().map(|(_, value)| value.as_slice())),
        None => reply.array(0),
    }
    Ok(())
}

fn hlen(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(database.read::<Hash>(arguments[1])?.map_or(0, |hash| hash.fields().len()));
    Ok(())
}

fn hexists(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.flag(database.read::<Hash>(arguments[1])?.is_some_and(|hash| hash.get(arguments[2]).is_some()));
    Ok(())
}

fn hstrlen(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let value = database.read::<Hash>(arguments[1])?.and_then(|hash| hash.get(arguments[2]));
    reply.count(value.map_or(0, Vec::len));
    Ok(())
}

fn hdel(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let removed = database.update(arguments[1], |hash: &mut Hash| {
        arguments[2..].iter().filter(|field| hash.remove(field).is_some()).count()
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn hincrby(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let amount = integer(arguments[3])?;
    let (database, reply) = context.split();
    let sum = database.upsert(arguments[1], |hash: &mut Hash| {
        let sum = add_integers(hash.get(arguments[2]).map(Vec::as_slice), amount)?;
        hash.set(arguments[2], sum.to_string().as_bytes());
        Ok::<_, Error>(sum)
    })?;
    reply.integer(sum?);
    Ok(())
}

fn hincrbyfloat(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if !float(arguments[3])?.is_finite() {
        return Err(Error::text("ERR value is NaN or Infinity"));
    }
    let (database, reply) = context.split();
    let sum = database.upsert(arguments[1], |hash: &mut Hash| {
        let present = hash.get(arguments[2]).map_or(&b"0"[..], Vec::as_slice);
        let sum = add_floats(present, arguments[3]).map_err(|error| {
            if error == error::NOT_A_FLOAT { Error::text("ERR hash value is not a float") } else { error }
        })?;
        hash.set(arguments[2], &sum);
        Ok::<_, Error>(sum)
    })?;
    reply.bulk(&sum?);
    Ok(())
}

fn hrandfield(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let with_values = match &arguments[2..] {
        [] | [_] => false,
        [_, option] if is(option, "withvalues") => true,
        _ => return Err(error::SYNTAX),
    };
    let count = arguments.get(2).map(|count| integer(count)).transpose()?;
    let length = context.database().read::<Hash>(arguments[1])?.map_or(0, |hash| hash.fields().len());
    let positions = random_positions(context, length, count)?;
    let (database, reply) = context.split();
    let hash = database.lend::<Hash>(arguments[1]);
    let mut picked = positions.iter().filter_map(|&at| hash?.fields().at(at));
    if count.is_none() {
        reply.bulk_or_null(picked.next().map(|(field, _)| field));
        return Ok(());
    }
    let in_pairs = with_values && reply.is_resp3();
    reply.array(positions.len() * if with_values && !in_pairs { 2 } else { 1 });
    for (field, value) in picked {
        if in_pairs {
            reply.array(2);
        }
        reply.bulk(field);
        if with_values {
            reply.bulk(value);
        }
    }
    Ok(())
}
