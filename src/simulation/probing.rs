//! The probers: one connection to each backend, asked at an interval, as `control/probe.rs` does it.

use std::time::Duration;

use super::world::{What, World, name};
use crate::policy::{Edge, Event, NotReadyWord, ProbeAnswer, ProbeOutcome, Role, Time};

/// `timeout.connect` and `timeout.handshake`.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(500);
/// Pauses before a lost connection is tried again, before the interval takes over.
const QUICK_PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(2)];
/// Round trips of a handshake: TCP, HELLO and what follows it.
pub(super) const HANDSHAKE_TRIPS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Prober {
    connected: bool,
    /// What it waits for; `None` between two probes.
    busy: Option<Busy>,
    /// Grows with each step, so that what was scheduled for an earlier one is known to be stale.
    token: u64,
    /// Asked to probe while a probe was under way.
    again: bool,
    quick: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    Connecting,
    /// A probe was sent then.
    Asking {
        sent: Time,
    },
}

/// What happens to a prober.
#[derive(Clone, Copy, Debug)]
pub(super) enum ProbeStep {
    Due,
    Connected,
    ConnectFails(Edge),
    Answered,
    TimesOut,
}

impl ProbeStep {
    pub(super) fn is_timer(self) -> bool {
        matches!(self, Self::Due | Self::TimesOut | Self::ConnectFails(Edge::ConnectTimedOut | Edge::HandshakeTimedOut))
    }
}

impl World {
    pub(super) fn start_probe_after(&mut self, id: usize, wait: Duration) {
        self.probers[id].token += 1;
        let token = self.probers[id].token;
        self.after(wait, What::Probe(id, token, ProbeStep::Due));
    }

    /// `Action::ProbeNow`.
    pub(super) fn probe_now(&mut self, id: usize) {
        if self.probers[id].busy.is_some() {
            self.probers[id].again = true;
        } else {
            self.start_probe_after(id, Duration::ZERO);
        }
    }

    pub(super) fn probe_step(&mut self, id: usize, token: u64, step: ProbeStep) {
        if self.probers[id].token != token {
            return;
        }
        match step {
            ProbeStep::Due if self.probers[id].connected => self.ask(id),
            ProbeStep::Due => self.connect_prober(id),
            ProbeStep::Connected => {
                self.probers[id].connected = true;
                self.identify(id);
                self.ask(id);
            }
            ProbeStep::ConnectFails(edge) => {
                let outcome = match edge {
                    Edge::AuthenticationFailed => ProbeOutcome::AuthenticationFailed,
                    Edge::NotReady(word) => ProbeOutcome::NotReady(word),
                    edge => ProbeOutcome::Failed(edge),
                };
                self.probe_ends(id, outcome);
            }
            ProbeStep::Answered => self.probe_answered(id),
            ProbeStep::TimesOut => {
                self.probers[id].connected = false;
                let silent_for = self.probe_timeout();
                self.probe_ends(id, ProbeOutcome::TimedOut { silent_for });
            }
        }
    }

    /// The process died or its connections were cut, and the way is open, so that we hear of it.
    pub(super) fn prober_is_cut_off(&mut self, id: usize) {
        if std::mem::take(&mut self.probers[id].connected) || self.probers[id].busy.is_some() {
            let rtt = self.nodes[id].rtt(&mut self.random);
            self.probers[id].busy = None;
            self.start_probe_after(id, rtt / 2);
        }
    }

    /// It can be heard again: what a prober waits for comes, unless its timer runs out first.
    pub(super) fn prober_hears_again(&mut self, id: usize, after: Duration) {
        let token = self.probers[id].token;
        let at = self.nodes[id].probe_answer_at(self.now + after, &mut self.random);
        match self.probers[id].busy {
            Some(Busy::Asking { .. }) => self.schedule(at, What::Probe(id, token, ProbeStep::Answered)),
            Some(Busy::Connecting) if after.is_zero() => {
                self.schedule(at, What::Probe(id, token, ProbeStep::Connected));
            }
            _ => {}
        }
    }

    pub(super) fn probe_sent_at(&self, id: usize) -> Option<Time> {
        match self.probers[id].busy {
            Some(Busy::Asking { sent }) => Some(sent),
            Some(Busy::Connecting) | None => None,
        }
    }

    /// It answers nothing before this: a reply that is under way is late.
    pub(super) fn delay_probe(&mut self, id: usize, until: Time) {
        let Some(Busy::Asking { sent }) = self.probers[id].busy else { return };
        self.probers[id].token += 1;
        self.expect_answer(id, sent, until);
    }

    fn ask(&mut self, id: usize) {
        self.probers[id].token += 1;
        self.probers[id].busy = Some(Busy::Asking { sent: self.now });
        self.expect_answer(id, self.now, self.now);
    }

    fn expect_answer(&mut self, id: usize, sent: Time, from: Time) {
        let token = self.probers[id].token;
        if self.nodes[id].answers() {
            let at = self.nodes[id].probe_answer_at(from, &mut self.random);
            self.schedule(at, What::Probe(id, token, ProbeStep::Answered));
        }
        let deadline = (sent + self.probe_timeout()).max(self.now);
        self.schedule(deadline, What::Probe(id, token, ProbeStep::TimesOut));
    }

    fn connect_prober(&mut self, id: usize) {
        self.probers[id].token += 1;
        self.probers[id].busy = Some(Busy::Connecting);
        let token = self.probers[id].token;
        let (at, step) = match self.connection_attempt(id) {
            (at, None) => (at, ProbeStep::Connected),
            (at, Some(edge)) => (at, ProbeStep::ConnectFails(edge)),
        };
        self.schedule(at, What::Probe(id, token, step));
    }

    /// When an attempt to connect ends that begins now, and what is wrong with it.
    pub(super) fn connection_attempt(&mut self, id: usize) -> (Time, Option<Edge>) {
        let node = &self.nodes[id];
        let rtt = node.rtt(&mut self.random);
        let ready = self.now.max(node.busy_until);
        if node.state.cut {
            (self.now + CONNECT_TIMEOUT, Some(Edge::ConnectTimedOut))
        } else if node.state.dead {
            (self.now + rtt, Some(Edge::ConnectRefused))
        } else if node.state.frozen || ready + rtt * HANDSHAKE_TRIPS > self.now + HANDSHAKE_TIMEOUT {
            (self.now + HANDSHAKE_TIMEOUT, Some(Edge::HandshakeTimedOut))
        } else {
            (ready + rtt * HANDSHAKE_TRIPS, self.refusal(id))
        }
    }

    fn probe_answered(&mut self, id: usize) {
        let Some(Busy::Asking { sent }) = self.probers[id].busy else { return };
        let at = self.our_now();
        let node = &self.nodes[id];
        let is_replica = node.state.readonly || node.data == crate::policy::DataMode::Replica;
        let outcome = if node.state.loading {
            ProbeOutcome::NotReady(NotReadyWord::Loading)
        } else {
            ProbeOutcome::Ok(ProbeAnswer {
                latency: self.now - sent,
                role: if is_replica { Role::Replica } else { Role::Master },
                write_ok: (!is_replica).then_some(!node.state.full),
                replication_lag: is_replica.then(|| node.lag_since.map_or(Duration::ZERO, |since| self.now - since)),
                ..ProbeAnswer::default()
            })
        };
        self.traffic.progressed(name(id), at);
        self.probe_ends(id, outcome);
    }

    fn probe_ends(&mut self, id: usize, outcome: ProbeOutcome) {
        let lost = matches!(outcome, ProbeOutcome::Failed(_));
        self.tell(Event::Probe { backend: name(id), outcome });
        let prober = &mut self.probers[id];
        prober.busy = None;
        let pause = if std::mem::take(&mut prober.again) {
            Duration::ZERO
        } else if lost && prober.quick < QUICK_PAUSES.len() {
            prober.quick += 1;
            QUICK_PAUSES[prober.quick - 1]
        } else {
            let interval = self.probe_interval();
            self.random.between(interval.mul_f64(0.95), interval.mul_f64(1.05))
        };
        if !lost {
            self.probers[id].quick = 0;
        }
        self.start_probe_after(id, pause);
    }

    /// `health_check.timeout`: as long as `timeout.floor`.
    fn probe_timeout(&self) -> Duration {
        self.settings.timeout.floor
    }
}
