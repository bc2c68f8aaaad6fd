//! SCAN, HSCAN, SSCAN, ZSCAN: walks by position, which `IndexedMap::walk` makes safe against changes.

use super::*;
use crate::embedded::arguments::{integer, is};
use crate::embedded::dispatch::READ;
use crate::embedded::glob;
use crate::embedded::reply::Reply;
use crate::embedded::sorted_set::SortedSet;
use crate::embedded::value::{Hash, Set};

pub(super) const ROWS: &[Row] = &[
    row("scan", -2, READ, NO_KEYS, scan),
    row("hscan", -3, READ, ONE_KEY, hscan),
    row("sscan", -3, READ, ONE_KEY, sscan),
    row("zscan", -3, READ, ONE_KEY, zscan),
];

struct Options<'a> {
    cursor: u64,
    pattern: Option<&'a [u8]>,
    count: usize,
    type_name: Option<&'a [u8]>,
}

/// More than this a step does not look at, or one SCAN would hold the store for long.
const COUNT_MAX: usize = 100_000;

fn options<'a>(cursor: &[u8], options: &[&'a [u8]], of_keys: bool) -> Result<Options<'a>, Error> {
    let cursor = std::str::from_utf8(cursor).ok().and_then(|text| text.parse().ok()).ok_or(error::INVALID_CURSOR)?;
    let mut parsed = Options { cursor, pattern: None, count: 10, type_name: None };
    for pair in options.chunks(2) {
        let &[option, value] = pair else { return Err(error::SYNTAX) };
        if is(option, "match") {
            parsed.pattern = Some(value);
        } else if is(option, "count") {
            let count = integer(value)?;
            parsed.count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(error::SYNTAX)?.min(COUNT_MAX);
        } else if is(option, "type") && of_keys {
            parsed.type_name = Some(value);
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(parsed)
}

impl Options<'_> {
    fn takes(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

fn answer(reply: &mut Reply<'_>, cursor: u64, items: &[&[u8]]) {
    reply.array(2);
    reply.bulk(cursor.to_string().as_bytes());
    reply.bulks(items.iter().copied());
}

fn scan(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let options = options(arguments[1], &arguments[2..], true)?;
    let (database, reply) = context.split();
    let database = &*database;
    let (range, next) = database.entries().walk(options.cursor, options.count);
    let found: Vec<&[u8]> = range
        .filter_map(|at| database.entries().at(at))
        .filter(|(key, entry)| !database.is_expired(entry) && options.takes(key))
        .filter(|(_, entry)| options.type_name.is_none_or(|name| is(name, entry.value.type_name())))
        .map(|(key, _)| key)
        .collect();
    answer(reply, next, &found);
    Ok(())
}

/// A small collection comes whole in one step, as the compact encodings of Redis do.
const WHOLE_ENTRIES_MAX: usize = 128;

fn step(length: usize, options: &Options<'_>) -> usize {
    if length <= WHOLE_ENTRIES_MAX { length } else { options.count }
}

fn hscan(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let options = options(arguments[2], &arguments[3..], false)?;
    let (database, reply) = context.split();
    let Some(hash) = database.read::<Hash>(arguments[1])? else {
        answer(reply, 0, &[]);
        return Ok(());
    };
    let (range, next) = hash.fields().walk(options.cursor, step(hash.fields().len(), &options));
    let found: Vec<&[u8]> = range
        .filter_map(|at| hash.fields().at(at))
        .filter(|(field, _)| options.takes(field))
        .flat_map(|(field, value)| [field, value.as_slice()])
        .collect();
    answer(reply, next, &found);
    Ok(())
}

fn sscan(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let options = options(arguments[2], &arguments[3..], false)?;
    let (database, reply) = context.split();
    let Some(set) = database.read::<Set>(arguments[1])? else {
        answer(reply, 0, &[]);
        return Ok(());
    };
    let (range, next) = set.members().walk(options.cursor, step(set.len(), &options));
    let found: Vec<&[u8]> = range
        .filter_map(|at| set.members().at(at))
        .map(|(member, ())| member)
        .filter(|one| options.takes(one))
        .collect();
    answer(reply, next, &found);
    Ok(())
}

fn zscan(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let options = options(arguments[2], &arguments[3..], false)?;
    let (database, reply) = context.split();
    let Some(set) = database.read::<SortedSet>(arguments[1])? else {
        answer(reply, 0, &[]);
        return Ok(());
    };
    let (range, next) = set.by_position().walk(options.cursor, step(set.len(), &options));
    let found: Vec<(&[u8], f64)> = range
        .filter_map(|at| set.by_position().at(at))
        .filter(|(member, _)| options.takes(member))
        .map(|(member, score)| (member, *score))
        .collect();
    let scores: Vec<String> = found.iter().map(|(_, score)| score_text(*score)).collect();
    let items: Vec<&[u8]> =
        found.iter().zip(&scores).flat_map(|((member, _), score)| [*member, score.as_bytes()]).collect();
    answer(reply, next, &items);
    Ok(())
}

/// ZSCAN sends scores as strings in RESP3 too.
fn score_text(score: f64) -> String {
    let mut out = Vec::new();
    crate::resp::write::double(&mut out, score, crate::resp::Protocol::Resp3);
    String::from_utf8_lossy(&out[1..out.len() - 2]).into_owned()
}
