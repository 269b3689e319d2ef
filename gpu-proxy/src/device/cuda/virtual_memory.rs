//! Memory and addresses apart, as NVIDIA's driver has them. None of it belongs to a context.
//!
//! Allocations are made so, too, those of less than [`PIECE_BYTES`] as parts of such pieces (`pieces.rs`): only such memory goes to another
//! worker, as a descriptor. The driver's own handles for its `cuMemAlloc` would have to find their way between two pid, user and network
//! namespaces.

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use vgpu_api::snapshot::POSIX_FD_SUPPORTED;
use vgpu_api::{Access, CuError, CuResult, MemoryOp, MemoryOpKind};

use super::pieces::Pieces;
use super::reach::Reach;
use super::table::{AccessOf, MemoryProperties, NULL, StreamOp, Table};
use super::{Cuda, Raw, attribute_of, size};
use crate::device::{Exported, Shareable, VirtualMemory};

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
    /// What each device has of those.
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

/// Memory that other workers may have.
impl Memories {
    /// Whether allocations are made here. Else they are left to `cuMemAlloc`.
    pub fn allocates(&self) -> bool {
        self.handle_types != 0
    }

    /// What an allocation takes that is made here: so many bytes of memory.
    pub fn allocation_bytes(&self, bytes: u64) -> Option<u64> {
        let part = bytes.checked_next_multiple_of(super::GRANULE_BYTES)?;
        if part < PIECE_BYTES { Some(part) } else { part.checked_next_multiple_of(self.granule_bytes) }
    }

    /// Memory of `bytes`, as [`Memories::allocation_bytes`] says, at an address: a context's of `device`.
    pub fn allocate(&mut self, table: &Table, (context, device): (Raw, u32), bytes: u64) -> CuResult<u64> {
        if bytes >= PIECE_BYTES {
            return self.allocate_whole(table, (context, device), bytes);
        }
        if let Some(address) = self.pieces.take(context, bytes) {
            return Ok(address);
        }
        let piece_bytes = self.piece_bytes();
        let start = self.allocate_whole(table, (context, device), piece_bytes)?;
        self.pieces.add(context, start, piece_bytes);
        *self.pieces_bytes.entry(device).or_default() += piece_bytes;
        self.pieces.take(context, bytes).ok_or(CuError::UNKNOWN)
    }

    /// What of a device's memory an allocation would need for a piece, if it is to be a part of one.
    pub fn piece_growth(&self, context: Raw, bytes: u64) -> Option<u64> {
        let part = self.allocation_bytes(bytes).filter(|part| self.allocates() && *part < PIECE_BYTES)?;
        Some(if self.pieces.have(context, part) { 0 } else { self.piece_bytes() })
    }

    /// What a device has in pieces.
    pub fn pieces_bytes(&self, device: u32) -> u64 {
        self.pieces_bytes.get(&device).copied().unwrap_or(0)
    }

    fn piece_bytes(&self) -> u64 {
        PIECE_BYTES.next_multiple_of(self.granule_bytes)
    }

    fn allocate_whole(&mut self, table: &Table, (context, device): (Raw, u32), bytes: u64) -> CuResult<u64> {
        let memory = self.create(table, device, bytes)?;
        let all: Vec<u32> = [device].into_iter().chain(self.reach.devices_of(context)).collect();
        match self.show(table, bytes, memory, &all) {
            Ok(address) => {
                self.allocations.insert(address, Allocation { memory, bytes, context, device });
                Ok(address)
            }
            Err(error) => self.release(table, memory).and(Err(error)),
        }
    }

    /// Lets a device reach what the other device's context allocates, as the driver does by itself for what is not mapped.
    pub fn open_to(&mut self, table: &Table, device: u32, context: Raw) -> CuResult<()> {
        if !self.reach.begin(device, context) {
            return Ok(());
        }
        let opened = self.access_of_all(table, device, context, Access::ReadWrite);
        if opened.is_err() {
            // Those that were opened before one was refused.
            let _ = self.close_to(table, device, context);
        }
        opened
    }

    /// Takes back what [`Memories::open_to`] began once.
    pub fn close_to(&mut self, table: &Table, device: u32, context: Raw) -> CuResult<()> {
        if !self.reach.end(device, context) {
            return Ok(());
        }
        self.access_of_all(table, device, context, Access::None)
    }

    /// All are tried; the first refusal of any.
    fn access_of_all(&self, table: &Table, device: u32, context: Raw, access: Access) -> CuResult<()> {
        let of_it = self.allocations.iter().filter(|(_, allocation)| allocation.context == context);
        let set = of_it
            .map(|(address, allocation)| self.set_access(table, device, *address, allocation.bytes, access));
        set.fold(Ok(()), CuResult::and)
    }

    fn show(&self, table: &Table, bytes: u64, memory: Raw, devices: &[u32]) -> CuResult<u64> {
        let address = self.reserve(table, bytes, 0, 0)?;
        let shown = self.map(table, address, bytes, memory).and_then(|()| {
            let mut devices = devices.iter();
            let opened = devices
                .try_for_each(|device| self.set_access(table, *device, address, bytes, Access::ReadWrite));
            opened.or_else(|error| self.unmap(table, address, bytes).and(Err(error)))
        });
        shown.map(|()| address).or_else(|error| self.unreserve(table, address, bytes).and(Err(error)))
    }

    pub fn is_allocation(&self, address: u64) -> bool {
        self.whole_of(address).is_some()
    }

    /// Where the memory starts that an allocation is, or is a part of, and how long it is.
    pub fn whole_of(&self, address: u64) -> Option<(u64, u64)> {
        self.holding(address).map(|(start, Allocation { bytes, .. })| (start, *bytes))
    }

    fn holding(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (start, allocation) = self.allocations.range(..=address).next_back()?;
        (address - start < allocation.bytes).then_some((*start, allocation))
    }

    /// Ends what [`Memories::allocate`] gave. No work uses it.
    pub fn free(&mut self, table: &Table, address: u64) -> CuResult<()> {
        let (_, &Allocation { context, .. }) = self.holding(address).ok_or(CuError::INVALID_VALUE)?;
        match self.pieces.give(context, address, self.piece_bytes()) {
            Some(ended) => {
                self.end_pieces(table, ended);
                Ok(())
            }
            None => self.free_whole(table, address),
        }
    }

    /// The same, of a context that is no more.
    pub fn free_left(&mut self, table: &Table, address: u64) -> CuResult<()> {
        let (_, &Allocation { context, .. }) = self.holding(address).ok_or(CuError::INVALID_VALUE)?;
        self.free(table, address)?;
        self.end_idle_pieces(table, context);
        Ok(())
    }

    /// A context ends: what was kept for its next small allocations does, too.
    pub fn end_idle_pieces(&mut self, table: &Table, context: Raw) {
        let idle = self.pieces.idle(context);
        self.end_pieces(table, idle);
    }

    fn end_pieces(&mut self, table: &Table, pieces: Vec<u64>) {
        for start in pieces {
            let Some(&Allocation { device, bytes, .. }) = self.allocations.get(&start) else { continue };
            match self.free_whole(table, start) {
                Ok(()) => self.pieces_bytes.entry(device).and_modify(|all| *all -= bytes).or_default(),
                // It is nobody's any more, so nobody is told; it goes on counting.
                Err(error) => {
                    log::warn!("a piece of device memory stays mapped: {}", error.code());
                    continue;
                }
            };
        }
    }

    fn free_whole(&mut self, table: &Table, address: u64) -> CuResult<()> {
        let &Allocation { memory, bytes, .. } =
            self.allocations.get(&address).ok_or(CuError::INVALID_VALUE)?;
        self.unmap(table, address, bytes)?;
        self.allocations.remove(&address);
        self.release(table, memory)?;
        self.unreserve(table, address, bytes)
    }

    pub fn export(&self, table: &Table, what: Shareable) -> CuResult<Exported> {
        let memory = match what {
            Shareable::Memory(memory) => memory,
            Shareable::Allocation(address) => self.holding(address).ok_or(CuError::NOT_SUPPORTED)?.1.memory,
        };
        if self.handle_types == 0 {
            return Err(CuError::NOT_SUPPORTED);
        }
        let handle = *self.handles.get(&memory.0).ok_or(CuError::INVALID_VALUE)?;
        let mut fd: c_int = -1;
        // SAFETY: a live handle of ours; the driver writes one descriptor to a variable of ours.
        unsafe { table.cuMemExportToShareableHandle((&raw mut fd).cast(), handle, POSIX_FD, 0) }?;
        if fd < 0 {
            return Err(CuError::UNKNOWN);
        }
        // SAFETY: the driver opened it for us, and knows it no more.
        Ok(Exported::Device(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn import(&mut self, table: &Table, memory: &OwnedFd) -> CuResult<Raw> {
        let place = usize::try_from(memory.as_raw_fd()).map_err(|_| CuError::INVALID_VALUE)?;
        let mut handle = 0;
        // SAFETY: the driver takes the descriptor's number in a pointer's place, and has one of its own afterwards; it writes a number
        // to a variable of ours.
        unsafe {
            table.cuMemImportFromShareableHandle(
                &raw mut handle,
                ptr::without_provenance_mut(place),
                POSIX_FD,
            )
        }?;
        Ok(self.name(handle))
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
