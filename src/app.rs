//! Builds and spawns everything once.

use crate::config::Config;
use crate::control::api::CheckLine;

/// Serves until the process is told to end.
pub fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("this build has no data path")
}

/// Tries every backend of every group.
pub fn check_connect(config: &Config) -> Vec<CheckLine> {
    let backends = config.groups.iter().flat_map(|group| &group.backends);
    backends
        .map(|backend| CheckLine {
            backend: backend.name.clone(),
            ok: false,
            text: "not tried: this build has no backend connections".to_owned(),
            mend: None,
        })
        .collect()
}
