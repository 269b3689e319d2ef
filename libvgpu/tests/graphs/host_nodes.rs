//! Nodes that call functions of the program: at each launch, in order, as what is launched says then.

use std::sync::Mutex;

use super::*;

type HostFn = unsafe extern "C" fn(*mut c_void);

/// What ran, and the first word of the test's memory by then.
static RAN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

unsafe extern "C" fn note(data: *mut c_void) {
    RAN.lock().unwrap().push(data.addr());
}

unsafe extern "C" fn note_twice(data: *mut c_void) {
    RAN.lock().unwrap().extend([data.addr(), data.addr()]);
}

fn ran(session: &Session) -> Vec<usize> {
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    std::mem::take(&mut RAN.lock().unwrap())
}

fn call(session: &Session, stream: u64, data: usize) -> u32 {
    let function = Some(note as HostFn);
    cu!(session.libcuda, cuLaunchHostFunc(stream: u64, function: Option<HostFn>, data: usize))
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
struct Params(Option<HostFn>, usize);

fn add(session: &Session, graph: u64, needs: &[u64], data: usize) -> u64 {
    let params = Params(Some(note), data);
    let (needs_at, count, params_at) = (needs.as_ptr(), needs.len(), &raw const params);
    made!(session, cuGraphAddHostNode(graph: u64, needs_at: *const u64, count: usize, params_at: *const Params))
}

fn set(session: &Session, exec: u64, node: u64, params: &Params) -> u32 {
    let params = std::ptr::from_ref(params);
    cu!(session.libcuda, cuGraphExecHostNodeSetParams(exec: u64, node: u64, params: *const Params))
}

#[test]
fn captured_functions_run_at_each_launch_in_order_and_not_before() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, NON_BLOCKING));
    ran(&session);
    assert_eq!(begin(&session, side, GLOBAL), OK);
    assert_eq!(call(&session, side, 1), OK);
    assert_eq!(fill(&session, kernel, at, 7, side), OK);
    assert_eq!(call(&session, side, 2), OK);
    let none = None::<HostFn>;
    assert_eq!(
        cu!(session.libcuda, cuLaunchHostFunc(side: u64, none: Option<HostFn>, 0: usize)),
        INVALID_VALUE
    );
    let (code, graph) = end(&session, side);
    let made = nodes(&session, graph);
    assert_eq!(
        (code, made.iter().map(|node| kind(&session, *node)).collect::<Vec<_>>()),
        (OK, vec![3, 0, 3])
    );
    let exec = instantiate(&session, graph);
    assert_eq!(ran(&session), [0; 0]);
    for _ in 0..3 {
        assert_eq!(launch(&session, exec, side), OK);
    }
    assert_eq!((ran(&session), words(&session, at)), (vec![1, 2, 1, 2, 1, 2], [7; 4]));
    // What was queued goes on when all that named it has ended.
    assert_eq!(launch(&session, exec, side), OK);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
    assert_eq!(ran(&session), [1, 2]);
    assert_eq!(call(&session, side, 3), OK);
    assert_eq!(ran(&session), [3], "and others after it");
    reset(&session);
}

#[test]
fn each_of_what_can_be_launched_has_functions_of_its_own() {
    let session = session();
    let graph = made!(session, cuGraphCreate(0: u32));
    ran(&session);
    let first = add(&session, graph, &[], 1);
    let second = add(&session, graph, &[first], 2);
    let (one, two) = (instantiate(&session, graph), instantiate(&session, graph));
    let mut shown = Params(None, 0);
    let shown_at = &raw mut shown;
    assert_eq!(cu!(session.libcuda, cuGraphHostNodeGetParams(second: u64, shown_at: *mut Params)), OK);
    assert_eq!((shown.0.map(|shown| shown as usize), shown.1), (Some(note as HostFn as usize), 2));

    let twice = Params(Some(note_twice), 9);
    assert_eq!(set(&session, one, second, &twice), OK);
    assert_eq!(set(&session, one, second, &Params(None, 9)), INVALID_VALUE);
    assert_eq!(launch(&session, one, 0), OK);
    assert_eq!(ran(&session), [1, 9, 9]);
    assert_eq!(launch(&session, two, 0), OK);
    assert_eq!(ran(&session), [1, 2]);
    // A launch calls what was there when it was made.
    assert_eq!((launch(&session, two, 0), set(&session, two, first, &twice)), (OK, OK));
    assert_eq!((launch(&session, two, 0), ran(&session)), (OK, vec![1, 2, 9, 9, 2]));

    // The graph itself, an update of it, and what cannot be switched off.
    let third = Params(Some(note), 3);
    let third = &raw const third;
    assert_eq!(cu!(session.libcuda, cuGraphHostNodeSetParams(first: u64, third: *const Params)), OK);
    let mut info = [0u64; 3];
    let info_at = info.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphExecUpdate_v2(one: u64, graph: u64, info_at: *mut u64)), OK);
    assert_eq!((launch(&session, one, 0), ran(&session)), (OK, vec![3, 2]));
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetEnabled(one: u64, first: u64, 0: u32)), INVALID_VALUE);
    let child = made!(session, cuGraphCreate(0: u32));
    let null = std::ptr::null::<u64>();
    made!(session, cuGraphAddChildGraphNode(child: u64, null: *const u64, 0: usize, graph: u64));
    let outer = instantiate(&session, child);
    assert_eq!((launch(&session, outer, 0), ran(&session)), (OK, vec![3, 2]));
    reset(&session);
}

#[test]
fn a_function_between_copies_of_the_programs_memory_sees_and_makes_their_bytes() {
    let session = session();
    let (at, side) = (memory(&session), stream(&session, NON_BLOCKING));
    let (input, mut output) = ([5u32; 4], [0u32; 4]);
    let (from, to) = (input.as_ptr(), output.as_mut_ptr());
    ran(&session);
    assert_eq!(begin(&session, side, GLOBAL), OK);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyHtoDAsync_v2(at: u64, from: *const u32, 16: usize, side: u64)),
        OK
    );
    assert_eq!(call(&session, side, 4), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoHAsync_v2(to: *mut u32, at: u64, 16: usize, side: u64)), OK);
    let exec = instantiate(&session, end(&session, side).1);
    assert_eq!((launch(&session, exec, side), launch(&session, exec, side)), (OK, OK));
    assert_eq!((output, ran(&session)), ([5; 4], vec![4, 4]));
    reset(&session);
}
