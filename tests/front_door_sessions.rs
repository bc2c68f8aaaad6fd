//! Sessions: state that belongs to one client, here and across a failover.
//!
//! What does not speak of a failover also passes against a plain server (`STANDIN_UNDER_TEST=direct`).
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use support::{Client, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms, secs};

struct Stage {
    primary: RedisServer,
    backup: RedisServer,
    standin: StandinProcess,
}

impl Stage {
    fn start() -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
        standin.declare(PRIMARY_LOST);
        Self { primary, backup, standin }
    }

    fn connect(&self) -> Client {
        self.standin.connect()
    }

    /// Kills the primary and waits until the backup serves.
    fn fail_over(&mut self) {
        self.primary.kill();
        self.standin.wait_until_active("backup-a", secs(5));
    }
}

fn queued() -> Reply {
    Reply::Simple("QUEUED".to_owned())
}

#[test]
fn a_transaction_is_executed_whole() {
    let stage = Stage::start();
    let mut client = stage.connect();
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "1"]), queued());
    assert_eq!(client.command(&["INCR", "k"]), queued());
    assert_eq!(stage.connect().command(&["GET", "k"]), Reply::Nil, "nothing is seen before EXEC");
    assert_eq!(client.command(&["EXEC"]), Reply::Array(vec![Reply::ok(), Reply::Integer(2)]));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    stage.standin.finish();
}

#[test]
fn transactions_that_cannot_run_are_refused_as_a_server_refuses_them() {
    let stage = Stage::start();
    let mut client = stage.connect();
    assert!(client.command(&["EXEC"]).is_error_word("ERR"), "EXEC without MULTI");
    assert!(client.command(&["DISCARD"]).is_error_word("ERR"), "DISCARD without MULTI");
    client.command(&["MULTI"]);
    assert!(client.command(&["MULTI"]).is_error_word("ERR"), "nested");
    assert!(client.command(&["NOSUCHTHING"]).is_error_word("ERR"));
    assert!(client.command(&["EXEC"]).is_error_word("EXECABORT"));
    client.command(&["MULTI"]);
    client.command(&["SET", "k", "1"]);
    assert_eq!(client.command(&["DISCARD"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil);
    stage.standin.finish();
}

#[test]
fn what_a_transaction_changes_about_the_connection_holds_after_it() {
    let mut stage = Stage::start();
    let mut publisher = stage.connect();
    let mut client = stage.standin.connect_resp3();
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    for request in [
        &["SUBSCRIBE", "news"][..],
        &["CLIENT", "TRACKING", "ON"],
        &["SCRIPT", "LOAD", "return 77"],
        &["SELECT", "3"],
        &["GET", "watched"],
    ] {
        assert_eq!(client.command(request), queued(), "{request:?}");
    }
    assert_eq!(client.command(&["EXEC"]).elements().len(), 5);
    assert_eq!(client.command(&["SET", "k", "in 3"]), Reply::ok());
    publisher.command(&["SELECT", "3"]);
    assert_eq!(publisher.command(&["GET", "k"]), Reply::bulk("in 3"));
    assert_eq!(publisher.command(&["PUBLISH", "news", "hello"]), Reply::Integer(1), "still subscribed");
    assert_eq!(client.read(), Reply::Push(message("message", &["news", "hello"])));
    publisher.command(&["SET", "watched", "new"]);
    let told = Reply::Push(vec![Reply::bulk("invalidate"), Reply::Array(vec![Reply::bulk("watched")])]);
    assert_eq!(client.read(), told, "still tracking");

    stage.fail_over();
    let forget_all = Reply::Push(vec![Reply::bulk("invalidate"), Reply::Nil]);
    assert_eq!(client.read(), forget_all);
    publish_until_heard(&mut publisher, "news");
    // Once for each connection that was lost meanwhile.
    let pushed = std::iter::repeat_with(|| client.read()).find(|push| *push != forget_all);
    assert_eq!(pushed, Some(Reply::Push(message("message", &["news", "hello"]))));
    let sha = "2f769f654f08d29e246d971112563bd01abfe584";
    assert_eq!(client.command(&["EVALSHA", sha, "0"]), Reply::Integer(77));
    stage.standin.finish();
}

#[test]
fn what_a_transaction_was_refused_changes_nothing() {
    let stage = Stage::start();
    let mut client = stage.connect();
    assert_eq!(client.command(&["SET", "k", "in 0"]), Reply::ok());
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    assert_eq!(client.command(&["SELECT", "9999"]), queued());
    assert_eq!(client.command(&["GET", "k"]), queued());
    let exec = client.command(&["EXEC"]);
    let replies = exec.elements();
    assert!(replies[0].is_error(), "{replies:?}");
    assert_eq!(replies[1], Reply::bulk("in 0"));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("in 0"), "still in database 0");
    assert!(client.command(&["MULTI", "what"]).is_error_word("ERR"));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("in 0"), "and in no transaction");
    stage.standin.finish();
}

#[test]
fn without_a_backend_nothing_of_a_transaction_is_executed_whenever_one_comes_back() {
    let mut stage = Stage::start();
    let mut client = stage.connect();
    stage.standin.declare(&["no backend", "backup-a", "cannot"]);
    stage.primary.kill();
    stage.backup.kill();
    eventually(secs(20), "requests are refused at once", || {
        let began = std::time::Instant::now();
        client.command(&["GET", "k"]).is_error_word("NOBACKEND") && began.elapsed() < ms(100)
    });
    assert_eq!(client.command(&["MULTI"]), Reply::ok(), "as a server that cannot serve now");
    assert!(client.command(&["SET", "k", "half"]).is_error_word("NOBACKEND"));
    stage.backup.restart();
    eventually(secs(20), "it serves again", || stage.connect().command(&["GET", "k"]) == Reply::Nil);
    client.command(&["SET", "other", "half"]);
    assert!(client.command(&["EXEC"]).is_error_word("EXECABORT"));
    assert_eq!(client.command(&["MGET", "k", "other"]), Reply::Array(vec![Reply::Nil, Reply::Nil]));
    stage.standin.finish();
}

#[test]
fn a_watched_key_that_changes_lets_exec_answer_nil() {
    let stage = Stage::start();
    let (mut client, mut other) = (stage.connect(), stage.connect());
    assert_eq!(client.command(&["WATCH", "k"]), Reply::ok());
    assert_eq!(other.command(&["SET", "k", "theirs"]), Reply::ok());
    client.command(&["MULTI"]);
    client.command(&["SET", "k", "ours"]);
    assert_eq!(client.command(&["EXEC"]), Reply::Nil);
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("theirs"));

    assert_eq!(client.command(&["WATCH", "k"]), Reply::ok());
    client.command(&["MULTI"]);
    client.command(&["SET", "k", "ours"]);
    assert_eq!(client.command(&["EXEC"]), Reply::Array(vec![Reply::ok()]), "unchanged since");

    client.command(&["WATCH", "k"]);
    assert_eq!(client.command(&["UNWATCH"]), Reply::ok());
    other.command(&["SET", "k", "again"]);
    client.command(&["MULTI"]);
    client.command(&["SET", "k", "ours"]);
    assert_eq!(client.command(&["EXEC"]), Reply::Array(vec![Reply::ok()]), "no longer watched");
    stage.standin.finish();
}

#[test]
fn a_watch_across_a_failover_lets_exec_answer_nil() {
    let mut stage = Stage::start();
    let mut client = stage.connect();
    assert_eq!(client.command(&["WATCH", "k"]), Reply::ok());
    stage.fail_over();
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "1"]), queued());
    assert_eq!(client.command(&["EXEC"]), Reply::Nil, "what was watched is on another server");
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil);
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok(), "the session goes on");
    stage.standin.finish();
}

#[test]
fn a_transaction_begun_before_a_failover_is_executed_once_after_it() {
    let mut stage = Stage::start();
    let mut client = stage.connect();
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "1"]), queued());
    stage.fail_over();
    assert_eq!(client.command(&["INCR", "k"]), queued());
    assert_eq!(client.command(&["EXEC"]), Reply::Array(vec![Reply::ok(), Reply::Integer(2)]));
    assert_eq!(stage.backup.command(&["GET", "k"]), Reply::bulk("2"));
    stage.standin.finish();
}

#[test]
fn a_transaction_too_long_to_begin_again_is_aborted_by_a_failover_and_not_answered_with_nil() {
    let mut stage = Stage::start();
    let mut client = stage.connect();
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    let value = "v".repeat(1 << 20);
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(client.command(&["SET", key, &value]), queued());
    }
    stage.fail_over();
    assert_eq!(client.command(&["SET", "f", "1"]), queued());
    assert!(client.command(&["EXEC"]).is_error_word("EXECABORT"), "nil would say that a watched key changed");
    assert_eq!(client.command(&["EXISTS", "a", "e", "f"]), Reply::Integer(0), "nothing of it was executed");
    stage.standin.finish();
}

/// Publishes until somebody has heard it: a subscription after a failover is set up again in the background.
#[track_caller]
fn publish_until_heard(publisher: &mut Client, channel: &str) {
    eventually(secs(5), "somebody is subscribed", || publisher.command(&["PUBLISH", channel, "hello"]).integer() > 0);
}

fn message(kind: &str, rest: &[&str]) -> Vec<Reply> {
    [kind].iter().chain(rest).map(|part| Reply::bulk(part)).collect()
}

#[test]
fn messages_arrive_in_resp2_as_arrays_and_only_pubsub_commands_are_allowed() {
    let stage = Stage::start();
    let (mut subscriber, mut publisher) = (stage.connect(), stage.connect());
    let subscribed = subscriber.command(&["SUBSCRIBE", "news", "more"]);
    assert_eq!(subscribed.elements()[2], Reply::Integer(1));
    assert_eq!(subscriber.read().elements()[2], Reply::Integer(2));
    assert_eq!(subscriber.command(&["PSUBSCRIBE", "n*"]).elements()[2], Reply::Integer(3));
    assert_eq!(publisher.command(&["PUBLISH", "news", "hello"]), Reply::Integer(2));
    assert_eq!(subscriber.read(), Reply::Array(message("message", &["news", "hello"])));
    assert_eq!(subscriber.read(), Reply::Array(message("pmessage", &["n*", "news", "hello"])));
    assert!(subscriber.command(&["GET", "k"]).is_error_word("ERR"), "not while subscribed");
    assert_eq!(subscriber.command(&["PING"]), Reply::Array(vec![Reply::bulk("pong"), Reply::bulk("")]));
    assert_eq!(subscriber.command(&["UNSUBSCRIBE"]).elements()[0], Reply::bulk("unsubscribe"));
    subscriber.read();
    assert_eq!(subscriber.command(&["PUNSUBSCRIBE"]).elements()[2], Reply::Integer(0));
    assert_eq!(subscriber.command(&["GET", "k"]), Reply::Nil, "a usual session again");
    stage.standin.finish();
}

#[test]
fn messages_arrive_in_resp3_as_pushes_between_replies() {
    let stage = Stage::start();
    let (mut subscriber, mut publisher) = (stage.standin.connect_resp3(), stage.connect());
    subscriber.send(&["SUBSCRIBE", "news"]);
    assert!(matches!(subscriber.read(), Reply::Push(_)));
    assert_eq!(subscriber.command(&["SET", "k", "1"]), Reply::ok(), "any command is allowed");
    assert_eq!(publisher.command(&["PUBLISH", "news", "hello"]), Reply::Integer(1));
    assert_eq!(subscriber.read(), Reply::Push(message("message", &["news", "hello"])));
    assert_eq!(subscriber.command(&["GET", "k"]), Reply::bulk("1"));
    stage.standin.finish();
}

/// In RESP2 messages look like replies.
#[test]
fn messages_that_come_while_a_client_leaves_a_channel_are_taken_for_no_reply() {
    let stage = Stage::start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut publisher = stage.connect();
            while !stop.load(Ordering::Relaxed) {
                (0..50).for_each(|_| publisher.send(&["PUBLISH", "news", "x"]));
                (0..50).for_each(|_| assert!(publisher.read().integer() <= 1));
            }
        });
        let mut client = stage.connect();
        let listening = scope.spawn(move || {
            for _ in 0..300 {
                client.send(&["SUBSCRIBE", "news"]);
                assert_eq!(client.read().elements()[2], Reply::Integer(1));
                assert_eq!(client.read(), Reply::Array(message("message", &["news", "x"])));
                client.send(&["UNSUBSCRIBE", "news"]);
                client.send(&["GET", "k"]);
                let mut reply = client.read();
                while reply == Reply::Array(message("message", &["news", "x"])) {
                    reply = client.read();
                }
                let confirmation = vec![Reply::bulk("unsubscribe"), Reply::bulk("news"), Reply::Integer(0)];
                assert_eq!(reply, Reply::Array(confirmation));
                assert_eq!(client.read(), Reply::Nil);
            }
        });
        let listened = listening.join();
        stop.store(true, Ordering::Relaxed);
        publishing.join().unwrap();
        listened.unwrap();
    });
    stage.standin.finish();
}

#[test]
fn shard_channels_are_served() {
    let stage = Stage::start();
    let (mut subscriber, mut publisher) = (stage.connect(), stage.connect());
    assert_eq!(subscriber.command(&["SSUBSCRIBE", "orders"]).elements()[0], Reply::bulk("ssubscribe"));
    assert_eq!(publisher.command(&["SPUBLISH", "orders", "x"]), Reply::Integer(1));
    assert_eq!(subscriber.read(), Reply::Array(message("smessage", &["orders", "x"])));
    stage.standin.finish();
}

#[test]
fn subscriptions_of_both_protocols_go_on_after_a_failover() {
    let mut stage = Stage::start();
    let (mut second, mut third) = (stage.connect(), stage.standin.connect_resp3());
    assert_eq!(second.command(&["SUBSCRIBE", "news"]).elements()[2], Reply::Integer(1));
    assert_eq!(second.command(&["PSUBSCRIBE", "sp*"]).elements()[2], Reply::Integer(2));
    third.send(&["SUBSCRIBE", "third"]);
    assert!(matches!(third.read(), Reply::Push(_)));
    stage.fail_over();
    let mut publisher = stage.connect();
    publish_until_heard(&mut publisher, "news");
    assert_eq!(second.read(), Reply::Array(message("message", &["news", "hello"])), "no second confirmation between");
    publish_until_heard(&mut publisher, "sport");
    assert_eq!(second.read(), Reply::Array(message("pmessage", &["sp*", "sport", "hello"])));
    publish_until_heard(&mut publisher, "third");
    assert_eq!(third.read(), Reply::Push(message("message", &["third", "hello"])));
    assert!(!third.command(&["SET", "k", "1"]).is_error());
    stage.standin.finish();
}

#[test]
fn a_subscription_that_the_server_refused_does_not_come_back_after_a_failover() {
    let mut stage = Stage::start();
    let rule = ["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "resetchannels"];
    assert_eq!(stage.primary.command(&rule), Reply::ok());
    assert_eq!(stage.backup.command(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "&*"]), Reply::ok());
    let mut client = stage.connect();
    assert_eq!(client.command(&["AUTH", "app", "secret"]), Reply::ok());
    assert!(client.command(&["SUBSCRIBE", "a", "b"]).is_error_word("NOPERM"));
    stage.fail_over();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok(), "no subscriber, who may only listen");
    let mut other = stage.connect();
    assert_eq!(other.command(&["PUBLISH", "a", "hello"]), Reply::Integer(0));
    stage.standin.finish();
}

#[test]
fn a_blocking_pop_waits_without_stopping_others() {
    let stage = Stage::start();
    let (mut waiting, mut other) = (stage.connect(), stage.connect());
    waiting.send(&["BLPOP", "queue", "10"]);
    for round in 0..50 {
        assert_eq!(other.command(&["SET", "k", &round.to_string()]), Reply::ok());
    }
    assert_eq!(other.command(&["LPUSH", "queue", "job"]), Reply::Integer(1));
    assert_eq!(waiting.read(), Reply::Array(vec![Reply::bulk("queue"), Reply::bulk("job")]));
    assert_eq!(waiting.command(&["BLPOP", "queue", "0.05"]), Reply::Nil);
    assert_eq!(waiting.command(&["GET", "k"]), Reply::bulk("49"), "a usual session again");
    stage.standin.finish();
}

#[test]
fn a_client_that_leaves_while_it_blocks_takes_nothing() {
    let stage = Stage::start();
    let (mut leaving, mut other) = (stage.connect(), stage.connect());
    leaving.send(&["BLPOP", "queue", "0"]);
    eventually(secs(5), "the pop waits", || stage.primary.info("blocked_clients") == "1");
    drop(leaving);
    eventually(secs(5), "the pop is gone", || stage.primary.info("blocked_clients") == "0");
    other.command(&["LPUSH", "queue", "job"]);
    assert_eq!(other.command(&["LLEN", "queue"]), Reply::Integer(1), "nobody popped it");
    stage.standin.finish();
}

#[test]
fn a_client_that_leaves_with_much_sent_behind_a_blocking_command_takes_nothing() {
    let stage = Stage::start();
    let mut other = stage.connect();
    // Less and more than is read while it waits: the end of its stream is seen by reading, or told by the kernel.
    for requests in [100_000, 180_000] {
        let mut leaving = stage.connect();
        leaving.send(&["BLPOP", "queue", "0"]);
        eventually(secs(5), "the pop waits", || stage.primary.info("blocked_clients") == "1");
        leaving.send_raw("PING\r\n".repeat(requests).as_bytes());
        drop(leaving);
        eventually(secs(5), "the pop is gone", || stage.primary.info("blocked_clients") == "0");
        other.command(&["LPUSH", "queue", "job"]);
        assert_eq!(other.command(&["LPOP", "queue"]), Reply::bulk("job"), "nobody else popped it");
    }
    stage.standin.finish();
}

#[test]
fn a_blocking_pop_in_flight_when_the_primary_dies_is_answered_or_told_unknown() {
    let mut stage = Stage::start();
    let mut waiting = stage.connect();
    waiting.send(&["BLPOP", "queue", "30"]);
    eventually(secs(5), "the pop waits", || stage.primary.info("blocked_clients") == "1");
    stage.fail_over();
    let mut other = stage.connect();
    assert_eq!(other.command(&["LPUSH", "queue", "job"]), Reply::Integer(1));
    let reply = waiting.read();
    let is_popped = reply == Reply::Array(vec![Reply::bulk("queue"), Reply::bulk("job")]);
    // UNBLOCKED is what a server says itself when it turns into a replica.
    assert!(is_popped || reply.is_error_word("UNKNOWNOUTCOME") || reply.is_error_word("UNBLOCKED"), "{reply:?}");
    assert!(!waiting.command(&["GET", "k"]).is_error(), "the session goes on");
    stage.standin.finish();
}

#[test]
fn monitor_shows_what_others_do() {
    let stage = Stage::start();
    let (mut watching, mut other) = (stage.connect(), stage.connect());
    assert_eq!(watching.command(&["MONITOR"]), Reply::ok());
    assert_eq!(other.command(&["SET", "watched", "1"]), Reply::ok());
    loop {
        // Probes of Standin's own may come between.
        let line = watching.read().text();
        if line.contains("\"SET\" \"watched\" \"1\"") {
            break;
        }
    }
    drop(watching);
    assert_eq!(other.command(&["GET", "watched"]), Reply::bulk("1"));
    stage.standin.finish();
}

#[test]
fn a_selected_database_belongs_to_its_session_and_outlives_a_failover() {
    let mut stage = Stage::start();
    let (mut client, mut other) = (stage.connect(), stage.connect());
    assert_eq!(client.command(&["SELECT", "4"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "four"]), Reply::ok());
    assert_eq!(other.command(&["GET", "k"]), Reply::Nil, "another session is in database 0");
    assert!(client.command(&["SELECT", "99"]).is_error_word("ERR"));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("four"), "a refused SELECT changes nothing");
    stage.fail_over();
    assert_eq!(client.command(&["SET", "k", "again"]), Reply::ok());
    assert_eq!(other.command(&["GET", "k"]), Reply::Nil);
    let mut direct = stage.backup.connect();
    direct.command(&["SELECT", "4"]);
    assert_eq!(direct.command(&["GET", "k"]), Reply::bulk("again"));
    stage.standin.finish();
}

#[test]
fn databases_that_nobody_uses_any_more_cost_few_connections() {
    let stage = Stage::start();
    assert_eq!(stage.primary.command(&["CONFIG", "GET", "databases"]).elements()[1], Reply::bulk("16"));
    let mut client = stage.connect();
    // More logins than links are kept for, each in several databases.
    for user in 0..20 {
        let name = format!("user-{user}");
        assert_eq!(stage.primary.command(&["ACL", "SETUSER", &name, "on", ">secret", "~*", "+@all"]), Reply::ok());
        assert_eq!(client.command(&["AUTH", &name, "secret"]), Reply::ok());
        for database in 0..8 {
            assert_eq!(client.command(&["SELECT", &database.to_string()]), Reply::ok());
            assert_eq!(client.command(&["SET", "k", &name]), Reply::ok());
        }
    }
    let connections = || stage.primary.info("connected_clients").parse::<usize>().unwrap();
    eventually(secs(5), "the idle ones are closed", || connections() < 80);
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("user-19"));
    stage.standin.finish();
}

#[test]
fn a_pipeline_across_a_select_keeps_its_order() {
    let stage = Stage::start();
    let mut client = stage.connect();
    for round in 0..200 {
        let (database, value) = ((round % 3).to_string(), round.to_string());
        client.send(&["SELECT", &database]);
        client.send(&["SET", "k", &value]);
        client.send(&["GET", "k"]);
    }
    for round in 0..200 {
        assert_eq!(client.read(), Reply::ok());
        assert_eq!(client.read(), Reply::ok());
        assert_eq!(client.read(), Reply::bulk(&round.to_string()));
    }
    stage.standin.finish();
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|part| part.strip_prefix(&format!("{name}=")))
}

#[test]
fn client_commands_act_on_the_front_doors_own_clients() {
    let stage = Stage::start();
    let (mut first, mut second) = (stage.connect(), stage.connect());
    let (first_id, second_id) =
        (first.command(&["CLIENT", "ID"]).integer(), second.command(&["CLIENT", "ID"]).integer());
    assert!(second_id > first_id, "ids grow");
    assert_eq!(first.command(&["CLIENT", "SETNAME", "first"]), Reply::ok());
    assert_eq!(second.command(&["CLIENT", "GETNAME"]).text(), "");
    let list = second.command(&["CLIENT", "LIST"]).text();
    let line = list.lines().find(|line| field(line, "name") == Some("first")).expect("the list names it");
    assert_eq!(field(line, "id"), Some(first_id.to_string().as_str()));
    assert!(first.command(&["CLIENT", "INFO"]).text().contains(&format!("id={first_id} ")));
    assert_eq!(second.command(&["CLIENT", "KILL", "ID", &first_id.to_string()]), Reply::Integer(1));
    assert!(first.is_closed_by_peer());
    assert_eq!(second.command(&["CLIENT", "KILL", "ID", &first_id.to_string()]), Reply::Integer(0));
    assert_eq!(second.command(&["CLIENT", "NO-EVICT", "ON"]), Reply::ok());
    stage.standin.finish();
}

#[test]
fn a_blocked_client_can_be_unblocked() {
    let stage = Stage::start();
    let (mut waiting, mut other) = (stage.connect(), stage.connect());
    let id = waiting.command(&["CLIENT", "ID"]).integer().to_string();
    waiting.send(&["BLPOP", "queue", "0"]);
    eventually(secs(5), "the pop waits", || stage.primary.info("blocked_clients") == "1");
    assert_eq!(other.command(&["CLIENT", "UNBLOCK", &id]), Reply::Integer(1));
    assert_eq!(waiting.read(), Reply::Nil);
    waiting.send(&["BLPOP", "queue", "0"]);
    eventually(secs(5), "the pop waits", || stage.primary.info("blocked_clients") == "1");
    assert_eq!(other.command(&["CLIENT", "UNBLOCK", &id, "ERROR"]), Reply::Integer(1));
    assert!(waiting.read().is_error_word("UNBLOCKED"));
    assert_eq!(other.command(&["CLIENT", "UNBLOCK", &id]), Reply::Integer(0));
    stage.standin.finish();
}

#[test]
fn replies_can_be_turned_off_and_skipped() {
    let stage = Stage::start();
    let mut client = stage.connect();
    client.send(&["CLIENT", "REPLY", "OFF"]);
    client.send(&["SET", "k", "1"]);
    client.send(&["GET", "k"]);
    assert_eq!(client.command(&["CLIENT", "REPLY", "ON"]), Reply::ok());
    client.send(&["CLIENT", "REPLY", "SKIP"]);
    client.send(&["SET", "k", "2"]);
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    stage.standin.finish();
}

#[test]
fn silence_within_pipelines_falls_on_the_right_requests() {
    let stage = Stage::start();
    let mut client = stage.connect();
    // Plain requests, requests answered here and transactions: whatever answers, what is to be silent is.
    client.send_raw(
        b"SET k 1\r\nCLIENT REPLY SKIP\r\nINCR k\r\nGET k\r\n\
          CLIENT REPLY SKIP\r\nCLIENT ID\r\nCLIENT REPLY SKIP\r\nNOSUCHTHING\r\nECHO a\r\n\
          CLIENT REPLY OFF\r\nINCR k\r\nMULTI\r\nINCR k\r\nEXEC\r\nSELECT 1\r\nSET k other\r\nSELECT 0\r\n\
          CLIENT REPLY ON\r\nGET k\r\nPING\r\n",
    );
    assert_eq!(client.read(), Reply::ok());
    assert_eq!(client.read(), Reply::bulk("2"));
    assert_eq!(client.read(), Reply::bulk("a"));
    assert_eq!(client.read(), Reply::ok());
    assert_eq!(client.read(), Reply::bulk("4"));
    assert_eq!(client.read(), Reply::Simple("PONG".to_owned()));
    stage.standin.finish();
}

#[test]
fn reset_and_quit_end_what_a_session_was() {
    let stage = Stage::start();
    let mut client = stage.standin.connect_resp3();
    client.command(&["SELECT", "2"]);
    client.command(&["CLIENT", "SETNAME", "me"]);
    client.command(&["MULTI"]);
    assert_eq!(client.command(&["RESET"]), Reply::Simple("RESET".to_owned()));
    assert_eq!(client.command(&["CLIENT", "GETNAME"]).text(), "");
    assert_eq!(client.command(&["SET", "k", "zero"]), Reply::ok(), "no longer in MULTI");
    assert_eq!(stage.primary.command(&["GET", "k"]), Reply::bulk("zero"), "back in database 0");
    client.command(&["HSET", "h", "f", "v"]);
    assert!(matches!(client.command(&["HGETALL", "h"]), Reply::Array(_)), "back in RESP2");
    assert_eq!(client.command(&["QUIT"]), Reply::ok());
    assert!(client.is_closed_by_peer());
    stage.standin.finish();
}

#[test]
fn scripts_loaded_before_a_failover_are_known_after_it() {
    let mut stage = Stage::start();
    let mut client = stage.connect();
    let digest = client.command(&["SCRIPT", "LOAD", "return ARGV[1]"]).text();
    assert_eq!(client.command(&["EVALSHA", &digest, "0", "a"]), Reply::bulk("a"));
    let library = "#!lua name=mylib\nredis.register_function('echo', function(keys, args) return args[1] end)";
    assert_eq!(client.command(&["FUNCTION", "LOAD", library]), Reply::bulk("mylib"));
    stage.fail_over();
    assert_eq!(client.command(&["EVALSHA", &digest, "0", "b"]), Reply::bulk("b"));
    assert_eq!(client.command(&["FCALL", "echo", "0", "c"]), Reply::bulk("c"));
    stage.standin.finish();
}

#[test]
fn a_scan_sees_every_key_once_or_more() {
    let stage = Stage::start();
    let mut client = stage.connect();
    for at in 0..500 {
        client.send(&["SET", &format!("scan:{at}"), "x"]);
    }
    for _ in 0..500 {
        client.read();
    }
    let (mut cursor, mut seen) = ("0".to_owned(), std::collections::HashSet::new());
    loop {
        let page = client.command(&["SCAN", &cursor, "MATCH", "scan:*"]);
        seen.extend(page.elements()[1].elements().iter().map(Reply::text));
        cursor = page.elements()[0].text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 500);
    stage.standin.finish();
}

#[test]
fn tracking_clients_are_told_to_forget_everything_on_a_failover() {
    let mut stage = Stage::start();
    let (mut tracking, mut other) = (stage.standin.connect_resp3(), stage.connect());
    assert_eq!(tracking.command(&["CLIENT", "TRACKING", "ON"]), Reply::ok());
    other.command(&["SET", "k", "1"]);
    assert_eq!(tracking.command(&["GET", "k"]), Reply::bulk("1"));
    other.command(&["SET", "k", "2"]);
    let invalidated = Reply::Push(vec![Reply::bulk("invalidate"), Reply::Array(vec![Reply::bulk("k")])]);
    assert_eq!(tracking.read(), invalidated);
    stage.fail_over();
    tracking.set_read_timeout(secs(3));
    assert_eq!(tracking.read(), Reply::Push(vec![Reply::bulk("invalidate"), Reply::Nil]), "everything is forgotten");
    stage.standin.finish();
}

/// A client of RESP2 that hears of invalidated keys on its channel, and one that tracks and redirects to it.
fn redirecting(standin: &StandinProcess) -> (Client, Client) {
    // One after the other: with two workers each has its own.
    let mut listener = standin.connect();
    let id = listener.command(&["CLIENT", "ID"]).text();
    let mut tracker = standin.connect();
    assert_eq!(tracker.command(&["PING"]).text(), "PONG");
    listener.send(&["SUBSCRIBE", "__redis__:invalidate"]);
    assert_eq!(listener.read().elements()[2], Reply::Integer(1));
    assert_eq!(tracker.command(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id]), Reply::ok());
    assert_eq!(tracker.command(&["CLIENT", "GETREDIR"]).text(), id);
    (listener, tracker)
}

fn invalidated(keys: Reply) -> Reply {
    Reply::Array(vec![Reply::bulk("message"), Reply::bulk("__redis__:invalidate"), keys])
}

#[test]
fn invalidation_messages_are_redirected_to_a_client_of_another_worker() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).table("[workers]\ncount = 2").start();
    for _ in 0..4 {
        let (mut listener, mut tracker) = redirecting(&standin);
        tracker.command(&["GET", "k"]);
        standin.connect().command(&["SET", "k", "1"]);
        assert_eq!(listener.read(), invalidated(Reply::Array(vec![Reply::bulk("k")])));
    }
    standin.finish();
}

#[test]
fn redirected_invalidation_goes_on_after_a_failover_and_after_either_connection_was_lost() {
    let mut stage = Stage::start();
    stage.standin.declare(&["link", "connection"]);
    let (mut listener, mut tracker) = redirecting(&stage.standin);
    listener.set_read_timeout(secs(5));
    // The next message about a key, behind any that say to forget everything; the key is read and written until it comes.
    let mut hears = |stage: &Stage, key: &str| {
        let mut writer = stage.connect();
        let mut forgot = false;
        listener.set_read_timeout(ms(100));
        eventually(secs(5), "the listener hears of a key", || {
            tracker.command(&["GET", key]);
            writer.command(&["SET", key, "1"]);
            match listener.try_read() {
                Ok(message) if message == invalidated(Reply::Array(vec![Reply::bulk(key)])) => true,
                Ok(message) => {
                    forgot |= message == invalidated(Reply::Nil);
                    false
                }
                Err(_) => false,
            }
        });
        forgot
    };
    assert!(!hears(&stage, "a"));
    stage.fail_over();
    assert!(hears(&stage, "b"), "everything was to be forgotten");
    // Both connections were replaced, each when its loss was seen.
    eventually(secs(5), "there is an end to forgetting", || !hears(&stage, "c"));
    stage.backup.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert!(hears(&stage, "d"), "everything was to be forgotten");
    stage.backup.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(hears(&stage, "e"), "everything was to be forgotten");
    stage.standin.finish();
}

#[test]
fn wait_does_not_lie() {
    let stage = Stage::start();
    let mut client = stage.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    let start = std::time::Instant::now();
    assert_eq!(client.command(&["WAIT", "1", "200"]), Reply::Integer(0), "there is no replica");
    assert!(start.elapsed() >= ms(180), "it did wait: {:?}", start.elapsed());
    stage.standin.finish();
}

#[test]
fn wait_counts_the_writes_that_its_client_sent_before_it_over_other_connections() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    let port = primary.address().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    eventually(secs(10), "it is in step", || replica.info("master_link_status") == "up");
    let standin = StandinConfig::new().primary(primary.address()).start();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(client.command(&["WAIT", "1", "5000"]), Reply::Integer(1));
    // The SET goes over the shared connection, on which the one of WAIT knows nothing.
    replica.freeze();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    assert_eq!(client.command(&["WAIT", "1", "300"]), Reply::Integer(0), "the replica cannot have it");
    replica.thaw();
    assert_eq!(client.command(&["WAIT", "1", "5000"]), Reply::Integer(1));
    standin.finish();
}

#[test]
fn what_was_queued_again_on_the_backup_is_not_shown_old_after_the_recovery() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::quick_pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "old"]), Reply::ok());
    client.command(&["MULTI"]);
    assert_eq!(client.command(&["SET", "k", "new"]), queued());
    primary.freeze();
    standin.wait_until_active("backup-a", secs(5));
    assert_eq!(client.command(&["EXEC"]), Reply::Array(vec![Reply::ok()]));
    primary.thaw();
    standin.wait_until_active("primary", secs(20));
    assert_ne!(client.command(&["GET", "k"]), Reply::bulk("old"));
    standin.finish();
}

#[test]
fn a_connection_that_subscribed_inside_a_transaction_is_not_used_by_others() {
    let stage = Stage::start();
    let mut first = stage.connect();
    first.command(&["MULTI"]);
    assert_eq!(first.command(&["SUBSCRIBE", "ch"]), queued());
    first.send(&["EXEC"]);
    std::thread::sleep(ms(100)); // the reply's shape is the server's own affair; the connection is given back after it
    let mut second = stage.connect();
    assert_eq!(second.command(&["WATCH", "k"]), Reply::ok());
    assert_eq!(second.command(&["MULTI"]), Reply::ok());
    assert_eq!(second.command(&["GET", "k"]), queued());
    assert_eq!(second.command(&["EXEC"]), Reply::Array(vec![Reply::Nil]));
    stage.standin.finish();
}

#[test]
fn in_resp3_a_list_that_looks_like_a_message_is_a_reply() {
    let stage = Stage::start();
    let mut client = stage.standin.connect_resp3();
    client.send(&["SUBSCRIBE", "ch"]);
    client.read();
    client.command(&["RPUSH", "l", "message", "x"]);
    assert_eq!(client.command(&["LRANGE", "l", "0", "-1"]).elements().len(), 2);
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    stage.standin.finish();
}

#[test]
fn commands_about_the_client_itself_are_queued_in_a_transaction_and_answered_by_exec() {
    let primary = RedisServer::start();
    let standin = StandinConfig::new().primary(primary.address()).start();
    let mut client = standin.connect();
    let id = client.command(&["CLIENT", "ID"]);
    let queued =
        |client: &mut Client, request: &[&str]| assert_eq!(client.command(request).text(), "QUEUED", "{request:?}");
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    for request in [
        &["SET", "k", "1"][..],
        &["AUTH", "unasked"],
        &["CLIENT", "SETNAME", "inside"],
        &["CLIENT", "GETNAME"],
        &["CLIENT", "ID"],
        &["HELLO", "9"],
        &["GET", "k"],
    ] {
        queued(&mut client, request);
    }
    let Reply::Array(replies) = client.command(&["EXEC"]) else { panic!("EXEC answers with an array") };
    assert_eq!(replies[0], Reply::ok());
    assert!(replies[1].text().starts_with("ERR AUTH <password> called without any password"), "{replies:?}");
    assert_eq!(replies[2..5], [Reply::ok(), Reply::bulk("inside"), id.clone()]);
    assert!(replies[5].is_error_word("NOPROTO"), "{replies:?}");
    assert_eq!(replies[6], Reply::bulk("1"));
    assert_eq!(client.command(&["CLIENT", "GETNAME"]), Reply::bulk("inside"));
    // HELLO changes the form of what follows it, the array around it excepted.
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    for request in [&["HGETALL", "none"][..], &["HELLO", "3"], &["HGETALL", "none"]] {
        queued(&mut client, request);
    }
    let Reply::Array(replies) = client.command(&["EXEC"]) else { panic!("EXEC answers with an array") };
    assert_eq!(replies[0], Reply::Array(Vec::new()));
    assert_eq!(replies[1].field("proto"), Some(&Reply::Integer(3)));
    assert_eq!(replies[1].field("id"), Some(&id), "the client's id, and not that of the connection behind");
    assert_eq!(replies[2], Reply::Map(Vec::new()));
    assert_eq!(client.command(&["HGETALL", "none"]), Reply::Map(Vec::new()), "RESP3 from here on");
    // A wrong number of arguments is refused at once, and the transaction with it.
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    assert!(client.command(&["AUTH"]).is_error());
    assert!(client.command(&["EXEC"]).is_error_word("EXECABORT"));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    standin.finish();
}

#[test]
fn a_login_in_a_transaction_is_judged_by_the_front_door_when_exec_comes() {
    if support::under_test_is_direct() {
        return;
    }
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), backup.address()).listen_keys("password = \"secret\"");
    let mut standin = config.start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert!(client.command(&["MULTI"]).is_error_word("NOAUTH"));
    assert_eq!(client.command(&["AUTH", "secret"]), Reply::ok());
    for fails_over in [false, true] {
        assert_eq!(client.command(&["MULTI"]), Reply::ok());
        for request in [&["AUTH", "wrong"][..], &["SET", "k", "1"], &["AUTH", "secret"], &["GET", "k"]] {
            assert_eq!(client.command(request).text(), "QUEUED");
        }
        if fails_over {
            primary.kill();
        }
        let Reply::Array(replies) = client.command(&["EXEC"]) else { panic!("EXEC answers with an array") };
        assert!(replies[0].is_error_word("WRONGPASS"), "{replies:?}");
        assert_eq!(replies[1..], [Reply::ok(), Reply::ok(), Reply::bulk("1")]);
    }
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    standin.finish();
}
