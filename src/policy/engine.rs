//! The engine: takes events, keeps what is known of each backend, and decides after each of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Availability, Candidate, Check, Decision, DecisionKind, Switch, SwitchKind, Trigger};
use super::backend::Backend;
use super::event::{BackendId, Edge, Event, Standing};
use super::evidence::Blind;
use super::guards::Guards;
use super::incident::Incident;
use super::operator::Operators;
use super::plan::Plan;
use super::proposals::Proposals;
use super::recovery::Recovery;
use super::score;
use super::selection::{self, Weighing};
use super::settings::{BackendRole, BackendSettings, Settings};
use super::staged::Staged;
use super::switching::{Delays, PROBE_ALL_EVERY};
use super::time::{Roughly, Time};
use super::view::{BackendView, Status, View};

/// A stalled tick shorter than this is set aside silently.
const STALL_RECORDED_MIN: Duration = Duration::from_millis(100);
/// One that is not much longer than the last is recorded no sooner than this.
const STALL_REPEATED_MIN: Duration = Duration::from_secs(60);
/// The same reason to stay is recorded again no sooner than this, though another came in between.
const STAY_REPEATED_MIN: Duration = Duration::from_secs(60);
/// Reasons to stay that are remembered for that.
const STAYS_MAX: usize = 8;
/// The engine never asks to be called again sooner than this, so that no condition can spin its caller.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The decisions of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) backends: Vec<Backend>,
    pub(super) primary: BackendId,
    pub(super) active: BackendId,
    pub(super) epoch: u64,
    pub(super) availability: Availability,
    pub(super) pending: Option<Pending>,
    /// Superseded but perhaps carried out all the same.
    pub(super) abandoned: Option<Pending>,
    pub(super) last_id: u64,
    /// Switches tried since the active was last good.
    pub(super) attempts: u32,
    /// Took over last time: preferred among near equals.
    pub(super) sticky: Option<BackendId>,
    /// The backend other than the last resort that served last.
    pub(super) last_real: BackendId,
    /// What ended service, while nobody serves.
    pub(super) outage: Option<Trigger>,
    pub(super) operators: Operators,
    pub(super) recovery: Recovery,
    pub(super) guards: Guards,
    pub(super) proposals: Proposals,
    #[serde(default)]
    pub(super) staged: Option<Staged>,
    pub(super) delays: Delays,
    pub(super) incident: Option<Incident>,
    pub(super) last_incident: u64,
    /// What the reason to stay that holds is about, so that it is recorded once.
    stayed: Option<String>,
    /// Reasons that were recorded lately, the newest last.
    stays: Vec<(Time, String)>,
    /// While nobody serves: when everybody was asked last.
    pub(super) probed_all_at: Option<Time>,
    blind: Blind,
    /// The stall of our own that was recorded last: when, and how long it was.
    stall_noted: Option<(Time, Duration)>,
    timeout: Option<Time>,
}

/// A switch that is about to begin.
pub(super) struct Wanted {
    pub(super) to: BackendId,
    pub(super) trigger: Trigger,
    pub(super) kind: SwitchKind,
    pub(super) planned: bool,
    pub(super) plan: Plan,
    pub(super) purpose: Purpose,
    pub(super) confidence: Option<f64>,
    pub(super) checks: Vec<Check>,
    pub(super) why: String,
}

/// What follows from a switch once it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    Automatic,
    /// Automatic, away from a living backend that serves badly: the kind of switch that guards count.
    Improve,
    /// By an operator, who then holds the active there.
    Failover,
    Recover,
    Pin,
    Drain,
}

/// A decision that changes nothing.
pub(super) struct Stay {
    pub(super) backend: BackendId,
    /// What stays the same while figures in `why` change: it is recorded once for each.
    pub(super) topic: String,
    pub(super) why: String,
    pub(super) checks: Vec<Check>,
    pub(super) confidence: Option<f64>,
}

/// A switch that is being carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) switch: Switch,
    pub(super) began: Time,
    pub(super) deadline: Time,
    pub(super) purpose: Purpose,
    /// Its beginning was recorded, so its end is.
    pub(super) recorded: bool,
}

impl Engine {
    /// Starts on the primary, serving. `seed` spreads the recoveries of many sidecars.
    ///
    /// # Panics
    /// When `backends` is empty, an id is not its place in the list, or there is not exactly one primary: the
    /// configuration room refuses such groups.
    pub fn new(settings: Settings, backends: Vec<BackendSettings>, seed: u64, now: Time) -> Self {
        assert!(backends.len() <= selection::CANDIDATES_MAX, "more backends than a group may have");
        assert!(backends.iter().enumerate().all(|(place, backend)| backend.id.index() == place), "ids are places");
        let mut primaries = backends.iter().filter(|backend| backend.role == BackendRole::Primary);
        let primary = primaries.next().expect("a group has a primary").id;
        assert!(primaries.next().is_none(), "a group has one primary");
        let count = backends.len();
        let backends: Vec<_> =
            backends.into_iter().map(|backend| Backend::new(backend, &settings, seed, now)).collect();
        Self {
            recovery: Recovery::new(seed),
            settings,
            backends,
            primary,
            active: primary,
            epoch: 1,
            availability: Availability::Serving,
            pending: None,
            abandoned: None,
            last_id: 0,
            attempts: 0,
            sticky: None,
            last_real: primary,
            outage: None,
            operators: Operators::new(count),
            guards: Guards::default(),
            proposals: Proposals::default(),
            staged: None,
            delays: Delays::default(),
            incident: None,
            last_incident: 0,
            stayed: None,
            stays: Vec::new(),
            probed_all_at: None,
            blind: Blind::default(),
            stall_noted: None,
            timeout: None,
        }
    }

    /// The same engine in the same situation, under other rules: for asking what another configuration would have done.
    /// Backends keep what is known of them; those that are not in the list keep their settings too.
    #[must_use]
    pub fn reconfigured(mut self, settings: Settings, backends: &[BackendSettings]) -> Self {
        for backend in &mut self.backends {
            backend.breaker.configure(settings.breaker.clone());
            if let Some(other) = backends.iter().find(|other| other.name == backend.settings.name) {
                // Its place and its role are facts of the recording.
                let (id, role) = (backend.settings.id, backend.settings.role);
                backend.settings = BackendSettings { id, role, ..other.clone() };
            }
        }
        self.settings = settings;
        self
    }

    /// Takes one event and appends what is to be done, in order.
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Edge { backend, edge } => self.on_edge(now, backend, edge, actions),
            Event::Window { backend, window } => {
                let (settings, blind) = (&self.settings, self.blind);
                if let Some(backend) = self.backends.get_mut(backend.index()) {
                    backend.on_window(now, &window, settings, blind, actions);
                    backend.update_health(now, settings);
                }
            }
            Event::Probe { backend: id, outcome } => {
                let (settings, blind) = (&self.settings, self.blind);
                if let Some(backend) = self.backends.get_mut(id.index()) {
                    let refused = backend.authentication_failed;
                    backend.on_probe(now, &outcome, settings, blind);
                    backend.update_health(now, settings);
                    self.record_authentication(now, id, refused, actions);
                }
            }
            Event::Standing { backend, standing } => {
                if let Some(backend) = self.backends.get_mut(backend.index()) {
                    if standing == Standing::Enterable {
                        backend.entry = Default::default();
                    }
                    backend.standing = standing;
                }
            }
            Event::Joined { backend } => self.on_joined(now, backend, actions),
            Event::Operator(command) => self.on_operator(now, command, actions),
            Event::Rollout(news) => self.on_rollout(now, news, actions),
            Event::SwitchDone { id, result } => self.on_switch_done(now, id, result, actions),
            Event::TickStalled { late } => self.on_tick_stalled(now, late, actions),
        }
        self.decide(now, actions);
    }

    /// To be called when `poll_timeout` is due; harmless before.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut Vec<Action>) {
        let grace = self.settings.timeout.tick;
        for backend in &mut self.backends {
            backend.judge_silence(now, grace, &self.settings, self.blind);
        }
        self.decide(now, actions);
    }

    /// When the engine wants to be called next, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timeout
    }

    /// The backend that serves, or served last when nobody does.
    pub fn active(&self) -> BackendId {
        self.active
    }

    /// As configured; the place itself for a backend that the group does not have.
    pub fn backend_name(&self, id: BackendId) -> String {
        let backend = self.backends.get(id.index());
        backend.map_or_else(|| id.to_string(), |backend| backend.settings.name.clone())
    }

    pub fn availability(&self) -> Availability {
        self.availability
    }

    /// Grows by one with every completed switch; 1 at the start.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Everything there is to see; allocates, so not for every event.
    pub fn view(&self, now: Time) -> View {
        View {
            at: now,
            status: self.status(now),
            active: self.active,
            availability: self.availability,
            epoch: self.epoch,
            switching: self.pending.as_ref().map(|pending| pending.switch.clone()),
            mode: self.settings.failover.mode,
            proposal: self.proposals.current.clone(),
            pin: self.operators.pinned(now).cloned(),
            cools_until: self.guards.cools_until(&self.settings.failover).filter(|until| now < *until),
            incident: self.incident.clone(),
            recovery_held_by_operator: self.operators.held,
            recovery_at: self.recovery_waits_until(now),
            next: self.next(now),
            relapses: self.recovery.relapses(now, &self.settings.recovery),
            backends: self.backends.iter().map(|backend| self.backend_view(backend, now)).collect(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long a switch away from a dead active takes, by those before it.
    pub fn switch_takes(&self) -> Duration {
        self.delays.estimate(false)
    }

    pub(super) fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.index()]
    }

    pub(super) fn backend_mut(&mut self, id: BackendId) -> &mut Backend {
        &mut self.backends[id.index()]
    }

    pub(super) fn publish(&mut self, availability: Availability, actions: &mut Vec<Action>) {
        if self.availability != availability {
            self.availability = availability;
            actions.push(Action::Publish { availability });
        }
    }

    /// Records a decision that began or ended no switch.
    pub(super) fn note(&self, decision: Decision, actions: &mut Vec<Action>) {
        let evidence_for = self.backend(decision.backend).evidence_for(decision.at);
        actions.push(Action::Record(Decision { evidence_for, ..decision }));
    }

    /// Records a reason to stay: once until it changes, and one that comes and goes once a minute.
    pub(super) fn note_stay(&mut self, now: Time, stay: Stay, actions: &mut Vec<Action>) {
        let Stay { backend, topic, why, checks, confidence } = stay;
        if self.stayed.as_ref() == Some(&topic) {
            return;
        }
        self.stayed = Some(topic.clone());
        self.stays.retain(|(at, _)| now - *at < STAY_REPEATED_MIN);
        if self.stays.iter().any(|(_, said)| *said == topic) {
            return;
        }
        if self.stays.len() == STAYS_MAX {
            self.stays.remove(0);
        }
        self.stays.push((now, topic));
        let candidates = selection::explain(&self.backends, &self.settings, self.weighing(now, true), None);
        let decision = Decision::about(now, DecisionKind::Stayed, backend, why);
        self.note(Decision { candidates, checks, confidence, ..decision }, actions);
    }

    /// Nothing asks for anything any more.
    pub(super) fn forget_stay(&mut self) {
        self.stayed = None;
    }

    pub(super) fn name(&self, id: BackendId) -> &str {
        &self.backend(id).settings.name
    }

    /// The candidates of a decision for `to`.
    pub(super) fn explain(&self, now: Time, to: BackendId) -> Vec<Candidate> {
        let leaving = Some(self.active).filter(|active| *active != to);
        let weighing = Weighing { leaving, ..self.weighing(now, false) };
        selection::explain(&self.backends, &self.settings, weighing, Some(to))
    }

    fn on_edge(&mut self, now: Time, id: BackendId, edge: Edge, actions: &mut Vec<Action>) {
        let active = self.active;
        let (settings, blind) = (&self.settings, self.blind);
        let Some(backend) = self.backends.get_mut(id.index()) else { return };
        let calm = backend.evidence.first_at.is_none() && backend.stalled_since.is_none();
        let refused = backend.authentication_failed;
        let was_master = !backend.wrong_role.any(now);
        backend.on_edge(now, edge, settings, blind);
        backend.update_health(now, settings);
        let troubled = backend.evidence.first_at.is_some() || backend.stalled_since.is_some();
        if id != active {
            // Only the active must be entered anew; any other is entered whole when its turn comes.
            backend.needs_entry = false;
        } else if (calm && troubled) || (was_master && backend.wrong_role.any(now)) {
            // What a lost link or a refused write means is told by a probe (its ROLE) sooner than by the next interval.
            actions.push(Action::ProbeNow { backend: id });
        }
        self.record_authentication(now, id, refused, actions);
    }

    fn on_tick_stalled(&mut self, now: Time, late: Duration, actions: &mut Vec<Action>) {
        let from = now - late;
        // Spans that follow each other closely are one.
        let from = if from <= self.blind.until { self.blind.from.min(from) } else { from };
        self.blind = Blind { from, until: now };
        self.backends.iter_mut().for_each(|backend| backend.blind = self.blind);
        self.guards.ran_late(now, late);
        // A throttled process is late all the time; the history has better uses than saying so each time.
        let is_news = |(at, worst): (Time, Duration)| now - at >= STALL_REPEATED_MIN || late >= worst.saturating_mul(2);
        let news = self.stall_noted.is_none_or(is_news);
        if late >= STALL_RECORDED_MIN && news {
            self.stall_noted = Some((now, late));
            let why = format!("this process ran {} late: silence in that time is its own", Roughly(late));
            self.note(Decision::about(now, DecisionKind::SelfSuspected, self.active, why), actions);
        }
    }

    fn record_authentication(&self, now: Time, id: BackendId, refused: bool, actions: &mut Vec<Action>) {
        let backend = self.backend(id);
        if backend.authentication_failed == refused {
            return;
        }
        let why = if refused {
            format!("{} accepts our authentication again", backend.settings.name)
        } else {
            format!("{} refuses our authentication: check its username and password", backend.settings.name)
        };
        self.note(Decision::about(now, DecisionKind::Authentication, id, why), actions);
    }

    /// The next moment at which something happens without news.
    pub(super) fn schedule(&mut self, now: Time) {
        let mut next: Option<Time> = None;
        let mut at = |time: Option<Time>| {
            if let Some(time) = time {
                next = Some(next.map_or(time, |next| next.min(time)));
            }
        };
        for backend in &self.backends {
            let silence = backend.silence_due(&self.settings, self.blind);
            at(silence.map(|due| due + self.settings.timeout.tick));
        }
        at(self.backend(self.active).look_due(&self.settings));
        if let Some(pending) = &self.pending {
            at(Some(pending.deadline));
        } else {
            if let Availability::Holding { until } = self.availability {
                at(Some(until));
            }
            if self.availability == Availability::NoBackend {
                at(self.probed_all_at.map(|last| last + PROBE_ALL_EVERY));
            }
            let failover = &self.settings.failover;
            at(self.guards.cools_until(failover).filter(|until| *until > now));
            at(self.guards.suspect_until(now));
            at(self.operators.pin_ends().filter(|until| *until > now));
            at(self.proposals.current.as_ref().map(|proposal| proposal.expires_at));
            // Only blocks and delays that have not passed: what they waited for was tried just now.
            for backend in &self.backends {
                at(backend.entry.until.filter(|until| *until > now));
            }
            at(self.recovery_waits_until(now).filter(|due| *due > now));
        }
        self.timeout = next.map(|next| next.max(now + TIMEOUT_MIN));
    }

    pub fn status(&self, now: Time) -> Status {
        let pending = self.pending.as_ref().map(|pending| &pending.switch);
        let staged = self.staged.as_ref().filter(|_| pending.is_none() && self.active != self.primary);
        let is_staged = staged.is_some_and(|staged| staged.to == self.primary);
        if is_staged || pending.is_some_and(|switch| switch.to == self.primary && switch.planned) {
            return Status::Recovering;
        }
        if pending.is_some() || self.availability != Availability::Serving {
            return Status::FailingOver;
        }
        if self.active != self.primary {
            return Status::FailedOver;
        }
        if self.recovery.in_grace(now, &self.settings.recovery) { Status::Recovered } else { Status::Active }
    }

    fn backend_view(&self, backend: &Backend, now: Time) -> BackendView {
        BackendView {
            id: backend.settings.id,
            name: backend.settings.name.clone(),
            role: backend.settings.role,
            health: backend.health,
            score: score::score(backend, &self.settings, now),
            reasons: score::reasons(backend, &self.settings, now),
            baseline: backend.baseline.well(),
            probe_latency: backend.baseline.recent(),
            probes_ok_in_row: backend.probes_ok_in_row,
            probes_failed_in_row: backend.probes_failed_in_row,
            breaker: backend.breaker.state(now),
            standing: backend.standing.clone(),
            in_flight: backend.in_flight,
            failed: backend.failure.is_some(),
            last_progress: backend.last_progress,
            excluded: self.operators.excluded[backend.settings.id.index()].clone(),
            last_failure: backend.last_failure.clone(),
            figures: backend.figures(now, &self.settings),
        }
    }
}
