//! What `standin check --connect` finds about a backend's content and permissions, by the same rules as the running
//! process.

use super::facts::{self, Facts};
use super::marks::{MarkKeys, Marks};
use super::probe::Keyspace;
use super::replication::Replication;
use super::settings::rules;
use crate::backend::{Conversation, Identity};
use crate::config::{self, DataMode};
use crate::divergence::{State, Summary};
use crate::policy::{BackendRole, Standing};

/// Whether it is fine, what was found, and the command that mends it.
type Finding = (bool, String, Option<String>);

/// Commands without which Standin sees less than it should, and what is lost then.
const WANTED: &[(&[&str], &str)] = &[
    (&["INFO", "server"], "a restart of the server cannot be told from a lost connection"),
    (&["CLIENT", "ID"], "a connection that was lost cannot be proven dead"),
    (&["ROLE"], "a replica is not recognised"),
    (&["CONFIG", "GET", "databases"], "the ownership mark lies in the group's own database"),
];

/// Asks on a connection that has shaken hands.
pub async fn content_findings(
    conversation: &mut Conversation,
    backend: &config::Backend,
    group: &config::Group,
    identity: &Identity,
) -> Vec<Finding> {
    let mut requests: Vec<Vec<&str>> = WANTED.iter().map(|(words, _)| words.to_vec()).collect();
    requests.push(vec!["INFO", "keyspace"]);
    let bound = group.timeout.handshake;
    let replies = match conversation.ask_within(bound, &requests).await {
        Ok(replies) => replies,
        Err(error) => return vec![(false, format!("it stopped answering: {error}"), None)],
    };
    let mut findings = Vec::new();
    for ((words, lost), reply) in WANTED.iter().zip(&replies) {
        if let Some(error) = reply.error() {
            let command = words.join(" ");
            findings.push((
                true,
                format!("{command} is refused ({error}): {lost}"),
                Some(format!("allow {command} to this user")),
            ));
        }
    }
    let last = replies[3].elements().and_then(|pair| pair.get(1)?.text()?.parse::<u32>().ok());
    let mark_database = last.map_or(backend.database, |count| count.saturating_sub(1).max(backend.database));
    let number = mark_database.to_string();
    let mark_keys = MarkKeys::new(&group.divergence.mark_prefix, &group.name);
    let mut looks = vec![vec!["SELECT", &number]];
    looks.extend(mark_keys.looks());
    let marked = conversation.ask_within(bound, &looks).await;
    let marks = marked.map(|replies| Marks::read(&replies[1..])).unwrap_or_default();
    let keys = Keyspace::read(&replies[WANTED.len()]).keys(mark_database, marks.keys());
    let facts = Facts {
        identity: Some(identity.clone()),
        keys: Some(keys),
        other_owners: marks.others(&group.name),
        generation: marks.generation,
        mark_database,
        met: true,
        ..Facts::default()
    };
    let index = group.backends.iter().position(|other| other.name == backend.name).unwrap_or_default();
    let rules = rules(index, backend, group);
    let is_primary = rules.role == BackendRole::Primary;
    let state = if keys == 0 || is_primary { State::Empty } else { State::Unknown };
    let record = Summary { state, keys: 0, bytes: 0, why: "it holds keys that Standin did not write".to_owned() };
    match facts::standing(&rules, &facts, group.divergence.policy, &record) {
        Standing::Refused { why } => {
            findings.push((
                false,
                format!("cannot be entered as things stand: {why}"),
                Some(facts::mend(&rules, &facts)),
            ));
        }
        _ => {
            let owned = if facts.is_owned() { ", owned by this group" } else { "" };
            findings.push((true, format!("{keys} keys{owned}; can be entered"), None));
        }
    }
    findings.extend(follows_nobody(&rules, conversation, group).await);
    findings
}

/// A configured replica that follows nobody is a backup that nothing keeps in step; right only for one that was promoted.
async fn follows_nobody(
    rules: &facts::BackendRules,
    conversation: &mut Conversation,
    group: &config::Group,
) -> Option<Finding> {
    let replies = conversation.ask_within(group.timeout.handshake, &[vec!["INFO", "replication"]]).await.ok()?;
    let look = Replication::read(replies.first()?)?;
    let primary = group.primary();
    if rules.data != DataMode::Replica {
        return None;
    }
    if !look.is_replica {
        let text = "it is configured as a replica and follows nobody: nothing keeps it in step, unless it was promoted";
        let mend = format!("have backend {} follow {}: REPLICAOF HOST PORT", rules.name, primary.address);
        return Some((false, text.to_owned(), Some(mend)));
    }
    let (master, link) = (look.master_text().unwrap_or_default(), if look.link_is_up { "up" } else { "down" });
    let text = format!("it follows {master}, the link is {link}, at byte {} of the stream", look.offset);
    let mend = (!look.link_is_up).then(|| format!("see why backend {} cannot reach {master}", rules.name));
    Some((look.link_is_up, text, mend))
}
