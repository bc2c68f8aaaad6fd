//! Replies of backends, RESP2 and RESP3: where each ends.

use memchr::memchr;

use super::line::{self, Line};
use super::request::terminated;
use super::{FrameLimits, ProtocolError};

/// Finds the end of the reply that a buffer begins with, and remembers how far it got, so that a reply of any size can be
/// forwarded while it arrives (`scanned`, `consume_prefix`).
///
/// An attribute (`|`) belongs to the reply that follows it: together they are one frame. Streamed strings and aggregates
/// (`$?`, `*?`), which no server sends, are refused.
#[derive(Debug)]
pub struct ReplyScanner {
    stage: Stage,
    /// Where the next byte to look at is, in the buffer that the next call brings. Beyond its end while a bulk string is
    /// still arriving: its content is skipped, not read.
    position: usize,
    /// Content bytes of the simple string at `position` that were already passed.
    line_bytes: usize,
    /// Elements announced so far, over all levels.
    elements: usize,
    /// Per level, the elements that have not ended yet; empty when no frame has begun. The lowest level is the reply
    /// itself. Grows to the depth that was seen, which `depth_max` bounds.
    pending: Vec<u32>,
}

/// What stands at `ReplyScanner::position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Element,
    /// The inside of a simple string whose end has not arrived.
    Line,
    /// The two bytes after the content of a bulk string.
    Terminator,
}

/// What one element turned out to be.
enum Element {
    /// It has ended; the position after it.
    Leaf(usize),
    /// Its header is good, the rest of it has not arrived: where to go on, and with what.
    Within(Stage, usize),
    Aggregate {
        next: usize,
        count: usize,
        attribute: bool,
    },
    /// Not even its header is complete.
    Partial,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self { stage: Stage::Element, position: 0, line_bytes: 0, elements: 0, pending: Vec::new() }
    }
}

impl ReplyScanner {
    /// Looks for the end of the reply that `buffer` begins with.
    ///
    /// `Ok(Some(len))`: complete; `len` counts from the buffer's start, hence without what `consume_prefix` took away, and
    /// the scanner is ready for the next reply. `Ok(None)`: incomplete; the next call passes the same bytes and more.
    /// `Err`: the backend cannot be understood; call `reset` before any further use.
    #[inline]
    pub fn scan(&mut self, buffer: &[u8], limits: &FrameLimits) -> Result<Option<usize>, ProtocolError> {
        if self.pending.is_empty() {
            // The common case keeps no state: one reply without elements, wholly there.
            if let Element::Leaf(end) = element(buffer, 0, limits)? {
                return Ok(Some(end));
            }
            if buffer.is_empty() {
                return Ok(None);
            }
            self.pending.push(1);
        }
        self.resume(buffer, limits)
    }

    /// Bytes, from the start of the buffer that the next call brings, that are known to belong to the incomplete frame and
    /// to be well formed.
    ///
    /// Inside a bulk string it counts to the end of its content, which may lie beyond the bytes that are there: what may
    /// be forwarded now is `scanned().min(buffer.len())`. 0 between frames, and while a header is incomplete.
    #[inline]
    pub fn scanned(&self) -> usize {
        self.position
    }

    /// Whether an incomplete frame has begun. It stays true when all of its bytes so far were consumed.
    #[inline]
    pub fn is_mid_frame(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The caller has forwarded and dropped the first `n` bytes of the incomplete frame; the next call's buffer begins
    /// after them. `n` is at most `scanned()`, and at most what the last scan was given.
    #[inline]
    pub fn consume_prefix(&mut self, n: usize) {
        debug_assert!(n <= self.position, "only scanned bytes may be dropped");
        self.position = self.position.saturating_sub(n);
    }

    /// Forgets the incomplete frame: the next buffer begins a new one.
    pub fn reset(&mut self) {
        self.stage = Stage::Element;
        self.position = 0;
        self.line_bytes = 0;
        self.elements = 0;
        self.pending.clear();
    }

    #[inline(never)]
    fn resume(&mut self, buffer: &[u8], limits: &FrameLimits) -> Result<Option<usize>, ProtocolError> {
        let mut position = self.position;
        loop {
            let found = match self.stage {
                Stage::Element => element(buffer, position, limits)?,
                Stage::Terminator => match terminated(buffer, position) {
                    Some(true) => Element::Leaf(position + 2),
                    Some(false) => Element::Partial,
                    None => return Err(ProtocolError::MissingReplyTerminator),
                },
                Stage::Line => line_rest(buffer, position, self.line_bytes, limits)?,
            };
            match found {
                Element::Leaf(next) => {
                    position = next;
                    self.stage = Stage::Element;
                    self.line_bytes = 0;
                    if self.element_ended() {
                        self.reset();
                        return Ok(Some(position));
                    }
                }
                Element::Aggregate { next, count, attribute } => {
                    position = next;
                    self.begin(count, attribute, limits)?;
                }
                Element::Within(stage, next) => {
                    if stage == Stage::Line {
                        // From the type byte on the first time, of which `line_bytes` counts nothing.
                        let type_byte = usize::from(self.stage != Stage::Line);
                        self.line_bytes += next - position - type_byte;
                    }
                    self.stage = stage;
                    self.position = next;
                    return Ok(None);
                }
                Element::Partial => {
                    self.position = position;
                    return Ok(None);
                }
            }
        }
    }

    /// One element has ended, and with it every aggregate of which it was the last. True when the frame has.
    #[inline(always)]
    fn element_ended(&mut self) -> bool {
        while let Some(pending) = self.pending.last_mut() {
            *pending -= 1;
            if *pending > 0 {
                return false;
            }
            self.pending.pop();
        }
        true
    }

    /// Enters an aggregate of `count` elements, which is not 0 but for an empty attribute.
    fn begin(&mut self, count: usize, attribute: bool, limits: &FrameLimits) -> Result<(), ProtocolError> {
        let limit = limits.reply_elements_max.min(u32::MAX as usize - 1);
        // An attribute counts itself too: a peer could send empty ones without end.
        self.elements = self.elements.saturating_add(count).saturating_add(usize::from(attribute));
        if self.elements > limit {
            return Err(ProtocolError::ReplyTooManyElements { limit });
        }
        if count == 0 {
            return Ok(());
        }
        if self.pending.len() > limits.depth_max {
            return Err(ProtocolError::ReplyTooDeep { limit: limits.depth_max });
        }
        if attribute && let Some(around) = self.pending.last_mut() {
            // It takes no place among the elements around it: what its end takes away is added here.
            *around += 1;
        }
        self.pending.push(count as u32);
        Ok(())
    }
}

/// The element at `position`.
#[inline(always)]
fn element(buffer: &[u8], position: usize, limits: &FrameLimits) -> Result<Element, ProtocolError> {
    let Some((&kind, rest)) = buffer.get(position..).and_then(<[u8]>::split_first) else {
        return Ok(Element::Partial);
    };
    match kind {
        b'$' | b'=' | b'!' => bulk(buffer, position, rest, limits),
        b'+' | b'-' | b':' | b',' | b'(' => line_rest(buffer, position + 1, 0, limits),
        b'*' | b'~' | b'>' | b'%' | b'|' => aggregate(kind, position, rest),
        b'_' => literal(rest, b"\r\n", position),
        b'#' if rest.first() == Some(&b'f') => literal(rest, b"f\r\n", position),
        b'#' => literal(rest, b"t\r\n", position),
        other => Err(ProtocolError::UnknownReplyType(other)),
    }
}

/// A string with a length before it, whose type byte is at `position` and whose length is in `rest`.
#[inline(always)]
fn bulk(buffer: &[u8], position: usize, rest: &[u8], limits: &FrameLimits) -> Result<Element, ProtocolError> {
    match line::length(rest) {
        Line::Length { value, used } if value >= 0 => {
            if value as u64 > limits.bulk_bytes_max as u64 {
                return Err(ProtocolError::ReplyBulkTooBig { limit: limits.bulk_bytes_max });
            }
            let end = position + 1 + used + value as usize;
            match terminated(buffer, end) {
                Some(true) => Ok(Element::Leaf(end + 2)),
                Some(false) => Ok(Element::Within(Stage::Terminator, end)),
                None => Err(ProtocolError::MissingReplyTerminator),
            }
        }
        Line::Length { value: -1, used } if buffer[position] == b'$' => Ok(Element::Leaf(position + 1 + used)),
        Line::Partial => Ok(Element::Partial),
        Line::Length { .. } | Line::Malformed => Err(bad_length(rest)),
    }
}

#[inline(always)]
fn aggregate(kind: u8, position: usize, rest: &[u8]) -> Result<Element, ProtocolError> {
    match line::length(rest) {
        Line::Length { value, used } if value >= 0 => {
            let next = position + 1 + used;
            let attribute = kind == b'|';
            let pairs = attribute || kind == b'%';
            let count = (value as usize).saturating_mul(if pairs { 2 } else { 1 });
            Ok(if count == 0 && !attribute {
                Element::Leaf(next)
            } else {
                Element::Aggregate { next, count, attribute }
            })
        }
        Line::Length { value: -1, used } if kind == b'*' => Ok(Element::Leaf(position + 1 + used)),
        Line::Partial => Ok(Element::Partial),
        Line::Length { .. } | Line::Malformed => Err(bad_length(rest)),
    }
}

#[cold]
fn bad_length(rest: &[u8]) -> ProtocolError {
    if rest.first() == Some(&b'?') { ProtocolError::StreamedReply } else { ProtocolError::InvalidReplyLength }
}

/// Bytes of a line that are looked at by hand before `memchr` is worth its call: `+OK`, integers, most errors' codes.
const SHORT_LINE_BYTES: usize = 16;

/// The rest of a simple string from `from`, of which `passed` content bytes lie behind. It ends at the first CR with an LF
/// after it; either one alone is content, as clients take it.
#[inline(always)]
fn line_rest(buffer: &[u8], from: usize, passed: usize, limits: &FrameLimits) -> Result<Element, ProtocolError> {
    let content_max = limits.bulk_bytes_max;
    let mut index = from;
    let short_end = buffer.len().min(from + SHORT_LINE_BYTES);
    loop {
        while index < short_end && buffer[index] != b'\r' {
            index += 1;
        }
        if index >= short_end {
            index = memchr(b'\r', &buffer[index..]).map_or(buffer.len(), |found| index + found);
        }
        if passed + index - from > content_max {
            return Err(ProtocolError::ReplyLineTooBig { limit: content_max });
        }
        match buffer.get(index + 1) {
            Some(b'\n') => return Ok(Element::Leaf(index + 2)),
            Some(_) => index += 1,
            // A CR that stands last is left for the next call.
            None => return Ok(Element::Within(Stage::Line, index)),
        }
    }
}

#[inline(always)]
fn literal(rest: &[u8], expected: &[u8], position: usize) -> Result<Element, ProtocolError> {
    let there = rest.len().min(expected.len());
    if rest[..there] != expected[..there] {
        return Err(ProtocolError::InvalidReplyValue);
    }
    Ok(if there == expected.len() { Element::Leaf(position + 1 + there) } else { Element::Partial })
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
