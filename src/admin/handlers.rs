//! One function per route: reads the request, asks the control task, writes the answer.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::AdminState;
use super::error::ApiError;
use super::guard;
use crate::config::units::parse_duration;
use crate::control::api::{CommandOutcome, How, Note, Order, PlanOrder, StatisticsReport, StatusReport};
use crate::limits;
use crate::policy::Plan;
use crate::telemetry::events::Event;

/// The answer to `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventsReport {
    /// The oldest first.
    pub events: Vec<Event>,
    /// The newest event of the process. Lower than what was seen before means that the process was restarted.
    pub last_id: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct EventsQuery {
    since: Option<u64>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct EventQuery {
    event: Option<u64>,
    group: Option<String>,
}

/// The answer to `GET /v1/explain`: an event and what its group's history has around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainReport {
    pub event: Event,
    /// The oldest first.
    pub before: Vec<Event>,
    pub after: Vec<Event>,
}

/// The answer to `GET /v1/statistics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatisticsAnswer {
    pub groups: Vec<StatisticsReport>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailoverBody {
    group: Option<String>,
    to: Option<String>,
    plan: Option<String>,
    /// How long each comparison of a staged plan lasts at least.
    dwell: Option<String>,
    #[serde(default)]
    dry_run: bool,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoverBody {
    group: Option<String>,
    plan: Option<String>,
    dwell: Option<String>,
    #[serde(default)]
    dry_run: bool,
    reason: Option<String>,
    by: Option<String>,
}

/// Of orders that name no backend.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainBody {
    group: Option<String>,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinBody {
    group: Option<String>,
    backend: String,
    /// As durations in the configuration: `"10m"`.
    #[serde(rename = "for")]
    lasts: String,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendBody {
    group: Option<String>,
    backend: String,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProposalBody {
    group: Option<String>,
    proposal: Option<u64>,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnershipBody {
    group: Option<String>,
    backend: String,
}

pub(super) async fn status(State(state): State<AdminState>) -> Result<Json<StatusReport>, ApiError> {
    Ok(Json(state.control.status().await?))
}

pub(super) async fn events(
    State(state): State<AdminState>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventsReport>, ApiError> {
    let hint = "since is the id of the last event seen, limit a count: /v1/events?since=17&limit=100";
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text(), hint))?;
    let limit = query.limit.unwrap_or(limits::EVENTS_ANSWERED_DEFAULT).min(limits::EVENTS_KEPT_MAX);
    // The id is read first: an event that comes between the two reads is told twice rather than never.
    let last_id = state.control.last_event_id();
    Ok(Json(EventsReport { events: state.control.events(query.since, limit).await, last_id }))
}

pub(super) async fn explain(
    State(state): State<AdminState>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Json<ExplainReport>, ApiError> {
    let hint = "event is the id of an event: /v1/explain?event=17";
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text(), hint))?;
    let id = query.event.ok_or_else(|| ApiError::bad_request("no event is named", hint))?;
    let found = state.control.event(id, limits::EVENTS_AROUND).await;
    let (event, before, after) = found.ok_or_else(|| {
        let error = format!("there is no event {id}, or it is not kept any more");
        ApiError::new(StatusCode::NOT_FOUND, error, "`standin events` shows what is kept")
    })?;
    Ok(Json(ExplainReport { event, before, after }))
}

pub(super) async fn statistics(State(state): State<AdminState>) -> Result<Json<StatisticsAnswer>, ApiError> {
    Ok(Json(StatisticsAnswer { groups: state.control.statistics().await? }))
}

pub(super) async fn recording(
    State(state): State<AdminState>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let hint = "event is the id of an event, group a name: /v1/recording?group=default&event=17";
    let Query(query) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text(), hint))?;
    match state.control.recording(query.group, query.event).await? {
        // Megabytes of text: not on the thread that decides.
        Some(recording) => match tokio::task::spawn_blocking(move || serde_json::to_vec(&*recording)).await {
            Ok(Ok(bytes)) => Ok(([(header::CONTENT_TYPE, "application/json")], bytes)),
            _ => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the recording could not be written out", "")),
        },
        None => Err(ApiError::new(StatusCode::NOT_FOUND, "nothing is recorded yet", "ask again in a moment")),
    }
}

pub(super) async fn failover(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    let FailoverBody { group, to, plan, dwell, dry_run, reason, by } = guard::command(request).await?;
    let how = how(plan, dwell, dry_run)?;
    if how.dwell.is_some() && how.plan.is_none() {
        return Err(ApiError::bad_request(DWELL_NEEDS_PLAN, "name one, or leave it out"));
    }
    Ok(Json(state.control.order(group, Order::Failover { to }, how, note(reason, by)?).await?))
}

pub(super) async fn recover(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    let RecoverBody { group, plan, dwell, dry_run, reason, by } = guard::command(request).await?;
    let how = how(plan, dwell, dry_run)?;
    Ok(Json(state.control.order(group, Order::Recover, how, note(reason, by)?).await?))
}

pub(super) async fn pause(State(state): State<AdminState>, request: Request) -> Result<Json<CommandOutcome>, ApiError> {
    of_plan(state, request, PlanOrder::Pause).await
}

pub(super) async fn resume(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    of_plan(state, request, PlanOrder::Resume).await
}

pub(super) async fn rollback(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    of_plan(state, request, PlanOrder::Rollback).await
}

async fn of_plan(state: AdminState, request: Request, order: PlanOrder) -> Result<Json<CommandOutcome>, ApiError> {
    let PlainBody { group, reason, by } = guard::command(request).await?;
    Ok(Json(state.control.plan(group, order, note(reason, by)?).await?))
}

pub(super) async fn unpin(State(state): State<AdminState>, request: Request) -> Result<Json<CommandOutcome>, ApiError> {
    plain(state, request, Order::Unpin).await
}

pub(super) async fn pin(State(state): State<AdminState>, request: Request) -> Result<Json<CommandOutcome>, ApiError> {
    let PinBody { group, backend, lasts, reason, by } = guard::command(request).await?;
    let lasts = parse_duration(&lasts).map_err(|error| ApiError::bad_request(error, "write \"for\": \"10m\""))?;
    Ok(Json(state.control.order(group, Order::Pin { backend, lasts }, How::default(), note(reason, by)?).await?))
}

pub(super) async fn drain(State(state): State<AdminState>, request: Request) -> Result<Json<CommandOutcome>, ApiError> {
    about(state, request, |backend| Order::Drain { backend }).await
}

pub(super) async fn exclude(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    about(state, request, |backend| Order::Exclude { backend }).await
}

pub(super) async fn include(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    about(state, request, |backend| Order::Include { backend }).await
}

pub(super) async fn confirm(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    let ProposalBody { group, proposal, reason, by } = guard::command(request).await?;
    Ok(Json(state.control.order(group, Order::Confirm { proposal }, How::default(), note(reason, by)?).await?))
}

pub(super) async fn reject(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    let ProposalBody { group, proposal, reason, by } = guard::command(request).await?;
    Ok(Json(state.control.order(group, Order::Reject { proposal }, How::default(), note(reason, by)?).await?))
}

async fn plain(state: AdminState, request: Request, order: Order) -> Result<Json<CommandOutcome>, ApiError> {
    let PlainBody { group, reason, by } = guard::command(request).await?;
    Ok(Json(state.control.order(group, order, How::default(), note(reason, by)?).await?))
}

async fn about(
    state: AdminState,
    request: Request,
    order: impl FnOnce(String) -> Order,
) -> Result<Json<CommandOutcome>, ApiError> {
    let BackendBody { group, backend, reason, by } = guard::command(request).await?;
    Ok(Json(state.control.order(group, order(backend), How::default(), note(reason, by)?).await?))
}

pub(super) async fn adopt(State(state): State<AdminState>, request: Request) -> Result<Json<CommandOutcome>, ApiError> {
    let OwnershipBody { group, backend } = guard::command(request).await?;
    Ok(Json(state.control.adopt(group, backend).await?))
}

pub(super) async fn disown(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    let OwnershipBody { group, backend } = guard::command(request).await?;
    Ok(Json(state.control.disown(group, backend).await?))
}

pub(super) async fn metrics(State(state): State<AdminState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render())
}

/// Alive as long as this runtime answers at all.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(state): State<AdminState>) -> (StatusCode, String) {
    let status = if state.readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", state.readiness.as_str()))
}

pub(super) async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("page.html"))
}

pub(super) async fn page_style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page.css"))
}

pub(super) async fn page_script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page.js"))
}

pub(super) async fn not_found(request: Request) -> ApiError {
    let hint = "the control port answers /, /v1/status, /v1/events, /v1/explain, /v1/statistics, /v1/recording, \
                /v1/failover, /v1/recover, /v1/pause, /v1/resume, /v1/rollback, /v1/pin, /v1/unpin, /v1/drain, /v1/exclude, /v1/include, /v1/confirm, \
                /v1/reject, /v1/adopt, /v1/disown, /metrics, /livez and /readyz; the observe port the last three";
    ApiError::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()), hint)
}

pub(super) async fn method_not_allowed(request: Request) -> ApiError {
    let error = format!("{} cannot be used on {}", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error, "reports are read with GET, commands are sent with POST")
}

const DWELL_NEEDS_PLAN: &str = "`dwell` is of the plans that compare: blue_green, gradual, canary";

/// How a switch is to be made.
fn how(plan: Option<String>, dwell: Option<String>, dry_run: bool) -> Result<How, ApiError> {
    let plan = plan.map(|name| Plan::named(&name)).transpose();
    let plan = plan.map_err(|why| ApiError::bad_request(why, "write \"plan\": \"drain\""))?;
    let dwell = dwell.map(|dwell| parse_duration(&dwell)).transpose();
    let dwell = dwell.map_err(|error| ApiError::bad_request(error, "write \"dwell\": \"30s\""))?;
    if dwell.is_some() && plan.is_some_and(|plan| !plan.is_staged()) {
        return Err(ApiError::bad_request(DWELL_NEEDS_PLAN, "leave it out"));
    }
    Ok(How { plan, dwell, dry_run })
}

/// Who and why, as they go into the history; absent becomes empty.
fn note(reason: Option<String>, by: Option<String>) -> Result<Note, ApiError> {
    let (reason, by) = (reason.unwrap_or_default(), by.unwrap_or_default());
    if reason.len() > limits::REASON_BYTES_MAX {
        let error = format!("the reason is longer than {} bytes", limits::REASON_BYTES_MAX);
        return Err(ApiError::bad_request(error, "shorten it, and refer to a ticket"));
    }
    if by.len() > limits::AUTHOR_BYTES_MAX {
        let error = format!("the name in `by` is longer than {} bytes", limits::AUTHOR_BYTES_MAX);
        return Err(ApiError::bad_request(error, "shorten it"));
    }
    Ok(Note { by, reason })
}
