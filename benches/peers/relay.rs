//! The barest proxy there can be: two threads per connection that copy bytes, one each way, and understand nothing. What it
//! adds to a request is what any program between two sockets adds on this machine (`peers_bench.py --only relay,...`).
//!
//!     relay LISTEN_PORT BACKEND_PORT

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn main() -> std::io::Result<()> {
    let ports: Vec<u16> = std::env::args().skip(1).map(|port| port.parse().expect("a port")).collect();
    let listener = TcpListener::bind(("127.0.0.1", ports[0]))?;
    for client in listener.incoming() {
        let (client, backend) = (client?, TcpStream::connect(("127.0.0.1", ports[1]))?);
        client.set_nodelay(true)?;
        backend.set_nodelay(true)?;
        let (client_too, backend_too) = (client.try_clone()?, backend.try_clone()?);
        thread::spawn(move || copy(client_too, backend_too));
        thread::spawn(move || copy(backend, client));
    }
    Ok(())
}
