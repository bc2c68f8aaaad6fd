//! What becomes of requests whose connection ends or whose time is over: sent again, answered with what is known, or let
//! go.

use std::collections::VecDeque;

use super::doubt::flag_reads_in_doubt;
use super::fault::may_repeat;
use super::link::{Entry, Link, Owner, State, flag};
use crate::command::{self, Category, Class};
use crate::policy::Cause;

enum Verdict {
    Keep,
    Drop,
    Fail,
}

impl<S: Owner> Link<S> {
    /// The connection is gone: answers what must not be sent again, keeps the rest as unsent.
    pub(super) fn lose(&self) {
        self.part(self.settings.attempts_max);
    }

    /// The backend is left: as [`Self::lose`], with one sending more for each request. What was refused here until nothing
    /// was left of its attempts (LOADING, OOM) has not been tried on the next backend.
    pub(super) fn leave(&self) {
        self.part(self.settings.attempts_max.saturating_add(1));
    }

    fn part(&self, attempts_max: u8) {
        let may_repeat = |category: Category, attempts: u8| {
            may_repeat(Cause::LinkLost, category, self.settings.ceiling) && attempts < attempts_max
        };
        let mut failed = Vec::new();
        {
            let mut guard = self.queue.borrow_mut();
            let queue = &mut *guard;
            if queue.written > queue.answered {
                self.backend.add_undead(self.client_id.replace(0));
            }
            flag_reads_in_doubt(queue, may_repeat);
            let before = queue.entries.len();
            let mut kept_bytes = Vec::with_capacity(queue.bytes.len() - queue.answered);
            let mut kept = VecDeque::with_capacity(before);
            let mut start = queue.answered;
            for mut entry in queue.entries.drain(..) {
                let bytes = &queue.bytes[start..start + entry.len as usize];
                let sent = start < queue.written;
                start += entry.len as usize;
                match self.verdict(&mut entry, bytes, sent, may_repeat) {
                    Verdict::Keep => {
                        kept_bytes.extend_from_slice(bytes);
                        kept.push_back(entry);
                    }
                    Verdict::Drop => {}
                    Verdict::Fail => failed.push(entry),
                }
            }
            queue.entries = kept;
            queue.bytes = kept_bytes;
            queue.answered = 0;
            queue.written = 0;
            self.gauge().sub((before - queue.entries.len()) as u64);
        }
        self.fail(failed);
    }

    fn fail(&self, failed: Vec<Entry<S>>) {
        for entry in failed {
            self.counters().unknown_outcomes.add(1);
            let text = format!(
                "-UNKNOWNOUTCOME the connection to backend {} was lost after the request had been sent; it may or may \
                 not have been executed, and is not sent again\r\n",
                self.backend.name
            );
            deliver(&entry, text.as_bytes());
        }
    }

    /// The same backend answers again: what was sent there before is sent once more as far as the retry budget goes.
    /// What goes to another backend instead is free, so this is not decided when the connection is lost.
    pub(super) fn charge_repeats(&self) {
        let (mut failed, mut doubtful) = (Vec::new(), Vec::new());
        {
            let mut guard = self.queue.borrow_mut();
            let queue = &mut *guard;
            if !queue.entries.iter().any(|entry| entry.flags & flag::REPEAT != 0) {
                return;
            }
            let before = queue.entries.len();
            let mut kept_bytes = Vec::with_capacity(queue.bytes.len());
            let mut kept = VecDeque::with_capacity(before);
            let mut start = queue.answered;
            for mut entry in queue.entries.drain(..) {
                let end = start + entry.len as usize;
                if entry.flags & flag::DOUBTFUL != 0 {
                    doubtful.push(entry);
                } else if entry.flags & flag::REPEAT != 0 && !self.budget.try_take() {
                    failed.push(entry);
                } else {
                    entry.flags &= !flag::REPEAT;
                    kept_bytes.extend_from_slice(&queue.bytes[start..end]);
                    kept.push_back(entry);
                }
                start = end;
            }
            self.gauge().sub((before - kept.len()) as u64);
            queue.entries = kept;
            queue.bytes = kept_bytes;
            queue.answered = 0;
            queue.written = 0;
        }
        self.fail(failed);
        for entry in doubtful {
            self.answer_doubtful(&entry);
        }
    }

    /// Answers a read that the server which may have executed it must not be asked again.
    pub fn answer_doubtful(&self, entry: &Entry<S>) {
        self.counters().unknown_outcomes.add(1);
        let text = format!(
            "-UNKNOWNOUTCOME the connection to backend {} was lost before this read was answered, and a later write of \
             the same client may have been executed there; the read is not sent again\r\n",
            self.backend.name
        );
        deliver(entry, text.as_bytes());
    }

    fn verdict(
        &self,
        entry: &mut Entry<S>,
        bytes: &[u8],
        sent: bool,
        may_repeat: impl Fn(Category, u8) -> bool,
    ) -> Verdict {
        if entry.flags & flag::AHEAD != 0 {
            // What follows it was promised that it goes before, so it is kept also when nobody wants what followed.
            entry.confirmations = u32::from(entry.attempts);
            entry.seq = 0;
            return Verdict::Keep;
        }
        let category = category(bytes);
        let only_queued = entry.flags & flag::QUEUED != 0;
        if sent && category > Category::Read && !only_queued {
            self.host.unknown_write(self, bytes);
        }
        if entry.flags & flag::STREAMING != 0 {
            entry.owner.cut_off();
            return Verdict::Drop;
        }
        if entry.flags & flag::ABANDONED != 0 || entry.owner.is_gone() {
            return Verdict::Drop;
        }
        if !sent || only_queued {
            return Verdict::Keep;
        }
        if !may_repeat(category, entry.attempts) {
            return Verdict::Fail;
        }
        entry.attempts += 1;
        entry.flags |= flag::REPEAT;
        if category > Category::Read {
            entry.flags |= flag::UNSETTLED;
        }
        self.counters().retries.add(1);
        Verdict::Keep
    }

    /// Answers every request with an error of the server's own words: it cannot be served on this lane at all.
    pub(super) fn fail_all(&self, error_line: &str) {
        let mut queue = self.queue.borrow_mut();
        let entries: Vec<_> = queue.entries.drain(..).collect();
        queue.bytes.clear();
        queue.answered = 0;
        queue.written = 0;
        drop(queue);
        self.gauge().sub(entries.len() as u64);
        for entry in &entries {
            deliver(entry, error_line.as_bytes());
        }
    }

    /// Answers requests whose life is over; returns when the next one's may end, in microseconds since the origin.
    pub(super) fn sweep(&self, now_us: u64) {
        let mut expired = Vec::new();
        let is_line_full = self.is_line_full(now_us);
        {
            let mut guard = self.queue.borrow_mut();
            let queue = &mut *guard;
            if !queue.entries.iter().any(|entry| self.is_expired(entry, now_us, is_line_full)) {
                return;
            }
            let mut start = queue.answered;
            let mut kept_bytes = Vec::new();
            let mut kept = VecDeque::with_capacity(queue.entries.len());
            let before = queue.entries.len();
            for mut entry in queue.entries.drain(..) {
                let range = start..start + entry.len as usize;
                start = range.end;
                let sent = range.start < queue.written;
                if self.is_expired(&entry, now_us, is_line_full) {
                    let category = category(&queue.bytes[range.clone()]);
                    expired.push((entry.clone(), sent, category));
                    if !sent {
                        continue;
                    }
                    if category > Category::Read {
                        self.host.unknown_write(self, &queue.bytes[range.clone()]);
                        let is_mirrored = entry.flags & flag::ASIDE != 0;
                        self.gives_up.set(self.gives_up.get() || self.pinned && is_mirrored);
                    }
                    entry.flags |= flag::ABANDONED;
                }
                kept_bytes.extend_from_slice(&queue.bytes[range]);
                kept.push_back(entry);
            }
            queue.written -= queue.answered;
            queue.answered = 0;
            queue.bytes = kept_bytes;
            queue.entries = kept;
            self.gauge().sub((before - queue.entries.len()) as u64);
        }
        for (entry, sent, category) in expired {
            self.expire(&entry, sent || entry.flags & flag::UNSETTLED != 0, category);
        }
    }

    fn is_expired(&self, entry: &Entry<S>, now_us: u64, is_line_full: bool) -> bool {
        if self.state.get() == State::Ready && self.backend.slow_until_us() > now_us {
            // The server is at work on a slow request, or paused by order: nobody behind it is late.
            return false;
        }
        let is_connecting = self.state.get() == State::Connecting;
        // Nobody is at work on what has no connection, however long it would take there.
        let unserved_us = now_us.saturating_sub(entry.at_us.max(self.connecting_since_us.get()));
        let request_us = self.backend.timing.request.as_micros() as u64;
        let is_waiting = entry.flags & (flag::ABANDONED | flag::STREAMING) == 0;
        if is_connecting
            && is_waiting
            && entry.class != Class::Blocking
            && unserved_us >= request_us + entry.transit_us()
        {
            return true;
        }
        let life = match entry.class {
            Class::Blocking => return false,
            _ if is_line_full => self.backend.timing.slow,
            Class::Script | Class::Slow | Class::Admin => self.backend.timing.slow,
            Class::PointRead | Class::Write | Class::MultiKey => self.backend.timing.request,
        };
        is_waiting && now_us.saturating_sub(entry.at_us) >= life.as_micros() as u64 + entry.transit_us()
    }

    fn expire(&self, entry: &Entry<S>, sent: bool, category: Category) {
        self.counters().fail(Cause::RequestUnanswered.meaning().kind, 1);
        let name = &self.backend.name;
        if !sent {
            self.counters().unserved.add(1);
        }
        let text = if !sent && self.backend.is_sealed(self.lane.database) {
            sealed_text(name, self.lane.database)
        } else if !sent {
            format!("-NOBACKEND backend {name} cannot serve and no other one can; the request was not executed\r\n")
        } else if category == Category::Read {
            format!("-TIMEOUT backend {name} did not answer in time\r\n")
        } else {
            self.counters().unknown_outcomes.add(1);
            format!("-UNKNOWNOUTCOME backend {name} did not answer in time; the request may or may not be executed\r\n")
        };
        deliver(entry, text.as_bytes());
    }
}

/// The retry category of a request. Found from its bytes when a fault has happened, not for every request before one.
pub(super) fn category(bytes: &[u8]) -> Category {
    command::of_request(bytes).category(bytes)
}

/// What those are told who want to use a sealed database.
pub fn sealed_text(backend: &str, database: u32) -> String {
    format!(
        "-NOBACKEND database {database} of backend {backend} holds keys that may be old and could not be emptied; see \
         `standin status`; the request was not sent\r\n"
    )
}

/// Hands one reply to the owner of its request, by the way the entry asks for.
pub(super) fn deliver<S: Owner>(entry: &Entry<S>, reply: &[u8]) {
    if entry.flags & flag::ABANDONED != 0 {
        return;
    }
    if entry.flags & flag::SPECIAL != 0 {
        entry.owner.special(entry.seq, reply);
    } else {
        entry.owner.replies(entry.seq, 1, reply);
    }
}
