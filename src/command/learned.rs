//! Commands of modules, learnt from the server's COMMAND INFO.

use std::ops::Deref;

use super::keys::{Find, KeyRange};
use super::{Access, Category, Class, Flags, Handling, KeyScope, KeySpec, Refinement, Spec, Timeout};

/// A row learnt at run time. It owns its name and reads like any other row.
///
/// The row itself is named `module`, since its name comes from the peer and must not become a metric label.
#[derive(Debug, Clone)]
pub struct LearnedSpec {
    pub name: Box<str>,
    spec: Spec,
}

/// A row from what COMMAND INFO says: flags by name, the positions of the first and last key and the step between, and
/// the arity.
///
/// What is not marked `readonly` counts as a write that accumulates: a module may call any command without a flag of
/// its own. Keys that positions cannot tell are unknown.
pub fn learned(name: &str, info_flags: &[&str], first: i32, last: i32, step: i32, arity: i32) -> LearnedSpec {
    let named = info_flags.iter().map(|flag| flag.trim_start_matches('@'));
    let flags = Flags::named(named.clone());
    let movable = flags.contains(Flags::MOVABLEKEYS) || named.clone().any(|flag| flag == "getkeys-api");
    let readonly = flags.contains(Flags::READONLY) && !flags.contains(Flags::WRITE);
    let blocking = flags.contains(Flags::BLOCKING);
    let access = if readonly { Access::Read } else { Access::Write };
    let category = match (blocking, readonly) {
        (true, _) => Category::Never,
        (false, true) => Category::Read,
        (false, false) => Category::Accumulating,
    };
    let class = match (blocking, flags.contains(Flags::FAST), readonly) {
        (true, ..) => Class::Blocking,
        (_, true, true) => Class::PointRead,
        (_, true, false) => Class::Write,
        (_, false, _) => Class::Slow,
    };
    let spec = Spec {
        name: "module",
        arity: i16::try_from(arity).unwrap_or(-1),
        handling: if blocking { Handling::Blocking } else { Handling::Shared },
        class,
        category,
        flags: if readonly { flags } else { flags | Flags::WRITE },
        keys: positions(first, last, step, access).filter(|_| !movable).unwrap_or(KeySpec::UNKNOWN),
        subcommands: &[],
        refinement: Refinement::None,
        timeout: Timeout::None,
    };
    LearnedSpec { name: name.to_ascii_lowercase().into(), spec }
}

/// None if there are no positions, or none that a table may have.
fn positions(first: i32, last: i32, step: i32, access: Access) -> Option<KeySpec> {
    let (first, last, step) = (i16::try_from(first).ok()?, i16::try_from(last).ok()?, i16::try_from(step).ok()?);
    let range = KeyRange { access, find: Find::Range(first, last, step) };
    let valid = first > 0 && step > 0 && (last < 0 || last >= first);
    valid.then_some(KeySpec { scope: KeyScope::Keys, ranges: [Some(range), None, None] })
}

impl Deref for LearnedSpec {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        &self.spec
    }
}
