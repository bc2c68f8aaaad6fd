//! Wall-clock time for people and logs. Decisions never use it: a wall clock may jump.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MS_PER_SECOND: u64 = 1_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// 9999-12-31T23:59:59.999Z: the last instant that RFC 3339 can write.
const MS_MAX: u64 = 253_402_300_799_999;

/// Milliseconds since 1970-01-01T00:00:00Z, written as RFC 3339 in UTC (`2026-11-22T02:47:19.120Z`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    /// The machine's clock. A clock set before 1970 reads as 1970.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// Clamped to the year 9999, so that every value can be written and read back.
    pub const fn from_ms(ms: u64) -> Self {
        Self(if ms > MS_MAX { MS_MAX } else { ms })
    }

    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// `02:47:19`, in UTC, for one line of a terminal.
    pub fn time_of_day(self) -> String {
        let second = self.0 / MS_PER_SECOND % SECONDS_PER_DAY;
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// The algorithm is Howard Hinnant's `civil_from_days`: eras of 400 years that begin in March, so that the leap day is the
/// last day of a year.
const fn civil_from_days(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// The inverse of [`civil_from_days`], for years from 1970.
const fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl fmt::Display for WallTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / MS_PER_SECOND;
        let (year, month, day) = civil_from_days(seconds / SECONDS_PER_DAY);
        let second = seconds % SECONDS_PER_DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let ms = self.0 % MS_PER_SECOND;
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// The text is not of the form `YYYY-MM-DDTHH:MM:SS.mmmZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form 2026-11-22T02:47:19.120Z, from 1970 on")]
pub struct WallTimeError;

impl FromStr for WallTime {
    type Err = WallTimeError;

    /// Reads back exactly what `Display` writes; other spellings of RFC 3339 are refused.
    fn from_str(text: &str) -> Result<Self, WallTimeError> {
        let number = |from: usize, to: usize| -> Result<u64, WallTimeError> {
            let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|digits| digits.parse().ok()).ok_or(WallTimeError)
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second, ms) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?);
        if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(WallTimeError);
        }
        let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
        let time = Self::from_ms(seconds * MS_PER_SECOND + ms);
        if time.to_string() == text { Ok(time) } else { Err(WallTimeError) }
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_instants_are_written_as_other_tools_write_them() {
        // Each text is what `date -u -d @SECONDS +%FT%TZ` says.
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(WallTime::from_ms(ms).to_string(), text);
        }
    }

    #[test]
    fn every_day_of_five_centuries_is_read_back_as_it_was_written() {
        for day in 0..(500 * 366) {
            let time = WallTime::from_ms(day * SECONDS_PER_DAY * MS_PER_SECOND + 45_296_789);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn days_that_do_not_exist_and_other_spellings_are_refused() {
        for text in [
            "",
            "2026-11-22",
            "2026-02-30T00:00:00.000Z",
            "2023-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-11-22T24:00:00.000Z",
            "2026-11-22T02:47:19.120+00:00",
            "2026-11-22 02:47:19.120Z",
            "1969-12-31T23:59:59.999Z",
            "+026-11-22T02:47:19.120Z",
            "2026-11-22T02:47:1é.120Z",
        ] {
            assert_eq!(text.parse::<WallTime>(), Err(WallTimeError), "{text}");
        }
    }

    #[test]
    fn a_clock_past_the_year_9999_stays_writable() {
        assert_eq!(WallTime::from_ms(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
