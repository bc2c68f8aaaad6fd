//! The parts under test, compiled from the product's own sources. Depending on the product's crate would build all of its
//! dependencies under the sanitizer, ten minutes for two modules that need none of them.

#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/resp/mod.rs"]
pub mod resp;
