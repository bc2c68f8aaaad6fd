//! The length line: `*3\r\n`, `$100\r\n`. It is on every frame and is at most a few bytes, so it is read by hand:
//! a call of `memchr` costs more than the loop that parses the digits on the way.

/// What stands after the type byte of a length line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A canonical decimal number and CRLF; `used` counts the bytes up to and with the LF.
    Length { value: i64, used: usize },
    /// Good so far, but the line has not ended.
    Partial,
    /// No canonical decimal number, or one of 19 digits and more, which is over every cap.
    Malformed,
}

/// More digits than any cap has, few enough that an `i64` cannot overflow.
const DIGITS_MAX: usize = 18;

/// Reads the length that `bytes` begins with. Only what Redis itself accepts (`string2ll`): no `+`, no leading zero,
/// no `-0`, no blanks.
#[inline(always)]
pub(super) fn length(bytes: &[u8]) -> Line {
    let mut value: i64 = 0;
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            if index == DIGITS_MAX {
                return Line::Malformed;
            }
            value = value * 10 + i64::from(digit);
            index += 1;
        } else if byte == b'\r' {
            return end(bytes, 0, index, value);
        } else if byte == b'-' && index == 0 {
            return negative(bytes);
        } else {
            return Line::Malformed;
        }
    }
    // A leading zero is known to be wrong as soon as its second digit is there; every split must say the same.
    if index > 1 && bytes[0] == b'0' { Line::Malformed } else { Line::Partial }
}

/// `digits_start..digits_end` held digits, then came a CR.
#[inline(always)]
fn end(bytes: &[u8], digits_start: usize, digits_end: usize, value: i64) -> Line {
    let count = digits_end - digits_start;
    if count == 0 || (bytes[digits_start] == b'0' && count > 1) {
        return Line::Malformed;
    }
    match bytes.get(digits_end + 1) {
        Some(b'\n') => Line::Length { value, used: digits_end + 2 },
        Some(_) => Line::Malformed,
        None => Line::Partial,
    }
}

#[cold]
fn negative(bytes: &[u8]) -> Line {
    let mut value: i64 = 0;
    for (index, &byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            b'0' if index == 1 => return Line::Malformed,
            b'0'..=b'9' if index <= DIGITS_MAX => value = value * 10 + i64::from(byte - b'0'),
            b'\r' => return end(bytes, 1, index, -value),
            _ => return Line::Malformed,
        }
    }
    Line::Partial
}

#[cfg(test)]
mod tests {
    use super::{Line, length};

    fn check(bytes: &[u8], expected: Line) {
        assert_eq!(length(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn canonical_numbers_are_read() {
        check(b"0\r\n", Line::Length { value: 0, used: 3 });
        check(b"7\r\nrest", Line::Length { value: 7, used: 3 });
        check(b"12345\r\n", Line::Length { value: 12345, used: 7 });
        check(b"-1\r\n", Line::Length { value: -1, used: 4 });
        check(b"-10\r\n", Line::Length { value: -10, used: 5 });
        check(b"999999999999999999\r\n", Line::Length { value: 999_999_999_999_999_999, used: 20 });
    }

    #[test]
    fn a_line_that_has_not_ended_is_partial() {
        for bytes in [&b""[..], b"1", b"0", b"12", b"12\r", b"-", b"-1", b"-1\r"] {
            check(bytes, Line::Partial);
        }
    }

    #[test]
    fn what_redis_refuses_is_malformed() {
        for bytes in
            [&b"\r\n"[..], b"+1\r\n", b"01\r\n", b"00", b" 1\r\n", b"1 \r\n", b"-\r\n", b"-0\r\n", b"--1\r\n", b"1\rX"]
        {
            check(bytes, Line::Malformed);
        }
        check(b"1234567890123456789\r\n", Line::Malformed);
        check(b"-1234567890123456789\r\n", Line::Malformed);
    }
}
