//! Writes and waits of words of device memory in the order of a stream.

use vgpu_api::stream_memory::OPS_MAX;
use vgpu_api::{Call, ContextId, CuError, CuResult, MemoryOp, MemoryOpKind, Stream};

use super::Session;
use super::mark::Mark;
use crate::device::Place;

/// Calls with waits that may be queued at once.
const WAITS_MAX: usize = 1 << 16;

pub(super) fn is_wait(op: &MemoryOp) -> bool {
    !matches!(op.kind, MemoryOpKind::Write | MemoryOpKind::Barrier)
}

impl Session {
    pub(super) fn stream_memory(&mut self, call: Call, stream: Stream, ops: &[MemoryOp]) -> CuResult<()> {
        let waits = ops.iter().any(is_wait);
        if waits {
            self.may_hold_up();
        }
        let (context, place) = self.place(call, stream)?;
        if ops.len() > OPS_MAX {
            return Err(CuError::INVALID_VALUE);
        }
        ops.iter().try_for_each(|op| self.check_op(op))?;
        let mark = waits.then(|| self.mark_of_wait(context)).transpose()?;
        self.wait_for_turn(place);
        let mut result = self.device.stream_memory(place, ops);
        if let Some(mark) = mark {
            result = result.and(self.keep_mark_of_wait(mark, place));
        }
        self.settle(context, result)
    }

    /// Behind waits that were queued, whatever came of that: a driver that tells of an older error may have queued them all the same.
    pub(super) fn keep_mark_of_wait(&mut self, mark: Mark, place: Place) -> CuResult<()> {
        let marked = self.set_mark(&mark, place);
        self.waits.push(mark);
        marked
    }

    /// For [`Session::keep_mark_of_wait`].
    pub(super) fn mark_of_wait(&mut self, context: ContextId) -> CuResult<Mark> {
        if self.waits.len() >= WAITS_MAX {
            for mark in std::mem::take(&mut self.waits) {
                self.keep_wait(mark);
            }
        }
        if self.waits.len() >= WAITS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.new_mark(context)
    }

    /// Whether it is not over. One in a context that an error has ended is.
    fn keep_wait(&mut self, mark: Mark) -> bool {
        let is_reached = self.sticky(mark.context).is_some() || mark.is_reached(&mut *self.device);
        if is_reached {
            self.end_mark(&mark);
        } else {
            self.waits.push(mark);
        }
        !is_reached
    }

    /// Whether a stream may be waiting for a word. Asks until one says so, and never again those that don't.
    pub(super) fn is_word_awaited(&mut self) -> bool {
        while let Some(mark) = self.waits.pop() {
            if self.keep_wait(mark) {
                return true;
            }
        }
        false
    }

    /// Whether a stream of the context, ended ones included, may be waiting for a word.
    pub(super) fn is_word_awaited_in(&mut self, context: ContextId) -> bool {
        let Self { waits, device, .. } = self;
        waits.iter().any(|mark| mark.context == context && !mark.is_reached(&mut **device))
    }

    /// A context ends, and the waits of its streams with it.
    pub(super) fn end_waits(&mut self, context: ContextId) {
        let ended: Vec<_> = self.waits.extract_if(.., |mark| mark.context == context).collect();
        ended.iter().for_each(|mark| self.end_mark(mark));
    }

    pub(super) fn check_op(&self, op: &MemoryOp) -> CuResult<()> {
        let bytes = u64::from(op.bytes);
        let aligned = matches!(bytes, 4 | 8) && op.at.0.is_multiple_of(bytes);
        match op.kind {
            MemoryOpKind::Barrier if bytes <= 1 => Ok(()),
            MemoryOpKind::Barrier => Err(CuError::INVALID_VALUE),
            _ if !aligned => Err(CuError::INVALID_VALUE),
            MemoryOpKind::Write => self.ranges.check_write(op.at, bytes),
            _ => self.ranges.check(op.at, bytes),
        }
    }
}
