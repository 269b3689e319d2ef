//! Graphs: what they do on the software GPU, and their gates.

mod bounds;
mod names;

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
