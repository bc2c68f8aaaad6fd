//! Errors as the control port answers them: `{"error": "...", "hint": "..."}` with a status that a script can test.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::control::api::CommandError;

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    /// What the caller can do.
    pub hint: String,
}

#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), hint: hint.into() } }
    }

    pub(super) fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let status = match &error {
            CommandError::UnknownGroup { .. } | CommandError::UnknownBackend { .. } => StatusCode::NOT_FOUND,
            CommandError::GroupNeeded { .. } => StatusCode::BAD_REQUEST,
            CommandError::Refused { .. } => StatusCode::CONFLICT,
            CommandError::Busy { .. } | CommandError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            CommandError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, error.to_string(), error.hint())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
