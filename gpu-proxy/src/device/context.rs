//! Contexts of a device, their limits, and what they reach of each other.

use vgpu_api::CuResult;

use super::Raw;

/// The first so many `CUlimit`s may cost device memory: [`super::Costs::limit_bytes`].
pub const COSTLY_LIMITS: usize = 3;

/// The part of a [`super::Device`] that has to do with contexts.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Contexts {
    /// A context of a device; `flags` as of `cuCtxCreate`. `primary` contexts are the device's own.
    fn context_create(&mut self, device: u32, flags: u32, primary: bool) -> CuResult<Raw>;
    /// Whether a primary context that was ended stays on the device, with its limits and local memory, and is given out again.
    fn keeps_primary(&self) -> bool {
        false
    }
    /// Ends it. What lived in it has been ended before.
    fn context_destroy(&mut self, device: u32, context: Raw, primary: bool) -> CuResult<()>;
    /// Waits for all its work.
    fn context_synchronize(&mut self, context: Raw) -> CuResult<()>;
    /// A `CUlimit`.
    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64>;
    /// Sets a `CUlimit`.
    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()>;
    /// Lets kernels of a context reach the memory of another device's context.
    fn peer_enable(&mut self, context: Raw, peer: Raw) -> CuResult<()>;
    /// Ends what [`Self::peer_enable`] began.
    fn peer_disable(&mut self, context: Raw, peer: Raw) -> CuResult<()>;
}
