//! Inline requests: `SET key "two words"` typed into a terminal. Rare, so clarity goes before speed.

use super::ProtocolError;
use super::request::encode_request;

/// Re-encodes an inline line (with or without its line end) as a multibulk request, so that everything downstream sees
/// one form. `None` when the line holds no argument.
///
/// The quoting rules are those of Redis's `sdssplitargs`: `"..."` with `\xHH \n \r \t \b \a`, `'...'` with `\'`, and a
/// closing quote must be followed by a space or by the line's end. A NUL byte is a byte like any other here, where Redis
/// takes it for the end of everything.
pub fn inline_to_multibulk(line: &[u8]) -> Result<Option<Vec<u8>>, ProtocolError> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut position = 0;
    loop {
        let mut word = Vec::new();
        match next_word(line, position, |byte| word.push(byte))? {
            Some(bounds) => position = bounds.end,
            None => break,
        }
        words.push(word);
    }
    if words.is_empty() {
        return Ok(None);
    }
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let mut out = Vec::new();
    encode_request(&mut out, &words);
    Ok(Some(out))
}

/// Where the next word stands in the line, its quotes included, while `sink` gets the unquoted bytes.
pub(super) fn next_word(
    line: &[u8],
    from: usize,
    mut sink: impl FnMut(u8),
) -> Result<Option<std::ops::Range<usize>>, ProtocolError> {
    let Some(skipped) = line[from..].iter().position(|&byte| !is_space(byte)) else {
        return Ok(None);
    };
    let start = from + skipped;
    let mut index = start;
    while let Some(&byte) = line.get(index) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' => return double_quoted(line, index + 1, sink).map(|end| Some(start..end)),
            b'\'' => return single_quoted(line, index + 1, sink).map(|end| Some(start..end)),
            _ => sink(byte),
        }
        index += 1;
    }
    Ok(Some(start..index))
}

/// From after the opening quote to after the closing one. A closed quote ends the word.
fn double_quoted(line: &[u8], mut index: usize, mut sink: impl FnMut(u8)) -> Result<usize, ProtocolError> {
    loop {
        match line[index.min(line.len())..] {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                sink(hex_value(high) << 4 | hex_value(low));
                index += 4;
            }
            [b'\\', escaped, ..] => {
                sink(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                index += 2;
            }
            [b'"', ..] => return closed(line, index + 1),
            [byte, ..] => {
                sink(byte);
                index += 1;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

fn single_quoted(line: &[u8], mut index: usize, mut sink: impl FnMut(u8)) -> Result<usize, ProtocolError> {
    loop {
        match line[index.min(line.len())..] {
            [b'\\', b'\'', ..] => {
                sink(b'\'');
                index += 2;
            }
            [b'\'', ..] => return closed(line, index + 1),
            [byte, ..] => {
                sink(byte);
                index += 1;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

fn closed(line: &[u8], index: usize) -> Result<usize, ProtocolError> {
    match line.get(index) {
        Some(&byte) if !is_space(byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(index),
    }
}

/// C's `isspace`, which has the vertical tab that `u8::is_ascii_whitespace` lacks.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{ProtocolError, arguments};
    use super::inline_to_multibulk;

    fn words(line: &[u8]) -> Vec<Vec<u8>> {
        let frame = inline_to_multibulk(line).unwrap().unwrap();
        arguments(&frame).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn words_are_split_at_blanks() {
        assert_eq!(words(b"GET  user:1\r\n"), [b"GET".to_vec(), b"user:1".to_vec()]);
        assert_eq!(words(b"\t PING \x0b"), [b"PING".to_vec()]);
    }

    #[test]
    fn a_blank_line_has_no_arguments() {
        assert_eq!(inline_to_multibulk(b""), Ok(None));
        assert_eq!(inline_to_multibulk(b" \t\r\n"), Ok(None));
    }

    #[test]
    fn double_quotes_take_escapes() {
        assert_eq!(words(br#"SET k "a b\x41\n\r\t\b\a\q\"" x"#)[2], b"a bA\n\r\t\x08\x07q\"");
        assert_eq!(words(br#"SET k "\xZZ""#)[2], b"xZZ");
        assert_eq!(words(br#"SET k """#)[2], b"");
    }

    #[test]
    fn single_quotes_are_literal_but_for_their_own() {
        assert_eq!(words(br"SET k 'a\n \'b\''")[2], br"a\n 'b'");
    }

    #[test]
    fn a_quote_inside_a_word_joins_it() {
        assert_eq!(words(br#"SET ab"c d""#)[1], b"abc d");
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [&br#"SET "a"#[..], br#"SET "a"b"#, br"SET 'a", br"SET 'a'b", br#"SET "a\"#, br#"SET """"#] {
            assert_eq!(inline_to_multibulk(line), Err(ProtocolError::UnbalancedQuotes), "{line:?}");
        }
    }
}
