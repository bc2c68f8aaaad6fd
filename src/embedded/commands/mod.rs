//! The commands, one file per family, each with its rows of the table.

mod bits;
mod blocking;
mod client;
mod connection;
mod counters;
mod expiry;
mod hashes;
mod introspection;
mod keys;
mod lists;
mod pubsub;
mod scan;
mod serialized;
mod sets;
mod sorted_set_algebra;
mod sorted_set_ranges;
mod sorted_sets;
mod strings;
mod transactions;

use super::arguments::is;
use super::dispatch::{Context, Handler, Row};
use super::error::{self, Error};

/// Every command that is served. What is not here is unknown, as to a server without that module.
pub(super) static TABLE: &[&[Row]] = &[
    bits::ROWS,
    blocking::ROWS,
    client::ROWS,
    connection::ROWS,
    counters::ROWS,
    expiry::ROWS,
    hashes::ROWS,
    introspection::ROWS,
    keys::ROWS,
    lists::ROWS,
    pubsub::ROWS,
    scan::ROWS,
    serialized::ROWS,
    sets::ROWS,
    sorted_set_algebra::ROWS,
    sorted_set_ranges::ROWS,
    sorted_sets::ROWS,
    strings::ROWS,
    transactions::ROWS,
];

const NO_KEYS: (i8, i8, i8) = (0, 0, 0);
const ONE_KEY: (i8, i8, i8) = (1, 1, 1);
const TWO_KEYS: (i8, i8, i8) = (1, 2, 1);
const ALL_KEYS: (i8, i8, i8) = (1, -1, 1);

/// Arguments, or a part of them.
type Arguments<'b, 'a> = &'b [&'a [u8]];

const fn row(name: &'static str, arity: i16, flags: u16, keys: (i8, i8, i8), run: Handler) -> Row {
    Row { name, arity, flags, keys, run }
}

/// Runs the subcommand that the second argument names; arities count the command's name too.
fn subcommand(
    command: &str,
    table: &[(&str, i16, Handler)],
    context: &mut Context<'_>,
    arguments: &[&[u8]],
) -> Result<(), Error> {
    let found = table.iter().find(|(name, ..)| is(arguments[1], name));
    let Some(&(name, arity, run)) = found else { return Err(error::unknown_subcommand(command, arguments[1])) };
    let wanted = usize::from(arity.unsigned_abs());
    if arguments.len() < wanted || (arity > 0 && arguments.len() > wanted) {
        return Err(error::wrong_arguments(&format!("{command}|{name}")));
    }
    run(context, arguments)
}

/// Random elements asked for with a negative count, which may repeat: beyond this the reply is refused.
const REPEATED_PICKS_MAX: u64 = 1024 * 1024;

/// Positions of random elements among `length`, as the `count` of SRANDMEMBER, HRANDFIELD and ZRANDMEMBER has it: none
/// for one, positive for that many different ones, negative for that many with repetition.
fn random_positions(context: &mut Context<'_>, length: usize, count: Option<i64>) -> Result<Vec<usize>, Error> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut pick = |below: usize| (context.state.random() % below as u64) as usize;
    match count {
        None => Ok(vec![pick(length)]),
        Some(count) if count < 0 => {
            if count.unsigned_abs() > REPEATED_PICKS_MAX {
                return Err(Error::text("ERR value is out of range"));
            }
            Ok((0..count.unsigned_abs()).map(|_| pick(length)).collect())
        }
        Some(count) => {
            // The first steps of a Fisher-Yates shuffle.
            let mut positions: Vec<usize> = (0..length).collect();
            let wanted = (count as usize).min(length);
            for at in 0..wanted {
                positions.swap(at, at + pick(length - at));
            }
            positions.truncate(wanted);
            Ok(positions)
        }
    }
}
