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
