//! Making a replica the master: when the old one is dead, or by plan, in step, with nothing lost.
//!
//! Never two: a replica is promoted only while no other server of the group is known to be a master that lives. Never beside
//! a primary that is known to live, but by a planned switch, at whose end the old master follows the new one.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::entry::{Obstacle, words};
use super::super::shared::Shared;
use super::look::Replication;
use super::{last_reply_us, since_us};
use crate::backend::{Reply, clock, read_info};
use crate::divergence::State;
use crate::policy::{BackendId, Lack};

/// So long is waited for what the other replicas say of how far they got.
const RIVALS_MAX: Duration = Duration::from_millis(100);
/// Before a planned switch the replica has to show, within this, that it keeps step: what the master had at the beginning
/// arrives. One that has just taken everything over is sent nothing more for up to a second.
const KEEPS_STEP_MAX: Duration = Duration::from_millis(1_200);
/// What is under way must have arrived within this while requests are held.
const IN_STEP_MAX: Duration = Duration::from_millis(300);
/// By then a FAILOVER has ended one way or the other.
const FAILOVER_MAX: Duration = Duration::from_millis(600);
/// The server's own patience, in milliseconds. It waits for an acknowledgement that replicas send once a second; that the
/// replica has everything we know already.
const FAILOVER_PATIENCE_MS: &str = "1";
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// Another backend, as the engine sees it when a switch begins.
#[derive(Debug, Clone, Copy)]
pub(in crate::control) struct Other {
    pub(in crate::control) id: BackendId,
    /// It serves nobody: the verdict stands.
    pub(in crate::control) failed: bool,
    /// It could be entered instead.
    pub(in crate::control) eligible: bool,
}

/// What became of the wish that a backend takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) enum Promotion {
    /// It is no replica, and was none.
    NotNeeded,
    Done(Promoted),
    /// Somebody else has made it the master of what the one before it had; it may lack this.
    ByOthers(Option<Lack>),
    /// It serves reads only, for this reason, and may lack this.
    Withheld(String, Option<Lack>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) struct Promoted {
    pub(in crate::control) took: Duration,
    /// In an emergency, or by plan: by the server's FAILOVER command, or by REPLICAOF to both.
    pub(in crate::control) way: Way,
    /// What it lacks of what was acknowledged, at most; `None` where that is not known.
    pub(in crate::control) lack: Option<Lack>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) enum Way {
    Emergency,
    Failover,
    Drain,
}

impl Way {
    pub(in crate::control) const fn name(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Failover => "failover_command",
            Self::Drain => "drain",
        }
    }
}

/// Promotes a replica that is about to serve, or serves already, because its master is dead.
///
/// `from` is the backend that is left. An operator's own choice is not weighed against other replicas (`is_chosen`).
pub(in crate::control) async fn promote(
    shared: &Rc<Shared>,
    from: BackendId,
    to: BackendId,
    others: &[Other],
    is_chosen: bool,
) -> Result<Promotion, Obstacle> {
    let began = Instant::now();
    if !shared.is_replicated(to) {
        return Ok(Promotion::NotNeeded);
    }
    let Some(look) = look(shared, to).await? else { return Ok(Promotion::NotNeeded) };
    let master = if shared.is_replicated(from) && from != to { Some(from) } else { shared.former_master(to) };
    let lack = || master.and_then(|master| shared.lack(&look, master));
    if !look.is_replica {
        let continues = master.is_some_and(|master| shared.was_promoted_from(&look, master));
        return Ok(if continues && from != to { Promotion::ByOthers(lack()) } else { Promotion::NotNeeded });
    }
    let withheld = |why: &str| Ok(Promotion::Withheld(why.to_owned(), lack()));
    if !shared.promotes() {
        return withheld(
            "it is a replica, and replica.promote is off: whoever runs the servers promotes it (REPLICAOF NO ONE)",
        );
    }
    if let Some(why) = living_master(shared, from, to, others)? {
        return withheld(&why);
    }
    if hears_a_living_master(shared, from, &look) {
        return withheld("it hears from its master, which lives then: only Standin cannot reach it");
    }
    if !is_chosen {
        expect_furthest(shared, to, &look, others).await?;
    }
    if let Err(why) = become_master(shared, to).await? {
        return withheld(&why);
    }
    Ok(Promotion::Done(Promoted { took: began.elapsed(), way: Way::Emergency, lack: lack() }))
}

impl Shared {
    /// Whether a master was a replica of this one when it became one.
    fn was_promoted_from(&self, look: &Replication, master: BackendId) -> bool {
        let led = &self.servers.borrow().led[master.index()];
        led.as_ref().is_some_and(|led| !led.is_empty() && look.earlier_id == *led)
    }

    /// The server, other than this one, of whose stream most is known: the master before.
    pub(super) fn former_master(&self, than: BackendId) -> Option<BackendId> {
        let servers = self.servers.borrow();
        let others = self.rules.iter().map(|rules| rules.id).filter(|id| *id != than && self.is_replicated(*id));
        others
            .filter(|id| servers.streams[id.index()].offset().is_some())
            .max_by_key(|id| last_reply_us(self.group.backend(*id)))
    }
}

/// Who is a master and lives. That the backend which is left does only keeps the replica from being promoted; that another
/// does means that this is not the one to enter.
fn living_master(
    shared: &Shared,
    from: BackendId,
    to: BackendId,
    others: &[Other],
) -> Result<Option<String>, Obstacle> {
    let is_living = |other: &&Other| other.id != to && !other.failed && shared.is_replicated(other.id);
    let masters: Vec<_> = others.iter().filter(is_living).filter(|other| shared.is_master(other.id)).collect();
    let name = |other: &Other| &shared.rules(other.id).name;
    if let Some(other) = masters.iter().find(|other| other.id != from) {
        return Err(Obstacle::Refused(format!("backend {} is a master already: it is the one to enter", name(other))));
    }
    if let Some(other) = masters.first() {
        return Ok(Some(format!("backend {} lives, and two masters are never made", name(other))));
    }
    Ok(None)
}

/// Whether the replica has heard from its master for certain after we last did. The server tells whole seconds, rounded
/// down: what it calls 0 may be nearly one.
fn hears_a_living_master(shared: &Shared, from: BackendId, look: &Replication) -> bool {
    let backend = shared.group.backend(from);
    let ours = since_us(last_reply_us(backend).max(shared.facts.borrow()[from.index()].last_ok_us));
    let theirs = look.last_io.filter(|_| look.link_is_up);
    shared.is_replicated(from) && theirs.is_some_and(|theirs| theirs + Duration::from_secs(1) < ours)
}

/// The one with the most is promoted: what it has, the others can be given.
async fn expect_furthest(
    shared: &Rc<Shared>,
    to: BackendId,
    own: &Replication,
    others: &[Other],
) -> Result<(), Obstacle> {
    let rivals = others.iter().filter(|other| other.id != to && other.eligible && !other.failed);
    let rivals = rivals.map(|other| other.id).filter(|id| shared.is_replicated(*id) && shared.is_replica(*id));
    let asked: Vec<_> = rivals
        .map(|id| {
            let shared = Rc::clone(shared);
            let look = async move { (id, look(&shared, id).await) };
            tokio::task::spawn_local(tokio::time::timeout(RIVALS_MAX, look))
        })
        .collect();
    for answer in asked {
        let Ok(Ok((id, Ok(Some(rival))))) = answer.await else { continue };
        if rival.id == own.id && rival.offset > own.offset {
            let (name, more) = (&shared.rules(id).name, rival.offset - own.offset);
            return Err(Obstacle::Failed(format!("backend {name} has {more} bytes more of what their master sent")));
        }
    }
    Ok(())
}

/// REPLICAOF NO ONE. The inner error says why the server did not.
async fn become_master(shared: &Rc<Shared>, to: BackendId) -> io::Result<Result<(), String>> {
    let requests = vec![words(&["REPLICAOF", "NO", "ONE"]), words(&["INFO", "replication"])];
    let replies = shared.ask(to, requests, shared.entry_timeout).await?;
    if let Some(error) = replies[0].error() {
        return Ok(Err(forbidden("REPLICAOF", error)));
    }
    if Replication::read(&replies[1]).is_some_and(|look| look.is_replica) {
        return Ok(Err("it was told REPLICAOF NO ONE and says that it is a replica still".to_owned()));
    }
    took_over(shared, to, &replies[1]);
    Ok(Ok(()))
}

/// What the status says where a service keeps such commands to itself.
pub(super) fn forbidden(command: &str, error: &str) -> String {
    let word = error.split(' ').next().unwrap_or_default();
    let is_forbidden = word == "NOPERM" || error.starts_with("ERR unknown command");
    if is_forbidden {
        format!(
            "the server forbids {command} ({error}): promote and demote by the service's own means, or allow \
             {command} to Standin's user; until then Standin follows"
        )
    } else {
        format!("{command} was refused: {error}")
    }
}

/// It is the master from now on, and what it holds is what counts.
fn took_over(shared: &Rc<Shared>, to: BackendId, info: &Reply) {
    let mut identity = shared.facts.borrow()[to.index()].identity.clone().unwrap_or_default();
    read_info(info, &mut identity);
    shared.note_identity(to, &identity);
    if let Some(look) = Replication::read(info) {
        shared.note_leader(to, &look);
        let facts = &mut shared.facts.borrow_mut()[to.index()];
        facts.replication = Some(look);
        facts.replication_trouble = None;
    }
    shared.group.record(to).settle(State::Clean);
}

/// Before anybody waits: whether a living master can hand over to the backend, where it is a replica.
pub(in crate::control) async fn expect_ready(
    shared: &Rc<Shared>,
    from: BackendId,
    to: BackendId,
) -> Result<(), Obstacle> {
    if !shared.is_replicated(to) {
        return Ok(());
    }
    let Some(replica) = look(shared, to).await?.filter(|look| look.is_replica) else { return Ok(()) };
    let refused = |why: String| Err(Obstacle::Refused(why));
    if !shared.promotes() {
        return refused(
            "it is a replica and takes no writes, and replica.promote is off: promote it first, and Standin follows"
                .to_owned(),
        );
    }
    if !shared.is_replicated(from) {
        // Who serves has nothing to do with replication; `promote` decides.
        return Ok(());
    }
    let name = &shared.rules(from).name;
    let Some(master) = look(shared, from).await?.filter(|look| !look.is_replica) else { return Ok(()) };
    if replica.id != master.id {
        return refused(format!("it does not follow backend {name}, which serves"));
    }
    if !replica.link_is_up || replica.is_syncing {
        return refused(format!(
            "it is not in step with backend {name}: their link is down, or it takes all over anew"
        ));
    }
    if !arrives(shared, to, &master, KEEPS_STEP_MAX).await? {
        return refused(format!("it is not in step with backend {name}: what was written before has not reached it"));
    }
    Ok(())
}

/// Waits until a replica has what its master had.
async fn arrives(shared: &Rc<Shared>, to: BackendId, master: &Replication, within: Duration) -> io::Result<bool> {
    let asked = Instant::now();
    loop {
        if look(shared, to).await?.is_some_and(|look| look.id == master.id && look.offset >= master.offset) {
            return Ok(true);
        }
        if asked.elapsed() > within {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Requests are held and nothing is in flight: the replica takes over with everything, and the old master follows it.
pub(in crate::control) async fn hand_over(
    shared: &Rc<Shared>,
    from: BackendId,
    to: BackendId,
) -> Result<Promotion, Obstacle> {
    let began = Instant::now();
    if !look(shared, to).await?.is_some_and(|look| look.is_replica) {
        return Ok(Promotion::NotNeeded);
    }
    let lost = || Obstacle::Failed("a server does not say how far it is".to_owned());
    let master = look(shared, from).await?.ok_or_else(lost)?;
    // Nothing is written by us any more: once the replica has what the master has now, it has everything.
    if !arrives(shared, to, &master, IN_STEP_MAX).await? {
        return Err(Obstacle::Failed(format!("the last writes had not reached it after {IN_STEP_MAX:?}")));
    }
    let way = if by_command(shared, from, to, &master).await? {
        Way::Failover
    } else {
        by_hand(shared, from, to).await?;
        Way::Drain
    };
    Ok(Promotion::Done(Promoted { took: began.elapsed(), way, lack: Some(Lack::nothing(clock::now())) }))
}

/// The server's FAILOVER (Redis 6.2 and later): it takes no writes from anybody until the replica is the master, and follows
/// it. False when that way is not open, and nothing has happened.
async fn by_command(
    shared: &Rc<Shared>,
    from: BackendId,
    to: BackendId,
    master: &Replication,
) -> Result<bool, Obstacle> {
    let Some((host, port)) = known_as(shared, to, master).await? else { return Ok(false) };
    let port = port.to_string();
    let request = words(&["FAILOVER", "TO", &host, &port, "FORCE", "TIMEOUT", FAILOVER_PATIENCE_MS]);
    let replies = shared.ask(from, vec![request], shared.entry_timeout).await?;
    if let Some(error) = replies[0].error() {
        tracing::info!(error, "FAILOVER is not available; the replica is waited for instead");
        return Ok(false);
    }
    let asked = Instant::now();
    while asked.elapsed() < FAILOVER_MAX {
        let info = shared.ask(to, vec![words(&["INFO", "replication"])], shared.entry_timeout).await?;
        if Replication::read(&info[0]).is_some_and(|look| !look.is_replica) {
            took_over(shared, to, &info[0]);
            let _ = look(shared, from).await;
            return Ok(true);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let _ = shared.ask(from, vec![words(&["FAILOVER", "ABORT"])], shared.entry_timeout).await;
    Err(Obstacle::Failed(format!("the server's FAILOVER had not ended after {FAILOVER_MAX:?}")))
}

/// As whom the master knows this replica; `None` unless exactly one fits.
async fn known_as(shared: &Rc<Shared>, to: BackendId, master: &Replication) -> Result<Option<(String, u16)>, Obstacle> {
    if let [only] = master.followers.as_slice() {
        return Ok(Some(only.clone()));
    }
    let info = shared.ask(to, vec![words(&["INFO", "server"])], shared.entry_timeout).await?;
    let mut lines = info[0].text().unwrap_or_default().lines();
    let port: Option<u16> = lines.find_map(|line| line.strip_prefix("tcp_port:")?.trim().parse().ok());
    // Over TLS it is known by another port than its plain one: that by which others are told to reach it.
    let told = shared.replication_address(to).map(|(_, port)| port);
    let mut fitting = master.followers.iter().filter(|(_, known)| Some(*known) == port || Some(*known) == told);
    Ok(fitting.next().cloned().filter(|_| fitting.next().is_none()))
}

/// REPLICAOF NO ONE to the one, and REPLICAOF to the other.
async fn by_hand(shared: &Rc<Shared>, from: BackendId, to: BackendId) -> Result<(), Obstacle> {
    if let Err(why) = become_master(shared, to).await? {
        return Err(Obstacle::Refused(why));
    }
    if let Err(why) = super::follow::tell(shared, from, to).await {
        // It serves nobody from now on, and is told again by each probe.
        shared.facts.borrow_mut()[from.index()].replication_trouble = Some(why);
    }
    let _ = look(shared, from).await;
    Ok(())
}

/// Asks now; what was told is known from then on.
pub(super) async fn look(shared: &Rc<Shared>, id: BackendId) -> io::Result<Option<Replication>> {
    let replies = shared.ask(id, vec![words(&["INFO", "replication"])], shared.entry_timeout).await?;
    let look = Replication::read(&replies[0]);
    if let Some(look) = &look {
        shared.note_leader(id, look);
        let mut facts = shared.facts.borrow_mut();
        let facts = &mut facts[id.index()];
        facts.replication = Some(look.clone());
        if let Some(identity) = &mut facts.identity {
            identity.is_replica = look.is_replica;
        }
    }
    Ok(look)
}
