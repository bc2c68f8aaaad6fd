//! `standin simulate`: the real engine in a modelled world, many seeds at a time.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{Failure, output};
use crate::policy::Settings;
use crate::simulation::{self, Outcome, Scenario, Summary};

/// Width of the progress bar, and how often it is drawn.
const BAR_WIDTH: usize = 40;
const BAR_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// The scenario; config/scenarios has many, docs/simulation.md says how to write one.
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// The first seed: one seed is one story, bit for bit.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, from that one on. A seed runs at the rate at its place in `load.rates`.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Run every seed at this rate instead.
    #[arg(long, value_name = "REQUESTS_PER_SECOND")]
    rate: Option<f64>,
    /// Take the settings of the failover engine from this configuration file instead of the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The whole result as JSON, for scripts.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    scenario: String,
    about: &'a str,
    summary: &'a Summary,
    /// Of one seed everything; of many, those that failed.
    outcomes: &'a [Outcome],
}

pub(super) fn run(arguments: &SimulateArgs) -> Result<(), Failure> {
    let shown = arguments.scenario.display().to_string();
    let text = fs::read_to_string(&arguments.scenario)
        .map_err(|error| Failure::bad_config(format!("{shown} cannot be read: {error}")))?;
    let scenario = Scenario::parse(&text).map_err(|error| Failure::bad_config(format!("{shown}: {error}")))?;
    let settings = settings(arguments, &scenario)?;
    let (summary, outcomes) = run_all(arguments, &scenario, &settings);
    if arguments.json {
        let result = Report { scenario: shown.clone(), about: &scenario.about, summary: &summary, outcomes: &outcomes };
        let text = serde_json::to_string_pretty(&result).map_err(|error| Failure::failed(error.to_string()))?;
        output::print(&format!("{text}\n"));
    } else {
        output::print(&format!("{shown}: {}\n\n", scenario.about));
        if let Some(outcome) = outcomes.first() {
            output::print(&format!("{outcome}\n"));
        }
        output::print(&summary.to_string());
    }
    if summary.failed == 0 {
        return Ok(());
    }
    let mut text = format!("{} of {} worlds broke an invariant:", summary.failed, summary.runs);
    for failing in &summary.failing {
        let config = arguments.config.as_ref().map_or(String::new(), |file| format!(" --config {}", file.display()));
        let _ = std::fmt::Write::write_fmt(
            &mut text,
            format_args!(
                "\n  {}\n    standin simulate {shown} --seed {} --rate {}{config}",
                failing.what.join("\n  "),
                failing.seed,
                failing.rate
            ),
        );
    }
    Err(Failure::failed(text))
}

fn settings(arguments: &SimulateArgs, scenario: &Scenario) -> Result<Settings, Failure> {
    let Some(file) = &arguments.config else { return Ok(simulation::settings_of(scenario)) };
    let config = super::run::load(file)?;
    match config.groups.as_slice() {
        [group] => Ok(crate::control::engine_settings(group)),
        _ => Err(Failure::bad_config("a simulation has one group; this configuration has several")),
    }
}

/// Runs every seed on as many threads as there are cores. Each world is alone, so their order changes nothing.
fn run_all(arguments: &SimulateArgs, scenario: &Scenario, settings: &Settings) -> (Summary, Vec<Outcome>) {
    let next = AtomicU64::new(0);
    let sum = Mutex::new((Summary::default(), Vec::new()));
    let bar = Bar::new(arguments.runs, arguments.json);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(arguments.runs.max(1) as usize);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.runs {
                        return;
                    }
                    let outcome = simulation::run(scenario, settings, arguments.seed + number, arguments.rate);
                    let Ok(mut sum) = sum.lock() else { return };
                    sum.0.add(&outcome);
                    bar.show(sum.0.runs);
                    let wanted = arguments.runs == 1 || !outcome.broken().is_empty();
                    if wanted && sum.1.len() < 10 {
                        sum.1.push(outcome);
                    }
                }
            });
        }
    });
    bar.clear();
    let (mut summary, mut outcomes) = sum.into_inner().unwrap_or_default();
    summary.finish();
    outcomes.sort_by_key(|outcome| outcome.seed);
    (summary, outcomes)
}

/// Shown on a terminal, for what takes longer than a moment.
struct Bar {
    total: u64,
    began: Instant,
    drawn: Mutex<Option<Instant>>,
    wanted: bool,
}

impl Bar {
    fn new(total: u64, json: bool) -> Self {
        let wanted = total > 1 && !json && io::stderr().is_terminal();
        Self { total, began: Instant::now(), drawn: Mutex::new(None), wanted }
    }

    fn show(&self, done: u64) {
        let Ok(mut drawn) = self.drawn.lock() else { return };
        if !self.wanted || drawn.map_or(self.began, |at| at).elapsed() < BAR_EVERY {
            return;
        }
        *drawn = Some(Instant::now());
        let filled = (done as usize * BAR_WIDTH) / (self.total.max(1) as usize);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR_WIDTH - filled.min(BAR_WIDTH)));
        let left = self.began.elapsed().as_secs_f64() / done.max(1) as f64 * (self.total - done) as f64;
        let _ = write!(io::stderr().lock(), "\r[{bar}] {done}/{} worlds, {left:.0} s left ", self.total);
    }

    fn clear(&self) {
        if self.wanted {
            let _ = write!(io::stderr().lock(), "\r{:width$}\r", "", width = BAR_WIDTH + 50);
        }
    }
}
