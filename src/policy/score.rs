//! The score of a backend: 100 less the points of whatever speaks against it, each with its reason.
//!
//! | factor | points |
//! |---|---|
//! | a verdict of failure stands | 100 |
//! | never heard from | 40 |
//! | refused, reset or unanswered connections in this outage | 25 each, at most 75 |
//! | owes replies and is silent | 30 |
//! | silence past phi 8 / past phi 16 (thresholds as they have adapted) | 6 / 25 |
//! | failed probes in a row | 20 each, at most 60 |
//! | less than `health.availability` of the last minute's probes were good | 10 |
//! | LOADING, MASTERDOWN and the like | 30 for the first sign, 60 when sustained |
//! | a replica where a master is expected | 30 for the first sign, 60 when sustained |
//! | authentication refused | 60 |
//! | failed requests: the share that is certain (Wilson's lower bound) | its percentage, at most 40; 6 at least past `health.error_rate` |
//! | latency of requests, sustained and significant over the baseline | 10 per baseline over it, 20 to 40 |
//! | probe latency over its baseline (and the slack) | 5 per baseline, at most 30 |
//! | breaker open / half-open | 25 / 10 |
//! | replica behind its master by more than `health.replication_lag` | 10 |
//! | requests in flight: over 64 and over 8 times the usual | 6 |
//!
//! The operator's weight does not change a backend's health: candidates are ranked by score times weight.

use std::fmt;
use std::time::Duration;

use super::backend::Backend;
use super::breaker::BreakerState;
use super::event::CommandClass;
use super::settings::Settings;
use super::time::{Roughly, Time};
use super::view::{Factor, Health, Reason};

/// A health is left upwards only when the score clears its threshold by this much.
const HYSTERESIS_POINTS: u8 = 2;
const HEALTHY_FROM: u8 = 95;
const DEGRADED_FROM: u8 = 80;
const CRITICAL_FROM: u8 = 50;
/// Just enough points not to be healthy.
const NOT_HEALTHY: u8 = 100 - HEALTHY_FROM + 1;
/// More requests in flight than this, and than so many times the usual, are a queue.
const QUEUE_MIN: u32 = 64;
const QUEUE_TIMES: f64 = 8.0;

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
    let reached = of(score);
    // From unknown there is nothing to be slow about.
    if before == Health::Unknown || rank(reached) <= rank(before) {
        return reached;
    }
    let certain = of(score.saturating_sub(HYSTERESIS_POINTS));
    if rank(certain) > rank(before) { certain } else { before }
}

pub(super) fn of(score: u8) -> Health {
    match score {
        HEALTHY_FROM.. => Health::Healthy,
        DEGRADED_FROM.. => Health::Degraded,
        CRITICAL_FROM.. => Health::Critical,
        _ => Health::Failed,
    }
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
        take(Factor::Failed, 100, format_args!("{} ({} ago)", failure.why, Roughly(now - failure.at)));
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
    silence(backend, settings, now, &mut take);
    let failed = backend.probes_failed_in_row;
    if failed > 0 {
        take(Factor::Probes, at_most(failed, 20, 60), format_args!("{failed} failed probes in a row"));
    } else if backend.signals.unavailable.0 {
        let percent = backend.signals.availability(now).unwrap_or(1.0) * 100.0;
        take(Factor::Availability, 10, format_args!("{percent:.0} % of the last minute's probes were good"));
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
    errors(backend, now, &mut take);
    latency(backend, settings, now, &mut take);
    match backend.breaker.state(now) {
        BreakerState::Closed => {}
        BreakerState::Open => take(Factor::Breaker, 25, format_args!("breaker open")),
        BreakerState::HalfOpen => take(Factor::Breaker, 10, format_args!("breaker half-open")),
    }
    if let Some(lag) = backend.signals.replication_lag.filter(|_| backend.signals.lagging.0) {
        take(Factor::ReplicationLag, 10, format_args!("its master was heard from {lag:?} ago"));
    }
    let (in_flight, usual) = (backend.in_flight, backend.signals.in_flight_usual);
    if in_flight > QUEUE_MIN && f64::from(in_flight) > QUEUE_TIMES * usual {
        take(Factor::InFlight, NOT_HEALTHY, format_args!("{in_flight} requests in flight, usually {usual:.0}"));
    }
}

fn silence(backend: &Backend, settings: &Settings, now: Time, take: &mut impl FnMut(Factor, u8, fmt::Arguments<'_>)) {
    if let Some(since) = backend.stalled_since {
        take(Factor::Silence, 30, format_args!("owes replies and is silent for {}", Roughly(now - since)));
    }
    let phi = backend.signals.phi(now, settings, backend.blind);
    let (suspect, failed) = backend.signals.phi.thresholds(&settings.phi);
    if phi >= suspect && backend.failure.is_none() && !backend.slow_in_flight(now) {
        let points = if phi >= failed { 25 } else { NOT_HEALTHY };
        let usual = backend.signals.phi.mean();
        take(Factor::Suspicion, points, format_args!("nothing came for long, usually every {usual:?} (phi {phi:.0})"));
    }
}

fn errors(backend: &Backend, now: Time, take: &mut impl FnMut(Factor, u8, fmt::Arguments<'_>)) {
    let percent = (backend.breaker.failure_rate_at_least(now) * 100.0) as u32;
    let least = if backend.signals.erring.0 { NOT_HEALTHY } else { 0 };
    let points = at_most(percent, 1, 40).max(least);
    if points > 0 {
        let told = backend.breaker.failure_rate(now) * 100.0;
        take(Factor::Errors, points, format_args!("{told:.0} % of requests failed"));
    }
}

fn latency(backend: &Backend, settings: &Settings, now: Time, take: &mut impl FnMut(Factor, u8, fmt::Arguments<'_>)) {
    let times =
        |recent: Duration, well: Duration| (recent.as_secs_f64() / well.as_secs_f64().max(0.000_1)).min(100.0) as u32;
    if let Some(slow) = backend.slowdown(now, settings) {
        let points = at_most(times(slow.latency, slow.baseline), 10, 40).max(20);
        let what = match slow.class {
            CommandClass::Read => "point reads",
            CommandClass::Write => "writes",
            CommandClass::MultiKey => "multi-key commands",
            CommandClass::Slow => "slow commands",
        };
        take(Factor::Latency, points, format_args!("{what} take {:?}, usually {:?}", slow.latency, slow.baseline));
        return;
    }
    let (Some(well), Some(recent)) = (backend.baseline.well(), backend.baseline.recent()) else { return };
    if recent > well.mul_f64(2.0) + settings.recovery.latency_slack {
        let points = at_most(times(recent, well), 5, 30);
        take(Factor::Latency, points, format_args!("probes take {recent:?}, usually {well:?}"));
    }
}

fn at_most(count: u32, points_each: u32, points_max: u32) -> u8 {
    u8::try_from(count.saturating_mul(points_each).min(points_max)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_hold_the_same_formula() {
        let formula = include_str!("score.rs").lines().filter_map(|line| line.strip_prefix("//! |"));
        let rows: Vec<_> = formula.map(|row| format!("\n|{row}\n")).collect();
        assert!(rows.len() > 15, "{rows:?}");
        for row in rows {
            assert!(include_str!("../../docs/failover.md").contains(&row), "docs/failover.md lacks{row}");
        }
    }

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
