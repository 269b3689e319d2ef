//! Arrays, textures and surfaces as a device has them. The session has checked shapes, boxes and addresses by then.

use vgpu_api::texture::{LinearTexels, PitchedTexels, Sampler, View};
use vgpu_api::{ArrayShape, CuResult, Extent, LinearPlace, Object};

use super::{Place, Raw};

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// Device memory.
    Linear(LinearPlace),
    /// An array, and where in it: bytes from a row's start, row, slice.
    Array(Raw, [u64; 3]),
}

/// What a texture reads.
#[derive(Clone, Copy, Debug)]
pub enum TexelSource {
    /// An array.
    Array(Raw),
    /// An array with levels.
    Mipmap(Raw),
    /// A row of device memory.
    Linear(LinearTexels),
    /// Rows of device memory.
    Pitched(PitchedTexels),
}

/// A texture with resolved names.
#[derive(Clone, Copy, Debug)]
pub struct TextureSource {
    /// What it reads.
    pub texels: TexelSource,
    /// How.
    pub sampler: Sampler,
    /// As what, if not as it is.
    pub view: Option<View>,
}

/// The part of a [`super::Device`] that has to do with arrays.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Arrays {
    /// Device memory that an array of so many levels will take, as exactly as can be known before it is made. An array without levels
    /// has 1.
    fn array_bytes(&mut self, context: Raw, shape: &ArrayShape, levels: u32) -> CuResult<u64>;
    /// An array without levels.
    fn array_create(&mut self, context: Raw, shape: &ArrayShape) -> CuResult<Raw>;
    /// Ends it.
    fn array_destroy(&mut self, context: Raw, array: Raw) -> CuResult<()>;
    /// An array with levels.
    fn mipmap_create(&mut self, context: Raw, shape: &ArrayShape, levels: u32) -> CuResult<Raw>;
    /// The array that one level is. Its name ends with the whole.
    fn mipmap_level(&mut self, context: Raw, mipmap: Raw, level: u32) -> CuResult<Raw>;
    /// Ends it and its levels' names.
    fn mipmap_destroy(&mut self, context: Raw, mipmap: Raw) -> CuResult<()>;

    /// Host to array: rows without gaps. `bytes` may be used again when it returns.
    fn array_write(&mut self, place: Place, to: (Raw, [u64; 3]), size: Extent, bytes: &[u8]) -> CuResult<()>;
    /// Array to host: rows without gaps; they are there when it returns.
    fn array_read(
        &mut self,
        place: Place,
        from: (Raw, [u64; 3]),
        size: Extent,
        bytes: &mut [u8],
    ) -> CuResult<()>;
    /// From one place of the device to another.
    fn copy_box(&mut self, place: Place, to: Side, from: Side, size: Extent) -> CuResult<()>;

    /// A texture object. Its number is what kernels know it by.
    fn texture_create(&mut self, context: Raw, texture: &TextureSource) -> CuResult<Object>;
    /// Ends it.
    fn texture_destroy(&mut self, context: Raw, texture: Object) -> CuResult<()>;
    /// A surface object of an array. Its number is what kernels know it by.
    fn surface_create(&mut self, context: Raw, array: Raw) -> CuResult<Object>;
    /// Ends it.
    fn surface_destroy(&mut self, context: Raw, surface: Object) -> CuResult<()>;
    /// `cuDeviceGetTexture1DLinearMaxWidth`, of the first device.
    fn linear_texture_max(&mut self, format: u32, channels: u32) -> CuResult<u64>;
}
