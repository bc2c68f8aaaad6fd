use super::{request, spec_of};
use crate::command::Category::{self, *};
use crate::command::UNKNOWN;

fn check(expected: Category, lines: &[&str]) {
    for line in lines {
        assert_eq!(spec_of(line).category(&request(line)), expected, "{line}");
    }
}

#[test]
fn categories_rise_from_read_to_never() {
    let order = [Read, LastWriteWins, Checked, Accumulating, Admin, Never];
    assert!(order.is_sorted());
}

#[test]
fn a_set_is_checked_only_with_a_condition_or_get() {
    check(LastWriteWins, &["SET k v", "SET k v EX 5", "SET nx get", "SET k v KEEPTTL", "SET k nx PX 5"]);
    check(Checked, &["SET k v NX", "SET k v EX 5 xx", "SET k v GET", "SET k v IFEQ w", "SETNX k v", "GETSET k v"]);
}

#[test]
fn what_only_reads_by_its_arguments_is_a_read() {
    check(Read, &["GETEX k", "HGETEX h FIELDS 1 f", "SORT l", "GEORADIUS g 1 2 3 km", "BITFIELD k GET u8 0"]);
    check(Read, &["BITFIELD k", "GEORADIUSBYMEMBER g store 3 km"]);
    check(LastWriteWins, &["GETEX k EX 5", "HGETEX h EX 5 FIELDS 1 f", "SORT l STORE d"]);
    check(LastWriteWins, &["GEORADIUS g 1 2 3 km STORE d"]);
}

#[test]
fn a_bitfield_is_as_bad_as_its_worst_operation() {
    check(Checked, &["BITFIELD k GET u8 0 SET u8 0 1", "BITFIELD k OVERFLOW SAT SET u8 0 1"]);
    check(Accumulating, &["BITFIELD k INCRBY u8 0 1", "BITFIELD k INCRBY u8 0 1 SET u8 0 1"]);
}

#[test]
fn a_sorted_set_add_looks_at_its_options_and_not_at_its_members() {
    check(LastWriteWins, &["ZADD z 1 nx", "ZADD z CH 1 incr", "GEOADD g 1 2 nx", "GEOADD g CH 1 2 m"]);
    check(Checked, &["ZADD z NX 1 m", "ZADD z GT CH 1 m", "GEOADD g XX 1 2 m"]);
    check(Accumulating, &["ZADD z INCR 1 m", "ZADD z NX INCR 1 m", "ZINCRBY z 1 m"]);
}

#[test]
fn a_condition_makes_an_expiry_checked() {
    check(LastWriteWins, &["EXPIRE k 5", "PEXPIREAT k 5", "HEXPIRE h 5 FIELDS 1 nx", "PERSIST k"]);
    check(Checked, &["EXPIRE k 5 NX", "EXPIREAT k 5 GT", "HEXPIRE h 5 LT FIELDS 1 f", "HSETEX h FNX FIELDS 1 f v"]);
    check(LastWriteWins, &["HSETEX h EX 5 FIELDS 1 fnx v", "MSETEX 1 nx xx", "MSETEX 1 a 1 EX 5"]);
    check(Checked, &["MSETEX 1 a 1 NX"]);
}

#[test]
fn a_cut_may_be_repeated_only_if_it_cuts_to_a_length() {
    check(LastWriteWins, &["LTRIM l 0 99", "LTRIM l -100 -1", "LTRIM l 0 -1"]);
    check(Accumulating, &["LTRIM l 1 -1", "LTRIM l 0 -2", "LTRIM l 5 9", "LTRIM l x y"]);
    check(LastWriteWins, &["ZREMRANGEBYRANK z 0 -101", "ZREMRANGEBYRANK z 100 -1"]);
    check(Accumulating, &["ZREMRANGEBYRANK z 0 0", "ZREMRANGEBYRANK z -5 -1", "ZREMRANGEBYRANK z 0 99"]);
    check(Checked, &["LREM l 0 v"]);
    check(Accumulating, &["LREM l 1 v", "LREM l -2 v"]);
}

#[test]
fn a_destination_that_is_its_own_source_accumulates() {
    check(LastWriteWins, &["ZUNIONSTORE d 2 a b", "BITOP XOR d a b", "ZRANGESTORE d s 0 1", "SUNIONSTORE d d a"]);
    check(Accumulating, &["ZUNIONSTORE d 2 d b", "BITOP NOT d d", "ZRANGESTORE s s 1 -1"]);
}

#[test]
fn a_restore_is_refused_the_second_time_unless_it_replaces() {
    check(
        Checked,
        &["RESTORE k 0 replace", "FUNCTION LOAD replace", "FUNCTION RESTORE dump", "FUNCTION RESTORE d APPEND"],
    );
    check(LastWriteWins, &["RESTORE k 0 dump REPLACE", "FUNCTION LOAD REPLACE code", "FUNCTION RESTORE d FLUSH"]);
}

#[test]
fn what_adds_or_takes_accumulates() {
    check(Accumulating, &["INCR k", "LPUSH l a", "APPEND k v", "XADD s * a b", "SPOP s", "LPOP l", "PUBLISH c m"]);
    check(Accumulating, &["HINCRBY h f 1", "EVAL s 1 k", "FCALL f 0", "XREADGROUP GROUP g c STREAMS s >"]);
    assert_eq!(UNKNOWN.category(&request("NOBODY knows")), Accumulating);
}

#[test]
fn what_may_never_be_repeated_is_never() {
    check(Never, &["EXEC", "BLPOP l 0", "BZMPOP 0 1 z MIN", "WAIT 1 0", "SHUTDOWN"]);
}

#[test]
fn plain_last_writes_may_be_repeated() {
    check(LastWriteWins, &["DEL a b", "UNLINK a", "HSET h f v", "SADD s m", "SREM s m", "MSET a 1", "SETEX k 5 v"]);
    check(Read, &["GET k", "EVAL_RO s 0", "INFO", "CONFIG GET *", "XREAD BLOCK 0 STREAMS s $"]);
    check(Admin, &["CONFIG SET a b", "FLUSHALL", "SWAPDB 0 1", "DEBUG SLEEP 0"]);
}
