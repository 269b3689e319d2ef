//! Graphs of the process: their nodes and edges, and the captures that fill them (`capture.rs`). All of it is kept and answered here;
//! the worker sees a graph when it is instantiated (`exec.rs`), whole.
//!
//! A graph is the program's, or belongs to a node (a child graph, a body) or to a capture. A node keeps its place as long as its graph lives, so that a stale handle is found out.

mod conditional;
mod memory;
mod node;
mod one;

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard};

use vgpu_api::handle::GRAPHS_MAX;
use vgpu_api::{CuError, CuResult, GraphHandle, GraphNodeHandle};

use super::capture::Captures;
use super::slab::lock;
use super::user_objects::References;
pub use conditional::Choice;
pub use node::{Alloc, Edge, HostCall, Kernel, Need, Node, Params, Words, Work};
pub use one::Graph;

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

/// What can be launched, to the graphs that it was made of.
#[derive(Debug)]
pub struct Token;

/// Whose a graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Program,
    /// A child graph's node.
    Another,
    /// A capture that goes on.
    Capture,
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
        let bodies = if let Work::Choice(choice) = &work { choice.bodies.clone() } else { Box::default() };
        let added = self.graph_mut(graph).and_then(|within| within.push(needs, work));
        if added.is_err() {
            bodies.iter().for_each(|body| self.end(*body));
        }
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
        self.inside(graph).contains(&other)
    }

    /// Whether some node in it chooses what runs.
    pub fn chooses(&self, graph: GraphHandle) -> bool {
        self.inside(graph)
            .into_iter()
            .any(|graph| self.graph(graph).is_ok_and(|graph| graph.memory.chooses()))
    }

    /// A graph and all child graphs and bodies in it.
    fn inside(&self, graph: GraphHandle) -> Vec<GraphHandle> {
        let (mut left, mut found) = (vec![graph], Vec::new());
        while let Some(handle) = left.pop() {
            found.push(handle);
            let Ok(within) = self.graph(handle) else { continue };
            left.extend(within.nodes().flat_map(|(_, node)| node.work.graphs()));
        }
        found
    }

    /// User objects that `graph` and its child graphs refer to, as often again.
    pub fn references(&self, graph: GraphHandle) -> References {
        let mut all = References::default();
        for graph in self.inside(graph).into_iter().filter_map(|graph| self.graph(graph).ok()) {
            all.join(graph.references.clone());
        }
        all
    }

    /// A copy of `graph` and of its child graphs, with the same places.
    /// # Errors
    /// 400, 2 if there are too many, or 801 if nodes allocate or free memory, or choose.
    pub fn copy(&mut self, graph: GraphHandle, owner: Owner) -> CuResult<GraphHandle> {
        self.check_no_memory(graph)?;
        let original = self.graph(graph)?;
        let places = original.nodes.len();
        let (mut nodes, references) = (original.nodes.clone(), original.references.clone());
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
            self.insert(Graph { nodes, origin: Some((graph, places)), references, ..Graph::new(owner) })
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
            ending.extend(ended.nodes.iter().flatten().flat_map(|node| node.work.graphs()));
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
    /// 400, 1 in a graph that a capture fills, or 801 in one with nodes that allocate or free memory.
    pub fn destroy_node(&mut self, raw: u64) -> CuResult<()> {
        let (handle, _) = self.node(raw)?;
        self.check_no_memory(handle.graph())?;
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
    /// 1 for one that is not there, 801 if nodes allocate or free memory: then none was taken.
    pub fn disconnect(&mut self, graph: GraphHandle, edges: &[(Need, u32)]) -> CuResult<()> {
        self.check_no_memory(graph)?;
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
mod tests;
