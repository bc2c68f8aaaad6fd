//! `divergence.source = "tracking"`: what others write on the server that serves is known as missed elsewhere.
#![allow(clippy::unwrap_used)]

mod support;

use support::{
    Client, Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, secs,
};

struct Outage {
    _primary: RedisServer,
    backup: RedisServer,
    relay: FaultRelay,
    standin: StandinProcess,
    client: Client,
}

impl Outage {
    /// The primary holds some keys and is cut off; the backup serves.
    fn begin(source: &str) -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let relay = FaultRelay::start(primary.address());
        // What nobody heard of could else be found by comparing.
        let source = format!("[divergence]\nsource = \"{source}\"\n[sampling]\nmode = \"off\"");
        let mut standin = StandinConfig::quick_pair(relay.address(), backup.address()).table(&source).start();
        standin.declare(PRIMARY_LOST);
        let mut client = standin.connect();
        for key in ["theirs", "ours", "kept"] {
            assert_eq!(client.command(&["SET", key, "before"]), Reply::ok());
        }
        relay.set(Fault::Refuse);
        assert_eq!(client.command(&["GET", "kept"]), Reply::Nil);
        standin.wait_until_active("backup-a", secs(5));
        Self { _primary: primary, backup, relay, standin, client }
    }

    fn end(&mut self) {
        self.relay.heal();
        self.standin.wait_until_active("primary", secs(20));
    }
}

#[test]
fn a_key_that_another_writer_changed_in_the_outage_does_not_come_back() {
    let mut outage = Outage::begin("tracking");
    assert_eq!(outage.backup.command(&["SET", "theirs", "meanwhile"]), Reply::ok());
    assert_eq!(outage.client.command(&["SET", "ours", "meanwhile"]), Reply::ok());
    outage.end();
    for key in ["theirs", "ours"] {
        // What was missed is copied before the primary serves, or removed where it cannot be.
        let value = outage.client.command(&["GET", key]);
        assert!([Reply::bulk("meanwhile"), Reply::Nil].contains(&value), "an old value of {key} came back: {value:?}");
    }
    assert_eq!(outage.client.command(&["GET", "kept"]), Reply::bulk("before"), "more was removed than was written");
    outage.standin.finish();
}

#[test]
fn by_commands_alone_another_writer_is_not_heard_of() {
    let mut outage = Outage::begin("commands");
    assert_eq!(outage.backup.command(&["SET", "theirs", "meanwhile"]), Reply::ok());
    outage.end();
    assert_eq!(outage.client.command(&["GET", "theirs"]), Reply::bulk("before"), "then tracking would be for nothing");
    outage.standin.finish();
}

/// The server's id of the connection that listens.
fn listener(server: &RedisServer) -> Option<String> {
    let list = server.command(&["CLIENT", "LIST"]).text();
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|part| part.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    list.lines().find(|line| field(line, "flags=").contains('t')).map(|line| field(line, "id="))
}

#[test]
fn when_the_connection_that_listens_is_lost_the_content_is_unknown() {
    let mut outage = Outage::begin("tracking");
    let id = listener(&outage.backup).expect("somebody listens");
    assert_eq!(outage.backup.command(&["CLIENT", "KILL", "ID", &id]), Reply::Integer(1));
    eventually(secs(5), "the loss is noticed", || {
        outage.standin.backend("primary")["divergence"]["state"] == "unknown"
    });
    outage.end();
    assert_eq!(outage.client.command(&["GET", "kept"]), Reply::Nil, "it was emptied");
    outage.standin.finish();
}

#[test]
fn nobody_listens_while_there_is_nothing_to_record() {
    let mut outage = Outage::begin("tracking");
    assert!(listener(&outage.backup).is_some());
    outage.end();
    eventually(secs(5), "the connection is closed", || listener(&outage.backup).is_none());
    outage.standin.finish();
}
