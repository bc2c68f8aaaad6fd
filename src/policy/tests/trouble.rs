//! A backend that lives but does not serve.

use super::*;

#[test]
fn loading_is_left_when_sustained() {
    for word in [NotReadyWord::Loading, NotReadyWord::MasterDown, NotReadyWord::ClusterDown] {
        let mut world = World::new();
        for _ in 0..3 {
            assert_eq!(world.switches(), []);
            world.pass(500 * MS);
            world.probe(PRIMARY, ProbeOutcome::NotReady(word));
        }
        world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Failover);
    }
}

#[test]
fn a_fifth_of_requests_answered_loading_is_left_within_5_s_though_probes_are_well() {
    let mut world = World::new();
    // 10 requests/s in good times, then every fifth is refused.
    for request in 0..150 {
        world.pass(100 * MS);
        if request % 5 == 0 {
            world.probe(PRIMARY, ok());
        }
        let not_ready = u64::from(request >= 100 && request % 5 == 3);
        let errors = ErrorCounts { not_ready, ..ErrorCounts::default() };
        let now = world.now;
        world.window(PRIMARY, WindowSummary { requests: 1, errors, ..busy(now) });
        if request < 100 {
            assert_eq!(world.switches(), []);
        } else if world.records(DecisionKind::SwitchBegan).len() == 1 {
            break;
        }
    }
    world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Failover);
}

#[test]
fn a_burst_of_refused_writes_is_one_sign() {
    let mut world = World::new();
    (0..100).for_each(|_| world.edge(PRIMARY, Edge::WrongRole));
    assert_eq!(world.switches(), []);
    for _ in 0..2 {
        world.pass(110 * MS);
        world.edge(PRIMARY, Edge::WrongRole);
    }
    world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Failover);
}

#[test]
fn a_busy_script_and_the_applications_own_errors_never_count() {
    let mut world = World::new();
    for _ in 0..200 {
        world.pass(50 * MS);
        world.edge(PRIMARY, Edge::NotReady(NotReadyWord::Busy));
        let errors = ErrorCounts { data: 1_000, authentication: 10, ..ErrorCounts::default() };
        let now = world.now;
        world.window(PRIMARY, WindowSummary { requests: 1_000, errors, ..busy(now) });
    }
    assert_eq!(world.switches(), []);
    assert_eq!(world.view().backends[0].score, 100);
}

#[test]
fn many_lost_requests_of_one_lost_link_do_not_open_the_breaker() {
    let mut world = World::new();
    world.edge(PRIMARY, Edge::LinkLost);
    let errors = ErrorCounts { connection: 900, ..ErrorCounts::default() };
    let now = world.now;
    world.window(PRIMARY, WindowSummary { requests: 1_000, errors, ..busy(now) });
    assert_eq!(world.switches(), []);
}

#[test]
fn a_rate_of_timeouts_is_left_for_somebody_well() {
    let mut world = World::new();
    let errors = ErrorCounts { timeout: 3, ..ErrorCounts::default() };
    for _ in 0..2 {
        world.pass(50 * MS);
        let now = world.now;
        world.window(PRIMARY, WindowSummary { requests: 10, errors, ..busy(now) });
    }
    world.switched(BACKUP_A, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn it_is_kept_when_nobody_else_is_well_and_that_is_said_once() {
    let mut world = World::new();
    world.die(BACKUP_A);
    world.die(BACKUP_B);
    for _ in 0..20 {
        world.pass(500 * MS);
        world.probe(PRIMARY, ProbeOutcome::NotReady(NotReadyWord::Loading));
    }
    assert_eq!(world.records(DecisionKind::Stayed).len(), 1);
    assert_eq!(world.published(), []);
    assert_eq!(world.switches(), []);
}

/// The primary is a replica all of a sudden; how often the backups have been asked since.
fn demoted(world: &mut World) -> usize {
    world.answers = false;
    world.actions.clear();
    for _ in 0..3 {
        world.pass(110 * MS);
        world.edge(PRIMARY, Edge::WrongRole);
    }
    asked(world)
}

fn asked(world: &World) -> usize {
    let backups = |action: &&Action| matches!(action, Action::ProbeNow { backend } if *backend != PRIMARY);
    world.asked.iter().filter(backups).count()
}

fn full() -> ProbeOutcome {
    ProbeOutcome::Ok(ProbeAnswer { write_ok: Some(false), ..ProbeAnswer::new(MS, Role::Master) })
}

#[test]
fn a_living_active_is_left_only_for_who_says_just_now_that_it_is_well() {
    let mut world = World::new();
    assert_eq!(demoted(&mut world), 2, "both are asked, once");
    assert_eq!(world.switches(), []);
    world.pass(2 * MS);
    // The first was filled within the same interval, so its answer moves nobody there.
    world.probe(BACKUP_A, full());
    assert_eq!(world.switches(), []);
    world.probe(BACKUP_B, ok());
    world.switched(BACKUP_B, Trigger::HealthCheck, SwitchKind::Failover);
}

#[test]
fn nobody_is_entered_who_is_found_as_bad_as_the_active() {
    let mut world = World::new();
    demoted(&mut world);
    for _ in 0..10 {
        world.pass(500 * MS);
        world.edge(PRIMARY, Edge::WrongRole);
        world.probe(BACKUP_A, full());
        world.probe(BACKUP_B, ProbeOutcome::NotReady(NotReadyWord::Loading));
    }
    assert_eq!(world.records(DecisionKind::Stayed).len(), 1);
    assert_eq!(world.switches(), []);
}

#[test]
fn an_answer_to_what_was_asked_before_the_trouble_does_not_count() {
    let mut world = World::new();
    demoted(&mut world);
    world.pass(5 * MS);
    let late = ProbeAnswer { write_ok: Some(true), ..ProbeAnswer::new(6 * MS, Role::Master) };
    world.probe(BACKUP_A, ProbeOutcome::Ok(late));
    assert_eq!(world.switches(), []);
    world.probe(BACKUP_A, ok());
    world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Failover);
}

#[test]
fn nobody_is_asked_for_a_switch_that_a_person_has_declined() {
    let mut settings = Settings::default();
    settings.failover.mode = Mode::SemiAutomatic;
    let mut world = World::with(settings, group());
    demoted(&mut world);
    world.pass(2 * MS);
    world.probe(BACKUP_A, ok());
    assert_eq!(world.view().proposal.unwrap().to, BACKUP_A);
    world.operator(OperatorCommand::new(Order::Decline { proposal: None }, "not now"));
    world.asked.clear();
    for _ in 0..20 {
        world.pass(100 * MS);
        world.edge(PRIMARY, Edge::WrongRole);
    }
    assert_eq!(asked(&world), 0);
    assert_eq!(world.view().proposal, None);
}

#[test]
fn a_question_that_was_lost_is_put_again() {
    let mut world = World::new();
    let before = demoted(&mut world);
    for _ in 0..20 {
        world.pass(100 * MS);
        world.edge(PRIMARY, Edge::WrongRole);
    }
    let again = asked(&world) - before;
    assert!((2..=4).contains(&again), "once a second each, not with every event: {again}");
}
