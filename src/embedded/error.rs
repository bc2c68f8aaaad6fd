//! What a command may be refused with, in the words of Redis 7.

use std::borrow::Cow;

/// The text of an error reply, its code first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error(pub(super) Cow<'static, str>);

impl Error {
    pub(super) const fn text(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

pub(super) const WRONG_TYPE: Error = Error::text("WRONGTYPE Operation against a key holding the wrong kind of value");
pub(super) const SYNTAX: Error = Error::text("ERR syntax error");
pub(super) const NOT_AN_INTEGER: Error = Error::text("ERR value is not an integer or out of range");
pub(super) const NOT_A_FLOAT: Error = Error::text("ERR value is not a valid float");
pub(super) const NO_SUCH_KEY: Error = Error::text("ERR no such key");
pub(super) const OUT_OF_RANGE: Error = Error::text("ERR index out of range");
pub(super) const NOT_POSITIVE: Error = Error::text("ERR value is out of range, must be positive");
pub(super) const OUT_OF_MEMORY: Error = Error::text("OOM command not allowed when used memory > 'maxmemory'.");
pub(super) const STRING_TOO_LONG: Error = Error::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
pub(super) const OVERFLOW: Error = Error::text("ERR increment or decrement would overflow");
pub(super) const NOT_FINITE: Error = Error::text("ERR increment would produce NaN or Infinity");
pub(super) const DATABASE_INDEX: Error = Error::text("ERR DB index is out of range");
pub(super) const INVALID_CURSOR: Error = Error::text("ERR invalid cursor");
pub(super) const TIMEOUT_NOT_A_FLOAT: Error = Error::text("ERR timeout is not a float or out of range");
pub(super) const TIMEOUT_NEGATIVE: Error = Error::text("ERR timeout is negative");

pub(super) fn wrong_arguments(command: &str) -> Error {
    format!("ERR wrong number of arguments for '{command}' command").into()
}

pub(super) fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]).into_owned();
    format!("ERR unknown subcommand '{shown}'. Try {} HELP.", command.to_ascii_uppercase()).into()
}

/// `ERR unknown command 'x', with args beginning with: 'a' 'b' `, cut to 128 bytes of arguments as Redis does.
pub(super) fn unknown_command(arguments: &[&[u8]]) -> Error {
    let shown = |bytes: &[u8], limit: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into_owned();
    let mut listed = String::new();
    for argument in &arguments[1..] {
        if listed.len() >= 128 {
            break;
        }
        listed.push_str(&format!("'{}' ", shown(argument, 128 - listed.len())));
    }
    format!("ERR unknown command '{}', with args beginning with: {listed}", shown(arguments[0], 128)).into()
}
