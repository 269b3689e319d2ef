//! Memory and addresses apart: reservations, memory, mappings. Needs no context: all of it is the process's. A capture forbids none of
//! it: nothing here waits or is work of a stream, and PyTorch maps what it needs while it captures.
//!
//! Memory that is asked for with POSIX file descriptors can be exported (`ipc.rs`). Fabric handles are refused with 801, after which
//! PyTorch and NCCL ask for descriptors.

use std::collections::BTreeMap;

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::snapshot::PEER_ACCESS;
use vgpu_api::{Access, CuError, CuResult, DevicePtr, MemoryHandle, ask};

use super::device::device;
use super::pool::no_device;
use crate::abi::{Abi, In, Out, Span, export};
use crate::core::contexts::current;
use crate::core::process::{Process, process};

/// `CUmemAllocationType`: pinned, managed.
pub const PINNED: u32 = 1;
const MANAGED: u32 = 2;
/// `CUmemLocationType`: device, host, host NUMA node, the thread's own.
pub const DEVICE: u32 = 1;
const HOSTS: std::ops::RangeInclusive<u32> = 2..=4;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
pub const POSIX_FD: u32 = 1;
/// Sizes and addresses of reservations are multiples of this. Source: cuda.h, `cuMemAddressReserve`.
const PAGE_BYTES: usize = 4096;
/// How often other addresses are asked for when those that the worker found are taken in this process.
const RESERVE_TRIES: usize = 8;
/// What devices begin reservations at a multiple of, at least.
const RESERVE_ALIGN: u64 = 2 << 20;
/// `CU_MEM_ALLOC_GRANULARITY_MINIMUM` and the last option, `…_RECOMMENDED`.
const MINIMUM: u32 = 0;
const RECOMMENDED: u32 = 1;

/// `CUmemLocation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Location {
    pub kind: u32,
    pub id: i32,
}

impl Abi for Location {
    const LETTER: u8 = b's';
}

/// `CUmemAllocationProp`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    /// Windows.
    metadata: u64,
    /// A wish, told by what the handle says of itself.
    compression: u8,
    remote_dma: u8,
    usage: u16,
    reserved: [u8; 4],
}
const _: () = assert!(size_of::<Properties>() == 32);

/// `CUmemAccessDesc`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AccessOf {
    pub location: Location,
    pub flags: u32,
}
const _: () = assert!(size_of::<AccessOf>() == 12);

/// The process, if no error waits.
pub fn ready() -> CuResult<&'static Process> {
    let process = process()?;
    process.channel.take_error()?;
    Ok(process)
}

/// The ordinal of the device that memory of a kind lies on.
/// # Errors
/// 801 for managed and host memory, 101 for no device, 1.
pub fn ordinal_of(process: &'static Process, kind: u32, location: Location) -> CuResult<u32> {
    match (kind, location.kind) {
        (PINNED, DEVICE) => Ok(device(process, location.id)?.0),
        (MANAGED, _) => Err(CuError::NOT_SUPPORTED),
        (PINNED, host) if HOSTS.contains(&host) => Err(CuError::NOT_SUPPORTED),
        _ => Err(CuError::INVALID_VALUE),
    }
}

/// The ordinal of a device that may touch memory.
/// # Errors
/// 801 for the host, 101, 1.
pub fn accessor(process: &'static Process, location: Location) -> CuResult<u32> {
    ordinal_of(process, PINNED, location)
}

fn checked(process: &'static Process, properties: &Properties) -> CuResult<u32> {
    if properties.metadata != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    ordinal_of(process, properties.kind, properties.location)
}

/// What memory of a device comes in multiples of.
/// # Errors
/// 101.
pub fn granularity(process: &Process, ordinal: u32, option: u32) -> CuResult<u64> {
    process.virtual_memory.granularity(ordinal, option, || {
        let number = process.contexts.number(ordinal)?;
        ask::cuMemGetAllocationGranularity(&process.channel, current(), number, option)
    })
}

/// Addresses that are free at the worker and here, so that no pointer of the program's own is taken for one of the device's;
/// whether they are kept free here.
/// # Errors
/// 2.
pub fn reserve(
    process: &Process,
    bytes: u64,
    alignment: u64,
    wanted: DevicePtr,
) -> CuResult<(DevicePtr, bool)> {
    let ask = |wanted| ask::cuMemAddressReserve(&process.channel, current(), bytes, alignment, wanted);
    let mut taken_here = Vec::new();
    let mut found = Err(CuError::OUT_OF_MEMORY);
    for _ in 0..RESERVE_TRIES {
        // Where the worker's own choice is taken by a thing of any length, it is told what is free.
        let free = if taken_here.is_empty() { None } else { hold_free(bytes, alignment) };
        let at = match ask(free.unwrap_or(wanted)) {
            Ok(at) => at,
            Err(error) => {
                free.into_iter().for_each(|free| let_go(free, bytes));
                found = Err(error);
                break;
            }
        };
        if free == Some(at) {
            found = Ok((at, true));
            break;
        }
        free.into_iter().for_each(|free| let_go(free, bytes));
        match hold(at, bytes) {
            Hold::TakenHere => taken_here.push(at),
            Hold::Held => found = Ok((at, true)),
            Hold::NotPossible => found = Ok((at, false)),
        }
        if found.is_ok() {
            break;
        }
    }
    // Only now, or the worker would give the same ones again.
    for at in taken_here {
        ask::cuMemAddressFree(&process.channel, current(), at, bytes)?;
    }
    found
}

/// Keeps addresses free, wherever there are so many in this process, that begin as a device's reservations do.
fn hold_free(bytes: u64, alignment: u64) -> Option<DevicePtr> {
    let alignment = usize::try_from(alignment.max(RESERVE_ALIGN)).ok()?;
    let bytes = usize::try_from(bytes).ok()?;
    let length = bytes.checked_add(alignment)?;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping that nobody can touch, at addresses of the system's choice.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, kind, -1, 0) };
    if place == libc::MAP_FAILED {
        return None;
    }
    let start = place.expose_provenance();
    let first = start.next_multiple_of(alignment);
    for (at, length) in [(start, first - start), (first + bytes, start + length - first - bytes)] {
        if length > 0 {
            // SAFETY: a part of our own mapping of a moment ago, before and behind what is kept.
            unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(at), length) };
        }
    }
    Some(DevicePtr(first as u64))
}

enum Hold {
    Held,
    /// Something of the program's own lies there.
    TakenHere,
    /// The system doesn't let the process have so many addresses.
    NotPossible,
}

/// Lets nothing else be put at addresses of the device. It takes no memory.
fn hold(at: DevicePtr, bytes: u64) -> Hold {
    let (Ok(start), Ok(length)) = (usize::try_from(at.0), usize::try_from(bytes)) else {
        return Hold::NotPossible;
    };
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let wanted = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: a new mapping that nobody can touch, and only where nothing is.
    let place = unsafe { libc::mmap(wanted, length, libc::PROT_NONE, kind, -1, 0) };
    if place == wanted {
        return Hold::Held;
    }
    if place != libc::MAP_FAILED {
        // A system that doesn't know the flag put it elsewhere.
        // SAFETY: our own mapping of a moment ago.
        unsafe { libc::munmap(place, length) };
        return Hold::TakenHere;
    }
    let taken = std::io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST);
    if taken { Hold::TakenHere } else { Hold::NotPossible }
}

/// No longer keeps free here what [`reserve`] kept.
pub fn let_go(at: DevicePtr, bytes: u64) {
    let (Ok(start), Ok(length)) = (usize::try_from(at.0), usize::try_from(bytes)) else { return };
    // SAFETY: what `hold` mapped, once: the table said so and has it no more.
    unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), length) };
}

fn create(out: Out<u64>, bytes: usize, properties: In<Properties>, flags: u64) -> CuResult<()> {
    let process = ready()?;
    let (out, properties, bytes) = (out.wanted()?, properties.get()?, bytes as u64);
    let ordinal = checked(process, &properties)?;
    // What devices say that they don't have (attributes 103 to 110, 136) but for descriptors.
    if properties.handle_types & !POSIX_FD != 0 || properties.remote_dma != 0 || properties.usage != 0 {
        return Err(CuError::NOT_SUPPORTED);
    }
    if flags != 0 || bytes == 0 || !bytes.is_multiple_of(granularity(process, ordinal, MINIMUM)?) {
        return Err(CuError::INVALID_VALUE);
    }
    let number = process.contexts.number(ordinal)?;
    let ask = |handle| ask::cuMemCreate(&process.channel, current(), NewHandle(handle), bytes, number);
    let create = || process.virtual_memory.create(ordinal, bytes, properties.handle_types, ask);
    out.set(process.graph_memory.with_room(create)?.raw())
}

fn set_access(at: DevicePtr, bytes: usize, all: In<AccessOf>, count: usize) -> CuResult<()> {
    let process = ready()?;
    let mapping = process.virtual_memory.mapping(at.0).ok_or(CuError::INVALID_VALUE)?;
    let own = process.virtual_memory.memory(mapping)?.device;
    // Of several for one device the last counts. None is done if one cannot be.
    let mut wanted = BTreeMap::new();
    for i in 0..count {
        let AccessOf { location, flags } = all.at(i)?;
        let access = Access::of_flags(flags).ok_or(CuError::INVALID_VALUE)?;
        let ordinal = accessor(process, location).map_err(no_device)?;
        if access != Access::None && !may_reach(process, ordinal, own) {
            return Err(CuError::NOT_SUPPORTED);
        }
        wanted.insert(ordinal, access);
    }
    if wanted.is_empty() {
        return Err(CuError::INVALID_VALUE);
    }
    let bytes = bytes as u64;
    wanted.into_iter().filter(|(ordinal, _)| may_reach(process, *ordinal, own)).try_for_each(
        |(ordinal, access)| {
            process.virtual_memory.set_access((at.0, bytes), ordinal, access, || {
                let number = process.contexts.number(ordinal)?;
                ask::cuMemSetAccess(&process.channel, current(), at, bytes, number, access)
            })
        },
    )
}

/// Whether a device can reach memory of another, or of its own.
pub fn may_reach(process: &Process, ordinal: u32, owner: u32) -> bool {
    ordinal == owner || process.peer(PEER_ACCESS, ordinal, owner) != 0
}

export! {
    fn cuMemGetAllocationGranularity(out: Out<usize>, properties: In<Properties>, option: u32) {
        let process = ready()?;
        let (out, ordinal) = (out.wanted()?, checked(process, &properties.get()?)?);
        if option > RECOMMENDED {
            return Err(CuError::INVALID_VALUE);
        }
        out.set(usize::try_from(granularity(process, ordinal, option)?).unwrap_or(usize::MAX))
    }

    fn cuMemAddressReserve(out: Out<DevicePtr>, bytes: usize, alignment: usize, wanted: DevicePtr, flags: u64) {
        let process = ready()?;
        let out = out.wanted()?;
        let pages = bytes.is_multiple_of(PAGE_BYTES) && wanted.0.is_multiple_of(PAGE_BYTES as u64);
        let whole = bytes.is_multiple_of(usize::try_from(granularity(process, 0, MINIMUM)?).unwrap_or(usize::MAX));
        if flags != 0 || bytes == 0 || !pages || !whole || (alignment != 0 && !alignment.is_power_of_two()) {
            return Err(CuError::INVALID_VALUE);
        }
        let (at, is_held) = reserve(process, bytes as u64, alignment as u64, wanted)?;
        process.virtual_memory.reserved(at.0, bytes as u64, is_held);
        out.set(at)
    }

    fn cuMemAddressFree(at: DevicePtr, bytes: usize) {
        let process = ready()?;
        let told = || ask::cuMemAddressFree(&process.channel, current(), at, bytes as u64);
        if process.virtual_memory.unreserve(at.0, bytes as u64, told)? {
            let_go(at, bytes as u64);
        }
        Ok(())
    }

    fn cuMemCreate(out: Out<u64>, bytes: usize, properties: In<Properties>, flags: u64) {
        create(out, bytes, properties, flags)
    }

    fn cuMemRelease(handle: u64) {
        let process = process()?;
        let handle = MemoryHandle::check(handle)?;
        process.virtual_memory.release(handle, || {
            ask::cuMemRelease(&process.channel, current(), GoneHandle(handle))
        })?;
        process.channel.take_error()
    }

    fn cuMemMap(at: DevicePtr, bytes: usize, offset: usize, handle: u64, flags: u64) {
        let process = ready()?;
        let (handle, bytes) = (MemoryHandle::check(handle)?, bytes as u64);
        let memory = process.virtual_memory.held(handle)?;
        let granularity = granularity(process, memory.device, MINIMUM)?;
        if flags != 0 || bytes == 0 || !at.0.is_multiple_of(granularity) {
            return Err(CuError::INVALID_VALUE);
        }
        // Whole memories only, as NVIDIA's driver 580.
        if offset != 0 || bytes != memory.bytes {
            return Err(CuError::NOT_SUPPORTED);
        }
        process.virtual_memory.map(&process.device_memory, (at.0, bytes), handle, || {
            ask::cuMemMap(&process.channel, current(), at, bytes, handle)
        })
    }

    fn cuMemUnmap(at: DevicePtr, bytes: usize) {
        let process = process()?;
        let bytes = bytes as u64;
        // As NVIDIA's driver 580: where nothing is mapped nothing is to be done.
        if process.virtual_memory.is_bare(at.0, bytes) {
            return process.channel.take_error();
        }
        process.virtual_memory.unmap(
            &process.device_memory,
            (at.0, bytes),
            || ask::cuMemUnmap(&process.channel, current(), at, bytes),
            |handle| ask::cuMemRelease(&process.channel, current(), GoneHandle(handle)),
        )?;
        process.channel.take_error()
    }

    fn cuMemSetAccess(at: DevicePtr, bytes: usize, all: In<AccessOf>, count: usize) {
        set_access(at, bytes, all, count)
    }

    fn cuMemGetAccess(flags: Out<u64>, location: In<Location>, at: DevicePtr) {
        let process = process()?;
        let ordinal = accessor(process, location.get()?)?;
        let mapping = process.virtual_memory.mapping(at.0).ok_or(CuError::INVALID_VALUE)?;
        let own = process.virtual_memory.memory(mapping)?.device == ordinal;
        let access = if own { mapping.access } else { process.virtual_memory.access_of(mapping, ordinal) };
        flags.set(access as u64)
    }

    fn cuMemRetainAllocationHandle(out: Out<u64>, at: Span) {
        let process = process()?;
        let out = out.wanted()?;
        out.set(process.virtual_memory.retain(at.address())?.raw())
    }

    fn cuMemGetAllocationPropertiesFromHandle(out: Out<Properties>, handle: u64) {
        let memory = process()?.virtual_memory.held(MemoryHandle::check(handle)?)?;
        out.set(Properties {
            kind: PINNED,
            handle_types: memory.handle_types,
            location: Location { kind: DEVICE, id: memory.device.cast_signed() },
            metadata: 0,
            compression: 0,
            remote_dma: 0,
            usage: 0,
            reserved: [0; 4],
        })
    }
}
