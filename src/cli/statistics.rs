//! `standin stats`: switches and incidents of the last day and the last 30.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::control_commands::with_client;
use super::output::{self, harmless};
use super::render::{Cell, Tone, table, toned};
use super::{Failure, StatusArgs};
use crate::admin::StatisticsAnswer;
use crate::control::api::{IncidentReport, StatisticsReport};
use crate::policy::Counts;

/// Incidents shown; `--json` has all that are kept.
const INCIDENTS_SHOWN: usize = 10;

pub(super) fn run(arguments: &StatusArgs) -> Result<(), Failure> {
    with_client(&arguments.control, async |client| {
        if arguments.json {
            let answer: Value = client.get("/v1/statistics").await?;
            output::print(&format!("{answer:#}\n"));
        } else {
            let answer: StatisticsAnswer = client.get("/v1/statistics").await?;
            let coloured = output::wants_colour();
            output::print(&answer.groups.iter().map(|group| text(group, coloured)).collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    })
}

pub(super) fn text(report: &StatisticsReport, coloured: bool) -> String {
    let (day, month) = (&report.day, &report.month);
    let mut rows = vec![["", "24 HOURS", "30 DAYS"].map(|name| Cell::toned(name, Tone::Dim)).to_vec()];
    let mut row = |name: &str, count: &dyn Fn(&Counts) -> String| {
        rows.push(vec![Cell::plain(name), Cell::plain(&count(day)), Cell::plain(&count(month))]);
    };
    row("switches", &|counts| sum(&counts.switches_by_kind).to_string());
    row("  by trigger", &|counts| by(&counts.switches_by_trigger));
    row("  by kind", &|counts| by(&counts.switches_by_kind));
    row("  given up or refused", &|counts| counts.switches_failed.to_string());
    row("incidents", &|counts| by(&counts.incidents));
    row("  resolved by", &|counts| by(&counts.resolved));
    row("  mean and longest", &resolution);
    row("nobody could serve", &|counts| counts.nobody_could_serve.to_string());
    row("decisions to stay", &|counts| counts.stayed.to_string());
    row("proposals", &|counts| counts.proposals.to_string());
    row("commands refused", &|counts| counts.rejected.to_string());
    let head = toned(&format!("group {}", harmless(&report.group)), Tone::Head, coloured);
    let mut text = format!("{head}\n{}", table(&rows, coloured));
    if !report.open_breakers.is_empty() {
        let _ = writeln!(text, "open breakers: {}", harmless(&report.open_breakers.join(", ")));
    }
    for incident in report.incidents.iter().rev().take(INCIDENTS_SHOWN) {
        text.push_str(&incident_text(incident));
    }
    text
}

fn incident_text(incident: &IncidentReport) -> String {
    let end = match (&incident.resolved_at, &incident.resolution, &incident.served_by) {
        (Some(at), Some(how), Some(by)) => format!("resolved {at} by {how}, {by} serves"),
        _ => "not resolved".to_owned(),
    };
    format!("incident {} {}: {}; {}\n", incident.id, incident.since, harmless(&incident.why), harmless(&end))
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}

fn by(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "0".to_owned();
    }
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

fn resolution(counts: &Counts) -> String {
    match sum(&counts.resolved) {
        0 => "-".to_owned(),
        resolved => format!("{} ms, {} ms", counts.resolution_ms_total / resolved, counts.resolution_ms_max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::tests::sample_statistics;

    #[test]
    fn a_day_and_a_month_stand_side_by_side_with_the_last_incidents_below() {
        let expected = "\
group default
                       24 HOURS      30 DAYS
switches               1             3
  by trigger           1 connection  3 connection
  by kind              1 failover    3 failover
  given up or refused  0             0
incidents              1 connection  3 connection
  resolved by          1 failover    3 failover
  mean and longest     12 ms, 17 ms  12 ms, 17 ms
nobody could serve     0             0
decisions to stay      0             0
proposals              0             0
commands refused       0             0
open breakers: primary
incident 1 2026-11-22T02:47:19.120Z: primary: connection refused, 2 times in this outage; resolved \
2026-11-22T02:47:19.120Z by failover, backup-a serves
";
        assert_eq!(text(&sample_statistics(), false), expected);
    }
}
