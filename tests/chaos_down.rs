//! A primary that is down is left in time at any load, also at none: probes are all there is then.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    FaultClock, Load, PRIMARY_LOST, RedisServer, RunningLoad, StandinConfig, StandinProcess, eventually, ms, secs,
};

/// Requests a second; 0 is probes only.
const RATES: [u64; 4] = [0, 1, 10, 200];
/// Its connections end and further ones are refused.
const DEAD_MAX: Duration = ms(10);
/// Nothing is heard of it any more.
const SILENT_MAX: Duration = ms(1_500);

/// More rounds than one, for the table in docs/failover.md.
fn rounds() -> u32 {
    std::env::var("STANDIN_CHAOS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// Both servers are known to be well, and the load, if any, goes on.
fn under_way(rate: u64) -> (RedisServer, RedisServer, StandinProcess, Option<RunningLoad>) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    for name in ["primary", "backup-a"] {
        eventually(secs(5), "both are well", || standin.backend(name)["health"] == "healthy");
    }
    let load = (rate > 0).then(|| {
        let load = Load::new(standin.address()).clients(rate.min(16) as usize).requests_per_second(rate).start();
        load.wait_for_successes(rate.div_ceil(2));
        load
    });
    (primary, backup, standin, load)
}

/// Sees to it that the fault cost the load no error, and that the primary was left once.
fn check_costs(standin: StandinProcess, load: Option<RunningLoad>) {
    if let Some(load) = load {
        load.wait_for_successes(1);
        let report = load.stop();
        report.assert_no_errors();
        report.assert_no_stale_reads();
    }
    assert_eq!(standin.events_of("failover").len(), 1, "{:#?}", standin.events());
    assert_eq!(standin.active(), "backup-a");
    standin.finish();
}

#[test]
fn a_dead_primary_is_left_within_10_ms_at_any_load() {
    for rate in RATES {
        for _ in 0..rounds() {
            let (mut primary, _backup, standin, load) = under_way(rate);
            let clock = FaultClock::start();
            primary.kill();
            clock.failover_within(&standin, DEAD_MAX, &format!("process killed, {rate} requests/s"));
            check_costs(standin, load);
        }
    }
}

#[test]
fn a_silent_primary_is_left_within_1500_ms_at_any_load() {
    for _ in 0..rounds() {
        // All at once: their loads are small, and most of the time is waiting.
        std::thread::scope(|scope| {
            for rate in RATES {
                scope.spawn(move || check_silence(rate, 1, &format!("process frozen, {rate} requests/s")));
            }
            // The worst moment of quiet times: a probe was just answered.
            scope.spawn(|| check_silence(0, 4, "process frozen right after a probe, 0 requests/s"));
        });
    }
}

fn check_silence(rate: u64, probes: u64, what: &str) {
    let (primary, _backup, standin, load) = under_way(rate);
    let answered = || standin.backend("primary")["probes"]["ok_in_a_row"].as_u64().unwrap();
    eventually(secs(10), "so many probes were answered", || answered() >= probes);
    let clock = FaultClock::start();
    primary.freeze();
    clock.failover_within(&standin, SILENT_MAX, what);
    check_costs(standin, load);
}
