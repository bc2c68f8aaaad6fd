//! What a server has missed while another served, where replication itself has carried it over: no record says more.

use std::rc::Rc;
use std::time::Duration;

use super::super::shared::Shared;
use super::look::Replication;
use super::promotion::look;
use crate::policy::BackendId;

/// A server that is left because it is in trouble is waited for no longer.
const LOOK_MAX: Duration = Duration::from_millis(100);

impl Shared {
    /// Who leads a stream, as one look told: it may have taken writes of its own.
    pub(super) fn note_leader(&self, id: BackendId, look: &Replication) {
        if !look.is_replica {
            self.servers.borrow_mut().led[id.index()] = Some(look.id.clone());
        }
    }

    /// It begins to serve. As a replica it takes no writes until it is seen as a master.
    pub(in crate::control) fn begins_to_serve(&self, id: BackendId) {
        if self.is_replica(id) {
            self.servers.borrow_mut().led[id.index()] = None;
        }
    }
}

/// Whether a master holds by replication what was written while `from` served: that one has only ever served as its replica,
/// which refuses writes, or it was promoted out of the stream that `from` led.
///
/// Such writes are recorded all the same, since nobody knows before a reply comes whether there is one; to remove those keys
/// would lose what was acknowledged before.
pub(in crate::control) async fn is_carried_over(shared: &Rc<Shared>, from: BackendId, to: BackendId) -> bool {
    if from == to || !shared.is_replicated(from) || !shared.is_replicated(to) {
        return false;
    }
    let known = shared.facts.borrow()[to.index()].replication.clone();
    let Some(master) = known.filter(|look| !look.is_replica && !look.id.is_empty()) else { return false };
    let led = |shared: &Shared| shared.servers.borrow().led[from.index()].clone();
    if let Some(led) = led(shared) {
        return master.earlier_id == led;
    }
    // Somebody may have promoted it a moment ago.
    let asked = tokio::time::timeout(LOOK_MAX, look(shared, from)).await;
    let follows = matches!(asked, Ok(Ok(Some(look))) if look.is_replica && look.id == master.id);
    follows && led(shared).is_none()
}
