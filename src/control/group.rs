//! The one task that decides for a group: it feeds the engine with events and carries out its actions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::api::{
    CommandReply, GroupReport, How, Note, Order, PlanOrder, RecordingReport, StatisticsReport, SwitchReport,
};
use super::facts::{BackendRules, Facts};
use super::marks::MarkKeys;
use super::mirror::{self, MirrorControl, MirrorSettings};
use super::objectives::{Ended, ObjectivesControl};
use super::probe::{self, ProbeCommand, ProbeSettings, Report};
use super::publish::MetricsPublisher;
use super::replication::{Servers, Told};
use super::rollout::{Running, ShareTold};
use super::sampling;
use super::settings::engine_backend;
use super::shared::Shared;
use super::shares::Sharing;
use super::state::Keeper;
use super::steps::Outcome;
use super::window::{Collector, Recent, path_classes};
use crate::backend::{Identity, clock};
use crate::config::{DivergencePolicy, HealthCheck, Initialization, InitializationPolicy, Sampling};
use crate::divergence::Scripts;
use crate::policy::{
    Action, Availability as EngineAvailability, BackendId, Decision, Edge, Engine, Event, Objectives, PlanNews,
    RecordedEngine, Switch,
};
use crate::route::{Availability, ClientCounts, EdgeReport, Publisher};
use crate::telemetry::events::{Event as Entry, EventKind, History};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// A tick that comes this much later than it should makes us suspect ourselves.
const LATE_TICK: Duration = Duration::from_millis(100);

/// Everything that the control of one group starts with.
pub struct GroupControlSetup {
    pub publisher: Publisher,
    pub engine_settings: crate::policy::Settings,
    pub(super) rules: Vec<BackendRules>,
    pub divergence_policy: DivergencePolicy,
    pub tracks_writers: bool,
    pub mark_prefix: String,
    pub promote: bool,
    /// How long each comparison of a staged plan lasts at least.
    pub dwell: Duration,
    pub objectives: Objectives,
    pub mirror: MirrorSettings,
    pub sampling: Sampling,
    pub health_check: HealthCheck,
    pub initialization: Initialization,
    /// Where what must outlive the process is kept.
    pub state: Option<PathBuf>,
    pub scripts: Arc<Scripts>,
    pub edges: mpsc::Receiver<EdgeReport>,
    pub seed: u64,
    pub client_name: String,
    pub listen: String,
}

/// What the process shares with every group's control.
#[derive(Clone)]
pub struct Surroundings {
    pub history: Arc<History>,
    pub metrics: Metrics,
    pub clients: Arc<ClientCounts>,
    pub readiness: Readiness,
    pub stop: CancellationToken,
}

/// What the API asks a group's control.
pub(super) enum GroupRequest {
    Status(oneshot::Sender<GroupReport>),
    Statistics(oneshot::Sender<StatisticsReport>),
    Recording(Option<u64>, oneshot::Sender<RecordingReport>),
    Order { order: Order, how: How, note: Note, reply: CommandReply },
    Plan { order: PlanOrder, note: Note, reply: CommandReply },
    Own { backend: String, own: bool, reply: CommandReply },
}

pub(super) enum Message {
    Probe(BackendId, Box<Report>),
    SwitchDone(Switch, Outcome, Duration),
    Emptied(BackendId, Result<(), String>),
    /// The backend that serves first knows that it does; its identity when that was decided.
    Opened(BackendId, Option<Arc<Identity>>),
    Unsealed(BackendId, Result<(), String>),
    /// What was sampled for a plan.
    Plan(PlanNews),
    Share(ShareTold),
    Replicated(BackendId, Told),
    /// The first success after an outage has come.
    Served(Box<Ended>),
}

pub(super) struct GroupControl {
    pub(super) shared: Rc<Shared>,
    pub(super) engine: RecordedEngine,
    pub(super) account: Account,
    pub(super) objectives: ObjectivesControl,
    /// Interval and timeout of probes.
    pub(super) probe_pace: (Duration, Duration),
    /// Decisions whose switch has not ended, for the event that tells its end.
    pub(super) began: Vec<Decision>,
    pub(super) last_switch: Option<SwitchReport>,
    /// The staged plan under way, and how many there were.
    pub(super) rollout: Option<Running>,
    pub(super) rollouts: u64,
    /// How long its comparisons last, by the order that is being carried out, and by the configuration.
    pub(super) dwell_wished: Option<Duration>,
    pub(super) dwell_default: Duration,
    pub(super) initialization: Initialization,
    /// Said once that as many backends have answered as were waited for.
    pub(super) is_initialized: bool,
    pub(super) collectors: Vec<Collector>,
    pub(super) probe_progress_us: Vec<u64>,
    pub(super) surroundings: Surroundings,
    pub(super) listen: String,
    pub(super) publisher: MetricsPublisher,
    pub(super) recent: Vec<Recent>,
    pub(super) waiting: HashMap<u64, (CommandReply, Instant)>,
    pub(super) actions: Vec<Action>,
    pub(super) started: bool,
    pub(super) born: Instant,
    pub(super) last_health: Vec<crate::policy::Health>,
    pub(super) last_authentication: Vec<Option<Instant>>,
    /// How long each backend has been degraded.
    pub(super) degraded_seconds: Vec<u32>,
    pub(super) status_since: (crate::policy::Status, crate::telemetry::wall_time::WallTime),
    pub(super) keeper: Keeper,
}

/// Runs the control of one group until the process stops.
pub(super) async fn run(
    setup: GroupControlSetup,
    surroundings: Surroundings,
    mut requests: mpsc::Receiver<GroupRequest>,
) {
    let (messages, mut inbox) = bounded_by_its_writers();
    let tick = setup.engine_settings.timeout.tick;
    let stop = surroundings.stop.clone();
    let (mut control, mut edges) = GroupControl::new(setup, surroundings, messages);
    let group = Arc::clone(&control.shared.group);
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due = tokio::time::Instant::now() + tick;
    loop {
        let timeout = control.engine.poll_timeout().map(|at| clock::instant(at.as_micros()));
        tokio::select! {
            biased;
            () = stop.cancelled() => return control.keeper.keep_last(&control.engine, &control.objectives.worst).await,
            Some(report) = edges.recv() => control.on_edge(&report),
            Some(message) = inbox.recv() => control.on_message(message),
            Some(request) = requests.recv() => control.on_request(request),
            () = group.database_noted.notified() => control.on_database_noted(),
            () = sleep_until(timeout), if timeout.is_some() => control.on_timeout(),
            now = ticks.tick() => {
                let late = tokio::time::Instant::now().saturating_duration_since(due.max(now));
                due = tokio::time::Instant::now() + tick;
                control.on_tick(late);
            }
            _ = seconds.tick() => control.on_second(),
        }
    }
}

/// One message for each probe and each switch under way: the senders wait for an answer before they send again, so the
/// queue holds a handful at most.
#[allow(clippy::disallowed_methods, reason = "bounded by its writers, see above")]
fn bounded_by_its_writers() -> (mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>) {
    mpsc::unbounded_channel()
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl GroupControl {
    fn new(
        setup: GroupControlSetup,
        surroundings: Surroundings,
        messages: mpsc::UnboundedSender<Message>,
    ) -> (Self, mpsc::Receiver<EdgeReport>) {
        let group = Arc::clone(setup.publisher.group());
        let mark_keys = MarkKeys::new(&setup.mark_prefix, &group.name);
        let probe_key = format!("{}{}:probe", setup.mark_prefix, group.name);
        let mut probers = Vec::new();
        for backend in &group.backends {
            let (sender, receiver) = mpsc::channel(16);
            let settings = ProbeSettings {
                rules: setup.health_check.clone(),
                mark_keys: mark_keys.clone(),
                probe_key: probe_key.clone(),
                is_replicated: setup.rules[backend.id.index()].is_replicated,
                seed: setup.seed ^ u64::from(backend.id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            };
            let (id, messages) = (backend.id, messages.clone());
            let report = move |report| {
                let _ = messages.send(Message::Probe(id, Box::new(report)));
            };
            tokio::task::spawn_local(probe::run(Arc::clone(backend), settings, receiver, report));
            probers.push(sender);
        }
        let settings = setup.rules.iter().map(|rules| {
            let kept = rules.is_kept_in_step(setup.mirror.primary, setup.promote, setup.rules.len());
            engine_backend(rules, setup.promote, kept)
        });
        let settings = settings.collect();
        let now = clock::now();
        let timing = &group.backends[0].timing;
        let entry_timeout = timing.connect + timing.handshake;
        let mut engine = Engine::new(setup.engine_settings, settings, setup.seed, now);
        let addresses = group.backends.iter().map(|backend| (backend.name.clone(), backend.target.describe()));
        let keeper = Keeper::new(setup.state.clone(), &group.name, addresses.collect());
        let kept = keeper.recall(&mut engine);
        let engine = RecordedEngine::new(engine);
        let account = Account::new(setup.state, &group.name);
        let names: Vec<&str> = group.backends.iter().map(|backend| backend.name.as_str()).collect();
        let publisher = MetricsPublisher::new(&surroundings.metrics, &group.name, &names);
        let count = group.backends.len();
        let status_since = (engine.view(now).status, crate::telemetry::wall_time::WallTime::now());
        let shared = Shared {
            group,
            publisher: RefCell::new(setup.publisher),
            probers,
            facts: RefCell::new(vec![Facts::default(); count]),
            rules: setup.rules,
            divergence_policy: setup.divergence_policy,
            servers: RefCell::new(Servers::new(setup.promote, count)),
            mark_keys,
            instance: instance(&setup.listen),
            own_prefix: setup.mark_prefix,
            mirrors: (0..count).map(|_| MirrorControl::new()).collect(),
            mirror_settings: setup.mirror,
            sampling: setup.sampling,
            samples: (0..count).map(|_| RefCell::default()).collect(),
            other_writer: RefCell::new(None),
            client_name: setup.client_name,
            incidents: RefCell::default(),
            tracks_writers: setup.tracks_writers,
            tracking: RefCell::default(),
            entry_timeout,
            newest_switch: Cell::new(0),
            switches_begun: Cell::new(0),
            reconciling: Cell::default(),
            sharing: Sharing::default(),
            wished: Cell::new(Availability::Holding),
            scripts: setup.scripts,
            history: Arc::clone(&surroundings.history),
            random: Cell::new(setup.seed | 1),
            messages,
        };
        let shared = Rc::new(shared);
        for rules in shared.rules.iter().filter(|rules| shared.may_mirror(rules.id)) {
            tokio::task::spawn_local(mirror::keep(Rc::clone(&shared), rules.id));
        }
        tokio::task::spawn_local(mirror::watch(Rc::clone(&shared)));
        for rules in shared.rules.iter().filter(|rules| !rules.is_embedded) {
            tokio::task::spawn_local(sampling::replica(Rc::clone(&shared), rules.id));
        }
        for said in kept.said {
            let message = format!("taken up from before the restart: {said}");
            shared.record(Entry::new(EventKind::Operator, message));
        }
        let control = Self {
            shared: Rc::clone(&shared),
            engine,
            account,
            objectives: ObjectivesControl::new(setup.objectives, kept.worst),
            probe_pace: (setup.health_check.interval, setup.health_check.timeout),
            began: Vec::new(),
            last_switch: None,
            rollout: None,
            rollouts: 0,
            dwell_wished: None,
            dwell_default: setup.dwell,
            initialization: setup.initialization,
            is_initialized: false,
            collectors: (0..count).map(|_| Collector::new()).collect(),
            probe_progress_us: vec![0; count],
            surroundings,
            listen: setup.listen,
            publisher,
            recent: (0..count).map(|_| Recent::new()).collect(),
            waiting: HashMap::new(),
            actions: Vec::new(),
            started: false,
            born: Instant::now(),
            last_health: vec![crate::policy::Health::Unknown; count],
            last_authentication: vec![None; count],
            degraded_seconds: vec![0; count],
            status_since,
            keeper,
        };
        (control, setup.edges)
    }

    pub(super) fn feed(&mut self, event: Event) {
        let now = clock::now();
        self.engine.handle(now, event, &mut self.actions);
        self.act();
    }

    fn on_timeout(&mut self) {
        self.engine.handle_timeout(clock::now(), &mut self.actions);
        self.act();
    }

    fn on_edge(&mut self, report: &EdgeReport) {
        let backend = report.backend;
        match report.edge {
            // Silence is judged by fresh news.
            Edge::Stalled { .. } => self.collect(backend),
            Edge::IdentityChanged => {
                let seen = self.shared.group.backend(backend).seen.load_full();
                if let Some(identity) = seen {
                    if self.shared.group.backend(backend).is_admitted(&identity) {
                        // Looked at and entered while this report was on its way.
                        return;
                    }
                    if self.shared.note_identity(backend, &identity) {
                        let _ = self.shared.probers[backend.index()].try_send(ProbeCommand::Renew);
                    }
                }
                self.update_standing(backend);
            }
            _ => {}
        }
        self.feed(Event::Edge { backend, edge: report.edge });
    }

    fn collect(&mut self, id: BackendId) {
        let backend = self.shared.group.backend(id);
        let window = self.collectors[id.index()].collect(backend, self.probe_progress_us[id.index()]);
        self.traffic_of_plan(id, &window);
        self.feed(Event::Window { backend: id, window });
    }

    fn on_tick(&mut self, late: Duration) {
        if late > LATE_TICK {
            self.feed(Event::TickStalled { late });
        }
        for index in 0..self.collectors.len() {
            self.collect(BackendId(index as u8));
        }
        self.shared.note_databases();
        self.initialize();
        self.look_at_plan();
    }

    /// Tells once that as many backends have answered as `initialization.policy` waits for, or that it took too long.
    fn initialize(&mut self) {
        if self.is_initialized {
            return;
        }
        let facts = self.shared.facts.borrow();
        // The store in our own memory is always there: it counts only where it is all there is.
        let real = || self.shared.rules.iter().filter(|rules| !rules.is_embedded);
        let answered = real().filter(|rules| facts[rules.id.index()].last_ok_us > 0).count();
        let needed = match self.initialization.policy {
            InitializationPolicy::All => real().count(),
            InitializationPolicy::Majority => real().count() / 2 + 1,
            InitializationPolicy::One => 1,
        };
        if answered >= needed.min(real().count()) || self.born.elapsed() >= self.initialization.timeout {
            self.is_initialized = true;
            self.surroundings.readiness.group_is_ready();
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Probe(id, report) => self.on_probe(id, *report),
            Message::Opened(id, identity) => self.on_opened(id, identity),
            Message::SwitchDone(switch, outcome, took) => self.on_switch_done(&switch, outcome, took),
            Message::Unsealed(id, result) => self.on_unsealed(id, result),
            Message::Plan(news) => self.tell_plan(news),
            Message::Share(told) => self.on_share(told),
            Message::Served(ended) => self.on_served(&ended),
            Message::Replicated(id, told) => self.on_replicated(id, told),
            Message::Emptied(id, result) => {
                self.shared.facts.borrow_mut()[id.index()].emptying = false;
                if let Err(why) = result {
                    let name = &self.shared.rules(id).name;
                    tracing::info!(backend = name, why, "a backup that was left could not be emptied yet");
                }
                self.update_standing(id);
            }
        }
    }

    pub(super) fn act(&mut self) {
        if !self.actions.is_empty() {
            self.note_status();
        }
        for action in std::mem::take(&mut self.actions) {
            self.account.note(&action);
            match action {
                Action::Switch(switch) => self.begin_switch(switch),
                Action::Rollout { from, to, plan, .. } => self.begin_rollout(plan, from, to),
                Action::Publish { availability } => self.publish_availability(availability),
                Action::SetAllowance { backend, class, allowance } => {
                    for class in path_classes(class) {
                        self.shared.group.backend(backend).set_allowance(*class, allowance);
                    }
                }
                Action::ProbeNow { backend } => {
                    let _ = self.shared.probers[backend.index()].try_send(ProbeCommand::Now);
                }
                Action::Record(decision) => self.record_decision(&decision),
                Action::Incident(incident) => self.record_incident(&incident),
            }
        }
    }

    fn publish_availability(&mut self, availability: EngineAvailability) {
        let route = self.shared.group.route();
        if route.epoch == 0 && availability == EngineAvailability::Serving {
            return;
        }
        let availability = match availability {
            EngineAvailability::Serving => Availability::Serving,
            EngineAvailability::Holding { .. } => Availability::Holding,
            EngineAvailability::NoBackend => Availability::NoBackend { since_us: clock::micros() },
        };
        self.shared.wished.set(availability);
        let same = std::mem::discriminant(&availability) == std::mem::discriminant(&route.availability);
        // A share that begins or ends holds requests, and gives them what is wished then.
        if !same && !self.shared.sharing.holds.get() {
            self.shared.set_availability(availability);
        }
    }
}

/// Names this Standin among all that use the same servers, before and after a restart.
fn instance(listen: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{listen}", host.trim())
}
