//! Connections that one client owns: taking one, giving it back, and setting it up again on another backend.

use std::future::Future as _;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context as TaskContext;
use std::time::Duration;

use super::modes::{Expected, Transaction, Watch};
use super::session::{Left, Notice, Session};
use super::special::Step;
use super::task::SessionTask;
use crate::backend::{Entry, Host as _, Lane, Link, Owner as _, clock, flag};
use crate::command::{self, Class, Handling, Spec};
use crate::divergence::{Record, note_write};
use crate::policy::BackendId;
use crate::resp::{self, Protocol, write};
use crate::route::Availability;

/// Longest pause between attempts to replace a connection that was lost.
const PIN_RETRY_MAX_US: u64 = 50_000;
/// A connection that lasted this long before it was lost is replaced at once.
const PIN_CALM_US: u64 = 2_000_000;

/// Where the invalidation messages of a client go.
enum Redirect {
    /// To itself.
    None,
    /// To another client, whose connection the rewritten request names.
    Ready(Vec<u8>),
    /// To another client, which has no connection of its own yet.
    NotYet(Session),
    Unknown,
}

impl SessionTask {
    // --- commands that need a connection of their own ---

    pub(super) fn subscription(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let subscribes =
            matches!(spec.handling, Handling::Subscribe | Handling::PatternSubscribe | Handling::ShardSubscribe);
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        if !spec.arity_ok(resp::arguments(request).len()) {
            return self.forward(spec, request);
        }
        // Frames of messages may come from now on; in RESP2 they look like replies.
        if subscribes {
            self.session.subscribed.set(true);
        }
        let step = self.send_own(spec, request, Some(Expected::Subscription));
        if step != Step::Consumed || self.state.pinned.is_none() {
            self.session.subscribed.set(!self.state.subscriptions.is_empty());
            return step;
        }
        let names: Vec<Vec<u8>> = resp::arguments(request).skip(1).map(<[u8]>::to_vec).collect();
        let subscriptions = &mut self.state.subscriptions;
        let set = match spec.handling {
            Handling::Subscribe | Handling::Unsubscribe => &mut subscriptions.channels,
            Handling::PatternSubscribe | Handling::PatternUnsubscribe => &mut subscriptions.patterns,
            _ => &mut subscriptions.shard_channels,
        };
        if subscribes {
            set.extend(names);
        } else if names.is_empty() {
            set.clear();
        } else {
            for name in &names {
                set.remove(name);
            }
        }
        let subscriptions = &self.state.subscriptions;
        self.session.subscribed.set(!subscriptions.is_empty());
        self.session.record.update(|shown| {
            shown.channels = subscriptions.channels.len();
            shown.patterns = subscriptions.patterns.len();
            shown.shard_channels = subscriptions.shard_channels.len();
        });
        Step::Consumed
    }

    /// How many confirmations a request for (un)subscription is answered with.
    pub(super) fn confirmations(&self, spec: &Spec, request: &[u8]) -> u32 {
        let named = resp::arguments(request).len().saturating_sub(1);
        let held = match spec.handling {
            Handling::Unsubscribe => self.state.subscriptions.channels.len(),
            Handling::PatternUnsubscribe => self.state.subscriptions.patterns.len(),
            Handling::ShardUnsubscribe => self.state.subscriptions.shard_channels.len(),
            _ => 0,
        };
        (if named > 0 { named } else { held.max(1) }) as u32
    }

    /// A command that may wait on purpose, or that must not queue behind others.
    pub(super) fn block(&mut self, spec: &'static Spec, request: &[u8], after_ping: bool) -> Step {
        if self.must_settle() {
            return Step::Wait;
        }
        let urgent = spec.handling == Handling::Urgent;
        let lane = self.state.lane();
        // A busy server refuses SELECT, and what ends a script needs no database.
        let lane = Lane { database: if urgent { 0 } else { lane.database }, ..lane };
        let link = match self.own_link(lane) {
            Ok(link) => link,
            Err(step) => return step,
        };
        if after_ping {
            // WAIT counts the writes of its own connection; a command on it moves its mark to the newest write.
            let mut ping = Vec::new();
            resp::encode_request(&mut ping, &[b"PING"]);
            link.push(self.aside_entry(&ping), &ping);
        }
        self.state.is_blocked = true;
        self.state.is_parting = false;
        self.state.blocked_request = (!urgent && !after_ping).then(|| request.to_vec());
        let step = self.send_on(&link, spec, request, Some(Expected::Blocking));
        if self.session.output.in_flight() == 0 {
            self.state.is_blocked = false;
        } else if !urgent {
            self.state.count_blocked(self.session.context.worker, Some(Arc::clone(&link.backend)));
            let id = link.client_id();
            self.session.record.update(|shown| {
                shown.blocked = true;
                shown.backend_client_id = id;
            });
        }
        step
    }

    fn own_link(&mut self, lane: Lane) -> Result<Rc<Link<Session>>, Step> {
        if let Some(pinned) = &self.state.pinned {
            return Ok(Rc::clone(pinned));
        }
        let context = Rc::clone(&self.session.context);
        let (active, availability, _) = context.route_facts();
        if availability == Availability::Holding && context.held_for_us(self.now_us) < self.request_timeout_us() {
            return Err(Step::Wait);
        }
        if availability != Availability::Serving {
            return Err(self.no_backend());
        }
        let Some(link) = context.pin(active, lane, self.session.clone()) else {
            return Err(self.local_error("OVERLOADED too many clients need a connection of their own (pinned.max)"));
        };
        self.own(&link);
        Ok(link)
    }

    fn request_timeout_us(&self) -> u64 {
        self.session.context.settings.request_timeout.as_micros() as u64
    }

    /// CLIENT TRACKING: invalidations come on the connection that reads, so it must be the client's own.
    pub(super) fn tracking(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let given = request.to_vec();
        let request = match self.with_backend_redirect(request) {
            Redirect::None => given.clone(),
            Redirect::Ready(request) => request,
            Redirect::NotYet(target) if !self.state.waited_for_redirect => return self.await_redirect(target),
            Redirect::NotYet(_) | Redirect::Unknown => {
                self.state.waited_for_redirect = false;
                return self.local_error("ERR The client ID you want redirect to does not exist");
            }
        };
        self.state.waited_for_redirect = false;
        let turns_on = resp::arguments(&request).nth(2).is_some_and(|word| word.eq_ignore_ascii_case(b"on"));
        if !turns_on && self.state.pinned.is_none() {
            return self.forward(spec, &request);
        }
        let step = self.send_own(spec, &request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            self.state.tracking = turns_on.then_some(given);
            self.state.is_pristine = false;
            self.session.record.update(|shown| shown.tracking = turns_on);
        }
        step
    }

    /// The request with the REDIRECT id of one of our clients replaced by the server's id of its connection.
    fn with_backend_redirect(&self, request: &[u8]) -> Redirect {
        let Some(id) = redirect_of(request) else { return Redirect::None };
        let context = &self.session.context;
        let target = context.sessions.borrow().get(&id).cloned();
        let backend_id = match &target {
            Some(session) => session.owned.borrow().as_ref().map_or(0, |link| link.client_id()),
            // Served by another worker: known once its connection has blocked.
            None => context.registry.get(context.group.index, id).map_or(0, |client| client.shown().backend_client_id),
        };
        match target {
            Some(session) if backend_id == 0 => return Redirect::NotYet(session),
            None if backend_id == 0 => return Redirect::Unknown,
            _ => {}
        }
        let text = backend_id.to_string();
        let mut arguments: Vec<&[u8]> = resp::arguments(request).collect();
        if let Some(at) = arguments.iter().position(|word| word.eq_ignore_ascii_case(b"redirect")) {
            arguments[at + 1] = text.as_bytes();
        }
        let mut out = Vec::new();
        resp::encode_request(&mut out, &arguments);
        Redirect::Ready(out)
    }

    /// Has the client that is to hear of changes take a connection of its own, whose id the server knows.
    fn await_redirect(&mut self, target: Session) -> Step {
        let session = self.session.clone();
        let bound = session.context.settings.request_timeout;
        self.state.awaited += 1;
        tokio::task::spawn_local(async move {
            let ready = async {
                while !target.is_gone() && target.owned.borrow().as_ref().is_none_or(|link| link.client_id() == 0) {
                    target.notify(Notice::OwnConnection);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let _ = tokio::time::timeout(bound, ready).await;
            session.notify(Notice::RedirectReady);
        });
        Step::Wait
    }

    /// Another client redirects its invalidation messages to this one.
    pub(super) fn own_for_redirect(&mut self) {
        self.state.is_redirect = true;
        let context = Rc::clone(&self.session.context);
        let (active, availability, _) = context.route_facts();
        if self.state.pinned.is_none()
            && !self.must_settle()
            && availability == Availability::Serving
            && let Some(link) = context.pin(active, self.state.lane(), self.session.clone())
        {
            self.own(&link);
        }
    }

    /// CLIENT GETREDIR, in our own ids.
    pub(super) fn get_redirect(&mut self) -> Step {
        let id = self.state.tracking.as_ref().map_or(-1, |request| redirect_of(request).map_or(0, |id| id as i64));
        let mut out = Vec::new();
        write::integer(&mut out, id);
        self.local(&out)
    }

    /// The reply to CLIENT TRACKINGINFO with the id of the redirection as our clients know it.
    pub(super) fn own_redirect_in(&self, reply: &[u8]) -> Vec<u8> {
        let id = self.state.tracking.as_deref().and_then(redirect_of);
        let field = b"redirect\r\n:";
        let at = reply.windows(field.len()).position(|window| window == field).map(|at| at + field.len());
        let (Some(id), Some(at)) = (id, at) else { return reply.to_vec() };
        let end = reply[at..].iter().position(|byte| *byte == b'\r').map_or(reply.len(), |len| at + len);
        [&reply[..at], id.to_string().as_bytes(), &reply[end..]].concat()
    }

    /// CLIENT UNBLOCK of this client: told to the server, which alone knows whether something was popped already.
    pub(super) fn unblock(&mut self, with_error: bool) {
        self.state.is_parting = false;
        self.let_go(with_error);
    }

    /// A planned switch is about to happen: a request that waits on purpose is let go, so that it can wait on the other
    /// backend. Only the server knows whether it has taken something; then that is its answer.
    fn part_from_backend(&mut self) {
        if self.state.blocked_request.is_some() && !self.state.is_parting {
            self.state.is_parting = self.let_go(false);
        }
    }

    /// The server let the request go and it has taken nothing: it waits on the backend that serves next. False when the
    /// reply is the client's.
    pub(super) fn begins_again(&mut self, seq: u32, reply: &[u8]) -> bool {
        let is_nothing = matches!(reply, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n");
        let is_parting = std::mem::take(&mut self.state.is_parting);
        let Some(request) = self.state.blocked_request.take().filter(|_| is_parting && is_nothing) else {
            return false;
        };
        let Some(link) = self.state.pinned.take() else { return false };
        self.session.owned.replace(None);
        self.session.context.unpin(link, false);
        self.state.count_blocked(self.session.context.worker, None);
        let entry = Entry { seq, class: Class::Blocking, flags: flag::SPECIAL, ..self.aside_entry(&request) };
        self.state.blocked_request = Some(request.clone());
        self.state.orphans = vec![(entry, request)];
        self.state.orphaned_since_us = self.now_us.max(1);
        self.schedule_recovery();
        true
    }

    fn let_go(&mut self, with_error: bool) -> bool {
        let is_known = |link: &Rc<Link<Session>>| link.client_id() != 0;
        let Some(pinned) = self.state.pinned.clone().filter(|link| self.state.is_blocked && is_known(link)) else {
            return false;
        };
        let id = pinned.client_id().to_string();
        let how: &[u8] = if with_error { b"ERROR" } else { b"TIMEOUT" };
        let mut request = Vec::new();
        resp::encode_request(&mut request, &[b"CLIENT", b"UNBLOCK", id.as_bytes(), how]);
        let lane = self.state.lane();
        let link = self.session.context.link(pinned.backend.id, lane);
        link.push(self.aside_entry(&request), &request);
        true
    }

    pub(super) fn own(&mut self, link: &Rc<Link<Session>>) {
        self.state.is_pristine = true;
        self.session.owned.replace(Some(Rc::clone(link)));
        self.state.pinned = Some(Rc::clone(link));
    }

    // --- giving it back ---

    /// Returns the connection to the pool when nothing ties the client to it.
    pub(super) fn release_pinned(&mut self) {
        if let Some(link) = self.state.pinned.take() {
            let is_pristine = self.state.is_pristine;
            self.state.is_pristine = true;
            self.session.owned.replace(None);
            self.session.context.unpin(link, is_pristine);
        }
    }

    /// Ends the connection together with whatever the server holds for it.
    pub(super) fn abandon_pinned(&mut self) {
        self.state.is_pristine = false;
        self.release_pinned();
        self.state.orphans.clear();
        self.state.orphaned_since_us = 0;
    }

    /// The client has left.
    pub(super) fn leave(&mut self) {
        self.state.count_blocked(self.session.context.worker, None);
        let clean = self.state.is_pristine && !self.state.needs_pin() && self.session.output.in_flight() == 0;
        if clean {
            self.release_pinned();
        } else {
            self.abandon_pinned();
        }
        self.session.context.sessions.borrow_mut().remove(&self.session.record.id);
    }

    // --- when it is lost ---

    pub(super) fn follow_route(&mut self, active: BackendId) {
        if let Some(link) = self.state.pinned.clone().filter(|link| link.backend.id != active) {
            link.set_owner(None);
            let left = link.abort();
            self.pinned_lost(&link, left);
        } else if self.state.is_recovering() {
            self.recover_pinned();
        } else if self.session.context.route().availability == Availability::Holding {
            self.part_from_backend();
        }
    }

    pub(super) fn pinned_lost(&mut self, link: &Rc<Link<Session>>, left: Left) {
        let is_ours = self.state.pinned.as_ref().is_some_and(|pinned| Rc::ptr_eq(pinned, link));
        if !is_ours {
            return;
        }
        self.state.count_blocked(self.session.context.worker, None);
        self.state.pinned = None;
        self.session.owned.replace(None);
        self.state.orphans = left;
        let before = std::mem::replace(&mut self.state.pin_lost_us, self.now_us);
        if self.now_us.saturating_sub(before) > PIN_CALM_US {
            self.state.pin_attempts = 0;
        }
        self.state.orphaned_since_us = self.now_us.max(1);
        self.state.is_pristine = true;
        self.invalidate_all();
        self.schedule_recovery();
    }

    fn schedule_recovery(&mut self) {
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
            // What was watched may have changed, or what was queued is too long to be queued again.
            transaction.is_doomed = true;
        }
        if availability != Availability::Serving && waited >= self.request_timeout_us() {
            return self.fail_orphans();
        }
        let left = std::mem::take(&mut self.state.orphans);
        let left = self.answer_doomed(left);
        if left.is_empty() && !self.state.needs_pin() {
            return self.recovered();
        }
        let Some(link) = context.pin(active, self.state.lane(), self.session.clone()) else {
            self.state.orphans = left;
            return self.schedule_recovery();
        };
        self.note_resent(&left);
        let unanswered = left.iter().filter(|(entry, bytes)| is_logged(entry, bytes)).count();
        self.set_up(&link, unanswered);
        if left.iter().any(|(entry, _)| entry.class == Class::Blocking) {
            self.state.count_blocked(context.worker, Some(Arc::clone(&link.backend)));
        }
        for (entry, bytes) in left {
            link.push(entry, &bytes);
        }
        let is_pristine = self.state.is_pristine;
        self.own(&link);
        self.state.is_pristine = is_pristine;
        self.recovered();
    }

    fn recovered(&mut self) {
        self.state.orphaned_since_us = 0;
        self.state.pin_timer = None;
    }

    /// Nobody can take the session over in time: its unanswered requests fail.
    fn fail_orphans(&mut self) {
        for (entry, _) in std::mem::take(&mut self.state.orphans) {
            // What was sent once may have been executed, whatever became of it afterwards.
            let text: &[u8] = if entry.attempts > 0 {
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
        for (entry, bytes) in left {
            let spec = command::of_request(&bytes);
            match spec.handling {
                Handling::Exec => {
                    let mut out = Vec::new();
                    write::null_array(&mut out, self.state.protocol);
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
        use crate::backend::Owner as _;
        if entry.flags & flag::SPECIAL != 0 {
            self.session.special(entry.seq, reply);
        } else {
            self.session.answer(entry.seq, reply);
        }
    }

    /// Says on a new connection what made the old one the client's own; nobody wants those replies.
    fn set_up(&mut self, link: &Rc<Link<Session>>, unanswered: usize) {
        let mut requests: Vec<(Vec<u8>, u32)> = Vec::new();
        for kept in &self.state.kept {
            requests.push((kept.clone(), 0));
        }
        if let Some(tracking) = &self.state.tracking {
            let request = match self.with_backend_redirect(tracking) {
                Redirect::Ready(request) => request,
                _ => tracking.clone(),
            };
            requests.push((request, 0));
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
                requests.push((request, names.len() as u32));
            }
        }
        if self.state.monitoring {
            let mut request = Vec::new();
            resp::encode_request(&mut request, &[b"MONITOR"]);
            requests.push((request, 0));
        }
        if let Some(log) = self.state.transaction.as_ref().and_then(|transaction| transaction.log.as_ref()) {
            let mut multi = Vec::new();
            resp::encode_request(&mut multi, &[b"MULTI"]);
            requests.push((multi, 0));
            if self.state.transaction.as_ref().is_some_and(|transaction| transaction.is_spoiled) {
                requests.push((super::special::wrong_arity(), 0));
            }
            let answered = log.len().saturating_sub(unanswered);
            requests.extend(log[..answered].iter().map(|request| (request.clone(), 0)));
        }
        self.state.is_pristine = self.state.kept.is_empty() && self.state.tracking.is_none();
        for (request, confirmations) in requests {
            let subscription = if confirmations > 0 { flag::SUBSCRIPTION } else { 0 };
            let entry = self.aside_entry(&request);
            let class = Class::Admin;
            link.push(Entry { confirmations, class, flags: flag::ABANDONED | subscription, ..entry }, &request);
        }
    }

    /// Everything that the client's own cache holds may be stale: said once for each loss, not for each attempt to
    /// replace the connection.
    fn invalidate_all(&self) {
        if self.state.tracking.is_some() && self.state.protocol == Protocol::Resp3 {
            let mut push = Vec::new();
            write::push_len(&mut push, 2, Protocol::Resp3);
            write::bulk(&mut push, b"invalidate");
            write::null(&mut push, Protocol::Resp3);
            self.session.out_of_band(&push);
        }
    }

    /// What begins anew on the active backend is missed by those whose record is kept, like any other write.
    fn note_resent(&self, left: &Left) {
        let context = &self.session.context;
        let route = context.route();
        if route.recording == 0 {
            return;
        }
        let log = self.state.transaction.as_ref().and_then(|transaction| transaction.log.as_ref());
        let logged = log.into_iter().flatten().map(Vec::as_slice);
        for (database, request) in in_databases(self.state.database(), logged) {
            note_one(context.group.recording(&route), database, request);
        }
        for (_, request) in left {
            note_one(context.group.recording(&route), self.state.database(), request);
        }
    }

    /// An EXEC whose outcome nobody knows may have written everything that was queued.
    pub(super) fn note_unknown_transaction(&self, transaction: &Transaction) {
        let context = &self.session.context;
        for record in &context.group.records {
            match &transaction.log {
                None => record.become_unknown("a transaction too long to remember has an unknown outcome"),
                Some(log) => {
                    for (database, request) in in_databases(self.state.database(), log.iter().map(Vec::as_slice)) {
                        note_one(std::iter::once(record), database, request);
                    }
                }
            }
        }
        tracing::debug!(at_us = clock::micros(), "a transaction's outcome is unknown");
    }
}

fn note_one<'a>(records: impl Iterator<Item = &'a Record> + Clone, database: u32, request: &[u8]) {
    let spec = command::of_request(request);
    if spec.is_write() {
        note_write(records, database, spec, request);
    }
}

/// The requests of a transaction with the database that each works in: a queued SELECT counts for those behind it.
fn in_databases<'a>(first: u32, requests: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = (u32, &'a [u8])> {
    requests.scan(first, |database, request| {
        if command::of_request(request).handling == Handling::Select
            && let Some(number) =
                resp::arguments(request).nth(1).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        {
            *database = number;
        }
        Some((*database, request))
    })
}

/// The client that CLIENT TRACKING names behind REDIRECT.
fn redirect_of(request: &[u8]) -> Option<u64> {
    let mut words = resp::arguments(request).skip_while(|word| !word.eq_ignore_ascii_case(b"redirect"));
    std::str::from_utf8(words.nth(1)?).ok()?.parse().ok().filter(|id| *id > 0)
}

/// Whether a request on its way is among those that its transaction remembers.
fn is_logged(entry: &Entry<Session>, bytes: &[u8]) -> bool {
    let other = matches!(command::of_request(bytes).handling, Handling::Multi | Handling::Watch | Handling::Discard);
    entry.flags & flag::QUEUED != 0 && !other
}
