//! `data = "replica"`: a backup that the server itself keeps in step, promoted by hand or not at all.
#![allow(clippy::unwrap_used)]

mod support;

use support::{PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms, secs, throughout};

const REPLICA: &str = "data = \"replica\"";

/// A primary that holds `k`, a replica of it that has it too, and a Standin that knows both.
fn stage() -> (RedisServer, RedisServer, StandinProcess) {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    follow(&replica, &primary);
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &replica.address().to_string(), REPLICA).quick_recovery();
    let mut standin = config.start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "the replica has it", || replica.command(&["GET", "k"]) == Reply::bulk("1"));
    eventually(secs(5), "the replica has been looked at", || standin.backend("backup-a")["enterable"] == true);
    assert_eq!(standin.backend("backup-a")["data"], "replica");
    (primary, replica, standin)
}

fn follow(replica: &RedisServer, primary: &RedisServer) {
    let port = primary.address().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    eventually(secs(10), "it is in step", || replica.info("master_link_status") == "up");
}

#[test]
fn a_replica_that_waits_is_in_step_and_neither_emptied_nor_written_to() {
    let (_primary, replica, standin) = stage();
    throughout(secs(2), "it keeps what it replicates", || replica.command(&["GET", "k"]) == Reply::bulk("1"));
    assert_eq!(replica.info("role"), "slave");
    let backend = standin.backend("backup-a");
    assert_eq!(backend["health"], "healthy", "{backend:#}");
    assert!(standin.events_of("not_enterable").is_empty(), "{:#?}", standin.events());
    standin.finish();
}

#[test]
fn a_replica_configured_as_cold_is_refused_with_what_to_do_in_status_event_and_check() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    follow(&replica, &primary);
    let config = StandinConfig::pair(primary.address(), replica.address());
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), config.toml()).unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_standin"));
    let output = check.args(["check", "--connect", "--config"]).arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let is_told = |text: &str| text.contains("it is a replica but is not configured as one; set data = \"replica\"");
    assert!(is_told(&text) && text.contains("mend: set data = \"replica\" for backend backup-a"), "{text}");
    let mut standin = config.start();
    standin.declare(&["backup-a"]);
    eventually(secs(5), "the status says so", || {
        let backend = standin.backend("backup-a");
        backend["enterable"] == false && is_told(backend["why_not"].as_str().unwrap_or_default())
    });
    let events = standin.events_of("not_enterable");
    assert!(events.len() == 1 && is_told(events[0]["message"].as_str().unwrap()), "{events:#?}");
    assert_eq!(replica.info("role"), "slave");
    standin.finish();
}

#[test]
fn a_mirrored_backup_that_becomes_a_replica_later_is_refused_from_then_on() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let address = backup.address().to_string();
    let config = StandinConfig::new().primary(primary.address());
    let mut standin = config.backend("backup-a", "backup", &address, "data = \"mirrored\"").start();
    standin.declare(&["backup-a"]);
    eventually(secs(5), "it can be entered", || standin.backend("backup-a")["enterable"] == true);
    follow(&backup, &primary);
    eventually(secs(5), "it is refused", || {
        standin.backend("backup-a")["why_not"].to_string().contains("set data = \\\"replica\\\"")
    });
    assert!(!standin.events_of("not_enterable").is_empty());
    assert_eq!(backup.command(&["REPLICAOF", "NO", "ONE"]), Reply::ok());
    eventually(secs(10), "it can be entered again", || standin.backend("backup-a")["enterable"] == true);
    standin.finish();
}

#[test]
fn lag_offset_and_bandwidth_of_a_replica_are_in_the_status_and_the_metrics() {
    let (primary, replica, standin) = stage();
    let mut client = standin.connect();
    let value = "x".repeat(1_000);
    for n in 0..500 {
        assert_eq!(client.command(&["SET", &format!("k{n}"), &value]), Reply::ok());
    }
    eventually(secs(5), "the replica is in step, and it shows", || {
        let replication = standin.backend("backup-a")["replication"].clone();
        replication["role"] == "replica"
            && replication["link_is_up"] == true
            && replication["behind_writes"] == 0
            && replication["behind_ms"] == 0
            && replication["offset"].as_u64() > Some(500_000)
            && replication["bytes_per_second"].as_u64() > Some(10_000)
    });
    let port = primary.address().port();
    assert_eq!(standin.backend("backup-a")["replication"]["follows"], format!("127.0.0.1:{port}"));
    assert_eq!(standin.backend("primary")["replication"]["role"], "master");
    let labels = "{group=\"default\",backend=\"backup-a\"}";
    eventually(secs(3), "the metrics have it", || {
        standin.metric(&format!("standin_replication_offset_bytes{labels}")) > 500_000.0
            && standin.metric(&format!("standin_replication_link_up{labels}")) == 1.0
            && standin.metric(&format!("standin_replication_lag_seconds{labels}")) == 0.0
    });
    // Cut off from its master it falls behind, and the bound grows with what is written meanwhile.
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", "1"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "late"]), Reply::ok());
    eventually(secs(5), "it shows", || {
        let replication = standin.backend("backup-a")["replication"].clone();
        replication["link_is_up"] == false
            && replication["behind_writes"].as_u64() >= Some(1)
            && replication["behind_bytes"].as_u64() > Some(0)
    });
    eventually(secs(3), "the metrics have it", || {
        standin.metric(&format!("standin_replication_link_up{labels}")) == 0.0
    });
    standin.finish();
}

#[test]
fn standin_follows_whoever_is_promoted_by_others_and_promotes_nobody() {
    let (mut primary, first, second) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
    follow(&first, &primary);
    follow(&second, &primary);
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &first.address().to_string(), REPLICA);
    let config = config.backend("backup-b", "backup", &second.address().to_string(), REPLICA);
    let mut standin = config.quick_recovery().start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-", "READONLY"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    for (server, name) in [(&first, "backup-a"), (&second, "backup-b")] {
        eventually(secs(5), "it has it", || server.command(&["GET", "k"]) == Reply::bulk("1"));
        eventually(secs(5), "it can be entered", || standin.backend(name)["enterable"] == true);
    }
    let planned = standin.post("/v1/failover", &serde_json::json!({ "to": "backup-a" }));
    assert_eq!(planned.code, 409, "a replica that nobody promotes takes no writes: {planned:?}");
    assert!(planned.body.contains("replica.promote is off"), "{planned:?}");
    primary.kill();
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"), "reads are served");
    throughout(ms(500), "nobody is promoted", || first.info("role") == "slave" && second.info("role") == "slave");
    // What Sentinel does.
    assert_eq!(second.command(&["REPLICAOF", "NO", "ONE"]), Reply::ok());
    follow(&first, &second);
    eventually(secs(10), "writes are served", || client.command(&["SET", "k", "2"]) == Reply::ok());
    assert_eq!(standin.active(), "backup-b");
    throughout(secs(1), "and stay", || client.command(&["SET", "k", "3"]) == Reply::ok());
    standin.finish();
}

#[test]
fn a_replica_that_is_promoted_by_hand_serves_everything_with_its_content() {
    let (mut primary, replica, mut standin) = stage();
    standin.declare(&["backup-a"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    primary.kill();
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"), "the content is there at once");
    assert_eq!(standin.active(), "backup-a");
    assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), Reply::ok());
    eventually(secs(3), "writes are taken", || client.command(&["SET", "k", "2"]) == Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    assert_eq!(client.command(&["INCR", "n"]), Reply::Integer(1));
    throughout(ms(1_500), "and stay", || client.command(&["GET", "k"]) == Reply::bulk("2"));
    eventually(secs(3), "it is well", || standin.backend("backup-a")["health"] == "healthy");
    standin.finish();
}

#[test]
fn a_replica_that_is_not_promoted_serves_reads_and_refuses_writes_and_the_status_says_so() {
    let (mut primary, replica, mut standin) = stage();
    standin.declare(&["backup-a", "READONLY"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"));
    primary.kill();
    let mut writer = standin.connect();
    for turn in 0..3 {
        assert_eq!(client.command(&["GET", "k"]), Reply::bulk("1"), "turn {turn}");
        let refusal = writer.command(&["SET", "k", "2"]);
        assert!(refusal.is_error_word("READONLY"), "turn {turn}: {refusal:?}");
    }
    assert_eq!(standin.active(), "backup-a");
    eventually(secs(3), "the status names its role", || {
        let backend = standin.backend("backup-a");
        backend["health"] != "healthy" && backend["reasons"].to_string().contains("refuses writes")
    });
    throughout(secs(1), "it goes on serving reads", || client.command(&["GET", "k"]) == Reply::bulk("1"));
    // The primary returns empty, and the replica takes its content over: that is what replication is.
    primary.restart();
    standin.wait_until_active("primary", secs(15));
    assert_eq!(writer.command(&["SET", "k", "3"]), Reply::ok());
    eventually(secs(10), "it follows again", || replica.command(&["GET", "k"]) == Reply::bulk("3"));
    standin.finish();
}
