//! CLIENT TRACKING, and redirections of invalidation messages to another client.

use std::rc::Rc;
use std::time::Duration;

use super::session::{Notice, Session};
use super::special::Step;
use super::task::SessionTask;
use crate::backend::Owner as _;
use crate::command::Spec;
use crate::resp::{self, Protocol, write};
use crate::route::Availability;

/// Where the invalidation messages of a client go.
pub(super) enum Redirect {
    /// To itself.
    None,
    /// To another client, whose connection the rewritten request names.
    Ready(Vec<u8>),
    /// To another client, which has no connection of its own yet.
    NotYet(Session),
    Unknown,
}

impl SessionTask {
    /// CLIENT TRACKING: invalidations come on the connection that reads, so it must be the client's own.
    pub(super) fn tracking(&mut self, spec: &'static Spec, request: &[u8]) -> Step {
        if self.state.pinned.is_none() && self.must_settle() {
            return Step::Wait;
        }
        let given = request.to_vec();
        let request = match self.with_backend_redirect(request) {
            Redirect::None => given.clone(),
            Redirect::Ready(request) => request,
            Redirect::NotYet(target) if !self.state.has_waited => return self.await_redirect(target),
            Redirect::NotYet(_) | Redirect::Unknown => {
                self.state.has_waited = false;
                return self.local_error("ERR The client ID you want redirect to does not exist");
            }
        };
        self.state.has_waited = false;
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
    pub(super) fn with_backend_redirect(&self, request: &[u8]) -> Redirect {
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
            session.notify(Notice::HasWaited);
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

    /// Everything that the client's own cache holds may be stale: said once for each loss, not for each attempt to
    /// replace the connection.
    pub(super) fn invalidate_all(&self) {
        if self.state.tracking.is_some() && self.state.protocol == Protocol::Resp3 {
            let mut push = Vec::new();
            write::push_len(&mut push, 2, Protocol::Resp3);
            write::bulk(&mut push, b"invalidate");
            write::null(&mut push, Protocol::Resp3);
            self.session.out_of_band(&push);
        }
    }
}

/// The client that CLIENT TRACKING names behind REDIRECT.
fn redirect_of(request: &[u8]) -> Option<u64> {
    let mut words = resp::arguments(request).skip_while(|word| !word.eq_ignore_ascii_case(b"redirect"));
    std::str::from_utf8(words.nth(1)?).ok()?.parse().ok().filter(|id| *id > 0)
}
