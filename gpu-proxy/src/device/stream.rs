//! Streams of a device.

use vgpu_api::{CuResult, MemoryOp};

use super::{Place, Raw};

/// The part of a [`super::Device`] that has to do with streams.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Streams {
    /// A stream.
    fn stream_create(&mut self, context: Raw, flags: u32, priority: i32) -> CuResult<Raw>;
    /// Ends it; its work goes on.
    fn stream_destroy(&mut self, stream: Raw) -> CuResult<()>;
    /// Waits for its work.
    fn stream_synchronize(&mut self, place: Place) -> CuResult<()>;
    /// 600 while it has work; the legacy stream also while one has that blocks with it.
    fn stream_query(&mut self, place: Place) -> CuResult<()>;
    /// Later work of the stream waits for the event.
    fn stream_wait(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()>;
    /// Sets a `CUstreamAttrID` to a `CUstreamAttrValue`, which holds no address but a checked one. May be ignored: none changes a result.
    fn set_stream_attribute(&mut self, place: Place, attribute: u32, value: &[u8; 64]) -> CuResult<()>;
    /// Writes and waits of words of memory, in order.
    fn stream_memory(&mut self, place: Place, ops: &[MemoryOp]) -> CuResult<()>;
}
