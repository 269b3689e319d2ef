//! Memory that several processes of a zone have.

use std::os::fd::OwnedFd;

use vgpu_api::{CuError, CuResult};

use super::Raw;

/// Memory that may be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareable {
    /// What [`super::VirtualMemory::create`] made.
    Memory(Raw),
    /// What [`super::Memory::alloc`] gave, by its address.
    Allocation(u64),
}

/// How a device gives memory to other processes.
#[derive(Debug)]
pub enum Exported {
    /// A descriptor of the device's memory.
    Device(OwnedFd),
    /// It has to be moved into memory of the host first: [`Sharing::move_to`].
    Host,
}

/// The part of a [`super::Device`] that has to do with memory of several processes.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Sharing {
    /// Lets other processes of the zone have memory: its length, up to the next multiple of [`super::VirtualMemory::mapping_bytes`]. No work uses it.
    /// 801 for what cannot be shared.
    fn export(&mut self, what: Shareable) -> CuResult<Exported>;
    /// The memory that goes to others with an allocation of so many bytes, if that is a part of more: where it starts and how long it is.
    fn whole_of(&self, address: u64, bytes: u64) -> (u64, u64) {
        (address, bytes)
    }
    /// Whether the device has memory that starts there and that allocations are parts of, whether there are such or not.
    fn has_piece(&self, _start: u64) -> bool {
        false
    }
    /// Moves it into memory of the host of so many bytes, where it stays: after [`Exported::Host`].
    fn move_to(&mut self, _what: Shareable, _memory: OwnedFd, _bytes: u64) -> CuResult<()> {
        Err(CuError::NOT_SUPPORTED)
    }
    /// Memory of a device that another process's device has exported, of so many bytes. It is mapped and released as that of [`super::VirtualMemory::create`].
    fn import(&mut self, device: u32, memory: OwnedFd, bytes: u64) -> CuResult<Raw>;
}
