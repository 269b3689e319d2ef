//! Captures and graphs, from the C border to a device of a few lines and back.

mod support;

use std::ffi::c_void;

use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_HANDLE: u32 = 400;
const ILLEGAL_STATE: u32 = 401;
const LOSSY_QUERY: u32 = 402;
const NOT_SUPPORTED: u32 = 801;
const UNSUPPORTED: u32 = 900;
const INVALIDATED: u32 = 901;
const MERGE: u32 = 902;
const UNMATCHED: u32 = 903;
const UNJOINED: u32 = 904;
const ISOLATION: u32 = 905;
const IMPLICIT: u32 = 906;
const CAPTURED_EVENT: u32 = 907;
const WRONG_THREAD: u32 = 908;
const UPDATE_FAILURE: u32 = 910;

const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;
const NON_BLOCKING: u32 = 1;

/// Makes something by a call whose first parameter is where it goes.
macro_rules! made {
    ($session:expr, $name:ident($($value:tt: $t:ty),*)) => {{
        let mut made = 0u64;
        let place = &raw mut made;
        assert_eq!(cu!($session.libcuda, $name(place: *mut u64 $(, $value: $t)*)), OK, stringify!($name));
        made
    }};
}

fn stream(session: &Session, flags: u32) -> u64 {
    made!(session, cuStreamCreate(flags: u32))
}

fn event(session: &Session) -> u64 {
    made!(session, cuEventCreate(0: u32))
}

fn function(session: &Session) -> u64 {
    let (image, name) = (c".version 8.0 graphs".as_ptr(), c"fill".as_ptr());
    let module = made!(session, cuModuleLoadData(image: *const i8));
    made!(session, cuModuleGetFunction(module: u64, name: *const i8))
}

/// Device memory of 256 bytes of zeros.
fn memory(session: &Session) -> u64 {
    let address = made!(session, cuMemAlloc_v2(256: usize));
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(address: u64, 0: u8, 256: usize)), OK);
    address
}

/// Launches `fill(memory, value, 4)`: four words.
fn fill(session: &Session, function: u64, memory: u64, value: u32, stream: u64) -> u32 {
    let count = 4u32;
    let params = [(&raw const memory).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    let (list, null) = (params.as_ptr(), std::ptr::null::<*const c_void>());
    let (one, none) = (1u32, 0u32);
    cu!(session.libcuda, cuLaunchKernel(function: u64, one: u32, one: u32, one: u32, one: u32, one: u32, one: u32,
        none: u32, stream: u64, list: *const *const c_void, null: *const *const c_void))
}

fn words(session: &Session, address: u64) -> [u32; 4] {
    let mut words = [0u32; 4];
    let place = words.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(place: *mut u32, address: u64, 16: usize)), OK);
    words
}

fn begin(session: &Session, stream: u64, mode: u32) -> u32 {
    cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, mode: u32))
}

fn end(session: &Session, stream: u64) -> (u32, u64) {
    let mut graph = 9u64;
    let place = &raw mut graph;
    (cu!(session.libcuda, cuStreamEndCapture(stream: u64, place: *mut u64)), graph)
}

fn status(session: &Session, stream: u64) -> (u32, u32) {
    let mut status = 9u32;
    let place = &raw mut status;
    (cu!(session.libcuda, cuStreamIsCapturing(stream: u64, place: *mut u32)), status)
}

fn instantiate(session: &Session, graph: u64) -> u64 {
    made!(session, cuGraphInstantiateWithFlags(graph: u64, 0: u64))
}

fn launch(session: &Session, exec: u64, stream: u64) -> u32 {
    cu!(session.libcuda, cuGraphLaunch(exec: u64, stream: u64))
}

fn nodes(session: &Session, graph: u64) -> Vec<u64> {
    let mut count = 0usize;
    let (count_at, null) = (&raw mut count, std::ptr::null_mut::<u64>());
    assert_eq!(cu!(session.libcuda, cuGraphGetNodes(graph: u64, null: *mut u64, count_at: *mut usize)), OK);
    let mut nodes = vec![0; count];
    let place = nodes.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphGetNodes(graph: u64, place: *mut u64, count_at: *mut usize)), OK);
    nodes
}

fn kind(session: &Session, node: u64) -> u32 {
    let mut kind = 99u32;
    let place = &raw mut kind;
    assert_eq!(cu!(session.libcuda, cuGraphNodeGetType(node: u64, place: *mut u32)), OK);
    kind
}

fn dependencies(session: &Session, node: u64) -> Vec<u64> {
    let (mut nodes, mut count) = ([0u64; 8], 8usize);
    let (place, count_at) = (nodes.as_mut_ptr(), &raw mut count);
    assert_eq!(
        cu!(session.libcuda, cuGraphNodeGetDependencies(node: u64, place: *mut u64, count_at: *mut usize)),
        OK
    );
    nodes[..count].to_vec()
}

fn set_mode(session: &Session, mode: u32) -> u32 {
    let mut mode = mode;
    let place = &raw mut mode;
    assert_eq!(cu!(session.libcuda, cuThreadExchangeStreamCaptureMode(place: *mut u32)), OK);
    mode
}

/// A batch of two copies, of 16 bytes each, in an order of access to their sources.
fn batch(session: &Session, to: u64, from: u64, order: u32, stream: u64) -> u32 {
    let (to, from, sizes) = ([to, to + 16], [from, from + 16], [16usize; 2]);
    let (attributes, first, mut failed) = ([order, 0, 0, 0, 0, 0], 0usize, 9usize);
    let (to, from, sizes, failed) = (to.as_ptr(), from.as_ptr(), sizes.as_ptr(), &raw mut failed);
    let (attributes, first) = (attributes.as_ptr(), &raw const first);
    cu!(session.libcuda, cuMemcpyBatchAsync(to: *const u64, from: *const u64, sizes: *const usize, 2: usize,
        attributes: *const u32, first: *const usize, 1: usize, failed: *mut usize, stream: u64))
}

fn record(session: &Session, event: u64, stream: u64) -> u32 {
    cu!(session.libcuda, cuEventRecord(event: u64, stream: u64))
}

fn wait(session: &Session, stream: u64, event: u64) -> u32 {
    cu!(session.libcuda, cuStreamWaitEvent(stream: u64, event: u64, 0: u32))
}

/// Ends everything that a test made: the next begins with a fresh context.
fn reset(session: &Session) {
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxReset_v2(0: i32)), OK);
}

#[test]
fn what_is_captured_runs_at_a_launch_and_not_before_and_no_question_travels() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, NON_BLOCKING));
    assert_eq!(fill(&session, kernel, at, 1, side), OK);
    assert_eq!(words(&session, at), [1; 4]);
    let before = session.call_count();
    assert_eq!(status(&session, side), (OK, 0));
    assert_eq!(begin(&session, side, GLOBAL), OK);
    assert_eq!(begin(&session, side, GLOBAL), ILLEGAL_STATE);
    assert_eq!(status(&session, side), (OK, 1));
    assert_eq!(fill(&session, kernel, at, 7, side), OK);
    let (from, to, twelve) = (at, at + 16, 16usize);
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoDAsync_v2(to: u64, from: u64, twelve: usize, side: u64)), OK);
    let further = at + 32;
    assert_eq!(cu!(session.libcuda, cuMemsetD32Async(further: u64, 5: u32, 4: usize, side: u64)), OK);
    let (code, graph) = end(&session, side);
    assert_eq!(code, OK);
    let made = nodes(&session, graph);
    assert_eq!(made.iter().map(|node| kind(&session, *node)).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(dependencies(&session, made[2]), [made[1]]);
    assert_eq!(session.call_count(), before, "all of it in the process");
    assert_eq!(words(&session, at), [1; 4], "nothing has run");

    let exec = instantiate(&session, graph);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
    for _ in 0..2 {
        let cleared = cu!(session.libcuda, cuMemsetD8_v2(at: u64, 0: u8, 256: usize));
        assert_eq!((cleared, launch(&session, exec, side)), (OK, OK));
        assert_eq!(
            (words(&session, at), words(&session, to), words(&session, further)),
            ([7; 4], [7; 4], [5; 4])
        );
    }
    assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
    assert_eq!(launch(&session, exec, side), INVALID_HANDLE);
    reset(&session);
}

#[test]
fn a_launch_of_a_graph_is_one_record() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, NON_BLOCKING));
    assert_eq!(begin(&session, side, RELAXED), OK);
    (0..100).for_each(|value| assert_eq!(fill(&session, kernel, at, value, side), OK));
    let exec = instantiate(&session, end(&session, side).1);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let seen = || session.seen.lock().unwrap().calls.clone();
    let before = seen().len();
    assert_eq!(launch(&session, exec, side), OK);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let calls = seen()[before..].to_vec();
    let asked: Vec<_> = calls.iter().filter(|call| **call != "launch").collect();
    assert_eq!(asked, [&"graph launch", &"ctx sync"], "the kernels run at the worker");
    assert_eq!(words(&session, at), [99; 4]);
    reset(&session);
}

#[test]
fn events_spread_a_capture_to_other_streams_and_bring_it_back() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let (one, two) = (stream(&session, NON_BLOCKING), stream(&session, NON_BLOCKING));
    let (fork, join) = (event(&session), event(&session));
    assert_eq!(begin(&session, one, GLOBAL), OK);
    assert_eq!(fill(&session, kernel, at, 1, one), OK);
    assert_eq!((record(&session, fork, one), wait(&session, two, fork)), (OK, OK));
    assert_eq!(status(&session, two), (OK, 1));
    assert_eq!(fill(&session, kernel, at + 16, 2, two), OK);
    assert_eq!(fill(&session, kernel, at + 32, 3, one), OK);
    assert_eq!((record(&session, join, two), wait(&session, one, join)), (OK, OK));
    assert_eq!(fill(&session, kernel, at + 48, 4, one), OK);
    assert_eq!(end(&session, two).0, UNMATCHED);
    assert_eq!(end(&session, one).0, INVALIDATED, "by that");
    assert_eq!(status(&session, two), (OK, 0));

    assert_eq!(begin(&session, one, GLOBAL), OK);
    assert_eq!(fill(&session, kernel, at, 1, one), OK);
    assert_eq!((record(&session, fork, one), wait(&session, two, fork)), (OK, OK));
    assert_eq!(fill(&session, kernel, at + 16, 2, two), OK);
    assert_eq!(fill(&session, kernel, at + 32, 3, one), OK);
    assert_eq!((record(&session, join, two), wait(&session, one, join)), (OK, OK));
    assert_eq!(fill(&session, kernel, at + 48, 4, one), OK);
    let (code, graph) = end(&session, one);
    assert_eq!(code, OK);
    let made = nodes(&session, graph);
    assert_eq!(dependencies(&session, made[1]), [made[0]]);
    assert_eq!(dependencies(&session, made[2]), [made[0]]);
    assert_eq!(dependencies(&session, made[3]), [made[2], made[1]]);
    let exec = instantiate(&session, graph);
    let edges = session.seen.lock().unwrap().graphs.last().cloned().unwrap();
    assert_eq!(edges, [vec![], vec![0], vec![0], vec![2, 1]]);
    assert_eq!(launch(&session, exec, 0), OK);
    let of = |place: u64| words(&session, at + 16 * place)[0];
    assert_eq!((of(0), of(1), of(2), of(3)), (1, 2, 3, 4));

    // What is left of the fork in a stream that does not come back.
    assert_eq!(begin(&session, one, GLOBAL), OK);
    assert_eq!(fill(&session, kernel, at, 1, one), OK);
    assert_eq!((record(&session, fork, one), wait(&session, two, fork)), (OK, OK));
    assert_eq!(fill(&session, kernel, at, 1, two), OK);
    assert_eq!(end(&session, one), (UNJOINED, 0));
    assert_eq!((status(&session, one), status(&session, two)), ((OK, 0), (OK, 0)));
    // An event that was never recorded is nothing to wait for.
    let never = made!(session, cuEventCreate(0: u32));
    assert_eq!((begin(&session, one, GLOBAL), wait(&session, one, never)), (OK, OK));
    let (code, nothing) = end(&session, one);
    assert_eq!((code, nodes(&session, nothing)), (OK, vec![]));
    // An event of a capture that goes on, and of one that has ended.
    assert_eq!((begin(&session, one, GLOBAL), record(&session, fork, one)), (OK, OK));
    assert_eq!(cu!(session.libcuda, cuEventQuery(fork: u64)), CAPTURED_EVENT);
    assert_eq!(end(&session, one), (INVALIDATED, 0));
    assert_eq!(cu!(session.libcuda, cuEventQuery(fork: u64)), INVALID_VALUE);
    assert_eq!(cu!(session.libcuda, cuEventSynchronize(fork: u64)), INVALID_VALUE);
    assert_eq!(wait(&session, two, fork), INVALID_VALUE);
    let context = made!(session, cuCtxGetCurrent());
    assert_eq!(cu!(session.libcuda, cuCtxWaitEvent(context: u64, fork: u64)), INVALID_VALUE);
    assert_eq!(cu!(session.libcuda, cuCtxRecordEvent(context: u64, fork: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxWaitEvent(context: u64, fork: u64)), OK);
    assert_eq!(record(&session, fork, two), OK);
    assert_eq!(cu!(session.libcuda, cuEventQuery(fork: u64)), OK);
    reset(&session);
}

type HostFn = unsafe extern "C" fn(*mut c_void);
type StreamCallback = unsafe extern "C" fn(u64, u32, *mut c_void);

unsafe extern "C" fn nothing(_: *mut c_void) {
    panic!("what a capture refuses does not run");
}

unsafe extern "C" fn untold(_: u64, _: u32, _: *mut c_void) {
    panic!("what a capture refuses does not run");
}

#[test]
fn what_breaks_the_rules_of_a_capture_invalidates_it() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let (side, other) = (stream(&session, NON_BLOCKING), stream(&session, NON_BLOCKING));
    let outside = event(&session);
    assert_eq!(record(&session, outside, other), OK);
    let mut word = 0u64;
    let (place, null) = (&raw mut word, std::ptr::null_mut::<u64>());
    let context = made!(session, cuCtxGetCurrent());
    // Eight floats.
    let shape = [8u64, 0, 0x20 | 1 << 32];
    let shape = shape.as_ptr();
    let array = made!(session, cuArrayCreate_v2(shape: *const u64));
    let (nothing, untold) = (Some(nothing as HostFn), Some(untold as StreamCallback));
    let pool = made!(session, cuDeviceGetDefaultMemPool(0: i32));
    let pinned = made!(session, cuMemHostAlloc(64: usize, 0: u32));
    let breaks: [(&str, u32, &dyn Fn() -> u32); 21] = [
        ("allocation", UNSUPPORTED, &|| cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, 64: usize))),
        ("freeing", UNSUPPORTED, &|| cu!(session.libcuda, cuMemFree_v2(at: u64))),
        (
            "pinned memory",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuMemHostAlloc(place: *mut u64, 64: usize, 0: u32)),
        ),
        ("waiting for it", UNSUPPORTED, &|| cu!(session.libcuda, cuStreamSynchronize(side: u64))),
        ("asking another", UNSUPPORTED, &|| cu!(session.libcuda, cuStreamQuery(other: u64))),
        ("the context", UNSUPPORTED, &|| cu!(session.libcuda, cuCtxSynchronize())),
        (
            "a copy that waits",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuMemcpyDtoH_v2(place: *mut u64, at: u64, 8: usize)),
        ),
        (
            "stream-ordered memory",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuMemAllocAsync(place: *mut u64, 64: usize, side: u64)),
        ),
        (
            "memory of a pool",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuMemAllocFromPoolAsync(place: *mut u64, 64: usize, pool: u64, side: u64)),
        ),
        ("freeing in order", UNSUPPORTED, &|| cu!(session.libcuda, cuMemFreeAsync(at: u64, side: u64))),
        (
            "a word to write",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuStreamWriteValue32_v2(side: u64, at: u64, 1: u32, 0: u32)),
        ),
        (
            "a word to wait for",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuStreamWaitValue64_v2(side: u64, at: u64, 1: u64, 0: u32)),
        ),
        ("the end of pinned memory", UNSUPPORTED, &|| cu!(session.libcuda, cuMemFreeHost(pinned: u64))),
        ("sources of a batch that are only there now", UNSUPPORTED, &|| {
            batch(&session, at, at + 64, 2, side)
        }),
        ("an event of elsewhere", ISOLATION, &|| wait(&session, side, outside)),
        (
            "an array",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuArrayCreate_v2(place: *mut u64, shape: *const u64)),
        ),
        (
            "a copy to an array",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuMemcpyHtoAAsync_v2(array: u64, 0: usize, place: *mut u64, 8: usize, side: u64)),
        ),
        (
            "a function of the program",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuLaunchHostFunc(side: u64, nothing: Option<HostFn>, 0: usize)),
        ),
        (
            "a callback",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuStreamAddCallback(side: u64, untold: Option<StreamCallback>, 0: usize, 0: u32)),
        ),
        (
            "an event of all streams",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuCtxRecordEvent(context: u64, outside: u64)),
        ),
        (
            "a wait of all streams",
            UNSUPPORTED,
            &|| cu!(session.libcuda, cuCtxWaitEvent(context: u64, outside: u64)),
        ),
    ];
    for (what, code, call) in breaks {
        assert_eq!(begin(&session, side, GLOBAL), OK);
        assert_eq!(fill(&session, kernel, at, 1, side), OK);
        assert_eq!(call(), code, "{what}");
        assert_eq!(status(&session, side), (OK, 2), "{what}");
        assert_eq!(fill(&session, kernel, at, 1, side), INVALIDATED, "{what}");
        assert_eq!(end(&session, side), (INVALIDATED, 0), "{what}");
        assert_eq!(status(&session, side), (OK, 0), "{what}");
    }
    let _ = null;
    assert_eq!(words(&session, at), [0; 4], "nothing of it has run");
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(at: u64)), OK, "nor was it freed");
    assert_eq!(cu!(session.libcuda, cuMemFreeHost(pinned: u64)), OK);
    assert_eq!(begin(&session, 0, GLOBAL), UNSUPPORTED);
    assert_eq!(begin(&session, side, 3), INVALID_VALUE);
    assert_eq!(end(&session, side).0, ILLEGAL_STATE);
    reset(&session);
}

#[test]
fn a_batch_of_copies_becomes_as_many_nodes() {
    let session = session();
    let (at, side, mut bytes) = (memory(&session), stream(&session, NON_BLOCKING), [7u8; 32]);
    assert_eq!(begin(&session, side, GLOBAL), OK);
    assert_eq!(batch(&session, at, bytes.as_ptr() as u64, 1, side), OK);
    assert_eq!(batch(&session, at + 32, at, 3, side), OK);
    let (code, graph) = end(&session, side);
    let made = nodes(&session, graph);
    assert_eq!((code, made.len(), dependencies(&session, made[3])), (OK, 4, vec![made[2]]));
    let exec = instantiate(&session, graph);
    bytes.fill(8);
    assert_eq!(launch(&session, exec, side), OK);
    assert_eq!(words(&session, at + 48), [0x0808_0808; 4], "sources are read at the launch");
    reset(&session);
}

#[test]
fn a_mode_says_whose_unsafe_calls_break_a_capture() {
    let session = session();
    let side = stream(&session, NON_BLOCKING);
    let alloc = || {
        let mut address = 0u64;
        let place = &raw mut address;
        cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, 64: usize))
    };
    let primary = vgpu_api::ContextId::primary(0).handle().raw();
    let in_another_thread = |mode: u32, call: &(dyn Fn() -> u32 + Sync)| {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
                assert_eq!(set_mode(&session, mode), GLOBAL);
                call()
            });
            there.join().unwrap()
        })
    };
    for (capture, thread, here, there) in [
        (GLOBAL, GLOBAL, UNSUPPORTED, UNSUPPORTED),
        (GLOBAL, THREAD_LOCAL, UNSUPPORTED, OK),
        (GLOBAL, RELAXED, OK, OK),
        (THREAD_LOCAL, GLOBAL, UNSUPPORTED, OK),
        (THREAD_LOCAL, RELAXED, OK, OK),
        (RELAXED, GLOBAL, OK, OK),
    ] {
        assert_eq!(begin(&session, side, capture), OK);
        assert_eq!(in_another_thread(thread, &alloc), there, "{capture} {thread}");
        let invalid = if there == OK { 1 } else { 2 };
        assert_eq!(status(&session, side), (OK, invalid));
        let _ = end(&session, side);
        assert_eq!(begin(&session, side, capture), OK);
        set_mode(&session, thread);
        assert_eq!(alloc(), here, "{capture} {thread}");
        set_mode(&session, GLOBAL);
        let _ = end(&session, side);
    }
    let end_there = || end(&session, side).0;
    assert_eq!(begin(&session, side, THREAD_LOCAL), OK);
    assert_eq!(in_another_thread(GLOBAL, &end_there), WRONG_THREAD);
    assert_eq!(end(&session, side).0, OK);
    assert_eq!(begin(&session, side, RELAXED), OK);
    assert_eq!(in_another_thread(GLOBAL, &end_there), OK);
    reset(&session);
}

#[test]
fn the_legacy_stream_may_not_wait_for_a_blocking_stream_that_captures() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let (blocking, apart) = (stream(&session, 0), stream(&session, NON_BLOCKING));
    assert_eq!(begin(&session, apart, RELAXED), OK);
    assert_eq!(fill(&session, kernel, at, 3, 0), OK, "it waits for no such stream");
    assert_eq!(end(&session, apart).0, OK);
    assert_eq!(words(&session, at), [3; 4]);
    assert_eq!(begin(&session, blocking, RELAXED), OK);
    assert_eq!(status(&session, 0).0, IMPLICIT);
    assert_eq!(status(&session, blocking), (OK, 1), "a question breaks nothing");
    assert_eq!(fill(&session, kernel, at, 4, 0), IMPLICIT);
    assert_eq!(end(&session, blocking), (INVALIDATED, 0));
    let mark = event(&session);
    assert_eq!(begin(&session, apart, RELAXED), OK);
    assert_eq!(record(&session, mark, apart), OK);
    assert_eq!(wait(&session, 0, mark), IMPLICIT);
    assert_eq!(end(&session, apart), (INVALIDATED, 0));
    reset(&session);
}

#[test]
fn a_wait_with_flags_that_there_are_not_is_refused_and_breaks_no_capture() {
    let session = session();
    let (side, mark) = (stream(&session, NON_BLOCKING), event(&session));
    let wait_with = |flags: u32| cu!(session.libcuda, cuStreamWaitEvent(side: u64, mark: u64, flags: u32));
    assert_eq!((record(&session, mark, side), wait_with(2)), (OK, INVALID_VALUE));
    assert_eq!((begin(&session, side, RELAXED), record(&session, mark, side)), (OK, OK));
    assert_eq!((wait_with(2), wait_with(3), status(&session, side)), (INVALID_VALUE, INVALID_VALUE, (OK, 1)));
    assert_eq!((wait_with(1), end(&session, side).0), (OK, OK), "an event of outside, at each launch");
    reset(&session);
}

#[test]
fn two_captures_do_not_become_one() {
    let session = session();
    let (one, two) = (stream(&session, NON_BLOCKING), stream(&session, NON_BLOCKING));
    let mark = event(&session);
    assert_eq!((begin(&session, one, RELAXED), begin(&session, two, RELAXED)), (OK, OK));
    assert_eq!(record(&session, mark, one), OK);
    assert_eq!(wait(&session, two, mark), MERGE);
    assert_eq!((end(&session, one).0, end(&session, two).0), (INVALIDATED, INVALIDATED));
    reset(&session);
}

#[test]
fn a_program_sees_and_changes_what_the_next_node_waits_for() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, NON_BLOCKING));
    assert_eq!(begin(&session, side, THREAD_LOCAL), OK);
    assert_eq!(fill(&session, kernel, at, 1, side), OK);
    let (mut status, mut id, mut graph, mut list, mut edges, mut count) =
        (9u32, 0u64, 0u64, 0u64, 0u64, 9usize);
    let (status_at, id_at, graph_at) = (&raw mut status, &raw mut id, &raw mut graph);
    let (list_at, edges_at, count_at) = (&raw mut list, &raw mut edges, &raw mut count);
    let info = || {
        cu!(session.libcuda, cuStreamGetCaptureInfo_v3(side: u64, status_at: *mut u32, id_at: *mut u64,
            graph_at: *mut u64, list_at: *mut u64, edges_at: *mut u64, count_at: *mut usize))
    };
    assert_eq!(info(), OK);
    // SAFETY: the library keeps them while the stream is not used.
    let first = unsafe { *(list as *const u64) };
    assert_eq!((status, id != 0, count, nodes(&session, graph)), (1, true, 1, vec![first]));
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), INVALID_VALUE, "it is the capture's");
    assert_eq!(cu!(session.libcuda, cuGraphDestroyNode(first: u64)), INVALID_VALUE);
    let mut added = 0u64;
    let (added_at, first_at) = (&raw mut added, &raw const first);
    assert_eq!(
        cu!(session.libcuda, cuGraphAddEmptyNode(added_at: *mut u64, graph: u64, first_at: *const u64, 1: usize)),
        OK
    );
    let set = |flags: u32| cu!(session.libcuda, cuStreamUpdateCaptureDependencies(side: u64, added_at: *mut u64, 1: usize, flags: u32));
    assert_eq!((set(2), set(1)), (INVALID_VALUE, OK));
    assert_eq!(fill(&session, kernel, at, 2, side), OK);
    let (code, ended) = end(&session, side);
    assert_eq!((code, ended), (OK, graph));
    assert_eq!(set(0), ILLEGAL_STATE);
    let made = nodes(&session, graph);
    assert_eq!(dependencies(&session, made[2]), [added]);
    assert_eq!((info(), status), (OK, 0));

    // A capture into a graph of the program's.
    let (null, last) = (std::ptr::null::<u64>(), made[2]);
    let last_at = &raw const last;
    assert_eq!(
        cu!(session.libcuda, cuStreamBeginCaptureToGraph(side: u64, graph: u64, last_at: *const u64,
            null: *const u64, 1: usize, RELAXED: u32)),
        OK
    );
    assert_eq!(fill(&session, kernel, at, 3, side), OK);
    assert_eq!(end(&session, side), (OK, graph));
    let made = nodes(&session, graph);
    assert_eq!((made.len(), dependencies(&session, made[3])), (4, vec![last]));
    reset(&session);
}

/// `CUDA_KERNEL_NODE_PARAMS_v2` for `fill(memory, value, 4)`.
fn kernel_params(function: u64, params: &[*const c_void; 3]) -> [u64; 9] {
    let one = 1 | 1 << 32;
    // func, grid x y, grid z and block x, block y z, shared, params, extra, kern, ctx.
    [function, one, one, one, 0, params.as_ptr() as u64, 0, 0, 0]
}

fn add_kernel(session: &Session, graph: u64, needs: &[u64], function: u64, memory: u64, value: u32) -> u64 {
    let count = 4u32;
    let params = [(&raw const memory).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    let given = kernel_params(function, &params);
    let (given_at, needs_at, needs_count) = (given.as_ptr(), needs.as_ptr(), needs.len());
    made!(session, cuGraphAddKernelNode_v2(graph: u64, needs_at: *const u64, needs_count: usize, given_at: *const u64))
}

/// `CUDA_MEMCPY3D` of `bytes` in a row: kind (1 host, 2 device) and address of each side.
fn copy_params(from: (u64, u64), to: (u64, u64), bytes: u64) -> [u64; 25] {
    let side = |(kind, address): (u64, u64)| {
        let (host, device) = if kind == 1 { (address, 0) } else { (0, address) };
        [0, 0, 0, 0, kind, host, device, 0, 0, 0, 0]
    };
    let all: Vec<u64> = [&side(from)[..], &side(to), &[bytes, 1, 1]].concat();
    all.try_into().unwrap()
}

fn add_copy(session: &Session, graph: u64, needs: &[u64], params: &[u64; 25]) -> u64 {
    let context = vgpu_api::ContextId::primary(0).handle().raw();
    let (needs_at, count, params_at) = (needs.as_ptr(), needs.len(), params.as_ptr());
    made!(session, cuGraphAddMemcpyNode(graph: u64, needs_at: *const u64, count: usize, params_at: *const u64, context: u64))
}

#[test]
fn a_graph_of_single_nodes_does_what_they_say_in_the_order_of_its_edges() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let (mut input, mut output) = ([11u32, 12, 13, 14], [0u32; 8]);
    let graph = made!(session, cuGraphCreate(0: u32));
    let read = add_copy(&session, graph, &[], &copy_params((1, input.as_ptr() as u64), (2, at), 16));
    let (host, from) = (output.as_mut_ptr() as u64, at);
    let write = add_copy(&session, graph, &[], &copy_params((2, from), (1, host), 32));
    let filled = add_kernel(&session, graph, &[], kernel, at + 16, 7);
    let (ends, none) = ([read, filled], 0u32);
    let (from_at, to) = (ends.as_ptr(), [write, write]);
    let to_at = to.as_ptr();
    let connect = || cu!(session.libcuda, cuGraphAddDependencies(graph: u64, from_at: *const u64, to_at: *const u64, 2: usize));
    assert_eq!((connect(), connect()), (OK, INVALID_VALUE), "an edge is there once");
    assert_eq!(dependencies(&session, write), [read, filled]);
    let _ = none;
    let exec = instantiate(&session, graph);
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!(output, [11, 12, 13, 14, 7, 7, 7, 7]);
    input.reverse();
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!(output[..4], [14, 13, 12, 11], "memory of the program is read at each launch");

    // Other parameters for what was instantiated; the graph stays as it was.
    let (memory, value, count) = (at + 16, 8u32, 4u32);
    let params = [(&raw const memory).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    let given = kernel_params(kernel, &params);
    let given_at = given.as_ptr();
    let set = |node: u64| cu!(session.libcuda, cuGraphExecKernelNodeSetParams_v2(exec: u64, node: u64, given_at: *const u64));
    assert_eq!((set(filled), set(read), set(graph)), (OK, INVALID_VALUE, INVALID_VALUE));
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!(output[4..], [8; 4]);
    let mut enabled = 9u32;
    let enabled_at = &raw mut enabled;
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetEnabled(exec: u64, filled: u64, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuGraphNodeGetEnabled(exec: u64, filled: u64, enabled_at: *mut u32)), OK);
    let further = at + 16;
    assert_eq!((enabled, cu!(session.libcuda, cuMemsetD8_v2(further: u64, 0: u8, 16: usize))), (0, OK));
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!(output[4..], [0; 4]);
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetEnabled(exec: u64, filled: u64, 1: u32)), OK);
    assert_eq!((launch(&session, exec, 0), output[4]), (OK, 8));

    // A ring is no graph that can be launched.
    let (write_at, read_at) = (&raw const write, &raw const read);
    assert_eq!(
        cu!(session.libcuda, cuGraphAddDependencies(graph: u64, write_at: *const u64, read_at: *const u64, 1: usize)),
        OK
    );
    let mut refused = 0u64;
    let refused_at = &raw mut refused;
    let again =
        || cu!(session.libcuda, cuGraphInstantiateWithFlags(refused_at: *mut u64, graph: u64, 0: u64));
    assert_eq!(again(), INVALID_VALUE);
    assert_eq!(
        cu!(session.libcuda, cuGraphRemoveDependencies(graph: u64, write_at: *const u64, read_at: *const u64, 1: usize)),
        OK
    );
    assert_eq!(again(), OK);
    for (flags, code) in
        [(4u64, NOT_SUPPORTED), (5, INVALID_VALUE), (16, INVALID_VALUE), (2, INVALID_VALUE), (9, OK)]
    {
        assert_eq!(
            cu!(session.libcuda, cuGraphInstantiateWithFlags(refused_at: *mut u64, graph: u64, flags: u64)),
            code
        );
    }
    let mut flags = 0u64;
    let flags_at = &raw mut flags;
    assert_eq!(cu!(session.libcuda, cuGraphExecGetFlags(refused: u64, flags_at: *mut u64)), OK);
    assert_eq!(flags, 9);
    reset(&session);
    assert_eq!(launch(&session, exec, 0), INVALID_HANDLE, "it went with its context");
}

#[test]
fn host_memory_that_a_graph_writes_and_reads_is_refused() {
    let session = session();
    let (at, mut host) = (memory(&session), [0u32; 8]);
    let graph = made!(session, cuGraphCreate(0: u32));
    let place = host.as_mut_ptr() as u64;
    let out = add_copy(&session, graph, &[], &copy_params((2, at), (1, place), 16));
    let apart = copy_params((1, place + 16), (2, at), 16);
    let read = add_copy(&session, graph, &[out], &apart);
    let exec = instantiate(&session, graph);
    let (meets, null) = (copy_params((1, place + 12), (2, at), 16), 0u64);
    let (apart_at, meets_at) = (apart.as_ptr(), meets.as_ptr());
    let set = |params: *const u64| cu!(session.libcuda, cuGraphExecMemcpyNodeSetParams(exec: u64, read: u64, params: *const u64, null: u64));
    assert_eq!((set(meets_at), set(apart_at)), (NOT_SUPPORTED, OK));
    assert_eq!(cu!(session.libcuda, cuGraphMemcpyNodeSetParams(read: u64, meets_at: *const u64)), OK);
    let mut exec = 0u64;
    let exec_at = &raw mut exec;
    assert_eq!(
        cu!(session.libcuda, cuGraphInstantiateWithFlags(exec_at: *mut u64, graph: u64, 0: u64)),
        NOT_SUPPORTED
    );
    reset(&session);
}

#[test]
fn a_node_gives_back_its_parameters_and_takes_others() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let graph = made!(session, cuGraphCreate(0: u32));
    let node = add_kernel(&session, graph, &[], kernel, at, 21);
    let mut given = [0u64; 9];
    let given_at = given.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphKernelNodeGetParams_v2(node: u64, given_at: *mut u64)), OK);
    let second = (given[5] as *const u64).wrapping_add(1);
    // SAFETY: the library keeps the list while the node lives.
    let place = unsafe { *second } as *const u32;
    // SAFETY: and the values.
    let value = unsafe { *place };
    assert_eq!((given[0], given[7], given[1], value), (kernel, kernel, 1 | 1 << 32, 21));
    assert_eq!(
        cu!(session.libcuda, cuGraphKernelNodeSetParams_v2(node: u64, given_at: *const u64)),
        OK,
        "as they were"
    );
    let (cluster, mut back) = ([1u32; 16], [0u32; 16]);
    let (cluster_at, back_at) = (cluster.as_ptr(), back.as_mut_ptr());
    let get =
        |id: u32| cu!(session.libcuda, cuGraphKernelNodeGetAttribute(node: u64, id: u32, back_at: *mut u32));
    let set = |id: u32| cu!(session.libcuda, cuGraphKernelNodeSetAttribute(node: u64, id: u32, cluster_at: *const u32));
    assert_eq!((get(4), set(4), get(4), set(6), set(13)), (OK, OK, OK, INVALID_VALUE, NOT_SUPPORTED));
    assert_eq!(back, cluster);
    let other = add_kernel(&session, graph, &[node], kernel, at, 22);
    assert_eq!(cu!(session.libcuda, cuGraphKernelNodeCopyAttributes(other: u64, node: u64)), OK);

    let context = vgpu_api::ContextId::primary(0).handle().raw();
    let null = std::ptr::null::<u64>();
    // Where, pitch, value and size of an element, width, height.
    let add = |fill: [u64; 5]| {
        let (mut node, fill_at) = (0u64, fill.as_ptr());
        let place = &raw mut node;
        let code = cu!(session.libcuda, cuGraphAddMemsetNode(place: *mut u64, graph: u64, null: *const u64, 0: usize,
            fill_at: *const u64, context: u64));
        (code, node)
    };
    let (code, set) = add([at, 0, 5 | 4 << 32, 3, 1]);
    assert_eq!(code, OK);
    assert_eq!(add([at + 2, 0, 5 | 4 << 32, 3, 1]).0, INVALID_VALUE, "not aligned");
    assert_eq!(add([at, 4, 5 | 4 << 32, 3, 2]).0, INVALID_VALUE, "rows overlap");
    assert_eq!(add([at, 0, 5 | 4 << 32, 0, 1]).0, INVALID_VALUE, "nothing");
    let mut seen = [0u64; 5];
    let seen_at = seen.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphMemsetNodeGetParams(set: u64, seen_at: *mut u64)), OK);
    assert_eq!(seen, [at, 0, 5 | 4 << 32, 3, 1]);
    assert_eq!(cu!(session.libcuda, cuGraphMemsetNodeGetParams(node: u64, seen_at: *mut u64)), INVALID_VALUE);
    let fill = [at, 0, 6 | 4 << 32, 4, 1];
    let fill_at = fill.as_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphMemsetNodeSetParams(set: u64, fill_at: *const u64)), OK);

    let mark = event(&session);
    let recorded =
        made!(session, cuGraphAddEventRecordNode(graph: u64, null: *const u64, 0: usize, mark: u64));
    let waited = made!(session, cuGraphAddEventWaitNode(graph: u64, null: *const u64, 0: usize, mark: u64));
    let mut of = 0u64;
    let of_at = &raw mut of;
    assert_eq!(cu!(session.libcuda, cuGraphEventRecordNodeGetEvent(recorded: u64, of_at: *mut u64)), OK);
    assert_eq!(of, mark);
    assert_eq!(
        cu!(session.libcuda, cuGraphEventWaitNodeGetEvent(recorded: u64, of_at: *mut u64)),
        INVALID_VALUE
    );
    assert_eq!(cu!(session.libcuda, cuGraphEventWaitNodeSetEvent(waited: u64, node: u64)), INVALID_HANDLE);
    assert_eq!([node, set, recorded, waited].map(|node| kind(&session, node)), [0, 2, 7, 6]);
    let exec = instantiate(&session, graph);
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!(words(&session, at), [6; 4]);
    assert_eq!(cu!(session.libcuda, cuEventQuery(mark: u64)), OK);
    reset(&session);
}

#[test]
fn a_node_by_its_general_parameters_is_the_same_node() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let graph = made!(session, cuGraphCreate(0: u32));
    let (value, count) = (31u32, 4u32);
    let params = [(&raw const at).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    let mut given = [0u64; 32];
    given[2..11].copy_from_slice(&kernel_params(kernel, &params));
    let (given_at, null) = (given.as_ptr(), std::ptr::null::<u64>());
    let node = made!(session, cuGraphAddNode(graph: u64, null: *const u64, 0: usize, given_at: *const u64));
    let mut other = [0u64; 32];
    other[0] = 2;
    other[2..7].copy_from_slice(&[at + 16, 0, 9 | 4 << 32, 4, 1]);
    let (other_at, node_at) = (other.as_ptr(), &raw const node);
    let set = made!(session, cuGraphAddNode_v2(graph: u64, node_at: *const u64, null: *const u64, 1: usize, other_at: *const u64));
    let mut copied = [0u64; 32];
    copied[0] = 1;
    copied[4..29].copy_from_slice(&copy_params((2, at), (2, at + 32), 16));
    let (copied_at, set_at) = (copied.as_ptr(), &raw const set);
    made!(session, cuGraphAddNode(graph: u64, set_at: *const u64, 1: usize, copied_at: *const u64));
    for (kind, code) in [
        (3u64, NOT_SUPPORTED),
        (8, NOT_SUPPORTED),
        (10, NOT_SUPPORTED),
        (13, NOT_SUPPORTED),
        (14, INVALID_VALUE),
    ] {
        let (mut wrong, mut made) = ([0u64; 32], 0u64);
        wrong[0] = kind;
        let (wrong_at, made_at) = (wrong.as_ptr(), &raw mut made);
        let add = cu!(session.libcuda, cuGraphAddNode(made_at: *mut u64, graph: u64, null: *const u64, 0: usize, wrong_at: *const u64));
        assert_eq!(add, code, "kind {kind}");
    }
    let exec = instantiate(&session, graph);
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!([0, 16, 32].map(|offset| words(&session, at + offset)[0]), [31, 9, 31]);
    other[4] = 10 | 4 << 32;
    let other_at = other.as_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphExecNodeSetParams(exec: u64, set: u64, other_at: *const u64)), OK);
    assert_eq!((launch(&session, exec, 0), words(&session, at + 16)[0]), (OK, 10));
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetParams(set: u64, other_at: *const u64)), OK);
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetParams(node: u64, other_at: *const u64)), INVALID_VALUE);
    reset(&session);
}

#[test]
fn edges_are_told_whole_or_not_at_all() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let graph = made!(session, cuGraphCreate(0: u32));
    let one = add_kernel(&session, graph, &[], kernel, at, 1);
    let two = add_kernel(&session, graph, &[], kernel, at, 2);
    let (one_at, two_at, early) = (&raw const one, &raw const two, [1u8, 0, 1, 0, 0, 0, 0, 0]);
    let early_at = early.as_ptr();
    let connect = |data: *const u8| cu!(session.libcuda, cuGraphAddDependencies_v2(graph: u64, one_at: *const u64, two_at: *const u64, data: *const u8, 1: usize));
    let wrong = [3u8, 0, 1, 0, 0, 0, 0, 0];
    assert_eq!((connect(wrong.as_ptr()), connect(early_at)), (INVALID_VALUE, OK));
    let (mut from, mut to, mut data, mut count) = ([0u64; 4], [9u64; 4], [[9u8; 8]; 4], 4usize);
    let (from_at, to_at, data_at, count_at) =
        (from.as_mut_ptr(), to.as_mut_ptr(), data.as_mut_ptr(), &raw mut count);
    assert_eq!(
        cu!(session.libcuda, cuGraphGetEdges(graph: u64, from_at: *mut u64, to_at: *mut u64, count_at: *mut usize)),
        LOSSY_QUERY
    );
    count = 4;
    assert_eq!(
        cu!(session.libcuda, cuGraphGetEdges_v2(graph: u64, from_at: *mut u64, to_at: *mut u64, data_at: *mut [u8; 8], count_at: *mut usize)),
        OK
    );
    assert_eq!((count, from[0], to, data[0]), (1, one, [two, 0, 0, 0], early));
    count = 4;
    assert_eq!(
        cu!(session.libcuda, cuGraphNodeGetDependentNodes_v2(one: u64, to_at: *mut u64, data_at: *mut [u8; 8], count_at: *mut usize)),
        OK
    );
    assert_eq!((count, to[0]), (1, two));
    count = 4;
    assert_eq!(
        cu!(session.libcuda, cuGraphGetRootNodes(graph: u64, to_at: *mut u64, count_at: *mut usize)),
        OK
    );
    assert_eq!((count, to[0]), (1, one));
    assert_eq!(cu!(session.libcuda, cuGraphDestroyNode(one: u64)), OK);
    assert_eq!(dependencies(&session, two), Vec::<u64>::new());
    let mut number = 0u32;
    let number_at = &raw mut number;
    assert_eq!(cu!(session.libcuda, cuGraphNodeGetType(one: u64, number_at: *mut u32)), INVALID_HANDLE);
    reset(&session);
}

#[test]
fn a_child_graph_runs_between_what_comes_before_and_after() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, NON_BLOCKING));
    let (child, graph) = (made!(session, cuGraphCreate(0: u32)), made!(session, cuGraphCreate(0: u32)));
    let inside = add_kernel(&session, child, &[], kernel, at, 2);
    add_kernel(&session, child, &[], kernel, at + 16, 3);
    let first = add_kernel(&session, graph, &[], kernel, at, 1);
    let first_at = &raw const first;
    let node =
        made!(session, cuGraphAddChildGraphNode(graph: u64, first_at: *const u64, 1: usize, child: u64));
    assert_eq!(cu!(session.libcuda, cuGraphDestroyNode(inside: u64)), OK, "the node has a copy");
    add_copy(&session, graph, &[node], &copy_params((2, at), (2, at + 32), 32));
    let mut embedded = 0u64;
    let embedded_at = &raw mut embedded;
    assert_eq!(cu!(session.libcuda, cuGraphChildGraphNodeGetGraph(node: u64, embedded_at: *mut u64)), OK);
    assert_eq!((nodes(&session, embedded).len(), kind(&session, node)), (2, 4));
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(embedded: u64)), INVALID_VALUE);
    let exec = instantiate(&session, graph);
    let edges = session.seen.lock().unwrap().graphs.last().cloned().unwrap();
    assert_eq!(edges, [vec![], vec![0], vec![1], vec![1], vec![2, 3], vec![4]]);
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!([0, 16, 32, 48].map(|offset| words(&session, at + offset)[0]), [2, 3, 2, 3]);

    let other = made!(session, cuGraphCreate(0: u32));
    add_kernel(&session, other, &[], kernel, at, 4);
    let set = || cu!(session.libcuda, cuGraphExecChildGraphNodeSetParams(exec: u64, node: u64, other: u64));
    assert_eq!(set(), INVALID_VALUE, "another shape");
    add_kernel(&session, other, &[], kernel, at + 16, 5);
    assert_eq!((set(), launch(&session, exec, 0)), (OK, OK));
    assert_eq!([0, 16, 32, 48].map(|offset| words(&session, at + offset)[0]), [4, 5, 4, 5]);

    // A launch is nothing that a capture can hold.
    assert_eq!((begin(&session, side, RELAXED), launch(&session, exec, side)), (OK, UNSUPPORTED));
    assert_eq!(end(&session, side).0, INVALIDATED);
    assert_eq!(launch(&session, exec, side), OK);
    reset(&session);
}

#[test]
fn an_update_takes_a_graph_of_the_same_shape_and_says_why_not_another() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let graph_of = |values: &[u32], chained: bool| {
        let graph = made!(session, cuGraphCreate(0: u32));
        let mut last = Vec::new();
        for (offset, value) in (0..).zip(values) {
            let node = add_kernel(&session, graph, &last, kernel, at + 16 * offset, *value);
            last = if chained { vec![node] } else { Vec::new() };
        }
        graph
    };
    let exec = instantiate(&session, graph_of(&[1, 2], true));
    let update = |graph: u64| {
        let mut info = [9u64; 3];
        let info_at = info.as_mut_ptr();
        let code = cu!(session.libcuda, cuGraphExecUpdate_v2(exec: u64, graph: u64, info_at: *mut u64));
        (code, u32::try_from(info[0] & 0xffff_ffff).unwrap(), info[1])
    };
    assert_eq!(update(graph_of(&[3, 4], true)), (OK, 0, 0));
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!([0, 16].map(|offset| words(&session, at + offset)[0]), [3, 4]);
    assert_eq!(update(graph_of(&[3, 4, 5], true)), (UPDATE_FAILURE, 2, 0));
    let loose = graph_of(&[5, 6], false);
    assert_eq!(update(loose), (UPDATE_FAILURE, 2, nodes(&session, loose)[1]));
    let other = graph_of(&[7], true);
    let null = std::ptr::null::<u64>();
    let empty = made!(session, cuGraphAddEmptyNode(other: u64, null: *const u64, 0: usize));
    assert_eq!(update(other), (UPDATE_FAILURE, 3, empty));
    let (mut node, mut result) = (9u64, 9u32);
    let (node_at, result_at) = (&raw mut node, &raw mut result);
    assert_eq!(
        cu!(session.libcuda, cuGraphExecUpdate(exec: u64, other: u64, node_at: *mut u64, result_at: *mut u32)),
        UPDATE_FAILURE
    );
    assert_eq!((node, result), (empty, 3));
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!([0, 16].map(|offset| words(&session, at + offset)[0]), [3, 4], "nothing has changed");
    reset(&session);
}

#[test]
fn a_clone_is_a_graph_of_its_own_that_knows_where_its_nodes_come_from() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let graph = made!(session, cuGraphCreate(0: u32));
    let node = add_kernel(&session, graph, &[], kernel, at, 1);
    let clone = made!(session, cuGraphClone(graph: u64));
    let twin = made!(session, cuGraphNodeFindInClone(node: u64, clone: u64));
    assert_eq!(nodes(&session, clone), [twin]);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
    let mut found = 0u64;
    let found_at = &raw mut found;
    assert_eq!(
        cu!(session.libcuda, cuGraphNodeFindInClone(found_at: *mut u64, node: u64, clone: u64)),
        INVALID_HANDLE
    );
    assert_eq!(
        cu!(session.libcuda, cuGraphNodeFindInClone(found_at: *mut u64, twin: u64, clone: u64)),
        INVALID_VALUE
    );
    let exec = instantiate(&session, clone);
    assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, [1; 4]));

    let path = std::env::temp_dir().join(format!("vgpu-test-{}.dot", std::process::id()));
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let name_at = name.as_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphDebugDotPrint(clone: u64, name_at: *const i8, 0: u32)), OK);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(text.starts_with("digraph") && text.contains("KERNEL"), "{text}");
    let nowhere = c"/no/such/folder/graph".as_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphDebugDotPrint(clone: u64, nowhere: *const i8, 0: u32)), 304);
    reset(&session);
}

#[test]
fn an_instantiation_with_parameters_uploads_and_reports() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, 0));
    let graph = made!(session, cuGraphCreate(0: u32));
    add_kernel(&session, graph, &[], kernel, at, 1);
    let mut params = [2u64, side, 9, 9];
    let params_at = params.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let before = session.call_count();
    let exec = made!(session, cuGraphInstantiateWithParams(graph: u64, params_at: *mut u64));
    assert_eq!((params[2], params[3] & 0xffff_ffff), (0, 0));
    assert_eq!(cu!(session.libcuda, cuGraphUpload(exec: u64, side: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let calls = session.seen.lock().unwrap().calls[before..].to_vec();
    assert_eq!(calls, ["graph instantiate", "graph upload", "graph upload", "ctx sync"]);
    params = [64, 0, 9, 9];
    let mut refused = 0u64;
    let refused_at = &raw mut refused;
    assert_eq!(
        cu!(session.libcuda, cuGraphInstantiateWithParams(refused_at: *mut u64, graph: u64, params_at: *mut u64)),
        INVALID_VALUE
    );
    assert_eq!(params[3] & 0xffff_ffff, 1);
    // A stream that there is not: nothing is made that nobody could end.
    params = [2, 5, 9, 9];
    let before = session.call_count();
    assert_eq!(
        cu!(session.libcuda, cuGraphInstantiateWithParams(refused_at: *mut u64, graph: u64, params_at: *mut u64)),
        INVALID_HANDLE
    );
    assert_eq!((params[3] & 0xffff_ffff, session.call_count()), (1, before));
    let (mut log, mut node) = ([9u8; 4], 9u64);
    let (log_at, node_at) = (log.as_mut_ptr(), &raw mut node);
    made!(session, cuGraphInstantiate_v2(graph: u64, node_at: *mut u64, log_at: *mut u8, 4: usize));
    assert_eq!((log[0], node), (0, 0));
    // A graph of nothing can be launched too.
    let empty = instantiate(&session, made!(session, cuGraphCreate(0: u32)));
    assert_eq!((launch(&session, empty, 0), cu!(session.libcuda, cuCtxSynchronize())), (OK, OK));
    reset(&session);
}

#[test]
fn a_stream_that_ends_takes_its_capture_along() {
    let session = session();
    let (one, two, mark) = (stream(&session, NON_BLOCKING), stream(&session, NON_BLOCKING), event(&session));
    assert_eq!(begin(&session, one, GLOBAL), OK);
    assert_eq!((record(&session, mark, one), wait(&session, two, mark)), (OK, OK));
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(one: u64)), OK);
    assert_eq!(status(&session, two), (OK, 0));
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK, "nothing captures any more");
    assert_eq!(begin(&session, two, GLOBAL), OK);
    reset(&session);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK, "nor after the end of a context");
}

/// In this order PyTorch's `torch.cuda.graph` calls the driver.
#[test]
fn a_step_of_a_framework_is_captured_and_replayed() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, NON_BLOCKING));
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let before = session.call_count();
    let info = |stream: u64| {
        let (mut status, mut id, mut graph, mut count) = (9u32, 0u64, 0u64, 0usize);
        let (status_at, id_at, graph_at) = (&raw mut status, &raw mut id, &raw mut graph);
        let (count_at, null) = (&raw mut count, std::ptr::null_mut::<u64>());
        let code = cu!(session.libcuda, cuStreamGetCaptureInfo_v2(stream: u64, status_at: *mut u32, id_at: *mut u64,
            graph_at: *mut u64, null: *mut u64, count_at: *mut usize));
        (code, status, id)
    };
    assert_eq!(info(side), (OK, 0, 0));
    assert_eq!(begin(&session, side, GLOBAL), OK);
    let (code, active, id) = info(side);
    assert_eq!((code, active, id != 0), (OK, 1, true));
    assert_eq!(info(0), (OK, 0, 0), "the legacy stream does not capture");
    // The allocator takes more memory meanwhile.
    assert_eq!(set_mode(&session, RELAXED), GLOBAL);
    let more = made!(session, cuMemAlloc_v2(256: usize));
    assert_eq!(set_mode(&session, GLOBAL), RELAXED);
    for value in 1..=3 {
        assert_eq!(fill(&session, kernel, more, value, side), OK);
        assert_eq!(info(side), (OK, 1, id));
    }
    let bytes = 16usize;
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoDAsync_v2(at: u64, more: u64, bytes: usize, side: u64)), OK);
    let (code, graph) = end(&session, side);
    assert_eq!((code, nodes(&session, graph).len()), (OK, 4));
    let calls = session.seen.lock().unwrap().calls[before..].to_vec();
    assert_eq!(calls, ["alloc"], "no question travels");
    let exec = made!(session, cuGraphInstantiateWithFlags(graph: u64, 1: u64));
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
    assert_eq!(
        (launch(&session, exec, side), cu!(session.libcuda, cuStreamSynchronize(side: u64))),
        (OK, OK)
    );
    assert_eq!(words(&session, at), [3; 4]);
    assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    reset(&session);
}
