//! Sets.

use super::*;
use crate::embedded::arguments::{integer, is, positive};
use crate::embedded::database::Database;
use crate::embedded::dispatch::{FAST, GROWS, READ, WRITE};
use crate::embedded::value::{Kind, Set};

pub(super) const ROWS: &[Row] = &[
    row("sadd", -3, WRITE | GROWS | FAST, ONE_KEY, sadd),
    row("srem", -3, WRITE | FAST, ONE_KEY, srem),
    row("smembers", 2, READ, ONE_KEY, smembers),
    row("scard", 2, READ | FAST, ONE_KEY, scard),
    row("sismember", 3, READ | FAST, ONE_KEY, sismember),
    row("smismember", -3, READ | FAST, ONE_KEY, smismember),
    row("smove", 4, WRITE | FAST, TWO_KEYS, smove),
    row("spop", -2, WRITE | FAST, ONE_KEY, spop),
    row("srandmember", -2, READ, ONE_KEY, srandmember),
    row("sinter", -2, READ, ALL_KEYS, |context, arguments| combined(context, &arguments[1..], intersection)),
    row("sunion", -2, READ, ALL_KEYS, |context, arguments| combined(context, &arguments[1..], union)),
    row("sdiff", -2, READ, ALL_KEYS, |context, arguments| combined(context, &arguments[1..], difference)),
    row("sinterstore", -3, WRITE | GROWS, ALL_KEYS, |context, arguments| store(context, arguments, intersection)),
    row("sunionstore", -3, WRITE | GROWS, ALL_KEYS, |context, arguments| store(context, arguments, union)),
    row("sdiffstore", -3, WRITE | GROWS, ALL_KEYS, |context, arguments| store(context, arguments, difference)),
    row("sintercard", -3, READ, NO_KEYS, sintercard),
];

fn sadd(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let added = database
        .upsert(arguments[1], |set: &mut Set| arguments[2..].iter().filter(|member| set.add(member)).count())?;
    reply.count(added);
    Ok(())
}

fn srem(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let removed = database
        .update(arguments[1], |set: &mut Set| arguments[2..].iter().filter(|member| set.remove(member)).count())?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn smembers(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let Some(set) = database.read::<Set>(arguments[1])? else {
        reply.set(0);
        return Ok(());
    };
    reply.set(set.len());
    set.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

fn scard(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(database.read::<Set>(arguments[1])?.map_or(0, Set::len));
    Ok(())
}

fn sismember(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.flag(database.read::<Set>(arguments[1])?.is_some_and(|set| set.contains(arguments[2])));
    Ok(())
}

fn smismember(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let set = database.read::<Set>(arguments[1])?;
    reply.array(arguments.len() - 2);
    for member in &arguments[2..] {
        reply.flag(set.is_some_and(|set| set.contains(member)));
    }
    Ok(())
}

fn smove(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (from, to, member) = (arguments[1], arguments[2], arguments[3]);
    let (database, reply) = context.split();
    let present = database.read::<Set>(from)?.is_some_and(|set| set.contains(member));
    database.read::<Set>(to)?;
    if present && from != to {
        database.update(from, |set: &mut Set| set.remove(member))?;
        database.upsert(to, |set: &mut Set| set.add(member))?;
    }
    reply.flag(present);
    Ok(())
}

fn spop(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let count = match &arguments[2..] {
        [] => None,
        [count] => Some(positive(count)?),
        _ => return Err(error::SYNTAX),
    };
    let mut length = context.database().read::<Set>(arguments[1])?.map_or(0, Set::len);
    let wanted = count.unwrap_or(1).min(length);
    let mut popped = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let at = (context.state.random() % length as u64) as usize;
        length -= 1;
        popped.extend(context.database().update(arguments[1], |set: &mut Set| set.remove_at(at))?.flatten());
    }
    match count {
        None => context.reply.bulk_or_null(popped.first().map(|member| &**member)),
        Some(_) => {
            context.reply.set(popped.len());
            popped.iter().for_each(|member| context.reply.bulk(member));
        }
    }
    Ok(())
}

fn srandmember(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if arguments.len() > 3 {
        return Err(error::SYNTAX);
    }
    let count = arguments.get(2).map(|count| integer(count)).transpose()?;
    let length = context.database().read::<Set>(arguments[1])?.map_or(0, Set::len);
    let positions = random_positions(context, length, count)?;
    let (database, reply) = context.split();
    let set = database.lend::<Set>(arguments[1]);
    let picked: Vec<&[u8]> =
        positions.iter().filter_map(|&at| set?.members().at(at)).map(|(member, ())| member).collect();
    match count {
        None => reply.bulk_or_null(picked.first().copied()),
        Some(_) => reply.bulks(picked.into_iter()),
    }
    Ok(())
}

type Combination = fn(&[Option<&Set>], usize) -> Set;

fn union(sets: &[Option<&Set>], _: usize) -> Set {
    let mut result = Set::default();
    for member in sets.iter().flatten().flat_map(|set| set.iter()) {
        result.add(member);
    }
    result
}

/// At most `limit` members.
fn intersection(sets: &[Option<&Set>], limit: usize) -> Set {
    let mut result = Set::default();
    let Some(sets) = sets.iter().copied().collect::<Option<Vec<&Set>>>() else { return result };
    let Some(smallest) = sets.iter().min_by_key(|set| set.len()) else { return result };
    for member in smallest.iter().filter(|member| sets.iter().all(|set| set.contains(member))).take(limit) {
        result.add(member);
    }
    result
}

fn difference(sets: &[Option<&Set>], _: usize) -> Set {
    let mut result = Set::default();
    let Some((Some(first), others)) = sets.split_first() else { return result };
    for member in first.iter().filter(|member| !others.iter().flatten().any(|set| set.contains(member))) {
        result.add(member);
    }
    result
}

fn combine(database: &mut Database, keys: &[&[u8]], combination: Combination, limit: usize) -> Result<Set, Error> {
    for key in keys {
        database.read::<Set>(key)?;
    }
    let sets: Vec<Option<&Set>> = keys.iter().map(|key| database.lend::<Set>(key)).collect();
    Ok(combination(&sets, limit))
}

fn combined(context: &mut Context<'_>, keys: &[&[u8]], combination: Combination) -> Result<(), Error> {
    let (database, reply) = context.split();
    let result = combine(database, keys, combination, usize::MAX)?;
    reply.set(result.len());
    result.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

fn store(context: &mut Context<'_>, arguments: &[&[u8]], combination: Combination) -> Result<(), Error> {
    let (database, reply) = context.split();
    let result = combine(database, &arguments[2..], combination, usize::MAX)?;
    reply.count(result.len());
    database.remove(arguments[1]);
    if result.len() > 0 {
        database.put(arguments[1], result.into_value(), None);
    }
    Ok(())
}

/// `numkeys key ...`: the keys, and what follows them.
pub(super) fn numbered_keys<'a, 'b>(
    arguments: &'b [&'a [u8]],
    not_positive: &'static str,
) -> Result<(Arguments<'b, 'a>, Arguments<'b, 'a>), Error> {
    let count = integer(arguments[0]).ok().and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
    let count = count.ok_or(Error::text(not_positive))?;
    if count >= arguments.len() {
        return Err(Error::text("ERR Number of keys can't be greater than number of args"));
    }
    Ok(arguments[1..].split_at(count))
}

fn sintercard(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (keys, rest) = numbered_keys(&arguments[1..], "ERR numkeys should be greater than 0")?;
    let limit = card_limit(rest)?;
    let (database, reply) = context.split();
    reply.count(combine(database, keys, intersection, limit)?.len());
    Ok(())
}

/// `LIMIT n` of SINTERCARD and ZINTERCARD; 0 is none.
pub(super) fn card_limit(options: &[&[u8]]) -> Result<usize, Error> {
    match options {
        [] => Ok(usize::MAX),
        [option, limit] if is(option, "limit") => {
            let limit = integer(limit).ok().and_then(|limit| usize::try_from(limit).ok());
            let limit = limit.ok_or(Error::text("ERR LIMIT can't be negative"))?;
            Ok(if limit == 0 { usize::MAX } else { limit })
        }
        _ => Err(error::SYNTAX),
    }
}
