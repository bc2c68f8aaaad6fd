//! Where the keys of each hash slot are at home while two backends serve: on the old one, or on the next one. What is
//! written at home is mirrored to the other side.
//!
//! A slot changes its home only while nothing of it is under way and the side that it moves to has confirmed everything
//! that was written to it: so no request ever meets an older value than one that was acknowledged before it. Requests hold
//! a *lease* on the slots of their keys from before they are sent until they are answered; a lease is on the side where
//! the slot is at home then, and others on the same side share it. Whoever needs a slot on the other side asks for it: new
//! leases wait until it has moved.
//!
//! Invariants: a word changes only by compare-and-swap, and each change counts up its version, so that a slot never moves
//! on the word of a look that is out of date; leases are counted in the same word as the home.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::mirror::Mirror;
use super::record::{Record, State};
use crate::command::{SLOTS, slot_of};

/// One of the two backends that serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that served alone before.
    Old,
    Next,
}

impl Side {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Old => Self::Next,
            Self::Next => Self::Old,
        }
    }
}

/// What both sides still miss of each other.
#[derive(Clone, Copy)]
pub struct Sides<'a> {
    pub old: (&'a Mirror, &'a Record),
    pub next: (&'a Mirror, &'a Record),
}

impl Sides<'_> {
    /// Whether a side has confirmed everything that was written to a slot on the other one.
    fn has_all_of(&self, side: Side, slot: u16) -> bool {
        let (mirror, record) = match side {
            Side::Old => self.old,
            Side::Next => self.next,
        };
        mirror.has_all_of(slot, record) && record.state() != State::Unknown
    }

    /// Whether anything can move to a side now.
    fn can_take(&self, side: Side) -> bool {
        let (mirror, record) = match side {
            Side::Old => self.old,
            Side::Next => self.next,
        };
        mirror.is_open() && record.state() != State::Unknown
    }
}

/// A slot that was asked for, that nobody uses, and that has not moved within this stays where it is.
const IDLE_MS_MAX: u32 = 50;

/// A word: the home, whether the other side is asked for, leases, version.
const NEXT: u64 = 1;
const ASKED: u64 = 2;
const LEASE: u64 = 4;
const LEASES: u64 = 0xF_FFFF * LEASE;
const VERSION: u64 = LEASES + LEASE;

/// See the head of this file.
pub struct Homes {
    words: Box<[AtomicU64]>,
    /// Leases of connections that hold theirs for as long as their client likes (WATCH, BLPOP), by slot: nobody waits for
    /// those.
    kept: Box<[AtomicU32]>,
    /// How often each slot has moved.
    moves: Box<[AtomicU32]>,
    /// Since when a slot has been asked for that nobody uses, in milliseconds since the origin; 0 for not.
    idle_ms: Box<[AtomicU32]>,
    /// When a slot was last needed on the old side against its share, in milliseconds since the origin.
    borrowed_ms: Box<[AtomicU32]>,
    /// Requests that read all keys wait: the next side takes no writes until the old one has everything.
    readers: AtomicU32,
    /// Why it must end, once a request came that both sides would have to execute at the same moment.
    end: Mutex<Option<String>>,
}

impl std::fmt::Debug for Homes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Homes").field("on_next", &self.on_next()).finish_non_exhaustive()
    }
}

impl Default for Homes {
    fn default() -> Self {
        Self {
            words: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            kept: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            moves: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            idle_ms: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            borrowed_ms: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            readers: AtomicU32::new(0),
            end: Mutex::new(None),
        }
    }
}

const fn home(word: u64) -> Side {
    if word & NEXT == 0 { Side::Old } else { Side::Next }
}

const fn leases(word: u64) -> u64 {
    (word & LEASES) / LEASE
}

/// The same word one version later.
const fn changed(word: u64) -> u64 {
    word.wrapping_add(VERSION)
}

impl Homes {
    /// Where a key is at home now: what is there is its value.
    #[must_use]
    pub fn home(&self, key: &[u8]) -> Side {
        home(self.words[usize::from(slot_of(key))].load(Ordering::Acquire))
    }

    /// How often the slot of a key has moved: as long as that is the same, its home is.
    #[must_use]
    pub fn moves(&self, key: &[u8]) -> u32 {
        self.moves[usize::from(slot_of(key))].load(Ordering::Acquire)
    }

    /// How many slots are at home on the next side.
    #[must_use]
    pub fn on_next(&self) -> usize {
        self.words.iter().filter(|word| home(word.load(Ordering::Acquire)) == Side::Next).count()
    }

    /// Leases a slot on a side, which moves there if nothing stands against it. If something does and `asks`, new leases on
    /// the other side wait from now on.
    fn take(&self, sides: &Sides<'_>, slot: u16, side: Side, asks: bool) -> bool {
        let cell = &self.words[usize::from(slot)];
        let mut word = cell.load(Ordering::Acquire);
        loop {
            let is_home = home(word) == side;
            let next = if is_home && word & ASKED == 0 {
                changed(word) + LEASE
            } else if !is_home && leases(word) == 0 && sides.has_all_of(side, slot) {
                (changed(word) ^ NEXT) & !ASKED | LEASE
            } else if !is_home && asks && word & ASKED == 0 && sides.can_take(side) {
                changed(word) | ASKED
            } else {
                return false;
            };
            match cell.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if next & LEASES == word & LEASES => return false,
                Ok(_) => {
                    self.note_move(slot, word, next);
                    return true;
                }
                Err(now) => word = now,
            }
        }
    }

    fn note_move(&self, slot: u16, before: u64, after: u64) {
        if (before ^ after) & NEXT != 0 {
            self.moves[usize::from(slot)].fetch_add(1, Ordering::AcqRel);
        }
    }

    fn give(&self, slot: u16) {
        let cell = &self.words[usize::from(slot)];
        let _ = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            debug_assert!(leases(word) > 0, "a lease is given back once");
            Some(changed(word) - LEASE)
        });
    }

    /// Leases all slots on one side, or none. `keeps` says that the lease may last for as long as a client likes.
    #[must_use]
    pub fn lease(self: &Arc<Self>, sides: &Sides<'_>, slots: &[u16], side: Side, keeps: bool) -> Option<Lease> {
        let mut lease = self.empty_lease(side, keeps);
        slots.iter().all(|slot| lease.add(sides, *slot, false)).then_some(lease)
    }

    /// A lease on nothing yet.
    #[must_use]
    pub fn empty_lease(self: &Arc<Self>, side: Side, keeps: bool) -> Lease {
        Lease { homes: Arc::clone(self), slots: Vec::new(), side, keeps }
    }

    /// Slots that were needed on the old side though their share is on the next one.
    pub fn note_borrowed(&self, slots: &[u16], now_ms: u32) {
        for slot in slots {
            self.borrowed_ms[usize::from(*slot)].store(now_ms, Ordering::Relaxed);
        }
    }

    /// Brings slots home that nobody uses: those below `moved` to the next side, the others to the old one. Those that are
    /// always in use are asked for, but for those that were needed elsewhere in the last `borrow_ms`, and those that
    /// somebody keeps. Returns how many are not at home yet.
    pub fn settle(&self, sides: &Sides<'_>, moved: u16, now_ms: u32, borrow_ms: u32) -> usize {
        let mut left = 0;
        let can_take = [sides.can_take(Side::Old), sides.can_take(Side::Next)];
        for slot in 0..SLOTS {
            let side = if slot < moved { Side::Next } else { Side::Old };
            let cell = &self.words[usize::from(slot)];
            let word = cell.load(Ordering::Acquire);
            if home(word) == side {
                // Asked for by someone who has left, perhaps, or whom it cannot move to.
                if self.is_asked_in_vain(slot, word, can_take[usize::from(side == Side::Old)], now_ms) {
                    let _ = cell.compare_exchange(word, changed(word) & !ASKED, Ordering::AcqRel, Ordering::Acquire);
                }
                continue;
            }
            let at = usize::from(slot);
            let since = now_ms.wrapping_sub(self.borrowed_ms[at].load(Ordering::Relaxed));
            let is_free = leases(word) == 0;
            let may_take = can_take[usize::from(side == Side::Next)];
            let next = if is_free && may_take && sides.has_all_of(side, slot) {
                (changed(word) ^ NEXT) & !ASKED
            } else if self.is_asked_in_vain(slot, word, may_take, now_ms) {
                // Whoever comes is served where it is.
                self.borrowed_ms[at].store(now_ms, Ordering::Relaxed);
                changed(word) & !ASKED
            } else if word & ASKED == 0 && may_take && since >= borrow_ms && self.kept[at].load(Ordering::Acquire) == 0
            {
                changed(word) | ASKED
            } else {
                word
            };
            let done = next == word || cell.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if done {
                self.note_move(slot, word, next);
            }
            left += usize::from(!(done && (next ^ word) & NEXT != 0));
        }
        left
    }

    /// Whether nobody uses a slot that was asked for, and it does not move all the same: those who come wait in vain.
    fn is_asked_in_vain(&self, slot: u16, word: u64, may_move: bool, now_ms: u32) -> bool {
        let since = &self.idle_ms[usize::from(slot)];
        if word & ASKED == 0 || leases(word) > 0 {
            since.store(0, Ordering::Relaxed);
            return false;
        }
        let began = since.load(Ordering::Relaxed);
        if began == 0 {
            since.store(now_ms.max(1), Ordering::Relaxed);
        }
        !may_move || began != 0 && now_ms.wrapping_sub(began) > IDLE_MS_MAX
    }

    /// A request that reads all keys waits until the old side has everything.
    #[must_use]
    pub fn wait_as_reader(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        Reader(Arc::clone(self))
    }

    /// Whether writes on the next side wait for such a request.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }

    /// It must end: the sentence says why. The first one counts.
    pub fn ask_to_end(&self, why: impl FnOnce() -> String) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(why);
    }

    /// Why it must end, if so.
    #[must_use]
    pub fn end_asked(&self) -> Option<String> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Slots that stay where they are until this is dropped.
#[derive(Debug)]
pub struct Lease {
    homes: Arc<Homes>,
    slots: Vec<u16>,
    side: Side,
    keeps: bool,
}

impl Lease {
    /// Adds a slot on the lease's side, which moves there if nothing stands against it. If something does and `asks`, new
    /// leases on the other side wait from now on.
    pub fn add(&mut self, sides: &Sides<'_>, slot: u16, asks: bool) -> bool {
        let Err(place) = self.slots.binary_search(&slot) else { return true };
        let kept = &self.homes.kept[usize::from(slot)];
        if self.keeps {
            // Before the word: whoever looks at both sees a lease that is kept as one.
            kept.fetch_add(1, Ordering::AcqRel);
        }
        let is_taken = self.homes.take(sides, slot, self.side, asks);
        if is_taken {
            self.slots.insert(place, slot);
        } else if self.keeps {
            kept.fetch_sub(1, Ordering::AcqRel);
        }
        is_taken
    }

    /// Whether it holds all that another one does.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.is_of(&other.homes) && other.slots.iter().all(|slot| self.slots.binary_search(slot).is_ok())
    }

    /// Whether it is of this table.
    #[must_use]
    pub fn is_of(&self, homes: &Arc<Homes>) -> bool {
        Arc::ptr_eq(&self.homes, homes)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for slot in &self.slots {
            self.homes.give(*slot);
        }
        for slot in self.slots.iter().filter(|_| self.keeps) {
            self.homes.kept[usize::from(*slot)].fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// See [`Homes::wait_as_reader`].
#[derive(Debug)]
pub struct Reader(Arc<Homes>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::divergence::{Acknowledged, Source};

    struct World {
        homes: Arc<Homes>,
        old: (Mirror, Record),
        next: (Mirror, Record),
    }

    fn open() -> (Mirror, Record) {
        let (mirror, record) = (Mirror::new(1 << 20), Record::new(1 << 20));
        record.settle(State::Clean);
        mirror.open(0);
        mirror.count_slots(true);
        record.count_slots(true);
        (mirror, record)
    }

    impl World {
        fn new() -> Self {
            Self { homes: Arc::default(), old: open(), next: open() }
        }

        fn sides(&self) -> Sides<'_> {
            Sides { old: (&self.old.0, &self.old.1), next: (&self.next.0, &self.next.1) }
        }

        fn lease(&self, slots: &[u16], side: Side) -> Option<Lease> {
            let mut lease = self.homes.empty_lease(side, false);
            let missing = slots.iter().filter(|slot| !lease.add(&self.sides(), **slot, true)).count();
            (missing == 0).then_some(lease)
        }

        fn home(&self, slot: u16) -> Side {
            home(self.homes.words[usize::from(slot)].load(Ordering::Acquire))
        }
    }

    /// Acknowledged on the one side, and not confirmed by the other yet.
    fn write(to: &(Mirror, Record), key: &str) {
        let mut request = Vec::new();
        crate::resp::encode_request(&mut request, &[b"SET", key.as_bytes(), b"v"]);
        let mut batch = Acknowledged::default();
        batch.push(&request, 0);
        to.0.feed(&to.1, Source { link: 1, database: 0 }, &batch, 1);
    }

    fn confirm(mirror: &Mirror) {
        let chunk = mirror.take_out().unwrap();
        mirror.answered(&chunk, 0);
    }

    #[test]
    fn a_slot_moves_when_nothing_of_it_is_under_way_and_the_other_side_has_everything() {
        let world = World::new();
        let slot = slot_of(b"k");
        let held = world.lease(&[slot], Side::Old).unwrap();
        assert!(world.lease(&[slot], Side::Next).is_none(), "under way on the old side");
        write(&world.next, "k");
        drop(held);
        assert!(world.lease(&[slot], Side::Next).is_none(), "not confirmed yet");
        confirm(&world.next.0);
        let held = world.lease(&[slot], Side::Next).unwrap();
        assert_eq!(world.home(slot), Side::Next);
        drop(held);
        assert_eq!(leases(world.homes.words[usize::from(slot)].load(Ordering::Acquire)), 0);
    }

    #[test]
    fn who_asks_for_the_other_side_is_not_kept_waiting_by_new_ones() {
        let world = World::new();
        let first = world.lease(&[7], Side::Old).unwrap();
        assert!(world.lease(&[7], Side::Next).is_none());
        assert!(world.lease(&[7], Side::Old).is_none(), "new ones wait");
        drop(first);
        assert!(world.lease(&[7], Side::Next).is_some());
    }

    #[test]
    fn all_slots_are_leased_or_none() {
        let world = World::new();
        let blocked = world.lease(&[2], Side::Next).unwrap();
        assert!(world.homes.lease(&world.sides(), &[1, 2, 3], Side::Old, true).is_none());
        assert!([1, 3].iter().all(|slot| leases(world.homes.words[*slot].load(Ordering::Acquire)) == 0));
        assert!((1..4).all(|slot: usize| world.homes.kept[slot].load(Ordering::Acquire) == 0));
        drop(blocked);
        let kept = world.homes.lease(&world.sides(), &[1, 2, 3], Side::Old, true).unwrap();
        assert_eq!(world.homes.kept[3].load(Ordering::Acquire), 1);
        drop(kept);
        assert_eq!(world.homes.kept[3].load(Ordering::Acquire), 0);
    }

    #[test]
    fn settling_brings_idle_slots_home_and_asks_for_busy_ones_that_nobody_keeps_or_needs_elsewhere() {
        let world = World::new();
        let busy = world.lease(&[1], Side::Old).unwrap();
        let kept = world.homes.lease(&world.sides(), &[2], Side::Old, true).unwrap();
        let borrowed = world.lease(&[3], Side::Old).unwrap();
        world.homes.note_borrowed(&[3], 1_000);
        assert_eq!(world.homes.settle(&world.sides(), 10, 1_050, 100), 3);
        assert_eq!(world.homes.on_next(), 7);
        assert!(world.lease(&[1], Side::Old).is_none(), "asked for");
        assert!(world.lease(&[2], Side::Old).is_some() && world.lease(&[3], Side::Old).is_some());
        drop((busy, kept, borrowed));
        assert_eq!(world.homes.settle(&world.sides(), 10, 1_050, 100), 0);
        assert_eq!(world.homes.settle(&world.sides(), 0, 1_050, 100), 0, "and back");
        assert_eq!(world.homes.on_next(), 0);
    }

    #[test]
    fn a_slot_does_not_move_to_a_side_that_is_not_kept_in_step() {
        let world = World::new();
        world.next.0.close(&world.next.1, std::iter::empty());
        assert!(world.lease(&[5], Side::Next).is_none());
        world.next.0.open(0);
        world.next.1.become_unknown("for the test");
        assert!(world.lease(&[5], Side::Next).is_none());
    }

    #[test]
    fn a_busy_slot_that_cannot_move_is_served_where_it_is() {
        let world = World::new();
        let busy = world.lease(&[5], Side::Old).unwrap();
        assert_eq!(world.homes.settle(&world.sides(), 10, 1_000, 100), 1, "asked for");
        world.next.0.close(&world.next.1, std::iter::empty());
        drop(busy);
        assert_eq!(world.homes.settle(&world.sides(), 10, 1_010, 100), 1);
        assert!(world.lease(&[5], Side::Old).is_some(), "the next side is not kept in step: nobody waits for it");
        assert_eq!(world.homes.settle(&world.sides(), 10, 9_000, 100), 1);
        assert!(world.lease(&[5], Side::Old).is_some(), "and it is not asked for again");
    }

    #[test]
    fn each_move_of_a_slot_is_counted() {
        let world = World::new();
        let before = world.homes.moves(b"k");
        let slot = slot_of(b"k");
        drop(world.lease(&[slot], Side::Next).unwrap());
        drop(world.lease(&[slot], Side::Next).unwrap());
        assert_eq!(world.homes.moves(b"k"), before + 1);
        let _ = world.homes.settle(&world.sides(), 0, 0, 0);
        assert_eq!(world.homes.moves(b"k"), before + 2);
    }

    #[test]
    fn the_first_reason_to_end_counts() {
        let homes = Homes::default();
        assert_eq!(homes.end_asked(), None);
        homes.ask_to_end(|| "FLUSHALL".to_owned());
        homes.ask_to_end(|| "another".to_owned());
        assert_eq!(homes.end_asked().as_deref(), Some("FLUSHALL"));
    }
}
