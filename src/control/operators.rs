//! What operators ask of a group: its status and statistics, orders to the engine, a backend taken as its own or given up.

use std::time::Instant;

use super::api::{self, CommandError, CommandOutcome, CommandReply, How, Note, PlanOrder};
use super::group::{GroupControl, GroupRequest};
use super::probe::ProbeCommand;
use super::rollout::Word;
use super::shared::twin_text;
use super::steps::Wanted;
use super::{entry, facts};
use crate::backend::clock;
use crate::policy::{
    Action, BackendId, DecisionKind, Engine, Event, OperatorCommand, Order, Plan, ProposalId, Roughly, Step, Switch,
};
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
            GroupRequest::Order { order, how, note, reply } => match self.order(&order) {
                Ok(named) => self.command(&order, self.chosen_for_plan(named, how), how, note, reply),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            GroupRequest::Plan { order, note, reply } => {
                let answer = self.order_of_plan(order, note);
                let _ = reply.send(answer);
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
    fn command(&mut self, order: &api::Order, named: Order, how: How, note: Note, reply: CommandReply) {
        if let Some(error) = self.against_plan(&named, how) {
            let _ = reply.send(Err(error));
            return;
        }
        if how.dry_run {
            let _ = reply.send(self.dry_run(named, how));
            return;
        }
        let reason = if note.reason.is_empty() { "no reason given".to_owned() } else { note.reason };
        let (who, reason) = if note.by.is_empty() {
            ("an operator".to_owned(), reason)
        } else {
            (note.by.clone(), format!("{reason} (by {})", note.by))
        };
        let by_plan = how.plan.map(|plan| format!(" by plan {plan}")).unwrap_or_default();
        let words = format!("{who} asked for {}{by_plan}: {reason}", words(order));
        self.shared.record(Entry::new(EventKind::Operator, words));
        let command = OperatorCommand::new(named, reason).by(how.plan);
        self.engine.handle(clock::now(), Event::Operator(command), &mut self.actions);
        self.keeper.hurry();
        match Answer::of(&self.actions) {
            Answer::Refused(why) => {
                let _ = reply.send(Err(refused(why)));
            }
            Answer::Switch(switch) => {
                self.waiting.insert(switch.id.0, (reply, Instant::now()));
            }
            Answer::Rollout { plan, sides } => {
                let _ = reply.send(Ok(self.plan_outcome("begun", plan, sides, self.dwell(how))));
            }
            Answer::Done(result, message) => {
                let _ = reply.send(Ok(self.nothing_switched(result, message)));
            }
        }
        self.dwell_wished = how.dwell;
        self.act();
        self.dwell_wished = None;
    }

    /// What an order would come to now, found out with a copy of the engine.
    fn dry_run(&self, named: Order, how: How) -> Result<CommandOutcome, CommandError> {
        let mut engine = Engine::clone(&self.engine);
        let mut actions = Vec::new();
        let command = OperatorCommand::new(named, "dry run").by(how.plan);
        engine.handle(clock::now(), Event::Operator(command), &mut actions);
        let switch = match Answer::of(&actions) {
            Answer::Refused(why) => return Err(refused(why)),
            Answer::Done(_, message) => return Ok(self.nothing_switched("nothing_to_do", message)),
            Answer::Rollout { plan, sides } => {
                return Ok(self.plan_outcome("dry_run", plan, sides, self.dwell(how)));
            }
            Answer::Switch(switch) => switch,
        };
        let wanted = Wanted::from(&switch);
        let steps = self.shared.steps(&wanted);
        let (from, to) = (&self.shared.rules(switch.from).name, &self.shared.rules(switch.to).name);
        if steps.contains(&Step::Look)
            && let Err(obstacle) = entry::expect_in_step(&self.shared, switch.to)
        {
            let hint = self.mend(switch.to, entry::STILL_FILLING);
            return Err(CommandError::Refused {
                why: format!("backend {to} would not be entered: {}", obstacle.why()),
                hint,
            });
        }
        let how =
            if switch.planned { format!("by plan {}", switch.plan) } else { "at once, since it has failed".into() };
        let message = format!("backend {to} would serve instead of {from}, {how}");
        let outcome = self.nothing_switched("dry_run", Some(message));
        let steps = steps.iter().map(|step| format!("{}: {}", step.name(), self.shared.step_text(*step, &wanted)));
        Ok(CommandOutcome { from: Some(from.clone()), to: Some(to.clone()), steps: steps.collect(), ..outcome })
    }

    fn order_of_plan(&mut self, order: PlanOrder, note: Note) -> Result<CommandOutcome, CommandError> {
        let reason = if note.reason.is_empty() { "no reason given".to_owned() } else { note.reason };
        let reason = if note.by.is_empty() { reason } else { format!("{reason} (by {})", note.by) };
        match order {
            PlanOrder::Pause => self.word_of_plan(Word::Pause, reason),
            PlanOrder::Resume => self.word_of_plan(Word::Resume, reason),
            PlanOrder::Rollback => self.word_of_plan(Word::Rollback, reason),
        }
    }

    pub(super) fn nothing_switched(&self, result: &str, message: Option<String>) -> CommandOutcome {
        let route = self.shared.group.route();
        let active = self.shared.rules(route.active).name.clone();
        CommandOutcome {
            group: self.shared.group.name.clone(),
            result: result.to_owned().into(),
            message: message.unwrap_or_else(|| format!("backend {active} serves already")),
            from: None,
            to: Some(active),
            epoch: route.epoch,
            duration_us: 0,
            held_us: None,
            steps: Vec::new(),
        }
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
                held_us: None,
                steps: Vec::new(),
            })
        };
        let _ = reply.send(answer);
        let _ = self.shared.probers[id.index()].try_send(ProbeCommand::Now);
        self.update_standing(id);
    }
}

/// What the engine made of an order.
pub(super) enum Answer {
    Refused(String),
    /// A switch has begun.
    Switch(Switch),
    /// A staged plan has begun, from the one to the other.
    Rollout {
        plan: Plan,
        sides: (BackendId, BackendId),
    },
    /// The word for the result, and what there is to say.
    Done(&'static str, Option<String>),
}

impl Answer {
    pub(super) fn of(actions: &[Action]) -> Self {
        let why = |kind| {
            actions.iter().find_map(|action| match action {
                Action::Record(decision) if decision.kind == kind => Some(decision.why.clone()),
                _ => None,
            })
        };
        let switch = actions.iter().find_map(|action| match action {
            Action::Switch(switch) => Some(switch.clone()),
            _ => None,
        });
        let rollout = actions.iter().find_map(|action| match action {
            Action::Rollout { from, to, plan, .. } => Some((*plan, (*from, *to))),
            _ => None,
        });
        if let Some((plan, sides)) = rollout {
            return Self::Rollout { plan, sides };
        }
        let done = why(DecisionKind::Commanded).or_else(|| why(DecisionKind::ProposalEnded));
        match (why(DecisionKind::Rejected), switch, done) {
            (Some(why), ..) => Self::Refused(why),
            (_, Some(switch), _) => Self::Switch(switch),
            (.., Some(why)) => Self::Done("done", Some(why)),
            _ => Self::Done("nothing_to_do", why(DecisionKind::Stayed)),
        }
    }
}

fn refused(why: String) -> CommandError {
    CommandError::Refused {
        why,
        hint: "`standin status` shows each backend's health and what would mend it".to_owned(),
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
