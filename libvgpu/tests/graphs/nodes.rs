//! Graphs of single nodes: their parameters, children, updates, clones, instantiations.

use super::*;

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
    assert_eq!(launch(&session, exec, 0), INVALID_VALUE, "it went with its context");
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
        (3u64, INVALID_VALUE),
        (8, NOT_SUPPORTED),
        (10, INVALID_VALUE),
        (13, INVALID_VALUE),
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
    assert_eq!(
        cu!(session.libcuda, cuGraphDebugDotPrint(clone: u64, nowhere: *const i8, 0: u32)),
        OPERATING_SYSTEM
    );
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

/// As NVIDIA's driver 580: a child graph runs with its parent, and is a child once.
#[test]
fn a_child_graph_is_part_of_its_parent_alone() {
    let session = session();
    let (kernel, at) = (function(&session), memory(&session));
    let (graph, outer, third) = (
        made!(session, cuGraphCreate(0: u32)),
        made!(session, cuGraphCreate(0: u32)),
        made!(session, cuGraphCreate(0: u32)),
    );
    add_kernel(&session, graph, &[], kernel, at, 5);
    let (mut place, null) = (0u64, std::ptr::null::<u64>());
    let place_at = &raw mut place;
    let mut moved = [0u64; 32];
    (moved[0], moved[2], moved[3]) = (4, graph, 1);
    let moved_at = moved.as_ptr();
    let node = made!(session, cuGraphAddNode_v2(outer: u64, null: *const u64, null: *const u64, 0: usize, moved_at: *const u64));
    assert_eq!(cu!(session.libcuda, cuGraphChildGraphNodeGetGraph(node: u64, place_at: *mut u64)), OK);
    assert_eq!(place, graph, "it was moved");
    let instantiate_it =
        || cu!(session.libcuda, cuGraphInstantiateWithFlags(place_at: *mut u64, graph: u64, 0: u64));
    assert_eq!(instantiate_it(), NOT_SUPPORTED);
    let as_child = || cu!(session.libcuda, cuGraphAddChildGraphNode(place_at: *mut u64, third: u64, null: *const u64, 0: usize, graph: u64));
    let again = || cu!(session.libcuda, cuGraphAddNode_v2(place_at: *mut u64, third: u64, null: *const u64, null: *const u64, 0: usize, moved_at: *const u64));
    assert_eq!((as_child(), again()), (NOT_SUPPORTED, NOT_SUPPORTED));
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), INVALID_VALUE);
    // A clone of it is a graph like any other, and so is its parent.
    let clone = made!(session, cuGraphClone(graph: u64));
    let (own, all) = (instantiate(&session, clone), instantiate(&session, outer));
    assert_eq!((launch(&session, own, 0), words(&session, at)), (OK, [5; 4]));
    assert_eq!(launch(&session, all, 0), OK);
    reset(&session);
}
