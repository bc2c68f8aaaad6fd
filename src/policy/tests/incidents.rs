//! What an incident is, and what every decision says of itself.

use super::*;

fn incidents(world: &World) -> Vec<Incident> {
    let incident =
        |action: &Action| if let Action::Incident(incident) = action { Some(incident.clone()) } else { None };
    world.asked.iter().filter_map(incident).collect()
}

#[test]
fn an_incident_begins_with_the_verdict_and_ends_when_somebody_serves() {
    let mut world = World::new();
    world.pass(SECOND);
    world.die(PRIMARY);
    let switch = world.the_switch();
    world.pass(7 * MS);
    world.done(switch.id, SwitchResult::Done);
    let told = incidents(&world);
    assert_eq!(told.len(), 2);
    assert!(!told[0].resolved && told[0].hard && told[0].trigger == Trigger::Connection);
    let end = &told[1];
    assert_eq!((end.id, end.resolved, end.resolution), (told[0].id, true, Some(Resolution::Failover)));
    assert_eq!((end.resolved_at, end.served_by), (Some(world.now), Some(BACKUP_A)));
    assert_eq!(world.view().incident, None);
}

#[test]
fn the_second_backup_that_is_tried_resolves_it_as_a_cascade() {
    let mut world = World::new();
    world.die(PRIMARY);
    let first = world.the_switch();
    world.done(first.id, SwitchResult::Refused { why: "not owned".into() });
    world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
    let end = incidents(&world).pop().unwrap();
    assert_eq!((end.attempts, end.resolution), (2, Some(Resolution::Cascade)));
}

#[test]
fn trouble_that_passes_was_waited_for() {
    let mut settings = Settings::default();
    settings.failover.triggers.health_check = false;
    let mut world = World::with(settings, group());
    for _ in 0..4 {
        world.pass(110 * MS);
        world.probe(PRIMARY, ProbeOutcome::NotReady(NotReadyWord::Loading));
    }
    assert!(world.view().incident.is_some_and(|incident| !incident.hard));
    world.pass_well(10 * SECOND, &[PRIMARY]);
    let end = incidents(&world).pop().unwrap();
    assert_eq!((end.resolution, end.served_by), (Some(Resolution::Waited), Some(PRIMARY)));
}

#[test]
fn an_outage_of_all_lasts_until_a_real_backend_serves() {
    let mut backends = group();
    backends[2].last_resort = true;
    let mut world = World::with(Settings::default(), backends);
    world.die(BACKUP_A);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
    assert!(world.view().incident.is_some(), "the store in our own memory is a bridge");
    world.pass(30 * SECOND);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
    let end = incidents(&world).pop().unwrap();
    assert_eq!((end.served_by, end.resolution), (Some(PRIMARY), Some(Resolution::Cascade)));
}

#[test]
fn a_decision_says_what_it_saw_how_sure_it_is_and_how_long_it_will_take() {
    let mut world = World::new();
    world.die(PRIMARY);
    let began = world.records(DecisionKind::SwitchBegan)[0].clone();
    assert!(began.confidence.is_some_and(|confidence| confidence > 0.9));
    assert_eq!(began.estimated_delay, Some(5 * MS));
    let primary = began.candidates.iter().find(|candidate| candidate.backend == PRIMARY).unwrap();
    assert_eq!((primary.name.as_str(), primary.health, primary.score), ("primary", Health::Failed, 0));
    assert!(primary.reasons[0].contains("refused"), "{primary:?}");
    assert!(began.checks.iter().any(|check| check.name == CheckName::Trigger && check.passed));
    // The next estimate has learnt from this one.
    let switch = world.the_switch();
    world.pass(205 * MS);
    world.done(switch.id, SwitchResult::Done);
    world.die(BACKUP_A);
    assert_eq!(world.records(DecisionKind::SwitchBegan)[0].estimated_delay, Some(55 * MS));
}

#[test]
fn a_recovery_records_what_was_verified() {
    let mut world = World::failed_over();
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(16 * SECOND, &[PRIMARY, BACKUP_A]);
    let began = world.records(DecisionKind::SwitchBegan)[0].clone();
    for name in [CheckName::Connect, CheckName::Role, CheckName::Ready, CheckName::Latency, CheckName::Cooldown] {
        assert!(began.checks.iter().any(|check| check.name == name && check.passed), "{name:?}: {began:?}");
    }
}

#[test]
fn a_relapse_while_it_is_being_entered_ends_the_recovery() {
    let mut world = World::failed_over();
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(16 * SECOND, &[PRIMARY, BACKUP_A]);
    let recovery = world.the_switch();
    assert_eq!(recovery.kind, SwitchKind::Recovery);
    world.actions.clear();
    world.die(PRIMARY);
    let ended = world.records(DecisionKind::SwitchEnded)[0];
    assert!(matches!(&ended.result, Some(SwitchResult::Failed { why }) if why.contains("refused")), "{ended:?}");
    assert_eq!((world.view().active, world.view().availability), (BACKUP_A, Availability::Serving));
    assert_eq!(world.view().switching, None);
}
