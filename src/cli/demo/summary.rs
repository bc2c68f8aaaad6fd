//! The end of a demo: what was counted, and whether it is a good end.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::meter::Reading;
use crate::cli::output::harmless;
use crate::cli::render;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    pub(super) lasted: Duration,
    pub(super) reading: Reading,
    pub(super) failovers: u64,
    pub(super) recoveries: u64,
    /// `--kill-primary-after` was given: an end without a failover is no good one.
    pub(super) failover_expected: bool,
    /// The logs, where they were kept.
    pub(super) logs: Option<PathBuf>,
}

impl Summary {
    /// What must not have happened, one sentence each; empty after a good end.
    pub(super) fn faults(&self) -> Vec<String> {
        let whole = &self.reading.whole;
        let mut faults = Vec::new();
        if whole.latencies.quantile_us(1.0).is_none() {
            faults.push("no request succeeded".to_owned());
        }
        if whole.errors > 0 {
            faults.push(format!("clients saw {}", counted(whole.errors, "error")));
        }
        if whole.stale_reads > 0 {
            faults.push(format!("clients saw {}", counted(whole.stale_reads, "stale read")));
        }
        if self.failover_expected && self.failovers == 0 {
            faults.push("the primary was to be killed, and no failover followed".to_owned());
        }
        faults
    }

    fn gap_ms(&self) -> f64 {
        self.reading.gap_longest.length.as_secs_f64() * 1e3
    }

    fn gap_since_seconds(&self) -> f64 {
        self.reading.gap_longest.since.as_secs_f64()
    }

    /// For people: the figures, then the errors that clients saw.
    pub(super) fn text(&self) -> String {
        let whole = &self.reading.whole;
        let quantile = |quantile| whole.latencies.quantile_us(quantile).map_or("-".to_owned(), render::latency);
        let switches = self.failovers + self.recoveries;
        let mut text = format!("\nsummary after {:.1} s\n", self.lasted.as_secs_f64());
        for (name, value) in [
            ("operations", whole.operations.to_string()),
            ("errors", whole.errors.to_string()),
            ("stale reads", whole.stale_reads.to_string()),
            (
                "switches",
                format!(
                    "{switches} ({}, {})",
                    counted(self.failovers, "failover"),
                    counted(self.recoveries, "recovery")
                ),
            ),
            ("longest gap", format!("{:.1} ms between successes, at {:.1} s", self.gap_ms(), self.gap_since_seconds())),
            ("latency", format!("p50 {}, p99 {}, longest {}", quantile(0.5), quantile(0.99), quantile(1.0))),
        ] {
            let _ = writeln!(text, "  {name:<13}{value}");
        }
        for (error, count) in &self.reading.error_texts {
            let _ = writeln!(text, "  {count} times: {}", harmless(error));
        }
        if let Some(logs) = &self.logs {
            let _ = writeln!(text, "  the logs are in {}", logs.display());
        }
        text
    }

    /// For scripts: one JSON object on one line.
    pub(super) fn json(&self) -> String {
        let whole = &self.reading.whole;
        let texts: serde_json::Map<String, serde_json::Value> =
            self.reading.error_texts.iter().map(|(text, count)| (text.clone(), (*count).into())).collect();
        let object = json!({
            "seconds": (self.lasted.as_secs_f64() * 1e3).round() / 1e3,
            "operations": whole.operations,
            "errors": whole.errors,
            "error_texts": texts,
            "stale_reads": whole.stale_reads,
            "switches": self.failovers + self.recoveries,
            "failovers": self.failovers,
            "recoveries": self.recoveries,
            "longest_gap_ms": (self.gap_ms() * 1e3).round() / 1e3,
            "longest_gap_at_seconds": (self.gap_since_seconds() * 1e3).round() / 1e3,
            "p50_us": whole.latencies.quantile_us(0.5),
            "p99_us": whole.latencies.quantile_us(0.99),
            "ok": self.faults().is_empty(),
            "logs": self.logs,
        });
        format!("{object}\n")
    }
}

/// `1 error`, `2 errors`, `2 recoveries`.
fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::super::meter::{Meter, Outcome};
    use super::*;

    /// A run of two successes and whatever else.
    fn summary(others: &[Outcome]) -> Summary {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let ms = Duration::from_millis;
        meter.record(start + ms(4), ms(2), &Outcome::Success);
        meter.record(start + ms(9), ms(3), &Outcome::Success);
        for outcome in others {
            meter.record(start + ms(9), ms(1), outcome);
        }
        let reading = meter.read(start + ms(10));
        Summary { lasted: ms(6_000), reading, failovers: 1, recoveries: 0, failover_expected: true, logs: None }
    }

    #[test]
    fn a_run_without_fault_is_a_good_end_and_each_fault_is_named() {
        assert_eq!(summary(&[]).faults(), Vec::<String>::new());
        let bad = summary(&[Outcome::Error("NOBACKEND".to_owned()), Outcome::Stale, Outcome::Stale]);
        assert_eq!(bad.faults(), ["clients saw 1 error", "clients saw 2 stale reads"]);
        let unmoved = Summary { failovers: 0, ..summary(&[]) };
        assert_eq!(unmoved.faults(), ["the primary was to be killed, and no failover followed"]);
        assert_eq!(Summary { failover_expected: false, ..unmoved }.faults(), Vec::<String>::new());
        let idle = Summary { reading: Reading::default(), ..summary(&[]) };
        assert_eq!(idle.faults(), ["no request succeeded"]);
    }

    #[test]
    fn the_text_holds_every_figure_and_no_control_character_of_an_error() {
        let expected = "
summary after 6.0 s
  operations   3
  errors       1
  stale reads  0
  switches     1 (1 failover, 0 recoveries)
  longest gap  5.0 ms between successes, at 0.0 s
  latency      p50 2.0ms, p99 3.1ms, longest 3.1ms
  1 times: NOBACKEND ?[2J
";
        assert_eq!(summary(&[Outcome::Error("NOBACKEND \u{1b}[2J".to_owned())]).text(), expected);
    }

    #[test]
    fn the_json_is_one_line_with_the_figures_as_numbers() {
        let text = summary(&[Outcome::Stale]).json();
        assert_eq!(text.lines().count(), 1);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, value) in [("operations", 3), ("errors", 0), ("stale_reads", 1), ("switches", 1), ("failovers", 1)] {
            assert_eq!(object[name], value, "{name}");
        }
        assert_eq!((object["longest_gap_ms"].as_f64(), object["ok"].as_bool()), (Some(5.0), Some(false)));
    }
}
