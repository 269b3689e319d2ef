//! User objects that graphs, their copies and what was instantiated of them refer to.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use support::device::EVENTS_PENDING;

use super::*;

type HostFn = unsafe extern "C" fn(*mut c_void);

/// How many objects of one test were destroyed.
type Destroyed = &'static AtomicU32;

fn none_destroyed() -> Destroyed {
    Box::leak(Box::default())
}

unsafe extern "C" fn destroy(destroyed: *mut c_void) {
    // SAFETY: what `object` gave, which stays.
    unsafe { &*destroyed.cast::<AtomicU32>() }.fetch_add(1, Ordering::SeqCst);
}

const MOVE: u32 = 1;

fn object(session: &Session, destroyed: Destroyed, owners: u32) -> u64 {
    let (function, data) = (Some(destroy as HostFn), std::ptr::from_ref(destroyed));
    made!(session, cuUserObjectCreate(data: *const AtomicU32, function: Option<HostFn>, owners: u32, 1: u32))
}

fn retain(session: &Session, graph: u64, object: u64, count: u32, flags: u32) -> u32 {
    cu!(session.libcuda, cuGraphRetainUserObject(graph: u64, object: u64, count: u32, flags: u32))
}

fn release(session: &Session, graph: u64, object: u64, count: u32) -> u32 {
    cu!(session.libcuda, cuGraphReleaseUserObject(graph: u64, object: u64, count: u32))
}

fn release_own(session: &Session, object: u64, count: u32) -> u32 {
    cu!(session.libcuda, cuUserObjectRelease(object: u64, count: u32))
}

fn end_graph(session: &Session, graph: u64) {
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
}

fn end_exec(session: &Session, exec: u64) {
    assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
}

/// A thread of the library destroys what a graph was the last to refer to.
fn becomes(destroyed: Destroyed, count: u32) {
    let end = Instant::now() + Duration::from_secs(20);
    while destroyed.load(Ordering::SeqCst) != count {
        assert!(Instant::now() < end, "{} were destroyed, not {count}", destroyed.load(Ordering::SeqCst));
        std::thread::yield_now();
    }
}

/// None more than so many, whatever is still to be done: who lives can be retained.
fn lives(session: &Session, object: u64) {
    assert_eq!(cu!(session.libcuda, cuUserObjectRetain(object: u64, 1: u32)), OK);
    assert_eq!(release_own(session, object, 1), OK);
}

fn graph(session: &Session) -> u64 {
    let graph = made!(session, cuGraphCreate(0: u32));
    let null = std::ptr::null::<u64>();
    made!(session, cuGraphAddEmptyNode(graph: u64, null: *const u64, 0: usize));
    graph
}

#[test]
fn a_graph_owns_references_beside_the_programs() {
    let (session, destroyed) = (session(), none_destroyed());
    let (graph, one) = (graph(&session), object(&session, destroyed, 2));
    for (count, flags) in [(0, 0), (1 << 31, 0), (1, 2), (3, MOVE)] {
        assert_eq!(retain(&session, graph, one, count, flags), INVALID_VALUE, "{count} {flags}");
    }
    assert_eq!(retain(&session, 9, one, 1, 0), INVALID_VALUE, "no graph");
    assert_eq!(retain(&session, graph, graph, 1, 0), INVALID_VALUE);
    assert_eq!(release(&session, graph, one, 1), OK, "it has none, and NVIDIA's driver does not mind");
    assert_eq!((retain(&session, graph, one, 3, 0), retain(&session, graph, one, 1, MOVE)), (OK, OK));
    assert_eq!((release_own(&session, one, 2), release_own(&session, one, 1)), (INVALID_VALUE, OK));
    assert_eq!(
        (release(&session, graph, one, 5), release(&session, graph, one, 0)),
        (INVALID_VALUE, INVALID_VALUE)
    );
    assert_eq!(release(&session, graph, one, 3), OK);
    lives(&session, one);
    assert_eq!(destroyed.load(Ordering::SeqCst), 0);
    assert_eq!(release(&session, graph, one, 1), OK);
    becomes(destroyed, 1);
    assert_eq!(retain(&session, graph, one, 1, 0), INVALID_VALUE, "it has ended");
    end_graph(&session, graph);
    reset(&session);
}

#[test]
fn copies_and_what_can_be_launched_own_references_too() {
    let (session, destroyed) = (session(), none_destroyed());
    let (first, one) = (graph(&session), object(&session, destroyed, 1));
    assert_eq!(retain(&session, first, one, 1, MOVE), OK);
    let clone = made!(session, cuGraphClone(first: u64));
    let parent = graph(&session);
    let null = std::ptr::null::<u64>();
    made!(session, cuGraphAddChildGraphNode(parent: u64, null: *const u64, 0: usize, clone: u64));
    let exec = instantiate(&session, parent);
    end_graph(&session, first);
    lives(&session, one);
    end_graph(&session, clone);
    lives(&session, one);
    end_graph(&session, parent);
    lives(&session, one);
    assert_eq!(destroyed.load(Ordering::SeqCst), 0);
    end_exec(&session, exec);
    becomes(destroyed, 1);

    // A graph that a capture fills, as who captures has it.
    let (side, two) = (stream(&session, NON_BLOCKING), object(&session, destroyed, 1));
    assert_eq!(begin(&session, side, GLOBAL), OK);
    let (mut state, mut id, mut captured) = (0u32, 0u64, 0u64);
    let (state_at, id_at, graph_at) = (&raw mut state, &raw mut id, &raw mut captured);
    let nothing = std::ptr::null_mut::<u64>();
    assert_eq!(
        cu!(session.libcuda, cuStreamGetCaptureInfo_v2(side: u64, state_at: *mut u32, id_at: *mut u64,
            graph_at: *mut u64, nothing: *mut u64, nothing: *mut u64)),
        OK
    );
    assert_eq!(retain(&session, captured, two, 1, MOVE), OK);
    let (code, ended) = end(&session, side);
    assert_eq!((code, ended), (OK, captured));
    lives(&session, two);
    end_graph(&session, captured);
    becomes(destroyed, 2);
    reset(&session);
}

#[test]
fn references_of_launches_that_go_on_last_until_they_are_over() {
    let (session, destroyed) = (session(), none_destroyed());
    let (graph, one) = (graph(&session), object(&session, destroyed, 1));
    assert_eq!(retain(&session, graph, one, 1, MOVE), OK);
    let exec = instantiate(&session, graph);
    end_graph(&session, graph);
    assert_eq!(launch(&session, exec, 0), OK);
    EVENTS_PENDING.store(true, Ordering::SeqCst);
    end_exec(&session, exec);
    becomes(destroyed, 1);
    assert!(!EVENTS_PENDING.load(Ordering::SeqCst), "the launch was waited for");
    reset(&session);
}

#[test]
fn an_update_brings_the_references_of_its_graph() {
    let (session, destroyed) = (session(), none_destroyed());
    let (old, new) = (graph(&session), graph(&session));
    let (one, two) = (object(&session, destroyed, 1), object(&session, destroyed, 1));
    assert_eq!((retain(&session, old, one, 1, MOVE), retain(&session, new, two, 1, MOVE)), (OK, OK));
    let exec = instantiate(&session, old);
    end_graph(&session, old);
    lives(&session, one);
    let mut info = [0u64; 3];
    let info_at = info.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphExecUpdate_v2(exec: u64, new: u64, info_at: *mut u64)), OK);
    becomes(destroyed, 1);
    end_graph(&session, new);
    lives(&session, two);

    // With its context what was instantiated ends.
    reset(&session);
    becomes(destroyed, 2);
}

#[test]
fn a_childs_change_brings_its_references() {
    let (session, destroyed) = (session(), none_destroyed());
    let (inner, other, parent) = (graph(&session), graph(&session), made!(session, cuGraphCreate(0: u32)));
    let null = std::ptr::null::<u64>();
    let child = made!(session, cuGraphAddChildGraphNode(parent: u64, null: *const u64, 0: usize, inner: u64));
    let exec = instantiate(&session, parent);
    for before in 0..3 {
        let one = object(&session, destroyed, 1);
        assert_eq!(retain(&session, other, one, 1, MOVE), OK);
        let set = cu!(session.libcuda, cuGraphExecChildGraphNodeSetParams(exec: u64, child: u64, other: u64));
        assert_eq!((set, release(&session, other, one, 1)), (OK, OK));
        lives(&session, one);
        becomes(destroyed, before);
    }
    end_exec(&session, exec);
    becomes(destroyed, 3);
    reset(&session);
}
