//! Looks into a reply that is complete. Nothing here panics on malformed bytes: the answer is then `None` or an early end.
//!
//! An attribute before the reply is passed over: what is looked at is the reply that it belongs to.

use super::line::{self, Line};
use super::{FrameLimits, ReplyScanner};

/// The type byte of the reply (`+ - : $ * _ # , ( ! = % ~ >`); 0 when there is none.
#[inline]
pub fn reply_kind(reply: &[u8]) -> u8 {
    without_attributes(reply).first().copied().unwrap_or(0)
}

/// Whether a frame that begins with this byte is a push, which answers no request.
#[inline]
pub fn is_push(first_byte: u8) -> bool {
    first_byte == b'>'
}

/// The first word of an error reply, its code: `MOVED`, `READONLY`, `ERR`. `None` when the reply is no error.
#[inline]
pub fn error_word(reply: &[u8]) -> Option<&[u8]> {
    let reply = without_attributes(reply);
    let text = match reply.first()? {
        b'-' => &reply[1..],
        b'!' => content(reply)?,
        _ => return None,
    };
    let end = text.iter().position(|&byte| matches!(byte, b' ' | b'\r' | b'\n')).unwrap_or(text.len());
    Some(&text[..end])
}

/// The number of an integer reply.
pub fn integer(reply: &[u8]) -> Option<i64> {
    let [b':', digits @ .., b'\r', b'\n'] = without_attributes(reply) else {
        return None;
    };
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The content of a bulk string; `None` for a null and for every other type.
#[inline]
pub fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let reply = without_attributes(reply);
    if reply.first() == Some(&b'$') { content(reply) } else { None }
}

/// The first element of an array or a push when it is a bulk or a simple string: what tells the messages of pub/sub apart.
#[inline]
pub fn first_bulk_of_array(frame: &[u8]) -> Option<&[u8]> {
    let frame = without_attributes(frame);
    let (b'*' | b'>', rest) = frame.split_first()? else {
        return None;
    };
    let Line::Length { value: 1.., used } = line::length(rest) else {
        return None;
    };
    let first = without_attributes(&rest[used..]);
    match first.first()? {
        b'$' => content(first),
        b'+' => {
            let end = first.windows(2).position(|pair| pair == b"\r\n")?;
            Some(&first[1..end])
        }
        _ => None,
    }
}

/// Whether a frame has the form of a message that was published. In RESP2 a reply may have it too.
pub fn is_message(frame: &[u8]) -> bool {
    matches!(first_bulk_of_array(frame), Some(b"message" | b"pmessage" | b"smessage"))
}

/// The elements of an array, set, push or map (keys and values in turn), each as the bytes that it came in, an attribute
/// of its own included. Nothing for other types.
pub fn elements(frame: &[u8]) -> Elements<'_> {
    let frame = without_attributes(frame);
    let counted = match frame.split_first() {
        Some((b'*' | b'~' | b'>', rest)) => Some((rest, 1)),
        Some((b'%', rest)) => Some((rest, 2)),
        _ => None,
    };
    if let Some((rest, factor)) = counted
        && let Line::Length { value, used } = line::length(rest)
    {
        let remaining = usize::try_from(value).unwrap_or(0).saturating_mul(factor);
        return Elements { rest: &rest[used..], remaining };
    }
    Elements { rest: &[], remaining: 0 }
}

/// See `elements`.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
    remaining: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.remaining == 0 {
            return None;
        }
        let Some(len) = frame_len(self.rest) else {
            self.remaining = 0;
            return None;
        };
        let (element, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.remaining -= 1;
        Some(element)
    }
}

/// The frame without the attributes before it.
#[inline]
fn without_attributes(frame: &[u8]) -> &[u8] {
    if frame.first() == Some(&b'|') { pass_attributes(frame).unwrap_or_default() } else { frame }
}

#[cold]
fn pass_attributes(mut frame: &[u8]) -> Option<&[u8]> {
    while let [b'|', rest @ ..] = frame {
        let Line::Length { value, used } = line::length(rest) else {
            return None;
        };
        frame = &rest[used..];
        for _ in 0..usize::try_from(value).ok()?.checked_mul(2)? {
            frame = &frame[frame_len(frame)?..];
        }
    }
    Some(frame)
}

/// The bytes were scanned under the caller's own limits already; none but the depth can hold them back here.
fn frame_len(frame: &[u8]) -> Option<usize> {
    let limits = FrameLimits { bulk_bytes_max: usize::MAX, reply_elements_max: usize::MAX, ..FrameLimits::default() };
    ReplyScanner::default().scan(frame, &limits).ok().flatten()
}

/// The content of what has a length line.
#[inline]
fn content(reply: &[u8]) -> Option<&[u8]> {
    let rest = reply.get(1..)?;
    let Line::Length { value, used } = line::length(rest) else {
        return None;
    };
    rest.get(used..used.checked_add(usize::try_from(value).ok()?)?)
}
