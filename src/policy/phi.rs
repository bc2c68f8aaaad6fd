//! How surprising a silence is: the phi-accrual failure detector of N. Hayashibara, X. Défago, R. Yared and T. Katayama
//! (SRDS 2004). Phi 8 says that one in 10^8 healthy intervals lasts as long as the present silence.
//!
//! Heartbeats are replies of any kind, requests' and probes'. Four things are added to the paper: a floor on the
//! deviation (a fast link in a calm hour would find 20 ms surprising, and a pause that is to be forgiven must never be),
//! an estimate to begin with, intervals that are left out because the silence was excused, and thresholds that rise
//! where healthy intervals have lately been more surprising than they should (the tail is heavier than normal).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::PhiSettings;
use super::statistics::minus_log10_tail;
use super::time::Time;

/// Intervals that the estimate is made of, as in the paper's experiments (1,000 there, at ten times our rate).
const WINDOW: usize = 200;
/// No interval says more than this: one night without requests must not make the next night normal. Keeps the sums far
/// from overflowing, too.
const INTERVAL_US_MAX: u64 = 60_000_000;
/// The deviation is at least this share of the floor of all silence. A pause that is forgiven (500 of 650 ms, 150 of 190)
/// then stays below phi 8 whatever was learnt, and phi 16 comes a quarter after the floor.
const DEVIATION_MIN_PARTS: u32 = 6;
/// Only intervals so many deviations long are looked at for the thresholds' sake.
const LONG_DEVIATIONS: f64 = 4.0;
/// How fast such a surprise is forgotten: a half after 700 heartbeats, some minutes of probes.
const PEAK_DECAY: f64 = 0.999;
/// Thresholds rise to half as much again and no further.
const THRESHOLD_RISE_MAX: f64 = 0.5;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phi {
    intervals_us: Vec<u32>,
    /// Where the next interval goes once the window is full.
    next: usize,
    sum_us: u64,
    squares_us: u64,
    deviation_min_us: f64,
    last: Option<Time>,
    /// The highest phi that a healthy interval reached lately.
    peak: f64,
}

impl Phi {
    /// `floor` is the shortest silence that is ever believed (`timeout.floor`).
    pub fn new(settings: &PhiSettings, floor: Duration) -> Self {
        let deviation_min_us = (floor / DEVIATION_MIN_PARTS).as_micros() as f64;
        let mut phi = Self {
            intervals_us: Vec::with_capacity(WINDOW),
            next: 0,
            sum_us: 0,
            squares_us: 0,
            deviation_min_us: deviation_min_us.max(1.0),
            last: None,
            peak: 0.0,
        };
        // Two intervals whose mean is what is expected and whose deviation is a quarter of it.
        let expected = settings.interval.as_micros().min(u128::from(INTERVAL_US_MAX)) as u64;
        phi.learn(expected - expected / 4);
        phi.learn(expected + expected / 4);
        phi
    }

    /// Something came from the backend at `now`.
    #[inline]
    pub fn heartbeat(&mut self, now: Time) {
        let Some(last) = self.last.replace(now) else { return };
        let interval = now.as_micros().saturating_sub(last.as_micros()).min(INTERVAL_US_MAX);
        self.peak *= PEAK_DECAY;
        let over = interval as f64 - self.mean_us();
        if over > LONG_DEVIATIONS * self.deviation_min_us {
            self.peak = self.peak.max(minus_log10_tail(over / self.deviation_us()));
        }
        self.learn(interval);
    }

    /// Something came, and the silence before it says nothing: we did not run, a slow request was at work, or it had
    /// failed.
    pub fn excuse(&mut self, now: Time) {
        self.last = Some(now);
    }

    /// Phi at `now`. While nothing is owed, only the next probe is waited for: then the interval expected is at least
    /// `expected`.
    #[inline]
    pub fn phi(&self, now: Time, expected: Duration) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let silence = now.as_micros().saturating_sub(last.as_micros()) as f64;
        let mean = self.mean_us().max(expected.as_micros() as f64);
        minus_log10_tail((silence - mean) / self.deviation_us())
    }

    /// The thresholds of suspicion and failure, raised where the tail has proved to be heavy.
    pub fn thresholds(&self, settings: &PhiSettings) -> (f64, f64) {
        let rise = (self.peak + 1.0 - settings.suspect).clamp(0.0, settings.suspect * THRESHOLD_RISE_MAX);
        (settings.suspect + rise, settings.failed + rise * settings.failed / settings.suspect.max(1.0))
    }

    /// When something came last.
    pub fn last(&self) -> Option<Time> {
        self.last
    }

    /// What an interval takes on average.
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.mean_us() as u64)
    }

    fn mean_us(&self) -> f64 {
        self.sum_us as f64 / self.intervals_us.len() as f64
    }

    fn deviation_us(&self) -> f64 {
        let mean = self.mean_us();
        let variance = self.squares_us as f64 / self.intervals_us.len() as f64 - mean * mean;
        variance.max(0.0).sqrt().max(self.deviation_min_us)
    }

    #[inline]
    fn learn(&mut self, interval_us: u64) {
        self.sum_us += interval_us;
        self.squares_us += interval_us * interval_us;
        let interval = interval_us as u32;
        if self.intervals_us.len() < WINDOW {
            self.intervals_us.push(interval);
            return;
        }
        let oldest = u64::from(std::mem::replace(&mut self.intervals_us[self.next], interval));
        self.sum_us -= oldest;
        self.squares_us -= oldest * oldest;
        self.next = if self.next + 1 == WINDOW { 0 } else { self.next + 1 };
    }
}

const _: () = assert!(INTERVAL_US_MAX <= u32::MAX as u64);
const _: () = assert!(INTERVAL_US_MAX * INTERVAL_US_MAX <= u64::MAX / (WINDOW as u64 + 1));

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A detector that heard something every `interval` for a long time, and when it heard it last.
    fn used_to(interval: Duration, floor: Duration) -> (Phi, Time) {
        let mut phi = Phi::new(&PhiSettings::default(), floor);
        let mut now = Time::from_secs(1);
        for _ in 0..500 {
            phi.heartbeat(now);
            now += interval;
        }
        phi.heartbeat(now);
        (phi, now)
    }

    #[test]
    fn a_pause_that_is_forgiven_is_never_suspicious_and_a_longer_one_is() {
        for (floor, pause) in [(650 * MS, 500 * MS), (190 * MS, 150 * MS)] {
            let (phi, last) = used_to(5 * MS, floor);
            assert!(phi.phi(last + pause, Duration::ZERO) < 8.0, "{}", phi.phi(last + pause, Duration::ZERO));
            assert!(phi.phi(last + floor, Duration::ZERO) > 8.0);
            assert!(phi.phi(last + floor + floor / 2, Duration::ZERO) > 16.0);
        }
    }

    #[test]
    fn between_probes_only_the_next_probe_is_waited_for() {
        let (phi, last) = used_to(5 * MS, 650 * MS);
        let quiet = last + 1_000 * MS;
        assert!(phi.phi(quiet, Duration::ZERO) > 16.0);
        assert!(phi.phi(quiet, 500 * MS) < 8.0);
    }

    #[test]
    fn before_anything_was_learnt_the_interval_of_the_probes_is_expected() {
        let mut phi = Phi::new(&PhiSettings::default(), 650 * MS);
        assert_eq!(phi.phi(Time::from_secs(9), Duration::ZERO), 0.0, "never heard from is another verdict");
        phi.heartbeat(Time::from_secs(10));
        assert!(phi.phi(Time::from_secs(10) + 600 * MS, Duration::ZERO) < 1.5);
        assert!(phi.phi(Time::from_secs(10) + 2_000 * MS, Duration::ZERO) > 8.0);
    }

    #[test]
    fn silence_that_was_excused_is_not_learnt() {
        let (mut phi, last) = used_to(50 * MS, 650 * MS);
        let mean = phi.mean();
        phi.excuse(last + Duration::from_secs(30));
        phi.heartbeat(last + Duration::from_secs(30) + 50 * MS);
        assert_eq!(phi.mean(), mean);
    }

    #[test]
    fn thresholds_rise_with_surprises_that_ended_well_and_fall_again() {
        let settings = PhiSettings::default();
        let (mut phi, mut now) = used_to(50 * MS, 650 * MS);
        assert_eq!(phi.thresholds(&settings), (8.0, 16.0));
        now += 800 * MS;
        phi.heartbeat(now);
        let (suspect, failed) = phi.thresholds(&settings);
        assert!(suspect > 9.0 && suspect <= 12.0 && failed > 18.0 && failed <= 24.0, "{suspect} {failed}");
        for _ in 0..2_000 {
            now += 50 * MS;
            phi.heartbeat(now);
        }
        assert_eq!(phi.thresholds(&settings), (8.0, 16.0));
    }

    #[test]
    fn the_sums_stay_those_of_the_window() {
        let mut phi = Phi::new(&PhiSettings::default(), 650 * MS);
        let mut now = Time::from_secs(1);
        for step in 0..1_000_u64 {
            now += Duration::from_micros(step * step % 7_919 * 1_000);
            phi.heartbeat(now);
        }
        assert_eq!(phi.intervals_us.len(), WINDOW);
        assert_eq!(phi.sum_us, phi.intervals_us.iter().map(|us| u64::from(*us)).sum::<u64>());
        assert_eq!(phi.squares_us, phi.intervals_us.iter().map(|us| u64::from(*us).pow(2)).sum::<u64>());
    }
}
