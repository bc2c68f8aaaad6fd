//! From the configuration to what the control of a group starts with.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::facts::BackendRules;
use super::group::GroupControlSetup;
use super::mirror::MirrorSettings;
use super::replication::is_replicated;
use crate::config::{self, BackendAddress, FailoverMode, Profile, TriggerName};
use crate::divergence::Scripts;
use crate::policy::{
    BackendId, BackendRole, BackendSettings, DataMode, FailoverSettings, Mode, Objectives, RecoverySettings, Settings,
    Triggers,
};
use crate::route::{EdgeReport, Publisher};

/// Puts together the control of one group.
#[allow(clippy::too_many_arguments, reason = "each is handed on as it is")]
#[must_use]
pub fn group_setup(
    config: &config::Group,
    publisher: Publisher,
    scripts: Arc<Scripts>,
    edges: mpsc::Receiver<EdgeReport>,
    seed: u64,
    client_name: String,
    listen: String,
    state: Option<PathBuf>,
) -> GroupControlSetup {
    let rules = config.backends.iter().enumerate().map(|(index, backend)| rules(index, backend, config)).collect();
    GroupControlSetup {
        publisher,
        engine_settings: engine_settings(config),
        rules,
        divergence_policy: config.divergence.policy,
        tracks_writers: config.divergence.source == config::DivergenceSource::Tracking,
        mark_prefix: config.divergence.mark_prefix.clone(),
        promote: config.replica.promote,
        dwell: config.recovery.dwell,
        objectives: Objectives { rto: config.objectives.rto, rpo: config.objectives.rpo },
        mirror: MirrorSettings {
            fill: config.mirror.fill,
            read_fill: config.mirror.read_fill,
            primary: config.mirror.primary,
            copy_rate: config.mirror.copy_rate,
            value_max: config.mirror.value_max,
        },
        sampling: config.sampling.clone(),
        health_check: config.health_check.clone(),
        initialization: config.initialization.clone(),
        state,
        scripts,
        edges,
        seed,
        client_name,
        listen,
    }
}

pub(super) fn rules(index: usize, backend: &config::Backend, group: &config::Group) -> BackendRules {
    let any_replica = group.backends.iter().any(|backend| backend.data == config::DataMode::Replica);
    let role = match backend.role {
        config::Role::Primary => BackendRole::Primary,
        config::Role::Backup => BackendRole::Backup,
    };
    let reached_at = backend.replication_address.clone();
    BackendRules {
        id: BackendId(index as u8),
        name: backend.name.clone(),
        role,
        data: backend.data,
        persistent: backend.persistent,
        is_replicated: is_replicated(role, backend.data, any_replica),
        replication_address: reached_at.map(|address| (address.host, address.port)),
        is_embedded: backend.address == BackendAddress::Embedded,
        weight: backend.weight,
        zone: backend.zone.clone(),
        region: backend.region.clone(),
    }
}

/// What the engine is told of a group's configuration.
#[must_use]
pub fn engine_settings(config: &config::Group) -> Settings {
    let mut settings = match config.failover.profile {
        Profile::Default => Settings::default(),
        Profile::Fast => Settings::fast(),
    };
    let (failover, recovery, timeout) = (&config.failover, &config.recovery, &config.timeout);
    settings.zone.clone_from(&failover.zone);
    settings.region.clone_from(&failover.region);
    settings.failover = FailoverSettings {
        mode: match failover.mode {
            FailoverMode::Automatic => Mode::Automatic,
            FailoverMode::SemiAutomatic => Mode::SemiAutomatic,
            FailoverMode::Manual => Mode::Manual,
        },
        triggers: triggers(&failover.triggers),
        cascade: failover.cascade,
        failure_threshold: failover.failure_threshold,
        max_attempts: failover.max_attempts,
        cooldown: failover.cooldown,
        cooldown_max: failover.cooldown_max,
        max_per_hour: failover.max_per_hour,
        confirm_within: failover.confirm_within,
        hold: failover.hold,
        ..settings.failover
    };
    // A failed probe says less than a refused connection: it may be the probe's own bad luck.
    settings.probe.failure_threshold = failover.failure_threshold.saturating_add(1);
    settings.breaker.failure_rate_threshold = failover.failure_rate_threshold;
    settings.breaker.min_failures = failover.min_failures;
    settings.performance.degradation_threshold = failover.performance_degradation_threshold;
    settings.performance.min_shift = failover.performance_min_shift;
    settings.recovery = RecoverySettings {
        enabled: recovery.enabled,
        threshold: recovery.threshold,
        delay: recovery.delay,
        delay_max: recovery.delay_max,
        grace_period: recovery.grace_period,
        latency_factor: recovery.latency_factor,
        plan: recovery.plan,
        ..settings.recovery
    };
    settings.timeout.floor = timeout.floor;
    settings.timeout.request = timeout.request;
    settings.timeout.slow = timeout.slow;
    let health = &config.health;
    settings.health.availability = health.availability;
    settings.health.error_rate = health.error_rate;
    settings.health.response_time = health.response_time;
    settings.health.replication_lag = health.replication_lag;
    settings.phi.interval = config.health_check.interval;
    settings
}

fn triggers(names: &[TriggerName]) -> Triggers {
    let has = |name| names.contains(&name);
    Triggers {
        health_check: has(TriggerName::HealthCheck),
        connection: has(TriggerName::Connection),
        performance: has(TriggerName::Performance),
        timeout: has(TriggerName::Timeout),
        manual: has(TriggerName::Manual),
    }
}

/// What the engine is told of a group's backends.
#[must_use]
pub fn engine_backends(config: &config::Group) -> Vec<BackendSettings> {
    let backends = config.backends.iter().enumerate();
    let (promote, primary, count) = (config.replica.promote, config.mirror.primary, config.backends.len());
    backends
        .map(|(index, backend)| {
            let rules = rules(index, backend, config);
            engine_backend(&rules, promote, rules.is_kept_in_step(primary, promote, count))
        })
        .collect()
}

pub(super) fn engine_backend(rules: &BackendRules, promote: bool, kept_in_step: bool) -> BackendSettings {
    let mut settings = BackendSettings::new(rules.id, &rules.name, rules.role);
    settings.weight = rules.weight;
    settings.zone.clone_from(&rules.zone);
    settings.region.clone_from(&rules.region);
    settings.last_resort = rules.is_embedded;
    settings.kept_in_step = kept_in_step;
    settings.promotable = promote && rules.is_replicated;
    settings.data = match rules.data {
        config::DataMode::Cold => DataMode::Cold,
        config::DataMode::Mirrored => DataMode::Mirrored,
        config::DataMode::Replica => DataMode::Replica,
    };
    settings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn told(failover: &str) -> Settings {
        let text = format!(
            "listen.address = \"127.0.0.1:6380\"\n{failover}\n\
             [[backend]]\nname = \"primary\"\nrole = \"primary\"\naddress = \"127.0.0.1:6379\"\n\
             [[backend]]\nname = \"backup\"\nrole = \"backup\"\naddress = \"127.0.0.1:6390\"\n"
        );
        let config = config::parse(&text, "test", std::iter::empty()).unwrap();
        engine_settings(&config.groups[0])
    }

    #[test]
    fn an_engine_of_the_default_configuration_is_the_one_that_simulation_and_figures_are_about() {
        assert_eq!(told(""), Settings::default());
        assert_eq!(told("failover.profile = \"fast\""), Settings::fast());
    }

    #[test]
    fn the_failure_threshold_is_one_of_connections_and_of_probes() {
        let settings = told("failover.failure_threshold = 4");
        assert_eq!((settings.failover.failure_threshold, settings.probe.failure_threshold), (4, 5));
    }
}
