//! Graphs that can be launched. All that their nodes name is checked when they are made or changed, and again at a launch after
//! something has ended that they may name: memory, an image, an event. A launch that nothing has ended before looks at nothing.

use std::collections::VecDeque;

use vgpu_api::graph::{GraphEdge, GraphNode, GraphWork, HostSide, parse};
use vgpu_api::wire::Wire;
use vgpu_api::{
    Call, ContextId, CuError, CuResult, DevicePtr, EventHandle, GraphExecHandle, ImageHandle, Staged, Stream,
};

use super::mark::Mark;
use super::{Owned, Session};
use crate::device::{DeviceNode, DeviceWork, Place, Raw};
use crate::worker::slab::Slab;
use crate::worker::staging::{self, CHUNK_BYTES};

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

/// All graphs of the process.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    slab: Slab<Graph>,
    count: usize,
    bytes: u64,
    /// Counts what has ended that a node may name.
    ended: u64,
    /// Of the grant: what ended graphs took, where the device keeps it for later ones.
    kept_bytes: u64,
    /// Those that were ended while a launch may have gone on, oldest first.
    going: VecDeque<Going>,
}

/// What a graph goes on taking after its end: a device keeps it until its launches are over.
#[derive(Debug)]
struct Going {
    /// Where the last launch was.
    context: ContextId,
    /// Behind that; without one, only the end of all the context's work tells.
    mark: Option<Mark>,
    charged_bytes: u64,
    bytes: u64,
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
    /// It ends with any of these.
    contexts: Vec<ContextId>,
    nodes: Vec<Node>,
    /// Of [`Graphs::bytes`].
    bytes: u64,
    /// Of the grant.
    charged_bytes: u64,
    /// Of the last launch, which comes after all earlier ones (CUDA, `cuGraphLaunch`).
    launched: Option<(ContextId, Stream, Place)>,
    /// [`Graphs::ended`] when all that its nodes name was there.
    whole_at: u64,
}

/// What is kept of a node.
#[derive(Debug)]
struct Node {
    context: ContextId,
    kind: u8,
    needs: Vec<GraphEdge>,
    names: Names,
    /// What it was to name after a change that the device refused: perhaps it does, perhaps not.
    perhaps: Vec<Names>,
    /// The host's side of a copy.
    host_bytes: u64,
    /// Parameters and attributes of a kernel.
    kernel_bytes: u64,
}

/// What has to be there at a launch. A handle alone does not say so: a guest may give one out again, generation and all. The device's
/// name beside it is used once. The context is the one that it ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Nothing,
    Image(ImageHandle, Raw, Option<ContextId>),
    Event(EventHandle, Raw, ContextId),
    /// Memory that is written, and that is read: where and how many bytes, none on the host's side.
    Memory([(DevicePtr, u64); 2]),
}

impl Graph {
    fn ends_with(&self, context: ContextId) -> bool {
        let names = |names: Names| match names {
            Names::Nothing | Names::Memory(_) => false,
            Names::Image(_, _, owner) => owner == Some(context),
            Names::Event(_, _, owner) => owner == context,
        };
        self.contexts.contains(&context) || self.nodes.iter().flat_map(Node::all_names).any(names)
    }
}

impl Node {
    fn all_names(&self) -> impl Iterator<Item = Names> + '_ {
        [self.names].into_iter().chain(self.perhaps.iter().copied())
    }

    /// After a change that the device refused: what it was to name counts as well. How many bytes that takes.
    fn may_name(&mut self, names: Names) -> u64 {
        if names == Names::Nothing || self.all_names().any(|known| known == names) {
            return 0;
        }
        self.perhaps.push(names);
        NAMES_BYTES
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
        let counted = counted_bytes(bytes.len(), &kept)?;
        let charged =
            self.device.costs().graph_bytes(nodes.len(), rows(&nodes)).ok_or(CuError::OUT_OF_MEMORY)?;
        self.graphs.reserve(counted)?;
        let mut charge = self.charge_graph(charged);
        if charge.is_err() && self.look_at_all_going() {
            charge = self.charge_graph(charged);
        }
        if let Err(error) = charge {
            self.graphs.bytes -= counted;
            return Err(error);
        }
        let made = self.device_nodes(&nodes).and_then(|nodes| self.device.graph_instantiate(&nodes, flags));
        let raw = match made {
            Ok(raw) => raw,
            Err(error) => {
                self.graphs.bytes -= counted;
                self.release_graph(charged);
                return self.settle(call.context, Err(error));
            }
        };
        keep_needs(&mut kept, &mut nodes);
        let mut contexts: Vec<_> = kept.iter().map(|node| node.context).chain([call.context]).collect();
        contexts.sort_unstable();
        contexts.dedup();
        let whole_at = self.graphs.ended;
        self.graphs.count += 1;
        let graph = Graph {
            raw,
            contexts,
            nodes: kept,
            bytes: counted,
            charged_bytes: charged,
            launched: None,
            whole_at,
        };
        self.graphs.slab.insert(handle, graph)
    }

    pub(super) fn graph_update(&mut self, handle: GraphExecHandle, upload: u32) -> CuResult<()> {
        let bytes = self.taken(upload)?;
        let contexts = self.contexts_of(handle)?;
        self.graphs.check_room(&bytes)?;
        let mut nodes = parse(&bytes)?;
        let mut kept = nodes.iter().map(|node| self.look_at(node)).collect::<CuResult<Vec<_>>>()?;
        let counted = counted_bytes(bytes.len(), &kept)?;
        let (raw, before) = {
            let graph = self.graphs.slab.get(handle)?;
            let same = |(old, (new, node)): (&Node, (&Node, &GraphNode<'_>))| {
                old.kind == new.kind
                    && old.context == new.context
                    && old.needs == node.needs
                    && old.host_bytes == new.host_bytes
            };
            let mut pairs = graph.nodes.iter().zip(kept.iter().zip(&nodes));
            if graph.nodes.len() != kept.len() || !pairs.all(same) {
                return Err(CuError::GRAPH_EXEC_UPDATE_FAILURE);
            }
            (graph.raw, graph.bytes)
        };
        // Both are there while the device changes it.
        self.graphs.reserve(counted)?;
        let changed = match self.device_nodes(&nodes) {
            Ok(nodes) => self.device.graph_update(raw, &nodes),
            Err(error) => {
                self.graphs.bytes -= counted;
                return Err(error);
            }
        };
        if let Err(error) = changed {
            // No more than what the nodes themselves are counted as.
            let graph = self.graphs.slab.get_mut(handle)?;
            let pairs = graph.nodes.iter_mut().zip(&kept);
            let more: u64 = pairs.map(|(old, new)| old.may_name(new.names)).sum();
            graph.bytes += more;
            self.graphs.bytes -= counted - more;
            return self.settle(contexts, Err(error));
        }
        self.graphs.bytes -= before;
        keep_needs(&mut kept, &mut nodes);
        let whole_at = self.graphs.ended;
        let graph = self.graphs.slab.get_mut(handle)?;
        (graph.nodes, graph.bytes, graph.whole_at) = (kept, counted, whole_at);
        Ok(())
    }

    pub(super) fn graph_set(
        &mut self,
        handle: GraphExecHandle,
        place: u32,
        work: &GraphWork<'_>,
    ) -> CuResult<()> {
        self.contexts_of(handle)?;
        let graph = self.graphs.slab.get(handle)?;
        let old = graph.nodes.get(place as usize).ok_or(CuError::INVALID_VALUE)?;
        let (raw, context, host_bytes, kind) = (graph.raw, old.context, old.host_bytes, old.kind);
        let kernel_bytes = old.kernel_bytes;
        let node = GraphNode { context, needs: Vec::new(), work: work.clone() };
        let new = self.look_at(&node)?;
        if new.kind != kind || new.host_bytes != host_bytes {
            return Err(CuError::INVALID_VALUE);
        }
        // A node that is set again and again is counted once, as the largest that it was.
        let more = new.kernel_bytes.saturating_sub(kernel_bytes) * 2;
        self.graphs.reserve(more + NAMES_BYTES)?;
        self.graphs.bytes -= NAMES_BYTES;
        let graph = self.graphs.slab.get_mut(handle)?;
        graph.bytes += more;
        if let Some(node) = graph.nodes.get_mut(place as usize) {
            node.kernel_bytes = node.kernel_bytes.max(new.kernel_bytes);
        }
        let context_raw = self.context(context)?;
        let work = self.device_work(work)?;
        let result = self.device.graph_set(raw, place, context_raw, &work);
        let graph = self.graphs.slab.get_mut(handle)?;
        let node = graph.nodes.get_mut(place as usize).ok_or(CuError::INVALID_VALUE)?;
        if result.is_ok() {
            let less = node.perhaps.len() as u64 * NAMES_BYTES;
            (node.names, node.perhaps) = (new.names, Vec::new());
            graph.bytes -= less;
            self.graphs.bytes -= less;
        } else {
            let more = node.may_name(new.names);
            graph.bytes += more;
            self.graphs.bytes += more;
        }
        self.settle(context, result)
    }

    pub(super) fn graph_enable(
        &mut self,
        handle: GraphExecHandle,
        place: u32,
        enabled: bool,
    ) -> CuResult<()> {
        self.contexts_of(handle)?;
        let graph = self.graphs.slab.get(handle)?;
        // Those that CUDA lets be switched: kernels, sets, copies.
        match graph.nodes.get(place as usize) {
            Some(Node { kind: 1..=5, .. }) => self.device.graph_enable(graph.raw, place, enabled),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    /// The device's name of a copy whose host side has these bytes.
    fn host_side(&self, handle: GraphExecHandle, place: u32, offset: u64, bytes: u64) -> CuResult<Raw> {
        let graph = self.graphs.slab.get(handle)?;
        let node = graph.nodes.get(place as usize).ok_or(CuError::INVALID_VALUE)?;
        let end = offset.checked_add(bytes).ok_or(CuError::INVALID_VALUE)?;
        if end <= node.host_bytes { Ok(graph.raw) } else { Err(CuError::INVALID_VALUE) }
    }

    pub(super) fn graph_put(
        &mut self,
        handle: GraphExecHandle,
        node: u32,
        at: u64,
        from: Staged,
    ) -> CuResult<()> {
        let range = from.range(self.staging.len()).ok_or(CuError::INVALID_VALUE)?;
        let raw = self.host_side(handle, node, at, from.len)?;
        self.buffer.resize(CHUNK_BYTES, 0);
        for (offset, done, length) in staging::pieces(range) {
            let piece = &mut self.buffer[..length];
            self.staging.read(offset, piece);
            self.device.graph_put(raw, node, at + done as u64, piece)?;
        }
        Ok(())
    }

    pub(super) fn graph_get(
        &mut self,
        handle: GraphExecHandle,
        node: u32,
        at: u64,
        out: Staged,
    ) -> CuResult<()> {
        let range = out.range(self.staging.len()).ok_or(CuError::INVALID_VALUE)?;
        let raw = self.host_side(handle, node, at, out.len)?;
        self.buffer.resize(CHUNK_BYTES, 0);
        for (offset, done, length) in staging::pieces(range) {
            let piece = &mut self.buffer[..length];
            self.device.graph_get(raw, node, at + done as u64, piece)?;
            self.staging.write(offset, piece);
        }
        Ok(())
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
        let (context, place, raw) = self.launchable(call, handle, stream)?;
        self.quota.wait_for_credit();
        self.graphs.slab.get_mut(handle)?.launched = Some((context, stream, place));
        let result = self.device.graph_launch(place, raw);
        self.settle(context, result)
    }

    pub(super) fn graph_destroy(&mut self, handle: GraphExecHandle) -> CuResult<()> {
        let graph = self.graphs.slab.remove(handle)?;
        self.end_graph(&graph)
    }

    /// Ends what has nodes in a context that ends, or may name something of it.
    pub(super) fn end_graphs(&mut self, context: ContextId) {
        for graph in self.graphs.slab.remove_where(|graph| graph.ends_with(context)) {
            let _ = self.end_graph(&graph);
        }
    }

    fn end_graph(&mut self, graph: &Graph) -> CuResult<()> {
        self.look_at_going();
        let Graph { charged_bytes, bytes, .. } = *graph;
        let going = graph.launched.and_then(|(context, stream, place)| {
            // With the context, or its error, ends what was launched in it.
            self.context(context).ok()?;
            let mark = self.mark_behind(context, stream, place);
            Some(Going { context, mark, charged_bytes, bytes })
        });
        let result = self.device.graph_destroy(graph.raw);
        match going {
            Some(going) => self.graphs.going.push_back(going),
            None => self.give_back(charged_bytes, bytes),
        }
        result
    }

    /// Behind what a stream holds, or, if it was destroyed, behind all that its context does.
    fn mark_behind(&mut self, context: ContextId, stream: Stream, place: Place) -> Option<Mark> {
        let mark = self.new_mark(context, place.context).ok()?;
        let is_there = self.place_of(Call { context, sync: false }, stream);
        let is_there = is_there.is_ok_and(|(_, now)| now.stream == place.stream);
        let set = if is_there { self.set_mark(&mark, place) } else { self.set_mark_of_all(&mark, place) };
        if set.is_err() {
            self.end_mark(&mark);
        }
        set.is_ok().then_some(mark)
    }

    fn give_back(&mut self, charged_bytes: u64, bytes: u64) {
        self.graphs.count -= 1;
        self.graphs.bytes -= bytes;
        self.release_graph(charged_bytes);
    }

    /// A graph has first what the device kept of ended ones.
    fn charge_graph(&mut self, bytes: u64) -> CuResult<()> {
        let again = bytes.min(self.graphs.kept_bytes);
        self.quota.charge(bytes - again)?;
        self.graphs.kept_bytes -= again;
        Ok(())
    }

    fn release_graph(&mut self, bytes: u64) {
        if self.device.costs().graphs_are_kept {
            self.graphs.kept_bytes += bytes;
        } else {
            self.quota.release(bytes);
        }
    }

    /// No longer counts ended graphs whose launches are over, up to the first that is not.
    fn look_at_going(&mut self) {
        while let Some(going) = self.graphs.going.pop_front() {
            if !self.is_over(&going) {
                self.graphs.going.push_front(going);
                break;
            }
        }
    }

    /// No longer counts any ended graph whose launches are over; whether there was one.
    pub(super) fn look_at_all_going(&mut self) -> bool {
        let all = std::mem::take(&mut self.graphs.going);
        let count = all.len();
        for going in all {
            if !self.is_over(&going) {
                self.graphs.going.push_back(going);
            }
        }
        self.graphs.going.len() < count
    }

    /// The context's work is done: with it ended graphs that were launched there.
    pub(super) fn end_going(&mut self, context: ContextId) {
        let all = std::mem::take(&mut self.graphs.going).into_iter();
        let (over, others): (VecDeque<_>, VecDeque<_>) = all.partition(|going| going.context == context);
        self.graphs.going = others;
        over.iter().for_each(|going| self.end_one_going(going));
    }

    fn is_over(&mut self, going: &Going) -> bool {
        let is_over = going.mark.as_ref().is_some_and(|mark| mark.is_reached(&mut *self.device));
        if is_over {
            self.end_one_going(going);
        }
        is_over
    }

    fn end_one_going(&mut self, going: &Going) {
        if let Some(mark) = &going.mark {
            self.end_mark(mark);
        }
        self.give_back(going.charged_bytes, going.bytes);
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
            self.graphs.slab.get_mut(handle)?.whole_at = ended;
        }
        Ok((context, place, raw))
    }

    fn is_there(&self, names: Names) -> CuResult<()> {
        match names {
            Names::Nothing => Ok(()),
            Names::Image(image, raw, _) => same(self.images.get(image)?.raw, raw),
            Names::Event(event, raw, _) => same(self.events.get(event)?.raw, raw),
            Names::Memory([(to, written), (from, read)]) => {
                self.ranges.check_write(to, written)?;
                self.ranges.check(from, read)
            }
        }
    }

    /// Checks a node by itself and counts the local memory that its kernel needs; what is kept of it, without what it waits for.
    fn look_at(&mut self, node: &GraphNode<'_>) -> CuResult<Node> {
        let context = self.context(node.context)?;
        let (mut host_bytes, mut kernel_bytes) = (0, 0);
        let names = match &node.work {
            GraphWork::Empty => Names::Nothing,
            GraphWork::Kernel(launch) => {
                self.device_launch(launch, true)?;
                self.make_room_for_threads(node.context, context, launch.shape.function)?;
                kernel_bytes = launch.size() as u64;
                let handle = launch.shape.function.image();
                let image = self.images.get(handle)?;
                Names::Image(handle, image.raw, image.context)
            }
            GraphWork::Fill(memset) => {
                let bytes = self.check_memset(memset)?;
                if bytes == 0 {
                    // A node that sets nothing is no node.
                    return Err(CuError::INVALID_VALUE);
                }
                Names::Memory([(memset.dst, bytes), (DevicePtr(0), 0)])
            }
            GraphWork::Copy(copy, side) => {
                let span = |rows| copy.span(rows).ok_or(CuError::INVALID_VALUE);
                let to = if *side == HostSide::To { 0 } else { span(&copy.to)? };
                let from = if *side == HostSide::From { 0 } else { span(&copy.from)? };
                if *side != HostSide::Neither {
                    host_bytes =
                        copy.bytes().filter(|bytes| *bytes <= BYTES_MAX).ok_or(CuError::OUT_OF_MEMORY)?;
                }
                Names::Memory([(copy.to.start, to), (copy.from.start, from)])
            }
            GraphWork::Record(event) | GraphWork::Wait(event) => {
                let Owned { raw, context } = *self.events.get(*event)?;
                Names::Event(*event, raw, context)
            }
        };
        self.is_there(names)?;
        let (kind, needs) = (node.work.number(), Vec::new());
        Ok(Node { context: node.context, kind, needs, names, perhaps: Vec::new(), host_bytes, kernel_bytes })
    }

    fn device_nodes<'a>(&self, nodes: &'a [GraphNode<'_>]) -> CuResult<Vec<DeviceNode<'a>>> {
        let resolved = nodes.iter().map(|node| {
            let context = self.context(node.context)?;
            Ok(DeviceNode { context, needs: &node.needs, work: self.device_work(&node.work)? })
        });
        resolved.collect()
    }

    fn device_work<'a>(&self, work: &GraphWork<'a>) -> CuResult<DeviceWork<'a>> {
        Ok(match work {
            GraphWork::Empty => DeviceWork::Empty,
            GraphWork::Kernel(launch) => DeviceWork::Kernel(self.device_launch(launch, true)?),
            GraphWork::Fill(memset) => DeviceWork::Fill(*memset),
            GraphWork::Copy(copy, side) => DeviceWork::Copy(*copy, *side),
            GraphWork::Record(event) => DeviceWork::Record(self.events.get(*event)?.raw),
            GraphWork::Wait(event) => DeviceWork::Wait(self.events.get(*event)?.raw),
        })
    }
}

/// That a handle still names what the device has in a graph.
fn same(now: Raw, then: Raw) -> CuResult<()> {
    if now == then { Ok(()) } else { Err(CuError::INVALID_HANDLE) }
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
fn counted_bytes(upload_bytes: usize, nodes: &[Node]) -> CuResult<u64> {
    let host = nodes.iter().try_fold(0_u64, |sum, node| sum.checked_add(node.host_bytes));
    let each = (nodes.len() as u64).checked_mul(NODE_BYTES);
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
