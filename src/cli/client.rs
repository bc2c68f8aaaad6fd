//! A small client of the control API.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ControlArgs, Failure, run};
use crate::admin::ErrorBody;
use crate::config::{Control, Secret};
use crate::limits;

/// Longer than the longest the server takes to answer, so that its own explanation arrives.
pub(super) const COMMAND_TIMEOUT: Duration =
    Duration::from_secs(limits::CONTROL_COMMAND_TIMEOUT.as_secs() + limits::CONTROL_STATUS_TIMEOUT.as_secs());
/// An answer larger than this is not from a Standin: the whole history stays well below it.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const TOKEN_VARIABLE: &str = "STANDIN_CONTROL_TOKEN";

/// Where the control port is and what opens it.
#[derive(Debug)]
pub(super) struct Target {
    /// `host:port`.
    pub(super) authority: String,
    pub(super) token: Option<SecretString>,
}

impl Target {
    /// `--control` or STANDIN_CONTROL, else the configuration file's, else the default. The token of the variable wins.
    pub(super) fn find(arguments: &ControlArgs) -> Result<Self, Failure> {
        let configured = match &arguments.config {
            Some(path) => Some(run::load(path)?.control),
            None => None,
        };
        let variable = std::env::var(TOKEN_VARIABLE).ok();
        Self::choose(arguments.control.as_deref(), configured, variable.as_deref())
    }

    pub(super) fn choose(
        address: Option<&str>,
        configured: Option<Control>,
        token_variable: Option<&str>,
    ) -> Result<Self, Failure> {
        let configured = configured.unwrap_or_default();
        let authority = match address {
            Some(address) => authority(address)?,
            None => reachable(configured.address),
        };
        let secret = match token_variable.filter(|text| !text.is_empty()) {
            Some(text) => Some(Secret::parse(text, |name| std::env::var(name).ok())),
            None => configured.token,
        };
        let token = secret.map(|secret| secret.read()).transpose();
        let token = token.map_err(|error| Failure::failed(format!("cannot read the control token: {error}")))?;
        Ok(Self { authority, token })
    }
}

/// The address that a listener on all addresses can be reached at from its own machine.
fn reachable(mut address: std::net::SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address.to_string()
}

/// `host:port`, also out of `http://host:port/`.
fn authority(address: &str) -> Result<String, Failure> {
    let rest = address.strip_prefix("http://").unwrap_or(address);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let parsed = rest.parse::<hyper::http::uri::Authority>().ok();
    match parsed.filter(|authority| authority.port_u16().is_some() && !authority.host().is_empty()) {
        Some(authority) if !rest.contains('@') => Ok(authority.to_string()),
        _ => {
            Err(Failure::bad_config(format!("\"{address}\" is no control address; write host:port as 127.0.0.1:9180")))
        }
    }
}

/// Why there is no answer to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no Standin answers at {authority}: {why}\n  is it running, and is this its control address (--control)?")]
    Unreachable { authority: String, why: String },
    #[error("{}\n  {}", .body.error, .body.hint)]
    Refused { status: StatusCode, body: ErrorBody },
    #[error("what answers at {authority} is no Standin: {why}")]
    Strange { authority: String, why: String },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::failed(error.to_string())
    }
}

pub(super) struct ControlClient {
    http: Client<HttpConnector, Full<Bytes>>,
    target: Target,
}

impl ControlClient {
    pub(super) fn new(target: Target) -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build_http(), target }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Whether the path answers with a success, whatever it says.
    pub(super) async fn is_well(&self, path: &str, timeout: Duration) -> Result<(), ClientError> {
        let (status, _) = self.exchange(Method::GET, path, None, timeout).await?;
        if status.is_success() { Ok(()) } else { Err(self.strange(format!("it says {status}"))) }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let (status, answer) = self.exchange(method, path, body, COMMAND_TIMEOUT).await?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| self.strange(error.to_string()));
        }
        match serde_json::from_slice(&answer) {
            Ok(body) => Err(ClientError::Refused { status, body }),
            Err(_) => Err(self.strange(format!("it says {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| self.unreachable(innermost(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes()))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(self.unreachable(format!("no answer within {} s", timeout.as_secs()))),
        }
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, ClientError> {
        let uri: Uri = format!("http://{}{path}", self.target.authority)
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| self.unreachable(error.to_string()))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.target.token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
            let mut value =
                value.map_err(|_| self.unreachable("the token holds characters that HTTP has not".into()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn unreachable(&self, why: String) -> ClientError {
        ClientError::Unreachable { authority: self.target.authority.clone(), why }
    }

    fn strange(&self, why: String) -> ClientError {
        ClientError::Strange { authority: self.target.authority.clone(), why }
    }
}

/// The cause at the bottom: "client error (Connect)" alone says nothing, "Connection refused" does.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}
