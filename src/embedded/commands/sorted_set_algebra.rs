//! Unions, intersections and differences of sorted sets; plain sets take part with score 1.

use super::sets::{card_limit, numbered_keys};
use super::sorted_set_ranges::write_members;
use super::*;
use crate::embedded::arguments::{is, parse_float};
use crate::embedded::database::Database;
use crate::embedded::dispatch::{GROWS, READ, WRITE};
use crate::embedded::sorted_set::SortedSet;
use crate::embedded::value::{Kind, Set, Value};

pub(super) const ROWS: &[Row] = &[
    row("zunion", -3, READ, NO_KEYS, |context, arguments| read(context, arguments, "zunion")),
    row("zinter", -3, READ, NO_KEYS, |context, arguments| read(context, arguments, "zinter")),
    row("zdiff", -3, READ, NO_KEYS, |context, arguments| read(context, arguments, "zdiff")),
    row("zunionstore", -4, WRITE | GROWS, ONE_KEY, |context, arguments| store(context, arguments, "zunionstore")),
    row("zinterstore", -4, WRITE | GROWS, ONE_KEY, |context, arguments| store(context, arguments, "zinterstore")),
    row("zdiffstore", -4, WRITE | GROWS, ONE_KEY, |context, arguments| store(context, arguments, "zdiffstore")),
    row("zintercard", -3, READ, NO_KEYS, zintercard),
];

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Minimum,
    Maximum,
}

impl Aggregate {
    fn of(self, left: f64, right: f64) -> f64 {
        match self {
            // Infinity and its opposite cancel out, as Redis has it.
            Self::Sum if (left + right).is_nan() => 0.0,
            Self::Sum => left + right,
            Self::Minimum => left.min(right),
            Self::Maximum => left.max(right),
        }
    }
}

struct Query<'b, 'a> {
    keys: &'b [&'a [u8]],
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// `numkeys key ... [WEIGHTS ...] [AGGREGATE ...] [WITHSCORES]`
fn query<'b, 'a>(words: &'b [&'a [u8]], command: &str) -> Result<Query<'b, 'a>, Error> {
    let (keys, options) = numbered_keys(words, "").map_err(|error| {
        if error.0.is_empty() {
            format!("ERR at least 1 input key is needed for '{command}' command").into()
        } else {
            error::SYNTAX
        }
    })?;
    let is_difference = command.starts_with("zdiff");
    let mut query = Query { keys, weights: vec![1.0; keys.len()], aggregate: Aggregate::Sum, with_scores: false };
    let mut rest = options;
    while let Some((word, after)) = rest.split_first() {
        if is(word, "weights") && !is_difference && after.len() >= keys.len() {
            let (weights, after) = after.split_at(keys.len());
            let weight = |text: &&[u8]| parse_float(text).ok_or(Error::text("ERR weight value is not a float"));
            query.weights = weights.iter().map(weight).collect::<Result<_, _>>()?;
            rest = after;
        } else if is(word, "aggregate") && !is_difference && !after.is_empty() {
            let found = [("sum", Aggregate::Sum), ("min", Aggregate::Minimum), ("max", Aggregate::Maximum)];
            let found = found.into_iter().find(|(name, _)| is(after[0], name));
            query.aggregate = found.ok_or(error::SYNTAX)?.1;
            rest = &after[1..];
        } else if is(word, "withscores") && !command.ends_with("store") {
            query.with_scores = true;
            rest = after;
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(query)
}

/// A set or a sorted set, whichever stands under a key.
enum Source<'a> {
    Plain(&'a Set),
    Scored(&'a SortedSet),
}

impl<'a> Source<'a> {
    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Plain(set) => set.contains(member).then_some(1.0),
            Self::Scored(set) => set.score(member),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(set) => set.len(),
            Self::Scored(set) => set.len(),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (&'a [u8], f64)> + 'a> {
        match self {
            Self::Plain(set) => Box::new(set.iter().map(|member| (member, 1.0))),
            Self::Scored(set) => Box::new(set.iter()),
        }
    }
}

fn sources<'a>(database: &'a mut Database, keys: &[&[u8]]) -> Result<Vec<Option<Source<'a>>>, Error> {
    for key in keys {
        if !matches!(database.get(key), None | Some(Value::Set(_) | Value::SortedSet(_))) {
            return Err(error::WRONG_TYPE);
        }
    }
    let database = &*database;
    let source = |key: &&[u8]| {
        let scored = database.lend::<SortedSet>(key).map(Source::Scored);
        scored.or_else(|| database.lend::<Set>(key).map(Source::Plain))
    };
    Ok(keys.iter().map(source).collect())
}

fn weighted(score: f64, weight: f64) -> f64 {
    let product = score * weight;
    if product.is_nan() { 0.0 } else { product }
}

fn combine(database: &mut Database, query: &Query<'_, '_>, command: &str) -> Result<SortedSet, Error> {
    let sources = sources(database, query.keys)?;
    let mut result = SortedSet::default();
    if command.starts_with("zunion") {
        for (source, weight) in sources.iter().zip(&query.weights) {
            for (member, score) in source.iter().flat_map(Source::iter) {
                let score = weighted(score, *weight);
                let score = result.score(member).map_or(score, |present| query.aggregate.of(present, score));
                result.insert(member, score);
            }
        }
    } else if command.starts_with("zinter") {
        let Some(sources) = sources.iter().map(Option::as_ref).collect::<Option<Vec<&Source<'_>>>>() else {
            return Ok(result);
        };
        let Some(smallest) = sources.iter().min_by_key(|source| source.len()) else { return Ok(result) };
        for (member, _) in smallest.iter() {
            let scores: Option<Vec<f64>> = sources
                .iter()
                .zip(&query.weights)
                .map(|(source, weight)| source.score(member).map(|score| weighted(score, *weight)))
                .collect();
            if let Some(score) = scores.and_then(|scores| scores.into_iter().reduce(|a, b| query.aggregate.of(a, b))) {
                result.insert(member, score);
            }
        }
    } else if let Some((Some(first), others)) = sources.split_first() {
        for (member, score) in first.iter() {
            if !others.iter().flatten().any(|other| other.score(member).is_some()) {
                result.insert(member, score);
            }
        }
    }
    Ok(result)
}

fn read(context: &mut Context<'_>, arguments: &[&[u8]], command: &str) -> Result<(), Error> {
    let query = query(&arguments[1..], command)?;
    let (database, reply) = context.split();
    let result = combine(database, &query, command)?;
    let members: Vec<(&[u8], f64)> = result.iter().collect();
    write_members(reply, &members, query.with_scores);
    Ok(())
}

fn store(context: &mut Context<'_>, arguments: &[&[u8]], command: &str) -> Result<(), Error> {
    let query = query(&arguments[2..], command)?;
    let (database, reply) = context.split();
    let result = combine(database, &query, command)?;
    reply.count(result.len());
    database.remove(arguments[1]);
    if !result.is_empty() {
        database.put(arguments[1], result.into_value(), None);
    }
    Ok(())
}

fn zintercard(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (keys, options) = numbered_keys(&arguments[1..], "ERR numkeys should be greater than 0")?;
    let limit = card_limit(options)?;
    let (database, reply) = context.split();
    let sources = sources(database, keys)?;
    let common = match sources.iter().map(Option::as_ref).collect::<Option<Vec<_>>>() {
        None => 0,
        Some(sources) => {
            let smallest = sources.iter().min_by_key(|source| source.len()).map(|source| source.iter());
            let everywhere = |member: &[u8]| sources.iter().all(|source| source.score(member).is_some());
            smallest.into_iter().flatten().filter(|(member, _)| everywhere(member)).take(limit).count()
        }
    };
    reply.count(common);
    Ok(())
}
