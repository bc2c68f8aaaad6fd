//! What a scenario file needs of `config`.

#[path = "../../src/config/units.rs"]
pub mod units;
