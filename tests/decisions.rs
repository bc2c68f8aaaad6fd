//! Decisions of a real Standin in front of real servers: who has the last word, what an order leaves behind, and whether a
//! recorded incident can be explained and run again.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{PRIMARY_LOST, RedisServer, StandinConfig, StandinProcess, eventually, secs};

struct Stage {
    primary: RedisServer,
    _backups: [RedisServer; 2],
    standin: StandinProcess,
}

fn stage(adapt: impl FnOnce(StandinConfig) -> StandinConfig) -> Stage {
    let (primary, a, b) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), a.address()).backup("backup-b", b.address());
    let standin = adapt(config).start();
    assert!(standin.epoch() > 0, "it serves");
    eventually(secs(5), "everybody is well", || {
        ["primary", "backup-a", "backup-b"].iter().all(|name| standin.backend(name)["health"] == "healthy")
    });
    Stage { primary, _backups: [a, b], standin }
}

/// The command line, as an operator would use it.
fn standin(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_standin")).args(arguments).env("USER", "kim").output().unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
fn order(standin: &StandinProcess, path: &str, body: &Value) -> Value {
    let answer = standin.post(path, body);
    assert_eq!(answer.code, 200, "{answer:?}");
    answer.json()
}

#[test]
fn an_incident_is_explained_counted_recorded_and_replayed() {
    let state = tempfile::tempdir().unwrap();
    let table = format!("[state]\ndirectory = \"{}\"", state.path().display());
    let mut stage = stage(|config| config.table(&table));
    stage.standin.declare(PRIMARY_LOST);
    stage.primary.kill();
    stage.standin.wait_until_active("backup-a", secs(5));
    let control = stage.standin.control_address().to_string();
    let failover = stage.standin.events_of("failover").pop().unwrap();
    let id = failover["id"].as_u64().unwrap().to_string();

    let text = said(&standin(&["explain", &id, "--control", &control]));
    for part in
        ["What was seen", "connection refused", "confidence 99 %", "backup-b", "it is what is left", "What to do"]
    {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let statistics = stage.standin.get("/v1/statistics").json();
    let group = &statistics["groups"][0];
    assert_eq!(group["day"]["switches_by_trigger"]["connection"], 1, "{group:#}");
    assert_eq!(group["incidents"][0]["resolved"], true, "{group:#}");
    assert_eq!(group["incidents"][0]["resolution"], "failover", "{group:#}");
    assert!(said(&standin(&["stats", "--control", &control])).contains("1 connection"));

    let file = state.path().join("incident.json").display().to_string();
    said(&standin(&["recording", &id, "--output", &file, "--control", &control]));
    let replayed = said(&standin(&["replay", &file]));
    assert!(replayed.contains("every action and the end state are the same"), "{replayed}");
    assert!(replayed.contains("switch_began") && replayed.contains("backup-a"), "{replayed}");

    // A configuration that would have waited for the primary, run on the same events.
    let other = state.path().join("other.toml");
    let text = "[listen]\naddress = \"127.0.0.1:1\"\n[failover]\ntriggers = [\"health_check\", \"timeout\"]\n\
                [[backend]]\nname = \"primary\"\nrole = \"primary\"\naddress = \"127.0.0.1:2\"\n\
                [[backend]]\nname = \"backup-a\"\nrole = \"backup\"\naddress = \"127.0.0.1:3\"\n";
    std::fs::write(&other, text).unwrap();
    let replayed = said(&standin(&["replay", &file, "--config", &other.display().to_string()]));
    let (_, otherwise) = replayed.split_once("it would have been").unwrap();
    assert!(
        otherwise.contains("failover.triggers lacks connection") && !otherwise.contains("switch_began"),
        "{replayed}"
    );

    let recordings = state.path().join("recordings/default");
    eventually(secs(15), "the recording is written by itself", || is_recorded(&recordings));
    eventually(secs(15), "the statistics are written", || state.path().join("statistics-default.json").exists());
    stage.standin.finish();
}

fn is_recorded(directory: &Path) -> bool {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files = files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    files.next().is_some_and(|file| {
        said(&standin(&["replay", &file.display().to_string()])).contains("the end state are the same")
    })
}

#[test]
fn in_semi_automatic_mode_a_death_waits_for_a_person() {
    let mut stage = stage(|config| config.table("[failover]\nmode = \"semi_automatic\""));
    stage.standin.declare(PRIMARY_LOST);
    stage.standin.declare(&["waits for `standin confirm", "nobody can serve"]);
    let epoch = stage.standin.epoch();
    stage.primary.kill();
    eventually(secs(5), "it is proposed", || !stage.standin.group("default")["proposal"].is_null());
    let proposal = stage.standin.group("default")["proposal"].clone();
    assert_eq!((proposal["to"].as_str(), proposal["trigger"].as_str()), (Some("backup-a"), Some("connection")));
    assert_eq!(stage.standin.group("default")["availability"], "no_backend");
    assert_eq!(stage.standin.group("default")["epoch"].as_u64(), Some(epoch));
    let control = stage.standin.control_address().to_string();
    said(&standin(&["confirm", &proposal["id"].to_string(), "--reason", "seen", "--control", &control]));
    stage.standin.wait_until_active("backup-a", secs(2));
    let events = stage.standin.events();
    let operator = events.iter().find(|event| event["kind"] == "operator").unwrap();
    assert!(operator["message"].as_str().unwrap().starts_with("kim asked for proposal 1"), "{operator:#}");
    assert!(events.iter().any(|event| event["kind"] == "proposal_ended"));
    assert_eq!(stage.standin.connect().command(&["SET", "k", "v"]), support::Reply::ok());
    // The same word again changes nothing.
    let again = order(&stage.standin, "/v1/confirm", &json!({ "proposal": proposal["id"] }));
    assert_eq!(again["message"], "proposal 1 was confirmed already", "{again:#}");
    stage.standin.finish();
}

#[test]
fn a_drained_primary_is_left_in_order_and_returned_to_once_it_is_included() {
    let mut stage = stage(StandinConfig::quick_recovery);
    stage.standin.declare(&["serves now instead of primary", "a pin lasts up to"]);
    let done = order(&stage.standin, "/v1/drain", &json!({ "backend": "primary", "reason": "upgrade", "by": "kim" }));
    assert_eq!((done["result"].as_str(), done["to"].as_str()), (Some("done"), Some("backup-a")), "{done:#}");
    let notes = stage.standin.group("default")["notes"].to_string();
    assert!(notes.contains("primary is excluded: upgrade (by kim)"), "{notes}");
    let again = order(&stage.standin, "/v1/exclude", &json!({ "backend": "primary" }));
    assert!(again["message"].as_str().unwrap().contains("excluded already"), "{again:#}");
    let epoch = stage.standin.epoch();
    order(&stage.standin, "/v1/include", &json!({ "backend": "primary" }));
    stage.standin.wait_until_active("primary", secs(20));
    assert_eq!(stage.standin.epoch(), epoch + 1);
    stage.standin.finish();
}

#[test]
fn a_pin_holds_for_its_time_and_is_refused_where_it_makes_no_sense() {
    let mut stage = stage(StandinConfig::quick_recovery);
    stage.standin.declare(&["serves now instead of primary", "a pin lasts up to"]);
    order(&stage.standin, "/v1/pin", &json!({ "backend": "backup-b", "for": "4s" }));
    assert_eq!(stage.standin.active(), "backup-b");
    let pinned = stage.standin.group("default")["notes"].to_string();
    assert!(pinned.contains("pinned to backup-b until"), "{pinned}");
    for (body, code) in [
        (json!({ "backend": "nobody", "for": "1m" }), 404),
        (json!({ "backend": "backup-a", "for": "soon" }), 400),
        (json!({ "backend": "backup-a", "for": "0s" }), 409),
    ] {
        assert_eq!(stage.standin.post("/v1/pin", &body).code, code, "{body}");
    }
    stage.standin.wait_until_active("primary", secs(20));
    let events = stage.standin.events();
    assert!(events.iter().any(|event| event["message"].as_str().unwrap().contains("the time of the pin")));
    stage.standin.finish();
}

#[test]
fn readiness_waits_for_as_many_backends_as_it_is_told_to() {
    let (primary, absent) = (RedisServer::start(), RedisServer::stopped());
    for (policy, least) in [("one", 0), ("all", 900)] {
        let began = std::time::Instant::now();
        let config = StandinConfig::pair(primary.address(), absent.address());
        let table = format!("[initialization]\npolicy = \"{policy}\"\ntimeout = \"1s\"");
        let mut standin = config.table(&table).start();
        let took = began.elapsed().as_millis();
        assert!(took >= least, "ready after {took} ms with {policy}");
        standin.declare(&["backend backup-a is down"]);
        standin.finish();
    }
}
