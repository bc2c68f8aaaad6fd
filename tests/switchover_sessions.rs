//! What belongs to one client comes through a planned switchover, and what cannot is said.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms, secs};

struct Stage {
    primary: RedisServer,
    backup: RedisServer,
    standin: StandinProcess,
}

impl Stage {
    fn start() -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let standin = StandinConfig::pair(primary.address(), backup.address()).start();
        Self { primary, backup, standin }
    }

    #[track_caller]
    fn switch_over(&self) {
        let answer = self.standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "drain"}));
        assert_eq!(answer.code, 200, "{answer:?}");
    }
}

fn queued() -> Reply {
    Reply::Simple("QUEUED".to_owned())
}

#[test]
fn database_name_and_protocol_of_a_session_are_those_from_before() {
    let stage = Stage::start();
    let (mut second, mut third) = (stage.standin.connect(), stage.standin.connect_resp3());
    second.command(&["SELECT", "4"]);
    second.command(&["CLIENT", "SETNAME", "worker"]);
    third.command(&["HSET", "h", "f", "v"]);
    stage.switch_over();
    assert_eq!(second.command(&["SET", "k", "four"]), Reply::ok());
    assert_eq!(second.command(&["CLIENT", "GETNAME"]).text(), "worker");
    third.command(&["HSET", "h", "f", "v"]);
    assert!(matches!(third.command(&["HGETALL", "h"]), Reply::Map(_)), "still RESP3");
    let mut direct = stage.backup.connect();
    direct.command(&["SELECT", "4"]);
    assert_eq!(direct.command(&["GET", "k"]), Reply::bulk("four"));
    stage.standin.finish();
}

#[test]
fn a_watch_across_a_switchover_lets_exec_answer_nil() {
    let stage = Stage::start();
    let mut client = stage.standin.connect();
    assert_eq!(client.command(&["WATCH", "k"]), Reply::ok());
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "1"]), queued());
    stage.switch_over();
    assert_eq!(client.command(&["EXEC"]), Reply::Nil);
    assert_eq!(stage.backup.command(&["GET", "k"]), Reply::Nil);
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok(), "the session goes on");
    stage.standin.finish();
}

#[test]
fn subscriptions_go_on_and_tracking_clients_are_told_to_forget_everything() {
    let stage = Stage::start();
    let (mut subscriber, mut tracking) = (stage.standin.connect(), stage.standin.connect_resp3());
    subscriber.command(&["SUBSCRIBE", "news"]);
    assert_eq!(tracking.command(&["CLIENT", "TRACKING", "ON"]), Reply::ok());
    tracking.command(&["GET", "k"]);
    stage.switch_over();
    assert_eq!(tracking.read(), Reply::Push(vec![Reply::bulk("invalidate"), Reply::Nil]));
    let mut publisher = stage.standin.connect();
    eventually(secs(5), "it is subscribed", || publisher.command(&["PUBLISH", "news", "x"]).integer() == 1);
    assert_eq!(subscriber.read(), Reply::Array(["message", "news", "x"].map(Reply::bulk).to_vec()));
    stage.standin.finish();
}

#[test]
fn a_script_is_known_to_the_next_backend_before_the_first_request() {
    let stage = Stage::start();
    let mut client = stage.standin.connect();
    let sha = client.command(&["SCRIPT", "LOAD", "return 7"]).text();
    stage.switch_over();
    assert_eq!(client.command(&["EVALSHA", &sha, "0"]), Reply::Integer(7));
    stage.standin.finish();
}

/// Blocks, switches over after a second, and gives back how long the client waited in all.
fn blocked_across_a_switchover(stage: &Stage, request: &[&str]) -> (Reply, Duration) {
    let mut waiting = stage.standin.connect();
    let began = Instant::now();
    waiting.send(request);
    eventually(secs(5), "it waits", || stage.primary.info("blocked_clients") == "1");
    std::thread::sleep(secs(1).saturating_sub(began.elapsed()));
    stage.switch_over();
    eventually(secs(5), "it waits there", || stage.backup.info("blocked_clients") == "1");
    (waiting.read(), began.elapsed())
}

#[test]
fn a_blocked_client_waits_on_the_next_backend_for_the_time_it_has_left() {
    for request in [["BLPOP", "queue", "2"].as_slice(), &["XREAD", "BLOCK", "2000", "STREAMS", "s", "$"]] {
        let stage = Stage::start();
        let (reply, waited) = blocked_across_a_switchover(&stage, request);
        assert_eq!(reply, Reply::Nil, "{request:?}");
        assert!((ms(1_900)..ms(2_600)).contains(&waited), "{request:?} waited {waited:?}");
        stage.standin.finish();
    }
}

#[test]
fn what_is_pushed_after_a_switchover_reaches_a_client_that_blocked_before_it() {
    let stage = Stage::start();
    let mut waiting = stage.standin.connect();
    waiting.send(&["BLPOP", "queue", "30"]);
    eventually(secs(5), "it waits", || stage.primary.info("blocked_clients") == "1");
    stage.switch_over();
    eventually(secs(5), "it waits there", || stage.backup.info("blocked_clients") == "1");
    assert_eq!(stage.standin.connect().command(&["LPUSH", "queue", "job"]), Reply::Integer(1));
    assert_eq!(waiting.read(), Reply::Array(vec![Reply::bulk("queue"), Reply::bulk("job")]));
    stage.standin.finish();
}

#[test]
fn a_blocked_read_of_a_stream_moves_also_when_the_primary_dies() {
    let mut stage = Stage::start();
    stage.standin.declare(PRIMARY_LOST);
    let mut waiting = stage.standin.connect();
    waiting.send(&["XREAD", "BLOCK", "30000", "STREAMS", "s", "$"]);
    eventually(secs(5), "it waits", || stage.primary.info("blocked_clients") == "1");
    stage.primary.kill();
    stage.standin.wait_until_active("backup-a", secs(5));
    eventually(secs(5), "it waits there", || stage.backup.info("blocked_clients") == "1");
    stage.standin.connect().command(&["XADD", "s", "*", "f", "v"]);
    assert!(matches!(waiting.read(), Reply::Array(streams) if streams.len() == 1));
    stage.standin.finish();
}

/// Scans from a cursor to the end; the keys that were seen.
fn scan(client: &mut Client, mut cursor: String) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    loop {
        let reply = client.command(&["SCAN", &cursor, "COUNT", "50"]);
        assert!(!reply.is_error(), "{reply:?}");
        seen.extend(reply.elements()[1].elements().iter().map(Reply::text));
        cursor = reply.elements()[0].text();
        if cursor == "0" {
            return seen;
        }
    }
}

fn fill(client: &mut Client) {
    let mut words = vec!["MSET".to_owned()];
    words.extend((0..1_000).flat_map(|n| [format!("k:{n}"), "v".to_owned()]));
    assert_eq!(client.command(&words), Reply::ok());
}

#[test]
fn a_scan_across_a_switchover_is_refused_and_begins_again_whole() {
    let stage = Stage::start();
    let mut client = stage.standin.connect();
    fill(&mut client);
    assert_eq!(scan(&mut client, "0".to_owned()).len(), 1_000);
    let cursor = client.command(&["SCAN", "0", "COUNT", "50"]).elements()[0].text();
    let hash: Vec<String> = (0..1_000).map(|n| format!("f{n}")).collect();
    let mut words = vec!["HSET".to_owned(), "h".to_owned()];
    words.extend(hash.iter().flat_map(|field| [field.clone(), "v".to_owned()]));
    client.command(&words);
    let in_hash = client.command(&["HSCAN", "h", "0"]).elements()[0].text();
    stage.switch_over();
    fill(&mut client);
    let mut other = stage.standin.connect();
    for refused in [other.command(&["SCAN", &cursor]), client.command(&["HSCAN", "h", &in_hash])] {
        assert!(refused.is_error_word("ERR") && format!("{refused:?}").contains("begin again"), "{refused:?}");
    }
    assert_eq!(scan(&mut client, "0".to_owned()).len(), 1_000, "with cursors of the backend that serves now");
    client.command(&["MULTI"]);
    assert!(client.command(&["SCAN", &cursor]).is_error_word("ERR"));
    assert!(client.command(&["EXEC"]).is_error_word("EXECABORT"));
    stage.standin.finish();
}

/// Whom the server takes the client for, and that it keeps to that user's rights.
#[track_caller]
fn acts_as_reader(client: &mut Client, when: &str) {
    assert_eq!(client.command(&["ACL", "WHOAMI"]), Reply::bulk("reader"), "{when}");
    assert!(client.command(&["SET", "k", "denied"]).is_error_word("NOPERM"), "{when}: a reader wrote");
    assert!(client.command(&["SUBSCRIBE", "secret"]).is_error_word("NOPERM"), "{when}: a reader listens to everything");
    assert!(!client.command(&["GET", "k"]).is_error(), "{when}");
}

/// A client that only reads, one with a connection of its own, and one that listens.
fn readers(standin: &StandinProcess, [user, secret]: [&str; 2]) -> [Client; 3] {
    let [mut plain, mut watching, mut listening] = [0; 3].map(|_| standin.connect());
    for client in [&mut plain, &mut watching, &mut listening] {
        assert!(matches!(client.command(&["HELLO", "3", "AUTH", user, secret]), Reply::Map(_)));
    }
    assert_eq!(watching.command(&["WATCH", "k"]), Reply::ok());
    assert!(matches!(listening.command(&["SUBSCRIBE", "news"]), Reply::Push(_)));
    [plain, watching, listening]
}

/// Through a planned switch, the way back, and the death of the primary.
fn readers_stay_readers(config: impl FnOnce(StandinConfig) -> StandinConfig, [user, secret]: [&str; 2]) {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    for server in [&primary, &backup] {
        let rights =
            ["~*", "resetchannels", "&news", "+@read", "+@pubsub", "+@connection", "+@transaction", "+acl|whoami"];
        let mut rule = vec!["ACL", "SETUSER", "reader", "on", ">reader-secret"];
        rule.extend(rights);
        assert_eq!(server.command(&rule), Reply::ok());
    }
    let pair = StandinConfig::pair(primary.address(), backup.address()).table("[recovery]\nenabled = false");
    let mut standin = config(pair).start();
    standin.declare(PRIMARY_LOST);
    let mut clients = readers(&standin, [user, secret]);
    let mut check = |when: &str| clients.iter_mut().for_each(|client| acts_as_reader(client, when));
    check("before");
    assert_eq!(standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "drain"})).code, 200);
    check("on the backup");
    let mut publisher = standin.connect();
    if user == "app" {
        assert_eq!(publisher.command(&["AUTH", "main"]), Reply::ok());
    }
    assert_eq!(publisher.command(&["PUBLISH", "news", "x"]), Reply::Integer(1));
    assert_eq!(publisher.command(&["ACL", "WHOAMI"]), Reply::bulk("default"), "nobody else is taken for a reader");
    assert_eq!(standin.post("/v1/recover", &json!({"plan": "drain"})).code, 200);
    assert_eq!(publisher.command(&["PUBLISH", "news", "y"]), Reply::Integer(1));
    let [plain, watching, listening] = &mut clients;
    let mut hears =
        |said| assert_eq!(listening.read(), Reply::Push(["message", "news", said].map(Reply::bulk).to_vec()));
    // Before the kill: a server may die between its reply to the publisher and the message.
    hears("x");
    hears("y");
    primary.kill();
    standin.wait_until_active("backup-a", secs(5));
    eventually(secs(5), "it listens", || publisher.command(&["PUBLISH", "news", "z"]) == Reply::Integer(1));
    hears("z");
    for client in [plain, watching, listening] {
        acts_as_reader(client, "after the primary has died");
    }
    standin.finish();
}

#[test]
fn a_user_of_the_front_door_acts_as_its_backend_user_on_whichever_backend_serves() {
    let users = "password = \"main\"\n[[listen.users]]\nname = \"app\"\npassword = \"app-secret\"\n\
                 backend_username = \"reader\"\nbackend_password = \"reader-secret\"\n";
    readers_stay_readers(|config| config.listen_keys(users), ["app", "app-secret"]);
}

#[test]
fn a_user_whom_the_server_has_judged_acts_as_that_user_on_whichever_backend_serves() {
    readers_stay_readers(|config| config, ["reader", "reader-secret"]);
}

#[test]
fn a_cursor_from_before_a_restart_of_standin_goes_on_where_it_was_given_and_is_refused_elsewhere() {
    let mut stage = Stage::start();
    stage.standin.declare(PRIMARY_LOST);
    let cursor_of = |standin: &StandinProcess| {
        let mut client = standin.connect();
        fill(&mut client);
        client.command(&["SCAN", "0", "COUNT", "50"]).elements()[0].text()
    };
    let first = cursor_of(&stage.standin);
    let before: BTreeSet<String> = {
        let page = stage.standin.connect().command(&["SCAN", "0", "COUNT", "50"]);
        page.elements()[1].elements().iter().map(Reply::text).collect()
    };
    stage.standin.kill();
    stage.standin.start_again();
    stage.standin.wait_until_ready();
    let rest = scan(&mut stage.standin.connect(), first.clone());
    assert_eq!(before.union(&rest).count(), 1_000, "on the same server it goes on");
    stage.primary.kill();
    stage.standin.wait_until_active("backup-a", secs(5));
    let second = cursor_of(&stage.standin);
    stage.standin.kill();
    stage.standin.start_again();
    stage.standin.wait_until_ready();
    assert_eq!((stage.standin.active().as_str(), stage.standin.epoch()), ("backup-a", 1));
    let mut client = stage.standin.connect();
    for cursor in [first, second] {
        let refused = client.command(&["SCAN", &cursor]);
        assert!(refused.is_error_word("ERR") && format!("{refused:?}").contains("begin again"), "{refused:?}");
    }
    assert_eq!(scan(&mut client, "0".to_owned()).len(), 1_000);
    stage.standin.finish();
}
