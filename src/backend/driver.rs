//! The task that owns a link's socket: connects, writes what sessions have queued, cuts replies and hands them on, and
//! finds out what a loss means for the requests in flight.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::clock;
use super::fault;
use super::handshake::{self, Depth, HandshakeError};
use super::io::Io;
use super::link::{Entry, Link, Owner, State, flag};
use super::replies::Cutter;
use super::target::Login;
use crate::command::{Category, Class};
use crate::policy::{Cause, Edge, FailureKind};

/// Attempts to reconnect a link for which no request waits, before it is given up until one does.
const IDLE_ATTEMPTS_MAX: u32 = 3;
/// Logins of a client's user on the backend, whose secret may just be changing, before its requests are refused.
const USER_LOGIN_ATTEMPTS_MAX: u32 = 4;
/// Pause before the second attempt: a dead process is told from a lost connection within a few milliseconds.
const SECOND_ATTEMPT_PAUSE: Duration = Duration::from_millis(1);
/// A link that a replica answered is replaced at most this often.
const RENEW_EVERY_US: u64 = 1_000_000;
/// While a stall lasts, the decision makers are told again this often.
const STALL_REPEAT_US: u64 = 50_000;

/// Why a ready connection ended.
#[derive(Debug)]
enum End {
    /// Closed or reset by the other side or on the way.
    Lost,
    /// The server's bytes made no sense.
    Broken,
    /// We wanted it so.
    Wanted,
}

/// Runs a link until it is dead. Multiplexed links reconnect; pinned ones end with their connection.
pub async fn run<S: Owner>(link: Rc<Link<S>>, login: Login) {
    let mut attempt: u32 = 0;
    while matches!(link.state.get(), State::Connecting | State::Ready) {
        let Some(outcome) = link.wait_for(connect(&link, &login, attempt)).await else { break };
        match outcome {
            Ok(io) => {
                attempt = 0;
                let end = serve(&link, io).await;
                if matches!(end, End::Wanted) {
                    break;
                }
                // Whatever was in flight is answered or kept before anything else is decided, also on a retired link.
                link.lose();
                if !link.accepts() {
                    break;
                }
                if link.state.replace(State::Connecting) == State::Ready {
                    link.connecting_since_us.set(clock::micros());
                }
                link.counters().links_lost.add(1);
                let edge = if matches!(end, End::Broken) {
                    link.counters().fail(Cause::BrokenFrame.meaning().kind, 1);
                    Edge::HandshakeReset
                } else {
                    Edge::LinkLost
                };
                link.host.edge(link.backend.id, edge);
                if link.pinned {
                    break;
                }
            }
            Err(HandshakeError::User(text)) if login.is_clients => {
                // As the server does to the clients of a user that it no longer takes.
                link.fail_all(&format!("-{text}\r\n"));
                if let Some(owner) = link.owner() {
                    owner.cut_off();
                }
                break;
            }
            Err(error) => {
                if let Some(edge) = error.edge() {
                    link.host.edge(link.backend.id, edge);
                }
                tracing::debug!(backend = link.backend.name, %error, "no connection");
                if let HandshakeError::Database(text) = &error {
                    link.fail_all(&format!("-{text}\r\n"));
                    break;
                }
                attempt += 1;
                if let HandshakeError::User(text) = &error
                    && attempt >= USER_LOGIN_ATTEMPTS_MAX
                {
                    link.fail_all(&format!(
                        "-ERR backend {} refuses the login of this user: {text}\r\n",
                        link.backend.name
                    ));
                    break;
                }
                let idle = link.in_flight() == 0;
                if link.pinned || (idle && attempt >= IDLE_ATTEMPTS_MAX) {
                    break;
                }
                let pause = pause(&link, attempt);
                let waited = link.wait_for(async {
                    if attempt > 2 && link.backend.is_unreachable() {
                        link.backend.wait_reachable(pause).await;
                    } else {
                        tokio::time::sleep(pause).await;
                    }
                });
                if waited.await.is_none() {
                    break;
                }
            }
        }
    }
    link.state.set(State::Dead);
    link.host.ended(&link);
}

/// Full jitter (a random share of an exponentially growing span), after two quick attempts.
fn pause<S: Owner>(link: &Link<S>, attempt: u32) -> Duration {
    if attempt == 1 {
        return SECOND_ATTEMPT_PAUSE;
    }
    let max = link.backend.timing.reconnect_max.as_micros() as u64;
    let min = link.backend.timing.reconnect_min.as_micros() as u64;
    let span = max.min(min << (attempt - 2).min(16)).max(1);
    Duration::from_micros(link.host.jitter() % span)
}

/// One attempt: connect, shake hands, and wait until the server's content is admitted.
async fn connect<S: Owner>(link: &Rc<Link<S>>, login: &Login, attempt: u32) -> Result<Io, HandshakeError> {
    let backend = &link.backend;
    // While it is unreachable one scout tries; the others are woken by its success.
    let _scout = if attempt > 0 && backend.is_unreachable() {
        match backend.try_scout() {
            Some(scout) => Some(scout),
            None => {
                backend.wait_reachable(backend.timing.reconnect_max).await;
                None
            }
        }
    } else {
        None
    };
    let depth = if link.pinned { Depth::Brief } else { Depth::Whole };
    if link.unanswered_since_us.get() == 0 {
        link.unanswered_since_us.set(clock::micros());
    }
    let began_us = clock::micros();
    let outcome = handshake::connect(backend, link.lane, login, depth).await;
    if !matches!(outcome, Err(HandshakeError::ConnectTimedOut | HandshakeError::TimedOut)) {
        link.unanswered_since_us.set(0);
    }
    let mut ready = match outcome {
        Ok(ready) => ready,
        Err(error) => {
            if matches!(error, HandshakeError::Connect(_) | HandshakeError::ConnectTimedOut) {
                backend.set_unreachable(true);
            }
            return Err(error);
        }
    };
    backend.set_unreachable(false);
    if ready.identity.is_loading {
        return Err(HandshakeError::NotReady("LOADING the server is loading its dataset".to_owned()));
    }
    // A server that runs a script too long answers little else than SCRIPT KILL, which must find its way, and -BUSY,
    // which clients are to see: a verified connection that still stands vouches for the new one.
    let is_vouched_for = ready.identity.is_busy && backend.has_standing_link();
    if ready.identity.is_busy && !is_vouched_for {
        return Err(HandshakeError::NotReady("BUSY the server is running a script".to_owned()));
    }
    let is_admitted = is_vouched_for || backend.is_admitted(&ready.identity);
    if !is_admitted {
        // Another content than the one checked: the decision makers look at it before a request may go there.
        backend.seen.store(Some(Arc::new(ready.identity.clone())));
        link.host.edge(backend.id, Edge::IdentityChanged);
    }
    link.host.edge(backend.id, Edge::HandshakeDone);
    if !is_admitted {
        // The server may die again before anybody has looked: then its successor is another one, and waiting for this
        // one would never end.
        tokio::select! {
            () = backend.wait_admitted(&ready.identity) => {}
            () = ready.conversation.wait_closed() => {
                return Err(HandshakeError::Broken(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }
    if backend.is_sealed(link.lane.database) {
        tokio::select! {
            () = backend.wait_unsealed(link.lane.database) => {}
            () = ready.conversation.wait_closed() => {
                return Err(HandshakeError::Broken(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }
    link.client_id.set(ready.client_id);
    link.greeted_us.set(began_us);
    ready.conversation.into_io().ok_or_else(|| HandshakeError::Broken(io::ErrorKind::InvalidData.into()))
}

impl<S: Owner> Link<S> {
    /// Drives `future` while requests wait: answers those whose life ends; `None` when the link is no longer wanted.
    async fn wait_for<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|cx| {
            self.remember(cx);
            if self.kill.get() || !self.accepts() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            while timer.as_mut().poll(cx).is_ready() {
                let now = clock::micros();
                self.sweep(now);
                self.repeat_due(now);
                let next = self.note_unanswered(now).unwrap_or(u64::MAX);
                timer.as_mut().reset(clock::instant(next.min(now + 20_000)));
            }
            Poll::Pending
        })
        .await
    }

    /// A connection attempt that is not answered is silence like any other: when a request has waited behind it for as
    /// long as it may wait for a reply, the decision makers are told, and not only when attempts have timed out. Returns
    /// when to look again, in microseconds since the origin.
    fn note_unanswered(&self, now_us: u64) -> Option<u64> {
        let since = self.unanswered_since_us.get();
        let head = self.queue.borrow().entries.front().map(|head| head.at_us).filter(|_| since != 0)?;
        let since = since.max(head);
        let allowance = self.backend.allowance_us(Class::PointRead as usize);
        let due = since + allowance.max(self.backend.timing.floor.as_micros() as u64);
        if now_us < due {
            return Some(due);
        }
        let silent_for = Duration::from_micros(now_us - since);
        self.host.edge(self.backend.id, Edge::Stalled { silent_for });
        Some(now_us + STALL_REPEAT_US)
    }

    fn remember(&self, cx: &Context<'_>) {
        self.scheduled.set(false);
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// When the first of the requests that pause before their repeat is due, in microseconds.
    fn next_repeat(&self) -> Option<u64> {
        self.queue.borrow().delayed.iter().map(|(at, ..)| *at).min()
    }

    /// Sends the requests whose pause is over again, wherever the route leads now.
    fn repeat_due(&self, now_us: u64) {
        if self.queue.borrow().delayed.is_empty() {
            return;
        }
        let mut due = Vec::new();
        self.queue.borrow_mut().delayed.retain_mut(|(at, entry, bytes)| {
            let is_due = *at <= now_us;
            if is_due {
                due.push((entry.clone(), std::mem::take(bytes)));
            }
            !is_due
        });
        for (entry, bytes) in due {
            let owner = entry.owner.clone();
            if !owner.is_gone() {
                self.host.reroute(self, entry, &bytes);
            }
            // Afterwards, so that at any moment it counts as waiting or as under way.
            owner.repeated();
        }
    }
}

/// Moves both halves of the connection in the same turn until it ends.
async fn serve<S: Owner>(link: &Rc<Link<S>>, io: Io) -> End {
    link.charge_repeats();
    link.state.set(State::Ready);
    link.last_progress_us.set(clock::micros());
    link.gather.reset();
    link.long_reply_since_us.set(0);
    let gauge = if link.pinned { &link.counters().pinned } else { &link.counters().links };
    gauge.add(1);
    let mut service = Service {
        link,
        io,
        cutter: Cutter::new(link),
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        armed: false,
        slow_until_us: 0,
        is_blocked: false,
    };
    let end = poll_fn(|cx| service.poll(cx)).await;
    gauge.sub(1);
    service.end_slow();
    end
}

struct Service<'a, S: Owner> {
    link: &'a Rc<Link<S>>,
    io: Io,
    cutter: Cutter<S>,
    timer: Pin<Box<tokio::time::Sleep>>,
    armed: bool,
    /// What this link wrote into the worker's cell; another link's longer excuse is left alone.
    slow_until_us: u64,
    /// The socket has taken a part of the last write only.
    is_blocked: bool,
}

impl<S: Owner> Service<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.link.remember(cx);
        if self.link.kill.get() {
            return Poll::Ready(End::Wanted);
        }
        if let Err(end) = self.poll_write(cx) {
            return Poll::Ready(end);
        }
        if let Err(end) = self.poll_read(cx) {
            return Poll::Ready(end);
        }
        if self.link.long_reply_since_us.get() != 0 && !self.link.pinned {
            self.link.host.overtake(self.link, clock::micros());
        }
        self.renew();
        if self.link.state.get() == State::Retired && self.link.in_flight() == 0 {
            return Poll::Ready(End::Wanted);
        }
        self.note_slow_head();
        self.poll_timer(cx);
        if self.link.gives_up.take() {
            return Poll::Ready(End::Lost);
        }
        Poll::Pending
    }

    /// A managed service moves the name to the new master and leaves the old one as a replica: a new connection follows
    /// the name. At most once a second, for where the name does not move this would only cost connections.
    fn renew(&mut self) {
        let link = self.link;
        if !link.renew.take() || link.pinned || link.state.get() != State::Ready {
            return;
        }
        if clock::micros().saturating_sub(link.since_us) < RENEW_EVERY_US {
            return;
        }
        link.retire();
        link.host.retired(link);
    }

    /// Tells the decision makers that silence is rightful while a slow request is at work.
    fn note_slow_head(&mut self) {
        let link = self.link;
        let slow = {
            let queue = link.queue.borrow();
            queue
                .entries
                .front()
                .filter(|head| matches!(head.class, Class::Script | Class::Slow))
                .map(|head| head.class)
        };
        if let Some(class) = slow {
            if self.slow_until_us == 0 {
                let until = clock::micros() + link.backend.allowance_us(class as usize);
                self.slow_until_us = until;
                link.counters().slow_until_us.set(until.max(link.counters().slow_until_us.get()));
            }
        } else {
            self.end_slow();
        }
    }

    fn end_slow(&mut self) {
        let ours = std::mem::take(&mut self.slow_until_us);
        if ours != 0 && self.link.counters().slow_until_us.get() == ours {
            self.link.counters().slow_until_us.set(0);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut queue = self.link.queue.borrow_mut();
        let before = queue.written;
        if before < queue.bytes.len() {
            let now_us = clock::micros();
            if !self.is_blocked && self.link.gathers(&queue, now_us) {
                return Ok(());
            }
            self.is_blocked = false;
            while queue.written < queue.bytes.len() {
                match Pin::new(&mut self.io).poll_write(cx, &queue.bytes[queue.written..]) {
                    Poll::Ready(Ok(n)) if n > 0 => queue.written += n,
                    Poll::Ready(_) => return Err(End::Lost),
                    Poll::Pending => {
                        self.is_blocked = true;
                        break;
                    }
                }
            }
            self.link.gather.wrote(queue.written - before, before - queue.answered, now_us);
        }
        let wrote = queue.written > before;
        drop(queue);
        if (wrote || self.io_buffers())
            && let Poll::Ready(Err(_)) = Pin::new(&mut self.io).poll_flush(cx)
        {
            return Err(End::Lost);
        }
        Ok(())
    }

    /// Whether the stream keeps bytes that only a flush sends.
    fn io_buffers(&self) -> bool {
        matches!(self.io, Io::TlsClient(_))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let space = self.cutter.space();
            let mut buffer = ReadBuf::new(space);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Ready(Ok(())) => {
                    let n = buffer.filled().len();
                    if n == 0 {
                        return Err(End::Lost);
                    }
                    let now = clock::micros();
                    self.link.last_progress_us.set(now);
                    self.link.gather.read(now);
                    // What waited for this reply goes first: the server works on it while we hand the replies out.
                    self.poll_write(cx)?;
                    if let Err(error) = self.cutter.received(self.link, n, now) {
                        tracing::warn!(backend = self.link.backend.name, %error, "the server broke the protocol");
                        return Err(End::Broken);
                    }
                    if self.link.kill.get() {
                        return Err(End::Wanted);
                    }
                }
            }
        }
    }

    /// One timer per link, for its head: when nothing has moved for the allowance of the head's class, the decision
    /// makers are told. Re-armed only when it fires, so that a busy link pays nothing per request, and for a repeat that
    /// is due before that.
    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        let link = self.link;
        if !self.armed {
            if link.in_flight() == 0 {
                return;
            }
            self.armed = true;
            let now = clock::micros();
            let next = self.next_check(now).unwrap_or(now);
            self.timer.as_mut().reset(clock::instant(next));
        } else if let Some(repeat) = link.next_repeat().map(clock::instant)
            && repeat < self.timer.deadline()
        {
            self.timer.as_mut().reset(repeat);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = clock::micros();
            link.repeat_due(now);
            link.sweep(now);
            if !link.pinned && link.slow_head_for_us(now).is_some_and(|waited| waited > 0) {
                link.host.overtake(link, now);
            }
            let Some(mut next) = self.next_check(now) else {
                self.armed = false;
                return;
            };
            if next <= now {
                let silent_for = Duration::from_micros(now.saturating_sub(self.waiting_since(now)));
                link.host.edge(link.backend.id, Edge::Stalled { silent_for });
                next = now + STALL_REPEAT_US;
            }
            self.timer.as_mut().reset(clock::instant(next));
        }
    }

    /// Since when the head has waited without progress: its own arrival, or the link's last reply.
    fn waiting_since(&self, now_us: u64) -> u64 {
        let queue = self.link.queue.borrow();
        let head_at = queue.entries.front().map_or(now_us, |head| head.at_us);
        self.link.last_progress_us.get().max(head_at).min(now_us)
    }

    /// When the head will have waited for its allowance, or the next delayed request is due; never further ahead than
    /// the floor, since a shorter-lived head may follow a slow one.
    fn next_check(&self, now_us: u64) -> Option<u64> {
        let link = self.link;
        let floor = link.backend.timing.floor.as_micros() as u64;
        let repeat = link.next_repeat();
        let queue = link.queue.borrow();
        let head = queue.entries.front().map(|head| {
            if head.class == Class::Blocking || head.flags & flag::SUBSCRIPTION != 0 {
                return now_us + floor;
            }
            let since = link.last_progress_us.get().max(head.at_us).min(now_us);
            let allowance = link.backend.allowance_us(head.class as usize) + head.transit_us();
            (since + allowance).min((now_us + floor).max(since + allowance.min(floor)))
        });
        [repeat, head].into_iter().flatten().min()
    }
}

/// What to do with an error reply.
pub(super) enum ErrorVerdict {
    Deliver,
    Repeat,
}

/// Judges an error reply by its first word; counts it, and tells the decision makers what is about the server.
pub(super) fn judge_error<S: Owner>(link: &Link<S>, entry: &Entry<S>, reply: &[u8]) -> ErrorVerdict {
    let cause = fault::cause(reply, entry);
    let meaning = cause.meaning();
    link.counters().fail(meaning.kind, 1);
    if meaning.kind == FailureKind::Data {
        return ErrorVerdict::Deliver;
    }
    if let Some(edge) = fault::edge(cause) {
        link.host.edge(link.backend.id, edge);
    }
    if cause == Cause::ReadOnly {
        link.renew.set(true);
    }
    // Nothing was executed, so the category does not matter here.
    let repeatable = fault::may_repeat(cause, Category::Never, link.settings.ceiling) && !link.pinned;
    if repeatable && entry.attempts < link.settings.attempts_max && link.budget.try_take() {
        ErrorVerdict::Repeat
    } else {
        ErrorVerdict::Deliver
    }
}
