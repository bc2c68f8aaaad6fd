//! Which backend serves what: one immutable snapshot per group, read by every worker, published by one owner.
//!
//! Invariants: the epoch only grows; what readers must see together is in one snapshot; the publisher is not `Clone`.

mod crossing;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

pub use self::crossing::{Crossing, Crossings};
use crate::backend::Backend;
use crate::divergence::{Homes, Mirror, Record, Side, Sides};
use crate::policy::{BackendId, Edge};

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
    pub version: u64,
    /// Grows with every switch: a backend was entered, another one or the same again.
    pub epoch: u64,
    pub active: BackendId,
    pub availability: Availability,
    /// Backends whose record the writes must be entered into, as bits by id. 0 in normal times: then no key is read.
    pub recording: u32,
    /// The incident in which the active serves, if it is told ahead what those records take; 0 if it is not.
    pub copying: u32,
    /// Backends that are kept in step, as bits by id: what the active acknowledges is handed to their mirrors.
    pub mirroring: u32,
    /// Backends that are offered the keys that clients read, as bits by id. 0 in normal times.
    pub reading: u32,
    /// Backends into whose records each worker enters what it has in flight when it takes up this version: one of them is
    /// about to serve, and nobody will learn the outcome.
    pub doubting: u32,
    /// Another backend serves too, a share of the keys; the active is the one that served alone before.
    pub split: Option<Arc<Split>>,
}

/// Which writes in flight a barrier waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// Those on links that many clients share; the others travel by value, whenever they are answered.
    SharedLinks,
    /// Those on connections of single clients as well, but for what waits on purpose.
    AllLinks,
}

/// Two backends serve: which of them which keys.
#[derive(Debug)]
pub struct Split {
    pub to: BackendId,
    /// Keys of hash slots below this are to be at home on `to`, all others on the active.
    pub moved: u16,
    pub homes: Arc<Homes>,
}

impl PartialEq for Split {
    fn eq(&self, other: &Self) -> bool {
        self.to == other.to && self.moved == other.moved && Arc::ptr_eq(&self.homes, &other.homes)
    }
}

impl Eq for Split {}

impl Split {
    /// Why it must end, if so.
    #[must_use]
    pub fn end_asked(&self) -> Option<String> {
        self.homes.end_asked()
    }
}

impl Route {
    /// The backend whose value of a key counts.
    #[must_use]
    pub fn home(&self, key: &[u8]) -> BackendId {
        match &self.split {
            Some(split) if split.homes.home(key) == Side::Next => split.to,
            _ => self.active,
        }
    }

    /// Whether requests are sent to this backend.
    #[must_use]
    pub fn serves(&self, id: BackendId) -> bool {
        self.active == id || self.split.as_ref().is_some_and(|split| split.to == id)
    }

    /// The backend of a side.
    #[must_use]
    pub fn side(&self, split: &Split, side: Side) -> BackendId {
        match side {
            Side::Old => self.active,
            Side::Next => split.to,
        }
    }
}

/// What a publication may change beside the active and the availability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keeping {
    pub recording: u32,
    pub copying: u32,
    pub mirroring: u32,
    pub reading: u32,
    pub doubting: u32,
}

/// Something that a worker tells the control plane at once.
#[derive(Debug, Clone)]
pub struct EdgeReport {
    pub backend: BackendId,
    pub edge: Edge,
}

/// How many clients each group has: counted by the data plane, read by the control plane.
#[derive(Debug)]
pub struct ClientCounts {
    connected: Vec<AtomicUsize>,
    accepted: Vec<AtomicU64>,
}

impl ClientCounts {
    /// Counts for so many groups.
    #[must_use]
    pub fn new(groups: usize) -> Arc<Self> {
        Arc::new(Self {
            connected: (0..groups).map(|_| AtomicUsize::new(0)).collect(),
            accepted: (0..groups).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// A client of this group has come.
    pub fn add(&self, group: usize) {
        self.accepted[group].fetch_add(1, Ordering::Relaxed);
        self.connected[group].fetch_add(1, Ordering::Relaxed);
    }

    /// A client of this group has gone.
    pub fn remove(&self, group: usize) {
        self.connected[group].fetch_sub(1, Ordering::Relaxed);
    }

    /// Clients of a group connected now.
    #[must_use]
    pub fn connected(&self, group: usize) -> usize {
        self.connected[group].load(Ordering::Relaxed)
    }

    /// Clients of all groups connected now.
    #[must_use]
    pub fn total(&self) -> usize {
        self.connected.iter().map(|connected| connected.load(Ordering::Relaxed)).sum()
    }

    /// Clients of a group accepted since the start.
    #[must_use]
    pub fn accepted(&self, group: usize) -> u64 {
        self.accepted[group].load(Ordering::Relaxed)
    }
}

/// What all threads share of one group.
pub struct Group {
    /// Position in the process's list of groups.
    pub index: usize,
    pub name: String,
    pub backends: Vec<Arc<Backend>>,
    /// By backend id.
    pub records: Vec<Record>,
    /// By backend id; closed for those that are not kept in step.
    pub mirrors: Vec<Mirror>,
    broken_copy: AtomicU32,
    route: Arc<ArcSwap<Route>>,
    wake: watch::Sender<u64>,
    /// By worker: the newest version that it acts by.
    seen: Vec<AtomicU64>,
    /// Asks every worker to say when what it has in flight now is answered.
    barrier: watch::Sender<(u64, Barrier)>,
    /// By worker: the newest barrier behind it.
    passed: Vec<AtomicU64>,
    /// Who listens to channels is led through planned switches by this.
    pub crossings: Crossings,
    databases: Mutex<BTreeSet<u32>>,
    /// Requests that were refused for the moment and wait before they are sent again.
    pub repeating: AtomicU64,
    /// A database is used that none of the group's sessions has used before.
    pub database_noted: Notify,
}

impl Group {
    /// A group that holds requests until its first route is published, and the right to publish.
    #[must_use]
    pub fn new(
        index: usize,
        name: String,
        backends: Vec<Arc<Backend>>,
        records: Vec<Record>,
        mirror_bytes: usize,
        workers: usize,
    ) -> (Arc<Self>, Publisher) {
        debug_assert_eq!(records.len(), backends.len());
        let mirrors = backends.iter().map(|_| Mirror::new(mirror_bytes)).collect();
        let first = Route {
            version: 0,
            epoch: 0,
            active: BackendId(0),
            availability: Availability::Holding,
            recording: 0,
            copying: 0,
            mirroring: 0,
            reading: 0,
            doubting: 0,
            split: None,
        };
        let group = Arc::new(Self {
            index,
            name,
            backends,
            records,
            mirrors,
            broken_copy: AtomicU32::new(0),
            route: Arc::new(ArcSwap::from_pointee(first)),
            wake: watch::Sender::new(0),
            databases: Mutex::new(BTreeSet::from([0])),
            repeating: AtomicU64::new(0),
            database_noted: Notify::new(),
            seen: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            barrier: watch::Sender::new((0, Barrier::SharedLinks)),
            passed: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            crossings: Crossings::new(workers),
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
    pub fn route_cell(&self) -> Arc<ArcSwap<Route>> {
        Arc::clone(&self.route)
    }

    /// Wakes on every publication.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    /// A worker says that from now on it acts by this version.
    pub fn acknowledge(&self, worker: usize, version: u64) {
        self.seen[worker].store(version, Ordering::Release);
    }

    /// Whether every worker acts by this version or a later one.
    #[must_use]
    pub fn is_acknowledged(&self, version: u64) -> bool {
        self.seen.iter().all(|seen| seen.load(Ordering::Acquire) >= version)
    }

    /// A session uses this database: only such databases are ever emptied.
    pub fn note_database(&self, database: u32) {
        if self.databases.lock().unwrap_or_else(PoisonError::into_inner).insert(database) {
            self.database_noted.notify_one();
        }
    }

    /// Databases that sessions of the group used since the start; 0 always counts.
    #[must_use]
    pub fn databases_used(&self) -> Vec<u32> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Sealed databases of a backend that sessions want to use, by the server's numbers.
    #[must_use]
    pub fn sealed_in_use(&self, id: BackendId) -> BTreeSet<u32> {
        let backend = self.backend(id);
        let mut sealed = backend.sealed();
        if !sealed.is_empty() {
            let used = self.databases_used();
            sealed.retain(|number| used.iter().any(|used| backend.database_on_server(*used) == *number));
        }
        sealed
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

    /// Whether a script may have written any key, whatever it declares.
    #[must_use]
    pub fn doubts_scripts(&self) -> bool {
        self.records.iter().any(Record::doubts_scripts)
    }

    /// The records that a route tells to keep.
    pub fn recording<'a>(&'a self, route: &Route) -> impl Iterator<Item = &'a Record> + Clone + use<'a> {
        self.records_of(route.recording)
    }

    /// The records of the backends with these bits.
    pub fn records_of<'a>(&'a self, bits: u32) -> impl Iterator<Item = &'a Record> + Clone + use<'a> {
        self.records.iter().enumerate().filter(move |(index, _)| bits & (1 << index) != 0).map(|(_, record)| record)
    }

    /// The records of the backends with these bits, with the backends' numbers.
    pub fn numbered<'a>(&'a self, bits: u32) -> impl Iterator<Item = (u8, &'a Record)> + Clone + use<'a> {
        let all = self.records.iter().enumerate().filter(move |(index, _)| bits & (1 << index) != 0);
        all.map(|(index, record)| (index as u8, record))
    }

    /// What the records take is no longer told to the server that serves in this incident: it has refused something.
    pub fn break_copy(&self, incident: u32) {
        self.broken_copy.store(incident, Ordering::Relaxed);
    }

    /// Whether [`Self::break_copy`] was said of this incident.
    #[must_use]
    pub fn is_copy_broken(&self, incident: u32) -> bool {
        self.broken_copy.load(Ordering::Relaxed) == incident
    }

    /// The mirrors of the backends with these bits, each with its record.
    pub fn mirrors_of(&self, bits: u32) -> impl Iterator<Item = (&Mirror, &Record)> {
        let both = self.mirrors.iter().zip(&self.records).enumerate();
        both.filter(move |(index, _)| bits & (1 << index) != 0).map(|(_, both)| both)
    }

    /// Of the backends with these bits, those that take keys that clients read just now.
    #[must_use]
    pub fn with_room_for_reads(&self, bits: u32) -> u32 {
        let has_room = |index: &usize| bits & (1 << index) != 0 && self.mirrors[*index].reads.has_room();
        (0..self.mirrors.len()).filter(has_room).fold(0, |room, index| room | 1 << index)
    }

    /// What the two that serve still miss of each other.
    #[must_use]
    pub fn sides(&self, route: &Route, split: &Split) -> Sides<'_> {
        let of = |id: BackendId| (&self.mirrors[id.index()], &self.records[id.index()]);
        Sides { old: of(route.active), next: of(split.to) }
    }

    /// Asks every worker to say when the mirrored writes that it has in flight now are answered.
    #[must_use]
    pub fn begin_barrier(&self, barrier: Barrier) -> u64 {
        let mut number = 0;
        self.barrier.send_modify(|(held, kind)| {
            // What an earlier one waits for is waited for still.
            if barrier == Barrier::AllLinks || self.is_behind_barrier(*held) {
                *kind = barrier;
            }
            *held += 1;
            number = *held;
        });
        number
    }

    /// Wakes with every barrier.
    #[must_use]
    pub fn barriers(&self) -> watch::Receiver<(u64, Barrier)> {
        self.barrier.subscribe()
    }

    /// A worker has nothing in flight that was sent before this barrier.
    pub fn pass_barrier(&self, worker: usize, number: u64) {
        self.passed[worker].store(number, Ordering::Release);
    }

    /// Whether all workers have passed this barrier.
    #[must_use]
    pub fn is_behind_barrier(&self, number: u64) -> bool {
        self.passed.iter().all(|passed| passed.load(Ordering::Acquire) >= number)
    }
}

/// The right to publish routes of one group; there is one.
pub struct Publisher {
    group: Arc<Group>,
}

impl Publisher {
    /// Publishes that `active` was entered: the next epoch.
    pub fn enter(&mut self, active: BackendId, keeping: Keeping) -> Arc<Route> {
        let epoch = self.group.route.load().epoch + 1;
        self.publish(epoch, active, Availability::Serving, keeping, None)
    }

    /// Publishes that another backend serves too, or that the active serves alone again.
    pub fn split(&mut self, split: Option<Arc<Split>>, availability: Availability, keeping: Keeping) -> Arc<Route> {
        let (epoch, active) = {
            let route = self.group.route.load();
            (route.epoch, route.active)
        };
        self.publish(epoch, active, availability, keeping, split)
    }

    /// Publishes another availability of the same active.
    pub fn set_availability(&mut self, availability: Availability, keeping: Keeping) -> Arc<Route> {
        let (epoch, active, split) = {
            let route = self.group.route.load();
            (route.epoch, route.active, route.split.clone())
        };
        self.publish(epoch, active, availability, keeping, split)
    }

    /// One atomic store; every worker is woken.
    fn publish(
        &mut self,
        epoch: u64,
        active: BackendId,
        availability: Availability,
        keeping: Keeping,
        split: Option<Arc<Split>>,
    ) -> Arc<Route> {
        let before = self.group.route.load();
        let version = before.version + 1;
        let Keeping { recording, copying, mirroring, reading, mut doubting } = keeping;
        let serves = |availability| availability == Availability::Serving;
        if !serves(availability) && !serves(before.availability) && epoch == before.epoch {
            // A worker may see this one only.
            doubting |= before.doubting;
        }
        let route =
            Route { version, epoch, active, availability, recording, copying, mirroring, reading, doubting, split };
        let route = Arc::new(route);
        self.group.route.store(Arc::clone(&route));
        self.group.wake.send_replace(version);
        route
    }

    /// The group it publishes for.
    #[must_use]
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }
}
