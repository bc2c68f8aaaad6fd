//! `failover.hold`, and an active that restarts.

use super::*;

fn holding() -> World {
    let mut settings = Settings::default();
    settings.failover.hold = SECOND;
    let mut world = World::with(settings, group());
    world.actions.clear();
    world.edge(PRIMARY, Edge::LinkLost);
    world.pass(2 * MS);
    world.die(PRIMARY);
    assert_eq!(world.published(), [Availability::Holding { until: Time::from_millis(2_000) }]);
    world
}

#[test]
fn a_primary_that_comes_back_within_hold_serves_on() {
    let mut world = holding();
    world.pass(500 * MS);
    world.edge(PRIMARY, Edge::HandshakeDone);
    assert_eq!(world.published().last(), Some(&Availability::Serving));
    world.pass(5 * SECOND);
    assert_eq!(world.switches(), []);
    assert_eq!(world.view().status, Status::Active);
}

#[test]
fn a_restarted_primary_is_entered_anew_before_it_serves() {
    let mut world = holding();
    world.edge(PRIMARY, Edge::IdentityChanged);
    world.edge(PRIMARY, Edge::HandshakeDone);
    assert_eq!(world.published().len(), 1, "still holding");
    world.switched(PRIMARY, Trigger::Connection, SwitchKind::Reentry);
}

#[test]
fn hold_is_over_in_time() {
    let mut world = holding();
    world.pass(997 * MS);
    assert_eq!(world.switches(), []);
    world.pass(MS);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
}

#[test]
fn a_restarted_active_that_may_not_be_served_from_is_left() {
    let mut world = World::new();
    world.edge(PRIMARY, Edge::IdentityChanged);
    world.edge(PRIMARY, Edge::HandshakeDone);
    let reentry = world.the_switch();
    assert_eq!((reentry.to, reentry.kind), (PRIMARY, SwitchKind::Reentry));
    world.done(reentry.id, SwitchResult::Refused { why: "old content".into() });
    world.switched(BACKUP_A, Trigger::Cascade, SwitchKind::Failover);
}

#[test]
fn the_restart_of_the_active_is_seen_in_either_order_of_its_news() {
    let mut world = World::new();
    world.edge(PRIMARY, Edge::LinkLost);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.edge(PRIMARY, Edge::IdentityChanged);
    world.switched(PRIMARY, Trigger::Connection, SwitchKind::Reentry);
}
