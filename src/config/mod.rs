//! Configuration: a file and the environment become one [`Config`] in which every field is present and checked.
//!
//! This room reads, checks and explains; it opens no socket and starts nothing. It must not know who uses a value.
//! `config/standin.toml` lists every key with its default, and a test holds that file against the code here.

mod address;
mod collide;
mod defaults;
mod describe;
mod error;
mod load;
mod read;
pub mod schema;
pub mod secret;
mod section;
pub mod units;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use describe::describe_effective;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use load::{load, parse, process_environment};
pub use schema::*;
pub use secret::{Secret, SecretError};
