//! Replies that we synthesise, in the protocol that the client has chosen.

/// What the client has asked for by `HELLO`. RESP2 until then.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    Resp2,
    Resp3,
}

/// `+text`. A line break in the text becomes a blank, or the client would read two replies.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

/// `-message`. The message begins with its code (`ERR`, `NOBACKEND`); line breaks become blanks, as Redis does it.
pub fn error(out: &mut Vec<u8>, message: &str) {
    line(out, b'-', message);
}

/// `:value`
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    if value < 0 {
        out.push(b'-');
    }
    digits(out, value.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The absent value: `$-1` in RESP2.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The absent array (an aborted EXEC, a BLPOP that timed out): `*-1` in RESP2.
pub fn null_array(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The header of an array; its `n` elements follow.
pub fn array_len(out: &mut Vec<u8>, n: usize) {
    length(out, b'*', n);
}

/// The header of a map of `n` pairs; in RESP2 an array of `2 * n`. Keys and values follow in turn.
pub fn map_len(out: &mut Vec<u8>, n: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => length(out, b'*', 2 * n),
        Protocol::Resp3 => length(out, b'%', n),
    }
}

/// The header of a set of `n` members; in RESP2 an array.
pub fn set_len(out: &mut Vec<u8>, n: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => length(out, b'*', n),
        Protocol::Resp3 => length(out, b'~', n),
    }
}

/// The header of a push of `n` elements; in RESP2 an array.
pub fn push_len(out: &mut Vec<u8>, n: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => length(out, b'*', n),
        Protocol::Resp3 => length(out, b'>', n),
    }
}

/// A double; in RESP2 a bulk string of the same text.
pub fn double(out: &mut Vec<u8>, value: f64, protocol: Protocol) {
    let text = double_text(value);
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => line(out, b',', &text),
    }
}

/// A truth value; in RESP2 the integer 1 or 0.
pub fn boolean(out: &mut Vec<u8>, value: bool, protocol: Protocol) {
    out.extend_from_slice(match (protocol, value) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// Text with a format of three letters (`txt`, `mkd`); in RESP2 a bulk string of the text alone.
pub fn verbatim(out: &mut Vec<u8>, format: &str, text: &str, protocol: Protocol) {
    debug_assert_eq!(format.len(), 3, "a verbatim format has three letters");
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => {
            length(out, b'=', format.len() + 1 + text.len());
            out.extend_from_slice(format.as_bytes());
            out.push(b':');
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

fn length(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    digits(out, n as u64);
    out.extend_from_slice(b"\r\n");
}

fn digits(out: &mut Vec<u8>, mut value: u64) {
    let mut text = [0u8; 20];
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

/// The shortest text that reads back as the same number, with an exponent where Redis has one (`1e+30`).
fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn line_breaks_never_get_through() {
        assert_eq!(written(|out| error(out, "ERR a\r\n+OK\r\nb")), "-ERR a  +OK  b\r\n");
        assert_eq!(written(|out| simple(out, "a\nb")), "+a b\r\n");
    }

    #[test]
    fn integers_reach_both_ends_of_their_range() {
        assert_eq!(written(|out| integer(out, 0)), ":0\r\n");
        assert_eq!(written(|out| integer(out, i64::MAX)), ":9223372036854775807\r\n");
        assert_eq!(written(|out| integer(out, i64::MIN)), ":-9223372036854775808\r\n");
    }

    #[test]
    fn strings_and_headers_carry_their_length() {
        assert_eq!(written(|out| bulk(out, b"")), "$0\r\n\r\n");
        assert_eq!(written(|out| bulk(out, b"a\r\nb")), "$4\r\na\r\nb\r\n");
        assert_eq!(written(|out| array_len(out, 12)), "*12\r\n");
    }

    #[test]
    fn each_protocol_has_its_own_form() {
        let both = |write: fn(&mut Vec<u8>, Protocol)| {
            (written(|out| write(out, Protocol::Resp2)), written(|out| write(out, Protocol::Resp3)))
        };
        let check = |write, resp2: &str, resp3: &str| assert_eq!(both(write), (resp2.into(), resp3.into()));
        check(null, "$-1\r\n", "_\r\n");
        check(null_array, "*-1\r\n", "_\r\n");
        check(|out, protocol| map_len(out, 2, protocol), "*4\r\n", "%2\r\n");
        check(|out, protocol| set_len(out, 2, protocol), "*2\r\n", "~2\r\n");
        check(|out, protocol| push_len(out, 3, protocol), "*3\r\n", ">3\r\n");
        check(|out, protocol| boolean(out, true, protocol), ":1\r\n", "#t\r\n");
        check(|out, protocol| double(out, 1.5, protocol), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(|out, protocol| verbatim(out, "txt", "hi", protocol), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn doubles_read_back_as_themselves() {
        assert_eq!(double_text(3.0), "3");
        assert_eq!(double_text(1e30), "1e+30");
        assert_eq!(double_text(-2.5e-9), "-2.5e-9");
        assert_eq!(double_text(f64::NEG_INFINITY), "-inf");
        for value in [0.1, 1.0 / 3.0, 1e20, 1e21, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(double_text(value).parse(), Ok(value));
        }
    }
}
