//! The task of one client: reads requests, forwards plain ones in runs, and leaves the rest to `special`.
//!
//! Order is the invariant: a request that must take another connection than the one before it waits until all earlier
//! ones are answered, so that a session's order holds on every backend.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::ahead::{RunAhead, wipes};
use super::context::Context;
use super::modes::State;
use super::session::{Notice, Session};
use super::special::Step;
use crate::backend::{Batch, Entry, Lane, Link, clock, flag};
use crate::command::{self, Handling, Spec};
use crate::divergence::{is_mirrored_as_it_is, note_write};
use crate::limits;
use crate::policy::BackendId;
use crate::resp::{self, RequestFrame, RequestScanner};
use crate::route::Availability;

/// How the task of a client ends.
pub(super) enum Exit {
    Closed,
    /// The connection becomes a raw tunnel to the backend; this request opens it.
    Tunnel {
        /// Said before it; the client has seen the replies.
        introduction: Vec<Vec<u8>>,
        request: Vec<u8>,
        lane: Lane,
        backend: BackendId,
    },
}

pub(super) struct SessionTask {
    pub(super) session: Session,
    pub(super) state: State,
    scanner: RequestScanner,
    /// What was read and not consumed: half a frame, or requests that must wait.
    input: Vec<u8>,
    /// The link of the last plain request.
    pub(super) link: Option<Rc<Link<Session>>>,
    /// The client has closed its sending side.
    ended: bool,
    /// Close once everything is answered and written.
    pub(super) closing: bool,
    pub(super) tunnel: Option<Exit>,
    pub(super) now_us: u64,
}

/// What stands at the position where a run of plain requests ended.
enum Next {
    Incomplete,
    /// A request that is not plain, or cannot be forwarded just now.
    Frame(RequestFrame),
    Broken(resp::ProtocolError),
}

/// How the answer to a request concerns the mirrors.
pub(super) fn mirror_flag(spec: &Spec, arguments: u32) -> u16 {
    if !spec.is_write() {
        0
    } else if is_mirrored_as_it_is(spec, arguments) {
        flag::MIRRORED_AS_IT_IS
    } else {
        flag::MIRRORED
    }
}

impl SessionTask {
    pub(super) fn new(session: Session, state: State) -> Self {
        Self {
            session,
            state,
            scanner: RequestScanner::default(),
            input: Vec::new(),
            link: None,
            ended: false,
            closing: false,
            tunnel: None,
            now_us: clock::micros(),
        }
    }

    /// Serves the client until it leaves.
    pub(super) async fn run(mut self, scratch: &std::cell::RefCell<Vec<u8>>) -> Exit {
        let exit = poll_fn(|cx| self.poll(cx, scratch)).await;
        self.session.gone.set(true);
        self.leave();
        exit
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>, scratch: &std::cell::RefCell<Vec<u8>>) -> Poll<Exit> {
        self.session.remember_waker(cx.waker());
        self.now_us = clock::micros();
        self.session.context.release_leases();
        self.handle_notices();
        self.release_watched();
        let killed = self.session.record.killed.load(Ordering::Acquire);
        if self.session.doomed.get() || (killed && !self.closing) {
            return Poll::Ready(Exit::Closed);
        }
        if self.poll_pin_timer(cx) {
            self.recover_pinned();
        }
        self.consume_input();
        loop {
            if !self.poll_flush(cx) {
                return Poll::Ready(Exit::Closed);
            }
            if self.is_finished() {
                return Poll::Ready(self.tunnel.take().unwrap_or(Exit::Closed));
            }
            let wants_input = self.wants_input();
            self.session.stopped_reading.set(!wants_input);
            if !wants_input {
                self.session.must_leave.set(self.must_leave_at_once());
                return Poll::Pending;
            }
            match self.poll_read(cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    self.ended = true;
                    if self.must_leave_at_once() {
                        return Poll::Ready(Exit::Closed);
                    }
                }
            }
        }
    }

    /// A client that has gone must not keep a blocking command alive: what it pops would be lost.
    fn must_leave_at_once(&self) -> bool {
        self.state.is_blocked() || self.session.subscribed.get() || self.session.monitoring.get()
    }

    fn is_finished(&self) -> bool {
        let done = self.session.output.in_flight() == 0 && self.session.output.waiting_bytes() == 0;
        let over = self.closing || self.tunnel.is_some() || (self.ended && !self.is_waiting());
        if over && !done {
            self.session.wakes_at.set(Some(0));
        }
        done && over
    }

    /// Whether complete requests lie in the input that cannot be forwarded yet.
    fn is_waiting(&self) -> bool {
        self.state.waits && !self.input.is_empty()
    }

    fn wants_input(&self) -> bool {
        let settings = &self.session.context.settings;
        if self.ended || self.closing || self.tunnel.is_some() {
            return false;
        }
        if self.session.output.held_bytes() >= settings.output_pause_bytes {
            return false;
        }
        if self.state.waits {
            // Still read a little, to see the client leave.
            let is_urgent = self.must_leave_at_once();
            let bound = if is_urgent { limits::BLOCKED_INPUT_BYTES_MAX } else { limits::READ_CHUNK_BYTES };
            return self.input.len() < bound;
        }
        let room = self.session.output.in_flight() < settings.in_flight_max;
        self.session.wakes_at.set((!room).then_some(settings.in_flight_max / 2));
        room
    }

    fn poll_read(&mut self, cx: &mut TaskContext<'_>, scratch: &std::cell::RefCell<Vec<u8>>) -> Poll<bool> {
        if !self.input.is_empty() {
            return self.poll_read_more(cx);
        }
        let mut scratch = scratch.borrow_mut();
        let n = {
            let mut io = self.session.io.borrow_mut();
            let Some(io) = io.as_mut() else { return Poll::Ready(false) };
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Ready(Ok(())) => buffer.filled().len(),
            }
        };
        if n == 0 {
            return Poll::Ready(false);
        }
        let consumed = self.consume(&scratch[..n]);
        self.input.extend_from_slice(&scratch[consumed..n]);
        Poll::Ready(true)
    }

    /// Reads behind what is there already; the buffer doubles, so that a long frame costs linear work.
    fn poll_read_more(&mut self, cx: &mut TaskContext<'_>) -> Poll<bool> {
        let len = self.input.len();
        let room = limits::READ_CHUNK_BYTES.max(self.input.capacity() - len).min(16 * limits::READ_CHUNK_BYTES);
        self.input.resize(len + room, 0);
        let result = {
            let mut io = self.session.io.borrow_mut();
            let Some(io) = io.as_mut() else { return Poll::Ready(false) };
            let mut buffer = ReadBuf::new(&mut self.input[len..]);
            match Pin::new(io).poll_read(cx, &mut buffer) {
                Poll::Pending => None,
                Poll::Ready(Err(_)) => Some(0),
                Poll::Ready(Ok(())) => Some(buffer.filled().len()),
            }
        };
        self.input.truncate(len + result.unwrap_or(0));
        match result {
            None => Poll::Pending,
            Some(0) => Poll::Ready(false),
            Some(_) => {
                self.consume_input();
                Poll::Ready(true)
            }
        }
    }

    /// Writes what waits; false when the client is gone.
    fn poll_flush(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let session = &self.session;
        let mut io = session.io.borrow_mut();
        let Some(io) = io.as_mut() else { return false };
        let mut alive = true;
        let waited = session.output.waiting_bytes() > 0;
        session.output.flush(|bytes| match Pin::new(&mut *io).poll_write(cx, bytes) {
            Poll::Ready(Ok(n)) if n > 0 => Some(n),
            Poll::Ready(_) => {
                alive = false;
                None
            }
            Poll::Pending => None,
        });
        if waited && alive && Pin::new(io).poll_flush(cx).map(|result| result.is_err()) == Poll::Ready(true) {
            alive = false;
        }
        alive
    }

    fn consume_input(&mut self) {
        if self.input.is_empty() {
            return;
        }
        let input = std::mem::take(&mut self.input);
        let consumed = self.consume(&input);
        self.input = input;
        if consumed == self.input.len() {
            // Idle clients keep no buffer.
            self.input = Vec::new();
        } else {
            self.input.drain(..consumed);
        }
    }

    /// Takes as many requests as can be dealt with now; returns how many bytes they took.
    fn consume(&mut self, bytes: &[u8]) -> usize {
        let before_us = self.session.last_input_us.replace(self.now_us);
        self.session.context.crowd.heard(before_us);
        self.state.waits = false;
        self.session.wakes_at.set(None);
        let mut at = 0;
        while !self.closing && self.tunnel.is_none() {
            if !self.state.is_authenticated && self.state.awaited > 0 {
                // What may be sent is known when the login is decided.
                self.state.waits = at < bytes.len();
                self.session.wakes_at.set(Some(0));
                break;
            }
            let (taken, next) = self.forward_run(&bytes[at..]);
            at += taken;
            match next {
                Next::Incomplete => break,
                Next::Broken(error) => {
                    self.refuse_protocol(&error);
                    at = bytes.len();
                    break;
                }
                Next::Frame(frame) => {
                    let in_flight_max = self.session.context.settings.in_flight_max;
                    if self.session.output.in_flight() >= in_flight_max {
                        self.state.waits = true;
                        self.session.wakes_at.set(Some(in_flight_max / 2));
                        break;
                    }
                    match self.special(&bytes[at..at + frame.len], frame) {
                        Step::Consumed => at += frame.len,
                        Step::Wait => {
                            self.state.waits = true;
                            self.session.wakes_at.set(Some(0));
                            break;
                        }
                    }
                }
            }
        }
        self.session.mid_frame.set(self.scanner.is_mid_frame());
        self.session.record.last_us.store(self.now_us, Ordering::Relaxed);
        at
    }

    pub(super) fn refuse_protocol(&mut self, error: &resp::ProtocolError) {
        let seq = self.session.output.place();
        let is_length =
            matches!(error, resp::ProtocolError::InvalidMultibulkLength | resp::ProtocolError::InvalidBulkLength);
        let text = match error.to_string() {
            text if is_length && !self.state.is_authenticated => text.replace("invalid", "unauthenticated"),
            text => text,
        };
        self.session.answer(seq, format!("-ERR Protocol error: {text}\r\n").as_bytes());
        self.closing = true;
    }

    /// Forwards plain requests as long as they come; returns the bytes they took and what stands behind them.
    fn forward_run(&mut self, bytes: &[u8]) -> (usize, Next) {
        let session = self.session.clone();
        let context = &session.context;
        let (active, availability, keeping) = context.route_facts();
        let is_simple = availability == Availability::Serving && !keeping.is_split;
        let link = if is_simple { self.run_link(active) } else { None };
        let mut batch: Option<Batch<'_, Session>> = None;
        let mut at = 0;
        let mut run_start = 0;
        let copying = if keeping.recording == 0 { 0 } else { context.copying(&context.route()) };
        let mut run_ahead = RunAhead::default();
        let reading = if keeping.reading == 0 { 0 } else { context.group.with_room_for_reads(keeping.reading) };
        let settings = &context.settings;
        let is_known = self.state.is_authenticated;
        let frame_limits = if is_known { &settings.frame_limits } else { &settings.login_frame_limits };
        let next = loop {
            let frame = match self.scanner.scan(&bytes[at..], frame_limits) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Next::Incomplete,
                Err(error) => break Next::Broken(error),
            };
            let request = &bytes[at..at + frame.len];
            if frame.arguments == 0 && at == run_start {
                at += frame.len;
                run_start = at;
                continue;
            }
            let plain = link.as_ref().zip(self.plain(request, frame));
            let Some((link, spec)) = plain else { break Next::Frame(frame) };
            if session.output.in_flight() >= context.settings.in_flight_max {
                break Next::Frame(frame);
            }
            if batch.is_none() {
                batch = link.batch();
            }
            let Some(open) = batch.as_mut().filter(|batch| !batch.is_full()) else { break Next::Frame(frame) };
            if keeping.recording != 0 && spec.is_write() {
                let database = self.state.database();
                if copying == 0 {
                    note_write(context.group.records_of(keeping.recording), database, spec, request);
                } else if wipes(spec) || !Context::takes_blocks(link) {
                    break Next::Frame(frame);
                } else if run_ahead.note(context, link, copying, database, spec, request) {
                    open.bytes(&bytes[run_start..at]);
                    run_start = at;
                    run_ahead.take_place(open, &session, self.now_us);
                }
            }
            if reading != 0 {
                context.note_read(reading, self.state.database(), spec, request, self.now_us);
            }
            open.entry(Entry {
                owner: session.clone(),
                at_us: self.now_us,
                seq: session.output.place(),
                len: frame.len as u32,
                confirmations: 0,
                class: spec.class,
                attempts: 0,
                flags: if keeping.mirroring != 0 { mirror_flag(spec, frame.arguments) } else { 0 },
            });
            self.state.last_command = spec.name;
            at += frame.len;
        };
        if at > run_start
            && let Some(batch) = batch.as_mut()
        {
            if let Some(link) = &link {
                run_ahead.fill(batch, context, link, copying, &session, self.now_us);
            }
            batch.bytes(&bytes[run_start..at]);
        }
        drop(batch);
        if link.is_some() {
            self.link = link;
        }
        (at, next)
    }

    /// The row of a request that needs nothing but forwarding; `None` for all others.
    fn plain(&self, request: &[u8], frame: RequestFrame) -> Option<&'static Spec> {
        if frame.inline || frame.arguments == 0 {
            return None;
        }
        let spec = command::lookup(frame.name(request))?;
        let context = &self.session.context;
        let is_plain = spec.handling == Handling::Shared
            && spec.subcommands.is_empty()
            && (context.settings.denied.is_empty() || !context.settings.denied.has(spec));
        is_plain.then_some(spec)
    }

    /// The link for plain requests now; `None` while they need more care than forwarding.
    fn run_link(&mut self, active: BackendId) -> Option<Rc<Link<Session>>> {
        if !self.state.forwards_freely()
            || self.session.is_repeating()
            || self.session.context.is_paused(active, self.now_us)
        {
            return None;
        }
        let quiet = self.session.output.in_flight() == 0;
        match &self.link {
            Some(link) if link.accepts() && link.backend.id == active => {
                Some(if quiet { self.session.context.spill(link, self.now_us) } else { Rc::clone(link) })
            }
            // Earlier requests are on their way over another connection: this one must not overtake them.
            _ if !quiet => None,
            _ => {
                let link = self.session.context.link(active, self.state.lane());
                Some(self.session.context.spill(&link, self.now_us))
            }
        }
    }

    fn handle_notices(&mut self) {
        loop {
            let Some(notice) = self.session.notices.borrow_mut().pop_front() else { return };
            match notice {
                Notice::Reply { seq, bytes } => self.finish_special(seq, bytes),
                Notice::OutOfBand(bytes) => self.session.tell(&bytes),
                Notice::PinnedEnded { link, left } => self.pinned_lost(&link, left),
                Notice::RouteChanged(active) => self.follow_route(active),
                Notice::Cross(crossing) => self.cross(crossing),
                Notice::Unblock { with_error } => self.unblock(with_error),
                Notice::Told(told) => self.told(&told),
                Notice::RenewTracking => self.renew_tracking(),
                Notice::HasWaited => {
                    self.state.awaited -= 1;
                    self.state.has_waited = true;
                }
                Notice::Login(outcome) => self.logged_in(*outcome),
            }
        }
    }
}
