//! From the arguments of one request to its reply: lookup, checks, queueing, the command itself, the waiters it served.

use std::collections::HashMap;
use std::sync::OnceLock;

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::commands::TABLE;
use super::database::Database;
use super::error::{self, Error};
use super::reply::Reply;
use super::session::{ReplyMode, Session, Transaction, Waiting};
use super::store::{Eviction, State, Waiter};
use crate::limits;

/// A command changes data.
pub(super) const WRITE: u16 = 1;
/// A command reads data.
pub(super) const READ: u16 = 1 << 1;
/// A command may add bytes: refused when memory is full.
pub(super) const GROWS: u16 = 1 << 2;
/// A lock or a counter: refused where each process has a copy of its own.
pub(super) const LOCK: u16 = 1 << 3;
/// May be called before AUTH.
pub(super) const NO_AUTH: u16 = 1 << 4;
/// Runs at once inside MULTI instead of being queued.
pub(super) const NOT_QUEUED: u16 = 1 << 5;
/// Allowed to a RESP2 client that has subscribed.
pub(super) const SUBSCRIBED: u16 = 1 << 6;
pub(super) const BLOCKING: u16 = 1 << 7;
pub(super) const ADMIN: u16 = 1 << 8;
pub(super) const PUBSUB: u16 = 1 << 9;
pub(super) const FAST: u16 = 1 << 10;

pub(super) type Handler = fn(&mut Context<'_>, &[&[u8]]) -> Result<(), Error>;

/// One row of the command table.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Arguments with the name; negative for "at least".
    pub(super) arity: i16,
    pub(super) flags: u16,
    /// Position of the first key, of the last one (negative from the end) and the step between; 0 for none.
    pub(super) keys: (i8, i8, i8),
    pub(super) run: Handler,
}

impl Row {
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn takes(&self, arguments: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 { arguments == arity } else { arguments >= arity }
    }
}

/// What a command sees.
pub(super) struct Context<'a> {
    pub(super) state: &'a mut State,
    pub(super) session: &'a mut Session,
    pub(super) reply: Reply<'a>,
}

impl<'a> Context<'a> {
    pub(super) fn database(&mut self) -> &mut Database {
        &mut self.state.databases[self.session.database]
    }

    /// The session's database and the reply, to read from one while writing to the other.
    pub(super) fn split(&mut self) -> (&mut Database, &mut Reply<'a>) {
        (&mut self.state.databases[self.session.database], &mut self.reply)
    }

    /// Lets the client wait until one of `keys` has elements of `type_name`; the command is then run again.
    ///
    /// Inside EXEC nothing waits: the caller answers with `null` right away.
    pub(super) fn wait_for(
        &mut self,
        keys: &[&[u8]],
        type_name: &'static str,
        timeout_ms: Option<u64>,
        arguments: &[&[u8]],
    ) {
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter {
            client: self.session.id,
            database: self.session.database,
            protocol: self.session.protocol,
            keys: keys.iter().map(|&key| key.into()).collect(),
            type_name,
            command: arguments.iter().map(|argument| argument.to_vec()).collect(),
            reply: sender,
        };
        self.session.waiting = Some(Waiting { reply: receiver, timeout_ms });
        if self.session.id != RETRYING {
            self.state.waiters.push(waiter);
            self.state.note_waiters();
        }
    }
}

/// The client id of the scratch session in which a waiter's command is run again.
const RETRYING: u64 = 0;

/// The row of a command, whatever its case.
pub(super) fn find(name: &[u8]) -> Option<&'static Row> {
    static INDEX: OnceLock<HashMap<&'static [u8], &'static Row, RandomState>> = OnceLock::new();
    let index =
        INDEX.get_or_init(|| TABLE.iter().flat_map(|rows| rows.iter()).map(|row| (row.name.as_bytes(), row)).collect());
    let mut lower = [0u8; 32];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    index.get(&*lower).copied()
}

/// Runs one request and appends its reply to `out`.
pub(super) fn run(state: &mut State, session: &mut Session, arguments: &[&[u8]], out: &mut Vec<u8>) {
    let start = out.len();
    state.commands += 1;
    let silent = session.reply_mode;
    if let Err(refused) = admit(state, session, arguments, out) {
        out.truncate(start);
        if let Some(transaction) = &mut session.transaction {
            transaction.refused = true;
        }
        Reply { out, protocol: session.protocol }.error(&refused.0);
    }
    match silent {
        ReplyMode::On if session.reply_mode == ReplyMode::On => {}
        // The CLIENT REPLY command itself has written, or not, what belongs there.
        ReplyMode::SkipNext => {
            out.truncate(start);
            session.reply_mode = ReplyMode::On;
        }
        ReplyMode::Off if session.reply_mode == ReplyMode::Off => out.truncate(start),
        _ => {}
    }
}

/// The checks before a command. An error here makes a transaction fail; an error of the command itself does not.
fn admit(state: &mut State, session: &mut Session, arguments: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Error> {
    let row = find(arguments[0]).ok_or_else(|| error::unknown_command(arguments))?;
    if !row.takes(arguments.len()) {
        return Err(error::wrong_arguments(row.name));
    }
    session.last_command = row.name;
    if !session.authenticated && !row.has(NO_AUTH) {
        return Err(Error::text("NOAUTH Authentication required."));
    }
    if row.has(LOCK) && !state.options.allow_locks_and_counters {
        return Err(not_in_embedded(row.name));
    }
    if row.has(WRITE) && session.read_only {
        return Err(Error::text("READONLY You can't write against a read only replica."));
    }
    let resp2 = session.protocol == crate::resp::Protocol::Resp2;
    if resp2 && session.is_subscribed() && !row.has(SUBSCRIBED) {
        return Err(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
             context",
            row.name
        )
        .into());
    }
    if let Some(transaction) = &mut session.transaction
        && !row.has(NOT_QUEUED)
    {
        queue(transaction, arguments)?;
        Reply { out, protocol: session.protocol }.simple("QUEUED");
        return Ok(());
    }
    execute(state, session, row, arguments, out);
    serve_waiters(state);
    Ok(())
}

pub(super) fn not_in_embedded(command: &str) -> Error {
    format!(
        "NOTINEMBEDDED '{command}' is refused by the embedded cache: each process has a copy of its own, so a lock or a \
         counter would not hold"
    )
    .into()
}

fn queue(transaction: &mut Transaction, arguments: &[&[u8]]) -> Result<(), Error> {
    let bytes: usize = arguments.iter().map(|argument| argument.len() + 32).sum();
    if transaction.bytes + bytes > limits::TRANSACTION_BYTES_MAX {
        return Err(Error::text("ERR transaction is too large for the embedded cache"));
    }
    transaction.bytes += bytes;
    transaction.commands.push(arguments.iter().map(|argument| argument.to_vec()).collect());
    Ok(())
}

/// Runs a command that was admitted, now or when it was queued.
pub(super) fn execute(state: &mut State, session: &mut Session, row: &Row, arguments: &[&[u8]], out: &mut Vec<u8>) {
    let start = out.len();
    let protocol = session.protocol;
    let room = if row.has(GROWS) {
        let bytes = arguments[1..].iter().map(|argument| argument.len() + ARGUMENT_OVERHEAD_BYTES).sum();
        state.make_room(bytes)
    } else {
        Ok(())
    };
    let mut context = Context { state, session, reply: Reply { out, protocol } };
    if let Err(error) = room.and_then(|()| (row.run)(&mut context, arguments)) {
        context.reply.out.truncate(start);
        context.reply.error(&error.0);
    }
    if row.has(GROWS) && state.options.eviction != Eviction::Refuse {
        // What a command adds may be more than its arguments say: the bound holds again before the next one.
        let _ = state.make_room(0);
    }
}

/// What one argument may cost besides its bytes: half of a new key with its value.
const ARGUMENT_OVERHEAD_BYTES: usize = 48;

/// Gives the elements that have come to those who wait for them, first come first served.
pub(super) fn serve_waiters(state: &mut State) {
    while let Some(number) = state.databases.iter().position(|database| !database.filled.is_empty()) {
        let filled = std::mem::take(&mut state.databases[number].filled);
        for key in filled {
            serve_waiters_of(state, number, &key);
        }
    }
}

fn serve_waiters_of(state: &mut State, database: usize, key: &[u8]) {
    let mut at = 0;
    while at < state.waiters.len() {
        let waiter = &state.waiters[at];
        let present = state.databases[database].peek(key).map(|entry| entry.value.type_name());
        if waiter.database != database
            || !waiter.keys.iter().any(|one| **one == *key)
            || present != Some(waiter.type_name)
        {
            at += 1;
            continue;
        }
        let mut session = Session::new(RETRYING, None, false);
        session.database = database;
        session.protocol = waiter.protocol;
        let command = waiter.command.clone();
        let arguments: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        if let Some(row) = find(arguments[0]) {
            execute(state, &mut session, row, &arguments, &mut out);
        }
        if session.waiting.is_some() {
            at += 1;
            continue;
        }
        let waiter = state.waiters.remove(at);
        state.note_waiters();
        // A receiver that is gone belongs to a connection that broke just now: as with a server, the element is lost.
        let _ = waiter.reply.send(out);
    }
}
