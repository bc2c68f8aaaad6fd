//! Every shipped scenario over many seeds, and the proof that a broken engine is noticed.
//!
//! A failing seed prints the command that shows it. `STANDIN_SIMULATE_TIMES=10` runs ten times as many seeds (`make
//! simulate`). A seed that failed once stays in `PINNED`.
#![allow(clippy::unwrap_used)]

mod anything;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use standin_simulation::policy::Settings;
use standin_simulation::simulation::{Outcome, Scenario, Summary, run, settings_of};

/// Seeds of each scenario in every run of the tests. What is long gets few, what mixes everything gets many.
macro_rules! scenarios {
    ($($name:ident: $seeds:expr),* $(,)?) => {
        const SCENARIOS: &[(&str, u64)] = &[$((stringify!($name), $seeds)),*];
        mod scenario {
            $(#[test] fn $name() { super::holds(stringify!($name), $seeds); })*
        }
    };
}

scenarios! {
    dead_primary: 1_000,
    frozen_primary: 500,
    cut_primary: 500,
    loading_primary: 250,
    readonly_primary: 250,
    full_primary: 250,
    wrong_password: 150,
    gray_slow_reads: 90,
    gray_errors: 90,
    several_die: 500,
    all_die: 500,
    cascade: 500,
    partition_two_groups: 100,
    partition_three_groups: 100,
    partition_we_are_alone: 100,
    partition_far_side: 50,
    jitter_and_pauses: 50,
    pauses_fast_profile: 200,
    packet_loss: 100,
    flapping_primary: 50,
    flapping_fast: 500,
    freeze_thaw_cycles: 150,
    all_slow_alike: 100,
    clock_jumps_and_stalls: 300,
    stall_during_pause: 200,
    slow_commands: 100,
    links_cut: 200,
    recovery_storm: 150,
    staged_recoveries: 200,
    refused_backup: 250,
    hold_for_a_restart: 600,
    any_mixture: 2_200,
    any_mixture_fast: 300,
    chaos_10_percent: 30,
    day_of_jitter: 5,
}

/// "At least 10,000 seeds in CI's budget."
const SEEDS_MIN: u64 = 10_000;

/// Worlds that once broke an invariant: scenario, seed, rate.
const PINNED: &[(&str, u64, f64)] = &[
    // READONLY was seen by three probes an interval apart.
    ("readonly_primary", 55, 0.0),
    // What a slow command kept waiting was judged as silence.
    ("slow_commands", 11, 200.0),
    // Requests that ran out of time while we did not run were held against the backend.
    ("clock_jumps_and_stalls", 1, 1.0),
    ("stall_during_pause", 2, 10.0),
    // A backend that was left for its errors was returned to at once, since its probes were well.
    ("gray_errors", 1, 200.0),
    // Who could not be entered in a planned switch, because the old active froze, was left aside when nobody served.
    ("any_mixture_fast", 73, 200.0),
    // Packets that were lost in a short cut come again after 200 ms and 600 ms, not at any time.
    ("any_mixture", 1286, 1.0),
    ("any_mixture", 2607, 10.0),
    // A planned switch to a backend that did not answer held requests, which were then held against the active.
    ("any_mixture_fast", 141, 1.0),
    ("any_mixture_fast", 932, 10.0),
    // A second attempt to leave the primary was counted as a second relapse, by the invariant itself.
    ("chaos_10_percent", 62, 50_000.0),
    // It did not forget a relapse of ten minutes ago, where the engine and the documents do.
    ("chaos_10_percent", 31, 200.0),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config/scenarios")
}

fn file_of(name: &str) -> String {
    format!("{}.toml", name.replace('_', "-"))
}

fn read(name: &str) -> Scenario {
    let text = fs::read_to_string(folder().join(file_of(name))).unwrap();
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn times() -> u64 {
    std::env::var("STANDIN_SIMULATE_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn holds(name: &str, seeds: u64) {
    let scenario = read(name);
    let summary = run_seeds(&scenario, &settings_of(&scenario), 0..seeds * times());
    let mut text = String::new();
    for failing in &summary.failing {
        text += &format!(
            "\n{}\n  standin simulate config/scenarios/{} --seed {} --rate {}",
            failing.what.join("\n"),
            file_of(name),
            failing.seed,
            failing.rate
        );
    }
    assert!(
        summary.failed == 0,
        "{} of {} worlds broke an invariant:{text}\n\n{summary}",
        summary.failed,
        summary.runs
    );
    println!("{summary}");
}

fn run_seeds(scenario: &Scenario, settings: &Settings, seeds: std::ops::Range<u64>) -> Summary {
    let mut summary = Summary::default();
    for seed in seeds {
        summary.add(&run(scenario, settings, seed, None));
    }
    summary.finish();
    summary
}

#[test]
fn every_shipped_scenario_has_its_seeds_and_they_are_enough() {
    let mut shipped: Vec<String> =
        fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let mut listed: Vec<String> = SCENARIOS.iter().map(|(name, _)| file_of(name)).collect();
    shipped.sort();
    listed.sort();
    assert_eq!(shipped, listed);
    assert!(SCENARIOS.iter().map(|(_, seeds)| seeds).sum::<u64>() >= SEEDS_MIN);
}

#[test]
fn pinned_seeds_hold() {
    for (name, seed, rate) in PINNED {
        let scenario = read(name);
        let outcome = run(&scenario, &settings_of(&scenario), *seed, Some(*rate));
        assert!(outcome.broken().is_empty(), "{name} {seed} {rate}: {:?}\n{outcome}", outcome.broken());
    }
}

#[test]
fn one_seed_is_one_story_bit_for_bit() {
    for (name, _) in SCENARIOS.iter().filter(|(name, _)| *name != "day_of_jitter") {
        let scenario = read(name);
        let settings = settings_of(&scenario);
        let story = |seed| serde_json::to_string(&run(&scenario, &settings, seed, None)).unwrap();
        assert_eq!(story(7), story(7), "{name}");
        let fingerprint = |seed| run(&scenario, &settings, seed, None).fingerprint;
        assert_ne!(fingerprint(7), fingerprint(8), "{name}: two seeds, one story");
    }
}

#[test]
fn every_invariant_is_asked_by_some_scenario() {
    let mut summary = Summary::default();
    for (name, _) in SCENARIOS.iter().filter(|(name, _)| *name != "day_of_jitter") {
        let mut scenario = read(name);
        scenario.expect.except.clear();
        (0..5).for_each(|seed| summary.add(&run(&scenario, &settings_of(&scenario), seed, None)));
    }
    for ruling in &summary.rulings {
        assert!(ruling.judged > 0, "{} was never judged", ruling.invariant);
    }
}

#[test]
fn whatever_it_is_told_the_engine_keeps_its_word() {
    let switches: usize = (0..2_000 * times()).map(anything::keeps_its_word).sum();
    assert!(switches > 0, "nothing was ever decided");
}

/// Runs a scenario with an engine that was broken on purpose; some of the seeds must break this invariant.
fn is_caught(name: &str, invariant: &str, sabotage: impl Fn(&mut Settings)) {
    let mut scenario = read(name);
    scenario.expect.except.clear();
    let mut settings = settings_of(&scenario);
    sabotage(&mut settings);
    let is_broken = |outcome: &Outcome| {
        outcome.rulings.iter().any(|ruling| ruling.invariant == invariant && ruling.broken.is_some())
    };
    let caught = (0..10).filter(|seed| is_broken(&run(&scenario, &settings, *seed, None))).count();
    assert!(caught > 0, "{name}: {invariant} held although the engine was broken");
}

#[test]
fn an_engine_that_wants_a_hundred_refusals_is_caught() {
    is_caught("dead_primary", "dead_process_acted_on_within_10ms", |settings| {
        settings.failover.failure_threshold = 100
    });
}

#[test]
fn an_engine_that_believes_any_short_silence_is_caught() {
    is_caught("jitter_and_pauses", "no_false_switch", |settings| settings.timeout.floor = Duration::from_millis(60));
}

#[test]
fn an_engine_that_is_patient_for_ten_seconds_is_caught() {
    is_caught("frozen_primary", "failure_acted_on_within_1500ms", |settings| {
        settings.timeout.floor = Duration::from_secs(10);
    });
}

#[test]
fn an_engine_without_a_breaker_is_caught() {
    is_caught("gray_errors", "gray_failure_acted_on_within_5s", |settings| settings.breaker.min_failures = u32::MAX);
}

#[test]
fn an_engine_that_never_returns_is_caught() {
    is_caught("dead_primary", "heals", |settings| settings.recovery.enabled = false);
}
