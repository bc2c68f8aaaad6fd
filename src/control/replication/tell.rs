//! What became of a promotion, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::promotion::Promotion;
use crate::backend::clock;
use crate::policy::{Lack, Time};
use crate::telemetry::wall_time::WallTime;

impl Promotion {
    /// The rest of a sentence; empty where there is nothing to say.
    pub(in crate::control) fn text(&self) -> String {
        match self {
            Self::NotNeeded => String::new(),
            Self::Withheld(why, lack) => format!(", for reads only ({why}){}", lack_text(*lack)),
            Self::ByOthers(lack) => format!(", which was promoted by others{}", lack_text(*lack)),
            Self::Done(promoted) => format!(", and was promoted in {:?}{}", promoted.took, lack_text(promoted.lack)),
        }
    }

    /// The detail of an event.
    pub(in crate::control) fn detail(&self) -> Value {
        let (own, lack) = match self {
            Self::NotNeeded => return Value::Null,
            Self::Withheld(why, lack) => (json!({ "done": false, "why": why }), lack),
            Self::ByOthers(lack) => (json!({ "done": true, "way": "others" }), lack),
            Self::Done(promoted) => {
                let took_us = promoted.took.as_micros() as u64;
                (json!({ "done": true, "way": promoted.way.name(), "took_us": took_us }), &promoted.lack)
            }
        };
        let mut detail = own;
        detail["writes_missing_max"] = lack.map(|lack| lack.writes).into();
        detail["age_missing_max_us"] = lack.map(|lack| lack.age.as_micros() as u64).into();
        detail["bytes_missing"] = lack.map(|lack| lack.bytes).into();
        detail["complete_until"] = lack.map(|lack| wall(lack.since).to_string()).into();
        detail
    }
}

fn lack_text(lack: Option<Lack>) -> String {
    match lack {
        Some(lack) if lack.writes == 0 => "; it has everything that was acknowledged".to_owned(),
        Some(Lack { writes, age, since, .. }) => {
            let since = wall(since);
            format!(
                "; at most {writes} writes of the last {age:?} before the fault may be missing, none from before {since}"
            )
        }
        None => "; how much it was behind is not known".to_owned(),
    }
}

/// The machine's clock at a moment that has passed.
fn wall(at: Time) -> WallTime {
    let ago: Duration = clock::now() - at;
    WallTime::from_ms(WallTime::now().as_ms().saturating_sub(ago.as_millis() as u64 + 1))
}
