//! From what the model counted to what the engine is told: the only file that knows the shape of a window summary.

use std::time::Duration;

use crate::policy::{CommandClass, ErrorCounts, Sketch, Time, WindowSummary};

/// What one backend did since the last window.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub answered: u64,
    /// Of the whole world so far: requests that ended, and those of them that the backend failed.
    pub(super) ended_ever: u64,
    pub(super) failed_ever: u64,
    pub errors: ErrorCounts,
    pub latency: [Sketch; CommandClass::COUNT],
    /// By our own clock. Kept from window to window.
    pub last_progress: Option<Time>,
    pub slow_until: Option<Time>,
}

impl Counts {
    /// A KEYS or a script was answered.
    pub(super) fn slow_command(&mut self, took: Duration) {
        self.answered += 1;
        self.latency[CommandClass::Slow.index()].record(took.as_micros() as u64, 1);
    }

    /// The window that ends now; counting begins anew.
    pub(super) fn window(&mut self, in_flight: u64) -> WindowSummary {
        let errors = std::mem::take(&mut self.errors);
        self.ended_ever += self.answered + errors.timeout;
        self.failed_ever += errors.against_backend();
        WindowSummary {
            requests: std::mem::take(&mut self.answered) + errors.timeout,
            errors,
            latency: std::mem::take(&mut self.latency),
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            last_progress: self.last_progress,
            slow_in_flight_until: self.slow_until,
        }
    }
}
