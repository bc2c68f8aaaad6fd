//! With `replica.promote`, who follows whom once somebody was promoted: the old master when it returns, and the other
//! replicas, are pointed at the server that serves; and an active that is still a replica is promoted when that is right.

use std::rc::Rc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;

use super::super::entry::words;
use super::super::group::{GroupControl, Message};
use super::super::shared::Shared;
use super::promotion::{Other, Promotion, forbidden, promote};
use crate::backend::{Reply, clock};
use crate::config::DataMode;
use crate::policy::BackendId;
use crate::route::Availability;
use crate::telemetry::events::{Event as Entry, EventKind, Severity};

/// A server that does not do what it is told is told again at most this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What was said to a server, and what became of it.
#[derive(Debug)]
pub(in crate::control) enum Told {
    /// To follow the active.
    Follow(Result<(), String>),
    /// To be the master; it serves already.
    Lead(Result<Promotion, String>),
}

impl GroupControl {
    /// After each good probe of a backend.
    pub(in crate::control) fn tend_replication(&mut self, id: BackendId) {
        let shared = Rc::clone(&self.shared);
        let route = shared.group.route();
        let is_calm = route.epoch > 0 && route.availability == Availability::Serving && shared.newest_is_done();
        if !shared.promotes() || !shared.is_replicated(id) || !is_calm || !self.started {
            return;
        }
        let leads = route.active == id;
        let is_wanted = if leads { shared.is_replica(id) } else { shared.should_follow(id, route.active) };
        let facts = &mut shared.facts.borrow_mut()[id.index()];
        let is_due = facts.told_at.is_none_or(|at: Instant| at.elapsed() >= TELL_EVERY);
        if !is_wanted || !is_due {
            return;
        }
        facts.told_at = Some(Instant::now());
        let others = self.others();
        let task = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            let told = if leads {
                let former = task.former_master(id).unwrap_or(id);
                let promoted = promote(&task, former, id, &others, false).await;
                Told::Lead(promoted.map_err(super::super::entry::Obstacle::why))
            } else {
                Told::Follow(tell(&task, id, route.active).await)
            };
            let _ = task.messages.send(Message::Replicated(id, told));
        });
    }

    /// The group's backends as the engine sees them now.
    pub(in crate::control) fn others(&self) -> Vec<Other> {
        let view = self.engine.view(clock::now());
        let eligible = |backend: &crate::policy::BackendView| {
            let is_refused = matches!(backend.standing, crate::policy::Standing::Refused { .. });
            !backend.failed && backend.excluded.is_none() && !is_refused
        };
        let other = |backend: &crate::policy::BackendView| Other {
            id: backend.id,
            failed: backend.failed,
            eligible: eligible(backend),
        };
        view.backends.iter().map(other).collect()
    }

    /// What was said to a server has been answered.
    pub(in crate::control) fn on_replicated(&mut self, id: BackendId, told: Told) {
        let name = self.shared.rules(id).name.clone();
        let active = self.shared.rules(self.shared.group.route().active).name.clone();
        let detail = if let Told::Lead(Ok(promotion)) = &told { promotion.detail() } else { serde_json::Value::Null };
        let (trouble, done) = match told {
            Told::Follow(Ok(())) => (None, Some(format!("backend {name} follows {active} from now on"))),
            Told::Lead(Ok(promotion @ Promotion::Done(_))) => {
                let text = promotion.text();
                (None, Some(format!("backend {name}, which serves, takes writes now{text}")))
            }
            Told::Lead(Ok(Promotion::NotNeeded | Promotion::ByOthers(_))) => (None, None),
            Told::Follow(Err(why)) | Told::Lead(Ok(Promotion::Withheld(why, _)) | Err(why)) => (Some(why), None),
        };
        let before =
            std::mem::replace(&mut self.shared.facts.borrow_mut()[id.index()].replication_trouble, trouble.clone());
        if let Some(message) = done {
            let event = Entry::new(EventKind::Replication, message).backend(name.clone()).result("done");
            self.shared.record(event.detail(serde_json::json!({ "promotion": detail })));
        } else if let Some(why) = trouble.filter(|why| before.as_ref() != Some(why)) {
            let what = if name == active { "is not promoted" } else { "does not follow" };
            let event = Entry::new(EventKind::Replication, format!("backend {name} {what}: {why}"));
            self.shared.record(event.backend(name).severity(Severity::Warning).result("refused"));
        }
        let _ = self.shared.probers[id.index()].try_send(super::super::probe::ProbeCommand::Now);
        self.update_standing(id);
    }
}

impl Shared {
    /// Whether a server is to be pointed at the active: it is a master of its own, or follows somebody else.
    pub(super) fn should_follow(&self, id: BackendId, active: BackendId) -> bool {
        if !self.is_replicated(active) || !self.is_master(active) {
            return false;
        }
        let facts = self.facts.borrow();
        let (own, leader) = (&facts[id.index()], &facts[active.index()]);
        let (Some(own_look), Some(leader_look)) = (&own.replication, &leader.replication) else { return false };
        if leader.last_error.is_some() || leader_look.is_replica {
            return false;
        }
        if own_look.is_replica {
            let is_told = own_look.master == self.replication_address(active);
            let is_in_line = own_look.link_is_up && own_look.id == leader_look.id;
            return !is_told && !is_in_line && !own_look.is_syncing;
        }
        // What it holds is lost when it follows. That is right for one that was left, and for one that has nothing; a server
        // with a content of its own that was never the group's is a mistake in the configuration, and is left alone.
        let is_ours = own.generation.is_some() || own.incident.is_some();
        self.rules(id).data != DataMode::Replica || own.keys == Some(0) || is_ours
    }
}

/// REPLICAOF the server that serves, with its password where the server has none for its master yet.
pub(super) async fn tell(shared: &Rc<Shared>, id: BackendId, active: BackendId) -> Result<(), String> {
    let name = &shared.rules(active).name;
    let Some((host, port)) = shared.replication_address(active) else {
        return Err(format!("backend {name} has no address that other servers reach; give replication_address"));
    };
    if let Some(why) = plain_towards_tls(shared, id, active).await {
        return Err(why);
    }
    let mut requests = credentials(shared, id, active).await?;
    requests.push(words(&["REPLICAOF", &host, &port.to_string()]));
    let replies = shared.ask(id, requests, shared.entry_timeout).await.map_err(|error| error.to_string())?;
    match replies.last().and_then(Reply::error) {
        Some(error) => Err(forbidden("REPLICAOF", error)),
        None => Ok(()),
    }
}

/// Why a server could not follow one that is reached over TLS: it would speak plainly to that port. Where CONFIG is forbidden
/// nobody can tell, and REPLICAOF is said all the same.
async fn plain_towards_tls(shared: &Rc<Shared>, id: BackendId, active: BackendId) -> Option<String> {
    if shared.group.backend(active).target.tls.is_none() || shared.rules(active).replication_address.is_some() {
        return None;
    }
    let asked = vec![words(&["CONFIG", "GET", "tls-replication"])];
    let replies = shared.ask(id, asked, shared.entry_timeout).await.ok()?;
    let set = replies[0].elements().and_then(|pair| pair.get(1)?.text()).map(str::to_owned);
    let name = &shared.rules(active).name;
    (set.as_deref() == Some("no")).then(|| {
        format!(
            "backend {name} is reached over TLS, and this server replicates without it: set `tls-replication yes` on every \
             server of the group, or give backend {name} a replication_address, its plain host and port"
        )
    })
}

/// The requests that give a server the password of its new master. Where the operator has set one it is right; where CONFIG
/// is forbidden it cannot be set, and REPLICAOF is said all the same.
async fn credentials(shared: &Rc<Shared>, id: BackendId, active: BackendId) -> Result<Vec<Vec<Vec<u8>>>, String> {
    let login = &shared.group.backend(active).target.login;
    let Some(password) = &login.password else { return Ok(Vec::new()) };
    let asked = vec![words(&["CONFIG", "GET", "masterauth"])];
    let replies = shared.ask(id, asked, shared.entry_timeout).await.map_err(|error| error.to_string())?;
    let known = replies[0].elements().and_then(|pair| pair.get(1)?.text());
    if known != Some("") {
        return Ok(Vec::new());
    }
    let secret = password.fetch().await.map_err(|error| error.to_string())?;
    let mut requests = Vec::new();
    if let Some(user) = &login.username {
        requests.push(words(&["CONFIG", "SET", "masteruser", user]));
    }
    requests.push(words(&["CONFIG", "SET", "masterauth", secret.expose_secret()]));
    Ok(requests)
}
