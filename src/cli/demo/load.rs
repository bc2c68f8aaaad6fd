//! The built-in load: clients on a thread of their own, so that drawing never delays a request.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::meter::{Meter, Outcome, Reading};
use crate::resp::{FrameLimits, ReplyScanner};

/// An application's patience: more than the whole life that Standin gives a request (`timeout.request`, 2 s).
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a client that lost its connection connects again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests under way may still take when the load ends.
const END_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(super) struct LoadSettings {
    pub(super) address: SocketAddr,
    pub(super) clients: u32,
    /// Requests each second of all clients together.
    pub(super) rate: u32,
}

/// A load under way. Dropping it ends it.
#[derive(Debug)]
pub(super) struct RunningLoad {
    meter: Arc<Mutex<Meter>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl RunningLoad {
    pub(super) fn start(settings: LoadSettings) -> io::Result<Self> {
        let meter = Arc::new(Mutex::new(Meter::new(Instant::now())));
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, stopped) = (Arc::clone(&meter), stop.clone());
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || runtime.block_on(run_clients(settings, shared, stopped)))?;
        Ok(Self { meter, stop, thread: Some(thread) })
    }

    /// The figures so far; a new window begins.
    pub(super) fn read(&self) -> Reading {
        lock(&self.meter).read(Instant::now())
    }

    /// The figures of the whole run. Requests that were under way are waited for, but not for long.
    pub(super) fn end(mut self) -> Reading {
        let reading = lock(&self.meter).read(Instant::now());
        let panicked = self.join();
        // What came after the end counts, but the silence after it is no gap.
        let mut last = self.read();
        last.gap_longest = reading.gap_longest;
        if panicked {
            last.whole.errors += 1;
            last.error_texts.push(("the load itself failed; this is a defect of the demo".to_owned(), 1));
        }
        last
    }

    /// Whether the thread panicked.
    fn join(&mut self) -> bool {
        self.stop.cancel();
        self.thread.take().is_some_and(|thread| thread.join().is_err())
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.join();
    }
}

/// Counts stay true whatever panicked while it held the lock.
fn lock(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run_clients(settings: LoadSettings, meter: Arc<Mutex<Meter>>, stop: CancellationToken) {
    let period = Duration::from_secs(1) * settings.clients / settings.rate.max(1);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..settings.clients {
        let (meter, stop) = (Arc::clone(&meter), stop.clone());
        let first = period * number / settings.clients.max(1);
        clients.spawn(async move {
            Client { address: settings.address, ledger: Ledger::new(number), connection: None, meter }
                .run(first, period, stop)
                .await;
        });
    }
    let all = async { while clients.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
    tokio::select! {
        () = all => {}
        () = async { stop.cancelled().await; tokio::time::sleep(END_PATIENCE).await; } => {}
    }
}

#[derive(Debug)]
struct Client {
    address: SocketAddr,
    ledger: Ledger,
    connection: Option<Connection>,
    meter: Arc<Mutex<Meter>>,
}

impl Client {
    async fn run(mut self, first: Duration, period: Duration, stop: CancellationToken) {
        let mut turns =
            tokio::time::interval_at(tokio::time::Instant::now() + first, period.max(Duration::from_micros(1)));
        // After a gap the missed requests are not made up for: an application's users do not come in a burst either.
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = turns.tick() => {}
            }
            let start = Instant::now();
            let outcome = self.turn().await;
            let now = Instant::now();
            lock(&self.meter).record(now, now - start, &outcome);
            if self.connection.is_none() {
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    /// One request and its reply. After a fault the connection is gone, for what it brings next could belong to this request.
    async fn turn(&mut self) -> Outcome {
        let exchange = tokio::time::timeout(PATIENCE, self.exchange()).await;
        let failed = match exchange {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no reply within {} s", PATIENCE.as_secs()),
        };
        self.connection = None;
        Outcome::Error(failed)
    }

    async fn exchange(&mut self) -> io::Result<Outcome> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.address).await?);
        }
        let Some(connection) = &mut self.connection else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut request = Vec::with_capacity(128);
        let step = self.ledger.next(&mut request);
        let reply = connection.ask(&request).await?;
        Ok(self.ledger.judge(step, &reply))
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    scanner: ReplyScanner,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024), scanner: ReplyScanner::default() })
    }

    /// Sends a request and reads its whole reply.
    async fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        loop {
            let scanned = self.scanner.scan(&self.buffer, &FrameLimits::default());
            if let Some(length) = scanned.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                return Ok(self.buffer.drain(..length).collect());
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
            }
        }
    }
}

/// Whether a server at this address answers PING with PONG.
pub(super) async fn answers(address: SocketAddr) -> bool {
    let ping = async { Connection::open(address).await?.ask(b"*1\r\n$4\r\nPING\r\n").await };
    matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Ok(reply)) if reply == b"+PONG\r\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::embedded::{Store, StoreOptions, serve};

    /// An embedded cache server on a runtime of its own; it ends with the token.
    fn cache_server() -> (SocketAddr, CancellationToken) {
        let shutdown = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let stopped = shutdown.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, Store::new(StoreOptions::default()), stopped).await.unwrap();
            });
        });
        (receiver.recv().unwrap(), shutdown)
    }

    /// Waits until the load has made so many requests.
    fn wait_for(load: &RunningLoad, operations: u64) {
        let start = Instant::now();
        while load.read().whole.operations < operations {
            assert!(start.elapsed() < Duration::from_secs(30), "the load does not go on: {:?}", load.read());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_server_that_does_its_work_gives_no_error_and_no_stale_read() {
        let (address, shutdown) = cache_server();
        let load = RunningLoad::start(LoadSettings { address, clients: 4, rate: 4_000 }).unwrap();
        wait_for(&load, 500);
        let reading = load.end();
        shutdown.cancel();
        assert_eq!((reading.whole.errors, reading.whole.stale_reads), (0, 0), "{:?}", reading.error_texts);
        assert!(reading.whole.latencies.quantile_us(0.5).is_some());
    }

    #[test]
    fn where_nobody_listens_every_request_is_an_error_and_the_gap_grows() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let load = RunningLoad::start(LoadSettings { address, clients: 2, rate: 1_000 }).unwrap();
        wait_for(&load, 4);
        let reading = load.end();
        assert_eq!(reading.whole.errors, reading.whole.operations);
        assert!(reading.gap_longest.length >= RECONNECT_PAUSE, "{:?}", reading.gap_longest);
        assert!(reading.error_texts.iter().any(|(text, _)| text.contains("refused")), "{:?}", reading.error_texts);
    }
}
