//! The arena of a session over the software GPU: what may be named, and what then happens to the guest's bytes.

mod managed;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use idm::arena::{Arena, WINDOW};
use vgpu_api::graph::{Body, CopyBox, GraphNode, GraphWork, HostSide};
use vgpu_api::launch::{LaunchAttributes, LaunchShape};
use vgpu_api::loopback::Loopback;
use vgpu_api::memory::Memset;
use vgpu_api::snapshot::CAN_MAP_HOST_MEMORY;
use vgpu_api::wire::to_vec;
use vgpu_api::{
    Access, CopyWord, FunctionHandle, GraphExecHandle, ImageHandle, ImageKind, Launch, MemoryHandle,
    MemoryOp, MemoryOpKind, NewHandle, Snapshot, Staged, Stream, StreamHandle, ask,
};

use super::*;
use crate::device::{Device, Null, Soft};
use crate::shared_page::SharedPage;
use crate::worker::quota::{Grant, Quota};
use crate::worker::session::tests::{Heap, begin_function, end_function};
use crate::worker::staging::Staging;

const C: ContextId = ContextId::primary(0);
const BYTES: u64 = 1 << 20;
const PAGE: u64 = PAGE_BYTES;

struct World {
    guest: Loopback<Session>,
    /// The guest's own view of its pages.
    pages: idm::Region,
    staging: Heap,
    _grant: Grant,
}

fn world(device: Box<dyn Device>, with_arena: bool) -> World {
    let page = SharedPage::create().unwrap();
    let quota = Quota::new(SharedPage::map(page.fd()).unwrap(), 0).unwrap();
    let grant = Grant::new(Arc::new(page), 2 << 20);
    let staging = Heap::new(64 << 10);
    let arena = Arena::make(BYTES).unwrap();
    let pages = arena.map_elsewhere().unwrap();
    let theirs = with_arena.then(|| arena.map_elsewhere().unwrap());
    let session = Session::new(device, quota, Box::new(staging.clone())).with_arena(theirs);
    let guest = Loopback::new(session);
    ask::cuDevicePrimaryCtxRetain(&guest, ContextId::NONE, 0, 0).unwrap();
    World { guest, pages, staging, _grant: grant }
}

fn soft() -> World {
    world(Box::new(Soft::new(1 << 20).unwrap()), true)
}

/// The address of a byte of the arena.
fn at(offset: u64) -> DevicePtr {
    DevicePtr(WINDOW as u64 + offset)
}

impl World {
    fn add(&self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        ask::vgpuArenaAdd(&self.guest, ContextId::NONE, at, bytes)
    }

    fn remove(&self, at: DevicePtr) -> CuResult<()> {
        ask::vgpuArenaRemove(&self.guest, ContextId::NONE, at)
    }

    /// A queued copy, and what became of it.
    fn copy(&self, dst: DevicePtr, src: DevicePtr, bytes: u64) -> CuResult<()> {
        ask::cuMemcpyAsync(&self.guest, C, dst, src, bytes, Stream::Legacy).unwrap();
        self.guest.take_error().map_or(Ok(()), Err)
    }

    fn read(&self, offset: usize, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.pages.read(offset, &mut read);
        read
    }

    fn can_map(&self) -> i32 {
        let out = Staged { offset: 0, len: 64 << 10 };
        let len = ask::vgpuSnapshot(&self.guest, ContextId::NONE, out).unwrap();
        let bytes = self.staging.bytes(usize::try_from(len).unwrap());
        Snapshot::parse(&bytes).unwrap().devices[0].attributes[CAN_MAP_HOST_MEMORY]
    }
}

#[test]
fn only_whole_pages_inside_the_window_that_nobody_named_yet_are_taken() {
    let world = soft();
    let own = std::ptr::from_ref(&world) as u64 & !(PAGE - 1);
    let on_device = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    world.add(at(8 * PAGE), 4 * PAGE).unwrap();
    for (address, bytes) in [
        (at(0), 0),
        (at(0), 1),
        (at(0), PAGE + 1),
        (at(1), PAGE),
        (at(0), BYTES + PAGE),
        (at(BYTES), PAGE),
        (at(BYTES - PAGE), 2 * PAGE),
        (at(0), !(PAGE - 1)),
        (DevicePtr(WINDOW as u64 - PAGE), PAGE),
        (DevicePtr(WINDOW as u64 - PAGE), 2 * PAGE),
        (DevicePtr(0), PAGE),
        (DevicePtr(!(PAGE - 1)), PAGE),
        // What is there already, wholly or in part.
        (at(8 * PAGE), 4 * PAGE),
        (at(11 * PAGE), PAGE),
        (at(7 * PAGE), 2 * PAGE),
        (at(0), BYTES),
        // The worker's own memory, and the device's.
        (DevicePtr(own), PAGE),
        (DevicePtr(on_device.0 & !(PAGE - 1)), PAGE),
    ] {
        assert_eq!(world.add(address, bytes), Err(CuError::INVALID_VALUE), "{bytes:#x} at {address:x?}");
    }
    for address in [at(0), at(9 * PAGE), on_device, DevicePtr(own), DevicePtr(u64::MAX)] {
        assert_eq!(world.remove(address), Err(CuError::INVALID_VALUE), "{address:x?}");
    }
    world.add(at(0), 8 * PAGE).unwrap();
    world.add(at(12 * PAGE), BYTES - 12 * PAGE).unwrap();
    world.remove(at(8 * PAGE)).unwrap();
    assert_eq!(world.remove(at(8 * PAGE)), Err(CuError::INVALID_VALUE), "twice");
    world.add(at(8 * PAGE), PAGE).unwrap();
}

#[test]
fn there_is_an_end_to_the_number_of_parts() {
    let World { guest, .. } = world(Box::new(Null::default()), true);
    let mut session = Session { arena_parts: PARTS_MAX - 1, ..guest.into_driver() };
    assert_eq!(session.arena_add(at(0), PAGE), Ok(()));
    assert_eq!(session.arena_add(at(PAGE), PAGE), Err(CuError::OUT_OF_MEMORY));
    session.arena_remove(at(0)).unwrap();
    assert_eq!(session.arena_add(at(PAGE), PAGE), Ok(()));
}

#[test]
fn without_an_arena_nothing_is_taken_and_the_device_maps_no_host_memory() {
    let without = world(Box::new(Soft::new(1 << 20).unwrap()), false);
    assert_eq!(without.add(at(0), PAGE), Err(CuError::NOT_SUPPORTED));
    assert_eq!(without.remove(at(0)), Err(CuError::INVALID_VALUE));
    assert_eq!((without.can_map(), soft().can_map()), (0, 1));
}

#[test]
fn bytes_go_both_ways_by_their_addresses_and_not_past_a_part() {
    let world = soft();
    let on_device = ask::cuMemAlloc_v2(&world.guest, C, 3 * PAGE).unwrap();
    assert_eq!(world.copy(on_device, at(0), 16), Err(CuError::INVALID_VALUE), "not added yet");
    world.add(at(0), 2 * PAGE).unwrap();
    world.add(at(2 * PAGE), PAGE).unwrap();
    world.pages.write(100, b"to the device and back");
    world.copy(on_device, at(100), 22).unwrap();
    world.copy(at(PAGE), on_device, 22).unwrap();
    assert_eq!(world.read(4096, 22), b"to the device and back");
    world.copy(at(2 * PAGE), at(PAGE), 22).unwrap();
    assert_eq!(world.read(2 * 4096, 22), b"to the device and back");
    for (dst, src, bytes) in [
        (on_device, at(PAGE), PAGE + 1),
        (at(2 * PAGE), on_device, PAGE + 1),
        (on_device, at(3 * PAGE), 1),
        (at(BYTES), on_device, 1),
        (at(0), on_device, u64::MAX),
    ] {
        assert_eq!(world.copy(dst, src, bytes), Err(CuError::INVALID_VALUE), "{bytes:#x} of {src:x?}");
    }

    let memset = Memset { dst: at(8), pitch: 0, element_bytes: 4, value: 0x0403_0201, width: 2, rows: 1 };
    ask::vgpuMemset(&world.guest, C, memset, Stream::Legacy).unwrap();
    assert_eq!(
        (world.guest.take_error(), world.read(6, 12)),
        (None, vec![0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0])
    );
    ask::vgpuMemset(&world.guest, C, Memset { width: 2048, ..memset }, Stream::Legacy).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));

    // Nobody frees it as device memory, and what was removed is nobody's.
    ask::cuMemFree_v2(&world.guest, C, at(0)).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));
    world.remove(at(0)).unwrap();
    assert_eq!(world.copy(on_device, at(0), 1), Err(CuError::INVALID_VALUE));
    world.copy(on_device, at(2 * PAGE), 1).unwrap();
}

#[test]
fn a_kernel_reads_and_writes_it_in_place_and_faults_beside_it() {
    let world = soft();
    world.add(at(0), PAGE).unwrap();
    // Adds 1 to the word that it is given.
    let ptx = b".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p) { \
        .reg .b64 a; .reg .b32 r; ld.param.u64 a, [p]; ld.global.u32 r, [a]; add.u32 r, r, 1; \
        st.global.u32 [a], r; ret; }";
    ask::vgpuUpload(&world.guest, C, 1, ptx.len() as u64, 0, ptx).unwrap();
    let (image, out) = (ImageHandle::new(0, 0), Staged { offset: 0, len: 4096 });
    ask::vgpuImageLoad(&world.guest, C, NewHandle(image), ImageKind::Module, 1, false, out).unwrap();
    let launch = |address: DevicePtr| {
        let function = FunctionHandle::of_image(image, 0);
        let shape =
            LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
        let (attributes, params) = (LaunchAttributes::default(), &address.0.to_le_bytes()[..]);
        ask::cuLaunchKernel(&world.guest, C, Launch { shape, attributes, params }).unwrap();
        world.guest.take_error()
    };
    world.pages.write(4092, &41_u32.to_le_bytes());
    assert_eq!(launch(at(PAGE - 4)), None);
    assert_eq!(world.read(4092, 4), 42_u32.to_le_bytes());
    assert_eq!(launch(at(PAGE)), Some(CuError::ILLEGAL_ADDRESS));
    // What is sticky keeps nobody from letting go.
    assert_eq!(world.remove(at(0)), Ok(()));
}

#[test]
fn it_belongs_to_every_context_and_outlives_the_one_that_it_was_added_beside() {
    let world = soft();
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
    ask::vgpuArenaAdd(&world.guest, made, at(0), PAGE).unwrap();
    let stream = StreamHandle::new(0, 0);
    ask::cuStreamCreateWithPriority(&world.guest, made, NewHandle(stream), 0, 0).unwrap();
    let (own, other) = (
        ask::cuMemAlloc_v2(&world.guest, made, 64).unwrap(),
        ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap(),
    );
    ask::cuMemcpyAsync(&world.guest, made, own, at(0), 64, Stream::Made(stream)).unwrap();
    assert_eq!(world.guest.take_error(), None);
    ask::cuCtxDestroy_v2(&world.guest, C, made).unwrap();
    world.copy(other, at(0), 64).unwrap();
    ask::vgpuArenaSettle(&world.guest, ContextId::NONE).unwrap();
    world.remove(at(0)).unwrap();
}

/// A copy may do what both sides allow: the device's by its mapping, the host's by its part.
#[test]
fn pinned_and_mapped_memory_are_copied_into_each_other_as_far_as_each_may_be_touched() {
    const NOTHING: CuResult<()> = Err(CuError::INVALID_VALUE);
    const PIECE: u64 = 2 << 20;
    let world = world(Box::new(Soft::new(PIECE).unwrap()), true);
    let memory = MemoryHandle::new(0, 1);
    let base = ask::cuMemAddressReserve(&world.guest, C, 2 * PIECE, 0, DevicePtr(0)).unwrap();
    ask::cuMemCreate(&world.guest, C, NewHandle(memory), PIECE, 0).unwrap();
    ask::cuMemMap(&world.guest, C, base, PIECE, memory).unwrap();
    let open = |access| {
        ask::cuMemSetAccess(&world.guest, C, base, PIECE, 0, access).unwrap();
        assert_eq!(world.guest.take_error(), None);
    };
    world.add(at(0), 2 * PAGE).unwrap();
    world.pages.write(0, b"of the host");
    assert_eq!(world.copy(base, at(0), 11), NOTHING, "not opened");
    open(Access::ReadWrite);
    let last = base.offset(PIECE - 4).unwrap();
    assert_eq!((world.copy(base, at(0), 11), world.copy(last, at(0), 5)), (Ok(()), NOTHING));
    open(Access::Read);
    assert_eq!((world.copy(base, at(0), 11), world.copy(at(PAGE), base, 11)), (NOTHING, Ok(())));
    assert_eq!(world.read(4096, 11), b"of the host");
}

/// Flags in pinned memory: the host is told by the stream, and tells it.
#[test]
fn a_stream_writes_words_of_the_arena_and_waits_for_those_that_the_guest_writes() {
    let world = soft();
    world.add(at(0), PAGE).unwrap();
    let queue = |kind, at, value| {
        ask::vgpuStreamMemory(&world.guest, C, Stream::Legacy, vec![MemoryOp { kind, at, bytes: 4, value }])
            .unwrap();
        world.guest.take_error()
    };
    assert_eq!(queue(MemoryOpKind::Write, at(8), 7), None);
    assert_eq!(world.read(8, 4), [7, 0, 0, 0]);
    let pages = &world.pages;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            pages.write(16, &[9]);
        });
        assert_eq!(queue(MemoryOpKind::WaitEqual, at(16), 9), None);
    });
    assert_eq!(world.read(16, 1), [9], "it waited");
    assert_eq!(queue(MemoryOpKind::Write, at(PAGE), 7), Some(CuError::INVALID_VALUE));
}

/// A graph names it as a copy does, as long as the part is there.
#[test]
fn a_graph_copies_and_sets_it_by_its_address_until_the_part_ends() {
    let world = soft();
    let on_device = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let graph = GraphExecHandle::new(0, 0);
    let memset = Memset { dst: at(16), pitch: 0, element_bytes: 1, value: 3, width: 2, rows: 1 };
    let works = [
        GraphWork::Copy(CopyBox::line(on_device, at(0), 4), HostSide::Neither),
        GraphWork::Copy(CopyBox::line(at(8), on_device, 4), HostSide::Neither),
        GraphWork::Fill(memset),
        GraphWork::Copy(CopyBox::line(at(24), DevicePtr(0), 2), HostSide::From),
    ];
    let node = |work: &GraphWork<'static>| {
        to_vec(&GraphNode { context: C, body: Body::NONE, needs: Vec::new(), work: work.clone() })
    };
    let nodes: Vec<u8> = works.iter().flat_map(node).collect();
    let instantiate = || {
        ask::vgpuUpload(&world.guest, C, 1, nodes.len() as u64, 0, &nodes).unwrap();
        ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(graph), 1, 0)
    };
    let launch = || {
        ask::cuGraphLaunch(&world.guest, C, graph, Stream::Legacy).unwrap();
        world.guest.take_error()
    };
    assert_eq!(instantiate(), Err(CuError::INVALID_VALUE), "not added yet");
    world.add(at(0), PAGE).unwrap();
    instantiate().unwrap();
    world.staging.write(0, b"hi");
    ask::vgpuGraphHostPut(&world.guest, C, graph, 3, 0, Staged { offset: 0, len: 2 }).unwrap();
    for bytes in [b"once", b"more"] {
        world.pages.write(0, bytes);
        assert_eq!(launch(), None);
        assert_eq!(
            (world.read(8, 4), world.read(16, 2), world.read(24, 2)),
            (bytes.to_vec(), vec![3; 2], b"hi".to_vec())
        );
    }
    world.remove(at(0)).unwrap();
    assert_eq!(launch(), Some(CuError::INVALID_VALUE));
    world.add(at(0), PAGE).unwrap();
    assert_eq!(launch(), None);
}

/// The function may wait for another thread of the program, whose call comes through the same loop.
#[test]
fn letting_go_is_put_aside_while_a_function_of_the_program_is_queued() {
    let world = world(Box::new(Null::default().calling_from_a_thread()), true);
    world.add(at(0), PAGE).unwrap();
    begin_function(&world.guest);
    assert_eq!(world.remove(at(0)), Err(CuError::NOT_READY));
    let settle = || ask::vgpuArenaSettle(&world.guest, ContextId::NONE);
    assert_eq!(end_function(&world.staging, settle), Ok(()));
    assert_eq!(world.remove(at(0)), Ok(()), "once");
}

#[test]
fn a_copy_that_waits_tells_of_itself_and_waits_for_no_function_of_the_program() {
    for device in [Box::new(Soft::new(1 << 20).unwrap()) as Box<dyn Device>, Box::new(Null::default())] {
        let world = world(device, true);
        world.add(at(0), PAGE).unwrap();
        let on_device = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
        let copy = |src, bytes, stream| {
            ask::vgpuMemcpyThenWait(&world.guest, C, at(0), src, bytes, stream).map_err(CuError::code)
        };
        assert_eq!(copy(on_device, 4096, Stream::Legacy), Ok(()));
        assert_eq!(copy(on_device, 4097, Stream::Legacy), Err(1));
        assert_eq!(copy(at(PAGE), 1, Stream::Legacy), Err(1), "not added");
        assert_eq!(copy(on_device, 1, Stream::Made(StreamHandle::new(3, 0))), Err(400));
        assert_eq!(world.guest.take_error(), None, "told by its reply alone");
    }
    let world = world(Box::new(Null::default().calling_from_a_thread()), true);
    world.add(at(0), PAGE).unwrap();
    let on_device = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let copy = || ask::vgpuMemcpyThenWait(&world.guest, C, at(0), on_device, 64, Stream::Legacy);
    begin_function(&world.guest);
    assert_eq!(copy(), Err(CuError::NOT_READY), "put aside");
    assert_eq!(end_function(&world.staging, copy), Ok(()));
}

#[test]
fn a_copy_says_in_a_word_of_the_arena_that_it_is_done_or_why_it_is_not() {
    for device in [Box::new(Soft::new(1 << 20).unwrap()) as Box<dyn Device>, Box::new(Null::default())] {
        let world = world(device, true);
        world.add(at(0), 2 * PAGE).unwrap();
        let on_device = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
        let word = || world.pages.words(64, 1)[0].load(Ordering::Acquire);
        let copy = |src, bytes, stream, word, count| {
            let word = CopyWord { at: word, count };
            ask::vgpuMemcpyThenWrite(&world.guest, C, on_device, src, bytes, stream, word).unwrap();
            world.guest.take_error().map_or(0, CuError::code)
        };
        assert_eq!((copy(at(4096), 100, Stream::Legacy, at(64), 7), word()), (0, 7));
        assert_eq!((copy(at(4096), 5000, Stream::Legacy, at(64), 8), word()), (1, (1 << 32) | 8));
        let gone = Stream::Made(StreamHandle::new(3, 0));
        assert_eq!(
            (copy(at(4096), 1, gone, at(64), u32::MAX), word()),
            (400, (400 << 32) | u64::from(u32::MAX))
        );
        // What is no word of the arena that was added is not written, and there is no copy.
        for bad in [at(60), at(2 * PAGE), at(2 * PAGE - 4), on_device, DevicePtr(0), DevicePtr(u64::MAX)] {
            assert_eq!(copy(at(4096), 1, Stream::Legacy, bad, 9), 1, "{bad:?}");
        }
        assert_eq!(word() & 0xffff_ffff, u64::from(u32::MAX));
    }
}
