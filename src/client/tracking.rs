//! CLIENT TRACKING, and redirections of invalidation messages to another client, whichever worker serves that one.
//!
//! A redirection names a connection on the server, so the client that is to hear of changes takes one of its own and shows
//! its id in its record; it remembers who redirects to it, and tells them when that connection was lost.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::registry::ClientRecord;
use super::session::Notice;
use super::special::Step;
use super::task::SessionTask;
use super::worker::Told;
use crate::backend::Owner as _;
use crate::command::Spec;
use crate::resp::{self, Protocol, write};
use crate::route::Availability;

/// Where clients of RESP2 hear of invalidated keys.
const CHANNEL: &[u8] = b"__redis__:invalidate";
/// First pause between two looks at whether the other client has its connection; it doubles up to the other.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(64);

/// Where the invalidation messages of a client go.
enum Redirect {
    /// To itself.
    None,
    /// To another client, whose connection the rewritten request names.
    Ready(Vec<u8>),
    /// To another client, which has no connection of its own yet.
    NotYet(Arc<ClientRecord>),
    Unknown,
}

impl SessionTask {
    /// CLIENT TRACKING: invalidations come on the connection that reads, so it must be the client's own.
    pub(super) fn tracking(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let given = request.to_vec();
        let has_waited = std::mem::take(&mut self.state.has_waited);
        let request = match self.with_backend_redirect(request) {
            Redirect::None => given.clone(),
            Redirect::Ready(request) => request,
            Redirect::NotYet(target) if !has_waited => {
                self.state.awaited += 1;
                self.await_redirect(target, Notice::HasWaited);
                return Step::Wait;
            }
            Redirect::NotYet(_) | Redirect::Unknown => {
                return self.local_error("ERR The client ID you want redirect to does not exist");
            }
        };
        let turns_on = resp::arguments(&request).nth(2).is_some_and(|word| word.eq_ignore_ascii_case(b"on"));
        if !turns_on && self.state.pinned.is_none() {
            return self.forward(spec, &request);
        }
        let step = self.send_own(spec, &request, None);
        if step == Step::Consumed && self.state.pinned.is_some() {
            let tracker = self.session.record.id;
            self.tell_target(Told::Released { tracker });
            self.state.tracking = turns_on.then_some(given);
            self.tell_target(Told::OwnConnection { tracker });
            self.state.is_pristine = false;
            self.session.record.update(|shown| shown.tracking = turns_on);
        }
        step
    }

    /// The request with the REDIRECT id of one of our clients replaced by the server's id of its connection.
    fn with_backend_redirect(&self, request: &[u8]) -> Redirect {
        let Some(id) = redirect_of(request) else { return Redirect::None };
        let context = &self.session.context;
        let Some(target) = context.registry.get(context.group.index, id) else { return Redirect::Unknown };
        let backend_id = target.shown().redirect_id;
        if backend_id == 0 {
            return Redirect::NotYet(target);
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

    /// Has the client that is to hear of changes take a connection of its own, whose id the server knows; then, or at the
    /// deadline, this session is told.
    fn await_redirect(&self, target: Arc<ClientRecord>, then: Notice) {
        let session = self.session.clone();
        let bound = session.context.settings.request_timeout;
        tokio::task::spawn_local(async move {
            let tracker = session.record.id;
            let ready = async {
                let mut pause = LOOK_PAUSE;
                while !target.killed.load(Ordering::Acquire) && target.shown().redirect_id == 0 {
                    session.context.registry.tell_client(&target, Told::OwnConnection { tracker });
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_PAUSE_MAX);
                }
            };
            let _ = tokio::time::timeout(bound, ready).await;
            session.notify(then);
        });
    }

    /// Says on the session's own connection, which is new or whose redirection is broken, what it tracks.
    pub(super) fn renew_tracking(&mut self) {
        let (Some(tracking), Some(pinned)) = (self.state.tracking.clone(), self.state.pinned.clone()) else { return };
        let request = match self.with_backend_redirect(&tracking) {
            Redirect::None => tracking,
            Redirect::Ready(request) => request,
            Redirect::NotYet(target) => return self.await_redirect(target, Notice::RenewTracking),
            // That client has left: its server would know as little.
            Redirect::Unknown => return,
        };
        pinned.push(self.aside_entry(&request), &request);
        self.tell_target(Told::OwnConnection { tracker: self.session.record.id });
        // What changed meanwhile was told to nobody.
        self.tell_target(Told::ForgetAll);
    }

    /// Tells something to the client that this one's invalidation messages go to, if they go to another.
    pub(super) fn tell_target(&self, told: Told) {
        let context = &self.session.context;
        let id = self.state.tracking.as_deref().and_then(redirect_of);
        if let Some(target) = id.and_then(|id| context.registry.get(context.group.index, id)) {
            context.registry.tell_client(&target, told);
        }
    }

    /// Another client redirects its invalidation messages to this one.
    pub(super) fn told(&mut self, told: &Told) {
        match told {
            Told::OwnConnection { tracker } => {
                self.state.trackers.insert(*tracker);
                self.own_for_redirect();
            }
            Told::Released { tracker } => {
                self.state.trackers.remove(tracker);
            }
            Told::RenewTracking => self.renew_tracking(),
            Told::ForgetAll => self.forget_all(),
        }
    }

    fn own_for_redirect(&mut self) {
        let context = Rc::clone(&self.session.context);
        let (active, availability, _) = context.route_facts();
        if self.state.pinned.is_none()
            && !self.must_settle()
            && !self.state.is_recovering()
            && availability == Availability::Serving
            && let Some(link) = context.pin(active, self.state.lane(), self.session.clone())
        {
            self.own(&link);
        }
        self.show_redirect_id(self.state.pinned.as_ref().map_or(0, |link| link.client_id()));
    }

    /// Where others may have their invalidation messages sent to for this client, by the server's id.
    pub(super) fn show_redirect_id(&mut self, id: u64) {
        if std::mem::replace(&mut self.state.redirect_id, id) != id {
            self.session.record.update(|shown| shown.redirect_id = id);
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

    /// The session's own connection was lost, and with it what the server knew of its keys: said once for each loss, not
    /// for each attempt to replace it. Who redirects to this client says anew where to.
    pub(super) fn tracking_lost(&mut self) {
        let redirects = self.state.tracking.as_deref().and_then(redirect_of).is_some();
        if (self.state.tracking.is_some() && !redirects) || !self.state.trackers.is_empty() {
            self.forget_all();
        }
        if self.state.trackers.is_empty() {
            return;
        }
        self.show_redirect_id(0);
        let context = Rc::clone(&self.session.context);
        self.state.trackers.retain(|tracker| {
            let tracker = context.registry.get(context.group.index, *tracker);
            if let Some(tracker) = &tracker {
                context.registry.tell_client(tracker, Told::RenewTracking);
            }
            tracker.is_some()
        });
    }

    /// Everything that the client's own cache holds may be stale.
    fn forget_all(&self) {
        let mut frame = Vec::new();
        if self.state.protocol == Protocol::Resp3 {
            write::push_len(&mut frame, 2, Protocol::Resp3);
            write::bulk(&mut frame, b"invalidate");
            write::null(&mut frame, Protocol::Resp3);
        } else if self.state.subscriptions.channels.contains(CHANNEL) {
            write::array_len(&mut frame, 3);
            write::bulk(&mut frame, b"message");
            write::bulk(&mut frame, CHANNEL);
            write::null(&mut frame, Protocol::Resp2);
        } else {
            return;
        }
        self.session.out_of_band(&frame);
    }
}

/// The client that CLIENT TRACKING names behind REDIRECT.
pub(super) fn redirect_of(request: &[u8]) -> Option<u64> {
    let mut words = resp::arguments(request).skip_while(|word| !word.eq_ignore_ascii_case(b"redirect"));
    std::str::from_utf8(words.nth(1)?).ok()?.parse().ok().filter(|id| *id > 0)
}
