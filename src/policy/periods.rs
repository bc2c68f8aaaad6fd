//! What was decided within a day and within 30, counted from the decisions and incidents themselves.
//!
//! Counts lie in one bucket for each hour, so a period ends to the hour and a month of any size takes the same memory. Time
//! is milliseconds since 1970, handed in: the counts outlive the process.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::action::{Action, DecisionKind, SwitchKind, Trigger};
use super::event::SwitchResult;
use super::incident::{Incident, Resolution};

const HOUR_MS: u64 = 3_600_000;
pub const HOURS_OF_A_DAY: u64 = 24;
pub const HOURS_OF_A_MONTH: u64 = 30 * 24;

/// Counts of the last 30 days.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Periods {
    /// The oldest first; hours in which nothing happened are not there.
    hours: VecDeque<(u64, Counts)>,
}

/// Counts of one period. Names are those of `Trigger`, `SwitchKind` and `Resolution`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Done, by trigger.
    pub switches_by_trigger: BTreeMap<String, u64>,
    /// Done, by kind.
    pub switches_by_kind: BTreeMap<String, u64>,
    /// Given up or refused; an attempt that fails again and again counts once.
    pub switches_failed: u64,
    /// Decisions to stay.
    pub stayed: u64,
    pub proposals: u64,
    pub nobody_could_serve: u64,
    /// Operators' commands that were refused.
    pub rejected: u64,
    /// Begun, by trigger.
    pub incidents: BTreeMap<String, u64>,
    /// Ended, by what ended them.
    pub resolved: BTreeMap<String, u64>,
    /// From the first evidence to the end, over all that ended.
    pub resolution_ms_total: u64,
    pub resolution_ms_max: u64,
}

impl Periods {
    /// Counts what the engine asked for at this time.
    pub fn note(&mut self, at_ms: u64, action: &Action) {
        match action {
            Action::Record(decision) => match (decision.kind, &decision.result) {
                (DecisionKind::SwitchEnded, Some(SwitchResult::Done)) => {
                    let counts = self.hour(at_ms);
                    let trigger = decision.trigger.map_or("none", Trigger::name);
                    add(&mut counts.switches_by_trigger, trigger);
                    add(&mut counts.switches_by_kind, decision.switch_kind.map_or("none", SwitchKind::name));
                }
                (DecisionKind::SwitchEnded, _) => self.hour(at_ms).switches_failed += 1,
                (DecisionKind::Stayed, _) => self.hour(at_ms).stayed += 1,
                (DecisionKind::Proposed, _) => self.hour(at_ms).proposals += 1,
                (DecisionKind::NoBackend, _) => self.hour(at_ms).nobody_could_serve += 1,
                (DecisionKind::Rejected, _) => self.hour(at_ms).rejected += 1,
                _ => {}
            },
            Action::Incident(incident) => self.note_incident(at_ms, incident),
            _ => {}
        }
    }

    /// The sum over the hour of `now_ms` and those before it.
    #[must_use]
    pub fn period(&self, now_ms: u64, hours: u64) -> Counts {
        let first = (now_ms / HOUR_MS + 1).saturating_sub(hours);
        let mut sum = Counts::default();
        for (_, counts) in self.hours.iter().filter(|(hour, _)| *hour >= first) {
            sum.add(counts);
        }
        sum
    }

    fn note_incident(&mut self, at_ms: u64, incident: &Incident) {
        let counts = self.hour(at_ms);
        let Some(end) = incident.resolved_at else {
            return add(&mut counts.incidents, incident.trigger.name());
        };
        add(&mut counts.resolved, incident.resolution.map_or("none", Resolution::name));
        let took = u64::try_from((end - incident.since).as_millis()).unwrap_or(u64::MAX);
        counts.resolution_ms_total = counts.resolution_ms_total.saturating_add(took);
        counts.resolution_ms_max = counts.resolution_ms_max.max(took);
    }

    fn hour(&mut self, at_ms: u64) -> &mut Counts {
        let hour = at_ms / HOUR_MS;
        // A wall clock that was set back counts into the newest hour.
        if self.hours.back().is_none_or(|(last, _)| *last < hour) {
            self.hours.push_back((hour, Counts::default()));
        }
        while self.hours.front().is_some_and(|(first, _)| *first + HOURS_OF_A_MONTH < hour + 1) {
            self.hours.pop_front();
        }
        let last = self.hours.len() - 1;
        &mut self.hours[last].1
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.switches_by_trigger, &other.switches_by_trigger),
            (&mut self.switches_by_kind, &other.switches_by_kind),
            (&mut self.incidents, &other.incidents),
            (&mut self.resolved, &other.resolved),
        ] {
            for (name, count) in theirs {
                *ours.entry(name.clone()).or_default() += count;
            }
        }
        self.switches_failed += other.switches_failed;
        self.stayed += other.stayed;
        self.proposals += other.proposals;
        self.nobody_could_serve += other.nobody_could_serve;
        self.rejected += other.rejected;
        self.resolution_ms_total = self.resolution_ms_total.saturating_add(other.resolution_ms_total);
        self.resolution_ms_max = self.resolution_ms_max.max(other.resolution_ms_max);
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str) {
    *counts.entry(name.to_owned()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::super::action::Decision;
    use super::super::event::BackendId;
    use super::super::time::Time;
    use super::*;

    fn done(trigger: Trigger, kind: SwitchKind) -> Action {
        let decision = Decision::about(Time::ZERO, DecisionKind::SwitchEnded, BackendId(1), String::new());
        let result = Some(SwitchResult::Done);
        Action::Record(Decision { trigger: Some(trigger), switch_kind: Some(kind), result, ..decision })
    }

    fn incident(resolved_at: Option<u64>) -> Action {
        Action::Incident(Incident {
            id: 1,
            since: Time::from_secs(10),
            opened_at: Time::from_secs(11),
            backend: BackendId(0),
            trigger: Trigger::Connection,
            hard: true,
            confidence: 0.99,
            attempts: 1,
            why: String::new(),
            resolved: resolved_at.is_some(),
            resolved_at: resolved_at.map(Time::from_secs),
            resolution: resolved_at.map(|_| Resolution::Failover),
            served_by: None,
        })
    }

    #[test]
    fn a_day_forgets_yesterday_and_a_month_what_is_older() {
        let mut periods = Periods::default();
        let day = HOURS_OF_A_DAY * HOUR_MS;
        for number in 0..40 {
            periods.note(1_000 * day + number * day, &done(Trigger::Connection, SwitchKind::Failover));
        }
        let now = 1_000 * day + 39 * day;
        assert_eq!(periods.period(now, HOURS_OF_A_DAY).switches_by_trigger["connection"], 1);
        assert_eq!(periods.period(now, HOURS_OF_A_MONTH).switches_by_kind["failover"], 30);
        assert!(periods.hours.len() <= 31, "{}", periods.hours.len());
        assert_eq!(periods.period(now + 60 * day, HOURS_OF_A_MONTH), Counts::default());
    }

    #[test]
    fn incidents_are_counted_when_they_begin_and_measured_when_they_end() {
        let mut periods = Periods::default();
        periods.note(5 * HOUR_MS, &incident(None));
        periods.note(5 * HOUR_MS + 1, &incident(Some(14)));
        let counts = periods.period(5 * HOUR_MS, HOURS_OF_A_DAY);
        assert_eq!((counts.incidents["connection"], counts.resolved["failover"]), (1, 1));
        assert_eq!((counts.resolution_ms_total, counts.resolution_ms_max), (4_000, 4_000));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut periods = Periods::default();
        periods.note(9 * HOUR_MS, &incident(None));
        periods.note(3 * HOUR_MS, &incident(None));
        assert_eq!(periods.period(9 * HOUR_MS, HOURS_OF_A_DAY).incidents["connection"], 2);
        let text = serde_json::to_string(&periods).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Periods>(&text).ok(), Some(periods));
    }
}
