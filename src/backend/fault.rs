//! What an error reply to a request means: a row of the one table of failures (`policy::FAILURES`), and what the path does by
//! it. Only the reply's whole first word counts.

use super::link::Entry;
use crate::command::{Category, Class};
use crate::policy::{Cause, Edge, NotReadyWord, RetryVerdict};
use crate::resp;

/// Reads the cause of an error reply to the request of `entry`. Errors inside the replies of scripts are the
/// application's; those inside EXEC's reply are elements of it and never looked at.
#[must_use]
pub fn cause<S>(reply: &[u8], entry: &Entry<S>) -> Cause {
    if entry.class == Class::Script {
        return Cause::Application;
    }
    match Cause::of_error_word(resp::error_word(reply).unwrap_or_default()) {
        // A command that only reads needs no memory: such a reply is another program's idea of OOM.
        Cause::OutOfMemory if entry.class == Class::PointRead => Cause::Application,
        cause => cause,
    }
}

/// Whether a request of this category may be sent again after a failure, as far as its fate goes.
#[must_use]
pub fn may_repeat(cause: Cause, category: Category, ceiling: Category) -> bool {
    match cause.meaning().retry {
        RetryVerdict::Always => true,
        RetryVerdict::UpToCeiling => category <= ceiling,
        RetryVerdict::Never => false,
    }
}

/// What the decision makers are told at once; the rest they find in the counters.
#[must_use]
pub fn edge(cause: Cause) -> Option<Edge> {
    match cause {
        Cause::Loading => Some(Edge::NotReady(NotReadyWord::Loading)),
        Cause::MasterDown => Some(Edge::NotReady(NotReadyWord::MasterDown)),
        Cause::ClusterDown => Some(Edge::NotReady(NotReadyWord::ClusterDown)),
        Cause::Misconf => Some(Edge::NotReady(NotReadyWord::Misconf)),
        Cause::NoReplicas => Some(Edge::NotReady(NotReadyWord::NoReplicas)),
        Cause::ReadOnly | Cause::NotMaster => Some(Edge::WrongRole),
        Cause::NotLoggedIn | Cause::WrongPassword => Some(Edge::AuthenticationFailed),
        // One user may not do one thing: the login stands.
        Cause::NoPermission => None,
        Cause::Busy | Cause::OutOfMemory | Cause::TryAgain | Cause::TooManyClients | Cause::LinkFull => None,
        Cause::BrokenFrame | Cause::UnaskedReply | Cause::RequestUnanswered | Cause::Application => None,
        // Of connections, which tell of themselves.
        Cause::Refused
        | Cause::Unreachable
        | Cause::NameNotResolved
        | Cause::TlsFailed
        | Cause::LinkLost
        | Cause::HandshakeReset
        | Cause::NobodyServes
        | Cause::ConnectUnanswered
        | Cause::HandshakeUnanswered
        | Cause::Silent => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(class: Class) -> Entry<()> {
        Entry { owner: (), at_us: 0, seq: 0, len: 0, confirmations: 0, class, attempts: 0, flags: 0 }
    }

    #[test]
    fn errors_of_scripts_are_the_applications_and_a_read_is_never_out_of_memory() {
        for (reply, class, expected) in [
            ("-READONLY You can't write", Class::Write, Cause::ReadOnly),
            ("-READONLY You can't write", Class::Script, Cause::Application),
            ("-LOADING the dataset", Class::PointRead, Cause::Loading),
            ("-BUSYGROUP exists", Class::Write, Cause::Application),
            ("-BUSY a script", Class::PointRead, Cause::Busy),
            ("-OOM command not allowed", Class::Write, Cause::OutOfMemory),
            ("-OOM command not allowed", Class::PointRead, Cause::Application),
            ("-OOM in a script", Class::Script, Cause::Application),
            ("-WRONGTYPE Operation", Class::PointRead, Cause::Application),
            ("-NOPERM this user", Class::Write, Cause::NoPermission),
            ("-NOAUTH", Class::Write, Cause::NotLoggedIn),
        ] {
            let reply = format!("{reply}\r\n");
            assert_eq!(cause(reply.as_bytes(), &entry(class)), expected, "{reply} {class:?}");
        }
    }

    #[test]
    fn what_was_not_executed_goes_again_and_what_may_have_been_goes_up_to_the_ceiling() {
        let ceiling = Category::LastWriteWins;
        for (cause, category, expected) in [
            (Cause::Loading, Category::Never, true),
            (Cause::LinkLost, Category::LastWriteWins, true),
            (Cause::LinkLost, Category::Accumulating, false),
            (Cause::WrongPassword, Category::Read, false),
            (Cause::Application, Category::Read, false),
        ] {
            assert_eq!(may_repeat(cause, category, ceiling), expected, "{cause:?} {category:?}");
        }
    }
}
