use super::*;
use crate::array::{ArrayPlace, BoxSide, Extent, LinearPlace};
use crate::handle::{ArrayHandle, FunctionHandle, ImageHandle, Stream};
use crate::launch::{LaunchAttributes, LaunchShape};
use crate::stream_memory::MemoryOpKind;
use crate::wire::{from_slice, to_vec};

fn node(needs: &[u32], work: GraphWork<'static>) -> GraphNode<'static> {
    let edge = |from: &u32| GraphEdge { from: *from, from_port: 0, to_port: 0, kind: 0 };
    GraphNode { context: ContextId(1), body: Body::NONE, needs: needs.iter().map(edge).collect(), work }
}

fn nodes() -> Vec<GraphNode<'static>> {
    let function = FunctionHandle::of_image(ImageHandle::new(0, 1), 2);
    let shape =
        LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [2; 3], shared_bytes: 3 };
    let launch = Launch { shape, attributes: LaunchAttributes::default(), params: &[1, 2, 3] };
    let line = CopyBox::line(DevicePtr(16), DevicePtr(64), 8);
    let memset = Memset { dst: DevicePtr(4), pitch: 0, element_bytes: 4, value: 9, width: 2, rows: 1 };
    let event = EventHandle::new(1, 2);
    let op = MemoryOp { kind: MemoryOpKind::WaitAnd, at: DevicePtr(8), bytes: 8, value: 3 };
    let array = ArrayPlace { array: ArrayHandle::new(0, 3), x_bytes: 4, y: 1, z: 2 };
    let array = Some(BoxSide::Array(array));
    let memory = Some(BoxSide::Linear(LinearPlace { at: DevicePtr(64), pitch: 16, height: 4 }));
    let size = Extent { width_bytes: 8, height: 3, depth: 2 };
    let copy = |to, from| node(&[], GraphWork::ArrayCopy(ArrayCopy::of(to, from, size).unwrap()));
    assert_eq!(ArrayCopy::of(memory, memory, size), None, "no array");
    assert_eq!(ArrayCopy::of(memory, None, size), None, "no array");
    vec![
        copy(array, memory),
        copy(memory, array),
        copy(array, array),
        copy(array, None),
        copy(None, array),
        node(&[], GraphWork::Kernel(launch)),
        node(&[0], GraphWork::Fill(memset)),
        node(&[0], GraphWork::Copy(line, HostSide::Neither)),
        node(&[], GraphWork::Copy(line, HostSide::From)),
        node(&[], GraphWork::Copy(line, HostSide::To)),
        node(&[1, 2], GraphWork::Empty),
        node(&[5], GraphWork::Record(event)),
        node(&[5], GraphWork::Wait(event)),
        node(&[6, 7], GraphWork::Host(u64::MAX)),
        node(&[8], GraphWork::Words(vec![op, op])),
        node(&[], GraphWork::Conditional(Conditional { graph: 1, handle: 7, flavor: 2, bodies: 3 })),
    ]
}

#[test]
fn nodes_of_every_kind_come_back_and_every_cut_of_one_is_an_error() {
    let bytes: Vec<u8> = nodes().iter().flat_map(to_vec).collect();
    assert_eq!(parse(&bytes).unwrap(), nodes());
    for node in nodes() {
        let bytes = to_vec(&node);
        for cut in 0..bytes.len() {
            assert!(from_slice::<GraphNode<'_>>(&bytes[..cut]).is_err(), "{node:?} cut at {cut}");
        }
    }
}

#[test]
fn a_copy_with_an_array_has_the_sides_that_it_was_made_of() {
    for node in nodes() {
        let GraphWork::ArrayCopy(copy) = node.work else { continue };
        let (to, from) = copy.sides();
        assert_eq!(ArrayCopy::of(to, from, copy.extent()), Some(copy));
        let host = if to.is_none() || from.is_none() { 48 } else { 0 };
        assert_eq!(node.work.host_bytes(), Some(host));
    }
}

#[test]
fn a_node_that_waits_for_itself_or_a_later_one_is_no_graph() {
    for needs in [0, 1, u32::MAX] {
        let bytes = to_vec(&node(&[needs], GraphWork::Empty));
        assert_eq!(parse(&bytes), Err(CuError::INVALID_VALUE));
    }
}

#[test]
fn more_nodes_than_there_may_be_are_too_many() {
    let one = to_vec(&node(&[], GraphWork::Empty));
    assert_eq!(parse(&one.repeat(NODES_MAX)).map(|nodes| nodes.len()), Ok(NODES_MAX));
    assert_eq!(parse(&one.repeat(NODES_MAX + 1)), Err(CuError::OUT_OF_MEMORY));
}

#[test]
fn the_span_of_a_box_ends_with_its_last_row() {
    let rows = Rows { start: DevicePtr(1000), pitch: 10, slice_rows: 5 };
    let copy = CopyBox { width: 4, height: 3, depth: 2, to: rows, from: rows };
    assert_eq!(copy.span(&rows), Some(50 + 20 + 4));
    assert_eq!(
        copy.rows().map(|(to, _, packed)| (to, packed)).collect::<Vec<_>>(),
        [(1000, 0), (1010, 4), (1020, 8), (1050, 12), (1060, 16), (1070, 20)]
    );
    for wrong in [
        CopyBox { width: 11, ..copy },
        CopyBox { height: 6, ..copy },
        CopyBox { width: 0, ..copy },
        CopyBox { depth: u64::MAX, ..copy },
    ] {
        assert_eq!(wrong.span(&rows), None, "{wrong:?}");
    }
    let wide = CopyBox { width: u64::MAX, height: 1, depth: 1, ..copy };
    assert_eq!(wide.span(&rows), Some(u64::MAX), "one row may be as long as it likes: the map says no");
}
