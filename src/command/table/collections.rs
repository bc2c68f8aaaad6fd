//! Commands of lists, sets, sorted sets, hashes, geo indexes, streams and vector sets.
//!
//! One line per command; `columns::command` names the columns.

use super::columns::*;

#[rustfmt::skip]
pub(super) static LIST: &[Spec] = &[
    command("blmove", 6, Blocking, Never, WRITE | DENYOOM | NOSCRIPT | BLOCKING, MOVED).waiting(Timeout::Seconds(-1)),
    command("blmpop", -5, Blocking, Never, WRITE | BLOCKING | MOVABLEKEYS, write_counted(2, 3, 1)).waiting(Timeout::Seconds(1)),
    command("blpop", -3, Blocking, Never, WRITE | NOSCRIPT | BLOCKING, write(1, -2, 1)).waiting(Timeout::Seconds(-1)),
    command("brpop", -3, Blocking, Never, WRITE | NOSCRIPT | BLOCKING, write(1, -2, 1)).waiting(Timeout::Seconds(-1)),
    command("brpoplpush", 4, Blocking, Never, WRITE | DENYOOM | NOSCRIPT | BLOCKING, MOVED).waiting(Timeout::Seconds(-1)),
    command("lindex", 3, PointRead, Read, READONLY, READ_KEY),
    command("linsert", 5, Write, Accumulating, WRITE | DENYOOM, WRITTEN_KEY),
    command("llen", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("lmove", 5, Write, Accumulating, WRITE | DENYOOM, MOVED),
    command("lmpop", -4, Write, Accumulating, WRITE | MOVABLEKEYS, write_counted(1, 2, 1)),
    command("lpop", -2, Write, Accumulating, WRITE | FAST, WRITTEN_KEY),
    command("lpos", -3, MultiKey, Read, READONLY, READ_KEY),
    command("lpush", -3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("lpushx", -3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("lrange", 4, MultiKey, Read, READONLY, READ_KEY),
    command("lrem", 4, MultiKey, Checked, WRITE, WRITTEN_KEY).refined(Refinement::ListRemove),
    // An index from the end still names the same element.
    command("lset", 4, Write, LastWriteWins, WRITE | DENYOOM, WRITTEN_KEY),
    command("ltrim", 4, MultiKey, Accumulating, WRITE, WRITTEN_KEY).refined(Refinement::Trim),
    command("rpop", -2, Write, Accumulating, WRITE | FAST, WRITTEN_KEY),
    command("rpoplpush", 3, Write, Accumulating, WRITE | DENYOOM, MOVED),
    command("rpush", -3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("rpushx", -3, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
];

#[rustfmt::skip]
pub(super) static SET: &[Spec] = &[
    command("sadd", -3, Write, LastWriteWins, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("scard", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("sdiff", -2, Slow, Read, READONLY, read(1, -1, 1)),
    command("sdiffstore", -3, Slow, LastWriteWins, WRITE | DENYOOM, STORED),
    command("sinter", -2, Slow, Read, READONLY, read(1, -1, 1)),
    command("sintercard", -3, MultiKey, Read, READONLY | MOVABLEKEYS, read_counted(1, 2, 1)),
    command("sinterstore", -3, Slow, LastWriteWins, WRITE | DENYOOM, STORED),
    command("sismember", 3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("smembers", 2, MultiKey, Read, READONLY, READ_KEY),
    command("smismember", -3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("smove", 4, Write, Checked, WRITE | FAST, MOVED),
    command("spop", -2, Write, Accumulating, WRITE | FAST, WRITTEN_KEY),
    command("srandmember", -2, PointRead, Read, READONLY, READ_KEY),
    command("srem", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("sscan", -3, MultiKey, Read, READONLY, READ_KEY).handled(Handling::Scan),
    command("sunion", -2, Slow, Read, READONLY, read(1, -1, 1)),
    command("sunionstore", -3, Slow, LastWriteWins, WRITE | DENYOOM, STORED),
];

#[rustfmt::skip]
pub(super) static SORTED_SET: &[Spec] = &[
    command("bzmpop", -5, Blocking, Never, WRITE | BLOCKING | MOVABLEKEYS, write_counted(2, 3, 1)).waiting(Timeout::Seconds(1)),
    command("bzpopmax", -3, Blocking, Never, WRITE | NOSCRIPT | BLOCKING | FAST, write(1, -2, 1)).waiting(Timeout::Seconds(-1)),
    command("bzpopmin", -3, Blocking, Never, WRITE | NOSCRIPT | BLOCKING | FAST, write(1, -2, 1)).waiting(Timeout::Seconds(-1)),
    command("zadd", -4, Write, LastWriteWins, WRITE | DENYOOM | FAST, WRITTEN_KEY).refined(Refinement::SortedSetAdd),
    command("zcard", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("zcount", 4, PointRead, Read, READONLY | FAST, READ_KEY),
    command("zdiff", -3, Slow, Read, READONLY | MOVABLEKEYS, read_counted(1, 2, 1)),
    command("zdiffstore", -4, Slow, LastWriteWins, WRITE | DENYOOM | MOVABLEKEYS, STORED_COUNTED).refined(Refinement::Store),
    command("zincrby", 4, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("zinter", -3, Slow, Read, READONLY | MOVABLEKEYS, read_counted(1, 2, 1)),
    command("zintercard", -3, MultiKey, Read, READONLY | MOVABLEKEYS, read_counted(1, 2, 1)),
    command("zinterstore", -4, Slow, LastWriteWins, WRITE | DENYOOM | MOVABLEKEYS, STORED_COUNTED).refined(Refinement::Store),
    command("zlexcount", 4, PointRead, Read, READONLY | FAST, READ_KEY),
    command("zmpop", -4, Write, Accumulating, WRITE | MOVABLEKEYS, write_counted(1, 2, 1)),
    command("zmscore", -3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("zpopmax", -2, Write, Accumulating, WRITE | FAST, WRITTEN_KEY),
    command("zpopmin", -2, Write, Accumulating, WRITE | FAST, WRITTEN_KEY),
    command("zrandmember", -2, PointRead, Read, READONLY, READ_KEY),
    command("zrange", -4, MultiKey, Read, READONLY, READ_KEY),
    command("zrangebylex", -4, MultiKey, Read, READONLY, READ_KEY),
    command("zrangebyscore", -4, MultiKey, Read, READONLY, READ_KEY),
    command("zrangestore", -5, Slow, LastWriteWins, WRITE | DENYOOM, STORED_ONE).refined(Refinement::Store),
    command("zrank", -3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("zrem", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("zremrangebylex", 4, MultiKey, LastWriteWins, WRITE, WRITTEN_KEY),
    command("zremrangebyrank", 4, MultiKey, Accumulating, WRITE, WRITTEN_KEY).refined(Refinement::RemoveRange),
    command("zremrangebyscore", 4, MultiKey, LastWriteWins, WRITE, WRITTEN_KEY),
    command("zrevrange", -4, MultiKey, Read, READONLY, READ_KEY),
    command("zrevrangebylex", -4, MultiKey, Read, READONLY, READ_KEY),
    command("zrevrangebyscore", -4, MultiKey, Read, READONLY, READ_KEY),
    command("zrevrank", -3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("zscan", -3, MultiKey, Read, READONLY, READ_KEY).handled(Handling::Scan),
    command("zscore", 3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("zunion", -3, Slow, Read, READONLY | MOVABLEKEYS, read_counted(1, 2, 1)),
    command("zunionstore", -4, Slow, LastWriteWins, WRITE | DENYOOM | MOVABLEKEYS, STORED_COUNTED).refined(Refinement::Store),
];

#[rustfmt::skip]
pub(super) static HASH: &[Spec] = &[
    command("hdel", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("hexists", 3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hexpire", -6, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::HashExpire),
    command("hexpireat", -6, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::HashExpire),
    command("hexpiretime", -5, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hget", 3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hgetall", 2, MultiKey, Read, READONLY, READ_KEY),
    command("hgetdel", -5, Write, Checked, WRITE | FAST, WRITTEN_KEY),
    command("hgetex", -5, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::HashGetEx),
    command("hincrby", 4, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("hincrbyfloat", 4, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("hkeys", 2, MultiKey, Read, READONLY, READ_KEY),
    command("hlen", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hmget", -3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hmset", -4, Write, LastWriteWins, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("hpersist", -5, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("hpexpire", -6, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::HashExpire),
    command("hpexpireat", -6, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY).refined(Refinement::HashExpire),
    command("hpexpiretime", -5, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hpttl", -5, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hrandfield", -2, PointRead, Read, READONLY, READ_KEY),
    command("hscan", -3, MultiKey, Read, READONLY, READ_KEY).handled(Handling::Scan),
    command("hset", -4, Write, LastWriteWins, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("hsetex", -6, Write, LastWriteWins, WRITE | DENYOOM | FAST, WRITTEN_KEY).refined(Refinement::HashSetEx),
    command("hsetnx", 4, Write, Checked, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("hstrlen", 3, PointRead, Read, READONLY | FAST, READ_KEY),
    command("httl", -5, PointRead, Read, READONLY | FAST, READ_KEY),
    command("hvals", 2, MultiKey, Read, READONLY, READ_KEY),
];

#[rustfmt::skip]
pub(super) static GEO: &[Spec] = &[
    command("geoadd", -5, Write, LastWriteWins, WRITE | DENYOOM, WRITTEN_KEY).refined(Refinement::GeoAdd),
    command("geodist", -4, PointRead, Read, READONLY, READ_KEY),
    command("geohash", -2, PointRead, Read, READONLY, READ_KEY),
    command("geopos", -2, PointRead, Read, READONLY, READ_KEY),
    command("georadius", -6, Slow, LastWriteWins, WRITE | DENYOOM | MOVABLEKEYS, GEORADIUS).refined(Refinement::Store),
    command("georadius_ro", -6, MultiKey, Read, READONLY, READ_KEY),
    command("georadiusbymember", -5, Slow, LastWriteWins, WRITE | DENYOOM | MOVABLEKEYS, GEORADIUS).refined(Refinement::Store),
    command("georadiusbymember_ro", -5, MultiKey, Read, READONLY, READ_KEY),
    command("geosearch", -7, MultiKey, Read, READONLY, READ_KEY),
    command("geosearchstore", -8, Slow, LastWriteWins, WRITE | DENYOOM, STORED_ONE).refined(Refinement::Store),
];

#[rustfmt::skip]
pub(super) static STREAM: &[Spec] = &[
    command("xack", -4, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("xackdel", -6, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    // With an ID of the client's own the repeat is refused; with * it adds another entry. Both are kept from it.
    command("xadd", -5, Write, Accumulating, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("xautoclaim", -6, MultiKey, Accumulating, WRITE | FAST, WRITTEN_KEY),
    command("xcfgset", -2, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    // Counts the delivery again, and by then the entry is no longer idle, so that the repeat answers nothing.
    command("xclaim", -6, Write, Accumulating, WRITE | FAST, WRITTEN_KEY),
    command("xdel", -3, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("xdelex", -5, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("xgroup", -2, Class::Admin, Read, 0, NO_KEYS).containing(&[
        // The second run is refused with BUSYGROUP.
        command("xgroup|create", -5, Write, Checked, WRITE | DENYOOM, write(2, 2, 1)),
        command("xgroup|createconsumer", 5, Write, LastWriteWins, WRITE | DENYOOM, write(2, 2, 1)),
        // Answers with the number of entries that were pending.
        command("xgroup|delconsumer", 5, Write, Checked, WRITE, write(2, 2, 1)),
        command("xgroup|destroy", 4, Write, LastWriteWins, WRITE, write(2, 2, 1)),
        command("xgroup|help", 2, Class::Admin, Read, LOADING | STALE, NO_KEYS),
        command("xgroup|setid", -5, Write, LastWriteWins, WRITE, write(2, 2, 1)),
    ]),
    command("xinfo", -2, Class::Admin, Read, 0, NO_KEYS).containing(&[
        command("xinfo|consumers", 4, PointRead, Read, READONLY, read(2, 2, 1)),
        command("xinfo|groups", 3, PointRead, Read, READONLY, read(2, 2, 1)),
        command("xinfo|help", 2, Class::Admin, Read, LOADING | STALE, NO_KEYS),
        command("xinfo|stream", -3, MultiKey, Read, READONLY, read(2, 2, 1)),
    ]),
    command("xlen", 2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("xpending", -3, PointRead, Read, READONLY, READ_KEY),
    command("xrange", -4, MultiKey, Read, READONLY, READ_KEY),
    command("xread", -4, Blocking, Read, READONLY | BLOCKING | MOVABLEKEYS, read_streams()).waiting(Timeout::BlockOption),
    command("xreadgroup", -7, Blocking, Accumulating, WRITE | BLOCKING | MOVABLEKEYS, write_streams()).waiting(Timeout::BlockOption),
    command("xrevrange", -4, MultiKey, Read, READONLY, READ_KEY),
    command("xsetid", -3, Write, LastWriteWins, WRITE | DENYOOM | FAST, WRITTEN_KEY),
    command("xtrim", -4, MultiKey, LastWriteWins, WRITE, WRITTEN_KEY),
];

/// Vector sets of Redis 8. The server reports arity -1 for each, as for every command of a module; a key is the least.
#[rustfmt::skip]
pub(super) static VECTOR_SET: &[Spec] = &[
    command("vadd", -2, Write, LastWriteWins, WRITE | DENYOOM, WRITTEN_KEY),
    command("vcard", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("vdim", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("vemb", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("vgetattr", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("vinfo", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("vismember", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("vlinks", -2, PointRead, Read, READONLY | FAST, READ_KEY),
    command("vrandmember", -2, PointRead, Read, READONLY, READ_KEY),
    command("vrange", -2, MultiKey, Read, READONLY, READ_KEY),
    command("vrem", -2, Write, LastWriteWins, WRITE, WRITTEN_KEY),
    command("vsetattr", -2, Write, LastWriteWins, WRITE | FAST, WRITTEN_KEY),
    command("vsim", -2, MultiKey, Read, READONLY, READ_KEY),
];
