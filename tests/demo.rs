//! `standin demo` as a person or a script runs it: it ends well, says what it saw, and leaves no process behind, whatever
//! way it ends.
#![cfg(target_os = "linux")] // the processes of a demo are found in /proc
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use support::{eventually, secs};

/// In the environment of a demo and hence of all its processes, so that each can be found.
const MARK: &str = "DEMO_TEST_MARK";
static DEMOS: AtomicU32 = AtomicU32::new(0);

struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    mark: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mark = format!("{MARK}={}-{}", std::process::id(), DEMOS.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
        command.args(["demo", "--port", "0"]).args(arguments).env(MARK, mark.split_once('=').unwrap().1);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, mark }
    }

    /// Reads lines until one holds the text; that line.
    #[track_caller]
    fn line_with(&mut self, text: &str) -> String {
        let mut read = String::new();
        loop {
            let start = read.len();
            let bytes = self.output.read_line(&mut read).unwrap();
            assert!(bytes > 0, "it ended before it said {text:?}:\n{read}");
            if read[start..].contains(text) {
                return read[start..].to_owned();
            }
        }
    }

    /// The process ids of this demo's processes, its own included.
    fn processes(&self) -> Vec<u32> {
        let mark = self.mark.as_bytes();
        let ours = |process_id: &u32| {
            let environment = fs::read(format!("/proc/{process_id}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark)
        };
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }

    fn process(&self, argument: &str) -> u32 {
        let is_it = |process_id: &u32| {
            let line = fs::read(format!("/proc/{process_id}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(argument.as_bytes())
        };
        self.processes().into_iter().find(is_it).unwrap()
    }

    /// Waits for its end. Its output is what was not read before.
    fn finish(&mut self) -> Output {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.output.read_to_end(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Output { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(signal: &str, process_id: u32) {
    assert!(Command::new("kill").args([signal, &process_id.to_string()]).status().unwrap().success());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_killed_primary_costs_no_client_an_error_and_the_summary_says_so() {
    let mut demo = Demo::start(&["--seconds", "6", "--kill-primary-after", "2", "--json"]);
    let output = demo.finish();
    let (summary, progress) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{summary}{progress}");
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["errors"], &summary["stale_reads"], &summary["ok"]), (&0.into(), &0.into(), &true.into()));
    assert!(summary["failovers"].as_u64() >= Some(1), "{summary}");
    assert!(summary["operations"].as_u64() > Some(1_000), "{summary}");
    for line in ["kill -9", "failover", "backup-a serves (failed over)"] {
        assert!(progress.contains(line), "{line}:\n{progress}");
    }
    assert_eq!(demo.processes(), Vec::<u32>::new());
}

#[test]
fn sigterm_ends_everything_and_still_brings_the_summary() {
    let mut demo = Demo::start(&["--plain"]);
    demo.line_with("requests/s");
    assert_eq!(demo.processes().len(), 5);
    send("-TERM", demo.child.id());
    let output = demo.finish();
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}{}", text(&output.stderr));
    for line in ["operations", "errors       0", "stale reads  0", "switches     0", "longest gap"] {
        assert!(stdout.contains(line), "{line}:\n{stdout}");
    }
    assert_eq!(demo.processes(), Vec::<u32>::new());
}

#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let mut demo = Demo::start(&["--plain"]);
    demo.line_with("requests/s");
    send("-KILL", demo.child.id());
    demo.child.wait().unwrap();
    eventually(secs(10), "every process has ended", || demo.processes().is_empty());
    // Its files nobody could remove.
    let begin = format!("standin-demo-{}-", demo.child.id());
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(&begin) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_reader_that_has_gone_ends_the_demo() {
    let mut demo = Demo::start(&["--plain"]);
    demo.line_with("requests/s");
    let (reader, _writer) = std::io::pipe().unwrap();
    drop(std::mem::replace(&mut demo.output, BufReader::new(ChildStdout::from(std::os::fd::OwnedFd::from(reader)))));
    eventually(secs(10), "the demo has ended", || demo.child.try_wait().unwrap().is_some());
    assert_eq!(demo.processes(), Vec::<u32>::new());
}

#[test]
fn a_standin_that_ends_is_a_failed_demo_whose_logs_are_kept() {
    let mut demo = Demo::start(&["--plain"]);
    demo.line_with("requests/s");
    send("-KILL", demo.process("run"));
    let output = demo.finish();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("standin itself ended: signal 9"), "{error}");
    let logs = error.split("its log is in ").nth(1).unwrap().lines().next().unwrap();
    assert!(fs::read_to_string(format!("{logs}/standin.log")).is_ok(), "{logs}");
    fs::remove_dir_all(logs).unwrap();
    assert_eq!(demo.processes(), Vec::<u32>::new());
}

#[test]
fn a_kill_that_would_come_after_the_end_is_refused_before_anything_starts() {
    let mut demo = Demo::start(&["--seconds", "4", "--kill-primary-after", "4"]);
    let output = demo.finish();
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("--kill-primary-after 4 never comes"), "{}", text(&output.stderr));
}
