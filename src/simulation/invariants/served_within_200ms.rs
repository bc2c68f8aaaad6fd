//! "Once a backend is back, requests are served within 200 ms" (the product's promise for a total outage): while nobody
//! serves, somebody who is fit, heard and enterable is not left aside for longer than that.

use std::time::Duration;

use super::{Invariant, Verdict};
use crate::policy::{Availability, Time};
use crate::simulation::world::World;

const WITHIN: Duration = Duration::from_millis(200);
/// Who was cut off is found by the next attempt to connect; one that had begun takes up to `timeout.connect` and, if it got
/// that far, `timeout.handshake` before it is given up.
const ATTEMPT_UNDER_WAY: Duration = Duration::from_millis(750);

#[derive(Debug, Default)]
pub(super) struct ServedWithin200Ms {
    nobody_since: Option<Time>,
    judged: u64,
}

impl Invariant for ServedWithin200Ms {
    fn name(&self) -> &'static str {
        "somebody_fit_serves_within_200ms"
    }

    fn after_event(&mut self, world: &World) -> Verdict {
        if world.engine.availability() != Availability::NoBackend || world.control.under_way.is_some() {
            self.judged += u64::from(self.nobody_since.take().is_some());
            return Ok(());
        }
        let nobody_since = *self.nobody_since.get_or_insert(world.now);
        for (id, node) in world.nodes.iter().enumerate() {
            let ready = node.is_fit() && world.is_enterable(id) && world.now >= node.busy_until && !world.is_blind();
            let since = node.fit_since.max(node.standing_at).max(nobody_since).max(node.busy_until);
            let bound = if node.was_unreachable { WITHIN + ATTEMPT_UNDER_WAY } else { WITHIN };
            if ready && world.now - since > bound {
                return Err(format!("{} could serve since {since} and nobody does", node.name));
            }
        }
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
