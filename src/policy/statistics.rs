//! How sure one may be: bounds and tails, so that one failed request of two is not "50 %".

use std::f64::consts::{LN_10, TAU};

/// One-sided 95 %: a rate is believed to be at least so high when only one healthy window in twenty would look like it.
pub(super) const CONFIDENT_Z: f64 = 1.645;

/// The lower end of Wilson's score interval for a share of `hits` in `all`: the share is at least this, with the
/// confidence of `z` standard deviations. Unlike the plain share it is near 0 while little was seen.
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
pub(super) fn wilson_lower(hits: u64, all: u64, z: f64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    let n = all as f64;
    let share = hits.min(all) as f64 / n;
    let z2 = z * z;
    let centre = share + z2 / (2.0 * n);
    let margin = z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - margin) / (1.0 + z2 / n)).clamp(0.0, 1.0)
}

/// How sure one may be that the true share behind `hits` of `all` is over `limit`: 0 to 1. The score test that Wilson's
/// interval comes from, read the other way round.
pub(super) fn confidence_over(hits: u64, all: u64, limit: f64) -> f64 {
    let spread = (limit * (1.0 - limit) / all.max(1) as f64).sqrt();
    if all == 0 || spread <= 0.0 {
        return 0.0;
    }
    let z = (hits.min(all) as f64 / all as f64 - limit) / spread;
    1.0 - 10.0_f64.powf(-minus_log10_tail(z))
}

/// -log10 of the probability that a normal variable is over `z`: what Hayashibara calls phi. Börjesson and Sundberg's
/// bound (1979), off by 0.3 % at most for `z` from 0 on, also where the probability itself is past what a float holds.
pub(super) fn minus_log10_tail(z: f64) -> f64 {
    let upper = |z: f64| {
        let mills = 0.661 * z + 0.339 * (z * z + 5.51).sqrt();
        (0.5 * z * z + 0.5 * TAU.ln() + mills.ln()) / LN_10
    };
    if z >= 0.0 {
        return upper(z);
    }
    // Less than a half is above the mean: the small rest of 1, and so a small phi.
    let below = 10.0_f64.powf(-upper(-z));
    -(1.0 - below).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_bound_is_the_share_that_is_just_so_many_deviations_away() {
        for (hits, all) in [(1, 2), (5, 10), (6, 50), (200, 1_000), (50_000, 100_000), (3, 3)] {
            let bound = wilson_lower(hits, all, CONFIDENT_Z);
            let deviation = (bound * (1.0 - bound) / all as f64).sqrt();
            let away = (hits as f64 / all as f64 - bound) / deviation;
            assert!((away - CONFIDENT_Z).abs() < 1e-6, "{hits} of {all}: {bound} is {away} deviations away");
        }
        assert_eq!((wilson_lower(0, 0, CONFIDENT_Z), wilson_lower(0, 50, CONFIDENT_Z)), (0.0, 0.0));
        assert!(wilson_lower(9, 5, CONFIDENT_Z) <= 1.0, "more hits than requests is no panic");
    }

    #[test]
    fn the_tail_is_that_of_the_normal_distribution() {
        // Known upper tails: Q(0) = 0.5, Q(1) = 0.15866, Q(3) = 1.3499e-3, Q(5.612) = 1e-8, Q(8.222) = 1e-16.
        for (z, phi) in
            [(-2.0, 0.00999), (0.0, 2.0_f64.log10()), (1.0, 0.79955), (3.0, 2.86970), (5.612, 8.0), (8.222, 16.0)]
        {
            let found = minus_log10_tail(z);
            assert!((found - phi).abs() < 0.005, "{z}: {found} is not {phi}");
        }
        assert!(minus_log10_tail(1e6).is_finite() && minus_log10_tail(-1e6) >= 0.0);
    }

    #[test]
    fn confidence_grows_with_what_was_seen() {
        assert!(confidence_over(1, 5, 0.05) < confidence_over(10, 50, 0.05));
        assert!(confidence_over(10, 50, 0.05) > 0.99);
        assert!(confidence_over(1, 100, 0.05) < 0.1);
        assert_eq!(confidence_over(0, 0, 0.05), 0.0);
    }
}
