//! The configuration of a Standin under test, as the TOML that an operator would write.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::port::ReservedPort;
use super::standin_process::{Ports, StandinProcess};

/// Builds the TOML. Keys of `[listen]` and `[control]` have methods of their own, since TOML allows a table only once.
#[derive(Debug)]
pub(crate) struct StandinConfig {
    listen: ReservedPort,
    control: ReservedPort,
    observe: Option<ReservedPort>,
    listen_keys: String,
    backends: String,
    tables: String,
    first_backend: Option<SocketAddr>,
    environment: Vec<(String, String)>,
    groups: Vec<(String, ReservedPort)>,
}

impl StandinConfig {
    pub(crate) fn new() -> Self {
        Self {
            listen: ReservedPort::new(),
            control: ReservedPort::new(),
            observe: None,
            listen_keys: String::new(),
            backends: String::new(),
            tables: String::new(),
            first_backend: None,
            environment: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// A primary and one backup named `backup-a`.
    pub(crate) fn pair(primary: SocketAddr, backup: SocketAddr) -> Self {
        Self::new().primary(primary).backup("backup-a", backup)
    }

    /// As [`StandinConfig::pair`], returning to the primary within about two seconds after it is well again, where the
    /// defaults would take a quarter of a minute.
    pub(crate) fn quick_pair(primary: SocketAddr, backup: SocketAddr) -> Self {
        Self::pair(primary, backup).quick_recovery()
    }

    pub(crate) fn quick_recovery(self) -> Self {
        // The guards against flapping have tests of their own; by variables, since a test may have a [failover] of its own.
        self.table("[recovery]\nthreshold = 2\ndelay = \"1s\"\ndelay_max = \"2s\"")
            .variable("STANDIN_FAILOVER_COOLDOWN", "0s")
            .variable("STANDIN_FAILOVER_MAX_PER_HOUR", "1000")
    }

    pub(crate) fn primary(self, address: SocketAddr) -> Self {
        self.backend("primary", "primary", &address.to_string(), "").reached_directly_at(address)
    }

    pub(crate) fn backup(self, name: &str, address: SocketAddr) -> Self {
        self.backend(name, "backup", &address.to_string(), "")
    }

    /// One `[[backend]]`; `keys` are further lines of it.
    pub(crate) fn backend(mut self, name: &str, role: &str, address: &str, keys: &str) -> Self {
        let table = format!("[[backend]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"{address}\"\n{keys}\n");
        self.backends.push_str(&table);
        self
    }

    /// Where clients go when the tests run without Standin.
    pub(crate) fn reached_directly_at(mut self, address: SocketAddr) -> Self {
        self.first_backend = Some(address);
        self
    }

    /// One `[[group]]` of a primary and one backup named `backup-a`; with groups there is no flat form.
    pub(crate) fn group(mut self, name: &str, primary: SocketAddr, backup: SocketAddr) -> Self {
        let port = ReservedPort::new();
        let mut text = format!("[[group]]\nname = \"{name}\"\nlisten.address = \"{}\"\n", port.address());
        for (backend, role, address) in [("primary", "primary", primary), ("backup-a", "backup", backup)] {
            let keys = format!("name = \"{backend}\"\nrole = \"{role}\"\naddress = \"{address}\"");
            write!(text, "[[group.backend]]\n{keys}\n").expect("a string takes text");
        }
        self.backends.push_str(&text);
        self.groups.push((name.to_owned(), port));
        self
    }

    /// Further lines of `[listen]`.
    pub(crate) fn listen_keys(mut self, lines: &str) -> Self {
        writeln!(self.listen_keys, "{lines}").expect("a string takes text");
        self
    }

    /// Further tables, whole.
    pub(crate) fn table(mut self, text: &str) -> Self {
        writeln!(self.tables, "{text}").expect("a string takes text");
        self
    }

    /// Opens the read-only listener as well.
    pub(crate) fn observe(mut self) -> Self {
        self.observe = Some(ReservedPort::new());
        self
    }

    /// A variable of the process's environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The whole file.
    pub(crate) fn toml(&self) -> String {
        let (listen, control) = (self.listen.address(), self.control.address());
        let mut text = String::new();
        if self.groups.is_empty() {
            write!(text, "[listen]\naddress = \"{listen}\"\n{}\n", self.listen_keys).expect("text");
        }
        // The tables come before the groups: after `[[group]]` they would still be top-level, but hard to read.
        write!(text, "[control]\naddress = \"{control}\"\n\n{}\n{}", self.tables, self.backends).expect("text");
        if !self.tables.contains("[drain]") {
            // Tests end Standin while their clients are still connected; nothing is learned from waiting for those.
            write!(text, "\n[drain]\ntimeout = \"100ms\"\n").expect("text");
        }
        if let Some(observe) = &self.observe {
            write!(text, "\n[observe]\naddress = \"{}\"\n", observe.address()).expect("text");
        }
        text
    }

    /// Starts Standin and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> StandinProcess {
        let toml = self.toml();
        let mut process = StandinProcess::spawn(&toml, &self.environment, self.first_backend);
        process.own_ports(Ports {
            listen: self.listen,
            control: self.control,
            observe: self.observe,
            groups: self.groups,
        });
        process.wait_until_ready();
        process
    }
}
