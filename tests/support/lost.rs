//! What was lost of what was acknowledged, held against what Standin's events say may be lost at most.
//!
//! An event names a moment (`complete_until`): what was acknowledged before is there. So a write may be lost to it only if its
//! acknowledgement came after that moment, and it was sent before the event. Both are judged by the machine's one clock, from
//! the client's side: it hears of an acknowledgement after Standin, and sends before Standin receives, which is never to
//! Standin's disadvantage.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Now, by the clock that events carry.
pub(crate) fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64
}

/// A write that is known to have happened: it was acknowledged, or its value was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Happened {
    pub(crate) number: u64,
    /// Else it was seen.
    pub(crate) was_acknowledged: bool,
    /// Of this client: one request may write several keys.
    pub(crate) request: u64,
    pub(crate) sent_us: u64,
    pub(crate) known_us: u64,
}

/// One key's writes that are not known to be lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    happened: Vec<Happened>,
    /// The newest removal that was ever sent: it explains that there is nothing, acknowledged or not.
    newest_removal: u64,
}

/// A write that a read has shown to be lost.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    pub(crate) client: usize,
    pub(crate) key: u64,
    pub(crate) write: Happened,
    /// The read found an older value, and not nothing.
    pub(crate) was_stale: bool,
    pub(crate) read_us: u64,
}

impl History {
    pub(crate) fn removal_sent(&mut self, number: u64) {
        self.newest_removal = number;
    }

    pub(crate) fn happened(&mut self, happened: Happened) {
        if self.happened.last().is_none_or(|last| last.number < happened.number) {
            self.happened.push(happened);
        }
    }

    /// What must be lost where this was read; it is not lost a second time.
    pub(crate) fn lost_by(&mut self, read: Option<u64>) -> Vec<Happened> {
        let kept = read.unwrap_or(self.newest_removal);
        let at = self.happened.partition_point(|happened| happened.number <= kept);
        self.happened.split_off(at)
    }
}

/// What one event says.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    at_us: u64,
    /// `None`: how much is missing is not known.
    complete_until_us: Option<u64>,
    writes: u64,
    /// So many keys were removed so as not to be stale: keys that are missing are explained by that, and no older values.
    removed: Option<u64>,
    planned: bool,
    pub(crate) message: String,
}

impl Bound {
    /// `None` for an event after which everything must be there.
    pub(crate) fn of(event: &Value) -> Option<Self> {
        let (detail, promotion) = (&event["detail"], &event["detail"]["promotion"]);
        let removed = if detail["flushed"] == true { Some(u64::MAX) } else { detail["keys_removed"].as_u64() };
        let removed = removed.filter(|removed| *removed > 0 && promotion.is_null());
        if promotion.is_null() && removed.is_none() {
            return None;
        }
        let time = |value: &Value| value.as_str().and_then(wall_us_of);
        Some(Self {
            // Stamped in whole milliseconds, rounded down.
            at_us: time(&event["at"]).expect("an event has a time") + 1_000,
            complete_until_us: time(&promotion["complete_until"]).filter(|_| removed.is_none()),
            writes: promotion["writes_missing_max"].as_u64().unwrap_or(u64::MAX),
            removed,
            planned: detail["planned"] == true,
            message: format!("{} {}", event["at"], event["message"]),
        })
    }

    pub(crate) fn is_known(&self) -> bool {
        self.complete_until_us.is_some() || self.removed.is_some()
    }

    /// As if it said that nothing was lost.
    pub(crate) fn with_nothing_lost(mut self) -> Self {
        (self.complete_until_us, self.writes) = (Some(u64::MAX), 0);
        self
    }

    fn explains(&self, lost: &Lost) -> bool {
        let fits = lost.write.known_us >= self.complete_until_us.unwrap_or(0) && lost.write.sent_us <= self.at_us;
        fits && !self.planned && !(self.removed.is_some() && lost.was_stale)
    }
}

/// What the bounds do not explain, one sentence each: losses that fit to none, and more of them than one allows.
pub(crate) fn unexplained(lost: &[Lost], bounds: &[Bound]) -> Vec<String> {
    // Requests, since that is what a bound counts.
    let mut used = vec![BTreeSet::new(); bounds.len()];
    let mut complaints = Vec::new();
    for lost in lost {
        let request = |bound: &Bound| {
            let of_key = bound.removed.map(|_| lost.key);
            (lost.client, of_key.unwrap_or(lost.write.request))
        };
        // A bound counts what was acknowledged.
        let has_room = |index: usize| {
            let (used, bound) = (&used[index], &bounds[index]);
            let is_free = !lost.write.was_acknowledged || used.contains(&request(bound));
            is_free || (used.len() as u64) < bound.removed.unwrap_or(bound.writes)
        };
        let found = (0..bounds.len()).find(|index| bounds[*index].explains(lost) && has_room(*index));
        match found {
            Some(index) if lost.write.was_acknowledged => drop(used[index].insert(request(&bounds[index]))),
            Some(_) => {}
            None => complaints.push(format!("{lost:?} is explained by none of {} bounds", bounds.len())),
        }
    }
    complaints
}

/// Microseconds since 1970 out of `YYYY-MM-DDTHH:MM:SS.mmmZ`.
fn wall_us_of(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Howard Hinnant's days_from_civil, for years from 1970.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    let seconds = days * 86_400 + number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    Some((seconds * 1_000 + number(20, 23)?) * 1_000)
}
