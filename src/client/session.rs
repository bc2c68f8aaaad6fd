//! One client as the rest of its worker sees it: where its replies go, what it owns, and how it is woken.
//!
//! The client's task (see `task`) reads and decides; links only hand replies in. Both run on one thread, so that a reply
//! goes from a link's read buffer to the client's socket in the same turn, without waking the task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use super::context::Context;
use super::crossing::Second;
use super::output::Output;
use super::registry::ClientRecord;
use super::traces::Shown;
use super::worker::Told;
use crate::backend::{Entry, Io, Link, Owner};
use crate::divergence::Lease;
use crate::policy::BackendId;
use crate::resp::{self, Protocol};
use crate::route::Crossing;

/// Requests that were on a connection which ended, with their bytes.
pub(super) type Left = Vec<(Entry<Session>, Vec<u8>)>;

/// Something that the session's task must deal with.
pub(super) enum Notice {
    /// The reply to a request that it had flagged.
    Reply { seq: u32, bytes: Vec<u8> },
    /// A message that came after such a reply.
    OutOfBand(Vec<u8>),
    /// Its own connection ended; these requests were not answered and may be sent again.
    PinnedEnded { link: Rc<Link<Session>>, left: Left },
    /// The active backend is another.
    RouteChanged(BackendId),
    /// A planned switch is prepared, and it listens to channels.
    Cross(Crossing),
    /// CLIENT UNBLOCK.
    Unblock { with_error: bool },
    /// Another client says something about redirected invalidation messages.
    Told(Told),
    /// The client that this one redirects to has its connection, or had its time.
    RenewTracking,
    /// What the next request needs from others is there, or had its time.
    HasWaited,
    /// The credentials that AUTH or HELLO gave were compared.
    Login(Box<super::login::Outcome>),
}

/// A handle; clones are the same session.
#[derive(Clone)]
pub(crate) struct Session(Rc<Inner>);

pub(crate) struct Inner {
    pub(super) context: Rc<Context>,
    pub(super) record: Arc<ClientRecord>,
    pub(super) io: RefCell<Option<Io>>,
    pub(super) output: Output,
    pub(super) notices: RefCell<VecDeque<Notice>>,
    waker: RefCell<Option<Waker>>,
    /// The client has left or must go: nothing more is written to it.
    pub(super) gone: Cell<bool>,
    /// Its task must look at it because of a bound that was passed or a reply that broke off.
    pub(super) doomed: Cell<bool>,
    repeating: Cell<u32>,
    /// Subscriptions and modes in which frames come unasked; set by the task.
    pub(super) subscribed: Cell<bool>,
    /// The request that has left the last channel: messages come until it is confirmed, and none afterwards.
    pub(super) leaves_at: Cell<Option<u32>>,
    pub(super) monitoring: Cell<bool>,
    pub(super) watched: RefCell<super::traces::Watched>,
    pub(super) protocol: Cell<Protocol>,
    /// The task waits until so few requests are in flight; set by the task.
    pub(super) wakes_at: Cell<Option<u32>>,
    /// The connection that the client owns, for others to look up; the task's own copy is what counts.
    pub(super) owned: RefCell<Option<Rc<Link<Session>>>>,
    /// A connection to the backend that is about to serve, and the number of what was asked last for that; see `crossing`.
    pub(super) second: RefCell<Option<Second>>,
    pub(super) crossing: Cell<u64>,
    /// The writes of a transaction whose EXEC is on its way, while there are mirrors: nobody else knows its keys.
    pub(super) in_doubt: RefCell<Vec<(u32, Vec<u8>)>>,
    /// While two backends serve: what requests on their way hold, by their place in the order.
    pub(super) leases: RefCell<VecDeque<(u32, Lease)>>,
    /// The task has stopped reading, and whether what the client has asked for must end with it; set by the task.
    pub(super) stopped_reading: Cell<bool>,
    pub(super) must_leave: Cell<bool>,
    /// When the task last saw input, and whether half a frame waits.
    pub(super) last_input_us: Cell<u64>,
    pub(super) mid_frame: Cell<bool>,
}

impl std::ops::Deref for Session {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Session {
    pub(super) fn new(context: Rc<Context>, record: Arc<ClientRecord>, io: Io) -> Self {
        let last_input_us = Cell::new(record.since_us);
        Self(Rc::new(Inner {
            context,
            record,
            io: RefCell::new(Some(io)),
            output: Output::default(),
            notices: RefCell::default(),
            waker: RefCell::new(None),
            gone: Cell::new(false),
            doomed: Cell::new(false),
            repeating: Cell::new(0),
            subscribed: Cell::new(false),
            leaves_at: Cell::new(None),
            monitoring: Cell::new(false),
            watched: RefCell::default(),
            protocol: Cell::new(Protocol::Resp2),
            wakes_at: Cell::new(None),
            owned: RefCell::new(None),
            second: RefCell::default(),
            crossing: Cell::new(0),
            in_doubt: RefCell::default(),
            leases: RefCell::default(),
            stopped_reading: Cell::new(false),
            must_leave: Cell::new(false),
            last_input_us,
            mid_frame: Cell::new(false),
        }))
    }

    pub(super) fn remember_waker(&self, waker: &Waker) {
        let mut held = self.waker.borrow_mut();
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn notify(&self, notice: Notice) {
        self.notices.borrow_mut().push_back(notice);
        self.wake();
    }

    /// Whether a request of its own waits to be repeated: none may overtake it.
    pub(super) fn is_repeating(&self) -> bool {
        self.repeating.get() > 0
    }

    pub(super) fn pinned_ended(&self, link: &Rc<Link<Session>>, left: Left) {
        self.notify(Notice::PinnedEnded { link: Rc::clone(link), left });
    }

    pub(super) fn route_changed(&self, active: BackendId) {
        self.notify(Notice::RouteChanged(active));
    }

    /// Closes the client when it has been silent, or half-silent, for too long, or has left while it was not read: what a
    /// blocking command pops for it would be lost.
    pub(super) fn check_idle(&self, now_us: u64) {
        if self.stopped_reading.get() && self.must_leave.get() && self.io.borrow().as_ref().is_some_and(Io::has_hung_up)
        {
            return self.doom();
        }
        let settings = &self.context.settings;
        let silent_us = now_us.saturating_sub(self.last_input_us.get());
        let over = |bound: std::time::Duration| !bound.is_zero() && silent_us >= bound.as_micros() as u64;
        let waits = self.output.in_flight() > 0 || self.subscribed.get() || self.monitoring.get();
        // Half a request is the client's doing only while we read on.
        let reads = self.output.in_flight() < settings.in_flight_max
            && self.output.waiting_bytes() < settings.output_pause_bytes;
        if (self.mid_frame.get() && reads && over(settings.frame_timeout)) || (!waits && over(settings.idle_timeout)) {
            self.doom();
        }
    }

    /// Until CLIENT KILL names the client; for the time after its task.
    pub(super) async fn killed(&self) {
        poll_fn(|cx| {
            self.remember_waker(cx.waker());
            if self.record.killed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether its client still gets what comes: neither has it left, nor is it about to be closed.
    fn is_served(&self) -> bool {
        !self.gone.get() && !self.doomed.get()
    }

    /// Ends the client's connection as soon as its task runs.
    pub(super) fn doom(&self) {
        self.doomed.set(true);
        self.wake();
    }

    /// A reply that we make ourselves, in the order of the requests.
    pub(super) fn answer(&self, seq: u32, bytes: &[u8]) {
        self.output.replies(seq, 1, bytes, |bytes| self.direct(bytes));
        self.after_replies();
    }

    /// Bytes outside the order of replies.
    pub(super) fn tell(&self, bytes: &[u8]) {
        self.output.out_of_band(bytes, |bytes| self.direct(bytes));
        self.after_replies();
    }

    /// Writes what the socket takes now; the rest is kept and flushed by the task.
    fn direct(&self, bytes: &[u8]) -> usize {
        match self.io.borrow().as_ref().map(|io| io.try_write(bytes)) {
            Some(Ok(n)) => n,
            // The task finds out about a broken connection by reading.
            _ => 0,
        }
    }

    fn after_replies(&self) {
        if !self.leases.borrow().is_empty() {
            self.context.note_answered(self);
        }
        let held = self.output.held_bytes();
        if held > 0 {
            if held > self.context.settings.output_limit_bytes {
                tracing::info!(client = self.record.id, "closed: it does not read its replies");
                self.doomed.set(true);
            }
            self.wake();
        } else if self.wakes_at.get().is_some_and(|at| self.output.in_flight() <= at) {
            self.wake();
        }
    }
}

impl Owner for Session {
    fn same_as(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    fn id(&self) -> usize {
        Rc::as_ptr(&self.0) as usize
    }

    fn is_gone(&self) -> bool {
        self.gone.get()
    }

    fn replies(&self, seq: u32, count: u32, bytes: &[u8]) {
        if self.is_served() {
            self.output.replies(seq, count, bytes, |bytes| self.direct(bytes));
            self.after_replies();
        }
    }

    fn partial(&self, seq: u32, bytes: &[u8]) {
        if self.is_served() {
            self.output.partial(seq, bytes, |bytes| self.direct(bytes));
            self.after_replies();
        }
    }

    fn special(&self, seq: u32, bytes: &[u8]) {
        if self.leaves_at.get() == Some(seq) {
            // Now, and not when the task sees it: what follows in the same piece may look like a message.
            self.subscribed.set(false);
        }
        if !self.gone.get() {
            self.notify(Notice::Reply { seq, bytes: bytes.to_vec() });
        }
    }

    fn is_out_of_band(&self, frame: &[u8]) -> bool {
        if self.monitoring.get() && frame.len() > 20 && frame[0] == b'+' && frame[1].is_ascii_digit() {
            return true;
        }
        let may_be_one = resp::is_push(frame[0])
            || (frame[0] == b'*' && self.subscribed.get() && self.protocol.get() == Protocol::Resp2);
        if !may_be_one {
            return false;
        }
        let is_other = || resp::first_bulk_of_array(frame);
        resp::is_message(frame) || matches!(is_other(), Some(b"invalidate" | b"tracking-redir-broken" | b"moved"))
    }

    fn out_of_band(&self, bytes: &[u8]) {
        if !self.is_served() {
            return;
        }
        let part;
        let bytes = match self.shown_of(bytes) {
            Shown::Whole => bytes,
            Shown::Nothing => return,
            Shown::Part(left) => {
                part = left;
                part.as_slice()
            }
        };
        let mut notices = self.notices.borrow_mut();
        if notices.iter().any(|notice| matches!(notice, Notice::Reply { .. } | Notice::OutOfBand(_))) {
            // A reply that the task must see first came before it, and must leave before it.
            notices.push_back(Notice::OutOfBand(bytes.to_vec()));
        } else {
            drop(notices);
            self.tell(bytes);
        }
    }

    fn cut_off(&self) {
        self.doom();
    }

    fn repeating(&self) {
        self.repeating.set(self.repeating.get() + 1);
        self.context.group.repeating.fetch_add(1, Ordering::Relaxed);
    }

    fn repeated(&self) {
        if self.repeating.get() == 0 {
            return;
        }
        self.repeating.set(self.repeating.get() - 1);
        self.context.group.repeating.fetch_sub(1, Ordering::Relaxed);
        if self.repeating.get() == 0 {
            self.wake();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last of its requests has just been answered, and the mirrors are told at the end of this turn.
        let leases = self.leases.take();
        if !leases.is_empty() {
            self.context.leases_left.borrow_mut().extend(leases.into_iter().map(|(_, lease)| lease));
        }
        if self.repeating.get() > 0 {
            self.context.group.repeating.fetch_sub(u64::from(self.repeating.get()), Ordering::Relaxed);
        }
        self.context.registry.remove(self.record.id);
        self.record.killed.store(true, Ordering::Relaxed);
    }
}
