#![allow(clippy::unwrap_used)]
use super::*;

/// Scans the bytes at once and byte by byte; both must say the same.
fn scan_with(bytes: &[u8], limits: &FrameLimits) -> Result<Option<RequestFrame>, ProtocolError> {
    let once = RequestScanner::default().scan(bytes, limits);
    let mut scanner = RequestScanner::default();
    let mut stepwise = Ok(None);
    for end in 0..=bytes.len() {
        stepwise = scanner.scan(&bytes[..end], limits);
        if stepwise != Ok(None) {
            break;
        }
    }
    assert_eq!(once, stepwise, "{:?}", String::from_utf8_lossy(bytes));
    once
}

fn scan(bytes: &[u8]) -> Result<Option<RequestFrame>, ProtocolError> {
    scan_with(bytes, &FrameLimits::default())
}

fn refused(bytes: &[u8]) -> String {
    scan(bytes).unwrap_err().to_string()
}

#[test]
fn a_request_is_found_with_its_name() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$10\r\nuser:12345\r\n*1\r\n";
    let frame = scan(bytes).unwrap().unwrap();
    assert_eq!((frame.len, frame.arguments, frame.inline), (bytes.len() - 4, 2, false));
    assert_eq!(frame.name(bytes), b"GET");
    let found: Vec<&[u8]> = arguments(&bytes[..frame.len]).collect();
    assert_eq!(found, [&b"GET"[..], b"user:12345"]);
}

#[test]
fn a_request_without_arguments_is_a_frame_of_its_own() {
    for (bytes, len) in
        [(&b"*0\r\n"[..], 4), (b"*-1\r\n", 5), (b"*-10\r\n*1", 6), (b"\r\n", 2), (b"\n", 1), (b"  \r\n", 4)]
    {
        let frame = scan(bytes).unwrap().unwrap();
        assert_eq!((frame.len, frame.arguments), (len, 0), "{bytes:?}");
        assert_eq!(frame.name(bytes), b"");
    }
}

#[test]
fn an_inline_request_ends_at_its_line() {
    let bytes = b" set  key 'a b'\r\nPING\r\n";
    let frame = scan(bytes).unwrap().unwrap();
    assert_eq!((frame.len, frame.arguments, frame.inline), (17, 3, true));
    assert_eq!(frame.name(bytes), b"set");
}

#[test]
fn malformed_requests_are_refused_in_the_words_of_redis() {
    assert_eq!(refused(b"*3000000000\r\n"), "invalid multibulk length");
    assert_eq!(refused(b"*abc\r\n"), "invalid multibulk length");
    assert_eq!(refused(b"*\r\n"), "invalid multibulk length");
    assert_eq!(refused(b"*1\r\nfoo\r\n"), "expected '$', got 'f'");
    assert_eq!(refused(b"*1\r\n\r\n"), "expected '$', got '\\r'");
    assert_eq!(refused(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n"), "expected '$', got 'f'");
    assert_eq!(refused(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\n"), "invalid bulk length");
    assert_eq!(refused(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$2000000000\r\n"), "invalid bulk length");
    assert_eq!(refused(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$blabla\r\n"), "invalid bulk length");
    assert_eq!(refused(b"set \"\"\"test-key\"\"\" test-value\r\n"), "unbalanced quotes in request");
    assert_eq!(refused(b"*1\r\n$4\r\nPINGXX"), "bulk string not followed by CRLF");
}

#[test]
fn endless_lines_are_refused_once_they_pass_the_cap() {
    let limits = FrameLimits { inline_bytes_max: 100, ..FrameLimits::default() };
    let check = |start: &str, expected| {
        let within = format!("{start}{}", "a".repeat(100));
        assert_eq!(scan_with(&within.as_bytes()[..within.len() - 1], &limits), Ok(None));
        let line = within.rfind('\n').map_or(0, |end| end + 1);
        let past = &within.as_bytes()[..line + 101];
        assert_eq!(scan_with(past, &limits), Err(expected));
    };
    check("\x00", ProtocolError::TooBigInline);
    check("*", ProtocolError::TooBigMultibulkCount);
    check("*1\r\n$", ProtocolError::TooBigBulkCount);
}

#[test]
fn every_cap_of_a_request_holds() {
    let limits = FrameLimits { arguments_max: 2, bulk_bytes_max: 8, request_bytes_max: 28, ..FrameLimits::default() };
    assert!(scan_with(b"*2\r\n$1\r\na\r\n$8\r\n12345678\r\n", &limits).unwrap().is_some());
    assert_eq!(scan_with(b"*3\r\n", &limits), Err(ProtocolError::InvalidMultibulkLength));
    assert_eq!(scan_with(b"*1\r\n$9\r\n", &limits), Err(ProtocolError::InvalidBulkLength));
    assert_eq!(scan_with(b"*2\r\n$5\r\n12345\r\n$8\r\n", &limits), Err(ProtocolError::TooBigRequest));
}

#[test]
fn a_large_value_is_skipped_and_not_read_again() {
    let mut scanner = RequestScanner::default();
    let limits = FrameLimits::default();
    let mut bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n".to_vec();
    let head = bytes.len();
    bytes.resize(head + 1_000_000, b'x');
    bytes.extend_from_slice(b"\r\n");
    assert_eq!(scanner.scan(&bytes[..head + 5], &limits), Ok(None));
    assert!(scanner.is_mid_frame());
    assert_eq!((scanner.stage, scanner.position), (Stage::BulkTerminator, head + 1_000_000));
    assert_eq!(scanner.scan(&bytes[..bytes.len() - 1], &limits), Ok(None));
    assert_eq!(scanner.scan(&bytes, &limits).unwrap().unwrap().len, bytes.len());
    assert!(!scanner.is_mid_frame());
}

#[test]
fn reset_forgets_the_frame() {
    let mut scanner = RequestScanner::default();
    let limits = FrameLimits::default();
    assert_eq!(scanner.scan(b"*2\r\n$3\r\nGET", &limits), Ok(None));
    scanner.reset();
    assert!(!scanner.is_mid_frame());
    assert_eq!(scanner.scan(b"PING\r\n", &limits).unwrap().unwrap().arguments, 1);
}

#[test]
fn arguments_of_a_malformed_frame_just_end() {
    for (bytes, count) in [
        (&b""[..], 0),
        (b"PING\r\n", 0),
        (b"*2\r\n$3\r\nGET\r\n", 1),
        (b"*2\r\n$3\r\nGET\r\n$-1\r\n", 1),
        (b"*1\r\n$999999999999999999\r\nGET\r\n", 0),
        (b"*1\r\n$3\r\nGET", 0),
        (b"*-1\r\n", 0),
    ] {
        assert_eq!(arguments(bytes).count(), count, "{bytes:?}");
    }
}

#[test]
fn an_encoded_request_scans_back() {
    let mut out = Vec::new();
    let wanted: [&[u8]; 3] = [b"SET", b"", b"a\r\nb"];
    encode_request(&mut out, &wanted);
    let frame = scan(&out).unwrap().unwrap();
    assert_eq!((frame.len, frame.arguments), (out.len(), 3));
    assert_eq!(arguments(&out).len(), 3);
    assert_eq!(arguments(&out).collect::<Vec<_>>(), wanted);
}
