//! "Standin keeps a record per backend and enters none whose record is not clean or empty" (the design, on divergence): once
//! the engine was told that a backend refuses entry, no switch leads there until it was told otherwise.

use super::{Invariant, Verdict};
use crate::policy::{Standing, Switch};
use crate::simulation::world::World;

#[derive(Debug, Default)]
pub(super) struct NeverToRefused {
    judged: u64,
}

impl Invariant for NeverToRefused {
    fn name(&self) -> &'static str {
        "never_to_a_refused_backend"
    }

    fn on_switch(&mut self, world: &World, switch: &Switch) -> Verdict {
        self.judged += 1;
        match &world.nodes[switch.to.index()].standing_told {
            Standing::Refused { why } => Err(format!("a switch to {} which refuses entry: {why}", switch.to)),
            Standing::Enterable | Standing::Unknown => Ok(()),
        }
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
