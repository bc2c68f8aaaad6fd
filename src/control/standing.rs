//! What a look at a backend leads to: marks kept in place, cold backups kept empty, and
//! whether the backend could be entered now.

use std::rc::Rc;
use std::time::Duration;

use super::facts;
use super::group::{GroupControl, Message};
use super::marks::Marks;
use super::modules;
use super::probe::{ProbeCommand, Report};
use super::shared::is_earlier_generation;
use crate::backend::clock;
use crate::divergence::State;
use crate::policy::{BackendId, BackendRole, Edge, Event, ProbeOutcome, Standing};
use crate::telemetry::events::{Event as Entry, EventKind};

/// While the primary has not been entered for the first time, it is looked at this often.
const START_PROBE_PAUSE: Duration = Duration::from_millis(50);

impl GroupControl {
    pub(super) fn on_probe(&mut self, id: BackendId, report: Report) {
        let index = id.index();
        let restarted = report.identity.as_ref().is_some_and(|identity| self.shared.note_identity(id, identity));
        {
            let facts = &mut self.shared.facts.borrow_mut()[index];
            facts.last_error.clone_from(&report.error);
            if report.identity.is_some() {
                facts.mark_database = report.mark_database;
            }
        }
        if matches!(report.outcome, ProbeOutcome::Ok(_)) {
            let now = clock::micros();
            self.probe_progress_us[index] = now;
            self.shared.facts.borrow_mut()[index].last_ok_us = now;
            if let Some(keyspace) = &report.keyspace {
                self.shared.note_content(id, keyspace, &report.marks);
            }
            self.shared.note_replication(id, report.replication.as_ref(), report.asked);
            self.tend(id, &report.marks);
            self.tend_replication(id);
            self.shared.tend_own_name(id, &report.marks);
            self.learn_commands(id);
            self.shared.remind(id);
            if self.shared.group.route().active == id {
                self.unseal_active();
            }
        }
        self.shared.facts.borrow_mut()[index].was_looked_at = true;
        self.start_if_ready();
        self.update_standing(id);
        if restarted && self.started {
            // Also without a request that would find out: the active is entered anew at once.
            self.feed(Event::Edge { backend: id, edge: Edge::IdentityChanged });
        }
        if self.hopes_for(id, &report.outcome) {
            return;
        }
        self.feed(Event::Probe { backend: id, outcome: report.outcome });
    }

    /// Whether a primary that cannot be reached is given a little more time, because we have only just started: servers
    /// that start together with us are no outage. Until it serves for the first time it is asked more often.
    pub(super) fn hopes_for(&self, id: BackendId, outcome: &ProbeOutcome) -> bool {
        let (age, grace) = (self.born.elapsed(), self.shared.entry_timeout);
        let is_awaited = !self.started && self.shared.rules(id).role == BackendRole::Primary;
        if !is_awaited || age > grace * 2 || matches!(outcome, ProbeOutcome::Ok(_)) {
            return false;
        }
        let prober = self.shared.probers[id.index()].clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(START_PROBE_PAUSE).await;
            let _ = prober.try_send(ProbeCommand::Now);
        });
        matches!(outcome, ProbeOutcome::Failed(_)) && age < grace
    }

    /// Keeps ownership marks in place, and cold backups empty while they wait.
    pub(super) fn tend(&mut self, id: BackendId, marks: &Marks) {
        let mark = marks.generation.as_deref();
        let shared = Rc::clone(&self.shared);
        if shared.twin(id).is_some() {
            // Its marks and keys are seen to under the other name.
            return;
        }
        let rules = shared.rules(id).clone();
        let facts = shared.facts.borrow()[id.index()].clone();
        let is_active = shared.group.route().active == id;
        let is_replica = facts.identity.as_ref().is_some_and(|identity| identity.is_replica);
        if !facts.met {
            let is_ours = mark.is_some();
            let may_claim = facts.keys == Some(0) && !rules.persistent && !is_replica;
            let generation = mark.map(str::to_owned).or_else(|| may_claim.then(|| shared.new_generation()));
            if !is_ours && let Some(generation) = &generation {
                shared.put_mark(id, generation.clone());
            }
            let facts = &mut shared.facts.borrow_mut()[id.index()];
            facts.generation = generation;
            facts.met = true;
            if facts.has_record {
                // Known by the one that served last.
            } else if rules.role == BackendRole::Primary && !self.started {
                // What the primary holds when we first meet it is what the application knows.
                shared.group.record(id).settle(State::Clean);
            } else if facts.keys == Some(0) {
                shared.group.record(id).settle(State::Empty);
            } else if marks.mirror.is_some() {
                let why = "it was being kept in step when Standin ended, and nobody knows what it has missed since";
                shared.group.record(id).become_unknown(why);
            } else {
                shared.group.record(id).become_unknown("it held keys when it was first met");
            }
        } else if is_replica {
            // Its marks are those of its master.
            shared.facts.borrow_mut()[id.index()].generation = mark.map(str::to_owned);
            return;
        } else if let (Some(generation), None) = (&facts.generation, mark) {
            // A client's FLUSHALL takes the mark along; what it leaves is ours as before.
            shared.put_mark(id, generation.clone());
        } else if facts.generation.as_deref() == mark && mark.is_some() && !marks.owners.contains(&shared.group.name) {
            shared.put_mark(id, facts.generation.clone().unwrap_or_default());
        } else if let (Some(ours), Some(theirs)) = (&facts.generation, mark)
            && is_earlier_generation(theirs, ours)
        {
            // It came back with a content from before it was emptied last: old, but ours.
            shared.put_mark(id, ours.clone());
        } else if let (Some(ours), Some(theirs)) = (&facts.generation, mark)
            && ours != theirs
            && !facts.emptying
        {
            let message =
                format!("backend {}: another owner has put its mark there; it is never emptied from here", rules.name);
            shared.facts.borrow_mut()[id.index()].generation = None;
            shared.record(Entry::new(EventKind::NotEnterable, message).backend(rules.name.clone()));
        }
        let waits_cold = !is_active && rules.role == BackendRole::Backup && rules.data == crate::config::DataMode::Cold;
        let facts = shared.facts.borrow()[id.index()].clone();
        // Before the doors open it may turn out to be the one that served last.
        if waits_cold
            && shared.group.route().epoch > 0
            && facts.is_owned()
            && facts.keys_in_use > 0
            && !facts.emptying
            && !shared.is_spared(id)
            && shared.newest_is_done()
        {
            self.empty(id);
        }
    }

    /// Asks a server that we have not met before for the commands of its modules.
    pub(super) fn learn_commands(&self, id: BackendId) {
        let facts = &mut self.shared.facts.borrow_mut()[id.index()];
        let run_id = facts.identity.as_ref().map(|identity| identity.run_id.clone());
        if self.shared.rules(id).is_embedded || facts.asked_for_commands == run_id {
            return;
        }
        facts.asked_for_commands = run_id;
        tokio::task::spawn_local(modules::learn(Rc::clone(&self.shared), id));
    }

    pub(super) fn empty(&self, id: BackendId) {
        let shared = Rc::clone(&self.shared);
        shared.facts.borrow_mut()[id.index()].emptying = true;
        tokio::task::spawn_local(async move {
            let result = shared.empty_if_idle(id).await;
            let _ = shared.messages.send(Message::Emptied(id, result));
        });
    }

    pub(super) fn update_standing(&mut self, id: BackendId) {
        let twin = self.shared.twin(id);
        self.shared.facts.borrow_mut()[id.index()].twin = twin;
        let mut standing = self.shared.standing(id);
        let is_alone = self.shared.probers.len() == 1 && self.started;
        let is_refused = matches!(standing, Standing::Refused { .. });
        if is_alone && is_refused && self.shared.facts.borrow()[id.index()].is_mere_replica() {
            // Where nobody else could serve, REPLICAOF does not take away what the clients know: they see READONLY, as they
            // would without us, and can say REPLICAOF NO ONE.
            standing = Standing::Enterable;
        }
        let before = {
            let facts = &mut self.shared.facts.borrow_mut()[id.index()];
            facts.standing.replace(standing.clone())
        };
        if before.as_ref() == Some(&standing) {
            return;
        }
        let is_active = self.shared.group.route().active == id && self.started;
        let rules = self.shared.rules(id);
        let facts = self.shared.facts.borrow()[id.index()].clone();
        match &standing {
            // It passes by itself, or is about to be made to follow: no news.
            Standing::Refused { .. } if !is_active && self.shared.replication_passes(id) => {}
            Standing::Refused { why } if !is_active || before.is_some() => {
                let mend = facts::mend(rules, &facts);
                let message =
                    format!("backend {} cannot be entered as things stand: {why}. To mend it: {mend}", rules.name);
                self.shared.record(Entry::new(EventKind::NotEnterable, message).backend(rules.name.clone()));
            }
            Standing::Enterable if matches!(before, Some(Standing::Refused { .. })) => {
                let message = format!("backend {} can be entered again", rules.name);
                self.shared.record(Entry::new(EventKind::Enterable, message).backend(rules.name.clone()));
            }
            _ => {}
        }
        self.feed(Event::Standing { backend: id, standing });
    }
}
