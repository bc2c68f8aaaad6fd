//! The two connections of a sampler.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::Kind;
use crate::backend::{self, Conversation, Depth, Lane, Reply};
use crate::control::entry::words;
use crate::control::shared::Shared;
use crate::policy::{BackendId, BackendRole};
use crate::resp::Protocol;

/// One server of the two.
pub(in crate::control) struct Side {
    conversation: Conversation,
    bound: Duration,
    /// The server's number of the clients' database 0.
    base: u32,
    selected: Option<u32>,
}

impl Side {
    pub(in crate::control) async fn connect(shared: &Rc<Shared>, id: BackendId) -> io::Result<Self> {
        let backend = shared.group.backend(id);
        let lane = Lane { database: 0, protocol: Protocol::Resp2, user: 0 };
        let login = backend.target.login.clone();
        let ready = backend::connect(backend, lane, &login, Depth::Brief).await.map_err(io::Error::other)?;
        let known = shared.facts.borrow()[id.index()].identity.clone();
        if !known.is_some_and(|known| known.same_content(&ready.identity)) {
            return Err(io::Error::other("it is another server than the one that was looked at"));
        }
        let base = backend.target.database;
        Ok(Self { conversation: ready.conversation, bound: backend.timing.request, base, selected: None })
    }

    /// Asks in a database, as clients number it.
    pub(in crate::control) async fn ask(
        &mut self,
        database: u32,
        requests: Vec<Vec<Vec<u8>>>,
    ) -> io::Result<Vec<Reply>> {
        let mut all = requests;
        let selects = self.selected != Some(database);
        if selects {
            let on_server = if database == 0 { self.base } else { database };
            all.insert(0, words(&["SELECT", &on_server.to_string()]));
            self.selected = None;
        }
        let mut replies = self.conversation.ask_within(self.bound, &all).await?;
        if selects {
            if let Some(error) = replies[0].error() {
                return Err(io::Error::other(error.to_owned()));
            }
            replies.remove(0);
            self.selected = Some(database);
        }
        Ok(replies)
    }
}

/// The active and the backend that is compared with it.
pub(super) struct Pair {
    pub(super) active: Side,
    pub(super) follower: Side,
    /// The route's epoch when they were connected: another one may mean another active.
    epoch: u64,
    /// Whether what the active lacks is lacking by right. One that began to serve without the primary's content may lack
    /// what others keep for the primary's return.
    pub(super) is_complete: bool,
    /// Whether what the other lacks is missing there. One that nobody fills (`mirror.fill`) holds less by right.
    pub(super) is_filled: bool,
}

impl Pair {
    pub(super) async fn connect(shared: &Rc<Shared>, follower: BackendId, kind: Kind) -> io::Result<Self> {
        let route = shared.group.route();
        let is_complete = kind == Kind::Replica || shared.rules(route.active).role == BackendRole::Primary;
        let is_filled = kind == Kind::Replica || shared.mirror_settings.fill;
        let active = Side::connect(shared, route.active).await?;
        let follower = Side::connect(shared, follower).await?;
        Ok(Self { active, follower, epoch: route.epoch, is_complete, is_filled })
    }

    pub(super) fn is_of(&self, shared: &Rc<Shared>) -> bool {
        shared.group.route().epoch == self.epoch
    }
}
