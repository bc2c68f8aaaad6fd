//! A TCP relay between Standin and a server that can break the network in every way that networks break.
//!
//! It runs on a thread of its own, so that a test that blocks does not stop the traffic. A fault acts on established and
//! on new connections alike, from the moment it is set.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::dice::Dice;

/// Chunks that one direction of one connection may hold back while they are late.
const LATE_CHUNKS_MAX: usize = 4096;
/// Linux's least retransmission timeout: on a network of milliseconds a lost packet at the end of a burst, which no later
/// one reports missing, is sent again after this.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// A packet that is lost so often in a row gets through, so that a connection never stands still for ever.
const LOSSES_IN_ROW_MAX: u32 = 4;

/// What the network does. Everything but `Pass` counts each time it acts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    Pass,
    /// Each chunk arrives this much later, in both directions; throughput stays.
    Delay(Duration),
    /// At most so many bytes a second and direction.
    Throttle {
        bytes_per_second: u32,
    },
    /// Chunks are cut into writes of this many bytes.
    Split {
        bytes: usize,
    },
    /// Bytes vanish in both directions; connections stay open, new ones are accepted and nothing answers.
    BlackHole,
    /// Requests arrive and are executed; their replies vanish.
    SwallowReplies,
    /// As `BlackHole`, and new connections are not even established: their SYN vanishes.
    Vanished,
    /// Every connection is reset (RST, not FIN), established or new.
    Reset,
    /// The server's side is shut down towards Standin, whose own bytes are swallowed.
    HalfClose,
    /// Nothing listens: connects are refused. Established connections are reset.
    Refuse,
    /// This share of the packets, 0 to 1, is lost and sent again after the kernel's retransmission timeout, which doubles
    /// with each loss of the same packet; what is behind them waits. As `tc netem loss` does it, without a privilege.
    Loss {
        share: f64,
    },
    /// This share of the packets, 0 to 1, is late by a heavy-tailed time (Pareto, shape 1.5) from `least` to `most`.
    Jitter {
        share: f64,
        least: Duration,
        most: Duration,
    },
    /// One bit of the first byte of each reply chunk is turned over.
    Corrupt,
}

/// A relay with an address of its own. Ends with its value.
#[derive(Debug)]
pub(crate) struct FaultRelay {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    resets: watch::Sender<u64>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    fired: AtomicU64,
    accepted: AtomicU64,
    open: AtomicU64,
}

impl Counters {
    fn fire(&self) {
        self.fired.fetch_add(1, Ordering::Relaxed);
    }
}

impl FaultRelay {
    /// Listens on a free port and forwards to `upstream`.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let port = super::port::ReservedPort::new();
        let address = port.address();
        let (fault, watched) = watch::channel(Fault::Pass);
        let (resets, watched_resets) = watch::channel(0);
        let counters = Arc::new(Counters::default());
        let relay =
            Relay { address, upstream, fault: watched, resets: watched_resets, counters: Arc::clone(&counters) };
        let (bound, is_bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // The reservation lives as long as the relay, which ends when the sender of faults is dropped.
            let _port = port;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(relay.run(bound));
        });
        is_bound.recv().expect("the relay listens");
        Self { address, fault, resets, counters }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    pub(crate) fn heal(&self) {
        self.set(Fault::Pass);
    }

    /// Resets every connection once; new ones pass.
    pub(crate) fn reset_all(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    /// How often a fault really acted on a chunk or a connection.
    pub(crate) fn fired(&self) -> u64 {
        self.counters.fired.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn open_connections(&self) -> u64 {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// A test whose fault never acted has shown nothing.
    #[track_caller]
    pub(crate) fn assert_fired(&self) {
        assert!(self.fired() > 0, "the fault never acted");
    }
}

/// The relay's own side.
#[derive(Clone)]
struct Relay {
    address: SocketAddr,
    upstream: SocketAddr,
    fault: watch::Receiver<Fault>,
    resets: watch::Receiver<u64>,
    counters: Arc<Counters>,
}

impl Relay {
    async fn run(mut self, bound: std::sync::mpsc::Sender<()>) {
        let mut listener = Some(self.listen());
        bound.send(()).expect("the test waits for the relay");
        // Connections of our own that fill the backlog, so that the kernel drops further SYNs.
        let mut _fillers = Vec::new();
        loop {
            let fault = self.fault.borrow_and_update().clone();
            match fault {
                Fault::Refuse => listener = None,
                _ if listener.is_none() => listener = Some(self.listen()),
                _ => {}
            }
            if let Some(listener) = &listener {
                _fillers = if fault == Fault::Vanished { self.fill_backlog(listener) } else { Vec::new() };
                if fault != Fault::Vanished {
                    SockRef::from(listener).listen(1024).expect("a longer backlog");
                }
            }
            let accepting = async {
                match &listener {
                    Some(listener) if fault != Fault::Vanished => listener.accept().await.expect("an accept").0,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                stream = accepting => self.accepted(stream),
                changed = self.fault.changed() => if changed.is_err() { return },
            }
        }
    }

    fn listen(&self) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.set_nonblocking(true).expect("an option");
        socket.bind(&self.address.into()).expect("the relay's own port");
        socket.listen(1024).expect("a listening socket");
        TcpListener::from_std(socket.into()).expect("a listener")
    }

    fn fill_backlog(&self, listener: &TcpListener) -> Vec<Socket> {
        SockRef::from(listener).listen(0).expect("a shorter backlog");
        let mut fillers = Vec::new();
        for _ in 0..2 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("an option");
            // In progress, by intent.
            let _ = socket.connect(&self.address.into());
            fillers.push(socket);
        }
        self.counters.fire();
        fillers
    }

    fn accepted(&self, stream: TcpStream) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let mut relay = self.clone();
        // Only resets from here on concern this connection.
        relay.resets.mark_unchanged();
        tokio::spawn(async move {
            relay.counters.open.fetch_add(1, Ordering::Relaxed);
            relay.clone().connection(stream).await;
            relay.counters.open.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn connection(mut self, mut near: TcpStream) {
        if matches!(*self.fault.borrow_and_update(), Fault::Reset) {
            self.counters.fire();
            return reset(&near);
        }
        let Ok(mut far) = TcpStream::connect(self.upstream).await else { return reset(&near) };
        let _ = near.set_nodelay(true);
        let _ = far.set_nodelay(true);
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let was_reset = tokio::select! {
            () = async { tokio::join!(self.pump(near_read, far_write, true), self.pump(far_read, near_write, false)); }
                => false,
            () = self.clone().until_reset() => true,
        };
        if was_reset {
            self.counters.fire();
            reset(&near);
            reset(&far);
        }
    }

    async fn until_reset(mut self) {
        let is_over = tokio::select! {
            broken = self.fault.wait_for(|fault| matches!(fault, Fault::Reset | Fault::Refuse)) => broken.is_err(),
            once = self.resets.changed() => once.is_err(),
        };
        if is_over {
            // The relay ends; its connections end with the runtime.
            std::future::pending::<()>().await;
        }
    }

    /// One direction: a reader that stamps each chunk with the time it is due, and a writer that keeps to it.
    async fn pump(&self, reader: ReadHalf<'_>, writer: WriteHalf<'_>, is_request: bool) {
        let (late, due) = mpsc::channel(LATE_CHUNKS_MAX);
        tokio::join!(self.read_side(reader, late, is_request), self.write_side(writer, due, is_request));
    }

    async fn read_side(&self, mut reader: ReadHalf<'_>, late: mpsc::Sender<(Instant, Vec<u8>)>, is_request: bool) {
        let mut buffer = vec![0; 64 * 1024];
        let mut due = Instant::now();
        let mut dice = Dice::new(self.counters.accepted.load(Ordering::Relaxed) * 2 + u64::from(is_request));
        loop {
            let Ok(count @ 1..) = reader.read(&mut buffer).await else { return };
            let fault = self.fault.borrow().clone();
            let mut chunk = buffer[..count].to_vec();
            if !matches!(fault, Fault::Pass | Fault::Loss { .. } | Fault::Jitter { .. }) {
                self.counters.fire();
            }
            let mut delay = Duration::ZERO;
            match fault {
                Fault::BlackHole | Fault::Vanished | Fault::HalfClose => continue,
                Fault::SwallowReplies if !is_request => continue,
                Fault::Delay(by) => delay = by,
                Fault::Throttle { bytes_per_second } => {
                    due = due.max(Instant::now()) + Duration::from_secs_f64(count as f64 / f64::from(bytes_per_second));
                }
                Fault::Loss { share } => delay = self.lost(share, &mut dice),
                Fault::Jitter { share, least, most } if dice.share() < share => {
                    self.counters.fire();
                    delay = least.div_f64((1.0 - dice.share()).powf(1.0 / 1.5)).min(most);
                }
                Fault::Corrupt if !is_request => chunk[0] ^= 0x01,
                Fault::Jitter { .. }
                | Fault::Corrupt
                | Fault::Pass
                | Fault::SwallowReplies
                | Fault::Split { .. }
                | Fault::Reset
                | Fault::Refuse => {}
            }
            // Never before the chunk ahead of it: the stream keeps its order.
            due = due.max(Instant::now() + delay);
            if late.send((due, chunk)).await.is_err() {
                return;
            }
        }
    }

    /// How late a packet is that is lost with this chance, each time that it is sent.
    fn lost(&self, share: f64, dice: &mut Dice) -> Duration {
        let losses = (0..LOSSES_IN_ROW_MAX).take_while(|_| dice.share() < share).count() as u32;
        if losses > 0 {
            self.counters.fire();
        }
        RETRANSMISSION * (2_u32.pow(losses) - 1)
    }

    async fn write_side(
        &self,
        mut writer: WriteHalf<'_>,
        mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
        request: bool,
    ) {
        let mut fault = self.fault.clone();
        let mut is_shut = false;
        loop {
            let next = tokio::select! {
                next = chunks.recv() => next,
                half_closed = until_half_close(&mut fault), if !request && !is_shut => {
                    if !half_closed { return }
                    self.counters.fire();
                    is_shut = true;
                    let _ = writer.shutdown().await;
                    continue;
                }
            };
            let Some((due, chunk)) = next else { break };
            tokio::time::sleep_until(due).await;
            let piece = match *self.fault.borrow() {
                Fault::Split { bytes } => bytes,
                _ => chunk.len(),
            };
            for part in chunk.chunks(piece.max(1)) {
                if writer.write_all(part).await.is_err() {
                    return;
                }
                // Lets the other side see the piece on its own.
                tokio::task::yield_now().await;
            }
        }
        let _ = writer.shutdown().await;
    }
}

/// Waits for the half-close; false when the relay ended instead.
async fn until_half_close(fault: &mut watch::Receiver<Fault>) -> bool {
    fault.wait_for(|fault| *fault == Fault::HalfClose).await.is_ok()
}

/// Closes with an RST.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
