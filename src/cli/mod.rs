//! The command line: arguments to one command, its output, its exit code.
//!
//! The client commands (`status`, `events`, `failover`, ...) speak only the control API; they know nothing of the process
//! that answers. Output for scripts is `--json`; the text is for people and may change.

mod check;
mod client;
mod control_commands;
mod demo;
mod explain;
mod output;
mod render;
mod replay;
mod run;
mod simulate;
mod statistics;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::limits;

pub use demo::DemoArgs;

/// A command line that cannot be read, or a configuration that cannot be used (`EX_USAGE`).
const EXIT_BAD_CONFIG: u8 = 64;
/// A failed start, a refused command, no answer.
const EXIT_FAILED: u8 = 1;

/// Variables of the command line itself, which override no key of the configuration.
const OWN_VARIABLES: [&str; 3] = ["STANDIN_CONFIG", "STANDIN_CONTROL", crate::telemetry::logging::LEVEL_VARIABLE];

/// A resilient caching-proxy sidecar for Redis and Valkey.
#[derive(Debug, Parser)]
#[command(name = "standin", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, until SIGTERM.
    Run(RunArgs),
    /// Read a configuration and print everything that is wrong with it.
    Check(CheckArgs),
    /// Show on this machine alone how a primary dies and nobody notices.
    Demo(DemoArgs),
    /// Serve the in-process store as a small cache server of its own.
    CacheServer(CacheServerArgs),
    /// Exit 0 if a Standin answers on its control port, else 1.
    Healthcheck(ControlArgs),
    /// Show which backend serves and how each one is.
    Status(StatusArgs),
    /// Show what happened.
    Events(EventsArgs),
    /// Leave the active backend for another.
    Failover(FailoverArgs),
    /// Return to the primary now.
    Recover(RecoverArgs),
    /// Enter a backend and stay there for a while.
    Pin(PinArgs),
    /// End a pin.
    Unpin(PlainArgs),
    /// Stop the plan under way where it is; breaches still lead back.
    Pause(PlainArgs),
    /// Let a paused plan go on.
    Resume(PlainArgs),
    /// End the plan under way: the backend that served before serves again.
    Rollback(PlainArgs),
    /// Leave a backend in order if it serves, and do not enter it until `include`.
    Drain(BackendArgs),
    /// Do not enter a backend until `include`.
    Exclude(BackendArgs),
    /// Let a backend be entered again.
    Include(BackendArgs),
    /// Carry out the switch that is proposed.
    Confirm(ProposalArgs),
    /// Drop the switch that is proposed.
    Reject(ProposalArgs),
    /// Show switches and incidents of the last day and the last 30.
    Stats(StatusArgs),
    /// Explain an event: what was seen, who was weighed, why the losers lost, what to do.
    Explain(ExplainArgs),
    /// Fetch what the engine was told around an event, for `replay`.
    Recording(RecordingArgs),
    /// Run a recording through the engine again: the same decisions must come out.
    Replay(ReplayArgs),
    /// Let Standin empty a backend when that is needed to enter it.
    Adopt(OwnershipArgs),
    /// Take that permission back.
    Disown(OwnershipArgs),
    /// Run the failover engine through a scenario in virtual time, and judge it.
    Simulate(simulate::SimulateArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "STANDIN_CONFIG")]
    config: PathBuf,
    /// End when standard input ends: with the process that holds its other end.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "STANDIN_CONFIG")]
    config: PathBuf,
    /// Also try every backend: role, version, missing permissions, whether it could be entered.
    #[arg(long)]
    connect: bool,
}

#[derive(Debug, Args)]
struct CacheServerArgs {
    /// 0 lets the kernel choose; the log says which it is.
    #[arg(long)]
    port: u16,
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Keys and values beyond this are evicted, as in 64MiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = crate::config::units::parse_size)]
    max_memory: usize,
    /// What clients must give in AUTH. The variable keeps it out of the process list.
    #[arg(long, value_name = "PASSWORD", env = "CACHE_SERVER_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// End when standard input ends: with the process that holds its other end.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// Where the control port is. The token is taken from STANDIN_CONTROL_TOKEN, else from the configuration file.
#[derive(Debug, Args)]
struct ControlArgs {
    /// Address of the control port [default: 127.0.0.1:9180].
    #[arg(long, value_name = "ADDRESS", env = "STANDIN_CONTROL")]
    control: Option<String>,
    /// Take address and token from this configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// The whole report as JSON, for scripts.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct EventsArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Keep showing what happens, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// One event a line, as JSON.
    #[arg(long)]
    json: bool,
    /// How many past events to show at most.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = count)]
    limit: usize,
}

#[derive(Debug, Args)]
struct FailoverArgs {
    #[command(flatten)]
    plain: PlainArgs,
    /// The backend to enter; the best one if absent.
    #[arg(value_name = "TO")]
    name: Option<String>,
    /// The same.
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    to: Option<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// How a switch is made.
#[derive(Debug, Args)]
struct HowArgs {
    /// immediate, drain, or, to a backend that is named: blue_green, gradual, canary.
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// How long each comparison of blue_green, gradual and canary lasts at least, as in 30s.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    dwell: Option<String>,
    /// Print the steps, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RecoverArgs {
    #[command(flatten)]
    plain: PlainArgs,
    #[command(flatten)]
    how: HowArgs,
}

/// What every order takes.
#[derive(Debug, Args)]
struct PlainArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Needed where there are several groups.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Goes into the event history.
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct PinArgs {
    /// The backend.
    name: String,
    #[command(flatten)]
    plain: PlainArgs,
    /// How long, as in 10m.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasts: String,
}

#[derive(Debug, Args)]
struct BackendArgs {
    /// The backend.
    name: String,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Debug, Args)]
struct ProposalArgs {
    /// The proposal's number; the one that stands if absent.
    proposal: Option<u64>,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The event's number, as `standin events` shows it.
    event: u64,
    #[command(flatten)]
    control: ControlArgs,
    /// The event and those around it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RecordingArgs {
    /// The event's number; without one, what the engine was told lately.
    event: Option<u64>,
    #[command(flatten)]
    control: ControlArgs,
    /// Needed where there are several groups.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Where to write it; to standard output if absent.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// A recording, from `standin recording` or the state directory.
    file: PathBuf,
    /// Also show what this configuration would have done.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The group of that configuration, if it is not named as the recorded one.
    #[arg(long, value_name = "GROUP", requires = "config")]
    group: Option<String>,
    /// One decision a line, as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct OwnershipArgs {
    /// The backend.
    name: String,
    #[command(flatten)]
    control: ControlArgs,
    /// Needed where there are several groups.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=limits::EVENTS_KEPT_MAX).contains(&count) => Ok(count),
        _ => Err(format!("a count from 1 to {}", limits::EVENTS_KEPT_MAX)),
    }
}

/// Checked here, sent as it is.
fn duration(text: &str) -> Result<String, String> {
    crate::config::units::parse_duration(text).map(|_| text.to_owned())
}

/// Carries out one command line and answers the exit code: 0, 1 (failed) or 64 (bad configuration or arguments).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed terminal is no reason for another error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_BAD_CONFIG) } else { ExitCode::SUCCESS };
        }
    };
    match carry_out(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command failed, ready to be printed.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: u8,
    /// May be empty: everything was said already.
    text: String,
}

impl Failure {
    fn failed(text: impl Into<String>) -> Self {
        Self { code: EXIT_FAILED, text: text.into() }
    }

    fn bad_config(text: impl Into<String>) -> Self {
        Self { code: EXIT_BAD_CONFIG, text: text.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

fn carry_out(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::CacheServer(arguments) => run::cache_server(arguments),
        Command::Healthcheck(arguments) => control_commands::healthcheck(&arguments),
        Command::Status(arguments) => control_commands::status(&arguments),
        Command::Events(arguments) => control_commands::events(&arguments),
        Command::Failover(arguments) => control_commands::failover(&arguments),
        Command::Recover(arguments) => control_commands::recover(&arguments),
        Command::Pin(arguments) => control_commands::pin(&arguments),
        Command::Unpin(arguments) => control_commands::plain(&arguments, "/v1/unpin"),
        Command::Pause(arguments) => control_commands::plain(&arguments, "/v1/pause"),
        Command::Resume(arguments) => control_commands::plain(&arguments, "/v1/resume"),
        Command::Rollback(arguments) => control_commands::plain(&arguments, "/v1/rollback"),
        Command::Drain(arguments) => control_commands::about(&arguments, "/v1/drain"),
        Command::Exclude(arguments) => control_commands::about(&arguments, "/v1/exclude"),
        Command::Include(arguments) => control_commands::about(&arguments, "/v1/include"),
        Command::Confirm(arguments) => control_commands::answer(&arguments, "/v1/confirm"),
        Command::Reject(arguments) => control_commands::answer(&arguments, "/v1/reject"),
        Command::Stats(arguments) => statistics::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Recording(arguments) => replay::fetch(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Adopt(arguments) => control_commands::own(&arguments, "/v1/adopt"),
        Command::Disown(arguments) => control_commands::own(&arguments, "/v1/disown"),
        Command::Simulate(arguments) => simulate::run(&arguments),
    }
}
