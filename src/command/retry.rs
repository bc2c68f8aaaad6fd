//! The retry category of one request: what the row says, refined by the arguments.

use super::keys::{is_word, visit};
use super::{Access, Category, Spec};
use crate::resp::{Arguments, arguments};

/// How the arguments of a command change its category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refinement {
    None,
    /// SET: a condition or GET makes it checked.
    Set,
    /// MSETEX: a condition behind the pairs makes it checked.
    MultiSetEx,
    /// GETEX: without an option it only reads.
    GetEx,
    /// HGETEX: without an option before FIELDS it only reads.
    HashGetEx,
    /// HSETEX: a condition before FIELDS makes it checked.
    HashSetEx,
    /// EXPIRE and its family: a condition behind the time makes it checked.
    Expire,
    /// HEXPIRE and its family: a condition before FIELDS makes it checked.
    HashExpire,
    /// ZADD: INCR accumulates, a condition makes it checked.
    SortedSetAdd,
    GeoAdd,
    /// BITFIELD: only GET reads, SET answers with the old value, INCRBY accumulates.
    Bitfield,
    /// RESTORE and FUNCTION LOAD: checked (the second run is refused) unless REPLACE is given.
    Restore,
    /// FUNCTION RESTORE: checked unless its policy is FLUSH or REPLACE.
    FunctionRestore,
    /// LTRIM: keeping a head or a tail by its length may be repeated, any other range cuts again.
    Trim,
    /// ZREMRANGEBYRANK: removing all but a head or a tail may be repeated, any other range removes again.
    RemoveRange,
    /// LREM: a count of 0 removes all, any other removes more each time.
    ListRemove,
    /// Commands that compute a destination: without one they read, and one that is a source too is changed again.
    Store,
}

const CONDITIONS: &[&str] = &["nx", "xx", "gt", "lt"];

pub(super) fn category(spec: &Spec, frame: &[u8]) -> Category {
    let fixed = spec.category;
    let checked_if = |checked: bool| if checked { Category::Checked } else { fixed };
    let read_if = |reads: bool| if reads { Category::Read } else { fixed };
    let repeatable_if = |repeatable: bool| if repeatable { Category::LastWriteWins } else { fixed };
    match spec.refinement {
        Refinement::None => fixed,
        Refinement::Set => checked_if(any(from(frame, 3), &["nx", "xx", "get", "ifeq", "ifne", "ifdeq", "ifdne"])),
        Refinement::MultiSetEx => checked_if(pairs_condition(frame)),
        Refinement::GetEx => read_if(from(frame, 2).is_empty()),
        Refinement::HashGetEx => read_if(from(frame, 2).next().is_some_and(|word| is_word(word, "fields"))),
        Refinement::HashSetEx => checked_if(any_before_fields(frame, 2, &["fnx", "fxx", "nx", "xx"])),
        Refinement::Expire => checked_if(any(from(frame, 3), CONDITIONS)),
        Refinement::HashExpire => checked_if(any_before_fields(frame, 3, CONDITIONS)),
        Refinement::SortedSetAdd => sorted_set_add(frame, fixed),
        Refinement::GeoAdd => checked_if(leading_options(frame, &["nx", "xx", "ch"]).any(|word| !is_word(word, "ch"))),
        Refinement::Bitfield => bitfield(frame, fixed),
        Refinement::Restore => repeatable_if(restore_replaces(spec, frame)),
        Refinement::FunctionRestore => repeatable_if(any(from(frame, 3), &["flush", "replace"])),
        Refinement::Trim => repeatable_if(range(frame).is_some_and(trims_to_a_length)),
        Refinement::RemoveRange => repeatable_if(range(frame).is_some_and(removes_to_a_length)),
        Refinement::ListRemove => match from(frame, 2).next() {
            Some(b"0") => Category::Checked,
            _ => Category::Accumulating,
        },
        Refinement::Store => store(spec, frame, fixed),
    }
}

fn from(frame: &[u8], first: usize) -> Arguments<'_> {
    let mut all = arguments(frame);
    if first > 0 {
        all.nth(first - 1);
    }
    all
}

fn any(mut arguments: Arguments<'_>, words: &[&str]) -> bool {
    arguments.any(|argument| one_of(argument, words))
}

fn one_of(argument: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| is_word(argument, word))
}

fn any_before_fields(frame: &[u8], first: usize, words: &[&str]) -> bool {
    from(frame, first).take_while(|word| !is_word(word, "fields")).any(|argument| one_of(argument, words))
}

/// The options that stand between the key and the first score of ZADD and GEOADD; a member may look like an option.
fn leading_options<'a>(frame: &'a [u8], words: &'static [&'static str]) -> impl Iterator<Item = &'a [u8]> {
    from(frame, 2).take_while(move |argument| one_of(argument, words))
}

fn sorted_set_add(frame: &[u8], fixed: Category) -> Category {
    let options = || leading_options(frame, &["nx", "xx", "gt", "lt", "ch", "incr"]);
    if options().any(|word| is_word(word, "incr")) {
        Category::Accumulating
    } else if options().any(|word| one_of(word, CONDITIONS)) {
        Category::Checked
    } else {
        fixed
    }
}

/// The options of MSETEX stand behind the pairs; a value may look like an option.
fn pairs_condition(frame: &[u8]) -> bool {
    let pairs = from(frame, 1).next().and_then(super::keys::number).unwrap_or(0);
    any(from(frame, pairs.saturating_mul(2).saturating_add(2)), &["nx", "xx"])
}

fn bitfield(frame: &[u8], fixed: Category) -> Category {
    let mut operations = from(frame, 2);
    let mut category = Category::Read;
    while let Some(operation) = operations.next() {
        if is_word(operation, "get") {
            operations.nth(1);
        } else if is_word(operation, "set") {
            category = category.max(fixed);
            operations.nth(2);
        } else if is_word(operation, "incrby") {
            category = Category::Accumulating;
            operations.nth(2);
        } else {
            operations.next(); // OVERFLOW and its policy
        }
    }
    category
}

/// REPLACE stands behind the payload of RESTORE and before the code of FUNCTION LOAD.
fn restore_replaces(spec: &Spec, frame: &[u8]) -> bool {
    if spec.arity == -4 {
        return any(from(frame, 4), &["replace"]);
    }
    let options = arguments(frame).len().saturating_sub(3);
    from(frame, 2).take(options).any(|word| is_word(word, "replace"))
}

/// Start and stop of a range, behind the key.
fn range(frame: &[u8]) -> Option<(i64, i64)> {
    let mut numbers = from(frame, 2).map(|argument| std::str::from_utf8(argument).ok()?.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn trims_to_a_length((start, stop): (i64, i64)) -> bool {
    (start == 0 && stop >= -1) || (start < 0 && stop == -1)
}

fn removes_to_a_length((start, stop): (i64, i64)) -> bool {
    (start == 0 && stop < 0) || (start >= 0 && stop == -1)
}

fn store(spec: &Spec, frame: &[u8], fixed: Category) -> Category {
    let mut destination = None;
    visit(spec, frame, Some(Access::Write), &mut |key| destination = Some(key));
    let Some(destination) = destination else { return Category::Read };
    let mut is_source = false;
    visit(spec, frame, Some(Access::Read), &mut |key| is_source |= key == destination);
    if is_source { Category::Accumulating } else { fixed }
}
