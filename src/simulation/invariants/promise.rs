//! What the three invariants about detection share: a fault that hits the active while somebody fit stands by is a promise
//! to act by a certain time. Any other change of the world sets the promise aside, since nobody can say any more what would
//! be right; there are enough worlds in which none comes.

use std::time::Duration;

use super::Verdict;
use crate::policy::{Availability, SwitchKind, Time};
use crate::simulation::fault::{Fault, Kind};
use crate::simulation::world::World;

/// A backend stands by when nothing has been wrong with it for this long: probes have seen it well.
const STANDS_BY_AFTER: Duration = Duration::from_secs(3);

/// The active was well for this long: connections that a fault before had cost stand again.
const ACTIVE_WELL_FOR: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Promise {
    open: Option<Open>,
    judged: u64,
    measured_us: Vec<u64>,
}

#[derive(Debug)]
struct Open {
    about: String,
    from: usize,
    made_at: Time,
    until: Time,
}

impl Promise {
    /// Makes the promise if the fault hits an active that was well and somebody fit stands by.
    pub(super) fn make(&mut self, world: &World, fault: &Fault, within: Duration) {
        self.open = None;
        let active = world.control.route;
        let node = &world.nodes[active];
        let settled = world.control.under_way.is_none()
            && world.control.undelivered == 0
            && world.engine.active().index() == active
            && world.engine.availability() == Availability::Serving;
        // A world that is in trouble already, or that does not run, promises nothing.
        let recovered = world.now - node.fit_since < ACTIVE_WELL_FOR;
        let calm = !recovered && node.is_fit() && node.state.faults == 0 && node.pauses.is_none() && !world.is_blind();
        let lasts = fault.length > within + Duration::from_millis(100);
        let hits = fault.on.contains(&active);
        // Who answers, however badly, is not left for the last resort.
        let is_silent = matches!(fault.plan.kind, Kind::Dead | Kind::Frozen | Kind::Cut | Kind::Partition);
        let stands_by = (0..world.nodes.len())
            .any(|id| id != active && stands_by(world, fault, id) && (is_silent || !world.nodes[id].last_resort));
        let free = is_silent || !world.may_be_cooling();
        if free && settled && calm && lasts && hits && stands_by && fault.is_reason && world.has_linked() {
            let about = format!("{}: {fault}", node.name);
            let made_at = world.now;
            self.open = Some(Open { about, from: active, made_at, until: made_at + within });
        }
    }

    pub(super) fn set_aside(&mut self) {
        self.open = None;
    }

    /// Kept by a switch away.
    pub(super) fn on_switch(&mut self, world: &World, from: usize, kind: SwitchKind) {
        if kind != SwitchKind::Reentry && self.open.as_ref().is_some_and(|open| open.from == from) {
            self.keep(world);
        }
    }

    /// Kept by holding requests for a restart, which is what `failover.hold` asks for.
    pub(super) fn on_publish(&mut self, world: &World, availability: Availability) {
        if matches!(availability, Availability::Holding { .. }) {
            self.keep(world);
        }
    }

    pub(super) fn check(&self, world: &World) -> Verdict {
        match &self.open {
            Some(open) if world.now > open.until => Err(format!(
                "{} since {} is not acted on after {:?} at {} requests/s",
                open.about,
                open.made_at,
                open.until - open.made_at,
                world.traffic.rate
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn judged(&self) -> u64 {
        self.judged
    }

    pub(super) fn measured_us(&self) -> &[u64] {
        &self.measured_us
    }

    fn keep(&mut self, world: &World) {
        if let Some(open) = self.open.take() {
            self.judged += 1;
            self.measured_us.push((world.now - open.made_at).as_micros() as u64);
        }
    }
}

fn stands_by(world: &World, fault: &Fault, id: usize) -> bool {
    let node = &world.nodes[id];
    let long = world.now - node.fit_since > STANDS_BY_AFTER && world.now >= node.busy_until;
    // One that could not be entered a moment ago is tried again after `failover.retry`, which doubles.
    let refused_lately = world.control.entry_failed.get(&id).is_some_and(|at| world.now - *at < STANDS_BY_AFTER);
    node.is_fit()
        && long
        && !refused_lately
        && world.is_enterable(id)
        && !fault.on.contains(&id)
        && node.pauses.is_none()
}
