//! Commands of connections, publish and subscribe, transactions and scripting.
//!
//! One line per command; `columns::command` names the columns.

use super::columns::*;

#[rustfmt::skip]
pub(super) static CONNECTION: &[Spec] = &[
    command("auth", -2, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, NO_KEYS).handled(Handling::Auth),
    command("client", -2, Class::Admin, Category::Admin, 0, NO_KEYS).containing(&[
        command("client|caching", 3, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientCaching),
        command("client|capa", -3, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientCapability),
        command("client|getname", 2, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientGetName),
        command("client|getredir", 2, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientGetRedir),
        command("client|help", 2, Class::Admin, Read, LOADING | STALE, NO_KEYS),
        command("client|id", 2, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientId),
        command("client|import-source", 3, Class::Admin, Category::Admin, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientImportSource),
        command("client|info", 2, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientInfo),
        command("client|kill", -3, Class::Admin, Category::Admin, ADMIN | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientKill),
        command("client|list", -2, Class::Admin, Read, ADMIN | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientList),
        command("client|no-evict", 3, Class::Admin, Read, ADMIN | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientNoEvict),
        command("client|no-touch", 3, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientNoTouch),
        command("client|pause", -3, Class::Admin, Category::Admin, ADMIN | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientPause),
        command("client|reply", 3, Class::Admin, Read, NOSCRIPT | LOADING | STALE | NO_MULTI, NO_KEYS).handled(Handling::ClientReply),
        command("client|setinfo", 4, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientSetInfo),
        command("client|setname", 3, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientSetName),
        command("client|tracking", -3, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientTracking),
        command("client|trackinginfo", 2, Class::Admin, Read, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientTrackingInfo),
        command("client|unblock", -3, Class::Admin, Category::Admin, ADMIN | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientUnblock),
        command("client|unpause", 2, Class::Admin, Category::Admin, ADMIN | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ClientPause),
    ]),
    command("echo", 2, PointRead, Read, LOADING | STALE | FAST, NO_KEYS),
    command("hello", -1, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, NO_KEYS).handled(Handling::Hello),
    command("ping", -1, PointRead, Read, FAST, NO_KEYS),
    command("quit", -1, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, NO_KEYS).handled(Handling::Quit),
    command("reset", 1, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, NO_KEYS).handled(Handling::Reset),
    command("select", 2, PointRead, Read, LOADING | STALE | FAST, NO_KEYS).handled(Handling::Select),
];

#[rustfmt::skip]
pub(super) static PUBLISH: &[Spec] = &[
    command("psubscribe", -2, PointRead, Read, PUBSUB | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::PatternSubscribe),
    // Heard twice by every subscriber.
    command("publish", 3, Write, Accumulating, PUBSUB | LOADING | STALE | FAST, NO_KEYS),
    command("pubsub", -2, Class::Admin, Read, 0, NO_KEYS).containing(&[
        command("pubsub|channels", -2, Class::Admin, Read, PUBSUB | LOADING | STALE, NO_KEYS),
        command("pubsub|help", 2, Class::Admin, Read, LOADING | STALE, NO_KEYS),
        command("pubsub|numpat", 2, Class::Admin, Read, PUBSUB | LOADING | STALE, NO_KEYS),
        command("pubsub|numsub", -2, Class::Admin, Read, PUBSUB | LOADING | STALE, NO_KEYS),
        command("pubsub|shardchannels", -2, Class::Admin, Read, PUBSUB | LOADING | STALE, NO_KEYS),
        command("pubsub|shardnumsub", -2, Class::Admin, Read, PUBSUB | LOADING | STALE, NO_KEYS),
    ]),
    command("punsubscribe", -1, PointRead, Read, PUBSUB | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::PatternUnsubscribe),
    command("spublish", 3, Write, Accumulating, PUBSUB | LOADING | STALE | FAST, NO_KEYS),
    command("ssubscribe", -2, PointRead, Read, PUBSUB | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ShardSubscribe),
    command("subscribe", -2, PointRead, Read, PUBSUB | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::Subscribe),
    command("sunsubscribe", -1, PointRead, Read, PUBSUB | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::ShardUnsubscribe),
    command("unsubscribe", -1, PointRead, Read, PUBSUB | NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::Unsubscribe),
];

#[rustfmt::skip]
pub(super) static TRANSACTIONS: &[Spec] = &[
    command("discard", 1, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST, NO_KEYS).handled(Handling::Discard),
    // Its keys are those of the queued requests, which the session has seen pass.
    command("exec", 1, Slow, Never, NOSCRIPT | LOADING | STALE, NO_KEYS).handled(Handling::Exec),
    command("multi", 1, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST | NO_MULTI, NO_KEYS).handled(Handling::Multi),
    command("unwatch", 1, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST, NO_KEYS).handled(Handling::Unwatch),
    command("watch", -2, PointRead, Read, NOSCRIPT | LOADING | STALE | FAST | NO_MULTI, read(1, -1, 1)).handled(Handling::Watch),
];

#[rustfmt::skip]
pub(super) static SCRIPTING: &[Spec] = &[
    // Nobody knows what a script does.
    command("eval", -3, Script, Accumulating, NOSCRIPT | STALE | MOVABLEKEYS, write_counted(2, 3, 1)),
    command("eval_ro", -3, Script, Read, READONLY | NOSCRIPT | STALE | MOVABLEKEYS, read_counted(2, 3, 1)),
    command("evalsha", -3, Script, Accumulating, NOSCRIPT | STALE | MOVABLEKEYS, write_counted(2, 3, 1)),
    command("evalsha_ro", -3, Script, Read, READONLY | NOSCRIPT | STALE | MOVABLEKEYS, read_counted(2, 3, 1)),
    command("fcall", -3, Script, Accumulating, NOSCRIPT | STALE | MOVABLEKEYS, write_counted(2, 3, 1)),
    command("fcall_ro", -3, Script, Read, READONLY | NOSCRIPT | STALE | MOVABLEKEYS, read_counted(2, 3, 1)),
    command("function", -2, Class::Admin, Read, 0, NO_KEYS).containing(&[
        command("function|delete", 3, Write, Checked, WRITE | NOSCRIPT, NO_KEYS).handled(Handling::FunctionLoad),
        command("function|dump", 2, Class::Admin, Read, NOSCRIPT, NO_KEYS),
        command("function|flush", -2, Slow, LastWriteWins, WRITE | NOSCRIPT, NO_KEYS).handled(Handling::FunctionLoad),
        command("function|help", 2, Class::Admin, Read, LOADING | STALE, NO_KEYS),
        command("function|kill", 2, Class::Admin, Category::Admin, NOSCRIPT, NO_KEYS).handled(Handling::Urgent),
        command("function|list", -2, Class::Admin, Read, NOSCRIPT, NO_KEYS),
        command("function|load", -3, Slow, Checked, WRITE | DENYOOM | NOSCRIPT, NO_KEYS).handled(Handling::FunctionLoad).refined(Refinement::Restore),
        command("function|restore", -3, Slow, Checked, WRITE | DENYOOM | NOSCRIPT, NO_KEYS).handled(Handling::FunctionLoad).refined(Refinement::FunctionRestore),
        command("function|stats", 2, Class::Admin, Read, NOSCRIPT, NO_KEYS),
    ]),
    command("script", -2, Class::Admin, Read, 0, NO_KEYS).containing(&[
        command("script|debug", -3, Slow, Category::Admin, NOSCRIPT, NO_KEYS).handled(Handling::ScriptDebug),
        command("script|exists", -3, PointRead, Read, NOSCRIPT, NO_KEYS),
        command("script|flush", -2, Slow, LastWriteWins, NOSCRIPT, NO_KEYS).handled(Handling::ScriptFlush),
        command("script|help", 2, Class::Admin, Read, LOADING | STALE, NO_KEYS),
        command("script|kill", 2, Class::Admin, Category::Admin, NOSCRIPT, NO_KEYS).handled(Handling::Urgent),
        command("script|load", 3, PointRead, LastWriteWins, NOSCRIPT | STALE, NO_KEYS).handled(Handling::ScriptLoad),
        command("script|show", 3, Class::Admin, Read, NOSCRIPT | STALE, NO_KEYS),
    ]),
];
