//! Recovery objectives: how long an outage lasted and what it cost, and what one that began now would.
//!
//! RTO, the recovery time, runs from the last success on the backend that failed to the first one afterwards; both are seen
//! on the data path. RPO, the recovery point, is the age of the oldest acknowledged write that may be lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::replication::Lack;
use super::time::Time;

/// `[objectives]`: what is promised to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objectives {
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
}

/// The moments of one outage, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// The last success before it.
    pub fault: Time,
    /// The verdict.
    pub detected: Time,
    /// The switch that ended it began; earlier ones that failed are part of the decision.
    pub decided: Time,
    /// Its route was published.
    pub switched: Time,
    /// The first success after that.
    pub served: Time,
}

/// How long each part of an outage took. They add up to the recovery time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryTime {
    pub detection: Duration,
    pub decision: Duration,
    pub switch: Duration,
    pub first_success: Duration,
}

/// What an outage has cost of what was acknowledged before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// No more writes than these, and none older than this.
    AtMost { writes: u64, age: Duration },
    /// The backend that serves knows nothing of what was written before.
    Everything,
    /// It has something, and nobody can tell how much.
    Unknown,
}

/// What the length of an outage that began now would depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Requests are served, so that silence is noticed by them; else probes notice it.
    pub busy: bool,
    /// `timeout.floor`, `health_check.interval` and `health_check.timeout`.
    pub silence: Duration,
    pub probe_interval: Duration,
    pub probe_timeout: Duration,
    /// One turn of the control task.
    pub tick: Duration,
    /// What a switch takes, by those before it.
    pub switch: Duration,
    /// Keys that the next backend has missed and that are removed on the way.
    pub record_keys: u64,
    /// A round trip to the next backend: the first success.
    pub round_trip: Duration,
}

/// Removing 10,000 keys takes 10 ms at most.
const REMOVAL_EACH: Duration = Duration::from_micros(1);

impl Moments {
    pub fn recovery_time(self) -> RecoveryTime {
        RecoveryTime {
            detection: self.detected - self.fault,
            decision: self.decided - self.detected,
            switch: self.switched - self.decided,
            first_success: self.served - self.switched,
        }
    }
}

impl RecoveryTime {
    pub fn total(self) -> Duration {
        self.detection + self.decision + self.switch + self.first_success
    }
}

impl Loss {
    pub const NOTHING: Self = Self::AtMost { writes: 0, age: Duration::ZERO };

    /// The recovery point; `None` where nothing bounds it.
    pub fn age(self) -> Option<Duration> {
        match self {
            Self::AtMost { age, .. } => Some(age),
            Self::Everything | Self::Unknown => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::AtMost { .. } => "at_most",
            Self::Everything => "everything",
            Self::Unknown => "unknown",
        }
    }
}

impl From<Option<Lack>> for Loss {
    fn from(lack: Option<Lack>) -> Self {
        lack.map_or(Self::Unknown, |lack| Self::AtMost { writes: lack.writes, age: lack.age })
    }
}

impl Conditions {
    /// How long an outage of the active that began now would last at most: it falls silent, which is noticed last of all that
    /// is a death.
    pub fn recovery_time(self) -> Duration {
        let by_requests = self.silence;
        // Probes come with a tenth of jitter.
        let by_probes = self.probe_interval * 21 / 20 + self.probe_timeout.max(self.silence);
        let detection = if self.busy { by_requests } else { by_probes };
        let removal = REMOVAL_EACH * u32::try_from(self.record_keys).unwrap_or(u32::MAX);
        detection + self.tick + self.switch + removal + self.round_trip
    }
}

impl Objectives {
    pub fn is_set(self) -> bool {
        self.rto.is_some() || self.rpo.is_some()
    }

    /// What an outage has missed of the targets, one sentence each. What nothing bounds misses every target.
    pub fn breaches(self, rto: Duration, loss: Loss) -> Vec<String> {
        let mut breaches = Vec::new();
        if let Some(target) = self.rto.filter(|target| rto > *target) {
            breaches.push(format!("service was back after {rto:?}, and objectives.rto is {target:?}"));
        }
        if let Some(target) = self.rpo {
            match loss.age() {
                Some(age) if age > target => breaches.push(format!(
                    "acknowledged writes of the last {age:?} may be lost, and objectives.rpo is {target:?}"
                )),
                Some(_) => {}
                None => breaches.push(format!("nothing bounds what was lost, and objectives.rpo is {target:?}")),
            }
        }
        breaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn the_parts_of_an_outage_add_up_to_the_time_between_two_successes() {
        let moments =
            Moments { fault: at(100), detected: at(760), decided: at(761), switched: at(765), served: at(770) };
        let parts = moments.recovery_time();
        assert_eq!(
            (parts.detection, parts.decision, parts.switch, parts.first_success),
            (660 * MS, MS, 4 * MS, 5 * MS)
        );
        assert_eq!(parts.total(), moments.served - moments.fault);
    }

    fn conditions() -> Conditions {
        Conditions {
            busy: true,
            silence: 650 * MS,
            probe_interval: 500 * MS,
            probe_timeout: 650 * MS,
            tick: 50 * MS,
            switch: 5 * MS,
            record_keys: 0,
            round_trip: MS,
        }
    }

    #[test]
    fn an_outage_of_an_idle_backend_is_noticed_by_probes_and_lasts_longer() {
        assert_eq!(conditions().recovery_time(), 706 * MS);
        let idle = Conditions { busy: false, ..conditions() };
        assert_eq!(idle.recovery_time(), 706 * MS + 525 * MS);
    }

    #[test]
    fn what_must_be_removed_first_takes_its_time() {
        let behind = Conditions { record_keys: 10_000, ..conditions() };
        assert_eq!(behind.recovery_time() - conditions().recovery_time(), 10 * MS);
    }

    #[test]
    fn a_target_is_missed_by_more_than_it_and_by_what_nothing_bounds() {
        let targets = Objectives { rto: Some(500 * MS), rpo: Some(100 * MS) };
        let lost = |ms: u32| Loss::AtMost { writes: 3, age: ms * MS };
        assert!(targets.breaches(500 * MS, lost(100)).is_empty());
        assert_eq!(targets.breaches(501 * MS, lost(100)).len(), 1);
        assert_eq!(targets.breaches(501 * MS, lost(101)).len(), 2);
        for loss in [Loss::Everything, Loss::Unknown] {
            assert!(targets.breaches(MS, loss)[0].contains("nothing bounds"), "{loss:?}");
        }
        assert!(Objectives::default().breaches(Duration::MAX, Loss::Everything).is_empty(), "without targets");
    }

    #[test]
    fn a_replica_of_which_nothing_is_known_has_lost_an_unknown_amount() {
        let lack = Lack { bytes: 9, writes: 2, age: 40 * MS, since: at(60) };
        assert_eq!(Loss::from(Some(lack)), Loss::AtMost { writes: 2, age: 40 * MS });
        assert_eq!((Loss::from(None), Loss::from(None).age()), (Loss::Unknown, None));
        assert_eq!(Loss::NOTHING.age(), Some(Duration::ZERO));
    }
}
