//! A plain question-and-answer connection: handshakes, probes, checks, reconciliation. Not the data path.
//!
//! Replies are decoded by `redis-protocol`, but only after the scanner has found and capped their bounds.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes as decode_resp2;
use redis_protocol::resp2::types::BytesFrame as Frame2;
use redis_protocol::resp3::decode::complete::decode_bytes as decode_resp3;
use redis_protocol::resp3::types::BytesFrame as Frame3;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::io::Io;
use crate::resp::{self, FrameLimits, ReplyScanner};

/// A decoded reply, without the differences between RESP2 and RESP3 that nobody here needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Null,
    Array(Vec<Self>),
    /// Keys and values in turn.
    Map(Vec<Self>),
    /// A type that none of our own questions is answered with.
    Other,
}

impl Reply {
    /// The text of a status, bulk or verbatim reply.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Status(text) => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The integer of an integer reply.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(n) = self { Some(*n) } else { None }
    }

    /// The text of an error reply.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        if let Self::Error(text) = self { Some(text) } else { None }
    }

    /// The elements of an array or map.
    #[must_use]
    pub fn elements(&self) -> Option<&[Self]> {
        if let Self::Array(elements) | Self::Map(elements) = self { Some(elements) } else { None }
    }

    /// Decodes one complete reply whose bounds have been checked.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Self {
        let simple = matches!(bytes.first(), Some(b'+' | b'-' | b':' | b'$' | b'*'));
        if simple && let Ok(Some((frame, _))) = decode_resp2(bytes) {
            return Self::from_resp2(frame);
        }
        match decode_resp3(bytes) {
            Ok(Some((frame, _))) => Self::from_resp3(frame),
            _ => Self::Other,
        }
    }

    fn from_resp2(frame: Frame2) -> Self {
        match frame {
            Frame2::SimpleString(bytes) => Self::Status(String::from_utf8_lossy(&bytes).into_owned()),
            Frame2::Error(text) => Self::Error(text.to_string()),
            Frame2::Integer(n) => Self::Integer(n),
            Frame2::BulkString(bytes) => Self::Bulk(bytes),
            Frame2::Array(elements) => Self::Array(elements.into_iter().map(Self::from_resp2).collect()),
            Frame2::Null => Self::Null,
        }
    }

    fn from_resp3(frame: Frame3) -> Self {
        match frame {
            Frame3::BlobString { data, .. } | Frame3::VerbatimString { data, .. } => Self::Bulk(data),
            Frame3::SimpleString { data, .. } => Self::Status(String::from_utf8_lossy(&data).into_owned()),
            Frame3::SimpleError { data, .. } => Self::Error(data.to_string()),
            Frame3::BlobError { data, .. } => Self::Error(String::from_utf8_lossy(&data).into_owned()),
            Frame3::Number { data, .. } => Self::Integer(data),
            Frame3::Boolean { data, .. } => Self::Integer(i64::from(data)),
            Frame3::Null => Self::Null,
            Frame3::Array { data, .. } | Frame3::Push { data, .. } => {
                Self::Array(data.into_iter().map(Self::from_resp3).collect())
            }
            Frame3::Map { data, .. } => {
                Self::Map(data.into_iter().flat_map(|(k, v)| [Self::from_resp3(k), Self::from_resp3(v)]).collect())
            }
            Frame3::Set { data, .. } => Self::Array(data.into_iter().map(Self::from_resp3).collect()),
            Frame3::Double { .. } | Frame3::BigNumber { .. } | Frame3::Hello { .. } | Frame3::ChunkedString(_) => {
                Self::Other
            }
        }
    }
}

/// A connection on which requests are asked in batches and their replies awaited.
pub struct Conversation {
    io: Io,
    buffer: BytesMut,
    scanner: ReplyScanner,
    limits: FrameLimits,
}

impl Conversation {
    /// Takes a fresh connection.
    #[must_use]
    pub fn new(io: Io) -> Self {
        Self { io, buffer: BytesMut::new(), scanner: ReplyScanner::default(), limits: FrameLimits::default() }
    }

    /// Our end of the connection, if it is TCP.
    #[must_use]
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.io.local_address()
    }

    /// Gives the connection back; `None` if bytes that nobody asked for have arrived.
    #[must_use]
    pub fn into_io(self) -> Option<Io> {
        self.buffer.is_empty().then_some(self.io)
    }

    /// Sends one batch in one write and reads one reply for each request; pushes in between are dropped.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for broken frames; `UnexpectedEof` when the server closes.
    pub async fn ask<A: AsRef<[u8]>>(&mut self, requests: &[Vec<A>]) -> io::Result<Vec<Reply>> {
        let mut out = Vec::with_capacity(64 * requests.len());
        for request in requests {
            let arguments: Vec<&[u8]> = request.iter().map(AsRef::as_ref).collect();
            resp::encode_request(&mut out, &arguments);
        }
        self.io.write_all(&out).await?;
        self.io.flush().await?;
        let mut replies = Vec::with_capacity(requests.len());
        while replies.len() < requests.len() {
            let frame = self.read_frame().await?;
            if !frame.first().is_some_and(|first| resp::is_push(*first)) {
                replies.push(Reply::decode(&frame));
            }
        }
        Ok(replies)
    }

    /// [`Self::ask`] for one request.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_one<A: AsRef<[u8]> + Clone>(&mut self, request: &[A]) -> io::Result<Reply> {
        let mut replies = self.ask(&[request.to_vec()]).await?;
        replies.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// [`Self::ask`] with a bound in time; `TimedOut` when it passes.
    ///
    /// # Errors
    /// As [`Self::ask`], and `TimedOut`.
    pub async fn ask_within<A: AsRef<[u8]>>(&mut self, bound: Duration, requests: &[Vec<A>]) -> io::Result<Vec<Reply>> {
        tokio::time::timeout(bound, self.ask(requests)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends requests whose replies [`Self::next`] brings.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send<A: AsRef<[u8]>>(&mut self, requests: &[Vec<A>]) -> io::Result<()> {
        let mut out = Vec::new();
        for request in requests {
            let arguments: Vec<&[u8]> = request.iter().map(AsRef::as_ref).collect();
            resp::encode_request(&mut out, &arguments);
        }
        self.io.write_all(&out).await?;
        self.io.flush().await
    }

    /// The next frame, and whether it is a push; cancel-safe.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for broken frames; `UnexpectedEof` when the server closes.
    pub async fn next(&mut self) -> io::Result<(bool, Reply)> {
        let frame = self.read_frame().await?;
        let is_push = frame.first().is_some_and(|first| resp::is_push(*first));
        Ok((is_push, Reply::decode(&frame)))
    }

    /// Waits until the server closes the connection, or sends what was not asked for; cancel-safe.
    pub async fn wait_closed(&mut self) {
        loop {
            match self.io.read_buf(&mut self.buffer).await {
                Ok(n) if n > 0 && self.buffer.first().is_some_and(|first| resp::is_push(*first)) => {
                    // A push is no answer and no end.
                    let _ = self
                        .scanner
                        .scan(&self.buffer, &self.limits)
                        .map(|len| len.map(|len| self.buffer.split_to(len)));
                }
                _ => return,
            }
        }
    }

    async fn read_frame(&mut self) -> io::Result<Bytes> {
        loop {
            let scanned = self.scanner.scan(&self.buffer, &self.limits);
            match scanned.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                Some(len) => return Ok(self.buffer.split_to(len).freeze()),
                None => {
                    if self.io.read_buf(&mut self.buffer).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}
