//! DUMP and RESTORE, in a format of our own: only a store of this kind understands it.
//!
//! `SDMP`, version, kind, then length-prefixed parts (32 bits, little endian), then a checksum of 64 bits.

use super::*;
use crate::embedded::arguments::{integer, is};
use crate::embedded::dispatch::{GROWS, READ, WRITE};
use crate::embedded::sorted_set::SortedSet;
use crate::embedded::value::{End, Hash, Kind, List, Set, Value};

pub(super) const ROWS: &[Row] =
    &[row("dump", 2, READ, ONE_KEY, dump), row("restore", -4, WRITE | GROWS, ONE_KEY, restore)];

const MAGIC: &[u8] = b"SDMP\x01";
const BAD_PAYLOAD: Error = Error::text("ERR DUMP payload version or checksum are wrong");

/// FNV-1a: finds accidents and foreign formats, no more is asked.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}

fn serialize(value: &Value) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    match value {
        Value::String(text) => {
            out.push(b's');
            put(&mut out, text);
        }
        Value::List(list) => {
            out.push(b'l');
            list.items().iter().for_each(|item| put(&mut out, item));
        }
        Value::Hash(hash) => {
            out.push(b'h');
            for (field, value) in hash.fields().iter() {
                put(&mut out, field);
                put(&mut out, value);
            }
        }
        Value::Set(set) => {
            out.push(b'e');
            set.iter().for_each(|member| put(&mut out, member));
        }
        Value::SortedSet(set) => {
            out.push(b'z');
            for (member, score) in set.iter() {
                put(&mut out, member);
                put(&mut out, &score.to_le_bytes());
            }
        }
    }
    let sum = checksum(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn parts(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        found.push(part);
        bytes = rest;
    }
    Some(found)
}

fn deserialize(payload: &[u8]) -> Option<Value> {
    let (body, sum) = payload.split_last_chunk::<8>()?;
    if u64::from_le_bytes(*sum) != checksum(body) {
        return None;
    }
    let (kind, rest) = body.strip_prefix(MAGIC)?.split_first()?;
    let parts = parts(rest)?;
    let in_pairs = parts.len().is_multiple_of(2) && !parts.is_empty();
    match kind {
        b's' if parts.len() == 1 => Some(Value::String(parts[0].to_vec())),
        b'l' if !parts.is_empty() => {
            let mut list = List::default();
            parts.iter().for_each(|item| list.push(End::Right, item));
            Some(list.into_value())
        }
        b'h' if in_pairs => {
            let mut hash = Hash::default();
            parts.chunks_exact(2).for_each(|pair| _ = hash.set(pair[0], pair[1]));
            Some(hash.into_value())
        }
        b'e' if !parts.is_empty() => {
            let mut set = Set::default();
            parts.iter().for_each(|member| _ = set.add(member));
            Some(set.into_value())
        }
        b'z' if in_pairs => {
            let mut set = SortedSet::default();
            for pair in parts.chunks_exact(2) {
                let score = f64::from_le_bytes(pair[1].try_into().ok()?);
                if score.is_nan() {
                    return None;
                }
                set.insert(pair[0], score);
            }
            Some(set.into_value())
        }
        _ => None,
    }
}

fn dump(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let payload = database.get(arguments[1]).map(serialize);
    reply.bulk_or_null(payload.as_deref());
    Ok(())
}

fn restore(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (mut replace, mut absolute) = (false, false);
    let mut rest = arguments[4..].iter();
    while let Some(option) = rest.next() {
        if is(option, "replace") {
            replace = true;
        } else if is(option, "absttl") {
            absolute = true;
        } else if is(option, "idletime") || is(option, "freq") {
            // How recently it was used elsewhere says nothing of its use here.
            let value = integer(rest.next().ok_or(error::SYNTAX)?)?;
            if value < 0 || (is(option, "freq") && value > 255) {
                let name = if is(option, "freq") {
                    "FREQ value, must be >= 0 and <= 255"
                } else {
                    "IDLETIME value, must be >= 0"
                };
                return Err(format!("ERR Invalid {name}").into());
            }
        } else {
            return Err(error::SYNTAX);
        }
    }
    let now_ms = context.state.now_ms;
    let (database, reply) = context.split();
    if !replace && database.contains(arguments[1]) {
        return Err(Error::text("BUSYKEY Target key name already exists."));
    }
    let ttl_ms = integer(arguments[2])?;
    let ttl_ms = u64::try_from(ttl_ms).map_err(|_| Error::text("ERR Invalid TTL value, must be >= 0"))?;
    let value = deserialize(arguments[3]).ok_or(BAD_PAYLOAD)?;
    let expires_at_ms = (ttl_ms > 0).then(|| if absolute { ttl_ms } else { ttl_ms.saturating_add(now_ms) });
    if expires_at_ms.is_some_and(|at| at <= now_ms) {
        database.remove(arguments[1]);
    } else {
        database.put(arguments[1], value, expires_at_ms);
    }
    reply.ok();
    Ok(())
}
