//! Green contexts: whose multiprocessors they have, what a hostile guest may say of them, what ends with them.

use vgpu_api::green::{GROUPS_MAX, REST};
use vgpu_api::{SmGroups, SmResource, SmSource, SmSplit};

use super::*;

pub(super) const GREEN: ContextId = ContextId(100);
pub(super) const LEGACY: StreamHandle = StreamHandle::new(0, 50);
const ALL: SmSource = SmSource { device: 0, green: ContextId::NONE };

fn by(groups: u32, count_min: u32) -> SmSplit {
    SmSplit { groups, flags: 0, count_min }
}

/// A green context with these parts of the device's multiprocessors in pairs, and its legacy stream at place 50 + `id` - 100.
pub(super) fn make(world: &World, id: ContextId, parts: Vec<u32>) -> CuResult<SmResource> {
    let stream = StreamHandle::new(0, 50 + u64::from(id.0 - GREEN.0));
    ask::vgpuGreenCreate(&world.guest, ContextId::NONE, id, NewHandle(stream), ALL, by(2, 2), parts)
}

#[test]
fn a_split_is_what_the_device_says_and_no_number_overflows() {
    let world = world();
    let ask = |of, split| ask::vgpuSmSplit(&world.guest, C, of, split);
    let pair = SmResource { count: 2, group_min: 2, group_step: 2 };
    assert_eq!(
        ask(ALL, by(0, 2)),
        Ok(SmGroups { groups: 2, each: pair, rest: SmResource { count: 0, ..pair } })
    );
    assert_eq!(ask(ALL, by(1, 2)).map(|groups| groups.rest.count), Ok(2));
    for (split, code) in [
        (by(1, 5), CuError::INVALID_RESOURCE_CONFIGURATION),
        (by(1, u32::MAX), CuError::INVALID_RESOURCE_CONFIGURATION),
        (by(u32::MAX, 2), CuError::INVALID_VALUE),
        (by(GROUPS_MAX + 1, 2), CuError::INVALID_VALUE),
        (SmSplit { flags: 4, ..by(1, 2) }, CuError::INVALID_VALUE),
    ] {
        assert_eq!(ask(ALL, split), Err(code), "{split:?}");
    }
    assert_eq!(ask(SmSource { device: 1, ..ALL }, by(1, 2)), Err(CuError::INVALID_DEVICE));
    assert_eq!(ask(SmSource { green: GREEN, ..ALL }, by(1, 2)), Err(CuError::INVALID_CONTEXT));
    assert_eq!(ask(SmSource { green: C, ..ALL }, by(1, 2)), Err(CuError::INVALID_CONTEXT), "no green one");
}

#[test]
fn only_parts_that_a_split_gives_become_a_green_context_and_none_twice() {
    let world = world();
    for parts in [vec![2], vec![0, 0], vec![REST], vec![0, 1, 0], vec![REST - 1]] {
        let refused = make(&world, GREEN, parts.clone());
        assert_eq!(refused, Err(CuError::INVALID_RESOURCE_CONFIGURATION), "{parts:?}");
    }
    let split = |split, parts| {
        ask::vgpuGreenCreate(&world.guest, ContextId::NONE, GREEN, NewHandle(LEGACY), ALL, split, parts)
    };
    assert_eq!(split(by(0, 2), vec![0]), Err(CuError::INVALID_RESOURCE_CONFIGURATION), "only counted");
    assert_eq!(split(by(u32::MAX, 2), vec![0]), Err(CuError::INVALID_VALUE));
    assert_eq!(make(&world, GREEN, vec![1]).map(|given| given.count), Ok(2));
    // What a green context has is split as what a device has, also after its own.
    let of = SmSource { green: GREEN, ..ALL };
    assert_eq!(ask::vgpuSmResource(&world.guest, C, of).map(|given| given.count), Ok(2));
    assert_eq!(ask::vgpuSmSplit(&world.guest, C, of, by(0, 2)).map(|groups| groups.groups), Ok(1));
}

#[test]
fn its_number_is_no_other_contexts_and_its_streams_handle_is_free() {
    let world = world();
    for id in [ContextId::NONE, C, ContextId(64)] {
        let stream = NewHandle(LEGACY);
        let refused =
            ask::vgpuGreenCreate(&world.guest, ContextId::NONE, id, stream, ALL, by(2, 2), Vec::new());
        assert_eq!(refused, Err(CuError::INVALID_CONTEXT), "{id:?}");
    }
    make(&world, GREEN, vec![0]).unwrap();
    assert_eq!(make(&world, GREEN, vec![1]), Err(CuError::INVALID_CONTEXT), "in use");
    let create = ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, GREEN, 0, 0);
    assert_eq!(create, Err(CuError::INVALID_CONTEXT), "in use");
    let other = NewHandle(LEGACY);
    let again =
        ask::vgpuGreenCreate(&world.guest, ContextId::NONE, ContextId(101), other, ALL, by(2, 2), Vec::new());
    assert_eq!(again, Err(CuError::INVALID_HANDLE), "its stream's handle is in use");
    assert_eq!(ask::cuCtxDestroy_v2(&world.guest, C, GREEN), Err(CuError::INVALID_CONTEXT));
    for id in [C, ContextId::NONE, ContextId(101)] {
        assert_eq!(ask::vgpuGreenDestroy(&world.guest, C, id), Err(CuError::INVALID_CONTEXT), "{id:?}");
    }
}

#[test]
fn memory_made_beside_it_is_the_primary_contexts_and_it_counts_until_it_ends() {
    let costs = Costs { green_bytes: 300 << 10, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 0));
    make(&world, GREEN, vec![0]).unwrap();
    make(&world, ContextId(101), vec![1]).unwrap();
    make(&world, ContextId(102), Vec::new()).unwrap();
    assert_eq!(make(&world, ContextId(103), Vec::new()), Err(CuError::OUT_OF_MEMORY), "three count 900 KiB");
    assert_eq!(world.used_bytes(), 3 * (300 << 10));
    ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    ask::vgpuGreenDestroy(&world.guest, ContextId::NONE, GREEN).unwrap();
    assert_eq!(world.used_bytes(), 2 * (300 << 10) + 4096);
    assert_eq!(ask::vgpuGreenDestroy(&world.guest, C, GREEN), Err(CuError::INVALID_CONTEXT), "once");
    ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0).unwrap();
    assert_eq!(world.used_bytes(), 0, "with the primary context they end");
    assert_eq!(ask::vgpuGreenDestroy(&world.guest, C, ContextId(101)), Err(CuError::INVALID_CONTEXT));
    assert_eq!(make(&world, GREEN, vec![0]), Err(CuError::INVALID_CONTEXT), "of no primary context");
}

#[test]
fn green_contexts_and_others_are_bounded_together() {
    let world = world();
    for number in 0..255 {
        make(&world, ContextId(GREEN.0 + number), Vec::new()).unwrap();
    }
    assert_eq!(make(&world, ContextId(GREEN.0 + 255), Vec::new()), Err(CuError::OUT_OF_MEMORY));
    let create = ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, ContextId(1000), 0, 0);
    assert_eq!(create, Err(CuError::OUT_OF_MEMORY));
}

#[test]
fn its_streams_end_with_it_and_say_so_and_its_legacy_one_is_nobodys_to_end() {
    let world = world();
    make(&world, GREEN, vec![0]).unwrap();
    let (mine, event) = (StreamHandle::new(0, 0), EventHandle::new(0, 0));
    ask::cuStreamCreateWithPriority(&world.guest, GREEN, NewHandle(mine), 1, 0).unwrap();
    ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    ask::cuCtxRecordEvent(&world.guest, GREEN, event).unwrap();
    ask::cuCtxWaitEvent(&world.guest, GREEN, event).unwrap();
    ask::cuEventRecordWithFlags(&world.guest, C, event, Stream::Made(LEGACY), 0).unwrap();
    assert_eq!(world.guest.take_error(), None);
    assert_eq!(ask::cuCtxSynchronize(&world.guest, GREEN), Ok(()));
    ask::cuStreamDestroy_v2(&world.guest, C, GoneHandle(LEGACY)).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_HANDLE));
    ask::vgpuGreenDestroy(&world.guest, ContextId::NONE, GREEN).unwrap();
    let query = |stream| ask::cuStreamQuery(&world.guest, C, Stream::Made(stream));
    assert_eq!(
        (query(mine), query(LEGACY)),
        (Err(CuError::CONTEXT_IS_DESTROYED), Err(CuError::INVALID_HANDLE))
    );
    ask::cuStreamDestroy_v2(&world.guest, C, GoneHandle(mine)).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::CONTEXT_IS_DESTROYED));
    assert_eq!(ask::cuEventSynchronize(&world.guest, C, event), Ok(()), "events are the primary context's");
    for call in [ask::cuCtxRecordEvent::<Loopback<Session>>, ask::cuCtxWaitEvent] {
        call(&world.guest, GREEN, event).unwrap();
        assert_eq!(world.guest.take_error(), Some(CuError::INVALID_CONTEXT));
    }
    assert_eq!(ask::cuCtxSynchronize(&world.guest, GREEN), Err(CuError::INVALID_CONTEXT));
    make(&world, ContextId(101), Vec::new()).unwrap();
}

#[test]
fn the_end_of_one_is_put_aside_while_a_function_of_the_program_is_queued_in_it() {
    let world = world_with(Null::default().calling_from_a_thread());
    make(&world, GREEN, vec![0]).unwrap();
    let mailbox = Staged { offset: 0, len: host_function::MAILBOX_BYTES as u64 };
    ask::vgpuHostFunctions(&world.guest, C, mailbox).unwrap();
    ask::cuLaunchHostFunc(&world.guest, C, Stream::Made(LEGACY), 5).unwrap();
    assert_eq!(world.guest.take_error(), None);
    let sync = || ask::cuCtxSynchronize(&world.guest, GREEN);
    assert_eq!(sync(), Err(CuError::NOT_READY));
    let destroy = || ask::vgpuGreenDestroy(&world.guest, ContextId::NONE, GREEN);
    assert_eq!(end_function(&world.staging, destroy), Ok(()));
}

/// Memory freed in the legacy stream of one context is not given in that of another before the first is seen to be done.
#[test]
fn what_its_legacy_stream_frees_is_its_own() {
    let world = world_of(Null::default().busy(), 64 << 20);
    make(&world, GREEN, vec![0]).unwrap();
    let pool = PoolHandle::new(0, 0);
    ask::cuMemPoolCreate(&world.guest, C, NewHandle(pool), 0, 0, false).unwrap();
    ask::cuMemPoolSetAttribute(&world.guest, C, pool, 4, u64::MAX).unwrap();
    let alloc = |stream| ask::cuMemAllocFromPoolAsync(&world.guest, C, 4096, pool, stream).unwrap();
    let at = alloc(Stream::Legacy);
    ask::cuMemFreeAsync(&world.guest, C, at, Stream::Made(LEGACY)).unwrap();
    assert_ne!(alloc(Stream::Legacy), at, "not the primary context's, which is another stream");
    assert_eq!(alloc(Stream::Made(LEGACY)), at, "the stream that freed it has it at once");
}

/// A software GPU's kernels see where they run.
#[test]
fn kernels_run_on_the_multiprocessors_of_the_green_context_whose_stream_it_is() {
    const TEXT: &[u8] = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry where(.param .u64 out) {\n\
        .reg .b32 %r<4>; .reg .b64 %rd<4>;\nld.param.u64 %rd1, [out]; mov.u32 %r1, %smid; mov.u32 %r2, %ctaid.x;\n\
        mul.wide.u32 %rd2, %r2, 4; add.u64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r1; ret; }\n";
    let world = world_of(Soft::new(1 << 30).unwrap(), 1 << 20);
    make(&world, GREEN, vec![0]).unwrap();
    make(&world, ContextId(101), vec![1]).unwrap();
    let image = ImageHandle::new(0, 0);
    ask::vgpuUpload(&world.guest, C, 1, TEXT.len() as u64, 0, TEXT).unwrap();
    let out = Staged { offset: 0, len: 4096 };
    ask::vgpuImageLoad(&world.guest, C, NewHandle(image), ImageKind::Module, 1, false, out).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 32).unwrap();
    let seen = |stream| {
        let function = FunctionHandle::of_image(image, 0);
        let shape = LaunchShape { function, stream, grid: [8, 1, 1], block: [1, 1, 1], shared_bytes: 0 };
        let params = at.0.to_le_bytes();
        let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &params };
        ask::cuLaunchKernel(&world.guest, C, launch).unwrap();
        let staged = Staged { offset: 0, len: 32 };
        ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged, at, stream).unwrap();
        assert_eq!(world.guest.take_error(), None);
        let mut all: Vec<u8> = world.staging.bytes(32).chunks(4).map(|word| word[0]).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let second = Stream::Made(StreamHandle::new(0, 51));
    assert_eq!(
        (seen(Stream::Legacy), seen(Stream::Made(LEGACY)), seen(second)),
        (vec![0, 1, 2, 3], vec![0, 1], vec![2, 3])
    );
}

/// Else a program that makes and ends them takes a place for each stream that it ever had there.
#[test]
fn the_number_of_a_stream_that_ended_with_it_is_given_again() {
    let world = world();
    let stream = |generation| StreamHandle::new(generation, 0);
    let query = |stream| ask::cuStreamQuery(&world.guest, C, Stream::Made(stream));
    for round in 0..3 {
        make(&world, GREEN, vec![0]).unwrap();
        ask::cuStreamCreateWithPriority(&world.guest, GREEN, NewHandle(stream(round)), 1, 0).unwrap();
        assert_eq!((world.guest.take_error(), query(stream(round))), (None, Ok(())), "round {round}");
        ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(stream(round + 1)), 1, 0).unwrap();
        assert_eq!(world.guest.take_error(), Some(CuError::INVALID_HANDLE), "it is in use");
        ask::vgpuGreenDestroy(&world.guest, ContextId::NONE, GREEN).unwrap();
        assert_eq!(query(stream(round)), Err(CuError::CONTEXT_IS_DESTROYED));
    }
    ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(stream(3)), 1, 0).unwrap();
    assert_eq!((query(stream(3)), query(stream(2))), (Ok(()), Err(CuError::INVALID_HANDLE)));
}
