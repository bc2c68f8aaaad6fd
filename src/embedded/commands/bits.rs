//! Bits of strings: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP. BITFIELD is not served.

use super::strings::grow;
use super::*;
use crate::embedded::arguments::{integer, is, range};
use crate::embedded::dispatch::{FAST, GROWS, READ, WRITE};
use crate::embedded::value::Value;
use crate::limits;

pub(super) const ROWS: &[Row] = &[
    row("setbit", 4, WRITE | GROWS, ONE_KEY, setbit),
    row("getbit", 3, READ | FAST, ONE_KEY, getbit),
    row("bitcount", -2, READ, ONE_KEY, bitcount),
    row("bitpos", -3, READ, ONE_KEY, bitpos),
    row("bitop", -4, WRITE | GROWS, (2, -1, 1), bitop),
];

fn offset(argument: &[u8]) -> Result<usize, Error> {
    let invalid = Error::text("ERR bit offset is not an integer or out of range");
    let at = integer(argument).ok().and_then(|at| usize::try_from(at).ok());
    at.filter(|&at| at < limits::BULK_BYTES_MAX * 8).ok_or(invalid)
}

fn setbit(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let at = offset(arguments[2])?;
    let bit = match arguments[3] {
        b"0" => 0,
        b"1" => 1,
        _ => return Err(Error::text("ERR bit is not an integer or out of range")),
    };
    grow(context, arguments[1], at / 8 + 1)?;
    let (database, reply) = context.split();
    let mask = 0x80u8 >> (at % 8);
    let old = database.upsert(arguments[1], |text: &mut Vec<u8>| {
        let old = text[at / 8] & mask != 0;
        text[at / 8] = if bit == 1 { text[at / 8] | mask } else { text[at / 8] & !mask };
        old
    })?;
    reply.flag(old);
    Ok(())
}

fn is_set(text: &[u8], at: usize) -> bool {
    text.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
}

fn getbit(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let at = offset(arguments[2])?;
    let (database, reply) = context.split();
    reply.flag(database.read::<Vec<u8>>(arguments[1])?.is_some_and(|text| is_set(text, at)));
    Ok(())
}

/// `start end [BYTE|BIT]` as positions of bits.
fn bit_range(options: &[&[u8]], length: usize) -> Result<std::ops::Range<usize>, Error> {
    let in_bits = match options.get(2) {
        None => false,
        Some(unit) if is(unit, "byte") => false,
        Some(unit) if is(unit, "bit") => true,
        Some(_) => return Err(error::SYNTAX),
    };
    let start = options.first().map_or(Ok(0), |start| integer(start))?;
    let end = options.get(1).map_or(Ok(-1), |end| integer(end))?;
    if in_bits {
        return Ok(range(start, end, length * 8));
    }
    let bytes = range(start, end, length);
    Ok(bytes.start * 8..bytes.end * 8)
}

/// How many bits are set; whole bytes in the middle are counted as bytes.
fn count_bits(text: &[u8], bits: std::ops::Range<usize>) -> usize {
    let (first, last) = (bits.start.next_multiple_of(8).min(bits.end), bits.end / 8 * 8);
    if first >= last {
        return bits.filter(|&at| is_set(text, at)).count();
    }
    let whole: usize = text[first / 8..last / 8].iter().map(|byte| byte.count_ones() as usize).sum();
    let edges = (bits.start..first).chain(last..bits.end).filter(|&at| is_set(text, at)).count();
    whole + edges
}

fn bitcount(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    if arguments.len() == 3 || arguments.len() > 5 {
        return Err(error::SYNTAX);
    }
    let (database, reply) = context.split();
    let text = database.read::<Vec<u8>>(arguments[1])?.map_or(&[][..], Vec::as_slice);
    let bits = bit_range(&arguments[2..], text.len())?;
    reply.count(count_bits(text, bits));
    Ok(())
}

fn bitpos(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let wanted = match integer(arguments[2])? {
        0 => false,
        1 => true,
        _ => return Err(Error::text("ERR The bit argument must be 1 or 0.")),
    };
    if arguments.len() > 6 {
        return Err(error::SYNTAX);
    }
    let open_ended = arguments.len() < 5;
    let (database, reply) = context.split();
    let Some(text) = database.read::<Vec<u8>>(arguments[1])? else {
        reply.integer(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let bits = bit_range(&arguments[3..], text.len())?;
    let end = bits.end;
    let empty = bits.is_empty();
    // Bytes without the wanted bit are passed whole.
    let boring = if wanted { 0x00 } else { 0xff };
    let mut at = bits.start;
    while at < end && is_set(text, at) != wanted {
        at = if at.is_multiple_of(8) && text[at / 8] == boring { (at + 8).min(end) } else { at + 1 };
    }
    reply.integer(if at < end || (!wanted && open_ended && !empty) { at as i64 } else { -1 });
    Ok(())
}

fn bitop(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (operation, to, sources) = (arguments[1], arguments[2], &arguments[3..]);
    let combine: fn(u8, u8) -> u8 = if is(operation, "and") {
        |left, right| left & right
    } else if is(operation, "or") {
        |left, right| left | right
    } else if is(operation, "xor") {
        |left, right| left ^ right
    } else if is(operation, "not") {
        if sources.len() != 1 {
            return Err(Error::text("ERR BITOP NOT must be called with a single source key."));
        }
        |left, _| !left
    } else {
        return Err(error::SYNTAX);
    };
    let (database, _) = context.split();
    let mut texts = Vec::new();
    for key in sources {
        texts.push(database.read::<Vec<u8>>(key)?.cloned().unwrap_or_default());
    }
    let length = texts.iter().map(Vec::len).max().unwrap_or(0);
    texts.iter_mut().for_each(|text| text.resize(length, 0));
    let mut texts = texts.into_iter();
    let mut result = texts.next().unwrap_or_default();
    if sources.len() == 1 && is(operation, "not") {
        result.iter_mut().for_each(|byte| *byte = combine(*byte, 0));
    }
    for other in texts {
        result.iter_mut().zip(other).for_each(|(byte, other)| *byte = combine(*byte, other));
    }
    if length > 0 {
        context.state.make_room(length)?;
        context.database().put(to, Value::String(result), None);
    } else {
        context.database().remove(to);
    }
    context.reply.count(length);
    Ok(())
}
