//! Chance from one seed: SplitMix64 and the few distributions that worlds are made of. A generator of our own, since a
//! pinned seed must mean the same world after any upgrade of a dependency.

use std::time::Duration;

/// Above this mean a Poisson or binomial count is drawn from the normal curve: its error is far under what is modelled.
const EXACT_MEAN_MAX: f64 = 32.0;

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and good enough to make worlds.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0005_eed0_f57a_4d14)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to `bound`, which is left out.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder is under 2^-40 for every bound used here.
        self.bits() % bound.max(1)
    }

    /// From 0 up to 1, which is left out.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// Both ends included.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_micros() as u64;
        low + Duration::from_micros(self.below(span + 1))
    }

    /// Time to the next of many independent events.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// How many of independent events with this mean number happen.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > EXACT_MEAN_MAX {
            return self.around(mean, mean.sqrt());
        }
        let (bound, mut product, mut count) = ((-mean).exp(), self.unit(), 0);
        while product > bound {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// How many of `count` are hit when each is hit with this chance.
    pub fn binomial(&mut self, count: u64, share: f64) -> u64 {
        if count == 0 || share <= 0.0 {
            return 0;
        }
        if share >= 1.0 {
            return count;
        }
        let mean = count as f64 * share;
        if count <= 16 {
            return (0..count).filter(|_| self.chance(share)).count() as u64;
        }
        if mean <= EXACT_MEAN_MAX {
            return self.poisson(mean).min(count);
        }
        self.around(mean, (mean * (1.0 - share)).sqrt()).min(count)
    }

    fn around(&mut self, mean: f64, deviation: f64) -> u64 {
        let drawn = mean + deviation * normal_quantile(self.unit());
        drawn.round().max(0.0) as u64
    }
}

/// The inverse of the normal distribution function (Acklam 2003); relative error under 1.15e-9.
pub(super) fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    const LOW: f64 = 0.024_25;
    let p = p.clamp(1e-15, 1.0 - 1e-15);
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, next| sum * x + next);
    let tail = |q: f64| horner(&C, q) / (horner(&D, q) * q + 1.0);
    if p < LOW {
        tail((-2.0 * p.ln()).sqrt())
    } else if p > 1.0 - LOW {
        -tail((-2.0 * (1.0 - p).ln()).sqrt())
    } else {
        let (q, r) = (p - 0.5, (p - 0.5) * (p - 0.5));
        horner(&A, r) * q / (horner(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_row_of_numbers_for_ever() {
        let mut random = Random::new(7);
        let row: Vec<u64> = (0..4).map(|_| random.below(1_000)).collect();
        let mut again = Random::new(7);
        assert_eq!(row, (0..4).map(|_| again.below(1_000)).collect::<Vec<_>>());
        assert_ne!(Random::new(8).bits(), Random::new(7).bits());
    }

    #[test]
    fn counts_have_their_means_whether_few_or_many() {
        let mut random = Random::new(1);
        for mean in [0.05, 2.0, 31.0, 33.0, 2_500.0] {
            let drawn: u64 = (0..20_000).map(|_| random.poisson(mean)).sum();
            let found = drawn as f64 / 20_000.0;
            assert!((found - mean).abs() < 0.02 * mean + 0.01, "poisson {mean}: {found}");
        }
        for (count, share) in [(10, 0.2), (1_000, 0.01), (100_000, 0.3), (7, 1.0), (7, 0.0)] {
            let drawn: u64 = (0..20_000).map(|_| random.binomial(count, share)).sum();
            let (found, mean) = (drawn as f64 / 20_000.0, count as f64 * share);
            assert!((found - mean).abs() <= 0.02 * mean, "binomial {count} {share}: {found}");
        }
    }

    #[test]
    fn the_normal_quantile_knows_its_tables() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959_964), (0.99, 2.326_348), (0.01, -2.326_348), (0.999_9, 3.719_016)] {
            assert!((normal_quantile(p) - z).abs() < 1e-5, "{p}");
        }
    }
}
