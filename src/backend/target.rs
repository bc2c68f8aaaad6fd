//! Where a backend is, how one gets a connection to it, and who one is there.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};

use super::io::Io;
use super::shared::Timing;
use crate::config::Secret;

/// Bytes that may wait in each direction between a link and the in-process store.
const EMBEDDED_PIPE_BYTES: usize = 64 * 1024;

/// Where a backend listens.
#[derive(Clone)]
pub enum Address {
    /// `host:port`; the name is resolved anew for every connection, since failovers of managed services move names.
    Tcp { host: String, port: u16 },
    /// A path in the file system.
    Unix(PathBuf),
    /// The store inside this process.
    Embedded(crate::embedded::Store),
}

/// Credentials of one lane; read anew for every connection, since they rotate.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Given by a client, not by the configuration: that the server no longer takes it is the client's affair.
    pub is_clients: bool,
}

/// TLS of a backend; rebuilt for every connection attempt, so that rotated certificates are taken up.
pub type TlsSource = Arc<dyn Fn() -> io::Result<Arc<rustls::ClientConfig>> + Send + Sync>;

/// Address, TLS and login of a backend.
#[derive(Clone)]
pub struct Target {
    pub address: Address,
    pub tls: Option<(ServerName<'static>, TlsSource)>,
    pub login: Login,
    /// Database that a client's database 0 is.
    pub database: u32,
}

impl Target {
    /// The address for people and logs; never has credentials.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.address {
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Embedded(_) => "embedded".to_owned(),
        }
    }

    /// Opens a connection, TLS included; the caller bounds it in time.
    ///
    /// # Errors
    /// Those of resolution, connect and TLS handshake; the kind tells refusal from the rest.
    pub async fn connect(&self, timing: &Timing) -> io::Result<Io> {
        match &self.address {
            Address::Unix(path) => Ok(Io::Unix(UnixStream::connect(path).await?)),
            Address::Embedded(store) => {
                let (ours, theirs) = tokio::io::duplex(EMBEDDED_PIPE_BYTES);
                tokio::spawn(crate::embedded::serve_connection(
                    store.clone(),
                    theirs,
                    crate::embedded::ServerOptions::default(),
                ));
                Ok(Io::Duplex(ours))
            }
            Address::Tcp { host, port } => {
                let stream = connect_tcp(host, *port).await?;
                tune(&stream, timing)?;
                let Some((name, source)) = &self.tls else { return Ok(Io::Tcp(stream)) };
                let connector = tokio_rustls::TlsConnector::from(source()?);
                Ok(Io::TlsClient(Box::new(connector.connect(name.clone(), stream).await?)))
            }
        }
    }
}

/// Tries every address that the name has now, in the resolver's order.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>() {
        return TcpStream::connect(SocketAddr::new(ip, port)).await;
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no address found for {host}"));
    for address in tokio::net::lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Between processes of one host there is no congestion to control: an algorithm that paces (BBR, the default of many
/// hosts) would arm a timer for each small write. Costs nothing where it is not permitted.
pub fn spare_congestion_control(stream: &TcpStream) {
    if stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
        let _ = socket2::SockRef::from(stream).set_tcp_congestion(b"reno");
    }
}

/// No delay, keepalive, and a bound on unacknowledged data: a half-open connection must not hang.
fn tune(stream: &TcpStream, timing: &Timing) -> io::Result<()> {
    stream.set_nodelay(true)?;
    spare_congestion_control(stream);
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(timing.tcp_keepalive)
        .with_interval((timing.tcp_keepalive / 3).max(std::time::Duration::from_secs(1)))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(timing.tcp_user_timeout))
}
