//! EXPIRE and its like: when a key goes.

use super::*;
use crate::embedded::arguments::{integer, is};
use crate::embedded::dispatch::{FAST, READ, WRITE};

pub(super) const ROWS: &[Row] = &[
    row("expire", -3, WRITE | FAST, ONE_KEY, |context, arguments| expire(context, arguments, "expire", 1000, true)),
    row("pexpire", -3, WRITE | FAST, ONE_KEY, |context, arguments| expire(context, arguments, "pexpire", 1, true)),
    row("expireat", -3, WRITE | FAST, ONE_KEY, |context, arguments| {
        expire(context, arguments, "expireat", 1000, false)
    }),
    row("pexpireat", -3, WRITE | FAST, ONE_KEY, |context, arguments| expire(context, arguments, "pexpireat", 1, false)),
    row("ttl", 2, READ | FAST, ONE_KEY, |context, arguments| {
        time_left(context, arguments, |at, now| at.saturating_sub(now).saturating_add(500) / 1000)
    }),
    row("pttl", 2, READ | FAST, ONE_KEY, |context, arguments| {
        time_left(context, arguments, |at, now| at.saturating_sub(now))
    }),
    row("expiretime", 2, READ | FAST, ONE_KEY, |context, arguments| {
        time_left(context, arguments, |at, _| at.saturating_add(500) / 1000)
    }),
    row("pexpiretime", 2, READ | FAST, ONE_KEY, |context, arguments| time_left(context, arguments, |at, _| at)),
    row("persist", 2, WRITE | FAST, ONE_KEY, persist),
];

#[derive(Default)]
struct Conditions {
    none_yet: bool,
    some_already: bool,
    later: bool,
    sooner: bool,
}

fn conditions(options: &[&[u8]]) -> Result<Conditions, Error> {
    let mut parsed = Conditions::default();
    for option in options {
        if is(option, "nx") {
            parsed.none_yet = true;
        } else if is(option, "xx") {
            parsed.some_already = true;
        } else if is(option, "gt") {
            parsed.later = true;
        } else if is(option, "lt") {
            parsed.sooner = true;
        } else {
            return Err(format!("ERR Unsupported option {}", String::from_utf8_lossy(option)).into());
        }
    }
    if parsed.none_yet && (parsed.some_already || parsed.later || parsed.sooner) {
        return Err(Error::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if parsed.later && parsed.sooner {
        return Err(Error::text("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(parsed)
}

impl Conditions {
    /// A key without an expiry counts as one that expires at the end of time.
    fn allow(&self, present: Option<u64>, wanted: i64) -> bool {
        let end = present.map_or(i64::MAX, |at| at as i64);
        !(self.none_yet && present.is_some()
            || self.some_already && present.is_none()
            || self.later && (present.is_none() || wanted <= end)
            || self.sooner && wanted >= end)
    }
}

fn expire(
    context: &mut Context<'_>,
    arguments: &[&[u8]],
    name: &str,
    unit_ms: i64,
    relative: bool,
) -> Result<(), Error> {
    let invalid = || Error::from(format!("ERR invalid expire time in '{name}' command"));
    let amount_ms = integer(arguments[2])?.checked_mul(unit_ms).ok_or_else(invalid)?;
    let conditions = conditions(&arguments[3..])?;
    let now_ms = context.state.now_ms as i64;
    let at = if relative { amount_ms.checked_add(now_ms).ok_or_else(invalid)? } else { amount_ms };
    let (database, reply) = context.split();
    let allowed = database.peek(arguments[1]).is_some_and(|entry| conditions.allow(entry.expires_at_ms, at));
    if allowed && at <= now_ms {
        database.remove(arguments[1]);
    } else if allowed {
        database.set_expiry(arguments[1], Some(at as u64));
    }
    reply.flag(allowed);
    Ok(())
}

/// -2 without the key, -1 without an expiry, else what `shown` makes of it and the present moment.
fn time_left(context: &mut Context<'_>, arguments: &[&[u8]], shown: fn(u64, u64) -> u64) -> Result<(), Error> {
    let now_ms = context.state.now_ms;
    let (database, reply) = context.split();
    reply.integer(match database.peek(arguments[1]).map(|entry| entry.expires_at_ms) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => shown(at, now_ms) as i64,
    });
    Ok(())
}

fn persist(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    let expires = database.peek(arguments[1]).is_some_and(|entry| entry.expires_at_ms.is_some());
    if expires {
        database.set_expiry(arguments[1], None);
    }
    reply.flag(expires);
    Ok(())
}
