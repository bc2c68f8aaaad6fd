//! What is published during planned switchovers reaches everybody who listens, once and in order.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use serde_json::json;
use support::{
    Client, Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, ms, secs,
};

/// Who has heard what: by the way it came (command, pattern, channel), the numbers in the order of their arrival.
type Heard = BTreeMap<Vec<String>, Vec<u64>>;

const CHANNELS: [&str; 3] = ["news:0", "news:1", "other:0"];
const END: &str = "end";

/// Publishers stop, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Listens until every way of hearing has ended.
fn listen<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut client: Client,
    ways: usize,
) -> ScopedJoinHandle<'scope, Heard> {
    scope.spawn(move || {
        let (mut heard, mut ended) = (Heard::new(), 0);
        while ended < ways {
            let mut words: Vec<String> = client.read().elements().iter().map(Reply::text).collect();
            let said = words.pop().unwrap();
            assert!(words[0].ends_with("message"), "{words:?} {said}");
            if said == END {
                ended += 1;
            } else {
                heard.entry(words).or_default().push(said.parse().unwrap());
            }
        }
        heard
    })
}

/// Publishes numbers until it is told to stop, each to the same number of listeners; returns how many.
fn publish(mut client: Client, command: &str, channel: &str, listeners: i64, stop: &AtomicBool) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let counted = client.command(&[command, channel, &number.to_string()]);
        assert_eq!(counted, Reply::Integer(listeners), "{command} {channel} {number}");
        number += 1;
    }
    assert_eq!(client.command(&[command, channel, END]), Reply::Integer(listeners));
    number
}

#[track_caller]
fn subscribe(client: &mut Client, command: &str, names: &[&str]) {
    let mut words = vec![command];
    words.extend(names);
    client.send(&words);
    for name in names {
        let confirmation = client.read();
        assert_eq!(confirmation.elements()[1], Reply::bulk(name), "{confirmation:?}");
    }
}

/// Listens in each way, publishes without a pause, switches meanwhile, and compares.
fn nothing_is_lost_in(standin: &StandinProcess, switch: impl Fn(usize)) {
    let (mut second, mut third, mut pattern) = (standin.connect(), standin.connect_resp3(), standin.connect());
    subscribe(&mut second, "SUBSCRIBE", &CHANNELS);
    subscribe(&mut third, "SUBSCRIBE", &CHANNELS);
    subscribe(&mut third, "SSUBSCRIBE", &["shard"]);
    subscribe(&mut pattern, "PSUBSCRIBE", &["news:*", "*"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let stops = Stop(stop);
        let second = listen(scope, second, CHANNELS.len());
        let third = listen(scope, third, CHANNELS.len() + 1);
        let pattern = listen(scope, pattern, 5);
        let publishers: Vec<_> = CHANNELS
            .into_iter()
            .map(|channel| {
                let listeners = if channel.starts_with("news") { 4 } else { 3 };
                let client = standin.connect();
                (channel, scope.spawn(move || publish(client, "PUBLISH", channel, listeners, stop)))
            })
            .collect();
        let client = standin.connect();
        let shard = scope.spawn(move || publish(client, "SPUBLISH", "shard", 1, stop));
        for number in 0..6 {
            std::thread::sleep(ms(150));
            switch(number);
        }
        std::thread::sleep(ms(150));
        drop(stops);
        let mut published: BTreeMap<&str, u64> =
            publishers.into_iter().map(|(channel, publisher)| (channel, publisher.join().unwrap())).collect();
        published.insert("shard", shard.join().unwrap());
        eprintln!("published: {published:?}");
        assert!(published.values().all(|count| *count > 500), "too little to say anything: {published:?}");
        for (who, heard, ways) in [("RESP2", second, 3), ("RESP3", third, 4), ("patterns", pattern, 5)] {
            let heard = heard.join().unwrap();
            assert_eq!(heard.len(), ways, "{who}: {:?}", heard.keys());
            for (way, numbers) in heard {
                let count = published[way.last().unwrap().as_str()];
                let wrong = numbers.iter().zip(0..).find(|(heard, expected)| *heard != expected);
                assert!(wrong.is_none(), "{who} by {way:?}: heard {wrong:?} (heard, expected) of {count}");
                assert_eq!(numbers.len() as u64, count, "{who} by {way:?}: the last ones are missing");
            }
        }
    });
}

/// To the backup and back, as soon as the next one may be entered.
fn to_and_fro(standin: &StandinProcess, number: usize) {
    let order = |dry_run: bool| match number % 2 {
        0 => standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "drain", "dry_run": dry_run})),
        _ => standin.post("/v1/recover", &json!({"plan": "drain", "dry_run": dry_run})),
    };
    eventually(secs(10), "it may be entered", || order(true).code == 200);
    let answer = order(false);
    assert_eq!(answer.code, 200, "{answer:?}");
}

#[test]
fn what_is_published_during_planned_switchovers_is_heard_once_and_in_order() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).table("[recovery]\nenabled = false").start();
    nothing_is_lost_in(&standin, |number| to_and_fro(&standin, number));
    standin.finish();
}

#[test]
fn what_is_published_during_a_plan_blue_green_and_the_ways_back_is_heard_once_and_in_order() {
    let (blue, green) = (RedisServer::start(), RedisServer::start());
    let mut direct = blue.connect();
    (0..500).for_each(|n| assert_eq!(direct.command(&["SET", &format!("k:{n}"), "v"]), Reply::ok()));
    drop(direct);
    let mirrored = "data = \"mirrored\"";
    let config = StandinConfig::new().primary(blue.address());
    let config = config.backend("backup-a", "backup", &green.address().to_string(), mirrored);
    let mut standin = config.table("[recovery]\nenabled = false").start();
    standin.declare(&["plan blue_green"]);
    eventually(secs(10), "it is in step", || standin.backend("backup-a")["mirror"]["state"] == "in_step");
    nothing_is_lost_in(&standin, |number| {
        if number > 0 {
            return to_and_fro(&standin, number);
        }
        let body = json!({"to": "backup-a", "plan": "blue_green", "dwell": "300ms"});
        let answer = standin.post("/v1/failover", &body);
        assert_eq!(answer.code, 200, "{answer:?}");
        let ended = || {
            standin
                .events_of("plan")
                .into_iter()
                .find(|event| event["result"] == "done" || event["result"] == "rolled_back")
        };
        eventually(secs(30), "the plan ends", || ended().is_some());
        assert_eq!(ended().unwrap()["result"], "done", "{:#?}", ended());
    });
    standin.finish();
}

/// What is published on a master comes on its replica too, before the switch and after it.
#[test]
fn of_servers_that_replicate_each_other_nobody_hears_a_message_twice() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    let port = primary.address().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
    let is_in_step =
        |server: &RedisServer| server.info("role") == "master" || server.info("master_link_status") == "up";
    eventually(secs(10), "it is in step", || is_in_step(&replica));
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &replica.address().to_string(), "data = \"replica\"");
    let mut standin = config.table("[replica]\npromote = true\n[recovery]\nenabled = false").start();
    standin.declare(&["identity_changed", "backup-a", "primary"]);
    nothing_is_lost_in(&standin, |number| {
        eventually(secs(10), "both are in step", || is_in_step(&primary) && is_in_step(&replica));
        to_and_fro(&standin, number);
    });
    standin.finish();
}

#[test]
fn what_is_still_on_its_way_from_the_old_backend_is_heard_before_it_is_left() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address()).start();
    standin.declare(&["primary"]);
    let mut listener = standin.connect();
    subscribe(&mut listener, "SUBSCRIBE", &["news"]);
    relay.set(Fault::Delay(ms(30)));
    assert_eq!(primary.command(&["PUBLISH", "news", "late"]), Reply::Integer(1));
    to_and_fro(&standin, 0);
    relay.assert_fired();
    assert_eq!(standin.connect().command(&["PUBLISH", "news", "next"]), Reply::Integer(1));
    for said in ["late", "next"] {
        assert_eq!(listener.read(), Reply::Array(["message", "news", said].map(Reply::bulk).to_vec()));
    }
    standin.finish();
}

#[test]
fn channels_that_are_joined_and_left_during_planned_switchovers_are_heard_from_the_confirmation_on() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).table("[recovery]\nenabled = false").start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, standin) = (&stop, &standin);
        let stops = Stop(stop);
        let joining: Vec<_> = ["first", "second", "third"]
            .into_iter()
            .map(|name| scope.spawn(move || join_and_leave(standin, name, stop)))
            .collect();
        for number in 0..30 {
            std::thread::sleep(ms(20));
            to_and_fro(standin, number);
        }
        drop(stops);
        for joined in joining {
            let joined = joined.join().unwrap();
            assert!(joined > 100, "only {joined}");
        }
    });
    for server in [&primary, &backup] {
        eventually(secs(5), "nobody listens any more", || {
            server.command(&["PUBSUB", "CHANNELS"]).elements().is_empty()
        });
    }
    standin.finish();
}

/// One channel more and one less at a time, each heard of once while it is joined; how many.
fn join_and_leave(standin: &StandinProcess, name: &str, stop: &AtomicBool) -> usize {
    let (mut listener, mut publisher) = (standin.connect_resp3(), standin.connect());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return number;
        }
        let (old, new) = (format!("{name}:{}", number.max(1) - 1), format!("{name}:{number}"));
        subscribe(&mut listener, "SUBSCRIBE", &[&new]);
        assert_eq!(publisher.command(&["PUBLISH", &new, "hello"]), Reply::Integer(1), "{new}");
        assert_eq!(listener.read(), Reply::Push(["message", &new, "hello"].map(Reply::bulk).to_vec()));
        if number % 7 == 6 {
            listener.send(&["UNSUBSCRIBE"]);
            assert_eq!((listener.read().elements().len(), listener.read().elements().len()), (3, 3));
        } else if number % 7 > 0 {
            subscribe(&mut listener, "UNSUBSCRIBE", &[&old]);
            assert_eq!(publisher.command(&["PUBLISH", &old, "hello"]), Reply::Integer(0), "{old}");
        }
    }
    unreachable!("numbers have no end")
}

#[test]
fn a_switchover_that_is_given_up_changes_nothing_for_those_who_listen() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    let (mut listener, mut publisher) = (standin.connect(), standin.connect());
    subscribe(&mut listener, "SUBSCRIBE", &["news"]);
    let script = "local t = redis.call('TIME') local u = t[1] * 1000000 + t[2] + 1500000 \
                  repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > u return 1";
    let mut busy = standin.connect();
    busy.send(&["EVAL", script, "0"]);
    eventually(secs(5), "the script runs", || standin.backend("primary")["in_flight"].as_u64() > Some(0));
    let answer = standin.post("/v1/failover", &json!({"to": "backup-a", "plan": "drain"}));
    assert_eq!(answer.code, 409, "it is not drained in time: {answer:?}");
    assert_eq!(busy.read(), Reply::Integer(1));
    eventually(secs(5), "nobody listens there", || backup.command(&["PUBSUB", "CHANNELS"]).elements().is_empty());
    assert_eq!(backup.command(&["PUBLISH", "news", "elsewhere"]), Reply::Integer(0));
    assert_eq!(publisher.command(&["PUBLISH", "news", "here"]), Reply::Integer(1));
    assert_eq!(listener.read(), Reply::Array(["message", "news", "here"].map(Reply::bulk).to_vec()));
    to_and_fro(&standin, 0);
    assert_eq!(publisher.command(&["PUBLISH", "news", "there"]), Reply::Integer(1));
    assert_eq!(listener.read(), Reply::Array(["message", "news", "there"].map(Reply::bulk).to_vec()));
    standin.finish();
}

/// The contrast: nobody is prepared for this.
#[test]
fn of_a_backend_that_dies_only_what_is_published_until_the_next_one_is_subscribed_to_is_lost() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let (mut listener, mut publisher) = (standin.connect(), standin.connect());
    subscribe(&mut listener, "SUBSCRIBE", &["news"]);
    let stop = AtomicBool::new(false);
    let (counted, heard) = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut counted = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                counted.push(publisher.command(&["PUBLISH", "news", &counted.len().to_string()]));
            }
            assert_eq!(publisher.command(&["PUBLISH", "news", END]), Reply::Integer(1));
            counted
        });
        let (listening, stops) = (listen(scope, listener, 1), Stop(&stop));
        std::thread::sleep(ms(200));
        primary.kill();
        standin.wait_until_active("backup-a", secs(5));
        std::thread::sleep(ms(300));
        drop(stops);
        let heard: Vec<u64> = listening.join().unwrap().into_values().flatten().collect();
        (publishing.join().unwrap(), heard)
    });
    assert!(heard.is_sorted_by(|one, next| one < next), "nothing twice, and in order");
    let was_counted = |number: &usize| counted[*number] == Reply::Integer(1);
    let missed: Vec<usize> = (0..counted.len())
        .filter(|number| was_counted(number) && heard.binary_search(&(*number as u64)).is_err())
        .collect();
    let unheard = (0..counted.len()).filter(|number| !was_counted(number)).count();
    eprintln!(
        "of {} messages {unheard} had no listener or no answer; {missed:?} were lost with the server",
        counted.len()
    );
    assert!(missed.len() <= 1, "the server may die between its reply and the message: {missed:?}");
    assert!(counted.len() > 500 && heard.len() > 500);
    standin.finish();
}
