//! The harness of the integration tests: real `redis-server` processes, the real binary, a fault relay between them and
//! a load that checks every reply.
//!
//! It knows nothing of Standin's code: it speaks RESP and HTTP to processes, as an application and an operator do. With
//! `STANDIN_UNDER_TEST=direct` in the environment no Standin is started and clients are given the first backend's own
//! address, so that whatever a plain server can satisfy (most of `front_door`) can be checked against a plain server.
#![allow(dead_code, reason = "every test binary uses a part of the harness")]
#![allow(unused_imports, reason = "every test binary uses a part of the harness")]

mod command_relay;
mod dice;
mod fault_clock;
mod fault_relay;
mod http;
mod load;
mod load_check;
mod load_report;
mod lost;
mod port;
mod redis_server;
mod register;
mod resp;
mod stall_meter;
mod standin_config;
mod standin_process;
mod tls;

use std::time::{Duration, Instant};

pub(crate) use command_relay::{CommandRelay, Rule};
pub(crate) use dice::{Dice, from_environment};
pub(crate) use fault_clock::FaultClock;
pub(crate) use fault_relay::{Fault, FaultRelay};
pub(crate) use http::{HttpResponse, http_request};
pub(crate) use load::{Load, RunningLoad};
pub(crate) use load_check::{KeyRecord, Verdict};
pub(crate) use load_report::LoadReport;
pub(crate) use lost::{Bound, Lost, unexplained, wall_us};
pub(crate) use port::ReservedPort;
pub(crate) use redis_server::{RedisServer, signal};
pub(crate) use register::{RegisterLoad, RegisterReport, RunningRegister};
pub(crate) use resp::{Client, Reply, encode};
pub(crate) use standin_config::StandinConfig;
pub(crate) use standin_process::{LogBook, StandinProcess, under_test_is_direct};
pub(crate) use tls::{Authority, TlsRelay};

/// What log lines may say when the primary is lost and comes back: they name the backend or the switch.
pub(crate) const PRIMARY_LOST: &[&str] = &["primary", "failover", "failed over", "recover", "switch"];

/// Milliseconds, for readable tests.
pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Seconds, for readable tests.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Waits until `condition` holds and says how long that took; panics with `what` after `within`.
///
/// Looks every 2 ms, which is the resolution of the answer.
#[track_caller]
pub(crate) fn eventually(within: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        if condition() {
            return start.elapsed();
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(ms(2));
    }
}

/// Watches for the whole of `during` that `condition` holds; panics with `what` the moment it does not.
#[track_caller]
pub(crate) fn throughout(during: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < during {
        assert!(condition(), "after {:?} no longer true: {what}", start.elapsed());
        std::thread::sleep(ms(10));
    }
}
