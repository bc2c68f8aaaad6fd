//! The score of a backend: 100 less the points of whatever speaks against it, each with its reason.
//!
//! | factor | points |
//! |---|---|
//! | a verdict of failure stands | 100 |
//! | never heard from | 40 |
//! | refused, reset or unanswered connections in this outage | 25 each, at most 75 |
//! | owes replies and is silent | 30 |
//! | failed probes in a row | 20 each, at most 60 |
//! | LOADING, MASTERDOWN and the like | 30 for the first sign, 60 when sustained |
//! | a replica where a master is expected | 30 for the first sign, 60 when sustained |
//! | authentication refused | 60 |
//! | failed requests in the breaker's window | their percentage, at most 40 |
//! | probe latency over its baseline (and the slack) | 5 per baseline, at most 30 |
//! | breaker open / half-open | 25 / 10 |

use std::fmt;

use super::backend::Backend;
use super::breaker::BreakerState;
use super::settings::Settings;
use super::time::Time;
use super::view::{Factor, Health, Reason};

/// A health is left upwards only when the score clears its threshold by this much.
const HYSTERESIS_POINTS: u8 = 2;
const HEALTHY_FROM: u8 = 95;
const DEGRADED_FROM: u8 = 80;
const CRITICAL_FROM: u8 = 50;

pub(super) fn score(backend: &Backend, settings: &Settings, now: Time) -> u8 {
    let mut score = 100_u8;
    deductions(backend, settings, now, |_, points, _| score = score.saturating_sub(points));
    score
}

pub(super) fn reasons(backend: &Backend, settings: &Settings, now: Time) -> Vec<Reason> {
    let mut reasons = Vec::new();
    deductions(backend, settings, now, |factor, points, text| {
        reasons.push(Reason { factor, points, text: text.to_string() });
    });
    reasons
}

/// The health that follows from a score, given the one before.
pub(super) fn health(before: Health, score: u8, heard: bool, failed: bool) -> Health {
    if failed {
        return Health::Failed;
    }
    if !heard {
        return Health::Unknown;
    }
    let of = |score: u8| match score {
        HEALTHY_FROM.. => Health::Healthy,
        DEGRADED_FROM.. => Health::Degraded,
        CRITICAL_FROM.. => Health::Critical,
        _ => Health::Failed,
    };
    let reached = of(score);
    // From unknown there is nothing to be slow about.
    if before == Health::Unknown || rank(reached) <= rank(before) {
        return reached;
    }
    let certain = of(score.saturating_sub(HYSTERESIS_POINTS));
    if rank(certain) > rank(before) { certain } else { before }
}

fn rank(health: Health) -> u8 {
    match health {
        Health::Unknown | Health::Failed => 0,
        Health::Critical => 1,
        Health::Degraded => 2,
        Health::Healthy => 3,
    }
}

/// Calls `take` for everything that speaks against the backend. The text is formatted only by who wants it.
fn deductions(backend: &Backend, settings: &Settings, now: Time, mut take: impl FnMut(Factor, u8, fmt::Arguments<'_>)) {
    if let Some(failure) = &backend.failure {
        take(Factor::Failed, 100, format_args!("{} (since {})", failure.why, failure.at));
    }
    if !backend.heard {
        take(Factor::Unknown, 40, format_args!("never heard from"));
    }
    let evidence = backend.evidence.count();
    if evidence > 0 {
        take(
            Factor::Connection,
            at_most(evidence, 25, 75),
            format_args!("{evidence} failed connections in this outage"),
        );
    }
    if let Some(since) = backend.stalled_since {
        take(Factor::Silence, 30, format_args!("owes replies and is silent since {since}"));
    }
    let failed = backend.probes_failed_in_row;
    if failed > 0 {
        take(Factor::Probes, at_most(failed, 20, 60), format_args!("{failed} failed probes in a row"));
    }
    let threshold = settings.probe.not_ready_threshold;
    if let Some(word) = backend.not_ready.word.filter(|_| backend.not_ready.signs.any(now)) {
        let points = if backend.not_ready.signs.sustained(now, threshold) { 60 } else { 30 };
        take(Factor::Readiness, points, format_args!("not ready: {word}"));
    }
    if backend.wrong_role.any(now) {
        let points = if backend.wrong_role.sustained(now, threshold) { 60 } else { 30 };
        take(Factor::Role, points, format_args!("not a master: it refuses writes"));
    }
    if backend.authentication_failed {
        take(Factor::Authentication, 60, format_args!("authentication refused: check username and password"));
    }
    let percent = (backend.breaker.failure_rate() * 100.0) as u32;
    if percent > 0 {
        take(Factor::Errors, at_most(percent, 1, 40), format_args!("{percent} % of requests failed"));
    }
    latency(backend, settings, &mut take);
    match backend.breaker.state(now) {
        BreakerState::Closed => {}
        BreakerState::Open => take(Factor::Breaker, 25, format_args!("breaker open")),
        BreakerState::HalfOpen => take(Factor::Breaker, 10, format_args!("breaker half-open")),
    }
}

fn latency(backend: &Backend, settings: &Settings, take: &mut impl FnMut(Factor, u8, fmt::Arguments<'_>)) {
    let (Some(well), Some(recent)) = (backend.baseline.well(), backend.baseline.recent()) else { return };
    if recent <= well.mul_f64(2.0) + settings.recovery.latency_slack {
        return;
    }
    let times = (recent.as_secs_f64() / well.as_secs_f64().max(0.000_1)).min(100.0) as u32;
    take(Factor::Latency, at_most(times, 5, 30), format_args!("probes take {recent:?}, usually {well:?}"));
}

fn at_most(count: u32, points_each: u32, points_max: u32) -> u8 {
    u8::try_from(count.saturating_mul(points_each).min(points_max)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_follows_the_score_and_rises_only_with_room() {
        for (before, score, after) in [
            (Health::Healthy, 95, Health::Healthy),
            (Health::Healthy, 94, Health::Degraded),
            (Health::Degraded, 96, Health::Degraded),
            (Health::Degraded, 97, Health::Healthy),
            (Health::Degraded, 79, Health::Critical),
            (Health::Critical, 81, Health::Critical),
            (Health::Critical, 82, Health::Degraded),
            (Health::Critical, 100, Health::Healthy),
            (Health::Critical, 49, Health::Failed),
            (Health::Failed, 51, Health::Failed),
            (Health::Failed, 52, Health::Critical),
            (Health::Unknown, 95, Health::Healthy),
        ] {
            assert_eq!(health(before, score, true, false), after, "{before} at {score}");
        }
    }

    #[test]
    fn a_verdict_and_silence_from_the_start_outrank_the_score() {
        assert_eq!(health(Health::Healthy, 100, true, true), Health::Failed);
        assert_eq!(health(Health::Unknown, 60, false, false), Health::Unknown);
    }
}
