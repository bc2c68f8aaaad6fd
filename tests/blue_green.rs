//! Staged plans: `blue_green`, compared before and after the cut-over, and rolled back by itself when green is wrong; and such
//! plans as the way back to the primary.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{
    CommandRelay, Fault, FaultRelay, Load, PRIMARY_LOST, RedisServer, Reply, Rule, StandinConfig, StandinProcess,
    eventually, secs,
};

struct Stage {
    _blue: RedisServer,
    green: RedisServer,
    relay: CommandRelay,
    standin: StandinProcess,
}

impl Stage {
    /// Blue is the primary, green a mirrored backup behind a relay; 2,000 keys from before.
    fn start() -> Self {
        let (blue, green) = (RedisServer::start(), RedisServer::start());
        let mut direct = blue.connect();
        for n in 0..2_000 {
            direct.command(&["SET", &format!("old:{n}"), &format!("value {n}")]);
        }
        drop(direct);
        let relay = CommandRelay::start(green.address());
        let standin = StandinConfig::new()
            .primary(blue.address())
            .backend("green", "backup", &relay.address().to_string(), "data = \"mirrored\"")
            .table("[sampling]\nmode = \"off\"")
            .start();
        Self { _blue: blue, green, relay, standin }
    }

    #[track_caller]
    fn begin(&self, to: &str, plan: &str, dwell: &str) {
        let answer = self.standin.post("/v1/failover", &json!({"to": to, "plan": plan, "dwell": dwell}));
        assert_eq!((answer.code, &answer.json()["result"]), (200, &json!("begun")), "{answer:?}");
    }

    fn phase(&self) -> String {
        self.standin.group("default")["plan"]["phase"].as_str().unwrap_or("none").to_owned()
    }

    /// The event with which the plan ended.
    #[track_caller]
    fn ended(&self) -> Value {
        end_of_plan(&self.standin)
    }
}

#[track_caller]
fn end_of_plan(standin: &StandinProcess) -> Value {
    let mut found = None;
    eventually(secs(60), "the plan ends", || {
        let is_end = |event: &Value| event["result"] == "done" || event["result"] == "rolled_back";
        found = standin.events_of("plan").into_iter().find(is_end);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_plan_runs_to_its_end_under_load_without_an_error_or_a_lost_write_and_leads_back() {
    let stage = Stage::start();
    let load = Load::new(stage.standin.address()).clients(8).requests_per_second(2_000).start();
    load.wait_for_successes(500);
    stage.begin("green", "blue_green", "1s");
    let event = stage.ended();
    assert_eq!(event["result"], "done", "{event:#}");
    assert_eq!(stage.standin.active(), "green");
    let evidence = event["detail"]["evidence"].as_str().unwrap();
    println!("{evidence}");
    assert!(evidence.contains(" 0 wrong, 0 missing"), "{evidence}");
    let back = stage.standin.post("/v1/recover", &json!({}));
    assert_eq!(back.code, 200, "blue was kept in step: {back:?}");
    assert_eq!(stage.standin.active(), "primary");
    load.wait_for_successes(500);
    let report = load.stop();
    println!("{report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    assert_eq!(report.misses, 0, "acknowledged writes were lost");
    stage.standin.finish();
}

#[test]
fn wrong_values_in_2_percent_of_greens_replies_end_the_plan_in_its_first_comparison_within_500_samples() {
    let mut stage = Stage::start();
    stage.standin.declare(&["plan blue_green"]);
    stage.relay.set(&[Rule::value(&["GET"], "wrong").share(0.02)]);
    let load = Load::new(stage.standin.address()).clients(8).requests_per_second(2_000).start();
    load.wait_for_successes(500);
    stage.begin("green", "blue_green", "30s");
    let event = stage.ended();
    let message = event["message"].as_str().unwrap();
    println!("{message}");
    assert_eq!(event["result"], "rolled_back", "{event:#}");
    assert!(message.contains("they hold other values") && message.contains("the old one goes on serving"), "{message}");
    let evidence = event["detail"]["evidence"].as_str().unwrap();
    let samples: u64 = evidence.split(' ').next().unwrap().parse().unwrap();
    assert!(samples <= 500, "{evidence}");
    assert_eq!(stage.standin.active(), "primary");
    assert!(stage.standin.events_of("failover").is_empty(), "green never served");
    let report = load.stop();
    report.assert_no_errors();
    report.assert_no_stale_reads();
    stage.standin.finish();
}

#[test]
fn green_that_turns_slow_after_the_cut_over_is_left_for_blue_again() {
    let mut stage = Stage::start();
    stage.standin.declare(&["plan blue_green", "green"]);
    stage.begin("green", "blue_green", "6s");
    eventually(secs(20), "it is compared", || stage.phase() == "compare");
    eventually(secs(60), "green serves", || stage.phase() == "watch");
    stage.relay.set(&[Rule::delay(&["GET"], support::ms(30))]);
    let event = stage.ended();
    let message = event["message"].as_str().unwrap();
    println!("{message}");
    assert!(message.contains("the old one serves again"), "{message}");
    assert_eq!(stage.standin.active(), "primary");
    let mut client = stage.standin.connect();
    assert_eq!(client.command(&["GET", "old:7"]), Reply::bulk("value 7"));
    stage.standin.finish();
}

#[test]
fn an_operator_pauses_resumes_and_rolls_back() {
    let mut stage = Stage::start();
    stage.standin.declare(&["plan blue_green"]);
    assert_eq!(stage.standin.post("/v1/rollback", &json!({})).code, 409, "nothing is under way");
    let dry = stage.standin.post("/v1/failover", &json!({"to": "green", "plan": "blue_green", "dry_run": true})).json();
    assert_eq!((dry["result"].as_str(), dry["steps"].as_array().map(Vec::len)), (Some("dry_run"), Some(4)), "{dry:#}");
    stage.begin("green", "blue_green", "1s");
    assert_eq!(stage.standin.post("/v1/pause", &json!({})).code, 200);
    support::throughout(secs(3), "it does not go on", || stage.standin.active() == "primary");
    assert_eq!(stage.standin.group("default")["plan"]["paused"], true);
    let second = stage.standin.post("/v1/failover", &json!({"to": "green", "plan": "blue_green"}));
    assert_eq!(second.code, 503, "one at a time: {second:?}");
    assert_eq!(stage.standin.post("/v1/resume", &json!({})).code, 200);
    eventually(secs(20), "green serves", || stage.standin.active() == "green");
    let answer = stage.standin.post("/v1/rollback", &json!({"reason": "second thoughts"}));
    assert_eq!(answer.code, 200, "{answer:?}");
    eventually(secs(5), "blue serves", || stage.standin.active() == "primary");
    let event = stage.ended();
    assert!(event["message"].as_str().unwrap().contains("second thoughts"), "{event:#}");
    stage.standin.finish();
}

#[test]
fn backends_that_cannot_be_kept_in_step_are_refused_for_the_plan() {
    let (blue, green) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(blue.address(), green.address()).start();
    let answer = standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "blue_green"}));
    assert!(answer.code == 409 && answer.body.contains("data = \\\"mirrored\\\""), "{answer:?}");
    standin.finish();
}

#[test]
fn values_that_are_no_strings_are_compared_too_and_show_where_they_differ() {
    let mut stage = Stage::start();
    stage.standin.declare(&["plan blue_green"]);
    // Through Standin: it keeps nobody in step beside a writer of the server's own.
    let mut blue = stage.standin.connect();
    blue.command(&["FLUSHALL"]);
    for n in 0..300 {
        blue.command(&["HSET", &format!("hash:{n}"), "field", "1", "other", "2"]);
        blue.command(&["RPUSH", &format!("list:{n}"), "a", "b"]);
        blue.command(&["ZADD", &format!("zset:{n}"), "1", "a", "2", "b"]);
        blue.command(&["SADD", &format!("set:{n}"), "a", "b", "c"]);
    }
    stage.begin("green", "blue_green", "30s");
    let samples = || stage.standin.group("default")["plan"]["samples"].as_u64().unwrap_or(0);
    eventually(secs(30), "they are compared", || samples() > 100);
    assert_eq!(stage.standin.group("default")["plan"]["wrong"], 0);
    let mut green = stage.green.connect();
    for n in 0..300 {
        green.command(&["HSET", &format!("hash:{n}"), "field", "3"]);
    }
    let event = stage.ended();
    let message = event["message"].as_str().unwrap();
    assert!(event["detail"]["evidence"].as_str().is_some_and(|evidence| !evidence.contains(" 0 wrong")), "{event:#}");
    assert!(message.contains("a hash whose elements are others on the other side"), "{message}");
    assert_eq!(stage.standin.active(), "primary");
    stage.standin.finish();
}

#[test]
fn a_recovery_by_a_staged_plan_begins_by_itself_and_brings_the_primary_back() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let config = StandinConfig::new()
        .primary(relay.address())
        .backend("backup-a", "backup", &backup.address().to_string(), "data = \"mirrored\"")
        .table("[recovery]\nthreshold = 2\ndelay = \"1s\"\nplan = \"blue_green\"\ndwell = \"1s\"")
        .table("[sampling]\nmode = \"off\"");
    let mut standin = config.variable("STANDIN_FAILOVER_COOLDOWN", "0s").start();
    standin.declare(PRIMARY_LOST);
    let load = Load::new(standin.address()).clients(8).requests_per_second(1_000).start();
    // The relay makes the primary slower than the backup, as a longer way would.
    eventually(secs(30), "it is known how long reads take", || {
        standin.backend("primary")["baseline_us"]["point_read"].is_number()
    });
    eventually(secs(10), "the backup is in step", || standin.backend("backup-a")["mirror"]["state"] == "in_step");
    relay.set(Fault::Refuse);
    standin.wait_until_active("backup-a", secs(5));
    relay.heal();
    standin.wait_until_active("primary", secs(60));
    let event = end_of_plan(&standin);
    assert_eq!(event["result"], "done", "{event:#}");
    load.wait_for_successes(500);
    let report = load.stop();
    report.assert_no_stale_reads();
    let recovery = standin.events_of("recovery").pop().unwrap();
    assert_eq!((&recovery["detail"]["plan"], &recovery["trigger"]), (&json!("drain"), &json!("health_check")));
    let begun: Vec<_> = standin.events_of("plan").into_iter().filter(|event| event["result"] == "begun").collect();
    assert_eq!(begun.len(), 1, "{begun:#?}");
    assert!(begun[0]["detail"]["checks"].as_array().is_some_and(|checks| !checks.is_empty()), "{:#}", begun[0]);
    standin.finish();
}

#[test]
fn a_recovery_whose_backends_cannot_be_kept_in_step_is_drained_and_says_so() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let table = "[recovery]\nthreshold = 2\ndelay = \"1s\"\nplan = \"gradual\"";
    let config = StandinConfig::pair(relay.address(), backup.address()).table(table);
    let mut standin = config.variable("STANDIN_FAILOVER_COOLDOWN", "0s").start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    client.command(&["SET", "k", "before"]);
    relay.set(Fault::Refuse);
    standin.wait_until_active("backup-a", secs(5));
    relay.heal();
    standin.wait_until_active("primary", secs(20));
    let event = standin.events_of("recovery").pop().unwrap();
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("by plan drain instead of gradual, since backup-a is not of those"), "{message}");
    assert!(standin.events_of("plan").is_empty());
    standin.finish();
}

#[test]
fn a_dry_run_of_a_staged_recovery_says_its_steps() {
    let stage = Stage::start();
    // Without a name: the best of those that are kept in step.
    eventually(secs(20), "green is in step", || stage.standin.backend("green")["mirror"]["state"] == "in_step");
    let body = json!({"plan": "canary", "dwell": "7s", "dry_run": true});
    let dry = stage.standin.post("/v1/failover", &body).json();
    let steps: Vec<&str> = dry["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    assert_eq!(steps.len(), 8, "{steps:#?}");
    assert!(steps[1].contains("move 5 % of the hash slots to green") && steps[1].contains("7s"), "{steps:#?}");
    assert_eq!(stage.standin.group("default")["plan"], Value::Null, "nothing has begun");
    let back = stage.standin.post("/v1/recover", &json!({"plan": "gradual", "dry_run": true})).json();
    assert_eq!(back["result"], "nothing_to_do", "the primary serves already: {back:#}");
    stage.standin.finish();
}
