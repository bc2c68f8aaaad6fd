//! `standin cache-server`: the store as a process of its own.

use std::io;
use std::net::IpAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::server::{ServerOptions, serve_with};
use super::store::{Store, StoreOptions};

#[derive(Debug, Clone)]
pub struct CacheServerOptions {
    pub bind: IpAddr,
    /// 0 lets the system choose; the line `listening on ADDRESS:PORT` says which.
    pub port: u16,
    pub max_memory_bytes: usize,
    pub password: Option<String>,
}

/// Serves until SIGTERM or SIGINT. Fails if the address cannot be bound.
pub async fn run_cache_server(options: CacheServerOptions) -> io::Result<()> {
    // Before the address is announced: whoever reads it may send the signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind((options.bind, options.port)).await?;
    tracing::info!("listening on {}", listener.local_addr()?);
    let store = Store::new(StoreOptions { max_memory_bytes: options.max_memory_bytes, ..StoreOptions::default() });
    let shutdown = CancellationToken::new();
    let server_options = ServerOptions { password: options.password, ..ServerOptions::default() };
    let server = serve_with(listener, store, server_options, shutdown.clone());
    tokio::pin!(server);
    tokio::select! {
        served = &mut server => return served,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    shutdown.cancel();
    server.await
}
