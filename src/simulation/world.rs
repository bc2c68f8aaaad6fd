//! The world: a queue of what happens next, by time; the real engine in the middle of it. Everything follows from one seed.
//!
//! Two clocks: the world's own, and ours, which a clock jump puts ahead. What is *ours* (ticks, probes, timers, the link)
//! does not happen while this process is stalled; what befalls the backends does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::control::Control;
use super::fault::{Fault, FaultPlan, Kind};
use super::invariants::{self, Court};
use super::node::Node;
use super::probing::{ProbeStep, Prober};
use super::random::Random;
use super::rivals::Rivals;
use super::scenario::{BackendPlan, Profile, Scenario};
use super::timeline::{Entry, Timeline};
use super::traffic::{LinkState, Traffic};
use crate::policy::{
    Action, BackendId, BackendSettings, Edge, Engine, Event, NotReadyWord, RolloutNews, Settings, Standing, Switch,
    Time,
};

/// News from another task reaches the control task within this.
const NEWS_DELAY_MAX: Duration = Duration::from_micros(300);
/// A tick that comes this much too late makes us suspect ourselves, as in `control`.
const LATE_TICK: Duration = Duration::from_millis(100);
/// Between two pauses of a backend something is answered.
const PAUSES_APART: Duration = Duration::from_secs(1);

pub(super) struct World {
    pub now: Time,
    pub engine: Engine,
    pub settings: Settings,
    pub scenario: Scenario,
    pub nodes: Vec<Node>,
    pub faults: Vec<Fault>,
    pub control: Control,
    pub traffic: Traffic,
    pub rivals: Rivals,
    pub timeline: Timeline,
    /// When the faults begin, and when they stop.
    pub faults_from: Time,
    pub faults_until: Time,
    pub timeouts_handled: u64,
    /// Whether the faults were stopped for good.
    pub is_mending: bool,
    pub(super) random: Random,
    pub(super) probers: Vec<Prober>,
    pub(super) actions: Vec<Action>,
    pub(super) blind_until: Time,
    court: Court,
    clock_ahead: Duration,
    jumped_while_blind: Duration,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    last_delivery: Time,
    fault_numbers: u64,
    numbered: Vec<u64>,
}

/// What happens at some moment.
#[derive(Debug)]
pub(super) enum What {
    FaultBegins(usize, u32),
    ChaosBegins(usize),
    FaultEnds(u64),
    FaultsStop,
    Pause(usize),
    /// We run again after a stall.
    Resume(Duration),
    Tick,
    Deliver(Box<Event>),
    Probe(usize, u64, ProbeStep),
    Connect(u64),
    ConnectEnds(u64, Connected),
    LinkDies(u64),
    StallCheck(u64),
    SwitchEnds(Box<Switch>),
    /// The staged plan with this number has come to its switch.
    StagesEnd(u64),
}

/// What an attempt to connect the link came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Connected {
    Yes,
    No(Edge),
}

#[derive(Debug)]
struct Scheduled {
    at: Time,
    sequence: u64,
    what: What,
}

impl World {
    pub(super) fn new(scenario: &Scenario, settings: &Settings, seed: u64, rate: f64) -> Self {
        let mut random = Random::new(seed);
        let settings = settings.clone();
        let is_staged = scenario.control.stages.is_some();
        let group = scenario.backends.iter().enumerate().map(|(place, plan)| BackendSettings {
            kept_in_step: is_staged && !plan.last_resort,
            ..backend_settings(place, plan)
        });
        let group = group.collect();
        let engine = Engine::new(settings.clone(), group, seed, Time::ZERO);
        let count = scenario.backends.len();
        let traffic_random = Random::new(random.bits());
        let traffic = Traffic::new(&scenario.load, rate, count, settings.timeout.floor, traffic_random);
        let faults_from = Time::ZERO + scenario.warm_up.0;
        let mut world = Self {
            now: Time::ZERO,
            engine,
            nodes: scenario.backends.iter().map(Node::new).collect(),
            faults: Vec::new(),
            control: Control::default(),
            traffic,
            rivals: Rivals::new(count),
            timeline: Timeline::default(),
            faults_from,
            faults_until: faults_from + scenario.duration.0,
            timeouts_handled: 0,
            is_mending: false,
            random,
            probers: (0..count).map(|_| Prober::default()).collect(),
            actions: Vec::new(),
            blind_until: Time::ZERO,
            court: Court::new(invariants::all(), &scenario.expect.except),
            clock_ahead: Duration::ZERO,
            jumped_while_blind: Duration::ZERO,
            queue: BinaryHeap::new(),
            sequence: 0,
            last_delivery: Time::ZERO,
            fault_numbers: 0,
            numbered: Vec::new(),
            settings,
            scenario: scenario.clone(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for id in 0..self.nodes.len() {
            let interval = self.probe_interval();
            let offset = self.random.between(Duration::ZERO, interval / 10);
            self.start_probe_after(id, offset);
            self.tell(Event::Standing { backend: name(id), standing: Standing::Enterable });
            self.schedule_pause(id);
        }
        if self.traffic.rate > 0.0 {
            self.connect_after(Duration::ZERO);
        }
        let tick = self.settings.timeout.tick;
        self.after(tick, What::Tick);
        let plans: Vec<FaultPlan> = self.scenario.faults.clone();
        for (number, plan) in plans.iter().enumerate() {
            let at = plan.at.draw(&mut self.random);
            self.schedule(self.faults_from + at, What::FaultBegins(number, plan.times));
        }
        if self.scenario.chaos.is_some() {
            for id in 0..self.nodes.len() {
                self.schedule_chaos(id, self.faults_from);
            }
        }
        self.schedule(self.faults_until, What::FaultsStop);
    }

    /// Runs to this moment; `false` once a broken invariant ended the world.
    pub(super) fn run_until(&mut self, end: Time) {
        loop {
            let next = self.queue.peek().map(|Reverse(next)| next.at);
            let timeout = self.engine.poll_timeout().map(|at| (at - self.clock_ahead).max(self.blind_until));
            let Some(due) = next.into_iter().chain(timeout).min().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            if timeout == Some(due) && next != timeout {
                self.timeouts_handled += 1;
                self.engine.handle_timeout(self.our_now(), &mut self.actions);
                self.carry_out();
            } else if let Some(Reverse(scheduled)) = self.queue.pop() {
                if scheduled.what.is_ours() && scheduled.at < self.blind_until {
                    self.schedule(self.blind_until, scheduled.what);
                    continue;
                }
                self.happen(scheduled.what);
            }
            self.judge(|invariant, world| invariant.after_event(world));
        }
        self.now = self.now.max(end);
    }

    /// The end: nothing is asked any more.
    pub(super) fn close(&mut self) {
        self.advance();
        self.traffic.clients.close(self.now);
        self.judge(|invariant, world| invariant.at_end(world));
    }

    pub(super) fn court(&self) -> &Court {
        &self.court
    }

    /// Whether this process does not run, or has only just begun to again.
    pub(super) fn is_blind(&self) -> bool {
        self.now < self.blind_until + Duration::from_secs(1) && self.blind_until > Time::ZERO
    }

    /// Whether the guards may keep the engine from a switch that can wait: the cool-down, which doubles with each switch, or
    /// the bound of an hour.
    pub(super) fn may_be_cooling(&self) -> bool {
        let failover = &self.settings.failover;
        let since = self.now - Duration::from_secs(3_600);
        let recent = self.control.switched_at.iter().rev().take_while(|at| **at >= since).count();
        let Some(last) = self.control.switched_at.last().filter(|_| recent > 0) else { return false };
        let cool_down = failover.cooldown.saturating_mul(1 << recent.min(20)).min(failover.cooldown_max);
        recent >= failover.max_per_hour as usize || self.now - *last < cool_down.max(failover.cooldown)
    }

    /// Whether the clients' link stands, where there are clients.
    pub(super) fn has_linked(&self) -> bool {
        self.traffic.rate == 0.0 || self.traffic.link.state == LinkState::Up
    }

    /// By our own clock.
    pub(super) fn our_now(&self) -> Time {
        self.now + self.clock_ahead
    }

    /// Draws the requests up to now. Before anything that they depend on changes.
    pub(super) fn advance(&mut self) {
        let (from, node) = (self.traffic.link.to, &self.nodes[self.traffic.link.to]);
        let arrived = self.traffic.advance(self.now, node, self.nodes.iter().any(Node::is_fit), self.blind_until);
        self.rivals.advance(self.now, arrived, &self.nodes);
        for edge in std::mem::take(&mut self.traffic.edges) {
            self.edge(from, edge);
        }
        let link = self.traffic.link;
        if link.state == LinkState::Absent && link.attempt == 0 && self.traffic.is_waited_for() {
            self.connect_after(Duration::ZERO);
        }
        if link.state == LinkState::Up
            && !link.stall_scheduled
            && let Some((since, allowance)) = self.traffic.head()
        {
            self.traffic.link.stall_scheduled = true;
            self.schedule((since + allowance).max(self.now), What::StallCheck(link.generation));
        }
    }

    pub(super) fn edge(&mut self, id: usize, edge: Edge) {
        self.tell(Event::Edge { backend: name(id), edge });
    }

    /// The engine hears of it a little later, in order.
    pub(super) fn tell(&mut self, event: Event) {
        let delay = self.random.between(Duration::ZERO, NEWS_DELAY_MAX);
        self.last_delivery = self.last_delivery.max(self.now + delay);
        self.schedule(self.last_delivery, What::Deliver(Box::new(event)));
    }

    pub(super) fn hand_to_engine(&mut self, event: Event) {
        self.engine.handle(self.our_now(), event, &mut self.actions);
        self.carry_out();
    }

    /// Asks every invariant, unless it was broken already.
    pub(super) fn judge(&mut self, ask: impl FnMut(&mut dyn invariants::Invariant, &Self) -> invariants::Verdict) {
        let mut court = std::mem::take(&mut self.court);
        if let Some(news) = court.hear(self, ask) {
            self.timeline.note(self.now, Entry::Broken(news));
        }
        self.court = court;
    }

    pub(super) fn after(&mut self, wait: Duration, what: What) {
        self.schedule(self.now + wait, what);
    }

    pub(super) fn schedule(&mut self, at: Time, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled { at, sequence: self.sequence, what }));
    }

    pub(super) fn probe_interval(&self) -> Duration {
        Duration::from_millis(if self.scenario.profile == Profile::Fast { 100 } else { 500 })
    }

    fn happen(&mut self, what: What) {
        match what {
            What::FaultBegins(number, left) => self.planned_fault(number, left),
            What::ChaosBegins(id) => self.chaotic_fault(id),
            What::FaultEnds(number) => self.fault_ends(number),
            What::FaultsStop => self.stop_faults(),
            What::Pause(id) => self.pause(id),
            What::Resume(late) => self.resume(late),
            What::Tick => self.tick(),
            What::Deliver(event) => self.deliver(*event),
            What::Probe(id, token, step) => self.probe_step(id, token, step),
            What::Connect(generation) => self.connect(generation),
            What::ConnectEnds(generation, outcome) => self.connect_ends(generation, outcome),
            What::LinkDies(generation) => self.link_dies(generation),
            What::StallCheck(generation) => self.stall_check(generation),
            What::SwitchEnds(switch) => self.switch_ends(*switch),
            What::StagesEnd(number) => self.stages_end(number),
        }
    }

    fn tick(&mut self) {
        self.advance();
        for id in 0..self.nodes.len() {
            self.collect(id);
        }
        let tick = self.settings.timeout.tick;
        self.after(tick, What::Tick);
    }

    fn collect(&mut self, id: usize) {
        let in_flight = if id == self.traffic.link.to { self.traffic.in_flight() } else { 0 };
        let window = self.traffic.counts[id].window(in_flight);
        self.timeline.stamp(window.requests ^ (window.latency[0].max_us().unwrap_or_default() << 20));
        self.hand_to_engine(Event::Window { backend: name(id), window });
    }

    fn deliver(&mut self, event: Event) {
        match &event {
            Event::Standing { backend, standing } => {
                let node = &mut self.nodes[backend.index()];
                node.standing_told = standing.clone();
                node.standing_at = self.now;
            }
            Event::SwitchDone { .. } => self.control.undelivered -= 1,
            Event::Edge { backend, edge: Edge::Stalled { .. } } => {
                let id = backend.index();
                self.advance();
                self.collect(id);
            }
            _ => {}
        }
        let is_of_plan = matches!(event, Event::Rollout(RolloutNews::Switch { .. }));
        self.hand_to_engine(event);
        if is_of_plan {
            self.plan_was_heard();
        }
    }

    fn schedule_pause(&mut self, id: usize) {
        if let Some(pauses) = self.nodes[id].pauses {
            // Two that follow each other at once would be one that is longer than the scenario says.
            let wait = self.random.exponential(pauses.every.0).max(PAUSES_APART);
            self.schedule(self.now.max(self.nodes[id].busy_until) + wait, What::Pause(id));
        }
    }

    fn pause(&mut self, id: usize) {
        if let Some(pauses) = self.nodes[id].pauses {
            let length = pauses.length.draw(&mut self.random);
            self.keep_busy(id, length);
        }
        self.schedule_pause(id);
    }

    /// Everything that it is asked is answered after this.
    pub(super) fn keep_busy(&mut self, id: usize, length: Duration) {
        self.advance();
        let until = self.now + length;
        let node = &mut self.nodes[id];
        if until > node.busy_until {
            if id == self.traffic.link.to {
                self.traffic.delay_all(self.now.max(node.busy_until), until);
            }
            node.busy_until = until;
        }
        self.delay_probe(id, until);
    }

    // --- ourselves ---

    pub(super) fn stall_ourselves(&mut self, late: Duration) {
        self.advance();
        let until = self.now + late;
        if until > self.blind_until {
            self.blind_until = until;
            self.traffic.delay_all(self.now, until);
            self.schedule(until, What::Resume(late));
        }
    }

    fn resume(&mut self, late: Duration) {
        let late = late + std::mem::take(&mut self.jumped_while_blind);
        if late > LATE_TICK {
            self.hand_to_engine(Event::TickStalled { late });
        }
        self.advance();
    }

    /// Our clock is ahead by this much at once, which we notice when we run: every timer of ours that falls into the gap is due now.
    pub(super) fn jump_clock(&mut self, ahead: Duration) {
        self.advance();
        let queue = std::mem::take(&mut self.queue);
        for Reverse(mut scheduled) in queue.into_sorted_vec().into_iter().rev() {
            if scheduled.what.is_timer() {
                scheduled.at = (scheduled.at - ahead).max(self.now);
            }
            self.queue.push(Reverse(scheduled));
        }
        self.traffic.clock_jumped(ahead);
        self.clock_ahead += ahead;
        if self.now < self.blind_until {
            self.jumped_while_blind += ahead;
        } else if ahead > LATE_TICK {
            self.hand_to_engine(Event::TickStalled { late: ahead });
        }
    }

    // --- faults ---

    fn planned_fault(&mut self, number: usize, left: u32) {
        let plan = self.scenario.faults[number].clone();
        let on = self.chosen(&plan);
        let length = plan.length.map(|length| length.draw(&mut self.random));
        self.fault_begins(&plan, on, length);
        if left > 1
            && let Some(every) = plan.every
        {
            let wait = length.unwrap_or_default() + every.draw(&mut self.random);
            if self.now + wait < self.faults_until {
                self.after(wait, What::FaultBegins(number, left - 1));
            }
        }
    }

    fn chaotic_fault(&mut self, id: usize) {
        let Some(chaos) = self.scenario.chaos.clone() else { return };
        let length = chaos.length.draw(&mut self.random);
        if self.now + length < self.faults_until {
            let place = self.random.below(chaos.kinds.len() as u64) as usize;
            let busy = chaos.alone && !self.faults.is_empty();
            if !busy {
                self.fault_begins(&chaos.kinds[place], vec![id], Some(length));
            }
            self.schedule_chaos(id, self.now + length);
        }
    }

    fn schedule_chaos(&mut self, id: usize, from: Time) {
        let Some(chaos) = &self.scenario.chaos else { return };
        let length = (chaos.length.low + chaos.length.high) / 2;
        let mean = length.mul_f64((1.0 - chaos.share) / chaos.share.max(1e-6));
        let wait = self.random.exponential(mean);
        self.schedule(from + wait, What::ChaosBegins(id));
    }

    fn fault_begins(&mut self, plan: &FaultPlan, on: Vec<usize>, length: Option<Duration>) {
        self.advance();
        let length = length.unwrap_or(self.faults_until - self.now);
        let forgiven = self.forgiven();
        let hits_all = on.len() == self.nodes.len();
        let add = plan.add.map_or(Duration::ZERO, |add| add.draw(&mut self.random));
        let is_reason = plan.is_reason_to_leave(length, forgiven, hits_all);
        let sides = plan.sides(self.nodes.iter().map(|node| node.name.as_str()));
        let fault = Fault { plan: plan.clone(), on, add, sides, length, is_reason };
        let names: Vec<&str> = fault.on.iter().map(|id| self.nodes[*id].name.as_str()).collect();
        self.timeline.note(self.now, Entry::FaultBegan { what: fault.to_string(), on: names.join(", ") });
        // Invariants see the world before the fault: who was fit, who served.
        self.judge(|invariant, world| invariant.before_fault(world, &fault));
        match plan.kind {
            Kind::OwnStall => self.stall_ourselves(length),
            Kind::ClockJump => self.jump_clock(length),
            Kind::LinkLost => {
                for id in fault.on {
                    self.cut_link(id);
                }
            }
            Kind::SlowCommand => {
                for id in fault.on {
                    self.traffic.counts[id].slow_until = Some(self.our_now() + self.settings.timeout.slow);
                    self.keep_busy(id, length);
                    // Cleared by the next reply; here by the end of the command.
                    self.number_fault(plan, id, length);
                }
            }
            _ => {
                self.faults.push(fault);
                self.fault_numbers += 1;
                self.numbered.push(self.fault_numbers);
                self.after(length, What::FaultEnds(self.fault_numbers));
                self.settle_all();
            }
        }
    }

    /// Remembers a slow command until its end.
    fn number_fault(&mut self, plan: &FaultPlan, id: usize, length: Duration) {
        let fault = Fault {
            plan: plan.clone(),
            on: vec![id],
            add: Duration::ZERO,
            sides: Vec::new(),
            length,
            is_reason: false,
        };
        self.faults.push(fault);
        self.fault_numbers += 1;
        self.numbered.push(self.fault_numbers);
        self.after(length, What::FaultEnds(self.fault_numbers));
        self.settle_all();
    }

    fn fault_ends(&mut self, number: u64) {
        let Some(place) = self.numbered.iter().position(|other| *other == number) else { return };
        self.advance();
        self.numbered.remove(place);
        let fault = self.faults.remove(place);
        let names: Vec<&str> = fault.on.iter().map(|id| self.nodes[*id].name.as_str()).collect();
        self.timeline.note(self.now, Entry::FaultEnded { what: fault.plan.kind.to_string(), on: names.join(", ") });
        if fault.plan.kind == Kind::SlowCommand {
            for id in &fault.on {
                self.traffic.counts[*id].slow_until = None;
                if self.nodes[*id].answers() {
                    self.traffic.counts[*id].slow_command(fault.length);
                    self.traffic.heard(*id, self.now);
                }
            }
        }
        self.settle_all();
        self.judge(|invariant, world| invariant.after_mending(world, &fault));
    }

    fn stop_faults(&mut self) {
        self.is_mending = true;
        while let Some(number) = self.numbered.first().copied() {
            self.fault_ends(number);
        }
        let pauses = self.nodes.iter_mut().map(|node| &mut node.pauses);
        pauses.for_each(|pauses| *pauses = None);
    }

    /// Pauses up to this must be sat out: `timeout.floor` is above it by what news may be late.
    pub(super) fn forgiven(&self) -> Duration {
        Duration::from_millis(if self.settings.timeout.floor < Duration::from_millis(500) { 150 } else { 500 })
    }

    fn settle_all(&mut self) {
        for id in 0..self.nodes.len() {
            let before = self.nodes[id].settle(id, &self.faults, self.now);
            if before != self.nodes[id].state {
                self.node_changed(id, &before);
            }
        }
    }

    fn chosen(&mut self, plan: &FaultPlan) -> Vec<usize> {
        if plan.kind == Kind::Partition {
            let names = self.nodes.iter().map(|node| node.name.as_str());
            return plan.cut_from_us(names);
        }
        let mut chosen: Vec<usize> = Vec::new();
        for name in plan.names() {
            match name {
                "active" => chosen.push(self.control.route),
                "all" => chosen.extend(0..self.nodes.len()),
                "backups" => chosen.extend(1..self.nodes.len()),
                "any" => chosen.push(self.random.below(self.nodes.len() as u64) as usize),
                name => chosen.extend(self.nodes.iter().position(|node| node.name == name)),
            }
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// A refused handshake's reason, if the server would not let us in.
    pub(super) fn refusal(&self, id: usize) -> Option<Edge> {
        let state = &self.nodes[id].state;
        if state.wrong_password {
            Some(Edge::AuthenticationFailed)
        } else if state.loading {
            Some(Edge::NotReady(NotReadyWord::Loading))
        } else {
            None
        }
    }

    /// Every handshake, also a probe's, reads the identity first. Divergence looks at a restarted backend and finds it
    /// empty, or knows that it must not be entered.
    pub(super) fn identify(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        if node.identity == node.identity_seen {
            return;
        }
        node.identity_seen = node.identity;
        self.edge(id, Edge::IdentityChanged);
        self.tell_standing(id);
    }

    pub(super) fn tell_standing(&mut self, id: usize) {
        let refuses = self.nodes[id].state.refuses;
        let standing = if refuses { Standing::Refused { why: "foreign keys".into() } } else { Standing::Enterable };
        self.tell(Event::Standing { backend: name(id), standing });
    }
}

impl What {
    /// Whether it is this process that does or notices it.
    fn is_ours(&self) -> bool {
        !matches!(
            self,
            Self::FaultBegins(..)
                | Self::ChaosBegins(_)
                | Self::FaultEnds(_)
                | Self::FaultsStop
                | Self::Pause(_)
                | Self::Resume(_)
        )
    }

    /// Whether it waits for our clock, not for somebody's answer.
    fn is_timer(&self) -> bool {
        match self {
            Self::Tick | Self::StallCheck(_) | Self::LinkDies(_) | Self::Connect(_) => true,
            Self::Probe(_, _, step) => step.is_timer(),
            Self::ConnectEnds(_, outcome) => {
                matches!(outcome, Connected::No(Edge::ConnectTimedOut | Edge::HandshakeTimedOut))
            }
            _ => false,
        }
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

pub(super) fn name(id: usize) -> BackendId {
    BackendId(id as u8)
}

fn backend_settings(place: usize, plan: &BackendPlan) -> BackendSettings {
    let mut settings = BackendSettings::new(name(place), &plan.name, BackendPlan::role(place));
    settings.weight = plan.weight;
    settings.zone.clone_from(&plan.zone);
    settings.data = plan.data;
    settings.last_resort = plan.last_resort;
    settings
}
