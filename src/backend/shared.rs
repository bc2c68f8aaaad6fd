//! One backend as the workers and the control plane share it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::counters::{CLASSES, Counters};
use super::target::Target;
use crate::command::Class;
use crate::policy::BackendId;

/// Who a server is, as its handshake told. Another run id means another content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// `run_id` of `INFO server`; empty when the server does not tell (no permission, no INFO).
    pub run_id: String,
    /// `master_replid` of `INFO replication`; empty when not told.
    pub replication_id: String,
    /// `master_replid2`: the history that the present one continues, after a promotion; all zeros otherwise.
    pub earlier_replication_id: String,
    /// `redis_version` (or `valkey_version`), for status and for HELLO.
    pub version: String,
    /// Whether `role:slave` was told.
    pub is_replica: bool,
    /// Whether `loading:1` was told.
    pub is_loading: bool,
    /// Whether it did not say who it is because a script keeps it busy.
    pub is_busy: bool,
    /// Whether the server is a node of a cluster, which would send clients past us.
    pub is_cluster: bool,
}

impl Identity {
    /// Whether `later` names the same content: the same process, which has not taken over another server's data.
    #[must_use]
    pub fn same_content(&self, later: &Self) -> bool {
        self.run_id == later.run_id && self.same_history(later)
    }

    fn same_history(&self, later: &Self) -> bool {
        let (before, after) = (&self.replication_id, &later.replication_id);
        let told = !before.is_empty() && !after.is_empty();
        // A promoted replica continues what it had. A master without replicas gives itself a new id when its backlog is
        // freed, an hour after the last one left: nothing has happened to its keys.
        let promoted = later.earlier_replication_id == *before;
        let never_followed = !self.is_replica && !later.is_replica;
        let backlog_freed = never_followed && later.earlier_replication_id.bytes().all(|byte| byte == b'0');
        !told || before == after || promoted || backlog_freed
    }

    /// Takes over what a short handshake did not ask for.
    #[must_use]
    pub fn completed_by(mut self, known: &Self) -> Self {
        if self.replication_id.is_empty() && self.run_id == known.run_id {
            self.replication_id.clone_from(&known.replication_id);
            self.earlier_replication_id.clone_from(&known.earlier_replication_id);
            self.is_replica = known.is_replica;
            self.is_cluster = known.is_cluster;
        }
        self
    }
}

/// Times of the data path that configuration fixes; durations.
#[derive(Debug, Clone)]
pub struct Timing {
    /// A TCP or TLS connect may take this long.
    pub connect: Duration,
    /// The handshake may take this long after the connect.
    pub handshake: Duration,
    /// The whole life of a request, repeats included.
    pub request: Duration,
    /// No allowance is ever shorter than this.
    pub floor: Duration,
    /// The allowance of slow-class commands and scripts.
    pub slow: Duration,
    /// `TCP_USER_TIMEOUT`: unacknowledged data kills a connection after this.
    pub tcp_user_timeout: Duration,
    /// TCP keepalive idle time.
    pub tcp_keepalive: Duration,
    /// Span of the first pause with jitter between two attempts to connect.
    pub reconnect_min: Duration,
    /// Longest pause between two attempts to connect while requests wait.
    pub reconnect_max: Duration,
}

/// One backend of one group. Many readers; each field says who writes it.
pub struct Backend {
    /// Index within its group.
    pub id: BackendId,
    /// Its configured name.
    pub name: String,
    /// What our connections call themselves there (CLIENT SETNAME): one name for the whole process.
    pub client_name: String,
    /// Where it is and how one logs in; fixed at start.
    pub target: Target,
    /// Fixed times.
    pub timing: Timing,
    /// One set of counters per worker, written by that worker.
    pub counters: Vec<Counters>,
    /// How long the head of a link may make no progress, per class, in microseconds; written by the control plane.
    allowance_us: [AtomicU32; CLASSES],
    /// The identity that may be served from; written by the control plane after its checks, awaited by handshakes.
    admitted: watch::Sender<Option<Arc<Identity>>>,
    /// The identity seen last in any handshake.
    pub seen: ArcSwapOption<Identity>,
    /// Set while the last attempt to connect failed: then only one scout at a time tries.
    unreachable: watch::Sender<bool>,
    scouting: AtomicBool,
    paused_until_us: AtomicU64,
    /// Connections that clients own, those that are idle in a pool or not ready yet included; counted by the workers.
    pub pinned_open: AtomicUsize,
    /// Databases, by the server's numbers, whose keys were left when the rest was emptied, since nobody used them: what
    /// they hold may be old, and no session gets there before the control plane has seen to it.
    sealed: watch::Sender<BTreeSet<u32>>,
    /// Our end of the connection that probes it, for those who must tell our requests from the clients'.
    prober_address: std::sync::Mutex<Option<SocketAddr>>,
    /// Where Standin's own keys lie, by the server's numbers (control plane).
    mark_database: AtomicU32,
    /// When the last of these was lost, in microseconds since the origin; 0 before the first.
    lost_at_us: AtomicU64,
    /// There were more of them than are remembered.
    has_forgotten_undead: AtomicBool,
    /// Server-side client ids of connections that died with requests in flight and are not yet proven dead.
    undead: std::sync::Mutex<Vec<u64>>,
}

impl Backend {
    /// A backend that nobody has connected to yet; `workers` sets of counters are made.
    #[must_use]
    pub fn new(
        id: BackendId,
        name: String,
        client_name: String,
        target: Target,
        timing: Timing,
        workers: usize,
    ) -> Self {
        let floor = micros_u32(timing.floor);
        let slow = micros_u32(timing.slow);
        let backend = Self {
            id,
            name,
            client_name,
            target,
            timing,
            counters: (0..workers).map(|_| Counters::default()).collect(),
            allowance_us: std::array::from_fn(|_| AtomicU32::new(floor)),
            admitted: watch::Sender::new(None),
            seen: ArcSwapOption::empty(),
            unreachable: watch::Sender::new(false),
            scouting: AtomicBool::new(false),
            paused_until_us: AtomicU64::new(0),
            pinned_open: AtomicUsize::new(0),
            sealed: watch::Sender::new(BTreeSet::new()),
            prober_address: std::sync::Mutex::new(None),
            mark_database: AtomicU32::new(0),
            lost_at_us: AtomicU64::new(0),
            has_forgotten_undead: AtomicBool::new(false),
            undead: std::sync::Mutex::new(Vec::new()),
        };
        for class in [Class::Script, Class::Slow, Class::Blocking, Class::Admin] {
            backend.allowance_us[class as usize].store(slow, Ordering::Relaxed);
        }
        backend
    }

    /// How long the head of a link may make no progress, in microseconds.
    #[must_use]
    pub fn allowance_us(&self, class: usize) -> u64 {
        u64::from(self.allowance_us[class].load(Ordering::Relaxed))
    }

    /// Sets the allowance of a class (control plane).
    pub fn set_allowance(&self, class: Class, allowance: Duration) {
        self.allowance_us[class as usize].store(micros_u32(allowance), Ordering::Relaxed);
    }

    /// Lets requests be written to the server of this identity (control plane, after its checks); `None` closes the gate.
    pub fn admit(&self, identity: Option<Arc<Identity>>) {
        let is_same = identity.as_ref().is_none_or(|identity| self.is_admitted(identity));
        if !is_same {
            // Another process: nobody has paused it.
            self.pause_until(0);
        }
        self.admitted.send_replace(identity);
    }

    /// The identity that may be served from.
    #[must_use]
    pub fn admitted(&self) -> Option<Arc<Identity>> {
        self.admitted.borrow().clone()
    }

    /// Waits until the identity is admitted; never returns an error, since the sender lives as long as `self`.
    pub async fn wait_admitted(&self, identity: &Identity) {
        let mut receiver = self.admitted.subscribe();
        let matches = |held: &Option<Arc<Identity>>| held.as_ref().is_some_and(|held| held.same_content(identity));
        let _ = receiver.wait_for(matches).await;
    }

    /// Whether the identity is admitted now.
    #[must_use]
    pub fn is_admitted(&self, identity: &Identity) -> bool {
        self.admitted.borrow().as_ref().is_some_and(|held| held.same_content(identity))
    }

    /// The database in which Standin's own keys lie, by the server's numbers.
    #[must_use]
    pub fn mark_database(&self) -> u32 {
        self.mark_database.load(Ordering::Relaxed)
    }

    /// Says where Standin's own keys lie (control plane).
    pub fn set_mark_database(&self, database: u32) {
        self.mark_database.store(database, Ordering::Relaxed);
    }

    /// The server's number of a database that clients know by this one.
    #[must_use]
    pub fn database_on_server(&self, database: u32) -> u32 {
        if database == 0 { self.target.database } else { database }
    }

    /// Seals these databases, by the server's numbers, and no others (control plane).
    pub fn seal(&self, databases: BTreeSet<u32>) {
        self.sealed.send_if_modified(|held| {
            let is_another = *held != databases;
            *held = databases;
            is_another
        });
    }

    /// The sealed databases, by the server's numbers.
    #[must_use]
    pub fn sealed(&self) -> BTreeSet<u32> {
        self.sealed.borrow().clone()
    }

    /// Whether clients must not get into this database yet.
    #[must_use]
    pub fn is_sealed(&self, database: u32) -> bool {
        self.sealed.borrow().contains(&self.database_on_server(database))
    }

    /// Waits until clients may get into this database.
    pub async fn wait_unsealed(&self, database: u32) {
        let number = self.database_on_server(database);
        let _ = self.sealed.subscribe().wait_for(|sealed| !sealed.contains(&number)).await;
    }

    /// Whether the last attempt to connect failed.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        *self.unreachable.borrow()
    }

    /// Records the outcome of an attempt to connect; success wakes all who wait behind the scout.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.unreachable.send_if_modified(|held| std::mem::replace(held, unreachable) != unreachable);
    }

    /// Takes the scout's place, if nobody has it. While a backend is unreachable, only the scout connects, so that a
    /// thousand sidecars with many lanes each are no storm.
    #[must_use]
    pub fn try_scout(self: &Arc<Self>) -> Option<Scout> {
        (!self.scouting.swap(true, Ordering::AcqRel)).then(|| Scout(Arc::clone(self)))
    }

    /// Waits until a scout has succeeded, or `pause` has passed.
    pub async fn wait_reachable(&self, pause: Duration) {
        let mut receiver = self.unreachable.subscribe();
        let _ = tokio::time::timeout(pause, receiver.wait_for(|unreachable| !unreachable)).await;
    }

    /// Notes a server-side connection that may still execute what it holds.
    pub fn add_undead(&self, client_id: u64) {
        if client_id != 0 {
            let mut undead = self.undead.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if undead.len() >= crate::limits::UNDEAD_CONNECTIONS_MAX {
                undead.remove(0);
                self.has_forgotten_undead.store(true, Ordering::Relaxed);
            }
            undead.push(client_id);
            self.lost_at_us.store(super::clock::micros(), Ordering::Relaxed);
        }
    }

    /// When a connection was last lost with requests on it, in microseconds since the origin; 0: never.
    #[must_use]
    pub fn lost_at_us(&self) -> u64 {
        self.lost_at_us.load(Ordering::Relaxed)
    }

    /// Whether more connections were lost than are remembered: then all that have our name must go.
    #[must_use]
    pub fn has_forgotten_undead(&self) -> bool {
        self.has_forgotten_undead.load(Ordering::Relaxed)
    }

    /// All connections that have our name are gone.
    pub fn remembers_all_undead(&self) {
        self.has_forgotten_undead.store(false, Ordering::Relaxed);
    }

    /// The connections that are not yet proven dead.
    #[must_use]
    pub fn undead(&self) -> Vec<u64> {
        self.undead.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Forgets connections that `CLIENT KILL` (or a new run id) has proven dead.
    pub fn proven_dead(&self, client_ids: &[u64]) {
        let mut undead = self.undead.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        undead.retain(|id| !client_ids.contains(id));
    }

    /// Whether a multiplexed link stands now: proof that the process that was admitted still lives.
    #[must_use]
    pub fn has_standing_link(&self) -> bool {
        self.counters.iter().any(|counters| counters.links.get() > 0)
    }

    /// Requests written or waiting on multiplexed links, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.counters.iter().map(|counters| counters.in_flight.get()).sum()
    }

    /// Requests on connections that clients own, those that wait on purpose not counted.
    #[must_use]
    pub fn pinned_at_work(&self) -> u64 {
        let at_work = |counters: &Counters| counters.pinned_in_flight.get().saturating_sub(counters.blocked.get());
        self.counters.iter().map(at_work).sum()
    }

    /// Clients that wait on purpose on connections of their own.
    #[must_use]
    pub fn blocked(&self) -> u64 {
        self.counters.iter().map(|counters| counters.blocked.get()).sum()
    }

    /// Until when a slow-class request in flight, or CLIENT PAUSE, may rightly keep the server silent, in microseconds
    /// since the origin; 0 = not at all.
    #[must_use]
    pub fn slow_until_us(&self) -> u64 {
        let slow = self.counters.iter().map(|counters| counters.slow_until_us.get()).max().unwrap_or(0);
        slow.max(self.paused_until_us.load(Ordering::Relaxed))
    }

    /// CLIENT PAUSE or UNPAUSE was executed: the server is silent by order until then.
    pub fn pause_until(&self, until_us: u64) {
        self.paused_until_us.store(until_us, Ordering::Relaxed);
    }

    /// Where the probes come from, if by TCP.
    #[must_use]
    pub fn prober_address(&self) -> Option<SocketAddr> {
        *self.prober_address.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A new connection probes (control plane).
    pub fn set_prober_address(&self, address: Option<SocketAddr>) {
        *self.prober_address.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = address;
    }

    /// Whether CLIENT PAUSE holds requests back now.
    #[must_use]
    pub fn is_paused(&self, now_us: u64) -> bool {
        self.paused_until_us.load(Ordering::Relaxed) > now_us
    }

    /// The last reply of any kind on any link, in microseconds since the origin.
    #[must_use]
    pub fn last_progress_us(&self) -> u64 {
        self.counters.iter().map(|counters| counters.last_progress_us.get()).max().unwrap_or(0)
    }
}

/// The right to try a backend that was unreachable; dropping it passes the right on.
pub struct Scout(Arc<Backend>);

impl Drop for Scout {
    fn drop(&mut self) {
        self.0.scouting.store(false, Ordering::Release);
    }
}

fn micros_u32(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(run_id: &str, replication_id: &str, earlier: &str, is_replica: bool) -> Identity {
        Identity {
            run_id: run_id.to_owned(),
            replication_id: replication_id.to_owned(),
            earlier_replication_id: earlier.to_owned(),
            is_replica,
            ..Identity::default()
        }
    }

    #[test]
    fn content_is_another_after_a_restart_or_a_resync_and_the_same_after_a_promotion_or_a_freed_backlog() {
        let master = server("run", "a", "000", false);
        let same = |later: &Identity| master.same_content(later);
        assert!(same(&master));
        assert!(!same(&server("other", "a", "000", false)), "another process");
        assert!(!same(&server("run", "b", "000", true)), "it follows another server now");
        assert!(!same(&server("run", "b", "c", false)), "it followed another one in between");
        assert!(same(&server("run", "b", "a", false)), "promoted: it continues its own history");
        assert!(same(&server("run", "b", "000", false)), "its backlog was freed");
        assert!(same(&server("run", "", "", false)), "not told");
        let replica = server("run", "a", "000", true);
        assert!(!replica.same_content(&server("run", "b", "000", false)), "a replica's id does not change by itself");
    }

    #[test]
    fn a_short_handshake_is_completed_by_what_is_known_of_the_same_process_only() {
        let known = server("run", "a", "000", true);
        assert_eq!(server("run", "", "", false).completed_by(&known), known);
        let other = server("other", "", "", false);
        assert_eq!(other.clone().completed_by(&known), other);
    }
}
