//! The clients' requests and the link that carries them to the active. Between two moments at which something changes,
//! nothing does: so requests are drawn in groups for each such span, and 50,000 a second cost as much as 500.

use std::time::Duration;

use super::measure::Clients;
use super::node::Node;
use super::random::Random;
use super::scenario::LoadPlan;
use super::signals::Counts;
use crate::policy::{Availability, BackendId, CommandClass, Edge, NotReadyWord, Time};

/// `timeout.request`: a request without a reply fails.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// A write takes a little longer than a read, MGET and the like thrice as long.
const FACTORS: [f64; CommandClass::COUNT] = [1.0, 1.1, 3.0, 50.0];
/// `retry.budget_percent` and `retry.budget_floor_per_second`.
const RETRY_SHARE: f64 = 0.1;
const RETRY_FLOOR: f64 = 10.0;
/// A request that was answered with an error is sent again after about this long, by `retry.backoff_min`.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// Groups that are drawn for the requests of one stratum when a share of them meets jitter.
const PARTS: u64 = 4;

pub(super) struct Traffic {
    pub rate: f64,
    /// Shares of the classes; the rest are point reads.
    writes: f64,
    multi_key: f64,
    accumulating: f64,
    data_errors: f64,
    random: Random,
    /// Requests were drawn up to here.
    until: Time,
    pub link: Link,
    groups: Vec<Group>,
    pub counts: Vec<Counts>,
    pub clients: Clients,
    pub availability: Availability,
    nobody_since: Option<Time>,
    /// A planned switch holds new requests until then.
    pub held_until: Time,
    /// Told by the engine, by backend and class.
    pub allowances: Vec<[Duration; CommandClass::COUNT]>,
    retries: f64,
    /// Our clock is ahead of the world's by this.
    clock_ahead: Duration,
    /// Sudden news of this span.
    pub edges: Vec<Edge>,
}

/// The multiplexed connection to the active.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub to: usize,
    pub state: LinkState,
    /// Grows with each connection, so that what was scheduled for an earlier one is known to be stale.
    pub generation: u64,
    pub attempt: u32,
    pub last_progress: Time,
    pub stall_scheduled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Nobody has needed it, or it was given up until somebody does.
    Absent,
    Connecting,
    Up,
}

/// Requests of one class that share their fate.
#[derive(Clone, Copy, Debug)]
struct Group {
    class: CommandClass,
    count: u64,
    arrived: Time,
    /// When the reply comes; `None` while nobody answers.
    due: Option<Time>,
    /// Written to the link.
    sent: bool,
    reply: Reply,
    repeated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Good,
    Data,
    NotReady,
    WrongRole,
    Overloaded,
}

impl Traffic {
    pub(super) fn new(plan: &LoadPlan, rate: f64, backends: usize, allowance: Duration, random: Random) -> Self {
        Self {
            rate,
            writes: plan.writes,
            multi_key: plan.multi_key,
            accumulating: plan.accumulating,
            data_errors: plan.data_errors,
            random,
            until: Time::ZERO,
            link: Link {
                to: 0,
                state: LinkState::Absent,
                generation: 0,
                attempt: 0,
                last_progress: Time::ZERO,
                stall_scheduled: false,
            },
            groups: Vec::new(),
            counts: (0..backends).map(|_| Counts::default()).collect(),
            clients: Clients::default(),
            availability: Availability::Serving,
            nobody_since: None,
            held_until: Time::ZERO,
            allowances: vec![[allowance; CommandClass::COUNT]; backends],
            retries: 0.0,
            clock_ahead: Duration::ZERO,
            edges: Vec::new(),
        }
    }

    /// Draws what arrived since the last call and ends what was due. `blind_until`: we do not run before that.
    /// Returns how many requests arrived.
    pub(super) fn advance(&mut self, now: Time, node: &Node, somebody_fit: bool, blind_until: Time) -> u64 {
        let (from, span) = (self.until, now - self.until);
        if span.is_zero() {
            return 0;
        }
        self.until = now;
        if now >= blind_until {
            self.end_due(now, node);
        }
        let arrived = self.random.poisson(self.rate * span.as_secs_f64());
        self.clients.asked_in_vain += if somebody_fit { 0 } else { arrived };
        self.retries = (self.retries + RETRY_SHARE * arrived as f64 + RETRY_FLOOR * span.as_secs_f64())
            .min((RETRY_SHARE * self.rate).max(RETRY_FLOOR));
        self.clients.asked += arrived;
        let writes = self.random.binomial(arrived, self.writes);
        let multi_key = self.random.binomial(arrived - writes, self.multi_key / (1.0 - self.writes).max(1e-9));
        for (class, count) in [
            (CommandClass::Read, arrived - writes - multi_key),
            (CommandClass::Write, writes),
            (CommandClass::MultiKey, multi_key),
        ] {
            self.arrive(class, count, from, now, node, blind_until);
        }
        arrived
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.groups.iter().map(|group| group.count).sum()
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The link's head waits since then, and what its class is allowed.
    pub(super) fn head(&self) -> Option<(Time, Duration)> {
        let sent = self.groups.iter().filter(|group| group.sent);
        let head = sent.min_by_key(|group| (group.arrived, group.class))?;
        let since = head.arrived.max(self.link.last_progress);
        Some((since, self.allowances[self.link.to][head.class.index()]))
    }

    /// The connection is gone: what may be sent again waits for the next one, the rest is lost.
    pub(super) fn lose_link(&mut self, now: Time, counted: bool) {
        self.link.generation += 1;
        self.link.state = LinkState::Absent;
        self.link.stall_scheduled = false;
        if counted {
            self.counts[self.link.to].errors.connection += 1;
        }
        let mut lost = 0;
        for group in &mut self.groups {
            if group.sent && group.class == CommandClass::Write {
                let gone = self.random.binomial(group.count, self.accumulating);
                group.count -= gone;
                lost += gone;
            }
            (group.sent, group.due, group.reply) = (false, None, Reply::Good);
        }
        self.groups.retain(|group| group.count > 0);
        self.clients.fail_unknown(lost, now);
    }

    /// The handshake was answered: what waits is sent.
    pub(super) fn link_is_up(&mut self, now: Time, node: &Node) {
        self.link.state = LinkState::Up;
        self.link.attempt = 0;
        self.link.last_progress = now;
        self.send_waiting(now, node, Duration::ZERO);
    }

    /// Nobody answers any more: replies that are on their way are lost or late.
    pub(super) fn fall_silent(&mut self) {
        self.groups.iter_mut().for_each(|group| group.due = None);
    }

    /// It answers again: what was sent is answered, no sooner than `after`.
    pub(super) fn answers_again(&mut self, now: Time, node: &Node, after: Duration) {
        if self.link.state == LinkState::Up {
            self.send_waiting(now, node, after);
        }
    }

    /// Nothing is answered or read for a while; `until` is its end.
    pub(super) fn delay_all(&mut self, now: Time, until: Time) {
        for group in &mut self.groups {
            group.due = group.due.map(|due| due + (until - now));
        }
    }

    /// A reply that ends no request of these: of a slow command, which is not among them.
    pub(super) fn heard(&mut self, id: usize, now: Time) {
        self.progressed(BackendId(id as u8), now + self.clock_ahead);
        if self.link.to == id {
            self.link.last_progress = self.link.last_progress.max(now);
        }
    }

    /// Our clock is ahead by this much at once: to us, everything began that much earlier.
    pub(super) fn clock_jumped(&mut self, ahead: Duration) {
        self.clock_ahead += ahead;
        self.link.last_progress = self.link.last_progress - ahead;
        self.groups.iter_mut().for_each(|group| group.arrived = group.arrived - ahead);
    }

    pub(super) fn set_availability(&mut self, now: Time, availability: Availability) {
        let nobody = availability == Availability::NoBackend;
        self.nobody_since = nobody.then(|| self.nobody_since.unwrap_or(now));
        self.availability = availability;
    }

    /// Reply bytes were read.
    pub(super) fn progressed(&mut self, backend: BackendId, at: Time) {
        let counts = &mut self.counts[backend.index()];
        counts.last_progress = Some(counts.last_progress.map_or(at, |last| last.max(at)));
    }

    fn arrive(&mut self, class: CommandClass, count: u64, from: Time, now: Time, node: &Node, blind_until: Time) {
        if count == 0 {
            return;
        }
        let hopeless = self.nobody_since.is_some_and(|since| from >= since + DEADLINE);
        if hopeless {
            return self.clients.fail_refused(count, now);
        }
        let span = now - from;
        let held = matches!(self.availability, Availability::Holding { .. });
        if self.link.state != LinkState::Up || !node.answers() || held {
            // Spread over the span, since each has a deadline of its own.
            let mut left = count;
            for part in (1..=PARTS).rev() {
                let count = if part == 1 { left } else { self.random.binomial(left, 1.0 / part as f64) };
                left -= count;
                if count > 0 {
                    let arrived = from + span.mul_f64(self.random.unit());
                    let sent = self.link.state == LinkState::Up && !held;
                    let group = Group { class, count, arrived, due: None, sent, reply: Reply::Good, repeated: false };
                    self.clients.starve(arrived);
                    self.groups.push(group);
                }
            }
            return;
        }
        let mut random = self.random.clone();
        let busy_link = self.rate > 50.0;
        let (service, factor) = (&node.service, FACTORS[class.index()]);
        let ready_from = node.busy_until.max(self.held_until).max(blind_until);
        service.draw_many(count, &mut random, |us, count, random| {
            let arrived = from + span.mul_f64(random.unit());
            let taken = Duration::from_micros((us as f64 * factor) as u64 + node.network.draw_us(random));
            let due = arrived.max(ready_from) + taken + node.state.slow[class.index()];
            let mut left = count;
            if node.state.jitter.is_some() || node.state.loss > 0.0 {
                let parts = count.min(PARTS);
                for part in (1..=parts).rev() {
                    let share = if part == 1 { left } else { left / part };
                    let late = Duration::from_micros(node.trouble_us(busy_link, random));
                    self.answer(class, share, arrived, due + late, now, node, random);
                    left -= share;
                }
            } else {
                self.answer(class, left, arrived, due, now, node, random);
            }
        });
        self.random = random;
    }

    /// Splits requests by what they are answered.
    #[allow(clippy::too_many_arguments, reason = "one request's whole fate; private to this file")]
    fn answer(
        &mut self,
        class: CommandClass,
        count: u64,
        arrived: Time,
        due: Time,
        now: Time,
        node: &Node,
        random: &mut Random,
    ) {
        let (error, share) = errors_of(class, node);
        let wrong = random.binomial(count, share);
        let data = random.binomial(count - wrong, self.data_errors);
        for (reply, count) in [(error, wrong), (Reply::Data, data), (Reply::Good, count - wrong - data)] {
            let sent = arrived >= self.held_until;
            let group = Group { class, count, arrived, due: Some(due), sent, reply, repeated: false };
            if count > 0 && due <= now {
                self.end(group, due, node);
            } else if count > 0 {
                self.groups.push(group);
            }
        }
    }

    fn send_waiting(&mut self, now: Time, node: &Node, after: Duration) {
        let mut random = self.random.clone();
        if !node.answers() {
            self.groups.iter_mut().for_each(|group| group.sent = true);
            return;
        }
        let ready = (now + after).max(node.busy_until).max(self.held_until);
        for group in &mut self.groups {
            if group.due.is_none() {
                let taken = node.service.draw(&mut random) + node.rtt(&mut random);
                let (error, share) = errors_of(group.class, node);
                group.reply = if random.chance(share) { error } else { Reply::Good };
                group.due = Some(ready + taken + node.state.slow[group.class.index()]);
                group.sent = true;
            }
        }
        self.random = random;
    }

    fn end_due(&mut self, now: Time, node: &Node) {
        let mut place = 0;
        while place < self.groups.len() {
            let group = self.groups[place];
            let deadline = group.arrived + DEADLINE;
            match group.due {
                Some(due) if due <= now && due <= deadline => {
                    self.groups.swap_remove(place);
                    self.end(group, due, node);
                }
                _ if deadline <= now => {
                    self.groups.swap_remove(place);
                    self.counts[self.link.to].errors.timeout += group.count * u64::from(group.sent);
                    self.clients.fail_late(group.count, group.arrived);
                }
                _ => place += 1,
            }
        }
    }

    /// The reply was read at `due`.
    fn end(&mut self, group: Group, due: Time, node: &Node) {
        let Group { class, count, arrived, .. } = group;
        self.link.last_progress = self.link.last_progress.max(due);
        self.progressed(BackendId(self.link.to as u8), due + self.clock_ahead);
        let counts = &mut self.counts[self.link.to];
        counts.answered += count;
        counts.latency[class.index()].record((due - arrived).as_micros() as u64, count);
        let errors = &mut counts.errors;
        match group.reply {
            Reply::Good => return self.clients.succeed(count, arrived, due),
            Reply::Data => {
                errors.data += count;
                return self.clients.succeed(count, arrived, due);
            }
            Reply::NotReady => errors.not_ready += count,
            Reply::WrongRole => errors.wrong_role += count,
            Reply::Overloaded => errors.overloaded += count,
        }
        let edge = match group.reply {
            Reply::NotReady => Some(Edge::NotReady(NotReadyWord::Loading)),
            Reply::WrongRole => Some(Edge::WrongRole),
            _ => None,
        };
        if let Some(edge) = edge.filter(|edge| !self.edges.contains(edge)) {
            self.edges.push(edge);
        }
        let again = if group.repeated { 0 } else { count.min(self.retries as u64) };
        self.retries -= again as f64;
        self.clients.fail_error(count - again, arrived);
        if again > 0 {
            let (error, share) = errors_of(class, node);
            let wrong = self.random.binomial(again, share);
            let due = due + RETRY_AFTER + node.service.median();
            let group =
                Group { arrived, class, count: wrong, due: Some(due), sent: true, reply: error, repeated: true };
            self.groups.extend([group, Group { count: again - wrong, reply: Reply::Good, ..group }]);
            self.groups.retain(|group| group.count > 0);
        }
    }
}

/// Which error a request of this class meets there, and how probably.
fn errors_of(class: CommandClass, node: &Node) -> (Reply, f64) {
    let writes = class == CommandClass::Write;
    let state = &node.state;
    if state.loading {
        (Reply::NotReady, 1.0)
    } else if writes && state.readonly {
        (Reply::WrongRole, 1.0)
    } else if writes && state.full {
        (Reply::Overloaded, 1.0)
    } else {
        (Reply::Overloaded, state.failing)
    }
}
