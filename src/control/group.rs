//! The one task that decides for a group: it feeds the engine with events and carries out its actions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::api::{CommandError, CommandOutcome, CommandReply, GroupReport};
use super::entry::{self, Outcome, Wanted};
use super::facts::{self, BackendRules, Facts};
use super::modules;
use super::probe::{self, Marks, ProbeCommand, ProbeSettings, Report};
use super::publish::MetricsPublisher;
use super::shared::Shared;
use super::window::{Collector, Recent, path_classes};
use crate::backend::clock;
use crate::config::DivergencePolicy;
use crate::divergence::{Scripts, State};
use crate::policy::{
    Action, Availability as EngineAvailability, BackendId, BackendRole, Decision, DecisionKind, Edge, Engine, Event,
    OperatorCommand, ProbeOutcome, Standing, Switch, SwitchKind, SwitchResult,
};
use crate::route::{Availability, ClientCounts, EdgeReport, Publisher};
use crate::telemetry::events::{Event as Entry, EventKind, History, Severity};
use crate::telemetry::metrics::Metrics;

/// While the primary has not been entered for the first time, it is looked at this often.
const START_PROBE_PAUSE: Duration = Duration::from_millis(50);
/// A backend that is degraded for so many seconds in a row is worth an event; one slow probe is not.
const DEGRADED_SECONDS_MIN: u32 = 3;
/// Authentication of one backend failing or working again is told at most this often.
const AUTHENTICATION_EVERY: Duration = Duration::from_secs(5);
/// A tick that comes this much later than it should makes us suspect ourselves.
const LATE_TICK: Duration = Duration::from_millis(100);

/// Everything that the control of one group starts with.
pub struct GroupControlSetup {
    pub publisher: Publisher,
    pub engine_settings: crate::policy::Settings,
    pub(super) rules: Vec<BackendRules>,
    pub divergence_policy: DivergencePolicy,
    pub mark_prefix: String,
    pub probe_interval: Duration,
    pub probe_timeout: Duration,
    pub write_probe: bool,
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
    pub stop: CancellationToken,
}

/// What the API asks a group's control.
pub(super) enum GroupRequest {
    Status(oneshot::Sender<GroupReport>),
    Failover { to: Option<String>, reason: String, reply: CommandReply },
    Recover { reason: String, reply: CommandReply },
    Own { backend: String, own: bool, reply: CommandReply },
}

pub(super) enum Message {
    Probe(BackendId, Report),
    SwitchDone(Switch, Outcome, Duration),
    Emptied(BackendId, Result<(), String>),
}

pub(super) struct GroupControl {
    pub(super) shared: Rc<Shared>,
    pub(super) engine: Engine,
    collectors: Vec<Collector>,
    pub(super) probe_progress_us: Vec<u64>,
    pub(super) surroundings: Surroundings,
    pub(super) listen: String,
    publisher: MetricsPublisher,
    pub(super) recent: Vec<Recent>,
    waiting: HashMap<u64, (CommandReply, Instant)>,
    actions: Vec<Action>,
    started: bool,
    born: Instant,
    last_health: Vec<crate::policy::Health>,
    last_authentication: Vec<Option<Instant>>,
    /// How long each backend has been degraded.
    degraded_seconds: Vec<u32>,
    pub(super) status_since: (crate::policy::Status, crate::telemetry::wall_time::WallTime),
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
    let mut ticks = tokio::time::interval(tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut due = tokio::time::Instant::now() + tick;
    loop {
        let timeout = control.engine.poll_timeout().map(|at| clock::instant(at.as_micros()));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(report) = edges.recv() => control.on_edge(&report),
            Some(message) = inbox.recv() => control.on_message(message),
            Some(request) = requests.recv() => control.on_request(request),
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
        let mark_key = format!("{}{}:generation", setup.mark_prefix, group.name);
        let owners_key = probe::owners_key(&setup.mark_prefix);
        let probe_key = format!("{}{}:probe", setup.mark_prefix, group.name);
        let mut probers = Vec::new();
        for backend in &group.backends {
            let (sender, receiver) = mpsc::channel(16);
            let settings = ProbeSettings {
                interval: setup.probe_interval,
                timeout: setup.probe_timeout,
                write_probe: setup.write_probe,
                mark_key: mark_key.clone(),
                owners_key: owners_key.clone(),
                probe_key: probe_key.clone(),
                seed: setup.seed ^ u64::from(backend.id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            };
            let (id, messages) = (backend.id, messages.clone());
            let report = move |report| {
                let _ = messages.send(Message::Probe(id, report));
            };
            tokio::task::spawn_local(probe::run(Arc::clone(backend), settings, receiver, report));
            probers.push(sender);
        }
        let settings = setup.rules.iter().map(engine_backend).collect();
        let now = clock::now();
        let timing = &group.backends[0].timing;
        let entry_timeout = timing.connect + timing.handshake;
        let engine = Engine::new(setup.engine_settings, settings, setup.seed, now);
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
            mark_key,
            owners_key,
            client_name: setup.client_name,
            entry_timeout,
            newest_switch: Cell::new(0),
            scripts: setup.scripts,
            history: Arc::clone(&surroundings.history),
            random: Cell::new(setup.seed | 1),
            messages,
        };
        let control = Self {
            shared: Rc::new(shared),
            engine,
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
        };
        (control, setup.edges)
    }

    fn feed(&mut self, event: Event) {
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
                    self.shared.note_identity(backend, &identity);
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
        self.feed(Event::Window { backend: id, window });
    }

    fn on_tick(&mut self, late: Duration) {
        if late > LATE_TICK {
            self.feed(Event::TickStalled { late });
        }
        for index in 0..self.collectors.len() {
            self.collect(BackendId(index as u8));
        }
    }

    fn on_second(&mut self) {
        let view = self.engine.view(clock::now());
        self.watch_health(&view);
        if view.status != self.status_since.0 {
            self.status_since = (view.status, crate::telemetry::wall_time::WallTime::now());
        }
        let group = &self.shared.group;
        for (recent, backend) in self.recent.iter_mut().zip(&group.backends) {
            recent.sample(backend);
        }
        self.publisher.publish(group, &view, &self.shared.facts.borrow(), &self.surroundings.clients);
    }

    fn watch_health(&mut self, view: &crate::policy::View) {
        use crate::policy::Health;
        for backend in &view.backends {
            let index = backend.id.index();
            let is_degraded = matches!(backend.health, Health::Degraded | Health::Critical);
            let seconds = if is_degraded { self.degraded_seconds[index].saturating_add(1) } else { 0 };
            self.degraded_seconds[index] = seconds;
            if is_degraded && seconds < DEGRADED_SECONDS_MIN {
                continue;
            }
            let before = std::mem::replace(&mut self.last_health[index], backend.health);
            let (kind, text) = match (before, backend.health) {
                (Health::Failed, Health::Failed) => continue,
                (_, Health::Failed) => (EventKind::BackendDown, "is down"),
                (Health::Failed, Health::Healthy | Health::Degraded) => (EventKind::BackendUp, "is up again"),
                (Health::Healthy, Health::Degraded | Health::Critical) => (EventKind::BackendDegraded, "is degraded"),
                (Health::Degraded | Health::Critical, Health::Healthy) => (EventKind::BackendUp, "is well again"),
                _ => continue,
            };
            let why = backend.reasons.first().map(|reason| format!(": {}", reason.text)).unwrap_or_default();
            let message = format!("backend {} {text}{why}", backend.name);
            self.shared.record(Entry::new(kind, message).backend(backend.name.clone()));
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Probe(id, report) => self.on_probe(id, report),
            Message::SwitchDone(switch, outcome, took) => self.on_switch_done(&switch, outcome, took),
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

    fn on_probe(&mut self, id: BackendId, report: Report) {
        let index = id.index();
        let restarted = report.identity.as_ref().is_some_and(|identity| self.shared.note_identity(id, identity));
        {
            let facts = &mut self.shared.facts.borrow_mut()[index];
            facts.last_error.clone_from(&report.error);
            if report.identity.is_some() {
                facts.mark_database = report.mark_database;
            }
        }
        if matches!(report.outcome, ProbeOutcome::Ok(_)) {
            let now = clock::micros();
            self.probe_progress_us[index] = now;
            self.shared.facts.borrow_mut()[index].last_ok_us = now;
            if let Some(keyspace) = &report.keyspace {
                self.shared.note_content(id, keyspace, &report.marks);
            }
            self.tend(id, &report.marks);
            self.learn_commands(id);
            self.start_if_ready(id);
        }
        self.update_standing(id);
        if restarted && self.started {
            // Also without a request that would find out: the active is entered anew at once.
            self.feed(Event::Edge { backend: id, edge: Edge::IdentityChanged });
        }
        if self.hopes_for(id, &report.outcome) {
            return;
        }
        self.feed(Event::Probe { backend: id, outcome: report.outcome });
    }

    /// Whether a primary that cannot be reached is given a little more time, because we have only just started: servers
    /// that start together with us are no outage. Until it serves for the first time it is asked more often.
    fn hopes_for(&self, id: BackendId, outcome: &ProbeOutcome) -> bool {
        let (age, grace) = (self.born.elapsed(), self.shared.entry_timeout);
        let is_awaited = !self.started && self.shared.rules(id).role == BackendRole::Primary;
        if !is_awaited || age > grace * 2 || matches!(outcome, ProbeOutcome::Ok(_)) {
            return false;
        }
        let prober = self.shared.probers[id.index()].clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(START_PROBE_PAUSE).await;
            let _ = prober.try_send(ProbeCommand::Now);
        });
        matches!(outcome, ProbeOutcome::Failed(_)) && age < grace
    }

    /// The first good look at the primary opens the doors.
    fn start_if_ready(&mut self, id: BackendId) {
        let primary = self.shared.rules(id).role == BackendRole::Primary;
        let untouched = self.shared.group.route().epoch == 0 && self.shared.newest_switch.get() == 0;
        if self.started || !primary || !untouched {
            return;
        }
        if let Standing::Refused { .. } = self.shared.standing(id) {
            return;
        }
        self.started = true;
        self.shared.group.record(id).settle(State::Clean);
        let identity = self.shared.facts.borrow()[id.index()].identity.clone();
        self.shared.group.backend(id).admit(identity.map(Arc::new));
        let epoch = self.shared.enter(id).epoch;
        let name = self.shared.rules(id).name.clone();
        let message = format!("serving on {} by backend {name}", self.listen);
        self.shared.record(Entry::new(EventKind::Started, message).backend(name).epoch(epoch));
    }

    /// Keeps ownership marks in place, and cold backups empty while they wait.
    fn tend(&mut self, id: BackendId, marks: &Marks) {
        let mark = marks.generation.as_deref();
        let shared = Rc::clone(&self.shared);
        let rules = shared.rules(id).clone();
        let facts = shared.facts.borrow()[id.index()].clone();
        let is_active = shared.group.route().active == id;
        let is_replica = facts.identity.as_ref().is_some_and(|identity| identity.is_replica);
        if !facts.met {
            let is_ours = mark.is_some();
            let may_claim = facts.keys == Some(0) && !rules.persistent && !is_replica;
            let generation = mark.map(str::to_owned).or_else(|| may_claim.then(|| shared.new_generation()));
            if !is_ours && let Some(generation) = &generation {
                shared.put_mark(id, generation.clone());
            }
            let facts = &mut shared.facts.borrow_mut()[id.index()];
            facts.generation = generation;
            facts.met = true;
            if rules.role == BackendRole::Primary && shared.group.route().epoch == 0 {
                // What the primary holds when we first meet it is what the application knows.
                shared.group.record(id).settle(State::Clean);
            } else if facts.keys == Some(0) {
                shared.group.record(id).settle(State::Empty);
            } else {
                shared.group.record(id).become_unknown("it held keys when it was first met");
            }
        } else if let (Some(generation), None) = (&facts.generation, mark) {
            // A client's FLUSHALL takes the mark along; what it leaves is ours as before.
            shared.put_mark(id, generation.clone());
        } else if facts.generation.as_deref() == mark && mark.is_some() && !marks.owners.contains(&shared.group.name) {
            shared.put_mark(id, facts.generation.clone().unwrap_or_default());
        } else if let (Some(ours), Some(theirs)) = (&facts.generation, mark)
            && ours != theirs
            && !facts.emptying
        {
            let message =
                format!("backend {}: another owner has put its mark there; it is never emptied from here", rules.name);
            shared.facts.borrow_mut()[id.index()].generation = None;
            shared.record(Entry::new(EventKind::NotEnterable, message).backend(rules.name.clone()));
        }
        let waits_cold = !is_active && rules.role == BackendRole::Backup && rules.data == crate::config::DataMode::Cold;
        let facts = shared.facts.borrow()[id.index()].clone();
        if waits_cold && facts.is_owned() && facts.keys_in_use > 0 && !facts.emptying && shared.newest_is_done() {
            self.empty(id);
        }
    }

    /// Asks a server that we have not met before for the commands of its modules.
    fn learn_commands(&self, id: BackendId) {
        let facts = &mut self.shared.facts.borrow_mut()[id.index()];
        let run_id = facts.identity.as_ref().map(|identity| identity.run_id.clone());
        if self.shared.rules(id).is_embedded || facts.asked_for_commands == run_id {
            return;
        }
        facts.asked_for_commands = run_id;
        tokio::task::spawn_local(modules::learn(Rc::clone(&self.shared), id));
    }

    fn empty(&self, id: BackendId) {
        let shared = Rc::clone(&self.shared);
        shared.facts.borrow_mut()[id.index()].emptying = true;
        tokio::task::spawn_local(async move {
            let result = shared.empty_if_idle(id).await;
            let _ = shared.messages.send(Message::Emptied(id, result));
        });
    }

    pub(super) fn update_standing(&mut self, id: BackendId) {
        let mut standing = self.shared.standing(id);
        let is_alone = self.shared.probers.len() == 1 && self.started;
        let is_refused = matches!(standing, Standing::Refused { .. });
        if is_alone && is_refused && self.shared.facts.borrow()[id.index()].is_mere_replica() {
            // Where nobody else could serve, REPLICAOF does not take away what the clients know: they see READONLY, as they
            // would without us, and can say REPLICAOF NO ONE.
            standing = Standing::Enterable;
        }
        let before = {
            let facts = &mut self.shared.facts.borrow_mut()[id.index()];
            facts.standing.replace(standing.clone())
        };
        if before.as_ref() == Some(&standing) {
            return;
        }
        let is_active = self.shared.group.route().active == id && self.started;
        let rules = self.shared.rules(id);
        let facts = self.shared.facts.borrow()[id.index()].clone();
        match &standing {
            Standing::Refused { why } if !is_active || before.is_some() => {
                let mend = facts::mend(rules, &facts);
                let message =
                    format!("backend {} cannot be entered as things stand: {why}. To mend it: {mend}", rules.name);
                self.shared.record(Entry::new(EventKind::NotEnterable, message).backend(rules.name.clone()));
            }
            Standing::Enterable if matches!(before, Some(Standing::Refused { .. })) => {
                let message = format!("backend {} can be entered again", rules.name);
                self.shared.record(Entry::new(EventKind::Enterable, message).backend(rules.name.clone()));
            }
            _ => {}
        }
        self.feed(Event::Standing { backend: id, standing });
    }

    // --- actions ---

    fn act(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Switch(switch) => self.begin_switch(switch),
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
            }
        }
    }

    fn begin_switch(&mut self, switch: Switch) {
        self.started = true;
        let shared = Rc::clone(&self.shared);
        shared.newest_switch.set(switch.id.0);
        let began = Instant::now();
        tokio::task::spawn_local(async move {
            let wanted = Wanted {
                id: switch.id.0,
                from: switch.from,
                to: switch.to,
                kind: switch.kind,
                planned: switch.planned,
            };
            let outcome = entry::carry_out(Rc::clone(&shared), wanted).await;
            let _ = shared.messages.send(Message::SwitchDone(switch, outcome, began.elapsed()));
        });
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
        let same = std::mem::discriminant(&availability) == std::mem::discriminant(&route.availability);
        if !same {
            self.shared.set_availability(availability);
        }
    }

    fn on_switch_done(&mut self, switch: &Switch, outcome: Outcome, took: Duration) {
        self.record_switch(switch, &outcome, took);
        if outcome.result == SwitchResult::Done && !switch.planned && switch.from != switch.to {
            // That event says what became of the one that was left; it is not said a second time.
            self.last_health[switch.from.index()] = crate::policy::Health::Failed;
        }
        if let Some((reply, began)) = self.waiting.remove(&switch.id.0) {
            let _ = reply.send(self.command_outcome(switch, &outcome, began.elapsed()));
        }
        if self.shared.newest_switch.get() == switch.id.0 {
            self.shared.newest_switch.set(0);
        }
        self.feed(Event::SwitchDone { id: switch.id, result: outcome.result });
        for index in 0..self.collectors.len() {
            self.update_standing(BackendId(index as u8));
        }
    }

    fn command_outcome(
        &self,
        switch: &Switch,
        outcome: &Outcome,
        took: Duration,
    ) -> Result<CommandOutcome, CommandError> {
        let (from, to) = (&self.shared.rules(switch.from).name, &self.shared.rules(switch.to).name);
        match &outcome.result {
            SwitchResult::Done => Ok(CommandOutcome {
                group: self.shared.group.name.clone(),
                result: "done".into(),
                message: format!("backend {to} serves"),
                from: Some(from.clone()),
                to: Some(to.clone()),
                epoch: outcome.epoch,
                duration_us: took.as_micros() as u64,
            }),
            SwitchResult::Refused { why } | SwitchResult::Failed { why } => Err(CommandError::Refused {
                why: format!("backend {to} was not entered: {why}"),
                hint: facts::mend(self.shared.rules(switch.to), &self.shared.facts.borrow()[switch.to.index()]),
            }),
        }
    }

    fn record_switch(&mut self, switch: &Switch, outcome: &Outcome, took: Duration) {
        let (from, to) = (&self.shared.rules(switch.from).name, &self.shared.rules(switch.to).name);
        let reason = &switch.reason;
        let (kind, result, message) = match &outcome.result {
            SwitchResult::Done => {
                let kind = match switch.kind {
                    SwitchKind::Failover | SwitchKind::Manual => EventKind::Failover,
                    SwitchKind::Recovery => EventKind::Recovery,
                    SwitchKind::Reentry => EventKind::Reentry,
                };
                let content = match (outcome.flushed, outcome.removed) {
                    (true, _) => ", after it was emptied".to_owned(),
                    (false, 0) => String::new(),
                    (false, n) => format!(", after {n} keys that it had missed were removed"),
                };
                let what = match switch.kind {
                    SwitchKind::Reentry => "was entered again".to_owned(),
                    _ => format!("serves now instead of {from}"),
                };
                (kind, "done", format!("backend {to} {what}{content}: {reason}"))
            }
            SwitchResult::Refused { why } => {
                let mend = facts::mend(self.shared.rules(switch.to), &self.shared.facts.borrow()[switch.to.index()]);
                (
                    EventKind::SwitchRefused,
                    "refused",
                    format!("backend {to} was not entered: {why}. To mend it: {mend}"),
                )
            }
            SwitchResult::Failed { why } => {
                (EventKind::SwitchFailed, "failed", format!("the switch from {from} to {to} was given up: {why}"))
            }
        };
        let seconds = took.as_secs_f64();
        self.publisher.switched(switch.trigger.name(), result, seconds);
        let detail = json!({
            "held_us": outcome.held.as_micros() as u64,
            "keys_removed": outcome.removed,
            "flushed": outcome.flushed,
            "planned": switch.planned,
            "reason": reason,
        });
        let mut event = Entry::new(kind, message)
            .backend(to.clone())
            .switch(Some(from), Some(to))
            .trigger(switch.trigger.name())
            .duration(took)
            .result(result)
            .detail(detail);
        if outcome.epoch > 0 {
            event = event.epoch(outcome.epoch);
        }
        self.shared.record(event);
    }

    fn record_decision(&mut self, decision: &Decision) {
        if decision.kind == DecisionKind::Authentication {
            // A server that takes some logins and refuses others would else fill the history by itself.
            let index = decision.backend.index();
            let before = self.last_authentication[index].replace(Instant::now());
            if before.is_some_and(|before| before.elapsed() < AUTHENTICATION_EVERY) {
                return;
            }
        }
        let name = &self.shared.rules(decision.backend).name;
        let detail = serde_json::to_value(decision).unwrap_or_default();
        let (kind, severity) = match decision.kind {
            // The switch itself is recorded when it has ended, with its epoch and duration.
            DecisionKind::SwitchBegan | DecisionKind::SwitchEnded => return,
            DecisionKind::Stayed | DecisionKind::Held | DecisionKind::SelfSuspected => {
                (EventKind::Decision, Severity::Info)
            }
            DecisionKind::NoBackend => (EventKind::NoBackend, Severity::Error),
            DecisionKind::Authentication => (EventKind::AuthenticationFailed, Severity::Error),
            DecisionKind::Rejected => (EventKind::SwitchRefused, Severity::Warning),
        };
        self.shared
            .record(Entry::new(kind, decision.why.clone()).severity(severity).backend(name.clone()).detail(detail));
    }

    // --- operators ---

    fn on_request(&mut self, request: GroupRequest) {
        match request {
            GroupRequest::Status(reply) => {
                let _ = reply.send(self.report());
            }
            GroupRequest::Failover { to, reason, reply } => {
                match to.map(|name| self.backend_named(&name)).transpose() {
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                    Ok(to) => self.command(OperatorCommand::Failover { to, reason }, reply),
                }
            }
            GroupRequest::Recover { reason, reply } => self.command(OperatorCommand::Recover { reason }, reply),
            GroupRequest::Own { backend, own, reply } => match self.backend_named(&backend) {
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
                Ok(id) => self.own(id, own, reply),
            },
        }
    }

    fn backend_named(&self, name: &str) -> Result<BackendId, CommandError> {
        let found = self.shared.rules.iter().find(|rules| rules.name == name);
        found.map(|rules| rules.id).ok_or_else(|| CommandError::UnknownBackend {
            group: self.shared.group.name.clone(),
            name: name.to_owned(),
            known: self.shared.rules.iter().map(|rules| rules.name.clone()).collect(),
        })
    }

    fn command(&mut self, mut command: OperatorCommand, reply: CommandReply) {
        let (OperatorCommand::Failover { reason, .. } | OperatorCommand::Recover { reason }) = &mut command;
        if reason.is_empty() {
            "no reason given".clone_into(reason);
        }
        let words = match &command {
            OperatorCommand::Failover { to, reason } => {
                let to = to.map_or("the best backup".to_owned(), |id| self.shared.rules(id).name.clone());
                format!("an operator asked for a failover to {to}: {reason}")
            }
            OperatorCommand::Recover { reason } => format!("an operator asked for a recovery: {reason}"),
        };
        self.shared.record(Entry::new(EventKind::Operator, words));
        self.engine.handle(clock::now(), Event::Operator(command), &mut self.actions);
        let switch = self.actions.iter().find_map(|action| match action {
            Action::Switch(switch) => Some(switch.id.0),
            _ => None,
        });
        let rejected = self.actions.iter().find_map(|action| match action {
            Action::Record(decision) if decision.kind == DecisionKind::Rejected => Some(decision.why.clone()),
            _ => None,
        });
        match (switch, rejected) {
            (Some(id), _) => {
                self.waiting.insert(id, (reply, Instant::now()));
            }
            (None, Some(why)) => {
                let hint = "`standin status` shows each backend's health and what would mend it".to_owned();
                let _ = reply.send(Err(CommandError::Refused { why, hint }));
            }
            (None, None) => {
                let route = self.shared.group.route();
                let _ = reply.send(Ok(CommandOutcome {
                    group: self.shared.group.name.clone(),
                    result: "nothing_to_do".into(),
                    message: format!("backend {} serves already", self.shared.rules(route.active).name),
                    from: None,
                    to: Some(self.shared.rules(route.active).name.clone()),
                    epoch: route.epoch,
                    duration_us: 0,
                }));
            }
        }
        self.act();
    }

    /// Takes or gives up the right to empty a backend.
    fn own(&mut self, id: BackendId, own: bool, reply: CommandReply) {
        let rules = self.shared.rules(id).clone();
        let began = Instant::now();
        let epoch = self.shared.group.route().epoch;
        let refused = |why: String, hint: String| Err(CommandError::Refused { why, hint });
        let facts = self.shared.facts.borrow()[id.index()].clone();
        let answer = if own && rules.persistent {
            refused(
                format!("backend {} is configured as persistent", rules.name),
                "remove persistent = true first".to_owned(),
            )
        } else if own && facts.identity.is_none() {
            refused(format!("backend {} has not been reached yet", rules.name), "try again when it is up".to_owned())
        } else {
            let generation = own.then(|| facts.generation.clone().unwrap_or_else(|| self.shared.new_generation()));
            match &generation {
                Some(generation) => self.shared.put_mark(id, generation.clone()),
                None => self.shared.drop_mark(id),
            }
            self.shared.facts.borrow_mut()[id.index()].generation = generation;
            let what = if own { "may be emptied from now on" } else { "is never emptied from now on" };
            let message = format!("backend {} {what}, by an operator's word", rules.name);
            self.shared.record(Entry::new(EventKind::Operator, message.clone()).backend(rules.name));
            Ok(CommandOutcome {
                group: self.shared.group.name.clone(),
                result: "done".into(),
                message,
                from: None,
                to: None,
                epoch,
                duration_us: began.elapsed().as_micros() as u64,
            })
        };
        let _ = reply.send(answer);
        let _ = self.shared.probers[id.index()].try_send(ProbeCommand::Now);
        self.update_standing(id);
    }
}

fn engine_backend(rules: &BackendRules) -> crate::policy::BackendSettings {
    let mut settings = crate::policy::BackendSettings::new(rules.id, &rules.name, rules.role);
    settings.weight = rules.weight;
    settings.zone.clone_from(&rules.zone);
    settings.last_resort = rules.is_embedded;
    if rules.data == crate::config::DataMode::Replica {
        settings.data = crate::policy::DataMode::Replica;
    }
    settings
}
