//! Backends that the servers keep in step by themselves: the primary and those with `data = "replica"`.
//!
//! Here is known who follows whom and how far behind, what that means for entering one of them, and, with
//! `replica.promote`, who is told REPLICAOF: `promotion` makes a replica the master, `follow` has the others follow it.

mod carried;
mod follow;
mod look;
mod promotion;
mod tell;

use std::time::Duration;

pub(super) use self::carried::is_carried_over;
pub(super) use self::follow::Told;
pub(super) use self::look::{Asked, Replication};
pub(super) use self::promotion::{Other, Promoted, Promotion, expect_ready, hand_over, promote};
use super::api::ReplicationReport;
use super::facts::Facts;
use super::shared::Shared;
use crate::backend::{Address, Backend, clock};
use crate::command::Class;
use crate::config::{DataMode, DivergencePolicy};
use crate::policy::{BackendId, BackendRole, Lack, Look, Standing, Stream, Time};

/// What is known of the replication of a group's servers beside their [`Facts`].
pub(super) struct Servers {
    /// `replica.promote`.
    pub(super) promote: bool,
    /// By backend: its stream while it is a master.
    streams: Vec<Stream>,
    /// By backend: the stream that it was last seen to lead, unless it has served as a replica only.
    led: Vec<Option<String>>,
}

impl Servers {
    pub(super) fn new(promote: bool, backends: usize) -> Self {
        Self { promote, streams: vec![Stream::default(); backends], led: vec![None; backends] }
    }
}

/// Requests answered to clients that may have written: none of those that only read one key.
pub(super) fn writes_answered(backend: &Backend) -> u64 {
    let of_class = |counters: &crate::backend::Counters| {
        let all: u64 = counters.answered.iter().map(crate::backend::Counter::get).sum();
        all - counters.answered[Class::PointRead as usize].get()
    };
    backend.counters.iter().map(of_class).sum()
}

/// When the last reply to a client's request came from it.
pub(super) fn last_reply_us(backend: &Backend) -> u64 {
    backend.counters.iter().map(|counters| counters.last_progress_us.get()).max().unwrap_or(0)
}

impl Shared {
    pub(super) fn promotes(&self) -> bool {
        self.servers.borrow().promote
    }

    /// Whether a backend is one of the servers that replicate each other.
    pub(super) fn is_replicated(&self, id: BackendId) -> bool {
        self.rules(id).is_replicated
    }

    /// Whether what it holds is the affair of the servers' replication, and of no record.
    pub(super) fn content_is_replicated(&self, id: BackendId) -> bool {
        let rules = self.rules(id);
        rules.data == DataMode::Replica || rules.is_replicated && self.is_replica(id)
    }

    pub(super) fn is_replica(&self, id: BackendId) -> bool {
        self.facts.borrow()[id.index()].identity.as_ref().is_some_and(|identity| identity.is_replica)
    }

    /// Whether it was seen as a master, and what is known of it is no older than its last failed probe.
    fn is_master(&self, id: BackendId) -> bool {
        let facts = &self.facts.borrow()[id.index()];
        facts.identity.as_ref().is_some_and(|identity| !identity.is_replica)
    }

    /// Of another server that replicates with this one and is a master, as was last seen.
    pub(super) fn other_master(&self, than: BackendId) -> Option<BackendId> {
        let mut others = self.rules.iter().map(|rules| rules.id).filter(|id| *id != than && self.is_replicated(*id));
        others.find(|id| self.is_master(*id) && self.facts.borrow()[id.index()].last_error.is_none())
    }

    /// What one probe told.
    pub(super) fn note_replication(&self, id: BackendId, look: Option<&Replication>, asked: Asked) {
        let Some(look) = look else { return };
        self.note_leader(id, look);
        let facts = &mut self.facts.borrow_mut()[id.index()];
        let stream = &mut self.servers.borrow_mut().streams[id.index()];
        let is_new = facts.replication.as_ref().is_some_and(|before| before.id != look.id);
        if look.is_replica || is_new {
            stream.clear();
        }
        if !look.is_replica {
            let at = Time::from_micros(asked.at_us);
            stream.note(Look { at, offset: look.offset, writes: asked.writes });
        }
        facts.replication = Some(look.clone());
    }

    /// What a replica lacks of what `master` had acknowledged to clients until its last reply.
    pub(super) fn lack(&self, replica: &Replication, master: BackendId) -> Option<Lack> {
        let (taken, last_ok_us) = {
            let facts = &self.facts.borrow()[master.index()];
            (replica.taken_of(facts.replication.as_ref()?)?, facts.last_ok_us)
        };
        let backend = self.group.backend(master);
        // The age counts back from the fault, and the last that was heard may have been the answer to a probe.
        let until = Time::from_micros(last_reply_us(backend).max(last_ok_us));
        self.servers.borrow().streams[master.index()].lack(taken, until, writes_answered(backend))
    }

    /// Whether it may be entered, as far as it is one of the servers that replicate each other; `None` where that says
    /// nothing.
    pub(super) fn standing_of_replicated(&self, id: BackendId) -> Option<Standing> {
        let rules = self.rules(id);
        let facts = self.facts.borrow();
        let own = &facts[id.index()];
        let identity = own.identity.as_ref().filter(|identity| rules.is_replicated && !identity.is_cluster)?;
        let route = self.group.route();
        let serves = route.epoch > 0 && route.active != id;
        let active = self.rules(route.active);
        let refused = |why: String| Some(Standing::Refused { why });
        let trusts = self.divergence_policy == DivergencePolicy::Trust;
        if identity.is_replica {
            if rules.data != DataMode::Replica && !self.promotes() {
                return None;
            }
            if own.replication.as_ref().is_some_and(|look| look.is_syncing) {
                return refused("it is a replica that is taking over its master's content".to_owned());
            }
            if serves && !active.is_replicated && !active.is_embedded {
                let name = &active.name;
                return refused(format!("it is a replica, and backend {name} has served, which it does not follow"));
            }
            if serves && active.is_replicated && self.is_apart(&facts, id, route.active) && !trusts {
                let why = format!("it is a replica of another server than backend {}, which serves", active.name);
                return refused(why);
            }
            return Some(Standing::Enterable);
        }
        let is_apart = serves && active.is_replicated && self.is_apart(&facts, id, route.active);
        let by_replication = rules.data == DataMode::Replica || self.promotes();
        if by_replication && is_apart && !trusts {
            let why =
                format!("it is a master of its own beside {}, and nothing keeps its content in step", active.name);
            return refused(why);
        }
        (rules.data == DataMode::Replica).then_some(Standing::Enterable)
    }

    /// Whether the active is a master whose stream a server does not have: another one, or the one that it came from.
    fn is_apart(&self, facts: &[Facts], id: BackendId, active: BackendId) -> bool {
        let (own, active) = (&facts[id.index()], &facts[active.index()]);
        let active_is_master = active.identity.as_ref().is_some_and(|identity| !identity.is_replica);
        let continues = match (&own.replication, &active.replication) {
            (Some(own), Some(active)) => own.continues(active),
            // One that does not tell cannot be judged by it.
            _ => true,
        };
        active_is_master && !continues
    }

    /// Whether what keeps it from being entered ends without anybody's doing: it connects to its master, takes all over anew, or
    /// is to be pointed at the active.
    pub(super) fn replication_passes(&self, id: BackendId) -> bool {
        let is_on_its_way = {
            let facts = &self.facts.borrow()[id.index()];
            let joins = |look: &Replication| look.is_replica && (look.is_syncing || !look.link_is_up);
            facts.replication.as_ref().is_some_and(joins)
        };
        let active = self.group.route().active;
        is_on_its_way || self.is_replicated(id) && self.promotes() && self.should_follow(id, active)
    }

    /// Where other servers reach it, if they can.
    pub(super) fn replication_address(&self, id: BackendId) -> Option<(String, u16)> {
        let configured = self.rules(id).replication_address.clone();
        match &self.group.backend(id).target.address {
            _ if configured.is_some() => configured,
            Address::Tcp { host, port } => Some((host.clone(), *port)),
            Address::Unix(_) | Address::Embedded(_) => None,
        }
    }

    /// For the status; `None` for a backend that has nothing to do with replication.
    pub(super) fn replication_report(&self, id: BackendId) -> Option<ReplicationReport> {
        let facts = self.facts.borrow()[id.index()].clone();
        let look = facts.replication.filter(|_| self.is_replicated(id))?;
        let master = self.other_master(id).filter(|_| look.is_replica);
        let lack = master.and_then(|master| self.lack(&look, master));
        let servers = self.servers.borrow();
        let stream = master.unwrap_or(id);
        Some(ReplicationReport {
            role: if look.is_replica { "replica" } else { "master" }.into(),
            follows: look.master_text().filter(|_| look.is_replica),
            link_is_up: look.is_replica.then_some(look.link_is_up),
            is_syncing: look.is_syncing,
            silent_ms: look.last_io.map(|silent| silent.as_millis() as u64),
            offset: look.offset,
            behind_bytes: lack.map(|lack| lack.bytes),
            behind_ms: lack.map(|lack| lack.age.as_millis() as u64),
            behind_writes: lack.map(|lack| lack.writes),
            bytes_per_second: servers.streams[stream.index()].rate().map(|rate| rate.round() as u64),
            trouble: facts.replication_trouble,
        })
    }
}

/// Whether a backend of this configuration is one of the servers that replicate each other.
pub(super) fn is_replicated(role: BackendRole, data: DataMode, any_replica: bool) -> bool {
    data == DataMode::Replica || role == BackendRole::Primary && any_replica
}

/// How long ago something was, by our clock.
fn since_us(at_us: u64) -> Duration {
    Duration::from_micros(clock::micros().saturating_sub(at_us))
}
