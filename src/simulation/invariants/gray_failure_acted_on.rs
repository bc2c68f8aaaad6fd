//! "GET delayed by 100 ms with PING untouched, or 20 % errors, within 5 s from 10 requests/s on" (the figure of the failover
//! engine): what probes cannot see is told by the requests, so there must be some.

use std::time::Duration;

use super::promise::Promise;
use super::{Invariant, Verdict};
use crate::policy::{Availability, Switch};
use crate::simulation::fault::{Fault, Kind};
use crate::simulation::world::World;

const WITHIN: Duration = Duration::from_secs(5);
const RATE_MIN: f64 = 10.0;
/// The promise is about what is plain: at least this share of errors, at least this much slower.
const SHARE_MIN: f64 = 0.2;
const SLOWER_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct GrayFailureActedOn(Promise);

impl Invariant for GrayFailureActedOn {
    fn name(&self) -> &'static str {
        "gray_failure_acted_on_within_5s"
    }

    fn before_fault(&mut self, world: &World, fault: &Fault) -> Verdict {
        self.0.set_aside();
        let plain = match fault.plan.kind {
            Kind::Slow => fault.add >= SLOWER_MIN,
            Kind::Failing => fault.plan.share.is_some_and(|share| share >= SHARE_MIN),
            _ => false,
        };
        if plain && world.traffic.rate >= RATE_MIN {
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
