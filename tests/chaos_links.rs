//! What happens to links while the server lives, and servers that live but cannot serve.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::time::{Duration, Instant};

use support::{
    Client, Fault, FaultRelay, Load, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, encode,
    eventually, ms, secs, throughout,
};

const LINK_LOST: &[&str] = &["link", "connection", "primary"];

#[test]
fn killed_links_cost_no_error_and_no_switch() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(LINK_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(1_000);
    let mut killed = 0;
    for _ in 0..10 {
        killed += primary.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).integer();
        load.wait_for_successes(300);
    }
    let report = load.stop();
    println!("{killed} connections killed: {report}");
    assert!(killed >= 10, "Standin reconnected and was killed again");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    assert_eq!(report.misses, 0);
    report.assert_no_gap_over(ms(100));
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn a_network_that_resets_every_connection_once_costs_no_switch() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(LINK_LOST);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    for _ in 0..5 {
        load.wait_for_successes(500);
        relay.reset_all();
    }
    load.wait_for_successes(500);
    let report = load.stop();
    println!("five resets: {report}");
    relay.assert_fired();
    report.assert_no_errors();
    report.assert_no_stale_reads();
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn a_half_closed_link_is_replaced() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(LINK_LOST);
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(500);
    relay.set(Fault::HalfClose);
    eventually(secs(2), "the half-close acts", || relay.fired() > 0);
    relay.heal();
    load.wait_for_successes(1_000);
    let report = load.stop();
    println!("half-closed: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    standin.declare(PRIMARY_LOST);
    standin.finish();
}

#[test]
fn a_server_that_closes_idle_connections_is_not_taken_for_a_failed_one() {
    let primary = RedisServer::start_with(&["--timeout", "1"]);
    let backup = RedisServer::start_with(&["--timeout", "1"]);
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(LINK_LOST);
    standin.declare(&["backup-a"]);
    let epoch = standin.epoch();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    // The server looks for idle clients every second; two rounds of silence, then requests.
    for _ in 0..2 {
        throughout(ms(2_600), "no switch while idle", || standin.active() == "primary");
        assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
        assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    }
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn bytes_that_arrive_one_by_one_and_late_change_nothing() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let standin = StandinConfig::pair(relay.address(), backup.address()).start();
    let epoch = standin.epoch();
    for fault in [Fault::Split { bytes: 1 }, Fault::Split { bytes: 7 }, Fault::Delay(ms(20))] {
        relay.set(fault.clone());
        let load = Load::new(standin.address()).key_prefix(&format!("{fault:?}")).requests_per_second(400).start();
        load.wait_for_successes(400);
        let report = load.stop();
        println!("{fault:?}: {report}");
        report.assert_no_errors();
        report.assert_no_stale_reads();
    }
    relay.assert_fired();
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn a_corrupted_reply_never_reaches_a_client_as_another_requests_reply() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(500);
    relay.set(Fault::Corrupt);
    eventually(secs(2), "replies are corrupted", || relay.fired() > 0);
    load.wait_for_successes(1_000);
    let report = load.stop();
    println!("corrupted replies: {report}");
    report.assert_no_stale_reads();
    report.assert_no_errors();
    standin.finish();
}

#[test]
fn a_primary_that_became_a_replica_is_left_without_an_error() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["READONLY", "replica"]);
    let epoch = standin.epoch();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(1_000);
    // Port 1 is no server: the new replica never finds its master, and keeps its content.
    assert_eq!(primary.command(&["REPLICAOF", "127.0.0.1", "1"]), Reply::ok());
    load.wait_for_successes(2_000);
    let report = load.stop();
    println!("READONLY: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(ms(250));
    standin.assert_one_failover_since(epoch, &["health_check", "connection", "performance"]);
    standin.finish();
}

/// A server with enough content to load for some seconds, killed, so that it may return loading.
fn slow_to_load() -> RedisServer {
    let mut server = RedisServer::start();
    server.command(&["DEBUG", "POPULATE", "40000"]);
    server.save();
    server.kill();
    server
}

const LOAD_SLOWLY: &[&str] = &["--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"];

#[test]
fn a_primary_that_is_loading_is_not_waited_for() {
    let (mut primary, backup) = (slow_to_load(), RedisServer::start());
    primary.restart_with_content(LOAD_SLOWLY);
    eventually(secs(5), "the primary is loading", || {
        Client::try_connect(primary.address())
            .and_then(|mut client| client.try_command(&["GET", "k"]))
            .is_ok_and(|reply| reply.is_error_word("LOADING"))
    });
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["LOADING"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    assert_eq!(standin.active(), "backup-a");
    standin.finish();
}

#[test]
fn a_primary_that_starts_to_load_while_it_serves_is_left_without_an_error() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let config = StandinConfig::pair(primary.address(), backup.address()).table("[failover]\nhold = \"1s\"");
    let mut standin = config.start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["LOADING"]);
    primary.command(&["DEBUG", "POPULATE", "40000"]);
    primary.save();
    let load = Load::new(standin.address()).start();
    load.wait_for_successes(500);
    primary.kill();
    primary.restart_with_content(LOAD_SLOWLY);
    load.wait_for_successes(2_000);
    let report = load.stop();
    println!("LOADING within the hold: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(ms(1_100));
    assert_eq!(standin.active(), "backup-a");
    standin.finish();
}

#[test]
fn a_wrong_password_after_rotation_is_an_event_and_no_failover_and_a_new_file_mends_it() {
    let mut primary = RedisServer::start_with(&["--requirepass", "first"]);
    let backup = RedisServer::start();
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"first").unwrap();
    let keys = format!("password = \"file:{}\"", secret.path().display());
    let config = StandinConfig::new().backend("primary", "primary", &primary.address().to_string(), &keys);
    let mut standin = config.backup("backup-a", backup.address()).start();
    standin.declare(&["primary", "password", "WRONGPASS", "NOAUTH", "authentication"]);
    let epoch = standin.epoch();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());

    primary.rotate_password("second");
    primary.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually(secs(5), "the refusal is an event", || !standin.events_of("authentication_failed").is_empty());
    throughout(secs(3), "no failover", || standin.active() == "primary");
    assert_eq!(backup.command(&["EXISTS", "k"]), Reply::Integer(0));

    std::fs::write(secret.path(), "second").unwrap();
    eventually(secs(5), "the new password is used", || client.command(&["GET", "k"]) == Reply::bulk("1"));
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

/// A primary behind a relay whose replies can be lost.
fn relayed() -> (RedisServer, RedisServer, FaultRelay, StandinProcess, Client) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(LINK_LOST);
    let mut client = standin.connect();
    // The link stands before a fault is set: what is to be lost is the reply to a request, not to a handshake.
    assert_eq!(client.command(&["GET", "link"]), Reply::Nil);
    (primary, backup, relay, standin, client)
}

#[test]
fn an_increment_whose_reply_was_lost_is_answered_unknown_and_never_repeated() {
    let (primary, _backup, relay, standin, mut client) = relayed();
    for round in 1..=10 {
        relay.set(Fault::SwallowReplies);
        client.send(&["INCR", "n"]);
        let executed = Reply::bulk(&round.to_string());
        eventually(secs(2), "the increment is executed", || primary.command(&["GET", "n"]) == executed);
        relay.heal();
        relay.reset_all();
        let reply = client.read();
        assert!(reply.is_error_word("UNKNOWNOUTCOME"), "round {round}: {reply:?}");
        assert_eq!(client.command(&["GET", "n"]), executed, "executed once, no more");
    }
    relay.assert_fired();
    assert!(standin.events_of("failover").is_empty(), "{:#?}", standin.events());
    standin.finish();
}

#[test]
fn commands_beyond_the_retry_ceiling_are_answered_unknown_when_their_link_dies() {
    let (primary, _backup, relay, standin, mut client) = relayed();
    client.command(&["SET", "s", "before"]);
    for request in [
        &["LPUSH", "list", "x"][..],
        &["APPEND", "text", "x"],
        &["GETSET", "s", "after"],
        &["SETNX", "once", "x"],
        &["GETDEL", "s"],
        &["SPOP", "set"],
    ] {
        let executed = format!("cmdstat_{}:", request[0].to_lowercase());
        relay.set(Fault::SwallowReplies);
        client.send(request);
        eventually(secs(2), "the command is executed", || {
            primary.command(&["INFO", "commandstats"]).text().contains(&executed)
        });
        relay.heal();
        relay.reset_all();
        let reply = client.read();
        assert!(reply.is_error_word("UNKNOWNOUTCOME"), "{request:?}: {reply:?}");
        assert_eq!(client.command(&["GET", "link"]), Reply::Nil, "the link is back");
    }
    assert_eq!(primary.command(&["LLEN", "list"]), Reply::Integer(1));
    assert_eq!(primary.command(&["GET", "text"]), Reply::bulk("x"));
    standin.finish();
}

#[test]
fn reads_and_whole_writes_whose_reply_was_lost_are_sent_again() {
    let (_primary, _backup, relay, standin, mut client) = relayed();
    assert_eq!(client.command(&["SET", "k", "0"]), Reply::ok());
    for round in 1..=10 {
        let value = round.to_string();
        relay.set(Fault::SwallowReplies);
        let fired = relay.fired();
        client.send(&["SET", "k", &value]);
        client.send(&["GET", "k"]);
        client.send(&["EXPIRE", "k", "100"]);
        eventually(secs(2), "a reply was lost", || relay.fired() > fired);
        relay.heal();
        relay.reset_all();
        assert_eq!(client.read(), Reply::ok());
        assert_eq!(client.read(), Reply::bulk(&value));
        assert_eq!(client.read(), Reply::Integer(1));
    }
    standin.finish();
}

#[test]
fn a_read_is_never_answered_by_a_later_write_of_its_own_client() {
    let (primary, _backup, relay, standin, mut client) = relayed();
    for round in 1..=5 {
        let (before, after) = (format!("{round}-before"), format!("{round}-after"));
        assert_eq!(client.command(&["SET", "k", &before]), Reply::ok());
        relay.set(Fault::SwallowReplies);
        client.send_raw(&[encode(&["GET", "k"]), encode(&["GET", "other"]), encode(&["SET", "k", &after])].concat());
        eventually(secs(2), "both are executed", || primary.command(&["GET", "k"]) == Reply::bulk(&after));
        relay.heal();
        relay.reset_all();
        let read = client.read();
        assert!(read.is_error_word("UNKNOWNOUTCOME"), "round {round}: the earlier read was answered with {read:?}");
        assert_eq!(client.read(), Reply::Nil, "what the write does not touch is read again");
        assert_eq!(client.read(), Reply::ok(), "and the write is repeated");
    }
    assert!(standin.events_of("failover").is_empty(), "{:#?}", standin.events());
    standin.finish();
}

#[test]
fn a_reply_of_64_mib_does_not_hold_other_clients_up() {
    let (primary, _backup, relay, standin, mut small) = relayed();
    primary.command(&["SETRANGE", "large", "67108863", "x"]);
    let mut large = standin.connect();
    assert_eq!(large.command(&["GET", "link"]), Reply::Nil);
    // A second for the whole reply; each connection has this line to itself.
    relay.set(Fault::Throttle { bytes_per_second: 64 << 20 });
    large.send(&["GET", "large"]);
    let reading = std::thread::spawn(move || large.read());
    let (mut worst, mut turns) = (Duration::ZERO, 0);
    while !reading.is_finished() {
        let sent = Instant::now();
        match turns % 2 {
            0 => assert_eq!(small.command(&["GET", "link"]), Reply::Nil),
            _ => assert_eq!(small.command(&["SET", "k", "1"]), Reply::ok()),
        }
        worst = worst.max(sent.elapsed());
        turns += 1;
    }
    let Reply::Bulk(reply) = reading.join().unwrap() else { panic!("the large reply is a string") };
    assert_eq!(reply.len(), 64 << 20);
    println!("{turns} requests beside a reply of 64 MiB, the longest took {worst:?}");
    assert!(turns > 50, "only {turns} requests were served meanwhile");
    assert!(worst < ms(250), "a small request waited {worst:?}");
    relay.assert_fired();
    standin.finish();
}

#[test]
fn an_error_inside_a_script_is_the_applications_and_never_a_reason_to_switch() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    let epoch = standin.epoch();
    let mut client = standin.connect();
    for word in ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN"] {
        for _ in 0..20 {
            let script = format!("return redis.error_reply('{word} from the application')");
            let reply = client.command(&["EVAL", &script, "0"]);
            assert!(reply.is_error_word(word), "{reply:?}");
        }
    }
    for _ in 0..20 {
        assert!(client.command(&["XGROUP", "CREATE", "stream", "g", "$", "MKSTREAM"]).text() != "");
    }
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn an_address_that_leads_elsewhere_by_now_is_followed_when_the_old_master_says_readonly() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let port = |server: &RedisServer| server.address().port().to_string();
    let is_in_step = |server: &RedisServer| server.info("master_link_status") == "up";
    assert_eq!(new.command(&["REPLICAOF", "127.0.0.1", &port(&old)]), Reply::ok());
    eventually(secs(10), "it is in step", || is_in_step(&new));
    // A link to a socket stands for a name in the DNS: it is looked up again by each connect.
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("endpoint.sock");
    std::os::unix::fs::symlink(old.unix_socket(), &name).unwrap();
    let address = format!("unix:{}", name.display());
    let mut standin = StandinConfig::new().backend("primary", "primary", &address, "").start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["READONLY", "backend"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    // As a managed service does it: the replica is promoted, the old master follows it, then the name moves.
    assert_eq!(new.command(&["REPLICAOF", "NO", "ONE"]), Reply::ok());
    assert_eq!(old.command(&["REPLICAOF", "127.0.0.1", &port(&new)]), Reply::ok());
    std::fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink(new.unix_socket(), &name).unwrap();
    eventually(secs(10), "writes reach the new master", || client.command(&["SET", "k", "2"]) == Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    assert_eq!(new.command(&["GET", "k"]), Reply::bulk("2"));
    standin.finish();
}
