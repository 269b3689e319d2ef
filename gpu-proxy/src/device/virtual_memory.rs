//! Addresses and memory apart, as `cuMemAddressReserve`, `cuMemCreate` and `cuMemMap` have them.

use vgpu_api::{Access, CuResult};

use super::Raw;

/// The part of a [`super::Device`] that has to do with addresses and memory apart.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait VirtualMemory {
    /// Memory and mappings are multiples of this, in bytes: a power of two.
    fn mapping_bytes(&self) -> u64;
    /// Takes `bytes` addresses out of use, at `wanted` if that can be had; `alignment` is 0 or a power of two.
    fn reserve(&mut self, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64>;
    /// Gives a reservation back.
    fn unreserve(&mut self, address: u64, bytes: u64) -> CuResult<()>;
    /// Memory of a device without an address.
    fn create(&mut self, device: u32, bytes: u64) -> CuResult<Raw>;
    /// Ends its name. The memory stays while it is mapped.
    fn release(&mut self, memory: Raw) -> CuResult<()>;
    /// Shows the first `bytes` of memory at free addresses of a reservation, where nothing may touch it yet.
    fn map(&mut self, address: u64, bytes: u64, memory: Raw) -> CuResult<()>;
    /// Takes one mapping away.
    fn unmap(&mut self, address: u64, bytes: u64) -> CuResult<()>;
    /// Says what a device may do with mappings that follow each other, whichever device the memory lies on.
    fn set_access(&mut self, device: u32, address: u64, bytes: u64, access: Access) -> CuResult<()>;
}
