//! The connection on which a mirrored backend is fed. Once a millisecond it writes what has come and reads the answers:
//! the batches are large, and nobody waits for one of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{MirrorControl, now_us};
use crate::backend::{self, Depth, Io, Lane};
use crate::control::shared::Shared;
use crate::divergence::{Chunk, Mirror, Record};
use crate::limits::READ_CHUNK_BYTES;
use crate::policy::BackendId;
use crate::resp::{FrameLimits, Protocol, ReplyScanner, error_word};

/// Between two turns.
const TURN: Duration = Duration::from_millis(1);
/// Turns without work after which the workers must wake us.
const TURNS_IDLE: u32 = 10;
/// A connection that nothing is written on is looked at this often.
const IDLE_LOOK: Duration = Duration::from_millis(100);

pub(super) struct Stream {
    io: Io,
    client_id: u64,
    /// A backend that leaves requests unanswered for so long is not kept in step.
    silence_max_us: u64,
    chunks: VecDeque<Sent>,
    /// Bytes of `chunks` that were written: all of those before `writing`, and `written` of that one.
    writing: usize,
    written: usize,
    buffer: Vec<u8>,
    filled: usize,
    scanner: ReplyScanner,
    limits: FrameLimits,
}

struct Sent {
    chunk: Chunk,
    answered: usize,
}

impl Stream {
    /// Connects, if the server is the one that was looked at.
    pub(super) async fn connect(shared: &Rc<Shared>, id: BackendId) -> Result<Self, String> {
        let backend = shared.group.backend(id);
        let lane = Lane { database: 0, protocol: Protocol::Resp2, user: 0 };
        let login = backend.target.login.clone();
        let ready = backend::connect(backend, lane, &login, Depth::Whole).await.map_err(|error| error.to_string())?;
        let known = shared.facts.borrow()[id.index()].identity.clone();
        if !known.is_some_and(|known| known.same_content(&ready.identity)) {
            return Err("it is another server than the one that was looked at".to_owned());
        }
        let io = ready.conversation.into_io().ok_or_else(|| "it sent what nobody asked for".to_owned())?;
        Ok(Self {
            io,
            client_id: ready.client_id,
            silence_max_us: backend.timing.request.as_micros() as u64,
            chunks: VecDeque::new(),
            writing: 0,
            written: 0,
            buffer: vec![0; READ_CHUNK_BYTES],
            filled: 0,
            scanner: ReplyScanner::default(),
            limits: FrameLimits::default(),
        })
    }

    pub(super) fn client_id(&self) -> u64 {
        self.client_id
    }

    /// Whether every request was answered.
    pub(super) fn is_drained(&self) -> bool {
        self.chunks.is_empty()
    }

    /// What was not answered.
    pub(super) fn unanswered(&mut self) -> impl Iterator<Item = Vec<u8>> + use<> {
        std::mem::take(&mut self.chunks).into_iter().map(|sent| sent.chunk.bytes)
    }

    /// Feeds until something fails, which it returns.
    pub(super) async fn run(&mut self, mirror: &Mirror, record: &Record, control: &MirrorControl) -> String {
        let mut idle = 0;
        loop {
            idle = if self.chunks.is_empty() { idle + 1 } else { 0 };
            if let Err(why) = self.turn(mirror, record, control).await {
                return why;
            }
            if idle > TURNS_IDLE {
                tokio::select! {
                    () = mirror.wait() => idle = 0,
                    () = tokio::time::sleep(IDLE_LOOK) => {}
                }
                if !record.is_without_keys() {
                    control.keys.notify_one();
                }
            } else {
                tokio::time::sleep(TURN).await;
            }
        }
    }

    /// Feeds until nothing waits any more.
    pub(super) async fn drain(&mut self, mirror: &Mirror, record: &Record, control: &MirrorControl) {
        loop {
            if self.turn(mirror, record, control).await.is_err() || mirror.waiting().requests == 0 {
                return;
            }
            tokio::time::sleep(TURN).await;
        }
    }

    /// Writes what the socket takes and reads what it has.
    async fn turn(&mut self, mirror: &Mirror, record: &Record, control: &MirrorControl) -> Result<(), String> {
        if let Some(chunk) = mirror.take_out() {
            self.chunks.push_back(Sent { chunk, answered: 0 });
        }
        self.write().await?;
        self.read(mirror, record, control).await?;
        match self.chunks.front() {
            Some(oldest) if now_us().saturating_sub(oldest.chunk.since_us) > self.silence_max_us => {
                let seconds = self.silence_max_us as f64 / 1e6;
                Err(format!("it has not answered a mirrored write for {seconds} s"))
            }
            _ => Ok(()),
        }
    }

    async fn write(&mut self) -> Result<(), String> {
        poll_fn(|cx| {
            while let Some(sent) = self.chunks.get(self.writing) {
                let rest = &sent.chunk.bytes[self.written..];
                if rest.is_empty() {
                    self.writing += 1;
                    self.written = 0;
                    continue;
                }
                match Pin::new(&mut self.io).poll_write(cx, rest) {
                    Poll::Ready(Ok(n)) if n > 0 => self.written += n,
                    Poll::Ready(Ok(_)) => return Poll::Ready(Err("its connection was closed".to_owned())),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
                    Poll::Pending => break,
                }
            }
            let _ = Pin::new(&mut self.io).poll_flush(cx);
            Poll::Ready(Ok(()))
        })
        .await
    }

    async fn read(&mut self, mirror: &Mirror, record: &Record, control: &MirrorControl) -> Result<(), String> {
        loop {
            let n = poll_fn(|cx| {
                let mut space = ReadBuf::new(&mut self.buffer[self.filled..]);
                match Pin::new(&mut self.io).poll_read(cx, &mut space) {
                    Poll::Ready(Ok(())) => match space.filled().len() {
                        0 => Poll::Ready(Err("its connection was closed".to_owned())),
                        n => Poll::Ready(Ok(n)),
                    },
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error.to_string())),
                    Poll::Pending => Poll::Ready(Ok(0)),
                }
            })
            .await?;
            if n == 0 {
                return Ok(());
            }
            self.filled += n;
            self.cut(mirror, record, control)?;
        }
    }

    fn cut(&mut self, mirror: &Mirror, record: &Record, control: &MirrorControl) -> Result<(), String> {
        let mut start = 0;
        while start < self.filled {
            let scanned = self.scanner.scan(&self.buffer[start..self.filled], &self.limits);
            let Some(len) = scanned.map_err(|error| error.to_string())? else { break };
            let end = start + len;
            if self.buffer[start] == b'-' {
                let reply = String::from_utf8_lossy(&self.buffer[start..end]).trim_end().to_owned();
                self.refused(&reply, mirror, record, control)?;
            }
            start = end;
            self.answered(mirror)?;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        Ok(())
    }

    fn answered(&mut self, mirror: &Mirror) -> Result<(), String> {
        let first = self.chunks.front_mut().ok_or_else(|| "it sent what nobody asked for".to_owned())?;
        first.answered += 1;
        if first.answered < first.chunk.requests {
            return Ok(());
        }
        let done = self.chunks.pop_front();
        self.writing = self.writing.saturating_sub(1);
        let next = self.chunks.front().map_or(0, |next| next.chunk.since_us);
        if let Some(done) = done {
            mirror.answered(&done.chunk, next);
        }
        Ok(())
    }

    /// A request was refused. What the server lacks room or a command for is copied, and what cannot be copied is removed;
    /// one that takes no writes at all is not kept in step.
    fn refused(
        &mut self,
        reply: &str,
        mirror: &Mirror,
        record: &Record,
        control: &MirrorControl,
    ) -> Result<(), String> {
        let Some(sent) = self.chunks.front() else { return Err("it sent what nobody asked for".to_owned()) };
        let is_copy = |word: &[u8]| word.eq_ignore_ascii_case(b"restore");
        match mirror.request_of(&sent.chunk.bytes, sent.answered) {
            Some((database, name, key)) if is_copy(&name) => {
                tracing::debug!(reply, "a value could not be copied to a mirrored backend; it is removed there");
                control.removed.set(control.removed.get() + 1);
                let mut unlink = Vec::new();
                crate::resp::encode_request(&mut unlink, &[b"UNLINK", &key]);
                mirror.put(database, &unlink, now_us());
            }
            Some((_, name, _)) if name.eq_ignore_ascii_case(b"unlink") || name.eq_ignore_ascii_case(b"select") => {
                return Err(format!("it refuses {}: {reply}", String::from_utf8_lossy(&name)));
            }
            _ if matches!(error_word(reply.as_bytes()), Some(b"READONLY" | b"NOAUTH" | b"LOADING" | b"MISCONF")) => {
                return Err(format!("it takes no writes: {reply}"));
            }
            _ => {
                mirror.enter(record, &sent.chunk.bytes, sent.answered);
                control.keys.notify_one();
            }
        }
        Ok(())
    }
}
