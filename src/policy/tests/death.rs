//! A process that died, and what only looks like it.

use super::*;

#[test]
fn a_lost_link_alone_is_no_failure_but_is_asked_about() {
    let mut world = World::new();
    world.actions.clear();
    world.edge(PRIMARY, Edge::LinkLost);
    assert_eq!(world.actions, [Action::ProbeNow { backend: PRIMARY }]);
    world.pass_well(5 * SECOND, &[PRIMARY]);
    assert_eq!(world.switches(), []);
}

#[test]
fn two_pieces_of_evidence_of_any_kind_are_a_death() {
    let kinds = [Edge::ConnectRefused, Edge::ConnectFailed, Edge::HandshakeReset];
    for first in kinds {
        for second in kinds {
            let mut world = World::new();
            world.edge(PRIMARY, Edge::LinkLost);
            world.edge(PRIMARY, first);
            assert_eq!(world.switches(), []);
            world.probe(PRIMARY, ProbeOutcome::Failed(second));
            world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
            assert_eq!(world.view().status, Status::FailedOver);
            assert_eq!(world.view().epoch, 2);
        }
    }
}

#[test]
fn evidence_of_different_outages_does_not_add_up() {
    for good in
        [Event::Edge { backend: PRIMARY, edge: Edge::HandshakeDone }, Event::Probe { backend: PRIMARY, outcome: ok() }]
    {
        let mut world = World::new();
        for _ in 0..10 {
            world.edge(PRIMARY, Edge::LinkLost);
            world.edge(PRIMARY, Edge::ConnectRefused);
            world.pass(10 * MS);
            world.tell(good.clone());
            world.pass(10 * MS);
        }
        assert_eq!(world.switches(), []);
    }
}

#[test]
fn refused_connections_are_not_a_death_while_the_data_links_answer() {
    let mut world = World::new();
    for step in 0..100 {
        world.pass(25 * MS);
        world.edge(PRIMARY, Edge::HandshakeReset);
        world.edge(PRIMARY, Edge::ConnectRefused);
        world.pass(25 * MS);
        let now = world.now;
        world.window(PRIMARY, WindowSummary { requests: 100, ..busy(now) });
        if step % 10 == 0 {
            world.probe(PRIMARY, ok());
        }
    }
    assert_eq!(world.switches(), []);
}

#[test]
fn refused_connections_are_a_death_soon_though_nobody_told_of_a_lost_link() {
    let mut world = World::new();
    world.refuse(PRIMARY);
    world.pass(100 * MS);
    assert_eq!(world.switches(), []);
    world.edge(PRIMARY, Edge::ConnectRefused);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
}

#[test]
fn three_failed_probes_in_a_row_are_a_failure() {
    let mut world = World::new();
    for _ in 0..3 {
        assert_eq!(world.switches(), []);
        world.pass(500 * MS);
        world.probe(PRIMARY, ProbeOutcome::Failed(Edge::LinkLost));
    }
    world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Failover);
}

#[test]
fn failed_probes_with_a_good_one_between_are_none() {
    let mut world = World::new();
    for step in 0..30 {
        world.pass(500 * MS);
        world.probe(PRIMARY, if step % 3 == 2 { ok() } else { ProbeOutcome::Failed(Edge::LinkLost) });
    }
    assert_eq!(world.switches(), []);
}

#[test]
fn a_refused_authentication_is_recorded_once_and_never_fails_over() {
    let mut world = World::new();
    for _ in 0..50 {
        world.edge(PRIMARY, Edge::AuthenticationFailed);
        world.probe(PRIMARY, ProbeOutcome::AuthenticationFailed);
        world.pass(100 * MS);
    }
    assert_eq!(world.records(DecisionKind::Authentication).len(), 1);
    assert_eq!(world.switches(), []);
    let primary = &world.view().backends[0];
    assert_eq!(primary.health, Health::Failed, "{primary:?}");
    assert!(primary.reasons.iter().any(|reason| reason.factor == Factor::Authentication));
    world.probe(PRIMARY, ok());
    assert_eq!(world.records(DecisionKind::Authentication).len(), 1);
    assert_eq!(world.view().backends[0].health, Health::Healthy);
}
