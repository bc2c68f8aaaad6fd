//! Silence: frozen servers, pauses, slow commands, our own stalls.

use super::*;

#[test]
fn silence_while_replies_are_due_is_a_failure_after_the_floor() {
    let mut world = World::new();
    let frozen = world.now;
    world.pass(650 * MS);
    world.window(PRIMARY, busy(frozen));
    assert_eq!(world.switches(), []);
    world.edge(PRIMARY, Edge::Stalled { silent_for: 650 * MS });
    world.switched(BACKUP_A, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn a_stall_reported_early_is_waited_for_and_then_believed() {
    let mut world = World::with(Settings::fast(), group());
    let frozen = world.now;
    world.pass(100 * MS);
    world.window(PRIMARY, busy(frozen));
    world.edge(PRIMARY, Edge::Stalled { silent_for: 100 * MS });
    world.pass(89 * MS);
    assert_eq!(world.switches(), []);
    world.pass(20 * MS);
    world.switched(BACKUP_A, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn a_pause_below_the_bound_is_forgiven_when_replies_come_again() {
    for (settings, pause) in [(Settings::default(), 500 * MS), (Settings::fast(), 150 * MS)] {
        let mut world = World::with(settings, group());
        for _ in 0..20 {
            let frozen = world.now;
            world.pass(pause / 2);
            world.window(PRIMARY, busy(frozen));
            world.edge(PRIMARY, Edge::Stalled { silent_for: pause / 2 });
            world.pass(pause / 2);
            let thawed = world.now;
            world.pass(10 * MS);
            world.window(PRIMARY, busy(thawed));
            world.pass(100 * MS);
            world.probe(PRIMARY, ok());
        }
        assert_eq!(world.switches(), []);
    }
}

#[test]
fn one_hanging_link_is_no_freeze_while_others_answer() {
    let mut world = World::new();
    for step in 0..20 {
        world.pass(50 * MS);
        let now = world.now;
        world.window(PRIMARY, WindowSummary { requests: 100, ..busy(now) });
        if step == 12 {
            world.edge(PRIMARY, Edge::Stalled { silent_for: 650 * MS });
        }
    }
    assert_eq!(world.switches(), []);
}

#[test]
fn a_probe_without_an_answer_finds_a_freeze_without_traffic() {
    let mut world = World::new();
    world.pass(500 * MS + 650 * MS);
    world.probe(PRIMARY, ProbeOutcome::TimedOut { silent_for: 650 * MS });
    world.switched(BACKUP_A, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn a_probe_without_an_answer_is_no_freeze_while_data_flows() {
    let mut world = World::new();
    for _ in 0..2 {
        world.pass(650 * MS);
        let now = world.now;
        world.window(PRIMARY, busy(now - 10 * MS));
        world.probe(PRIMARY, ProbeOutcome::TimedOut { silent_for: 650 * MS });
    }
    assert_eq!(world.switches(), []);
}

#[test]
fn silence_during_a_slow_request_waits_for_its_allowance() {
    let mut world = World::new();
    let (asked, allowed) = (world.now, world.now + 30 * SECOND);
    for _ in 0..29 {
        world.pass(SECOND);
        world.window(PRIMARY, WindowSummary { slow_in_flight_until: Some(allowed), ..busy(asked) });
        world.edge(PRIMARY, Edge::Stalled { silent_for: SECOND });
        world.probe(PRIMARY, ProbeOutcome::TimedOut { silent_for: 650 * MS });
    }
    assert_eq!(world.switches(), []);
    world.pass(2 * SECOND);
    world.switched(BACKUP_A, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn a_throttled_process_says_so_once_a_minute_and_when_it_gets_much_worse() {
    let mut world = World::new();
    let noted = |world: &World| world.records(DecisionKind::SelfSuspected).len();
    for _ in 0..50 {
        world.pass(SECOND);
        world.tell(Event::TickStalled { late: 120 * MS });
    }
    assert_eq!(noted(&world), 1);
    world.tell(Event::TickStalled { late: 240 * MS });
    assert_eq!(noted(&world), 2);
    for _ in 0..65 {
        world.pass(SECOND);
        world.tell(Event::TickStalled { late: 120 * MS });
    }
    assert_eq!(noted(&world), 3);
}

#[test]
fn silence_while_we_ourselves_did_not_run_does_not_count() {
    let mut world = World::new();
    let stopped = world.now;
    world.now += 3 * SECOND;
    world.tell(Event::TickStalled { late: 3 * SECOND });
    world.window(PRIMARY, busy(stopped));
    world.edge(PRIMARY, Edge::Stalled { silent_for: 3 * SECOND });
    for backend in [PRIMARY, BACKUP_A, BACKUP_B] {
        world.probe(backend, ProbeOutcome::TimedOut { silent_for: 3 * SECOND });
    }
    assert_eq!(world.records(DecisionKind::SelfSuspected).len(), 1);
    assert_eq!(world.switches(), []);
    // But silence that goes on is believed.
    world.pass(650 * MS + 50 * MS);
    world.switched(BACKUP_A, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn unanswered_handshakes_of_a_short_pause_are_no_death() {
    let mut world = World::new();
    world.edge(PRIMARY, Edge::LinkLost);
    world.edge(PRIMARY, Edge::HandshakeTimedOut);
    world.pass(250 * MS);
    world.edge(PRIMARY, Edge::HandshakeTimedOut);
    assert_eq!(world.switches(), []);
    world.pass(400 * MS);
    world.edge(PRIMARY, Edge::HandshakeTimedOut);
    world.switched(BACKUP_A, Trigger::Timeout, SwitchKind::Failover);
}

#[test]
fn what_waits_or_is_busy_behind_a_slow_request_does_not_open_the_breaker() {
    let mut world = World::new();
    let allowed = world.now + 30 * SECOND;
    for _ in 0..100 {
        world.pass(50 * MS);
        let errors = ErrorCounts { timeout: 5, overloaded: 50, ..ErrorCounts::default() };
        let slow_in_flight_until = Some(allowed);
        let now = world.now;
        world.window(PRIMARY, WindowSummary { requests: 60, errors, slow_in_flight_until, ..busy(now) });
    }
    assert_eq!(world.switches(), []);
}
