//! From the workers' counters to the engine's window summaries: what changed since the last tick.

use super::api::LatencyReport;
use crate::backend::{Backend, CLASSES};
use crate::command::Class;
use crate::policy::{
    CommandClass, ErrorCounts, FailureKind, LATENCY_BUCKETS, Sketch, Time, WindowSummary, latency_bucket_bound,
};

type Buckets = [u64; LATENCY_BUCKETS];

/// Totals of one backend at the last look.
pub(super) struct Collector {
    latency: Box<[Buckets; CLASSES]>,
    answered: [u64; CLASSES],
    errors: ErrorCounts,
}

/// A collector's second product: the same, by the classes of the data path, for status and metrics.
pub(super) struct ClassQuantiles {
    pub(super) count: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
}

impl Collector {
    pub(super) fn new() -> Self {
        Self {
            latency: Box::new([[0; LATENCY_BUCKETS]; CLASSES]),
            answered: [0; CLASSES],
            errors: ErrorCounts::default(),
        }
    }

    /// What happened since the last call; `probe_progress_us` is when the last probe was answered.
    pub(super) fn collect(&mut self, backend: &Backend, probe_progress_us: u64) -> WindowSummary {
        let (latency, answered) = totals(backend);
        let mut classes = [[0u64; LATENCY_BUCKETS]; CommandClass::COUNT];
        for class in 0..CLASSES {
            let Some(target) = command_class(class) else { continue };
            for bucket in 0..LATENCY_BUCKETS {
                classes[target.index()][bucket] += latency[class][bucket].saturating_sub(self.latency[class][bucket]);
            }
        }
        let sum = |all: &[u64; CLASSES]| all.iter().sum::<u64>();
        let requests = sum(&answered).saturating_sub(sum(&self.answered));
        *self.latency = *latency;
        self.answered = answered;
        let errors = error_totals(backend);
        let before = std::mem::replace(&mut self.errors, errors);
        let last_progress_us = backend.last_progress_us().max(probe_progress_us);
        let slow_until_us = backend.slow_until_us();
        WindowSummary {
            requests: requests + errors.timeout.saturating_sub(before.timeout),
            errors: since(&errors, &before),
            latency: classes.map(|buckets| Sketch::from_buckets(&buckets)),
            in_flight: u32::try_from(backend.in_flight()).unwrap_or(u32::MAX),
            last_progress: (last_progress_us > 0).then(|| Time::from_micros(last_progress_us)),
            slow_in_flight_until: (slow_until_us > 0).then(|| Time::from_micros(slow_until_us)),
        }
    }
}

/// Totals for metrics, once a second.
pub(super) struct Sampler {
    latency: Box<[Buckets; CLASSES]>,
}

impl Sampler {
    pub(super) fn new() -> Self {
        Self { latency: Box::new([[0; LATENCY_BUCKETS]; CLASSES]) }
    }

    /// Quantiles by class since the last call.
    pub(super) fn sample(&mut self, backend: &Backend) -> [ClassQuantiles; CLASSES] {
        let (latency, _) = totals(backend);
        let quantiles = std::array::from_fn(|class| {
            let mut change = [0u64; LATENCY_BUCKETS];
            for (bucket, change) in change.iter_mut().enumerate() {
                *change = latency[class][bucket].saturating_sub(self.latency[class][bucket]);
            }
            ClassQuantiles {
                count: change.iter().sum(),
                p50_us: quantile(&change, 0.5),
                p99_us: quantile(&change, 0.99),
                p999_us: quantile(&change, 0.999),
            }
        });
        *self.latency = *latency;
        quantiles
    }
}

/// Latency over all classes but the blocking one, of the last second that saw requests; for status.
pub(super) struct Recent {
    sum: Box<Buckets>,
    last: Option<LatencyReport>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { sum: Box::new([0; LATENCY_BUCKETS]), last: None }
    }

    pub(super) fn sample(&mut self, backend: &Backend) {
        let (latency, _) = totals(backend);
        let mut sum = [0u64; LATENCY_BUCKETS];
        for (class, buckets) in latency.iter().enumerate() {
            if command_class(class).is_some() {
                for (total, count) in sum.iter_mut().zip(buckets) {
                    *total += count;
                }
            }
        }
        let mut change = sum;
        for (change, before) in change.iter_mut().zip(self.sum.iter()) {
            *change = change.saturating_sub(*before);
        }
        *self.sum = sum;
        if change.iter().any(|count| *count > 0) {
            self.last = Some(LatencyReport { p50_us: quantile(&change, 0.5), p99_us: quantile(&change, 0.99) });
        }
    }

    pub(super) fn report(&self) -> Option<LatencyReport> {
        self.last
    }
}

fn totals(backend: &Backend) -> (Box<[Buckets; CLASSES]>, [u64; CLASSES]) {
    let mut latency = Box::new([[0u64; LATENCY_BUCKETS]; CLASSES]);
    let mut answered = [0u64; CLASSES];
    for counters in &backend.counters {
        for class in 0..CLASSES {
            answered[class] += counters.answered[class].get();
            counters.latency[class].add_into(&mut latency[class]);
        }
    }
    (latency, answered)
}

fn since(now: &ErrorCounts, before: &ErrorCounts) -> ErrorCounts {
    let mut change = ErrorCounts::default();
    for kind in FailureKind::ALL {
        change.add(kind, now.get(kind).saturating_sub(before.get(kind)));
    }
    change
}

fn error_totals(backend: &Backend) -> ErrorCounts {
    let mut errors = ErrorCounts::default();
    for counters in &backend.counters {
        errors.connection += counters.links_lost.get();
        for kind in FailureKind::ALL {
            errors.add(kind, counters.failed(&[kind]));
        }
    }
    errors
}

/// The engine's class of a data path class; what waits on purpose says nothing about health.
pub(super) fn command_class(class: usize) -> Option<CommandClass> {
    const POINT_READ: usize = Class::PointRead as usize;
    const WRITE: usize = Class::Write as usize;
    const MULTI_KEY: usize = Class::MultiKey as usize;
    const BLOCKING: usize = Class::Blocking as usize;
    match class {
        POINT_READ => Some(CommandClass::Read),
        WRITE => Some(CommandClass::Write),
        MULTI_KEY => Some(CommandClass::MultiKey),
        BLOCKING => None,
        _ => Some(CommandClass::Slow),
    }
}

/// The data path classes that an engine's class stands for.
pub(super) fn path_classes(class: CommandClass) -> &'static [Class] {
    match class {
        CommandClass::Read => &[Class::PointRead],
        CommandClass::Write => &[Class::Write],
        CommandClass::MultiKey => &[Class::MultiKey],
        CommandClass::Slow => &[Class::Script, Class::Slow, Class::Admin],
    }
}

/// The upper bound of the bucket in which the quantile lies; 0 when nothing was counted.
fn quantile(buckets: &Buckets, q: f64) -> u64 {
    let total: u64 = buckets.iter().sum();
    let rank = ((total as f64 * q).ceil() as u64).max(1);
    let mut seen = 0;
    for (bucket, count) in buckets.iter().enumerate() {
        seen += count;
        if seen >= rank && total > 0 {
            return latency_bucket_bound(bucket);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let mut buckets = [0; LATENCY_BUCKETS];
        assert_eq!(quantile(&buckets, 0.5), 0);
        buckets[5] = 99;
        buckets[10] = 1;
        assert_eq!((quantile(&buckets, 0.5), quantile(&buckets, 0.99), quantile(&buckets, 0.999)), (5, 5, 10));
    }
}
