//! The retry budget: repeats on the same backend are a share of its traffic, so that repeats never become the load.

use std::cell::Cell;

use super::clock;

/// Seconds of the floor rate that may be saved up.
const SAVED_SECONDS: f64 = 10.0;
/// Repeats that may be saved up from traffic.
const SAVED_MAX: f64 = 10_000.0;

/// A token bucket: each answered request adds its share, each second adds the floor, each repeat takes one.
pub struct RetryBudget {
    share: f64,
    floor_per_second: f64,
    tokens: Cell<f64>,
    filled_us: Cell<u64>,
}

impl RetryBudget {
    /// `percent` of traffic and at least `floor_per_second`; starts with ten seconds of the floor.
    #[must_use]
    pub fn new(percent: f64, floor_per_second: f64) -> Self {
        let tokens = Cell::new(floor_per_second * SAVED_SECONDS);
        Self { share: percent / 100.0, floor_per_second, tokens, filled_us: Cell::new(clock::micros()) }
    }

    /// Counts requests that were answered.
    pub fn answered(&self, n: usize) {
        let tokens = self.tokens.get();
        if tokens < SAVED_MAX {
            self.tokens.set((tokens + n as f64 * self.share).min(SAVED_MAX));
        }
    }

    /// Takes leave for one repeat.
    #[must_use]
    pub fn try_take(&self) -> bool {
        let now = clock::micros();
        let seconds = now.saturating_sub(self.filled_us.replace(now)) as f64 / 1e6;
        let floor = self.floor_per_second * SAVED_SECONDS;
        let mut tokens = self.tokens.get();
        if tokens < floor {
            tokens = (tokens + seconds * self.floor_per_second).min(floor);
        }
        let granted = tokens >= 1.0;
        self.tokens.set(if granted { tokens - 1.0 } else { tokens });
        granted
    }
}
