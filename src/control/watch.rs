//! What the group's history and metrics are told of health and decisions.

use std::time::{Duration, Instant};

use super::group::GroupControl;
use super::publish::Reports;
use crate::backend::clock;
use crate::policy::{Decision, DecisionKind};
use crate::telemetry::events::{Event as Entry, EventKind, Severity};
use crate::telemetry::wall_time::WallTime;

/// A backend that is degraded for so many seconds in a row is worth an event; one slow probe is not.
const DEGRADED_SECONDS_MIN: u32 = 3;
/// Switches of which the beginning is remembered until they end.
const BEGAN_MAX: usize = 8;
/// Authentication of one backend failing or working again is told at most this often.
const AUTHENTICATION_EVERY: Duration = Duration::from_secs(5);

impl GroupControl {
    pub(super) fn on_second(&mut self) {
        self.keeper.on_second(&self.engine, &self.objectives.worst);
        let view = self.engine.view(clock::now());
        self.watch_health(&view);
        self.tend_account();
        self.note_status();
        let group = &self.shared.group;
        for (recent, backend) in self.recent.iter_mut().zip(&group.backends) {
            recent.sample(backend);
        }
        let ids = || group.backends.iter().map(|backend| backend.id);
        let reports = Reports {
            mirrors: ids().map(|id| self.mirror_report(id)).collect(),
            replications: ids().map(|id| self.shared.replication_report(id)).collect(),
            objectives: self.objectives_report(&view),
            percent: self.plan_report().map_or(0, |plan| plan.percent),
            samples: ids().map(|id| self.sampling_report(id)).collect(),
        };
        let (facts, clients) = (self.shared.facts.borrow(), &self.surroundings.clients);
        self.publisher.publish(group, &view, &facts, &reports, clients);
    }

    /// Keeps the moment from which the present status holds.
    pub(super) fn note_status(&mut self) {
        let status = self.engine.status(clock::now());
        if status != self.status_since.0 {
            self.status_since = (status, WallTime::now());
        }
    }

    pub(super) fn watch_health(&mut self, view: &crate::policy::View) {
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

    pub(super) fn record_decision(&mut self, decision: &Decision) {
        if decision.kind == DecisionKind::Authentication {
            // A server that takes some logins and refuses others would else fill the history by itself.
            let index = decision.backend.index();
            let before = self.last_authentication[index].replace(Instant::now());
            if before.is_some_and(|before| before.elapsed() < AUTHENTICATION_EVERY) {
                return;
            }
        }
        if decision.kind == DecisionKind::SwitchBegan {
            // Told with the switch's end; a handful at most are under way.
            if self.began.len() >= BEGAN_MAX {
                self.began.remove(0);
            }
            self.began.push(decision.clone());
            return;
        }
        let name = &self.shared.rules(decision.backend).name;
        let detail = serde_json::to_value(decision).unwrap_or_default();
        let (kind, severity) = match decision.kind {
            // The switch itself is recorded when it has ended, with its epoch and duration.
            DecisionKind::SwitchBegan | DecisionKind::SwitchEnded => return,
            DecisionKind::Stayed | DecisionKind::Held | DecisionKind::SelfSuspected => {
                (EventKind::Decision, Severity::Info)
            }
            DecisionKind::RolloutBegan => (EventKind::Plan, Severity::Info),
            DecisionKind::Proposed => (EventKind::Proposed, Severity::Warning),
            DecisionKind::ProposalEnded => (EventKind::ProposalEnded, Severity::Info),
            DecisionKind::Commanded => (EventKind::Operator, Severity::Info),
            DecisionKind::NoBackend => (EventKind::NoBackend, Severity::Error),
            DecisionKind::Authentication => (EventKind::AuthenticationFailed, Severity::Error),
            DecisionKind::Rejected => (EventKind::SwitchRefused, Severity::Warning),
        };
        let mut event = Entry::new(kind, decision.why.clone()).severity(severity).backend(name.clone()).detail(detail);
        if let Some(trigger) = decision.trigger {
            event = event.trigger(trigger.name());
        }
        if decision.kind == DecisionKind::RolloutBegan {
            let from = &self.shared.rules(self.engine.active()).name;
            event = event.switch(Some(from), Some(name)).result("begun");
        }
        let id = self.shared.record(event);
        let is_told_anyway = matches!(decision.kind, DecisionKind::Authentication | DecisionKind::Commanded);
        if !is_told_anyway {
            self.account.flights.decided(id, decision.at);
        }
    }
}
