//! Cursors of SCAN and its kind across a switch. A cursor means something only on the server that gave it: on another one it
//! would leave keys out and nobody would notice. So cursors that are handed out after a switch carry the route's epoch in
//! their upper bits, and one of an earlier epoch is refused: the client begins again. Before the first switch nothing is
//! changed, and cursors are the server's own.

use super::modes::Expected;
use super::sending::Way;
use super::special::Step;
use super::task::SessionTask;
use crate::command::Spec;
use crate::resp::{self, write};

/// A table has fewer than 2^48 buckets.
const SHIFT: u32 = 48;
/// One bit is left free for clients that read a signed number.
const TAGS: u64 = (1 << 15) - 1;

const LEFT: &str = "ERR this cursor was given by a server that has been left since; begin again with cursor 0";

/// What marks the cursors of an epoch; 0 in the first.
fn tag_of(epoch: u64) -> u64 {
    if epoch <= 1 { 0 } else { (epoch - 2) % TAGS + 1 }
}

fn cursor_of(spec: &Spec, request: &[u8]) -> Option<u64> {
    let cursor = resp::arguments(request).nth(position(spec))?;
    std::str::from_utf8(cursor).ok()?.parse().ok()
}

fn position(spec: &Spec) -> usize {
    if spec.name == "scan" { 1 } else { 2 }
}

/// The request with another cursor.
fn with_cursor(spec: &Spec, request: &[u8], cursor: u64) -> Vec<u8> {
    let text = cursor.to_string();
    let mut words: Vec<&[u8]> = resp::arguments(request).collect();
    words[position(spec)] = text.as_bytes();
    let mut out = Vec::with_capacity(request.len());
    resp::encode_request(&mut out, &words);
    out
}

/// The reply with its cursor marked; 0 means the end and stays.
fn marked(reply: &[u8], tag: u64) -> Option<Vec<u8>> {
    let rest = reply.strip_prefix(b"*2\r\n$")?;
    let head = rest.windows(2).position(|window| window == b"\r\n")?;
    let len: usize = std::str::from_utf8(&rest[..head]).ok()?.parse().ok()?;
    let cursor = rest.get(head + 2..head + 2 + len)?;
    let keys = rest.get(head + 2 + len + 2..)?;
    let cursor: u64 = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    if cursor == 0 || cursor >> SHIFT != 0 {
        return None;
    }
    let mut out = Vec::with_capacity(reply.len() + 8);
    write::array_len(&mut out, 2);
    write::bulk(&mut out, (tag << SHIFT | cursor).to_string().as_bytes());
    out.extend_from_slice(keys);
    Some(out)
}

impl SessionTask {
    pub(super) fn scan(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let epoch = self.session.context.route().epoch;
        let Some(cursor) = cursor_of(spec, request) else { return self.forward(spec, request) };
        let tag = tag_of(epoch);
        let continues = cursor != 0;
        if continues && cursor >> SHIFT != tag {
            return self.local_error(LEFT);
        }
        let expected = Some(Expected::Scan { epoch, continues });
        if tag == 0 || !continues {
            return self.send(spec, request, Way::Usual, expected);
        }
        let own = with_cursor(spec, request, cursor & ((1 << SHIFT) - 1));
        self.send(spec, &own, Way::Usual, expected)
    }

    /// The reply as the client gets it. One that was sent again elsewhere meanwhile has left keys out.
    pub(super) fn scanned(&self, epoch: u64, continues: bool, reply: Vec<u8>) -> Vec<u8> {
        if continues && self.session.context.route().epoch != epoch {
            let mut out = Vec::new();
            write::error(&mut out, LEFT);
            return out;
        }
        match tag_of(epoch) {
            0 => reply,
            tag => marked(&reply, tag).unwrap_or(reply),
        }
    }

    /// Why a request between MULTI and EXEC may not be queued: the replies within that of EXEC are not looked at, so only
    /// the server's own cursors of the first epoch are told apart there.
    pub(super) fn is_of_another_epoch(&self, spec: &Spec, request: &[u8]) -> bool {
        let cursor = cursor_of(spec, request).unwrap_or(0);
        cursor != 0 && (tag_of(self.session.context.route().epoch) != 0 || cursor >> SHIFT != 0)
    }

    pub(super) fn refuse_cursor(&mut self) -> Step {
        self.spoil_transaction();
        self.local_error(LEFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_epoch_marks_nothing_and_later_ones_never_nought() {
        assert_eq!((tag_of(0), tag_of(1), tag_of(2), tag_of(3)), (0, 0, 1, 2));
        assert!((2..100_000).all(|epoch| (1..=TAGS).contains(&tag_of(epoch))));
        assert!(TAGS << SHIFT | ((1 << SHIFT) - 1) <= i64::MAX as u64, "a signed number for clients");
    }

    #[test]
    fn a_cursor_is_marked_and_the_end_is_not() {
        let reply = marked(b"*2\r\n$2\r\n17\r\n*1\r\n$1\r\na\r\n", 1);
        let expected = format!("*2\r\n$15\r\n{}\r\n*1\r\n$1\r\na\r\n", (1_u64 << SHIFT) + 17);
        assert_eq!(reply, Some(expected.into_bytes()));
        assert_eq!(marked(b"*2\r\n$1\r\n0\r\n*0\r\n", 1), None);
        assert_eq!(marked(b"-ERR invalid cursor\r\n", 1), None);
    }
}
