//! Where a request goes while two backends serve (`divergence::Homes`), and the leases that it holds meanwhile.
//!
//! A request goes to the side where its keys are to be at home. One whose keys have their homes on both, a script, and all
//! that takes a connection of its own goes to the old side, which its slots are moved to for as long. One that reads all
//! keys waits until the old side has everything, and one that writes keys that it does not name ends the sharing.
//!
//! Leases are given back at the end of the turn in which the reply came, when the mirrors have been told of the write.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::modes::Watch;
use super::sending::Way;
use super::session::Session;
use super::special::Step;
use super::task::SessionTask;
use super::transaction::in_databases;
use crate::backend::{Entry, flag};
use crate::command::{self, Category, Class, Handling, KeyScope, Spec, slot_of};
use crate::divergence::{Lease, Reader, Side};
use crate::policy::BackendId;
use crate::route::{Route, Split};

/// Between two looks of a request that waits for its slots.
const LOOK: Duration = Duration::from_millis(1);
/// A request that reads all keys has waited for so long in vain when it begins to hold writes back.
const READER_PATIENCE_US: u64 = 5_000;

/// A request that may be sent.
pub(super) struct Admitted {
    pub(super) backend: BackendId,
    pub(super) lease: Option<Lease>,
}

/// What the next request waits for.
#[derive(Default)]
pub(super) struct Waiting {
    /// Since when, in microseconds since the origin; 0 while it does not.
    since_us: u64,
    reader: Option<Reader>,
    /// Slots that it has on the old side already: whoever waits for more wants that side, so that all of them get it.
    part: Option<Lease>,
}

/// What a request needs of the slots.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Slots(Vec<u16>),
    /// It reads whatever is there.
    Everything,
    /// It writes what nobody can name.
    End,
}

impl Need {
    fn of(spec: &Spec, request: &[u8]) -> Self {
        let mut slots = Vec::new();
        let scope = command::keys(spec, request, &mut |key| slots.push(slot_of(key)));
        let writes = spec.is_write() && spec.category(request) > Category::Read;
        match scope {
            KeyScope::None if command::reads_keyspace(spec) => Self::Everything,
            KeyScope::None => Self::Nothing,
            KeyScope::Keys => Self::Slots(slots),
            KeyScope::Database | KeyScope::Everything | KeyScope::Unknown if writes => Self::End,
            KeyScope::Database | KeyScope::Everything | KeyScope::Unknown => Self::Everything,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Everything, Self::Everything) => Self::Everything,
            (Self::Nothing, need) | (need, Self::Nothing) => need,
            // To read everything at the moment at which some keys are written, all would have to stand still.
            (Self::End | Self::Everything, _) | (_, Self::End | Self::Everything) => Self::End,
            (Self::Slots(mut slots), Self::Slots(more)) => {
                slots.extend(more);
                Self::Slots(slots)
            }
        }
    }
}

impl SessionTask {
    /// Which backend the next request goes to, and the leases that it needs there; `Err` when it must wait or was refused.
    pub(super) fn admit(&mut self, way: Way, spec: &'static Spec, request: &[u8]) -> Result<Admitted, Step> {
        self.try_admit(way, spec, request).ok_or_else(|| self.wait_for_home())
    }

    fn try_admit(&mut self, way: Way, spec: &'static Spec, request: &[u8]) -> Option<Admitted> {
        let context = Rc::clone(&self.session.context);
        let (active, _, facts) = context.route_facts();
        if !facts.is_split {
            self.state.home = Waiting::default();
            return Some(Admitted { backend: active, lease: None });
        }
        let route = context.route();
        let split = route.split.as_ref()?;
        if matches!(spec.handling, Handling::Watch | Handling::Exec) && self.watches_without_lease() {
            // It is about to be told that what it watches counts as changed.
            return None;
        }
        let need = self.need(spec, request);
        let need = match need {
            // A script may write more than it declares.
            Need::Slots(_) if spec.class == Class::Script && context.group.doubts_scripts() => {
                if spec.is_write() {
                    Need::End
                } else {
                    Need::Everything
                }
            }
            need => need,
        };
        let is_own = way == Way::Own || self.state.pinned.is_some();
        let keeps = is_own && (spec.handling == Handling::Watch || command::is_blocking(spec, request));
        // Cursors are of one server.
        let borrows = is_own || spec.class == Class::Script || spec.handling == Handling::Scan;
        let admitted = match need {
            Need::Nothing => Some(Admitted { backend: route.active, lease: None }),
            Need::End => {
                split.homes.ask_to_end(|| {
                    format!("{} came, and it cannot be told which keys it writes", spec.name.to_uppercase())
                });
                None
            }
            Need::Everything => self.admit_reader(&route, split),
            Need::Slots(slots) => {
                let is_held = split.homes.has_readers() && spec.is_write();
                self.admit_slots(&route, split, slots, Asked { borrows, keeps, is_held })
            }
        };
        if admitted.is_some() {
            self.state.home = Waiting::default();
        }
        admitted
    }

    /// What is queued between MULTI and EXEC touches nothing; EXEC touches all of it.
    fn need(&self, spec: &'static Spec, request: &[u8]) -> Need {
        match &self.state.transaction {
            Some(transaction) if spec.handling == Handling::Exec => match &transaction.log {
                None => Need::End,
                Some(log) => {
                    let all = in_databases(self.state.database(), log.iter().map(Vec::as_slice));
                    all.map(|(_, queued)| Need::of(command::of_request(queued), queued)).fold(Need::Nothing, Need::and)
                }
            },
            Some(_) => Need::Nothing,
            None => Need::of(spec, request),
        }
    }

    fn admit_slots(
        &mut self,
        route: &Route,
        split: &Arc<Split>,
        mut slots: Vec<u16>,
        asked: Asked,
    ) -> Option<Admitted> {
        slots.sort_unstable();
        slots.dedup();
        let context = Rc::clone(&self.session.context);
        let sides = context.group.sides(route, split);
        let are_of_next = slots.iter().all(|slot| *slot < split.moved);
        let has_any_of_next = slots.iter().any(|slot| *slot < split.moved);
        let goes_next = are_of_next && !asked.borrows;
        let leased =
            |side: Side, lease: Option<Lease>| Some(Admitted { backend: route.side(split, side), lease: Some(lease?) });
        if goes_next {
            let next = if asked.is_held { None } else { split.homes.lease(&sides, &slots, Side::Next, false) };
            // Where a slot is lent to the old side, its others go along.
            return leased(Side::Next, next)
                .or_else(|| leased(Side::Old, split.homes.lease(&sides, &slots, Side::Old, false)));
        }
        if has_any_of_next {
            split.homes.note_borrowed(&slots, (self.now_us / 1_000) as u32);
        }
        let part = self.state.home.part.take().filter(|part| part.is_of(&split.homes));
        let mut lease = part.unwrap_or_else(|| split.homes.empty_lease(Side::Old, asked.keeps));
        let mut has_all = true;
        for slot in slots {
            has_all &= lease.add(&sides, slot, true);
        }
        if has_all {
            return leased(Side::Old, Some(lease));
        }
        self.state.home.part = Some(lease);
        None
    }

    /// The old side must have everything; while it has not, and that lasts, writes on the next one wait.
    fn admit_reader(&mut self, route: &Route, split: &Arc<Split>) -> Option<Admitted> {
        let context = &self.session.context;
        let (mirror, record) = context.group.sides(route, split).old;
        let waiting = mirror.waiting();
        let is_open = mirror.is_open();
        if waiting.requests == 0 && waiting.copying == 0 && record.is_without_keys() && is_open {
            return Some(Admitted { backend: route.active, lease: None });
        }
        let home = &mut self.state.home;
        if !is_open {
            // To hold writes back would not help.
            home.reader = None;
            return None;
        }
        if home.since_us != 0 && self.now_us - home.since_us > READER_PATIENCE_US && home.reader.is_none() {
            home.reader = Some(split.homes.wait_as_reader());
        }
        None
    }

    fn wait_for_home(&mut self) -> Step {
        let home = &mut self.state.home;
        if home.since_us == 0 {
            home.since_us = self.now_us.max(1);
        }
        if self.now_us.saturating_sub(home.since_us) > self.request_timeout_us() {
            self.state.home = Waiting::default();
            return self.local_error(
                "TRYAGAIN the keys of this request are moving between two backends and did not come to rest in time; it \
                 was not sent",
            );
        }
        self.session.context.wait_for_home(&self.session);
        Step::Wait
    }

    /// A request is on its way: its slots stay where they are until it is answered, or for as long as the client watches.
    pub(super) fn hold(&mut self, spec: &Spec, seq: u32, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        if spec.handling == Handling::Watch && self.state.transaction.is_none() {
            if !self.state.watched.iter().any(|held| held.covers(&lease)) {
                self.state.watched.push(lease);
            }
        } else {
            self.session.leases.borrow_mut().push_back((seq, lease));
        }
    }

    /// What a client watched is let go when nothing is watched any more.
    pub(super) fn release_watched(&mut self) {
        if !self.state.watched.is_empty() && self.state.watch != Watch::Live {
            self.state.watched.clear();
        }
    }

    /// Whether a WATCH began before the slots of its keys could be held: it counts as broken.
    pub(super) fn watches_without_lease(&self) -> bool {
        if self.state.watch != Watch::Live {
            return false;
        }
        let route = self.session.context.route();
        let watched = &self.state.watched;
        let is_held = |split: &Arc<Split>| !watched.is_empty() && watched.iter().all(|lease| lease.is_of(&split.homes));
        route.split.as_ref().is_some_and(|split| !is_held(split))
    }

    /// Leases for requests that a new connection of the client's own is about to be given again; false when they must wait.
    pub(super) fn lease_again(&mut self, left: &[(Entry<Session>, Vec<u8>)]) -> bool {
        let context = Rc::clone(&self.session.context);
        let route = context.route();
        let Some(split) = &route.split else { return true };
        for (entry, bytes) in left.iter().filter(|(entry, _)| entry.flags & flag::QUEUED == 0) {
            let has_lease = |(seq, lease): &(u32, Lease)| *seq == entry.seq && lease.is_of(&split.homes);
            if self.session.leases.borrow().iter().any(has_lease) {
                continue;
            }
            match self.try_admit(Way::Own, command::of_request(bytes), bytes) {
                Some(admitted) => {
                    if let Some(lease) = admitted.lease {
                        let mut leases = self.session.leases.borrow_mut();
                        let at = leases.partition_point(|(seq, _)| (seq.wrapping_sub(entry.seq) as i32) < 0);
                        leases.insert(at, (entry.seq, lease));
                    }
                }
                None => {
                    self.state.home.since_us = self.state.home.since_us.max(1).max(self.state.orphaned_since_us);
                    return false;
                }
            }
        }
        true
    }
}

/// How slots are wanted.
#[derive(Clone, Copy)]
struct Asked {
    /// On the old side, wherever their share is.
    borrows: bool,
    /// For as long as the client likes.
    keeps: bool,
    /// A write that waits for those who read all keys, if it is to go to the next side.
    is_held: bool,
}

impl Session {
    /// Gives back what answered requests held.
    fn release_answered(&self) {
        let mut leases = self.leases.borrow_mut();
        while leases.front().is_some_and(|(seq, _)| self.output.has_left(*seq)) {
            leases.pop_front();
        }
    }
}

impl Context {
    /// Looks again soon whether the session's next request may be sent.
    fn wait_for_home(&self, session: &Session) {
        self.waiting_for_home.borrow_mut().push(session.clone());
    }

    /// Replies came to a session that holds leases: they are given back at the end of the turn.
    pub(super) fn note_answered(&self, session: &Session) {
        self.answered_with_leases.borrow_mut().push(session.clone());
    }

    /// Gives back what was held by requests that are answered, and by sessions that are no more.
    pub(super) fn release_leases(&self) {
        if self.answered_with_leases.borrow().is_empty() && self.leases_left.borrow().is_empty() {
            return;
        }
        for session in self.answered_with_leases.take() {
            session.release_answered();
        }
        self.leases_left.take();
        self.wake_those_waiting_for_home();
    }

    pub(super) fn wake_those_waiting_for_home(&self) {
        for session in self.waiting_for_home.take() {
            session.wake();
        }
    }

    /// Begins a task that runs while two backends serve.
    pub(super) fn look_at_homes(&self) {
        if self.looks_at_homes.replace(true) {
            return;
        }
        let myself = self.myself.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(context) = myself.upgrade() else { return };
                context.release_leases();
                context.wake_those_waiting_for_home();
                if !context.route_facts().2.is_split {
                    return context.looks_at_homes.set(false);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp;

    fn need(words: &str) -> Need {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        resp::encode_request(&mut request, &words);
        Need::of(command::of_request(&request), &request)
    }

    #[test]
    fn a_request_needs_the_slots_of_all_its_keys_read_or_written() {
        let slots = |keys: &[&str]| Need::Slots(keys.iter().map(|key| slot_of(key.as_bytes())).collect());
        for (words, keys) in [
            ("GET a", ["a"].as_slice()),
            ("MGET a b", &["a", "b"]),
            ("RENAME a b", &["a", "b"]),
            ("EVAL s 2 a b x", &["a", "b"]),
            ("BLPOP a b 1", &["a", "b"]),
            ("COPY a b DB 3", &["a", "b"]),
            ("XREAD STREAMS a b 0 0", &["a", "b"]),
        ] {
            assert_eq!(need(words), slots(keys), "{words}");
        }
    }

    #[test]
    fn what_names_no_keys_needs_nothing_everything_or_the_end() {
        for (words, expected) in [
            ("PING", Need::Nothing),
            ("PUBLISH c m", Need::Nothing),
            ("INFO", Need::Nothing),
            ("DBSIZE", Need::Everything),
            ("SCAN 0", Need::Everything),
            ("SORT a BY w_*", Need::Everything),
            ("FLUSHALL", Need::End),
            ("SWAPDB 0 1", Need::End),
            ("EVAL s 0", Need::End),
            ("EVAL_RO s 0", Need::Everything),
            ("SORT a BY w_* STORE b", Need::End),
        ] {
            assert_eq!(need(words), expected, "{words}");
        }
    }

    #[test]
    fn a_transaction_needs_what_all_of_it_needs() {
        let all = |words: &[&str]| words.iter().map(|words| need(words)).fold(Need::Nothing, Need::and);
        assert_eq!(all(&["PING", "SET a 1", "GET b"]), Need::Slots(vec![slot_of(b"a"), slot_of(b"b")]));
        assert_eq!(all(&["DBSIZE", "PING"]), Need::Everything);
        assert_eq!(all(&["DBSIZE", "SET a 1"]), Need::End);
        assert_eq!(all(&["SET a 1", "FLUSHDB"]), Need::End);
    }
}
