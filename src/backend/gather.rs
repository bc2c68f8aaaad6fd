//! When requests for a link wait a moment for company, so that many leave with one write.
//!
//! A server that works through its connection in order gains nothing from a request that arrives before it has answered
//! what it was sent earlier, while every write costs both sides a system call and a wake-up. So while the last write is
//! unanswered, what comes next is gathered, and leaves in one piece with the first reply, as Nagle's algorithm has it.
//! That is only free where replies come at once: a server that is far away answers late, and what waited for that reply
//! would arrive by so much later. Therefore nothing waits before a short answer time was seen on this very connection,
//! nor behind a request that may rightly take long, nor when all requests are those of one client.

use std::cell::Cell;

/// Answer time, in microseconds, up to which requests may wait for the answer to those before them.
const QUICK_US: u64 = 100;
/// Gathered bytes that leave at once: Redis and Valkey take as many with one read (`PROTO_IOBUF_LEN`).
const FULL_BYTES: usize = 16 * 1024;
/// A write that is still unanswered after this long, in microseconds, holds nothing back any more.
const PATIENCE_US: u64 = 1_000;
/// Largest write whose answer time tells about the way to the server and not about its work.
const SAMPLE_BYTES: usize = 1024;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Gather {
    /// When the last write went out, as long as nothing was read after it; 0 = something was.
    unanswered_since_us: Cell<u64>,
    /// The unanswered write tells the answer time: nothing else was under way, and it was small.
    is_sample: Cell<bool>,
    /// Answer time of this connection: falls at once, rises slowly.
    answer_us: Cell<u64>,
}

impl Default for Gather {
    fn default() -> Self {
        Self { unanswered_since_us: Cell::new(0), is_sample: Cell::new(false), answer_us: Cell::new(u64::MAX) }
    }
}

impl Gather {
    /// Forgets the connection that has ended.
    pub(super) fn reset(&self) {
        self.unanswered_since_us.set(0);
        self.answer_us.set(u64::MAX);
    }

    /// Whether `unwritten` bytes may wait for the answer to what was written before them.
    pub(super) fn holds(&self, unwritten: usize, now_us: u64) -> bool {
        let since_us = self.unanswered_since_us.get();
        since_us != 0
            && unwritten < FULL_BYTES
            && self.answer_us.get() <= QUICK_US
            && now_us.saturating_sub(since_us) < PATIENCE_US
    }

    /// `bytes` were written while `outstanding` earlier ones were unanswered.
    pub(super) fn wrote(&self, bytes: usize, outstanding: usize, now_us: u64) {
        if bytes == 0 {
            return;
        }
        self.unanswered_since_us.set(now_us);
        self.is_sample.set(outstanding == 0 && bytes <= SAMPLE_BYTES);
    }

    /// Something was read.
    pub(super) fn read(&self, now_us: u64) {
        let since_us = self.unanswered_since_us.replace(0);
        if since_us == 0 || !self.is_sample.get() {
            return;
        }
        let sample_us = now_us.saturating_sub(since_us);
        let known_us = self.answer_us.get();
        let rise_us = if known_us == u64::MAX { sample_us } else { known_us + sample_us.saturating_sub(known_us) / 8 };
        self.answer_us.set(sample_us.min(rise_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection whose first request was answered after `answer_us`; the time is 1,000,000 then.
    fn connection(answer_us: u64) -> Gather {
        let gather = Gather::default();
        gather.wrote(40, 0, 1_000_000 - answer_us);
        gather.read(1_000_000);
        gather
    }

    #[test]
    fn what_comes_while_a_write_is_unanswered_waits_for_its_answer() {
        let gather = connection(50);
        assert!(!gather.holds(40, 1_000_000));
        gather.wrote(40, 0, 1_000_010);
        assert!(gather.holds(40, 1_000_020));
        gather.read(1_000_060);
        assert!(!gather.holds(40, 1_000_061));
    }

    #[test]
    fn nothing_waits_on_a_new_connection_or_for_a_server_that_is_far_away() {
        for gather in [Gather::default(), connection(QUICK_US + 1)] {
            gather.wrote(40, 0, 1_000_010);
            assert!(!gather.holds(40, 1_000_020));
        }
        let gather = connection(50);
        gather.reset();
        gather.wrote(40, 0, 1_000_010);
        assert!(!gather.holds(40, 1_000_020));
    }

    #[test]
    fn what_fills_one_read_of_the_server_leaves_at_once() {
        let gather = connection(50);
        gather.wrote(40, 0, 1_000_010);
        assert!(gather.holds(FULL_BYTES - 1, 1_000_020));
        assert!(!gather.holds(FULL_BYTES, 1_000_020));
    }

    #[test]
    fn a_server_that_has_fallen_silent_holds_nothing_back() {
        let gather = connection(50);
        gather.wrote(40, 0, 1_000_010);
        assert!(!gather.holds(40, 1_000_010 + PATIENCE_US));
    }

    #[test]
    fn only_small_writes_with_nothing_under_way_tell_how_far_the_server_is() {
        let gather = connection(50);
        // Its own work, or the rest of an earlier answer: says nothing about the way.
        for (bytes, outstanding) in [(SAMPLE_BYTES + 1, 0), (40, 40)] {
            gather.wrote(bytes, outstanding, 2_000_000);
            gather.read(2_000_900);
            gather.wrote(40, 0, 3_000_000);
            assert!(gather.holds(40, 3_000_001));
            gather.read(3_000_050);
        }
        // A path that has become longer is believed after a few answers, a shorter one at once.
        for at in 4..12 {
            gather.wrote(40, 0, at * 1_000_000);
            gather.read(at * 1_000_000 + 300);
        }
        gather.wrote(40, 0, 20_000_000);
        assert!(!gather.holds(40, 20_000_001));
        gather.read(20_000_050);
        gather.wrote(40, 0, 21_000_000);
        assert!(gather.holds(40, 21_000_001));
    }
}
