//! The same files as in `src`, mounted: see this package's Cargo.toml for the reason.

#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/policy/mod.rs"]
pub mod policy;
#[path = "../../src/simulation/mod.rs"]
pub mod simulation;

pub mod config;
