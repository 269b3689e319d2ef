//! Tables of graphs by themselves.

use super::*;

fn chain(inner: &mut Inner, count: u32) -> GraphHandle {
    let graph = inner.make(Owner::Program).unwrap();
    for place in 0..count {
        let needs = place.checked_sub(1).map(Need::all).into_iter().collect();
        inner.add(graph, needs, Work::Empty).unwrap();
    }
    graph
}

fn raw(graph: GraphHandle, place: u32) -> u64 {
    GraphNodeHandle::of_graph(graph, place).raw()
}

#[test]
fn an_order_is_found_for_edges_against_the_order_of_making_and_none_for_a_ring() {
    let mut inner = Inner::default();
    let graph = chain(&mut inner, 3);
    let edge = |from, to| (Need::all(from), to);
    inner.disconnect(graph, &[edge(0, 1), edge(1, 2)]).unwrap();
    inner.connect(graph, &[edge(2, 0), edge(1, 2)]).unwrap();
    assert_eq!(inner.graph(graph).unwrap().ordered(), Ok(vec![1, 2, 0]));
    inner.connect(graph, &[edge(0, 1)]).unwrap();
    assert_eq!(inner.graph(graph).unwrap().ordered(), Err(CuError::INVALID_VALUE));
}

#[test]
fn edges_are_added_all_or_none() {
    let mut inner = Inner::default();
    let graph = chain(&mut inner, 3);
    let edge = |from, to| (Need::all(from), to);
    for wrong in [edge(0, 1), edge(1, 1), edge(7, 1), edge(0, 7)] {
        assert_eq!(inner.connect(graph, &[edge(0, 2), wrong]), Err(CuError::INVALID_VALUE), "{wrong:?}");
    }
    assert_eq!(inner.graph(graph).unwrap().get(2).unwrap().needs, [Need::all(1)]);
    let early = Need { place: 0, edge: Edge::PROGRAMMATIC };
    assert_eq!(inner.connect(graph, &[(early, 2)]), Err(CuError::INVALID_VALUE), "these are no kernels");
    assert_eq!(inner.disconnect(graph, &[edge(0, 1), edge(0, 2)]), Err(CuError::INVALID_VALUE));
    assert_eq!(inner.graph(graph).unwrap().get(1).unwrap().needs, [Need::all(0)]);
}

#[test]
fn a_node_that_went_is_refused_and_nothing_waits_for_it() {
    let mut inner = Inner::default();
    let graph = chain(&mut inner, 3);
    inner.destroy_node(raw(graph, 1)).unwrap();
    assert_eq!(inner.node(raw(graph, 1)).err(), Some(CuError::INVALID_HANDLE));
    assert!(inner.node(raw(graph, 2)).unwrap().1.needs.is_empty());
    inner.destroy(graph).unwrap();
    let next = chain(&mut inner, 1);
    assert_eq!(next.index(), graph.index());
    assert_eq!(inner.node(raw(graph, 0)).err(), Some(CuError::INVALID_HANDLE));
}

#[test]
fn a_copy_has_copies_of_its_children_and_knows_its_nodes() {
    let mut inner = Inner::default();
    let (graph, child) = (chain(&mut inner, 2), chain(&mut inner, 1));
    inner.graph_mut(child).unwrap().owner = Owner::Another;
    inner.add(graph, vec![], Work::Child(child)).unwrap();
    let copy = inner.copy(graph, Owner::Program).unwrap();
    assert_eq!(inner.in_copy(raw(graph, 1), copy).unwrap().raw(), raw(copy, 1));
    let late = inner.add(graph, vec![], Work::Empty).unwrap();
    assert_eq!(inner.in_copy(late.raw(), copy), Err(CuError::INVALID_VALUE));
    let Work::Child(copied) = inner.node(raw(copy, 2)).unwrap().1.work else { panic!("a child") };
    assert_ne!(copied, child);
    assert_eq!(inner.destroy(child), Err(CuError::INVALID_VALUE), "its parent ends it");
    inner.destroy(copy).unwrap();
    assert_eq!(inner.named(copied.raw()), Err(CuError::INVALID_HANDLE));
    assert_eq!(inner.named(child.raw()), Ok(child));
}

#[test]
fn addresses_of_parameters_follow_their_block() {
    let params = Params::new(&[1, 2, 3, 4, 5, 6, 7, 8], [0, 4].into_iter());
    let copy = params.clone();
    drop(params);
    assert_eq!(copy.addresses[1] - copy.addresses[0], 4);
    assert_eq!(copy.addresses[0], copy.bytes.as_ptr() as u64);
}
