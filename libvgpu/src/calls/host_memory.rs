//! Pinned host memory: so far the process's own pages. Copies from and to them are staged like any other; a device address of
//! them there is not (801), and attribute 19 says so.

use vgpu_api::{ContextId, CuError, CuResult};

use crate::abi::{Out, Span, export};
use crate::core::contexts::enter;
use crate::core::process::process;
use crate::core::ranges::{Range, Ranges};

/// Of the flags in the range's word: the pages are the program's own (`cuMemHostRegister`).
const REGISTERED: u32 = 1 << 31;
/// `CU_MEMHOSTALLOC_*`: portable, device map, write-combined.
const ALLOC_FLAGS: u32 = 7;
/// `CU_MEMHOSTREGISTER_*`: portable, device map, IO memory, read only.
const REGISTER_FLAGS: u32 = 15;

static PINNED: Ranges = Ranges::new();

/// What is pinned at an address.
pub fn pinned(address: u64) -> Option<Range> {
    PINNED.find(address)
}

fn alloc(out: Out<*mut u8>, bytes: usize, flags: u32) -> CuResult<()> {
    let entered = enter()?;
    if bytes == 0 || flags & !ALLOC_FLAGS != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    entered.process.graphs.may_be_unsafe()?;
    out.wanted()?;
    let place = map(bytes)?;
    PINNED.insert(place.expose_provenance() as u64, bytes as u64, entered.context, flags);
    out.set(place)
}

/// Pages of their own: zeroed, taken from the system when they are touched, given back whole.
fn map(bytes: usize) -> CuResult<*mut u8> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, anywhere: nothing that is there changes.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    if place == libc::MAP_FAILED { Err(CuError::OUT_OF_MEMORY) } else { Ok(place.cast()) }
}

fn unmap(range: Range) {
    let (Ok(start), Ok(bytes)) = (usize::try_from(range.start), usize::try_from(range.bytes)) else { return };
    // SAFETY: `map` made it so long, and taking it out of the table means that it is unmapped once.
    unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), bytes) };
}

fn ours(range: &Range) -> bool {
    range.flags & REGISTERED == 0
}

/// Ends what belongs to a context that ended: its allocations are freed, what it registered is the program's own again.
pub fn forget(context: ContextId) {
    PINNED.forget(context).into_iter().filter(ours).for_each(unmap);
}

export! {
    fn cuMemAllocHost_v2(out: Out<*mut u8>, bytes: usize) {
        alloc(out, bytes, 0)
    }

    fn cuMemHostAlloc(out: Out<*mut u8>, bytes: usize, flags: u32) {
        alloc(out, bytes, flags)
    }

    fn cuMemFreeHost(place: Span) {
        process()?.graphs.may_be_unsafe()?;
        unmap(PINNED.remove(place.address(), ours).ok_or(CuError::INVALID_VALUE)?);
        Ok(())
    }

    fn cuMemHostGetFlags(out: Out<u32>, place: Span) {
        process()?;
        let range = PINNED.find(place.address()).filter(ours);
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
        entered.process.graphs.may_be_unsafe()?;
        if PINNED.insert_apart(place.address(), bytes as u64, entered.context, flags | REGISTERED) {
            Ok(())
        } else {
            Err(CuError::HOST_MEMORY_ALREADY_REGISTERED)
        }
    }

    fn cuMemHostUnregister(place: Span) {
        process()?.graphs.may_be_unsafe()?;
        let range = PINNED.remove(place.address(), |range| !ours(range));
        range.map(|_| ()).ok_or(CuError::HOST_MEMORY_NOT_REGISTERED)
    }
}
