//! The primary is well again: when it serves, and that nothing old is ever read from it.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    Client, Fault, FaultRelay, Load, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms,
    secs, throughout,
};

/// Long enough for several recoveries with `quick_recovery`, whose delay is one second.
const SEVERAL_RECOVERIES: Duration = secs(4);

/// A primary behind a relay, a backup, and a Standin that returns quickly.
struct Stage {
    primary: RedisServer,
    _backup: RedisServer,
    relay: FaultRelay,
    standin: StandinProcess,
    client: Client,
}

impl Stage {
    /// `prepare` fills the primary before Standin sees it, which then is not owned.
    fn start(prepare: impl FnOnce(&RedisServer)) -> Self {
        Self::start_with(prepare, |config| config)
    }

    fn start_with(prepare: impl FnOnce(&RedisServer), adapt: impl FnOnce(StandinConfig) -> StandinConfig) -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        prepare(&primary);
        let relay = FaultRelay::start(primary.address());
        let config = StandinConfig::quick_pair(relay.address(), backup.address());
        let mut standin = adapt(config).start();
        standin.declare(PRIMARY_LOST);
        assert!(standin.epoch() > 0, "it serves");
        let client = standin.connect();
        Self { primary, _backup: backup, relay, standin, client }
    }

    /// Cuts the primary off until the backup serves, lets `meanwhile` happen, and heals the network.
    fn blink(&mut self, fault: Fault, meanwhile: impl FnOnce(&mut Client)) {
        self.relay.set(fault);
        assert!(!self.client.command(&["GET", "while-cut-off"]).is_error());
        self.standin.wait_until_active("backup-a", secs(5));
        meanwhile(&mut self.client);
        self.relay.assert_fired();
        self.relay.heal();
    }

    fn set(&mut self, key: &str, value: &str) {
        assert_eq!(self.client.command(&["SET", key, value]), Reply::ok());
    }
}

fn foreign_key(primary: &RedisServer) {
    assert_eq!(primary.command(&["SET", "foreign", "theirs"]), Reply::ok());
}

#[test]
fn the_primary_serves_again_after_its_delay_and_not_before() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::quick_pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(500);
    primary.kill();
    load.wait_for_successes(500);
    assert_eq!(standin.active(), "backup-a");
    primary.restart();
    let took = standin.wait_until_active("primary", secs(10));
    println!("recovered {took:?} after the return, with a delay of 1 s and two probes of 500 ms");
    assert!(took >= ms(900), "the delay was not kept: {took:?}");
    assert!(took < secs(3), "{took:?}");
    load.wait_for_successes(2_000);
    let report = load.stop();
    println!("kill and recovery: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(ms(100));
    let recoveries = standin.events_of("recovery");
    assert_eq!(recoveries.len(), 1, "{recoveries:#?}");
    assert_eq!(recoveries[0]["to"], "primary");
    standin.finish();
}

#[test]
fn the_primary_stays_left_when_recovery_is_disabled_until_it_is_asked_for() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), backup.address());
    let mut standin = config.table("[recovery]\nenabled = false\nthreshold = 1\ndelay = \"100ms\"").start();
    standin.declare(PRIMARY_LOST);
    primary.kill();
    eventually(secs(5), "the backup serves", || standin.active() == "backup-a");
    primary.restart();
    eventually(secs(5), "the primary is well", || standin.backend("primary")["health"] == "healthy");
    throughout(secs(2), "the backup serves", || standin.active() == "backup-a");
    let answer = standin.post("/v1/recover", &serde_json::json!({"reason": "asked for"}));
    assert_eq!(answer.code, 200, "{answer:?}");
    standin.wait_until_active("primary", secs(5));
    standin.finish();
}

#[test]
fn a_reset_network_removes_only_the_keys_written_meanwhile() {
    check_blink(Fault::Refuse);
}

#[test]
fn a_swallowing_network_removes_only_the_keys_written_meanwhile() {
    check_blink(Fault::BlackHole);
}

fn check_blink(fault: Fault) {
    let mut stage = Stage::start(foreign_key);
    for key in ["changed", "deleted", "expired", "counted", "renamed", "kept", "read"] {
        stage.set(key, "1");
    }
    stage.blink(fault, |client| {
        client.command(&["SET", "changed", "2"]);
        client.command(&["DEL", "deleted"]);
        client.command(&["SET", "expired", "2", "PX", "1"]);
        client.command(&["SET", "counted", "7"]);
        client.command(&["INCR", "counted"]);
        client.command(&["SET", "renamed", "2"]);
        client.command(&["RENAME", "renamed", "elsewhere"]);
        client.command(&["GET", "read"]);
    });
    stage.standin.wait_until_active("primary", secs(10));
    for key in ["changed", "deleted", "expired", "counted", "renamed", "elsewhere"] {
        let read = stage.client.command(&["GET", key]);
        assert_ne!(read, Reply::bulk("1"), "{key} came back");
    }
    for key in ["kept", "read"] {
        assert_eq!(stage.client.command(&["GET", key]), Reply::bulk("1"), "{key} was clean and is kept");
    }
    let foreign = stage.primary.command(&["GET", "foreign"]);
    assert_eq!(foreign, Reply::bulk("theirs"), "a primary that others use is never flushed");
    stage.standin.finish();
}

#[test]
fn multi_key_writes_and_scripts_dirty_all_their_keys() {
    let mut stage = Stage::start(foreign_key);
    for key in ["a", "b", "c", "d", "e"] {
        stage.set(key, "1");
    }
    stage.blink(Fault::Refuse, |client| {
        client.command(&["MSET", "a", "2", "b", "2"]);
        client.command(&["EVAL", "return redis.call('SET', KEYS[1], 2)", "1", "c"]);
        client.command(&["MULTI"]);
        client.command(&["SET", "d", "2"]);
        assert!(!client.command(&["EXEC"]).is_error());
    });
    stage.standin.wait_until_active("primary", secs(10));
    for key in ["a", "b", "c", "d"] {
        assert_ne!(stage.client.command(&["GET", key]), Reply::bulk("1"), "{key} came back");
    }
    assert_eq!(stage.client.command(&["GET", "e"]), Reply::bulk("1"));
    assert_eq!(stage.primary.command(&["GET", "foreign"]), Reply::bulk("theirs"));
    stage.standin.finish();
}

#[test]
fn keys_written_meanwhile_in_other_databases_are_removed_there() {
    let mut stage = Stage::start(foreign_key);
    assert_eq!(stage.client.command(&["SELECT", "3"]), Reply::ok());
    stage.set("k", "1");
    stage.set("kept", "1");
    stage.blink(Fault::Refuse, |client| {
        client.command(&["SET", "k", "2"]);
    });
    stage.standin.wait_until_active("primary", secs(10));
    assert_ne!(stage.client.command(&["GET", "k"]), Reply::bulk("1"), "an old value came back in database 3");
    assert_eq!(stage.client.command(&["GET", "kept"]), Reply::bulk("1"));
    stage.standin.finish();
}

#[test]
fn no_client_reads_an_old_value_through_five_blinks_under_load() {
    let stage = Stage::start(foreign_key);
    let load = Load::new(stage.standin.address()).start();
    load.wait_for_successes(4_000);
    for round in 0..5 {
        let fault = if round % 2 == 0 { Fault::Refuse } else { Fault::BlackHole };
        stage.relay.set(fault);
        stage.standin.wait_until_active("backup-a", secs(5));
        load.wait_for_successes(1_000);
        stage.relay.heal();
        // The delay grows with each relapse.
        stage.standin.wait_until_active("primary", secs(60));
        load.wait_for_successes(1_000);
    }
    let report = load.stop();
    println!("five blinks: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(secs(1));
    assert_eq!(stage.primary.command(&["GET", "foreign"]), Reply::bulk("theirs"));
    stage.standin.finish();
}

#[test]
fn a_backup_that_is_entered_twice_shows_nothing_of_the_first_time() {
    let mut stage = Stage::start(|_| {});
    stage.blink(Fault::Refuse, |client| {
        assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    });
    stage.standin.wait_until_active("primary", secs(10));
    stage.set("k", "2");
    stage.relay.set(Fault::Refuse);
    let read = stage.client.command(&["GET", "k"]);
    assert_eq!(read, Reply::Nil, "the backup kept a value from its last service");
    stage.standin.finish();
}

/// A primary with keys of others, which dies and returns with an older RDB of its own.
fn returned_with_an_old_rdb(adapt: impl FnOnce(StandinConfig) -> StandinConfig) -> Stage {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    foreign_key(&primary);
    let relay = FaultRelay::start(primary.address());
    let config = adapt(StandinConfig::quick_pair(relay.address(), backup.address()));
    let mut standin = config.start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "old"]), Reply::ok());
    primary.save();
    assert_eq!(client.command(&["SET", "k", "new"]), Reply::ok());
    primary.kill();
    assert!(!client.command(&["GET", "k"]).is_error());
    standin.wait_until_active("backup-a", secs(5));
    primary.restart_with_content(&[]);
    primary.wait_until_it_answers();
    Stage { primary, _backup: backup, relay, standin, client }
}

#[test]
fn a_primary_that_returns_with_an_unknown_content_is_not_entered_and_the_status_says_what_to_do() {
    let mut stage = returned_with_an_old_rdb(|config| config);
    eventually(secs(5), "the primary is probed well", || stage.standin.backend("primary")["health"] == "healthy");
    throughout(SEVERAL_RECOVERIES, "the primary stays out", || stage.standin.active() == "backup-a");
    let status = stage.standin.backend("primary");
    assert_eq!(status["divergence"]["state"], "unknown", "{status:#}");
    assert_eq!(status["enterable"], false, "{status:#}");
    assert!(status["why_not"].is_string(), "why: {status:#}");
    let mend = status["mend"].as_str().unwrap_or_default();
    assert!(mend.starts_with("standin adopt primary"), "what to do: {status:#}");
    assert_eq!(stage.client.command(&["GET", "k"]), Reply::Nil);
    assert_eq!(stage.primary.command(&["GET", "foreign"]), Reply::bulk("theirs"));
    assert_eq!(stage.primary.command(&["GET", "k"]), Reply::bulk("old"), "nothing was removed either");
    stage.standin.finish();
}

#[test]
fn a_primary_with_unknown_content_is_flushed_and_entered_when_the_policy_is_flush() {
    let mut stage = returned_with_an_old_rdb(|config| config.table("[divergence]\npolicy = \"flush\""));
    stage.standin.wait_until_active("primary", secs(10));
    assert_eq!(stage.client.command(&["GET", "k"]), Reply::Nil);
    assert_eq!(stage.primary.command(&["GET", "foreign"]), Reply::Nil, "the operator said flush");
    stage.standin.finish();
}

#[test]
fn a_primary_with_unknown_content_is_entered_as_it_is_when_the_policy_is_trust() {
    let mut stage = returned_with_an_old_rdb(|config| config.table("[divergence]\npolicy = \"trust\""));
    stage.standin.wait_until_active("primary", secs(10));
    assert_eq!(stage.client.command(&["GET", "k"]), Reply::bulk("old"), "the operator said trust");
    stage.standin.finish();
}

#[test]
fn a_primary_with_unknown_content_stays_out_when_the_policy_is_refuse() {
    let stage = returned_with_an_old_rdb(|config| config.table("[divergence]\npolicy = \"refuse\""));
    eventually(secs(5), "the primary is probed well", || stage.standin.backend("primary")["health"] == "healthy");
    throughout(SEVERAL_RECOVERIES, "the primary stays out", || stage.standin.active() == "backup-a");
    stage.standin.finish();
}

#[test]
fn an_owned_primary_with_unknown_content_is_flushed_and_entered_by_the_default_policy() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::quick_pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "old"]), Reply::ok(), "empty at first contact: owned");
    primary.save();
    assert_eq!(client.command(&["SET", "k", "new"]), Reply::ok());
    primary.kill();
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil);
    primary.restart_with_content(&[]);
    standin.wait_until_active("primary", secs(10));
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil, "an old RDB was served");
    standin.finish();
}

#[test]
fn an_active_that_restarts_with_an_old_content_is_not_read_before_it_is_reconciled() {
    // Even without a switch: a fast restart within the hold is an entry like any other.
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::quick_pair(primary.address(), backup.address());
    let mut standin = config.table("[failover]\nhold = \"500ms\"").start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "old"]), Reply::ok());
    primary.save();
    assert_eq!(client.command(&["SET", "k", "new"]), Reply::ok());
    primary.kill();
    primary.restart_with_content(&[]);
    for _ in 0..200 {
        let read = client.command(&["GET", "k"]);
        assert!(read == Reply::bulk("new") || read == Reply::Nil, "an old value came back: {read:?}");
    }
    standin.finish();
}

#[test]
fn a_persistent_primary_is_never_flushed() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let address = primary.address().to_string();
    let config = StandinConfig::new().backend("primary", "primary", &address, "persistent = true");
    let mut standin = config.backup("backup-a", backup.address()).quick_recovery().start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "old"]), Reply::ok());
    primary.save();
    primary.kill();
    assert_eq!(client.command(&["SET", "other", "1"]), Reply::ok());
    primary.restart_with_content(&[]);
    eventually(secs(5), "the primary is probed well", || standin.backend("primary")["health"] == "healthy");
    // Not looked at meanwhile: a foreign client at work would protect it as well.
    throughout(SEVERAL_RECOVERIES, "the primary stays out", || standin.active() == "backup-a");
    assert_eq!(primary.command(&["GET", "k"]), Reply::bulk("old"), "it was flushed");
    standin.finish();
}
