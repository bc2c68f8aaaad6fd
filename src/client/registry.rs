//! All clients of the process, whatever worker serves them: for CLIENT LIST, KILL and UNBLOCK, and for the gauges.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use tokio::sync::mpsc;

use super::worker::{Told, WorkerCommand};
use crate::route::ClientCounts;

/// What CLIENT LIST shows and other clients may act on. Written by the session, read by anyone.
#[derive(Debug, Default, Clone)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) library_name: String,
    pub(super) library_version: String,
    pub(super) user: String,
    pub(super) database: u32,
    pub(super) protocol: u8,
    pub(super) last_command: &'static str,
    pub(super) channels: usize,
    pub(super) patterns: usize,
    pub(super) shard_channels: usize,
    /// Commands queued in MULTI; -1 outside.
    pub(super) queued: i64,
    pub(super) watching: bool,
    pub(super) monitoring: bool,
    pub(super) blocked: bool,
    pub(super) tracking: bool,
    pub(super) no_evict: bool,
    pub(super) no_touch: bool,
    pub(super) query_bytes: usize,
    /// The server's id of the connection on which this client hears of keys that others track; 0 without one.
    pub(super) redirect_id: u64,
}

/// One client.
#[derive(Debug)]
pub(super) struct ClientRecord {
    pub(super) id: u64,
    pub(super) group: usize,
    pub(super) worker: usize,
    pub(super) address: String,
    pub(super) local_address: String,
    pub(super) since_us: u64,
    pub(super) last_us: AtomicU64,
    pub(super) killed: AtomicBool,
    pub(super) shown: Mutex<Shown>,
}

impl ClientRecord {
    pub(super) fn update(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The line of CLIENT LIST, without its newline, as Redis 7 writes it.
    pub(super) fn line(&self, now_us: u64) -> String {
        let shown = self.shown();
        let mut flags = String::new();
        for (flag, is_set) in [
            ('O', shown.monitoring),
            ('P', shown.channels + shown.patterns + shown.shard_channels > 0),
            ('x', shown.queued >= 0),
            ('b', shown.blocked),
            ('t', shown.tracking),
            ('e', shown.no_evict),
            ('T', shown.no_touch),
        ] {
            if is_set {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let seconds = |since: u64| now_us.saturating_sub(since) / 1_000_000;
        let mut line = String::with_capacity(320);
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd=8 name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} \
             qbuf={} qbuf-free={} argv-mem=10 multi-mem=0 rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=2048 events=r cmd={} \
             user={} redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.address,
            self.local_address,
            shown.name,
            seconds(self.since_us),
            seconds(self.last_us.load(Ordering::Relaxed)),
            shown.database,
            shown.channels,
            shown.patterns,
            shown.shard_channels,
            shown.queued,
            shown.query_bytes,
            20_474,
            if shown.last_command.is_empty() { "NULL" } else { shown.last_command },
            shown.user,
            shown.protocol,
            shown.library_name,
            shown.library_version,
        );
        line
    }

    /// The type that CLIENT LIST TYPE and CLIENT KILL TYPE name.
    pub(super) fn kind(&self) -> &'static str {
        let shown = self.shown();
        if shown.channels + shown.patterns + shown.shard_channels > 0 { "pubsub" } else { "normal" }
    }
}

/// All clients. Short critical sections; never held across an await (no guard leaves this file).
pub struct Registry {
    clients: DashMap<u64, Arc<ClientRecord>>,
    counts: Arc<ClientCounts>,
    next_id: AtomicU64,
    workers: Vec<mpsc::Sender<WorkerCommand>>,
}

impl Registry {
    /// A registry that counts here, and reaches clients through their workers' inboxes.
    #[must_use]
    pub fn new(counts: Arc<ClientCounts>, workers: Vec<mpsc::Sender<WorkerCommand>>) -> Arc<Self> {
        Arc::new(Self { clients: DashMap::new(), counts, next_id: AtomicU64::new(1), workers })
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add(&self, client: Arc<ClientRecord>) {
        self.counts.add(client.group);
        self.clients.insert(client.id, client);
    }

    pub(super) fn remove(&self, id: u64) {
        if let Some((_, client)) = self.clients.remove(&id) {
            self.counts.remove(client.group);
        }
    }

    /// Clients connected now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether no client is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Clients of one group connected now.
    #[must_use]
    pub fn count(&self, group: usize) -> usize {
        self.counts.connected(group)
    }

    /// The worker with the fewest clients.
    #[must_use]
    pub fn least_loaded(&self) -> usize {
        if self.workers.len() == 1 {
            return 0;
        }
        let mut counts = vec![0usize; self.workers.len()];
        for client in &self.clients {
            counts[client.worker] += 1;
        }
        counts.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(worker, _)| worker)
    }

    /// The clients of a group, oldest first. One that was killed is none any more, though its task may still have to see it.
    pub(super) fn list(&self, group: usize) -> Vec<Arc<ClientRecord>> {
        let mut all: Vec<_> = self
            .clients
            .iter()
            .filter(|client| client.group == group && !client.killed.load(Ordering::Acquire))
            .map(|client| Arc::clone(&client))
            .collect();
        all.sort_by_key(|client| client.id);
        all
    }

    pub(super) fn get(&self, group: usize, id: u64) -> Option<Arc<ClientRecord>> {
        self.clients.get(&id).filter(|client| client.group == group).map(|client| Arc::clone(&client))
    }

    /// Closes a client, whatever worker serves it.
    pub(super) fn kill(&self, client: &ClientRecord) {
        client.killed.store(true, Ordering::Release);
        self.tell(client.worker, WorkerCommand::Wake(client.id));
    }

    /// Ends the blocking command of a client: with nil, or with `-UNBLOCKED`.
    pub(super) fn unblock(&self, client: &ClientRecord, with_error: bool) {
        self.tell(client.worker, WorkerCommand::Unblock { client: client.id, with_error });
    }

    /// Tells a client something, whatever worker serves it.
    pub(super) fn tell_client(&self, client: &ClientRecord, told: Told) {
        self.tell(client.worker, WorkerCommand::Told { client: client.id, told });
    }

    fn tell(&self, worker: usize, command: WorkerCommand) {
        if self.workers[worker].try_send(command).is_err() {
            tracing::warn!(worker, "a worker's inbox is full; a CLIENT command for another worker was dropped");
        }
    }
}
