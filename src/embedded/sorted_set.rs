//! A sorted set: scores by member, and the members in order of score.
//!
//! The order is kept in short sorted chunks rather than in a tree: rank and range by rank, which a `BTreeMap` lacks,
//! become a sum over chunk lengths, and an insertion moves at most one chunk's entries.

use std::cmp::Ordering;

use super::indexed_map::IndexedMap;

/// Entries of a chunk before it is split. 256 entries of 24 bytes move within two microseconds.
const CHUNK_ENTRIES_MAX: usize = 256;
/// Accounted per member besides its bytes, which are held twice: two boxes, the score twice, a table position.
const MEMBER_OVERHEAD_BYTES: usize = 96;

#[derive(Clone)]
struct Ranked {
    score: f64,
    member: Box<[u8]>,
}

#[derive(Clone, Default)]
pub(super) struct SortedSet {
    scores: IndexedMap<f64>,
    chunks: Vec<Vec<Ranked>>,
    bytes: usize,
}

fn order(score: f64, member: &[u8], other: &Ranked) -> Ordering {
    // -0 and 0 are one score to Redis, so `partial_cmp`; NaN never enters a set.
    other.score.partial_cmp(&score).unwrap_or(Ordering::Equal).then_with(|| (*other.member).cmp(member))
}

impl SortedSet {
    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// The members in no particular order, found by position: for random picks and for SCAN.
    pub(super) fn by_position(&self) -> &IndexedMap<f64> {
        &self.scores
    }

    /// Sets the score of `member` and returns the score that it had.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let previous = self.scores.insert(member, score);
        match previous {
            Some(previous) if previous == score => return Some(previous),
            Some(previous) => self.take_ranked(member, previous),
            None => self.bytes += member.len() * 2 + MEMBER_OVERHEAD_BYTES,
        }
        self.put_ranked(member, score);
        previous
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?;
        self.take_ranked(member, score);
        self.bytes -= member.len() * 2 + MEMBER_OVERHEAD_BYTES;
        Some(score)
    }

    fn chunk_for(&self, score: f64, member: &[u8]) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| order(score, member, last).is_lt()))
    }

    fn put_ranked(&mut self, member: &[u8], score: f64) {
        let at = self.chunk_for(score, member).min(self.chunks.len().saturating_sub(1));
        if self.chunks.is_empty() {
            self.chunks.push(Vec::new());
        }
        let chunk = &mut self.chunks[at];
        let within = chunk.partition_point(|other| order(score, member, other).is_lt());
        chunk.insert(within, Ranked { score, member: member.into() });
        if chunk.len() > CHUNK_ENTRIES_MAX {
            let upper = chunk.split_off(CHUNK_ENTRIES_MAX / 2);
            self.chunks.insert(at + 1, upper);
        }
    }

    fn take_ranked(&mut self, member: &[u8], score: f64) {
        let at = self.chunk_for(score, member);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        if let Ok(within) = chunk.binary_search_by(|other| order(score, member, other)) {
            chunk.remove(within);
        }
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
    }

    pub(super) fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        let at = self.chunk_for(score, member);
        let within = self.chunks.get(at)?.binary_search_by(|other| order(score, member, other)).ok()?;
        Some(self.chunks[..at].iter().map(Vec::len).sum::<usize>() + within)
    }

    /// How many members, counted from the lowest, fulfil `below`, which must hold for a prefix of the order only.
    pub(super) fn count_while(&self, below: impl Fn(f64, &[u8]) -> bool) -> usize {
        let whole =
            self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| below(last.score, &last.member)));
        let rest = self.chunks.get(whole).map_or(0, |chunk| chunk.partition_point(|one| below(one.score, &one.member)));
        self.chunks[..whole].iter().map(Vec::len).sum::<usize>() + rest
    }

    /// Members from rank `start` on, lowest first.
    pub(super) fn iter_from(&self, start: usize) -> impl Iterator<Item = (&[u8], f64)> {
        let mut skip = start;
        let mut at = 0;
        while at < self.chunks.len() && skip >= self.chunks[at].len() {
            skip -= self.chunks[at].len();
            at += 1;
        }
        self.chunks[at..].iter().flatten().skip(skip).map(|one| (&*one.member, one.score))
    }

    /// Members from rank `start` (included) downwards.
    pub(super) fn iter_down_from(&self, start: usize) -> impl Iterator<Item = (&[u8], f64)> {
        let mut skip = self.len().saturating_sub(start.saturating_add(1));
        let mut at = self.chunks.len();
        while at > 0 && skip >= self.chunks[at - 1].len() {
            skip -= self.chunks[at - 1].len();
            at -= 1;
        }
        self.chunks[..at]
            .iter()
            .rev()
            .flat_map(|chunk| chunk.iter().rev())
            .skip(skip)
            .map(|one| (&*one.member, one.score))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], f64)> {
        self.iter_from(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranks_ranges_and_counts_agree_with_a_sorted_vector() {
        let mut set = SortedSet::default();
        let mut seed = 7u64;
        for _ in 0..5000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let member = ((seed >> 40) % 2000).to_string();
            if seed >> 60 == 3 {
                set.remove(member.as_bytes());
            } else {
                set.insert(member.as_bytes(), ((seed >> 33) % 50) as f64);
            }
        }
        let mut model: Vec<(f64, Vec<u8>)> = set.by_position().iter().map(|(m, s)| (*s, m.to_vec())).collect();
        model.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert!(set.chunks.len() > 3);
        let walked: Vec<(f64, Vec<u8>)> = set.iter().map(|(m, s)| (s, m.to_vec())).collect();
        assert_eq!(walked, model);
        for (rank, (score, member)) in model.iter().enumerate() {
            assert_eq!(set.rank(member), Some(rank));
            assert_eq!(set.score(member), Some(*score));
            assert_eq!(set.iter_from(rank).next().unwrap().0, &member[..]);
            assert_eq!(set.iter_down_from(rank).next().unwrap().0, &member[..]);
        }
        let below = model.iter().filter(|(score, _)| *score < 25.0).count();
        assert_eq!(set.count_while(|score, _| score < 25.0), below);
        assert_eq!(set.iter_from(model.len()).count(), 0);
    }

    #[test]
    fn removing_every_member_leaves_no_accounted_bytes() {
        let mut set = SortedSet::default();
        for number in 0..1000 {
            set.insert(number.to_string().as_bytes(), f64::from(number));
        }
        for number in 0..1000 {
            assert_eq!(set.remove(number.to_string().as_bytes()), Some(f64::from(number)));
        }
        assert!(set.is_empty() && set.chunks.is_empty());
        assert_eq!(set.memory_bytes(), 0);
    }
}
