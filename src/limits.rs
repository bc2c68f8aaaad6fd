//! Every bound of the product, in one place. A queue, buffer or count without a bound here is a defect.
//!
//! Names end in their unit. What an operator may set carries its default here and its key in `config/standin.toml`.

use std::time::Duration;

/// Deepest nesting of a reply that we decode. Redis itself nests fewer than ten levels; a module might do more.
pub const FRAME_DEPTH_MAX: usize = 64;
/// Deepest nesting of a reply that we only forward: a script's may be as deep as Lua's stack, about 8,000 levels, and
/// must not cost the clients beside it their link (`links.reply_depth_max`).
pub const REPLY_DEPTH_MAX: usize = 16 * 1024;
/// Elements of one multi-bulk request, as Redis 7 bounds it (`1024 * 1024` arguments).
pub const REQUEST_ARGUMENTS_MAX: usize = 1024 * 1024;
/// Elements of one aggregate reply, summed over its nesting.
pub const REPLY_ELEMENTS_MAX: usize = 256 * 1024 * 1024;
/// Longest bulk string, as `proto-max-bulk-len` of Redis has it by default.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest inline request and longest length line, as `PROTO_INLINE_MAX_SIZE` of Redis.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Arguments, and bytes of one of them, in a request of a client that has not logged in, as Redis bounds them.
pub const LOGIN_ARGUMENTS_MAX: usize = 10;
pub const LOGIN_BULK_BYTES_MAX: usize = 16 * 1024;
/// Longest whole request frame.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes that one read from a client or a backend may bring.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Requests of one client that may be in flight; beyond it the client is not read.
pub const CLIENT_IN_FLIGHT_MAX: u32 = 4096;
/// Bytes that are read behind a blocking command or a subscription, only to see the client leave: they lie between us and
/// the end of its stream.
pub const BLOCKED_INPUT_BYTES_MAX: usize = 1024 * 1024;
/// Unsent reply bytes at which a client is no longer read.
pub const CLIENT_OUTPUT_PAUSE_BYTES: usize = 1024 * 1024;
/// Unsent reply bytes at which a client is closed (`listen.output_limit`).
pub const CLIENT_OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Requests in flight on one link; beyond it requests are shed with a clear error.
pub const LINK_IN_FLIGHT_MAX: usize = 256 * 1024;
/// Request bytes retained by one link (unsent and unanswered); beyond it requests are shed.
pub const LINK_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// A buffer that grew past this is given back once it is empty.
pub const BUFFER_KEEP_BYTES: usize = 256 * 1024;

/// Keys dirtied on a backend are remembered up to this many bytes (`divergence.record_bytes`).
pub const DIVERGENCE_RECORD_BYTES: usize = 8 * 1024 * 1024;
/// Of more keys than these that a backend has missed, it is emptied instead, where that is allowed and costs few others.
pub const RECONCILE_KEYS_MAX: usize = 20_000;
/// Bytes of writes that wait for one mirrored backend (`mirror.buffer`).
pub const MIRROR_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Keys whose values are copied to a mirrored backend at once.
pub const MIRROR_BATCH_KEYS: usize = 1_000;
/// Bytes of values that are copied at once; a batch of keys is as long as the values before it let expect.
pub const MIRROR_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Keys that clients read, and their bytes, which wait until one mirrored backend is asked whether it lacks them
/// (`mirror.read_fill`).
pub const READ_KEYS_MAX: usize = 4096;
pub const READ_KEYS_BYTES_MAX: usize = 1024 * 1024;
/// Keys of which a worker remembers that it has offered them lately.
pub const READS_REMEMBERED: usize = 4096;
/// Events kept for `GET /v1/events`.
pub const EVENTS_KEPT_MAX: usize = 4096;
/// Events that one segment of the engine's recording holds, and segments kept: with three backends and a tick of 50 ms some
/// 70 events a second, so the last minute or so, in a megabyte.
pub const RECORDING_SEGMENT_EVENTS_MAX: usize = 1024;
pub const RECORDING_SEGMENTS_MAX: usize = 5;
/// The file in which a group's baselines and reliability are kept; some 3 KiB for each backend.
pub const STATE_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Edge events from the data plane to the control plane that may wait.
pub const EDGE_QUEUE_MAX: usize = 4096;
/// Server-side connections per backend that are not yet proven dead.
pub const UNDEAD_CONNECTIONS_MAX: usize = 1024;
/// Backends in one group.
pub const BACKENDS_PER_GROUP_MAX: usize = 32;
/// Commands of modules whose keys and flags are remembered, for all servers of the process.
pub const MODULE_COMMANDS_MAX: usize = 1024;
/// Script bodies and function libraries remembered for the backend that is entered next.
pub const SCRIPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Channels, patterns and shard channels of one client that are remembered for a switch.
pub const SUBSCRIPTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a transaction remembered until EXEC, so that it may begin again on another backend.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections of one group that clients own (WATCH, blocking, subscribed, MONITOR), idle ones included.
pub const PINNED_CONNECTIONS_MAX: usize = 4096;
/// Links of one worker and group that were left behind a slow request or a long reply and have not ended yet; with more,
/// new requests wait behind those.
pub const RETIRED_LINKS_MAX: usize = 16;
/// Requests in which a replica says who it is before it asks for the data.
pub const INTRODUCTION_MAX: usize = 16;
/// Links of one worker and group for different databases, protocols and users; with more, the longest idle one is closed.
pub const LANES_MAX: usize = 64;
/// Different logins of clients that one worker remembers, where the server judges AUTH.
pub const PASSED_LOGINS_MAX: usize = 1024;
/// Messages that a subscriber of the embedded server has not read; beyond it the subscriber is closed.
pub const SUBSCRIBER_OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Connections to one embedded server.
pub const EMBEDDED_CLIENTS_MAX: usize = 10_000;

/// Requests of the control API that may wait for the control task.
pub const CONTROL_QUEUE_MAX: usize = 64;
/// How long a reader of the status waits for the control task, which answers between two events.
pub const CONTROL_STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an operator's command may take before its caller is told to look for itself; a planned switch drains first.
pub const CONTROL_COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections to the control port and to the observe port, each.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
/// How long an HTTP client may take to send its request's head, and as long again for its body.
pub const ADMIN_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A control connection older than this is closed after its current request, and soon after that whatever it does.
pub const ADMIN_CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
/// Body of one control request.
pub const ADMIN_BODY_BYTES_MAX: usize = 16 * 1024;
/// An operator's reason, which travels into the history and the log.
pub const REASON_BYTES_MAX: usize = 512;
/// The name of who gave an order.
pub const AUTHOR_BYTES_MAX: usize = 64;
/// Events before and after the one that is explained.
pub const EVENTS_AROUND: usize = 12;
/// Events in one answer of `GET /v1/events` unless `limit` says otherwise.
pub const EVENTS_ANSWERED_DEFAULT: usize = 100;

const _: () = assert!(CLIENT_OUTPUT_PAUSE_BYTES < CLIENT_OUTPUT_BYTES_MAX);
const _: () = assert!(RECORDING_SEGMENTS_MAX >= 2);
const _: () = assert!(FRAME_DEPTH_MAX <= REPLY_DEPTH_MAX);
const _: () = assert!(READ_CHUNK_BYTES <= BUFFER_KEEP_BYTES);
const _: () = assert!(BULK_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(LOGIN_ARGUMENTS_MAX * (LOGIN_BULK_BYTES_MAX + 32) < REQUEST_BYTES_MAX);
const _: () = assert!(INLINE_BYTES_MAX <= READ_CHUNK_BYTES);
const _: () = assert!(REASON_BYTES_MAX < ADMIN_BODY_BYTES_MAX);
const _: () = assert!(EVENTS_ANSWERED_DEFAULT <= EVENTS_KEPT_MAX);
