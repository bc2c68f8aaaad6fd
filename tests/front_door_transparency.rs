//! What suites that know nothing of Standin found: pauses, busy scripts, odd replies, logins that the server judges.
//!
//! All of it also passes against a plain server (`STANDIN_UNDER_TEST=direct`).
#![allow(clippy::unwrap_used)]

mod support;

use support::{PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, secs};

struct Stage {
    _primary: RedisServer,
    _backup: RedisServer,
    standin: StandinProcess,
}

fn start() -> Stage {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    Stage { _primary: primary, _backup: backup, standin }
}

#[test]
fn a_pause_of_writes_lets_reads_and_its_own_end_pass_and_is_no_outage() {
    let stage = start();
    let epoch = stage.standin.epoch();
    let (mut operator, mut writer, mut reader) =
        (stage.standin.connect(), stage.standin.connect(), stage.standin.connect());
    assert_eq!(operator.command(&["CLIENT", "PAUSE", "60000", "WRITE"]), Reply::ok());
    writer.send(&["SET", "k", "1"]);
    // Longer than a request may take that nobody has paused.
    std::thread::sleep(secs(3));
    assert_eq!(reader.command(&["GET", "k"]), Reply::Nil);
    assert_eq!(operator.command(&["CLIENT", "UNPAUSE"]), Reply::ok());
    assert_eq!(writer.read(), Reply::ok());
    stage.standin.assert_no_switch_since(epoch);
    stage.standin.finish();
}

#[test]
fn a_script_without_end_can_be_killed_and_others_are_told_busy() {
    let stage = start();
    let epoch = stage.standin.epoch();
    let (mut caller, mut other) = (stage.standin.connect(), stage.standin.connect());
    other.command(&["CONFIG", "SET", "busy-reply-threshold", "10"]);
    caller.send(&["EVAL", "while true do end", "0"]);
    eventually(secs(10), "others are told BUSY", || other.command(&["PING"]).is_error_word("BUSY"));
    assert_eq!(stage.standin.connect().command(&["SCRIPT", "KILL"]), Reply::ok());
    assert!(caller.read().text().contains("killed by user"));
    eventually(secs(5), "the server answers again", || !other.command(&["PING"]).is_error());
    stage.standin.assert_no_switch_since(epoch);
    stage.standin.finish();
}

#[test]
fn a_deep_reply_reaches_its_client_and_costs_nobody_else_a_connection() {
    let stage = start();
    let (mut deep, mut other) = (stage.standin.connect(), stage.standin.connect());
    let script = "local t = {} for _ = 1, 200 do t = {t} end return t";
    deep.send(&["EVAL", script, "0"]);
    deep.send(&["PING"]);
    assert_eq!(other.command(&["PING"]), Reply::Simple("PONG".to_owned()));
    let mut reply = deep.read();
    let mut depth = 0;
    while let Reply::Array(mut elements) = reply {
        depth += 1;
        reply = elements.pop().unwrap_or(Reply::Nil);
    }
    assert_eq!(depth, 201);
    assert_eq!(deep.read(), Reply::Simple("PONG".to_owned()));
    stage.standin.finish();
}

#[test]
fn without_users_of_its_own_the_front_door_has_the_server_judge_logins() {
    let stage = start();
    let (mut admin, mut client) = (stage.standin.connect(), stage.standin.connect());
    admin.command(&["ACL", "SETUSER", "alice", "on", ">secret", "+get", "+acl|whoami", "~a:*"]);
    assert!(client.command(&["AUTH", "alice", "wrong"]).is_error_word("WRONGPASS"));
    assert_eq!(client.command(&["ACL", "WHOAMI"]), Reply::bulk("default"));
    assert_eq!(client.command(&["AUTH", "alice", "secret"]), Reply::ok());
    assert_eq!(client.command(&["ACL", "WHOAMI"]), Reply::bulk("alice"));
    assert_eq!(client.command(&["GET", "a:1"]), Reply::Nil);
    assert!(client.command(&["SET", "a:1", "x"]).is_error_word("NOPERM"), "alice's rights, not ours");
    assert_eq!(admin.command(&["ACL", "WHOAMI"]), Reply::bulk("default"), "others keep their own");
    stage.standin.finish();
}

#[test]
fn what_has_no_reply_does_not_shift_the_replies_of_others() {
    let stage = start();
    let (mut odd, mut other) = (stage.standin.connect(), stage.standin.connect());
    odd.send(&["REPLCONF", "ACK", "0"]);
    assert_eq!(other.command(&["ECHO", "mine"]), Reply::bulk("mine"));
    assert_eq!(odd.command(&["ECHO", "yours"]), Reply::bulk("yours"));
    stage.standin.finish();
}

#[test]
fn an_invalidation_message_does_not_overtake_the_reply_before_it() {
    let stage = start();
    let (mut reader, mut writer) = (stage.standin.connect_resp3(), stage.standin.connect());
    writer.command(&["RPUSH", "to", "a"]);
    reader.command(&["CLIENT", "TRACKING", "ON"]);
    reader.command(&["LRANGE", "to", "0", "-1"]);
    reader.send(&["BLMOVE", "from", "to", "LEFT", "LEFT", "0"]);
    eventually(secs(5), "it blocks", || writer.command(&["INFO", "clients"]).text().contains("blocked_clients:1"));
    writer.command(&["RPUSH", "from", "b"]);
    assert_eq!(reader.read(), Reply::bulk("b"));
    assert!(matches!(reader.read(), Reply::Push(_)));
    stage.standin.finish();
}
