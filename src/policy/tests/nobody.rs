//! Nobody left, and the way back.

use super::*;

fn all_down() -> World {
    let mut world = World::failed_over();
    world.die(BACKUP_B);
    world.die(BACKUP_A);
    assert_eq!(world.published(), [Availability::NoBackend]);
    assert_eq!(world.records(DecisionKind::NoBackend).len(), 1);
    assert_eq!(world.view().status, Status::FailingOver);
    world.actions.clear();
    world
}

#[test]
fn whoever_answers_first_serves_at_once() {
    for (backend, kind) in
        [(PRIMARY, SwitchKind::Failover), (BACKUP_A, SwitchKind::Reentry), (BACKUP_B, SwitchKind::Failover)]
    {
        for event in [Event::Edge { backend, edge: Edge::HandshakeDone }, Event::Probe { backend, outcome: ok() }] {
            let mut world = all_down();
            world.pass(60 * SECOND);
            world.tell(event);
            world.switched(backend, Trigger::Cascade, kind);
        }
    }
}

#[test]
fn who_answers_but_may_not_be_entered_is_waited_for() {
    let mut world = all_down();
    world.standing(PRIMARY, Standing::Refused { why: "unknown content".into() });
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(5 * SECOND, &[PRIMARY]);
    assert_eq!(world.switches(), []);
    world.standing(PRIMARY, Standing::Enterable);
    world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Failover);
}

#[test]
fn fruitless_entries_back_off_and_are_recorded_once() {
    let mut world = all_down();
    world.edge(PRIMARY, Edge::HandshakeDone);
    let mut attempts = 0;
    for _ in 0..600 {
        world.pass(100 * MS);
        let wanted = world
            .actions
            .iter()
            .find_map(|action| if let Action::Switch(switch) = action { Some(switch.id) } else { None });
        let recorded = world.records(DecisionKind::SwitchBegan).len();
        assert!(recorded <= usize::from(attempts == 0));
        world.actions.clear();
        if let Some(id) = wanted {
            attempts += 1;
            world.done(id, SwitchResult::Refused { why: "persistent".into() });
        }
    }
    assert!((5..=12).contains(&attempts), "{attempts} attempts in a minute");
}

#[test]
fn the_last_resort_is_left_as_soon_as_a_real_backend_answers() {
    let mut backends = group();
    backends[2].last_resort = true;
    let mut world = World::with(Settings::default(), backends);
    world.die(BACKUP_A);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
    world.pass_well(10 * SECOND, &[BACKUP_B]);
    assert_eq!(world.switches(), []);
    world.probe(BACKUP_A, ok());
    world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Recovery);
}
