//! Who could serve instead, best first, and what speaks against the others.
//!
//! Order: real backends before the last resort; heard from before never heard; a master before a replica; known to be
//! enterable before unknown; breaker closed before open; then score x weight with small bonuses for our zone, for the
//! backend that served last, and for one that has not failed lately.

use std::fmt;

use super::action::Candidate;
use super::backend::Backend;
use super::breaker::BreakerState;
use super::event::{BackendId, Standing};
use super::score::score;
use super::settings::{DataMode, Settings};
use super::time::Time;

const ZONE_BONUS: u32 = 500;
const STICKY_BONUS: u32 = 300;
/// A backend that failed within `recovery.delay` may well do so again.
const SHAKY_MALUS: u32 = 1_500;
/// Keeps the value above zero when a malus is taken off.
const VALUE_BASE: u32 = 10_000;

/// Candidates kept from one weighing; the bound of a group's backends.
pub(super) const CANDIDATES_MAX: usize = crate::limits::BACKENDS_PER_GROUP_MAX;

/// What a weighing is about.
#[derive(Clone, Copy)]
pub(super) struct Weighing {
    pub(super) now: Time,
    /// Not to be chosen, since it is what is left.
    pub(super) leaving: Option<BackendId>,
    /// Took over last time.
    pub(super) sticky: Option<BackendId>,
    /// Only who is plainly fit: the active lives and there is no need.
    pub(super) only_well: bool,
}

/// The best backend to enter, if any.
pub(super) fn best(backends: &[Backend], settings: &Settings, weighing: Weighing) -> Option<BackendId> {
    let eligible = backends.iter().filter(|backend| against(backend, weighing).is_none());
    // `max_by_key` returns the last of equals; reversed, the lowest id wins.
    eligible.rev().max_by_key(|backend| rank(backend, settings, weighing)).map(|backend| backend.settings.id)
}

/// Every backend that was weighed for the record, the chosen one first.
pub(super) fn explain(
    backends: &[Backend],
    settings: &Settings,
    weighing: Weighing,
    chosen: Option<BackendId>,
) -> Vec<Candidate> {
    let mut ranked: Vec<_> = backends.iter().take(CANDIDATES_MAX).collect();
    ranked.sort_by_cached_key(|backend| {
        let refused = against(backend, weighing).is_some();
        let last = chosen != Some(backend.settings.id);
        (last, refused, std::cmp::Reverse(rank(backend, settings, weighing)))
    });
    let candidate = |backend: &Backend| Candidate {
        backend: backend.settings.id,
        score: score(backend, settings, weighing.now),
        against: if chosen == Some(backend.settings.id) {
            None
        } else {
            Some(against(backend, weighing).map_or_else(|| worse(backend, weighing), |against| against.to_string()))
        },
    };
    ranked.into_iter().map(candidate).collect()
}

/// Why a backend may not be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Against<'a> {
    Leaving,
    Failed(&'a str),
    Refused(&'a str),
    Blocked(&'a str),
    Authentication,
    NotReady,
    Replica,
    LastResort,
    Unwell,
    Breaker { failure_rate: f64 },
}

/// Why this backend may not be chosen at all; `None` when it may.
pub(super) fn against(backend: &Backend, weighing: Weighing) -> Option<Against<'_>> {
    let now = weighing.now;
    if weighing.leaving == Some(backend.settings.id) {
        return Some(Against::Leaving);
    }
    if let Some(failure) = &backend.failure {
        return Some(Against::Failed(&failure.why));
    }
    if let Standing::Refused { why } = &backend.standing {
        return Some(Against::Refused(why));
    }
    if backend.entry.blocks(now) && (weighing.only_well || !backend.entry.planned) {
        return Some(Against::Blocked(backend.entry.why.as_deref().unwrap_or_default()));
    }
    if backend.authentication_failed {
        return Some(Against::Authentication);
    }
    if backend.not_ready.signs.any(now) {
        return Some(Against::NotReady);
    }
    if backend.wrong_role.any(now) {
        return Some(Against::Replica);
    }
    if weighing.only_well { not_well(backend, now) } else { None }
}

/// What speaks against leaving a living active for this one.
fn not_well(backend: &Backend, now: Time) -> Option<Against<'_>> {
    if backend.settings.last_resort {
        Some(Against::LastResort)
    } else if !backend.looks_well(now) {
        Some(Against::Unwell)
    } else if backend.breaker.state(now) != BreakerState::Closed {
        Some(Against::Breaker { failure_rate: backend.breaker.failure_rate() })
    } else {
        None
    }
}

impl fmt::Display for Against<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("it is what is left"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Refused(why) => write!(f, "may not be entered: {why}"),
            Self::Blocked(why) => write!(f, "could not be entered a moment ago: {why}"),
            Self::Authentication => f.write_str("authentication refused"),
            Self::NotReady => f.write_str("not ready"),
            Self::Replica => f.write_str("it is a replica"),
            Self::LastResort => f.write_str("the last resort is not needed"),
            Self::Unwell => f.write_str("it does not look well"),
            Self::Breaker { failure_rate } => {
                write!(f, "its breaker is not closed: {:.0} % of its requests failed", failure_rate * 100.0)
            }
        }
    }
}

fn rank(backend: &Backend, settings: &Settings, weighing: Weighing) -> (bool, bool, bool, bool, bool, u32) {
    let now = weighing.now;
    let mut value = VALUE_BASE + u32::from(score(backend, settings, now)) * backend.settings.weight.min(10_000);
    if settings.zone.is_some() && settings.zone == backend.settings.zone {
        value += ZONE_BONUS;
    }
    if weighing.sticky == Some(backend.settings.id) {
        value += STICKY_BONUS;
    }
    if backend.last_failure.as_ref().is_some_and(|(at, _)| now - *at < settings.recovery.delay) {
        value = value.saturating_sub(SHAKY_MALUS);
    }
    (
        !backend.settings.last_resort,
        backend.heard,
        backend.settings.data != DataMode::Replica,
        backend.standing == Standing::Enterable,
        backend.breaker.state(now) == BreakerState::Closed,
        value,
    )
}

fn worse(backend: &Backend, weighing: Weighing) -> String {
    let why = if backend.settings.last_resort {
        "the last resort"
    } else if !backend.heard {
        "never heard from"
    } else if backend.standing != Standing::Enterable {
        "not known whether it may be entered"
    } else if backend.settings.data == DataMode::Replica {
        "a replica"
    } else if backend.breaker.state(weighing.now) != BreakerState::Closed {
        "its breaker is not closed"
    } else {
        "a lower score, weight or zone preference"
    };
    why.to_owned()
}
