//! Who has the last word.

use super::*;

fn world(mode: Mode) -> World {
    let mut settings = Settings::default();
    settings.failover.mode = mode;
    World::with(settings, group())
}

fn confirm(id: Option<u64>) -> OperatorCommand {
    OperatorCommand::new(Order::Confirm { proposal: id.map(ProposalId) }, "go")
}

fn decline(id: Option<u64>) -> OperatorCommand {
    OperatorCommand::new(Order::Decline { proposal: id.map(ProposalId) }, "no")
}

fn proposal(world: &World) -> Proposal {
    world.view().proposal.unwrap()
}

fn ends(world: &World) -> Vec<&str> {
    world.records(DecisionKind::ProposalEnded).iter().map(|decision| decision.why.as_str()).collect()
}

#[test]
fn a_dead_active_is_proposed_to_be_left_and_is_left_on_confirmation() {
    let mut world = world(Mode::SemiAutomatic);
    world.die(PRIMARY);
    assert_eq!(world.switches(), []);
    let proposed = proposal(&world);
    assert_eq!((proposed.to, proposed.trigger), (BACKUP_A, Trigger::Connection));
    assert_eq!(world.view().availability, Availability::NoBackend, "requests wait for their deadline");
    world.operator(confirm(Some(proposed.id.0)));
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    assert_eq!(world.view().proposal, None);
    // A command that is sent twice does no harm.
    world.operator(confirm(Some(proposed.id.0)));
    assert_eq!(world.switches(), []);
}

#[test]
fn while_it_is_asked_the_active_that_returns_serves_again() {
    let mut world = world(Mode::SemiAutomatic);
    world.die(PRIMARY);
    world.pass(SECOND);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Reentry);
    assert_eq!(world.view().proposal, None);
    world.operator(confirm(Some(1)));
    let rejected = world.records(DecisionKind::Rejected);
    assert!(rejected[0].why.contains("overtaken"), "{rejected:?}");
}

#[test]
fn while_it_is_asked_the_last_resort_bridges() {
    let mut settings = Settings::default();
    settings.failover.mode = Mode::SemiAutomatic;
    let mut backends = group();
    backends[2].last_resort = true;
    let mut world = World::with(settings, backends);
    world.die(PRIMARY);
    world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
    world.pass_well(SECOND, &[BACKUP_A, BACKUP_B]);
    assert_eq!(proposal(&world).to, BACKUP_A);
    assert_eq!(world.switches(), []);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(SECOND, &[PRIMARY, BACKUP_B]);
    // Where it came from it goes back to without a word: nothing was left.
    let back = world.switches();
    assert!(back.is_empty() || back[0].to == PRIMARY, "{back:?}");
    world.operator(confirm(None));
    assert_eq!(world.switches().len(), 1 - back.len());
}

#[test]
fn a_proposal_expires_and_is_made_anew_while_its_reasons_last() {
    let mut world = world(Mode::SemiAutomatic);
    world.die(PRIMARY);
    let first = proposal(&world);
    world.actions.clear();
    world.pass(301 * SECOND);
    assert_eq!(ends(&world), ["proposal 1 to enter backup-a was not confirmed in time"]);
    let second = proposal(&world);
    assert!(second.id > first.id && second.expires_at > first.expires_at);
    world.operator(confirm(Some(first.id.0)));
    assert_eq!(world.switches(), []);
    assert_eq!(world.view().proposal.unwrap().id, second.id, "an old word does not confirm a new question");
}

#[test]
fn a_declined_wish_is_not_repeated_for_half_an_hour_and_a_drill_of_commands_works() {
    let mut world = world(Mode::SemiAutomatic);
    world.die(PRIMARY);
    world.operator(decline(None));
    assert_eq!(ends(&world), ["proposal 1 to enter backup-a was declined by an operator: no"]);
    world.pass_well(1_700 * SECOND, &[BACKUP_A, BACKUP_B]);
    assert_eq!(world.view().proposal, None);
    world.operator(confirm(None));
    assert!(world.records(DecisionKind::Rejected)[0].why.contains("nothing is proposed"));
    world.pass_well(200 * SECOND, &[BACKUP_A, BACKUP_B]);
    assert_eq!(proposal(&world).to, BACKUP_A);
    world.switches();
    world.operator(OperatorCommand::new(Order::Failover { to: Some(BACKUP_B) }, "rather there"));
    world.switched(BACKUP_B, Trigger::Manual, SwitchKind::Manual);
    assert_eq!(world.view().proposal, None);
}

#[test]
fn trouble_that_ends_takes_its_proposal_back() {
    let mut world = world(Mode::SemiAutomatic);
    for _ in 0..4 {
        world.pass(500 * MS);
        world.probe(PRIMARY, ProbeOutcome::NotReady(NotReadyWord::Loading));
    }
    assert_eq!(proposal(&world).to, BACKUP_A);
    assert_eq!(world.view().availability, Availability::Serving, "it serves as well as it can");
    world.pass_well(6 * SECOND, &[PRIMARY, BACKUP_A]);
    assert_eq!(world.view().proposal, None);
    assert!(ends(&world)[0].contains("withdrawn"));
}

#[test]
fn a_recovery_is_proposed_too() {
    let mut world = world(Mode::SemiAutomatic);
    world.die(PRIMARY);
    world.operator(confirm(None));
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(16 * SECOND, &[PRIMARY, BACKUP_A]);
    assert_eq!((proposal(&world).to, proposal(&world).kind), (PRIMARY, SwitchKind::Recovery));
    assert_eq!(world.switches(), []);
    world.operator(confirm(None));
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn a_confirmation_is_refused_when_its_target_has_gone() {
    let mut world = world(Mode::SemiAutomatic);
    world.die(BACKUP_B);
    world.die(PRIMARY);
    assert_eq!(proposal(&world).to, BACKUP_A);
    world.die(BACKUP_A);
    assert_eq!(world.view().proposal, None, "withdrawn as soon as nobody is left");
    world.operator(confirm(Some(1)));
    assert!(world.records(DecisionKind::Rejected)[0].why.contains("withdrawn"));
}

#[test]
fn in_manual_mode_only_commands_move_anything() {
    let mut world = world(Mode::Manual);
    world.die(PRIMARY);
    world.pass_well(30 * SECOND, &[BACKUP_A, BACKUP_B]);
    assert_eq!(world.switches(), []);
    assert_eq!(world.view().availability, Availability::NoBackend);
    world.operator(OperatorCommand::new(Order::Failover { to: None }, "it is dead"));
    world.switched(BACKUP_A, Trigger::Manual, SwitchKind::Manual);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(60 * SECOND, &[PRIMARY, BACKUP_A]);
    assert_eq!(world.switches(), []);
    world.operator(OperatorCommand::new(Order::Recover, "it is back"));
    world.switched(PRIMARY, Trigger::Manual, SwitchKind::Recovery);
}
