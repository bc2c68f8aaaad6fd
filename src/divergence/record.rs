//! What a backend has missed: the keys that were written elsewhere, or of which a write may or may not have been
//! executed there. Bounded in bytes; past the bound the honest answer is "unknown".

use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashSet;

/// Memory of one key beside its bytes: table slot, box and allocator overhead, as measured roughly.
const KEY_OVERHEAD_BYTES: usize = 48;

const NOT_LOOKED_AT: &str = "not looked at yet";

/// How a backend's content relates to what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Holds everything that was acknowledged.
    Clean,
    /// Holds no keys: never stale.
    Empty,
    /// Differs in the recorded keys at most.
    Keys,
    /// Differs in what nobody recorded.
    Unknown,
}

/// A record's size and state, for status and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub state: State,
    /// Keys recorded.
    pub keys: usize,
    /// Bytes that they take, overhead included.
    pub bytes: usize,
    /// Why the state is unknown; empty otherwise.
    pub why: String,
}

/// A key in its database.
pub type DirtyKey = (u32, Box<[u8]>);

/// A key that is looked for, without a copy of it.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct KeyRef<'a>(pub(super) u32, pub(super) &'a [u8]);

impl hashbrown::Equivalent<DirtyKey> for KeyRef<'_> {
    fn equivalent(&self, key: &DirtyKey) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

struct Inner {
    base: State,
    keys: HashSet<DirtyKey, RandomState>,
    bytes: usize,
    why: String,
    /// Grows with every addition: a reconciler that took a batch sees whether more came.
    additions: u64,
}

/// The record of one backend. Workers add, the control plane takes away; each holds the lock for one batch only.
pub struct Record {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

impl Record {
    /// A record of which nothing is known yet: unknown until the backend was looked at.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let why = NOT_LOOKED_AT.to_owned();
        let keys = HashSet::with_hasher(RandomState::default());
        Self { bytes_max, inner: Mutex::new(Inner { base: State::Unknown, keys, bytes: 0, why, additions: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that these keys of a database may differ.
    pub fn dirty<'a>(&self, database: u32, keys: impl IntoIterator<Item = &'a [u8]>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.additions += 1;
        for key in keys {
            if inner.base == State::Unknown {
                return;
            }
            let entry: DirtyKey = (database, key.into());
            if inner.keys.insert(entry) {
                inner.bytes += key.len() + KEY_OVERHEAD_BYTES;
            }
            if inner.bytes > self.bytes_max {
                inner.become_unknown("more keys were written than the record may hold (divergence.record_bytes)");
            }
        }
    }

    /// Records that anything may differ.
    pub fn become_unknown(&self, why: &str) {
        let mut inner = self.lock();
        inner.additions += 1;
        inner.become_unknown(why);
    }

    /// The content was looked at, or made so: `Clean` or `Empty`. Forgets all keys.
    pub fn settle(&self, state: State) {
        debug_assert!(matches!(state, State::Clean | State::Empty));
        let mut inner = self.lock();
        inner.keys = HashSet::with_hasher(RandomState::default());
        inner.bytes = 0;
        inner.why.clear();
        inner.base = state;
    }

    /// Settles only if nothing was added since `additions` was read.
    #[must_use]
    pub fn settle_if_unchanged(&self, state: State, additions: u64) -> bool {
        if self.lock().additions != additions {
            return false;
        }
        self.settle(state);
        true
    }

    /// A number that grows with each addition.
    #[must_use]
    pub fn additions(&self) -> u64 {
        self.lock().additions
    }

    /// Takes up to `n` keys out, to be made right on the backend; [`Self::dirty`] puts back those that could not be.
    #[must_use]
    pub fn take(&self, n: usize) -> Vec<DirtyKey> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let taken: Vec<DirtyKey> = inner.keys.iter().take(n).cloned().collect();
        for key in &taken {
            inner.keys.remove(key);
            inner.bytes -= key.1.len() + KEY_OVERHEAD_BYTES;
        }
        taken
    }

    /// Whether the key is recorded.
    #[must_use]
    pub fn contains(&self, database: u32, key: &[u8]) -> bool {
        self.lock().keys.contains(&KeyRef(database, key))
    }

    /// Whether no key is recorded, whatever the state.
    #[must_use]
    pub fn is_without_keys(&self) -> bool {
        self.lock().keys.is_empty()
    }

    /// State and size.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let inner = self.lock();
        Summary { state: inner.state(), keys: inner.keys.len(), bytes: inner.bytes, why: inner.why.clone() }
    }

    /// State alone.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state()
    }
}

impl Inner {
    fn state(&self) -> State {
        if self.base != State::Unknown && !self.keys.is_empty() { State::Keys } else { self.base }
    }

    fn become_unknown(&mut self, why: &str) {
        // The first reason is the one to mend; that nobody had looked yet is none.
        if self.base != State::Unknown || self.why == NOT_LOOKED_AT {
            why.clone_into(&mut self.why);
        }
        self.base = State::Unknown;
        self.keys = HashSet::with_hasher(RandomState::default());
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(bytes_max: usize) -> Record {
        let record = Record::new(bytes_max);
        record.settle(State::Clean);
        record
    }

    #[test]
    fn a_record_is_unknown_until_the_backend_was_looked_at() {
        let record = Record::new(1024);
        record.dirty(0, [b"k".as_slice()]);
        assert_eq!(record.state(), State::Unknown);
    }

    #[test]
    fn dirty_keys_are_taken_once_and_then_the_backend_is_as_before() {
        let record = clean(1024);
        record.dirty(0, [b"a".as_slice(), b"b", b"a"]);
        record.dirty(1, [b"a".as_slice()]);
        assert_eq!(record.summary().keys, 3);
        assert_eq!(record.state(), State::Keys);
        assert_eq!(record.take(10).len(), 3);
        assert_eq!(record.summary(), Summary { state: State::Clean, keys: 0, bytes: 0, why: String::new() });
    }

    #[test]
    fn past_its_bound_a_record_says_unknown_and_keeps_nothing() {
        let record = clean(200);
        for n in 0..10u8 {
            record.dirty(0, [[n].as_slice()]);
        }
        let summary = record.summary();
        assert_eq!((summary.state, summary.keys, summary.bytes), (State::Unknown, 0, 0));
        assert!(summary.why.contains("divergence.record_bytes"));
    }

    #[test]
    fn settling_is_refused_when_a_key_came_in_between() {
        let record = clean(1024);
        let before = record.additions();
        record.dirty(0, [b"k".as_slice()]);
        assert!(!record.settle_if_unchanged(State::Clean, before));
        assert_eq!(record.state(), State::Keys);
    }
}
