//! Incidents: who serves since when, told to every server that can be reached, and what a Standin that starts makes of
//! what the servers were told before.
//!
//! A server that was told of a newer incident than the one it served in must not be taken as it is: others have
//! acknowledged writes since.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::entry::words;
use super::marks::Incident;
use super::shared::Shared;
use crate::config::DataMode;
use crate::policy::BackendId;

/// A server that does not keep what it is told is told again at most this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What the group remembers of incidents.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    /// The newest that any server was told of, or that we began.
    pub(super) newest: u64,
    /// The one in which the present active serves.
    current: u64,
    /// A backend that knows that it will serve but does not yet: nobody else writes its incident meanwhile.
    announcing: Option<(BackendId, u64)>,
    /// The announced incident, if the server takes down what others miss in it.
    announced_copy: u32,
    /// The present incident, if the active takes down what others miss in it; else 0.
    pub(super) copying: u32,
    /// Names of connections of earlier runs of this Standin: what they had in flight may still be executed.
    pub(super) predecessors: Vec<String>,
    /// By backend: what it was told last, and when.
    told: Vec<Option<(u64, Instant)>>,
    /// How many databases the group has used, when that was told last.
    databases_told: usize,
}

impl Shared {
    /// What a server says about the past.
    pub(super) fn note_incident(&self, id: BackendId, incident: Option<&Incident>) {
        self.facts.borrow_mut()[id.index()].incident = incident.cloned();
        let Some(incident) = incident else { return };
        let mut incidents = self.incidents.borrow_mut();
        incidents.newest = incidents.newest.max(incident.number);
        for database in &incident.databases {
            self.group.note_database(*database);
        }
        let is_earlier_run = incident.instance == self.instance && incident.process != self.client_name;
        if is_earlier_run && !incidents.predecessors.contains(&incident.process) {
            incidents.predecessors.push(incident.process.clone());
        }
    }

    fn incident_of(&self, active: BackendId, number: u64) -> Incident {
        let identity = self.facts.borrow()[active.index()].identity.clone().unwrap_or_default();
        Incident {
            number,
            active: self.rules(active).name.clone(),
            run_id: identity.run_id,
            process: self.client_name.clone(),
            instance: self.instance.clone(),
            databases: self.group.databases_used(),
            shared: if self.group.route().active == active { self.sharing.told.get() } else { 0 },
        }
    }

    fn can_be_told(&self, id: BackendId) -> bool {
        // What a replica that waits holds is not ours to write to; once promoted, it is like any other.
        let serves = self.group.route().active == id
            || self.incidents.borrow().announcing.is_some_and(|(announced, _)| announced == id);
        let waits = self.rules(id).data == DataMode::Replica && !serves;
        !self.rules(id).is_embedded && !self.is_replica(id) && !waits
    }

    /// The announced backend serves now.
    pub(super) fn incident_began(&self) {
        let mut incidents = self.incidents.borrow_mut();
        let announced = incidents.announcing.take().map(|(_, number)| number);
        if announced != Some(incidents.newest) {
            // Another number was given out meanwhile; the active will be told of this one.
            incidents.newest += 1;
        }
        incidents.current = incidents.newest;
        // Blocks name the incident that was announced, also if the active will be told of a newer number.
        incidents.copying = std::mem::take(&mut incidents.announced_copy);
    }

    /// The announced backend was not entered after all: whoever serves does so in an incident newer than that one.
    pub(super) fn incident_was_none(&self) {
        let mut incidents = self.incidents.borrow_mut();
        if incidents.announcing.take().is_some() {
            incidents.newest += 1;
            incidents.current = incidents.newest;
            incidents.announced_copy = 0;
            // What was written ahead on the present active so far counted for the keys of another copy meanwhile.
            self.group.break_copy(incidents.copying);
            incidents.copying = 0;
        }
    }

    /// Tells a server of the present incident: an idle one that has not heard of it, and the active one again if a
    /// client's FLUSHALL took it along.
    pub(super) fn remind(&self, id: BackendId) {
        let route = self.group.route();
        let can_be_told = self.can_be_told(id);
        let heard = self.facts.borrow()[id.index()].incident.as_ref().map_or(0, |incident| incident.number);
        let mut incidents = self.incidents.borrow_mut();
        let current = incidents.current;
        if route.epoch == 0
            || incidents.announcing.is_some_and(|(announced, _)| announced == id)
            || heard >= current
            || !can_be_told
        {
            return;
        }
        incidents.told.resize(self.rules.len(), None);
        let told = &mut incidents.told[id.index()];
        if told.is_some_and(|(number, at)| number == current && at.elapsed() < TELL_EVERY) {
            return;
        }
        *told = Some((current, Instant::now()));
        let incident = self.incident_of(route.active, current);
        // That of the active is never emptied: what others have missed may have been written there meanwhile.
        self.tell(id, self.writing(&incident, route.active != id, Vec::new(), false));
    }

    /// A session has used another database for the first time: a Standin that starts later must know, or would leave old
    /// content there.
    pub(super) fn note_databases(&self) {
        let databases = self.group.databases_used();
        if self.group.route().epoch == 0 || self.incidents.borrow().databases_told == databases.len() {
            return;
        }
        self.incidents.borrow_mut().databases_told = databases.len();
        let text: Vec<String> = databases.iter().map(u32::to_string).collect();
        let hset = words(&["HSET", &self.mark_keys.incident, "databases", &text.join(",")]);
        for rules in &self.rules {
            if self.can_be_told(rules.id) && self.facts.borrow()[rules.id.index()].incident.is_some() {
                self.tell(rules.id, vec![hset.clone()]);
            }
        }
    }

    /// The present incident once more, with for how many slots newer values may lie on another backend.
    pub(super) fn share_words(&self, active: BackendId, slots: u16) -> Vec<Vec<Vec<u8>>> {
        let incident = Incident { shared: slots, ..self.incident_of(active, self.incidents.borrow().current) };
        self.writing(&incident, false, Vec::new(), false)
    }

    /// The requests that write an incident down, with further fields.
    fn writing(&self, incident: &Incident, anew: bool, further: Vec<Vec<u8>>, serves: bool) -> Vec<Vec<Vec<u8>>> {
        let mut hset = words(&["HSET", &self.mark_keys.incident]);
        hset.extend(incident.fields().into_iter().map(String::into_bytes));
        hset.extend(further);
        let mut requests = vec![words(&["MULTI"])];
        if anew {
            requests.push(words(&["DEL", &self.mark_keys.incident]));
        }
        requests.push(hset);
        requests.push(words(&["SADD", &self.mark_keys.groups, &self.group.name]));
        if serves {
            requests.push(words(&["SADD", &self.mark_keys.serving, &self.client_name]));
        }
        requests.push(words(&["EXEC"]));
        requests
    }
}

/// Begins an incident on the backend that is about to serve.
///
/// A server that does not take the note is entered all the same: it serves, and a Standin that starts later does not know.
pub(super) async fn announce(shared: &Rc<Shared>, id: BackendId) {
    let number = {
        let mut incidents = shared.incidents.borrow_mut();
        incidents.newest += 1;
        let number = incidents.newest;
        incidents.announcing = Some((id, number));
        number
    };
    shared.incidents.borrow_mut().announced_copy = 0;
    if shared.can_be_told(id) {
        let incident = shared.incident_of(id, number);
        let copy = shared.copy_of_records(id, number as u32);
        let is_copied = !copy.is_empty();
        match shared.order(id, shared.writing(&incident, true, copy, true)).await {
            Ok(_) => {
                shared.facts.borrow_mut()[id.index()].incident = Some(incident);
                let copying = if is_copied { number as u32 } else { 0 };
                shared.incidents.borrow_mut().announced_copy = copying;
            }
            Err(why) => {
                let name = &shared.rules(id).name;
                tracing::info!(
                    backend = name,
                    why,
                    "it does not remember that it serves: Standin must not be killed now"
                );
            }
        }
    }
}

/// Connections of earlier runs of this Standin are proven dead: a server that was frozen may still hold their writes.
pub(super) async fn bury_predecessors(shared: &Rc<Shared>, id: BackendId) -> io::Result<()> {
    let known = shared.incidents.borrow().predecessors.len();
    let buried = shared.facts.borrow()[id.index()].predecessors_buried;
    if known == buried || shared.rules(id).is_embedded {
        return Ok(());
    }
    let names = shared.incidents.borrow().predecessors.clone();
    bury_all_named(shared, id, &names).await?;
    shared.facts.borrow_mut()[id.index()].predecessors_buried = known;
    Ok(())
}

/// Kills every connection with one of these names, but not the one on which this is said.
pub(super) async fn bury_all_named(shared: &Rc<Shared>, id: BackendId, names: &[String]) -> io::Result<()> {
    let questions = vec![words(&["CLIENT", "ID"]), words(&["CLIENT", "LIST"])];
    let replies = shared.ask(id, questions, shared.entry_timeout).await?;
    let own = replies[0].integer().unwrap_or_default().to_string();
    let list = replies[1].text().unwrap_or_default();
    let others = connections_of(list, names).filter(|id| *id != own);
    let kills: Vec<_> = others.map(|id| words(&["CLIENT", "KILL", "ID", id])).collect();
    if !kills.is_empty() {
        shared.ask(id, kills, shared.entry_timeout).await?;
    }
    Ok(())
}

/// The ids of connections with one of these names.
fn connections_of<'a>(list: &'a str, names: &'a [String]) -> impl Iterator<Item = &'a str> {
    let field = |line: &'a str, name: &str| line.split(' ').find_map(|part| part.strip_prefix(name));
    list.lines().filter_map(move |line| {
        let name = field(line, "name=")?;
        names.iter().any(|known| known == name).then(|| field(line, "id=")).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_of_earlier_runs_are_killed() {
        let list =
            "id=3 addr=1.1.1.1:1 name=standin-old db=0\nid=4 addr=1.1.1.1:2 name=standin-new db=0\nid=5 name= db=0\n";
        let names = ["standin-old".to_owned(), "standin-older".to_owned()];
        assert_eq!(connections_of(list, &names).collect::<Vec<_>>(), ["3"]);
    }
}
