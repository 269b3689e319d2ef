//! The error word: how an error of work that nobody waits for comes back.
//!
//! The consumer writes the fields, then the count; the submitter's steady state is one relaxed load of the count. Fields can be torn by
//! the next error: the reader looks at the count again.

use super::layout::{ERROR_CODE, ERROR_COUNT, ERROR_CTX, ERROR_SEQ, ERROR_STICKY};
use crate::region::Region;
use crate::sync::{
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// The last error of the work that was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorWord {
    /// The record it belongs to.
    pub seq: u32,
    /// What went wrong, in the application's numbers (a CUresult).
    pub code: u32,
    /// Whether the context can still be used: a sticky error stays.
    pub sticky: bool,
    /// The context that the record named.
    pub ctx: u32,
}

pub(super) fn write(region: &Region, error: ErrorWord) {
    region.word(ERROR_SEQ).store(error.seq, Relaxed);
    region.word(ERROR_CODE).store(error.code, Relaxed);
    region.word(ERROR_STICKY).store(error.sticky.into(), Relaxed);
    region.word(ERROR_CTX).store(error.ctx, Relaxed);
    let count = region.word(ERROR_COUNT);
    count.store(count.load(Relaxed).wrapping_add(1).max(1), Release);
}

#[inline]
pub(super) fn count(region: &Region) -> u32 {
    region.word(ERROR_COUNT).load(Relaxed)
}

/// The count and the error; `None` as long as there was none. A few tries, for a peer that writes without end.
pub(super) fn read(region: &Region) -> Option<(u32, ErrorWord)> {
    let mut last = None;
    for _ in 0..4 {
        let count = region.word(ERROR_COUNT).load(Acquire);
        if count == 0 {
            return None;
        }
        let error = ErrorWord {
            seq: region.word(ERROR_SEQ).load(Relaxed),
            code: region.word(ERROR_CODE).load(Relaxed),
            sticky: region.word(ERROR_STICKY).load(Relaxed) != 0,
            ctx: region.word(ERROR_CTX).load(Relaxed),
        };
        fence(Acquire);
        last = Some((count, error));
        if region.word(ERROR_COUNT).load(Relaxed) == count {
            break;
        }
    }
    last
}
