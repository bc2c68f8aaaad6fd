//! The plans `gradual` and `canary`: two backends serve at once, shares move, and nobody reads an old value, whatever happens.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::{
    Client, CommandRelay, RedisServer, RegisterLoad, RegisterReport, Reply, Rule, RunningRegister, StandinConfig,
    StandinProcess, eventually, secs,
};

/// Two workers, so that what one does must be seen by the other, and quick to fail over and to return.
const TABLES: &str = "[workers]\ncount = 2\n[sampling]\nmode = \"off\"\n[failover]\ncooldown = \"0s\"\nmax_per_hour = 1000\n[recovery]\nthreshold = 1\ndelay = \"200ms\"\ndelay_max = \"400ms\"";
/// Operations of a load that is stopped before.
const ENDLESS: u64 = 100_000_000;

struct Stage {
    blue: RedisServer,
    green: RedisServer,
    standin: StandinProcess,
}

impl Stage {
    /// Blue is the primary, green a mirrored backup.
    fn start() -> Self {
        let (blue, green) = (RedisServer::start(), RedisServer::start());
        let address = green.address();
        Self::start_at(blue, green, address)
    }

    /// Green is reached at another address.
    fn start_at(blue: RedisServer, green: RedisServer, at: SocketAddr) -> Self {
        let standin = StandinConfig::new()
            .primary(blue.address())
            .backend("green", "backup", &at.to_string(), "data = \"mirrored\"")
            .table(TABLES)
            .start();
        let mut stage = Self { blue, green, standin };
        // On a crowded machine a server may look degraded for a moment.
        stage.standin.declare(&[
            "backend green is degraded",
            "backend primary is degraded",
            "plan gradual",
            "plan canary",
        ]);
        stage
    }

    /// Clients that each own their keys, know what was acknowledged, and use two connections by turns.
    fn registers(&self) -> RunningRegister {
        let load = RegisterLoad {
            address: self.standin.address(),
            clients: 4,
            operations: ENDLESS,
            keys_per_client: 50,
            seed: 7,
            padding: 0,
            pause: Duration::from_millis(4),
            may_lose: false,
        };
        let running = load.start();
        eventually(secs(20), "the load runs", || running.operations() > 1_000);
        running
    }

    #[track_caller]
    fn begin(&self, plan: &str, dwell: &str) {
        let order = json!({"to": "green", "plan": plan, "dwell": dwell});
        let answer = self.standin.post("/v1/failover", &order);
        assert_eq!((answer.code, &answer.json()["result"]), (200, &json!("begun")), "{answer:?}");
    }

    fn plan(&self) -> Value {
        self.standin.group("default")["plan"].clone()
    }

    /// Begins a plan and waits until so much is shared. On a crowded machine a plan may rightly find the next side slow for a
    /// moment, and goes back: then once more.
    #[track_caller]
    fn reach(&self, plan: &str, dwell: &str, percent: u64) {
        self.begin(plan, dwell);
        eventually(secs(90), "the share is reached", || {
            let now = self.plan();
            if now.is_null() {
                self.assert_crowded(&self.ended());
                self.begin(plan, dwell);
            }
            now["percent"] == percent && now["phase"] == "share"
        });
    }

    /// It was the machine that ended the plan, and nothing that was found to be wrong.
    #[track_caller]
    fn assert_crowded(&self, event: &Value) {
        let message = event["message"].as_str().unwrap_or("");
        let is_crowded = ["critical", "degraded", "slower"].iter().any(|word| message.contains(word));
        assert!(is_crowded && !message.contains("other values") && !message.contains("keys are missing"), "{event:#}");
        println!("once more: {message}");
    }

    /// Half of the keys are served by each, and stay so.
    #[track_caller]
    fn halve(&self) {
        self.reach("gradual", "300ms", 50);
        assert_eq!(self.standin.post("/v1/pause", &json!({})).code, 200);
        let plan = self.plan();
        assert_eq!((&plan["percent"], &plan["phase"]), (&json!(50), &json!("share")), "paused in time: {plan}");
    }

    /// The event with which the plan ended.
    #[track_caller]
    fn ended(&self) -> Value {
        let mut found = None;
        eventually(secs(90), "the plan ends", || {
            let is_end = |event: &Value| event["result"] == "done" || event["result"] == "rolled_back";
            found = self.standin.events_of("plan").into_iter().rfind(is_end);
            found.is_some() && self.plan().is_null()
        });
        found.unwrap()
    }
}

#[track_caller]
fn judge(load: RunningRegister, what: &str) -> RegisterReport {
    load.stop();
    let report = load.finish(|| std::thread::sleep(secs(1)));
    println!(
        "{what}: {} operations, {} acknowledged writes, {} reads, {} misses, {} errors {:?}, {} stale",
        report.operations,
        report.acknowledged_writes,
        report.reads,
        report.misses,
        report.errors,
        report.words,
        report.stale_count
    );
    assert_eq!(report.stale_count, 0, "{:?}", report.stale);
    report
}

#[track_caller]
fn assert_nothing_was_noticed(report: &RegisterReport) {
    assert_eq!((report.errors, report.misses, report.disconnects), (0, 0, 0), "{:?}", report.words);
}

#[test]
fn a_gradual_plan_runs_to_its_end_without_an_error_a_miss_or_an_old_value_and_leads_back() {
    let stage = Stage::start();
    let load = stage.registers();
    for _ in 0..4 {
        stage.begin("gradual", "300ms");
        let event = stage.ended();
        if event["result"] == "done" {
            break;
        }
        stage.assert_crowded(&event);
    }
    assert_eq!(stage.standin.active(), "green");
    let steps = stage.standin.events_of("plan");
    let has_step = |percent: &str| steps.iter().any(|step| step["message"].as_str().unwrap_or("").contains(percent));
    for percent in ["10 %", "25 %", "50 %", "75 %"] {
        assert!(has_step(percent), "{percent}: {steps:#?}");
    }
    let held = r#"standin_switch_hold_seconds_count{group="default",trigger="plan"}"#;
    assert!(stage.standin.metric(held) >= 1.0, "requests waited when both began to serve");
    let back = stage.standin.post("/v1/recover", &json!({"plan": "canary", "dwell": "300ms"}));
    assert_eq!(back.code, 200, "{back:?}");
    eventually(secs(90), "the primary serves again", || stage.standin.active() == "primary");
    eventually(secs(90), "the plan has ended", || stage.plan().is_null());
    assert_nothing_was_noticed(&judge(load, "there and back"));
    stage.standin.finish();
}

/// Clients whose requests need both sides at once, or a connection of their own.
fn workers(standin: &StandinProcess, rounds: u64) -> Vec<JoinHandle<u64>> {
    const KEYS: u64 = 40;
    let address = standin.address();
    let name = |n: u64| format!("n:{}", n % KEYS);
    let work = move |kind: u64| {
        let mut client = Client::try_connect(address).unwrap();
        let mut done = 0;
        for n in 0..rounds {
            let key = name(n);
            match kind {
                0 | 1 => {
                    assert!(!client.command(&["INCR", &key]).is_error());
                    done += 1;
                }
                2 => {
                    let script = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])";
                    assert!(!client.command(&["EVAL", script, "2", &key, &name(n + 1)]).is_error());
                    done += 2;
                }
                3 => {
                    client.command(&["MULTI"]);
                    client.command(&["INCR", &key]);
                    client.command(&["INCR", &name(n + 3)]);
                    assert!(!client.command(&["EXEC"]).is_error());
                    done += 2;
                }
                4 => {
                    client.command(&["WATCH", &key]);
                    let before: u64 = client.command(&["GET", &key]).text().parse().unwrap_or(0);
                    client.command(&["MULTI"]);
                    client.command(&["SET", &key, &(before + 1).to_string()]);
                    done += u64::from(matches!(client.command(&["EXEC"]), Reply::Array(_)));
                }
                _ => {
                    let item = n.to_string();
                    client.command(&["LPUSH", "queue", &item]);
                    let popped = client.command(&["BRPOP", "queue", "5"]);
                    assert_eq!(popped, Reply::Array(vec![Reply::bulk("queue"), Reply::bulk(&item)]));
                }
            }
        }
        done
    };
    (0..6).map(|kind| std::thread::spawn(move || work(kind))).collect()
}

#[test]
fn counters_scripts_transactions_and_queues_are_exact_while_shares_move() {
    let mut stage = Stage::start();
    stage.standin.declare(&["for the test"]);
    let running = workers(&stage.standin, 6_000);
    for plan in ["canary", "gradual"] {
        stage.reach(plan, "200ms", 25);
        assert_eq!(stage.standin.post("/v1/rollback", &json!({"reason": "for the test"})).code, 200);
        stage.ended();
        eventually(secs(20), "the old side serves alone", || stage.plan().is_null());
    }
    stage.halve();
    let expected: u64 = running.into_iter().map(|work| work.join().unwrap()).sum();
    let mut client = stage.standin.connect();
    let count = |client: &mut Client| -> u64 {
        (0..40).map(|n| client.command(&["GET", &format!("n:{n}")]).text().parse::<u64>().unwrap()).sum()
    };
    assert_eq!(count(&mut client), expected);
    assert_eq!(client.command(&["LLEN", "queue"]), Reply::Integer(0));
    stage.standin.finish();
}

#[test]
fn what_reads_all_keys_sees_what_was_acknowledged_on_either_side() {
    let stage = Stage::start();
    eventually(secs(20), "green is in step", || stage.standin.backend("green")["mirror"]["state"] == "in_step");
    stage.halve();
    let mut client = stage.standin.connect();
    for n in 1..=300i64 {
        assert_eq!(client.command(&["SET", &format!("all:{n}"), "v"]), Reply::ok());
        assert_eq!(client.command(&["DBSIZE"]), Reply::Integer(n));
    }
    let Reply::Array(keys) = client.command(&["KEYS", "all:*"]) else { panic!("KEYS answers with an array") };
    assert_eq!(keys.len(), 300);
    let mut found = std::collections::BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let Reply::Array(page) = client.command(&["SCAN", &cursor, "COUNT", "50"]) else { panic!("a page") };
        let Reply::Array(keys) = &page[1] else { panic!("keys") };
        found.extend(keys.iter().map(Reply::text));
        cursor = page[0].text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 300);
    stage.standin.finish();
}

#[test]
fn cursors_within_a_key_go_on_where_they_were_given_while_shares_move() {
    let stage = Stage::start();
    let mut client = stage.standin.connect();
    let keys: Vec<String> = (0..20).map(|n| format!("hash:{n}")).collect();
    for key in &keys {
        for field in 0..1_000 {
            client.command(&["HSET", key, &format!("f{field}"), "v"]);
        }
    }
    eventually(secs(20), "green is in step", || stage.standin.backend("green")["mirror"]["state"] == "in_step");
    let page = |client: &mut Client, key: &str, cursor: &str| {
        let Reply::Array(page) = client.command(&["HSCAN", key, cursor, "COUNT", "100"]) else { panic!("a page") };
        let Reply::Array(elements) = &page[1] else { panic!("elements") };
        (page[0].text(), elements.iter().step_by(2).map(Reply::text).collect::<Vec<_>>())
    };
    let mut begun: Vec<_> = keys.iter().map(|key| page(&mut client, key, "0")).collect();
    stage.halve();
    for (key, (cursor, found)) in keys.iter().zip(&mut begun) {
        while cursor != "0" {
            let (next, more) = page(&mut client, key, cursor);
            *cursor = next;
            found.extend(more);
        }
        let all: std::collections::BTreeSet<&String> = found.iter().collect();
        assert_eq!(all.len(), 1_000, "{key}");
    }
    stage.standin.finish();
}

#[test]
fn a_primary_that_returns_is_given_its_keys_back_share_by_share() {
    let (mut blue, green) = (RedisServer::start(), RedisServer::start());
    let tables = TABLES.replace("delay_max", "plan = \"gradual\"\ndwell = \"300ms\"\ndelay_max");
    let mut standin = StandinConfig::new()
        .primary(blue.address())
        .backend("green", "backup", &green.address().to_string(), "data = \"mirrored\"")
        .table(&tables)
        .start();
    standin.declare(&["backend primary", "backend green", "plan gradual"]);
    let mut client = standin.connect();
    for n in 0..500 {
        client.command(&["SET", &format!("k:{n}"), "v"]);
    }
    eventually(secs(20), "green is in step", || standin.backend("green")["mirror"]["state"] == "in_step");
    blue.kill();
    standin.wait_until_active("green", secs(20));
    blue.restart();
    let shares = |percent: &str| {
        standin.events_of("plan").iter().any(|event| event["message"].as_str().unwrap_or("").contains(percent))
    };
    standin.wait_until_active("primary", secs(90));
    assert!(["10 %", "25 %", "50 %", "75 %"].iter().all(|percent| shares(percent)), "{:#?}", standin.events_of("plan"));
    let kept = (0..500).filter(|n| client.command(&["GET", &format!("k:{n}")]) == Reply::bulk("v")).count();
    assert_eq!(kept, 500);
    standin.finish();
}

#[test]
fn a_command_that_writes_keys_it_does_not_name_ends_the_sharing_first() {
    let mut stage = Stage::start();
    stage.standin.declare(&["FLUSHALL"]);
    let mut client = stage.standin.connect();
    for n in 0..500 {
        client.command(&["SET", &format!("k:{n}"), "v"]);
    }
    stage.halve();
    assert_eq!(client.command(&["FLUSHALL"]), Reply::ok());
    let read = |n: u64, client: &mut Client| client.command(&["GET", &format!("k:{n}")]);
    assert!((0..500).all(|n| read(n, &mut client) == Reply::Nil));
    let event = stage.ended();
    assert_eq!(event["result"], "rolled_back");
    assert!(event["message"].as_str().unwrap().contains("FLUSHALL"), "{event:#}");
    stage.standin.finish();
}

#[test]
fn wrong_values_of_the_next_side_end_a_canary_in_its_first_step() {
    let (blue, green) = (RedisServer::start(), RedisServer::start());
    let relay = CommandRelay::start(green.address());
    let mut stage = Stage::start_at(blue, green, relay.address());
    stage.standin.declare(&["they hold other values"]);
    let mut client = stage.standin.connect();
    for n in 0..2_000 {
        client.command(&["SET", &format!("old:{n}"), &format!("value {n}")]);
    }
    eventually(secs(20), "green is in step", || stage.standin.backend("green")["mirror"]["state"] == "in_step");
    relay.set(&[Rule::value(&["GET"], "wrong").share(0.02)]);
    stage.begin("canary", "20s");
    let event = stage.ended();
    assert_eq!(event["result"], "rolled_back", "{event:#}");
    let message = event["message"].as_str().unwrap();
    println!("{message}");
    let samples = message.split(" samples").next().and_then(|before| before.rsplit(' ').next()).unwrap();
    assert!(samples.parse::<u64>().unwrap() <= 500, "{message}");
    assert!(message.contains("they hold other values"), "{message}");
    let evidence = event["detail"]["evidence"].as_str().unwrap();
    assert!(evidence.contains("wrong") && !evidence.starts_with("0 samples"), "{event:#}");
    let shares = stage.standin.events_of("plan");
    assert!(
        shares.iter().any(|event| event["message"].as_str().unwrap_or("").contains("it serves 5 %")),
        "{shares:#?}"
    );
    assert!(!shares.iter().any(|event| event["message"].as_str().unwrap_or("").contains("10 %")), "{shares:#?}");
    assert_eq!(stage.standin.active(), "primary");
    stage.standin.finish();
}

/// Keys that nobody writes.
const STATIC: usize = 2_000;

/// Half of the keys are served by each when it happens; afterwards everything heals. Returns how many of the keys that
/// nobody wrote are still there, of [`STATIC`].
fn survives(what: &str, strike: impl Fn(&mut Stage)) -> usize {
    let mut stage = Stage::start();
    stage.standin.declare(&["plan gradual", "backend green", "backend primary", "the switch from"]);
    let mut client = stage.standin.connect();
    for n in 0..STATIC {
        client.command(&["SET", &format!("static:{n}"), "v"]);
    }
    let load = stage.registers();
    stage.halve();
    strike(&mut stage);
    eventually(secs(90), "the primary serves again, alone", || {
        stage.standin.active() == "primary" && stage.plan().is_null()
    });
    let served = load.operations();
    eventually(secs(20), "clients are served", || load.operations() > served + 2_000);
    judge(load, what);
    let mut client = stage.standin.connect();
    let kept = (0..STATIC).filter(|n| client.command(&["GET", &format!("static:{n}")]) == Reply::bulk("v")).count();
    println!("{what}: {kept} of {STATIC} keys that nobody wrote are there");
    stage.standin.finish();
    kept
}

#[test]
fn the_next_side_dies_and_its_share_is_served_by_the_old_one() {
    let kept = survives("the next side is killed", |stage| {
        stage.green.kill();
        stage.ended();
        stage.green.restart();
    });
    assert_eq!(kept, STATIC);
}

#[test]
fn the_old_side_dies_and_the_next_one_serves_everything() {
    let kept = survives("the old side is killed", |stage| {
        stage.blue.kill();
        stage.standin.wait_until_active("green", secs(20));
        stage.blue.restart();
    });
    assert_eq!(kept, STATIC, "the next side had them all, and gave them back");
}

#[test]
fn the_old_side_freezes_and_thaws() {
    let kept = survives("the old side is frozen", |stage| {
        stage.blue.freeze();
        // A script may be at work when it happens, which is given its time.
        stage.standin.wait_until_active("green", secs(60));
        stage.blue.thaw();
    });
    assert_eq!(kept, STATIC);
}

#[test]
fn the_next_side_freezes_and_thaws() {
    let kept = survives("the next side is frozen", |stage| {
        stage.green.freeze();
        stage.ended();
        stage.green.thaw();
    });
    assert_eq!(kept, STATIC);
}

#[test]
fn standin_is_killed_and_starts_again_without_an_old_value() {
    let kept = survives("Standin is killed", |stage| {
        stage.standin.kill();
        stage.standin.start_again();
        stage.standin.wait_until_ready();
    });
    // Those of the half that the other side served are removed, since nobody knows what it has written there.
    assert!(kept > STATIC * 4 / 10 && kept < STATIC * 6 / 10, "{kept}");
}
