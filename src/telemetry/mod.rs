//! What Standin says about itself: metrics, logs and the history of events.
//!
//! Knows nothing of sockets, routes or decisions: others hand in what happened. Nothing here is on the path of a
//! request; the data plane counts in atomics of its own, and the control task publishes their totals once a second.

pub mod events;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod wall_time;
