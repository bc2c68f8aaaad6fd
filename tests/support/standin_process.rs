//! The real binary as a child process, its log read line by line and its control port at hand.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{HttpResponse, http_request};
use super::port::ReservedPort;
use super::redis_server::signal;
use super::resp::Client;

const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether clients are to be given the plain server's address instead of Standin's.
pub(crate) fn under_test_is_direct() -> bool {
    std::env::var("STANDIN_UNDER_TEST").is_ok_and(|value| value == "direct")
}

/// A running Standin. [`StandinProcess::finish`] ends it and judges its log; forgetting that fails the test.
#[derive(Debug)]
pub(crate) struct StandinProcess {
    child: Option<Child>,
    log: LogBook,
    readers: Vec<JoinHandle<()>>,
    declared: Vec<String>,
    ports: Option<Ports>,
    direct: Option<SocketAddr>,
    is_finished: bool,
    file: tempfile::NamedTempFile,
    environment: Vec<(String, String)>,
}

/// Where it listens.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) listen: ReservedPort,
    pub(crate) control: ReservedPort,
    pub(crate) observe: Option<ReservedPort>,
    /// With groups, by their names; then nothing listens at `listen`.
    pub(crate) groups: Vec<(String, ReservedPort)>,
}

impl StandinProcess {
    #[track_caller]
    pub(crate) fn spawn(toml: &str, environment: &[(String, String)], first_backend: Option<SocketAddr>) -> Self {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
        std::fs::write(file.path(), toml).expect("the configuration is written");
        let mut process = Self {
            child: None,
            log: LogBook::default(),
            readers: Vec::new(),
            declared: Vec::new(),
            ports: None,
            direct: None,
            is_finished: false,
            file,
            environment: environment.to_vec(),
        };
        if under_test_is_direct() {
            process.direct = Some(first_backend.expect("a backend that is a server of its own"));
            return process;
        }
        process.launch();
        process
    }

    fn launch(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STANDIN_")) {
            command.env_remove(name);
        }
        command.args(["run", "--config"]).arg(self.file.path()).env("NO_COLOR", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        self.readers.push(self.log.read(child.stdout.take().expect("a pipe")));
        self.readers.push(self.log.read(child.stderr.take().expect("a pipe")));
        self.child = Some(child);
    }

    pub(crate) fn own_ports(&mut self, ports: Ports) {
        self.ports = Some(ports);
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        if self.direct.is_some() {
            return;
        }
        let start = Instant::now();
        loop {
            let listens = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)).is_ok();
            let ready = http_request(self.control_address(), "GET", "/readyz", None);
            if listens && ready.is_ok_and(|response| response.code == 200) {
                return;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(ended.is_none(), "standin ended: {ended:?}\n{}", self.log.text());
            assert!(start.elapsed() < START_TIMEOUT, "standin is not ready\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where clients go; with groups, those of the first.
    pub(crate) fn address(&self) -> SocketAddr {
        let first = || self.ports().groups.first().map_or(&self.ports().listen, |(_, port)| port);
        self.direct.unwrap_or_else(|| first().address())
    }

    /// Where clients of one group go.
    pub(crate) fn group_address(&self, name: &str) -> SocketAddr {
        let group = self.ports().groups.iter().find(|(group, _)| group == name);
        group.expect("a group of the configuration").1.address()
    }

    pub(crate) fn control_address(&self) -> SocketAddr {
        assert!(self.direct.is_none(), "a plain server has no control port");
        self.ports().control.address()
    }

    pub(crate) fn observe_address(&self) -> SocketAddr {
        self.ports().observe.as_ref().expect("the configuration has [observe]").address()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running process").id()
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    #[track_caller]
    pub(crate) fn connect_resp3(&self) -> Client {
        Client::connect_resp3(self.address())
    }

    /// Lines at WARN or ERROR may contain one of these texts (case does not matter); any other fails the test.
    pub(crate) fn declare(&mut self, texts: &[&str]) {
        self.declared.extend(texts.iter().map(|text| text.to_lowercase()));
    }

    pub(crate) fn log(&self) -> &LogBook {
        &self.log
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> HttpResponse {
        http_request(self.control_address(), "GET", path, None)
            .unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log.text()))
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> HttpResponse {
        http_request(self.control_address(), "POST", path, Some(&body.to_string()))
            .unwrap_or_else(|error| panic!("POST {path}: {error}\n{}", self.log.text()))
    }

    /// `GET /v1/status`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let response = self.get("/v1/status");
        assert_eq!(response.code, 200, "{response:?}");
        response.json()
    }

    /// The part of the status that speaks of one group.
    #[track_caller]
    pub(crate) fn group(&self, name: &str) -> Value {
        let status = self.status();
        named(&status["groups"], name).unwrap_or_else(|| panic!("no group {name} in {status:#}"))
    }

    /// The value of one metric's line, named with its labels as they are written.
    #[track_caller]
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {line} in\n{text}"))
    }

    /// The part of the status that speaks of one backend of the default group.
    #[track_caller]
    pub(crate) fn backend(&self, name: &str) -> Value {
        let group = self.group("default");
        named(&group["backends"], name).unwrap_or_else(|| panic!("no backend {name} in {group:#}"))
    }

    /// Name of the active backend of the default group; empty when there is none.
    #[track_caller]
    pub(crate) fn active(&self) -> String {
        self.group("default")["active"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub(crate) fn epoch(&self) -> u64 {
        if self.direct.is_some() {
            return 0;
        }
        let read = || self.group("default")["epoch"].as_u64().expect("the epoch is a number");
        // Standin is ready before it has looked at any backend: readiness does not depend on them.
        super::eventually(Duration::from_secs(5), "a backend is entered", || read() > 0);
        read()
    }

    /// Waits until this backend is active in the default group.
    #[track_caller]
    pub(crate) fn wait_until_active(&self, name: &str, within: Duration) -> Duration {
        super::eventually(within, &format!("{name} becomes active"), || self.active() == name)
    }

    /// The event history, oldest first.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let response = self.get("/v1/events?limit=4096");
        assert_eq!(response.code, 200, "{response:?}");
        let json = response.json();
        json["events"].as_array().unwrap_or_else(|| panic!("no list of events in {json:#}")).clone()
    }

    /// Events of one kind, oldest first.
    #[track_caller]
    pub(crate) fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// The epoch has not moved, the history names no switch, and the primary serves.
    #[track_caller]
    pub(crate) fn assert_no_switch_since(&self, epoch: u64) {
        if self.direct.is_some() {
            return;
        }
        assert_eq!(self.epoch(), epoch, "the route changed: {:#?}", self.events());
        assert_eq!(self.active(), "primary");
        assert!(self.events_of("failover").is_empty(), "{:#?}", self.events());
    }

    /// Exactly one failover, by one of these triggers, which moved the route by one epoch.
    #[track_caller]
    pub(crate) fn assert_one_failover_since(&self, epoch: u64, triggers: &[&str]) -> Value {
        let failovers = self.events_of("failover");
        assert_eq!(failovers.len(), 1, "one failover: {failovers:#?}");
        let event = failovers[0].clone();
        assert_eq!(event["from"], "primary");
        assert_eq!(event["to"], "backup-a");
        assert_eq!(event["epoch"], epoch + 1, "{event:#}");
        assert!(event["duration_us"].is_u64(), "{event:#}");
        assert!(event["result"].is_string(), "{event:#}");
        let trigger = event["trigger"].as_str().unwrap_or_default();
        assert!(triggers.contains(&trigger), "trigger {trigger:?}, not one of {triggers:?}: {event:#}");
        event
    }

    /// SIGKILL: nothing is drained, told or written any more.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a running process");
        child.kill().expect("the signal is sent");
        child.wait().expect("the process is reaped");
    }

    /// Starts again after [`StandinProcess::kill`], with the same configuration on the same ports; does not wait.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        self.launch();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        signal(self.pid(), libc::SIGTERM);
    }

    /// The exit status once the process has ended by itself.
    pub(crate) fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().expect("a process").try_wait().expect("a child")
    }

    /// SIGTERM, then exit 0 within a bound, then every WARN or ERROR line must have been declared.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.is_finished = true;
        // The test's own clients are still connected when it ends.
        self.declare(&["drain"]);
        if self.direct.is_some() {
            return;
        }
        if self.try_exit().is_none() {
            self.terminate();
        }
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.try_exit() {
                break status;
            }
            assert!(start.elapsed() < STOP_TIMEOUT, "standin does not end on SIGTERM\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("the log is read to its end");
        }
        assert!(status.success(), "standin ended with {status}\n{}", self.log.text());
        let undeclared = self.log.undeclared(&self.declared);
        assert!(undeclared.is_empty(), "log lines that the test did not declare: {undeclared:#?}");
    }

    fn ports(&self) -> &Ports {
        self.ports.as_ref().expect("a started Standin")
    }
}

impl Drop for StandinProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of standin ---\n{}", self.log.text());
        } else {
            assert!(self.is_finished, "finish() was not called: the log was not judged");
        }
    }
}

/// An element of a list by its `name`.
fn named(list: &Value, name: &str) -> Option<Value> {
    list.as_array()?.iter().find(|element| element["name"] == name).cloned()
}

/// Every line that the process wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogBook {
    lines: Arc<Mutex<Vec<String>>>,
}

impl LogBook {
    /// Reads a stream to its end on a thread of its own.
    pub(crate) fn read(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(&self.lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.lock().expect("no thread panics with the log").push(line);
            }
        })
    }

    pub(crate) fn push(&self, line: &str) {
        self.lines.lock().expect("no thread panics with the log").push(line.to_owned());
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().expect("no thread panics with the log").join("\n")
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        self.text().to_lowercase().contains(&text.to_lowercase())
    }

    /// Lines at WARN or ERROR that contain none of the declared texts (which are lower case).
    pub(crate) fn undeclared(&self, declared: &[String]) -> Vec<String> {
        let lines = self.lines.lock().expect("no thread panics with the log");
        let is_loud = |line: &&String| {
            let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').take(24);
            // A panic message is no log line, and louder than any.
            words.into_iter().any(|word| matches!(word, "WARN" | "ERROR" | "panicked"))
        };
        let is_declared = |line: &&String| {
            let line = line.to_lowercase();
            declared.iter().any(|text| line.contains(text))
        };
        lines.iter().filter(is_loud).filter(|line| !is_declared(line)).cloned().collect()
    }
}
