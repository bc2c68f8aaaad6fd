//! TLS at the front door and to the backends: who is let in, whom we trust, and certificates that change under way.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Authority, Client, RedisServer, Reply, StandinConfig, StandinProcess, TlsRelay, eventually, ms, secs};

/// Two servers behind a Standin whose listener speaks TLS with the certificate `front`.
struct Stage {
    _primary: RedisServer,
    _backup: RedisServer,
    authority: Authority,
    standin: StandinProcess,
}

impl Stage {
    fn start(further_keys: impl FnOnce(&Authority) -> String) -> Self {
        let authority = Authority::new();
        authority.issue("front");
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let tls = format!(
            "[listen.tls]\ncert = \"{}\"\nkey = \"{}\"\n{}",
            authority.cert("front").display(),
            authority.key("front").display(),
            further_keys(&authority),
        );
        let standin = StandinConfig::pair(primary.address(), backup.address()).listen_keys(&tls).start();
        Self { _primary: primary, _backup: backup, authority, standin }
    }

    fn relay(&self) -> TlsRelay {
        TlsRelay::originate(self.standin.address(), &self.authority, None)
    }
}

/// A backend behind TLS, whose certificate is `back` of this authority.
fn backend_keys(ca: &Authority, further_keys: &str) -> String {
    format!("[backend.tls]\nca = \"{}\"\nserver_name = \"localhost\"\n{further_keys}", ca.ca().display())
}

#[test]
fn a_tls_client_is_served_as_a_plain_one() {
    let stage = Stage::start(|_| String::new());
    let relay = stage.relay();
    let mut client = Client::connect(relay.address());
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert!(matches!(client.command(&["HELLO", "3"]), Reply::Map(_)));
    let pipeline = b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n".repeat(1_000);
    client.send_raw(&pipeline);
    for expected in 2..=1_001 {
        assert_eq!(client.read(), Reply::Integer(expected));
    }
    let value: Vec<u8> = (0..8 << 20).map(|at: usize| (at % 251) as u8).collect();
    assert_eq!(client.command(&[&b"SET"[..], b"big", &value]), Reply::ok());
    let Reply::Bulk(read) = client.command(&["GET", "big"]) else { panic!("no bulk string") };
    assert!(read == value, "the value changed on its way");
    stage.standin.finish();
}

#[test]
fn a_client_that_speaks_no_tls_is_not_served_and_hurts_nobody() {
    let stage = Stage::start(|_| String::new());
    let relay = stage.relay();
    let mut client = Client::connect(relay.address());
    for _ in 0..20 {
        let mut plain = Client::connect(stage.standin.address());
        plain.send_raw(b"*1\r\n$4\r\nPING\r\n");
        assert!(plain.try_read().is_err(), "a plain request was answered");
    }
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    stage.standin.finish();
}

#[test]
fn clients_that_do_not_finish_their_handshake_are_bounded_as_others_are() {
    let authority = Authority::new();
    authority.issue("front");
    let (cert, key) = (authority.cert("front"), authority.key("front"));
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let keys = format!("clients_max = 3\n[listen.tls]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display());
    let standin = StandinConfig::pair(primary.address(), backup.address()).listen_keys(&keys).start();
    let waiting: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(standin.address()).unwrap()).collect();
    let mut refused = 0;
    eventually(secs(5), "the next one is closed", || {
        let mut next = std::net::TcpStream::connect(standin.address()).unwrap();
        next.set_read_timeout(Some(ms(200))).unwrap();
        refused += usize::from(matches!(std::io::Read::read(&mut next, &mut [0; 16]), Ok(0)));
        refused > 0
    });
    drop(waiting);
    standin.finish();
}

#[test]
fn a_new_certificate_serves_the_next_client_and_the_old_connection_goes_on() {
    let stage = Stage::start(|_| String::new());
    let first = stage.relay();
    let mut old = Client::connect(first.address());
    assert_eq!(old.command(&["SET", "k", "1"]), Reply::ok());
    let before = first.last_certificate().unwrap();

    let renewed = stage.authority.issue("front");
    assert_ne!(renewed, before);
    let second = stage.relay();
    let mut new = Client::connect(second.address());
    assert_eq!(new.command(&["GET", "k"]), Reply::bulk("1"));
    assert_eq!(second.last_certificate().unwrap(), renewed);
    assert_eq!(old.command(&["GET", "k"]), Reply::bulk("1"));
    stage.standin.finish();
}

#[test]
fn a_rotation_that_is_half_written_leaves_the_old_certificate_in_use() {
    let mut stage = Stage::start(|_| String::new());
    stage.standin.declare(&["tls files"]);
    let relay = stage.relay();
    assert!(!Client::connect(relay.address()).command(&["PING"]).is_error());
    let before = relay.last_certificate().unwrap();
    std::fs::write(stage.authority.key("front"), "half a k").unwrap();
    let during = stage.relay();
    assert!(!Client::connect(during.address()).command(&["PING"]).is_error());
    assert_eq!(during.last_certificate().unwrap(), before);
    assert!(stage.standin.log().contains("the old ones serve on"));

    let renewed = stage.authority.issue("front");
    let after = stage.relay();
    assert!(!Client::connect(after.address()).command(&["PING"]).is_error());
    assert_eq!(after.last_certificate().unwrap(), renewed);
    stage.standin.finish();
}

#[test]
fn where_client_certificates_are_asked_for_none_comes_in_without() {
    let stage = Stage::start(|authority| format!("client_ca = \"{}\"\n", authority.ca().display()));
    stage.authority.issue("app");
    let with = TlsRelay::originate(stage.standin.address(), &stage.authority, Some("app"));
    assert_eq!(Client::connect(with.address()).command(&["SET", "k", "1"]), Reply::ok());

    let without = stage.relay();
    let mut client = Client::connect(without.address());
    assert!(client.try_command(&["GET", "k"]).is_err(), "served without a certificate");
    stage.standin.finish();
}

#[test]
fn backends_behind_tls_are_served_from_and_failed_over_between() {
    let authority = Authority::new();
    authority.issue("back");
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let front = TlsRelay::terminate(primary.address(), &authority, "back", None);
    let behind = TlsRelay::terminate(backup.address(), &authority, "back", None);
    let keys = backend_keys(&authority, "");
    let config = StandinConfig::new().backend("primary", "primary", &front.address().to_string(), &keys).backend(
        "backup-a",
        "backup",
        &behind.address().to_string(),
        &keys,
    );
    let mut standin = config.start();
    standin.declare(support::PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    let value = vec![b'x'; 8 << 20];
    assert_eq!(client.command(&[&b"SET"[..], b"big", &value]), Reply::ok());
    assert_eq!(client.command(&["GET", "big"]).text().len(), value.len());
    assert_eq!(primary.command(&["GET", "k"]), Reply::bulk("1"));

    primary.kill();
    standin.wait_until_active("backup-a", secs(5));
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    assert_eq!(backup.command(&["GET", "k"]), Reply::bulk("2"));
    standin.finish();
}

#[test]
fn a_backend_whose_certificate_another_authority_signed_gets_no_request() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    theirs.issue("back");
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = TlsRelay::terminate(primary.address(), &theirs, "back", None);
    let keys = backend_keys(&ours, "");
    let config = StandinConfig::new()
        .backend("primary", "primary", &relay.address().to_string(), &keys)
        .backup("backup-a", backup.address());
    let mut standin = config.start();
    standin.declare(&["primary", "backup-a"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(standin.active(), "backup-a");
    assert_eq!(primary.command(&["DBSIZE"]), Reply::Integer(0), "something was written to an impostor");
    standin.finish();
}

#[test]
fn a_backend_that_asks_for_our_certificate_is_shown_the_newest() {
    let authority = Authority::new();
    authority.issue("back");
    let first = authority.issue("standin");
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = TlsRelay::terminate(primary.address(), &authority, "back", Some(&authority));
    let own = format!(
        "cert = \"{}\"\nkey = \"{}\"\n",
        authority.cert("standin").display(),
        authority.key("standin").display()
    );
    let config = StandinConfig::new()
        .backend("primary", "primary", &relay.address().to_string(), &backend_keys(&authority, &own))
        .backup("backup-a", backup.address());
    let mut standin = config.start();
    standin.declare(&["primary"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    assert_eq!(relay.last_certificate().unwrap(), first);

    let renewed = authority.issue("standin");
    // Whatever connects next, a link or a probe, shows the new one; killing all of ours makes that happen now.
    primary.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually(secs(5), "the new certificate is shown", || relay.last_certificate().unwrap() == renewed);
    eventually(secs(5), "requests are served again", || client.command(&["GET", "k"]) == Reply::bulk("1"));
    standin.finish();
}
