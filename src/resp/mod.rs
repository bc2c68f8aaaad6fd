//! RESP: frame bounds with caps, and the replies that we synthesise.
//!
//! The path forwards requests and replies as the bytes they came in. What it needs is where each one ends, so the two
//! scanners here find bounds and nothing else: no frame tree, no recursion, every count and size capped,
//! and the position is remembered, so that a frame that arrives in a thousand pieces costs linear work.
//!
//! | file | what it holds |
//! |---|---|
//! | `request` | `RequestScanner`, the arguments of a complete request, encoding a request |
//! | `inline` | inline requests: Redis's quoting rules, re-encoding as multibulk |
//! | `reply` | `ReplyScanner` for RESP2 and RESP3 |
//! | `inspect` | looks into a complete reply: error word, elements, integers |
//! | `write` | writers of replies |
//! | `line` | the length line that all of them share |

mod inline;
mod inspect;
mod line;
mod reply;
mod request;
pub mod write;

pub use inline::inline_to_multibulk;
pub use inspect::{
    Elements, bulk, elements, error_word, first_bulk_of_array, integer, is_message, is_push, reply_kind,
};
pub use reply::ReplyScanner;
pub use request::{Arguments, RequestFrame, RequestScanner, arguments, encode_request};
pub use write::Protocol;

use crate::limits;

/// The caps that a scanner enforces. The defaults are Redis's own, from `crate::limits`.
#[derive(Debug, Clone)]
pub struct FrameLimits {
    /// Arguments of one request, its name included.
    pub arguments_max: usize,
    /// Bytes of one bulk string, in a request or a reply, and of one simple string in a reply.
    pub bulk_bytes_max: usize,
    /// Bytes of an inline request, and of a length line in a multibulk request.
    pub inline_bytes_max: usize,
    /// Bytes of one whole request frame.
    pub request_bytes_max: usize,
    /// Nesting of a reply: a flat array has depth 1. What is decoded recursively keeps the default.
    pub depth_max: usize,
    /// Elements of one reply, summed over its nesting; a map counts its keys and its values.
    pub reply_elements_max: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            arguments_max: limits::REQUEST_ARGUMENTS_MAX,
            bulk_bytes_max: limits::BULK_BYTES_MAX,
            inline_bytes_max: limits::INLINE_BYTES_MAX,
            request_bytes_max: limits::REQUEST_BYTES_MAX,
            depth_max: limits::FRAME_DEPTH_MAX,
            reply_elements_max: limits::REPLY_ELEMENTS_MAX,
        }
    }
}

/// Why bytes are not RESP. The peer is at fault and its connection cannot be used further: what follows has no bounds.
///
/// The texts of the request variants are those that Redis sends after `-ERR Protocol error: `.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum ProtocolError {
    #[error("invalid multibulk length")]
    InvalidMultibulkLength,
    #[error("invalid bulk length")]
    InvalidBulkLength,
    #[error("expected '$', got '{}'", std::ascii::escape_default(*.0))]
    ExpectedBulk(u8),
    #[error("too big mbulk count string")]
    TooBigMultibulkCount,
    #[error("too big bulk count string")]
    TooBigBulkCount,
    #[error("too big inline request")]
    TooBigInline,
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// Redis skips these two bytes unread. We refuse, for a request must mean the same to every backend of a shared link.
    #[error("bulk string not followed by CRLF")]
    MissingTerminator,
    /// Redis closes the connection without a word here (`client-query-buffer-limit`).
    #[error("too big request")]
    TooBigRequest,

    #[error("unknown reply type '{}'", std::ascii::escape_default(*.0))]
    UnknownReplyType(u8),
    #[error("invalid length in a reply")]
    InvalidReplyLength,
    #[error("malformed null or boolean in a reply")]
    InvalidReplyValue,
    #[error("bulk string of a reply not followed by CRLF")]
    MissingReplyTerminator,
    #[error("streamed reply, which is not supported")]
    StreamedReply,
    #[error("bulk string of a reply longer than the limit of {limit} bytes")]
    ReplyBulkTooBig { limit: usize },
    #[error("simple string of a reply longer than the limit of {limit} bytes")]
    ReplyLineTooBig { limit: usize },
    #[error("reply nested deeper than the limit of {limit} levels")]
    ReplyTooDeep { limit: usize },
    #[error("reply with more elements than the limit of {limit}")]
    ReplyTooManyElements { limit: usize },
}
