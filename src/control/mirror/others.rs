//! Other writers on the active. What they write is not mirrored, so that a mirrored backup would hold older values: while
//! there are any, it is kept empty like a cold one, and the status says so.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::command;
use crate::config::DataMode;
use crate::control::entry::{self, words};
use crate::control::neighbours;
use crate::control::probe::ProbeCommand;
use crate::control::shared::Shared;
use crate::policy::BackendId;

/// Looked for this often: they are to be known within ten seconds.
const LOOK: Duration = Duration::from_secs(4);
/// And this often once there is one: many Standins ask the same server.
const LOOK_KNOWN: Duration = Duration::from_secs(20);
/// The time between two looks is at least so many times what one took, but not longer than the last.
const COST_INVERSE: u32 = 500;
const LOOK_MAX: Duration = Duration::from_secs(60);
/// One that was seen counts for so long.
const REMEMBERED: Duration = Duration::from_secs(60);
/// A Standin that lives has connected to a server that came back within this.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);
/// A client that wrote within this many seconds is a writer.
const IDLE_SECONDS_MAX: u64 = 10;

/// Somebody else who writes to the active.
pub(in crate::control) struct OtherWriter {
    who: String,
    seen: Instant,
}

/// Why nothing is mirrored; `None` when we are alone.
pub(super) fn why(other: &Option<OtherWriter>, has_mirrored_backup: bool) -> Option<String> {
    let who = &other.as_ref()?.who;
    let so = if has_mirrored_backup {
        "a mirrored backup is kept empty until that has ended"
    } else {
        "what it writes while another backend serves enters no record here"
    };
    Some(format!("{who} writes to the active as well; {so}"))
}

/// Looks for others for as long as the process lives.
pub(in crate::control) async fn watch(shared: Rc<Shared>) {
    loop {
        let began = Instant::now();
        let active = shared.group.route().active;
        if shared.group.route().epoch > 0 && !shared.rules(active).is_embedded {
            look(&shared).await;
            if let Err(error) = neighbours::forget_dead(&shared, active).await {
                tracing::debug!(%error, "who else serves from the active could not be asked");
            }
        }
        let is_known = shared.other_writer.borrow().is_some();
        let pause = if is_known { LOOK_KNOWN } else { LOOK };
        // A server with very many clients takes long to name them: so seldom that it is not felt.
        tokio::time::sleep(pause.max(began.elapsed() * COST_INVERSE).min(LOOK_MAX)).await;
    }
}

pub(super) async fn wait_for_one(shared: &Rc<Shared>, id: BackendId) -> String {
    loop {
        if let Some(why) = shared.other_writer() {
            return why;
        }
        if shared.facts.borrow()[id.index()].names_neighbours {
            return "another Standin of the group serves from it".to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks the active who its clients are. Where that is not allowed, we are taken to be alone.
pub(super) async fn look(shared: &Rc<Shared>) {
    let active = shared.group.route().active;
    let reply = shared.ask(active, vec![words(&["CLIENT", "LIST"])], shared.entry_timeout).await;
    let list = reply.ok().and_then(|replies| replies.first().and_then(|reply| reply.text().map(str::to_owned)));
    let Some(list) = list else { return };
    let mut other = shared.other_writer.borrow_mut();
    // What is left of an earlier run of ours is proven dead when a backend is entered.
    let mut ours = shared.incidents.borrow().predecessors.clone();
    ours.push(shared.client_name.clone());
    if let Some(who) = writer(&list, &ours) {
        *other = Some(OtherWriter { who, seen: Instant::now() });
    } else if other.as_ref().is_some_and(|other| other.seen.elapsed() > REMEMBERED) {
        *other = None;
    }
}

/// While others write, a mirrored backup that is ours keeps no keys.
pub(super) async fn keep_empty(shared: &Rc<Shared>, id: BackendId) {
    let is_due = {
        let facts = &shared.facts.borrow()[id.index()];
        let is_idle = !shared.group.route().serves(id) && shared.newest_is_done() && !facts.emptying;
        let has_keys = facts.is_owned() && facts.keys_in_use > 0 && facts.last_error.is_none();
        shared.other_writer.borrow().is_some() && shared.rules(id).data == DataMode::Mirrored && is_idle && has_keys
    };
    if !is_due {
        return;
    }
    shared.facts.borrow_mut()[id.index()].emptying = true;
    if let Err(why) = entry::empty(shared, id).await {
        tracing::debug!(why, "a mirrored backup could not be emptied yet");
        tokio::time::sleep(LOOK).await;
    }
    shared.facts.borrow_mut()[id.index()].emptying = false;
}

/// A content that came back names the Standins of its time. Those that have had time to connect, and have not, are forgotten:
/// until then nobody keeps that server in step.
pub(super) async fn forget_old_names(shared: &Rc<Shared>, id: BackendId, named_since: &mut Option<Instant>) {
    let is_named = {
        let facts = &shared.facts.borrow()[id.index()];
        let is_up = facts.met && facts.last_error.is_none();
        is_up && facts.names_neighbours && facts.identity.as_ref().is_some_and(|identity| !identity.is_replica)
    };
    if !is_named || shared.group.route().active == id {
        *named_since = None;
    } else if named_since.get_or_insert_with(Instant::now).elapsed() > CONNECTS_WITHIN {
        *named_since = None;
        if let Err(error) = neighbours::forget_dead(shared, id).await {
            tracing::debug!(%error, "names of others could not be looked at");
        }
        let _ = shared.probers[id.index()].try_send(ProbeCommand::Now);
    }
}

/// A client of somebody else that writes, or another Standin, which writes for its clients.
fn writer(list: &str, our_names: &[String]) -> Option<String> {
    list.lines().find_map(|line| {
        let field = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let name = field("name").unwrap_or_default();
        if our_names.iter().any(|ours| ours == name)
            || name == "standin-check"
            || field("flags").is_some_and(|flags| flags.contains('S'))
        {
            return None;
        }
        let idle: u64 = field("idle").and_then(|idle| idle.parse().ok()).unwrap_or(0);
        let command = field("cmd").unwrap_or_default();
        let writes =
            idle <= IDLE_SECONDS_MAX && command::lookup(command.as_bytes()).is_some_and(command::Spec::is_write);
        let address = field("addr").unwrap_or("?");
        match () {
            () if name.starts_with("standin-") => Some(format!("another Standin ({address})")),
            () if writes => Some(format!("client {address} ({command})")),
            () => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_standin_and_a_client_that_writes_are_writers_and_nobody_else() {
        let line = |name: &str, flags: &str, idle: u64, command: &str| {
            format!("id=1 addr=1.1.1.1:1 name={name} idle={idle} flags={flags} cmd={command}\n")
        };
        let is_writer = |line: &str| writer(line, &["standin-1".to_owned()]).is_some();
        assert!(is_writer(&line("standin-2", "N", 600, "ping")));
        assert!(is_writer(&line("", "N", 0, "set")));
        for harmless in [
            line("standin-1", "N", 0, "set"),
            line("standin-check", "N", 0, "ping"),
            line("", "N", 60, "set"),
            line("", "N", 0, "get"),
            line("", "S", 0, "replconf"),
        ] {
            assert!(!is_writer(&harmless), "{harmless}");
        }
    }
}
