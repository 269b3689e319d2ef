//! What NVIDIA's driver is given and gives, byte for byte as in cuda.h. Of arrays: `array_layouts.rs`, of graphs: `graph_layouts.rs`.

use std::ffi::{c_int, c_void};
use std::ptr;

/// Opaque pointers of the driver.
pub type Ptr = *mut c_void;
/// No pointer.
pub const NULL: Ptr = ptr::null_mut();
/// `CUdeviceptr`.
pub type Address = u64;
/// `CUhostFn`.
pub type HostFn = unsafe extern "C" fn(data: Ptr);
/// `CUstreamCallback`.
pub type StreamCallback = unsafe extern "C" fn(stream: Ptr, status: c_int, data: Ptr);

/// `CUlaunchAttribute`: id, then a union of 64 bytes at offset 8.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// `CUlaunchAttributeID`.
    pub id: u32,
    /// Padding.
    pub pad: u32,
    /// The union.
    pub value: [u8; 64],
}
const _: () = assert!(size_of::<Attribute>() == 72);

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Debug)]
pub struct Config {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: u32,
    /// The stream.
    pub stream: Ptr,
    /// The attributes.
    pub attributes: *const Attribute,
    /// How many.
    pub count: u32,
}
const _: () = assert!(size_of::<Config>() == 56);

/// `CUmemAllocationProp` of plain memory of a device. Source: cuda.h.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryProperties {
    /// 1: it stays where it is.
    pub kind: u32,
    /// `CUmemAllocationHandleType`: as what it can be exported.
    pub handle_types: u32,
    /// 1: a device.
    pub location_kind: u32,
    /// Its ordinal.
    pub device: c_int,
    /// Windows.
    pub metadata: Ptr,
    /// No compression, no remote DMA, no use of its own.
    pub flags: [u8; 8],
}
const _: () = assert!(size_of::<MemoryProperties>() == 32);

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Debug)]
pub struct AccessOf {
    /// 1: a device.
    pub location_kind: u32,
    /// Its ordinal.
    pub device: c_int,
    /// `CUmemAccess_flags`.
    pub flags: u32,
}
const _: () = assert!(size_of::<AccessOf>() == 12);

/// `CUdevResource`: what it is, what only the driver reads, a union of 48 bytes. Of multiprocessors (1): how many, the least of a group,
/// what groups have multiples of.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DevResource {
    /// `CUdevResourceType`.
    pub kind: u32,
    /// The driver's.
    pub own: [u8; 92],
    /// The union.
    pub sm: [u32; 3],
    /// The rest of it.
    pub more: [u8; 36],
}
const _: () = assert!(size_of::<DevResource>() == 144);

impl Default for DevResource {
    fn default() -> Self {
        Self { kind: 0, own: [0; 92], sm: [0; 3], more: [0; 36] }
    }
}

/// `CUstreamAttrValue`.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct StreamAttribute(pub [u8; 64]);

/// `CUstreamBatchMemOpParams`: writes and waits have all of it, barriers `operation` and, in the first half of `address`, flags.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOp {
    /// `CUstreamBatchMemOpType`.
    pub operation: u32,
    /// Padding; a barrier's flags.
    pub barrier: u32,
    /// The word.
    pub address: Address,
    /// Its value.
    pub value: u64,
    /// `CUstreamWaitValue_flags`.
    pub flags: u32,
    /// Padding.
    pub pad: u32,
    /// The driver's own, and room.
    pub rest: [u64; 2],
}
const _: () = assert!(size_of::<StreamOp>() == 48);
