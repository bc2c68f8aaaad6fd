//! Keys that clients read on the active, offered to a backend that is kept in step and may lack them (`mirror.read_fill`).
//! The workers offer, one task of the control plane takes; neither waits for the other. What there is no room for is
//! forgotten: it will be read again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::record::{DirtyKey, KeyRef};
use crate::limits::{READ_KEYS_BYTES_MAX, READ_KEYS_MAX};

/// See the head of this file.
#[derive(Default)]
pub struct ReadKeys {
    inner: Mutex<Inner>,
    /// Asked before anything else: while nothing is taken, a read costs one look here.
    is_full: AtomicBool,
    taken: AtomicU64,
}

#[derive(Default)]
struct Inner {
    keys: HashSet<DirtyKey, RandomState>,
    bytes: usize,
}

impl ReadKeys {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is worth offering anything.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed)
    }

    /// Offers a key; false when there is no room for it.
    pub fn offer(&self, database: u32, key: &[u8]) -> bool {
        let mut inner = self.lock();
        if inner.keys.contains(&KeyRef(database, key)) {
            return true;
        }
        if inner.keys.len() >= READ_KEYS_MAX || inner.bytes + key.len() > READ_KEYS_BYTES_MAX {
            self.is_full.store(true, Ordering::Relaxed);
            return false;
        }
        inner.bytes += key.len();
        inner.keys.insert((database, key.into()));
        true
    }

    /// Takes up to `n` keys out, in the order of their databases.
    #[must_use]
    pub fn take(&self, n: usize) -> Vec<DirtyKey> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let mut keys: Vec<DirtyKey> = inner.keys.iter().take(n).cloned().collect();
        for key in &keys {
            inner.keys.remove(key);
            inner.bytes -= key.1.len();
        }
        self.is_full.store(false, Ordering::Relaxed);
        keys.sort_by_key(|(database, _)| *database);
        self.taken.fetch_add(keys.len() as u64, Ordering::Relaxed);
        keys
    }

    /// Forgets what was offered.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
        self.is_full.store(false, Ordering::Relaxed);
    }

    /// Keys that were taken out since the start.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_once_for_each_database_and_taken_in_their_order() {
        let keys = ReadKeys::default();
        for (database, key) in [(1, b"a"), (0, b"a"), (1, b"a"), (0, b"b")] {
            assert!(keys.offer(database, key));
        }
        let taken = keys.take(9);
        assert_eq!(taken.iter().map(|(database, _)| *database).collect::<Vec<_>>(), [0, 0, 1]);
        assert!(keys.take(9).is_empty());
        assert_eq!(keys.taken(), 3);
    }

    #[test]
    fn what_there_is_no_room_for_is_refused_until_something_is_taken() {
        let keys = ReadKeys::default();
        for n in 0..READ_KEYS_MAX {
            assert!(keys.offer(0, &n.to_be_bytes()) && keys.has_room());
        }
        assert!(!keys.offer(0, b"one too many") && !keys.has_room());
        assert_eq!(keys.take(10).len(), 10);
        assert!(keys.has_room() && keys.offer(0, b"one too many"));
    }

    #[test]
    fn long_keys_are_bounded_in_bytes() {
        let keys = ReadKeys::default();
        let long = vec![b'k'; READ_KEYS_BYTES_MAX / 2];
        assert!(keys.offer(0, &long) && keys.offer(1, &long));
        assert!(!keys.offer(2, b"k"));
        keys.clear();
        assert!(keys.offer(2, &long));
    }
}
