//! The way back to the primary.

use super::*;

#[test]
fn the_primary_serves_again_after_good_probes_and_the_delay() {
    let mut world = World::failed_over();
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(14_500 * MS, &[PRIMARY]);
    assert_eq!(world.switches(), []);
    world.pass_well(1_500 * MS, &[PRIMARY]);
    let switch = world.the_switch();
    assert_eq!((switch.to, switch.kind, switch.planned), (PRIMARY, SwitchKind::Recovery, true));
    assert_eq!(world.view().status, Status::Recovering);
    world.done(switch.id, SwitchResult::Done);
    assert_eq!(world.view().status, Status::Recovered);
    world.pass(61 * SECOND);
    assert_eq!(world.view().status, Status::Active);
}

#[test]
fn a_backup_that_served_already_is_left_like_one_that_was_failed_over_to() {
    let mut world = World::new();
    world.tell(Event::Joined { backend: BACKUP_A });
    assert_eq!((world.view().active, world.view().status), (BACKUP_A, Status::FailedOver));
    assert_eq!(world.switches(), [], "it serves already");
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(16 * SECOND, &[PRIMARY, BACKUP_A]);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
    world.tell(Event::Joined { backend: BACKUP_A });
    assert_eq!(world.view().active, PRIMARY, "of no weight once a switch was ordered");
}

#[test]
fn a_flapping_primary_is_left_once() {
    let mut world = World::failed_over();
    for _ in 0..16 {
        world.edge(PRIMARY, Edge::HandshakeDone);
        world.pass_well(SECOND, &[PRIMARY, BACKUP_A]);
        world.edge(PRIMARY, Edge::LinkLost);
        world.die(PRIMARY);
        world.pass_well(250 * MS, &[BACKUP_A]);
    }
    assert_eq!(world.switches(), []);
}

#[test]
fn a_relapse_doubles_the_delay() {
    let mut world = World::recovered();
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(29_500 * MS, &[PRIMARY]);
    assert_eq!(world.switches(), []);
    world.pass_well(3 * SECOND, &[PRIMARY]);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn a_slow_primary_waits_until_it_is_as_fast_as_before() {
    let mut world = World::new();
    world.pass_well(10 * SECOND, &[PRIMARY]);
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    let slow = ProbeOutcome::Ok(ProbeAnswer::new(50 * MS, Role::Master));
    for _ in 0..60 {
        world.pass(500 * MS);
        world.probe(PRIMARY, slow.clone());
    }
    assert_eq!(world.records(DecisionKind::Stayed).len(), 1);
    assert_eq!(world.switches(), []);
    world.pass_well(4 * SECOND, &[PRIMARY]);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn a_refused_recovery_stays_backs_off_and_is_recorded_once() {
    let mut world = World::failed_over();
    world.pass_well(16 * SECOND, &[PRIMARY]);
    let mut attempts = 0;
    for _ in 0..120 {
        let wanted = world
            .actions
            .iter()
            .find_map(|action| if let Action::Switch(switch) = action { Some(switch.id) } else { None });
        if let Some(id) = wanted {
            attempts += 1;
            assert_eq!(world.records(DecisionKind::SwitchBegan).len(), usize::from(attempts == 1));
            world.actions.clear();
            world.done(id, SwitchResult::Refused { why: "unknown content".into() });
            assert_eq!(world.records(DecisionKind::SwitchEnded).len(), usize::from(attempts == 1));
        }
        world.actions.clear();
        world.pass_well(500 * MS, &[PRIMARY, BACKUP_A]);
    }
    assert!((4..=8).contains(&attempts), "{attempts}");
    assert_eq!(world.view().active, BACKUP_A);
    world.standing(PRIMARY, Standing::Enterable);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn a_disabled_recovery_waits_for_the_operator() {
    let mut settings = Settings::default();
    settings.recovery.enabled = false;
    let mut world = World::with(settings, group());
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    world.pass_well(120 * SECOND, &[PRIMARY]);
    assert_eq!(world.switches(), []);
    world.operator(OperatorCommand::new(Order::Recover, "mended"));
    world.switched(PRIMARY, Trigger::Manual, SwitchKind::Recovery);
}
