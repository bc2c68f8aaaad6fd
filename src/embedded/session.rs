//! What the server knows of one client between its commands.

use std::collections::HashSet;

use tokio::sync::oneshot;

use crate::resp::Protocol;

/// Arguments of a command that is kept beyond its frame: queued by MULTI, or waiting.
pub(super) type OwnedCommand = Vec<Vec<u8>>;

#[derive(Default)]
pub(super) struct Transaction {
    pub(super) commands: Vec<OwnedCommand>,
    pub(super) bytes: usize,
    /// A command was refused while queueing: EXEC answers EXECABORT.
    pub(super) refused: bool,
}

pub(super) struct Watched {
    pub(super) database: usize,
    pub(super) key: Box<[u8]>,
    pub(super) version: u64,
}

/// The command waits for an element; its reply comes through `reply`.
pub(super) struct Waiting {
    pub(super) reply: oneshot::Receiver<Vec<u8>>,
    /// Milliseconds until the client gets a null; `None` waits for ever.
    pub(super) timeout_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyMode {
    On,
    Off,
    /// The next command gets no reply.
    SkipNext,
}

pub(super) struct Session {
    pub(super) id: u64,
    pub(super) database: usize,
    pub(super) protocol: Protocol,
    pub(super) name: Vec<u8>,
    pub(super) library: [Vec<u8>; 2],
    pub(super) authenticated: bool,
    pub(super) transaction: Option<Transaction>,
    /// Inside EXEC nothing waits.
    pub(super) executing: bool,
    pub(super) watched: Vec<Watched>,
    pub(super) channels: HashSet<Vec<u8>>,
    pub(super) patterns: HashSet<Vec<u8>>,
    pub(super) reply_mode: ReplyMode,
    pub(super) closing: bool,
    pub(super) waiting: Option<Waiting>,
    pub(super) last_command: &'static str,
    pub(super) password: Option<String>,
    pub(super) read_only: bool,
}

impl Session {
    pub(super) fn new(id: u64, password: Option<String>, read_only: bool) -> Self {
        Self {
            id,
            database: 0,
            protocol: Protocol::Resp2,
            name: Vec::new(),
            library: [Vec::new(), Vec::new()],
            authenticated: password.is_none(),
            transaction: None,
            executing: false,
            watched: Vec::new(),
            channels: HashSet::new(),
            patterns: HashSet::new(),
            reply_mode: ReplyMode::On,
            closing: false,
            waiting: None,
            last_command: "NULL",
            password,
            read_only,
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }
}
