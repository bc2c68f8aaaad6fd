//! What a lost connection means for each request that was on it.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::link::{Entry, Host, Link, LinkSettings, Owner, flag};
use super::replies::Cutter;
use super::{Address, Backend, Lane, Login, RetryBudget, Target, Timing, clock};
use crate::command::{self, Category};
use crate::policy::{BackendId, Edge, LATENCY_BUCKETS, latency_bucket};
use crate::resp::{FrameLimits, Protocol, encode_request};

/// A client that keeps what it is told.
#[derive(Clone, Default)]
struct Client(Rc<Told>);

#[derive(Default)]
struct Told {
    replies: RefCell<Vec<(u32, String)>>,
    special: RefCell<Vec<u32>>,
    cut_off: Cell<bool>,
    gone: Cell<bool>,
}

impl Owner for Client {
    fn same_as(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
    fn id(&self) -> usize {
        Rc::as_ptr(&self.0) as usize
    }
    fn is_gone(&self) -> bool {
        self.0.gone.get()
    }
    fn replies(&self, seq: u32, _count: u32, bytes: &[u8]) {
        self.0.replies.borrow_mut().push((seq, String::from_utf8_lossy(bytes).into_owned()));
    }
    fn partial(&self, _seq: u32, _bytes: &[u8]) {}
    fn special(&self, seq: u32, _bytes: &[u8]) {
        self.0.special.borrow_mut().push(seq);
    }
    fn is_out_of_band(&self, _frame: &[u8]) -> bool {
        false
    }
    fn out_of_band(&self, _bytes: &[u8]) {}
    fn cut_off(&self) {
        self.0.cut_off.set(true);
    }
    fn repeating(&self) {}
    fn repeated(&self) {}
}

#[derive(Default)]
struct Surroundings {
    unknown_writes: RefCell<Vec<String>>,
    acknowledged: RefCell<Vec<Vec<u8>>>,
    /// Whether each block that was answered was refused.
    blocks: RefCell<Vec<bool>>,
}

impl Host<Client> for Surroundings {
    fn edge(&self, _backend: BackendId, _edge: Edge) {}
    fn reroute(&self, _link: &Link<Client>, _entry: Entry<Client>, _bytes: &[u8]) {}
    fn overtake(&self, _: &Rc<Link<Client>>, _: u64) {}
    fn block_answered(&self, _: &Link<Client>, _: &Client, _: &[u8], refused: bool) {
        self.blocks.borrow_mut().push(refused);
    }
    fn acknowledged(&self, _link: &Link<Client>, _entry: &Entry<Client>, bytes: &[u8], _now_us: u64) {
        self.acknowledged.borrow_mut().push(bytes.to_vec());
    }

    fn acknowledged_all(&self, _link: &Link<Client>, _now_us: u64) {}

    fn unknown_write(&self, _link: &Link<Client>, bytes: &[u8]) {
        self.unknown_writes.borrow_mut().push(command::of_request(bytes).name.to_owned());
    }
    fn retired(&self, _link: &Rc<Link<Client>>) {}
    fn ended(&self, _link: &Rc<Link<Client>>) {}
    fn jitter(&self) -> u64 {
        0
    }
}

struct World {
    link: Rc<Link<Client>>,
    host: Rc<Surroundings>,
    client: Client,
    next: Cell<u32>,
}

impl World {
    fn new() -> Self {
        let timing = Timing {
            connect: Duration::from_millis(1),
            handshake: Duration::from_millis(1),
            request: Duration::from_secs(2),
            floor: Duration::from_millis(650),
            slow: Duration::from_secs(30),
            tcp_user_timeout: Duration::from_secs(5),
            tcp_keepalive: Duration::from_secs(60),
            reconnect_min: Duration::from_millis(1),
            reconnect_max: Duration::from_millis(100),
        };
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: 1 };
        let target = Target { address, tls: None, login: Login::default(), database: 0 };
        let backend = Backend::new(BackendId(0), "p".to_owned(), "standin-test".to_owned(), target, timing, 1);
        let settings = LinkSettings {
            in_flight_max: 100,
            bytes_max: 1 << 20,
            frame_limits: FrameLimits::default(),
            ceiling: Category::LastWriteWins,
            attempts_max: 2,
            backoff_min_us: 1,
            backoff_max_us: 1,
        };
        let host = Rc::new(Surroundings::default());
        let lane = Lane { database: 0, protocol: Protocol::Resp2, user: 0 };
        let budget = Rc::new(RetryBudget::new(10.0, 10.0));
        let link = Link::new(Arc::new(backend), lane, 0, None, Rc::new(settings), budget, host.clone());
        Self { link, host, client: Client::default(), next: Cell::new(0) }
    }

    /// Queues a request given as words, with these flags.
    fn request(&self, words: &str, flags: u16) {
        self.request_of(&self.client, words, flags);
    }

    fn request_of(&self, client: &Client, words: &str, flags: u16) {
        let mut bytes = Vec::new();
        let arguments: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        encode_request(&mut bytes, &arguments);
        let entry = Entry {
            owner: client.clone(),
            at_us: clock::micros(),
            seq: self.next.replace(self.next.get() + 1),
            len: bytes.len() as u32,
            confirmations: 0,
            class: command::of_request(&bytes).class,
            attempts: 0,
            flags,
        };
        self.link.push(entry, &bytes);
    }

    /// As if all that is queued had gone out to the socket.
    fn write_all(&self) {
        let mut queue = self.link.queue.borrow_mut();
        queue.written = queue.bytes.len();
    }

    fn left(&self) -> Vec<&'static str> {
        self.link.take_left().iter().map(|(_, bytes)| command::of_request(bytes).name).collect()
    }

    fn errors(&self) -> Vec<(u32, String)> {
        let word = |text: &String| text.split(' ').next().unwrap_or_default().to_owned();
        self.client.0.replies.borrow().iter().map(|(seq, text)| (*seq, word(text))).collect()
    }
}

#[test]
fn what_was_sent_is_kept_up_to_the_ceiling_and_the_rest_has_an_unknown_outcome() {
    let world = World::new();
    for words in ["GET a", "SET a 1", "INCR n", "GETSET a 2", "EXPIRE a 9", "LPUSH l 1"] {
        world.request(words, 0);
    }
    world.write_all();
    world.link.lose();
    assert_eq!(world.left(), ["get", "set", "expire"]);
    let unknown = "-UNKNOWNOUTCOME".to_owned();
    assert_eq!(world.errors(), [(2, unknown.clone()), (3, unknown.clone()), (5, unknown)]);
    // Each write may have been executed there, the repeated ones too.
    assert_eq!(*world.host.unknown_writes.borrow(), ["set", "incr", "getset", "expire", "lpush"]);
}

/// Which requests of a session are answered with an error when the same server is back: their positions.
#[track_caller]
fn check_same_server_again(requests: &[&str], refused: &[u32]) {
    let world = World::new();
    for words in requests {
        world.request(words, 0);
    }
    world.write_all();
    world.link.lose();
    world.link.charge_repeats();
    let errors: Vec<u32> = world.errors().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(errors, refused, "{requests:?}");
}

#[test]
fn a_read_is_not_repeated_on_the_same_server_after_a_later_write_of_its_session_to_its_key() {
    check_same_server_again(&["GET a", "SET a 1"], &[0]);
    check_same_server_again(&["GET a", "SET b 1"], &[]);
    check_same_server_again(&["SET b 1", "GET a"], &[]);
    check_same_server_again(&["MGET b a", "GET c", "DEL a"], &[0]);
    check_same_server_again(&["TTL a", "EXPIRE a 9"], &[0]);
    // Written whole before it, and so again.
    check_same_server_again(&["SET a 0", "GET a", "EXPIRE a 9"], &[]);
    check_same_server_again(&["SET a 0 KEEPTTL", "TTL a", "EXPIRE a 9"], &[1]);
    check_same_server_again(&["HSET a f 0", "HGET a f", "HSET a f 1"], &[1]);
    // What is not sent again settles nothing, and may have been executed all the same.
    check_same_server_again(&["SETNX a 0", "GET a", "INCR a"], &[0, 2, 1]);
    // Keys that nobody can name.
    check_same_server_again(&["GET a", "PING", "EVAL x 0"], &[2, 0]);
    check_same_server_again(&["DBSIZE", "SET a 1"], &[0]);
}

#[test]
fn a_read_before_a_write_of_its_session_is_sent_to_another_server_in_its_order() {
    let world = World::new();
    for words in ["GET a", "SET a 1"] {
        world.request(words, 0);
    }
    world.write_all();
    world.link.lose();
    assert_eq!(world.left(), ["get", "set"]);
    assert!(world.errors().is_empty());
}

#[test]
fn a_read_is_repeated_after_a_later_write_of_another_session_or_one_that_was_not_sent() {
    let world = World::new();
    let other = Client::default();
    world.request("GET a", 0);
    world.request_of(&other, "SET a 1", 0);
    world.write_all();
    world.request("SET a 2", 0);
    world.link.lose();
    world.link.charge_repeats();
    assert!(world.errors().is_empty());
    assert_eq!(world.left(), ["get", "set", "set"]);
}

#[test]
fn what_was_never_sent_is_kept_whatever_it_is() {
    let world = World::new();
    world.request("INCR n", 0);
    world.request("LPUSH l 1", 0);
    world.link.lose();
    assert_eq!(world.left(), ["incr", "lpush"]);
    assert!(world.host.unknown_writes.borrow().is_empty());
}

#[test]
fn a_request_of_which_a_part_was_sent_counts_as_sent() {
    let world = World::new();
    world.request("INCR n", 0);
    world.link.queue.borrow_mut().written = 3;
    world.link.lose();
    assert!(world.left().is_empty());
    assert_eq!(world.errors().len(), 1);
}

#[test]
fn a_request_is_repeated_a_bounded_number_of_times() {
    let world = World::new();
    world.request("GET a", 0);
    for _ in 0..2 {
        world.write_all();
        world.link.lose();
        assert!(world.errors().is_empty());
    }
    world.write_all();
    world.link.lose();
    assert_eq!(world.errors().len(), 1);
}

#[test]
fn the_first_sending_to_another_backend_is_free() {
    let world = World::new();
    world.request("SET a 1", 0);
    for _ in 0..2 {
        world.write_all();
        world.link.lose();
    }
    world.write_all();
    let left = world.link.abort();
    assert_eq!(left.len(), 1);
    assert!(world.errors().is_empty());
    assert!(left[0].0.attempts > world.link.settings.attempts_max, "and it is the last one");
}

#[test]
fn a_client_that_saw_half_a_reply_is_cut_off() {
    let world = World::new();
    world.request("GET a", flag::STREAMING);
    world.write_all();
    world.link.lose();
    assert!(world.client.0.cut_off.get());
    assert!(world.left().is_empty());
}

#[test]
fn nobody_s_requests_are_not_sent_again() {
    let world = World::new();
    world.request("SET a 1", 0);
    world.write_all();
    world.client.0.gone.set(true);
    world.link.lose();
    assert!(world.left().is_empty());
    assert_eq!(*world.host.unknown_writes.borrow(), ["set"]);
}

#[test]
fn a_request_that_outlived_its_time_unsent_is_answered_and_never_sent() {
    let world = World::new();
    world.request("SET a 1", 0);
    world.request("SET b 1", flag::SPECIAL);
    world.link.sweep(clock::micros() + 3_000_000);
    assert_eq!(world.errors(), [(0, "-NOBACKEND".to_owned())]);
    assert_eq!(*world.client.0.special.borrow(), [1]);
    assert!(world.left().is_empty());
    assert_eq!(world.link.backend.in_flight(), 0);
}

#[test]
fn a_request_that_outlived_its_time_in_flight_is_answered_once_and_its_reply_awaited() {
    let world = World::new();
    world.request("GET a", 0);
    world.request("INCR n", 0);
    world.write_all();
    let later = clock::micros() + 3_000_000;
    world.link.sweep(later);
    world.link.sweep(later);
    assert_eq!(world.errors(), [(0, "-TIMEOUT".to_owned()), (1, "-UNKNOWNOUTCOME".to_owned())]);
    assert_eq!(world.link.in_flight(), 2);
    assert_eq!(*world.host.unknown_writes.borrow(), ["incr"]);
}

#[test]
fn a_write_that_was_refused_and_found_nobody_was_not_executed_and_one_that_was_lost_may_have_been() {
    let world = World::new();
    world.request("SET a 1", 0);
    world.write_all();
    receive(&world, b"-READONLY You can't write against a read only replica.\r\n");
    let (_, refused, bytes) = world.link.queue.borrow_mut().delayed.pop().unwrap();
    world.link.push(refused, &bytes);
    world.link.sweep(clock::micros() + 3_000_000);
    assert_eq!(world.errors(), [(0, "-NOBACKEND".to_owned())]);
    world.request("SET b 1", 0);
    world.write_all();
    world.link.lose();
    world.link.sweep(clock::micros() + 3_000_000);
    assert_eq!(world.errors()[1], (1, "-UNKNOWNOUTCOME".to_owned()));
}

#[test]
fn slow_and_blocking_requests_are_given_their_time() {
    let world = World::new();
    world.request("KEYS *", 0);
    world.request("BLPOP l 0", 0);
    world.link.state.set(super::link::State::Ready);
    world.write_all();
    world.link.sweep(clock::micros() + 3_000_000);
    assert!(world.errors().is_empty());
}

#[test]
fn a_slow_request_that_has_no_connection_lives_no_longer_than_any_other() {
    let world = World::new();
    world.request("EVAL return(1) 0", 0);
    let now = clock::micros();
    // It may have waited behind another one, on a connection that is lost only now.
    world.link.connecting_since_us.set(now + 3_000_000);
    world.link.sweep(now + 4_000_000);
    assert!(world.errors().is_empty());
    world.link.sweep(now + 6_000_000);
    assert_eq!(world.errors(), [(0, "-NOBACKEND".to_owned())]);
}

#[test]
fn the_gauge_of_requests_in_flight_comes_back_to_zero() {
    let world = World::new();
    for words in ["GET a", "INCR n", "SET a 1"] {
        world.request(words, 0);
    }
    assert_eq!(world.link.backend.in_flight(), 3);
    world.write_all();
    let left = world.link.abort();
    assert_eq!(left.len(), 2);
    assert_eq!(world.link.backend.in_flight(), 0);
}

#[test]
fn repeats_on_the_same_backend_are_held_to_the_budget_and_those_on_another_are_free() {
    let world = World::new();
    for _ in 0..100 {
        world.request("GET a", 0);
        world.request("GET b", 0);
    }
    world.write_all();
    world.link.lose();
    assert!(world.errors().is_empty());
    // Ten a second, of which ten seconds are saved up at the start.
    world.link.charge_repeats();
    assert_eq!(world.errors().len(), 100);
    assert_eq!(world.link.in_flight(), 100);
    assert_eq!(world.left().len(), 100);
}

#[test]
fn reads_behind_a_script_overtake_it_unless_a_write_of_their_own_session_is_before_them() {
    let world = World::new();
    let (reader, writer) = (Client::default(), Client::default());
    world.request("EVAL script 0", 0);
    world.request("PING", 0);
    world.request_of(&reader, "GET a", 0);
    world.request_of(&writer, "SET a 1", 0);
    world.request_of(&writer, "GET a", 0);
    world.request_of(&reader, "GET b", 0);
    world.write_all();
    let taken = world.link.take_reads_behind_head();
    assert!(taken.iter().all(|(entry, _)| entry.owner.same_as(&reader)));
    assert_eq!(taken.iter().map(|(entry, _)| entry.seq).collect::<Vec<_>>(), [2, 5]);
    // What comes for them on the old link is dropped, so nothing moves twice.
    assert!(world.link.take_reads_behind_head().is_empty());
}

#[test]
fn what_a_transaction_only_queued_is_kept_whatever_it_is_and_leaves_no_doubt() {
    let world = World::new();
    for words in ["MULTI", "INCR n", "LPUSH l 1"] {
        world.request(words, flag::QUEUED);
    }
    world.request("EXEC", 0);
    world.write_all();
    world.link.lose();
    assert_eq!(world.left(), ["multi", "incr", "lpush"]);
    assert_eq!(world.errors(), [(3, "-UNKNOWNOUTCOME".to_owned())]);
    assert_eq!(*world.host.unknown_writes.borrow(), ["exec"]);
}

#[test]
fn replies_around_a_request_that_failed_are_given_to_their_own_requests() {
    let world = World::new();
    for words in ["GET a", "INCR n", "GET b"] {
        world.request(words, 0);
    }
    world.write_all();
    world.link.lose();
    world.write_all();
    let mut cutter = Cutter::new(&world.link);
    let bytes = b"+a\r\n+b\r\n";
    cutter.space()[..bytes.len()].copy_from_slice(bytes);
    cutter.received(&world.link, bytes.len(), clock::micros()).unwrap();
    let replies = world.client.0.replies.borrow();
    assert_eq!(replies[1..], [(0, "+a\r\n".to_owned()), (2, "+b\r\n".to_owned())]);
}

#[test]
fn a_link_that_is_left_keeps_what_it_has_not_written_yet() {
    let world = World::new();
    world.request("EVAL script 0", 0);
    world.write_all();
    world.request("GET a", 0);
    world.link.retire();
    assert!(!world.link.accepts());
    assert_eq!(world.link.in_flight(), 2, "the session's later request must not overtake on another link");
}

#[test]
fn only_sessions_that_do_nothing_but_read_overtake_a_slow_head() {
    let world = World::new();
    world.request("EVAL script 0", 0);
    // Another client that only reads, and one that writes after it has read.
    let (reader, writer) = (Client::default(), Client::default());
    for (client, words) in [(&reader, "GET a"), (&writer, "GET a"), (&writer, "SET a 2"), (&reader, "GET b")] {
        world.request_of(client, words, 0);
    }
    world.write_all();
    let taken = world.link.take_reads_behind_head();
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|(entry, _)| entry.owner.same_as(&reader)));
    // What was taken is answered elsewhere: its reply here is dropped, and it is taken once.
    assert!(world.link.take_reads_behind_head().is_empty());
}

/// A connection that was answered quickly, and has just been written to again.
fn wait_for_an_answer(world: &World) -> u64 {
    let gather = &world.link.gather;
    gather.wrote(40, 0, 1_000_000);
    gather.read(1_000_050);
    world.write_all();
    gather.wrote(40, 0, 1_000_060);
    1_000_070
}

fn waits(world: &World, now_us: u64) -> bool {
    world.link.gathers(&world.link.queue.borrow(), now_us)
}

#[test]
fn a_request_waits_for_the_answer_to_another_client_s_but_not_to_one_of_its_own() {
    let world = World::new();
    world.request("GET a", 0);
    let now_us = wait_for_an_answer(&world);
    world.request("GET b", 0);
    assert!(!waits(&world, now_us));
    world.request_of(&Client::default(), "GET c", 0);
    assert!(waits(&world, now_us));
}

#[test]
fn nothing_waits_behind_a_request_that_may_take_long() {
    for (head, expected) in
        [("GET a", true), ("SET a 1", true), ("MGET a b", true), ("KEYS *", false), ("EVAL x 0", false)]
    {
        let world = World::new();
        world.request(head, 0);
        let now_us = wait_for_an_answer(&world);
        world.request_of(&Client::default(), "GET b", 0);
        assert_eq!(waits(&world, now_us), expected, "{head}");
    }
}

/// A block of two requests, and behind it a write of a client.
fn with_block() -> World {
    let world = World::new();
    let mut bytes = Vec::new();
    encode_request(&mut bytes, &[b"SELECT", b"15"]);
    encode_request(&mut bytes, &[b"HSET", b"incident", b"block:p.1.7:0", b"keys"]);
    let entry = Entry {
        owner: world.client.clone(),
        at_us: clock::micros(),
        seq: 0,
        len: bytes.len() as u32,
        confirmations: 2,
        class: command::Class::Write,
        attempts: 2,
        flags: flag::ABANDONED | flag::AHEAD,
    };
    world.link.push(entry, &bytes);
    world.request("SET a 1", 0);
    world.write_all();
    world
}

fn receive(world: &World, bytes: &[u8]) {
    let mut cutter = Cutter::new(&world.link);
    cutter.space()[..bytes.len()].copy_from_slice(bytes);
    cutter.received(&world.link, bytes.len(), clock::micros()).unwrap();
}

#[test]
fn a_block_swallows_its_own_replies_and_the_next_is_the_clients() {
    let world = with_block();
    receive(&world, b"+OK\r\n:1\r\n+OK\r\n");
    assert_eq!(*world.host.blocks.borrow(), [false]);
    assert_eq!(*world.client.0.replies.borrow(), [(0, "+OK\r\n".to_owned())]);
    assert_eq!(world.link.in_flight(), 0);
}

#[test]
fn a_block_of_which_any_request_was_refused_was_refused() {
    let world = with_block();
    receive(&world, b"-NOPERM no\r\n");
    assert!(world.host.blocks.borrow().is_empty(), "its last reply is still to come");
    receive(&world, b":1\r\n");
    assert_eq!(*world.host.blocks.borrow(), [true]);
}

#[test]
fn a_block_is_sent_again_whole_on_its_own_connection_and_on_no_other() {
    let world = with_block();
    receive(&world, b"+OK\r\n");
    world.link.lose();
    assert!(world.host.unknown_writes.borrow().iter().all(|name| name == "set"), "a block is no write of a client's");
    assert_eq!(world.link.in_flight(), 2);
    world.write_all();
    receive(&world, b"+OK\r\n:1\r\n");
    assert_eq!(*world.host.blocks.borrow(), [false]);
    let world = with_block();
    world.link.lose();
    assert_eq!(world.left(), ["set"], "another server gets a block of its own");
}

#[test]
fn a_connection_from_before_a_loss_may_overtake_what_was_lost_and_one_from_after_it_may_not() {
    let world = World::new();
    world.link.state.set(super::link::State::Ready);
    world.link.greeted_us.set(clock::micros());
    assert!(!world.link.may_overtake_the_lost(), "nothing was lost");
    world.link.backend.add_undead(7);
    assert!(world.link.may_overtake_the_lost());
    world.link.greeted_us.set(clock::micros() + 1);
    assert!(!world.link.may_overtake_the_lost(), "its handshake has killed the lost one");
}

/// Replies that took at least as long as this, of those that came so far.
fn slow_replies(world: &World, least: Duration) -> u64 {
    let mut sum = [0; LATENCY_BUCKETS];
    world.link.counters().latency.iter().for_each(|latencies| latencies.add_into(&mut sum));
    sum[latency_bucket(least.as_micros() as u64)..].iter().sum()
}

/// One client's reads and then one of another client's, all asked at once, and a reply every 10 ms from `first` on; how many
/// replies were slow.
fn slow_of_a_pipeline(first: Duration, value_bytes: usize) -> u64 {
    let world = World::new();
    let start_us = clock::micros();
    (0..80).for_each(|_| world.request("GET a", 0));
    world.request_of(&Client::default(), "GET a", 0);
    world.write_all();
    let mut reply = format!("${value_bytes}\r\n").into_bytes();
    reply.resize(reply.len() + value_bytes, b'x');
    reply.extend(b"\r\n");
    let mut cutter = Cutter::new(&world.link);
    for at in 0..81 {
        let now_us = start_us + (first + at * Duration::from_millis(10)).as_micros() as u64;
        let mut left = reply.as_slice();
        while !left.is_empty() {
            let space = cutter.space();
            let n = left.len().min(space.len());
            space[..n].copy_from_slice(&left[..n]);
            cutter.received(&world.link, n, now_us).unwrap();
            left = &left[n..];
        }
    }
    slow_replies(&world, Duration::from_millis(700))
}

#[test]
fn waiting_behind_one_s_own_replies_on_a_full_line_is_not_the_servers_doing() {
    // 20 MB/s: of those from 700 ms on, ten of the one and one of the other, the line explains the ten.
    assert_eq!(slow_of_a_pipeline(Duration::ZERO, 200_000), 1);
}

#[test]
fn a_pipeline_does_not_hide_a_server_that_is_slow_itself() {
    assert!(slow_of_a_pipeline(Duration::ZERO, 1_000) >= 11, "the line carries little");
    assert_eq!(slow_of_a_pipeline(Duration::from_secs(1), 1_000), 81, "and began late");
    assert!(
        slow_of_a_pipeline(Duration::from_secs(1), 200_000) > 60,
        "frozen for a second, and then as fast as a line"
    );
}
