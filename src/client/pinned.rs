//! Connections that one client owns: the commands that need one, taking one, and giving it back.

use std::rc::Rc;
use std::sync::Arc;

use super::modes::Expected;
use super::session::Session;
use super::special::Step;
use super::task::SessionTask;
use super::worker::Told;
use crate::backend::{Entry, Lane, Link, flag};
use crate::command::{Class, Handling, Spec};
use crate::resp;
use crate::route::Availability;

impl SessionTask {
    pub(super) fn subscription(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let subscribes = subscribes(spec.handling);
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        if !spec.arity_ok(resp::arguments(request).len()) {
            return self.forward(spec, request);
        }
        if subscribes && !self.state.subscriptions.has_room_for(request) {
            return self.local_error("OVERLOADED this client has too many subscriptions");
        }
        // Frames of messages may come from now on; in RESP2 they look like replies.
        if subscribes {
            self.session.subscribed.set(true);
        }
        let expected = Expected::Subscription { handling: spec.handling, added: Vec::new() };
        let step = self.send_own(spec, request, Some(expected));
        if step != Step::Consumed || self.state.pinned.is_none() {
            self.show_subscriptions();
            return step;
        }
        let new = self.note_subscription(spec, request);
        if let Some((.., Expected::Subscription { added, .. })) = self.state.expected.back_mut() {
            *added = new;
        }
        Step::Consumed
    }

    /// A request for (un)subscription that the server takes, as far as is known. Returns the names that are new.
    pub(super) fn note_subscription(&mut self, spec: &'static Spec, request: &[u8]) -> Vec<Vec<u8>> {
        let names: Vec<Vec<u8>> = resp::arguments(request).skip(1).map(<[u8]>::to_vec).collect();
        let mut added = Vec::new();
        if subscribes(spec.handling) {
            added = self.state.subscriptions.add(spec.handling, names);
        } else {
            self.state.subscriptions.remove(spec.handling, &names);
        }
        self.show_subscriptions();
        self.subscribe_on_second(request);
        added
    }

    /// The server has refused a subscription.
    pub(super) fn unsubscribed(&mut self, handling: Handling, names: &[Vec<u8>]) {
        if !names.is_empty() {
            self.state.subscriptions.remove(handling, names);
            self.renew_second();
        }
        self.show_subscriptions();
    }

    pub(super) fn show_subscriptions(&self) {
        let subscriptions = &self.state.subscriptions;
        let is_unconfirmed = |expected: &Expected| matches!(expected, Expected::Subscription { .. });
        let mut unconfirmed = self.state.expected.iter().rev().filter(|(.., expected)| is_unconfirmed(expected));
        let leaves_at = unconfirmed.next().map(|(seq, ..)| *seq).filter(|_| subscriptions.is_empty());
        self.session.leaves_at.set(leaves_at);
        if leaves_at.is_none() {
            self.session.subscribed.set(!subscriptions.is_empty());
        }
        self.session.record.update(|shown| {
            shown.channels = subscriptions.channels.len();
            shown.patterns = subscriptions.patterns.len();
            shown.shard_channels = subscriptions.shard_channels.len();
        });
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
        self.state.blocked_request = (!urgent && !after_ping).then(|| (request.to_vec(), self.now_us));
        let step = self.send_on(&link, spec, request, Some(Expected::Blocking));
        if self.session.output.in_flight() == 0 {
            self.state.is_blocked = false;
        } else if !urgent {
            self.state.count_blocked(self.session.context.worker, Some(Arc::clone(&link.backend)));
            self.session.record.update(|shown| shown.blocked = true);
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

    pub(super) fn request_timeout_us(&self) -> u64 {
        self.session.context.settings.request_timeout.as_micros() as u64
    }

    /// CLIENT UNBLOCK of this client: told to the server, which alone knows whether something was popped already.
    pub(super) fn unblock(&mut self, with_error: bool) {
        self.state.is_parting = false;
        self.let_go(with_error);
    }

    /// A planned switch is about to happen: a request that waits on purpose is let go, so that it can wait on the other
    /// backend. Only the server knows whether it has taken something; then that is its answer.
    pub(super) fn part_from_backend(&mut self) {
        if self.state.blocked_request.is_some() && !self.state.is_parting {
            self.state.is_parting = self.let_go(false);
        }
    }

    /// The server let the request go and it has taken nothing: it waits on the backend that serves next. False when the
    /// reply is the client's.
    pub(super) fn begins_again(&mut self, seq: u32, reply: &[u8]) -> bool {
        let is_nothing = matches!(reply, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n");
        let is_parting = std::mem::take(&mut self.state.is_parting);
        let Some((request, since_us)) = self.state.blocked_request.take().filter(|_| is_parting && is_nothing) else {
            return false;
        };
        let Some(link) = self.state.pinned.take() else { return false };
        self.session.owned.replace(None);
        self.session.context.unpin(link, false);
        self.state.count_blocked(self.session.context.worker, None);
        let entry = self.aside_entry(&request);
        let entry = Entry { seq, at_us: since_us, class: Class::Blocking, flags: flag::SPECIAL, ..entry };
        self.state.blocked_request = Some((request.clone(), since_us));
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
            self.show_redirect_id(0);
            self.session.owned.replace(None);
            self.session.context.unpin(link, is_pristine);
        }
    }

    /// Ends the connection together with whatever the server holds for it.
    pub(super) fn abandon_pinned(&mut self) {
        self.session.drop_second();
        self.state.is_pristine = false;
        self.release_pinned();
        self.state.orphans.clear();
        self.state.orphaned_since_us = 0;
    }

    /// The client has left.
    pub(super) fn leave(&mut self) {
        self.state.count_blocked(self.session.context.worker, None);
        self.tell_target(Told::Released { tracker: self.session.record.id });
        // Its EXEC may still be executed; its connection is proven dead before anything is copied.
        let in_doubt = self.session.in_doubt.take();
        let clean = self.state.is_pristine && !self.state.needs_pin() && self.session.output.in_flight() == 0;
        if clean {
            self.release_pinned();
        } else {
            self.abandon_pinned();
        }
        let requests = in_doubt.iter().map(|(database, request)| (*database, request.as_slice()));
        self.session.context.mirror_values(requests);
        self.session.drop_second();
        self.session.context.sessions.borrow_mut().remove(&self.session.record.id);
    }
}

const fn subscribes(handling: Handling) -> bool {
    matches!(handling, Handling::Subscribe | Handling::PatternSubscribe | Handling::ShardSubscribe)
}
