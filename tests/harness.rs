//! The harness itself, held against plain `redis-server` processes: a fault that does not act, a load that overlooks a
//! stale value or a log that is not read would make every other test here worthless.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use support::{
    Client, CommandRelay, Fault, FaultRelay, KeyRecord, Load, LogBook, RedisServer, Reply, Rule, Verdict, eventually,
    ms, secs,
};

#[test]
fn a_server_answers_dies_and_returns_empty_on_its_port() {
    let mut server = RedisServer::start();
    assert_eq!(server.command(&["SET", "k", "1"]), Reply::ok());
    let before = server.address();
    server.kill();
    assert!(Client::try_connect(before).is_err(), "a killed server still accepts");
    server.restart();
    assert_eq!(server.address(), before);
    assert_eq!(server.command(&["GET", "k"]), Reply::Nil);
}

#[test]
fn a_server_keeps_its_content_when_it_was_saved() {
    let mut server = RedisServer::start();
    server.command(&["SET", "k", "old"]);
    server.save();
    server.command(&["SET", "k", "new"]);
    server.kill();
    server.restart_with_content(&[]);
    server.wait_until_it_answers();
    assert_eq!(server.command(&["GET", "k"]), Reply::bulk("old"));
}

#[test]
fn a_restarted_server_can_be_held_in_loading() {
    let mut server = RedisServer::start();
    server.command(&["DEBUG", "POPULATE", "20000"]);
    server.save();
    server.kill();
    server.restart_with_content(&["--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"]);
    let mut client = loop {
        if let Ok(client) = Client::try_connect(server.address()) {
            break client;
        }
    };
    assert!(client.command(&["GET", "k"]).is_error_word("LOADING"));
}

#[test]
fn a_frozen_server_says_nothing_until_it_thaws() {
    let server = RedisServer::start();
    let mut client = server.connect();
    client.set_read_timeout(ms(200));
    server.freeze();
    client.send(&["SET", "k", "1"]);
    assert!(client.try_read().is_err(), "a frozen server answered");
    server.thaw();
    client.set_read_timeout(secs(5));
    assert_eq!(client.read(), Reply::ok());
}

#[test]
fn a_password_is_used_by_direct_connections_and_can_be_rotated() {
    let mut server = RedisServer::start_with(&["--requirepass", "first"]);
    assert_eq!(server.command(&["PING"]).text(), "PONG");
    server.rotate_password("second");
    assert_eq!(server.command(&["PING"]).text(), "PONG");
    assert!(Client::connect(server.address()).command(&["AUTH", "first"]).is_error_word("WRONGPASS"));
}

#[test]
fn a_server_also_listens_on_a_unix_socket() {
    let server = RedisServer::start();
    assert_eq!(Client::connect_unix(&server.unix_socket()).unwrap().command(&["PING"]).text(), "PONG");
}

#[test]
fn resp3_types_are_read() {
    let server = RedisServer::start();
    let mut client = Client::connect_resp3(server.address());
    for (kind, expected) in [
        ("true", Reply::Boolean(true)),
        ("null", Reply::Nil),
        ("double", Reply::Double("3.141".to_owned())),
        ("integer", Reply::Integer(12_345)),
    ] {
        assert_eq!(client.command(&["DEBUG", "PROTOCOL", kind]), expected);
    }
    let map = client.command(&["DEBUG", "PROTOCOL", "map"]);
    assert_eq!(map.field("1"), Some(&Reply::Boolean(true)));
    assert!(matches!(client.command(&["DEBUG", "PROTOCOL", "set"]), Reply::Set(_)));
    assert!(client.command(&["DEBUG", "PROTOCOL", "verbatim"]).text().starts_with("This is a verbatim"));
}

#[test]
fn a_load_on_a_healthy_server_has_no_errors_and_no_long_gap() {
    let server = RedisServer::start();
    let load = Load::new(server.address()).start();
    load.run_for(secs(2));
    let report = load.stop();
    println!("direct: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    assert_eq!(report.misses, 0);
    assert!(report.operations > 3_500, "the load does not keep its rate: {report}");
    assert!(report.longest_gap < ms(200), "{report}");
}

#[test]
fn a_load_sees_a_killed_server_as_errors() {
    let mut server = RedisServer::start();
    let load = Load::new(server.address()).start();
    load.wait_for_successes(200);
    server.kill();
    eventually(secs(5), "errors are seen", || load.errors() > 16);
    server.restart();
    load.wait_for_successes(200);
    let report = load.stop();
    assert!(report.misses > 0, "a lost content is seen as misses: {report}");
    report.assert_no_stale_reads();
    report.assert_errors_are_only(&["connection:", "connect:"]);
}

#[test]
fn a_load_sees_a_frozen_server_as_a_gap() {
    let server = RedisServer::start();
    let load = Load::new(server.address()).start();
    load.wait_for_successes(500);
    let frozen = load.elapsed();
    server.freeze();
    load.run_for(ms(400));
    server.thaw();
    load.wait_for_successes(500);
    let report = load.stop();
    report.assert_no_errors();
    assert!(report.longest_gap >= ms(390) && report.longest_gap < ms(700), "{report}");
    assert!(report.longest_gap_at.abs_diff(frozen) < ms(50), "{report}");
    assert!(report.longest_wait >= ms(380), "{report}");
}

#[test]
fn a_load_sees_a_value_that_comes_back_as_stale() {
    let mut server = RedisServer::start();
    let load = Load::new(server.address()).start();
    load.wait_for_successes(2_000);
    server.save();
    load.wait_for_successes(2_000);
    server.kill();
    server.restart_with_content(&[]);
    server.wait_until_it_answers();
    load.wait_for_successes(2_000);
    let report = load.stop();
    assert!(!report.stale.is_empty(), "an old RDB was not noticed: {report}");
}

#[test]
fn a_key_record_tells_fresh_missing_stale_and_foreign_apart() {
    let mut record = KeyRecord::default();
    assert_eq!(record.judge(None), Verdict::Fresh);
    let first = record.issue();
    record.acknowledge_set(first);
    assert_eq!(record.judge(Some(1)), Verdict::Fresh);
    assert_eq!(record.judge(None), Verdict::Miss);
    let in_doubt = record.issue();
    assert_eq!(record.judge(Some(1)), Verdict::Fresh, "the second may not have happened");
    assert_eq!(record.judge(Some(in_doubt)), Verdict::Fresh, "or it may");
    assert_eq!(record.judge(Some(1)), Verdict::Stale { read: 1, floor: 2 }, "but once seen it has happened");
    let deleted = record.issue();
    record.acknowledge_delete(deleted);
    assert_eq!(record.judge(None), Verdict::Fresh);
    assert_eq!(record.judge(Some(2)), Verdict::Stale { read: 2, floor: 3 });
    assert_eq!(record.judge(Some(3)), Verdict::Foreign { read: 3 }, "a delete writes no value");
    assert_eq!(record.judge(Some(9)), Verdict::Foreign { read: 9 });
}

fn relayed() -> (RedisServer, FaultRelay, Client) {
    let server = RedisServer::start();
    let relay = FaultRelay::start(server.address());
    let mut client = Client::connect(relay.address());
    assert_eq!(client.command(&["SET", "k", "value"]), Reply::ok());
    assert_eq!(relay.fired(), 0, "a relay without a fault counts nothing");
    (server, relay, client)
}

#[test]
fn a_relay_delays_both_directions() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Delay(ms(50)));
    let start = Instant::now();
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("value"));
    assert!(start.elapsed() >= ms(100) && start.elapsed() < ms(400), "{:?}", start.elapsed());
    relay.assert_fired();
}

/// A relay that knows commands in front of a server with one key, and a client behind it.
fn relayed_by_command() -> (RedisServer, CommandRelay, Client) {
    let server = RedisServer::start();
    server.command(&["SET", "k", "value"]);
    let relay = CommandRelay::start(server.address());
    let client = Client::connect(relay.address());
    (server, relay, client)
}

#[test]
fn a_relay_delays_only_the_named_commands() {
    let (_server, relay, mut client) = relayed_by_command();
    relay.set(&[Rule::delay(&["GET"], ms(150))]);
    let start = Instant::now();
    client.command(&["SET", "GET", "x"]);
    assert_eq!(client.command(&["PING"]).text(), "PONG");
    assert_eq!(relay.fired(), 0, "only the first argument counts");
    assert!(start.elapsed() < ms(150));
    assert_eq!(client.command(&["get", "k"]), Reply::bulk("value"));
    assert!(start.elapsed() >= ms(150) && start.elapsed() < ms(400), "{:?}", start.elapsed());
    relay.assert_fired();
}

#[test]
fn a_relay_that_knows_commands_keeps_the_order_of_a_pipeline() {
    let (server, relay, mut client) = relayed_by_command();
    relay.set(&[Rule::delay(&["GET"], ms(50)), Rule::error(&["SET"], "OOM no room")]);
    let start = Instant::now();
    for _ in 0..20 {
        client.send(&["GET", "k"]);
        client.send(&["SET", "k", "another"]);
        client.send(&["CONFIG", "GET", "maxmemory"]);
        client.send(&["ECHO", "a\r\nb"]);
    }
    for _ in 0..20 {
        assert_eq!(client.read(), Reply::bulk("value"));
        assert!(client.read().is_error_word("OOM"));
        assert_eq!(client.read(), Reply::Array(vec![Reply::bulk("maxmemory"), Reply::bulk("0")]));
        assert_eq!(client.read(), Reply::bulk("a\r\nb"));
    }
    assert!(start.elapsed() >= ms(50) && start.elapsed() < ms(400), "throughput stays: {:?}", start.elapsed());
    assert_eq!(server.command(&["GET", "k"]), Reply::bulk("value"), "what the relay answered was not executed");
}

#[test]
fn a_relay_answers_a_share_of_the_named_commands_or_one_of_them() {
    let (_server, relay, mut client) = relayed_by_command();
    relay.set(&[Rule::error(&["GET"], "LOADING soon").share(0.2).keys("k")]);
    let errors = (0..1_000).filter(|_| client.command(&["GET", "k"]).is_error_word("LOADING")).count();
    assert!((150..250).contains(&errors), "{errors} of 1,000");
    assert_eq!(relay.fired(), errors as u64);
    assert!((0..100).all(|_| client.command(&["GET", "other"]) == Reply::Nil), "a key that no rule names");
    relay.set(&[Rule::error(&["GET"], "LOADING soon").once()]);
    assert!(client.command(&["GET", "k"]).is_error());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("value"));
}

#[test]
fn a_relay_loses_packets_and_sends_them_again_after_the_retransmission_timeout() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Loss { share: 0.1 });
    let mut late = 0;
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(client.command(&["GET", "k"]), Reply::bulk("value"));
        late += u64::from(start.elapsed() >= ms(200));
    }
    assert!(late > 0 && late <= relay.fired(), "{late} late, {} lost", relay.fired());
}

#[test]
fn a_relay_s_jitter_has_a_heavy_tail_with_an_end() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Jitter { share: 0.3, least: ms(1), most: ms(60) });
    let mut took: Vec<_> = (0..400)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(client.command(&["GET", "k"]), Reply::bulk("value"));
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    let (median, worst) = (took[200], took[399]);
    assert!(worst > ms(10) && worst < ms(200) && worst > 5 * median, "median {median:?}, worst {worst:?}");
    assert!((120..360).contains(&relay.fired()), "of 800 packets {} were late", relay.fired());
}

#[test]
fn a_relay_throttles() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Throttle { bytes_per_second: 100_000 });
    let start = Instant::now();
    assert_eq!(client.command(&["SET", "big", &"x".repeat(20_000)]), Reply::ok());
    assert!(start.elapsed() >= ms(190), "{:?}", start.elapsed());
    relay.assert_fired();
}

#[test]
fn a_relay_splits_writes_without_losing_a_byte() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Split { bytes: 1 });
    let value = "y".repeat(3_000);
    assert_eq!(client.command(&["SET", "big", &value]), Reply::ok());
    assert_eq!(client.command(&["GET", "big"]), Reply::bulk(&value));
    relay.assert_fired();
}

#[test]
fn a_relay_swallows_packets_while_connections_stay_open() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::BlackHole);
    client.set_read_timeout(ms(100));
    assert!(client.try_command(&["GET", "k"]).is_err());
    let mut other = Client::connect(relay.address());
    other.set_read_timeout(ms(100));
    assert!(other.try_command(&["PING"]).is_err(), "a new connection is answered");
    relay.assert_fired();
    relay.heal();
    assert_eq!(other.command(&["PING"]).text(), "PONG");
}

#[test]
fn a_relay_can_lose_the_reply_of_a_command_that_was_executed() {
    let (server, relay, mut client) = relayed();
    relay.set(Fault::SwallowReplies);
    client.send(&["INCR", "counter"]);
    eventually(secs(5), "the command is executed", || server.command(&["GET", "counter"]) == Reply::bulk("1"));
    client.set_read_timeout(ms(100));
    assert!(client.try_read().is_err(), "its reply arrived");
    relay.assert_fired();
}

#[test]
fn a_vanished_peer_does_not_even_take_connections() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Vanished);
    eventually(secs(5), "the relay has vanished", || relay.fired() > 0);
    let connect = std::net::TcpStream::connect_timeout(&relay.address(), ms(300));
    assert!(connect.is_err(), "a connection was established");
    client.set_read_timeout(ms(100));
    assert!(client.try_command(&["GET", "k"]).is_err());
    relay.heal();
    assert_eq!(Client::connect(relay.address()).command(&["PING"]).text(), "PONG");
}

#[test]
fn a_relay_resets_established_and_new_connections() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Reset);
    let error = client.try_command(&["GET", "k"]).unwrap_err();
    assert!(matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error}");
    assert!(Client::try_connect(relay.address()).and_then(|mut client| client.try_command(&["PING"])).is_err());
    relay.assert_fired();
    relay.heal();
    assert_eq!(Client::connect(relay.address()).command(&["PING"]).text(), "PONG");
}

#[test]
fn a_single_reset_leaves_new_connections_alone() {
    let (_server, relay, mut client) = relayed();
    relay.reset_all();
    assert!(client.try_read().is_err());
    relay.assert_fired();
    assert_eq!(Client::connect(relay.address()).command(&["PING"]).text(), "PONG");
}

#[test]
fn a_relay_refuses_and_listens_again() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Refuse);
    eventually(secs(5), "connects are refused", || {
        Client::try_connect(relay.address()).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    assert!(client.try_command(&["PING"]).is_err(), "established connections end too");
    relay.assert_fired();
    relay.heal();
    eventually(secs(5), "connects are taken again", || Client::try_connect(relay.address()).is_ok());
}

#[test]
fn a_half_closed_connection_ends_for_its_reader() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::HalfClose);
    assert!(client.is_closed_by_peer());
    relay.assert_fired();
}

#[test]
fn a_relay_corrupts_replies() {
    let (_server, relay, mut client) = relayed();
    relay.set(Fault::Corrupt);
    assert!(client.try_command(&["GET", "k"]).is_err(), "a corrupted reply was understood");
    relay.assert_fired();
}

#[test]
fn warnings_and_errors_must_be_declared() {
    let log = LogBook::default();
    log.push("2026-01-01T00:00:00Z  INFO standin: listening, no WARNing here");
    log.push("2026-01-01T00:00:01Z  WARN standin: backend PRIMARY refused");
    log.push(r#"{"timestamp":"2026-01-01T00:00:01Z","level":"ERROR","fields":{"message":"no room"}}"#);
    log.push("thread 'worker' panicked at src/x.rs");
    let undeclared = log.undeclared(&["primary".to_owned()]);
    assert_eq!(undeclared.len(), 2, "{undeclared:?}");
    assert!(log.undeclared(&["primary".to_owned(), "no room".to_owned(), "worker".to_owned()]).is_empty());
}
