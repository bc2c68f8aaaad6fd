//! MULTI, EXEC, WATCH: what is queued, what is remembered of it, and what becomes of it when the outcome is unknown.

use std::rc::Rc;

use super::modes::{Expected, Transaction, Watch};
use super::queued_here::{elements, is_answered_here};
use super::special::Step;
use super::stateful::pause_us;
use super::task::SessionTask;
use super::tracking::redirect_of;
use super::worker::Told;
use crate::backend::clock;
use crate::command::{self, Handling, Spec};
use crate::divergence::{Ahead, Record, note_write, note_write_ahead};
use crate::resp::{self, write};

/// What a server answers to EXEC when it has refused something that was to be queued.
pub(super) const EXEC_ABORT: &str = "EXECABORT Transaction discarded because of previous errors.";

/// A request that every server refuses and that changes nothing.
pub(super) fn wrong_arity() -> Vec<u8> {
    let mut request = Vec::new();
    resp::encode_request(&mut request, &[b"GET"]);
    request
}

impl SessionTask {
    pub(super) fn multi(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if !spec.arity_ok(resp::arguments(request).len()) {
            return self.forward(spec, request);
        }
        if self.state.watch == Watch::Broken {
            self.state.transaction = Some(Transaction::new(true));
            return self.local(b"+OK\r\n");
        }
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        if self.is_unserved() {
            // As a server does that cannot serve now: a refused MULTI would let what follows be executed one by one, as
            // soon as a backend is back.
            self.state.transaction = Some(Transaction { is_spoiled: true, ..Transaction::new(true) });
            return self.local(b"+OK\r\n");
        }
        let step = self.send_own(spec, request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            self.state.transaction = Some(Transaction::new(false));
            self.session.record.update(|shown| shown.queued = 0);
        }
        step
    }

    pub(super) fn watch(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
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

    pub(super) fn unwatch(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        let step = self.forward(spec, request);
        if step == Step::Consumed {
            self.state.watch = Watch::None;
            self.session.record.update(|shown| shown.watching = false);
        }
        step
    }

    /// What happens to requests between MULTI and EXEC; `None` when the session is not there.
    pub(super) fn in_transaction(&mut self, spec: &'static Spec, request: &[u8]) -> Option<Step> {
        let transaction = self.state.transaction.as_mut()?;
        let ends = match spec.handling {
            Handling::Quit | Handling::Reset => return None,
            Handling::Exec | Handling::Discard => true,
            _ => false,
        };
        if transaction.is_doomed {
            let is_spoiled = transaction.is_spoiled;
            if !ends {
                let is_refused = is_spoiled && self.is_unserved();
                return Some(if is_refused { self.no_backend() } else { self.local(b"+QUEUED\r\n") });
            }
            self.end_transaction();
            let mut out = Vec::new();
            if spec.handling == Handling::Exec && is_spoiled {
                write::error(&mut out, EXEC_ABORT);
            } else if spec.handling == Handling::Exec {
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
        if is_answered_here(spec.handling) {
            return Some(self.queue_here(spec, request));
        }
        let has_effect = has_effect(spec.handling);
        if has_effect && !transaction.has_room_for(request) {
            return Some(self.too_much_is_queued());
        }
        if spec.handling == Handling::ClientTracking && redirect_of(request).is_some() {
            self.spoil_transaction();
            return Some(
                self.local_error("ERR CLIENT TRACKING with REDIRECT cannot be queued here; say it before MULTI"),
            );
        }
        if spec.handling == Handling::Scan && self.is_of_another_epoch(spec, request) {
            return Some(self.refuse_cursor());
        }
        let placed = self.state.answered_here;
        let sealed = database_of(spec, request).and_then(|number| self.await_unsealed(number));
        if sealed == Some(Step::Wait) {
            return sealed;
        }
        let step = sealed.unwrap_or_else(|| self.send_own(spec, request, None));
        if self.state.answered_here != placed {
            self.refused_in_transaction();
            return Some(step);
        }
        // Nested MULTI and WATCH are refused by the server itself, and nothing is queued; what must wait comes again.
        if step == Step::Consumed
            && !matches!(spec.handling, Handling::Multi | Handling::Watch)
            && let Some(transaction) = &mut self.state.transaction
        {
            if has_effect {
                transaction.effects.push((transaction.queued as usize, request.to_vec()));
            }
            transaction.remember(request);
            if !matches!(spec.handling, Handling::Shared | Handling::Blocking | Handling::Scan) {
                // It may leave its connection in a state that nobody else must meet.
                self.state.is_pristine = false;
            }
            let queued = transaction.queued;
            if spec.handling == Handling::Select {
                transaction.select = database_of(spec, request);
            }
            if spec.handling == Handling::ClientPause {
                transaction.pause_us = Some(pause_us(request));
            }
            self.session.record.update(|shown| shown.queued = queued);
        }
        Some(step)
    }

    /// A request refused between MULTI and EXEC makes EXEC fail. The server does that itself once it has refused
    /// something too, so it is given a request that it must refuse.
    pub(super) fn spoil_transaction(&mut self) {
        let (Some(transaction), Some(pinned)) = (&mut self.state.transaction, &self.state.pinned) else { return };
        transaction.is_spoiled = true;
        let pinned = Rc::clone(pinned);
        let wrong_arity = wrong_arity();
        pinned.push(self.aside_entry(&wrong_arity), &wrong_arity);
    }

    /// Refused by us: the client was told that it is not executed, so EXEC must not execute the rest either.
    pub(super) fn refused_in_transaction(&mut self) {
        match &mut self.state.transaction {
            Some(transaction) if self.state.pinned.is_none() => {
                transaction.is_doomed = true;
                transaction.is_spoiled = true;
            }
            _ => self.spoil_transaction(),
        }
    }

    pub(super) fn too_much_is_queued(&mut self) -> Step {
        self.spoil_transaction();
        self.local_error("OVERLOADED too much is queued")
    }

    pub(super) fn end_transaction(&mut self) {
        self.state.transaction = None;
        self.state.watch = Watch::None;
        self.session.record.update(|shown| {
            shown.queued = -1;
            shown.watching = false;
        });
    }

    /// Ends the transaction; returns what of it is still to be carried out here.
    pub(super) fn transaction_answered(&mut self, succeeded: bool, reply: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let Some(mut transaction) = self.state.transaction.take() else { return Vec::new() };
        self.session.in_doubt.borrow_mut().clear();
        let was_executed = reply.first() == Some(&b'*') && !reply.starts_with(b"*-1");
        let executed = if was_executed { self.executed_effects(&mut transaction, reply) } else { Vec::new() };
        if succeeded {
            self.mirror_transaction(&transaction);
        }
        if reply.starts_with(b"-UNKNOWNOUTCOME") {
            self.note_unknown_transaction(&transaction);
        }
        if succeeded && let Some(pause_us) = transaction.pause_us {
            let context = &self.session.context;
            context.group.backend(context.route_facts().0).pause_until(self.now_us.saturating_add(pause_us));
        }
        for request in &executed {
            self.apply_effect(command::of_request(request), request);
        }
        self.end_transaction();
        transaction.own
    }

    /// Those of the queued requests with an effect on the client's connection that the server has not refused. A refused
    /// SELECT leaves the log, and what was queued behind it belongs to the database before it.
    fn executed_effects(&self, transaction: &mut Transaction, reply: &[u8]) -> Vec<Vec<u8>> {
        let effects = std::mem::take(&mut transaction.effects);
        if effects.is_empty() {
            return Vec::new();
        }
        let context = &self.session.context;
        let elements = elements(reply, &context.settings.links.frame_limits);
        let is_refused =
            |at: usize| elements.get(at).is_none_or(|element| matches!(element.first(), Some(b'-' | b'!')));
        let (executed, refused): (Vec<_>, Vec<_>) = effects.into_iter().partition(|(at, _)| !is_refused(*at));
        let is_select = |request: &[u8]| command::of_request(request).handling == Handling::Select;
        let mut was_misled = false;
        for (at, _) in refused.iter().rev().filter(|(_, request)| is_select(request)) {
            was_misled = true;
            if let Some(log) = &mut transaction.log {
                log.remove(*at);
            }
        }
        let route = context.route();
        if was_misled && route.recording != 0 {
            for (database, request) in
                in_databases(self.state.database(), transaction.log.iter().flatten().map(Vec::as_slice))
            {
                note_one(context.group.recording(&route), database, request);
            }
        }
        executed.into_iter().map(|(_, request)| request).collect()
    }

    /// What a request that EXEC has executed changes about the client's connection.
    fn apply_effect(&mut self, spec: &'static Spec, request: &[u8]) {
        match spec.handling {
            Handling::Select => {
                let Some(number) = database_of(spec, request) else { return };
                self.state.select(number);
                self.session.context.group.note_database(number);
                self.state.is_pristine = false;
                self.link = None;
                self.session.record.update(|shown| shown.database = number);
            }
            Handling::ClientTracking => {
                let turns_on = resp::arguments(request).nth(2).is_some_and(|word| word.eq_ignore_ascii_case(b"on"));
                self.tell_target(Told::Released { tracker: self.session.record.id });
                self.state.tracking = turns_on.then(|| request.to_vec());
                self.session.record.update(|shown| shown.tracking = turns_on);
            }
            Handling::ScriptLoad | Handling::ScriptFlush | Handling::FunctionLoad => {
                self.session.context.scripts.note(spec, request);
            }
            Handling::ScriptDebug
            | Handling::ClientNoTouch
            | Handling::ClientCapability
            | Handling::ClientImportSource => self.note_kept(spec, request),
            _ => {
                self.note_subscription(spec, request);
            }
        }
    }

    /// An EXEC is about to be sent: what it will write is known here alone. Says whether the request is one.
    pub(super) fn doubt_transaction(&self, spec: &Spec) -> bool {
        let is_exec = spec.handling == Handling::Exec;
        let log = self.state.transaction.as_ref().and_then(|transaction| transaction.log.as_ref());
        if let Some(log) = log.filter(|_| is_exec) {
            let writes = in_databases(self.state.database(), log.iter().map(Vec::as_slice))
                .filter(|(_, request)| command::of_request(request).is_write());
            *self.session.in_doubt.borrow_mut() =
                writes.map(|(database, request)| (database, request.to_vec())).collect();
        }
        is_exec
    }

    /// A mirror may have opened while an EXEC was on its way.
    pub(super) fn doubt_sent_transaction(&self) {
        let is_mirrored = self.session.context.route_facts().2.mirroring != 0;
        let is_sent = || self.state.expected.iter().any(|(.., expected)| matches!(expected, Expected::Exec));
        if is_mirrored && self.session.in_doubt.borrow().is_empty() && is_sent() {
            self.doubt_transaction(command::lookup(b"exec").unwrap_or(&command::UNKNOWN));
        }
    }

    fn mirror_transaction(&self, transaction: &Transaction) {
        let context = &self.session.context;
        match &transaction.log {
            Some(log) => {
                context.mirror_values(in_databases(self.state.database(), log.iter().map(Vec::as_slice)));
            }
            None => context.forget_mirrored("a transaction too long to remember was executed"),
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

impl Transaction {
    /// Enters what EXEC may write into records, and what the server that serves has not been told into `ahead`.
    pub(super) fn note_ahead<'a>(
        &self,
        database: u32,
        records: impl Iterator<Item = (u8, &'a Record)> + Clone,
        ahead: &mut Ahead,
    ) {
        let Some(log) = &self.log else {
            for (number, record) in records {
                record.become_unknown_ahead("a transaction too long to remember was executed", Some((number, ahead)));
            }
            return;
        };
        for (database, request) in in_databases(database, log.iter().map(Vec::as_slice)) {
            let spec = command::of_request(request);
            if spec.is_write() {
                note_write_ahead(records.clone(), database, spec, request, ahead);
            }
        }
    }
}

/// Requests that change the client's connection, or what the server knows besides its keys.
const fn has_effect(handling: Handling) -> bool {
    matches!(
        handling,
        Handling::Select
            | Handling::ClientTracking
            | Handling::ScriptLoad
            | Handling::ScriptFlush
            | Handling::FunctionLoad
            | Handling::ScriptDebug
            | Handling::ClientNoTouch
            | Handling::ClientCapability
            | Handling::ClientImportSource
            | Handling::Subscribe
            | Handling::PatternSubscribe
            | Handling::ShardSubscribe
            | Handling::Unsubscribe
            | Handling::PatternUnsubscribe
            | Handling::ShardUnsubscribe
    )
}

fn note_one<'a>(records: impl Iterator<Item = &'a Record> + Clone, database: u32, request: &[u8]) {
    let spec = command::of_request(request);
    if spec.is_write() {
        note_write(records, database, spec, request);
    }
}

/// The requests of a transaction with the database that each works in: a queued SELECT counts for those behind it.
pub(super) fn in_databases<'a>(
    first: u32,
    requests: impl Iterator<Item = &'a [u8]>,
) -> impl Iterator<Item = (u32, &'a [u8])> {
    requests.scan(first, |database, request| {
        if let Some(number) = database_of(command::of_request(request), request) {
            *database = number;
        }
        Some((*database, request))
    })
}

/// The database that a SELECT leads to.
fn database_of(spec: &Spec, request: &[u8]) -> Option<u32> {
    let number = resp::arguments(request).nth(1).filter(|_| spec.handling == Handling::Select)?;
    std::str::from_utf8(number).ok()?.parse().ok()
}
