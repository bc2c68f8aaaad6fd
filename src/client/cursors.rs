//! Cursors of SCAN and its kind across a switch. A cursor means something only on the server that gave it: on another one it
//! would leave keys out and nobody would notice. So cursors that are handed out after a switch carry the route's epoch and the
//! backend in their upper bits, and one of another epoch or backend is refused: the client begins again. On the first backend
//! nothing is changed before the first switch, and cursors are the server's own. Epochs begin anew with the process; the
//! backend in the mark keeps a cursor from before a restart of Standin from being used on another server.

use super::modes::Expected;
use super::sending::Way;
use super::special::Step;
use super::task::SessionTask;
use crate::command::Spec;
use crate::limits;
use crate::policy::BackendId;
use crate::resp::{self, write};

/// A table has fewer than 2^48 buckets.
const SHIFT: u32 = 48;
/// Of the bits above, for the backend. One is left free for clients that read a signed number.
const BACKEND_BITS: u32 = 5;
const EPOCHS: u64 = (1 << (15 - BACKEND_BITS)) - 1;
const _: () = assert!(limits::BACKENDS_PER_GROUP_MAX <= 1 << BACKEND_BITS);

const LEFT: &str = "ERR this cursor was given by a server that has been left since; begin again with cursor 0";

/// What marks the cursors of a backend in an epoch; 0 for the first backend in the first epoch.
fn tag_of(epoch: u64, backend: BackendId) -> u64 {
    let epoch = if epoch <= 1 { 0 } else { (epoch - 2) % EPOCHS + 1 };
    epoch << BACKEND_BITS | backend.index() as u64
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
        let Some(cursor) = cursor_of(spec, request) else { return self.forward(spec, request) };
        let route = self.session.context.route();
        let (epoch, tag) = (route.epoch, tag_of(route.epoch, route.active));
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
        let route = self.session.context.route();
        if continues && route.epoch != epoch {
            let mut out = Vec::new();
            write::error(&mut out, LEFT);
            return out;
        }
        // Sent before a switch and answered after it: by its epoch nobody takes it.
        match tag_of(epoch, route.active) {
            0 => reply,
            tag => marked(&reply, tag).unwrap_or(reply),
        }
    }

    /// Why a request between MULTI and EXEC may not be queued: the replies within that of EXEC are not looked at, so only
    /// the first backend's own cursors of the first epoch are told apart there.
    pub(super) fn is_of_another_epoch(&self, spec: &Spec, request: &[u8]) -> bool {
        let cursor = cursor_of(spec, request).unwrap_or(0);
        let route = self.session.context.route();
        cursor != 0 && (tag_of(route.epoch, route.active) != 0 || cursor >> SHIFT != 0)
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
    fn only_the_first_backend_in_the_first_epoch_marks_nothing() {
        let last = BackendId(limits::BACKENDS_PER_GROUP_MAX as u8 - 1);
        assert_eq!([0, 1, 2, 3].map(|epoch| tag_of(epoch, BackendId(0))), [0, 0, 32, 64]);
        assert_eq!([0, 1, 2, 3].map(|epoch| tag_of(epoch, BackendId(1))), [1, 1, 33, 65]);
        assert!((2..100_000).all(|epoch| tag_of(epoch, BackendId(0)) != 0));
        let greatest = (0..100_000).map(|epoch| tag_of(epoch, last)).max().unwrap_or_default();
        assert!(greatest << SHIFT | ((1 << SHIFT) - 1) <= i64::MAX as u64, "a signed number for clients");
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
