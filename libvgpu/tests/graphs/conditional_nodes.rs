//! Conditional nodes: numbers, bodies and how they are filled, what a graph that chooses may not be.

use super::*;

const IF: u32 = 0;
const WHILE: u32 = 1;
const SWITCH: u32 = 2;

fn context() -> u64 {
    vgpu_api::ContextId::primary(0).handle().raw()
}

fn number(session: &Session, graph: u64, value: u32) -> u64 {
    let context = context();
    made!(session, cuGraphConditionalHandleCreate(graph: u64, context: u64, value: u32, 1: u32))
}

/// Adds a conditional node: what it says, the node and its bodies.
fn try_add(
    session: &Session,
    graph: u64,
    needs: &[u64],
    handle: u64,
    flavor: u32,
    size: u32,
) -> (u32, u64, Vec<u64>) {
    // Kind; the number, flavor and size, where the bodies are, the context.
    let mut params = [0u64; 32];
    (params[0], params[2], params[3]) = (13, handle, u64::from(flavor) | u64::from(size) << 32);
    params[5] = context();
    let (mut node, params_at) = (0u64, params.as_mut_ptr());
    let (node_at, needs_at, count, null) =
        (&raw mut node, needs.as_ptr(), needs.len(), std::ptr::null::<u64>());
    let code = cu!(session.libcuda, cuGraphAddNode_v2(node_at: *mut u64, graph: u64, needs_at: *const u64, null: *const u64,
        count: usize, params_at: *mut u64));
    let bodies = if code == OK {
        // SAFETY: the library keeps the list as long as the node.
        (0..size as usize).map(|place| unsafe { *(params[4] as *const u64).wrapping_add(place) }).collect()
    } else {
        Vec::new()
    };
    (code, node, bodies)
}

fn add(session: &Session, graph: u64, needs: &[u64], value: u32, flavor: u32, size: u32) -> (u64, Vec<u64>) {
    let (code, node, bodies) = try_add(session, graph, needs, number(session, graph, value), flavor, size);
    assert_eq!((code, kind(session, node)), (OK, 13));
    (node, bodies)
}

/// A node that sets one word.
fn add_fill(session: &Session, graph: u64, needs: &[u64], at: u64, value: u64) -> u64 {
    let fill = [at, 0, value | 4 << 32, 1, 1];
    let (fill_at, needs_at, count, context) = (fill.as_ptr(), needs.as_ptr(), needs.len(), context());
    made!(session, cuGraphAddMemsetNode(graph: u64, needs_at: *const u64, count: usize, fill_at: *const u64, context: u64))
}

fn calls(session: &Session, name: &str) -> usize {
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    session.seen.lock().unwrap().calls.iter().filter(|call| **call == name).count()
}

#[test]
fn the_value_says_which_bodies_run() {
    let session = session();
    let at = memory(&session);
    for (value, flavor, size, wanted) in [
        (1, IF, 1, [9, 1, 0, 7]),
        (0, IF, 1, [9, 0, 0, 7]),
        (0, IF, 2, [9, 0, 2, 7]),
        (1, SWITCH, 2, [9, 0, 2, 7]),
        (2, SWITCH, 2, [9, 0, 0, 7]),
    ] {
        assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(at: u64, 0: u8, 16: usize)), OK);
        let graph = made!(session, cuGraphCreate(0: u32));
        let before = add_fill(&session, graph, &[], at, 9);
        let (node, bodies) = add(&session, graph, &[before], value, flavor, size);
        for (body, word) in bodies.iter().zip(1..) {
            add_fill(&session, *body, &[], at + 4 * word, word);
        }
        add_fill(&session, graph, &[node], at + 12, 7);
        let exec = instantiate(&session, graph);
        assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, wanted), "{value} {flavor} {size}");
        assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
        assert_eq!(launch(&session, exec, 0), OK, "it lives on");
    }
    assert_eq!(calls(&session, "conditionals end"), 5, "the worker is told of each graph's end");
    reset(&session);
}

#[test]
fn bodies_are_filled_by_captures_and_hold_further_conditional_nodes() {
    let session = session();
    let (kernel, at, side) = (function(&session), memory(&session), stream(&session, NON_BLOCKING));
    let graph = made!(session, cuGraphCreate(0: u32));
    let (_, bodies) = add(&session, graph, &[], 3, WHILE, 1);
    let body = bodies[0];
    // A number of a body is one of the whole graph.
    let (inner, inside) = add(&session, body, &[], 1, IF, 1);
    add_fill(&session, inside[0], &[], at + 4, 5);
    let (inner_at, null) = (&raw const inner, std::ptr::null::<u64>());
    assert_eq!(
        cu!(session.libcuda, cuStreamBeginCaptureToGraph(side: u64, body: u64, inner_at: *const u64, null: *const u64,
            1: usize, GLOBAL: u32)),
        OK
    );
    assert_eq!(fill(&session, kernel, at + 16, 8, side), OK);
    assert_eq!(end(&session, side), (OK, body));
    assert_eq!(nodes(&session, body).iter().map(|node| kind(&session, *node)).collect::<Vec<_>>(), [13, 0]);
    let child = made!(session, cuGraphCreate(0: u32));
    add_fill(&session, child, &[], at, 4);
    made!(session, cuGraphAddChildGraphNode(body: u64, null: *const u64, 0: usize, child: u64));
    let exec = instantiate(&session, graph);
    let before = calls(&session, "launch");
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!((words(&session, at), words(&session, at + 16)), ([4, 5, 0, 0], [8; 4]));
    assert_eq!(calls(&session, "launch") - before, 3, "three rounds");
    reset(&session);
}

#[test]
fn numbers_and_bodies_fit_their_graph() {
    let session = session();
    let graph = made!(session, cuGraphCreate(0: u32));
    let (other, context) = (made!(session, cuGraphCreate(0: u32)), context());
    let mut out = 0u64;
    let out_at = &raw mut out;
    let create = |graph: u64, flags: u32| cu!(session.libcuda, cuGraphConditionalHandleCreate(out_at: *mut u64, graph: u64, context: u64, 1: u32, flags: u32));
    assert_eq!((create(graph, 2), create(9, 0)), (INVALID_VALUE, INVALID_VALUE));
    let null = std::ptr::null_mut::<u64>();
    assert_eq!(
        cu!(session.libcuda, cuGraphConditionalHandleCreate(null: *mut u64, graph: u64, context: u64, 1: u32, 0: u32)),
        INVALID_VALUE
    );
    let (own, foreign) = (number(&session, graph, 1), number(&session, other, 1));
    for (handle, flavor, size) in [
        (own, IF, 0),
        (own, IF, 3),
        (own, WHILE, 2),
        (own, SWITCH, 0),
        (own, 3, 1),
        (foreign, IF, 1),
        (77, IF, 1),
    ] {
        let code = try_add(&session, graph, &[], handle, flavor, size).0;
        assert_eq!(code, INVALID_VALUE, "{handle} {flavor} {size}");
    }
    // A number without a node.
    let mut exec = 0u64;
    let exec_at = &raw mut exec;
    let try_instantiate =
        |graph: u64| cu!(session.libcuda, cuGraphInstantiateWithFlags(exec_at: *mut u64, graph: u64, 0: u64));
    assert_eq!(try_instantiate(graph), INVALID_VALUE);
    let mut params = [0u64; 4];
    let params_at = params.as_mut_ptr();
    assert_eq!(
        cu!(session.libcuda, cuGraphInstantiateWithParams(exec_at: *mut u64, graph: u64, params_at: *mut u64)),
        INVALID_VALUE
    );
    assert_eq!(params[3] & 0xffff_ffff, 5, "it is told why");
    let (code, node, bodies) = try_add(&session, graph, &[], own, IF, 1);
    assert_eq!(code, OK);
    assert_eq!(try_add(&session, graph, &[], own, IF, 1).0, INVALID_VALUE, "it is another node's");

    // What belongs to a node is nobody else's; a graph that chooses is one, and stays.
    let body = bodies[0];
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(body: u64)), INVALID_VALUE);
    assert_eq!(try_instantiate(body), NOT_SUPPORTED);
    assert_eq!(cu!(session.libcuda, cuGraphClone(out_at: *mut u64, graph: u64)), NOT_SUPPORTED);
    let none = std::ptr::null::<u64>();
    assert_eq!(
        cu!(session.libcuda, cuGraphAddChildGraphNode(out_at: *mut u64, other: u64, none: *const u64, 0: usize, graph: u64)),
        NOT_SUPPORTED
    );
    assert_eq!(cu!(session.libcuda, cuGraphDestroyNode(node: u64)), NOT_SUPPORTED);
    assert_eq!(try_instantiate(graph), OK);
    let mut second = 0u64;
    let second_at = &raw mut second;
    assert_eq!(
        cu!(session.libcuda, cuGraphInstantiateWithFlags(second_at: *mut u64, graph: u64, 0: u64)),
        NOT_SUPPORTED,
        "only one may exist"
    );
    // What the device does not do alone is in no body.
    let event = event(&session);
    let third = made!(session, cuGraphCreate(0: u32));
    let (_, bodies) = add(&session, third, &[], 1, IF, 1);
    let body = bodies[0];
    made!(session, cuGraphAddEventRecordNode(body: u64, none: *const u64, 0: usize, event: u64));
    assert_eq!(try_instantiate(third), NOT_SUPPORTED);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(third: u64)), OK);
    assert_eq!(try_add(&session, body, &[], own, IF, 1).0, INVALID_HANDLE, "it has ended with its node");
    reset(&session);
}

#[test]
fn a_graph_that_chooses_is_instantiated_again_once_what_was_made_of_it_has_ended() {
    let session = session();
    let at = memory(&session);
    let graph = made!(session, cuGraphCreate(0: u32));
    let (_, bodies) = add(&session, graph, &[], 2, WHILE, 1);
    let inside = add_fill(&session, bodies[0], &[], at, 9);
    let exec = instantiate(&session, graph);
    assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, [9, 0, 0, 0]));
    let fill = [at + 4, 0, 8 | 4 << 32, 1, 1];
    let fill_at = fill.as_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphMemsetNodeSetParams(inside: u64, fill_at: *const u64)), OK);
    let mut second = 0u64;
    let second_at = &raw mut second;
    let again = || cu!(session.libcuda, cuGraphInstantiateWithFlags(second_at: *mut u64, graph: u64, 0: u64));
    assert_eq!(again(), NOT_SUPPORTED);
    assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
    assert_eq!(again(), OK);
    assert_eq!((launch(&session, second, 0), words(&session, at)), (OK, [9, 8, 0, 0]));
    reset(&session);
}

#[test]
fn what_can_be_launched_takes_over_another_graph_of_the_same_choices() {
    let session = session();
    let at = memory(&session);
    // `rounds` of a set of `value`, and a choice of two behind it.
    let graph = |rounds: u32, value: u64, flavor: u32| {
        let graph = made!(session, cuGraphCreate(0: u32));
        let (first, bodies) = add(&session, graph, &[], rounds, WHILE, 1);
        add_fill(&session, bodies[0], &[], at, value);
        let (_, bodies) = add(&session, graph, &[first], 1, flavor, 2);
        add_fill(&session, bodies[1], &[], at + 4, value);
        graph
    };
    let update = |exec: u64, graph: u64| {
        let mut info = [9u64; 3];
        let info_at = info.as_mut_ptr();
        let code = cu!(session.libcuda, cuGraphExecUpdate_v2(exec: u64, graph: u64, info_at: *mut u64));
        (code, info[0] & 0xffff_ffff)
    };
    let (one, two) = (graph(1, 5, IF), graph(0, 6, SWITCH));
    let exec = instantiate(&session, one);
    assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, [5, 0, 0, 0]));
    assert_eq!(update(exec, two), (UPDATE_FAILURE, 5), "a choice of another kind");
    let three = graph(2, 7, IF);
    assert_eq!(update(exec, three), (OK, 0));
    assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, [7, 0, 0, 0]));
    // Its own graph was not used up by that, nor is the other one.
    assert_eq!(update(exec, one), (OK, 0));
    instantiate(&session, three);
    assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, [5, 0, 0, 0]));
    let four = made!(session, cuGraphCreate(0: u32));
    add(&session, four, &[], 1, WHILE, 1);
    assert_eq!(update(exec, four), (UPDATE_FAILURE, 2), "of another shape");
    reset(&session);
}
