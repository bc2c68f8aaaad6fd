//! Who could serve instead, best first, and what speaks against the others.
//!
//! Order: real backends before the last resort; heard from before never heard; who takes writes before who does not; known to be
//! enterable before unknown; breaker closed before open; then the value: score x weight, with small bonuses for our
//! region and zone, for the backend that served last and, when nobody serves, for the one that should; less something for
//! one that failed lately, whose zone has just lost another, and for a replica's lag.

use std::fmt;
use std::time::Duration;

use super::action::Candidate;
use super::backend::Backend;
use super::breaker::BreakerState;
use super::event::{BackendId, CommandClass, Standing};
use super::guards;
use super::operator::Exclusion;
use super::score::{reasons, score};
use super::settings::{DataMode, Settings};
use super::time::Time;

const ZONE_BONUS: u32 = 500;
const REGION_BONUS: u32 = 500;
const STICKY_BONUS: u32 = 300;
/// Saves the second switch, where nobody has to be left for it.
const HOME_BONUS: u32 = 1_000;
/// A backend that failed within `recovery.delay` may well do so again.
const SHAKY_MALUS: u32 = 1_500;
/// What took the other backend down may take a neighbour down next.
const DOMAIN_MALUS: u32 = 800;
/// Each second that a replica is behind, and the most of it.
const LAG_MALUS: u32 = 20;
/// It keeps the hits: worth more than its place, less than half a healthy score.
const HITS_BONUS: u32 = 2_000;
/// A replica that was promoted already spares a second promotion, which would leave two masters.
const PROMOTED_BONUS: u32 = 3_000;
const LAG_MALUS_MAX: u32 = 1_200;
/// Keeps the value above zero when a malus is taken off.
const VALUE_BASE: u32 = 10_000;

/// Candidates kept from one weighing; the bound of a group's backends.
pub(super) const CANDIDATES_MAX: usize = crate::limits::BACKENDS_PER_GROUP_MAX;

/// What a weighing is about.
#[derive(Clone, Copy)]
pub(super) struct Weighing<'a> {
    pub(super) now: Time,
    /// Not to be chosen, since it is what is left.
    pub(super) leaving: Option<BackendId>,
    /// Took over last time.
    pub(super) sticky: Option<BackendId>,
    /// Should serve when all is well: preferred where nobody does.
    pub(super) home: Option<BackendId>,
    /// Only who is plainly fit: the active lives and there is no need.
    pub(super) only_well: bool,
    /// Only who takes writes: the active does.
    pub(super) only_writable: bool,
    /// `failover.cascade` is off and the backup was spent: only this one and the last resort.
    pub(super) no_cascade_but: Option<BackendId>,
    /// `failover.max_attempts` are spent: only the last resort.
    pub(super) spent: bool,
    /// The active is left for being slow: only who can be expected to answer this class of requests faster than that.
    pub(super) faster_than: Option<(CommandClass, Duration)>,
    /// By backend: taken out by an operator.
    pub(super) excluded: &'a [Option<Exclusion>],
}

/// The best backend to enter, if any.
pub(super) fn best(backends: &[Backend], settings: &Settings, weighing: Weighing<'_>) -> Option<BackendId> {
    let eligible = backends.iter().filter(|backend| against(backend, settings, weighing).is_none());
    // `max_by_key` returns the last of equals; reversed, the lowest id wins.
    eligible.rev().max_by_key(|backend| rank(backend, backends, settings, weighing)).map(|backend| backend.settings.id)
}

/// Every backend that was weighed for the record, the chosen one first.
pub(super) fn explain(
    backends: &[Backend],
    settings: &Settings,
    weighing: Weighing<'_>,
    chosen: Option<BackendId>,
) -> Vec<Candidate> {
    let now = weighing.now;
    let mut ranked: Vec<_> = backends.iter().take(CANDIDATES_MAX).collect();
    ranked.sort_by_cached_key(|backend| {
        let refused = against(backend, settings, weighing).is_some();
        let last = chosen != Some(backend.settings.id);
        (last, refused, std::cmp::Reverse(rank(backend, backends, settings, weighing)))
    });
    let winner = chosen.map(|id| &backends[id.index()]);
    let candidate = |backend: &Backend| Candidate {
        backend: backend.settings.id,
        name: backend.settings.name.clone(),
        score: score(backend, settings, now),
        health: backend.health,
        reasons: reasons(backend, settings, now).into_iter().map(|reason| reason.text).collect(),
        baseline: backend.baseline.well(),
        latency: backend.baseline.recent(),
        value: value(backend, backends, settings, weighing),
        against: if chosen == Some(backend.settings.id) {
            None
        } else {
            let against = against(backend, settings, weighing).map(|against| against.to_string());
            Some(against.unwrap_or_else(|| worse(backend, winner, backends, settings, weighing)))
        },
    };
    ranked.into_iter().map(candidate).collect()
}

/// Why a backend may not be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Against<'a> {
    Leaving,
    Excluded(&'a str),
    Failed(&'a str),
    Refused(&'a str),
    Blocked(&'a str),
    Authentication,
    NotReady,
    Replica,
    NoCascade,
    Spent,
    LastResort,
    Unwell,
    Slow,
    NoFaster(Option<Duration>),
    Breaker { failure_rate: f64 },
}

/// Why this backend may not be chosen at all; `None` when it may.
pub(super) fn against<'a>(backend: &'a Backend, settings: &Settings, weighing: Weighing<'a>) -> Option<Against<'a>> {
    let now = weighing.now;
    let id = backend.settings.id;
    if weighing.leaving == Some(id) {
        return Some(Against::Leaving);
    }
    if let Some(exclusion) = weighing.excluded.get(id.index()).and_then(Option::as_ref) {
        return Some(Against::Excluded(&exclusion.reason));
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
    if weighing.spent && !backend.settings.last_resort {
        return Some(Against::Spent);
    }
    if weighing.no_cascade_but.is_some_and(|home| home != id) && !backend.settings.last_resort {
        return Some(Against::NoCascade);
    }
    if weighing.only_writable && !backend.takes_writes() {
        return Some(Against::Replica);
    }
    if weighing.only_well { not_well(backend, settings, weighing) } else { None }
}

/// What speaks against leaving a living active for this one.
fn not_well<'a>(backend: &Backend, settings: &Settings, weighing: Weighing<'_>) -> Option<Against<'a>> {
    let now = weighing.now;
    let no_faster = |(class, limit): (CommandClass, Duration)| {
        let expected = backend.expected_latency(now, class).map(|expected| expected.latency);
        expected.is_none_or(|expected| expected >= limit).then_some(Against::NoFaster(expected))
    };
    if backend.settings.last_resort {
        Some(Against::LastResort)
    } else if !backend.looks_well(now) {
        Some(Against::Unwell)
    } else if backend.breaker.state(now) != BreakerState::Closed {
        Some(Against::Breaker { failure_rate: backend.breaker.failure_rate(now) })
    } else if guards::is_slow(backend, settings) {
        Some(Against::Slow)
    } else {
        weighing.faster_than.and_then(no_faster)
    }
}

impl fmt::Display for Against<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("it is what is left"),
            Self::Excluded(why) => write!(f, "excluded by an operator: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Refused(why) => write!(f, "may not be entered: {why}"),
            Self::Blocked(why) => write!(f, "could not be entered a moment ago: {why}"),
            Self::Authentication => f.write_str("authentication refused"),
            Self::NotReady => f.write_str("not ready"),
            Self::Replica => f.write_str("it is a replica, and takes no writes"),
            Self::NoCascade => f.write_str("failover.cascade is off: after one backup only the primary follows"),
            Self::Spent => f.write_str("failover.max_attempts are spent in this outage"),
            Self::LastResort => f.write_str("the last resort is not needed"),
            Self::Unwell => f.write_str("it does not look well"),
            Self::NoFaster(None) => f.write_str("nothing is known of how fast it is"),
            Self::NoFaster(Some(latency)) => write!(f, "it is no faster: {latency:?} are to be expected"),
            Self::Slow => f.write_str("it is slower than usual itself"),
            Self::Breaker { failure_rate } => {
                write!(f, "its breaker is not closed: {:.0} % of its requests failed", failure_rate * 100.0)
            }
        }
    }
}

type Rank = (bool, bool, bool, bool, bool, u32);

fn rank(backend: &Backend, backends: &[Backend], settings: &Settings, weighing: Weighing<'_>) -> Rank {
    (
        !backend.settings.last_resort,
        backend.heard,
        backend.takes_writes(),
        backend.standing == Standing::Enterable,
        backend.breaker.state(weighing.now) == BreakerState::Closed,
        value(backend, backends, settings, weighing),
    )
}

fn value(backend: &Backend, backends: &[Backend], settings: &Settings, weighing: Weighing<'_>) -> u32 {
    let now = weighing.now;
    let own = &backend.settings;
    let same = |ours: &Option<String>, theirs: &Option<String>| ours.is_some() && ours == theirs;
    let mut value = VALUE_BASE + u32::from(score(backend, settings, now)) * own.weight.min(10_000);
    if same(&settings.region, &own.region) {
        value += REGION_BONUS;
    }
    if same(&settings.zone, &own.zone) {
        value += ZONE_BONUS;
    }
    let is_replica_that_writes = own.data == DataMode::Replica && backend.takes_writes();
    if own.data == DataMode::Mirrored || is_replica_that_writes {
        value += HITS_BONUS;
    }
    if is_replica_that_writes && !backend.follows() {
        value += PROMOTED_BONUS;
    }
    if weighing.sticky == Some(own.id) {
        value += STICKY_BONUS;
    }
    if weighing.home == Some(own.id) {
        value += HOME_BONUS;
    }
    value.saturating_sub(malus(backend, backends, settings, now))
}

fn malus(backend: &Backend, backends: &[Backend], settings: &Settings, now: Time) -> u32 {
    let own = &backend.settings;
    let failed_lately =
        |other: &Backend| other.last_failure.as_ref().is_some_and(|(at, _)| now - *at < settings.recovery.delay);
    let mut malus = 0;
    if failed_lately(backend) {
        malus += SHAKY_MALUS;
    }
    let in_its_zone = |other: &Backend| own.zone.is_some() && other.settings.zone == own.zone;
    if backends.iter().any(|other| other.settings.id != own.id && in_its_zone(other) && other.failure.is_some()) {
        malus += DOMAIN_MALUS;
    }
    if backend.follows() {
        let behind = backend.signals.replication_lag.map_or(0, |lag| u32::try_from(lag.as_secs()).unwrap_or(u32::MAX));
        malus += behind.saturating_mul(LAG_MALUS).min(LAG_MALUS_MAX);
    }
    malus
}

/// Why somebody who could have been chosen was not: the first thing in which the winner is ahead.
fn worse(
    backend: &Backend,
    winner: Option<&Backend>,
    backends: &[Backend],
    settings: &Settings,
    weighing: Weighing<'_>,
) -> String {
    let Some(winner) = winner else { return "nobody was chosen".to_owned() };
    let (ours, theirs) = (rank(winner, backends, settings, weighing), rank(backend, backends, settings, weighing));
    let why = if ours.0 != theirs.0 {
        "the last resort"
    } else if ours.1 != theirs.1 {
        "never heard from"
    } else if ours.2 != theirs.2 {
        "a replica that takes no writes"
    } else if ours.3 != theirs.3 {
        "not known whether it may be entered"
    } else if ours.4 != theirs.4 {
        "its breaker is not closed"
    } else if ours.5 == theirs.5 {
        let first = if winner.settings.id < backend.settings.id { ", which is named first" } else { "" };
        return format!("as good as {}{first}", winner.settings.name);
    } else {
        return format!(
            "worth {} where {} is worth {}: score {} x weight {}, with its place, lag and late failures",
            theirs.5,
            winner.settings.name,
            ours.5,
            score(backend, settings, weighing.now),
            backend.settings.weight
        );
    };
    why.to_owned()
}
