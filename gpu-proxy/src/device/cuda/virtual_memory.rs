//! Memory and addresses apart, as NVIDIA's driver has them. None of it belongs to a context.
//!
//! Allocations are made so, too, those of less than [`PIECE_BYTES`] as parts of such pieces (`pieces.rs`): only such memory goes to another
//! worker, as a descriptor. The driver's own handles for its `cuMemAlloc` would have to find their way between two pid, user and network
//! namespaces.

mod allocations;

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;

use vgpu_api::snapshot::POSIX_FD_SUPPORTED;
use vgpu_api::{Access, CuError, CuResult, MemoryOp, MemoryOpKind};

use super::pieces::Pieces;
use super::reach::Reach;
use super::table::{AccessOf, MemoryProperties, NULL, StreamOp, Table};
use super::{Cuda, Raw, attribute_of, size};
use crate::device::VirtualMemory;

/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;
/// `CU_MEM_LOCATION_TYPE_DEVICE`.
const ON_DEVICE: u32 = 1;
/// Every device's so far, should the driver not say.
const GRANULE_BYTES: u64 = 2 << 20;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
const POSIX_FD: u32 = 1;
/// Allocations from here on take whole pages of that size from the driver in any case; smaller ones share such.
const PIECE_BYTES: u64 = 2 << 20;
/// `CUstreamBatchMemOpType`: waits and writes of 32 bits, of 64 bits, a barrier.
const WAIT_32: u32 = 1;
const WRITE_32: u32 = 2;
const WAIT_64: u32 = 4;
const WRITE_64: u32 = 5;
const BARRIER: u32 = 6;

/// The driver's handles of memory by our names. A name is used once.
#[derive(Debug, Default)]
pub(super) struct Memories {
    /// The driver's devices.
    devices: Vec<c_int>,
    granule_bytes: u64,
    /// What memory is made for: [`POSIX_FD`] where all devices can, else 0.
    handle_types: u32,
    handles: HashMap<u64, u64>,
    last: u64,
    /// Allocations by their address, and pieces that small ones are parts of.
    allocations: BTreeMap<u64, Allocation>,
    pieces: Pieces,
    /// What each device has of those, and of what it did not let go of when an allocation failed.
    pieces_bytes: HashMap<u32, u64>,
    reach: Reach,
}

/// What an allocation or a piece is made of.
#[derive(Clone, Copy, Debug)]
struct Allocation {
    memory: Raw,
    bytes: u64,
    context: Raw,
    device: u32,
}

impl Memories {
    pub fn of(table: &Table, devices: &[c_int]) -> Self {
        let can_be_shared =
            devices.iter().all(|device| attribute_of(table, *device, POSIX_FD_SUPPORTED as usize) == 1);
        let handle_types = if can_be_shared { POSIX_FD } else { 0 };
        let granule = |device: &c_int| {
            let (properties, mut bytes) = (properties(*device, handle_types), 0);
            // SAFETY: the driver reads properties and writes a number, both ours. Option 0: the least.
            let said =
                unsafe { table.cuMemGetAllocationGranularity(&raw mut bytes, &raw const properties, 0) };
            said.map(|()| bytes as u64).ok().filter(|bytes| bytes.is_power_of_two())
        };
        // What all of them take: powers of two.
        let said = devices.iter().filter_map(granule).max();
        let granule_bytes = said.unwrap_or(GRANULE_BYTES);
        Self { devices: devices.to_vec(), granule_bytes, handle_types, ..Self::default() }
    }

    fn device(&self, number: u32) -> CuResult<c_int> {
        self.devices.get(number as usize).copied().ok_or(CuError::INVALID_DEVICE)
    }

    pub fn granule_bytes(&self) -> u64 {
        self.granule_bytes
    }

    pub fn reserve(&self, table: &Table, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64> {
        let (mut address, bytes, alignment) = (0, size(bytes)?, size(alignment)?);
        // SAFETY: the driver writes one number to a variable of ours.
        unsafe { table.cuMemAddressReserve(&raw mut address, bytes, alignment, wanted, 0) }?;
        Ok(address)
    }

    pub fn unreserve(&self, table: &Table, address: u64, bytes: u64) -> CuResult<()> {
        // SAFETY: a reservation of ours in which nothing is mapped.
        unsafe { table.cuMemAddressFree(address, size(bytes)?) }
    }

    pub fn create(&mut self, table: &Table, device: u32, bytes: u64) -> CuResult<Raw> {
        let (properties, mut handle) = (properties(self.device(device)?, self.handle_types), 0);
        // SAFETY: the driver reads properties and writes a number, both ours.
        unsafe { table.cuMemCreate(&raw mut handle, size(bytes)?, &raw const properties, 0) }?;
        Ok(self.name(handle))
    }

    fn name(&mut self, handle: u64) -> Raw {
        self.last += 1;
        self.handles.insert(self.last, handle);
        Raw(self.last)
    }

    pub fn release(&mut self, table: &Table, memory: Raw) -> CuResult<()> {
        let handle = self.handles.remove(&memory.0).ok_or(CuError::INVALID_VALUE)?;
        // SAFETY: a handle of ours, named no more.
        unsafe { table.cuMemRelease(handle) }
    }

    pub fn map(&self, table: &Table, address: u64, bytes: u64, memory: Raw) -> CuResult<()> {
        let handle = *self.handles.get(&memory.0).ok_or(CuError::INVALID_VALUE)?;
        // SAFETY: free addresses of a reservation of ours, a live handle of ours that has so many bytes.
        unsafe { table.cuMemMap(address, size(bytes)?, 0, handle, 0) }
    }

    pub fn unmap(&self, table: &Table, address: u64, bytes: u64) -> CuResult<()> {
        // SAFETY: one whole mapping of ours.
        unsafe { table.cuMemUnmap(address, size(bytes)?) }
    }

    pub fn set_access(
        &self,
        table: &Table,
        device: u32,
        address: u64,
        bytes: u64,
        access: Access,
    ) -> CuResult<()> {
        let device = self.device(device)?;
        let access = AccessOf { location_kind: ON_DEVICE, device, flags: access as u32 };
        // SAFETY: whole mappings of ours in a row; the driver reads one description of ours.
        unsafe { table.cuMemSetAccess(address, size(bytes)?, &raw const access, 1) }
    }
}

fn properties(device: c_int, handle_types: u32) -> MemoryProperties {
    MemoryProperties {
        kind: PINNED,
        handle_types,
        location_kind: ON_DEVICE,
        device,
        metadata: NULL,
        flags: [0; 8],
    }
}

/// An operation of a stream as the driver takes it.
pub(super) fn stream_op(op: &MemoryOp) -> StreamOp {
    let (wait, write) = if op.bytes == 4 { (WAIT_32, WRITE_32) } else { (WAIT_64, WRITE_64) };
    let word = |operation, flags| StreamOp {
        operation,
        flags,
        address: op.at.0,
        value: op.value,
        ..StreamOp::default()
    };
    match op.kind {
        MemoryOpKind::Write => word(write, 0),
        MemoryOpKind::WaitGreaterOrEqual => word(wait, 0),
        MemoryOpKind::WaitEqual => word(wait, 1),
        MemoryOpKind::WaitAnd => word(wait, 2),
        MemoryOpKind::WaitNor => word(wait, 3),
        MemoryOpKind::Barrier => StreamOp { operation: BARRIER, barrier: op.bytes, ..StreamOp::default() },
    }
}

impl VirtualMemory for Cuda {
    fn mapping_bytes(&self) -> u64 {
        self.memories.granule_bytes()
    }

    fn reserve(&mut self, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64> {
        self.memories.reserve(&self.table, bytes, alignment, wanted)
    }

    fn unreserve(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.memories.unreserve(&self.table, address, bytes)
    }

    fn create(&mut self, device: u32, bytes: u64) -> CuResult<Raw> {
        self.memories.create(&self.table, device, bytes)
    }

    fn release(&mut self, memory: Raw) -> CuResult<()> {
        self.memories.release(&self.table, memory)
    }

    fn map(&mut self, address: u64, bytes: u64, memory: Raw) -> CuResult<()> {
        self.memories.map(&self.table, address, bytes, memory)
    }

    fn unmap(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.memories.unmap(&self.table, address, bytes)
    }

    fn set_access(&mut self, device: u32, address: u64, bytes: u64, access: Access) -> CuResult<()> {
        self.memories.set_access(&self.table, device, address, bytes, access)
    }
}
