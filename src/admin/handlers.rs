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
use crate::control::api::{CommandOutcome, StatusReport};
use crate::limits;
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
#[serde(deny_unknown_fields)]
struct FailoverBody {
    group: Option<String>,
    to: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoverBody {
    group: Option<String>,
    reason: Option<String>,
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

pub(super) async fn failover(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    let FailoverBody { group, to, reason } = guard::command(request).await?;
    Ok(Json(state.control.failover(group, to, checked(reason)?).await?))
}

pub(super) async fn recover(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Json<CommandOutcome>, ApiError> {
    let RecoverBody { group, reason } = guard::command(request).await?;
    Ok(Json(state.control.recover(group, checked(reason)?).await?))
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
    let hint = "the control port answers /, /v1/status, /v1/events, /v1/failover, /v1/recover, /v1/adopt, /v1/disown, \
                /metrics, /livez and /readyz; the observe port the last three";
    ApiError::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()), hint)
}

pub(super) async fn method_not_allowed(request: Request) -> ApiError {
    let error = format!("{} cannot be used on {}", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error, "reports are read with GET, commands are sent with POST")
}

/// The reason as it goes into the history; absent becomes empty.
fn checked(reason: Option<String>) -> Result<String, ApiError> {
    let reason = reason.unwrap_or_default();
    if reason.len() > limits::REASON_BYTES_MAX {
        let error = format!("the reason is longer than {} bytes", limits::REASON_BYTES_MAX);
        return Err(ApiError::bad_request(error, "shorten it, and refer to a ticket"));
    }
    Ok(reason)
}
