//! The engine must not ask to be called in a loop: `poll_timeout` that is always due would take a sidecar's whole core. At
//! most one call in two milliseconds, over any time, and a hundred at once.

use super::{Invariant, Verdict};
use crate::simulation::world::World;

const AT_ONCE_MAX: u64 = 100;
const MS_EACH: u64 = 2;

#[derive(Debug, Default)]
pub(super) struct TimeoutsDoNotSpin {
    judged: u64,
}

impl Invariant for TimeoutsDoNotSpin {
    fn name(&self) -> &'static str {
        "timeouts_do_not_spin"
    }

    fn after_event(&mut self, world: &World) -> Verdict {
        self.judged = world.timeouts_handled;
        let elapsed_ms = world.now.as_micros() / 1_000;
        if world.timeouts_handled <= elapsed_ms / MS_EACH + AT_ONCE_MAX {
            return Ok(());
        }
        Err(format!("{} timeouts in {elapsed_ms} ms", world.timeouts_handled))
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
