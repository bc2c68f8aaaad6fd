//! Other Standins of the group, which use the same servers and decide for themselves. Each says on a server that it serves
//! from it (a set of names; whether a name still lives, CLIENT LIST tells). What follows from that:
//!
//! - A backend from which another serves is not emptied: what it holds is what the other's clients were told.
//! - Nor is it unknown, if the other entered it empty or emptied it: it is entered as it is, but for what our own clients
//!   have written elsewhere since.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::entry::words;
use super::facts::Facts;
use super::marks::Marks;
use super::shared::{Shared, is_earlier_generation};
use crate::backend::Reply;
use crate::divergence::State;
use crate::policy::BackendId;

/// A backend from which another was seen to serve is not tried to be emptied for so long.
const SPARED: Duration = Duration::from_secs(10);

impl Shared {
    fn is_our_name(&self, name: &str) -> bool {
        name == self.client_name || self.incidents.borrow().predecessors.iter().any(|ours| ours == name)
    }

    /// Whether a server names others of the group that serve from it, dead or alive.
    pub(super) fn names_neighbours(&self, marks: &Marks) -> bool {
        marks.serving.iter().any(|name| !self.is_our_name(name))
    }

    /// Another Standin of the group has emptied a server since we looked at it: whatever it holds is younger than that.
    pub(super) fn note_generation(&self, id: BackendId, marks: &Marks) {
        let facts = &mut self.facts.borrow_mut()[id.index()];
        if let (Some(ours), Some(theirs)) = (&facts.generation, &marks.generation)
            && is_earlier_generation(ours, theirs)
        {
            facts.generation = Some(theirs.clone());
            facts.emptied_by_neighbour = true;
        }
    }

    /// Takes the content of a server for known if another Standin began to serve from it when it was empty. From now on what
    /// our clients write elsewhere is recorded against it.
    ///
    /// What they wrote between the other's entry and this look is not. That is older than what the other's clients wrote
    /// there since, unless both wrote the same key in that second while the old active still served us: see
    /// docs/consistency.md.
    pub(super) fn join_neighbour(&self, id: BackendId, facts: &mut Facts) {
        facts.emptied_by_neighbour = false;
        self.group.record(id).settle(State::Clean);
        if self.group.route().epoch > 0 {
            self.republish();
        }
        tracing::info!(backend = self.rules(id).name, "another Standin of the group serves from it");
    }

    /// Whether emptying it would be refused anyway.
    pub(super) fn is_spared(&self, id: BackendId) -> bool {
        self.facts.borrow()[id.index()].serves_neighbour.is_some_and(|seen| seen.elapsed() < SPARED)
    }

    /// Sees to it that a server names us exactly while we serve from it.
    pub(super) fn tend_own_name(&self, id: BackendId, marks: &Marks) {
        let serves = self.group.route().active == id && self.group.route().epoch > 0;
        let is_named = marks.serving.contains(&self.client_name);
        let names_everybody = marks.serving.len() < 3;
        let is_wrong =
            if serves { names_everybody && !is_named } else { is_named || self.facts.borrow()[id.index()].names_us };
        // A replica names those that serve from its master.
        let cannot = self.rules(id).is_embedded || self.is_replica(id);
        if !is_wrong || cannot || !self.newest_is_done() {
            return;
        }
        self.facts.borrow_mut()[id.index()].names_us = false;
        let command = if serves { "SADD" } else { "SREM" };
        self.tell(id, vec![words(&[command, &self.mark_keys.serving, &self.client_name])]);
    }
}

/// What is asked to find out who serves from a server: the names, and who is connected.
pub(super) fn questions(shared: &Shared) -> [Vec<Vec<u8>>; 2] {
    [words(&["SMEMBERS", &shared.mark_keys.serving]), words(&["CLIENT", "LIST"])]
}

/// Who else serves, and names of the dead, by the answers to [`questions`]. Where the server does not tell who is connected,
/// all count as alive.
pub(super) fn living(shared: &Shared, names: &Reply, list: &Reply) -> (Vec<String>, Vec<String>) {
    let names = names.elements().unwrap_or_default().iter().filter_map(Reply::text).map(str::to_owned);
    let others = names.filter(|name| !shared.is_our_name(name));
    let is_connected = |name: &String| {
        let field = format!("name={name}");
        list.text().is_none_or(|list| list.lines().any(|line| line.split(' ').any(|part| part == field)))
    };
    others.partition(is_connected)
}

/// Forgets names of Standins that have ended.
pub(super) async fn forget_dead(shared: &Rc<Shared>, id: BackendId) -> io::Result<()> {
    let answers = shared.ask(id, questions(shared).to_vec(), shared.entry_timeout).await?;
    let (_, dead) = living(shared, &answers[0], &answers[1]);
    if !dead.is_empty() {
        let mut forget = words(&["SREM", &shared.mark_keys.serving]);
        forget.extend(dead.into_iter().map(String::into_bytes));
        shared.ask(id, vec![forget], shared.entry_timeout).await?;
    }
    Ok(())
}

/// Notes that others serve from a server, and says so in one sentence.
pub(super) fn spare(shared: &Shared, id: BackendId, alive: &[String]) -> Option<String> {
    let count = alive.len();
    shared.facts.borrow_mut()[id.index()].serves_neighbour = (count > 0).then(Instant::now);
    match count {
        0 => None,
        1 => Some("another Standin of the group serves from it: it is not emptied".to_owned()),
        count => Some(format!("{count} other Standins of the group serve from it: it is not emptied")),
    }
}
