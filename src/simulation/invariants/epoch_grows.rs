//! "A route is an immutable snapshot with an epoch that only grows" (the design): by one for each switch that was carried
//! out and for nothing else, or readers could not tell a newer route from an older one.

use super::{Invariant, Verdict};
use crate::simulation::world::World;

#[derive(Debug, Default)]
pub(super) struct EpochGrows {
    seen: u64,
    judged: u64,
}

impl Invariant for EpochGrows {
    fn name(&self) -> &'static str {
        "epoch_grows"
    }

    fn after_event(&mut self, world: &World) -> Verdict {
        let epoch = world.engine.epoch();
        if epoch < self.seen {
            return Err(format!("the epoch fell from {} to {epoch}", self.seen));
        }
        if epoch > world.control.carried_out + 1 {
            return Err(format!("epoch {epoch} after {} switches", world.control.carried_out));
        }
        self.judged += u64::from(epoch > self.seen);
        self.seen = epoch;
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
