//! Which backend serves what: one immutable snapshot per group, read by every worker, published by one owner.
//!
//! Invariants: the epoch only grows; what readers must see together is in one snapshot; the publisher is not `Clone`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::divergence::Record;
use crate::policy::BackendId;

/// Whether requests are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// By the active backend.
    Serving,
    /// Requests wait: a switch is under way, or the primary is given time to come back.
    Holding,
    /// Nobody can serve since this time (microseconds since the origin): requests wait to their deadline at first, and
    /// fail at once when the outage is older than that.
    NoBackend { since_us: u64 },
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Grows with every publication.
    pub epoch: u64,
    pub active: BackendId,
    pub availability: Availability,
    /// Backends whose record the writes must be entered into, as bits by id. 0 in normal times: then no key is read.
    pub recording: u32,
}

/// What all threads share of one group.
pub struct Group {
    /// Position in the process's list of groups.
    pub index: usize,
    pub name: String,
    pub backends: Vec<Arc<Backend>>,
    /// By backend id.
    pub records: Vec<Record>,
    route: ArcSwap<Route>,
    wake: watch::Sender<u64>,
    /// By worker: the newest epoch that it acts by.
    seen: Vec<AtomicU64>,
}

impl Group {
    /// A group that holds requests until its first route is published, and the right to publish.
    #[must_use]
    pub fn new(
        index: usize,
        name: String,
        backends: Vec<Arc<Backend>>,
        record_bytes: usize,
        workers: usize,
    ) -> (Arc<Self>, Publisher) {
        let records = backends.iter().map(|_| Record::new(record_bytes)).collect();
        let first = Route { epoch: 0, active: BackendId(0), availability: Availability::Holding, recording: 0 };
        let group = Arc::new(Self {
            index,
            name,
            backends,
            records,
            route: ArcSwap::from_pointee(first),
            wake: watch::Sender::new(0),
            seen: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        });
        (Arc::clone(&group), Publisher { group })
    }

    /// The route as it is now.
    #[must_use]
    pub fn route(&self) -> Arc<Route> {
        self.route.load_full()
    }

    /// The cell of the route, for a worker's cached reads.
    #[must_use]
    pub fn route_cell(&self) -> &ArcSwap<Route> {
        &self.route
    }

    /// Wakes on every publication.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// A worker says that from now on it acts by this epoch.
    pub fn acknowledge(&self, worker: usize, epoch: u64) {
        self.seen[worker].store(epoch, Ordering::Release);
    }

    /// Whether every worker acts by this epoch or a later one.
    #[must_use]
    pub fn is_acknowledged(&self, epoch: u64) -> bool {
        self.seen.iter().all(|seen| seen.load(Ordering::Acquire) >= epoch)
    }

    /// The backend of an id.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> &Arc<Backend> {
        &self.backends[id.index()]
    }

    /// The record of a backend.
    #[must_use]
    pub fn record(&self, id: BackendId) -> &Record {
        &self.records[id.index()]
    }

    /// The records that a route tells to keep.
    pub fn recording<'a>(&'a self, route: &Route) -> impl Iterator<Item = &'a Record> + Clone + use<'a> {
        let bits = route.recording;
        self.records.iter().enumerate().filter(move |(index, _)| bits & (1 << index) != 0).map(|(_, record)| record)
    }
}

/// The right to publish routes of one group; there is one.
pub struct Publisher {
    group: Arc<Group>,
}

impl Publisher {
    /// Publishes a route with the next epoch, and returns that epoch. One atomic store; every worker is woken.
    pub fn publish(&mut self, active: BackendId, availability: Availability, recording: u32) -> u64 {
        let epoch = self.group.route.load().epoch + 1;
        self.group.route.store(Arc::new(Route { epoch, active, availability, recording }));
        self.group.wake.send_replace(epoch);
        epoch
    }

    /// The group it publishes for.
    #[must_use]
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }
}
