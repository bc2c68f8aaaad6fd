use super::{request, spec_of};
use crate::command::{KeyScope, UNKNOWN, keys, written_keys};

/// What a request names, and what of it may be written: scope and keys, as one line each.
fn check(line: &str, all: &str, written: &str) {
    let (spec, frame) = (spec_of(line), request(line));
    let mut found = Vec::new();
    let scope = keys(spec, &frame, &mut |key| found.push(String::from_utf8_lossy(key).into_owned()));
    assert_eq!(summary(scope, &found), all, "keys of {line}");
    found.clear();
    let scope = written_keys(spec, &frame, &mut |key| found.push(String::from_utf8_lossy(key).into_owned()));
    assert_eq!(summary(scope, &found), written, "written keys of {line}");
}

fn summary(scope: KeyScope, keys: &[String]) -> String {
    [&[format!("{scope:?}")], keys].concat().join(" ")
}

#[test]
fn keys_stand_at_their_positions() {
    check("GET k", "Keys k", "None");
    check("MGET a b c", "Keys a b c", "None");
    check("MSET a 1 b 2", "Keys a b", "Keys a b");
    check("SET k v EX 5", "Keys k", "Keys k");
    check("PING", "None", "None");
    check("BLPOP a b 0", "Keys a b", "Keys a b");
    check("OBJECT ENCODING k", "Keys k", "None");
    check("MEMORY USAGE k", "Keys k", "None");
    check("DEBUG OBJECT k", "Keys k", "None");
    check("XGROUP CREATE s g $", "Keys s", "Keys s");
    check("XINFO STREAM s FULL", "Keys s", "None");
}

#[test]
fn a_destination_is_written_and_its_sources_are_not() {
    check("SUNIONSTORE d a b", "Keys d a b", "Keys d");
    check("BITOP AND d a b", "Keys d a b", "Keys d");
    check("PFMERGE d a b", "Keys d a b", "Keys d");
    check("ZRANGESTORE d s 0 -1", "Keys d s", "Keys d");
    check("COPY s d REPLACE", "Keys s d", "Keys d");
    check("PFCOUNT a b", "Keys a b", "None");
}

#[test]
fn what_moves_changes_both_keys() {
    for name in ["RENAME a b", "SMOVE a b m", "LMOVE a b LEFT RIGHT", "RPOPLPUSH a b", "BLMOVE a b LEFT LEFT 0"] {
        check(name, "Keys a b", "Keys a b");
    }
}

#[test]
fn a_count_says_how_many_keys_follow() {
    check("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "Keys d a b", "Keys d");
    check("ZUNION 2 a b WITHSCORES", "Keys a b", "None");
    check("LMPOP 2 a b LEFT", "Keys a b", "Keys a b");
    check("BLMPOP 0 2 a b LEFT", "Keys a b", "Keys a b");
    check("SINTERCARD 2 a b LIMIT 1", "Keys a b", "None");
    check("MSETEX 2 a 1 b 2 EX 9", "Keys a b", "Keys a b");
}

#[test]
fn a_script_without_declared_keys_may_touch_any() {
    check("EVAL s 2 a b x", "Keys a b", "Keys a b");
    check("EVALSHA s 0", "Unknown", "Unknown");
    check("FCALL f 1 a", "Keys a", "Keys a");
    check("EVAL_RO s 1 a", "Keys a", "None");
    check("FCALL_RO f 0", "Unknown", "None");
}

#[test]
fn a_request_that_the_server_refuses_has_no_keys() {
    check("EVAL s 3 a b", "None", "None");
    check("EVAL s -1 a", "None", "None");
    check("EVAL s x a", "None", "None");
    check("EVAL s 18446744073709551615 a", "None", "None");
    check("EVAL s", "None", "None");
    check("ZUNION 9 a", "None", "None");
    check("MSETEX 9223372036854775808 a 1", "None", "None");
    check("XREAD STREAMS a b 0", "None", "None");
    check("XREAD COUNT 5", "None", "None");
    check("GET", "None", "None");
    check("MIGRATE h 1 \"\" 0 5", "None", "None");
}

#[test]
fn streams_are_the_first_half_of_what_follows_the_word() {
    check("XREAD COUNT 2 BLOCK 0 STREAMS a b 0 $", "Keys a b", "None");
    check("XREADGROUP GROUP streams streams NOACK STREAMS a >", "Keys a", "Keys a");
}

#[test]
fn a_stored_sort_or_search_writes_its_last_destination() {
    check("SORT l", "Keys l", "None");
    check("SORT l LIMIT 0 5 GET # STORE d", "Keys l d", "Keys d");
    check("SORT l STORE c STORE d", "Keys l d", "Keys d");
    check("SORT l BY store STORE d", "Keys l d", "Keys d");
    check("SORT l BY w_* STORE d", "Unknown l d", "Keys d");
    check("SORT_RO l GET o_*", "Unknown l", "None");
    check("GEORADIUS g 1 2 3 km", "Keys g", "None");
    check("GEORADIUS g 1 2 3 km STOREDIST d", "Keys g d", "Keys d");
    check("GEORADIUSBYMEMBER g store 3 km STORE d", "Keys g d", "Keys d");
}

#[test]
fn migrate_takes_one_key_or_those_behind_keys() {
    check("MIGRATE h 1 k 0 5", "Keys k", "Keys k");
    check("MIGRATE h 1 \"\" 0 5 AUTH keys KEYS a b", "Keys a b", "Keys a b");
    check("MIGRATE h 1 \"\" 0 5 COPY AUTH2 keys keys KEYS a", "Keys a", "Keys a");
}

#[test]
fn what_reaches_past_keys_says_how_far() {
    check("FLUSHDB", "Database", "Database");
    check("FLUSHALL ASYNC", "Everything", "Everything");
    check("SWAPDB 0 1", "Everything", "Everything");
    let scope = written_keys(&UNKNOWN, &request("NOBODY knows"), &mut |_| {});
    assert_eq!(scope, KeyScope::Unknown);
}

#[test]
fn a_write_that_only_reads_writes_no_key() {
    check("BITFIELD k GET u8 0", "Keys k", "None");
    check("BITFIELD k SET u8 0 1", "Keys k", "Keys k");
    check("GETEX k", "Keys k", "None");
    check("GETEX k PERSIST", "Keys k", "Keys k");
}
