//! How long things take: a lognormal body and, where one is wanted, a Pareto tail. Drawn one by one for few requests and
//! by strata for many, so that 50,000 requests/s cost a tick as much as 500.

use std::time::Duration;

use super::random::{Random, normal_quantile};

/// Where the strata of a large draw end. Narrow at the top, since it is the tail that decides.
const STRATA: [f64; 17] =
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.999_5, 0.999_9, 1.0];
/// Up to so many requests of a class are drawn one by one.
const ONE_BY_ONE_MAX: u64 = 24;
/// Steps of the table of quantiles below [`TABLE_END`]; beyond, the formula is used.
const TABLE_STEPS: usize = 512;
const TABLE_END: f64 = 0.99;

/// A distribution of spans.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Latency {
    median_us: f64,
    sigma: f64,
    tail: Option<Tail>,
    table: Vec<f32>,
}

/// A share of the draws that follow a Pareto curve instead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tail {
    pub share: f64,
    pub from: Duration,
    /// The exponent: 1.1 is wild, 3 is tame.
    pub shape: f64,
    pub max: Duration,
}

impl Latency {
    /// Lognormal through this median and this 99th percentile.
    pub(super) fn new(median: Duration, p99: Duration, tail: Option<Tail>) -> Self {
        let median_us = (median.as_micros() as f64).max(1.0);
        let ratio = (p99.as_micros() as f64 / median_us).max(1.0);
        let mut latency = Self { median_us, sigma: ratio.ln() / normal_quantile(0.99), tail, table: Vec::new() };
        let step = |step: usize| latency.body(TABLE_END * step as f64 / TABLE_STEPS as f64) as f32;
        latency.table = (0..=TABLE_STEPS).map(step).collect();
        latency
    }

    pub(super) fn median(&self) -> Duration {
        Duration::from_micros(self.median_us as u64)
    }

    /// One span, in microseconds.
    pub(super) fn draw_us(&self, random: &mut Random) -> u64 {
        if let Some(tail) = self.tail
            && random.chance(tail.share)
        {
            return tail.draw_us(random);
        }
        let at = random.unit();
        self.quantile(at) as u64
    }

    pub(super) fn draw(&self, random: &mut Random) -> Duration {
        Duration::from_micros(self.draw_us(random))
    }

    /// `count` spans, as pairs of microseconds and how many took so long.
    pub(super) fn draw_many(&self, count: u64, random: &mut Random, mut take: impl FnMut(u64, u64, &mut Random)) {
        if count <= ONE_BY_ONE_MAX {
            for _ in 0..count {
                let drawn = self.draw_us(random);
                take(drawn, 1, random);
            }
            return;
        }
        let tailed = self.tail.map_or(0, |tail| random.binomial(count, tail.share));
        if let Some(tail) = self.tail {
            // The longest matter most, so few parts, of which the first is one request.
            let mut left = tailed;
            while left > 0 {
                let part = (left / 8).max(1).min(left);
                let drawn = tail.draw_us(random);
                take(drawn, part, random);
                left -= part;
            }
        }
        let (mut left, mut low) = (count - tailed, 0.0);
        for high in STRATA {
            // What is left is spread over what is left of the curve, so that the parts add up.
            let share = (high - low) / (1.0 - low);
            let part = if high == 1.0 { left } else { random.binomial(left, share) };
            if part > 0 {
                let at = low + (high - low) * random.unit();
                let drawn = self.quantile(at) as u64;
                take(drawn, part, random);
            }
            left -= part;
            low = high;
        }
    }

    fn quantile(&self, p: f64) -> f64 {
        if p >= TABLE_END {
            return self.body(p);
        }
        let place = p / TABLE_END * TABLE_STEPS as f64;
        let step = place as usize;
        let (low, high) = (f64::from(self.table[step]), f64::from(self.table[step + 1]));
        low + (high - low) * (place - step as f64)
    }

    fn body(&self, p: f64) -> f64 {
        self.median_us * (self.sigma * normal_quantile(p.max(0.001))).exp()
    }
}

impl Tail {
    fn draw_us(self, random: &mut Random) -> u64 {
        let from = (self.from.as_micros() as f64).max(1.0);
        let drawn = from * (1.0 - random.unit()).powf(-1.0 / self.shape);
        drawn.min(self.max.as_micros() as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn quantile(drawn: &mut [(u64, u64)], q: f64) -> u64 {
        drawn.sort_unstable();
        let total: u64 = drawn.iter().map(|(_, count)| count).sum();
        let mut seen = 0;
        for (span, count) in drawn.iter() {
            seen += count;
            if seen as f64 >= total as f64 * q {
                return *span;
            }
        }
        0
    }

    #[test]
    fn few_and_many_are_drawn_from_one_curve() {
        let latency = Latency::new(200 * US, 1_000 * US, None);
        for batch in [20, 2_500] {
            let mut random = Random::new(3);
            let mut drawn = Vec::new();
            for _ in 0..(400_000 / batch) {
                latency.draw_many(batch, &mut random, |span, count, _| drawn.push((span, count)));
            }
            assert_eq!(drawn.iter().map(|(_, count)| count).sum::<u64>(), 400_000);
            let (median, p99) = (quantile(&mut drawn, 0.5), quantile(&mut drawn, 0.99));
            assert!((195..=205).contains(&median), "median {median} of batches of {batch}");
            assert!((950..=1_050).contains(&p99), "p99 {p99} of batches of {batch}");
        }
    }

    #[test]
    fn a_tail_is_heavy_and_has_an_end() {
        let tail = Tail { share: 0.3, from: 1_000 * US, shape: 1.2, max: 400_000 * US };
        let latency = Latency::new(200 * US, 1_000 * US, Some(tail));
        let mut random = Random::new(3);
        let mut drawn = Vec::new();
        latency.draw_many(100_000, &mut random, |span, count, _| drawn.push((span, count)));
        (0..100_000).for_each(|_| drawn.push((latency.draw_us(&mut random), 1)));
        assert!(quantile(&mut drawn, 0.99) > 10_000);
        assert!(quantile(&mut drawn, 1.0) <= 400_000);
    }
}
