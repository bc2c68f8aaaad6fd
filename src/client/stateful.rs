//! Commands that change the state of the session's connection: SELECT, RESET, MONITOR, SYNC, and what is kept for the
//! rest of the session.

use std::sync::Arc;

use super::modes::{Expected, State};
use super::sending::Way;
use super::session::Notice;
use super::special::Step;
use super::task::{Exit, SessionTask};
use crate::backend::sealed_text;
use crate::command::{self, Handling, Spec};
use crate::limits;
use crate::resp::{self, Protocol};

impl SessionTask {
    pub(super) fn select(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let number =
            resp::arguments(request).nth(1).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
        let Some(number) = number.filter(|_| resp::arguments(request).len() == 2) else {
            return self.forward(spec, request);
        };
        if self.must_settle() {
            return Step::Wait;
        }
        if self.state.needs_pin() {
            if let Some(step) = self.await_unsealed(number) {
                return step;
            }
            self.state.is_pristine = false;
            let step = self.send_own(spec, request, Some(Expected::Select(number)));
            return self.awaiting(step);
        }
        self.release_pinned();
        // Asked on the lane of that database, where it changes nothing: the answer is the server's own.
        let before = self.state.database();
        self.state.select(number);
        self.link = None;
        let step = self.send(spec, request, Way::Usual, Some(Expected::Select(number)));
        self.state.select(before);
        self.link = None;
        self.awaiting(step)
    }

    /// Waits until the database of a SELECT may be used on the active backend, where that is not so yet. Links wait by
    /// themselves; this is for SELECT on a connection that stands.
    pub(super) fn await_unsealed(&mut self, database: u32) -> Option<Step> {
        let has_waited = std::mem::take(&mut self.state.has_waited);
        let context = &self.session.context;
        let (active, ..) = context.route_facts();
        let backend = Arc::clone(context.group.backend(active));
        context.group.note_database(database);
        if !backend.is_sealed(database) {
            return None;
        }
        if has_waited {
            let text = sealed_text(&backend.name, database);
            return Some(self.local(text.as_bytes()));
        }
        let session = self.session.clone();
        let bound = context.settings.request_timeout;
        self.state.awaited += 1;
        tokio::task::spawn_local(async move {
            let _ = tokio::time::timeout(bound, backend.wait_unsealed(database)).await;
            session.notify(Notice::HasWaited);
        });
        Some(Step::Wait)
    }

    pub(super) fn reset(&mut self) -> Step {
        if self.must_settle() {
            return Step::Wait;
        }
        self.abandon_pinned();
        let is_authenticated = !self.session.context.settings.requires_login;
        self.state = State::new(is_authenticated);
        self.link = None;
        self.session.protocol.set(Protocol::Resp2);
        self.session.subscribed.set(false);
        self.session.leaves_at.set(None);
        self.session.monitoring.set(false);
        self.session.record.update(|shown| {
            let fresh =
                super::registry::Shown { protocol: 2, user: "default".to_owned(), queued: -1, ..Default::default() };
            *shown = super::registry::Shown { last_command: "reset", ..fresh };
        });
        self.local(b"+RESET\r\n")
    }

    pub(super) fn set_protocol(&mut self, protocol: Protocol) {
        if self.state.protocol != protocol {
            self.state.protocol = protocol;
            self.link = None;
            if let Some(pinned) = &self.state.pinned {
                // Its connection goes on in the new protocol, and fits no lane afterwards.
                let mut hello = Vec::new();
                let version: &[u8] = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
                resp::encode_request(&mut hello, &[b"HELLO", version]);
                pinned.push(self.aside_entry(&hello), &hello);
                self.state.is_pristine = false;
            }
            self.renew_second_of_other_lane();
        }
        self.session.protocol.set(protocol);
        let number = if protocol == Protocol::Resp3 { 3 } else { 2 };
        self.session.record.update(|shown| shown.protocol = number);
    }

    /// CLIENT PAUSE and UNPAUSE: what waits by order is neither late nor a sign of trouble.
    pub(super) fn pause(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let until_us = self.now_us.saturating_add(pause_us(request));
        let context = &self.session.context;
        let backend = Arc::clone(context.group.backend(context.route_facts().0));
        self.send(spec, request, Way::Usual, Some(Expected::Pause { backend, until_us }))
    }

    pub(super) fn monitor(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let step = self.send_own(spec, request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            self.state.monitoring = true;
            self.session.monitoring.set(true);
            self.session.record.update(|shown| shown.monitoring = true);
        }
        step
    }

    pub(super) fn tunnel(&mut self, request: &[u8]) -> Step {
        if self.must_settle() {
            return Step::Wait;
        }
        self.abandon_pinned();
        let (backend, ..) = self.session.context.route_facts();
        let introduction = std::mem::take(&mut self.state.introduction);
        let lane = self.state.lane();
        self.tunnel = Some(Exit::Tunnel { introduction, request: request.to_vec(), lane, backend });
        Step::Consumed
    }

    /// What a replica says about itself holds on the connection that its SYNC or PSYNC opens, and is said again there.
    pub(super) fn replica_configuration(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let has_no_reply = resp::arguments(request)
            .nth(1)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"ack") || word.eq_ignore_ascii_case(b"getack"));
        if has_no_reply {
            return Step::Consumed;
        }
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let step = self.send_own(spec, request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            self.state.is_pristine = false;
            if self.state.introduction.len() < limits::INTRODUCTION_MAX {
                self.state.introduction.push(request.to_vec());
            }
        }
        step
    }

    /// A request that leaves its connection in a state for the rest of the session.
    pub(super) fn keep(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let step = self.send_own(spec, request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            self.note_kept(spec, request);
        }
        step
    }

    pub(super) fn note_kept(&mut self, spec: &'static Spec, request: &[u8]) {
        self.state.is_pristine = false;
        self.state.kept.retain(|kept| command::of_request(kept).name != spec.name);
        let turned_off = resp::arguments(request)
            .nth(2)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"off") || word.eq_ignore_ascii_case(b"no"));
        if !turned_off {
            self.state.kept.push(request.to_vec());
        }
        self.keep_on_second(request);
        if spec.handling == Handling::ClientNoTouch {
            self.session.record.update(|shown| shown.no_touch = !turned_off);
        }
    }
}

/// How long CLIENT PAUSE holds requests back, in microseconds; CLIENT UNPAUSE, not at all.
pub(super) fn pause_us(request: &[u8]) -> u64 {
    let text = resp::arguments(request).nth(2).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1000)
}
