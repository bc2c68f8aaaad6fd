use super::check;

#[test]
fn hashes_keep_their_fields() {
    check(&[
        ("hset h a 1 b 2", "2"),
        ("hset h a 3 c 4", "1"),
        ("hset h a", "-ERR wrong number of arguments for 'hset' command"),
        ("hget h a", "\"3\""),
        ("hget h none", "nil"),
        ("hmget h a none b", "[\"3\" nil \"2\"]"),
        ("hgetall h", "[\"a\" \"3\" \"b\" \"2\" \"c\" \"4\"]"),
        ("hkeys h", "[\"a\" \"b\" \"c\"]"),
        ("hvals h", "[\"3\" \"2\" \"4\"]"),
        ("hlen h", "3"),
        ("hexists h a", "1"),
        ("hstrlen h a", "1"),
        ("hsetnx h a 9", "0"),
        ("hsetnx h d 9", "1"),
        ("hincrby h a 2", "5"),
        ("hincrby h a 9223372036854775807", "-ERR increment or decrement would overflow"),
        ("hset h text x", "1"),
        ("hincrby h text 1", "-ERR hash value is not an integer"),
        ("hincrbyfloat h a 0.1", "\"5.1\""),
        ("hincrbyfloat h text 1", "-ERR hash value is not a float"),
        ("hdel h a b none", "2"),
        ("hdel h c d text", "3"),
        ("exists h", "0"),
        ("hgetall h", "[]"),
        ("hincrby fresh x 1", "1"),
        ("hrandfield fresh 2 withvalues", "[\"x\" \"1\"]"),
        ("hrandfield fresh -3", "[\"x\" \"x\" \"x\"]"),
        ("hrandfield none", "nil"),
        ("hscan fresh 0", "[\"0\" [\"x\" \"1\"]]"),
    ]);
}

#[test]
fn a_command_on_another_kind_of_value_is_refused() {
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    check(&[
        ("set s v", "OK"),
        ("rpush l a", "1"),
        ("hset s a 1", wrong),
        ("lpush s a", wrong),
        ("sadd s a", wrong),
        ("zadd s 1 a", wrong),
        ("get l", wrong),
        ("incr l", wrong),
        ("set l v get", wrong),
        ("sunion s l", wrong),
        ("zunion 1 l", wrong),
        ("mget s l", "[\"v\" nil]"),
        ("lrange l 0 -1", "[\"a\"]"),
    ]);
}

#[test]
fn lists_push_pop_and_cut() {
    check(&[
        ("rpush l a b c", "3"),
        ("lpush l z y", "5"),
        ("lrange l 0 -1", "[\"y\" \"z\" \"a\" \"b\" \"c\"]"),
        ("lpop l", "\"y\""),
        ("rpop l 2", "[\"c\" \"b\"]"),
        ("llen l", "2"),
        ("lpushx none a", "0"),
        ("rpushx l a", "3"),
        ("lindex l -1", "\"a\""),
        ("lindex l 9", "nil"),
        ("lset l 0 first", "OK"),
        ("lset l 9 x", "-ERR index out of range"),
        ("lset none 0 x", "-ERR no such key"),
        ("linsert l before a new", "4"),
        ("linsert l after none new", "-1"),
        ("linsert none after a new", "0"),
        ("lrange l 0 -1", "[\"first\" \"new\" \"a\" \"a\"]"),
        ("lpos l a", "2"),
        ("lpos l a rank -1", "3"),
        ("lpos l a count 0", "[2 3]"),
        (
            "lpos l a rank 0",
            "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                             negative to start from the end of the list",
        ),
        ("lrem l -1 a", "1"),
        ("rpush l x x x", "6"),
        ("lrem l 2 x", "2"),
        ("lrange l 0 -1", "[\"first\" \"new\" \"a\" \"x\"]"),
        ("ltrim l 1 2", "OK"),
        ("lrange l 0 -1", "[\"new\" \"a\"]"),
        ("ltrim l 5 9", "OK"),
        ("exists l", "0"),
        ("lpop l", "nil"),
        ("lpop l 2", "nil-array"),
        ("lpop l -1", "-ERR value is out of range, must be positive"),
        ("rpush from 1 2", "2"),
        ("lmove from to left right", "\"1\""),
        ("rpoplpush from from", "\"2\""),
        ("rpoplpush none to", "nil"),
        ("lmpop 2 none from left count 5", "[\"from\" [\"2\"]]"),
        ("lmpop 1 none left", "nil-array"),
    ]);
}

#[test]
fn removing_from_the_right_leaves_the_left_ones() {
    check(&[
        ("rpush l x 1 x 2 x", "5"),
        ("lrem l -2 x", "2"),
        ("lrange l 0 -1", "[\"x\" \"1\" \"2\"]"),
        ("lrem l 0 x", "1"),
        ("lrange l 0 -1", "[\"1\" \"2\"]"),
    ]);
}

#[test]
fn sets_combine() {
    check(&[
        ("sadd a 1 2 3 3", "3"),
        ("sadd b 2 3 4", "3"),
        ("sinter a b", "[\"2\" \"3\"]"),
        ("sdiff a b", "[\"1\"]"),
        ("sunionstore u a b", "4"),
        ("scard u", "4"),
        ("sinterstore i a none", "0"),
        ("exists i", "0"),
        ("sintercard 2 a b limit 1", "1"),
        ("sintercard 0 a", "-ERR numkeys should be greater than 0"),
        ("sintercard 3 a b", "-ERR Number of keys can't be greater than number of args"),
        ("sismember a 1", "1"),
        ("smismember a 1 9", "[1 0]"),
        ("smove a b 1", "1"),
        ("smove a b 9", "0"),
        ("sismember b 1", "1"),
        ("srem a 2 9", "1"),
        ("smembers a", "[\"3\"]"),
        ("srandmember a", "\"3\""),
        ("srandmember a -2", "[\"3\" \"3\"]"),
        ("spop a", "\"3\""),
        ("spop a", "nil"),
        ("spop a 3", "[]"),
        ("exists a", "0"),
        ("spop b -1", "-ERR value is out of range, must be positive"),
    ]);
}

#[test]
fn sorted_sets_add_under_every_condition() {
    check(&[
        ("zadd z 1 a 2 b", "2"),
        ("zadd z xx ch 5 a 1 new", "1"),
        ("zadd z nx 9 a 3 c", "1"),
        ("zadd z gt ch 4 a 6 b", "1"),
        ("zadd z lt ch 4 a 7 b", "1"),
        ("zadd z incr 0.5 a", "\"4.5\""),
        ("zadd z nx incr 1 a", "nil"),
        ("zadd z nx xx 1 a", "-ERR XX and NX options at the same time are not compatible"),
        ("zadd z gt lt 1 a", "-ERR GT, LT, and/or NX options at the same time are not compatible"),
        ("zadd z incr 1 a 2 b", "-ERR INCR option supports a single increment-element pair"),
        ("zadd z 1", "-ERR wrong number of arguments for 'zadd' command"),
        ("zadd z 1 a 2", "-ERR syntax error"),
        ("zadd z x a", "-ERR value is not a valid float"),
        ("zadd none xx 1 a", "0"),
        ("exists none", "0"),
        ("zscore z a", "\"4.5\""),
        ("zmscore z a none", "[\"4.5\" nil]"),
        ("zincrby z 1.5 a", "\"6\""),
        ("zincrby z inf a", "\"inf\""),
        ("zincrby z -inf a", "-ERR resulting score is not a number (NaN)"),
        ("zrange z 0 -1 withscores", "[\"c\" \"3\" \"b\" \"6\" \"a\" \"inf\"]"),
        ("zrank z a", "2"),
        ("zrevrank z a", "0"),
        ("zrank z none", "nil"),
        ("zcard z", "3"),
        ("zrem z a none", "1"),
        ("zpopmin z", "[\"c\" \"3\"]"),
        ("zpopmax z 5", "[\"b\" \"6\"]"),
        ("exists z", "0"),
    ]);
}

#[test]
fn sorted_sets_are_read_by_rank_score_and_name() {
    check(&[
        ("zadd z 1 a 2 b 3 c 4 d", "4"),
        ("zrange z 1 2", "[\"b\" \"c\"]"),
        ("zrange z 0 1 rev", "[\"d\" \"c\"]"),
        ("zrevrange z 0 0 withscores", "[\"d\" \"4\"]"),
        ("zrange z (1 3 byscore", "[\"b\" \"c\"]"),
        ("zrange z 3 (1 byscore rev", "[\"c\" \"b\"]"),
        ("zrange z -inf +inf byscore limit 1 2", "[\"b\" \"c\"]"),
        (
            "zrange z 0 1 limit 1 2",
            "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ),
        ("zrangebyscore z 2 3 withscores", "[\"b\" \"2\" \"c\" \"3\"]"),
        ("zrevrangebyscore z 3 2", "[\"c\" \"b\"]"),
        ("zrangebyscore z x 3", "-ERR min or max is not a float"),
        ("zcount z 2 (4", "2"),
        ("zrangestore to z 0 1", "2"),
        ("zremrangebyscore z 4 9", "1"),
        ("zremrangebyrank z 0 0", "1"),
        ("zrange z 0 -1", "[\"b\" \"c\"]"),
        ("zadd n 0 a 0 b 0 c", "3"),
        ("zrangebylex n [a (c", "[\"a\" \"b\"]"),
        ("zrevrangebylex n + [b", "[\"c\" \"b\"]"),
        ("zlexcount n - +", "3"),
        ("zrange n [b + bylex", "[\"b\" \"c\"]"),
        ("zrangebylex n a c", "-ERR min or max not valid string range item"),
        ("zremrangebylex n - (b", "1"),
        ("zcard n", "2"),
    ]);
}

#[test]
fn sorted_sets_combine_with_weights_and_plain_sets() {
    check(&[
        ("zadd a 1 x 2 y", "2"),
        ("zadd b 10 y 20 z", "2"),
        ("sadd plain x z", "2"),
        ("zunionstore u 2 a b weights 2 1", "3"),
        ("zrange u 0 -1 withscores", "[\"x\" \"2\" \"y\" \"14\" \"z\" \"20\"]"),
        ("zinter 2 a b withscores", "[\"y\" \"12\"]"),
        ("zinter 2 a b aggregate min withscores", "[\"y\" \"2\"]"),
        ("zinter 2 a plain withscores", "[\"x\" \"2\"]"),
        ("zdiff 2 a b", "[\"x\"]"),
        ("zdiffstore d 2 a b", "1"),
        ("zinterstore i 2 a none", "0"),
        ("zintercard 2 a b", "1"),
        ("zunion 0 a", "-ERR at least 1 input key is needed for 'zunion' command"),
        ("zunion 2 a b weights 1", "-ERR syntax error"),
        ("zmpop 2 none a min", "[\"a\" [[\"x\" \"1\"]]]"),
    ]);
}
