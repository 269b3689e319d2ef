//! What arrays need, and copies with them, byte for byte as in cuda.h. How arrays and textures are described: `vgpu_api::descriptors`.

use idm::arena::{BYTES_MAX, WINDOW};

use super::layouts::{Address, NULL, Ptr};

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

/// One side of `CUDA_MEMCPY3D`, and of `CUDA_MEMCPY3D_PEER`, which is as long.
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
    /// Whose memory it is, where `CUDA_MEMCPY3D_PEER` is asked for; else NULL.
    pub context: Ptr,
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
            context: NULL,
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
