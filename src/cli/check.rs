//! `standin check`: what is wrong with a configuration, and with the backends it names.

use std::fmt::Write;

use super::output::{self, harmless};
use super::render::{Cell, Tone, table};
use super::{CheckArgs, Failure, run};
use crate::config::{BackendAddress, Config, DataMode, Role};
use crate::control::api::CheckLine;

pub(super) fn run(arguments: &CheckArgs) -> Result<(), Failure> {
    let config = run::load(&arguments.config)?;
    output::print(&format!("{} is in order.\n\n{}", arguments.config.display(), summary(&config)));
    if !arguments.connect {
        return Ok(());
    }
    let lines = connect(&config);
    output::print(&format!("\n{}", report(&lines, output::wants_colour())));
    if lines.iter().all(|line| line.ok) { Ok(()) } else { Err(Failure::failed("")) }
}

/// Tries every backend.
fn connect(config: &Config) -> Vec<CheckLine> {
    crate::app::check_connect(config)
}

/// What would be served from where; no secrets.
fn summary(config: &Config) -> String {
    let mut text = String::new();
    for group in &config.groups {
        let tls = if group.listen.tls.is_some() { " (TLS)" } else { "" };
        let _ = writeln!(text, "group {} listens on {}{tls}", group.name, group.listen.address);
        let rows = group.backends.iter().map(|backend| {
            let role = match backend.role {
                Role::Primary => "primary",
                Role::Backup => "backup",
            };
            let data = match (backend.role, &backend.address, backend.data) {
                (Role::Primary, ..) => "",
                (Role::Backup, BackendAddress::Embedded, _) => "last resort",
                (Role::Backup, _, DataMode::Cold) => "cold",
                (Role::Backup, _, DataMode::Mirrored) => "mirrored",
                (Role::Backup, _, DataMode::Replica) => "replica",
            };
            let tls = if backend.tls.is_some() { " (TLS)" } else { "" };
            let address = format!("{}{tls}", backend.address);
            ["", &backend.name, role, &address, data].map(Cell::plain).to_vec()
        });
        text.push_str(&table(&rows.collect::<Vec<_>>(), false));
    }
    let token = if config.control.token.is_some() { ", with a token" } else { "" };
    let _ = writeln!(text, "control port {}{token}", config.control.address);
    if let Some(observe) = &config.observe {
        let _ = writeln!(text, "observe port {}", observe.address);
    }
    text
}

/// One line for each finding, and below it the command that mends it.
fn report(lines: &[CheckLine], coloured: bool) -> String {
    let mut text = String::new();
    for line in lines {
        let (word, tone) = if line.ok { ("ok", Tone::Good) } else { ("PROBLEM", Tone::Bad) };
        let row = vec![Cell::toned(word, tone), Cell::plain(&line.backend), Cell::plain(&line.text)];
        text.push_str(&table(&[row], coloured));
        if let Some(mend) = &line.mend {
            let _ = writeln!(text, "    mend: {}", harmless(mend));
        }
    }
    let problems = lines.iter().filter(|line| !line.ok).count();
    let _ = match problems {
        0 => writeln!(text, "every backend is as it should be"),
        1 => writeln!(text, "1 problem"),
        count => writeln!(text, "{count} problems"),
    };
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;

    use super::*;
    use crate::config::{Backend, Control, Drain, Group, Log, Observe, Secret, Workers};

    fn config() -> Config {
        let mut primary = Backend::new("primary", Role::Primary, "10.0.0.1", 6379);
        primary.password = Some(Secret::literal("hunter2"));
        let mut last = Backend::new("last", Role::Backup, "unused", 1);
        last.address = BackendAddress::Embedded;
        let backups = [Backend::new("backup-a", Role::Backup, "10.0.0.2", 6379), last];
        let listen = SocketAddr::from(([127, 0, 0, 1], 6380));
        Config {
            groups: vec![Group::new("default", listen, [vec![primary], backups.to_vec()].concat())],
            control: Control { token: Some(Secret::literal("hunter2")), ..Control::default() },
            observe: Some(Observe { address: SocketAddr::from(([0, 0, 0, 0], 9181)) }),
            workers: Workers::default(),
            drain: Drain::default(),
            state: Default::default(),
            log: Log::default(),
        }
    }

    #[test]
    fn the_summary_says_what_is_served_from_where_and_keeps_the_secrets() {
        let text = summary(&config());
        let expected = "group default listens on 127.0.0.1:6380\n  primary   primary  10.0.0.1:6379\n  \
                        backup-a  backup   10.0.0.2:6379  cold\n  last      backup   embedded       last resort\n\
                        control port 127.0.0.1:9180, with a token\nobserve port 0.0.0.0:9181\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn each_problem_is_shown_with_the_command_that_mends_it() {
        let lines = [
            CheckLine { backend: "primary".into(), ok: true, text: "master, Redis 7.0.15".into(), mend: None },
            CheckLine {
                backend: "backup-a".into(),
                ok: false,
                text: "not empty\u{1b}[2J".into(),
                mend: Some("standin adopt backup-a".into()),
            },
        ];
        let text = report(&lines, false);
        assert!(text.contains("ok  primary  master, Redis 7.0.15\n"), "{text}");
        assert!(
            text.contains("PROBLEM  backup-a  not empty?[2J\n    mend: standin adopt backup-a\n1 problem\n"),
            "{text}"
        );
    }
}
