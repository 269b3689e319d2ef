//! Graphs that can be launched: how a graph becomes the list that the worker gets, and what the guest keeps of it.
//!
//! A child graph has no place in the list: its nodes have, between two empty ones, so that the worker knows of no nesting.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use vgpu_api::graph::{Body, GraphEdge, GraphNode, GraphWork, NODES_MAX};
use vgpu_api::launch::{BUFFER_MAX, LaunchAttributes, LaunchShape};
use vgpu_api::wire::to_vec;
use vgpu_api::{ContextId, CuError, CuResult, GraphHandle, GraphNodeHandle, Launch, Stream};

use super::graph_memory::{Backing, Space, Step};
use super::graphs::{Edge, HostCall, Inner, Kernel, Need, Token, Work};
use super::host_functions::HostFunctions;
use super::process::Process;
use super::slab::{Slab, lock};
use super::user_objects::Lent;
use crate::calls::copy_node::BoxNode;

/// The table of the process. A place without one is being instantiated.
pub type Execs = Slab<Option<Arc<Exec>>>;

/// One that can be launched.
#[derive(Debug)]
pub struct Exec {
    pub flags: u64,
    /// It ends with any of these.
    pub contexts: Vec<ContextId>,
    /// Places of copies from and to the program's own memory.
    pub hosts: Vec<u32>,
    /// Places of functions of the program.
    pub calls: Vec<u32>,
    /// Whether any node allocates or frees.
    pub has_memory: bool,
    /// The memory of its allocations.
    pub held: Mutex<Held>,
    /// User objects.
    pub lent: Lent,
    state: Mutex<List>,
}

/// What keeps the memory of graphs that allocate: each of them knows that there is something that can be launched of it.
#[derive(Debug, Default)]
pub struct Held {
    tokens: Vec<Arc<Token>>,
    spaces: Vec<Arc<Space>>,
    pub backings: Vec<Arc<Backing>>,
}

impl Held {
    /// For what is to be launched of a graph; `own` is to end for it.
    /// # Errors
    /// 801 if there is something else that can be launched of the graph, or of one in it, and its nodes allocate or free.
    pub fn of(inner: &mut Inner, graph: GraphHandle, own: Option<&Self>) -> CuResult<Self> {
        let mut held = Self::default();
        for handle in inner.with_memory(graph) {
            let memory = &inner.graph(handle)?.memory;
            held.spaces.extend(memory.spaces().iter().cloned());
            held.tokens.push(match memory.token() {
                None => Arc::new(Token),
                Some(token) if own.is_some_and(|own| own.has(&token)) => token,
                Some(_) => return Err(CuError::NOT_SUPPORTED),
            });
        }
        for (handle, token) in inner.with_memory(graph).into_iter().zip(&held.tokens) {
            inner.graph_mut(handle)?.memory.set_token(token);
        }
        Ok(held)
    }

    fn has(&self, token: &Arc<Token>) -> bool {
        self.tokens.iter().any(|own| Arc::ptr_eq(own, token))
    }

    /// With memory for all allocations: what is in `own` stays.
    /// # Errors
    /// 2 when the grant is used up.
    pub fn backed(mut self, own: &[Arc<Backing>]) -> CuResult<Self> {
        let back = |space| match own.iter().find(|backing| backing.is_of(space)) {
            Some(own) => Ok(Arc::clone(own)),
            None => space.back(),
        };
        self.backings = self.spaces.iter().map(back).collect::<CuResult<_>>()?;
        Ok(self)
    }
}

/// A graph as the worker has it: each node after those that it waits for.
#[derive(Debug, Default)]
pub struct List {
    pub nodes: Vec<Listed>,
    /// The place of a program's node: of a child graph, its end.
    pub places: HashMap<u64, u32>,
    /// Places of nodes that do nothing.
    pub disabled: HashSet<u32>,
}

/// One node of the list.
#[derive(Debug)]
pub struct Listed {
    /// Its kind on the wire.
    pub number: u8,
    pub context: ContextId,
    pub body: Body,
    pub needs: Vec<GraphEdge>,
    pub work: Work,
    /// The program's node.
    pub node: u64,
}

impl Exec {
    pub fn new(flags: u64, list: List, context: ContextId, held: Held, lent: Lent) -> Self {
        let mut contexts: Vec<_> = list.nodes.iter().map(|node| node.context).chain([context]).collect();
        contexts.sort_unstable();
        contexts.dedup();
        let places = |wanted: &dyn Fn(&Listed) -> bool| {
            let nodes = (0..).zip(&list.nodes).filter(|(_, node)| wanted(node));
            nodes.map(|(place, _)| place).collect()
        };
        let hosts = places(&|node| node.host().is_some());
        let calls = places(&|node| matches!(node.work, Work::Host(_)));
        let has_memory = list.steps().next().is_some();
        Self {
            flags,
            contexts,
            hosts,
            calls,
            has_memory,
            held: Mutex::new(held),
            lent,
            state: Mutex::new(list),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, List> {
        lock(&self.state)
    }
}

impl Listed {
    /// The copy, if one of its sides is the program's own memory.
    pub fn host(&self) -> Option<&BoxNode> {
        match &self.work {
            Work::Copy(copy) if copy.is_host() => Some(copy),
            _ => None,
        }
    }
}

/// Runs `body` with the wire form of a node's work. A child graph by itself is only where it begins.
/// # Errors
/// What `body` gives.
pub fn with_work<T>(work: &Work, body: impl FnOnce(GraphWork<'_>) -> CuResult<T>) -> CuResult<T> {
    match work {
        // Memory is the guest's own matter: to the worker such a node only joins.
        Work::Empty | Work::Child(_) | Work::Alloc(_) | Work::Free(_) => body(GraphWork::Empty),
        Work::Kernel(kernel) => with_kernel(kernel, body),
        Work::Copy(copy) => body(copy.on_the_wire()?),
        Work::Fill(memset, _) => body(GraphWork::Fill(*memset)),
        Work::Record(event) => body(GraphWork::Record(*event)),
        Work::Wait(event) => body(GraphWork::Wait(*event)),
        Work::Host(call) => body(GraphWork::Host(call.number())),
        Work::Words(words) => body(GraphWork::Words(words.ops.clone())),
        Work::Choice(choice) => body(GraphWork::Conditional(choice.conditional)),
    }
}

fn with_kernel<T>(kernel: &Kernel, body: impl FnOnce(GraphWork<'_>) -> CuResult<T>) -> CuResult<T> {
    let mut buffer = BUFFER_MAX;
    let attributes = LaunchAttributes::pack(kernel.attributes.iter().copied().map(Ok), &mut buffer)?;
    let Kernel { function, grid, block, shared_bytes, .. } = *kernel;
    let shape = LaunchShape { function, stream: Stream::Legacy, grid, block, shared_bytes };
    body(GraphWork::Kernel(Launch { shape, attributes, params: &kernel.params.bytes }))
}

/// Gives a function of the program the number by which the worker calls it.
/// # Errors
/// 304 when the thread that runs it cannot be started.
pub fn name(process: &'static Process, work: &mut Work) -> CuResult<()> {
    if let Work::Host(HostCall { function, number }) = work {
        *number = Some(Arc::new(HostFunctions::name(process, *function)?));
    }
    Ok(())
}

impl List {
    /// The list of a graph.
    /// # Errors
    /// 1 for nodes that wait for each other; 2 for too many; 801 if host memory that one copy writes is read by another: the
    /// program's memory is read before a launch and written after it; or if a body has what the device does not do alone.
    pub fn of(
        process: &'static Process,
        inner: &Inner,
        graph: GraphHandle,
        context: ContextId,
    ) -> CuResult<Self> {
        let mut list = Self::default();
        list.add_graph(process, inner, graph, context, (Body::NONE, None))?;
        list.check_hosts()?;
        Ok(list)
    }

    /// The wire form of all nodes.
    pub fn to_bytes(&self) -> CuResult<Vec<u8>> {
        let mut bytes = Vec::new();
        for node in &self.nodes {
            with_work(&node.work, |work| {
                let node =
                    GraphNode { context: node.context, body: node.body, needs: node.needs.clone(), work };
                bytes.extend(to_vec(&node));
                Ok(())
            })?;
        }
        Ok(bytes)
    }

    /// The numbers of functions that a launch calls.
    pub fn numbers(&self, places: &[u32]) -> Vec<u64> {
        let number = |place: &u32| match &self.nodes.get(*place as usize)?.work {
            Work::Host(call) => Some(call.number()),
            _ => None,
        };
        places.iter().filter_map(number).collect()
    }

    /// What a launch does with memory, in its order.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> + Clone {
        self.nodes.iter().filter_map(|node| match &node.work {
            Work::Alloc(alloc) => {
                Some(Step::Alloc { address: alloc.address, bytes: alloc.bytes, space: &alloc.space })
            }
            Work::Free(address) => Some(Step::Free { address: *address }),
            _ => None,
        })
    }

    /// The place of a node of the program.
    /// # Errors
    /// 1 for one that is not of the graph that this was made of.
    pub fn place(&self, node: u64) -> CuResult<u32> {
        self.places.get(&node).copied().ok_or(CuError::INVALID_VALUE)
    }

    /// Adds a graph's nodes to a body; those that wait for nothing wait for `entry`. The places of those that nothing waits for.
    fn add_graph(
        &mut self,
        process: &'static Process,
        inner: &Inner,
        graph: GraphHandle,
        context: ContextId,
        (body, entry): (Body, Option<u32>),
    ) -> CuResult<Vec<u32>> {
        let within = inner.graph(graph)?;
        let needed = within.needed();
        // By place in the graph: the place in the list where it ends.
        let mut ends: HashMap<u32, u32> = HashMap::new();
        let mut last = Vec::new();
        for place in within.ordered()? {
            let node = within.get(place).ok_or(CuError::UNKNOWN)?;
            let edge = |need: &Need| {
                let from = *ends.get(&need.place).ok_or(CuError::UNKNOWN)?;
                let Edge { from_port, to_port, kind, .. } = need.edge;
                Ok(GraphEdge { from, from_port, to_port, kind })
            };
            let mut needs = node.needs.iter().map(edge).collect::<CuResult<Vec<_>>>()?;
            if needs.is_empty() {
                needs.extend(entry.map(plain));
            }
            let named = GraphNodeHandle::of_graph(graph, place).raw();
            let end = match &node.work {
                Work::Child(child) => {
                    let first = self.add_node(context, body, needs, Work::Empty, named)?;
                    let inner_last = self.add_graph(process, inner, *child, context, (body, Some(first)))?;
                    let needs = if inner_last.is_empty() { vec![first] } else { inner_last };
                    self.add_node(context, body, needs.into_iter().map(plain).collect(), Work::Empty, named)?
                }
                Work::Choice(choice) => {
                    let end = self.add_node(choice.context, body, needs, node.work.clone(), named)?;
                    for (number, graph) in (0..).zip(&choice.bodies) {
                        let within = Body::new(end, number)?;
                        self.add_graph(process, inner, *graph, choice.context, (within, None))?;
                    }
                    end
                }
                work => {
                    let context = context_of(process, work, context)?;
                    let mut work = work.clone();
                    name(process, &mut work)?;
                    self.add_node(context, body, needs, work, named)?
                }
            };
            ends.insert(place, end);
            if !needed.get(place as usize).copied().unwrap_or(false) {
                last.push(end);
            }
        }
        Ok(last)
    }

    fn add_node(
        &mut self,
        context: ContextId,
        body: Body,
        needs: Vec<GraphEdge>,
        work: Work,
        node: u64,
    ) -> CuResult<u32> {
        if self.nodes.len() >= NODES_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let place = u32::try_from(self.nodes.len()).map_err(|_| CuError::OUT_OF_MEMORY)?;
        let (number, fits) = with_work(&work, |wire| Ok((wire.number(), wire.fits_in_body())))?;
        let fits = fits && !matches!(work, Work::Alloc(_) | Work::Free(_));
        if body != Body::NONE && !fits {
            return Err(CuError::NOT_SUPPORTED);
        }
        self.nodes.push(Listed { number, context, body, needs, work, node });
        self.places.insert(node, place);
        Ok(place)
    }

    /// That no copy reads the program's memory that another writes.
    /// # Errors
    /// 801.
    pub fn check_hosts(&self) -> CuResult<()> {
        let of_side = |to_host: bool| {
            let sides =
                self.nodes.iter().filter_map(Listed::host).filter(move |copy| copy.is_to_host() == to_host);
            sides.filter_map(BoxNode::host_span).collect::<Vec<_>>()
        };
        let (written, read) = (of_side(true), of_side(false));
        let overlap = |one: (u64, u64), two: (u64, u64)| one.0 < two.1 && two.0 < one.1;
        let meet = written.iter().any(|to| read.iter().any(|from| overlap(*to, *from)));
        if meet { Err(CuError::NOT_SUPPORTED) } else { Ok(()) }
    }
}

fn plain(from: u32) -> GraphEdge {
    GraphEdge { from, from_port: 0, to_port: 0, kind: 0 }
}

/// Where a node runs; `context` for one that runs nothing.
fn context_of(process: &Process, work: &Work, context: ContextId) -> CuResult<ContextId> {
    match work {
        Work::Kernel(kernel) => Ok(kernel.context),
        Work::Copy(copy) => Ok(copy.context),
        Work::Fill(_, context) => Ok(*context),
        Work::Words(words) => Ok(words.context),
        Work::Choice(choice) => Ok(choice.context),
        Work::Record(event) | Work::Wait(event) => process.events.get(*event).map(|known| known.context),
        Work::Empty | Work::Child(_) | Work::Host(_) | Work::Alloc(_) | Work::Free(_) => Ok(context),
    }
}
