//! The processes of the demo: three cache servers and the Standin before them.
//!
//! They end with the demo, whatever way it ends: killed when the stage is dropped, and by the end of their standard input
//! (`--until-stdin-ends`) when the demo itself is killed and can drop nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use super::load::answers;
use crate::cli::client::{ControlClient, Target};

/// Names of the backends, the primary first.
pub(super) const BACKENDS: [&str; 3] = ["primary", "backup-a", "backup-b"];
/// A cache server that ended is started again after so long.
pub(super) const RESTART_PAUSE: Duration = Duration::from_secs(5);
/// Where the control port usually is, so that `standin status` needs no address.
const CONTROL_PORT: u16 = 9180;
/// Below the kernel's ephemeral range (32768 up): a port from inside it may be given to any outgoing connection while its
/// server is down, which then could not start again.
const PORT_FIRST: u16 = 20_000;
const PORT_COUNT: u16 = 12_000;
/// How long the processes may take to answer at first.
const START_PATIENCE: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);
/// Of the log of a process that failed to start, this much is shown.
const LOG_LINES_SHOWN: usize = 12;

pub(super) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// All ports of one demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) front: u16,
    pub(super) control: u16,
    pub(super) backends: [u16; BACKENDS.len()],
}

impl Ports {
    /// The wanted front port and the usual control port where they are free, else others; 0 wants none in particular.
    pub(super) fn choose(wanted: u16) -> anyhow::Result<Self> {
        // All are held until the last is chosen, so that none is chosen twice.
        let mut held = Vec::new();
        let mut search = (0..PORT_COUNT).map(|step| {
            // Each process begins elsewhere, so that two demos rarely try the same number.
            let start = (std::process::id() as u16).wrapping_mul(37);
            PORT_FIRST + start.wrapping_add(step) % PORT_COUNT
        });
        let mut choose = |wanted: u16| {
            let wanted = (wanted != 0).then_some(wanted);
            let listener =
                wanted.into_iter().chain(&mut search).find_map(|port| TcpListener::bind(loopback(port)).ok());
            let listener = listener.context("no TCP port is free on 127.0.0.1")?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            anyhow::Ok(port)
        };
        let front = choose(wanted)?;
        let control = choose(if wanted == 0 { 0 } else { CONTROL_PORT })?;
        Ok(Self { front, control, backends: [choose(0)?, choose(0)?, choose(0)?] })
    }

    /// The configuration of the demo's Standin: only what has no default.
    fn configuration(&self) -> String {
        let mut text = format!(
            "[listen]\naddress = \"{}\"\n\n[control]\naddress = \"{}\"\n",
            loopback(self.front),
            loopback(self.control)
        );
        for (name, port) in BACKENDS.iter().zip(self.backends) {
            let role = if *name == BACKENDS[0] { "primary" } else { "backup" };
            text += &format!("\n[[backend]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"{}\"\n", loopback(port));
        }
        text
    }
}

/// A directory of our own under the system's temporary one, for the configuration and the logs.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// This same binary. Looked up once: it may be built anew while the demo runs, and then has no path any more.
    program: PathBuf,
    keep: bool,
}

impl Directory {
    fn create() -> anyhow::Result<Self> {
        // A second demo of the same process id, after a crash, must not be handed the first one's files.
        let now_ms = crate::telemetry::wall_time::WallTime::now().as_ms();
        let path = std::env::temp_dir().join(format!("standin-demo-{}-{now_ms}", std::process::id()));
        let program = std::env::current_exe().context("cannot find the program's own file")?;
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, program, keep: false })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// How a cache server is.
#[derive(Debug)]
enum Life {
    Runs(Child),
    /// To be started again at this time.
    Ended(Instant),
}

#[derive(Debug)]
struct CacheServer {
    name: &'static str,
    port: u16,
    life: Life,
}

/// A cache server as the view shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerReport {
    pub(super) name: &'static str,
    /// Absent while it does not run.
    pub(super) process_id: Option<u32>,
    /// While it does not run: until it is started again.
    pub(super) starts_in: Duration,
}

/// What happened to a process of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) is_bad: bool,
    /// One word or two, as the kind of an event.
    pub(super) kind: &'static str,
    pub(super) message: String,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) ports: Ports,
    servers: Vec<CacheServer>,
    standin: Child,
    // Last: the processes are gone before their files are.
    directory: Directory,
}

impl Stage {
    /// Starts everything and waits until it answers. What was started is gone again if that fails.
    pub(super) async fn build(wanted_port: u16) -> anyhow::Result<Self> {
        let ports = Ports::choose(wanted_port)?;
        let mut directory = Directory::create()?;
        let built = Self::start(ports, &directory).await;
        match built {
            Ok((servers, standin)) => Ok(Self { ports, servers, standin, directory }),
            Err(error) => {
                directory.keep = true;
                Err(error.context(format!("the logs are in {}", directory.path.display())))
            }
        }
    }

    async fn start(ports: Ports, directory: &Directory) -> anyhow::Result<(Vec<CacheServer>, Child)> {
        let mut servers = Vec::new();
        for (name, port) in BACKENDS.into_iter().zip(ports.backends) {
            servers.push(CacheServer { name, port, life: Life::Runs(cache_server(name, port, directory)?) });
        }
        for server in &mut servers {
            let Life::Runs(child) = &mut server.life else { continue };
            let address = loopback(server.port);
            until(child, server.name, directory, async || answers(address).await).await?;
        }
        let file = directory.path.join("standin.toml");
        fs::write(&file, ports.configuration()).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.to_str().context("the system's temporary directory has a name that is not text")?;
        let mut standin = spawn("standin", &["run", "--config", file], directory)?;
        let client = ControlClient::new(Target { authority: loopback(ports.control).to_string(), token: None });
        let ready = async || {
            client.is_well("/readyz", Duration::from_secs(1)).await.is_ok() && answers(loopback(ports.front)).await
        };
        until(&mut standin, "standin", directory, ready).await?;
        Ok((servers, standin))
    }

    /// Notices who ended, and starts again whose time has come. Fails when Standin itself ended: there is nothing to show
    /// any more.
    pub(super) fn look_after(&mut self, now: Instant) -> anyhow::Result<Vec<Notice>> {
        if let Some(status) = self.standin.try_wait()? {
            self.directory.keep = true;
            let tail = log_tail("standin", &self.directory);
            bail!("standin itself ended: {}; its log is in {}\n{tail}", how(status), self.directory.path.display());
        }
        let mut notices = Vec::new();
        for server in &mut self.servers {
            notices.extend(server.look_after(now, &self.directory)?);
        }
        Ok(notices)
    }

    /// As `kill -9` does. `None` if the primary does not run.
    pub(super) fn kill_primary(&mut self) -> anyhow::Result<Option<Notice>> {
        let Some(CacheServer { life: Life::Runs(child), .. }) = self.servers.first_mut() else { return Ok(None) };
        let process_id = child.id().unwrap_or_default();
        child.start_kill().context("cannot kill the primary")?;
        Ok(Some(Notice { is_bad: true, kind: "kill", message: format!("kill -9 {process_id}, the primary") }))
    }

    pub(super) fn report(&self, now: Instant) -> Vec<ServerReport> {
        let report = |server: &CacheServer| match &server.life {
            Life::Runs(child) => ServerReport { name: server.name, process_id: child.id(), starts_in: Duration::ZERO },
            Life::Ended(until) => {
                ServerReport { name: server.name, process_id: None, starts_in: until.saturating_duration_since(now) }
            }
        };
        self.servers.iter().map(report).collect()
    }

    /// Kills every process and waits until it is gone, so that whoever waits for the demo finds nothing left.
    pub(super) async fn end(mut self, keep_logs: bool) -> Option<PathBuf> {
        self.directory.keep |= keep_logs;
        // An error means that it is gone already.
        let _ = self.standin.kill().await;
        for server in &mut self.servers {
            if let Life::Runs(child) = &mut server.life {
                let _ = child.kill().await;
            }
        }
        self.directory.keep.then(|| self.directory.path.clone())
    }
}

impl CacheServer {
    fn look_after(&mut self, now: Instant, directory: &Directory) -> anyhow::Result<Option<Notice>> {
        let name = self.name;
        match &mut self.life {
            Life::Runs(child) => {
                let Some(status) = child.try_wait()? else { return Ok(None) };
                self.life = Life::Ended(now + RESTART_PAUSE);
                let message =
                    format!("{name} ended: {}; it starts again in {} s", how(status), RESTART_PAUSE.as_secs());
                Ok(Some(Notice { is_bad: true, kind: "server ended", message }))
            }
            Life::Ended(until) if *until <= now => {
                let (life, notice) = match cache_server(name, self.port, directory) {
                    Ok(child) => {
                        let process_id = child.id().unwrap_or_default();
                        let message = format!("{name} runs again, empty, as process {process_id}");
                        (Life::Runs(child), Notice { is_bad: false, kind: "server started", message })
                    }
                    // Too many processes, say. Standin lives without this server for as long as another one serves.
                    Err(error) => {
                        let message = format!("{name} cannot be started again: {error:#}");
                        (Life::Ended(now + RESTART_PAUSE), Notice { is_bad: true, kind: "server ended", message })
                    }
                };
                self.life = life;
                Ok(Some(notice))
            }
            Life::Ended(_) => Ok(None),
        }
    }
}

fn cache_server(name: &'static str, port: u16, directory: &Directory) -> anyhow::Result<Child> {
    spawn(name, &["cache-server", "--port", &port.to_string()], directory)
}

/// Starts this same binary with its output in `NAME.log`.
fn spawn(name: &str, arguments: &[&str], directory: &Directory) -> anyhow::Result<Child> {
    let log = directory.path.join(format!("{name}.log"));
    let log = || OpenOptions::new().create(true).append(true).open(&log);
    let output = || log().with_context(|| format!("cannot write {name}.log in {}", directory.path.display()));
    let mut command = Command::new(&directory.program);
    // Whatever the user's shell holds for a real Standin is not meant for these.
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("STANDIN_") || text == "CACHE_SERVER_PASSWORD" {
            command.env_remove(&variable);
        }
    }
    command
        .args(arguments)
        .arg("--until-stdin-ends")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(output()?)
        .stderr(output()?)
        // Ctrl-C is for the demo, which ends the load first; a terminal sends it to the whole process group.
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {name}"))
}

/// Waits until a process that was just started answers. Says what its log says if it ends instead.
async fn until(
    child: &mut Child,
    name: &str,
    directory: &Directory,
    mut is_ready: impl AsyncFnMut() -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("{name} did not start: {}\n{}", how(status), log_tail(name, directory));
        }
        if is_ready().await {
            return Ok(());
        }
        if Instant::now() > deadline {
            let tail = log_tail(name, directory);
            bail!("{name} does not answer after {} s\n{tail}", START_PATIENCE.as_secs());
        }
        tokio::time::sleep(START_POLL).await;
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

/// The last lines of a process's log, indented.
fn log_tail(name: &str, directory: &Directory) -> String {
    let text = File::open(directory.path.join(format!("{name}.log"))).and_then(io::read_to_string).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines[first..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_wanted_port_is_taken_where_it_is_free_and_another_where_it_is_not() {
        let other = TcpListener::bind(loopback(0)).unwrap();
        let taken = other.local_addr().unwrap().port();
        let ports = Ports::choose(taken).unwrap();
        assert_ne!(ports.front, taken);
        let again = Ports::choose(ports.front).unwrap();
        assert_eq!(again.front, ports.front);
        let all = [vec![ports.front, ports.control], ports.backends.to_vec()].concat();
        let different: std::collections::BTreeSet<u16> = all.iter().copied().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }

    #[test]
    fn the_configuration_is_one_that_standin_reads() {
        let ports = Ports { front: 6380, control: 9180, backends: [20_001, 20_002, 20_003] };
        let directory = Directory::create().unwrap();
        let file = directory.path.join("standin.toml");
        fs::write(&file, ports.configuration()).unwrap();
        let config = crate::config::load(&file, std::iter::empty()).unwrap();
        let names: Vec<&str> = config.groups[0].backends.iter().map(|backend| backend.name.as_str()).collect();
        assert_eq!((names, config.control.address), (BACKENDS.to_vec(), loopback(9180)));
        let path = directory.path.clone();
        drop(directory);
        assert!(!path.exists());
    }
}
