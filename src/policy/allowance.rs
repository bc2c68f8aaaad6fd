//! What is learned from recorded latency: how long a request may go without progress, and what a well backend's probe
//! takes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::TimeoutSettings;

/// Allowance in tails: a reply that takes eight times the recorded tail is late. Wide, because a false stall costs a
/// switch while a late one costs only the difference to the floor.
const TAILS: u32 = 8;
/// A higher tail is believed by a sixteenth per window: one 500 ms pause must not leave an allowance of seconds.
const RISE: u64 = 16;
/// A lower tail is believed by a 64th per window: the maximum of p99 over some seconds is close to a p99.9.
const FALL: u64 = 64;
/// Changes within 10 % are not worth telling.
const TELL_PERCENT: u128 = 10;

/// Probe samples before a baseline is believed.
const BASELINE_SAMPLES_MIN: u32 = 5;

/// How slowly the baseline follows what looks ill.
const FAR: u64 = 4_096;

/// The allowance of one bounded command class on one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Allowance {
    tail_us: u64,
    told: Duration,
}

/// Probe latency when the backend is well, and now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    samples: u32,
    /// Sixteenths of a microsecond, so that slow adaptation does not round away.
    well_us16: u64,
    recent_us16: Option<u64>,
}

impl Allowance {
    pub(super) fn new(told: Duration) -> Self {
        Self { tail_us: 0, told }
    }

    /// Takes the p99 of one good window; returns the new allowance when it differs enough from the one told last.
    pub(super) fn record(&mut self, p99_us: u64, settings: &TimeoutSettings) -> Option<Duration> {
        if p99_us > self.tail_us {
            self.tail_us += (p99_us - self.tail_us).div_ceil(RISE);
        } else {
            self.tail_us -= (self.tail_us - p99_us) / FALL;
        }
        let longest = settings.request.max(settings.floor);
        let allowance = Duration::from_micros(self.tail_us).saturating_mul(TAILS).clamp(settings.floor, longest);
        let apart = allowance.abs_diff(self.told).as_micros() * 100;
        let back_to_floor = allowance == settings.floor && self.told != allowance;
        if apart <= self.told.as_micros() * TELL_PERCENT && !back_to_floor {
            return None;
        }
        self.told = allowance;
        Some(allowance)
    }
}

impl Baseline {
    /// Takes one good probe. The baseline follows only what looks well; what does not moves it by a 4096th, so that
    /// a backend that moved further away for good is accepted in the end (after half an hour of probes).
    pub(super) fn record(&mut self, latency: Duration, slack: Duration) {
        let sample = micros16(latency);
        let recent = self.recent_us16.get_or_insert(sample);
        *recent = blend(*recent, sample, 4);
        self.samples = self.samples.saturating_add(1);
        if self.samples <= BASELINE_SAMPLES_MIN {
            self.well_us16 = blend(self.well_us16, sample, u64::from(self.samples));
        } else {
            let well = sample <= self.well_us16.saturating_mul(2).saturating_add(micros16(slack));
            self.well_us16 = blend(self.well_us16, sample, if well { 32 } else { FAR });
        }
    }

    /// What it is now says nothing any more: it failed since.
    pub(super) fn forget_recent(&mut self) {
        self.recent_us16 = None;
    }

    /// What is worth keeping across restarts.
    pub(super) fn kept(&self) -> Self {
        Self { recent_us16: None, samples: self.samples.min(BASELINE_SAMPLES_MIN), ..self.clone() }
    }

    pub(super) fn well(&self) -> Option<Duration> {
        (self.samples >= BASELINE_SAMPLES_MIN).then(|| Duration::from_micros(self.well_us16 / 16))
    }

    pub(super) fn recent(&self) -> Option<Duration> {
        self.recent_us16.map(|us16| Duration::from_micros(us16 / 16))
    }

    /// Whether probes take no longer than `factor` baselines and the slack. True while there is no baseline.
    pub(super) fn within(&self, factor: f64, slack: Duration) -> bool {
        match (self.well(), self.recent()) {
            (Some(well), Some(recent)) => recent.as_secs_f64() <= well.as_secs_f64() * factor + slack.as_secs_f64(),
            _ => true,
        }
    }
}

fn micros16(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).saturating_mul(16)
}

/// Moves `from` towards `to` by one part in `parts`.
fn blend(from: u64, to: u64, parts: u64) -> u64 {
    if to >= from { from + (to - from) / parts } else { from - (from - to) / parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_allowance_stays_between_the_floor_and_the_request_timeout() {
        let settings = TimeoutSettings::default();
        let mut allowance = Allowance::new(settings.floor);
        assert_eq!((0..1_000).filter_map(|_| allowance.record(300, &settings)).next(), None);
        let told: Vec<_> = (0..1_000).filter_map(|_| allowance.record(5_000_000, &settings)).collect();
        assert_eq!(told.last(), Some(&settings.request));
    }

    #[test]
    fn a_slow_backend_gets_a_longer_allowance_and_loses_it_again() {
        let settings = TimeoutSettings::default();
        let mut allowance = Allowance::new(settings.floor);
        let told: Vec<_> = (0..200).filter_map(|_| allowance.record(150_000, &settings)).collect();
        assert!(told.last().is_some_and(|last| *last > 1_100 * MS && *last <= 1_200 * MS), "{told:?}");
        let told: Vec<_> = (0..400).filter_map(|_| allowance.record(200, &settings)).collect();
        assert_eq!(told.last(), Some(&settings.floor));
    }

    #[test]
    fn one_pause_does_not_lengthen_the_allowance() {
        let settings = TimeoutSettings::default();
        let mut allowance = Allowance::new(settings.floor);
        (0..100).for_each(|_| assert_eq!(allowance.record(300, &settings), None));
        assert_eq!(allowance.record(500_000, &settings), None);
    }

    #[test]
    fn the_baseline_needs_samples_and_is_hardly_moved_by_bad_times() {
        let mut baseline = Baseline::default();
        (0..4).for_each(|_| baseline.record(MS, 5 * MS));
        assert_eq!(baseline.well(), None);
        (0..20).for_each(|_| baseline.record(MS, 5 * MS));
        (0..10).for_each(|_| baseline.record(100 * MS, 5 * MS));
        assert!(baseline.well().is_some_and(|well| well < 6 * MS), "{:?}", baseline.well());
        assert!(!baseline.within(3.0, 5 * MS));
        (0..10).for_each(|_| baseline.record(MS, 5 * MS));
        assert!(baseline.within(3.0, 5 * MS));
    }
}
