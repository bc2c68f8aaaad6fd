//! The engine in virtual time: one seed makes a world of backends that die, freeze, restart and refuse entry, seen through
//! links, probes and delays. Invariants are checked after every event; then the faults stop and the world must heal.
//!
//! A failing seed prints itself; `STANDIN_SIM_SEED=N cargo test --test policy_simulation` runs that one alone, with its
//! log.

#[path = "policy_simulation/anything.rs"]
mod anything;
#[path = "policy_simulation/invariants.rs"]
mod invariants;
#[path = "policy_simulation/world.rs"]
mod world;

use std::time::Duration;

use standin::policy::{Settings, Time};
use world::{Fault, World};

const SEEDS: u64 = 2_000;
const MS: Duration = Duration::from_millis(1);

/// Runs `story` over many seeds on two threads, or over the one that the environment names.
fn for_seeds(name: &str, story: impl Fn(u64) -> Outcome + Sync) -> Vec<Outcome> {
    if let Some(seed) = std::env::var("STANDIN_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![story(seed)];
    }
    let run = |first: u64| {
        (first..SEEDS)
            .step_by(2)
            .map(|seed| {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(seed))).unwrap_or_else(|_| {
                    panic!("{name}: STANDIN_SIM_SEED={seed} cargo test --test policy_simulation {name}")
                })
            })
            .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        let mut outcomes = run(0);
        outcomes.extend(other.join().expect("the other half failed"));
        outcomes
    })
}

/// What a story came to, to show that it was not about nothing.
struct Outcome {
    switches: usize,
    promises_kept: usize,
}

fn outcome(world: &World) -> Outcome {
    Outcome { switches: world.switches_begun, promises_kept: world.promises_kept }
}

fn profile(seed: u64) -> Settings {
    let mut settings = if seed.is_multiple_of(2) { Settings::default() } else { Settings::fast() };
    // Short enough that healing is seen within two virtual minutes.
    settings.recovery.delay_max = Duration::from_secs(40);
    settings.failover.cooldown_max = Duration::from_secs(40);
    settings.failover.max_per_hour = 1_000;
    if seed % 8 < 2 {
        settings.failover.hold = Duration::from_millis(300);
    }
    settings
}

#[test]
fn any_mixture_of_faults_keeps_the_invariants_and_heals() {
    let outcomes = for_seeds("any_mixture_of_faults_keeps_the_invariants_and_heals", |seed| {
        let mut world = World::new(seed, profile(seed));
        world.run_for(Duration::from_secs(4));
        for _ in 0..20 {
            let fault = world.any_fault();
            world.fault(fault);
            let pause = world.random.between(20 * MS, 2_500 * MS);
            world.run_for(pause);
        }
        world.mend_all();
        world.run_for(Duration::from_secs(90));
        invariants::healed(&world);
        outcome(&world)
    });
    if outcomes.len() > 1 {
        let kept: usize = outcomes.iter().map(|outcome| outcome.promises_kept).sum();
        let switches: usize = outcomes.iter().map(|outcome| outcome.switches).sum();
        assert!(kept > 1_000 && switches > 1_000, "{kept} promises, {switches} switches: these worlds are too calm");
    }
}

#[test]
fn pauses_below_the_bound_never_cause_a_switch() {
    for_seeds("pauses_below_the_bound_never_cause_a_switch", |seed| {
        let settings = profile(seed);
        let longest = if seed.is_multiple_of(2) { 500 * MS } else { 150 * MS };
        let mut world = World::new(seed, settings);
        world.run_for(Duration::from_secs(3));
        for _ in 0..30 {
            let paused = world.any_backend();
            let pause = world.random.between(longest / 4, longest);
            world.fault(Fault::Freeze(paused));
            world.run_for(pause);
            world.fault(Fault::Thaw(paused));
            let rest = world.random.between(50 * MS, 1_500 * MS);
            world.run_for(rest);
        }
        assert_eq!(world.switches_begun, 0, "a pause of at most {longest:?} caused a switch");
        outcome(&world)
    });
}

#[test]
fn time_in_which_we_did_not_run_never_causes_a_switch() {
    for_seeds("time_in_which_we_did_not_run_never_causes_a_switch", |seed| {
        let settings = profile(seed);
        let pause = settings.timeout.floor / 2;
        let mut world = World::new(seed, settings);
        world.run_for(Duration::from_secs(3));
        for _ in 0..20 {
            let paused = world.any_backend();
            world.fault(Fault::Freeze(paused));
            world.run_for(pause);
            let late = world.random.between(100 * MS, Duration::from_secs(5));
            world.stall_ourselves(late);
            world.run_for(5 * MS);
            world.fault(Fault::Thaw(paused));
            let rest = world.random.between(700 * MS, 1_500 * MS);
            world.run_for(rest);
        }
        assert_eq!(world.switches_begun, 0);
        outcome(&world)
    });
}

#[test]
fn a_primary_that_dies_and_returns_for_20_seconds_is_left_once() {
    for_seeds("a_primary_that_dies_and_returns_for_20_seconds_is_left_once", |seed| {
        let mut world = World::new(seed, profile(seed));
        world.run_for(Duration::from_secs(3));
        let end = world.now + Duration::from_secs(20);
        while world.now < end {
            world.fault(Fault::Kill(0));
            let down = world.random.between(100 * MS, 700 * MS);
            world.run_for(down);
            world.fault(Fault::Restart(0));
            let up = world.random.between(500 * MS, 800 * MS);
            world.run_for(up);
        }
        assert_eq!(world.switches_begun, 1);
        world.mend_all();
        world.run_for(Duration::from_secs(20));
        invariants::healed(&world);
        outcome(&world)
    });
}

#[test]
fn whatever_it_is_told_it_keeps_its_word() {
    let outcomes = for_seeds("whatever_it_is_told_it_keeps_its_word", |seed| Outcome {
        switches: anything::keeps_its_word(seed),
        promises_kept: 0,
    });
    let switches: usize = outcomes.iter().map(|outcome| outcome.switches).sum();
    assert!(switches > 0, "nothing was ever decided");
}

#[test]
fn one_seed_is_one_story() {
    let run = || {
        let mut world = World::new(7, Settings::default());
        for _ in 0..20 {
            let fault = world.any_fault();
            world.fault(fault);
            world.run_for(700 * MS);
        }
        assert_eq!(world.now, Time::from_secs(14));
        world.log.clone()
    };
    assert_eq!(run(), run());
}
