//! The engine's rules as sentences. A `World` is one engine, its clock and what it asked for.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;

const PRIMARY: BackendId = BackendId(0);
const BACKUP_A: BackendId = BackendId(1);
const BACKUP_B: BackendId = BackendId(2);
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    engine: Engine,
    now: Time,
    actions: Vec<Action>,
    /// Everything it was told, for replay.
    told: Vec<(Time, Option<Event>)>,
    asked: Vec<Action>,
}

fn group() -> Vec<BackendSettings> {
    vec![
        BackendSettings::new(PRIMARY, "primary", BackendRole::Primary),
        BackendSettings::new(BACKUP_A, "backup-a", BackendRole::Backup),
        BackendSettings::new(BACKUP_B, "backup-b", BackendRole::Backup),
    ]
}

fn ok() -> ProbeOutcome {
    ProbeOutcome::Ok { latency: MS, role: Role::Master, write_ok: Some(true), replication_lag: None }
}

impl World {
    fn with(settings: Settings, backends: Vec<BackendSettings>) -> Self {
        let now = Time::from_secs(1);
        let count = backends.len();
        let engine = Engine::new(settings, backends, 1, now);
        let mut world = Self { engine, now, actions: Vec::new(), told: Vec::new(), asked: Vec::new() };
        for backend in (0..count as u8).map(BackendId) {
            world.edge(backend, Edge::HandshakeDone);
            world.probe(backend, ok());
            world.tell(Event::Standing { backend, standing: Standing::Enterable });
        }
        assert_eq!(world.switches(), []);
        world
    }

    fn new() -> Self {
        Self::with(Settings::default(), group())
    }

    fn tell(&mut self, event: Event) {
        self.told.push((self.now, Some(event.clone())));
        let before = self.actions.len();
        self.engine.handle(self.now, event, &mut self.actions);
        self.asked.extend_from_slice(&self.actions[before..]);
    }

    fn edge(&mut self, backend: BackendId, edge: Edge) {
        self.tell(Event::Edge { backend, edge });
    }

    fn probe(&mut self, backend: BackendId, outcome: ProbeOutcome) {
        self.tell(Event::Probe { backend, outcome });
    }

    fn window(&mut self, backend: BackendId, window: WindowSummary) {
        self.tell(Event::Window { backend, window });
    }

    fn operator(&mut self, command: OperatorCommand) {
        self.tell(Event::Operator(command));
    }

    fn standing(&mut self, backend: BackendId, standing: Standing) {
        self.tell(Event::Standing { backend, standing });
    }

    fn refuse(&mut self, backend: BackendId) {
        self.edge(backend, Edge::ConnectRefused);
        self.edge(backend, Edge::ConnectRefused);
    }

    /// Lets time pass, calling the engine whenever it wants to be called.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= until) {
            assert!(due > self.now, "the engine would spin at {due}");
            self.now = due;
            self.told.push((due, None));
            let before = self.actions.len();
            self.engine.handle_timeout(due, &mut self.actions);
            self.asked.extend_from_slice(&self.actions[before..]);
        }
        self.now = until;
    }

    /// Lets time pass with good probes of these backends every 500 ms.
    fn pass_well(&mut self, duration: Duration, backends: &[BackendId]) {
        let until = self.now + duration;
        while self.now < until {
            self.pass((until - self.now).min(500 * MS));
            for backend in backends {
                self.probe(*backend, ok());
            }
        }
    }

    fn switches(&mut self) -> Vec<Switch> {
        let actions = std::mem::take(&mut self.actions);
        actions
            .into_iter()
            .filter_map(|action| if let Action::Switch(switch) = action { Some(switch) } else { None })
            .collect()
    }

    fn the_switch(&mut self) -> Switch {
        let switches = self.switches();
        assert_eq!(switches.len(), 1, "{switches:?}");
        switches.into_iter().next().unwrap()
    }

    fn done(&mut self, id: SwitchId, result: SwitchResult) {
        self.tell(Event::SwitchDone { id, result });
    }

    /// Takes the one switch that is wanted, checks it, and carries it out.
    fn switched(&mut self, to: BackendId, trigger: Trigger, kind: SwitchKind) {
        let switch = self.the_switch();
        assert_eq!((switch.to, switch.trigger, switch.kind), (to, trigger, kind), "{}", switch.reason);
        self.done(switch.id, SwitchResult::Done);
        assert_eq!(self.view().active, to);
        assert_eq!(self.view().availability, Availability::Serving);
    }

    fn records(&self, kind: DecisionKind) -> Vec<&Decision> {
        let record = |action| if let &Action::Record(ref decision) = action { Some(decision) } else { None };
        self.actions.iter().filter_map(record).filter(|decision| decision.kind == kind).collect()
    }

    fn published(&self) -> Vec<Availability> {
        let published =
            |action: &Action| if let Action::Publish { availability } = action { Some(*availability) } else { None };
        self.actions.iter().filter_map(published).collect()
    }

    fn view(&self) -> View {
        self.engine.view(self.now)
    }

    fn failed_over() -> Self {
        let mut world = Self::new();
        world.edge(PRIMARY, Edge::LinkLost);
        world.refuse(PRIMARY);
        world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
        world.actions.clear();
        world
    }

    fn recovered() -> Self {
        let mut world = Self::failed_over();
        world.edge(PRIMARY, Edge::HandshakeDone);
        world.pass_well(16 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
        world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
        world.actions.clear();
        world
    }
}

fn busy(last_progress: Time) -> WindowSummary {
    WindowSummary { requests: 0, in_flight: 10, last_progress: Some(last_progress), ..WindowSummary::default() }
}

mod a_dead_process {
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
        for good in [
            Event::Edge { backend: PRIMARY, edge: Edge::HandshakeDone },
            Event::Probe { backend: PRIMARY, outcome: ok() },
        ] {
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
    fn refused_probes_are_not_a_death_while_the_data_links_stand() {
        let mut world = World::new();
        world.probe(PRIMARY, ProbeOutcome::Failed(Edge::ConnectRefused));
        world.probe(PRIMARY, ProbeOutcome::Failed(Edge::ConnectRefused));
        assert_eq!(world.switches(), []);
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
}

mod a_freeze {
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
}

mod a_backend_that_lives_but_does_not_serve {
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
        world.refuse(BACKUP_A);
        world.refuse(BACKUP_B);
        for _ in 0..20 {
            world.pass(500 * MS);
            world.probe(PRIMARY, ProbeOutcome::NotReady(NotReadyWord::Loading));
        }
        assert_eq!(world.records(DecisionKind::Stayed).len(), 1);
        assert_eq!(world.published(), []);
        assert_eq!(world.switches(), []);
    }
}

mod selection_of_a_backup {
    use super::*;

    #[test]
    fn the_best_by_score_and_weight_is_taken_and_the_losers_are_recorded() {
        let mut backends = group();
        backends[2].weight = 150;
        let mut world = World::with(Settings::default(), backends);
        world.refuse(PRIMARY);
        let began = world.records(DecisionKind::SwitchBegan)[0].clone();
        let order: Vec<_> = began.candidates.iter().map(|candidate| candidate.backend).collect();
        assert_eq!(order, [BACKUP_B, BACKUP_A, PRIMARY]);
        assert_eq!(began.candidates[0].against, None);
        assert!(began.candidates[1].against.as_ref().unwrap().contains("weight"), "{began:?}");
        assert!(began.candidates[2].against.as_ref().unwrap().contains("left"), "{began:?}");
        world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
    }

    #[test]
    fn enterable_goes_before_unknown_and_refused_is_never_taken() {
        let mut world = World::new();
        world.standing(BACKUP_A, Standing::Unknown);
        world.refuse(PRIMARY);
        world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);

        let mut world = World::new();
        world.standing(BACKUP_A, Standing::Refused { why: "foreign keys".into() });
        world.standing(BACKUP_B, Standing::Unknown);
        world.refuse(PRIMARY);
        world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);

        let mut world = World::new();
        world.standing(BACKUP_A, Standing::Refused { why: "foreign keys".into() });
        world.standing(BACKUP_B, Standing::Refused { why: "persistent".into() });
        world.refuse(PRIMARY);
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
        world.refuse(PRIMARY);
        world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
    }

    #[test]
    fn a_refused_entry_goes_on_to_the_next_as_a_cascade() {
        let mut world = World::new();
        world.refuse(PRIMARY);
        let first = world.the_switch();
        assert_eq!(first.to, BACKUP_A);
        world.done(first.id, SwitchResult::Refused { why: "not owned".into() });
        world.switched(BACKUP_B, Trigger::Cascade, SwitchKind::Failover);
    }

    #[test]
    fn a_target_that_dies_on_the_way_is_given_up_at_once() {
        let mut world = World::new();
        world.refuse(PRIMARY);
        let first = world.the_switch();
        world.refuse(first.to);
        let second = world.the_switch();
        assert_eq!((second.to, second.trigger), (BACKUP_B, Trigger::Cascade));
        world.done(first.id, SwitchResult::Failed { why: "superseded".into() });
        world.done(second.id, SwitchResult::Done);
        assert_eq!(world.view().active, BACKUP_B);
    }

    #[test]
    fn a_switch_that_nobody_answers_is_given_up_but_its_late_success_is_believed() {
        let mut world = World::new();
        world.refuse(PRIMARY);
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
        world.refuse(BACKUP_B);
        world.edge(PRIMARY, Edge::HandshakeDone);
        world.probe(PRIMARY, ok());
        world.refuse(BACKUP_A);
        world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Failover);
    }
}

mod nobody_left {
    use super::*;

    fn all_down() -> World {
        let mut world = World::failed_over();
        world.refuse(BACKUP_B);
        world.refuse(BACKUP_A);
        assert_eq!(world.published(), [Availability::NoBackend]);
        assert_eq!(world.records(DecisionKind::NoBackend).len(), 1);
        assert_eq!(world.view().status, Status::FailingOver);
        world.actions.clear();
        world
    }

    #[test]
    fn whoever_answers_first_serves_at_once() {
        for (backend, kind) in
            [(PRIMARY, SwitchKind::Failover), (BACKUP_A, SwitchKind::Reentry), (BACKUP_B, SwitchKind::Failover)]
        {
            for event in [Event::Edge { backend, edge: Edge::HandshakeDone }, Event::Probe { backend, outcome: ok() }] {
                let mut world = all_down();
                world.pass(60 * SECOND);
                world.tell(event);
                world.switched(backend, Trigger::Cascade, kind);
            }
        }
    }

    #[test]
    fn who_answers_but_may_not_be_entered_is_waited_for() {
        let mut world = all_down();
        world.standing(PRIMARY, Standing::Refused { why: "unknown content".into() });
        world.edge(PRIMARY, Edge::HandshakeDone);
        world.pass_well(5 * SECOND, &[PRIMARY]);
        assert_eq!(world.switches(), []);
        world.standing(PRIMARY, Standing::Enterable);
        world.switched(PRIMARY, Trigger::Cascade, SwitchKind::Failover);
    }

    #[test]
    fn fruitless_entries_back_off_and_are_recorded_once() {
        let mut world = all_down();
        world.edge(PRIMARY, Edge::HandshakeDone);
        let mut attempts = 0;
        for _ in 0..600 {
            world.pass(100 * MS);
            let wanted = world
                .actions
                .iter()
                .find_map(|action| if let Action::Switch(switch) = action { Some(switch.id) } else { None });
            let recorded = world.records(DecisionKind::SwitchBegan).len();
            assert!(recorded <= usize::from(attempts == 0));
            world.actions.clear();
            if let Some(id) = wanted {
                attempts += 1;
                world.done(id, SwitchResult::Refused { why: "persistent".into() });
            }
        }
        assert!((5..=12).contains(&attempts), "{attempts} attempts in a minute");
    }

    #[test]
    fn the_last_resort_is_left_as_soon_as_a_real_backend_answers() {
        let mut backends = group();
        backends[2].last_resort = true;
        let mut world = World::with(Settings::default(), backends);
        world.refuse(BACKUP_A);
        world.refuse(PRIMARY);
        world.switched(BACKUP_B, Trigger::Connection, SwitchKind::Failover);
        world.pass_well(10 * SECOND, &[BACKUP_B]);
        assert_eq!(world.switches(), []);
        world.probe(BACKUP_A, ok());
        world.switched(BACKUP_A, Trigger::HealthCheck, SwitchKind::Recovery);
    }
}

mod holding_and_restarts {
    use super::*;

    fn holding() -> World {
        let mut settings = Settings::default();
        settings.failover.hold = SECOND;
        let mut world = World::with(settings, group());
        world.actions.clear();
        world.edge(PRIMARY, Edge::LinkLost);
        world.pass(2 * MS);
        world.refuse(PRIMARY);
        assert_eq!(world.published(), [Availability::Holding { until: Time::from_millis(2_000) }]);
        world
    }

    #[test]
    fn a_primary_that_comes_back_within_hold_serves_on() {
        let mut world = holding();
        world.pass(500 * MS);
        world.edge(PRIMARY, Edge::HandshakeDone);
        assert_eq!(world.published().last(), Some(&Availability::Serving));
        world.pass(5 * SECOND);
        assert_eq!(world.switches(), []);
        assert_eq!(world.view().status, Status::Active);
    }

    #[test]
    fn a_restarted_primary_is_entered_anew_before_it_serves() {
        let mut world = holding();
        world.edge(PRIMARY, Edge::IdentityChanged);
        world.edge(PRIMARY, Edge::HandshakeDone);
        assert_eq!(world.published().len(), 1, "still holding");
        world.switched(PRIMARY, Trigger::Connection, SwitchKind::Reentry);
    }

    #[test]
    fn hold_is_over_in_time() {
        let mut world = holding();
        world.pass(997 * MS);
        assert_eq!(world.switches(), []);
        world.pass(MS);
        world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
    }

    #[test]
    fn a_restarted_active_that_may_not_be_served_from_is_left() {
        let mut world = World::new();
        world.edge(PRIMARY, Edge::IdentityChanged);
        world.edge(PRIMARY, Edge::HandshakeDone);
        let reentry = world.the_switch();
        assert_eq!((reentry.to, reentry.kind), (PRIMARY, SwitchKind::Reentry));
        world.done(reentry.id, SwitchResult::Refused { why: "old content".into() });
        world.switched(BACKUP_A, Trigger::Cascade, SwitchKind::Failover);
    }
}

mod recovery {
    use super::*;

    #[test]
    fn the_primary_serves_again_after_good_probes_and_the_delay() {
        let mut world = World::failed_over();
        world.edge(PRIMARY, Edge::HandshakeDone);
        world.pass_well(14_500 * MS, &[PRIMARY]);
        assert_eq!(world.switches(), []);
        world.pass_well(1_500 * MS, &[PRIMARY]);
        let switch = world.the_switch();
        assert_eq!((switch.to, switch.kind, switch.planned), (PRIMARY, SwitchKind::Recovery, true));
        assert_eq!(world.view().status, Status::Recovering);
        world.done(switch.id, SwitchResult::Done);
        assert_eq!(world.view().status, Status::Recovered);
        world.pass(61 * SECOND);
        assert_eq!(world.view().status, Status::Active);
    }

    #[test]
    fn a_flapping_primary_is_left_once() {
        let mut world = World::failed_over();
        for _ in 0..16 {
            world.edge(PRIMARY, Edge::HandshakeDone);
            world.pass_well(SECOND, &[PRIMARY, BACKUP_A]);
            world.edge(PRIMARY, Edge::LinkLost);
            world.refuse(PRIMARY);
            world.pass_well(250 * MS, &[BACKUP_A]);
        }
        assert_eq!(world.switches(), []);
    }

    #[test]
    fn a_relapse_doubles_the_delay() {
        let mut world = World::recovered();
        world.refuse(PRIMARY);
        world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
        world.edge(PRIMARY, Edge::HandshakeDone);
        world.pass_well(29_500 * MS, &[PRIMARY]);
        assert_eq!(world.switches(), []);
        world.pass_well(3 * SECOND, &[PRIMARY]);
        world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
    }

    #[test]
    fn a_slow_primary_waits_until_it_is_as_fast_as_before() {
        let mut world = World::new();
        world.pass_well(10 * SECOND, &[PRIMARY]);
        world.refuse(PRIMARY);
        world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
        let slow = ProbeOutcome::Ok { latency: 50 * MS, role: Role::Master, write_ok: None, replication_lag: None };
        for _ in 0..60 {
            world.pass(500 * MS);
            world.probe(PRIMARY, slow.clone());
        }
        assert_eq!(world.records(DecisionKind::Stayed).len(), 1);
        assert_eq!(world.switches(), []);
        world.pass_well(4 * SECOND, &[PRIMARY]);
        world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
    }

    #[test]
    fn a_refused_recovery_stays_backs_off_and_is_recorded_once() {
        let mut world = World::failed_over();
        world.pass_well(16 * SECOND, &[PRIMARY]);
        let mut attempts = 0;
        for _ in 0..120 {
            let wanted = world
                .actions
                .iter()
                .find_map(|action| if let Action::Switch(switch) = action { Some(switch.id) } else { None });
            if let Some(id) = wanted {
                attempts += 1;
                assert_eq!(world.records(DecisionKind::SwitchBegan).len(), usize::from(attempts == 1));
                world.actions.clear();
                world.done(id, SwitchResult::Refused { why: "unknown content".into() });
                assert_eq!(world.records(DecisionKind::SwitchEnded).len(), usize::from(attempts == 1));
            }
            world.actions.clear();
            world.pass_well(500 * MS, &[PRIMARY, BACKUP_A]);
        }
        assert!((4..=8).contains(&attempts), "{attempts}");
        assert_eq!(world.view().active, BACKUP_A);
        world.standing(PRIMARY, Standing::Enterable);
        world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
    }

    #[test]
    fn a_disabled_recovery_waits_for_the_operator() {
        let mut settings = Settings::default();
        settings.recovery.enabled = false;
        let mut world = World::with(settings, group());
        world.refuse(PRIMARY);
        world.switched(BACKUP_A, Trigger::Connection, SwitchKind::Failover);
        world.pass_well(120 * SECOND, &[PRIMARY]);
        assert_eq!(world.switches(), []);
        world.operator(OperatorCommand::Recover { reason: "mended".into() });
        world.switched(PRIMARY, Trigger::Manual, SwitchKind::Recovery);
    }
}

mod operators {
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
        world.refuse(BACKUP_A);
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
        world.refuse(BACKUP_A);
        let switch = world.the_switch();
        assert_eq!(switch.trigger, Trigger::Cascade);
    }
}

#[test]
fn an_allowance_is_told_when_latency_has_changed() {
    let mut world = World::new();
    world.actions.clear();
    for _ in 0..100 {
        world.pass(50 * MS);
        let mut window = WindowSummary { requests: 100, ..busy(world.now) };
        window.latency[CommandClass::MultiKey.index()] =
            ClassLatency { count: 100, p50_us: 100_000, p99_us: 180_000, max_us: 190_000 };
        world.window(PRIMARY, window);
    }
    let told: Vec<_> = world
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::SetAllowance { backend, class, allowance } => Some((*backend, *class, *allowance)),
            _ => None,
        })
        .collect();
    assert!(told.len() < 12, "{told:?}");
    assert!(told.iter().all(|(backend, class, _)| *backend == PRIMARY && *class == CommandClass::MultiKey));
    assert!(told.last().unwrap().2 > SECOND, "{told:?}");
}

#[test]
fn events_about_backends_that_do_not_exist_are_ignored() {
    let mut world = World::new();
    world.actions.clear();
    let backend = BackendId(200);
    world.edge(backend, Edge::ConnectRefused);
    world.probe(backend, ok());
    world.window(backend, WindowSummary::default());
    world.standing(backend, Standing::Unknown);
    world.done(SwitchId(77), SwitchResult::Done);
    assert_eq!(world.actions, []);
    assert_eq!(world.view().epoch, 1);
}

#[test]
fn a_recorded_event_list_replays_bit_for_bit() {
    let mut world = World::failed_over();
    world.edge(PRIMARY, Edge::HandshakeDone);
    world.pass_well(16 * SECOND, &[PRIMARY, BACKUP_A, BACKUP_B]);
    world.switched(PRIMARY, Trigger::HealthCheck, SwitchKind::Recovery);
    world.edge(PRIMARY, Edge::Stalled { silent_for: 400 * MS });
    world.pass(SECOND);

    let recorded = serde_json::to_string(&(Settings::default(), group(), 1_u64, &world.told)).unwrap();
    let (settings, backends, seed, told): (Settings, Vec<BackendSettings>, u64, Vec<(Time, Option<Event>)>) =
        serde_json::from_str(&recorded).unwrap();
    let mut engine = Engine::new(settings, backends, seed, Time::from_secs(1));
    let mut actions = Vec::new();
    for (now, event) in told {
        match event {
            Some(event) => engine.handle(now, event, &mut actions),
            None => engine.handle_timeout(now, &mut actions),
        }
    }
    assert_eq!(engine.view(world.now), world.view());
    assert_eq!(actions, world.asked);
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Switch(_))).count(), 3);
}
