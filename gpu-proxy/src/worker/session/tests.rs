//! The gates of a session, over the null device. Its grant: `tests/quota.rs`, graphs: `tests/graph.rs`.

mod graph;
mod graph_arrays;
mod graph_conditional;
mod graph_waits;

mod array;
mod devices;
mod green;
mod green_memory;
mod host_functions;
mod library;
mod linker;

mod pool;
mod quota;
mod references;
mod shared;
mod shared_devices;
mod shared_event;
mod shared_pool;
mod stream_memory;
mod tensor_map;
mod upload;
mod virtual_memory;

use std::sync::{Arc, Mutex};

use vgpu_api::host_function;
use vgpu_api::launch::{LaunchAttributes, LaunchShape};
use vgpu_api::loopback::Loopback;
use vgpu_api::memory::Memset;
use vgpu_api::{
    ContextId, CuError, CuResult, DevicePtr, EventHandle, FunctionHandle, GoneHandle, GraphExecHandle,
    ImageHandle, ImageKind, Launch, MemoryHandle, MemoryOp, MemoryOpKind, NewHandle, PoolHandle, Staged,
    Stream, StreamHandle, ask,
};

use super::Session;
use crate::device::{Costs, Device, Null, Soft, Step};
use crate::shared_page::SharedPage;
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
    let load = || ask::vgpuImageLoad(&world.guest, C, image, ImageKind::Module, 1, false, out);
    assert_eq!(load(), Err(CuError::INVALID_VALUE));
    ask::vgpuUpload(&world.guest, C, 1, u64::MAX, 0, b"abc").unwrap();
    assert_eq!(load(), Err(CuError::INVALID_IMAGE));
    ask::vgpuUpload(&world.guest, C, 1, 8, 0, b".ver").unwrap();
    ask::vgpuUpload(&world.guest, C, 1, 8, 5, b"ion").unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));
    ask::vgpuUpload(&world.guest, C, 1, 8, 4, b"sions").unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));
    ask::vgpuUpload(&world.guest, C, 1, 8, 4, b"sion").unwrap();
    assert!(load().is_ok());
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
