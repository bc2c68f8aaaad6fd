//! What a group has learnt, kept across restarts: one small file, replaced as a whole, so that a crash leaves the old one.
//!
//! The first line says what the rest is: version, length and checksum. Whatever is not as it should be is a warning and a
//! fresh start; nothing here can keep the proxy from serving. Written on a thread of its own: a slow disk must not make the
//! control task late.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::objectives::Worst;
use crate::backend::clock;
use crate::limits::STATE_FILE_BYTES_MAX;
use crate::policy::{BackendMemory, Engine, OperatorWords};
use crate::telemetry::wall_time::WallTime;

/// Changes when older files cannot be read any more.
const VERSION: u32 = 1;
const KEEP_EVERY_SECONDS: u32 = 60;
/// What systemd calls the directory that it has made for us.
const DIRECTORY_VARIABLE: &str = "STATE_DIRECTORY";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    standin_state: u32,
    bytes: usize,
    checksum: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    group: String,
    at_ms: u64,
    backends: Vec<SavedBackend>,
    /// Absent in older files.
    #[serde(default)]
    operators: OperatorWords,
    #[serde(default)]
    worst: Worst,
}

/// What was kept beside what the engine has taken up.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What operators' words were taken up, one sentence each.
    pub(super) said: Vec<String>,
    pub(super) worst: Worst,
}

/// What is known of a server is void when the name leads to another address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedBackend {
    address: String,
    memory: BackendMemory,
}

#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is of version {0}, and this program reads {VERSION}")]
    Version(u32),
    #[error("it is longer than {STATE_FILE_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it is not understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is of another group")]
    OtherGroup,
}

/// The directory that can be used: the configured one, or what the surroundings offer. Says in the log what became of it.
#[must_use]
pub fn usable_directory(configured: Option<PathBuf>) -> Option<PathBuf> {
    let offered = || {
        let value = std::env::var(DIRECTORY_VARIABLE).ok()?;
        value.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
    };
    let Some(directory) = configured.or_else(offered) else {
        tracing::info!(
            "recorded latencies and reliability are not kept across restarts; state.directory would keep them"
        );
        return None;
    };
    if let Err(error) = fs::create_dir_all(&directory) {
        tracing::warn!(directory = %directory.display(), %error, "state.directory cannot be used: nothing is kept across restarts");
        return None;
    }
    tracing::info!(directory = %directory.display(), "recorded latencies and reliability are kept");
    Some(directory)
}

/// Keeps what one group has learnt.
pub(super) struct Keeper {
    file: Option<PathBuf>,
    group: String,
    addresses: BTreeMap<String, String>,
    seconds: Cell<u32>,
    /// Something happened that is not to wait for its minute.
    urgent: Cell<bool>,
    /// The last attempt to write failed, which was said; and one is under way.
    failing: Arc<AtomicBool>,
    writing: Arc<AtomicBool>,
}

impl Keeper {
    pub(super) fn new(directory: Option<PathBuf>, group: &str, addresses: BTreeMap<String, String>) -> Self {
        Self {
            file: directory.map(|directory| directory.join(format!("{group}.state.json"))),
            group: group.to_owned(),
            addresses,
            seconds: Cell::new(0),
            urgent: Cell::new(false),
            failing: Arc::default(),
            writing: Arc::default(),
        }
    }

    /// Takes up what an earlier process has kept, if there is something.
    pub(super) fn recall(&self, engine: &mut Engine) -> Kept {
        let Some(file) = &self.file else { return Kept::default() };
        let saved = match read(file, &self.group) {
            Ok(saved) => saved,
            Err(StateError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::info!(file = %file.display(), "nothing was kept by an earlier process");
                return Kept::default();
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "what an earlier process kept is not used");
                return Kept::default();
            }
        };
        // A clock that was set back makes it as old as new.
        let age = Duration::from_millis(WallTime::now().as_ms().saturating_sub(saved.at_ms));
        let is_same = |kept: &SavedBackend| self.addresses.get(&kept.memory.name) == Some(&kept.address);
        let memory: Vec<_> = saved.backends.into_iter().filter(is_same).map(|kept| kept.memory).collect();
        tracing::info!(file = %file.display(), backends = memory.len(), ?age, "took up what an earlier process kept");
        engine.recall(clock::now(), memory, age);
        // An operator's word is about a name, wherever that leads by now.
        let said = engine.take_up(clock::now(), saved.operators, age);
        Kept { said, worst: saved.worst }
    }

    /// What has just happened is kept within a second.
    pub(super) fn hurry(&self) {
        self.urgent.set(true);
    }

    pub(super) fn on_second(&self, engine: &Engine, worst: &Worst) {
        let seconds = self.seconds.get() + 1;
        self.seconds.set(seconds % KEEP_EVERY_SECONDS);
        let is_due = seconds >= KEEP_EVERY_SECONDS || self.urgent.get();
        if !is_due || self.file.is_none() || self.writing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.urgent.set(false);
        let write = self.write(engine, worst);
        let writing = Arc::clone(&self.writing);
        tokio::task::spawn_blocking(move || {
            write();
            writing.store(false, Ordering::Release);
        });
    }

    /// At the end.
    pub(super) async fn keep_last(&self, engine: &Engine, worst: &Worst) {
        if self.file.is_some() {
            let _ = tokio::task::spawn_blocking(self.write(engine, worst)).await;
        }
    }

    #[cfg(test)]
    pub(super) fn keep_now(&self, engine: &Engine) {
        if self.file.is_some() {
            self.write(engine, &Worst::default())();
        }
    }

    fn write(&self, engine: &Engine, worst: &Worst) -> impl FnOnce() + Send + use<> {
        let backends = engine.remember(clock::now()).into_iter().map(|memory| SavedBackend {
            address: self.addresses.get(&memory.name).cloned().unwrap_or_default(),
            memory,
        });
        let saved = Saved {
            group: self.group.clone(),
            at_ms: WallTime::now().as_ms(),
            backends: backends.collect(),
            operators: engine.operator_words(clock::now()),
            worst: worst.clone(),
        };
        let (file, failing) = (self.file.clone().unwrap_or_default(), Arc::clone(&self.failing));
        move || match replace(&file, &saved) {
            Ok(()) => failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(file = %file.display(), %error, "what was learnt cannot be kept");
                }
            }
        }
    }
}

fn read(file: &Path, group: &str) -> Result<Saved, StateError> {
    let mut text = Vec::new();
    fs::File::open(file)?.take(STATE_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    decode(&text, group)
}

fn decode(text: &[u8], group: &str) -> Result<Saved, StateError> {
    if text.len() > STATE_FILE_BYTES_MAX {
        return Err(StateError::TooLong);
    }
    let end = text.iter().position(|byte| *byte == b'\n').ok_or(StateError::Damaged("it has no first line"))?;
    let (header, body) = (&text[..end], &text[end + 1..]);
    let header: Header = serde_json::from_slice(header)?;
    if header.standin_state != VERSION {
        return Err(StateError::Version(header.standin_state));
    }
    if header.bytes != body.len() || header.checksum != checksum(body) {
        return Err(StateError::Damaged("its checksum is another"));
    }
    let saved: Saved = serde_json::from_slice(body)?;
    if saved.group == group { Ok(saved) } else { Err(StateError::OtherGroup) }
}

fn encode(saved: &Saved) -> Result<Vec<u8>, StateError> {
    let body = serde_json::to_vec(saved)?;
    let header = Header { standin_state: VERSION, bytes: body.len(), checksum: checksum(&body) };
    let mut text = serde_json::to_vec(&header)?;
    text.push(b'\n');
    text.extend(body);
    if text.len() > STATE_FILE_BYTES_MAX { Err(StateError::TooLong) } else { Ok(text) }
}

/// Written beside the old one and moved over it: whoever reads finds the one or the other whole.
fn replace(file: &Path, saved: &Saved) -> Result<(), StateError> {
    let text = encode(saved)?;
    let fresh = file.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut opened = fs::File::create(&fresh)?;
        opened.write_all(&text)?;
        opened.sync_all()?;
        fs::rename(&fresh, file)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    Ok(written?)
}

/// FNV-1a, 64 bits: enough against a torn or edited file, and it means the same in every build.
fn checksum(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::{
        BackendId, BackendRole, BackendSettings, Edge, Event, ProbeAnswer, ProbeOutcome, Role, Settings, Time,
    };

    fn engine() -> Engine {
        let primary = BackendSettings::new(BackendId(0), "primary", BackendRole::Primary);
        Engine::new(Settings::default(), vec![primary], 1, Time::ZERO)
    }

    fn keeper(directory: &Path, address: &str) -> Keeper {
        let addresses = BTreeMap::from([("primary".to_owned(), address.to_owned())]);
        Keeper::new(Some(directory.to_owned()), "cache", addresses)
    }

    /// An engine that has learnt what a probe takes, and has seen an outage.
    fn experienced() -> Engine {
        let (mut engine, mut actions, backend) = (engine(), Vec::new(), BackendId(0));
        for second in 1..=60 {
            let answer = ProbeAnswer::new(Duration::from_micros(700), Role::Master);
            engine.handle(
                Time::from_secs(second),
                Event::Probe { backend, outcome: ProbeOutcome::Ok(answer) },
                &mut actions,
            );
        }
        for edge in [Edge::LinkLost, Edge::ConnectRefused, Edge::ConnectRefused] {
            engine.handle(Time::from_secs(61), Event::Edge { backend, edge }, &mut actions);
        }
        engine
    }

    #[test]
    fn what_was_learnt_is_there_in_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        keeper(directory.path(), "127.0.0.1:6379").keep_now(&experienced());
        let mut next = engine();
        keeper(directory.path(), "127.0.0.1:6379").recall(&mut next);
        let view = next.view(clock::now()).backends.remove(0);
        assert!(view.baseline.is_some_and(|baseline| baseline.as_micros() >= 690), "{:?}", view.baseline);
        assert_eq!((view.figures.reliability.outages, view.figures.reliability.lifetime.succeeded), (1, 60));
        assert!(view.figures.reliability.last_failure.unwrap().why.contains("refused"));
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["cache.state.json"]);
    }

    #[test]
    fn a_file_from_before_operators_words_were_kept_is_read() {
        let text = r#"{"group":"cache","at_ms":5,"backends":[]}"#;
        let saved: Saved = serde_json::from_str(text).unwrap();
        assert_eq!((saved.operators, saved.worst), (OperatorWords::default(), Worst::default()));
    }

    #[test]
    fn what_is_known_of_another_address_is_not_taken_up() {
        let directory = tempfile::tempdir().unwrap();
        keeper(directory.path(), "127.0.0.1:6379").keep_now(&experienced());
        let mut next = engine();
        keeper(directory.path(), "10.0.0.7:6379").recall(&mut next);
        assert_eq!(next, engine());
    }

    #[test]
    fn a_file_that_is_missing_broken_torn_or_foreign_is_a_fresh_start() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = keeper(directory.path(), "127.0.0.1:6379");
        keeper.keep_now(&experienced());
        let file = directory.path().join("cache.state.json");
        let good = fs::read(&file).unwrap();
        let mut edited = good.clone();
        let at = good.len() - 20;
        edited[at] ^= 1;
        let version =
            String::from_utf8(good.clone()).unwrap().replacen("\"standin_state\":1", "\"standin_state\":9", 1);
        let broken: [&[u8]; 6] =
            [b"", b"{}\n", &good[..good.len() / 2], &edited, version.as_bytes(), &[b'x'; STATE_FILE_BYTES_MAX + 9]];
        for text in broken {
            fs::write(&file, text).unwrap();
            assert!(read(&file, "cache").is_err());
            let mut next = engine();
            keeper.recall(&mut next);
            assert_eq!(next, engine());
        }
        fs::write(&file, &good).unwrap();
        assert!(matches!(read(&file, "sessions"), Err(StateError::OtherGroup)));
        fs::remove_file(&file).unwrap();
        assert!(matches!(read(&file, "cache"), Err(StateError::Io(_))));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_said_once_and_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = keeper(&directory.path().join("gone"), "127.0.0.1:6379");
        keeper.keep_now(&experienced());
        assert!(keeper.failing.load(Ordering::Relaxed));
        fs::create_dir(directory.path().join("gone")).unwrap();
        keeper.keep_now(&experienced());
        assert!(!keeper.failing.load(Ordering::Relaxed));
    }
}
