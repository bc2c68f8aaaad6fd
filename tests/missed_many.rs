//! A primary that has missed more keys than are put right one by one is emptied, where that is allowed and costs little.
#![allow(clippy::unwrap_used)]

mod support;

use support::{
    Client, Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, secs,
};

/// More than 20,000.
const MISSED: usize = 25_000;
const AT_ONCE: usize = 500;

fn set(client: &mut Client, keys: std::ops::Range<usize>, value: &str) {
    for first in keys.clone().step_by(AT_ONCE) {
        let names: Vec<String> = (first..(first + AT_ONCE).min(keys.end)).map(|n| format!("k:{n}")).collect();
        let mut words = vec!["MSET"];
        words.extend(names.iter().flat_map(|name| [name.as_str(), value]));
        assert_eq!(client.command(&words), Reply::ok());
    }
}

/// How many of the keys are missing, and which values the others have.
fn read(client: &mut Client, keys: std::ops::Range<usize>) -> (usize, Vec<String>) {
    let (mut missing, mut values) = (0, Vec::new());
    for first in keys.clone().step_by(AT_ONCE) {
        let names = (first..(first + AT_ONCE).min(keys.end)).map(|n| format!("k:{n}"));
        let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(names).collect();
        for reply in client.command(&words).elements() {
            match reply {
                Reply::Nil => missing += 1,
                value => values.push(value.text()),
            }
        }
    }
    values.sort();
    values.dedup();
    (missing, values)
}

struct Stage {
    primary: RedisServer,
    backup: RedisServer,
    _relay: FaultRelay,
    standin: StandinProcess,
    client: Client,
}

impl Stage {
    /// The primary has held `held` keys when it is cut off, and misses the first 25,000 of them.
    fn after_an_outage(is_owned: bool, held: usize, configure: impl Fn(StandinConfig) -> StandinConfig) -> Self {
        let (primary, backup) = (RedisServer::start(), RedisServer::start());
        if !is_owned {
            primary.command(&["SET", "theirs", "1"]);
        }
        let relay = FaultRelay::start(primary.address());
        let mut standin = configure(StandinConfig::pair(relay.address(), backup.address())).start();
        standin.declare(PRIMARY_LOST);
        eventually(secs(5), "the primary is looked at", || {
            standin.epoch() > 0 && standin.backend("primary")["divergence"]["owned"] == is_owned
        });
        let mut client = standin.connect();
        set(&mut client, 0..held, "before");
        relay.set(Fault::Refuse);
        standin.wait_until_active("backup-a", secs(5));
        set(&mut client, 0..MISSED, "meanwhile");
        assert_eq!(standin.backend("primary")["divergence"]["keys"], MISSED);
        relay.heal();
        Self { primary, backup, _relay: relay, standin, client }
    }

    fn was_emptied(&self) -> bool {
        let says_so = |event: &serde_json::Value| event["message"].to_string().contains("was emptied");
        self.standin.events_of("reconciled").iter().any(says_so)
    }
}

#[test]
fn an_owned_primary_that_has_missed_very_many_keys_is_emptied_and_filled_before_it_serves_again() {
    let mut stage = Stage::after_an_outage(true, MISSED, StandinConfig::quick_recovery);
    stage.standin.wait_until_active("primary", secs(30));
    assert!(stage.was_emptied(), "{:?}", stage.standin.events_of("reconciled"));
    assert!(stage.standin.events_of("reconciled")[0].to_string().contains("it has missed 25000 keys"));
    assert_eq!(read(&mut stage.client, 0..MISSED), (0, vec!["meanwhile".to_owned()]));
    assert_eq!(stage.primary.command(&["DBSIZE"]), Reply::Integer(MISSED as i64));
    stage.standin.finish();
}

#[test]
fn a_primary_that_is_not_owned_is_put_right_key_by_key_however_many_it_has_missed() {
    let mut stage = Stage::after_an_outage(false, MISSED, StandinConfig::quick_recovery);
    stage.standin.wait_until_active("primary", secs(30));
    assert!(!stage.was_emptied(), "{:?}", stage.standin.events_of("reconciled"));
    assert_eq!(stage.client.command(&["GET", "theirs"]), Reply::bulk("1"), "what it has not missed is kept");
    assert_eq!(read(&mut stage.client, 0..MISSED), (0, vec!["meanwhile".to_owned()]));
    stage.standin.finish();
}

#[test]
fn a_primary_keeps_what_it_has_not_missed_where_the_backup_could_not_bring_it_back() {
    const HELD: usize = 3 * MISSED;
    let mut stage = Stage::after_an_outage(true, HELD, StandinConfig::quick_recovery);
    stage.standin.wait_until_active("primary", secs(30));
    assert!(!stage.was_emptied(), "{:?}", stage.standin.events_of("reconciled"));
    assert_eq!(read(&mut stage.client, 0..MISSED), (0, vec!["meanwhile".to_owned()]));
    assert_eq!(read(&mut stage.client, MISSED..HELD), (0, vec!["before".to_owned()]));
    stage.standin.finish();
}

/// The backup dies before the way back; returns the event of the failover to the primary.
fn emergency(stage: &mut Stage) -> serde_json::Value {
    eventually(secs(10), "the primary is well", || stage.standin.backend("primary")["health"] == "healthy");
    assert_eq!(stage.standin.backend("primary")["divergence"]["keys"], MISSED);
    stage.backup.kill();
    stage.standin.wait_until_active("primary", secs(10));
    let is_to_primary = |event: &serde_json::Value| event["message"].to_string().contains("backend primary serves now");
    let events = stage.standin.events_of("failover");
    events.into_iter().find(is_to_primary).unwrap()
}

/// What the primary has missed waits for the way back, which does not come for a quarter of a minute.
fn without_mirror(config: StandinConfig) -> StandinConfig {
    config.table("[mirror]\nprimary = false")
}

#[test]
fn an_owned_primary_that_has_missed_very_many_keys_is_emptied_when_it_is_entered_in_an_emergency() {
    let mut stage = Stage::after_an_outage(true, MISSED, without_mirror);
    stage.standin.declare(&["backup-a"]);
    let event = emergency(&mut stage);
    assert_eq!(event["detail"]["flushed"], true, "{event}");
    assert_eq!(event["detail"]["keys_removed"], 0, "{event}");
    assert_eq!(read(&mut stage.client, 0..MISSED), (MISSED, vec![]), "nothing old, and nothing else");
    stage.standin.finish();
}

#[test]
fn a_primary_that_is_not_owned_loses_what_it_has_missed_and_nothing_else_in_an_emergency() {
    let mut stage = Stage::after_an_outage(false, MISSED, without_mirror);
    stage.standin.declare(&["backup-a"]);
    let event = emergency(&mut stage);
    assert_eq!(event["detail"]["flushed"], false, "{event}");
    assert_eq!(event["detail"]["keys_removed"], MISSED, "{event}");
    assert_eq!(stage.client.command(&["GET", "theirs"]), Reply::bulk("1"));
    assert_eq!(read(&mut stage.client, 0..MISSED), (MISSED, vec![]));
    stage.standin.finish();
}
