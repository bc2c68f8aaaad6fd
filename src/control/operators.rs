//! What operators ask of a group: its status, a failover, a recovery, a backend taken as its own or given up.

use std::time::Instant;

use super::api::{CommandError, CommandOutcome, CommandReply};
use super::facts;
use super::group::{GroupControl, GroupRequest};
use super::probe::ProbeCommand;
use super::shared::twin_text;
use crate::backend::clock;
use crate::policy::{Action, BackendId, DecisionKind, Event, OperatorCommand, Order};
use crate::telemetry::events::{Event as Entry, EventKind};

impl GroupControl {
    pub(super) fn on_request(&mut self, request: GroupRequest) {
        match request {
            GroupRequest::Status(reply) => {
                let _ = reply.send(self.report());
            }
            GroupRequest::Failover { to, reason, reply } => {
                match to.map(|name| self.backend_named(&name)).transpose() {
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                    Ok(to) => self.command(OperatorCommand::new(Order::Failover { to }, reason), reply),
                }
            }
            GroupRequest::Recover { reason, reply } => {
                self.command(OperatorCommand::new(Order::Recover, reason), reply)
            }
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

    pub(super) fn command(&mut self, mut command: OperatorCommand, reply: CommandReply) {
        if command.reason.is_empty() {
            "no reason given".clone_into(&mut command.reason);
        }
        let words = format!("an operator asked: {:?}: {}", command.order, command.reason);
        self.shared.record(Entry::new(EventKind::Operator, words));
        self.engine.handle(clock::now(), Event::Operator(command), &mut self.actions);
        let switch = self.actions.iter().find_map(|action| match action {
            Action::Switch(switch) => Some(switch.id.0),
            _ => None,
        });
        let rejected = self.actions.iter().find_map(|action| match action {
            Action::Record(decision) if decision.kind == DecisionKind::Rejected => Some(decision.why.clone()),
            _ => None,
        });
        match (switch, rejected) {
            (Some(id), _) => {
                self.waiting.insert(id, (reply, Instant::now()));
            }
            (None, Some(why)) => {
                let hint = "`standin status` shows each backend's health and what would mend it".to_owned();
                let _ = reply.send(Err(CommandError::Refused { why, hint }));
            }
            (None, None) => {
                let route = self.shared.group.route();
                let _ = reply.send(Ok(CommandOutcome {
                    group: self.shared.group.name.clone(),
                    result: "nothing_to_do".into(),
                    message: format!("backend {} serves already", self.shared.rules(route.active).name),
                    from: None,
                    to: Some(self.shared.rules(route.active).name.clone()),
                    epoch: route.epoch,
                    duration_us: 0,
                }));
            }
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
