//! GET, SET and the other whole-value and byte-range commands of strings. Counters and bits have files of their own.

use super::*;
use crate::embedded::arguments::{integer, is, range};
use crate::embedded::dispatch::{self, FAST, GROWS, LOCK, READ, WRITE};
use crate::embedded::value::Value;
use crate::limits;

pub(super) const ROWS: &[Row] = &[
    row("get", 2, READ | FAST, ONE_KEY, get),
    row("set", -3, WRITE | GROWS, ONE_KEY, set),
    row("setnx", 3, WRITE | GROWS | LOCK | FAST, ONE_KEY, setnx),
    row("setex", 4, WRITE | GROWS, ONE_KEY, setex),
    row("psetex", 4, WRITE | GROWS, ONE_KEY, psetex),
    row("getset", 3, WRITE | GROWS | LOCK | FAST, ONE_KEY, getset),
    row("getdel", 2, WRITE | LOCK | FAST, ONE_KEY, getdel),
    row("getex", -2, WRITE | FAST, ONE_KEY, getex),
    row("mget", -2, READ | FAST, ALL_KEYS, mget),
    row("mset", -3, WRITE | GROWS, (1, -1, 2), mset),
    row("msetnx", -3, WRITE | GROWS | LOCK, (1, -1, 2), msetnx),
    row("append", 3, WRITE | GROWS | LOCK | FAST, ONE_KEY, append),
    row("strlen", 2, READ | FAST, ONE_KEY, strlen),
    row("getrange", 4, READ, ONE_KEY, getrange),
    row("substr", 4, READ, ONE_KEY, getrange),
    row("setrange", 4, WRITE | GROWS, ONE_KEY, setrange),
    row("lcs", -3, READ, TWO_KEYS, lcs),
];

fn get(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let value = database.read::<Vec<u8>>(arguments[1])?;
    reply.bulk_or_null(value.map(Vec::as_slice));
    Ok(())
}

/// What SET and GETEX may say about the expiry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Unsaid,
    Keep,
    Persist,
    At(u64),
}

/// Reads `EX 10`, `PX`, `EXAT`, `PXAT`: the moment in milliseconds since 1970.
fn expiry_at(command: &str, unit: &[u8], amount: &[u8], now_ms: u64) -> Result<u64, Error> {
    let invalid = || Error::from(format!("ERR invalid expire time in '{command}' command"));
    let amount = integer(amount)?;
    let in_ms =
        if unit.len() >= 2 && unit[0].eq_ignore_ascii_case(&b'e') { amount.checked_mul(1000) } else { Some(amount) };
    let in_ms = in_ms.filter(|&value| value > 0).ok_or_else(invalid)?;
    let at = if unit.len() == 2 { in_ms.checked_add(now_ms as i64).ok_or_else(invalid)? } else { in_ms };
    Ok(at as u64)
}

struct SetOptions {
    only_if_absent: bool,
    only_if_present: bool,
    get: bool,
    expiry: Expiry,
}

fn set_options(options: &[&[u8]], now_ms: u64) -> Result<SetOptions, Error> {
    let mut parsed = SetOptions { only_if_absent: false, only_if_present: false, get: false, expiry: Expiry::Unsaid };
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if is(option, "nx") && !parsed.only_if_present {
            parsed.only_if_absent = true;
        } else if is(option, "xx") && !parsed.only_if_absent {
            parsed.only_if_present = true;
        } else if is(option, "get") {
            parsed.get = true;
        } else if is(option, "keepttl") && matches!(parsed.expiry, Expiry::Unsaid | Expiry::Keep) {
            parsed.expiry = Expiry::Keep;
        } else if is_expiry_unit(option) && parsed.expiry == Expiry::Unsaid {
            let amount = rest.next().ok_or(error::SYNTAX)?;
            parsed.expiry = Expiry::At(expiry_at("set", option, amount, now_ms)?);
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(parsed)
}

fn is_expiry_unit(option: &[u8]) -> bool {
    ["ex", "px", "exat", "pxat"].iter().any(|unit| is(option, unit))
}

fn set(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (key, value) = (arguments[1], arguments[2]);
    if arguments.len() == 3 {
        context.database().put(key, Value::String(value.to_vec()), None);
        context.reply.ok();
        return Ok(());
    }
    let options = set_options(&arguments[3..], context.state.now_ms)?;
    if (options.only_if_absent || options.get) && !context.state.options.allow_locks_and_counters {
        return Err(dispatch::not_in_embedded(if options.get { "set ... get" } else { "set ... nx" }));
    }
    let (database, reply) = context.split();
    let start = reply.out.len();
    if options.get {
        let old = database.read::<Vec<u8>>(key)?;
        reply.bulk_or_null(old.map(Vec::as_slice));
    }
    let present = database.contains(key);
    if (options.only_if_absent && present) || (options.only_if_present && !present) {
        if !options.get {
            reply.null();
        }
        return Ok(());
    }
    let expires_at_ms = match options.expiry {
        Expiry::At(at) => Some(at),
        Expiry::Keep => database.peek(key).and_then(|entry| entry.expires_at_ms),
        Expiry::Unsaid | Expiry::Persist => None,
    };
    database.put(key, Value::String(value.to_vec()), expires_at_ms);
    if reply.out.len() == start {
        reply.ok();
    }
    Ok(())
}

fn setnx(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let absent = !database.contains(arguments[1]);
    if absent {
        database.put(arguments[1], Value::String(arguments[2].to_vec()), None);
    }
    reply.flag(absent);
    Ok(())
}

fn setex(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    set_expiring(context, arguments, "setex", b"ex")
}

fn psetex(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    set_expiring(context, arguments, "psetex", b"px")
}

fn set_expiring(context: &mut Context<'_>, arguments: &[&[u8]], name: &str, unit: &[u8]) -> Result<(), Error> {
    let at = expiry_at(name, unit, arguments[2], context.state.now_ms)?;
    context.database().put(arguments[1], Value::String(arguments[3].to_vec()), Some(at));
    context.reply.ok();
    Ok(())
}

fn getset(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    get(context, arguments)?;
    context.database().put(arguments[1], Value::String(arguments[2].to_vec()), None);
    Ok(())
}

fn getdel(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    get(context, arguments)?;
    context.database().remove(arguments[1]);
    Ok(())
}

fn getex(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let expiry = match &arguments[2..] {
        [] => Expiry::Unsaid,
        [option] if is(option, "persist") => Expiry::Persist,
        [unit, amount] if is_expiry_unit(unit) => Expiry::At(expiry_at("getex", unit, amount, context.state.now_ms)?),
        _ => return Err(error::SYNTAX),
    };
    get(context, arguments)?;
    match expiry {
        Expiry::At(at) => context.database().set_expiry(arguments[1], Some(at)),
        Expiry::Persist => context.database().set_expiry(arguments[1], None),
        Expiry::Unsaid | Expiry::Keep => false,
    };
    Ok(())
}

fn mget(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.array(arguments.len() - 1);
    for key in &arguments[1..] {
        match database.get(key) {
            Some(Value::String(text)) => reply.bulk(text),
            _ => reply.null(),
        }
    }
    Ok(())
}

/// A key and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

fn pairs<'a>(arguments: &[&'a [u8]], command: &str) -> Result<Vec<Pair<'a>>, Error> {
    if arguments.len().is_multiple_of(2) {
        return Err(error::wrong_arguments(command));
    }
    Ok(arguments[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn mset(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    for (key, value) in pairs(arguments, "mset")? {
        context.database().put(key, Value::String(value.to_vec()), None);
    }
    context.reply.ok();
    Ok(())
}

fn msetnx(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let pairs = pairs(arguments, "msetnx")?;
    let (database, reply) = context.split();
    let all_absent = pairs.iter().all(|(key, _)| !database.contains(key));
    if all_absent {
        for (key, value) in pairs {
            database.put(key, Value::String(value.to_vec()), None);
        }
    }
    reply.flag(all_absent);
    Ok(())
}

fn append(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let length = database.upsert(arguments[1], |text: &mut Vec<u8>| {
        if text.len() + arguments[2].len() > limits::BULK_BYTES_MAX {
            return Err(error::STRING_TOO_LONG);
        }
        text.extend_from_slice(arguments[2]);
        Ok(text.len())
    })??;
    reply.count(length);
    Ok(())
}

fn strlen(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    reply.count(database.read::<Vec<u8>>(arguments[1])?.map_or(0, Vec::len));
    Ok(())
}

fn getrange(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (start, end) = (integer(arguments[2])?, integer(arguments[3])?);
    let (database, reply) = context.split();
    let text = database.read::<Vec<u8>>(arguments[1])?.map_or(&[][..], Vec::as_slice);
    // Redis clamps a start before the first byte to it, and here also an end that is negative past the start.
    let end = if end < 0 { end.saturating_add(text.len() as i64).max(0) } else { end };
    let both_negative_and_crossed =
        integer(arguments[2])? < 0 && integer(arguments[3])? < 0 && integer(arguments[2])? > integer(arguments[3])?;
    if both_negative_and_crossed || text.is_empty() {
        reply.bulk(b"");
        return Ok(());
    }
    reply.bulk(&text[range(start, end, text.len())]);
    Ok(())
}

/// Grows a string to `length` bytes, zeros at its end, if the memory allows it.
pub(super) fn grow(context: &mut Context<'_>, key: &[u8], length: usize) -> Result<(), Error> {
    if length > limits::BULK_BYTES_MAX {
        return Err(error::STRING_TOO_LONG);
    }
    let present = context.database().read::<Vec<u8>>(key)?.map_or(0, Vec::len);
    if length > present {
        context.state.make_room(length - present)?;
        context.database().upsert(key, |text: &mut Vec<u8>| text.resize(length.max(text.len()), 0))?;
    }
    Ok(())
}

fn setrange(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (key, patch) = (arguments[1], arguments[3]);
    let offset = integer(arguments[2])?;
    let offset = usize::try_from(offset).map_err(|_| Error::text("ERR offset is out of range"))?;
    if patch.is_empty() {
        return strlen(context, arguments);
    }
    grow(context, key, offset.saturating_add(patch.len()))?;
    let (database, reply) = context.split();
    let length = database.upsert(key, |text: &mut Vec<u8>| {
        text[offset..offset + patch.len()].copy_from_slice(patch);
        text.len()
    })?;
    reply.count(length);
    Ok(())
}

/// Cells of the table that LCS may fill: 64 Mi of 4 bytes would be 256 MiB, so far fewer.
const LCS_CELLS_MAX: usize = 4 * 1024 * 1024;

struct LcsOptions {
    length_only: bool,
    positions: bool,
    with_lengths: bool,
    shortest: usize,
}

fn lcs_options(options: &[&[u8]]) -> Result<LcsOptions, Error> {
    let mut parsed = LcsOptions { length_only: false, positions: false, with_lengths: false, shortest: 0 };
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if is(option, "len") {
            parsed.length_only = true;
        } else if is(option, "idx") {
            parsed.positions = true;
        } else if is(option, "withmatchlen") {
            parsed.with_lengths = true;
        } else if is(option, "minmatchlen") {
            parsed.shortest = integer(rest.next().ok_or(error::SYNTAX)?)?.max(0) as usize;
        } else {
            return Err(error::SYNTAX);
        }
    }
    if parsed.length_only && parsed.positions {
        return Err(Error::text("ERR If you want both the length and indexes, please just use IDX."));
    }
    Ok(parsed)
}

fn lcs(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let options = lcs_options(&arguments[3..])?;
    let (database, reply) = context.split();
    let not_a_string = |_| Error::text("ERR The specified keys must contain string values");
    let left = database.read::<Vec<u8>>(arguments[1]).map_err(not_a_string)?.cloned().unwrap_or_default();
    let right = database.read::<Vec<u8>>(arguments[2]).map_err(not_a_string)?.cloned().unwrap_or_default();
    let width = right.len() + 1;
    if (left.len() + 1).saturating_mul(width) > LCS_CELLS_MAX {
        return Err(Error::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"));
    }
    let mut lengths = vec![0u32; (left.len() + 1) * width];
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            lengths[i * width + j] = if left[i - 1] == right[j - 1] {
                lengths[(i - 1) * width + j - 1] + 1
            } else {
                lengths[(i - 1) * width + j].max(lengths[i * width + j - 1])
            };
        }
    }
    let total = lengths[left.len() * width + right.len()] as usize;
    if options.length_only {
        reply.count(total);
        return Ok(());
    }
    let (common, matches) = lcs_trace(&lengths, &left, &right);
    if !options.positions {
        reply.bulk(&common);
        return Ok(());
    }
    let shown: Vec<_> = matches.iter().filter(|(_, _, length)| *length >= options.shortest).collect();
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(shown.len());
    for (left, right, length) in shown {
        reply.array(if options.with_lengths { 3 } else { 2 });
        for start in [left, right] {
            reply.array(2);
            reply.count(*start);
            reply.count(start + length - 1);
        }
        if options.with_lengths {
            reply.count(*length);
        }
    }
    reply.bulk(b"len");
    reply.count(total);
    Ok(())
}

/// Walks the table back: the common text, and each run as (start on the left, start on the right, length), last first.
fn lcs_trace(lengths: &[u32], left: &[u8], right: &[u8]) -> (Vec<u8>, Vec<(usize, usize, usize)>) {
    let width = right.len() + 1;
    let (mut i, mut j) = (left.len(), right.len());
    let mut common = Vec::new();
    let mut matches: Vec<(usize, usize, usize)> = Vec::new();
    while i > 0 && j > 0 {
        if left[i - 1] == right[j - 1] {
            (i, j) = (i - 1, j - 1);
            common.push(left[i]);
            match matches.last_mut() {
                Some(run) if run.0 == i + 1 && run.1 == j + 1 => *run = (i, j, run.2 + 1),
                _ => matches.push((i, j, 1)),
            }
        } else if lengths[(i - 1) * width + j] > lengths[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    common.reverse();
    (common, matches)
}
