//! From a fault to what Standin did about it: the figure that the failover engine is judged by.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::standin_process::StandinProcess;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The moment of a fault by the machine's clock, which events carry too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FaultClock(Duration);

impl FaultClock {
    /// Now: taken right before the fault is set.
    pub(crate) fn start() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970"))
    }

    /// From the fault to an event. Events are stamped with whole milliseconds, rounded down.
    #[track_caller]
    pub(crate) fn until(self, event: &Value) -> Duration {
        let at = time_of_day(event["at"].as_str().unwrap_or_default());
        let at = at.unwrap_or_else(|| panic!("an event without a time: {event:#}"));
        let fault = Duration::from_millis((self.0.as_millis() % DAY.as_millis()) as u64);
        // A fault just before midnight, an event just after.
        let apart = at + DAY - fault;
        if apart >= DAY { apart - DAY } else { apart }
    }

    /// Waits for the first failover and says how long after the fault it was done; fails when that is over `limit`.
    ///
    /// The figure is printed in the form in which docs/failover.md has it.
    #[track_caller]
    pub(crate) fn failover_within(self, standin: &StandinProcess, limit: Duration, what: &str) -> Duration {
        let mut events = Vec::new();
        super::eventually(limit * 2 + Duration::from_secs(1), &format!("a failover: {what}"), || {
            events = standin.events_of("failover");
            !events.is_empty()
        });
        let took = self.until(&events[0]);
        println!("measured | {what} | {} | {} | {} |", Figure(took), Figure(limit), events[0]["trigger"]);
        println!("{}", events[0]["message"]);
        assert!(took <= limit, "{what}: {took:?} after the fault, not within {limit:?}: {:#}", events[0]);
        took
    }
}

/// `HH:MM:SS.mmm` out of RFC 3339 in UTC.
fn time_of_day(at: &str) -> Option<Duration> {
    let number = |from: usize, to: usize| at.get(from..to)?.parse::<u64>().ok();
    let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(Duration::from_secs(seconds) + Duration::from_millis(number(20, 23)?))
}

/// A duration as people write it.
struct Figure(Duration);

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(formatter, "{} ms", self.0.as_millis())
        } else {
            write!(formatter, "{:.2} s", self.0.as_secs_f64())
        }
    }
}
