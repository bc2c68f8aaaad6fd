//! Backends: their connections, what is known of them, and how requests are retained until they are answered.
//!
//! Two kinds of threads meet in [`Backend`]: workers drive links and count, the control plane probes, sets allowances
//! and admits identities. This room does not know routes, sessions or decisions: it tells its [`Host`] what happened.

mod budget;
pub mod clock;
mod conversation;
mod counters;
mod doubt;
mod driver;
mod fault;
mod gather;
mod handshake;
mod io;
mod line;
mod link;
#[cfg(test)]
mod link_tests;
mod listens;
mod loss;
mod replies;
mod shared;
mod target;
pub mod tls;

pub use budget::RetryBudget;
pub use conversation::{Conversation, Reply};
pub use counters::{CLASSES, Counter, Counters, Latencies};
pub use driver::run;
pub use fault::{cause, edge, may_repeat};
pub use handshake::{Depth, HandshakeError, Lane, Ready, connect, read_info};
pub use io::Io;
pub use link::{Batch, Entry, Host, Link, LinkSettings, Owner, State, flag};
pub use listens::Listens;
pub use loss::sealed_text;
pub use shared::{Backend, Identity, Scout, Timing};
pub use target::{Address, Login, Target, TlsSource, spare_congestion_control};
