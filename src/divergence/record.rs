//! What a backend has missed: the keys that were written elsewhere, or of which a write may or may not have been
//! executed there. Bounded in bytes; past the bound the honest answer is "unknown".

use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::copy::{Ahead, Carrier, append, seal};
use crate::command::{SLOTS, slot_of};

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
    /// With who has written each ahead, see `copy`.
    keys: HashMap<DirtyKey, Carrier, RandomState>,
    bytes: usize,
    why: String,
    /// Grows with every addition: a reconciler that took a batch sees whether more came.
    additions: u64,
    /// Who has written ahead that anything may differ.
    unknown_carrier: Carrier,
    /// Keys by hash slot; only while two backends serve.
    slots: Option<Box<[u32]>>,
}

/// The record of one backend. Workers add, the control plane takes away; each holds the lock for one batch only.
pub struct Record {
    bytes_max: usize,
    doubts_scripts: bool,
    inner: Mutex<Inner>,
}

impl Record {
    /// A record of which nothing is known yet: unknown until the backend was looked at.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let why = NOT_LOOKED_AT.to_owned();
        let keys = HashMap::with_hasher(RandomState::default());
        Self {
            bytes_max,
            doubts_scripts: false,
            inner: Mutex::new(Inner {
                base: State::Unknown,
                keys,
                bytes: 0,
                why,
                additions: 0,
                unknown_carrier: Carrier::NOBODY,
                slots: None,
            }),
        }
    }

    /// Whether a script may have written any key, whatever it declares.
    #[must_use]
    pub fn doubting_scripts(self, doubts_scripts: bool) -> Self {
        Self { doubts_scripts, ..self }
    }

    /// Whether [`Self::doubting_scripts`] was said.
    #[must_use]
    pub fn doubts_scripts(&self) -> bool {
        self.doubts_scripts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that these keys of a database may differ.
    pub fn dirty<'a>(&self, database: u32, keys: impl IntoIterator<Item = &'a [u8]>) {
        self.dirty_ahead(database, keys, None);
    }

    /// As [`Self::dirty`]; what the server that serves has not been told of this backend, by its number, goes into `ahead`.
    pub fn dirty_ahead<'a>(
        &self,
        database: u32,
        keys: impl IntoIterator<Item = &'a [u8]>,
        mut ahead: Option<(u8, &mut Ahead)>,
    ) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.additions += 1;
        for key in keys {
            if inner.base == State::Unknown {
                return inner.carry_unknown(ahead);
            }
            if inner.slots.is_some() && !inner.keys.contains_key(&KeyRef(database, key)) {
                inner.count(key, true);
            }
            let carrier = match inner.keys.entry((database, key.into())) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    inner.bytes += key.len() + KEY_OVERHEAD_BYTES;
                    new.insert(Carrier::NOBODY)
                }
            };
            if let Some((backend, ahead)) = &mut ahead {
                ahead.carry(*backend, carrier, Some((database, key)));
            }
            if inner.bytes > self.bytes_max {
                inner.become_unknown("more keys were written than the record may hold (divergence.record_bytes)");
                return inner.carry_unknown(ahead);
            }
        }
    }

    /// Records that anything may differ.
    pub fn become_unknown(&self, why: &str) {
        self.become_unknown_ahead(why, None);
    }

    /// As [`Self::become_unknown`], said ahead.
    pub fn become_unknown_ahead(&self, why: &str, ahead: Option<(u8, &mut Ahead)>) {
        let mut inner = self.lock();
        inner.additions += 1;
        inner.become_unknown(why);
        inner.carry_unknown(ahead);
    }

    /// The server that serves in this incident has what a link wrote ahead; no key: that anything may differ.
    pub fn confirm(&self, database: u32, key: &[u8], incident: u32, link: u32) {
        let mut inner = self.lock();
        if let Some(carrier) = inner.keys.get_mut(&KeyRef(database, key)) {
            carrier.confirm(incident, link);
        }
    }

    /// As [`Self::confirm`], that anything may differ.
    pub fn confirm_unknown(&self, incident: u32, link: u32) {
        self.lock().unknown_carrier.confirm(incident, link);
    }

    /// Blocks of keys that nobody has written ahead in this incident, at most `bytes` each. From now on they count as
    /// written: a caller that cannot write them must give the whole copy up.
    #[must_use]
    pub fn copy_missing(&self, backend: u8, incident: u32, bytes: usize) -> Vec<Vec<u8>> {
        let mut inner = self.lock();
        let (mut blocks, mut block) = (Vec::new(), Vec::new());
        for ((database, key), carrier) in inner.keys.iter_mut().filter(|(_, carrier)| !carrier.is_of(incident)) {
            *carrier = Carrier::confirmed(incident);
            append(&mut block, backend, Some((*database, key)));
            if block.len() >= bytes {
                blocks.push(seal(&std::mem::take(&mut block)));
            }
        }
        if !block.is_empty() {
            blocks.push(seal(&block));
        }
        blocks
    }

    /// The content was looked at, or made so: `Clean` or `Empty`. Forgets all keys.
    pub fn settle(&self, state: State) {
        debug_assert!(matches!(state, State::Clean | State::Empty));
        let mut inner = self.lock();
        inner.clear();
        inner.why.clear();
        inner.base = state;
    }

    /// Whether it held nothing when it was looked at. Keys that were recorded since by workers that acted on an older route
    /// make it no fuller.
    #[must_use]
    pub fn began_empty(&self) -> bool {
        self.lock().base == State::Empty
    }

    /// It held nothing and is filled from now on: what is recorded stays so.
    pub fn begin_to_fill(&self) {
        let mut inner = self.lock();
        if inner.base == State::Empty {
            inner.base = State::Clean;
        }
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
        let taken: Vec<DirtyKey> = inner.keys.keys().take(n).cloned().collect();
        for key in &taken {
            inner.remove(key);
        }
        taken
    }

    /// Whether the key is recorded.
    #[must_use]
    pub fn contains(&self, database: u32, key: &[u8]) -> bool {
        self.lock().keys.contains_key(&KeyRef(database, key))
    }

    /// Begins or ends to count keys by hash slot.
    pub fn count_slots(&self, counts: bool) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.slots = counts.then(|| vec![0; usize::from(SLOTS)].into_boxed_slice());
        if let Some(slots) = &mut inner.slots {
            for (_, key) in inner.keys.keys() {
                slots[usize::from(slot_of(key))] += 1;
            }
        }
    }

    /// Whether a key of this hash slot is recorded; yes while slots are not counted.
    #[must_use]
    pub fn has_any_of(&self, slot: u16) -> bool {
        self.lock().slots.as_ref().is_none_or(|slots| slots[usize::from(slot)] > 0)
    }

    /// Forgets the keys of which `is_right` says yes.
    pub fn forget(&self, is_right: impl Fn(&[u8]) -> bool) {
        let mut inner = self.lock();
        let right: Vec<DirtyKey> = inner.keys.keys().filter(|(_, key)| is_right(key)).cloned().collect();
        for key in &right {
            inner.remove(key);
        }
    }

    /// Whether keys of so many bytes fit that nobody has written, without coming near the bound for those that somebody has.
    #[must_use]
    pub fn has_room_for(&self, keys: usize, bytes: usize) -> bool {
        self.lock().bytes + bytes + keys * KEY_OVERHEAD_BYTES <= self.bytes_max / 2
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
    fn carry_unknown(&mut self, ahead: Option<(u8, &mut Ahead)>) {
        if let Some((backend, ahead)) = ahead {
            ahead.carry(backend, &mut self.unknown_carrier, None);
        }
    }

    fn state(&self) -> State {
        if self.base != State::Unknown && !self.keys.is_empty() { State::Keys } else { self.base }
    }

    fn count(&mut self, key: &[u8], comes: bool) {
        if let Some(slots) = &mut self.slots {
            let count = &mut slots[usize::from(slot_of(key))];
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    fn remove(&mut self, key: &DirtyKey) {
        self.keys.remove(key);
        self.bytes -= key.1.len() + KEY_OVERHEAD_BYTES;
        self.count(&key.1, false);
    }

    fn clear(&mut self) {
        self.keys = HashMap::with_hasher(RandomState::default());
        self.bytes = 0;
        if let Some(slots) = &mut self.slots {
            slots.fill(0);
        }
    }

    fn become_unknown(&mut self, why: &str) {
        // The first reason is the one to mend; that nobody had looked yet is none.
        if self.base != State::Unknown || self.why == NOT_LOOKED_AT {
            why.clone_into(&mut self.why);
        }
        self.base = State::Unknown;
        self.clear();
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
    fn a_backend_that_was_found_empty_is_to_be_filled_also_when_keys_were_recorded_since() {
        let record = Record::new(1024);
        record.settle(State::Empty);
        record.dirty(0, [b"late".as_slice()]);
        assert_eq!((record.state(), record.began_empty()), (State::Keys, true));
        record.begin_to_fill();
        assert!(record.contains(0, b"late") && !record.began_empty());
        assert_eq!((record.take(9).len(), record.state()), (1, State::Clean));
        record.become_unknown("why");
        record.begin_to_fill();
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
    fn keys_that_nobody_wrote_take_half_of_the_room_at_most() {
        let record = clean(4 * (KEY_OVERHEAD_BYTES + 1));
        assert!(record.has_room_for(2, 2) && !record.has_room_for(3, 3));
        record.dirty(0, [b"a".as_slice()]);
        assert!(record.has_room_for(1, 1) && !record.has_room_for(2, 2));
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
