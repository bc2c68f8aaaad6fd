//! What a Standin has learnt of its backends is there when it starts again.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::{RedisServer, StandinConfig, StandinProcess, eventually, secs};

fn start(directory: &std::path::Path, primary: &RedisServer, backup: &RedisServer) -> StandinProcess {
    let state = format!("[state]\ndirectory = \"{}\"", directory.display());
    StandinConfig::pair(primary.address(), backup.address()).table(&state).start()
}

#[test]
fn baselines_and_reliability_survive_a_restart() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let directory = tempfile::tempdir().unwrap();
    let mut standin = start(directory.path(), &primary, &backup);
    let mut client = standin.connect();
    // A lesson takes a second and thirty requests, and three of them are believed.
    eventually(secs(20), "a baseline of point reads is learnt", || {
        (0..20).for_each(|_| drop(client.command(&["GET", "k"])));
        standin.backend("primary")["baseline_us"]["point_read"].is_u64()
    });
    let learnt = standin.backend("primary");
    standin.terminate();
    eventually(secs(5), "Standin ends", || standin.try_exit().is_some());
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["default.state.json"], "one file, and nothing half-written");

    standin.kill();
    standin.start_again();
    standin.wait_until_ready();
    let backend = standin.backend("primary");
    assert_eq!(backend["baseline_us"]["point_read"], learnt["baseline_us"]["point_read"], "{backend:#}");
    let watched = |backend: &serde_json::Value| backend["reliability"]["watched_seconds"].as_u64().unwrap();
    assert!(watched(&backend) >= watched(&learnt), "{backend:#}");
    assert_eq!(backend["reliability"]["success_percent"], 100.0, "{backend:#}");
    standin.finish();
}

#[test]
fn a_broken_file_is_a_warning_and_a_fresh_start() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("default.state.json"),
        "{\"standin_state\":1,\"bytes\":9,\"checksum\":\"x\"}\nbroken",
    )
    .unwrap();
    let mut standin = start(directory.path(), &primary, &backup);
    standin.declare(&["what an earlier process kept is not used"]);
    assert_eq!(standin.connect().command(&["PING"]).text(), "PONG");
    assert!(standin.backend("primary")["baseline_us"]["point_read"].is_null());
    standin.finish();
}

#[test]
fn what_operators_said_holds_after_a_restart_and_an_expired_pin_does_not() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let directory = tempfile::tempdir().unwrap();
    let mut standin = start(directory.path(), &primary, &backup);
    let excluded =
        standin.post("/v1/exclude", &serde_json::json!({ "backend": "backup-a", "reason": "disk is failing" }));
    assert_eq!(excluded.code, 200, "{excluded:?}");
    let file = directory.path().join("default.state.json");
    let kept = || fs::read_to_string(&file).unwrap_or_default();
    // Also when Standin is killed: it is written within a second, not with the next minute.
    eventually(secs(5), "it is kept", || kept().contains("disk is failing"));
    standin.kill();
    standin.start_again();
    standin.wait_until_ready();
    let is_excluded =
        |standin: &StandinProcess| standin.group("default")["notes"].to_string().contains("disk is failing");
    assert!(is_excluded(&standin), "{:#}", standin.group("default"));
    let said: Vec<_> = standin.events_of("operator");
    assert!(said.iter().any(|event| event["message"].to_string().contains("taken up")), "{said:#?}");
    assert_eq!(standin.post("/v1/include", &serde_json::json!({ "backend": "backup-a" })).code, 200);
    let pin = serde_json::json!({ "backend": "primary", "for": "2s", "reason": "short" });
    assert_eq!(standin.post("/v1/pin", &pin).code, 200);
    eventually(secs(5), "the pin is kept, and the exclusion is not", || {
        kept().contains("short") && !kept().contains("disk is failing")
    });
    standin.kill();
    std::thread::sleep(secs(2));
    standin.start_again();
    standin.wait_until_ready();
    assert!(!is_excluded(&standin) && standin.events_of("operator").is_empty(), "{:#?}", standin.events_of("operator"));
    standin.finish();
}
