//! Which keys clients read, noted for backends that are filled by it (`mirror.read_fill`). A key that is read all the time
//! is offered once a minute: of the others only its hash is looked at.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use super::context::Context;
use crate::command::{self, Flags, Spec};
use crate::limits::READS_REMEMBERED;

/// A key is offered again after about so long: the backend may have lost it. 2^26 µs are 67 s.
const PERIOD_BITS: u32 = 26;

/// What one worker has offered lately, by hash; a later key takes the place of an earlier one.
#[derive(Default)]
pub(super) struct Reads {
    hasher: RandomState,
    recent: RefCell<Vec<u64>>,
    /// Backends that want keys, as bits: what one of an earlier life was offered says nothing of the next.
    wanted: Cell<u32>,
}

impl Reads {
    /// A route was taken up by which these backends want keys.
    pub(super) fn want(&self, backends: u32) {
        if self.wanted.replace(backends) != backends {
            let slots = if backends == 0 { 0 } else { READS_REMEMBERED };
            *self.recent.borrow_mut() = vec![0; slots];
        }
    }

    /// Offers the keys of a request that reads, but for those that were offered lately.
    fn note(&self, database: u32, spec: &Spec, request: &[u8], now_us: u64, offer: impl Fn(&[u8]) -> bool) {
        if !spec.flags.contains(Flags::READONLY) {
            return;
        }
        let mut recent = self.recent.borrow_mut();
        if recent.is_empty() {
            return;
        }
        command::keys(spec, request, &mut |key| {
            let hash = self.hasher.hash_one((database, key, now_us >> PERIOD_BITS)) | 1;
            let place = (hash >> 1) as usize % recent.len();
            if recent[place] == hash {
                return;
            }
            if offer(key) {
                recent[place] = hash;
            }
        });
    }
}

impl Context {
    /// A request is sent that may read: its keys are offered to the backends with these bits.
    pub(super) fn note_read(&self, backends: u32, database: u32, spec: &Spec, request: &[u8], now_us: u64) {
        self.reads.note(database, spec, request, now_us, |key| {
            let offers = self.group.mirrors_of(backends).map(|(mirror, _)| mirror.reads.offer(database, key));
            // Each is offered it, whatever the others say.
            offers.fold(false, |is_taken, offered| is_taken | offered)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp;

    /// The keys that a request offers, where there is room for them or not.
    fn offered(reads: &Reads, words: &str, now_us: u64, has_room: bool) -> Vec<String> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        resp::encode_request(&mut request, &words);
        let offered = RefCell::new(Vec::new());
        reads.note(0, command::of_request(&request), &request, now_us, |key| {
            offered.borrow_mut().push(String::from_utf8_lossy(key).into_owned());
            has_room
        });
        offered.into_inner()
    }

    fn wanted() -> Reads {
        let reads = Reads::default();
        reads.want(1);
        reads
    }

    #[test]
    fn what_is_read_is_offered_and_what_is_written_is_not() {
        let reads = wanted();
        assert_eq!(offered(&reads, "GET a", 1, true), ["a"]);
        assert_eq!(offered(&reads, "MGET b c", 1, true), ["b", "c"]);
        assert_eq!(offered(&reads, "HGETALL h", 1, true), ["h"]);
        for words in ["SET d 1", "INCR d", "SCAN 0", "PING"] {
            assert!(offered(&reads, words, 1, true).is_empty(), "{words}");
        }
    }

    #[test]
    fn a_key_is_offered_once_in_a_while_unless_there_was_no_room_for_it() {
        let reads = wanted();
        assert_eq!(offered(&reads, "GET a", 1, false), ["a"]);
        assert_eq!(offered(&reads, "GET a", 1, true), ["a"]);
        assert!(offered(&reads, "GET a", 2, true).is_empty());
        assert_eq!(offered(&reads, "GET a", 1 << (PERIOD_BITS + 1), true), ["a"]);
    }

    #[test]
    fn a_backend_that_wants_keys_anew_is_offered_all_of_them_and_nobody_while_none_does() {
        let reads = wanted();
        assert_eq!(offered(&reads, "GET a", 1, true), ["a"]);
        reads.want(0);
        assert!(offered(&reads, "GET a", 1, true).is_empty());
        reads.want(1);
        assert_eq!(offered(&reads, "GET a", 1, true), ["a"]);
    }
}
