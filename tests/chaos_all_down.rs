//! Every server is down, or the primary is down for so short a time that waiting is better than a switch.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use support::{Client, Load, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms, secs};

/// `timeout.request` as the tests configure it, and what a busy machine may add.
const REQUEST_TIMEOUT: &str = "[timeout]\nrequest = \"1s\"";
const DEADLINE_MAX: std::time::Duration = ms(1_200);
/// From the server's first answer to Standin's.
const RETURN_MAX: std::time::Duration = ms(200);

fn both_down() -> (RedisServer, RedisServer, StandinProcess, Client) {
    let (mut primary, mut backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).table(REQUEST_TIMEOUT).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a", "backend"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    backup.kill();
    primary.kill();
    (primary, backup, standin, client)
}

#[test]
fn requests_fail_within_their_deadline_when_all_backends_are_down() {
    let (_primary, _backup, standin, mut client) = both_down();
    for request in [&["GET", "k"][..], &["SET", "k", "2"], &["INCR", "n"], &["DEL", "k"], &["MGET", "a", "b"]] {
        let start = Instant::now();
        let reply = client.command(request);
        assert!(reply.is_error_word("NOBACKEND"), "{request:?} answered {reply:?}");
        assert!(start.elapsed() < DEADLINE_MAX, "{request:?} took {:?}", start.elapsed());
    }
    assert_eq!(standin.get("/livez").code, 200);
    assert_eq!(standin.get("/readyz").code, 200);
    assert!(!standin.events_of("no_backend").is_empty(), "{:#?}", standin.events());
    standin.finish();
}

#[test]
fn a_pipeline_is_answered_whole_and_in_time_when_all_backends_are_down() {
    let (_primary, _backup, standin, mut client) = both_down();
    let start = Instant::now();
    for _ in 0..1_000 {
        client.send(&["GET", "k"]);
    }
    for _ in 0..1_000 {
        let reply = client.read();
        assert!(reply.is_error_word("NOBACKEND"), "{reply:?}");
    }
    assert!(start.elapsed() < DEADLINE_MAX, "a deadline is each request's own: {:?}", start.elapsed());
    standin.finish();
}

/// Waits in a client's way: asks until it is served.
fn until_served(client: &mut Client) -> std::time::Duration {
    eventually(secs(5), "requests are served again", || !client.command(&["GET", "k"]).is_error())
}

#[test]
fn a_primary_that_returns_is_used_within_200_ms() {
    let (mut primary, _backup, standin, mut client) = both_down();
    assert!(client.command(&["GET", "k"]).is_error_word("NOBACKEND"));
    primary.restart();
    let served = until_served(&mut client);
    println!("served {served:?} after the primary's return");
    assert!(served < RETURN_MAX, "{served:?}");
    assert_eq!(client.command(&["SET", "k", "3"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("3"));
    standin.finish();
}

#[test]
fn a_backup_that_returns_is_used_within_200_ms() {
    let (_primary, mut backup, standin, mut client) = both_down();
    assert!(client.command(&["GET", "k"]).is_error_word("NOBACKEND"));
    backup.restart();
    let served = until_served(&mut client);
    println!("served {served:?} after the backup's return");
    assert!(served < RETURN_MAX, "{served:?}");
    assert_eq!(standin.active(), "backup-a");
    standin.finish();
}

#[test]
fn the_embedded_backend_serves_when_every_server_is_down() {
    let (mut primary, mut backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::quick_pair(primary.address(), backup.address());
    let mut standin = config.backend("last-resort", "backup", "embedded", "").start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a", "last-resort"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    backup.kill();
    eventually(secs(5), "the dead backup is seen", || standin.backend("backup-a")["health"] == "failed");
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok(), "no error, though no server lives");
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    assert_eq!(standin.active(), "last-resort");
    primary.restart();
    standin.wait_until_active("primary", secs(10));
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil, "the primary returned empty");
    standin.finish();
}

#[test]
fn writes_to_the_embedded_backend_are_not_followed_by_old_values() {
    let (primary, mut backup) = (RedisServer::start(), RedisServer::start());
    let relay = support::FaultRelay::start(primary.address());
    let config = StandinConfig::quick_pair(relay.address(), backup.address());
    let mut standin = config.backend("last-resort", "backup", "embedded", "").start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a", "last-resort"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(client.command(&["SET", "untouched", "1"]), Reply::ok());
    backup.kill();
    eventually(secs(5), "the dead backup is seen", || standin.backend("backup-a")["health"] == "failed");
    relay.set(support::Fault::Refuse);
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    assert_eq!(standin.active(), "last-resort");
    relay.heal();
    standin.wait_until_active("primary", secs(10));
    let read = client.command(&["GET", "k"]);
    assert!(read == Reply::Nil || read == Reply::bulk("2"), "an old value came back: {read:?}");
    assert_eq!(client.command(&["GET", "untouched"]), Reply::bulk("1"), "only dirtied keys are removed");
    relay.assert_fired();
    standin.finish();
}

#[test]
fn a_primary_that_restarts_within_the_hold_costs_neither_a_switch_nor_an_error() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), backup.address());
    let mut standin = config.table("[failover]\nhold = \"300ms\"").start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(1_000);
    let start = Instant::now();
    primary.kill();
    primary.restart();
    let down = start.elapsed();
    assert!(down < ms(200), "redis-server took {down:?} to restart, too long for this test to say anything");
    load.wait_for_successes(2_000);
    let report = load.stop();
    println!("restart within the hold (down {down:.1?}): {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(ms(300));
    assert_eq!(standin.active(), "primary");
    assert!(standin.events_of("failover").is_empty(), "{:#?}", standin.events());
    assert!(standin.epoch() >= epoch, "a restarted active may be entered anew");
    standin.finish();
}

#[test]
fn a_primary_that_stays_down_is_left_when_the_hold_ends() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), backup.address());
    let mut standin = config.table("[failover]\nhold = \"300ms\"").start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(1_000);
    primary.kill();
    load.wait_for_successes(1_000);
    let report = load.stop();
    println!("hold to its end: {report}");
    report.assert_no_errors();
    assert!(report.longest_gap >= ms(280), "requests were held: {report}");
    report.assert_no_gap_over(ms(400));
    standin.assert_one_failover_since(epoch, &["connection"]);
    standin.finish();
}
