//! Who owns a backend's content, and what may therefore be done to it.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::{
    Client, Fault, FaultRelay, PRIMARY_LOST, RedisServer, Reply, StandinConfig, StandinProcess, eventually, secs,
    throughout,
};

/// The mark lives in the server's last database, out of the application's sight.
fn mark(server: &RedisServer, group: &str) -> String {
    let mut client = server.connect();
    assert_eq!(client.command(&["SELECT", "15"]), Reply::ok());
    client.command(&["GET", &format!("standin:{group}:generation")]).text()
}

#[test]
fn backends_that_are_empty_at_first_contact_are_owned() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    for name in ["primary", "backup-a"] {
        eventually(secs(5), "it is owned", || standin.backend(name)["divergence"]["owned"] == true);
        assert_eq!(standin.backend(name)["enterable"], true);
    }
    assert_eq!(standin.connect().command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "the primary is marked", || !mark(&primary, "default").is_empty());
    standin.finish();
}

#[test]
fn ownership_is_remembered_by_the_mark_when_standin_starts_again() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    assert_eq!(standin.connect().command(&["SET", "k", "1"]), Reply::ok());
    eventually(secs(5), "the primary is marked", || !mark(&primary, "default").is_empty());
    standin.finish();
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    eventually(secs(5), "the mark is read", || standin.backend("primary")["divergence"]["owned"] == true);
    assert_eq!(standin.connect().command(&["GET", "k"]), Reply::bulk("1"), "nothing was removed");
    standin.finish();
}

#[test]
fn a_primary_that_held_keys_before_is_served_as_it_is_and_not_owned() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    primary.command(&["SET", "theirs", "1"]);
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(&["primary"]);
    assert_eq!(standin.backend("primary")["divergence"]["owned"], false);
    assert_eq!(standin.connect().command(&["GET", "theirs"]), Reply::bulk("1"));
    assert_eq!(standin.active(), "primary");
    standin.finish();
}

/// A backup with a key of somebody else's.
fn occupied_backup() -> (RedisServer, RedisServer, StandinProcess) {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    backup.command(&["SET", "theirs", "1"]);
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a"]);
    (primary, backup, standin)
}

const ENTERABLE: &str = "standin_backend_enterable{group=\"default\",backend=\"backup-a\"}";

#[test]
fn a_backup_that_could_not_be_entered_is_reported_at_start_with_what_mends_it() {
    let (_primary, backup, standin) = occupied_backup();
    eventually(secs(5), "it is reported", || !standin.events_of("not_enterable").is_empty());
    let status = standin.backend("backup-a");
    assert_eq!(status["enterable"], false, "{status:#}");
    assert_eq!(status["divergence"]["owned"], false, "{status:#}");
    assert!(status["why_not"].is_string(), "{status:#}");
    assert!(status["mend"].as_str().is_some_and(|mend| mend.starts_with("standin adopt backup-a")), "{status:#}");
    assert_eq!(standin.metric(ENTERABLE), 0.0);
    eventually(secs(2), "the log says so too", || standin.log().contains("standin adopt backup-a"));
    assert_eq!(backup.command(&["GET", "theirs"]), Reply::bulk("1"), "nothing was removed");
    assert_eq!(mark(&backup, "default"), "", "nor was it claimed");
    standin.finish();
}

#[test]
fn a_backup_that_could_not_be_entered_is_not_entered_when_the_primary_dies() {
    let (mut primary, backup, mut standin) = occupied_backup();
    standin.declare(&["backend"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.kill();
    let reply = client.command(&["GET", "theirs"]);
    assert!(reply.is_error_word("NOBACKEND"), "somebody else's key was served: {reply:?}");
    assert_eq!(backup.command(&["GET", "theirs"]), Reply::bulk("1"));
    standin.finish();
}

#[test]
fn another_backup_is_chosen_when_the_best_one_cannot_be_entered() {
    let (mut primary, occupied, free) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
    occupied.command(&["SET", "theirs", "1"]);
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &occupied.address().to_string(), "weight = 1000");
    let mut standin = config.backup("backup-b", free.address()).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.kill();
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil, "no error");
    assert_eq!(standin.active(), "backup-b");
    standin.finish();
}

#[test]
fn an_adopted_backup_is_emptied_and_can_be_entered() {
    let (mut primary, backup, standin) = occupied_backup();
    eventually(secs(5), "it has been looked at", || !standin.events_of("not_enterable").is_empty());
    let answer = standin.post("/v1/adopt", &json!({"backend": "backup-a"}));
    assert_eq!(answer.code, 200, "{answer:?}");
    eventually(secs(5), "it is owned", || standin.backend("backup-a")["divergence"]["owned"] == true);
    assert_eq!(standin.backend("backup-a")["enterable"], true);
    eventually(secs(3), "the metric says so", || standin.metric(ENTERABLE) == 1.0);
    eventually(secs(3), "a cold backup keeps no keys while it waits", || {
        backup.command(&["EXISTS", "theirs"]) == Reply::Integer(0)
    });
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "2"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("2"));
    assert_eq!(standin.active(), "backup-a");
    standin.finish();
}

/// An owned backup on which `k` holds an old value in databases 0 and 5, and was emptied in database 0 alone, since no
/// client has used database 5 yet.
fn partly_emptied() -> (RedisServer, RedisServer, StandinProcess) {
    let (primary, backup, standin) = occupied_backup();
    let mut stranger = backup.connect();
    stranger.command(&["SELECT", "5"]);
    assert_eq!(stranger.command(&["SET", "k", "old"]), Reply::ok());
    stranger.command(&["CLIENT", "SETNAME", "gone"]);
    drop(stranger);
    eventually(secs(5), "it has been looked at", || !standin.events_of("not_enterable").is_empty());
    assert_eq!(standin.post("/v1/adopt", &json!({"backend": "backup-a"})).code, 200);
    eventually(secs(5), "database 0 is emptied", || backup.command(&["EXISTS", "theirs"]) == Reply::Integer(0));
    eventually(secs(5), "it can be entered", || standin.backend("backup-a")["enterable"] == true);
    (primary, backup, standin)
}

#[test]
fn a_database_first_used_on_a_backup_that_was_emptied_in_part_is_emptied_before() {
    let (mut primary, backup, standin) = partly_emptied();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "zero", "1"]), Reply::ok());
    primary.kill();
    assert_eq!(client.command(&["SET", "zero", "2"]), Reply::ok());
    assert_eq!(standin.active(), "backup-a");
    assert_eq!(client.command(&["SELECT", "5"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil, "what nobody has looked at was served");
    assert_eq!(client.command(&["SET", "k", "new"]), Reply::ok());
    assert_eq!(client.command(&["GET", "k"]), Reply::bulk("new"));
    assert_eq!(client.command(&["SELECT", "0"]), Reply::ok());
    assert_eq!(client.command(&["GET", "zero"]), Reply::bulk("2"), "the database that served is left alone");
    assert_eq!(backup.command(&["GET", "zero"]), Reply::bulk("2"));
    standin.finish();
}

#[test]
fn a_database_first_used_by_a_select_on_a_connection_of_its_own_or_in_a_transaction_is_emptied_before() {
    for in_transaction in [false, true] {
        let (mut primary, _backup, standin) = partly_emptied();
        let mut client = standin.connect();
        assert_eq!(client.command(&["SET", "zero", "1"]), Reply::ok());
        primary.kill();
        assert_eq!(client.command(&["SET", "zero", "2"]), Reply::ok());
        if in_transaction {
            assert_eq!(client.command(&["MULTI"]), Reply::ok());
            assert_eq!(client.command(&["SELECT", "5"]).text(), "QUEUED");
            assert_eq!(client.command(&["GET", "k"]).text(), "QUEUED");
            assert_eq!(client.command(&["EXEC"]), Reply::Array(vec![Reply::ok(), Reply::Nil]));
        } else {
            assert_eq!(client.command(&["WATCH", "zero"]), Reply::ok());
            assert_eq!(client.command(&["SELECT", "5"]), Reply::ok());
            assert_eq!(client.command(&["GET", "k"]), Reply::Nil);
        }
        standin.finish();
    }
}

#[test]
fn a_database_first_used_just_before_the_primary_dies_is_emptied_on_the_backup_too() {
    let (mut primary, _backup, standin) = partly_emptied();
    let mut client = standin.connect();
    assert_eq!(client.command(&["SELECT", "5"]), Reply::ok());
    assert_eq!(client.command(&["SET", "k", "new"]), Reply::ok());
    primary.kill();
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil, "what nobody has looked at was served");
    assert_eq!(standin.active(), "backup-a");
    standin.finish();
}

#[test]
fn a_database_that_may_not_be_emptied_is_refused_and_the_others_are_served() {
    let (mut primary, backup, mut standin) = partly_emptied();
    standin.declare(&["backend"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "zero", "1"]), Reply::ok());
    primary.kill();
    assert_eq!(client.command(&["SET", "zero", "2"]), Reply::ok());
    let mut stranger = backup.connect();
    stranger.command(&["SELECT", "5"]);
    stranger.command(&["GET", "k"]);
    let reply = client.command(&["SELECT", "5"]);
    assert!(reply.is_error_word("NOBACKEND"), "{reply:?}");
    assert_eq!(client.command(&["GET", "zero"]), Reply::bulk("2"));
    assert_eq!(stranger.command(&["GET", "k"]), Reply::bulk("old"), "the stranger's keys stay");
    eventually(secs(3), "it is said", || {
        standin.events_of("not_enterable").iter().any(|event| event["message"].to_string().contains("selected"))
    });
    standin.finish();
}

#[test]
fn an_adopted_primary_keeps_its_content() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    primary.command(&["SET", "theirs", "1"]);
    let mut standin = StandinConfig::pair(primary.address(), backup.address()).start();
    standin.declare(&["primary"]);
    assert!(standin.epoch() > 0, "it has been looked at");
    assert_eq!(standin.post("/v1/adopt", &json!({"backend": "primary"})).code, 200);
    eventually(secs(5), "it is owned", || standin.backend("primary")["divergence"]["owned"] == true);
    assert_eq!(standin.connect().command(&["GET", "theirs"]), Reply::bulk("1"), "the active was emptied");
    standin.finish();
}

#[test]
fn adopting_what_does_not_exist_is_refused() {
    let (primary, backup) = (RedisServer::start(), RedisServer::start());
    let standin = StandinConfig::pair(primary.address(), backup.address()).start();
    assert_eq!(standin.post("/v1/adopt", &json!({"backend": "nobody"})).code, 404);
    assert_eq!(standin.post("/v1/adopt", &json!({})).code, 400);
    standin.finish();
}

#[test]
fn an_owned_primary_at_which_others_work_is_not_flushed() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::quick_pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "old"]), Reply::ok());
    primary.save();
    primary.kill();
    assert_eq!(client.command(&["SET", "k", "new"]), Reply::ok());
    primary.restart_with_content(&[]);
    // The stranger is there from the first moment on, and works.
    let mut stranger = loop {
        if let Ok(client) = Client::try_connect(primary.address()) {
            break client;
        }
    };
    stranger.command(&["CLIENT", "SETNAME", "stranger"]);
    throughout(secs(4), "its content stays", || stranger.command(&["GET", "k"]) == Reply::bulk("old"));
    let read = client.command(&["GET", "k"]);
    assert_eq!(read, Reply::bulk("new"), "and it is not read from");
    standin.finish();
}

#[test]
fn two_groups_of_one_process_fail_over_apart() {
    let mut servers: Vec<RedisServer> = (0..4).map(|_| RedisServer::start()).collect();
    let at = |index: usize| servers[index].address();
    let config = StandinConfig::new().group("cache", at(0), at(1)).group("sessions", at(2), at(3));
    let mut standin = config.start();
    standin.declare(PRIMARY_LOST);
    let mut cache = Client::connect(standin.group_address("cache"));
    let mut sessions = Client::connect(standin.group_address("sessions"));
    assert_eq!(cache.command(&["SET", "k", "cache"]), Reply::ok());
    assert_eq!(sessions.command(&["SET", "k", "sessions"]), Reply::ok());
    let epoch = standin.group("sessions")["epoch"].clone();

    servers[0].kill();
    assert_eq!(cache.command(&["GET", "k"]), Reply::Nil);
    assert_eq!(sessions.command(&["GET", "k"]), Reply::bulk("sessions"));
    assert_eq!(standin.group("cache")["active"], "backup-a");
    assert_eq!(standin.group("sessions")["active"], "primary");
    assert_eq!(standin.group("sessions")["epoch"], epoch);
    assert!(standin.events_of("failover").iter().all(|event| event["group"] == "cache"));
    for (group, active) in [("cache", "backup-a"), ("sessions", "primary")] {
        let line = format!("standin_active_backend{{group=\"{group}\",backend=\"{active}\"}}");
        eventually(secs(5), "metrics are per group", || standin.metric(&line) == 1.0);
    }
    eventually(secs(5), "each is marked by its group", || {
        !mark(&servers[1], "cache").is_empty() && !mark(&servers[2], "sessions").is_empty()
    });
    assert_eq!(mark(&servers[2], "cache"), "");
    // An order must say which group it means.
    assert_eq!(standin.post("/v1/failover", &json!({})).code, 400);
    let answer = standin.post("/v1/failover", &json!({"group": "sessions", "to": "backup-a"}));
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(standin.group("sessions")["active"], "backup-a");
    standin.finish();
}

#[test]
fn a_backup_that_another_group_fills_is_not_entered() {
    let (mut first, second, shared) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
    let config = StandinConfig::new().group("cache", first.address(), shared.address());
    // The sessions' primary is the cache's backup: a mistake that must not cost anybody a key.
    let mut standin = config.group("sessions", shared.address(), second.address()).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a", "backend"]);
    let mut cache = Client::connect(standin.group_address("cache"));
    let mut sessions = Client::connect(standin.group_address("sessions"));
    assert_eq!(sessions.command(&["SET", "k", "sessions"]), Reply::ok());
    assert_eq!(cache.command(&["SET", "k", "cache"]), Reply::ok());
    first.kill();
    let reply = cache.command(&["GET", "k"]);
    assert!(reply.is_error_word("NOBACKEND"), "another group's value was served: {reply:?}");
    assert_eq!(sessions.command(&["GET", "k"]), Reply::bulk("sessions"));
    throughout(secs(2), "nothing of the other group's is removed", || {
        shared.command(&["GET", "k"]) == Reply::bulk("sessions")
    });
    standin.finish();
}

#[test]
fn a_backup_that_is_the_primary_by_another_address_is_never_emptied_and_the_status_says_so() {
    let primary = RedisServer::start();
    // As a second name of one server would be, or a proxy before it.
    let alias = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(primary.address(), alias.address()).start();
    standin.declare(&["backup-a"]);
    let mut client = standin.connect();
    assert_eq!(client.command(&["SET", "k", "1"]), Reply::ok());
    throughout(secs(3), "the primary's content stays", || client.command(&["GET", "k"]) == Reply::bulk("1"));
    let backup = standin.backend("backup-a");
    assert_eq!(backup["enterable"], false, "{backup:#}");
    assert!(backup["why_not"].to_string().contains("the same server as"), "{backup:#}");
    assert_eq!(standin.post("/v1/adopt", &json!({"backend": "backup-a"})).code, 409);
    throughout(secs(1), "also after an order", || client.command(&["GET", "k"]) == Reply::bulk("1"));
    standin.finish();
}

#[test]
fn a_primary_that_returns_with_a_content_from_before_standins_restarts_is_filled_before_it_serves() {
    let (mut primary, backup) = (RedisServer::start(), RedisServer::start());
    let mut standin = StandinConfig::quick_pair(primary.address(), backup.address()).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a"]);
    assert!(standin.epoch() > 0, "it serves");
    assert_eq!(standin.connect().command(&["SET", "k", "old"]), Reply::ok());
    // What it keeps names two Standins that have been killed since; the one before the last is known to nobody.
    let is_named_by = |count: i64| {
        let mut direct = primary.connect();
        direct.command(&["SELECT", "15"]);
        matches!(direct.command(&["SCARD", "standin:default:serving"]), Reply::Integer(names) if names >= count)
    };
    for run in 1..=2 {
        eventually(secs(3), "the primary names who serves from it", || is_named_by(run));
        primary.save();
        standin.kill();
        standin.start_again();
        standin.wait_until_ready();
    }
    eventually(secs(5), "the backup can be entered", || standin.backend("backup-a")["enterable"] == true);
    primary.kill();
    let mut client = standin.connect();
    for n in 0..100 {
        assert_eq!(client.command(&["SET", &format!("k{n}"), "new"]), Reply::ok());
    }
    primary.restart_with_content(&[]);
    primary.wait_until_it_answers();
    standin.wait_until_active("primary", secs(30));
    for n in 0..100 {
        assert_eq!(client.command(&["GET", &format!("k{n}")]), Reply::bulk("new"), "k{n}");
    }
    assert_eq!(client.command(&["GET", "k"]), Reply::Nil, "nobody has written it since");
    standin.finish();
}

#[test]
fn an_emergency_entry_removes_10_000_missed_keys_in_a_moment() {
    let (primary, mut backup) = (RedisServer::start(), RedisServer::start());
    primary.command(&["SET", "theirs", "1"]);
    let relay = FaultRelay::start(primary.address());
    let mut standin = StandinConfig::pair(relay.address(), backup.address())
        .table("[mirror]\nprimary = false\n[recovery]\ndelay = \"10m\"\ndelay_max = \"10m\"")
        .start();
    standin.declare(&["primary", "backup-a"]);
    let mut client = standin.connect();
    let mut set_all = |value: &str| {
        for first in (0..10_000).step_by(500) {
            let mut words = vec!["MSET".to_owned()];
            words.extend((first..first + 500).flat_map(|n| [format!("k:{n}"), value.to_owned()]));
            assert_eq!(client.command(&words), Reply::ok());
        }
    };
    set_all("old");
    relay.set(Fault::Refuse);
    standin.wait_until_active("backup-a", secs(20));
    set_all("new");
    relay.heal();
    eventually(secs(20), "the primary can be entered", || {
        let primary = standin.backend("primary");
        primary["enterable"] == true && primary["health"] != "failed" && primary["divergence"]["keys"] == 10_000
    });
    backup.kill();
    standin.wait_until_active("primary", secs(20));
    let events = standin.events();
    let entered = events.iter().rfind(|event| event["to"] == "primary" && event["result"] == "done").unwrap();
    assert_eq!(entered["detail"]["keys_removed"], 10_000, "{entered:#}");
    let steps = entered["detail"]["steps"].as_array().unwrap();
    let took: u64 = steps.iter().filter(|step| step["step"] == "enter").map(|step| step["us"].as_u64().unwrap()).sum();
    println!("10,000 keys were removed on the way in, which took {took} us in all");
    assert!(took < 100_000, "this is far more than a moment, also for an unoptimised build: {took} us");
    assert!((0..10_000).step_by(97).all(|n| client.command(&["GET", &format!("k:{n}")]) == Reply::Nil));
    assert_eq!(client.command(&["GET", "theirs"]), Reply::bulk("1"), "what was not written since is kept");
    standin.finish();
}
