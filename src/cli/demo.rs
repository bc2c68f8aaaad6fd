//! `standin demo`: three cache servers, Standin before them, a load, and a view of what happens when the primary dies.

use clap::Args;

/// How the demo runs. Without `--seconds` it runs until Ctrl-C.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// End after so many seconds, print a summary, and exit 0 only if no client saw an error.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Kill the primary by itself after so many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub kill_primary_after: Option<u64>,
    /// Connections of the built-in load.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Requests each second of the whole load.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// Plain lines instead of the live view, as without a terminal.
    #[arg(long)]
    pub plain: bool,
}

/// Refuses: this build has no demo.
pub(super) fn run(_arguments: &DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("this build has no demo; `standin run --config FILE` serves")
}
