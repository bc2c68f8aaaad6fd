//! What operators ask for.

use super::*;

fn failover(to: Option<BackendId>) -> OperatorCommand {
    OperatorCommand::Failover { to, reason: "maintenance".into() }
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
    world.operator(OperatorCommand::Recover { reason: "done".into() });
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
fn a_chosen_backend_that_fails_is_still_left() {
    let mut world = World::new();
    world.operator(failover(None));
    world.switched(BACKUP_A, Trigger::Manual, SwitchKind::Manual);
    world.die(BACKUP_A);
    let switch = world.the_switch();
    assert_eq!(switch.trigger, Trigger::Cascade);
}
