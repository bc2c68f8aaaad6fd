//! "Exactly one active in active-passive" (the design's word for the backend that serves): the engine and the published
//! route name the same backend whenever no switch is under way, and it exists.

use super::{Invariant, Verdict};
use crate::simulation::world::World;

#[derive(Debug, Default)]
pub(super) struct ExactlyOneActive {
    judged: u64,
}

impl Invariant for ExactlyOneActive {
    fn name(&self) -> &'static str {
        "exactly_one_active"
    }

    fn after_event(&mut self, world: &World) -> Verdict {
        let active = world.engine.active().index();
        if active >= world.nodes.len() {
            return Err(format!("the active is #{active}, which does not exist"));
        }
        if world.control.under_way.is_some() || world.control.undelivered > 0 {
            return Ok(());
        }
        self.judged += 1;
        if active == world.control.route {
            return Ok(());
        }
        Err(format!("the engine says #{active}, the published route #{}", world.control.route))
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
