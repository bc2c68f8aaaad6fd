//! Whether two servers hold the same under a key. By what clients read, not by DUMP: of two servers that hold the same set
//! the serialised forms differ, and so do those of two versions.

use std::io;
use std::time::Duration;

use super::sides::{Pair, Side};
use crate::backend::Reply;
use crate::config::Sampling;
use crate::control::entry::words;
use crate::telemetry::wall_time::WallTime;

/// What is not alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// The active has it, the other has not.
    Missing,
    /// The other has it, the active has not.
    Extra,
    /// Type or value.
    Value,
    /// Time of life.
    Lifetime,
}

/// One look at a key.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    /// `none` when there is no such key.
    kind: String,
    /// Milliseconds; -1 without an end.
    left: i64,
    /// Bytes in memory, where the server tells.
    memory: Option<usize>,
}

impl Seen {
    fn is_there(&self) -> bool {
        self.kind != "none"
    }
}

/// What differs, for each key. Both servers are read one after the other, so that a write between them shows too.
pub(super) async fn compare(
    settings: &Sampling,
    pair: &mut Pair,
    database: u32,
    keys: &[Box<[u8]>],
) -> io::Result<Vec<Option<Difference>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let (ours, our_skew) = look(&mut pair.active, database, keys).await?;
    let (theirs, their_skew) = look(&mut pair.follower, database, keys).await?;
    let tolerance = settings.ttl_tolerance + our_skew + their_skew;
    let mut verdicts = Vec::with_capacity(keys.len());
    let mut values = Vec::new();
    for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let verdict = without_value(ours, theirs, tolerance)
            .filter(|difference| *difference != Difference::Extra || pair.is_complete)
            .filter(|difference| *difference != Difference::Missing || pair.is_filled);
        let fits = |seen: &Seen| seen.memory.is_none_or(|bytes| bytes <= settings.value_max);
        if verdict.is_none() && ours.is_there() && theirs.is_there() && fits(ours) && fits(theirs) {
            values.push((number, reading(&ours.kind, &keys[number])));
        }
        verdicts.push(verdict);
    }
    if values.is_empty() {
        return Ok(verdicts);
    }
    let requests: Vec<_> = values.iter().map(|(_, request)| request.clone()).collect();
    let our_values = pair.active.ask(database, requests.clone()).await?;
    let their_values = pair.follower.ask(database, requests).await?;
    for ((number, _), (ours_read, theirs_read)) in values.iter().zip(our_values.iter().zip(&their_values)) {
        for reply in [ours_read, theirs_read] {
            // Of another type by now: a write came between.
            if let Some(error) = reply.error().filter(|error| !error.starts_with("WRONGTYPE")) {
                return Err(io::Error::other(error.to_owned()));
            }
        }
        if !same_value(&ours[*number].kind, ours_read, theirs_read) {
            verdicts[*number] = Some(Difference::Value);
        }
    }
    Ok(verdicts)
}

/// Types and times of life, and by how much the server's clock differs from ours.
async fn look(side: &mut Side, database: u32, keys: &[Box<[u8]>]) -> io::Result<(Vec<Seen>, Duration)> {
    let mut requests = vec![words(&["TIME"])];
    for key in keys {
        requests.push(vec![b"TYPE".to_vec(), key.to_vec()]);
        requests.push(vec![b"PTTL".to_vec(), key.to_vec()]);
        requests.push(vec![b"MEMORY".to_vec(), b"USAGE".to_vec(), key.to_vec()]);
    }
    let replies = side.ask(database, requests).await?;
    let now_ms = WallTime::now().as_ms();
    let mut seen = Vec::with_capacity(keys.len());
    for replies in replies[1..].chunks_exact(3) {
        let refused = || replies[0].error().or(replies[1].error()).unwrap_or("TYPE was answered by something else");
        let (Some(kind), Some(left)) = (replies[0].text(), replies[1].integer()) else {
            return Err(io::Error::other(refused().to_owned()));
        };
        let memory = replies[2].integer().and_then(|bytes| usize::try_from(bytes).ok());
        seen.push(Seen { kind: kind.to_owned(), left, memory });
    }
    Ok((seen, skew(&replies[0], now_ms)))
}

fn skew(time: &Reply, now_ms: u64) -> Duration {
    let part = |at: usize| time.elements()?.get(at)?.text()?.parse::<u64>().ok();
    let server_ms = part(0).zip(part(1)).map(|(seconds, micros)| seconds * 1_000 + micros / 1_000);
    Duration::from_millis(server_ms.map_or(0, |server_ms| server_ms.abs_diff(now_ms)))
}

fn without_value(ours: &Seen, theirs: &Seen, tolerance: Duration) -> Option<Difference> {
    let tolerance = tolerance.as_millis() as i64;
    let ends_now = |seen: &Seen| (0..=tolerance).contains(&seen.left);
    match (ours.is_there(), theirs.is_there()) {
        (false, false) => None,
        (true, false) => (!ends_now(ours)).then_some(Difference::Missing),
        (false, true) => (!ends_now(theirs)).then_some(Difference::Extra),
        (true, true) if ours.kind != theirs.kind => Some(Difference::Value),
        (true, true) => {
            let (ours_ends, theirs_ends) = (ours.left >= 0, theirs.left >= 0);
            let is_near = ours_ends == theirs_ends && (ours.left - theirs.left).abs() <= tolerance;
            (!is_near).then_some(Difference::Lifetime)
        }
    }
}

/// The request that reads a value of this type.
pub(in crate::control) fn reading(kind: &str, key: &[u8]) -> Vec<Vec<u8>> {
    let (name, rest): (&str, &[&str]) = match kind {
        "string" => ("GET", &[]),
        "list" => ("LRANGE", &["0", "-1"]),
        "set" => ("SMEMBERS", &[]),
        "zset" => ("ZRANGE", &["0", "-1", "WITHSCORES"]),
        "hash" => ("HGETALL", &[]),
        "stream" => ("XRANGE", &["-", "+"]),
        // A module's: its serialised form is all there is.
        _ => ("DUMP", &[]),
    };
    let mut request = vec![name.as_bytes().to_vec(), key.to_vec()];
    request.extend(rest.iter().map(|word| word.as_bytes().to_vec()));
    request
}

pub(in crate::control) fn same_value(kind: &str, ours: &Reply, theirs: &Reply) -> bool {
    if ours == theirs {
        return true;
    }
    match (kind, ours, theirs) {
        ("string", Reply::Bulk(ours), Reply::Bulk(theirs)) => same_estimate(ours, theirs),
        ("set", _, _) => sorted(ours, 1) == sorted(theirs, 1),
        ("hash", _, _) => sorted(ours, 2) == sorted(theirs, 2),
        ("zset", _, _) => match (ours.elements(), theirs.elements()) {
            (Some(ours), Some(theirs)) => {
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same_element(ours, theirs))
            }
            _ => false,
        },
        ("list" | "stream" | "string", _, _) => false,
        // Unequal forms of a module's value may still mean the same.
        _ => true,
    }
}

fn bytes(reply: &Reply) -> &[u8] {
    if let Reply::Bulk(bytes) = reply { bytes } else { &[] }
}

/// Elements in groups of `width`, in an order that does not depend on the server.
fn sorted(reply: &Reply, width: usize) -> Vec<Vec<&[u8]>> {
    let elements = reply.elements().unwrap_or_default();
    let mut groups: Vec<Vec<&[u8]>> = elements.chunks(width).map(|group| group.iter().map(bytes).collect()).collect();
    groups.sort_unstable();
    groups
}

/// Versions write the same score with different digits.
fn same_element(ours: &Reply, theirs: &Reply) -> bool {
    let score = |reply: &Reply| reply.text().and_then(|text| text.parse::<f64>().ok());
    ours == theirs || score(ours).zip(score(theirs)).is_some_and(|(ours, theirs)| ours.to_bits() == theirs.to_bits())
}

/// PFCOUNT writes the estimate that it has found into the value of the server that it asks.
fn same_estimate(ours: &[u8], theirs: &[u8]) -> bool {
    const MAGIC: &[u8] = b"HYLL";
    const ESTIMATE: std::ops::Range<usize> = 8..16;
    let without = |value: &[u8]| {
        let is_log = value.starts_with(MAGIC) && value.len() >= ESTIMATE.end;
        is_log.then(|| (value[..ESTIMATE.start].to_vec(), value[ESTIMATE.end..].to_vec()))
    };
    without(ours).is_some_and(|ours| without(theirs) == Some(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(kind: &str, left: i64) -> Seen {
        Seen { kind: kind.to_owned(), left, memory: None }
    }

    fn array(words: &str) -> Reply {
        Reply::Array(words.split(' ').map(|word| Reply::Bulk(word.as_bytes().to_vec().into())).collect())
    }

    #[test]
    fn presence_type_and_time_of_life_are_judged_with_tolerance() {
        let (none, gone) = (None, seen("none", -2));
        for (ours, theirs, expected) in [
            (seen("none", -2), gone.clone(), none),
            (seen("string", -1), gone.clone(), Some(Difference::Missing)),
            (seen("string", 900), gone.clone(), none),
            (gone.clone(), seen("string", 60_000), Some(Difference::Extra)),
            (gone.clone(), seen("string", 900), none),
            (seen("string", -1), seen("list", -1), Some(Difference::Value)),
            (seen("string", 60_000), seen("string", 60_900), none),
            (seen("string", 60_000), seen("string", 62_000), Some(Difference::Lifetime)),
            (seen("string", -1), seen("string", 500), Some(Difference::Lifetime)),
        ] {
            let verdict = without_value(&ours, &theirs, Duration::from_secs(1));
            assert_eq!(verdict, expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn the_order_of_sets_and_hashes_does_not_matter_and_that_of_lists_does() {
        for (kind, ours, theirs, same) in [
            ("set", "a b c", "c a b", true),
            ("set", "a b", "a c", false),
            ("hash", "f 1 g 2", "g 2 f 1", true),
            ("hash", "f 1 g 2", "f 2 g 1", false),
            ("list", "a b", "b a", false),
            ("zset", "a 0.10000000000000001 b 2", "a 0.1 b 2", true),
            ("zset", "a 1 b 2", "a 1 b 3", false),
            ("zset", "a 1", "a 1 b 2", false),
        ] {
            assert_eq!(same_value(kind, &array(ours), &array(theirs)), same, "{kind} {ours} {theirs}");
        }
    }

    #[test]
    fn the_estimate_in_a_hyperloglog_does_not_count_and_its_registers_do() {
        let log = |estimate: u8, register: u8| {
            let mut value = b"HYLL\x01\0\0\0".to_vec();
            value.extend([estimate; 8]);
            value.push(register);
            Reply::Bulk(value.into())
        };
        assert!(same_value("string", &log(1, 7), &log(2, 7)));
        assert!(!same_value("string", &log(1, 7), &log(1, 8)));
    }
}
