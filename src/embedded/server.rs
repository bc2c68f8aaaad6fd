//! Connections to the store: batches of requests in, one write of replies out.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dispatch;
use super::session::{Session, Waiting};
use super::store::Store;
use crate::limits;
use crate::resp::{FrameLimits, RequestScanner, arguments, inline_to_multibulk, write};

/// What a connection is allowed, besides what the store allows.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Clients must AUTH with it (user `default`) before anything else.
    pub password: Option<String>,
    /// Writes are refused with READONLY.
    pub read_only: bool,
    /// The peer as CLIENT LIST shows it, `ip:port`; empty for an in-process connection.
    pub peer: String,
}

/// Serves every connection of `listener` until `shutdown`; the connections are then closed.
///
/// Needs a tokio runtime with IO and time; a current-thread one will do.
pub async fn serve(listener: TcpListener, store: Store, shutdown: CancellationToken) -> io::Result<()> {
    serve_with(listener, store, ServerOptions::default(), shutdown).await
}

/// As `serve`, with options for all its connections.
pub async fn serve_with(
    listener: TcpListener,
    store: Store,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (mut stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: the next accept would fail at once again.
                tracing::warn!(%error, "a connection to the embedded cache was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if connections.len() >= limits::EMBEDDED_CLIENTS_MAX {
            let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
            let _ = stream.shutdown().await;
            continue;
        }
        // Fails only on a connection that is gone already, which its first read will tell.
        let _ = stream.set_nodelay(true);
        let options = ServerOptions { peer: peer.to_string(), ..options.clone() };
        let store = store.clone();
        connections.spawn(async move {
            if let Err(error) = serve_connection(store, stream, options).await {
                tracing::debug!(%error, "a connection to the embedded cache ended");
            }
        });
    }
    connections.shutdown().await;
    Ok(())
}

/// Serves one client until it leaves, is killed or breaks the protocol. Every such end is `Ok`; an error is the IO's.
pub async fn serve_connection<IO: AsyncRead + AsyncWrite + Unpin>(
    store: Store,
    io: IO,
    options: ServerOptions,
) -> io::Result<()> {
    let mut connection = Connection::new(store, io, options);
    let kill = connection.kill.clone();
    let ended = tokio::select! {
        biased;
        () = kill.cancelled() => Ok(()),
        ended = connection.run() => ended,
    };
    // The reply to QUIT, or the last ones before a CLIENT KILL of itself, are written by now; the rest is not owed.
    let _ = connection.io.shutdown().await;
    ended
}

struct Connection<IO> {
    store: Store,
    io: IO,
    session: Session,
    scanner: RequestScanner,
    limits: FrameLimits,
    input: Vec<u8>,
    /// Bytes of `input` that are dealt with.
    consumed: usize,
    output: Vec<u8>,
    wake: Arc<Notify>,
    kill: CancellationToken,
}

impl<IO> Drop for Connection<IO> {
    fn drop(&mut self) {
        self.store.lock().disconnect(&self.session);
    }
}

/// Why a batch ended.
#[derive(PartialEq, Eq)]
enum BatchEnd {
    /// All complete requests are answered.
    NeedsInput,
    /// There may be more requests, but these replies go first.
    OutputFull,
    Waiting,
    Closing,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    fn new(store: Store, io: IO, options: ServerOptions) -> Self {
        let mut state = store.lock();
        let id = state.connect(options.peer);
        let client = &state.clients[&id];
        let (wake, kill) = (client.wake.clone(), client.kill.clone());
        drop(state);
        Self {
            store,
            io,
            session: Session::new(id, options.password, options.read_only),
            scanner: RequestScanner::default(),
            limits: FrameLimits::default(),
            input: Vec::new(),
            consumed: 0,
            output: Vec::new(),
            wake,
            kill,
        }
    }

    async fn run(&mut self) -> io::Result<()> {
        loop {
            let end = self.answer_batch();
            self.flush().await?;
            match end {
                BatchEnd::Closing => return Ok(()),
                BatchEnd::OutputFull => {}
                BatchEnd::Waiting => {
                    if self.wait().await?.is_break() {
                        return Ok(());
                    }
                }
                BatchEnd::NeedsInput => {
                    let wake = self.wake.clone();
                    tokio::select! {
                        read = self.read() => if read? == 0 { return Ok(()) },
                        () = wake.notified() => {}
                    }
                }
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        if self.consumed > 0 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.input.is_empty() && self.input.capacity() > limits::BUFFER_KEEP_BYTES {
            self.input = Vec::new();
        }
        self.input.reserve(limits::READ_CHUNK_BYTES / 4);
        self.io.read_buf(&mut self.input).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.io.write_all(&self.output).await?;
            self.output.clear();
            self.output.shrink_to(limits::BUFFER_KEEP_BYTES);
        }
        Ok(())
    }

    /// Answers the complete requests of `input` under one lock, after the messages that others have sent.
    fn answer_batch(&mut self) -> BatchEnd {
        let store = self.store.clone();
        let mut state = store.lock();
        if let Some(client) = state.clients.get_mut(&self.session.id)
            && !client.outbox.is_empty()
        {
            self.output.append(&mut client.outbox);
        }
        let mut words = Vec::new();
        let end = loop {
            if self.session.waiting.is_some() {
                break BatchEnd::Waiting;
            }
            if self.session.closing {
                break BatchEnd::Closing;
            }
            if self.output.len() > limits::CLIENT_OUTPUT_PAUSE_BYTES {
                break BatchEnd::OutputFull;
            }
            let rest = &self.input[self.consumed..];
            let frame = match self.scanner.scan(rest, &self.limits) {
                Ok(Some(frame)) => frame,
                Ok(None) => break BatchEnd::NeedsInput,
                Err(error) => break protocol_error(&mut self.output, &error.to_string()),
            };
            self.consumed += frame.len;
            if frame.arguments == 0 {
                continue;
            }
            if frame.inline {
                match inline_to_multibulk(&rest[..frame.len]) {
                    Ok(None) => continue,
                    Ok(Some(request)) => {
                        let words: Vec<&[u8]> = arguments(&request).collect();
                        dispatch::run(&mut state, &mut self.session, &words, &mut self.output);
                    }
                    Err(error) => break protocol_error(&mut self.output, &error.to_string()),
                }
                continue;
            }
            words.clear();
            words.extend(arguments(&rest[..frame.len]));
            dispatch::run(&mut state, &mut self.session, &words, &mut self.output);
        };
        state.note_session(&self.session);
        end
    }

    /// Waits for the element that a blocking command wants, its timeout, or the client's end.
    async fn wait(&mut self) -> io::Result<ControlFlow<()>> {
        let Some(Waiting { mut reply, timeout_ms }) = self.session.waiting.take() else {
            return Ok(ControlFlow::Continue(()));
        };
        let timeout = async {
            match timeout_ms {
                Some(timeout_ms) => tokio::time::sleep(Duration::from_millis(timeout_ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(timeout);
        loop {
            // A client that sends on while it waits is read up to a bound, so that its end is noticed.
            let may_read = self.input.len() - self.consumed < limits::READ_CHUNK_BYTES;
            let wake = self.wake.clone();
            tokio::select! {
                biased;
                served = &mut reply => {
                    self.output.extend(served.unwrap_or_default());
                    return Ok(ControlFlow::Continue(()));
                }
                () = &mut timeout => {
                    if self.store.lock().stop_waiting(self.session.id).is_some() {
                        write::null_array(&mut self.output, self.session.protocol);
                    } else if let Ok(served) = reply.try_recv() {
                        self.output.extend(served);
                    }
                    return Ok(ControlFlow::Continue(()));
                }
                read = self.read(), if may_read => if read? == 0 { return Ok(ControlFlow::Break(())) },
                () = wake.notified() => {
                    if let Some(client) = self.store.lock().clients.get_mut(&self.session.id) {
                        self.output.append(&mut client.outbox);
                    }
                    self.flush().await?;
                }
            }
        }
    }
}

/// What follows in the stream cannot be understood: say so and close.
fn protocol_error(output: &mut Vec<u8>, reason: &str) -> BatchEnd {
    write::error(output, &format!("ERR Protocol error: {reason}"));
    BatchEnd::Closing
}
