//! One server under a load of open-loop clients, its probes, and a second server that only waits.

use std::collections::BTreeMap;
use std::time::Duration;

use standin::policy::{
    Action, BackendId, BackendRole, BackendSettings, CommandClass, Edge, Engine, ErrorCounts, Event, Phi, ProbeAnswer,
    ProbeOutcome, Role, Settings, Standing, Switch, Time, Trigger, WindowSummary,
};

const MS: Duration = Duration::from_millis(1);
const PRIMARY: BackendId = BackendId(0);
const BACKUP: BackendId = BackendId(1);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Nothing is answered any more; connections stand.
    Freeze,
    SlowReads(Duration),
    /// This share of the replies says OOM.
    Errors(f64),
    /// Exactly one reply of five says OOM.
    EveryFifth,
    /// This share of the replies says WRONGTYPE.
    DataErrors(f64),
    /// Twice a second a KEYS takes so long, and what comes behind it waits.
    SlowCommands(Duration),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Stayed,
    Switched { after: Duration, trigger: Trigger, reason: String },
}

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) now: Time,
    /// Latency of a reply when all is well.
    pub(crate) base_us: u64,
    /// This share of the replies is late by a heavy-tailed time.
    pub(crate) jitter: f64,
    /// The server stops for so long now and then.
    pub(crate) pauses: Option<Duration>,
    /// Intervals between heartbeats, and those that phi found suspicious.
    pub(crate) intervals: u64,
    pub(crate) suspicions: u64,
    /// The same for plain ratios of the mean interval.
    pub(crate) ratios: Vec<Ratio>,
    settings: Settings,
    per_second: f64,
    fault: Fault,
    faulty_since: Time,
    draw: u64,
    due: f64,
    sent: u64,
    /// Replies under way, by the tick in which they arrive.
    arriving: BTreeMap<u64, Vec<Reply>>,
    /// Requests without a reply that will come.
    stuck_since: Option<Time>,
    outstanding: u32,
    last_reply: Time,
    paused_until: Time,
    next_pause: Time,
    slow_until: Time,
    next_slow: Time,
    probes: [Probe; 2],
    phi: Phi,
    actions: Vec<Action>,
}

struct Reply {
    class: CommandClass,
    latency_us: u64,
    outcome: Ended,
}

#[derive(Clone, Copy, PartialEq)]
enum Ended {
    Well,
    Overloaded,
    Data,
}

#[derive(Clone, Copy, Default)]
struct Probe {
    next: Time,
    /// When it was sent, and when its answer comes, if it comes.
    under_way: Option<(Time, Option<Time>)>,
}

/// A plain detector: suspicious is what is silent for so many mean intervals, over the same window as phi.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) times: f64,
    pub(crate) suspicions: u64,
}

impl Ratio {
    fn is_suspicious(&self, phi: &Phi, now: Time, expected: Duration) -> bool {
        phi.last().is_some_and(|last| now - last > phi.mean().max(expected).mul_f64(self.times))
    }
}

impl Bench {
    pub(crate) fn new(settings: Settings, seed: u64, per_second: f64) -> Self {
        let group = vec![
            BackendSettings::new(PRIMARY, "primary", BackendRole::Primary),
            BackendSettings::new(BACKUP, "backup", BackendRole::Backup),
        ];
        let now = Time::from_secs(1);
        let mut bench = Self {
            engine: Engine::new(settings.clone(), group, seed, now),
            now,
            base_us: 300,
            jitter: 0.0,
            pauses: None,
            intervals: 0,
            suspicions: 0,
            ratios: Vec::new(),
            phi: Phi::new(&settings.phi, settings.timeout.floor),
            settings,
            per_second,
            fault: Fault::None,
            faulty_since: now,
            draw: seed,
            due: 0.0,
            sent: seed,
            arriving: BTreeMap::new(),
            stuck_since: None,
            outstanding: 0,
            last_reply: now,
            paused_until: now,
            next_pause: now + Duration::from_secs(10),
            slow_until: now,
            next_slow: now,
            probes: [Probe::default(); 2],
            actions: Vec::new(),
        };
        for backend in [PRIMARY, BACKUP] {
            bench.tell(Event::Edge { backend, edge: Edge::HandshakeDone });
            bench.tell(Event::Standing { backend, standing: Standing::Enterable });
        }
        // Where between two ticks the fault and the requests fall.
        bench.due = bench.chance();
        bench
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.fault = fault;
        self.faulty_since = self.now;
    }

    /// Runs until the engine wants to switch, or for so long.
    pub(crate) fn run(&mut self, duration: Duration) -> Outcome {
        let end = self.now + duration;
        while self.now < end {
            self.now += self.settings.timeout.tick;
            self.tick();
            if let Some(switch) = self.switch() {
                let after = self.now - self.faulty_since;
                return Outcome::Switched { after, trigger: switch.trigger, reason: switch.reason };
            }
        }
        Outcome::Stayed
    }

    fn switch(&mut self) -> Option<Switch> {
        let actions = std::mem::take(&mut self.actions);
        for action in &actions {
            if let Action::ProbeNow { backend } = action {
                self.probes[backend.index()].next = self.now;
            }
        }
        actions.into_iter().find_map(|action| if let Action::Switch(switch) = action { Some(switch) } else { None })
    }

    fn tick(&mut self) {
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= self.now) {
            self.engine.handle_timeout(due, &mut self.actions);
        }
        self.pause();
        self.send();
        let window = self.window();
        self.tell(Event::Window { backend: PRIMARY, window });
        if let Some(since) = self.stuck_since {
            let silent_for = self.now - since.max(self.last_reply);
            if silent_for >= self.settings.timeout.floor {
                self.tell(Event::Edge { backend: PRIMARY, edge: Edge::Stalled { silent_for } });
            }
        }
        self.probe(PRIMARY);
        self.probe(BACKUP);
    }

    fn pause(&mut self) {
        if let Some(length) = self.pauses.filter(|_| self.now >= self.next_pause) {
            self.paused_until = self.now + length;
            // Some seconds of service between two pauses, and now and then hardly one.
            let rest = 200.0 + 40_000.0 * self.chance();
            self.next_pause = self.paused_until + Duration::from_millis(rest as u64);
        }
        if let Fault::SlowCommands(length) = self.fault
            && self.now >= self.next_slow
        {
            self.slow_until = self.now + length;
            self.next_slow = self.now + 500 * MS;
            let reply =
                Reply { class: CommandClass::Slow, latency_us: length.as_micros() as u64, outcome: Ended::Well };
            self.arrive(length, reply);
        }
    }

    /// Sends this tick's requests: three reads to one write.
    fn send(&mut self) {
        self.due += self.per_second * self.settings.timeout.tick.as_secs_f64();
        while self.due >= 1.0 {
            self.due -= 1.0;
            let class = if self.chance() < 0.75 { CommandClass::Read } else { CommandClass::Write };
            if self.fault == Fault::Freeze {
                self.outstanding += 1;
                self.stuck_since.get_or_insert(self.now);
                continue;
            }
            let latency = self.latency(class);
            let chance = self.chance();
            self.sent += 1;
            let outcome = match self.fault {
                Fault::Errors(share) if chance < share => Ended::Overloaded,
                Fault::EveryFifth if self.sent.is_multiple_of(5) => Ended::Overloaded,
                Fault::DataErrors(share) if chance < share => Ended::Data,
                _ => Ended::Well,
            };
            self.arrive(latency, Reply { class, latency_us: latency.as_micros() as u64, outcome });
        }
    }

    fn arrive(&mut self, after: Duration, reply: Reply) {
        self.outstanding += 1;
        let tick = self.settings.timeout.tick;
        let at = (self.now + after).as_micros() / tick.as_micros() as u64;
        self.arriving.entry(at).or_default().push(reply);
    }

    fn latency(&mut self, class: CommandClass) -> Duration {
        let mut micros = self.base_us + (self.base_us as f64 * 0.5 * self.chance()) as u64;
        if self.jitter > 0.0 && self.chance() < self.jitter {
            // Pareto with a tail index of 1.5 from 5 ms on, cut at the pause that is forgiven.
            let longest = self.pauses.unwrap_or(500 * MS).as_micros() as f64;
            micros += (5_000.0 / self.chance().max(1e-9).powf(1.0 / 1.5)).min(longest) as u64;
        }
        if let (Fault::SlowReads(more), CommandClass::Read) = (self.fault, class) {
            micros += more.as_micros() as u64;
        }
        let held = self.paused_until.max(self.slow_until) - self.now;
        Duration::from_micros(micros) + held
    }

    fn window(&mut self) -> WindowSummary {
        let tick = self.settings.timeout.tick.as_micros() as u64;
        let later = self.arriving.split_off(&(self.now.as_micros() / tick + 1));
        let arrived = std::mem::replace(&mut self.arriving, later);
        let mut window = WindowSummary::default();
        for reply in arrived.into_values().flatten() {
            self.outstanding -= 1;
            window.requests += 1;
            window.latency[reply.class.index()].record(reply.latency_us, 1);
            match reply.outcome {
                Ended::Well => {}
                Ended::Overloaded => window.errors.overloaded += 1,
                Ended::Data => window.errors.data += 1,
            }
        }
        if window.requests > 0 {
            self.last_reply = self.now;
            self.heartbeat();
        }
        assert_eq!(window.errors.authentication, ErrorCounts::default().authentication);
        window.in_flight = self.outstanding;
        window.last_progress = Some(self.last_reply);
        window.slow_in_flight_until =
            (self.slow_until > self.now).then(|| self.slow_until + self.settings.timeout.slow);
        window
    }

    fn probe(&mut self, id: BackendId) {
        let timeout = self.settings.timeout.floor;
        let probe = self.probes[id.index()];
        match probe.under_way {
            Some((sent, Some(answer))) if self.now >= answer => {
                self.probes[id.index()].under_way = None;
                if id == PRIMARY {
                    self.last_reply = self.now;
                    self.heartbeat();
                }
                let answer = ProbeAnswer { write_ok: Some(true), ..ProbeAnswer::new(answer - sent, Role::Master) };
                self.tell(Event::Probe { backend: id, outcome: ProbeOutcome::Ok(answer) });
            }
            Some((sent, _)) if self.now - sent >= timeout => {
                self.probes[id.index()].under_way = None;
                let outcome = ProbeOutcome::TimedOut { silent_for: self.now - sent };
                self.tell(Event::Probe { backend: id, outcome });
            }
            Some(_) => {}
            None if self.now >= probe.next => {
                let interval = self.settings.phi.interval;
                let next = self.now + interval.mul_f64(0.95 + 0.1 * self.chance());
                let answer = match (self.fault, id) {
                    (Fault::Freeze, PRIMARY) => None,
                    (_, PRIMARY) => Some(self.now + self.latency(CommandClass::MultiKey)),
                    _ => Some(self.now + Duration::from_micros(400)),
                };
                self.probes[id.index()] = Probe { next, under_way: Some((self.now, answer)) };
            }
            None => {}
        }
    }

    fn heartbeat(&mut self) {
        let expected = if self.outstanding > 0 { Duration::ZERO } else { self.settings.phi.interval * 11 / 10 };
        self.intervals += 1;
        self.suspicions += u64::from(self.phi.phi(self.now, expected) > self.settings.phi.suspect);
        let suspicious = |ratio: &Ratio| ratio.is_suspicious(&self.phi, self.now, expected);
        let suspected: Vec<_> = self.ratios.iter().map(suspicious).collect();
        self.ratios.iter_mut().zip(suspected).for_each(|(ratio, is)| ratio.suspicions += u64::from(is));
        self.phi.heartbeat(self.now);
    }

    /// How long a silence that begins now, with replies due, must last until phi and each ratio find it suspicious.
    pub(crate) fn suspected_after(&self) -> (Duration, Vec<Duration>) {
        let last = self.phi.last().unwrap_or(self.now);
        let first = |is: &dyn Fn(Time) -> bool| {
            (0..).map(|step| step * MS).find(|silence| *silence > 600 * 1_000 * MS || is(last + *silence)).unwrap_or(MS)
        };
        let by_phi = first(&|now| self.phi.phi(now, Duration::ZERO) > self.settings.phi.suspect);
        let by_ratio = |ratio: &Ratio| first(&|now| ratio.is_suspicious(&self.phi, now, Duration::ZERO));
        (by_phi, self.ratios.iter().map(by_ratio).collect())
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event, &mut self.actions);
    }

    fn chance(&mut self) -> f64 {
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.draw;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
