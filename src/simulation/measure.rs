//! What the clients got out of it: successes, failures by their kind, and the longest time without anything.

use std::time::Duration;

use serde::Serialize;

use super::scenario::Span;
use crate::policy::Time;

/// Every request that was asked is in one of these in the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Clients {
    pub asked: u64,
    /// Asked while no backend was fit to serve, so that nobody could have answered.
    pub asked_in_vain: u64,
    pub succeeded: u64,
    /// Answered with an error that is the server's trouble.
    pub failed_error: u64,
    /// Not answered within the deadline.
    pub failed_late: u64,
    /// `-UNKNOWNOUTCOME`: lost with its connection, and not to be sent twice.
    pub failed_unknown: u64,
    /// `-NOBACKEND` at once: nobody has served for longer than the deadline.
    pub failed_refused: u64,
    /// The longest time in which somebody wanted an answer and nobody got one.
    pub blackout: Span,
    pub blackout_at: Time,
    #[serde(skip)]
    starving_since: Option<Time>,
}

impl Clients {
    pub fn failed(&self) -> u64 {
        self.failed_error + self.failed_late + self.failed_unknown + self.failed_refused
    }

    /// Share of the requests that ended well; 1 where nobody asked.
    pub fn success(&self) -> f64 {
        let ended = self.succeeded + self.failed();
        if ended == 0 { 1.0 } else { self.succeeded as f64 / ended as f64 }
    }

    /// The same without those that nobody could have served.
    pub fn success_of_possible(&self) -> f64 {
        let excused = self.asked_in_vain.min(self.failed());
        let ended = (self.succeeded + self.failed() - excused).max(1);
        if ended == 1 { 1.0 } else { self.succeeded as f64 / ended as f64 }
    }

    pub(super) fn succeed(&mut self, count: u64, arrived: Time, at: Time) {
        self.succeeded += count;
        let since = self.starving_since.take().map_or(arrived, |since| since.min(arrived));
        self.note_gap(since, at);
    }

    /// A request that arrived then is not answered at once.
    pub(super) fn starve(&mut self, arrived: Time) {
        self.starving_since = Some(self.starving_since.map_or(arrived, |since| since.min(arrived)));
    }

    pub(super) fn fail_error(&mut self, count: u64, arrived: Time) {
        if count > 0 {
            self.failed_error += count;
            self.starve(arrived);
        }
    }

    pub(super) fn fail_late(&mut self, count: u64, arrived: Time) {
        self.failed_late += count;
        self.starve(arrived);
    }

    pub(super) fn fail_unknown(&mut self, count: u64, now: Time) {
        if count > 0 {
            self.failed_unknown += count;
            self.starve(now);
        }
    }

    pub(super) fn fail_refused(&mut self, count: u64, now: Time) {
        self.failed_refused += count;
        self.starve(now);
    }

    /// The world ends: whoever starves has starved until now.
    pub(super) fn close(&mut self, now: Time) {
        if let Some(since) = self.starving_since.take() {
            self.note_gap(since, now);
        }
    }

    fn note_gap(&mut self, since: Time, until: Time) {
        let gap: Duration = until - since;
        if gap > self.blackout.0 {
            (self.blackout, self.blackout_at) = (Span(gap), since);
        }
    }
}
