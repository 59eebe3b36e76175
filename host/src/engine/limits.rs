//! Everything that a guest can ask of the host, and how much of it: one table, and the numbers.
//!
//! | what | bound | over it |
//! |---|---|---|
//! | linear memory of an instance | `[limits] memory` of the manifest, at most [`LARGEST_MEMORY`] | the growth is refused; a run that ends of it is `out-of-memory` |
//! | memory of all instances, and what the host holds for them | `[limits] memory` of `semel.toml`, see [`super::memory`] | the same; a run that cannot begin waits |
//! | tables | [`LARGEST_TABLE`] elements, and the memory of all | the same |
//! | instances at once | [`MOST_INSTANCES`] | the run waits for its turn |
//! | recursion | [`WASM_STACK_BYTES`] | `trapped` |
//! | instructions, time | `[limits] fuel` and `timeout` of the manifest | `out-of-fuel`, `timed-out` |
//! | bytes handed over in one call, the answer included | [`HOSTCALL_BYTES`] | `trapped` |
//! | handles, of the host's resources and its own | [`MOST_HANDLES`] | `trapped` |
//! | answer: body and headers | [`ANSWER_BYTES`] | `failed` |
//! | reason of an error | [`REASON_BYTES`] | cut |
//! | `context`: label of a key | [`LABEL_BYTES`] | `trapped` |
//! | `context`: random bytes in one call | [`RANDOM_BYTES`] | fewer are given, as the interface says |
//! | `delivery` and the rest of `context` | their answers are small, and time bounds how often | – |
//! | `log`: text of a line, fields of a line | [`LINE_BYTES`], [`MOST_FIELDS`] | cut |
//! | `log`: lines, and bytes of all of an attempt | [`MOST_LINES`], [`LOG_BYTES`] | counted, not kept |
//! | `transaction`: statements, savepoint steps and `state` calls together | `[limits] statements`, at most [`MOST_STATEMENTS`] | error `limit`, and the attempt fails |
//! | `transaction`: rows of one call | `[limits] rows`, at most [`MOST_ROWS`] | the same |
//! | `transaction`: bytes of one call's rows | [`RESULT_BYTES`] | the same |
//! | `transaction`: open cursors | [`MOST_CURSORS`] | the same |
//! | `transaction`: parameters of a statement | [`MOST_PARAMETERS`] | error `parameter` |
//! | `transaction`: savepoints set, length of a name | [`MOST_SAVEPOINTS`], [`SAVEPOINT_BYTES`] | error `parameter` |
//! | `transaction`: length of a statement, of a value, its byte code | the store's own walls | error `database` |
//! | `execute-batch` | each statement counts as one | as above |
//! | `state`: key, prefix | [`KEY_BYTES`] | error `invalid-key` |
//! | `state`: one value; all values set by an attempt | [`VALUE_BYTES`], [`WRITTEN_BYTES`] | error `too-large` |
//! | `state`: entries of a scan | [`MOST_ENTRIES`], and [`RESULT_BYTES`] | fewer are given |
//! | `outbox`: messages of an attempt | [`MOST_PUBLISHED`] | error `quota` |
//! | `outbox`: body and headers of one; of all of an attempt | [`EVENT_BYTES`], [`PUBLISHED_BYTES`] | error `too-large` |
//! | `outbox`: headers of one, group key, content type | [`MOST_HEADERS`], [`NAME_BYTES`] | error `forbidden` |
//! | `wasi:random`: bytes in one call | [`WASI_RANDOM_BYTES`] | `trapped` |
//! | `wasi:io`: streams, pollables and errors at once | [`MOST_RESOURCES`] | `trapped` |
//! | `wasi:io/poll`: waiting | until the run must be over, or is asked to end | `timed-out`, `cancelled` |
//! | `wasi:cli`: what is written | as lines of `log` | as there |
//! | `wasi:filesystem`, `wasi:sockets` | everything | refused |
//! | `wasi:http`: calls of an attempt, and at once | [`MOST_CALLS`], [`CALLS_AT_ONCE`] | `connection-limit-reached` |
//! | `wasi:http`: body of a request, of an answer | [`REQUEST_BYTES`], [`CALLED_BYTES`] | not sent; `HTTP-response-body-size` |
//! | `wasi:http`: answers that are held | [`CALLED_BYTES`] times [`CALLS_AT_ONCE`] | as above |
//! | `wasi:http`: headers, time | [`FIELD_BYTES`], `outside::Limits`, and until the run must be over | an error of the call |
//! | `deferred-http`: requests | as events of `outbox` | error `forbidden`, `too-large` |

use crate::manifest::Limits;

/// Instances that can live at once.
pub(crate) const MOST_INSTANCES: u32 = 64;
/// The most memory that a manifest may ask for, in bytes.
pub(crate) const LARGEST_MEMORY: u64 = 256 << 20;
/// Elements of one table.
pub(crate) const LARGEST_TABLE: usize = 20_000;
/// Native stack of a run, for the guest and the host's calls, in bytes.
pub(crate) const STACK_BYTES: usize = 1 << 20;
/// Stack of the guest alone, in bytes.
pub(crate) const WASM_STACK_BYTES: usize = 512 << 10;
/// Bytes that a guest may hand over in one call, or as its answer.
pub(crate) const HOSTCALL_BYTES: usize = 4 << 20;
/// Handles that a component may have at once.
pub(crate) const MOST_HANDLES: usize = 2000;
/// Largest answer, in bytes.
pub(crate) const ANSWER_BYTES: usize = 1 << 20;
/// Longest reason that is kept, in bytes.
pub(crate) const REASON_BYTES: usize = 4 << 10;
/// What the host may hold for one run beside the instance's memory, in bytes: one call's arguments and
/// results, log lines, the answer, the stack.
pub(crate) const RUN_BYTES: u64 = 16 << 20;

/// Longest label of an idempotency key, in bytes.
pub(crate) const LABEL_BYTES: usize = 1 << 10;
/// Bytes of randomness that one call gives.
pub(crate) const RANDOM_BYTES: u32 = 4096;

/// Bytes of randomness that one call of WASI gives: enough for what any language's own library asks for at once.
pub(crate) const WASI_RANDOM_BYTES: u64 = 64 << 10;
/// Streams, pollables and errors of WASI that an instance may have at once.
pub(crate) const MOST_RESOURCES: usize = 500;

/// Outside calls of one attempt.
pub(crate) const MOST_CALLS: u32 = 1000;
/// Outside calls of one run that may go on at once.
pub(crate) const CALLS_AT_ONCE: usize = 4;
/// Largest body of a request, in bytes.
pub(crate) const REQUEST_BYTES: usize = 1 << 20;
/// Largest body of an answer to a call, in bytes.
pub(crate) const CALLED_BYTES: usize = 2 << 20;
/// Bytes of a request's body that a guest writes at once.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;
/// Bytes of a set of headers, as they are held.
pub(crate) const FIELD_BYTES: usize = 16 << 10;

/// Bytes of one log line that are kept.
pub(crate) const LINE_BYTES: usize = 16 << 10;
/// Fields of one log line that are kept.
pub(crate) const MOST_FIELDS: usize = 64;
/// Log lines of one attempt that are kept.
pub(crate) const MOST_LINES: usize = 1000;
/// Bytes of all log lines of one attempt, with their fields and what it takes to hold them, that are kept.
pub(crate) const LOG_BYTES: usize = 256 << 10;

/// The most statements that a manifest may ask for.
pub(crate) const MOST_STATEMENTS: u32 = 1_000_000;
/// The most rows that a manifest may ask for.
pub(crate) const MOST_ROWS: u32 = 1_000_000;
/// Bytes that one call may return.
pub(crate) const RESULT_BYTES: usize = 8 << 20;
/// Cursors that one attempt may have open.
pub(crate) const MOST_CURSORS: usize = 16;
/// Parameters of one statement.
pub(crate) const MOST_PARAMETERS: usize = 10_000;
/// Savepoints that one attempt may set, whether or not it lets go of them.
pub(crate) const MOST_SAVEPOINTS: u32 = 1000;
/// Longest name of a savepoint, in bytes.
pub(crate) const SAVEPOINT_BYTES: usize = 255;

/// Longest key of `state`, in bytes.
pub(crate) const KEY_BYTES: usize = 512;
/// Largest value of `state`, in bytes.
pub(crate) const VALUE_BYTES: usize = 1 << 20;
/// Bytes of all values that one attempt may set.
pub(crate) const WRITTEN_BYTES: usize = 16 << 20;
/// Entries that one scan may return.
pub(crate) const MOST_ENTRIES: u32 = 1000;

/// Messages that one attempt may publish.
pub(crate) const MOST_PUBLISHED: u32 = 1000;
/// Largest body that may be published, with its headers, in bytes.
pub(crate) const EVENT_BYTES: usize = 1 << 20;
/// Bytes of all that one attempt may publish.
pub(crate) const PUBLISHED_BYTES: usize = 16 << 20;
/// Headers of one message that is published.
pub(crate) const MOST_HEADERS: usize = 100;
/// Longest group key and content type that is published, in bytes.
pub(crate) const NAME_BYTES: usize = 255;

/// Whether this host allows what a manifest asks for.
///
/// # Errors
/// Names the key and the host's bound.
pub(crate) fn check(asked: &Limits) -> Result<(), String> {
    let refuse = |key: &str, most: String| Err(format!("[limits] {key}: this host allows at most {most}"));
    if asked.memory.0 > LARGEST_MEMORY {
        return refuse("memory", format!("{}MiB", LARGEST_MEMORY >> 20));
    }
    if asked.statements > MOST_STATEMENTS {
        return refuse("statements", MOST_STATEMENTS.to_string());
    }
    if asked.rows > MOST_ROWS {
        return refuse("rows", MOST_ROWS.to_string());
    }
    Ok(())
}
