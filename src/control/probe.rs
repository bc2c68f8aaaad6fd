//! The prober of one backend: a connection of its own that is asked at an interval how the server is, and through which
//! everything else that the control plane wants from the server is said.
//!
//! It works in the mark's database, so that neither its probes nor the mark show in a database of the application.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::marks::{MarkKeys, Marks};
use super::replication::{Asked, Replication, writes_answered};
use super::round::Round;
use crate::backend::{self, Address, Backend, Conversation, Depth, HandshakeError, Identity, Lane, Reply, clock};
use crate::command::Class;
use crate::config::HealthCheck;
use crate::policy::{Cause, Edge, FailureKind, MemoryUse, NotReadyWord, ProbeAnswer, ProbeOutcome, Role};
use crate::resp::Protocol;

/// A write key left behind by a probe that was cut off lives this long, in milliseconds.
const WRITE_PROBE_TTL_MS: &str = "5000";
/// Pauses before a lost connection is tried again, before the interval takes over: a dead process is told within
/// milliseconds, and a connection that was merely closed is back as quickly.
const QUICK_PAUSES_MS: [u64; 2] = [0, 2];
/// Pauses before a server that answered, and refused, is asked again: a verdict takes three such answers 100 ms apart, and
/// where nothing but probes is under way they should not take three intervals.
const REFUSED_PAUSES_MS: [u64; 2] = [120, 120];

/// Requests of a probe before those of its write.
const LOOKS: usize = 9;
/// INFO memory costs a server more than the rest of a probe: every tenth asks for it.
const MEMORY_EVERY: u64 = 10;

/// What is asked of a prober from outside.
pub(super) enum ProbeCommand {
    Now,
    /// A new connection met another server: what is asked next is asked of that one.
    Renew,
    /// Requests of the control plane; all or nothing within the time.
    Ask {
        requests: Vec<Vec<Vec<u8>>>,
        within: Duration,
        reply: oneshot::Sender<io::Result<Vec<Reply>>>,
    },
}

/// How a server is filled, by `INFO keyspace`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keyspace(pub(super) Vec<(u32, u64)>);

impl Keyspace {
    /// Keys in all databases, those of `marks` not counted that Standin itself keeps in the mark's database.
    pub(super) fn keys(&self, mark_database: u32, marks: u64) -> u64 {
        let counted = |&(database, keys): &(u32, u64)| {
            if database == mark_database { keys.saturating_sub(marks) } else { keys }
        };
        self.0.iter().map(counted).sum()
    }

    /// The databases that hold more than those marks.
    pub(super) fn filled(&self, mark_database: u32, marks: u64) -> BTreeSet<u32> {
        let held_by_us = |database: u32| if database == mark_database { marks } else { 0 };
        self.0.iter().filter(|(number, keys)| *keys > held_by_us(*number)).map(|(number, _)| *number).collect()
    }

    /// The databases of a group, by their numbers as clients know them; database 0 is `base` on the server.
    pub(super) fn only(&self, databases: &[u32], base: u32) -> Self {
        let on_server: Vec<u32> = databases.iter().map(|number| if *number == 0 { base } else { *number }).collect();
        Self(self.0.iter().filter(|(number, _)| on_server.contains(number)).copied().collect())
    }

    pub(super) fn read(reply: &Reply) -> Self {
        let mut all = Vec::new();
        for line in reply.text().unwrap_or_default().lines() {
            let Some((database, rest)) = line.strip_prefix("db").and_then(|rest| rest.split_once(':')) else {
                continue;
            };
            let keys = rest.split(',').find_map(|part| part.strip_prefix("keys="));
            if let (Ok(database), Some(Ok(keys))) = (database.parse(), keys.map(str::parse)) {
                all.push((database, keys));
            }
        }
        Self(all)
    }
}

/// What one probe found.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) outcome: ProbeOutcome,
    /// For people: the error's text.
    pub(super) error: Option<String>,
    pub(super) identity: Option<Identity>,
    pub(super) keyspace: Option<Keyspace>,
    pub(super) marks: Marks,
    pub(super) mark_database: u32,
    /// Of servers that replicate each other.
    pub(super) replication: Option<Replication>,
    pub(super) asked: Asked,
}

/// How a prober is set up.
#[derive(Debug, Clone)]
pub(super) struct ProbeSettings {
    pub(super) rules: HealthCheck,
    pub(super) mark_keys: MarkKeys,
    pub(super) probe_key: String,
    /// It is one of the servers that replicate each other.
    pub(super) is_replicated: bool,
    pub(super) seed: u64,
}

struct Prober {
    backend: Arc<Backend>,
    settings: ProbeSettings,
    connection: Option<Connection>,
    random: u64,
    /// Writes of clients answered, and errors of the server, at the last probe.
    counted: (u64, u64),
    probes: u64,
    /// Somebody waits for the answer: a write of its own, whatever the last ones said.
    awaited: bool,
}

struct Connection {
    conversation: Conversation,
    identity: Identity,
    mark_database: u32,
}

/// Runs until the command channel closes.
pub(super) async fn run(
    backend: Arc<Backend>,
    settings: ProbeSettings,
    mut commands: mpsc::Receiver<ProbeCommand>,
    report: impl Fn(Report),
) {
    let random = settings.seed | 1;
    let mut prober = Prober { backend, settings, connection: None, random, counted: (0, 0), probes: 0, awaited: false };
    let mut row = Row::default();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {
                let found = prober.round().await;
                prober.awaited = false;
                let pause = prober.pause(row.quick_pause(&found.outcome));
                report(found);
                next = Instant::now() + pause;
            }
            command = commands.recv() => match command {
                None => return,
                Some(ProbeCommand::Now) => {
                    prober.awaited = true;
                    next = Instant::now();
                }
                Some(ProbeCommand::Renew) => prober.connection = None,
                Some(ProbeCommand::Ask { requests, within, reply }) => {
                    let answer = prober.ask(requests, within).await;
                    let failed = answer.as_ref().err().map(io::Error::kind);
                    let _ = reply.send(answer);
                    if failed == Some(io::ErrorKind::TimedOut) {
                        // As telling as a probe: what a new connection says of the silence comes two handshakes later.
                        report(timed_out(within));
                    }
                    if failed.is_some() {
                        next = Instant::now();
                    }
                }
            },
            // A server that closes the connection is noticed at once, not at the next probe.
            () = closed(prober.connection.as_mut()) => {
                prober.connection = None;
                next = Instant::now();
            }
        }
    }
}

/// How often in a row a server was lost, or refused, and was asked again at once.
#[derive(Default)]
struct Row {
    lost: usize,
    refused: usize,
}

impl Row {
    /// The pause after this outcome where the interval would be too long.
    fn quick_pause(&mut self, outcome: &ProbeOutcome) -> Option<Duration> {
        let before = std::mem::take(self);
        let refuses = match outcome {
            ProbeOutcome::Failed(_) => false,
            ProbeOutcome::NotReady(_) => true,
            ProbeOutcome::Ok(answer) if answer.write_ok == Some(false) => true,
            ProbeOutcome::Ok(_) | ProbeOutcome::AuthenticationFailed | ProbeOutcome::TimedOut { .. } => return None,
        };
        let pause = if refuses {
            self.refused = before.refused + 1;
            REFUSED_PAUSES_MS.get(before.refused)
        } else {
            self.lost = before.lost + 1;
            QUICK_PAUSES_MS.get(before.lost)
        };
        pause.copied().map(Duration::from_millis)
    }
}

async fn closed(connection: Option<&mut Connection>) {
    match connection {
        Some(connection) => connection.conversation.wait_closed().await,
        None => std::future::pending().await,
    }
}

impl Prober {
    /// The interval with a tenth of jitter, so that many sidecars do not probe in step, unless less is asked for.
    fn pause(&mut self, quick: Option<Duration>) -> Duration {
        if let Some(quick) = quick {
            return quick.min(self.settings.rules.interval);
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let tenth = (self.settings.rules.interval / 10).as_micros() as u64;
        self.settings.rules.interval - self.settings.rules.interval / 20
            + Duration::from_micros(self.random % tenth.max(1))
    }

    async fn connect(&mut self) -> Result<(), HandshakeError> {
        let lane = Lane { database: 0, protocol: Protocol::Resp2, user: 0 };
        let login = self.backend.target.login.clone();
        let ready = backend::connect(&self.backend, lane, &login, Depth::Whole).await?;
        if ready.identity.is_busy {
            // It does not say who it is, which must not look like a restart.
            return Err(HandshakeError::NotReady("BUSY the server is running a script".to_owned()));
        }
        self.backend.set_prober_address(ready.conversation.local_address());
        let mut connection =
            Connection { conversation: ready.conversation, identity: ready.identity, mark_database: 0 };
        let bound = self.backend.timing.handshake;
        connection.choose_mark_database(self.backend.target.database, bound).await.map_err(HandshakeError::Broken)?;
        self.backend.set_mark_database(connection.mark_database);
        self.connection = Some(connection);
        Ok(())
    }

    /// As many questions as `health_check.policy` needs.
    async fn round(&mut self) -> Report {
        let mut round = Round::new(&self.settings.rules);
        loop {
            let report = self.probe().await;
            if round.settles(&report.outcome) {
                return report;
            }
            tokio::time::sleep(self.settings.rules.probe_delay).await;
        }
    }

    async fn probe(&mut self) -> Report {
        if self.connection.is_none()
            && let Err(error) = self.connect().await
        {
            return failed(&error);
        }
        let started = clock::micros();
        let timeout = self.settings.rules.timeout;
        let is_replica = self.connection.as_ref().is_some_and(|connection| connection.identity.is_replica);
        let write_proven = self.write_proven() && !self.awaited;
        self.probes = self.probes.wrapping_add(1);
        let replication = is_replica || self.settings.is_replicated;
        let asked = Asked { at_us: started, writes: writes_answered(&self.backend) };
        let looks = Looks { replication, memory: self.probes % MEMORY_EVERY == 1 };
        let requests = requests(&self.settings, looks, is_replica || write_proven);
        let Some(connection) = &mut self.connection else { return broken(Edge::LinkLost, "no connection") };
        match connection.conversation.ask_within(timeout, &requests).await {
            Ok(replies) => {
                let latency = Duration::from_micros(clock::micros() - started);
                let report = connection.judge(&replies, latency, looks, self.settings.rules.write_probe, write_proven);
                let report = Report { asked, ..report };
                if connection.identity.is_replica && is_looked_up(&self.backend.target.address) {
                    // The name may lead to another server by now.
                    self.connection = None;
                }
                report
            }
            Err(error) => {
                self.connection = None;
                if error.kind() == io::ErrorKind::TimedOut {
                    return timed_out(timeout);
                }
                // Whether the server is gone or only the connection, the next attempt tells.
                match self.connect().await {
                    Ok(()) => broken(Edge::LinkLost, &error.to_string()),
                    Err(error) => failed(&error),
                }
            }
        }
    }

    /// Whether clients' writes since the last probe show that the server takes writes: then a write of ours tells no more,
    /// and would only show in the replication stream and in invalidation messages.
    fn write_proven(&mut self) -> bool {
        let all = &self.backend.counters;
        let writes = all.iter().map(|counters| counters.answered[Class::Write as usize].get()).sum();
        let refusals = [FailureKind::Overloaded, FailureKind::NotReady, FailureKind::WrongRole];
        let errors = all.iter().map(|counters| counters.failed(&refusals)).sum();
        let (writes_before, errors_before) = std::mem::replace(&mut self.counted, (writes, errors));
        writes > writes_before && errors == errors_before
    }

    async fn ask(&mut self, requests: Vec<Vec<Vec<u8>>>, within: Duration) -> io::Result<Vec<Reply>> {
        if self.connection.is_none() {
            self.connect().await.map_err(io::Error::other)?;
        }
        let Some(connection) = &mut self.connection else { return Err(io::ErrorKind::NotConnected.into()) };
        let answer = connection.conversation.ask_within(within, &requests).await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }
}

/// What is looked at beside what every probe looks at.
#[derive(Debug, Clone, Copy)]
struct Looks {
    /// Servers that replicate each other: whom they follow, and how far they are.
    replication: bool,
    memory: bool,
}

impl Looks {
    /// Replies that are no answers to the write.
    fn count(self) -> usize {
        LOOKS + usize::from(self.replication) + usize::from(self.memory)
    }

    fn replication(self, replies: &[Reply]) -> Option<&Reply> {
        self.replication.then(|| replies.get(LOOKS)).flatten()
    }

    fn memory(self, replies: &[Reply]) -> Option<&Reply> {
        self.memory.then(|| replies.get(LOOKS + usize::from(self.replication))).flatten()
    }
}

/// The value of one line of INFO.
fn info_number(reply: &Reply, key: &str) -> Option<u64> {
    let mut lines = reply.text()?.lines();
    lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
}

/// How long a replica has heard nothing from its master.
fn replication_lag(info: &Reply) -> Option<Duration> {
    let down_for = info_number(info, "master_link_down_since_seconds");
    down_for.or_else(|| info_number(info, "master_last_io_seconds_ago")).map(Duration::from_secs)
}

fn memory_use(info: &Reply) -> Option<MemoryUse> {
    let used_bytes = info_number(info, "used_memory")?;
    let mut lines = info.text()?.lines();
    let policy = lines.find_map(|line| line.strip_prefix("maxmemory_policy:"));
    let evicts = policy.is_some_and(|policy| policy.trim() != "noeviction");
    Some(MemoryUse { used_bytes, max_bytes: info_number(info, "maxmemory").unwrap_or(0), evicts })
}

/// Bytes of the replication stream: `["master", offset, ..]`, or `["slave", host, port, state, offset]`.
fn replication_offset(role: &Reply) -> Option<u64> {
    let role = role.elements()?;
    let offset = if role.first()?.text()? == "master" { role.get(1)? } else { role.get(4)? };
    offset.integer().and_then(|offset| u64::try_from(offset).ok())
}

/// Whether an address may lead to another server by now: a name, or a path, which may be a link.
fn is_looked_up(address: &Address) -> bool {
    match address {
        Address::Tcp { host, .. } => host.parse::<std::net::IpAddr>().is_err(),
        Address::Unix(_) => true,
        Address::Embedded(_) => false,
    }
}

/// What one probe asks.
fn requests(settings: &ProbeSettings, looks: Looks, without_write: bool) -> Vec<Vec<&str>> {
    let mut requests = vec![vec!["PING"], vec!["ROLE"], vec!["INFO", "keyspace"]];
    requests.extend(settings.mark_keys.looks());
    debug_assert_eq!(requests.len(), LOOKS);
    requests.extend(looks.replication.then(|| vec!["INFO", "replication"]));
    requests.extend(looks.memory.then(|| vec!["INFO", "memory"]));
    debug_assert_eq!(requests.len(), looks.count());
    if settings.rules.write_probe && !without_write {
        // Written and removed as one: no client ever sees the key; the TTL is for a server that stops in between.
        requests.push(vec!["MULTI"]);
        requests.push(vec!["SET", &settings.probe_key, "1", "PX", WRITE_PROBE_TTL_MS]);
        requests.push(vec!["DEL", &settings.probe_key]);
        requests.push(vec!["EXEC"]);
    }
    requests
}

impl Connection {
    /// The last database, which applications rarely use; the group's own where there is but one or the server does not
    /// tell.
    async fn choose_mark_database(&mut self, own: u32, bound: Duration) -> io::Result<()> {
        let answer = self.conversation.ask_within(bound, &[vec!["CONFIG", "GET", "databases"]]).await?;
        let databases = answer[0].elements().and_then(|pair| pair.get(1)?.text()?.parse::<u32>().ok());
        let last = databases.map_or(own, |count| count.saturating_sub(1).max(own));
        let number = last.to_string();
        let selected = self.conversation.ask_within(bound, &[vec!["SELECT", &number]]).await?;
        self.mark_database = if selected[0].error().is_none() { last } else { own };
        Ok(())
    }

    fn judge(
        &mut self,
        replies: &[Reply],
        latency: Duration,
        looks: Looks,
        write_probe: bool,
        write_proven: bool,
    ) -> Report {
        let (mut error, mut outcome) = (None, None);
        for reply in replies {
            let Some(text) = reply.error() else { continue };
            let cause = Cause::of_error_word(text.split(' ').next().unwrap_or_default().as_bytes());
            let meaning = match (cause.meaning().kind, cause.not_ready_word()) {
                (_, Some(NotReadyWord::Misconf | NotReadyWord::NoReplicas | NotReadyWord::TryAgain)) => None,
                (_, Some(word)) => Some(ProbeOutcome::NotReady(word)),
                (FailureKind::Authentication, _) if cause != Cause::NoPermission => {
                    Some(ProbeOutcome::AuthenticationFailed)
                }
                _ => None,
            };
            if let Some(meaning) = meaning {
                error = Some(text.to_owned());
                outcome.get_or_insert(meaning);
            }
        }
        let role = match replies[1].elements().and_then(|role| role.first()?.text()) {
            Some("master") => Role::Master,
            Some("slave") => Role::Replica,
            Some("sentinel") => Role::Sentinel,
            _ if self.identity.is_replica => Role::Replica,
            _ => Role::Unknown,
        };
        if let Some(info) = looks.replication(replies) {
            backend::read_info(info, &mut self.identity);
        }
        self.identity.is_replica = role == Role::Replica;
        let write_ok = (write_probe && replies.len() > looks.count()).then(|| {
            // Without the permission to write there is nothing to learn from not being able to.
            let refusal = replies[looks.count()..].iter().find_map(Reply::error);
            let forbidden = refusal.is_some_and(|text| text.contains("NOPERM"));
            error = error.take().or_else(|| refusal.filter(|_| !forbidden).map(str::to_owned));
            refusal.is_none() || forbidden
        });
        let write_ok = write_ok.or((write_probe && write_proven).then_some(true));
        let answer = ProbeAnswer {
            write_ok,
            replication_lag: looks.replication(replies).and_then(replication_lag),
            replication_offset: replication_offset(&replies[1]),
            memory: looks.memory(replies).and_then(memory_use),
            ..ProbeAnswer::new(latency, role)
        };
        let ok = ProbeOutcome::Ok(answer);
        Report {
            outcome: outcome.unwrap_or(ok),
            error,
            identity: Some(self.identity.clone()),
            keyspace: replies[2].text().map(|_| Keyspace::read(&replies[2])),
            marks: Marks::read(&replies[3..LOOKS]),
            mark_database: self.mark_database,
            replication: looks.replication(replies).and_then(Replication::read),
            asked: Asked::default(),
        }
    }
}

fn timed_out(silent_for: Duration) -> Report {
    let outcome = ProbeOutcome::TimedOut { silent_for };
    Report { outcome, ..broken(Edge::LinkLost, "the probe was not answered in time") }
}

fn broken(edge: Edge, text: &str) -> Report {
    Report {
        outcome: ProbeOutcome::Failed(edge),
        error: Some(text.to_owned()),
        identity: None,
        keyspace: None,
        marks: Marks::default(),
        mark_database: 0,
        replication: None,
        asked: Asked::default(),
    }
}

fn failed(error: &HandshakeError) -> Report {
    let outcome = match error {
        HandshakeError::Authentication(_) => ProbeOutcome::AuthenticationFailed,
        HandshakeError::NotReady(_) => match error.edge() {
            Some(Edge::NotReady(word)) => ProbeOutcome::NotReady(word),
            _ => ProbeOutcome::NotReady(NotReadyWord::Loading),
        },
        _ => ProbeOutcome::Failed(error.edge().unwrap_or(Edge::HandshakeReset)),
    };
    Report { outcome, ..broken(Edge::LinkLost, &error.to_string()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn lag_and_memory_are_read_from_what_the_server_says() {
        let info = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
        let up = info("role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\nslave_repl_offset:9\r\n");
        assert_eq!(replication_lag(&up), Some(Duration::from_secs(3)));
        let down = info("master_last_io_seconds_ago:-1\r\nmaster_link_down_since_seconds:70\r\n");
        assert_eq!(replication_lag(&down), Some(Duration::from_secs(70)));
        assert_eq!(replication_lag(&info("role:master\r\n")), None);
        let memory =
            info("used_memory:1000\r\nused_memory_peak:5\r\nmaxmemory:4000\r\nmaxmemory_policy:noeviction\r\n");
        assert_eq!(memory_use(&memory), Some(MemoryUse { used_bytes: 1_000, max_bytes: 4_000, evicts: false }));
    }

    #[test]
    fn the_keys_of_all_databases_are_counted_without_the_mark() {
        let text = "# Keyspace\r\ndb0:keys=3,expires=0,avg_ttl=0\r\ndb15:keys=1,expires=0,avg_ttl=0\r\n";
        let keyspace = Keyspace::read(&Reply::Bulk(Bytes::from_static(text.as_bytes())));
        assert_eq!(keyspace.0, [(0, 3), (15, 1)]);
        assert_eq!((keyspace.keys(15, 1), keyspace.keys(15, 0)), (3, 4));
    }

    #[test]
    fn a_server_that_is_lost_or_refuses_is_asked_again_soon_twice_and_then_at_the_interval() {
        let mut row = Row::default();
        let lost = ProbeOutcome::Failed(Edge::ConnectRefused);
        let loading = ProbeOutcome::NotReady(NotReadyWord::Loading);
        let full = ProbeOutcome::Ok(ProbeAnswer { write_ok: Some(false), ..ProbeAnswer::default() });
        let well = ProbeOutcome::Ok(ProbeAnswer { write_ok: Some(true), ..ProbeAnswer::default() });
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!([&lost, &lost, &lost, &lost].map(|outcome| row.quick_pause(outcome)), [ms(0), ms(2), None, None]);
        assert_eq!([&loading, &full, &loading].map(|outcome| row.quick_pause(outcome)), [ms(120), ms(120), None]);
        assert_eq!([&well, &loading, &well].map(|outcome| row.quick_pause(outcome)), [None, ms(120), None]);
    }
}
