//! The scanners against an independent decoder, `redis-protocol`, and against themselves on any split of the bytes.
//!
//! Where the oracle is not to be trusted, the tests say so: it checks no terminators, takes `$-1` in RESP3 for the start of
//! a stream, accepts `+5` and `05` as lengths, and is stricter than a forwarder needs to be about contents (integers, set
//! members, verbatim formats), and takes parts and ends of streams for replies. It recurses, so it never gets deep nests.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use redis_protocol::{resp2, resp3};
use standin::resp::{FrameLimits, ProtocolError, ReplyScanner, RequestScanner, encode_request};

#[path = "../fuzz/check.rs"]
mod check;

/// What an oracle says of bytes: the length of the first frame, that it is incomplete, or that it is none.
type Verdict = Result<Option<usize>, String>;

fn oracle_resp2(bytes: &[u8]) -> Verdict {
    resp2::decode::decode_range(bytes).map(|found| found.map(|(_, len)| len)).map_err(|error| error.to_string())
}

fn oracle_resp3(bytes: &[u8]) -> Verdict {
    resp3::decode::complete::decode_range(bytes)
        .map(|found| found.map(|(_, len)| len))
        .map_err(|error| error.to_string())
}

fn scan_reply(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    ReplyScanner::default().scan(bytes, &FrameLimits::default())
}

fn scan_request(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    RequestScanner::default().scan(bytes, &FrameLimits::default()).map(|found| found.map(|frame| frame.len))
}

/// Each side may refuse what the other accepts, for the reasons above; they must never disagree about where a frame ends,
/// nor one wait for bytes where the other has found the end.
fn never_contradicts(ours: &Result<Option<usize>, ProtocolError>, oracle: &Verdict, bytes: &[u8]) {
    if let (Ok(ours), Ok(oracle)) = (ours, oracle) {
        assert_eq!(ours, oracle, "{:?}", String::from_utf8_lossy(bytes));
    }
    if let (Err(error), Ok(Some(len))) = (ours, oracle) {
        let excused = match error {
            ProtocolError::MissingTerminator | ProtocolError::MissingReplyTerminator => true,
            ProtocolError::InvalidReplyValue => bytes.contains(&b'_'),
            // A length with a plus or a leading zero, or a null in a request.
            ProtocolError::InvalidReplyLength
            | ProtocolError::InvalidBulkLength
            | ProtocolError::InvalidMultibulkLength => {
                bytes[..*len].windows(2).any(|pair| b"$*%~>|!=".contains(&pair[0]) && b"+-0".contains(&pair[1]))
            }
            ProtocolError::ExpectedBulk(kind) => b"+-:*".contains(kind),
            // Parts and ends of streams, which the oracle finds without a beginning too.
            ProtocolError::UnknownReplyType(kind) => b".;".contains(kind),
            _ => false,
        };
        assert!(excused, "{error:?} where the oracle found {len} bytes: {:?}", String::from_utf8_lossy(bytes));
    }
}

fn line() -> impl Strategy<Value = String> {
    "[ -~]{0,40}"
}

/// A string with a length before it; the content may be anything, line breaks and NUL bytes included.
fn sized(kind: char) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'$')], 0..60).prop_map(
        move |content| {
            let mut out = format!("{kind}{}\r\n", content.len()).into_bytes();
            out.extend_from_slice(&content);
            out.extend_from_slice(b"\r\n");
            out
        },
    )
}

fn leaf_resp2() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        line().prop_map(|text| format!("+{text}\r\n").into_bytes()),
        line().prop_map(|text| format!("-{text}\r\n").into_bytes()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        sized('$'),
    ]
}

fn leaf_resp3() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => leaf_resp2(),
        1 => sized('!'),
        1 => Just(b"_\r\n".to_vec()),
        1 => any::<bool>().prop_map(|truth| if truth { b"#t\r\n".to_vec() } else { b"#f\r\n".to_vec() }),
        1 => any::<f64>().prop_map(|number| format!(",{number}\r\n").into_bytes()),
        1 => "[1-9][0-9]{0,60}".prop_map(|digits| format!("({digits}\r\n").into_bytes()),
        1 => line().prop_map(|text| format!("={}\r\ntxt:{text}\r\n", text.len() + 4).into_bytes()),
    ]
}

/// Keys of maps and members of sets that the oracle can hash.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![sized('$'), line().prop_map(|text| format!("+{text}\r\n").into_bytes())]
}

fn counted(kind: char, count: usize, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("{kind}{count}\r\n").into_bytes();
    out.extend(parts.concat());
    out
}

fn reply_resp2() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => leaf_resp2(), 1 => Just(b"$-1\r\n".to_vec()), 1 => Just(b"*-1\r\n".to_vec())].prop_recursive(
        4,
        64,
        8,
        |inner| prop::collection::vec(inner, 0..8).prop_map(|parts| counted('*', parts.len(), &parts)),
    )
}

fn reply_resp3() -> impl Strategy<Value = Vec<u8>> {
    leaf_resp3().prop_recursive(4, 64, 8, |inner| {
        let pairs = |inner: BoxedStrategy<Vec<u8>>| {
            prop::collection::vec((key(), inner).prop_map(|(key, value)| [key, value].concat()), 0..5)
        };
        let attributed = (pairs(inner.clone()), leaf_resp2());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|parts| counted('*', parts.len(), &parts)),
            pairs(inner.clone()).prop_map(|pairs| counted('%', pairs.len(), &pairs)),
            prop::collection::vec(key(), 0..5).prop_map(|parts| counted('~', parts.len(), &parts)),
            attributed.prop_map(|(pairs, value)| [counted('|', pairs.len(), &pairs), value].concat()),
        ]
    })
}

fn push() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(reply_resp3(), 0..4).prop_map(|parts| {
        let parts = [vec![b"+message\r\n".to_vec()], parts].concat();
        counted('>', parts.len(), &parts)
    })
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8).prop_map(|words| {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        encode_request(&mut out, &words);
        out
    })
}

/// Bytes replaced, inserted, removed or cut off.
fn mutated(frame: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"+-:$*_#,(!=%~>|0123456789\r\n".to_vec()),];
    let change = (0u8..4, any::<prop::sample::Index>(), byte);
    (frame, prop::collection::vec(change, 1..4)).prop_map(|(mut bytes, changes)| {
        for (what, at, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// The same cases in every run, so that a commit has one verdict. `PROPTEST_CASES=100000` asks for that many fresh ones;
/// chance's own place is the fuzzer (`make fuzz`).
fn cases() -> ProptestConfig {
    let given = ProptestConfig { failure_persistence: None, max_global_rejects: u32::MAX, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return given;
    }
    ProptestConfig { cases: 1500, rng_seed: RngSeed::Fixed(0x5741_4e44_494e), ..given }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn valid_resp2_replies_end_where_the_oracle_says(reply in reply_resp2(), tail in any::<[u8; 3]>()) {
        prop_assert_eq!(oracle_resp2(&reply), Ok(Some(reply.len())));
        prop_assert_eq!(scan_reply(&reply), Ok(Some(reply.len())));
        prop_assert_eq!(scan_reply(&[&reply[..], &tail].concat()), Ok(Some(reply.len())));
        prop_assert_eq!(scan_reply(&reply[..reply.len() - 1]), Ok(None));
    }

    #[test]
    fn valid_resp3_replies_end_where_the_oracle_says(reply in prop_oneof![4 => reply_resp3(), 1 => push()]) {
        prop_assert_eq!(oracle_resp3(&reply), Ok(Some(reply.len())));
        prop_assert_eq!(scan_reply(&reply), Ok(Some(reply.len())));
        prop_assert_eq!(scan_reply(&reply[..reply.len() - 1]), Ok(None));
    }

    #[test]
    fn valid_requests_end_where_the_oracle_says(request in request()) {
        prop_assert_eq!(oracle_resp2(&request), Ok(Some(request.len())));
        prop_assert_eq!(scan_request(&request), Ok(Some(request.len())));
    }

    #[test]
    fn mutated_resp2_replies_never_end_elsewhere(reply in mutated(reply_resp2())) {
        // What only RESP3 has is no error to us.
        never_contradicts(&scan_reply(&reply), &oracle_resp2(&reply), &reply);
    }

    #[test]
    fn mutated_resp3_replies_never_end_elsewhere(reply in mutated(prop_oneof![4 => reply_resp3(), 1 => push()])) {
        prop_assume!(!reply.windows(3).any(|part| part[1..] == *b"-1" && b"$*%~".contains(&part[0])));
        never_contradicts(&scan_reply(&reply), &oracle_resp3(&reply), &reply);
    }

    #[test]
    fn mutated_requests_never_end_elsewhere(request in mutated(request())) {
        prop_assume!(request.first() == Some(&b'*'));
        never_contradicts(&scan_request(&request), &oracle_resp2(&request), &request);
    }

    #[test]
    fn any_split_gives_the_same_requests(
        how in any::<u8>(),
        frames in prop::collection::vec(
            prop_oneof![request(), mutated(request()), "[ -~]{0,30}\r?\n".prop_map(String::into_bytes)], 0..6),
    ) {
        check::requests(&[vec![how], frames.concat()].concat());
    }

    #[test]
    fn any_split_gives_the_same_replies(
        how in any::<u8>(),
        frames in prop::collection::vec(prop_oneof![reply_resp2(), reply_resp3(), push(), mutated(reply_resp3())], 0..6),
    ) {
        check::replies(&[vec![how], frames.concat()].concat());
    }

    #[test]
    fn any_bytes_at_all_are_answered(data in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select(b"+-:$*_#,(!=%~>|01239\r\n\r\n\"'\\x ".to_vec())], 0..200)) {
        check::requests(&data);
        check::replies(&data);
    }
}

/// The corpus that the fuzzer begins with.
#[test]
fn the_seeds_hold() {
    type Check = fn(&[u8]);
    for (folder, check) in [("request_scanner", check::requests as Check), ("reply_scanner", check::replies as Check)] {
        let path = format!("{}/fuzz/seeds/{folder}", env!("CARGO_MANIFEST_DIR"));
        let seeds: Vec<_> = std::fs::read_dir(&path).expect("the seeds are in the tree").collect();
        assert!(seeds.len() >= 8, "{path} has {} seeds", seeds.len());
        for seed in seeds {
            check(&std::fs::read(seed.expect("readable").path()).expect("readable"));
        }
    }
}
