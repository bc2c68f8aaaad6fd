//! Backends, links, probes and a control task that carries out switches, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use standin::policy::{
    Action, Availability, BackendId, BackendRole, BackendSettings, Edge, Engine, Event, ProbeAnswer, ProbeOutcome,
    Role, Settings, Standing, Switch, SwitchKind, SwitchResult, Time, WindowSummary,
};

use crate::invariants;

const MS: Duration = Duration::from_millis(1);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(500);
/// News from a connection reaches the engine within this.
const DELAY_MAX: Duration = Duration::from_micros(800);

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Time,
    pub(crate) engine: Engine,
    pub(crate) backends: Vec<Backend>,
    /// Index of the backend that the published route names.
    pub(crate) route: usize,
    pub(crate) under_way: Option<Switch>,
    /// Nobody serves, and no switch is under way, since then.
    pub(crate) nobody_since: Time,
    pub(crate) last_switch_id: u64,
    /// Away from the active; not those that enter it anew.
    pub(crate) switches_begun: usize,
    pub(crate) carried_out: u64,
    pub(crate) epoch_seen: u64,
    pub(crate) timeouts_handled: u64,
    /// Answers to switches that the engine has not got yet.
    pub(crate) undelivered: usize,
    pub(crate) promise: Option<Promise>,
    pub(crate) promises_kept: usize,
    pub(crate) log: Vec<String>,
    settings: Settings,
    /// Requests flow; else there are only probes.
    load: bool,
    queue: BTreeMap<(Time, u64), What>,
    sequence: u64,
    last_delivery: Time,
    actions: Vec<Action>,
}

pub(crate) struct Backend {
    pub(crate) state: State,
    pub(crate) connected: bool,
    pub(crate) connected_at: Time,
    pub(crate) standing_told: Standing,
    pub(crate) standing_at: Time,
    refuses: bool,
    identity: u32,
    identity_seen: u32,
    /// Counts faults, so that what was scheduled before one is known to be stale.
    generation: u64,
    handshaking: bool,
    probe_sent: Option<Time>,
    last_reply: Time,
    /// Up and willing to be entered since then.
    pub(crate) fit_since: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    Frozen,
    Dead,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Kill(usize),
    Restart(usize),
    Freeze(usize),
    Thaw(usize),
    /// Divergence says that it may not be entered, or that it may again.
    Refuse(usize, bool),
    /// One connection is cut by somebody in between; the server is well.
    CutLink(usize),
}

/// A fault on the active that must be acted on in time.
pub(crate) struct Promise {
    pub(crate) about: String,
    pub(crate) until: Time,
}

enum What {
    Deliver(Box<Event>),
    Tick,
    Probe(usize),
    ProbeNow(usize),
    ProbeTimesOut(usize, Time),
    Connect(usize, u32),
    HandshakeTimesOut(usize, u64),
    Stall(usize, u64),
    SwitchEnds(Switch),
}

/// SplitMix64: small, and good enough to make worlds.
pub(crate) struct Random(u64);

impl World {
    pub(crate) fn new(seed: u64, settings: Settings) -> Self {
        let names = ["primary", "backup-a", "backup-b"];
        let roles = [BackendRole::Primary, BackendRole::Backup, BackendRole::Backup];
        let backend = |id: u8| BackendSettings::new(BackendId(id), names[usize::from(id)], roles[usize::from(id)]);
        let mut random = Random::new(seed);
        let load = random.below(4) != 0;
        let mut group: Vec<_> = (0..3).map(backend).collect();
        group[2].last_resort = seed.is_multiple_of(5);
        let engine = Engine::new(settings.clone(), group, seed, Time::ZERO);
        let mut world = Self {
            random,
            now: Time::ZERO,
            engine,
            backends: (0..3).map(|_| Backend::new()).collect(),
            route: 0,
            under_way: None,
            nobody_since: Time::ZERO,
            last_switch_id: 0,
            switches_begun: 0,
            carried_out: 0,
            epoch_seen: 1,
            timeouts_handled: 0,
            undelivered: 0,
            promise: None,
            promises_kept: 0,
            log: Vec::new(),
            settings,
            load,
            queue: BTreeMap::new(),
            sequence: 0,
            last_delivery: Time::ZERO,
            actions: Vec::new(),
        };
        for id in 0..3 {
            world.after(Duration::ZERO, What::Connect(id, 0));
            let offset = world.random.between(Duration::ZERO, world.probe_interval());
            world.after(offset, What::Probe(id));
            world.tell(Event::Standing { backend: name(id), standing: Standing::Enterable });
        }
        world.after(Duration::ZERO, What::Tick);
        world
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timeout = self.engine.poll_timeout();
            let due = next.into_iter().chain(timeout).min().unwrap_or(end);
            if due > end {
                break;
            }
            // What fell due while we were stalled happens late.
            self.now = self.now.max(due);
            if timeout == Some(due) {
                self.timeouts_handled += 1;
                self.engine.handle_timeout(self.now, &mut self.actions);
                self.carry_out();
            } else if let Some((_, what)) = self.queue.pop_first() {
                self.happen(what);
            }
            self.check();
        }
        self.now = end;
    }

    pub(crate) fn any_backend(&mut self) -> usize {
        // The active is where it hurts.
        if self.random.below(2) == 0 { self.route } else { self.random.below(3) as usize }
    }

    pub(crate) fn any_fault(&mut self) -> Fault {
        let id = self.any_backend();
        let backend = &self.backends[id];
        match (backend.state, self.random.below(10)) {
            (State::Dead, _) => Fault::Restart(id),
            (State::Frozen, 0..=1) => Fault::Kill(id),
            (State::Frozen, _) => Fault::Thaw(id),
            (State::Up, 0..=3) => Fault::Kill(id),
            (State::Up, 4..=6) => Fault::Freeze(id),
            (State::Up, 7) => Fault::CutLink(id),
            // The active itself does not become foreign without a restart.
            (State::Up, _) if id != self.route => Fault::Refuse(id, !backend.refuses),
            (State::Up, _) => Fault::CutLink(id),
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.log.push(format!("{} {fault:?}", self.now));
        self.promise = None;
        match fault {
            Fault::Kill(id) => self.kill(id),
            Fault::Restart(id) => {
                let backend = &mut self.backends[id];
                backend.state = State::Up;
                backend.identity += 1;
                backend.fit_since = self.now;
            }
            Fault::Freeze(id) => self.freeze(id),
            Fault::Thaw(id) => self.thaw(id),
            Fault::Refuse(id, refuses) => {
                self.backends[id].refuses = refuses;
                self.backends[id].fit_since = self.now;
                let standing =
                    if refuses { Standing::Refused { why: "foreign keys".into() } } else { Standing::Enterable };
                self.tell(Event::Standing { backend: name(id), standing });
            }
            Fault::CutLink(id) => {
                if self.backends[id].connected {
                    self.lose_link(id);
                }
            }
        }
    }

    /// This process itself is stopped: nothing is read, and the clock is late when it runs again.
    pub(crate) fn stall_ourselves(&mut self, late: Duration) {
        self.log.push(format!("{} we stall for {late:?}", self.now));
        self.promise = None;
        self.now += late;
        self.engine.handle(self.now, Event::TickStalled { late }, &mut self.actions);
        self.carry_out();
    }

    pub(crate) fn mend_all(&mut self) {
        for id in 0..self.backends.len() {
            match self.backends[id].state {
                State::Up => {}
                State::Frozen => self.fault(Fault::Thaw(id)),
                State::Dead => self.fault(Fault::Restart(id)),
            }
            if self.backends[id].refuses {
                self.fault(Fault::Refuse(id, false));
            }
        }
    }

    fn kill(&mut self, id: usize) {
        let watched = self.backends[id].connected && self.backends[id].state == State::Up;
        let backend = &mut self.backends[id];
        backend.state = State::Dead;
        backend.handshaking = false;
        backend.generation += 1;
        if backend.probe_sent.take().is_some() {
            let outcome = ProbeOutcome::Failed(Edge::LinkLost);
            self.tell(Event::Probe { backend: name(id), outcome });
        }
        if watched {
            self.promise(id, 10 * MS + self.settings.failover.hold, "a dead process");
        }
        if self.backends[id].connected {
            self.lose_link(id);
        } else {
            self.after(MS, What::Connect(id, 1));
        }
    }

    fn freeze(&mut self, id: usize) {
        let backend = &mut self.backends[id];
        backend.state = State::Frozen;
        backend.generation += 1;
        let generation = backend.generation;
        if id == self.route && self.load && backend.connected {
            backend.last_reply = self.now;
            self.after(self.settings.timeout.floor, What::Stall(id, generation));
            self.promise(id, Duration::from_secs(1), "a freeze under load");
        } else {
            self.promise(id, 1_500 * MS, "a freeze without load");
        }
    }

    fn thaw(&mut self, id: usize) {
        let backend = &mut self.backends[id];
        backend.state = State::Up;
        backend.generation += 1;
        backend.last_reply = self.now;
        backend.fit_since = self.now;
        if let Some(sent) = backend.probe_sent.take() {
            self.probe_answered(id, self.now - sent);
        }
        if std::mem::take(&mut self.backends[id].handshaking) {
            self.connect(id, 0);
        }
    }

    /// Promises that the engine acts in time, when it must: the active is hit and somebody fit has been standing by.
    fn promise(&mut self, id: usize, within: Duration, about: &str) {
        let fit = |backend: &Backend| {
            let long = self.now - backend.fit_since > Duration::from_secs(3);
            backend.state == State::Up && backend.connected && !backend.refuses && long
        };
        let stands_by = self.backends.iter().enumerate().any(|(other, backend)| other != id && fit(backend));
        let serving = self.under_way.is_none() && self.undelivered == 0;
        let held = self.backends[id].refuses;
        if id == self.route && stands_by && serving && !held {
            self.promise = Some(Promise { about: about.to_owned(), until: self.now + within });
        }
    }

    fn lose_link(&mut self, id: usize) {
        self.backends[id].connected = false;
        self.edge(id, Edge::LinkLost);
        self.after(Duration::from_micros(100), What::Connect(id, 0));
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver(event) => self.deliver(*event),
            What::Tick => self.tick(),
            What::Probe(id) => {
                let interval = self.probe_interval();
                let next = self.random.between(interval.mul_f64(0.9), interval.mul_f64(1.1));
                self.after(next, What::Probe(id));
                self.probe(id);
            }
            What::ProbeNow(id) => self.probe(id),
            What::ProbeTimesOut(id, sent) => {
                if self.backends[id].probe_sent == Some(sent) {
                    self.backends[id].probe_sent = None;
                    let outcome = ProbeOutcome::TimedOut { silent_for: self.now - sent };
                    self.tell(Event::Probe { backend: name(id), outcome });
                }
            }
            What::Connect(id, attempt) => self.connect(id, attempt),
            What::HandshakeTimesOut(id, generation) => {
                let backend = &mut self.backends[id];
                if backend.generation == generation && std::mem::take(&mut backend.handshaking) {
                    self.edge(id, Edge::HandshakeTimedOut);
                    self.after(MS, What::Connect(id, 1));
                }
            }
            What::Stall(id, generation) => {
                if self.backends[id].generation == generation && self.route == id {
                    self.window(id);
                    let silent_for = self.settings.timeout.floor;
                    self.edge(id, Edge::Stalled { silent_for });
                }
            }
            What::SwitchEnds(switch) => self.switch_ends(switch),
        }
    }

    fn deliver(&mut self, event: Event) {
        match &event {
            Event::Standing { backend, standing } => {
                let backend = &mut self.backends[backend.index()];
                backend.standing_told = standing.clone();
                backend.standing_at = self.now;
            }
            Event::SwitchDone { .. } => self.undelivered -= 1,
            _ => {}
        }
        self.engine.handle(self.now, event, &mut self.actions);
        self.carry_out();
    }

    fn tick(&mut self) {
        let id = self.route;
        if self.load && self.backends[id].state == State::Up && self.backends[id].connected {
            self.backends[id].last_reply = self.now;
        }
        self.window(id);
        let tick = self.settings.timeout.tick.max(25 * MS);
        self.after(tick, What::Tick);
    }

    fn window(&mut self, id: usize) {
        let backend = &self.backends[id];
        let answers = self.load && backend.state == State::Up && backend.connected;
        let window = WindowSummary {
            requests: if answers { 40 } else { 0 },
            in_flight: if self.load && backend.connected { 8 } else { 0 },
            last_progress: Some(backend.last_reply),
            ..WindowSummary::default()
        };
        self.tell(Event::Window { backend: name(id), window });
    }

    fn probe(&mut self, id: usize) {
        if self.backends[id].probe_sent.is_some() {
            return;
        }
        match self.backends[id].state {
            State::Dead => {
                let outcome = ProbeOutcome::Failed(Edge::ConnectRefused);
                self.tell(Event::Probe { backend: name(id), outcome });
            }
            State::Frozen => {
                self.backends[id].probe_sent = Some(self.now);
                self.after(self.settings.timeout.floor, What::ProbeTimesOut(id, self.now));
            }
            State::Up => {
                let latency = self.random.between(Duration::from_micros(100), 2 * MS);
                self.backends[id].last_reply = self.now;
                self.identify(id);
                self.probe_answered(id, latency);
            }
        }
    }

    fn probe_answered(&mut self, id: usize, latency: Duration) {
        let outcome = ProbeOutcome::Ok(ProbeAnswer { write_ok: Some(true), ..ProbeAnswer::new(latency, Role::Master) });
        self.tell(Event::Probe { backend: name(id), outcome });
    }

    fn connect(&mut self, id: usize, attempt: u32) {
        let backend = &mut self.backends[id];
        if backend.connected || backend.handshaking {
            return;
        }
        match backend.state {
            State::Dead => {
                self.edge(id, Edge::ConnectRefused);
                let wait =
                    if attempt == 0 { self.random.between(MS, 2 * MS) } else { self.random.between(10 * MS, 100 * MS) };
                self.after(wait, What::Connect(id, attempt + 1));
            }
            State::Frozen => {
                backend.handshaking = true;
                let generation = backend.generation;
                self.after(HANDSHAKE_TIMEOUT, What::HandshakeTimesOut(id, generation));
            }
            State::Up => {
                backend.connected = true;
                backend.connected_at = self.now;
                backend.last_reply = self.now;
                self.identify(id);
                self.edge(id, Edge::HandshakeDone);
            }
        }
    }

    /// Every handshake, also a probe's, reads the identity first. Divergence looks at a restarted backend and finds it
    /// empty, or knows that it must not be entered.
    fn identify(&mut self, id: usize) {
        let backend = &mut self.backends[id];
        if backend.identity == backend.identity_seen {
            return;
        }
        backend.identity_seen = backend.identity;
        let refuses = backend.refuses;
        self.edge(id, Edge::IdentityChanged);
        let standing = if refuses { Standing::Refused { why: "foreign keys".into() } } else { Standing::Enterable };
        self.tell(Event::Standing { backend: name(id), standing });
    }

    fn carry_out(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            let switch = match action {
                Action::Switch(switch) => switch,
                Action::ProbeNow { backend } => {
                    self.after(MS, What::ProbeNow(backend.index()));
                    continue;
                }
                _ => continue,
            };
            invariants::never_to_a_refused_backend(self, &switch);
            invariants::switch_ids_grow(self, &switch);
            self.log
                .push(format!("{} {:?} {} -> {}: {}", self.now, switch.kind, switch.from, switch.to, switch.reason));
            self.last_switch_id = switch.id.0;
            if switch.kind != SwitchKind::Reentry {
                self.switches_begun += 1;
            }
            if self.promise.take().is_some() {
                self.promises_kept += 1;
            }
            if let Some(superseded) = self.under_way.replace(switch.clone()) {
                self.answer(superseded, SwitchResult::Failed { why: "superseded".into() });
            }
            let takes = self.random.between(50 * MS / 1_000, 20 * MS);
            self.after(takes, What::SwitchEnds(switch));
        }
    }

    fn switch_ends(&mut self, switch: Switch) {
        if self.under_way.as_ref().map(|current| current.id) != Some(switch.id) {
            return;
        }
        let target = &self.backends[switch.to.index()];
        let result = if target.state != State::Up {
            SwitchResult::Failed { why: "no answer".into() }
        } else if target.refuses {
            SwitchResult::Refused { why: "foreign keys".into() }
        } else {
            SwitchResult::Done
        };
        if result == SwitchResult::Done {
            self.route = switch.to.index();
            self.carried_out += 1;
        }
        self.log.push(format!("{} {:?} {result:?}", self.now, switch.id));
        self.under_way = None;
        self.answer(switch, result);
    }

    fn answer(&mut self, switch: Switch, result: SwitchResult) {
        self.undelivered += 1;
        self.tell(Event::SwitchDone { id: switch.id, result });
    }

    fn check(&mut self) {
        if self.engine.availability() != Availability::NoBackend || self.under_way.is_some() {
            self.nobody_since = self.now;
        }
        invariants::exactly_one_active(self);
        invariants::epoch_only_grows(self);
        invariants::promises_are_kept(self);
        invariants::nobody_waits_while_somebody_can_serve(self);
        invariants::timeouts_do_not_spin(self);
        self.epoch_seen = self.engine.epoch();
    }

    fn edge(&mut self, id: usize, edge: Edge) {
        self.tell(Event::Edge { backend: name(id), edge });
    }

    /// The engine hears of it a little later, in order.
    fn tell(&mut self, event: Event) {
        let delay = self.random.between(Duration::ZERO, DELAY_MAX);
        self.last_delivery = self.last_delivery.max(self.now + delay);
        self.schedule(self.last_delivery, What::Deliver(Box::new(event)));
    }

    fn after(&mut self, wait: Duration, what: What) {
        self.schedule(self.now + wait, what);
    }

    fn schedule(&mut self, at: Time, what: What) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), what);
    }

    fn probe_interval(&self) -> Duration {
        if self.settings.timeout.floor > 500 * MS { 500 * MS } else { 100 * MS }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("STANDIN_SIM_SEED").is_some() {
            eprintln!("load: {}\n{}", self.load, self.log.join("\n"));
        }
    }
}

impl Backend {
    fn new() -> Self {
        Self {
            state: State::Up,
            connected: false,
            connected_at: Time::ZERO,
            standing_told: Standing::Unknown,
            standing_at: Time::ZERO,
            refuses: false,
            identity: 0,
            identity_seen: 0,
            generation: 0,
            handshaking: false,
            probe_sent: None,
            last_reply: Time::ZERO,
            fit_since: Time::ZERO,
        }
    }
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9) ^ 0x5eed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = (high - low).as_micros() as u64;
        low + Duration::from_micros(self.below(span + 1))
    }
}

fn name(id: usize) -> BackendId {
    BackendId(id as u8)
}
