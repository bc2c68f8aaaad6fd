//! Fills a mirrored backend with what clients read, where it lacks it: the workers offer the keys
//! (`divergence::ReadKeys`), the backend is asked for them, and those that only the active has are entered into the record,
//! so that the copying brings them by its own rules.
//!
//! In the record such a key means what any other means there. Where the backend is entered in an emergency it is removed,
//! which changes nothing: it was missing. So that this costs nothing either, and no planned switch waits for it, few are
//! entered at a time, and none while a switch is under way.

use std::future::pending;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::copy::{Source, source};
use crate::backend::{self, Conversation, Depth, Lane, Reply};
use crate::control::entry::words;
use crate::control::shared::Shared;
use crate::divergence::DirtyKey;
use crate::limits::MIRROR_BATCH_KEYS;
use crate::policy::BackendId;
use crate::resp::Protocol;
use crate::route::Availability;

/// Keys that the backend is asked for at once.
const BATCH: usize = 500;
/// Keys that are entered at once: a fraction of what the hold of a switch takes.
const ENTERED_MAX: usize = 100;
/// Keys that may wait to be copied when more are entered, while the backend is filled by SCAN too, and else: writes under
/// load leave always some.
const WAITING_MAX_FILLING: usize = 2 * MIRROR_BATCH_KEYS;
const WAITING_MAX: usize = 100;
/// Pause between two batches, and between two looks whether there is room. It doubles up to the longest while nothing is
/// missing: a backend that has everything is asked little.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_ROOM: Duration = Duration::from_millis(5);

/// A connection to the backend, for asking what it holds.
struct Asker {
    conversation: Conversation,
    base: u32,
    bound: Duration,
}

impl Asker {
    async fn connect(shared: &Rc<Shared>, id: BackendId) -> io::Result<Self> {
        let backend = shared.group.backend(id);
        let lane = Lane { database: 0, protocol: Protocol::Resp2, user: 0 };
        let login = backend.target.login.clone();
        let ready = backend::connect(backend, lane, &login, Depth::Brief).await.map_err(io::Error::other)?;
        Ok(Self { conversation: ready.conversation, base: backend.target.database, bound: backend.timing.request })
    }
}

/// Fills for as long as the mirror is open.
pub(super) async fn run(shared: &Rc<Shared>, id: BackendId) -> String {
    if !shared.mirror_settings.read_fill {
        return pending().await;
    }
    let reads = &shared.group.mirrors[id.index()].reads;
    let rate = f64::from(shared.mirror_settings.copy_rate);
    let (mut asker, mut active, mut pause) = (None, None, PAUSE);
    loop {
        tokio::time::sleep(pause).await;
        if !is_calm(shared, id) {
            pause = PAUSE;
            continue;
        }
        let keys = reads.take(BATCH);
        if keys.is_empty() {
            pause = PAUSE;
            continue;
        }
        let paced = PAUSE.max(Duration::from_secs_f64(keys.len() as f64 / rate));
        match missing(shared, id, &mut asker, &mut active, &keys).await {
            Ok(missing) if missing.is_empty() => pause = (2 * pause).clamp(paced, PAUSE_MAX.max(paced)),
            Ok(missing) => {
                enter(shared, id, &missing).await;
                pause = paced;
            }
            Err(error) => {
                tracing::debug!(%error, "what clients read could not be looked for");
                (asker, active, pause) = (None, None, PAUSE_MAX);
                offer_again(shared, id, &keys);
            }
        }
    }
}

/// Whether nothing is under way that waits for the record to be empty.
fn is_calm(shared: &Rc<Shared>, id: BackendId) -> bool {
    let route = shared.group.route();
    let switches = !shared.newest_is_done() || shared.reconciling.get().is_some() || shared.mirror(id).hurry.get();
    let is_shared = shared.sharing.is_on() || route.split.is_some();
    !switches && !is_shared && route.availability == Availability::Serving
}

/// Those keys that the active holds and the backend does not.
async fn missing(
    shared: &Rc<Shared>,
    id: BackendId,
    asker: &mut Option<Asker>,
    active: &mut Option<Source>,
    keys: &[DirtyKey],
) -> io::Result<Vec<DirtyKey>> {
    let ours = shared.own_prefix.as_bytes();
    let keys: Vec<DirtyKey> = keys.iter().filter(|(_, key)| !key.starts_with(ours)).cloned().collect();
    let backup = match asker {
        Some(backup) => backup,
        None => asker.insert(Asker::connect(shared, id).await?),
    };
    let base = backup.base;
    let replies = backup.conversation.ask_within(backup.bound, &questions(&keys, base)).await?;
    let lacking = those(keys, &replies, false)?;
    if lacking.is_empty() {
        return Ok(lacking);
    }
    // A key that clients look for in vain is nothing to copy.
    let active = source(shared, id, active).await?;
    let base = shared.group.backend(active.backend()).target.database;
    let replies = active.ask(shared, &questions(&lacking, base)).await?;
    those(lacking, &replies, true)
}

/// EXISTS for each key, database by database; the keys come in the order of their databases.
fn questions(keys: &[DirtyKey], base: u32) -> Vec<Vec<Vec<u8>>> {
    let mut requests = Vec::with_capacity(keys.len() + 2);
    let mut selected = None;
    for (database, key) in keys {
        if selected != Some(*database) {
            let on_server = if *database == 0 { base } else { *database };
            requests.push(words(&["SELECT", &on_server.to_string()]));
            selected = Some(*database);
        }
        requests.push(vec![b"EXISTS".to_vec(), key.to_vec()]);
    }
    requests
}

/// Of the keys that were asked for, those that are there, or those that are not.
fn those(keys: Vec<DirtyKey>, replies: &[Reply], there: bool) -> io::Result<Vec<DirtyKey>> {
    if let Some(error) = replies.iter().find_map(Reply::error) {
        return Err(io::Error::other(error.to_owned()));
    }
    // What is no integer is the answer to a SELECT.
    let mut answers = replies.iter().filter_map(Reply::integer);
    Ok(keys.into_iter().filter(|_| answers.next().is_some_and(|count| (count > 0) == there)).collect())
}

/// They were not dealt with, and the workers will not offer them again soon.
fn offer_again(shared: &Rc<Shared>, id: BackendId, keys: &[DirtyKey]) {
    for (database, key) in keys {
        shared.group.mirrors[id.index()].reads.offer(*database, key);
    }
}

/// Enters keys as there is room for them; the rest is offered again when something comes between.
async fn enter(shared: &Rc<Shared>, id: BackendId, keys: &[DirtyKey]) {
    let control = shared.mirror(id);
    let (record, mirror) = (shared.group.record(id), &shared.group.mirrors[id.index()]);
    for (number, part) in keys.chunks(ENTERED_MAX).enumerate() {
        let bytes = part.iter().map(|(_, key)| key.len()).sum();
        let has_room = || {
            let max = if control.is_filled(&shared.mirror_settings) { WAITING_MAX } else { WAITING_MAX_FILLING };
            record.summary().keys + mirror.waiting().copying <= max
        };
        while is_calm(shared, id) && !has_room() {
            tokio::time::sleep(PAUSE_ROOM).await;
        }
        // Nothing is waited for between this look and the entry.
        if !is_calm(shared, id) || !record.has_room_for(part.len(), bytes) {
            return offer_again(shared, id, &keys[number * ENTERED_MAX..]);
        }
        for (database, key) in part {
            if !record.contains(*database, key) && !mirror.is_copying(*database, key) {
                record.dirty(*database, [&**key]);
                control.read.set(control.read.get() + 1);
            }
        }
        control.wake();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys() -> Vec<DirtyKey> {
        vec![(0, b"a".as_slice().into()), (0, b"b".as_slice().into()), (3, b"a".as_slice().into())]
    }

    #[test]
    fn keys_are_asked_for_in_the_servers_databases() {
        let text: Vec<String> = questions(&keys(), 7)
            .iter()
            .map(|request| request.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(text, ["SELECT 7", "EXISTS a", "EXISTS b", "SELECT 3", "EXISTS a"]);
    }

    #[test]
    fn answers_are_told_from_those_to_select_and_a_refusal_says_nothing() {
        let ok = || Reply::Status("OK".to_owned());
        let replies = [ok(), Reply::Integer(0), Reply::Integer(1), ok(), Reply::Integer(0)];
        let lacking = those(keys(), &replies, false).unwrap();
        assert_eq!(lacking, [keys()[0].clone(), keys()[2].clone()]);
        assert_eq!(those(keys(), &replies, true).unwrap(), [keys()[1].clone()]);
        let refused = Reply::Error("NOPERM".to_owned());
        assert!(those(keys(), &[ok(), refused, Reply::Integer(1), ok(), Reply::Integer(0)], false).is_err());
    }
}
