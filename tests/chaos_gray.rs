//! Gray failures: PING is well and requests are not. Peers never see them; Standin leaves such a primary within 5 s from
//! 10 requests/s on, and nothing that is the application's own or passes by itself makes it switch.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::{
    CommandRelay, FaultClock, Load, LoadReport, PRIMARY_LOST, RedisServer, Reply, Rule, RunningLoad, StandinConfig,
    StandinProcess, ms, secs, throughout,
};

const GRAY_MAX: Duration = secs(5);
const SLOW: Duration = ms(100);
/// How long a load goes on before a fault.
const GOOD_TIMES: Duration = secs(4);
/// What the load sends.
const REQUESTS: &[&str] = &["GET", "SET", "DEL"];
/// Begins the load's keys, and no key of Standin's probes.
const APPLICATION: &str = "load:";

/// A primary and a backup behind relays that know commands, and a load that has gone on for a while.
struct Stage {
    primary: RedisServer,
    _backup: RedisServer,
    primary_relay: CommandRelay,
    backup_relay: CommandRelay,
    standin: StandinProcess,
    epoch: u64,
    load: RunningLoad,
}

impl Stage {
    fn start(rate: u64) -> Self {
        Self::start_after(None, rate)
    }

    /// With a load of another rate before, from which a baseline is learnt within seconds: it takes 30 requests of a class
    /// three times, which at 10 requests/s is a quarter of a minute.
    fn start_after(before: Option<u64>, rate: u64) -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let (primary_relay, backup_relay) =
            (CommandRelay::start(primary.address()), CommandRelay::start(backup.address()));
        let mut standin = StandinConfig::pair(primary_relay.address(), backup_relay.address()).start();
        standin.declare(PRIMARY_LOST);
        standin.declare(&["backup-a is degraded"]);
        let epoch = standin.epoch();
        if let Some(rate) = before {
            let load = Load::new(standin.address()).key_prefix("load:before").requests_per_second(rate).start();
            load.run_for(GOOD_TIMES);
            load.stop().assert_no_errors();
        }
        let load = Load::new(standin.address()).clients(rate.min(16) as usize).requests_per_second(rate).start();
        if before.is_some() {
            load.wait_for_successes(rate)
        } else {
            load.run_for(GOOD_TIMES)
        }
        Self { primary, _backup: backup, primary_relay, backup_relay, standin, epoch, load }
    }

    /// Waits for the failover, and then sees to it that service goes on without a further one.
    fn left_within(self, clock: FaultClock, limit: Duration, what: &str) -> LoadReport {
        clock.failover_within(&self.standin, limit, what);
        let load = self.load;
        load.run_for(ms(500));
        let report = load.stop();
        println!("{what}: {report}");
        self.primary_relay.assert_fired();
        report.assert_no_stale_reads();
        self.standin.assert_one_failover_since(self.epoch, &["performance", "health_check", "timeout"]);
        self.standin.finish();
        report
    }

    fn stays_for(self, during: Duration, what: &str) -> LoadReport {
        throughout(during, what, || self.standin.active() == "primary");
        let report = self.load.stop();
        println!("{what}: {report}");
        report.assert_no_stale_reads();
        assert_eq!(report.misses, 0, "no other server answered");
        self.standin.assert_no_switch_since(self.epoch);
        self.standin.finish();
        report
    }
}

/// Runs stories at the same time: their loads are small, and most of the time is waiting.
fn side_by_side(stories: &[fn()]) {
    std::thread::scope(|scope| {
        for story in stories {
            scope.spawn(story);
        }
    });
}

fn check_slow_reads(rate: u64, keys: &str, what: &str) {
    let stage = Stage::start_after((rate < 200).then_some(200), rate);
    let clock = FaultClock::start();
    stage.primary_relay.set(&[Rule::delay(&["GET"], SLOW).keys(keys)]);
    let what = format!("GET 100 ms late, {what}, {rate} requests/s");
    stage.left_within(clock, GRAY_MAX, &what).assert_no_errors();
}

#[test]
fn a_primary_whose_reads_are_slow_is_left_within_5_s_at_10_and_200_requests_a_second() {
    side_by_side(&[
        || check_slow_reads(10, "", "PING well"),
        || check_slow_reads(10, APPLICATION, "probes well"),
        || check_slow_reads(200, "", "PING well"),
    ]);
}

#[test]
fn a_primary_whose_reads_are_slow_is_left_within_5_s_at_2000_requests_a_second() {
    check_slow_reads(2_000, "", "PING well");
}

#[test]
fn a_backup_that_is_as_slow_is_not_preferred() {
    let stage = Stage::start(200);
    for relay in [&stage.primary_relay, &stage.backup_relay] {
        relay.set(&[Rule::delay(&["GET"], SLOW)]);
    }
    stage.primary_relay.assert_eventually_fired();
    stage.backup_relay.assert_eventually_fired();
    stage.stays_for(secs(6), "primary and backup equally slow").assert_no_errors();
}

#[test]
fn neither_a_lone_slow_read_nor_keys_over_a_large_keyspace_is_a_gray_failure() {
    let stage = Stage::start(200);
    let mut client = stage.standin.connect();
    stage.primary_relay.set(&[Rule::delay(&["GET"], ms(400)).once()]);
    stage.primary_relay.assert_eventually_fired();
    stage.primary.command(&["DEBUG", "POPULATE", "200000"]);
    for _ in 0..3 {
        assert!(matches!(client.command(&["KEYS", "*"]), Reply::Array(keys) if keys.len() >= 200_000));
    }
    stage.stays_for(secs(3), "a lone slow GET, KEYS * three times").assert_no_errors();
}

/// A fifth of the load's requests are answered with this error.
fn check_errors(rate: u64, word: &str, names: &[&str], share: f64) {
    let stage = Stage::start(rate);
    let clock = FaultClock::start();
    stage.primary_relay.set(&[Rule::error(names, &format!("{word} says the relay")).share(share).keys(APPLICATION)]);
    let what = format!("20 % of requests answered {word}, {rate} requests/s");
    stage.left_within(clock, GRAY_MAX, &what).assert_errors_are_only(&[word]);
}

#[test]
fn a_primary_that_answers_a_fifth_with_errors_of_its_own_is_left_within_5_s_at_10_requests_a_second() {
    side_by_side(&[
        || check_errors(10, "LOADING", REQUESTS, 0.2),
        || check_errors(10, "BUSY", REQUESTS, 0.2),
        // A fifth of all are four fifths of the writes.
        || check_errors(10, "OOM", &["SET", "DEL"], 0.8),
    ]);
}

#[test]
fn a_primary_that_answers_a_fifth_with_errors_of_its_own_is_left_within_5_s_at_2000_requests_a_second() {
    check_errors(2_000, "OOM", &["SET", "DEL"], 0.8);
}

#[test]
fn a_request_that_is_refused_for_a_moment_is_sent_again_after_a_short_pause() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = CommandRelay::start(primary.address());
    let standin = StandinConfig::pair(relay.address(), backup.address()).start();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "load:k", "1"]), Reply::ok());
    for word in ["LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN"] {
        relay.set(&[Rule::error(&["GET"], word).keys(APPLICATION).once()]);
        let start = Instant::now();
        assert_eq!(client.command(&["GET", "load:k"]), Reply::bulk("1"), "{word}");
        // `retry.backoff_min` is 5 ms; nothing else goes on that would wake anybody.
        assert!(start.elapsed() < ms(100), "{word}: sent again after {:?}", start.elapsed());
    }
    assert_eq!(relay.fired(), 4);
    assert_eq!(standin.active(), "primary");
    standin.finish();
}

#[test]
fn a_flood_of_the_applications_own_errors_never_makes_it_switch() {
    let stage = Stage::start(200);
    // A key of another type, asked for as a string, by every request that the load makes besides.
    stage.primary.command(&["LPUSH", "list", "x"]);
    let mut client = stage.standin.connect();
    let requests = [&["GET", "list"][..], &["INCR", "list"], &["LPUSH", "list"], &["NOSUCHCOMMAND"]];
    for _ in 0..100 {
        (0..100).for_each(|turn| client.send(requests[turn % 4]));
        for turn in 0..100 {
            let reply = client.read();
            assert!(reply.is_error(), "{:?}: {reply:?}", requests[turn % 4]);
        }
    }
    stage.stays_for(secs(1), "WRONGTYPE flood").assert_no_errors();
}
