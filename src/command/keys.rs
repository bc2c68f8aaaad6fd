//! Which keys a request names, and which of them it may write.

use super::{Category, Class, Spec};
use crate::resp::{Arguments, arguments};

/// What a request touches, beyond the keys that were handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyScope {
    /// No key at all.
    None,
    /// The keys that were handed out, and no other.
    Keys,
    /// The whole database that the session has selected.
    Database,
    /// Every database.
    Everything,
    /// Cannot be told: any key.
    Unknown,
}

/// Where a command has its keys: up to three ranges, or a scope that needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    pub scope: KeyScope,
    pub ranges: [Option<KeyRange>; 3],
}

/// Keys that stand together and are used alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    pub access: Access,
    pub find: Find,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Written, whether or not it is read as well.
    Write,
}

/// How to find a range among the arguments. Positions count from the name, which is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// First, last (negative: from the end, -1 is the last argument), step.
    Range(i16, i16, i16),
    /// Position of the count of keys, position of the first key, step.
    Counted(i16, i16, i16),
    /// The first half of what follows the word STREAMS.
    Streams,
    /// The key behind STORE; the last one counts.
    SortStore,
    /// The key behind STORE or STOREDIST; the last one counts.
    GeoStore,
    /// The key at 3, or those behind KEYS if that is empty.
    Migrate,
}

/// Hands every key of the request to `each`, read or written, and says what else it touches.
///
/// A request that the server will refuse (a count of keys that is no number or too large) has no keys.
pub fn keys<'a>(spec: &Spec, frame: &'a [u8], each: &mut dyn FnMut(&'a [u8])) -> KeyScope {
    let scope = visit(spec, frame, None, each);
    // BY and GET patterns of SORT read keys that are made from the elements.
    let patterns = spec.has(Find::SortStore) && sort_reads_patterns(frame);
    if patterns { KeyScope::Unknown } else { scope }
}

/// Hands those keys to `each` that the request may write, and says what else it may write.
///
/// A script that declares no keys may write any: `Unknown`. A `_RO` script writes none.
pub fn written_keys<'a>(spec: &Spec, frame: &'a [u8], each: &mut dyn FnMut(&'a [u8])) -> KeyScope {
    if !spec.is_write() || spec.category(frame) == Category::Read {
        return KeyScope::None;
    }
    visit(spec, frame, Some(Access::Write), each)
}

/// Whether a read that names no key tells of all of them.
#[must_use]
pub fn reads_keyspace(spec: &Spec) -> bool {
    matches!(spec.name, "dbsize" | "keys" | "randomkey" | "scan")
}

impl KeySpec {
    pub const UNKNOWN: KeySpec = KeySpec { scope: KeyScope::Unknown, ranges: [None; 3] };
}

impl Spec {
    fn has(&self, find: Find) -> bool {
        self.keys.ranges.iter().flatten().any(|range| range.find == find)
    }
}

/// Keys of one access, or of both.
pub(super) fn visit<'a>(
    spec: &Spec,
    frame: &'a [u8],
    access: Option<Access>,
    each: &mut dyn FnMut(&'a [u8]),
) -> KeyScope {
    if spec.keys.scope != KeyScope::Keys {
        return spec.keys.scope;
    }
    let mut found = 0usize;
    let mut counted = |key| {
        found += 1;
        each(key);
    };
    let mut refused = false;
    for range in spec.keys.ranges.iter().flatten() {
        if access.is_none_or(|access| access == range.access) {
            refused |= range.find.each(frame, &mut counted).is_none();
        }
    }
    match found {
        0 if spec.class == Class::Script && !refused => KeyScope::Unknown,
        0 => KeyScope::None,
        _ => KeyScope::Keys,
    }
}

impl Find {
    /// None if the server will refuse the request for what stands here.
    fn each<'a>(self, frame: &'a [u8], each: &mut dyn FnMut(&'a [u8])) -> Option<()> {
        let mut all = arguments(frame);
        match self {
            Find::Range(first, last, step) => {
                let last = position(last, all.len())?;
                let first = usize::try_from(first).ok()?;
                let step = usize::try_from(step).ok()?.max(1);
                all.take(last + 1).skip(first).step_by(step).for_each(each);
            }
            Find::Counted(count, first, step) => {
                let total = all.len();
                let (count, first) = (usize::try_from(count).ok()?, usize::try_from(first).ok()?);
                let step = usize::try_from(step).ok()?.max(1);
                let keys = number(all.nth(count)?)?;
                if keys.checked_mul(step)?.checked_add(first)? > total {
                    return None;
                }
                all.skip(first.checked_sub(count + 1)?).step_by(step).take(keys).for_each(each);
            }
            Find::Streams => streams(all)?.for_each(each),
            Find::SortStore => sort_store(all).into_iter().for_each(each),
            Find::GeoStore => geo_store(all).into_iter().for_each(each),
            Find::Migrate => migrate(all, each)?,
        }
        Some(())
    }
}

/// A position from the front, of one that may be counted from the end.
pub(super) fn position(position: i16, length: usize) -> Option<usize> {
    match usize::try_from(position) {
        Ok(position) => Some(position),
        Err(_) => length.checked_sub(usize::from(position.unsigned_abs())),
    }
}

pub(super) fn number(argument: &[u8]) -> Option<usize> {
    std::str::from_utf8(argument).ok()?.parse().ok()
}

pub(super) fn is_word(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The arguments of XREAD and XREADGROUP from the first key to the last. Options are skipped with their values, since
/// a group or a consumer may be called "streams".
fn streams(mut all: Arguments<'_>) -> Option<impl Iterator<Item = &[u8]>> {
    all.next()?;
    loop {
        let option = all.next()?;
        if is_word(option, "streams") {
            break;
        }
        if is_word(option, "group") {
            all.nth(1)?;
        } else if is_word(option, "block") || is_word(option, "count") || is_word(option, "claim") {
            all.next()?;
        }
    }
    let left = all.len();
    (left.is_multiple_of(2)).then(|| all.take(left / 2))
}

fn sort_store(mut all: Arguments<'_>) -> Option<&[u8]> {
    all.nth(1)?;
    let mut store = None;
    while let Some(option) = all.next() {
        if is_word(option, "store") {
            store = all.next().or(store);
        } else if is_word(option, "limit") {
            all.nth(1);
        } else if is_word(option, "by") || is_word(option, "get") {
            all.next();
        }
    }
    store
}

/// `GET #` and a BY without an asterisk read no other key.
fn sort_reads_patterns(frame: &[u8]) -> bool {
    let mut all = arguments(frame);
    all.nth(1);
    while let Some(option) = all.next() {
        if is_word(option, "store") {
            all.next();
        } else if is_word(option, "limit") {
            all.nth(1);
        } else {
            let (by, get) = (is_word(option, "by"), is_word(option, "get"));
            let Some(pattern) = (if by || get { all.next() } else { None }) else { continue };
            if (get && pattern != b"#") || (by && pattern.contains(&b'*')) {
                return true;
            }
        }
    }
    false
}

fn geo_store(mut all: Arguments<'_>) -> Option<&[u8]> {
    all.nth(4)?;
    let mut store = None;
    while let Some(option) = all.next() {
        if is_word(option, "store") || is_word(option, "storedist") {
            store = all.next().or(store);
        }
    }
    store
}

fn migrate<'a>(mut all: Arguments<'a>, each: &mut dyn FnMut(&'a [u8])) -> Option<()> {
    let key = all.nth(3)?;
    if !key.is_empty() {
        each(key);
        return Some(());
    }
    all.nth(1)?;
    // A password may be "keys": it is skipped with its option.
    while let Some(option) = all.next() {
        if is_word(option, "keys") {
            all.for_each(each);
            return Some(());
        } else if is_word(option, "auth") {
            all.next();
        } else if is_word(option, "auth2") {
            all.nth(1);
        }
    }
    None
}
