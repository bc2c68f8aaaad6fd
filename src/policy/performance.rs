//! The gray failure: a backend that answers its probes and serves its requests late.
//!
//! One class of requests is judged by a sequential test (a CUSUM of Bernoulli log-likelihoods, E. S. Page 1954): is nearly
//! every reply over the degraded line, rather than no more than half of them? Each reply over it adds 0.64, each under it
//! takes 2.3 away, so a quarter of good replies keeps the sum at zero: one slow reply, a tail, jitter on 30 % of the
//! replies and pauses with good service between them never add up. At 13.8 the chance of error is one in a million.
//!
//! Where few requests come, 22 of them may take longer than clients should wait. Replies far over the line (nine times the
//! shift: 45 ms where 0.3 ms are usual) prove more, so a second sum asks of them: nearly every reply, rather than no more
//! than a quarter? Each adds 1.33, each other takes 2.7 away, and eleven are enough, at the same chance of error.
//!
//! Replies of one moment are not independent, so a second weighs 20 replies at most, however many came: 50,000
//! requests/s prove no more per second than 20 do. With the least duration this makes the verdict take 2.5 s at 20
//! requests/s and more, and 3 s at 8.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sketch::Sketch;
use super::time::Time;

/// ln(0.95 / 0.5) and ln(0.5 / 0.05): what a reply over and under the line says for "95 % are over it" against "half are".
const OVER: f64 = 0.642;
const UNDER: f64 = 2.303;
/// ln(0.95 / 0.25) and ln(0.75 / 0.05): the same for "95 % are far over it" against "a quarter is".
const FAR_OVER: f64 = 1.335;
const FAR_UNDER: f64 = 2.708;
/// ln(10^6).
const CONVICTED: f64 = 13.8;
/// Good service must be able to undo a conviction soon: in two seconds.
const SUM_MAX: f64 = 2.0 * CONVICTED;
/// Replies that a second weighs at most, and that one tick does after a silence.
const WEIGHT_PER_SECOND: f64 = 20.0;
const WEIGHT_PER_TICK_MAX: f64 = 4.0;
/// A shift that has lasted for less is a hiccup.
const SUSTAINED: Duration = Duration::from_millis(2_500);
/// News older than this says nothing about now.
const STALE: Duration = Duration::from_secs(5);

/// From where on a reply is degraded, and far more than that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    pub(super) degraded_us: f64,
    pub(super) far_us: f64,
}

/// The test of one class on one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shift {
    sum: f64,
    far_sum: f64,
    weight: f64,
    updated: Time,
    /// When the sum left zero, and all replies since then.
    since: Option<Time>,
    replies: Sketch,
}

impl Shift {
    /// Takes the replies of one tick.
    pub(super) fn update(&mut self, now: Time, replies: &Sketch, lines: Lines) {
        let waited = (now - self.updated).as_secs_f64();
        self.weight = (self.weight + waited * WEIGHT_PER_SECOND).min(WEIGHT_PER_TICK_MAX);
        let count = replies.count();
        if count == 0 {
            return;
        }
        if now - self.updated > STALE {
            self.reset();
        }
        self.updated = now;
        let weight = self.weight.min(count as f64);
        self.weight -= weight;
        let over = |line_us: f64| replies.above(line_us as u64) as f64 / count as f64;
        let (over, far) = (over(lines.degraded_us), over(lines.far_us));
        self.sum = (self.sum + weight * (over * OVER - (1.0 - over) * UNDER)).clamp(0.0, SUM_MAX);
        self.far_sum = (self.far_sum + weight * (far * FAR_OVER - (1.0 - far) * FAR_UNDER)).clamp(0.0, SUM_MAX);
        if self.sum > 0.0 {
            self.since.get_or_insert(now);
            self.replies.merge(replies);
        } else {
            self.reset();
        }
    }

    pub(super) fn reset(&mut self) {
        self.sum = 0.0;
        self.far_sum = 0.0;
        self.since = None;
        self.replies.clear();
    }

    /// There are signs of a shift, sustained or not.
    pub(super) fn suspected(&self) -> bool {
        self.surest() >= CONVICTED / 3.0
    }

    /// Since when it is sustained and significant, if it is.
    pub(super) fn convicted(&self, now: Time) -> Option<Time> {
        let since = self.since.filter(|_| self.surest() >= CONVICTED && now - self.updated <= STALE)?;
        (now - since >= SUSTAINED).then_some(since)
    }

    /// How sure it is, 0 to 1: one less the chance that a class half of whose replies are over the line (or a quarter far
    /// over it) looks so.
    pub(super) fn confidence(&self) -> f64 {
        1.0 - (-self.surest()).exp()
    }

    fn surest(&self) -> f64 {
        self.sum.max(self.far_sum)
    }

    /// The median reply since the shift began.
    pub(super) fn median_us(&self) -> Option<u64> {
        self.replies.quantile_us(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::seed::mix;

    const TICK_MS: u64 = 50;
    const LINES: Lines = Lines { degraded_us: 5_300.0, far_us: 45_300.0 };

    struct Bench {
        shift: Shift,
        tick: u64,
        due: f64,
        draw: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { shift: Shift::default(), tick: 0, due: 0.0, draw: 7 }
        }

        fn now(&self) -> Time {
            Time::from_millis(self.tick * TICK_MS)
        }

        /// A uniform number below 1.
        fn chance(&mut self) -> f64 {
            self.draw = mix(self.draw);
            (self.draw >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// Runs `seconds` of `per_second` replies whose latency `latency_us` tells from a uniform number; when it was
        /// convicted, if it was.
        fn run(&mut self, seconds: u64, per_second: f64, latency_us: impl Fn(f64) -> u64) -> Option<Duration> {
            let began = self.now();
            for _ in 0..seconds * 1_000 / TICK_MS {
                self.tick += 1;
                self.due += per_second * TICK_MS as f64 / 1_000.0;
                let mut replies = Sketch::default();
                while self.due >= 1.0 {
                    self.due -= 1.0;
                    let chance = self.chance();
                    replies.record(latency_us(chance), 1);
                }
                self.shift.update(self.now(), &replies, LINES);
                if self.shift.convicted(self.now()).is_some() {
                    return Some(self.now() - began);
                }
            }
            None
        }
    }

    #[test]
    fn a_hundred_milliseconds_more_are_found_within_five_seconds_from_eight_requests_a_second_on() {
        for per_second in [8.0, 10.0, 20.0, 200.0, 50_000.0] {
            let mut bench = Bench::new();
            assert_eq!(bench.run(20, per_second, |_| 300), None);
            let after = bench.run(5, per_second, |_| 100_300).expect("found");
            assert!(after >= SUSTAINED && after <= Duration::from_millis(4_000), "{per_second}/s: {after:?}");
            assert!(bench.shift.confidence() > 0.999 && bench.shift.median_us() > Some(100_000));
        }
    }

    #[test]
    fn few_requests_that_come_by_chance_are_enough_where_they_are_far_too_slow() {
        // Ten a second, a fourth of them writes that are as fast as ever: 7.5 reads come each second, on average.
        for seed in 0..2_000 {
            let mut bench = Bench { draw: seed, ..Bench::new() };
            let mut found = None;
            for tick in 0..100 {
                bench.tick += 1;
                let mut reads = Sketch::default();
                // At most four in one tick: nearly never more.
                (0..4).filter(|_| bench.chance() < 7.5 / 20.0 / 4.0).for_each(|_| reads.record(100_300, 1));
                bench.shift.update(bench.now(), &reads, LINES);
                found = found.or(bench.shift.convicted(bench.now()).map(|_| tick));
            }
            assert!(found.is_some(), "not within 5 s, seed {seed}");
        }
    }

    #[test]
    fn a_third_of_replies_that_are_far_too_slow_is_a_tail_and_no_shift() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(20_000, 10.0, |chance| if chance < 0.33 { 400_000 } else { 300 }), None);
    }

    #[test]
    fn heavy_tails_are_no_shift_at_any_load() {
        for per_second in [1.0, 10.0, 200.0, 5_000.0] {
            let mut bench = Bench::new();
            // 30 % of the replies wait for a Pareto-distributed time, 20 ms and more.
            let jitter = |chance: f64| if chance < 0.3 { (20_000.0 / (chance / 0.3).max(1e-4)) as u64 } else { 300 };
            assert_eq!(bench.run(3_600, per_second, jitter), None, "{per_second}/s");
        }
    }

    #[test]
    fn bursts_after_pauses_never_add_up() {
        let mut bench = Bench::new();
        for _ in 0..1_000 {
            // Half a second of silence; all that waited is answered in one tick; a fifth of a second of good service.
            bench.tick += 10;
            let burst = Sketch::of((0..100).map(|n| n * 5_000));
            bench.shift.update(bench.now(), &burst, LINES);
            for _ in 0..4 {
                bench.tick += 1;
                bench.shift.update(bench.now(), &Sketch::of([300; 10]), LINES);
            }
            assert_eq!(bench.shift.convicted(bench.now()), None);
        }
    }

    #[test]
    fn a_hiccup_of_two_seconds_is_no_shift_and_good_service_undoes_one() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(2, 1_000.0, |_| 50_000), None);
        assert!(bench.shift.suspected());
        assert_eq!(bench.run(1, 1_000.0, |_| 300), None);
        assert!(!bench.shift.suspected());
        assert!(bench.run(10, 1_000.0, |_| 50_000).is_some());
        for _ in 0..40 {
            bench.tick += 1;
            bench.shift.update(bench.now(), &Sketch::of([300; 50]), LINES);
        }
        assert_eq!((bench.shift.convicted(bench.now()), bench.shift.median_us()), (None, None));
    }

    #[test]
    fn old_news_convicts_nobody() {
        let mut bench = Bench::new();
        assert!(bench.run(10, 100.0, |_| 50_000).is_some());
        bench.tick += 200;
        assert_eq!(bench.shift.convicted(bench.now()), None);
    }
}
