//! The recovery objectives of a group: each outage is measured on the data path, and what one would cost that began now is
//! kept in sight, both against the targets of `[objectives]`.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::api::{IncidentReport, ObjectivesReport, RecoveryReport};
use super::group::{GroupControl, Message};
use super::replication::{Promoted, Promotion, last_reply_us};
use super::shared::Shared;
use super::steps::Outcome;
use crate::backend::{Backend, clock};
use crate::config::DataMode;
use crate::policy::{
    BackendId, BackendView, Conditions, Health, Incident, Loss, Moments, Objectives, Resolution, Standing, Switch,
    SwitchKind, SwitchResult, Time, View,
};
use crate::telemetry::events::{Event as Entry, EventKind, Severity};
use crate::telemetry::wall_time::WallTime;

/// Between two looks whether the first reply has come.
const LOOK: Duration = Duration::from_micros(500);
/// Without a request there is no success to wait for.
const FIRST_SUCCESS_MAX: Duration = Duration::from_secs(30);

/// What the account of objectives is made from.
#[derive(Debug)]
pub(super) struct ObjectivesControl {
    pub(super) targets: Objectives,
    open: Option<Open>,
    pub(super) worst: Worst,
}

/// The worst that was measured, kept across restarts with `[state] directory`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Worst {
    /// It counts from here.
    pub(super) since: WallTime,
    pub(super) rto: Option<Duration>,
    /// The oldest loss; absent too while none was bounded.
    pub(super) rpo: Option<Duration>,
    /// Nothing bounded what one of the outages has cost.
    pub(super) rpo_is_unbounded: bool,
    /// Targets that were missed.
    pub(super) missed: u64,
}

impl Worst {
    fn add(&mut self, rto: Duration, loss: Loss, missed: usize) {
        self.rto = self.rto.max(Some(rto));
        match loss.age() {
            Some(age) => self.rpo = self.rpo.max(Some(age)),
            None => self.rpo_is_unbounded = true,
        }
        self.missed += missed as u64;
    }
}

/// An outage that is not over.
#[derive(Debug)]
struct Open {
    incident: u64,
    fault: Time,
    detected: Time,
    /// The newest attempt.
    decided: Time,
    /// Replies to clients that the next backend had given by then.
    answered: u64,
    /// What it would lose, seen when the attempt began.
    loss: Loss,
}

/// An outage that is over but for the first success.
#[derive(Debug)]
pub(super) struct Ended {
    incident: u64,
    moments: Moments,
    loss: Loss,
    /// A reply has come since.
    is_served: bool,
}

fn answered(backend: &Backend) -> u64 {
    let all = backend.counters.iter().flat_map(|counters| &counters.answered);
    all.map(crate::backend::Counter::get).sum()
}

impl ObjectivesControl {
    pub(super) fn new(targets: Objectives, worst: Worst) -> Self {
        let is_new = worst.since == WallTime::default();
        let since = if is_new { WallTime::now() } else { worst.since };
        Self { targets, open: None, worst: Worst { since, ..worst } }
    }
}

impl GroupControl {
    /// The active has failed, or is in trouble, of which it may die: then the outage counts from here.
    pub(super) fn outage_began(&mut self, incident: &Incident) {
        if self.objectives.open.is_some() {
            return;
        }
        let backend = self.shared.group.backend(incident.backend);
        let last_ok = self.shared.facts.borrow()[incident.backend.index()].last_ok_us;
        // Where nobody asked anything, the last good probe is the last success.
        let last_success = Time::from_micros(last_reply_us(backend).max(last_ok));
        // One in trouble still answers: what clients suffer began with the first evidence.
        let fault = if incident.hard { last_success.min(incident.opened_at) } else { incident.since };
        self.objectives.open = Some(Open {
            incident: incident.id,
            fault,
            detected: incident.opened_at,
            decided: incident.opened_at,
            answered: answered(backend),
            loss: Loss::NOTHING,
        });
    }

    /// An attempt to end it begins.
    pub(super) fn attempt_began(&mut self, switch: &Switch) {
        let loss = self.loss_by(switch.from, switch.to);
        let answered = answered(self.shared.group.backend(switch.to));
        if let Some(open) = &mut self.objectives.open {
            (open.decided, open.answered, open.loss) = (clock::now(), answered, loss);
        }
    }

    /// What would be lost if `to` served now instead of `from`.
    fn loss_by(&self, from: BackendId, to: BackendId) -> Loss {
        let shared = &self.shared;
        let mirror = shared.mirror(to);
        if from == to {
            Loss::NOTHING
        } else if shared.rules(to).data == DataMode::Replica || shared.is_replica(to) {
            let look = shared.facts.borrow()[to.index()].replication.clone();
            Loss::from(look.and_then(|look| shared.lack(&look, from)))
        } else if mirror.is_on() && (mirror.fill.borrow().is_done || !shared.mirror_settings.fill) {
            let waiting = shared.group.mirrors[to.index()].waiting();
            let age = match waiting.since_us {
                0 => Duration::ZERO,
                since_us => Duration::from_micros(clock::micros().saturating_sub(since_us)),
            };
            Loss::AtMost { writes: (waiting.requests + waiting.copying) as u64, age }
        } else {
            Loss::Everything
        }
    }

    /// A switch has ended; the outage with it, if it was one.
    pub(super) fn attempt_ended(&mut self, switch: &Switch, outcome: &Outcome) {
        let is_bridge = self.shared.rules(switch.to).is_embedded;
        if outcome.result != SwitchResult::Done || is_bridge {
            return;
        }
        let Some(open) = self.objectives.open.take() else { return };
        if self.engine.incident().is_some_and(|incident| incident.id == open.incident && !incident.hard) {
            // It was left while it still served.
            return;
        }
        let loss = match (&outcome.promotion, open.loss) {
            (Promotion::Done(Promoted { lack, .. }) | Promotion::ByOthers(lack) | Promotion::Withheld(_, lack), _) => {
                Loss::from(*lack)
            }
            _ if outcome.flushed => Loss::Everything,
            // What waited and could not be confirmed was removed: it is known by now.
            (_, Loss::AtMost { age, .. }) if self.shared.may_mirror(switch.to) && switch.from != switch.to => {
                let writes = outcome.removed as u64;
                Loss::AtMost { writes, age: if writes == 0 { Duration::ZERO } else { age.max(LOOK) } }
            }
            (_, loss) if switch.kind == SwitchKind::Reentry && self.has_lost_all(switch.to) => {
                if loss == Loss::NOTHING { Loss::Everything } else { loss }
            }
            (_, loss) => loss,
        };
        self.await_success(open, switch.to, outcome.published, loss);
    }

    /// It came back empty.
    fn has_lost_all(&self, id: BackendId) -> bool {
        self.shared.facts.borrow()[id.index()].keys == Some(0)
    }

    /// It mended itself, without a switch.
    pub(super) fn outage_ended(&mut self, incident: &Incident) {
        if incident.resolution != Some(Resolution::Waited) {
            return;
        }
        let Some(mut open) = self.objectives.open.take().filter(|_| incident.hard) else { return };
        let now = clock::now();
        open.decided = now;
        let active = self.shared.group.route().active;
        self.await_success(open, active, now, Loss::NOTHING);
    }

    fn await_success(&self, open: Open, active: BackendId, switched: Time, loss: Loss) {
        let Open { incident, fault, detected, decided, answered: before, .. } = open;
        let shared = Rc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            let is_served = first_success(&shared, active, before).await;
            let served = if is_served { clock::now() } else { switched };
            let switched = switched.max(decided).min(served);
            let moments = Moments { fault, detected, decided: decided.min(switched), switched, served };
            let ended = Ended { incident, moments, loss, is_served };
            let _ = shared.messages.send(Message::Served(Box::new(ended)));
        });
    }

    /// The first success after an outage has come.
    pub(super) fn on_served(&mut self, ended: &Ended) {
        let parts = ended.moments.recovery_time();
        let (rto, rpo) = (parts.total(), ended.loss.age());
        let breaches = self.objectives.targets.breaches(rto, ended.loss);
        self.objectives.worst.add(rto, ended.loss, breaches.len());
        self.keeper.hurry();
        let micros = |part: Duration| part.as_micros() as u64;
        let writes = if let Loss::AtMost { writes, .. } = ended.loss { Some(writes) } else { None };
        let report = RecoveryReport {
            rto_us: micros(rto),
            detection_us: micros(parts.detection),
            decision_us: micros(parts.decision),
            switch_us: micros(parts.switch),
            first_success_us: ended.is_served.then(|| micros(parts.first_success)),
            loss: ended.loss.name().into(),
            rpo_us: rpo.map(micros),
            writes_lost_max: writes,
            breaches: breaches.clone(),
        };
        let lost = match ended.loss {
            Loss::AtMost { writes: 0, .. } => "nothing that was acknowledged is lost".to_owned(),
            Loss::AtMost { writes, age } => {
                format!("at most {writes} acknowledged writes of the last {age:?} may be lost")
            }
            Loss::Everything => "what was written before is not on the backend that serves".to_owned(),
            Loss::Unknown => "how much of what was acknowledged is lost is not known".to_owned(),
        };
        let id = ended.incident;
        let text = format!(
            "incident {id}: back after {rto:?} (detection {:?}, decision {:?}, switch {:?}, first success {:?}); {lost}",
            parts.detection, parts.decision, parts.switch, parts.first_success
        );
        let detail = serde_json::to_value(&report).unwrap_or_default();
        self.account.measured(id, report);
        let kind = if breaches.is_empty() { EventKind::ObjectiveMeasured } else { EventKind::ObjectiveMissed };
        let severity = if breaches.is_empty() { Severity::Info } else { Severity::Warning };
        let text = breaches.iter().fold(text, |text, breach| format!("{text}; missed: {breach}"));
        self.shared.record(Entry::new(kind, text).severity(severity).detail(detail));
    }

    /// What an outage that began now would cost, beside the targets and the worst that has been.
    pub(super) fn objectives_report(&self, view: &View) -> ObjectivesReport {
        let active = &view.backends[view.active.index()];
        let next = next_of(view);
        let loss = next.map_or(Loss::Everything, |next| self.loss_by(view.active, next.id));
        let conditions = self.conditions(active, next);
        let micros = |time: Duration| time.as_micros() as u64;
        let objectives = &self.objectives;
        ObjectivesReport {
            rto_target_us: objectives.targets.rto.map(micros),
            rpo_target_us: objectives.targets.rpo.map(micros),
            next: next.map(|next| next.name.clone()),
            rto_present_us: next.map(|_| micros(conditions.recovery_time())),
            loss_present: loss.name().into(),
            rpo_present_us: loss.age().map(micros),
            rto_worst_us: objectives.worst.rto.map(micros),
            rpo_worst_us: objectives.worst.rpo.filter(|_| !objectives.worst.rpo_is_unbounded).map(micros),
            rpo_worst_is_unbounded: objectives.worst.rpo_is_unbounded,
            missed: objectives.worst.missed,
            worst_since: objectives.worst.since,
        }
    }

    fn conditions(&self, active: &BackendView, next: Option<&BackendView>) -> Conditions {
        let settings = self.engine.settings();
        Conditions {
            busy: active.figures.requests > 0,
            silence: settings.timeout.floor,
            probe_interval: self.probe_pace.0,
            probe_timeout: self.probe_pace.1,
            tick: settings.timeout.tick,
            switch: self.engine.switch_takes(),
            record_keys: next.map_or(0, |next| self.shared.group.record(next.id).summary().keys as u64),
            round_trip: next.and_then(|next| next.probe_latency).unwrap_or_default(),
        }
    }

    /// For people, once there is a target or an outage has been measured.
    pub(super) fn objectives_note(&self, report: &ObjectivesReport) -> Option<String> {
        if !self.objectives.targets.is_set() && report.rto_worst_us.is_none() {
            return None;
        }
        let time = |micros: Option<u64>, none: &str| {
            micros.map_or_else(|| none.to_owned(), |micros| format!("{:?}", Duration::from_micros(micros)))
        };
        let unbounded = if report.rpo_worst_is_unbounded { "all" } else { "none yet" };
        Some(format!(
            "recovery time: {} if the active failed now, {} at worst, target {}; writes lost: {}, {} at worst, target {}",
            time(report.rto_present_us, "nobody to go to"),
            time(report.rto_worst_us, "none yet"),
            time(report.rto_target_us, "none"),
            time(report.rpo_present_us, "all"),
            time(report.rpo_worst_us, unbounded),
            time(report.rpo_target_us, "none"),
        ))
    }
}

impl super::account::Account {
    /// Adds what was measured to the incident that it belongs to.
    fn measured(&mut self, incident: u64, report: RecoveryReport) {
        let found = self.incidents_mut().rev().find(|known: &&mut IncidentReport| known.id == incident);
        if let Some(known) = found {
            known.recovery = Some(report);
        }
    }
}

/// Who would be gone to, as far as the view tells: the engine's own choice also weighs zones and late failures.
fn next_of(view: &View) -> Option<&BackendView> {
    let can = |backend: &&BackendView| {
        let fits = !backend.failed && backend.excluded.is_none() && backend.standing == Standing::Enterable;
        fits && backend.id != view.active && backend.health != Health::Unknown
    };
    let named = view.next.and_then(|next| view.backends.get(next.index()));
    named.filter(can)
}

/// Waits until a backend has answered a client.
async fn first_success(shared: &Rc<Shared>, id: BackendId, before: u64) -> bool {
    let began = clock::micros();
    let backend = shared.group.backend(id);
    while answered(backend) <= before {
        if clock::micros() - began > FIRST_SUCCESS_MAX.as_micros() as u64 {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}
