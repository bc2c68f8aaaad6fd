//! What an operator types: `standin check`, `healthcheck`, `cache-server`, and what they answer by text and exit code.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::{Client, FaultRelay, RedisServer, Reply, ReservedPort, StandinConfig, eventually, secs};

/// Exit code, standard output and standard error of one command.
fn standin(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
    command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn check(path: &Path, more: &[&str]) -> (i32, String, String) {
    standin(&[&["check", "--config", path.to_str().unwrap()], more].concat())
}

#[test]
fn every_error_of_a_configuration_is_told_at_once_with_file_line_and_key() {
    let file = file(
        "[listen]\naddress = \"127.0.0.1:6380\"\ncolour = \"red\"\n\n[[backend]]\nname = \"a\"\nrole = \"primary\"\n\
         address = \"127.0.0.1:6380\"\n\n[[backend]]\nname = \"a\"\nrole = \"primary\"\naddress = \"10.0.0.1:6379\"\n\
         password = \"file:/nowhere/secret\"\n",
    );
    for command in ["check", "run"] {
        let (code, _, errors) = standin(&[command, "--config", file.path().to_str().unwrap()]);
        assert_eq!(code, 64, "{errors}");
        let place = |line: u32| format!("{}:{line}", file.path().display());
        for (line, key, words) in [
            (3, "listen.colour", "this key is not known"),
            (8, "backend[0].address", "go round for ever"),
            (11, "backend[1].name", "rename one"),
            (12, "backend[1].role", "role = \"backup\""),
            (14, "backend[1].password", "/nowhere/secret"),
        ] {
            let is_told = |text: &&str| text.contains(&place(line)) && text.contains(key);
            let told = errors.lines().find(is_told).unwrap_or_else(|| panic!("no line {line} of {key} in\n{errors}"));
            assert!(errors.contains(words), "{words:?} is missing at {told:?} in\n{errors}");
        }
    }
}

#[test]
fn check_connect_tells_roles_versions_missing_rights_and_what_could_not_be_entered() {
    let (primary, backup, occupied) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
    let cluster = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    occupied.command(&["SET", "theirs", "1"]);
    backup.command(&["ACL", "SETUSER", "default", "-role"]);
    let alias = FaultRelay::start(primary.address());
    let nobody = ReservedPort::new();
    let config = StandinConfig::new().primary(primary.address()).backup("few-rights", backup.address());
    let config = config.backup("occupied", occupied.address()).backup("node", cluster.address());
    let config = config.backup("alias", alias.address()).backup("nobody", nobody.address());
    let file = file(&config.toml());
    let (code, text, _) = check(file.path(), &[]);
    assert_eq!(code, 0, "{text}");
    let (code, text, _) = check(file.path(), &["--connect"]);
    assert_eq!(code, 1, "{text}");
    let version = primary.info("redis_version");
    assert!(text.contains(&format!("version {version}, role master")), "{text}");
    for words in
        ["ROLE is refused", "standin adopt occupied", "node of a cluster", "the same server as backend primary"]
    {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    assert!(text.lines().any(|line| line.contains("PROBLEM") && line.contains("nobody")), "{text}");
    assert!(text.contains("4 problems"), "{text}");
    assert_eq!(occupied.command(&["GET", "theirs"]), Reply::bulk("1"), "a check changes nothing");
    assert_eq!(primary.command(&["DBSIZE"]), Reply::Integer(0));
}

#[test]
fn a_cluster_node_is_not_served_from_and_the_status_says_what_to_do() {
    let (primary, cluster) = (RedisServer::start(), RedisServer::start_with(&["--cluster-enabled", "yes"]));
    let mut standin = StandinConfig::pair(primary.address(), cluster.address()).start();
    standin.declare(&["backup-a", "cluster"]);
    eventually(secs(5), "it is refused", || {
        let backend = standin.backend("backup-a");
        backend["enterable"] == false && backend["why_not"].to_string().contains("cluster")
    });
    assert!(standin.backend("backup-a")["mend"].to_string().contains("standalone"));
    standin.finish();
}

#[test]
fn healthcheck_ends_with_0_where_a_standin_answers_and_with_1_elsewhere() {
    let primary = RedisServer::start();
    let process = StandinConfig::new().primary(primary.address()).start();
    let control = process.control_address().to_string();
    assert_eq!(standin(&["healthcheck", "--control", &control]).0, 0);
    process.finish();
    assert_eq!(standin(&["healthcheck", "--control", &control]).0, 1);
    assert_eq!(standin(&["--version"]).0, 0);
}

#[test]
fn the_embedded_store_lists_its_commands_and_refuses_locks_and_counters_unless_told_otherwise() {
    for (is_allowed, keys) in [(false, ""), (true, "[embedded]\nlocks_and_counters = true")] {
        let nobody = ReservedPort::new();
        let config = StandinConfig::new().backend("primary", "primary", &nobody.address().to_string(), "");
        let mut process = config.backend("last", "backup", "embedded", "").table(keys).start();
        process.declare(&["primary", "failover", "backend"]);
        process.wait_until_active("last", secs(10));
        let mut client = process.connect();
        let listed = client.command(&["COMMAND", "COUNT"]).integer();
        assert!(listed > 100, "{listed} commands");
        assert_eq!(client.command(&["COMMAND"]).elements().len() as i64, listed);
        assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
        for request in [&["INCR", "n"][..], &["SET", "lock", "me", "NX", "PX", "1000"], &["SETNX", "lock", "me"]] {
            let reply = client.command(request);
            assert_eq!(reply.is_error(), !is_allowed, "{request:?}: {reply:?}");
        }
        process.finish();
    }
}

#[test]
fn cache_server_serves_the_store_with_a_password_and_ends_on_sigterm() {
    let port = ReservedPort::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_standin"))
        .args(["cache-server", "--port", &port.number().to_string()])
        .env("CACHE_SERVER_PASSWORD", "secret")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(secs(10), "it answers", || Client::try_connect(port.address()).is_ok());
    let mut client = Client::connect(port.address());
    assert!(client.command(&["GET", "k"]).is_error_word("NOAUTH"));
    assert_eq!(client.command(&["AUTH", "secret"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    support::signal(child.id(), libc::SIGTERM);
    assert!(child.wait().unwrap().success());
}
