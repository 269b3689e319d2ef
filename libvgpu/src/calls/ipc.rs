//! Device memory and events between processes of a pod: `cuIpc…` for allocations and events, shareable handles for what `cuMemCreate`
//! makes. What the handles are: `core/ipc.rs`.
//!
//! A descriptor is one of a file in memory that holds the handle's bytes: the program passes it on, and closes it, as it likes. It does not
//! keep the memory: others can import it as long as its maker has a handle or a mapping of it.

use std::os::fd::IntoRawFd;

use idm::region::{Region, sealed_memory};
use vgpu_api::handle::NewHandle;
use vgpu_api::{ContextId, CuError, CuResult, DevicePtr, EventHandle, MemoryHandle, SharedPart, ask};

use super::virtual_memory::{POSIX_FD, ready};
use crate::abi::{Abi, Out, Raw, Span, export};
use crate::core::contexts::{Entered, current, enter, enter_to_end};
use crate::core::ipc::{HANDLE_BYTES, Handle, Kind};
use crate::core::process::{EventInfo, Recorded};
use crate::core::ranges::OPENED;

/// `CU_MEM_HANDLE_TYPE_FABRIC` and those of Windows: the devices say that they don't have them.
const OTHER_TYPES: u32 = 2 | 4 | 8;
/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`.
const LAZY_PEER_ACCESS: u32 = 1;

/// `CUipcMemHandle`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemHandle(pub [u8; HANDLE_BYTES]);

impl Abi for MemHandle {
    const LETTER: u8 = b's';
}

/// `CUipcEventHandle`.
pub type IpcEventHandle = MemHandle;

pub(super) fn checked_type(handle_type: u32) -> CuResult<()> {
    match handle_type {
        POSIX_FD => Ok(()),
        other if OTHER_TYPES & other == other && other.is_power_of_two() => Err(CuError::NOT_SUPPORTED),
        _ => Err(CuError::INVALID_VALUE),
    }
}

/// A file in memory with the handle's bytes. Nobody can change its length.
pub(super) fn file_of(handle: [u8; HANDLE_BYTES]) -> CuResult<i32> {
    let full = |_| CuError::OUT_OF_MEMORY;
    let file = sealed_memory("vgpu-memory", HANDLE_BYTES).map_err(full)?;
    Region::map(&file, HANDLE_BYTES).map_err(full)?.write(0, &handle);
    Ok(file.into_raw_fd())
}

/// The handle's bytes in the file that the program names.
pub(super) fn bytes_of(fd: i32) -> CuResult<[u8; HANDLE_BYTES]> {
    let mut bytes = [0; HANDLE_BYTES];
    // SAFETY: the system writes at most so many bytes to a buffer of ours; a number that is no descriptor is an error.
    let read = unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), HANDLE_BYTES, 0) };
    if usize::try_from(read) == Ok(HANDLE_BYTES) { Ok(bytes) } else { Err(CuError::INVALID_VALUE) }
}

fn export(out: Out<i32>, handle: u64, handle_type: u32, flags: u64) -> CuResult<()> {
    let process = ready()?;
    let (out, handle) = (out.wanted()?, MemoryHandle::check(handle)?);
    checked_type(handle_type)?;
    let memory = process.virtual_memory.held(handle)?;
    if flags != 0 || memory.handle_types & POSIX_FD == 0 {
        return Err(CuError::INVALID_VALUE);
    }
    let token = ask::vgpuMemoryExport(&process.channel, current(), handle)?;
    let device = process.contexts.number(memory.device)?;
    out.set(file_of(Handle { token, bytes: memory.bytes, device, offset: 0, id: 0 }.encode(Kind::Memory))?)
}

fn import(out: Out<u64>, os_handle: Span, handle_type: u32) -> CuResult<()> {
    let process = ready()?;
    let out = out.wanted()?;
    checked_type(handle_type)?;
    let fd = i32::try_from(os_handle.address()).map_err(|_| CuError::INVALID_VALUE)?;
    let Handle { token, bytes, device: number, .. } = Handle::decode(Kind::Memory, &bytes_of(fd)?)?;
    // Memory of a device that this process does not see.
    let device =
        process.contexts.device_of(ContextId::primary(number)).map_err(|_| CuError::NOT_SUPPORTED)?;
    let mut imported = 0;
    let ask = |handle| {
        imported = ask::vgpuMemoryImport(&process.channel, current(), NewHandle(handle), number, token)?;
        Ok(())
    };
    let handle = process.virtual_memory.create(device, bytes, POSIX_FD, ask)?;
    if imported != bytes {
        process.virtual_memory.release(handle, || {
            ask::cuMemRelease(&process.channel, current(), vgpu_api::GoneHandle(handle))
        })?;
        return Err(CuError::INVALID_VALUE);
    }
    out.set(handle.raw())
}

fn get(out: Out<MemHandle>, at: DevicePtr) -> CuResult<()> {
    let Entered { process, context, .. } = enter()?;
    let out = out.wanted()?;
    let range = process.device_memory.find(at.0).ok_or(CuError::INVALID_VALUE)?;
    // Only what `cuMemAlloc` gave. Another's is its maker's to export.
    if range.flags != 0 || range.home.is_some() {
        return Err(CuError::INVALID_VALUE);
    }
    let start = DevicePtr(range.start);
    let lives = |id| process.device_memory.has(id);
    let SharedPart { memory: token, offset, .. } =
        process.ipc.export(range.id, lives, || ask::vgpuIpcExport(&process.channel, context, start))?;
    let device = process.contexts.number(process.contexts.device_of(range.context)?)?;
    out.set(MemHandle(
        Handle { token, bytes: range.bytes, device, offset, id: range.id }.encode(Kind::Allocation),
    ))
}

fn open(out: Out<DevicePtr>, MemHandle(handle): MemHandle, flags: u32) -> CuResult<()> {
    let Entered { process, context, device, .. } = enter()?;
    let out = out.wanted()?;
    if flags != LAZY_PEER_ACCESS {
        return Err(CuError::INVALID_VALUE);
    }
    let Handle { token, bytes, device: number, offset, .. } = Handle::decode(Kind::Allocation, &handle)?;
    if process.contexts.number(device)? != number {
        return Err(CuError::INVALID_DEVICE);
    }
    process.graphs.may_be_unsafe()?;
    let part = SharedPart { memory: token, offset, bytes };
    let at = process.ipc.open(context, part, || {
        let at = ask::vgpuIpcOpen(&process.channel, context, part)?;
        process.device_memory.insert(at.0, bytes, context, OPENED);
        Ok(at)
    })?;
    out.set(at)
}

fn close(at: DevicePtr) -> CuResult<()> {
    let Entered { process, .. } = enter_to_end()?;
    process.graphs.may_be_unsafe()?;
    process.ipc.close(at, |context| {
        ask::vgpuIpcClose(&process.channel, context, at)?;
        process.device_memory.remove(at.0, |range| range.flags == OPENED);
        Ok(())
    })
}

fn get_event(out: Out<IpcEventHandle>, event: Raw) -> CuResult<()> {
    let Entered { process, context, .. } = enter()?;
    let (out, event) = (out.wanted()?, EventHandle::check(event.0)?);
    let known = process.events.get(event)?;
    if !known.is_shared {
        return Err(CuError::INVALID_VALUE);
    }
    let token = ask::vgpuEventExport(&process.channel, context, event)?;
    let device = process.contexts.number(process.contexts.device_of(known.context)?)?;
    out.set(MemHandle(Handle { token, bytes: 1, device, offset: 0, id: 0 }.encode(Kind::Event)))
}

fn open_event(out: Out<u64>, MemHandle(handle): IpcEventHandle) -> CuResult<()> {
    let Entered { process, context, .. } = enter()?;
    let out = out.wanted()?;
    let Handle { token, .. } = Handle::decode(Kind::Event, &handle)?;
    let info = EventInfo { context, recorded: Recorded::Queued, is_timed: false, is_shared: true };
    let event = process.events.insert(info);
    match ask::vgpuEventImport(&process.channel, context, NewHandle(event), token) {
        Ok(()) => out.set(event.raw()),
        Err(error) => process.events.end(event, |_| Err(error))?,
    }
}

export! {
    fn cuIpcGetEventHandle(out: Out<IpcEventHandle>, event: Raw) {
        get_event(out, event)
    }

    fn cuIpcOpenEventHandle(out: Out<u64>, handle: IpcEventHandle) {
        open_event(out, handle)
    }

    fn cuMemExportToShareableHandle(out: Out<i32>, handle: u64, handle_type: u32, flags: u64) {
        export(out, handle, handle_type, flags)
    }

    fn cuMemImportFromShareableHandle(out: Out<u64>, os_handle: Span, handle_type: u32) {
        import(out, os_handle, handle_type)
    }

    fn cuIpcGetMemHandle(out: Out<MemHandle>, at: DevicePtr) {
        get(out, at)
    }

    fn cuIpcOpenMemHandle(out: Out<DevicePtr>, handle: MemHandle, flags: u32) {
        open(out, handle, flags)
    }

    fn cuIpcOpenMemHandle_v2(out: Out<DevicePtr>, handle: MemHandle, flags: u32) {
        open(out, handle, flags)
    }

    fn cuIpcCloseMemHandle(at: DevicePtr) {
        close(at)
    }
}
