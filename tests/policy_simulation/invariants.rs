//! What must hold in every world after every event. Each has its source in the design.

use std::time::Duration;

use standin::policy::{Availability, Standing, Status, Switch};

use crate::world::{State, World};

/// "Exactly one active in active-passive": the engine's word and the published route agree whenever no switch is under
/// way, and the active exists.
pub(crate) fn exactly_one_active(world: &World) {
    assert!(world.engine.active().index() < world.backends.len());
    if world.under_way.is_none() && world.undelivered == 0 {
        assert_eq!(world.engine.active().index(), world.route, "engine and route disagree about the active");
    }
}

/// "A route has an epoch that only grows", and by one for each switch that was carried out.
pub(crate) fn epoch_only_grows(world: &World) {
    assert!(world.engine.epoch() >= world.epoch_seen, "epoch fell from {}", world.epoch_seen);
    assert!(world.engine.epoch() <= world.carried_out + 1, "too many epochs for {} switches", world.carried_out);
}

/// "Standin enters none whose record is not clean or empty": not once divergence has said so.
pub(crate) fn never_to_a_refused_backend(world: &World, switch: &Switch) {
    let told = &world.backends[switch.to.index()].standing_told;
    assert!(!matches!(told, Standing::Refused { .. }), "a switch to {} which refuses: {}", switch.to, switch.reason);
}

/// Switch ids only grow: a superseded switch can be told from its successor.
pub(crate) fn switch_ids_grow(world: &World, switch: &Switch) {
    assert!(switch.id.0 > world.last_switch_id, "{:?} after {}", switch.id, world.last_switch_id);
}

/// "A dead process is acted on within 10 ms, a freeze within 1.5 s": promises are made when a fault hits the active and
/// somebody fit stands by; none may be overdue.
pub(crate) fn promises_are_kept(world: &World) {
    if let Some(promise) = &world.promise {
        assert!(world.now <= promise.until, "{} is not acted on until {}", promise.about, world.now);
    }
}

/// "Once a backend is back, requests are served within 200 ms."
pub(crate) fn nobody_waits_while_somebody_can_serve(world: &World) {
    let bound = Duration::from_millis(200);
    if world.engine.availability() != Availability::NoBackend || world.under_way.is_some() {
        return;
    }
    for (id, backend) in world.backends.iter().enumerate() {
        let ready = backend.connected && backend.state == State::Up && backend.standing_told == Standing::Enterable;
        let since = backend.connected_at.max(backend.standing_at).max(backend.fit_since).max(world.nobody_since);
        assert!(!ready || world.now - since < bound, "#{id} could serve since {since} and nobody does");
    }
}

/// The engine must not ask to be called in a loop.
pub(crate) fn timeouts_do_not_spin(world: &World) {
    let elapsed = world.now.as_micros() / 1_000;
    assert!(world.timeouts_handled <= elapsed / 2 + 100, "{} timeouts in {elapsed} ms", world.timeouts_handled);
}

/// "Then faults stop and the world must heal": the primary serves.
pub(crate) fn healed(world: &World) {
    let view = world.engine.view(world.now);
    assert_eq!(view.availability, Availability::Serving);
    assert_eq!(view.active.index(), 0, "the primary does not serve again: {view:#?}");
    assert!(matches!(view.status, Status::Active | Status::Recovered), "{}", view.status);
}
