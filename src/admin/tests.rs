//! The router over real loopback connections, with a control task that answers from a script.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::control::api::tests::{sample_statistics, sample_status};
use crate::control::api::{self, CommandError, CommandOutcome, How, Order, Request};
use crate::telemetry::events::{Event, EventKind, History};

pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    pub(crate) history: Arc<History>,
    readiness: Readiness,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}

/// Answers as the control task would: `backup-a` may be entered, `busy` is busy, everything else is unknown.
fn carry_out(group: Option<String>, backend: &str, reason: &str) -> Result<CommandOutcome, CommandError> {
    match backend {
        "backup-a" => Ok(CommandOutcome {
            group: group.unwrap_or_else(|| "default".to_owned()),
            result: "done".into(),
            message: format!("{backend} serves: {reason}"),
            from: Some("primary".to_owned()),
            to: Some(backend.to_owned()),
            epoch: 2,
            duration_us: 12,
            held_us: None,
            steps: Vec::new(),
        }),
        "backup-b" => {
            Err(CommandError::Refused { why: "it is not empty".into(), hint: "standin adopt backup-b".into() })
        }
        "busy" => Err(CommandError::Busy { why: "a switch is under way".into() }),
        name => Err(CommandError::UnknownBackend {
            group: "default".into(),
            name: name.into(),
            known: vec!["primary".into(), "backup-a".into()],
        }),
    }
}

async fn answer_requests(mut receiver: api::Receiver) {
    while let Some(request) = receiver.recv().await {
        // A caller that has gone away is no fault of the control task, so what `send` says does not matter.
        let _ = match request {
            Request::Status { reply } => reply.send(sample_status()).is_ok(),
            Request::Statistics { reply } => reply.send(vec![sample_statistics()]).is_ok(),
            Request::Recording { reply, .. } => reply.send(Ok(None)).is_ok(),
            Request::Order { group, order, how, note, reply } => {
                let backend = match order {
                    Order::Failover { to } => to.unwrap_or_else(|| "backup-a".into()),
                    Order::Pin { backend, .. }
                    | Order::Drain { backend }
                    | Order::Exclude { backend }
                    | Order::Include { backend } => backend,
                    Order::Recover | Order::Unpin | Order::Confirm { .. } | Order::Reject { .. } => "backup-a".into(),
                };
                let outcome = carry_out(group, &backend, &note.reason).map(|outcome| match how {
                    How { dry_run: true, plan, .. } => {
                        let steps = vec![format!("by plan {}", plan.unwrap_or_default())];
                        CommandOutcome { result: "dry_run".into(), steps, ..outcome }
                    }
                    _ => outcome,
                });
                reply.send(outcome).is_ok()
            }
            Request::Plan { group, note, reply, .. } => reply.send(carry_out(group, "backup-a", &note.reason)).is_ok(),
            Request::Adopt { group, backend, reply } | Request::Disown { group, backend, reply } => {
                reply.send(carry_out(group, &backend, "")).is_ok()
            }
        };
    }
}

pub(crate) async fn start(token: Option<&str>, routes: fn(AdminState) -> Router) -> Port {
    let history = Arc::new(History::default());
    let (control, receiver) = api::channel(history.clone());
    tokio::spawn(answer_requests(receiver));
    let readiness = Readiness::default();
    let state = AdminState {
        control,
        metrics: Metrics::new().unwrap(),
        readiness: readiness.clone(),
        token: token.map(|token| Arc::new(SecretString::from(token))),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, routes(state), shutdown.clone()));
    Port { address, history, readiness, shutdown, server }
}

impl Port {
    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        Answer::parse(&text)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: standin\r\nConnection: close\r\n\r\n")).await
    }

    async fn post_with(&self, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: standin:9180\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, "Content-Type: application/json\r\n", body).await
    }
}

#[tokio::test]
async fn the_status_is_what_the_control_task_says() {
    let port = start(None, router).await;
    let answer = port.get("/v1/status").await;
    assert_eq!(answer.status, 200);
    assert_eq!(serde_json::from_value::<api::StatusReport>(answer.json()).unwrap(), sample_status());
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
}

#[tokio::test]
async fn events_are_answered_newest_or_since_an_id() {
    let port = start(None, router).await;
    for number in 1..=5 {
        port.history.record(Event::new(EventKind::Config, format!("event {number}")));
    }
    let ids = |answer: Answer| -> Vec<u64> {
        answer.json()["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(port.get("/v1/events").await), [1, 2, 3, 4, 5]);
    assert_eq!(ids(port.get("/v1/events?limit=2").await), [4, 5]);
    assert_eq!(ids(port.get("/v1/events?since=1&limit=2").await), [2, 3]);
    assert_eq!(port.get("/v1/events?since=5").await.json(), json!({ "events": [], "last_id": 5 }));
    let answer = port.get("/v1/events?since=yesterday").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["hint"].as_str().unwrap().contains("since"), "{}", answer.body);
}

#[tokio::test]
async fn a_failover_takes_its_words_from_the_body_and_its_defaults_from_an_empty_one() {
    let port = start(None, router).await;
    let body = r#"{"group":"cache","to":"backup-a","reason":"maintenance"}"#;
    let answer = port.post("/v1/failover", body).await;
    assert_eq!((answer.status, &answer.json()["group"]), (200, &json!("cache")));
    assert_eq!(answer.json()["message"], "backup-a serves: maintenance");
    assert_eq!(port.post_with("/v1/failover", "", "").await.json()["to"], "backup-a");
    let dry = port.post("/v1/failover", r#"{"plan":"immediate","dry_run":true}"#).await.json();
    assert_eq!((&dry["result"], &dry["steps"][0]), (&"dry_run".into(), &"by plan immediate".into()));
    assert_eq!(port.post_with("/v1/recover", "", "").await.json()["result"], "done");
}

#[tokio::test]
async fn each_refusal_has_its_status_and_a_hint() {
    let port = start(None, router).await;
    for (path, body, status, hint) in [
        ("/v1/failover", r#"{"to":"nowhere"}"#, 404, "primary, backup-a"),
        ("/v1/failover", r#"{"to":"backup-b"}"#, 409, "standin adopt backup-b"),
        ("/v1/failover", r#"{"to":"busy"}"#, 503, "again"),
        ("/v1/failover", r#"{"to":"backup-a","plan":"drain","dwell":"3s"}"#, 400, "leave it out"),
        ("/v1/failover", r#"{"to":"backup-a","dwell":"3s"}"#, 400, "name one"),
        ("/v1/failover", r#"{"to":"backup-a","plan":"canary","dwell":"soon"}"#, 400, "\"dwell\": \"30s\""),
        ("/v1/recover", r#"{"plan":"sometimes"}"#, 400, "\"plan\": \"drain\""),
        ("/v1/failover", r#"{"to":}"#, 400, "JSON object"),
        ("/v1/failover", r#"{"too":"backup-a"}"#, 400, "JSON object"),
        ("/v1/failover", "[]", 400, "JSON object"),
        ("/v1/adopt", "", 400, "backend"),
        ("/v1/adopt", r#"{"backend":"nowhere"}"#, 404, "primary, backup-a"),
        ("/v1/disown", r#"{"backend":7}"#, 400, "backend"),
        ("/v1/nothing", "", 404, "/v1/status"),
        ("/v1/status", "", 405, "GET"),
    ] {
        let answer = port.post(path, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        let json = answer.json();
        assert!(json["hint"].as_str().unwrap().contains(hint), "{path} {body}: {json}");
        assert!(!json["error"].as_str().unwrap().is_empty(), "{path} {body}: {json}");
    }
    assert_eq!(port.get("/v1/failover").await.status, 405);
}

#[tokio::test]
async fn bodies_and_reasons_are_bounded() {
    let port = start(None, router).await;
    let long = |bytes: usize| format!(r#"{{"reason":"{}"}}"#, "x".repeat(bytes));
    assert_eq!(port.post("/v1/failover", &long(crate::limits::REASON_BYTES_MAX)).await.status, 200);
    assert_eq!(port.post("/v1/failover", &long(crate::limits::REASON_BYTES_MAX + 1)).await.status, 400);
    assert_eq!(port.post("/v1/failover", &long(crate::limits::ADMIN_BODY_BYTES_MAX)).await.status, 413);
}

#[tokio::test]
async fn a_page_from_elsewhere_cannot_send_commands() {
    let port = start(None, router).await;
    let body = r#"{"to":"backup-a"}"#;
    for headers in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        assert_eq!(port.post_with("/v1/failover", headers, body).await.status, 415, "{headers}");
    }
    for origin in ["http://evil.example", "null", "http://standin:9181", "http://standin:9180.evil.example"] {
        let headers = format!("Origin: {origin}\r\n");
        assert_eq!(port.post_with("/v1/recover", &headers, "").await.status, 403, "{origin}");
    }
    let own = "Origin: http://standin:9180\r\nContent-Type: application/json; charset=utf-8\r\n";
    assert_eq!(port.post_with("/v1/failover", own, body).await.status, 200);
}

#[tokio::test]
async fn with_a_token_only_health_and_the_static_page_are_open() {
    let port = start(Some("s3cret"), router).await;
    port.readiness.set_ready();
    for path in ["/livez", "/readyz", "/", "/page.js", "/page.css"] {
        assert_eq!(port.get(path).await.status, 200, "{path}");
    }
    for path in ["/v1/status", "/v1/events", "/metrics"] {
        let answer = port.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
    }
    assert_eq!(port.post("/v1/failover", "{}").await.status, 401);
    for (authorization, status) in [
        ("Bearer s3cret", 200),
        ("bearer s3cret", 200),
        ("Bearer s3cres", 401),
        ("Bearer s3cre", 401),
        ("Bearer ", 401),
        ("Basic s3cret", 401),
        ("s3cret", 401),
    ] {
        let headers = format!("Authorization: {authorization}\r\n");
        assert_eq!(port.post_with("/v1/recover", &headers, "").await.status, status, "{authorization}");
    }
}

#[tokio::test]
async fn ready_is_said_after_the_start_and_until_the_drain() {
    let port = start(None, router).await;
    let states = [(503, "starting\n"), (200, "ready\n"), (503, "draining\n"), (503, "draining\n")];
    for (step, (status, text)) in states.into_iter().enumerate() {
        match step {
            1 | 3 => port.readiness.set_ready(),
            2 => port.readiness.set_draining(),
            _ => {}
        }
        let answer = port.get("/readyz").await;
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "step {step}");
        assert_eq!(port.get("/livez").await.status, 200, "step {step}");
    }
}

#[tokio::test]
async fn the_observe_port_has_metrics_and_health_and_nothing_else() {
    let port = start(Some("s3cret"), observe_router).await;
    let answer = port.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("\nstandin_build_info{"), "{}", answer.body);
    assert_eq!(port.get("/livez").await.status, 200);
    assert_eq!(port.get("/readyz").await.status, 503);
    for path in ["/", "/v1/status", "/v1/events", "/page.js"] {
        assert_eq!(port.get(path).await.status, 404, "{path}");
    }
    assert_eq!(port.post("/v1/failover", "{}").await.status, 404);
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere_and_runs_nothing_inline() {
    let port = start(None, router).await;
    let page = port.get("/").await;
    assert!(page.head.contains("content-type: text/html"), "{}", page.head);
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for path in ["/", "/page.css", "/page.js"] {
        let text = port.get(path).await.body;
        assert!(!text.contains("://") && !text.contains("innerHTML") && !text.contains("style="), "{path}");
    }
    let script = page.body.split("<script").nth(1).unwrap();
    assert!(script.starts_with(r#" src="page.js"></script>"#), "{script}");
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_ends_gently_at_shutdown() {
    let port = start(None, router).await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: standin\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\nok\n") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
    }
    port.shutdown.cancel();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
    tokio::time::timeout(Duration::from_secs(5), port.server).await.expect("ends with its connections").unwrap();
    assert!(TcpStream::connect(port.address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn beyond_the_bound_new_connections_are_closed_and_old_ones_served() {
    let port = start(None, router).await;
    let mut held = Vec::new();
    for _ in 0..crate::limits::ADMIN_CONNECTIONS_MAX {
        held.push(TcpStream::connect(port.address).await.unwrap());
    }
    let mut refused = TcpStream::connect(port.address).await.unwrap();
    let mut nothing = Vec::new();
    // A reset is a close as well: the kernel sends one where it finds unread bytes.
    assert!(matches!(refused.read_to_end(&mut nothing).await, Ok(0) | Err(_)), "{nothing:?}");
    let first = &mut held[0];
    first.write_all(b"GET /livez HTTP/1.1\r\nHost: standin\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    first.read_to_string(&mut text).await.unwrap();
    assert_eq!(Answer::parse(&text).status, 200);
}

#[tokio::test]
async fn a_client_that_never_ends_its_head_or_sends_none_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new();
    tokio::spawn(server::serve_within(Duration::from_millis(50), listener, routes, CancellationToken::new()));
    for begun in ["", "GET /livez HTTP/1.1\r\nHost: sta"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        closed.unwrap_or_else(|_| panic!("still open after {begun:?}")).unwrap();
    }
}

#[tokio::test]
async fn what_is_no_http_is_answered_with_400() {
    let port = start(None, router).await;
    assert_eq!(port.send("*1\r\n$4\r\nPING\r\n").await.status, 400);
}
