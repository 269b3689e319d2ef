//! How programs and NVIDIA's driver describe arrays, textures and what is looked at through them: structures of cuda.h of CUDA 13.0, byte
//! for byte. libvgpu reads them of a program, the `cuda` device writes them for the driver. None of them travels: what does is the
//! [`ArrayShape`], [`Sampler`] or [`View`] that each says.

use crate::array::ArrayShape;
use crate::memory::DevicePtr;
use crate::result::{CuError, CuResult};
use crate::texture::{LinearTexels, PitchedTexels, Sampler, View};

/// `CUDA_ARRAY_DESCRIPTOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ArrayDesc {
    /// Elements of a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// `CUarray_format`.
    pub format: u32,
    /// Channels of an element.
    pub channels: u32,
}
const _: () = assert!(size_of::<ArrayDesc>() == 24);

impl From<ArrayDesc> for ArrayShape {
    fn from(desc: ArrayDesc) -> Self {
        let ArrayDesc { width, height, format, channels } = desc;
        Self { width, height, depth: 0, format, channels, flags: 0 }
    }
}

/// The first two sides of an array of three.
impl From<ArrayShape> for ArrayDesc {
    fn from(shape: ArrayShape) -> Self {
        let ArrayShape { width, height, format, channels, .. } = shape;
        Self { width, height, format, channels }
    }
}

/// `CUDA_ARRAY3D_DESCRIPTOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Array3dDesc {
    /// Elements of a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Slices or layers.
    pub depth: u64,
    /// `CUarray_format`.
    pub format: u32,
    /// Channels of an element.
    pub channels: u32,
    /// `CUDA_ARRAY3D_…`.
    pub flags: u32,
    /// Padding, so that all bytes that a program is told are ours.
    pub pad: u32,
}
const _: () = assert!(size_of::<Array3dDesc>() == 40);

impl From<Array3dDesc> for ArrayShape {
    fn from(desc: Array3dDesc) -> Self {
        let Array3dDesc { width, height, depth, format, channels, flags, .. } = desc;
        Self { width, height, depth, format, channels, flags }
    }
}

impl From<ArrayShape> for Array3dDesc {
    fn from(shape: ArrayShape) -> Self {
        let ArrayShape { width, height, depth, format, channels, flags } = shape;
        Self { width, height, depth, format, channels, flags, pad: 0 }
    }
}

/// `CUDA_RESOURCE_DESC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ResourceDesc {
    /// `CUresourcetype`.
    pub kind: u32,
    /// What it is: a handle or an address, format and channels, sizes.
    pub union: [u64; 16],
    /// 0.
    pub flags: u32,
}
const _: () = assert!(size_of::<ResourceDesc>() == 144);

/// What a [`ResourceDesc`] says. Handles are the writer's: pointers of the driver, or numbers that a program calls its arrays by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Described {
    /// An array.
    Array(u64),
    /// An array with levels.
    Mipmap(u64),
    /// A row of device memory.
    Linear(LinearTexels),
    /// Rows of device memory.
    Pitched(PitchedTexels),
}

impl From<Described> for ResourceDesc {
    fn from(described: Described) -> Self {
        let element = |format: u32, channels: u32| u64::from(format) | u64::from(channels) << 32;
        let (kind, first) = match described {
            Described::Array(array) => (0, [array, 0, 0, 0, 0]),
            Described::Mipmap(mipmap) => (1, [mipmap, 0, 0, 0, 0]),
            Described::Linear(LinearTexels { at, format, channels, bytes }) => {
                (2, [at.0, element(format, channels), bytes, 0, 0])
            }
            Described::Pitched(PitchedTexels { at, format, channels, width, height, pitch }) => {
                (3, [at.0, element(format, channels), width, height, pitch])
            }
        };
        let mut union = [0; 16];
        union[..5].copy_from_slice(&first);
        Self { kind, union, flags: 0 }
    }
}

impl ResourceDesc {
    /// What it says. Nothing of that is checked.
    /// # Errors
    /// 1: no such kind, or flags.
    pub const fn described(&self) -> CuResult<Described> {
        let [first, element, third, fourth, fifth, ..] = self.union;
        let (at, channels) = (DevicePtr(first), (element >> 32) as u32);
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the format")]
        let format = element as u32;
        Ok(match (self.kind, self.flags) {
            (0, 0) => Described::Array(first),
            (1, 0) => Described::Mipmap(first),
            (2, 0) => Described::Linear(LinearTexels { at, format, channels, bytes: third }),
            (3, 0) => Described::Pitched(PitchedTexels {
                at,
                format,
                channels,
                width: third,
                height: fourth,
                pitch: fifth,
            }),
            _ => return Err(CuError::INVALID_VALUE),
        })
    }
}

/// `CUDA_TEXTURE_DESC`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct TextureDesc {
    /// `CUaddress_mode` by dimension.
    pub address: [u32; 3],
    /// `CUfilter_mode`.
    pub filter: u32,
    /// `CU_TRSF_…`.
    pub flags: u32,
    /// Anisotropic filtering.
    pub anisotropy_max: u32,
    /// `CUfilter_mode` between levels.
    pub mip_filter: u32,
    /// Added to the level.
    pub mip_bias: f32,
    /// Lowest level.
    pub level_min: f32,
    /// Highest level.
    pub level_max: f32,
    /// Outside: the bits of four numbers.
    pub border: [u32; 4],
    /// Nothing yet.
    pub reserved: [u32; 12],
}
const _: () = assert!(size_of::<TextureDesc>() == 104);

impl From<TextureDesc> for Sampler {
    fn from(desc: TextureDesc) -> Self {
        let TextureDesc { address, filter, flags, anisotropy_max, mip_filter, mip_bias, .. } = desc;
        let TextureDesc { level_min, level_max, border, .. } = desc;
        Self { address, filter, flags, anisotropy_max, mip_filter, mip_bias, level_min, level_max, border }
    }
}

impl From<Sampler> for TextureDesc {
    fn from(sampler: Sampler) -> Self {
        let Sampler { address, filter, flags, anisotropy_max, mip_filter, mip_bias, .. } = sampler;
        let Sampler { level_min, level_max, border, .. } = sampler;
        Self {
            address,
            filter,
            flags,
            anisotropy_max,
            mip_filter,
            mip_bias,
            level_min,
            level_max,
            border,
            reserved: [0; 12],
        }
    }
}

/// `CUDA_RESOURCE_VIEW_DESC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ViewDesc {
    /// `CUresourceViewFormat`.
    pub format: u32,
    /// Elements of a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Slices.
    pub depth: u64,
    /// First and last.
    pub levels: [u32; 2],
    /// First and last.
    pub layers: [u32; 2],
    /// Nothing yet.
    pub reserved: [u32; 16],
}
const _: () = assert!(size_of::<ViewDesc>() == 112);

impl From<ViewDesc> for View {
    fn from(desc: ViewDesc) -> Self {
        let ViewDesc { format, width, height, depth, levels, layers, .. } = desc;
        Self { format, width, height, depth, levels, layers }
    }
}

impl From<View> for ViewDesc {
    fn from(view: View) -> Self {
        let View { format, width, height, depth, levels, layers } = view;
        Self { format, width, height, depth, levels, layers, reserved: [0; 16] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_what_was_meant() {
        let (format, channels, at) = (0x20, 2, DevicePtr(512));
        for described in [
            Described::Array(7),
            Described::Mipmap(8),
            Described::Linear(LinearTexels { at, format, channels, bytes: 64 }),
            Described::Pitched(PitchedTexels { at, format, channels, width: 8, height: 2, pitch: 32 }),
        ] {
            let desc = ResourceDesc::from(described);
            assert_eq!(desc.described(), Ok(described));
            assert_eq!(ResourceDesc { flags: 1, ..desc }.described(), Err(CuError::INVALID_VALUE));
            assert_eq!(ResourceDesc { kind: 4, ..desc }.described(), Err(CuError::INVALID_VALUE));
        }
    }

    /// cuda.h: `devPtr`, then `format` and `numChannels` of four bytes each, then sizes.
    #[test]
    fn words_of_the_union_are_where_cuda_h_has_them() {
        let (format, channels, at) = (0x20, 2, DevicePtr(512));
        let texels = PitchedTexels { at, format, channels, width: 8, height: 3, pitch: 64 };
        let desc = ResourceDesc::from(Described::Pitched(texels));
        assert_eq!((desc.kind, &desc.union[..6]), (3, &[512, 0x2_0000_0020, 8, 3, 64, 0][..]));
    }
}
