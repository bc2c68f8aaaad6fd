//! Commands of the key space itself, strings, bitmaps and HyperLogLog.
//!
//! One line per command; `columns::command` names the columns.

use super::columns::*;

#[rustfmt::skip]
pub(super) static GENERIC: &[Spec] = &[
    command("copy", -3, Write, Checked, WRITE | DENYOOM, both(read_range(1, 1, 1), write_range(2, 2, 1))),
    command("del", -2, MultiKey, LastWriteWins, WRITE, write(1, -1, 1)),
    command("dump", 2, MultiKey, Read, READONLY, READ_KEY),
    command("exists", -2, PointRead, Read, READONLY | FAST, read(1, -1, 1)),
    // A relative time counts from the run: a repeat moves the end by the delay of the repeat, as a late first run would.
    command("expire", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::Expire),
    command("expireat", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::Expire),
    command("expiretime", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("keys", 2, Slow, Read, READONLY, NO_KEYS),
    command("migrate", -6, Slow, Checked, WRITE | MOVABLEKEYS, MIGRATE),
    command("move", 3, Write, Checked, WRITE | FAST, WRITTEN_KEY),
    command("object", -2, Class::Admin, Read, 0, NO_KEYS).containing(&[
        command("object|encoding", 3, PointRead, Read, READONLY, read(2, 2, 1)),
        command("object|freq", 3, PointRead, Read, READONLY, read(2, 2, 1)),
        command("object|help", 2, Class::Admin, Read, LOADING | STALE, NO_KEYS),
        command("object|idletime", 3, PointRead, Read, READONLY, read(2, 2, 1)),
        command("object|refcount", 3, PointRead, Read, READONLY, read(2, 2, 1)),
    ]),
    command("persist", 2, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("pexpire", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::Expire),
    command("pexpireat", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::Expire),
    command("pexpiretime", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("pttl", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("randomkey", 1, PointRead, Read, READONLY, NO_KEYS),
    // RENAME: the second run says "no such key", and MOVE answers 0.
    command("rename", 3, Write, Checked, WRITE, MOVED),
    command("renamenx", 3, Write, Checked, WRITE | FAST, MOVED),
    // Without REPLACE the second run is refused with BUSYKEY.
    command("restore", -4, Write, Checked, WRITE | DENYOOM, WRITTEN_KEY).refined(Refinement::Restore),
    command("scan", -2, MultiKey, Read, READONLY, NO_KEYS).handled(Handling::Scan),
    command("sort", -2, Slow, LastWriteWins, WRITE | DENYOOM | MOVABLEKEYS, SORT).refined(Refinement::Store),
    command("sort_ro", -2, Slow, Read, READONLY | MOVABLEKEYS, SORT_RO),
    command("touch", -2, PointRead, Read, READONLY | FAST, read(1, -1, 1)),
    command("ttl", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("type", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("unlink", -2, MultiKey, LastWriteWins, WRITE | FAST, write(1, -1, 1)),
    command("wait", 3, Blocking, Never, NOSCRIPT | BLOCKING, NO_KEYS).waiting(Timeout::Milliseconds(-1)).handled(Handling::Wait),
    command("waitaof", 4, Blocking, Never, BLOCKING, NO_KEYS).waiting(Timeout::Milliseconds(-1)).handled(Handling::Wait),
];

#[rustfmt::skip]
pub(super) static STRING: &[Spec] = &[
    command("append", 3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("decr", 2, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("decrby", 3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("delex", -2, Write, Checked, WRITE | FAST, WRITTEN_KEY),
    command("delifeq", 3, Write, Checked, WRITE | FAST, WRITTEN_KEY),
    command("digest", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("get", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("getdel", 2, Write, Checked, WRITE | FAST, WRITTEN_KEY),
    // A time in the past removes the key, and the repeat finds none; too rare to hold every GETEX back.
    command("getex", -2, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::GetEx),
    command("getrange", 4, PointRead, Read, READONLY, READ_KEY),
    command("getset", 3, Write, Checked, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("incr", 2, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("incrby", 3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("incrbyfloat", 3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("lcs", -3, Slow, Read, READONLY, read(1, 2, 1)),
    command("mget", -2, MultiKey, Read, READONLY | FAST, read(1, -1, 1)),
    command("mset", -3, MultiKey, LastWriteWins, WRITE | DENYOOM, write(1, -1, 2)),
    command("msetex", -4, MultiKey, LastWriteWins, WRITE | DENYOOM | MOVABLEKEYS, write_counted(1, 2, 2)).refined(Refinement::MultiSetEx),
    command("msetnx", -3, MultiKey, Checked, WRITE | DENYOOM, write(1, -1, 2)),
    command("psetex", 4, Write, LastWriteWins, WRITE | DENYOOM, WRITTEN_KEY),
    command("set", -3, Write, LastWriteWins, WRITE | DENYOOM, WRITTEN_KEY).refined(Refinement::Set),
    command("setex", 4, Write, LastWriteWins, WRITE | DENYOOM, WRITTEN_KEY),
    command("setnx", 3, Write, Checked, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("setrange", 4, Write, LastWriteWins, WRITE | DENYOOM, WRITTEN_KEY),
    command("strlen", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("substr", 4, PointRead, Read, READONLY, READ_KEY),
];

#[rustfmt::skip]
pub(super) static BITMAP: &[Spec] = &[
    command("bitcount", -2, MultiKey, Read, READONLY, READ_KEY),
    command("bitfield", -2, Write, Checked, WRITE | DENYOOM, WRITTEN_KEY).refined(Refinement::Bitfield),
    command("bitfield_ro", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("bitop", -4, Slow, LastWriteWins, WRITE | DENYOOM, both(write_range(2, 2, 1), read_range(3, -1, 1))).refined(Refinement::Store),
    command("bitpos", -3, MultiKey, Read, READONLY, READ_KEY),
    command("getbit", 3, PointRead, Read, READONLY | FAST, READ_KEY),
    // Answers with the old bit.
    command("setbit", 4, Write, Checked, WRITE | DENYOOM, WRITTEN_KEY),
];

#[rustfmt::skip]
pub(super) static HYPERLOGLOG: &[Spec] = &[
    command("pfadd", -2, Write, LastWriteWins, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("pfcount", -2, MultiKey, Read, READONLY, read(1, -1, 1)),
    command("pfdebug", 3, Slow, Category::Admin, WRITE | DENYOOM | ADMIN, write(2, 2, 1)),
    command("pfmerge", -2, MultiKey, LastWriteWins, WRITE | DENYOOM, STORED),
    command("pfselftest", 1, Slow, Read, ADMIN, NO_KEYS),
];
