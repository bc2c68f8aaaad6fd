//! Whether two addresses mean the same socket, however they are written: `localhost`, `0.0.0.0`, `[::1]`, `::ffff:...`.
//!
//! Names are not resolved: an answer of today says nothing about the next connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::schema::{Backend, BackendAddress, ListenAddress};

/// Two listeners that cannot both be bound. Port 0 is a port of the kernel's choice, never taken.
pub(super) fn same_listener(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        (ListenAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        (ListenAddress::Tcp(a), ListenAddress::Tcp(b)) => {
            let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
            a.port() == b.port() && a.port() != 0 && (x == y || x.is_unspecified() || y.is_unspecified())
        }
        (ListenAddress::Tcp(_), ListenAddress::Unix(_)) | (ListenAddress::Unix(_), ListenAddress::Tcp(_)) => false,
    }
}

/// Whether connecting to the backend would reach the listener.
pub(super) fn loops_to(backend: &BackendAddress, listener: &ListenAddress) -> bool {
    match (backend, listener) {
        (BackendAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        (BackendAddress::Tcp { host, port }, ListenAddress::Tcp(listener)) => {
            *port == listener.port() && meanings(host).into_iter().any(|ip| reaches(ip, *listener))
        }
        (BackendAddress::Tcp { .. }, ListenAddress::Unix(_))
        | (BackendAddress::Unix(_), ListenAddress::Tcp(_))
        | (BackendAddress::Embedded, _) => false,
    }
}

/// The same server and database, so that flushing one would empty the other.
pub(super) fn same_server(a: &Backend, b: &Backend) -> bool {
    let same_place = match (&a.address, &b.address) {
        (BackendAddress::Tcp { host: x, port: p }, BackendAddress::Tcp { host: y, port: q }) => {
            let (left, right) = (meanings(x), meanings(y));
            p == q && *p != 0 && (x.eq_ignore_ascii_case(y) || left.iter().any(|ip| right.contains(ip)))
        }
        (x, y) => x == y,
    };
    same_place && a.database == b.database
}

/// The addresses that a host stands for without asking anybody: none for a name other than `localhost`.
/// Connecting to 0.0.0.0 or [::] reaches this machine.
fn meanings(host: &str) -> Vec<IpAddr> {
    let both = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return both;
    }
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if ip.is_unspecified() => both,
        Ok(ip) => vec![ip],
        Err(_) => Vec::new(),
    }
}

/// A listener on all addresses is reached by any loopback address; others only by their own.
fn reaches(ip: IpAddr, listener: SocketAddr) -> bool {
    let listening = listener.ip().to_canonical();
    ip == listening || (listening.is_unspecified() && ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn backend(host: &str, port: u16) -> BackendAddress {
        BackendAddress::Tcp { host: host.to_owned(), port }
    }

    fn listener(text: &str) -> ListenAddress {
        ListenAddress::Tcp(text.parse().expect("an address"))
    }

    #[test]
    fn every_spelling_of_a_loop_is_found() {
        for (host, listening) in [
            ("127.0.0.1", "127.0.0.1:6380"),
            ("localhost", "127.0.0.1:6380"),
            ("LOCALHOST.", "[::1]:6380"),
            ("0.0.0.0", "127.0.0.1:6380"),
            ("127.0.0.1", "0.0.0.0:6380"),
            ("127.8.8.8", "0.0.0.0:6380"),
            ("::1", "[::]:6380"),
            ("::1", "[::1]:6380"),
            ("127.0.0.1", "[::]:6380"),
            ("::ffff:127.0.0.1", "127.0.0.1:6380"),
            ("10.0.0.5", "10.0.0.5:6380"),
        ] {
            assert!(loops_to(&backend(host, 6380), &listener(listening)), "{host} {listening}");
            assert!(!loops_to(&backend(host, 6381), &listener(listening)), "another port: {host} {listening}");
        }
    }

    #[test]
    fn another_address_is_no_loop() {
        for (host, listening) in
            [("127.0.0.2", "127.0.0.1:6380"), ("10.0.0.5", "0.0.0.0:6380"), ("cache", "127.0.0.1:6380")]
        {
            assert!(!loops_to(&backend(host, 6380), &listener(listening)), "{host} {listening}");
        }
    }

    #[test]
    fn listeners_collide_by_port_and_overlapping_address() {
        assert!(same_listener(&listener("127.0.0.1:1"), &listener("0.0.0.0:1")));
        assert!(same_listener(&listener("[::]:1"), &listener("127.0.0.1:1")));
        assert!(!same_listener(&listener("127.0.0.1:1"), &listener("127.0.0.2:1")));
        assert!(!same_listener(&listener("127.0.0.1:0"), &listener("127.0.0.1:0")));
        assert!(same_listener(&ListenAddress::Unix("/a".into()), &ListenAddress::Unix("/a".into())));
        assert!(!same_listener(&ListenAddress::Unix("/a".into()), &listener("127.0.0.1:1")));
    }

    #[test]
    fn one_server_under_two_names_is_the_same_unless_the_database_differs() {
        let a = Backend::new("a", Role::Primary, "localhost", 6379);
        let mut b = Backend::new("b", Role::Backup, "127.0.0.1", 6379);
        assert!(same_server(&a, &b));
        b.database = 1;
        assert!(!same_server(&a, &b));
        assert!(same_server(
            &Backend::new("a", Role::Primary, "Cache.internal", 6379),
            &Backend::new("b", Role::Backup, "cache.internal", 6379)
        ));
    }
}
