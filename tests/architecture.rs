//! The rules of the house, read off the source: which room may import which, no clock and no chance inside `policy`, and
//! no file past the size at which it hides a second job. ARCHITECTURE.md gives the reasons in prose; this test holds them.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A room and the rooms it may import, lowest first: a row names only rows above it, so imports cannot form a ring.
/// `*` is every row above.
const IMPORTS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("policy", &["limits"]),
    ("resp", &["limits"]),
    ("command", &["limits", "resp"]),
    ("config", &["limits", "policy", "resp", "command"]),
    // The real engine in a modelled world: it knows nothing of the process.
    ("simulation", &["limits", "policy", "config"]),
    ("telemetry", &["limits", "policy", "resp", "command", "config"]),
    ("embedded", &["limits", "policy", "resp", "command", "config", "telemetry"]),
    // A backend may be the embedded store, so `backend` sees `embedded`; the store knows nothing of backends.
    ("backend", &["limits", "policy", "resp", "command", "config", "telemetry", "embedded"]),
    // Reconciling sends commands, so `divergence` sees `backend`; a link never decides what a server has missed.
    ("divergence", &["limits", "policy", "resp", "command", "config", "telemetry", "backend"]),
    ("near_cache", &["limits", "policy", "resp", "command", "config", "telemetry", "backend"]),
    ("route", &["*"]),
    (
        "client",
        &[
            "limits",
            "policy",
            "resp",
            "command",
            "config",
            "telemetry",
            "embedded",
            "backend",
            "divergence",
            "near_cache",
            "route",
        ],
    ),
    (
        "control",
        &["limits", "policy", "resp", "command", "config", "telemetry", "embedded", "backend", "divergence", "route"],
    ),
    (
        "admin",
        &["limits", "policy", "resp", "command", "config", "telemetry", "backend", "divergence", "route", "control"],
    ),
    // `standin run` is a command that starts the app; the app is built without knowing who asked.
    ("app", &["*"]),
    ("cli", &["*"]),
    ("main", &["*"]),
    ("lib", &["*"]),
];

/// The data plane reports upward through counters and one channel; it never reaches for those who decide.
const DATA_PLANE: &[&str] = &["client", "route", "backend", "near_cache", "divergence", "embedded"];
const CONTROL_PLANE: &[&str] = &["control", "admin", "cli", "app"];

/// Words that may not stand in `policy`: an incident must replay bit for bit from its events and its seed.
const POLICY_BANS: &[(&str, &str)] = &[
    ("Instant", "time is handed in"),
    ("SystemTime", "time is handed in"),
    ("rand", "the seed is handed in"),
    ("fastrand", "the seed is handed in"),
    ("getrandom", "the seed is handed in"),
    ("RandomState", "its order differs from run to run"),
    ("HashMap", "its order differs from run to run; use a BTreeMap or a Vec"),
    ("HashSet", "its order differs from run to run; use a BTreeSet or a Vec"),
    ("tokio", "no async and no IO"),
    ("async", "no async and no IO"),
    ("std::thread", "no threads"),
    ("std::fs", "no IO"),
    ("std::io", "no IO"),
    ("std::net", "no IO"),
    ("std::env", "settings are handed in"),
    ("Mutex", "no locks"),
    ("RwLock", "no locks"),
    ("Atomic*", "no shared state"),
];

/// Past this a file holds more than one job. Around 400 is usual.
const FILE_LINES_MAX: usize = 900;

#[test]
fn every_import_follows_the_table_of_the_house() {
    let mut violations = String::new();
    for file in sources() {
        for (line, room) in imports(&file.code, file.depth) {
            if let Err(reason) = judge_import(&file.room, &room) {
                writeln!(violations, "{}:{line}: {reason}", file.path.display()).unwrap();
            }
        }
    }
    assert!(violations.is_empty(), "imports that point the wrong way:\n{violations}");
}

#[test]
fn policy_knows_no_clock_no_chance_no_locks_and_no_io() {
    let mut violations = String::new();
    for file in sources().iter().filter(|file| file.room == "policy") {
        for (line, word, reason) in banned_words(&file.code) {
            writeln!(violations, "{}:{line}: `{word}`: {reason}", file.path.display()).unwrap();
        }
    }
    assert!(violations.is_empty(), "words that `policy` must not say:\n{violations}");
}

#[test]
fn no_source_file_is_past_the_size_limit() {
    let mut violations = String::new();
    for path in rust_files(&source_root()) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > FILE_LINES_MAX {
            writeln!(violations, "{}:{lines}: more than {FILE_LINES_MAX} lines: split it", path.display()).unwrap();
        }
    }
    assert!(violations.is_empty(), "files that hide a second job:\n{violations}");
}

#[test]
fn the_table_has_no_ring_and_keeps_the_planes_apart() {
    for (row, (room, allowed)) in IMPORTS.iter().enumerate() {
        for name in allowed.iter().filter(|name| **name != "*") {
            let named = IMPORTS.iter().position(|(other, _)| other == name).unwrap();
            assert!(named < row, "{room} may not name {name}, which stands beside or above it");
        }
    }
    for room in DATA_PLANE {
        for other in CONTROL_PLANE {
            assert!(judge_import(room, other).is_err(), "{room} must not import {other}");
        }
    }
}

#[test]
fn a_wrong_import_is_found_in_every_spelling() {
    let code = mask(
        "use crate::{\n    limits,\n    control::{self, Engine},\n};\nfn f() { crate::admin::go(); super::super::cli::run() }\n",
    );
    let found = imports(&code, 2);
    let rooms: Vec<(usize, &str)> = found.iter().map(|(line, room)| (*line, room.as_str())).collect();
    assert_eq!(rooms, [(2, "limits"), (3, "control"), (5, "admin"), (5, "cli")]);
    assert!(judge_import("client", "control").is_err());
    assert!(judge_import("client", "route").is_ok());
    assert!(judge_import("parlour", "route").is_err(), "a room that the table does not know is refused");
}

#[test]
fn comments_strings_and_test_modules_do_not_count() {
    let source = "// use crate::admin;\nconst S: &str = \"crate::cli {\";\nfn f<'a>(c: char) -> bool { c == '{' || c == '\\'' }\n\
                  #[cfg(test)]\nmod tests {\n    use crate::app;\n    use std::time::Instant;\n}\nuse crate::limits;\n";
    let code = strip_tests(&mask(source));
    assert_eq!(imports(&code, 2), [(9, "limits".to_owned())]);
    assert!(banned_words(&code).is_empty());
}

#[test]
fn a_banned_word_counts_only_as_a_whole_word() {
    let found = banned_words("let operand = AtomicU64::new(1); // strand\nlet t: Instant;\n");
    let words: Vec<(usize, &str)> = found.iter().map(|(line, word, _)| (*line, *word)).collect();
    assert_eq!(words, [(2, "Instant"), (1, "Atomic*")]);
}

/// One file of the crate, with comments, literals and test code blanked out; line numbers are those of the file.
struct Source {
    path: PathBuf,
    room: String,
    /// How many `super::` lead to the root of the crate.
    depth: usize,
    code: String,
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let root = source_root();
    let mut sources = Vec::new();
    for path in rust_files(&root) {
        let inside = path.strip_prefix(&root).unwrap().with_extension("");
        let parts: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let last = parts.last().unwrap();
        if parts.iter().any(|part| part == "tests") || last.ends_with("_tests") {
            continue;
        }
        let depth = if last == "mod" { parts.len() - 1 } else { parts.len() };
        let code = strip_tests(&mask(&fs::read_to_string(&path).unwrap()));
        sources.push(Source { path, room: parts[0].clone(), depth, code });
    }
    assert!(sources.len() > 10, "the source was not found under {}", root.display());
    sources
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn judge_import(from: &str, to: &str) -> Result<(), String> {
    let Some(row) = IMPORTS.iter().position(|(room, _)| *room == from) else {
        return Err(format!("`{from}` is no room of the house: give it a row in tests/architecture.rs"));
    };
    let Some(target) = IMPORTS.iter().position(|(room, _)| *room == to) else {
        return Ok(()); // A macro or an item of lib.rs; rooms are all in the table, or the line above refuses them.
    };
    let allowed = IMPORTS[row].1;
    if from == to || allowed.contains(&to) || (allowed.contains(&"*") && target < row) {
        return Ok(());
    }
    Err(format!("`{from}` must not import `{to}`"))
}

/// Line and room of every path that starts at the root of the crate: `crate::room`, each name of `crate::{..}`, and a
/// chain of `super::` long enough to leave the room.
fn imports(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in whole_words(code, "crate") {
        if let Some(rest) = code[at.end..].strip_prefix("::") {
            found.extend(first_names(rest).into_iter().map(|name| (code.len() - rest.len() + name.start, name.len())));
        }
    }
    let climb = "super::".repeat(depth);
    for at in whole_words(code, "super") {
        let chained = code[..at.start].ends_with("::");
        if let Some(rest) = code[at.start..].strip_prefix(&climb).filter(|_| !chained) {
            found.extend(first_names(rest).into_iter().map(|name| (code.len() - rest.len() + name.start, name.len())));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(at, length)| (line_of(code, at), code[at..at + length].to_owned())).collect()
}

/// The first name of a path, or of each member of a `{..}` list.
fn first_names(rest: &str) -> Vec<Range<usize>> {
    let name_at = |start: usize| {
        let skipped = rest[start..].len() - rest[start..].trim_start().len();
        let from = start + skipped;
        let length = rest[from..].bytes().take_while(|byte| is_word(*byte)).count();
        from..from + length
    };
    let mut names = Vec::new();
    if !rest.starts_with('{') {
        names.push(name_at(0));
    } else {
        let mut level = 0_usize;
        for (at, byte) in rest.bytes().enumerate() {
            match byte {
                b'{' => level += 1,
                b'}' => level -= 1,
                _ => {}
            }
            if level == 0 {
                break;
            }
            if level == 1 && (at == 0 || byte == b',') {
                names.push(name_at(at + 1));
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn banned_words(code: &str) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (word, reason) in POLICY_BANS {
        let hits = match word.strip_suffix('*') {
            Some(prefix) => code.match_indices(prefix).map(|(at, _)| at..at + prefix.len()).collect(),
            None => whole_words(code, word),
        };
        found.extend(hits.into_iter().map(|at| (line_of(code, at.start), *word, *reason)));
    }
    found
}

fn whole_words(code: &str, word: &str) -> Vec<Range<usize>> {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at..at + word.len())
        .filter(|at| at.start == 0 || !is_word(bytes[at.start - 1]))
        .filter(|at| bytes.get(at.end).is_none_or(|byte| !is_word(*byte)))
        .collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// Blank out every item under `#[cfg(test)]`, to its closing brace or semicolon. Takes masked code, so braces are braces.
fn strip_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let mut level = 0_usize;
        let mut end = start;
        for (at, byte) in code.bytes().enumerate().skip(start) {
            end = at + 1;
            match byte {
                b'{' => level += 1,
                b'}' => level = level.saturating_sub(1),
                _ => {}
            }
            if level == 0 && (byte == b'}' || byte == b';') {
                break;
            }
        }
        blank(&mut bytes, start..end);
    }
    String::from_utf8(bytes).unwrap()
}

/// Blank out comments and the insides of literals, byte for byte, so that positions and lines stay true.
fn mask(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    let mut at = 0;
    while at < source.len() {
        let end = at + opaque_length(&source.as_bytes()[at..], at > 0 && is_word(source.as_bytes()[at - 1]));
        if end > at {
            blank(&mut bytes, at..end);
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Length of the comment or literal that starts here, or 0. `inside_word` tells the `r` of `for` from that of `r"`.
fn opaque_length(rest: &[u8], inside_word: bool) -> usize {
    let until = |needle: &[u8], from: usize| {
        rest[from..].windows(needle.len()).position(|window| window == needle).map_or(rest.len(), |at| from + at)
    };
    match rest {
        [b'/', b'/', ..] => until(b"\n", 2),
        [b'/', b'*', ..] => (until(b"*/", 2) + 2).min(rest.len()),
        [b'"', ..] => quoted_length(rest),
        [b'r', b'"' | b'#', ..] if !inside_word => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return 0; // A raw identifier.
            }
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            (until(&close, 2 + hashes) + close.len()).min(rest.len())
        }
        [b'\'', b'\\', _, ..] => (until(b"'", 3) + 1).min(rest.len()),
        [b'\'', first, ..] => {
            // A character, unless it is a lifetime: `'a'` against `'a`. The first byte tells how long it is in UTF-8.
            let width = match first {
                0..0xc0 => 1,
                0xc0..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn quoted_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn blank(bytes: &mut [u8], range: Range<usize>) {
    for byte in &mut bytes[range] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}
