//! What a failure means: one table from what happened to whose fault it is, what may be sent again, and what to do.
//!
//! The data path, the probes and the documentation (`docs/failover.md`) all read this table; there is no second one. Of an
//! error reply only the whole first word counts (BUSYGROUP is not BUSY), and errors inside the replies of scripts and
//! EXEC are the application's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::NotReadyWord;

/// The kinds that failures are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Refused, reset, closed, unreachable, DNS, TLS.
    Connection,
    Timeout,
    Overloaded,
    NotReady,
    WrongRole,
    Authentication,
    /// Its bytes make no sense.
    Protocol,
    /// The application's own: never held against a backend.
    Data,
}

/// Everything that can go wrong with a connection, a request or a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Refused,
    Unreachable,
    NameNotResolved,
    TlsFailed,
    /// An established connection was closed or reset, by whomever.
    LinkLost,
    HandshakeReset,
    /// No backend at all can serve.
    NobodyServes,
    ConnectUnanswered,
    HandshakeUnanswered,
    /// A request's life ended without a reply.
    RequestUnanswered,
    /// Replies are due and nothing comes on any connection.
    Silent,
    Busy,
    OutOfMemory,
    TooManyClients,
    TryAgain,
    /// A bound of our own on requests in flight.
    LinkFull,
    Loading,
    MasterDown,
    ClusterDown,
    Misconf,
    NoReplicas,
    ReadOnly,
    /// ROLE says replica or sentinel where a master is expected.
    NotMaster,
    NotLoggedIn,
    WrongPassword,
    NoPermission,
    BrokenFrame,
    UnaskedReply,
    /// WRONGTYPE, syntax, and every other error that is the request's own.
    Application,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    Backend,
    /// Somewhere between us and the backend, or not to be told from there.
    Network,
    /// This process.
    Ourselves,
    Application,
    /// Whoever set it up: a secret, a role, a full disk.
    Operator,
}

/// What may be sent again after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryVerdict {
    /// Nothing was executed: whatever it was.
    Always,
    /// Nobody knows whether it was executed: what `retry.ceiling` allows. What was not yet written may always go.
    UpToCeiling,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The same backend again, within the retry budget.
    RetrySame,
    /// Evidence for a switch: what waits goes to the next active.
    RetryOther,
    /// Refused at once with a clear error: more load would make it worse.
    Shed,
    /// Counted by rate; past the threshold the backend is left for one that is well.
    OpenBreaker,
    /// The last resort (`address = "embedded"`) serves, or a clear error.
    Degrade,
    /// Another server is no cure: an event, and the status, until somebody mends it.
    AskPerson,
    /// Handed on to the client as it is.
    PassOn,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Meaning {
    pub cause: Cause,
    pub kind: FailureKind,
    pub fault: Fault,
    pub retry: RetryVerdict,
    pub strategy: Strategy,
}

/// The table. A row's place is its cause's number.
pub const FAILURES: [Meaning; Cause::COUNT] = {
    use Cause::*;
    use FailureKind::{Authentication, Connection, Data, NotReady, Overloaded, Protocol, Timeout, WrongRole};
    use Fault::{Application as App, Backend, Network, Operator, Ourselves};
    use RetryVerdict::{Always, Never, UpToCeiling};
    use Strategy::{AskPerson, Degrade, OpenBreaker, PassOn, RetryOther, RetrySame, Shed};
    [
        row(Refused, Connection, Backend, Always, RetryOther),
        row(Unreachable, Connection, Network, Always, RetryOther),
        row(NameNotResolved, Connection, Network, Always, RetryOther),
        row(TlsFailed, Connection, Operator, Always, RetryOther),
        row(LinkLost, Connection, Network, UpToCeiling, RetrySame),
        row(HandshakeReset, Connection, Backend, Always, RetryOther),
        row(NobodyServes, Connection, Backend, Always, Degrade),
        row(ConnectUnanswered, Timeout, Network, Always, RetryOther),
        row(HandshakeUnanswered, Timeout, Backend, Always, RetryOther),
        // Its time is over: whoever waited for it has been told.
        row(RequestUnanswered, Timeout, Backend, Never, OpenBreaker),
        row(Silent, Timeout, Backend, UpToCeiling, RetryOther),
        // A script of the application is at work; it has an allowance of its own.
        row(Busy, Overloaded, App, Always, RetrySame),
        row(OutOfMemory, Overloaded, Backend, Always, OpenBreaker),
        row(TooManyClients, Overloaded, Backend, Always, RetryOther),
        row(TryAgain, Overloaded, Backend, Always, RetrySame),
        row(LinkFull, Overloaded, Ourselves, Never, Shed),
        row(Loading, NotReady, Backend, Always, RetryOther),
        row(MasterDown, NotReady, Backend, Always, RetryOther),
        row(ClusterDown, NotReady, Backend, Always, RetryOther),
        // A full disk, most often.
        row(Misconf, NotReady, Operator, Always, RetryOther),
        row(NoReplicas, NotReady, Backend, Always, RetryOther),
        row(ReadOnly, WrongRole, Backend, Always, RetryOther),
        row(NotMaster, WrongRole, Operator, Always, RetryOther),
        row(NotLoggedIn, Authentication, Operator, Never, AskPerson),
        row(WrongPassword, Authentication, Operator, Never, AskPerson),
        row(NoPermission, Authentication, Operator, Never, AskPerson),
        row(BrokenFrame, Protocol, Backend, UpToCeiling, OpenBreaker),
        row(UnaskedReply, Protocol, Backend, UpToCeiling, OpenBreaker),
        row(Application, Data, App, Never, PassOn),
    ]
};

const fn row(cause: Cause, kind: FailureKind, fault: Fault, retry: RetryVerdict, strategy: Strategy) -> Meaning {
    Meaning { cause, kind, fault, retry, strategy }
}

impl FailureKind {
    pub const COUNT: usize = 8;
    pub const ALL: [Self; Self::COUNT] = [
        Self::Connection,
        Self::Timeout,
        Self::Overloaded,
        Self::NotReady,
        Self::WrongRole,
        Self::Authentication,
        Self::Protocol,
        Self::Data,
    ];

    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::NotReady => "not_ready",
            Self::WrongRole => "wrong_role",
            Self::Authentication => "authentication",
            Self::Protocol => "protocol",
            Self::Data => "data",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Cause {
    pub const COUNT: usize = Self::Application as usize + 1;

    pub const fn meaning(self) -> &'static Meaning {
        &FAILURES[self as usize]
    }

    /// The word of a server that lives and does not serve.
    #[must_use]
    pub fn not_ready_word(self) -> Option<NotReadyWord> {
        NotReadyWord::ALL.into_iter().find(|word| word.cause() == self)
    }

    /// What an error reply says by its whole first word.
    #[must_use]
    pub fn of_error_word(word: &[u8]) -> Self {
        match word {
            b"LOADING" => Self::Loading,
            b"MASTERDOWN" => Self::MasterDown,
            b"CLUSTERDOWN" => Self::ClusterDown,
            b"MISCONF" => Self::Misconf,
            b"NOREPLICAS" => Self::NoReplicas,
            b"READONLY" => Self::ReadOnly,
            b"BUSY" => Self::Busy,
            b"OOM" => Self::OutOfMemory,
            b"TRYAGAIN" => Self::TryAgain,
            b"NOAUTH" => Self::NotLoggedIn,
            b"WRONGPASS" => Self::WrongPassword,
            b"NOPERM" => Self::NoPermission,
            _ => Self::Application,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_row_stands_at_its_cause() {
        for (place, row) in FAILURES.iter().enumerate() {
            assert_eq!(row.cause as usize, place);
            assert_eq!(row.cause.meaning(), row);
        }
    }

    #[test]
    fn the_documents_hold_every_row() {
        let documents = include_str!("../../docs/failover.md");
        for row in FAILURES {
            let told = serde_json::to_value(row).unwrap();
            let [cause, kind, fault, retry, strategy] =
                ["cause", "kind", "fault", "retry", "strategy"].map(|column| told[column].as_str().unwrap().to_owned());
            let (begins, ends) = (format!("| `{cause}` | "), format!(" | `{kind}` | {fault} | {retry} | {strategy} |"));
            let told = documents.lines().filter(|line| line.starts_with(&begins) && line.ends_with(&ends)).count();
            assert_eq!(told, 1, "docs/failover.md needs a line: {begins}...{ends}");
        }
    }

    #[test]
    fn only_the_whole_first_word_counts() {
        for (word, cause) in [
            ("BUSY", Cause::Busy),
            ("BUSYGROUP", Cause::Application),
            ("BUSYKEY", Cause::Application),
            ("NOTBUSY", Cause::Application),
            ("LOADINGS", Cause::Application),
            ("OOM", Cause::OutOfMemory),
            ("oom", Cause::Application),
            ("WRONGTYPE", Cause::Application),
            ("ERR", Cause::Application),
            ("MOVED", Cause::Application),
            ("EXECABORT", Cause::Application),
            ("", Cause::Application),
            ("NOPERM", Cause::NoPermission),
            ("READONLY", Cause::ReadOnly),
            ("MISCONF", Cause::Misconf),
        ] {
            assert_eq!(Cause::of_error_word(word.as_bytes()), cause, "{word}");
        }
    }

    #[test]
    fn what_is_not_the_backends_fault_never_makes_it_be_left() {
        for row in FAILURES {
            let leaves = matches!(row.strategy, Strategy::OpenBreaker | Strategy::RetryOther);
            let theirs = matches!(row.fault, Fault::Application | Fault::Ourselves);
            assert!(!(leaves && theirs), "{row:?}");
            assert_eq!(row.kind == FailureKind::Authentication, row.strategy == Strategy::AskPerson, "{row:?}");
            assert_eq!(row.kind == FailureKind::Data, row.strategy == Strategy::PassOn, "{row:?}");
        }
    }

    #[test]
    fn kinds_are_numbered_in_their_order() {
        for (place, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place);
        }
    }
}
