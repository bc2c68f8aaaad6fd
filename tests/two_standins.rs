//! Two Standins in front of the same servers that know nothing of each other: neither empties what the other serves from,
//! and each says that it is not alone.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;

use support::{
    Fault, FaultRelay, PRIMARY_LOST, RedisServer, RegisterLoad, Reply, StandinConfig, StandinProcess, eventually, ms,
    secs, throughout,
};

/// How long a Standin waits before it returns to the primary.
fn returning_after(delay: &str) -> String {
    format!(
        "[failover]\nprofile = \"fast\"\ncooldown = \"0s\"\nmax_per_hour = 1000\n[recovery]\nthreshold = 1\ndelay = \"{delay}\"\ndelay_max = \"{delay}\""
    )
}

fn standin(primary: SocketAddr, backup: &RedisServer, data: &str, delay: &str) -> StandinProcess {
    let config = StandinConfig::new().primary(primary).table(&returning_after(delay));
    let data = format!("data = \"{data}\"");
    let mut standin = config.backend("backup-a", "backup", &backup.address().to_string(), &data).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a"]);
    standin
}

fn sees_another(standin: &StandinProcess) -> bool {
    standin.group("default")["notes"].to_string().contains("another Standin")
}

#[track_caller]
fn set(standin: &StandinProcess, key: &str, value: &str) {
    let reply = standin.connect().command(&["SET", key, value]);
    assert_eq!(reply, Reply::ok(), "{key}: {}", standin.status());
}

fn get(standin: &StandinProcess, key: &str) -> Reply {
    standin.connect().command(&["GET", key])
}

#[test]
fn each_sees_within_ten_seconds_that_it_is_not_alone() {
    for data in ["cold", "mirrored"] {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let one = standin(primary.address(), &backup, data, "200ms");
        set(&one, "k", "1");
        assert!(!sees_another(&one));
        let two = standin(primary.address(), &backup, data, "200ms");
        let took = eventually(secs(10), "both see the other", || sees_another(&one) && sees_another(&two));
        println!("{data}: seen after {took:?}");
        two.finish();
        one.finish();
    }
}

#[test]
fn both_fail_over_and_return_and_neither_empties_what_the_other_serves_from() {
    for data in ["cold", "mirrored"] {
        let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
        let one = standin(primary.address(), &backup, data, "500ms");
        let two = standin(primary.address(), &backup, data, "6s");
        eventually(secs(10), "both see the other", || sees_another(&one) && sees_another(&two));
        set(&one, "one", "before");
        set(&two, "two", "before");
        primary.save();
        set(&one, "one", "old soon");
        primary.kill();
        set(&one, "one:outage", "1");
        set(&two, "two:outage", "2");
        assert_eq!((one.active(), two.active()), ("backup-a".to_owned(), "backup-a".to_owned()));
        set(&one, "one", "outage");
        set(&two, "two", "outage");
        throughout(secs(3), "both serve what both wrote", || {
            get(&two, "one:outage") == Reply::bulk("1") && get(&one, "two:outage") == Reply::bulk("2")
        });
        primary.restart_with_content(&[]);
        one.wait_until_active("primary", secs(20));
        assert_eq!(two.active(), "backup-a", "it waits longer");
        assert_ne!(get(&one, "one"), Reply::bulk("before"), "an old value came back");
        set(&one, "one:returned", "1");
        throughout(secs(2), "the backup keeps what the other serves", || get(&two, "two:outage") == Reply::bulk("2"));
        two.wait_until_active("primary", secs(30));
        assert_eq!(get(&two, "one:returned"), Reply::bulk("1"), "the primary was emptied under the first");
        assert_ne!(get(&two, "two"), Reply::bulk("before"), "an old value came back");
        set(&two, "two:returned", "2");
        assert_eq!(get(&one, "two:returned"), Reply::bulk("2"));
        eventually(secs(30), "the backup is emptied when nobody serves from it", || {
            backup.command(&["DBSIZE"]) == Reply::Integer(0)
        });
        two.finish();
        one.finish();
    }
}

#[test]
fn a_backup_from_which_an_idle_standin_serves_is_not_emptied_by_the_other() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let one = standin(primary.address(), &backup, "cold", "200ms");
    let two = standin(relay.address(), &backup, "cold", "200ms");
    set(&one, "one", "1");
    set(&two, "k", "1");
    // Only the second has lost the primary.
    relay.set(Fault::Refuse);
    two.wait_until_active("backup-a", secs(20));
    set(&two, "two", "2");
    assert_eq!(one.active(), "primary");
    // Longer than a client counts as being at work.
    throughout(secs(13), "the backup keeps its keys", || backup.command(&["GET", "two"]) == Reply::bulk("2"));
    assert_eq!(get(&two, "two"), Reply::bulk("2"));
    assert_eq!(one.backend("backup-a")["enterable"], true, "{}", one.status());
    relay.heal();
    two.wait_until_active("primary", secs(20));
    eventually(secs(30), "it is emptied when the other has left", || backup.command(&["DBSIZE"]) == Reply::Integer(0));
    two.finish();
    one.finish();
}

#[test]
fn what_our_clients_wrote_while_only_the_other_had_failed_over_is_not_read_old() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let one = standin(primary.address(), &backup, "cold", "200ms");
    let two = standin(relay.address(), &backup, "cold", "200ms");
    set(&two, "k", "1");
    relay.set(Fault::Refuse);
    two.wait_until_active("backup-a", secs(20));
    set(&two, "shared", "by the second");
    set(&two, "two", "2");
    eventually(secs(10), "the first has looked", || one.backend("backup-a")["divergence"]["state"] == "clean");
    set(&one, "shared", "by the first, later");
    primary.kill();
    assert_eq!(get(&one, "shared"), Reply::Nil, "neither the other's older value nor an error");
    assert_eq!(one.active(), "backup-a");
    assert_eq!(get(&one, "two"), Reply::bulk("2"), "and nothing else was removed");
    two.finish();
    one.finish();
}

/// Clients of both, each with keys of its own, through deaths and returns of the primary.
#[test]
fn no_client_of_either_reads_an_old_value() {
    for data in ["cold", "mirrored"] {
        let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
        let one = standin(primary.address(), &backup, data, "300ms");
        let two = standin(primary.address(), &backup, data, "1500ms");
        eventually(secs(10), "both see the other", || sees_another(&one) && sees_another(&two));
        let load = |standin: &StandinProcess, first_client| {
            let address = standin.address();
            let load = RegisterLoad {
                address,
                clients: 4,
                operations: u64::MAX / 2,
                keys_per_client: 48,
                seed: 7,
                padding: 0,
                pause: ms(5),
                may_lose: false,
            };
            load.start_numbered_from(first_client)
        };
        let running = [load(&one, 0), load(&two, 100)];
        for round in 0..4 {
            let before = running[0].operations();
            eventually(secs(30), "clients are at work", || running[0].operations() > before + 2_000);
            primary.save();
            std::thread::sleep(ms(200));
            primary.kill();
            one.wait_until_active("backup-a", secs(20));
            two.wait_until_active("backup-a", secs(20));
            let before = running[1].operations();
            eventually(secs(30), "they are served", || running[1].operations() > before + 2_000);
            if round % 2 == 0 {
                primary.restart_with_content(&[])
            } else {
                primary.restart()
            }
            one.wait_until_active("primary", secs(30));
            two.wait_until_active("primary", secs(30));
        }
        std::thread::sleep(secs(5));
        running.iter().for_each(support::RunningRegister::stop);
        for (name, running) in ["one", "two"].iter().zip(running) {
            let report = running.finish(|| {});
            println!("{data}, {name}: {report:#?}");
            assert!(report.acknowledged_writes > 1_000, "{report:#?}");
            assert_eq!(report.stale_count, 0, "{report:#?}");
        }
        two.finish();
        one.finish();
    }
}
