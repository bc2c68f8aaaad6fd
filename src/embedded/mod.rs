//! The in-process store, and the RESP server around it.
//!
//! Two users: `standin cache-server`, a small cache server as a process of its own (the demo runs three), and the
//! `embedded` backend, the last resort inside a running Standin when every server is down. Both speak RESP to it, the
//! latter through an in-memory stream, so that the path to it is the path to any backend.
//!
//! Bounded memory with eviction, expiry, transactions, blocking pops, publish and subscribe. What it lacks it refuses as
//! an unknown command: streams, scripts, geo, HyperLogLog, persistence, replication. It must not know of routes,
//! backends or policy.
//!
//! | file | what it holds |
//! |---|---|
//! | `store` | the state behind one lock: databases, clients, channels, waiters, memory |
//! | `database`, `value`, `sorted_set`, `indexed_map` | one keyspace, the kinds of value, their containers |
//! | `dispatch`, `commands/` | from arguments to reply; the table and its functions by family |
//! | `session`, `server` | one connection's state; the loop that reads, answers a batch, waits |
//! | `cache_server` | the process entry |

mod arguments;
mod cache_server;
mod commands;
mod database;
mod dispatch;
mod error;
mod glob;
mod indexed_map;
mod reply;
mod server;
mod session;
mod sorted_set;
mod store;
mod value;

#[cfg(test)]
mod tests;

pub use cache_server::{CacheServerOptions, run_cache_server};
pub use server::{ServerOptions, serve, serve_connection, serve_with};
pub use store::{Clock, Eviction, Store, StoreOptions};
