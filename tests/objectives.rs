//! Recovery objectives: what an outage took and cost is measured by its parts, and held against the targets.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use serde_json::Value;
use support::{PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, secs};

/// What was measured of the one outage there was.
fn recovery(standin: &StandinProcess) -> Value {
    let mut found = Value::Null;
    eventually(secs(10), "the outage is measured", || {
        let statistics = standin.get("/v1/statistics").json();
        let all = statistics.as_array().or_else(|| statistics["groups"].as_array()).unwrap().clone();
        let incidents = all[0]["incidents"].as_array().unwrap().clone();
        found = incidents.last().map_or(Value::Null, |incident| incident["recovery"].clone());
        found.is_object()
    });
    found
}

fn us(recovery: &Value, part: &str) -> u64 {
    recovery[part].as_u64().unwrap_or_else(|| panic!("no {part} in {recovery:#}"))
}

#[test]
fn an_outage_is_measured_by_its_parts_which_add_up_and_a_missed_target_is_an_event() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), backup.address());
    let mut standin = config.table("[objectives]\nrto = \"10s\"\nrpo = \"1s\"").start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["objective_missed"]);
    eventually(secs(5), "the backup can be entered", || standin.backend("backup-a")["enterable"] == true);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    let objectives = standin.group("default")["objectives"].clone();
    assert_eq!((&objectives["rto_target_us"], &objectives["rpo_target_us"]), (&10_000_000.into(), &1_000_000.into()));
    assert_eq!((&objectives["next"], &objectives["loss_present"]), (&"backup-a".into(), &"everything".into()));
    let present = us(&objectives, "rto_present_us");
    assert!((650_000..3_000_000).contains(&present), "{objectives:#}");
    let before = Instant::now();
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    let took = before.elapsed();
    let recovery = recovery(&standin);
    let parts = ["detection_us", "decision_us", "switch_us", "first_success_us"];
    let sum: u64 = parts.iter().map(|part| us(&recovery, part)).sum();
    let rto = us(&recovery, "rto_us");
    println!("the client waited {took:?}; {recovery}");
    assert!(rto.abs_diff(sum) <= 4, "{recovery:#}");
    // From the last success, which may be a probe's, to the first one: no shorter than what the client saw by much.
    assert!(rto + 5_000 >= us(&recovery, "switch_us") && rto < present + 500_000, "{took:?} {recovery:#}");
    assert_eq!((&recovery["loss"], recovery["rpo_us"].is_null()), (&"everything".into(), true), "a cold backup");
    let missed = standin.events_of("objective_missed");
    assert_eq!(missed.len(), 1, "{missed:#?}");
    let text = missed[0]["message"].as_str().unwrap();
    assert!(
        text.contains("detection") && text.contains("objectives.rpo is 1s") && !text.contains("objectives.rto"),
        "{text}"
    );
    let objectives = standin.group("default")["objectives"].clone();
    assert_eq!((us(&objectives, "rto_worst_us"), &objectives["missed"]), (rto, &1.into()), "{objectives:#}");
    assert_eq!(objectives["rpo_worst_is_unbounded"], true);
    let note = standin.group("default")["notes"].to_string();
    assert!(note.contains("recovery time:") && note.contains("target 10s"), "{note}");
    let metric = |name: &str| standin.metric(&format!("{name}{{group=\"default\"}}"));
    eventually(secs(3), "the metrics have it", || {
        metric("standin_objectives_missed_total") == 1.0 && metric("standin_rto_worst_seconds") > 0.0
    });
    assert_eq!(metric("standin_rto_target_seconds"), 10.0);
    assert!(metric("standin_rpo_worst_seconds").is_infinite());
    standin.finish();
}

#[test]
fn what_a_promoted_replica_lacks_is_bounded_and_within_the_targets_nothing_is_missed() {
    let (mut primary, replica) = (RedisServer::start(), RedisServer::start());
    let port = primary.address().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    eventually(secs(10), "it is in step", || replica.info("master_link_status") == "up");
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &replica.address().to_string(), "data = \"replica\"");
    let tables = "[replica]\npromote = true\n[objectives]\nrto = \"20s\"\nrpo = \"20s\"";
    let mut standin = config.table(tables).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a"]);
    let mut client = standin.connect();
    for n in 0..200 {
        assert_eq!(client.command(&["SET", "k", &n.to_string()]), Reply::ok());
    }
    eventually(secs(5), "the present loss is bounded", || {
        let objectives = standin.group("default")["objectives"].clone();
        objectives["loss_present"] == "at_most" && objectives["next"] == "backup-a"
    });
    for n in 0..50 {
        assert_eq!(client.command(&["SET", "k", &n.to_string()]), Reply::ok());
    }
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "last"]), Reply::ok());
    let recovery = recovery(&standin);
    println!("{recovery}");
    assert_eq!(recovery["loss"], "at_most", "{recovery:#}");
    assert!(us(&recovery, "writes_lost_max") <= 251, "no more than there were: {recovery:#}");
    assert!(us(&recovery, "rpo_us") < 20_000_000 && us(&recovery, "rto_us") < 20_000_000, "{recovery:#}");
    assert_eq!((standin.events_of("objective_measured").len(), standin.events_of("objective_missed").len()), (1, 0));
    standin.finish();
}

#[test]
fn the_worst_of_all_outages_is_known_after_a_restart_with_since_when_it_counts() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let directory = tempfile::tempdir().unwrap();
    let state = format!("[state]\ndirectory = \"{}\"", directory.path().display());
    let config = StandinConfig::pair(primary.address(), backup.address());
    let mut standin = config.table("[objectives]\nrto = \"10s\"\nrpo = \"1s\"").table(&state).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["objective_missed", "backup-a"]);
    eventually(secs(5), "the backup can be entered", || standin.backend("backup-a")["enterable"] == true);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    let rto = us(&recovery(&standin), "rto_us");
    let before = standin.group("default")["objectives"].clone();
    let file = directory.path().join("default.state.json");
    eventually(secs(5), "it is kept", || std::fs::read_to_string(&file).unwrap_or_default().contains("\"missed\":1"));
    standin.kill();
    standin.start_again();
    standin.wait_until_ready();
    let after = standin.group("default")["objectives"].clone();
    assert_eq!(us(&after, "rto_worst_us"), rto, "{after:#}");
    for figure in ["rpo_worst_is_unbounded", "missed", "worst_since"] {
        assert_eq!(after[figure], before[figure], "{figure}: {after:#}");
    }
    standin.finish();
}

#[test]
fn an_outage_that_began_as_trouble_is_measured_from_the_trouble() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    // Every write of the primary fails, and the backup could take over only when that one is dead.
    let config = StandinConfig::pair(primary.address(), backup.address());
    let mut standin = config.table("[failover]\nmode = \"manual\"").start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["MISCONF", "objective", "backup-a"]);
    eventually(secs(5), "the backup can be entered", || standin.backend("backup-a")["enterable"] == true);
    primary.let_saving_fail();
    let mut client = standin.connect();
    let _ = client.command(&["SET", "k", "1"]);
    eventually(secs(10), "the trouble is an incident", || !standin.events_of("incident").is_empty());
    let trouble = standin.events_of("incident")[0].clone();
    assert_eq!(trouble["detail"]["hard"], false, "{trouble:#}");
    let troubled = Instant::now();
    std::thread::sleep(secs(1));
    primary.kill();
    let killed = troubled.elapsed();
    let _ = client.command(&["SET", "k", "2"]);
    eventually(secs(10), "the backup serves", || {
        let _ = standin.post("/v1/failover", &serde_json::json!({}));
        standin.active() == "backup-a"
    });
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "3"]), Reply::ok());
    let recovery = recovery(&standin);
    println!("{recovery}");
    let rto = us(&recovery, "rto_us");
    assert!(rto >= killed.as_micros() as u64, "it counts from the trouble, {killed:?} before the death: {recovery:#}");
    standin.finish();
}
