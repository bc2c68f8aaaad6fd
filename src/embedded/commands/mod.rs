//! The commands, one file per family, each with its rows of the table.

mod connection;
mod keys;
mod strings;

use super::dispatch::{Context, Handler, Row};
use super::error::{self, Error};

/// Every command that is served. What is not here is unknown, as to a server without that module.
pub(super) static TABLE: &[&[Row]] = &[connection::ROWS, keys::ROWS, strings::ROWS];

const NO_KEYS: (i8, i8, i8) = (0, 0, 0);
const ONE_KEY: (i8, i8, i8) = (1, 1, 1);
const TWO_KEYS: (i8, i8, i8) = (1, 2, 1);
const ALL_KEYS: (i8, i8, i8) = (1, -1, 1);

const fn row(name: &'static str, arity: i16, flags: u16, keys: (i8, i8, i8), run: Handler) -> Row {
    Row { name, arity, flags, keys, run }
}
