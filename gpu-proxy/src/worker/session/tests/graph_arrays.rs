//! Copies with arrays in graphs: what they do on the software GPU, and their gates.

use vgpu_api::array::{ArrayPlace, BoxSide, Extent, LinearPlace};
use vgpu_api::graph::{ArrayCopy, Body, GraphEdge, GraphNode, GraphWork};
use vgpu_api::wire::to_vec;
use vgpu_api::{ArrayHandle, ArrayShape, CuResult, MipmapHandle};

use super::*;

const GRAPH: GraphExecHandle = GraphExecHandle::new(0, 0);
const SHAPE: ArrayShape = ArrayShape { width: 4, height: 2, depth: 0, format: 0x20, channels: 1, flags: 0 };
const ALL: Extent = Extent { width_bytes: 16, height: 2, depth: 1 };

fn soft() -> World {
    world_of(Soft::new(1 << 20).unwrap(), 1 << 20)
}

fn array(number: u64) -> ArrayHandle {
    ArrayHandle::new(0, number)
}

fn create(world: &World, number: u64) {
    ask::vgpuArrayCreate(&world.guest, C, NewHandle(array(number)), SHAPE).unwrap();
}

fn in_array(number: u64, [x_bytes, y, z]: [u64; 3]) -> Option<BoxSide> {
    Some(BoxSide::Array(ArrayPlace { array: array(number), x_bytes, y, z }))
}

fn rows(at: DevicePtr) -> Option<BoxSide> {
    Some(BoxSide::Linear(LinearPlace { at, pitch: 16, height: 2 }))
}

fn copy(to: Option<BoxSide>, from: Option<BoxSide>, size: Extent) -> GraphWork<'static> {
    GraphWork::ArrayCopy(ArrayCopy::of(to, from, size).unwrap())
}

/// Each node after the one before it.
fn list(works: &[GraphWork<'static>]) -> Vec<GraphNode<'static>> {
    let edge = |from| GraphEdge { from, from_port: 0, to_port: 0, kind: 0 };
    let needs = |place: u32| place.checked_sub(1).map(edge).into_iter().collect();
    (0..)
        .zip(works)
        .map(|(place, work)| GraphNode {
            context: C,
            body: Body::NONE,
            needs: needs(place),
            work: work.clone(),
        })
        .collect()
}

fn upload(world: &World, works: &[GraphWork<'static>]) -> u32 {
    let bytes: Vec<u8> = list(works).iter().flat_map(to_vec).collect();
    ask::vgpuUpload(&world.guest, C, 7, bytes.len() as u64, 0, &bytes).unwrap();
    7
}

fn instantiate(world: &World, works: &[GraphWork<'static>]) -> CuResult<()> {
    ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(GRAPH), upload(world, works), 0)
}

fn launch(world: &World) -> Option<CuError> {
    ask::cuGraphLaunch(&world.guest, C, GRAPH, Stream::Legacy).unwrap();
    world.guest.take_error()
}

fn set(world: &World, node: u32, work: GraphWork<'static>) -> Option<CuError> {
    ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, node, work).unwrap();
    world.guest.take_error()
}

fn put(world: &World, node: u32, bytes: &[u8]) {
    world.staging.0.lock().unwrap()[..bytes.len()].copy_from_slice(bytes);
    let from = Staged { offset: 0, len: bytes.len() as u64 };
    ask::vgpuGraphHostPut(&world.guest, C, GRAPH, node, 0, from).unwrap();
}

fn get(world: &World, node: u32, bytes: usize) -> Vec<u8> {
    let out = Staged { offset: 64, len: bytes as u64 };
    ask::vgpuGraphHostGet(&world.guest, C, GRAPH, node, 0, out).unwrap();
    world.staging.0.lock().unwrap()[64..64 + bytes].to_vec()
}

#[test]
fn each_kind_of_copy_does_what_it_says_at_each_launch() {
    let world = soft();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    (0..2).for_each(|number| create(&world, number));
    let start = [0; 3];
    // The second row of the first array becomes the first of the second one.
    let row = Extent { width_bytes: 16, height: 1, depth: 1 };
    instantiate(
        &world,
        &[
            copy(in_array(0, start), None, ALL),
            copy(in_array(1, start), in_array(0, [0, 1, 0]), row),
            copy(rows(at), in_array(0, start), ALL),
            copy(in_array(1, [0, 1, 0]), rows(at), row),
            copy(None, in_array(1, start), ALL),
        ],
    )
    .unwrap();
    for round in 0..2 {
        let bytes: Vec<u8> = (round..round + 32).collect();
        put(&world, 0, &bytes);
        assert_eq!(launch(&world), None);
        assert_eq!(get(&world, 4, 32), [&bytes[16..], &bytes[..16]].concat());
    }
    ask::vgpuGraphNodeEnable(&world.guest, C, GRAPH, 1, false).unwrap();
    put(&world, 0, &[9; 32]);
    assert_eq!((world.guest.take_error(), launch(&world)), (None, None));
    let second: Vec<u8> = (17..33).collect();
    assert_eq!(get(&world, 4, 32), [&second[..], &[9; 16]].concat(), "one is switched off");
}

#[test]
fn what_no_array_and_no_memory_holds_is_refused() {
    let world = world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    create(&world, 0);
    let (start, far) = ([0; 3], DevicePtr(0x1000));
    let wide = Extent { width_bytes: 20, ..ALL };
    let none = Extent { depth: 0, ..ALL };
    let large = Extent { width_bytes: 1 << 40, height: 1 << 40, depth: 1 };
    let wrong = [
        (copy(in_array(0, [0, 1, 0]), None, ALL), CuError::INVALID_VALUE),
        (copy(None, in_array(0, start), wide), CuError::INVALID_VALUE),
        (copy(None, in_array(0, start), none), CuError::INVALID_VALUE),
        (copy(None, in_array(0, start), large), CuError::OUT_OF_MEMORY),
        (copy(in_array(0, start), in_array(1, start), ALL), CuError::INVALID_HANDLE),
        (copy(in_array(0, start), rows(far), ALL), CuError::INVALID_VALUE),
        (copy(rows(far), in_array(0, start), ALL), CuError::INVALID_VALUE),
        (copy(rows(at.offset(48).unwrap()), in_array(0, start), ALL), CuError::INVALID_VALUE),
    ];
    let right = copy(rows(at), in_array(0, start), ALL);
    for (work, error) in wrong {
        assert_eq!(instantiate(&world, std::slice::from_ref(&work)), Err(error), "{work:?}");
        instantiate(&world, std::slice::from_ref(&right)).unwrap();
        assert!(set(&world, 0, work.clone()).is_some(), "{work:?}");
        assert!(
            ask::vgpuGraphUpdate(&world.guest, C, GRAPH, upload(&world, std::slice::from_ref(&work)))
                .is_err()
        );
        assert_eq!(launch(&world), None, "it is as it was");
        ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    }
}

#[test]
fn a_change_keeps_what_is_on_each_side_and_how_large_the_hosts_is() {
    let world = soft();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    (0..2).for_each(|number| create(&world, number));
    let (start, row) = ([0; 3], Extent { width_bytes: 16, height: 1, depth: 1 });
    instantiate(&world, &[copy(in_array(0, start), None, row), copy(rows(at), in_array(0, start), row)])
        .unwrap();
    let refused = Some(CuError::INVALID_VALUE);
    assert_eq!(set(&world, 0, copy(in_array(0, start), rows(at), row)), refused);
    assert_eq!(set(&world, 0, copy(None, in_array(0, start), row)), refused);
    assert_eq!(set(&world, 0, copy(in_array(0, start), None, ALL)), refused);
    assert_eq!(set(&world, 1, copy(in_array(1, start), in_array(0, start), row)), refused);
    assert_eq!(set(&world, 0, copy(in_array(1, start), None, row)), None);
    assert_eq!(set(&world, 1, copy(rows(at), in_array(1, start), row)), None);
    put(&world, 0, &[3; 16]);
    assert_eq!(launch(&world), None);
    let out = Staged { offset: 0, len: 16 };
    ask::vgpuMemcpyDtoHStaged(&world.guest, C, out, at, Stream::Legacy).unwrap();
    assert_eq!(world.staging.0.lock().unwrap()[..16], [3; 16]);
    let other = [copy(in_array(0, start), None, row), copy(in_array(1, start), in_array(0, start), row)];
    let update = |works: &[_]| ask::vgpuGraphUpdate(&world.guest, C, GRAPH, upload(&world, works));
    assert_eq!(update(&other), Err(CuError::GRAPH_EXEC_UPDATE_FAILURE));
    assert_eq!(
        update(&[copy(in_array(0, start), None, row), copy(rows(at), in_array(0, start), row)]),
        Ok(())
    );
}

/// The driver has the array's own name in the graph, whoever has its handle by now.
#[test]
fn an_array_or_a_level_that_has_ended_is_noticed_at_the_launch() {
    let world = world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let mipmap = MipmapHandle::new(0, 0);
    create(&world, 0);
    let work = copy(rows(at), in_array(0, [0; 3]), ALL);
    instantiate(&world, std::slice::from_ref(&work)).unwrap();
    assert_eq!(launch(&world), None);
    ask::cuArrayDestroy(&world.guest, C, GoneHandle(array(0))).unwrap();
    let gone = Some(CuError::INVALID_HANDLE);
    assert_eq!(launch(&world), gone);
    create(&world, 0);
    assert_eq!(launch(&world), gone, "the handle is in use again");
    assert_eq!((set(&world, 0, work.clone()), launch(&world)), (None, None));
    ask::cuArrayDestroy(&world.guest, C, GoneHandle(array(0))).unwrap();
    ask::vgpuMipmapCreate(&world.guest, C, NewHandle(mipmap), SHAPE, 1).unwrap();
    ask::vgpuMipmapLevel(&world.guest, C, NewHandle(array(0)), mipmap, 0).unwrap();
    assert_eq!((set(&world, 0, work), launch(&world)), (None, None));
    ask::cuMipmappedArrayDestroy(&world.guest, C, GoneHandle(mipmap)).unwrap();
    assert_eq!(launch(&world), gone);
}
