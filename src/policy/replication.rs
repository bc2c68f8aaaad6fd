//! What a replica lacks at most: bounds from looks at its master's replication stream, none of which happened at the moment
//! of interest.
//!
//! Each look at the master says how many bytes of the stream there were when the question was sent, and how many writes had
//! been acknowledged to clients by then. A replica that has taken in so many bytes has all of those writes. So what it lacks
//! was acknowledged after the newest such look: a bound in time and in writes that needs no clock of another machine.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Time;

/// Looks that are remembered: a minute of the fast profile's probes, five minutes of the usual ones.
const LOOKS_MAX: usize = 600;
/// The bandwidth is that of the looks within this time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// One look at the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When the question was sent: what was acknowledged before is in the bytes of the answer.
    pub at: Time,
    /// Bytes of the stream, `master_repl_offset`.
    pub offset: u64,
    /// Writes acknowledged to clients before the question was sent.
    pub writes: u64,
}

/// What a replica lacks of what was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// Bytes of the stream that are known to be missing; what came after the last look is not known.
    pub bytes: u64,
    /// Writes at most.
    pub writes: u64,
    /// Nothing older than this is missing.
    pub age: Duration,
    /// The same as a moment: what was acknowledged before is there.
    pub since: Time,
}

impl Lack {
    /// It has all that was acknowledged until now.
    pub fn nothing(now: Time) -> Self {
        Self { since: now, ..Self::default() }
    }
}

/// The looks at one master, the newest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    looks: VecDeque<Look>,
}

impl Stream {
    pub fn note(&mut self, look: Look) {
        if self.looks.back().is_some_and(|last| look.offset < last.offset || look.writes < last.writes) {
            // Another stream than before: what was known of the old one says nothing of it.
            self.looks.clear();
        }
        if self.looks.len() == LOOKS_MAX {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    pub fn clear(&mut self) {
        self.looks.clear();
    }

    /// Bytes as of the last look.
    pub fn offset(&self) -> Option<u64> {
        self.looks.back().map(|look| look.offset)
    }

    /// Bytes per second.
    pub fn rate(&self) -> Option<f64> {
        let last = self.looks.back()?;
        let first = self.looks.iter().find(|look| last.at - look.at <= RATE_OVER)?;
        let seconds = (last.at - first.at).as_secs_f64();
        (seconds > 0.0).then(|| (last.offset - first.offset) as f64 / seconds)
    }

    /// What a replica that has taken in `offset` bytes lacks of what was acknowledged until `until`, of which there were
    /// `writes` in all. `None` when it is further behind than the looks go back, or nothing is known.
    pub fn lack(&self, offset: u64, until: Time, writes: u64) -> Option<Lack> {
        let last = self.looks.back()?;
        let covered = self.looks.iter().rev().find(|look| look.offset <= offset)?;
        let bytes = last.offset.saturating_sub(offset);
        let writes = writes.saturating_sub(covered.writes);
        // Where nothing was acknowledged since, nothing is missing, however long ago that look was.
        let since = if writes == 0 { until.max(covered.at) } else { covered.at };
        Some(Lack { bytes, writes, age: until - since, since })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn look(ms: u64, offset: u64, writes: u64) -> Look {
        Look { at: Time::ZERO + Duration::from_millis(ms), offset, writes }
    }

    fn stream() -> Stream {
        let mut stream = Stream::default();
        for (ms, offset, writes) in [(1_000, 100, 1), (1_500, 200, 2), (2_000, 300, 3), (2_500, 300, 3)] {
            stream.note(look(ms, offset, writes));
        }
        stream
    }

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_replica_that_has_everything_lacks_nothing_however_old_the_look_is() {
        assert_eq!(stream().lack(300, at(9_000), 3), Some(Lack::nothing(at(9_000))));
    }

    #[test]
    fn what_was_acknowledged_after_the_newest_look_that_it_covers_may_be_missing() {
        let lack = stream().lack(250, at(2_700), 5).unwrap();
        assert_eq!(lack, Lack { bytes: 50, writes: 3, age: Duration::from_millis(1_200), since: at(1_500) });
        let lack = stream().lack(300, at(2_700), 4).unwrap();
        assert_eq!(
            lack,
            Lack { bytes: 0, writes: 1, age: Duration::from_millis(200), since: at(2_500) },
            "acknowledged after the last look"
        );
    }

    #[test]
    fn of_one_that_is_further_behind_than_the_looks_go_back_no_bound_is_known() {
        assert_eq!(stream().lack(99, at(3_000), 9), None);
        assert_eq!(Stream::default().lack(99, at(3_000), 9), None);
    }

    #[test]
    fn a_stream_that_begins_anew_is_not_compared_with_the_old_one() {
        let mut stream = stream();
        stream.note(look(3_000, 10, 3));
        assert_eq!((stream.offset(), stream.lack(5, at(3_000), 3)), (Some(10), None));
    }

    #[test]
    fn the_bandwidth_is_that_of_the_last_ten_seconds() {
        assert_eq!(Stream::default().rate(), None);
        let mut stream = Stream::default();
        stream.note(look(0, 1_000_000, 0));
        for second in 0..=10 {
            stream.note(look(60_000 + second * 1_000, 2_000_000 + second * 500, 0));
        }
        assert_eq!(stream.rate(), Some(500.0));
    }

    #[test]
    fn the_looks_are_bounded() {
        let mut stream = Stream::default();
        for n in 0..5_000 {
            stream.note(look(n, n, n));
        }
        assert_eq!(stream.looks.len(), LOOKS_MAX);
    }
}
