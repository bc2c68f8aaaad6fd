//! A load that behaves like an application and believes nothing: every reply is checked, every error is kept, and the
//! time in which nothing succeeded is measured where it hurts, at the client.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::load_check::{KeyRecord, Verdict};
use super::load_report::{ClientResult, LoadError, LoadReport};
use super::resp::{Client, Reply};
use super::stall_meter::StallMeter;

/// Errors and wrong reads kept with their text; the rest are counted.
const KEPT_MAX: usize = 200;
/// Keys of each client: few enough that every key is read again soon after a switch.
const KEYS_PER_CLIENT: u64 = 64;
/// Of sixteen requests twelve read, three write and one deletes.
const PATTERN: &[u8; 16] = b"GGSGGGSGGGDGGSGG";

/// How to load: by default 16 clients that make 2,000 requests a second together.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    address: SocketAddr,
    clients: usize,
    requests_per_second: u64,
    value_bytes: usize,
    key_prefix: String,
}

impl Load {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let key_prefix = "load".to_owned();
        Self { address, clients: 16, requests_per_second: 2_000, value_bytes: 64, key_prefix }
    }

    pub(crate) fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// All clients together.
    pub(crate) fn requests_per_second(mut self, rate: u64) -> Self {
        self.requests_per_second = rate;
        self
    }

    /// Keys begin with this, so that two loads on one server do not write each other's keys.
    pub(crate) fn key_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.key_prefix);
        self
    }

    /// Connects every client, then lets them all begin at once.
    pub(crate) fn start(self) -> RunningLoad {
        let shared = Arc::new(Shared::default());
        let barrier = Arc::new(Barrier::new(self.clients + 1));
        let mut threads = Vec::new();
        for number in 0..self.clients {
            let (load, shared, barrier) = (self.clone(), Arc::clone(&shared), Arc::clone(&barrier));
            let connection = Client::connect(load.address);
            threads.push(std::thread::spawn(move || {
                barrier.wait();
                ClientRun::new(number, load, shared, connection).run()
            }));
        }
        barrier.wait();
        RunningLoad { shared, threads, origin: Instant::now(), meter: StallMeter::start() }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    successes: AtomicU64,
    errors: AtomicU64,
}

/// A load under way.
#[derive(Debug)]
pub(crate) struct RunningLoad {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<ClientResult>>,
    origin: Instant,
    meter: StallMeter,
}

impl RunningLoad {
    /// Time since the load began: the scale on which the report names moments.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    pub(crate) fn successes(&self) -> u64 {
        self.shared.successes.load(Ordering::Relaxed)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// Lets it run for a while more.
    pub(crate) fn run_for(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    /// Waits until `more` further requests have succeeded; panics when that takes over 30 s.
    #[track_caller]
    pub(crate) fn wait_for_successes(&self, more: u64) {
        let goal = self.successes() + more;
        super::eventually(Duration::from_secs(30), "the load goes on", || self.successes() >= goal);
    }

    /// Ends every client after its current request and puts the results together.
    pub(crate) fn stop(self) -> LoadReport {
        let ended = self.origin.elapsed();
        self.shared.stop.store(true, Ordering::Relaxed);
        let (origin, stalls) = (self.origin, self.meter.stop());
        let results: Vec<ClientResult> =
            self.threads.into_iter().map(|thread| thread.join().expect("a client ends in order")).collect();
        LoadReport::new(origin, ended, results, stalls)
    }
}

/// One client: a schedule that does not wait for late replies, one request in flight.
struct ClientRun {
    number: usize,
    load: Load,
    shared: Arc<Shared>,
    connection: Option<Client>,
    keys: HashMap<u64, KeyRecord>,
    random: u64,
    result: ClientResult,
}

impl ClientRun {
    fn new(number: usize, load: Load, shared: Arc<Shared>, connection: Client) -> Self {
        let random = 0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1);
        let (keys, result) = (HashMap::new(), ClientResult::default());
        Self { number, load, shared, connection: Some(connection), keys, random, result }
    }

    fn run(mut self) -> ClientResult {
        let interval = Duration::from_secs_f64(self.load.clients as f64 / self.load.requests_per_second as f64);
        let offset = interval.mul_f64(self.number as f64 / self.load.clients as f64);
        let origin = Instant::now() + offset;
        for turn in 0_u32.. {
            let due = origin + interval * turn;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            self.one_request(turn);
        }
        self.result
    }

    fn one_request(&mut self, turn: u32) {
        let Some(mut connection) = self.connection.take().or_else(|| self.reconnect()) else { return };
        let key = self.next_key();
        let name = format!("{}:{}:{key}", self.load.key_prefix, self.number);
        let kind = PATTERN[turn as usize % PATTERN.len()];
        let sent = Instant::now();
        let mut record = self.keys.get(&key).copied().unwrap_or_default();
        let answer = self.send(kind, &name, &mut record, &mut connection);
        self.keys.insert(key, record);
        match answer {
            Ok(Ok(())) => {
                let now = Instant::now();
                self.result.successes.push(now);
                self.result.waits.push((sent, now - sent));
                self.shared.successes.fetch_add(1, Ordering::Relaxed);
                self.connection = Some(connection);
            }
            Ok(Err(text)) => {
                self.record_error(format!("{} {name}", kind as char), text);
                self.connection = Some(connection);
            }
            Err(error) => self.record_error(format!("{} {name}", kind as char), format!("connection: {error}")),
        }
    }

    /// Sends one request and checks its reply: the outer error is the connection's, the inner one the server's.
    fn send(
        &mut self,
        kind: u8,
        name: &str,
        record: &mut KeyRecord,
        connection: &mut Client,
    ) -> io::Result<Result<(), String>> {
        match kind {
            b'S' => {
                let number = record.issue();
                let value = self.value(name, number);
                let reply = connection.try_command(&["SET", name, &value])?;
                if reply != Reply::ok() {
                    return Ok(Err(reply_text(&reply)));
                }
                record.acknowledge_set(number);
            }
            b'D' => {
                let number = record.issue();
                let reply = connection.try_command(&["DEL", name])?;
                if !matches!(reply, Reply::Integer(_)) {
                    return Ok(Err(reply_text(&reply)));
                }
                record.acknowledge_delete(number);
            }
            _ => {
                let reply = connection.try_command(&["GET", name])?;
                if !matches!(reply, Reply::Bulk(_) | Reply::Nil) {
                    return Ok(Err(reply_text(&reply)));
                }
                self.check_read(name, record, &reply);
            }
        }
        Ok(Ok(()))
    }

    fn check_read(&mut self, name: &str, record: &mut KeyRecord, reply: &Reply) {
        let read = match reply {
            Reply::Nil => None,
            // A value that is not of this key at all is told apart by a number that was never issued.
            value => Some(parse_value(name, &value.text()).unwrap_or(u64::MAX)),
        };
        match record.judge(read) {
            Verdict::Fresh => {}
            Verdict::Miss => self.result.misses += 1,
            Verdict::Stale { read, floor } if self.result.stale.len() < KEPT_MAX => {
                self.result.stale.push(format!("{name}: read {read}, though {floor} had happened"));
            }
            Verdict::Foreign { .. } if self.result.foreign.len() < KEPT_MAX => {
                self.result.foreign.push(format!("{name}: read {:?}", reply.text()));
            }
            Verdict::Stale { .. } | Verdict::Foreign { .. } => {}
        }
    }

    fn value(&self, name: &str, number: u64) -> String {
        let head = format!("{name}={number}=");
        let padding = self.load.value_bytes.saturating_sub(head.len());
        format!("{head}{}", "x".repeat(padding))
    }

    fn reconnect(&mut self) -> Option<Client> {
        match Client::try_connect(self.load.address) {
            Ok(client) => Some(client),
            Err(error) => {
                self.record_error("connect".to_owned(), format!("connect: {error}"));
                None
            }
        }
    }

    fn record_error(&mut self, request: String, text: String) {
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        self.result.error_count += 1;
        if self.result.errors.len() < KEPT_MAX {
            self.result.errors.push(LoadError { at: Instant::now(), client: self.number, request, text });
        }
    }

    /// xorshift: the same keys in the same order in every run.
    fn next_key(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % KEYS_PER_CLIENT
    }
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) => text.clone(),
        other => format!("unexpected reply {other:?}"),
    }
}

/// The number within a value of this key.
fn parse_value(name: &str, value: &str) -> Option<u64> {
    value.strip_prefix(name)?.strip_prefix('=')?.split('=').next()?.parse().ok()
}
