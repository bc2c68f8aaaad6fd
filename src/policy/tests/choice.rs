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

fn replica_answer() -> ProbeOutcome {
    ProbeOutcome::Ok(ProbeAnswer::new(MS, Role::Replica))
}

/// A cold backup, and a replica that is promoted when it is entered or not.
fn cold_and_replica(promotable: bool) -> World {
    let mut backends = group();
    backends[2].data = DataMode::Replica;
    (backends[0].promotable, backends[2].promotable) = (promotable, promotable);
    let mut world = World::with(Settings::default(), backends);
    world.probe(BACKUP_B, replica_answer());
    world
}

#[test]
fn a_replica_that_can_be_promoted_goes_before_a_cold_backup_and_one_that_cannot_after_it() {
    for (promotable, follows) in [(true, BACKUP_B), (false, BACKUP_A)] {
        let mut world = cold_and_replica(promotable);
        world.die(PRIMARY);
        let switch = world.the_switch();
        assert_eq!((switch.to, switch.planned), (follows, false), "the primary is dead: nothing can be handed over");
    }
}

#[test]
fn of_two_replicas_the_one_that_somebody_has_promoted_is_gone_to() {
    let mut backends = group();
    for backend in &mut backends[1..] {
        (backend.data, backend.promotable) = (DataMode::Replica, true);
    }
    let mut world = World::with(Settings::default(), backends);
    world.probe(BACKUP_A, replica_answer());
    world.probe(BACKUP_B, ok());
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
}

#[test]
fn a_primary_that_lives_is_left_for_its_replica_by_plan_or_not_at_all() {
    for promotable in [true, false] {
        let mut world = cold_and_replica(promotable);
        // Answered below, as a replica answers.
        world.answers = false;
        world.standing(BACKUP_A, Standing::Refused { why: "foreign keys".into() });
        world.pass_well(2 * SECOND, &[PRIMARY]);
        world.probe(BACKUP_B, replica_answer());
        for _ in 0..20 {
            world.pass(50 * MS);
            let errors = ErrorCounts { timeout: 5, ..ErrorCounts::default() };
            world.window(PRIMARY, WindowSummary { requests: 10, errors, ..WindowSummary::default() });
            // It is asked afresh before a living active is left for it.
            world.pass(2 * MS);
            world.probe(BACKUP_B, replica_answer());
        }
        let switches = world.switches();
        assert_eq!(switches.len(), usize::from(promotable), "{switches:?}");
        assert!(switches.iter().all(|switch| switch.to == BACKUP_B && switch.planned), "{switches:?}");
    }
}

#[test]
fn a_primary_that_was_left_and_follows_is_well_where_it_may_follow_and_has_the_wrong_role_where_not() {
    for (promotable, health) in [(true, Health::Healthy), (false, Health::Critical)] {
        let mut world = cold_and_replica(promotable);
        world.probe(PRIMARY, replica_answer());
        assert_eq!(world.engine.view(world.now).backends[0].health, health, "promotable: {promotable}");
    }
}
