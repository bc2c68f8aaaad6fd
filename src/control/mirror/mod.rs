//! Keeps backends in step with the active: mirrored backups, and the primary while another serves, so that it has missed
//! nothing when it is entered again.
//!
//! One task for each backend that may be kept in step. It opens the mirror (`divergence::Mirror`) when the backend is well,
//! empties it first if its content is unknown and ours, fills it from the active, and closes the mirror when the backend
//! fails or is about to serve. What was not confirmed then is in the backend's record.

mod copy;
mod fill;
mod others;
mod read_fill;
mod stream;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::fill::Fill;
pub(super) use self::others::{OtherWriter, watch};
use self::stream::Stream;
use super::entry::{self, words};
use super::facts::{Remedy, is_better_emptied, remedy};
use super::incident;
use super::sampling;
use super::shared::Shared;
use crate::backend::clock;
use crate::config::{DataMode, DivergencePolicy};
use crate::divergence::State;
use crate::limits::RECONCILE_KEYS_MAX;
use crate::policy::BackendId;
use crate::route::{Availability, Keeping};
use crate::telemetry::events::{Event as Entry, EventKind};

/// How often a backend that is not kept in step is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// First pause after a failure; doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// One that was kept in step for so long begins with the first pause again.
const CALM: Duration = Duration::from_secs(60);
/// A backend that holds nothing and could not be filled for so long is not waited for any more.
const FILL_PATIENCE: Duration = Duration::from_secs(5);
/// So long may it take until what waits is confirmed when the backend is about to serve. It is usually a round trip.
const DRAIN_MAX: Duration = Duration::from_millis(100);
/// So long is waited for the workers to act by a new route; they are never blocked.
const ROUTE_MAX: Duration = Duration::from_secs(1);

/// How a mirror is set up.
#[derive(Debug, Clone)]
pub struct MirrorSettings {
    pub fill: bool,
    /// Also what clients read.
    pub read_fill: bool,
    /// Also the primary, while another serves.
    pub primary: bool,
    /// Keys each second.
    pub copy_rate: u32,
    /// Bytes.
    pub value_max: usize,
}

/// Where a mirror is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not kept in step.
    Off,
    /// What is sent from now on is mirrored; what was sent before is still recorded.
    Opening,
    Open,
}

/// What the task of one mirror and its surroundings tell each other; all on one thread.
pub(super) struct MirrorControl {
    phase: Cell<Phase>,
    /// It is to close, because its backend is about to serve.
    stop: Cell<bool>,
    changed: Notify,
    /// Wakes the copying when keys were recorded.
    keys: Notify,
    /// Requests wait for the last keys: the copying makes no pauses.
    hurry: Cell<bool>,
    hurried: Notify,
    pub(super) fill: RefCell<Fill>,
    /// It is emptied to be filled, and the mirror is not open yet.
    pub(super) empties: Cell<bool>,
    /// Why it is not open; empty while it is, or need not be.
    pub(super) why: RefCell<String>,
    /// Since when it could not be opened, or kept open.
    failing_since: Cell<Option<Instant>>,
    /// Keys copied, and keys removed because they could not be, since the start.
    pub(super) copied: Cell<u64>,
    pub(super) removed: Cell<u64>,
    /// Keys that are copied because clients read them.
    pub(super) read: Cell<u64>,
}

impl MirrorControl {
    pub(super) fn new() -> Self {
        Self {
            phase: Cell::new(Phase::Off),
            stop: Cell::new(false),
            changed: Notify::new(),
            keys: Notify::new(),
            hurry: Cell::new(false),
            hurried: Notify::new(),
            fill: RefCell::default(),
            empties: Cell::new(false),
            why: RefCell::default(),
            failing_since: Cell::new(None),
            copied: Cell::new(0),
            removed: Cell::new(0),
            read: Cell::new(0),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.phase.get() != Phase::Off
    }

    /// Whether it holds everything that it is to hold, but for what is on its way.
    pub(super) fn is_filled(&self, settings: &MirrorSettings) -> bool {
        self.fill.borrow().is_done || !settings.fill
    }

    /// There are keys in the record to be copied.
    pub(super) fn wake(&self) {
        self.keys.notify_one();
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    async fn wanted_to_stop(&self) {
        while !self.stop.get() {
            self.changed.notified().await;
        }
    }
}

impl Shared {
    pub(super) fn mirror(&self, id: BackendId) -> &MirrorControl {
        &self.mirrors[id.index()]
    }

    /// Whether a backend is one that is kept in step while another serves.
    pub(super) fn may_mirror(&self, id: BackendId) -> bool {
        self.rules(id).is_kept_in_step(self.mirror_settings.primary, self.promotes(), self.rules.len())
    }

    /// What the workers are to keep while `active` serves.
    pub(super) fn keeping(&self, active: BackendId) -> Keeping {
        let bit = |id: BackendId| 1 << id.index();
        let mut keeping = Keeping { copying: self.incidents.borrow().copying, ..Keeping::default() };
        // Before both serve, what the active executes it has not missed.
        let is_shared = self.sharing.is_on();
        let is_split = self.group.route().split.is_some();
        for rules in self.rules.iter().filter(|rules| rules.id != active || is_shared) {
            let phase = self.mirror(rules.id).phase.get();
            if phase != Phase::Off {
                keeping.mirroring |= bit(rules.id);
            }
            if phase == Phase::Open && self.mirror_settings.read_fill && !is_shared {
                keeping.reading |= bit(rules.id);
            }
            // Without content worth knowing there is nothing that could become more stale; a replica follows by itself.
            let state = self.group.record(rules.id).state();
            let follows = rules.data == DataMode::Replica || rules.is_replicated && self.promotes();
            let may_miss = rules.id != active || is_split;
            if may_miss && phase != Phase::Open && matches!(state, State::Clean | State::Keys) && !follows {
                keeping.recording |= bit(rules.id);
            }
        }
        keeping
    }

    /// Closes the mirror of a backend that is about to serve; what was not confirmed is in its record afterwards.
    pub(super) async fn stop_mirror(&self, id: BackendId) {
        let control = self.mirror(id);
        control.stop.set(true);
        control.changed.notify_waiters();
        while control.is_on() {
            control.changed.notified().await;
        }
    }

    /// It does not serve after all, or serves already.
    pub(super) fn release_mirror(&self, id: BackendId) {
        self.mirror(id).stop.set(false);
        self.mirror(id).hurry.set(false);
    }

    /// Requests are about to wait for the last keys, which are copied without regard to the rate from now on.
    pub(super) fn hurry_mirror(&self, id: BackendId) {
        self.mirror(id).hurry.set(true);
        self.mirror(id).hurried.notify_one();
    }

    /// Waits until all that was acknowledged so far has reached a mirrored backend; false when that takes too long.
    pub(super) async fn wait_in_step(&self, id: BackendId, within: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < within {
            if self.is_in_step(id) {
                return true;
            }
            self.mirror(id).keys.notify_one();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        false
    }

    /// Whether a mirrored backend holds everything that was acknowledged.
    pub(super) fn is_in_step(&self, id: BackendId) -> bool {
        let waiting = self.group.mirrors[id.index()].waiting();
        let is_idle = waiting.requests == 0 && waiting.copying == 0;
        self.mirror(id).is_on() && is_idle && self.group.record(id).is_without_keys()
    }

    /// Who else writes to the active, in one sentence.
    pub(super) fn other_writer(&self) -> Option<String> {
        others::why(&self.other_writer.borrow(), self.has_mirrored_backup())
    }

    pub(super) fn has_mirrored_backup(&self) -> bool {
        self.rules.iter().any(|rules| rules.data == DataMode::Mirrored)
    }

    /// Whether any backend is kept in step now.
    pub(super) fn mirrors_any(&self) -> bool {
        self.group.route().mirroring != 0
    }

    fn mirror_is_wanted(&self, id: BackendId) -> bool {
        self.mirror_could_run(id)
            && !self.facts.borrow()[id.index()].names_neighbours
            && !self.mirror(id).stop.get()
            && (self.newest_is_done() || self.reconciling.get() == Some(id))
    }

    /// Whether it holds nothing of what was acknowledged, and is about to be filled.
    pub(super) fn is_yet_to_be_filled(&self, id: BackendId) -> bool {
        let (control, record) = (self.mirror(id), self.group.record(id));
        let lacks_everything = record.began_empty() || record.state() == State::Unknown;
        // What failed once is tried again soon; one that cannot be filled is not waited for.
        let may_open = control.failing_since.get().is_none_or(|since| since.elapsed() < FILL_PATIENCE);
        let will_fill = self.mirror_settings.fill && may_open && self.mirror_could_run(id);
        // Names of others in a content that came back are those of the dead, as a rule, and are forgotten soon; it would be
        // emptied to be entered at once.
        let is_cleared = !self.facts.borrow()[id.index()].names_neighbours;
        let will_be_cleared = record.state() == State::Unknown && self.divergence_policy != DivergencePolicy::Trust;
        self.may_mirror(id) && !control.is_on() && lacks_everything && will_fill && (is_cleared || will_be_cleared)
    }

    /// Whether it could be kept in step, once no switch is under way and it names no other Standin.
    fn mirror_could_run(&self, id: BackendId) -> bool {
        let route = self.group.route();
        let facts = &self.facts.borrow()[id.index()];
        let is_well =
            facts.met && facts.last_error.is_none() && facts.identity.as_ref().is_some_and(|it| !it.is_replica);
        let serves = route.epoch > 0 && route.availability == Availability::Serving;
        serves
            && self.sharing.keeps_in_step(id, route.active)
            && !self.rules(route.active).is_embedded
            // A replica takes no writes, and what it holds its master has.
            && !(self.is_replicated(route.active) && self.is_replica(route.active))
            && is_well
            && !facts.emptying
            && self.other_writer.borrow().is_none()
            && self.twin(id).is_none()
    }
}

/// Keeps one backend in step for as long as the process lives.
pub(super) async fn keep(shared: Rc<Shared>, id: BackendId) {
    let control = shared.mirror(id);
    let (mut pause, mut named_since) = (PAUSE_MIN, None);
    loop {
        while !shared.mirror_is_wanted(id) {
            if shared.group.route().active == id {
                // What it holds is what is served.
                control.fill.borrow_mut().is_done = true;
                control.why.borrow_mut().clear();
                control.failing_since.set(None);
            }
            others::keep_empty(&shared, id).await;
            others::forget_old_names(&shared, id, &mut named_since).await;
            tokio::time::sleep(LOOK).await;
        }
        let began = Instant::now();
        let ended = run(&shared, id).await;
        control.empties.set(false);
        match ended {
            Ok(()) => {
                pause = PAUSE_MIN;
                control.failing_since.set(None);
            }
            Err(why) => {
                tracing::info!(backend = shared.rules(id).name, why, "not kept in step");
                *control.why.borrow_mut() = why;
                if began.elapsed() > CALM || control.failing_since.get().is_none() {
                    control.failing_since.set(Some(Instant::now()));
                }
                pause = if began.elapsed() > CALM { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// One life of a mirror; `Ok` when it was told to close.
async fn run(shared: &Rc<Shared>, id: BackendId) -> Result<(), String> {
    let control = shared.mirror(id);
    let (record, mirror) = (shared.group.record(id), &shared.group.mirrors[id.index()]);
    if record.state() == State::Unknown && shared.group.route().serves(id) {
        return Err("it serves, and what it has missed is not known".to_owned());
    }
    if record.state() == State::Unknown {
        empty(shared, id).await?;
    } else if let Some(why) = has_missed_many(shared, id) {
        // Refused where others work on it, say; then they are copied one by one.
        if let Err(obstacle) = empty_to_fill(shared, id, &why).await {
            control.empties.set(false);
            tracing::info!(backend = shared.rules(id).name, why, obstacle, "not emptied; what it has missed is copied");
        }
    }
    if record.began_empty() {
        *control.fill.borrow_mut() = Fill::default();
    }
    others::look(shared).await;
    if let Some(why) = shared.other_writer() {
        return Err(why);
    }
    let mut stream = Stream::connect(shared, id).await?;
    // From now on until it is confirmed that the backend is in step, a successor of ours must not take it for clean.
    let mark = words(&["SET", &shared.mark_keys.mirror, &shared.client_name]);
    shared.ask(id, vec![mark], shared.entry_timeout).await.map_err(|error| error.to_string())?;
    // It may have begun to serve while it was asked. From here to the phase nothing is waited for, and whoever enters it
    // later waits for this mirror to close.
    if !shared.mirror_is_wanted(id) {
        return Ok(());
    }
    record.begin_to_fill();
    mirror.open(shared.group.backend(id).target.database);
    control.set_phase(Phase::Opening);
    control.empties.set(false);
    let ended = match opened(shared).await {
        Ok(()) => {
            control.set_phase(Phase::Open);
            publish(shared).await;
            control.why.borrow_mut().clear();
            work(shared, id, &mut stream).await
        }
        Err(why) => Err(why),
    };
    // Recorded from now on, when it is sent; what was sent before finds the mirror closed.
    control.phase.set(Phase::Off);
    shared.republish();
    let is_drained = stream.is_drained();
    mirror.close(record, stream.unanswered());
    if !is_drained {
        shared.group.backend(id).add_undead(stream.client_id());
    }
    control.changed.notify_waiters();
    ended
}

/// Feeds the backend until it fails or is about to serve.
async fn work(shared: &Rc<Shared>, id: BackendId, stream: &mut Stream) -> Result<(), String> {
    let control = shared.mirror(id);
    let (record, mirror) = (shared.group.record(id), &shared.group.mirrors[id.index()]);
    let ended = tokio::select! {
        biased;
        () = control.wanted_to_stop() => Ok(()),
        why = stream.run(mirror, record, control) => Err(why),
        why = copy::run(shared, id) => Err(why),
        why = fill::run(shared, id) => Err(why),
        why = read_fill::run(shared, id) => Err(why),
        why = sampling::mirrored(shared, id) => Err(why),
        why = others::wait_for_one(shared, id) => {
            let is_of_neighbour = shared.facts.borrow()[id.index()].names_neighbours;
            if !is_of_neighbour && shared.rules(id).data == DataMode::Mirrored {
                record.become_unknown(&why);
            }
            // A primary goes on as without a mirror: what we write is recorded, and `divergence.source` says what else.
            Err(why)
        }
    };
    if ended.is_ok() {
        // What waits is confirmed in a round trip, as a rule; what is not, is recorded.
        let _ = tokio::time::timeout(DRAIN_MAX, stream.drain(mirror, record, control)).await;
    }
    ended
}

/// Whether everything that is sent from now on is mirrored, and no surviving copy says less than is so.
async fn opened(shared: &Rc<Shared>) -> Result<(), String> {
    if !publish(shared).await {
        return Err("the workers did not take up the new route in time".to_owned());
    }
    let told = shared.give_up_copy().await;
    told.map_err(|error| format!("the active could not be told that it is kept in step: {error}"))
}

async fn publish(shared: &Rc<Shared>) -> bool {
    let version = shared.republish().version;
    let began = Instant::now();
    while !shared.group.is_acknowledged(version) {
        if began.elapsed() > ROUTE_MAX {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

/// Makes content that nobody recorded right before it is mirrored to, where that is allowed.
async fn empty(shared: &Rc<Shared>, id: BackendId) -> Result<(), String> {
    let why = shared.group.record(id).summary().why;
    let facts = shared.facts.borrow()[id.index()].clone();
    match remedy(shared.rules(id), &facts, shared.divergence_policy, &why) {
        Remedy::Flush => {}
        Remedy::Trust => {
            shared.group.record(id).settle(State::Clean);
            return Ok(());
        }
        Remedy::Refuse(why) => return Err(why),
    }
    empty_to_fill(shared, id, &why).await
}

/// Why a backend is better emptied and filled than that each key which it has missed is copied; `None` if it is not.
fn has_missed_many(shared: &Rc<Shared>, id: BackendId) -> Option<String> {
    let (route, missed) = (shared.group.route(), shared.group.record(id).summary().keys);
    // A switch that waits for its keys goes on; and whoever serves, or is not filled, keeps what it has.
    if route.serves(id) || !shared.mirror_settings.fill || !shared.newest_is_done() {
        return None;
    }
    let facts = shared.facts.borrow();
    // What it has not missed and the active lacks would not come back: a cold backup holds what was written since.
    let others_max = facts[route.active.index()].keys_in_use;
    let (rules, facts) = (shared.rules(id), &facts[id.index()]);
    let is_better = is_better_emptied(rules, facts, shared.divergence_policy, missed, others_max);
    is_better
        .then(|| format!("it has missed {missed} keys, and more than {RECONCILE_KEYS_MAX} are not copied one by one"))
}

/// No planned switch goes there from here until it is filled; none is under way.
async fn empty_to_fill(shared: &Rc<Shared>, id: BackendId, why: &str) -> Result<(), String> {
    shared.mirror(id).empties.set(true);
    // Buried first: what a thawing server still executes must not come after it was emptied.
    let buried = async {
        entry::bury_the_undead(shared, id).await?;
        incident::bury_predecessors(shared, id).await
    };
    buried.await.map_err(|error| error.to_string())?;
    shared.facts.borrow_mut()[id.index()].emptying = true;
    let emptied = entry::empty(shared, id).await;
    shared.facts.borrow_mut()[id.index()].emptying = false;
    emptied?;
    *shared.mirror(id).fill.borrow_mut() = Fill::default();
    let name = &shared.rules(id).name;
    let message = format!("backend {name} was emptied to be kept in step from now on: {why}");
    shared.record(Entry::new(EventKind::Reconciled, message).backend(name.clone()));
    Ok(())
}

/// Milliseconds of the Unix epoch, for times of life.
fn wall_ms() -> u64 {
    crate::telemetry::wall_time::WallTime::now().as_ms()
}

fn now_us() -> u64 {
    clock::micros()
}
