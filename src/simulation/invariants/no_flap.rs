//! "Flapping primary: at most 1 switch per doubling of the cool-down" (the figure of the failover engine): a backend that
//! fails again soon after it was returned to is not returned to before the cool-down is over, and that doubles each time
//! (`recovery.delay`, up to `recovery.delay_max`).

use std::time::Duration;

use super::{Invariant, Verdict};
use crate::policy::{Availability, Switch, SwitchKind, Time};
use crate::simulation::world::World;

#[derive(Debug, Default)]
pub(super) struct NoFlap {
    left_at: Option<Time>,
    returned_at: Option<Time>,
    /// Returns that did not last, in a row.
    relapses: u32,
    judged: u64,
}

impl Invariant for NoFlap {
    fn name(&self) -> &'static str {
        "no_flap"
    }

    fn on_switch(&mut self, world: &World, switch: &Switch) -> Verdict {
        let recovery = &world.settings.recovery;
        let serves = world.engine.availability() == Availability::Serving;
        if switch.from.index() == 0 && switch.to.index() != 0 && !switch.planned {
            // It is left once, however many attempts that takes.
            if let Some(at) = self.returned_at.take() {
                let relapsed = world.now - at < recovery.grace_period;
                self.relapses = if relapsed { self.relapses + 1 } else { 0 };
            }
            self.left_at = Some(world.now);
        }
        // The last resort is left as soon as a real backend can serve: that is what it is for.
        let from_last_resort = world.nodes[switch.from.index()].last_resort;
        let returns = !from_last_resort
            && switch.to.index() == 0
            && switch.from.index() != 0
            && switch.kind == SwitchKind::Recovery;
        if !returns || !serves {
            return Ok(());
        }
        self.returned_at = Some(world.now);
        let Some(left_at) = self.left_at else { return Ok(()) };
        let doubled = recovery.delay.saturating_mul(1 << self.relapses.min(20));
        let cool_down = doubled.min(recovery.delay_max.max(recovery.delay));
        // Each `forget_after` without a relapse forgets one.
        let away: Duration = world.now - left_at;
        let cool_down = if away >= recovery.forget_after { recovery.delay } else { cool_down };
        self.judged += 1;
        if away >= cool_down {
            return Ok(());
        }
        Err(format!(
            "the primary is returned to {away:?} after it was left, {} relapses long: {cool_down:?}",
            self.relapses
        ))
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
