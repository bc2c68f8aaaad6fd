//! Cuts replies out of what a backend sends and hands them to the sessions that wait for them.
//!
//! Replies to consecutive requests of one session lie side by side in the read buffer: they go out as one slice, with
//! one write and no copy.

use std::cell::Cell;
use std::marker::PhantomData;

use super::driver::{ErrorVerdict, judge_error};
use super::link::{Entry, Link, Owner, Queue, flag, shrink};
use super::loss::{category, deliver};
use crate::command::{Category, Class};
use crate::limits::READ_CHUNK_BYTES;
use crate::resp::{self, ProtocolError, ReplyScanner};

/// An incomplete reply of this size is forwarded in pieces, so that none must fit into memory.
const STREAM_BYTES: usize = 4 * READ_CHUNK_BYTES;
/// Answered request bytes at the front of a queue that are worth moving the rest for.
const COMPACT_BYTES: usize = READ_CHUNK_BYTES;

/// The read side of one connection.
pub(super) struct Cutter<S> {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    scanner: ReplyScanner,
    /// The host was told of writes in the present turn.
    has_acknowledged: bool,
    /// Blocks whose last reply has come: owner, bytes, whether one was refused.
    blocks: Vec<(S, Vec<u8>, bool)>,
    last: Cell<LastReply>,
    owners: PhantomData<S>,
}

/// Whose reply was the last, and when; kept for [`Cutter::took_us`].
#[derive(Clone, Copy, Default)]
struct LastReply {
    owner: usize,
    at_us: u64,
    /// When a reply of the same session came before that, in an earlier turn; 0 when another session's came since.
    earlier_us: u64,
}

/// Replies that will leave in one slice.
struct Run<S> {
    owner: S,
    seq: u32,
    count: u32,
    start: usize,
    end: usize,
    class: Class,
    at_us: u64,
}

/// A server that sends what nobody asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum CutError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("a reply came that no request waits for")]
    Unasked,
}

impl<S: Owner> Cutter<S> {
    pub(super) fn new(link: &Link<S>) -> Self {
        // A pinned connection often carries one short reply; thousands of them must stay small.
        let bytes = if link.pinned { READ_CHUNK_BYTES / 16 } else { READ_CHUNK_BYTES };
        Self {
            buffer: vec![0; bytes],
            start: 0,
            end: 0,
            scanner: ReplyScanner::default(),
            has_acknowledged: false,
            blocks: Vec::new(),
            last: Cell::default(),
            owners: PhantomData,
        }
    }

    /// Where the next bytes of the socket go; never empty.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buffer.len() > 2 * STREAM_BYTES {
                // A long reply that could not be forwarded in pieces is over.
                self.buffer.truncate(READ_CHUNK_BYTES);
                self.buffer.shrink_to_fit();
            }
        }
        let room = self.buffer.len() - self.end;
        if room < self.buffer.len() / 2 && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            let len = self.buffer.len();
            let grown = (len * 2).min(2 * STREAM_BYTES).max(len + len / 2);
            self.buffer.resize(grown, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Hands on every reply that is complete now, after `n` bytes were read into [`Self::space`].
    pub(super) fn received(&mut self, link: &Link<S>, n: usize, now_us: u64) -> Result<(), CutError> {
        self.end += n;
        link.counters().last_progress_us.set(now_us);
        link.note_received(n as u64, now_us);
        let mut queue = link.queue.borrow_mut();
        let before = queue.entries.len();
        let result = self.cut(link, &mut queue, now_us);
        if std::mem::take(&mut self.has_acknowledged) {
            link.host.acknowledged_all(link, now_us);
        }
        let answered = before - queue.entries.len();
        link.gauge().sub(answered as u64);
        link.budget.answered(answered);
        compact(&mut queue);
        drop(queue);
        for (owner, bytes, refused) in self.blocks.drain(..) {
            link.host.block_answered(link, &owner, &bytes, refused);
        }
        link.host.turned();
        result
    }

    fn cut(&mut self, link: &Link<S>, queue: &mut Queue<S>, now_us: u64) -> Result<(), CutError> {
        let limits = &link.settings.frame_limits;
        let mut run: Option<Run<S>> = None;
        let result = loop {
            let len = match self.scanner.scan(&self.buffer[self.start..self.end], limits) {
                Ok(Some(len)) => len,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            let (start, end) = (self.start, self.start + len);
            self.start = end;
            let first = self.buffer[start];
            if link.pinned || resp::is_push(first) {
                self.flush(link, run.take(), now_us);
                if self.aside(link, queue, start, end) {
                    continue;
                }
            }
            let Some(entry) = queue.entries.pop_front() else { break Err(CutError::Unasked) };
            queue.answered += entry.len as usize;
            if entry.flags & flag::ASIDE != 0 && was_executed(&entry, first) {
                let bytes = &queue.bytes[queue.answered - entry.len as usize..queue.answered];
                link.host.acknowledged(link, &entry, bytes, now_us);
                self.has_acknowledged = true;
            }
            let plain = entry.flags & !flag::ASIDE == 0 && first != b'-' && first != b'!' && queue.delayed.is_empty();
            if !plain {
                self.flush(link, run.take(), now_us);
                if entry.flags & flag::FENCE != 0 {
                    link.fence_answered(entry.confirmations);
                }
                if entry.flags & flag::AHEAD != 0 {
                    self.block_answered(queue, entry, first);
                } else {
                    self.unusual(link, queue, entry, start, end, now_us);
                }
                continue;
            }
            match &mut run {
                Some(run)
                    if run.owner.same_as(&entry.owner)
                        && run.class == entry.class
                        // A request between them may have been answered otherwise when a connection was lost.
                        && run.seq.wrapping_add(run.count) == entry.seq =>
                {
                    run.count += 1;
                    run.end = end;
                }
                _ => {
                    let next = Run {
                        owner: entry.owner,
                        seq: entry.seq,
                        count: 1,
                        start,
                        end,
                        class: entry.class,
                        at_us: entry.at_us,
                    };
                    self.flush(link, run.replace(next), now_us);
                }
            }
        };
        self.flush(link, run, now_us);
        if result.is_ok() {
            self.stream(link, queue, now_us);
        }
        result
    }

    /// One of the replies to a block that was written ahead; `Entry::seq` remembers a refusal until the last has come.
    fn block_answered(&mut self, queue: &mut Queue<S>, mut entry: Entry<S>, first: u8) {
        entry.seq |= u32::from(matches!(first, b'-' | b'!'));
        entry.confirmations = entry.confirmations.saturating_sub(1);
        if entry.confirmations > 0 {
            queue.answered -= entry.len as usize;
            return queue.entries.push_front(entry);
        }
        let bytes = queue.bytes[queue.answered - entry.len as usize..queue.answered].to_vec();
        self.blocks.push((entry.owner, bytes, entry.seq != 0));
    }

    fn flush(&self, link: &Link<S>, run: Option<Run<S>>, now_us: u64) {
        if let Some(run) = run {
            let took_us = self.took_us(link, &run.owner, run.at_us, now_us);
            link.counters().answer(run.class, took_us, u64::from(run.count));
            run.owner.replies(run.seq, run.count, &self.buffer[run.start..run.end]);
        }
    }

    /// How long the server took for a reply, as far as that is its doing. A session that asks for more than the line
    /// carries waits behind its own replies: while they come one behind the other, without a pause and as fast as a slow
    /// line carries them, what is longer than any allowance counts from the last of them on. A server that is slow
    /// itself sends less, or pauses, and all of it counts.
    fn took_us(&self, link: &Link<S>, owner: &S, at_us: u64, now_us: u64) -> u64 {
        let mut last = self.last.get();
        if last.owner != owner.id() {
            last = LastReply { owner: owner.id(), at_us: now_us, earlier_us: 0 };
        } else if last.at_us != now_us {
            last = LastReply { at_us: now_us, earlier_us: last.at_us, ..last };
        }
        self.last.set(last);
        let waited_us = now_us.saturating_sub(at_us);
        if waited_us >= link.backend.timing.floor.as_micros() as u64 && link.is_line_steadily_full(now_us) {
            return now_us.saturating_sub(at_us.max(last.earlier_us));
        }
        waited_us
    }

    /// A frame that is no plain answer: a push, a message, a confirmation. Returns whether it was dealt with.
    fn aside(&self, link: &Link<S>, queue: &mut Queue<S>, start: usize, end: usize) -> bool {
        let frame = &self.buffer[start..end];
        if link.drops(frame) {
            return true;
        }
        let owner = link.owner.borrow();
        let Some(owner) = owner.as_ref() else {
            // Multiplexed: nobody asked for pushes here. Idle in the pool: nobody waits.
            return resp::is_push(frame[0]);
        };
        if owner.is_out_of_band(frame) {
            owner.out_of_band(frame);
            return true;
        }
        let Some(head) = queue.entries.front_mut() else {
            owner.out_of_band(frame);
            return true;
        };
        if head.flags & flag::SUBSCRIPTION != 0 && frame[0] != b'-' {
            if head.flags & flag::ABANDONED == 0 {
                owner.out_of_band(frame);
            }
            head.confirmations = head.confirmations.saturating_sub(1);
            if head.confirmations == 0
                && let Some(entry) = queue.entries.pop_front()
            {
                queue.answered += entry.len as usize;
                if entry.flags & flag::ABANDONED == 0 {
                    entry.owner.special(entry.seq, b"");
                }
            }
            return true;
        }
        false
    }

    /// A reply that someone wants to see before the client does, or an error.
    fn unusual(
        &self,
        link: &Link<S>,
        queue: &mut Queue<S>,
        mut entry: Entry<S>,
        start: usize,
        end: usize,
        now_us: u64,
    ) {
        let reply = &self.buffer[start..end];
        link.counters().answer(entry.class, self.took_us(link, &entry.owner, entry.at_us, now_us), 1);
        // One that came in pieces is flagged, so that its end is seen here.
        link.long_reply_since_us.set(0);
        let streaming = entry.flags & flag::STREAMING != 0;
        let is_error = !streaming && matches!(reply[0], b'-' | b'!');
        // What follows a repeated request of the same session is repeated with it, if it only reads: it must not be
        // answered by a state from before.
        let follows =
            queue.delayed.iter().find(|(_, delayed, _)| delayed.owner.same_as(&entry.owner)).map(|(at, ..)| *at);
        let from = queue.answered - entry.len as usize;
        let request = &queue.bytes[from..queue.answered];
        let due = match follows {
            Some(due) if entry.flags & !flag::ASIDE == 0 && category(request) == Category::Read => Some(due),
            _ if is_error && entry.flags & flag::ABANDONED == 0 => match judge_error(link, &entry, reply) {
                ErrorVerdict::Deliver => None,
                ErrorVerdict::Repeat => Some(follows.unwrap_or_else(|| now_us + backoff(link, entry.attempts))),
            },
            _ => None,
        };
        let Some(due) = due else {
            entry.flags &= !flag::STREAMING;
            if follows.is_some() && !is_error && category(request) > Category::Read {
                give_up_repeats(queue, &entry.owner);
            }
            deliver(&entry, reply);
            return;
        };
        entry.attempts += 1;
        link.counters().retries.add(1);
        entry.owner.repeating();
        let bytes = request.to_vec();
        queue.delayed.push((due, entry, bytes));
    }

    /// Forwards the beginning of a long reply that is still arriving.
    fn stream(&mut self, link: &Link<S>, queue: &mut Queue<S>, now_us: u64) {
        let len = self.end - self.start;
        if len < STREAM_BYTES {
            return;
        }
        let Some(head) = queue.entries.front_mut() else { return };
        let kind = self.buffer[self.start];
        let fresh = head.flags & flag::STREAMING == 0;
        let special = head.flags & (flag::SPECIAL | flag::SUBSCRIPTION) != 0;
        if special
            || (fresh && matches!(kind, b'-' | b'!' | b'>'))
            || (link.pinned && fresh && matches!(kind, b'*' | b'+'))
        {
            return;
        }
        if link.long_reply_since_us.get() == 0 {
            link.long_reply_since_us.set(now_us);
        }
        let known = self.scanner.scanned().min(len);
        if head.flags & flag::ABANDONED == 0 {
            head.flags |= flag::STREAMING;
            head.owner.partial(head.seq, &self.buffer[self.start..self.start + known]);
        }
        self.scanner.consume_prefix(known);
        self.start += known;
    }
}

/// Whether a reply that begins with this byte says that the write was executed. A script that fails keeps what it wrote
/// before; of a long reply only the end is at hand.
fn was_executed<S>(entry: &Entry<S>, first: u8) -> bool {
    !matches!(first, b'-' | b'!') || entry.class == Class::Script || entry.flags & flag::STREAMING != 0
}

/// A later write of the session was executed: its earlier requests that wait to be repeated came too late. Nothing of
/// them was executed, and now nothing will be, or they would undo what came after them.
fn give_up_repeats<S: Owner>(queue: &mut Queue<S>, owner: &S) {
    let mut given_up = Vec::new();
    queue.delayed.retain(|(_, entry, _)| {
        let is_theirs = entry.owner.same_as(owner);
        if is_theirs {
            given_up.push(entry.clone());
        }
        !is_theirs
    });
    for entry in given_up {
        entry.owner.repeated();
        let text = b"-TRYAGAIN the server could not take the request, and took a later one of the same client meanwhile; it was not executed\r\n";
        deliver(&entry, text);
    }
}

/// Full jitter within a doubling span.
fn backoff<S: Owner>(link: &Link<S>, attempts: u8) -> u64 {
    let settings = &link.settings;
    let span = (settings.backoff_min_us << attempts.min(10)).min(settings.backoff_max_us).max(1);
    1 + link.host.jitter() % span
}

/// Drops the answered bytes at the front once that is cheap: all are answered, or more than half.
fn compact<S>(queue: &mut Queue<S>) {
    if queue.answered == queue.bytes.len() {
        queue.bytes.clear();
        shrink(&mut queue.bytes);
    } else if queue.answered >= COMPACT_BYTES && queue.answered * 2 >= queue.bytes.len() {
        queue.bytes.drain(..queue.answered);
    } else {
        return;
    }
    queue.written -= queue.answered;
    queue.answered = 0;
}
