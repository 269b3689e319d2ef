//! Pinned host memory. What is allocated here is a piece of the arena, which the device reaches by the program's own pointers: copies
//! from and to it are queued and nothing of it is staged. Where there is no arena, or no more of it, pages of the process's own take its
//! place: copies from and to them are staged like any other, a device address of them there is not (801).
//!
//! What the program registers (`cuMemHostRegister`) stays its own pages: to put shared pages in their place is not possible while other
//! threads may write to them (README.md has more reasons). Attribute 91 says so.
//!
//! Managed memory (`managed.rs`) stands in the same table, as a piece of the arena of another kind.

use vgpu_api::{ContextId, CuError, CuResult};

use super::managed;
use crate::abi::{Out, Span, export};
use crate::core::contexts::{Entered, enter};
use crate::core::image_size::is_mapped as is_mapped_here;
use crate::core::process::{Process, process};
use crate::core::ranges::{Range, Ranges};

/// Of the flags in the range's word: the pages are the program's own (`cuMemHostRegister`).
const REGISTERED: u32 = 1 << 31;
/// A piece of the arena.
const ARENA: u32 = 1 << 30;
/// Managed memory, which is one.
const MANAGED: u32 = 1 << 29;
/// A managed variable: nobody frees it.
const VARIABLE: u32 = 1 << 28;
/// `CU_MEMHOSTALLOC_*`: portable, device map, write-combined.
const ALLOC_FLAGS: u32 = 7;
const DEVICE_MAP: u32 = 2;
/// `CU_MEMHOSTREGISTER_*`: portable, device map, IO memory, read only.
const REGISTER_FLAGS: u32 = 15;

static PINNED: Ranges = Ranges::new();

/// What is pinned at an address.
pub fn pinned(address: u64) -> Option<Range> {
    PINNED.find(address)
}

/// Whether the device reaches what is pinned.
pub fn is_mapped(range: &Range) -> bool {
    range.flags & ARENA != 0
}

/// Whether it is managed memory.
pub fn is_managed(range: &Range) -> bool {
    range.flags & MANAGED != 0
}

/// The piece of the arena that holds the byte at `address`. One comparison for what lies elsewhere.
#[inline]
pub fn mapped(process: &Process, address: u64) -> Option<Range> {
    process.arena.as_ref().filter(|arena| arena.holds(address))?;
    pinned(address).filter(is_mapped)
}

fn alloc(out: Out<*mut u8>, bytes: usize, flags: u32) -> CuResult<()> {
    let entered = enter()?;
    if flags & !ALLOC_FLAGS != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    out.wanted()?;
    if bytes == 0 {
        // As NVIDIA's driver 580: nothing, which can be freed.
        return out.set(std::ptr::null_mut());
    }
    entered.process.graphs.may_be_unsafe()?;
    let (start, kind) = place(entered, bytes, flags)?;
    PINNED.insert(start, bytes as u64, entered.context, flags | kind);
    out.set(std::ptr::with_exposed_provenance_mut(usize::try_from(start).unwrap_or(0)))
}

/// Managed memory of `bytes`, not 0; its address.
/// # Errors
/// 801 where there is no arena, 2 where it has no room.
pub fn take_managed(entered: Entered, bytes: u64) -> CuResult<u64> {
    let arena = entered.process.arena.as_ref().ok_or(CuError::NOT_SUPPORTED)?;
    let start = arena.take(&entered.process.channel, bytes)?;
    PINNED.insert(start, bytes, entered.context, ARENA | MANAGED);
    Ok(start)
}

/// A managed variable, not of 0 bytes, which ends with its image.
pub fn add_variable(start: u64, bytes: u64, owner: ContextId) {
    PINNED.insert(start, bytes, owner, ARENA | MANAGED | VARIABLE);
}

/// A variable that ends. One that its context has taken along is gone already.
pub fn forget_variable(start: u64) {
    if let Some(range) = PINNED.remove(start, is_variable) {
        managed::forget(&range);
    }
}

/// Ends the managed memory that starts at `start`, after all work that was queued. `None`: none does that was allocated.
pub fn give_managed(process: &Process, start: u64) -> Option<CuResult<()>> {
    process.arena.as_ref().filter(|arena| arena.holds(start))?;
    PINNED
        .remove(start, |range| is_managed(range) && !is_variable(range))
        .map(|range| free(process, vec![range]))
}

/// Where the memory is, and which kind it is of.
fn place(entered: Entered, bytes: usize, flags: u32) -> CuResult<(u64, u32)> {
    let Entered { process, .. } = entered;
    if let Some(arena) = &process.arena {
        match arena.take(&process.channel, bytes as u64) {
            Ok(start) => return Ok((start, ARENA)),
            // A program that does not ask for a device address can do without.
            Err(CuError::OUT_OF_MEMORY | CuError::NOT_SUPPORTED) if flags & DEVICE_MAP == 0 => {}
            Err(error) => return Err(error),
        }
    }
    map(bytes).map(|place| (place.expose_provenance() as u64, 0))
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

/// What `cuMemHostAlloc` gave.
fn allocated(range: &Range) -> bool {
    range.flags & (REGISTERED | MANAGED) == 0
}

fn is_variable(range: &Range) -> bool {
    range.flags & VARIABLE != 0
}

fn registered(range: &Range) -> bool {
    range.flags & REGISTERED != 0
}

/// Ends allocations that were taken out of the table.
fn free(process: &Process, ranges: Vec<Range>) -> CuResult<()> {
    let (pieces, own): (Vec<_>, Vec<_>) = ranges.into_iter().partition(is_mapped);
    own.into_iter().for_each(unmap);
    pieces.iter().filter(|range| is_managed(range)).for_each(managed::forget);
    let pieces: Vec<_> = pieces.iter().map(|range| (range.start, range.bytes)).collect();
    match &process.arena {
        Some(arena) if !pieces.is_empty() => arena.give(&process.channel, &pieces),
        _ => Ok(()),
    }
}

/// Ends what belongs to a context that ended: its allocations are freed, though every context could use them; what it registered is
/// the program's own again. Its modules' variables have ended before.
pub fn forget(process: &Process, context: ContextId) {
    // A worker that is gone, or that keeps a part, is told of by the next call that needs it.
    let _ = free(process, PINNED.forget(context).into_iter().filter(|range| !registered(range)).collect());
}

export! {
    fn cuMemAllocHost_v2(out: Out<*mut u8>, bytes: usize) {
        alloc(out, bytes, 0)
    }

    fn cuMemHostAlloc(out: Out<*mut u8>, bytes: usize, flags: u32) {
        alloc(out, bytes, flags)
    }

    /// Waits for all work, as a driver does: a copy may be on its way.
    fn cuMemFreeHost(place: Span) {
        let process = process()?;
        if place.address() == 0 {
            return Ok(());
        }
        process.graphs.may_be_unsafe()?;
        let range = PINNED.remove(place.address(), allocated).ok_or(CuError::INVALID_VALUE)?;
        free(process, vec![range])
    }

    fn cuMemHostGetFlags(out: Out<u32>, place: Span) {
        process()?;
        let range = PINNED.find(place.address()).filter(allocated);
        let range = range.ok_or(CuError::INVALID_VALUE)?;
        // As NVIDIA's driver says where host and device have one space of addresses.
        let mapped = if is_mapped(&range) { DEVICE_MAP } else { 0 };
        out.set(range.flags & ALLOC_FLAGS | mapped)
    }

    /// The same address: host and device have one space of addresses.
    fn cuMemHostGetDevicePointer_v2(out: Out<u64>, place: Span, flags: u32) {
        process()?;
        let wanted = |range: &Range| flags == 0 && !is_managed(range);
        let range = PINNED.find(place.address()).filter(wanted).ok_or(CuError::INVALID_VALUE)?;
        if is_mapped(&range) { out.set(place.address()) } else { Err(CuError::NOT_SUPPORTED) }
    }

    fn cuMemHostRegister_v2(place: Span, bytes: usize, flags: u32) {
        let entered = enter()?;
        let is_taken = pinned(place.address()).is_some_and(|range| !registered(&range));
        let has_pages = bytes != 0 && is_mapped_here(place.address(), bytes as u64);
        if !has_pages || is_taken || flags & !REGISTER_FLAGS != 0 {
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
        let process = process()?;
        process.graphs.may_be_unsafe()?;
        let at = place.address();
        // What is not registered because it is something else, or begins elsewhere, is another mistake.
        let error = match pinned(at).or_else(|| process.device_memory.find(at)) {
            None if at != 0 => CuError::HOST_MEMORY_NOT_REGISTERED,
            _ => CuError::INVALID_VALUE,
        };
        PINNED.remove(at, registered).map(|_| ()).ok_or(error)
    }
}
