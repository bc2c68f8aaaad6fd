//! What other backends have missed survives Standin: it lies on the server that serves, written ahead of the writes.
#![allow(clippy::unwrap_used)]

mod support;

use support::{
    Client, Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, secs,
};

/// Keys that the primary holds before it is cut off.
const KEPT: usize = 200;

/// A primary that is cut off, and a backup that serves.
struct Outage {
    primary: RedisServer,
    backup: RedisServer,
    relay: FaultRelay,
    standin: StandinProcess,
    client: Client,
}

impl Outage {
    fn begin() -> Self {
        Self::begin_with("")
    }

    fn begin_with(tables: &str) -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let relay = FaultRelay::start(primary.address());
        let config = StandinConfig::quick_pair(relay.address(), backup.address()).table(tables);
        let mut standin = config.start();
        standin.declare(PRIMARY_LOST);
        standin.declare(&["backup-a"]);
        let mut client = standin.connect();
        for number in 0..KEPT {
            assert_eq!(client.command(&["SET", &format!("kept:{number}"), "before"]), Reply::ok());
        }
        assert_eq!(client.command(&["SELECT", "3"]), Reply::ok());
        assert_eq!(client.command(&["SET", "kept:0", "before"]), Reply::ok());
        assert_eq!(client.command(&["SET", "kept:1", "before"]), Reply::ok());
        assert_eq!(client.command(&["SELECT", "0"]), Reply::ok());
        relay.set(Fault::Refuse);
        assert_eq!(client.command(&["GET", "kept:0"]), Reply::Nil, "the backup is cold");
        standin.wait_until_active("backup-a", secs(5));
        Self { primary, backup, relay, standin, client }
    }

    fn set(&mut self, key: &str) {
        assert_eq!(self.client.command(&["SET", key, "meanwhile"]), Reply::ok());
    }

    /// SIGKILL, a start, and the primary serves again.
    fn killed_and_recovered(mut self) -> After {
        self.standin.kill();
        self.relay.heal();
        self.standin.start_again();
        self.standin.wait_until_ready();
        // Before the doors open the status names the primary.
        assert!(self.standin.epoch() > 0);
        self.standin.wait_until_active("primary", secs(20));
        let client = self.standin.connect();
        After { _relay: self.relay, _primary: self.primary, _backup: self.backup, standin: self.standin, client }
    }

    /// What lies in the group's incident on the backup.
    fn incident(&self) -> Vec<(String, Reply)> {
        let mut client = self.backup.connect();
        assert_eq!(client.command(&["SELECT", "15"]), Reply::ok());
        let fields = client.command(&["HGETALL", "standin:default:incident"]);
        fields.elements().chunks(2).map(|pair| (pair[0].text(), pair[1].clone())).collect()
    }
}

struct After {
    _relay: FaultRelay,
    _primary: RedisServer,
    _backup: RedisServer,
    standin: StandinProcess,
    client: Client,
}

impl After {
    #[track_caller]
    fn removed(&mut self, key: &str) {
        assert_ne!(self.client.command(&["GET", key]), Reply::bulk("before"), "{key} came back");
    }

    #[track_caller]
    fn kept(&mut self, key: &str) {
        assert_eq!(self.client.command(&["GET", key]), Reply::bulk("before"), "{key} was removed without need");
    }

    fn flushed(&self) -> bool {
        let recoveries = self.standin.events_of("recovery");
        assert_eq!(recoveries.len(), 1, "{recoveries:#?}");
        // Usually long before, so that it could be filled.
        let is_emptied = |event: &serde_json::Value| event["message"].to_string().contains("primary was emptied");
        recoveries[0]["detail"]["flushed"] == true || self.standin.events_of("reconciled").iter().any(is_emptied)
    }
}

#[test]
fn a_standin_killed_in_an_outage_knows_the_keys_that_the_primary_missed() {
    let mut outage = Outage::begin();
    for number in 0..50 {
        outage.set(&format!("kept:{number}"));
        // Known keys cost nothing more.
        outage.set(&format!("kept:{number}"));
    }
    let blocks = outage.incident().iter().filter(|(name, _)| name.starts_with("block:")).count();
    assert_eq!(blocks, 50, "one block for each key that was new");
    let mut after = outage.killed_and_recovered();
    for number in 0..50 {
        after.removed(&format!("kept:{number}"));
    }
    for number in 50..KEPT {
        after.kept(&format!("kept:{number}"));
    }
    after.standin.finish();
}

#[test]
fn pipelines_transactions_scripts_blocking_commands_and_other_databases_are_written_ahead_too() {
    let mut outage = Outage::begin();
    let client = &mut outage.client;
    for key in ["kept:10", "kept:11", "kept:12"] {
        client.send(&["SET", key, "meanwhile"]);
    }
    for _ in 0..3 {
        assert_eq!(client.read(), Reply::ok());
    }
    client.command(&["MULTI"]);
    client.command(&["SET", "kept:20", "meanwhile"]);
    client.command(&["SELECT", "3"]);
    client.command(&["SET", "kept:0", "meanwhile"]);
    client.command(&["SELECT", "0"]);
    assert_eq!(client.command(&["EXEC"]).elements().len(), 4);
    client.command(&["EVAL", "return redis.call('SET', KEYS[1], 'meanwhile')", "1", "kept:21"]);
    client.command(&["DEL", "kept:22"]);
    client.command(&["LPUSH", "list", "a"]);
    assert_eq!(client.command(&["BLMOVE", "list", "kept:23", "LEFT", "LEFT", "1"]), Reply::bulk("a"));
    client.command(&["WATCH", "kept:24"]);
    assert_eq!(client.command(&["SET", "kept:24", "meanwhile"]), Reply::ok());
    let mut after = outage.killed_and_recovered();
    for number in [10, 11, 12, 20, 21, 22, 23, 24] {
        after.removed(&format!("kept:{number}"));
    }
    for number in [0, 1, 13, 25] {
        after.kept(&format!("kept:{number}"));
    }
    assert_eq!(after.client.command(&["SELECT", "3"]), Reply::ok());
    after.removed("kept:0");
    after.kept("kept:1");
    assert!(!after.flushed());
    after.standin.finish();
}

#[test]
fn clients_see_nothing_of_it() {
    let mut outage = Outage::begin();
    let mut observer = outage.standin.connect();
    for number in 0..20 {
        outage.set(&format!("kept:{number}"));
    }
    assert_eq!(observer.command(&["DBSIZE"]), Reply::Integer(20));
    assert_eq!(observer.command(&["KEYS", "standin*"]), Reply::Array(Vec::new()));
    let scanned = observer.command(&["SCAN", "0", "COUNT", "1000"]);
    assert_eq!(scanned.elements()[1].elements().len(), 20);
    outage.standin.finish();
}

#[test]
fn what_cannot_be_told_key_by_key_is_unknown_after_the_restart() {
    for request in [vec!["EVAL", "return redis.call('SET', 'kept:1', 'meanwhile')", "0"], vec!["FLUSHALL"]] {
        let mut outage = Outage::begin();
        outage.set("kept:0");
        assert!(!outage.client.command(&request).is_error());
        let mut after = outage.killed_and_recovered();
        after.removed("kept:0");
        after.removed("kept:1");
        assert!(after.flushed(), "{request:?}");
        after.standin.finish();
    }
}

#[test]
fn more_keys_than_the_record_may_hold_are_unknown_after_the_restart() {
    let mut outage = Outage::begin_with("[divergence]\nrecord_bytes = \"4KiB\"");
    for number in 0..KEPT {
        outage.set(&format!("kept:{number}"));
    }
    let mut after = outage.killed_and_recovered();
    for number in 0..KEPT {
        after.removed(&format!("kept:{number}"));
    }
    assert!(after.flushed());
    after.standin.finish();
}

#[test]
fn a_copy_of_which_a_part_is_missing_is_not_believed() {
    let mut outage = Outage::begin();
    for number in 0..10 {
        outage.set(&format!("kept:{number}"));
    }
    let incident = outage.incident();
    let first = incident.iter().map(|(name, _)| name).find(|name| name.ends_with(":0")).unwrap().clone();
    let mut client = outage.backup.connect();
    client.command(&["SELECT", "15"]);
    assert_eq!(client.command(&["HDEL", "standin:default:incident", &first]), Reply::Integer(1));
    let mut after = outage.killed_and_recovered();
    for number in 0..10 {
        after.removed(&format!("kept:{number}"));
    }
    assert!(after.flushed());
    after.standin.finish();
}

#[test]
fn a_server_that_refuses_the_block_makes_it_unknown() {
    let mut outage = Outage::begin();
    outage.set("kept:0");
    let full = outage.backup.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(full, Reply::ok());
    outage.standin.declare(&["OOM", "refuses", "write"]);
    // Removing is allowed where writing is not: the block is refused, and the removal executed.
    assert!(!outage.client.command(&["DEL", "kept:1"]).is_error());
    eventually(secs(5), "the copy is given up", || !outage.incident().iter().any(|(name, _)| name == "snapshot"));
    outage.backup.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let mut after = outage.killed_and_recovered();
    after.removed("kept:1");
    assert!(after.flushed());
    after.standin.finish();
}

#[test]
fn nothing_is_written_ahead_while_no_backend_has_content_worth_knowing() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.command(&["CONFIG", "RESETSTAT"]);
    for number in 0..500 {
        assert_eq!(client.command(&["SET", &format!("k{number}"), "1"]), Reply::ok());
    }
    let statistics = primary.command(&["INFO", "commandstats"]).text();
    assert!(statistics.contains("cmdstat_set:calls=500"), "{statistics}");
    // The control plane may have a word to say about the databases in use.
    let blocks =
        statistics.lines().find_map(|line| line.strip_prefix("cmdstat_hset:calls=")?.split(',').next()?.parse().ok());
    assert!(blocks.unwrap_or(0) < 3, "{statistics}");
    standin.finish();
}

#[test]
fn a_primary_that_restarted_meanwhile_is_not_taken_for_the_one_of_the_copy() {
    let mut outage = Outage::begin();
    outage.set("kept:0");
    outage.primary.save();
    outage.primary.kill();
    outage.primary.restart_with_content(&[]);
    outage.primary.wait_until_it_answers();
    let mut after = outage.killed_and_recovered();
    after.removed("kept:0");
    after.removed("kept:1");
    assert!(after.flushed());
    after.standin.finish();
}

/// What a server that thaws would still execute, if the connections of a Standin that is dead were let be.
#[test]
fn a_frozen_primary_that_thaws_after_the_restart_executes_nothing_of_the_dead_standin() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::quick_pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    for number in 0..20 {
        assert_eq!(client.command(&["SET", &format!("kept:{number}"), "before"]), Reply::ok());
    }
    // A write on a connection of a client's own, and others on the shared one, lie in the server's sockets.
    let mut pinned = standin.connect();
    assert_eq!(pinned.command(&["WATCH", "nothing"]), Reply::ok());
    primary.freeze();
    pinned.send(&["GETSET", "kept:0", "late"]);
    client.send(&["INCRBY", "counter", "1"]);
    client.send(&["GETSET", "kept:1", "late"]);
    standin.wait_until_active("backup-a", secs(5));
    let mut client = standin.connect();
    for number in 0..2 {
        assert_eq!(client.command(&["SET", &format!("kept:{number}"), "newest"]), Reply::ok());
    }
    standin.kill();
    standin.start_again();
    standin.wait_until_ready();
    assert!(standin.epoch() > 0);
    assert_eq!(standin.active(), "backup-a");
    primary.thaw();
    standin.wait_until_active("primary", secs(20));
    let mut client = standin.connect();
    support::throughout(secs(2), "nothing late is executed", || {
        (0..2).all(|number| client.command(&["GET", &format!("kept:{number}")]) == Reply::bulk("newest"))
    });
    assert_eq!(client.command(&["GET", "kept:7"]), Reply::bulk("before"));
    standin.finish();
}
