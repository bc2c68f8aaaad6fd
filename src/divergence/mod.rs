//! Which keys each backend has missed. A backend serves only while its record is clean or empty.
//!
//! This room keeps records and says what to do about them; it opens no connection and takes no decision.

mod copy;
mod homes;
mod mirror;
mod read_keys;
mod record;
mod scripts;
mod translate;
mod writes;

pub use copy::{Ahead, Missed, MissedByBackend, SNAPSHOT, block_name, entries, read_copy};
pub use homes::{Homes, Lease, Reader, Side, Sides};
pub use mirror::{Acknowledged, Chunk, Mirror, Source, Waiting};
pub use read_keys::ReadKeys;
pub use record::{DirtyKey, Record, State, Summary};
pub use scripts::Scripts;
pub use translate::is_mirrored_as_it_is;
pub use writes::{note_write, note_write_ahead};
