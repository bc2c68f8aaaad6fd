//! The scenario file: a world, what goes wrong in it and what is expected of it. Every key is known or refused, with its
//! line; `docs/simulation.md` explains them.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::fault::FaultPlan;
use super::latency::{Latency, Tail};
use super::random::Random;
use crate::config::units::parse_duration;
use crate::policy::{BackendRole, DataMode};

/// A whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One sentence for people: what goes wrong, and what is expected.
    pub about: String,
    /// Until the faults stop.
    pub duration: Span,
    /// Before the first fault may begin: `at` of a fault counts from its end. Long enough for baselines.
    #[serde(default = "default_warm_up")]
    pub warm_up: Span,
    /// After all faults were mended: by its end the primary must serve.
    #[serde(default = "default_heal")]
    pub heal: Span,
    /// The settings to run with, as `failover.profile`.
    #[serde(default)]
    pub profile: Profile,
    /// `failover.hold`.
    #[serde(default)]
    pub hold: Span,
    /// `recovery.delay_max` and `failover.cooldown_max`, where the defaults would make a heal too long to wait for.
    pub recovery_delay_max: Option<Span>,
    /// `failover.max_per_hour`, for worlds with more faults than an hour should have.
    pub max_per_hour: Option<u32>,
    /// The primary and two cold backups unless it says otherwise. The first is the primary.
    #[serde(default, rename = "backend")]
    pub backends: Vec<BackendPlan>,
    #[serde(default)]
    pub load: LoadPlan,
    #[serde(default, rename = "fault")]
    pub faults: Vec<FaultPlan>,
    pub chaos: Option<ChaosPlan>,
    #[serde(default)]
    pub control: ControlPlan,
    #[serde(default)]
    pub expect: Expectation,
}

/// `failover.profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    #[default]
    Default,
    Fast,
}

/// One backend and the way to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPlan {
    pub name: String,
    #[serde(default = "default_weight")]
    pub weight: u32,
    pub zone: Option<String>,
    #[serde(default = "default_data")]
    pub data: DataMode,
    #[serde(default)]
    pub last_resort: bool,
    /// What a point read takes on the server; a write takes a little more, a multi-key command thrice as long.
    #[serde(default)]
    pub service: Curve,
    /// There and back.
    #[serde(default = "default_network")]
    pub network: Curve,
    /// Pauses in which it answers nothing: garbage collection, a fork, a noisy neighbour.
    pub pauses: Option<PausePlan>,
}

/// Median and 99th percentile of a lognormal curve, and a heavy tail where one is wanted.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Curve {
    pub median: Span,
    pub p99: Span,
    pub tail: Option<TailPlan>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailPlan {
    pub share: f64,
    pub from: Span,
    #[serde(default = "default_shape")]
    pub shape: f64,
    pub max: Span,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PausePlan {
    /// Mean time between two.
    pub every: Span,
    pub length: Between,
}

/// What the clients do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadPlan {
    /// Requests per second. Of several, a seed takes the one at its place in the list (`seed % length`).
    pub rates: Vec<f64>,
    /// Shares of the classes; what is left of 1 are point reads.
    pub writes: f64,
    pub multi_key: f64,
    /// Of the writes: those that may not be sent twice (INCR, LPUSH), lost with the connection they were sent on.
    pub accumulating: f64,
    /// Requests answered with an error that is the application's own (WRONGTYPE).
    pub data_errors: f64,
}

/// Faults at random: each backend is in trouble for this share of the time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChaosPlan {
    pub share: f64,
    pub length: Between,
    /// Each drawn with equal chance; a kind may stand here several times.
    pub kinds: Vec<FaultPlan>,
    /// One backend at a time.
    #[serde(default)]
    pub alone: bool,
}

/// How the control task carries out switches.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlPlan {
    /// Looking at a backend, reconciling it and publishing the route.
    pub entry: Between,
    /// Entries that fail for no reason that anybody sees.
    pub entry_failures: f64,
    /// Recoveries are staged (`recovery.plan = "gradual"`), and it takes so long until the switch of one.
    pub stages: Option<Between>,
    /// Staged recoveries that a breach ends before their switch, while faults go on.
    pub breaches: f64,
}

/// What is expected beside the invariants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expectation {
    /// Least and most switches away from a backend, recoveries included.
    pub switches: Option<[u32; 2]>,
    /// Longest time in which clients got nothing while they wanted something. Not judged under 10 requests/s.
    pub blackout_max: Option<Span>,
    /// Least share of requests answered in time, 0 to 1.
    pub success_min: Option<f64>,
    /// Invariants that are not asked for here, with the reason.
    pub except: Vec<Exception>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    pub invariant: String,
    pub because: String,
}

/// A span of time, written as `"250ms"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A span, or two between which the seed chooses: `"5s"`, `["1s", "5s"]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    pub low: Duration,
    pub high: Duration,
}

impl Scenario {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scenario: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if scenario.backends.is_empty() {
            scenario.backends = ["primary", "backup-a", "backup-b"].map(BackendPlan::named).to_vec();
        }
        scenario.check()?;
        Ok(scenario)
    }

    /// The rate that a seed runs at.
    pub fn rate_of(&self, seed: u64) -> f64 {
        self.load.rates[(seed % self.load.rates.len() as u64) as usize]
    }

    /// Warm-up, faults and healing together.
    pub fn whole(&self) -> Duration {
        self.warm_up.0 + self.duration.0 + self.heal.0
    }

    fn check(&self) -> Result<(), String> {
        let share = |name: &str, value: f64| match value {
            0.0..=1.0 => Ok(()),
            _ => Err(format!("{name} = {value} is no share: it lies between 0 and 1")),
        };
        let load = &self.load;
        if load.rates.is_empty() || load.rates.iter().any(|rate| !(0.0..=1e7).contains(rate)) {
            return Err("load.rates: requests per second, at least one, each from 0 to 10 million".to_owned());
        }
        share("load.writes + load.multi_key", load.writes + load.multi_key)?;
        share("load.accumulating", load.accumulating)?;
        share("load.data_errors", load.data_errors)?;
        share("control.entry_failures", self.control.entry_failures)?;
        if self.backends.len() > crate::limits::BACKENDS_PER_GROUP_MAX {
            return Err(format!("at most {} backends", crate::limits::BACKENDS_PER_GROUP_MAX));
        }
        for backend in &self.backends {
            let twice = self.backends.iter().filter(|other| other.name == backend.name).count() > 1;
            let reserved = ["active", "backups", "all", "any", "standin"].contains(&backend.name.as_str());
            if twice || reserved {
                return Err(format!("backend name `{}` is taken", backend.name));
            }
        }
        let names: Vec<&str> = self.backends.iter().map(|backend| backend.name.as_str()).collect();
        for fault in self.faults.iter().chain(self.chaos.iter().flat_map(|chaos| &chaos.kinds)) {
            fault.check(&names)?;
        }
        if let Some(chaos) = &self.chaos {
            share("chaos.share", chaos.share)?;
            if chaos.kinds.is_empty() || chaos.length.low.is_zero() {
                return Err("[chaos] needs kinds and a length above 0".to_owned());
            }
        }
        let known: Vec<&str> = super::invariants::all().iter().map(|invariant| invariant.name()).collect();
        match self.expect.except.iter().find(|exception| !known.contains(&exception.invariant.as_str())) {
            Some(unknown) => {
                Err(format!("there is no invariant `{}`; there are {}", unknown.invariant, known.join(", ")))
            }
            None => Ok(()),
        }
    }
}

impl BackendPlan {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            weight: default_weight(),
            zone: None,
            data: default_data(),
            last_resort: false,
            service: Curve::default(),
            network: default_network(),
            pauses: None,
        }
    }

    pub(super) fn role(place: usize) -> BackendRole {
        if place == 0 { BackendRole::Primary } else { BackendRole::Backup }
    }
}

impl Curve {
    pub(super) fn latency(&self) -> Latency {
        let tail =
            self.tail.map(|tail| Tail { share: tail.share, from: tail.from.0, shape: tail.shape, max: tail.max.0 });
        Latency::new(self.median.0, self.p99.0, tail)
    }
}

impl Between {
    pub(super) fn draw(self, random: &mut Random) -> Duration {
        random.between(self.low, self.high)
    }
}

impl Default for Curve {
    fn default() -> Self {
        Self { median: Span(Duration::from_micros(150)), p99: Span(Duration::from_micros(900)), tail: None }
    }
}

impl Default for LoadPlan {
    fn default() -> Self {
        // The mean of the command mixes of the public Twitter cache traces (Yang et al., OSDI 2020) is read-heavy.
        Self { rates: vec![200.0], writes: 0.25, multi_key: 0.03, accumulating: 0.05, data_errors: 0.0 }
    }
}

impl Default for ControlPlan {
    fn default() -> Self {
        let entry = Between { low: Duration::from_micros(300), high: Duration::from_millis(20) };
        Self { entry, entry_failures: 0.0, stages: None, breaches: 0.0 }
    }
}

fn default_warm_up() -> Span {
    Span(Duration::from_secs(20))
}

fn default_heal() -> Span {
    Span(Duration::from_secs(60))
}

fn default_weight() -> u32 {
    100
}

fn default_data() -> DataMode {
    DataMode::Cold
}

fn default_shape() -> f64 {
    1.5
}

fn default_network() -> Curve {
    Curve { median: Span(Duration::from_micros(120)), p99: Span(Duration::from_micros(500)), tail: None }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"250ms\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                parse_duration(text).map(Span).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Between {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrTwo;
        impl<'de> Visitor<'de> for OneOrTwo {
            type Value = Between;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"250ms\", or two between which the seed chooses")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Between, E> {
                let span = parse_duration(text).map_err(E::custom)?;
                Ok(Between { low: span, high: span })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut ends: A) -> Result<Between, A::Error> {
                let missing = || de::Error::custom("two durations: the shortest and the longest");
                let low: Span = ends.next_element()?.ok_or_else(missing)?;
                let high: Span = ends.next_element()?.ok_or_else(missing)?;
                if ends.next_element::<Span>()?.is_some() || low > high {
                    return Err(missing());
                }
                Ok(Between { low: low.0, high: high.0 })
            }
        }
        deserializer.deserialize_any(OneOrTwo)
    }
}

impl Serialize for Span {
    /// Milliseconds, as every span of a report.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64() * 1_000.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        match us {
            0..10_000 => write!(f, "{}.{:03} ms", us / 1_000, us % 1_000),
            10_000..1_000_000 => write!(f, "{} ms", us / 1_000),
            _ => write!(f, "{}.{:02} s", us / 1_000_000, us / 10_000 % 100),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = Scenario::parse("about = \"x\"\nduration = \"1s\"\n[load]\nrate = [1]\n").unwrap_err();
        assert!(error.contains("line 4") && error.contains("rate"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        let base = "about = \"x\"\nduration = \"1s\"\n";
        for (text, says) in [
            ("[load]\nrates = []\n", "load.rates"),
            ("[load]\nwrites = 1.5\n", "no share"),
            ("[[fault]]\nkind = \"dead\"\non = \"nobody\"\nat = \"1s\"\n", "nobody"),
            ("[[fault]]\nkind = \"dead\"\non = \"primary\"\nat = \"1s\"\nshare = 0.5\n", "share"),
            ("[[fault]]\nkind = \"dead\"\non = \"primary\"\nat = 5\n", "duration"),
            ("[[expect.except]]\ninvariant = \"luck\"\nbecause = \"x\"\n", "no invariant `luck`"),
        ] {
            let error = Scenario::parse(&format!("{base}{text}")).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_seed_has_one_rate() {
        let text = "about = \"x\"\nduration = \"1s\"\n[load]\nrates = [0, 1, 50000]\n";
        let scenario = Scenario::parse(text).expect("it is in order");
        assert_eq!([0, 1, 2, 3].map(|seed| scenario.rate_of(seed)), [0.0, 1.0, 50_000.0, 0.0]);
        assert_eq!(scenario.backends.len(), 3);
    }
}
