//! Reports as aligned text for people.

use std::fmt::Write;

use super::output::harmless;
use crate::control::api::{BackendReport, CommandOutcome, GroupReport, StatusReport};
use crate::telemetry::events::{Event, Severity};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Head,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Tone {
    /// ANSI colours, which every terminal maps to what its owner can read.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Head => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
        }
    }

    pub(super) fn of_health(health: &str) -> Self {
        match health {
            "healthy" => Self::Good,
            "degraded" => Self::Warn,
            "critical" | "failed" => Self::Bad,
            _ => Self::Dim,
        }
    }

    pub(super) fn of_status(status: &str) -> Self {
        match status {
            "active" | "recovered" => Self::Good,
            "failing_over" => Self::Bad,
            _ => Self::Warn,
        }
    }
}

pub(super) fn toned(text: &str, tone: Tone, coloured: bool) -> String {
    if coloured && tone != Tone::Plain { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code()) } else { text.to_owned() }
}

/// A harmless text and its tone.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn plain(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(super) fn toned(text: &str, tone: Tone) -> Self {
        Self { text: harmless(text), tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows of equal columns, two spaces apart, without blanks at the ends of lines.
pub(super) fn table(rows: &[Vec<Cell>], coloured: bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut owed = 0;
        for (column, cell) in row.iter().enumerate() {
            if !cell.text.is_empty() {
                text.extend(std::iter::repeat_n(' ', owed));
                text.push_str(&toned(&cell.text, cell.tone, coloured));
                owed = 0;
            }
            owed += widths[column] - cell.width() + 2;
        }
        text.push('\n');
    }
    text
}

/// What `standin status` prints.
pub(super) fn status(report: &StatusReport, coloured: bool) -> String {
    let mut text = String::new();
    let draining = if report.draining { "  draining" } else { "" };
    let _ = writeln!(
        text,
        "standin {}  process {}  up {}  {} clients{draining}",
        harmless(&report.version),
        report.process_id,
        duration(report.uptime_seconds),
        report.clients
    );
    for group in &report.groups {
        text.push('\n');
        text.push_str(&group_text(group, coloured));
    }
    text
}

fn group_text(group: &GroupReport, coloured: bool) -> String {
    let active = match &group.active {
        Some(name) => toned(&format!("{} serves", harmless(name)), Tone::Head, coloured),
        None => toned(&format!("no backend serves ({})", harmless(&group.availability)), Tone::Bad, coloured),
    };
    let mut text = format!(
        "group {} on {}: {active}, {} since {}, epoch {}, {} clients\n",
        harmless(&group.name),
        harmless(&group.listen),
        toned(&harmless(&group.status), Tone::of_status(&group.status), coloured),
        group.since,
        group.epoch,
        group.clients
    );
    let head =
        ["", "BACKEND", "ROLE", "HEALTH", "SCORE", "P50", "P99", "IN FLIGHT", "LINKS", "PROBES", "CONTENT", "ADDRESS"];
    let mut rows = vec![head.map(|name| Cell::toned(name, Tone::Dim)).to_vec()];
    rows.extend(group.backends.iter().map(backend_row));
    text.push_str(&table(&rows, coloured));
    for note in &group.notes {
        let _ = writeln!(text, "  {}", harmless(note));
    }
    for backend in &group.backends {
        notes(backend, &mut text);
    }
    text
}

fn backend_row(backend: &BackendReport) -> Vec<Cell> {
    let health = Tone::of_health(&backend.health);
    let probes = match (backend.probes.ok_in_a_row, backend.probes.failed_in_a_row) {
        (0, 0) => "none ok".to_owned(),
        (ok, 0) => format!("{ok} ok"),
        (_, failed) => format!("{failed} failed"),
    };
    let content = match (backend.divergence.state.as_ref(), backend.divergence.keys) {
        ("keys", keys) => format!("missed {keys} keys"),
        (state, _) => state.to_owned(),
    };
    let latency = |us: Option<u64>| Cell::plain(&us.map_or_else(|| "-".to_owned(), latency));
    vec![
        Cell::plain(if backend.active { "*" } else { " " }),
        Cell::toned(&backend.name, if backend.active { Tone::Head } else { Tone::Plain }),
        Cell::plain(&backend.role),
        Cell::toned(&backend.health, health),
        Cell::toned(&backend.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.0}")), health),
        latency(backend.latency.map(|latency| latency.p50_us)),
        latency(backend.latency.map(|latency| latency.p99_us)),
        Cell::plain(&backend.in_flight.to_string()),
        Cell::plain(&backend.links.to_string()),
        Cell::plain(&probes),
        Cell::plain(&content),
        Cell::plain(&backend.address),
    ]
}

/// What the row does not say: why the score is low, why it could not be entered, and what mends that.
fn notes(backend: &BackendReport, text: &mut String) {
    let name = harmless(&backend.name);
    for reason in &backend.reasons {
        let _ = writeln!(text, "  {name}: {}", harmless(reason));
    }
    if let Some(error) = &backend.probes.last_error {
        let _ = writeln!(text, "  {name}: last probe failed: {}", harmless(error));
    }
    if let Some(trouble) = backend.replication.as_ref().and_then(|replication| replication.trouble.as_ref()) {
        let _ = writeln!(text, "  {name}: replication: {}", harmless(trouble));
    }
    if let Some(sampling) =
        backend.sampling.as_ref().filter(|sampling| sampling.agree_percent.is_some_and(|percent| percent < 100.0))
    {
        let (percent, differing) = (sampling.agree_percent.unwrap_or(100.0), sampling.differing);
        let _ = writeln!(
            text,
            "  {name}: {percent} % of the keys compared last agree with the active; {differing} have differed, {} were repaired",
            sampling.repaired
        );
    }
    if !backend.enterable && !backend.active {
        let why = backend.why_not.as_deref().unwrap_or("the reason is not known yet");
        let _ = writeln!(text, "  {name}: cannot be entered: {}", harmless(why));
        if let Some(mend) = &backend.mend {
            let _ = writeln!(text, "  {name}: mend it with: {}", harmless(mend));
        }
    }
}

/// One line for one event.
pub(super) fn event(event: &Event, coloured: bool) -> String {
    let tone = match event.severity {
        Severity::Info => Tone::Plain,
        Severity::Warning => Tone::Warn,
        Severity::Error => Tone::Bad,
    };
    let kind = toned(&format!("{:<22}", event.kind.as_str()), tone, coloured);
    let place = [event.group.as_deref(), event.backend.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("/");
    let place = if place.is_empty() { String::new() } else { format!("{}: ", harmless(&place)) };
    format!("{:>5}  {}  {kind}  {place}{}\n", event.id, event.at, harmless(&event.message))
}

/// What a command that was carried out prints.
pub(super) fn outcome(outcome: &CommandOutcome) -> String {
    let (message, group, epoch) = (harmless(&outcome.message), harmless(&outcome.group), outcome.epoch);
    let held = outcome.held_us.map(|us| format!(", requests were held for {}", latency(us))).unwrap_or_default();
    let mut text = format!("{message} (group {group}, epoch {epoch}{held})\n");
    for (number, step) in (1..).zip(&outcome.steps) {
        let _ = writeln!(text, "  {number}. {}", harmless(step));
    }
    text
}

pub(super) fn latency(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..10_000 => format!("{:.1}ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", us / 1_000),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::api::tests::sample_status;
    use crate::telemetry::events::EventKind;

    #[test]
    fn a_status_is_an_aligned_table_with_what_needs_attention_below() {
        let expected = "\
standin 0.1.0  process 4242  up 2 h 5 min  50 clients

group default on 127.0.0.1:6380: primary serves, active since 2026-11-22T02:47:19.120Z, epoch 1, 50 clients
   BACKEND   ROLE     HEALTH    SCORE  P50   P99    IN FLIGHT  LINKS  PROBES   CONTENT  ADDRESS
*  primary   primary  healthy   100    88us  1.9ms  12         1      17 ok    clean    127.0.0.1:6379
   backup-a  backup   degraded  84     -     -      12         1      none ok  unknown  127.0.0.1:6390
  an operator chose the active backend; `standin recover` returns to the primary
  backup-a: probes take 4 times their baseline
  backup-a: last probe failed: LOADING ?[2J
  backup-a: cannot be entered: it holds 1204 keys that this group did not write
  backup-a: mend it with: standin adopt backup-a
";
        assert_eq!(status(&sample_status(), false), expected);
    }

    #[test]
    fn colours_are_written_only_where_they_are_wanted() {
        let report = sample_status();
        assert!(status(&report, true).contains("\u{1b}[32mhealthy\u{1b}[0m"));
        assert!(!status(&report, false).contains('\u{1b}'));
    }

    #[test]
    fn a_group_that_nobody_serves_says_so_first() {
        let mut report = sample_status();
        report.groups[0].active = None;
        report.groups[0].availability = "no_backend".into();
        assert!(status(&report, false).contains("on 127.0.0.1:6380: no backend serves (no_backend),"));
    }

    #[test]
    fn an_event_is_one_line_whatever_its_message_holds() {
        let mut sample = Event::new(EventKind::BackendDown, "refused\nconnections\u{1b}[2J").group("default");
        sample.backend = Some("primary".to_owned());
        sample.id = 7;
        let line = event(&sample, false);
        assert!(line.starts_with("    7  ") && line.ends_with("default/primary: refused?connections?[2J\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn figures_are_written_in_the_unit_that_fits() {
        for (us, text) in [(0, "0us"), (999, "999us"), (1_500, "1.5ms"), (42_000, "42ms"), (2_500_000, "2.5s")] {
            assert_eq!(latency(us), text);
        }
        for (seconds, text) in [(59, "59 s"), (61, "1 min 1 s"), (7_530, "2 h 5 min"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
