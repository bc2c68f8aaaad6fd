//! "Failure at any load (0 with probes only, 1, 10, 200, 50,000 requests/s) is acted on within 1.5 s" (the figure of the
//! failover engine): frozen, cut off, loading, turned into a replica, full, or refused by divergence. The time is that of the
//! worst case without load: an interval of the prober and its timeout.

use std::time::Duration;

use super::promise::Promise;
use super::{Invariant, Verdict};
use crate::policy::{Availability, Switch};
use crate::simulation::fault::{Fault, Kind};
use crate::simulation::world::World;

const WITHIN: Duration = Duration::from_millis(1_500);

#[derive(Debug, Default)]
pub(super) struct FailureActedOn(Promise);

impl Invariant for FailureActedOn {
    fn name(&self) -> &'static str {
        "failure_acted_on_within_1500ms"
    }

    fn before_fault(&mut self, world: &World, fault: &Fault) -> Verdict {
        self.0.set_aside();
        let kinds =
            [Kind::Frozen, Kind::Cut, Kind::Partition, Kind::Loading, Kind::Readonly, Kind::Full, Kind::Refused];
        if kinds.contains(&fault.plan.kind) {
            self.0.make(world, fault, WITHIN);
        }
        Ok(())
    }

    fn after_mending(&mut self, _world: &World, _fault: &Fault) -> Verdict {
        self.0.set_aside();
        Ok(())
    }

    fn on_switch(&mut self, world: &World, switch: &Switch) -> Verdict {
        self.0.on_switch(world, switch.from.index(), switch.kind);
        Ok(())
    }

    fn on_publish(&mut self, world: &World, availability: Availability) -> Verdict {
        self.0.on_publish(world, availability);
        Ok(())
    }

    fn after_event(&mut self, world: &World) -> Verdict {
        self.0.check(world)
    }

    fn judged(&self) -> u64 {
        self.0.judged()
    }

    fn measured_us(&self) -> &[u64] {
        self.0.measured_us()
    }
}
