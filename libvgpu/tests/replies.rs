//! Calls that need no reply because their answer is known here, and what makes it unknown again.

mod support;

use support::calls::Calls;
use support::device::DEEP_BYTES;
use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
/// `CU_LIMIT_STACK_SIZE`, `CU_LIMIT_MALLOC_HEAP_SIZE`, `CU_LIMIT_PERSISTING_L2_CACHE_SIZE`.
const STACK: u32 = 0;
const HEAP: u32 = 2;
const CACHE: u32 = 6;
/// The address of the fake device's variable.
const TABLE: u64 = 0x7000_0000;

fn copy_out(session: &Session, from: u64, stream: u64) -> u32 {
    let mut bytes = [0u8; 16];
    let place = bytes.as_mut_ptr();
    cu!(session.libcuda, cuMemcpyDtoHAsync_v2(place: *mut u8, from: u64, 16: usize, stream: u64))
}

fn synchronize(session: &Session, stream: u64) -> u64 {
    session.waits(|| assert_eq!(cu!(session.libcuda, cuStreamSynchronize(stream: u64)), OK))
}

#[test]
fn a_stream_that_a_copy_has_waited_for_is_waited_for_no_more_until_something_is_queued() {
    let session = session();
    let fill = session.function(session.load(c".version 8.0 waited"), c"fill");
    let (one, other) = (session.stream(0), session.stream(1));
    // The first one makes what copies pass through.
    assert_eq!(copy_out(&session, TABLE, one), OK);
    for stream in [0, one, other] {
        session.launch_fill(fill, stream);
        assert_eq!(session.waits(|| assert_eq!(copy_out(&session, TABLE, stream), OK)), 1);
        assert_eq!(synchronize(&session, stream), 0);
        assert_eq!(session.waits(|| assert_eq!(cu!(session.libcuda, cuStreamQuery(stream: u64)), OK)), 0);
        assert_eq!(synchronize(&session, stream), 0, "nor does that change anything");
        session.launch_fill(fill, stream);
        assert_eq!(synchronize(&session, stream), 1, "there is something newer");
        assert_eq!(synchronize(&session, stream), 0, "and that was waited for");
    }
    assert_eq!(copy_out(&session, TABLE, one), OK);
    assert_eq!(synchronize(&session, other), 1, "another stream");
    assert_eq!(copy_out(&session, TABLE, one), OK);
    session.launch_fill(fill, other);
    assert_eq!(synchronize(&session, one), 1, "another stream's work may be one that this one waits for");
    assert_eq!(copy_out(&session, TABLE, one), OK);
    assert_eq!(copy_out(&session, 8, other), INVALID_VALUE);
    assert_eq!(synchronize(&session, other), 1, "the copy has failed");
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let (all, legacy) = ([one, other], 0);
    assert!(
        all.iter().chain([&legacy]).all(|stream| synchronize(&session, *stream) == 0),
        "the whole context"
    );
}

#[test]
fn what_another_thread_queued_is_newer_and_what_it_waited_for_is_its_own() {
    let session = session();
    let fill = session.function(session.load(c".version 8.0 waited by threads"), c"fill");
    let stream = session.stream(0);
    let primary = vgpu_api::ContextId::primary(0).handle().raw();
    let beside = |work: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
                work();
            });
        });
    };
    assert_eq!(copy_out(&session, TABLE, stream), OK);
    beside(&|| session.launch_fill(fill, stream));
    assert_eq!(synchronize(&session, stream), 1);
    beside(&|| assert_eq!(copy_out(&session, TABLE, stream), OK));
    assert_eq!(synchronize(&session, stream), 1, "seen by the thread that waited alone");
}

#[test]
fn a_stream_that_captures_and_one_that_is_gone_are_refused_as_ever() {
    const CAPTURE_UNSUPPORTED: u32 = 900;
    const INVALID_HANDLE: u32 = 400;
    let session = session();
    let stream = session.stream(0);
    assert_eq!(copy_out(&session, TABLE, stream), OK);
    assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, 2: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamSynchronize(stream: u64)), CAPTURE_UNSUPPORTED);
    let mut graph = 0u64;
    let place = &raw mut graph;
    assert_ne!(cu!(session.libcuda, cuStreamEndCapture(stream: u64, place: *mut u64)), OK, "invalidated");
    assert_eq!(copy_out(&session, TABLE, stream), OK);
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamSynchronize(stream: u64)), INVALID_HANDLE);
}

fn set_limit(session: &Session, limit: u32, value: usize) {
    assert_eq!(cu!(session.libcuda, cuCtxSetLimit(limit: u32, value: usize)), OK);
}

#[test]
fn a_limit_is_asked_for_once_until_it_is_set_or_its_context_is_another() {
    let session = session();
    set_limit(&session, HEAP, 4096);
    let asked = |limit, value| session.waits(|| assert_eq!(session.limit(limit), value));
    for limit in [STACK, HEAP] {
        assert_eq!([asked(limit, 4096), asked(limit, 4096)], [1, 0], "limit {limit}");
    }
    assert_eq!([asked(CACHE, 4096), asked(CACHE, 4096)], [1, 1], "others have the same cache");
    set_limit(&session, HEAP, 1024);
    assert_eq!([asked(HEAP, 1024), asked(HEAP, 1024)], [1, 0]);

    let (mut made, device) = (0u64, 0i32);
    let place = &raw mut made;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(place: *mut u64, 0: u32, device: i32)), OK);
    assert_eq!([asked(HEAP, 1024), asked(HEAP, 1024)], [1, 0], "another context");
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
    let primary = vgpu_api::ContextId::primary(0).handle().raw();
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
    assert_eq!(
        [asked(HEAP, 1024), asked(HEAP, 1024)],
        [1, 0],
        "what a context's end leaves is asked for anew"
    );
}

#[test]
fn a_stack_that_a_kernel_has_made_larger_is_told() {
    let session = session();
    let deep_bytes = usize::try_from(DEEP_BYTES).unwrap();
    let (lazy, deep) = (session.load(c".version 8.0 lazy deep"), session.load(c".version 8.0 deep"));
    let small = session.load(c".version 8.0 small");
    let [lazy_fill, deep_fill, small_fill] =
        [lazy, deep, small].map(|module| session.function(module, c"fill"));
    for fill in [lazy_fill, deep_fill] {
        set_limit(&session, STACK, 1024);
        assert_eq!(session.limit(STACK), 1024);
        session.launch_fill(small_fill, 0);
        assert_eq!(session.waits(|| assert_eq!(session.limit(STACK), 1024)), 0, "it is known to need less");
        assert_eq!(session.waits(|| assert_eq!(session.limit(HEAP), 1024)), 1);
        session.launch_fill(fill, 0);
        assert_eq!(session.waits(|| assert_eq!(session.limit(STACK), deep_bytes)), 1);
        assert_eq!(session.waits(|| assert_eq!(session.limit(STACK), deep_bytes)), 0);
        // Of a heap no kernel makes more.
        assert_eq!(session.waits(|| assert_eq!(session.limit(HEAP), 1024)), 0);
    }
    [lazy, deep, small].into_iter().for_each(|module| session.unload(module));
}
