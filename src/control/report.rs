//! The group as `GET /v1/status` shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::{
    BackendReport, DivergenceReport, GroupReport, IdentityReport, LatencyReport, MirrorReport, PlanReport, ProbeReport,
    ProposalReport, ReadFillReport, ReliabilityReport, SamplingReport, SignalsReport,
};
use super::facts;
use super::group::GroupControl;
use super::publish::{breaker_word, state_word};
use crate::backend::{Counters, clock};
use crate::config::{DataMode, SamplingMode};
use crate::policy::{
    BackendId, BackendRole, BackendView, CommandClass, FailureKind, Figures, Health, LatencyBasis, Proposal,
    ReliabilityView, Standing,
};
use crate::route::Availability;

impl GroupControl {
    pub(super) fn report(&self) -> GroupReport {
        let view = self.engine.view(clock::now());
        let route = self.shared.group.route();
        let active_is_embedded = self.shared.rules(route.active).is_embedded;
        let availability = match route.availability {
            Availability::Serving if active_is_embedded => "last_resort",
            Availability::Serving => "serving",
            Availability::Holding => "holding",
            Availability::NoBackend { .. } => "no_backend",
        };
        let serves = !matches!(route.availability, Availability::NoBackend { .. });
        let mut backends: Vec<BackendReport> =
            view.backends.iter().map(|backend| self.backend_report(backend)).collect();
        backends.sort_by_key(|backend| !backend.active);
        let today = self.statistics().day;
        let objectives = self.objectives_report(&view);
        let mut notes = self.notes(&view);
        notes.extend(self.objectives_note(&objectives));
        GroupReport {
            name: self.shared.group.name.clone(),
            listen: self.listen.clone(),
            status: view.status.name().into(),
            since: self.status_since.1,
            active: serves.then(|| self.shared.rules(route.active).name.clone()),
            epoch: route.epoch,
            availability: availability.into(),
            clients: self.surroundings.clients.connected(self.shared.group.index) as u64,
            mode: view.mode.name().into(),
            proposal: view.proposal.as_ref().map(|proposal| self.proposal_report(proposal)),
            switches_today: today.switches_by_trigger.values().sum(),
            incidents_today: today.incidents.values().sum(),
            plan: self.plan_report(),
            last_switch: self.last_switch.clone(),
            objectives,
            notes,
            backends,
        }
    }

    fn proposal_report(&self, proposal: &Proposal) -> ProposalReport {
        ProposalReport {
            id: proposal.id.0,
            from: self.shared.rules(proposal.from).name.clone(),
            to: self.shared.rules(proposal.to).name.clone(),
            trigger: proposal.trigger.name().into(),
            kind: proposal.kind.name().into(),
            why: proposal.why.clone(),
            at: self.account.wall(proposal.at),
            expires_at: self.account.wall(proposal.expires_at),
        }
    }

    /// Sentences for the person who looks: what is waited for.
    fn notes(&self, view: &crate::policy::View) -> Vec<String> {
        let mut notes = Vec::new();
        if view.recovery_held_by_operator {
            notes.push("an operator chose the active backend; `standin recover` lifts that".to_owned());
        }
        if let Some(why) = self.shared.other_writer() {
            notes.push(why);
        }
        if let Some(plan) = self.plan_report() {
            let PlanReport { plan, from, to, phase, paused, percent, stage, stages, samples, wrong, .. } = plan;
            let state = if paused { "paused in" } else { "in" };
            notes.push(format!(
                "plan {plan} from {from} to {to}, {state} step {phase} ({stage} of {stages}; {to} serves {percent} %): {samples} \
                 samples, {wrong} of them wrong; `standin pause`, `resume` and `rollback` act on it"
            ));
        }
        let name = |id: BackendId| &self.shared.rules(id).name;
        if let Some(proposal) = &view.proposal {
            let (id, until) = (proposal.id, self.account.wall(proposal.expires_at));
            let to = name(proposal.to);
            notes.push(format!("proposal {id}: enter {to}: {}; `standin confirm {id}` until {until}", proposal.why));
        }
        if let Some(pin) = &view.pin {
            let until = self.account.wall(pin.until);
            notes.push(format!("pinned to {} until {until}: {}", name(pin.backend), pin.reason));
        }
        for backend in &view.backends {
            if let Some(exclusion) = &backend.excluded {
                notes.push(format!("{} is excluded: {}", backend.name, exclusion.reason));
            }
        }
        if let Some(incident) = &view.incident {
            notes.push(format!(
                "incident {} since {}: {}",
                incident.id,
                self.account.wall(incident.since),
                incident.why
            ));
        }
        if let Some(until) = view.cools_until {
            let left = until.since(clock::now()).as_secs();
            notes.push(format!("switches that can wait do so for {left} s more (failover.cooldown)"));
        }
        if let Some(at) = view.recovery_at {
            let left = at.since(clock::now()).as_secs();
            notes.push(format!("recovery of the primary waits for {left} s more of good health"));
        }
        notes
    }

    fn backend_report(&self, view: &BackendView) -> BackendReport {
        let backend = self.shared.group.backend(view.id);
        let rules = self.shared.rules(view.id);
        let facts = self.shared.facts.borrow()[view.id.index()].clone();
        let record = self.shared.group.record(view.id).summary();
        let route = self.shared.group.route();
        let active = route.active == view.id && !matches!(route.availability, Availability::NoBackend { .. });
        let sum = |pick: fn(&Counters) -> u64| -> u64 { backend.counters.iter().map(pick).sum() };
        let standing = self.shared.standing(view.id);
        let why_not = match (&standing, active) {
            (_, true) | (Standing::Enterable, _) => None,
            (Standing::Refused { why }, _) => Some(why.clone()),
            (Standing::Unknown, _) => Some("it has not been reached yet".to_owned()),
        };
        let mend = matches!(standing, Standing::Refused { .. }).then(|| facts::mend(rules, &facts)).filter(|_| !active);
        let now = clock::micros();
        let figures = &view.figures;
        let of_classes = figures
            .classes
            .iter()
            .filter_map(|class| Some((class_word(class.class).to_owned(), class.baseline?.as_micros() as u64)));
        let of_probes = view.baseline.map(|baseline| ("probe".to_owned(), baseline.as_micros() as u64));
        let baseline_us: BTreeMap<_, _> = of_classes.chain(of_probes).collect();
        BackendReport {
            name: rules.name.clone(),
            role: if rules.role == BackendRole::Primary { "primary" } else { "backup" }.into(),
            address: backend.target.describe(),
            active,
            health: view.health.name().into(),
            score: (view.health != Health::Unknown).then(|| f64::from(view.score)),
            reasons: view.reasons.iter().map(|reason| reason.text.clone()).collect(),
            baseline_us,
            latency: self.latency(view.id),
            probes: ProbeReport {
                ok_in_a_row: u64::from(view.probes_ok_in_row),
                failed_in_a_row: u64::from(view.probes_failed_in_row),
                last_ok_ms_ago: (facts.last_ok_us > 0).then(|| now.saturating_sub(facts.last_ok_us) / 1_000),
                last_error: facts.last_error.clone(),
            },
            breaker: breaker_word(view.breaker).into(),
            in_flight: backend.in_flight(),
            links: sum(|counters| counters.links.get()) as u32,
            pinned_connections: sum(|counters| counters.pinned.get()) as u32,
            divergence: DivergenceReport {
                state: state_word(record.state).into(),
                keys: record.keys as u64,
                bytes: record.bytes as u64,
                owned: facts.is_owned(),
            },
            enterable: active || standing == Standing::Enterable,
            why_not,
            mend,
            identity: facts.identity.as_ref().map(|identity| IdentityReport {
                run_id: identity.run_id.clone(),
                version: identity.version.clone(),
                server_role: if identity.is_replica { "slave" } else { "master" }.to_owned(),
            }),
            data: rules.data.word().into(),
            mirror: self.mirror_report(view.id).filter(|_| !active),
            replication: self.shared.replication_report(view.id),
            sampling: self.sampling_report(view.id),
            weight: rules.weight,
            zone: rules.zone.clone(),
            signals: signals(figures),
            reliability: reliability(&figures.reliability),
        }
    }

    /// How far a backend is kept in step; `None` for those that never are.
    pub(super) fn mirror_report(&self, id: BackendId) -> Option<MirrorReport> {
        let control = self.shared.mirror(id);
        if !self.shared.may_mirror(id) {
            return None;
        }
        let waiting = self.shared.group.mirrors[id.index()].waiting();
        let fill = control.fill.borrow();
        let state = match (control.is_on(), control.is_filled(&self.shared.mirror_settings)) {
            (true, true) => "in_step",
            (true, false) => "filling",
            (false, _) => "off",
        };
        let why = match self.shared.other_writer() {
            Some(why) => why,
            None => control.why.borrow().clone(),
        };
        Some(MirrorReport {
            state: state.into(),
            lag_us: match waiting.since_us {
                0 => 0,
                since_us => clock::micros().saturating_sub(since_us),
            },
            waiting: (waiting.requests + waiting.copying) as u64,
            waiting_bytes: waiting.bytes as u64,
            commands: waiting.taken,
            copied: control.copied.get(),
            removed: control.removed.get(),
            dropped: waiting.dropped,
            filled: fill.keys,
            read_fill: self.read_fill_report(id),
            why: (!why.is_empty() && !control.is_on()).then_some(why),
        })
    }

    fn read_fill_report(&self, id: BackendId) -> Option<ReadFillReport> {
        let (control, mirror) = (self.shared.mirror(id), &self.shared.group.mirrors[id.index()]);
        self.shared.mirror_settings.read_fill.then(|| {
            let is_on = self.shared.group.route().reading & (1 << id.index()) != 0;
            let why = match self.shared.other_writer() {
                _ if is_on => None,
                Some(why) => Some(why),
                None if self.shared.sharing.is_on() => Some("two backends serve".to_owned()),
                None => Some("it is not kept in step".to_owned()),
            };
            ReadFillReport { is_on, asked: mirror.reads.taken(), copied: control.read.get(), why }
        })
    }

    /// What comparing a backend with the active has found; `None` for those that are never compared.
    pub(super) fn sampling_report(&self, id: BackendId) -> Option<SamplingReport> {
        let is_off = self.shared.sampling.mode == SamplingMode::Off;
        let is_compared = self.shared.may_mirror(id) || self.shared.rules(id).data == DataMode::Replica;
        (is_compared && !is_off).then(|| self.shared.figures(id).borrow().report())
    }

    fn latency(&self, id: BackendId) -> Option<LatencyReport> {
        self.recent[id.index()].report()
    }
}

/// The class of the engine by the word that configuration, metrics and documents use.
pub(super) const fn class_word(class: CommandClass) -> &'static str {
    match class {
        CommandClass::Read => "point_read",
        CommandClass::Write => "write",
        CommandClass::MultiKey => "multi_key",
        CommandClass::Slow => "slow",
    }
}

fn signals(figures: &Figures) -> SignalsReport {
    let percent = |share: f64| (share * 1e5).round() / 1e3;
    let micros = |latency: Option<Duration>| latency.map_or(0, |latency| latency.as_micros() as u64);
    let served = figures.classes.iter().filter(|class| class.requests > 0);
    let latency = served.map(|class| {
        let report = LatencyReport { p50_us: micros(class.median), p99_us: micros(class.p99) };
        (class_word(class.class).to_owned(), report)
    });
    let slowdown = figures.slowdown.map(|slow| {
        let (what, latency, baseline) = (class_word(slow.class), slow.latency, slow.baseline);
        format!("{what} requests take {latency:?}, usually {baseline:?} (confidence {:.3})", slow.confidence)
    });
    SignalsReport {
        phi: (figures.phi * 100.0).round() / 100.0,
        phi_suspect: figures.phi_suspect,
        phi_failed: figures.phi_failed,
        requests: figures.requests,
        success_percent: figures.success_rate.map(percent),
        availability_percent: figures.availability.map(percent),
        latency: latency.collect(),
        slowdown,
        expected_read_us: figures.expected_read.map(|expected| expected.latency.as_micros() as u64),
        expected_read_by: figures.expected_read.map(|expected| {
            match expected.basis {
                LatencyBasis::Requests => "requests",
                LatencyBasis::Probes => "probes",
            }
            .into()
        }),
        replication_lag_ms: figures.replication_lag.map(|lag| lag.as_millis() as u64),
        replication_offset: figures.replication_offset,
        memory_used: figures.memory.map(|memory| memory.used_bytes),
        memory_max: figures.memory.map(|memory| memory.max_bytes).filter(|max| *max > 0),
        weighted_score: figures.weighted_score,
    }
}

fn reliability(record: &ReliabilityView) -> ReliabilityReport {
    let percent = |share: f64| (share * 1e5).round() / 1e3;
    let failures = FailureKind::ALL.map(|kind| (kind.name().to_owned(), record.failures[kind.index()]));
    ReliabilityReport {
        success_percent: record.lifetime.success().map(percent),
        success_percent_30_days: record.last_30_days.success().map(percent),
        failures: failures.into_iter().filter(|(_, count)| *count > 0).collect(),
        outages: record.outages,
        watched_seconds: record.watched.as_secs(),
        mean_seconds_between_failures: record.mean_between_failures.map(|mean| mean.as_secs()),
        mean_ms_to_recovery: record.mean_to_recovery.map(|mean| mean.as_millis() as u64),
        last_failure_seconds_ago: record.last_failure.as_ref().map(|last| last.ago.as_secs()),
        last_failure: record.last_failure.as_ref().map(|last| last.why.clone()),
    }
}
