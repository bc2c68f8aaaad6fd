//! Networks that lose packets or delay them: what both servers suffer alike, and what passes, is no reason to switch; a
//! path that has become unusable is.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    Fault, FaultClock, FaultRelay, Load, PRIMARY_LOST, RedisServer, RunningLoad, StandinConfig, StandinProcess,
    eventually, ms, secs, throughout,
};

const GRAY_MAX: Duration = secs(5);
/// How long a load goes on before a fault.
const GOOD_TIMES: Duration = secs(3);

struct Stage {
    _servers: [RedisServer; 2],
    /// Before the primary and before the backup.
    relays: [FaultRelay; 2],
    standin: StandinProcess,
    epoch: u64,
    load: RunningLoad,
}

impl Stage {
    fn start(rate: u64) -> Self {
        let servers = [RedisServer::start(), RedisServer::start()];
        let relays = [0, 1].map(|which: usize| FaultRelay::start(servers[which].address()));
        let mut standin = StandinConfig::pair(relays[0].address(), relays[1].address()).start();
        standin.declare(PRIMARY_LOST);
        standin.declare(&["backup-a"]);
        eventually(secs(5), "the backup is well", || standin.backend("backup-a")["health"] == "healthy");
        let epoch = standin.epoch();
        let load = Load::new(standin.address()).clients(rate.min(16) as usize).requests_per_second(rate).start();
        load.run_for(GOOD_TIMES);
        Self { _servers: servers, relays, standin, epoch, load }
    }

    fn stays_for(self, during: Duration, what: &str) {
        throughout(during, what, || self.standin.active() == "primary");
        let report = self.load.stop();
        println!("{what}: {report}");
        self.relays[0].assert_fired();
        report.assert_no_errors();
        report.assert_no_stale_reads();
        self.standin.assert_no_switch_since(self.epoch);
        self.standin.finish();
    }
}

/// 30 % of the packets are late, by 2 ms at the median and by up to 300 ms at the tail.
const JITTER: Fault = Fault::Jitter { share: 0.3, least: ms(1), most: ms(300) };

#[test]
fn jitter_and_a_little_loss_never_cause_a_switch() {
    std::thread::scope(|scope| {
        for (fault, both, rate, what) in [
            (JITTER, true, 200, "heavy-tailed jitter on both paths"),
            (JITTER, true, 10, "heavy-tailed jitter on both paths"),
            (Fault::Loss { share: 0.01 }, true, 200, "1 % loss on both paths"),
            (Fault::Loss { share: 0.01 }, false, 10, "1 % loss before the primary"),
        ] {
            scope.spawn(move || {
                let stage = Stage::start(rate);
                stage.relays[0].set(fault.clone());
                if both {
                    stage.relays[1].set(fault);
                }
                stage.stays_for(secs(6), &format!("{what}, {rate} requests/s"));
            });
        }
    });
}

#[test]
fn a_path_that_loses_half_of_its_packets_is_left_within_5_s() {
    std::thread::scope(|scope| {
        for rate in [10, 200] {
            scope.spawn(move || {
                let stage = Stage::start(rate);
                let clock = FaultClock::start();
                stage.relays[0].set(Fault::Loss { share: 0.5 });
                let what = format!("half of the packets lost, {rate} requests/s");
                clock.failover_within(&stage.standin, GRAY_MAX, &what);
                stage.load.wait_for_successes(20);
                let report = stage.load.stop();
                println!("{what}: {report}");
                // A request whose every packet is lost for `timeout.request` gets its deadline's error.
                report.assert_errors_are_only(&["UNKNOWNOUTCOME", "TIMEOUT"]);
                assert!(report.errors.len() as u64 * 50 <= report.operations, "{report}");
                report.assert_no_stale_reads();
                stage.standin.assert_one_failover_since(stage.epoch, &["performance", "timeout", "health_check"]);
                stage.standin.finish();
            });
        }
    });
}
