//! Lists. The commands that wait have a file of their own.

use super::*;
use crate::embedded::arguments::{index, integer, is, positive, range};
use crate::embedded::dispatch::{FAST, GROWS, READ, WRITE};
use crate::embedded::value::{End, List};

pub(super) const ROWS: &[Row] = &[
    row("lpush", -3, WRITE | GROWS | FAST, ONE_KEY, |context, arguments| push(context, arguments, End::Left)),
    row("rpush", -3, WRITE | GROWS | FAST, ONE_KEY, |context, arguments| push(context, arguments, End::Right)),
    row("lpushx", -3, WRITE | GROWS | FAST, ONE_KEY, |context, arguments| push_existing(context, arguments, End::Left)),
    row("rpushx", -3, WRITE | GROWS | FAST, ONE_KEY, |context, arguments| {
        push_existing(context, arguments, End::Right)
    }),
    row("lpop", -2, WRITE | FAST, ONE_KEY, |context, arguments| pop(context, arguments, "lpop", End::Left)),
    row("rpop", -2, WRITE | FAST, ONE_KEY, |context, arguments| pop(context, arguments, "rpop", End::Right)),
    row("llen", 2, READ | FAST, ONE_KEY, llen),
    row("lrange", 4, READ, ONE_KEY, lrange),
    row("lindex", 3, READ, ONE_KEY, lindex),
    row("lset", 4, WRITE | GROWS, ONE_KEY, lset),
    row("linsert", 5, WRITE | GROWS, ONE_KEY, linsert),
    row("lrem", 4, WRITE, ONE_KEY, lrem),
    row("ltrim", 4, WRITE, ONE_KEY, ltrim),
    row("lpos", -3, READ, ONE_KEY, lpos),
];

fn push(context: &mut Context<'_>, arguments: &[&[u8]], end: End) -> Result<(), Error> {
    let (database, reply) = context.split();
    let length = database.upsert(arguments[1], |list: &mut List| {
        arguments[2..].iter().for_each(|item| list.push(end, item));
        list.len()
    })?;
    reply.count(length);
    Ok(())
}

fn push_existing(context: &mut Context<'_>, arguments: &[&[u8]], end: End) -> Result<(), Error> {
    let present = context.database().read::<List>(arguments[1])?.is_some();
    if present {
        return push(context, arguments, end);
    }
    context.reply.integer(0);
    Ok(())
}

fn pop(context: &mut Context<'_>, arguments: &[&[u8]], name: &str, end: End) -> Result<(), Error> {
    let count = match &arguments[2..] {
        [] => None,
        [count] => Some(positive(count)?),
        _ => return Err(error::wrong_arguments(name)),
    };
    let (database, reply) = context.split();
    let Some(length) = database.read::<List>(arguments[1])?.map(List::len) else {
        match count {
            None => reply.null(),
            Some(_) => reply.null_array(),
        }
        return Ok(());
    };
    let wanted = count.unwrap_or(1).min(length);
    if count.is_some() {
        reply.array(wanted);
    }
    if wanted > 0 {
        database.update(arguments[1], |list: &mut List| {
            (0..wanted).filter_map(|_| list.pop(end)).for_each(|item| reply.bulk(&item));
        })?;
    }
    Ok(())
}

fn llen(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(database.read::<List>(arguments[1])?.map_or(0, List::len));
    Ok(())
}

fn lrange(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (start, end) = (integer(arguments[2])?, integer(arguments[3])?);
    let (database, reply) = context.split();
    let Some(list) = database.read::<List>(arguments[1])? else {
        reply.array(0);
        return Ok(());
    };
    reply.bulks(list.items().range(range(start, end, list.len())).map(|item| &**item));
    Ok(())
}

fn lindex(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let at = integer(arguments[2])?;
    let (database, reply) = context.split();
    let list = database.read::<List>(arguments[1])?;
    let item = list.and_then(|list| list.items().get(index(at, list.len())?));
    reply.bulk_or_null(item.map(|item| &**item));
    Ok(())
}

fn lset(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let length = database.read::<List>(arguments[1])?.map(List::len).ok_or(error::NO_SUCH_KEY)?;
    let at = index(integer(arguments[2])?, length).ok_or(error::OUT_OF_RANGE)?;
    database.update(arguments[1], |list: &mut List| list.replace(at, arguments[3]))?;
    reply.ok();
    Ok(())
}

fn linsert(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let after = is(arguments[2], "after");
    if !after && !is(arguments[2], "before") {
        return Err(error::SYNTAX);
    }
    let (database, reply) = context.split();
    let Some(list) = database.read::<List>(arguments[1])? else {
        reply.integer(0);
        return Ok(());
    };
    let Some(at) = list.items().iter().position(|item| **item == *arguments[3]) else {
        reply.integer(-1);
        return Ok(());
    };
    let length = database.update(arguments[1], |list: &mut List| {
        list.insert(at + usize::from(after), arguments[4]);
        list.len()
    })?;
    reply.count(length.unwrap_or(0));
    Ok(())
}

fn lrem(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let count = integer(arguments[2])?;
    let (end, limit) = match count {
        0 => (End::Left, usize::MAX),
        1.. => (End::Left, count as usize),
        _ => (End::Right, count.unsigned_abs() as usize),
    };
    let (database, reply) = context.split();
    let removed = database.update(arguments[1], |list: &mut List| list.remove_equal(arguments[3], end, limit))?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn ltrim(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (start, end) = (integer(arguments[2])?, integer(arguments[3])?);
    let (database, reply) = context.split();
    database.update(arguments[1], |list: &mut List| {
        let kept = range(start, end, list.len());
        list.keep(kept.start, kept.end);
    })?;
    reply.ok();
    Ok(())
}

struct PositionOptions {
    rank: i64,
    count: Option<usize>,
    compared_max: usize,
}

fn position_options(options: &[&[u8]]) -> Result<PositionOptions, Error> {
    let mut parsed = PositionOptions { rank: 1, count: None, compared_max: usize::MAX };
    for pair in options.chunks(2) {
        let &[option, value] = pair else { return Err(error::SYNTAX) };
        let amount = integer(value)?;
        let not_negative =
            |what| usize::try_from(amount).map_err(|_| Error::from(format!("ERR {what} can't be negative")));
        if is(option, "rank") {
            if amount == 0 {
                return Err(Error::text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to \
                     start from the end of the list",
                ));
            }
            parsed.rank = amount.checked_abs().map(|_| amount).ok_or(Error::text(
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ))?;
        } else if is(option, "count") {
            parsed.count = Some(not_negative("COUNT")?);
        } else if is(option, "maxlen") {
            parsed.compared_max = match not_negative("MAXLEN")? {
                0 => usize::MAX,
                most => most,
            };
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(parsed)
}

fn lpos(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let options = position_options(&arguments[3..])?;
    let (database, reply) = context.split();
    let mut found = Vec::new();
    if let Some(list) = database.read::<List>(arguments[1])? {
        let wanted = match options.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        let skipped = options.rank.unsigned_abs() as usize - 1;
        let positions: Box<dyn Iterator<Item = usize>> =
            if options.rank > 0 { Box::new(0..list.len()) } else { Box::new((0..list.len()).rev()) };
        let equal = |at: &usize| *list.items()[*at] == *arguments[2];
        found = positions.take(options.compared_max).filter(equal).skip(skipped).take(wanted).collect();
    }
    if options.count.is_some() {
        reply.array(found.len());
        found.iter().for_each(|at| reply.count(*at));
    } else if let Some(at) = found.first() {
        reply.count(*at);
    } else {
        reply.null();
    }
    Ok(())
}
