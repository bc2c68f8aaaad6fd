//! Which keys each backend has missed. A backend serves only while its record is clean or empty.
//!
//! This room keeps records and says what to do about them; it opens no connection and takes no decision.

mod record;
mod scripts;
mod writes;

pub use record::{DirtyKey, Record, State, Summary};
pub use scripts::Scripts;
pub use writes::note_write;
