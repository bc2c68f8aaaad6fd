//! What other backends miss is written on the server that serves, ahead of the write itself, see `divergence::copy`.
//!
//! On a shared link the block goes into the same buffer, right before the write, with an entry of its own that swallows
//! its replies. On a connection that a client owns, or that is logged in as one, nothing is put between its requests: the
//! write waits until the server has said on a connection of our own that it has the block. Both cost nothing while no
//! record is kept.

use std::rc::Rc;

use super::context::Context;
use super::session::Session;
use super::task::SessionTask;
use crate::backend::{Batch, Entry, Lane, Link, flag};
use crate::command::{self, Class, KeyScope, Spec};
use crate::divergence::{Ahead, block_name, entries, note_write, note_write_ahead};
use crate::resp::{self, Protocol};
use crate::route::Route;

/// How a write may leave.
pub(super) enum Leave {
    /// As it is.
    Now,
    /// Behind this block, in the same buffer.
    Behind(Block),
    /// It stays in the input until the server has what was written ahead.
    Wait,
}

/// Requests that lie before a write in the buffer of its link, and how many replies they bring.
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    replies: u8,
}

/// Whether a request takes the copy along with everything else that the server holds.
pub(super) fn wipes(spec: &Spec) -> bool {
    matches!(spec.keys.scope, KeyScope::Database | KeyScope::Everything)
}

impl Context {
    /// The incident in which writes are copied ahead; 0 while they are not.
    pub(super) fn copying(&self, route: &Route) -> u32 {
        let is_usable = route.recording != 0 && !self.group.is_copy_broken(route.copying);
        if is_usable { route.copying } else { 0 }
    }

    /// Whether a link takes blocks between its requests.
    pub(super) fn takes_blocks(link: &Link<Session>) -> bool {
        !link.pinned && link.lane.user == 0
    }

    /// The link of our own on which blocks go that must not go on a client's connection.
    fn own_lane(&self, route: &Route) -> Rc<Link<Session>> {
        self.link(route.active, Lane { database: 0, protocol: Protocol::Resp2, user: 0 })
    }

    pub(super) fn block(&self, link: &Link<Session>, incident: u32, ahead: &Ahead) -> Block {
        let name = block_name(&self.process, link.writer(), incident, link.next_block(incident));
        self.write_fields(link, &[name.as_bytes(), &ahead.value()])
    }

    /// Who serves, put back behind a request that took it along.
    fn reminder(&self, link: &Link<Session>, incident: u32) -> Block {
        let number = incident.to_string();
        self.write_fields(link, &[b"number", number.as_bytes(), b"active", link.backend.name.as_bytes()])
    }

    /// HSET in the mark's database, and back to that of the link.
    fn write_fields(&self, link: &Link<Session>, fields: &[&[u8]]) -> Block {
        let mut hset: Vec<&[u8]> = vec![b"HSET", self.settings.incident_key.as_bytes()];
        hset.extend(fields);
        self.in_mark_database(link, &hset)
    }

    fn in_mark_database(&self, link: &Link<Session>, request: &[&[u8]]) -> Block {
        let (mark, own) = (link.backend.mark_database(), link.backend.database_on_server(link.lane.database));
        let mut bytes = Vec::new();
        if mark == own {
            resp::encode_request(&mut bytes, request);
            return Block { bytes, replies: 1 };
        }
        resp::encode_request(&mut bytes, &[b"SELECT", mark.to_string().as_bytes()]);
        resp::encode_request(&mut bytes, request);
        resp::encode_request(&mut bytes, &[b"SELECT", own.to_string().as_bytes()]);
        Block { bytes, replies: 3 }
    }

    /// A request that goes to another server than it was meant for: its block goes before it.
    pub(super) fn copy_resent(&self, owner: &Session, link: &Link<Session>, database: u32, request: &[u8]) {
        let route = self.route();
        let spec = command::of_request(request);
        if route.recording == 0 || !spec.is_write() {
            return;
        }
        let incident = self.copying(&route);
        if incident == 0 {
            let missing = route.recording & !(1 << link.backend.id.index());
            return note_write(self.group.records_of(missing), database, spec, request);
        }
        // On another connection than the request where it must be: both leave in this turn, and the server's answer to the
        // request cannot come before that.
        let own = if Self::takes_blocks(link) { None } else { Some(self.own_lane(&route)) };
        let link = own.as_deref().unwrap_or(link);
        let mut ahead = Ahead::new(incident, link.writer());
        note_write_ahead(self.group.numbered(route.recording), database, spec, request, &mut ahead);
        if !ahead.is_empty() {
            let block = self.block(link, incident, &ahead);
            link.push(entry(owner, self.now_of(link), &block), &block.bytes);
        }
    }

    /// The server has answered a block.
    pub(super) fn block_answered(&self, link: &Link<Session>, owner: &Session, bytes: &[u8], refused: bool) {
        let route = self.route();
        if let Some((name, value)) = field_of(bytes) {
            let incident = name.rsplit(|byte| *byte == b':').nth(1).and_then(|writer| {
                let writer = std::str::from_utf8(writer).ok()?;
                u32::from_str_radix(writer.rsplit('.').next()?, 16).ok()
            });
            match incident {
                Some(incident) if refused => {
                    // What follows would be missing as well: nobody may take the copy for whole.
                    self.group.break_copy(incident);
                    if incident == route.copying && link.backend.id == route.active {
                        let block =
                            self.in_mark_database(link, &[b"HDEL", self.settings.incident_key.as_bytes(), b"snapshot"]);
                        link.push(entry(owner, self.now_of(link), &block), &block.bytes);
                    }
                }
                Some(incident) => {
                    for (backend, key) in entries(value).unwrap_or_default() {
                        let Some(record) = self.group.records.get(usize::from(backend)) else { continue };
                        match key {
                            Some((database, key)) => record.confirm(database, key, incident, link.writer()),
                            None => record.confirm_unknown(incident, link.writer()),
                        }
                    }
                }
                None => {}
            }
        }
        self.wake_those_waiting_for_copy();
    }

    pub(super) fn wake_those_waiting_for_copy(&self) {
        for session in self.waiting_for_copy.take() {
            session.wake();
        }
    }

    fn now_of(&self, _link: &Link<Session>) -> u64 {
        crate::backend::clock::micros()
    }
}

/// Name and value of the field that a block writes.
fn field_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_select = resp::arguments(bytes).next()?.eq_ignore_ascii_case(b"select");
    let mut hset = bytes;
    if is_select {
        let database = resp::arguments(bytes).nth(1)?;
        let mut select = Vec::new();
        resp::encode_request(&mut select, &[b"SELECT", database]);
        hset = &bytes[select.len()..];
    }
    let mut words = resp::arguments(hset).skip(2);
    Some((words.next()?, words.next()?))
}

/// The entry of a block, which swallows its replies.
pub(super) fn entry(owner: &Session, at_us: u64, block: &Block) -> Entry<Session> {
    Entry {
        owner: owner.clone(),
        at_us,
        seq: 0,
        len: block.bytes.len() as u32,
        confirmations: u32::from(block.replies),
        class: Class::Write,
        attempts: block.replies,
        flags: flag::ABANDONED | flag::AHEAD,
    }
}

/// The block of a run of requests that are forwarded together: its place is taken before the first of them that needs it.
#[derive(Default)]
pub(super) struct RunAhead {
    ahead: Option<Ahead>,
    place: Option<usize>,
}

impl RunAhead {
    /// Notes a write of the run. Returns whether the block's place must be taken before it.
    pub(super) fn note(
        &mut self,
        context: &Context,
        link: &Link<Session>,
        incident: u32,
        database: u32,
        spec: &Spec,
        request: &[u8],
    ) -> bool {
        let ahead = self.ahead.get_or_insert_with(|| Ahead::new(incident, link.writer()));
        note_write_ahead(context.group.numbered(context.route().recording), database, spec, request, ahead);
        !ahead.is_empty() && self.place.is_none()
    }

    pub(super) fn take_place(&mut self, batch: &mut Batch<'_, Session>, owner: &Session, at_us: u64) {
        self.place = Some(batch.reserve(entry(owner, at_us, &Block { bytes: Vec::new(), replies: 1 })));
    }

    /// The run is complete: the block is put where its place is.
    pub(super) fn fill(
        self,
        batch: &mut Batch<'_, Session>,
        context: &Context,
        link: &Link<Session>,
        incident: u32,
        owner: &Session,
        at_us: u64,
    ) {
        if let (Some(ahead), Some(place)) = (&self.ahead, self.place) {
            let block = context.block(link, incident, ahead);
            batch.fill(place, entry(owner, at_us, &block), &block.bytes);
        }
    }
}

impl SessionTask {
    /// Enters what a request may write into the records, and says how it may leave. `database` is where it will work.
    pub(super) fn leave_by(
        &mut self,
        link: &Link<Session>,
        database: u32,
        spec: &'static Spec,
        request: &[u8],
    ) -> Leave {
        let context = Rc::clone(&self.session.context);
        let route = context.route();
        let ends = spec.handling == command::Handling::Exec;
        if route.recording == 0 || !(spec.is_write() || ends) {
            return Leave::Now;
        }
        let incident = context.copying(&route);
        let is_queued = self.state.transaction.is_some() && !ends;
        if incident == 0 || is_queued {
            // What is queued is copied before EXEC.
            // Of two that serve, the one that it goes to does not miss it.
            let missing = route.recording & !(1 << link.backend.id.index());
            note_write(context.group.records_of(missing), database, spec, request);
            return Leave::Now;
        }
        if Context::takes_blocks(link) {
            let mut ahead = Ahead::new(incident, link.writer());
            note_write_ahead(context.group.numbered(route.recording), database, spec, request, &mut ahead);
            return if ahead.is_empty() { Leave::Now } else { Leave::Behind(context.block(link, incident, &ahead)) };
        }
        let own = context.own_lane(&route);
        let mut ahead = Ahead::new(incident, own.writer());
        let numbered = || context.group.numbered(route.recording);
        match self.state.transaction.as_ref().filter(|_| ends) {
            Some(transaction) => transaction.note_ahead(self.state.database(), numbered(), &mut ahead),
            None => note_write_ahead(numbered(), database, spec, request, &mut ahead),
        }
        if ahead.is_confirmed() {
            return Leave::Now;
        }
        if !ahead.is_empty() {
            let block = context.block(&own, incident, &ahead);
            own.push(entry(&self.session, self.now_us, &block), &block.bytes);
        }
        context.waiting_for_copy.borrow_mut().push(self.session.clone());
        Leave::Wait
    }

    /// Behind a request that took the copy along, the server is told again who serves.
    pub(super) fn reminder_behind(&self, link: &Link<Session>, spec: &Spec) -> Option<Block> {
        let context = &self.session.context;
        let incident = context.copying(&context.route());
        (incident != 0 && wipes(spec) && Context::takes_blocks(link)).then(|| context.reminder(link, incident))
    }
}
