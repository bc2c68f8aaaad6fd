//! The samples of a staged plan: keys that either side shows by chance, read at their home, on the other side once that has
//! confirmed everything that was written before, and at their home again. What was not the same both times, or has another
//! home by now, is not judged: a write came between.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::entry::words;
use super::group::Message;
use super::sampling::{Side, reading, same_value};
use super::shared::Shared;
use crate::backend::Reply;
use crate::policy::{BackendId, Batch, PlanNews, Sampled};
use crate::route::{Barrier, Route};

/// Keys of one batch, and the pause between two: about 300 samples a second at most.
const BATCH_KEYS: usize = 10;
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// Of a value of more elements only their number is compared, so that no sample is a slow command.
const ELEMENTS_MAX: i64 = 64;
/// So long is waited for the other side to have confirmed what was written before a batch was read.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(500);
/// After a side could not be asked.
const PAUSE_FAILED: Duration = Duration::from_millis(200);

/// Compares samples for as long as a plan runs.
pub(super) async fn compare(
    shared: Rc<Shared>,
    (from, to): (BackendId, BackendId),
    messages: mpsc::UnboundedSender<Message>,
) {
    let mut sides: Option<(u64, Side, Side)> = None;
    let mut turn = 0;
    loop {
        tokio::time::sleep(BATCH_PAUSE).await;
        let route = shared.group.route();
        if !can_be_compared(&shared, &route, (from, to)) {
            sides = None;
            continue;
        }
        if sides.as_ref().is_none_or(|(epoch, ..)| *epoch != route.epoch) {
            sides = match (Side::connect(&shared, from).await, Side::connect(&shared, to).await) {
                (Ok(old), Ok(next)) => Some((route.epoch, old, next)),
                _ => None,
            };
        }
        let Some((epoch, old, next)) = &mut sides else {
            tokio::time::sleep(PAUSE_FAILED).await;
            continue;
        };
        let databases = shared.group.databases_used();
        turn = (turn + 1) % databases.len().max(1);
        let mut look = Look { shared: &shared, route: &route, ids: (from, to), database: databases[turn], old, next };
        match look.batch().await {
            Ok(batch) if shared.group.route().epoch == *epoch => {
                let has_failed = batch.sampled.contains(&Sampled::Failed);
                let _ = messages.send(Message::Plan(PlanNews::Samples(batch)));
                if has_failed {
                    // Perhaps it is the connection alone.
                    sides = None;
                    tokio::time::sleep(PAUSE_FAILED).await;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "samples could not be compared");
                sides = None;
                tokio::time::sleep(PAUSE_FAILED).await;
            }
        }
    }
}

/// Whether each side is kept in step that is not a key's home.
fn can_be_compared(shared: &Shared, route: &Route, (from, to): (BackendId, BackendId)) -> bool {
    let follow: &[BackendId] = match route.active {
        _ if route.split.is_some() => &[from, to],
        active if active == from => &[to],
        active if active == to => &[from],
        _ => return false,
    };
    shared.newest_is_done() && follow.iter().all(|id| shared.mirror(*id).is_on())
}

/// One batch.
struct Look<'a> {
    shared: &'a Rc<Shared>,
    /// As it was when the batch began.
    route: &'a Route,
    /// The old side and the next one.
    ids: (BackendId, BackendId),
    database: u32,
    old: &'a mut Side,
    next: &'a mut Side,
}

/// A key, and how it is read.
struct Sample {
    key: Vec<u8>,
    read: Read,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Read {
    Whole(String),
    /// By the command that tells how many elements there are.
    Size(&'static str),
}

/// Keys of one home, with what was read of them: there, on the other side, and there again.
#[derive(Default)]
struct Readings {
    samples: Vec<Sample>,
    first: Vec<Reply>,
    there: Vec<Reply>,
    again: Vec<Reply>,
    /// Those that the other side was still to be given when it was read.
    is_late: Vec<bool>,
    /// How often the slot of each had moved when the batch began.
    moves: Vec<u32>,
}

impl Look<'_> {
    async fn batch(&mut self) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let keys = match self.keys().await? {
            Some(keys) => keys,
            None => return Ok(Batch { sampled: vec![Sampled::Failed], ..batch }),
        };
        if keys.is_empty() {
            return Ok(Batch { is_empty: true, ..batch });
        }
        let count = keys.len();
        let counted: Vec<_> = keys.into_iter().map(|key| (moves(self.route, &key), key)).collect();
        let counts: HashMap<Vec<u8>, u32> = counted.iter().map(|(moves, key)| (key.clone(), *moves)).collect();
        let is_of_next = |(_, key): &(u32, Vec<u8>)| self.route.home(key) == self.ids.1;
        let (of_next, of_old): (Vec<_>, Vec<_>) = counted.into_iter().partition(is_of_next);
        let keys_of = |all: Vec<(u32, Vec<u8>)>| all.into_iter().map(|(_, key)| key).collect();
        let (of_next, of_old): (Vec<_>, Vec<_>) = (keys_of(of_next), keys_of(of_old));
        let of_old = Readings { samples: sized(self.old, self.database, of_old).await?, ..Readings::default() };
        // That the next one cannot be asked is what is looked for; of the old one it says nothing about the next.
        let Ok(of_next) = sized(self.next, self.database, of_next).await else {
            return Ok(Batch { sampled: vec![Sampled::Failed; count], ..batch });
        };
        let mut both = [of_old, Readings { samples: of_next, ..Readings::default() }];
        for readings in &mut both {
            readings.moves =
                readings.samples.iter().map(|sample| counts.get(&sample.key).copied().unwrap_or(0)).collect();
        }
        match self.read(&mut both, &mut batch).await? {
            Asked::Unconfirmed => return Ok(Batch::default()),
            Asked::NextFailed => return Ok(Batch { sampled: vec![Sampled::Failed; count], ..batch }),
            Asked::Answered => {}
        }
        let now = self.shared.group.route();
        for readings in &both {
            for number in 0..readings.samples.len() {
                let Sample { key, read } = &readings.samples[number];
                let (first, there) = (&readings.first[number], &readings.there[number]);
                let is_recorded = |id| self.shared.group.record(id).contains(self.database, key);
                let is_on_its_way = readings.is_late[number] || is_recorded(self.ids.0) || is_recorded(self.ids.1);
                let has_moved = moves(&now, key) != readings.moves[number] || now.active != self.route.active;
                if has_moved || is_on_its_way {
                    continue;
                }
                let Some(sampled) = judge(read, first, there, &readings.again[number]) else { continue };
                if sampled == Sampled::Wrong && batch.example.is_none() {
                    batch.example = Some(difference(read, first, there));
                }
                batch.sampled.push(sampled);
            }
        }
        Ok(batch)
    }

    /// Keys by chance, of both sides where both are homes; `None` when the next side cannot be asked.
    async fn keys(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let is_split = self.route.split.is_some();
        let ask = |count| vec![words(&["RANDOMKEY"]); count];
        let mut found = Vec::new();
        let of_each = if is_split { BATCH_KEYS / 2 } else { BATCH_KEYS };
        if is_split || self.route.active == self.ids.0 {
            found.extend(self.old.ask(self.database, ask(of_each)).await?);
        }
        if is_split || self.route.active == self.ids.1 {
            match self.next.ask(self.database, ask(of_each)).await {
                Ok(replies) => found.extend(replies),
                Err(_) => return Ok(None),
            }
        }
        let ours = self.shared.own_prefix.as_bytes();
        let keys = found.iter().filter_map(|key| if let Reply::Bulk(key) = key { Some(key.to_vec()) } else { None });
        let mut keys: Vec<Vec<u8>> = keys.filter(|key| !key.starts_with(ours)).collect();
        keys.sort_unstable();
        keys.dedup();
        Ok(Some(keys))
    }

    /// Reads every key once on each side, which is timed, and once more at its home.
    async fn read(&mut self, [of_old, of_next]: &mut [Readings; 2], batch: &mut Batch) -> io::Result<Asked> {
        let (database, shared) = (self.database, self.shared);
        let requests = |readings: &Readings| readings.samples.iter().map(Sample::request).collect::<Vec<_>>();
        let (ask_of_old, ask_of_next) = (requests(of_old), requests(of_next));
        of_old.first = timed(self.old, database, &ask_of_old, &mut batch.old).await?;
        let Ok(first) = timed(self.next, database, &ask_of_next, &mut batch.next).await else {
            return Ok(Asked::NextFailed);
        };
        of_next.first = first;
        for (follows, readings) in [(self.ids.1, &mut *of_old), (self.ids.0, &mut *of_next)] {
            let keys: Vec<&[u8]> = readings.samples.iter().map(|sample| sample.key.as_slice()).collect();
            let Some(late) = confirmed(shared, follows, database, &keys).await else { return Ok(Asked::Unconfirmed) };
            readings.is_late = late;
        }
        let Ok(there) = timed(self.next, database, &ask_of_old, &mut batch.next).await else {
            return Ok(Asked::NextFailed);
        };
        of_old.there = there;
        of_next.there = timed(self.old, database, &ask_of_next, &mut batch.old).await?;
        let mut untimed = Duration::ZERO;
        of_old.again = timed(self.old, database, &ask_of_old, &mut untimed).await?;
        let Ok(again) = timed(self.next, database, &ask_of_next, &mut untimed).await else {
            return Ok(Asked::NextFailed);
        };
        of_next.again = again;
        Ok(Asked::Answered)
    }
}

/// How often the slot of a key has moved so far.
fn moves(route: &Route, key: &[u8]) -> u32 {
    route.split.as_ref().map_or(0, |split| split.homes.moves(key))
}

enum Asked {
    Answered,
    NextFailed,
    Unconfirmed,
}

impl Sample {
    fn request(&self) -> Vec<Vec<u8>> {
        match &self.read {
            Read::Whole(kind) => reading(kind, &self.key),
            Read::Size(command) => vec![command.as_bytes().to_vec(), self.key.clone()],
        }
    }
}

async fn timed(
    side: &mut Side,
    database: u32,
    requests: &[Vec<Vec<u8>>],
    took: &mut Duration,
) -> io::Result<Vec<Reply>> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let began = Instant::now();
    let replies = side.ask(database, requests.to_vec()).await?;
    *took += began.elapsed();
    Ok(replies)
}

/// How each key is to be read, by what it is at its home. Keys that are gone by now, and values of modules, whose serialised
/// forms may differ and mean the same, are left out.
async fn sized(home: &mut Side, database: u32, keys: Vec<Vec<u8>>) -> io::Result<Vec<Sample>> {
    let mut untimed = Duration::ZERO;
    let ask: Vec<_> = keys.iter().map(|key| vec![b"TYPE".to_vec(), key.clone()]).collect();
    let kinds = timed(home, database, &ask, &mut untimed).await?;
    let mut samples: Vec<Sample> = Vec::new();
    for (key, kind) in keys.into_iter().zip(&kinds) {
        let Some(kind) = kind.text() else { continue };
        match size_command(kind) {
            Some(_) => samples.push(Sample { key, read: Read::Whole(kind.to_owned()) }),
            None if kind == "string" => samples.push(Sample { key, read: Read::Whole(kind.to_owned()) }),
            None => {}
        }
    }
    let command = |sample: &Sample| if let Read::Whole(kind) = &sample.read { size_command(kind) } else { None };
    let ask: Vec<_> = samples
        .iter()
        .filter_map(|sample| Some(vec![command(sample)?.as_bytes().to_vec(), sample.key.clone()]))
        .collect();
    let sizes = timed(home, database, &ask, &mut untimed).await?;
    for (sample, size) in samples.iter_mut().filter(|sample| command(sample).is_some()).zip(&sizes) {
        if size.integer().is_none_or(|size| size > ELEMENTS_MAX)
            && let Some(command) = command(sample)
        {
            sample.read = Read::Size(command);
        }
    }
    Ok(samples)
}

fn size_command(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "list" => "LLEN",
        "set" => "SCARD",
        "zset" => "ZCARD",
        "hash" => "HLEN",
        "stream" => "XLEN",
        _ => return None,
    })
}

/// How a key compares; `None` when it cannot be told.
fn judge(read: &Read, first: &Reply, there: &Reply, again: &Reply) -> Option<Sampled> {
    let same = |a: &Reply, b: &Reply| match read {
        Read::Whole(kind) => same_value(kind, a, b),
        Read::Size(_) => a == b,
    };
    if is_nothing(first) || first.error().is_some() || !same(first, again) {
        return None;
    }
    Some(match there {
        _ if is_nothing(there) => Sampled::Missing,
        there => match there.error() {
            Some(error) if error.starts_with("WRONGTYPE") => Sampled::Wrong,
            Some(_) => Sampled::Failed,
            None if same(first, there) => Sampled::Same,
            None => Sampled::Wrong,
        },
    })
}

fn is_nothing(reply: &Reply) -> bool {
    matches!(reply, Reply::Null | Reply::Integer(0)) || reply.elements().is_some_and(<[Reply]>::is_empty)
}

/// Where two values differ; keys and values themselves are never shown.
fn difference(read: &Read, home: &Reply, there: &Reply) -> String {
    match (read, home, there) {
        (_, Reply::Bulk(home), Reply::Bulk(there)) => {
            let at = home.iter().zip(there.iter()).take_while(|(home, there)| home == there).count();
            let (len, other_len) = (home.len(), there.len());
            format!("a value of {len} bytes at its home, of {other_len} on the other side, alike for {at} bytes")
        }
        (Read::Size(command), ..) => format!("{command} is another on the other side"),
        (Read::Whole(kind), ..) if there.error().is_some() => {
            format!("a {kind} that is of another type on the other side")
        }
        (Read::Whole(kind), ..) => format!("a {kind} whose elements are others on the other side"),
    }
}

/// Waits until everything that was executed until now has been confirmed by the side that follows, but for what is copied to
/// it by value: says for each key whether that is so. `None` when it takes too long.
async fn confirmed(shared: &Rc<Shared>, follows: BackendId, database: u32, keys: &[&[u8]]) -> Option<Vec<bool>> {
    if keys.is_empty() {
        return Some(Vec::new());
    }
    let began = Instant::now();
    let wait = async |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            if began.elapsed() > CONFIRMED_WITHIN {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Some(())
    };
    // Each worker has told the mirrors of what was executed before the barrier.
    let barrier = shared.group.begin_barrier(Barrier::AllLinks);
    wait(&|| shared.group.is_behind_barrier(barrier)).await?;
    let (record, mirror) = (shared.group.record(follows), &shared.group.mirrors[follows.index()]);
    let is_late = |key: &&[u8]| record.contains(database, key) || mirror.is_copying(database, key);
    let late = keys.iter().map(is_late).collect();
    let place = mirror.end();
    wait(&|| mirror.is_answered(place)).await?;
    Some(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec().into())
    }

    fn array(text: &str) -> Reply {
        Reply::Array(text.split_whitespace().map(bulk).collect())
    }

    fn error(text: &str) -> Reply {
        Reply::Error(text.into())
    }

    #[test]
    fn a_sample_is_judged_only_when_its_home_said_the_same_twice() {
        let whole = |kind: &str| Read::Whole(kind.to_owned());
        let size = Read::Size("HLEN");
        for (read, first, there, again, expected) in [
            (whole("string"), bulk("a"), bulk("a"), bulk("a"), Some(Sampled::Same)),
            (whole("string"), bulk("a"), bulk("b"), bulk("a"), Some(Sampled::Wrong)),
            (whole("string"), bulk("a"), bulk("b"), bulk("b"), None),
            (whole("string"), Reply::Null, bulk("b"), Reply::Null, None),
            (whole("string"), bulk("a"), Reply::Null, bulk("a"), Some(Sampled::Missing)),
            (whole("string"), bulk("a"), error("WRONGTYPE x"), bulk("a"), Some(Sampled::Wrong)),
            (whole("string"), bulk("a"), error("LOADING x"), bulk("a"), Some(Sampled::Failed)),
            (whole("string"), error("WRONGTYPE x"), bulk("a"), error("WRONGTYPE x"), None),
            (whole("hash"), array("f 1 g 2"), array("g 2 f 1"), array("f 1 g 2"), Some(Sampled::Same)),
            (whole("hash"), array("f 1 g 2"), array("f 1 g 3"), array("f 1 g 2"), Some(Sampled::Wrong)),
            (whole("list"), array("a b"), array("b a"), array("a b"), Some(Sampled::Wrong)),
            (whole("set"), array("a b"), array(""), array("b a"), Some(Sampled::Missing)),
            (size.clone(), Reply::Integer(70), Reply::Integer(70), Reply::Integer(70), Some(Sampled::Same)),
            (size.clone(), Reply::Integer(70), Reply::Integer(69), Reply::Integer(70), Some(Sampled::Wrong)),
            (size.clone(), Reply::Integer(70), Reply::Integer(0), Reply::Integer(70), Some(Sampled::Missing)),
            (size, Reply::Integer(70), Reply::Integer(71), Reply::Integer(71), None),
        ] {
            assert_eq!(judge(&read, &first, &there, &again), expected, "{read:?} {first:?} {there:?} {again:?}");
        }
    }

    #[test]
    fn the_evidence_shows_no_value() {
        let read = Read::Whole("string".to_owned());
        let text = difference(&read, &bulk("secret"), &bulk("second"));
        assert_eq!(text, "a value of 6 bytes at its home, of 6 on the other side, alike for 3 bytes");
        let text = difference(&Read::Whole("hash".to_owned()), &array("f secret"), &array("f other"));
        assert!(!text.contains("secret") && text.contains("hash"), "{text}");
    }
}
