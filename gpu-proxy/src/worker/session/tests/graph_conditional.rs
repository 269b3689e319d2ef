//! Conditional nodes: what runs on the software GPU, by kernels that set their values, and the gates of numbers and bodies.

mod again;

use vgpu_api::graph::{Body, Conditional, GraphEdge, GraphNode, GraphWork};
use vgpu_api::wire::to_vec;

use super::*;

const GRAPH: GraphExecHandle = GraphExecHandle::new(0, 0);
const IMAGE: ImageHandle = ImageHandle::new(0, 0);
/// What the guest calls its graphs.
const OF: u64 = 5;

/// `step(at, handle, less)` adds 1 to a word, and sets the value to `less` minus the word. As nvcc compiles `cudaGraphSetConditional`.
const PTX: &[u8] = b".version 9.0
.target sm_75
.address_size 64
.extern .func cudaGraphSetConditional(.param .b64 handle, .param .b32 value);
.visible .entry step(.param .u64 at, .param .u64 handle, .param .u32 less)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [at];
    ld.param.u64 %rd2, [handle];
    ld.param.u32 %r1, [less];
    ld.global.u32 %r2, [%rd1];
    add.u32 %r2, %r2, 1;
    st.global.u32 [%rd1], %r2;
    sub.u32 %r3, %r1, %r2;
    { .param .b64 param0; .param .b32 param1;
    st.param.b64 [param0], %rd2;
    st.param.b32 [param1], %r3;
    call.uni cudaGraphSetConditional, (param0, param1); }
    ret;
}
";

fn soft() -> World {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    ask::vgpuUpload(&world.guest, C, 1, PTX.len() as u64, 0, PTX).unwrap();
    let out = Staged { offset: 0, len: 4096 };
    ask::vgpuImageLoad(&world.guest, C, NewHandle(IMAGE), ImageKind::Module, 1, false, out).unwrap();
    world
}

/// Zeros.
fn memory(world: &World) -> DevicePtr {
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let zeros = Memset { dst: at, pitch: 0, element_bytes: 4, value: 0, width: 16, rows: 1 };
    ask::vgpuMemset(&world.guest, C, zeros, Stream::Legacy).unwrap();
    at
}

fn step(params: &[u8]) -> GraphWork<'_> {
    let function = FunctionHandle::of_image(IMAGE, 0);
    let shape =
        LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    GraphWork::Kernel(Launch { shape, attributes: LaunchAttributes::default(), params })
}

fn params(at: DevicePtr, handle: u64, less: u32) -> Vec<u8> {
    [&at.0.to_le_bytes()[..], &handle.to_le_bytes(), &less.to_le_bytes()].concat()
}

fn set(at: DevicePtr, value: u32) -> GraphWork<'static> {
    GraphWork::Fill(Memset { dst: at, pitch: 0, element_bytes: 4, value, width: 1, rows: 1 })
}

fn choice(handle: u64, flavor: u32, bodies: u32) -> GraphWork<'static> {
    choice_of(OF, handle, flavor, bodies)
}

fn choice_of(graph: u64, handle: u64, flavor: u32, bodies: u32) -> GraphWork<'static> {
    GraphWork::Conditional(Conditional { graph, handle, flavor, bodies })
}

fn node<'a>(body: Body, needs: &[u32], work: GraphWork<'a>) -> GraphNode<'a> {
    let edge = |from: &u32| GraphEdge { from: *from, from_port: 0, to_port: 0, kind: 0 };
    GraphNode { context: C, body, needs: needs.iter().map(edge).collect(), work }
}

fn body(place: u32, number: u32) -> Body {
    Body::new(place, number).unwrap()
}

fn number(world: &World, value: u32, flags: u32) -> u64 {
    number_of(world, OF, value, flags)
}

fn number_of(world: &World, graph: u64, value: u32, flags: u32) -> u64 {
    ask::vgpuConditionalCreate(&world.guest, C, graph, value, flags).unwrap()
}

fn upload(world: &World, nodes: &[GraphNode<'_>]) -> u32 {
    let bytes: Vec<u8> = nodes.iter().flat_map(to_vec).collect();
    ask::vgpuUpload(&world.guest, C, 7, bytes.len() as u64, 0, &bytes).unwrap();
    7
}

fn instantiate_as(world: &World, graph: GraphExecHandle, nodes: &[GraphNode<'_>]) -> CuResult<()> {
    ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(graph), upload(world, nodes), 0)
}

fn instantiate(world: &World, nodes: &[GraphNode<'_>]) -> CuResult<()> {
    instantiate_as(world, GRAPH, nodes)
}

fn launch(world: &World) -> Option<CuError> {
    ask::cuGraphLaunch(&world.guest, C, GRAPH, Stream::Legacy).unwrap();
    world.guest.take_error()
}

fn word(world: &World, at: DevicePtr) -> u32 {
    let out = Staged { offset: 0, len: 4 };
    ask::vgpuMemcpyDtoHStaged(&world.guest, C, out, at, Stream::Legacy).unwrap();
    u32::from_le_bytes(world.staging.0.lock().unwrap()[..4].try_into().unwrap())
}

#[test]
fn a_loop_runs_until_its_kernel_says_that_it_is_over() {
    let world = soft();
    let at = memory(&world);
    let (outer, inner) = (number(&world, 1, 1), number(&world, 0, 1));
    // Five rounds. In the third the inner value is 0, and the body for that runs.
    let (count, tell) = (params(at, outer, 5), params(at.offset(4).unwrap(), inner, 3));
    let nodes = [
        node(Body::NONE, &[], choice(outer, Conditional::WHILE, 1)),
        node(body(0, 0), &[], step(&count)),
        node(body(0, 0), &[1], step(&tell)),
        node(body(0, 0), &[2], choice(inner, Conditional::IF, 2)),
        node(body(3, 1), &[], set(at.offset(8).unwrap(), 77)),
        node(Body::NONE, &[0], set(at.offset(12).unwrap(), 8)),
    ];
    instantiate(&world, &nodes).unwrap();
    assert_eq!(launch(&world), None);
    let read = |offset| word(&world, at.offset(offset).unwrap());
    assert_eq!([0, 4, 8, 12].map(read), [5, 5, 77, 8]);
    // The next launch begins with the defaults again, though the guest's graph has ended.
    ask::vgpuConditionalsEnd(&world.guest, C, OF).unwrap();
    let zero = Memset { dst: at, pitch: 0, element_bytes: 4, value: 0, width: 3, rows: 1 };
    ask::vgpuMemset(&world.guest, C, zero, Stream::Legacy).unwrap();
    assert_eq!(launch(&world), None, "what was instantiated lives on");
    assert_eq!([0, 4, 8].map(read), [5, 5, 77]);
}

#[test]
fn without_a_default_a_value_is_what_the_launch_before_left() {
    let world = soft();
    let at = memory(&world);
    let handle = number(&world, 2, 0);
    let tell = params(at.offset(4).unwrap(), handle, 1);
    let nodes = [
        node(Body::NONE, &[], choice(handle, Conditional::SWITCH, 3)),
        node(body(0, 2), &[], set(at, 22)),
        node(body(0, 0), &[], set(at, 20)),
        node(Body::NONE, &[0], step(&tell)),
    ];
    instantiate(&world, &nodes).unwrap();
    assert_eq!((launch(&world), word(&world, at)), (None, 22));
    assert_eq!((launch(&world), word(&world, at)), (None, 20), "the kernel set 0");
    // Now the value is -1, which is no body's.
    let zero = Memset { dst: at, pitch: 0, element_bytes: 4, value: 0, width: 1, rows: 1 };
    ask::vgpuMemset(&world.guest, C, zero, Stream::Legacy).unwrap();
    assert_eq!((launch(&world), word(&world, at)), (None, 0));
}

#[test]
fn a_loop_that_no_kernel_can_end_is_a_timeout() {
    let world = soft();
    let (at, handle) = (memory(&world), number(&world, 1, 1));
    let nodes =
        [node(Body::NONE, &[], choice(handle, Conditional::WHILE, 1)), node(body(0, 0), &[], set(at, 1))];
    instantiate(&world, &nodes).unwrap();
    assert_eq!(launch(&world), Some(CuError::LAUNCH_TIMEOUT));
}

#[test]
fn numbers_are_of_one_graph_one_context_and_one_node() {
    let world = world();
    let (one, two) = (number(&world, 1, 1), number(&world, 1, 1));
    let other = ask::vgpuConditionalCreate(&world.guest, C, OF + 1, 1, 1).unwrap();
    assert_eq!(
        ask::vgpuConditionalCreate(&world.guest, C, OF, 1, 2),
        Err(CuError::INVALID_VALUE),
        "a flag that there is not"
    );
    assert!(ask::vgpuConditionalCreate(&world.guest, ContextId(100), OF, 1, 0).is_err());
    let top = |handle, flavor, bodies| node(Body::NONE, &[], choice(handle, flavor, bodies));
    let wrong = [
        (vec![top(999_999, 0, 1)], CuError::INVALID_VALUE),
        (vec![top(one, 0, 3)], CuError::INVALID_VALUE),
        (vec![top(one, 1, 2)], CuError::INVALID_VALUE),
        (vec![top(one, 2, u32::MAX)], CuError::OUT_OF_MEMORY),
        (vec![top(one, 0, 1), top(one, 0, 1)], CuError::INVALID_VALUE),
        (vec![top(one, 0, 1), top(other, 0, 1)], CuError::INVALID_VALUE),
        (vec![top(one, 0, 1), node(body(0, 1), &[], GraphWork::Empty)], CuError::INVALID_VALUE),
        (vec![top(one, 0, 1), node(body(0, 0), &[], GraphWork::Host(1))], CuError::INVALID_VALUE),
    ];
    for (nodes, error) in wrong {
        assert_eq!(instantiate(&world, &nodes), Err(error), "{nodes:?}");
    }
    let event = EventHandle::new(0, 0);
    ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    let inside = [top(one, 0, 1), node(body(0, 0), &[], GraphWork::Record(event))];
    assert_eq!(instantiate(&world, &inside), Err(CuError::NOT_SUPPORTED), "no event in a body");

    // Only in its graph a number means something.
    let foreign = node(Body::NONE, &[], choice_of(OF + 2, one, 0, 1));
    assert_eq!(instantiate(&world, &[foreign]), Err(CuError::INVALID_VALUE));
    let mixed = [top(one, 0, 1), node(Body::NONE, &[], choice_of(OF + 1, other, 0, 1))];
    assert_eq!((one, instantiate(&world, &mixed)), (other, Err(CuError::INVALID_VALUE)));

    let right = [top(one, 0, 1), top(two, 1, 1)];
    instantiate(&world, &right).unwrap();
    let second = GraphExecHandle::new(0, 1);
    ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, choice(two, 0, 1)).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::NOT_SUPPORTED));
    assert_eq!(launch(&world), None);

    // Ended numbers are none, whatever ended them.
    ask::vgpuConditionalsEnd(&world.guest, C, OF + 1).unwrap();
    assert_eq!(world.guest.take_error(), None);
    let ended = node(Body::NONE, &[], choice_of(OF + 1, other, 0, 1));
    assert_eq!(instantiate_as(&world, second, &[ended]), Err(CuError::INVALID_VALUE));
    ask::vgpuConditionalsEnd(&world.guest, C, 12345).unwrap();
    assert_eq!(world.guest.take_error(), None, "nothing to tell of");
    let bound = 65_536 - 2;
    for made in 0..bound {
        assert!(ask::vgpuConditionalCreate(&world.guest, C, 100, 0, 0).is_ok(), "{made}");
    }
    assert_eq!(ask::vgpuConditionalCreate(&world.guest, C, 100, 0, 0), Err(CuError::OUT_OF_MEMORY));
}

#[test]
fn bodies_in_bodies_have_an_end() {
    let world = world();
    let deep = |depth: u32| {
        let graph = u64::from(depth);
        let nodes: Vec<_> = (0..depth)
            .map(|place| {
                let handle = ask::vgpuConditionalCreate(&world.guest, C, graph, 0, 0).unwrap();
                let within = place.checked_sub(1).map_or(Body::NONE, |outer| body(outer, 0));
                node(within, &[], choice_of(graph, handle, Conditional::IF, 1))
            })
            .collect();
        instantiate_as(&world, GraphExecHandle::new(0, graph), &nodes)
    };
    assert_eq!(deep(65), Ok(()));
    assert_eq!(deep(66), Err(CuError::NOT_SUPPORTED));
}

#[test]
fn bodies_count_as_nodes_do_until_the_graph_ends() {
    let costs = Costs { graph_node_bytes: 1000, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 0));
    let make = |graph: u64, bodies: u32| {
        let handle = ask::vgpuConditionalCreate(&world.guest, C, graph, 0, 0).unwrap();
        let nodes = [node(Body::NONE, &[], choice_of(graph, handle, Conditional::SWITCH, bodies))];
        instantiate_as(&world, GraphExecHandle::new(0, graph), &nodes)
    };
    assert_eq!(make(0, 999), Ok(()));
    assert_eq!(world.used_bytes(), 1_000_000);
    assert_eq!((make(1, 48), world.used_bytes()), (Err(CuError::OUT_OF_MEMORY), 1_000_000));
    assert_eq!((make(2, 47), world.used_bytes()), (Ok(()), 1_048_000));
    for graph in [0, 2] {
        ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GraphExecHandle::new(0, graph))).unwrap();
    }
    assert_eq!(world.used_bytes(), 0);
}
