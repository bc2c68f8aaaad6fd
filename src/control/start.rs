//! The first opening of the doors: every backend has been looked at, and the one that served last serves again.

use std::rc::Rc;
use std::sync::Arc;

use super::facts::{Facts, Remedy, remedy};
use super::group::{GroupControl, Message};
use super::incident;
use super::marks::Incident;
use super::shares;
use crate::divergence::State;
use crate::policy::{BackendId, BackendRole, Edge, Event, Standing};
use crate::telemetry::events::{Event as Entry, EventKind};

/// What the marks of all backends say about who serves.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Its content is what was acknowledged last.
    Join(BackendId),
    /// The primary, once its content has been put right: others may have acknowledged writes since.
    Distrust(String),
    /// Somebody must be heard first.
    Wait,
}

impl GroupControl {
    /// Opens the doors once everybody has been looked at.
    pub(super) fn start_if_ready(&mut self) {
        let untouched = self.shared.group.route().epoch == 0 && self.shared.newest_switch.get() == 0;
        if self.started || !untouched {
            return;
        }
        let primary = self.primary();
        let verdict = match self.verdict() {
            Verdict::Join(id) if id == primary => self.verdict_on_replicated(primary),
            verdict => verdict,
        };
        match verdict {
            Verdict::Wait => {}
            Verdict::Join(id) => {
                if id == primary && matches!(self.shared.standing(id), Standing::Refused { .. }) {
                    return;
                }
                self.open(id);
            }
            Verdict::Distrust(why) => {
                self.started = true;
                self.doubt_others(BackendId(u8::MAX), &why);
                self.update_standing(primary);
                self.feed(Event::Edge { backend: primary, edge: Edge::IdentityChanged });
            }
        }
    }

    /// Whatever else holds keys may be stale.
    fn doubt_others(&self, than: BackendId, why: &str) {
        for rules in self.shared.rules.iter().filter(|rules| rules.id != than) {
            let record = self.shared.group.record(rules.id);
            if record.state() != State::Empty {
                record.become_unknown(why);
            }
        }
    }

    fn primary(&self) -> BackendId {
        let primary = self.shared.rules.iter().find(|rules| rules.role == BackendRole::Primary);
        primary.map_or(BackendId(0), |rules| rules.id)
    }

    fn verdict(&self) -> Verdict {
        let facts = self.shared.facts.borrow();
        let in_grace = self.born.elapsed() < self.shared.entry_timeout;
        if facts.iter().any(|facts| !facts.was_looked_at) {
            return Verdict::Wait;
        }
        let primary = self.primary();
        let newest = facts.iter().filter_map(|facts| facts.incident.as_ref()).max_by_key(|incident| incident.number);
        let Some(newest) = newest else {
            return if facts[primary.index()].met { Verdict::Join(primary) } else { Verdict::Wait };
        };
        let active = self.shared.rules.iter().find(|rules| rules.name == newest.active).map(|rules| rules.id);
        let served = active.map(|id| &facts[id.index()]);
        if active == Some(primary) {
            return self.verdict_on_primary(&facts[primary.index()], newest);
        }
        match (active, served) {
            (Some(id), Some(served)) if is_as_it_was(served, newest) => Verdict::Join(id),
            (Some(_), Some(served)) if !served.met && in_grace => Verdict::Wait,
            _ if !facts[primary.index()].met && in_grace => Verdict::Wait,
            _ => Verdict::Distrust(format!(
                "backend {} served last, and what it held then cannot be had any more",
                newest.active
            )),
        }
    }

    /// It served last. One that was restarted while nobody watched may have come back with less than it had
    /// acknowledged; but to refuse a primary that we may not empty would turn each reboot into an outage.
    fn verdict_on_primary(&self, facts: &Facts, newest: &Incident) -> Verdict {
        let primary = self.primary();
        if !facts.met {
            return Verdict::Wait;
        }
        let why = "it restarted while Standin did not run";
        let may_be_emptied =
            remedy(self.shared.rules(primary), facts, self.shared.divergence_policy, why) == Remedy::Flush;
        if !is_same_run(facts, newest) && facts.keys != Some(0) && may_be_emptied {
            return Verdict::Distrust(why.to_owned());
        }
        Verdict::Join(primary)
    }

    /// The primary may have been left while Standin did not run: then whoever was promoted serves.
    fn verdict_on_replicated(&self, primary: BackendId) -> Verdict {
        let was_left = self.shared.is_replicated(primary) && self.shared.is_replica(primary);
        match self.shared.other_master(primary) {
            Some(master) if was_left => Verdict::Join(master),
            _ => Verdict::Join(primary),
        }
    }

    /// Serves from a backend whose content is what was acknowledged last.
    fn open(&mut self, id: BackendId) {
        self.started = true;
        if id != self.primary() {
            self.feed(Event::Joined { backend: id });
            self.doubt_others(id, "another backend served when Standin ended");
        }
        let joins = id != self.primary();
        let shared = Rc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            let identity = shared.facts.borrow()[id.index()].identity.clone();
            if let Err(error) = incident::bury_predecessors(&shared, id).await {
                tracing::debug!(%error, "connections of an earlier run could not be looked for");
            }
            if joins && let Err(error) = shared.take_over_records(id).await {
                tracing::info!(%error, "what other backends have missed could not be read");
            }
            shares::sweep(&shared, id).await;
            incident::announce(&shared, id).await;
            let _ = shared.messages.send(Message::Opened(id, identity.map(Arc::new)));
        });
    }

    /// What [`Self::open`] had to say has been said.
    pub(super) fn on_opened(&mut self, id: BackendId, identity: Option<Arc<crate::backend::Identity>>) {
        if self.shared.group.route().epoch != 0 || self.shared.newest_switch.get() != 0 {
            return;
        }
        let present = self.shared.facts.borrow()[id.index()].identity.clone();
        let is_same = match (&identity, &present) {
            (Some(before), Some(now)) => before.same_content(now),
            _ => true,
        };
        if !is_same {
            return self.feed(Event::Edge { backend: id, edge: Edge::IdentityChanged });
        }
        self.shared.group.record(id).settle(State::Clean);
        self.shared.group.backend(id).admit(identity);
        let epoch = self.shared.enter(id).epoch;
        let name = self.shared.rules(id).name.clone();
        let message = if id == self.primary() {
            format!("serving on {} by backend {name}", self.listen)
        } else {
            format!("serving on {} by backend {name}, which served when Standin ended", self.listen)
        };
        self.shared.record(Entry::new(EventKind::Started, message).backend(name).epoch(epoch));
        for rules in self.shared.rules.clone() {
            self.update_standing(rules.id);
        }
    }
}

/// Whether a backend holds what it held when it served last.
fn is_as_it_was(facts: &Facts, newest: &Incident) -> bool {
    let own = facts.incident.as_ref().map(|incident| incident.number);
    facts.met && own == Some(newest.number) && is_same_run(facts, newest)
}

/// A server that does not say who it is cannot be told from a restarted one; then it is as before marks were kept.
fn is_same_run(facts: &Facts, newest: &Incident) -> bool {
    let run_id = facts.identity.as_ref().map_or("", |identity| identity.run_id.as_str());
    newest.run_id.is_empty() || run_id.is_empty() || newest.run_id == run_id
}
