//! The engine's own time: an integer, so that it prints, serialises and replays.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since the process started. All arithmetic saturates: a clock that jumps must not panic a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    pub const ZERO: Self = Self(0);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// Zero when `earlier` is later, as [`Time::since`].
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Time {
    /// Seconds with three decimals: `12.345s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// A span as it stands in a sentence, with no more digits than a person reads: `120ms`, `4.2s`, `59m 30s`, `1h 5m`.
///
/// Sentences tell spans and not moments: this process's own clock says nothing to who reads them.
#[derive(Clone, Copy, Debug)]
pub struct Roughly(pub Duration);

impl fmt::Display for Roughly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (seconds, minutes, hours) = (millis / 1_000, millis / 60_000, millis / 3_600_000);
        match (hours, minutes, seconds) {
            (0, 0, 0) => write!(f, "{millis}ms"),
            (0, 0, _) if millis % 1_000 < 100 => write!(f, "{seconds}s"),
            (0, 0, _) => write!(f, "{seconds}.{}s", millis % 1_000 / 100),
            (0, _, _) if seconds % 60 == 0 => write!(f, "{minutes}m"),
            (0, _, _) => write!(f, "{minutes}m {}s", seconds % 60),
            _ if minutes % 60 == 0 => write!(f, "{hours}h"),
            _ => write!(f, "{hours}h {}m", minutes % 60),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Time(5) - Duration::from_secs(1), Time::ZERO);
        assert_eq!(Time(u64::MAX) + Duration::from_secs(1), Time(u64::MAX));
        assert_eq!(Time(5) - Time(9), Duration::ZERO);
        assert_eq!(Time(9) - Time(5), Duration::from_micros(4));
    }

    #[test]
    fn a_span_is_told_in_the_digits_that_a_person_reads() {
        for (millis, told) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (4_250, "4.2s"),
            (60_000, "1m"),
            (3_599_999, "59m 59s"),
            (3_600_000, "1h"),
            (90_061_000, "25h 1m"),
        ] {
            assert_eq!(Roughly(Duration::from_millis(millis)).to_string(), told);
        }
    }

    #[test]
    fn a_time_prints_seconds_and_milliseconds() {
        assert_eq!(Time(12_345_678).to_string(), "12.345s");
    }
}
