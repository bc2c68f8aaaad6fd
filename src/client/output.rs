//! Replies on their way to one client: in order, wherever they come from, with as few copies and writes as possible.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Replies that came before their turn.
struct Parked {
    seq: u32,
    count: u32,
    bytes: Vec<u8>,
    /// More of this reply follows.
    partial: bool,
}

/// Order and output buffer of one session. Whoever has the reply to the head may write it straight to the socket, as
/// long as nothing waits in the buffer.
#[derive(Default)]
pub(super) struct Output {
    /// Sequence number of the reply that must leave next.
    head: Cell<u32>,
    /// Sequence number of the next request.
    next: Cell<u32>,
    parked: RefCell<VecDeque<Parked>>,
    parked_bytes: Cell<usize>,
    waiting: RefCell<Vec<u8>>,
    sent: Cell<usize>,
}

impl Output {
    /// Gives the next request its place in the order.
    pub(super) fn place(&self) -> u32 {
        let seq = self.next.get();
        self.next.set(seq.wrapping_add(1));
        seq
    }

    /// Requests without their reply.
    pub(super) fn in_flight(&self) -> u32 {
        self.next.get().wrapping_sub(self.head.get())
    }

    /// Whether the reply to the request at this place has had its turn.
    pub(super) fn has_left(&self, seq: u32) -> bool {
        (self.head.get().wrapping_sub(seq) as i32) > 0
    }

    /// Bytes that the socket has not taken yet.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.borrow().len() - self.sent.get()
    }

    /// All bytes that are kept, those among them whose turn has not come.
    pub(super) fn held_bytes(&self) -> usize {
        self.waiting_bytes() + self.parked_bytes.get()
    }

    /// Replies to `count` requests from `seq` on. `direct` writes what the socket takes at once and says how much.
    /// Returns whether bytes are left that the session must flush.
    pub(super) fn replies(&self, seq: u32, count: u32, bytes: &[u8], direct: impl FnOnce(&[u8]) -> usize) -> bool {
        if seq != self.head.get() {
            self.park(Parked { seq, count, bytes: bytes.to_vec(), partial: false });
            return false;
        }
        self.head.set(seq.wrapping_add(count));
        let left = self.emit(bytes, direct);
        self.release_parked() || left
    }

    /// A piece of a reply whose end is still to come.
    pub(super) fn partial(&self, seq: u32, bytes: &[u8], direct: impl FnOnce(&[u8]) -> usize) -> bool {
        if seq != self.head.get() {
            self.park(Parked { seq, count: 0, bytes: bytes.to_vec(), partial: true });
            return false;
        }
        self.emit(bytes, direct)
    }

    /// Bytes outside the order of replies: messages, monitor lines.
    pub(super) fn out_of_band(&self, bytes: &[u8], direct: impl FnOnce(&[u8]) -> usize) -> bool {
        self.emit(bytes, direct)
    }

    fn emit(&self, bytes: &[u8], direct: impl FnOnce(&[u8]) -> usize) -> bool {
        if bytes.is_empty() {
            return false;
        }
        let mut waiting = self.waiting.borrow_mut();
        let written = if waiting.is_empty() { direct(bytes) } else { 0 };
        waiting.extend_from_slice(&bytes[written..]);
        written < bytes.len()
    }

    fn park(&self, parked: Parked) {
        let mut all = self.parked.borrow_mut();
        self.parked_bytes.set(self.parked_bytes.get() + parked.bytes.len());
        if let Some(same) = all.iter_mut().find(|other| other.seq == parked.seq) {
            // The rest of a reply of which a piece is parked already.
            same.bytes.extend_from_slice(&parked.bytes);
            same.count = parked.count;
            same.partial = parked.partial;
            return;
        }
        let base = self.head.get();
        let at = all.partition_point(|other| other.seq.wrapping_sub(base) < parked.seq.wrapping_sub(base));
        all.insert(at, parked);
    }

    /// Moves what has its turn now into the buffer.
    fn release_parked(&self) -> bool {
        let mut parked = self.parked.borrow_mut();
        let mut moved = false;
        while parked.front().is_some_and(|first| first.seq == self.head.get()) {
            let Some(first) = parked.pop_front() else { break };
            self.parked_bytes.set(self.parked_bytes.get() - first.bytes.len());
            self.waiting.borrow_mut().extend_from_slice(&first.bytes);
            moved = true;
            if first.partial {
                break;
            }
            self.head.set(first.seq.wrapping_add(first.count));
        }
        moved
    }

    /// Writes what waits through `write`, which returns how much was taken, or `None` when the socket takes no more.
    pub(super) fn flush(&self, mut write: impl FnMut(&[u8]) -> Option<usize>) {
        let mut waiting = self.waiting.borrow_mut();
        while self.sent.get() < waiting.len() {
            match write(&waiting[self.sent.get()..]) {
                Some(n) => self.sent.set(self.sent.get() + n),
                None => break,
            }
        }
        if self.sent.get() == waiting.len() {
            // Idle clients keep no buffer.
            *waiting = Vec::new();
            self.sent.set(0);
        } else if self.sent.get() > waiting.len() / 2 {
            waiting.drain(..self.sent.replace(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes everything at once.
    fn socket(sink: &RefCell<Vec<u8>>) -> impl Fn(&[u8]) -> usize + '_ {
        |bytes| {
            sink.borrow_mut().extend_from_slice(bytes);
            bytes.len()
        }
    }

    fn drained(output: &Output, sink: &RefCell<Vec<u8>>) -> String {
        output.flush(|bytes| {
            sink.borrow_mut().extend_from_slice(bytes);
            Some(bytes.len())
        });
        String::from_utf8(sink.borrow().clone()).unwrap_or_default()
    }

    #[test]
    fn what_waits_for_its_turn_counts_as_held() {
        let (output, sink) = (Output::default(), RefCell::new(Vec::new()));
        let first = output.place();
        let (second, third) = (output.place(), output.place());
        output.partial(third, b"+th", socket(&sink));
        output.replies(third, 1, b"ird\r\n", socket(&sink));
        output.replies(second, 1, b"+second\r\n", socket(&sink));
        assert_eq!((output.waiting_bytes(), output.held_bytes()), (0, 17), "they could grow without bound otherwise");
        output.replies(first, 1, b"+first\r\n", socket(&sink));
        output.flush(|bytes| Some(socket(&sink)(bytes)));
        assert_eq!(sink.borrow().as_slice(), b"+first\r\n+second\r\n+third\r\n");
        assert_eq!(output.held_bytes(), 0);
    }

    #[test]
    fn replies_leave_in_the_order_of_their_requests_wherever_they_come_from() {
        let (output, sink) = (Output::default(), RefCell::new(Vec::new()));
        for _ in 0..4 {
            output.place();
        }
        assert!(!output.replies(2, 1, b"c", socket(&sink)));
        assert!(!output.replies(3, 1, b"d", socket(&sink)));
        assert!(!output.replies(1, 1, b"b", socket(&sink)));
        assert_eq!(output.in_flight(), 4);
        assert!(output.replies(0, 1, b"a", socket(&sink)));
        assert_eq!(drained(&output, &sink), "abcd");
        assert_eq!(output.in_flight(), 0);
    }

    #[test]
    fn a_reply_in_pieces_holds_back_those_behind_it() {
        let (output, sink) = (Output::default(), RefCell::new(Vec::new()));
        for _ in 0..3 {
            output.place();
        }
        output.partial(1, b"x1", socket(&sink));
        output.replies(2, 1, b"y", socket(&sink));
        output.replies(0, 1, b"w", socket(&sink));
        assert_eq!(drained(&output, &sink), "wx1");
        output.replies(1, 1, b"x2", socket(&sink));
        assert_eq!(drained(&output, &sink), "wx1x2y");
    }

    #[test]
    fn what_the_socket_does_not_take_is_kept_and_nothing_overtakes_it() {
        let (output, sink) = (Output::default(), RefCell::new(Vec::new()));
        output.place();
        output.place();
        assert!(output.replies(0, 1, b"abc", |bytes| {
            sink.borrow_mut().push(bytes[0]);
            1
        }));
        assert!(output.replies(1, 1, b"de", socket(&sink)));
        assert_eq!(output.waiting_bytes(), 4);
        assert_eq!(drained(&output, &sink), "abcde");
    }
}
