//! What one client knows of its own keys, and hence which values it may be given.

use super::meter::Outcome;
use crate::resp;

/// Keys of each client: few, so that every one is read again soon after a switch.
pub(super) const KEYS: u64 = 64;
/// As in the figures that the product promises.
const VALUE_BYTES: usize = 64;
/// Of sixteen requests twelve read, three write and one deletes.
const PATTERN: &[u8; 16] = b"GGSGGGSGGGDGGSGG";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Set,
    Delete,
}

/// A request that is to be sent, and what its answer is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) operation: Operation,
    key: u64,
    /// Of a SET: the version that it writes.
    version: u64,
}

/// Versions of one key. Only its own client writes it, so they only grow.
#[derive(Debug, Clone, Copy, Default)]
struct Versions {
    /// The newest that was ever sent, whether or not it arrived.
    sent: u64,
    /// The oldest that may still be read. What is absent is never stale: a cache may lose what it holds.
    oldest_allowed: u64,
}

/// One client's keys.
#[derive(Debug)]
pub(super) struct Ledger {
    client: u32,
    keys: Vec<Versions>,
    /// Advances by one with each request.
    turn: u64,
}

impl Ledger {
    pub(super) fn new(client: u32) -> Self {
        // Each client begins at another place of the pattern, so that they do not all write at once.
        Self { client, keys: vec![Versions::default(); KEYS as usize], turn: u64::from(client) * 5 }
    }

    /// The next request, appended to `out`.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Step {
        let operation = match PATTERN[(self.turn % PATTERN.len() as u64) as usize] {
            b'G' => Operation::Get,
            b'S' => Operation::Set,
            _ => Operation::Delete,
        };
        // A multiplicative walk (Knuth's constant): every key meets every kind of request, in no visible order.
        let key = (self.turn.wrapping_mul(2_654_435_761) >> 16) % KEYS;
        self.turn += 1;
        let versions = &mut self.keys[key as usize];
        if operation == Operation::Set {
            versions.sent += 1;
        }
        let step = Step { operation, key, version: versions.sent };
        let name = self.name(key);
        match operation {
            Operation::Get => resp::encode_request(out, &[b"GET", name.as_bytes()]),
            Operation::Set => {
                resp::encode_request(out, &[b"SET", name.as_bytes(), self.value(key, step.version).as_bytes()]);
            }
            Operation::Delete => resp::encode_request(out, &[b"DEL", name.as_bytes()]),
        }
        step
    }

    /// Judges a whole reply and remembers what it says.
    pub(super) fn judge(&mut self, step: Step, reply: &[u8]) -> Outcome {
        if reply.first() == Some(&b'-') {
            return Outcome::Error(String::from_utf8_lossy(reply[1..].trim_ascii()).into_owned());
        }
        let right = match step.operation {
            Operation::Get => return self.judge_value(step.key, reply),
            Operation::Set => reply == b"+OK\r\n",
            Operation::Delete => matches!(resp::integer(reply), Some(0 | 1)),
        };
        if !right {
            return wrong(step.operation, reply);
        }
        let versions = &mut self.keys[step.key as usize];
        versions.oldest_allowed = match step.operation {
            // A value that was deleted may not come back either.
            Operation::Delete => step.version + 1,
            Operation::Get | Operation::Set => step.version,
        };
        Outcome::Success
    }

    fn judge_value(&mut self, key: u64, reply: &[u8]) -> Outcome {
        if matches!(reply, b"$-1\r\n" | b"_\r\n") {
            return Outcome::Success;
        }
        let Some(version) = resp::bulk(reply).and_then(|value| self.version(key, value)) else {
            return wrong(Operation::Get, reply);
        };
        let versions = &mut self.keys[key as usize];
        if version < versions.oldest_allowed {
            return Outcome::Stale;
        }
        // Time does not run backwards for a client: what it has seen, it sees again or something newer.
        versions.oldest_allowed = version;
        Outcome::Success
    }

    fn name(&self, key: u64) -> String {
        format!("demo:{}:{key}", self.client)
    }

    fn value(&self, key: u64, version: u64) -> String {
        let text = format!("{}={version};", self.name(key));
        format!("{text:.<VALUE_BYTES$}")
    }

    /// The version in a value that was once written to this key; `None` for any other value.
    fn version(&self, key: u64, value: &[u8]) -> Option<u64> {
        let text = str::from_utf8(value).ok()?;
        let version = text.strip_prefix(&self.name(key))?.strip_prefix('=')?.split_once(';')?.0.parse().ok()?;
        let was_sent = version <= self.keys[key as usize].sent;
        (was_sent && self.value(key, version) == text).then_some(version)
    }
}

/// A reply that no server gives to this request: the replies of two requests were mixed up, or a value was damaged.
fn wrong(operation: Operation, reply: &[u8]) -> Outcome {
    const SHOWN_BYTES: usize = 60;
    let shown = reply[..reply.len().min(SHOWN_BYTES)].escape_ascii();
    Outcome::Error(format!("a wrong reply to {operation:?}: {shown}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STEP_GET: fn(u64) -> Step = |key| Step { operation: Operation::Get, key, version: 0 };
    const STEP_DELETE: fn(u64, u64) -> Step = |key, version| Step { operation: Operation::Delete, key, version };

    /// A ledger in which key 7 was written so many times, each acknowledged.
    fn written(times: u64) -> Ledger {
        let mut ledger = Ledger::new(3);
        for version in 1..=times {
            ledger.keys[7].sent = version;
            let step = Step { operation: Operation::Set, key: 7, version };
            assert_eq!(ledger.judge(step, b"+OK\r\n"), Outcome::Success);
        }
        ledger
    }

    fn reply(value: &str) -> Vec<u8> {
        format!("${}\r\n{value}\r\n", value.len()).into_bytes()
    }

    #[test]
    fn an_older_value_than_the_acknowledged_one_is_stale_and_an_absent_one_is_not() {
        let mut ledger = written(5);
        let (older, newest) = (reply(&ledger.value(7, 4)), reply(&ledger.value(7, 5)));
        assert_eq!(ledger.judge(STEP_GET(7), &newest), Outcome::Success);
        assert_eq!(ledger.judge(STEP_GET(7), b"$-1\r\n"), Outcome::Success);
        assert_eq!(ledger.judge(STEP_GET(7), &older), Outcome::Stale);
    }

    #[test]
    fn a_value_that_was_deleted_may_not_come_back() {
        let mut ledger = written(5);
        let newest = reply(&ledger.value(7, 5));
        assert_eq!(ledger.judge(STEP_DELETE(7, 5), b":1\r\n"), Outcome::Success);
        assert_eq!(ledger.judge(STEP_GET(7), &newest), Outcome::Stale);
    }

    #[test]
    fn a_write_of_unknown_outcome_may_be_seen_or_not_but_not_first_seen_and_then_unseen() {
        let mut ledger = written(5);
        ledger.keys[7].sent = 6;
        let (before, after) = (reply(&ledger.value(7, 5)), reply(&ledger.value(7, 6)));
        assert_eq!(ledger.judge(STEP_GET(7), &before), Outcome::Success);
        assert_eq!(ledger.judge(STEP_GET(7), &after), Outcome::Success);
        assert_eq!(ledger.judge(STEP_GET(7), &before), Outcome::Stale);
    }

    #[test]
    fn a_reply_that_belongs_to_another_request_is_an_error() {
        let mut ledger = written(5);
        let never_sent = reply(&ledger.value(7, 9));
        let other_key = reply(&ledger.value(8, 5));
        let other_client = reply(&Ledger::new(2).value(7, 5));
        for wrong in [never_sent, other_key, other_client, b"+OK\r\n".to_vec(), b":1\r\n".to_vec()] {
            assert!(matches!(ledger.judge(STEP_GET(7), &wrong), Outcome::Error(_)), "{}", wrong.escape_ascii());
        }
        assert!(matches!(ledger.judge(STEP_DELETE(7, 5), b"+OK\r\n"), Outcome::Error(_)));
        let error = ledger.judge(STEP_GET(7), b"-NOBACKEND none is up\r\n");
        assert_eq!(error, Outcome::Error("NOBACKEND none is up".to_owned()));
    }

    #[test]
    fn three_of_four_requests_read_and_every_key_is_read_written_and_deleted() {
        let mut ledger = Ledger::new(0);
        let mut met = std::collections::BTreeMap::new();
        let mut out = Vec::new();
        for _ in 0..16_000 {
            let step = ledger.next(&mut out);
            *met.entry((format!("{:?}", step.operation), step.key)).or_insert(0) += 1;
        }
        assert_eq!(met.len(), 3 * KEYS as usize);
        let reads: u32 = met.iter().filter(|((operation, _), _)| operation == "Get").map(|(_, count)| count).sum();
        assert_eq!(reads, 12_000);
    }
}
