//! What counts against the grant, and what is given back.

use vgpu_api::Snapshot;

use super::*;
use crate::device::{cubin, managed_cubin};

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
pub(super) fn launch_in(world: &World) {
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
    // The stack is each resident thread's, the heap the context's.
    for (limit, more_bytes) in [(0, 512 * 64), (2, 512)] {
        let start = ask::cuCtxGetLimit(&world.guest, C, limit).unwrap();
        ask::cuCtxSetLimit(&world.guest, C, limit, 0).unwrap();
        assert_eq!(world.used_bytes(), local_bytes, "the start of limit {limit} was never counted");
        ask::cuCtxSetLimit(&world.guest, C, limit, start).unwrap();
        assert_eq!(world.used_bytes(), local_bytes, "limit {limit} is what it was");
        ask::cuCtxSetLimit(&world.guest, C, limit, start + 512).unwrap();
        assert_eq!(world.used_bytes(), local_bytes + more_bytes, "limit {limit}");
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

/// A device would make them in the worker, where the program cannot reach them. With an arena: `arena/tests/managed.rs`.
#[test]
fn an_image_with_managed_variables_is_refused_where_there_is_no_arena() {
    let ptx = |attribute: &str| {
        let variable = format!(".visible .global {attribute} .align 4 .u32 counter;\n");
        format!(".version 9.0\n.target sm_90\n.address_size 64\n{variable}").into_bytes()
    };
    let managed = ptx(".attribute(.managed)");
    let null = || world_with(Null::default());
    let soft = || world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    for (world, image, refused) in [
        (null(), managed_cubin(), true),
        (null(), managed.clone(), true),
        (soft(), managed, true),
        (null(), cubin(1000), false),
        (soft(), ptx(""), false),
        (soft(), ptx("/* .attribute(.managed) */"), false),
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
