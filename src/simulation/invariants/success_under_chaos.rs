//! "10 % chaos: at least 99.9 % of requests succeed" (the figure of the failover engine): every backend is in trouble for a
//! tenth of the time, and the clients hardly notice. Asked of worlds with `[chaos]` of at most that share; a world may ask
//! for another share of successes (`expect.success_min`). What was asked while no backend at all was fit is not counted: with
//! three backends and chance that is a thousandth of the time.

use super::{Invariant, Verdict};
use crate::simulation::world::World;

const SUCCESS_MIN: f64 = 0.999;
const CHAOS_MAX: f64 = 0.1;
/// With fewer requests than this, one that fails is more than the share that may.
const REQUESTS_MIN: u64 = 1_000;

#[derive(Debug, Default)]
pub(super) struct SuccessUnderChaos {
    judged: u64,
}

impl Invariant for SuccessUnderChaos {
    fn name(&self) -> &'static str {
        "success_under_chaos"
    }

    fn at_end(&mut self, world: &World) -> Verdict {
        let by_chaos = world.scenario.chaos.as_ref().filter(|chaos| chaos.share <= CHAOS_MAX).map(|_| SUCCESS_MIN);
        let Some(success_min) = world.scenario.expect.success_min.or(by_chaos) else { return Ok(()) };
        let clients = &world.traffic.clients;
        if clients.asked < REQUESTS_MIN {
            return Ok(());
        }
        self.judged += 1;
        if clients.success_of_possible() >= success_min {
            return Ok(());
        }
        Err(format!(
            "{:.4} % of {} requests succeeded, {} more while nobody was fit",
            clients.success_of_possible() * 100.0,
            clients.asked - clients.asked_in_vain,
            clients.asked_in_vain
        ))
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
