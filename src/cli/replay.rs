//! `standin recording` and `standin replay`: an incident on the desk instead of in production.

use std::fmt::Write;

use serde_json::{Value, json};

use super::control_commands::with_client;
use super::output::{self, harmless};
use super::{Failure, RecordingArgs, ReplayArgs, run};
use crate::control::{engine_backends, engine_settings};
use crate::policy::{Action, DecisionKind, Recording, Time};
use crate::telemetry::wall_time::WallTime;

pub(super) fn fetch(arguments: &RecordingArgs) -> Result<(), Failure> {
    let event = arguments.event.map(|event| format!("event={event}"));
    let group = arguments.group.as_ref().map(|group| format!("group={group}"));
    let query: Vec<String> = event.into_iter().chain(group).collect();
    with_client(&arguments.control, async |client| {
        let recording: Value = client.get(&format!("/v1/recording?{}", query.join("&"))).await?;
        match &arguments.output {
            None => output::print(&format!("{recording}\n")),
            Some(file) => {
                let written = std::fs::write(file, recording.to_string());
                written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?;
            }
        }
        Ok(())
    })
}

pub(super) fn run(arguments: &ReplayArgs) -> Result<(), Failure> {
    let file = arguments.file.display();
    let bytes = std::fs::read(&arguments.file);
    let bytes = bytes.map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))?;
    let recording: Recording = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::failed(format!("{file} is no recording of this version: {error}")))?;
    recording.verify().map_err(|difference| Failure::failed(format!("{file} does not replay: {difference}")))?;
    let recorded: Vec<(Time, Action)> = recording.actions().map(|(at, action)| (at, action.clone())).collect();
    let mut text = String::new();
    if !arguments.json {
        text = head(&recording);
    }
    text.push_str(&timeline(&recording, "recorded", &recorded, arguments.json));
    if let Some(path) = &arguments.config {
        let config = run::load(path)?;
        let name = arguments.group.as_deref().unwrap_or(&recording.group);
        let group = config.group(name).or_else(|| config.groups.first().filter(|_| config.groups.len() == 1));
        let group =
            group.ok_or_else(|| Failure::bad_config(format!("{}: there is no group {name}", path.display())))?;
        let rerun = recording.rerun(engine_settings(group), &engine_backends(group));
        if !arguments.json {
            let _ = write!(text, "\nWith {} it would have been, the world being the recorded one:\n", path.display());
        }
        text.push_str(&timeline(&recording, "other", &rerun.asked, arguments.json));
    }
    output::print(&text);
    Ok(())
}

fn head(recording: &Recording) -> String {
    let span = recording.told.first().map(|told| told.at).zip(recording.told.last().map(|told| told.at));
    let (first, last) = span.unwrap_or_default();
    format!(
        "group {}: {} events from {} to {}; replayed, every action and the end state are the same\n",
        harmless(&recording.group),
        recording.told.len(),
        wall(recording, first),
        wall(recording, last),
    )
}

fn wall(recording: &Recording, at: Time) -> WallTime {
    WallTime::from_ms(recording.epoch_ms + at.as_micros() / 1_000)
}

/// One line for each decision and incident.
fn timeline(recording: &Recording, engine: &str, asked: &[(Time, Action)], json: bool) -> String {
    let mut text = String::new();
    for (at, action) in asked {
        let at = wall(recording, *at);
        let line = match action {
            Action::Record(decision) if json => json!({ "engine": engine, "at": at, "decision": decision }).to_string(),
            Action::Incident(incident) if json => {
                json!({ "engine": engine, "at": at, "incident": incident }).to_string()
            }
            Action::Record(decision) => {
                let backend = recording.before.backend_name(decision.backend);
                let result = decision.result.as_ref().map(|result| format!(" {result:?}")).unwrap_or_default();
                format!("{at}  {:<16} {backend}{result}: {}", kind(decision.kind), decision.why)
            }
            Action::Incident(incident) => {
                let state = if incident.resolved { "resolved" } else { "open" };
                format!("{at}  {:<16} {} {state}: {}", "incident", incident.id, incident.why)
            }
            // What it was asked for is said by the decision.
            Action::Switch(_)
            | Action::Rollout { .. }
            | Action::Publish { .. }
            | Action::SetAllowance { .. }
            | Action::ProbeNow { .. } => continue,
        };
        text.push_str(&if json { line } else { harmless(&line) });
        text.push('\n');
    }
    if text.is_empty() && !json {
        text.push_str("nothing was decided\n");
    }
    text
}

fn kind(kind: DecisionKind) -> String {
    serde_json::to_value(kind).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::{
        BackendId, BackendRole, BackendSettings, Edge, Engine, Event, RecordedEngine, Settings, Standing, SwitchId,
        SwitchResult,
    };

    fn file(change: impl FnOnce(&mut Recording)) -> (tempfile::TempDir, std::path::PathBuf) {
        let roles = [("primary", BackendRole::Primary), ("backup-a", BackendRole::Backup)];
        let backend =
            |(id, (name, role)): (usize, &(&str, BackendRole))| BackendSettings::new(BackendId(id as u8), name, *role);
        let backends = roles.iter().enumerate().map(backend).collect();
        let mut engine = RecordedEngine::new(Engine::new(Settings::default(), backends, 1, Time::ZERO));
        let refused = || Event::Edge { backend: BackendId(0), edge: Edge::ConnectRefused };
        let events = [
            Event::Standing { backend: BackendId(1), standing: Standing::Enterable },
            Event::Edge { backend: BackendId(1), edge: Edge::HandshakeDone },
            refused(),
            refused(),
            Event::SwitchDone { id: SwitchId(1), result: SwitchResult::Done },
        ];
        for (second, event) in events.into_iter().enumerate() {
            engine.handle(Time::from_secs(second as u64), event, &mut Vec::new());
        }
        let mut recording = engine.recording("default", 1_795_315_639_120, None).unwrap();
        change(&mut recording);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("incident.json");
        std::fs::write(&path, serde_json::to_vec(&recording).unwrap()).unwrap();
        (directory, path)
    }

    fn arguments(file: std::path::PathBuf, config: Option<std::path::PathBuf>) -> ReplayArgs {
        ReplayArgs { file, config, group: None, json: false }
    }

    #[test]
    fn a_recording_replays_and_its_decisions_are_told_in_order() {
        let (_directory, path) = file(|_| {});
        assert_eq!(run(&arguments(path.clone(), None)), Ok(()));
        let recording: Recording = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let actions: Vec<_> = recording.actions().map(|(at, action)| (at, action.clone())).collect();
        let text = timeline(&recording, "recorded", &actions, false);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in\n{text}"));
        assert!(at("1 open") < at("switch_began"));
        assert!(at("switch_began") < at("switch_ended") && at("switch_ended") < at("1 resolved"), "{text}");
        let lines = timeline(&recording, "recorded", &actions, true);
        assert!(
            lines
                .lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["engine"] == "recorded"))
        );
    }

    #[test]
    fn another_configuration_is_run_beside_the_recorded_one() {
        let (directory, path) = file(|_| {});
        let config = directory.path().join("standin.toml");
        let text = "[listen]\naddress = \"127.0.0.1:6380\"\n[failover]\nfailure_threshold = 50\n\
                    [[backend]]\nname = \"primary\"\nrole = \"primary\"\naddress = \"127.0.0.1:6379\"\n\
                    [[backend]]\nname = \"backup-a\"\nrole = \"backup\"\naddress = \"127.0.0.1:6390\"\n";
        std::fs::write(&config, text).unwrap();
        assert_eq!(run(&arguments(path.clone(), Some(config.clone()))), Ok(()));
        let recording: Recording = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let other = run::load(&config).unwrap();
        let rerun = recording.rerun(engine_settings(&other.groups[0]), &engine_backends(&other.groups[0]));
        assert_eq!(timeline(&recording, "other", &rerun.asked, false), "nothing was decided\n");
    }

    #[test]
    fn a_recording_that_does_not_replay_says_where_it_differs() {
        let (_directory, path) = file(|recording| recording.told.last_mut().unwrap().asked.clear());
        let failure = run(&arguments(path, None)).unwrap_err();
        assert!(failure.text.contains("does not replay: event 4"), "{}", failure.text);
        let failure = run(&arguments("/nowhere/incident.json".into(), None)).unwrap_err();
        assert!(failure.text.contains("cannot read"), "{}", failure.text);
    }
}
