//! The pieces that a verdict is made of: evidence within one outage, lasting signs, and what sets them aside.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Trigger;
use super::event::NotReadyWord;
use super::time::Time;

/// Signs that come in one burst (a pipeline of 16 READONLY) are one sign.
const SIGN_SPACING: Duration = Duration::from_millis(100);
/// Signs older than this are no longer part of the same trouble.
const SIGN_LIFE: Duration = Duration::from_secs(5);

/// A verdict of failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) at: Time,
    pub(super) since: Time,
    pub(super) trigger: Trigger,
    /// How sure it is, 0 to 1.
    pub(super) confidence: f64,
    /// It refuses everything, or every write: no better for clients than a dead one.
    pub(super) total: bool,
    pub(super) why: String,
}

/// Evidence within one outage: since the backend last answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Evidence {
    pub(super) first_at: Option<Time>,
    pub(super) last_at: Option<Time>,
    /// Answers that came at once: refused, reset, unreachable.
    pub(super) immediate: u32,
    pub(super) timed_out: u32,
    pub(super) first_timed_out_at: Option<Time>,
}

/// Signs of one lasting trouble, spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Signs {
    count: u32,
    pub(super) first_at: Option<Time>,
    last_at: Option<Time>,
    /// Another look was asked for since the last one.
    looked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct NotReady {
    pub(super) signs: Signs,
    pub(super) word: Option<NotReadyWord>,
}

/// After a switch to it that was refused or failed, a backend is left alone for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EntryBlock {
    pub(super) until: Option<Time>,
    pub(super) why: Option<String>,
    /// When the shortest wait is over.
    soonest: Option<Time>,
    refused: bool,
    /// It was a planned switch that failed, which may well have been the fault of the one that was to be left: where nobody
    /// else serves, it is tried at once.
    pub(super) planned: bool,
    in_row: u32,
}

/// A span in which this process itself did not run: silence within it is our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Blind {
    pub(super) from: Time,
    pub(super) until: Time,
}

impl Evidence {
    pub(super) fn count(&self) -> u32 {
        self.immediate.saturating_add(self.timed_out)
    }

    pub(super) fn note(&mut self, now: Time) {
        self.first_at.get_or_insert(now);
        self.last_at = Some(now);
    }
}

impl Signs {
    pub(super) fn any(&self, now: Time) -> bool {
        self.last_at.is_some_and(|last| now - last <= SIGN_LIFE)
    }

    pub(super) fn sustained(&self, now: Time, threshold: u32) -> bool {
        self.count >= threshold && self.any(now)
    }

    pub(super) fn note(&mut self, now: Time) {
        if !self.any(now) {
            *self = Self { count: 1, first_at: Some(now), last_at: Some(now), looked: false };
        } else if self.last_at.is_none_or(|last| now - last >= SIGN_SPACING) {
            self.count = self.count.saturating_add(1);
            self.last_at = Some(now);
            self.looked = false;
        }
    }

    /// When another look would tell whether the trouble lasts; the next interval of the prober is too far away for that.
    pub(super) fn look_due(&self, threshold: u32) -> Option<Time> {
        self.last_at.filter(|_| !self.looked && self.count < threshold).map(|last| last + SIGN_SPACING)
    }

    pub(super) fn look(&mut self) {
        self.looked = true;
    }
}

impl EntryBlock {
    pub(super) fn blocks(&self, now: Time) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// It answers now: what could not be reached then is worth a try after the shortest wait. A refusal stands.
    pub(super) fn shorten(&mut self) {
        if !self.refused {
            self.until = self.until.min(self.soonest);
        }
    }

    /// Leaves the backend alone for `first`, twice that after the next attempt, up to `longest`.
    pub(super) fn block(&mut self, now: Time, why: String, refused: bool, first: Duration, longest: Duration) {
        let wait = first.saturating_mul(1 << self.in_row.min(20)).min(longest);
        self.in_row = self.in_row.saturating_add(1);
        self.until = Some(now + wait);
        self.soonest = Some(now + first);
        self.why = Some(why);
        self.refused = refused;
    }
}

impl Blind {
    /// When `span` of seeing time has passed since `from`.
    pub(super) fn after(self, from: Time, span: Duration) -> Time {
        let due = from + span;
        if due <= self.from || from >= self.until { due } else { due + (self.until - from.max(self.from)) }
    }

    /// How much of `from..until` was blind.
    pub(super) fn overlap(self, from: Time, until: Time) -> Duration {
        until.min(self.until) - from.max(self.from)
    }
}
