//! Servers that live, answer PING, and cannot do their work: a replica, one that loads, one without room on disk or in
//! memory, one that no longer knows our password.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::time::Duration;

use support::{
    FaultClock, Load, PRIMARY_LOST, RedisServer, Reply, RunningLoad, StandinConfig, StandinProcess, eventually, ms,
    secs, throughout,
};

/// Whoever refuses everything, or all writes, fails at any load.
const REFUSING_MAX: Duration = ms(1_500);

/// A primary, a backup, and a load that goes on (0: probes only).
struct Stage {
    primary: RedisServer,
    backup: RedisServer,
    standin: StandinProcess,
    epoch: u64,
    load: Option<RunningLoad>,
}

impl Stage {
    fn start(rate: u64, primary: RedisServer) -> Self {
        let backup = RedisServer::start();
        let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
        standin.declare(PRIMARY_LOST);
        for name in ["primary", "backup-a"] {
            eventually(secs(5), "both are well", || standin.backend(name)["health"] == "healthy");
        }
        let epoch = standin.epoch();
        let load = (rate > 0).then(|| {
            let load = Load::new(standin.address()).clients(rate.min(16) as usize).requests_per_second(rate).start();
            load.wait_for_successes(rate.div_ceil(2));
            load
        });
        Self { primary, backup, standin, epoch, load }
    }

    /// Waits for the one failover; clients may have seen errors of these words before it.
    fn left_within(self, clock: FaultClock, limit: Duration, what: &str, words: &[&str]) {
        clock.failover_within(&self.standin, limit, what);
        if let Some(load) = self.load {
            load.wait_for_successes(20);
            let report = load.stop();
            println!("{what}: {report}");
            report.assert_errors_are_only(words);
            report.assert_no_stale_reads();
        }
        assert_eq!(self.standin.connect().command(&["SET", "after", "1"]), Reply::ok());
        assert_eq!(self.backup.command(&["GET", "after"]), Reply::bulk("1"));
        self.standin.assert_one_failover_since(self.epoch, &["health_check", "performance"]);
        self.standin.finish();
    }
}

/// Runs one story for each load at the same time: they are small, and most of the time is waiting.
fn at_loads(rates: &[u64], story: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for rate in rates {
            scope.spawn(|| story(*rate));
        }
    });
}

#[test]
fn a_primary_that_was_made_a_replica_of_another_server_is_left_in_time() {
    let master = RedisServer::start();
    at_loads(&[0, 10, 200], |rate| {
        let stage = Stage::start(rate, RedisServer::start());
        let port = master.address().port().to_string();
        let clock = FaultClock::start();
        assert_eq!(stage.primary.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
        // Its content becomes the master's; what is read of it meanwhile may be a miss.
        let what = format!("demoted to a replica (READONLY), {rate} requests/s");
        stage.left_within(clock, REFUSING_MAX, &what, &["READONLY", "LOADING", "MASTERDOWN"]);
    });
}

#[test]
fn a_primary_that_loads_a_large_file_while_its_connections_stand_is_left_in_time() {
    let slow_to_load = ["--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"];
    at_loads(&[0, 10, 200], |rate| {
        let stage = Stage::start(rate, RedisServer::start_with(&slow_to_load));
        stage.primary.command(&["DEBUG", "POPULATE", "40000", "large"]);
        let mut other = stage.primary.connect();
        let clock = FaultClock::start();
        // It saves, forgets, and loads again: for four seconds here, in which everybody else is told LOADING.
        other.send(&["DEBUG", "RELOAD"]);
        let what = format!("loads a large file (LOADING), {rate} requests/s");
        stage.left_within(clock, REFUSING_MAX, &what, &["LOADING"]);
    });
}

#[test]
fn a_primary_without_memory_is_left_in_time() {
    at_loads(&[0, 10, 200], |rate| {
        let stage = Stage::start(rate, RedisServer::start());
        let clock = FaultClock::start();
        assert_eq!(stage.primary.command(&["CONFIG", "SET", "maxmemory", "1"]), Reply::ok());
        let what = format!("memory full, noeviction (OOM), {rate} requests/s");
        stage.left_within(clock, REFUSING_MAX, &what, &["OOM"]);
    });
}

#[test]
fn a_primary_whose_disk_takes_nothing_is_left_in_time() {
    at_loads(&[0, 10, 200], |rate| {
        let stage = Stage::start(rate, RedisServer::start());
        let clock = FaultClock::start();
        stage.primary.let_saving_fail();
        let what = format!("saving fails (MISCONF), {rate} requests/s");
        stage.left_within(clock, REFUSING_MAX, &what, &["MISCONF"]);
    });
}

#[test]
fn nobody_is_left_for_a_backup_that_is_as_full() {
    both_are_full(|standin| {
        eventually(secs(5), "a probe has found the backup full", || standin.backend("backup-a")["health"] != "healthy");
    });
}

#[test]
fn nobody_is_left_for_a_backup_that_became_full_in_the_same_moment() {
    both_are_full(|_| {});
}

fn both_are_full(between: impl Fn(&StandinProcess)) {
    let stage = Stage::start(200, RedisServer::start());
    let full = |server: &RedisServer| assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "1"]), Reply::ok());
    let mut standin = stage.standin;
    standin.declare(&["backup-a"]);
    full(&stage.backup);
    between(&standin);
    full(&stage.primary);
    throughout(secs(6), "the primary serves", || standin.active() == "primary");
    let report = stage.load.unwrap().stop();
    println!("both full: {report}");
    report.assert_errors_are_only(&["OOM"]);
    assert_eq!(report.misses, 0, "reads are well, and nothing was lost");
    standin.assert_no_switch_since(stage.epoch);
    standin.finish();
}

/// A primary that asks for a user and a password, its secret in a file, and a backup that asks for none.
fn guarded() -> (RedisServer, RedisServer, tempfile::NamedTempFile, StandinProcess) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    assert_eq!(primary.command(&["ACL", "SETUSER", "app", "on", ">first", "~*", "&*", "+@all"]), Reply::ok());
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"first").unwrap();
    let keys = format!("username = \"app\"\npassword = \"file:{}\"", secret.path().display());
    let config = StandinConfig::new().backend("primary", "primary", &primary.address().to_string(), &keys);
    let mut standin = config.backup("backup-a", backup.address()).start();
    standin.declare(&["primary"]);
    (primary, backup, secret, standin)
}

#[test]
fn a_rotated_password_is_no_failover_the_status_says_what_to_do_and_the_new_file_heals_it() {
    let (primary, backup, secret, standin) = guarded();
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).requests_per_second(200).start();
    load.wait_for_successes(100);
    assert_eq!(primary.command(&["ACL", "SETUSER", "app", "resetpass", ">second"]), Reply::ok());
    // Connections that are logged in stay so.
    load.wait_for_successes(100);
    assert_eq!(load.errors(), 0);
    primary.command(&["CLIENT", "KILL", "USER", "app"]);
    eventually(secs(5), "the refusal is an event", || !standin.events_of("authentication_failed").is_empty());
    let status = standin.backend("primary");
    assert!(status["reasons"].to_string().contains("check username and password"), "{status:#}");
    throughout(secs(3), "no failover", || standin.active() == "primary");
    assert_eq!(backup.command(&["DBSIZE"]), Reply::Integer(0), "no request went to the backup");

    std::fs::write(secret.path(), "second").unwrap();
    let healed = eventually(secs(5), "the new password is used", || standin.backend("primary")["health"] == "healthy");
    println!("healed {healed:?} after the file was written");
    load.wait_for_successes(200);
    let report = load.stop();
    println!("password rotated: {report}, {:?}", report.errors.first());
    report.assert_no_stale_reads();
    report.assert_errors_are_only(&["NOBACKEND", "WRONGPASS", "NOAUTH", "UNKNOWNOUTCOME", "TIMEOUT"]);
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn a_user_that_lost_its_rights_is_no_failover() {
    let (primary, _backup, _secret, standin) = guarded();
    let epoch = standin.epoch();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(primary.command(&["ACL", "SETUSER", "app", "-set"]), Reply::ok());
    let began = std::time::Instant::now();
    while began.elapsed() < secs(3) {
        assert!(client.command(&["SET", "k", "2"]).is_error_word("NOPERM"));
        assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
        std::thread::sleep(ms(5));
    }
    standin.assert_no_switch_since(epoch);
    standin.finish();
}
