//! Graphs that can be launched. All that their nodes name is checked when they are made or changed, and again at a launch after
//! something has ended that they may name: memory, an image, an event. A launch that nothing has ended before looks at nothing.

mod change;
mod conditional;
mod going;
mod node;

use std::collections::{BTreeMap, VecDeque};

use vgpu_api::graph::{GraphNode, parse};
use vgpu_api::{Call, ContextId, CuError, CuResult, GraphExecHandle, Stream};

use self::going::Going;
use self::node::{Names, Node};
use super::Session;
use super::stream_memory::is_wait;
use crate::device::{Place, Raw};
use crate::worker::host_functions::GraphCall;
use crate::worker::slab::Slab;

/// Graphs of one process at once.
const GRAPHS_MAX: usize = 1 << 16;
/// Of the worker's memory, what all graphs of a process may take: nodes, edges, parameters, host sides of copies.
const BYTES_MAX: u64 = 1 << 30;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH` and `…_USE_NODE_PRIORITY`: what the guest passes on.
const FLAGS: u64 = 1 | 8;
/// What is counted for a node beside what it brings along: the session's and the device's view of it.
const NODE_BYTES: u64 = 512;
/// And for each change of it that the device refused.
const NAMES_BYTES: u64 = 128;
/// And for each word of it.
const WORD_BYTES: u64 = 24;

/// All graphs of the process.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    slab: Slab<Graph>,
    count: usize,
    bytes: u64,
    /// Counts what has ended that a node may name.
    ended: u64,
    /// Of each device's grant: what ended graphs took, where the device keeps it for later ones.
    kept_bytes: BTreeMap<u32, u64>,
    conditionals: conditional::Conditionals,
    /// Those that were ended while a launch may have gone on, oldest first.
    going: VecDeque<Going>,
}

impl Graphs {
    pub(super) fn something_ended(&mut self) {
        self.ended += 1;
    }

    /// Before an upload is parsed: whether the nodes in it can be kept at all.
    fn check_room(&self, upload: &[u8]) -> CuResult<()> {
        let fits = brought_bytes(upload.len()).is_some_and(|bytes| bytes <= BYTES_MAX - self.bytes);
        if fits { Ok(()) } else { Err(CuError::OUT_OF_MEMORY) }
    }

    fn reserve(&mut self, bytes: u64) -> CuResult<()> {
        let wanted = self.bytes.checked_add(bytes).filter(|wanted| *wanted <= BYTES_MAX);
        self.bytes = wanted.ok_or(CuError::OUT_OF_MEMORY)?;
        Ok(())
    }
}

/// One that can be launched.
#[derive(Debug)]
pub(super) struct Graph {
    raw: Raw,
    /// The graph that its conditional nodes are of.
    conditionals: Option<conditional::Of>,
    /// It ends with any of these.
    contexts: Vec<ContextId>,
    nodes: Vec<Node>,
    /// Whether any of them calls a function of the guest's.
    has_calls: bool,
    /// Whether any of them may wait for a word.
    has_words: bool,
    /// What they called before, while a launch of then may go on.
    former_calls: Vec<GraphCall>,
    /// What they were to call after a change that the device refused: perhaps they do.
    perhaps_calls: Vec<GraphCall>,
    /// Of [`Graphs::bytes`].
    bytes: u64,
    /// That of the context which it was instantiated in.
    device: u32,
    /// Of the grant on this device.
    charged_bytes: u64,
    /// Of the last launch, which comes after all earlier ones (CUDA, `cuGraphLaunch`).
    launched: Option<(ContextId, Stream, Place)>,
    /// [`Graphs::ended`] when all that its nodes name was there.
    whole_at: u64,
}

impl Graph {
    fn calls(&self) -> Vec<GraphCall> {
        self.nodes.iter().filter_map(|node| node.call.clone()).collect()
    }

    fn ends_with(&self, context: ContextId) -> bool {
        let names = |names: Names| match names {
            Names::Nothing | Names::Memory(_) => false,
            Names::Image(_, _, owner) => owner == Some(context),
            Names::Event(_, _, owner) => owner == context,
            Names::Sides(sides) => sides.into_iter().any(|side| side.ends_with(context)),
        };
        self.contexts.contains(&context) || self.nodes.iter().flat_map(Node::all_names).any(names)
    }
}

impl Session {
    pub(super) fn graph_instantiate(
        &mut self,
        call: Call,
        handle: GraphExecHandle,
        upload: u32,
        flags: u64,
    ) -> CuResult<()> {
        let bytes = self.taken(upload)?;
        self.context(call.context)?;
        self.graphs.slab.check_free(handle)?;
        if flags & !FLAGS != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        self.look_at_going();
        if self.graphs.count >= GRAPHS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.graphs.check_room(&bytes)?;
        let mut nodes = parse(&bytes)?;
        let mut kept = nodes.iter().map(|node| self.look_at(node)).collect::<CuResult<Vec<_>>>()?;
        let conditionals = self.check_conditionals(&nodes)?;
        self.check_has_no_exec(conditionals)?;
        let bodies = nodes.iter().map(|node| node.work.bodies()).sum::<u64>();
        let counted = counted_bytes(bytes.len(), &nodes, &kept)?;
        let charged = self
            .device
            .costs()
            .graph_bytes(nodes.len() as u64 + bodies, rows(&nodes))
            .ok_or(CuError::OUT_OF_MEMORY)?;
        self.graphs.reserve(counted)?;
        let device = self.device_of(call.context);
        let mut charge = self.charge_graph(device, charged);
        if charge.is_err() && self.look_at_all_going() {
            charge = self.charge_graph(device, charged);
        }
        if let Err(error) = charge {
            self.graphs.bytes -= counted;
            return Err(error);
        }
        let reserved = self.reserve_kept(conditionals, counted, &kept);
        let made = reserved.and_then(|()| self.device_nodes(&nodes, &kept));
        let made = made.and_then(|nodes| self.device.graph_instantiate(&nodes, flags));
        let raw = match made {
            Ok(raw) => raw,
            Err(error) => {
                self.graphs.bytes -= counted;
                self.release_graph(device, charged);
                return self.settle(call.context, Err(error));
            }
        };
        self.graphs.set_exec(conditionals, true);
        keep_needs(&mut kept, &mut nodes);
        let mut contexts: Vec<_> = kept.iter().map(|node| node.context).chain([call.context]).collect();
        contexts.sort_unstable();
        contexts.dedup();
        let whole_at = self.graphs.ended;
        self.graphs.count += 1;
        let graph = Graph {
            raw,
            conditionals,
            contexts,
            has_words: kept.iter().any(|node| !node.words.is_empty()),
            has_calls: kept.iter().any(|node| node.call.is_some()),
            former_calls: Vec::new(),
            perhaps_calls: Vec::new(),
            nodes: kept,
            bytes: counted,
            device,
            charged_bytes: charged,
            launched: None,
            whole_at,
        };
        self.graphs.slab.insert(handle, graph)
    }

    pub(super) fn graph_upload(
        &mut self,
        call: Call,
        handle: GraphExecHandle,
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place, raw) = self.launchable(call, handle, stream)?;
        self.graphs.slab.get_mut(handle)?.launched = Some((context, stream, place));
        let result = self.device.graph_upload(place, raw);
        self.settle(context, result)
    }

    pub(super) fn graph_launch(
        &mut self,
        call: Call,
        handle: GraphExecHandle,
        stream: Stream,
    ) -> CuResult<()> {
        let graph = self.graphs.slab.get(handle)?;
        let calls = if graph.has_calls { graph.calls() } else { Vec::new() };
        let waits = graph.has_words && graph.nodes.iter().flat_map(|node| &node.words).any(is_wait);
        if waits || !calls.is_empty() {
            self.may_hold_up();
        }
        let (context, place, raw) = self.launchable(call, handle, stream)?;
        if let Some(known) = &self.host_functions {
            known.expect(&calls)?;
        }
        let mark = waits.then(|| self.mark_of_wait(context)).transpose();
        if let (Err(_), Some(known)) = (&mark, &self.host_functions) {
            known.forget(&calls);
        }
        let mark = mark?;
        self.wait_for_turn(place);
        self.graphs.slab.get_mut(handle)?.launched = Some((context, stream, place));
        let mut result = self.device.graph_launch(place, raw);
        if let (Err(_), Some(known)) = (result, &self.host_functions) {
            known.forget(&calls);
        }
        if let Some(mark) = mark {
            result = result.and(self.keep_mark_of_wait(mark, place));
        }
        self.settle(context, result)
    }

    pub(super) fn graph_destroy(&mut self, handle: GraphExecHandle) -> CuResult<()> {
        let graph = self.graphs.slab.remove(handle)?;
        self.end_graph(graph)
    }

    /// Ends what has nodes in a context that ends, or may name something of it.
    pub(super) fn end_graphs(&mut self, context: ContextId) {
        let of_it = self.graphs.conditionals.ending_with(context);
        let ends = |graph: &Graph| {
            graph.ends_with(context) || graph.conditionals.is_some_and(|(_, raw)| of_it.contains(&raw))
        };
        for graph in self.graphs.slab.remove_where(ends) {
            let _ = self.end_graph(graph);
        }
    }

    /// An upload that has arrived whole.
    fn taken(&mut self, upload: u32) -> CuResult<Vec<u8>> {
        self.take_upload(upload).map_err(|_| CuError::INVALID_VALUE)
    }

    /// That all contexts of a graph are whole; one of them.
    fn contexts_of(&self, handle: GraphExecHandle) -> CuResult<ContextId> {
        let graph = self.graphs.slab.get(handle)?;
        graph.contexts.iter().try_for_each(|context| self.context(*context).map(drop))?;
        graph.contexts.first().copied().ok_or(CuError::INVALID_HANDLE)
    }

    fn launchable(
        &mut self,
        call: Call,
        handle: GraphExecHandle,
        stream: Stream,
    ) -> CuResult<(ContextId, Place, Raw)> {
        let (context, place) = self.place(call, stream)?;
        self.contexts_of(handle)?;
        let graph = self.graphs.slab.get(handle)?;
        let raw = graph.raw;
        let ended = self.graphs.ended;
        if graph.whole_at != ended {
            graph.nodes.iter().flat_map(Node::all_names).try_for_each(|names| self.is_there(names))?;
            graph.nodes.iter().flat_map(|node| &node.words).try_for_each(|op| self.check_op(op))?;
            self.graphs.slab.get_mut(handle)?.whole_at = ended;
        }
        Ok((context, place, raw))
    }
}

/// Of nodes that the device has, what each waits for: taken over, not copied.
fn keep_needs(kept: &mut [Node], nodes: &mut [GraphNode<'_>]) {
    kept.iter_mut().zip(nodes).for_each(|(kept, node)| kept.needs = std::mem::take(&mut node.needs));
}

/// What an upload's edges and parameters are counted as: the session and the device keep them.
fn brought_bytes(upload_bytes: usize) -> Option<u64> {
    (upload_bytes as u64).checked_mul(2)
}

/// Of the worker's memory, what a graph takes.
fn counted_bytes(upload_bytes: usize, nodes: &[GraphNode<'_>], kept: &[Node]) -> CuResult<u64> {
    let host = kept.iter().try_fold(0_u64, |sum, node| sum.checked_add(node.host_bytes));
    // To a device each body is a graph with what any node takes.
    let bodies = nodes.iter().map(|node| node.work.bodies()).sum::<u64>();
    let each = (nodes.len() as u64).checked_add(bodies).and_then(|count| count.checked_mul(NODE_BYTES));
    host.zip(each)
        .zip(brought_bytes(upload_bytes))
        .and_then(|((host, each), brought)| host.checked_add(each)?.checked_add(brought))
        .ok_or(CuError::OUT_OF_MEMORY)
}

/// How many rows of nodes, one after the other, a graph falls into: each node goes on with the row of one that it waits for, if no other
/// has done so, or begins one.
fn rows(nodes: &[GraphNode<'_>]) -> u64 {
    let mut goes_on = vec![false; nodes.len()];
    let begins = |node: &&GraphNode<'_>| {
        let last = node.needs.iter().map(|edge| edge.from as usize).find(|from| !goes_on[*from]);
        last.inspect(|from| goes_on[*from] = true).is_none()
    };
    nodes.iter().filter(begins).count() as u64
}
