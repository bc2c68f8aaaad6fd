//! Name to row in a few nanoseconds: a perfect hash over the table, computed when the crate is compiled.
//!
//! A name is two words (its first and last eight bytes, lower-cased) and a length, which for up to sixteen bytes is the
//! whole name: the compare is three integers, with no loop over bytes. Rejected: `HashMap` (hashes and compares byte by
//! byte), a build script (a second copy of the table), SipHash (names are looked up, never inserted by clients).

use super::Spec;
use super::table::GROUPS;

const SLOTS: usize = 1024;
const BUCKETS: usize = 128;
const COMMANDS: usize = {
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
};

static INDEX: Index = Index::build();

/// The row of a command, whatever the case of its name.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let words = Words::of(name);
    let slot = &INDEX.slots[words.slot(INDEX.steps[words.bucket()])];
    let spec = slot.spec?;
    let same = slot.words.head == words.head && slot.words.tail == words.tail && slot.words.length == words.length;
    (same && (name.len() <= 16 || spec.name.as_bytes().eq_ignore_ascii_case(name))).then_some(spec)
}

struct Index {
    /// How far apart the tries of each bucket are; chosen so that no two names share a slot.
    steps: [u16; BUCKETS],
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy)]
struct Slot {
    words: Words,
    spec: Option<&'static Spec>,
}

#[derive(Clone, Copy)]
struct Words {
    head: u64,
    tail: u64,
    length: u64,
}

impl Words {
    const fn of(name: &[u8]) -> Words {
        let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => (short(name), 0),
        };
        Words { head: lower_case(head), tail: lower_case(tail), length: name.len() as u64 }
    }

    const fn hash(&self) -> u64 {
        let mixed = (self.head ^ self.tail.rotate_left(29) ^ self.length).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 32)
    }

    const fn bucket(&self) -> usize {
        self.hash() as usize % BUCKETS
    }

    const fn slot(&self, step: u16) -> usize {
        let hash = self.hash();
        let start = (hash >> 8) as usize;
        let stride = (hash >> 20) as usize | 1;
        start.wrapping_add(stride.wrapping_mul(step as usize)) % SLOTS
    }
}

/// Up to seven bytes as one word.
const fn short(name: &[u8]) -> u64 {
    match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (Some(first), Some(last)) => (u32::from_le_bytes(*first) as u64) | ((u32::from_le_bytes(*last) as u64) << 32),
        _ => match *name {
            [one] => one as u64,
            [one, two] => one as u64 | ((two as u64) << 8),
            [one, two, three] => one as u64 | ((two as u64) << 8) | ((three as u64) << 16),
            _ => 0,
        },
    }
}

/// Lower-cases the ASCII letters among eight bytes at once and leaves every other byte alone: adding to the low seven
/// bits carries into the top bit from 'A' on and from '[' on; where only the first did, the byte is a capital.
const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7F * ONES);
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let past_z = low + (0x7F - b'Z' as u64) * ONES;
    let capital = (from_a ^ past_z) & !word & (0x80 * ONES);
    word | (capital >> 2)
}

impl Index {
    const fn build() -> Index {
        let empty = Slot { words: Words { head: 0, tail: 0, length: 0 }, spec: None };
        let mut index = Index { steps: [0; BUCKETS], slots: [empty; SLOTS] };
        let names = names();
        let mut sizes = [0usize; BUCKETS];
        let mut command = 0;
        while command < COMMANDS {
            sizes[names[command].words.bucket()] += 1;
            command += 1;
        }
        // Fullest buckets first: they have the least choice.
        let mut size = COMMANDS;
        while size > 0 {
            let mut bucket = 0;
            while bucket < BUCKETS {
                if sizes[bucket] == size {
                    index = index.placed(&names, bucket);
                }
                bucket += 1;
            }
            size -= 1;
        }
        index
    }

    /// The index with every name of a bucket in a slot of its own, by the smallest step that allows it.
    const fn placed(mut self, names: &[Slot; COMMANDS], bucket: usize) -> Index {
        let mut step = 0u16;
        while step < u16::MAX {
            let mut trial = self.slots;
            if place(&mut trial, names, bucket, step) {
                self.steps[bucket] = step;
                self.slots = trial;
                return self;
            }
            step += 1;
        }
        panic!("two commands cannot be told apart by the perfect hash")
    }
}

const fn place(slots: &mut [Slot; SLOTS], names: &[Slot; COMMANDS], bucket: usize, step: u16) -> bool {
    let mut command = 0;
    while command < COMMANDS {
        let name = names[command];
        if name.words.bucket() == bucket {
            let slot = name.words.slot(step);
            if slots[slot].spec.is_some() {
                return false;
            }
            slots[slot] = name;
        }
        command += 1;
    }
    true
}

const fn names() -> [Slot; COMMANDS] {
    let mut names = [Slot { words: Words { head: 0, tail: 0, length: 0 }, spec: None }; COMMANDS];
    let (mut command, mut group) = (0, 0);
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].len() {
            let spec = &GROUPS[group][row];
            names[command] = Slot { words: Words::of(spec.name.as_bytes()), spec: Some(spec) };
            command += 1;
            row += 1;
        }
        group += 1;
    }
    names
}
