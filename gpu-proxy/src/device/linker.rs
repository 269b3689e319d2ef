//! Linkers of a device.

use vgpu_api::{CuResult, JitOption, LinkTold};

use super::Raw;

/// The part of a [`super::Device`] that has to do with linkers.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Linkers {
    /// Begins to link. So many bytes of what the compiler says, and of its errors, are kept.
    fn link_create(&mut self, context: Raw, options: &[JitOption], log_bytes: [usize; 2]) -> CuResult<Raw>;
    /// Adds an input of a `CUjitInputType`.
    fn link_add(
        &mut self,
        context: Raw,
        linker: Raw,
        input: u32,
        bytes: &[u8],
        name: &str,
        options: &[JitOption],
    ) -> CuResult<()>;
    /// Links; the image.
    fn link_complete(&mut self, context: Raw, linker: Raw) -> CuResult<Vec<u8>>;
    /// What the compiler has said so far, or its errors.
    fn link_log(&mut self, linker: Raw, errors: bool) -> CuResult<Vec<u8>>;
    /// What the linker tells beside that.
    fn link_told(&mut self, linker: Raw) -> CuResult<LinkTold>;
    /// Ends it.
    fn link_destroy(&mut self, linker: Raw) -> CuResult<()>;
}
