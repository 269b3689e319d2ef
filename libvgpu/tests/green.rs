//! Green contexts: what a program holds of multiprocessors, what belongs to a green context and what to its primary one, wrong uses.

mod support;

use std::ffi::c_void;

use support::calls::Calls;
use support::session::{Session, session};
use vgpu_api::handle::{Handle, kind};
use vgpu_api::{ContextId, Stream, StreamHandle};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_DEVICE: u32 = 101;
const INVALID_CONTEXT: u32 = 201;
const INVALID_HANDLE: u32 = 400;
const CONTEXT_IS_DESTROYED: u32 = 709;
const CAPTURE_UNSUPPORTED: u32 = 900;
const RESOURCE_TYPE: u32 = 914;
const RESOURCE_CONFIGURATION: u32 = 915;
const NON_BLOCKING: u32 = 1;

/// `CUdevResource` as cuda.h has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Resource {
    kind: u32,
    own: [u8; 92],
    count: u32,
    group_min: u32,
    group_step: u32,
    more: [u8; 36],
}

const NOTHING: Resource =
    Resource { kind: 0, own: [0; 92], count: 0, group_min: 0, group_step: 0, more: [0; 36] };

fn of_device(session: &Session) -> Resource {
    let mut all = NOTHING;
    let at = &raw mut all;
    assert_eq!(cu!(session.libcuda, cuDeviceGetDevResource(0: i32, at: *mut Resource, 1: u32)), OK);
    all
}

/// The code, how many groups, the groups, the rest.
fn split(session: &Session, of: &Resource, groups: u32, count: u32) -> (u32, u32, [Resource; 4], Resource) {
    let (mut made, mut found, mut rest) = ([NOTHING; 4], groups, NOTHING);
    let (made_at, found_at, rest_at) = (made.as_mut_ptr(), &raw mut found, &raw mut rest);
    let of = &raw const *of;
    let code = cu!(
        session.libcuda,
        cuDevSmResourceSplitByCount(
            made_at: *mut Resource, found_at: *mut u32, of: *const Resource, rest_at: *mut Resource, 0: u32, count: u32
        )
    );
    (code, found, made, rest)
}

fn describe(session: &Session, parts: &[Resource]) -> (u32, u64) {
    let mut described = 0u64;
    let (at, parts_at, count) = (&raw mut described, parts.as_ptr(), u32::try_from(parts.len()).unwrap());
    let code = cu!(
        session.libcuda,
        cuDevResourceGenerateDesc(at: *mut u64, parts_at: *const Resource, count: u32)
    );
    (code, described)
}

fn create(session: &Session, parts: &[Resource]) -> u64 {
    let (code, described) = describe(session, parts);
    assert_eq!(code, OK);
    let mut green = 0u64;
    let at = &raw mut green;
    assert_eq!(cu!(session.libcuda, cuGreenCtxCreate(at: *mut u64, described: u64, 0: i32, 1: u32)), OK);
    green
}

fn as_context(session: &Session, green: u64) -> u64 {
    let mut context = 0u64;
    let at = &raw mut context;
    assert_eq!(cu!(session.libcuda, cuCtxFromGreenCtx(at: *mut u64, green: u64)), OK);
    context
}

fn destroy(session: &Session, green: u64) -> u32 {
    cu!(session.libcuda, cuGreenCtxDestroy(green: u64))
}

/// Whether the primary context of the second device is there.
fn is_active(session: &Session) -> i32 {
    let (mut flags, mut active) = (0u32, 0i32);
    let (flags_at, active_at) = (&raw mut flags, &raw mut active);
    let asked =
        cu!(session.libcuda, cuDevicePrimaryCtxGetState(1: i32, flags_at: *mut u32, active_at: *mut i32));
    assert_eq!(asked, OK);
    active
}

fn stream_in(session: &Session, green: u64) -> u64 {
    let mut stream = 0u64;
    let at = &raw mut stream;
    assert_eq!(
        cu!(session.libcuda, cuGreenCtxStreamCreate(at: *mut u64, green: u64, NON_BLOCKING: u32, 0: i32)),
        OK
    );
    stream
}

/// Where a stream belongs: its context, the two that `_v2` says, its green context.
fn contexts_of(session: &Session, stream: u64) -> [u64; 4] {
    let mut told = [9u64; 4];
    let [a, b, c, d] = std::array::from_fn(|place| told.as_mut_ptr().wrapping_add(place));
    assert_eq!(cu!(session.libcuda, cuStreamGetCtx(stream: u64, a: *mut u64)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamGetCtx_v2(stream: u64, b: *mut u64, c: *mut u64)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamGetGreenCtx(stream: u64, d: *mut u64)), OK);
    told
}

fn primary() -> u64 {
    ContextId::primary(0).handle().raw()
}

#[test]
fn a_split_gives_groups_and_the_rest_and_each_says_how_many_multiprocessors_it_has() {
    let session = session();
    let all = of_device(&session);
    assert_eq!((all.kind, all.count, all.group_min, all.group_step), (1, 4, 2, 2));
    let (code, found, made, rest) = split(&session, &all, 1, 1);
    assert_eq!((code, found, made[0].kind, made[0].count, rest.count), (OK, 1, 1, 2, 2));
    let (code, found, made, rest) = split(&session, &all, 4, 2);
    assert_eq!((code, found, made[1].count, made[2].kind, rest.kind), (OK, 2, 2, 0, 0));
    // Without a place for groups they are counted.
    let (null, mut count) = (std::ptr::null_mut::<Resource>(), 77u32);
    let (at, of) = (&raw mut count, &raw const all);
    let counted = cu!(
        session.libcuda,
        cuDevSmResourceSplitByCount(
            null: *mut Resource, at: *mut u32, of: *const Resource, null: *mut Resource, 0: u32, 2: u32
        )
    );
    assert_eq!((counted, count), (OK, 2));
}

#[test]
fn what_is_no_resource_of_this_process_is_refused() {
    let session = session();
    let all = of_device(&session);
    let (_, _, made, rest) = split(&session, &all, 1, 2);
    let (_, _, others, _) = split(&session, &all, 1, 2);
    assert_eq!(split(&session, &NOTHING, 1, 2).0, RESOURCE_TYPE);
    assert_eq!(split(&session, &Resource { kind: 1, ..NOTHING }, 1, 2).0, INVALID_VALUE, "nobody's");
    assert_eq!(split(&session, &made[0], 1, 2).0, RESOURCE_CONFIGURATION, "a part is not split again");
    assert_eq!(split(&session, &all, 0, 2).0, INVALID_VALUE);
    assert_eq!(describe(&session, &[]).0, INVALID_VALUE);
    assert_eq!(describe(&session, &[NOTHING]).0, RESOURCE_TYPE);
    for parts in [[made[0], made[0]], [made[0], others[0]], [made[0], all], [all, all]] {
        assert_eq!(describe(&session, &parts).0, RESOURCE_CONFIGURATION);
    }
    let (code, described) = describe(&session, &[made[0], rest]);
    assert_eq!((code, describe(&session, &[rest, made[0]])), (OK, (OK, described)), "one for each content");
    let library = &session.libcuda;
    let mut green = 0u64;
    let (at, null) = (&raw mut green, std::ptr::null_mut::<u64>());
    for (at, desc, device, flags, code) in [
        (null, described, 0, 1, INVALID_VALUE),
        (at, 0, 0, 1, INVALID_VALUE),
        (at, described + 1000, 0, 1, INVALID_VALUE),
        (at, described, 9, 1, INVALID_DEVICE),
        (at, described, 1, 1, INVALID_VALUE),
        (at, described, 0, 0, INVALID_VALUE),
        (at, described, 0, 3, INVALID_VALUE),
    ] {
        assert_eq!(cu!(library, cuGreenCtxCreate(at: *mut u64, desc: u64, device: i32, flags: u32)), code);
    }
    let mut told = all;
    let place = &raw mut told;
    assert_eq!(cu!(library, cuDeviceGetDevResource(0: i32, place: *mut Resource, 2: u32)), RESOURCE_TYPE);
    assert_eq!(cu!(library, cuDeviceGetDevResource(9: i32, place: *mut Resource, 1: u32)), INVALID_DEVICE);
    for wrong in [0, primary(), 1 << 40, Handle::<kind::Green>::new(0, 5000).raw()] {
        assert_eq!(cu!(library, cuCtxFromGreenCtx(at: *mut u64, wrong: u64)), INVALID_CONTEXT, "{wrong:x}");
        assert_eq!(destroy(&session, wrong), INVALID_CONTEXT, "{wrong:x}");
    }
}

#[test]
fn streams_are_a_green_contexts_own_and_all_else_is_its_primary_ones() {
    let session = session();
    let library = &session.libcuda;
    let (_, _, made, _) = split(&session, &of_device(&session), 2, 2);
    let (one, other) = (create(&session, &made[..1]), create(&session, &made[1..2]));
    let context = as_context(&session, one);
    assert_ne!(context, as_context(&session, other));
    let mut resource = NOTHING;
    let at = &raw mut resource;
    assert_eq!(cu!(library, cuCtxGetDevResource(context: u64, at: *mut Resource, 1: u32)), OK);
    assert_eq!((resource.count, split(&session, &resource, 4, 2).1), (2, 1), "and is split again");
    assert_eq!(cu!(library, cuGreenCtxGetDevResource(other: u64, at: *mut Resource, 1: u32)), OK);
    assert_eq!(resource.count, 2);

    let mine = stream_in(&session, one);
    assert_eq!(contexts_of(&session, mine), [context, primary(), one, one], "whatever is current");
    assert_eq!(contexts_of(&session, 0), [primary(), primary(), 0, 0]);
    assert_eq!(cu!(library, cuCtxPushCurrent_v2(context: u64)), OK);
    assert_eq!(contexts_of(&session, 0), [context, primary(), one, one]);
    let (mut ours, mut id, mut current_id) = (0u64, 0u64, 0u64);
    let (ours_at, id_at, current_at) = (&raw mut ours, &raw mut id, &raw mut current_id);
    assert_eq!(cu!(library, cuStreamCreate(ours_at: *mut u64, NON_BLOCKING: u32)), OK);
    assert_eq!(contexts_of(&session, ours), [context, primary(), one, one]);
    assert_eq!(cu!(library, cuGreenCtxGetId(0: u64, current_at: *mut u64)), OK);
    assert_eq!(cu!(library, cuGreenCtxGetId(other: u64, id_at: *mut u64)), OK);
    assert_ne!(id, current_id);
    assert_eq!(cu!(library, cuStreamSynchronize(2: u64)), INVALID_HANDLE, "no stream of the thread");
    assert_eq!(cu!(library, cuStreamBeginCapture_v2(0: u64, 0: u32)), CAPTURE_UNSUPPORTED);

    // Memory is the primary context's, and what is queued in the legacy stream goes to the green one's.
    let (mut address, mut owner) = (0u64, 0u64);
    let (address_at, owner_at) = (&raw mut address, (&raw mut owner).cast::<c_void>());
    assert_eq!(cu!(library, cuMemAlloc_v2(address_at: *mut u64, 4096: usize)), OK);
    assert_eq!(cu!(library, cuPointerGetAttribute(owner_at: *mut c_void, 1: u32, address: u64)), OK);
    assert_eq!(owner, primary());
    assert_eq!(cu!(library, cuMemsetD32_v2(address: u64, 7: u32, 4: usize)), OK);
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    let mut left = 0u64;
    let left_at = &raw mut left;
    assert_eq!(cu!(library, cuCtxPopCurrent_v2(left_at: *mut u64)), OK);
    assert_eq!(left, context);
    assert_eq!((destroy(&session, one), destroy(&session, other)), (OK, OK));
    let mut word = 0u32;
    let word_at = (&raw mut word).cast::<c_void>();
    assert_eq!(cu!(library, cuMemcpyDtoH_v2(word_at: *mut c_void, address: u64, 4: usize)), OK);
    assert_eq!((word, cu!(library, cuMemFree_v2(address: u64))), (7, OK), "it outlives the green context");
}

#[test]
fn kernels_in_the_null_stream_go_to_the_current_green_contexts_own() {
    let session = session();
    let library = &session.libcuda;
    let green = create(&session, &[of_device(&session)]);
    let context = as_context(&session, green);
    // Loaded beside the primary context.
    let module = session.load(c"image");
    let fill = session.function(module, c"fill");
    let mut event = 0u64;
    let event_at = &raw mut event;
    assert_eq!(cu!(library, cuEventCreate(event_at: *mut u64, 0: u32)), OK);
    assert_eq!(cu!(library, cuCtxPushCurrent_v2(context: u64)), OK);
    for call in ["stream", "green", "context"] {
        let recorded = match call {
            "stream" => cu!(library, cuEventRecord(event: u64, 0: u64)),
            "green" => cu!(library, cuGreenCtxRecordEvent(green: u64, event: u64)),
            _ => cu!(library, cuCtxRecordEvent(context: u64, event: u64)),
        };
        assert_eq!((recorded, cu!(library, cuEventSynchronize(event: u64))), (OK, OK), "{call}");
    }
    assert_eq!(cu!(library, cuGreenCtxWaitEvent(green: u64, event: u64)), OK);
    session.launch_fill(fill, 0);
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    let stream = session.seen.lock().unwrap().launches.last().unwrap().shape.stream;
    assert!(matches!(stream, Stream::Made(_)), "a stream of its own: {stream:?}");
    let null = std::ptr::null_mut::<u64>();
    assert_eq!(cu!(library, cuCtxPopCurrent_v2(null: *mut u64)), OK);
    session.launch_fill(fill, 0);
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    assert_eq!(session.seen.lock().unwrap().launches.last().unwrap().shape.stream, Stream::Legacy);
    session.unload(module);
    assert_eq!(destroy(&session, green), OK);
}

#[test]
fn what_was_made_in_one_that_is_destroyed_says_so() {
    let session = session();
    let library = &session.libcuda;
    let green = create(&session, &[of_device(&session)]);
    let (context, stream) = (as_context(&session, green), stream_in(&session, green));
    assert_eq!(cu!(library, cuCtxDestroy_v2(context: u64)), INVALID_CONTEXT, "it is not a created one");
    assert_eq!(cu!(library, cuCtxSetCurrent(context: u64)), OK);
    assert_eq!(destroy(&session, green), OK);
    let mut told = 0u64;
    let at = &raw mut told;
    assert_eq!(cu!(library, cuCtxSynchronize()), CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(library, cuMemAlloc_v2(at: *mut u64, 4096: usize)), CONTEXT_IS_DESTROYED);
    let primary = primary();
    assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
    assert_eq!(cu!(library, cuStreamSynchronize(stream: u64)), CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(library, cuStreamGetGreenCtx(stream: u64, at: *mut u64)), CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(library, cuStreamDestroy_v2(stream: u64)), CONTEXT_IS_DESTROYED);
    assert_eq!(destroy(&session, green), CONTEXT_IS_DESTROYED);
    for flags in [0, 2] {
        let green = create(&session, &[of_device(&session)]);
        let made = cu!(library, cuGreenCtxStreamCreate(at: *mut u64, green: u64, flags: u32, 0: i32));
        assert_eq!((made, destroy(&session, green)), (INVALID_VALUE, OK), "it must not block");
    }
}

/// A driver documents that the program leaks them. Here nothing does.
#[test]
fn streams_that_end_with_their_green_contexts_take_no_places() {
    let session = session();
    let library = &session.libcuda;
    let primary = primary();
    assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
    let mut last = None;
    for round in 0..50 {
        let green = create(&session, &[of_device(&session)]);
        let streams = [(); 3].map(|()| stream_in(&session, green));
        for stream in streams {
            let place = StreamHandle::parse(stream).unwrap().index();
            assert!(place < 4, "round {round}: place {place}");
            assert_eq!(cu!(library, cuStreamSynchronize(stream: u64)), OK);
        }
        assert_eq!(destroy(&session, green), OK);
        for stream in streams {
            assert_eq!(cu!(library, cuStreamSynchronize(stream: u64)), CONTEXT_IS_DESTROYED);
        }
        if let Some(old) = last.replace(streams[0]) {
            assert_eq!(cu!(library, cuStreamSynchronize(old: u64)), INVALID_HANDLE, "another has its number");
        }
    }
}

/// The graph is the program's, and its nodes the primary context's.
#[test]
fn what_was_captured_in_its_stream_outlives_it_and_what_it_was_capturing_ends() {
    let session = session();
    let library = &session.libcuda;
    let module = session.load(c"image");
    let fill = session.function(module, c"fill");
    let green = create(&session, &[of_device(&session)]);
    let stream = stream_in(&session, green);
    let (primary, null) = (primary(), std::ptr::null_mut::<u64>());
    assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
    let (mut graph, mut exec) = (0u64, 0u64);
    let (graph_at, exec_at) = (&raw mut graph, &raw mut exec);
    assert_eq!(cu!(library, cuStreamBeginCapture_v2(stream: u64, 0: u32)), OK);
    session.launch_fill(fill, stream);
    assert_eq!(cu!(library, cuStreamEndCapture(stream: u64, graph_at: *mut u64)), OK);
    assert_eq!(cu!(library, cuGraphInstantiateWithFlags(exec_at: *mut u64, graph: u64, 0: u64)), OK);
    assert_eq!(cu!(library, cuStreamBeginCapture_v2(stream: u64, 0: u32)), OK);
    assert_eq!(destroy(&session, green), OK);
    // Nobody captures any more: else a call that waits would be refused.
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    assert_eq!(cu!(library, cuStreamEndCapture(stream: u64, null: *mut u64)), CONTEXT_IS_DESTROYED);
    assert_eq!(cu!(library, cuGraphLaunch(exec: u64, 0: u64)), OK);
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    assert_eq!(cu!(library, cuGraphExecDestroy(exec: u64)), OK);
    assert_eq!(cu!(library, cuGraphDestroy(graph: u64)), OK);
    session.unload(module);
}

#[test]
fn one_holds_its_primary_context_and_ends_with_it() {
    let session = session();
    let library = &session.libcuda;
    let (mut all, mut green) = (NOTHING, 0u64);
    let (all_at, at) = (&raw mut all, &raw mut green);
    assert_eq!(cu!(library, cuDeviceGetDevResource(1: i32, all_at: *mut Resource, 1: u32)), OK);
    let (_, described) = describe(&session, &[all]);
    for end in ["destroy", "reset", "release"] {
        assert_eq!(is_active(&session), 0, "{end}");
        assert_eq!(cu!(library, cuGreenCtxCreate(at: *mut u64, described: u64, 1: i32, 1: u32)), OK);
        assert_eq!(is_active(&session), 1, "{end}: made, and held");
        let ended = match end {
            "destroy" => OK,
            "reset" => cu!(library, cuDevicePrimaryCtxReset_v2(1: i32)),
            _ => cu!(library, cuDevicePrimaryCtxRelease_v2(1: i32)),
        };
        let gone = if end == "destroy" { OK } else { CONTEXT_IS_DESTROYED };
        assert_eq!((ended, destroy(&session, green), is_active(&session)), (OK, gone, 0), "{end}");
    }
}

#[test]
fn a_handle_of_its_legacy_stream_is_never_a_programs() {
    let session = session();
    let green = create(&session, &[of_device(&session)]);
    let context = as_context(&session, green);
    assert_eq!(cu!(session.libcuda, cuCtxPushCurrent_v2(context: u64)), OK);
    let mut id = 0u64;
    let at = &raw mut id;
    assert_eq!(cu!(session.libcuda, cuStreamGetId(0: u64, at: *mut u64)), OK);
    assert_eq!(id, 7, "as of every context's");
    assert!(StreamHandle::parse(id).is_none());
    let null = std::ptr::null_mut::<u64>();
    assert_eq!(cu!(session.libcuda, cuCtxPopCurrent_v2(null: *mut u64)), OK);
    assert_eq!(destroy(&session, green), OK);
}
