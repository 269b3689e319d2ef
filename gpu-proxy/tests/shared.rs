//! Memory between processes, each with its worker behind its own door, through a real supervisor.

mod common;

use common::{C, Guest, Proxy, until};
use vgpu_api::{
    Access, ContextId, CuError, CuResult, DevicePtr, GoneHandle, MemoryHandle, NewHandle, PoolHandle,
    SharedPart, Staged, Stream, ask,
};

const PIECE: u64 = 2 << 20;
const WRONG: Option<CuError> = Some(CuError::INVALID_VALUE);

fn memory(number: u64) -> MemoryHandle {
    MemoryHandle::new(0, number)
}

/// An allocation that begins with `text`, and what others know it by.
fn given(guest: &Guest, bytes: u64, text: &[u8]) -> (DevicePtr, SharedPart) {
    let at = ask::cuMemAlloc_v2(guest, C, bytes).unwrap();
    ask::cuMemcpyHtoDAsync_v2(guest, C, at, text, Stream::Legacy).unwrap();
    (at, ask::vgpuIpcExport(guest, C, at).unwrap())
}

fn text(guest: &Guest, at: DevicePtr) -> CuResult<[u8; 4]> {
    let staging = guest.channel.stage(4, None).unwrap();
    let to = Staged { offset: staging.offset().into(), len: 4 };
    ask::vgpuMemcpyDtoHStaged(guest, C, to, at, Stream::Legacy)?;
    let mut text = [0; 4];
    staging.read(0, &mut text);
    Ok(text)
}

#[test]
fn what_one_process_has_written_another_reads_and_the_makers_death_leaves_it_to_who_opened_it() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let (at, part) = given(&one, PIECE, b"gift");
    let there = ask::vgpuIpcOpen(&two, C, part).unwrap();
    assert_eq!(text(&two, there), Ok(*b"gift"));
    ask::cuMemcpyHtoDAsync_v2(&two, C, there, b"back", Stream::Legacy).unwrap();
    ask::cuCtxSynchronize(&two, C).unwrap();
    assert_eq!((text(&one, at), proxy.device_bytes()), (Ok(*b"back"), PIECE));

    drop(one);
    until("its worker has ended", || proxy.workers().len() == 1);
    assert_eq!((text(&two, there), proxy.device_bytes()), (Ok(*b"back"), PIECE), "it counts once");
    assert_eq!(ask::vgpuIpcOpen(&two, C, part).err(), WRONG);
    ask::vgpuIpcClose(&two, C, there).unwrap();
    assert_eq!((text(&two, there).err(), proxy.device_bytes()), (WRONG, 0));
    drop(two);
    until("all have ended", || proxy.workers().is_empty());
    proxy.stop();
}

#[test]
fn memory_without_an_address_is_mapped_by_both() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let show = |guest: &Guest, number| {
        let at = ask::cuMemAddressReserve(guest, C, 2 * PIECE, 0, DevicePtr(0)).unwrap();
        ask::cuMemMap(guest, C, at, 2 * PIECE, memory(number)).unwrap();
        ask::cuMemSetAccess(guest, C, at, 2 * PIECE, 0, Access::ReadWrite).unwrap();
        at
    };
    ask::cuMemCreate(&one, C, NewHandle(memory(1)), 2 * PIECE, 0).unwrap();
    let token = ask::vgpuMemoryExport(&one, C, memory(1)).unwrap();
    assert_eq!(ask::vgpuMemoryImport(&two, C, NewHandle(memory(5)), 0, token), Ok(2 * PIECE));
    let (here, there) = (show(&one, 1), show(&two, 5));
    let last = 2 * PIECE - 4;
    ask::cuMemcpyHtoDAsync_v2(&two, C, DevicePtr(there.0 + last), b"last", Stream::Legacy).unwrap();
    ask::cuCtxSynchronize(&two, C).unwrap();
    assert_eq!((text(&one, DevicePtr(here.0 + last)), proxy.device_bytes()), (Ok(*b"last"), 2 * PIECE));
    ask::cuMemRelease(&two, C, GoneHandle(memory(5))).unwrap();
    assert_eq!(text(&two, DevicePtr(there.0 + last)), Ok(*b"last"));
}

#[test]
fn what_one_process_has_of_a_pool_another_has_too_and_its_makers_death_leaves_it() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let pool = |number| PoolHandle::new(0, number);
    ask::cuMemPoolCreate(&one, C, NewHandle(pool(0)), 0, 0, true).unwrap();
    let token = ask::vgpuPoolExport(&one, C, pool(0)).unwrap();
    let at = ask::cuMemAllocFromPoolAsync(&one, C, 3000, pool(0), Stream::Legacy).unwrap();
    ask::cuMemcpyHtoDAsync_v2(&one, C, at, b"gift", Stream::Legacy).unwrap();
    let piece = ask::cuMemPoolExportPointer(&one, C, at).unwrap();
    assert_eq!(ask::vgpuPoolImport(&two, C, NewHandle(pool(4)), token), Ok(0));
    let there = ask::cuMemPoolImportPointer(&two, C, pool(4), piece).unwrap();
    assert_eq!((text(&two, there), proxy.device_bytes()), (Ok(*b"gift"), PIECE));
    let refused = ask::cuMemAllocFromPoolAsync(&two, C, 64, pool(4), Stream::Legacy);
    assert_eq!(refused.err(), WRONG);

    drop(one);
    until("its worker has ended", || proxy.workers().len() == 1);
    assert_eq!((text(&two, there), proxy.device_bytes()), (Ok(*b"gift"), PIECE), "it counts once");
    assert_eq!(ask::vgpuPoolImport(&two, C, NewHandle(pool(5)), token).err(), WRONG);
    ask::cuMemFreeAsync(&two, C, there, Stream::Legacy).unwrap();
    assert_eq!((text(&two, there).err(), proxy.device_bytes()), (WRONG, 0));
    drop(two);
    until("all have ended", || proxy.workers().is_empty());
    proxy.stop();
}

#[test]
fn workers_with_several_devices_share_memory_of_each() {
    let proxy = Proxy::start_with("soft", &["--devices", "2"]);
    let (one, two) = (proxy.guest(), proxy.guest());
    let second = ContextId::primary(1);
    for guest in [&one, &two] {
        ask::cuDevicePrimaryCtxRetain(guest, ContextId::NONE, 1, 0).unwrap();
    }
    let at = ask::cuMemAlloc_v2(&one, second, PIECE).unwrap();
    ask::cuMemcpyHtoDAsync_v2(&one, second, at, b"gift", Stream::Legacy).unwrap();
    let part = ask::vgpuIpcExport(&one, second, at).unwrap();
    assert_eq!(ask::vgpuIpcOpen(&two, C, part), Err(CuError::INVALID_DEVICE));
    let there = ask::vgpuIpcOpen(&two, second, part).unwrap();
    assert_eq!((text(&two, there), proxy.device_bytes()), (Ok(*b"gift"), PIECE));
    drop(one);
    until("its worker has ended", || proxy.workers().len() == 1);
    assert_eq!((text(&two, there), proxy.device_bytes()), (Ok(*b"gift"), PIECE));
    proxy.stop();
}

/// Whoever shares costs the supervisor descriptors, and a worker's end gives all of them back.
#[test]
fn a_guest_that_shares_without_end_is_bounded_and_leaves_nothing() {
    const PER_ZONE_MAX: usize = gpu_proxy::supervisor::shared::PER_ZONE_MAX;
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let before = proxy.open_files();
    let mut parts = Vec::new();
    let refused = loop {
        let at = ask::cuMemAlloc_v2(&one, C, 512).unwrap();
        match ask::vgpuIpcExport(&one, C, at) {
            Ok(part) => parts.push(part),
            Err(error) => break error,
        }
    };
    assert_eq!((refused, parts.len()), (CuError::OUT_OF_MEMORY, PER_ZONE_MAX));
    // It may have one more open for a moment, whatever it looks at.
    until("each part costs one descriptor", || {
        (PER_ZONE_MAX..=before + PER_ZONE_MAX).contains(&proxy.open_files())
    });
    // Others of the pod are bounded with it, and have what is there.
    let (at, opened) = (ask::cuMemAlloc_v2(&two, C, 512).unwrap(), ask::vgpuIpcOpen(&two, C, parts[9]));
    assert_eq!(ask::vgpuIpcExport(&two, C, at), Err(CuError::OUT_OF_MEMORY));
    assert!(opened.is_ok());
    drop(one);
    until("its worker has ended", || proxy.workers().len() == 1);
    assert!(ask::vgpuIpcExport(&two, C, at).is_ok());
    drop(two);
    until("all have ended", || proxy.workers().is_empty());
    assert!(proxy.open_files() < before, "{} files, {before} before", proxy.open_files());
    proxy.stop();
}
