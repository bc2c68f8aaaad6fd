//! The primary stops answering while its connections stay open: SIGSTOP, or a network that swallows packets.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::{Fault, FaultRelay, Load, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, ms, secs};

const FREEZE_TRIGGERS: &[&str] = &["timeout", "health_check"];
const DEFAULT_GAP_MAX: Duration = secs(1);
const FAST_GAP_MAX: Duration = ms(250);
const FAST: &str = "[failover]\nprofile = \"fast\"";
const DEFAULT: &str = "";

/// Freezes the primary under load and looks at the client.
fn check_frozen(profile: &str, gap_max: Duration) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).table(profile).start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(4_000);
    primary.freeze();
    load.wait_for_successes(4_000);
    let report = load.stop();
    println!("frozen {profile:?}: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(gap_max);
    standin.assert_one_failover_since(epoch, FREEZE_TRIGGERS);
    standin.finish();
}

/// Lets the network to the primary swallow everything, under load.
fn check_swallowed(profile: &str, fault: Fault, gap_max: Duration) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).table(profile).start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(4_000);
    relay.set(fault.clone());
    load.wait_for_successes(4_000);
    let report = load.stop();
    println!("{fault:?} {profile:?}: {report}");
    relay.assert_fired();
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(gap_max);
    standin.assert_one_failover_since(epoch, FREEZE_TRIGGERS);
    standin.finish();
}

/// Pauses the primary several times, each pause too short to leave it.
fn check_pauses(profile: &str, pause: Duration) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).table(profile).start();
    // Probes that meet the pauses take longer than usual, and that is said.
    standin.declare(&["primary is degraded"]);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(2_000);
    for _ in 0..6 {
        primary.freeze();
        load.run_for(pause);
        primary.thaw();
        load.wait_for_successes(1_000);
    }
    let report = load.stop();
    println!("pauses of {pause:?} {profile:?}: {report}");
    report.assert_no_errors();
    assert_eq!(report.misses, 0, "no other server answered");
    assert!(report.longest_gap >= pause - ms(20), "the pauses were real: {report}");
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn a_frozen_primary_costs_no_error_and_no_gap_over_1_s() {
    check_frozen(DEFAULT, DEFAULT_GAP_MAX);
}

#[test]
fn a_frozen_primary_costs_no_gap_over_250_ms_with_the_fast_profile() {
    check_frozen(FAST, FAST_GAP_MAX);
}

#[test]
fn swallowed_packets_cost_no_error_and_no_gap_over_1_s() {
    check_swallowed(DEFAULT, Fault::BlackHole, DEFAULT_GAP_MAX);
}

#[test]
fn swallowed_packets_cost_no_gap_over_250_ms_with_the_fast_profile() {
    check_swallowed(FAST, Fault::BlackHole, FAST_GAP_MAX);
}

#[test]
fn a_primary_that_vanished_from_the_network_costs_no_gap_over_1_s() {
    check_swallowed(DEFAULT, Fault::Vanished, DEFAULT_GAP_MAX);
}

#[test]
fn a_primary_that_vanished_from_the_network_costs_no_gap_over_250_ms_with_the_fast_profile() {
    check_swallowed(FAST, Fault::Vanished, FAST_GAP_MAX);
}

#[test]
fn pauses_of_500_ms_never_cause_a_switch() {
    check_pauses(DEFAULT, ms(500));
}

#[test]
fn pauses_of_150_ms_never_cause_a_switch_with_the_fast_profile() {
    check_pauses(FAST, ms(150));
}

/// The first request that ever goes to the backend finds it silent: no connection stands that could be silent too.
fn check_first_request(profile: &str, fault: Option<Fault>, gap_max: Duration) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).table(profile).start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let mut client = standin.connect();
    match &fault {
        Some(fault) => relay.set(fault.clone()),
        None => primary.freeze(),
    }
    let sent = Instant::now();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    let took = sent.elapsed();
    println!("first request, {fault:?} {profile:?}: {took:?}");
    assert!(took <= gap_max, "the first request took {took:?}, more than {gap_max:?}");
    standin.assert_one_failover_since(epoch, FREEZE_TRIGGERS);
    standin.finish();
}

#[test]
fn the_first_request_ever_on_a_frozen_server_takes_no_more_than_1_s() {
    check_first_request(DEFAULT, None, DEFAULT_GAP_MAX);
}

#[test]
fn the_first_request_ever_on_a_frozen_server_takes_no_more_than_250_ms_with_the_fast_profile() {
    check_first_request(FAST, None, FAST_GAP_MAX);
}

#[test]
fn the_first_request_ever_on_a_server_that_vanished_takes_no_more_than_1_s() {
    check_first_request(DEFAULT, Some(Fault::Vanished), DEFAULT_GAP_MAX);
}

#[test]
fn the_first_request_ever_on_a_server_that_vanished_takes_no_more_than_250_ms_with_the_fast_profile() {
    check_first_request(FAST, Some(Fault::Vanished), FAST_GAP_MAX);
}

/// A primary, a cold backup and a Standin that returns soon after the primary is well.
fn quick_stage() -> (RedisServer, RedisServer, StandinProcess) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::quick_pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    (primary, backup, standin)
}

#[test]
fn a_set_sent_to_a_frozen_server_never_brings_an_older_value_back_after_the_thaw() {
    let (primary, _backup, standin) = quick_stage();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.freeze();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok(), "the backup answers");
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    primary.thaw();
    standin.wait_until_active("primary", secs(10));
    let read = client.command(&["GET", "k"]);
    assert!(read == Reply::bulk("2") || read == Reply::Nil, "an older value came back: {read:?}");
    standin.finish();
}

#[test]
fn a_set_sent_to_a_frozen_server_never_overwrites_a_later_one_after_the_thaw() {
    let (primary, _backup, standin) = quick_stage();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.freeze();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok(), "the backup answers");
    assert_eq!(client.command(&["SET", "k", "3"]), Reply::ok());
    primary.thaw();
    standin.wait_until_active("primary", secs(10));
    let read = client.command(&["GET", "k"]);
    assert!(read == Reply::bulk("3") || read == Reply::Nil, "the frozen SET came back: {read:?}");
    // Nor later, when whatever still waited in the thawed server's sockets has been executed.
    assert_eq!(client.command(&["SET", "k", "4"]), Reply::ok());
    support::throughout(ms(500), "the newest value stays", || client.command(&["GET", "k"]) == Reply::bulk("4"));
    standin.finish();
}

#[test]
fn no_client_reads_an_old_value_through_freeze_thaw_and_return() {
    let (primary, _backup, standin) = quick_stage();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(6_000);
    primary.freeze();
    standin.wait_until_active("backup-a", secs(3));
    load.wait_for_successes(4_000);
    primary.thaw();
    standin.wait_until_active("primary", secs(10));
    load.wait_for_successes(6_000);
    let report = load.stop();
    println!("freeze, thaw, return: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(DEFAULT_GAP_MAX);
    standin.finish();
}

#[test]
fn a_slow_command_is_not_taken_for_a_frozen_server() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    let epoch = standin.epoch();
    let mut client = standin.connect();
    // 1.5 s of work inside the server, far over the timeout of a GET, within that of a script.
    let script = "local t = redis.call('TIME'); local till = t[1] * 1000 + t[2] / 1000 + 1500; \
                  repeat local n = redis.call('TIME') until n[1] * 1000 + n[2] / 1000 > till; return 'done'";
    let mut other = standin.connect();
    client.send(&["EVAL", script, "0"]);
    other.send(&["GET", "behind"]);
    assert_eq!(client.read(), Reply::bulk("done"));
    assert_eq!(other.read(), Reply::Nil, "a GET behind a script is not late");
    standin.assert_no_switch_since(epoch);
    standin.finish();
}
