//! What other ways of watching would have made of the same world: clients without a sidecar, each with the rule that its
//! documentation gives as the default. They are spared entry, reconciling and stale content; only detection is compared.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::node::Node;
use super::scenario::Span;
use crate::policy::Time;

/// How long these clients wait for a reply, as ours.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Jedis 5 `MultiClusterClientConfig`, Lettuce 7 and redis-py 7 MultiDB: a window of 2 s with at least 1,000 failures
/// that are at least 10 %.
const MULTIDB_WINDOW: Duration = Duration::from_secs(2);
const MULTIDB_FAILURES_MIN: u64 = 1_000;
const MULTIDB_RATE: f64 = 0.1;
/// Their health checks see a dead server after 1 to 8 s, by client and timeout; this is a good one of them.
const MULTIDB_PROBES_FAIL_AFTER: Duration = Duration::from_secs(3);
const MULTIDB_FAILBACK: Duration = Duration::from_secs(120);
/// Envoy `consecutive_5xx`: five in a row, ejected for 30 s. An error reply of Redis is a success to it.
const EJECT_FAILURES: u64 = 5;
const EJECT_TIME: Duration = Duration::from_secs(30);
/// Redis Sentinel: `down-after-milliseconds 30000`, then an election and a promotion of about two seconds.
const SENTINEL_DOWN_AFTER: Duration = Duration::from_secs(32);

#[derive(Default)]
pub(super) struct Rivals(Vec<Rival>);

/// One other strategy and how it fares.
#[derive(Clone, Debug, Serialize)]
pub struct Rival {
    pub name: &'static str,
    pub asked: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub switches: u32,
    pub blackout: Span,
    #[serde(skip)]
    rule: Rule,
    #[serde(skip)]
    active: usize,
    #[serde(skip)]
    waiting: VecDeque<(Time, u64)>,
    #[serde(skip)]
    window: VecDeque<(Time, u64, u64)>,
    #[serde(skip)]
    in_row: u64,
    #[serde(skip)]
    silent_since: Option<Time>,
    #[serde(skip)]
    left_at: Time,
    #[serde(skip)]
    starving_since: Option<Time>,
    #[serde(skip)]
    until: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Stay,
    MultiDb,
    Consecutive,
    Sentinel,
}

impl Rivals {
    pub(super) fn new(backends: usize) -> Self {
        let mut rules = vec![("one server, no failover", Rule::Stay)];
        if backends > 1 {
            rules.extend([
                ("MultiDB client (1,000 failures and 10 %)", Rule::MultiDb),
                ("five failures in a row (Envoy)", Rule::Consecutive),
                ("Sentinel (down after 30 s)", Rule::Sentinel),
            ]);
        }
        Self(rules.into_iter().map(|(name, rule)| Rival::new(name, rule)).collect())
    }

    pub(super) fn advance(&mut self, now: Time, asked: u64, nodes: &[Node]) {
        self.0.iter_mut().for_each(|rival| rival.advance(now, asked, nodes));
    }

    pub(super) fn close(mut self, now: Time) -> Vec<Rival> {
        for rival in &mut self.0 {
            let left: u64 = rival.waiting.drain(..).map(|(_, count)| count).sum();
            rival.fail(now, left);
            if let Some(since) = rival.starving_since {
                rival.blackout = rival.blackout.max(Span(now - since));
            }
        }
        self.0
    }
}

impl Rival {
    fn new(name: &'static str, rule: Rule) -> Self {
        Self {
            name,
            rule,
            asked: 0,
            succeeded: 0,
            failed: 0,
            switches: 0,
            blackout: Span::default(),
            active: 0,
            waiting: VecDeque::new(),
            window: VecDeque::new(),
            in_row: 0,
            silent_since: None,
            left_at: Time::ZERO,
            starving_since: None,
            until: Time::ZERO,
        }
    }

    pub fn success(&self) -> f64 {
        let ended = self.succeeded + self.failed;
        if ended == 0 { 1.0 } else { self.succeeded as f64 / ended as f64 }
    }

    fn advance(&mut self, now: Time, asked: u64, nodes: &[Node]) {
        let from = std::mem::replace(&mut self.until, now);
        self.asked += asked;
        let node = &nodes[self.active];
        let state = &node.state;
        let silent = state.frozen || state.cut;
        let (mut good, mut bad) = (0, 0);
        if !silent {
            // Whoever still waited is answered, or finds its connection reset.
            let waited: u64 = self.waiting.drain(..).map(|(_, count)| count).sum();
            if state.dead { bad += waited } else { good += waited }
        }
        let refused = state.dead || state.loading;
        if silent {
            if asked > 0 {
                self.starving_since.get_or_insert(from);
                self.waiting.push_back((from, asked));
            }
        } else if refused {
            bad += asked;
        } else {
            let writes_fail = if state.readonly || state.full { 0.25 } else { 0.0 };
            let errors = (asked as f64 * state.failing.max(writes_fail)).round() as u64;
            bad += errors;
            good += asked - errors;
        }
        while let Some((_, count)) = self.waiting.front().copied().filter(|(at, _)| *at + TIMEOUT <= now) {
            self.waiting.pop_front();
            bad += count;
        }
        // Error replies of a living server are no failures to a rule that counts connections.
        let counted = if self.rule == Rule::Consecutive && !silent && !state.dead { 0 } else { bad };
        self.in_row = if good > 0 { 0 } else { self.in_row + counted };
        self.succeeded += good;
        self.fail(from, bad);
        if good > 0
            && let Some(since) = self.starving_since.take()
        {
            self.blackout = self.blackout.max(Span(now - since));
        }
        let heard = !(silent || state.dead);
        self.silent_since = if heard { None } else { Some(self.silent_since.unwrap_or(from)) };
        self.watch(now, good, bad, nodes);
    }

    fn fail(&mut self, from: Time, bad: u64) {
        self.failed += bad;
        if bad > 0 {
            self.starving_since.get_or_insert(from);
        }
    }

    fn watch(&mut self, now: Time, good: u64, bad: u64, nodes: &[Node]) {
        let silent_for = self.silent_since.map_or(Duration::ZERO, |since| now - since);
        let leave = match self.rule {
            Rule::Stay => false,
            Rule::MultiDb => {
                self.window.push_back((now, good, bad));
                while self.window.front().is_some_and(|(at, ..)| *at + MULTIDB_WINDOW < now) {
                    self.window.pop_front();
                }
                let (good, bad) = self.window.iter().fold((0, 0), |(g, b), (_, good, bad)| (g + good, b + bad));
                let tripped = bad >= MULTIDB_FAILURES_MIN && bad as f64 >= MULTIDB_RATE * (good + bad) as f64;
                tripped || silent_for >= MULTIDB_PROBES_FAIL_AFTER
            }
            Rule::Consecutive => self.in_row >= EJECT_FAILURES,
            Rule::Sentinel => silent_for >= SENTINEL_DOWN_AFTER,
        };
        let back_after = match self.rule {
            Rule::MultiDb => MULTIDB_FAILBACK,
            Rule::Consecutive => EJECT_TIME,
            // Sentinel does not go back by itself.
            Rule::Stay | Rule::Sentinel => Duration::MAX,
        };
        let well = |node: &Node| node.answers() && !node.state.loading;
        if leave {
            let others = (0..nodes.len()).filter(|id| *id != self.active);
            if let Some(to) = others.into_iter().find(|id| well(&nodes[*id]) && !nodes[*id].last_resort) {
                self.go(now, to);
            }
        } else if self.active != 0 && now - self.left_at >= back_after && well(&nodes[0]) {
            self.go(now, 0);
        }
    }

    fn go(&mut self, now: Time, to: usize) {
        self.active = to;
        self.left_at = now;
        self.switches += 1;
        self.in_row = 0;
        self.silent_since = None;
        self.window.clear();
        // What waited goes with the old connections; reads would be asked again, which is granted to all.
        let waited: u64 = self.waiting.drain(..).map(|(_, count)| count).sum();
        self.succeeded += waited;
    }
}
