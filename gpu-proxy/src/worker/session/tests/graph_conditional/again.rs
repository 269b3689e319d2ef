//! Graphs with conditional nodes that are instantiated again, and what can be launched of one changed to another.

use super::*;

const OTHER: u64 = OF + 1;
const AGAIN: GraphExecHandle = GraphExecHandle::new(0, 1);

/// A loop whose body adds 1 to a word until it is `rounds`, and a set behind it.
fn loop_of<'a>(graph: u64, handle: u64, params: &'a [u8], told: GraphWork<'a>) -> [GraphNode<'a>; 3] {
    [
        node(Body::NONE, &[], choice_of(graph, handle, Conditional::WHILE, 1)),
        node(body(0, 0), &[], step(params)),
        node(Body::NONE, &[0], told),
    ]
}

fn update(world: &World, nodes: &[GraphNode<'_>]) -> CuResult<()> {
    ask::vgpuGraphUpdate(&world.guest, C, GRAPH, upload(world, nodes))
}

fn destroy(world: &World, graph: GraphExecHandle) {
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(graph)).unwrap();
    assert_eq!(world.guest.take_error(), None);
}

/// A launch from zeros: the first two words.
fn run(world: &World, at: DevicePtr) -> [u32; 2] {
    let zero = Memset { dst: at, pitch: 0, element_bytes: 4, value: 0, width: 2, rows: 1 };
    ask::vgpuMemset(&world.guest, C, zero, Stream::Legacy).unwrap();
    assert_eq!(launch(world), None);
    [word(world, at), word(world, at.offset(4).unwrap())]
}

#[test]
fn a_graph_is_instantiated_again_once_what_was_made_of_it_has_ended() {
    let world = soft();
    let (at, handle) = (memory(&world), number(&world, 1, 1));
    let told = at.offset(4).unwrap();
    let (five, three) = (params(at, handle, 5), params(at, handle, 3));
    instantiate(&world, &loop_of(OF, handle, &five, set(told, 8))).unwrap();
    assert_eq!(run(&world, at), [5, 8]);
    let changed = loop_of(OF, handle, &three, set(told, 9));
    assert_eq!(instantiate_as(&world, AGAIN, &changed), Err(CuError::NOT_SUPPORTED), "only one may exist");
    assert_eq!(run(&world, at), [5, 8]);
    destroy(&world, GRAPH);
    instantiate(&world, &changed).unwrap();
    assert_eq!(run(&world, at), [3, 9]);

    // With more in it, and a number that was made since.
    destroy(&world, GRAPH);
    let more = number(&world, 0, 1);
    let [first, inside, last] = changed;
    let nodes = [
        first,
        inside,
        last,
        node(Body::NONE, &[2], choice(more, Conditional::IF, 2)),
        node(body(3, 1), &[], set(told, 10)),
    ];
    instantiate(&world, &nodes).unwrap();
    assert_eq!(run(&world, at), [3, 10]);
    // The guest's graph ends first: a new one of its name is another.
    ask::vgpuConditionalsEnd(&world.guest, C, OF).unwrap();
    let new = number(&world, 1, 1);
    let two = params(at, new, 2);
    instantiate_as(&world, AGAIN, &loop_of(OF, new, &two, set(told, 11))).unwrap();
    assert_eq!(run(&world, at), [3, 10]);
    destroy(&world, GRAPH);
    let third = GraphExecHandle::new(0, 2);
    assert_eq!(
        instantiate_as(&world, third, &loop_of(OF, new, &two, set(told, 11))),
        Err(CuError::NOT_SUPPORTED),
        "the other's end is not its own"
    );
}

#[test]
fn what_can_be_launched_is_changed_to_another_graph_and_has_its_numbers_and_defaults() {
    let world = soft();
    let at = memory(&world);
    let told = at.offset(4).unwrap();
    let (own, other) = (number(&world, 1, 1), number_of(&world, OTHER, 0, 1));
    let (five, three) = (params(at, own, 5), params(at, own, 3));
    instantiate(&world, &loop_of(OF, own, &five, set(told, 8))).unwrap();
    // Its own graph, with other parameters.
    assert_eq!(update(&world, &loop_of(OF, own, &three, set(told, 9))), Ok(()));
    assert_eq!(run(&world, at), [3, 9]);
    // Another, whose default lets nothing run.
    let seven = params(at, other, 7);
    assert_eq!(update(&world, &loop_of(OTHER, other, &seven, set(told, 10))), Ok(()));
    assert_eq!(run(&world, at), [0, 10]);
    // What is told of is there after the end of the graph that it came from, and that graph was never used up.
    instantiate_as(&world, AGAIN, &loop_of(OTHER, other, &seven, set(told, 12))).unwrap();
    let begun = number_of(&world, OTHER + 1, 2, 1);
    let six = params(at, begun, 6);
    assert_eq!(update(&world, &loop_of(OTHER + 1, begun, &six, set(told, 11))), Ok(()));
    ask::vgpuConditionalsEnd(&world.guest, C, OTHER + 1).unwrap();
    assert_eq!((run(&world, at), run(&world, at)), ([6, 11], [6, 11]));
    let ended = update(&world, &loop_of(OTHER + 1, begun, &six, set(told, 11)));
    assert_eq!(ended, Err(CuError::INVALID_VALUE), "its numbers are none");
    // It still is the only one of its graph.
    let five = loop_of(OF, own, &five, set(told, 8));
    assert_eq!(instantiate_as(&world, GraphExecHandle::new(0, 2), &five), Err(CuError::NOT_SUPPORTED));
    assert_eq!(update(&world, &five), Ok(()));
    assert_eq!(run(&world, at), [5, 8]);
}

#[test]
fn conditional_nodes_stay_what_they_are() {
    let world = world();
    let [one, two] = [number(&world, 1, 1), number(&world, 1, 1)];
    let [low, high] = [(); 2].map(|()| number_of(&world, OTHER, 1, 1));
    let nodes = |graph, [first, second]: [u64; 2], flavor, place: Body| {
        [
            node(Body::NONE, &[], choice_of(graph, first, flavor, 2)),
            node(Body::NONE, &[], choice_of(graph, second, Conditional::WHILE, 1)),
            node(place, &[], GraphWork::Empty),
        ]
    };
    instantiate(&world, &nodes(OF, [one, two], Conditional::IF, body(0, 1))).unwrap();
    let failure = Err(CuError::GRAPH_EXEC_UPDATE_FAILURE);
    for (changed, wanted, what) in [
        (nodes(OTHER, [low, high], Conditional::IF, body(0, 1)), Ok(()), "the same"),
        (nodes(OTHER, [high, low], Conditional::IF, body(0, 1)), failure, "in another order"),
        (nodes(OF, [two, one], Conditional::IF, body(0, 1)), failure, "its own in another order"),
        (nodes(OTHER, [low, high], Conditional::SWITCH, body(0, 1)), failure, "of another kind"),
        (nodes(OTHER, [low, high], Conditional::IF, body(0, 0)), failure, "in another body"),
        (nodes(OTHER, [low, high], Conditional::IF, Body::NONE), failure, "in no body"),
        (nodes(OTHER, [low, low], Conditional::IF, body(0, 1)), Err(CuError::INVALID_VALUE), "one's twice"),
    ] {
        assert_eq!(update(&world, &changed), wanted, "{what}");
    }
    let [first, second, last] = nodes(OTHER, [low, high], Conditional::IF, body(0, 1));
    let fewer = node(Body::NONE, &[], choice_of(OTHER, low, Conditional::IF, 1));
    let moved = node(body(0, 0), &[], GraphWork::Empty);
    assert_eq!(update(&world, &[fewer, second.clone(), moved]), failure, "with fewer bodies");
    let more = [first, second, last, node(Body::NONE, &[], GraphWork::Empty)];
    assert_eq!((update(&world, &more), launch(&world)), (failure, None));
}

/// What a device keeps of a graph's nodes counts against what a process's graphs may take, until the guest's graph ends.
#[test]
fn nodes_that_the_device_keeps_count_once_until_the_guests_graph_ends() {
    const NODES: usize = 200_000;
    let world = world();
    let fits = |graph: u64| {
        let handle = number_of(&world, graph, 0, 0);
        let mut nodes = vec![node(Body::NONE, &[], choice_of(graph, handle, Conditional::IF, 1))];
        nodes.extend((1..NODES).map(|_| node(Body::NONE, &[], GraphWork::Empty)));
        let bytes: Vec<u8> = nodes.iter().flat_map(to_vec).collect();
        for _ in 0..2 {
            for (place, part) in (0..).zip(bytes.chunks(60_000)) {
                let (total, offset) = (bytes.len() as u64, place * 60_000);
                ask::vgpuUpload(&world.guest, C, 7, total, offset, part).unwrap();
            }
            ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(GRAPH), 7, 0)?;
            destroy(&world, GRAPH);
        }
        Ok(())
    };
    let refused = (0..20).map(|graph| (graph, fits(graph))).find(|(_, fitted)| fitted.is_err());
    let (count, error) = refused.unwrap();
    assert_eq!(error, Err(CuError::OUT_OF_MEMORY));
    assert!((5..15).contains(&count), "{count} graphs of {NODES} nodes");
    for graph in 0..=count {
        ask::vgpuConditionalsEnd(&world.guest, C, graph).unwrap();
    }
    assert_eq!(fits(30), Ok(()));
}

/// Also once the guest's graph has ended: who ends it and makes the next one could else have any number.
#[test]
fn numbers_count_until_nothing_can_be_launched_of_their_graph() {
    let world = world();
    let handle = (0..65_534).map(|_| number(&world, 0, 0)).last().unwrap();
    instantiate(&world, &[node(Body::NONE, &[], choice(handle, Conditional::IF, 1))]).unwrap();
    let ended = || {
        ask::vgpuConditionalsEnd(&world.guest, C, OF).unwrap();
        [(); 3].map(|()| ask::vgpuConditionalCreate(&world.guest, C, OF, 0, 0).is_ok())
    };
    assert_eq!(ended(), [true, true, false]);
    assert_eq!((ended(), launch(&world)), ([true, true, false], None), "what is launched is another's");
    destroy(&world, GRAPH);
    assert_eq!(ended(), [true; 3]);
}

/// The device has them in one graph, which would else end after what it names.
#[test]
fn a_graph_ends_with_each_context_of_its_numbers_and_of_nodes_that_it_was_given() {
    const SECOND: ContextId = ContextId(100);
    let world = world();
    let in_second = |graph| ask::vgpuConditionalCreate(&world.guest, SECOND, graph, 0, 0);
    let choice = |graph, handle| node(Body::NONE, &[], choice_of(graph, handle, Conditional::IF, 1));
    let ended = |graph, handle| {
        assert_eq!(ask::cuCtxDestroy_v2(&world.guest, C, SECOND), Ok(()));
        let again = instantiate_as(&world, AGAIN, &[choice(graph, handle)]);
        (launch(&world), again)
    };
    let gone = (Some(CuError::INVALID_VALUE), Err(CuError::INVALID_VALUE));

    ask::cuCtxCreate_v2(&world.guest, C, SECOND, 0, 0).unwrap();
    let handle = number(&world, 0, 0);
    in_second(OF).unwrap();
    instantiate(&world, &[choice(OF, handle)]).unwrap();
    assert_eq!(launch(&world), None);
    // Whoever has ended the graph.
    ask::vgpuConditionalsEnd(&world.guest, C, OF).unwrap();
    assert_eq!(ended(OF, handle), gone);

    ask::cuCtxCreate_v2(&world.guest, C, SECOND, 0, 0).unwrap();
    let (one, other) = (number_of(&world, OTHER, 0, 0), number_of(&world, OTHER + 1, 0, 0));
    let elsewhere = GraphNode { context: SECOND, ..node(Body::NONE, &[], GraphWork::Empty) };
    instantiate(&world, &[choice(OTHER, one), elsewhere]).unwrap();
    destroy(&world, GRAPH);
    assert_eq!(ended(OTHER, one), gone);
    assert_eq!(instantiate(&world, &[choice(OTHER + 1, other)]), Ok(()), "it is another's");
}
