//! What a client's connection remembers between requests, and which of it ties the client to a connection of its own.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::leases::Waiting;
use super::queued_here::Completing;
use super::session::{Left, Session};
use crate::backend::{Backend, Lane, Link};
use crate::command::{Handling, Spec};
use crate::divergence::Lease;
use crate::limits;
use crate::resp::Protocol;

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyMode {
    On,
    Off,
    /// The next request is answered with silence, then replies are on again.
    SkipNext,
}

/// WATCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    None,
    /// Held by the pinned connection.
    Live,
    /// The connection that held it is gone: the next EXEC must answer nil.
    Broken,
}

/// An open MULTI.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// The queued requests, so that they can be queued again elsewhere; `None` once they are too many.
    pub(super) log: Option<Vec<Vec<u8>>>,
    pub(super) log_bytes: usize,
    pub(super) queued: i64,
    /// EXEC will be answered by us, without any server: with nil if a WATCH before it was lost.
    pub(super) is_doomed: bool,
    /// We refused one of its requests: EXEC must fail.
    pub(super) is_spoiled: bool,
    /// Queued requests that are answered here, with their positions.
    pub(super) own: Vec<(usize, Vec<u8>)>,
    /// Queued requests that change the client's connection once EXEC has executed them, with their positions.
    pub(super) effects: Vec<(usize, Vec<u8>)>,
    /// Database that a queued SELECT will lead to.
    pub(super) select: Option<u32>,
    /// How long a queued CLIENT PAUSE will hold the backend back, in microseconds.
    pub(super) pause_us: Option<u64>,
}

impl Transaction {
    pub(super) fn new(is_doomed: bool) -> Self {
        Self { log: Some(Vec::new()), is_doomed, ..Self::default() }
    }

    /// Whether one more request may be kept besides the log, which may be dropped where this may not.
    pub(super) fn has_room_for(&self, request: &[u8]) -> bool {
        let kept: usize = self.own.iter().chain(&self.effects).map(|(_, kept)| kept.len()).sum();
        kept + request.len() <= limits::TRANSACTION_BYTES_MAX
    }

    pub(super) fn remember(&mut self, request: &[u8]) {
        self.queued += 1;
        self.log_bytes += request.len();
        if self.log_bytes > limits::TRANSACTION_BYTES_MAX {
            self.log = None;
        }
        if let Some(log) = &mut self.log {
            log.push(request.to_vec());
        }
    }
}

/// Names that a client listens to, by kind.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) channels: HashSet<Vec<u8>>,
    pub(super) patterns: HashSet<Vec<u8>>,
    pub(super) shard_channels: HashSet<Vec<u8>>,
    /// Of all names.
    bytes: usize,
}

impl Subscriptions {
    fn of(&mut self, handling: Handling) -> &mut HashSet<Vec<u8>> {
        match handling {
            Handling::Subscribe | Handling::Unsubscribe => &mut self.channels,
            Handling::PatternSubscribe | Handling::PatternUnsubscribe => &mut self.patterns,
            _ => &mut self.shard_channels,
        }
    }

    /// Whether the names of one more request may be remembered.
    pub(super) fn has_room_for(&self, request: &[u8]) -> bool {
        self.bytes + request.len() <= limits::SUBSCRIPTION_BYTES_MAX
    }

    /// Returns the names that were not there yet.
    pub(super) fn add(&mut self, handling: Handling, names: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let added: Vec<_> = names.into_iter().filter(|name| self.of(handling).insert(name.clone())).collect();
        self.bytes += added.iter().map(Vec::len).sum::<usize>();
        added
    }

    /// Without names: all of the kind.
    pub(super) fn remove(&mut self, handling: Handling, names: &[Vec<u8>]) {
        let set = self.of(handling);
        let removed: usize = if names.is_empty() {
            set.drain().map(|name| name.len()).sum()
        } else {
            names.iter().filter(|name| set.remove(*name)).map(Vec::len).sum()
        };
        self.bytes -= removed;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty()
    }
}

/// What the reply to a flagged request will change.
pub(super) enum Expected {
    /// Only that it is not shown.
    Nothing,
    Select(u32),
    Exec,
    Blocking,
    /// Whether the server lets the client's user do this.
    Permission(Handling),
    /// With the names that are new, which go again if the server refuses them.
    Subscription {
        handling: Handling,
        added: Vec<Vec<u8>>,
    },
    TrackingInfo,
    /// Of SCAN and its kind: the route's epoch when it was sent, and whether its cursor was given before.
    Scan {
        epoch: u64,
        continues: bool,
    },
    /// CLIENT PAUSE or UNPAUSE: until when the backend will be silent, in microseconds since the origin.
    Pause {
        backend: Arc<Backend>,
        until_us: u64,
    },
    Script {
        spec: &'static Spec,
        request: Vec<u8>,
    },
}

/// See the head of this file.
pub(super) struct State {
    database: u32,
    pub(super) protocol: Protocol,
    pub(super) login: u16,
    pub(super) is_authenticated: bool,
    pub(super) reply: ReplyMode,
    pub(super) pinned: Option<Rc<Link<Session>>>,
    /// The pinned connection is in the state that its lane promises.
    pub(super) is_pristine: bool,
    pub(super) transaction: Option<Transaction>,
    pub(super) watch: Watch,
    pub(super) subscriptions: Subscriptions,
    pub(super) monitoring: bool,
    /// The request that turned tracking on.
    pub(super) tracking: Option<Vec<u8>>,
    /// Clients that redirect their invalidation messages here.
    pub(super) trackers: HashSet<u64>,
    /// The server's id of the connection on which it hears of them, as others are shown it; 0 without one.
    pub(super) redirect_id: u64,
    /// What the next request needs from others was waited for, and had its time.
    pub(super) has_waited: bool,
    /// Requests that put the pinned connection into a state for the rest of the session (SCRIPT DEBUG, CLIENT NO-TOUCH).
    pub(super) kept: Vec<Vec<u8>>,
    /// What a replica said about itself before SYNC or PSYNC.
    pub(super) introduction: Vec<Vec<u8>>,
    pub(super) is_blocked: bool,
    /// The request that waits on purpose, where it may begin again elsewhere if it has taken nothing.
    /// With the moment at which it began to wait, in microseconds since the origin.
    pub(super) blocked_request: Option<(Vec<u8>, u64)>,
    /// The server was told to let that request go, for a planned switch: a nil then means that it begins again.
    pub(super) is_parting: bool,
    /// Where it counts as blocked.
    pub(super) blocked_at: Option<Arc<Backend>>,
    /// The server's word on whether the client's user may have the next command, which is answered here.
    pub(super) permission: Option<(Handling, Result<(), String>)>,
    /// Replies that must come before the next request may be dealt with.
    pub(super) awaited: u32,
    /// An answer to EXEC that is not whole yet.
    pub(super) completing: Option<Completing>,
    /// Replies of our own that become part of it, instead of leaving for the client.
    pub(super) captured: Option<Vec<u8>>,
    pub(super) expected: VecDeque<(u32, bool, Expected)>,
    /// Requests that need a new connection of the session's own.
    pub(super) orphans: Left,
    pub(super) orphaned_since_us: u64,
    /// The connection that they were on.
    pub(super) lost_link: Option<Rc<Link<Session>>>,
    pub(super) pin_attempts: u32,
    /// When the last connection of its own was lost.
    pub(super) pin_lost_us: u64,
    pub(super) pin_timer: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Requests that were answered by us and not sent: tells a refusal from a sending.
    pub(super) answered_here: u32,
    /// While two backends serve: what the next request waits for, and what WATCH holds.
    pub(super) home: Waiting,
    pub(super) watched: Vec<Lease>,
    /// The next request must wait.
    pub(super) waits: bool,
    pub(super) last_command: &'static str,
}

impl State {
    pub(super) fn new(is_authenticated: bool) -> Self {
        Self {
            database: 0,
            protocol: Protocol::Resp2,
            login: 0,
            is_authenticated,
            reply: ReplyMode::On,
            pinned: None,
            is_pristine: true,
            transaction: None,
            watch: Watch::None,
            subscriptions: Subscriptions::default(),
            monitoring: false,
            tracking: None,
            trackers: HashSet::new(),
            redirect_id: 0,
            has_waited: false,
            kept: Vec::new(),
            introduction: Vec::new(),
            is_blocked: false,
            blocked_request: None,
            is_parting: false,
            blocked_at: None,
            permission: None,
            awaited: 0,
            completing: None,
            captured: None,
            expected: VecDeque::new(),
            orphans: Vec::new(),
            orphaned_since_us: 0,
            lost_link: None,
            pin_attempts: 0,
            pin_lost_us: 0,
            pin_timer: None,
            answered_here: 0,
            home: Waiting::default(),
            watched: Vec::new(),
            waits: false,
            last_command: "",
        }
    }

    pub(super) fn database(&self) -> u32 {
        self.database
    }

    pub(super) fn select(&mut self, database: u32) {
        self.database = database;
    }

    /// The kind of link that its requests need.
    pub(super) fn lane(&self) -> Lane {
        Lane { database: self.database, protocol: self.protocol, user: self.login }
    }

    /// Whether plain requests need nothing but forwarding.
    pub(super) fn forwards_freely(&self) -> bool {
        self.is_authenticated
            && self.pinned.is_none()
            && self.transaction.is_none()
            && self.reply == ReplyMode::On
            && self.awaited == 0
            && !self.is_recovering()
    }

    /// Whether its own connection was lost and is being replaced.
    pub(super) fn is_recovering(&self) -> bool {
        self.orphaned_since_us != 0
    }

    /// Counts the session as waiting on purpose at a backend, or no longer so.
    pub(super) fn count_blocked(&mut self, worker: usize, at: Option<Arc<Backend>>) {
        if let Some(before) = self.blocked_at.take() {
            before.counters[worker].blocked.sub(1);
        }
        if let Some(now) = &at {
            now.counters[worker].blocked.add(1);
        }
        self.blocked_at = at;
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Whether something ties the client to a connection of its own.
    pub(super) fn needs_pin(&self) -> bool {
        self.watch == Watch::Live
            || self.transaction.as_ref().is_some_and(|transaction| !transaction.is_doomed)
            || !self.subscriptions.is_empty()
            || self.monitoring
            || self.tracking.is_some()
            || !self.trackers.is_empty()
            || !self.kept.is_empty()
            || self.is_blocked
    }
}
