//! From what the model counted to what the engine is told: the only file that knows the shape of a window summary.

use crate::policy::{ClassLatency, CommandClass, ErrorCounts, Time, WindowSummary};

/// What one backend did since the last window.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub answered: u64,
    pub errors: ErrorCounts,
    /// Microseconds, and how many requests took so long.
    pub latency: [Vec<(u64, u64)>; CommandClass::COUNT],
    /// By our own clock. Kept from window to window.
    pub last_progress: Option<Time>,
    pub slow_until: Option<Time>,
}

impl Counts {
    /// The window that ends now; counting begins anew.
    pub(super) fn window(&mut self, in_flight: u64) -> WindowSummary {
        let errors = std::mem::take(&mut self.errors);
        let window = WindowSummary {
            requests: std::mem::take(&mut self.answered) + errors.timeout,
            errors,
            latency: std::array::from_fn(|class| class_latency(&mut self.latency[class])),
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            last_progress: self.last_progress,
            slow_in_flight_until: self.slow_until,
        };
        self.latency.iter_mut().for_each(Vec::clear);
        window
    }
}

fn class_latency(drawn: &mut [(u64, u64)]) -> ClassLatency {
    if drawn.is_empty() {
        return ClassLatency::default();
    }
    drawn.sort_unstable();
    let count: u64 = drawn.iter().map(|(_, count)| count).sum();
    let quantile = |q: f64| {
        let rank = ((count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        let at = drawn.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        at.map_or(0, |(span, _)| *span)
    };
    let max_us = drawn.last().map_or(0, |(span, _)| *span);
    ClassLatency { count, p50_us: quantile(0.5), p99_us: quantile(0.99), max_us }
}
