//! How a stream calls a function of the program: words in staging, since neither end may wait for the other's loop.
//!
//! ```text
//! 0 posted u64 | 8 function u64 | 16 status u64 (a CUresult)      the worker writes, `posted` last; then it wakes the guest
//! 64 done u64                                                     the guest writes: the `posted` whose function has run
//! ```
//! One function at a time: the worker posts the next one when `done` has come to `posted`, and the stream waits until then.

/// Bytes of the mailbox, at a multiple of 8 in staging.
pub const MAILBOX_BYTES: usize = 128;
/// How many functions were posted.
pub const POSTED: usize = 0;
/// The guest's number of the function that is due.
pub const FUNCTION: usize = 8;
/// The error of the stream, or 0.
pub const STATUS: usize = 16;
/// How many the guest has run.
pub const DONE: usize = 64;

/// Part of the wire hash.
pub const DECLARATION: &str = "HostFunctions{0:posted,8:function,16:status,64:done}";
