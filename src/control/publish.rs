//! Once a second: from counters and views to metrics.

use super::api::{MirrorReport, ObjectivesReport, ReplicationReport, SamplingReport};
use super::facts::Facts;
use super::report::class_word;
use super::window::Sampler;
use crate::backend::{Backend, CLASSES, Counters};
use crate::divergence::State;
use crate::policy::{BackendView, BreakerState, FailureKind, Standing, View};
use crate::route::{ClientCounts, Group};
use crate::telemetry::metrics::{
    BackendMetrics, GroupMetrics, Metrics, MirrorMetrics, ObjectiveMetrics, ReplicationMetrics, SamplingMetrics,
    breaker_value, divergence_value, health_value,
};

/// What the status says too, by backend.
pub(super) struct Reports {
    pub(super) mirrors: Vec<Option<MirrorReport>>,
    pub(super) replications: Vec<Option<ReplicationReport>>,
    pub(super) samples: Vec<Option<SamplingReport>>,
    pub(super) objectives: ObjectivesReport,
    /// Hundredths of the hash slots that the next side of a staged plan serves.
    pub(super) percent: u8,
}

pub(super) struct MetricsPublisher {
    group: GroupMetrics,
    backends: Vec<(BackendMetrics, Sampler)>,
}

impl MetricsPublisher {
    pub(super) fn new(metrics: &Metrics, group: &str, backends: &[&str]) -> Self {
        let group = metrics.group(group);
        let backends = backends.iter().map(|name| (group.backend(name), Sampler::new())).collect();
        Self { group, backends }
    }

    pub(super) fn switched(&self, trigger: &str, result: &str, seconds: f64) {
        self.group.switched(trigger, result, seconds);
    }

    /// So long requests waited for a switch.
    pub(super) fn held(&self, trigger: &str, seconds: f64) {
        self.group.held(trigger, seconds);
    }

    pub(super) fn publish(
        &mut self,
        group: &Group,
        view: &View,
        facts: &[Facts],
        reports: &Reports,
        clients: &ClientCounts,
    ) {
        let sum = |pick: fn(&Counters) -> u64| -> u64 {
            group.backends.iter().flat_map(|backend| &backend.counters).map(pick).sum()
        };
        self.group.retries.absolute(sum(|counters| counters.retries.get()));
        self.group.unknown_outcomes.absolute(sum(|counters| counters.unknown_outcomes.get()));
        self.group.shed.absolute(sum(|counters| counters.shed.get()));
        self.group.no_backend.absolute(sum(|counters| counters.unserved.get()));
        self.group.clients.set(clients.connected(group.index) as f64);
        self.group.client_connections.absolute(clients.accepted(group.index));
        objectives(&self.group.objectives, &reports.objectives);
        self.group.plan_share.set(f64::from(reports.percent) / 100.0);
        let route = group.route();
        self.group.route_epoch.set(route.epoch as f64);
        for ((metrics, sampler), backend) in self.backends.iter_mut().zip(&group.backends) {
            let view = &view.backends[backend.id.index()];
            let facts = &facts[backend.id.index()];
            metrics.active.set(f64::from(u8::from(route.active == backend.id)));
            traffic(metrics, sampler, backend);
            health(metrics, view, facts);
            let record = group.record(backend.id).summary();
            metrics.divergence_keys.set(record.keys as f64);
            metrics.divergence_bytes.set(record.bytes as f64);
            metrics.divergence_state.set(divergence_value(state_word(record.state)));
            if let Some(report) = &reports.mirrors[backend.id.index()] {
                mirror(&metrics.mirror, report);
            }
            if let Some(report) = &reports.replications[backend.id.index()] {
                replication(&metrics.replication, report);
            }
            if let Some(report) = &reports.samples[backend.id.index()] {
                sampling(&metrics.sampling, report);
            }
        }
    }
}

fn mirror(metrics: &MirrorMetrics, report: &MirrorReport) {
    metrics.lag.set(report.lag_us as f64 / 1e6);
    metrics.waiting.set(report.waiting_bytes as f64);
    metrics.in_step.set(f64::from(u8::from(&*report.state == "in_step")));
    metrics.commands.absolute(report.commands);
    metrics.copies.absolute(report.copied);
    metrics.dropped.absolute(report.dropped);
}

/// What nothing bounds is infinite, so that it is over every threshold.
fn objectives(metrics: &ObjectiveMetrics, report: &ObjectivesReport) {
    let seconds = |micros: Option<u64>, none: f64| micros.map_or(none, |micros| micros as f64 / 1e6);
    let worst_rpo = if report.rpo_worst_is_unbounded { f64::INFINITY } else { 0.0 };
    let rto = [
        seconds(report.rto_present_us, f64::INFINITY),
        seconds(report.rto_worst_us, 0.0),
        seconds(report.rto_target_us, 0.0),
    ];
    let rpo = [
        seconds(report.rpo_present_us, f64::INFINITY),
        seconds(report.rpo_worst_us, worst_rpo),
        seconds(report.rpo_target_us, 0.0),
    ];
    for (gauges, values) in [(&metrics.rto, rto), (&metrics.rpo, rpo)] {
        gauges.iter().zip(values).for_each(|(gauge, value)| gauge.set(value));
    }
    metrics.missed.absolute(report.missed);
}

fn replication(metrics: &ReplicationMetrics, report: &ReplicationReport) {
    metrics.offset.set(report.offset as f64);
    metrics.behind.set(report.behind_bytes.unwrap_or(0) as f64);
    metrics.lag.set(report.behind_ms.unwrap_or(0) as f64 / 1e3);
    metrics.link.set(f64::from(u8::from(report.link_is_up.unwrap_or(true))));
}

fn sampling(metrics: &SamplingMetrics, report: &SamplingReport) {
    metrics.compared.absolute(report.compared);
    metrics.differing.absolute(report.differing);
    metrics.repaired.absolute(report.repaired);
    metrics.agreement.set(report.agree_percent.map_or(1.0, |percent| percent / 100.0));
}

fn traffic(metrics: &BackendMetrics, sampler: &mut Sampler, backend: &Backend) {
    let sum = |pick: fn(&Counters) -> u64| -> u64 { backend.counters.iter().map(pick).sum() };
    for class in 0..CLASSES {
        let answered = backend.counters.iter().map(|counters| counters.answered[class].get()).sum();
        metrics.requests[class].absolute(answered);
    }
    for kind in FailureKind::ALL {
        let lost = if kind == FailureKind::Connection { sum(|counters| counters.links_lost.get()) } else { 0 };
        let failed: u64 = backend.counters.iter().map(|counters| counters.failed(&[kind])).sum();
        metrics.errors[kind.index()].absolute(lost + failed);
    }
    metrics.in_flight.set(backend.in_flight() as f64);
    metrics.links.set(sum(|counters| counters.links.get()) as f64);
    metrics.pinned_connections.set(sum(|counters| counters.pinned.get()) as f64);
    for (gauges, quantiles) in metrics.request_latency.iter().zip(sampler.sample(backend)) {
        if quantiles.count > 0 {
            for (gauge, micros) in gauges.iter().zip([quantiles.p50_us, quantiles.p99_us, quantiles.p999_us]) {
                gauge.set(micros as f64 / 1e6);
            }
        }
    }
}

fn health(metrics: &BackendMetrics, view: &BackendView, facts: &Facts) {
    metrics.up.set(f64::from(u8::from(view.probes_ok_in_row > 0)));
    metrics.score.set(f64::from(view.score));
    metrics.health.set(health_value(view.health.name()));
    metrics.breaker.set(breaker_value(breaker_word(view.breaker)));
    if let Some(latency) = view.probe_latency {
        metrics.probe_latency.set(latency.as_secs_f64());
    }
    for class in &view.figures.classes {
        let place = crate::telemetry::metrics::CLASSES.iter().position(|word| *word == class_word(class.class));
        if let (Some(place), Some(baseline)) = (place, class.baseline) {
            metrics.baseline_latency[place].set(baseline.as_secs_f64());
        }
    }
    metrics.enterable.set(f64::from(u8::from(facts.standing == Some(Standing::Enterable))));
}

pub(super) fn state_word(state: State) -> &'static str {
    match state {
        State::Clean => "clean",
        State::Empty => "empty",
        State::Keys => "keys",
        State::Unknown => "unknown",
    }
}

pub(super) fn breaker_word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    }
}
