//! What happened, in order: for people, for `--json`, and as one number that two runs of a seed must share.

use std::fmt;

use serde::Serialize;

use crate::policy::{
    Availability, BackendId, Decision, DecisionKind, Switch, SwitchId, SwitchKind, SwitchResult, Time, Trigger,
};

/// Entries kept; what comes after is counted and goes into the fingerprint.
const ENTRIES_KEPT_MAX: usize = 2_000;
/// FNV-1a, 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    pub entries: Vec<(Time, Entry)>,
    /// Entries that were not kept.
    pub dropped: u64,
    /// Of every entry and every window: equal for equal runs.
    pub fingerprint: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    FaultBegan {
        what: String,
        on: String,
    },
    FaultEnded {
        what: String,
        on: String,
    },
    SwitchBegan {
        id: SwitchId,
        kind: SwitchKind,
        trigger: Trigger,
        from: BackendId,
        to: BackendId,
        why: String,
    },
    SwitchEnded {
        id: SwitchId,
        result: SwitchResult,
    },
    Published {
        availability: Availability,
    },
    Decided {
        kind: DecisionKind,
        backend: BackendId,
        why: String,
    },
    /// An invariant was broken.
    Broken(String),
}

impl Timeline {
    pub(super) fn note(&mut self, at: Time, entry: Entry) {
        self.stamp(at.as_micros());
        entry.to_string().bytes().for_each(|byte| self.mix(byte));
        if self.entries.len() < ENTRIES_KEPT_MAX {
            self.entries.push((at, entry));
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn stamp(&mut self, number: u64) {
        number.to_le_bytes().into_iter().for_each(|byte| self.mix(byte));
    }

    fn mix(&mut self, byte: u8) {
        self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self { entries: Vec::new(), dropped: 0, fingerprint: FNV_OFFSET }
    }
}

impl Entry {
    pub(super) fn decided(decision: &Decision) -> Self {
        Self::Decided { kind: decision.kind, backend: decision.backend, why: decision.why.clone() }
    }

    pub(super) fn switch(switch: &Switch) -> Self {
        Self::SwitchBegan {
            id: switch.id,
            kind: switch.kind,
            trigger: switch.trigger,
            from: switch.from,
            to: switch.to,
            why: switch.reason.clone(),
        }
    }

    /// A switch's own decisions say the same as the entries of the switch.
    pub(super) fn repeats_a_switch(&self) -> bool {
        matches!(self, Self::Decided { kind: DecisionKind::SwitchBegan | DecisionKind::SwitchEnded, .. })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FaultBegan { what, on } if on.is_empty() => write!(f, "fault     {what}"),
            Self::FaultBegan { what, on } => write!(f, "fault     {on}: {what}"),
            Self::FaultEnded { what, on } => write!(f, "mended    {on}: {what}"),
            Self::SwitchBegan { id, kind, trigger, from, to, why } => {
                write!(f, "switch    {} {kind:?} {from} -> {to} ({trigger}): {why}", id.0)
            }
            Self::SwitchEnded { id, result } => write!(f, "switch    {} {result:?}", id.0),
            Self::Published { availability } => write!(f, "published {availability:?}"),
            Self::Decided { kind, backend, why } => write!(f, "decided   {kind:?} {backend}: {why}"),
            Self::Broken(news) => write!(f, "BROKEN    {news}"),
        }
    }
}
