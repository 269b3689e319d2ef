//! Streams, which have nothing to do but to wait, if they stall.

use std::sync::atomic::Ordering;
use std::thread;

use vgpu_api::{CuError, CuResult, MemoryOp, MemoryOpKind};

use super::Null;
use super::stalls::Stalls;
use crate::device::{Place, Raw, Streams};

impl Streams for Null {
    fn stream_create(&mut self, _context: Raw, flags: u32, _priority: i32) -> CuResult<Raw> {
        let name = self.name();
        if let Some(stalls) = &mut self.stalls {
            stalls.stream(name, flags);
        }
        Ok(name)
    }

    fn stream_destroy(&mut self, _stream: Raw) -> CuResult<()> {
        Ok(())
    }

    fn stream_synchronize(&mut self, place: Place) -> CuResult<()> {
        self.wait(|stalls| stalls.query(place))?;
        while self.runs_functions() {
            thread::yield_now();
        }
        Ok(())
    }

    fn stream_query(&mut self, place: Place) -> CuResult<()> {
        self.stalls.as_ref().map_or(Ok(()), |stalls| stalls.query(place))?;
        if self.is_busy || self.runs_functions() { Err(CuError::NOT_READY) } else { Ok(()) }
    }

    fn stream_wait(&mut self, _place: Place, _event: Raw, _flags: u32) -> CuResult<()> {
        Ok(())
    }

    fn set_stream_attribute(&mut self, _place: Place, _attribute: u32, _value: &[u8; 64]) -> CuResult<()> {
        Ok(())
    }

    fn stream_memory(&mut self, place: Place, ops: &[MemoryOp]) -> CuResult<()> {
        if let Some(stalls) = &mut self.stalls {
            stalls.queue_ops(place, ops);
        }
        for op in ops.iter().filter(|op| op.kind == MemoryOpKind::Write && op.bytes == 8) {
            if let Some(word) = self.pages(op.at.0).and_then(|pages| pages.word(op.at.0)) {
                word.store(op.value, Ordering::Release);
            }
        }
        Ok(())
    }
}

impl Null {
    /// Something is queued.
    pub(super) fn queue(&mut self, place: Place) {
        if let Some(stalls) = &mut self.stalls {
            stalls.queue(place);
        }
    }

    /// Something is waited for.
    pub(super) fn wait(&self, held: impl FnOnce(&Stalls) -> CuResult<()>) -> CuResult<()> {
        self.stalls.as_ref().map_or(Ok(()), held).map_err(|_| CuError::LAUNCH_TIMEOUT)
    }
}
