//! A real `redis-server` that can be killed, frozen, thawed and restarted on its port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::ReservedPort;
use super::resp::{Client, Reply};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// One server process with a directory of its own. Ends with its value, also when it is frozen.
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: ReservedPort,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    password: Option<String>,
    child: Option<Child>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts with further `--name value` arguments and waits until it answers.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::stopped_with(arguments);
        server.spawn(&[]);
        server.wait_until_it_answers();
        server
    }

    /// A port on which nothing listens yet; [`RedisServer::restart`] starts the server there.
    pub(crate) fn stopped() -> Self {
        Self::stopped_with(&[])
    }

    fn stopped_with(arguments: &[&str]) -> Self {
        let password = arguments.iter().position(|argument| *argument == "--requirepass");
        Self {
            port: ReservedPort::new(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            password: password.map(|at| arguments[at + 1].to_owned()),
            child: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The Unix socket on which every server listens besides its port.
    pub(crate) fn unix_socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Others know it by this port from now on: that of a relay before it.
    #[track_caller]
    pub(crate) fn announce(&mut self, port: u16) {
        for (name, value) in
            [("replica-announce-ip", "127.0.0.1".to_owned()), ("replica-announce-port", port.to_string())]
        {
            assert_eq!(self.command(&["CONFIG", "SET", name, &value]), Reply::ok());
            self.arguments.extend([format!("--{name}"), value]);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// A new connection, authenticated when the server asks for it.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        let mut client = Client::connect(self.address());
        if let Some(password) = &self.password {
            assert_eq!(client.command(&["AUTH", password]), Reply::ok());
        }
        client
    }

    /// One command on a direct connection of its own.
    #[track_caller]
    pub(crate) fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Reply {
        self.connect().command(arguments)
    }

    /// What `INFO` says under `field`.
    #[track_caller]
    pub(crate) fn info(&self, field: &str) -> String {
        let info = self.command(&["INFO", "everything"]).text();
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap_or_else(|| panic!("INFO has no {field}")).to_owned()
    }

    /// The password that this server asks for from now on.
    pub(crate) fn rotate_password(&mut self, password: &str) {
        assert_eq!(self.command(&["CONFIG", "SET", "requirepass", password]), Reply::ok());
        self.password = Some(password.to_owned());
    }

    /// SIGKILL: what is in flight is lost, every connection is reset.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a running server");
        child.kill().expect("the signal is sent");
        child.wait().expect("the process is reaped");
    }

    /// SIGSTOP: connections stay open, the kernel still accepts, nothing answers.
    pub(crate) fn freeze(&self) {
        signal(self.pid(), libc::SIGSTOP);
    }

    /// SIGCONT: what waited in its sockets is executed now.
    pub(crate) fn thaw(&self) {
        signal(self.pid(), libc::SIGCONT);
    }

    /// Keeps the content of this moment in the RDB file, for [`RedisServer::restart_with_content`].
    #[track_caller]
    pub(crate) fn save(&self) {
        assert_eq!(self.command(&["SAVE"]), Reply::ok());
    }

    /// As on a full disk: saving fails, and the server takes no writes any more (MISCONF).
    ///
    /// A directory is in the way of the RDB file. A missing permission would not do, since root needs none.
    #[track_caller]
    pub(crate) fn let_saving_fail(&self) {
        std::fs::create_dir(self.directory.path().join("dump.rdb")).expect("no file is there yet");
        assert_eq!(self.command(&["CONFIG", "SET", "save", "3600 1"]), Reply::ok());
        assert!(!self.command(&["BGSAVE"]).is_error());
        super::eventually(Duration::from_secs(5), "saving fails", || self.info("rdb_last_bgsave_status") == "err");
    }

    /// Starts again on the same port, empty, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.restart_without_waiting();
        self.wait_until_it_answers();
    }

    /// As [`RedisServer::restart`], but returns as soon as the process runs.
    pub(crate) fn restart_without_waiting(&mut self) {
        // Absent unless SAVE was used; a plain restart means a cache that lost everything.
        let _ = std::fs::remove_file(self.directory.path().join("dump.rdb"));
        self.spawn(&[]);
    }

    /// Starts again with the content last saved and with further arguments; does not wait, since it may be LOADING.
    pub(crate) fn restart_with_content(&mut self, arguments: &[&str]) {
        assert!(self.directory.path().join("dump.rdb").exists(), "SAVE comes first");
        self.spawn(arguments);
    }

    /// Waits until PING is answered by anything but LOADING.
    #[track_caller]
    pub(crate) fn wait_until_it_answers(&mut self) {
        let start = Instant::now();
        loop {
            let reply = Client::try_connect(self.address()).and_then(|mut client| client.try_command(&["PING"]));
            if reply.is_ok_and(|reply| !reply.is_error_word("LOADING")) {
                return;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(ended.is_none(), "redis-server ended: {ended:?}\n{}", self.log());
            assert!(start.elapsed() < START_TIMEOUT, "redis-server does not answer\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("redis.log")).unwrap_or_default()
    }

    fn spawn(&mut self, arguments: &[&str]) {
        assert!(self.child.is_none(), "the server already runs");
        // `make replicas-valkey` names another one. Not `STANDIN_..`: Standin takes those for settings.
        let program = std::env::var("TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        command
            .args(["--port", &self.port.number().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", "redis.log"])
            .args(["--unixsocket", "redis.sock", "--enable-debug-command", "yes", "--repl-diskless-load", "disabled"])
            .args(&self.arguments)
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("redis-server is installed (on Debian: apt-get install redis-server)");
        self.child = Some(child);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // SIGKILL ends a stopped process too. It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a process of ours.
///
/// By the system call and not by a `kill` process: on a busy machine that takes tens of milliseconds to start, and a pause
/// of 150 ms would be one of 180.
#[allow(unsafe_code, reason = "no safe crate for signals is among the dependencies; the pid is our own child's")]
pub(crate) fn signal(pid: u32, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    // SAFETY: `kill` takes two integers and touches no memory of this process; the child has not been reaped.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0, "kill({pid}, {signal}) failed: {}", std::io::Error::last_os_error());
}
