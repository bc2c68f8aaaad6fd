#![allow(clippy::unwrap_used)]
use super::super::{bulk as bulk_of, elements, error_word, first_bulk_of_array, integer, reply_kind};
use super::*;
use crate::limits::{FRAME_DEPTH_MAX, REPLY_DEPTH_MAX};

/// Scans at once, byte by byte, and byte by byte while dropping what was scanned; all must say the same.
fn scan_with(bytes: &[u8], limits: &FrameLimits) -> Result<Option<usize>, ProtocolError> {
    let once = ReplyScanner::default().scan(bytes, limits);
    for consuming in [false, true] {
        let mut scanner = ReplyScanner::default();
        let mut stepwise = Ok(None);
        let mut dropped = 0;
        for end in 0..=bytes.len() {
            stepwise = scanner.scan(&bytes[dropped..end], limits).map(|found| found.map(|len| len + dropped));
            if stepwise != Ok(None) {
                break;
            }
            if consuming {
                let n = scanner.scanned().min(end - dropped);
                scanner.consume_prefix(n);
                dropped += n;
            }
        }
        assert_eq!(once, stepwise, "{:?}", String::from_utf8_lossy(bytes));
    }
    once
}

fn scan(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    scan_with(bytes, &FrameLimits::default())
}

/// A complete reply, alone and before another one, and incomplete without its last byte.
fn complete(reply: &str) {
    let bytes = reply.as_bytes();
    assert_eq!(scan(bytes), Ok(Some(bytes.len())), "{reply:?}");
    assert_eq!(scan(&[bytes, b"+OK\r\n"].concat()), Ok(Some(bytes.len())), "{reply:?}");
    assert_eq!(scan(&bytes[..bytes.len() - 1]), Ok(None), "{reply:?}");
}

#[test]
fn every_type_of_both_protocols_is_found() {
    for reply in [
        "+OK\r\n",
        "+\r\n",
        "+a status that is longer than sixteen bytes\r\n",
        "-ERR unknown\r\n",
        ":-12\r\n",
        "$5\r\nhello\r\n",
        "$0\r\n\r\n",
        "$2\r\n\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n$1\r\na\r\n:1\r\n",
        "*2\r\n*0\r\n*1\r\n*-1\r\n",
        "_\r\n",
        "#t\r\n",
        "#f\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "!21\r\nSYNTAX invalid syntax\r\n",
        "=15\r\ntxt:Some string\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
        "%0\r\n",
        "~2\r\n+a\r\n#t\r\n",
        ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    ] {
        complete(reply);
    }
}

#[test]
fn an_attribute_belongs_to_the_reply_after_it() {
    complete("|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n");
    complete("|0\r\n+OK\r\n");
    complete("|0\r\n|1\r\n+a\r\n+b\r\n+OK\r\n");
    complete("*3\r\n:1\r\n|1\r\n+ttl\r\n*1\r\n:3600\r\n:2\r\n:3\r\n");
    complete("*1\r\n|1\r\n|1\r\n+a\r\n+b\r\n+c\r\n+d\r\n*0\r\n");
}

#[test]
fn a_carriage_return_alone_is_content() {
    complete("+a\rb\nc\r\r\n");
}

#[test]
fn malformed_replies_are_refused() {
    for (reply, expected) in [
        (&b"x\r\n"[..], ProtocolError::UnknownReplyType(b'x')),
        (b"\r\n", ProtocolError::UnknownReplyType(b'\r')),
        (b"$5\r\nhelloXX", ProtocolError::MissingReplyTerminator),
        (b"$5\r\nhello\rX", ProtocolError::MissingReplyTerminator),
        (b"$-2\r\n", ProtocolError::InvalidReplyLength),
        (b"=-1\r\n", ProtocolError::InvalidReplyLength),
        (b"%-1\r\n", ProtocolError::InvalidReplyLength),
        (b"*1x\r\n", ProtocolError::InvalidReplyLength),
        (b"$?\r\n", ProtocolError::StreamedReply),
        (b"*?\r\n", ProtocolError::StreamedReply),
        (b"_x\r\n", ProtocolError::InvalidReplyValue),
        (b"#x\r\n", ProtocolError::InvalidReplyValue),
        (b"*1\r\n.\r\n", ProtocolError::UnknownReplyType(b'.')),
    ] {
        assert_eq!(scan(reply), Err(expected), "{:?}", String::from_utf8_lossy(reply));
    }
}

#[test]
fn every_cap_of_a_reply_holds() {
    let limits = FrameLimits { depth_max: 2, reply_elements_max: 4, bulk_bytes_max: 20, ..FrameLimits::default() };
    let check = |reply: &[u8], expected| assert_eq!(scan_with(reply, &limits), expected, "{reply:?}");
    check(b"*1\r\n*1\r\n+a\r\n", Ok(Some(12)));
    check(b"*1\r\n*1\r\n*0\r\n", Ok(Some(12)));
    check(b"*1\r\n*1\r\n*1\r\n+a\r\n", Err(ProtocolError::ReplyTooDeep { limit: 2 }));
    check(b"*4\r\n+a\r\n+a\r\n+a\r\n+a\r\n", Ok(Some(20)));
    check(b"*5\r\n", Err(ProtocolError::ReplyTooManyElements { limit: 4 }));
    check(b"*2\r\n%1\r\n+a\r\n+a\r\n*1\r\n", Err(ProtocolError::ReplyTooManyElements { limit: 4 }));
    check(&b"|0\r\n".repeat(5), Err(ProtocolError::ReplyTooManyElements { limit: 4 }));
    check(b"$20\r\n12345678901234567890\r\n", Ok(Some(27)));
    check(b"$21\r\n", Err(ProtocolError::ReplyBulkTooBig { limit: 20 }));
    check(b"+12345678901234567890\r\n", Ok(Some(23)));
    check(b"+123456789012345678901", Err(ProtocolError::ReplyLineTooBig { limit: 20 }));
    check(b"*1\r\n+123456789012345678901\r\n", Err(ProtocolError::ReplyLineTooBig { limit: 20 }));
}

#[test]
fn the_deepest_nest_is_an_error_and_not_a_crash() {
    let nest = b"*1\r\n".repeat(1_000_000);
    for limit in [FRAME_DEPTH_MAX, REPLY_DEPTH_MAX] {
        let limits = FrameLimits { depth_max: limit, ..FrameLimits::default() };
        let expected = Err(ProtocolError::ReplyTooDeep { limit });
        assert_eq!(ReplyScanner::default().scan(&nest, &limits), expected);
    }
    complete(&format!("{}+a\r\n", "*1\r\n".repeat(FRAME_DEPTH_MAX)));
}

#[test]
fn a_large_reply_is_forwarded_while_it_arrives() {
    let limits = FrameLimits::default();
    let mut scanner = ReplyScanner::default();
    assert_eq!(scanner.scan(b"*2\r\n$500000000\r\nabc", &limits), Ok(None));
    assert_eq!(scanner.scanned(), 16 + 500_000_000);
    scanner.consume_prefix(19);
    assert!(scanner.is_mid_frame());
    assert_eq!(scanner.scanned(), 499_999_997);
    let chunk = vec![b'x'; 9_999_997];
    for _ in 0..50 {
        assert_eq!(scanner.scan(&chunk, &limits), Ok(None));
        scanner.consume_prefix(chunk.len().min(scanner.scanned()));
    }
    // 3 + 50 * 9,999,997 bytes of content came so far.
    let left = 500_000_000 - 3 - 50 * 9_999_997;
    assert_eq!(scanner.scanned(), left);
    let mut last = vec![b'x'; left];
    last.extend_from_slice(b"\r\n+OK\r\n:1\r\n");
    assert_eq!(scanner.scan(&last, &limits), Ok(Some(left + 7)));
    assert!(!scanner.is_mid_frame());
    assert_eq!(scanner.scanned(), 0);
}

#[test]
fn work_is_linear_on_an_array_in_small_pieces() {
    let limits = FrameLimits::default();
    let mut bytes = b"*100000\r\n".to_vec();
    for _ in 0..100_000 {
        bytes.extend_from_slice(b"$32\r\n0123456789abcdef0123456789abcdef\r\n");
    }
    let mut scanner = ReplyScanner::default();
    let mut passed = 0;
    for end in (0..bytes.len()).step_by(100) {
        // What was passed is never looked at again: it may as well hold anything.
        assert_eq!(scanner.scan(&bytes[..end], &limits), Ok(None));
        let scanned = scanner.scanned().min(end);
        assert!(scanned >= passed && end - scanned < 8, "at most one incomplete header is read twice");
        bytes[passed..scanned].fill(b'!');
        passed = scanned;
    }
    assert_eq!(scanner.scan(&bytes, &limits), Ok(Some(bytes.len())));
}

#[test]
fn replies_are_looked_into() {
    assert_eq!(error_word(b"-MOVED 1 a:1\r\n"), Some(&b"MOVED"[..]));
    assert_eq!(error_word(b"-OOM\r\n"), Some(&b"OOM"[..]));
    assert_eq!(error_word(b"!6\r\nBAD so\r\n"), Some(&b"BAD"[..]));
    assert_eq!(error_word(b"|1\r\n+a\r\n+b\r\n-ERR x\r\n"), Some(&b"ERR"[..]));
    assert_eq!(error_word(b"+OK\r\n"), None);
    assert_eq!(integer(b":-42\r\n"), Some(-42));
    assert_eq!(integer(b"$1\r\n1\r\n"), None);
    assert_eq!(bulk_of(b"$3\r\nabc\r\n"), Some(&b"abc"[..]));
    assert_eq!(bulk_of(b"$-1\r\n"), None);
    assert_eq!(first_bulk_of_array(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"), Some(&b"message"[..]));
    assert_eq!(first_bulk_of_array(b">2\r\n+invalidate\r\n_\r\n"), Some(&b"invalidate"[..]));
    assert_eq!(first_bulk_of_array(b"*1\r\n:1\r\n"), None);
    assert_eq!(first_bulk_of_array(b"*0\r\n"), None);
    assert_eq!(reply_kind(b"|0\r\n:1\r\n"), b':');
    assert_eq!(reply_kind(b""), 0);
}

#[test]
fn elements_come_as_the_bytes_they_were() {
    let found: Vec<&[u8]> = elements(b"*3\r\n$1\r\na\r\n*1\r\n:1\r\n|1\r\n+t\r\n:9\r\n_\r\n").collect();
    assert_eq!(found, [&b"$1\r\na\r\n"[..], b"*1\r\n:1\r\n", b"|1\r\n+t\r\n:9\r\n_\r\n"]);
    assert_eq!(elements(b"%1\r\n+a\r\n+b\r\n").count(), 2);
    assert_eq!(elements(b"*2\r\n+a\r\n").count(), 1);
    assert_eq!(elements(b"*-1\r\n").count(), 0);
    assert_eq!(elements(b"+OK\r\n").count(), 0);
}
