//! The surviving copy of the records: blocks of keys that a link writes ahead of the data writes, to the server that
//! serves. A Standin that is killed and starts again reads them there.
//!
//! Each connection numbers its blocks, and a block tells how long it is and what it adds up to: one that is missing, cut
//! off or changed is seen, and then nobody knows what was missed.

use std::collections::{BTreeMap, BTreeSet};

use super::record::DirtyKey;

/// Nobody has written the key ahead yet.
const NONE: u32 = u32::MAX;

/// Who has written a key ahead, in which incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carrier {
    incident: u32,
    /// 0: the server has it.
    link: u32,
}

impl Carrier {
    pub(super) const NOBODY: Self = Self { incident: 0, link: NONE };

    pub(super) fn confirmed(incident: u32) -> Self {
        Self { incident, link: 0 }
    }

    pub(super) fn confirm(&mut self, incident: u32, link: u32) {
        if *self == (Self { incident, link }) {
            self.link = 0;
        }
    }

    pub(super) fn is_of(self, incident: u32) -> bool {
        self.incident == incident && self.link != NONE
    }
}

/// What one link writes ahead before it sends a write.
#[derive(Debug)]
pub struct Ahead {
    carrier: Carrier,
    block: Vec<u8>,
    entries: u32,
    unconfirmed: usize,
}

impl Ahead {
    /// For a link with this number; no link has the number 0.
    #[must_use]
    pub fn new(incident: u32, link: u32) -> Self {
        Self { carrier: Carrier { incident, link }, block: Vec::new(), entries: 0, unconfirmed: 0 }
    }

    /// Whether there is nothing to write: every key is on the server, or before us on the same connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Whether the server has said of every key that it has it.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.unconfirmed == 0
    }

    /// Who carries it from now on, given who did; notes the key if that is somebody else.
    pub(super) fn carry(&mut self, backend: u8, carrier: &mut Carrier, key: Option<(u32, &[u8])>) {
        if *carrier == Carrier::confirmed(self.carrier.incident) {
            return;
        }
        self.unconfirmed += 1;
        if *carrier != self.carrier {
            *carrier = self.carrier;
            append(&mut self.block, backend, key);
            self.entries += 1;
        }
    }

    /// The block as it lies on the server.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        seal(&self.block)
    }
}

/// Marks an entry that names no key: anything may differ.
const ANYTHING: u8 = 0x80;

pub(super) fn append(block: &mut Vec<u8>, backend: u8, key: Option<(u32, &[u8])>) {
    let Some((database, key)) = key else {
        block.push(backend | ANYTHING);
        return;
    };
    block.push(backend);
    block.extend_from_slice(&database.to_be_bytes());
    block.extend_from_slice(&(key.len() as u32).to_be_bytes());
    block.extend_from_slice(key);
}

/// A block behind its checksum.
pub(super) fn seal(block: &[u8]) -> Vec<u8> {
    let mut value = checksum(block).to_be_bytes().to_vec();
    value.extend_from_slice(block);
    value
}

/// FNV-1a: against accidents, not against malice.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A backend's number and a key in its database; no key: anything may differ.
pub type Missed<'a> = (u8, Option<(u32, &'a [u8])>);

/// The entries of a block. `None` if it is not as it was written.
#[must_use]
pub fn entries(value: &[u8]) -> Option<Vec<Missed<'_>>> {
    let (sum, mut rest) = value.split_first_chunk::<8>()?;
    if u64::from_be_bytes(*sum) != checksum(rest) {
        return None;
    }
    let mut all = Vec::new();
    while let Some((backend, behind)) = rest.split_first() {
        if backend & ANYTHING != 0 {
            all.push((backend & !ANYTHING, None));
            rest = behind;
            continue;
        }
        let (database, behind) = behind.split_first_chunk::<4>()?;
        let (len, behind) = behind.split_first_chunk::<4>()?;
        let (key, behind) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        all.push((*backend, Some((u32::from_be_bytes(*database), key))));
        rest = behind;
    }
    Some(all)
}

/// The name of a block: who wrote it, and which of its blocks it is.
#[must_use]
pub fn block_name(process: &str, link: u32, incident: u32, number: u32) -> String {
    format!("block:{process}.{link:x}.{incident:x}:{number}")
}

/// By backend number: the keys that it has missed; `None`: anything may differ.
pub type MissedByBackend = BTreeMap<u8, Option<BTreeSet<DirtyKey>>>;

/// The blocks of a whole copy, from what an incident holds. `snapshot` is how many were written when it began.
///
/// Returns for each backend, by its number then, the keys that it has missed, or `None` when anything may differ; no map
/// at all when a block is missing or not as it was written.
#[must_use]
pub fn read_copy<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, snapshot: u32) -> Option<MissedByBackend> {
    let mut missed = MissedByBackend::new();
    let mut numbers: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for (name, value) in fields {
        let Some(name) = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix("block:")) else { continue };
        let (writer, number) = name.rsplit_once(':')?;
        let number: u32 = number.parse().ok()?;
        let (count, last) = numbers.entry(writer.to_owned()).or_default();
        *count += 1;
        *last = number.max(*last);
        for (backend, key) in entries(value)? {
            let of_backend = missed.entry(backend).or_insert_with(|| Some(BTreeSet::new()));
            match (key, &mut *of_backend) {
                (Some((database, key)), Some(keys)) => {
                    keys.insert((database, key.into()));
                }
                (None, known) => *known = None,
                (Some(_), None) => {}
            }
        }
    }
    let begun = numbers.remove(SNAPSHOT).map_or(0, |(count, _)| count);
    let is_whole = begun == snapshot && numbers.values().all(|(count, last)| *count == last + 1);
    is_whole.then_some(missed)
}

/// The writer of the blocks with which a copy begins.
pub const SNAPSHOT: &str = "snapshot";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::record::{Record, State};
    use super::*;

    fn clean() -> Record {
        let record = Record::new(1 << 20);
        record.settle(State::Clean);
        record
    }

    fn dirty(record: &Record, link: u32, key: &[u8]) -> Ahead {
        let mut ahead = Ahead::new(7, link);
        record.dirty_ahead(2, [key], Some((0, &mut ahead)));
        ahead
    }

    #[test]
    fn a_key_is_written_ahead_once_on_each_connection_until_the_server_has_it() {
        let record = clean();
        let first = dirty(&record, 1, b"k");
        assert!(!first.is_empty() && !first.is_confirmed());
        assert_eq!(entries(&first.value()), Some(vec![(0, Some((2, b"k".as_slice())))]));
        assert!(dirty(&record, 1, b"k").is_empty(), "it is before us on the same connection");
        assert!(!dirty(&record, 1, b"k").is_confirmed());
        assert!(!dirty(&record, 2, b"k").is_empty(), "another connection may be faster");
        record.confirm(2, b"k", 7, 2);
        assert!(dirty(&record, 1, b"k").is_confirmed());
        let mut later = Ahead::new(8, 1);
        record.dirty_ahead(2, [b"k".as_slice()], Some((0, &mut later)));
        assert!(!later.is_empty(), "another server has nothing yet");
    }

    #[test]
    fn that_anything_may_differ_is_written_ahead_too() {
        let record = clean();
        let mut ahead = Ahead::new(7, 1);
        record.become_unknown_ahead("flushed", Some((3, &mut ahead)));
        assert_eq!(entries(&ahead.value()), Some(vec![(3, None)]));
        let mut again = Ahead::new(7, 1);
        record.dirty_ahead(0, [b"k".as_slice()], Some((3, &mut again)));
        assert!(again.is_empty());
    }

    fn copy(blocks: &[(String, Vec<u8>)], snapshot: u32) -> Option<MissedByBackend> {
        read_copy(blocks.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())), snapshot)
    }

    #[test]
    fn a_copy_of_which_a_block_is_missing_cut_off_or_changed_is_none() {
        let record = clean();
        let blocks: Vec<_> = [b"a", b"b", b"c"]
            .iter()
            .enumerate()
            .map(|(at, key)| (block_name("p", 1, 7, at as u32), dirty(&record, 1, *key).value()))
            .collect();
        let whole = copy(&blocks, 0).unwrap();
        assert_eq!(whole[&0].as_ref().unwrap().len(), 3);
        assert_eq!(copy(&blocks[..2], 0).unwrap()[&0].as_ref().unwrap().len(), 2, "the last was never written");
        assert_eq!(copy(&blocks[1..], 0), None, "the first is missing");
        assert_eq!(copy(&blocks, 1), None, "what it began with is missing");
        let mut cut = blocks.clone();
        cut[1].1.pop();
        assert_eq!(copy(&cut, 0), None);
        let mut changed = blocks;
        *changed[2].1.last_mut().unwrap() ^= 1;
        assert_eq!(copy(&changed, 0), None);
    }
}
