//! Commands of modules, learnt from the server's COMMAND INFO.

use std::ops::Deref;
use std::sync::{PoisonError, RwLock};

use hashbrown::HashMap;

use super::keys::{Find, KeyRange};
use super::{Access, Category, Class, Flags, Handling, KeyScope, KeySpec, Refinement, Spec, Timeout, UNKNOWN};
use crate::limits::MODULE_COMMANDS_MAX;

/// What the servers of this process told. Read only for names that the table does not have, so a lock costs nothing; one
/// for the process, since the path knows a command by its bytes alone wherever a fault finds it.
static LEARNED: RwLock<Option<HashMap<Box<str>, &'static Spec>>> = RwLock::new(None);

/// A row learnt at run time. It owns its name and reads like any other row.
///
/// The row itself is named `module-command`: its name comes from the peer and must not become a metric label, and MODULE
/// is a command that may be denied.
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
        name: "module-command",
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

/// Keeps a learnt row for [`super::of_request`], for the life of the process. Of servers that do not agree about a
/// command, none is believed. Returns false past the bound: the command stays unknown.
pub fn learn(row: LearnedSpec) -> bool {
    let mut guard = LEARNED.write().unwrap_or_else(PoisonError::into_inner);
    let all = guard.get_or_insert_default();
    if let Some(known) = all.get_mut(&row.name) {
        if **known != row.spec {
            *known = &UNKNOWN;
        }
        return true;
    }
    let fits = all.len() < MODULE_COMMANDS_MAX;
    if fits {
        // Rows are handed around as `&'static`, as the table's are; bounded, and never freed.
        all.insert(row.name, Box::leak(Box::new(row.spec)));
    }
    fits
}

/// The row of a command that servers told of; [`UNKNOWN`] for all others.
pub(super) fn recall(name: &[u8]) -> &'static Spec {
    let guard = LEARNED.read().unwrap_or_else(PoisonError::into_inner);
    let (Some(all), Ok(name)) = (guard.as_ref(), std::str::from_utf8(name)) else { return &UNKNOWN };
    all.get(name.to_ascii_lowercase().as_str()).copied().unwrap_or(&UNKNOWN)
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
