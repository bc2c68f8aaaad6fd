//! "24 simulated hours of heavy-tailed jitter, 500 ms pauses and WRONGTYPE floods: 0 false switches" (the figure of the
//! failover engine), asked of every world: an active is left only while something is wrong with it that is a reason to
//! leave (`FaultPlan::is_reason_to_leave`), or was a moment ago. What the model knows and the engine cannot is the measure.

use std::time::Duration;

use super::{Invariant, Verdict};
use crate::policy::{Availability, Standing, Switch, SwitchKind};
use crate::simulation::world::World;

/// Evidence outlives its cause by the news' way and by what is counted in windows of 5 s (the breaker's).
const EVIDENCE_LIVES: Duration = Duration::from_secs(6);

#[derive(Debug, Default)]
pub(super) struct NoFalseSwitch {
    judged: u64,
}

impl Invariant for NoFalseSwitch {
    fn name(&self) -> &'static str {
        "no_false_switch"
    }

    fn on_switch(&mut self, world: &World, switch: &Switch) -> Verdict {
        self.judged += 1;
        let serves = world.engine.availability() == Availability::Serving;
        if switch.planned || switch.kind != SwitchKind::Failover || !serves {
            return Ok(());
        }
        let left = &world.nodes[switch.from.index()];
        let refused = matches!(left.standing_told, Standing::Refused { .. });
        let reason = left.state.is_reason || left.reason_ended.is_some_and(|at| world.now - at <= EVIDENCE_LIVES);
        if reason || refused || left.identity != left.identity_admitted {
            return Ok(());
        }
        Err(format!("{} was left though nothing speaks against it: {}", left.name, switch.reason))
    }

    fn at_end(&mut self, _world: &World) -> Verdict {
        // A world without any switch is judged as well: that there was none is the point.
        self.judged += 1;
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
