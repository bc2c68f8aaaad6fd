//! A hash map whose entries also stand in a row, so that any of them is found by its position.
//!
//! The keyspace, hashes and sets need three things that a plain hash map lacks: a random entry in constant time
//! (SPOP, RANDOMKEY, eviction), an incremental walk that survives changes (SCAN, the expiry sweep), and an order that
//! stays the same between two reads. Entries stand in a `Vec`; the hash table holds positions only.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

struct Slot<V> {
    hash: u64,
    key: Box<[u8]>,
    value: V,
}

pub(super) struct IndexedMap<V> {
    slots: Vec<Slot<V>>,
    positions: HashTable<usize>,
    hasher: RandomState,
}

impl<V> Default for IndexedMap<V> {
    fn default() -> Self {
        Self { slots: Vec::new(), positions: HashTable::new(), hasher: RandomState::default() }
    }
}

impl<V: Clone> Clone for IndexedMap<V> {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        for (key, value) in self.iter() {
            copy.insert(key, value.clone());
        }
        copy
    }
}

impl<V> IndexedMap<V> {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn position(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.positions.find(hash, |&at| *self.slots[at].key == *key).copied()
    }

    pub(super) fn position_of(&self, key: &[u8]) -> Option<usize> {
        self.position(self.hasher.hash_one(key), key)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        self.position_of(key).map(|at| &self.slots[at].value)
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.position_of(key).is_some()
    }

    /// The entry at `position`; `None` past the end.
    pub(super) fn at(&self, position: usize) -> Option<(&[u8], &V)> {
        self.slots.get(position).map(|slot| (&*slot.key, &slot.value))
    }

    pub(super) fn at_mut(&mut self, position: usize) -> Option<&mut V> {
        self.slots.get_mut(position).map(|slot| &mut slot.value)
    }

    /// Puts `value` under `key` and returns the value that stood there.
    pub(super) fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        if let Some(at) = self.position(hash, key) {
            return Some(std::mem::replace(&mut self.slots[at].value, value));
        }
        self.slots.push(Slot { hash, key: key.into(), value });
        let slots = &self.slots;
        self.positions.insert_unique(hash, slots.len() - 1, |&at| slots[at].hash);
        None
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let at = self.position_of(key)?;
        self.remove_at(at).map(|(_, value)| value)
    }

    /// Removes the entry at `position`; the last entry takes its place.
    pub(super) fn remove_at(&mut self, position: usize) -> Option<(Box<[u8]>, V)> {
        let last = self.slots.len().checked_sub(1)?;
        if position > last {
            return None;
        }
        let hash = self.slots[position].hash;
        if let Ok(found) = self.positions.find_entry(hash, |&at| at == position) {
            found.remove();
        }
        if position != last
            && let Some(moved) = self.positions.find_mut(self.slots[last].hash, |&at| at == last)
        {
            *moved = position;
        }
        let slot = self.slots.swap_remove(position);
        self.give_back_room();
        Some((slot.key, slot.value))
    }

    /// After a mass removal the arrays would keep their peak size for ever.
    fn give_back_room(&mut self) {
        if self.slots.capacity() > 64 && self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
            let slots = &self.slots;
            self.positions.shrink_to(slots.len() * 2, |&at| slots[at].hash);
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &V)> + ExactSizeIterator {
        self.slots.iter().map(|slot| (&*slot.key, &slot.value))
    }

    /// One step of an incremental walk: the positions to visit now and the cursor of the next step (0 at the end).
    ///
    /// The walk goes downwards. A removal moves the last entry into the hole, which is a position that was visited
    /// already or is still to come, so an entry that stays during the whole walk is returned at least once, as SCAN
    /// promises.
    pub(super) fn walk(&self, cursor: u64, count: usize) -> (std::ops::Range<usize>, u64) {
        let end = match usize::try_from(cursor) {
            Ok(0) | Err(_) => self.slots.len(),
            Ok(cursor) => cursor.min(self.slots.len()),
        };
        let start = end.saturating_sub(count.max(1));
        (start..end, start as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entry_that_stays_is_seen_by_a_walk_during_which_others_are_removed() {
        let mut map = IndexedMap::default();
        for number in 0..1000u32 {
            map.insert(number.to_string().as_bytes(), number);
        }
        let mut seen = std::collections::HashSet::new();
        let mut cursor = 0;
        loop {
            let (range, next) = map.walk(cursor, 10);
            seen.extend(range.map(|at| *map.at(at).unwrap().1));
            for victim in (next as u32..next as u32 + 7).filter(|victim| victim % 3 == 0) {
                map.remove(victim.to_string().as_bytes());
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let missed: Vec<u32> = map.iter().map(|(_, number)| *number).filter(|number| !seen.contains(number)).collect();
        assert!(missed.is_empty(), "{missed:?}");
        assert!(map.len() < 1000);
    }

    #[test]
    fn removal_keeps_the_other_keys_findable() {
        let mut map = IndexedMap::default();
        for number in 0..500u32 {
            map.insert(number.to_string().as_bytes(), number);
        }
        for number in (0..500u32).step_by(2) {
            assert_eq!(map.remove(number.to_string().as_bytes()), Some(number));
        }
        for number in 0..500u32 {
            assert_eq!(map.get(number.to_string().as_bytes()).copied(), (number % 2 == 1).then_some(number));
        }
        assert_eq!(map.insert(b"1", 77), Some(1));
    }
}
