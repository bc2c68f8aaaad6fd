//! What the control plane knows of a backend's content: whose it is, and whether it may be entered.

use std::collections::BTreeSet;
use std::time::Instant;

use super::marks::Incident;
use super::replication::Replication;
use crate::backend::Identity;
use crate::config::{DataMode, DivergencePolicy};
use crate::divergence::{State, Summary};
use crate::limits::RECONCILE_KEYS_MAX;
use crate::policy::{BackendId, BackendRole, Standing};

/// Fixed by the configuration.
#[derive(Debug, Clone)]
pub(super) struct BackendRules {
    pub(super) id: BackendId,
    pub(super) name: String,
    pub(super) role: BackendRole,
    pub(super) data: DataMode,
    pub(super) persistent: bool,
    /// It is one of the servers that replicate each other: the primary where there are replicas, and those.
    pub(super) is_replicated: bool,
    pub(super) replication_address: Option<(String, u16)>,
    pub(super) is_embedded: bool,
    pub(super) weight: u32,
    pub(super) zone: Option<String>,
    pub(super) region: Option<String>,
}

impl BackendRules {
    /// Whether it is one that is kept in step while another serves: a mirrored backup always, the primary (`mirror.primary`)
    /// from when it is well again until it serves.
    pub(super) fn is_kept_in_step(&self, mirrors_primary: bool, promotes: bool, backends: usize) -> bool {
        // With `replica.promote` the primary is made to follow the server that serves.
        let follows = self.is_replicated && promotes;
        let is_kept_up = mirrors_primary && backends > 1 && !follows;
        self.data == DataMode::Mirrored || (self.role == BackendRole::Primary && is_kept_up)
    }
}

/// Learnt from probes.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) identity: Option<Identity>,
    /// Keys in all databases, without the mark; `None` while not known.
    pub(super) keys: Option<u64>,
    /// Of those, the ones in databases that sessions of the group use: only these are ever emptied.
    pub(super) keys_in_use: u64,
    /// Databases, by the server's numbers, that hold keys of applications.
    pub(super) filled: BTreeSet<u32>,
    /// The mark's value, which names the generation of content that this group put there.
    pub(super) generation: Option<String>,
    /// Other groups that have put their marks there too: then nobody empties it.
    pub(super) other_owners: Vec<String>,
    pub(super) mark_database: u32,
    /// The newest incident that the server was told of.
    pub(super) incident: Option<Incident>,
    /// What it has missed was taken over from the one that served last.
    pub(super) has_record: bool,
    /// A probe has come back, whatever it found.
    pub(super) was_looked_at: bool,
    /// So many earlier runs of this Standin have no connection there any more.
    pub(super) predecessors_buried: usize,
    /// Run id of the server that was asked for the commands of its modules.
    pub(super) asked_for_commands: Option<String>,
    /// The first look decided about ownership.
    pub(super) met: bool,
    /// Another Standin of the group has emptied it since its content was known, or made unknown, here.
    pub(super) emptied_by_neighbour: bool,
    /// Another Standin of the group serves from it, as the last look at its clients showed.
    pub(super) serves_neighbour: Option<Instant>,
    /// The last look named others of the group that serve from it, dead or alive.
    pub(super) names_neighbours: bool,
    /// We have left it, and it may still name us as one that serves from it.
    pub(super) names_us: bool,
    /// An emptying is under way.
    pub(super) emptying: bool,
    /// The backend that is the same server by another address.
    pub(super) twin: Option<String>,
    /// As it said last, where it is one of those that replicate each other.
    pub(super) replication: Option<Replication>,
    /// Why it could not be promoted, or made to follow.
    pub(super) replication_trouble: Option<String>,
    /// When it was told last whom to follow.
    pub(super) told_at: Option<Instant>,
    /// Why its sealed databases that are used could not be emptied, as it was last recorded.
    pub(super) sealed_why: Option<String>,
    pub(super) last_ok_us: u64,
    pub(super) last_error: Option<String>,
    pub(super) standing: Option<Standing>,
}

impl Facts {
    /// Whether it is refused for its role alone.
    pub(super) fn is_mere_replica(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.is_replica && !identity.is_cluster)
    }

    pub(super) fn is_owned(&self) -> bool {
        self.generation.is_some() && self.other_owners.is_empty()
    }
}

/// What may be done about content that nobody recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Emptied by compare-and-flush.
    Flush,
    /// Taken as it is, by the operator's word.
    Trust,
    Refuse(String),
}

/// The rules for content that is unknown, see DESIGN "Divergence".
pub(super) fn remedy(rules: &BackendRules, facts: &Facts, policy: DivergencePolicy, why: &str) -> Remedy {
    let never_flushed = if rules.persistent {
        Some("it is configured as persistent and is never emptied")
    } else if facts.identity.as_ref().is_some_and(|identity| identity.is_replica) {
        Some("it is a replica and is never emptied")
    } else {
        None
    };
    let shared = facts.other_owners.first();
    let content = match facts.keys {
        Some(keys) => format!("its content ({keys} keys) may be stale: {why}"),
        None => format!("its content may be stale: {why}"),
    };
    match policy {
        DivergencePolicy::Trust => Remedy::Trust,
        DivergencePolicy::Refuse => Remedy::Refuse(format!("{content}; divergence.policy is refuse")),
        _ if never_flushed.is_some() => Remedy::Refuse(format!("{content}, and {}", never_flushed.unwrap_or_default())),
        _ if shared.is_some() => {
            let other = shared.map_or("", String::as_str);
            Remedy::Refuse(format!("{content}, and group {other} has put its mark there as well: it is never emptied"))
        }
        DivergencePolicy::Flush => Remedy::Flush,
        DivergencePolicy::Auto if facts.is_owned() => Remedy::Flush,
        DivergencePolicy::Auto => Remedy::Refuse(format!("{content}, and this group does not own it")),
    }
}

/// Whether a backend that has missed very many keys is better emptied than put right key by key: it may be emptied, and at most
/// `others_max` keys go that it has not missed. Everything else of its content is worth more than the time.
pub(super) fn is_better_emptied(
    rules: &BackendRules,
    facts: &Facts,
    policy: DivergencePolicy,
    missed: usize,
    others_max: u64,
) -> bool {
    missed > RECONCILE_KEYS_MAX
        && facts.keys_in_use.saturating_sub(missed as u64) <= others_max
        && remedy(rules, facts, policy, "") == Remedy::Flush
}

/// Whether a backend may be entered, as far as its content goes.
pub(super) fn standing(rules: &BackendRules, facts: &Facts, policy: DivergencePolicy, record: &Summary) -> Standing {
    if let Some(identity) = &facts.identity {
        if identity.is_cluster {
            let why = "it is a node of a cluster, which would send clients past Standin; name a standalone server";
            return Standing::Refused { why: why.to_owned() };
        }
        if identity.is_replica && rules.data != DataMode::Replica {
            let why = match rules.role {
                BackendRole::Primary => {
                    "it is a replica, and takes no writes: promote it, or name its master as the primary"
                }
                BackendRole::Backup => {
                    "it is a replica but is not configured as one; set data = \"replica\", or promote it"
                }
            };
            return Standing::Refused { why: why.to_owned() };
        }
    }
    if rules.data == DataMode::Replica {
        // Its content is its master's affair.
        return if facts.identity.is_some() { Standing::Enterable } else { Standing::Unknown };
    }
    match record.state {
        State::Clean | State::Empty | State::Keys => Standing::Enterable,
        State::Unknown if !facts.met => Standing::Unknown,
        State::Unknown => match remedy(rules, facts, policy, &record.why) {
            Remedy::Flush | Remedy::Trust => Standing::Enterable,
            Remedy::Refuse(why) => Standing::Refused { why },
        },
    }
}

/// The one command that mends a refusal.
pub(super) fn mend(rules: &BackendRules, facts: &Facts) -> String {
    let name = &rules.name;
    let identity = facts.identity.as_ref();
    if facts.twin.is_some() {
        format!("point backend {name} at a server of its own")
    } else if identity.is_some_and(|identity| identity.is_cluster) {
        format!("point backend {name} at a standalone server")
    } else if identity.is_some_and(|identity| identity.is_replica) && rules.data == DataMode::Replica {
        format!("promote backend {name} (REPLICAOF NO ONE), or set replica.promote = true")
    } else if identity.is_some_and(|identity| identity.is_replica) && rules.role == BackendRole::Primary {
        format!("promote backend {name} (REPLICAOF NO ONE), or name its master as the primary")
    } else if identity.is_some_and(|identity| identity.is_replica) {
        format!("set data = \"replica\" for backend {name}")
    } else if facts.serves_neighbour.is_some() {
        format!("wait until no other Standin serves from {name}, or let them return first")
    } else if rules.data == DataMode::Replica {
        format!("have backend {name} follow the server that serves: REPLICAOF HOST PORT")
    } else if let Some(other) = facts.other_owners.first() {
        format!("give this group a server that group {other} does not use in place of backend {name}")
    } else if rules.persistent {
        format!("remove persistent = true from backend {name}, or empty it by hand")
    } else {
        format!("standin adopt {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> BackendRules {
        BackendRules {
            id: BackendId(1),
            name: "b".to_owned(),
            role: BackendRole::Backup,
            data: DataMode::Cold,
            persistent: false,
            is_replicated: false,
            replication_address: None,
            is_embedded: false,
            weight: 100,
            zone: None,
            region: None,
        }
    }

    fn record(state: State) -> Summary {
        Summary { state, keys: 0, bytes: 0, why: "it restarted".to_owned() }
    }

    fn owned(owned: bool) -> Facts {
        Facts { met: true, keys: Some(7), generation: owned.then(|| "g".to_owned()), ..Facts::default() }
    }

    #[test]
    fn unknown_content_is_entered_only_when_it_may_be_emptied_or_is_trusted() {
        let check = |policy, facts: &Facts, rules: &BackendRules| {
            standing(rules, facts, policy, &record(State::Unknown)) == Standing::Enterable
        };
        let persistent = BackendRules { persistent: true, ..rules() };
        assert!(check(DivergencePolicy::Auto, &owned(true), &rules()));
        assert!(!check(DivergencePolicy::Auto, &owned(false), &rules()));
        assert!(!check(DivergencePolicy::Auto, &owned(true), &persistent));
        assert!(check(DivergencePolicy::Flush, &owned(false), &rules()));
        assert!(!check(DivergencePolicy::Flush, &owned(true), &persistent));
        assert!(!check(DivergencePolicy::Refuse, &owned(true), &rules()));
        assert!(check(DivergencePolicy::Trust, &owned(false), &persistent));
    }

    #[test]
    fn a_recorded_difference_can_always_be_made_right() {
        let facts = owned(false);
        assert_eq!(standing(&rules(), &facts, DivergencePolicy::Auto, &record(State::Keys)), Standing::Enterable);
    }

    #[test]
    fn what_has_missed_very_many_keys_is_emptied_where_that_is_allowed_and_costs_few_others() {
        let holding = |is_owned, keys_in_use| Facts { keys_in_use, ..owned(is_owned) };
        let check = |facts: &Facts, rules: &BackendRules, policy, missed| {
            is_better_emptied(rules, facts, policy, missed, 10_000)
        };
        let auto = DivergencePolicy::Auto;
        let many = RECONCILE_KEYS_MAX + 1;
        assert!(check(&holding(true, 25_000), &rules(), auto, many));
        assert!(!check(&holding(true, 25_000), &rules(), auto, RECONCILE_KEYS_MAX), "so many are put right one by one");
        assert!(check(&holding(true, many as u64 + 10_000), &rules(), auto, many));
        assert!(!check(&holding(true, many as u64 + 10_001), &rules(), auto, many), "too many others would go");
        assert!(!check(&holding(false, 25_000), &rules(), auto, many), "it is not ours");
        assert!(check(&holding(false, 25_000), &rules(), DivergencePolicy::Flush, many));
        for policy in [DivergencePolicy::Refuse, DivergencePolicy::Trust] {
            assert!(!check(&holding(true, 25_000), &rules(), policy, many), "{policy:?}");
        }
        let persistent = BackendRules { persistent: true, ..rules() };
        assert!(!check(&holding(true, 25_000), &persistent, auto, many));
    }

    #[test]
    fn a_replica_configured_as_cold_and_a_cluster_node_are_refused_with_what_to_do() {
        for identity in
            [Identity { is_replica: true, ..Identity::default() }, Identity { is_cluster: true, ..Identity::default() }]
        {
            let facts = Facts { identity: Some(identity), ..owned(true) };
            let verdict = standing(&rules(), &facts, DivergencePolicy::Trust, &record(State::Empty));
            assert!(matches!(verdict, Standing::Refused { .. }));
            assert!(!mend(&rules(), &facts).contains("adopt"));
        }
    }
}
