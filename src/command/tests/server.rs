//! The table against a real server: `redis-server`, or the program that `STANDIN_TEST_SERVER` names.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;

use super::{request, spec_of};
use crate::command::{Find, Flags, KeyRange, Spec, keys, lookup, written_keys};

/// A server on a socket in a directory of its own; it ends with the value.
struct Server {
    process: Child,
    stream: UnixStream,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let program = std::env::var("STANDIN_TEST_SERVER").unwrap_or_else(|_| "redis-server".into());
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let mut process = Command::new(&program)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed here (`make test` installs it): {error}"));
        let mut log = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = log.any(|line| line.unwrap().to_lowercase().contains("ready to accept connections"));
        assert!(ready, "{program} ended before it was ready");
        // The log is read to its end, so that the server never waits for its reader.
        std::thread::spawn(move || log.for_each(drop));
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Server { process, stream, _directory: directory }
    }

    fn ask(&mut self, line: &str) -> OwnedFrame {
        self.stream.write_all(&request(line)).unwrap();
        let (mut received, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let read = self.stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the server closed the connection");
            received.extend_from_slice(&chunk[..read]);
            if let Some((reply, _)) = decode(&received).unwrap() {
                return reply;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// One entry of COMMAND, or of the subcommands within it.
struct Entry {
    name: String,
    arity: i64,
    flags: BTreeSet<String>,
    positions: [i64; 3],
    subcommands: Vec<Entry>,
}

fn entry(reply: &OwnedFrame) -> Entry {
    let fields = list(reply);
    Entry {
        name: text(&fields[0]).to_ascii_lowercase(),
        arity: integer(&fields[1]),
        flags: list(&fields[2]).iter().map(text).collect(),
        positions: [3, 4, 5].map(|at| integer(&fields[at])),
        subcommands: list(&fields[9]).iter().map(entry).collect(),
    }
}

fn list(reply: &OwnedFrame) -> &[OwnedFrame] {
    match reply {
        OwnedFrame::Array(elements) => elements,
        other => panic!("not an array: {other:?}"),
    }
}

/// Whether the flags of a key say that it is written: overwritten, removed or changed.
fn is_written(flags: &OwnedFrame) -> bool {
    list(flags).iter().any(|flag| ["OW", "RM", "RW"].contains(&text(flag).as_str()))
}

fn text(reply: &OwnedFrame) -> String {
    match reply {
        OwnedFrame::BulkString(bytes) | OwnedFrame::SimpleString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("not a string: {other:?}"),
    }
}

fn integer(reply: &OwnedFrame) -> i64 {
    match reply {
        OwnedFrame::Integer(value) => *value,
        other => panic!("not an integer: {other:?}"),
    }
}

/// What a server's entry and our row disagree about.
fn differences(entry: &Entry, spec: &Spec, found: &mut Vec<String>) {
    let mut differ = |what: &str, theirs: String, ours: String| {
        if theirs != ours {
            found.push(format!("{}: {what} is {theirs}, the table says {ours}", spec.name));
        }
    };
    // Where servers differ, the laxer arity stands in the table.
    if !(spec.arity < 0 && spec.arity_ok(entry.arity.unsigned_abs() as usize)) {
        differ("arity", entry.arity.to_string(), spec.arity.to_string());
    }
    for (name, flag) in Flags::NAMES {
        // The rest is told differently by different servers, and nothing here depends on it.
        let compared =
            [Flags::WRITE, Flags::READONLY, Flags::BLOCKING, Flags::MOVABLEKEYS, Flags::ADMIN, Flags::PUBSUB];
        // Redis 7.0 does not count WAIT among the blocking commands, though it blocks; Valkey does.
        if compared.contains(flag) && !(spec.name == "wait" && *flag == Flags::BLOCKING) {
            differ(name, entry.flags.contains(*name).to_string(), spec.flags.contains(*flag).to_string());
        }
    }
    differ("keys", format!("{:?}", entry.positions), format!("{:?}", positions(spec)));
    for theirs in &entry.subcommands {
        match spec.subcommands.iter().find(|ours| ours.name == theirs.name) {
            Some(ours) => differences(theirs, ours, found),
            None => found.push(format!("{} is not in the table", theirs.name)),
        }
    }
}

/// First, last and step as COMMAND tells them: of all ranges whose place is fixed, if one begins at the first.
fn positions(spec: &Spec) -> [i64; 3] {
    // The server tells channels and cursors as keys; they are none.
    match spec.name {
        "ssubscribe" | "sunsubscribe" => return [1, -1, 1],
        "spublish" | "clusterscan" => return [1, 1, 1],
        "migrate" => return [3, 3, 1],
        _ => {}
    }
    let fixed = |range: &KeyRange| match range.find {
        Find::Range(first, last, step) => Some([first, last, step].map(i64::from)),
        _ => None,
    };
    let mut ranges = spec.keys.ranges.iter().flatten().filter_map(fixed);
    let Some(first) = ranges.next() else { return [0; 3] };
    ranges
        .fold(first, |all, next| [all[0].min(next[0]), if next[1] < 0 { next[1] } else { all[1].max(next[1]) }, all[2]])
}

#[test]
fn the_table_agrees_with_a_real_server_about_every_command() {
    let mut server = Server::start();
    let entries: Vec<Entry> = list(&server.ask("COMMAND")).iter().map(entry).collect();
    assert!(entries.len() >= 240, "only {} commands", entries.len());
    let mut found = Vec::new();
    for entry in &entries {
        match lookup(entry.name.as_bytes()) {
            Some(spec) => differences(entry, spec, &mut found),
            None => found.push(format!("{} is not in the table", entry.name)),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_real_server_finds_the_same_keys_and_the_same_of_them_written() {
    let mut server = Server::start();
    let requests = [
        "GET k",
        "MGET a b c",
        "MSET a 1 b 2",
        "SORT l BY x LIMIT 0 5 STORE c STORE d",
        "EVAL s 2 a b x",
        "FCALL f 1 a x",
        "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
        "ZDIFF 2 a b WITHSCORES",
        "LMPOP 2 a b LEFT COUNT 3",
        "BLMPOP 0 2 a b LEFT",
        "BLPOP a b c 0",
        "BZMPOP 0 1 z MIN",
        "XREAD COUNT 2 BLOCK 0 STREAMS a b 0 $",
        "XREADGROUP GROUP streams streams NOACK STREAMS a b > >",
        "GEORADIUS g 1 2 3 km STOREDIST d",
        "GEORADIUSBYMEMBER g store 3 km STORE d",
        "MIGRATE h 1 k 0 5",
        "MIGRATE h 1 \"\" 0 5 COPY AUTH keys KEYS a b",
        "BITOP AND d a b",
        "LCS a b IDX",
        "COPY a b REPLACE",
        "SINTERCARD 2 a b LIMIT 1",
        "OBJECT ENCODING k",
        "MEMORY USAGE k SAMPLES 5",
        "XGROUP CREATE s g $",
        "XINFO CONSUMERS s g",
        "PFMERGE d a b",
    ];
    for line in requests {
        let (spec, frame) = (spec_of(line), request(line));
        let (mut all, mut written) = (BTreeSet::new(), BTreeSet::new());
        keys(spec, &frame, &mut |key| _ = all.insert(String::from_utf8_lossy(key).into_owned()));
        written_keys(spec, &frame, &mut |key| _ = written.insert(String::from_utf8_lossy(key).into_owned()));
        let reply = server.ask(&format!("COMMAND GETKEYSANDFLAGS {line}"));
        let pairs = list(&reply).iter().map(list);
        let theirs: Vec<(String, bool)> = pairs.map(|pair| (text(&pair[0]), is_written(&pair[1]))).collect();
        assert_eq!(all, theirs.iter().map(|(key, _)| key.clone()).collect(), "{line}");
        // The server says that XREADGROUP only reads; it moves the group on, which is part of the stream.
        if spec.name != "xreadgroup" {
            assert_eq!(
                written,
                theirs.into_iter().filter(|(_, written)| *written).map(|(key, _)| key).collect(),
                "{line}"
            );
        }
    }
}
