//! Sorted sets: single members. Ranges and combinations of sets have files of their own.

use super::blocking::pop_scores;
use super::*;
use crate::embedded::arguments::{float, integer, is, positive};
use crate::embedded::dispatch::{self, FAST, GROWS, LOCK, READ, WRITE};
use crate::embedded::sorted_set::SortedSet;

pub(super) const ROWS: &[Row] = &[
    row("zadd", -4, WRITE | GROWS | FAST, ONE_KEY, zadd),
    row("zincrby", 4, WRITE | GROWS | LOCK | FAST, ONE_KEY, zincrby),
    row("zrem", -3, WRITE | FAST, ONE_KEY, zrem),
    row("zscore", 3, READ | FAST, ONE_KEY, zscore),
    row("zmscore", -3, READ | FAST, ONE_KEY, zmscore),
    row("zcard", 2, READ | FAST, ONE_KEY, zcard),
    row("zrank", 3, READ | FAST, ONE_KEY, |context, arguments| rank(context, arguments, false)),
    row("zrevrank", 3, READ | FAST, ONE_KEY, |context, arguments| rank(context, arguments, true)),
    row("zpopmin", -2, WRITE | FAST, ONE_KEY, |context, arguments| pop(context, arguments, false)),
    row("zpopmax", -2, WRITE | FAST, ONE_KEY, |context, arguments| pop(context, arguments, true)),
    row("zrandmember", -2, READ, ONE_KEY, zrandmember),
];

const NOT_A_NUMBER: Error = Error::text("ERR resulting score is not a number (NaN)");

#[derive(Default)]
struct AddOptions {
    only_new: bool,
    only_present: bool,
    greater: bool,
    less: bool,
    count_changed: bool,
    increment: bool,
}

impl AddOptions {
    /// The options that stand before the first score, and how many words they are.
    fn parse(words: &[&[u8]]) -> Result<(Self, usize), Error> {
        let mut options = Self::default();
        let mut used = 0;
        for word in words {
            let option = [
                ("nx", &mut options.only_new),
                ("xx", &mut options.only_present),
                ("gt", &mut options.greater),
                ("lt", &mut options.less),
                ("ch", &mut options.count_changed),
                ("incr", &mut options.increment),
            ];
            let Some((_, set)) = option.into_iter().find(|(name, _)| is(word, name)) else { break };
            *set = true;
            used += 1;
        }
        if options.only_new && options.only_present {
            return Err(Error::text("ERR XX and NX options at the same time are not compatible"));
        }
        if (options.greater && options.less) || (options.only_new && (options.greater || options.less)) {
            return Err(Error::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        Ok((options, used))
    }

    /// The score that the member gets; `None` leaves it as it is.
    fn score(&self, present: Option<f64>, given: f64) -> Result<Option<f64>, Error> {
        let Some(present) = present else { return Ok((!self.only_present).then_some(given)) };
        let wanted = if self.increment { present + given } else { given };
        if wanted.is_nan() {
            return Err(NOT_A_NUMBER);
        }
        let kept = self.only_new || (self.greater && wanted <= present) || (self.less && wanted >= present);
        Ok((!kept).then_some(wanted))
    }
}

fn zadd(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (options, used) = AddOptions::parse(&arguments[2..])?;
    let pairs = &arguments[2 + used..];
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(error::SYNTAX);
    }
    if options.increment && pairs.len() > 2 {
        return Err(Error::text("ERR INCR option supports a single increment-element pair"));
    }
    if options.increment && !context.state.options.allow_locks_and_counters {
        return Err(dispatch::not_in_embedded("zadd ... incr"));
    }
    // All scores are read before the first takes effect.
    let pairs: Vec<(f64, &[u8])> =
        pairs.chunks_exact(2).map(|pair| Ok((float(pair[0])?, pair[1]))).collect::<Result<_, Error>>()?;
    let (database, reply) = context.split();
    let (mut added, mut changed, mut last) = (0, 0, None);
    database.upsert(arguments[1], |set: &mut SortedSet| {
        for (given, member) in &pairs {
            let present = set.score(member);
            last = options.score(present, *given)?;
            let Some(score) = last else { continue };
            set.insert(member, score);
            added += usize::from(present.is_none());
            changed += usize::from(present.is_some_and(|present| present != score));
        }
        Ok::<_, Error>(())
    })??;
    match (options.increment, last) {
        (true, Some(score)) => reply.double(score),
        (true, None) => reply.null(),
        (false, _) => reply.count(if options.count_changed { added + changed } else { added }),
    }
    Ok(())
}

fn zincrby(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let amount = float(arguments[2])?;
    let (database, reply) = context.split();
    let score = database.upsert(arguments[1], |set: &mut SortedSet| {
        let score = set.score(arguments[3]).unwrap_or(0.0) + amount;
        if score.is_nan() {
            return Err(NOT_A_NUMBER);
        }
        set.insert(arguments[3], score);
        Ok(score)
    })??;
    reply.double(score);
    Ok(())
}

fn zrem(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let removed = database.update(arguments[1], |set: &mut SortedSet| {
        arguments[2..].iter().filter(|member| set.remove(member).is_some()).count()
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn zscore(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    match database.read::<SortedSet>(arguments[1])?.and_then(|set| set.score(arguments[2])) {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
    Ok(())
}

fn zmscore(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let set = database.read::<SortedSet>(arguments[1])?;
    reply.array(arguments.len() - 2);
    for member in &arguments[2..] {
        match set.and_then(|set| set.score(member)) {
            Some(score) => reply.double(score),
            None => reply.null(),
        }
    }
    Ok(())
}

fn zcard(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(database.read::<SortedSet>(arguments[1])?.map_or(0, SortedSet::len));
    Ok(())
}

fn rank(context: &mut Context<'_>, arguments: &[&[u8]], from_highest: bool) -> Result<(), Error> {
    let (database, reply) = context.split();
    let set = database.read::<SortedSet>(arguments[1])?;
    match set.and_then(|set| Some((set.rank(arguments[2])?, set.len()))) {
        Some((rank, length)) => reply.count(if from_highest { length - 1 - rank } else { rank }),
        None => reply.null(),
    }
    Ok(())
}

fn pop(context: &mut Context<'_>, arguments: &[&[u8]], highest: bool) -> Result<(), Error> {
    let count = match &arguments[2..] {
        [] => None,
        [count] => Some(positive(count)?),
        _ => return Err(error::SYNTAX),
    };
    let (database, reply) = context.split();
    let popped = database
        .update(arguments[1], |set: &mut SortedSet| pop_scores(set, highest, count.unwrap_or(1)))?
        .unwrap_or_default();
    // In RESP3 each member comes with its score in an array of its own, but only where a count was given.
    let in_pairs = reply.is_resp3() && count.is_some();
    reply.array(if in_pairs { popped.len() } else { popped.len() * 2 });
    for (member, score) in popped {
        if in_pairs {
            reply.array(2);
        }
        reply.bulk(&member);
        reply.double(score);
    }
    Ok(())
}

fn zrandmember(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let with_scores = match &arguments[2..] {
        [] | [_] => false,
        [_, option] if is(option, "withscores") => true,
        _ => return Err(error::SYNTAX),
    };
    let count = arguments.get(2).map(|count| integer(count)).transpose()?;
    let length = context.database().read::<SortedSet>(arguments[1])?.map_or(0, SortedSet::len);
    let positions = random_positions(context, length, count)?;
    let (database, reply) = context.split();
    let set = database.lend::<SortedSet>(arguments[1]);
    let picked: Vec<(&[u8], f64)> =
        positions.iter().filter_map(|&at| set?.by_position().at(at)).map(|(member, score)| (member, *score)).collect();
    match count {
        None => reply.bulk_or_null(picked.first().map(|(member, _)| *member)),
        Some(_) => sorted_set_ranges::write_members(reply, &picked, with_scores),
    }
    Ok(())
}
