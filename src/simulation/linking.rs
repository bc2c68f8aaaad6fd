//! The link to the active: connects, is lost, stalls; and what a change of a backend's state means for it.

use std::time::Duration;

use super::fault::RETRANSMIT;
use super::node::State;
use super::probing::CONNECT_TIMEOUT;
use super::traffic::LinkState;
use super::world::{Connected, What, World};
use crate::policy::{Edge, Standing, Time};

/// Attempts to reconnect a link for which no request waits, before it is given up until one does.
const IDLE_ATTEMPTS_MAX: u32 = 3;
/// Pause before the first attempt after a loss, and before the second one.
const FIRST_ATTEMPT_AFTER: Duration = Duration::from_micros(100);
const SECOND_ATTEMPT_AFTER: Duration = Duration::from_millis(1);
/// `links.reconnect_min` and `links.reconnect_max`.
const RECONNECT_MIN_US: u64 = 10_000;
const RECONNECT_MAX_US: u64 = 100_000;
/// While a stall lasts, the engine is told again this often.
const STALL_REPEAT: Duration = Duration::from_millis(50);
/// `timeout.tcp_user_timeout`: a connection on which nothing is acknowledged for so long is closed by our kernel.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn connect_after(&mut self, wait: Duration) {
        let link = &mut self.traffic.link;
        link.state = LinkState::Connecting;
        link.generation += 1;
        let generation = link.generation;
        self.after(wait, What::Connect(generation));
    }

    pub(super) fn connect(&mut self, generation: u64) {
        if self.traffic.link.generation != generation {
            return;
        }
        let (at, obstacle) = self.connection_attempt(self.traffic.link.to);
        let outcome = obstacle.map_or(Connected::Yes, Connected::No);
        self.schedule(at, What::ConnectEnds(generation, outcome));
    }

    pub(super) fn connect_ends(&mut self, generation: u64, outcome: Connected) {
        if self.traffic.link.generation != generation {
            return;
        }
        let id = self.traffic.link.to;
        match outcome {
            // It died or vanished meanwhile.
            Connected::Yes if !self.nodes[id].answers() => self.attempt_failed(id, Edge::HandshakeReset),
            Connected::Yes => {
                self.advance();
                self.identify(id);
                self.edge(id, Edge::HandshakeDone);
                self.traffic.link_is_up(self.now, &self.nodes[id]);
                let at = self.our_now();
                self.traffic.progressed(super::world::name(id), at);
            }
            Connected::No(edge) => self.attempt_failed(id, edge),
        }
    }

    fn attempt_failed(&mut self, id: usize, edge: Edge) {
        self.edge(id, edge);
        self.advance();
        let link = &mut self.traffic.link;
        link.attempt += 1;
        let attempt = link.attempt;
        if attempt >= IDLE_ATTEMPTS_MAX && !self.traffic.is_waited_for() {
            let link = &mut self.traffic.link;
            (link.state, link.attempt) = (LinkState::Absent, 0);
            link.generation += 1;
            return;
        }
        let pause = if attempt == 1 {
            SECOND_ATTEMPT_AFTER
        } else {
            let span = RECONNECT_MAX_US.min(RECONNECT_MIN_US << (attempt - 2).min(16));
            Duration::from_micros(self.random.below(span))
        };
        self.connect_after(pause);
    }

    /// The link ended; a new one is tried at once.
    fn link_lost(&mut self, id: usize) {
        if self.traffic.link.to != id || self.traffic.link.state != LinkState::Up {
            return;
        }
        self.advance();
        self.traffic.lose_link(self.now, true);
        self.edge(id, Edge::LinkLost);
        self.connect_after(FIRST_ATTEMPT_AFTER);
    }

    /// Somebody in between closes our connections to it.
    pub(super) fn cut_link(&mut self, id: usize) {
        if self.nodes[id].answers() {
            self.link_lost(id);
        }
    }

    /// Our kernel gave the connection up.
    pub(super) fn link_dies(&mut self, generation: u64) {
        let link = self.traffic.link;
        if link.generation == generation && link.state == LinkState::Up && self.nodes[link.to].state.cut {
            self.link_lost(link.to);
        }
    }

    pub(super) fn stall_check(&mut self, generation: u64) {
        self.advance();
        if self.traffic.link.generation != generation || self.traffic.link.state != LinkState::Up {
            return;
        }
        let Some((since, allowance)) = self.traffic.head() else {
            self.traffic.link.stall_scheduled = false;
            return;
        };
        let silent_for = self.now - since;
        let next = if silent_for >= allowance {
            self.edge(self.traffic.link.to, Edge::Stalled { silent_for });
            self.now + STALL_REPEAT
        } else {
            since + allowance
        };
        self.schedule(next, What::StallCheck(generation));
    }

    /// Faults came or went: what its connections make of it.
    pub(super) fn node_changed(&mut self, id: usize, before: &State) {
        let after = self.nodes[id].state.clone();
        let is_linked = self.traffic.link.to == id;
        let answered = !(before.dead || before.frozen || before.cut);
        let restarted = (before.dead && !after.dead) || (after.loading && !before.loading);
        if restarted {
            self.nodes[id].identity += 1;
        }
        if answered && !self.nodes[id].answers() && is_linked {
            self.traffic.fall_silent();
        }
        let reset = (after.dead && !before.dead)
            || (after.loading && !before.loading)
            || (after.wrong_password && !before.wrong_password);
        if reset && !after.cut {
            // A reset needs half a round trip to reach us.
            self.link_lost(id);
            self.prober_is_cut_off(id);
        } else if before.cut && !after.cut && after.dead {
            self.link_lost(id);
            self.prober_is_cut_off(id);
        }
        if after.cut && !before.cut && is_linked && self.traffic.rate > 0.0 {
            let generation = self.traffic.link.generation;
            self.after(TCP_USER_TIMEOUT, What::LinkDies(generation));
        }
        if !answered && self.nodes[id].answers() {
            self.hears_again(id, before);
        }
        if before.refuses != after.refuses {
            self.tell_standing(id);
        }
    }

    fn hears_again(&mut self, id: usize, before: &State) {
        if self.nodes[id].identity != self.nodes[id].identity_seen {
            // It restarted while nobody saw: the old connection is answered with a reset.
            self.link_lost(id);
            self.prober_is_cut_off(id);
            return;
        }
        if self.traffic.link.to == id {
            let sent = self.traffic.head().map_or(self.now, |(since, _)| since);
            let after = if before.cut { next_retransmission(sent, self.now) } else { Duration::ZERO };
            self.traffic.answers_again(self.now, &self.nodes[id], after);
        }
        let sent = self.probe_sent_at(id).unwrap_or(self.now);
        let after = if before.cut { next_retransmission(sent, self.now) } else { Duration::ZERO };
        self.prober_hears_again(id, after);
    }

    /// Whether divergence let it be entered when it was last asked, and it was told.
    pub(super) fn is_enterable(&self, id: usize) -> bool {
        let node = &self.nodes[id];
        node.standing_told == Standing::Enterable && !node.state.refuses
    }

    /// How long an attempt to enter a backend takes that does not answer.
    pub(super) fn entry_gives_up_after(&self, id: usize) -> Duration {
        let state = &self.nodes[id].state;
        if state.dead && !state.cut { Duration::from_millis(1) } else { CONNECT_TIMEOUT * 3 }
    }
}

/// How long after `now`, when the way is open again, what was sent at `sent` gets across.
fn next_retransmission(sent: Time, now: Time) -> Duration {
    let (mut at, mut pause) = (sent, RETRANSMIT);
    while at < now {
        at += pause;
        pause *= 2;
    }
    at - now
}
