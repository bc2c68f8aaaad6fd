//! Passwords and tokens: where they come from, and how they are read again without ever being shown.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// Longest content of a secret's file and longest output of its command.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// A command that prints a secret gets this long; a vault's agent answers from memory, a hung one must not hang us.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// A secret by its source. It is read on demand, so that a rotated password is found on the next connect.
/// Neither `Debug` nor `Display` shows a value, and `exec:` commands are not shown either: they may hold tokens.
#[derive(Clone)]
pub struct Secret(Source);

#[derive(Clone)]
enum Source {
    Literal(SecretString),
    Given(SecretString),
    /// The value at load time: a process's environment does not change under it.
    Environment {
        name: String,
        value: Option<SecretString>,
    },
    File(PathBuf),
    Command(String),
}

/// Why a secret could not be read. The texts name the source and never the value.
#[derive(Debug, Error)]
pub enum SecretError {
    #[error("environment variable {0} is not set; set it, or name another source")]
    Unset(String),
    #[error("cannot read the file {path}: {error}; check the path and who may read it")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the file {0} holds more than 64 KiB, which is no password; check the path")]
    FileTooLong(PathBuf),
    #[error("the exec: command could not be run: {0}; check that it exists and may be executed")]
    Command(std::io::Error),
    #[error("the exec: command {0}; run it by hand to see why")]
    CommandFailed(String),
    #[error("it is empty; give a value, or remove the key")]
    Empty,
    #[error("it is not UTF-8 text")]
    NotText,
}

impl Secret {
    pub fn literal(value: impl Into<String>) -> Self {
        Self(Source::Literal(SecretString::from(value.into())))
    }

    /// What a client gave, which may be empty: a user may have no password.
    pub fn given(value: impl Into<String>) -> Self {
        Self(Source::Given(SecretString::from(value.into())))
    }

    /// Reads `env:NAME`, `file:PATH`, `exec:COMMAND`, `literal:TEXT` or, without a prefix, the text itself.
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        match text.split_once(':') {
            Some(("env", name)) => {
                Self(Source::Environment { name: name.to_owned(), value: variable(name).map(SecretString::from) })
            }
            Some(("file", path)) => Self(Source::File(PathBuf::from(path))),
            Some(("exec", command)) => Self(Source::Command(command.to_owned())),
            Some(("literal", value)) => Self::literal(value),
            _ => Self::literal(text),
        }
    }

    /// The value as it is now. A trailing newline of a file or command is not part of it.
    ///
    /// Blocks: a file for a moment, a command for up to 5 s. Within a runtime use [`Secret::fetch`].
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let value = match &self.0 {
            Source::Given(value) => return Ok(value.clone()),
            Source::Literal(value) => value.clone(),
            Source::Environment { name, value } => value.clone().ok_or_else(|| SecretError::Unset(name.clone()))?,
            Source::File(path) => text(read_file(path)?)?,
            Source::Command(command) => text(run(command)?)?,
        };
        if value.expose_secret().is_empty() { Err(SecretError::Empty) } else { Ok(value) }
    }

    /// As [`Secret::read`], with files and commands read on the blocking pool.
    pub async fn fetch(&self) -> Result<SecretString, SecretError> {
        match &self.0 {
            Source::Literal(_) | Source::Given(_) | Source::Environment { .. } => self.read(),
            Source::File(_) | Source::Command(_) => {
                let secret = self.clone();
                let reading = tokio::task::spawn_blocking(move || secret.read());
                reading.await.unwrap_or_else(|error| Err(SecretError::CommandFailed(error.to_string())))
            }
        }
    }

    /// The `NAME` of `env:NAME`.
    pub(super) fn variable_name(&self) -> Option<&str> {
        match &self.0 {
            Source::Environment { name, .. } => Some(name),
            Source::Literal(_) | Source::Given(_) | Source::File(_) | Source::Command(_) => None,
        }
    }

    /// Whether the value stands in the configuration file itself, where every reader of the file sees it.
    pub fn is_literal(&self) -> bool {
        matches!(self.0, Source::Literal(_))
    }
}

fn text(bytes: Vec<u8>) -> Result<SecretString, SecretError> {
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText)?;
    Ok(SecretString::from(text.trim_end_matches(['\n', '\r'])))
}

fn read_file(path: &PathBuf) -> Result<Vec<u8>, SecretError> {
    let failed = |error| SecretError::File { path: path.clone(), error };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX { Err(SecretError::FileTooLong(path.clone())) } else { Ok(bytes) }
}

/// Runs the command by `sh -c` and gives its output; what it prints to standard error goes to ours.
fn run(command: &str) -> Result<Vec<u8>, SecretError> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(SecretError::Command)?;
    let mut output = child.stdout.take().expect("piped above").take(SECRET_BYTES_MAX);
    // The pipe is drained beside the wait: a command that prints more than a pipe holds would never end otherwise.
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.read_to_end(&mut bytes).map(|_| bytes);
        // Nobody receives once the command was given up.
        let _ = sender.send(read);
    });
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(SecretError::Command)? {
            break status;
        }
        if Instant::now() >= deadline {
            // A command that cannot be killed has ended by itself: either way it is reaped below.
            let _ = child.kill();
            let _ = child.wait();
            return Err(SecretError::CommandFailed("did not end within 5 s".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        return Err(SecretError::CommandFailed(format!("ended with {status}")));
    }
    // A child left in the background may still hold the pipe: the deadline covers it too.
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(read) => read.map_err(SecretError::Command),
        Err(_) => Err(SecretError::CommandFailed("left its output open for 5 s".to_owned())),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Literal(_) | Source::Given(_) => f.write_str("***"),
            Source::Environment { name, .. } => write!(f, "env:{name}"),
            Source::File(path) => write!(f, "file:{}", path.display()),
            Source::Command(_) => f.write_str("exec:***"),
        }
    }
}

/// Equal in source and, where it is kept, in value: what a reload must know to tell whether something changed.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Literal(a), Source::Literal(b)) => a.expose_secret() == b.expose_secret(),
            (Source::Environment { name: a, value: x }, Source::Environment { name: b, value: y }) => {
                a == b && x.as_ref().map(ExposeSecret::expose_secret) == y.as_ref().map(ExposeSecret::expose_secret)
            }
            (Source::File(a), Source::File(b)) => a == b,
            (Source::Command(a), Source::Command(b)) => a == b,
            _ => false,
        }
    }
}
