//! The gates of a session, over the null device. Graphs: `tests/graph.rs`.

mod graph;
mod graph_arrays;
mod graph_conditional;
mod graph_waits;

mod array;
mod devices;
mod green;
mod library;

mod pool;
mod shared;
mod shared_devices;
mod shared_event;
mod shared_pool;
mod stream_memory;
mod upload;
mod virtual_memory;

use std::sync::{Arc, Mutex};

use vgpu_api::host_function;
use vgpu_api::launch::{LaunchAttributes, LaunchShape};
use vgpu_api::loopback::Loopback;
use vgpu_api::memory::Memset;
use vgpu_api::tensor_map::form;
use vgpu_api::{
    ContextId, CuError, CuResult, DevicePtr, EventHandle, FunctionHandle, GoneHandle, GraphExecHandle,
    ImageHandle, ImageKind, JitOption, Launch, LinkerHandle, MemoryHandle, MemoryOp, MemoryOpKind, NewHandle,
    PoolHandle, Snapshot, Staged, Stream, StreamHandle, TensorSpec, ask,
};

use super::Session;
use crate::device::{Costs, Device, Null, Soft, Step, cubin, managed_cubin};
use crate::shared_page::SharedPage;
use crate::worker::host_functions::{Count, HostFunctions};
use crate::worker::quota::{Grant, Quota};
use crate::worker::staging::Staging;

const C: ContextId = ContextId::primary(0);

/// Staging in the test's own memory.
#[derive(Clone)]
pub(super) struct Heap(Arc<Mutex<Vec<u8>>>);

impl Heap {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![0; bytes])))
    }

    /// The first of them.
    pub(super) fn bytes(&self, count: usize) -> Vec<u8> {
        self.0.lock().unwrap()[..count].to_vec()
    }
}

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
    /// Nobody sleeps: a guest that waits for a word looks again and again.
    fn wake(&self) {}
}

impl Heap {
    fn word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
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
    world_of(device, 1 << 20)
}

fn world_of(device: impl Device + 'static, grant_bytes: u64) -> World {
    let page = SharedPage::create().unwrap();
    let quota = Quota::new(SharedPage::map(page.fd()).unwrap(), 3).unwrap();
    let grant = Grant::new(Arc::new(page), grant_bytes);
    let staging = Heap::new(64 << 10);
    let session = Session::new(Box::new(device), quota, Box::new(staging.clone()));
    let world = World { guest: Loopback::new(session), staging, grant };
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    world
}

/// Queues a function of the program, which runs until [`end_function`]. The mailbox is where staging begins.
pub(super) fn begin_function(guest: &Loopback<Session>) {
    let mailbox = Staged { offset: 0, len: host_function::MAILBOX_BYTES as u64 };
    ask::vgpuHostFunctions(guest, C, mailbox).unwrap();
    ask::cuLaunchHostFunc(guest, C, Stream::Legacy, 5).unwrap();
    assert_eq!(guest.take_error(), None);
}

/// What `wait` answers once the function has returned; before that it must be put aside.
pub(super) fn end_function<T>(staging: &Heap, mut wait: impl FnMut() -> CuResult<T>) -> CuResult<T> {
    let aside = Some(CuError::NOT_READY);
    assert_eq!(wait().err(), aside, "the function has not run");
    staging.write(host_function::DONE, &1_u64.to_le_bytes());
    loop {
        let answer = wait();
        if answer.as_ref().err() != aside.as_ref() {
            return answer;
        }
        std::thread::yield_now();
    }
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
    let bytes = world.staging.bytes(usize::try_from(len).unwrap());
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

/// A device may have memory that is no context's: a program could fault in one context after the other, and hold more each time.
#[test]
fn an_allocation_that_a_device_keeps_beyond_its_context_goes_on_counting() {
    for (refused, used) in [(&[Step::Free][..], 0), (&[Step::Free, Step::FreeLeft], 4096)] {
        let world = world_with(Null::default().refusing(refused));
        let made = ContextId(100);
        ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
        ask::cuMemAlloc_v2(&world.guest, made, 4096).unwrap();
        ask::cuCtxDestroy_v2(&world.guest, C, made).unwrap();
        assert_eq!(world.used_bytes(), used, "{refused:?}");
    }
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
    let load = || ask::vgpuImageLoad(&world.guest, C, image, ImageKind::Module, 1, false, out);
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
    ask::vgpuImageLoad(&world.guest, C, NewHandle(image), ImageKind::Module, 1, false, out).unwrap();
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
        ask::vgpuImageLoad(&world.guest, C, image, ImageKind::Module, number, false, out)
    };
    load(1, 100_000).unwrap();
    assert_eq!(world.used_bytes(), (100_000_u64 + 256).next_multiple_of(512));
    for table_bytes in [1 << 20, 10 << 30, u64::MAX] {
        assert_eq!(load(2, table_bytes), Err(CuError::OUT_OF_MEMORY));
    }
    ask::vgpuImageUnload(&world.guest, C, GoneHandle(ImageHandle::new(0, 1))).unwrap();
    assert_eq!(world.used_bytes(), 0);
}

/// A device would make them in the worker, where the program cannot reach them.
#[test]
fn an_image_with_managed_variables_is_refused_with_its_reason() {
    let ptx = |attribute: &str| {
        let variable = format!(".visible .global {attribute} .align 4 .u32 counter;\n");
        format!(".version 9.0\n.target sm_90\n.address_size 64\n{variable}").into_bytes()
    };
    let managed = ptx(".attribute(.managed)");
    let null = || world_with(Null::default());
    let soft = || world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    for (world, image, refused) in [
        (null(), managed_cubin(1000), true),
        (null(), managed.clone(), true),
        (soft(), managed, true),
        (null(), cubin(1000), false),
        (soft(), ptx(""), false),
    ] {
        ask::vgpuUpload(&world.guest, C, 1, image.len() as u64, 0, &image).unwrap();
        let (image, out) = (NewHandle(ImageHandle::new(0, 0)), Staged { offset: 0, len: 4096 });
        let loaded = ask::vgpuImageLoad(&world.guest, C, image, ImageKind::Library, 1, false, out);
        let said = ask::vgpuImageLog(&world.guest, C, out).unwrap();
        let said = String::from_utf8(world.staging.bytes(usize::try_from(said).unwrap())).unwrap();
        assert_eq!(loaded.err(), refused.then_some(CuError::NOT_SUPPORTED));
        assert_eq!(said.contains("__managed__"), refused, "{said}");
        assert_eq!(world.used_bytes() > 0, !refused, "nothing is counted of what is not loaded");
    }
}

/// The guest's thread for the functions that streams call: what it was told, in order.
fn run_host_functions(staging: &Heap, mailbox: usize, count: u64) -> Vec<(u64, u64)> {
    let told = (1..=count).map(|posted| {
        while staging.word(mailbox + host_function::POSTED) != posted {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        let told = [host_function::FUNCTION, host_function::STATUS].map(|at| staging.word(mailbox + at));
        staging.write(mailbox + host_function::DONE, &posted.to_le_bytes());
        (told[0], told[1])
    });
    told.collect()
}

#[test]
fn a_stream_waits_until_the_guest_has_run_its_functions_in_order() {
    let world = world();
    let stream = StreamHandle::new(0, 0);
    ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(stream), 0, 0).unwrap();
    ask::cuLaunchHostFunc(&world.guest, C, Stream::Legacy, 1).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE), "nobody looks anywhere");
    for (offset, len) in [(4, 128), (0, 127), (65 << 10, 128), (u64::MAX - 7, 128)] {
        let refused = ask::vgpuHostFunctions(&world.guest, ContextId::NONE, Staged { offset, len });
        assert_eq!(refused, Err(CuError::INVALID_VALUE), "{len} at {offset}");
    }
    let mailbox = Staged { offset: 4096, len: 128 };
    ask::vgpuHostFunctions(&world.guest, ContextId::NONE, mailbox).unwrap();
    let again = ask::vgpuHostFunctions(&world.guest, ContextId::NONE, mailbox);
    assert_eq!(again, Err(CuError::INVALID_VALUE), "once");
    let gone = Stream::Made(StreamHandle::new(3, 0));
    ask::cuStreamAddCallback(&world.guest, C, gone, 1).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_HANDLE));
    ask::cuLaunchHostFunc(&world.guest, ContextId(99), Stream::Legacy, 1).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_CONTEXT));

    let staging = world.staging.clone();
    let guest = std::thread::spawn(move || run_host_functions(&staging, 4096, 3));
    for (stream, number) in [(Stream::Legacy, 7), (Stream::Made(stream), u64::MAX)] {
        ask::cuLaunchHostFunc(&world.guest, C, stream, number).unwrap();
    }
    ask::cuStreamAddCallback(&world.guest, C, Stream::Legacy, 8).unwrap();
    // The null device has done all when it answers.
    assert_eq!(world.staging.word(4096 + host_function::DONE), 3);
    assert_eq!(
        (guest.join().unwrap(), world.guest.take_error()),
        (vec![(7, 0), (u64::MAX, 0), (8, 0)], None)
    );
}

/// The function may wait for another thread of the program, whose call comes through the same loop.
#[test]
fn the_end_of_a_context_is_put_aside_while_a_function_of_the_program_is_queued() {
    let world = world_with(Null::default().calling_from_a_thread());
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
    begin_function(&world.guest);
    let destroy = || ask::cuCtxDestroy_v2(&world.guest, ContextId::NONE, made);
    let reset = || ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0);
    assert_eq!(destroy(), Err(CuError::NOT_READY));
    assert_eq!(end_function(&world.staging, reset), Ok(()));
    assert_eq!((destroy(), destroy()), (Ok(()), Err(CuError::INVALID_CONTEXT)), "once");
    assert_eq!(ask::cuCtxSynchronize(&world.guest, C), Err(CuError::INVALID_CONTEXT));
}

/// A device lets go of nothing that was queued in a context which has failed, and calls nothing of it.
#[test]
fn what_is_queued_in_a_failed_context_puts_no_call_aside() {
    let world = world_with(Null::default().stalling().busy().refusing(&[Step::HostFunction]));
    let made = ContextId(100);
    let sync = || ask::cuCtxSynchronize(&world.guest, C);
    let mailbox = Staged { offset: 0, len: host_function::MAILBOX_BYTES as u64 };
    ask::vgpuHostFunctions(&world.guest, C, mailbox).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    for asked in [true, false] {
        ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
        let wait = MemoryOp { kind: MemoryOpKind::WaitEqual, at, bytes: 4, value: 1 };
        ask::vgpuStreamMemory(&world.guest, made, Stream::Legacy, vec![wait]).unwrap();
        assert_eq!(sync(), Err(CuError::NOT_READY), "a word is waited for");
        ask::cuLaunchHostFunc(&world.guest, made, Stream::Legacy, 5).unwrap();
        assert_eq!(world.guest.take_error(), Some(CuError::ILLEGAL_ADDRESS));
        if asked {
            assert_eq!(sync(), Ok(()), "it has failed");
        }
        let destroy = ask::cuCtxDestroy_v2(&world.guest, ContextId::NONE, made);
        assert_eq!((destroy, sync()), (Err(CuError::ILLEGAL_ADDRESS), Ok(())), "it has ended");
    }
}

#[test]
fn a_device_that_waits_for_a_guest_is_let_go_with_the_session() {
    let staging: Arc<dyn Staging> = Arc::new(Heap(Arc::new(Mutex::new(vec![0; 4096]))));
    let functions = HostFunctions::new(staging, Staged { offset: 0, len: 128 }).unwrap();
    let function = functions.function(1, &Count::default()).unwrap();
    let device = std::thread::spawn(move || function(0));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(!device.is_finished(), "no guest has answered");
    drop(functions);
    device.join().unwrap();
}

#[test]
fn functions_that_a_device_never_calls_are_no_more_than_a_bound() {
    let staging: Arc<dyn Staging> = Arc::new(Heap(Arc::new(Mutex::new(vec![0; 4096]))));
    let functions = HostFunctions::new(staging, Staged { offset: 0, len: 128 }).unwrap();
    let count = Count::default();
    let kept: Vec<_> = std::iter::from_fn(|| functions.function(0, &count).ok()).take(100_000).collect();
    assert_eq!(kept.len(), 1 << 16);
    assert_eq!(functions.function(0, &count).err(), Some(CuError::OUT_OF_MEMORY));
    drop(kept);
    assert!(!count.is_any() && functions.function(0, &count).is_ok());
}

#[test]
fn events_of_a_whole_context_are_checked_as_those_of_a_stream() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let event = EventHandle::new(0, 0);
    ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    ask::cuEventRecordWithFlags(&world.guest, C, event, Stream::Legacy, 0).unwrap();
    let end = EventHandle::new(0, 1);
    ask::cuEventCreate(&world.guest, C, NewHandle(end), 0).unwrap();
    let elapsed = || ask::cuEventElapsedTime_v2(&world.guest, C, event, end);
    assert_eq!(elapsed(), Err(CuError::INVALID_HANDLE), "not recorded");
    ask::cuCtxRecordEvent(&world.guest, C, end).unwrap();
    assert!(elapsed().is_ok());
    ask::cuCtxWaitEvent(&world.guest, C, end).unwrap();
    assert_eq!(world.guest.take_error(), None);
    for call in [ask::cuCtxRecordEvent::<Loopback<Session>>, ask::cuCtxWaitEvent] {
        call(&world.guest, C, EventHandle::new(1, 0)).unwrap();
        assert_eq!(world.guest.take_error(), Some(CuError::INVALID_HANDLE));
        call(&world.guest, ContextId(90), end).unwrap();
        assert_eq!(world.guest.take_error(), Some(CuError::INVALID_CONTEXT));
    }
}

#[test]
fn a_tensor_map_is_of_memory_of_the_process_and_whole() {
    let world = world();
    let address = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let tiled = TensorSpec {
        form: form::TILED,
        data_type: 7,
        address,
        dims: vec![16, 16],
        strides: vec![64],
        element_strides: vec![1, 1],
        boxes: vec![8, 8],
        lower: vec![],
        upper: vec![],
        channels: 0,
        pixels: 0,
        interleave: 0,
        mode: 0,
        swizzle: 0,
        promotion: 0,
        fill: 0,
    };
    let encode = |spec: TensorSpec| ask::vgpuTensorMapEncode(&world.guest, C, spec);
    let map = encode(tiled.clone()).unwrap();
    let deep = TensorSpec {
        form: form::IM2COL,
        dims: vec![8; 4],
        strides: vec![64; 3],
        element_strides: vec![1; 4],
        boxes: vec![],
        lower: vec![-1; 2],
        upper: vec![1; 2],
        ..tiled.clone()
    };
    encode(deep.clone()).unwrap();
    encode(TensorSpec { form: form::IM2COL_WIDE, lower: vec![0], upper: vec![0], ..deep.clone() }).unwrap();
    for (wrong, why) in [
        (TensorSpec { form: 3, ..tiled.clone() }, "no form"),
        (TensorSpec { dims: vec![], ..tiled.clone() }, "no rank"),
        (TensorSpec { dims: vec![16; 3], ..tiled.clone() }, "another rank"),
        (TensorSpec { strides: vec![64; 2], ..tiled.clone() }, "strides"),
        (TensorSpec { element_strides: vec![1; 3], ..tiled.clone() }, "element strides"),
        (TensorSpec { boxes: vec![8], ..tiled.clone() }, "boxes"),
        (TensorSpec { lower: vec![0], ..tiled.clone() }, "corners"),
        (TensorSpec { lower: vec![0; 3], ..deep.clone() }, "corners"),
        (TensorSpec { form: form::IM2COL_WIDE, ..deep.clone() }, "corners"),
        (TensorSpec { address: DevicePtr(address.0 + 4096), ..tiled.clone() }, "past the end"),
        (TensorSpec { address: DevicePtr(std::ptr::from_ref(&world) as u64), ..tiled.clone() }, "a host's"),
    ] {
        assert_eq!(encode(wrong), Err(CuError::INVALID_VALUE), "{why}");
    }
    let moved = |address| ask::cuTensorMapReplaceAddress(&world.guest, C, map, address);
    assert_eq!(moved(address), Ok(map));
    assert_eq!(moved(DevicePtr(address.0 + 4096)), Err(CuError::INVALID_VALUE));
    let soft = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let address = ask::cuMemAlloc_v2(&soft.guest, C, 4096).unwrap();
    let refused = ask::vgpuTensorMapEncode(&soft.guest, C, TensorSpec { address, ..tiled });
    assert_eq!(refused, Err(CuError::NOT_SUPPORTED));
}

/// What a guest reads of a linker's image, in pieces of `piece` bytes.
fn linked_image(world: &World, linker: LinkerHandle, bytes: u64, piece: u64) -> Vec<u8> {
    let mut image = Vec::new();
    while (image.len() as u64) < bytes {
        let (at, len) = (image.len() as u64, piece.min(bytes - image.len() as u64));
        ask::vgpuLinkImage(&world.guest, C, linker, at, Staged { offset: 0, len }).unwrap();
        image.extend_from_slice(&world.staging.0.lock().unwrap()[..usize::try_from(len).unwrap()]);
    }
    image
}

fn add(world: &World, linker: LinkerHandle, input: u32, bytes: &[u8], options: &[JitOption]) -> CuResult<()> {
    ask::vgpuUpload(&world.guest, C, 1, bytes.len() as u64, 0, bytes).unwrap();
    ask::cuLinkAddData_v2(&world.guest, C, linker, input, 1, "name".into(), options.to_vec())
}

const PTX: &[u8] = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry nothing() { ret; }\n\0";

#[test]
fn one_text_goes_through_the_linker_of_a_device_without_one() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let linker = LinkerHandle::new(0, 0);
    let create = |options| ask::cuLinkCreate_v2(&world.guest, C, NewHandle(linker), options, 100, 100);
    let number = |option, value| JitOption { option, value };
    // Places of the program, lists, and numbers that are no options.
    for option in [2, 3, 5, 17, 18, 25, 35, u32::MAX] {
        assert_eq!(create(vec![number(option, 1)]), Err(CuError::INVALID_VALUE), "{option}");
    }
    assert_eq!(create(vec![number(7, 4); 65]), Err(CuError::INVALID_VALUE));
    let huge = ask::cuLinkCreate_v2(&world.guest, C, NewHandle(linker), vec![], 1 << 20, 0);
    assert_eq!(huge, Err(CuError::INVALID_VALUE));
    create(vec![number(7, 4), number(0, 32)]).unwrap();
    assert_eq!(create(vec![]), Err(CuError::INVALID_HANDLE), "in use");

    assert_eq!(ask::cuLinkComplete(&world.guest, C, linker), Err(CuError::INVALID_VALUE), "nothing in it");
    assert_eq!(add(&world, linker, 6, PTX, &[]), Err(CuError::INVALID_VALUE));
    assert_eq!(add(&world, linker, 1, PTX, &[number(18, 1)]), Err(CuError::INVALID_VALUE));
    assert_eq!(add(&world, linker, 0, PTX, &[]), Err(CuError::NO_BINARY_FOR_GPU));
    assert_eq!(add(&world, linker, 1, b".version 7.0\nrubbish", &[]), Err(CuError::INVALID_PTX));
    let out = Staged { offset: 0, len: 4096 };
    assert_ne!(ask::vgpuLinkLog(&world.guest, C, linker, true, out), Ok(0), "says why");
    assert_eq!(ask::vgpuLinkLog(&world.guest, C, linker, false, out), Ok(0));
    add(&world, linker, 1, PTX, &[]).unwrap();
    assert_eq!(add(&world, linker, 1, PTX, &[]), Err(CuError::NOT_SUPPORTED));

    let bytes = ask::cuLinkComplete(&world.guest, C, linker).unwrap();
    assert_eq!(linked_image(&world, linker, bytes, 7), &PTX[..PTX.len() - 1]);
    let past = ask::vgpuLinkImage(&world.guest, C, linker, bytes + 1, out);
    assert_eq!(past, Err(CuError::INVALID_VALUE));
    let outside = ask::vgpuLinkImage(&world.guest, C, linker, 0, Staged { offset: 64 << 10, len: 1 });
    assert_eq!(outside, Err(CuError::INVALID_VALUE));
    ask::cuLinkDestroy(&world.guest, C, GoneHandle(linker)).unwrap();
    assert_eq!(world.guest.take_error(), None);
    assert_eq!(ask::cuLinkComplete(&world.guest, C, linker), Err(CuError::INVALID_HANDLE));
}

#[test]
fn linkers_are_bounded_and_end_with_their_context() {
    let world = world();
    let context = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, context, 0, 0).unwrap();
    let create = |context, index| {
        let linker = NewHandle(LinkerHandle::new(0, index));
        ask::cuLinkCreate_v2(&world.guest, context, linker, vec![], 0, 0)
    };
    for index in 0..256 {
        create(context, index).unwrap();
    }
    assert_eq!(create(C, 256), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(create(ContextId(7), 256), Err(CuError::INVALID_CONTEXT));
    ask::cuCtxDestroy_v2(&world.guest, ContextId::NONE, context).unwrap();
    let gone = ask::vgpuLinkTold(&world.guest, C, LinkerHandle::new(0, 0));
    assert_eq!(gone, Err(CuError::INVALID_HANDLE));
    create(C, 0).unwrap();
}

/// Each may be as large as an upload.
#[test]
fn what_linkers_hold_is_bounded_together_and_given_back() {
    let world = world();
    let linker = |number| LinkerHandle::new(0, number);
    let create = |number| {
        ask::cuLinkCreate_v2(&world.guest, C, NewHandle(linker(number)), vec![], 100, 100).unwrap();
    };
    let add = |number| {
        // Nothing of it is kept by a device that takes texts.
        let chunk = vec![0; 32 << 10];
        for offset in (0..256 << 20).step_by(chunk.len()) {
            ask::vgpuUpload(&world.guest, C, 1, 256 << 20, offset, &chunk).unwrap();
        }
        ask::cuLinkAddData_v2(&world.guest, C, linker(number), 1, 1, "name".into(), vec![])
    };
    (0..4).for_each(create);
    // The figure of README.md: 1 GiB, with the logs.
    assert_eq!([0, 1, 2, 3].map(add), [Ok(()), Ok(()), Ok(()), Err(CuError::OUT_OF_MEMORY)]);
    ask::cuLinkDestroy(&world.guest, C, GoneHandle(linker(1))).unwrap();
    assert_eq!(add(3), Ok(()));
    assert_eq!(add(3), Err(CuError::OUT_OF_MEMORY));
    ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0).unwrap();
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    (0..3).for_each(create);
    assert_eq!([0, 1, 2].map(add), [Ok(()); 3]);
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
}

/// Of every device so far.
const MAPPING_BYTES: u64 = 2 << 20;
