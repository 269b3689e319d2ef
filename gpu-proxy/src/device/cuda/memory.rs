//! Allocations of the driver, copies and sets, registered pages.

use std::ffi::c_void;
use std::ptr;

use vgpu_api::memory::Memset;
use vgpu_api::{CuError, CuResult, MemInfo};

use super::{Cuda, GRANULE_BYTES, size};
use crate::device::{Contexts, HostPages, Memory, Place, Raw};

/// `CU_MEMHOSTREGISTER_PORTABLE` and `…_DEVICEMAP`: for every context, and for kernels.
const REGISTER_FLAGS: u32 = 1 | 2;

impl Memory for Cuda {
    fn granule_bytes(&self) -> u64 {
        GRANULE_BYTES
    }

    fn allocation_bytes(&self, bytes: u64) -> Option<u64> {
        if self.memories.allocates() {
            return self.memories.allocation_bytes(bytes);
        }
        bytes.checked_next_multiple_of(GRANULE_BYTES)
    }

    fn piece_growth(&self, context: Raw, bytes: u64) -> Option<u64> {
        self.memories.piece_growth(context, bytes)
    }

    fn pieces_bytes(&self, device: u32) -> u64 {
        self.memories.pieces_bytes(device)
    }

    fn alloc(&mut self, context: Raw, bytes: u64) -> CuResult<u64> {
        self.enter(context)?;
        if self.memories.allocates() {
            let bytes = self.memories.allocation_bytes(bytes).ok_or(CuError::OUT_OF_MEMORY)?;
            let device = self.number_of(context)?;
            return self.memories.allocate(&self.table, (context, device), bytes);
        }
        let mut address = 0;
        // SAFETY: the driver writes one number to a variable of ours.
        unsafe { self.table.cuMemAlloc_v2(&raw mut address, size(bytes)?) }?;
        Ok(address)
    }

    fn memory(&mut self, context: Raw) -> CuResult<MemInfo> {
        self.enter(context)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two numbers to variables of ours; a context is current.
        unsafe { self.table.cuMemGetInfo_v2(&raw mut free, &raw mut total) }?;
        Ok(MemInfo { free: free as u64, total: total as u64 })
    }

    fn free(&mut self, context: Raw, address: u64) -> CuResult<()> {
        self.enter(context)?;
        if self.memories.is_allocation(address) {
            // As `cuMemFree`: what the context has to do may still use it.
            self.context_synchronize(context)?;
            return self.memories.free(&self.table, address);
        }
        // SAFETY: an address that `alloc` gave and that was not freed.
        unsafe { self.table.cuMemFree_v2(address) }
    }

    /// Memory that is mapped is no context's: when a kernel has failed, that of its context is there still.
    fn free_left(&mut self, address: u64) -> CuResult<()> {
        if !self.memories.is_allocation(address) {
            return Ok(());
        }
        self.enter(self.first_primary()?)?;
        self.memories.free_left(&self.table, address)
    }

    fn write(&mut self, place: Place, address: u64, bytes: &[u8]) -> CuResult<()> {
        let way = self.begin(place, &[address])?;
        // SAFETY: the range is the process's; pageable memory has been taken over when this returns (CUDA, "API
        // synchronization behavior").
        let done = unsafe {
            self.table.cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), way.stream)
        };
        self.end(place, way, done)
    }

    fn read(&mut self, place: Place, address: u64, bytes: &mut [u8]) -> CuResult<()> {
        let way = self.begin(place, &[address])?;
        // SAFETY: the range is the process's, the buffer ours; it is waited for below.
        let done = unsafe {
            self.table.cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), address, bytes.len(), way.stream)
        };
        // SAFETY: a live stream of ours, or the default one.
        let waited = done.and_then(|()| unsafe { self.table.cuStreamSynchronize(way.stream) });
        let waited = self.end(place, way, waited);
        self.look_for_output(waited)
    }

    fn copy(&mut self, place: Place, to: u64, from: u64, bytes: u64) -> CuResult<()> {
        let bytes = size(bytes)?;
        let way = self.begin(place, &[to, from])?;
        let stream = way.stream;
        // The driver would find out by itself, in a part of a microsecond.
        let done = match (self.host_side(to), self.host_side(from)) {
            // SAFETY: device memory of the process's, and registered pages of its own.
            (None, Some(host)) => unsafe { self.table.cuMemcpyHtoDAsync_v2(to, host, bytes, stream) },
            // SAFETY: as above.
            (Some(host), None) => unsafe { self.table.cuMemcpyDtoHAsync_v2(host, from, bytes, stream) },
            // SAFETY: both ranges are the process's: device memory, or registered pages of its own.
            _ => unsafe { self.table.cuMemcpyAsync(to, from, bytes, stream) },
        };
        self.end(place, way, done)
    }

    fn copy_between(&mut self, place: Place, to: (u64, u32), from: (u64, u32), bytes: u64) -> CuResult<()> {
        self.copy_to_peer(place, to, from, bytes)
    }

    /// A range is registered in one piece: the driver takes no copy across two registrations.
    fn pin(&mut self, pages: HostPages) -> CuResult<()> {
        let place = pages.place().ok_or(CuError::NOT_SUPPORTED)?.as_ptr().cast();
        self.enter(self.first_primary()?)?;
        // SAFETY: pages of the arena, which `pinned` keeps mapped until they are unregistered, at an address that nothing else has.
        unsafe { self.table.cuMemHostRegister_v2(place, pages.bytes(), REGISTER_FLAGS) }?;
        let mut seen = 0;
        // SAFETY: just registered; the driver writes one number to a variable of ours.
        let known = unsafe { self.table.cuMemHostGetDevicePointer_v2(&raw mut seen, place, 0) };
        if known.is_err() || seen != pages.address() {
            // SAFETY: just registered, and named to nobody.
            unsafe { self.table.cuMemHostUnregister(place) }?;
            return Err(known.err().unwrap_or(CuError::NOT_SUPPORTED));
        }
        if pages.is_of_arena() {
            self.arena = pages.whole();
        }
        self.pinned.insert(pages.address(), pages);
        Ok(())
    }

    fn unpin(&mut self, address: u64) -> CuResult<()> {
        let place = self.pinned.get(&address).and_then(HostPages::place).ok_or(CuError::INVALID_VALUE)?;
        self.enter(self.first_primary()?)?;
        // SAFETY: registered by `pin`, and named to nobody any more.
        unsafe { self.table.cuMemHostUnregister(place.as_ptr().cast()) }?;
        self.pinned.remove(&address);
        Ok(())
    }

    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one arm runs")]
    fn fill(&mut self, place: Place, memset: &Memset) -> CuResult<()> {
        let Memset { dst, pitch, element_bytes, value, width, rows } = *memset;
        let (at, pitch, width, rows) = (dst.0, size(pitch)?, size(width)?, size(rows)?);
        let stream = self.stream(place)?;
        let table = &self.table;
        let [low, second, ..] = value.to_le_bytes();
        let half = u16::from_le_bytes([low, second]);
        // SAFETY: all arms: from the first byte of the first row to the last of the last, the range is the process's.
        unsafe {
            match (element_bytes, rows) {
                (1, 1) => table.cuMemsetD8Async(at, low, width, stream),
                (2, 1) => table.cuMemsetD16Async(at, half, width, stream),
                (4, 1) => table.cuMemsetD32Async(at, value, width, stream),
                (1, _) => table.cuMemsetD2D8Async(at, pitch, low, width, rows, stream),
                (2, _) => table.cuMemsetD2D16Async(at, pitch, half, width, rows, stream),
                (4, _) => table.cuMemsetD2D32Async(at, pitch, value, width, rows, stream),
                _ => Err(CuError::INVALID_VALUE),
            }
        }
    }
}

impl Cuda {
    /// The place of an address, if the arena holds it.
    fn host_side(&self, address: u64) -> Option<*mut c_void> {
        let inside = self.arena.contains(&address);
        inside.then(|| ptr::with_exposed_provenance_mut(size(address).unwrap_or(0)))
    }
}
