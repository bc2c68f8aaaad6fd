//! What the task of a group and the futures that carry out its actions share, all on one thread: the right to publish,
//! what is known of each backend, and the words that travel to its server.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::entry;
use super::facts::{self, BackendRules, Facts, Remedy};
use super::group::Message;
use super::incident::Incidents;
use super::marks::{MarkKeys, Marks};
use super::mirror::{MirrorControl, MirrorSettings, OtherWriter};
use super::probe::{Keyspace, ProbeCommand};
use super::replication::Servers;
use super::sampling::Figures;
use super::shares::Sharing;
use super::tracking::Question;
use crate::backend::{Identity, Reply, clock};
use crate::config::{DivergencePolicy, Sampling};
use crate::divergence::{Scripts, State};
use crate::policy::{BackendId, BackendRole, Standing, SwitchKind};
use crate::route::{Availability, Group, Publisher, Route};
use crate::telemetry::events::{Event as Entry, EventKind, History, Severity};

/// See the head of this file.
pub(super) struct Shared {
    pub(super) group: Arc<Group>,
    pub(super) publisher: RefCell<Publisher>,
    pub(super) probers: Vec<mpsc::Sender<ProbeCommand>>,
    pub(super) rules: Vec<BackendRules>,
    pub(super) facts: RefCell<Vec<Facts>>,
    pub(super) divergence_policy: DivergencePolicy,
    pub(super) servers: RefCell<Servers>,
    pub(super) mark_keys: MarkKeys,
    /// What all keys of Standin's own begin with.
    pub(super) own_prefix: String,
    /// By backend id.
    pub(super) mirrors: Vec<MirrorControl>,
    pub(super) mirror_settings: MirrorSettings,
    pub(super) sampling: Sampling,
    /// By backend id: what comparing it with the active has found.
    pub(super) samples: Vec<RefCell<Figures>>,
    /// Somebody else who writes to the active, seen lately.
    pub(super) other_writer: RefCell<Option<OtherWriter>>,
    pub(super) client_name: String,
    /// Which Standin this is: the same after a restart.
    pub(super) instance: String,
    pub(super) incidents: RefCell<Incidents>,
    /// Whether the active is asked what others write, and by whom it is asked now.
    pub(super) tracks_writers: bool,
    pub(super) tracking: RefCell<Option<mpsc::Sender<Question>>>,
    pub(super) entry_timeout: Duration,
    pub(super) newest_switch: Cell<u64>,
    /// How many switches have begun: who holds requests for another purpose sees whether one came between.
    pub(super) switches_begun: Cell<u64>,
    /// The backend that a planned switch is reconciling: its mirror may open though a switch is under way.
    pub(super) reconciling: Cell<Option<BackendId>>,
    /// Another backend serves a share of the keys, or is about to.
    pub(super) sharing: Sharing,
    /// What the engine wants clients to get, whatever a switch under way does meanwhile.
    pub(super) wished: Cell<Availability>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) history: Arc<History>,
    pub(super) random: Cell<u64>,
    pub(super) messages: mpsc::UnboundedSender<Message>,
}

impl Shared {
    pub(super) fn rules(&self, id: BackendId) -> &BackendRules {
        &self.rules[id.index()]
    }

    pub(super) fn standing(&self, id: BackendId) -> Standing {
        if let Some(twin) = self.twin(id) {
            return Standing::Refused { why: twin_text(&twin) };
        }
        if let Some(standing) = self.standing_of_replicated(id) {
            return standing;
        }
        let facts = &self.facts.borrow()[id.index()];
        let standing = facts::standing(self.rules(id), facts, self.divergence_policy, &self.group.record(id).summary());
        match self.sealed_in_use(id) {
            Some(why) if standing == Standing::Enterable => {
                match facts::remedy(self.rules(id), facts, self.divergence_policy, &why) {
                    Remedy::Flush | Remedy::Trust => Standing::Enterable,
                    Remedy::Refuse(why) => Standing::Refused { why },
                }
            }
            _ => standing,
        }
    }

    /// The backend that answers at another address and is the same server as this one, as far as the group's databases go:
    /// two names of one server, or a proxy before it. Of the two, the active one counts, else the primary, else the first.
    pub(super) fn twin(&self, id: BackendId) -> Option<String> {
        let active = self.group.route().active;
        let facts = self.facts.borrow();
        let run_id =
            facts[id.index()].identity.as_ref().map(|identity| &identity.run_id).filter(|run_id| !run_id.is_empty())?;
        let on_server = |id: BackendId| -> BTreeSet<u32> {
            let used = self.group.databases_used();
            used.into_iter().map(|database| self.group.backend(id).database_on_server(database)).collect()
        };
        let precedence = |rules: &BackendRules| (rules.id != active, rules.role != BackendRole::Primary, rules.id);
        let is_twin = |other: &&BackendRules| {
            let theirs = &facts[other.id.index()];
            let is_same = theirs.identity.as_ref().is_some_and(|identity| identity.run_id == *run_id);
            // What is known of one that does not answer may be of yesterday: its name may lead elsewhere by now.
            is_same && theirs.last_error.is_none() && !on_server(id).is_disjoint(&on_server(other.id))
        };
        let before_it = self.rules.iter().filter(|other| precedence(other) < precedence(self.rules(id)));
        before_it.filter(is_twin).map(|other| other.name.clone()).next()
    }

    /// Why a backend is not served from as it is though its record is settled: sessions use databases by now that were
    /// left as they were when the rest was emptied.
    pub(super) fn sealed_in_use(&self, id: BackendId) -> Option<String> {
        let numbers = self.group.sealed_in_use(id);
        if numbers.is_empty() {
            return None;
        }
        let numbers = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        Some(format!("database {numbers} was not used when the others were emptied, and kept its keys"))
    }

    pub(super) fn record(&self, event: Entry) -> u64 {
        self.history.record(event.group(self.group.name.clone()))
    }

    pub(super) fn newest_is_done(&self) -> bool {
        self.newest_switch.get() == 0
    }

    /// Publishes that a backend was entered.
    pub(super) fn enter(self: &Rc<Self>, active: BackendId) -> Arc<Route> {
        self.incident_began();
        self.wished.set(Availability::Serving);
        let route = self.publisher.borrow_mut().enter(active, self.keeping(active));
        self.complete_copy(&route);
        route
    }

    /// Publishes whether requests are served.
    pub(super) fn set_availability(&self, availability: Availability) -> Arc<Route> {
        let keeping = self.keeping(self.group.route().active);
        self.publisher.borrow_mut().set_availability(availability, keeping)
    }

    /// Publishes what is to be kept now, and nothing else.
    pub(super) fn republish(&self) -> Arc<Route> {
        self.set_availability(self.group.route().availability)
    }

    /// Holds requests, and has what is in flight entered into the records of those that were kept in step: one of them is
    /// about to serve, and the outcome of what is in flight will not be known.
    pub(super) fn hold_in_doubt(&self) -> Arc<Route> {
        let active = self.group.route().active;
        let mut keeping = self.keeping(active);
        let is_doubted = |id: BackendId| id != active || self.sharing.with.get().is_some();
        for rules in self.rules.iter().filter(|rules| is_doubted(rules.id) && self.may_mirror(rules.id)) {
            keeping.doubting |= 1 << rules.id.index();
        }
        self.publisher.borrow_mut().set_availability(Availability::Holding, keeping)
    }

    /// The active backend has been left.
    pub(super) fn left(&self, id: BackendId, _kind: SwitchKind) {
        self.facts.borrow_mut()[id.index()].names_us = true;
        self.tell(id, vec![entry::words(&["SREM", &self.mark_keys.serving, &self.client_name])]);
        let rules = self.rules(id);
        if self.promotes() && rules.is_replicated {
            self.group.record(id).become_unknown("it was left, and is to follow the server that serves");
        } else if rules.role == BackendRole::Backup && rules.data == crate::config::DataMode::Cold {
            // It is emptied while it waits. From where another Standin serves it is not, and what we write elsewhere from
            // now on is recorded against it.
            if !self.facts.borrow()[id.index()].names_neighbours {
                self.group.record(id).become_unknown("it was left, and is not kept in step while it waits");
            }
            let _ = self.probers[id.index()].try_send(ProbeCommand::Now);
        }
    }

    /// A handshake or probe told who the server is; true when its content is another than before.
    pub(super) fn note_identity(&self, id: BackendId, identity: &Identity) -> bool {
        let facts = &mut self.facts.borrow_mut()[id.index()];
        let before = facts.identity.take();
        let identity = before.iter().fold(identity.clone(), Identity::completed_by);
        let restarted = before.as_ref().is_some_and(|before| !before.same_content(&identity));
        // What a replica holds is its master's affair, also when it takes all over anew.
        let follows = self.rules(id).is_replicated && identity.is_replica;
        let is_same_process = before.as_ref().is_some_and(|before| before.run_id == identity.run_id);
        facts.identity = Some(identity);
        if !restarted || follows && is_same_process {
            return false;
        }
        facts.keys = None;
        facts.emptied_by_neighbour = false;
        let undead = self.group.backend(id).undead();
        self.group.backend(id).proven_dead(&undead);
        self.group.record(id).become_unknown("it restarted, so its content is another than before");
        let name = &self.rules(id).name;
        let message = format!(
            "backend {name} restarted or is another server than before; its content is looked at before it serves"
        );
        let serves = self.group.route().active == id;
        let severity = if serves { Severity::Warning } else { Severity::Info };
        self.record(Entry::new(EventKind::IdentityChanged, message).severity(severity).backend(name.clone()));
        true
    }

    /// One look at a server, by the requests of an entry.
    pub(super) fn saw(&self, id: BackendId, identity: &Identity, keyspace: &Reply, marks: &Marks) {
        self.note_identity(id, identity);
        if keyspace.text().is_some() {
            self.note_content(id, &Keyspace::read(keyspace), marks);
        }
    }

    pub(super) fn note_content(&self, id: BackendId, keyspace: &Keyspace, marks: &Marks) {
        self.note_incident(id, marks.incident.as_ref());
        self.note_generation(id, marks);
        let is_active = self.group.route().serves(id);
        let names_neighbours = self.names_neighbours(marks);
        let mut facts = self.facts.borrow_mut();
        let facts = &mut facts[id.index()];
        facts.names_neighbours = names_neighbours;
        let keys = keyspace.keys(facts.mark_database, marks.keys());
        facts.other_owners = marks.others(&self.group.name);
        facts.keys = Some(keys);
        facts.filled = keyspace.filled(facts.mark_database, marks.keys());
        let backend = self.group.backend(id);
        backend.seal(backend.sealed().intersection(&facts.filled).copied().collect());
        let base = self.group.backend(id).target.database;
        let used = self.group.databases_used();
        facts.keys_in_use = keyspace.only(&used, base).keys(facts.mark_database, marks.keys());
        // While it is kept in step its keys are ours, and what a probe says of them is old.
        if is_active || !facts.met || self.mirror(id).is_on() {
            return;
        }
        let record = self.group.record(id);
        let was_emptied = facts.emptied_by_neighbour;
        match (record.state(), keys) {
            (State::Empty, 0) => {}
            (_, 0) => record.settle(State::Empty),
            (State::Empty, _) if names_neighbours => self.join_neighbour(id, facts),
            (State::Unknown, _) if names_neighbours && was_emptied => self.join_neighbour(id, facts),
            (State::Empty, _) => record.become_unknown("keys appeared on it that this Standin did not write"),
            _ => {}
        }
    }

    /// A name for the content of a server that is claimed now.
    pub(super) fn new_generation(&self) -> String {
        let mut x = self.random.get() ^ clock::micros();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        format!("{x:016x}.0")
    }

    /// The name of what follows when that content is emptied. It tells its ancestors: a server may come back with one.
    pub(super) fn next_generation(&self, of: Option<&str>) -> String {
        let next = of.and_then(|of| {
            let (line, number) = of.split_once('.')?;
            Some(format!("{line}.{}", number.parse::<u64>().ok()? + 1))
        });
        next.unwrap_or_else(|| self.new_generation())
    }

    pub(super) fn put_mark(&self, id: BackendId, generation: String) {
        let mark = entry::words(&["SET", &self.mark_keys.generation, &generation]);
        self.tell(id, vec![mark, entry::words(&["SADD", &self.mark_keys.owners, &self.group.name])]);
    }

    pub(super) fn drop_mark(&self, id: BackendId) {
        let mark = entry::words(&["DEL", &self.mark_keys.generation]);
        self.tell(id, vec![mark, entry::words(&["SREM", &self.mark_keys.owners, &self.group.name])]);
    }

    /// Asks without waiting for the answer; what fails is seen by the next probe.
    pub(super) fn tell(&self, id: BackendId, requests: Vec<Vec<Vec<u8>>>) {
        let (reply, _) = oneshot::channel();
        let _ = self.probers[id.index()].try_send(ProbeCommand::Ask { requests, within: self.entry_timeout, reply });
    }

    /// Empties a cold backup that waits, unless it has become the active in between.
    pub(super) async fn empty_if_idle(self: &Rc<Self>, id: BackendId) -> Result<(), String> {
        if self.group.route().serves(id) {
            return Ok(());
        }
        entry::empty(self, id).await
    }
}

/// Whether one generation is an ancestor of the other.
pub(super) fn is_earlier_generation(earlier: &str, later: &str) -> bool {
    let parts = |text: &str| {
        text.split_once('.').and_then(|(line, number)| Some((line.to_owned(), number.parse::<u64>().ok()?)))
    };
    matches!((parts(earlier), parts(later)), (Some((a, before)), Some((b, after))) if a == b && before < after)
}

/// Why one of two addresses of the same server is neither entered nor emptied.
pub(super) fn twin_text(twin: &str) -> String {
    format!("it is the same server as backend {twin}, and what is done to the one is done to the other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ancestor_of_our_own_generation_counts_as_ours() {
        assert!(is_earlier_generation("ab.1", "ab.12"));
        for (theirs, ours) in [("ab.12", "ab.1"), ("ab.1", "ab.1"), ("cd.1", "ab.12"), ("ab", "ab.1"), ("", "ab.1")] {
            assert!(!is_earlier_generation(theirs, ours), "{theirs} {ours}");
        }
    }
}
