//! The store: databases, clients, channels and waiters behind one lock.
//!
//! One mutex, taken once per batch of requests and never held across an await. Shards would let two clients work at
//! once, but transactions, SWAPDB, RENAME and blocking moves would then need several locks in order; the last resort of
//! one process and a demo have no use for that.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::database::Database;
use super::error::{self, Error};
use super::session::{OwnedCommand, Session};
use crate::limits;
use crate::resp::Protocol;

/// Which entry goes when the memory is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// The least recently used of a few at random (`allkeys-lru`).
    #[default]
    LeastRecentlyUsed,
    /// Of a few at random, the one that expires soonest; without an expiry among them, the least recently used.
    SoonestExpiryFirst,
    /// None: writes are refused with OOM (`noeviction`).
    Refuse,
}

/// Milliseconds since 1970. Handed in, so that a test moves the time itself.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

#[derive(Clone)]
pub struct StoreOptions {
    /// Accounted bytes of keys, values and their overhead; the process itself takes some more.
    pub max_memory_bytes: usize,
    /// Whether SET NX, INCR and their like are served. Several copies of a lock or a counter are worse than none.
    pub allow_locks_and_counters: bool,
    pub databases: usize,
    pub eviction: Eviction,
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_memory_bytes: 64 * 1024 * 1024,
            allow_locks_and_counters: true,
            databases: 16,
            eviction: Eviction::default(),
            clock: Arc::new(wall_clock_ms),
        }
    }
}

fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A handle to one store; clones share it.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl Store {
    pub fn new(options: StoreOptions) -> Self {
        let clock = options.clock.clone();
        let state = State::new(options, clock());
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    /// The state, with the time of now. A panic under the lock leaves at worst one half-changed key: go on.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.set_time((self.clock)());
        state
    }

    /// Keys of all databases, expired ones that nobody has looked at included.
    pub fn keys(&self) -> usize {
        self.lock().databases.iter().map(Database::len).sum()
    }

    /// Accounted bytes of all entries.
    pub fn memory_bytes(&self) -> usize {
        self.lock().memory_bytes()
    }
}

/// What CLIENT LIST shows of a connection, and what reaches it from others.
pub(super) struct Client {
    pub(super) address: String,
    pub(super) name: Vec<u8>,
    pub(super) library: [Vec<u8>; 2],
    pub(super) database: usize,
    pub(super) protocol: Protocol,
    pub(super) connected_at_ms: u64,
    pub(super) used_at_ms: u64,
    pub(super) last_command: &'static str,
    pub(super) channels: usize,
    pub(super) patterns: usize,
    /// Commands queued by MULTI; -1 outside.
    pub(super) queued: i64,
    pub(super) waiting: bool,
    /// Messages of others that the connection has still to write.
    pub(super) outbox: Vec<u8>,
    pub(super) wake: Arc<Notify>,
    pub(super) kill: CancellationToken,
}

/// A command that waits for an element. Served in order of arrival, by the command that brings the element.
pub(super) struct Waiter {
    pub(super) client: u64,
    pub(super) database: usize,
    pub(super) protocol: Protocol,
    pub(super) keys: Vec<Box<[u8]>>,
    /// The type that its keys must have: `list` or `zset`.
    pub(super) type_name: &'static str,
    pub(super) command: OwnedCommand,
    pub(super) reply: oneshot::Sender<Vec<u8>>,
}

pub(super) struct State {
    pub(super) options: StoreOptions,
    pub(super) databases: Vec<Database>,
    pub(super) now_ms: u64,
    pub(super) started_at_ms: u64,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) channels: HashMap<Vec<u8>, Vec<u64>>,
    pub(super) patterns: HashMap<Vec<u8>, Vec<u64>>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) run_id: String,
    pub(super) replication_id: String,
    pub(super) connections: u64,
    pub(super) commands: u64,
    random: u64,
    swept_at_ms: u64,
    last_client: u64,
}

/// How often entries are looked through for expired ones, and how many each time.
const SWEEP_INTERVAL_MS: u64 = 100;
const SWEEP_ENTRIES: usize = 2000;

impl State {
    fn new(options: StoreOptions, now_ms: u64) -> Self {
        let databases = (0..options.databases.max(1)).map(Database::new).collect();
        let mut state = Self {
            options,
            databases,
            now_ms,
            started_at_ms: now_ms,
            clients: BTreeMap::new(),
            channels: HashMap::new(),
            patterns: HashMap::new(),
            waiters: Vec::new(),
            run_id: String::new(),
            replication_id: String::new(),
            connections: 0,
            commands: 0,
            // The standard library seeds its hashers from the system's randomness: enough for picks and identifiers.
            random: std::collections::hash_map::RandomState::new().hash_one(now_ms) | 1,
            swept_at_ms: now_ms,
            last_client: 0,
        };
        state.run_id = state.random_id();
        state.replication_id = state.random_id();
        state
    }

    fn set_time(&mut self, now_ms: u64) {
        if now_ms == self.now_ms {
            return;
        }
        self.now_ms = now_ms;
        for database in &mut self.databases {
            database.now_ms = now_ms;
        }
        if now_ms.saturating_sub(self.swept_at_ms) >= SWEEP_INTERVAL_MS {
            self.swept_at_ms = now_ms;
            self.databases.iter_mut().for_each(|database| database.sweep(SWEEP_ENTRIES));
        }
    }

    /// splitmix64: well spread, and no secret depends on it.
    pub(super) fn random(&mut self) -> u64 {
        next_random(&mut self.random)
    }

    fn random_id(&mut self) -> String {
        let mut id: String = (0..3).map(|_| format!("{:016x}", self.random())).collect();
        id.truncate(40);
        id
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.databases.iter().map(Database::memory_bytes).sum()
    }

    /// Makes room for `bytes` more, by eviction where allowed; else the command is refused.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        let limit = self.options.max_memory_bytes;
        if bytes > limit {
            return Err(error::OUT_OF_MEMORY);
        }
        while self.memory_bytes() + bytes > limit {
            let soonest_first = match self.options.eviction {
                Eviction::Refuse => return Err(error::OUT_OF_MEMORY),
                Eviction::SoonestExpiryFirst => true,
                Eviction::LeastRecentlyUsed => false,
            };
            let fullest = self.databases.iter_mut().max_by_key(|database| database.memory_bytes());
            let random = &mut self.random;
            if !fullest.is_some_and(|database| database.evict(soonest_first, || next_random(random))) {
                return Err(error::OUT_OF_MEMORY);
            }
        }
        Ok(())
    }

    pub(super) fn connect(&mut self, address: String) -> u64 {
        self.last_client += 1;
        self.connections += 1;
        let client = Client {
            address,
            name: Vec::new(),
            library: [Vec::new(), Vec::new()],
            database: 0,
            protocol: Protocol::Resp2,
            connected_at_ms: self.now_ms,
            used_at_ms: self.now_ms,
            last_command: "NULL",
            channels: 0,
            patterns: 0,
            queued: -1,
            waiting: false,
            outbox: Vec::new(),
            wake: Arc::new(Notify::new()),
            kill: CancellationToken::new(),
        };
        self.clients.insert(self.last_client, client);
        self.last_client
    }

    /// Forgets a client and all that points to it.
    pub(super) fn disconnect(&mut self, session: &Session) {
        self.clients.remove(&session.id);
        self.stop_waiting(session.id);
        self.unsubscribe_all(session);
    }

    pub(super) fn unsubscribe_all(&mut self, session: &Session) {
        for (names, subscribers) in [(&session.channels, &mut self.channels), (&session.patterns, &mut self.patterns)] {
            for name in names {
                remove_subscriber(subscribers, name, session.id);
            }
        }
    }

    /// Takes the client's waiter out; `None` if it was served already.
    pub(super) fn stop_waiting(&mut self, client: u64) -> Option<Waiter> {
        let at = self.waiters.iter().position(|waiter| waiter.client == client)?;
        let waiter = self.waiters.remove(at);
        self.note_waiters();
        Some(waiter)
    }

    /// Tells each database whether anybody waits in it.
    pub(super) fn note_waiters(&mut self) {
        for (number, database) in self.databases.iter_mut().enumerate() {
            database.has_waiters = self.waiters.iter().any(|waiter| waiter.database == number);
        }
    }

    /// Copies what CLIENT LIST shows; once per batch.
    pub(super) fn note_session(&mut self, session: &Session) {
        let now_ms = self.now_ms;
        let Some(client) = self.clients.get_mut(&session.id) else { return };
        if client.name != session.name {
            client.name.clone_from(&session.name);
        }
        if client.library != session.library {
            client.library.clone_from(&session.library);
        }
        client.database = session.database;
        client.protocol = session.protocol;
        client.used_at_ms = now_ms;
        client.last_command = session.last_command;
        client.channels = session.channels.len();
        client.patterns = session.patterns.len();
        client.queued = session.transaction.as_ref().map_or(-1, |transaction| transaction.commands.len() as i64);
        client.waiting = session.waiting.is_some();
    }

    /// Queues a message for a subscriber; one that does not read is closed at `limits::SUBSCRIBER_OUTPUT_BYTES_MAX`.
    pub(super) fn send(&mut self, client: u64, write: impl FnOnce(&mut Vec<u8>, Protocol)) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        write(&mut client.outbox, client.protocol);
        if client.outbox.len() > limits::SUBSCRIBER_OUTPUT_BYTES_MAX {
            client.kill.cancel();
            client.outbox = Vec::new();
        }
        client.wake.notify_one();
    }
}

fn next_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

pub(super) fn remove_subscriber(subscribers: &mut HashMap<Vec<u8>, Vec<u64>>, name: &[u8], client: u64) {
    if let Some(clients) = subscribers.get_mut(name) {
        clients.retain(|&one| one != client);
        if clients.is_empty() {
            subscribers.remove(name);
        }
    }
}
