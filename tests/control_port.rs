//! What an operator, a scraper and a kubelet see, and what an operator can order.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{
    Load, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, http_request, ms, secs,
};

struct Stage {
    primary: RedisServer,
    backup: RedisServer,
    standin: StandinProcess,
}

impl Stage {
    fn start() -> Self {
        Self::start_with(|config| config)
    }

    fn start_with(adapt: impl FnOnce(StandinConfig) -> StandinConfig) -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        let standin = adapt(StandinConfig::pair(primary.address(), backup.address())).start();
        Self { primary, backup, standin }
    }
}

#[track_caller]
fn assert_error(answer: &support::HttpResponse, code: u16, says: &str) {
    assert_eq!(answer.code, code, "{answer:?}");
    let body = answer.json();
    let text = format!("{} {}", body["error"].as_str().unwrap_or_default(), body["hint"].as_str().unwrap_or_default());
    assert!(text.contains(says), "the reason does not say {says:?}: {body:#}");
}

#[test]
fn the_status_names_every_group_and_backend_with_what_is_known_of_it() {
    let stage = Stage::start();
    eventually(secs(5), "probes succeed", || stage.standin.backend("backup-a")["health"] == "healthy");
    let status = stage.standin.status();
    assert!(status["version"].is_string(), "{status:#}");
    let group = stage.standin.group("default");
    assert_eq!(group["status"], "active");
    assert_eq!(group["active"], "primary");
    assert!(group["epoch"].as_u64().is_some_and(|epoch| epoch > 0), "{group:#}");
    for (name, role) in [("primary", "primary"), ("backup-a", "backup")] {
        let backend = stage.standin.backend(name);
        assert_eq!(backend["role"], role);
        assert_eq!(backend["active"], role == "primary");
        assert_eq!(backend["enterable"], true, "{backend:#}");
        assert_eq!(backend["breaker"], "closed", "{backend:#}");
        assert!(backend["score"].as_f64().is_some_and(|score| (95.0..=100.0).contains(&score)), "{backend:#}");
        for member in ["reasons", "baseline_us", "probes", "in_flight", "divergence"] {
            assert!(!backend[member].is_null(), "no {member} in {backend:#}");
        }
    }
    stage.standin.finish();
}

#[test]
fn events_can_be_read_from_the_last_one_seen() {
    let mut stage = Stage::start();
    stage.standin.declare(PRIMARY_LOST);
    assert!(stage.standin.epoch() > 0, "it serves");
    let first = stage.standin.events();
    assert!(first.iter().any(|event| event["kind"] == "started"), "{first:#?}");
    let last_id = first.last().unwrap()["id"].as_u64().unwrap();
    stage.primary.kill();
    stage.standin.wait_until_active("backup-a", secs(5));
    let later = stage.standin.get(&format!("/v1/events?since={last_id}")).json();
    let later = later["events"].as_array().unwrap();
    assert!(later.iter().all(|event| event["id"].as_u64().unwrap() > last_id), "{later:#?}");
    assert!(later.iter().any(|event| event["kind"] == "failover"), "{later:#?}");
    for event in later {
        assert!(event["at"].is_string() && event["message"].is_string(), "{event:#}");
    }
    assert_eq!(stage.standin.get("/v1/events?since=soon").code, 400);
    stage.standin.finish();
}

#[test]
fn metrics_have_the_names_that_dashboards_use() {
    let stage = Stage::start();
    let load = Load::new(stage.standin.address()).start();
    load.wait_for_successes(500);
    load.stop().assert_no_errors();
    let response = stage.standin.get("/metrics");
    assert_eq!(response.code, 200);
    assert!(response.headers.contains("content-type: text/plain"), "{}", response.headers);
    for name in [
        "standin_requests_total",
        "standin_clients",
        "standin_in_flight",
        "standin_links",
        "standin_active_backend",
        "standin_route_epoch",
        "standin_plan_share_ratio",
        "standin_backend_up",
        "standin_backend_score",
        "standin_backend_health",
        "standin_breaker_state",
        "standin_divergence_keys",
        "standin_divergence_state",
        "standin_backend_enterable",
        "standin_process_resident_bytes",
        "standin_process_open_fds",
        "standin_build_info",
    ] {
        let has_value = response
            .body
            .lines()
            .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
        assert!(has_value, "no {name} in\n{}", response.body);
        assert!(response.body.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    let active = |backend| format!("standin_active_backend{{group=\"default\",backend=\"{backend}\"}}");
    assert_eq!(stage.standin.metric(&active("primary")), 1.0);
    assert_eq!(stage.standin.metric(&active("backup-a")), 0.0);
    assert!(!response.body.contains("load:"), "a key became a label");
    eventually(secs(5), "every request is counted", || total(&stage.standin, "standin_requests_total") >= 500.0);
    stage.standin.finish();
}

/// The sum over all lines of one metric.
fn total(standin: &StandinProcess, name: &str) -> f64 {
    let text = standin.get("/metrics").body;
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn livez_and_readyz_do_not_depend_on_backends() {
    let mut stage = Stage::start_with(StandinConfig::observe);
    stage.standin.declare(PRIMARY_LOST);
    stage.standin.declare(&["backup-a", "backend"]);
    stage.backup.kill();
    stage.primary.kill();
    eventually(secs(5), "all are seen down", || !stage.standin.events_of("no_backend").is_empty());
    for address in [stage.standin.control_address(), stage.standin.observe_address()] {
        for path in ["/livez", "/readyz"] {
            let response = http_request(address, "GET", path, None).unwrap();
            assert_eq!(response.code, 200, "{path}: {response:?}");
        }
    }
    stage.standin.finish();
}

#[test]
fn a_standin_whose_backends_were_never_there_is_ready_and_serves_once_they_come() {
    let (mut primary, backup) = (RedisServer::stopped(), RedisServer::stopped());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a", "backend"]);
    let mut client = standin.connect();
    assert!(client.command(&["GET", "k"]).is_error_word("NOBACKEND"));
    primary.restart();
    eventually(secs(2), "it serves", || !client.command(&["GET", "k"]).is_error());
    standin.finish();
}

#[test]
fn the_observe_listener_is_read_only() {
    let stage = Stage::start_with(StandinConfig::observe);
    let observe = stage.standin.observe_address();
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(http_request(observe, "GET", path, None).unwrap().code, 200, "{path}");
    }
    for (method, path) in [
        ("GET", "/v1/status"),
        ("GET", "/v1/events"),
        ("POST", "/v1/failover"),
        ("POST", "/v1/recover"),
        ("POST", "/metrics"),
    ] {
        let code = http_request(observe, method, path, Some("{}")).unwrap().code;
        assert!(code == 404 || code == 405, "{method} {path} answered {code} at the observe port");
    }
    assert_eq!(stage.standin.active(), "primary");
    stage.standin.finish();
}

#[test]
fn an_ordered_failover_and_recovery_lose_nothing() {
    let mut stage = Stage::start();
    stage.standin.declare(PRIMARY_LOST);
    let epoch = stage.standin.epoch();
    let load = Load::new(stage.standin.address()).start();
    load.wait_for_successes(1_000);
    let answer = stage.standin.post("/v1/failover", &json!({"to": "backup-a", "reason": "maintenance of the primary"}));
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(answer.json()["epoch"], epoch + 1, "{answer:?}");
    assert_eq!(stage.standin.active(), "backup-a", "the answer comes when it is done");
    load.wait_for_successes(1_000);
    let answer = stage.standin.post("/v1/recover", &json!({"reason": "done"}));
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(stage.standin.active(), "primary");
    load.wait_for_successes(1_000);
    let report = load.stop();
    println!("ordered failover and recovery: {report}");
    report.assert_no_errors();
    report.assert_no_stale_reads();
    report.assert_no_gap_over(ms(50));
    let history: Vec<Value> = stage.standin.events_of("failover");
    assert_eq!(history[0]["trigger"], "manual", "{history:#?}");
    assert!(stage.standin.events().iter().any(|event| event.to_string().contains("maintenance of the primary")));
    stage.standin.finish();
}

#[test]
fn a_failover_without_a_target_chooses_the_best_backup() {
    let mut stage = Stage::start();
    stage.standin.declare(PRIMARY_LOST);
    let answer = stage.standin.post("/v1/failover", &json!({}));
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(stage.standin.active(), "backup-a");
    stage.standin.finish();
}

#[test]
fn orders_that_are_fulfilled_already_are_answered_so_and_change_nothing() {
    let stage = Stage::start();
    let epoch = stage.standin.epoch();
    for (path, body) in [("/v1/failover", json!({"to": "primary"})), ("/v1/recover", json!({}))] {
        let answer = stage.standin.post(path, &body);
        assert_eq!(answer.code, 200, "{answer:?}");
        assert_eq!(answer.json()["result"], "nothing_to_do", "{answer:?}");
    }
    stage.standin.assert_no_switch_since(epoch);
    stage.standin.finish();
}

#[test]
fn orders_that_cannot_be_carried_out_are_refused_with_a_reason() {
    let mut stage = Stage::start();
    stage.standin.declare(PRIMARY_LOST);
    stage.standin.declare(&["refused", "backup-a"]);
    let epoch = stage.standin.epoch();
    let post = |standin: &StandinProcess, path: &str, body: Value| standin.post(path, &body);
    let standin = &stage.standin;
    assert_error(&post(standin, "/v1/failover", json!({"to": "nobody"})), 404, "backup-a");
    assert_error(&post(standin, "/v1/failover", json!({"group": "none", "to": "backup-a"})), 404, "default");
    assert_error(&post(standin, "/v1/recover", json!({"group": "none"})), 404, "default");
    assert_error(&post(standin, "/v1/failover", json!({"tow": "backup-a"})), 400, "tow");
    let not_json = http_request(standin.control_address(), "POST", "/v1/failover", Some("to=backup-a")).unwrap();
    assert_eq!(not_json.code, 400, "{not_json:?}");
    assert_eq!(standin.get("/v1/failover").code, 405);
    assert_eq!(standin.get("/v1/nothing").code, 404);

    stage.backup.kill();
    eventually(secs(5), "the dead backup is seen", || stage.standin.backend("backup-a")["health"] == "failed");
    assert_error(&post(&stage.standin, "/v1/failover", json!({"to": "backup-a"})), 409, "backup-a");
    stage.standin.assert_no_switch_since(epoch);
    assert_eq!(stage.standin.connect().command(&["SET", "k", "1"]), Reply::ok());
    stage.standin.finish();
}
