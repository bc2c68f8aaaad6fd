//! Whether the line is what replies wait for: who asks for many megabytes at once, and who waits behind them, waits for that
//! and not for the server.

use super::link::{Link, Owner, SLOWEST_BYTES_PER_MICRO};

/// What has come on a connection lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carried {
    bytes: u64,
    /// Time and bytes so far at two moments, the older first.
    marks: [(u64, u64); 2],
    at_us: u64,
    /// When something came again after a pause.
    resumed_us: u64,
}

impl Carried {
    /// `n` bytes have come. When nothing came for `span_us`, that was a pause; less happens on a line that loses packets.
    fn note(&mut self, n: u64, now_us: u64, span_us: u64) {
        if now_us.saturating_sub(self.at_us) >= span_us {
            self.resumed_us = now_us;
        }
        self.bytes += n;
        self.at_us = now_us;
        if now_us.saturating_sub(self.marks[1].0) >= span_us {
            self.marks = [self.marks[1], (now_us, self.bytes)];
        }
    }

    /// Whether it was as much as a slow line carries, for `span_us` to twice as long and until now.
    fn is_full(&self, now_us: u64, span_us: u64) -> bool {
        let (since_us, before) = self.marks[0];
        let took_us = now_us.saturating_sub(since_us);
        let is_coming = now_us.saturating_sub(self.at_us) < span_us;
        is_coming && took_us >= span_us && (self.bytes - before) / took_us.max(1) >= SLOWEST_BYTES_PER_MICRO
    }

    /// The same, and without a pause: what a server had in store while it was frozen says nothing of the line.
    fn is_steadily_full(&self, now_us: u64, span_us: u64) -> bool {
        self.marks[0].0 >= self.resumed_us && self.is_full(now_us, span_us)
    }
}

impl<S: Owner> Link<S> {
    fn span_us(&self) -> u64 {
        self.backend.timing.floor.as_micros() as u64
    }

    pub(super) fn note_received(&self, n: u64, now_us: u64) {
        let mut carried = self.carried.get();
        carried.note(n, now_us, self.span_us());
        self.carried.set(carried);
    }

    /// Whether replies have been coming as fast as a slow line carries them, for as long as any allowance: who waits behind
    /// others' many megabytes is not late, and the server is well.
    pub(super) fn is_line_full(&self, now_us: u64) -> bool {
        self.carried.get().is_full(now_us, self.span_us())
    }

    /// The same, and without a pause.
    pub(super) fn is_line_steadily_full(&self, now_us: u64) -> bool {
        self.carried.get().is_steadily_full(now_us, self.span_us())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN_US: u64 = 650_000;

    /// So many bytes every 10 ms for so long; the moment of the last.
    fn carry(carried: &mut Carried, from_us: u64, bytes: u64, for_us: u64) -> u64 {
        let last_us = from_us + for_us;
        (from_us..=last_us).step_by(10_000).for_each(|at_us| carried.note(bytes, at_us, SPAN_US));
        last_us
    }

    #[test]
    fn a_line_is_full_after_a_span_of_megabytes() {
        let mut carried = Carried::default();
        let early_us = carry(&mut carried, 1_000_000, 200_000, SPAN_US - 10_000);
        assert!(!carried.is_full(early_us, SPAN_US));
        let now_us = carry(&mut carried, early_us + 10_000, 200_000, 5_000_000);
        assert!(carried.is_full(now_us, SPAN_US));
        assert!(!carried.is_full(now_us + SPAN_US, SPAN_US), "nothing comes any more");
    }

    #[test]
    fn little_is_no_full_line_however_long_it_comes() {
        let mut carried = Carried::default();
        let now_us = carry(&mut carried, 1_000_000, 90_000, 5_000_000);
        assert!(!carried.is_full(now_us, SPAN_US));
        // One that was full, and whose server has become slow.
        let full_us = carry(&mut carried, now_us + 10_000, 1_000_000, 5_000_000);
        assert!(carried.is_full(full_us, SPAN_US));
        let slow_us = carry(&mut carried, full_us + 10_000, 50_000, 2 * SPAN_US);
        assert!(!carried.is_full(slow_us, SPAN_US));
    }

    #[test]
    fn a_line_that_stalls_for_less_than_any_allowance_is_full_all_the_same() {
        let mut carried = Carried::default();
        let stalled_us = carry(&mut carried, 1_000_000, 500_000, 5_000_000);
        let now_us = carry(&mut carried, stalled_us + 400_000, 500_000, 100_000);
        assert!(carried.is_steadily_full(now_us, SPAN_US));
    }

    #[test]
    fn what_comes_at_once_after_a_freeze_says_nothing_of_the_line() {
        let mut carried = Carried::default();
        let frozen_us = carry(&mut carried, 1_000_000, 200_000, 5_000_000);
        let thawed_us = frozen_us + 900_000;
        carried.note(16 << 20, thawed_us, SPAN_US);
        carried.note(16 << 20, thawed_us + 1_000, SPAN_US);
        assert!(!carried.is_steadily_full(thawed_us + 1_000, SPAN_US));
        let now_us = carry(&mut carried, thawed_us + 10_000, 200_000, 3 * SPAN_US);
        assert!(carried.is_steadily_full(now_us, SPAN_US), "it is a full line again");
    }
}
