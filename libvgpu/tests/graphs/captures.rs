//! Captures: what becomes of queued work, which rules there are, what breaks them.

use super::*;

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
    assert_eq!(launch(&session, exec, side), INVALID_VALUE);
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

type StreamCallback = unsafe extern "C" fn(u64, u32, *mut c_void);

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
    let untold = Some(untold as StreamCallback);
    let pinned = made!(session, cuMemHostAlloc(64: usize, 0: u32));
    let breaks: [(&str, u32, &dyn Fn() -> u32); 14] = [
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

#[test]
fn kernels_have_what_was_set_of_their_stream_unless_they_say_otherwise() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let urgent = made!(session, cuStreamCreateWithPriority(NON_BLOCKING: u32, (-3): i32));
    let plain = stream(&session, NON_BLOCKING);
    let value = |first: [u32; 7]| {
        let mut value = [0u32; 16];
        value[..7].copy_from_slice(&first);
        value
    };
    let low = |address: u64| u32::try_from(address & 0xffff_ffff).unwrap();
    // One byte: as much as the device of these tests has.
    let window = value([low(at), low(at >> 32), 1, 0, 0.5f32.to_bits(), 2, 1]);
    let (map, remote) = (value([0x0302, 0, 0, 0, 0, 0, 0]), value([1, 0, 0, 0, 0, 0, 0]));
    let set = |number: u32, value: &[u32; 16]| {
        let value = value.as_ptr();
        cu!(session.libcuda, cuStreamSetAttribute(plain: u64, number: u32, value: *const u32))
    };
    let captured = |stream: u64| {
        assert_eq!(begin(&session, stream, GLOBAL), OK);
        assert_eq!(fill(&session, kernel, at, 1, stream), OK);
        let graph = end(&session, stream).1;
        let node = nodes(&session, graph)[0];
        let attribute = |number: u32| {
            let mut value = [9u32; 16];
            let place = value.as_mut_ptr();
            let code =
                cu!(session.libcuda, cuGraphKernelNodeGetAttribute(node: u64, number: u32, place: *mut u32));
            (code, value)
        };
        (graph, [1u32, 8, 9, 10].map(attribute))
    };
    let zeros = (OK, [0; 16]);
    let domains = (OK, value([0x0100, 0, 0, 0, 0, 0, 0]));
    assert_eq!(captured(plain).1, [zeros, zeros, domains, zeros]);
    let urgently = (OK, value([(-3i32).cast_unsigned(), 0, 0, 0, 0, 0, 0]));
    assert_eq!(captured(urgent).1, [zeros, urgently, domains, zeros]);
    let past = value([0x0402, 0, 0, 0, 0, 0, 0]);
    assert_eq!([set(1, &window), set(9, &map), set(10, &remote), set(9, &past)], [OK, OK, OK, INVALID_VALUE]);
    let (graph, all) = captured(plain);
    assert_eq!(all, [(OK, window), zeros, (OK, map), (OK, remote)]);
    // They go along when it runs.
    let exec = instantiate(&session, graph);
    assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, [1; 4]));
    let ids = session.seen.lock().unwrap().launches.last().unwrap().attribute_ids.clone();
    assert!(ids.contains(&1) && ids.contains(&10) && !ids.contains(&3), "{ids:?}");
    reset(&session);
}

#[test]
fn what_there_is_in_captures_only_and_once_a_graph() {
    let session = session();
    let (one, two) = (stream(&session, NON_BLOCKING), stream(&session, NON_BLOCKING));
    let event = event(&session);
    assert_eq!(cu!(session.libcuda, cuEventRecordWithFlags(event: u64, one: u64, 1: u32)), ILLEGAL_STATE);
    assert_eq!(cu!(session.libcuda, cuStreamWaitEvent(one: u64, event: u64, 1: u32)), ILLEGAL_STATE);
    let graph = made!(session, cuGraphCreate(0: u32));
    let null = std::ptr::null::<u64>();
    let into = |stream: u64| {
        cu!(session.libcuda, cuStreamBeginCaptureToGraph(stream: u64, graph: u64, null: *const u64, null: *const u64,
            0: usize, GLOBAL: u32))
    };
    assert_eq!((into(one), into(two)), (OK, ILLEGAL_STATE));
    assert_eq!((end(&session, one), end(&session, two).0), ((OK, graph), ILLEGAL_STATE));
    assert_eq!(into(two), OK, "the first has ended");
    assert_eq!(end(&session, two), (OK, graph));
    reset(&session);
}
