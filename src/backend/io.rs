//! A byte stream to a backend or from a client, whatever carries it.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};

/// One connection. An enum, not a trait object: the hot case is a direct call into the TCP stream.
pub enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// The in-process store.
    Duplex(DuplexStream),
}

impl Io {
    /// Our end of a TCP connection.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::TlsClient(stream) => stream.get_ref().0.local_addr().ok(),
            Self::TlsServer(stream) => stream.get_ref().0.local_addr().ok(),
            Self::Unix(_) | Self::Duplex(_) => None,
        }
    }

    /// Whether the other side has closed its end, as far as the runtime has heard; nothing is read for it.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        fn is_closed(ready: impl Future<Output = io::Result<Ready>>) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            let now = pin!(ready).poll(&mut cx);
            matches!(now, Poll::Ready(Ok(ready)) if ready.is_read_closed())
        }
        match self {
            Self::Tcp(stream) => is_closed(stream.ready(Interest::READABLE)),
            Self::Unix(stream) => is_closed(stream.ready(Interest::READABLE)),
            Self::TlsClient(stream) => is_closed(stream.get_ref().0.ready(Interest::READABLE)),
            Self::TlsServer(stream) => is_closed(stream.get_ref().0.ready(Interest::READABLE)),
            Self::Duplex(_) => false,
        }
    }

    /// Writes what the socket takes at once, without registering a waker; `WouldBlock` for streams that cannot.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` also for TLS, whose state belongs to the task that polls it.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::TlsClient(_) | Self::TlsServer(_) | Self::Duplex(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Tcp($stream) => $call,
            Io::Unix($stream) => $call,
            Io::TlsClient($stream) => $call,
            Io::TlsServer($stream) => $call,
            Io::Duplex($stream) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
