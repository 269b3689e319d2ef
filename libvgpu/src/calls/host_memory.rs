//! Pinned host memory: so far the process's own pages. Copies from and to them are staged like any other; a device address of
//! them there is not (801), and attribute 19 says so.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use vgpu_api::{CuError, CuResult};

use crate::abi::{Out, Span, export};
use crate::core::contexts::enter;
use crate::core::process::process;
use crate::core::ranges::Ranges;

const PAGE_BYTES: usize = 4096;
/// Of the flags in the range's word: the pages are the program's own (`cuMemHostRegister`).
const REGISTERED: u32 = 1 << 31;
/// `CU_MEMHOSTALLOC_*`: portable, device map, write-combined.
const ALLOC_FLAGS: u32 = 7;
/// `CU_MEMHOSTREGISTER_*`: portable, device map, IO memory, read only.
const REGISTER_FLAGS: u32 = 15;

static PINNED: Ranges = Ranges::new();

/// What is pinned at an address.
pub fn pinned(address: u64) -> Option<crate::core::ranges::Range> {
    PINNED.find(address)
}

fn layout(bytes: usize) -> CuResult<Layout> {
    Layout::from_size_align(bytes, PAGE_BYTES).map_err(|_| CuError::OUT_OF_MEMORY)
}

fn alloc(out: Out<*mut u8>, bytes: usize, flags: u32) -> CuResult<()> {
    let entered = enter()?;
    if bytes == 0 || flags & !ALLOC_FLAGS != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    out.wanted()?;
    // SAFETY: the size is not zero.
    let place = unsafe { alloc_zeroed(layout(bytes)?) };
    if place.is_null() {
        return Err(CuError::OUT_OF_MEMORY);
    }
    PINNED.insert(place.expose_provenance() as u64, bytes as u64, entered.context, flags);
    out.set(place)
}

fn free(address: u64) -> CuResult<()> {
    let range = PINNED.find(address).filter(|range| range.start == address && range.flags & REGISTERED == 0);
    let range = range.and_then(|range| PINNED.remove(range.start)).ok_or(CuError::INVALID_VALUE)?;
    let bytes = usize::try_from(range.bytes).map_err(|_| CuError::INVALID_VALUE)?;
    let place = std::ptr::with_exposed_provenance_mut::<u8>(
        usize::try_from(range.start).map_err(|_| CuError::INVALID_VALUE)?,
    );
    // SAFETY: `alloc` made it with this layout, and taking it out of the table means that it is freed once.
    unsafe { dealloc(place, layout(bytes)?) }
    Ok(())
}

export! {
    fn cuMemAllocHost_v2(out: Out<*mut u8>, bytes: usize) {
        alloc(out, bytes, 0)
    }

    fn cuMemHostAlloc(out: Out<*mut u8>, bytes: usize, flags: u32) {
        alloc(out, bytes, flags)
    }

    fn cuMemFreeHost(place: Span) {
        process()?;
        free(place.address())
    }

    fn cuMemHostGetFlags(out: Out<u32>, place: Span) {
        process()?;
        let range = PINNED.find(place.address()).filter(|range| range.flags & REGISTERED == 0);
        out.set(range.ok_or(CuError::INVALID_VALUE)?.flags)
    }

    fn cuMemHostGetDevicePointer_v2(_out: Out<u64>, place: Span, flags: u32) {
        process()?;
        if flags != 0 || PINNED.find(place.address()).is_none() {
            return Err(CuError::INVALID_VALUE);
        }
        Err(CuError::NOT_SUPPORTED)
    }

    fn cuMemHostRegister_v2(place: Span, bytes: usize, flags: u32) {
        let entered = enter()?;
        if place.address() == 0 || bytes == 0 || flags & !REGISTER_FLAGS != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        if PINNED.overlaps(place.address(), bytes as u64) {
            return Err(CuError::HOST_MEMORY_ALREADY_REGISTERED);
        }
        PINNED.insert(place.address(), bytes as u64, entered.context, flags | REGISTERED);
        Ok(())
    }

    fn cuMemHostUnregister(place: Span) {
        process()?;
        let range = PINNED.find(place.address()).filter(|range| range.start == place.address() && range.flags & REGISTERED != 0);
        range.and_then(|range| PINNED.remove(range.start)).map(|_| ()).ok_or(CuError::HOST_MEMORY_NOT_REGISTERED)
    }
}
