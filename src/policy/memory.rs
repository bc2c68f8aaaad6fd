//! What is worth keeping of a group across restarts: what latency its backends have when they are well, and how reliable
//! they have proved. Whoever keeps it says how old it is; this room has no calendar.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::allowance::Baseline;
use super::baseline::Learnt;
use super::engine::Engine;
use super::reliability::Reliability;
use super::signals::JUDGED;
use super::time::Time;

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

impl Engine {
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
