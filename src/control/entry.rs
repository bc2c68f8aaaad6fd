//! Entering a backend: look at its content, make it right, and only then let requests go there. `steps` says when each
//! of this is done.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::facts::{Remedy, is_better_emptied, remedy};
use super::incident;
use super::marks::Marks;
use super::neighbours;
use super::probe::ProbeCommand;
use super::replication;
use super::shared::{Shared, is_earlier_generation, twin_text};
use super::steps::{Outcome, Wanted};
use crate::backend::{Identity, Reply, read_info};
use crate::command;
use crate::divergence::{DirtyKey, State};
use crate::policy::BackendId;

/// Dirty keys removed in one round trip, and by one request: the server serves others in between.
const RECONCILE_BATCH: usize = 10_000;
const UNLINK_KEYS: usize = 1_000;
/// Rounds of removal before the switch; past them writes come faster than they can be removed.
pub(super) const RECONCILE_ROUNDS: usize = 64;
/// Why a backend that is kept in step is not entered by plan yet.
pub(super) const STILL_FILLING: &str = "it is still being filled from the active";
/// A foreign client that worked within this many seconds counts as being at work.
const FOREIGN_IDLE_SECONDS: u64 = 10;

pub(super) enum Obstacle {
    Refused(String),
    Failed(String),
}

impl Obstacle {
    pub(super) fn why(self) -> String {
        match self {
            Self::Refused(why) | Self::Failed(why) => why,
        }
    }
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A backend that is kept in step is entered by plan only when it is: nothing that was acknowledged is lost then.
pub(super) fn expect_in_step(shared: &Rc<Shared>, id: BackendId) -> Result<(), Obstacle> {
    let control = shared.mirror(id);
    let is_filling = control.is_on() && !control.is_filled(&shared.mirror_settings);
    // It is emptied, and then it is filled.
    let is_filling = is_filling || control.empties.get();
    if is_filling || shared.is_yet_to_be_filled(id) {
        return Err(Obstacle::Refused(STILL_FILLING.to_owned()));
    }
    Ok(())
}

/// Forgets the record, unless keys were added since the last of them were removed.
pub(super) async fn settle(shared: &Rc<Shared>, to: BackendId, outcome: &mut Outcome) -> Result<(), Obstacle> {
    let record = shared.group.record(to);
    if outcome.carried {
        record.settle(State::Clean);
        return Ok(());
    }
    for _ in 0..RECONCILE_ROUNDS {
        let additions = record.additions();
        if record.summary().keys > 0 {
            outcome.removed += remove_batch(shared, to).await?;
        } else if record.settle_if_unchanged(State::Clean, additions) {
            return Ok(());
        }
    }
    Err(Obstacle::Failed("keys are written faster than what it has missed can be removed".to_owned()))
}

/// Looks at the content and makes it right; `finally` means that after this nothing is written elsewhere.
pub(super) async fn enter(
    shared: &Rc<Shared>,
    wanted: &Wanted,
    outcome: &mut Outcome,
    finally: bool,
) -> Result<Identity, Obstacle> {
    let to = wanted.to;
    // Buried first: what a thawing server still executes must be there when it is looked at.
    bury_the_undead(shared, to).await?;
    incident::bury_predecessors(shared, to).await?;
    let identity = look(shared, to).await?;
    let record = shared.group.record(to);
    let (rules, policy) = (shared.rules(to), shared.divergence_policy);
    let standing = shared.standing(to);
    if let crate::policy::Standing::Refused { why } = standing {
        return Err(Obstacle::Refused(why));
    }
    let is_empty = shared.facts.borrow()[to.index()].keys == Some(0);
    if finally && replication::is_carried_over(shared, wanted.from, to).await {
        outcome.carried = true;
        record.settle(State::Clean);
    } else if shared.mirror(to).is_on() {
        // It is right but for what is in its record.
    } else if is_empty {
        record.settle(State::Empty);
    } else if record.state() == State::Unknown && !shared.content_is_replicated(to) {
        let why = record.summary().why;
        let facts = shared.facts.borrow()[to.index()].clone();
        match remedy(rules, &facts, policy, &why) {
            Remedy::Refuse(why) => return Err(Obstacle::Refused(why)),
            Remedy::Trust => record.settle(State::Clean),
            Remedy::Flush if !finally => {}
            Remedy::Flush => {
                flush(shared, to).await?;
                tracing::info!(backend = rules.name, why, "emptied before it serves");
                outcome.flushed = true;
            }
        }
    }
    if finally && !outcome.carried && !outcome.flushed {
        outcome.flushed = flush_what_missed_many(shared, to).await;
    }
    if !outcome.flushed && shared.sealed_in_use(to).is_some() {
        unseal(shared, to, finally).await?;
    }
    if finally {
        load_scripts(shared, to).await?;
        // Last, with nothing to wait for between this and the publication: the old active may still acknowledge writes.
        while record.summary().keys > 0 && !outcome.carried {
            outcome.removed += remove_batch(shared, to).await?;
        }
    }
    Ok(identity)
}

/// Empties a backend in one round trip that has missed so many keys that removing them takes long, unless as many others would
/// go. Returns whether it was; if it could not be, its keys are removed.
async fn flush_what_missed_many(shared: &Rc<Shared>, id: BackendId) -> bool {
    let (rules, missed) = (shared.rules(id), shared.group.record(id).summary().keys);
    let facts = shared.facts.borrow()[id.index()].clone();
    if !is_better_emptied(rules, &facts, shared.divergence_policy, missed, missed as u64) {
        return false;
    }
    match flush(shared, id).await.map_err(Obstacle::why) {
        Ok(()) => {
            tracing::info!(backend = rules.name, missed, "emptied before it serves");
            true
        }
        Err(why) => {
            tracing::info!(backend = rules.name, missed, why, "could not be emptied; its keys are removed one by one");
            false
        }
    }
}

/// One round trip: who is it, and what does it hold?
pub(super) async fn look(shared: &Rc<Shared>, id: BackendId) -> Result<Identity, Obstacle> {
    let mut requests = vec![words(&["INFO", "server"]), words(&["INFO", "replication"]), words(&["INFO", "keyspace"])];
    requests.extend(shared.mark_keys.looks().iter().map(|look| words(look)));
    let replies = shared.ask(id, requests, shared.entry_timeout).await?;
    let known = shared.facts.borrow()[id.index()].identity.clone().unwrap_or_default();
    let mut identity = known;
    read_info(&replies[0], &mut identity);
    read_info(&replies[1], &mut identity);
    if let Some(error) = replies[0].error()
        && error.starts_with("LOADING")
    {
        return Err(Obstacle::Failed(error.to_owned()));
    }
    shared.saw(id, &identity, &replies[2], &Marks::read(&replies[3..]));
    Ok(identity)
}

/// Proves that connections which died with requests in flight will not execute them any more.
pub(super) async fn bury_the_undead(shared: &Rc<Shared>, id: BackendId) -> io::Result<()> {
    let backend = shared.group.backend(id);
    if backend.has_forgotten_undead() {
        // More were lost than are remembered: all that have our name go. Those that still stand are made anew.
        incident::bury_all_named(shared, id, std::slice::from_ref(&shared.client_name)).await?;
        backend.remembers_all_undead();
    }
    let undead = backend.undead();
    if undead.is_empty() {
        return Ok(());
    }
    let kill = |id: &u64| words(&["CLIENT", "KILL", "ID", &id.to_string()]);
    shared.ask(id, undead.iter().map(kill).collect(), shared.entry_timeout).await?;
    backend.proven_dead(&undead);
    Ok(())
}

/// Nothing is removed from a server that serves under another name.
fn refuse_twin(shared: &Rc<Shared>, id: BackendId) -> Result<(), Obstacle> {
    shared.twin(id).map_or(Ok(()), |twin| Err(Obstacle::Refused(twin_text(&twin))))
}

/// Removes some of the keys that the backend has missed; puts them back if that cannot be done.
pub(super) async fn remove_batch(shared: &Rc<Shared>, id: BackendId) -> Result<usize, Obstacle> {
    refuse_twin(shared, id)?;
    let record = shared.group.record(id);
    let keys = record.take(RECONCILE_BATCH);
    if keys.is_empty() {
        return Ok(0);
    }
    let base = shared.group.backend(id).target.database;
    let facts_database = shared.facts.borrow()[id.index()].mark_database;
    let requests = removal(&keys, base, facts_database);
    match shared.order(id, requests).await {
        Ok(_) => Ok(keys.len()),
        Err(why) => {
            for (database, key) in &keys {
                record.dirty(*database, [&**key]);
            }
            Err(Obstacle::Failed(format!("what it had missed could not be removed: {why}")))
        }
    }
}

/// UNLINK of the keys, database by database, and back to where the connection was.
fn removal(keys: &[DirtyKey], base: u32, back_to: u32) -> Vec<Vec<Vec<u8>>> {
    let mut sorted: Vec<&DirtyKey> = keys.iter().collect();
    sorted.sort_by_key(|(database, _)| *database);
    let mut requests = Vec::new();
    let mut selected = None;
    for (database, key) in sorted {
        if selected != Some(*database) {
            let on_server = if *database == 0 { base } else { *database };
            requests.push(words(&["SELECT", &on_server.to_string()]));
            requests.push(words(&["UNLINK"]));
            selected = Some(*database);
        } else if requests.last().is_some_and(|request| request.len() > UNLINK_KEYS) {
            requests.push(words(&["UNLINK"]));
        }
        if let Some(request) = requests.last_mut() {
            request.push(key.to_vec());
        }
    }
    requests.push(words(&["SELECT", &back_to.to_string()]));
    requests
}

/// Empties the group's databases; those that none of its sessions has used keep their keys, and are sealed.
async fn flush(shared: &Rc<Shared>, id: BackendId) -> Result<(), Obstacle> {
    let backend = shared.group.backend(id);
    let used = shared.group.databases_used();
    let databases: BTreeSet<u32> = used.into_iter().map(|number| backend.database_on_server(number)).collect();
    empty_databases(shared, id, &databases).await?;
    let (keys, filled) = {
        let facts = &shared.facts.borrow()[id.index()];
        (facts.keys, facts.filled.clone())
    };
    backend.seal(filled.difference(&databases).copied().collect());
    shared.group.record(id).settle(if keys == Some(0) { State::Empty } else { State::Clean });
    Ok(())
}

/// Deals with databases that were left when the others were emptied and are used now, as with any unknown content.
pub(super) async fn unseal(shared: &Rc<Shared>, id: BackendId, finally: bool) -> Result<(), Obstacle> {
    let backend = shared.group.backend(id);
    let (databases, why) = (shared.group.sealed_in_use(id), shared.sealed_in_use(id));
    let facts = shared.facts.borrow()[id.index()].clone();
    match remedy(shared.rules(id), &facts, shared.divergence_policy, &why.unwrap_or_default()) {
        Remedy::Refuse(why) => return Err(Obstacle::Refused(why)),
        Remedy::Flush if !finally => return Ok(()),
        Remedy::Flush => empty_databases(shared, id, &databases).await?,
        Remedy::Trust => {}
    }
    backend.seal(backend.sealed().difference(&databases).copied().collect());
    Ok(())
}

/// Compare-and-flush: empties databases, by the server's numbers, if nobody else has taken the backend since it was
/// looked at.
async fn empty_databases(shared: &Rc<Shared>, id: BackendId, databases: &BTreeSet<u32>) -> Result<(), Obstacle> {
    refuse_twin(shared, id)?;
    let (generation, mark_database) = {
        let facts = &shared.facts.borrow()[id.index()];
        (facts.generation.clone(), facts.mark_database)
    };
    let (mark, owners) = (shared.mark_keys.generation.as_str(), shared.mark_keys.owners.as_str());
    let mut requests = vec![words(&["WATCH", mark, owners, &shared.mark_keys.serving])];
    requests.extend(neighbours::questions(shared));
    requests.extend(shared.mark_keys.looks().iter().map(|look| words(look)));
    let watched = shared.ask(id, requests, shared.entry_timeout).await?;
    let marks = Marks::read(&watched[3..]);
    let others = marks.others(&shared.group.name);
    let found = marks.generation.clone();
    let unwatch = || shared.ask(id, vec![words(&["UNWATCH"])], shared.entry_timeout);
    let is_ancestor = |ours: &str| found.as_deref().is_some_and(|found| is_earlier_generation(found, ours));
    if found != generation && !generation.as_deref().is_some_and(is_ancestor) {
        let _ = unwatch().await;
        if generation.as_deref().zip(found.as_deref()).is_some_and(|(ours, found)| is_earlier_generation(ours, found)) {
            shared.note_generation(id, &marks);
            return Err(Obstacle::Failed("another Standin of the group has emptied it just now".to_owned()));
        }
        shared.facts.borrow_mut()[id.index()].generation = None;
        return Err(Obstacle::Refused("another owner has taken it (its mark has changed)".to_owned()));
    }
    if let Some(other) = others.first() {
        let _ = unwatch().await;
        let why = format!("group {other} has put its mark there as well: it is never emptied");
        shared.facts.borrow_mut()[id.index()].other_owners = others;
        return Err(Obstacle::Refused(why));
    }
    let (alive, _) = neighbours::living(shared, &watched[1], &watched[2]);
    if let Some(why) = neighbours::spare(shared, id, &alive) {
        let _ = unwatch().await;
        return Err(Obstacle::Refused(why));
    }
    if let Some(foreign) = watched[2].text().and_then(|list| foreign_client(list, &shared.client_name)) {
        let _ = unwatch().await;
        return Err(Obstacle::Refused(format!("it is not emptied while others work on it: client {foreign}")));
    }
    let next = shared.next_generation(generation.as_deref());
    let mut requests = vec![words(&["MULTI"])];
    for database in databases {
        requests.push(words(&["SELECT", &database.to_string()]));
        requests.push(words(&["FLUSHDB", "ASYNC"]));
    }
    requests.push(words(&["SELECT", &mark_database.to_string()]));
    requests.push(words(&["SET", mark, &next]));
    requests.push(words(&["SADD", owners, &shared.group.name]));
    requests.push(words(&["EXEC"]));
    let replies = shared.ask(id, requests, shared.entry_timeout).await?;
    if let Some(error) = replies.iter().find_map(Reply::error) {
        return Err(Obstacle::Failed(format!("it could not be emptied: {error}")));
    }
    if replies.last() == Some(&Reply::Null) {
        return Err(Obstacle::Refused("another owner took it at the same moment".to_owned()));
    }
    shared.facts.borrow_mut()[id.index()].generation = Some(next);
    look(shared, id).await?;
    Ok(())
}

/// Empties a cold backup that waits.
pub(super) async fn empty(shared: &Rc<Shared>, id: BackendId) -> Result<(), String> {
    flush(shared, id).await.map_err(Obstacle::why)
}

/// The address of a client of somebody else that did data commands just now.
fn foreign_client(list: &str, our_name: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let field = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let is_ours = field("name") == Some(our_name);
        let idle: u64 = field("idle").and_then(|idle| idle.parse().ok()).unwrap_or(0);
        let command = field("cmd").unwrap_or_default();
        let row = command::lookup(command.as_bytes());
        let is_data = row.is_some_and(|spec| {
            spec.is_write() || spec.flags.contains(command::Flags::READONLY) && spec.class != command::Class::Admin
        });
        (!is_ours && idle <= FOREIGN_IDLE_SECONDS && is_data)
            .then(|| format!("{} ({command})", field("addr").unwrap_or("?")))
    })
}

/// Scripts and functions are there before the first request.
async fn load_scripts(shared: &Rc<Shared>, id: BackendId) -> io::Result<()> {
    let loads = shared.scripts.loads();
    if loads.is_empty() {
        return Ok(());
    }
    let requests = loads.iter().map(|load| crate::resp::arguments(load).map(<[u8]>::to_vec).collect()).collect();
    // A script that is refused there is refused to the client that runs it, too: nothing to stop a switch for.
    shared.ask(id, requests, shared.entry_timeout).await.map(|_| ())
}

pub(super) fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

impl Shared {
    /// As [`Self::ask`] within `entry_timeout`, for requests of which none may be refused.
    ///
    /// # Errors
    /// The first refusal, or why there was no answer.
    pub(super) async fn order(&self, id: BackendId, requests: Vec<Vec<Vec<u8>>>) -> Result<Vec<Reply>, String> {
        let replies = self.ask(id, requests, self.entry_timeout).await.map_err(|error| error.to_string())?;
        match replies.iter().find_map(Reply::error) {
            Some(refusal) => Err(refusal.to_owned()),
            None => Ok(replies),
        }
    }

    /// Asks a backend's server through its prober.
    pub(super) async fn ask(
        &self,
        id: BackendId,
        requests: Vec<Vec<Vec<u8>>>,
        within: Duration,
    ) -> io::Result<Vec<Reply>> {
        let (reply, answer) = oneshot::channel();
        let command = ProbeCommand::Ask { requests, within, reply };
        let sent = self.probers[id.index()].send(command).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        // A probe that is under way comes first, and has a bound of its own.
        answer.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_removed_database_by_database_and_the_connection_returns_to_its_own() {
        let keys: Vec<DirtyKey> =
            vec![(3, b"x".as_slice().into()), (0, b"a".as_slice().into()), (3, b"y".as_slice().into())];
        let text: Vec<String> = removal(&keys, 2, 15)
            .iter()
            .map(|request| request.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(text, ["SELECT 2", "UNLINK a", "SELECT 3", "UNLINK x y", "SELECT 15"]);
    }

    #[test]
    fn many_keys_are_removed_by_requests_between_which_others_are_served() {
        let keys: Vec<DirtyKey> = (0..2_500).map(|n: u32| (0, n.to_string().into_bytes().into())).collect();
        let lengths: Vec<usize> = removal(&keys, 0, 15).iter().map(|request| request.len() - 1).collect();
        assert_eq!(lengths, [1, 1_000, 1_000, 500, 1]);
    }

    #[test]
    fn only_a_foreign_client_that_works_with_data_stops_a_flush() {
        let line = |name: &str, idle: u64, command: &str| {
            format!("id=1 addr=1.1.1.1:1 name={name} idle={idle} cmd={command}\n")
        };
        assert!(foreign_client(&line("app", 0, "get"), "standin").is_some());
        for harmless in
            [line("standin", 0, "get"), line("app", 60, "set"), line("", 0, "client|list"), line("", 0, "ping")]
        {
            assert_eq!(foreign_client(&harmless, "standin"), None, "{harmless}");
        }
    }
}
