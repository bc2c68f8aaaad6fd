//! Addresses as people write them: `host:port`, `unix:/path`, `redis://user:password@host:port/3`, `embedded`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::schema::{BackendAddress, HostPort};
use super::secret::Secret;
use super::value::{Value, Variables};

/// Longest path of a Unix socket: `sun_path` has 108 bytes with the closing zero.
const UNIX_PATH_BYTES_MAX: usize = 107;
/// Where a URL without a port points, as every Redis client has it.
const REDIS_PORT: u16 = 6379;

/// What one `address` of a backend says; a URL may say more than where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) address: BackendAddress,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<u32>,
    pub(super) tls: bool,
}

impl Target {
    fn plain(address: BackendAddress) -> Self {
        Self { address, username: None, password: None, database: None, tls: false }
    }
}

impl Value for Target {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        if text == "embedded" {
            return Ok(Self::plain(BackendAddress::Embedded));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(BackendAddress::Unix).map(Self::plain);
        }
        match text.split_once("://") {
            Some(("redis" | "valkey", rest)) => url(rest, false),
            Some(("rediss" | "valkeys", rest)) => url(rest, true),
            // The text is not repeated: it may carry a password.
            Some(_) => Err("this kind of URL is not known; write redis://, rediss://, host:port or unix:/path".into()),
            None if text.contains('@') => Err("a password belongs into a redis:// URL or into `password`".to_owned()),
            None => host_port(text).map(|(host, port)| Self::plain(BackendAddress::Tcp { host, port })),
        }
    }

    fn kind() -> String {
        "an address".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{}\"", self.address)
    }
}

impl Value for HostPort {
    fn from_text(text: &str, _: &Variables) -> Result<Self, String> {
        let (host, port) = host_port(text).map_err(|_| format!("\"{text}\" is no address; write \"host:6379\""))?;
        Ok(Self { host, port })
    }

    fn kind() -> String {
        "an address".to_owned()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// An address to listen on: an IP address or `localhost`, with its port. Port 0 lets the kernel choose.
pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.rsplit_once(':') {
        Some(("localhost", port)) => {
            let port = port.parse().map_err(|_| format!("\"{port}\" is no port; write a number up to 65535"))?;
            Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        }
        Some(("" | "*", port)) => Err(format!("\"{text}\" names no address; write \"0.0.0.0:{port}\" for all of them")),
        _ => Err(format!("\"{text}\" is no address to listen on; write \"127.0.0.1:6380\", with an IP and a port")),
    }
}

/// The path of a Unix socket, absolute and short enough for the kernel. `unix:///path` is taken too.
pub(super) fn unix(path: &str) -> Result<PathBuf, String> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') {
        return Err(format!("\"unix:{path}\" has no absolute path; write \"unix:/run/standin.sock\""));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!("the path is longer than {UNIX_PATH_BYTES_MAX} bytes, which no system takes; shorten it"));
    }
    Ok(PathBuf::from(path))
}

fn host_port(text: &str) -> Result<(String, u16), String> {
    let wrong =
        || format!("\"{text}\" is no address; write \"host:6379\", \"unix:/path\", a redis:// URL or \"embedded\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host_name(host).ok_or_else(wrong)?;
    match port.parse() {
        Ok(0) => Err("port 0 is no port to connect to; write the server's port".to_owned()),
        Ok(port) => Ok((host, port)),
        Err(_) => Err(format!("\"{port}\" is no port; write a number up to 65535")),
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets, which are taken off.
fn host_name(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().ok().map(|_| inner.to_owned());
    }
    let named = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (named && !host.is_empty() && host.len() <= 253).then(|| host.to_owned())
}

/// `[user[:password]@]host[:port][/database]`. No error repeats what may be a password.
fn url(rest: &str, tls: bool) -> Result<Target, String> {
    let (before, query) = rest.split_once(['?', '#']).map_or((rest, None), |(before, query)| (before, Some(query)));
    if query.is_some() {
        return Err("a URL's part after `?` or `#` is not read; use the backend's own keys, like `database`".to_owned());
    }
    let (credentials, place) = before.rsplit_once('@').map_or((None, before), |(front, back)| (Some(front), back));
    let (place, path) = place.split_once('/').unwrap_or((place, ""));
    let database = match path {
        "" => None,
        digits => Some(digits.parse().map_err(|_| "a URL's path is a database's number; write redis://host:6379/0")?),
    };
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let (host, port) = if has_port { host_port(place)? } else { host_port(&format!("{place}:{REDIS_PORT}"))? };
    let (username, password) = match credentials {
        None => (None, None),
        Some(both) => {
            let (user, password) = both.split_once(':').map_or((both, None), |(user, word)| (user, Some(word)));
            (Some(decoded(user)?).filter(|user| !user.is_empty()), password.map(decoded).transpose()?)
        }
    };
    let password = password.filter(|password| !password.is_empty()).map(Secret::literal);
    Ok(Target { address: BackendAddress::Tcp { host, port }, username, password, database, tls })
}

/// Percent-decoding.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "the URL's user or password has a `%` that begins no code; write %25 for a `%`".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(wrong);
        let code = digit()? * 16 + digit()?;
        bytes.push(code as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use secrecy::ExposeSecret;

    use super::*;

    fn target(text: &str) -> Result<Target, String> {
        Target::from_text(text, &Variables::new())
    }

    fn tcp(host: &str, port: u16) -> BackendAddress {
        BackendAddress::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_of_a_backend_address_is_read() {
        for (text, address) in [
            ("127.0.0.1:6379", tcp("127.0.0.1", 6379)),
            ("cache.internal:7000", tcp("cache.internal", 7000)),
            ("[::1]:6379", tcp("::1", 6379)),
            ("unix:/run/redis.sock", BackendAddress::Unix("/run/redis.sock".into())),
            ("unix:///run/redis.sock", BackendAddress::Unix("/run/redis.sock".into())),
            ("redis://cache", tcp("cache", 6379)),
            ("redis://[::1]", tcp("::1", 6379)),
            ("redis://[::1]:7000/2", tcp("::1", 7000)),
            ("embedded", BackendAddress::Embedded),
        ] {
            assert_eq!(target(text).unwrap().address, address, "{text}");
        }
    }

    #[test]
    fn a_url_brings_user_password_database_and_tls() {
        let target = target("rediss://app:p%40ss%3Aword@cache:6390/3").unwrap();
        assert_eq!(target.address, tcp("cache", 6390));
        assert_eq!(target.username.as_deref(), Some("app"));
        assert_eq!(target.password.unwrap().read().unwrap().expose_secret(), "p@ss:word");
        assert_eq!(target.database, Some(3));
        assert!(target.tls);
    }

    #[test]
    fn a_url_with_a_password_alone_has_no_user() {
        let target = target("redis://:secret@cache").unwrap();
        assert_eq!(target.username, None);
        assert_eq!(target.password.unwrap().read().unwrap().expose_secret(), "secret");
    }

    #[test]
    fn wrong_addresses_are_refused_without_repeating_a_password() {
        for text in [
            "",
            "cache",
            "cache:",
            "cache:0",
            "cache:65536",
            ":6379",
            "::1:6379",
            "a b:1",
            "unix:relative",
            "http://x:1",
            "redis://:hunter2@",
            "redis://u:hunter2@h:x",
            "redis://u:hunter2@h/db",
            "redis://u:hunter2%@h",
            "redis://u:hunter2@h?db=1",
            "u:hunter2@h:1",
        ] {
            let error = target(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn listening_takes_an_ip_and_a_port_or_localhost() {
        assert_eq!(socket("127.0.0.1:6380").unwrap().to_string(), "127.0.0.1:6380");
        assert_eq!(socket("[::]:0").unwrap().to_string(), "[::]:0");
        assert_eq!(socket("localhost:6380").unwrap().to_string(), "127.0.0.1:6380");
        assert!(socket(":6380").unwrap_err().contains("0.0.0.0:6380"));
        for text in ["6380", "cache:6380", "127.0.0.1", "127.0.0.1:99999", "localhost:x"] {
            assert!(socket(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_unix_path_that_the_kernel_would_cut_is_refused() {
        assert!(unix(&format!("/{}", "x".repeat(106))).is_ok());
        assert!(unix(&format!("/{}", "x".repeat(107))).is_err());
    }
}
