//! All metric names, each with its kind, unit and help, and the handles that write them.
//!
//! Label sets are closed: names from the configuration and words from the sets below, never a key or a client's address.
//! Nothing here is on the path of a request: the data plane counts in atomics of its own, and the control task publishes
//! their totals once a second through [`Counter::absolute`]. The recorder is a value and not the process's global one, so
//! that tests run side by side and no library can add names.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use super::process::ProcessSample;
use crate::policy::FailureKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One name of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Command classes, as the command table has them.
pub const CLASSES: [&str; 7] = ["point_read", "write", "multi_key", "script", "slow", "blocking", "admin"];
/// The kinds of failures, in the order of [`FailureKind::ALL`].
pub const ERROR_TYPES: [&str; FailureKind::COUNT] =
    ["connection", "timeout", "overloaded", "not_ready", "wrong_role", "authentication", "protocol", "data"];
/// What our latency histograms publish, with the label text of each quantile.
pub const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.99, "0.99"), (0.999, "0.999")];
/// What stands for the trigger where requests are held for a staged plan, and nothing is switched.
pub const PLAN_TRIGGER: &str = "plan";
/// Seconds. From the immediate switch (well under a millisecond) to a drained one.
const SWITCH_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

const PER_PROCESS: &[&str] = &[];
const PER_GROUP: &[&str] = &["group"];
const PER_BACKEND: &[&str] = &["group", "backend"];

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, $unit:ident, $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: $labels, help: $help };
        )*
        /// Every metric there is.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    REQUESTS = "standin_requests_total", Counter, Count, &["group", "backend", "class"],
        "Requests answered by this backend, by command class.";
    REQUEST_ERRORS = "standin_request_errors_total", Counter, Count, &["group", "backend", "type"],
        "Requests that this backend answered with an error or not at all, by what went wrong; most of them are served elsewhere and never reach a client. `data` is the application's own.";
    RETRIES = "standin_retries_total", Counter, Count, PER_GROUP,
        "Requests sent again after a fault, on the same backend or on another.";
    UNKNOWN_OUTCOMES = "standin_unknown_outcomes_total", Counter, Count, PER_GROUP,
        "Requests answered with -UNKNOWNOUTCOME, because sending them again might have applied them twice.";
    SHED = "standin_shed_total", Counter, Count, PER_GROUP,
        "Requests refused because a bound was reached.";
    NO_BACKEND = "standin_no_backend_total", Counter, Count, PER_GROUP,
        "Requests answered with -NOBACKEND, because no backend could serve.";
    CLIENTS = "standin_clients", Gauge, Count, PER_GROUP,
        "Client connections now.";
    CLIENT_CONNECTIONS = "standin_client_connections_total", Counter, Count, PER_GROUP,
        "Client connections accepted since the start.";
    IN_FLIGHT = "standin_in_flight", Gauge, Count, PER_BACKEND,
        "Requests sent to this backend and not yet answered.";
    LINKS = "standin_links", Gauge, Count, PER_BACKEND,
        "Multiplexed connections to this backend that are ready.";
    PINNED_CONNECTIONS = "standin_pinned_connections", Gauge, Count, PER_BACKEND,
        "Connections to this backend that one client session owns.";
    ACTIVE_BACKEND = "standin_active_backend", Gauge, Count, PER_BACKEND,
        "1 for the backend that serves now, 0 for the others.";
    ROUTE_EPOCH = "standin_route_epoch", Gauge, Count, PER_GROUP,
        "The route's epoch; it grows with each switch.";
    PLAN_SHARE = "standin_plan_share_ratio", Gauge, Count, PER_GROUP,
        "Share of the hash slots that the next backend of a staged plan serves; 0 while none is under way.";
    BACKEND_UP = "standin_backend_up", Gauge, Count, PER_BACKEND,
        "1 while the last probes of this backend succeeded.";
    BACKEND_SCORE = "standin_backend_score", Gauge, Count, PER_BACKEND,
        "Health score of this backend, 0 to 100.";
    BACKEND_HEALTH = "standin_backend_health", Gauge, Count, PER_BACKEND,
        "Health of this backend: 4 healthy, 3 degraded, 2 critical, 1 failed, 0 unknown.";
    BREAKER_STATE = "standin_breaker_state", Gauge, Count, PER_BACKEND,
        "Circuit breaker of this backend: 0 closed (traffic flows), 1 half open, 2 open (traffic stopped).";
    SWITCHES = "standin_switches_total", Counter, Count, &["group", "trigger", "result"],
        "Switches of the active backend, by trigger and result.";
    SWITCH_DURATION = "standin_switch_duration_seconds", Histogram, Seconds, &["group", "trigger"],
        "Time from the decision to switch until the new route was published.";
    SWITCH_HOLD = "standin_switch_hold_seconds", Histogram, Seconds, &["group", "trigger"],
        "How long requests waited for a switch; switches that held none are not counted. Trigger `plan`: for two backends to begin to serve at once, or for that to be withdrawn.";
    PROBE_LATENCY = "standin_probe_latency_seconds", Gauge, Seconds, PER_BACKEND,
        "Latency of the last answered probe of this backend.";
    BASELINE_LATENCY = "standin_baseline_latency_seconds", Gauge, Seconds, &["group", "backend", "class"],
        "Recorded latency of this backend when it is well, by command class.";
    REQUEST_LATENCY = "standin_request_latency_seconds", Gauge, Seconds, &["group", "backend", "class", "quantile"],
        "Quantiles of request latency over the last window, by command class.";
    DIVERGENCE_KEYS = "standin_divergence_keys", Gauge, Count, PER_BACKEND,
        "Keys that this backend has missed.";
    DIVERGENCE_BYTES = "standin_divergence_bytes", Gauge, Bytes, PER_BACKEND,
        "Memory of the record of the keys that this backend has missed.";
    DIVERGENCE_STATE = "standin_divergence_state", Gauge, Count, PER_BACKEND,
        "Divergence of this backend: 0 clean, 1 empty, 2 a set of keys, 3 unknown.";
    MIRROR_LAG = "standin_mirror_lag_seconds", Gauge, Seconds, PER_BACKEND,
        "Age of the oldest write that this mirrored backend has not confirmed; 0 when it has confirmed all.";
    MIRROR_WAITING = "standin_mirror_waiting_bytes", Gauge, Bytes, PER_BACKEND,
        "Writes on their way to this mirrored backend.";
    MIRROR_IN_STEP = "standin_mirror_in_step", Gauge, Count, PER_BACKEND,
        "1 while this backend is kept in step and was filled; 0 for the active too.";
    MIRROR_COMMANDS = "standin_mirror_commands_total", Counter, Count, PER_BACKEND,
        "Writes that were mirrored to this backend as commands.";
    MIRROR_COPIES = "standin_mirror_copies_total", Counter, Count, PER_BACKEND,
        "Keys whose value was copied to this backend.";
    MIRROR_DROPPED = "standin_mirror_dropped_total", Counter, Count, PER_BACKEND,
        "Writes for which there was no room on the way to this backend; their keys were copied later.";
    REPLICATION_OFFSET = "standin_replication_offset_bytes", Gauge, Bytes, PER_BACKEND,
        "Bytes of the replication stream that this server has produced, or taken in; its rate is the bandwidth.";
    REPLICATION_BEHIND = "standin_replication_behind_bytes", Gauge, Bytes, PER_BACKEND,
        "Bytes of the stream that this replica is known to lack.";
    REPLICATION_LAG = "standin_replication_lag_seconds", Gauge, Seconds, PER_BACKEND,
        "Nothing older than this, of what was acknowledged to clients, is missing on this replica.";
    REPLICATION_LINK = "standin_replication_link_up", Gauge, Count, PER_BACKEND,
        "1 while this replica's link to its master is up, and for a master; 0 else, and for backends that do not replicate.";
    SAMPLING_COMPARED = "standin_sampling_compared_total", Counter, Count, PER_BACKEND,
        "Keys of which this backend's content was compared with that of the active.";
    SAMPLING_DIFFERING = "standin_sampling_differing_total", Counter, Count, PER_BACKEND,
        "Of those, the ones that differed though nothing was under way.";
    SAMPLING_REPAIRED = "standin_sampling_repaired_total", Counter, Count, PER_BACKEND,
        "Of those, the ones that were copied again and found alike afterwards.";
    SAMPLING_AGREEMENT = "standin_sampling_agreement_ratio", Gauge, Count, PER_BACKEND,
        "Share of the last 1000 compared keys that agreed; 1 before the first.";
    RTO_PRESENT = "standin_rto_present_seconds", Gauge, Seconds, PER_GROUP,
        "Recovery time of an outage that began now; infinite while there is nobody to go to.";
    RTO_WORST = "standin_rto_worst_seconds", Gauge, Seconds, PER_GROUP,
        "Longest recovery time of an outage since the start.";
    RTO_TARGET = "standin_rto_target_seconds", Gauge, Seconds, PER_GROUP,
        "`objectives.rto`; 0 without a target.";
    RPO_PRESENT = "standin_rpo_present_seconds", Gauge, Seconds, PER_GROUP,
        "Age of the oldest acknowledged write that an outage would lose that began now; infinite where nothing bounds it.";
    RPO_WORST = "standin_rpo_worst_seconds", Gauge, Seconds, PER_GROUP,
        "Age of the oldest acknowledged write that an outage has lost at most since the start; infinite where nothing bounded it.";
    RPO_TARGET = "standin_rpo_target_seconds", Gauge, Seconds, PER_GROUP,
        "`objectives.rpo`; 0 without a target.";
    OBJECTIVES_MISSED = "standin_objectives_missed_total", Counter, Count, PER_GROUP,
        "Targets of `[objectives]` that outages have missed.";
    BACKEND_ENTERABLE = "standin_backend_enterable", Gauge, Count, PER_BACKEND,
        "1 while this backend could begin to serve as things stand; `standin status` says why not.";
    RESIDENT_BYTES = "standin_process_resident_bytes", Gauge, Bytes, PER_PROCESS,
        "Resident memory of this process.";
    OPEN_FDS = "standin_process_open_fds", Gauge, Count, PER_PROCESS,
        "Open file descriptors of this process.";
    BUILD_INFO = "standin_build_info", Gauge, Count, &["version"],
        "Always 1; the label says which version runs.";
}

/// The recorder with all names described, and the process's own gauges. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    resident_bytes: Gauge,
    open_fds: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl Metrics {
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(SWITCH_DURATION.name.to_owned()), &SWITCH_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full(SWITCH_HOLD.name.to_owned()), &SWITCH_BUCKETS)?
            .build_recorder();
        for metric in ALL {
            let (name, unit, help) = (KeyName::from(metric.name), Some(metric.unit), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
        let resident_bytes = recorder.register_gauge(&key(&RESIDENT_BYTES, &[]), &METADATA);
        let open_fds = recorder.register_gauge(&key(&OPEN_FDS, &[]), &METADATA);
        recorder.register_gauge(&key(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")]), &METADATA).set(1.0);
        let metrics = Self { inner: Arc::new(Inner { recorder, resident_bytes, open_fds }) };
        metrics.upkeep();
        Ok(metrics)
    }

    /// Must be called about once a second: drains the histograms, which else grow, and samples the process.
    pub fn upkeep(&self) {
        self.inner.recorder.handle().run_upkeep();
        let sample = ProcessSample::now();
        if let Some(bytes) = sample.resident_bytes {
            self.inner.resident_bytes.set(bytes as f64);
        }
        if let Some(count) = sample.open_fds {
            self.inner.open_fds.set(count as f64);
        }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        self.inner.recorder.handle().render()
    }

    /// A handle to keep. `values` stand in the order of the metric's labels; a wrong count or kind is a programmer's fault.
    pub fn counter(&self, metric: &Metric, values: &[&str]) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.inner.recorder.register_counter(&key(metric, values), &METADATA)
    }

    /// As [`Metrics::counter`].
    pub fn gauge(&self, metric: &Metric, values: &[&str]) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.inner.recorder.register_gauge(&key(metric, values), &METADATA)
    }

    /// As [`Metrics::counter`]. For rare events only: each sample is kept until [`Metrics::upkeep`].
    pub fn histogram(&self, metric: &Metric, values: &[&str]) -> Histogram {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.inner.recorder.register_histogram(&key(metric, values), &METADATA)
    }

    pub fn group(&self, group: &str) -> GroupMetrics {
        GroupMetrics {
            metrics: self.clone(),
            group: group.to_owned(),
            retries: self.counter(&RETRIES, &[group]),
            unknown_outcomes: self.counter(&UNKNOWN_OUTCOMES, &[group]),
            shed: self.counter(&SHED, &[group]),
            no_backend: self.counter(&NO_BACKEND, &[group]),
            clients: self.gauge(&CLIENTS, &[group]),
            client_connections: self.counter(&CLIENT_CONNECTIONS, &[group]),
            route_epoch: self.gauge(&ROUTE_EPOCH, &[group]),
            plan_share: self.gauge(&PLAN_SHARE, &[group]),
            objectives: ObjectiveMetrics {
                rto: [&RTO_PRESENT, &RTO_WORST, &RTO_TARGET].map(|metric| self.gauge(metric, &[group])),
                rpo: [&RPO_PRESENT, &RPO_WORST, &RPO_TARGET].map(|metric| self.gauge(metric, &[group])),
                missed: self.counter(&OBJECTIVES_MISSED, &[group]),
            },
        }
    }
}

fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "labels of {}", metric.name);
    let labels: Vec<Label> =
        metric.labels.iter().zip(values).map(|(label, value)| Label::new(*label, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

/// The handles of one group, made at its start.
#[derive(Debug, Clone)]
pub struct GroupMetrics {
    metrics: Metrics,
    group: String,
    pub retries: Counter,
    pub unknown_outcomes: Counter,
    pub shed: Counter,
    pub no_backend: Counter,
    pub clients: Gauge,
    pub client_connections: Counter,
    pub route_epoch: Gauge,
    pub plan_share: Gauge,
    pub objectives: ObjectiveMetrics,
}

/// Recovery time and recovery point: present, worst, target; seconds.
#[derive(Debug, Clone)]
pub struct ObjectiveMetrics {
    pub rto: [Gauge; 3],
    pub rpo: [Gauge; 3],
    pub missed: Counter,
}

impl GroupMetrics {
    /// Counts one switch; registered when it happens, since switches are rare and most triggers never fire.
    pub fn switched(&self, trigger: &str, result: &str, seconds: f64) {
        self.metrics.counter(&SWITCHES, &[&self.group, trigger, result]).increment(1);
        self.metrics.histogram(&SWITCH_DURATION, &[&self.group, trigger]).record(seconds);
    }

    /// So long requests waited for a switch.
    pub fn held(&self, trigger: &str, seconds: f64) {
        self.metrics.histogram(&SWITCH_HOLD, &[&self.group, trigger]).record(seconds);
    }

    pub fn backend(&self, backend: &str) -> BackendMetrics {
        let (metrics, both) = (&self.metrics, &[self.group.as_str(), backend]);
        let with = |label: &'static str| [self.group.clone(), backend.to_owned(), label.to_owned()];
        let counter = |metric: &Metric, label| metrics.counter(metric, &with(label).each_ref().map(String::as_str));
        let gauge = |metric: &Metric, label| metrics.gauge(metric, &with(label).each_ref().map(String::as_str));
        BackendMetrics {
            requests: CLASSES.map(|class| counter(&REQUESTS, class)),
            errors: ERROR_TYPES.map(|error_type| counter(&REQUEST_ERRORS, error_type)),
            in_flight: metrics.gauge(&IN_FLIGHT, both),
            links: metrics.gauge(&LINKS, both),
            pinned_connections: metrics.gauge(&PINNED_CONNECTIONS, both),
            active: metrics.gauge(&ACTIVE_BACKEND, both),
            up: metrics.gauge(&BACKEND_UP, both),
            score: metrics.gauge(&BACKEND_SCORE, both),
            health: metrics.gauge(&BACKEND_HEALTH, both),
            breaker: metrics.gauge(&BREAKER_STATE, both),
            probe_latency: metrics.gauge(&PROBE_LATENCY, both),
            baseline_latency: CLASSES.map(|class| gauge(&BASELINE_LATENCY, class)),
            request_latency: CLASSES.map(|class| {
                QUANTILES.map(|(_, text)| metrics.gauge(&REQUEST_LATENCY, &[&self.group, backend, class, text]))
            }),
            divergence_keys: metrics.gauge(&DIVERGENCE_KEYS, both),
            divergence_bytes: metrics.gauge(&DIVERGENCE_BYTES, both),
            divergence_state: metrics.gauge(&DIVERGENCE_STATE, both),
            enterable: metrics.gauge(&BACKEND_ENTERABLE, both),
            replication: ReplicationMetrics {
                offset: metrics.gauge(&REPLICATION_OFFSET, both),
                behind: metrics.gauge(&REPLICATION_BEHIND, both),
                lag: metrics.gauge(&REPLICATION_LAG, both),
                link: metrics.gauge(&REPLICATION_LINK, both),
            },
            mirror: MirrorMetrics {
                lag: metrics.gauge(&MIRROR_LAG, both),
                waiting: metrics.gauge(&MIRROR_WAITING, both),
                in_step: metrics.gauge(&MIRROR_IN_STEP, both),
                commands: metrics.counter(&MIRROR_COMMANDS, both),
                copies: metrics.counter(&MIRROR_COPIES, both),
                dropped: metrics.counter(&MIRROR_DROPPED, both),
            },
            sampling: SamplingMetrics {
                compared: metrics.counter(&SAMPLING_COMPARED, both),
                differing: metrics.counter(&SAMPLING_DIFFERING, both),
                repaired: metrics.counter(&SAMPLING_REPAIRED, both),
                agreement: {
                    let agreement = metrics.gauge(&SAMPLING_AGREEMENT, both);
                    // Nothing has differed yet, and where nothing is compared nothing ever will.
                    agreement.set(1.0);
                    agreement
                },
            },
        }
    }
}

/// The handles of one backend. Arrays stand in the order of [`CLASSES`], [`ERROR_TYPES`] and [`QUANTILES`].
#[derive(Debug, Clone)]
pub struct BackendMetrics {
    pub requests: [Counter; CLASSES.len()],
    pub errors: [Counter; ERROR_TYPES.len()],
    pub in_flight: Gauge,
    pub links: Gauge,
    pub pinned_connections: Gauge,
    pub active: Gauge,
    pub up: Gauge,
    pub score: Gauge,
    pub health: Gauge,
    pub breaker: Gauge,
    /// Seconds.
    pub probe_latency: Gauge,
    /// Seconds.
    pub baseline_latency: [Gauge; CLASSES.len()],
    /// Seconds.
    pub request_latency: [[Gauge; QUANTILES.len()]; CLASSES.len()],
    pub divergence_keys: Gauge,
    pub divergence_bytes: Gauge,
    pub divergence_state: Gauge,
    pub enterable: Gauge,
    pub replication: ReplicationMetrics,
    pub mirror: MirrorMetrics,
    pub sampling: SamplingMetrics,
}

/// Of servers that replicate each other.
#[derive(Debug, Clone)]
pub struct ReplicationMetrics {
    /// Bytes.
    pub offset: Gauge,
    /// Bytes.
    pub behind: Gauge,
    /// Seconds.
    pub lag: Gauge,
    pub link: Gauge,
}

/// How a backend is kept in step.
#[derive(Debug, Clone)]
pub struct MirrorMetrics {
    /// Seconds.
    pub lag: Gauge,
    /// Bytes.
    pub waiting: Gauge,
    pub in_step: Gauge,
    pub commands: Counter,
    pub copies: Counter,
    pub dropped: Counter,
}

/// How a backend's content compares with that of the active.
#[derive(Debug, Clone)]
pub struct SamplingMetrics {
    pub compared: Counter,
    pub differing: Counter,
    pub repaired: Counter,
    pub agreement: Gauge,
}

/// The value of [`BACKEND_HEALTH`] for a health word; what is not a health counts as unknown.
pub fn health_value(health: &str) -> f64 {
    match health {
        "healthy" => 4.0,
        "degraded" => 3.0,
        "critical" => 2.0,
        "failed" => 1.0,
        _ => 0.0,
    }
}

/// The value of [`BREAKER_STATE`]; what is not a state counts as open, the one that an alert must not miss.
pub fn breaker_value(state: &str) -> f64 {
    match state {
        "closed" => 0.0,
        "half_open" => 1.0,
        _ => 2.0,
    }
}

/// The value of [`DIVERGENCE_STATE`]; what is not a state counts as unknown.
pub fn divergence_value(state: &str) -> f64 {
    match state {
        "clean" => 0.0,
        "empty" => 1.0,
        "keys" => 2.0,
        _ => 3.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_has_the_prefix_a_suffix_that_tells_kind_and_unit_and_a_help_sentence() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("standin_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(metric.unit == Unit::Seconds, name.ends_with("_seconds"), "{name}");
            assert_eq!(metric.unit == Unit::Bytes, name.ends_with("_bytes"), "{name}");
            assert!(metric.help.ends_with('.') && metric.help.len() > 20, "help of {name}");
        }
    }

    #[test]
    fn names_are_unique_and_labels_come_from_the_closed_set() {
        let names: HashSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        let known = ["group", "backend", "class", "type", "trigger", "result", "quantile", "version"];
        for metric in ALL {
            assert!(metric.labels.iter().all(|label| known.contains(label)), "labels of {}", metric.name);
        }
    }

    #[test]
    fn a_group_with_one_backend_and_one_switch_renders_every_metric_with_type_and_help() {
        let metrics = Metrics::new().unwrap();
        let group = metrics.group("default");
        let _backend = group.backend("primary");
        group.switched("connection", "done", 0.0004);
        group.held("manual", 0.004);
        metrics.upkeep();
        let text = metrics.render();
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "type of {} in {text}", metric.name);
            assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "help of {}", metric.name);
        }
    }

    #[test]
    fn published_totals_are_rendered_with_their_labels() {
        let metrics = Metrics::new().unwrap();
        let backend = metrics.group("cache").backend("backup-a");
        backend.requests[0].absolute(41);
        backend.requests[0].absolute(42);
        backend.errors[1].absolute(3);
        backend.request_latency[0][2].set(0.0125);
        backend.active.set(1.0);
        let text = metrics.render();
        for line in [
            r#"standin_sampling_agreement_ratio{group="cache",backend="backup-a"} 1"#,
            r#"standin_requests_total{group="cache",backend="backup-a",class="point_read"} 42"#,
            r#"standin_request_errors_total{group="cache",backend="backup-a",type="timeout"} 3"#,
            r#"standin_active_backend{group="cache",backend="backup-a"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let latency = r#"standin_request_latency_seconds{group="cache",backend="backup-a",class="point_read",quantile="0.999"} 0.0125"#;
        assert!(text.contains(latency), "{text}");
    }

    #[test]
    fn errors_are_counted_by_the_kinds_of_the_table_of_failures() {
        assert_eq!(ERROR_TYPES, FailureKind::ALL.map(FailureKind::name));
    }

    #[test]
    fn a_switch_is_counted_by_trigger_and_result_and_its_duration_falls_into_a_bucket() {
        let metrics = Metrics::new().unwrap();
        let group = metrics.group("default");
        group.switched("manual", "done", 0.003);
        group.switched("manual", "refused", 0.0);
        let text = metrics.render();
        let done = r#"standin_switches_total{group="default",trigger="manual",result="done"} 1"#;
        let bucket = r#"standin_switch_duration_seconds_bucket{group="default",trigger="manual",le="0.005"} 2"#;
        assert!(text.contains(done) && text.contains(bucket), "{text}");
    }

    /// The table of docs/metrics.md, as it must be.
    fn reference() -> String {
        let cells = |metric: &Metric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let help = metric.help.replace('|', "\\|");
            format!("| `{}` | {kind} | {} | {help} |\n", metric.name, labels.join(", "))
        };
        format!("| name | kind | labels | meaning |\n|---|---|---|---|\n{}", ALL.iter().map(cells).collect::<String>())
    }

    #[test]
    fn the_page_of_metrics_says_what_is_published() {
        let page = include_str!("../../docs/metrics.md");
        assert!(page.contains(&reference()), "docs/metrics.md should contain\n{}", reference());
        let known = |name: &str| {
            let suffixes = ["", "_bucket", "_sum", "_count"];
            suffixes.iter().any(|suffix| ALL.iter().any(|metric| name.strip_suffix(suffix) == Some(metric.name)))
        };
        let words = page.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let unknown: Vec<&str> = words.filter(|word| word.starts_with("standin_") && !known(word)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn the_process_and_the_build_describe_themselves() {
        let text = Metrics::new().unwrap().render();
        assert!(text.contains(concat!("standin_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{text}");
        let resident = text.lines().find_map(|line| line.strip_prefix("standin_process_resident_bytes ")).unwrap();
        assert!(resident.parse::<f64>().unwrap() > 100_000.0, "{resident}");
    }

    #[test]
    fn recorders_do_not_see_each_other() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.group("only-here").shed.absolute(1);
        assert!(one.render().contains("only-here") && !other.render().contains("only-here"));
    }

    #[test]
    fn unknown_words_take_the_value_that_raises_the_alarm() {
        assert_eq!((health_value("healthy"), health_value("?")), (4.0, 0.0));
        assert_eq!((breaker_value("closed"), breaker_value("?")), (0.0, 2.0));
        assert_eq!((divergence_value("clean"), divergence_value("?")), (0.0, 3.0));
    }
}
