//! Whether the process takes new clients: set by the app, shown by the control port and in the status.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Whether new clients should come here: after the listeners are bound and every group has what `[initialization]` waits
/// for, until the drain begins.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: AtomicU8,
    /// Groups that still wait for their backends.
    waiting: AtomicUsize,
}

const STARTING: u8 = 0;
/// The listeners are bound.
const BOUND: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// So many groups will say when they are ready.
    #[must_use]
    pub fn waiting_for(groups: usize) -> Self {
        Self(Arc::new(Inner { state: AtomicU8::new(STARTING), waiting: AtomicUsize::new(groups) }))
    }

    /// The listeners are bound. Does nothing once the drain has begun.
    pub fn set_ready(&self) {
        let _ = self.0.state.compare_exchange(STARTING, BOUND, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// To be said once by each group.
    pub fn group_is_ready(&self) {
        let less = |waiting: usize| waiting.checked_sub(1);
        let _ = self.0.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Final: a draining process never becomes ready again.
    pub fn set_draining(&self) {
        self.0.state.store(DRAINING, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == BOUND && self.0.waiting.load(Ordering::Relaxed) == 0
    }

    pub fn is_draining(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == DRAINING
    }

    /// For people.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        if self.is_draining() {
            "draining"
        } else if self.is_ready() {
            "ready"
        } else {
            "starting"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_bound_and_every_group_and_not_draining() {
        let readiness = Readiness::waiting_for(2);
        readiness.set_ready();
        readiness.group_is_ready();
        assert_eq!(readiness.as_str(), "starting");
        readiness.group_is_ready();
        assert_eq!(readiness.as_str(), "ready");
        readiness.group_is_ready();
        assert!(readiness.is_ready(), "once too often does no harm");
        readiness.set_draining();
        readiness.set_ready();
        assert_eq!(readiness.as_str(), "draining");
    }
}
