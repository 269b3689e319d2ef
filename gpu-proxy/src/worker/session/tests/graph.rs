//! Graphs: what they do on the software GPU, and their gates.

use vgpu_api::graph::{Body, CopyBox, GraphEdge, GraphNode, GraphWork, HostSide};
use vgpu_api::wire::to_vec;
use vgpu_api::{Access, CuResult, Handle, kind};

use super::*;

/// `set(address, value)` writes one word; `twice(address)` doubles it.
const PTX: &[u8] = b".version 7.0
.target sm_70
.address_size 64
.visible .entry set(.param .u64 at, .param .u32 value)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [at];
    ld.param.u32 %r1, [value];
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry twice(.param .u64 at)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [at];
    ld.global.u32 %r1, [%rd1];
    add.u32 %r2, %r1, %r1;
    st.global.u32 [%rd1], %r2;
    ret;
}
";

const GRAPH: GraphExecHandle = GraphExecHandle::new(0, 0);
const IMAGE: ImageHandle = ImageHandle::new(0, 0);

fn soft() -> World {
    world_of(Soft::new(1 << 20).unwrap(), 1 << 20)
}

fn load(world: &World, ptx: &[u8]) {
    load_in(world, C, ptx);
}

fn load_in(world: &World, context: ContextId, ptx: &[u8]) {
    ask::vgpuUpload(&world.guest, context, 1, ptx.len() as u64, 0, ptx).unwrap();
    let out = Staged { offset: 0, len: 4096 };
    ask::vgpuImageLoad(&world.guest, context, NewHandle(IMAGE), ImageKind::Module, 1, false, out).unwrap();
}

fn kernel(place: u16, params: &[u8]) -> GraphWork<'_> {
    let function = FunctionHandle::of_image(IMAGE, place);
    let shape =
        LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    GraphWork::Kernel(Launch { shape, attributes: LaunchAttributes::default(), params })
}

fn node<'a>(needs: &[u32], work: GraphWork<'a>) -> GraphNode<'a> {
    let edge = |from: &u32| GraphEdge { from: *from, from_port: 0, to_port: 0, kind: 0 };
    GraphNode { context: C, body: Body::NONE, needs: needs.iter().map(edge).collect(), work }
}

fn upload(world: &World, nodes: &[GraphNode<'_>]) -> u32 {
    let bytes: Vec<u8> = nodes.iter().flat_map(to_vec).collect();
    upload_bytes(world, &bytes)
}

fn upload_bytes(world: &World, bytes: &[u8]) -> u32 {
    for (number, chunk) in (0..).zip(bytes.chunks(32 << 10)) {
        let (total, offset) = (bytes.len() as u64, number * (32 << 10));
        ask::vgpuUpload(&world.guest, C, 7, total, offset, chunk).unwrap();
    }
    7
}

fn instantiate(world: &World, nodes: &[GraphNode<'_>]) -> CuResult<()> {
    instantiate_as(world, GRAPH, nodes)
}

fn instantiate_as(world: &World, graph: GraphExecHandle, nodes: &[GraphNode<'_>]) -> CuResult<()> {
    let upload = upload(world, nodes);
    ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(graph), upload, 0)
}

/// A launch's error.
fn launch(world: &World) -> Option<CuError> {
    ask::cuGraphLaunch(&world.guest, C, GRAPH, Stream::Legacy).unwrap();
    world.guest.take_error()
}

fn set_params(at: DevicePtr, value: u32) -> Vec<u8> {
    [&at.0.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

fn word(world: &World, at: DevicePtr) -> u32 {
    let out = Staged { offset: 0, len: 4 };
    ask::vgpuMemcpyDtoHStaged(&world.guest, C, out, at, Stream::Legacy).unwrap();
    u32::from_le_bytes(world.staging.0.lock().unwrap()[..4].try_into().unwrap())
}

fn line(to: DevicePtr, from: DevicePtr, bytes: u64) -> CopyBox {
    CopyBox::line(to, from, bytes)
}

#[test]
fn nodes_run_in_order_at_each_launch_and_not_before() {
    let world = soft();
    load(&world, PTX);
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let (second, third) = (at.offset(4).unwrap(), at.offset(8).unwrap());
    let (set, twice) = (set_params(at, 21), at.0.to_le_bytes());
    let event = EventHandle::new(0, 0);
    ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    let memset = Memset { dst: third, pitch: 0, element_bytes: 4, value: 5, width: 1, rows: 1 };
    let nodes = [
        node(&[], kernel(0, &set)),
        node(&[0], kernel(1, &twice)),
        node(&[1], GraphWork::Copy(line(second, at, 4), HostSide::Neither)),
        node(&[], GraphWork::Fill(memset)),
        node(&[2, 3], GraphWork::Empty),
        node(&[4], GraphWork::Record(event)),
        node(&[5], GraphWork::Wait(event)),
    ];
    let elapsed = || ask::cuEventElapsedTime_v2(&world.guest, C, event, event);
    instantiate(&world, &nodes).unwrap();
    assert_eq!((word(&world, at), elapsed()), (0, Err(CuError::INVALID_HANDLE)), "nothing has run");
    for _ in 0..2 {
        assert_eq!(launch(&world), None);
        assert_eq!([at, second, third].map(|at| word(&world, at)), [42, 42, 5]);
    }
    assert_eq!(elapsed(), Ok(0.0));

    // One node changes, one is switched off.
    let other = set_params(at, 4);
    ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, kernel(0, &other)).unwrap();
    ask::vgpuGraphNodeEnable(&world.guest, C, GRAPH, 1, false).unwrap();
    assert_eq!((launch(&world), word(&world, at)), (None, 4));
    ask::vgpuGraphNodeEnable(&world.guest, C, GRAPH, 1, true).unwrap();
    assert_eq!((launch(&world), word(&world, at)), (None, 8));
    for (place, work) in [
        (0, GraphWork::Empty),
        (0, kernel(1, &[])),
        (0, kernel(9, &other)),
        (2, GraphWork::Copy(line(second, DevicePtr(0x1000), 4), HostSide::Neither)),
        (7, GraphWork::Empty),
    ] {
        ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, place, work.clone()).unwrap();
        assert!(world.guest.take_error().is_some(), "{place}: {work:?}");
    }
    ask::vgpuGraphNodeEnable(&world.guest, C, GRAPH, 4, false).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE), "an empty node does nothing");
    assert_eq!((launch(&world), word(&world, at)), (None, 8), "all as before");

    // All nodes change.
    let (set, mut changed) = (set_params(at, 50), nodes.clone());
    changed[0].work = kernel(0, &set);
    let update =
        |nodes: &[GraphNode<'_>]| ask::vgpuGraphUpdate(&world.guest, C, GRAPH, upload(&world, nodes));
    assert_eq!(update(&changed), Ok(()));
    assert_eq!((launch(&world), word(&world, at)), (None, 100));
    changed[4].needs.clear();
    assert_eq!(update(&changed), Err(CuError::GRAPH_EXEC_UPDATE_FAILURE));
    assert_eq!(update(&changed[..6]), Err(CuError::GRAPH_EXEC_UPDATE_FAILURE));
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    assert_eq!(launch(&world), Some(CuError::INVALID_VALUE));
}

#[test]
fn host_sides_are_the_programs_bytes_of_the_launch() {
    let world = soft();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let nowhere = DevicePtr(0);
    let nodes = [
        node(&[], GraphWork::Copy(line(at, nowhere, 8), HostSide::From)),
        node(&[0], GraphWork::Copy(line(nowhere, at, 8), HostSide::To)),
    ];
    instantiate(&world, &nodes).unwrap();
    let staged = |offset, len| Staged { offset, len };
    let put = |node, at, from| ask::vgpuGraphHostPut(&world.guest, C, GRAPH, node, at, from);
    let get = |node, at, out| ask::vgpuGraphHostGet(&world.guest, C, GRAPH, node, at, out);
    world.staging.0.lock().unwrap()[..8].copy_from_slice(b"8 bytes!");
    assert_eq!((put(0, 0, staged(0, 3)), put(0, 3, staged(3, 5))), (Ok(()), Ok(())));
    assert_eq!((launch(&world), get(1, 4, staged(16, 4))), (None, Ok(())));
    assert_eq!(&world.staging.0.lock().unwrap()[16..20], b"tes!");
    for (node, at, len) in [(0, 8, 1), (0, u64::MAX, 2), (1, 0, 9), (2, 0, 1)] {
        assert_eq!(put(node, at, staged(0, len)), Err(CuError::INVALID_VALUE));
        assert_eq!(get(node, at, staged(0, len)), Err(CuError::INVALID_VALUE));
    }
    assert_eq!(put(0, 0, staged(u64::MAX, 8)), Err(CuError::INVALID_VALUE));
}

#[test]
fn a_node_passes_the_gates_of_the_call_that_it_stands_for() {
    let world = soft();
    load(&world, PTX);
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let beside = DevicePtr(std::ptr::from_ref(&world) as u64);
    let params = set_params(at, 1);
    let memset = Memset { dst: at, pitch: 0, element_bytes: 4, value: 5, width: 16, rows: 1 };
    let far = CopyBox { depth: 1 << 40, height: 1 << 40, ..line(at, at, 1) };
    for (work, error) in [
        (kernel(2, &params), CuError::INVALID_HANDLE),
        (kernel(0, &params[..11]), CuError::INVALID_VALUE),
        (GraphWork::Fill(Memset { width: 17, ..memset }), CuError::INVALID_VALUE),
        (GraphWork::Fill(Memset { width: 0, ..memset }), CuError::INVALID_VALUE),
        (GraphWork::Fill(Memset { rows: u64::MAX, ..memset }), CuError::INVALID_VALUE),
        (GraphWork::Copy(line(at, beside, 8), HostSide::Neither), CuError::INVALID_VALUE),
        (GraphWork::Copy(line(beside, at, 8), HostSide::Neither), CuError::INVALID_VALUE),
        (GraphWork::Copy(line(beside, at, 8), HostSide::From), CuError::INVALID_VALUE),
        (GraphWork::Copy(line(at, at, 65), HostSide::To), CuError::INVALID_VALUE),
        (GraphWork::Copy(far, HostSide::Neither), CuError::INVALID_VALUE),
        (GraphWork::Record(EventHandle::new(3, 3)), CuError::INVALID_HANDLE),
    ] {
        let label = format!("{work:?}");
        assert_eq!(instantiate(&world, &[node(&[], work)]), Err(error), "{label}");
    }
    let elsewhere = GraphNode { context: ContextId(100), ..node(&[], GraphWork::Empty) };
    assert_eq!(instantiate(&world, &[elsewhere]), Err(CuError::INVALID_CONTEXT));
    assert_eq!(
        ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(GRAPH), 99, 0),
        Err(CuError::INVALID_VALUE)
    );
    let flags = |flags| {
        let upload = upload(&world, &[node(&[], GraphWork::Empty)]);
        ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(GRAPH), upload, flags)
    };
    assert_eq!([4, 2, u64::MAX].map(flags), [Err(CuError::INVALID_VALUE); 3], "kernels may not launch it");
    instantiate(&world, &[node(&[], GraphWork::Fill(memset))]).unwrap();
    assert_eq!(instantiate(&world, &[node(&[], GraphWork::Empty)]), Err(CuError::INVALID_HANDLE), "in use");
}

/// The driver would take an address that is no more the program's for one of the worker's own.
#[test]
fn what_a_node_names_must_be_there_at_each_launch() {
    let world = soft();
    load(&world, PTX);
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let params = set_params(ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap(), 1);
    let event = EventHandle::new(0, 0);
    ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    let other = at.offset(8).unwrap();
    let memory = [node(&[], GraphWork::Copy(line(at, other, 8), HostSide::Neither))];
    let works = [memory, [node(&[], kernel(0, &params))], [node(&[], GraphWork::Record(event))]];
    let ends: [(&dyn Fn(), CuError); 3] = [
        (&|| ask::cuMemFree_v2(&world.guest, C, at).unwrap(), CuError::INVALID_VALUE),
        (&|| ask::vgpuImageUnload(&world.guest, C, GoneHandle(IMAGE)).unwrap(), CuError::INVALID_HANDLE),
        (&|| ask::cuEventDestroy_v2(&world.guest, C, GoneHandle(event)).unwrap(), CuError::INVALID_HANDLE),
    ];
    for (number, work) in (0..).zip(&works) {
        instantiate_as(&world, GraphExecHandle::new(0, number), work).unwrap();
    }
    for (number, (end, error)) in (0..).zip(ends) {
        let graph = GraphExecHandle::new(0, number);
        let launch = || {
            ask::cuGraphLaunch(&world.guest, C, graph, Stream::Legacy).unwrap();
            world.guest.take_error()
        };
        assert_eq!(launch(), None);
        end();
        assert_eq!((launch(), launch()), (Some(error), Some(error)));
    }
}

/// Who chooses the numbers may give one out twice. What the device has in the graph has ended all the same.
#[test]
fn a_handle_that_is_given_out_twice_does_not_bring_back_what_a_node_named() {
    let world = world();
    let (event, params) = (EventHandle::new(0, 0), set_params(DevicePtr(0), 1));
    let create = || ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    load(&world, PTX);
    create();
    let works = [kernel(0, &params), GraphWork::Record(event), GraphWork::Wait(event)];
    let again: [&dyn Fn(); 2] = [
        &|| {
            ask::vgpuImageUnload(&world.guest, C, GoneHandle(IMAGE)).unwrap();
            load(&world, PTX);
        },
        &|| {
            ask::cuEventDestroy_v2(&world.guest, C, GoneHandle(event)).unwrap();
            create();
        },
    ];
    for (work, again) in works.iter().zip([again[0], again[1], again[1]]) {
        instantiate(&world, &[node(&[], work.clone())]).unwrap();
        assert_eq!(launch(&world), None);
        again();
        assert_eq!(world.guest.take_error(), None, "{work:?}: the handle is in use again");
        let gone = Some(CuError::INVALID_HANDLE);
        assert_eq!((launch(&world), launch(&world)), (gone, gone), "{work:?}");
        // Until the node names the new one.
        ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, work.clone()).unwrap();
        assert_eq!(world.guest.take_error(), None);
        assert_eq!(launch(&world), None, "{work:?}");
        ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    }
}

/// Memory of the other kinds: a mapping that is shut or taken away, what a pool gave.
#[test]
fn a_launch_notices_that_mapped_or_pooled_memory_has_ended() {
    const BYTES: u64 = 4 * MAPPING_BYTES;
    let world = world_of(Soft::new(BYTES).unwrap(), BYTES);
    let (memory, pool) = (MemoryHandle::new(0, 0), PoolHandle::new(0, 0));
    let mapped = ask::cuMemAddressReserve(&world.guest, C, MAPPING_BYTES, 0, DevicePtr(0)).unwrap();
    ask::cuMemCreate(&world.guest, C, NewHandle(memory), MAPPING_BYTES, 0).unwrap();
    ask::cuMemMap(&world.guest, C, mapped, MAPPING_BYTES, memory).unwrap();
    ask::cuMemPoolCreate(&world.guest, C, NewHandle(pool), 0, 0, false).unwrap();
    let pooled = ask::cuMemAllocFromPoolAsync(&world.guest, C, 64, pool, Stream::Legacy).unwrap();
    let open = |access| {
        ask::cuMemSetAccess(&world.guest, C, mapped, MAPPING_BYTES, 0, access).unwrap();
        assert_eq!(world.guest.take_error(), None);
    };
    let copy = |to, from, side| [node(&[], GraphWork::Copy(line(to, from, 8), side))];
    let fill = |dst| {
        let memset = Memset { dst, pitch: 0, element_bytes: 1, value: 1, width: 8, rows: 1 };
        [node(&[], GraphWork::Fill(memset))]
    };
    let graphs = [0, 1, 2].map(|number| GraphExecHandle::new(0, number));
    open(Access::Read);
    for works in
        [fill(mapped), copy(mapped, pooled, HostSide::Neither), copy(mapped, DevicePtr(0), HostSide::From)]
    {
        let made = instantiate_as(&world, graphs[0], &works);
        assert_eq!(made, Err(CuError::INVALID_VALUE), "{works:?}: it may only be read");
    }
    open(Access::ReadWrite);
    let works = [fill(mapped), copy(pooled, mapped, HostSide::Neither), fill(pooled)];
    for (graph, works) in graphs.iter().zip(&works) {
        instantiate_as(&world, *graph, works).unwrap();
    }
    let launches = || {
        graphs.map(|graph| {
            ask::cuGraphLaunch(&world.guest, C, graph, Stream::Legacy).unwrap();
            world.guest.take_error()
        })
    };
    let gone = Some(CuError::INVALID_VALUE);
    assert_eq!(launches(), [None; 3]);
    open(Access::Read);
    assert_eq!(launches(), [gone, None, None]);
    open(Access::ReadWrite);
    assert_eq!(launches(), [None; 3]);
    ask::cuMemFreeAsync(&world.guest, C, pooled, Stream::Legacy).unwrap();
    assert_eq!(launches(), [None, gone, gone]);
    ask::cuMemUnmap(&world.guest, C, mapped, MAPPING_BYTES).unwrap();
    assert_eq!(launches(), [gone; 3]);
}

/// What a graph of one context names may be another's.
#[test]
fn a_launch_notices_that_the_context_of_its_memory_has_ended() {
    let world = world();
    let other = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, other, 0, 0).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, other, 64).unwrap();
    instantiate(&world, &[node(&[], GraphWork::Copy(line(at, at, 8), HostSide::Neither))]).unwrap();
    assert_eq!(launch(&world), None);
    ask::cuCtxDestroy_v2(&world.guest, C, other).unwrap();
    assert_eq!(launch(&world), Some(CuError::INVALID_VALUE));
}

#[test]
fn a_graph_ends_with_each_context_that_it_has_nodes_in() {
    let world = world();
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
    let there = GraphNode { context: made, ..node(&[], GraphWork::Empty) };
    instantiate(&world, &[there, node(&[0], GraphWork::Empty)]).unwrap();
    assert_eq!(launch(&world), None);
    ask::cuCtxDestroy_v2(&world.guest, C, made).unwrap();
    assert_eq!(launch(&world), Some(CuError::INVALID_VALUE));
}

/// The driver keeps pointers to a module's kernels and to events: none may be left to look at when their context ends.
#[test]
fn a_graph_ends_with_the_context_of_an_image_or_event_that_it_names() {
    let world = world();
    let (made, event, params) = (ContextId(100), EventHandle::new(0, 0), set_params(DevicePtr(0), 1));
    let ends: [&dyn Fn(); 3] = [
        &|| instantiate(&world, &[node(&[], kernel(0, &params))]).unwrap(),
        &|| instantiate(&world, &[node(&[], GraphWork::Record(event))]).unwrap(),
        // Also of one that it got later.
        &|| {
            let own = EventHandle::new(0, 1);
            ask::cuEventCreate(&world.guest, C, NewHandle(own), 0).unwrap();
            instantiate(&world, &[node(&[], GraphWork::Wait(own))]).unwrap();
            ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, GraphWork::Wait(event)).unwrap();
        },
    ];
    for make in ends {
        ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
        ask::cuEventCreate(&world.guest, made, NewHandle(event), 0).unwrap();
        load_in(&world, made, PTX);
        make();
        assert_eq!(launch(&world), None);
        ask::cuCtxDestroy_v2(&world.guest, C, made).unwrap();
        let ended = ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH));
        assert_eq!((ended, world.guest.take_error()), (Ok(()), Some(CuError::INVALID_VALUE)));
    }
}

/// A device may have begun with a change that it refused.
#[test]
fn after_a_refused_change_both_what_was_named_and_what_was_to_be_must_be_there() {
    let world = world_with(Null::default().refusing(&[Step::GraphChange]));
    let events = [0, 1, 2].map(|number| EventHandle::new(0, number));
    let work = |number: usize| [node(&[], GraphWork::Record(events[number]))];
    let changes: [&dyn Fn(); 2] = [
        &|| {
            ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, work(1)[0].work.clone()).unwrap();
            assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE));
        },
        &|| {
            let update = ask::vgpuGraphUpdate(&world.guest, C, GRAPH, upload(&world, &work(1)));
            assert_eq!(update, Err(CuError::INVALID_VALUE));
        },
    ];
    for change in changes {
        for (ended, error) in
            [(0, Some(CuError::INVALID_HANDLE)), (1, Some(CuError::INVALID_HANDLE)), (2, None)]
        {
            let create = |event| ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
            events.into_iter().for_each(create);
            instantiate(&world, &work(0)).unwrap();
            (0..3).for_each(|_| change());
            assert_eq!(launch(&world), None);
            let destroy = |event| ask::cuEventDestroy_v2(&world.guest, C, GoneHandle(event)).unwrap();
            destroy(events[ended]);
            assert_eq!(launch(&world), error, "{ended}");
            ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
            (0..3).filter(|other| *other != ended).for_each(|other| destroy(events[other]));
        }
    }
}

#[test]
fn what_graphs_take_is_bounded_and_given_back() {
    let costs = Costs { graph_node_bytes: 1000, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 0));
    let empty = |count: usize| vec![node(&[], GraphWork::Empty); count];
    instantiate(&world, &empty(1000)).unwrap();
    assert_eq!(world.used_bytes(), 1_000_000);
    let other = GraphExecHandle::new(0, 1);
    assert_eq!(instantiate_as(&world, other, &empty(49)), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(instantiate_as(&world, other, &empty(48)), Ok(()));
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(other)).unwrap();
    assert_eq!(world.used_bytes(), 0);

    // Host sides are the worker's own memory.
    let world = super::world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 1 << 19).unwrap();
    let wide = node(&[], GraphWork::Copy(line(at, DevicePtr(0), 1 << 19), HostSide::From));
    // 2048 times half a MiB are the 1 GiB of SPECIFICATION.md, without the nodes themselves.
    assert_eq!(instantiate(&world, &vec![wide.clone(); 2048]), Err(CuError::OUT_OF_MEMORY));
    for _ in 0..3 {
        instantiate(&world, &vec![wide.clone(); 2040]).unwrap();
        assert_eq!(instantiate_as(&world, other, &vec![wide.clone(); 8]), Err(CuError::OUT_OF_MEMORY));
        ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    }
    // An upload that there is no room for is not even looked at.
    instantiate(&world, &vec![wide.clone(); 2040]).unwrap();
    let rubbish = |bytes: usize| {
        let bytes = vec![0xff; bytes];
        let number = upload_bytes(&world, &bytes);
        let made = ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(other), number, 0);
        let number = upload_bytes(&world, &bytes);
        (made, ask::vgpuGraphUpdate(&world.guest, C, GRAPH, number))
    };
    let answers = |error| (Err(error), Err(error));
    assert_eq!(rubbish(64), answers(CuError::INVALID_VALUE));
    assert_eq!(rubbish(2 << 20), answers(CuError::OUT_OF_MEMORY));
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    let huge = CopyBox { height: u64::MAX, ..line(at, DevicePtr(0), 1) };
    let huge = node(
        &[],
        GraphWork::Copy(
            CopyBox { to: vgpu_api::graph::Rows { pitch: 0, ..huge.to }, ..huge },
            HostSide::From,
        ),
    );
    assert!(instantiate(&world, &[huge]).is_err());
}

#[test]
fn rows_count_and_what_a_device_keeps_of_an_ended_graph_is_the_next_ones() {
    let costs =
        Costs { graph_node_bytes: 1000, graph_row_bytes: 100_000, graphs_are_kept: true, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 0));
    let of = |needs: &[&[u32]]| needs.iter().map(|needs| node(needs, GraphWork::Empty)).collect::<Vec<_>>();
    let end = || ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    // A fork of three, which come together again.
    instantiate(&world, &of(&[&[], &[0], &[0], &[0], &[1, 2, 3]])).unwrap();
    assert_eq!(world.used_bytes(), 305_000);
    end();
    assert_eq!(world.used_bytes(), 305_000, "the device has it");
    instantiate(&world, &of(&[&[], &[0], &[1]])).unwrap();
    assert_eq!(world.used_bytes(), 305_000, "from what it has");
    let other = GraphExecHandle::new(0, 1);
    instantiate_as(&world, other, &of(&[&[], &[]])).unwrap();
    assert_eq!(world.used_bytes(), 305_000);
    assert_eq!(
        instantiate_as(&world, GraphExecHandle::new(0, 2), &of(&[[].as_slice(); 9])),
        Err(CuError::OUT_OF_MEMORY)
    );
    assert_eq!(world.used_bytes(), 305_000);
    end();
}

/// `cuda` keeps an ended graph while a launch goes on, and so all its memory: any amount, if it were not counted.
#[test]
fn an_ended_graph_counts_until_its_launches_are_over() {
    const MIB: u64 = 1 << 20;
    let costs = Costs { graph_node_bytes: MIB / 8, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 0).stalling());
    let other = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, other, 0, 0).unwrap();
    let pinned = ask::cuMemAlloc_v2(&world.guest, C, 512).unwrap();
    let used_bytes = || world.used_bytes() - 512;
    let make = |context, number| {
        let handle = StreamHandle::new(0, number);
        ask::cuStreamCreateWithPriority(&world.guest, context, NewHandle(handle), 1, 0).unwrap();
        handle
    };
    let queue = |stream, kind| {
        let op = MemoryOp { kind, at: pinned, bytes: 4, value: 1 };
        ask::vgpuStreamMemory(&world.guest, C, Stream::Made(stream), vec![op]).unwrap();
    };
    let round = |stream| {
        instantiate(&world, &[node(&[], GraphWork::Empty), node(&[0], GraphWork::Empty)])?;
        ask::cuGraphLaunch(&world.guest, C, GRAPH, Stream::Made(stream)).unwrap();
        ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
        assert_eq!(world.guest.take_error(), None);
        Ok(())
    };
    let full = || {
        let rounds: Vec<CuResult<()>> = (0..4).map(|_| round(StreamHandle::new(0, 0))).collect();
        assert_eq!(rounds, [Ok(()), Ok(()), Ok(()), Err(CuError::OUT_OF_MEMORY)]);
        assert_eq!(used_bytes(), 3 * MIB / 4);
    };
    let (stream, writes) = (make(C, 0), make(C, 1));
    // The next one that is made notices; so does who waits for anything.
    queue(stream, MemoryOpKind::WaitEqual);
    full();
    queue(writes, MemoryOpKind::Write);
    assert_eq!(round(stream), Ok(()));
    ask::cuStreamSynchronize(&world.guest, C, Stream::Made(writes)).unwrap();
    assert_eq!(used_bytes(), 0);
    // One that was never launched is gone at once.
    queue(stream, MemoryOpKind::WaitEqual);
    instantiate(&world, &[node(&[], GraphWork::Empty)]).unwrap();
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    assert_eq!(used_bytes(), 0);
    // A stream's work goes on without it.
    instantiate(&world, &[node(&[], GraphWork::Empty)]).unwrap();
    ask::cuGraphLaunch(&world.guest, C, GRAPH, Stream::Made(stream)).unwrap();
    ask::cuStreamDestroy_v2(&world.guest, C, GoneHandle(stream)).unwrap();
    make(C, 0);
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    ask::cuStreamSynchronize(&world.guest, C, Stream::Made(writes)).unwrap();
    assert_eq!(used_bytes(), MIB / 8);
    queue(writes, MemoryOpKind::Write);
    ask::cuCtxSynchronize(&world.guest, C).unwrap();
    assert_eq!(used_bytes(), 0);
    // What was launched in another context ends with that one.
    let stream = make(other, 2);
    queue(stream, MemoryOpKind::WaitEqual);
    round(stream).unwrap();
    assert_eq!(used_bytes(), MIB / 4);
    queue(writes, MemoryOpKind::Write);
    ask::cuCtxDestroy_v2(&world.guest, C, other).unwrap();
    assert_eq!((world.guest.take_error(), used_bytes()), (None, 0));
}

#[test]
fn a_process_has_so_many_graphs_and_no_more() {
    let world = world();
    let upload = |number: u64| {
        ask::vgpuUpload(&world.guest, C, 7, 0, 0, &[]).unwrap();
        ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(GraphExecHandle::new(0, number)), 7, 0)
    };
    // The figure of SPECIFICATION.md.
    (0..1 << 16).for_each(|number| upload(number).unwrap());
    assert_eq!(upload(1 << 16), Err(CuError::OUT_OF_MEMORY));
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(Handle::<kind::GraphExec>::new(0, 5))).unwrap();
    assert_eq!(upload(1 << 16), Ok(()));
}

/// A graph that is nearly right: an answer, never a panic. Kernels only where they do not run, since a grid may be anything.
#[test]
fn any_change_of_a_graphs_bytes_is_an_answer() {
    for (world, with_kernel) in [(soft(), false), (world(), true)] {
        load(&world, PTX);
        let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
        let params = set_params(at, 1);
        let memset = Memset { dst: at, pitch: 8, element_bytes: 4, value: 5, width: 1, rows: 2 };
        let nodes = [
            node(&[], if with_kernel { kernel(0, &params) } else { GraphWork::Empty }),
            node(&[0], GraphWork::Copy(line(at, at, 8), HostSide::Neither)),
            node(&[0, 1], GraphWork::Fill(memset)),
            node(&[1], GraphWork::Copy(line(at, DevicePtr(0), 8), HostSide::From)),
        ];
        let good: Vec<u8> = nodes.iter().flat_map(to_vec).collect();
        let (mut random, mut made) = (Random(5), 0);
        for _ in 0..5_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.next() % 3 {
                let place = usize::try_from(random.next()).unwrap() % bytes.len();
                bytes[place] = u8::try_from(random.of(&[0, 1, 2, 4, 7, 127, 255])).unwrap();
            }
            ask::vgpuUpload(&world.guest, C, 7, bytes.len() as u64, 0, &bytes).unwrap();
            if ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(GRAPH), 7, 0).is_ok() {
                made += 1;
                let _ = launch(&world);
                ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
            }
        }
        assert!(made > 100, "{made}: or nothing was tried");
    }
}
