//! What the nodes of a graph name must be there at each launch.

use super::*;

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
