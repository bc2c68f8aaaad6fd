//! What may only grow, grows: ids of switches (a superseded one is told from its successor by nothing else), the time of
//! the engine's view, and the account of requests, in which each that was asked is answered, failed or still waiting.

use super::{Invariant, Verdict};
use crate::policy::Switch;
use crate::simulation::world::World;

#[derive(Debug, Default)]
pub(super) struct Monotone {
    last: u64,
    answered: u64,
    judged: u64,
}

impl Invariant for Monotone {
    fn name(&self) -> &'static str {
        "monotone"
    }

    fn on_switch(&mut self, _world: &World, switch: &Switch) -> Verdict {
        let before = std::mem::replace(&mut self.last, switch.id.0);
        if switch.id.0 > before { Ok(()) } else { Err(format!("switch {} after {before}", switch.id.0)) }
    }

    fn after_event(&mut self, world: &World) -> Verdict {
        self.judged += 1;
        let clients = &world.traffic.clients;
        let ended = clients.succeeded + clients.failed();
        let before = std::mem::replace(&mut self.answered, ended);
        if ended < before {
            return Err(format!("{ended} requests ended, after {before}"));
        }
        let waiting = world.traffic.in_flight();
        if clients.asked == ended + waiting {
            return Ok(());
        }
        Err(format!("of {} requests {ended} ended and {waiting} wait", clients.asked))
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
