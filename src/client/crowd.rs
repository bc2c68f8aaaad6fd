//! When hundreds of clients speak at once, a worker that looks at its sockets as soon as it can finds a handful of requests
//! each time: every look, and every write to the backend and read from it, is paid for by few. So it pauses before it looks,
//! and finds more. What that costs and gains is in docs/performance.md.
//!
//! It does so only while it is at work for most of its time, when requests wait for their turn anyway. The pauses fall into
//! what `backend::gather` takes for the time of an answer: in a crowd it holds less back, and need not.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// So many clients make a crowd, if all of them have spoken within one window. Fewer are better served at once.
const CROWD: u32 = 128;
/// A window ends with the first turn after this.
const WINDOW_US: u64 = 5_000;
/// The worker must be at work for this share of a window.
const BUSY_PERCENT: u64 = 50;
/// A turn in which so much was heard needs no longer batches.
const WELL_FILLED: u32 = 64;
/// The kernel's timer slack adds 50 us.
const PAUSE: Duration = Duration::from_micros(20);
/// Where so many pauses take longer than this on the average, timers are too coarse, and there are no more.
const JUDGED: u32 = 256;
const LONGEST_US: u64 = 1_000;

/// Who has spoken to one worker lately. Touched by its thread alone; atomic for the runtime's hooks.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The window began then, in microseconds since the origin.
    since_us: AtomicU64,
    /// Clients that have spoken in this window, and how long the worker has rested in it.
    clients: AtomicU32,
    rested_us: AtomicU64,
    /// The last window was one of a crowd.
    is_crowd: AtomicU32,
    /// How often clients were heard in the present turn.
    in_turn: AtomicU32,
    /// When the last turn ended.
    ended_us: AtomicU64,
    /// Pauses so far, and what they took.
    pauses: AtomicU32,
    paused_us: AtomicU64,
}

impl Crowd {
    /// A client has sent something, and did so last at `before_us`.
    pub(super) fn heard(&self, before_us: u64) {
        self.in_turn.store(self.in_turn.load(Relaxed).wrapping_add(1), Relaxed);
        if before_us < self.since_us.load(Relaxed) {
            self.clients.store(self.clients.load(Relaxed) + 1, Relaxed);
        }
    }

    /// A turn ends: how long to pause before the next.
    pub(super) fn turn_ends(&self, now_us: u64) -> Option<Duration> {
        self.ended_us.store(now_us, Relaxed);
        let window_us = now_us.saturating_sub(self.since_us.load(Relaxed));
        if window_us >= WINDOW_US {
            let is_busy = self.rested_us.load(Relaxed) * 100 < window_us * (100 - BUSY_PERCENT);
            self.is_crowd.store(u32::from(is_busy && self.clients.load(Relaxed) >= CROWD), Relaxed);
            self.clients.store(0, Relaxed);
            self.rested_us.store(0, Relaxed);
            self.since_us.store(now_us, Relaxed);
        }
        let in_turn = self.in_turn.swap(0, Relaxed);
        (self.is_crowd.load(Relaxed) != 0 && in_turn < WELL_FILLED && !self.is_too_coarse()).then_some(PAUSE)
    }

    /// A pause is over.
    pub(super) fn has_paused(&self, now_us: u64) {
        let took_us = now_us.saturating_sub(self.ended_us.load(Relaxed));
        self.pauses.store(self.pauses.load(Relaxed).saturating_add(1), Relaxed);
        self.paused_us.store(self.paused_us.load(Relaxed) + took_us, Relaxed);
    }

    /// The next turn begins: the worker has rested since the last one, be it that it paused or that nobody spoke.
    pub(super) fn turn_begins(&self, now_us: u64) {
        let rested_us = now_us.saturating_sub(self.ended_us.load(Relaxed));
        self.rested_us.store(self.rested_us.load(Relaxed) + rested_us, Relaxed);
    }

    fn is_too_coarse(&self) -> bool {
        let pauses = self.pauses.load(Relaxed);
        pauses >= JUDGED && self.paused_us.load(Relaxed) > u64::from(pauses) * LONGEST_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many clients that speak in turn, two in each turn of a worker, which works and rests for so long. In how many of
    /// 4,000 turns it is told to pause, for 10 us then.
    fn pauses(clients: usize, (work_us, rest_us): (u64, u64)) -> usize {
        let crowd = Crowd::default();
        let mut last = vec![0; clients];
        let (mut now_us, mut pauses) = (1_000_000, 0);
        for turn in 0..4_000 {
            crowd.turn_begins(now_us);
            for at in [2 * turn, 2 * turn + 1] {
                let client = at % clients;
                crowd.heard(last[client]);
                last[client] = now_us;
            }
            now_us += work_us;
            if crowd.turn_ends(now_us).is_some() {
                pauses += 1;
                now_us += 10;
                crowd.has_paused(now_us);
            }
            now_us += rest_us;
        }
        pauses
    }

    #[test]
    fn only_many_clients_that_speak_often_to_a_busy_worker_are_a_crowd() {
        assert!(pauses(500, (20, 4)) > 3_000, "83,000 requests/s of 500 clients");
        assert!(pauses(200, (20, 4)) > 3_000);
        assert_eq!(pauses(50, (2, 0)), 0, "50 clients, however busy");
        assert_eq!(pauses(500, (90, 10)), 0, "20,000 requests/s of 500 clients");
        assert_eq!(pauses(500, (10, 20)), 0, "66,000 requests/s that leave the worker idle");
    }

    /// A window in which 300 clients have spoken ends now.
    fn gather(crowd: &Crowd, now_us: u64) {
        crowd.turn_ends(now_us - WINDOW_US);
        (0..300).for_each(|_| crowd.heard(0));
        crowd.turn_ends(now_us);
    }

    fn crowd(now_us: u64) -> Crowd {
        let crowd = Crowd::default();
        gather(&crowd, now_us);
        crowd
    }

    #[test]
    fn there_are_no_more_pauses_where_timers_are_coarse() {
        for (pause_us, expected) in [(LONGEST_US / 2, Some(PAUSE)), (2 * LONGEST_US, None)] {
            let crowd = crowd(1_000_000);
            let mut now_us = 1_000_000;
            for _ in 0..JUDGED {
                crowd.turn_ends(now_us);
                now_us += pause_us;
                crowd.has_paused(now_us);
            }
            gather(&crowd, now_us + 100_000);
            assert_eq!(crowd.turn_ends(now_us + 100_010), expected, "pauses of {pause_us} us");
        }
    }

    #[test]
    fn a_crowd_that_has_gone_delays_nobody() {
        let crowd = crowd(1_000_000);
        assert_eq!(crowd.turn_ends(1_000_010), Some(PAUSE));
        crowd.turn_begins(2_000_000);
        crowd.heard(0);
        assert_eq!(crowd.turn_ends(2_000_010), None, "the first after a second of silence");
    }

    #[test]
    fn a_turn_that_is_well_filled_is_followed_by_the_next_at_once() {
        let crowd = crowd(1_000_000);
        (1..WELL_FILLED).for_each(|_| crowd.heard(0));
        assert_eq!(crowd.turn_ends(1_000_010), Some(PAUSE));
        (0..WELL_FILLED).for_each(|_| crowd.heard(0));
        assert_eq!(crowd.turn_ends(1_000_020), None);
    }
}
