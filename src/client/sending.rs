//! Which connection a request takes, and how it is put there.

use std::rc::Rc;

use super::ahead::{self, Leave};
use super::leases::Admitted;
use super::modes::Expected;
use super::session::Session;
use super::special::Step;
use super::task::{SessionTask, mirror_flag};
use crate::backend::{Entry, Link, flag};
use crate::command::{self, Class, Handling, Spec};
use crate::divergence::Lease;
use crate::resp;
use crate::route::Availability;

/// Which connection a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The session's own, if it has one, else the multiplexed link.
    Usual,
    /// A connection of the session's own.
    Own,
}

/// A connection for a request, with what the request holds while it is under way.
type Connection = (Rc<Link<Session>>, Option<Lease>);

impl SessionTask {
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

    pub(super) fn send(&mut self, spec: &'static Spec, request: &[u8], way: Way, expected: Option<Expected>) -> Step {
        let (link, lease) = match self.connection(way, spec, request) {
            Ok(found) => found,
            Err(step) => return step,
        };
        self.send_on(&link, lease, spec, request, expected)
    }

    pub(super) fn send_on(
        &mut self,
        link: &Rc<Link<Session>>,
        lease: Option<Lease>,
        spec: &'static Spec,
        request: &[u8],
        expected: Option<Expected>,
    ) -> Step {
        let context = Rc::clone(&self.session.context);
        let queued_select = self.state.transaction.as_ref().and_then(|transaction| transaction.select);
        let database = queued_select.unwrap_or(self.state.database());
        let ahead = match self.leave_by(link, database, spec, request) {
            Leave::Now => None,
            Leave::Behind(block) => Some(block),
            Leave::Wait => return Step::Wait,
        };
        let behind = self.reminder_behind(link, spec);
        let Some(mut batch) = link.batch() else {
            let name = &link.backend.name;
            return self.local_error(&format!("OVERLOADED backend {name} has too many requests in flight; try again"));
        };
        let route = context.route();
        if let Some(block) = ahead {
            batch.entry(ahead::entry(&self.session, self.now_us, &block));
            batch.bytes(&block.bytes);
        }
        let silent = self.take_silence();
        let seq = self.session.output.place();
        self.hold(spec, seq, lease);
        let expected = expected.or_else(|| silent.then_some(Expected::Nothing));
        let ends = spec.handling == Handling::Exec;
        let is_queued = spec.handling == Handling::Multi || (self.state.transaction.is_some() && !ends);
        let mut flags = if is_queued { flag::QUEUED } else { 0 };
        if route.mirroring != 0 && !is_queued {
            flags |= mirror_flag(spec, resp::arguments(request).len() as u32);
            if self.doubt_transaction(spec) {
                flags |= flag::MIRRORED;
            }
        }
        if route.reading != 0 && !is_queued {
            let backends = context.group.with_room_for_reads(route.reading);
            context.note_read(backends, database, spec, request, self.now_us);
        }
        let mut confirmations = 0;
        if let Some(expected) = expected {
            flags |= flag::SPECIAL;
            if matches!(expected, Expected::Subscription { .. }) {
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
        if let Some(block) = behind {
            batch.entry(ahead::entry(&self.session, self.now_us, &block));
            batch.bytes(&block.bytes);
        }
        Step::Consumed
    }

    /// The connection that the next request takes, and what it holds meanwhile; `Err` when it must wait or was refused.
    fn connection(&mut self, way: Way, spec: &'static Spec, request: &[u8]) -> Result<Connection, Step> {
        let context = Rc::clone(&self.session.context);
        let (active, availability, _) = context.route_facts();
        if self.is_unserved() {
            return Err(self.no_backend());
        }
        if availability == Availability::Holding {
            return Err(Step::Wait);
        }
        let quiet = self.session.output.in_flight() == 0;
        let way = if context.is_paused(active, self.now_us) { Way::Own } else { way };
        if way == Way::Usual && quiet && !self.state.needs_pin() {
            self.release_pinned();
        }
        if way == Way::Own && self.state.pinned.is_none() && !quiet {
            return Err(Step::Wait);
        }
        let Admitted { backend, lease } = self.admit(way, spec, request)?;
        if let Some(pinned) = &self.state.pinned {
            return Ok((Rc::clone(pinned), lease));
        }
        if way == Way::Own {
            let Some(link) = context.pin(active, self.state.lane(), self.session.clone()) else {
                return Err(self.local_error("OVERLOADED too many clients need a connection of their own (pinned.max)"));
            };
            self.own(&link);
            return Ok((link, lease));
        }
        match &self.link {
            Some(link) if link.accepts() && link.backend.id == backend && !quiet => Ok((Rc::clone(link), lease)),
            _ if !quiet => Err(Step::Wait),
            _ => {
                let link = context.link(backend, self.state.lane());
                let link = context.spill(&link, self.now_us);
                self.link = Some(Rc::clone(&link));
                Ok((link, lease))
            }
        }
    }

    /// Whether no backend can serve and requests are refused at once.
    pub(super) fn is_unserved(&self) -> bool {
        let context = &self.session.context;
        let bound = context.settings.request_timeout.as_micros() as u64;
        match context.route_facts().1 {
            Availability::Serving => false,
            Availability::Holding => context.held_for_us(self.now_us) >= bound,
            Availability::NoBackend { since_us } => self.now_us.saturating_sub(since_us) >= bound,
        }
    }

    pub(super) fn no_backend(&mut self) -> Step {
        let context = &self.session.context;
        context.group.backend(context.route_facts().0).counters[context.worker].unserved.add(1);
        self.local_error("NOBACKEND no backend can serve now; see `standin status`")
    }

    /// Nothing else happens until the reply to what was just sent.
    pub(super) fn awaiting(&mut self, step: Step) -> Step {
        if step == Step::Consumed && self.session.output.in_flight() > 0 {
            self.state.awaited += 1;
        }
        step
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
}
