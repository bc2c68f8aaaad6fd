//! The front door: clients, their sessions, and the order of their replies.
//!
//! A session decides what a request needs; where it goes is the route's affair, and how it gets there a link's. This
//! room never imports the control plane: it reports through counters and one bounded channel of edges.

mod ahead;
mod clients;
mod context;
mod crossing;
mod crowd;
mod cursors;
mod descriptors;
mod leases;
mod listener;
mod login;
mod modes;
mod output;
mod pinned;
mod queued_here;
mod reads;
mod rebuild;
mod registry;
mod sending;
mod session;
mod settings;
mod special;
mod stateful;
mod task;
mod tls;
mod traces;
mod tracking;
mod transaction;
mod tunnel;
mod worker;

pub use descriptors::{clients_within, raise_descriptor_limit};
pub use listener::{Listener, listen};
pub use registry::Registry;
pub use settings::{Denied, Settings, User};
pub use tls::acceptor;
pub use worker::{Accepted, GroupSetup, TlsAcceptSource, WorkerCommand, WorkerSetup, run_worker};
