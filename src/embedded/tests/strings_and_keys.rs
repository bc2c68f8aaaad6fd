use super::{Bench, TestClock, check, check_with};
use crate::embedded::StoreOptions;

#[test]
fn strings_are_set_and_read_with_every_option() {
    check(&[
        ("get k", "nil"),
        ("set k v", "OK"),
        ("GET k", "\"v\""),
        ("set k w nx", "nil"),
        ("set k w xx get", "\"v\""),
        ("set none w xx", "nil"),
        ("set none w nx get", "nil"),
        ("get none", "\"w\""),
        ("set k v ex 10 px 10", "-ERR syntax error"),
        ("set k v nx xx", "-ERR syntax error"),
        ("set k v ex 0", "-ERR invalid expire time in 'set' command"),
        ("set k v ex x", "-ERR value is not an integer or out of range"),
        ("set k v ex", "-ERR syntax error"),
        ("getset k 2", "\"w\""),
        ("getdel k", "\"2\""),
        ("getdel k", "nil"),
        ("mset a 1 b 2", "OK"),
        ("mset a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("mget a missing b", "[\"1\" nil \"2\"]"),
        ("msetnx c 1 a 2", "0"),
        ("msetnx c 1 d 2", "1"),
        ("append a 23", "3"),
        ("strlen a", "3"),
        ("setrange s 5 xyz", "8"),
        ("get s", "\"\\x00\\x00\\x00\\x00\\x00xyz\""),
        ("setrange s -1 x", "-ERR offset is out of range"),
        ("setrange s 536870912 x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        ("setrange empty 0 \"\"", "0"),
        ("exists empty", "0"),
        ("set t \"This is a string\"", "OK"),
        ("getrange t 0 3", "\"This\""),
        ("getrange t -3 -1", "\"ing\""),
        ("getrange t 5 -100", "\"\""),
        ("getrange t -1 -5", "\"\""),
        ("substr t 0 -1", "\"This is a string\""),
    ]);
}

#[test]
fn an_unknown_command_is_answered_in_the_servers_words() {
    check(&[
        ("xadd s * a 1", "-ERR unknown command 'xadd', with args beginning with: 's' '*' 'a' '1' "),
        ("Foo", "-ERR unknown command 'Foo', with args beginning with: "),
        ("get", "-ERR wrong number of arguments for 'get' command"),
        ("set k", "-ERR wrong number of arguments for 'set' command"),
    ]);
}

#[test]
fn keys_are_moved_copied_and_counted() {
    check(&[
        ("set a 1", "OK"),
        ("rename a b", "OK"),
        ("rename a b", "-ERR no such key"),
        ("set a 2", "OK"),
        ("renamenx a b", "0"),
        ("copy a b", "0"),
        ("copy a b replace", "1"),
        ("get b", "\"2\""),
        ("copy a a", "-ERR source and destination objects are the same"),
        ("copy a c db 1", "1"),
        ("move a 1", "1"),
        ("select 1", "OK"),
        ("mget a c", "[\"2\" \"2\"]"),
        ("dbsize", "2"),
        ("swapdb 0 1", "OK"),
        ("keys *", "[\"b\"]"),
        ("select 99", "-ERR DB index is out of range"),
        ("type b", "string"),
        ("type none", "none"),
        ("exists b b none", "2"),
        ("del b none", "1"),
        ("randomkey", "nil"),
        ("flushall", "OK"),
        ("flushdb later", "-ERR syntax error"),
    ]);
}

#[test]
fn a_key_is_gone_when_its_time_has_come() {
    let clock = TestClock::new();
    let mut bench = Bench::new(clock.options());
    assert_eq!(bench.run("set k v px 1000"), "OK");
    clock.advance_ms(999);
    assert_eq!(bench.run("get k"), "\"v\"");
    clock.advance_ms(1);
    assert_eq!(bench.run("get k"), "nil");
    assert_eq!(bench.store.keys(), 0);
    assert_eq!(bench.store.memory_bytes(), 0);
}

#[test]
fn locks_are_refused_where_every_process_has_a_copy_of_its_own() {
    let options = StoreOptions { allow_locks_and_counters: false, ..TestClock::new().options() };
    let refused = |name: &str| {
        format!(
            "-NOTINEMBEDDED '{name}' is refused by the embedded cache: each process has a copy of its own, so a lock or a \
             counter would not hold"
        )
    };
    check_with(
        options,
        &[
            ("set k v", "OK"),
            ("set k v xx ex 10", "OK"),
            ("set k v nx ex 10", &refused("set ... nx")),
            ("set k v get", &refused("set ... get")),
            ("setnx k v", &refused("setnx")),
            ("append k v", &refused("append")),
            ("get k", "\"v\""),
            ("command info incr get", "[nil-array [\"get\" 2 [readonly fast] 1 1 1 [] [] [] []]]"),
            ("multi", "OK"),
            ("incr n", &refused("incr")),
            ("exec", "-EXECABORT Transaction discarded because of previous errors."),
        ],
    );
}
