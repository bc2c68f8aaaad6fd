//! Pops and moves, with and without waiting. A command that finds nothing leaves a waiter behind and is run again, whole,
//! by the command that brings an element.

use super::sets::numbered_keys;
use super::*;
use crate::embedded::arguments::{integer, is, parse_float};
use crate::embedded::dispatch::{BLOCKING, FAST, GROWS, WRITE};
use crate::embedded::sorted_set::SortedSet;
use crate::embedded::value::{End, List};

const MOVE: u16 = WRITE | GROWS;

pub(super) const ROWS: &[Row] = &[
    row("lmove", 5, MOVE, TWO_KEYS, |context, arguments| {
        let ends = (end(arguments[3])?, end(arguments[4])?);
        if !move_item(context, arguments[1], arguments[2], ends)? {
            context.reply.null();
        }
        Ok(())
    }),
    row("rpoplpush", 3, MOVE, TWO_KEYS, |context, arguments| {
        if !move_item(context, arguments[1], arguments[2], (End::Right, End::Left))? {
            context.reply.null();
        }
        Ok(())
    }),
    row("blmove", 6, MOVE | BLOCKING, TWO_KEYS, |context, arguments| {
        let ends = (end(arguments[3])?, end(arguments[4])?);
        wait_to_move(context, arguments, ends, arguments[5])
    }),
    row("brpoplpush", 4, MOVE | BLOCKING, TWO_KEYS, |context, arguments| {
        wait_to_move(context, arguments, (End::Right, End::Left), arguments[3])
    }),
    row("blpop", -3, WRITE | BLOCKING, (1, -2, 1), |context, arguments| wait_to_pop(context, arguments, End::Left)),
    row("brpop", -3, WRITE | BLOCKING, (1, -2, 1), |context, arguments| wait_to_pop(context, arguments, End::Right)),
    row("bzpopmin", -3, WRITE | BLOCKING | FAST, (1, -2, 1), |context, arguments| {
        wait_to_pop_score(context, arguments, false)
    }),
    row("bzpopmax", -3, WRITE | BLOCKING | FAST, (1, -2, 1), |context, arguments| {
        wait_to_pop_score(context, arguments, true)
    }),
    row("lmpop", -4, WRITE, NO_KEYS, |context, arguments| lmpop(context, &arguments[1..], None, arguments)),
    row("blmpop", -5, WRITE | BLOCKING, NO_KEYS, |context, arguments| {
        let timeout = Timeout::of(arguments[1])?;
        lmpop(context, &arguments[2..], Some(timeout), arguments)
    }),
    row("zmpop", -4, WRITE, NO_KEYS, |context, arguments| zmpop(context, &arguments[1..], None, arguments)),
    row("bzmpop", -5, WRITE | BLOCKING, NO_KEYS, |context, arguments| {
        let timeout = Timeout::of(arguments[1])?;
        zmpop(context, &arguments[2..], Some(timeout), arguments)
    }),
];

/// How long a client waits; 0 seconds is for ever.
#[derive(Clone, Copy)]
struct Timeout(Option<u64>);

impl Timeout {
    fn of(seconds: &[u8]) -> Result<Self, Error> {
        let seconds = parse_float(seconds).filter(|seconds| seconds.is_finite()).ok_or(error::TIMEOUT_NOT_A_FLOAT)?;
        if seconds < 0.0 {
            return Err(error::TIMEOUT_NEGATIVE);
        }
        if seconds > i64::MAX as f64 / 1_000_000.0 {
            return Err(Error::text("ERR timeout is out of range"));
        }
        Ok(Self((seconds > 0.0).then_some((seconds * 1000.0).ceil() as u64)))
    }
}

fn end(argument: &[u8]) -> Result<End, Error> {
    if is(argument, "left") {
        Ok(End::Left)
    } else if is(argument, "right") {
        Ok(End::Right)
    } else {
        Err(error::SYNTAX)
    }
}

/// Moves one item and replies with it; false if there is none.
fn move_item(context: &mut Context<'_>, from: &[u8], to: &[u8], ends: (End, End)) -> Result<bool, Error> {
    let (database, reply) = context.split();
    if database.read::<List>(from)?.is_none() {
        return Ok(false);
    }
    database.read::<List>(to)?;
    let Some(item) = database.update(from, |list: &mut List| list.pop(ends.0))?.flatten() else { return Ok(false) };
    database.upsert(to, |list: &mut List| list.push(ends.1, &item))?;
    reply.bulk(&item);
    Ok(true)
}

fn wait_to_move(context: &mut Context<'_>, arguments: &[&[u8]], ends: (End, End), timeout: &[u8]) -> Result<(), Error> {
    let timeout = Timeout::of(timeout)?;
    if move_item(context, arguments[1], arguments[2], ends)? {
        return Ok(());
    }
    if context.session.executing {
        context.reply.null();
    } else {
        context.wait_for(&arguments[1..2], "list", timeout.0, arguments);
    }
    Ok(())
}

fn wait_or_null(
    context: &mut Context<'_>,
    keys: &[&[u8]],
    type_name: &'static str,
    timeout: Option<Timeout>,
    arguments: &[&[u8]],
) {
    match timeout {
        Some(timeout) if !context.session.executing => context.wait_for(keys, type_name, timeout.0, arguments),
        _ => context.reply.null_array(),
    }
}

fn wait_to_pop(context: &mut Context<'_>, arguments: &[&[u8]], end: End) -> Result<(), Error> {
    let (timeout, keys) = (Timeout::of(arguments[arguments.len() - 1])?, &arguments[1..arguments.len() - 1]);
    let (database, reply) = context.split();
    for key in keys {
        if database.read::<List>(key)?.is_none() {
            continue;
        }
        if let Some(item) = database.update(key, |list: &mut List| list.pop(end))?.flatten() {
            reply.bulks([*key, &*item].into_iter());
            return Ok(());
        }
    }
    wait_or_null(context, keys, "list", Some(timeout), arguments);
    Ok(())
}

/// Takes up to `count` members with the lowest or the highest scores.
pub(super) fn pop_scores(set: &mut SortedSet, highest: bool, count: usize) -> Vec<(Box<[u8]>, f64)> {
    let owned = |(member, score): (&[u8], f64)| (Box::from(member), score);
    let popped: Vec<(Box<[u8]>, f64)> = if highest {
        set.iter_down_from(set.len().saturating_sub(1)).take(count).map(owned).collect()
    } else {
        set.iter().take(count).map(owned).collect()
    };
    for (member, _) in &popped {
        set.remove(member);
    }
    popped
}

fn wait_to_pop_score(context: &mut Context<'_>, arguments: &[&[u8]], highest: bool) -> Result<(), Error> {
    let (timeout, keys) = (Timeout::of(arguments[arguments.len() - 1])?, &arguments[1..arguments.len() - 1]);
    let (database, reply) = context.split();
    for key in keys {
        if database.read::<SortedSet>(key)?.is_none() {
            continue;
        }
        let popped = database.update(key, |set: &mut SortedSet| pop_scores(set, highest, 1))?;
        if let Some((member, score)) = popped.and_then(|mut popped| popped.pop()) {
            reply.array(3);
            reply.bulk(key);
            reply.bulk(&member);
            reply.double(score);
            return Ok(());
        }
    }
    wait_or_null(context, keys, "zset", Some(timeout), arguments);
    Ok(())
}

/// `numkeys key ... WHERE [COUNT n]`: keys, where, how many.
fn several<'a, 'b>(arguments: &'b [&'a [u8]]) -> Result<(Arguments<'b, 'a>, &'a [u8], usize), Error> {
    let (keys, rest) = numbered_keys(arguments, "ERR numkeys should be greater than 0").map_err(|error| {
        // Too few arguments for the keys are a plain syntax error here.
        if error.0.contains("greater than number") { error::SYNTAX } else { error }
    })?;
    let count = match rest.get(1..) {
        Some([]) => 1,
        Some([option, count]) if is(option, "count") => integer(count)
            .ok()
            .and_then(|count| usize::try_from(count).ok())
            .filter(|&count| count > 0)
            .ok_or(Error::text("ERR count should be greater than 0"))?,
        _ => return Err(error::SYNTAX),
    };
    Ok((keys, rest[0], count))
}

fn lmpop(
    context: &mut Context<'_>,
    rest: &[&[u8]],
    timeout: Option<Timeout>,
    arguments: &[&[u8]],
) -> Result<(), Error> {
    let (keys, wanted, count) = several(rest)?;
    let end = end(wanted)?;
    let (database, reply) = context.split();
    for key in keys {
        let Some(length) = database.read::<List>(key)?.map(List::len) else { continue };
        reply.array(2);
        reply.bulk(key);
        reply.array(count.min(length));
        database.update(key, |list: &mut List| {
            (0..count.min(length)).filter_map(|_| list.pop(end)).for_each(|item| reply.bulk(&item));
        })?;
        return Ok(());
    }
    wait_or_null(context, keys, "list", timeout, arguments);
    Ok(())
}

fn zmpop(
    context: &mut Context<'_>,
    rest: &[&[u8]],
    timeout: Option<Timeout>,
    arguments: &[&[u8]],
) -> Result<(), Error> {
    let (keys, wanted, count) = several(rest)?;
    let highest = is(wanted, "max");
    if !highest && !is(wanted, "min") {
        return Err(error::SYNTAX);
    }
    let (database, reply) = context.split();
    for key in keys {
        if database.read::<SortedSet>(key)?.is_none() {
            continue;
        }
        let popped = database.update(key, |set: &mut SortedSet| pop_scores(set, highest, count))?.unwrap_or_default();
        reply.array(2);
        reply.bulk(key);
        reply.array(popped.len());
        for (member, score) in popped {
            reply.array(2);
            reply.bulk(&member);
            reply.double(score);
        }
        return Ok(());
    }
    wait_or_null(context, keys, "zset", timeout, arguments);
    Ok(())
}
