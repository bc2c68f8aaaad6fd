//! Copies the values of recorded keys from the active to a mirrored backend.
//!
//! The order makes it right: a key is taken out of the record; what was sent before and could still pass as a command is
//! waited for; connections that died with requests on them are proven dead; then its value is read. A write that was sent
//! later has entered the key into the record once more, so that it is copied again.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::{now_us, wall_ms};
use crate::backend::{self, Conversation, Depth, Lane, Reply};
use crate::control::entry::{self, words};
use crate::control::shared::Shared;
use crate::divergence::{DirtyKey, State};
use crate::limits::{MIRROR_BATCH_BYTES, MIRROR_BATCH_KEYS};
use crate::policy::BackendId;
use crate::resp::{self, Protocol};
use crate::route::Barrier;

/// Looks for keys this often when nobody says that there are some.
const LOOK: Duration = Duration::from_millis(50);
/// After the active could not be asked.
const PAUSE: Duration = Duration::from_millis(100);
/// What a value is taken to be before any was seen.
const VALUE_BYTES_FIRST: usize = 64 * 1024;

/// A connection to the active, for reading values.
pub(super) struct Source {
    conversation: Conversation,
    backend: BackendId,
    /// The route's epoch when it was opened: another one may mean another content.
    epoch: u64,
    base: u32,
}

impl Source {
    pub(super) async fn connect(shared: &Rc<Shared>, from: BackendId) -> io::Result<Self> {
        let epoch = shared.group.route().epoch;
        let backend = shared.group.backend(from);
        let lane = Lane { database: 0, protocol: Protocol::Resp2, user: 0 };
        let login = backend.target.login.clone();
        let ready = backend::connect(backend, lane, &login, Depth::Brief).await.map_err(io::Error::other)?;
        if !backend.is_admitted(&ready.identity.clone()) {
            return Err(io::Error::other("another server than the one that serves"));
        }
        let base = backend.target.database;
        Ok(Self { conversation: ready.conversation, backend: from, epoch, base })
    }

    pub(super) fn is_of(&self, shared: &Rc<Shared>) -> bool {
        shared.group.route().epoch == self.epoch
    }

    pub(super) fn backend(&self) -> BackendId {
        self.backend
    }

    pub(super) async fn ask(&mut self, shared: &Rc<Shared>, requests: &[Vec<Vec<u8>>]) -> io::Result<Vec<Reply>> {
        let bound = shared.group.backend(self.backend).timing.request;
        self.conversation.ask_within(bound, requests).await
    }

    pub(super) fn on_server(&self, database: u32) -> String {
        if database == 0 { self.base } else { database }.to_string()
    }

    /// Proves that what was sent on connections that died has been executed or never will be.
    async fn bury_the_undead(&mut self, shared: &Rc<Shared>) -> io::Result<()> {
        let backend = shared.group.backend(self.backend);
        let undead = backend.undead();
        if undead.is_empty() {
            return Ok(());
        }
        let kills: Vec<_> = undead.iter().map(|id| words(&["CLIENT", "KILL", "ID", &id.to_string()])).collect();
        self.ask(shared, &kills).await?;
        backend.proven_dead(&undead);
        Ok(())
    }
}

/// The connection to the active as it is now, opened if need be.
pub(super) async fn source<'a>(
    shared: &Rc<Shared>,
    id: BackendId,
    held: &'a mut Option<Source>,
) -> io::Result<&'a mut Source> {
    let from = shared.sharing.counterpart(id, shared.group.route().active);
    if from == id {
        return Err(io::Error::other("it serves itself"));
    }
    if !held.as_ref().is_some_and(|source| source.is_of(shared) && source.backend == from) {
        *held = Some(Source::connect(shared, from).await?);
    }
    held.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Copies until the backend's content is unknown; returns why.
pub(super) async fn run(shared: &Rc<Shared>, id: BackendId) -> String {
    let control = shared.mirror(id);
    let (record, mirror) = (shared.group.record(id), &shared.group.mirrors[id.index()]);
    let mut held = None;
    let mut value_bytes = VALUE_BYTES_FIRST;
    loop {
        if record.state() == State::Unknown {
            return record.summary().why;
        }
        if record.is_without_keys() || mirror.waiting().bytes > MIRROR_BATCH_BYTES {
            tokio::select! {
                () = control.keys.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            continue;
        }
        let room = (MIRROR_BATCH_BYTES / value_bytes.max(1)).clamp(1, MIRROR_BATCH_KEYS);
        let keys = mirror.take_keys(record, room);
        match copies(shared, id, &mut held, &keys).await {
            Ok(Copies { requests, bytes, removed }) => {
                mirror.put_copies(&requests, now_us());
                control.copied.set(control.copied.get() + (keys.len() - removed) as u64);
                control.removed.set(control.removed.get() + removed as u64);
                // Slowly towards small values, at once towards large ones.
                value_bytes = (bytes / keys.len().max(1)).max(value_bytes - value_bytes / 4).max(64);
                let rate = f64::from(shared.mirror_settings.copy_rate);
                if !control.hurry.get() {
                    tokio::select! {
                        () = control.hurried.notified() => {}
                        () = tokio::time::sleep(Duration::from_secs_f64(keys.len() as f64 / rate)) => {}
                    }
                }
            }
            Err(error) => {
                // The active is about to be left, perhaps: what was taken is missed as before.
                tracing::debug!(%error, "values could not be read from the active");
                mirror.give_back(record);
                held = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The keys whose value is that of the other side. While two backends serve, what is at home on the backend itself is as it
/// is there, once nothing that was lost can be executed any more.
async fn strangers(shared: &Rc<Shared>, id: BackendId, keys: &[DirtyKey]) -> io::Result<Vec<DirtyKey>> {
    entry::bury_the_undead(shared, id).await?;
    if !shared.group.route().serves(id) {
        return Ok(keys.to_vec());
    }
    let (route, mirror) = (shared.group.route(), &shared.group.mirrors[id.index()]);
    let is_strange = |key: &&DirtyKey| {
        let is_at_home = route.home(&key.1) == id;
        if is_at_home {
            mirror.spare(key);
        }
        !is_at_home
    };
    Ok(keys.iter().filter(is_strange).cloned().collect())
}

struct Copies {
    requests: Vec<(u32, Vec<u8>)>,
    bytes: usize,
    removed: usize,
}

async fn copies(
    shared: &Rc<Shared>,
    id: BackendId,
    held: &mut Option<Source>,
    keys: &[DirtyKey],
) -> io::Result<Copies> {
    let barrier = shared.group.begin_barrier(Barrier::SharedLinks);
    let source = source(shared, id, held).await?;
    while !shared.group.is_behind_barrier(barrier) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    source.bury_the_undead(shared).await?;
    let keys = &strangers(shared, id, keys).await?;
    let mut requests = Vec::with_capacity(2 * keys.len() + 4);
    let mut places = Vec::with_capacity(keys.len());
    let mut selected = None;
    for (database, key) in keys {
        if selected != Some(*database) {
            requests.push(words(&["SELECT", &source.on_server(*database)]));
            selected = Some(*database);
        }
        places.push(requests.len());
        requests.push(vec![b"DUMP".to_vec(), key.to_vec()]);
        requests.push(vec![b"PTTL".to_vec(), key.to_vec()]);
    }
    let asked_ms = wall_ms();
    let replies = source.ask(shared, &requests).await?;
    if !source.is_of(shared) {
        return Err(io::Error::other("another backend serves by now"));
    }
    let mut copies = Copies { requests: Vec::with_capacity(keys.len()), bytes: 0, removed: 0 };
    for ((database, key), at) in keys.iter().zip(places) {
        let mut request = Vec::new();
        match (&replies[at], replies[at + 1].integer()) {
            (Reply::Bulk(value), Some(left)) if value.len() <= shared.mirror_settings.value_max && left != -2 => {
                copies.bytes += value.len();
                restore(&mut request, key, value, if left < 0 { 0 } else { asked_ms + left.unsigned_abs().max(1) });
            }
            (value, _) => {
                // Not there any more, too long, or not ours to read: without it the backend is not stale.
                copies.removed += usize::from(*value != Reply::Null);
                if let Reply::Bulk(value) = value {
                    copies.bytes += value.len();
                }
                resp::encode_request(&mut request, &[b"UNLINK", key]);
            }
        }
        copies.requests.push((*database, request));
    }
    Ok(copies)
}

fn restore(out: &mut Vec<u8>, key: &[u8], value: &Bytes, until_ms: u64) {
    let until = until_ms.to_string();
    resp::encode_request(out, &[b"RESTORE", key, until.as_bytes(), value, b"REPLACE", b"ABSTTL"]);
}
