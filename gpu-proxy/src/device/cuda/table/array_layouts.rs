//! Arrays, copies with them, and what is looked at through textures and surfaces, byte for byte as in cuda.h.

use idm::arena::{BYTES_MAX, WINDOW};

use super::layouts::{Address, NULL, Ptr};

/// `CUDA_ARRAY_DESCRIPTOR`.
#[repr(C)]
#[derive(Debug)]
pub struct ArrayDesc {
    /// Elements of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `CUarray_format`.
    pub format: u32,
    /// Channels of an element.
    pub channels: u32,
}
const _: () = assert!(size_of::<ArrayDesc>() == 24);

/// `CUDA_ARRAY3D_DESCRIPTOR`.
#[repr(C)]
#[derive(Debug)]
pub struct Array3d {
    /// Elements of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Slices or layers.
    pub depth: usize,
    /// `CUarray_format`.
    pub format: u32,
    /// Channels of an element.
    pub channels: u32,
    /// `CUDA_ARRAY3D_…`.
    pub flags: u32,
}
const _: () = assert!(size_of::<Array3d>() == 40);

/// `CUDA_ARRAY_MEMORY_REQUIREMENTS`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Requirements {
    /// All of the array.
    pub bytes: usize,
    /// Where it may start.
    pub alignment: usize,
    /// Nothing yet.
    pub reserved: [u32; 4],
}
const _: () = assert!(size_of::<Requirements>() == 32);

/// One side of `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CopySide {
    /// Bytes from a row's start.
    pub x_bytes: usize,
    /// The row.
    pub y: usize,
    /// The slice.
    pub z: usize,
    /// 0.
    pub level: usize,
    /// `CUmemorytype`.
    pub kind: u32,
    /// Host memory.
    pub host: Ptr,
    /// Device memory.
    pub device: Address,
    /// An array.
    pub array: Ptr,
    /// NULL.
    pub reserved: Ptr,
    /// Bytes from a row to the next.
    pub pitch: usize,
    /// Rows from a slice to the next.
    pub height: usize,
}

impl CopySide {
    /// What a device reaches at an address: its own memory, or pages of the arena, which are host memory to the driver.
    pub fn at(address: Address) -> Self {
        // `CU_MEMORYTYPE_DEVICE`, and `…_UNIFIED`: the address says whose it is.
        let in_arena = address.checked_sub(WINDOW as u64).is_some_and(|offset| offset < BYTES_MAX);
        Self { device: address, ..Self::of(if in_arena { 4 } else { 2 }) }
    }

    /// Nothing of this `CUmemorytype`.
    pub const fn of(kind: u32) -> Self {
        Self {
            x_bytes: 0,
            y: 0,
            z: 0,
            level: 0,
            kind,
            host: NULL,
            device: 0,
            array: NULL,
            reserved: NULL,
            pitch: 0,
            height: 0,
        }
    }
}

/// `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Debug)]
pub struct Copy3d {
    /// From where.
    pub from: CopySide,
    /// To where.
    pub to: CopySide,
    /// Bytes of a row.
    pub width_bytes: usize,
    /// Rows.
    pub height: usize,
    /// Slices.
    pub depth: usize,
}
const _: () = assert!(size_of::<Copy3d>() == 200);

/// The union of `CUDA_RESOURCE_DESC`.
#[repr(C)]
#[derive(Clone, Copy)]
pub union ResourceUnion {
    /// An array or a mipmapped one.
    pub array: Ptr,
    /// Address, format and channels, sizes.
    pub words: [u64; 16],
}

/// `CUDA_RESOURCE_DESC`.
#[repr(C)]
pub struct ResourceDesc {
    /// `CUresourcetype`.
    pub kind: u32,
    /// What it is.
    pub union: ResourceUnion,
    /// 0.
    pub flags: u32,
}
const _: () = assert!(size_of::<ResourceDesc>() == 144);

/// `CUDA_TEXTURE_DESC`.
#[repr(C)]
#[derive(Debug)]
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
    /// Outside.
    pub border: [f32; 4],
    /// Nothing yet.
    pub reserved: [u32; 12],
}
const _: () = assert!(size_of::<TextureDesc>() == 104);

/// `CUDA_RESOURCE_VIEW_DESC`.
#[repr(C)]
#[derive(Debug)]
pub struct ViewDesc {
    /// `CUresourceViewFormat`.
    pub format: u32,
    /// Elements of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Slices.
    pub depth: usize,
    /// First and last.
    pub levels: [u32; 2],
    /// First and last.
    pub layers: [u32; 2],
    /// Nothing yet.
    pub reserved: [u32; 16],
}
const _: () = assert!(size_of::<ViewDesc>() == 112);
