//! Which keys a request may write, entered into records.

use super::record::Record;
use crate::command::{self, KeyScope, Spec};

/// Enters what `frame` may write into each record. An answer that never comes, or comes late, changes nothing: the keys
/// were entered before the request was sent.
pub fn note_write<'a>(records: impl Iterator<Item = &'a Record> + Clone, database: u32, spec: &Spec, frame: &[u8]) {
    let mut keys: Vec<&[u8]> = Vec::new();
    let scope = command::written_keys(spec, frame, &mut |key| keys.push(key));
    for record in records {
        match scope {
            KeyScope::None => {}
            KeyScope::Keys => record.dirty(database, keys.iter().copied()),
            KeyScope::Database | KeyScope::Everything => {
                record.become_unknown("a whole database was written (FLUSHDB, FLUSHALL or SWAPDB)");
            }
            KeyScope::Unknown => {
                record.become_unknown(&format!("{} wrote keys that it did not declare", spec.name));
            }
        }
    }
}
