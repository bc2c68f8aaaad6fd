//! `standin explain`: a decision in words. What was seen, who was weighed, why the losers lost, what to do.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::control_commands::with_client;
use super::output::{self, harmless};
use super::render::{self, Cell, Tone, table};
use super::{ExplainArgs, Failure};
use crate::admin::ExplainReport;
use crate::policy::{Candidate, Decision};
use crate::telemetry::events::{Event, EventKind};

/// Events shown around the one that is explained.
const AROUND: usize = 4;

pub(super) fn run(arguments: &ExplainArgs) -> Result<(), Failure> {
    let path = format!("/v1/explain?event={}", arguments.event);
    with_client(&arguments.control, async |client| {
        if arguments.json {
            let report: Value = client.get(&path).await?;
            output::print(&format!("{report:#}\n"));
        } else {
            let report: ExplainReport = client.get(&path).await?;
            output::print(&text(&report, output::wants_colour()));
        }
        Ok(())
    })
}

/// The decision that an event tells of: its detail, or what a switch was decided from.
fn decision(event: &Event) -> Option<Decision> {
    let inner = event.detail.get("decision").filter(|inner| !inner.is_null());
    serde_json::from_value(inner.unwrap_or(&event.detail).clone()).ok()
}

pub(super) fn text(report: &ExplainReport, coloured: bool) -> String {
    let event = &report.event;
    let mut text = render::event(event, coloured);
    match decision(event) {
        Some(decision) => explain(&decision, coloured, &mut text),
        None => text.push_str("\nNo decision belongs to this event: it tells of something that was observed.\n"),
    }
    let what = what_to_do(event);
    if !what.is_empty() {
        let _ = write!(text, "\nWhat to do\n  {what}\n");
    }
    let around: Vec<&Event> =
        report.before.iter().rev().take(AROUND).rev().chain(report.after.iter().take(AROUND)).collect();
    if !around.is_empty() {
        text.push_str("\nAround it\n");
        for event in around {
            text.push_str(&render::event(event, coloured));
        }
    }
    let replay = format!("standin recording {id} --output {id}.json && standin replay {id}.json", id = event.id);
    let _ = write!(text, "\nTo run it again: {replay}\n");
    text
}

fn explain(decision: &Decision, coloured: bool, text: &mut String) {
    let _ = write!(text, "\nWhat was seen\n  {}\n", harmless(&decision.why));
    if let Some(trigger) = decision.trigger {
        let _ = writeln!(text, "  trigger {trigger}");
    }
    if let Some(evidence) = decision.evidence_for {
        let _ = writeln!(text, "  {} after the first evidence", short(evidence));
    }
    if let Some(confidence) = decision.confidence {
        let _ = writeln!(text, "  confidence {:.0} %", confidence * 100.0);
    }
    if let Some(delay) = decision.estimated_delay {
        let _ = writeln!(text, "  estimated to take {}", short(delay));
    }
    if !decision.candidates.is_empty() {
        text.push_str("\nWho was weighed\n");
        text.push_str(&table(&candidates(&decision.candidates), coloured));
        for candidate in &decision.candidates {
            for reason in &candidate.reasons {
                let _ = writeln!(text, "  {}: {}", harmless(&candidate.name), harmless(reason));
            }
        }
    }
    if !decision.checks.is_empty() {
        text.push_str("\nWhat was asked before\n");
        for check in &decision.checks {
            let passed = if check.passed { "ok" } else { "NO" };
            let _ = writeln!(text, "  {passed}  {}: {}", check.name.name(), harmless(&check.text));
        }
    }
}

fn candidates(candidates: &[Candidate]) -> Vec<Vec<Cell>> {
    let mut rows = vec![
        ["", "BACKEND", "HEALTH", "SCORE", "VALUE", "LATENCY", ""].map(|name| Cell::toned(name, Tone::Dim)).to_vec(),
    ];
    rows.extend(candidates.iter().map(|candidate| {
        let chosen = candidate.against.is_none();
        let latency = match (candidate.latency, candidate.baseline) {
            (Some(now), Some(usual)) => format!("{} (usually {})", short(now), short(usual)),
            (Some(now), None) => short(now),
            _ => "-".to_owned(),
        };
        vec![
            Cell::plain(if chosen { "*" } else { " " }),
            Cell::toned(&candidate.name, if chosen { Tone::Head } else { Tone::Plain }),
            Cell::toned(candidate.health.name(), Tone::of_health(candidate.health.name())),
            Cell::plain(&candidate.score.to_string()),
            Cell::plain(&candidate.value.to_string()),
            Cell::plain(&latency),
            Cell::plain(candidate.against.as_deref().unwrap_or("chosen")),
        ]
    }));
    rows
}

fn short(duration: Duration) -> String {
    render::latency(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

const fn what_to_do(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Failover => "See to the backend that was left; `standin recover` returns to it before its time.",
        EventKind::Proposed => "`standin confirm` carries it out, `standin reject` drops it.",
        EventKind::NoBackend => "Start any of the servers: the first that can be entered serves within 200 ms.",
        EventKind::SwitchRefused | EventKind::NotEnterable => {
            "Do what the line says, or nothing if another serves well."
        }
        EventKind::SwitchFailed => {
            "Nothing: it is tried again. If it goes on, see to the server that was to be entered."
        }
        EventKind::AuthenticationFailed => "Mend the secret; it is read again for each connection.",
        EventKind::Decision => "Nothing changed. If it should have, see what said NO above.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::{
        Action, BackendId, BackendRole, BackendSettings, DecisionKind, Edge, Engine, Event as Told, Settings, Standing,
        Time,
    };

    /// A decision as the engine itself makes it: the primary refuses, of two backups one may not be entered.
    fn decided() -> Decision {
        let backend = |id: u8, name: &str| {
            let role = if id == 0 { BackendRole::Primary } else { BackendRole::Backup };
            BackendSettings::new(BackendId(id), name, role)
        };
        let backends = vec![backend(0, "primary"), backend(1, "backup-a"), backend(2, "backup-b")];
        let mut engine = Engine::new(Settings::default(), backends, 1, Time::ZERO);
        let mut actions = Vec::new();
        let refused = Standing::Refused { why: "it holds 7 keys".to_owned() };
        for event in [
            Told::Standing { backend: BackendId(1), standing: refused },
            Told::Edge { backend: BackendId(2), edge: Edge::HandshakeDone },
            Told::Edge { backend: BackendId(0), edge: Edge::ConnectRefused },
            Told::Edge { backend: BackendId(0), edge: Edge::ConnectRefused },
        ] {
            engine.handle(Time::from_secs(1), event, &mut actions);
        }
        let decision = |action| match action {
            Action::Record(decision) if decision.kind == DecisionKind::SwitchBegan => Some(decision),
            _ => None,
        };
        actions.into_iter().find_map(decision).unwrap()
    }

    #[test]
    fn a_failover_is_explained_by_what_was_seen_who_was_weighed_and_what_was_asked() {
        let detail = serde_json::json!({ "held_us": 12, "decision": decided() });
        let event = Event { id: 7, ..Event::new(EventKind::Failover, "backup-b serves").detail(detail) };
        let report = ExplainReport { event, before: Vec::new(), after: Vec::new() };
        let text = text(&report, false);
        for part in [
            "primary: connection refused, 2 times in this outage",
            "trigger connection",
            "confidence 99 %",
            "chosen",
            "may not be entered: it holds 7 keys",
            "it is what is left",
            "ok  trigger: connection may switch",
            "See to the backend that was left",
            "standin recording 7 --output 7.json && standin replay 7.json",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.lines().any(|line| line.starts_with('*') && line.contains("backup-b")), "{text}");
    }

    #[test]
    fn an_event_without_a_decision_says_so() {
        let event = Event { id: 3, ..Event::new(EventKind::BackendUp, "backend primary is up again") };
        let report = ExplainReport { event, before: Vec::new(), after: Vec::new() };
        assert!(text(&report, false).contains("No decision belongs to this event"));
    }
}
