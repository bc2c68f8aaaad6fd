//! Ports that stay ours across a restart of the server behind them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's ephemeral range (32768 up): a port from inside it may be given to any outgoing connection while its
/// server is down, and a client that keeps dialling it can even end up connected to itself.
const PORT_FIRST: u16 = 12_000;
const PORT_COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A TCP port of the loopback address that no other test process takes while this lives.
///
/// The reservation is a UDP socket bound to the same number, which never gets in the way of the TCP server.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    number: u16,
    _reservation: UdpSocket,
}

impl ReservedPort {
    /// Finds a free port; panics when there is none.
    pub(crate) fn new() -> Self {
        // Each process starts elsewhere, so that parallel tests rarely try the same number.
        let start = (std::process::id() as u16).wrapping_mul(37);
        for _ in 0..PORT_COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = PORT_FIRST + start.wrapping_add(step) % PORT_COUNT;
            let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("no free port between {PORT_FIRST} and {}", PORT_FIRST + PORT_COUNT);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}
