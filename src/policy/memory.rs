//! What is worth keeping of a group across restarts: what latency its backends have when they are well, and how reliable
//! they have proved. Whoever keeps it says how old it is; this room has no calendar.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::allowance::Baseline;
use super::baseline::Learnt;
use super::engine::Engine;
use super::operator::{Exclusion, Pin};
use super::reliability::Reliability;
use super::signals::JUDGED;
use super::time::{Roughly, Time};

/// Of one backend, by its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendMemory {
    pub name: String,
    /// Of its probes.
    probes: Baseline,
    /// Of point reads, writes and multi-key commands.
    classes: [Learnt; JUDGED.len()],
    reliability: Reliability,
}

/// What operators have said and what holds still, by names. What a switch under way is yet to make true is not among it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorWords {
    pin: Option<PinWord>,
    excluded: Vec<ExclusionWord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PinWord {
    backend: String,
    /// From when it was remembered.
    lasts: Duration,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExclusionWord {
    backend: String,
    /// So long ago it was said.
    age: Duration,
    reason: String,
}

impl Engine {
    pub fn operator_words(&self, now: Time) -> OperatorWords {
        let name = |index: usize| self.backends[index].settings.name.clone();
        let pin = self.operators.pinned(now).filter(|pin| pin.entering.is_none()).map(|pin| PinWord {
            backend: name(pin.backend.index()),
            lasts: pin.until - now,
            reason: pin.reason.clone(),
        });
        let excluded = self.operators.excluded.iter().enumerate().filter_map(|(index, exclusion)| {
            let exclusion = exclusion.as_ref().filter(|exclusion| exclusion.leaving.is_none())?;
            Some(ExclusionWord { backend: name(index), age: now - exclusion.since, reason: exclusion.reason.clone() })
        });
        OperatorWords { pin, excluded: excluded.collect() }
    }

    /// Takes up what operators said to an earlier process, remembered `age` ago, before the first event; one sentence for each
    /// word that holds still. A pin that has ended meanwhile, and a backend that is not there any more, are left out.
    pub fn take_up(&mut self, now: Time, words: OperatorWords, age: Duration) -> Vec<String> {
        let mut said = Vec::new();
        let find = |engine: &Self, name: &str| {
            let found = engine.backends.iter().find(|backend| backend.settings.name == name);
            found.map(|backend| backend.settings.id)
        };
        if let Some(PinWord { backend, lasts, reason }) = words.pin
            && let Some(id) = find(self, &backend)
            && lasts > age
        {
            let left = lasts - age;
            said.push(format!("{backend} is pinned for another {}: {reason}", Roughly(left)));
            self.operators.pin = Some(Pin { backend: id, until: now + left, reason, entering: None });
        }
        for ExclusionWord { backend, age: before, reason } in words.excluded {
            let Some(id) = find(self, &backend) else { continue };
            said.push(format!("{backend} is not entered: {reason}"));
            let since = now - (before + age);
            self.operators.excluded[id.index()] = Some(Exclusion { since, reason, leaving: None });
        }
        said
    }

    /// As of `now`. Nothing in it depends on this process's clock.
    pub fn remember(&self, now: Time) -> Vec<BackendMemory> {
        let memory = self.backends.iter().map(|backend| BackendMemory {
            name: backend.settings.name.clone(),
            probes: backend.baseline.kept(),
            classes: backend.signals.learnt(),
            reliability: backend.signals.reliability.remember(now),
        });
        memory.collect()
    }

    /// Takes up what an earlier process remembered `age` ago, before the first event. What is known of backends that the
    /// group does not have any more is dropped.
    pub fn recall(&mut self, now: Time, memory: Vec<BackendMemory>, age: Duration) {
        for kept in memory {
            let Some(backend) = self.backends.iter_mut().find(|backend| backend.settings.name == kept.name) else {
                continue;
            };
            backend.baseline = kept.probes.kept();
            for (baseline, learnt) in backend.signals.baselines.iter_mut().zip(kept.classes) {
                baseline.remember(learnt);
            }
            backend.signals.reliability = Reliability::recall(kept.reliability, now, age);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::{
        Action, BackendId, BackendRole, BackendSettings, Event, OperatorCommand, Order, ProbeAnswer, ProbeOutcome,
        Role, Settings, SwitchResult,
    };

    const MINUTE: Duration = Duration::from_secs(60);

    fn engine(names: &[&str]) -> Engine {
        let role = |index: usize| if index == 0 { BackendRole::Primary } else { BackendRole::Backup };
        let backends = names
            .iter()
            .enumerate()
            .map(|(index, name)| BackendSettings::new(BackendId(u8::try_from(index).unwrap()), name, role(index)));
        Engine::new(Settings::default(), backends.collect(), 1, Time::ZERO)
    }

    /// One whose operator pinned the primary for ten minutes and excluded backup-b, at the first second.
    fn told() -> Engine {
        let (mut engine, mut actions) = (engine(&["primary", "backup-a", "backup-b"]), Vec::new());
        let answer = ProbeAnswer::new(Duration::from_micros(700), Role::Master);
        let probe = Event::Probe { backend: BackendId(0), outcome: ProbeOutcome::Ok(answer) };
        engine.handle(Time::from_secs(1), probe, &mut actions);
        let begun = |action: &Action| if let Action::Switch(switch) = action { Some(switch.id) } else { None };
        if let Some(id) = actions.iter().find_map(begun) {
            let done = Event::SwitchDone { id, result: SwitchResult::Done };
            engine.handle(Time::from_secs(1), done, &mut actions);
        }
        for order in
            [Order::Pin { backend: BackendId(0), lasts: 10 * MINUTE }, Order::Exclude { backend: BackendId(2) }]
        {
            let command = OperatorCommand::new(order, "maintenance");
            engine.handle(Time::from_secs(1), Event::Operator(command), &mut actions);
        }
        engine
    }

    #[test]
    fn what_operators_said_holds_in_the_next_process_for_as_long_as_it_would_have() {
        let words = told().operator_words(Time::from_secs(61));
        let (mut next, now) = (engine(&["backup-b", "primary"]), Time::from_secs(5));
        let said = next.take_up(now, words, 2 * MINUTE);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("primary is pinned") && said[1] == "backup-b is not entered: maintenance", "{said:?}");
        assert!(next.operators.is_excluded(BackendId(0)), "by its name, not its place");
        let pin = next.operators.pinned(now).unwrap();
        assert_eq!((pin.backend, pin.until), (BackendId(1), now + 7 * MINUTE));
    }

    #[test]
    fn a_pin_that_has_ended_and_a_backend_that_is_gone_are_not_taken_up() {
        let words = told().operator_words(Time::from_secs(61));
        let mut next = engine(&["primary", "backup-a"]);
        assert_eq!(next.take_up(Time::ZERO, words, 9 * MINUTE), Vec::<String>::new());
        assert_eq!(next, engine(&["primary", "backup-a"]));
    }
}
