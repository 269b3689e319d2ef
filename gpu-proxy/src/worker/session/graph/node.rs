//! Nodes of graphs: what is kept of one, what has to be there for it, its checks.

use vgpu_api::graph::{Body, GraphEdge, GraphNode, GraphWork, HostSide};
use vgpu_api::stream_memory::OPS_MAX;
use vgpu_api::wire::Wire;
use vgpu_api::{
    ArrayHandle, BoxSide, ContextId, CuError, CuResult, DevicePtr, EventHandle, Extent, ImageHandle, MemoryOp,
};

use super::conditional::Choice;
use super::{BYTES_MAX, NAMES_BYTES};
use crate::device::{DeviceNode, DeviceWork, Raw};
use crate::worker::host_functions::GraphCall;
use crate::worker::session::{Owned, Session};

/// What is kept of a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) context: ContextId,
    pub(super) kind: u8,
    pub(super) body: Body,
    pub(super) choice: Option<Choice>,
    pub(super) needs: Vec<GraphEdge>,
    pub(super) names: Names,
    /// What it was to name after a change that the device refused: perhaps it does, perhaps not.
    pub(super) perhaps: Vec<Names>,
    /// The host's side of a copy.
    pub(super) host_bytes: u64,
    /// Parameters and attributes of a kernel.
    pub(super) kernel_bytes: u64,
    /// How many words it writes and waits for: that never changes.
    pub(super) word_count: usize,
    /// The words; after a change that the device refused those of before as well.
    pub(super) words: Vec<MemoryOp>,
    /// The function of the guest's that it calls.
    pub(super) call: Option<GraphCall>,
}

/// What has to be there at a launch. A handle alone does not say so: a guest may give one out again, generation and all. The device's
/// name beside it is used once. The context is the one that it ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Nothing,
    Image(ImageHandle, Raw, Option<ContextId>),
    Event(EventHandle, Raw, ContextId),
    /// Memory that is written, and that is read: where and how many bytes, none on the host's side.
    Memory([(DevicePtr, u64); 2]),
    /// What is written and what is read by a copy with an array.
    Sides([Operand; 2]),
}

/// One side of a copy with an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// The host's side.
    Host,
    Memory(DevicePtr, u64),
    Array(ArrayHandle, Raw, ContextId),
}

impl Operand {
    /// Whether it ends with a context.
    pub(super) fn ends_with(self, context: ContextId) -> bool {
        matches!(self, Self::Array(_, _, owner) if owner == context)
    }
}

impl Node {
    pub(super) fn all_names(&self) -> impl Iterator<Item = Names> + '_ {
        [self.names].into_iter().chain(self.perhaps.iter().copied())
    }

    /// After a change that the device refused: what it was to name counts as well. How many bytes that takes.
    pub(super) fn may_name(&mut self, names: Names) -> u64 {
        if names == Names::Nothing || self.all_names().any(|known| known == names) {
            return 0;
        }
        self.perhaps.push(names);
        NAMES_BYTES
    }
}

impl Session {
    pub(super) fn is_there(&self, names: Names) -> CuResult<()> {
        match names {
            Names::Nothing => Ok(()),
            Names::Image(image, raw, _) => same(self.images.get(image)?.raw, raw),
            Names::Event(event, raw, _) => same(self.events.get(event)?.raw, raw),
            Names::Memory([(to, written), (from, read)]) => {
                self.ranges.check_write(to, written)?;
                self.ranges.check(from, read)
            }
            Names::Sides([to, from]) => {
                self.is_operand_there(to, true)?;
                self.is_operand_there(from, false)
            }
        }
    }

    fn is_operand_there(&self, operand: Operand, written: bool) -> CuResult<()> {
        match operand {
            Operand::Host => Ok(()),
            Operand::Memory(at, bytes) if written => self.ranges.check_write(at, bytes),
            Operand::Memory(at, bytes) => self.ranges.check(at, bytes),
            Operand::Array(array, raw, _) => same(self.named_array(array)?.0, raw),
        }
    }

    /// A side of a copy that fits in there.
    fn operand(&self, side: Option<BoxSide>, size: Extent, written: bool) -> CuResult<Operand> {
        let Some(side) = side else { return Ok(Operand::Host) };
        self.side(&side, size, written)?;
        Ok(match side {
            BoxSide::Linear(rows) => Operand::Memory(rows.at, rows.span(size).ok_or(CuError::INVALID_VALUE)?),
            BoxSide::Array(place) => {
                let (raw, context) = self.named_array(place.array)?;
                Operand::Array(place.array, raw, context)
            }
        })
    }

    /// Checks a node by itself and counts the local memory that its kernel needs; what is kept of it, without what it waits for.
    pub(super) fn look_at(&mut self, node: &GraphNode<'_>) -> CuResult<Node> {
        let context = self.context(node.context)?;
        let host_bytes = node.work.host_bytes().filter(|bytes| *bytes <= BYTES_MAX);
        let host_bytes = host_bytes.ok_or(CuError::OUT_OF_MEMORY)?;
        let (mut kernel_bytes, mut call, mut words, mut choice) = (0, None, Vec::new(), None);
        let names = match &node.work {
            GraphWork::Empty => Names::Nothing,
            GraphWork::Kernel(launch) => {
                self.is_loaded_for(node.context, context, launch.shape.function.image())?;
                self.device_launch(launch, true)?;
                self.make_room_for_threads((node.context, None), context, launch.shape.function)?;
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
                Names::Memory([(copy.to.start, to), (copy.from.start, from)])
            }
            GraphWork::ArrayCopy(copy) => {
                let ((to, from), size) = (copy.sides(), copy.extent());
                if size.is_empty() {
                    return Err(CuError::INVALID_VALUE);
                }
                Names::Sides([self.operand(to, size, true)?, self.operand(from, size, false)?])
            }
            GraphWork::Record(event) | GraphWork::Wait(event) => {
                let Owned { context, .. } = *self.events.get(*event)?;
                let raw = self.unshared(*event)?;
                Names::Event(*event, raw, context)
            }
            GraphWork::Conditional(conditional) => {
                conditional.check()?;
                choice = Some(self.graphs.conditionals.choice(conditional, node.context)?);
                Names::Nothing
            }
            GraphWork::Words(ops) => {
                if ops.is_empty() || ops.len() > OPS_MAX {
                    return Err(CuError::INVALID_VALUE);
                }
                words.clone_from(ops);
                Names::Nothing
            }
            GraphWork::Host(function) => {
                let known = self.host_functions.as_ref().ok_or(CuError::INVALID_VALUE)?;
                let of = &self.contexts.get(&node.context).ok_or(CuError::INVALID_CONTEXT)?.host_functions;
                call = Some(known.of_graph(*function, of));
                Names::Nothing
            }
        };
        self.is_there(names)?;
        words.iter().try_for_each(|op| self.check_op(op))?;
        let (context, kind, needs, perhaps) = (node.context, node.work.number(), Vec::new(), Vec::new());
        let (body, word_count) = (node.body, words.len());
        Ok(Node {
            context,
            kind,
            body,
            choice,
            needs,
            names,
            perhaps,
            host_bytes,
            kernel_bytes,
            word_count,
            words,
            call,
        })
    }

    /// For the device, with what is kept of them.
    pub(super) fn device_nodes<'a>(
        &self,
        nodes: &'a [GraphNode<'_>],
        kept: &[Node],
    ) -> CuResult<Vec<DeviceNode<'a>>> {
        let resolved = nodes.iter().zip(kept).map(|(node, kept)| {
            let context = self.context(node.context)?;
            let work = self.device_work(&node.work, kept)?;
            Ok(DeviceNode { context, body: node.body, needs: &node.needs, work })
        });
        resolved.collect()
    }

    pub(super) fn device_work<'a>(&self, work: &GraphWork<'a>, kept: &Node) -> CuResult<DeviceWork<'a>> {
        Ok(match work {
            GraphWork::Empty => DeviceWork::Empty,
            GraphWork::Kernel(launch) => DeviceWork::Kernel(self.device_launch(launch, true)?),
            GraphWork::Fill(memset) => DeviceWork::Fill(*memset),
            GraphWork::Copy(copy, side) => DeviceWork::Copy(*copy, *side),
            GraphWork::ArrayCopy(copy) => {
                let ((to, from), size) = (copy.sides(), copy.extent());
                let side = |side: Option<BoxSide>, written| {
                    side.map(|side| self.side(&side, size, written)).transpose()
                };
                DeviceWork::ArrayCopy { to: side(to, true)?, from: side(from, false)?, size }
            }
            GraphWork::Record(event) => DeviceWork::Record(self.unshared(*event)?),
            GraphWork::Wait(event) => DeviceWork::Wait(self.unshared(*event)?),
            GraphWork::Words(ops) => DeviceWork::Words(ops.clone()),
            GraphWork::Conditional(conditional) => DeviceWork::Conditional {
                of: self.graphs.conditionals.graph_of(conditional, kept.context)?,
                conditional: *conditional,
            },
            GraphWork::Host(_) => {
                DeviceWork::Host(kept.call.as_ref().map(GraphCall::function).ok_or(CuError::INVALID_VALUE)?)
            }
        })
    }
}

/// That a handle still names what the device has in a graph.
fn same(now: Raw, then: Raw) -> CuResult<()> {
    if now == then { Ok(()) } else { Err(CuError::INVALID_HANDLE) }
}
