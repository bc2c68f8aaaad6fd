//! Compares, in the background, what mirrored backends and replicas hold with what the active holds: what mirroring and
//! replication promise is looked at, not believed. A few keys each second, found by SCAN on either side.
//!
//! Two servers that are read one after the other differ whenever somebody writes. So a key that differs is only suspected,
//! and looked at again as `suspects` has it, which no write in flight can deceive.

mod compare;
mod figures;
mod sides;
mod suspects;
mod walk;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use self::compare::compare;
pub(super) use self::compare::{reading, same_value};
pub(super) use self::figures::Figures;
use self::sides::Pair;
pub(super) use self::sides::Side;
use self::suspects::Suspects;
use self::walk::Walk;
use super::shared::Shared;
use crate::config::{Sampling, SamplingMode};
use crate::policy::{BackendId, BackendRole};
use crate::route::Availability;

/// While there is nothing to compare, and after a server could not be asked.
const LOOK: Duration = Duration::from_millis(500);
/// The shortest pause between two batches, whatever the rate.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Batches each second, as far as the rate allows: a batch is two round trips on either side.
const BATCHES_PER_SECOND: u32 = 5;
/// Keys of one batch.
const BATCH_MAX: u32 = 200;

/// Samples a mirrored backend while its mirror is open; never returns.
pub(super) async fn mirrored(shared: &Rc<Shared>, id: BackendId) -> String {
    loop {
        let is_filled = shared.mirror(id).is_filled(&shared.mirror_settings);
        if shared.sampling.mode != SamplingMode::Off && is_filled && shared.has_one_home() {
            note(shared, id, sample(shared, id, Kind::Mirrored).await);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Samples a backend whenever its server follows another by itself.
pub(super) async fn replica(shared: Rc<Shared>, id: BackendId) {
    if shared.sampling.mode == SamplingMode::Off {
        return;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        if shared.follows(id) {
            note(&shared, id, sample(&shared, id, Kind::Replica).await);
        }
    }
}

fn note(shared: &Rc<Shared>, id: BackendId, ended: io::Result<()>) {
    let why = ended.err().map(|error| error.to_string()).unwrap_or_default();
    if !why.is_empty() {
        tracing::debug!(backend = shared.rules(id).name, why, "contents are not compared now");
    }
    shared.figures(id).borrow_mut().why = why;
}

/// How a backend gets its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mirrored,
    Replica,
}

impl Shared {
    pub(super) fn figures(&self, id: BackendId) -> &std::cell::RefCell<Figures> {
        &self.samples[id.index()]
    }

    /// Every value counts on the active. While two backends serve that is not so, and what differs there would be "repaired"
    /// by the older value; a staged plan compares them by itself then.
    fn has_one_home(&self) -> bool {
        self.group.route().split.is_none()
    }

    /// Whether a backend is a replica that can be compared with the active.
    fn follows(&self, id: BackendId) -> bool {
        let route = self.group.route();
        let facts = &self.facts.borrow()[id.index()];
        let is_replica = facts.identity.as_ref().is_some_and(|identity| identity.is_replica);
        let serves = route.epoch > 0 && route.availability == Availability::Serving;
        serves
            && route.active != id
            && is_replica
            && facts.last_error.is_none()
            && !self.rules(route.active).is_embedded
            && (self.rules(id).role == BackendRole::Primary || self.rules(id).data == crate::config::DataMode::Replica)
    }
}

/// Compares until something else serves (`Ok`) or a server cannot be asked.
async fn sample(shared: &Rc<Shared>, id: BackendId, kind: Kind) -> io::Result<()> {
    let settings = &shared.sampling;
    let mut pair = Pair::connect(shared, id, kind).await?;
    let mut walk = Walk::new(settings.share);
    let mut suspects = Suspects::new(kind);
    shared.figures(id).borrow_mut().why.clear();
    while pair.is_of(shared) && shared.has_one_home() && (kind == Kind::Mirrored || shared.follows(id)) {
        let (database, keys) = walk.next(shared, id, &mut pair, batch(settings)).await?;
        let differences = compare(settings, &mut pair, database, &keys).await?;
        let pause = Duration::from_secs_f64(keys.len().max(1) as f64 / f64::from(settings.rate));
        let had_nothing_to_do = keys.is_empty() && suspects.is_empty();
        for (key, difference) in keys.into_iter().zip(differences) {
            match difference {
                None => shared.figures(id).borrow_mut().agrees(),
                Some(_) => suspects.add(shared, id, (database, key)),
            }
        }
        // One for each batch: what is written all the time does not keep the others from being compared.
        suspects.look_closer(shared, id, &mut pair).await?;
        figures::tell(shared, id, kind == Kind::Mirrored && settings.mode == SamplingMode::Repair);
        tokio::time::sleep(if had_nothing_to_do { LOOK } else { pause.max(PAUSE_MIN) }).await;
    }
    Ok(())
}

fn batch(settings: &Sampling) -> usize {
    (settings.rate / BATCHES_PER_SECOND).clamp(1, BATCH_MAX) as usize
}
