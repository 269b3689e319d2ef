//! Graphs: making, ending, edges, what is in them. All of it is in the process.

use std::ffi::{OsStr, c_char};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use vgpu_api::{CuError, CuResult, GraphHandle, GraphNodeHandle};

use super::capture::no_edges;
use crate::abi::{In, Out, Raw, export};
use crate::core::graphs::{Edge, Graph, Inner, Need, Owner, Work};
use crate::core::process::process;

/// Writes a list as CUDA does: to no place, its length; to a place with room, as many as fit, zeros after them, and their number.
fn list(
    places: &[(Out<u64>, &[u64])],
    edges: Option<(Out<Edge>, &[Edge])>,
    count: Out<usize>,
) -> CuResult<()> {
    let length = places.first().map_or(0, |(_, values)| values.len());
    let room = count.replace(length)?;
    let wanted = places.iter().filter(|(place, _)| place.wanted().is_ok()).count();
    if wanted == 0 {
        return Ok(());
    }
    if wanted != places.len() {
        return Err(CuError::INVALID_VALUE);
    }
    let kept = room.min(length);
    for (place, values) in places {
        let values = values.iter().take(kept).copied();
        place.set_all(values.chain(std::iter::repeat_n(0, room - kept)))?;
    }
    if let Some((place, values)) = edges
        && place.wanted().is_ok()
    {
        let values = values.iter().take(kept).copied();
        place.set_all(values.chain(std::iter::repeat_n(Edge::default(), room - kept)))?;
    }
    count.set(kept)
}

/// That edges which the program does not ask for say no more than that they are there.
fn lossless(edges: &[Edge], asked: Option<Out<Edge>>, nodes: Out<u64>) -> CuResult<()> {
    let lost = nodes.wanted().is_ok() && asked.is_none_or(|place| place.wanted().is_err());
    if lost && edges.iter().any(|edge| !edge.is_plain()) { Err(CuError::LOSSY_QUERY) } else { Ok(()) }
}

fn nodes(graph: Raw, out: Out<u64>, count: Out<usize>, wanted: impl Fn(&[Need]) -> bool) -> CuResult<()> {
    let inner = process()?.graphs.lock();
    let handle = inner.named(graph.0)?;
    let nodes = inner.graph(handle)?.nodes().filter(|(_, node)| wanted(&node.needs));
    let nodes: Vec<u64> = nodes.map(|(place, _)| GraphNodeHandle::of_graph(handle, place).raw()).collect();
    list(&[(out, &nodes)], None, count)
}

fn edges(
    graph: Raw,
    from: Out<u64>,
    to: Out<u64>,
    data: Option<Out<Edge>>,
    count: Out<usize>,
) -> CuResult<()> {
    let inner = process()?.graphs.lock();
    let handle = inner.named(graph.0)?;
    let raw = |place| GraphNodeHandle::of_graph(handle, place).raw();
    let (mut sources, mut targets, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (place, node) in inner.graph(handle)?.nodes() {
        for need in &node.needs {
            sources.push(raw(need.place));
            targets.push(raw(place));
            kinds.push(need.edge);
        }
    }
    lossless(&kinds, data, from)?;
    list(&[(from, &sources), (to, &targets)], data.map(|place| (place, &kinds[..])), count)
}

fn dependencies(node: Raw, out: Out<u64>, data: Option<Out<Edge>>, count: Out<usize>) -> CuResult<()> {
    let inner = process()?.graphs.lock();
    let (handle, node) = inner.node(node.0)?;
    let raw = |need: &Need| GraphNodeHandle::of_graph(handle.graph(), need.place).raw();
    let nodes: Vec<u64> = node.needs.iter().map(raw).collect();
    let kinds: Vec<Edge> = node.needs.iter().map(|need| need.edge).collect();
    lossless(&kinds, data, out)?;
    list(&[(out, &nodes)], data.map(|place| (place, &kinds[..])), count)
}

fn dependents(node: Raw, out: Out<u64>, data: Option<Out<Edge>>, count: Out<usize>) -> CuResult<()> {
    let inner = process()?.graphs.lock();
    let (handle, _) = inner.node(node.0)?;
    let (mut nodes, mut kinds) = (Vec::new(), Vec::new());
    for (place, other) in inner.graph(handle.graph())?.nodes() {
        for need in other.needs.iter().filter(|need| need.place == handle.place()) {
            nodes.push(GraphNodeHandle::of_graph(handle.graph(), place).raw());
            kinds.push(need.edge);
        }
    }
    lossless(&kinds, data, out)?;
    list(&[(out, &nodes)], data.map(|place| (place, &kinds[..])), count)
}

/// Edges as a program gives them.
fn given(
    inner: &Inner,
    graph: GraphHandle,
    (from, to): (In<u64>, In<u64>),
    data: In<Edge>,
    count: usize,
) -> CuResult<Vec<(Need, u32)>> {
    let edge = |i: usize| {
        let edge = if data.is_null() { Edge::default() } else { data.at(i)? };
        let need = Need { place: inner.place_in(graph, from.at(i)?)?, edge };
        Ok((need, inner.place_in(graph, to.at(i)?)?))
    };
    (0..count).map(edge).collect()
}

fn connect(graph: Raw, ends: (In<u64>, In<u64>), data: In<Edge>, count: usize) -> CuResult<()> {
    let mut inner = process()?.graphs.lock();
    let handle = inner.named(graph.0)?;
    let edges = given(&inner, handle, ends, data, count)?;
    inner.connect(handle, &edges)
}

fn disconnect(graph: Raw, ends: (In<u64>, In<u64>), data: In<Edge>, count: usize) -> CuResult<()> {
    let mut inner = process()?.graphs.lock();
    let handle = inner.named(graph.0)?;
    let edges = given(&inner, handle, ends, data, count)?;
    inner.disconnect(handle, &edges)
}

/// A graph in the language of Graphviz, its child graphs beside it.
fn dot(inner: &Inner, graph: GraphHandle) -> CuResult<String> {
    let mut text = String::from("digraph vgpu {\n");
    let mut left = vec![graph];
    while let Some(handle) = left.pop() {
        let graph: &Graph = inner.graph(handle)?;
        let _ = writeln!(text, "subgraph cluster_{0} {{ label=\"graph {0}\";", handle.index());
        for (place, node) in graph.nodes() {
            let name = format!("g{}_n{place}", handle.index());
            let more = match &node.work {
                Work::Kernel(kernel) => format!(" {:?} x {:?}", kernel.grid, kernel.block),
                Work::Fill(memset, _) => {
                    format!(" {} x {} x {}", memset.rows, memset.width, memset.element_bytes)
                }
                Work::Child(child) => {
                    left.push(*child);
                    format!(" {}", child.index())
                }
                _ => String::new(),
            };
            let _ = writeln!(text, "  {name} [label=\"{place}: {}{more}\"];", node.work.name());
            for need in &node.needs {
                let style = if need.edge.is_plain() { "" } else { " [style=dashed]" };
                let _ = writeln!(text, "  g{}_n{} -> {name}{style};", handle.index(), need.place);
            }
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    Ok(text)
}

export! {
    fn cuGraphCreate(out: Out<u64>, flags: u32) {
        let process = process()?;
        out.wanted()?;
        if flags != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        out.set(process.graphs.lock().make(Owner::Program)?.raw())
    }

    fn cuGraphDestroy(graph: Raw) {
        let mut inner = process()?.graphs.lock();
        let handle = inner.named(graph.0)?;
        inner.destroy(handle)
    }

    fn cuGraphClone(out: Out<u64>, graph: Raw) {
        let mut inner = process()?.graphs.lock();
        out.wanted()?;
        let handle = inner.named(graph.0)?;
        out.set(inner.copy(handle, Owner::Program)?.raw())
    }

    fn cuGraphDestroyNode(node: Raw) {
        process()?.graphs.lock().destroy_node(node.0)
    }

    fn cuGraphGetNodes(graph: Raw, out: Out<u64>, count: Out<usize>) {
        nodes(graph, out, count, |_| true)
    }

    fn cuGraphGetRootNodes(graph: Raw, out: Out<u64>, count: Out<usize>) {
        nodes(graph, out, count, <[Need]>::is_empty)
    }

    fn cuGraphGetEdges(graph: Raw, from: Out<u64>, to: Out<u64>, count: Out<usize>) {
        edges(graph, from, to, None, count)
    }

    fn cuGraphGetEdges_v2(graph: Raw, from: Out<u64>, to: Out<u64>, data: Out<Edge>, count: Out<usize>) {
        edges(graph, from, to, Some(data), count)
    }

    fn cuGraphNodeGetDependencies(node: Raw, out: Out<u64>, count: Out<usize>) {
        dependencies(node, out, None, count)
    }

    fn cuGraphNodeGetDependencies_v2(node: Raw, out: Out<u64>, data: Out<Edge>, count: Out<usize>) {
        dependencies(node, out, Some(data), count)
    }

    fn cuGraphNodeGetDependentNodes(node: Raw, out: Out<u64>, count: Out<usize>) {
        dependents(node, out, None, count)
    }

    fn cuGraphNodeGetDependentNodes_v2(node: Raw, out: Out<u64>, data: Out<Edge>, count: Out<usize>) {
        dependents(node, out, Some(data), count)
    }

    fn cuGraphAddDependencies(graph: Raw, from: In<u64>, to: In<u64>, count: usize) {
        connect(graph, (from, to), no_edges(), count)
    }

    fn cuGraphAddDependencies_v2(graph: Raw, from: In<u64>, to: In<u64>, data: In<Edge>, count: usize) {
        connect(graph, (from, to), data, count)
    }

    fn cuGraphRemoveDependencies(graph: Raw, from: In<u64>, to: In<u64>, count: usize) {
        disconnect(graph, (from, to), no_edges(), count)
    }

    fn cuGraphRemoveDependencies_v2(graph: Raw, from: In<u64>, to: In<u64>, data: In<Edge>, count: usize) {
        disconnect(graph, (from, to), data, count)
    }

    fn cuGraphNodeGetType(node: Raw, out: Out<u32>) {
        let inner = process()?.graphs.lock();
        out.set(inner.node(node.0)?.1.work.number())
    }

    fn cuGraphNodeFindInClone(out: Out<u64>, node: Raw, clone: Raw) {
        let inner = process()?.graphs.lock();
        let clone = inner.named(clone.0)?;
        out.set(inner.in_copy(node.0, clone)?.raw())
    }

    fn cuGraphChildGraphNodeGetGraph(node: Raw, out: Out<u64>) {
        let inner = process()?.graphs.lock();
        match inner.node(node.0)?.1.work {
            Work::Child(child) => out.set(child.raw()),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    /// What the flags ask for more of is not written.
    fn cuGraphDebugDotPrint(graph: Raw, path: In<c_char>, _flags: u32) {
        let process = process()?;
        let path = OsStr::from_bytes(path.text()?.to_bytes());
        let inner = process.graphs.lock();
        let text = dot(&inner, inner.named(graph.0)?)?;
        drop(inner);
        std::fs::write(path, text).map_err(|_| CuError::OPERATING_SYSTEM)
    }
}
