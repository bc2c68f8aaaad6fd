//! What stands before the handlers: the token, the check that a command comes from no foreign web page, the body's bounds.

use std::error::Error;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;

use super::AdminState;
use super::error::ApiError;
use crate::limits;

/// Scripts and styles only from this port, nothing inline, and no framing: a text that a backend sent can never run.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Asks for the bearer token, if there is one. The comparison takes the same time wherever two tokens differ.
pub(super) async fn authorise(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    if let Some(token) = &state.token {
        let given = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let given = given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let matches = given.is_some_and(|(_, given)| given.ct_eq(token.expose_secret().as_bytes()).into());
        if !matches {
            let error = if given.is_some() { "the token is not the right one" } else { "a bearer token is needed" };
            let hint = "send `Authorization: Bearer TOKEN`; the command line takes it from STANDIN_CONTROL_TOKEN";
            return ApiError::new(StatusCode::UNAUTHORIZED, error, hint).into_response();
        }
    }
    next.run(request).await
}

/// Headers for every answer: nothing is cached, sniffed, framed or run.
pub(super) async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}

/// The command in the body of a POST. An empty body is the command with all its defaults, if it has them all.
///
/// A web page elsewhere can make a browser POST here, but not with this content type, and not without telling its origin;
/// so a body needs `application/json`, and an origin must be this port itself.
pub(super) async fn command<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    refuse_foreign_page(&parts.headers)?;
    let body = read(body).await?;
    if body.is_empty() {
        return serde_json::from_slice(b"{}").map_err(|error| bad_json(&error));
    }
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !content_type.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        let hint = "send the header `Content-Type: application/json`";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not marked as JSON", hint));
    }
    serde_json::from_slice(&body).map_err(|error| bad_json(&error))
}

fn bad_json(error: &serde_json::Error) -> ApiError {
    let hint = "the commands take a JSON object with \"group\", \"to\", \"backend\" and \"reason\" where they apply";
    ApiError::bad_request(format!("the body cannot be read: {error}"), hint)
}

fn refuse_foreign_page(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    if text(header::HOST).is_some_and(|host| !authority.is_empty() && host.eq_ignore_ascii_case(authority)) {
        return Ok(());
    }
    let hint = "commands come from the command line, from scripts, or from a page of this port itself";
    Err(ApiError::new(StatusCode::FORBIDDEN, format!("a web page of {origin} may not send commands"), hint))
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let limited = Limited::new(body, limits::ADMIN_BODY_BYTES_MAX).collect();
    match tokio::time::timeout(limits::ADMIN_READ_TIMEOUT, limited).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if is_too_long(&*error) => {
            let error = format!("the body is longer than {} bytes", limits::ADMIN_BODY_BYTES_MAX);
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error, "shorten the reason"))
        }
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the body broke off: {error}"), "send it again")),
        Err(_elapsed) => {
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time", "send it again"))
        }
    }
}

/// The limit's error may stand inside another one.
fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_too_long)
}
