//! What work in green contexts takes of the grant, and whose the nodes of graphs are.

use vgpu_api::GraphExecHandle;
use vgpu_api::graph::{Body, GraphNode, GraphWork};
use vgpu_api::wire::to_vec;

use super::green::{GREEN, LEGACY, make};
use super::quota::launch_in;
use super::*;

/// A driver may make local memory anew for each green context, and what limits stand for.
#[test]
fn what_kernels_need_and_limits_stand_for_counts_in_each_of_them() {
    const THREADS: u64 = 64;
    const NEEDS: i32 = 2048;
    let costs = Costs { resident_threads: THREADS, green_bytes: 512, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, NEEDS));
    let needs = u64::from(NEEDS.unsigned_abs());
    let stack = ask::cuCtxGetLimit(&world.guest, C, 0).unwrap();
    make(&world, GREEN, vec![0]).unwrap();
    launch_in(&world);
    let primary = (needs - stack) * THREADS;
    assert_eq!(world.used_bytes(), 512 + primary, "in the primary context: as ever");
    let function = FunctionHandle::of_image(ImageHandle::new(0, 0), 0);
    let launch = |stream| {
        let shape = LaunchShape {
            function,
            stream: Stream::Made(stream),
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
        };
        let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &[] };
        ask::cuLaunchKernel(&world.guest, C, launch).unwrap();
        world.guest.take_error()
    };
    let mine = StreamHandle::new(0, 0);
    ask::cuStreamCreateWithPriority(&world.guest, GREEN, NewHandle(mine), 1, 0).unwrap();
    for stream in [mine, LEGACY, mine] {
        assert_eq!(launch(stream), None);
        assert_eq!(world.used_bytes(), 512 + primary + needs * THREADS, "once for each green context");
    }
    // What a limit adds, it adds in both, and in one that comes later.
    let limit = |value| ask::cuCtxSetLimit(&world.guest, C, 0, value);
    limit(stack + 1024).unwrap();
    let with_limit = 512 + primary + needs * THREADS + 2 * 1024 * THREADS;
    assert_eq!(world.used_bytes(), with_limit);
    make(&world, ContextId(101), vec![1]).unwrap();
    assert_eq!(world.used_bytes(), with_limit + 512 + 1024 * THREADS);
    assert_eq!(limit(stack + (1 << 20) / THREADS / 3), Err(CuError::OUT_OF_MEMORY), "three of a third");
    assert_eq!(world.used_bytes(), with_limit + 512 + 1024 * THREADS);
    ask::vgpuGreenDestroy(&world.guest, ContextId::NONE, ContextId(101)).unwrap();
    assert_eq!(world.used_bytes(), with_limit);
    limit(stack).unwrap();
    assert_eq!(world.used_bytes(), with_limit - 2 * 1024 * THREADS);
    ask::vgpuGreenDestroy(&world.guest, ContextId::NONE, GREEN).unwrap();
    assert_eq!(world.used_bytes(), primary);
}

/// A kernel that a captured graph launches runs in the primary context, on all multiprocessors: it counts there, and the graph outlives the
/// green context.
#[test]
fn a_graphs_nodes_are_the_primary_contexts_and_outlive_it() {
    let costs = Costs { resident_threads: 64, ..Costs::default() };
    let world = world_with(Null::with_costs(costs, 2048));
    make(&world, GREEN, vec![0]).unwrap();
    launch_in(&world);
    let used = world.used_bytes();
    let shape = LaunchShape {
        function: FunctionHandle::of_image(ImageHandle::new(0, 0), 0),
        stream: Stream::Legacy,
        grid: [1; 3],
        block: [1; 3],
        shared_bytes: 0,
    };
    let kernel = Launch { shape, attributes: LaunchAttributes::default(), params: &[] };
    let graph = GraphExecHandle::new(0, 0);
    let instantiate = |number, context| {
        let work = GraphWork::Kernel(kernel.clone());
        let bytes = to_vec(&GraphNode { context, body: Body::NONE, needs: Vec::new(), work });
        ask::vgpuUpload(&world.guest, C, number, bytes.len() as u64, 0, &bytes).unwrap();
        ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(graph), number, 0)
    };
    assert_eq!(instantiate(7, GREEN), Err(CuError::INVALID_CONTEXT), "a green one owns no node");
    assert_eq!(instantiate(8, C), Ok(()));
    assert_eq!(world.used_bytes(), used, "its local memory is there");
    let launch = |stream| {
        ask::cuGraphLaunch(&world.guest, C, graph, stream).unwrap();
        world.guest.take_error()
    };
    assert_eq!(launch(Stream::Made(LEGACY)), None, "in a stream of it");
    ask::vgpuGreenDestroy(&world.guest, ContextId::NONE, GREEN).unwrap();
    assert_eq!(launch(Stream::Made(LEGACY)), Some(CuError::INVALID_HANDLE));
    assert_eq!(launch(Stream::Legacy), None, "it is there still");
    assert_eq!(ask::cuCtxSynchronize(&world.guest, C), Ok(()));
}
