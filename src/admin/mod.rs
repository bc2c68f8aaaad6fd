//! HTTP for operators: the control port, the observe port and the live page.
//!
//! Knows HTTP and the handle of [`crate::control::api`], nothing of routes, backends or policy. Health answers (`/livez`,
//! `/readyz`) depend on no backend: a cache outage must not take every pod out of service.

mod error;
mod guard;
mod handlers;
mod server;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use secrecy::SecretString;

use crate::control::api::Handle;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

pub use error::ErrorBody;
pub use handlers::{EventsReport, ExplainReport, StatisticsAnswer};
pub use server::serve;

/// What the handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminState {
    pub control: Handle,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// Asked as a bearer token for everything but the health answers and the static page. Absent: nothing is asked.
    pub token: Option<Arc<SecretString>>,
}

/// The control port: everything.
pub fn router(state: AdminState) -> Router {
    let guarded = Router::new()
        .route("/v1/status", get(handlers::status))
        .route("/v1/events", get(handlers::events))
        .route("/v1/explain", get(handlers::explain))
        .route("/v1/statistics", get(handlers::statistics))
        .route("/v1/recording", get(handlers::recording))
        .route("/v1/failover", post(handlers::failover))
        .route("/v1/pause", post(handlers::pause))
        .route("/v1/resume", post(handlers::resume))
        .route("/v1/rollback", post(handlers::rollback))
        .route("/v1/recover", post(handlers::recover))
        .route("/v1/pin", post(handlers::pin))
        .route("/v1/unpin", post(handlers::unpin))
        .route("/v1/drain", post(handlers::drain))
        .route("/v1/exclude", post(handlers::exclude))
        .route("/v1/include", post(handlers::include))
        .route("/v1/confirm", post(handlers::confirm))
        .route("/v1/reject", post(handlers::reject))
        .route("/v1/adopt", post(handlers::adopt))
        .route("/v1/disown", post(handlers::disown))
        .route("/metrics", get(handlers::metrics))
        .route_layer(from_fn_with_state(state.clone(), guard::authorise));
    let page = Router::new()
        .route("/", get(handlers::page))
        .route("/page.css", get(handlers::page_style))
        .route("/page.js", get(handlers::page_script));
    finish(guarded.merge(page).merge(health()), state)
}

/// The observe port: read-only, without a token, for the kubelet and Prometheus, who come by the pod's address.
pub fn observe_router(state: AdminState) -> Router {
    finish(Router::new().route("/metrics", get(handlers::metrics)).merge(health()), state)
}

fn health() -> Router<AdminState> {
    Router::new().route("/livez", get(handlers::livez)).route("/readyz", get(handlers::readyz))
}

fn finish(router: Router<AdminState>, state: AdminState) -> Router {
    router
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .layer(from_fn(guard::add_headers))
        .with_state(state)
}
