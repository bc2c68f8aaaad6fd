//! What operators ask for.

use super::*;

fn failover(to: Option<BackendId>) -> OperatorCommand {
    OperatorCommand::new(Order::Failover { to }, "maintenance")
}

#[test]
fn a_failover_stays_until_recover() {
    let mut world = World::new();
    world.operator(failover(Some(BACKUP_B)));
    let switch = world.the_switch();
    assert_eq!((switch.to, switch.trigger, switch.planned), (BACKUP_B, Trigger::Manual, true));
    world.done(switch.id, SwitchResult::Done);
    assert!(world.view().recovery_held_by_operator);
    world.pass_well(120 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    assert_eq!(world.switches(), []);
    world.operator(failover(Some(BACKUP_B)));
    assert_eq!(world.records(DecisionKind::Stayed).len(), 1);
    assert_eq!(world.switches(), []);
    world.operator(OperatorCommand::new(Order::Recover, "done"));
    world.switched(PRIMARY, Trigger::Manual, SwitchKind::Recovery);
    assert!(!world.view().recovery_held_by_operator);
}

#[test]
fn what_cannot_be_is_rejected_with_a_reason() {
    let mut world = World::new();
    world.die(BACKUP_A);
    world.standing(BACKUP_B, Standing::Refused { why: "persistent".into() });
    world.actions.clear();
    for (to, word) in [
        (Some(BACKUP_A), "refused"),
        (Some(BACKUP_B), "persistent"),
        (Some(BackendId(9)), "no backend #9"),
        (None, "no other backend"),
    ] {
        world.operator(failover(to));
        let rejected = world.records(DecisionKind::Rejected);
        assert!(rejected.len() == 1 && rejected[0].why.contains(word), "{rejected:?}");
        world.actions.clear();
    }
}

#[test]
fn a_living_active_is_left_for_the_last_resort_only_by_its_name() {
    let mut backends = group();
    backends[2].last_resort = true;
    let mut world = World::with(Settings::default(), backends);
    world.operator(order(Order::Exclude { backend: BACKUP_A }));
    world.operator(failover(None));
    assert!(world.records(DecisionKind::Rejected)[0].why.contains("only backup-b could be entered"));
    assert_eq!(world.switches(), []);
    world.operator(failover(Some(BACKUP_B)));
    world.switched(BACKUP_B, Trigger::Manual, SwitchKind::Manual);
}

#[test]
fn a_chosen_backend_that_fails_is_still_left() {
    let mut world = World::new();
    world.operator(failover(None));
    world.switched(BACKUP_A, Trigger::Manual, SwitchKind::Manual);
    world.die(BACKUP_A);
    let switch = world.the_switch();
    assert_eq!(switch.trigger, Trigger::Cascade);
}

#[test]
fn a_planned_switch_whose_old_backend_dies_meanwhile_gives_way_to_a_failover_at_once() {
    let mut world = World::new();
    world.operator(failover(Some(BACKUP_B)));
    let planned = world.the_switch();
    assert_eq!((planned.planned, planned.plan), (true, Plan::Drain));
    world.die(PRIMARY);
    let emergency = world.the_switch();
    assert!(!emergency.planned && emergency.id > planned.id, "{emergency:?}");
    world.done(planned.id, SwitchResult::Failed { why: "superseded".into() });
    world.done(emergency.id, SwitchResult::Done);
    assert_eq!(world.view().active, emergency.to);
}

#[test]
fn a_planned_switch_has_time_to_reconcile_before_it_is_given_up() {
    let mut world = World::new();
    world.operator(failover(Some(BACKUP_B)));
    let switch = world.the_switch();
    world.pass_well(20 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    world.done(switch.id, SwitchResult::Done);
    assert_eq!(world.view().active, BACKUP_B);
}

#[test]
fn an_operator_may_name_the_plan_and_else_it_is_the_configured_one() {
    let mut settings = Settings::default();
    settings.recovery.plan = Plan::Immediate;
    let mut world = World::with(settings, group());
    world.operator(failover(Some(BACKUP_A)).by(Some(Plan::Immediate)));
    let switch = world.the_switch();
    assert_eq!(switch.plan, Plan::Immediate);
    world.done(switch.id, SwitchResult::Done);
    world.operator(failover(Some(BACKUP_B)));
    let switch = world.the_switch();
    assert_eq!(switch.plan, Plan::Drain);
    world.done(switch.id, SwitchResult::Done);
    world.operator(OperatorCommand::new(Order::Recover, "done"));
    assert_eq!(world.the_switch().plan, Plan::Immediate);
}

fn order(order: Order) -> OperatorCommand {
    OperatorCommand::new(order, "ticket 17")
}

fn pin(backend: BackendId, lasts: Duration) -> OperatorCommand {
    order(Order::Pin { backend, lasts })
}

#[test]
fn a_pin_enters_stays_and_ends_by_itself() {
    let mut world = World::new();
    world.operator(pin(BACKUP_B, 120 * SECOND));
    world.switched(BACKUP_B, Trigger::Manual, SwitchKind::Manual);
    world.pass_well(100 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    assert_eq!(world.switches(), [], "no recovery while it lasts");
    world.operator(pin(BACKUP_B, 60 * SECOND));
    assert_eq!(world.switches(), [], "a pin sent again is only longer");
    world.pass_well(59 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    assert!(world.view().pin.is_some());
    world.pass_well(2 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    assert_eq!(world.view().pin, None);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn a_pin_keeps_from_trouble_but_not_from_death_and_is_where_it_goes_back_to() {
    let mut world = World::new();
    world.operator(pin(BACKUP_A, 3_600 * SECOND));
    world.switched(BACKUP_A, Trigger::Manual, SwitchKind::Manual);
    for _ in 0..20 {
        world.pass(110 * MS);
        world.edge(BACKUP_A, Edge::WrongRole);
    }
    assert!(world.records(DecisionKind::Stayed)[0].why.contains("pinned"));
    assert_eq!(world.switches(), []);
    world.pass(6 * SECOND);
    world.die(BACKUP_A);
    let switch = world.the_switch();
    world.done(switch.id, SwitchResult::Done);
    world.edge(BACKUP_A, Edge::HandshakeDone);
    let back = world.wait_for_switch(&[PRIMARY, BACKUP_A, BACKUP_B]);
    assert_eq!((back.to, back.kind), (BACKUP_A, SwitchKind::Recovery));
    world.done(back.id, SwitchResult::Done);
    world.operator(order(Order::Unpin));
    let home = world.wait_for_switch(&[PRIMARY, BACKUP_A, BACKUP_B]);
    assert_eq!((home.to, home.kind), (PRIMARY, SwitchKind::Recovery));
}

#[test]
fn a_pin_whose_switch_fails_is_void() {
    let mut world = World::new();
    world.operator(pin(BACKUP_B, 120 * SECOND));
    let switch = world.the_switch();
    world.done(switch.id, SwitchResult::Refused { why: "not owned".into() });
    assert_eq!((world.view().pin, world.view().active), (None, PRIMARY));
}

#[test]
fn a_drained_backend_is_left_and_not_entered_until_it_is_included() {
    let mut world = World::new();
    world.operator(order(Order::Drain { backend: PRIMARY }));
    let switch = world.the_switch();
    assert!(switch.planned && switch.to == BACKUP_A);
    world.done(switch.id, SwitchResult::Done);
    world.pass_well(60 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    world.die(BACKUP_A);
    world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
    world.die(BACKUP_B);
    assert_eq!(world.view().availability, Availability::NoBackend, "an excluded backend is never entered");
    let nobody = world.records(DecisionKind::NoBackend)[0];
    let primary = nobody.candidates.iter().find(|candidate| candidate.backend == PRIMARY).unwrap();
    assert_eq!(primary.against.as_deref(), Some("excluded by an operator: ticket 17"));
    world.operator(order(Order::Include { backend: PRIMARY }));
    world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Failover);
}

#[test]
fn a_drain_that_fails_or_has_nowhere_to_go_changes_nothing() {
    let mut world = World::new();
    world.operator(order(Order::Drain { backend: PRIMARY }));
    let switch = world.the_switch();
    world.done(switch.id, SwitchResult::Failed { why: "not drained".into() });
    assert_eq!(world.view().backends[0].excluded, None);
    world.die(BACKUP_A);
    world.die(BACKUP_B);
    world.actions.clear();
    world.operator(order(Order::Drain { backend: PRIMARY }));
    assert!(world.records(DecisionKind::Rejected)[0].why.contains("no other backend"));
    assert_eq!(world.view().backends[0].excluded, None);
}

#[test]
fn once_the_primary_serves_again_an_earlier_failover_holds_nothing() {
    for back in [Order::Drain { backend: BACKUP_A }, Order::Pin { backend: PRIMARY, lasts: SECOND }] {
        let mut world = World::new();
        world.operator(failover(Some(BACKUP_A)));
        world.switched(BACKUP_A, Trigger::Manual, SwitchKind::Manual);
        world.operator(order(back));
        world.switched(PRIMARY, Trigger::Manual, SwitchKind::Manual);
        assert!(!world.view().recovery_held_by_operator);
        world.pass_well(10 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
        world.die(PRIMARY);
        let failover = world.the_switch();
        world.done(failover.id, SwitchResult::Done);
        world.edge(PRIMARY, Edge::HandshakeDone);
        let home = world.wait_for_switch(&[PRIMARY, BACKUP_A, BACKUP_B]);
        assert_eq!((home.to, home.kind), (PRIMARY, SwitchKind::Recovery));
    }
}

#[test]
fn a_failover_ends_a_pin_to_another_backend() {
    let mut world = World::new();
    world.operator(pin(BACKUP_B, 3_600 * SECOND));
    world.switched(BACKUP_B, Trigger::Manual, SwitchKind::Manual);
    world.operator(failover(Some(BACKUP_A)));
    assert!(world.view().pin.is_some(), "until it has worked");
    world.switched(BACKUP_A, Trigger::Manual, SwitchKind::Manual);
    assert_eq!(world.view().pin, None);
    assert!(world.view().recovery_held_by_operator);
}

#[test]
fn exclusions_are_idempotent_and_audited() {
    let mut world = World::new();
    world.actions.clear();
    for (command, word) in [
        (Order::Exclude { backend: BACKUP_A }, "not entered from now on"),
        (Order::Exclude { backend: BACKUP_A }, "excluded already"),
        (Order::Include { backend: BACKUP_A }, "may be entered again"),
        (Order::Include { backend: BACKUP_A }, "is not excluded"),
        (Order::Exclude { backend: PRIMARY }, "it serves now"),
        (Order::Unpin, "no backend is pinned"),
    ] {
        world.operator(order(command));
        let told = world.records(DecisionKind::Commanded);
        assert!(told.len() == 1 && told[0].why.contains(word), "{told:?}");
        world.actions.clear();
    }
    assert_eq!(world.view().active, PRIMARY);
}

#[test]
fn an_excluded_primary_is_not_returned_to() {
    let mut world = World::failed_over();
    world.operator(order(Order::Exclude { backend: PRIMARY }));
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(60 * SECOND, &[PRIMARY, BACKUP_A]);
    assert_eq!(world.switches(), []);
    world.operator(order(Order::Include { backend: PRIMARY }));
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
}

#[test]
fn where_manual_is_no_trigger_commands_that_switch_are_refused() {
    let mut settings = Settings::default();
    settings.failover.triggers.manual = false;
    let mut world = World::with(settings, group());
    for command in [failover(None), pin(BACKUP_A, SECOND), order(Order::Drain { backend: PRIMARY })] {
        world.actions.clear();
        world.operator(command);
        assert!(world.records(DecisionKind::Rejected)[0].why.contains("failover.triggers"));
    }
    assert_eq!(world.switches(), []);
}
