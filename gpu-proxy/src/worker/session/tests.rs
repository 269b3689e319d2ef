//! The gates of a session, over the null device. Graphs: `tests/graph.rs`.

mod graph;

mod array;

use std::sync::{Arc, Mutex};

use vgpu_api::launch::{LaunchAttributes, LaunchShape};
use vgpu_api::loopback::Loopback;
use vgpu_api::memory::Memset;
use vgpu_api::{
    ContextId, CuError, DevicePtr, EventHandle, FunctionHandle, GoneHandle, GraphExecHandle, ImageHandle,
    ImageKind, Launch, NewHandle, Snapshot, Staged, Stream, StreamHandle, ask,
};

use super::Session;
use crate::device::{Costs, Null, cubin};
use crate::shared_page::SharedPage;
use crate::worker::quota::{Grant, Quota};
use crate::worker::staging::Staging;

const C: ContextId = ContextId::primary(0);

/// Staging in the test's own memory.
#[derive(Clone)]
struct Heap(Arc<Mutex<Vec<u8>>>);

impl Staging for Heap {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.lock().unwrap()[offset..offset + into.len()]);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.lock().unwrap()[offset..offset + from.len()].copy_from_slice(from);
    }
}

struct World {
    guest: Loopback<Session>,
    staging: Heap,
    grant: Grant,
}

/// A process with a grant of 1 MiB, 64 KiB of staging, and its primary context.
fn world() -> World {
    world_with(Null::default())
}

fn world_with(device: Null) -> World {
    world_of(Box::new(device))
}

fn world_of(device: Box<dyn crate::device::Device>) -> World {
    let page = SharedPage::create().unwrap();
    let quota = Quota::new(SharedPage::map(page.fd()).unwrap(), 3).unwrap();
    let grant = Grant::new(Arc::new(page), 1 << 20);
    let staging = Heap(Arc::new(Mutex::new(vec![0; 64 << 10])));
    let session = Session::new(device, quota, Box::new(staging.clone()));
    let world = World { guest: Loopback::new(session), staging, grant };
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    world
}

impl World {
    fn used_bytes(&self) -> u64 {
        self.grant.used_bytes(3)
    }
}

#[test]
fn the_snapshot_shows_the_grant_and_not_the_device() {
    let world = world();
    let len = ask::vgpuSnapshot(&world.guest, ContextId::NONE, Staged { offset: 0, len: 64 << 10 }).unwrap();
    let bytes = world.staging.0.lock().unwrap()[..usize::try_from(len).unwrap()].to_vec();
    assert_eq!(Snapshot::parse(&bytes).unwrap().devices[0].total_memory, 1 << 20);
}

#[test]
fn beyond_the_grant_is_exactly_two_and_nothing_is_lost() {
    let world = world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, (1 << 20) - 512).unwrap();
    assert_eq!(ask::cuMemAlloc_v2(&world.guest, C, 513), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(ask::cuMemAlloc_v2(&world.guest, C, u64::MAX), Err(CuError::OUT_OF_MEMORY));
    let info = ask::cuMemGetInfo_v2(&world.guest, C).unwrap();
    assert_eq!((info.free, info.total), (512, 1 << 20));
    ask::cuMemFree_v2(&world.guest, C, at).unwrap();
    assert_eq!(world.used_bytes(), 0);
    assert_eq!(ask::cuMemGetInfo_v2(&world.guest, C).unwrap().free, 1 << 20);
}

#[test]
fn no_more_memory_is_shown_than_the_device_has() {
    let world = world_with(Null::with_memory(1000));
    let info = ask::cuMemGetInfo_v2(&world.guest, C).unwrap();
    assert_eq!((info.free, info.total), (1000, 1000));
}

#[test]
fn an_address_outside_the_allocation_map_never_reaches_the_device() {
    let world = world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let staged = |len| Staged { offset: 0, len };
    let own_stack = DevicePtr(std::ptr::from_ref(&world) as u64);
    for (address, bytes) in [(own_stack, 8), (at, 4097), (at.offset(4096).unwrap(), 1), (DevicePtr(0), 1)] {
        let read = ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged(bytes), address, Stream::Legacy);
        assert_eq!(read, Err(CuError::INVALID_VALUE), "{bytes} at {address:?}");
        let write = ask::vgpuMemcpyHtoDStaged(&world.guest, C, address, staged(bytes), Stream::Legacy);
        assert_eq!(write, Err(CuError::INVALID_VALUE));
        ask::cuMemcpyDtoDAsync_v2(&world.guest, C, at, address, bytes, Stream::Legacy).unwrap();
        assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));
    }
    assert_eq!(ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged(4096), at, Stream::Legacy), Ok(()));
}

#[test]
fn staging_past_its_end_is_refused() {
    let world = world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 128 << 10).unwrap();
    for staged in [Staged { offset: 0, len: (64 << 10) + 1 }, Staged { offset: u64::MAX, len: 2 }] {
        let result = ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged, at, Stream::Legacy);
        assert_eq!(result, Err(CuError::INVALID_VALUE));
    }
}

#[test]
fn a_memset_is_checked_from_its_first_to_its_last_byte() {
    let world = world();
    let dst = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let good = Memset { dst, pitch: 1024, element_bytes: 4, value: 1, width: 256, rows: 4 };
    let at = |offset| dst.offset(offset).unwrap();
    for (memset, fits) in [
        (good, true),
        (Memset { dst: at(4), ..good }, false),
        (Memset { dst: at(1), width: 1, rows: 1, ..good }, false),
        (Memset { pitch: 1020, ..good }, false),
        (Memset { pitch: u64::MAX, ..good }, false),
        (Memset { width: u64::MAX, rows: 1, ..good }, false),
        (Memset { element_bytes: 3, ..good }, false),
        (Memset { rows: 0, ..good }, true),
        (Memset { pitch: 0, width: 1024, rows: 1, ..good }, true),
    ] {
        ask::vgpuMemset(&world.guest, C, memset, Stream::Legacy).unwrap();
        assert_eq!(world.guest.take_error().is_none(), fits, "{memset:?}");
    }
}

#[test]
fn handles_of_another_generation_kind_or_context_give_400_or_201() {
    let world = world();
    let (old, new) = (StreamHandle::new(1, 0), StreamHandle::new(2, 0));
    ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(old), 0, 0).unwrap();
    ask::cuStreamDestroy_v2(&world.guest, C, GoneHandle(old)).unwrap();
    ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(new), 0, 0).unwrap();
    assert_eq!(world.guest.take_error(), None);
    assert_eq!(ask::cuStreamQuery(&world.guest, C, Stream::Made(old)), Err(CuError::INVALID_HANDLE));
    assert_eq!(ask::cuStreamQuery(&world.guest, C, Stream::Made(new)), Ok(()));
    assert_eq!(ask::cuEventQuery(&world.guest, C, EventHandle::new(2, 0)), Err(CuError::INVALID_HANDLE));
    assert_eq!(ask::cuCtxSynchronize(&world.guest, ContextId(70)), Err(CuError::INVALID_CONTEXT));
    assert_eq!(ask::cuCtxSynchronize(&world.guest, ContextId::NONE), Err(CuError::INVALID_CONTEXT));
}

#[test]
fn a_context_takes_what_lives_in_it_along() {
    let world = world();
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
    let stream = StreamHandle::new(0, 0);
    ask::cuStreamCreateWithPriority(&world.guest, made, NewHandle(stream), 0, 0).unwrap();
    let mine = ask::cuMemAlloc_v2(&world.guest, made, 4096).unwrap();
    let other = ask::cuMemAlloc_v2(&world.guest, C, 512).unwrap();
    ask::cuCtxDestroy_v2(&world.guest, C, made).unwrap();
    assert_eq!(world.used_bytes(), 512);
    assert_eq!(ask::cuStreamQuery(&world.guest, C, Stream::Made(stream)), Err(CuError::INVALID_HANDLE));
    let staged = Staged { offset: 0, len: 1 };
    assert!(ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged, mine, Stream::Legacy).is_err());
    assert!(ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged, other, Stream::Legacy).is_ok());
}

#[test]
fn an_upload_is_believed_by_what_arrived() {
    let world = world();
    let image = NewHandle(ImageHandle::new(0, 0));
    let out = Staged { offset: 0, len: 4096 };
    let load = || ask::vgpuImageLoad(&world.guest, C, image, ImageKind::Module, 1, out);
    assert_eq!(load(), Err(CuError::INVALID_VALUE));
    ask::vgpuUpload(&world.guest, C, 1, u64::MAX, 0, b"abc").unwrap();
    assert_eq!(load(), Err(CuError::INVALID_IMAGE));
    ask::vgpuUpload(&world.guest, C, 1, 6, 0, b"abc").unwrap();
    ask::vgpuUpload(&world.guest, C, 1, 6, 4, b"abc").unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));
    ask::vgpuUpload(&world.guest, C, 1, 6, 3, b"abcd").unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));
    ask::vgpuUpload(&world.guest, C, 1, 6, 3, b"abc").unwrap();
    assert!(load().is_ok());
}

/// Every way to use up device memory that is no allocation: without these counts a guest takes many times its grant.
#[test]
fn contexts_and_limits_count_against_the_grant() {
    let costs = Costs { context_bytes: 300 << 10, resident_threads: 64, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 0));
    assert_eq!(world.used_bytes(), 0, "the first context is the worker's own");
    let context = |number: u32| ContextId(100 + number);
    for number in 0..3 {
        ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, context(number), 0, 0).unwrap();
    }
    let refused = ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, context(3), 0, 0);
    assert_eq!(refused, Err(CuError::OUT_OF_MEMORY));
    for number in 0..3 {
        ask::cuCtxDestroy_v2(&world.guest, ContextId::NONE, context(number)).unwrap();
    }
    assert_eq!(world.used_bytes(), 0);

    let (stack_limit, heap_limit) = (0, 2);
    let set = |limit, value| ask::cuCtxSetLimit(&world.guest, C, limit, value);
    let stack = ask::cuCtxGetLimit(&world.guest, C, stack_limit).unwrap();
    set(stack_limit, stack + 1024).unwrap();
    assert_eq!(world.used_bytes(), 1024 * 64);
    assert_eq!(set(stack_limit, u64::MAX), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(set(heap_limit, 1 << 40), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(world.used_bytes(), 1024 * 64);
    set(stack_limit, stack).unwrap();
    assert_eq!(world.used_bytes(), 0);
}

/// Loads a kernel and launches it twice.
fn launch_in(world: &World) {
    let ptx = b".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k() { ret; }";
    ask::vgpuUpload(&world.guest, C, 1, ptx.len() as u64, 0, ptx).unwrap();
    let (image, out) = (ImageHandle::new(0, 0), Staged { offset: 0, len: 4096 });
    ask::vgpuImageLoad(&world.guest, C, NewHandle(image), ImageKind::Module, 1, out).unwrap();
    let function = FunctionHandle::of_image(image, 0);
    let shape =
        LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &[] };
    for _ in 0..2 {
        ask::cuLaunchKernel(&world.guest, C, launch.clone()).unwrap();
    }
}

/// A limit that is lowered gives back what raising it took, and nothing that was counted for something else.
#[test]
fn a_lowered_limit_gives_back_no_more_than_it_took() {
    let costs = Costs { context_bytes: 0, resident_threads: 64, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 2048));
    let local_bytes = 1024 * 64;
    launch_in(&world);
    assert_eq!((world.guest.take_error(), world.used_bytes()), (None, local_bytes));
    for limit in [0, 2] {
        let start = ask::cuCtxGetLimit(&world.guest, C, limit).unwrap();
        ask::cuCtxSetLimit(&world.guest, C, limit, 0).unwrap();
        assert_eq!(world.used_bytes(), local_bytes, "the start of limit {limit} was never counted");
        ask::cuCtxSetLimit(&world.guest, C, limit, start).unwrap();
        assert_eq!(world.used_bytes(), local_bytes, "limit {limit} is what it was");
        ask::cuCtxSetLimit(&world.guest, C, limit, start + 512).unwrap();
        assert!(world.used_bytes() > local_bytes, "limit {limit}");
        ask::cuCtxSetLimit(&world.guest, C, limit, start).unwrap();
        assert_eq!(world.used_bytes(), local_bytes);
    }
}

/// Else a reset in a loop takes any amount of the device: the primary context of `cuda` is not made anew.
#[test]
fn what_a_device_keeps_of_an_ended_primary_context_goes_on_counting() {
    let costs = Costs { context_bytes: 0, resident_threads: 64, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 2048).keeping_primary());
    let stack = ask::cuCtxGetLimit(&world.guest, C, 0).unwrap();
    launch_in(&world);
    ask::cuCtxSetLimit(&world.guest, C, 0, stack + 1024).unwrap();
    assert_eq!(world.used_bytes(), 2 * 1024 * 64);
    for _ in 0..3 {
        ask::cuMemAlloc_v2(&world.guest, C, 512).unwrap();
        ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0).unwrap();
        assert_eq!(world.used_bytes(), 2 * 1024 * 64, "while nobody has it");
        ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
        ask::cuCtxSetLimit(&world.guest, C, 0, stack + 1024).unwrap();
        launch_in(&world);
        assert_eq!(world.guest.take_error(), None);
        assert_eq!(world.used_bytes(), 2 * 1024 * 64, "as often as it is taken");
    }
    ask::cuCtxSetLimit(&world.guest, C, 0, stack).unwrap();
    assert_eq!(world.used_bytes(), 1024 * 64);
}

#[test]
fn the_local_memory_of_kernels_counts_once_for_all_threads() {
    let launch = |local_bytes| {
        let costs = Costs { context_bytes: 0, resident_threads: 64, ..Costs::default() };
        let world = world_with(Null::with_costs(costs, local_bytes));
        launch_in(&world);
        (world.guest.take_error(), world.used_bytes())
    };
    assert_eq!(launch(100), (None, 0), "as much as the stack that is there anyhow");
    assert_eq!(launch(2048), (None, 1024 * 64));
    assert_eq!(launch(1 << 20), (Some(CuError::OUT_OF_MEMORY), 0));
}

/// A cubin of a few hundred bytes may stand for any amount of device memory.
#[test]
fn variables_of_machine_code_count_before_they_are_loaded() {
    let world = world();
    let load = |number: u32, table_bytes| {
        let image = cubin(table_bytes);
        ask::vgpuUpload(&world.guest, C, number, image.len() as u64, 0, &image).unwrap();
        let (image, out) = (NewHandle(ImageHandle::new(0, number.into())), Staged { offset: 0, len: 4096 });
        ask::vgpuImageLoad(&world.guest, C, image, ImageKind::Module, number, out)
    };
    load(1, 100_000).unwrap();
    assert_eq!(world.used_bytes(), (100_000_u64 + 256).next_multiple_of(512));
    for table_bytes in [1 << 20, 10 << 30, u64::MAX] {
        assert_eq!(load(2, table_bytes), Err(CuError::OUT_OF_MEMORY));
    }
    ask::vgpuImageUnload(&world.guest, C, GoneHandle(ImageHandle::new(0, 1))).unwrap();
    assert_eq!(world.used_bytes(), 0);
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }

    fn of(&mut self, values: &[u64]) -> u64 {
        values[usize::try_from(self.next()).unwrap() % values.len()]
    }

    /// Numbers that mean something to a session, of the widths that calls have.
    fn payload(&mut self, interesting: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.next() % 9 {
            let value = if self.next().is_multiple_of(4) { self.next() } else { self.of(interesting) };
            let width = usize::try_from(self.of(&[1, 4, 4, 8, 8, 8])).unwrap();
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        bytes
    }
}

/// Whatever a guest's root writes into the ring: an answer or the end of its channel, never a panic.
#[test]
fn any_bytes_for_any_call_are_an_answer_or_an_end() {
    let devices: [fn() -> Box<dyn crate::device::Device>; 2] = [
        || {
            Box::new(Null::with_costs(
                Costs { context_bytes: 1000, resident_threads: 64, ..Costs::default() },
                2048,
            ))
        },
        || Box::new(crate::device::Soft::new(1 << 20).unwrap()),
    ];
    for (seed, device) in (1..).zip(devices) {
        let page = SharedPage::create().unwrap();
        let quota = Quota::new(SharedPage::map(page.fd()).unwrap(), 3).unwrap();
        let _grant = Grant::new(Arc::new(page), 1 << 20);
        let staging = Heap(Arc::new(Mutex::new(vec![0; 64 << 10])));
        let mut session = Session::new(device(), quota, Box::new(staging));
        let mut reply = [0; vgpu_api::wire::REPLY_BYTES_MAX];
        let mut call = |op: u16, context: ContextId, payload: &[u8]| {
            let call = vgpu_api::Call { context, sync: true };
            vgpu_api::dispatch(&mut session, op, call, payload, &mut reply)
                .map(|answer| (answer.code, reply[..answer.reply_bytes].to_vec()))
        };
        let op = |op: vgpu_api::Op| op as u16;
        call(op(vgpu_api::Op::cuDevicePrimaryCtxRetain), ContextId::NONE, &[0; 8]).unwrap();
        let (_, at) = call(op(vgpu_api::Op::cuMemAlloc_v2), C, &4096_u64.to_le_bytes()).unwrap();
        let at = u64::from_le_bytes(at.try_into().unwrap());
        let handles = [
            StreamHandle::new(0, 0).raw(),
            EventHandle::new(0, 0).raw(),
            ImageHandle::new(0, 0).raw(),
            GraphExecHandle::new(0, 0).raw(),
        ];
        let numbers =
            [0, 1, 2, 4, 8, 4096, 65536, at, at + 4095, u64::from(u32::MAX), u64::MAX, u64::MAX - 7];
        let interesting = [&handles[..], &numbers[..]].concat();
        let mut random = Random(seed);
        let mut answered = std::collections::BTreeSet::new();
        for _ in 0..200_000 {
            let number = u16::try_from(random.next() % vgpu_api::Op::ALL.len() as u64).unwrap();
            let context = ContextId(u32::try_from(random.of(&[0, 1, 1, 1, 100, 0xffff_ffff])).unwrap());
            let payload = random.payload(&interesting);
            if call(number, context, &payload).is_ok() {
                answered.insert(number);
            }
        }
        // Or the bytes were never what a call takes, and nothing was tried. Those of arrays are long: `array.rs` tries them.
        let short = vgpu_api::Op::ALL.len() - 14;
        assert!(answered.len() * 4 > short * 3, "{} calls", answered.len());
    }
}
