//! The register checker: clients that each own their keys, write numbers that only grow, and judge every value they read
//! by what was acknowledged before.
//!
//! Where `load` behaves like one application at a steady pace, this one is after wrong reads alone: pipelines, several
//! databases, both protocols, transactions on connections of their own and scripts, as fast as they go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::dice::Dice;
use super::load_check::{KeyRecord, Verdict};
use super::lost::{Happened, History, Lost, wall_us};
use super::resp::{Client, Reply, encode};

/// Wrong reads kept with their text.
const KEPT_MAX: usize = 3;
/// A client whose connection was refused tries again after this.
const RECONNECT_PAUSE: Duration = Duration::from_millis(5);
/// So many requests of one client are on their way at once, at most.
const PIPELINE_MAX: u64 = 16;

/// How to check.
#[derive(Debug, Clone)]
pub(crate) struct RegisterLoad {
    pub(crate) address: SocketAddr,
    pub(crate) clients: usize,
    /// Of all clients together; each stops after its share.
    pub(crate) operations: u64,
    pub(crate) keys_per_client: u64,
    pub(crate) seed: u64,
    /// Bytes that make names, and so requests, longer.
    pub(crate) padding: usize,
    /// Between two pipelines of one client: pause, so that a number of operations spans enough faults.
    pub(crate) pause: Duration,
    /// Acknowledged writes may be lost, so that what a read shows to be missing is noted, and no more than that is expected
    /// from then on.
    pub(crate) may_lose: bool,
}

/// What all clients saw.
#[derive(Debug, Default)]
pub(crate) struct RegisterReport {
    /// Requests sent.
    pub(crate) operations: u64,
    pub(crate) acknowledged_writes: u64,
    /// Reads that found a value or rightly none.
    pub(crate) reads: u64,
    pub(crate) misses: u64,
    pub(crate) errors: u64,
    /// The connection to Standin ended.
    pub(crate) disconnects: u64,
    pub(crate) stale_count: u64,
    /// The first of them, with what had happened before.
    pub(crate) stale: Vec<String>,
    /// With [`RegisterLoad::may_lose`]: what is to be explained by bounds.
    pub(crate) lost: Vec<Lost>,
    /// Error words and how often each came.
    pub(crate) words: std::collections::BTreeMap<String, u64>,
}

/// Clients under way.
pub(crate) struct RunningRegister {
    threads: Vec<JoinHandle<RegisterClient>>,
    progress: Arc<AtomicU64>,
    gate: Arc<AtomicBool>,
    goal: u64,
}

impl RegisterLoad {
    pub(crate) fn start(self) -> RunningRegister {
        self.start_numbered_from(0)
    }

    /// As [`Self::start`], with clients that share no key with those of another load that is numbered from elsewhere.
    pub(crate) fn start_numbered_from(self, first: usize) -> RunningRegister {
        let (progress, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let share = self.operations / self.clients as u64;
        let threads = (first..first + self.clients).map(|number| {
            let mut client = RegisterClient::new(number, self.clone(), Arc::clone(&progress), Arc::clone(&gate));
            std::thread::spawn(move || {
                client.run(share);
                client
            })
        });
        RunningRegister { threads: threads.collect(), progress, gate, goal: share * self.clients as u64 }
    }
}

impl RunningRegister {
    pub(crate) fn operations(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.operations() >= self.goal || self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Ends early.
    pub(crate) fn stop(&self) {
        self.gate.store(false, Ordering::Relaxed);
    }

    /// Waits for the clients, then runs `settle`, then has each client read all of its keys once more.
    pub(crate) fn finish(self, settle: impl FnOnce()) -> RegisterReport {
        let mut clients: Vec<RegisterClient> =
            self.threads.into_iter().map(|thread| thread.join().expect("a client ends in order")).collect();
        settle();
        let mut total = RegisterReport::default();
        for client in &mut clients {
            client.read_everything();
            total.add(std::mem::take(&mut client.report));
        }
        total
    }
}

impl RegisterReport {
    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.acknowledged_writes += other.acknowledged_writes;
        self.reads += other.reads;
        self.misses += other.misses;
        self.errors += other.errors;
        self.disconnects += other.disconnects;
        self.stale_count += other.stale_count;
        self.stale.extend(other.stale);
        self.lost.extend(other.lost);
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
    }
}

/// One request on its way and what its reply will mean.
enum Asked {
    Get(u64),
    GetMany(Vec<u64>),
    Set(u64, u64),
    Delete(u64, u64),
    /// Keys and numbers of one request that writes several.
    SetMany(Vec<(u64, u64)>),
    GetSet(u64, u64),
    /// Answered by QUEUED or OK.
    Plain,
    Exec(Vec<(u64, u64)>),
}

struct RegisterClient {
    number: usize,
    load: RegisterLoad,
    progress: Arc<AtomicU64>,
    gate: Arc<AtomicBool>,
    /// Two, used by turns: they may be served by different workers.
    connections: [Option<Client>; 2],
    turn: usize,
    keys: Vec<KeyRecord>,
    histories: Vec<History>,
    /// Requests so far, and when the last pipeline was sent.
    requests: u64,
    sent_us: u64,
    random: Dice,
    report: RegisterReport,
}

impl RegisterClient {
    fn new(number: usize, load: RegisterLoad, progress: Arc<AtomicU64>, gate: Arc<AtomicBool>) -> Self {
        let keys = vec![KeyRecord::default(); load.keys_per_client as usize];
        let random = Dice::at((load.seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
        let histories = vec![History::default(); keys.len()];
        let report = RegisterReport::default();
        let (connections, turn, requests, sent_us) = ([None, None], 0, 0, 0);
        Self { number, load, progress, gate, connections, turn, keys, histories, requests, sent_us, random, report }
    }

    fn run(&mut self, share: u64) {
        while self.report.operations < share && self.gate.load(Ordering::Relaxed) {
            let before = self.report.operations;
            if self.pipeline().is_err() {
                self.report.disconnects += 1;
            }
            self.progress.fetch_add(self.report.operations - before, Ordering::Relaxed);
            std::thread::sleep(self.load.pause);
        }
    }

    /// A third of the clients works in another database, a third speaks RESP3.
    fn connect(&mut self) -> io::Result<Client> {
        let mut client = Client::try_connect(self.load.address)?;
        match self.number % 3 {
            1 => {
                client.try_command(&["HELLO", "3"])?;
            }
            2 => {
                let selected = client.try_command(&["SELECT", "3"])?;
                if selected != Reply::ok() {
                    return Err(io::Error::other("SELECT was refused: nothing may be done in the wrong database"));
                }
            }
            _ => {}
        }
        Ok(client)
    }

    fn pipeline(&mut self) -> io::Result<()> {
        self.turn ^= 1;
        let mut connection = match self.connections[self.turn].take() {
            Some(connection) => connection,
            None => self.connect().inspect_err(|_| std::thread::sleep(RECONNECT_PAUSE))?,
        };
        let (mut bytes, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..=self.below(PIPELINE_MAX) {
            self.append(&mut bytes, &mut asked);
        }
        self.report.operations += asked.len() as u64;
        self.sent_us = wall_us();
        connection.try_send_raw(&bytes)?;
        for asked in asked {
            let reply = connection.try_read()?;
            self.judge(asked, &reply);
        }
        self.connections[self.turn] = Some(connection);
        Ok(())
    }

    /// One operation of random kind: a request, or a whole transaction.
    fn append(&mut self, bytes: &mut Vec<u8>, asked: &mut Vec<Asked>) {
        let key = self.below(self.load.keys_per_client);
        let name = self.name(key);
        match self.below(100) {
            0..5 => {
                let other = (key + 1) % self.load.keys_per_client;
                bytes.extend(encode(&["MGET", &name, &self.name(other)]));
                asked.push(Asked::GetMany(vec![key, other]));
            }
            5..55 => {
                bytes.extend(encode(&["GET", &name]));
                asked.push(Asked::Get(key));
            }
            55..75 => {
                let (number, value) = self.next_value(key);
                bytes.extend(encode(&["SET", &name, &value]));
                asked.push(Asked::Set(key, number));
            }
            75..80 => {
                let number = self.keys[key as usize].issue();
                self.histories[key as usize].removal_sent(number);
                bytes.extend(encode(&["DEL", &name]));
                asked.push(Asked::Delete(key, number));
            }
            80..85 => {
                let (number, value) = self.next_value(key);
                bytes.extend(encode(&["SET", &name, &value, "EX", "1000"]));
                asked.push(Asked::Set(key, number));
            }
            85..89 => {
                let (number, value) = self.next_value(key);
                bytes.extend(encode(&["GETSET", &name, &value]));
                asked.push(Asked::GetSet(key, number));
            }
            89..93 => {
                let other = (key + 1) % self.load.keys_per_client;
                let (first, second) = (self.next_value(key), self.next_value(other));
                bytes.extend(encode(&["MSET", &name, &first.1, &self.name(other), &second.1]));
                asked.push(Asked::SetMany(vec![(key, first.0), (other, second.0)]));
            }
            93..96 => {
                let (number, value) = self.next_value(key);
                let script = "return redis.call('SET', KEYS[1], ARGV[1])";
                bytes.extend(encode(&["EVAL", script, "1", &name, &value]));
                asked.push(Asked::Set(key, number));
            }
            _ => {
                let (number, value) = self.next_value(key);
                bytes.extend(encode(&["MULTI"]));
                bytes.extend(encode(&["SET", &name, &value]));
                bytes.extend(encode(&["EXEC"]));
                asked.extend([Asked::Plain, Asked::Plain, Asked::Exec(vec![(key, number)])]);
            }
        }
    }

    fn judge(&mut self, asked: Asked, reply: &Reply) {
        self.requests += 1;
        if let Reply::Error(text) = reply {
            self.report.errors += 1;
            *self.report.words.entry(text.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
            return;
        }
        match asked {
            Asked::Plain => {}
            Asked::Get(key) => self.check(key, reply),
            Asked::GetMany(keys) => {
                let Reply::Array(values) = reply else { panic!("MGET answers with an array: {reply:?}") };
                for (key, value) in keys.into_iter().zip(values) {
                    self.check(key, value);
                }
            }
            Asked::GetSet(key, number) => {
                self.check(key, reply);
                self.acknowledge(&[(key, number)]);
            }
            Asked::Set(key, number) => self.acknowledge(&[(key, number)]),
            Asked::SetMany(all) => self.acknowledge(&all),
            Asked::Delete(key, number) => {
                self.keys[key as usize].acknowledge_delete(number);
                self.note(key, number, true);
                self.report.acknowledged_writes += 1;
            }
            // A nil says that nothing was executed.
            Asked::Exec(all) if matches!(reply, Reply::Array(_)) => self.acknowledge(&all),
            Asked::Exec(_) => {}
        }
    }

    fn acknowledge(&mut self, all: &[(u64, u64)]) {
        for (key, number) in all {
            self.keys[*key as usize].acknowledge_set(*number);
            self.note(*key, *number, true);
            self.report.acknowledged_writes += 1;
        }
    }

    /// It is known to have happened.
    fn note(&mut self, key: u64, number: u64, was_acknowledged: bool) {
        if self.load.may_lose {
            let (request, sent_us) = (self.requests, self.sent_us);
            self.histories[key as usize].happened(Happened {
                number,
                was_acknowledged,
                request,
                sent_us,
                known_us: wall_us(),
            });
        }
    }

    /// Notes what a read has shown to be lost.
    fn note_lost(&mut self, key: u64, read: Option<u64>, was_stale: bool) {
        let (client, read_us) = (self.number, wall_us());
        let lost = self.histories[key as usize].lost_by(read);
        self.report.lost.extend(lost.into_iter().map(|write| Lost { client, key, write, was_stale, read_us }));
        self.keys[key as usize].rewind(read);
    }

    fn check(&mut self, key: u64, reply: &Reply) {
        self.report.reads += 1;
        let name = self.name(key);
        let read = match reply {
            Reply::Nil => None,
            // A value that is not of this key at all is told apart by a number that was never issued.
            value => Some(parse(&name, &value.text()).unwrap_or(u64::MAX)),
        };
        match self.keys[key as usize].judge(read) {
            Verdict::Fresh => {
                if let Some(read) = read {
                    self.note(key, read, false);
                }
            }
            Verdict::Miss => {
                self.report.misses += 1;
                if self.load.may_lose {
                    self.note_lost(key, None, false);
                }
            }
            Verdict::Stale { .. } if self.load.may_lose => {
                self.report.stale_count += 1;
                self.note_lost(key, read, true);
            }
            verdict => {
                self.report.stale_count += 1;
                if self.report.stale.len() < KEPT_MAX {
                    let operation = self.progress.load(Ordering::Relaxed);
                    self.report
                        .stale
                        .push(format!("{} at operation {operation}: {verdict:?}", name.trim_end_matches('_')));
                }
            }
        }
    }

    fn read_everything(&mut self) {
        let mut connection = self.connect().expect("Standin serves at the end");
        for key in 0..self.load.keys_per_client {
            let name = self.name(key);
            let reply = connection.try_command(&["GET", &name]).expect("a reply");
            assert!(!reply.is_error(), "at the end every read is answered: {reply:?}");
            self.check(key, &reply);
        }
    }

    fn name(&self, key: u64) -> String {
        format!("register:{}:{key}{}", self.number, "_".repeat(self.load.padding))
    }

    fn next_value(&mut self, key: u64) -> (u64, String) {
        let number = self.keys[key as usize].issue();
        (number, format!("{}={number}", self.name(key)))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }
}

fn parse(name: &str, value: &str) -> Option<u64> {
    value.strip_prefix(name)?.strip_prefix('=')?.parse().ok()
}
