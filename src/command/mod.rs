//! The command table as data: arity, keys, read or write, retry category, latency class and what a session must do.
//!
//! Pure: bytes in, facts out. This room knows no socket, no clock and no backend, and it never judges whether a command
//! is allowed. The rows are in `table`; what depends on a request's arguments is in `retry`, `keys` and `blocking`.

mod blocking;
mod flags;
mod keys;
mod learned;
mod lookup;
mod retry;
mod slot;
mod table;

pub use self::blocking::{blocking_timeout, is_blocking, timeout_position, with_timeout};
pub use self::flags::Flags;
pub use self::keys::{Access, Find, KeyRange, KeyScope, KeySpec, keys, reads_keyspace, written_keys};
pub use self::learned::{LearnedSpec, learn, learned};
pub use self::lookup::lookup;
pub use self::retry::Refinement;
pub use self::slot::{SLOTS, slot_of};
pub use self::table::all;

use crate::resp::arguments;

/// One command, or one subcommand of a container command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Lower case; a subcommand is named with its container, `config|get`.
    pub name: &'static str,
    /// Arguments including the name itself; negative means "at least". The laxest of the servers that we know counts,
    /// since the server refuses by itself what it does not know.
    pub arity: i16,
    pub handling: Handling,
    pub class: Class,
    /// Before the arguments are known; [`Spec::category`] is what counts for a request.
    pub category: Category,
    pub flags: Flags,
    pub keys: KeySpec,
    pub subcommands: &'static [Spec],
    /// How the arguments change the category.
    pub refinement: Refinement,
    /// Where the command carries the time that it may block.
    pub timeout: Timeout,
}

/// What may be sent again after a fault that leaves the outcome unknown. Ordered: a ceiling admits all that is below.
///
/// A command belongs to the lowest category for which running it twice gives the state that running it once gives;
/// counts in answers (DEL, SADD, HSET) are not held to it, an answer that carries data or a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Changes nothing.
    Read,
    /// The second run leaves what the first left.
    LastWriteWins,
    /// The second run leaves the same state but gives another verdict or has lost the old value.
    Checked,
    /// The second run adds to the first.
    Accumulating,
    /// Changes the server rather than keys.
    Admin,
    /// Is never repeated, whatever the ceiling.
    Never,
}

/// How long a request may take before it is late. Each class has its own recorded latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Constant time, answers little.
    PointRead,
    /// A write to one key.
    Write,
    /// Several keys, or a whole collection.
    MultiKey,
    /// Runs as long as its author likes.
    Script,
    /// Linear in the key space, or computes across whole collections.
    Slow,
    /// Waits on purpose.
    Blocking,
    /// Server administration and introspection.
    Admin,
}

/// How the client session treats a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handling {
    /// Forwarded on the multiplexed link, like any other request.
    Shared,
    /// Carries a cursor that only the server knows that gave it.
    Scan,
    Select,
    Auth,
    Hello,
    Reset,
    Quit,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Subscribe,
    PatternSubscribe,
    ShardSubscribe,
    Unsubscribe,
    PatternUnsubscribe,
    ShardUnsubscribe,
    /// May block its connection: ask [`is_blocking`], since XREAD and XREADGROUP block only with a BLOCK argument.
    Blocking,
    /// WAIT and WAITAOF: about the writes of their own connection.
    Wait,
    Monitor,
    /// SYNC and PSYNC: a raw tunnel from here on.
    Sync,
    /// REPLCONF: what a replica says about itself before SYNC or PSYNC.
    ReplicaConfiguration,
    ClientId,
    ClientList,
    ClientInfo,
    ClientKill,
    ClientUnblock,
    ClientSetName,
    ClientGetName,
    ClientReply,
    ClientNoEvict,
    ClientNoTouch,
    ClientSetInfo,
    ClientTracking,
    ClientCaching,
    ClientGetRedir,
    ClientTrackingInfo,
    /// CLIENT PAUSE and UNPAUSE; forwarded like `Shared`, but for a while the backend is slow by order.
    ClientPause,
    /// CLIENT CAPA (Valkey): what the connection can take, `redirect` among it.
    ClientCapability,
    /// CLIENT IMPORT-SOURCE (Valkey): a state of the connection.
    ClientImportSource,
    ScriptLoad,
    ScriptFlush,
    /// FUNCTION LOAD, RESTORE, DELETE and FLUSH: they change which libraries must be remembered.
    FunctionLoad,
    /// SCRIPT KILL and FUNCTION KILL: must not queue behind the script that they end.
    Urgent,
    /// Needs a connection of its own for the rest of the session.
    ScriptDebug,
    ReadOnly,
    ReadWrite,
    Asking,
    Shutdown,
}

/// Where a blocking command carries its time, and in which unit. Positions count from the name, which is 0; negative
/// ones from the end, the last argument being -1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    None,
    /// Seconds with a fraction.
    Seconds(i8),
    /// Whole milliseconds.
    Milliseconds(i8),
    /// Whole milliseconds behind the word BLOCK, which stands before STREAMS.
    BlockOption,
}

/// A command that neither we nor the server's COMMAND INFO knows: a write of unknown keys that is not repeated after
/// an ambiguous fault.
pub static UNKNOWN: Spec = Spec {
    name: "unknown",
    arity: -1,
    handling: Handling::Shared,
    class: Class::Slow,
    category: Category::Accumulating,
    flags: Flags::WRITE,
    keys: KeySpec::UNKNOWN,
    subcommands: &[],
    refinement: Refinement::None,
    timeout: Timeout::None,
};

/// The row of a complete request, subcommands resolved: of the table, or learnt from the servers, else [`UNKNOWN`].
pub fn of_request(frame: &[u8]) -> &'static Spec {
    let name = arguments(frame).next().unwrap_or_default();
    lookup(name).unwrap_or_else(|| learned::recall(name)).resolve(frame)
}

impl Spec {
    /// The subcommand that the second argument names; the command itself if it has none of that name.
    pub fn resolve(&'static self, frame: &[u8]) -> &'static Spec {
        if self.subcommands.is_empty() {
            return self;
        }
        let Some(wanted) = arguments(frame).nth(1) else { return self };
        let prefix = self.name.len() + 1;
        let named = |spec: &&Spec| spec.name.as_bytes()[prefix..].eq_ignore_ascii_case(wanted);
        self.subcommands.iter().find(named).unwrap_or(self)
    }

    /// Whether it may change data. Scripts count as writes unless they are the `_RO` variants.
    pub fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE) || (self.class == Class::Script && !self.flags.contains(Flags::READONLY))
    }

    /// Whether a request of so many arguments, the name included, passes the arity check.
    pub fn arity_ok(&self, arguments: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { arguments >= least } else { arguments == least }
    }

    /// The retry category of this request.
    pub fn category(&self, frame: &[u8]) -> Category {
        retry::category(self, frame)
    }
}

#[cfg(test)]
mod tests;
