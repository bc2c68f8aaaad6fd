//! From the configuration to what the control of a group starts with.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::facts::BackendRules;
use super::group::GroupControlSetup;
use super::mirror::MirrorSettings;
use crate::config::{self, BackendAddress, Profile};
use crate::divergence::Scripts;
use crate::policy::{BackendId, BackendRole, Settings};
use crate::route::{EdgeReport, Publisher};

/// Puts together the control of one group.
#[must_use]
pub fn group_setup(
    config: &config::Group,
    publisher: Publisher,
    scripts: Arc<Scripts>,
    edges: mpsc::Receiver<EdgeReport>,
    seed: u64,
    client_name: String,
    listen: String,
) -> GroupControlSetup {
    let rules = config.backends.iter().enumerate().map(|(index, backend)| rules(index, backend)).collect();
    GroupControlSetup {
        publisher,
        engine_settings: engine_settings(config),
        rules,
        divergence_policy: config.divergence.policy,
        tracks_writers: config.divergence.source == config::DivergenceSource::Tracking,
        mark_prefix: config.divergence.mark_prefix.clone(),
        mirror: MirrorSettings {
            fill: config.mirror.fill,
            copy_rate: config.mirror.copy_rate,
            value_max: config.mirror.value_max,
        },
        probe_interval: config.health_check.interval,
        probe_timeout: config.health_check.timeout,
        write_probe: config.health_check.write_probe,
        scripts,
        edges,
        state_directory: None,
        seed,
        client_name,
        listen,
    }
}

fn rules(index: usize, backend: &config::Backend) -> BackendRules {
    BackendRules {
        id: BackendId(index as u8),
        name: backend.name.clone(),
        role: match backend.role {
            config::Role::Primary => BackendRole::Primary,
            config::Role::Backup => BackendRole::Backup,
        },
        data: backend.data,
        persistent: backend.persistent,
        is_embedded: backend.address == BackendAddress::Embedded,
        weight: backend.weight,
        zone: backend.zone.clone(),
    }
}

fn engine_settings(config: &config::Group) -> Settings {
    let mut settings = match config.failover.profile {
        Profile::Default => Settings::default(),
        Profile::Fast => Settings::fast(),
    };
    settings.failover.failure_threshold = config.failover.failure_threshold;
    settings.failover.hold = config.failover.hold;
    settings.health.availability = config.health.availability;
    settings.health.error_rate = config.health.error_rate;
    settings.health.response_time = config.health.response_time;
    settings.health.replication_lag = config.health.replication_lag;
    settings.phi.interval = config.health_check.interval;
    settings.recovery.enabled = config.recovery.enabled;
    settings.recovery.threshold = config.recovery.threshold;
    settings.recovery.delay = config.recovery.delay;
    settings.recovery.delay_max = config.recovery.delay_max;
    settings.recovery.latency_factor = config.recovery.latency_factor;
    settings.timeout.floor = config.timeout.floor;
    settings.timeout.request = config.timeout.request;
    settings.timeout.slow = config.timeout.slow;
    settings
}
