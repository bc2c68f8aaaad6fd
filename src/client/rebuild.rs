//! A session whose own connection was lost is set up again on the backend that is active then.

use std::future::Future as _;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context as TaskContext;
use std::time::Duration;

use super::modes::Watch;
use super::session::{Left, Session};
use super::task::SessionTask;
use super::transaction::{EXEC_ABORT, in_databases, wrong_arity};
use crate::backend::{Entry, Host as _, Link, Owner as _, flag};
use crate::command::{self, Class, Handling};
use crate::policy::BackendId;
use crate::resp::{self, write};
use crate::route::Availability;

/// Longest pause between attempts to replace a connection that was lost.
const PIN_RETRY_MAX_US: u64 = 50_000;
/// A connection that lasted this long before it was lost is replaced at once.
const PIN_CALM_US: u64 = 2_000_000;

impl SessionTask {
    pub(super) fn follow_route(&mut self, active: BackendId) {
        self.doubt_sent_transaction();
        if let Some(link) = self.state.pinned.clone().filter(|link| link.backend.id != active) {
            link.set_owner(None);
            let left = link.abort();
            self.pinned_lost(&link, left);
            if self.has_second(active) {
                // It stands already, and hears what is published there from now on.
                self.recover_pinned();
            }
        } else if self.state.is_recovering() {
            self.recover_pinned();
        } else if self.session.context.route().availability == Availability::Holding {
            self.part_from_backend();
        }
    }

    pub(super) fn pinned_lost(&mut self, link: &Rc<Link<Session>>, left: Left) {
        if self.is_second(link) {
            return self.session.drop_second();
        }
        let is_ours = self.state.pinned.as_ref().is_some_and(|pinned| Rc::ptr_eq(pinned, link));
        if !is_ours {
            return;
        }
        self.state.count_blocked(self.session.context.worker, None);
        self.state.pinned = None;
        self.state.lost_link = Some(Rc::clone(link));
        self.session.owned.replace(None);
        self.state.orphans = left;
        let before = std::mem::replace(&mut self.state.pin_lost_us, self.now_us);
        if self.now_us.saturating_sub(before) > PIN_CALM_US {
            self.state.pin_attempts = 0;
        }
        self.state.orphaned_since_us = self.now_us.max(1);
        self.state.is_pristine = true;
        if link.was_ready() {
            // One that never came to be has tracked nothing, and what was lost with the one before was told.
            self.tracking_lost();
        }
        self.schedule_recovery();
    }

    pub(super) fn schedule_recovery(&mut self) {
        self.state.pin_attempts += 1;
        let span = (1_000u64 << self.state.pin_attempts.min(10)).min(PIN_RETRY_MAX_US);
        let pause = if self.state.pin_attempts == 1 { 0 } else { self.session.context.jitter() % span };
        self.state.pin_timer = Some(Box::pin(tokio::time::sleep(Duration::from_micros(pause))));
    }

    /// Whether it is time to try again; keeps the timer registered otherwise.
    pub(super) fn poll_pin_timer(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let Some(timer) = self.state.pin_timer.as_mut() else { return false };
        let due = timer.as_mut().poll(cx).is_ready();
        if due {
            self.state.pin_timer = None;
        }
        due
    }

    /// Sets the session up again on the backend that is active now, and sends what was not answered.
    pub(super) fn recover_pinned(&mut self) {
        if !self.state.is_recovering() {
            return;
        }
        let context = Rc::clone(&self.session.context);
        let (active, availability, _) = context.route_facts();
        let waited = self.now_us.saturating_sub(self.state.orphaned_since_us);
        if availability == Availability::Holding && waited < self.request_timeout_us() {
            return self.schedule_recovery();
        }
        if self.state.watch == Watch::Live {
            self.state.watch = Watch::Broken;
        }
        if let Some(transaction) = &mut self.state.transaction
            && (self.state.watch == Watch::Broken || transaction.log.is_none())
        {
            // What was watched may have changed, or what was queued is too long to be queued again. Only the former is a
            // nil: who has watched nothing expects none.
            transaction.is_doomed = true;
            transaction.is_spoiled |= self.state.watch != Watch::Broken;
        }
        if availability != Availability::Serving && waited >= self.request_timeout_us() {
            return self.fail_orphans();
        }
        let left = std::mem::take(&mut self.state.orphans);
        let left = self.answer_doubtful(left, active);
        let left = self.answer_doomed(left);
        if left.is_empty() && !self.state.needs_pin() {
            return self.recovered();
        }
        let second = self.take_second(active);
        let is_subscribed = second.is_some();
        let Some(link) = second.or_else(|| context.pin(active, self.state.lane(), self.session.clone())) else {
            self.state.orphans = left;
            return self.schedule_recovery();
        };
        self.note_resent(&link, &left);
        let unanswered = left.iter().filter(|(entry, bytes)| is_logged(entry, bytes)).count();
        // Tracking comes first: what is read from here on is watched.
        self.state.pinned = Some(Rc::clone(&link));
        self.renew_tracking();
        if !is_subscribed {
            self.subscribe_on(&link);
        }
        self.set_up(&link, unanswered);
        if left.iter().any(|(entry, _)| entry.class == Class::Blocking) {
            self.state.count_blocked(context.worker, Some(Arc::clone(&link.backend)));
        }
        for (entry, bytes) in left {
            let (entry, bytes) = self.with_time_left(entry, bytes);
            link.push(context.mirrored_entry(entry, &bytes), &bytes);
        }
        let is_pristine = self.state.is_pristine;
        self.own(&link);
        self.state.is_pristine = is_pristine;
        self.recovered();
    }

    /// A request that waits on purpose goes on with the time that is left of it.
    fn with_time_left(&self, entry: Entry<Session>, bytes: Vec<u8>) -> (Entry<Session>, Vec<u8>) {
        let spec = command::of_request(&bytes);
        let whole = command::blocking_timeout(spec, &bytes).filter(|_| entry.class == Class::Blocking);
        let waited = Duration::from_micros(self.now_us.saturating_sub(entry.at_us));
        match whole.and_then(|whole| command::with_timeout(spec, &bytes, whole.saturating_sub(waited))) {
            // From now on it is as old as its time says.
            Some(bytes) => (Entry { at_us: self.now_us, len: bytes.len() as u32, ..entry }, bytes),
            None => (entry, bytes),
        }
    }

    /// Reads that the server which was lost must not be asked again, if it serves still.
    fn answer_doubtful(&self, mut left: Left, active: BackendId) -> Left {
        let lost = self.state.lost_link.as_ref().filter(|link| link.backend.id == active);
        if let Some(lost) = lost {
            left.retain(|(entry, _)| {
                let is_doubtful = entry.flags & flag::DOUBTFUL != 0;
                if is_doubtful {
                    lost.answer_doubtful(entry);
                }
                !is_doubtful
            });
        }
        left
    }

    fn recovered(&mut self) {
        self.state.lost_link = None;
        self.state.orphaned_since_us = 0;
        self.state.pin_timer = None;
    }

    /// Nobody can take the session over in time: its unanswered requests fail.
    fn fail_orphans(&mut self) {
        for (entry, _) in std::mem::take(&mut self.state.orphans) {
            let text: &[u8] = if entry.flags & flag::UNSETTLED != 0 {
                b"-UNKNOWNOUTCOME the connection was lost and no backend can serve now; it may or may not be executed\r\n"
            } else {
                b"-NOBACKEND no backend can serve now; see `standin status`\r\n"
            };
            if entry.flags & flag::SPECIAL != 0 {
                self.finish_special(entry.seq, text.to_vec());
            } else {
                self.session.answer(entry.seq, text);
            }
        }
        if self.state.transaction.is_some() {
            self.state.watch = Watch::Broken;
        }
        self.schedule_recovery();
        self.state.orphaned_since_us = self.now_us;
    }

    /// In a transaction whose WATCH was lost, what was on its way is answered here. So is what a transaction had queued
    /// that ended with an EXEC of unknown outcome, and a MULTI: the new connection is given one in any case.
    fn answer_doomed(&mut self, mut left: Left) -> Left {
        let Some(transaction) = &self.state.transaction else {
            left.retain(|(entry, bytes)| {
                let handling = command::of_request(bytes).handling;
                // A WATCH is lost already: EXEC will be answered here, so the new connection must not watch.
                let is_over = entry.flags & flag::QUEUED != 0 || handling == Handling::Watch;
                if is_over {
                    let is_queued = !matches!(handling, Handling::Multi | Handling::Watch | Handling::Discard);
                    self.answer_left(entry, if is_queued { b"+QUEUED\r\n" } else { b"+OK\r\n" });
                }
                !is_over
            });
            return left;
        };
        if !transaction.is_doomed {
            let unanswered = left.iter().filter(|(entry, bytes)| is_logged(entry, bytes)).count();
            let nothing_answered = transaction.log.as_ref().is_none_or(|log| log.len() == unanswered);
            let is_first = |(_, bytes): &(_, Vec<u8>)| command::of_request(bytes).handling == Handling::Multi;
            if nothing_answered && left.first().is_some_and(is_first) {
                let (multi, _) = left.remove(0);
                self.answer_left(&multi, b"+OK\r\n");
            }
            return left;
        }
        let is_spoiled = transaction.is_spoiled;
        for (entry, bytes) in left {
            let spec = command::of_request(&bytes);
            match spec.handling {
                Handling::Exec => {
                    let mut out = Vec::new();
                    if is_spoiled {
                        write::error(&mut out, EXEC_ABORT);
                    } else {
                        write::null_array(&mut out, self.state.protocol);
                    }
                    self.finish_special(entry.seq, out);
                }
                Handling::Discard | Handling::Multi | Handling::Watch => {
                    self.session.answer(entry.seq, b"+OK\r\n");
                }
                _ => self.session.answer(entry.seq, b"+QUEUED\r\n"),
            }
        }
        Vec::new()
    }

    /// Answers a request that was on its way, here.
    fn answer_left(&self, entry: &Entry<Session>, reply: &[u8]) {
        if entry.flags & flag::SPECIAL != 0 {
            self.session.special(entry.seq, reply);
        } else {
            self.session.answer(entry.seq, reply);
        }
    }

    /// Puts a new connection into the client's states, and has it listen to what the client listens to.
    pub(super) fn subscribe_on(&self, link: &Link<Session>) {
        for kept in &self.state.kept {
            self.push_set_up(link, kept, 0);
        }
        let subscriptions = &self.state.subscriptions;
        for (command, names) in [
            (b"SUBSCRIBE".as_slice(), &subscriptions.channels),
            (b"PSUBSCRIBE", &subscriptions.patterns),
            (b"SSUBSCRIBE", &subscriptions.shard_channels),
        ] {
            if !names.is_empty() {
                let mut arguments = vec![command];
                arguments.extend(names.iter().map(Vec::as_slice));
                let mut request = Vec::new();
                resp::encode_request(&mut request, &arguments);
                self.push_set_up(link, &request, names.len());
            }
        }
    }

    /// Says on a new connection what else made the old one the client's own.
    fn set_up(&mut self, link: &Link<Session>, unanswered: usize) {
        let mut requests: Vec<Vec<u8>> = Vec::new();
        if self.state.monitoring {
            let mut request = Vec::new();
            resp::encode_request(&mut request, &[b"MONITOR"]);
            requests.push(request);
        }
        if let Some(log) = self.state.transaction.as_ref().and_then(|transaction| transaction.log.as_ref()) {
            let mut multi = Vec::new();
            resp::encode_request(&mut multi, &[b"MULTI"]);
            requests.push(multi);
            if self.state.transaction.as_ref().is_some_and(|transaction| transaction.is_spoiled) {
                requests.push(wrong_arity());
            }
            let answered = log.len().saturating_sub(unanswered);
            requests.extend(log[..answered].iter().cloned());
        }
        self.state.is_pristine = self.state.kept.is_empty() && self.state.tracking.is_none();
        for request in requests {
            self.push_set_up(link, &request, 0);
        }
    }

    /// Nobody wants the reply, or these confirmations.
    pub(super) fn push_set_up(&self, link: &Link<Session>, request: &[u8], confirmations: usize) {
        let subscription = if confirmations > 0 { flag::SUBSCRIPTION } else { 0 };
        let (entry, flags) = (self.aside_entry(request), flag::ABANDONED | subscription);
        link.push(Entry { confirmations: confirmations as u32, class: Class::Admin, flags, ..entry }, request);
    }

    /// What begins anew on the active backend is missed by those whose record is kept, like any other write.
    fn note_resent(&self, link: &Link<Session>, left: &Left) {
        let context = &self.session.context;
        if context.route().recording == 0 {
            return;
        }
        let log = self.state.transaction.as_ref().and_then(|transaction| transaction.log.as_ref());
        let logged = log.into_iter().flatten().map(Vec::as_slice);
        for (database, request) in in_databases(self.state.database(), logged) {
            context.copy_resent(&self.session, link, database, request);
        }
        for (_, request) in left {
            context.copy_resent(&self.session, link, self.state.database(), request);
        }
    }
}

/// Whether a request on its way is among those that its transaction remembers.
fn is_logged(entry: &Entry<Session>, bytes: &[u8]) -> bool {
    let other = matches!(command::of_request(bytes).handling, Handling::Multi | Handling::Watch | Handling::Discard);
    entry.flags & flag::QUEUED != 0 && !other
}
