//! Requests that need more than forwarding: those that change or use the state of a connection.

use std::rc::Rc;
use std::sync::Arc;

use super::modes::{Expected, ReplyMode, State, Transaction, Watch};
use super::session::Session;
use super::task::{Exit, SessionTask};
use crate::backend::{Entry, Link, flag};
use crate::command::{self, Class, Handling, Spec};
use crate::divergence::note_write;
use crate::limits;
use crate::resp::{self, Protocol, RequestFrame, write};
use crate::route::Availability;

/// Whether a request was dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Consumed,
    /// It stays in the input until something happens: replies, a route, a login.
    Wait,
}

/// Which connection a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The session's own, if it has one, else the multiplexed link.
    Usual,
    /// A connection of the session's own.
    Own,
}

/// A request that every server refuses and that changes nothing.
pub(super) fn wrong_arity() -> Vec<u8> {
    let mut request = Vec::new();
    resp::encode_request(&mut request, &[b"GET"]);
    request
}

pub(super) const NO_AUTH: &str = "NOAUTH Authentication required.";

impl SessionTask {
    pub(super) fn special(&mut self, request: &[u8], frame: RequestFrame) -> Step {
        if frame.arguments == 0 {
            return Step::Consumed;
        }
        if self.state.awaited > 0 || self.state.is_recovering() || self.session.is_repeating() || self.state.is_blocked
        {
            return Step::Wait;
        }
        let multibulk;
        let request = if frame.inline {
            match resp::inline_to_multibulk(request) {
                Ok(Some(bytes)) => {
                    multibulk = bytes;
                    multibulk.as_slice()
                }
                Ok(None) => return Step::Consumed,
                Err(error) => {
                    self.refuse_protocol(&error);
                    return Step::Consumed;
                }
            }
        } else {
            request
        };
        let Some(name) = resp::arguments(request).next() else { return Step::Consumed };
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            tracing::warn!(client = self.session.record.address, "closed: it speaks HTTP to a Redis port");
            self.closing = true;
            return Step::Consumed;
        }
        let spec = command::of_request(request);
        self.state.last_command = spec.name;
        let query_bytes = frame.len;
        self.session.record.update(|shown| {
            shown.last_command = spec.name;
            shown.query_bytes = query_bytes;
        });
        if let Some(refusal) = self.refusal(spec, name) {
            self.spoil_transaction();
            return self.local_error(&refusal);
        }
        self.dispatch(spec, request)
    }

    /// Why a request is not even looked at.
    fn refusal(&self, spec: &'static Spec, name: &[u8]) -> Option<String> {
        let anonymous = matches!(spec.handling, Handling::Auth | Handling::Hello | Handling::Quit | Handling::Reset);
        if !self.state.is_authenticated && !anonymous {
            return Some(NO_AUTH.to_owned());
        }
        let denied = &self.session.context.settings.denied;
        (!denied.is_empty() && (denied.has(spec) || denied.has_name(name))).then(|| {
            let name = spec.name.replace('|', " ");
            format!("NOPERM '{name}' is denied at this endpoint (listen.deny); ask the server itself")
        })
    }

    /// A request refused between MULTI and EXEC makes EXEC fail. The server does that itself once it has refused
    /// something too, so it is given a request that it must refuse.
    fn spoil_transaction(&mut self) {
        let (Some(transaction), Some(pinned)) = (&mut self.state.transaction, &self.state.pinned) else { return };
        transaction.is_spoiled = true;
        let pinned = Rc::clone(pinned);
        let wrong_arity = wrong_arity();
        pinned.push(self.aside_entry(&wrong_arity), &wrong_arity);
    }

    fn dispatch(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let handling = spec.handling;
        if self.is_local(handling) && !spec.arity_ok(resp::arguments(request).len()) {
            let name = spec.name;
            return self.local_error(&format!("ERR wrong number of arguments for '{name}' command"));
        }
        if let Some(step) = self.in_transaction(spec, request) {
            return step;
        }
        match handling {
            Handling::Auth => self.auth(request),
            Handling::Hello => self.hello(request),
            Handling::Reset => self.reset(),
            Handling::Quit => {
                self.closing = true;
                self.local(b"+OK\r\n")
            }
            Handling::Select => self.select(spec, request),
            Handling::Multi => self.multi(spec, request),
            Handling::Watch => self.watch(spec, request),
            Handling::Unwatch => self.unwatch(spec, request),
            Handling::Subscribe
            | Handling::PatternSubscribe
            | Handling::ShardSubscribe
            | Handling::Unsubscribe
            | Handling::PatternUnsubscribe
            | Handling::ShardUnsubscribe => self.subscription(spec, request),
            Handling::Blocking if command::is_blocking(spec, request) => self.block(spec, request, false),
            Handling::Wait => self.block(spec, request, true),
            Handling::Urgent => self.block(spec, request, false),
            Handling::Monitor => self.monitor(spec, request),
            Handling::Sync => self.tunnel(request),
            Handling::ReplicaConfiguration => self.replica_configuration(spec, request),
            Handling::ScriptLoad | Handling::ScriptFlush | Handling::FunctionLoad => {
                let expected = Expected::Script { spec, request: request.to_vec() };
                self.send(spec, request, Way::Usual, Some(expected))
            }
            Handling::ScriptDebug
            | Handling::ClientNoTouch
            | Handling::ClientCapability
            | Handling::ClientImportSource => self.keep(spec, request),
            Handling::ClientTracking => self.tracking(spec, request),
            Handling::ClientPause => self.pause(spec, request),
            Handling::ClientGetRedir if spec.arity_ok(resp::arguments(request).len()) => self.get_redirect(),
            Handling::ClientTrackingInfo => self.send(spec, request, Way::Usual, Some(Expected::TrackingInfo)),
            Handling::ClientId
            | Handling::ClientList
            | Handling::ClientInfo
            | Handling::ClientKill
            | Handling::ClientUnblock
            | Handling::ClientSetName
            | Handling::ClientGetName
            | Handling::ClientReply
            | Handling::ClientNoEvict
            | Handling::ClientSetInfo => self.client_command(handling, request),
            _ => self.forward(spec, request),
        }
    }

    /// Whether we answer a command ourselves, so that nobody else checks its arity.
    fn is_local(&self, handling: Handling) -> bool {
        let in_transaction = self.state.transaction.is_some();
        matches!(handling, Handling::Auth | Handling::Hello | Handling::Quit | Handling::Reset)
            || (!in_transaction
                && matches!(
                    handling,
                    Handling::ClientId
                        | Handling::ClientList
                        | Handling::ClientInfo
                        | Handling::ClientKill
                        | Handling::ClientUnblock
                        | Handling::ClientSetName
                        | Handling::ClientGetName
                        | Handling::ClientReply
                        | Handling::ClientNoEvict
                        | Handling::ClientSetInfo
                ))
    }

    // --- replies of our own ---

    pub(super) fn local(&mut self, reply: &[u8]) -> Step {
        let seq = self.session.output.place();
        self.state.answered_here = self.state.answered_here.wrapping_add(1);
        self.answer_in_mode(seq, reply);
        Step::Consumed
    }

    pub(super) fn local_error(&mut self, text: &str) -> Step {
        let mut out = Vec::with_capacity(text.len() + 3);
        write::error(&mut out, text);
        self.local(&out)
    }

    /// Answers unless CLIENT REPLY says otherwise.
    pub(super) fn answer_in_mode(&mut self, seq: u32, reply: &[u8]) {
        let silent = self.take_silence();
        self.session.answer(seq, if silent { b"" } else { reply });
    }

    /// Whether the present request is to be answered with silence.
    fn take_silence(&mut self) -> bool {
        match self.state.reply {
            ReplyMode::On => false,
            ReplyMode::Off => true,
            ReplyMode::SkipNext => {
                self.state.reply = ReplyMode::On;
                true
            }
        }
    }

    /// Whether earlier requests must be answered before the present one changes how later ones are served.
    pub(super) fn must_settle(&self) -> bool {
        self.session.output.in_flight() > 0
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
        }
        self.session.protocol.set(protocol);
        let number = if protocol == Protocol::Resp3 { 3 } else { 2 };
        self.session.record.update(|shown| shown.protocol = number);
    }

    /// An entry whose reply nobody wants.
    pub(super) fn aside_entry(&self, request: &[u8]) -> Entry<Session> {
        Entry {
            owner: self.session.clone(),
            at_us: self.now_us,
            seq: 0,
            len: request.len() as u32,
            confirmations: 0,
            class: Class::PointRead,
            attempts: 0,
            flags: flag::ABANDONED,
        }
    }

    // --- sending ---

    /// Sends a request that changes nothing about the session.
    pub(super) fn forward(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        self.send(spec, request, Way::Usual, None)
    }

    /// Sends a request on a connection of the session's own.
    pub(super) fn send_own(&mut self, spec: &'static Spec, request: &[u8], expected: Option<Expected>) -> Step {
        self.send(spec, request, Way::Own, expected)
    }

    /// Asks the server whether the client's user may have a command that is answered here.
    pub(super) fn ask_permission(&mut self, handling: Handling, question: &[u8]) -> Step {
        let reply = self.state.reply;
        let step = self.send(command::of_request(question), question, Way::Usual, Some(Expected::Permission(handling)));
        // Silence is for the command, not for the question.
        self.state.reply = reply;
        let is_asked = matches!(self.state.expected.back(), Some((.., Expected::Permission(_))));
        if is_asked { Step::Wait } else { step }
    }

    fn send(&mut self, spec: &'static Spec, request: &[u8], way: Way, expected: Option<Expected>) -> Step {
        let link = match self.connection(way) {
            Ok(link) => link,
            Err(step) => return step,
        };
        self.send_on(&link, spec, request, expected)
    }

    pub(super) fn send_on(
        &mut self,
        link: &Rc<Link<Session>>,
        spec: &'static Spec,
        request: &[u8],
        expected: Option<Expected>,
    ) -> Step {
        let context = Rc::clone(&self.session.context);
        let Some(mut batch) = link.batch() else {
            let name = &link.backend.name;
            return self.local_error(&format!("OVERLOADED backend {name} has too many requests in flight; try again"));
        };
        let route = context.route();
        if route.recording != 0 && spec.is_write() {
            let queued_select = self.state.transaction.as_ref().and_then(|transaction| transaction.select);
            let database = queued_select.unwrap_or(self.state.database());
            note_write(context.group.recording(&route), database, spec, request);
        }
        let silent = self.take_silence();
        let seq = self.session.output.place();
        let expected = expected.or_else(|| silent.then_some(Expected::Nothing));
        let ends = spec.handling == Handling::Exec;
        let is_queued = spec.handling == Handling::Multi || (self.state.transaction.is_some() && !ends);
        let mut flags = if is_queued { flag::QUEUED } else { 0 };
        let mut confirmations = 0;
        if let Some(expected) = expected {
            flags |= flag::SPECIAL;
            if matches!(expected, Expected::Subscription) {
                flags |= flag::SUBSCRIPTION;
                confirmations = self.confirmations(spec, request);
            }
            self.state.expected.push_back((seq, silent, expected));
        }
        batch.entry(Entry {
            owner: self.session.clone(),
            at_us: self.now_us,
            seq,
            len: request.len() as u32,
            confirmations,
            class: if self.state.is_blocked { Class::Blocking } else { spec.class },
            attempts: 0,
            flags,
        });
        batch.bytes(request);
        Step::Consumed
    }

    /// The connection that the next request takes; `Err` when it must wait or was refused.
    fn connection(&mut self, way: Way) -> Result<Rc<Link<Session>>, Step> {
        let context = Rc::clone(&self.session.context);
        let (active, availability, _) = context.route_facts();
        match availability {
            Availability::Serving => {}
            Availability::Holding => {
                let bound = context.settings.request_timeout.as_micros() as u64;
                if context.held_for_us(self.now_us) < bound {
                    return Err(Step::Wait);
                }
                return Err(self.no_backend());
            }
            Availability::NoBackend { since_us } => {
                let bound = context.settings.request_timeout.as_micros() as u64;
                if self.now_us.saturating_sub(since_us) >= bound {
                    return Err(self.no_backend());
                }
            }
        }
        let quiet = self.session.output.in_flight() == 0;
        let way = if context.is_paused(active, self.now_us) { Way::Own } else { way };
        if way == Way::Usual && quiet && !self.state.needs_pin() {
            self.release_pinned();
        }
        if let Some(pinned) = &self.state.pinned {
            return Ok(Rc::clone(pinned));
        }
        if way == Way::Own {
            if !quiet {
                return Err(Step::Wait);
            }
            let Some(link) = context.pin(active, self.state.lane(), self.session.clone()) else {
                return Err(self.local_error("OVERLOADED too many clients need a connection of their own (pinned.max)"));
            };
            self.own(&link);
            return Ok(link);
        }
        match &self.link {
            Some(link) if link.accepts() && link.backend.id == active && !quiet => Ok(Rc::clone(link)),
            _ if !quiet => Err(Step::Wait),
            _ => {
                let link = context.link(active, self.state.lane());
                let link = context.spill(&link, self.now_us);
                self.link = Some(Rc::clone(&link));
                Ok(link)
            }
        }
    }

    pub(super) fn no_backend(&mut self) -> Step {
        let context = &self.session.context;
        context.group.backend(context.route_facts().0).counters[context.worker].unserved.add(1);
        self.local_error("NOBACKEND no backend can serve now; see `standin status`")
    }

    // --- commands ---

    fn select(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let number =
            resp::arguments(request).nth(1).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
        let Some(number) = number.filter(|_| resp::arguments(request).len() == 2) else {
            return self.forward(spec, request);
        };
        if self.must_settle() {
            return Step::Wait;
        }
        if self.state.needs_pin() {
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

    /// Nothing else happens until the reply to what was just sent.
    pub(super) fn awaiting(&mut self, step: Step) -> Step {
        if step == Step::Consumed && self.session.output.in_flight() > 0 {
            self.state.awaited += 1;
        }
        step
    }

    fn reset(&mut self) -> Step {
        if self.must_settle() {
            return Step::Wait;
        }
        self.abandon_pinned();
        let is_authenticated = !self.session.context.settings.requires_login;
        self.state = State::new(is_authenticated);
        self.link = None;
        self.session.protocol.set(Protocol::Resp2);
        self.session.subscribed.set(false);
        self.session.monitoring.set(false);
        self.session.record.update(|shown| {
            let fresh =
                super::registry::Shown { protocol: 2, user: "default".to_owned(), queued: -1, ..Default::default() };
            *shown = super::registry::Shown { last_command: "reset", ..fresh };
        });
        self.local(b"+RESET\r\n")
    }

    /// CLIENT PAUSE and UNPAUSE: what waits by order is neither late nor a sign of trouble.
    fn pause(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let until_us = self.now_us.saturating_add(pause_us(request));
        let context = &self.session.context;
        let backend = Arc::clone(context.group.backend(context.route_facts().0));
        self.send(spec, request, Way::Usual, Some(Expected::Pause { backend, until_us }))
    }

    fn monitor(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
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

    fn tunnel(&mut self, request: &[u8]) -> Step {
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
    fn replica_configuration(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
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
    fn keep(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let step = self.send_own(spec, request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            self.state.is_pristine = false;
            self.state.kept.retain(|kept| command::of_request(kept).name != spec.name);
            let turned_off = resp::arguments(request)
                .nth(2)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"off") || word.eq_ignore_ascii_case(b"no"));
            if !turned_off {
                self.state.kept.push(request.to_vec());
            }
            if spec.handling == Handling::ClientNoTouch {
                self.session.record.update(|shown| shown.no_touch = !turned_off);
            }
        }
        step
    }

    fn multi(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.watch == Watch::Broken {
            self.state.transaction = Some(Transaction::new(true));
            return self.local(b"+OK\r\n");
        }
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let step = self.send_own(spec, request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            self.state.transaction = Some(Transaction::new(false));
            self.session.record.update(|shown| shown.queued = 0);
        }
        step
    }

    fn watch(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        if self.state.watch == Watch::Broken && spec.arity_ok(resp::arguments(request).len()) {
            // One that was lost stays lost, whatever is watched besides: EXEC is answered here, and what a server would
            // watch from now on would outlive it on a connection that others use next.
            return self.local(b"+OK\r\n");
        }
        let step = self.send_own(spec, request, None);
        if step == Step::Consumed && self.state.pinned.is_some() && self.state.watch == Watch::None {
            self.state.watch = Watch::Live;
            self.session.record.update(|shown| shown.watching = true);
        }
        step
    }

    fn unwatch(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let step = self.forward(spec, request);
        if step == Step::Consumed {
            self.state.watch = Watch::None;
            self.session.record.update(|shown| shown.watching = false);
        }
        step
    }

    /// What happens to requests between MULTI and EXEC; `None` when the session is not there.
    fn in_transaction(&mut self, spec: &'static Spec, request: &[u8]) -> Option<Step> {
        let transaction = self.state.transaction.as_mut()?;
        let ends = match spec.handling {
            Handling::Quit | Handling::Reset | Handling::Auth | Handling::Hello => return None,
            Handling::Exec | Handling::Discard => true,
            _ => false,
        };
        if transaction.is_doomed {
            if !ends {
                return Some(self.local(b"+QUEUED\r\n"));
            }
            self.end_transaction();
            let mut out = Vec::new();
            if spec.handling == Handling::Exec {
                write::null_array(&mut out, self.state.protocol);
            } else {
                out.extend_from_slice(b"+OK\r\n");
            }
            return Some(self.local(&out));
        }
        if ends {
            let placed = self.state.answered_here;
            let step = self.send_own(spec, request, Some(Expected::Exec));
            let refused = self.state.answered_here != placed;
            return Some(if refused { step } else { self.awaiting(step) });
        }
        let placed = self.state.answered_here;
        let step = self.send_own(spec, request, None);
        if self.state.answered_here != placed {
            // Refused by us: the client was told that it is not executed, so EXEC must not execute the rest either.
            match &mut self.state.transaction {
                Some(transaction) if self.state.pinned.is_none() => transaction.is_doomed = true,
                _ => self.spoil_transaction(),
            }
            return Some(step);
        }
        // Nested MULTI and WATCH are refused by the server itself, and nothing is queued; what must wait comes again.
        if step == Step::Consumed
            && !matches!(spec.handling, Handling::Multi | Handling::Watch)
            && let Some(transaction) = &mut self.state.transaction
        {
            transaction.remember(request);
            if !matches!(spec.handling, Handling::Shared | Handling::Blocking) {
                // It may leave its connection in a state that nobody else must meet.
                self.state.is_pristine = false;
            }
            let queued = transaction.queued;
            if spec.handling == Handling::Select {
                let number =
                    resp::arguments(request).nth(1).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                transaction.select = number;
            }
            if spec.handling == Handling::ClientPause {
                transaction.pause_us = Some(pause_us(request));
            }
            self.session.record.update(|shown| shown.queued = queued);
        }
        Some(step)
    }

    pub(super) fn end_transaction(&mut self) {
        self.state.transaction = None;
        self.state.watch = Watch::None;
        self.session.record.update(|shown| {
            shown.queued = -1;
            shown.watching = false;
        });
    }

    // --- replies that change the session ---

    pub(super) fn finish_special(&mut self, seq: u32, reply: Vec<u8>) {
        let Some(at) = self.state.expected.iter().position(|(expected, ..)| *expected == seq) else {
            return self.session.answer(seq, &reply);
        };
        let Some((_, silent, expected)) = self.state.expected.remove(at) else { return };
        let succeeded = !matches!(reply.first(), Some(b'-' | b'!'));
        let is_tracking_info = matches!(expected, Expected::TrackingInfo);
        match expected {
            Expected::Nothing | Expected::Subscription | Expected::TrackingInfo => {}
            Expected::Permission(handling) => {
                let refusal = || String::from_utf8_lossy(&reply[1..]).trim_end().to_owned();
                self.state.permission = Some((handling, if succeeded { Ok(()) } else { Err(refusal()) }));
                return self.session.answer(seq, b"");
            }
            Expected::Select(number) => {
                self.state.awaited = self.state.awaited.saturating_sub(1);
                if succeeded {
                    self.state.select(number);
                    self.session.context.group.note_database(number);
                    self.link = None;
                    self.session.record.update(|shown| shown.database = number);
                }
            }
            Expected::Exec => {
                self.state.awaited = self.state.awaited.saturating_sub(1);
                self.transaction_answered(succeeded, &reply);
            }
            Expected::Blocking => {
                if self.begins_again(seq, &reply) {
                    return self.state.expected.push_back((seq, silent, Expected::Blocking));
                }
                self.state.is_blocked = false;
                self.state.blocked_request = None;
                self.state.count_blocked(self.session.context.worker, None);
                self.session.record.update(|shown| shown.blocked = false);
            }
            Expected::Pause { backend, until_us } => {
                if succeeded {
                    backend.pause_until(until_us);
                }
            }
            Expected::Script { spec, request } => {
                if succeeded {
                    self.session.context.scripts.note(spec, &request);
                }
            }
        }
        let reply = if is_tracking_info { self.own_redirect_in(&reply) } else { reply };
        self.session.answer(seq, if silent { b"" } else { &reply });
        if self.session.output.in_flight() == 0 && !self.state.needs_pin() {
            self.release_pinned();
        }
    }

    fn transaction_answered(&mut self, succeeded: bool, reply: &[u8]) {
        let Some(transaction) = self.state.transaction.take() else { return };
        if reply.starts_with(b"-UNKNOWNOUTCOME") {
            self.note_unknown_transaction(&transaction);
        }
        if succeeded && let Some(pause_us) = transaction.pause_us {
            let context = &self.session.context;
            context.group.backend(context.route_facts().0).pause_until(self.now_us.saturating_add(pause_us));
        }
        if succeeded && let Some(number) = transaction.select {
            self.state.select(number);
            self.session.context.group.note_database(number);
            self.state.is_pristine = false;
            self.link = None;
            self.session.record.update(|shown| shown.database = number);
        }
        self.end_transaction();
    }
}

/// How long CLIENT PAUSE holds requests back, in microseconds; CLIENT UNPAUSE, not at all.
fn pause_us(request: &[u8]) -> u64 {
    let text = resp::arguments(request).nth(2).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1000)
}
