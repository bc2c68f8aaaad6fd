//! Reads that must not be asked again of the server that may have executed them: a later write of the same session was
//! sent behind them, so that they could be answered by what their own client wrote after them.
//!
//! Elsewhere that write was not executed, and all of them are sent there in their order.

use std::collections::{HashMap, HashSet};

use super::link::{Owner, Queue, flag};
use crate::command::{self, Category, KeyScope};
use crate::resp;

struct Request<'a> {
    owner: usize,
    bytes: &'a [u8],
    was_sent: bool,
    category: Option<Category>,
}

/// What later requests of one session may have written.
#[derive(Default)]
struct Later<'a> {
    keys: HashSet<&'a [u8]>,
    anything: bool,
}

/// Flags the reads in doubt. `repeats` tells whether a request that was sent will be sent again.
pub(super) fn flag_reads_in_doubt<S: Owner>(queue: &mut Queue<S>, repeats: impl Fn(Category, u8) -> bool) {
    let written = queue.written;
    let mut start = queue.answered;
    let mut requests = Vec::with_capacity(queue.entries.len());
    for entry in &queue.entries {
        let bytes = &queue.bytes[start..start + entry.len as usize];
        let category = category_of(bytes, entry.flags);
        requests.push(Request { owner: entry.owner.id(), bytes, was_sent: start < written, category });
        start += entry.len as usize;
    }
    let mut later: HashMap<usize, Later<'_>> = HashMap::new();
    let mut in_doubt: HashMap<usize, Vec<&[u8]>> = HashMap::new();
    for (at, request) in requests.iter().enumerate().rev().filter(|(_, request)| request.was_sent) {
        match request.category {
            Some(Category::Read) => {
                if let Some(keys) = later.get(&request.owner).and_then(|later| later.met_by(request.bytes)) {
                    in_doubt.insert(at, keys);
                }
            }
            Some(_) => later.entry(request.owner).or_default().add(request.bytes),
            None => {}
        }
    }
    if in_doubt.is_empty() {
        return;
    }
    // What a request that is sent again before it writes whole is as certain as it was the first time.
    let mut settled: HashSet<(usize, &[u8])> = HashSet::new();
    let mut flagged = Vec::new();
    for (at, request) in requests.iter().enumerate() {
        if let Some(keys) = in_doubt.get(&at) {
            let is_settled = !keys.is_empty() && keys.iter().all(|key| settled.contains(&(request.owner, *key)));
            if !is_settled {
                flagged.push(at);
            }
        }
        let is_sent_again = |category| !request.was_sent || repeats(category, queue.entries[at].attempts);
        if request.category.is_some_and(is_sent_again) && overwrites(request.bytes) {
            command::written_keys(command::of_request(request.bytes), request.bytes, &mut |key| {
                settled.insert((request.owner, key));
            });
        }
    }
    for at in flagged {
        queue.entries[at].flags |= flag::DOUBTFUL;
    }
}

/// `None` for what changes nothing by itself: the server only queues it for EXEC.
fn category_of(bytes: &[u8], flags: u16) -> Option<Category> {
    (flags & (flag::QUEUED | flag::AHEAD) == 0).then(|| command::of_request(bytes).category(bytes))
}

impl<'a> Later<'a> {
    fn add(&mut self, bytes: &'a [u8]) {
        let scope = command::written_keys(command::of_request(bytes), bytes, &mut |key| {
            self.keys.insert(key);
        });
        // EXEC names no keys, and may write whatever was queued.
        let is_exec = command::of_request(bytes).category(bytes) == Category::Never;
        self.anything |= is_exec || !matches!(scope, KeyScope::None | KeyScope::Keys);
    }

    /// The keys of a read that were written later, if any were; empty when that cannot be told key by key.
    fn met_by(&self, bytes: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let mut all = Vec::new();
        let scope = command::keys(command::of_request(bytes), bytes, &mut |key| all.push(key));
        match scope {
            KeyScope::None if !command::reads_keyspace(command::of_request(bytes)) => None,
            KeyScope::Keys if self.anything => Some(all),
            KeyScope::Keys => {
                all.retain(|key| self.keys.contains(key));
                (!all.is_empty()).then_some(all)
            }
            KeyScope::None | KeyScope::Database | KeyScope::Everything | KeyScope::Unknown => {
                (self.anything || !self.keys.is_empty()).then(Vec::new)
            }
        }
    }
}

/// Whether a request leaves nothing of what its keys held before, their TTL included.
fn overwrites(bytes: &[u8]) -> bool {
    match command::of_request(bytes).name {
        "set" => !resp::arguments(bytes).skip(3).any(|word| word.eq_ignore_ascii_case(b"keepttl")),
        "setex" | "psetex" | "mset" | "del" | "unlink" => true,
        _ => false,
    }
}
