//! The engine's rules as sentences. A `World` is one engine, its clock and what it asked for.

#![allow(clippy::unwrap_used)]

mod choice;
mod death;
mod freeze;
mod guards;
mod holding;
mod incidents;
mod modes;
mod nobody;
mod operators;
mod purity;
mod recording;
mod recovery;
mod staged;
mod trouble;

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
    /// Whether backends that are asked before a living active is left for them answer, and well.
    answers: bool,
}

fn group() -> Vec<BackendSettings> {
    vec![
        BackendSettings::new(PRIMARY, "primary", BackendRole::Primary),
        BackendSettings::new(BACKUP_A, "backup-a", BackendRole::Backup),
        BackendSettings::new(BACKUP_B, "backup-b", BackendRole::Backup),
    ]
}

fn ok() -> ProbeOutcome {
    ProbeOutcome::Ok(ProbeAnswer { write_ok: Some(true), ..ProbeAnswer::new(MS, Role::Master) })
}

impl World {
    fn with(settings: Settings, backends: Vec<BackendSettings>) -> Self {
        let now = Time::from_secs(1);
        let count = backends.len();
        let engine = Engine::new(settings, backends, 1, now);
        let mut world = Self { engine, now, actions: Vec::new(), told: Vec::new(), asked: Vec::new(), answers: true };
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
        self.answer_questions(before);
    }

    /// What the engine asks while it looks for somebody better than a living active.
    fn answer_questions(&mut self, before: usize) {
        let view = self.engine.view(self.now);
        let asks = |action: &Action| if let Action::ProbeNow { backend } = action { Some(*backend) } else { None };
        let looks = view.availability == Availability::Serving && self.answers;
        let asked = self.actions[before..].iter().filter_map(asks).filter(|backend| looks && *backend != view.active);
        for backend in asked.collect::<Vec<_>>() {
            self.now += MS;
            self.probe(backend, ok());
        }
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

    fn die(&mut self, backend: BackendId) {
        self.edge(backend, Edge::LinkLost);
        self.refuse(backend);
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
            self.answer_questions(before);
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

    /// Lets time pass, with good probes, until a switch is wanted.
    fn wait_for_switch(&mut self, backends: &[BackendId]) -> Switch {
        for _ in 0..10_000 {
            if let Some(switch) = self.switches().pop() {
                return switch;
            }
            self.pass_well(500 * MS, backends);
        }
        panic!("no switch is wanted");
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
        let mut records = Vec::new();
        for action in &self.actions {
            match action {
                Action::Record(decision) if decision.kind == kind => records.push(decision),
                _ => {}
            }
        }
        records
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
        world.die(PRIMARY);
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

#[test]
fn an_allowance_is_told_when_latency_has_changed() {
    let mut world = World::new();
    world.actions.clear();
    for _ in 0..100 {
        world.pass(50 * MS);
        let mut window = WindowSummary { requests: 100, ..busy(world.now) };
        let latencies = (0..100).map(|n| 100_000 + n * 800);
        window.latency[CommandClass::MultiKey.index()] = Sketch::of(latencies);
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
    type Recorded = (Settings, Vec<BackendSettings>, u64, Vec<(Time, Option<Event>)>);
    let (settings, backends, seed, told): Recorded = serde_json::from_str(&recorded).unwrap();
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
