//! Planned switchovers: what clients notice of one, what it says of itself, and what a plan would do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    Fault, FaultRelay, Load, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms, secs,
};

/// The last event of a kind.
#[track_caller]
fn last_event(standin: &StandinProcess, kind: &str) -> Value {
    standin.events_of(kind).pop().unwrap_or_else(|| panic!("no {kind} among {:#?}", standin.events()))
}

fn step_names(event: &Value) -> Vec<String> {
    let steps = event["detail"]["steps"].as_array().unwrap_or_else(|| panic!("no steps in {event:#}"));
    steps.iter().map(|step| step["step"].as_str().unwrap().to_owned()).collect()
}

fn held(event: &Value) -> Duration {
    Duration::from_micros(event["detail"]["held_us"].as_u64().unwrap_or_else(|| panic!("no hold in {event:#}")))
}

#[test]
fn a_drained_switchover_answers_every_request_and_says_for_how_long_requests_were_held() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(500);
    let answer = standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "drain", "reason": "upgrade"}));
    assert_eq!(answer.code, 200, "{answer:?}");
    load.wait_for_successes(500);
    let report = load.stop();
    report.assert_no_errors();
    report.assert_no_stale_reads();
    let event = last_event(&standin, "failover");
    assert_eq!(event["detail"]["plan"], "drain");
    assert_eq!(step_names(&event), ["look", "reconcile", "subscribe", "hold", "drain", "listen", "enter"]);
    let last = &standin.group("default")["last_switch"];
    assert_eq!((&last["plan"], &last["result"], &last["to"]), (&json!("drain"), &json!("done"), &json!("backup-a")));
    assert_eq!(last["held_us"], event["detail"]["held_us"]);
    assert_eq!(answer.json()["held_us"], event["detail"]["held_us"]);
    assert!(held(&event) > Duration::ZERO, "{event:#}");
    assert_eq!(standin.metric("standin_switch_hold_seconds_count{group=\"default\",trigger=\"manual\"}"), 1.0);
    standin.finish();
}

#[test]
fn an_immediate_switchover_waits_for_no_script_and_a_drained_one_does() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(&["UNKNOWNOUTCOME", "primary"]);
    let script = "local t = redis.call('TIME')[1] * 1000000 + redis.call('TIME')[2] \
                  while redis.call('TIME')[1] * 1000000 + redis.call('TIME')[2] < t + 1500000 do end return 1";
    let mut client = standin.connect();
    client.send(&["EVAL", script, "0"]);
    eventually(secs(5), "the script runs", || standin.backend("primary")["in_flight"].as_u64() > Some(0));
    let drained = standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "drain"}));
    assert_eq!(drained.code, 409, "it is not drained within half a second: {drained:?}");
    assert!(drained.body.contains("still under way"), "{drained:?}");
    assert_eq!(standin.active(), "primary");
    let immediate = standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "immediate"}));
    assert_eq!(immediate.code, 200, "{immediate:?}");
    assert_eq!(standin.active(), "backup-a");
    assert_eq!(step_names(&last_event(&standin, "failover")), ["doubt", "enter"]);
    assert!(client.read().is_error_word("UNKNOWNOUTCOME"), "a script is not run twice");
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok(), "the session goes on");
    standin.finish();
}

#[test]
fn a_dry_run_says_the_steps_and_changes_nothing() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    let (epoch, events) = (standin.epoch(), standin.events().len());
    let answer = standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "drain", "dry_run": true}));
    assert_eq!(answer.code, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(
        (&body["result"], &body["from"], &body["to"]),
        (&json!("dry_run"), &json!("primary"), &json!("backup-a"))
    );
    let words: Vec<&str> = body["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    let names: Vec<&str> = words.iter().map(|step| step.split(':').next().unwrap()).collect();
    assert_eq!(names, ["look", "reconcile", "subscribe", "hold", "drain", "listen", "enter"], "{words:#?}");
    assert_eq!((standin.active().as_str(), standin.epoch(), standin.events().len()), ("primary", epoch, events));
    let refused = standin.post("/v1/failover", &json!({"to": "nowhere", "dry_run": true}));
    assert_eq!(refused.code, 404, "{refused:?}");
    assert_eq!(standin.post("/v1/recover", &json!({"dry_run": true})).json()["result"], "nothing_to_do");
    let nameless = standin.post("/v1/failover", &json!({"plan": "gradual"}));
    assert!(nameless.code == 409 && nameless.body.contains("kept in step"), "a cold backup is not: {nameless:?}");
    standin.finish();
}

#[test]
fn the_primary_is_brought_back_by_the_plan_of_the_configuration() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let plan = "[recovery]\nthreshold = 2\ndelay = \"1s\"\nplan = \"immediate\"";
    let config = StandinConfig::pair(relay.address(), backup.address()).table(plan);
    let mut standin = config.variable("STANDIN_FAILOVER_COOLDOWN", "0s").start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    client.command(&["SET", "k", "before"]);
    relay.set(Fault::Refuse);
    standin.wait_until_active("backup-a", secs(5));
    assert_eq!(client.command(&["SET", "k", "meanwhile"]), Reply::ok());
    relay.heal();
    standin.wait_until_active("primary", secs(20));
    let event = last_event(&standin, "recovery");
    assert_eq!(
        (&event["detail"]["plan"], step_names(&event)),
        (&json!("immediate"), vec!["doubt".into(), "enter".into()])
    );
    assert_ne!(client.command(&["GET", "k"]), Reply::bulk("before"), "never an older value");
    standin.finish();
}

/// The figure of the plan: 20,000 requests a second, 10,000 keys that the primary has missed when it begins.
#[test]
fn a_drained_switchover_under_20_000_requests_a_second_holds_them_for_20_ms_at_most() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let config = StandinConfig::pair(relay.address(), backup.address()).table("[recovery]\nenabled = false");
    let mut standin = config.start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    client.command(&["SET", "k", "1"]);
    relay.set(Fault::Refuse);
    standin.wait_until_active("backup-a", secs(5));
    let load = Load::new(standin.address()).clients(32).requests_per_second(20_000).start();
    load.wait_for_successes(20_000);
    for first in (0..10_000).step_by(500) {
        let mut words = vec!["MSET".to_owned()];
        words.extend((first..first + 500).flat_map(|n| [format!("missed:{n}"), "new".to_owned()]));
        assert_eq!(client.command(&words), Reply::ok());
    }
    let missed = standin.backend("primary")["divergence"]["keys"].as_u64().unwrap();
    assert!(missed >= 10_000, "only {missed} keys are outstanding");
    let began = load.elapsed();
    relay.heal();
    let recover = |dry_run| standin.post("/v1/recover", &json!({"plan": "drain", "dry_run": dry_run}));
    eventually(secs(10), "the primary can be entered", || recover(true).code == 200);
    let began_with = standin.backend("primary")["divergence"]["keys"].as_u64().unwrap();
    let answer = recover(false);
    assert_eq!(answer.code, 200, "{answer:?}");
    let ended = load.elapsed();
    load.wait_for_successes(20_000);
    let report = load.stop();
    assert!(began_with >= 10_000, "only {began_with} keys were outstanding at the start");
    let event = last_event(&standin, "recovery");
    let (gap_at, gap) = report.gap_between(began, ended);
    let rate = report.operations as f64 / (ended + secs(1)).as_secs_f64();
    println!(
        "{began_with} keys outstanding, about {rate:.0} requests/s, held for {:?}, switch in {} us; longest gap {gap:?} at \
         {gap_at:?}; steps {}\n{report}",
        held(&event),
        event["duration_us"],
        event["detail"]["steps"]
    );
    report.assert_no_errors();
    report.assert_no_stale_reads();
    let allowed = ms(20) + report.longest_stall_within(gap_at, gap);
    assert!(held(&event) <= allowed, "held for {:?}, {allowed:?} are allowed: {event:#}", held(&event));
    assert_eq!(client.command(&["GET", "missed:9999"]), Reply::bulk("new"), "copied, not removed");
    standin.finish();
}
