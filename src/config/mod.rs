//! Configuration: a file and the environment become one [`Config`] in which every field is present and checked.
//!
//! This room reads, checks and explains; it opens no socket and starts nothing. It must not know who uses a value.
//! `config/standin.toml` lists every key with its default, and a test holds that file against the code here.

pub mod schema;
pub mod secret;

pub use schema::*;
pub use secret::{Secret, SecretError};
