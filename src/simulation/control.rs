//! The control task's other half: carries out what the engine wants, as `control/group.rs` and `control/entry.rs` do.

use std::time::Duration;

use super::timeline::Entry;
use super::traffic::LinkState;
use super::world::{What, World};
use crate::policy::{
    Action, Availability, BackendId, Event, Plan, RolloutNews, Switch, SwitchId, SwitchKind, SwitchResult, Time,
};

/// A planned switch whose old active does not finish what is under way is given up after this.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// What is published and under way.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// The backend that the published route names, by its place.
    pub route: usize,
    pub under_way: Option<Switch>,
    pub began: Time,
    /// Answers to switches that the engine has not got yet.
    pub undelivered: usize,
    pub carried_out: u64,
    /// Begun switches that lead away from a backend, recoveries included.
    pub switches: u32,
    /// When each of them began.
    pub switched_at: Vec<Time>,
    pub decisions: u64,
    /// The next backend of the staged plan under way, and how many plans there were.
    pub staged: Option<BackendId>,
    pub plans: u64,
    /// The last attempt to enter that did not succeed: the backend and when.
    pub entry_failed: std::collections::BTreeMap<usize, Time>,
}

impl World {
    pub(super) fn carry_out(&mut self) {
        if self.actions.is_empty() {
            return;
        }
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Switch(switch) => self.begin_switch(switch),
                Action::Rollout { to, .. } => self.begin_stages(to),
                Action::Publish { availability } => self.publish(availability),
                Action::SetAllowance { backend, class, allowance } => {
                    self.traffic.allowances[backend.index()][class.index()] = allowance;
                }
                Action::ProbeNow { backend } => self.probe_now(backend.index()),
                // The summary of an outage whose decisions are in the timeline one by one.
                Action::Incident(_) => {}
                Action::Record(decision) => {
                    self.control.decisions += 1;
                    self.timeline.note(self.now, Entry::decided(&decision));
                }
            }
        }
    }

    fn publish(&mut self, availability: Availability) {
        self.advance();
        self.timeline.note(self.now, Entry::Published { availability });
        self.traffic.set_availability(self.now, availability);
        self.judge(|invariant, world| invariant.on_publish(world, availability));
    }

    fn begin_switch(&mut self, switch: Switch) {
        self.judge(|invariant, world| invariant.on_switch(world, &switch));
        self.timeline.note(self.now, Entry::switch(&switch));
        self.control.switches += u32::from(switch.kind != SwitchKind::Reentry);
        if switch.kind != SwitchKind::Reentry {
            self.control.switched_at.push(self.now);
        }
        if let Some(superseded) = self.control.under_way.replace(switch.clone()) {
            self.answer(superseded.id, SwitchResult::Failed { why: "superseded".into() });
            if self.control.staged == Some(superseded.to) {
                self.end_plan(false);
            }
        }
        self.control.began = self.now;
        let to = switch.to.index();
        let mut takes = self.scenario.control.entry.draw(&mut self.random);
        if !self.nodes[to].answers() {
            takes = self.entry_gives_up_after(to);
        } else {
            takes += self.nodes[to].busy_until - self.now;
            takes += self.nodes[to].rtt(&mut self.random) * 2;
        }
        // What can be refused or does not answer is found out before anybody waits.
        if is_drained(&switch) && self.nodes[to].answers() {
            self.advance();
            self.traffic.held_until = self.now + takes;
        }
        self.after(takes, What::SwitchEnds(Box::new(switch)));
    }

    pub(super) fn switch_ends(&mut self, switch: Switch) {
        if self.control.under_way.as_ref().map(|current| current.id) != Some(switch.id) {
            return;
        }
        self.advance();
        let from_is_stuck = !self.nodes[switch.from.index()].answers() && self.traffic.in_flight() > 0;
        let moves = is_drained(&switch);
        let gives_up_at = self.control.began + DRAIN_MAX;
        if moves && from_is_stuck && self.now < gives_up_at {
            self.traffic.held_until = gives_up_at;
            self.schedule(gives_up_at, What::SwitchEnds(Box::new(switch)));
            return;
        }
        let state = &self.nodes[switch.to.index()].state;
        let failed = |why: &str| SwitchResult::Failed { why: why.to_owned() };
        let result = if !self.nodes[switch.to.index()].answers() {
            failed("no answer")
        } else if state.wrong_password {
            failed("authentication refused")
        } else if state.loading {
            failed("LOADING")
        } else if state.refuses {
            SwitchResult::Refused { why: "foreign keys".into() }
        } else if state.readonly && self.nodes[switch.to.index()].data != crate::policy::DataMode::Replica {
            SwitchResult::Refused { why: "it is a replica".into() }
        } else if moves && from_is_stuck {
            failed(&format!("requests were still under way after {DRAIN_MAX:?}"))
        } else if self.random.chance(self.scenario.control.entry_failures) {
            failed("reconciling was interrupted")
        } else {
            SwitchResult::Done
        };
        self.timeline.note(self.now, Entry::SwitchEnded { id: switch.id, result: result.clone() });
        self.traffic.held_until = self.now;
        self.control.under_way = None;
        let is_done = result == SwitchResult::Done;
        if is_done {
            let node = &mut self.nodes[switch.to.index()];
            node.identity_admitted = node.identity;
            self.route_to(switch.to.index());
        } else {
            self.control.entry_failed.insert(switch.to.index(), self.now);
        }
        self.answer(switch.id, result);
        let is_of_plan = self.control.staged == Some(switch.to);
        if is_of_plan || (is_done && switch.kind != SwitchKind::Reentry) {
            self.end_plan(is_done && is_of_plan);
        }
    }

    // --- staged plans, as `control/rollout.rs` leads through them; what they compare is not modelled ---

    fn begin_stages(&mut self, to: BackendId) {
        self.control.staged = Some(to);
        self.control.plans += 1;
        let takes = self.scenario.control.stages.map_or(Duration::ZERO, |stages| stages.draw(&mut self.random));
        self.after(takes, What::StagesEnd(self.control.plans));
    }

    pub(super) fn stages_end(&mut self, number: u64) {
        let Some(to) = self.control.staged.filter(|_| number == self.control.plans) else { return };
        let is_breach = !self.is_mending && self.random.chance(self.scenario.control.breaches);
        if is_breach || !self.nodes[to.index()].answers() {
            return self.end_plan(false);
        }
        self.tell(Event::Rollout(RolloutNews::Switch { to, why: "every share was served well".into() }));
    }

    /// The engine was asked for the switch of the plan. Where it has begun none, that is the end.
    pub(super) fn plan_was_heard(&mut self) {
        let has_begun = self.control.under_way.as_ref().is_some_and(|switch| Some(switch.to) == self.control.staged);
        if !has_begun {
            self.end_plan(false);
        }
    }

    fn end_plan(&mut self, well: bool) {
        if self.control.staged.take().is_some() {
            self.tell(Event::Rollout(RolloutNews::Ended { well, by_operator: false }));
        }
    }

    fn route_to(&mut self, to: usize) {
        self.control.carried_out += 1;
        self.control.route = to;
        if self.traffic.link.to == to {
            return;
        }
        self.traffic.lose_link(self.now, false);
        self.traffic.link.to = to;
        self.traffic.link.attempt = 0;
        self.traffic.link.state = LinkState::Absent;
        if self.traffic.rate > 0.0 {
            self.connect_after(Duration::ZERO);
        }
    }

    fn answer(&mut self, id: SwitchId, result: SwitchResult) {
        self.control.undelivered += 1;
        self.tell(Event::SwitchDone { id, result });
    }
}

/// Whether requests are held until those under way are answered.
fn is_drained(switch: &Switch) -> bool {
    switch.planned && switch.from != switch.to && switch.plan == Plan::Drain
}
