//! The surviving copy on the control plane's side: what it begins with, what came between, and how it is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::entry::words;
use super::shared::Shared;
use crate::backend::{Identity, Reply};
use crate::divergence::{DirtyKey, MissedByBackend, SNAPSHOT, State, read_copy};
use crate::policy::BackendId;
use crate::route::Route;

/// Keys travel in blocks of about so many bytes.
const BLOCK_BYTES: usize = 32 * 1024;
/// The workers take up a new route within this; until then the old active may still be written to.
const TAKEN_UP_MAX: Duration = Duration::from_secs(1);

impl Shared {
    /// The fields with which a copy begins on a backend that is about to serve; none while no copy is kept.
    ///
    /// Where backends are kept in step there is none: what they have missed changes with every write, and they are filled
    /// again after a restart. Where others write too there is none either: nobody listens to them while Standin is dead.
    pub(super) fn copy_of_records(&self, active: BackendId, incident: u32) -> Vec<Vec<u8>> {
        let recording = self.keeping(active).recording;
        if recording == 0 || self.has_mirrored_backup() || self.tracks_writers {
            return Vec::new();
        }
        let (mut fields, mut blocks) = (Vec::new(), 0);
        for (number, record) in self.group.numbered(recording) {
            let id = BackendId(number);
            let run_id =
                self.facts.borrow()[id.index()].identity.as_ref().map_or(String::new(), |it| it.run_id.clone());
            fields.push(format!("of:{}", self.rules(id).name).into_bytes());
            fields.push(format!("{number} {run_id}").into_bytes());
            for block in record.copy_missing(number, incident, BLOCK_BYTES) {
                fields.push(format!("block:{SNAPSHOT}:{blocks}").into_bytes());
                fields.push(block);
                blocks += 1;
            }
        }
        fields.push(b"snapshot".to_vec());
        fields.push(blocks.to_string().into_bytes());
        fields
    }

    /// Keys that were noted for the old active between the copy's beginning and the moment at which every worker had taken
    /// up the new route.
    pub(super) fn complete_copy(self: &Rc<Self>, route: &Route) {
        if route.copying == 0 || route.recording == 0 {
            return;
        }
        let (shared, route) = (Rc::clone(self), route.clone());
        tokio::task::spawn_local(async move {
            let taken_up = async {
                while !shared.group.is_acknowledged(route.version) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let _ = tokio::time::timeout(TAKEN_UP_MAX, taken_up).await;
            let mut hset = words(&["HSET", &shared.mark_keys.incident]);
            let mut blocks = 0;
            for (number, record) in shared.group.numbered(route.recording) {
                for block in record.copy_missing(number, route.copying, BLOCK_BYTES) {
                    hset.push(format!("block:between.{}:{blocks}", shared.client_name).into_bytes());
                    hset.push(block);
                    blocks += 1;
                }
            }
            if blocks == 0 {
                return;
            }
            let told = shared.ask(route.active, vec![hset], shared.entry_timeout).await;
            if !told.is_ok_and(|replies| replies.iter().all(|reply| reply.error().is_none())) {
                shared.group.break_copy(route.copying);
                shared.tell(route.active, vec![words(&["HDEL", &shared.mark_keys.incident, "snapshot"])]);
            }
        });
    }

    /// From now on the copy would not say everything: a backend is kept in step, and what it has not confirmed is known
    /// here alone. After a restart nothing is known of it then, and it is emptied and filled again.
    ///
    /// # Errors
    /// When the active cannot be told.
    pub(super) async fn give_up_copy(&self) -> io::Result<()> {
        let route = self.group.route();
        if route.copying == 0 || self.group.is_copy_broken(route.copying) {
            return Ok(());
        }
        self.group.break_copy(route.copying);
        let forget = words(&["HDEL", &self.mark_keys.incident, "snapshot"]);
        let replies = self.ask(route.active, vec![forget], self.entry_timeout).await?;
        match replies.first().and_then(Reply::error) {
            Some(error) => Err(io::Error::other(error.to_owned())),
            None => Ok(()),
        }
    }

    /// Takes over what other backends have missed, as the one that served last has it.
    ///
    /// # Errors
    /// Those of the connection; then nothing is known.
    pub(super) async fn take_over_records(&self, from: BackendId) -> io::Result<()> {
        let replies = self.ask(from, vec![words(&["HGETALL", &self.mark_keys.incident])], self.entry_timeout).await?;
        let Some(copy) = Copy::read(&replies[0]).filter(|copy| copy.instance == self.instance) else { return Ok(()) };
        for rules in self.rules.iter().filter(|rules| rules.id != from) {
            let Some((run_id, keys)) = copy.of(&rules.name) else { continue };
            let is_same_run = {
                let facts = &mut self.facts.borrow_mut()[rules.id.index()];
                facts.has_record = true;
                // One that cannot be reached yet is compared when it can.
                let known =
                    facts.identity.get_or_insert_with(|| Identity { run_id: run_id.to_owned(), ..Identity::default() });
                known.run_id == run_id && !run_id.is_empty()
            };
            if is_same_run {
                let record = self.group.record(rules.id);
                record.settle(State::Clean);
                for (database, key) in keys {
                    record.dirty(*database, [&**key]);
                }
            }
        }
        Ok(())
    }
}

/// What an incident says of the backends that do not serve.
struct Copy {
    /// Which Standin has written it. That of another says what the other's clients wrote.
    instance: String,
    /// By name: number and run id.
    backends: BTreeMap<String, (u8, String)>,
    missed: MissedByBackend,
    nothing: BTreeSet<DirtyKey>,
}

impl Copy {
    /// `None` if there is none, or not as it was written.
    fn read(reply: &Reply) -> Option<Self> {
        let elements = reply.elements()?;
        let bytes = |reply: &Reply| if let Reply::Bulk(bytes) = reply { Some(bytes.clone()) } else { None };
        let fields: Option<Vec<_>> =
            elements.chunks_exact(2).map(|pair| Some((bytes(&pair[0])?, bytes(&pair[1])?))).collect();
        let fields = fields?;
        let text = |value: &[u8]| std::str::from_utf8(value).map(str::to_owned).ok();
        let snapshot =
            fields.iter().find(|(name, _)| &**name == b"snapshot").and_then(|(_, value)| text(value)?.parse().ok())?;
        let missed = read_copy(fields.iter().map(|(name, value)| (&**name, &**value)), snapshot)?;
        let mut backends = BTreeMap::new();
        for (name, value) in &fields {
            let Some(name) = text(name).and_then(|name| name.strip_prefix("of:").map(str::to_owned)) else { continue };
            let value = text(value)?;
            let (number, run_id) = value.split_once(' ')?;
            backends.insert(name, (number.parse().ok()?, run_id.to_owned()));
        }
        let instance = fields.iter().find(|(name, _)| &**name == b"instance");
        let instance = instance.and_then(|(_, value)| text(value)).unwrap_or_default();
        Some(Self { instance, backends, missed, nothing: BTreeSet::new() })
    }

    /// Run id and keys of a backend; `None` when nobody knows what it has missed.
    fn of(&self, name: &str) -> Option<(&str, &BTreeSet<DirtyKey>)> {
        let (number, run_id) = self.backends.get(name)?;
        match self.missed.get(number) {
            None => Some((run_id, &self.nothing)),
            Some(keys) => Some((run_id, keys.as_ref()?)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reply(fields: &[(&str, &[u8])]) -> Reply {
        let bulk = |bytes: &[u8]| Reply::Bulk(bytes.to_vec().into());
        Reply::Array(fields.iter().flat_map(|(name, value)| [bulk(name.as_bytes()), bulk(value)]).collect())
    }

    #[test]
    fn a_backend_of_which_nothing_is_said_is_unknown_and_one_without_keys_is_clean() {
        let fields: [(&str, &[u8]); 3] = [("number", b"3"), ("snapshot", b"0"), ("of:primary", b"0 run")];
        let copy = Copy::read(&reply(&fields)).unwrap();
        let (run_id, keys) = copy.of("primary").unwrap();
        assert_eq!((run_id, keys.len()), ("run", 0));
        assert!(copy.of("backup-a").is_none());
        assert!(Copy::read(&reply(&fields[..1])).is_none(), "without its header there is no copy");
    }
}
