//! What waits on its way to one mirrored backend. The workers put in what the active has acknowledged, one task of the
//! control plane takes it out; neither waits for the other.
//!
//! Two ways lead there. A write that replaces the whole value travels as a command, in the order in which one link was
//! answered. Everything else enters the record of the backend, and its value is copied. Invariants:
//!
//! - Commands come from one link for each database: of two links that wrote the same key at the same time nobody knows
//!   which came last. What the others wrote is copied.
//! - While a key is recorded or being copied, a command for it does not pass: it enters the record, so that the key is
//!   copied once more.
//! - What cannot be taken (closed, full) enters the record. So nothing that was acknowledged is forgotten.

use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use tokio::sync::Notify;

use super::read_keys::ReadKeys;
use super::record::{DirtyKey, KeyRef, Record};
use super::translate::{Form, frames, translate, writes_any};
use super::writes::note_write;
use crate::command::{self, SLOTS, slot_of};
use crate::resp;

/// Writes that were acknowledged together, on one connection, in the server's order.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Requests that travel as commands.
    commands: Vec<u8>,
    count: usize,
    /// Requests whose keys are to be copied.
    values: Vec<u8>,
}

/// Whose writes they are.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Names the link within the process; 0 for connections whose writes are never taken as commands.
    pub link: u64,
    /// As clients number it.
    pub database: u32,
}

impl Acknowledged {
    /// Takes a request that is mirrored byte for byte.
    #[inline]
    pub fn push_as_it_is(&mut self, frame: &[u8]) {
        self.commands.extend_from_slice(frame);
        self.count += 1;
    }

    /// Takes any other write, which came at `at_ms` (milliseconds of the Unix epoch).
    pub fn push(&mut self, frame: &[u8], at_ms: u64) {
        match translate(command::of_request(frame), frame, at_ms, &mut self.commands) {
            Form::Nothing => {}
            Form::Command => self.count += 1,
            Form::Value => self.values.extend_from_slice(frame),
        }
    }

    /// Takes a write whose order among others is not known.
    pub fn push_value(&mut self, frame: &[u8]) {
        self.values.extend_from_slice(frame);
    }

    /// Whether there is nothing to hand on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.values.is_empty()
    }

    /// Forgets what was handed on; keeps the memory of usual batches.
    pub fn clear(&mut self) {
        self.count = 0;
        for buffer in [&mut self.commands, &mut self.values] {
            if buffer.capacity() > crate::limits::BUFFER_KEEP_BYTES {
                *buffer = Vec::new();
            }
            buffer.clear();
        }
    }
}

/// Requests on their way, taken out together.
#[derive(Debug)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    pub requests: usize,
    /// When the first of them was put in, in microseconds since the origin.
    pub since_us: u64,
    /// Slots of the keys that they write, while slots are counted.
    slots: Vec<u16>,
}

/// How much waits, and what became of the rest; for status and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    pub requests: usize,
    pub bytes: usize,
    /// Keys whose value is being copied.
    pub copying: usize,
    /// When the oldest of them was put in; 0 when nothing waits.
    pub since_us: u64,
    /// Requests taken as commands since the start.
    pub taken: u64,
    /// Requests that there was no room for since the start; their keys entered the record.
    pub dropped: u64,
}

/// See the head of this file.
pub struct Mirror {
    bytes_max: usize,
    inner: Mutex<Inner>,
    wake: Notify,
    /// What clients read and the backend may lack.
    pub reads: ReadKeys,
}

#[derive(Default)]
struct Inner {
    is_open: bool,
    out: Vec<u8>,
    requests: usize,
    since_us: u64,
    /// Database that the last request of `out` works in.
    selected: Option<u32>,
    /// The server's number of the clients' database 0.
    base: u32,
    /// Taken out and not answered yet.
    held_bytes: usize,
    held_requests: usize,
    held_since_us: u64,
    copying: HashSet<DirtyKey, RandomState>,
    /// By database, the link whose writes are taken as commands.
    sources: Vec<(u32, u64)>,
    /// The task sleeps until it is woken.
    is_asleep: bool,
    taken: u64,
    dropped: u64,
    /// Requests put in, and requests that were answered or given up, since the start.
    put: u64,
    settled: u64,
    /// By slot, writes that wait, were not answered, or are being copied; only while two backends serve.
    lag: Option<Box<[u32]>>,
    /// Slots of what `out` writes.
    out_slots: Vec<u16>,
}

impl Mirror {
    /// A mirror that takes nothing until it is opened.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default(), wake: Notify::new(), reads: ReadKeys::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- the workers' side ---

    /// Takes what the active has acknowledged.
    pub fn feed(&self, record: &Record, source: Source, batch: &Acknowledged, now_us: u64) {
        let database = source.database;
        for frame in frames(&batch.values) {
            note_write(std::iter::once(record), database, command::of_request(frame), frame);
        }
        let mut guard = self.lock();
        let inner = &mut *guard;
        let fits = inner.out.len() + inner.held_bytes + batch.commands.len() <= self.bytes_max;
        if batch.count == 0 {
            // Values alone: they are in the record by now.
        } else if !inner.is_open || !inner.takes_from(source) || !fits {
            if inner.is_open && !fits {
                inner.dropped += batch.count as u64;
            }
            for frame in frames(&batch.commands) {
                note_write(std::iter::once(record), database, command::of_request(frame), frame);
            }
        } else if inner.copying.is_empty() && record.is_without_keys() {
            inner.append(database, &batch.commands, batch.count, now_us);
        } else {
            for frame in frames(&batch.commands) {
                let is_marked =
                    |key: &[u8]| record.contains(database, key) || inner.copying.contains(&KeyRef(database, key));
                if writes_any(frame, is_marked) {
                    note_write(std::iter::once(record), database, command::of_request(frame), frame);
                } else {
                    inner.append(database, frame, 1, now_us);
                }
            }
        }
        if inner.is_asleep {
            inner.is_asleep = false;
            drop(guard);
            self.wake.notify_one();
        }
    }

    /// A link has ended, and whatever it had in flight was entered into the records: another may take its place.
    pub fn forget_link(&self, link: u64) {
        self.lock().sources.retain(|(_, source)| *source != link);
    }

    // --- while two backends serve ---

    /// Begins or ends to count what is under way by slot. Begun while nothing is.
    pub fn count_slots(&self, counts: bool) {
        let mut inner = self.lock();
        inner.lag = counts.then(|| vec![0; usize::from(SLOTS)].into_boxed_slice());
        inner.out_slots.clear();
    }

    /// Whether everything that was acknowledged of a slot has been confirmed, as far as that can be told.
    #[must_use]
    pub fn has_all_of(&self, slot: u16, record: &Record) -> bool {
        let inner = self.lock();
        let is_even = inner.lag.as_ref().is_some_and(|lag| lag[usize::from(slot)] == 0);
        inner.is_open && is_even && !record.has_any_of(slot)
    }

    /// Takes a key out of those that are being copied: what is there is its value.
    pub fn spare(&self, key: &DirtyKey) {
        let mut inner = self.lock();
        if inner.copying.remove(key) {
            inner.count(slot_of(&key.1), false);
        }
    }

    // --- the task's side ---

    /// Begins to take commands for a server on which the clients' database 0 is `base`.
    pub fn open(&self, base: u32) {
        self.reads.clear();
        let mut inner = self.lock();
        inner.is_open = true;
        inner.selected = None;
        inner.base = base;
    }

    /// Takes no more, and enters what was not confirmed into the record: what waits here, what `unanswered` holds, and what
    /// was being copied.
    pub fn close(&self, record: &Record, unanswered: impl Iterator<Item = Vec<u8>>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.is_open = false;
        inner.sources.clear();
        inner.requests = 0;
        inner.settled = inner.put;
        inner.out_slots.clear();
        if let Some(lag) = &mut inner.lag {
            lag.fill(0);
        }
        (inner.held_bytes, inner.held_requests, inner.held_since_us) = (0, 0, 0);
        for (database, key) in inner.copying.drain() {
            record.dirty(database, [&*key]);
        }
        // Every chunk begins with a SELECT.
        let mut database = 0;
        for bytes in unanswered.chain(std::iter::once(std::mem::take(&mut inner.out))) {
            for frame in frames(&bytes) {
                match selected(frame) {
                    Some(number) => database = if number == inner.base { 0 } else { number },
                    None => note_write(std::iter::once(record), database, command::of_request(frame), frame),
                }
            }
        }
    }

    /// Whether commands are taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// Database, name and first written key of a request of a chunk.
    #[must_use]
    pub fn request_of(&self, chunk: &[u8], request: usize) -> Option<(u32, Vec<u8>, Vec<u8>)> {
        let base = self.lock().base;
        let mut database = 0;
        for (at, frame) in frames(chunk).enumerate().take(request + 1) {
            if let Some(number) = selected(frame) {
                database = if number == base { 0 } else { number };
            }
            if at == request {
                let mut key = None;
                command::written_keys(command::of_request(frame), frame, &mut |written| {
                    key.get_or_insert(written);
                });
                let name = resp::arguments(frame).next().unwrap_or_default();
                return Some((database, name.to_vec(), key.unwrap_or_default().to_vec()));
            }
        }
        None
    }

    /// What a request of a chunk would have changed there enters the record.
    pub fn enter(&self, record: &Record, chunk: &[u8], request: usize) {
        let base = self.lock().base;
        let mut database = 0;
        for (at, frame) in frames(chunk).enumerate().take(request + 1) {
            match selected(frame) {
                Some(number) => database = if number == base { 0 } else { number },
                None if at == request => {
                    note_write(std::iter::once(record), database, command::of_request(frame), frame);
                }
                None => {}
            }
        }
    }

    /// What has come since the last call.
    #[must_use]
    pub fn take_out(&self) -> Option<Chunk> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.requests == 0 {
            return None;
        }
        let chunk = Chunk {
            bytes: std::mem::take(&mut inner.out),
            requests: std::mem::take(&mut inner.requests),
            since_us: inner.since_us,
            slots: std::mem::take(&mut inner.out_slots),
        };
        // Each chunk can be read without the one before it.
        inner.selected = None;
        if inner.held_requests == 0 {
            inner.held_since_us = chunk.since_us;
        }
        inner.held_bytes += chunk.bytes.len();
        inner.held_requests += chunk.requests;
        Some(chunk)
    }

    /// A chunk was answered whole; `next_since_us` is when the first of the next began to wait, 0 if there is none.
    pub fn answered(&self, chunk: &Chunk, next_since_us: u64) {
        let mut inner = self.lock();
        inner.held_bytes = inner.held_bytes.saturating_sub(chunk.bytes.len());
        inner.held_requests = inner.held_requests.saturating_sub(chunk.requests);
        inner.settled += chunk.requests as u64;
        inner.held_since_us = next_since_us;
        for slot in &chunk.slots {
            inner.count(*slot, false);
        }
    }

    /// Takes keys out of the record, to be copied. Until [`Self::put_copies`] no command for them passes.
    #[must_use]
    pub fn take_keys(&self, record: &Record, n: usize) -> Vec<DirtyKey> {
        let mut inner = self.lock();
        let keys = record.take(n);
        for key in &keys {
            if inner.copying.insert(key.clone()) {
                inner.count(slot_of(&key.1), true);
            }
        }
        keys
    }

    /// The keys taken last could not be copied: they are recorded again.
    pub fn give_back(&self, record: &Record) {
        let mut inner = self.lock();
        for (database, key) in inner.end_copying() {
            record.dirty(database, [&*key]);
        }
    }

    /// Puts requests in whatever else waits: removals, which may come late.
    pub fn put(&self, database: u32, request: &[u8], now_us: u64) {
        self.lock().append(database, request, 1, now_us);
    }

    /// Puts requests in that bring the keys taken last to their values. Their order among the commands is that in which
    /// they were put in, so from now on commands for these keys pass again.
    pub fn put_copies(&self, copies: &[(u32, Vec<u8>)], now_us: u64) {
        let mut inner = self.lock();
        for (database, request) in copies {
            inner.append(*database, request, 1, now_us);
        }
        inner.taken -= copies.len() as u64;
        inner.end_copying();
    }

    /// A place in what was put in, behind everything so far.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.lock().put
    }

    /// Whether everything before a place was answered.
    #[must_use]
    pub fn is_answered(&self, place: u64) -> bool {
        self.lock().settled >= place
    }

    /// Whether a key's value is being copied.
    #[must_use]
    pub fn is_copying(&self, database: u32, key: &[u8]) -> bool {
        self.lock().copying.contains(&KeyRef(database, key))
    }

    /// How much waits.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        let inner = self.lock();
        let since_us = match (inner.held_requests, inner.requests) {
            (0, 0) => 0,
            (0, _) => inner.since_us,
            _ => inner.held_since_us,
        };
        Waiting {
            requests: inner.requests + inner.held_requests,
            bytes: inner.out.len() + inner.held_bytes,
            copying: inner.copying.len(),
            since_us,
            taken: inner.taken,
            dropped: inner.dropped,
        }
    }

    /// Waits until something is put in. The workers wake nobody while nobody waits here: a wake across threads costs as
    /// much as several requests.
    pub async fn wait(&self) {
        {
            let mut inner = self.lock();
            if inner.requests > 0 {
                return;
            }
            inner.is_asleep = true;
        }
        self.wake.notified().await;
    }
}

impl Inner {
    fn takes_from(&mut self, source: Source) -> bool {
        if source.link == 0 {
            return false;
        }
        match self.sources.iter().find(|(database, _)| *database == source.database) {
            Some((_, link)) => *link == source.link,
            None => {
                self.sources.push((source.database, source.link));
                true
            }
        }
    }

    fn count(&mut self, slot: u16, comes: bool) {
        if let Some(lag) = &mut self.lag {
            let lag = &mut lag[usize::from(slot)];
            *lag = if comes { *lag + 1 } else { lag.saturating_sub(1) };
        }
    }

    /// Nothing is being copied any more; returns what was.
    fn end_copying(&mut self) -> HashSet<DirtyKey, RandomState> {
        let keys = std::mem::take(&mut self.copying);
        for (_, key) in &keys {
            self.count(slot_of(key), false);
        }
        keys
    }

    fn append(&mut self, database: u32, requests: &[u8], count: usize, now_us: u64) {
        if self.requests == 0 {
            self.since_us = now_us;
        }
        if self.selected != Some(database) {
            let on_server = if database == 0 { self.base } else { database };
            resp::encode_request(&mut self.out, &[b"SELECT", on_server.to_string().as_bytes()]);
            self.requests += 1;
            self.put += 1;
            self.selected = Some(database);
        }
        if let Some(lag) = &mut self.lag {
            for frame in frames(requests) {
                command::written_keys(command::of_request(frame), frame, &mut |key| {
                    let slot = slot_of(key);
                    lag[usize::from(slot)] += 1;
                    self.out_slots.push(slot);
                });
            }
        }
        self.out.extend_from_slice(requests);
        self.requests += count;
        self.put += count as u64;
        self.taken += count as u64;
    }
}

/// The database that a SELECT of ours names.
fn selected(frame: &[u8]) -> Option<u32> {
    let mut all = resp::arguments(frame);
    let is_select = all.next()? == b"SELECT";
    if is_select { std::str::from_utf8(all.next()?).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::divergence::State;

    const LINK: Source = Source { link: 1, database: 0 };

    fn request(words: &str) -> Vec<u8> {
        let mut out = Vec::new();
        resp::encode_request(&mut out, &words.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        out
    }

    fn feed(mirror: &Mirror, record: &Record, source: Source, all: &[&str]) {
        let mut batch = Acknowledged::default();
        for words in all {
            batch.push(&request(words), 0);
        }
        mirror.feed(record, source, &batch, 5);
    }

    fn opened() -> (Mirror, Record) {
        let (mirror, record) = (Mirror::new(1 << 20), Record::new(1 << 20));
        record.settle(State::Clean);
        mirror.open(0);
        (mirror, record)
    }

    fn out(mirror: &Mirror) -> Vec<String> {
        let bytes = mirror.take_out().map(|chunk| chunk.bytes).unwrap_or_default();
        let text = |frame| resp::arguments(frame).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
        frames(&bytes).map(text).collect()
    }

    #[test]
    fn whole_values_pass_in_order_and_everything_else_enters_the_record() {
        let (mirror, record) = opened();
        feed(&mirror, &record, LINK, &["SET a 1", "SET a 2", "DEL b"]);
        assert_eq!(out(&mirror), ["SELECT 0", "SET a 1", "SET a 2", "DEL b"]);
        feed(&mirror, &record, LINK, &["SET a 3", "INCR n"]);
        assert_eq!(out(&mirror), ["SELECT 0", "SET a 3"]);
        assert!(record.contains(0, b"n"));
    }

    #[test]
    fn no_command_passes_for_a_key_that_is_recorded_or_being_copied() {
        let (mirror, record) = opened();
        feed(&mirror, &record, LINK, &["INCR n"]);
        feed(&mirror, &record, LINK, &["SET n 5", "SET other 1"]);
        assert_eq!(out(&mirror), ["SELECT 0", "SET other 1"]);
        assert_eq!(mirror.take_keys(&record, 10).len(), 1);
        feed(&mirror, &record, LINK, &["SET n 6"]);
        assert!(record.contains(0, b"n"), "it is copied once more");
        mirror.put_copies(&[(0, request("RESTORE n 0 x REPLACE"))], 6);
        assert_eq!(out(&mirror), ["SELECT 0", "RESTORE n 0 x REPLACE"]);
    }

    #[test]
    fn a_second_link_is_copied_until_the_first_has_ended() {
        let (mirror, record) = opened();
        feed(&mirror, &record, LINK, &["SET a 1"]);
        let other = Source { link: 2, database: 0 };
        feed(&mirror, &record, other, &["SET b 1"]);
        assert!(record.contains(0, b"b"));
        feed(&mirror, &record, Source { link: 2, database: 3 }, &["SET c 1"]);
        mirror.forget_link(1);
        feed(&mirror, &record, other, &["SET d 1"]);
        assert_eq!(out(&mirror), ["SELECT 0", "SET a 1", "SELECT 3", "SET c 1", "SELECT 0", "SET d 1"]);
        feed(&mirror, &record, Source { link: 0, database: 7 }, &["SET e 1"]);
        assert!(record.contains(7, b"e"), "connections of one client have no order among the others");
    }

    #[test]
    fn what_is_not_confirmed_enters_the_record_when_the_mirror_closes() {
        let (mirror, record) = opened();
        feed(&mirror, &record, LINK, &["SET a 1"]);
        let sent = mirror.take_out().unwrap();
        feed(&mirror, &record, Source { database: 4, ..LINK }, &["SET b 1"]);
        mirror.close(&record, std::iter::once(sent.bytes));
        assert!(record.contains(0, b"a") && record.contains(4, b"b"));
        feed(&mirror, &record, LINK, &["SET c 1"]);
        assert!(record.contains(0, b"c"), "closed");
        assert_eq!(mirror.waiting().requests, 0);
    }

    #[test]
    fn a_place_is_reached_when_everything_before_it_is_answered_and_nothing_behind_it_matters() {
        let (mirror, record) = opened();
        feed(&mirror, &record, LINK, &["SET a 1"]);
        let place = mirror.end();
        let first = mirror.take_out().unwrap();
        feed(&mirror, &record, LINK, &["SET b 1"]);
        assert!(!mirror.is_answered(place));
        mirror.answered(&first, 0);
        assert!(mirror.is_answered(place) && !mirror.is_answered(mirror.end()));
    }

    #[test]
    fn what_there_is_no_room_for_enters_the_record() {
        let (mirror, record) = (Mirror::new(100), Record::new(1 << 20));
        record.settle(State::Clean);
        mirror.open(0);
        feed(&mirror, &record, LINK, &["SET a 1"]);
        feed(&mirror, &record, LINK, &[&format!("SET b {}", "x".repeat(200))]);
        assert!(record.contains(0, b"b"));
        assert_eq!(mirror.waiting().dropped, 1);
    }
}
