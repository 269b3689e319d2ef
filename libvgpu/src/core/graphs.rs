//! Graphs of the process: their nodes and edges, and the captures that fill them (`capture.rs`). All of it is kept and answered here;
//! the worker sees a graph when it is instantiated (`exec.rs`), whole.
//!
//! A graph is the program's, or belongs to a node (a child graph), to a capture, or to what was instantiated of it (a copy, so that the
//! original may change). A node keeps its place as long as its graph lives, so that a stale handle is found out.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard};

use vgpu_api::handle::GRAPHS_MAX;
use vgpu_api::launch::attribute;
use vgpu_api::{
    ContextId, CuError, CuResult, EventHandle, FunctionHandle, GraphHandle, GraphNodeHandle, LaunchAttribute,
    Memset,
};

use super::capture::Captures;
use super::slab::lock;
use crate::calls::copy_box::BoxNode;

/// All graphs and captures.
#[derive(Debug, Default)]
pub struct Graphs {
    inner: Mutex<Inner>,
    /// Captures that have begun and not ended: while there are none, no call takes the lock.
    pub(super) capturing: AtomicUsize,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub struct Inner {
    /// By index: how often it was given out before, and the graph.
    graphs: Vec<(u32, Option<Graph>)>,
    free: Vec<usize>,
    pub(super) captures: Captures,
}

/// Whose a graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Program,
    /// A child graph's node, or a graph that can be launched.
    Another,
    /// A capture that goes on.
    Capture,
}

/// One graph.
#[derive(Debug)]
pub struct Graph {
    pub owner: Owner,
    /// A capture fills it: no node may go.
    pub captured: bool,
    nodes: Vec<Option<Node>>,
    /// What it was cloned from, and how many places that had then.
    origin: Option<(GraphHandle, usize)>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    pub work: Work,
    pub needs: Vec<Need>,
}

/// `CUgraphEdgeData`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Edge {
    pub from_port: u8,
    pub to_port: u8,
    pub kind: u8,
    pub reserved: [u8; 5],
}
const _: () = assert!(size_of::<Edge>() == 8);

impl Edge {
    /// `CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC`, `CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC`.
    pub const PROGRAMMATIC: Self = Self { from_port: 1, to_port: 0, kind: 1, reserved: [0; 5] };

    pub fn is_plain(self) -> bool {
        self == Self::default()
    }
}

/// What a node waits for: a place in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub place: u32,
    pub edge: Edge,
}

impl Need {
    /// All of a node.
    pub fn all(place: u32) -> Self {
        Self { place, edge: Edge::default() }
    }
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Work {
    Empty,
    Kernel(Box<Kernel>),
    Copy(Box<BoxNode>),
    Fill(Memset, ContextId),
    Child(GraphHandle),
    Record(EventHandle),
    Wait(EventHandle),
}

impl Work {
    /// `CUgraphNodeType`.
    pub fn number(&self) -> u32 {
        match self {
            Self::Kernel(_) => 0,
            Self::Copy(_) => 1,
            Self::Fill(..) => 2,
            Self::Child(_) => 4,
            Self::Empty => 5,
            Self::Wait(_) => 6,
            Self::Record(_) => 7,
        }
    }

    /// As in `CU_GRAPH_NODE_TYPE_…`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel(_) => "KERNEL",
            Self::Copy(_) => "MEMCPY",
            Self::Fill(..) => "MEMSET",
            Self::Child(_) => "GRAPH",
            Self::Empty => "EMPTY",
            Self::Wait(_) => "WAIT_EVENT",
            Self::Record(_) => "EVENT_RECORD",
        }
    }
}

/// A kernel's node.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub function: FunctionHandle,
    pub context: ContextId,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: Params,
    pub attributes: Vec<LaunchAttribute>,
}

impl Kernel {
    /// Its blocks run together.
    pub fn is_cooperative(&self) -> bool {
        self.attributes.iter().any(|each| each.id == attribute::COOPERATIVE && each.word(0) != Some(0))
    }
}

/// A packed parameter block, and for programs that ask: the address of each parameter in it.
#[derive(Debug)]
pub struct Params {
    pub bytes: Box<[u8]>,
    offsets: Box<[u32]>,
    addresses: Box<[u64]>,
}

impl Params {
    pub fn new(bytes: &[u8], offsets: impl Iterator<Item = u32>) -> Self {
        let bytes: Box<[u8]> = bytes.into();
        let start = bytes.as_ptr().expose_provenance() as u64;
        let offsets: Box<[u32]> = offsets.collect();
        let addresses = offsets.iter().map(|offset| start + u64::from(*offset)).collect();
        Self { bytes, offsets, addresses }
    }

    /// As `kernelParams`: good while the node lives and is not changed.
    pub fn addresses(&self) -> u64 {
        if self.addresses.is_empty() { 0 } else { self.addresses.as_ptr().expose_provenance() as u64 }
    }
}

impl Clone for Params {
    fn clone(&self) -> Self {
        Self::new(&self.bytes, self.offsets.iter().copied())
    }
}

impl Graph {
    fn new(owner: Owner) -> Self {
        Self { owner, captured: false, nodes: Vec::new(), origin: None }
    }

    /// Places and nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0..).zip(&self.nodes).filter_map(|(place, node)| Some((place, node.as_ref()?)))
    }

    pub fn get(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)?.as_ref()
    }

    fn get_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.nodes.get_mut(place as usize)?.as_mut()
    }

    fn push(&mut self, needs: Vec<Need>, work: Work) -> CuResult<u32> {
        self.check_needs(&needs, matches!(work, Work::Kernel(_)))?;
        let place = u32::try_from(self.nodes.len()).ok().filter(|place| u64::from(*place) < GRAPHS_MAX);
        let place = place.ok_or(CuError::OUT_OF_MEMORY)?;
        self.nodes.push(Some(Node { work, needs }));
        Ok(place)
    }

    /// Places that any node waits for.
    pub fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        for (_, node) in self.nodes() {
            for need in &node.needs {
                if let Some(place) = needed.get_mut(need.place as usize) {
                    *place = true;
                }
            }
        }
        needed
    }

    /// The places in an order in which each node comes after what it waits for: as they were made, as far as that goes.
    /// # Errors
    /// 1 for nodes that wait for each other.
    pub fn ordered(&self) -> CuResult<Vec<u32>> {
        let made: Vec<u32> = self.nodes().map(|(place, _)| place).collect();
        if self.nodes().all(|(place, node)| node.needs.iter().all(|need| need.place < place)) {
            return Ok(made);
        }
        let mut waits: Vec<usize> =
            self.nodes.iter().map(|node| node.as_ref().map_or(0, |node| node.needs.len())).collect();
        let mut feeds = vec![Vec::new(); self.nodes.len()];
        for (place, node) in self.nodes() {
            for need in &node.needs {
                feeds.get_mut(need.place as usize).ok_or(CuError::UNKNOWN)?.push(place);
            }
        }
        let ready = made.iter().filter(|place| waits.get(**place as usize) == Some(&0));
        let mut ready: std::collections::BTreeSet<u32> = ready.copied().collect();
        let mut order = Vec::with_capacity(made.len());
        while let Some(place) = ready.pop_first() {
            order.push(place);
            for fed in feeds.get(place as usize).into_iter().flatten() {
                let left = waits.get_mut(*fed as usize).ok_or(CuError::UNKNOWN)?;
                *left -= 1;
                if *left == 0 {
                    ready.insert(*fed);
                }
            }
        }
        if order.len() == made.len() { Ok(order) } else { Err(CuError::INVALID_VALUE) }
    }

    /// That a node could wait for these.
    /// # Errors
    /// 1 for a node that is not there, or named twice, or an edge that there is not between such nodes.
    fn check_needs(&self, needs: &[Need], to_kernel: bool) -> CuResult<()> {
        let mut places: Vec<u32> = needs.iter().map(|need| need.place).collect();
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(CuError::INVALID_VALUE);
        }
        needs.iter().try_for_each(|Need { place, edge }| {
            let from = self.get(*place).ok_or(CuError::INVALID_VALUE)?;
            let Edge { from_port, to_port, kind, reserved } = *edge;
            let of_kernels = to_kernel && matches!(from.work, Work::Kernel(_));
            let right = match (kind, from_port) {
                (0, 0) => true,
                (1, 1 | 2) => of_kernels,
                _ => false,
            };
            if right && to_port == 0 && reserved == [0; 5] { Ok(()) } else { Err(CuError::INVALID_VALUE) }
        })
    }
}

impl Graphs {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    /// A new graph.
    /// # Errors
    /// 2 if there are too many.
    pub fn make(&mut self, owner: Owner) -> CuResult<GraphHandle> {
        self.insert(Graph::new(owner))
    }

    fn insert(&mut self, graph: Graph) -> CuResult<GraphHandle> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.graphs.len() as u64 >= GRAPHS_MAX => return Err(CuError::OUT_OF_MEMORY),
            None => {
                self.graphs.push((0, None));
                self.graphs.len() - 1
            }
        };
        let place = self.graphs.get_mut(index).ok_or(CuError::UNKNOWN)?;
        place.1 = Some(graph);
        Ok(GraphHandle::new(place.0, index as u64))
    }

    /// # Errors
    /// 400.
    pub fn graph(&self, handle: GraphHandle) -> CuResult<&Graph> {
        let place = usize::try_from(handle.index()).ok().and_then(|index| self.graphs.get(index));
        let place = place.filter(|place| place.0 == handle.generation());
        place.and_then(|place| place.1.as_ref()).ok_or(CuError::INVALID_HANDLE)
    }

    /// # Errors
    /// 400.
    pub fn graph_mut(&mut self, handle: GraphHandle) -> CuResult<&mut Graph> {
        let place = usize::try_from(handle.index()).ok().and_then(|index| self.graphs.get_mut(index));
        let place = place.filter(|place| place.0 == handle.generation());
        place.and_then(|place| place.1.as_mut()).ok_or(CuError::INVALID_HANDLE)
    }

    /// The graph of a program's number.
    /// # Errors
    /// 400.
    pub fn named(&self, raw: u64) -> CuResult<GraphHandle> {
        let handle = GraphHandle::check(raw)?;
        self.graph(handle).map(|_| handle)
    }

    /// The node of a program's number.
    /// # Errors
    /// 400.
    pub fn node(&self, raw: u64) -> CuResult<(GraphNodeHandle, &Node)> {
        let handle = GraphNodeHandle::check(raw)?;
        let node = self.graph(handle.graph())?.get(handle.place()).ok_or(CuError::INVALID_HANDLE)?;
        Ok((handle, node))
    }

    /// The node of a program's number, to change it.
    /// # Errors
    /// 400.
    pub fn node_mut(&mut self, raw: u64) -> CuResult<&mut Node> {
        let handle = GraphNodeHandle::check(raw)?;
        self.graph_mut(handle.graph())?.get_mut(handle.place()).ok_or(CuError::INVALID_HANDLE)
    }

    /// The place of a program's node in `graph`.
    /// # Errors
    /// 400, or 1 for a node of another graph.
    pub fn place_in(&self, graph: GraphHandle, raw: u64) -> CuResult<u32> {
        let (handle, _) = self.node(raw)?;
        if handle.graph() == graph { Ok(handle.place()) } else { Err(CuError::INVALID_VALUE) }
    }

    /// Adds a node. A child graph belongs to it then; if nothing was added, a copy has ended, and one of the program's is still its own.
    /// # Errors
    /// 1 for what it cannot wait for, 2 if there are too many.
    pub fn add(&mut self, graph: GraphHandle, needs: Vec<Need>, work: Work) -> CuResult<GraphNodeHandle> {
        let child = if let Work::Child(child) = work { Some(child) } else { None };
        let added = self.graph_mut(graph).and_then(|within| within.push(needs, work));
        if let Some(child) = child {
            let of_child = self.graph_mut(child)?;
            match (&added, of_child.owner) {
                (Ok(_), _) => of_child.owner = Owner::Another,
                (Err(_), Owner::Another) => self.end(child),
                (Err(_), _) => {}
            }
        }
        added.map(|place| GraphNodeHandle::of_graph(graph, place))
    }

    /// Whether `other` is `graph`, or lies in it at any depth.
    pub fn holds(&self, graph: GraphHandle, other: GraphHandle) -> bool {
        let mut left = vec![graph];
        while let Some(handle) = left.pop() {
            if handle == other {
                return true;
            }
            let Ok(within) = self.graph(handle) else { continue };
            left.extend(within.nodes().filter_map(|(_, node)| match node.work {
                Work::Child(child) => Some(child),
                _ => None,
            }));
        }
        false
    }

    /// A copy of `graph` and of its child graphs, with the same places.
    /// # Errors
    /// 400, or 2 if there are too many.
    pub fn copy(&mut self, graph: GraphHandle, owner: Owner) -> CuResult<GraphHandle> {
        let original = self.graph(graph)?;
        let places = original.nodes.len();
        let mut nodes = original.nodes.clone();
        let mut done: CuResult<()> = Ok(());
        let mut children = Vec::new();
        for node in nodes.iter_mut().flatten() {
            if let (Work::Child(child), Ok(())) = (&mut node.work, &done) {
                match self.copy(*child, Owner::Another) {
                    Ok(copied) => {
                        *child = copied;
                        children.push(copied);
                    }
                    Err(error) => done = Err(error),
                }
            }
        }
        let copied = done.and_then(|()| {
            self.insert(Graph { owner, captured: false, nodes, origin: Some((graph, places)) })
        });
        if copied.is_err() {
            children.into_iter().for_each(|child| self.end(child));
        }
        copied
    }

    /// Ends a graph and its child graphs.
    pub fn end(&mut self, graph: GraphHandle) {
        let mut ending = vec![graph];
        while let Some(handle) = ending.pop() {
            let Some(index) = usize::try_from(handle.index()).ok() else { continue };
            let Some(place) = self.graphs.get_mut(index).filter(|place| place.0 == handle.generation())
            else {
                continue;
            };
            let Some(ended) = place.1.take() else { continue };
            place.0 = (place.0 + 1) % vgpu_api::handle::GENERATIONS;
            self.free.push(index);
            ending.extend(ended.nodes.iter().flatten().filter_map(|node| match node.work {
                Work::Child(child) => Some(child),
                _ => None,
            }));
        }
    }

    /// The program ends a graph of its own.
    /// # Errors
    /// 400, or 1 for one that is not its own or that a capture fills.
    pub fn destroy(&mut self, graph: GraphHandle) -> CuResult<()> {
        let ending = self.graph(graph)?;
        if ending.owner != Owner::Program || ending.captured {
            return Err(CuError::INVALID_VALUE);
        }
        self.end(graph);
        Ok(())
    }

    /// Takes a node out; nothing waits for it any more.
    /// # Errors
    /// 400, or 1 in a graph that a capture fills.
    pub fn destroy_node(&mut self, raw: u64) -> CuResult<()> {
        let (handle, _) = self.node(raw)?;
        let graph = self.graph_mut(handle.graph())?;
        if graph.captured {
            return Err(CuError::INVALID_VALUE);
        }
        let node = graph.nodes.get_mut(handle.place() as usize).and_then(Option::take);
        for other in graph.nodes.iter_mut().flatten() {
            other.needs.retain(|need| need.place != handle.place());
        }
        if let Some(Node { work: Work::Child(child), .. }) = node {
            self.end(child);
        }
        Ok(())
    }

    /// Adds edges, each from a node to another.
    /// # Errors
    /// 1 for one that is there or cannot be: then none was added.
    pub fn connect(&mut self, graph: GraphHandle, edges: &[(Need, u32)]) -> CuResult<()> {
        let within = self.graph_mut(graph)?;
        let mut changed: std::collections::BTreeMap<u32, Vec<Need>> = std::collections::BTreeMap::new();
        for (need, to) in edges {
            let node = within.get(*to).ok_or(CuError::INVALID_VALUE)?;
            if need.place == *to {
                return Err(CuError::INVALID_VALUE);
            }
            changed.entry(*to).or_insert_with(|| node.needs.clone()).push(*need);
        }
        for (to, needs) in &changed {
            let node = within.get(*to).ok_or(CuError::INVALID_VALUE)?;
            within.check_needs(needs, matches!(node.work, Work::Kernel(_)))?;
        }
        for (to, needs) in changed {
            within.get_mut(to).ok_or(CuError::INVALID_VALUE)?.needs = needs;
        }
        Ok(())
    }

    /// Takes edges away.
    /// # Errors
    /// 1 for one that is not there: then none was taken.
    pub fn disconnect(&mut self, graph: GraphHandle, edges: &[(Need, u32)]) -> CuResult<()> {
        let within = self.graph_mut(graph)?;
        let there = |(need, to): &(Need, u32)| within.get(*to).is_some_and(|node| node.needs.contains(need));
        if !edges.iter().all(there) {
            return Err(CuError::INVALID_VALUE);
        }
        for (need, to) in edges {
            within.get_mut(*to).ok_or(CuError::INVALID_VALUE)?.needs.retain(|other| other != need);
        }
        Ok(())
    }

    /// The node of a copy that stands for `original`.
    /// # Errors
    /// 400, or 1 if `copy` is no copy of its graph or does not have it.
    pub fn in_copy(&self, original: u64, copy: GraphHandle) -> CuResult<GraphNodeHandle> {
        let (handle, _) = self.node(original)?;
        let copied = self.graph(copy)?;
        let (origin, places) = copied.origin.ok_or(CuError::INVALID_VALUE)?;
        let there = origin == handle.graph() && (handle.place() as usize) < places;
        if !there || copied.get(handle.place()).is_none() {
            return Err(CuError::INVALID_VALUE);
        }
        Ok(GraphNodeHandle::of_graph(copy, handle.place()))
    }
}

#[cfg(test)]
mod tests {
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
}
