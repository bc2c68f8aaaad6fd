//! The figures of one backend, for the decisions that weigh one backend against another, for the status and for metrics.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::baseline::degraded_from_us;
use super::event::{CommandClass, MemoryUse};
use super::reliability::ReliabilityView;
use super::score;
use super::settings::Settings;
use super::signals::{COMPARABLE_MIN, JUDGED};
use super::time::Time;

/// Part of a `BackendView`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// How surprising its present silence is, and from where on that is suspicious and believed.
    pub phi: f64,
    pub phi_suspect: f64,
    pub phi_failed: f64,
    /// Requests that ended within the last ten seconds, and the share that the backend did not fail.
    pub requests: u64,
    pub success_rate: Option<f64>,
    pub failed_in_row: u64,
    /// Share of good probes within the last minute.
    pub availability: Option<f64>,
    /// Of the classes that it has served or has a baseline of.
    pub classes: Vec<ClassFigures>,
    /// What a point read can be expected to take on it.
    pub expected_read: Option<ExpectedLatency>,
    pub slowdown: Option<Slowdown>,
    pub replication_lag: Option<Duration>,
    pub replication_offset: Option<u64>,
    pub memory: Option<MemoryUse>,
    /// The score times the operator's weight in percent: what candidates are ranked by.
    pub weighted_score: u32,
    pub reliability: ReliabilityView,
}

/// Latency of one class within the last ten seconds, against what it is when all is well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    pub class: CommandClass,
    pub requests: u64,
    pub median: Option<Duration>,
    pub p99: Option<Duration>,
    pub baseline: Option<Duration>,
}

/// A sustained and significant shift of a class's latency: why a living backend is left (`Trigger::Performance`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slowdown {
    pub class: CommandClass,
    pub since: Time,
    /// Median since the shift began, and the baseline's.
    pub latency: Duration,
    pub baseline: Duration,
    /// From where on a reply is degraded. A candidate whose own latency is over this is no better.
    pub degraded_from: Duration,
    /// 0 to 1.
    pub confidence: f64,
}

/// What a class of requests can be expected to take on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedLatency {
    pub latency: Duration,
    pub basis: LatencyBasis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyBasis {
    /// The median of requests of that class within the last ten seconds.
    Requests,
    /// It serves none: what its probes take, which are five or more commands in one go, a GET among them. An upper bound
    /// for a point read while the fault is in the server or the network, and blind to what only other commands suffer.
    Probes,
}

impl Backend {
    /// The slowdown that speaks for leaving it, if there is one.
    pub(super) fn slowdown(&self, now: Time, group: &Settings) -> Option<Slowdown> {
        let (place, since) = self.signals.shifted(now)?;
        let baseline_us = self.signals.baselines[place].median_us()?;
        let shift = &self.signals.shifts[place];
        let micros = |micros: f64| Duration::from_micros(micros as u64);
        Some(Slowdown {
            class: JUDGED[place],
            since,
            latency: Duration::from_micros(shift.median_us()?),
            baseline: micros(baseline_us),
            degraded_from: micros(degraded_from_us(baseline_us, &group.performance)),
            confidence: shift.confidence(),
        })
    }

    /// What a class of requests can be expected to take on it; `None` when nothing was measured.
    pub(super) fn expected_latency(&self, now: Time, class: CommandClass) -> Option<ExpectedLatency> {
        let latencies = self.signals.latency(now, class);
        let served = latencies.quantile(0.5).filter(|_| latencies.count() >= COMPARABLE_MIN);
        let of_requests = served.map(|latency| ExpectedLatency { latency, basis: LatencyBasis::Requests });
        let of_probes =
            || self.baseline.recent().map(|latency| ExpectedLatency { latency, basis: LatencyBasis::Probes });
        of_requests.or_else(of_probes)
    }

    pub(super) fn figures(&self, now: Time, group: &Settings) -> Figures {
        let signals = &self.signals;
        let (phi_suspect, phi_failed) = signals.phi.thresholds(&group.phi);
        let (ended, failed) =
            signals.requests.all(now).fold((0, 0), |sum, slice| (sum.0 + slice.ended, sum.1 + slice.failed));
        let class_figures = |class: CommandClass| {
            let latencies = signals.latency(now, class);
            let baseline = JUDGED.iter().position(|judged| *judged == class);
            let baseline = baseline.and_then(|place| signals.baselines[place].median());
            let figures = ClassFigures {
                class,
                requests: latencies.count(),
                median: latencies.quantile(0.5),
                p99: latencies.quantile(0.99),
                baseline,
            };
            (figures.requests > 0 || baseline.is_some()).then_some(figures)
        };
        Figures {
            phi: signals.phi(now, group, self.blind),
            phi_suspect,
            phi_failed,
            requests: ended,
            success_rate: (ended > 0).then(|| 1.0 - failed as f64 / ended as f64),
            failed_in_row: signals.failed_in_row,
            availability: signals.availability(now),
            classes: CommandClass::ALL.into_iter().filter_map(class_figures).collect(),
            expected_read: self.expected_latency(now, CommandClass::Read),
            slowdown: self.slowdown(now, group),
            replication_lag: signals.replication_lag,
            replication_offset: signals.replication_offset,
            memory: signals.memory,
            weighted_score: u32::from(score::score(self, group, now)) * self.settings.weight / 100,
            reliability: signals.reliability.view(now),
        }
    }
}
