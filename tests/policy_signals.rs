//! What the engine sees and does not see: failures of every kind at every load are acted on in time, and a day of jitter,
//! pauses and the application's own errors is not mistaken for one.
//!
//! The server, its clients and its probes are modelled in virtual time (`policy_signals/load.rs`); the engine is the real
//! one. Times are from the fault to the order to switch.

#[path = "policy_signals/load.rs"]
mod load;

use std::time::Duration;

use load::{Bench, Fault, Outcome, Ratio};
use standin::policy::{Settings, Trigger};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Runs until the engine has learnt what is normal, then with the fault; the order to switch and when it came.
fn switch_after(settings: &Settings, seed: u64, per_second: f64, fault: Fault) -> Option<(Duration, Trigger)> {
    let mut bench = Bench::new(settings.clone(), seed, per_second);
    let learning = if per_second >= 10.0 { 40 } else { 200 };
    assert_eq!(bench.run(Duration::from_secs(learning)), Outcome::Stayed, "at {per_second}/s before the fault");
    bench.fault(fault);
    match bench.run(Duration::from_secs(20)) {
        Outcome::Switched { after, trigger, .. } => Some((after, trigger)),
        Outcome::Stayed => None,
    }
}

fn check(loads: &[f64], fault: Fault, within: Duration, trigger: Option<Trigger>) {
    for per_second in loads {
        let mut worst = Duration::ZERO;
        for seed in 0..20 {
            let found = switch_after(&Settings::default(), seed, *per_second, fault);
            let Some((after, by)) = found else { panic!("{fault:?} at {per_second}/s was never seen, seed {seed}") };
            assert!(after <= within, "{fault:?} at {per_second}/s took {after:?}, seed {seed}");
            assert!(trigger.is_none_or(|trigger| trigger == by), "{fault:?} at {per_second}/s was called {by}");
            worst = worst.max(after);
        }
        println!("{fault:?} at {per_second}/s: {worst:?} at worst");
    }
}

#[test]
fn a_freeze_is_acted_on_within_a_second_and_a_half_at_any_load() {
    check(&[0.0, 1.0, 10.0, 200.0, 5_000.0], Fault::Freeze, 1_500 * MS, Some(Trigger::Timeout));
}

#[test]
fn a_get_that_takes_100_ms_more_is_acted_on_within_five_seconds_though_probes_are_well() {
    check(
        &[10.0, 20.0, 200.0, 5_000.0],
        Fault::SlowReads(100 * MS),
        Duration::from_secs(5),
        Some(Trigger::Performance),
    );
}

#[test]
fn a_fifth_of_errors_is_acted_on_within_five_seconds() {
    check(&[20.0, 200.0, 5_000.0], Fault::Errors(0.2), Duration::from_secs(5), Some(Trigger::HealthCheck));
    check(&[10.0], Fault::EveryFifth, Duration::from_secs(5), Some(Trigger::HealthCheck));
    // Errors that fall by chance: of 50 requests fewer than six are errors one time in twenty, and fewer than six of 50
    // are what a backend with a few percent of errors shows, too. No rule can have both.
    let after: Vec<_> =
        (0..200).map(|seed| switch_after(&Settings::default(), seed, 10.0, Fault::Errors(0.2))).collect();
    let after: Vec<_> = after.into_iter().map(|found| found.expect("seen in the end").0).collect();
    let in_time = after.iter().filter(|after| **after <= Duration::from_secs(5)).count();
    println!("a fifth by chance at 10/s: {in_time} of 200 within 5 s, {:?} at worst", after.iter().max());
    assert!(in_time >= 180 && after.iter().all(|after| *after <= Duration::from_secs(10)), "{in_time} {after:?}");
}

#[test]
fn errors_alone_are_acted_on_within_a_second_and_a_half() {
    check(&[10.0, 200.0, 5_000.0], Fault::Errors(1.0), 1_500 * MS, Some(Trigger::HealthCheck));
}

#[test]
fn the_applications_own_errors_are_none_at_any_share() {
    for share in [0.2, 1.0] {
        for per_second in [10.0, 1_000.0] {
            assert_eq!(switch_after(&Settings::default(), 1, per_second, Fault::DataErrors(share)), None);
        }
    }
}

#[test]
fn keys_and_other_slow_commands_beside_the_reads_are_no_gray_failure() {
    assert_eq!(switch_after(&Settings::default(), 1, 100.0, Fault::SlowCommands(150 * MS)), None);
}

#[test]
fn a_shift_under_five_milliseconds_or_under_half_the_baseline_is_no_reason() {
    assert_eq!(switch_after(&Settings::default(), 1, 200.0, Fault::SlowReads(4 * MS)), None);
    let mut bench = Bench::new(Settings::default(), 1, 200.0);
    bench.base_us = 40_000;
    assert_eq!(bench.run(Duration::from_secs(40)), Outcome::Stayed);
    bench.fault(Fault::SlowReads(12 * MS));
    assert_eq!(bench.run(Duration::from_secs(20)), Outcome::Stayed);
}

#[test]
fn no_plain_ratio_is_as_quick_and_as_calm_as_phi_at_every_load() {
    const TIMES: [f64; 6] = [2.0, 4.0, 8.0, 16.0, 64.0, 256.0];
    // False suspicions may be 0.03 % of the intervals, and 1.5 s is the time for acting on a silence.
    let is_good = |share: f64, after: Duration| share < 0.000_3 && after <= 1_500 * MS;
    let mut good = [true; TIMES.len()];
    println!("load: detector, share of healthy intervals suspected, silence until suspicion");
    for per_second in [0.5, 5.0, 50.0] {
        let mut bench = Bench::new(Settings::default(), 42, per_second);
        bench.jitter = 0.3;
        bench.pauses = Some(500 * MS);
        bench.ratios = TIMES.map(|times| Ratio { times, suspicions: 0 }).to_vec();
        assert_eq!(bench.run(HOUR / 4), Outcome::Stayed, "at {per_second}/s");
        let (by_phi, by_ratio) = bench.suspected_after();
        let share = |suspicions: u64| suspicions as f64 / bench.intervals as f64;
        println!("{per_second}/s: phi 8, {:.4} %, {by_phi:?}", share(bench.suspicions) * 100.0);
        assert!(is_good(share(bench.suspicions), by_phi), "phi at {per_second}/s: {by_phi:?}");
        for ((ratio, after), good) in bench.ratios.iter().zip(by_ratio).zip(&mut good) {
            println!(
                "{per_second}/s: {} times the mean, {:.4} %, {after:?}",
                ratio.times,
                share(ratio.suspicions) * 100.0
            );
            *good &= is_good(share(ratio.suspicions), after);
        }
    }
    assert_eq!(good, [false; TIMES.len()], "for {TIMES:?}");
}

#[test]
fn hours_of_jitter_pauses_and_wrong_types_cause_no_switch_and_hardly_a_suspicion() {
    // A day in the release build of `standin simulate`; here as much as an unoptimised build does in a moment.
    let hours = std::env::var("STANDIN_SIGNAL_HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(1);
    for (per_second, settings) in [(20.0, Settings::default()), (100.0, Settings::default()), (20.0, Settings::fast())]
    {
        let floor = settings.timeout.floor;
        let pause = if floor > 500 * MS { 500 * MS } else { 150 * MS };
        let mut bench = Bench::new(settings, 42, per_second);
        bench.jitter = 0.3;
        bench.pauses = Some(pause);
        bench.fault(Fault::DataErrors(0.3));
        let outcome = bench.run(hours * HOUR);
        assert_eq!(outcome, Outcome::Stayed, "at {per_second}/s");
        let share = bench.suspicions as f64 / bench.intervals as f64;
        println!("{per_second}/s, {hours} h: {} of {} intervals over phi 8", bench.suspicions, bench.intervals);
        assert!(bench.intervals > 50_000 && share < 0.000_3, "{} of {}", bench.suspicions, bench.intervals);
    }
}
