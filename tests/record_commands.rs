//! Every command of the table that may write, against a real server: what it changed, in any database, is covered by what
//! enters the record.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use standin::command::{self, Spec};
use standin::divergence::{Record, State, note_write};
use support::{Client, RedisServer, Reply};

/// A key in its database.
type Key = (u32, Vec<u8>);

/// What lies on the server before each example; `>N` goes on in database N.
const CONTENT: &[&str] = &[
    "SET s 10",
    "SET s2 abc",
    "SET bits aaaa",
    "SET ending v PX 10000000",
    "RPUSH l a b c",
    "RPUSH l2 x",
    "SADD st a b c",
    "SADD st2 b d",
    "ZADD z 1 a 2 b 3 c",
    "ZADD z2 2 b 5 e",
    "HSET h f 1 g 2",
    "PFADD hll a b",
    "PFADD hll2 c",
    "GEOADD geo 13.361389 38.115556 p 15.087269 37.502669 q",
    "XADD x 1-1 f v",
    "XADD x 2-1 f v",
    "XGROUP CREATE x g 0",
    "XREADGROUP GROUP g c COUNT 1 STREAMS x >",
    "RPUSH numbers 3 1 2",
    "FUNCTION LOAD REPLACE #!lua~name=lib\nredis.register_function('put',function(keys,args)return~redis.call('SET',keys[1],args[1])end)",
    ">3",
    "SET s other",
    "SET elsewhere 1",
    ">0",
];

/// Words are separated by spaces, `~` is a space within a word, `{port}` is another server's.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("copy", &["COPY s new", "COPY s s DB 3 REPLACE", "COPY s db DB 3"]),
    ("del", &["DEL s nothing l"]),
    ("expire", &["EXPIRE s 1000", "EXPIRE s -1"]),
    ("expireat", &["EXPIREAT s 4000000000"]),
    ("migrate", &["MIGRATE 127.0.0.1 {port} s 0 1000", "MIGRATE 127.0.0.1 {port}  0 1000 KEYS s l"]),
    ("move", &["MOVE l 3"]),
    ("persist", &["PERSIST ending"]),
    ("pexpire", &["PEXPIRE s 1000000"]),
    ("pexpireat", &["PEXPIREAT s 4000000000000"]),
    ("rename", &["RENAME s renamed", "RENAME s l"]),
    ("renamenx", &["RENAMENX s renamed"]),
    ("restore", &["RESTORE new 0 {dump}", "RESTORE s 0 {dump} REPLACE"]),
    ("restore-asking", &["RESTORE-ASKING new 0 {dump}"]),
    ("sort", &["SORT numbers STORE sorted", "SORT numbers DESC ALPHA LIMIT 0 1 STORE s"]),
    ("unlink", &["UNLINK s l nothing"]),
    ("append", &["APPEND s 1", "APPEND new 1"]),
    ("decr", &["DECR s"]),
    ("decrby", &["DECRBY s 3"]),
    ("getdel", &["GETDEL s"]),
    ("getex", &["GETEX s EX 100", "GETEX ending PERSIST"]),
    ("getset", &["GETSET s 1"]),
    ("incr", &["INCR s"]),
    ("incrby", &["INCRBY s 3"]),
    ("incrbyfloat", &["INCRBYFLOAT s 1.5"]),
    ("mset", &["MSET s 1 new 2"]),
    ("msetnx", &["MSETNX new 1 newer 2"]),
    ("psetex", &["PSETEX s 100000 1"]),
    ("set", &["SET s 1", "SET new 1 EX 100 NX", "SET s 2 XX GET", "SET s 1 KEEPTTL"]),
    ("setex", &["SETEX s 1000 1"]),
    ("setnx", &["SETNX new 1"]),
    ("setrange", &["SETRANGE s2 1 x"]),
    ("bitfield", &["BITFIELD bits SET u8 0 7", "BITFIELD bits INCRBY u8 0 1 GET u4 0"]),
    ("bitop", &["BITOP AND result bits s2", "BITOP NOT s bits"]),
    ("setbit", &["SETBIT bits 7 0"]),
    ("pfadd", &["PFADD hll x y z"]),
    ("pfdebug", &["PFDEBUG TODENSE hll"]),
    ("pfmerge", &["PFMERGE hll hll2", "PFMERGE new hll hll2"]),
    ("blmove", &["BLMOVE l l2 LEFT RIGHT 1"]),
    ("blmpop", &["BLMPOP 1 2 nothing l LEFT COUNT 2"]),
    ("blpop", &["BLPOP nothing l 1"]),
    ("brpop", &["BRPOP nothing l 1"]),
    ("brpoplpush", &["BRPOPLPUSH l l2 1"]),
    ("linsert", &["LINSERT l BEFORE b x"]),
    ("lmove", &["LMOVE l l2 LEFT LEFT", "LMOVE l new RIGHT LEFT"]),
    ("lmpop", &["LMPOP 2 nothing l RIGHT"]),
    ("lpop", &["LPOP l", "LPOP l 3"]),
    ("lpush", &["LPUSH l x"]),
    ("lpushx", &["LPUSHX l x"]),
    ("lrem", &["LREM l 0 a"]),
    ("lset", &["LSET l 0 x"]),
    ("ltrim", &["LTRIM l 1 1"]),
    ("rpop", &["RPOP l"]),
    ("rpoplpush", &["RPOPLPUSH l l2"]),
    ("rpush", &["RPUSH l x"]),
    ("rpushx", &["RPUSHX l x"]),
    ("sadd", &["SADD st x"]),
    ("sdiffstore", &["SDIFFSTORE new st st2"]),
    ("sinterstore", &["SINTERSTORE st st st2"]),
    ("smove", &["SMOVE st st2 a"]),
    ("spop", &["SPOP st 2"]),
    ("srem", &["SREM st a"]),
    ("sunionstore", &["SUNIONSTORE new st st2"]),
    ("bzmpop", &["BZMPOP 1 2 nothing z MIN"]),
    ("bzpopmax", &["BZPOPMAX nothing z 1"]),
    ("bzpopmin", &["BZPOPMIN nothing z 1"]),
    ("zadd", &["ZADD z 9 a", "ZADD z INCR 2 b", "ZADD z XX CH 5 a"]),
    ("zdiffstore", &["ZDIFFSTORE new 2 z z2"]),
    ("zincrby", &["ZINCRBY z 2 a"]),
    ("zinterstore", &["ZINTERSTORE new 2 z z2 WEIGHTS 1 2"]),
    ("zmpop", &["ZMPOP 2 nothing z MAX COUNT 2"]),
    ("zpopmax", &["ZPOPMAX z"]),
    ("zpopmin", &["ZPOPMIN z 2"]),
    ("zrangestore", &["ZRANGESTORE new z 0 1"]),
    ("zrem", &["ZREM z a"]),
    ("zremrangebylex", &["ZREMRANGEBYLEX z - +"]),
    ("zremrangebyrank", &["ZREMRANGEBYRANK z 0 0"]),
    ("zremrangebyscore", &["ZREMRANGEBYSCORE z 1 2"]),
    ("zunionstore", &["ZUNIONSTORE z2 2 z z2"]),
    ("hdel", &["HDEL h f"]),
    ("hincrby", &["HINCRBY h f 2"]),
    ("hincrbyfloat", &["HINCRBYFLOAT h f 2.5"]),
    ("hmset", &["HMSET h f 9 i 8"]),
    ("hset", &["HSET h f 9"]),
    ("hsetnx", &["HSETNX h i 9"]),
    ("geoadd", &["GEOADD geo 13.5 38.2 r"]),
    ("georadius", &["GEORADIUS geo 15 37 200 km STORE new", "GEORADIUS geo 15 37 200 km STOREDIST s"]),
    ("georadiusbymember", &["GEORADIUSBYMEMBER geo p 200 km STORE new"]),
    ("geosearchstore", &["GEOSEARCHSTORE new geo FROMLONLAT 15 37 BYRADIUS 200 km"]),
    ("xack", &["XACK x g 1-1"]),
    ("xadd", &["XADD x * f v", "XADD new NOMKSTREAM * f v", "XADD new 5-5 f v"]),
    ("xautoclaim", &["XAUTOCLAIM x g other 0 0"]),
    ("xclaim", &["XCLAIM x g other 0 1-1"]),
    ("xdel", &["XDEL x 1-1"]),
    ("xgroup|create", &["XGROUP CREATE x new $", "XGROUP CREATE newstream g $ MKSTREAM"]),
    ("xgroup|createconsumer", &["XGROUP CREATECONSUMER x g new"]),
    ("xgroup|delconsumer", &["XGROUP DELCONSUMER x g c"]),
    ("xgroup|destroy", &["XGROUP DESTROY x g"]),
    ("xgroup|setid", &["XGROUP SETID x g 0"]),
    ("xreadgroup", &["XREADGROUP GROUP g other COUNT 1 STREAMS x >"]),
    ("xsetid", &["XSETID x 9-9"]),
    ("xtrim", &["XTRIM x MAXLEN 1"]),
    (
        "eval",
        &[
            "EVAL return~redis.call('SET',KEYS[1],ARGV[1]) 1 s 7",
            "EVAL return~redis.call('SET','hidden','7') 0",
            "EVAL redis.call('SELECT','3')~return~redis.call('SET','elsewhere','7') 0",
        ],
    ),
    ("evalsha", &["EVALSHA {sha} 1 s 7"]),
    ("fcall", &["FCALL put 1 s 7"]),
    ("flushall", &["FLUSHALL"]),
    ("flushdb", &["FLUSHDB"]),
    ("swapdb", &["SWAPDB 0 3"]),
    ("debug|populate", &["DEBUG POPULATE 3"]),
];

/// Rows that change no key: libraries, and what only leaves and loads the data again.
const CHANGE_NO_KEY: &[&str] =
    &["function|delete", "function|flush", "function|load", "function|restore", "debug|loadaof", "debug|reload"];
/// Rows that the server of the tests (Redis 7.0) does not have.
const OF_LATER_SERVERS: &[&str] = &[
    "cluster|flushslot",
    "debug|flushall",
    "delex",
    "delifeq",
    "hexpire",
    "hexpireat",
    "hgetdel",
    "hgetex",
    "hpersist",
    "hpexpire",
    "hpexpireat",
    "hsetex",
    "msetex",
    "sflush",
    "vadd",
    "vrem",
    "vsetattr",
    "xackdel",
    "xcfgset",
    "xdelex",
];

/// Every row of the table that may write, subcommands included.
fn writing_rows() -> BTreeSet<&'static str> {
    let rows = command::all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    rows.filter(|spec| spec.is_write()).map(|spec| spec.name).collect()
}

#[test]
fn every_row_that_may_write_has_an_example_or_a_reason_for_none() {
    let mut left = writing_rows();
    for (name, _) in EXAMPLES {
        assert!(left.remove(name), "{name} is no row that writes, or stands here twice");
    }
    for name in CHANGE_NO_KEY.iter().chain(OF_LATER_SERVERS) {
        assert!(left.remove(name), "{name} is no row that writes, or stands here twice");
    }
    assert_eq!(left, BTreeSet::new(), "rows without an example");
}

/// A server with the content, and one to migrate to.
struct Stage {
    client: Client,
    other: RedisServer,
    _server: RedisServer,
    words: BTreeMap<&'static str, Vec<u8>>,
}

impl Stage {
    fn start() -> Self {
        let (server, other) = (RedisServer::start(), RedisServer::start());
        let mut client = server.connect();
        client.command(&["SET", "dumped", "v"]);
        let Reply::Bulk(dump) = client.command(&["DUMP", "dumped"]) else { panic!("a dump") };
        let sha = client.command(&["SCRIPT", "LOAD", "return redis.call('SET',KEYS[1],ARGV[1])"]).text().into_bytes();
        let port = other.address().port().to_string().into_bytes();
        let words = BTreeMap::from([("{dump}", dump), ("{sha}", sha), ("{port}", port)]);
        Self { client, other, _server: server, words }
    }

    fn request(&self, line: &str) -> Vec<Vec<u8>> {
        let word = |word: &str| self.words.get(word).cloned().unwrap_or_else(|| word.replace('~', " ").into_bytes());
        line.split(' ').map(word).collect()
    }

    fn fill(&mut self) {
        self.client.command(&["FLUSHALL"]);
        self.other.command(&["FLUSHALL"]);
        for line in CONTENT {
            let reply = match line.strip_prefix('>') {
                Some(database) => self.client.command(&["SELECT", database]),
                None => {
                    let request = self.request(line);
                    self.client.command(&request)
                }
            };
            assert!(!reply.is_error(), "{line}: {reply:?}");
        }
    }

    /// Value and end of life of every key.
    fn everything(&mut self) -> BTreeMap<Key, (Reply, Reply)> {
        let mut all = BTreeMap::new();
        for database in [0, 3] {
            self.client.command(&["SELECT", &database.to_string()]);
            for key in self.client.command(&["KEYS", "*"]).elements().to_vec() {
                let Reply::Bulk(key) = key else { panic!("a key") };
                let value = self.client.command(&[b"DUMP".to_vec(), key.clone()]);
                let end = self.client.command(&[b"PEXPIRETIME".to_vec(), key.clone()]);
                all.insert((database, key), (value, end));
            }
        }
        self.client.command(&["SELECT", "0"]);
        all
    }
}

/// The keys that a request enters into a clean record; `None`: anything.
fn recorded(spec: &Spec, request: &[u8]) -> Option<BTreeSet<Key>> {
    recorded_by(&Record::new(1 << 20), spec, request)
}

fn recorded_by(record: &Record, spec: &Spec, request: &[u8]) -> Option<BTreeSet<Key>> {
    record.settle(State::Clean);
    note_write(std::iter::once(record), 0, spec, request);
    (record.state() != State::Unknown)
        .then(|| record.take(usize::MAX).into_iter().map(|(database, key)| (database, key.into_vec())).collect())
}

#[test]
fn what_a_command_changed_is_covered_by_what_was_recorded() {
    let mut stage = Stage::start();
    let mut checked = 0;
    for (name, lines) in EXAMPLES {
        for line in *lines {
            stage.fill();
            let before = stage.everything();
            let arguments = stage.request(line);
            let reply = stage.client.command(&arguments);
            assert!(!reply.is_error(), "{line}: {reply:?}");
            let after = stage.everything();
            let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
            let changed: Vec<&Key> = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).collect();
            let is_effective = !changed.is_empty() || line.contains("NOMKSTREAM");
            assert!(is_effective, "{line} changed nothing: a poor example");
            let request = support::encode(&arguments);
            let spec = command::of_request(&request);
            assert_eq!(spec.name, *name, "{line}");
            if let Some(recorded) = recorded(spec, &request) {
                for key in changed {
                    assert!(recorded.contains(key), "{line} changed {key:?}, which was not recorded: {recorded:?}");
                }
            }
            checked += 1;
        }
    }
    assert!(checked > 120, "{checked} examples");
}

#[test]
fn what_is_written_in_a_whole_database_or_by_undeclared_keys_makes_the_content_unknown() {
    for line in ["FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 3", "EVAL x 0", "FCALL f 0", "NEVERHEARD k"] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let request = support::encode(&arguments);
        assert_eq!(recorded(command::of_request(&request), &request), None, "{line}");
    }
}

#[test]
fn scripts_make_the_content_unknown_where_they_are_doubted_and_those_that_only_read_do_not() {
    let doubting = Record::new(1 << 20).doubting_scripts(true);
    let check = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let request = support::encode(&arguments);
        recorded_by(&doubting, command::of_request(&request), &request)
    };
    for line in ["EVAL x 1 k", "EVALSHA x 1 k", "FCALL f 1 k"] {
        assert_eq!(check(line), None, "{line}");
    }
    for line in ["EVAL_RO x 1 k", "FCALL_RO f 1 k", "GET k"] {
        assert_eq!(check(line), Some(BTreeSet::new()), "{line}");
    }
}
