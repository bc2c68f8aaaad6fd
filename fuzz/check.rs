//! What must hold for any bytes. The fuzz targets and the tests share it.
//!
//! The first byte of the input says how the rest is cut into pieces and which limits hold; the rest is a stream of frames.

use standin::resp::{
    FrameLimits, ProtocolError, ReplyScanner, RequestFrame, RequestScanner, arguments, bulk, elements, error_word,
    first_bulk_of_array, inline_to_multibulk, integer, reply_kind,
};

/// Requests: the same frames at once as in pieces, and what is said of each frame is true.
pub(crate) fn requests(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else {
        return;
    };
    let limits = limits(how);
    let whole = request_frames(stream, &limits, |_, left| left);
    let pieces = request_frames(stream, &limits, pieces(how));
    assert_eq!(whole, pieces, "a split changed the frames");
    let mut rest = stream;
    for frame in &whole.0 {
        check_request(frame, rest);
        rest = &rest[frame.len..];
    }
}

/// Replies: the same frames at once, in pieces, and in pieces that are dropped as they are scanned.
pub(crate) fn replies(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else {
        return;
    };
    let limits = limits(how);
    let whole = reply_frames(stream, &limits, |_, left| left, false);
    let kept = reply_frames(stream, &limits, pieces(how), false);
    assert_eq!(whole, kept, "a split changed the frames");
    let dropped = reply_frames(stream, &limits, pieces(how), true);
    assert_eq!(whole, dropped, "dropping what was scanned changed the frames");
    let mut rest = stream;
    for &len in &whole.0 {
        check_reply(&rest[..len]);
        rest = &rest[len..];
    }
}

/// Small limits half of the time, so that every cap is met.
fn limits(how: u8) -> FrameLimits {
    if how & 0x80 == 0 {
        return FrameLimits::default();
    }
    FrameLimits {
        arguments_max: 5,
        bulk_bytes_max: 12,
        inline_bytes_max: 24,
        request_bytes_max: 48,
        depth_max: 3,
        reply_elements_max: 9,
    }
}

/// The sizes of the pieces: all one byte, or mixed ones up to 16 bytes.
fn pieces(how: u8) -> impl FnMut(usize, usize) -> usize {
    let mut state = u32::from(how & 0x7f);
    let bytewise = state == 0;
    move |_, left| {
        if bytewise {
            return left.min(1);
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        left.min((state >> 28) as usize + 1)
    }
}

type Found<T> = (Vec<T>, Option<ProtocolError>);

/// `piece(arrived, left)` says how many bytes come next.
fn request_frames(
    stream: &[u8],
    limits: &FrameLimits,
    mut piece: impl FnMut(usize, usize) -> usize,
) -> Found<RequestFrame> {
    let mut scanner = RequestScanner::default();
    let mut frames = Vec::new();
    let (mut start, mut arrived) = (0, 0);
    loop {
        match scanner.scan(&stream[start..arrived], limits) {
            Ok(Some(frame)) => {
                assert!(frame.len > 0 && frame.len <= arrived - start);
                assert!(!scanner.is_mid_frame());
                start += frame.len;
                frames.push(frame);
                continue;
            }
            Ok(None) => assert_eq!(scanner.is_mid_frame(), start < arrived),
            Err(error) => return (frames, Some(error)),
        }
        if arrived == stream.len() {
            return (frames, None);
        }
        arrived += piece(arrived, stream.len() - arrived);
    }
}

fn reply_frames(
    stream: &[u8],
    limits: &FrameLimits,
    mut piece: impl FnMut(usize, usize) -> usize,
    dropping: bool,
) -> Found<usize> {
    let mut scanner = ReplyScanner::default();
    let mut frames = Vec::new();
    // The frame begins at `start`; the buffer given begins at `kept`.
    let (mut start, mut kept, mut arrived) = (0, 0, 0);
    loop {
        match scanner.scan(&stream[kept..arrived], limits) {
            Ok(Some(len)) => {
                assert!(len > 0 && kept + len <= arrived);
                assert!(!scanner.is_mid_frame() && scanner.scanned() == 0);
                frames.push(kept + len - start);
                start = kept + len;
                kept = start;
                continue;
            }
            Ok(None) => assert_eq!(scanner.is_mid_frame(), start < arrived),
            Err(error) => return (frames, Some(error)),
        }
        if dropping {
            let n = scanner.scanned().min(arrived - kept);
            scanner.consume_prefix(n);
            kept += n;
        }
        if arrived == stream.len() {
            return (frames, None);
        }
        arrived += piece(arrived, stream.len() - arrived);
    }
}

fn check_request(frame: &RequestFrame, stream: &[u8]) {
    let bytes = &stream[..frame.len];
    if !frame.inline {
        assert_eq!(arguments(bytes).count(), frame.arguments as usize);
        assert_eq!(arguments(bytes).next().unwrap_or_default(), frame.name(stream));
        return;
    }
    let multibulk = inline_to_multibulk(bytes).expect("the scanner has checked the quotes");
    assert_eq!(multibulk.is_some(), frame.arguments > 0);
    if let Some(multibulk) = multibulk {
        let again = RequestScanner::default().scan(&multibulk, &FrameLimits::default());
        let again = again.expect("well formed").expect("complete");
        assert_eq!((again.len, again.arguments, again.inline), (multibulk.len(), frame.arguments, false));
    }
}

fn check_reply(frame: &[u8]) {
    let kind = reply_kind(frame);
    assert!(b"+-:$*_#,(!=%~>".contains(&kind));
    assert_eq!(error_word(frame).is_some(), matches!(kind, b'-' | b'!'));
    assert!(bulk(frame).is_none() || kind == b'$');
    assert!(integer(frame).is_none() || kind == b':');
    assert!(first_bulk_of_array(frame).is_none() || matches!(kind, b'*' | b'>'));
    let elements: Vec<&[u8]> = elements(frame).collect();
    if !elements.is_empty() {
        assert!(frame.ends_with(&elements.concat()));
    }
}
