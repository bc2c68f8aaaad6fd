//! Command lines as people type them, and the client commands against a control port on loopback.

#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::CommandFactory;
use secrecy::ExposeSecret;

use super::client::{ControlClient, Target};
use super::control_commands::last_seen;
use super::*;
use crate::admin::{EventsReport, router, tests::start};
use crate::config::{Control, Secret};
use crate::telemetry::events::{Event, EventKind, History};

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

fn carried_out(line: &str) -> Result<(), Failure> {
    carry_out(parse(line).unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// A control port on a thread and a runtime of its own, as it is for the real command line. Lives as long as the test.
fn control_port(token: Option<&'static str>) -> (SocketAddr, Arc<History>) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let port = start(token, router).await;
            sender.send((port.address, port.history.clone())).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}

/// An address at which nobody listens.
fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("standin.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

const GOOD: &str = "
[listen]
address = \"127.0.0.1:6380\"
[[backend]]
name = \"primary\"
role = \"primary\"
address = \"127.0.0.1:6379\"
[[backend]]
name = \"backup-a\"
role = \"backup\"
address = \"127.0.0.1:6390\"
";

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_command_line_is_read() {
    for line in [
        "standin run --config standin.toml",
        "standin check --config standin.toml --connect",
        "standin demo",
        "standin demo --seconds 10 --kill-primary-after 4",
        "standin cache-server --port 0 --bind ::1 --max-memory 64MiB --password secret",
        "standin healthcheck --control 127.0.0.1:9180",
        "standin status --json",
        "standin events --follow --json --limit 5",
        "standin failover --to backup-a --group default --reason maintenance",
        "standin failover backup-a --plan drain --dry-run",
        "standin recover --plan immediate",
        "standin failover backup-a --plan blue_green --dwell 1m",
        "standin failover backup-a --plan canary --dwell 30s --dry-run",
        "standin recover --plan gradual --dwell 5m --dry-run",
        "standin recover --dwell 5m",
        "standin pause",
        "standin resume --reason seen",
        "standin rollback --group default",
        "standin recover",
        "standin adopt backup-a --group default",
        "standin disown backup-a",
        "standin pin backup-a --for 10m --reason maintenance",
        "standin unpin",
        "standin drain primary --reason upgrade",
        "standin exclude backup-a",
        "standin include backup-a --group default",
        "standin confirm",
        "standin confirm 3 --reason seen",
        "standin reject 3",
        "standin stats --json",
        "standin explain 17",
        "standin recording 17 --output 17.json",
        "standin replay 17.json --config other.toml --group default --json",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn wrong_command_lines_are_refused_with_the_exit_code_of_bad_configuration() {
    for line in [
        "standin",
        "standin sing",
        "standin cache-server",
        "standin cache-server --port 65536",
        "standin cache-server --port 1 --max-memory much",
        "standin adopt",
        "standin events --limit 0",
        "standin pin backup-a",
        "standin pin backup-a --for soon",
        "standin recover --plan gradual --dwell soon",
        "standin explain",
        "standin replay x.json --group default",
        "standin demo --seconds 0",
        "standin status --config",
    ] {
        assert_eq!(main(line.split(' ').map(OsString::from)), ExitCode::from(64), "{line}");
    }
    assert_eq!(main(["standin", "--version"].map(OsString::from)), ExitCode::SUCCESS);
}

#[test]
fn a_cache_servers_memory_is_read_in_its_unit() {
    let Command::CacheServer(arguments) = parse("standin cache-server --port 7 --max-memory 64MiB").unwrap() else {
        panic!("another command");
    };
    assert_eq!((arguments.port, arguments.max_memory), (7, 64 << 20));
    assert!(arguments.bind.is_loopback(), "{}", arguments.bind);
}

#[test]
fn a_cache_server_whose_port_is_taken_fails_and_names_the_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let Command::CacheServer(arguments) = parse(&format!("standin cache-server --port {port}")).unwrap() else {
        panic!("another command");
    };
    let failure = run::serve_store(arguments).unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(failure.text.contains(&port.to_string()) && failure.text.contains("in use"), "{}", failure.text);
}

#[test]
fn check_accepts_a_good_file_and_names_every_error_of_a_bad_one() {
    let (_directory, path) = file(GOOD);
    assert_eq!(carried_out(&format!("standin check --config {path}")), Ok(()));
    let (_directory, path) = file(&GOOD.replace("role = \"primary\"", "role = \"boss\"").replace("address", "adress"));
    for command in ["check", "run"] {
        let failure = carried_out(&format!("standin {command} --config {path}")).unwrap_err();
        assert_eq!(failure.code, 64);
        assert!(failure.text.contains("boss") && failure.text.contains("adress"), "{}", failure.text);
    }
    let failure = carried_out("standin check --config /nowhere/standin.toml").unwrap_err();
    assert!(failure.code == 64 && failure.text.contains("/nowhere/standin.toml"), "{}", failure.text);
}

#[test]
fn the_client_commands_do_what_they_say_and_show_the_refusals() {
    let (address, history) = control_port(None);
    history.record(Event::new(EventKind::Started, "serving"));
    for command in [
        "healthcheck",
        "status",
        "status --json",
        "events",
        "events --json",
        "failover --reason maintenance",
        "failover backup-a --plan immediate --dry-run",
        "failover backup-a --plan blue_green",
        "failover backup-a --plan canary --dwell 1s --dry-run",
        "recover --plan gradual",
        "pause",
        "resume",
        "rollback",
        "recover",
        "adopt backup-a",
        "disown backup-a",
        "pin backup-a --for 10m",
        "unpin",
        "drain backup-a",
        "exclude backup-a",
        "include backup-a",
        "confirm 3",
        "reject",
        "stats",
        "stats --json",
        "explain 1",
        "explain 1 --json",
    ] {
        assert_eq!(carried_out(&format!("standin {command} --control {address}")), Ok(()), "{command}");
    }
    for (command, text) in [
        ("failover --to backup-b", "it is not empty\n  standin adopt backup-b"),
        ("explain 99", "there is no event 99"),
        ("recording 1", "nothing is recorded yet"),
        ("drain nowhere", "no backend named 'nowhere'"),
        ("adopt nowhere", "no backend named 'nowhere'\n  the backends of the group are: primary, backup-a"),
    ] {
        let failure = carried_out(&format!("standin {command} --control http://{address}/")).unwrap_err();
        assert!(failure.code == 1 && failure.text.contains(text), "{command}: {}", failure.text);
    }
}

#[test]
fn the_token_and_the_address_are_taken_from_the_configuration_file() {
    let (address, _history) = control_port(Some("s3cret"));
    let control = |token| format!("{GOOD}\n[control]\naddress = \"{address}\"\ntoken = \"{token}\"\n");
    let (_directory, path) = file(&control("s3cret"));
    assert_eq!(carried_out(&format!("standin status --config {path}")), Ok(()));
    let (_directory, path) = file(&control("guess"));
    let failure = carried_out(&format!("standin status --config {path}")).unwrap_err();
    assert!(failure.text.contains("token") && !failure.text.contains("guess"), "{}", failure.text);
    assert_eq!(carried_out(&format!("standin healthcheck --config {path}")), Ok(()), "health asks for no token");
}

#[test]
fn where_nobody_listens_the_command_fails_and_says_where_it_looked() {
    let address = dead_address();
    for command in ["healthcheck", "status", "events --follow", "failover", "adopt backup-a"] {
        let failure = carried_out(&format!("standin {command} --control {address}")).unwrap_err();
        assert_eq!(failure.code, 1, "{command}");
        let text = failure.text;
        assert!(text.contains(&address.to_string()) && text.contains("refused"), "{command}: {text}");
    }
}

#[tokio::test]
async fn a_process_that_accepts_and_never_answers_is_not_well() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target { authority: listener.local_addr().unwrap().to_string(), token: None };
    let error = ControlClient::new(target).is_well("/livez", Duration::from_millis(20)).await.unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
}

#[test]
fn the_address_is_taken_in_its_usual_forms_and_nothing_else() {
    let authority = |address| Target::choose(Some(address), None, None).map(|target| target.authority);
    for address in ["127.0.0.1:9180", "http://127.0.0.1:9180", "http://127.0.0.1:9180/"] {
        assert_eq!(authority(address), Ok("127.0.0.1:9180".to_owned()), "{address}");
    }
    assert_eq!(authority("[::1]:9180"), Ok("[::1]:9180".to_owned()));
    for address in ["", "127.0.0.1", ":9180", "9180", "https://a:1", "user@a:1", "a:1/v1", "a b:1", "a:99999"] {
        assert_eq!(authority(address).map_err(|failure| failure.code), Err(64), "{address}");
    }
}

#[test]
fn without_an_address_the_configured_one_is_taken_as_it_can_be_reached_from_here() {
    let control = |address: &str| Control { address: address.parse().unwrap(), token: Some(Secret::literal("file")) };
    for (configured, reached) in
        [("0.0.0.0:9190", "127.0.0.1:9190"), ("[::]:9190", "[::1]:9190"), ("10.0.0.7:9190", "10.0.0.7:9190")]
    {
        let target = Target::choose(None, Some(control(configured)), None).unwrap();
        assert_eq!((target.authority.as_str(), target.token.unwrap().expose_secret()), (reached, "file"));
    }
    let target = Target::choose(None, Some(control("10.0.0.7:9190")), Some("variable")).unwrap();
    assert_eq!(target.token.unwrap().expose_secret(), "variable");
    let target = Target::choose(None, None, Some("")).unwrap();
    assert_eq!((target.authority.as_str(), target.token.is_none()), ("127.0.0.1:9180", true));
}

#[test]
fn following_goes_on_after_the_last_event_and_begins_again_after_a_restart() {
    let report = |ids: &[u64], last_id| {
        let event = |id: &u64| Event { id: *id, ..Event::new(EventKind::Config, "read") };
        EventsReport { events: ids.iter().map(event).collect(), last_id }
    };
    assert_eq!(last_seen(&report(&[], 0), 0), 0);
    assert_eq!(last_seen(&report(&[4, 5], 9), 3), 5);
    assert_eq!(last_seen(&report(&[], 5), 5), 5);
    assert_eq!(last_seen(&report(&[], 2), 5), 0);
}
