//! What a staged plan is told, and what it wishes.

use std::time::Duration;

use crate::policy::comparison::{Batch, Traffic};
use crate::policy::event::BackendId;
use crate::policy::view::Health;

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The next backend is filled and kept in step.
    InStep,
    /// Samples of both are compared while the old one serves (`blue_green`).
    Compare,
    /// A larger share is moved to the next one, or that is tried again soon.
    Move,
    /// Both serve, and are compared.
    Share,
    /// The switch.
    CutOver,
    /// Samples are compared on while the next one serves and the old one is kept in step.
    Watch,
    /// What was moved is taken back.
    Return,
    /// The switch back.
    WayBack,
    Ended,
}

/// What the control plane saw or was told.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Samples(Batch),
    /// What clients got from a backend since the last look.
    Traffic {
        of: BackendId,
        traffic: Traffic,
    },
    /// Regularly.
    Look(Sight),
    /// The switch that was asked for has ended; `Err` says why it was not made.
    Switched(Result<(), String>),
    /// The share was moved, and requests were held for so long; or it is what it was before.
    Shared(Result<Duration, String>),
    Withdrawn(Result<Duration, String>),
    Pause,
    Resume,
    /// An operator wants the old side back, with a reason.
    Rollback(String),
}

/// How things look at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    pub active: BackendId,
    /// Both serve now.
    pub is_split: bool,
    /// Everything is kept in step that is not served from: the one that does not serve, or both while both do.
    pub in_step: bool,
    /// Grows while the next one is being filled or copied to.
    pub progress: u64,
    pub health: Health,
    /// What lowers its health.
    pub ill: Option<String>,
    /// It has become slower than it usually is, and the old one has not.
    pub slowed: Option<String>,
    /// The data path cannot go on with two that serve: why.
    pub withdraw: Option<String>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Switch over by the plan `drain`, and tell the end by [`News::Switched`].
    Switch { to: BackendId, why: String },
    /// Let the next one serve this share of the hash slots, no request failing; 0 is everything back. Told by
    /// [`News::Shared`].
    Share { percent: u8, why: String },
    /// The next one is dead or cannot be drained: everything back at once. Told by [`News::Withdrawn`].
    Withdraw { why: String },
    /// For the event history.
    Say(String),
    /// It is over; the sentence says how. `well` is false after a breach, or when it could not be carried out.
    End { well: bool, why: String },
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Self::InStep => "in_step",
            Self::Compare => "compare",
            Self::Move => "move",
            Self::Share => "share",
            Self::CutOver => "cut_over",
            Self::Watch => "watch",
            Self::Return => "return",
            Self::WayBack => "way_back",
            Self::Ended => "ended",
        }
    }
}
