//! Nodes that allocate and free memory. The answers are those of NVIDIA's driver 580 on an H100.

use super::*;

pub const OUT_OF_MEMORY: u32 = 2;
pub const PIECE: u64 = 2 << 20;

/// `CUDA_MEM_ALLOC_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    kind: u32,
    handle_types: u32,
    location: [u32; 2],
    security: u64,
    bytes_max: u64,
    usage: u16,
    reserved: [u8; 54],
    access: *const [u32; 3],
    access_count: usize,
    bytes: usize,
    address: u64,
}

fn params(bytes: usize) -> Params {
    Params {
        kind: 1,
        handle_types: 0,
        location: [1, 0],
        security: 0,
        bytes_max: 0,
        usage: 0,
        reserved: [0; 54],
        access: std::ptr::null(),
        access_count: 0,
        bytes,
        address: 0,
    }
}

fn add_with(session: &Session, graph: u64, needs: &[u64], params: &mut Params) -> (u32, u64) {
    let mut node = 0u64;
    let (node_at, needs_at, count, params) =
        (&raw mut node, needs.as_ptr(), needs.len(), std::ptr::from_mut(params));
    let code = cu!(session.libcuda, cuGraphAddMemAllocNode(node_at: *mut u64, graph: u64, needs_at: *const u64, count: usize,
        params: *mut Params));
    (code, node)
}

/// A node and the address that it allocates.
pub fn alloc(session: &Session, graph: u64, needs: &[u64], bytes: usize) -> (u64, u64) {
    let mut params = params(bytes);
    let (code, node) = add_with(session, graph, needs, &mut params);
    assert_eq!((code, params.address % 512), (OK, 0));
    (node, params.address)
}

pub fn free_node(session: &Session, graph: u64, needs: &[u64], address: u64) -> (u32, u64) {
    let mut node = 0u64;
    let (node_at, needs_at, count) = (&raw mut node, needs.as_ptr(), needs.len());
    let code = cu!(session.libcuda, cuGraphAddMemFreeNode(node_at: *mut u64, graph: u64, needs_at: *const u64, count: usize,
        address: u64));
    (code, node)
}

pub fn graph_of(session: &Session) -> u64 {
    made!(session, cuGraphCreate(0: u32))
}

pub fn try_instantiate(session: &Session, graph: u64, flags: u64) -> (u32, u64) {
    let mut exec = 0u64;
    let place = &raw mut exec;
    (cu!(session.libcuda, cuGraphInstantiateWithFlags(place: *mut u64, graph: u64, flags: u64)), exec)
}

pub fn free(session: &Session, address: u64) -> u32 {
    cu!(session.libcuda, cuMemFree_v2(address: u64))
}

pub fn destroy(session: &Session, exec: u64) {
    assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
}

/// Used, its high mark, reserved, its high mark.
pub fn figures(session: &Session) -> [u64; 4] {
    [0u32, 1, 2, 3].map(|number| {
        let mut value = 0u64;
        let place = &raw mut value;
        assert_eq!(
            cu!(session.libcuda, cuDeviceGetGraphMemAttribute(0: i32, number: u32, place: *mut u64)),
            OK
        );
        value
    })
}

/// The calls that reached the worker, all of those that were only queued included.
pub fn calls(session: &Session) -> Vec<&'static str> {
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    session.seen.lock().unwrap().calls.clone()
}

/// The type of what an address belongs to, or an error.
pub fn memory_type(session: &Session, address: u64) -> (u32, u32) {
    let mut kind = 0u32;
    let place = &raw mut kind;
    (cu!(session.libcuda, cuPointerGetAttribute(place: *mut u32, 2: i32, address: u64)), kind)
}

#[test]
fn a_graph_has_its_addresses_at_once_and_its_memory_while_it_can_be_launched() {
    let session = session();
    let kernel = function(&session);
    let graph = graph_of(&session);
    let (first, at) = alloc(&session, graph, &[], 1000);
    assert_eq!(memory_type(&session, at), (INVALID_VALUE, 0), "nothing is there yet");
    let mut count = 4u32;
    let value = 7u32;
    let fill_params =
        [(&raw const at).cast(), (&raw const value).cast(), (&raw mut count).cast_const().cast::<c_void>()];
    let one = 1 | 1 << 32;
    let given = [kernel, one, one, one, 0, fill_params.as_ptr() as u64, 0, 0, 0];
    let (given_at, first_at) = (given.as_ptr(), &raw const first);
    let filled = made!(session, cuGraphAddKernelNode_v2(graph: u64, first_at: *const u64, 1: usize, given_at: *const u64));
    let beside = memory(&session);
    let mut copy = [0u64; 25];
    (copy[4], copy[6], copy[15], copy[17]) = (2, at, 2, beside);
    copy[22..].copy_from_slice(&[16, 1, 1]);
    let context = vgpu_api::ContextId::primary(0).handle().raw();
    let (copy_at, filled_at) = (copy.as_ptr(), &raw const filled);
    let copied = made!(session, cuGraphAddMemcpyNode(graph: u64, filled_at: *const u64, 1: usize, copy_at: *const u64, context: u64));
    let (code, freed) = free_node(&session, graph, &[copied], at);
    assert_eq!((code, kind(&session, first), kind(&session, freed)), (OK, 10, 11));
    assert_eq!(free_node(&session, graph, &[freed], at).0, INVALID_VALUE, "once");
    let (again, same) = alloc(&session, graph, &[freed], 600);
    let (_, other) = alloc(&session, graph, &[first], 600);
    assert_eq!(same, at, "it was freed before");
    assert!(other.abs_diff(at) >= 1024, "while the first is there");
    assert_eq!(free_node(&session, graph, &[again], same).0, OK);
    assert_eq!(free_node(&session, graph, &[], beside).0, INVALID_VALUE, "no graph's");
    assert_eq!(free_node(&session, graph, &[], other + 512).0, INVALID_VALUE, "no beginning");

    let (mut shown, mut address) = (params(0), 0u64);
    let (shown_at, address_at) = (&raw mut shown, &raw mut address);
    assert_eq!(cu!(session.libcuda, cuGraphMemAllocNodeGetParams(again: u64, shown_at: *mut Params)), OK);
    assert_eq!((shown.kind, shown.location, shown.bytes, shown.address), (1, [1, 0], 600, at));
    assert_eq!(cu!(session.libcuda, cuGraphMemFreeNodeGetParams(freed: u64, address_at: *mut u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuGraphMemFreeNodeGetParams(first: u64, address_at: *mut u64)),
        INVALID_VALUE
    );
    assert_eq!(address, at);

    let seen = || calls(&session);
    let of = |calls: &[&str], name: &str| calls.iter().filter(|call| **call == name).count();
    let before = seen();
    assert_eq!(of(&before, "reserve"), 1);
    let (code, exec) = try_instantiate(&session, graph, 0);
    let after = seen()[before.len()..].to_vec();
    assert_eq!(
        (code, ["create", "map", "set access", "memory release"].map(|call| of(&after, call))),
        (OK, [1; 4])
    );
    assert_eq!(figures(&session), [PIECE; 4]);
    // One allocation is left; as it is not freed, there is no second launch.
    assert_eq!(
        (launch(&session, exec, 0), words(&session, beside), free(&session, at)),
        (OK, [7; 4], INVALID_VALUE)
    );
    assert_eq!((launch(&session, exec, 0), free(&session, other)), (INVALID_VALUE, OK));
    assert_eq!(
        (launch(&session, exec, 0), free(&session, other), free(&session, other)),
        (OK, OK, INVALID_VALUE)
    );
    destroy(&session, exec);
    assert_eq!(figures(&session), [0, PIECE, 0, PIECE]);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
    let ends = seen();
    assert_eq!((of(&ends, "unmap"), of(&ends, "unreserve")), (1, 1));
    let zero = 0u64;
    let zero = &raw const zero;
    let set = |number: u32| cu!(session.libcuda, cuDeviceSetGraphMemAttribute(0: i32, number: u32, zero: *const u64));
    assert_eq!([0, 1, 2, 3, 4].map(set), [INVALID_VALUE, OK, INVALID_VALUE, OK, INVALID_VALUE]);
    assert_eq!(figures(&session), [0; 4]);
    reset(&session);
}

#[test]
fn what_a_launch_allocated_outlives_all_that_named_it() {
    let session = session();
    let graph = graph_of(&session);
    let (_, at) = alloc(&session, graph, &[], 4000);
    let (_, other) = alloc(&session, graph, &[], 3 << 20);
    let (code, exec) = try_instantiate(&session, graph, 0);
    assert_eq!((code, free(&session, at)), (OK, INVALID_VALUE), "not launched");
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!(
        (memory_type(&session, at + 3999), memory_type(&session, at + 4000).0),
        ((OK, 2), INVALID_VALUE)
    );
    destroy(&session, exec);
    // The same graph again, with what it had before.
    let (code, exec) = try_instantiate(&session, graph, 0);
    assert_eq!((code, launch(&session, exec, 0)), (OK, INVALID_VALUE));
    destroy(&session, exec);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(at: u64, 5: u8, 4000: usize)), OK);
    assert_eq!((words(&session, at), figures(&session)[0]), ([0x0505_0505; 4], 2 * PIECE));
    let count = |name: &str| calls(&session).iter().filter(|call| **call == name).count();
    let before = count("unmap");
    assert_eq!((free(&session, at), count("unmap")), (OK, before));
    assert_eq!(cu!(session.libcuda, cuMemFreeAsync(other: u64, 0: u64)), OK);
    assert_eq!((figures(&session)[..3].to_vec(), count("unmap")), (vec![0, 2 * PIECE, 0], before + 1));
    assert_eq!(cu!(session.libcuda, cuMemFreeAsync(other: u64, 0: u64)), INVALID_VALUE);
    reset(&session);
}

#[test]
fn with_auto_free_each_launch_frees_what_the_one_before_left() {
    let session = session();
    let graph = graph_of(&session);
    let (_, at) = alloc(&session, graph, &[], 4096);
    let (_, exec) = try_instantiate(&session, graph, 1);
    assert_eq!([0; 3].map(|stream| launch(&session, exec, stream)), [OK; 3]);
    assert_eq!((free(&session, at), launch(&session, exec, 0)), (OK, OK));
    destroy(&session, exec);
    assert_eq!((free(&session, at), free(&session, at)), (OK, INVALID_VALUE));
    reset(&session);
}

#[test]
fn one_graph_frees_what_another_allocates() {
    let session = session();
    let (maker, ender) = (graph_of(&session), graph_of(&session));
    let (_, at) = alloc(&session, maker, &[], 4096);
    assert_eq!(free_node(&session, ender, &[], at).0, OK);
    assert_eq!(free_node(&session, ender, &[], at).0, INVALID_VALUE);
    let ((_, makes), (_, ends)) = (try_instantiate(&session, maker, 0), try_instantiate(&session, ender, 0));
    assert_eq!(try_instantiate(&session, ender, 0).0, NOT_SUPPORTED);
    let run = |exec: u64| launch(&session, exec, 0);
    assert_eq!((run(ends), run(makes), run(ends), run(ends)), (INVALID_VALUE, OK, OK, INVALID_VALUE));
    assert_eq!((run(makes), free(&session, at), run(ends)), (OK, OK, INVALID_VALUE));
    // What only the allocation still holds goes behind the launch that frees it.
    assert_eq!(run(makes), OK);
    destroy(&session, makes);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(maker: u64)), OK);
    let before = calls(&session).len();
    assert_eq!((run(ends), figures(&session)[2]), (OK, 0));
    let calls = calls(&session)[before..].to_vec();
    let place = |name: &str| calls.iter().position(|call| *call == name);
    assert!(place("graph launch").unwrap() < place("ctx record").unwrap(), "{calls:?}");
    assert!(place("ctx record").unwrap() < place("unmap").unwrap(), "{calls:?}");
    assert!(place("unmap").unwrap() < place("unreserve").unwrap(), "{calls:?}");
    reset(&session);
}

#[test]
fn a_graph_with_memory_is_one_and_stays_as_it_is() {
    let session = session();
    let graph = graph_of(&session);
    let (node, at) = alloc(&session, graph, &[], 4096);
    let (_, freed) = free_node(&session, graph, &[node], at);
    let mut other = 0u64;
    let (place, null) = (&raw mut other, std::ptr::null::<u64>());
    let (from, to) = (&raw const node, &raw const freed);
    let (_, exec) = try_instantiate(&session, graph, 0);
    assert_eq!(try_instantiate(&session, graph, 0).0, NOT_SUPPORTED);
    assert_eq!(cu!(session.libcuda, cuGraphClone(place: *mut u64, graph: u64)), NOT_SUPPORTED);
    assert_eq!(cu!(session.libcuda, cuGraphDestroyNode(freed: u64)), NOT_SUPPORTED);
    let cut = cu!(session.libcuda, cuGraphRemoveDependencies(graph: u64, from: *const u64, to: *const u64, 1: usize));
    assert_eq!(cut, NOT_SUPPORTED);
    let outer = graph_of(&session);
    let as_child = cu!(session.libcuda, cuGraphAddChildGraphNode(place: *mut u64, outer: u64, null: *const u64, 0: usize, graph: u64));
    assert_eq!(as_child, NOT_SUPPORTED);
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetEnabled(exec: u64, node: u64, 0: u32)), INVALID_VALUE);
    // An update with the graph itself, and with one that is made like it.
    let mut info = [0u64; 3];
    let info_at = info.as_mut_ptr();
    let update =
        |graph: u64| cu!(session.libcuda, cuGraphExecUpdate_v2(exec: u64, graph: u64, info_at: *mut u64));
    let twin = graph_of(&session);
    let (twin_node, twin_at) = alloc(&session, twin, &[], 4096);
    assert_eq!(free_node(&session, twin, &[twin_node], twin_at).0, OK);
    assert_eq!((update(graph), update(twin)), (OK, OK));
    assert_eq!((launch(&session, exec, 0), launch(&session, exec, 0)), (OK, OK));
    assert_eq!(try_instantiate(&session, twin, 0).0, NOT_SUPPORTED, "it is what can be launched now");
    let (code, again) = try_instantiate(&session, graph, 0);
    assert_eq!((code, launch(&session, again, 0)), (OK, OK));
    let larger = graph_of(&session);
    let (larger_node, larger_at) = alloc(&session, larger, &[], 8192);
    assert_eq!(free_node(&session, larger, &[larger_node], larger_at).0, OK);
    assert_eq!(update(larger), UPDATE_FAILURE);
    destroy(&session, exec);
    destroy(&session, again);

    // Moved into another it goes on with its memory.
    let mut moved = [0u64; 32];
    (moved[0], moved[2], moved[3]) = (4, graph, 1);
    let moved_at = moved.as_ptr();
    made!(session, cuGraphAddNode_v2(outer: u64, null: *const u64, null: *const u64, 0: usize, moved_at: *const u64));
    assert_eq!(cu!(session.libcuda, cuGraphClone(place: *mut u64, outer: u64)), NOT_SUPPORTED);
    let (code, exec) = try_instantiate(&session, outer, 0);
    assert_eq!((code, launch(&session, exec, 0), launch(&session, exec, 0)), (OK, OK, OK));
    assert_eq!(try_instantiate(&session, outer, 0).0, NOT_SUPPORTED);
    reset(&session);
}

#[test]
fn what_a_capture_allocates_and_frees_are_nodes() {
    let session = session();
    let (kernel, side) = (function(&session), stream(&session, NON_BLOCKING));
    let mut at = 9u64;
    let alloc = |at: &mut u64, bytes: usize| {
        let at = std::ptr::from_mut(at);
        cu!(session.libcuda, cuMemAllocAsync(at: *mut u64, bytes: usize, side: u64))
    };
    let free_in_order = |at: u64| cu!(session.libcuda, cuMemFreeAsync(at: u64, side: u64));
    let (mut outside, beside) = (0u64, memory(&session));
    assert_eq!(alloc(&mut outside, 4096), OK);
    assert_eq!(begin(&session, side, GLOBAL), OK);
    assert_eq!((alloc(&mut at, 0), at), (OK, 0));
    assert_eq!(alloc(&mut at, 5000), OK);
    assert_eq!(fill(&session, kernel, at, 3, side), OK);
    let (middle, further) = (at + 16, at + 32);
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoDAsync_v2(middle: u64, at: u64, 16: usize, side: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD32Async(further: u64, 4: u32, 4: usize, side: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyAsync(beside: u64, middle: u64, 32: usize, side: u64)), OK);
    assert_eq!(
        (free_in_order(outside), free_in_order(at), free_in_order(at)),
        (INVALID_VALUE, OK, INVALID_VALUE)
    );
    let mut again = 0u64;
    let (again_at, bytes) = (&raw mut again, 5000usize);
    let pool = made!(session, cuDeviceGetDefaultMemPool(0: i32));
    assert_eq!(
        cu!(session.libcuda, cuMemAllocFromPoolAsync(again_at: *mut u64, bytes: usize, pool: u64, side: u64)),
        OK
    );
    assert_eq!((again, free_in_order(0), free_in_order(again)), (at, OK, OK));
    let (code, graph) = end(&session, side);
    let made = nodes(&session, graph);
    let kinds: Vec<_> = made.iter().map(|node| kind(&session, *node)).collect();
    assert_eq!((code, kinds), (OK, vec![10, 0, 1, 2, 1, 11, 10, 11]));
    assert_eq!(dependencies(&session, made[5]), [made[4]]);
    let exec = instantiate(&session, graph);
    assert_eq!([side; 2].map(|stream| launch(&session, exec, stream)), [OK; 2]);
    assert_eq!((words(&session, beside), words(&session, beside + 16)), ([3; 4], [4; 4]));
    destroy(&session, exec);

    // The address is the graph's own: nothing outside can free it before a launch.
    for (mode, code, ended) in [(GLOBAL, UNSUPPORTED, INVALIDATED), (RELAXED, INVALID_VALUE, OK)] {
        assert_eq!((begin(&session, side, mode), alloc(&mut at, 64)), (OK, OK));
        let previous = set_mode(&session, mode);
        assert_eq!((free(&session, at), end(&session, side).0), (code, ended));
        set_mode(&session, previous);
    }
    assert_eq!((begin(&session, side, GLOBAL), alloc(&mut at, 1 << 50)), (OK, OUT_OF_MEMORY));
    assert_eq!(end(&session, side).0, INVALIDATED);
    assert_eq!(free_in_order(outside), OK);
    reset(&session);
}

#[test]
fn memory_counts_when_what_can_be_launched_is_made() {
    let session = session();
    let graph = graph_of(&session);
    alloc(&session, graph, &[], 1000);
    // More than this device gives at once, and in addresses of its own.
    alloc(&session, graph, &[], 300 << 20);
    assert_eq!(figures(&session)[2], 0);
    assert_eq!(try_instantiate(&session, graph, 0), (OUT_OF_MEMORY, 0));
    let [used, _, reserved, _] = figures(&session);
    assert_eq!((used, reserved), (0, 0), "what was mapped for it is not kept");
    assert_eq!(try_instantiate(&session, graph, 0), (OUT_OF_MEMORY, 0), "nothing else can be launched of it");
    reset(&session);
}

#[test]
fn what_no_graphs_memory_can_be_is_refused() {
    let session = session();
    let graph = graph_of(&session);
    let add = |change: &dyn Fn(&mut Params)| {
        let mut given = params(64);
        change(&mut given);
        add_with(&session, graph, &[], &mut given).0
    };
    assert_eq!(add(&|given| given.bytes = 0), INVALID_VALUE);
    assert_eq!(add(&|given| given.handle_types = 1), NOT_SUPPORTED);
    assert_eq!(add(&|given| given.location = [1, 77]), INVALID_VALUE);
    assert_eq!(add(&|given| given.location = [2, 0]), NOT_SUPPORTED);
    assert_eq!(add(&|given| given.kind = 0), INVALID_VALUE);
    assert_eq!(add(&|given| given.bytes_max = 32), OK);
    assert_eq!(add(&|given| given.bytes = 1 << 50), OUT_OF_MEMORY);
    for (access, code) in [([1, 0, 3], OK), ([1, 0, 1], NOT_SUPPORTED), ([1, 0, 0], NOT_SUPPORTED)] {
        let given = |given: &mut Params| (given.access, given.access_count) = (&raw const access, 1);
        assert_eq!(add(&given), code, "{access:?}");
    }
    let access = [1u32, 0, 3];
    let mut given = params(64);
    (given.access, given.access_count) = (&raw const access, 1);
    let (_, node) = add_with(&session, graph, &[], &mut given);
    let mut shown = params(0);
    let shown_at = &raw mut shown;
    assert_eq!(cu!(session.libcuda, cuGraphMemAllocNodeGetParams(node: u64, shown_at: *mut Params)), OK);
    assert_eq!(shown.access_count, 1);
    // SAFETY: the library keeps the list with the node.
    assert_eq!(unsafe { *shown.access }, access);
    // As general parameters: the address comes back in them.
    let mut general = [0u64; 32];
    general[0] = 10;
    general[2..5].copy_from_slice(&[1, 1, 0]);
    general[15] = 4096;
    let (general_at, null) = (general.as_mut_ptr(), std::ptr::null::<u64>());
    made!(session, cuGraphAddNode_v2(graph: u64, null: *const u64, null: *const u64, 0: usize, general_at: *mut u64));
    let mut ends = [0u64; 32];
    (ends[0], ends[2]) = (11, general[16]);
    assert_ne!(general[16], 0);
    let ends_at = ends.as_ptr();
    made!(session, cuGraphAddNode(graph: u64, null: *const u64, 0: usize, ends_at: *const u64));
    reset(&session);
}
