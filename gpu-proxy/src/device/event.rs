//! Events of a device.

use vgpu_api::CuResult;

use super::{Place, Raw};

/// The part of a [`super::Device`] that has to do with events.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Events {
    /// An event.
    fn event_create(&mut self, context: Raw, flags: u32) -> CuResult<Raw>;
    /// Ends it.
    fn event_destroy(&mut self, event: Raw) -> CuResult<()>;
    /// Marks the place in the stream.
    fn event_record(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()>;
    /// Marks the place behind all work of the context.
    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()>;
    /// Later work of the whole context waits for the event.
    fn context_wait(&mut self, context: Raw, event: Raw) -> CuResult<()>;
    /// 600 while it is not reached.
    fn event_query(&mut self, event: Raw) -> CuResult<()>;
    /// Waits for it.
    fn event_synchronize(&mut self, event: Raw) -> CuResult<()>;
    /// Milliseconds between two.
    fn event_elapsed(&mut self, start: Raw, end: Raw) -> CuResult<f32>;
}
