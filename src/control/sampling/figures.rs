//! What a sampler has found.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::compare::Difference;
use crate::control::api::SamplingReport;
use crate::control::shared::Shared;
use crate::policy::BackendId;
use crate::telemetry::events::{Event as Entry, EventKind, Severity};

/// The share that agrees is that of so many keys.
const RECENT: usize = 1_000;
/// Differences of one backend are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Of one backend, since the start.
#[derive(Debug, Default)]
pub(in crate::control) struct Figures {
    compared: u64,
    differing: Counts,
    pub(super) repaired: u64,
    pub(super) unsettled: u64,
    pub(super) rounds: u64,
    /// Whether each of the last keys agreed.
    recent: VecDeque<bool>,
    /// Compared and differing when the last event was told.
    told: Option<(Instant, u64, Counts)>,
    /// Why nothing is compared now; empty when it is, or need not be.
    pub(super) why: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    missing: u64,
    extra: u64,
    value: u64,
    lifetime: u64,
}

impl Counts {
    fn sum(self) -> u64 {
        self.missing + self.extra + self.value + self.lifetime
    }

    fn since(self, before: Self) -> Self {
        Self {
            missing: self.missing - before.missing,
            extra: self.extra - before.extra,
            value: self.value - before.value,
            lifetime: self.lifetime - before.lifetime,
        }
    }

    fn words(self) -> String {
        let all = [
            (self.value, "with another value"),
            (self.missing, "missing there"),
            (self.extra, "that the active does not have"),
            (self.lifetime, "with another time of life"),
        ];
        let told = all.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        told.collect::<Vec<_>>().join(", ")
    }
}

impl Figures {
    pub(super) fn agrees(&mut self) {
        self.note(true);
    }

    pub(super) fn differs(&mut self, difference: Difference) {
        let count = match difference {
            Difference::Missing => &mut self.differing.missing,
            Difference::Extra => &mut self.differing.extra,
            Difference::Value => &mut self.differing.value,
            Difference::Lifetime => &mut self.differing.lifetime,
        };
        *count += 1;
        self.note(false);
    }

    fn note(&mut self, agrees: bool) {
        self.compared += 1;
        self.recent.push_back(agrees);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    pub(in crate::control) fn report(&self) -> SamplingReport {
        let agreeing = self.recent.iter().filter(|agrees| **agrees).count();
        let percent = (!self.recent.is_empty()).then(|| agreeing as f64 * 100.0 / self.recent.len() as f64);
        SamplingReport {
            compared: self.compared,
            differing: self.differing.sum(),
            missing: self.differing.missing,
            extra: self.differing.extra,
            value: self.differing.value,
            lifetime: self.differing.lifetime,
            agree_percent: percent.map(|percent| (percent * 100.0).round() / 100.0),
            repaired: self.repaired,
            unsettled: self.unsettled,
            rounds: self.rounds,
            why: (!self.why.is_empty()).then(|| self.why.clone()),
        }
    }
}

/// Tells of differences that have not been told yet.
pub(super) fn tell(shared: &Rc<Shared>, id: BackendId, repairs: bool) {
    let name = &shared.rules(id).name;
    let (message, severity) = {
        let figures = &mut shared.figures(id).borrow_mut();
        let (compared, told) = match figures.told {
            Some((at, ..)) if at.elapsed() < TELL_EVERY => return,
            Some((_, compared, told)) => (compared, told),
            None => (0, Counts::default()),
        };
        let new = figures.differing.since(told);
        if new == Counts::default() {
            return;
        }
        let of = figures.compared - compared;
        figures.told = Some((Instant::now(), figures.compared, figures.differing));
        let done = if repairs { "copied again" } else { "left as they are" };
        // A server that is full evicts other keys than the next one; values are another matter.
        let is_grave = new.value + new.lifetime > 0;
        let severity = if is_grave { Severity::Warning } else { Severity::Info };
        (
            format!(
                "backend {name} differs from the active in {} of {of} keys compared: {}; {done}",
                new.sum(),
                new.words()
            ),
            severity,
        )
    };
    shared.record(Entry::new(EventKind::Difference, message).severity(severity).backend(name.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_agrees_is_that_of_the_last_thousand_keys() {
        let mut figures = Figures::default();
        assert_eq!(figures.report().agree_percent, None, "nothing was compared");
        for _ in 0..10 {
            figures.differs(Difference::Value);
        }
        for _ in 0..990 {
            figures.agrees();
        }
        assert_eq!(figures.report().agree_percent, Some(99.0));
        figures.agrees();
        assert_eq!(figures.report().agree_percent, Some(99.1));
        assert_eq!((figures.report().compared, figures.report().differing), (1_001, 10));
    }
}
