//! Requests of clients: where each ends, and its arguments.

use memchr::memchr;

use super::inline::next_word;
use super::line::{self, Line};
use super::{FrameLimits, ProtocolError};

/// Finds the end of the request that a buffer begins with, and remembers how far it got.
#[derive(Debug, Default)]
pub struct RequestScanner {
    stage: Stage,
    /// Where the next thing to read begins: a length line, or the two bytes after a bulk string. It may lie beyond the
    /// buffer while the bulk string is still arriving.
    position: usize,
    /// How far the line at `position` was searched for its end, so that a line that dribbles in is not searched twice.
    searched: usize,
    /// Arguments that the header announced.
    arguments: u32,
    /// Arguments that have not been passed yet, the one at `position` included.
    remaining: u32,
    name_start: u32,
    name_len: u32,
}

/// What stands at `RequestScanner::position`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No byte of this frame was seen.
    #[default]
    Start,
    InlineLine,
    ArrayHeader,
    BulkHeader,
    BulkTerminator,
}

/// A complete request at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFrame {
    /// Bytes of the whole frame.
    pub len: usize,
    /// Arguments, the command's name included. A frame with 0 is to be skipped silently, as Redis does.
    pub arguments: u32,
    /// Where the command's name begins in the frame.
    pub name_start: u32,
    /// Bytes of the name; of an inline request the raw word, quotes included.
    pub name_len: u32,
    /// An inline request: `inline_to_multibulk` makes the usual form of it.
    pub inline: bool,
}

impl RequestFrame {
    /// The command's name as the client wrote it; empty when there are no arguments. `frame` begins at the frame's start.
    #[inline]
    pub fn name<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let start = self.name_start as usize;
        frame.get(start..start + self.name_len as usize).unwrap_or_default()
    }
}

impl RequestScanner {
    /// Looks for the end of the request that `buffer` begins with.
    ///
    /// `Ok(None)`: incomplete; the next call passes the same bytes and more. `Ok(Some(frame))`: complete, and the scanner
    /// is ready for the next frame. `Err`: the client cannot be understood; call `reset` before any further use.
    #[inline]
    pub fn scan(&mut self, buffer: &[u8], limits: &FrameLimits) -> Result<Option<RequestFrame>, ProtocolError> {
        if self.stage == Stage::Start {
            if let Some(frame) = whole_frame(buffer, limits) {
                return Ok(Some(frame));
            }
            let Some(&first) = buffer.first() else {
                return Ok(None);
            };
            self.stage = if first == b'*' { Stage::ArrayHeader } else { Stage::InlineLine };
        }
        self.resume(buffer, limits)
    }

    /// Whether an incomplete frame has begun.
    #[inline]
    pub fn is_mid_frame(&self) -> bool {
        self.stage != Stage::Start
    }

    /// Forgets the incomplete frame: the next buffer begins a new one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    #[inline(never)]
    fn resume(&mut self, buffer: &[u8], limits: &FrameLimits) -> Result<Option<RequestFrame>, ProtocolError> {
        loop {
            match self.stage {
                Stage::Start | Stage::InlineLine => return self.inline_line(buffer, limits),
                Stage::ArrayHeader => {
                    let Some((count, used)) = self.header(buffer, limits)? else {
                        return Ok(None);
                    };
                    if count <= 0 {
                        return Ok(Some(self.finish(used, false)));
                    }
                    self.arguments = u32::try_from(count)
                        .ok()
                        .filter(|&count| count as usize <= limits.arguments_max)
                        .ok_or(ProtocolError::InvalidMultibulkLength)?;
                    self.remaining = self.arguments;
                    self.advance(used, Stage::BulkHeader);
                }
                Stage::BulkHeader => {
                    let Some((bytes, used)) = self.header(buffer, limits)? else {
                        return Ok(None);
                    };
                    let bytes = bulk_len(bytes, limits).ok_or(ProtocolError::InvalidBulkLength)?;
                    let start = self.position + used;
                    if start + bytes + 2 > limits.request_bytes_max {
                        return Err(ProtocolError::TooBigRequest);
                    }
                    if self.remaining == self.arguments {
                        // Both fit: the name begins after two short lines, and `bulk_len` bounds its length.
                        self.name_start = start as u32;
                        self.name_len = bytes as u32;
                    }
                    self.advance(start + bytes, Stage::BulkTerminator);
                }
                Stage::BulkTerminator => {
                    if !terminated(buffer, self.position).ok_or(ProtocolError::MissingTerminator)? {
                        return Ok(None);
                    }
                    self.remaining -= 1;
                    if self.remaining == 0 {
                        return Ok(Some(self.finish(self.position + 2, false)));
                    }
                    self.advance(self.position + 2, Stage::BulkHeader);
                }
            }
        }
    }

    fn advance(&mut self, position: usize, stage: Stage) {
        self.position = position;
        self.searched = position;
        self.stage = stage;
    }

    fn finish(&mut self, len: usize, inline: bool) -> RequestFrame {
        let frame = RequestFrame {
            len,
            arguments: self.arguments,
            name_start: self.name_start,
            name_len: self.name_len,
            inline,
        };
        self.reset();
        frame
    }

    /// The length line at `position`: its number, and the position after it for an array header, the bytes that it takes
    /// otherwise; `None` while the line has not ended.
    ///
    /// As in Redis, nothing is said about a line before its CR is there. Unlike Redis, which compares what happens to be
    /// in its buffer, the cap holds for the line itself, so that the answer does not depend on how the bytes arrived.
    fn header(&mut self, buffer: &[u8], limits: &FrameLimits) -> Result<Option<(i64, usize)>, ProtocolError> {
        let (expected, too_big, invalid) = match self.stage {
            Stage::ArrayHeader => (b'*', ProtocolError::TooBigMultibulkCount, ProtocolError::InvalidMultibulkLength),
            _ => (b'$', ProtocolError::TooBigBulkCount, ProtocolError::InvalidBulkLength),
        };
        let Some(rest) = buffer.get(self.position..).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        if rest[0] == expected
            && let Line::Length { value, used } = line::length(&rest[1..])
        {
            return if used - 1 > limits.inline_bytes_max { Err(too_big) } else { Ok(Some((value, used + 1))) };
        }
        let Some(found) = memchr(b'\r', &buffer[self.searched..]) else {
            self.searched = buffer.len();
            return if rest.len() > limits.inline_bytes_max { Err(too_big) } else { Ok(None) };
        };
        self.searched += found;
        if self.searched - self.position > limits.inline_bytes_max {
            return Err(too_big);
        }
        if self.searched + 1 == buffer.len() {
            return Ok(None);
        }
        Err(if rest[0] == expected { invalid } else { ProtocolError::ExpectedBulk(rest[0]) })
    }

    fn inline_line(&mut self, buffer: &[u8], limits: &FrameLimits) -> Result<Option<RequestFrame>, ProtocolError> {
        let Some(found) = memchr(b'\n', &buffer[self.searched..]) else {
            self.searched = buffer.len();
            return if buffer.len() > limits.inline_bytes_max { Err(ProtocolError::TooBigInline) } else { Ok(None) };
        };
        let end = self.searched + found;
        if end > limits.inline_bytes_max {
            return Err(ProtocolError::TooBigInline);
        }
        let mut from = 0;
        while let Some(word) = next_word(&buffer[..end], from, |_| {})? {
            if self.arguments == 0 {
                self.name_start = word.start as u32;
                self.name_len = (word.end - word.start) as u32;
            }
            self.arguments += 1;
            from = word.end;
        }
        Ok(Some(self.finish(end + 1, true)))
    }
}

/// The common case, which keeps no state: a well formed multibulk request that is wholly there. `None` for anything else,
/// errors included; `RequestScanner::resume` then looks again and says what it is.
#[inline]
fn whole_frame(buffer: &[u8], limits: &FrameLimits) -> Option<RequestFrame> {
    let [b'*', rest @ ..] = buffer else {
        return None;
    };
    let Line::Length { value, used } = line::length(rest) else {
        return None;
    };
    if value <= 0 || value > limits.arguments_max as i64 {
        return None;
    }
    let arguments = u32::try_from(value).ok()?;
    let mut position = 1 + used;
    let (name_start, name_len, next) = whole_bulk(buffer, position, limits)?;
    position = next;
    for _ in 1..arguments {
        (_, _, position) = whole_bulk(buffer, position, limits)?;
    }
    if position > limits.request_bytes_max {
        return None;
    }
    Some(RequestFrame {
        len: position,
        arguments,
        name_start: name_start as u32,
        name_len: name_len as u32,
        inline: false,
    })
}

/// Start and length of the content of the bulk string at `position`, and the position after its terminator.
#[inline(always)]
fn whole_bulk(buffer: &[u8], position: usize, limits: &FrameLimits) -> Option<(usize, usize, usize)> {
    let [b'$', rest @ ..] = buffer.get(position..)? else {
        return None;
    };
    let Line::Length { value, used } = line::length(rest) else {
        return None;
    };
    let bytes = bulk_len(value, limits)?;
    let start = position + 1 + used;
    let end = start + bytes;
    (buffer.get(end..end + 2)? == b"\r\n").then_some((start, bytes, end + 2))
}

#[inline(always)]
fn bulk_len(value: i64, limits: &FrameLimits) -> Option<usize> {
    let bytes = u32::try_from(value).ok()? as usize;
    (bytes <= limits.bulk_bytes_max).then_some(bytes)
}

/// Whether CRLF stands at `position` (`Some(true)`), has not wholly arrived (`Some(false)`), or something else does.
#[inline(always)]
pub(super) fn terminated(buffer: &[u8], position: usize) -> Option<bool> {
    match buffer.get(position..).unwrap_or_default() {
        [b'\r', b'\n', ..] => Some(true),
        [] | [b'\r'] => Some(false),
        _ => None,
    }
}

/// The arguments of one complete multibulk request, in order. The name is the first.
#[derive(Debug, Clone)]
pub struct Arguments<'a> {
    rest: &'a [u8],
    remaining: usize,
}

/// Walks the arguments of a complete multibulk request whose bounds the scanner has checked. What is malformed all the
/// same ends the walk early.
#[inline]
pub fn arguments(frame: &[u8]) -> Arguments<'_> {
    if let [b'*', rest @ ..] = frame
        && let Line::Length { value, used } = line::length(rest)
    {
        return Arguments { rest: &rest[used..], remaining: usize::try_from(value).unwrap_or(0) };
    }
    Arguments { rest: &[], remaining: 0 }
}

impl Arguments<'_> {
    /// Arguments that are still to come, by the frame's header.
    #[inline]
    pub fn len(&self) -> usize {
        self.remaining
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.remaining == 0 {
            return None;
        }
        let argument = (|| {
            let [b'$', rest @ ..] = self.rest else {
                return None;
            };
            let Line::Length { value, used } = line::length(rest) else {
                return None;
            };
            let end = used.checked_add(usize::try_from(value).ok()?)?;
            let argument = rest.get(used..end)?;
            self.rest = rest.get(end + 2..)?;
            Some(argument)
        })();
        self.remaining = if argument.is_some() { self.remaining - 1 } else { 0 };
        argument
    }
}

/// Appends a multibulk request.
pub fn encode_request(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    out.reserve(16 + arguments.iter().map(|argument| argument.len() + 16).sum::<usize>());
    super::write::array_len(out, arguments.len());
    for argument in arguments {
        super::write::bulk(out, argument);
    }
}
