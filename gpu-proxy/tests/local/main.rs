//! Whole lives over the local socket: a real supervisor, real sandboxed workers, the software GPU.

#[path = "../common/mod.rs"]
mod common;
mod deaths;
mod refusals;
mod sandbox;
mod shim;

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use common::{C, Guest, Proxy, SECOND, children, until};
use idm::arena::{SINCE_MINOR, WINDOW};
use idm::hello::Hello;
use idm::record::RECORD_LIMIT_MAX;
use vgpu_api::memory::Memset;
use vgpu_api::{ContextId, CuError, DevicePtr, Staged, Stream, WIRE_HASH, ask};

const MIB: u64 = 1 << 20;

/// Writes through staging and reads back what the device has.
fn round_trip(guest: &Guest, at: DevicePtr, bytes: &[u8]) -> Vec<u8> {
    let staged = |offset: u32| Staged { offset: offset.into(), len: bytes.len() as u64 };
    let there = guest.channel.stage(bytes.len(), None).unwrap();
    there.write(0, bytes);
    ask::vgpuMemcpyHtoDStaged(guest, C, at, staged(there.offset()), Stream::Legacy).unwrap();
    let back = guest.channel.stage(bytes.len(), None).unwrap();
    ask::vgpuMemcpyDtoHStaged(guest, C, staged(back.offset()), at, Stream::Legacy).unwrap();
    let mut read = vec![0; bytes.len()];
    back.read(0, &mut read);
    read
}

#[test]
fn device_memory_keeps_what_is_written_and_is_counted() {
    let proxy = Proxy::start("soft");
    let guest = proxy.guest();
    let at = ask::cuMemAlloc_v2(&guest, C, 3 * MIB).unwrap();
    let bytes: Vec<u8> = (0..3 * MIB).map(|index| (index % 251) as u8).collect();
    assert_eq!(round_trip(&guest, at, &bytes), bytes);
    let memset = Memset { dst: at, pitch: 0, element_bytes: 4, value: 0x0102_0304, width: 4, rows: 1 };
    ask::vgpuMemset(&guest, C, memset, Stream::Legacy).unwrap();
    assert_eq!(round_trip(&guest, at.offset(16).unwrap(), &[7]), [7]);

    assert_eq!(proxy.device_bytes(), 3 * MIB);
    let worker = &proxy.workers()[0];
    assert_eq!((worker.guest_pid, worker.device_bytes), (std::process::id(), 3 * MIB));
    drop(guest);
    until("the memory is free", || proxy.device_bytes() == 0);
    proxy.stop();
}

/// A process's pinned memory, as its worker sees it: the same pages at the addresses of the window.
#[test]
fn a_worker_reaches_the_arena_of_its_process_and_of_no_other() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let pages = |guest: &Guest| guest.arena.as_ref().expect("the proxy gives one").map_elsewhere().unwrap();
    let (mine, others) = (pages(&one), pages(&two));
    let at = DevicePtr(WINDOW as u64 + MIB);
    let on_device = ask::cuMemAlloc_v2(&one, C, MIB).unwrap();
    for guest in [&one, &two] {
        ask::vgpuArenaAdd(guest, ContextId::NONE, at, MIB).unwrap();
    }
    let offset = usize::try_from(MIB).unwrap();
    mine.write(offset, b"there");
    others.write(offset, b"other");
    ask::cuMemcpyAsync(&one, C, on_device, at, 5, Stream::Legacy).unwrap();
    ask::cuMemcpyAsync(&one, C, at.offset(9).unwrap(), on_device, 5, Stream::Legacy).unwrap();
    ask::cuStreamSynchronize(&one, C, Stream::Legacy).unwrap();
    let mut seen = [0; 5];
    mine.read(offset + 9, &mut seen);
    assert_eq!(&seen, b"there");
    others.read(offset + 9, &mut seen);
    assert_eq!(seen, [0; 5]);
    // Host memory is no part of a grant, and its descriptor does not stay with the worker.
    assert_eq!(proxy.device_bytes(), MIB);
    ask::vgpuArenaRemove(&one, ContextId::NONE, at).unwrap();
    assert_eq!(ask::vgpuArenaRemove(&one, ContextId::NONE, at), Err(CuError::INVALID_VALUE));
    for worker in proxy.workers() {
        let links = fs::read_dir(format!("/proc/{}/fd", worker.pid)).unwrap().flatten();
        let memory = |path: PathBuf| path.to_string_lossy().contains("vgpu-arena");
        assert!(!links.filter_map(|link| fs::read_link(link.path()).ok()).any(memory));
    }
    proxy.stop();
}

#[test]
fn no_arena_goes_to_a_program_that_knows_none_nor_where_the_configuration_has_none() {
    let proxy = Proxy::start("null");
    let hello = Hello { minor: SINCE_MINOR - 1, ..Hello::new(RECORD_LIMIT_MAX, WIRE_HASH) };
    let old = idm::connect::connect(&proxy.socket(), &hello, 20 * SECOND).unwrap();
    assert!(old.arena.is_none());
    drop(old);
    assert_eq!(proxy.guest().arena.unwrap().bytes(), 16 << 30);
    proxy.stop();

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[proxy]\narena_max_mib = 0\n").unwrap();
    let proxy = Proxy::start_with("null", &["--config", file.path().to_str().unwrap()]);
    let guest = proxy.guest();
    assert!(guest.arena.is_none());
    let at = DevicePtr(WINDOW as u64);
    assert_eq!(ask::vgpuArenaAdd(&guest, ContextId::NONE, at, MIB), Err(CuError::NOT_SUPPORTED));
    drop(guest);
    proxy.stop();
}

#[test]
fn beyond_the_grant_every_process_of_a_container_gets_two() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    ask::cuMemAlloc_v2(&one, C, 40 * MIB).unwrap();
    assert_eq!(ask::cuMemAlloc_v2(&two, C, 40 * MIB), Err(CuError::OUT_OF_MEMORY));
    ask::cuMemAlloc_v2(&two, C, 24 * MIB).unwrap();
    assert_eq!(ask::cuMemAlloc_v2(&two, C, 1), Err(CuError::OUT_OF_MEMORY));
    drop(one);
    until("the first one's memory is free", || proxy.device_bytes() == 24 * MIB);
    ask::cuMemAlloc_v2(&two, C, 40 * MIB).unwrap();
    proxy.stop();
}

#[test]
fn a_question_is_answered_without_a_worker_and_with_what_cuda_says() {
    let proxy = Proxy::start("soft");
    let facts = proxy.facts().unwrap();
    assert!(proxy.workers().is_empty() && facts.processes.is_empty());
    let device = &facts.devices[0];
    assert_eq!((facts.devices.len(), device.total_bytes, device.used_bytes), (1, 64 * MIB, 0));

    let (one, two) = (proxy.guest(), proxy.guest());
    let snapshot = {
        let room = one.channel.stage(64 << 10, None).unwrap();
        let staged = Staged { offset: room.offset().into(), len: 64 << 10 };
        let length = ask::vgpuSnapshot(&one, ContextId::NONE, staged).unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        room.read(0, &mut bytes);
        vgpu_api::Snapshot::parse(&bytes).unwrap()
    };
    let seen = &snapshot.devices[0];
    assert_eq!((device.name.as_str(), device.uuid), (seen.name.as_str(), seen.uuid));
    assert_eq!(device.pci.map(u32::cast_signed), [seen.pci.domain, seen.pci.bus, seen.pci.device]);
    assert_eq!(device.capability.map(i32::from), [75, 76].map(|number| seen.attribute(number).unwrap()));
    assert_eq!((facts.cuda_version, device.total_bytes), (snapshot.driver_version, seen.total_memory));

    // To the byte, at once, and by the process that uses it: both guests are this one.
    ask::cuMemAlloc_v2(&one, C, 3 * MIB).unwrap();
    let at = ask::cuMemAlloc_v2(&two, C, MIB).unwrap();
    let facts = proxy.facts().unwrap();
    let info = ask::cuMemGetInfo_v2(&two, C).unwrap();
    let device = &facts.devices[0];
    assert_eq!((device.total_bytes, device.used_bytes), (info.total, 4 * MIB));
    assert_eq!(device.total_bytes - device.used_bytes, info.free);
    let processes: Vec<_> = facts.processes.iter().map(|one| (one.pid, one.used_bytes)).collect();
    assert_eq!(processes, [(std::process::id(), 4 * MIB)]);
    ask::cuMemFree_v2(&two, C, at).unwrap();
    ask::cuMemGetInfo_v2(&two, C).unwrap();
    assert_eq!(proxy.facts().unwrap().devices[0].used_bytes, 3 * MIB);
    drop((one, two));
    until("nobody computes", || proxy.facts().unwrap().processes.is_empty());
    proxy.stop();
}

/// Two real workers, one after the other, before the door opens.
#[test]
fn the_start_finds_the_memory_clean_or_says_that_nobody_looked() {
    let proxy = Proxy::start("soft");
    let node = proxy.list().node;
    assert!(
        !node.sandbox_gaps.iter().any(|gap| gap.contains("canary") || gap.contains("not clean")),
        "{node:?}"
    );
    assert_eq!(node.warnings, Vec::<String>::new());
    assert!(proxy.workers().is_empty() && children(proxy.pid()).is_empty(), "a canary is left");
    proxy.stop();

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[proxy]\nscrub_canary = false\n").unwrap();
    let proxy = Proxy::start_with("soft", &["--config", file.path().to_str().unwrap()]);
    let warnings = proxy.list().node.warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("proxy.scrub_canary is off"), "{warnings:?}");
    proxy.stop();
}

#[test]
fn one_process_cannot_reach_what_another_has() {
    let proxy = Proxy::start("soft");
    let (one, two) = (proxy.guest(), proxy.guest());
    let secret = ask::cuMemAlloc_v2(&one, C, 4096).unwrap();
    round_trip(&one, secret, &[0xa5; 4096]);
    let chunk = two.channel.stage(4096, None).unwrap();
    let out = Staged { offset: chunk.offset().into(), len: 4096 };
    assert_eq!(ask::vgpuMemcpyDtoHStaged(&two, C, out, secret, Stream::Legacy), Err(CuError::INVALID_VALUE));
    let own = ask::cuMemAlloc_v2(&two, C, 4096).unwrap();
    ask::vgpuMemcpyDtoHStaged(&two, C, out, own, Stream::Legacy).unwrap();
    let mut seen = [0; 4096];
    chunk.read(0, &mut seen);
    assert!(!seen.contains(&0xa5));
    proxy.stop();
}

#[test]
fn a_context_of_another_process_is_none_of_ours() {
    let proxy = Proxy::start("null");
    let (one, two) = (proxy.guest(), proxy.guest());
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&one, ContextId::NONE, made, 0, 0).unwrap();
    assert_eq!(ask::cuCtxSynchronize(&one, made), Ok(()));
    assert_eq!(ask::cuCtxSynchronize(&two, made), Err(CuError::INVALID_CONTEXT));
    proxy.stop();
}
