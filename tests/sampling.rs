//! What mirrored backends and replicas hold is compared with the active: what differs is found and copied again, and what
//! is only on its way is no difference.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use support::{
    Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms, secs,
    throughout,
};

/// As fast as the tests want it: the default is ten keys a second.
const FAST: &str = "[sampling]\nrate = 2000\n";

fn mirrored(primary: &RedisServer, backup: &RedisServer, tables: &str) -> StandinProcess {
    let config = StandinConfig::new().primary(primary.address());
    let address = backup.address().to_string();
    let config = config.backend("backup-a", "backup", &address, "data = \"mirrored\"").table(tables);
    let mut standin = config.start();
    // A difference is told as a warning.
    standin.declare(&["differs from the active"]);
    eventually(secs(20), "it is in step", || standin.backend("backup-a")["mirror"]["state"] == "in_step");
    standin
}

fn figure(standin: &StandinProcess, name: &str) -> u64 {
    standin.backend("backup-a")["sampling"][name].as_u64().unwrap_or_else(|| panic!("{name}: {}", standin.status()))
}

/// Waits until every key was compared since now.
fn wait_for_a_round(standin: &StandinProcess) {
    // One that is under way may be past the key in question.
    let before = figure(standin, "rounds");
    eventually(secs(20), "all keys are gone through", || figure(standin, "rounds") >= before + 2);
}

/// A value of each type, `n` of each, of which the first are about to be changed behind Standin's back.
fn write_all_types(standin: &StandinProcess, n: usize) {
    let mut client = standin.connect();
    for number in 0..n {
        for words in [
            format!("SET string:{number} value"),
            format!("SET lives:{number} value EX 1000"),
            format!("RPUSH list:{number} a b c"),
            format!("SADD set:{number} a b c 1 2 3"),
            format!("HSET hash:{number} f v g w"),
            format!("ZADD sorted:{number} 1.5 a 0.1 b"),
            format!("XADD stream:{number} * f v"),
            format!("PFADD visitors:{number} a b"),
            format!("SET gone:{number} value"),
        ] {
            assert!(!client.command(&words.split(' ').collect::<Vec<_>>()).is_error(), "{words}");
        }
    }
    client.command(&["SELECT", "3"]);
    assert_eq!(client.command(&["SET", "elsewhere", "value"]), Reply::ok());
}

/// Changes each kind of key `:0` on the backup, and adds one; returns how many differ.
fn spoil(backup: &RedisServer) -> u64 {
    let mut behind = backup.connect();
    let changes = [
        "SET string:0 other KEEPTTL",
        "PEXPIRE lives:0 5000000",
        "RPOP list:0",
        "SADD set:0 d",
        "HSET hash:0 f other",
        "ZADD sorted:0 3 a",
        "XADD stream:0 * f other",
        "PFADD visitors:0 c d e",
        "DEL gone:0",
        "SET added value",
    ];
    for words in changes {
        assert!(!behind.command(&words.split(' ').collect::<Vec<_>>()).is_error(), "{words}");
    }
    behind.command(&["SELECT", "3"]);
    assert_eq!(behind.command(&["SET", "elsewhere", "other"]), Reply::ok());
    changes.len() as u64 + 1
}

#[test]
fn what_was_changed_behind_standins_back_is_found_and_copied_again() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = mirrored(&primary, &backup, FAST);
    write_all_types(&standin, 20);
    wait_for_a_round(&standin);
    assert_eq!(figure(&standin, "differing"), 0, "{}", standin.status());
    // The servers order the members of large sets differently, and PFCOUNT writes into the value that it reads.
    standin.connect().command(&["PFCOUNT", "visitors:1"]);
    let differing = spoil(&backup);
    eventually(secs(20), "all are found and repaired", || figure(&standin, "repaired") == differing);
    assert_eq!(figure(&standin, "differing"), differing, "nothing else differed: {}", standin.status());
    let kinds = ["missing", "extra", "lifetime"].map(|kind| figure(&standin, kind));
    assert_eq!(kinds, [1, 1, 1], "{}", standin.status());
    assert_eq!(backup.command(&["GET", "string:0"]), Reply::bulk("value"));
    assert_eq!(backup.command(&["GET", "gone:0"]), Reply::bulk("value"));
    assert_eq!(backup.command(&["GET", "added"]), Reply::Nil);
    assert_eq!(backup.command(&["LLEN", "list:0"]), Reply::Integer(3));
    assert!(backup.command(&["TTL", "lives:0"]).integer() <= 1_000);
    let agreeing = standin.backend("backup-a")["sampling"]["agree_percent"].as_f64().unwrap();
    assert!((90.0..100.0).contains(&agreeing), "{agreeing} % of the last thousand keys agreed");
    let labels = "{group=\"default\",backend=\"backup-a\"}";
    eventually(secs(3), "the metrics have it", || {
        standin.metric(&format!("standin_sampling_repaired_total{labels}")) as u64 == differing
    });
    assert!(standin.metric(&format!("standin_sampling_compared_total{labels}")) > 100.0);
    let events = standin.events_of("difference");
    assert_eq!(events.len(), 1, "told once a minute at most: {events:#?}");
    standin.finish();
}

#[test]
fn a_report_changes_nothing() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = mirrored(&primary, &backup, "[sampling]\nrate = 2000\nmode = \"report\"\n");
    write_all_types(&standin, 3);
    wait_for_a_round(&standin);
    let differing = spoil(&backup);
    eventually(secs(20), "all are found", || figure(&standin, "differing") >= differing);
    wait_for_a_round(&standin);
    assert_eq!(figure(&standin, "repaired"), 0);
    assert_eq!(backup.command(&["GET", "string:0"]), Reply::bulk("other"));
    assert_eq!(backup.command(&["GET", "added"]), Reply::bulk("value"));
    assert_eq!(standin.backend("backup-a")["divergence"]["keys"], 0, "nothing entered the record");
    assert!(!standin.events_of("difference").is_empty());
    standin.finish();
}

#[test]
fn nothing_is_compared_when_sampling_is_off() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = mirrored(&primary, &backup, "[sampling]\nmode = \"off\"\n");
    write_all_types(&standin, 1);
    throughout(secs(1), "nobody looks", || {
        !primary.command(&["INFO", "commandstats"]).text().contains("cmdstat_memory")
    });
    assert!(standin.backend("backup-a")["sampling"].is_null());
    standin.finish();
}

/// Writes to a few keys without a pause until it is told to stop: of every kind, so that commands and copies race.
fn write_without_pause<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    standin: &'scope StandinProcess,
    goes_on: &'scope AtomicBool,
    number: usize,
) -> ScopedJoinHandle<'scope, usize> {
    scope.spawn(move || {
        let mut client = standin.connect();
        let mut turns = 0;
        while goes_on.load(Ordering::Relaxed) {
            let (hot, value) = (turns % 7, turns.to_string());
            for words in [
                format!("SET plain:{hot} {number}:{value}"),
                format!("INCR counted:{hot}"),
                format!("HSET hash:{hot} f{number} {value}"),
                format!("SET lives:{hot} {value} PX {}", 1_000 + turns % 500),
                format!("SADD set:{hot} {}", turns % 50),
                format!("SREM set:{hot} {}", (turns + 25) % 50),
                format!("DEL plain:{}", (hot + 3) % 7),
            ] {
                assert!(!client.command(&words.split(' ').collect::<Vec<_>>()).is_error(), "{words}");
            }
            turns += 1;
        }
        turns
    })
}

#[test]
fn a_busy_writer_causes_no_false_difference() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = mirrored(&primary, &backup, FAST);
    let goes_on = AtomicBool::new(true);
    let turns: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3).map(|n| write_without_pause(scope, &standin, &goes_on, n)).collect();
        std::thread::sleep(secs(5));
        goes_on.store(false, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    wait_for_a_round(&standin);
    let sampling = standin.backend("backup-a")["sampling"].clone();
    println!("{turns} turns of 7 writes: {sampling:#}");
    assert!(figure(&standin, "compared") > 100, "{sampling:#}");
    assert_eq!(figure(&standin, "differing"), 0, "{sampling:#}");
    standin.finish();
}

/// A primary, and a replica that hears everything from it this much later.
fn replicated(lag: Fault) -> (RedisServer, RedisServer, FaultRelay, StandinProcess) {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let port = relay.address().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    eventually(secs(10), "it is in step", || replica.info("master_link_status") == "up");
    let config = StandinConfig::new().primary(primary.address()).table(FAST);
    let config = config.backend("backup-a", "backup", &replica.address().to_string(), "data = \"replica\"");
    let mut standin = config.start();
    standin.declare(&["differs from the active"]);
    eventually(secs(5), "the replica has been looked at", || standin.backend("backup-a")["enterable"] == true);
    relay.set(lag);
    (primary, replica, relay, standin)
}

#[test]
fn what_a_replica_has_not_heard_of_yet_is_no_difference() {
    let (_primary, replica, relay, standin) = replicated(Fault::Delay(ms(200)));
    write_all_types(&standin, 10);
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let writer = write_without_pause(scope, &standin, &goes_on, 0);
        std::thread::sleep(secs(4));
        goes_on.store(false, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 100);
    });
    relay.set(Fault::BlackHole);
    assert_eq!(standin.connect().command(&["SET", "unheard", "1"]), Reply::ok());
    eventually(secs(20), "what cannot be told is said to be so", || figure(&standin, "unsettled") > 0);
    let sampling = standin.backend("backup-a")["sampling"].clone();
    println!("{sampling:#}");
    assert_eq!(replica.command(&["GET", "unheard"]), Reply::Nil, "it lags");
    assert!(figure(&standin, "compared") > 50, "{sampling:#}");
    assert_eq!(figure(&standin, "differing"), 0, "{sampling:#}");
    relay.heal();
    standin.finish();
}

#[test]
fn a_replica_that_was_written_to_is_reported_and_left_alone() {
    let (_primary, replica, _relay, standin) = replicated(Fault::Delay(ms(1)));
    write_all_types(&standin, 3);
    replica.command(&["CONFIG", "SET", "replica-read-only", "no"]);
    eventually(secs(5), "it has everything", || replica.command(&["GET", "gone:2"]) == Reply::bulk("value"));
    assert_eq!(replica.command(&["SET", "string:0", "other"]), Reply::ok());
    eventually(secs(20), "it is found", || figure(&standin, "value") > 0);
    wait_for_a_round(&standin);
    assert_eq!(replica.command(&["GET", "string:0"]), Reply::bulk("other"));
    assert_eq!(figure(&standin, "repaired"), 0);
    standin.finish();
}

#[test]
fn what_the_primary_keeps_for_its_return_while_an_empty_backup_serves_is_no_difference() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let tables = format!("{FAST}\n[recovery]\nenabled = false\n");
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).table(&tables).start();
    standin.declare(PRIMARY_LOST);
    write_all_types(&standin, 10);
    let keys = primary.command(&["DBSIZE"]).integer();
    relay.set(Fault::Refuse);
    standin.wait_until_active("backup-a", secs(5));
    assert_eq!(standin.connect().command(&["SET", "string:0", "meanwhile"]), Reply::ok());
    relay.heal();
    let rounds = || standin.backend("primary")["sampling"]["rounds"].as_u64().unwrap_or_default();
    eventually(secs(30), "it is compared", || rounds() > 4);
    assert_eq!(standin.backend("primary")["sampling"]["differing"], 0, "{}", standin.status());
    assert_eq!(primary.command(&["DBSIZE"]).integer(), keys);
    standin.finish();
}
