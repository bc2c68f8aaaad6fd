use super::{Bench, START_MS, TestClock, check, check_with};
use crate::embedded::{Eviction, StoreOptions};

#[test]
fn expiry_is_set_under_conditions_and_told() {
    check(&[
        ("expire none 10", "0"),
        ("set k v", "OK"),
        ("ttl k", "-1"),
        ("ttl none", "-2"),
        ("expire k 10 xx", "0"),
        ("expire k 10 gt", "0"),
        ("expire k 10 lt", "1"),
        ("ttl k", "10"),
        ("pttl k", "10000"),
        ("expiretime k", &(START_MS / 1000 + 10).to_string()),
        ("pexpiretime k", &(START_MS + 10_000).to_string()),
        ("expire k 20 nx", "0"),
        ("expire k 20 gt", "1"),
        ("expire k 10 nx xx", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("expire k 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
        ("expire k 10 maybe", "-ERR Unsupported option maybe"),
        ("persist k", "1"),
        ("persist k", "0"),
        ("set k v ex 5", "OK"),
        ("set k w keepttl", "OK"),
        ("ttl k", "5"),
        ("getex k persist", "\"w\""),
        ("ttl k", "-1"),
        ("getex k px 1500", "\"w\""),
        ("pttl k", "1500"),
        ("set k v", "OK"),
        ("ttl k", "-1"),
        ("expire k -1", "1"),
        ("exists k", "0"),
    ]);
}

#[test]
fn counters_count() {
    check(&[
        ("incr n", "1"),
        ("incrby n 10", "11"),
        ("decr n", "10"),
        ("decrby n -5", "15"),
        ("set n 9223372036854775807", "OK"),
        ("incr n", "-ERR increment or decrement would overflow"),
        ("set n \"\"", "OK"),
        ("incr n", "-ERR value is not an integer or out of range"),
        ("set f 10.50", "OK"),
        ("incrbyfloat f 0.1", "\"10.6\""),
        ("incrbyfloat f -5", "\"5.6\""),
        ("set f 5.0e3", "OK"),
        ("incrbyfloat f 2.0e2", "\"5200\""),
        ("incrbyfloat fresh 0.1", "\"0.1\""),
        ("incrbyfloat fresh 0.2", "\"0.3\""),
        ("incrbyfloat other inf", "-ERR increment would produce NaN or Infinity"),
        ("exists other", "0"),
    ]);
}

#[test]
fn bits_are_set_counted_and_found() {
    check(&[
        ("setbit b 7 1", "0"),
        ("setbit b 7 1", "1"),
        ("getbit b 7", "1"),
        ("getbit b 100", "0"),
        ("setbit b 4294967296 1", "-ERR bit offset is not an integer or out of range"),
        ("setbit b 1 2", "-ERR bit is not an integer or out of range"),
        ("set t foobar", "OK"),
        ("bitcount t", "26"),
        ("bitcount t 1 1", "6"),
        ("bitcount t 5 30 bit", "17"),
        ("set p \"\\xff\\xf0\\x00\"", "OK"),
        ("bitpos p 0", "12"),
        ("bitpos p 1 2", "-1"),
        ("set ones \"\\xff\\xff\"", "OK"),
        ("bitpos ones 0", "16"),
        ("bitpos ones 0 0 -1", "-1"),
        ("bitop and to t ones", "6"),
        ("bitop not to t ones", "-ERR BITOP NOT must be called with a single source key."),
    ]);
}

#[test]
fn a_dumped_value_is_restored_whole() {
    let mut bench = Bench::new(TestClock::new().options());
    for (line, read) in [
        ("set k text", "get k"),
        ("rpush k a b", "lrange k 0 -1"),
        ("hset k f v", "hgetall k"),
        ("sadd k m", "smembers k"),
        ("zadd k 1.5 m", "zrange k 0 -1 withscores"),
    ] {
        bench.run("flushall");
        bench.run(line);
        let before = bench.run(read);
        let payload = bench.run("dump k");
        assert_eq!(bench.run(&format!("restore k 0 {payload}")), "-BUSYKEY Target key name already exists.");
        assert_eq!(bench.run("del k"), "1");
        assert_eq!(bench.run(&format!("restore k 5000 {payload}")), "OK");
        assert_eq!(bench.run(read), before);
        assert_eq!(bench.run("pttl k"), "5000");
    }
    assert_eq!(bench.run("restore x 0 garbage"), "-ERR DUMP payload version or checksum are wrong");
}

#[test]
fn scan_returns_what_matches() {
    let mut bench = Bench::new(TestClock::new().options());
    for number in 0..50 {
        bench.run(&format!("set key:{number} v"));
    }
    bench.run("rpush list a");
    let mut seen = String::new();
    let mut cursor = "0".to_owned();
    loop {
        let step = bench.run(&format!("scan {cursor} match key:1* count 7 type string"));
        cursor = step.split('"').nth(1).unwrap().to_owned();
        seen.push_str(&step);
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.matches("key:1").count(), 11);
    assert!(!seen.contains("list") && !seen.contains("key:2"));
    assert_eq!(bench.run("scan x"), "-ERR invalid cursor");
    assert_eq!(bench.run("scan 0 count 0"), "-ERR syntax error");
}

#[test]
fn memory_stays_below_its_bound_and_the_least_used_goes() {
    let clock = TestClock::new();
    let options = StoreOptions { max_memory_bytes: 256 * 1024, ..clock.options() };
    let mut bench = Bench::new(options);
    bench.run("set precious v");
    for number in 0..5000 {
        clock.advance_ms(1);
        assert_eq!(bench.run(&format!("set key:{number} {:0100}", 0)), "OK");
        assert_eq!(bench.run("get precious"), "\"v\"");
        assert!(bench.store.memory_bytes() <= 256 * 1024);
    }
    assert!(bench.store.keys() > 500, "evicted far more than needed: {}", bench.store.keys());
    assert_eq!(bench.run(&format!("set big {}", "x".repeat(300 * 1024))), OOM);
    assert_eq!(bench.run("setrange big 300000 x"), OOM);
    bench.run("flushall");
    assert_eq!(bench.store.memory_bytes(), 0);
}

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";

#[test]
fn what_expires_soonest_goes_first_where_that_is_the_rule() {
    let clock = TestClock::new();
    let options =
        StoreOptions { max_memory_bytes: 16 * 1024, eviction: Eviction::SoonestExpiryFirst, ..clock.options() };
    let mut bench = Bench::new(options);
    for number in 0..20 {
        bench.run(&format!("set stays:{number} {:0100}", 0));
    }
    for number in 0..500 {
        bench.run(&format!("set goes:{number} {:0100} ex 100", 0));
    }
    let stayed = (0..20).filter(|number| bench.run(&format!("exists stays:{number}")) == "1").count();
    assert!(stayed >= 15, "{stayed} of 20 keys without an expiry survived");
}

#[test]
fn without_eviction_a_full_store_refuses_writes_and_serves_reads() {
    let options = StoreOptions { max_memory_bytes: 1024, eviction: Eviction::Refuse, ..TestClock::new().options() };
    let big = format!("set b {}", "x".repeat(700));
    check_with(
        options,
        &[("set a 1", "OK"), (&big, "OK"), (&big.replace('b', "c"), OOM), ("get a", "\"1\""), ("del b", "1")],
    );
}

#[test]
fn the_sweep_removes_what_nobody_touches() {
    let clock = TestClock::new();
    let mut bench = Bench::new(clock.options());
    for number in 0..3000 {
        bench.run(&format!("set key:{number} v px {}", 100 + number % 2 * 1_000_000));
    }
    for _ in 0..3 {
        clock.advance_ms(200);
        bench.run("ping");
    }
    assert_eq!(bench.run("dbsize"), "1500");
    assert!(bench.run("info keyspace").contains("db0:keys=1500,expires=1500"));
}

#[test]
fn the_accounted_memory_returns_to_zero_with_the_last_key() {
    let mut bench = Bench::new(TestClock::new().options());
    for line in [
        "set s 123",
        "append s 4567",
        "incr s",
        "setrange s 100 x",
        "rpush l a b c",
        "lset l 0 longer",
        "lrem l 1 b",
        "linsert l after c d",
        "ltrim l 0 1",
        "hset h f 1 g 22",
        "hincrby h f 1000",
        "hdel h g",
        "sadd e 1 2 3",
        "spop e",
        "srem e 1",
        "zadd z 1 a 2 b",
        "zincrby z 5 a",
        "zrem z b",
        "rename s t",
        "copy t u",
        "expire u 100",
        "copy l m",
        "smove e e2 2",
        "lmove l l2 left right",
        "zrangestore z2 z 0 -1",
        "sunionstore e3 e e2",
        "move m 1",
        "swapdb 0 1",
    ] {
        let reply = bench.run(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    assert!(bench.store.memory_bytes() > 0);
    for database in 0..2 {
        bench.run(&format!("select {database}"));
        for key in ["s", "t", "u", "l", "l2", "m", "h", "e", "e2", "e3", "z", "z2"] {
            bench.run(&format!("del {key}"));
        }
    }
    assert_eq!((bench.store.keys(), bench.store.memory_bytes()), (0, 0));
}
