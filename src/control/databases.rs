//! Databases that clients use for the first time: what is left there from before is seen to first.

use std::rc::Rc;

use super::entry::{self, Obstacle};
use super::group::{GroupControl, Message};
use crate::policy::BackendId;
use crate::telemetry::events::{Event as Entry, EventKind};

impl GroupControl {
    /// A session uses a database that none has used before.
    pub(super) fn on_database_noted(&mut self) {
        for index in 0..self.shared.probers.len() {
            self.update_standing(BackendId(index as u8));
        }
        self.unseal_active();
    }

    /// Lets waiting sessions into databases of the active backend that kept their keys when the others were emptied.
    pub(super) fn unseal_active(&mut self) {
        let shared = Rc::clone(&self.shared);
        let id = shared.group.route().active;
        let is_idle = !shared.facts.borrow()[id.index()].emptying && shared.newest_is_done();
        if !self.started || !is_idle || shared.sealed_in_use(id).is_none() {
            return;
        }
        shared.facts.borrow_mut()[id.index()].emptying = true;
        tokio::task::spawn_local(async move {
            let result = entry::unseal(&shared, id, true).await.map_err(Obstacle::why);
            let _ = shared.messages.send(Message::Unsealed(id, result));
        });
    }

    pub(super) fn on_unsealed(&mut self, id: BackendId, result: Result<(), String>) {
        let name = self.shared.rules(id).name.clone();
        let why = result.err();
        let before = {
            let facts = &mut self.shared.facts.borrow_mut()[id.index()];
            facts.emptying = false;
            std::mem::replace(&mut facts.sealed_why, why.clone())
        };
        match &why {
            None => tracing::info!(backend = name, "a database that is used for the first time was emptied before"),
            // Tried again after each probe; said once.
            Some(why) if before.as_ref() != Some(why) => {
                let message = format!("backend {name} does not serve a database that was just selected: {why}");
                self.shared.record(Entry::new(EventKind::NotEnterable, message).backend(name));
            }
            Some(_) => {}
        }
        self.update_standing(id);
    }
}
