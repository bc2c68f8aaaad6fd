//! Whether anybody ever reads an old value: clients that know what was acknowledged, while servers and Standin itself are
//! killed, frozen, cut off and restarted with old content. `make consistency` runs it over a million operations.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::Instant;

use support::{
    Authority, Dice, Fault, FaultRelay, PRIMARY_LOST, RedisServer, RegisterLoad, RegisterReport, Reply, StandinConfig,
    StandinProcess, TlsRelay, eventually, from_environment, ms, secs,
};

/// Quick to fail over and to return, so that a minute sees many of both. A server that freezes with a script at work is given
/// `timeout.slow`.
const QUICK: &str = "[timeout]\nslow = \"2s\"\n[failover]\nprofile = \"fast\"\ncooldown = \"0s\"\nmax_per_hour = 1000\n[recovery]\nthreshold = 1\ndelay = \"200ms\"\ndelay_max = \"400ms\"";
/// Operations of the short form.
const OPERATIONS: u64 = 30_000;
/// The faults by number, as [`World::round`] draws them.
const KINDS: [&str; 17] = [
    "kill",
    "restart with an old RDB file",
    "freeze and thaw",
    "partition without restart",
    "partition without restart",
    "all connections reset",
    "kill",
    "restart with an old RDB file",
    "SIGKILL of Standin",
    "SIGKILL of Standin",
    "SIGKILL of Standin",
    "SIGKILL of Standin",
    "partition without restart",
    "freeze and thaw",
    "freeze and thaw",
    "freeze and thaw",
    "freeze and thaw of the backup",
];

/// Two servers behind relays, and a Standin in front of them.
struct World {
    primary: RedisServer,
    backup: RedisServer,
    to_primary: FaultRelay,
    to_backup: FaultRelay,
    standin: StandinProcess,
    random: Dice,
    rounds: Vec<String>,
    /// By the kind of the fault: rounds, and operations from its beginning to that of the next.
    tally: BTreeMap<&'static str, (u64, u64)>,
    /// The kind of the last round, and how many operations there were when it began.
    last: Option<(&'static str, u64)>,
    /// Every other round is one in which the mirror has no room.
    overflows: bool,
    /// Writes that the mirrors had no room for.
    dropped: u64,
    _tls: Option<(TlsRelay, TlsRelay)>,
}

impl World {
    fn start(seed: u64, divergence: &str) -> Self {
        Self::start_as("cold", seed, divergence)
    }

    /// With a backup of this data mode.
    fn start_as(data: &str, seed: u64, tables: &str) -> Self {
        let servers = (RedisServer::start(), RedisServer::start());
        let relays = (FaultRelay::start(servers.0.address()), FaultRelay::start(servers.1.address()));
        let data = format!("data = \"{data}\"");
        let config = StandinConfig::new().primary(relays.0.address());
        let config = config.backend("backup-a", "backup", &relays.1.address().to_string(), &data);
        Self::start_with(servers, relays, config, seed, tables)
    }

    /// With TLS from Standin to both servers.
    fn start_over_tls(seed: u64, authority: &Authority) -> Self {
        authority.issue("back");
        let servers = (RedisServer::start(), RedisServer::start());
        let behind = |server: &RedisServer| TlsRelay::terminate(server.address(), authority, "back", None);
        let ends = (behind(&servers.0), behind(&servers.1));
        let relays = (FaultRelay::start(ends.0.address()), FaultRelay::start(ends.1.address()));
        let keys = format!("[backend.tls]\nca = \"{}\"\nserver_name = \"localhost\"\n", authority.ca().display());
        let config = StandinConfig::new().backend("primary", "primary", &relays.0.address().to_string(), &keys);
        let config = config.backend("backup-a", "backup", &relays.1.address().to_string(), &keys);
        Self { _tls: Some(ends), ..Self::start_with(servers, relays, config, seed, "") }
    }

    fn start_with(
        (primary, backup): (RedisServer, RedisServer),
        (to_primary, to_backup): (FaultRelay, FaultRelay),
        config: StandinConfig,
        seed: u64,
        tables: &str,
    ) -> Self {
        let config = config.table(QUICK).table(tables);
        let mut standin = config.start();
        standin.declare(PRIMARY_LOST);
        standin.declare(&["backup-a", "backend", "broke the protocol"]);
        assert!(standin.epoch() > 0, "it serves");
        Self {
            primary,
            backup,
            to_primary,
            to_backup,
            standin,
            random: Dice::at(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            rounds: Vec::new(),
            tally: BTreeMap::new(),
            last: None,
            overflows: false,
            dropped: 0,
            _tls: None,
        }
    }

    fn load(&self, seed: u64, operations: u64) -> RegisterLoad {
        let address = self.standin.address();
        // Long requests, of which the mirror's buffer holds few.
        let padding = if self.overflows { 400 } else { 0 };
        RegisterLoad {
            address,
            clients: 12,
            operations,
            keys_per_client: 48,
            seed,
            padding,
            pause: ms(5),
            may_lose: false,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Lets the load run for a random while.
    fn run_for_up_to(&mut self, milliseconds: u64) {
        let pause = 20 + self.below(milliseconds);
        std::thread::sleep(ms(pause));
    }

    /// One fault of a random kind, healed before this returns.
    fn round(&mut self, operations: u64) {
        let began = Instant::now();
        if self.overflows && self.below(2) == 0 {
            self.count("mirror overflow", operations);
            let what = self.stall_the_mirror();
            self.rounds.push(format!("from operation {operations}: {what}, {:?}", began.elapsed()));
            return self.run_for_up_to(400);
        }
        let kind = self.below(KINDS.len() as u64);
        self.count(KINDS[kind as usize], operations);
        let what = match kind {
            0 => self.restart_empty(true),
            1 => self.restart_with_old_content(true),
            2 | 13..=15 => self.freeze(true),
            16 => self.freeze(false),
            3 | 4 => self.partition(true),
            5 => self.reset_once(),
            6 => self.restart_empty(false),
            7 => self.restart_with_old_content(false),
            8 => self.restart_standin(),
            9 | 10 => self.restart_standin_in_an_outage(),
            11 => self.restart_standin_and_the_primary_behind_its_back(),
            _ => self.partition(false),
        };
        self.rounds.push(format!("from operation {operations}: {what}, {:?}", began.elapsed()));
        self.run_for_up_to(500);
    }

    /// A round of this kind begins.
    fn count(&mut self, kind: &'static str, operations: u64) {
        if let Some((last, from)) = self.last.replace((kind, operations)) {
            self.tally.entry(last).or_default().1 += operations - from;
        }
        self.tally.entry(kind).or_default().0 += 1;
        // Counted from each start of Standin, so that the most of them all is the least that there was.
        let dropped = ["primary", "backup-a"].map(|name| self.standin.backend(name)["mirror"]["dropped"].as_u64());
        self.dropped = self.dropped.max(dropped.into_iter().flatten().sum());
    }

    fn server(&mut self, is_primary: bool) -> &mut RedisServer {
        if is_primary { &mut self.primary } else { &mut self.backup }
    }

    fn restart_empty(&mut self, is_primary: bool) -> String {
        self.server(is_primary).kill();
        self.run_for_up_to(800);
        self.server(is_primary).restart();
        format!("restart of {}, empty", name(is_primary))
    }

    fn restart_with_old_content(&mut self, is_primary: bool) -> String {
        self.server(is_primary).save();
        self.run_for_up_to(300);
        self.server(is_primary).kill();
        // Also so fast that no connection attempt is refused.
        if self.below(2) == 0 {
            self.run_for_up_to(800);
        }
        self.server(is_primary).restart_with_content(&[]);
        self.server(is_primary).wait_until_it_answers();
        format!("restart of {} with an old content", name(is_primary))
    }

    fn freeze(&mut self, is_primary: bool) -> String {
        self.server(is_primary).freeze();
        self.run_for_up_to(1_200);
        self.server(is_primary).thaw();
        format!("freeze and thaw of {}", name(is_primary))
    }

    fn partition(&mut self, is_primary: bool) -> String {
        let fault = match self.below(4) {
            0 => Fault::Refuse,
            1 => Fault::BlackHole,
            2 => Fault::SwallowReplies,
            _ => Fault::Reset,
        };
        let relay = if is_primary { &self.to_primary } else { &self.to_backup };
        relay.set(fault.clone());
        self.run_for_up_to(1_200);
        self.heal_with_resets(is_primary);
        format!("partition of {} by {fault:?}", name(is_primary))
    }

    /// A connection of which the relay has swallowed a part must not go on with the rest: TCP would never do that, and no
    /// protocol could bear it.
    fn heal_with_resets(&self, is_primary: bool) {
        let relay = if is_primary { &self.to_primary } else { &self.to_backup };
        relay.reset_all();
        std::thread::sleep(ms(20));
        relay.heal();
    }

    /// The backup takes nothing for about as long as a mirrored one may be silent, while the primary serves.
    fn stall_the_mirror(&mut self) -> String {
        self.heal_first();
        self.to_backup.set(Fault::BlackHole);
        std::thread::sleep(ms(500));
        self.run_for_up_to(600);
        self.heal_with_resets(false);
        "the backup took nothing".to_owned()
    }

    fn reset_once(&mut self) -> String {
        self.to_primary.reset_all();
        self.to_backup.reset_all();
        "every connection reset once".to_owned()
    }

    fn restart_standin(&mut self) -> String {
        let active = self.standin.active();
        self.standin.kill();
        self.run_for_up_to(100);
        self.standin.start_again();
        self.standin.wait_until_ready();
        format!("SIGKILL of Standin while {active} served")
    }

    /// The primary is cut off or frozen, the backup serves, Standin is killed, and starts before or after the primary is
    /// there again: with the values of before.
    fn restart_standin_in_an_outage(&mut self) -> String {
        let freezes = self.below(2) == 0;
        let heals_first = self.below(2) == 0;
        self.heal_first();
        if freezes {
            self.primary.freeze()
        } else {
            self.to_primary.set(Fault::Refuse)
        }
        self.standin.wait_until_active("backup-a", secs(20));
        self.run_for_up_to(500);
        self.standin.kill();
        let heal = |world: &Self| if freezes { world.primary.thaw() } else { world.to_primary.heal() };
        if heals_first {
            heal(self);
        }
        self.run_for_up_to(50);
        self.standin.start_again();
        self.standin.wait_until_ready();
        self.run_for_up_to(600);
        if !heals_first {
            heal(self);
        }
        let fault = if freezes { "frozen" } else { "cut off" };
        format!("SIGKILL of Standin while the primary was {fault}, back before Standin: {heals_first}")
    }

    /// While Standin is dead the primary restarts with an old content.
    fn restart_standin_and_the_primary_behind_its_back(&mut self) -> String {
        self.heal_first();
        self.primary.save();
        self.run_for_up_to(300);
        self.standin.kill();
        self.primary.kill();
        self.primary.restart_with_content(&[]);
        self.primary.wait_until_it_answers();
        self.standin.start_again();
        self.standin.wait_until_ready();
        "restart of the primary with an old content while Standin was dead".to_owned()
    }

    /// Some faults are about a primary that serves.
    fn heal_first(&self) {
        self.standin.wait_until_active("primary", secs(30));
    }
}

fn name(is_primary: bool) -> &'static str {
    if is_primary { "the primary" } else { "the backup" }
}

#[test]
fn no_client_reads_an_old_value_whatever_dies_and_returns() {
    nobody_reads_an_old_value("cold", "");
}

#[test]
fn no_client_of_a_mirrored_group_reads_an_old_value_whatever_dies_and_returns() {
    nobody_reads_an_old_value("mirrored", "");
}

#[test]
fn no_client_reads_an_old_value_when_the_mirror_overflows() {
    let tables = "[mirror]\nbuffer = \"64KiB\"\ncopy_rate = 1000";
    let seed = from_environment("STANDIN_CONSISTENCY_SEED", 1);
    let world = World { overflows: true, ..World::start_as("mirrored", seed, tables) };
    let dropped = check_world(world, "overflow", seed);
    assert!(dropped > 0, "no mirror has overflowed");
}

#[test]
fn no_client_reads_an_old_value_over_tls() {
    let authority = Authority::new();
    let seed = from_environment("STANDIN_CONSISTENCY_SEED", 1);
    check_world(World::start_over_tls(seed, &authority), "cold, TLS", seed);
}

/// Random faults under load, with a backup of this data mode.
fn nobody_reads_an_old_value(data: &str, tables: &str) {
    let seed = from_environment("STANDIN_CONSISTENCY_SEED", 1);
    check_world(World::start_as(data, seed, tables), data, seed);
}

/// Returns how many writes a mirror had no room for, at least.
fn check_world(mut world: World, data: &str, seed: u64) -> u64 {
    let operations = from_environment("STANDIN_CONSISTENCY_OPERATIONS", OPERATIONS);
    let running = world.load(seed, operations).start();
    while !running.is_done() {
        world.round(running.operations());
    }
    world.count("the last recovery", running.operations());
    let report = running.finish(|| {
        // What thaws or returns late must not undo anything either.
        world.heal_first();
        std::thread::sleep(secs(5));
    });
    println!("{data}, seed {seed}, {} rounds: {:#?}\n{report:#?}", world.rounds.len(), world.rounds);
    for (kind, (rounds, operations)) in &world.tally {
        println!("tally\t{data}\t{seed}\t{kind}\t{rounds}\t{operations}");
    }
    let kinds = KINDS.iter().collect::<std::collections::BTreeSet<_>>();
    let seen = kinds.iter().filter(|kind| world.tally.contains_key(**kind)).count();
    println!("rounds of {seen} of {} kinds", kinds.len());
    let counts = [report.operations, report.acknowledged_writes, report.reads, report.misses, report.stale_count];
    println!("total\t{data}\t{seed}\t{}\t{counts:?}", world.dropped);
    assert!(report.operations >= operations * 99 / 100, "{report:?}");
    assert!(report.acknowledged_writes > operations / 10, "the clients were served: {report:?}");
    assert_eq!(report.stale_count, 0, "old values were read: STANDIN_CONSISTENCY_SEED={seed}\n{report:#?}");
    world.standin.finish();
    world.dropped
}

/// A primary that returns with an old content, under load, by a policy.
fn returned_with_an_old_content(divergence: &str) -> (World, RegisterReport) {
    let mut world = World::start(1, divergence);
    let running = world.load(1, u64::MAX / 2).start();
    eventually(secs(20), "values are written", || running.operations() > 5_000);
    world.primary.save();
    let before = running.operations();
    eventually(secs(20), "values are written over", || running.operations() > before + 5_000);
    world.primary.kill();
    world.standin.wait_until_active("backup-a", secs(10));
    world.primary.restart_with_content(&[]);
    world.standin.wait_until_active("primary", secs(20));
    let before = running.operations();
    eventually(secs(20), "values are read", || running.operations() > before + 5_000);
    running.stop();
    let report = running.finish(|| {});
    (world, report)
}

#[test]
fn the_checker_finds_old_values_when_an_unknown_content_is_trusted() {
    let (world, report) = returned_with_an_old_content("[divergence]\npolicy = \"trust\"\n[mirror]\nprimary = false");
    println!("{} old values of {} reads", report.stale_count, report.reads);
    assert!(report.stale_count > 100, "the checker is blind: {report:?}");
    world.standin.finish();
}

#[test]
fn the_same_return_shows_no_old_value_by_the_default_policy() {
    let (world, report) = returned_with_an_old_content("");
    assert_eq!(report.stale_count, 0, "{report:#?}");
    world.standin.finish();
}

/// Keys written before a partition, and how many of them are written during it.
const KEPT: usize = 2_000;
const DIRTIED: usize = 200;

#[test]
fn after_a_partition_without_restart_the_misses_are_at_most_the_dirty_keys() {
    let world = World::start(1, "");
    let mut client = world.standin.connect();
    let key = |number: usize| format!("kept:{number}");
    for number in 0..KEPT {
        assert_eq!(client.command(&["SET", &key(number), "before"]), Reply::ok());
    }
    world.to_primary.set(Fault::Refuse);
    world.standin.wait_until_active("backup-a", secs(10));
    for number in 0..DIRTIED {
        assert_eq!(client.command(&["SET", &key(number), "meanwhile"]), Reply::ok());
    }
    world.to_primary.heal();
    world.standin.wait_until_active("primary", secs(30));
    let mut client = world.standin.connect();
    let mut misses = 0;
    for number in 0..KEPT {
        let read = client.command(&["GET", &key(number)]);
        misses += usize::from(read == Reply::Nil);
        let is_old = number < DIRTIED && read == Reply::bulk("before");
        assert!(!is_old, "{} came back: {read:?}", key(number));
    }
    println!("{misses} misses of {KEPT} keys, {DIRTIED} of which were dirty");
    assert!(misses <= DIRTIED, "more was removed than was dirty: {misses}");
    world.standin.finish();
}
