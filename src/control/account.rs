//! The group's account of itself: incidents, statistics over a day and a month, recordings of decisions.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::api::{IncidentReport, RecordingReport, StatisticsReport};
use super::flights::Flights;
use super::group::GroupControl;
use crate::backend::clock;
use crate::policy::{Action, BreakerState, HOURS_OF_A_DAY, HOURS_OF_A_MONTH, Incident, Periods, Resolution, Time};
use crate::telemetry::events::{Event as Entry, EventKind};
use crate::telemetry::wall_time::WallTime;

/// Incidents shown in the statistics; the counts go further back.
const INCIDENTS_KEPT_MAX: usize = 64;
/// The counts are written at most this often.
const WRITTEN_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Account {
    periods: Periods,
    /// The newest last; an open one is replaced when it ends.
    incidents: VecDeque<IncidentReport>,
    pub(super) flights: Flights,
    /// Where the counts are kept over restarts.
    file: Option<PathBuf>,
    written_at: Instant,
    changed: bool,
    /// Milliseconds since 1970 at the engine's time zero.
    pub(super) epoch_ms: u64,
}

impl Account {
    pub(super) fn new(state: Option<PathBuf>, group: &str) -> Self {
        let epoch_ms = WallTime::now().as_ms().saturating_sub(clock::micros() / 1_000);
        let flights = Flights::new(state.as_deref(), group);
        let file = state.map(|state| state.join(format!("statistics-{group}.json")));
        let read = file.as_ref().and_then(|file| std::fs::read(file).ok());
        // A file that cannot be read any more costs its counts, not the start.
        let periods = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let written_at = Instant::now();
        Self { periods, incidents: VecDeque::new(), flights, file, written_at, changed: false, epoch_ms }
    }

    pub(super) fn incidents_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut IncidentReport> {
        self.incidents.iter_mut()
    }

    pub(super) fn note(&mut self, action: &Action) {
        if matches!(action, Action::Record(_) | Action::Incident(_)) {
            self.periods.note(WallTime::now().as_ms(), action);
            self.changed = true;
        }
    }

    pub(super) fn wall(&self, at: Time) -> WallTime {
        WallTime::from_ms(self.epoch_ms + at.as_micros() / 1_000)
    }

    fn write_if_due(&mut self) {
        let Some(file) = self.file.clone().filter(|_| self.changed && self.written_at.elapsed() >= WRITTEN_EVERY)
        else {
            return;
        };
        (self.changed, self.written_at) = (false, Instant::now());
        let periods = self.periods.clone();
        tokio::task::spawn_blocking(move || {
            let write = || -> std::io::Result<()> {
                if let Some(directory) = file.parent() {
                    std::fs::create_dir_all(directory)?;
                }
                let partial = file.with_extension("partial");
                std::fs::write(&partial, serde_json::to_vec(&periods)?)?;
                std::fs::rename(partial, &file)
            };
            if let Err(error) = write() {
                tracing::info!(%error, file = %file.display(), "the statistics could not be written");
            }
        });
    }
}

impl GroupControl {
    /// Once a second: what is due to be kept or written.
    pub(super) fn tend_account(&mut self) {
        if let Some(from) = self.account.flights.due() {
            let recording = self.engine.recording(&self.shared.group.name, self.account.epoch_ms, Some(from));
            self.account.flights.keep(recording);
        }
        self.account.write_if_due();
    }

    pub(super) fn record_incident(&mut self, incident: &Incident) {
        if incident.resolved {
            self.outage_ended(incident);
        } else {
            self.outage_began(incident);
        }
        let name = self.shared.rules(incident.backend).name.clone();
        let report = IncidentReport {
            id: incident.id,
            backend: name.clone(),
            trigger: incident.trigger.name().into(),
            hard: incident.hard,
            confidence: incident.confidence,
            why: incident.why.clone(),
            since: self.account.wall(incident.since),
            opened_at: self.account.wall(incident.opened_at),
            resolved: incident.resolved,
            resolved_at: incident.resolved_at.map(|at| self.account.wall(at)),
            resolution: incident.resolution.map(|resolution| Resolution::name(resolution).into()),
            served_by: incident.served_by.map(|id| self.shared.rules(id).name.clone()),
            attempts: incident.attempts,
            recovery: None,
        };
        let incidents = &mut self.account.incidents;
        incidents.retain(|other| other.id != report.id);
        if incidents.len() == INCIDENTS_KEPT_MAX {
            incidents.pop_front();
        }
        let message = match (incident.resolution, incident.resolved_at) {
            (Some(resolution), Some(at)) => format!(
                "incident {} is resolved after {:?}, by {}: {}",
                incident.id,
                at - incident.since,
                resolution.name(),
                incident.why
            ),
            _ => format!("incident {} began: {}", incident.id, incident.why),
        };
        let result = if incident.resolved { "resolved" } else { "open" };
        let detail = serde_json::to_value(&report).unwrap_or_default();
        incidents.push_back(report);
        let event = Entry::new(EventKind::Incident, message).backend(name).trigger(incident.trigger.name());
        self.shared.record(event.result(result).detail(detail));
    }

    pub(super) fn statistics(&self) -> StatisticsReport {
        let now = WallTime::now();
        let view = self.engine.view(clock::now());
        let open = view.backends.iter().filter(|backend| backend.breaker != BreakerState::Closed);
        StatisticsReport {
            group: self.shared.group.name.clone(),
            at: now,
            day: self.account.periods.period(now.as_ms(), HOURS_OF_A_DAY),
            month: self.account.periods.period(now.as_ms(), HOURS_OF_A_MONTH),
            open_breakers: open.map(|backend| backend.name.clone()).collect(),
            incidents: self.account.incidents.iter().cloned().collect(),
        }
    }

    /// The recording in which an event is; without an event, or while it is still awaited, all that is remembered.
    pub(super) fn recording(&self, event: Option<u64>) -> RecordingReport {
        let kept = event.and_then(|event| self.account.flights.of_event(event));
        let live = || self.engine.recording(&self.shared.group.name, self.account.epoch_ms, None).map(Arc::new);
        kept.or_else(live)
    }
}
