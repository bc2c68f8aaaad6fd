//! Whether a request blocks its connection, for how long, and the same request with less time left.

use std::time::Duration;

use super::keys::{is_word, position};
use super::{Handling, Spec, Timeout};
use crate::resp::{arguments, write};

/// Whether this request may wait on purpose. XREAD and XREADGROUP do so only with BLOCK; inside MULTI none does, which
/// the caller knows.
pub fn is_blocking(spec: &Spec, frame: &[u8]) -> bool {
    match spec.timeout {
        Timeout::BlockOption => timeout_position(spec, frame).is_some(),
        Timeout::Seconds(_) | Timeout::Milliseconds(_) => true,
        Timeout::None => spec.handling == Handling::Blocking,
    }
}

/// How long it may wait; None means for ever, or that the server will refuse what stands there.
pub fn blocking_timeout(spec: &Spec, frame: &[u8]) -> Option<Duration> {
    let argument = arguments(frame).nth(timeout_position(spec, frame)?)?;
    let text = std::str::from_utf8(argument).ok()?;
    let time = match spec.timeout {
        Timeout::Seconds(_) => Duration::try_from_secs_f64(text.parse().ok()?).ok()?,
        _ => Duration::from_millis(text.parse().ok()?),
    };
    (!time.is_zero()).then_some(time)
}

/// Where the time stands among the arguments; the name is 0.
pub fn timeout_position(spec: &Spec, frame: &[u8]) -> Option<usize> {
    let mut all = arguments(frame);
    match spec.timeout {
        Timeout::None => None,
        Timeout::Seconds(at) | Timeout::Milliseconds(at) => {
            position(at.into(), all.len()).filter(|position| (1..all.len()).contains(position))
        }
        Timeout::BlockOption => {
            let mut at = 1;
            all.next()?;
            // Values are skipped: a group or a consumer may be called "block".
            loop {
                let option = all.next()?;
                if is_word(option, "block") {
                    return (!all.is_empty()).then_some(at + 1);
                } else if is_word(option, "streams") {
                    return None;
                }
                let values = if is_word(option, "group") {
                    2
                } else if is_word(option, "count") || is_word(option, "claim") {
                    1
                } else {
                    0
                };
                for _ in 0..values {
                    all.next()?;
                }
                at += 1 + values;
            }
        }
    }
}

/// The request with `left` as its time, rounded up to the millisecond and at least one: 0 would mean for ever.
/// None if it carries no time.
pub fn with_timeout(spec: &Spec, frame: &[u8], left: Duration) -> Option<Vec<u8>> {
    let position = timeout_position(spec, frame)?;
    let milliseconds = left.as_nanos().div_ceil(1_000_000).max(1);
    let time = match spec.timeout {
        Timeout::Seconds(_) => format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000),
        _ => milliseconds.to_string(),
    };
    let all = arguments(frame);
    let mut request = Vec::with_capacity(frame.len() + time.len() + 8);
    write::array_len(&mut request, all.len());
    for (at, argument) in all.enumerate() {
        write::bulk(&mut request, if at == position { time.as_bytes() } else { argument });
    }
    Some(request)
}
