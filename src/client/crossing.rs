//! Clients that listen to channels, in a planned switch: nothing that is published is lost to them, and nothing comes twice.
//!
//! While the old backend still serves, each of them gets a second connection, to the next one, and is subscribed there as
//! well. When requests are held and nothing is published any more, a *fence* (a PING of ours) is sent on both: what comes
//! before its reply on the first was published before the switch, and everything behind its reply on the second after it.
//! So the first ends without a loss, and the second begins without what the servers' own replication brought there, which
//! had come by the first already. Then the route is published, and the second becomes the client's own.
//!
//! What has no second connection in time (`pinned.max`, a server that is slow to answer) goes on as after a failure, see
//! `rebuild`: so do clients whose connection is in a MULTI or waits on purpose, where nothing may be said in between.

use std::rc::Rc;
use std::time::Duration;

use super::context::Context;
use super::session::{Notice, Session};
use super::task::SessionTask;
use crate::backend::{Entry, Link, Listens, Owner as _, flag};
use crate::policy::BackendId;
use crate::resp::{self, Protocol};
use crate::route::Crossing;

/// Between two looks whether the sessions of a worker are ready.
const LOOK: Duration = Duration::from_millis(1);

/// A connection to the backend that is about to serve, beside the client's own. It is counted, and ends with this.
pub(super) struct Second {
    link: Option<Rc<Link<Session>>>,
    context: Rc<Context>,
}

impl Second {
    fn new(link: Rc<Link<Session>>, context: Rc<Context>) -> Self {
        context.group.crossings.opened();
        Self { link: Some(link), context }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.context.group.crossings.closed();
        if let Some(link) = self.link.take() {
            link.set_owner(None);
            let _ = link.abort();
        }
    }
}

/// Does what the control plane asks of the sessions of one worker.
pub(super) async fn lead_across(context: Rc<Context>) {
    let mut changes = context.group.crossings.changes();
    loop {
        let crossing = *changes.borrow_and_update();
        context.cross(crossing);
        // Sessions have their turn before the first look.
        tokio::task::yield_now().await;
        while context.is_crossing(crossing) && !changes.has_changed().unwrap_or(true) {
            tokio::time::sleep(LOOK).await;
        }
        context.group.crossings.pass(context.worker, crossing.number);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl Context {
    fn cross(&self, crossing: Crossing) {
        let (active, ..) = self.route_facts();
        for session in self.sessions.borrow().values() {
            if crossing.to.is_none() {
                session.end_crossing(active);
            } else if session.subscribed.get() {
                session.notify(Notice::Cross(crossing));
            }
        }
    }

    fn is_crossing(&self, crossing: Crossing) -> bool {
        crossing.to.is_some() && self.sessions.borrow().values().any(|session| session.is_crossing(crossing.number))
    }
}

impl Session {
    fn is_crossing(&self, number: u64) -> bool {
        if !self.subscribed.get() || self.is_gone() {
            return false;
        }
        let awaits = |link: &Rc<Link<Self>>| link.accepts() && link.in_flight() > 0;
        let second = self.second.borrow();
        let first = self.owned.borrow();
        self.crossing.get() < number
            || second.as_ref().and_then(|second| second.link.as_ref()).is_some_and(awaits)
            || first.as_ref().is_some_and(|first| first.accepts() && matches!(first.listens(), Listens::Until(_)))
    }

    /// No switch is prepared any more. A second connection to the backend that serves now is about to become the first.
    fn end_crossing(&self, active: BackendId) {
        if let Some(first) = self.owned.borrow().as_ref().filter(|first| first.backend.id == active) {
            first.listen(Listens::Always);
        }
        if self.second_backend().is_some_and(|id| id != active) {
            self.drop_second();
        }
    }

    fn second_backend(&self) -> Option<BackendId> {
        self.second.borrow().as_ref().and_then(|second| second.link.as_ref()).map(|link| link.backend.id)
    }

    pub(super) fn drop_second(&self) {
        drop(self.second.take());
    }
}

impl SessionTask {
    pub(super) fn cross(&mut self, crossing: Crossing) {
        self.session.crossing.set(crossing.number);
        match crossing.to {
            Some(to) if !crossing.is_fenced => self.open_second(to),
            Some(_) => self.fence(crossing.number as u32),
            None => {}
        }
    }

    /// Subscribes on the next backend too, unless that was done already.
    fn open_second(&mut self, to: BackendId) {
        if self.second().is_some_and(|second| second.backend.id == to && second.accepts()) {
            return;
        }
        self.session.drop_second();
        if self.state.pinned.as_ref().is_some_and(|pinned| pinned.backend.id == to) {
            return;
        }
        // In RESP2 a connection that is subscribed takes no CLIENT TRACKING any more, which must come first.
        let is_tracking = self.state.tracking.is_some() && self.state.protocol == Protocol::Resp2;
        if self.state.subscriptions.is_empty() || is_tracking {
            return;
        }
        let context = Rc::clone(&self.session.context);
        let Some(link) = context.second(to, self.state.lane(), self.session.clone()) else { return };
        link.listen(Listens::From(0));
        self.session.second.replace(Some(Second::new(Rc::clone(&link), context)));
        self.subscribe_on(&link);
    }

    fn second(&self) -> Option<Rc<Link<Session>>> {
        self.session.second.borrow().as_ref().and_then(|second| second.link.clone())
    }

    fn fence(&mut self, number: u32) {
        let Some(second) = self.second() else { return };
        second.listen(Listens::From(number));
        self.push_fence(&second, number);
        let is_busy = self.state.transaction.is_some() || self.state.is_blocked();
        if let Some(first) = self.state.pinned.clone().filter(|first| first.backend.id != second.backend.id && !is_busy)
        {
            first.listen(Listens::Until(number));
            self.push_fence(&first, number);
        }
    }

    fn push_fence(&self, link: &Link<Session>, number: u32) {
        let mut ping = Vec::new();
        resp::encode_request(&mut ping, &[b"PING"]);
        let flags = flag::ABANDONED | flag::FENCE;
        link.push(Entry { confirmations: number, flags, ..self.aside_entry(&ping) }, &ping);
    }

    /// What the client listens to has changed on its own connection.
    pub(super) fn subscribe_on_second(&mut self, request: &[u8]) {
        let Crossing { number, to, .. } = self.session.context.group.crossings.now();
        let Some(to) = to.filter(|_| !self.state.subscriptions.is_empty()) else {
            return self.session.drop_second();
        };
        self.session.crossing.set(number);
        let names = resp::arguments(request).len().saturating_sub(1);
        match self.second().filter(|second| second.backend.id == to && second.accepts()) {
            Some(second) if names > 0 => self.push_set_up(&second, request, names),
            // How many there are to leave is known for certain only where all of them were confirmed.
            Some(_) => self.renew_second(),
            // The route may be published already, and this session has not taken it up yet.
            None => self.open_second(to),
        }
    }

    /// Its second connection, if it has one, is not what it should be: another one is made.
    pub(super) fn renew_second(&mut self) {
        if let Some(to) = self.session.second_backend() {
            self.session.drop_second();
            self.open_second(to);
        }
    }

    /// The same, where the connection's database, protocol or user may be another.
    pub(super) fn renew_second_of_other_lane(&mut self) {
        if self.second().is_some_and(|second| second.lane != self.state.lane()) {
            self.renew_second();
        }
    }

    /// A state in which the client's own connection was put.
    pub(super) fn keep_on_second(&self, request: &[u8]) {
        if let Some(second) = self.second() {
            second.push(self.aside_entry(request), request);
        }
    }

    /// The second connection as the client's own, once its backend serves.
    pub(super) fn take_second(&mut self, active: BackendId) -> Option<Rc<Link<Session>>> {
        if self.session.second_backend() != Some(active) {
            return None;
        }
        let mut second = self.session.second.take()?;
        let link = second.link.take_if(|link| link.lane == self.state.lane() && link.accepts())?;
        link.listen(Listens::Always);
        Some(link)
    }

    pub(super) fn has_second(&self, active: BackendId) -> bool {
        self.session.second_backend() == Some(active)
    }

    /// The connection that has ended is the second one.
    pub(super) fn is_second(&self, link: &Rc<Link<Session>>) -> bool {
        self.second().is_some_and(|second| Rc::ptr_eq(&second, link))
    }
}
