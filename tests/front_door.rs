//! One endpoint that answers as a Redis server does: bytes, limits and rights. `front_door_sessions.rs` has the sessions.
//!
//! What does not speak of Standin's own limits also passes against a plain server (`STANDIN_UNDER_TEST=direct`).
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::time::{Duration, Instant};

use support::{
    Client, Fault, FaultRelay, RedisServer, Reply, StandinConfig, StandinProcess, encode, eventually, ms, secs,
};

/// One server behind Standin, with a backup that is never needed.
struct Stage {
    primary: RedisServer,
    _backup: RedisServer,
    standin: StandinProcess,
}

impl Stage {
    fn start() -> Self {
        Self::start_with(|config| config)
    }

    fn start_with(adapt: impl FnOnce(StandinConfig) -> StandinConfig) -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let mut standin = adapt(StandinConfig::pair(primary.address(), backup.address())).start();
        // A server that moves 64 MiB answers probes more slowly, and that is said.
        standin.declare(&["is degraded: probes take"]);
        Self { primary, _backup: backup, standin }
    }

    fn connect(&self) -> Client {
        self.standin.connect()
    }
}

#[test]
fn a_pipeline_of_ten_thousand_is_answered_in_order() {
    const DEPTH: usize = 10_000;
    let stage = Stage::start();
    let mut client = stage.connect();
    let mut writer = client.writer();
    let mut bytes = Vec::new();
    for at in 0..DEPTH {
        // Reads, writes, local commands and errors mixed: whatever answers, the order is the client's.
        match at % 5 {
            0 => write!(bytes, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{at}\r\n", at.to_string().len()).unwrap(),
            1 => bytes.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"),
            2 => write!(bytes, "*2\r\n$4\r\nECHO\r\n${}\r\n{at}\r\n", at.to_string().len()).unwrap(),
            3 => bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n"),
            _ => bytes.extend_from_slice(b"*1\r\n$11\r\nNOSUCHTHING\r\n"),
        }
    }
    let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    for at in 0..DEPTH {
        let reply = client.read();
        match at % 5 {
            0 => assert_eq!(reply, Reply::ok()),
            1 => assert_eq!(reply, Reply::bulk(&(at - 1).to_string())),
            2 => assert_eq!(reply, Reply::bulk(&at.to_string())),
            3 => assert_eq!(reply, Reply::Simple("PONG".to_owned())),
            _ => assert!(reply.is_error_word("ERR"), "{reply:?}"),
        }
    }
    writing.join().unwrap();
    stage.standin.finish();
}

#[test]
fn hello_switches_the_protocol_back_and_forth() {
    let stage = Stage::start();
    let mut client = stage.connect();
    client.command(&["HSET", "h", "field", "value"]);
    assert!(matches!(client.command(&["HGETALL", "h"]), Reply::Array(_)));
    let hello = client.command(&["HELLO", "3"]);
    assert_eq!(hello.field("proto"), Some(&Reply::Integer(3)), "{hello:?}");
    assert_eq!(hello.field("server"), Some(&Reply::bulk("redis")), "{hello:?}");
    assert!(matches!(client.command(&["HGETALL", "h"]), Reply::Map(_)));
    assert!(matches!(client.command(&["HELLO", "2"]), Reply::Array(_)));
    assert!(matches!(client.command(&["HGETALL", "h"]), Reply::Array(_)));
    assert!(client.command(&["HELLO", "4"]).is_error_word("NOPROTO"));
    assert!(matches!(client.command(&["HELLO", "3", "SETNAME", "me"]), Reply::Map(_)));
    assert_eq!(client.command(&["CLIENT", "GETNAME"]), Reply::bulk("me"));
    stage.standin.finish();
}

#[test]
fn two_sessions_of_different_protocols_do_not_see_each_others() {
    let stage = Stage::start();
    let (mut second, mut third) = (stage.connect(), stage.standin.connect_resp3());
    for round in 0..50 {
        let field = round.to_string();
        assert!(!second.command(&["HSET", "h", &field, "v"]).is_error());
        assert!(matches!(second.command(&["HGETALL", "h"]), Reply::Array(_)));
        assert!(matches!(third.command(&["HGETALL", "h"]), Reply::Map(_)));
    }
    stage.standin.finish();
}

#[test]
fn inline_commands_are_understood() {
    let stage = Stage::start();
    let mut client = stage.connect();
    client.send_raw(b"PING\r\nSET inline \"a \\x41 b\"\r\nGET inline\r\n\r\nECHO 'single quoted'\n");
    assert_eq!(client.read(), Reply::Simple("PONG".to_owned()));
    assert_eq!(client.read(), Reply::ok());
    assert_eq!(client.read(), Reply::bulk("a A b"));
    assert_eq!(client.read(), Reply::bulk("single quoted"));
    stage.standin.finish();
}

#[test]
fn a_request_in_one_byte_pieces_is_one_request() {
    let stage = Stage::start();
    let mut client = stage.connect();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n" {
        client.send_raw(&[*byte]);
    }
    assert_eq!(client.read(), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("value"));
    stage.standin.finish();
}

#[test]
fn malformed_input_gets_a_protocol_error_and_a_close_and_hurts_nobody_else() {
    let stage = Stage::start();
    let mut other = stage.connect();
    for bytes in [
        &b"*1\r\n+PING\r\n"[..],
        b"*1\r\n$-5\r\n",
        b"*1\r\n$abc\r\nPING\r\n",
        b"*99999999999\r\n",
        b"*abc\r\n",
        b"*1\r\n$99999999999\r\n",
        b"SET \"unbalanced\r\n",
    ] {
        let mut client = stage.connect();
        client.send_raw(bytes);
        let reply = client.read();
        let text = reply.text();
        assert!(text.starts_with("ERR Protocol error: "), "{:?}: {reply:?}", String::from_utf8_lossy(bytes));
        assert!(client.is_closed_by_peer(), "{:?} left the connection open", String::from_utf8_lossy(bytes));
        assert!(!other.command(&["PING"]).is_error());
    }
    stage.standin.finish();
}

#[test]
fn an_inline_line_without_an_end_is_refused() {
    let stage = Stage::start();
    let mut client = stage.connect();
    // It may be closed before all of it is written.
    let _ = client.try_send_raw(&b"x".repeat(70 * 1024));
    assert!(client.read().text().starts_with("ERR Protocol error: "));
    assert!(client.is_closed_by_peer());
    stage.standin.finish();
}

#[test]
fn requests_before_malformed_input_are_still_answered() {
    let stage = Stage::start();
    let mut client = stage.connect();
    client.send_raw(b"*2\r\n$4\r\nECHO\r\n$1\r\na\r\n*1\r\n$-5\r\n");
    assert_eq!(client.read(), Reply::bulk("a"));
    assert!(client.read().text().starts_with("ERR Protocol error: "));
    stage.standin.finish();
}

#[test]
fn big_values_pass_in_both_directions() {
    let stage = Stage::start();
    let mut client = stage.connect();
    for bytes in [1 << 20, 64 << 20] {
        let value: Vec<u8> = (0..bytes).map(|at: usize| (at % 251) as u8).collect();
        let start = Instant::now();
        assert_eq!(client.command(&[&b"SET"[..], b"big", &value]), Reply::ok());
        let Reply::Bulk(read) = client.command(&["GET", "big"]) else { panic!("no bulk string") };
        println!("{bytes} bytes there and back in {:?}", start.elapsed());
        assert!(read == value, "the value changed on its way");
    }
    stage.standin.finish();
}

#[test]
fn a_big_value_on_a_slow_line_is_neither_a_stall_nor_late() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(&["is degraded: probes take"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    // 48 MiB take 2.4 s: longer than any allowance, and longer than a request of its kind may live.
    relay.set(Fault::Throttle { bytes_per_second: 20 << 20 });
    let value = vec![b'x'; 48 << 20];
    let start = Instant::now();
    assert_eq!(client.command(&[&b"SET"[..], b"big", &value]), Reply::ok());
    assert!(start.elapsed() > secs(2), "the line was not slow: {:?}", start.elapsed());
    standin.assert_no_switch_since(1);
    assert_eq!(client.command(&["GET", "big"]).text().len(), value.len());
    standin.assert_no_switch_since(1);
    standin.finish();
}

#[test]
fn who_waits_behind_many_megabytes_on_a_slow_line_is_not_late() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(&["is degraded"]);
    let (mut hog, mut other) = (standin.connect(), standin.connect());
    assert_eq!(hog.command(&["SET", "k", &"v".repeat(100_000)]), Reply::ok());
    // 100 MB take 5 s: longer than a request may live.
    relay.set(Fault::Throttle { bytes_per_second: 20_000_000 });
    let start = Instant::now();
    let mut writer = hog.writer();
    let asking =
        std::thread::spawn(move || writer.write_all(&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(1_000)).unwrap());
    for at in 0..1_000 {
        let reply = hog.read();
        assert!(!reply.is_error(), "reply {at} after {:?}: {reply:?}", start.elapsed());
        if at == 100 {
            // Its reply comes behind all the others.
            other.send(&["GET", "none"]);
        }
    }
    asking.join().unwrap();
    assert_eq!(other.read(), Reply::Nil);
    assert!(start.elapsed() > secs(2), "the line was not slow: {:?}", start.elapsed());
    standin.assert_no_switch_since(1);
    standin.finish();
}

#[test]
fn a_big_value_does_not_stop_other_clients() {
    let stage = Stage::start();
    let (mut big, mut small) = (stage.connect(), stage.connect());
    let value = vec![b'x'; 64 << 20];
    assert_eq!(big.command(&[&b"SET"[..], b"big", &value]), Reply::ok());
    big.send(&["GET", "big"]);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(small.command(&["GET", "none"]), Reply::Nil);
    }
    assert!(start.elapsed() < secs(2), "small requests wait behind a big reply: {:?}", start.elapsed());
    match big.read() {
        Reply::Bulk(read) => assert_eq!(read.len(), 64 << 20),
        other => panic!("the big reply is {other:?}"),
    }
    stage.standin.finish();
}

#[test]
fn a_client_that_does_not_read_is_closed_past_its_limit_and_hurts_nobody_else() {
    let mut stage = Stage::start_with(|config| config.listen_keys("output_limit = 4194304"));
    stage.standin.declare(&["client", "output"]);
    let (mut slow, mut other) = (stage.connect(), stage.connect());
    assert_eq!(other.command(&["SET", "k", &"x".repeat(64 * 1024)]), Reply::ok());
    // 64 MiB of replies, none read: far over the limit and over what the sockets' buffers hold.
    let mut writer = slow.writer();
    let asking = std::thread::spawn(move || {
        for _ in 0..1_000 {
            if writer.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").is_err() {
                return;
            }
        }
    });
    let mut longest = Duration::ZERO;
    for _ in 0..300 {
        let start = Instant::now();
        assert!(!other.command(&["GET", "k"]).is_error());
        longest = longest.max(start.elapsed());
    }
    // Not a figure of speed, the machine may be busy: a client stuck behind the slow one would wait for ever.
    assert!(longest < secs(3), "another client waited {longest:?}");
    asking.join().unwrap();
    // Either it was no longer read before the limit, or it was closed; its replies are never mixed up.
    slow.set_read_timeout(secs(2));
    let mut replies = 0;
    while let Ok(reply) = slow.try_read() {
        assert_eq!(reply.text().len(), 64 * 1024);
        replies += 1;
    }
    println!("a slow reader got {replies} of 1000 replies");
    stage.standin.finish();
}

#[test]
fn one_reply_over_the_output_limit_costs_its_client_the_connection_and_nobody_else() {
    let mut stage = Stage::start_with(|config| config.listen_keys("output_limit = 1048576\noutput_pause = 262144"));
    stage.standin.declare(&["client", "output"]);
    let (mut slow, mut other) = (stage.connect(), stage.connect());
    let value = vec![b'x'; 32 << 20];
    stage.primary.command(&[&b"SET"[..], b"big", &value]);
    for _ in 0..4 {
        slow.send(&["GET", "big"]);
    }
    for _ in 0..100 {
        assert_eq!(other.command(&["GET", "none"]), Reply::Nil);
    }
    eventually(secs(10), "the slow client is closed", || {
        let list = other.command(&["CLIENT", "LIST"]).text();
        list.lines().count() == 1
    });
    drop(slow);
    stage.standin.finish();
}

#[test]
fn one_client_too_many_is_told_so_and_a_place_that_is_left_can_be_taken() {
    let mut stage = Stage::start_with(|config| config.listen_keys("clients_max = 3"));
    stage.standin.declare(&["clients"]);
    let mut clients = Vec::new();
    // The connection that saw the listener open may not have been counted as gone yet.
    eventually(secs(5), "three places are taken", || {
        let mut client = stage.connect();
        if client.try_command(&["PING"]).is_ok_and(|reply| !reply.is_error()) {
            clients.push(client);
        }
        clients.len() == 3
    });
    let mut refused = stage.connect();
    assert_eq!(refused.read(), Reply::Error("ERR max number of clients reached".to_owned()));
    assert!(refused.is_closed_by_peer());
    clients.pop();
    eventually(secs(5), "the place is free", || {
        stage.connect().try_command(&["PING"]).is_ok_and(|reply| !reply.is_error())
    });
    stage.standin.finish();
}

#[test]
fn requests_over_the_configured_bounds_are_refused_and_those_below_served() {
    let keys = "bulk_bytes_max = \"16KiB\"\nframe_bytes_max = \"64KiB\"\nelements_max = 20";
    let stage = Stage::start_with(|config| config.listen_keys(keys));
    let (fits, long) = ("x".repeat(16 * 1024), "x".repeat(16 * 1024 + 1));
    let set = |value: &str| encode(&["SET", "k", value]);
    let with_keys = |count: usize| encode(&[vec!["EXISTS"], vec!["k"; count]].concat());
    let mset = |pairs: usize| encode(&[vec!["MSET"], vec![fits.as_str(); pairs * 2]].concat());
    for (below, above) in [(set(&fits), set(&long)), (with_keys(19), with_keys(20)), (mset(1), mset(2))] {
        let mut client = stage.connect();
        client.send_raw(&below);
        let reply = client.read();
        assert!(!reply.is_error(), "{reply:?}");
        // It may be closed before all of it is written.
        let _ = client.try_send_raw(&above);
        assert!(client.read().text().starts_with("ERR Protocol error: "));
        assert!(client.is_closed_by_peer());
    }
    stage.standin.finish();
}

#[test]
fn connections_of_their_own_are_bounded_over_all_workers() {
    let stage = Stage::start_with(|config| config.table("[pinned]\nmax = 2\n[workers]\ncount = 2"));
    let watch = |database: &str| {
        let mut client = stage.connect();
        assert_eq!(client.command(&["SELECT", database]), Reply::ok());
        let reply = client.command(&["WATCH", "k"]);
        (client, reply)
    };
    let (mut first, watched) = watch("0");
    assert_eq!(watched, Reply::ok());
    let (_second, watched) = watch("0");
    assert_eq!(watched, Reply::ok());
    let (mut third, refused) = watch("0");
    assert!(refused.is_error_word("OVERLOADED"), "{refused:?}");
    assert!(!third.command(&["GET", "k"]).is_error(), "only what needs a connection of its own is refused");
    assert_eq!(first.command(&["UNWATCH"]), Reply::ok());
    stage.standin.finish();
}

#[test]
fn a_connection_that_nobody_uses_makes_way_for_one_that_is_needed() {
    let stage = Stage::start_with(|config| config.table("[pinned]\nmax = 1"));
    let mut client = stage.connect();
    assert_eq!(client.command(&["WATCH", "k"]), Reply::ok());
    assert_eq!(client.command(&["UNWATCH"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil);
    // In the pool it is of no use for another database.
    let mut other = stage.connect();
    assert_eq!(other.command(&["SELECT", "5"]), Reply::ok());
    assert_eq!(other.command(&["WATCH", "k"]), Reply::ok());
    stage.standin.finish();
}

#[test]
fn requests_over_the_bound_of_a_link_are_shed_and_the_others_answered() {
    let stage = Stage::start_with(|config| config.table("[links]\nin_flight_max = 16"));
    assert_eq!(stage.connect().command(&["GET", "k"]), Reply::Nil);
    stage.primary.freeze();
    let mut clients: Vec<Client> = (0..40).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send(&["GET", "k"]);
    }
    // Those that are shed are told at once, while the server still stands still.
    let mut shed = 0;
    for client in &mut clients {
        client.set_read_timeout(ms(20));
        if let Ok(reply) = client.try_read() {
            assert!(reply.is_error_word("OVERLOADED"), "{reply:?}");
            shed += 1;
        }
    }
    stage.primary.thaw();
    assert_eq!(shed, 40 - 16);
    stage.standin.finish();
}

#[test]
fn a_half_finished_request_is_closed_after_its_time() {
    let mut stage = Stage::start_with(|config| config.listen_keys("frame_timeout = \"300ms\""));
    stage.standin.declare(&["client"]);
    let (mut half, mut idle) = (stage.connect(), stage.connect());
    half.send_raw(b"*2\r\n$3\r\nGET\r\n$100\r\nabc");
    half.set_read_timeout(secs(3));
    assert!(half.is_closed_by_peer(), "a half-finished request holds its place for ever");
    assert!(!idle.command(&["PING"]).is_error(), "an idle client is no half-finished one");
    stage.standin.finish();
}

#[test]
fn an_idle_client_is_closed_after_its_time_when_that_is_configured() {
    let mut stage = Stage::start_with(|config| config.listen_keys("idle_timeout = \"300ms\""));
    stage.standin.declare(&["client"]);
    let mut idle = stage.connect();
    idle.set_read_timeout(secs(3));
    assert!(idle.is_closed_by_peer());
    stage.standin.finish();
}

#[test]
fn a_password_is_asked_for_and_checked() {
    let stage = Stage::start_with(|config| config.listen_keys("password = \"open sesame\""));
    let mut client = stage.connect();
    assert!(client.command(&["GET", "k"]).is_error_word("NOAUTH"));
    assert!(client.command(&["AUTH", "wrong"]).is_error_word("WRONGPASS"));
    assert!(client.command(&["GET", "k"]).is_error_word("NOAUTH"));
    assert_eq!(client.command(&["AUTH", "open sesame"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    let mut named = stage.connect();
    assert_eq!(named.command(&["AUTH", "default", "open sesame"]), Reply::ok());
    let mut hello = stage.connect();
    assert!(hello.command(&["HELLO", "3"]).is_error_word("NOAUTH"));
    assert!(matches!(hello.command(&["HELLO", "3", "AUTH", "default", "open sesame"]), Reply::Map(_)));
    assert!(!stage.standin.log().contains("open sesame"), "a secret in the log");
    stage.standin.finish();
}

#[test]
fn who_has_not_logged_in_may_send_little_and_who_has_in_the_same_breath_may_send_much() {
    let stage = Stage::start_with(|config| config.listen_keys("password = \"open sesame\""));
    for (request, says) in [
        ("*11\r\n", "unauthenticated multibulk length"),
        ("*2\r\n$4\r\nAUTH\r\n$16385\r\n", "unauthenticated bulk length"),
    ] {
        let mut client = stage.connect();
        client.send_raw(request.as_bytes());
        let reply = client.read();
        assert!(reply.text().contains(says), "{reply:?}");
        assert!(client.is_closed_by_peer());
    }
    let mut client = stage.connect();
    let value = "v".repeat(100_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    client.send_raw(format!("AUTH \"open sesame\"\r\n{set}").as_bytes());
    assert_eq!(client.read(), Reply::ok());
    assert_eq!(client.read(), Reply::ok(), "the login counts for what was sent behind it");
    assert_eq!(client.command(&["STRLEN", "k"]), Reply::Integer(100_000));
    stage.standin.finish();
}

#[test]
fn listen_users_act_with_the_rights_of_their_backend_users() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    for server in [&primary, &backup] {
        let rule = ["ACL", "SETUSER", "reader", "on", ">reader-secret", "~*", "&*", "+@read", "+@connection"];
        assert_eq!(server.command(&rule), Reply::ok());
    }
    assert_eq!(primary.command(&["SET", "k", "1"]), Reply::ok());
    let users = "[[listen.users]]\nname = \"app\"\npassword = \"app-secret\"\n\
                 backend_username = \"reader\"\nbackend_password = \"reader-secret\"\n";
    let config = StandinConfig::new().listen_keys("password = \"main\"").listen_keys(users);
    let mut standin = config.primary(primary.address()).backup("backup-a", backup.address()).start();
    // The primary held a key before Standin came.
    standin.declare(&["primary"]);
    let mut app = standin.connect();
    assert_eq!(app.command(&["AUTH", "app", "app-secret"]), Reply::ok());
    assert_eq!(app.command(&["GET", "k"]), Reply::bulk("1"));
    assert!(app.command(&["SET", "k", "2"]).is_error_word("NOPERM"), "a reader wrote");
    let mut main = standin.connect();
    assert_eq!(main.command(&["AUTH", "main"]), Reply::ok());
    assert_eq!(main.command(&["SET", "k", "3"]), Reply::ok());
    assert_eq!(app.command(&["GET", "k"]), Reply::bulk("3"));
    assert!(app.command(&["SET", "k", "4"]).is_error_word("NOPERM"), "rights leak between sessions");
    let mut unmapped = standin.connect();
    assert!(unmapped.command(&["AUTH", "stranger", "x"]).is_error_word("WRONGPASS"));
    assert!(unmapped.command(&["AUTH", "reader", "reader-secret"]).is_error_word("WRONGPASS"));
    standin.finish();
}

#[test]
fn a_login_in_the_middle_of_a_session_takes_the_rights_of_the_one_before() {
    let users = "[[listen.users]]\nname = \"app\"\npassword = \"app-secret\"\n\
                 backend_username = \"reader\"\nbackend_password = \"reader-secret\"\n";
    let stage = Stage::start_with(|config| config.listen_keys(users));
    let rule =
        ["ACL", "SETUSER", "reader", "on", ">reader-secret", "~*", "&*", "+@read", "+@connection", "+@transaction"];
    assert_eq!(stage.primary.command(&rule), Reply::ok());
    // Each of these ties the client to a connection that was opened with other rights.
    for tie in [&["WATCH", "w"][..], &["CLIENT", "TRACKING", "ON"], &["SUBSCRIBE", "channel"]] {
        let mut client = stage.standin.connect_resp3();
        assert!(!client.command(tie).is_error(), "{tie:?}");
        assert_eq!(client.command(&["SET", "k", "before"]), Reply::ok());
        // A tracking client is told to forget everything when its connection is replaced.
        let past_pushes = |client: &mut Client, mut reply: Reply| {
            while matches!(reply, Reply::Push(_)) {
                reply = client.read();
            }
            reply
        };
        let reply = client.command(&["AUTH", "app", "app-secret"]);
        assert_eq!(past_pushes(&mut client, reply), Reply::ok());
        let reply = client.command(&["SET", "k", "after"]);
        let reply = past_pushes(&mut client, reply);
        assert!(reply.is_error_word("NOPERM"), "other rights are left after {tie:?}: {reply:?}");
        assert_eq!(stage.primary.command(&["GET", "k"]), Reply::bulk("before"));
    }
    stage.standin.finish();
}

#[test]
fn what_a_user_may_do_to_other_clients_is_the_servers_word() {
    let users = "[[listen.users]]\nname = \"app\"\npassword = \"app-secret\"\n\
                 backend_username = \"reader\"\nbackend_password = \"reader-secret\"\n";
    let stage = Stage::start_with(|config| config.listen_keys(users));
    let rule =
        ["ACL", "SETUSER", "reader", "on", ">reader-secret", "~*", "&*", "+@read", "+auth", "+client|list", "+ping"];
    assert_eq!(stage.primary.command(&rule), Reply::ok());
    let (mut app, mut other) = (stage.connect(), stage.connect());
    let id = other.command(&["CLIENT", "ID"]).text();
    assert_eq!(app.command(&["AUTH", "app", "app-secret"]), Reply::ok());
    assert_eq!(app.command(&["CLIENT", "LIST"]).text().lines().count(), 2, "allowed: the list is Standin's");
    // Within a pipeline, and with a silence that would fall on the question if it were not kept for the command.
    app.send_raw(format!("PING\r\nCLIENT KILL ID {id}\r\nCLIENT UNBLOCK {id}\r\nGET k\r\n").as_bytes());
    assert_eq!(app.read(), Reply::Simple("PONG".to_owned()));
    assert!(app.read().is_error_word("NOPERM"));
    assert!(app.read().is_error_word("NOPERM"));
    assert_eq!(app.read(), Reply::Nil);
    app.send_raw(b"CLIENT REPLY SKIP\r\nCLIENT LIST\r\nPING\r\n");
    assert_eq!(app.read(), Reply::Simple("PONG".to_owned()));
    assert_eq!(other.command(&["PING"]), Reply::Simple("PONG".to_owned()), "not killed");
    assert_eq!(other.command(&["CLIENT", "KILL", "ID", "999999"]), Reply::Integer(0), "without a user nobody is asked");
    stage.standin.finish();
}

#[test]
fn a_user_whom_the_backend_refuses_is_told_so_and_never_served_with_other_rights() {
    let users = "[[listen.users]]\nname = \"app\"\npassword = \"app-secret\"\n\
                 backend_username = \"nobody\"\nbackend_password = \"nobody-secret\"\n";
    let mut stage = Stage::start_with(|config| config.listen_keys("password = \"main\"").listen_keys(users));
    stage.standin.declare(&["login", "auth"]);
    let (mut app, mut main) = (stage.connect(), stage.connect());
    assert_eq!(main.command(&["AUTH", "main"]), Reply::ok());
    assert_eq!(app.command(&["AUTH", "app", "app-secret"]), Reply::ok());
    for _ in 0..3 {
        let reply = app.command(&["SET", "k", "app's"]);
        assert!(reply.text().contains("refuses the login of this user"), "{reply:?}");
        assert_eq!(main.command(&["GET", "k"]), Reply::Nil, "others are served, and nothing was written");
    }
    stage.standin.assert_no_switch_since(1);
    stage.standin.finish();
}

#[test]
fn whatever_is_wrong_with_a_login_the_answer_is_the_same() {
    let users = "[[listen.users]]\nname = \"app\"\npassword = \"app-secret\"\n";
    let stage = Stage::start_with(|config| config.listen_keys("password = \"main\"").listen_keys(users));
    let mut client = stage.connect();
    let wrong = Reply::Error("WRONGPASS invalid username-password pair or user is disabled.".to_owned());
    for login in [&["AUTH", "app", "wrong"][..], &["AUTH", "nobody", "app-secret"], &["AUTH", "default", "app-secret"]]
    {
        assert_eq!(client.command(login), wrong, "{login:?}");
    }
    assert_eq!(client.command(&["AUTH", "app-secret"]), wrong);
    assert_eq!(client.command(&["HELLO", "3", "AUTH", "app", "main"]), wrong);
    assert!(client.command(&["GET", "k"]).is_error_word("NOAUTH"));
    stage.standin.finish();
}

#[test]
fn denied_commands_are_refused_at_the_front_door() {
    let stage = Stage::start_with(|config| {
        config.listen_keys("deny = [\"SHUTDOWN\", \"CONFIG SET\", \"DEBUG\", \"JSON.SET\"]")
    });
    let mut client = stage.connect();
    for request in [&["SHUTDOWN", "NOSAVE"][..], &["config", "set", "maxmemory", "1"], &["DEBUG", "SLEEP", "1"]] {
        let reply = client.command(request);
        assert!(reply.is_error(), "{request:?} answered {reply:?}");
    }
    let reply = client.command(&["json.set", "k", "$", "{}"]);
    assert!(reply.text().contains("'json.set' is denied"), "a module's command too, by its name: {reply:?}");
    assert!(!client.command(&["CONFIG", "GET", "maxmemory"]).is_error(), "only CONFIG SET is denied");
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(client.command(&["MULTI"]), Reply::ok());
    assert!(client.command(&["DEBUG", "SLEEP", "1"]).is_error(), "nor within a transaction");
    assert!(client.command(&["EXEC"]).is_error_word("EXECABORT"));
    assert_eq!(stage.primary.command(&["PING"]).text(), "PONG");
    stage.standin.finish();
}

#[test]
fn a_backend_on_a_unix_socket_is_served() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let address = format!("unix:{}", primary.unix_socket().display());
    let config = StandinConfig::new().backend("primary", "primary", &address, "");
    let config = config.reached_directly_at(primary.address()).backup("backup-a", backup.address());
    let standin = config.start();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(primary.command(&["GET", "k"]), Reply::bulk("1"));
    standin.finish();
}

#[test]
fn a_backend_with_a_database_of_its_own_serves_that_one() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::new().backend("primary", "primary", &primary.address().to_string(), "database = 5");
    let standin = config.backup("backup-a", backup.address()).start();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    let mut direct = primary.connect();
    assert_eq!(direct.command(&["GET", "k"]), Reply::Nil);
    direct.command(&["SELECT", "5"]);
    assert_eq!(direct.command(&["GET", "k"]), Reply::bulk("1"));
    standin.finish();
}

#[test]
fn on_sigterm_clients_are_served_until_they_leave_and_the_exit_is_0() {
    let mut stage = Stage::start_with(|config| config.table("[drain]\ntimeout = \"30s\""));
    let (mut first, mut second) = (stage.connect(), stage.connect());
    assert_eq!(first.command(&["SET", "k", "1"]), Reply::ok());
    stage.standin.terminate();
    eventually(secs(5), "the drain is under way", || !stage.standin.events_of("drain").is_empty());
    for client in [&mut first, &mut second] {
        assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"), "served while draining");
    }
    assert_eq!(stage.connect().command(&["GET", "k"]), Reply::bulk("1"), "new clients come in while draining");
    drop(first);
    assert_eq!(second.command(&["GET", "k"]), Reply::bulk("1"));
    assert!(stage.standin.try_exit().is_none(), "it ended under a client");
    drop(second);
    eventually(secs(3), "it ends when the last client has left", || stage.standin.try_exit().is_some());
    assert!(stage.standin.try_exit().unwrap().success());
    stage.standin.finish();
}

#[test]
fn on_sigterm_clients_that_stay_are_closed_after_the_drain_timeout() {
    let mut stage = Stage::start_with(|config| config.table("[drain]\ntimeout = \"500ms\""));
    stage.standin.declare(&["drain"]);
    let mut client = stage.connect();
    assert!(!client.command(&["PING"]).is_error());
    stage.standin.terminate();
    let ended = eventually(secs(5), "it ends", || stage.standin.try_exit().is_some());
    assert!(ended >= ms(400), "the drain was cut short: {ended:?}");
    assert!(stage.standin.try_exit().unwrap().success());
    assert!(client.is_closed_by_peer());
    stage.standin.finish();
}
