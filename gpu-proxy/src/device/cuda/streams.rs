//! Streams of the driver.

use vgpu_api::{CuError, CuResult, MemoryOp};

use super::table::{NULL, StreamAttribute, StreamOp};
use super::{Cuda, virtual_memory};
use crate::device::{Place, Raw, Streams};

impl Streams for Cuda {
    fn stream_create(&mut self, context: Raw, flags: u32, priority: i32) -> CuResult<Raw> {
        self.enter(context)?;
        let mut stream = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuStreamCreateWithPriority(&raw mut stream, flags, priority) }?;
        Ok(self.streams.add(stream))
    }

    fn stream_destroy(&mut self, stream: Raw) -> CuResult<()> {
        let stream = self.streams.remove(stream)?;
        // SAFETY: a live stream of ours, named no more.
        unsafe { self.table.cuStreamDestroy_v2(stream) }
    }

    fn stream_synchronize(&mut self, place: Place) -> CuResult<()> {
        let stream = self.stream(place)?;
        // SAFETY: a live stream of ours, or the default one.
        let waited = unsafe { self.table.cuStreamSynchronize(stream) };
        self.look_for_output(waited)
    }

    fn stream_query(&mut self, place: Place) -> CuResult<()> {
        let stream = self.stream(place)?;
        // SAFETY: as above.
        unsafe { self.table.cuStreamQuery(stream) }
    }

    fn stream_wait(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()> {
        let (stream, event) = (self.stream(place)?, self.events.get(event)?);
        // SAFETY: a live stream and a live event of ours.
        unsafe { self.table.cuStreamWaitEvent(stream, event, flags) }
    }

    fn set_stream_attribute(&mut self, place: Place, attribute: u32, value: &[u8; 64]) -> CuResult<()> {
        let stream = self.stream(place)?;
        let value = StreamAttribute(*value);
        // SAFETY: a live stream of ours, or the default one; the driver reads a value of ours, whose address, if it has one, the
        // session checked.
        unsafe { self.table.cuStreamSetAttribute(stream, attribute, &raw const value) }
    }

    fn stream_memory(&mut self, place: Place, ops: &[MemoryOp]) -> CuResult<()> {
        let stream = self.stream(place)?;
        let mut ops: Vec<StreamOp> = ops.iter().map(virtual_memory::stream_op).collect();
        let count = u32::try_from(ops.len()).map_err(|_| CuError::INVALID_VALUE)?;
        // SAFETY: a live stream of ours, or the default one; the driver reads `count` operations of ours, whose words are the
        // process's own (the session checked).
        unsafe { self.table.cuStreamBatchMemOp_v2(stream, count, ops.as_mut_ptr(), 0) }
    }
}
