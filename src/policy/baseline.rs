//! What latency a class of requests has on a backend that is well. Degradation is measured against it.
//!
//! Learnt from good times only: whoever feeds it leaves out the time of any trouble, and it leaves out by itself what looks
//! degraded. It follows slower service slowly and faster service fast, so that a decay over an hour is still noticed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::performance::Lines;
use super::settings::PerformanceSettings;
use super::sketch::Sketch;
use super::time::Time;

/// Requests whose median is one lesson, over at least [`LESSON_TIME`].
const LESSON_REQUESTS: u64 = 30;
const LESSON_TIME: Duration = Duration::from_secs(1);
/// Lessons before the baseline is believed.
const LESSONS_MIN: u32 = 3;
/// The first lessons are averaged; later ones move it by this part when they are slower (at most a lesson a second: half
/// of a change is learnt in six minutes of full load) or faster.
const SLOWER_PARTS: f64 = 512.0;
const FASTER_PARTS: f64 = 16.0;
/// What was remembered from another life counts as so many lessons: where it does not fit any more it is unlearnt in
/// minutes.
const REMEMBERED_LESSONS_MAX: u32 = 64;
/// A shift so many times as large as one that degrades is plain.
const FAR_SHIFTS: f64 = 9.0;
/// Service that has been degraded for so long without a break, and was not left for it, is how things are now.
const RELEARN_AFTER: Duration = Duration::from_secs(30 * 60);

/// What was learnt, to be kept across restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Learnt {
    pub median_us: f64,
    /// Its 99th percentile.
    pub tail_us: f64,
    pub lessons: u32,
}

/// The baseline of one class on one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ClassBaseline {
    learnt: Learnt,
    gathered: Sketch,
    since: Option<Time>,
    degraded_since: Option<Time>,
}

impl ClassBaseline {
    /// Takes the latencies of a good moment.
    pub(super) fn learn(&mut self, now: Time, latencies: &Sketch, settings: &PerformanceSettings) {
        if latencies.is_empty() {
            return;
        }
        let since = *self.since.get_or_insert(now);
        self.gathered.merge(latencies);
        if now - since < LESSON_TIME || self.gathered.count() < LESSON_REQUESTS {
            return;
        }
        let (median, tail) = (self.gathered.quantile_us(0.5), self.gathered.quantile_us(0.99));
        self.gathered.clear();
        self.since = None;
        if let (Some(median), Some(tail)) = (median, tail) {
            self.take(now, median as f64, tail as f64, settings);
        }
    }

    /// The present moment is not good: what was gathered around it is not learnt from.
    pub(super) fn disturb(&mut self) {
        if self.since.take().is_some() {
            self.gathered.clear();
        }
    }

    pub(super) fn median_us(&self) -> Option<f64> {
        (self.learnt.lessons >= LESSONS_MIN).then_some(self.learnt.median_us)
    }

    pub(super) fn median(&self) -> Option<Duration> {
        self.median_us().map(|micros| Duration::from_micros(micros as u64))
    }

    pub(super) fn tail_us(&self) -> Option<f64> {
        (self.learnt.lessons >= LESSONS_MIN).then_some(self.learnt.tail_us)
    }

    /// From where on a reply is degraded: half as slow again (`degradation_threshold`), and by `min_shift` at least. Far
    /// more than degraded: nine times that shift.
    pub(super) fn lines(&self, settings: &PerformanceSettings) -> Option<Lines> {
        self.median_us().map(|median_us| {
            let degraded_us = degraded_from_us(median_us, settings);
            Lines { degraded_us, far_us: median_us + (degraded_us - median_us) * FAR_SHIFTS }
        })
    }

    pub(super) fn learnt(&self) -> Learnt {
        self.learnt
    }

    /// Takes up what an earlier process learnt; nonsense is not taken.
    pub(super) fn remember(&mut self, learnt: Learnt) {
        let sound = |micros: f64| micros.is_finite() && (0.0..1e9).contains(&micros);
        if sound(learnt.median_us) && sound(learnt.tail_us) {
            self.learnt = Learnt { lessons: learnt.lessons.min(REMEMBERED_LESSONS_MAX), ..learnt };
        }
    }

    fn take(&mut self, now: Time, median: f64, tail: f64, settings: &PerformanceSettings) {
        if self.lines(settings).is_some_and(|lines| median > lines.degraded_us) {
            let since = *self.degraded_since.get_or_insert(now);
            if now - since >= RELEARN_AFTER {
                *self = Self::default();
            }
            return;
        }
        self.degraded_since = None;
        let learnt = &mut self.learnt;
        let first = 1.0 / (f64::from(learnt.lessons) + 1.0);
        let blend = |from: f64, to: f64| {
            let parts = if to > from { SLOWER_PARTS } else { FASTER_PARTS };
            from + (to - from) * first.max(1.0 / parts)
        };
        learnt.median_us = blend(learnt.median_us, median);
        learnt.tail_us = blend(learnt.tail_us, tail);
        learnt.lessons = learnt.lessons.saturating_add(1);
    }
}

/// See [`ClassBaseline::lines`].
pub(super) fn degraded_from_us(median_us: f64, settings: &PerformanceSettings) -> f64 {
    let share = median_us * settings.degradation_threshold.max(0.0);
    median_us + share.max(settings.min_shift.as_micros() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `seconds` of 100 requests a second that take about `micros`, from `from` on.
    fn feed(baseline: &mut ClassBaseline, from: u64, seconds: u64, micros: u64) {
        let settings = PerformanceSettings::default();
        for tick in from * 20..(from + seconds) * 20 {
            let latencies = Sketch::of([micros, micros + micros / 10, micros - micros / 10, micros, micros * 3]);
            baseline.learn(Time::from_millis(tick * 50), &latencies, &settings);
        }
    }

    fn learnt(micros: u64) -> ClassBaseline {
        let mut baseline = ClassBaseline::default();
        feed(&mut baseline, 0, 60, micros);
        baseline
    }

    fn about(baseline: &ClassBaseline, micros: f64) -> bool {
        baseline.median_us().is_some_and(|median| (median / micros - 1.0).abs() < 0.15)
    }

    #[test]
    fn it_is_believed_after_a_few_lessons_only() {
        let mut baseline = ClassBaseline::default();
        feed(&mut baseline, 0, 2, 300);
        assert_eq!(baseline.median_us(), None);
        feed(&mut baseline, 2, 3, 300);
        assert!(about(&baseline, 300.0), "{baseline:?}");
        assert!(baseline.tail_us().is_some_and(|tail| tail > 800.0));
    }

    #[test]
    fn at_one_request_a_second_a_lesson_takes_its_requests() {
        let mut baseline = ClassBaseline::default();
        for second in 0..200 {
            baseline.learn(Time::from_secs(second), &Sketch::of([300]), &PerformanceSettings::default());
            assert_eq!(baseline.median_us().is_some(), second >= 89, "at {second} s");
        }
    }

    #[test]
    fn what_looks_degraded_is_not_learnt_until_it_has_lasted_for_half_an_hour() {
        let mut baseline = learnt(300);
        feed(&mut baseline, 60, 29 * 60, 100_300);
        assert!(about(&baseline, 300.0), "{baseline:?}");
        feed(&mut baseline, 60 + 29 * 60, 3 * 60, 100_300);
        assert!(about(&baseline, 100_300.0), "{baseline:?}");
    }

    #[test]
    fn slower_service_is_followed_slowly_and_faster_service_fast() {
        let mut slower = learnt(10_000);
        feed(&mut slower, 60, 30, 13_000);
        assert!(slower.median_us().is_some_and(|median| median < 11_500.0), "{slower:?}");
        let mut faster = learnt(10_000);
        feed(&mut faster, 60, 60, 1_000);
        assert!(faster.median_us().is_some_and(|median| median < 2_000.0), "{faster:?}");
    }

    #[test]
    fn what_surrounds_a_disturbance_is_forgotten() {
        let mut baseline = learnt(300);
        baseline.disturb();
        let before = baseline.learnt();
        for tick in 0..100 {
            let latencies = Sketch::of(std::iter::repeat_n(4_000, 50));
            baseline.learn(Time::from_millis(70_000 + tick * 50), &latencies, &PerformanceSettings::default());
            baseline.disturb();
        }
        assert_eq!(baseline.learnt(), before);
    }

    #[test]
    fn degraded_is_half_as_slow_again_and_five_milliseconds_at_least() {
        let settings = PerformanceSettings::default();
        assert_eq!(degraded_from_us(300.0, &settings), 5_300.0);
        assert_eq!(degraded_from_us(40_000.0, &settings), 60_000.0);
    }

    #[test]
    fn memory_is_believed_at_once_and_nonsense_is_not() {
        let mut baseline = ClassBaseline::default();
        baseline.remember(Learnt { median_us: f64::NAN, tail_us: 1.0, lessons: 9 });
        baseline.remember(Learnt { median_us: -3.0, tail_us: 1.0, lessons: 9 });
        assert_eq!(baseline.median_us(), None);
        baseline.remember(Learnt { median_us: 300.0, tail_us: 900.0, lessons: 1_000_000 });
        assert_eq!((baseline.median_us(), baseline.learnt().lessons), (Some(300.0), REMEMBERED_LESSONS_MAX));
    }
}
