//! A small blocking RESP client that reads RESP2 and RESP3 and never hides anything: no reconnects, no retries.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No reply takes longer in any test; a client that waits longer fails instead of hanging the run.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// One reply or push as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and `_` alike.
    Nil,
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Push(Vec<Reply>),
    Boolean(bool),
    /// Kept as text: no test computes with it.
    Double(String),
    BigNumber(String),
}

impl Reply {
    pub(crate) fn bulk(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }

    pub(crate) fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    /// The text of a simple string, bulk, error, double or big number; empty for the rest.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) | Self::Double(text) | Self::BigNumber(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Nil | Self::Array(_) | Self::Set(_) | Self::Map(_) | Self::Push(_) | Self::Boolean(_) => {
                String::new()
            }
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Whether this is an error whose first word is `word`.
    pub(crate) fn is_error_word(&self, word: &str) -> bool {
        matches!(self, Self::Error(text) if text.split(' ').next() == Some(word))
    }

    #[track_caller]
    pub(crate) fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("an integer was expected, not {other:?}"),
        }
    }

    /// The elements of an array, a set or a push.
    #[track_caller]
    pub(crate) fn elements(&self) -> &[Reply] {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) => elements,
            other => panic!("an array was expected, not {other:?}"),
        }
    }

    /// The value at `key` of a RESP3 map, or of a RESP2 array of pairs.
    pub(crate) fn field(&self, key: &str) -> Option<&Reply> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(name, _)| name.text() == key).map(|(_, value)| value),
            Self::Array(flat) => flat.chunks(2).find(|pair| pair[0].text() == key).and_then(|pair| pair.get(1)),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One blocking connection.
#[derive(Debug)]
pub(crate) struct Client {
    writer: Stream,
    reader: BufReader<Stream>,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        Ok(Self { reader: BufReader::new(Stream::Tcp(stream.try_clone()?)), writer: Stream::Tcp(stream) })
    }

    /// As [`Client::connect`], speaking RESP3 from here on.
    #[track_caller]
    pub(crate) fn connect_resp3(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        let hello = client.command(&["HELLO", "3"]);
        assert!(matches!(hello, Reply::Map(_)), "HELLO 3 answered {hello:?}");
        client
    }

    pub(crate) fn connect_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Self { reader: BufReader::new(Stream::Unix(stream.try_clone()?)), writer: Stream::Unix(stream) })
    }

    /// Waits at most this long for each reply from here on.
    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        let set = match &self.writer {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        };
        set.expect("a timeout that is not zero");
    }

    /// Sends one command and reads its reply; panics when the connection fails.
    #[track_caller]
    pub(crate) fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        let name = String::from_utf8_lossy(arguments[0].as_ref()).into_owned();
        self.try_command(arguments).unwrap_or_else(|error| panic!("{name}: the connection failed: {error}"))
    }

    pub(crate) fn try_command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        self.try_send(arguments)?;
        self.try_read()
    }

    /// Sends one command without waiting for its reply.
    #[track_caller]
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) {
        self.try_send(arguments).expect("the connection takes a request");
    }

    pub(crate) fn try_send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<()> {
        self.try_send_raw(&encode(arguments))
    }

    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).expect("the connection takes bytes");
    }

    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.writer {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// The next reply or push; panics when the connection fails.
    #[track_caller]
    pub(crate) fn read(&mut self) -> Reply {
        self.try_read().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub(crate) fn try_read(&mut self) -> io::Result<Reply> {
        read_reply(&mut self.reader)
    }

    /// Reads up to the end of the connection and says whether it ended (also by a reset) within the read timeout.
    pub(crate) fn is_closed_by_peer(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match self.reader.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => return true,
            }
        }
    }

    /// Tells the peer that no more will be written.
    pub(crate) fn half_close(&self) {
        let done = match &self.writer {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        done.expect("an open connection");
    }

    /// A second handle that only writes, for tests that write and read at the same time.
    pub(crate) fn writer(&self) -> Box<dyn Write + Send> {
        match &self.writer {
            Stream::Tcp(stream) => Box::new(stream.try_clone().expect("a handle")),
            Stream::Unix(stream) => Box::new(stream.try_clone().expect("a handle")),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

/// The request as an array of bulk strings.
pub(crate) fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {what}"))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer"));
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| malformed("a line without its end"))?;
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn read_bulk(reader: &mut impl BufRead, length: i64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| malformed("a negative length"))?;
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes)?;
    if !bytes.ends_with(b"\r\n") {
        return Err(malformed("a bulk string without its end"));
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn read_elements(reader: &mut impl BufRead, count: i64) -> io::Result<Vec<Reply>> {
    (0..count).map(|_| read_reply(reader)).collect()
}

/// One whole reply. Recursive, which is fine for a server that we started ourselves.
fn read_reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let line = read_line(reader)?;
    let rest = line.get(1..).ok_or_else(|| malformed("an empty line"))?;
    let number = || rest.parse::<i64>().map_err(|_| malformed(&line));
    Ok(match line.as_bytes()[0] {
        b'+' => Reply::Simple(rest.to_owned()),
        b'-' => Reply::Error(rest.to_owned()),
        b'!' => Reply::Error(String::from_utf8_lossy(&read_bulk(reader, number()?)?).into_owned()),
        b':' => Reply::Integer(number()?),
        b'_' => Reply::Nil,
        b'$' | b'*' if rest == "-1" => Reply::Nil,
        b'$' => Reply::Bulk(read_bulk(reader, number()?)?),
        // A verbatim string starts with its three-letter format and a colon.
        b'=' => Reply::Bulk(read_bulk(reader, number()?)?.split_off(4)),
        b'*' => Reply::Array(read_elements(reader, number()?)?),
        b'~' => Reply::Set(read_elements(reader, number()?)?),
        b'>' => Reply::Push(read_elements(reader, number()?)?),
        b'%' => {
            let mut pairs = Vec::new();
            for _ in 0..number()? {
                pairs.push((read_reply(reader)?, read_reply(reader)?));
            }
            Reply::Map(pairs)
        }
        b'#' => Reply::Boolean(rest == "t"),
        b',' => Reply::Double(rest.to_owned()),
        b'(' => Reply::BigNumber(rest.to_owned()),
        _ => return Err(malformed(&line)),
    })
}
