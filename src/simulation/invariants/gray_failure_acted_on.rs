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
/// So many failures are plain whatever their share.
const FAILURES_PLAIN: u64 = 20;

#[derive(Debug, Default)]
pub(super) struct GrayFailureActedOn {
    promise: Promise,
    /// What the active had served and failed when the promise was made.
    before: (u64, u64),
    by_errors: bool,
}

impl Invariant for GrayFailureActedOn {
    fn name(&self) -> &'static str {
        "gray_failure_acted_on_within_5s"
    }

    fn before_fault(&mut self, world: &World, fault: &Fault) -> Verdict {
        self.promise.set_aside();
        let plain = match fault.plan.kind {
            Kind::Slow => fault.add >= SLOWER_MIN,
            Kind::Failing => fault.plan.share.is_some_and(|share| share >= SHARE_MIN),
            _ => false,
        };
        if plain && world.traffic.rate >= RATE_MIN {
            self.promise.make(world, fault, WITHIN);
            self.before = served_and_failed(world);
            self.by_errors = fault.plan.kind == Kind::Failing;
        }
        Ok(())
    }

    fn after_mending(&mut self, _world: &World, _fault: &Fault) -> Verdict {
        self.promise.set_aside();
        Ok(())
    }

    fn on_switch(&mut self, world: &World, switch: &Switch) -> Verdict {
        self.promise.on_switch(world, switch.from.index(), switch.kind);
        Ok(())
    }

    fn on_publish(&mut self, world: &World, availability: Availability) -> Verdict {
        self.promise.on_publish(world, availability);
        Ok(())
    }

    fn after_event(&mut self, world: &World) -> Verdict {
        // With few requests chance may have spared them: then a fifth has not failed yet.
        let (ended, failed) = served_and_failed(world);
        let (ended, failed) = (ended.saturating_sub(self.before.0), failed.saturating_sub(self.before.1));
        if self.by_errors && (failed as f64) < SHARE_MIN * ended as f64 && failed < FAILURES_PLAIN {
            return Ok(());
        }
        self.promise.check(world)
    }

    fn judged(&self) -> u64 {
        self.promise.judged()
    }

    fn measured_us(&self) -> &[u64] {
        self.promise.measured_us()
    }
}

fn served_and_failed(world: &World) -> (u64, u64) {
    let counts = &world.traffic.counts[world.control.route];
    (counts.ended_ever, counts.failed_ever)
}
