//! The five kinds of value. Each knows its accounted bytes, kept up to date by the methods that change it.

use std::collections::VecDeque;

use super::error::{self, Error};
use super::indexed_map::IndexedMap;
use super::sorted_set::SortedSet;

/// Accounted per element of a list, hash or set besides its bytes: the box or vector, its slot and its table position.
const ELEMENT_OVERHEAD_BYTES: usize = 48;

#[derive(Clone)]
pub(super) enum Value {
    String(Vec<u8>),
    List(Box<List>),
    Hash(Box<Hash>),
    Set(Box<Set>),
    SortedSet(Box<SortedSet>),
}

impl Value {
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::String(text) => text.capacity(),
            Self::List(list) => list.bytes,
            Self::Hash(hash) => hash.bytes,
            Self::Set(set) => set.bytes,
            Self::SortedSet(set) => set.memory_bytes(),
        }
    }

    /// Redis keeps no empty collection; an empty string is a value.
    pub(super) fn is_empty_collection(&self) -> bool {
        match self {
            Self::String(_) => false,
            Self::List(list) => list.items.is_empty(),
            Self::Hash(hash) => hash.fields.is_empty(),
            Self::Set(set) => set.members.is_empty(),
            Self::SortedSet(set) => set.is_empty(),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
        }
    }
}

/// A kind of value that a command asks for by type; another kind under its key is a WRONGTYPE error.
pub(super) trait Kind: Default {
    fn of(value: &Value) -> Option<&Self>;
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    fn into_value(self) -> Value;

    fn expect(value: &Value) -> Result<&Self, Error> {
        Self::of(value).ok_or(error::WRONG_TYPE)
    }
}

macro_rules! kind {
    ($type:ty, $variant:ident, $wrap:expr) => {
        impl Kind for $type {
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$variant(inner) = value { Some(inner) } else { None }
            }
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$variant(inner) = value { Some(inner) } else { None }
            }
            fn into_value(self) -> Value {
                Value::$variant($wrap(self))
            }
        }
    };
}
kind!(Vec<u8>, String, std::convert::identity);
kind!(List, List, Box::new);
kind!(Hash, Hash, Box::new);
kind!(Set, Set, Box::new);
kind!(SortedSet, SortedSet, Box::new);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Left,
    Right,
}

#[derive(Clone, Default)]
pub(super) struct List {
    items: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl List {
    pub(super) fn items(&self) -> &VecDeque<Box<[u8]>> {
        &self.items
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn push(&mut self, end: End, item: &[u8]) {
        self.bytes += item.len() + ELEMENT_OVERHEAD_BYTES;
        match end {
            End::Left => self.items.push_front(item.into()),
            End::Right => self.items.push_back(item.into()),
        }
    }

    pub(super) fn pop(&mut self, end: End) -> Option<Box<[u8]>> {
        let item = match end {
            End::Left => self.items.pop_front(),
            End::Right => self.items.pop_back(),
        }?;
        self.bytes -= item.len() + ELEMENT_OVERHEAD_BYTES;
        Some(item)
    }

    pub(super) fn insert(&mut self, at: usize, item: &[u8]) {
        self.bytes += item.len() + ELEMENT_OVERHEAD_BYTES;
        self.items.insert(at, item.into());
    }

    pub(super) fn replace(&mut self, at: usize, item: &[u8]) {
        if let Some(old) = self.items.get_mut(at) {
            self.bytes = self.bytes - old.len() + item.len();
            *old = item.into();
        }
    }

    /// Removes up to `count` items equal to `item`, from the left, or from the right; returns how many.
    pub(super) fn remove_equal(&mut self, item: &[u8], from: End, count: usize) -> usize {
        let equal = self.items.iter().filter(|one| ***one == *item).count();
        let removed = equal.min(count);
        // The items that stay although they are equal: those after the first `removed`, or those before the last.
        let mut to_pass = if from == End::Left { 0 } else { equal - removed };
        let mut to_remove = removed;
        self.items.retain(|one| {
            if **one != *item || to_remove == 0 {
                return true;
            }
            if to_pass > 0 {
                to_pass -= 1;
                return true;
            }
            to_remove -= 1;
            false
        });
        self.bytes -= removed * (item.len() + ELEMENT_OVERHEAD_BYTES);
        removed
    }

    /// Keeps the items from `start` to before `end`.
    pub(super) fn keep(&mut self, start: usize, end: usize) {
        self.items.truncate(end);
        self.items.drain(..start.min(self.items.len()));
        self.bytes = self.items.iter().map(|one| one.len() + ELEMENT_OVERHEAD_BYTES).sum();
    }
}

#[derive(Clone, Default)]
pub(super) struct Hash {
    fields: IndexedMap<Vec<u8>>,
    bytes: usize,
}

impl Hash {
    pub(super) fn fields(&self) -> &IndexedMap<Vec<u8>> {
        &self.fields
    }

    pub(super) fn get(&self, field: &[u8]) -> Option<&Vec<u8>> {
        self.fields.get(field)
    }

    /// Returns true if the field is new.
    pub(super) fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.bytes += value.len();
        match self.fields.insert(field, value.to_vec()) {
            Some(old) => {
                self.bytes -= old.len();
                false
            }
            None => {
                self.bytes += field.len() + ELEMENT_OVERHEAD_BYTES;
                true
            }
        }
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> Option<Vec<u8>> {
        let old = self.fields.remove(field)?;
        self.bytes -= old.len() + field.len() + ELEMENT_OVERHEAD_BYTES;
        Some(old)
    }
}

#[derive(Clone, Default)]
pub(super) struct Set {
    members: IndexedMap<()>,
    bytes: usize,
}

impl Set {
    pub(super) fn members(&self) -> &IndexedMap<()> {
        &self.members
    }

    pub(super) fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(member)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns true if the member is new.
    pub(super) fn add(&mut self, member: &[u8]) -> bool {
        let new = self.members.insert(member, ()).is_none();
        if new {
            self.bytes += member.len() + ELEMENT_OVERHEAD_BYTES;
        }
        new
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        let removed = self.members.remove(member).is_some();
        if removed {
            self.bytes -= member.len() + ELEMENT_OVERHEAD_BYTES;
        }
        removed
    }

    pub(super) fn remove_at(&mut self, position: usize) -> Option<Box<[u8]>> {
        let (member, ()) = self.members.remove_at(position)?;
        self.bytes -= member.len() + ELEMENT_OVERHEAD_BYTES;
        Some(member)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.members.iter().map(|(member, ())| member)
    }
}
