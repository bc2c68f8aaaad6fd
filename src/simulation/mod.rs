//! The real engine in virtual time: `standin simulate`. One seed makes a world of backends, networks, load and faults;
//! the engine is told what the control task would tell it, what it wants is carried out as the control task would do it, and
//! invariants judge everything that happens. Then the faults stop and the world must heal.
//!
//! This room knows the engine's events and actions and a file of a scenario. It must not know clocks, sockets, threads of
//! the process or how results are printed; chance comes from the seed alone, so a seed is a story for ever. What the engine
//! is told is put together in one file (`signals`), and how a switch is carried out in another (`control`).

mod control;
mod fault;
mod invariants;
mod latency;
mod linking;
mod measure;
mod node;
mod probing;
mod random;
mod report;
mod rivals;
mod scenario;
mod signals;
mod timeline;
mod traffic;
mod world;

pub use invariants::Ruling;
pub use random::Random;
pub use report::{Outcome, Summary};
pub use scenario::{Scenario, Span};

use crate::policy::{Plan, Settings};
use scenario::Profile;
use world::World;

/// Runs one seed of a scenario to its end.
pub fn run(scenario: &Scenario, settings: &Settings, seed: u64, rate: Option<f64>) -> Outcome {
    let rate = rate.unwrap_or_else(|| scenario.rate_of(seed));
    let mut world = World::new(scenario, settings, seed, rate);
    world.run_until(crate::policy::Time::ZERO + scenario.whole());
    world.close();
    Outcome::of(world, seed, rate)
}

/// The settings that a scenario asks for: those of its profile, and what it says beside.
pub fn settings_of(scenario: &Scenario) -> Settings {
    let mut settings = match scenario.profile {
        Profile::Default => Settings::default(),
        Profile::Fast => Settings::fast(),
    };
    settings.failover.hold = scenario.hold.0;
    if let Some(delay_max) = scenario.recovery_delay_max {
        settings.recovery.delay_max = delay_max.0;
        settings.failover.cooldown_max = delay_max.0;
    }
    if scenario.control.stages.is_some() {
        settings.recovery.plan = Plan::Gradual;
    }
    settings.failover.max_per_hour = scenario.max_per_hour.unwrap_or(settings.failover.max_per_hour);
    settings
}
