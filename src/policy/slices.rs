//! A rolling window by time: what happened, in slices of equal length, the oldest of which go.
//!
//! By time and not by count, so that a window means the same at one request a second and at 100,000.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// The slices of the last `length` times `kept`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slices<T> {
    length_us: u64,
    kept: u64,
    /// When the newest slice ends; what comes before then goes into it.
    ends: Time,
    /// The oldest first, by number; a slice in which nothing happened is missing.
    slices: VecDeque<(u64, T)>,
}

impl<T: Default> Slices<T> {
    pub(super) fn new(length: Duration, kept: u64) -> Self {
        let length_us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1);
        Self { length_us, kept: kept.max(1), ends: Time::ZERO, slices: VecDeque::new() }
    }

    /// The slice that `now` falls into.
    #[inline]
    pub(super) fn at(&mut self, now: Time) -> &mut T {
        if now >= self.ends || self.slices.is_empty() {
            self.turn(now);
        }
        &mut self.slices.back_mut().expect("a slice was just made if there was none").1
    }

    #[cold]
    fn turn(&mut self, now: Time) {
        let number = now.as_micros() / self.length_us;
        self.ends = Time(number.saturating_add(1).saturating_mul(self.length_us));
        let oldest = (number + 1).saturating_sub(self.kept);
        while self.slices.front().is_some_and(|(number, _)| *number < oldest) {
            self.slices.pop_front();
        }
        self.slices.push_back((number, T::default()));
    }

    /// Those within the window as of `now`, the newest first; `last` of them in time, empty ones counted.
    pub(super) fn recent(&self, now: Time, last: u64) -> impl Iterator<Item = &T> {
        let oldest = (now.as_micros() / self.length_us + 1).saturating_sub(last.min(self.kept));
        self.slices.iter().rev().take_while(move |(number, _)| *number >= oldest).map(|(_, slice)| slice)
    }

    pub(super) fn all(&self, now: Time) -> impl Iterator<Item = &T> {
        self.recent(now, self.kept)
    }

    pub(super) fn clear(&mut self) {
        self.slices.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(seconds: std::ops::Range<u64>) -> Slices<u64> {
        let mut slices = Slices::new(Duration::from_secs(1), 5);
        for second in seconds {
            *slices.at(Time::from_secs(second)) += 1;
            *slices.at(Time::from_millis(second * 1_000 + 999)) += 1;
        }
        slices
    }

    #[test]
    fn what_is_older_than_the_window_is_gone() {
        let slices = filled(0..20);
        assert_eq!(slices.all(Time::from_secs(19)).count(), 5);
        assert_eq!(slices.all(Time::from_secs(19)).sum::<u64>(), 10);
        assert_eq!(slices.all(Time::from_secs(21)).sum::<u64>(), 6, "two empty slices have come since");
        assert_eq!(slices.all(Time::from_secs(100)).count(), 0);
        assert_eq!(slices.recent(Time::from_secs(19), 2).sum::<u64>(), 4);
        assert!(slices.slices.len() <= 5);
    }

    #[test]
    fn a_gap_does_not_shift_the_slices() {
        let mut slices = filled(0..3);
        *slices.at(Time::from_secs(6)) += 1;
        assert_eq!(slices.all(Time::from_secs(6)).copied().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_clock_that_stands_or_jumps_does_no_harm() {
        let mut slices = filled(0..3);
        *slices.at(Time::ZERO) += 1;
        assert_eq!(slices.all(Time::from_secs(2)).sum::<u64>(), 7);
        *slices.at(Time(u64::MAX)) += 1;
        *slices.at(Time(u64::MAX)) += 1;
        assert!(slices.slices.len() <= 6);
    }
}
