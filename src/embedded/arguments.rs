//! Arguments of commands: numbers as strict as Redis reads them, ranges, keywords.

use super::error::{self, Error};

/// Whether `argument` is the keyword `word`, in whatever case.
pub(super) fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// A decimal integer without sign `+`, leading zeros or blanks, as `string2ll` of Redis takes it.
pub(super) fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn integer(text: &[u8]) -> Result<i64, Error> {
    parse_integer(text).ok_or(error::NOT_AN_INTEGER)
}

/// An integer that is not negative; else the error text that Redis has for such places.
pub(super) fn positive(text: &[u8]) -> Result<usize, Error> {
    let value = integer(text).map_err(|_| error::NOT_POSITIVE)?;
    usize::try_from(value).map_err(|_| error::NOT_POSITIVE)
}

/// A number of any size, `inf` included and NaN excluded.
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

pub(super) fn float(text: &[u8]) -> Result<f64, Error> {
    parse_float(text).ok_or(error::NOT_A_FLOAT)
}

/// `start` and `end` as LRANGE has them (negative from the end, both included) as positions from ..to; empty if none.
pub(super) fn range(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = length as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let start = from_end(start).max(0);
    let end = from_end(end).min(length - 1);
    if start > end || start >= length { 0..0 } else { start as usize..end as usize + 1 }
}

/// One index as LINDEX has it: negative from the end.
pub(super) fn index(index: i64, length: usize) -> Option<usize> {
    let at = if index < 0 { index.checked_add(length as i64)? } else { index };
    usize::try_from(at).ok().filter(|&at| at < length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_integers() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn ranges_are_clamped_to_what_is_there() {
        assert_eq!(range(0, -1, 3), 0..3);
        assert_eq!(range(-2, -1, 3), 1..3);
        assert_eq!(range(-100, 100, 3), 0..3);
        assert_eq!(range(2, 1, 3), 0..0);
        assert_eq!(range(5, 9, 3), 0..0);
        assert_eq!(range(0, -1, 0), 0..0);
        assert_eq!(range(i64::MIN, i64::MAX, 2), 0..2);
    }
}
