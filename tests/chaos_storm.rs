//! Everything at once: clients of every kind, and faults of every kind, one after the other. Nobody may wait for ever,
//! get another one's reply, or see an error that is not honest.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, ms, secs};

/// A reply that takes longer than this hangs: no request may live longer than `timeout.request`, twice that for what is
/// sent again, and the machine is busy.
const HANG: Duration = secs(6);
const STORM: Duration = secs(20);

/// What one client does over and over; each round says what was wrong, if anything was.
type Round = fn(&mut Client, usize, u64) -> Result<(), String>;

/// xorshift: the same choices in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn ask(client: &mut Client, request: &[&str]) -> Result<Reply, String> {
    let start = Instant::now();
    let reply = client.try_command(request);
    reply.map_err(|error| format!("{request:?} was not answered within {:?}: {error}", start.elapsed()))
}

fn expect(reply: &Reply, request: &str, is_right: bool) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(format!("{request} answered {reply:?}")) }
}

/// Told that it may or may not have happened: for what must not be sent twice, the honest answer.
fn unknown(reply: &Reply) -> bool {
    reply.is_error_word("UNKNOWNOUTCOME")
}

fn pipelines(client: &mut Client, number: usize, turn: u64) -> Result<(), String> {
    let depth = 1 + turn % 40;
    let key = format!("pipe:{number}");
    for at in 0..depth {
        let mark = format!("{number}:{turn}:{at}");
        for request in [&["SET", key.as_str(), mark.as_str()][..], &["ECHO", &mark], &["GET", &key], &["INCR", "n"]] {
            client.try_send(request).map_err(|error| format!("not sent: {error}"))?;
        }
    }
    for at in 0..depth {
        let mark = format!("{number}:{turn}:{at}");
        let mut read = || client.try_read().map_err(|error| format!("no reply in a pipeline: {error}"));
        let (set, echo, get, increment) = (read()?, read()?, read()?, read()?);
        expect(&set, "SET", set == Reply::ok())?;
        expect(&echo, &format!("ECHO {mark}"), echo == Reply::bulk(&mark))?;
        // Between both the backend may have changed to one that is empty. A GET whose connection was lost, and behind which a
        // SET of the same pipeline was sent, is not sent again: it might see that one.
        expect(&get, &format!("GET {mark}"), get == Reply::Nil || get == Reply::bulk(&mark) || unknown(&get))?;
        expect(&increment, "INCR", matches!(increment, Reply::Integer(_)) || unknown(&increment))?;
    }
    Ok(())
}

fn transactions(client: &mut Client, number: usize, turn: u64) -> Result<(), String> {
    let key = format!("transaction:{number}");
    let begun = ask(client, &["MULTI"])?;
    expect(&begun, "MULTI", begun == Reply::ok())?;
    for request in [&["SET", key.as_str(), "1"][..], &["INCR", "n"]] {
        let queued = ask(client, request)?;
        expect(&queued, "a queued command", queued.text() == "QUEUED")?;
    }
    let ends = if turn.is_multiple_of(5) { "DISCARD" } else { "EXEC" };
    let reply = ask(client, &[ends])?;
    let is_right = match &reply {
        Reply::Array(replies) => ends == "EXEC" && replies.len() == 2 && replies[0] == Reply::ok(),
        other => unknown(other) || (ends == "DISCARD" && *other == Reply::ok()),
    };
    expect(&reply, ends, is_right)
}

fn watchers(client: &mut Client, number: usize, _turn: u64) -> Result<(), String> {
    let key = format!("watch:{number}");
    let watched = ask(client, &["WATCH", &key])?;
    expect(&watched, "WATCH", watched == Reply::ok())?;
    let read = ask(client, &["GET", &key])?;
    expect(&read, "GET", !read.is_error())?;
    let begun = ask(client, &["MULTI"])?;
    expect(&begun, "MULTI", begun == Reply::ok())?;
    let queued = ask(client, &["SET", &key, "1"])?;
    expect(&queued, "SET", queued.text() == "QUEUED")?;
    let reply = ask(client, &["EXEC"])?;
    expect(&reply, "EXEC", matches!(reply, Reply::Array(_) | Reply::Nil) || unknown(&reply))
}

fn blockers(client: &mut Client, number: usize, _turn: u64) -> Result<(), String> {
    let reply = ask(client, &["BLPOP", &format!("empty:{number}"), "0.05"])?;
    expect(&reply, "BLPOP", reply == Reply::Nil || unknown(&reply))
}

fn subscribers(client: &mut Client, number: usize, turn: u64) -> Result<(), String> {
    let channel = format!("channel:{number}:{turn}");
    for (command, count) in [("SUBSCRIBE", 1), ("UNSUBSCRIBE", 0)] {
        let reply = ask(client, &[command, &channel])?;
        let right = [Reply::bulk(&command.to_lowercase()), Reply::bulk(&channel), Reply::Integer(count)];
        expect(&reply, command, reply == Reply::Array(right.to_vec()))?;
    }
    let reply = ask(client, &["PING", &channel])?;
    expect(&reply, "PING", reply == Reply::bulk(&channel))
}

fn selectors(client: &mut Client, number: usize, turn: u64) -> Result<(), String> {
    let (key, value) = (format!("select:{number}"), turn.to_string());
    let selected = ask(client, &["SELECT", &(turn % 3).to_string()])?;
    expect(&selected, "SELECT", selected == Reply::ok())?;
    let set = ask(client, &["SET", &key, &value])?;
    expect(&set, "SET", set == Reply::ok())?;
    let read = ask(client, &["GET", &key])?;
    expect(&read, "GET", read == Reply::bulk(&value) || read == Reply::Nil)
}

fn scripters(client: &mut Client, number: usize, turn: u64) -> Result<(), String> {
    let key = format!("script:{number}:{turn}");
    let reply = ask(client, &["EVAL", "return KEYS[1]", "1", &key])?;
    expect(&reply, "EVAL", reply == Reply::bulk(&key) || unknown(&reply))
}

const ROUNDS: &[(&str, Round)] = &[
    ("pipelines", pipelines),
    ("transactions", transactions),
    ("watchers", watchers),
    ("blockers", blockers),
    ("subscribers", subscribers),
    ("selectors", selectors),
    ("scripters", scripters),
];

/// Starts two clients of each kind; each ends with the number of its rounds, or with what went wrong.
fn start_clients(standin: &StandinProcess, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Result<u64, String>>> {
    let mut threads = Vec::new();
    for (number, (name, round)) in ROUNDS.iter().chain(ROUNDS).enumerate() {
        let (stop, mut client) = (Arc::clone(stop), standin.connect());
        client.set_read_timeout(HANG);
        threads.push(std::thread::spawn(move || {
            let began = Instant::now();
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                let outcome = round(&mut client, number, turn);
                outcome.map_err(|error| format!("{:?}: {name} {number}, turn {turn}: {error}", began.elapsed()))?;
                turn += 1;
                std::thread::sleep(ms(2));
            }
            Ok(turn)
        }));
    }
    threads
}

/// Another storm by `STANDIN_STORM_SEED`, for the hunt.
fn storm_seed() -> u64 {
    let given = std::env::var("STANDIN_STORM_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or(0x5EED_0001);
    println!("STANDIN_STORM_SEED={seed}");
    seed
}

struct Stage {
    primary: RedisServer,
    first: RedisServer,
    second: RedisServer,
    relay: FaultRelay,
    standin: StandinProcess,
    random: Random,
}

impl Stage {
    fn start() -> Self {
        let (primary, first, second) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
        let relay = FaultRelay::start(primary.address());
        let config = StandinConfig::quick_pair(relay.address(), first.address()).backup("backup-b", second.address());
        let mut standin = config.start();
        standin.declare(PRIMARY_LOST);
        standin.declare(&["backup-a", "backup-b"]);
        assert!(standin.epoch() > 0, "it serves");
        Self { primary, first, second, relay, standin, random: Random(storm_seed()) }
    }

    fn server(&mut self, number: u64) -> &mut RedisServer {
        match number {
            0 => &mut self.primary,
            1 => &mut self.first,
            _ => &mut self.second,
        }
    }

    /// One fault and its end: at no time more than one server is away.
    fn one_fault(&mut self) -> String {
        let lasting = ms(50 + self.random.below(1_000));
        // Mostly the one that serves: what happens to the others is seldom felt.
        let serving = match self.standin.active().as_str() {
            "backup-a" => 1,
            "backup-b" => 2,
            _ => 0,
        };
        let which = if self.random.below(3) > 0 { serving } else { self.random.below(3) };
        match self.random.below(8) {
            0 | 1 => {
                self.server(which).kill();
                std::thread::sleep(lasting);
                self.server(which).restart();
                format!("server {which} killed, back after {lasting:?}")
            }
            2 | 3 => {
                self.server(which).freeze();
                std::thread::sleep(lasting);
                self.server(which).thaw();
                format!("server {which} frozen for {lasting:?}")
            }
            4 => {
                self.relay.reset_all();
                "connections to the primary reset".to_owned()
            }
            5 => {
                self.server(which).command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                format!("clients of server {which} killed")
            }
            6 => {
                self.relay.set(Fault::BlackHole);
                std::thread::sleep(lasting);
                self.relay.heal();
                self.relay.reset_all();
                format!("packets to the primary swallowed for {lasting:?}, then reset")
            }
            _ => {
                let (path, body) = if self.random.below(2) == 0 {
                    ("/v1/failover", json!({"reason": "storm"}))
                } else {
                    ("/v1/recover", json!({"reason": "storm"}))
                };
                let answer = self.standin.post(path, &body);
                format!("{path}: {} {}", answer.code, answer.body)
            }
        }
    }
}

#[test]
fn no_session_hangs_or_loses_its_order_in_a_storm_of_faults() {
    let mut stage = Stage::start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients = start_clients(&stage.standin, &stop);
    let began = Instant::now();
    while began.elapsed() < STORM && !clients.iter().any(JoinHandle::is_finished) {
        let at = began.elapsed();
        let fault = stage.one_fault();
        println!("{at:.2?}: {fault}; active {}", stage.standin.active());
        std::thread::sleep(ms(300 + stage.random.below(700)));
    }
    std::thread::sleep(ms(500));
    stop.store(true, Ordering::Relaxed);
    let results: Vec<Result<u64, String>> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let wrong: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    println!("{} switches; rounds {:?}", stage.standin.epoch() - 1, results.iter().flatten().collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{wrong:#?}");
    stage.standin.finish();
}

#[test]
fn an_increment_is_never_executed_twice_while_its_connections_are_killed() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let epoch = standin.epoch();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, mut client) = (Arc::clone(&stop), standin.connect());
            std::thread::spawn(move || {
                let (mut done, mut in_doubt) = (0_i64, 0_i64);
                while !stop.load(Ordering::Relaxed) {
                    match client.command(&["INCR", "n"]) {
                        Reply::Integer(_) => done += 1,
                        reply if unknown(&reply) => in_doubt += 1,
                        reply => panic!("INCR answered {reply:?}"),
                    }
                }
                (done, in_doubt)
            })
        })
        .collect();
    for round in 0..20 {
        std::thread::sleep(ms(50));
        if round % 2 == 0 {
            relay.reset_all();
        } else {
            primary.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let results: Vec<(i64, i64)> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let done: i64 = results.iter().map(|(done, _)| done).sum();
    let in_doubt: i64 = results.iter().map(|(_, in_doubt)| in_doubt).sum();
    let counted: i64 = primary.command(&["GET", "n"]).text().parse().unwrap();
    println!("{done} increments answered, {in_doubt} in doubt, {counted} counted");
    assert!((done..=done + in_doubt).contains(&counted), "{done} answered, {in_doubt} in doubt, but {counted} counted");
    standin.assert_no_switch_since(epoch);
    standin.finish();
}

#[test]
fn servers_that_start_a_little_later_than_standin_are_no_outage() {
    let (mut primary, mut backup) = (RedisServer::stopped(), RedisServer::stopped());
    // Not waited for by readiness either: clients are there from the first moment.
    let config = StandinConfig::pair(primary.address(), backup.address());
    let standin = config.table("[initialization]\ntimeout = \"0s\"").start();
    let mut client = standin.connect();
    client.send(&["SET", "k", "1"]);
    // The backup is there first, which is what makes a failover possible.
    backup.restart();
    std::thread::sleep(ms(150));
    primary.restart();
    assert_eq!(client.read(), Reply::ok(), "the first request waited for the primary");
    assert_eq!(standin.active(), "primary");
    assert_eq!(primary.command(&["GET", "k"]), Reply::bulk("1"));
    assert!(standin.events_of("failover").is_empty(), "{:#?}", standin.events());
    standin.finish();
}

#[test]
fn a_client_that_waits_for_an_element_is_not_disturbed_by_an_ordered_switch() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    assert!(standin.epoch() > 0, "it serves");
    let mut waiting = standin.connect();
    waiting.send(&["BLPOP", "queue", "0"]);
    support::eventually(secs(5), "it blocks", || primary.info("blocked_clients") == "1");
    assert_eq!(standin.post("/v1/failover", &json!({"to": "backup-a"})).code, 200);
    support::eventually(secs(5), "it blocks there", || backup.info("blocked_clients") == "1");
    assert_eq!(standin.post("/v1/recover", &json!({})).code, 200);
    support::eventually(secs(5), "it blocks here again", || primary.info("blocked_clients") == "1");
    assert_eq!(standin.connect().command(&["RPUSH", "queue", "job"]), Reply::Integer(1));
    assert_eq!(waiting.read(), Reply::Array(vec![Reply::bulk("queue"), Reply::bulk("job")]));
    for kind in ["failover", "recovery"] {
        let held = standin.events_of(kind)[0]["detail"]["held_us"].as_u64().unwrap();
        println!("{kind}: others were held for {held} us");
        assert!(held < 20_000, "a client that lets go at once was waited for {held} us");
    }
    standin.finish();
}
