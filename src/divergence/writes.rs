//! Which keys a request may write, entered into records.

use super::copy::Ahead;
use super::record::Record;
use crate::command::{self, Class, KeyScope, Spec};
use crate::resp;

/// Enters what `frame` may write into each record. An answer that never comes, or comes late, changes nothing: the keys
/// were entered before the request was sent.
pub fn note_write<'a>(records: impl Iterator<Item = &'a Record> + Clone, database: u32, spec: &Spec, frame: &[u8]) {
    note(records.map(|record| (0, record)), database, spec, frame, None);
}

/// As [`note_write`], for records with the numbers of their backends: what the server that serves has not been told goes
/// into `ahead`.
pub fn note_write_ahead<'a>(
    records: impl Iterator<Item = (u8, &'a Record)> + Clone,
    database: u32,
    spec: &Spec,
    frame: &[u8],
    ahead: &mut Ahead,
) {
    note(records, database, spec, frame, Some(ahead));
}

fn note<'a>(
    records: impl Iterator<Item = (u8, &'a Record)> + Clone,
    database: u32,
    spec: &Spec,
    frame: &[u8],
    mut ahead: Option<&mut Ahead>,
) {
    let mut keys: Vec<&[u8]> = Vec::new();
    let scope = command::written_keys(spec, frame, &mut |key| keys.push(key));
    let elsewhere = other_database(spec, frame);
    for (number, record) in records {
        if let Some((other, key)) = elsewhere {
            record.dirty_ahead(other, [key], ahead.as_deref_mut().map(|ahead| (number, ahead)));
        }
        let ahead = ahead.as_deref_mut().map(|ahead| (number, ahead));
        let is_doubted = spec.class == Class::Script && scope != KeyScope::None && record.doubts_scripts();
        match scope {
            _ if is_doubted => {
                record.become_unknown_ahead("a script ran, which may write any key (divergence.scripts)", ahead);
            }
            KeyScope::None => {}
            KeyScope::Keys => record.dirty_ahead(database, keys.iter().copied(), ahead),
            KeyScope::Database | KeyScope::Everything => {
                record.become_unknown_ahead("a whole database was written (FLUSHDB, FLUSHALL or SWAPDB)", ahead);
            }
            KeyScope::Unknown => {
                record.become_unknown_ahead(&format!("{} wrote keys that it did not declare", spec.name), ahead);
            }
        }
    }
}

/// The key that MOVE, or COPY with DB, writes in another database.
fn other_database<'a>(spec: &Spec, frame: &'a [u8]) -> Option<(u32, &'a [u8])> {
    let arguments: Vec<&[u8]> = match spec.name {
        "move" | "copy" => resp::arguments(frame).collect(),
        _ => return None,
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u32>().ok();
    if spec.name == "move" {
        return Some((number(arguments.get(2)?)?, arguments.get(1)?));
    }
    // Behind both keys, either of which may be called "db".
    let at = arguments.iter().skip(3).position(|word| word.eq_ignore_ascii_case(b"db"))? + 3;
    Some((number(arguments.get(at + 1)?)?, arguments.get(2)?))
}
