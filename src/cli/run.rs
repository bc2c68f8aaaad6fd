//! `standin run` and `standin cache-server`: the commands that stay.

use std::io;
use std::path::Path;

use super::{CacheServerArgs, Failure, OWN_VARIABLES, RunArgs};
use crate::config::{self, Config, LogFormat};
use crate::embedded::{CacheServerOptions, run_cache_server};
use crate::telemetry::logging;

/// Reads the configuration with the environment over it. All its errors come at once, one a line.
pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    let environment = config::process_environment().filter(|(name, _)| !OWN_VARIABLES.contains(&name.as_str()));
    config::load(path, environment).map_err(|errors| {
        let count = errors.0.len();
        let plural = if count == 1 { "" } else { "s" };
        Failure::bad_config(format!("the configuration has {count} error{plural}\n{errors}"))
    })
}

pub(super) fn run(arguments: &RunArgs) -> Result<(), Failure> {
    let config = load(&arguments.config)?;
    start_logging(&config.log)?;
    if arguments.until_stdin_ends {
        end_with_standard_input()?;
    }
    serve(config)
}

fn start_logging(log: &config::Log) -> Result<(), Failure> {
    let variable = std::env::var(logging::LEVEL_VARIABLE).ok();
    let format = match log.format {
        LogFormat::Text => logging::LogFormat::Text,
        LogFormat::Json => logging::LogFormat::Json,
    };
    logging::init(&log.level, format, variable.as_deref()).map_err(|error| Failure::bad_config(error.to_string()))
}

/// Serves until the process is told to end.
fn serve(config: Config) -> Result<(), Failure> {
    crate::app::run(config).map_err(|error| Failure::failed(format!("cannot serve: {error:#}")))
}

pub(super) fn cache_server(arguments: CacheServerArgs) -> Result<(), Failure> {
    start_logging(&config::Log::default())?;
    if arguments.until_stdin_ends {
        end_with_standard_input()?;
    }
    serve_store(arguments)
}

/// Serves the in-process store until SIGTERM or SIGINT.
pub(super) fn serve_store(arguments: CacheServerArgs) -> Result<(), Failure> {
    let CacheServerArgs { port, bind, max_memory, password, until_stdin_ends: _ } = arguments;
    let options = CacheServerOptions { bind, port, max_memory_bytes: max_memory, password };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let served = runtime.block_on(run_cache_server(options));
    served.map_err(|error| Failure::failed(format!("cannot serve on {bind}, port {port}: {error}")))
}

/// Ends this process once nobody holds the other end of its standard input any more.
///
/// That is how the demo's children end with it, even when it is killed and can tell nobody; a parent-death signal would
/// need unsafe code and exists on Linux alone.
fn end_with_standard_input() -> Result<(), Failure> {
    let watch = || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    };
    let thread = std::thread::Builder::new().name("standard-input".to_owned()).spawn(watch);
    thread.map(drop).map_err(|error| Failure::failed(format!("cannot watch standard input: {error}")))
}
