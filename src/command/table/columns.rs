//! The vocabulary in which the rows are written.

pub(super) use super::super::Category::{self, Accumulating, Checked, LastWriteWins, Never, Read};
pub(super) use super::super::Class::{self, Blocking, MultiKey, PointRead, Script, Slow, Write};
use super::super::keys::{Access, Find, KeyRange, KeyScope, KeySpec};
pub(super) use super::super::retry::Refinement;
pub(super) use super::super::{Handling, Spec, Timeout};
use crate::command::Flags;

pub(super) const WRITE: u32 = Flags::WRITE.bits();
pub(super) const READONLY: u32 = Flags::READONLY.bits();
pub(super) const DENYOOM: u32 = Flags::DENYOOM.bits();
pub(super) const ADMIN: u32 = Flags::ADMIN.bits();
pub(super) const PUBSUB: u32 = Flags::PUBSUB.bits();
pub(super) const NOSCRIPT: u32 = Flags::NOSCRIPT.bits();
pub(super) const BLOCKING: u32 = Flags::BLOCKING.bits();
pub(super) const LOADING: u32 = Flags::LOADING.bits();
pub(super) const STALE: u32 = Flags::STALE.bits();
pub(super) const FAST: u32 = Flags::FAST.bits();
pub(super) const NO_AUTH: u32 = Flags::NO_AUTH.bits();
pub(super) const MOVABLEKEYS: u32 = Flags::MOVABLEKEYS.bits();
pub(super) const NO_MULTI: u32 = Flags::NO_MULTI.bits();

/// One row: name, arity, latency class, retry category, flags, keys.
pub(super) const fn command(
    name: &'static str,
    arity: i16,
    class: Class,
    category: Category,
    flags: u32,
    keys: KeySpec,
) -> Spec {
    Spec {
        name,
        arity,
        handling: Handling::Shared,
        class,
        category,
        flags: Flags::from_bits(flags),
        keys,
        subcommands: &[],
        refinement: Refinement::None,
        timeout: Timeout::None,
    }
}

impl Spec {
    pub(super) const fn handled(mut self, handling: Handling) -> Spec {
        self.handling = handling;
        self
    }

    pub(super) const fn containing(mut self, subcommands: &'static [Spec]) -> Spec {
        self.subcommands = subcommands;
        self
    }

    pub(super) const fn refined(mut self, refinement: Refinement) -> Spec {
        self.refinement = refinement;
        self
    }

    /// A blocking command, with the place of its time.
    pub(super) const fn waiting(mut self, timeout: Timeout) -> Spec {
        self.handling = Handling::Blocking;
        self.timeout = timeout;
        self
    }
}

pub(super) const NO_KEYS: KeySpec = KeySpec { scope: KeyScope::None, ranges: [None; 3] };
pub(super) const DATABASE: KeySpec = KeySpec { scope: KeyScope::Database, ranges: [None; 3] };
pub(super) const EVERYTHING: KeySpec = KeySpec { scope: KeyScope::Everything, ranges: [None; 3] };
pub(super) const READ_KEY: KeySpec = read(1, 1, 1);
pub(super) const WRITTEN_KEY: KeySpec = write(1, 1, 1);
/// The first moves to the second; both change.
pub(super) const MOVED: KeySpec = both(write_range(1, 1, 1), write_range(2, 2, 1));
/// A destination, then sources.
pub(super) const STORED: KeySpec = both(write_range(1, 1, 1), read_range(2, -1, 1));
pub(super) const STORED_ONE: KeySpec = both(write_range(1, 1, 1), read_range(2, 2, 1));
pub(super) const STORED_COUNTED: KeySpec = both(write_range(1, 1, 1), range(Access::Read, Find::Counted(2, 3, 1)));
pub(super) const SORT: KeySpec = both(read_range(1, 1, 1), range(Access::Write, Find::SortStore));
pub(super) const SORT_RO: KeySpec = both(read_range(1, 1, 1), range(Access::Read, Find::SortStore));
pub(super) const GEORADIUS: KeySpec = both(read_range(1, 1, 1), range(Access::Write, Find::GeoStore));
pub(super) const MIGRATE: KeySpec = one(range(Access::Write, Find::Migrate));

/// Keys from `first` to `last` (negative: from the end, -1 is the last argument), every `step`th.
pub(super) const fn read(first: i16, last: i16, step: i16) -> KeySpec {
    one(read_range(first, last, step))
}

pub(super) const fn write(first: i16, last: i16, step: i16) -> KeySpec {
    one(write_range(first, last, step))
}

/// As many keys as the argument at `count` says, from `first`, every `step`th.
pub(super) const fn read_counted(count: i16, first: i16, step: i16) -> KeySpec {
    one(range(Access::Read, Find::Counted(count, first, step)))
}

pub(super) const fn write_counted(count: i16, first: i16, step: i16) -> KeySpec {
    one(range(Access::Write, Find::Counted(count, first, step)))
}

pub(super) const fn read_streams() -> KeySpec {
    one(range(Access::Read, Find::Streams))
}

pub(super) const fn write_streams() -> KeySpec {
    one(range(Access::Write, Find::Streams))
}

pub(super) const fn both(one: KeyRange, other: KeyRange) -> KeySpec {
    KeySpec { scope: KeyScope::Keys, ranges: [Some(one), Some(other), None] }
}

pub(super) const fn read_range(first: i16, last: i16, step: i16) -> KeyRange {
    range(Access::Read, Find::Range(first, last, step))
}

pub(super) const fn write_range(first: i16, last: i16, step: i16) -> KeyRange {
    range(Access::Write, Find::Range(first, last, step))
}

const fn one(range: KeyRange) -> KeySpec {
    KeySpec { scope: KeyScope::Keys, ranges: [Some(range), None, None] }
}

const fn range(access: Access, find: Find) -> KeyRange {
    KeyRange { access, find }
}
