//! Managed memory: pieces of the arena, which program and device reach at one address (`host_memory.rs`). It lies in host memory and never
//! moves, so it is right whoever touches it, and slow for kernels. `cuMemFree_v2` ends it (`memory.rs`); all copies, sets and kernels
//! take its addresses as they take pinned memory's.
//!
//! Attribute 89 (concurrent managed access) is 0: so CUDA lets no program ask for it on the device. A prefetch, and advice that names
//! a device, is 101, as cuda.h documents for such devices; advice for the host is kept for who asks. Associations with streams
//! keep programs from what works here at any time: they are checked, and change nothing.

use std::ops;

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, DevicePtr, Stream};

use super::host_memory::{is_managed, mapped, take_managed};
use super::virtual_memory::Location;
use crate::abi::{In, Out, Raw, export};
use crate::core::advice::Advice;
use crate::core::contexts::{Entered, enter};
use crate::core::ranges::Range;
use crate::core::streams::{context_of, resolve};
use crate::log::say;

/// `CU_MEM_ATTACH_*`: to every stream, to the host, to one stream.
const GLOBAL: u32 = 1;
const HOST: u32 = 2;
const SINGLE: u32 = 4;
/// `CUmemLocationType`: a device, the host, one of its NUMA nodes, the thread's own.
const ON_DEVICE: u32 = 1;
const ON_HOST: u32 = 2;
const ON_NODES: ops::RangeInclusive<u32> = 3..=4;
/// `CU_DEVICE_CPU`, `CU_DEVICE_INVALID`.
const CPU: i32 = -1;
const NO_DEVICE: i32 = -2;
/// Advice is of whole pages.
const PAGE: u64 = idm::region::PAGE_BYTES as u64;

/// Bits of what is advised: mostly read; the host is preferred; the host accesses it.
const READ_MOSTLY: u8 = 1;
const PREFERS_HOST: u8 = 2;
const ACCESSED_BY_HOST: u8 = 4;

static ADVICE: Advice = Advice::new();

/// Managed memory that ends: what it was advised is not its successor's.
pub fn forget(range: &Range) {
    ADVICE.unset(range.start..range.start + range.bytes, u8::MAX);
}

/// The managed memory that holds the byte at `address`.
fn managed(entered: Entered, address: DevicePtr) -> CuResult<Range> {
    mapped(entered.process, address.0).filter(is_managed).ok_or(CuError::INVALID_VALUE)
}

/// The pages of `bytes` bytes from `at` on, which lie in one allocation, as far as they are that allocation's.
/// # Errors
/// 1.
pub fn pages(entered: Entered, at: DevicePtr, bytes: usize) -> CuResult<ops::Range<u64>> {
    let range = managed(entered, at)?;
    let (offset, bytes) = (at.0 - range.start, bytes as u64);
    if bytes == 0 || bytes > range.bytes - offset {
        return Err(CuError::INVALID_VALUE);
    }
    let first = (at.0 & !(PAGE - 1)).max(range.start);
    Ok(first..(at.0 + bytes).next_multiple_of(PAGE).min(range.start + range.bytes))
}

/// A place as before CUDA 12.2: a device's number or [`CPU`].
fn location_of(device: i32) -> Location {
    Location { kind: if device == CPU { ON_HOST } else { ON_DEVICE }, id: device }
}

/// That advice is for the host.
/// # Errors
/// 101 for a device, whose attribute 89 is 0; `of_nodes` for a node of the host's; 1.
fn for_host(location: Location, of_nodes: CuError) -> CuResult<()> {
    match location.kind {
        ON_HOST => Ok(()),
        ON_DEVICE => Err(CuError::INVALID_DEVICE),
        node if ON_NODES.contains(&node) => Err(of_nodes),
        _ => Err(CuError::INVALID_VALUE),
    }
}

/// Numbers: `CUmem_advise`.
fn advise(at: DevicePtr, bytes: usize, advice: u32, location: Location) -> CuResult<()> {
    let pages = pages(enter()?, at, bytes)?;
    let is_set = advice % 2 == 1;
    let bit = match advice {
        1 | 2 => READ_MOSTLY,
        3 => {
            // Which node the pages are of is the kernel's to say.
            for_host(location, CuError::NOT_SUPPORTED)?;
            PREFERS_HOST
        }
        4 => PREFERS_HOST,
        5 | 6 => {
            for_host(location, CuError::INVALID_VALUE)?;
            ACCESSED_BY_HOST
        }
        _ => return Err(CuError::INVALID_VALUE),
    };
    if is_set {
        ADVICE.set(pages, bit)
    } else {
        ADVICE.unset(pages, bit)
    }
    Ok(())
}

/// Whether memory can be told to go there: a device, the host, one of its nodes.
pub fn is_place(location: Location) -> bool {
    (ON_DEVICE..=*ON_NODES.end()).contains(&location.kind)
}

/// Source: cuda.h, `cuMemPrefetchAsync`: the device of the stream, and the one that memory goes to, have attribute 89. None has.
fn prefetch(
    at: DevicePtr,
    bytes: usize,
    location: Location,
    flags: u32,
    stream: Raw,
    mode: Mode,
) -> CuResult<()> {
    let entered = enter()?;
    context_of(entered, resolve(entered, stream.0, mode)?)?;
    pages(entered, at, bytes)?;
    if flags != 0 || !is_place(location) {
        return Err(CuError::INVALID_VALUE);
    }
    say!("managed memory is not prefetched: it stays in host memory (attribute 89 is 0)");
    Err(CuError::INVALID_DEVICE)
}

/// Numbers: `CUmem_range_attribute`.
fn range_attribute(out: Out<i32>, room: usize, number: u32, pages: ops::Range<u64>) -> CuResult<()> {
    const WORD: usize = size_of::<i32>();
    let bits = ADVICE.of_all(pages);
    let has = |bit: u8| bits & bit != 0;
    let value = match number {
        1 => has(READ_MOSTLY).into(),
        2 if has(PREFERS_HOST) => CPU,
        // All processors that are to access it.
        3 if room > 0 && room.is_multiple_of(WORD) => {
            let first = if has(ACCESSED_BY_HOST) { CPU } else { NO_DEVICE };
            return out.set_all(std::iter::once(first).chain(std::iter::repeat(NO_DEVICE)).take(room / WORD));
        }
        // No device is preferred, and nothing was ever prefetched.
        2 | 4 => NO_DEVICE,
        5 if has(PREFERS_HOST) => ON_HOST.cast_signed(),
        // No type of place, and the number of none.
        5..=8 => 0,
        _ => return Err(CuError::INVALID_VALUE),
    };
    if room == WORD { out.set(value) } else { Err(CuError::INVALID_VALUE) }
}

export! {
    fn cuMemAllocManaged(out: Out<DevicePtr>, bytes: usize, flags: u32) {
        let entered = enter()?;
        if bytes == 0 || !matches!(flags, GLOBAL | HOST) {
            return Err(CuError::INVALID_VALUE);
        }
        entered.process.graphs.may_be_unsafe()?;
        out.wanted()?.set(DevicePtr(take_managed(entered, bytes as u64)?))
    }

    fn cuMemAdvise(at: DevicePtr, bytes: usize, advice: u32, device: i32) {
        advise(at, bytes, advice, location_of(device))
    }

    fn cuMemAdvise_v2(at: DevicePtr, bytes: usize, advice: u32, location: Location) {
        advise(at, bytes, advice, location)
    }

    fn cuMemPrefetchAsync | cuMemPrefetchAsync_ptsz(mode, at: DevicePtr, bytes: usize, device: i32, stream: Raw) {
        prefetch(at, bytes, location_of(device), 0, stream, mode)
    }

    fn cuMemPrefetchAsync_v2 | cuMemPrefetchAsync_v2_ptsz(
        mode, at: DevicePtr, bytes: usize, location: Location, flags: u32, stream: Raw,
    ) {
        prefetch(at, bytes, location, flags, stream, mode)
    }

    fn cuMemRangeGetAttribute(out: Out<i32>, room: usize, number: u32, at: DevicePtr, bytes: usize) {
        range_attribute(out, room, number, pages(enter()?, at, bytes)?)
    }

    fn cuMemRangeGetAttributes(
        outs: In<Out<i32>>, rooms: In<usize>, numbers: In<u32>, count: usize, at: DevicePtr, bytes: usize,
    ) {
        let pages = pages(enter()?, at, bytes)?;
        (0..count).try_for_each(|i| range_attribute(outs.at(i)?, rooms.at(i)?, numbers.at(i)?, pages.clone()))
    }

    /// No node of a graph: 900 in a capture.
    fn cuStreamAttachMemAsync | cuStreamAttachMemAsync_ptsz(
        mode, stream: Raw, at: DevicePtr, bytes: usize, flags: u32,
    ) {
        let entered = enter()?;
        let stream = resolve(entered, stream.0, mode)?;
        context_of(entered, stream)?;
        let range = managed(entered, at)?;
        let is_whole = bytes == 0 || (at.0 == range.start && bytes as u64 == range.bytes);
        let is_of_streams = match flags {
            GLOBAL | HOST => true,
            // The legacy stream stands for all.
            SINGLE => stream != Stream::Legacy,
            _ => false,
        };
        if is_whole && is_of_streams { entered.process.graphs.refuses(entered, stream) } else { Err(CuError::INVALID_VALUE) }
    }
}
