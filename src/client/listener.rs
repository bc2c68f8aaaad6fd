//! The listening socket of a group: one, whose connections go to the worker with the fewest clients.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::worker::{Accepted, WorkerCommand};
use crate::config::ListenAddress;

/// A bound socket.
pub enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

/// Connections that may wait to be accepted; bursts of reconnecting clients are common after a failover.
const BACKLOG: i32 = 1024;

/// While nothing can be accepted, it is said this often.
const SAY_EVERY: Duration = Duration::from_secs(10);

impl Listener {
    /// Binds; nothing is accepted yet.
    ///
    /// # Errors
    /// Those of the socket; a left-over socket file of a process that is gone is replaced.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => {
                let socket = socket2::Socket::new(
                    socket2::Domain::for_address(*address),
                    socket2::Type::STREAM,
                    Some(socket2::Protocol::TCP),
                )?;
                socket.set_reuse_address(true)?;
                socket.bind(&(*address).into())?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(socket.into()))
            }
            ListenAddress::Unix(path) => {
                // Nothing but a socket is ever removed: a mistyped path may name anything.
                let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
                if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// The address in the form of the configuration.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

/// Accepts until cancelled. Runs on a worker's or the control plane's runtime.
///
/// # Errors
/// When the socket cannot be registered with the runtime.
pub async fn listen(
    listener: Listener,
    group: usize,
    workers: Vec<mpsc::Sender<WorkerCommand>>,
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> io::Result<()> {
    enum Socket {
        Tcp(tokio::net::TcpListener),
        Unix(tokio::net::UnixListener),
    }
    let socket = match listener {
        Listener::Tcp(listener) => Socket::Tcp(tokio::net::TcpListener::from_std(listener)?),
        Listener::Unix(listener, _) => Socket::Unix(tokio::net::UnixListener::from_std(listener)?),
    };
    let mut said_at: Option<Instant> = None;
    loop {
        let accepted = async {
            match &socket {
                Socket::Tcp(socket) => {
                    let (stream, address) = socket.accept().await?;
                    Ok::<_, io::Error>(Accepted::Tcp(stream.into_std()?, address))
                }
                Socket::Unix(socket) => Ok(Accepted::Unix(socket.accept().await?.0.into_std()?)),
            }
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        match accepted {
            Ok(accepted) => {
                let worker = registry.least_loaded();
                if workers[worker].send(WorkerCommand::Client { group, accepted }).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: waiting lets some close; spinning would not.
                if said_at.is_none_or(|said_at| said_at.elapsed() >= SAY_EVERY) {
                    said_at = Some(Instant::now());
                    tracing::warn!(%error, "accept failed; clients wait until others have left");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
