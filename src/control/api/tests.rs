#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use super::*;
use crate::policy::Counts;
use crate::telemetry::events::EventKind;
use crate::telemetry::wall_time::WallTime;

/// A quiet month with one bad minute.
pub(crate) fn sample_statistics() -> StatisticsReport {
    let at = WallTime::from_ms(1_795_315_639_120);
    let counts = |failovers| Counts {
        switches_by_trigger: BTreeMap::from([("connection".to_owned(), failovers)]),
        switches_by_kind: BTreeMap::from([("failover".to_owned(), failovers)]),
        incidents: BTreeMap::from([("connection".to_owned(), failovers)]),
        resolved: BTreeMap::from([("failover".to_owned(), failovers)]),
        resolution_ms_total: 12 * failovers,
        resolution_ms_max: 17,
        ..Counts::default()
    };
    let incident = IncidentReport {
        id: 1,
        backend: "primary".to_owned(),
        trigger: "connection".into(),
        hard: true,
        confidence: 0.99,
        why: "primary: connection refused, 2 times in this outage".to_owned(),
        since: at,
        opened_at: at,
        resolved: true,
        resolved_at: Some(at),
        resolution: Some("failover".into()),
        served_by: Some("backup-a".to_owned()),
        attempts: 1,
        recovery: None,
    };
    StatisticsReport {
        group: "default".to_owned(),
        at,
        day: counts(1),
        month: counts(3),
        open_breakers: vec!["primary".to_owned()],
        incidents: vec![incident],
    }
}

/// One group whose primary serves and whose first backup could not be entered.
pub(crate) fn sample_status() -> StatusReport {
    let at = WallTime::from_ms(1_795_315_639_120);
    let primary = BackendReport {
        name: "primary".to_owned(),
        role: "primary".into(),
        address: "127.0.0.1:6379".to_owned(),
        active: true,
        health: "healthy".into(),
        score: Some(100.0),
        reasons: Vec::new(),
        baseline_us: BTreeMap::from([("point_read".to_owned(), 85), ("write".to_owned(), 92)]),
        latency: Some(LatencyReport { p50_us: 88, p99_us: 1_940 }),
        probes: ProbeReport { ok_in_a_row: 17, last_ok_ms_ago: Some(310), ..ProbeReport::default() },
        breaker: "closed".into(),
        in_flight: 12,
        links: 1,
        pinned_connections: 2,
        divergence: DivergenceReport { state: "clean".into(), keys: 0, bytes: 0, owned: false },
        enterable: true,
        why_not: None,
        mend: None,
        identity: Some(IdentityReport {
            run_id: "5f1c".to_owned(),
            version: "7.0.15".to_owned(),
            server_role: "master".to_owned(),
        }),
        data: "cold".into(),
        mirror: None,
        replication: None,
        sampling: None,
        weight: 100,
        zone: None,
        signals: SignalsReport { phi: 0.5, success_percent: Some(100.0), ..SignalsReport::default() },
        reliability: ReliabilityReport {
            success_percent: Some(99.99),
            failures: BTreeMap::from([("timeout".to_owned(), 3)]),
            outages: 1,
            last_failure: Some("connection refused, 2 times in this outage".to_owned()),
            ..ReliabilityReport::default()
        },
    };
    let backup = BackendReport {
        name: "backup-a".to_owned(),
        role: "backup".into(),
        address: "127.0.0.1:6390".to_owned(),
        active: false,
        health: "degraded".into(),
        score: Some(83.5),
        reasons: vec!["probes take 4 times their baseline".to_owned()],
        baseline_us: BTreeMap::new(),
        latency: None,
        probes: ProbeReport { last_error: Some("LOADING \u{1b}[2J".to_owned()), ..ProbeReport::default() },
        divergence: DivergenceReport { state: "unknown".into(), keys: 0, bytes: 0, owned: false },
        enterable: false,
        why_not: Some("it holds 1204 keys that this group did not write".to_owned()),
        mend: Some("standin adopt backup-a".to_owned()),
        identity: None,
        zone: Some("b".to_owned()),
        ..primary.clone()
    };
    let group = GroupReport {
        objectives: ObjectivesReport::default(),
        name: "default".to_owned(),
        listen: "127.0.0.1:6380".to_owned(),
        status: "active".into(),
        since: at,
        active: Some("primary".to_owned()),
        epoch: 1,
        availability: "serving".into(),
        mode: "automatic".into(),
        proposal: None,
        switches_today: 2,
        incidents_today: 1,
        plan: None,
        last_switch: Some(SwitchReport {
            at,
            from: "backup-a".to_owned(),
            to: "primary".to_owned(),
            plan: Some("drain".into()),
            trigger: "manual".into(),
            result: "done".into(),
            took_us: 14_000,
            held_us: 6_200,
        }),
        notes: vec!["an operator chose the active backend; `standin recover` returns to the primary".to_owned()],
        clients: 50,
        backends: vec![primary, backup],
    };
    StatusReport {
        version: "0.1.0".to_owned(),
        process_id: 4242,
        at,
        uptime_seconds: 7_530,
        clients: 50,
        draining: false,
        groups: vec![group],
    }
}

#[test]
fn a_status_is_read_back_as_it_was_written() {
    let text = serde_json::to_string(&sample_status()).unwrap();
    assert_eq!(serde_json::from_str::<StatusReport>(&text).unwrap(), sample_status());
}

fn outcome(group: &str) -> CommandOutcome {
    CommandOutcome {
        group: group.to_owned(),
        result: "done".into(),
        message: "backup-a serves".to_owned(),
        from: Some("primary".to_owned()),
        to: Some("backup-a".to_owned()),
        epoch: 2,
        duration_us: 900,
        held_us: Some(400),
        steps: Vec::new(),
    }
}

#[tokio::test]
async fn a_command_reaches_the_control_task_and_its_answer_comes_back() {
    let (handle, mut receiver) = channel(Arc::default());
    let task = tokio::spawn(async move {
        match receiver.recv().await.unwrap() {
            Request::Order { group, order, how, note, reply } => {
                assert_eq!(how, How { plan: Some(Plan::Drain), dwell: None, dry_run: false });
                assert_eq!(order, Order::Failover { to: Some("backup-a".into()) });
                assert_eq!(note.reason, "maintenance");
                reply.send(Ok(outcome(&group.unwrap()))).unwrap();
            }
            other => panic!("{other:?}"),
        }
    });
    let note = Note { by: "kim".into(), reason: "maintenance".into() };
    let order = Order::Failover { to: Some("backup-a".into()) };
    let how = How { plan: Some(Plan::Drain), ..How::default() };
    let answer = handle.order(Some("cache".into()), order, how, note).await;
    assert_eq!(answer, Ok(outcome("cache")));
    task.await.unwrap();
}

#[tokio::test]
async fn a_refusal_comes_back_whole() {
    let (handle, mut receiver) = channel(Arc::default());
    let refusal = CommandError::Refused { why: "it is not empty".into(), hint: "standin adopt backup-a".into() };
    let sent = refusal.clone();
    tokio::spawn(async move {
        if let Some(Request::Order { reply, .. }) = receiver.recv().await {
            reply.send(Err(sent)).unwrap();
        }
    });
    assert_eq!(handle.order(None, Order::Recover, How::default(), Note::default()).await, Err(refusal));
}

#[tokio::test]
async fn a_stuck_control_task_costs_the_caller_the_timeout_and_no_more() {
    let (handle, _receiver) = channel(Arc::default());
    let waited = Duration::from_millis(5);
    let answer = handle.ask(waited, |reply| Request::Status { reply }).await;
    assert_eq!(answer, Err(CommandError::TimedOut { waited }));
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once() {
    let (handle, _receiver) = channel(Arc::default());
    for _ in 0..limits::CONTROL_QUEUE_MAX {
        let (reply, _) = oneshot::channel();
        handle.requests.try_send(Request::Status { reply }).unwrap();
    }
    assert!(matches!(handle.status().await, Err(CommandError::Busy { .. })));
}

#[tokio::test]
async fn after_the_control_task_has_ended_commands_say_so_and_events_stay_readable() {
    let history = Arc::new(History::default());
    history.record(Event::new(EventKind::Started, "serving"));
    let (handle, receiver) = channel(history);
    drop(receiver);
    assert_eq!(handle.adopt(None, "backup-a".into()).await, Err(CommandError::Stopped));
    assert_eq!(handle.events(None, 10).await[0].message, "serving");
    assert_eq!(handle.last_event_id(), 1);
}

#[tokio::test]
async fn a_request_that_is_dropped_unanswered_does_not_hang_its_caller() {
    let (handle, mut receiver) = channel(Arc::default());
    tokio::spawn(async move { drop(receiver.recv().await) });
    assert_eq!(handle.status().await, Err(CommandError::Stopped));
}
