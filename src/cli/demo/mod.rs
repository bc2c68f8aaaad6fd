//! `standin demo`: three cache servers, Standin before them, a load, and a view of what happens when the primary dies.
//!
//! Everything runs on this machine's loopback, from this one binary. The demo itself is an observer: what it knows of
//! Standin it asks of the control port and measures at its own clients, as an operator and an application do.
//!
//! | file | what it holds |
//! |---|---|
//! | `stage` | the child processes: started, looked after, ended |
//! | `load`, `ledger`, `meter` | the clients; what each knows of its keys; what was measured |
//! | `watch` | the control port, asked again and again |
//! | `show` | the loop that brings these together |
//! | `view`, `screen` | what is seen, live or as plain lines |
//! | `summary` | the end, and whether it is a good one |

mod ledger;
mod load;
mod meter;
mod screen;
mod show;
mod stage;
mod summary;
mod view;
mod watch;

use clap::Args;

use super::{Failure, output};

/// How the demo runs. Without `--seconds` it runs until Ctrl-C.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// End after so many seconds, print a summary, and exit 0 only if no client saw an error.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Kill the primary by itself after so many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub kill_primary_after: Option<u64>,
    /// Where Standin listens; if taken, or 0, a free port.
    #[arg(long, value_name = "PORT", default_value_t = 6380)]
    pub port: u16,
    /// Connections of the built-in load.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Requests each second of the whole load.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// Plain lines instead of the live view, as without a terminal.
    #[arg(long)]
    pub plain: bool,
    /// The summary as one JSON object on standard output; what happens meanwhile goes to standard error.
    #[arg(long)]
    pub json: bool,
}

/// Runs the demo and prints its summary. Fails if a client saw an error or a stale read, or if the primary was to be
/// killed and no failover followed.
pub(super) fn run(arguments: &DemoArgs) -> Result<(), Failure> {
    if let (Some(seconds), Some(kill)) = (arguments.seconds, arguments.kill_primary_after)
        && kill >= seconds
    {
        let text = format!("--kill-primary-after {kill} never comes: the demo ends after {seconds} s");
        return Err(Failure::bad_config(text));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(show::show(arguments));
    runtime.shutdown_background();
    let Some(summary) = outcome? else { return Ok(()) };
    output::print(&if arguments.json { summary.json() } else { summary.text() });
    match summary.faults() {
        faults if faults.is_empty() => Ok(()),
        faults => Err(Failure::failed(faults.join("; "))),
    }
}
