//! The small keys that groups keep on a server: whose content it holds, and which backend served last.
//!
//! They lie in the mark's database, see `probe`. An *incident* begins whenever a backend is entered: it has a number that
//! only grows, and every backend that can be reached is told the newest one. So a Standin that starts knows who served
//! last, or that it does not know.

use crate::backend::Reply;

/// The names of these keys.
#[derive(Debug, Clone)]
pub(super) struct MarkKeys {
    /// Says which generation of content this group put there: the mark of ownership.
    pub(super) generation: String,
    /// The set of all groups that own content of the server.
    pub(super) owners: String,
    /// What this group's newest incident is, and what other backends have missed since.
    pub(super) incident: String,
    /// The set of all groups that keep an incident there.
    pub(super) groups: String,
    /// Lies on a backend while its mirror is open.
    pub(super) mirror: String,
    /// The set of all Standins of the group that serve from the server, by the name of their connections.
    pub(super) serving: String,
}

/// So many of those that serve are named by a look: enough to tell that there are others.
const SERVING_NAMED: &str = "3";

/// The fields of the incident that a look asks for.
const INCIDENT_FIELDS: [&str; 7] = ["number", "active", "run", "process", "instance", "databases", "shared"];

impl MarkKeys {
    pub(super) fn new(prefix: &str, group: &str) -> Self {
        Self {
            generation: format!("{prefix}{group}:generation"),
            owners: format!("{prefix}owners"),
            incident: format!("{prefix}{group}:incident"),
            groups: format!("{prefix}groups"),
            mirror: format!("{prefix}{group}:mirror"),
            serving: format!("{prefix}{group}:serving"),
        }
    }

    /// The requests whose replies [`Marks::read`] takes.
    pub(super) fn looks(&self) -> [Vec<&str>; 6] {
        let mut incident = vec!["HMGET", &self.incident];
        incident.extend(INCIDENT_FIELDS);
        let (owners, groups) = (vec!["SMEMBERS", self.owners.as_str()], vec!["SMEMBERS", self.groups.as_str()]);
        let serving = vec!["SRANDMEMBER", &self.serving, SERVING_NAMED];
        [vec!["GET", &self.generation], owners, incident, groups, vec!["GET", &self.mirror], serving]
    }
}

/// What groups have put on a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// The value of our group's mark, if the server has one.
    pub(super) generation: Option<String>,
    /// Every group that has put its mark there, ours included.
    pub(super) owners: Vec<String>,
    pub(super) incident: Option<Incident>,
    /// Every group that keeps an incident there, ours included.
    groups: Vec<String>,
    /// Who keeps it in step, or kept it when it ended: the name of the connections of that Standin.
    pub(super) mirror: Option<String>,
    /// Some of the Standins that serve from it, ours included; they may have died since.
    pub(super) serving: Vec<String>,
}

/// Who served last, as far as a server was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Incident {
    pub(super) number: u64,
    /// The backend's name.
    pub(super) active: String,
    /// Run id of its server; empty where it does not tell.
    pub(super) run_id: String,
    /// What the connections of that Standin called themselves.
    pub(super) process: String,
    /// Which Standin it was: the same after a restart.
    pub(super) instance: String,
    /// The databases that the group's sessions have used: the ones that are emptied, also after a restart.
    pub(super) databases: Vec<u32>,
    /// While another backend serves too: keys of hash slots below this may have been written there alone.
    pub(super) shared: u16,
}

impl Marks {
    /// From the replies to [`MarkKeys::looks`].
    pub(super) fn read(replies: &[Reply]) -> Self {
        let names = |at: usize| {
            let elements = replies.get(at).and_then(Reply::elements).unwrap_or_default();
            elements.iter().filter_map(|name| name.text().map(str::to_owned)).collect()
        };
        let generation = replies.first().and_then(Reply::text).map(str::to_owned);
        let mirror = replies.get(4).and_then(Reply::text).map(str::to_owned);
        Self {
            generation,
            owners: names(1),
            incident: replies.get(2).and_then(Incident::read),
            groups: names(3),
            mirror,
            serving: names(5),
        }
    }

    /// The owners beside this group.
    pub(super) fn others(&self, group: &str) -> Vec<String> {
        self.owners.iter().filter(|owner| *owner != group).cloned().collect()
    }

    /// Keys that all these take: one for each owner and each group with an incident, the two sets, the mark of an open
    /// mirror, and the set of those that serve.
    pub(super) fn keys(&self) -> u64 {
        let listed = |names: &[String], is_there: bool| match names.len() as u64 {
            0 => u64::from(is_there),
            count => count + 1,
        };
        let mirror = u64::from(self.mirror.is_some());
        listed(&self.owners, self.generation.is_some())
            + listed(&self.groups, self.incident.is_some())
            + mirror
            + u64::from(!self.serving.is_empty())
    }
}

impl Incident {
    fn read(reply: &Reply) -> Option<Self> {
        let fields = reply.elements()?;
        let text = |at: usize| fields.get(at).and_then(Reply::text).unwrap_or_default().to_owned();
        let number = text(0).parse().ok()?;
        let databases = text(5).split(',').filter_map(|number| number.parse().ok()).collect();
        let shared = text(6).parse().unwrap_or(0);
        Some(Self { number, active: text(1), run_id: text(2), process: text(3), instance: text(4), databases, shared })
    }

    /// The words behind HSET and the key.
    pub(super) fn fields(&self) -> Vec<String> {
        let databases: Vec<String> = self.databases.iter().map(u32::to_string).collect();
        let (number, databases, shared) = (self.number.to_string(), databases.join(","), self.shared.to_string());
        let values = [&number, &self.active, &self.run_id, &self.process, &self.instance, &databases, &shared];
        INCIDENT_FIELDS.iter().zip(values).flat_map(|(field, value)| [(*field).to_owned(), value.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_owner_takes_a_mark_and_all_together_one_set() {
        let marks = |generation: Option<&str>, owners: &[&str]| Marks {
            generation: generation.map(str::to_owned),
            owners: names(owners),
            ..Marks::default()
        };
        assert_eq!(marks(None, &[]).keys(), 0);
        assert_eq!(marks(Some("g"), &["cache"]).keys(), 2);
        assert_eq!(marks(Some("g"), &["cache", "sessions"]).keys(), 3);
        assert_eq!(marks(Some("g"), &[]).keys(), 1, "the set was deleted");
        let told = Marks { groups: names(&["cache"]), incident: Some(Incident::default()), ..marks(None, &[]) };
        assert_eq!(told.keys(), 2, "an incident and its set");
    }

    #[test]
    fn an_incident_is_read_as_it_was_written_and_one_without_a_number_is_none() {
        let incident = Incident { number: 7, active: "backup-a".into(), databases: vec![0, 3], ..Incident::default() };
        let values = incident.fields().into_iter().skip(1).step_by(2);
        let reply = Reply::Array(values.map(|value| Reply::Bulk(value.into())).collect());
        assert_eq!(Incident::read(&reply), Some(incident));
        assert_eq!(Incident::read(&Reply::Array(vec![Reply::Null; 7])), None);
    }
}
