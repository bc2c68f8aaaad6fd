//! "A dead process is acted on within 10 ms" (the figure of the failover engine): its kernel says so at once, by resetting
//! the connections and refusing new ones, so nothing but the proof (two refusals, a millisecond apart) may take time.

use std::time::Duration;

use super::promise::Promise;
use super::{Invariant, Verdict};
use crate::policy::{Availability, Switch};
use crate::simulation::fault::{Fault, Kind};
use crate::simulation::world::World;

const WITHIN: Duration = Duration::from_millis(10);
/// A reset and two refusals travel; what that takes beyond a local network is no fault of ours.
const ROUND_TRIPS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct DeadProcessActedOn(Promise);

impl Invariant for DeadProcessActedOn {
    fn name(&self) -> &'static str {
        "dead_process_acted_on_within_10ms"
    }

    fn before_fault(&mut self, world: &World, fault: &Fault) -> Verdict {
        self.0.set_aside();
        if fault.plan.kind == Kind::Dead {
            let way = world.nodes[world.control.route].network.median() * ROUND_TRIPS;
            self.0.make(world, fault, WITHIN + way.saturating_sub(Duration::from_millis(1)));
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
