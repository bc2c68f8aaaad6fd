//! What an error reply means: the server's state, or the application's own affair. Only its whole first word counts.

use super::link::Entry;
use crate::command::Class;
use crate::policy::NotReadyWord;
use crate::resp;

/// The meaning of one error reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorMeaning {
    /// The application's own: wrong type, syntax, and every error within a script's or transaction's reply.
    Data,
    /// The server cannot do it now: nothing was executed.
    Overloaded,
    NotReady(NotReadyWord),
    /// A replica refuses writes: nothing was executed.
    WrongRole,
    /// The connection's login is no longer accepted.
    Authentication,
}

/// Reads the meaning of an error reply to the request of `entry`.
#[must_use]
pub fn meaning<S>(reply: &[u8], entry: &Entry<S>) -> ErrorMeaning {
    if entry.class == Class::Script {
        return ErrorMeaning::Data;
    }
    match resp::error_word(reply).unwrap_or_default() {
        b"LOADING" => ErrorMeaning::NotReady(NotReadyWord::Loading),
        b"MASTERDOWN" => ErrorMeaning::NotReady(NotReadyWord::MasterDown),
        b"CLUSTERDOWN" => ErrorMeaning::NotReady(NotReadyWord::ClusterDown),
        b"READONLY" => ErrorMeaning::WrongRole,
        b"NOAUTH" | b"WRONGPASS" => ErrorMeaning::Authentication,
        b"TRYAGAIN" | b"MISCONF" | b"NOREPLICAS" | b"BUSY" => ErrorMeaning::Overloaded,
        b"OOM" if entry.class != Class::PointRead => ErrorMeaning::Overloaded,
        _ => ErrorMeaning::Data,
    }
}
