//! When hundreds of clients speak at once, a worker that looks at its sockets as soon as it can finds a handful of requests
//! each time: every look, and every write to the backend and read from it, is paid for by few. So it pauses before it looks,
//! and finds more. What that costs and gains is in docs/performance.md.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// So many clients make a crowd, if each of them has spoken within [`WINDOW_US`]: 25,600 requests a second, from
/// as many connections. Fewer are better served at once.
const CROWD: u32 = 128;
const WINDOW_US: u64 = 5_000;
/// A turn in which so many have spoken needs no longer batches.
const WELL_FILLED: u32 = 64;
/// Against the milliseconds that a crowd waits for its turns anyway. The kernel's timer slack adds 50 us.
const PAUSE: Duration = Duration::from_micros(20);

/// Who has spoken to one worker lately. Touched by its thread alone; atomic for the runtime's hook.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The window began then, in microseconds since the origin.
    since_us: AtomicU64,
    /// Clients that have spoken in this window, in the one before, and in the present turn.
    clients: AtomicU32,
    before: AtomicU32,
    in_turn: AtomicU32,
}

impl Crowd {
    /// A client has sent something, and did so last at `before_us`.
    pub(super) fn heard(&self, before_us: u64) {
        bump(&self.in_turn);
        if before_us < self.since_us.load(Relaxed) {
            bump(&self.clients);
        }
    }

    /// How long to pause at the end of a turn.
    pub(super) fn pause(&self, now_us: u64) -> Option<Duration> {
        let since_us = now_us.saturating_sub(self.since_us.load(Relaxed));
        if since_us >= WINDOW_US {
            // After a silence the last window says nothing any more.
            let clients = if since_us < 2 * WINDOW_US { self.clients.load(Relaxed) } else { 0 };
            self.before.store(clients, Relaxed);
            self.clients.store(0, Relaxed);
            self.since_us.store(now_us, Relaxed);
        }
        let in_turn = self.in_turn.swap(0, Relaxed);
        (self.before.load(Relaxed) >= CROWD && in_turn < WELL_FILLED).then_some(PAUSE)
    }
}

/// One thread alone writes: no locked instruction.
fn bump(counter: &AtomicU32) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients that speak one after another, `every_us`, and how many of the turns with two of them were paused after.
    fn pauses(clients: usize, every_us: u64) -> usize {
        let crowd = Crowd::default();
        let mut last = vec![0; clients];
        let (mut now_us, mut pauses) = (1_000_000, 0);
        for turn in 0..2_000 {
            for at in [2 * turn, 2 * turn + 1] {
                let client = at % clients;
                crowd.heard(last[client]);
                last[client] = now_us;
                now_us += every_us;
            }
            pauses += usize::from(crowd.pause(now_us).is_some());
        }
        pauses
    }

    #[test]
    fn only_many_clients_that_speak_often_are_a_crowd() {
        assert!(pauses(500, 12) > 1_500, "83,000 requests/s of 500 clients");
        assert!(pauses(200, 12) > 1_500);
        assert_eq!(pauses(50, 1), 0, "50 clients, however busy");
        assert_eq!(pauses(500, 50), 0, "20,000 requests/s of 500 clients");
    }

    #[test]
    fn a_crowd_that_has_gone_delays_nobody() {
        let crowd = Crowd::default();
        let mut now_us = 1_000_000;
        crowd.pause(now_us);
        (0..300).for_each(|_| crowd.heard(0));
        now_us += WINDOW_US;
        crowd.pause(now_us);
        assert_eq!(crowd.pause(now_us), Some(PAUSE));
        now_us += 1_000_000;
        crowd.heard(0);
        assert_eq!(crowd.pause(now_us), None, "the first after a second of silence");
    }

    #[test]
    fn a_turn_that_is_well_filled_is_followed_by_the_next_at_once() {
        let crowd = Crowd::default();
        crowd.pause(1_000_000);
        (0..300).for_each(|_| crowd.heard(0));
        crowd.pause(1_000_000 + WINDOW_US);
        (0..WELL_FILLED).for_each(|_| crowd.heard(0));
        assert_eq!(crowd.pause(1_000_001 + WINDOW_US), None);
    }
}
