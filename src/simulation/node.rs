//! One backend and the way to it, as they truly are: what Standin can only guess.

use std::time::Duration;

use super::fault::{Fault, Kind, RETRANSMIT, SlowClass};
use super::latency::Latency;
use super::random::Random;
use super::scenario::{BackendPlan, PausePlan};
use crate::policy::{CommandClass, DataMode, Standing, Time};

/// Losses in a row that are still modelled; the connection is given up long before.
const LOSSES_MAX: u32 = 5;

pub(super) struct Node {
    pub name: String,
    pub data: DataMode,
    pub last_resort: bool,
    pub service: Latency,
    pub network: Latency,
    pub pauses: Option<PausePlan>,
    /// What the faults at work make of it.
    pub state: State,
    /// Answers nothing until then: a pause, or a slow command.
    pub busy_until: Time,
    /// Which content it holds: grows with each restart.
    pub identity: u32,
    pub identity_seen: u32,
    /// The content that was looked at when it was entered last.
    pub identity_admitted: u32,
    /// When a fault that was a reason to leave it ended.
    pub reason_ended: Option<Time>,
    /// Its last trouble was that no packet or answer came from it.
    pub was_unreachable: bool,
    /// Nothing has been wrong with it since then.
    pub fit_since: Time,
    /// It cannot be heard since then.
    pub silent_since: Time,
    pub standing_told: Standing,
    pub standing_at: Time,
    /// A replica has heard nothing from its primary since then.
    pub lag_since: Option<Time>,
}

/// What the faults at work make of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub dead: bool,
    pub frozen: bool,
    /// No packet comes through between it and us.
    pub cut: bool,
    pub cut_from_primary: bool,
    pub loading: bool,
    pub readonly: bool,
    pub full: bool,
    pub wrong_password: bool,
    pub refuses: bool,
    /// Added to each reply, by class; the last is for probes.
    pub slow: [Duration; CommandClass::COUNT + 1],
    pub failing: f64,
    pub jitter: Option<(f64, Latency)>,
    pub loss: f64,
    /// A fault that is a reason to leave it is at work.
    pub is_reason: bool,
    /// Faults of any kind.
    pub faults: usize,
}

impl Node {
    pub(super) fn new(plan: &BackendPlan) -> Self {
        Self {
            name: plan.name.clone(),
            data: plan.data,
            last_resort: plan.last_resort,
            service: plan.service.latency(),
            network: plan.network.latency(),
            pauses: plan.pauses,
            state: State::default(),
            busy_until: Time::ZERO,
            identity: 0,
            identity_seen: 0,
            identity_admitted: 0,
            reason_ended: None,
            was_unreachable: false,
            fit_since: Time::ZERO,
            silent_since: Time::ZERO,
            standing_told: Standing::Unknown,
            standing_at: Time::ZERO,
            lag_since: None,
        }
    }

    /// Up and reachable, so that whatever is asked is answered some time.
    pub(super) fn answers(&self) -> bool {
        !(self.state.dead || self.state.frozen || self.state.cut)
    }

    /// Nothing is wrong with it that could keep it from serving.
    pub(super) fn is_fit(&self) -> bool {
        let state = &self.state;
        let ill = state.loading || state.readonly || state.full || state.wrong_password || state.refuses;
        self.answers() && !ill && !state.is_reason
    }

    pub(super) fn rtt(&self, random: &mut Random) -> Duration {
        Duration::from_micros(self.network.draw_us(random) + self.trouble_us(false, random))
    }

    /// From sending a probe to its answer. Only for one that answers.
    pub(super) fn probe_answer_at(&self, now: Time, random: &mut Random) -> Time {
        let service = Duration::from_micros(self.service.draw_us(random)) + self.state.slow[CommandClass::COUNT];
        now.max(self.busy_until) + self.rtt(random) + service
    }

    /// Microseconds that a round trip takes longer because of jitter and lost packets. On a busy link the replies that
    /// follow tell of a loss at once (fast retransmit), on an idle one only the timer does.
    pub(super) fn trouble_us(&self, busy_link: bool, random: &mut Random) -> u64 {
        let state = &self.state;
        let mut spent = 0;
        if let Some((share, delay)) = &state.jitter
            && random.chance(*share)
        {
            spent += delay.draw_us(random);
        }
        if state.loss > 0.0 {
            let mut losses = 0;
            while losses < LOSSES_MAX && random.chance(state.loss) {
                losses += 1;
            }
            if losses > 0 {
                let once = if busy_link { self.network.median() * 3 } else { RETRANSMIT };
                spent += (once * ((1 << losses) - 1)).as_micros() as u64;
            }
        }
        spent
    }

    /// What it is now, from the faults at work; returns what it was.
    pub(super) fn settle(&mut self, place: usize, faults: &[Fault], now: Time) -> State {
        let state = State::of(place, faults);
        let before = std::mem::replace(&mut self.state, state);
        let heard_before = !(before.dead || before.frozen || before.cut);
        if heard_before && !self.answers() {
            self.silent_since = now;
        }
        if before.is_reason && !self.state.is_reason {
            self.reason_ended = Some(now);
        }
        if self.state.faults > 0 {
            self.was_unreachable = self.state.cut || self.state.frozen;
        }
        if self.state.faults > 0 || before.faults > 0 {
            self.fit_since = now;
        }
        match (before.cut_from_primary, self.state.cut_from_primary) {
            (false, true) => self.lag_since = Some(now),
            (true, false) => self.lag_since = None,
            _ => {}
        }
        before
    }
}

impl State {
    fn of(place: usize, faults: &[Fault]) -> Self {
        let mut state = Self::default();
        for fault in faults.iter().filter(|fault| fault.on.contains(&place)) {
            state.faults += 1;
            state.is_reason |= fault.is_reason;
            match fault.plan.kind {
                Kind::Dead => state.dead = true,
                Kind::Frozen => state.frozen = true,
                Kind::Cut => state.cut = true,
                Kind::Partition => state.cut |= fault.is_cut_from_us(place),
                Kind::Loading => state.loading = true,
                Kind::Readonly => state.readonly = true,
                Kind::Full => state.full = true,
                Kind::WrongPassword => state.wrong_password = true,
                Kind::Refused => state.refuses = true,
                Kind::Slow => state.slow_down(fault),
                Kind::Failing => state.failing = state.failing.max(fault.plan.share.unwrap_or_default()),
                Kind::Loss => state.loss = state.loss.max(fault.plan.share.unwrap_or_default()),
                Kind::Jitter => {
                    if let Some(delay) = fault.plan.delay {
                        state.jitter = Some((fault.plan.share.unwrap_or_default(), delay.latency()));
                    }
                }
                Kind::LinkLost | Kind::SlowCommand | Kind::OwnStall | Kind::ClockJump => {}
            }
        }
        state.cut_from_primary = faults.iter().any(|fault| fault.is_cut_from_primary(place));
        state
    }

    fn slow_down(&mut self, fault: &Fault) {
        let classes = [
            (CommandClass::Read, SlowClass::Read),
            (CommandClass::Write, SlowClass::Write),
            (CommandClass::MultiKey, SlowClass::MultiKey),
        ];
        for (class, named) in classes {
            if fault.plan.slows(named) {
                self.slow[class.index()] += fault.add;
            }
        }
        if fault.plan.probes {
            self.slow[CommandClass::COUNT] += fault.add;
        }
    }
}
