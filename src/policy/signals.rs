//! What is measured of one backend over time: how its requests and probes fared, what latency it has against what it had
//! when it was well, how surprising its silence is. `backend` makes verdicts of it, `score` a figure, `figures` a page.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::baseline::{ClassBaseline, Learnt};
use super::breaker::Calls;
use super::event::{CommandClass, MemoryUse, ProbeAnswer, Role, WindowSummary};
use super::evidence::Blind;
use super::performance::Shift;
use super::phi::Phi;
use super::reliability::Reliability;
use super::settings::Settings;
use super::sketch::Sketch;
use super::slices::Slices;
use super::time::Time;

/// The rolling window of requests: ten slices of a second.
const REQUEST_SLICE: Duration = Duration::from_secs(1);
pub(super) const REQUEST_SLICES: u64 = 10;
/// That of probes: a minute, since they are few.
const PROBE_SLICE: Duration = Duration::from_secs(5);
const PROBE_SLICES: u64 = 12;
/// Probes within their window below which their share means nothing.
const PROBES_MIN: u64 = 10;
/// A backend that was just entered, or just connected again, answers requests that waited for that: their latency is
/// not its own.
const SETTLING: Duration = Duration::from_secs(1);
/// A reply that took eight times the tail is too late to be of use; the same number that an allowance is made of.
const LATE_TAILS: f64 = 8.0;
/// A threshold that was passed is left only when the value clears it by a tenth.
const CLEARED: f64 = 0.9;
/// Requests of one class within their window below which the median means nothing.
pub(super) const COMPARABLE_MIN: u64 = 20;
/// How slowly the usual number of requests in flight follows.
const IN_FLIGHT_PARTS: f64 = 256.0;

/// Classes whose latency a backend is judged by. The slow one takes what it takes.
pub(super) const JUDGED: [CommandClass; 3] = [CommandClass::Read, CommandClass::Write, CommandClass::MultiKey];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Signals {
    pub(super) phi: Phi,
    pub(super) reliability: Reliability,
    pub(super) requests: Slices<Requests>,
    pub(super) probes: Slices<Probes>,
    pub(super) baselines: [ClassBaseline; JUDGED.len()],
    pub(super) shifts: [Shift; JUDGED.len()],
    /// Requests that failed since the last one that did not.
    pub(super) failed_in_row: u64,
    /// As it said last.
    #[serde(default)]
    pub(super) role: Role,
    /// Of a replica, when it was told last.
    pub(super) replication_lag: Option<Duration>,
    pub(super) replication_offset: Option<u64>,
    pub(super) memory: Option<MemoryUse>,
    pub(super) in_flight_usual: f64,
    pub(super) erring: Latch,
    pub(super) lagging: Latch,
    pub(super) unavailable: Latch,
    settling_until: Time,
    window_at: Time,
    /// Since when replies have been owed without a break and without any coming.
    owed_since: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Requests {
    pub(super) ended: u64,
    pub(super) failed: u64,
    pub(super) latency: [Sketch; CommandClass::COUNT],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probes {
    pub(super) answered: u64,
    pub(super) failed: u64,
}

/// A threshold with hysteresis: on when it is reached, off when the value has cleared it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Latch(pub(super) bool);

impl Latch {
    pub(super) fn update(&mut self, value: f64, threshold: f64) {
        self.0 = if self.0 { value >= threshold * CLEARED } else { value >= threshold };
    }
}

/// What `backend` knows of the moment that a window tells of.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// No failure, no evidence, no sign of trouble: a baseline may be learnt.
    pub(super) well: bool,
    /// A slow request is or was at work.
    pub(super) slow: bool,
    pub(super) blind: Blind,
}

impl Signals {
    pub(super) fn new(group: &Settings, now: Time) -> Self {
        let mut reliability = Reliability::default();
        reliability.begin(now);
        Self {
            phi: Phi::new(&group.phi, group.timeout.floor),
            reliability,
            requests: Slices::new(REQUEST_SLICE, REQUEST_SLICES),
            probes: Slices::new(PROBE_SLICE, PROBE_SLICES),
            baselines: Default::default(),
            shifts: Default::default(),
            failed_in_row: 0,
            role: Role::Unknown,
            replication_lag: None,
            replication_offset: None,
            memory: None,
            in_flight_usual: 0.0,
            erring: Latch::default(),
            lagging: Latch::default(),
            unavailable: Latch::default(),
            settling_until: Time::ZERO,
            window_at: now,
            owed_since: None,
        }
    }

    /// It was entered or connected to: what waited for that is answered now.
    pub(super) fn settle(&mut self, now: Time) {
        self.settling_until = self.settling_until.max(now + SETTLING);
        self.shifts.iter_mut().for_each(Shift::reset);
    }

    /// Takes one tick's summary; returns what the breaker is to count of it.
    pub(super) fn on_window(&mut self, now: Time, window: &WindowSummary, moment: Moment, group: &Settings) -> Calls {
        let against = window.errors.against_backend();
        let succeeded = window.requests.saturating_sub(against);
        self.reliability.requests(now, succeeded, &window.errors);
        self.note_owed(now, window);
        if window.requests > 0 {
            let slice = self.requests.at(now);
            slice.ended = slice.ended.saturating_add(window.requests);
            slice.failed = slice.failed.saturating_add(against.min(window.requests));
            for (all, latest) in slice.latency.iter_mut().zip(&window.latency) {
                all.merge(latest);
            }
            self.failed_in_row = if succeeded > 0 { 0 } else { self.failed_in_row.saturating_add(against) };
        }
        let in_flight = f64::from(window.in_flight);
        self.in_flight_usual += (in_flight - self.in_flight_usual) / IN_FLIGHT_PARTS;
        // What ended now may have been asked, and waited, before or while we did not run.
        let asked = self.window_at.min(now - group.timeout.request);
        let blind = !moment.blind.overlap(asked, now).is_zero();
        self.window_at = now;
        let excused = blind || moment.slow || now < self.settling_until;
        let slow = if excused { 0 } else { self.late(window, group) };
        self.judge_latency(now, window, excused, moment.well && against == 0, group);
        Calls { succeeded: succeeded.saturating_sub(slow), failed: 0, slow: slow.min(succeeded) }
    }

    fn judge_latency(&mut self, now: Time, window: &WindowSummary, excused: bool, well: bool, group: &Settings) {
        let suspected = self.shifts.iter().any(Shift::suspected);
        for (place, class) in JUDGED.iter().enumerate() {
            let latencies = &window.latency[class.index()];
            let baseline = &mut self.baselines[place];
            if excused {
                baseline.disturb();
                continue;
            }
            if let Some(lines) = baseline.lines(&group.performance) {
                self.shifts[place].update(now, latencies, lines);
            }
            if well && !suspected {
                baseline.learn(now, latencies, &group.performance);
            } else {
                baseline.disturb();
            }
        }
    }

    /// Replies that came too late to be of use.
    fn late(&self, window: &WindowSummary, group: &Settings) -> u64 {
        let longest = group.health.response_time.max(group.timeout.floor).as_micros() as f64;
        let floor = group.timeout.floor.as_micros() as f64;
        let late = JUDGED.iter().enumerate().map(|(place, class)| {
            let limit =
                self.baselines[place].tail_us().map_or(longest, |tail| (tail * LATE_TAILS).clamp(floor, longest));
            window.latency[class.index()].above(limit as u64)
        });
        late.sum()
    }

    pub(super) fn on_answer(&mut self, now: Time, answer: &ProbeAnswer, group: &Settings) {
        self.reliability.attempt(now, None);
        let probes = self.probes.at(now);
        probes.answered = probes.answered.saturating_add(1);
        self.role = answer.role;
        self.replication_lag = answer.replication_lag;
        self.replication_offset = answer.replication_offset;
        self.memory = answer.memory.or(self.memory);
        let lag = answer.replication_lag.unwrap_or_default();
        self.lagging.update(lag.as_secs_f64(), group.health.replication_lag.as_secs_f64());
    }

    pub(super) fn on_failed_probe(&mut self, now: Time) {
        let probes = self.probes.at(now);
        probes.failed = probes.failed.saturating_add(1);
    }

    /// Something came from it at `at`. `excused`: the silence before it says nothing.
    pub(super) fn heard(&mut self, at: Time, excused: bool) {
        if excused {
            self.phi.excuse(at)
        } else {
            self.phi.heartbeat(at)
        }
        if let Some(since) = &mut self.owed_since {
            *since = at.max(*since);
        }
    }

    fn note_owed(&mut self, now: Time, window: &WindowSummary) {
        if window.in_flight == 0 {
            self.owed_since = None;
        } else {
            let heard = window.last_progress.unwrap_or(Time::ZERO).min(now);
            let since = self.owed_since.unwrap_or(now);
            self.owed_since = Some(since.max(heard));
        }
    }

    /// How long it has owed replies and been silent, as far as we could see.
    pub(super) fn owed_for(&self, now: Time, blind: Blind) -> Duration {
        self.owed_since.map_or(Duration::ZERO, |since| (now - since).saturating_sub(blind.overlap(since, now)))
    }

    /// How surprising its silence is, with time in which we did not run left out.
    pub(super) fn phi(&self, now: Time, group: &Settings, blind: Blind) -> f64 {
        // Probes come with a tenth of jitter.
        let expected = if self.owed_since.is_some() { Duration::ZERO } else { group.phi.interval * 11 / 10 };
        let blind = self.phi.last().map_or(Duration::ZERO, |last| blind.overlap(last, now));
        self.phi.phi(now - blind, expected)
    }

    pub(super) fn update_latches(&mut self, now: Time, error_rate_at_least: f64, group: &Settings) {
        self.erring.update(error_rate_at_least, group.health.error_rate);
        let unavailable = self.availability(now).map_or(0.0, |share| 1.0 - share);
        self.unavailable.update(unavailable, (1.0 - group.health.availability).max(f64::EPSILON));
    }

    /// Share of good probes within the last minute; `None` while there were too few.
    pub(super) fn availability(&self, now: Time) -> Option<f64> {
        let (answered, failed) =
            self.probes.all(now).fold((0, 0), |sum, probes| (sum.0 + probes.answered, sum.1 + probes.failed));
        (answered + failed >= PROBES_MIN).then(|| answered as f64 / (answered + failed) as f64)
    }

    /// What requests of a class took within the window.
    pub(super) fn latency(&self, now: Time, class: CommandClass) -> Sketch {
        let mut all = Sketch::default();
        self.requests.all(now).for_each(|slice| all.merge(&slice.latency[class.index()]));
        all
    }

    pub(super) fn learnt(&self) -> [Learnt; JUDGED.len()] {
        std::array::from_fn(|place| self.baselines[place].learnt())
    }

    /// The class whose slowness is sustained and significant, if there is one: its place and since when.
    ///
    /// The latency of multi-key commands grows with arguments that the application chooses: where point reads and
    /// writes are served as ever, they only use more keys than before.
    pub(super) fn shifted(&self, now: Time) -> Option<(usize, Time)> {
        let convicted = |place: usize| self.shifts[place].convicted(now).map(|since| (place, since));
        let points_tell = |place: usize| {
            let few = self.latency(now, JUDGED[place]).count() < COMPARABLE_MIN;
            !few && self.baselines[place].median_us().is_some()
        };
        convicted(0).or_else(|| convicted(1)).or_else(|| convicted(2).filter(|_| !points_tell(0) && !points_tell(1)))
    }
}
