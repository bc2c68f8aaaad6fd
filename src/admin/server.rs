//! Accepts and serves HTTP/1 connections with bounds that `axum::serve` does not have.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Waiting after a failed accept: out of descriptors is the usual reason, and it does not pass within microseconds.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then lets requests under way finish, for at most [`limits::ADMIN_READ_TIMEOUT`].
///
/// Beyond [`limits::ADMIN_CONNECTIONS_MAX`] connections a new one is closed at once.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve_within(limits::ADMIN_READ_TIMEOUT, listener, router, shutdown).await;
}

/// As [`serve`], with another time for a request's head.
pub(super) async fn serve_within(
    head_timeout: Duration,
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if connections.len() < limits::ADMIN_CONNECTIONS_MAX => {
                    connections.spawn(connection(head_timeout, stream, peer, router.clone(), shutdown.clone()));
                }
                Ok((_refused, peer)) => {
                    tracing::debug!(%peer, "closed a connection: too many are open on this port");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the control or observe port");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection: closed when its client takes too long for a head, when it is old, and gently at shutdown. The age
/// bound is for clients that ask and never read the answer, which no other timeout ends.
async fn connection(
    head_timeout: Duration,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ripe(&shutdown) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits::ADMIN_READ_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a control connection ended early");
    }
}

async fn ripe(shutdown: &CancellationToken) {
    let _ = tokio::time::timeout(limits::ADMIN_CONNECTION_AGE_MAX, shutdown.cancelled()).await;
}
