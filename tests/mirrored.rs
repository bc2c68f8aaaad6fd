//! A mirrored backup holds what the primary held, and nothing that is older.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use support::{PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, secs};

/// A primary and a mirrored backup; further tables may follow.
fn mirrored(primary: &RedisServer, backup: &RedisServer, tables: &str) -> StandinConfig {
    StandinConfig::new()
        .primary(primary.address())
        .backend("backup-a", "backup", &backup.address().to_string(), "data = \"mirrored\"")
        .table(tables)
}

#[track_caller]
fn in_step(standin: &StandinProcess, name: &str) {
    eventually(secs(20), "it is in step", || {
        let backend = standin.backend(name);
        let (mirror, divergence) = (&backend["mirror"], &backend["divergence"]);
        mirror["state"] == "in_step" && mirror["waiting"] == 0 && divergence["keys"] == 0
    });
}

/// All keys of database 0 with their serialised values, our own marks not among them.
fn content(server: &RedisServer) -> BTreeMap<String, Vec<u8>> {
    let mut client = server.connect();
    let Reply::Array(keys) = client.command(&["KEYS", "*"]) else { panic!("KEYS is not answered by an array") };
    let names = keys.iter().map(Reply::text);
    let mut content = BTreeMap::new();
    for name in names {
        // Two servers hash differently, so that the members of a set come in different orders.
        if client.command(&["TYPE", &name]).text() == "set" {
            let reply = client.command(&["SORT", &name, "ALPHA"]);
            content.insert(name, format!("{reply:?}").into_bytes());
            continue;
        }
        let Reply::Bulk(value) = client.command(&["DUMP", &name]) else { panic!("{name} is gone") };
        content.insert(name, value);
    }
    content
}

#[track_caller]
fn same_content(primary: &RedisServer, backup: &RedisServer) {
    let (ours, theirs) = (content(primary), content(backup));
    let differing: Vec<_> =
        ours.keys().chain(theirs.keys()).filter(|name| ours.get(*name) != theirs.get(*name)).take(10).collect();
    assert!(differing.is_empty(), "{} and {} keys, differing in {differing:?}", ours.len(), theirs.len());
}

#[test]
fn every_kind_of_write_reaches_the_mirrored_backup() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = mirrored(&primary, &backup, "").start();
    in_step(&standin, "backup-a");
    let mut client = standin.connect();
    for words in [
        "SET plain 1",
        "SET gone 1",
        "DEL gone",
        "SET life 1 EX 1000",
        "SETEX lives 1000 v",
        "PSETEX shorter 900000 v",
        "MSET a 1 b 2",
        "INCR n",
        "INCRBY n 41",
        "APPEND plain tail",
        "SETNX once 1",
        "SET once 2 NX",
        "GETSET b 3",
        "SET taken 1",
        "GETDEL taken",
        "LPUSH list 1 2 3",
        "RPOP list",
        "HSET hash f v g w",
        "HINCRBY hash n 4",
        "SADD set a b c",
        "SPOP set",
        "ZADD sorted 1 a 2 b",
        "ZINCRBY sorted 5 a",
        "XADD stream * f v",
        "SETBIT bits 7 1",
        "PFADD visitors a b",
        "RENAME a renamed",
        "COPY b copied",
        "EXPIRE plain 1000",
        "SET still 1 EX 1000",
        "PERSIST still",
        "SORT list STORE sorted-list",
        "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 scripted v",
        "GETEX life EX 500",
        "EXPIRE list -1",
    ] {
        let reply = client.command(&words.split(' ').collect::<Vec<_>>());
        assert!(!matches!(reply, Reply::Error(_)), "{words}: {reply:?}");
    }
    for words in [vec!["MULTI"], vec!["INCR", "n"], vec!["SET", "in-exec", "1"], vec!["EXEC"]] {
        client.command(&words);
    }
    in_step(&standin, "backup-a");
    same_content(&primary, &backup);
    for key in ["life", "lives", "shorter", "plain", "still"] {
        let left = |server: &RedisServer| server.command(&["PTTL", key]).integer();
        let (ours, theirs) = (left(&primary), left(&backup));
        assert!((ours - theirs).abs() < 1_000, "{key} lives {ours} ms here and {theirs} ms there");
    }
    standin.finish();
}

#[test]
fn a_failover_to_a_mirrored_backup_keeps_the_hits() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    // Content from before Standin: the backup is filled with it.
    let mut direct = primary.connect();
    for n in 0..5_000 {
        direct.command(&["SET", &format!("old:{n}"), &format!("value {n}")]);
    }
    // One that goes on writing there would keep the backup empty.
    drop(direct);
    let mut standin = mirrored(&primary, &backup, "").start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["primary"]);
    in_step(&standin, "backup-a");
    let load = support::Load::new(standin.address()).clients(8).requests_per_second(4_000).start();
    load.run_for(secs(2));
    primary.kill();
    load.wait_for_successes(4_000);
    let report = load.stop();
    assert_eq!(standin.active(), "backup-a");
    assert!(report.stale.is_empty() && report.foreign.is_empty(), "{:?} {:?}", report.stale, report.foreign);
    let mut client = standin.connect();
    let hits = (0..5_000).filter(|n| client.command(&["GET", &format!("old:{n}")]) != Reply::Nil).count();
    println!("{hits} of 5000 old keys are hits, {} misses in {} requests", report.misses, report.operations);
    assert!(hits >= 4_995, "only {hits} of 5000 keys were there after the failover");
    assert!(report.misses <= report.operations / 1_000, "{} misses in {}", report.misses, report.operations);
    standin.finish();
}

#[test]
fn planned_switches_between_a_primary_and_a_mirrored_backup_lose_no_write() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = mirrored(&primary, &backup, "").start();
    standin.declare(PRIMARY_LOST);
    in_step(&standin, "backup-a");
    let load = support::Load::new(standin.address()).clients(8).requests_per_second(4_000).start();
    for (path, active, other) in [("/v1/failover", "backup-a", "primary"), ("/v1/recover", "primary", "backup-a")] {
        load.wait_for_successes(1_000);
        let answer = standin.post(path, &serde_json::json!({}));
        assert_eq!(answer.code, 200, "{answer:?}");
        assert_eq!(standin.active(), active);
        in_step(&standin, other);
    }
    load.wait_for_successes(1_000);
    let report = load.stop();
    assert_eq!(report.misses, 0, "of {} requests", report.operations);
    assert!(report.stale.is_empty() && report.foreign.is_empty(), "{:?} {:?}", report.stale, report.foreign);
    assert_eq!(report.error_count, 0, "{:?}", report.errors);
    standin.finish();
}

#[test]
fn what_the_primary_has_missed_is_copied_before_it_serves_again() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = support::FaultRelay::start(primary.address());
    let mut standin = StandinConfig::quick_pair(relay.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    for n in 0..500 {
        client.command(&["SET", &format!("k:{n}"), "before"]);
    }
    relay.set(support::Fault::Refuse);
    standin.wait_until_active("backup-a", secs(5));
    for n in 0..100 {
        client.command(&["SET", &format!("k:{n}"), "meanwhile", "EX", "1000"]);
    }
    relay.heal();
    standin.wait_until_active("primary", secs(20));
    for n in 0..500 {
        let expected = if n < 100 { "meanwhile" } else { "before" };
        assert_eq!(client.command(&["GET", &format!("k:{n}")]), Reply::bulk(expected), "k:{n}");
    }
    assert!(client.command(&["TTL", "k:0"]).integer() > 900, "with its time of life");
    standin.finish();
}

#[test]
fn beside_another_writer_a_mirrored_backup_is_kept_empty() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = mirrored(&primary, &backup, "[mirror]\nread_fill = true").start();
    // What the other writes may be found by comparing before its writer is seen.
    standin.declare(&["differs from the active"]);
    in_step(&standin, "backup-a");
    let mut client = standin.connect();
    client.command(&["SET", "ours", "1"]);
    eventually(secs(5), "it is mirrored", || backup.command(&["GET", "ours"]) == Reply::bulk("1"));
    let mut stranger = primary.connect();
    eventually(secs(10), "the other writer is seen", || {
        stranger.command(&["SET", "ours", "2"]);
        standin.backend("backup-a")["mirror"]["state"] == "off"
    });
    assert!(standin.group("default")["notes"].to_string().contains("writes to the active"), "{}", standin.status());
    let read_fill = standin.backend("backup-a")["mirror"]["read_fill"].clone();
    assert_eq!(read_fill["is_on"], false, "{read_fill}");
    assert!(read_fill["why"].to_string().contains("writes to the active"), "{read_fill}");
    eventually(secs(20), "nothing old is kept there", || backup.command(&["DBSIZE"]) == Reply::Integer(0));
    standin.finish();
}

#[test]
fn a_mirror_that_is_being_opened_does_not_open_on_a_backend_that_serves_by_then() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = mirrored(&primary, &backup, "[failover]\nprofile = \"fast\"").start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert!(!client.command(&["GET", "k"]).is_error());
    // What is asked of the primary while the mirror is opened gets no answer until the backup serves.
    primary.freeze();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(standin.active(), "backup-a");
    let failover = standin.events_of("failover")[0]["id"].as_u64();
    support::throughout(secs(2), "nothing is copied to the backend that serves", || {
        standin.events_of("reconciled").iter().all(|event| event["id"].as_u64() < failover)
    });
    primary.thaw();
    standin.finish();
}

const BY_READING: &str = "[mirror]\nfill = false\nread_fill = true";

#[test]
fn what_clients_read_and_nothing_else_comes_to_a_backup_that_is_filled_by_reading() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut direct = primary.connect();
    for n in 0..100 {
        direct.command(&["SET", &format!("s:{n}"), &format!("value {n}"), "EX", "1000"]);
        direct.command(&["SET", &format!("m:{n}"), &format!("value {n}")]);
        direct.command(&["HSET", &format!("h:{n}"), "f", &format!("value {n}"), "g", "w"]);
        direct.command(&["EXPIRE", &format!("h:{n}"), "2000"]);
    }
    direct.command(&["SELECT", "3"]);
    direct.command(&["SET", "elsewhere", "3"]);
    drop(direct);
    let mut standin = mirrored(&primary, &backup, BY_READING).start();
    standin.declare(&["primary"]);
    in_step(&standin, "backup-a");
    assert_eq!(backup.command(&["DBSIZE"]), Reply::Integer(0));
    let mut client = standin.connect();
    // The worker takes up the route a moment after the status says so; what was read before that is not brought.
    eventually(secs(5), "what is read is brought", || {
        client.command(&["GET", "s:99"]);
        backup.command(&["DBSIZE"]) == Reply::Integer(1)
    });
    let mut read = vec!["s:99".to_owned()];
    for n in 0..40 {
        client.command(&["GET", &format!("s:{n}")]);
        client.command(&["GET", &format!("nowhere:{n}")]);
        read.push(format!("s:{n}"));
    }
    for first in [0, 20] {
        let names: Vec<String> = (first..first + 20).map(|n| format!("m:{n}")).collect();
        let mut words = vec!["MGET"];
        words.extend(names.iter().map(String::as_str));
        client.command(&words);
        read.extend(names);
    }
    for n in 0..20 {
        client.command(&["HGETALL", &format!("h:{n}")]);
        read.push(format!("h:{n}"));
    }
    let mut other = standin.connect();
    other.command(&["SELECT", "3"]);
    assert_eq!(other.command(&["GET", "elsewhere"]), Reply::bulk("3"));
    eventually(secs(10), "what was read is there", || backup.command(&["DBSIZE"]) == Reply::Integer(101));
    let mut there = backup.connect();
    there.command(&["SELECT", "3"]);
    eventually(secs(5), "in the other database too", || there.command(&["GET", "elsewhere"]) == Reply::bulk("3"));
    support::throughout(secs(2), "and nothing else", || backup.command(&["DBSIZE"]) == Reply::Integer(101));
    let (ours, theirs) = (content(&primary), content(&backup));
    for name in &read {
        assert_eq!(ours.get(name), theirs.get(name), "{name}");
        let left = |server: &RedisServer| server.command(&["PTTL", name]).integer();
        let (ours, theirs) = (left(&primary), left(&backup));
        assert!((ours - theirs).abs() < 1_000, "{name} lives {ours} ms here and {theirs} ms there");
    }
    let mirror = standin.backend("backup-a")["mirror"].clone();
    assert_eq!(
        (&mirror["read_fill"]["is_on"], &mirror["read_fill"]["copied"]),
        (&true.into(), &102.into()),
        "{mirror}"
    );
    assert!(standin.events_of("difference").is_empty(), "what nobody fills is not missing");
    standin.finish();
}

#[test]
fn a_key_that_is_written_while_reading_brings_it_to_the_backup_is_never_older_there() {
    const KEYS: usize = 4_000;
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let names: Vec<String> = (0..KEYS).map(|n| format!("k:{n}")).collect();
    // Long enough that reading a batch of them takes its time.
    let old = format!("old{}", "-".repeat(10_000));
    let mut direct = primary.connect();
    for name in &names {
        direct.command(&["SET", name, &old]);
    }
    drop(direct);
    let mut standin = mirrored(&primary, &backup, BY_READING).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["primary"]);
    in_step(&standin, "backup-a");
    let copied = || standin.backend("backup-a")["mirror"]["read_fill"]["copied"].as_u64().unwrap();
    let mut client = standin.connect();
    for names in names.chunks(100) {
        client.command(&[&["MGET".to_owned()], names].concat());
    }
    eventually(secs(10), "it has begun", || copied() > 0);
    let already = copied();
    // Each is written once while they are copied: as a command, or by value.
    for (n, name) in names.iter().enumerate() {
        let by_value = n % 4 == 0;
        let reply = if by_value {
            client.command(&["SETRANGE", name, "0", "new"])
        } else {
            client.command(&["SET", name, "new"])
        };
        assert!(!reply.is_error(), "{reply:?}");
    }
    assert!(copied() > already, "nothing was copied meanwhile");
    primary.kill();
    let mut hits = 0;
    for name in &names {
        match client.command(&["GET", name]) {
            Reply::Nil => {}
            value => {
                hits += 1;
                assert!(value.text().starts_with("new"), "{name} is old");
            }
        }
    }
    assert_eq!(standin.active(), "backup-a");
    assert!(hits >= KEYS / 2, "only {hits} of {KEYS} keys were there after the failover");
    standin.finish();
}
