//! Memory and addresses apart: `cuMemAddressReserve`, `cuMemCreate`, `cuMemMap`, `cuMemSetAccess`. All of it is the process's; no
//! context takes it along when it ends.
//!
//! Memory counts against the grant from its creation until its handle is ended and no mapping shows it. Addresses cost nothing
//! of the grant, so they are bounded here, as mappings are: each takes a little of the driver's own memory.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use vgpu_api::{Access, Call, CuError, CuResult, DevicePtr, MemoryHandle, Token};

use super::Session;
use crate::device::Raw;
use crate::exchange::Question;
use crate::worker::slab::Slab;

/// Reservations of one process, pools' included, and their addresses together: PyTorch takes 1.1 times the device's memory for
/// each stream and size.
const RESERVATIONS_MAX: usize = 4096;
const RESERVED_BYTES_MAX: u64 = 32 << 40;
/// Mappings of one process. 256 GiB in the smallest pieces are half as many.
const MAPPINGS_MAX: usize = 256 << 10;
/// Sizes and addresses of reservations are multiples of this. Source: cuda.h, `cuMemAddressReserve`.
const PAGE_BYTES: u64 = 4096;

#[derive(Debug, Default)]
pub(super) struct VirtualMemory {
    memories: Slab<Arc<Memory>>,
    /// The program's: length by first address.
    reservations: BTreeMap<u64, u64>,
    mappings: BTreeMap<u64, Mapping>,
    /// What the device did not let go of: it counts for good, whatever becomes of its mappings.
    kept: Vec<Arc<Memory>>,
    /// Of all reservations, pools' included.
    reserved_count: usize,
    reserved_bytes: u64,
}

/// What a handle and mappings share; the last of them ends its counting.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) raw: Raw,
    pub(super) device: u32,
    pub(super) bytes: u64,
    pub(super) owner: MemoryOwner,
    /// Of what others may have.
    pub(super) token: OnceLock<Token>,
}

/// Who made memory, and counts it.
#[derive(Debug)]
pub(super) enum MemoryOwner {
    Ours,
    /// Another process of the zone.
    Others(Token),
}

#[derive(Clone, Debug)]
struct Mapping {
    bytes: u64,
    memory: Arc<Memory>,
    /// What each device may do with it; one that is missing: nothing.
    access: BTreeMap<u32, Access>,
}

impl Mapping {
    /// The most that a device may.
    fn most(&self) -> Access {
        let any = |wanted| self.access.values().any(|access| *access == wanted);
        let most = [Access::ReadWrite, Access::Read].into_iter().find(|wanted| any(*wanted));
        most.unwrap_or(Access::None)
    }
}

impl VirtualMemory {
    pub(super) fn memory(&self, handle: MemoryHandle) -> CuResult<&Arc<Memory>> {
        self.memories.get(handle)
    }

    pub(super) fn check_free(&self, handle: MemoryHandle) -> CuResult<()> {
        self.memories.check_free(handle).map(drop)
    }

    pub(super) fn insert(&mut self, handle: MemoryHandle, memory: Memory) -> CuResult<()> {
        self.memories.insert(handle, Arc::new(memory))
    }

    /// Whether the range lies in one of the program's reservations.
    fn is_reserved(&self, at: u64, bytes: u64) -> bool {
        let before = self.reservations.range(..=at).next_back();
        before.is_some_and(|(start, reserved)| {
            let offset = at - start;
            offset < *reserved && bytes <= reserved - offset
        })
    }

    /// The device of the memory that is mapped at an address.
    pub(super) fn device_at(&self, at: u64) -> Option<u32> {
        let (start, mapping) = self.mappings.range(..=at).next_back()?;
        (at - start < mapping.bytes).then_some(mapping.memory.device)
    }

    fn has_mapping(&self, at: u64, bytes: u64) -> bool {
        let before = self.mappings.range(..at.saturating_add(bytes)).next_back();
        before.is_some_and(|(start, mapping)| start.saturating_add(mapping.bytes) > at)
    }

    /// The mappings that a range consists of: whole ones in a row.
    fn whole(&self, at: u64, bytes: u64) -> CuResult<Vec<(u64, u64)>> {
        let end = at.checked_add(bytes).filter(|_| bytes > 0).ok_or(CuError::INVALID_VALUE)?;
        let mut next = at;
        let mut found = Vec::new();
        for (start, mapping) in self.mappings.range(at..end) {
            if *start != next {
                break;
            }
            found.push((*start, mapping.bytes));
            next += mapping.bytes;
        }
        if next == end { Ok(found) } else { Err(CuError::INVALID_VALUE) }
    }
}

impl Session {
    pub(super) fn granularity(&self, device: u32, option: u32) -> CuResult<u64> {
        self.check_device(device)?;
        // The least and the best are the same on every device so far.
        if option <= 1 { Ok(self.device.mapping_bytes()) } else { Err(CuError::INVALID_VALUE) }
    }

    pub(super) fn reserve(
        &mut self,
        call: Call,
        bytes: u64,
        alignment: u64,
        wanted: DevicePtr,
    ) -> CuResult<DevicePtr> {
        self.whole(call)?;
        let pages = bytes.is_multiple_of(PAGE_BYTES) && wanted.0.is_multiple_of(PAGE_BYTES);
        if bytes == 0 || !pages || (alignment != 0 && !alignment.is_power_of_two()) {
            return Err(CuError::INVALID_VALUE);
        }
        let address = self.take_addresses(bytes, alignment, wanted.0)?;
        self.virtual_memory.reservations.insert(address, bytes);
        Ok(DevicePtr(address))
    }

    /// Reserves within the bounds.
    pub(super) fn take_addresses(&mut self, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64> {
        let known = &self.virtual_memory;
        let sum = known.reserved_bytes.checked_add(bytes).filter(|sum| *sum <= RESERVED_BYTES_MAX);
        let sum = sum.filter(|_| known.reserved_count < RESERVATIONS_MAX).ok_or(CuError::OUT_OF_MEMORY)?;
        let address = self.device.reserve(bytes, alignment, wanted)?;
        self.virtual_memory.reserved_bytes = sum;
        self.virtual_memory.reserved_count += 1;
        Ok(address)
    }

    /// Gives addresses back that [`Session::take_addresses`] gave.
    pub(super) fn give_addresses(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.device.unreserve(address, bytes)?;
        self.virtual_memory.reserved_bytes -= bytes;
        self.virtual_memory.reserved_count -= 1;
        Ok(())
    }

    pub(super) fn unreserve(&mut self, call: Call, at: DevicePtr, bytes: u64) -> CuResult<()> {
        self.whole(call)?;
        let known = &self.virtual_memory;
        if known.reservations.get(&at.0) != Some(&bytes) || known.has_mapping(at.0, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        self.give_addresses(at.0, bytes)?;
        self.virtual_memory.reservations.remove(&at.0);
        Ok(())
    }

    pub(super) fn create(
        &mut self,
        call: Call,
        handle: MemoryHandle,
        bytes: u64,
        device: u32,
    ) -> CuResult<()> {
        self.whole(call)?;
        self.check_device(device)?;
        self.virtual_memory.check_free(handle)?;
        if bytes == 0 || !bytes.is_multiple_of(self.device.mapping_bytes()) {
            return Err(CuError::INVALID_VALUE);
        }
        self.quotas.charge(device, bytes)?;
        let created = self.device.create(device, bytes);
        let raw = created.inspect_err(|_| self.quotas.release(device, bytes))?;
        let memory = Memory { raw, device, bytes, owner: MemoryOwner::Ours, token: OnceLock::new() };
        self.virtual_memory.insert(handle, memory)
    }

    pub(super) fn release(&mut self, call: Call, handle: MemoryHandle) -> CuResult<()> {
        self.whole(call)?;
        let memory = self.virtual_memory.memories.remove(handle)?;
        let released = self.device.release(memory.raw);
        match released {
            Ok(()) => self.let_go(memory),
            Err(_) => self.virtual_memory.kept.push(memory),
        }
        released
    }

    /// The last one that had the memory has ended.
    fn let_go(&mut self, memory: Arc<Memory>) {
        let Some(Memory { device, bytes, owner, token, .. }) = Arc::into_inner(memory) else { return };
        match owner {
            MemoryOwner::Others(token) => self.tell(Question::Close(token)),
            MemoryOwner::Ours => {
                // What others still have of it counts before it does no longer here.
                token.get().iter().for_each(|token| self.tell(Question::LetGo(**token)));
                self.quotas.release(device, bytes);
            }
        }
    }

    pub(super) fn map(
        &mut self,
        call: Call,
        at: DevicePtr,
        bytes: u64,
        handle: MemoryHandle,
    ) -> CuResult<()> {
        self.whole(call)?;
        let known = &self.virtual_memory;
        let memory = known.memories.get(handle)?.clone();
        let granule = self.device.mapping_bytes();
        let aligned = at.0.is_multiple_of(granule) && bytes.is_multiple_of(granule);
        let fits = bytes > 0 && bytes <= memory.bytes;
        if !aligned || !fits || !known.is_reserved(at.0, bytes) || known.has_mapping(at.0, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        if known.mappings.len() >= MAPPINGS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.device.map(at.0, bytes, memory.raw)?;
        self.virtual_memory.mappings.insert(at.0, Mapping { bytes, memory, access: BTreeMap::new() });
        Ok(())
    }

    pub(super) fn unmap(&mut self, call: Call, at: DevicePtr, bytes: u64) -> CuResult<()> {
        self.whole(call)?;
        let whole = self.virtual_memory.whole(at.0, bytes)?;
        self.graphs.something_ended();
        for (start, bytes) in whole {
            self.device.unmap(start, bytes)?;
            self.ranges.shut(start, bytes);
            if let Some(mapping) = self.virtual_memory.mappings.remove(&start) {
                self.let_go(mapping.memory);
            }
        }
        Ok(())
    }

    pub(super) fn set_access(
        &mut self,
        call: Call,
        at: DevicePtr,
        bytes: u64,
        device: u32,
        access: Access,
    ) -> CuResult<()> {
        self.whole(call)?;
        self.check_device(device)?;
        let whole = self.virtual_memory.whole(at.0, bytes)?;
        // Shut before and opened after the device: never open to the guest while it is shut there.
        if access != Access::ReadWrite {
            self.graphs.something_ended();
            self.note_access(&whole, device, Access::None);
        }
        self.device.set_access(device, at.0, bytes, access)?;
        if access != Access::None {
            self.note_access(&whole, device, access);
        }
        Ok(())
    }

    /// What a device may do with mappings from now on. Who copies may do what any device may.
    fn note_access(&mut self, mappings: &[(u64, u64)], device: u32, access: Access) {
        for &(start, bytes) in mappings {
            let Some(mapping) = self.virtual_memory.mappings.get_mut(&start) else { continue };
            mapping.access.insert(device, access);
            match mapping.most() {
                Access::None => self.ranges.shut(start, bytes),
                most => self.ranges.open(start, bytes, most == Access::ReadWrite),
            }
        }
    }
}
