//! INCR and its like, on strings. HINCRBY stands with the hashes.

use super::*;
use crate::embedded::arguments::{float, integer, parse_float, parse_integer};
use crate::embedded::dispatch::{FAST, GROWS, LOCK, WRITE};

const COUNTER: u16 = WRITE | GROWS | LOCK | FAST;

pub(super) const ROWS: &[Row] = &[
    row("incr", 2, COUNTER, ONE_KEY, |context, arguments| add(context, arguments[1], 1)),
    row("decr", 2, COUNTER, ONE_KEY, |context, arguments| add(context, arguments[1], -1)),
    row("incrby", 3, COUNTER, ONE_KEY, |context, arguments| add(context, arguments[1], integer(arguments[2])?)),
    row("decrby", 3, COUNTER, ONE_KEY, |context, arguments| {
        let amount = integer(arguments[2])?.checked_neg().ok_or(Error::text("ERR decrement would overflow"))?;
        add(context, arguments[1], amount)
    }),
    row("incrbyfloat", 3, COUNTER, ONE_KEY, incrbyfloat),
];

fn add(context: &mut Context<'_>, key: &[u8], amount: i64) -> Result<(), Error> {
    let (database, reply) = context.split();
    let absent = !database.contains(key);
    let sum = database.upsert(key, |text: &mut Vec<u8>| {
        let present = if absent { 0 } else { integer(text)? };
        let sum = present.checked_add(amount).ok_or(error::OVERFLOW)?;
        *text = sum.to_string().into_bytes();
        Ok::<_, Error>(sum)
    });
    reply.integer(sum??);
    Ok(())
}

fn incrbyfloat(context: &mut Context<'_>, arguments: &[&[u8]]) -> Result<(), Error> {
    let (database, reply) = context.split();
    if !float(arguments[2])?.is_finite() {
        return Err(error::NOT_FINITE);
    }
    let absent = !database.contains(arguments[1]);
    let sum = database.upsert(arguments[1], |text: &mut Vec<u8>| {
        let sum = add_floats(if absent { b"0" } else { text }, arguments[2])?;
        text.clone_from(&sum);
        Ok::<_, Error>(sum)
    });
    reply.bulk(&sum??);
    Ok(())
}

/// The sum as a text without an exponent.
///
/// Redis adds in 80-bit floats, in which 0.1 + 0.2 prints as 0.3. Plain decimals are added exactly here; what does not
/// fit (exponents, very long numbers) is added as a double.
pub(super) fn add_floats(left: &[u8], right: &[u8]) -> Result<Vec<u8>, Error> {
    if let (Some(left), Some(right)) = (decimal(left), decimal(right))
        && let Some(sum) = left.checked_add(right)
    {
        return Ok(decimal_text(sum).into_bytes());
    }
    let sum = parse_float(left).ok_or(error::NOT_A_FLOAT)? + float(right)?;
    if !sum.is_finite() {
        return Err(error::NOT_FINITE);
    }
    Ok(format!("{sum}").into_bytes())
}

/// Redis prints 17 decimals.
const DECIMALS: usize = 17;
const ONE: i128 = 10i128.pow(DECIMALS as u32);

/// A plain decimal as a multiple of 10^-17.
fn decimal(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 18 || fraction.len() > DECIMALS || !all_digits(whole) || !all_digits(fraction)
    {
        return None;
    }
    let value = whole.parse::<i128>().ok()? * ONE + format!("{fraction:0<DECIMALS$}").parse::<i128>().ok()?;
    Some(if digits.len() < text.len() { -value } else { value })
}

fn decimal_text(value: i128) -> String {
    let (whole, fraction) = (value.unsigned_abs() / ONE.unsigned_abs(), value.unsigned_abs() % ONE.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction:0DECIMALS$}").trim_end_matches('0').to_owned()
}

/// Adds to an integer that stands in a hash field.
pub(super) fn add_integers(present: Option<&[u8]>, amount: i64) -> Result<i64, Error> {
    let present = match present {
        None => 0,
        Some(text) => parse_integer(text).ok_or(Error::text("ERR hash value is not an integer"))?,
    };
    present.checked_add(amount).ok_or(error::OVERFLOW)
}
