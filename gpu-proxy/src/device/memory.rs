//! Allocations of a device, copies and sets, and pages of the host that it reaches.

use vgpu_api::memory::Memset;
use vgpu_api::{CuResult, MemInfo};

use super::{HostPages, Place, Raw};

/// The part of a [`super::Device`] that has to do with memory.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Memory {
    /// Allocations are multiples of this, in bytes: what the quota counts.
    fn granule_bytes(&self) -> u64;
    /// What an allocation of so many bytes takes, which a grant counts; `None` past any memory.
    fn allocation_bytes(&self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(self.granule_bytes())
    }
    /// Of an allocation that would be a part of a piece, with others of its context, what more the device would take: nothing, or a
    /// piece. `None` of one that is by itself.
    fn piece_growth(&self, _context: Raw, _bytes: u64) -> Option<u64> {
        None
    }
    /// What the device has of such pieces, used or not, and of allocations that failed, where it did not let go of all, in bytes.
    fn pieces_bytes(&self, _device: u32) -> u64 {
        0
    }
    /// Memory of the context's device.
    fn alloc(&mut self, context: Raw, bytes: u64) -> CuResult<u64>;
    /// What the context's device has free and in all, in bytes, whatever the grant is.
    fn memory(&mut self, context: Raw) -> CuResult<MemInfo>;
    /// Frees an address that [`Self::alloc`] gave.
    fn free(&mut self, context: Raw, address: u64) -> CuResult<()>;
    /// The context of an address that [`Self::free`] refused has been destroyed: frees what did not end with it.
    fn free_left(&mut self, _address: u64) -> CuResult<()> {
        Ok(())
    }
    /// Host to device. `bytes` may be used again when it returns.
    fn write(&mut self, place: Place, address: u64, bytes: &[u8]) -> CuResult<()>;
    /// Device to host; the bytes are there when it returns.
    fn read(&mut self, place: Place, address: u64, bytes: &mut [u8]) -> CuResult<()>;
    /// Between any two of device memory and pinned pages.
    fn copy(&mut self, place: Place, to: u64, from: u64, bytes: u64) -> CuResult<()>;
    /// Between the memories of two devices, each an address and the device's number.
    fn copy_between(&mut self, place: Place, to: (u64, u32), from: (u64, u32), bytes: u64) -> CuResult<()> {
        self.copy(place, to.0, from.0, bytes)
    }
    /// Rows of equal elements.
    fn fill(&mut self, place: Place, memset: &Memset) -> CuResult<()>;
    /// Lets pages of the arena be reached by their address: by copies, sets and kernels of every context. None of them is yet.
    fn pin(&mut self, pages: HostPages) -> CuResult<()>;
    /// Ends what [`Self::pin`] began at `address`. No work that reaches the pages is left.
    fn unpin(&mut self, address: u64) -> CuResult<()>;
}
