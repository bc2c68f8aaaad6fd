//! Staged plans: where they take the place of a switch, what they keep from happening, and what their end leads to.

use super::*;

/// All are kept in step, and recoveries are gradual.
fn world() -> World {
    world_of(Plan::Gradual, true)
}

fn world_of(plan: Plan, kept_in_step: bool) -> World {
    let mut settings = Settings::default();
    settings.recovery.plan = plan;
    let backends = group().into_iter().map(|backend| BackendSettings { kept_in_step, ..backend }).collect();
    World::with(settings, backends)
}

fn failed_over(mut world: World) -> World {
    world.die(PRIMARY);
    world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    world.actions.clear();
    world.edge(PRIMARY, Edge::HandshakeDone);
    world
}

fn rollouts(world: &World) -> Vec<(BackendId, BackendId, Plan)> {
    let rollout = |action: &Action| match action {
        Action::Rollout { from, to, plan, .. } => Some((*from, *to, *plan)),
        _ => None,
    };
    world.actions.iter().filter_map(rollout).collect()
}

fn news(world: &mut World, news: RolloutNews) {
    world.tell(Event::Rollout(news));
}

fn cut_over(world: &mut World, to: BackendId) {
    news(world, RolloutNews::Switch { to, why: "75 % were served well".into() });
}

const ALL: [BackendId; 3] = [PRIMARY, BACKUP_A, BACKUP_B];

#[test]
fn a_recovery_by_a_staged_plan_is_asked_for_once_and_its_switch_is_a_drained_one() {
    for plan in [Plan::BlueGreen, Plan::Gradual, Plan::Canary] {
        let mut world = failed_over(world_of(plan, true));
        world.pass_well(16 * SECOND, &ALL);
        assert_eq!(rollouts(&world), [(BACKUP_A, PRIMARY, plan)]);
        assert_eq!((world.view().status, world.view().active), (Status::Recovering, BACKUP_A));
        let began = world.records(DecisionKind::RolloutBegan)[0].clone();
        assert!(began.checks.iter().any(|check| check.name == CheckName::Latency), "{began:?}");
        assert_eq!(world.switches(), [], "no switch yet");
        world.pass_well(300 * SECOND, &ALL);
        assert_eq!((rollouts(&world), world.switches()), (vec![], vec![]), "nothing else while it runs");
        cut_over(&mut world, PRIMARY);
        let switch = world.the_switch();
        assert_eq!((switch.to, switch.kind, switch.plan), (PRIMARY, SwitchKind::Recovery, Plan::Drain));
        assert!(switch.planned && switch.reason.contains(plan.name()) && switch.reason.contains("75 %"), "{switch:?}");
        world.done(switch.id, SwitchResult::Done);
        news(&mut world, RolloutNews::Ended { well: true, by_operator: false });
        assert_eq!(world.view().status, Status::Recovered);
        world.pass_well(61 * SECOND, &ALL);
        assert_eq!((world.view().status, rollouts(&world), world.switches()), (Status::Active, vec![], vec![]));
    }
}

#[test]
fn after_a_plan_that_ended_badly_the_next_waits_longer_each_time() {
    let mut world = failed_over(world());
    world.pass_well(16 * SECOND, &ALL);
    for seconds in [30, 60, 120] {
        assert_eq!(rollouts(&world).len(), 1);
        world.actions.clear();
        news(&mut world, RolloutNews::Ended { well: false, by_operator: false });
        assert!(world.view().recovery_at.is_some_and(|at| at > world.now), "{:?}", world.view().recovery_at);
        world.pass_well((seconds - 1) * SECOND, &ALL);
        assert_eq!(rollouts(&world), [], "{seconds}");
        world.pass_well((seconds / 10 + 2) * SECOND, &ALL);
    }
    assert_eq!((rollouts(&world).len(), world.switches()), (1, vec![]));
}

#[test]
fn a_breach_after_the_cut_over_leads_back_and_is_a_relapse() {
    let mut world = failed_over(world());
    world.pass_well(16 * SECOND, &ALL);
    cut_over(&mut world, PRIMARY);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
    news(&mut world, RolloutNews::Switch { to: BACKUP_A, why: "they hold other values".into() });
    let switch = world.the_switch();
    assert!(switch.planned, "{switch:?}");
    assert_eq!((switch.to, switch.kind, switch.plan), (BACKUP_A, SwitchKind::Failover, Plan::Drain));
    world.done(switch.id, SwitchResult::Done);
    news(&mut world, RolloutNews::Ended { well: false, by_operator: false });
    world.pass_well(29 * SECOND, &ALL);
    assert_eq!((rollouts(&world), world.view().active), (vec![], BACKUP_A));
    world.pass_well(6 * SECOND, &ALL);
    assert_eq!(rollouts(&world).len(), 1);
}

#[test]
fn what_cannot_be_kept_in_step_is_recovered_by_a_drained_switch_that_says_so() {
    let mut world = failed_over(world_of(Plan::Canary, false));
    world.pass_well(16 * SECOND, &ALL);
    assert_eq!(rollouts(&world), []);
    let switch = world.the_switch();
    assert_eq!((switch.to, switch.plan), (PRIMARY, Plan::Drain));
    let words = "by plan drain instead of canary, since backup-a is not of those that are kept in step";
    assert!(switch.reason.contains(words), "{}", switch.reason);
}

#[test]
fn an_emergency_is_never_staged_and_ends_what_was() {
    let mut world = failed_over(world());
    world.pass_well(16 * SECOND, &ALL);
    world.actions.clear();
    world.die(BACKUP_A);
    let switch = world.the_switch();
    assert!(!switch.planned && !switch.plan.is_staged(), "{switch:?}");
    world.done(switch.id, SwitchResult::Done);
    news(&mut world, RolloutNews::Ended { well: false, by_operator: false });
    assert_eq!(rollouts(&world), []);
    if switch.to != PRIMARY {
        world.pass_well(60 * SECOND, &ALL);
        assert_eq!(rollouts(&world).len(), 1, "it is tried again, from where clients are now");
    }
}

#[test]
fn an_operator_begins_one_at_a_time_and_its_switch_holds_the_engine_there() {
    let mut world = world();
    let order = |to| OperatorCommand::new(Order::Failover { to: Some(to) }, "new version").by(Some(Plan::Canary));
    world.operator(order(BACKUP_A));
    assert_eq!(rollouts(&world), [(PRIMARY, BACKUP_A, Plan::Canary)]);
    world.actions.clear();
    world.operator(order(BACKUP_A));
    assert_eq!((rollouts(&world), world.records(DecisionKind::Stayed).len()), (vec![], 1));
    world.operator(order(BACKUP_B));
    assert_eq!((rollouts(&world), world.records(DecisionKind::Rejected).len()), (vec![], 1));
    world.actions.clear();
    cut_over(&mut world, BACKUP_B);
    assert_eq!(world.records(DecisionKind::Rejected).len(), 1, "the plan leads elsewhere");
    assert_eq!(world.switches(), []);
    cut_over(&mut world, BACKUP_A);
    world.switched(BACKUP_A, Trigger::Manual, SwitchKind::Manual);
    news(&mut world, RolloutNews::Ended { well: true, by_operator: false });
    world.pass_well(300 * SECOND, &ALL);
    assert_eq!((rollouts(&world), world.switches()), (vec![], vec![]), "held by the operator");
    world.operator(OperatorCommand::new(Order::Recover, "back"));
    assert_eq!(rollouts(&world), [(BACKUP_A, PRIMARY, Plan::Gradual)], "by the plan of the configuration");
    world.actions.clear();
    world.operator(OperatorCommand::new(Order::Recover, "at once").by(Some(Plan::Drain)));
    world.switched(PRIMARY, Trigger::Manual, SwitchKind::Recovery);
}

#[test]
fn an_excluded_or_dead_backend_is_refused_before_a_plan_begins() {
    let mut world = world();
    world.operator(OperatorCommand::new(Order::Exclude { backend: BACKUP_A }, "broken"));
    world.die(BACKUP_B);
    for backend in [BACKUP_A, BACKUP_B] {
        world.actions.clear();
        let order = OperatorCommand::new(Order::Failover { to: Some(backend) }, "x").by(Some(Plan::Gradual));
        world.operator(order);
        assert_eq!((rollouts(&world), world.records(DecisionKind::Rejected).len()), (vec![], 1));
    }
}

#[test]
fn in_semi_automatic_mode_the_plan_is_proposed_and_begins_at_a_persons_word() {
    let mut settings = Settings::default();
    settings.recovery.plan = Plan::Gradual;
    settings.failover.mode = Mode::SemiAutomatic;
    let backends = group().into_iter().map(|backend| BackendSettings { kept_in_step: true, ..backend }).collect();
    let mut world = World::with(settings, backends);
    world.die(PRIMARY);
    let proposal = world.view().proposal.unwrap().id;
    world.operator(OperatorCommand::new(Order::Confirm { proposal: Some(proposal) }, "yes"));
    let switch = world.the_switch();
    world.done(switch.id, SwitchResult::Done);
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(60 * SECOND, &ALL);
    assert_eq!(rollouts(&world), [], "not without a word");
    let proposal = world.view().proposal.unwrap();
    assert_eq!((proposal.to, proposal.plan), (PRIMARY, Plan::Gradual));
    world.operator(OperatorCommand::new(Order::Confirm { proposal: Some(proposal.id) }, "yes"));
    assert_eq!(rollouts(&world), [(switch.to, PRIMARY, Plan::Gradual)]);
}

#[test]
fn a_recording_with_a_staged_recovery_replays_bit_for_bit_and_reruns_under_other_rules() {
    let mut settings = Settings::default();
    settings.recovery.plan = Plan::Gradual;
    let backends: Vec<_> =
        group().into_iter().map(|backend| BackendSettings { kept_in_step: true, ..backend }).collect();
    let mut now = Time::from_secs(1);
    let mut engine = RecordedEngine::new(Engine::new(settings.clone(), backends.clone(), 7, now));
    let mut actions = Vec::new();
    let well = |engine: &mut RecordedEngine, now: &mut Time, seconds: u64, actions: &mut Vec<Action>| {
        for _ in 0..seconds {
            *now += SECOND;
            for backend in ALL {
                engine.handle(*now, Event::Probe { backend, outcome: ok() }, actions);
            }
        }
    };
    for backend in ALL {
        engine.handle(now, Event::Standing { backend, standing: Standing::Enterable }, &mut actions);
    }
    well(&mut engine, &mut now, 5, &mut actions);
    let dead = Event::Edge { backend: PRIMARY, edge: Edge::ConnectRefused };
    engine.handle(now, dead.clone(), &mut actions);
    engine.handle(now, dead, &mut actions);
    let last = |actions: &[Action]| {
        let id = |action: &Action| if let Action::Switch(switch) = action { Some(switch.id) } else { None };
        actions.iter().rev().find_map(id).unwrap()
    };
    let id = last(&actions);
    engine.handle(now, Event::SwitchDone { id, result: SwitchResult::Done }, &mut actions);
    well(&mut engine, &mut now, 17, &mut actions);
    now += 90 * SECOND;
    let switch = RolloutNews::Switch { to: PRIMARY, why: "75 % were served well".into() };
    engine.handle(now, Event::Rollout(switch), &mut actions);
    let id = last(&actions);
    engine.handle(now, Event::SwitchDone { id, result: SwitchResult::Done }, &mut actions);
    engine.handle(now, Event::Rollout(RolloutNews::Ended { well: true, by_operator: false }), &mut actions);
    well(&mut engine, &mut now, 5, &mut actions);
    assert_eq!(engine.active(), PRIMARY);

    let recording = engine.recording("default", 0, None).unwrap();
    let text = serde_json::to_string(&recording).unwrap();
    let read: Recording = serde_json::from_str(&text).unwrap();
    assert_eq!((&read, read.verify()), (&recording, Ok(())));
    let same = recording.rerun(settings.clone(), &backends);
    assert_eq!(same.after.active(), PRIMARY, "the plan is led to its end");
    settings.recovery.plan = Plan::Drain;
    let drained = recording.rerun(settings, &backends);
    assert_eq!(drained.after.active(), PRIMARY);
    let staged = |asked: &[(Time, Action)]| asked.iter().any(|(_, action)| matches!(action, Action::Rollout { .. }));
    assert!(staged(&same.asked) && !staged(&drained.asked));
}

#[test]
fn a_primary_that_has_just_come_back_is_not_ill_for_having_been_away() {
    let mut world = World::new();
    for _ in 0..20 {
        world.probe(PRIMARY, ok());
    }
    for _ in 0..2 {
        world.probe(PRIMARY, ProbeOutcome::Failed(Edge::ConnectRefused));
    }
    for _ in 0..10 {
        world.probe(PRIMARY, ok());
    }
    let view = world.view();
    let primary = &view.backends[0];
    assert_eq!(primary.health, Health::Degraded, "{:?}", primary.reasons);
    assert_eq!(primary.present_health(), (Health::Healthy, None), "{:?}", primary.reasons);
    world.probe(PRIMARY, ProbeOutcome::Failed(Edge::ConnectRefused));
    let view = world.view();
    let (health, reason) = view.backends[0].present_health();
    assert_ne!(health, Health::Healthy, "what fails now counts");
    assert_ne!(reason.unwrap().factor, Factor::Availability);
}

#[test]
fn a_recovery_that_an_operator_rolled_back_waits_for_their_word() {
    let mut world = failed_over(world());
    world.pass_well(16 * SECOND, &ALL);
    world.actions.clear();
    news(&mut world, RolloutNews::Ended { well: false, by_operator: true });
    world.pass_well(600 * SECOND, &ALL);
    assert_eq!((rollouts(&world), world.switches()), (vec![], vec![]));
    assert!(world.view().recovery_held_by_operator);
    world.operator(OperatorCommand::new(Order::Recover, "now"));
    assert_eq!(rollouts(&world).len(), 1);
}
