//! Tables of command lines and expected replies, and stories over an in-memory stream.
#![allow(clippy::unwrap_used)]

mod collections;
mod connections;
mod keyspace;
mod strings_and_keys;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dispatch;
use super::session::Session;
use super::{Store, StoreOptions};
use crate::resp::{arguments, inline_to_multibulk};

/// A clock that the test moves, from a round moment on.
#[derive(Clone)]
pub(super) struct TestClock(Arc<AtomicU64>);

pub(super) const START_MS: u64 = 1_700_000_000_000;

impl TestClock {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START_MS)))
    }

    pub(super) fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn options(&self) -> StoreOptions {
        let time = self.0.clone();
        StoreOptions { clock: Arc::new(move || time.load(Ordering::Relaxed)), ..StoreOptions::default() }
    }
}

/// One client without a connection.
pub(super) struct Bench {
    pub(super) store: Store,
    session: Session,
}

impl Bench {
    pub(super) fn new(options: StoreOptions) -> Self {
        let store = Store::new(options);
        let id = store.lock().connect("127.0.0.1:1".into());
        Self { store, session: Session::new(id, None, false) }
    }

    /// Runs a line as one would type it into redis-cli; the reply comes back in the short form of `short`.
    pub(super) fn run(&mut self, line: &str) -> String {
        let request = inline_to_multibulk(format!("{line}\r\n").as_bytes()).unwrap().unwrap();
        let words: Vec<&[u8]> = arguments(&request).collect();
        let mut out = Vec::new();
        dispatch::run(&mut self.store.lock(), &mut self.session, &words, &mut out);
        short(&out)
    }
}

/// A reply in short: `OK`, `3`, `"text"`, `nil`, `[1 "a"]`, `{..}` for a map, `-ERR ...`, `1.5f` for a RESP3 double.
pub(super) fn short(reply: &[u8]) -> String {
    let mut at = 0;
    let mut parts = Vec::new();
    while at < reply.len() {
        parts.push(short_one(reply, &mut at));
    }
    parts.join(" ")
}

fn short_one(reply: &[u8], at: &mut usize) -> String {
    let end = *at + reply[*at..].windows(2).position(|pair| pair == b"\r\n").unwrap();
    let (kind, line) = (reply[*at], std::str::from_utf8(&reply[*at + 1..end]).unwrap().to_owned());
    *at = end + 2;
    let mut many = |count: usize, open: &str, close: &str| {
        let items: Vec<String> = (0..count).map(|_| short_one(reply, at)).collect();
        format!("{open}{}{close}", items.join(" "))
    };
    match kind {
        b'+' | b':' => line,
        b'-' => format!("-{line}"),
        b'_' => "nil".into(),
        b',' => format!("{line}f"),
        b'#' => line,
        b'$' | b'*' if line == "-1" => if kind == b'$' { "nil" } else { "nil-array" }.into(),
        b'$' | b'=' => {
            let length: usize = line.parse().unwrap();
            let text = &reply[end + 2..end + 2 + length];
            *at = end + 2 + length + 2;
            format!("\"{}\"", text.escape_ascii())
        }
        b'*' => many(line.parse().unwrap(), "[", "]"),
        b'%' => many(2 * line.parse::<usize>().unwrap(), "{", "}"),
        b'~' => many(line.parse().unwrap(), "~[", "]"),
        b'>' => many(line.parse().unwrap(), ">[", "]"),
        other => panic!("unknown reply type {}", other as char),
    }
}

/// Runs the lines in order on one fresh store and holds every reply against the expected one.
pub(super) fn check(table: &[(&str, &str)]) {
    check_with(TestClock::new().options(), table);
}

pub(super) fn check_with(options: StoreOptions, table: &[(&str, &str)]) {
    let mut bench = Bench::new(options);
    for (line, expected) in table {
        assert_eq!(bench.run(line), *expected, "in reply to: {line}");
    }
}
