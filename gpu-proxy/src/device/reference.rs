//! Texture and surface references as a device has them: what a module's code names, and the host binds. The session has checked addresses
//! and arrays by then.

use vgpu_api::{CuResult, SamplerSetting};

use super::{Raw, TexelSource};

/// The part of a [`super::Device`] that has to do with texture and surface references. Launches that are queued keep what was bound by
/// then.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait References {
    /// A texture reference of a module. 500 for none of that name.
    fn texref_of(&mut self, context: Raw, image: Raw, symbol: &str) -> CuResult<Raw>;
    /// A texture reference that no module names.
    fn texref_create(&mut self, context: Raw) -> CuResult<Raw>;
    /// Ends its name, and itself unless it is a module's.
    fn texref_destroy(&mut self, context: Raw, texref: Raw) -> CuResult<()>;
    /// What it reads. The format of linear memory is that of [`Self::texref_format`]; the bytes before that memory from which it reads, which
    /// are 0 unless the program is `told`.
    fn texref_bind(&mut self, context: Raw, texref: Raw, texels: &TexelSource, told: bool) -> CuResult<u64>;
    /// It reads nothing, which a device may not be able to.
    fn texref_let_go(&mut self, context: Raw, texref: Raw) -> CuResult<()>;
    /// The format of linear memory.
    fn texref_format(&mut self, context: Raw, texref: Raw, format: u32, channels: u32) -> CuResult<()>;
    /// How it reads.
    fn texref_set(&mut self, context: Raw, texref: Raw, setting: &SamplerSetting) -> CuResult<()>;

    /// A surface reference of a module. 500 for none of that name.
    fn surfref_of(&mut self, context: Raw, image: Raw, symbol: &str) -> CuResult<Raw>;
    /// Ends its name.
    fn surfref_destroy(&mut self, surfref: Raw);
    /// The array that kernels use by it; `None` is none, which a device may not be able to.
    fn surfref_bind(&mut self, context: Raw, surfref: Raw, array: Option<Raw>) -> CuResult<()>;
}
