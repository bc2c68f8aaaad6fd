//! Registers on servers that replicate each other: whatever dies and returns, no more is lost than the events said at most,
//! and a planned switch loses nothing. `make consistency` has the long form.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Instant;

use support::{
    Bound, Dice, Fault, FaultRelay, Lost, PRIMARY_LOST, RedisServer, RegisterLoad, RegisterReport, Reply,
    StandinConfig, StandinProcess, eventually, from_environment, ms, secs, unexplained, wall_us,
};

/// Quick to fail over and to return, so that a minute sees many of both. A server that freezes with a script at work is given
/// `timeout.slow`.
const QUICK: &str = "[timeout]\nslow = \"2s\"\n[failover]\nprofile = \"fast\"\ncooldown = \"0s\"\nmax_per_hour = 1000\n[recovery]\nthreshold = 1\ndelay = \"200ms\"\ndelay_max = \"400ms\"";
/// Operations of the short form.
const OPERATIONS: u64 = 6_000;
/// The faults, as [`World::round`] draws them; each begins while the primary serves and the backup follows it.
const KINDS: [&str; 12] = [
    "primary killed, back empty",
    "primary killed, back with an old RDB file",
    "primary killed behind a link that had stopped",
    "primary frozen, then thawed",
    "primary frozen, then thawed",
    "Standin cut off from the primary",
    "the servers cut off from each other",
    "replica killed, back empty",
    "planned switch, there and back",
    "SIGKILL of Standin",
    "SIGKILL of Standin in an outage",
    "every connection reset",
];

/// Two servers that replicate each other, relays on every way between them and Standin, and a Standin.
struct World {
    primary: RedisServer,
    backup: RedisServer,
    to_primary: FaultRelay,
    to_backup: FaultRelay,
    /// From the other server.
    into_primary: FaultRelay,
    into_backup: FaultRelay,
    standin: StandinProcess,
    /// Else the test does what Sentinel or a person would do.
    promotes: bool,
    random: Dice,
    rounds: Vec<String>,
    tally: BTreeMap<&'static str, (u64, u64)>,
    last: Option<(&'static str, u64)>,
    /// What events of each run of Standin have said.
    bounds: BTreeMap<String, Bound>,
}

impl World {
    fn start(promotes: bool, seed: u64) -> Self {
        let start = || RedisServer::start_with(&["--repl-diskless-sync-delay", "0", "--repl-timeout", "5"]);
        let (mut primary, mut backup) = (start(), start());
        let relay = |server: &RedisServer| FaultRelay::start(server.address());
        let (to_primary, to_backup) = (relay(&primary), relay(&backup));
        let (into_primary, into_backup) = (relay(&primary), relay(&backup));
        primary.announce(into_primary.address().port());
        backup.announce(into_backup.address().port());
        follow(&backup, &into_primary);
        let keys = |inner: &FaultRelay| format!("replication_address = \"{}\"", inner.address());
        let config =
            StandinConfig::new().backend("primary", "primary", &to_primary.address().to_string(), &keys(&into_primary));
        let replica = format!("data = \"replica\"\n{}", keys(&into_backup));
        let config = config.backend("backup-a", "backup", &to_backup.address().to_string(), &replica);
        let mut standin = config.table(QUICK).table(&format!("[replica]\npromote = {promotes}")).start();
        standin.declare(PRIMARY_LOST);
        standin.declare(&["backup-a", "backend", "broke the protocol", "READONLY", "objective"]);
        Self {
            primary,
            backup,
            to_primary,
            to_backup,
            into_primary,
            into_backup,
            standin,
            promotes,
            random: Dice::at(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            rounds: Vec::new(),
            tally: BTreeMap::new(),
            last: None,
            bounds: BTreeMap::new(),
        }
    }

    fn load(&self, seed: u64, operations: u64) -> RegisterLoad {
        load(&self.standin, seed, operations)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Lets the load run for a random while.
    fn run_for_up_to(&mut self, milliseconds: u64) {
        let pause = 20 + self.below(milliseconds);
        std::thread::sleep(ms(pause));
    }

    fn round(&mut self, operations: u64) {
        let began = Instant::now();
        self.settle();
        let drawn = self.below(KINDS.len() as u64);
        let kind = from_environment("STANDIN_CONSISTENCY_KIND", drawn) as usize;
        if let Some((last, from)) = self.last.replace((KINDS[kind], operations)) {
            self.tally.entry(last).or_default().1 += operations - from;
        }
        self.tally.entry(KINDS[kind]).or_default().0 += 1;
        match kind {
            0 | 1 => self.kill_the_primary(kind == 1),
            2 => self.kill_the_primary_behind_a_link_that_has_stopped(),
            3 | 4 => self.freeze(),
            5 => self.cut_standin_off(),
            6 => self.cut_the_servers_off(),
            7 => self.kill_the_replica(),
            8 => self.switch_there_and_back(),
            9 => self.restart_standin(),
            10 => self.restart_standin_in_an_outage(),
            _ => [&self.to_primary, &self.to_backup].iter().for_each(|relay| relay.reset_all()),
        }
        self.collect();
        self.rounds.push(format!("from operation {operations}: {}, {:?}", KINDS[kind], began.elapsed()));
        self.run_for_up_to(300);
    }

    /// The primary serves, and the backup follows it.
    fn settle(&mut self) {
        let start = Instant::now();
        loop {
            if !self.promotes {
                self.put_the_servers_right();
            }
            let [primary, backup] =
                ["primary", "backup-a"].map(|name| self.standin.backend(name)["replication"].clone());
            let is_in_step = backup["role"] == "replica" && backup["behind_writes"].is_u64();
            // What Standin knows may be from before the last fault.
            let is_linked = backup["link_is_up"] == true && primary["role"] == "master" && follows(&self.backup);
            if self.standin.active() == "primary" && is_in_step && is_linked {
                return self.collect();
            }
            assert!(
                start.elapsed() < secs(40),
                "the group is not in order: {:#}\n{:#?}\n{:#?}",
                self.standin.group("default"),
                self.standin.events_of("replication"),
                self.rounds
            );
            std::thread::sleep(ms(50));
        }
    }

    /// What whoever looks after the servers does where Standin promotes nobody: as soon as the primary serves again, the other
    /// one is its replica.
    fn put_the_servers_right(&mut self) {
        let is_master = |server: &RedisServer| server.info("role") == "master";
        if self.standin.active() == "primary" && is_master(&self.primary) && is_master(&self.backup) {
            follow_soon(&self.backup, &self.into_primary);
        }
    }

    /// The events of this run of Standin, before another begins.
    fn collect(&mut self) {
        for event in self.standin.events() {
            if let Some(bound) = Bound::of(&event) {
                self.bounds.insert(bound.message.clone(), bound);
            }
        }
    }

    /// Waits until the backup serves; without `replica.promote` somebody promotes it after a while.
    fn await_takeover(&mut self) {
        self.standin.wait_until_active("backup-a", secs(20));
        if !self.promotes {
            self.run_for_up_to(400);
            assert_eq!(self.backup.command(&["REPLICAOF", "NO", "ONE"]), Reply::ok());
        }
        eventually(secs(20), "it takes writes", || self.backup.info("role") == "master");
        eventually(secs(5), "the switch is in the history", || {
            let is_of_backup = |event: &serde_json::Value| event["backend"] == "backup-a" && event["result"] == "done";
            self.standin.events().iter().any(is_of_backup)
        });
        self.collect();
    }

    fn kill_the_primary(&mut self, with_old_content: bool) {
        if with_old_content {
            self.primary.save();
            self.run_for_up_to(200);
        }
        self.primary.kill();
        self.await_takeover();
        self.run_for_up_to(500);
        if with_old_content {
            self.primary.restart_with_content(&[]);
            self.primary.wait_until_it_answers();
        } else {
            self.primary.restart();
        }
    }

    /// What was written meanwhile is lost, and the bound has to say so.
    fn kill_the_primary_behind_a_link_that_has_stopped(&mut self) {
        self.into_primary.set(Fault::BlackHole);
        self.run_for_up_to(700);
        self.primary.kill();
        self.await_takeover();
        self.heal_between();
        self.run_for_up_to(300);
        self.primary.restart();
    }

    fn freeze(&mut self) {
        self.primary.freeze();
        self.run_for_up_to(1_200);
        if self.standin.active() == "backup-a" && !self.promotes {
            assert_eq!(self.backup.command(&["REPLICAOF", "NO", "ONE"]), Reply::ok());
            self.run_for_up_to(200);
        }
        self.primary.thaw();
    }

    fn cut_standin_off(&mut self) {
        let fault = match self.below(3) {
            0 => Fault::Refuse,
            1 => Fault::BlackHole,
            _ => Fault::Reset,
        };
        self.to_primary.set(fault);
        self.run_for_up_to(1_200);
        // TCP would never go on with the rest of a connection of which a part was swallowed.
        self.to_primary.reset_all();
        std::thread::sleep(ms(20));
        self.to_primary.heal();
    }

    fn cut_the_servers_off(&mut self) {
        let fault = if self.below(2) == 0 { Fault::BlackHole } else { Fault::Refuse };
        self.into_primary.set(fault);
        self.run_for_up_to(800);
        self.heal_between();
    }

    fn heal_between(&self) {
        for relay in [&self.into_primary, &self.into_backup] {
            relay.reset_all();
            std::thread::sleep(ms(20));
            relay.heal();
        }
    }

    fn kill_the_replica(&mut self) {
        self.backup.kill();
        self.run_for_up_to(500);
        self.backup.restart();
        if !self.promotes {
            follow_soon(&self.backup, &self.into_primary);
        }
    }

    /// By order, in the one direction; the way back is a recovery of Standin's own or by order too. Where others promote, they
    /// exchange the roles and Standin follows.
    fn switch_there_and_back(&mut self) {
        if !self.promotes {
            return self.exchange_roles();
        }
        let reply = self.standin.post("/v1/failover", &serde_json::json!({ "to": "backup-a" }));
        self.run_for_up_to(300);
        if reply.code == 200 {
            eventually(secs(20), "the way back", || {
                self.standin.post("/v1/recover", &serde_json::json!({})).code == 200
            });
        }
    }

    fn exchange_roles(&mut self) {
        // Without a timeout it goes on until the replica has everything.
        assert_eq!(self.primary.command(&["FAILOVER"]), Reply::ok());
        eventually(secs(20), "the old one follows", || follows(&self.primary));
        self.standin.wait_until_active("backup-a", secs(20));
        self.run_for_up_to(300);
        assert_eq!(self.backup.command(&["FAILOVER"]), Reply::ok());
        eventually(secs(20), "and the other one again", || follows(&self.backup));
    }

    fn restart_standin(&mut self) {
        self.standin.kill();
        self.run_for_up_to(100);
        self.standin.start_again();
        self.standin.wait_until_ready();
    }

    fn restart_standin_in_an_outage(&mut self) {
        self.primary.kill();
        self.await_takeover();
        self.run_for_up_to(300);
        self.collect();
        self.restart_standin();
        self.run_for_up_to(300);
        self.primary.restart();
    }

    fn finish(mut self, what: &str, report: &RegisterReport) {
        self.collect();
        let bounds: Vec<Bound> = self.bounds.values().cloned().collect();
        let known = bounds.iter().filter(|bound| bound.is_known()).count();
        println!("{what}: {} rounds: {:#?}", self.rounds.len(), self.rounds);
        for (kind, (rounds, operations)) in &self.tally {
            println!("tally\t{what}\t{kind}\t{rounds}\t{operations}");
        }
        println!(
            "total\t{what}\t{} operations, {} acknowledged writes, {} reads, {} errors, {} writes lost, {} bounds, {known} of them known",
            report.operations,
            report.acknowledged_writes,
            report.reads,
            report.errors,
            report.lost.len(),
            bounds.len()
        );
        let complaints = unexplained(&report.lost, &bounds);
        let first: Vec<_> = complaints.iter().take(5).collect();
        let told: Vec<_> = bounds.iter().map(|bound| &bound.message).collect();
        assert!(
            complaints.is_empty(),
            "{} losses are not explained: {first:#?}\n{told:#?}\n{report:?}",
            complaints.len()
        );
        self.standin.finish();
    }
}

fn load(standin: &StandinProcess, seed: u64, operations: u64) -> RegisterLoad {
    let address = standin.address();
    RegisterLoad {
        address,
        clients: 12,
        operations,
        keys_per_client: 48,
        seed,
        padding: 0,
        pause: ms(30),
        may_lose: true,
    }
}

fn follow_soon(replica: &RedisServer, master: &FaultRelay) {
    let port = master.address().port().to_string();
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
}

fn follows(server: &RedisServer) -> bool {
    server.info("role") == "slave" && server.info("master_link_status") == "up"
}

fn follow(replica: &RedisServer, master: &FaultRelay) {
    follow_soon(replica, master);
    eventually(secs(10), "it is in step", || replica.info("master_link_status") == "up");
}

/// Random faults under load.
fn no_more_is_lost_than_was_told(promotes: bool, what: &str) {
    let seed = from_environment("STANDIN_CONSISTENCY_SEED", 1);
    let operations = from_environment("STANDIN_CONSISTENCY_OPERATIONS", OPERATIONS);
    let mut world = World::start(promotes, seed);
    let running = world.load(seed, operations).start();
    while !running.is_done() {
        world.round(running.operations());
    }
    let report = running.finish(|| {
        // What thaws or returns late must not undo anything either.
        world.settle();
        std::thread::sleep(secs(5));
    });
    assert!(report.operations >= operations * 99 / 100, "{report:?}");
    assert!(report.acknowledged_writes > operations / 10, "the clients were served: {report:?}");
    world.finish(&format!("{what}, seed {seed}"), &report);
}

#[test]
fn where_standin_promotes_no_more_is_lost_than_the_events_say_whatever_dies_and_returns() {
    no_more_is_lost_than_was_told(true, "replica, promoted by Standin");
}

#[test]
fn where_others_promote_no_more_is_lost_than_the_events_say_whatever_dies_and_returns() {
    no_more_is_lost_than_was_told(false, "replica, promoted by others");
}

#[test]
fn what_a_held_back_replica_lacks_is_within_the_bound_and_the_checker_sees_that_a_bound_of_nothing_is_wrong() {
    let mut world = World::start(true, 1);
    world.settle();
    let running = world.load(1, u64::MAX / 2).start();
    eventually(secs(20), "values are written", || running.operations() > 3_000);
    world.into_primary.set(Fault::BlackHole);
    let before = running.operations();
    eventually(secs(20), "values are written that the replica does not get", || running.operations() > before + 2_000);
    world.primary.kill();
    world.await_takeover();
    let before = running.operations();
    eventually(secs(20), "values are read", || running.operations() > before + 5_000);
    running.stop();
    let report = running.finish(|| {});
    let bounds: Vec<Bound> = world.bounds.values().cloned().collect();
    println!("{} writes lost: {:?}", report.lost.len(), bounds.iter().map(|bound| &bound.message).collect::<Vec<_>>());
    assert!(report.lost.len() > 100 && bounds.iter().all(Bound::is_known), "{report:?} {bounds:?}");
    assert_eq!(unexplained(&report.lost, &bounds), Vec::<String>::new());
    let wrong: Vec<Bound> = bounds.into_iter().map(Bound::with_nothing_lost).collect();
    assert_eq!(unexplained(&report.lost, &wrong).len(), report.lost.len(), "the checker is blind");
    world.heal_between();
    world.primary.restart();
    world.standin.finish();
}

/// What planned switches to a backup of this data mode and back have lost: on the way there, and on the way back.
fn planned(data: &str, tables: &str) -> (Vec<Lost>, Vec<Lost>) {
    let (primary, backup) = (RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]), RedisServer::start());
    if data == "replica" {
        let port = primary.address().port().to_string();
        assert_eq!(backup.command(&["REPLICAOF", "127.0.0.1", &port]), Reply::ok());
        eventually(secs(10), "it is in step", || backup.info("master_link_status") == "up");
    }
    let config = StandinConfig::new().primary(primary.address());
    let config = config.backend("backup-a", "backup", &backup.address().to_string(), &format!("data = \"{data}\""));
    let mut standin = config.quick_recovery().table(tables).start();
    standin.declare(PRIMARY_LOST);
    standin.declare(&["backup-a"]);
    let running = load(&standin, 1, u64::MAX / 2).start();
    let mut returns = Vec::new();
    for _ in 0..4 {
        let before = running.operations();
        eventually(secs(20), "values are written and read", || running.operations() > before + 3_000);
        let primary_until = wall_us();
        eventually(secs(20), "the backup serves", || {
            standin.post("/v1/failover", &serde_json::json!({ "to": "backup-a" })).code == 200
        });
        let before = running.operations();
        eventually(secs(20), "values are written", || running.operations() > before + 1_500);
        let back = wall_us();
        eventually(secs(20), "the primary serves", || standin.post("/v1/recover", &serde_json::json!({})).code == 200);
        returns.push((primary_until, back, wall_us()));
    }
    let before = running.operations();
    eventually(secs(20), "values are read", || running.operations() > before + 3_000);
    running.stop();
    let report = running.finish(|| {});
    println!("{data}: {} operations, {} lost, errors {:?}", report.operations, report.lost.len(), report.words);
    assert_eq!((report.errors, report.disconnects), (0, 0), "no client notices a planned switch: {:?}", report.words);
    standin.finish();
    // Written before a return and found missing after it, before the primary was left again.
    let ends = returns.iter().skip(1).map(|(until, ..)| *until).chain([u64::MAX]);
    let stays: Vec<_> = returns.iter().zip(ends).map(|((_, left, back), until)| (*left, *back, until)).collect();
    let on_return = |lost: &Lost| {
        stays.iter().any(|(left, back, until)| lost.write.sent_us < *left && (*back..*until).contains(&lost.read_us))
    };
    report.lost.into_iter().partition(|lost| !on_return(lost))
}

#[test]
fn planned_switches_of_a_replica_lose_no_acknowledged_write_in_either_direction() {
    let (there, back) = planned("replica", "[replica]\npromote = true");
    assert!(there.is_empty() && back.is_empty(), "{there:#?}\n{back:#?}");
}

#[test]
fn planned_switches_of_a_mirrored_backup_lose_no_acknowledged_write_in_either_direction() {
    let (there, back) = planned("mirrored", "");
    assert!(there.is_empty() && back.is_empty(), "{there:#?}\n{back:#?}");
}

#[test]
fn planned_switches_of_a_cold_backup_lose_no_acknowledged_write_on_the_way_back() {
    let (there, back) = planned("cold", "");
    assert!(back.is_empty(), "{back:#?}");
    assert!(!there.is_empty() && there.iter().all(|lost| !lost.was_stale), "missing, and never older: {there:#?}");
}
