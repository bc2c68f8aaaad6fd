//! The rows, by subject.
//!
//! Taken from COMMAND of Redis 7.0 and Valkey 9.1, with what newer Redis has added; class, category and handling are
//! ours. A test asks a real server and compares. Where servers differ, the laxer arity stands.

mod collections;
mod columns;
mod server;
mod session;
mod values;

use super::Spec;

pub(super) static GROUPS: &[&[Spec]] = &[
    values::GENERIC,
    values::STRING,
    values::BITMAP,
    values::HYPERLOGLOG,
    collections::LIST,
    collections::SET,
    collections::SORTED_SET,
    collections::HASH,
    collections::GEO,
    collections::STREAM,
    collections::VECTOR_SET,
    session::CONNECTION,
    session::PUBLISH,
    session::TRANSACTIONS,
    session::SCRIPTING,
    server::SERVER,
    server::CLUSTER,
];

/// Every command of the table, without its subcommands.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    GROUPS.iter().flat_map(|group| group.iter())
}
