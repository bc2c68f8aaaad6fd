//! One numbered database: keys, their values and their expiry.
//!
//! Every change of a value goes through `update`, `upsert`, `put` or `remove`, which keep the accounted bytes, the
//! version that WATCH compares and the rule that no collection is empty.

use super::error::{self, Error};
use super::indexed_map::IndexedMap;
use super::value::{Kind, Value};

/// Accounted per key besides its bytes: slot, table position, value header.
const KEY_OVERHEAD_BYTES: usize = 96;

pub(super) struct Entry {
    pub(super) value: Value,
    /// Milliseconds since 1970; `None` for a key that stays.
    pub(super) expires_at_ms: Option<u64>,
    /// When it was last read or written, for the eviction.
    pub(super) used_at_ms: u64,
    /// Never the same for two contents of one key; 0 is no version.
    version: u64,
}

/// Counters since start, summed over the databases for INFO.
#[derive(Default, Clone, Copy)]
pub(super) struct Counters {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) expired: u64,
    pub(super) evicted: u64,
}

pub(super) struct Database {
    entries: IndexedMap<Entry>,
    memory_bytes: usize,
    expiring: usize,
    version: u64,
    /// The clock of the command that runs now, handed in by the store.
    pub(super) now_ms: u64,
    pub(super) counters: Counters,
    sweep_cursor: u64,
    /// Keys of lists and sorted sets that got elements, for clients that wait; emptied by the dispatcher.
    pub(super) filled: Vec<Box<[u8]>>,
    /// Set while any client waits in this database, so that nobody else pays for `filled`.
    pub(super) has_waiters: bool,
}

fn entry_bytes(key: &[u8], value: &Value) -> usize {
    key.len() + KEY_OVERHEAD_BYTES + value.memory_bytes()
}

impl Database {
    /// `number` keeps the versions of two databases apart, or SWAPDB could hide a change from WATCH.
    pub(super) fn new(number: usize) -> Self {
        Self {
            entries: IndexedMap::default(),
            memory_bytes: 0,
            expiring: 0,
            version: (number as u64) << 48,
            now_ms: 0,
            counters: Counters::default(),
            sweep_cursor: 0,
            filled: Vec::new(),
            has_waiters: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn expiring(&self) -> usize {
        self.expiring
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// All entries by position, the expired ones that nobody has touched yet included.
    pub(super) fn entries(&self) -> &IndexedMap<Entry> {
        &self.entries
    }

    pub(super) fn is_expired(&self, entry: &Entry) -> bool {
        entry.expires_at_ms.is_some_and(|at| at <= self.now_ms)
    }

    /// Where the live entry of `key` stands; an expired one is removed first.
    fn find(&mut self, key: &[u8]) -> Option<usize> {
        let at = self.entries.position_of(key)?;
        let (_, entry) = self.entries.at(at)?;
        if self.is_expired(entry) {
            self.forget(at);
            self.counters.expired += 1;
            return None;
        }
        Some(at)
    }

    fn forget(&mut self, position: usize) -> Option<Entry> {
        let (key, entry) = self.entries.remove_at(position)?;
        self.memory_bytes -= entry_bytes(&key, &entry.value);
        self.expiring -= usize::from(entry.expires_at_ms.is_some());
        Some(entry)
    }

    /// The live entry, without counting as a use: for TTL, TYPE, OBJECT, WATCH.
    pub(super) fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        let at = self.find(key)?;
        self.entries.at(at).map(|(_, entry)| entry)
    }

    pub(super) fn contains(&mut self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// The live value; counts as a use, and as a hit or a miss.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<&Value> {
        let Some(at) = self.find(key) else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        let now_ms = self.now_ms;
        let entry = self.entries.at_mut(at)?;
        entry.used_at_ms = now_ms;
        Some(&entry.value)
    }

    pub(super) fn read<K: Kind>(&mut self, key: &[u8]) -> Result<Option<&K>, Error> {
        self.get(key).map(K::expect).transpose()
    }

    /// A second look at an entry that `read` has just found: several at once, which `read` cannot lend.
    pub(super) fn lend<K: Kind>(&self, key: &[u8]) -> Option<&K> {
        self.entries.get(key).filter(|entry| !self.is_expired(entry)).and_then(|entry| K::of(&entry.value))
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Changes the value of a key that exists; `None` if it does not.
    pub(super) fn update<K: Kind, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut K) -> R,
    ) -> Result<Option<R>, Error> {
        let Some(at) = self.find(key) else { return Ok(None) };
        let version = self.next_version();
        let now_ms = self.now_ms;
        let Some(entry) = self.entries.at_mut(at) else { return Ok(None) };
        let before = entry.value.memory_bytes();
        let result = change(K::of_mut(&mut entry.value).ok_or(error::WRONG_TYPE)?);
        let after = entry.value.memory_bytes();
        entry.version = version;
        entry.used_at_ms = now_ms;
        let emptied = entry.value.is_empty_collection();
        self.memory_bytes = self.memory_bytes - before + after;
        if emptied {
            self.forget(at);
        } else if after > before {
            self.note_filled(key);
        }
        Ok(Some(result))
    }

    /// Changes the value of a key, which is made if it does not exist.
    pub(super) fn upsert<K: Kind, R>(&mut self, key: &[u8], change: impl FnOnce(&mut K) -> R) -> Result<R, Error> {
        if self.contains(key) {
            return self.update(key, change)?.ok_or(error::NO_SUCH_KEY);
        }
        let mut made = K::default();
        let result = change(&mut made);
        let value = made.into_value();
        if !value.is_empty_collection() {
            self.put(key, value, None);
        }
        Ok(result)
    }

    /// Puts a whole value under a key, in place of whatever was there.
    pub(super) fn put(&mut self, key: &[u8], value: Value, expires_at_ms: Option<u64>) {
        let version = self.next_version();
        self.memory_bytes += entry_bytes(key, &value);
        self.expiring += usize::from(expires_at_ms.is_some());
        if !matches!(value, Value::String(_)) {
            self.note_filled(key);
        }
        let entry = Entry { value, expires_at_ms, used_at_ms: self.now_ms, version };
        if let Some(old) = self.entries.insert(key, entry) {
            self.memory_bytes -= entry_bytes(key, &old.value);
            self.expiring -= usize::from(old.expires_at_ms.is_some());
        }
    }

    fn note_filled(&mut self, key: &[u8]) {
        if self.has_waiters {
            self.filled.push(key.into());
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let at = self.find(key)?;
        self.forget(at)
    }

    /// Sets or clears the expiry. Returns false if there is no such key.
    pub(super) fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>) -> bool {
        let Some(at) = self.find(key) else { return false };
        let version = self.next_version();
        let Some(entry) = self.entries.at_mut(at) else { return false };
        let before = entry.expires_at_ms.is_some();
        entry.expires_at_ms = expires_at_ms;
        entry.version = version;
        self.expiring = self.expiring - usize::from(before) + usize::from(expires_at_ms.is_some());
        true
    }

    /// What WATCH remembers of a key: 0 if it does not exist.
    pub(super) fn version_of(&mut self, key: &[u8]) -> u64 {
        self.peek(key).map_or(0, |entry| entry.version)
    }

    pub(super) fn clear(&mut self) {
        self.entries = IndexedMap::default();
        self.memory_bytes = 0;
        self.expiring = 0;
        self.sweep_cursor = 0;
    }

    /// After SWAPDB the keys have come to other waiters.
    pub(super) fn note_all_filled(&mut self) {
        if self.has_waiters {
            self.filled.extend(self.entries.iter().map(|(key, _)| Box::from(key)));
        }
    }

    /// Looks at the next `count` entries and removes the expired ones.
    pub(super) fn sweep(&mut self, count: usize) {
        if self.expiring == 0 {
            return;
        }
        let (range, next) = self.entries.walk(self.sweep_cursor, count);
        self.sweep_cursor = next;
        for position in range.rev() {
            if self.entries.at(position).is_some_and(|(_, entry)| self.is_expired(entry)) {
                self.forget(position);
                self.counters.expired += 1;
            }
        }
    }

    /// Removes one entry for want of memory: the best victim of a few at random positions.
    pub(super) fn evict(&mut self, soonest_expiry_first: bool, mut random: impl FnMut() -> u64) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let cost = |entry: &Entry| match entry.expires_at_ms {
            Some(at) if soonest_expiry_first => (0, at),
            _ => (1, entry.used_at_ms),
        };
        let victim = (0..EVICTION_SAMPLES)
            .map(|_| (random() % self.entries.len() as u64) as usize)
            .filter_map(|at| self.entries.at(at).map(|(_, entry)| (cost(entry), at)))
            .min();
        let Some((_, at)) = victim else { return false };
        self.forget(at);
        self.counters.evicted += 1;
        true
    }
}

/// Redis samples 5 into a pool that it keeps; without the pool, 10 comes as near to true LRU.
const EVICTION_SAMPLES: usize = 10;
