//! Latencies as counts in log-linear buckets: two sketches merge by addition, a quantile is off by 12.5 % at most, and
//! nothing grows: there are 192 buckets, of which only those that were hit are kept.
//!
//! Below 16 µs a bucket is a microsecond, then there are eight for each doubling, up to about 67 s. The data path counts in
//! the same buckets, so that a tick's news is their difference.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Latency buckets: below 16 µs linear, then eight per doubling, up to about 67 s.
pub const LATENCY_BUCKETS: usize = 16 + 8 * 22;

const _: () = assert!(LATENCY_BUCKETS <= 256, "a bucket is named by a byte");

/// The bucket of a latency in microseconds; relative error at most 12.5 %.
#[must_use]
pub fn latency_bucket(micros: u64) -> usize {
    if micros < 16 {
        return micros as usize;
    }
    let exponent = 63 - micros.leading_zeros() as usize;
    let index = 16 + (exponent - 4) * 8 + ((micros >> (exponent - 3)) & 7) as usize;
    index.min(LATENCY_BUCKETS - 1)
}

/// Upper bound in microseconds of a latency bucket (inclusive).
#[must_use]
pub fn latency_bucket_bound(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let exponent = (bucket - 16) / 8 + 4;
    let step = ((bucket - 16) % 8) as u64;
    ((8 + step + 1) << (exponent - 3)) - 1
}

/// Latencies of one kind of request, counted by bucket. Serialises as pairs of bucket and count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u8, u64)>", into = "Vec<(u8, u64)>")]
pub struct Sketch {
    /// Ascending by bucket, without zeros.
    counts: Vec<(u8, u64)>,
}

/// A recorded sketch that no sketch can have written.
#[derive(Debug)]
pub struct NoSuchBucket(u8);

impl Sketch {
    /// A sketch of these latencies, microseconds.
    pub fn of(latencies_us: impl IntoIterator<Item = u64>) -> Self {
        let mut sketch = Self::default();
        latencies_us.into_iter().for_each(|micros| sketch.record(micros, 1));
        sketch
    }

    /// From counts by bucket, as the data path keeps them.
    #[must_use]
    pub fn from_buckets(buckets: &[u64; LATENCY_BUCKETS]) -> Self {
        let hit = buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        Self { counts: hit.map(|(bucket, count)| (bucket as u8, *count)).collect() }
    }

    /// Counts `n` requests that took `micros` each.
    pub fn record(&mut self, micros: u64, n: u64) {
        self.add(latency_bucket(micros) as u8, n);
    }

    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for &(bucket, n) in &other.counts {
            self.add(bucket, n);
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.counts.clear();
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// Requests that took longer than `micros`: those of the buckets that lie above it as a whole.
    #[must_use]
    pub fn above(&self, micros: u64) -> u64 {
        let first = latency_bucket(micros) as u8;
        let above = self.counts.iter().rev().take_while(|(bucket, _)| *bucket > first);
        above.fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// The upper bound in microseconds of the bucket in which the quantile lies; `None` when nothing was counted.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0_u64;
        for &(bucket, n) in &self.counts {
            seen = seen.saturating_add(n);
            if seen >= rank {
                return Some(latency_bucket_bound(usize::from(bucket)));
            }
        }
        None
    }

    /// As [`Self::quantile_us`].
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        self.quantile_us(q).map(Duration::from_micros)
    }

    /// The upper bound of the highest bucket that was hit.
    #[must_use]
    pub fn max_us(&self) -> Option<u64> {
        self.counts.last().map(|(bucket, _)| latency_bucket_bound(usize::from(*bucket)))
    }

    fn add(&mut self, bucket: u8, n: u64) {
        if n == 0 {
            return;
        }
        match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(n),
            Err(at) => self.counts.insert(at, (bucket, n)),
        }
    }
}

impl From<Sketch> for Vec<(u8, u64)> {
    fn from(sketch: Sketch) -> Self {
        sketch.counts
    }
}

impl TryFrom<Vec<(u8, u64)>> for Sketch {
    type Error = NoSuchBucket;

    fn try_from(pairs: Vec<(u8, u64)>) -> Result<Self, NoSuchBucket> {
        let mut sketch = Self::default();
        for (bucket, n) in pairs {
            if usize::from(bucket) >= LATENCY_BUCKETS {
                return Err(NoSuchBucket(bucket));
            }
            sketch.add(bucket, n);
        }
        Ok(sketch)
    }
}

impl fmt::Display for NoSuchBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a sketch has no bucket {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_latency_lies_within_its_bucket_s_bound_and_above_the_one_before() {
        for micros in (0..200_000u64).chain([1_000_000, 10_000_000, 60_000_000]) {
            let bucket = latency_bucket(micros);
            assert!(micros <= latency_bucket_bound(bucket), "{micros}");
            assert!(bucket == 0 || micros > latency_bucket_bound(bucket - 1), "{micros}");
        }
    }

    #[test]
    fn a_latency_beyond_the_last_bucket_is_counted_in_it() {
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BUCKETS - 1);
    }

    #[test]
    fn an_empty_sketch_has_no_quantile() {
        assert_eq!((Sketch::default().quantile_us(0.5), Sketch::default().max_us()), (None, None));
    }

    #[test]
    fn a_sketch_is_read_back_as_it_was_written_and_no_other_is() {
        let sketch = Sketch::of([1, 300, 300, 90_000]);
        let text = serde_json::to_string(&sketch).unwrap();
        assert_eq!(serde_json::from_str::<Sketch>(&text).unwrap(), sketch);
        assert!(serde_json::from_str::<Sketch>("[[192, 1]]").is_err());
        assert_eq!(serde_json::from_str::<Sketch>("[[7, 2], [3, 0], [7, 1]]").unwrap(), Sketch::of([7, 7, 7]));
    }

    proptest! {
        #[test]
        fn a_merged_sketch_is_the_sketch_of_all(
            left in prop::collection::vec(0_u64..100_000_000, 0..50),
            right in prop::collection::vec(0_u64..100_000_000, 0..50),
        ) {
            let mut merged = Sketch::of(left.iter().copied());
            merged.merge(&Sketch::of(right.iter().copied()));
            prop_assert_eq!(merged, Sketch::of(left.into_iter().chain(right)));
        }

        #[test]
        fn a_quantile_is_off_by_an_eighth_at_most(
            mut all in prop::collection::vec(0_u64..60_000_000, 1..200),
            q in 0.0..1.0_f64,
        ) {
            let told = Sketch::of(all.iter().copied()).quantile_us(q).unwrap();
            all.sort_unstable();
            let true_one = all[((all.len() as f64 * q).ceil() as usize).clamp(1, all.len()) - 1];
            prop_assert!(told >= true_one && told <= true_one + true_one / 8, "{told} for {true_one}");
        }

        #[test]
        fn what_is_above_is_never_counted_too_high(
            all in prop::collection::vec(0_u64..60_000_000, 0..200),
            limit in 0_u64..60_000_000,
        ) {
            let told = Sketch::of(all.iter().copied()).above(limit);
            let above = all.iter().filter(|micros| **micros > limit).count() as u64;
            let far_above = all.iter().filter(|micros| **micros > limit + limit / 8).count() as u64;
            prop_assert!(told <= above && told >= far_above, "{told} of {above}");
        }
    }
}
