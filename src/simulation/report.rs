//! What a world came to, and what many of them came to together.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::invariants::Ruling;
use super::measure::Clients;
use super::rivals::Rival;
use super::scenario::Span;
use super::timeline::Timeline;
use super::world::World;

/// Requests per second under which a blackout says more about chance than about us.
const BLACKOUT_RATE_MIN: f64 = 10.0;
/// Failing seeds that a summary names.
const FAILING_KEPT_MAX: usize = 20;

/// One world.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub seed: u64,
    /// Requests per second.
    pub rate: f64,
    pub virtual_seconds: f64,
    /// Equal for two runs of a seed, or the world is not deterministic.
    pub fingerprint: String,
    pub switches: u32,
    /// Share of the requests that succeeded.
    pub success: f64,
    pub clients: Clients,
    pub rivals: Vec<Rival>,
    pub rulings: Vec<Ruling>,
    /// What the scenario expected beside and did not get.
    pub unexpected: Vec<String>,
    pub timeline: Timeline,
}

/// Many worlds of one scenario.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub runs: u64,
    pub virtual_seconds: f64,
    pub rulings: Vec<RulingSummary>,
    pub rates: Vec<RateSummary>,
    /// Seed and rate of the first that failed, with what was broken.
    pub failing: Vec<Failing>,
    pub failed: u64,
}

#[derive(Debug, Serialize)]
pub struct RulingSummary {
    pub invariant: &'static str,
    pub judged: u64,
    pub broken: u64,
    /// From fault to action, in milliseconds.
    pub median_ms: Option<f64>,
    pub max_ms: Option<f64>,
    #[serde(skip)]
    measured_us: Vec<u64>,
}

/// All worlds at one rate.
#[derive(Debug, Serialize)]
pub struct RateSummary {
    pub rate: f64,
    pub runs: u64,
    pub switches: u64,
    pub asked: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub blackout_max: Span,
    /// Name, successes, failures, switches and longest blackout of each other strategy.
    pub rivals: Vec<(&'static str, u64, u64, u64, Span)>,
}

#[derive(Debug, Serialize)]
pub struct Failing {
    pub seed: u64,
    pub rate: f64,
    pub what: Vec<String>,
}

impl Outcome {
    pub(super) fn of(mut world: World, seed: u64, rate: f64) -> Self {
        let rivals = std::mem::take(&mut world.rivals).close(world.now);
        let clients = world.traffic.clients.clone();
        let switches = world.control.switches;
        let expect = &world.scenario.expect;
        let mut unexpected = Vec::new();
        if let Some([least, most]) = expect.switches
            && !(least..=most).contains(&switches)
        {
            unexpected.push(format!("{switches} switches, expected {least} to {most}"));
        }
        if let Some(blackout_max) = expect.blackout_max
            && rate >= BLACKOUT_RATE_MIN
            && clients.blackout > blackout_max
        {
            unexpected.push(format!(
                "a blackout of {} at {}, expected at most {blackout_max}",
                clients.blackout, clients.blackout_at
            ));
        }
        Self {
            seed,
            rate,
            virtual_seconds: world.now.as_micros() as f64 / 1e6,
            fingerprint: format!("{:016x}", world.timeline.fingerprint),
            switches,
            success: clients.success(),
            rulings: world.court().rulings(),
            clients,
            rivals,
            unexpected,
            timeline: world.timeline,
        }
    }

    /// Everything that is not as it should be; empty when all is well.
    pub fn broken(&self) -> Vec<String> {
        let rulings = self.rulings.iter().filter_map(|ruling| {
            let (at, why) = ruling.broken.as_ref()?;
            Some(format!("{} at {at}: {why}", ruling.invariant))
        });
        rulings.chain(self.unexpected.iter().map(|what| format!("expected otherwise: {what}"))).collect()
    }

    /// The timeline, for people.
    pub fn timeline_text(&self) -> String {
        let mut text = String::new();
        for (at, entry) in self.timeline.entries.iter().filter(|(_, entry)| !entry.repeats_a_switch()) {
            let _ = writeln!(text, "{:>12}  {entry}", at.to_string());
        }
        if self.timeline.dropped > 0 {
            let _ = writeln!(text, "{:>12}  and {} more", "", self.timeline.dropped);
        }
        text
    }
}

impl Summary {
    /// Takes one more world. The order in which they come does not matter to what is summed.
    pub fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.virtual_seconds += outcome.virtual_seconds;
        for ruling in &outcome.rulings {
            let place = self.rulings.iter().position(|other| other.invariant == ruling.invariant);
            let place = place.unwrap_or_else(|| {
                self.rulings.push(RulingSummary::new(ruling.invariant));
                self.rulings.len() - 1
            });
            let sum = &mut self.rulings[place];
            sum.judged += ruling.judged;
            sum.broken += u64::from(ruling.broken.is_some());
            sum.measured_us.extend(&ruling.measured_us);
        }
        self.add_rate(outcome);
        let what = outcome.broken();
        if !what.is_empty() {
            self.failed += 1;
            if self.failing.len() < FAILING_KEPT_MAX {
                self.failing.push(Failing { seed: outcome.seed, rate: outcome.rate, what });
            }
        }
    }

    /// Puts quantiles in place and what is listed in order, once all were added.
    pub fn finish(&mut self) {
        for ruling in &mut self.rulings {
            ruling.measured_us.sort_unstable();
            let all = &ruling.measured_us;
            ruling.median_ms = all.get(all.len() / 2).map(|us| *us as f64 / 1e3);
            ruling.max_ms = all.last().map(|us| *us as f64 / 1e3);
        }
        self.rates.sort_by(|one, other| one.rate.total_cmp(&other.rate));
        self.failing.sort_by_key(|failing| failing.seed);
    }

    /// How many times an invariant had something to judge.
    pub fn judged(&self, invariant: &str) -> u64 {
        self.rulings.iter().find(|ruling| ruling.invariant == invariant).map_or(0, |ruling| ruling.judged)
    }

    fn add_rate(&mut self, outcome: &Outcome) {
        let place = self.rates.iter().position(|other| other.rate == outcome.rate);
        let place = place.unwrap_or_else(|| {
            self.rates.push(RateSummary::new(outcome.rate));
            self.rates.len() - 1
        });
        let sum = &mut self.rates[place];
        let clients = &outcome.clients;
        sum.runs += 1;
        sum.switches += u64::from(outcome.switches);
        sum.asked += clients.asked;
        sum.succeeded += clients.succeeded;
        sum.failed += clients.failed();
        sum.blackout_max = sum.blackout_max.max(clients.blackout);
        for (place, rival) in outcome.rivals.iter().enumerate() {
            if sum.rivals.len() <= place {
                sum.rivals.push((rival.name, 0, 0, 0, Span::default()));
            }
            let (_, succeeded, failed, switches, blackout) = &mut sum.rivals[place];
            *succeeded += rival.succeeded;
            *failed += rival.failed;
            *switches += u64::from(rival.switches);
            *blackout = (*blackout).max(rival.blackout);
        }
    }
}

impl RulingSummary {
    fn new(invariant: &'static str) -> Self {
        Self { invariant, judged: 0, broken: 0, median_ms: None, max_ms: None, measured_us: Vec::new() }
    }
}

impl RateSummary {
    fn new(rate: f64) -> Self {
        Self {
            rate,
            runs: 0,
            switches: 0,
            asked: 0,
            succeeded: 0,
            failed: 0,
            blackout_max: Span::default(),
            rivals: Vec::new(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = Duration::from_secs_f64(self.virtual_seconds).as_secs_f64() / 3_600.0;
        writeln!(f, "{} worlds, {hours:.2} virtual hours\n", self.runs)?;
        writeln!(f, "{:<36} {:>10} {:>7}  fault to action", "invariant", "judged", "broken")?;
        for ruling in &self.rulings {
            let times = match (ruling.median_ms, ruling.max_ms) {
                (Some(median), Some(max)) => format!("median {median:.1} ms, longest {max:.1} ms"),
                _ => String::new(),
            };
            let verdict = if ruling.judged == 0 { "not asked" } else { &times };
            writeln!(f, "{:<36} {:>10} {:>7}  {verdict}", ruling.invariant, ruling.judged, ruling.broken)?;
        }
        for rate in &self.rates {
            writeln!(f, "\nat {} requests/s, {} worlds", rate.rate, rate.runs)?;
            writeln!(f, "  {:<42} {:>11} {:>9} {:>12}", "strategy", "success", "switches", "blackout")?;
            let standin = ("standin", rate.succeeded, rate.failed, rate.switches, rate.blackout_max);
            for (name, succeeded, failed, switches, blackout) in std::iter::once(&standin).chain(&rate.rivals) {
                let ended = succeeded + failed;
                let success = if ended == 0 {
                    "-".to_owned()
                } else {
                    format!("{:.4} %", *succeeded as f64 / ended as f64 * 100.0)
                };
                writeln!(f, "  {name:<42} {success:>11} {switches:>9} {:>12}", blackout.to_string())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    /// Timeline, what the clients got, and a verdict for each invariant.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} at {} requests/s, fingerprint {}\n", self.seed, self.rate, self.fingerprint)?;
        writeln!(f, "{}", self.timeline_text())?;
        let clients = &self.clients;
        writeln!(
            f,
            "{} requests: {} succeeded, {} errors, {} too late, {} of unknown outcome, {} refused; longest blackout {}",
            clients.asked,
            clients.succeeded,
            clients.failed_error,
            clients.failed_late,
            clients.failed_unknown,
            clients.failed_refused,
            clients.blackout
        )?;
        for ruling in &self.rulings {
            let verdict = match (&ruling.broken, &ruling.excepted) {
                (Some((at, why)), _) => format!("BROKEN at {at}: {why}"),
                (None, Some(why)) => format!("not asked: {why}"),
                (None, None) if ruling.judged == 0 => "not asked by this world".to_owned(),
                (None, None) => format!("held, {} times judged", ruling.judged),
            };
            writeln!(f, "  {:<36} {verdict}", ruling.invariant)?;
        }
        for what in &self.unexpected {
            writeln!(f, "  UNEXPECTED {what}")?;
        }
        Ok(())
    }
}
