//! A relay that understands what it carries: it lets some commands be slow, or answers them with an error, and leaves all
//! others alone. That is how a gray failure looks: PING is well, GET is not.
//!
//! Each request has one reply and replies keep their order, as on any connection: what comes behind a slow command on the
//! same connection waits for it. A request that is answered here never reaches the server, since the errors that matter
//! (LOADING, OOM, READONLY) mean that nothing was executed. Subscriptions are not for this relay.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::dice::Dice;

/// Which requests, and what becomes of them.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    names: Vec<String>,
    key_prefix: String,
    share: f64,
    left: Option<Arc<AtomicU64>>,
    effect: Effect,
}

#[derive(Debug, Clone)]
enum Effect {
    /// The reply comes this long after the request, or later.
    Delay(Duration),
    /// This error instead of the server's reply.
    Answer(String),
    /// This value instead of the server's reply.
    Value(String),
}

impl Rule {
    /// Commands of these names (upper case) are answered this much later.
    pub(crate) fn delay(names: &[&str], delay: Duration) -> Self {
        Self::new(names, Effect::Delay(delay))
    }

    /// Commands of these names (upper case) are answered with this error, and not executed.
    pub(crate) fn error(names: &[&str], text: &str) -> Self {
        Self::new(names, Effect::Answer(text.to_owned()))
    }

    /// Commands of these names (upper case) are answered with this value, whatever the server holds.
    pub(crate) fn value(names: &[&str], text: &str) -> Self {
        Self::new(names, Effect::Value(text.to_owned()))
    }

    fn new(names: &[&str], effect: Effect) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Self { names, key_prefix: String::new(), share: 1.0, left: None, effect }
    }

    /// Only where the first key begins so.
    pub(crate) fn keys(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.key_prefix);
        self
    }

    /// Only this share of them, 0 to 1, by chance.
    pub(crate) fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Only the first of them.
    pub(crate) fn once(mut self) -> Self {
        self.left = Some(Arc::new(AtomicU64::new(1)));
        self
    }

    fn concerns(&self, request: &Request, dice: &mut Dice) -> bool {
        self.names.contains(&request.name)
            && request.key.starts_with(self.key_prefix.as_bytes())
            && dice.share() < self.share
            && self.left.as_ref().is_none_or(|left| {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            })
    }
}

/// A relay with an address of its own. Ends with its value.
#[derive(Debug)]
pub(crate) struct CommandRelay {
    address: SocketAddr,
    rules: watch::Sender<Vec<Rule>>,
    fired: Arc<AtomicU64>,
}

impl CommandRelay {
    /// Listens on a free port and forwards to `upstream`.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let port = super::port::ReservedPort::new();
        let address = port.address();
        let (rules, watched) = watch::channel(Vec::new());
        let fired = Arc::new(AtomicU64::new(0));
        let relay = Relay { upstream, rules: watched, fired: Arc::clone(&fired) };
        let (bound, is_bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // The reservation lives as long as the relay, which ends when the sender of rules is dropped.
            let _port = port;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(tokio::task::LocalSet::new().run_until(relay.run(address, bound)));
        });
        is_bound.recv().expect("the relay listens");
        Self { address, rules, fired }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for requests that arrive from now on.
    pub(crate) fn set(&self, rules: &[Rule]) {
        self.rules.send_replace(rules.to_vec());
    }

    pub(crate) fn heal(&self) {
        self.set(&[]);
    }

    /// Requests that a rule concerned.
    pub(crate) fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    /// A test whose fault never acted has shown nothing.
    #[track_caller]
    pub(crate) fn assert_fired(&self) {
        assert!(self.fired() > 0, "the fault never acted");
    }

    /// As [`CommandRelay::assert_fired`], waiting for it: probes come twice a second.
    #[track_caller]
    pub(crate) fn assert_eventually_fired(&self) {
        super::eventually(Duration::from_secs(5), "the fault acts", || self.fired() > 0);
    }
}

/// The relay's own side.
#[derive(Clone)]
struct Relay {
    upstream: SocketAddr,
    rules: watch::Receiver<Vec<Rule>>,
    fired: Arc<AtomicU64>,
}

/// What is owed to the client, in the order of its requests.
#[derive(Default)]
struct Owed {
    replies: RefCell<VecDeque<OwedReply>>,
    news: Notify,
}

struct OwedReply {
    due: Instant,
    /// Instead of the server's.
    answer: Option<Vec<u8>>,
}

/// What a rule may look at.
struct Request {
    name: String,
    key: Vec<u8>,
}

impl Relay {
    async fn run(mut self, address: SocketAddr, bound: std::sync::mpsc::Sender<()>) {
        let listener = TcpListener::bind(address).await.expect("the relay's own port");
        bound.send(()).expect("the test waits for the relay");
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (near, _) = accepted.expect("an accept");
                    tokio::task::spawn_local(self.clone().connection(near));
                }
                changed = self.rules.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn connection(self, mut near: TcpStream) {
        // Refused upstream looks like a connection that ends at once.
        let Ok(mut far) = TcpStream::connect(self.upstream).await else { return };
        let _ = near.set_nodelay(true);
        let _ = far.set_nodelay(true);
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let owed = Rc::new(Owed::default());
        tokio::select! {
            () = self.requests(near_read, far_write, Rc::clone(&owed)) => {}
            () = replies(far_read, near_write, owed) => {}
        }
    }

    async fn requests(&self, mut reader: ReadHalf<'_>, mut writer: WriteHalf<'_>, owed: Rc<Owed>) {
        let mut buffer = Vec::new();
        let mut dice = Dice::new(self.fired.load(Ordering::Relaxed));
        loop {
            let Ok(1..) = reader.read_buf(&mut buffer).await else { return };
            let mut forwarded = Vec::new();
            while let Some(length) = frame_length(&buffer) {
                let frame: Vec<u8> = buffer.drain(..length).collect();
                let reply = self.judge(&frame, &mut dice);
                if reply.answer.is_none() {
                    forwarded.extend_from_slice(&frame);
                }
                owed.replies.borrow_mut().push_back(reply);
            }
            owed.news.notify_one();
            if writer.write_all(&forwarded).await.is_err() {
                return;
            }
        }
    }

    fn judge(&self, frame: &[u8], dice: &mut Dice) -> OwedReply {
        let request = Request::of(frame);
        let rules = self.rules.borrow();
        let mut reply = OwedReply { due: Instant::now(), answer: None };
        if let Some(rule) = rules.iter().find(|rule| rule.concerns(&request, dice)) {
            self.fired.fetch_add(1, Ordering::Relaxed);
            match &rule.effect {
                Effect::Delay(by) => reply.due += *by,
                Effect::Answer(text) => reply.answer = Some(format!("-{text}\r\n").into_bytes()),
                Effect::Value(text) => reply.answer = Some(format!("${}\r\n{text}\r\n", text.len()).into_bytes()),
            }
        }
        reply
    }
}

/// Pays what is owed, each at its time and never before what is ahead of it.
async fn replies(mut reader: ReadHalf<'_>, mut writer: WriteHalf<'_>, owed: Rc<Owed>) {
    let mut buffer = Vec::new();
    loop {
        let is_push = buffer.first() == Some(&b'>');
        let head = owed.replies.borrow_mut().pop_front();
        let bytes = match head {
            Some(OwedReply { due, answer: Some(answer) }) => {
                tokio::time::sleep_until(due).await;
                answer
            }
            Some(OwedReply { due, answer: None }) if !is_push && frame_length(&buffer).is_some() => {
                tokio::time::sleep_until(due).await;
                take_frame(&mut buffer)
            }
            head => {
                if let Some(reply) = head {
                    owed.replies.borrow_mut().push_front(reply);
                }
                if is_push && frame_length(&buffer).is_some() {
                    take_frame(&mut buffer)
                } else {
                    tokio::select! {
                        read = reader.read_buf(&mut buffer) => if !matches!(read, Ok(1..)) { return },
                        () = owed.news.notified() => {}
                    }
                    continue;
                }
            }
        };
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn take_frame(buffer: &mut Vec<u8>) -> Vec<u8> {
    let length = frame_length(buffer).expect("a whole frame");
    buffer.drain(..length).collect()
}

impl Request {
    /// The name in upper case and the first key of a request, which is an array of bulk strings.
    fn of(frame: &[u8]) -> Self {
        let mut arguments = frame.split(|byte| *byte == b'\n').skip(2).step_by(2);
        let mut next = || arguments.next().unwrap_or_default().strip_suffix(b"\r").unwrap_or_default().to_vec();
        Self { name: String::from_utf8_lossy(&next()).to_ascii_uppercase(), key: next() }
    }
}

/// Bytes of the whole frame at the beginning of the buffer, request or reply, if it has arrived whole.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut elements) = (0, 1);
    while elements > 0 {
        let line = bytes[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let head = std::str::from_utf8(&bytes[at..at + line]).unwrap_or_default();
        let count = head.get(1..).and_then(|count| count.parse::<i64>().ok()).map_or(0, |count| count.max(-1));
        let size = usize::try_from(count).ok();
        at += line + 2;
        elements -= 1;
        match (head.as_bytes().first(), size) {
            (Some(b'$' | b'=' | b'!'), Some(size)) => at += size + 2,
            (Some(b'*' | b'~' | b'>'), Some(size)) => elements += size,
            (Some(b'%'), Some(size)) => elements += 2 * size,
            _ => {}
        }
        if at > bytes.len() {
            return None;
        }
    }
    Some(at)
}
