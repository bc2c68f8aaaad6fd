//! What one worker saw of one backend: counters that the worker alone writes and the control plane reads.
//!
//! A single writer needs no read-modify-write: a relaxed load and a relaxed store cost a nanosecond, an atomic addition
//! several. The reader sees each counter whole, though not all of them at one instant, which a rolling window forgives.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::command::Class;
use crate::policy::{FailureKind, LATENCY_BUCKETS, latency_bucket};

/// Number of command classes (see [`Class`]).
pub const CLASSES: usize = 7;
/// A counter with one writer and any number of readers.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts; only the owning worker may call this, and only on gauges.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Reads the value; any thread may.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A log-linear latency histogram of one class.
#[derive(Debug)]
pub struct Latencies([Counter; LATENCY_BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Latencies {
    /// Counts `n` replies that took `micros` each.
    pub fn record(&self, micros: u64, n: u64) {
        self.0[latency_bucket(micros)].add(n);
    }

    /// Adds the counts into `sum`, bucket by bucket.
    pub fn add_into(&self, sum: &mut [u64; LATENCY_BUCKETS]) {
        for (total, counter) in sum.iter_mut().zip(&self.0) {
            *total += counter.get();
        }
    }
}

/// Everything that one worker counts about one backend. Totals only grow; gauges are named so.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct Counters {
    /// Requests answered, by class.
    pub answered: [Counter; CLASSES],
    /// Latency of the answered requests, by class.
    pub latency: [Latencies; CLASSES],
    /// Failed requests by kind, as the table of failures has them. Lost connections are counted in `links_lost`.
    pub errors: [Counter; FailureKind::COUNT],
    /// Requests that were lost with their link and could not be sent again.
    pub unknown_outcomes: Counter,
    /// Requests sent again, on this or another backend, after a fault here.
    pub retries: Counter,
    /// Requests refused because a bound was reached.
    pub shed: Counter,
    /// Requests answered with `-NOBACKEND`.
    pub unserved: Counter,
    /// Links lost after they had been ready.
    pub links_lost: Counter,
    /// Gauge: requests written or waiting on this backend's multiplexed links.
    pub in_flight: Counter,
    /// Gauge: links that are ready.
    pub links: Counter,
    /// Gauge: connections owned by one client each.
    pub pinned: Counter,
    /// Gauge: requests on connections owned by clients.
    pub pinned_in_flight: Counter,
    /// Gauge: of those, the ones that wait on purpose (BLPOP and its like).
    pub blocked: Counter,
    /// When the last reply of any kind came, in microseconds since the origin; 0 = never.
    pub last_progress_us: Counter,
    /// Until when a slow-class request in flight may rightly block the server; 0 = none.
    pub slow_until_us: Counter,
}

impl Counters {
    /// Counts failed requests.
    pub fn fail(&self, kind: FailureKind, n: u64) {
        self.errors[kind.index()].add(n);
    }

    /// Failed requests of these kinds so far.
    #[must_use]
    pub fn failed(&self, kinds: &[FailureKind]) -> u64 {
        kinds.iter().map(|kind| self.errors[kind.index()].get()).sum()
    }

    /// Counts replies to requests of one class that took `micros`.
    pub fn answer(&self, class: Class, micros: u64, n: u64) {
        let class = class as usize;
        self.answered[class].add(n);
        self.latency[class].record(micros, n);
    }
}
