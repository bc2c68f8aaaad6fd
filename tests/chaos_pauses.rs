//! SIGSTOP and SIGCONT in turn: pauses below the bound never cause a switch, longer ones cause one and no flapping.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{Load, PRIMARY_LOST, RedisServer, RunningLoad, StandinConfig, StandinProcess, eventually, ms};

/// Pauses in milliseconds, none over the 500 that the default configuration rides out, and the time between them.
const SHORT: &[(u64, u64)] = &[
    (50, 200),
    (500, 300),
    (120, 50),
    (300, 400),
    (480, 250),
    (80, 30),
    (400, 100),
    (500, 600),
    (250, 20),
    (500, 150),
];
/// Pauses that each are a failure.
const LONG: &[(u64, u64)] = &[(1_200, 900), (800, 300), (1_300, 1_000)];

/// Runs one story for each load (0: probes only) at the same time: most of it is waiting.
fn at_loads(rates: &[u64], story: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for rate in rates {
            scope.spawn(|| story(*rate));
        }
    });
}

fn under_way(
    rate: u64,
    config: impl FnOnce(StandinConfig) -> StandinConfig,
) -> (Vec<RedisServer>, StandinProcess, Option<RunningLoad>) {
    let servers = vec![RedisServer::start(), RedisServer::start()];
    let mut standin = config(StandinConfig::pair(servers[0].address(), servers[1].address())).start();
    standin.declare(PRIMARY_LOST);
    eventually(ms(5_000), "the backup is well", || standin.backend("backup-a")["health"] == "healthy");
    let load = (rate > 0).then(|| {
        let load = Load::new(standin.address()).clients(rate.min(16) as usize).requests_per_second(rate).start();
        load.wait_for_successes(rate);
        load
    });
    (servers, standin, load)
}

fn pause(server: &RedisServer, cycles: &[(u64, u64)]) {
    for (paused, between) in cycles {
        server.freeze();
        std::thread::sleep(ms(*paused));
        server.thaw();
        std::thread::sleep(ms(*between));
    }
}

/// No error, no old value; the longest time without an answer.
fn check_load(load: Option<RunningLoad>, what: &str) -> Duration {
    let Some(load) = load else { return Duration::ZERO };
    let report = load.stop();
    println!("{what}: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.longest_wait
}

#[test]
fn pauses_of_all_lengths_up_to_500_ms_never_cause_a_switch() {
    at_loads(&[0, 10, 200], |rate| {
        let (servers, standin, load) = under_way(rate, |config| config);
        let epoch = standin.epoch();
        pause(&servers[0], SHORT);
        check_load(load, &format!("short pauses, {rate} requests/s"));
        standin.assert_no_switch_since(epoch);
        standin.finish();
    });
}

#[test]
fn pauses_over_the_bound_cause_one_switch_and_no_flapping() {
    at_loads(&[10, 200], |rate| {
        let (servers, standin, load) = under_way(rate, |config| config);
        let epoch = standin.epoch();
        pause(&servers[0], LONG);
        let what = format!("long pauses, {rate} requests/s");
        assert!(check_load(load, &what) < ms(1_000), "{what}");
        standin.assert_one_failover_since(epoch, &["timeout", "health_check"]);
        assert!(standin.events_of("recovery").is_empty(), "{:#?}", standin.events());
        standin.finish();
    });
}

#[test]
fn a_flapping_primary_is_returned_to_ever_less_often() {
    // A delay so short that every thaw would be enough for a return if it did not grow.
    let eager = "[recovery]\nthreshold = 1\ndelay = \"300ms\"\ndelay_max = \"60s\"";
    let (servers, standin, load) = under_way(200, |config| config.table(eager));
    // 0.3 s, then 0.6 s, then 1.2 s of good health are asked for; it has never more than 1.1 s.
    pause(&servers[0], &[(1_300, 1_100); 5]);
    check_load(load, "five pauses of 1.3 s");
    let failovers = standin.events_of("failover").len();
    println!("{failovers} failovers, {} recoveries", standin.events_of("recovery").len());
    assert!((1..=3).contains(&failovers), "{:#?}", standin.events());
    standin.finish();
}
