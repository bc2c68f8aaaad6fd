//! Command flags, as COMMAND INFO names them.

use std::fmt;
use std::ops::BitOr;

/// A set of command flags.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u32);

impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const WRITE: Flags = Flags(1);
    pub const READONLY: Flags = Flags(1 << 1);
    /// Refused when the server is out of memory.
    pub const DENYOOM: Flags = Flags(1 << 2);
    pub const ADMIN: Flags = Flags(1 << 3);
    pub const PUBSUB: Flags = Flags(1 << 4);
    pub const NOSCRIPT: Flags = Flags(1 << 5);
    pub const BLOCKING: Flags = Flags(1 << 6);
    /// Allowed while the server loads its data.
    pub const LOADING: Flags = Flags(1 << 7);
    /// Allowed on a replica whose master is lost.
    pub const STALE: Flags = Flags(1 << 8);
    pub const FAST: Flags = Flags(1 << 9);
    /// Allowed before authentication.
    pub const NO_AUTH: Flags = Flags(1 << 10);
    /// Positions alone do not find its keys.
    pub const MOVABLEKEYS: Flags = Flags(1 << 11);
    /// Refused inside MULTI.
    pub const NO_MULTI: Flags = Flags(1 << 12);

    /// Every flag with the name that a server gives it.
    pub const NAMES: &'static [(&'static str, Flags)] = &[
        ("write", Flags::WRITE),
        ("readonly", Flags::READONLY),
        ("denyoom", Flags::DENYOOM),
        ("admin", Flags::ADMIN),
        ("pubsub", Flags::PUBSUB),
        ("noscript", Flags::NOSCRIPT),
        ("blocking", Flags::BLOCKING),
        ("loading", Flags::LOADING),
        ("stale", Flags::STALE),
        ("fast", Flags::FAST),
        ("no_auth", Flags::NO_AUTH),
        ("movablekeys", Flags::MOVABLEKEYS),
        ("no_multi", Flags::NO_MULTI),
    ];

    pub(super) const fn from_bits(bits: u32) -> Flags {
        Flags(bits)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags that a server's COMMAND INFO lists; names that we have no use for are passed over.
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Flags {
        let known = |name: &str| Flags::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        names.into_iter().filter_map(known).fold(Flags::NONE, |all, (_, flag)| all | *flag)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(Flags::NAMES.iter().filter(|(_, flag)| self.contains(*flag)).map(|(n, _)| n))
            .finish()
    }
}
