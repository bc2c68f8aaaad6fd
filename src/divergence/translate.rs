//! What an acknowledged write is on a mirrored backend: a command of its own where it leaves the same whatever was there
//! before, else "copy the value".
//!
//! Relative times become absolute, counted from when the request came: a mirror that lags must not prolong a life.

use crate::command::{self, Category, Spec};
use crate::resp;

/// How a write travels to a mirrored backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It wrote nothing.
    Nothing,
    /// As the command that was appended to the caller's buffer.
    Command,
    /// Its keys are to be copied: INCR or SPOP on another base has another effect.
    Value,
}

/// Commands that are mirrored byte for byte, whatever their arguments.
const AS_IT_IS: &[&str] = &["del", "unlink", "mset", "persist"];

/// Whether a request of so many arguments, the name included, is mirrored byte for byte. Looks at no argument.
#[must_use]
pub fn is_mirrored_as_it_is(spec: &Spec, arguments: u32) -> bool {
    (arguments == 3 && spec.name == "set") || AS_IT_IS.contains(&spec.name)
}

/// Appends to `out` what brings a mirrored backend to the state that this request, which came at `at_ms` (milliseconds of
/// the Unix epoch) and was executed without an error, has brought the active to.
pub(super) fn translate(spec: &Spec, frame: &[u8], at_ms: u64, out: &mut Vec<u8>) -> Form {
    if !spec.is_write() || spec.category(frame) == Category::Read {
        return Form::Nothing;
    }
    let count = resp::arguments(frame).len();
    if is_mirrored_as_it_is(spec, count as u32) {
        out.extend_from_slice(frame);
        return Form::Command;
    }
    let all: Vec<&[u8]> = resp::arguments(frame).collect();
    whole_value(spec.name, &all, at_ms, out).map_or(Form::Value, |()| Form::Command)
}

/// `None` when the command does not replace the whole value, or does so under a condition.
fn whole_value(name: &str, all: &[&[u8]], at_ms: u64, out: &mut Vec<u8>) -> Option<()> {
    let set = |out: &mut Vec<u8>, key: &[u8], value: &[u8], until: u64| {
        resp::encode_request(out, &[b"SET", key, value, b"PXAT", until.to_string().as_bytes()]);
    };
    match (name, all) {
        ("set", [_, key, value, options @ ..]) => match set_end(options, at_ms)? {
            Some(until) => set(out, key, value, until),
            None => resp::encode_request(out, &[b"SET", key, value]),
        },
        ("setex", [_, key, seconds, value]) => {
            set(out, key, value, at_ms.checked_add(number(seconds)?.checked_mul(1000)?)?);
        }
        ("psetex", [_, key, millis, value]) => set(out, key, value, at_ms.checked_add(number(millis)?)?),
        ("getset", [_, key, value]) => resp::encode_request(out, &[b"SET", key, value]),
        ("getdel", [_, key]) => resp::encode_request(out, &[b"UNLINK", key]),
        ("expire", [_, key, time]) => until(out, key, at_ms.checked_add_signed(signed(time)?.checked_mul(1000)?)),
        ("pexpire", [_, key, time]) => until(out, key, at_ms.checked_add_signed(signed(time)?)),
        ("expireat", [_, key, time]) => until(out, key, u64::try_from(signed(time)?.checked_mul(1000)?).ok()),
        ("pexpireat", [_, key, time]) => until(out, key, u64::try_from(signed(time)?).ok()),
        ("getex", [_, key, word]) if word.eq_ignore_ascii_case(b"persist") => {
            resp::encode_request(out, &[b"PERSIST", key]);
        }
        ("getex", [_, key, word, time]) => until(out, key, Some(end(word, time, at_ms)?)),
        _ => return None,
    }
    Some(())
}

/// When a SET with these options ends, if it does; `None` when it depends on what was there.
fn set_end(options: &[&[u8]], at_ms: u64) -> Option<Option<u64>> {
    let mut until = None;
    let mut rest = options;
    while let [word, tail @ ..] = rest {
        if word.eq_ignore_ascii_case(b"get") {
            rest = tail;
            continue;
        }
        let [time, tail @ ..] = tail else { return None };
        until = Some(end(word, time, at_ms)?);
        rest = tail;
    }
    Some(until)
}

fn end(word: &[u8], time: &[u8], at_ms: u64) -> Option<u64> {
    let time = number(time)?;
    let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
    match () {
        () if is("ex") => at_ms.checked_add(time.checked_mul(1000)?),
        () if is("px") => at_ms.checked_add(time),
        () if is("exat") => time.checked_mul(1000),
        () if is("pxat") => Some(time),
        () => None,
    }
}

/// PEXPIREAT; a time before the epoch is in the past like any other.
fn until(out: &mut Vec<u8>, key: &[u8], at_ms: Option<u64>) {
    resp::encode_request(out, &[b"PEXPIREAT", key, at_ms.unwrap_or(1).max(1).to_string().as_bytes()]);
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn signed(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The requests that lie one behind the other in `bytes`, which have been scanned before.
pub(super) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let limits = resp::FrameLimits {
        bulk_bytes_max: usize::MAX,
        request_bytes_max: usize::MAX,
        arguments_max: u32::MAX as usize,
        ..resp::FrameLimits::default()
    };
    std::iter::from_fn(move || {
        let frame = resp::RequestScanner::default().scan(bytes, &limits).ok().flatten()?;
        let (first, rest) = bytes.split_at(frame.len);
        bytes = rest;
        Some(first)
    })
}

/// Whether a request writes a key of which `is_marked` says yes.
pub(super) fn writes_any(frame: &[u8], mut is_marked: impl FnMut(&[u8]) -> bool) -> bool {
    let mut found = false;
    command::written_keys(command::of_request(frame), frame, &mut |key| found |= is_marked(key));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrored(words: &str) -> Option<String> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut frame = Vec::new();
        resp::encode_request(&mut frame, &words);
        let mut out = Vec::new();
        match translate(command::of_request(&frame), &frame, 1_000_000, &mut out) {
            Form::Nothing => Some(String::new()),
            Form::Value => None,
            Form::Command => Some(
                resp::arguments(&out)
                    .map(|word| String::from_utf8_lossy(word).into_owned())
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
        }
    }

    #[test]
    fn whole_values_travel_as_commands_and_their_times_are_absolute() {
        for (given, expected) in [
            ("SET k v", "SET k v"),
            ("set k v EX 10", "SET k v PXAT 1010000"),
            ("SET k v px 5", "SET k v PXAT 1000005"),
            ("SET k v GET", "SET k v"),
            ("SET k v EXAT 7 GET", "SET k v PXAT 7000"),
            ("SETEX k 10 v", "SET k v PXAT 1010000"),
            ("PSETEX k 10 v", "SET k v PXAT 1000010"),
            ("MSET a 1 b 2", "MSET a 1 b 2"),
            ("GETSET k v", "SET k v"),
            ("GETDEL k", "UNLINK k"),
            ("DEL a b", "DEL a b"),
            ("EXPIRE k 1", "PEXPIREAT k 1001000"),
            ("PEXPIRE k -5", "PEXPIREAT k 999995"),
            ("EXPIREAT k -5", "PEXPIREAT k 1"),
            ("GETEX k EX 1", "PEXPIREAT k 1001000"),
            ("GETEX k PERSIST", "PERSIST k"),
            ("GETEX k", ""),
            ("GET k", ""),
        ] {
            assert_eq!(mirrored(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn what_depends_on_what_was_there_travels_by_value() {
        for given in [
            "SET k v NX",
            "SET k v KEEPTTL",
            "SET k v XX EX 1",
            "SETNX k v",
            "INCR k",
            "APPEND k v",
            "SPOP k",
            "HSET h f v",
            "EXPIRE k 1 NX",
            "RENAME a b",
            "EVAL s 1 k",
            "LPUSH l v",
            "RESTORE k 0 x",
            "SETRANGE k 1 v",
            "SETEX k x v",
        ] {
            assert_eq!(mirrored(given), None, "{given}");
        }
    }

    #[test]
    fn requests_that_lie_side_by_side_are_told_apart() {
        let mut bytes = Vec::new();
        resp::encode_request(&mut bytes, &[b"SET", b"a", b"1"]);
        let first = bytes.len();
        resp::encode_request(&mut bytes, &[b"DEL", b"b", b"c"]);
        let all: Vec<&[u8]> = frames(&bytes).collect();
        assert_eq!(all, [&bytes[..first], &bytes[first..]]);
        assert!(writes_any(all[1], |key| key == b"c") && !writes_any(all[0], |key| key == b"1"));
    }
}
