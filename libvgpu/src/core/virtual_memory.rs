//! Memory and addresses apart, as the guest knows them: which addresses are reserved, what is mapped there, how often each memory
//! is held. So wrong calls are refused at once, and right ones are only queued.
//!
//! A memory's handle lives until it has been released as often as it was given and nothing shows it any more; only then the worker
//! is told. So the handle that a mapping was made with can be had again, as CUDA promises.
//!
//! Changes travel under the lock of the tables, so that the worker sees them in the tables' order.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use vgpu_api::{Access, CuError, CuResult, MemoryHandle};

use super::ranges::{Home, MAPPED, Ranges};
use super::slab::{Slab, lock};

/// Memory that `cuMemCreate` made.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// The ordinal of its device.
    pub device: u32,
    pub bytes: u64,
    /// `CUmemAllocationHandleType` bits that the program asked for.
    pub handle_types: u32,
    /// How often the program has it.
    held: u32,
    mappings: u32,
}

/// Memory at an address.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    pub start: u64,
    pub bytes: u64,
    pub memory: MemoryHandle,
    /// Of the memory's own device.
    pub access: Access,
}

/// All of the process.
#[derive(Debug)]
pub struct VirtualMemory {
    memories: Slab<Memory>,
    state: Mutex<State>,
    /// Reservations: asked for each address that is in no other table, so without a lock while there are none.
    reserved_count: AtomicUsize,
    /// By the device's ordinal and the option.
    granularity: Mutex<Option<HashMap<(u32, u32), u64>>>,
}

/// Addresses that the worker reserved.
#[derive(Debug, Clone, Copy)]
struct Reservation {
    bytes: u64,
    /// Nothing of the process can be put there.
    is_held: bool,
}

#[derive(Debug)]
struct State {
    reservations: BTreeMap<u64, Reservation>,
    mappings: BTreeMap<u64, Mapping>,
    /// What other devices, by their ordinals, may do with the mapping that starts there.
    others: BTreeMap<(u64, u32), Access>,
}

impl State {
    fn reservation(&self, address: u64) -> Option<(u64, u64)> {
        let (start, Reservation { bytes, .. }) = self.reservations.range(..=address).next_back()?;
        (address - start < *bytes).then_some((*start, *bytes))
    }

    fn mapping(&self, address: u64) -> Option<Mapping> {
        let (_, mapping) = self.mappings.range(..=address).next_back()?;
        (address - mapping.start < mapping.bytes).then_some(*mapping)
    }

    fn has_mapping(&self, address: u64, end: u64) -> bool {
        let before = self.mappings.range(..end).next_back();
        before.is_some_and(|(_, mapping)| mapping.start + mapping.bytes > address)
    }

    /// The mappings that a range consists of: whole ones in a row.
    fn whole(&self, address: u64, bytes: u64) -> CuResult<Vec<Mapping>> {
        let end = address.checked_add(bytes).filter(|_| bytes > 0).ok_or(CuError::INVALID_VALUE)?;
        let mut found = Vec::new();
        let mut next = address;
        for mapping in self.mappings.range(address..end).map(|(_, mapping)| *mapping) {
            if mapping.start != next {
                break;
            }
            next += mapping.bytes;
            found.push(mapping);
        }
        if next == end { Ok(found) } else { Err(CuError::INVALID_VALUE) }
    }
}

impl VirtualMemory {
    pub const fn new() -> Self {
        let state =
            State { reservations: BTreeMap::new(), mappings: BTreeMap::new(), others: BTreeMap::new() };
        Self {
            memories: Slab::new(),
            state: Mutex::new(state),
            reserved_count: AtomicUsize::new(0),
            granularity: Mutex::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The granularity of a device; asked once.
    pub fn granularity(
        &self,
        device: u32,
        option: u32,
        ask: impl FnOnce() -> CuResult<u64>,
    ) -> CuResult<u64> {
        let mut known = lock(&self.granularity);
        let known = known.get_or_insert_default();
        if let Some(bytes) = known.get(&(device, option)) {
            return Ok(*bytes);
        }
        let bytes = ask()?;
        known.insert((device, option), bytes);
        Ok(bytes)
    }

    /// The worker has reserved these addresses. `is_held`: they are kept free in this process too.
    pub fn reserved(&self, start: u64, bytes: u64, is_held: bool) {
        self.state().reservations.insert(start, Reservation { bytes, is_held });
        self.reserved_count.fetch_add(1, Ordering::Release);
    }

    /// The reservation that holds an address: its first address and its length.
    pub fn reservation(&self, address: u64) -> Option<(u64, u64)> {
        if self.reserved_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.state().reservation(address)
    }

    /// What is mapped at an address.
    pub fn mapping(&self, address: u64) -> Option<Mapping> {
        self.state().mapping(address)
    }

    /// Gives a whole reservation back; whether it was kept free in this process.
    pub fn unreserve(&self, start: u64, bytes: u64, tell: impl FnOnce() -> CuResult<()>) -> CuResult<bool> {
        let mut state = self.state();
        let known = state.reservations.get(&start).copied();
        let known = known.filter(|known| known.bytes == bytes && !state.has_mapping(start, start + bytes));
        let is_held = known.ok_or(CuError::INVALID_VALUE)?.is_held;
        tell()?;
        state.reservations.remove(&start);
        self.reserved_count.fetch_sub(1, Ordering::Release);
        Ok(is_held)
    }

    /// A handle for memory that `make` makes.
    pub fn create(
        &self,
        device: u32,
        bytes: u64,
        handle_types: u32,
        make: impl FnOnce(MemoryHandle) -> CuResult<()>,
    ) -> CuResult<MemoryHandle> {
        let memory = Memory { device, bytes, handle_types, held: 1, mappings: 0 };
        let handle = self.memories.insert(memory);
        match make(handle) {
            Ok(()) => Ok(handle),
            Err(error) => self.memories.end(handle, |_| Err(error))?,
        }
    }

    /// What a handle names that the program has.
    pub fn held(&self, handle: MemoryHandle) -> CuResult<Memory> {
        self.memories.get(handle).ok().filter(|memory| memory.held > 0).ok_or(CuError::INVALID_VALUE)
    }

    /// The program lets go of a handle once.
    pub fn release(&self, handle: MemoryHandle, tell: impl FnOnce() -> CuResult<()>) -> CuResult<()> {
        let _changing = self.state();
        let memory = self.held(handle)?;
        self.keep(handle, Memory { held: memory.held - 1, ..memory }, tell)
    }

    /// Keeps what is known of memory, or ends it when nothing holds or shows it.
    fn keep(
        &self,
        handle: MemoryHandle,
        memory: Memory,
        tell: impl FnOnce() -> CuResult<()>,
    ) -> CuResult<()> {
        if memory.held > 0 || memory.mappings > 0 {
            return self.memories.set(handle, memory);
        }
        self.memories.end(handle, |_| tell())?
    }

    /// The handle of what is mapped at an address, held once more.
    pub fn retain(&self, address: u64) -> CuResult<MemoryHandle> {
        let state = self.state();
        let handle = state.mapping(address).ok_or(CuError::INVALID_VALUE)?.memory;
        let memory = self.memories.get(handle)?;
        let held = memory.held.checked_add(1).ok_or(CuError::INVALID_VALUE)?;
        self.memories.set(handle, Memory { held, ..memory })?;
        Ok(handle)
    }

    /// Shows memory at an address.
    pub fn map(
        &self,
        ranges: &Ranges,
        (start, bytes): (u64, u64),
        handle: MemoryHandle,
        tell: impl FnOnce() -> CuResult<()>,
    ) -> CuResult<()> {
        let mut state = self.state();
        let memory = self.held(handle)?;
        let end = start.checked_add(bytes).ok_or(CuError::INVALID_VALUE)?;
        let inside = state.reservation(start).is_some_and(|(first, reserved)| end <= first + reserved);
        if bytes == 0 || bytes > memory.bytes || !inside || state.has_mapping(start, end) {
            return Err(CuError::INVALID_VALUE);
        }
        tell()?;
        state.mappings.insert(start, Mapping { start, bytes, memory: handle, access: Access::None });
        self.memories.set(handle, Memory { mappings: memory.mappings + 1, ..memory })?;
        ranges.insert_home(start, bytes, MAPPED, Home { device: memory.device, handle: handle.raw() });
        Ok(())
    }

    /// Whether nothing is mapped at reserved addresses.
    pub fn is_bare(&self, start: u64, bytes: u64) -> bool {
        let state = self.state();
        let end = start.checked_add(bytes).filter(|_| bytes > 0);
        end.is_some_and(|end| {
            let inside = state.reservation(start).is_some_and(|(first, reserved)| end <= first + reserved);
            inside && !state.has_mapping(start, end)
        })
    }

    /// Takes whole mappings in a row away; `release` tells the end of memory that nothing holds any more.
    pub fn unmap(
        &self,
        ranges: &Ranges,
        (start, bytes): (u64, u64),
        tell: impl FnOnce() -> CuResult<()>,
        release: impl Fn(MemoryHandle) -> CuResult<()>,
    ) -> CuResult<()> {
        let mut state = self.state();
        let whole = state.whole(start, bytes)?;
        tell()?;
        for mapping in whole {
            state.mappings.remove(&mapping.start);
            state.others.retain(|(start, _), _| *start != mapping.start);
            ranges.remove(mapping.start, |range| range.flags == MAPPED);
            let memory = self.memories.get(mapping.memory)?;
            let memory = Memory { mappings: memory.mappings - 1, ..memory };
            self.keep(mapping.memory, memory, || release(mapping.memory))?;
        }
        Ok(())
    }

    /// Says what a device, by its ordinal, may do with whole mappings in a row, whose memory is one device's.
    pub fn set_access(
        &self,
        (start, bytes): (u64, u64),
        ordinal: u32,
        access: Access,
        tell: impl FnOnce() -> CuResult<()>,
    ) -> CuResult<()> {
        let mut state = self.state();
        let whole = state.whole(start, bytes)?;
        let device = |mapping: &Mapping| self.memories.get(mapping.memory).map(|memory| memory.device);
        let first = device(whole.first().ok_or(CuError::INVALID_VALUE)?)?;
        if whole.iter().any(|mapping| device(mapping) != Ok(first)) {
            return Err(CuError::INVALID_VALUE);
        }
        tell()?;
        for mapping in whole {
            if ordinal == first {
                state.mappings.insert(mapping.start, Mapping { access, ..mapping });
            } else {
                state.others.insert((mapping.start, ordinal), access);
            }
        }
        Ok(())
    }

    /// What another device than the memory's own may do with a mapping.
    pub fn access_of(&self, mapping: Mapping, ordinal: u32) -> Access {
        self.state().others.get(&(mapping.start, ordinal)).copied().unwrap_or_default()
    }

    /// What is known of the memory of a mapping.
    pub fn memory(&self, mapping: Mapping) -> CuResult<Memory> {
        self.memories.get(mapping.memory)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A piece of memory is told to be over once: after the last release and the last unmap, whichever comes last.
    #[test]
    fn the_worker_is_told_of_the_end_of_memory_that_nothing_holds_or_shows() {
        let (known, ranges, ended) = (VirtualMemory::new(), Ranges::new(), RefCell::new(Vec::new()));
        let end = |handle| {
            ended.borrow_mut().push(handle);
            Ok(())
        };
        known.reserved(0x1000, 0x1000, false);
        let handle = known.create(0, 0x100, 0, |_| Ok(())).unwrap();
        known.map(&ranges, (0x1000, 0x100), handle, || Ok(())).unwrap();
        assert_eq!(known.release(handle, || end(handle)), Ok(()));
        assert_eq!(known.release(handle, || end(handle)), Err(CuError::INVALID_VALUE), "not held");
        assert_eq!(known.map(&ranges, (0x1100, 0x100), handle, || Ok(())), Err(CuError::INVALID_VALUE));
        assert_eq!(known.retain(0x10ff), Ok(handle));
        known.map(&ranges, (0x1100, 0x100), handle, || Ok(())).unwrap();
        known.unmap(&ranges, (0x1000, 0x200), || Ok(()), end).unwrap();
        assert!(ended.borrow().is_empty(), "held");
        known.release(handle, || end(handle)).unwrap();
        assert_eq!(*ended.borrow(), [handle]);
        assert_eq!((ranges.find(0x1000), known.retain(0x1000)), (None, Err(CuError::INVALID_VALUE)));
        assert_eq!(known.unreserve(0x1000, 0x1000, || Ok(())), Ok(false));
    }

    #[test]
    fn what_the_worker_refuses_changes_nothing() {
        let (known, ranges) = (VirtualMemory::new(), Ranges::new());
        let refused = || Err(CuError::OUT_OF_MEMORY);
        known.reserved(0x1000, 0x1000, false);
        assert_eq!(known.create(0, 0x100, 0, |_| refused()), Err(CuError::OUT_OF_MEMORY));
        let handle = known.create(0, 0x100, 0, |_| Ok(())).unwrap();
        assert!(known.map(&ranges, (0x1000, 0x100), handle, refused).is_err());
        assert_eq!(ranges.find(0x1000), None);
        known.map(&ranges, (0x1000, 0x100), handle, || Ok(())).unwrap();
        assert!(known.set_access((0x1000, 0x100), 0, Access::Read, refused).is_err());
        assert_eq!(known.mapping(0x1000).unwrap().access, Access::None);
        assert!(known.unmap(&ranges, (0x1000, 0x100), refused, |_| Ok(())).is_err());
        assert!(known.mapping(0x1000).is_some());
        assert!(known.unreserve(0x1000, 0x1000, || Ok(())).is_err(), "something is mapped");
    }
}
