//! What operators ask of a group: its status and statistics, orders to the engine, a backend taken as its own or given up.

use std::time::Instant;

use super::api::{self, CommandError, CommandOutcome, CommandReply, Note};
use super::facts;
use super::group::{GroupControl, GroupRequest};
use super::probe::ProbeCommand;
use super::shared::twin_text;
use crate::backend::clock;
use crate::policy::{Action, BackendId, DecisionKind, Event, OperatorCommand, Order, ProposalId, Roughly};
use crate::telemetry::events::{Event as Entry, EventKind};

impl GroupControl {
    pub(super) fn on_request(&mut self, request: GroupRequest) {
        match request {
            GroupRequest::Status(reply) => {
                let _ = reply.send(self.report());
            }
            GroupRequest::Statistics(reply) => {
                let _ = reply.send(self.statistics());
            }
            GroupRequest::Recording(event, reply) => {
                let _ = reply.send(self.recording(event));
            }
            GroupRequest::Order { order, note, reply } => match self.order(&order) {
                Ok(named) => self.command(&order, named, note, reply),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            GroupRequest::Own { backend, own, reply } => match self.backend_named(&backend) {
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
                Ok(id) => self.own(id, own, reply),
            },
        }
    }

    pub(super) fn backend_named(&self, name: &str) -> Result<BackendId, CommandError> {
        let found = self.shared.rules.iter().find(|rules| rules.name == name);
        found.map(|rules| rules.id).ok_or_else(|| CommandError::UnknownBackend {
            group: self.shared.group.name.clone(),
            name: name.to_owned(),
            known: self.shared.rules.iter().map(|rules| rules.name.clone()).collect(),
        })
    }

    /// The order with places instead of names.
    fn order(&self, order: &api::Order) -> Result<Order, CommandError> {
        let backend = |name: &String| self.backend_named(name);
        let proposal = |id: &Option<u64>| id.map(ProposalId);
        Ok(match order {
            api::Order::Failover { to } => Order::Failover { to: to.as_ref().map(backend).transpose()? },
            api::Order::Recover => Order::Recover,
            api::Order::Pin { backend: name, lasts } => Order::Pin { backend: backend(name)?, lasts: *lasts },
            api::Order::Unpin => Order::Unpin,
            api::Order::Drain { backend: name } => Order::Drain { backend: backend(name)? },
            api::Order::Exclude { backend: name } => Order::Exclude { backend: backend(name)? },
            api::Order::Include { backend: name } => Order::Include { backend: backend(name)? },
            api::Order::Confirm { proposal: id } => Order::Confirm { proposal: proposal(id) },
            api::Order::Reject { proposal: id } => Order::Decline { proposal: proposal(id) },
        })
    }

    /// Hands an order to the engine. Who gave it, and why, is in the history whatever becomes of it.
    fn command(&mut self, order: &api::Order, named: Order, note: Note, reply: CommandReply) {
        let reason = if note.reason.is_empty() { "no reason given".to_owned() } else { note.reason };
        let (who, reason) = if note.by.is_empty() {
            ("an operator".to_owned(), reason)
        } else {
            (note.by.clone(), format!("{reason} (by {})", note.by))
        };
        let words = format!("{who} asked for {}: {reason}", words(order));
        self.shared.record(Entry::new(EventKind::Operator, words));
        let command = OperatorCommand::new(named, reason);
        self.engine.handle(clock::now(), Event::Operator(command), &mut self.actions);
        let switch = self.actions.iter().find_map(|action| match action {
            Action::Switch(switch) => Some(switch.id.0),
            _ => None,
        });
        let answers = self.actions.iter().filter_map(|action| match action {
            Action::Record(decision) => Some((decision.kind, decision.why.clone())),
            _ => None,
        });
        let answers: Vec<_> = answers.collect();
        let answer = |kind| answers.iter().find(|(of, _)| *of == kind).map(|(_, why)| why.clone());
        let done = answer(DecisionKind::Commanded).or_else(|| answer(DecisionKind::ProposalEnded));
        if let Some(why) = answer(DecisionKind::Rejected) {
            let hint = "`standin status` shows each backend's health and what would mend it".to_owned();
            let _ = reply.send(Err(CommandError::Refused { why, hint }));
        } else if let Some(id) = switch {
            self.waiting.insert(id, (reply, Instant::now()));
        } else {
            let route = self.shared.group.route();
            let serves = || format!("backend {} serves already", self.shared.rules(route.active).name);
            let (result, message) = match done {
                Some(why) => ("done", why),
                None => ("nothing_to_do", answer(DecisionKind::Stayed).unwrap_or_else(serves)),
            };
            let _ = reply.send(Ok(CommandOutcome {
                group: self.shared.group.name.clone(),
                result: result.into(),
                message,
                from: None,
                to: Some(self.shared.rules(route.active).name.clone()),
                epoch: route.epoch,
                duration_us: 0,
            }));
        }
        self.act();
    }

    /// Takes or gives up the right to empty a backend.
    pub(super) fn own(&mut self, id: BackendId, own: bool, reply: CommandReply) {
        let rules = self.shared.rules(id).clone();
        let began = Instant::now();
        let epoch = self.shared.group.route().epoch;
        let refused = |why: String, hint: String| Err(CommandError::Refused { why, hint });
        let facts = self.shared.facts.borrow()[id.index()].clone();
        let answer = if own && rules.persistent {
            refused(
                format!("backend {} is configured as persistent", rules.name),
                "remove persistent = true first".to_owned(),
            )
        } else if own && let Some(twin) = self.shared.twin(id) {
            refused(format!("backend {}: {}", rules.name, twin_text(&twin)), facts::mend(&rules, &facts))
        } else if own && facts.identity.is_none() {
            refused(format!("backend {} has not been reached yet", rules.name), "try again when it is up".to_owned())
        } else {
            let generation = own.then(|| facts.generation.clone().unwrap_or_else(|| self.shared.new_generation()));
            match &generation {
                Some(generation) => self.shared.put_mark(id, generation.clone()),
                None => self.shared.drop_mark(id),
            }
            self.shared.facts.borrow_mut()[id.index()].generation = generation;
            let what = if own { "may be emptied from now on" } else { "is never emptied from now on" };
            let message = format!("backend {} {what}, by an operator's word", rules.name);
            self.shared.record(Entry::new(EventKind::Operator, message.clone()).backend(rules.name));
            Ok(CommandOutcome {
                group: self.shared.group.name.clone(),
                result: "done".into(),
                message,
                from: None,
                to: None,
                epoch,
                duration_us: began.elapsed().as_micros() as u64,
            })
        };
        let _ = reply.send(answer);
        let _ = self.shared.probers[id.index()].try_send(ProbeCommand::Now);
        self.update_standing(id);
    }
}

fn words(order: &api::Order) -> String {
    let numbered = |proposal: &Option<u64>| proposal.map_or("the proposal".to_owned(), |id| format!("proposal {id}"));
    match order {
        api::Order::Failover { to: Some(to) } => format!("a failover to {to}"),
        api::Order::Failover { to: None } => "a failover to the best backup".to_owned(),
        api::Order::Recover => "a recovery".to_owned(),
        api::Order::Pin { backend, lasts } => format!("a pin to {backend} for {}", Roughly(*lasts)),
        api::Order::Unpin => "the end of the pin".to_owned(),
        api::Order::Drain { backend } => format!("{backend} to be drained"),
        api::Order::Exclude { backend } => format!("{backend} to be excluded"),
        api::Order::Include { backend } => format!("{backend} to be included"),
        api::Order::Confirm { proposal } => format!("{} to be carried out", numbered(proposal)),
        api::Order::Reject { proposal } => format!("{} to be dropped", numbered(proposal)),
    }
}
