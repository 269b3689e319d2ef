//! Changes of graphs that can be launched: all nodes or one, what is switched off, the host's sides of copies.

use vgpu_api::graph::{Body, GraphNode, GraphWork, parse};
use vgpu_api::{Call, CuError, CuResult, GraphExecHandle, MemoryOp, Staged};

use super::node::Node;
use super::{NAMES_BYTES, WORD_BYTES, counted_bytes, keep_needs};
use crate::device::Raw;
use crate::worker::host_functions::GraphCall;
use crate::worker::session::Session;
use crate::worker::staging::{self, CHUNK_BYTES};

impl Session {
    pub(in crate::worker::session) fn graph_update(
        &mut self,
        handle: GraphExecHandle,
        upload: u32,
    ) -> CuResult<()> {
        let bytes = self.taken(upload)?;
        let contexts = self.contexts_of(handle)?;
        self.graphs.check_room(&bytes)?;
        let mut nodes = parse(&bytes)?;
        let mut kept = nodes.iter().map(|node| self.look_at(node)).collect::<CuResult<Vec<_>>>()?;
        let conditionals = self.check_conditionals(&nodes)?;
        let counted = counted_bytes(bytes.len(), &nodes, &kept)?;
        self.look_at_former_calls(handle)?;
        let (raw, before) = {
            let graph = self.graphs.slab.get(handle)?;
            let same = |(old, (new, node)): (&Node, (&Node, &GraphNode<'_>))| {
                old.kind == new.kind
                    && old.context == new.context
                    && (old.body, old.choice) == (new.body, new.choice)
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
        let reserved = self.reserve_kept(conditionals, counted, &kept);
        let changed = match reserved.and_then(|()| self.device_nodes(&nodes, &kept)) {
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
            let mut more: u64 = pairs.map(|(old, new)| old.may_name(new.names)).sum();
            for (old, new) in graph.nodes.iter_mut().zip(&mut kept) {
                more += keep_words(old, &mut new.words);
            }
            let calls = kept.into_iter().filter_map(|node| node.call);
            more += keep_calls(&mut graph.perhaps_calls, calls);
            graph.bytes += more;
            self.graphs.bytes -= counted - more;
            return self.settle(contexts, Err(error));
        }
        keep_needs(&mut kept, &mut nodes);
        let whole_at = self.graphs.ended;
        let graph = self.graphs.slab.get_mut(handle)?;
        let former = std::mem::replace(&mut graph.nodes, kept);
        graph.perhaps_calls.clear();
        keep_calls(&mut graph.former_calls, former.into_iter().filter_map(|node| node.call));
        let calls = graph.former_calls.len() as u64 * NAMES_BYTES;
        (graph.bytes, graph.whole_at) = (counted + calls, whole_at);
        // What the nodes were counted as before is more than what their calls take.
        self.graphs.bytes = self.graphs.bytes - before + calls;
        Ok(())
    }

    pub(in crate::worker::session) fn graph_set(
        &mut self,
        handle: GraphExecHandle,
        place: u32,
        work: &GraphWork<'_>,
    ) -> CuResult<()> {
        self.contexts_of(handle)?;
        if matches!(work, GraphWork::Conditional(_)) {
            return Err(CuError::NOT_SUPPORTED);
        }
        let graph = self.graphs.slab.get(handle)?;
        let old = graph.nodes.get(place as usize).ok_or(CuError::INVALID_VALUE)?;
        let (raw, context, host_bytes, kind) = (graph.raw, old.context, old.host_bytes, old.kind);
        let (kernel_bytes, word_count) = (old.kernel_bytes, old.word_count);
        let node = GraphNode { context, body: Body::NONE, needs: Vec::new(), work: work.clone() };
        let mut new = self.look_at(&node)?;
        if new.kind != kind || new.host_bytes != host_bytes || new.word_count != word_count {
            return Err(CuError::INVALID_VALUE);
        }
        if new.call.is_some() {
            self.look_at_former_calls(handle)?;
        }
        // A node that is set again and again is counted once, as the largest that it was.
        let more = new.kernel_bytes.saturating_sub(kernel_bytes) * 2;
        let room = NAMES_BYTES + new.words.len() as u64 * WORD_BYTES;
        self.graphs.reserve(more + room)?;
        self.graphs.bytes -= room;
        let graph = self.graphs.slab.get_mut(handle)?;
        graph.bytes += more;
        if let Some(node) = graph.nodes.get_mut(place as usize) {
            node.kernel_bytes = node.kernel_bytes.max(new.kernel_bytes);
        }
        let context_raw = self.context(context)?;
        let work = self.device_work(work, &new)?;
        let result = self.device.graph_set(raw, place, context_raw, &work);
        let graph = self.graphs.slab.get_mut(handle)?;
        let node = graph.nodes.get_mut(place as usize).ok_or(CuError::INVALID_VALUE)?;
        if result.is_ok() {
            let less = node.perhaps.len() as u64 * NAMES_BYTES;
            (node.names, node.perhaps) = (new.names, Vec::new());
            let former = std::mem::replace(&mut node.call, new.call);
            node.words = new.words;
            let more = keep_calls(&mut graph.former_calls, former.into_iter());
            graph.bytes = graph.bytes - less + more;
            self.graphs.bytes = self.graphs.bytes - less + more;
        } else {
            let more = node.may_name(new.names)
                + keep_words(node, &mut new.words)
                + keep_calls(&mut graph.perhaps_calls, new.call.into_iter());
            graph.bytes += more;
            self.graphs.bytes += more;
        }
        self.settle(context, result)
    }

    /// Lets go of functions that a graph called before, if it is seen that no launch of then goes on.
    fn look_at_former_calls(&mut self, handle: GraphExecHandle) -> CuResult<()> {
        let graph = self.graphs.slab.get(handle)?;
        if graph.former_calls.is_empty() {
            return Ok(());
        }
        if let Some((context, stream, place)) = graph.launched {
            // Of a stream that was destroyed nobody can ask.
            let now = self.place_of(Call { context, sync: false }, stream);
            let is_there = now.is_ok_and(|(_, now)| now.stream == place.stream);
            if !is_there || self.device.stream_query(place).is_err() {
                return Ok(());
            }
        }
        let graph = self.graphs.slab.get_mut(handle)?;
        let less = graph.former_calls.len() as u64 * NAMES_BYTES;
        graph.former_calls.clear();
        graph.bytes -= less;
        self.graphs.bytes -= less;
        Ok(())
    }

    pub(in crate::worker::session) fn graph_enable(
        &mut self,
        handle: GraphExecHandle,
        place: u32,
        enabled: bool,
    ) -> CuResult<()> {
        self.contexts_of(handle)?;
        let graph = self.graphs.slab.get(handle)?;
        // Those that CUDA lets be switched: kernels, sets, copies.
        match graph.nodes.get(place as usize) {
            Some(Node { kind: 1..=5 | 10..=14, .. }) => self.device.graph_enable(graph.raw, place, enabled),
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

    pub(in crate::worker::session) fn graph_put(
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

    pub(in crate::worker::session) fn graph_get(
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
}

/// After a change that the device refused: words of both. How many bytes that takes.
fn keep_words(node: &mut Node, words: &mut Vec<MemoryOp>) -> u64 {
    let bytes = words.len() as u64 * WORD_BYTES;
    node.words.append(words);
    bytes
}

/// Keeps functions as long as a launch may call them; how many bytes that takes.
fn keep_calls(kept: &mut Vec<GraphCall>, calls: impl Iterator<Item = GraphCall>) -> u64 {
    let before = kept.len();
    kept.extend(calls);
    (kept.len() - before) as u64 * NAMES_BYTES
}
