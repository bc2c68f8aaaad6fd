//! "Then faults stop and the world must heal" (the design, on simulation): at the end the primary serves, and nothing else
//! is left over.

use super::{Invariant, Verdict};
use crate::policy::{Availability, Status};
use crate::simulation::world::World;

#[derive(Debug, Default)]
pub(super) struct Heals {
    judged: u64,
}

impl Invariant for Heals {
    fn name(&self) -> &'static str {
        "heals"
    }

    fn at_end(&mut self, world: &World) -> Verdict {
        self.judged += 1;
        let view = world.engine.view(world.our_now());
        if view.availability != Availability::Serving {
            return Err(format!("{:?} after all faults were mended", view.availability));
        }
        if view.active.index() != 0 {
            return Err(format!(
                "{} still serves; status {}; recovery at {:?}",
                view.active, view.status, view.recovery_at
            ));
        }
        match view.status {
            Status::Active | Status::Recovered => Ok(()),
            other => Err(format!("status {other}")),
        }
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
