//! Two backends serve at once, each a share of the keys: how that begins, how the share moves, and how it ends. Which key is
//! at home where is told by `divergence::Homes`; the plan above (`rollout`) decides when.
//!
//! It begins with one short hold, after which both are kept in step with each other and every request holds leases. From
//! then on shares move slot by slot, and nobody is held. A switch of the engine ends it like any other route.
//!
//! A Standin that dies meanwhile leaves a word on the active: for how many slots the newest values may lie elsewhere. The
//! next one removes the keys of those before it serves (`sweep`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::entry::{self, words};
use super::page::Page;
use super::shared::Shared;
use super::steps::{CATCH_UP_MAX, DOUBT_MAX, DRAIN_MAX, RECONCILE_LEFT, RECONCILE_MAX, acknowledged, drained};
use crate::backend::clock;
use crate::command::{SLOTS, slot_of};
use crate::divergence::{Homes, State};
use crate::policy::{BackendId, Standing};
use crate::route::{Availability, Split};
use crate::telemetry::events::{Event as Entry, EventKind};

/// So long may requests be held until everything under way is at rest; they are given up again otherwise.
const STILL_MAX: Duration = Duration::from_millis(100);
/// So long may it take until the old side is kept in step as well.
const MIRROR_MAX: Duration = Duration::from_secs(5);
/// A share that is to grow is as large as it gets after this; slots that are in use all the time follow later.
const GROW_MAX: Duration = Duration::from_secs(5);
/// A share that is to go back to nothing is withdrawn otherwise after this.
const RETURN_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the slots, while a share moves and while it rests.
const MOVING_LOOK: Duration = Duration::from_millis(2);
const RESTING_LOOK: Duration = Duration::from_millis(20);
/// A slot that was needed on the other side in this time is not asked for, in milliseconds.
const BORROWED_MS: u32 = 100;
/// Keys of one step of SCAN, and between two attempts.
const SWEEP_COUNT: &str = "1000";
const SWEEP_PAUSE: Duration = Duration::from_millis(200);

/// What the group's futures know of it, all on one thread.
#[derive(Default)]
pub(super) struct Sharing {
    /// The other backend that serves, or is about to.
    pub(super) with: Cell<Option<BackendId>>,
    /// What the active was told last, in slots; 0 for nothing.
    pub(super) told: Cell<u16>,
    /// Tasks at work on it: a share is moved by one at a time, and not before the last is undone.
    busy: Cell<u32>,
    /// It is to end at once: whoever moves a share gives up.
    withdrawn: Cell<bool>,
    /// Requests are held for it: they are given what is wished when that is over.
    pub(super) holds: Cell<bool>,
    /// For how long requests were held, whatever came of it, and was not told yet.
    pub(super) held: Cell<Duration>,
}

impl Sharing {
    fn begin(&self) {
        self.busy.set(self.busy.get() + 1);
    }

    fn end(&self) {
        self.busy.set(self.busy.get() - 1);
    }

    pub(super) fn is_on(&self) -> bool {
        self.with.get().is_some()
    }

    /// Whether a backend is to be kept in step: all but the active, but only the two that share while they do.
    pub(super) fn keeps_in_step(&self, id: BackendId, active: BackendId) -> bool {
        match self.with.get() {
            None => id != active,
            Some(with) => id == active || id == with,
        }
    }

    /// Whose values a backend is given.
    pub(super) fn counterpart(&self, id: BackendId, active: BackendId) -> BackendId {
        self.with.get().filter(|_| id == active).unwrap_or(active)
    }
}

impl Shared {
    /// Moves the share of `to` to so many percent; 0 ends the sharing. Returns for how long requests were held.
    ///
    /// # Errors
    /// A sentence; the share is as it was, or was moved in part and can be asked for again.
    pub(super) async fn move_share(
        self: &Rc<Self>,
        from: BackendId,
        to: BackendId,
        percent: u8,
    ) -> Result<Duration, String> {
        if self.sharing.busy.get() > 0 {
            return Err("the share is being moved already".to_owned());
        }
        self.sharing.begin();
        let moved = self.move_share_to(from, to, percent).await;
        self.sharing.end();
        moved
    }

    async fn move_share_to(self: &Rc<Self>, from: BackendId, to: BackendId, percent: u8) -> Result<Duration, String> {
        self.expect_undisturbed(from)?;
        let moved = (u32::from(SLOTS) * u32::from(percent.min(100)) / 100) as u16;
        let mut held = Duration::ZERO;
        if self.group.route().split.is_none() {
            if moved == 0 {
                return Ok(held);
            }
            match self.begin_sharing(from, to).await {
                Ok(took) => held = took,
                Err(why) => {
                    self.end_sharing(from, to).await;
                    self.release_mirror(to);
                    return Err(why);
                }
            }
        }
        self.tell_share(from, moved.max(self.sharing.told.get())).await?;
        self.expect_undisturbed(from)?;
        let Some(split) = self.group.route().split.clone().filter(|split| split.to == to) else {
            return Err(disturbed());
        };
        let version = self.publish_split(Some(Arc::new(Split { to, moved, homes: Arc::clone(&split.homes) })));
        // Who acts by the share of before may still bring slots where they were.
        acknowledged(self, version, DOUBT_MAX).await?;
        let began = Instant::now();
        while self.settle_homes() > 0 {
            if moved > 0 && began.elapsed() > GROW_MAX {
                break;
            }
            if moved == 0 && began.elapsed() > RETURN_MAX {
                return Err(format!("some slots were in use all the time for {RETURN_MAX:?}"));
            }
            tokio::time::sleep(MOVING_LOOK).await;
            self.expect_undisturbed(from)?;
        }
        if moved == 0 {
            self.publish_split(None);
            self.end_sharing(from, to).await;
        }
        Ok(held)
    }

    /// Ends the sharing at once, because the other side is dead or cannot be waited for: what the active has missed is
    /// removed there.
    ///
    /// # Errors
    /// A sentence; both go on serving.
    pub(super) async fn withdraw_share(self: &Rc<Self>) -> Result<Duration, String> {
        self.sharing.withdrawn.set(true);
        while self.sharing.busy.get() > 0 {
            tokio::time::sleep(MOVING_LOOK).await;
        }
        self.sharing.withdrawn.set(false);
        self.sharing.begin();
        let withdrawn = self.withdraw().await;
        self.sharing.end();
        withdrawn
    }

    async fn withdraw(self: &Rc<Self>) -> Result<Duration, String> {
        let route = self.group.route();
        let Some(split) = &route.split else { return Ok(Duration::ZERO) };
        let (from, to) = (route.active, split.to);
        // Nobody waits for a server that does not answer: whether it is left is the engine's affair.
        let ping = self.ask(from, vec![words(&["PING"])], self.entry_timeout).await;
        ping.map_err(|error| format!("the old side does not answer: {error}"))?;
        self.expect_undisturbed(from)?;
        let hold = self.hold_for_share();
        let version = self.hold_in_doubt().version;
        let _ = acknowledged(self, version, DOUBT_MAX).await;
        self.stop_mirror(from).await;
        let removed = self.remove_missed(from).await;
        self.release_mirror(from);
        let ended = removed.and_then(|()| self.expect_held(from, hold));
        if ended.is_ok() {
            self.publish_split(None);
        }
        self.let_go_after_share(hold);
        ended?;
        let held = hold.began.elapsed();
        self.end_sharing(from, to).await;
        Ok(held)
    }

    /// From here on nobody else lets requests go.
    fn hold_for_share(&self) -> Hold {
        self.sharing.holds.set(true);
        Hold { began: Instant::now(), switches: self.switches_begun.get() }
    }

    /// Whether requests have been held all the time.
    fn expect_held(&self, active: BackendId, hold: Hold) -> Result<(), String> {
        let is_held = self.group.route().availability == Availability::Holding;
        if is_held && self.switches_begun.get() == hold.switches {
            self.expect_undisturbed(active)
        } else {
            Err(disturbed())
        }
    }

    fn let_go_after_share(&self, hold: Hold) {
        self.sharing.holds.set(false);
        self.sharing.held.set(self.sharing.held.get() + hold.began.elapsed());
        if self.newest_is_done() && self.group.route().availability == Availability::Holding {
            self.set_availability(self.wished.get());
        }
    }

    /// A switch has ended it: the route leads to one backend alone.
    pub(super) fn sharing_ended(self: &Rc<Self>, from: BackendId, with: Option<BackendId>) {
        let Some(to) = with else { return };
        let shared = Rc::clone(self);
        self.sharing.told.set(0);
        self.sharing.begin();
        tokio::task::spawn_local(async move {
            shared.end_sharing(from, to).await;
            shared.sharing.end();
        });
    }

    async fn begin_sharing(self: &Rc<Self>, from: BackendId, to: BackendId) -> Result<Duration, String> {
        entry::bury_the_undead(self, to).await.map_err(|error| error.to_string())?;
        let identity = entry::look(self, to).await.map_err(entry::Obstacle::why)?;
        if let Standing::Refused { why } = self.standing(to) {
            return Err(why);
        }
        if !self.mirror(to).is_on() || !self.mirror(to).is_filled(&self.mirror_settings) {
            return Err(entry::STILL_FILLING.to_owned());
        }
        if let Some(why) = self.sealed_in_use(to) {
            return Err(why);
        }
        self.expect_scans(from).await?;
        self.expect_undisturbed(from)?;
        self.group.backend(to).admit(Some(Arc::new(identity)));
        self.sharing.with.set(Some(to));
        for rules in self.rules.iter().filter(|rules| rules.id != from && rules.id != to) {
            // What it misses is recorded meanwhile.
            self.stop_mirror(rules.id).await;
            self.release_mirror(rules.id);
        }
        self.wait_until(MIRROR_MAX, "the old side could not be kept in step", || self.mirror(from).is_on()).await?;
        self.tell_share(from, 1).await?;
        for id in [from, to] {
            let left = || self.group.record(id).summary().keys + self.group.mirrors[id.index()].waiting().copying;
            let is_known = || self.group.record(id).state() != State::Unknown;
            let is_near = || is_known() && left() <= RECONCILE_LEFT;
            self.wait_until(RECONCILE_MAX, "what one side misses was not copied in time", is_near).await?;
            self.hurry_mirror(id);
        }
        self.expect_undisturbed(from)?;
        let hold = self.hold_for_share();
        let version = self.set_availability(Availability::Holding).version;
        let still = self.stand_still(version, from, to).await.and_then(|()| self.expect_held(from, hold));
        if still.is_ok() {
            for id in [from, to] {
                self.group.mirrors[id.index()].count_slots(true);
                self.group.record(id).count_slots(true);
            }
            self.publish_split(Some(Arc::new(Split { to, moved: 0, homes: Arc::new(Homes::default()) })));
        }
        self.let_go_after_share(hold);
        for id in [from, to] {
            self.release_mirror(id);
        }
        still?;
        self.keep_settling();
        Ok(hold.began.elapsed())
    }

    /// Nothing is under way, and both have everything.
    async fn stand_still(&self, version: u64, from: BackendId, to: BackendId) -> Result<(), String> {
        acknowledged(self, version, DRAIN_MAX).await?;
        // One that waits on purpose and could not be let go, or that was refused and is to be sent again, holds no lease.
        let waits = || self.group.backend(from).blocked() > 0 || self.group.repeating.load(Ordering::Acquire) > 0;
        self.wait_until(STILL_MAX, "some requests could not be brought to rest", || !waits()).await?;
        drained(self, &[from], STILL_MAX, || !self.newest_is_done()).await?;
        if waits() {
            return Err("some requests could not be brought to rest".to_owned());
        }
        for id in [from, to] {
            if !self.wait_in_step(id, CATCH_UP_MAX).await {
                return Err(format!("the last writes had not been confirmed after {CATCH_UP_MAX:?}"));
            }
        }
        self.expect_undisturbed(from)
    }

    /// Whatever was needed for it goes.
    async fn end_sharing(self: &Rc<Self>, from: BackendId, to: BackendId) {
        self.sharing.with.set(None);
        let version = self.republish().version;
        let _ = acknowledged(self, version, DOUBT_MAX).await;
        for id in [from, to] {
            self.group.mirrors[id.index()].count_slots(false);
            self.group.record(id).count_slots(false);
        }
        let active = self.group.route().active;
        if active == from && self.mirror(from).is_on() {
            self.stop_mirror(from).await;
            self.release_mirror(from);
        }
        if active == from {
            self.tell(from, vec![words(&["DEL", &self.mark_keys.mirror])]);
            self.forget_share(from);
        }
    }

    /// Tells the active that nothing lies elsewhere any more, until it has taken that down: else a successor would remove what
    /// is right.
    fn forget_share(self: &Rc<Self>, active: BackendId) {
        let shared = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let is_due = || !shared.sharing.is_on() && shared.group.route().active == active;
            while is_due() && shared.tell_share(active, 0).await.is_err() {
                tokio::time::sleep(SWEEP_PAUSE).await;
            }
        });
    }

    fn publish_split(&self, split: Option<Arc<Split>>) -> u64 {
        let route = self.group.route();
        let keeping = self.keeping(route.active);
        self.publisher.borrow_mut().split(split, route.availability, keeping).version
    }

    /// Brings slots to where their share is; returns how many are not there yet.
    fn settle_homes(&self) -> usize {
        let route = self.group.route();
        let Some(split) = &route.split else { return 0 };
        let now_ms = (clock::micros() / 1_000) as u32;
        split.homes.settle(&self.group.sides(&route, split), split.moved, now_ms, BORROWED_MS)
    }

    /// For as long as two serve.
    fn keep_settling(self: &Rc<Self>) {
        let shared = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while shared.group.route().split.is_some() {
                shared.settle_homes();
                tokio::time::sleep(RESTING_LOOK).await;
            }
        });
    }

    /// The active knows of how many slots the newest values may lie on the other side.
    async fn tell_share(&self, active: BackendId, slots: u16) -> Result<(), String> {
        let told = self.order(active, self.share_words(active, slots)).await;
        told.map_err(|why| format!("the active did not take down that a share moves: {why}"))?;
        self.sharing.told.set(slots);
        Ok(())
    }

    async fn remove_missed(self: &Rc<Self>, id: BackendId) -> Result<(), String> {
        entry::bury_the_undead(self, id).await.map_err(|error| error.to_string())?;
        let record = self.group.record(id);
        if record.state() == State::Unknown {
            // All that was ever at home elsewhere, then.
            let mut removed = 0;
            for database in self.group.databases_used() {
                sweep_database(self, id, database, self.sharing.told.get(), &mut removed).await?;
            }
            record.settle(State::Clean);
            return Ok(());
        }
        let route = self.group.route();
        record.forget(|key| route.home(key) == id);
        while !record.is_without_keys() {
            entry::remove_batch(self, id).await.map_err(entry::Obstacle::why)?;
        }
        Ok(())
    }

    async fn wait_until(&self, within: Duration, what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
        let began = Instant::now();
        while !is_so() {
            if began.elapsed() > within {
                return Err(format!("{what} ({within:?})"));
            }
            if !self.newest_is_done() || self.sharing.withdrawn.get() {
                return Err(disturbed());
            }
            tokio::time::sleep(MOVING_LOOK).await;
        }
        Ok(())
    }

    fn expect_undisturbed(&self, active: BackendId) -> Result<(), String> {
        let is_wanted = !self.sharing.withdrawn.get();
        let is_so = is_wanted && self.newest_is_done() && self.group.route().active == active;
        if is_so { Ok(()) } else { Err(disturbed()) }
    }

    /// A successor must be able to find the keys of a share, see [`sweep`].
    async fn expect_scans(&self, id: BackendId) -> Result<(), String> {
        let scan = vec![words(&["SCAN", "0", "COUNT", "1"])];
        let scanned = self.order(id, scan).await;
        scanned.map(|_| ()).map_err(|why| format!("the active does not let us SCAN: {why}"))
    }
}

/// Requests are held for a share since then.
#[derive(Clone, Copy)]
struct Hold {
    began: Instant,
    switches: u64,
}

fn disturbed() -> String {
    "another switch is under way, or was made meanwhile".to_owned()
}

/// An earlier run ended while another backend served too: the keys of the slots that may have been written there alone are
/// removed from this one before it serves. Tries until it is done, or another switch begins.
pub(super) async fn sweep(shared: &Rc<Shared>, id: BackendId) {
    let slots = {
        let facts = &shared.facts.borrow()[id.index()];
        facts.incident.as_ref().filter(|incident| incident.active == shared.rules(id).name).map_or(0, |it| it.shared)
    };
    if slots == 0 {
        return;
    }
    let began = Instant::now();
    let mut removed = 0;
    for database in shared.group.databases_used() {
        while let Err(why) = sweep_database(shared, id, database, slots, &mut removed).await {
            if !shared.newest_is_done() {
                return;
            }
            tracing::warn!(backend = shared.rules(id).name, why, "keys that may be old could not be removed yet");
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
    }
    let name = &shared.rules(id).name;
    let message = format!(
        "Standin ended while another backend served a share of the keys: {removed} keys of that share were removed from \
         backend {name} in {:.1?}",
        began.elapsed()
    );
    shared.record(Entry::new(EventKind::Reconciled, message).backend(name.clone()));
    let _ = shared.tell_share(id, 0).await;
}

async fn sweep_database(
    shared: &Rc<Shared>,
    id: BackendId,
    database: u32,
    slots: u16,
    removed: &mut usize,
) -> Result<(), String> {
    let on_server = shared.group.backend(id).database_on_server(database).to_string();
    let back_to = shared.facts.borrow()[id.index()].mark_database.to_string();
    let mut cursor = "0".to_owned();
    loop {
        let select = words(&["SELECT", &on_server]);
        let back = words(&["SELECT", &back_to]);
        let scan = vec![select.clone(), words(&["SCAN", &cursor, "COUNT", SWEEP_COUNT]), back.clone()];
        let replies = shared.order(id, scan).await?;
        let page = Page::read(&replies[1], &shared.own_prefix)?;
        let mut unlink = words(&["UNLINK"]);
        unlink.extend(page.keys.iter().filter(|key| slot_of(key) < slots).map(|key| key.to_vec()));
        if unlink.len() > 1 {
            *removed += unlink.len() - 1;
            shared.order(id, vec![select, unlink, back]).await?;
        }
        if page.is_last() {
            return Ok(());
        }
        cursor = String::from_utf8_lossy(page.next).into_owned();
    }
}
