//! What the front door of one group needs to know, in the form that the path uses.

use std::time::Duration;

use crate::backend::{LinkSettings, Login};
use crate::command::Spec;
use crate::config::Secret;
use crate::resp::FrameLimits;

/// A user whom clients may log in as, and the backend login that serves it.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub password: Secret,
    /// Index into [`Settings::logins`].
    pub login: u16,
}

/// Fixed at start; shared by all workers.
#[derive(Debug, Clone)]
pub struct Settings {
    pub frame_limits: FrameLimits,
    /// Those of clients that have not logged in.
    pub login_frame_limits: FrameLimits,
    pub clients_max: usize,
    /// Unsent reply bytes at which a client is closed.
    pub output_limit_bytes: usize,
    /// Unsent reply bytes at which a client is no longer read.
    pub output_pause_bytes: usize,
    pub in_flight_max: u32,
    /// Zero: never.
    pub idle_timeout: Duration,
    /// Zero: never.
    pub frame_timeout: Duration,
    pub tcp_keepalive: Duration,
    pub users: Vec<User>,
    /// Whether clients must log in before anything else: there is a password for the user `default`.
    pub requires_login: bool,
    /// Backend logins by [`crate::backend::Lane::user`]; the first belongs to clients that are served without a user.
    pub logins: Vec<Login>,
    pub denied: Denied,
    /// What the keys begin with that Standin itself keeps on the backends.
    pub own_keys: Vec<String>,
    /// The key of the group's incident on the backends.
    pub incident_key: String,
    pub links: LinkSettings,
    pub retry_percent: f64,
    pub retry_floor_per_second: f64,
    pub pinned_max: usize,
    pub pinned_idle: Duration,
    /// The whole life of a request.
    pub request_timeout: Duration,
}

impl Settings {
    /// Whether AUTH is judged by the server: the front door has neither a password nor users of its own.
    #[must_use]
    pub fn passes_logins(&self) -> bool {
        self.users.is_empty()
    }
}

/// Commands that the front door refuses, by name or by name and subcommand.
#[derive(Debug, Clone, Default)]
pub struct Denied(Vec<String>);

impl Denied {
    /// Takes names as the command table writes them: `shutdown`, `config|set`.
    #[must_use]
    pub fn new(mut names: Vec<String>) -> Self {
        for name in &mut names {
            name.make_ascii_lowercase();
        }
        Self(names)
    }

    /// Whether nothing is denied: the usual case, one comparison.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a command, or the container it belongs to, is denied.
    #[must_use]
    pub fn has(&self, spec: &Spec) -> bool {
        let container = spec.name.split('|').next().unwrap_or(spec.name);
        self.0.iter().any(|name| name == spec.name || name == container)
    }

    /// Whether a command that the table does not know is denied by its name.
    #[must_use]
    pub fn has_name(&self, name: &[u8]) -> bool {
        self.0.iter().any(|denied| denied.as_bytes().eq_ignore_ascii_case(name))
    }
}
