//! `replica.promote = true`: the best replica is made the master when the primary is dead, the old one follows it when it
//! returns, and the way back loses nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use support::{
    Authority, Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, ReservedPort, StandinConfig, StandinProcess,
    eventually, ms, secs, throughout,
};

const REPLICA: &str = "data = \"replica\"";
const PROMOTE: &str = "[replica]\npromote = true";

fn follow(replica: &RedisServer, primary: &RedisServer) {
    let port = primary.address().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    eventually(secs(10), "it is in step", || replica.info("master_link_status") == "up");
}

/// A primary, replicas of it that have been looked at, and a Standin that promotes; `tables` may follow.
fn stage(replicas: usize, tables: &str) -> (RedisServer, Vec<RedisServer>, StandinProcess) {
    let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let replicas: Vec<_> = (0..replicas).map(|_| RedisServer::start()).collect();
    replicas.iter().for_each(|replica| follow(replica, &primary));
    let mut config = StandinConfig::new().primary(primary.address());
    for (replica, name) in replicas.iter().zip(["backup-a", "backup-b"]) {
        config = config.backend(name, "backup", &replica.address().to_string(), REPLICA);
    }
    let mut standin = config.quick_recovery().table(PROMOTE).table(tables).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["identity_changed", "backup-"]);
    wait_until_looked_at(&standin, &["backup-a", "backup-b"][..replicas.len()]);
    (primary, replicas, standin)
}

fn wait_until_looked_at(standin: &StandinProcess, names: &[&str]) {
    for name in names {
        eventually(secs(5), "it has been looked at", || {
            let backend = standin.backend(name);
            backend["enterable"] == true && backend["replication"]["behind_writes"].is_u64()
        });
    }
}

fn follows(server: &RedisServer, master: &RedisServer) -> bool {
    server.info("role") == "slave"
        && server.info("master_port") == master.address().port().to_string()
        && server.info("master_link_status") == "up"
}

fn promotion_of(event: &serde_json::Value) -> serde_json::Value {
    event["detail"]["promotion"].clone()
}

#[test]
fn when_the_primary_is_killed_the_replica_is_promoted_and_writes_are_served_within_moments() {
    let (mut primary, replicas, standin) = stage(1, "");
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "it is replicated", || replicas[0].command(&["GET", "k"]) == Reply::bulk("1"));
    primary.kill();
    let killed = Instant::now();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    let took = killed.elapsed();
    eprintln!("a write was acknowledged {took:?} after the primary was killed");
    assert!(took < ms(500), "{took:?}");
    assert_eq!(client.command(&["INCR", "n"]), Reply::Integer(1));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    assert_eq!((standin.active().as_str(), replicas[0].info("role").as_str()), ("backup-a", "master"));
    let failover = standin.events_of("failover").remove(0);
    let promotion = promotion_of(&failover);
    assert_eq!((&promotion["done"], &promotion["way"]), (&true.into(), &"emergency".into()), "{failover:#}");
    assert!(promotion["writes_missing_max"].as_u64().is_some_and(|writes| writes <= 1), "{promotion:#}");
    standin.finish();
}

#[test]
fn the_old_primary_follows_the_new_one_when_it_returns_and_the_way_back_loses_no_acknowledged_write() {
    let (mut primary, replicas, standin) = stage(1, "");
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "its content is kept", || primary.command(&["SAVE"]) == Reply::ok());
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    eventually(secs(5), "it is replicated", || replicas[0].command(&["GET", "k"]) == Reply::bulk("2"));
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "3"]), Reply::ok());
    // It comes back with an old content, as a master of its own.
    primary.restart_with_content(&[]);
    primary.wait_until_it_answers();
    eventually(secs(10), "the old primary follows the new one", || follows(&primary, &replicas[0]));
    let events = standin.events_of("replication");
    assert!(events.iter().any(|event| event["backend"] == "primary" && event["result"] == "done"), "{events:#?}");
    let (stop, written) = (AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (stop, written, standin) = (&stop, &written, &standin);
            scope.spawn(move || {
                let mut client = standin.connect();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (key, value) = (format!("w{writer}:{n}"), n.to_string());
                    assert_eq!(client.command(&["SET", &key, &value]), Reply::ok(), "no error in a planned switch");
                    written.lock().unwrap().push((key, value));
                    assert_eq!(client.command(&["INCR", &format!("count{writer}")]), Reply::Integer(n + 1));
                }
            });
        }
        standin.wait_until_active("primary", secs(20));
        std::thread::sleep(ms(200));
        stop.store(true, Ordering::Relaxed);
    });
    let written = written.into_inner().unwrap();
    assert!(written.len() > 200, "{}", written.len());
    let mut direct = primary.connect();
    for (key, value) in &written {
        assert_eq!(direct.command(&["GET", key]), Reply::bulk(value.as_str()), "{key}");
    }
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("3"));
    assert!(standin.events_of("switch_refused").is_empty(), "{:#?}", standin.events_of("switch_refused"));
    let recovery = standin.events_of("recovery").remove(0);
    let promotion = promotion_of(&recovery);
    assert_eq!((&promotion["way"], &promotion["writes_missing_max"]), (&"failover_command".into(), &0.into()));
    let held = recovery["detail"]["held_us"].as_u64().unwrap();
    eprintln!("{} writes; requests were held for {held} us on the way back", written.len());
    assert!(held < 1_000_000, "{recovery:#}");
    eventually(secs(10), "and the replica is a replica again", || follows(&replicas[0], &primary));
    assert_eq!(standin.active(), "primary");
    standin.finish();
}

#[test]
fn where_the_servers_failover_command_is_not_to_be_had_the_way_back_waits_until_the_replica_has_everything() {
    let (primary, replicas, standin) = stage(1, "");
    let rule = ["ACL", "SETUSER", "default", "-failover"];
    assert_eq!(primary.command(&rule), Reply::ok());
    let mut client = standin.connect();
    for n in 0..100 {
        assert_eq!(client.command(&["SET", &format!("k{n}"), "1"]), Reply::ok());
    }
    let reply = standin.post("/v1/failover", &serde_json::json!({ "to": "backup-a" }));
    assert_eq!(reply.code, 200, "{reply:?}");
    assert_eq!(client.command(&["SET", "k0", "2"]), Reply::ok());
    assert_eq!(replicas[0].command(&["DBSIZE"]), Reply::Integer(100));
    let promotion = promotion_of(&standin.events_of("failover").remove(0));
    assert_eq!((&promotion["way"], &promotion["writes_missing_max"]), (&"drain".into(), &0.into()));
    eventually(secs(10), "the primary follows", || follows(&primary, &replicas[0]));
    eventually(secs(5), "and has what was written since", || primary.command(&["GET", "k0"]) == Reply::bulk("2"));
    standin.finish();
}

#[test]
fn where_the_service_forbids_the_commands_reads_are_served_and_the_status_says_what_to_do() {
    let (mut primary, replicas, mut standin) = stage(1, "");
    standin.declare(&["backup-a", "READONLY"]);
    assert_eq!(replicas[0].command(&["ACL", "SETUSER", "default", "-replicaof", "-slaveof"]), Reply::ok());
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "it is replicated", || replicas[0].command(&["GET", "k"]) == Reply::bulk("1"));
    primary.kill();
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    assert!(client.command(&["SET", "k", "2"]).is_error_word("READONLY"));
    eventually(secs(5), "the status says why and what to do", || {
        let trouble = standin.backend("backup-a")["replication"]["trouble"].to_string();
        trouble.contains("forbids REPLICAOF") && trouble.contains("NOPERM") && trouble.contains("allow REPLICAOF")
    });
    // It is allowed again: no restart is needed.
    assert_eq!(replicas[0].command(&["ACL", "SETUSER", "default", "+replicaof"]), Reply::ok());
    eventually(secs(5), "it is promoted", || replicas[0].info("role") == "master");
    eventually(secs(5), "writes are served", || client.command(&["SET", "k", "2"]) == Reply::ok());
    eventually(secs(5), "the trouble is over", || standin.backend("backup-a")["replication"]["trouble"].is_null());
    standin.finish();
}

#[test]
fn of_two_replicas_the_one_with_more_is_promoted_and_the_other_follows_it() {
    let mut primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let (behind, ahead) = (RedisServer::start(), RedisServer::start());
    // backup-a follows through a relay, and will get nothing more though its link stands.
    let relay = FaultRelay::start(primary.address());
    let port = relay.address().port().to_string();
    assert_eq!(behind.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    eventually(secs(10), "it is in step", || behind.info("master_link_status") == "up");
    follow(&ahead, &primary);
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &behind.address().to_string(), REPLICA);
    let config = config.backend("backup-b", "backup", &ahead.address().to_string(), REPLICA);
    let mut standin = config.quick_recovery().table(PROMOTE).start();
    standin.declare(PRIMARY_LOST);
    wait_until_looked_at(&standin, &["backup-a", "backup-b"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "first", "1"]), Reply::ok());
    eventually(secs(5), "both have it", || {
        [&behind, &ahead].iter().all(|server| server.command(&["DBSIZE"]) == Reply::Integer(1))
    });
    relay.set(Fault::BlackHole);
    for n in 0..50 {
        assert_eq!(client.command(&["SET", &format!("k{n}"), "1"]), Reply::ok());
    }
    eventually(secs(5), "backup-b has them", || ahead.command(&["DBSIZE"]) == Reply::Integer(51));
    assert_eq!(behind.command(&["DBSIZE"]), Reply::Integer(1));
    primary.kill();
    eventually(secs(5), "a write is served", || client.command(&["SET", "k0", "2"]) == Reply::ok());
    assert_eq!(standin.active(), "backup-b", "{:#?}", standin.events());
    assert_eq!(ahead.command(&["DBSIZE"]), Reply::Integer(51), "nothing was lost");
    assert_eq!((ahead.info("role").as_str(), behind.info("role").as_str()), ("master", "slave"), "never two");
    eventually(secs(10), "the other one follows it", || follows(&behind, &ahead));
    eventually(secs(5), "and has everything", || behind.command(&["GET", "k0"]) == Reply::bulk("2"));
    standin.finish();
}

#[test]
fn a_frozen_primary_that_thaws_as_a_second_master_is_made_to_follow() {
    let (primary, replicas, standin) = stage(1, "[failover]\nprofile = \"fast\"");
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "it is replicated", || replicas[0].command(&["GET", "k"]) == Reply::bulk("1"));
    primary.freeze();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok(), "the replica was promoted");
    assert_eq!(standin.active(), "backup-a");
    primary.thaw();
    eventually(secs(10), "it follows", || follows(&primary, &replicas[0]));
    assert_eq!(primary.command(&["GET", "k"]), Reply::bulk("2"));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    standin.finish();
}

#[test]
fn a_configured_replica_that_follows_nobody_is_refused_and_its_content_is_left_alone() {
    let (primary, stranger) = (RedisServer::start(), RedisServer::start());
    assert_eq!(stranger.command(&["SET", "theirs", "1"]), Reply::ok());
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &stranger.address().to_string(), REPLICA);
    let mut standin = config.table(PROMOTE).start();
    standin.declare(&["backup-a"]);
    eventually(secs(5), "it is refused", || {
        standin.backend("backup-a")["why_not"].to_string().contains("a master of its own")
    });
    assert!(standin.backend("backup-a")["mend"].to_string().contains("REPLICAOF"));
    throughout(secs(2), "it keeps what it has", || stranger.command(&["GET", "theirs"]) == Reply::bulk("1"));
    assert_eq!((stranger.info("role").as_str(), stranger.command(&["DBSIZE"])), ("master", Reply::Integer(1)));
    assert_eq!(standin.events_of("not_enterable").len(), 1, "{:#?}", standin.events());
    standin.finish();
}

#[test]
fn a_replica_is_never_promoted_while_the_primary_lives_but_for_a_planned_switch() {
    let (primary, replicas, standin) = stage(1, "");
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    throughout(secs(2), "one master", || primary.info("role") == "master" && replicas[0].info("role") == "slave");
    let reply = standin.post("/v1/failover", &serde_json::json!({ "to": "backup-a" }));
    assert_eq!(reply.code, 200, "{reply:?}");
    eventually(secs(5), "they have changed places", || {
        replicas[0].info("role") == "master" && follows(&primary, &replicas[0])
    });
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    let reply = standin.post("/v1/recover", &serde_json::json!({}));
    assert_eq!(reply.code, 200, "{reply:?}");
    assert_eq!(standin.active(), "primary");
    eventually(secs(5), "and back", || primary.info("role") == "master" && follows(&replicas[0], &primary));
    standin.finish();
}

#[test]
fn a_standin_that_was_killed_finds_the_promoted_replica_and_points_the_old_primary_at_it() {
    let (mut primary, replicas, mut standin) = stage(1, "");
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "its content is kept", || primary.command(&["SAVE"]) == Reply::ok());
    eventually(secs(5), "it is replicated", || replicas[0].command(&["GET", "k"]) == Reply::bulk("1"));
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    standin.kill();
    primary.restart_with_content(&[]);
    primary.wait_until_it_answers();
    standin.start_again();
    standin.wait_until_ready();
    let mut client = standin.connect();
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"), "not what the old primary has kept");
    assert_eq!(standin.active(), "backup-a");
    eventually(secs(10), "the old primary follows", || follows(&primary, &replicas[0]));
    standin.finish();
}

#[test]
fn the_old_primary_is_given_the_password_of_the_new_one_where_it_has_none() {
    let with_password = ["--requirepass", "secret"];
    let mut primary = RedisServer::start_with(&with_password);
    let replica = RedisServer::start_with(&["--requirepass", "secret", "--masterauth", "secret"]);
    follow(&replica, &primary);
    let keys = |more: &str| format!("password = \"secret\"\n{more}");
    let config = StandinConfig::new().backend("primary", "primary", &primary.address().to_string(), &keys(""));
    let config = config.backend("backup-a", "backup", &replica.address().to_string(), &keys(REPLICA));
    let mut standin = config.quick_recovery().table(PROMOTE).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-"]);
    wait_until_looked_at(&standin, &["backup-a"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.kill();
    eventually(secs(5), "a write is served", || client.command(&["SET", "k", "2"]) == Reply::ok());
    // Started without `masterauth`.
    primary.restart();
    eventually(secs(10), "it follows", || follows(&primary, &replica));
    eventually(secs(5), "and has what was written", || primary.command(&["GET", "k"]) == Reply::bulk("2"));
    assert!(!standin.log().contains("\"secret\""), "the password is in no log line");
    standin.finish();
}

/// A server that also listens with TLS on a port of its own, and the configuration keys of a backend there.
fn tls_server(authority: &Authority, replicates_by_tls: bool) -> (RedisServer, ReservedPort, String) {
    let port = ReservedPort::new();
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (ca, cert, key) = (path(authority.ca()), path(authority.cert("back")), path(authority.key("back")));
    let (number, replication) = (port.number().to_string(), if replicates_by_tls { "yes" } else { "no" });
    let server = RedisServer::start_with(&[
        "--tls-port",
        &number,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
        "--tls-replication",
        replication,
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let tls = format!("[backend.tls]\nca = \"{ca}\"\nserver_name = \"localhost\"\n");
    (server, port, tls)
}

#[test]
fn over_tls_the_replica_is_promoted_the_old_primary_follows_it_and_the_roles_are_exchanged_back() {
    let authority = Authority::new();
    authority.issue("back");
    let (mut primary, primary_port, keys) = tls_server(&authority, true);
    let (replica, replica_port, _) = tls_server(&authority, true);
    let port = primary_port.number().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    eventually(secs(10), "it is in step", || replica.info("master_link_status") == "up");
    let config = StandinConfig::new().backend("primary", "primary", &primary_port.address().to_string(), &keys);
    let config =
        config.backend("backup-a", "backup", &replica_port.address().to_string(), &format!("{REPLICA}\n{keys}"));
    let mut standin = config.quick_recovery().table(PROMOTE).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-"]);
    wait_until_looked_at(&standin, &["backup-a"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "it is replicated", || replica.command(&["GET", "k"]) == Reply::bulk("1"));
    primary.kill();
    eventually(secs(5), "a write is served", || client.command(&["SET", "k", "2"]) == Reply::ok());
    primary.restart();
    eventually(secs(10), "the old primary follows by the port for TLS", || {
        primary.info("role") == "slave"
            && primary.info("master_port") == replica_port.number().to_string()
            && primary.info("master_link_status") == "up"
    });
    standin.wait_until_active("primary", secs(20));
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    let promotion = promotion_of(&standin.events_of("recovery").remove(0));
    assert_eq!(promotion["way"], "failover_command", "{promotion:#}");
    eventually(secs(10), "and the replica is a replica again", || replica.info("master_link_status") == "up");
    standin.finish();
}

#[test]
fn a_server_that_replicates_without_tls_is_not_pointed_at_a_port_for_tls_and_the_status_says_what_to_do() {
    let authority = Authority::new();
    authority.issue("back");
    let (mut primary, primary_port, keys) = tls_server(&authority, false);
    let (replica, replica_port, _) = tls_server(&authority, false);
    follow(&replica, &primary);
    let config = StandinConfig::new().backend("primary", "primary", &primary_port.address().to_string(), &keys);
    let config =
        config.backend("backup-a", "backup", &replica_port.address().to_string(), &format!("{REPLICA}\n{keys}"));
    let mut standin = config.quick_recovery().table(PROMOTE).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-"]);
    wait_until_looked_at(&standin, &["backup-a"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.kill();
    eventually(secs(5), "a write is served", || client.command(&["SET", "k", "2"]) == Reply::ok());
    primary.restart();
    eventually(secs(10), "the status says what to do", || {
        standin.backend("primary")["replication"]["trouble"].to_string().contains("tls-replication yes")
    });
    assert_eq!(primary.info("role"), "master", "it was told nothing that could not work");
    assert_eq!(primary.command(&["CONFIG", "SET", "tls-replication", "yes"]), Reply::ok());
    eventually(secs(10), "it follows", || {
        primary.info("role") == "slave" && primary.info("master_link_status") == "up"
    });
    standin.finish();
}
