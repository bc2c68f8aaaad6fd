//! Durations and sizes as people write them: `"250ms"`, `"2m"`, `"64MiB"`. A bare number of seconds, milliseconds or
//! minutes reads alike and means a factor of 60,000, so a duration without a unit is refused.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 6] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Binary units first in each pair of equal spelling; `KB` and the like are decimal, as the standard has them.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("b", 1),
    ("", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Reads `"250ms"`, `"1.5s"`, `"2m"`, `"1h"`; several parts (`"1m30s"`) are not a form we need.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    if unit.is_empty() {
        return match number.parse::<f64>() {
            Ok(_) => Err(format!("a duration needs its unit: write \"{number}ms\" or \"{number}s\"")),
            Err(_) => Err(not_a_duration(text)),
        };
    }
    let scale = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanoseconds)| *nanoseconds);
    let scale = scale.ok_or_else(|| not_a_duration(text))?;
    let nanoseconds = scaled(number, scale).ok_or_else(|| not_a_duration(text))?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads `"64MiB"`, `"64 MB"`, `"65536"`; case does not matter, `B` may be left out after nothing but the number.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let scale = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    let bytes = scale.and_then(|scale| scaled(number, scale)).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("\"{text}\" is not a size; write \"64MiB\", \"64MB\" or a number of bytes"))
}

/// The shortest exact form that [`parse_duration`] reads.
pub fn show_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    // Days and hours are left out: "120m" of a file would come back as "2h", which is no clearer.
    let units = DURATION_UNITS[..4].iter().rev();
    for (name, scale) in units {
        if nanoseconds.is_multiple_of(u128::from(*scale)) {
            return format!("{}{name}", nanoseconds / u128::from(*scale));
        }
    }
    format!("{}us", nanoseconds as f64 / 1_000.0)
}

/// The shortest exact form that [`parse_size`] reads, in binary units.
pub fn show_size(bytes: usize) -> String {
    for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{name}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

fn not_a_duration(text: &str) -> String {
    format!("\"{text}\" is not a duration; write \"250ms\", \"1.5s\", \"2m\" or \"1h\"")
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Whole numbers exactly; fractions to the nearest unit. None when it does not fit or is no number.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let number = number.replace('_', "");
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.parse::<u64>().ok()?.checked_mul(scale);
    }
    let value = number.parse::<f64>().ok()? * scale as f64;
    (value.is_finite() && (0.0..9e18).contains(&value)).then_some(value.round() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0s", 0),
            (" 5 s ", 5_000),
            ("1_000ms", 1_000),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        assert_eq!(parse_duration("50us").unwrap(), Duration::from_micros(50));
    }

    #[test]
    fn a_duration_without_unit_is_refused_with_both_readings() {
        let error = parse_duration("500").unwrap_err();
        assert_eq!(error, "a duration needs its unit: write \"500ms\" or \"500s\"");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1s", "1.2.3s", "5 parsecs", "1m30s", "99999999999999999999s", "1e3s", "inf", "5S"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("64MiB", 64 << 20),
            ("64 MB", 64_000_000),
            ("1.5GiB", 3 << 29),
            ("2TiB", 2 << 40),
            ("10B", 10),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "-1", "64MiBs", "99999999999TiB", "1,5MiB", "64M"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_itself() {
        for nanoseconds in [0, 1_000, 50_000, 1_500_000, 250_000_000, 90_000_000_000, 120_000_000_000] {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!(parse_duration(&show_duration(duration)).unwrap(), duration);
        }
        for bytes in [0, 1, 1000, 1024, 1 << 20, 512 << 20, (1 << 30) + 1] {
            assert_eq!(parse_size(&show_size(bytes)).unwrap(), bytes);
        }
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_size(64 << 20), "64MiB");
    }
}
