//! The primary dies by SIGKILL. The client must not notice.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Load, PRIMARY_LOST, RedisServer, Reply, StandinConfig, eventually, ms, secs};

/// What a kill may cost: the link's end is seen at once, one reconnect is refused, the route changes.
const KILL_GAP_MAX: std::time::Duration = ms(20);

#[test]
fn a_primary_killed_under_load_costs_no_error_and_no_gap_over_20_ms() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(4_000);
    let killed = load.elapsed();
    primary.kill();
    load.wait_for_successes(4_000);
    let report = load.stop();
    let (_, quiet) = report.gap_between(ms(200), killed - ms(5));
    println!("kill: {report}; longest gap before it {quiet:.1?}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(KILL_GAP_MAX);
    assert_eq!(standin.active(), "backup-a");
    standin.assert_one_failover_since(epoch, &["connection"]);
    standin.finish();
}

#[test]
fn a_primary_killed_five_times_over_fresh_starts_never_shows_an_error() {
    for round in 0..5 {
        let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
        let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
        standin.declare(PRIMARY_LOST);
        let load = Load::new(standin.address()).start();
        // Another moment of the load in each round.
        load.wait_for_successes(500 + round * 37);
        primary.kill();
        load.wait_for_successes(1_000);
        let report = load.stop();
        println!("kill, round {round}: {report}");
        report.assert_no_errors();
        report.assert_no_stale_reads();
        report.assert_no_gap_over(KILL_GAP_MAX);
        standin.finish();
    }
}

#[test]
fn pipelines_in_flight_when_the_primary_is_killed_are_answered_in_order() {
    const DEPTH: usize = 400;
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    for round in 0..60_usize {
        for at in 0..DEPTH {
            client.send(&["SET", &format!("k{at}"), &format!("{round}")]);
            client.send(&["ECHO", &format!("{round}:{at}")]);
            client.send(&["GET", &format!("k{at}")]);
        }
        if round == 30 {
            primary.kill();
        }
        for at in 0..DEPTH {
            assert_eq!(client.read(), Reply::ok(), "SET {at} of round {round}");
            assert_eq!(client.read(), Reply::bulk(&format!("{round}:{at}")), "order is kept");
            let read = client.read();
            // Between the SET and the GET the backend may have changed to one that is empty, once.
            let is_fresh = read == Reply::bulk(&round.to_string()) || (round == 30 && read == Reply::Nil);
            assert!(is_fresh, "GET {at} of round {round} answered {read:?}");
        }
    }
    assert_eq!(standin.active(), "backup-a");
    standin.finish();
}

#[test]
fn a_primary_that_dies_and_returns_for_20_s_causes_one_switch_and_no_error() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(1_000);
    while load.elapsed() < secs(20) {
        primary.kill();
        load.run_for(ms(250));
        primary.restart();
        // Between 1 and 1.5 s from one death to the next, never the same.
        load.run_for(ms(750 + load.successes() % 500));
    }
    let report = load.stop();
    println!("flapping primary: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    // A dozen server processes start on the same cores meanwhile, hence more room than for a single kill.
    report.assert_no_gap_over(ms(100));
    standin.assert_one_failover_since(epoch, &["connection"]);
    assert!(standin.events_of("recovery").is_empty(), "{:#?}", standin.events());
    standin.finish();
}

#[test]
fn a_backup_that_dies_costs_nothing_and_is_reported() {
    let (primary, mut backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(&["backup-a"]);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(1_000);
    backup.kill();
    eventually(secs(5), "the dead backup is seen", || standin.backend("backup-a")["health"] == "failed");
    load.wait_for_successes(2_000);
    let report = load.stop();
    report.assert_no_errors();
    assert_eq!(report.misses, 0);
    report.assert_no_gap_over(ms(50));
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn the_next_backup_serves_when_the_first_dies_too() {
    let (mut primary, mut first, mut second) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), first.address()).backup("backup-b", second.address());
    let mut standin = config.start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a", "backup-b"]);
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(500);
    primary.kill();
    load.wait_for_successes(1_000);
    // The best backup is Standin's choice; whichever serves is the one to die.
    let remaining = if standin.active() == "backup-a" { "backup-b" } else { "backup-a" };
    if remaining == "backup-b" {
        first.kill()
    } else {
        second.kill()
    }
    load.wait_for_successes(1_000);
    let report = load.stop();
    println!("two deaths: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(KILL_GAP_MAX);
    assert_eq!(standin.active(), remaining);
    standin.finish();
}
