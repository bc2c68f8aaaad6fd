use std::time::Duration;

use super::{request, spec_of};
use crate::command::{blocking_timeout, is_blocking, timeout_position, with_timeout};

/// The same request with 1.5 s left.
fn rewritten(line: &str) -> Option<String> {
    let frame = with_timeout(spec_of(line), &request(line), Duration::from_micros(1_499_001))?;
    let words = crate::resp::arguments(&frame).map(|word| String::from_utf8_lossy(word).into_owned());
    Some(words.collect::<Vec<_>>().join(" "))
}

#[test]
fn the_time_left_replaces_the_time_in_its_own_unit() {
    let cases = [
        ("BLPOP a b 30", "BLPOP a b 1.500"),
        ("BRPOPLPUSH a b 0", "BRPOPLPUSH a b 1.500"),
        ("BLMOVE a b LEFT RIGHT 0.5", "BLMOVE a b LEFT RIGHT 1.500"),
        ("BLMPOP 9 2 a b LEFT", "BLMPOP 1.500 2 a b LEFT"),
        ("BZPOPMIN z 5", "BZPOPMIN z 1.500"),
        ("XREAD COUNT 3 BLOCK 5000 STREAMS s $", "XREAD COUNT 3 BLOCK 1500 STREAMS s $"),
        ("XREADGROUP GROUP block block BLOCK 0 STREAMS s >", "XREADGROUP GROUP block block BLOCK 1500 STREAMS s >"),
        ("WAIT 1 0", "WAIT 1 1500"),
        ("WAITAOF 1 0 100", "WAITAOF 1 0 1500"),
    ];
    for (line, expected) in cases {
        assert!(is_blocking(spec_of(line), &request(line)), "{line}");
        assert_eq!(rewritten(line).as_deref(), Some(expected));
    }
}

#[test]
fn no_time_left_is_a_millisecond_since_nought_means_for_ever() {
    let frame = with_timeout(spec_of("BLPOP"), &request("BLPOP a 3"), Duration::ZERO).unwrap();
    assert_eq!(frame, request("BLPOP a 0.001"));
}

#[test]
fn a_stream_read_without_block_does_not_block() {
    for line in ["XREAD STREAMS block 0", "XREADGROUP GROUP block block STREAMS s >", "XREAD COUNT 5", "GET k"] {
        assert!(!is_blocking(spec_of(line), &request(line)), "{line}");
        assert_eq!(rewritten(line), None);
    }
}

#[test]
fn the_time_is_read_in_its_own_unit() {
    let read = |line: &str| blocking_timeout(spec_of(line), &request(line));
    assert_eq!(read("BLPOP a 1.25"), Some(Duration::from_millis(1250)));
    assert_eq!(read("XREAD BLOCK 250 STREAMS s $"), Some(Duration::from_millis(250)));
    assert_eq!(read("WAIT 1 100"), Some(Duration::from_millis(100)));
    for line in ["BLPOP a 0", "BLPOP a x", "BLPOP a -1", "BLPOP a inf", "BLPOP a 1e300", "WAIT 1 1.5", "GET k"] {
        assert_eq!(read(line), None, "{line}");
    }
}

#[test]
fn a_request_that_is_cut_short_has_no_time() {
    for line in ["BLPOP", "BLMPOP", "WAIT", "XREAD BLOCK", "XREADGROUP GROUP g"] {
        assert_eq!(timeout_position(spec_of(line), &request(line)), None, "{line}");
    }
}
