//! What keeps the engine from switching too often or for nothing, and what none of it may stop.

use super::*;

/// A third of what the backend is asked fails.
fn trouble(world: &mut World, backend: BackendId) {
    for _ in 0..4 {
        world.pass(110 * MS);
        fail_a_third(world, backend);
    }
}

fn fail_a_third(world: &mut World, backend: BackendId) {
    let (now, errors) = (world.now, ErrorCounts { overloaded: 10, ..ErrorCounts::default() });
    world.window(backend, WindowSummary { requests: 30, errors, ..busy(now) });
}

fn stays(world: &World) -> Vec<String> {
    world.records(DecisionKind::Stayed).iter().map(|decision| decision.why.clone()).collect()
}

fn failed_check(decision: &Decision) -> CheckName {
    decision.checks.iter().find(|check| !check.passed).unwrap().name
}

#[test]
fn trouble_right_after_a_switch_waits_for_the_cool_down() {
    let mut world = World::failed_over();
    trouble(&mut world, BACKUP_A);
    let stayed = world.records(DecisionKind::Stayed);
    assert_eq!(stayed.len(), 1, "{stayed:?}");
    assert_eq!(failed_check(stayed[0]), CheckName::Cooldown);
    assert_eq!(world.switches(), []);
    for _ in 0..60 {
        world.pass(100 * MS);
        fail_a_third(&mut world, BACKUP_A);
    }
    world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
    assert!(world.now > Time::from_secs(6), "the cool-down is 5 s");
}

#[test]
fn errors_that_ended_during_a_cool_down_cause_no_switch_after_it() {
    let mut settings = Settings::default();
    settings.failover.cooldown = 20 * SECOND;
    let mut world = World::with(settings, group());
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    // 12 s of errors, then 12 s of good service; probes are well all the time, as they are in a gray failure.
    for tick in 0..240 {
        world.pass(100 * MS);
        if tick % 5 == 0 {
            world.probe(BACKUP_A, ok());
            world.probe(BACKUP_B, ok());
        }
        let now = world.now;
        match tick {
            0..120 => fail_a_third(&mut world, BACKUP_A),
            _ => world.window(BACKUP_A, WindowSummary { requests: 30, ..busy(now) }),
        }
        if tick < 120 && world.now > Time::from_secs(2) {
            assert_eq!(world.records(DecisionKind::Stayed).len(), 1, "it is in trouble throughout");
        }
    }
    assert_eq!(world.switches(), []);
    assert_eq!(world.view().backends[BACKUP_A.index()].breaker, BreakerState::Closed);
    assert_eq!(world.view().incident, None, "resolved once, by itself");
}

#[test]
fn an_active_that_refuses_every_write_is_left_also_right_after_a_switch() {
    let mut world = World::failed_over();
    for _ in 0..4 {
        world.pass(110 * MS);
        world.edge(BACKUP_A, Edge::WrongRole);
    }
    world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
    assert!(world.now < Time::from_secs(5), "the cool-down is 5 s");
}

#[test]
fn death_is_never_stopped_by_a_guard() {
    let mut settings = Settings::default();
    settings.failover.cooldown = 3_600 * SECOND;
    settings.failover.cooldown_max = 3_600 * SECOND;
    settings.failover.max_per_hour = 1;
    let mut world = World::with(settings, group());
    world.tell(Event::TickStalled { late: 2 * SECOND });
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    world.die(BACKUP_A);
    world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
}

#[test]
fn a_flapping_primary_makes_at_most_one_switch_per_doubling_of_the_cool_down() {
    let mut world = World::new();
    let mut switches: Vec<Time> = Vec::new();
    let end = world.now + 4 * 3_600 * SECOND;
    // Up long enough that no recovery counts as a relapse: only the cool-down is left to slow it down.
    let (up, down) = (70 * SECOND, 5 * SECOND);
    let mut up_until = world.now + up;
    while world.now < end {
        if world.now >= up_until {
            world.die(PRIMARY);
            let back = world.now + down;
            while world.now < back {
                carry_out(&mut world, &mut switches);
                world.pass_well(500 * MS, &[BACKUP_A, BACKUP_B]);
            }
            world.edge(PRIMARY, Edge::HandshakeDone);
            up_until = world.now + up;
        }
        carry_out(&mut world, &mut switches);
        world.pass_well(500 * MS, &[PRIMARY, BACKUP_A, BACKUP_B]);
    }
    // 5 s doubled n times fill 4 h at most so often, with one there and one back for each, and so at the bound of half an
    // hour.
    let doublings = 2 * (0..).take_while(|n| 5 << n < 1_800).count();
    let at_the_bound = 2 * (4 * 3_600 / 1_800);
    assert!(switches.len() >= 6 && switches.len() <= doublings + at_the_bound, "{switches:?}");
    let mut cooldown = 5 * SECOND;
    for (n, pair) in switches.windows(2).enumerate() {
        // Every second switch is the way back, which can wait: twice as long each time.
        if n % 2 == 0 {
            assert!(pair[1] - pair[0] >= cooldown.min(1_800 * SECOND), "{n}: {switches:?}");
            cooldown *= 2;
        }
    }
}

fn carry_out(world: &mut World, switches: &mut Vec<Time>) {
    for switch in world.switches() {
        switches.push(world.now);
        world.done(switch.id, SwitchResult::Done);
    }
}

#[test]
fn an_hour_that_is_full_keeps_what_can_wait() {
    let mut settings = Settings::default();
    settings.failover.max_per_hour = 1;
    let mut world = World::with(settings, group());
    world.pass_well(10 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    trouble(&mut world, PRIMARY);
    world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Failover);
    world.pass_well(10 * SECOND, &[BACKUP_A, BACKUP_B]);
    world.actions.clear();
    trouble(&mut world, BACKUP_A);
    assert_eq!(failed_check(world.records(DecisionKind::Stayed)[0]), CheckName::PerHour);
    assert_eq!(world.switches(), []);
}

#[test]
fn a_primary_that_was_well_for_long_is_returned_to_whatever_the_cool_down_says() {
    let mut settings = Settings::default();
    settings.failover.cooldown = 3_600 * SECOND;
    settings.failover.cooldown_max = 3_600 * SECOND;
    let delay_max = settings.recovery.delay_max;
    let mut world = World::with(settings, group());
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(delay_max - 2 * SECOND, &[PRIMARY, BACKUP_A]);
    assert_eq!(world.switches(), []);
    world.pass_well(3 * SECOND, &[PRIMARY, BACKUP_A]);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn it_does_not_go_to_somebody_unwell() {
    let mut world = World::new();
    for backend in [BACKUP_A, BACKUP_B] {
        world.edge(backend, Edge::AuthenticationFailed);
    }
    trouble(&mut world, PRIMARY);
    assert_eq!(stays(&world), ["primary serves badly but nobody else is well"]);
    assert_eq!(world.switches(), []);
}

#[test]
fn everything_slow_alike_is_our_own_fault() {
    let slow = |latency| ProbeOutcome::Ok(ProbeAnswer::new(latency, Role::Master));
    let mut world = World::new();
    world.pass_well(10 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    world.actions.clear();
    for _ in 0..40 {
        world.pass(200 * MS);
        for backend in [PRIMARY, BACKUP_A, BACKUP_B] {
            world.probe(backend, slow(80 * MS));
        }
        let (now, errors) = (world.now, ErrorCounts { timeout: 3, ..ErrorCounts::default() });
        world.window(PRIMARY, WindowSummary { requests: 10, errors, ..busy(now) });
    }
    let stayed = world.records(DecisionKind::Stayed);
    assert_eq!(failed_check(stayed[0]), CheckName::SlowAlike, "{stayed:?}");
    assert_eq!(world.switches(), []);
    // One that is as fast as ever, and for long enough to be believed, is somebody to go to.
    for _ in 0..30 {
        world.pass(200 * MS);
        world.probe(BACKUP_B, slow(MS));
        let (now, errors) = (world.now, ErrorCounts { timeout: 3, ..ErrorCounts::default() });
        world.window(PRIMARY, WindowSummary { requests: 10, errors, ..busy(now) });
    }
    world.switched(BACKUP_B, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn right_after_we_ran_late_ourselves_trouble_is_not_believed() {
    let mut world = World::new();
    for _ in 0..2 {
        world.pass(110 * MS);
        world.edge(PRIMARY, Edge::WrongRole);
    }
    world.tell(Event::TickStalled { late: 3 * SECOND });
    world.pass(110 * MS);
    world.edge(PRIMARY, Edge::WrongRole);
    assert_eq!(failed_check(world.records(DecisionKind::Stayed)[0]), CheckName::Ourselves);
    assert_eq!(world.switches(), []);
    world.pass(3 * SECOND);
    world.edge(PRIMARY, Edge::WrongRole);
    world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Failover);
}

#[test]
fn each_trigger_has_its_switch() {
    type Happen = fn(&mut World);
    let cases: [(Trigger, Happen); 3] = [
        (Trigger::Connection, |world| world.die(PRIMARY)),
        (Trigger::HealthCheck, |world| trouble(world, PRIMARY)),
        (Trigger::Timeout, |world| {
            world.edge(PRIMARY, Edge::Stalled { silent_for: 700 * MS });
            world.pass(SECOND);
        }),
    ];
    for (trigger, happen) in cases {
        for allowed in [true, false] {
            let mut settings = Settings::default();
            let triggers = &mut settings.failover.triggers;
            *triggers = if allowed { Triggers::NONE } else { Triggers::ALL };
            match trigger {
                Trigger::Connection => triggers.connection = allowed,
                Trigger::HealthCheck => triggers.health_check = allowed,
                _ => triggers.timeout = allowed,
            }
            let mut world = World::with(settings, group());
            happen(&mut world);
            let switched = world.switches().len();
            assert_eq!(switched, usize::from(allowed), "{trigger} allowed: {allowed}");
        }
    }
}

#[test]
fn a_trigger_that_is_off_waits_for_the_same_backend_to_return() {
    let mut settings = Settings::default();
    settings.failover.triggers.connection = false;
    let mut world = World::with(settings, group());
    world.die(PRIMARY);
    assert_eq!(world.published(), [Availability::NoBackend]);
    assert!(world.records(DecisionKind::NoBackend)[0].why.contains("failover.triggers lacks connection"));
    world.pass_well(5 * SECOND, &[BACKUP_A, BACKUP_B]);
    assert_eq!(world.switches(), []);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Reentry);
}

#[test]
fn a_cascade_that_is_off_ends_at_the_first_backup() {
    let mut settings = Settings::default();
    settings.failover.cascade = false;
    let mut world = World::with(settings, group());
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    world.die(BACKUP_A);
    assert_eq!(world.switches(), []);
    assert_eq!(world.view().availability, Availability::NoBackend);
    world.pass_well(SECOND, &[BACKUP_B]);
    assert_eq!(world.switches(), []);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Failover);
}

#[test]
fn after_the_last_attempt_the_last_resort_serves() {
    let mut settings = Settings::default();
    settings.failover.max_attempts = 1;
    let mut backends = group();
    backends.push(BackendSettings {
        last_resort: true,
        ..BackendSettings::new(BackendId(3), "embedded", BackendRole::Backup)
    });
    let mut world = World::with(settings, backends);
    world.die(PRIMARY);
    let first = world.the_switch();
    assert_eq!(first.to, BACKUP_A);
    world.done(first.id, SwitchResult::Refused { why: "not owned".into() });
    world.switched(BackendId(3), Trigger::Cascade, SwitchKind::Failover);
    // And the way back goes to the best, here and now, though backup-b was never tried.
    world.pass_well(500 * MS, &[BACKUP_B]);
    world.switched(BACKUP_B, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn the_way_back_from_the_last_resort_goes_to_the_primary_if_it_is_there_too() {
    let mut backends = group();
    backends[2].last_resort = true;
    let mut world = World::with(Settings::default(), backends);
    world.die(BACKUP_A);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
    world.pass(60 * SECOND);
    // Both answer before anything is decided: the switch that is under way is refused, the next look sees both.
    world.edge(BACKUP_A, Edge::HandshakeDone);
    let first = world.the_switch();
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.done(first.id, SwitchResult::Failed { why: "lost".into() });
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn several_failures_in_one_moment_leave_the_best_of_what_lives() {
    let mut world = World::new();
    world.refuse(BACKUP_A);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
    // The other order: the backup dies while it is being entered.
    let mut world = World::new();
    world.die(PRIMARY);
    world.die(BACKUP_A);
    let last = world.switches().pop().unwrap();
    assert_eq!(last.to, BACKUP_B);
}

/// A primary whose reads take 100 ms where they took 1 ms, and backups whose probes take `backups`.
fn slow_reads(backups: Duration) -> World {
    let (world, left) = slow_reads_under(Settings::default(), backups);
    assert_eq!(left, backups < 50 * MS, "probes of the backups take {backups:?}");
    world
}

/// And whether a switch was ordered within 10 s.
fn slow_reads_under(settings: Settings, backups: Duration) -> (World, bool) {
    let mut world = World::with(settings, group());
    let steady = |world: &mut World, micros: u64, seconds: u64| {
        for tick in 0..seconds * 20 {
            world.pass(50 * MS);
            let mut window = WindowSummary { requests: 20, ..busy(world.now) };
            window.latency[CommandClass::Read.index()] = Sketch::of(std::iter::repeat_n(micros, 20));
            world.window(PRIMARY, window);
            if tick % 10 == 0 {
                for backend in [PRIMARY, BACKUP_A, BACKUP_B] {
                    let latency = if backend == PRIMARY { MS } else { backups };
                    world.probe(backend, ProbeOutcome::Ok(ProbeAnswer::new(latency, Role::Master)));
                }
            }
            if !world.switches().is_empty() {
                return true;
            }
        }
        false
    };
    assert!(!steady(&mut world, 1_000, 90), "it is learnt what is usual");
    let left = steady(&mut world, 100_000, 10);
    (world, left)
}

#[test]
fn trouble_that_nobody_may_act_on_is_told_once_though_its_figures_change_with_every_window() {
    let mut by_hand = Settings::default();
    by_hand.failover.mode = Mode::Manual;
    let mut untriggered = Settings::default();
    untriggered.failover.triggers.performance = false;
    for settings in [by_hand, untriggered] {
        let (world, left) = slow_reads_under(settings, MS);
        assert!(!left);
        let stayed = |action: &&Action| matches!(action, Action::Record(told) if told.kind == DecisionKind::Stayed);
        assert_eq!(world.asked.iter().filter(stayed).count(), 1);
    }
}

#[test]
fn a_slow_active_is_left_for_a_backend_that_is_faster_and_for_no_other() {
    slow_reads(MS);
    let world = slow_reads(120 * MS);
    let stayed = world.asked.iter().find_map(|action| match action {
        Action::Record(decision) if decision.kind == DecisionKind::Stayed => Some(decision.clone()),
        _ => None,
    });
    let stayed = stayed.unwrap();
    assert_eq!(stayed.why, "primary serves badly but nobody else is well");
    assert_eq!(world.view().active, PRIMARY);
}
