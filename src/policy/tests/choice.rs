//! Who follows, and who does not.

use super::*;

#[test]
fn the_best_by_score_and_weight_is_taken_and_the_losers_are_recorded() {
    let mut backends = group();
    backends[2].weight = 150;
    let mut world = World::with(Settings::default(), backends);
    world.die(PRIMARY);
    let began = world.records(DecisionKind::SwitchBegan)[0].clone();
    let order: Vec<_> = began.candidates.iter().map(|candidate| candidate.backend).collect();
    assert_eq!(order, [BACKUP_B, BACKUP_A, PRIMARY]);
    assert_eq!(began.candidates[0].against, None);
    assert!(began.candidates[1].against.as_ref().unwrap().contains("weight"), "{began:?}");
    assert!(began.candidates[2].against.as_ref().unwrap().contains("left"), "{began:?}");
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
}

#[test]
fn of_equals_the_first_is_taken_and_the_other_is_told_to_be_as_good() {
    let mut world = World::new();
    world.die(PRIMARY);
    let began = world.records(DecisionKind::SwitchBegan)[0].clone();
    assert_eq!(began.backend, BACKUP_A);
    assert_eq!(began.candidates[1].against.as_deref(), Some("as good as backup-a, which is named first"));
}

#[test]
fn enterable_goes_before_unknown_and_refused_is_never_taken() {
    let mut world = World::new();
    world.standing(BACKUP_A, Standing::Unknown);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);

    let mut world = World::new();
    world.standing(BACKUP_A, Standing::Refused { why: "foreign keys".into() });
    world.standing(BACKUP_B, Standing::Unknown);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);

    let mut world = World::new();
    world.standing(BACKUP_A, Standing::Refused { why: "foreign keys".into() });
    world.standing(BACKUP_B, Standing::Refused { why: "persistent".into() });
    world.die(PRIMARY);
    assert_eq!(world.published(), [Availability::NoBackend]);
    assert_eq!(world.switches(), []);
}

#[test]
fn the_last_resort_comes_last_whatever_its_score() {
    let mut backends = group();
    backends[1].last_resort = true;
    backends[1].weight = 1_000;
    let mut world = World::with(Settings::default(), backends);
    world.probe(BACKUP_B, ProbeOutcome::Failed(Edge::LinkLost));
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
}

#[test]
fn a_refused_entry_goes_on_to_the_next_as_a_cascade() {
    let mut world = World::new();
    world.die(PRIMARY);
    let first = world.the_switch();
    assert_eq!(first.to, BACKUP_A);
    world.done(first.id, SwitchResult::Refused { why: "not owned".into() });
    world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
}

#[test]
fn a_target_that_dies_on_the_way_is_given_up_at_once() {
    let mut world = World::new();
    world.die(PRIMARY);
    let first = world.the_switch();
    world.die(first.to);
    let second = world.the_switch();
    assert_eq!((second.to, second.trigger), (BACKUP_B, Trigger::Cascade));
    world.done(first.id, SwitchResult::Failed { why: "superseded".into() });
    world.done(second.id, SwitchResult::Done);
    assert_eq!(world.view().active, BACKUP_B);
}

#[test]
fn a_switch_that_nobody_answers_is_given_up_but_its_late_success_is_believed() {
    let mut world = World::new();
    world.die(PRIMARY);
    let first = world.the_switch();
    world.pass(2 * SECOND);
    let second = world.the_switch();
    assert_eq!(second.to, BACKUP_B);
    world.done(first.id, SwitchResult::Done);
    assert_eq!(world.view().active, BACKUP_A);
    world.done(second.id, SwitchResult::Done);
    assert_eq!((world.view().active, world.view().epoch), (BACKUP_B, 3));
}

#[test]
fn when_the_backup_fails_too_the_best_living_one_follows_the_primary_included() {
    let mut world = World::failed_over();
    world.die(BACKUP_B);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.probe(PRIMARY, ok());
    world.die(BACKUP_A);
    world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Failover);
}

#[test]
fn our_own_zone_goes_first_and_a_zone_that_has_lost_one_goes_last() {
    let zoned = |zones: [&str; 3], ours: Option<&str>| {
        let mut backends = group();
        for (backend, zone) in backends.iter_mut().zip(zones) {
            backend.zone = Some(zone.to_owned());
            backend.region = Some(zone[..1].to_owned());
        }
        let settings = Settings { zone: ours.map(str::to_owned), ..Settings::default() };
        let mut world = World::with(Settings { region: ours.map(|zone| zone[..1].to_owned()), ..settings }, backends);
        world.die(PRIMARY);
        world.the_switch().to
    };
    assert_eq!(zoned(["a1", "b1", "a2"], Some("a2")), BACKUP_B, "our own zone");
    assert_eq!(zoned(["c1", "b1", "a2"], Some("a1")), BACKUP_B, "our own region");
    assert_eq!(zoned(["a1", "a1", "a2"], None), BACKUP_B, "the primary's zone may be what failed");
    assert_eq!(zoned(["a1", "a2", "a2"], None), BACKUP_A, "none of it speaks: the first");
}

#[test]
fn the_loser_is_told_by_how_much_it_lost() {
    let mut backends = group();
    backends[1].weight = 110;
    let mut world = World::with(Settings::default(), backends);
    world.die(PRIMARY);
    let began = world.records(DecisionKind::SwitchBegan)[0];
    let loser = began.candidates.iter().find(|candidate| candidate.backend == BACKUP_B).unwrap();
    assert!(loser.value < began.candidates[0].value);
    assert!(loser.against.as_ref().unwrap().contains("score 100 x weight 100"), "{loser:?}");
}

#[test]
fn a_mirrored_backup_goes_before_a_cold_one_and_a_replica_that_lags_after_one_that_does_not() {
    let mut backends = group();
    backends[2].data = DataMode::Mirrored;
    let mut world = World::with(Settings::default(), backends);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);

    let mut backends = group();
    (backends[1].data, backends[2].data) = (DataMode::Replica, DataMode::Replica);
    let mut world = World::with(Settings::default(), backends);
    for (backend, lag) in [(BACKUP_A, 30), (BACKUP_B, 1)] {
        let replication_lag = Some(lag * SECOND);
        world.probe(backend, ProbeOutcome::Ok(ProbeAnswer { replication_lag, ..ProbeAnswer::new(MS, Role::Replica) }));
    }
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
}
