//! A second look at a key that seems to differ, which a write in flight cannot deceive.
//!
//! The key is watched on the active (WATCH); then it is waited until everything that was written there before has arrived on
//! the other server; then both are read; then an empty transaction tells whether the key was written meanwhile. If it was
//! not, both were read in the same state of the active, and the other server had everything.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Kind;
use super::compare::{Difference, compare};
use super::sides::Pair;
use crate::backend::Reply;
use crate::config::SamplingMode;
use crate::control::entry::words;
use crate::control::shared::Shared;
use crate::divergence::DirtyKey;
use crate::policy::BackendId;
use crate::route::Barrier;

/// Keys that wait for their second look; what comes beyond is met again by the next walk.
const SUSPECTS_MAX: usize = 256;
/// A key that is written all the time is given up after so many looks.
const LOOKS: u32 = 6;
/// So long does one look wait for the other server to have what was written before.
const ARRIVED_MAX: Duration = Duration::from_millis(500);
/// Between two questions whether it has.
const MIRROR_LOOK: Duration = Duration::from_millis(1);
const REPLICA_LOOK: Duration = Duration::from_millis(20);
/// Keys that could not be made right are remembered, so that each is told once.
const HOPELESS_MAX: usize = 1_000;

struct Suspect {
    key: DirtyKey,
    looks: u32,
    /// It did differ, and was entered into the record to be copied again.
    is_being_repaired: bool,
}

/// Keys that seemed to differ.
pub(super) struct Suspects {
    kind: Kind,
    waiting: VecDeque<Suspect>,
    hopeless: Vec<DirtyKey>,
}

impl Suspects {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, waiting: VecDeque::new(), hopeless: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn add(&mut self, shared: &Rc<Shared>, id: BackendId, key: DirtyKey) {
        if self.hopeless.contains(&key) || self.waiting.iter().any(|suspect| suspect.key == key) {
            return;
        }
        if self.waiting.len() < SUSPECTS_MAX {
            self.waiting.push_back(Suspect { key, looks: 0, is_being_repaired: false });
        } else {
            shared.figures(id).borrow_mut().unsettled += 1;
        }
    }

    /// Looks at the one that has waited longest.
    pub(super) async fn look_closer(&mut self, shared: &Rc<Shared>, id: BackendId, pair: &mut Pair) -> io::Result<()> {
        let Some(mut suspect) = self.waiting.pop_front() else { return Ok(()) };
        suspect.looks += 1;
        let repairs = self.kind == Kind::Mirrored && shared.sampling.mode == SamplingMode::Repair;
        match (look(shared, id, self.kind, pair, &suspect.key).await?, suspect.is_being_repaired) {
            (Verdict::Written, _) => self.wait_again(shared, id, suspect),
            (Verdict::Behind, _) => {
                // What holds for one key holds for all: nobody waits for the same silence again and again.
                for mut other in std::mem::take(&mut self.waiting) {
                    other.looks += 1;
                    self.wait_again(shared, id, other);
                }
                self.wait_again(shared, id, suspect);
            }
            (Verdict::Agrees, false) => shared.figures(id).borrow_mut().agrees(),
            (Verdict::Agrees, true) => shared.figures(id).borrow_mut().repaired += 1,
            (Verdict::Differs(difference), false) => {
                shared.figures(id).borrow_mut().differs(difference);
                if repairs {
                    // The copier brings it; whether that has helped is looked at as before.
                    shared.group.record(id).dirty(suspect.key.0, [&*suspect.key.1]);
                    shared.mirror(id).wake();
                    self.waiting.push_back(Suspect { looks: 0, is_being_repaired: true, ..suspect });
                }
            }
            (Verdict::Differs(_), true) if self.hopeless.len() < HOPELESS_MAX => self.hopeless.push(suspect.key),
            (Verdict::Differs(_), true) => {}
        }
        Ok(())
    }

    fn wait_again(&mut self, shared: &Rc<Shared>, id: BackendId, suspect: Suspect) {
        if suspect.looks < LOOKS {
            self.waiting.push_back(suspect);
        } else {
            shared.figures(id).borrow_mut().unsettled += 1;
        }
    }
}

enum Verdict {
    Agrees,
    Differs(Difference),
    /// Meanwhile: nothing can be said.
    Written,
    /// The other server did not have in time what was written before.
    Behind,
}

async fn look(shared: &Rc<Shared>, id: BackendId, kind: Kind, pair: &mut Pair, key: &DirtyKey) -> io::Result<Verdict> {
    let (database, name) = (key.0, std::slice::from_ref(&key.1));
    let watched = pair.active.ask(database, vec![vec![b"WATCH".to_vec(), key.1.to_vec()]]).await?;
    refuse_errors(&watched)?;
    let has_arrived = match kind {
        Kind::Mirrored => has_been_mirrored(shared, id, key).await,
        Kind::Replica => has_been_replicated(pair, database).await?,
    };
    let difference = compare(&shared.sampling, pair, database, name).await?;
    let transaction = pair.active.ask(database, vec![words(&["MULTI"]), words(&["EXEC"])]).await?;
    refuse_errors(&transaction)?;
    let was_untouched = transaction[1] != Reply::Null;
    Ok(match difference[0] {
        _ if !has_arrived && kind == Kind::Replica => Verdict::Behind,
        // On its way to a mirrored backend is one key, not all.
        _ if !has_arrived || !was_untouched => Verdict::Written,
        None => Verdict::Agrees,
        Some(difference) => Verdict::Differs(difference),
    })
}

fn refuse_errors(replies: &[Reply]) -> io::Result<()> {
    match replies.iter().find_map(Reply::error) {
        Some(error) => Err(io::Error::other(error.to_owned())),
        None => Ok(()),
    }
}

/// Whether the mirrored backend has confirmed everything that our clients had written before this was asked, and the key
/// is neither recorded nor being copied.
async fn has_been_mirrored(shared: &Rc<Shared>, id: BackendId, key: &DirtyKey) -> bool {
    let (record, mirror) = (shared.group.record(id), &shared.group.mirrors[id.index()]);
    let is_known_to_differ = || record.contains(key.0, &key.1) || mirror.is_copying(key.0, &key.1);
    let until = Instant::now() + ARRIVED_MAX;
    let barrier = shared.group.begin_barrier(Barrier::SharedLinks);
    wait(until, || shared.group.is_behind_barrier(barrier)).await
        && wait(until, || !is_known_to_differ()).await
        && {
            let place = mirror.end();
            wait(until, || mirror.is_answered(place)).await
        }
        && !is_known_to_differ()
}

async fn wait(until: Instant, condition: impl Fn() -> bool) -> bool {
    while !condition() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(MIRROR_LOOK).await;
    }
    true
}

/// Whether the replica has executed everything that the active had when this was asked.
async fn has_been_replicated(pair: &mut Pair, database: u32) -> io::Result<bool> {
    let info = || vec![words(&["INFO", "replication"])];
    let Some(offset) = field(&pair.active.ask(database, info()).await?[0], "master_repl_offset") else {
        return Ok(false);
    };
    let until = Instant::now() + ARRIVED_MAX;
    while Instant::now() < until {
        let replies = pair.follower.ask(database, info()).await?;
        if field(&replies[0], "slave_repl_offset").is_some_and(|reached| reached >= offset) {
            return Ok(true);
        }
        tokio::time::sleep(REPLICA_LOOK).await;
    }
    Ok(false)
}

fn field(info: &Reply, name: &str) -> Option<u64> {
    let found = info.text()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_found_by_its_whole_name() {
        let info = Reply::Bulk("role:slave\r\nslave_repl_offset_x:1\r\nslave_repl_offset:42\r\n".into());
        assert_eq!(field(&info, "slave_repl_offset"), Some(42));
        assert_eq!(field(&info, "master_repl_offset"), None);
    }
}
