//! One connection to a backend and the requests that wait for its replies.
//!
//! A multiplexed link belongs to a lane and serves many sessions; a pinned link belongs to one. Both retain the bytes of
//! every unanswered request in one buffer, in order, so that they can be sent again without a copy per request. The
//! driver (see `driver`) owns the socket whole; sessions only append to the queue and wake it.
//!
//! Invariants: `answered <= written <= bytes.len()`; the lengths of the entries add up to `bytes.len() - answered`; the
//! server's replies come in the order of the entries.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use super::budget::RetryBudget;
use super::clock;
use super::counters::{Counter, Counters};
use super::gather::Gather;
use super::handshake::Lane;
use super::line::Carried;
use super::listens::Listens;
use super::loss::category;
use super::shared::Backend;
use crate::command::{Category, Class, Handling};
use crate::limits;
use crate::policy::{BackendId, Edge};
use crate::resp::FrameLimits;

/// Numbers of links; 0 names none.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// Requests behind a slow head that are looked at for what may overtake it.
const OVERTAKING_MAX: usize = 1024;

/// The slowest line that a long request is given time for: 10 MB/s. That it was written says little: buffers on the way
/// take megabytes at once.
pub(super) const SLOWEST_BYTES_PER_MICRO: u64 = 10;

/// Flags of an entry.
pub mod flag {
    /// The owner wants this reply by [`super::Owner::special`] instead of straight to its client.
    pub const SPECIAL: u16 = 1;
    /// The client was answered already; the reply is dropped.
    pub const ABANDONED: u16 = 2;
    /// Answered by confirmations of (un)subscription, as many as `Entry::confirmations` says.
    pub const SUBSCRIPTION: u16 = 4;
    /// Part of the reply has been forwarded already.
    pub const STREAMING: u16 = 8;
    /// Was sent once, and its connection was lost: another sending to the same backend takes from the retry budget.
    pub const REPEAT: u16 = 16;
    /// Part of a transaction, EXEC excepted: the server only queues it, so that its loss changes nothing there.
    pub const QUEUED: u16 = 32;
    /// A read that was moved here from behind a slow request or a long reply.
    pub const OVERTOOK: u16 = 64;
    /// A read whose connection was lost behind which a write of its own session was sent: the same server might answer it
    /// with what was written later.
    pub const DOUBTFUL: u16 = 128;
    /// A write that [`super::Host::acknowledged`] is told of, and that is mirrored byte for byte.
    pub const MIRRORED_AS_IT_IS: u16 = 256;
    /// Any other write that [`super::Host::acknowledged`] is told of.
    pub const MIRRORED: u16 = 512;
    /// A block that is written ahead of a write: its replies, as many as `Entry::confirmations` says, are for
    /// [`super::Host::block_answered`]. It stays with its connection, and is sent again there.
    pub const AHEAD: u16 = 1024;
    /// A write that was sent on a connection that is gone, and was not answered: it may have been executed, whatever becomes
    /// of it afterwards. One that was refused and is repeated was not executed.
    pub const UNSETTLED: u16 = 2048;
    /// Ours, on a connection that a client owns: what comes behind its reply was sent by the server after what came before it,
    /// see [`super::Listens`]. `Entry::confirmations` is its number.
    pub const FENCE: u16 = 4096;
    /// Flags that mean nothing for where the reply goes.
    pub const ASIDE: u16 = MIRRORED_AS_IT_IS | MIRRORED;
}

/// One request in flight.
#[derive(Clone)]
pub struct Entry<S> {
    pub owner: S,
    /// When the client's request was read, in microseconds since the origin; repeats keep it.
    pub at_us: u64,
    /// Position in the owner's order of replies.
    pub seq: u32,
    /// Length of the request's bytes.
    pub len: u32,
    /// For [`flag::SUBSCRIPTION`] and [`flag::AHEAD`]: confirmations or replies still to come; for [`flag::FENCE`] its number.
    pub confirmations: u32,
    pub class: Class,
    pub attempts: u8,
    pub flags: u16,
}

impl<S> Entry<S> {
    /// How much longer than a short request this one may rightly take to reach the server, in microseconds.
    pub(super) fn transit_us(&self) -> u64 {
        u64::from(self.len) / SLOWEST_BYTES_PER_MICRO
    }
}

/// Whoever waits for replies: a client's session.
pub trait Owner: Clone + 'static {
    /// Whether both are the same session.
    fn same_as(&self, other: &Self) -> bool;
    /// A number that no other session has while this one lives.
    fn id(&self) -> usize;
    /// Whether the client has left, so that nobody wants the reply.
    fn is_gone(&self) -> bool;
    /// Whole replies to `count` consecutive requests from `seq` on, as the bytes they came in.
    fn replies(&self, seq: u32, count: u32, bytes: &[u8]);
    /// A piece of a long reply; more of it follows.
    fn partial(&self, seq: u32, bytes: &[u8]);
    /// The reply to a request that was flagged [`flag::SPECIAL`].
    fn special(&self, seq: u32, bytes: &[u8]);
    /// Whether a frame on a link that this session owns is a message or monitor line, not a reply.
    fn is_out_of_band(&self, frame: &[u8]) -> bool;
    /// A frame that answers no request, on a link that this session owns.
    fn out_of_band(&self, bytes: &[u8]);
    /// Its reply broke off in the middle: only closing the client's connection is honest.
    fn cut_off(&self);
    /// A request of its own is to be repeated later: no new one may overtake it until `repeated`.
    fn repeating(&self);
    /// The request announced by `repeating` is on its way again, or answered.
    fn repeated(&self);
}

/// What a link asks of its surroundings.
pub trait Host<S: Owner> {
    /// Something happened that the decision makers should know.
    fn edge(&self, backend: BackendId, edge: Edge);
    /// Sends a request again, wherever the route leads now.
    fn reroute(&self, link: &Link<S>, entry: Entry<S>, bytes: &[u8]);
    /// Requests that only read wait behind a script or other slow request: they need not.
    fn overtake(&self, link: &Rc<Link<S>>, now_us: u64);
    /// The server has answered a block that was written ahead, or refused it.
    fn block_answered(&self, link: &Link<S>, owner: &S, bytes: &[u8], refused: bool);
    /// A write may or may not have been executed on this backend.
    fn unknown_write(&self, link: &Link<S>, bytes: &[u8]);
    /// The server has executed a write that is flagged for this.
    fn acknowledged(&self, link: &Link<S>, entry: &Entry<S>, bytes: &[u8], now_us: u64);
    /// No more of these for now.
    fn acknowledged_all(&self, link: &Link<S>, now_us: u64);
    /// Everything that was read in this turn has been handed on.
    fn turned(&self) {}
    /// The link was told to take no new requests, and lives until its last reply has come.
    fn retired(&self, link: &Rc<Link<S>>);
    /// The link will not come back; on a pinned link, what can be sent again is still in its queue.
    fn ended(&self, link: &Rc<Link<S>>);
    /// A random number, for jitter.
    fn jitter(&self) -> u64;
}

/// What a link may retain and repeat.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    pub in_flight_max: usize,
    pub bytes_max: usize,
    pub frame_limits: FrameLimits,
    /// Categories up to this one are sent again after an ambiguous fault.
    pub ceiling: Category,
    pub attempts_max: u8,
    pub backoff_min_us: u64,
    pub backoff_max_us: u64,
}

/// Life of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests may be queued; none is written.
    Connecting,
    /// Requests flow.
    Ready,
    /// No new requests; what was written is awaited, then the connection closes.
    Retired,
    /// Gone.
    Dead,
}

/// Requests and their entries, in order.
pub(super) struct Queue<S> {
    pub(super) bytes: Vec<u8>,
    pub(super) answered: usize,
    pub(super) written: usize,
    pub(super) entries: VecDeque<Entry<S>>,
    /// Requests that wait before they are repeated: due time, entry, bytes.
    pub(super) delayed: Vec<(u64, Entry<S>, Vec<u8>)>,
}

/// A link; see the head of this file.
pub struct Link<S: Owner> {
    pub backend: Arc<Backend>,
    pub lane: Lane,
    pub worker: usize,
    /// The session that owns a pinned link; `None` for multiplexed links and for pinned ones in the pool.
    pub(super) owner: RefCell<Option<S>>,
    pub pinned: bool,
    pub(super) state: Cell<State>,
    pub(super) queue: RefCell<Queue<S>>,
    pub(super) waker: RefCell<Option<Waker>>,
    pub(super) scheduled: Cell<bool>,
    pub(super) gather: Gather,
    pub(super) kill: Cell<bool>,
    /// A write on a connection of one client's own was given up: nobody knows when it is executed, so that the connection
    /// ends, and is proven dead before anything is copied from its server.
    pub(super) gives_up: Cell<bool>,
    /// The server said that it must not be written to: the name may lead elsewhere by now.
    pub(super) renew: Cell<bool>,
    pub(super) since_us: u64,
    /// Names the link within the process.
    pub number: u64,
    /// The incident in which blocks were written ahead on it, and how many.
    blocks: Cell<(u32, u32)>,
    pub(super) client_id: Cell<u64>,
    pub(super) listens: Cell<Listens>,
    /// When the handshake of its present connection began, which proves connections dead that were lost before.
    pub(super) greeted_us: Cell<u64>,
    pub(super) last_progress_us: Cell<u64>,
    /// Since when it has had no connection, while it has none.
    pub(super) connecting_since_us: Cell<u64>,
    /// Replies that have come lately, and how fast.
    pub(super) carried: Cell<Carried>,
    /// Since when attempts to connect have got no answer at all, neither a refusal; 0 while that is not so.
    pub(super) unanswered_since_us: Cell<u64>,
    /// Since when a long reply has been coming in pieces; 0 when none is.
    pub(super) long_reply_since_us: Cell<u64>,
    pub(super) settings: Rc<LinkSettings>,
    pub(super) budget: Rc<RetryBudget>,
    pub(super) host: Rc<dyn Host<S>>,
}

impl<S: Owner> Link<S> {
    /// A link that is about to connect; its driver must be spawned by the caller.
    #[must_use]
    pub fn new(
        backend: Arc<Backend>,
        lane: Lane,
        worker: usize,
        owner: Option<S>,
        settings: Rc<LinkSettings>,
        budget: Rc<RetryBudget>,
        host: Rc<dyn Host<S>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            backend,
            lane,
            worker,
            pinned: owner.is_some(),
            owner: RefCell::new(owner),
            state: Cell::new(State::Connecting),
            queue: RefCell::new(Queue {
                bytes: Vec::new(),
                answered: 0,
                written: 0,
                entries: VecDeque::new(),
                delayed: Vec::new(),
            }),
            waker: RefCell::new(None),
            scheduled: Cell::new(false),
            gather: Gather::default(),
            kill: Cell::new(false),
            gives_up: Cell::new(false),
            renew: Cell::new(false),
            since_us: clock::micros(),
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            blocks: Cell::new((0, 0)),
            client_id: Cell::new(0),
            listens: Cell::new(Listens::Always),
            greeted_us: Cell::new(0),
            last_progress_us: Cell::new(clock::micros()),
            connecting_since_us: Cell::new(clock::micros()),
            carried: Cell::default(),
            unanswered_since_us: Cell::new(0),
            long_reply_since_us: Cell::new(0),
            settings,
            budget,
            host,
        })
    }

    /// Its name among those that write ahead; never 0.
    #[must_use]
    pub fn writer(&self) -> u32 {
        (self.number % u64::from(u32::MAX - 1)) as u32 + 1
    }

    /// The number of the next block that it writes ahead in this incident.
    #[must_use]
    pub fn next_block(&self, incident: u32) -> u32 {
        let (known, next) = self.blocks.get();
        let number = if known == incident { next } else { 0 };
        self.blocks.set((incident, number + 1));
        number
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Whether requests may be queued.
    #[must_use]
    pub fn accepts(&self) -> bool {
        matches!(self.state.get(), State::Connecting | State::Ready)
    }

    /// The server's id of this connection; 0 while unknown.
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.client_id.get()
    }

    /// Whether its connection was made before another one to the same server was lost with requests on it: what is sent
    /// here might be executed before what still lies there.
    #[must_use]
    pub fn may_overtake_the_lost(&self) -> bool {
        let lost_at_us = self.backend.lost_at_us();
        lost_at_us != 0 && self.state.get() == State::Ready && self.greeted_us.get() <= lost_at_us
    }

    /// Whether its connection stood at any time.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        self.greeted_us.get() != 0
    }

    /// When something last came from the server, in microseconds since the origin.
    #[must_use]
    pub fn last_progress_us(&self) -> u64 {
        self.last_progress_us.get()
    }

    /// Requests without a reply.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let queue = self.queue.borrow();
        queue.entries.len() + queue.delayed.len()
    }

    /// How long the oldest request that was written has been without any progress of the link, if it is of a class
    /// that may rightly take long.
    #[must_use]
    pub fn slow_head_for_us(&self, now_us: u64) -> Option<u64> {
        let queue = self.queue.borrow();
        let head = queue.entries.front()?;
        let slow = matches!(head.class, Class::Script | Class::Slow);
        (slow && queue.written > queue.answered)
            .then(|| now_us.saturating_sub(head.at_us.max(self.last_progress_us.get())))
    }

    /// How long a reply that is forwarded in pieces has been coming: everything behind it waits.
    #[must_use]
    pub fn long_reply_for_us(&self, now_us: u64) -> Option<u64> {
        let since = self.long_reply_since_us.get();
        (since != 0).then(|| now_us.saturating_sub(since))
    }

    /// Hands out, to be sent over another link, what only reads and waits behind the head: the server has executed nothing
    /// behind a script that it has not answered. Behind a long reply it may have, and executes them once more: what has
    /// overtaken once does not do so again, or the work for many long replies would grow with the square of their number.
    /// Only sessions that do nothing but read here take part: a read of another one could be answered by a state from
    /// before or after its own writes. The replies that still come here are dropped.
    #[must_use]
    pub fn take_reads_behind_head(&self) -> Vec<(Entry<S>, Vec<u8>)> {
        let mut guard = self.queue.borrow_mut();
        let queue = &mut *guard;
        if queue.entries.len() > OVERTAKING_MAX {
            return Vec::new();
        }
        let mut moves = Vec::with_capacity(queue.entries.len());
        let mut staying: Vec<S> = Vec::new();
        let mut start = queue.answered;
        for (at, entry) in queue.entries.iter().enumerate() {
            let bytes = &queue.bytes[start..start + entry.len as usize];
            start += entry.len as usize;
            let only_reads = at > 0 && entry.flags & !flag::ASIDE == 0 && category(bytes) == Category::Read;
            if !only_reads
                && entry.flags & flag::ABANDONED == 0
                && !staying.iter().any(|owner| owner.same_as(&entry.owner))
            {
                staying.push(entry.owner.clone());
            }
            moves.push(only_reads);
        }
        let mut taken = Vec::new();
        let mut start = queue.answered;
        for (entry, only_reads) in queue.entries.iter_mut().zip(moves) {
            let bytes = &queue.bytes[start..start + entry.len as usize];
            start += entry.len as usize;
            if only_reads && !staying.iter().any(|owner| owner.same_as(&entry.owner)) {
                taken.push((Entry { flags: flag::OVERTOOK, ..entry.clone() }, bytes.to_vec()));
                entry.flags |= flag::ABANDONED;
            }
        }
        taken
    }

    /// Writes that were written to the server and not answered, each with its bytes; those of an open transaction not
    /// counted, since the server has only queued them.
    pub fn each_write_in_flight(&self, mut each: impl FnMut(&[u8])) {
        let queue = self.queue.borrow();
        let mut start = queue.answered;
        for entry in &queue.entries {
            let range = start..start + entry.len as usize;
            start = range.end;
            let is_sent = range.start < queue.written && entry.flags & flag::QUEUED == 0;
            if is_sent && category(&queue.bytes[range.clone()]) > Category::Read {
                each(&queue.bytes[range]);
            }
        }
    }

    /// Flags every write that is on its way, so that [`Host::acknowledged`] is told of it.
    pub fn mirror_all(&self) {
        let mut guard = self.queue.borrow_mut();
        let queue = &mut *guard;
        let mut start = queue.answered;
        for entry in &mut queue.entries {
            let range = start..start + entry.len as usize;
            start = range.end;
            let is_flagged = entry.flags & (flag::ASIDE | flag::QUEUED) != 0;
            let spec = crate::command::of_request(&queue.bytes[range]);
            if !is_flagged && (spec.is_write() || spec.handling == Handling::Exec) {
                entry.flags |= flag::MIRRORED;
            }
        }
    }

    /// Whether a flagged write of at least this age is on its way.
    #[must_use]
    pub fn has_mirrored_since(&self, at_us: u64) -> bool {
        let queue = self.queue.borrow();
        let waits = |entry: &Entry<S>| entry.flags & flag::ASIDE != 0 && entry.class != Class::Blocking;
        queue.entries.iter().any(|entry| waits(entry) && entry.at_us <= at_us)
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.backend.counters[self.worker]
    }

    /// The gauge of requests in flight on this kind of link.
    pub(super) fn gauge(&self) -> &Counter {
        if self.pinned { &self.counters().pinned_in_flight } else { &self.counters().in_flight }
    }

    /// Begins to append requests; `None` when a bound is reached and the request must be shed.
    #[must_use]
    pub fn batch(&self) -> Option<Batch<'_, S>> {
        let queue = self.queue.borrow_mut();
        let full = queue.entries.len() >= self.settings.in_flight_max
            || queue.bytes.len() - queue.answered >= self.settings.bytes_max;
        if full {
            self.counters().shed.add(1);
            return None;
        }
        let before = queue.entries.len();
        Some(Batch { link: self, queue, before })
    }

    /// Appends one request without regard to the bounds: what is sent again was counted before.
    pub fn push(&self, mut entry: Entry<S>, bytes: &[u8]) {
        entry.flags &= !(flag::REPEAT | flag::DOUBTFUL);
        let mut queue = self.queue.borrow_mut();
        let before = queue.entries.len();
        let mut batch = Batch {
            link: self,
            queue: {
                queue.bytes.extend_from_slice(bytes);
                queue
            },
            before,
        };
        batch.queue.entries.push_back(entry);
    }

    /// Lets the driver run once all sessions that are ready have had their turn.
    pub fn schedule(&self) {
        if !self.scheduled.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// Whether what is not written yet may wait for the answer to what was; see `gather`.
    pub(super) fn gathers(&self, queue: &Queue<S>, now_us: u64) -> bool {
        if !self.gather.holds(queue.bytes.len() - queue.written, now_us) || self.pinned {
            return false;
        }
        let (Some(head), Some(last)) = (queue.entries.front(), queue.entries.back()) else { return false };
        matches!(head.class, Class::PointRead | Class::Write | Class::MultiKey) && !head.owner.same_as(&last.owner)
    }

    /// Takes no further requests; closes once all are answered. What is not written yet stays: the session that it
    /// belongs to may have earlier requests on their way here, which it must not overtake on another connection.
    pub fn retire(&self) {
        if self.state.get() != State::Dead {
            self.state.set(State::Retired);
            self.schedule();
        }
    }

    /// Ends the connection now, since its backend is left, and hands out what may be sent elsewhere.
    #[must_use]
    pub fn abort(&self) -> Vec<(Entry<S>, Vec<u8>)> {
        if self.state.get() == State::Dead {
            return Vec::new();
        }
        self.state.set(State::Dead);
        self.kill.set(true);
        self.leave();
        let all = self.take_unsent();
        self.schedule();
        all
    }

    /// The session that owns it.
    #[must_use]
    pub fn owner(&self) -> Option<S> {
        self.owner.borrow().clone()
    }

    /// What was left when the link ended, in order.
    #[must_use]
    pub fn take_left(&self) -> Vec<(Entry<S>, Vec<u8>)> {
        self.take_unsent()
    }

    /// Gives a pinned link to a session, or to the pool.
    pub fn set_owner(&self, owner: Option<S>) {
        *self.owner.borrow_mut() = owner;
    }

    /// Removes and returns the requests of which no byte was written.
    pub(super) fn take_unsent(&self) -> Vec<(Entry<S>, Vec<u8>)> {
        let mut guard = self.queue.borrow_mut();
        let queue = &mut *guard;
        let mut taken = Vec::new();
        let mut end = queue.bytes.len();
        while let Some(entry) = queue.entries.back() {
            let start = end - entry.len as usize;
            // A request of which a part went out must follow with the rest, or the stream is broken.
            if start < queue.written {
                break;
            }
            let Some(entry) = queue.entries.pop_back() else { break };
            taken.push((entry, queue.bytes[start..end].to_vec()));
            end = start;
        }
        queue.bytes.truncate(end);
        taken.reverse();
        let delayed: Vec<_> = queue.delayed.drain(..).collect();
        self.gauge().sub(taken.len() as u64);
        drop(guard);
        for (_, entry, bytes) in delayed {
            entry.owner.repeated();
            taken.push((entry, bytes));
        }
        taken.retain(|(entry, _)| entry.flags & flag::ABANDONED == 0 && !entry.owner.is_gone());
        taken
    }
}

/// Appending to a link's queue; the driver is woken once, when this is dropped.
pub struct Batch<'a, S: Owner> {
    link: &'a Link<S>,
    queue: RefMut<'a, Queue<S>>,
    before: usize,
}

impl<S: Owner> Batch<'_, S> {
    /// Appends the entry of the next request; its bytes come with [`Self::bytes`], in the same order.
    pub fn entry(&mut self, entry: Entry<S>) {
        self.queue.entries.push_back(entry);
    }

    /// Takes the place of an entry whose bytes come with [`Self::fill`], before those of the entries behind it.
    pub fn reserve(&mut self, entry: Entry<S>) -> usize {
        self.queue.entries.push_back(entry);
        self.queue.entries.len() - 1
    }

    /// Fills a place; the bytes of the entries behind it have not been appended yet.
    pub fn fill(&mut self, place: usize, entry: Entry<S>, bytes: &[u8]) {
        self.queue.entries[place] = entry;
        self.queue.bytes.extend_from_slice(bytes);
    }

    /// Appends the bytes of one or more requests.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.queue.bytes.extend_from_slice(bytes);
    }

    /// Whether another request would go over a bound.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.entries.len() >= self.link.settings.in_flight_max
    }
}

impl<S: Owner> Drop for Batch<'_, S> {
    fn drop(&mut self) {
        self.link.gauge().add((self.queue.entries.len() - self.before) as u64);
        let now_us = self.queue.entries.back().map_or(0, |entry| entry.at_us);
        if !self.link.gathers(&self.queue, now_us) {
            self.link.schedule();
        }
    }
}

/// Gives memory back after a burst.
pub(super) fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity() > limits::BUFFER_KEEP_BYTES {
        *buffer = Vec::new();
    }
}
