//! A graph as it travels: whole, when it is instantiated. The guest keeps graphs and captures by itself; a worker sees a list of nodes,
//! each after those that it waits for, with nothing nested: a node of a conditional node's body says so.

mod arrays;
mod conditional;

use crate::handle::{ContextId, EventHandle};
use crate::launch::Launch;
use crate::memory::{DevicePtr, Memset};
use crate::result::{CuError, CuResult};
use crate::stream_memory::MemoryOp;
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

pub use arrays::{ArrayAndHost, ArrayAndMemory, ArrayCopy, TwoArrays};
pub use conditional::{BODIES_MAX, Body, Conditional};

/// The kind of conditional nodes on the wire.
const CONDITIONAL: u8 = 15;

/// Nodes of one graph at most.
pub const NODES_MAX: usize = 1 << 18;

wire_struct! {
    /// What a node waits for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GraphEdge {
        /// The place of a node before this one.
        pub from: u32,
        /// `CUgraphEdgeData`.
        pub from_port: u8,
        /// `CUgraphEdgeData`.
        pub to_port: u8,
        /// `CUgraphDependencyType`: 0, or 1 for a programmatic one.
        pub kind: u8,
    }
}

impl GraphEdge {
    /// Whether it waits for all of a node.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.from_port == 0 && self.to_port == 0 && self.kind == 0
    }
}

wire_struct! {
    /// Where the rows of one side of a copy lie.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rows {
        /// The first byte. Of a side in host memory: 0.
        pub start: DevicePtr,
        /// Bytes from a row to the next.
        pub pitch: u64,
        /// Rows from a slice to the next.
        pub slice_rows: u64,
    }
}

wire_struct! {
    /// A copy of slices of rows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CopyBox {
        /// Bytes of a row.
        pub width: u64,
        /// Rows of a slice.
        pub height: u64,
        /// Slices.
        pub depth: u64,
        /// Where they go.
        pub to: Rows,
        /// Where they come from.
        pub from: Rows,
    }
}

impl CopyBox {
    /// `bytes` bytes in one row, device to device.
    #[must_use]
    pub const fn line(to: DevicePtr, from: DevicePtr, bytes: u64) -> Self {
        let (to, from) = (row(to, bytes), row(from, bytes));
        Self { width: bytes, height: 1, depth: 1, to, from }
    }

    /// The bytes that are copied; `None` if no memory has so many.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.width.checked_mul(self.height)?.checked_mul(self.depth)
    }

    /// From the first byte of one side to its last. `None` for rows that overlap or leave the address space.
    #[must_use]
    pub fn span(&self, rows: &Rows) -> Option<u64> {
        let fits = (self.height <= 1 || self.width <= rows.pitch)
            && (self.depth <= 1 || (self.width <= rows.pitch && self.height <= rows.slice_rows));
        if !fits || self.width == 0 || self.height == 0 || self.depth == 0 {
            return None;
        }
        let slices = rows.pitch.checked_mul(rows.slice_rows)?.checked_mul(self.depth - 1)?;
        let last = if self.height > 1 { rows.pitch.checked_mul(self.height - 1)? } else { 0 };
        slices.checked_add(last)?.checked_add(self.width)
    }

    /// Where each row starts: in `to`, in `from`, and packed.
    pub fn rows(self) -> impl Iterator<Item = (u64, u64, u64)> {
        let start = |rows: &Rows, z: u64, y: u64| {
            let slice = rows.pitch.wrapping_mul(rows.slice_rows);
            rows.start.0.wrapping_add(slice.wrapping_mul(z)).wrapping_add(rows.pitch.wrapping_mul(y))
        };
        (0..self.depth).flat_map(move |z| {
            (0..self.height).map(move |y| {
                let packed = z.wrapping_mul(self.height).wrapping_add(y).wrapping_mul(self.width);
                (start(&self.to, z, y), start(&self.from, z, y), packed)
            })
        })
    }
}

const fn row(start: DevicePtr, bytes: u64) -> Rows {
    Rows { start, pitch: bytes, slice_rows: 1 }
}

/// Which side of a copy is the program's own memory. Its bytes travel apart, packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostSide {
    /// Device to device.
    Neither,
    /// Host to device.
    From,
    /// Device to host.
    To,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphWork<'a> {
    /// Nothing: it joins.
    Empty,
    /// A kernel. The launch's stream means nothing.
    Kernel(Launch<'a>),
    /// A set.
    Fill(Memset),
    /// A copy.
    Copy(CopyBox, HostSide),
    /// Records an event.
    Record(EventHandle),
    /// Waits for an event.
    Wait(EventHandle),
    /// Waits until the guest has run its function of this number, at each launch anew ([`crate::host_function`]).
    Host(u64),
    /// Writes words of memory and waits for words, in order.
    Words(Vec<MemoryOp>),
    /// A copy with an array.
    ArrayCopy(ArrayCopy),
    /// Runs its bodies.
    Conditional(Conditional),
}

impl GraphWork<'_> {
    /// Whether it may be in a body: what the device does alone. Source: cuda.h, `CUDA_CONDITIONAL_NODE_PARAMS`.
    #[must_use]
    pub fn fits_in_body(&self) -> bool {
        match self {
            Self::Empty | Self::Kernel(_) | Self::Fill(_) | Self::Conditional(_) => true,
            Self::Copy(_, side) => *side == HostSide::Neither,
            Self::ArrayCopy(copy) => copy.host_side() == HostSide::Neither,
            Self::Record(_) | Self::Wait(_) | Self::Host(_) | Self::Words(_) => false,
        }
    }

    /// How many bodies it has.
    #[must_use]
    pub fn bodies(&self) -> u64 {
        if let Self::Conditional(conditional) = self { conditional.bodies.into() } else { 0 }
    }

    /// Bytes of the side of a copy that is the program's own memory: 0 if none is, `None` if no memory has so many.
    #[must_use]
    pub fn host_bytes(&self) -> Option<u64> {
        match self {
            Self::Copy(copy, HostSide::From | HostSide::To) => copy.bytes(),
            Self::ArrayCopy(copy) if copy.host_side() != HostSide::Neither => copy.extent().bytes(),
            _ => Some(0),
        }
    }

    /// Part of the wire hash.
    pub const DECLARATION: &'static str = "GraphWork{0,1:Launch,2:Memset,3:CopyBox,4:CopyBox from host,5:CopyBox to host,6:Event record,7:Event wait,8:u64 host function,9:Vec<MemoryOp>,10:ArrayAndMemory to array,11:ArrayAndMemory from array,12:TwoArrays,13:ArrayAndHost from host,14:ArrayAndHost to host,15:Conditional}";

    /// Its kind on the wire: what never changes of a node.
    #[must_use]
    pub const fn number(&self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Kernel(_) => 1,
            Self::Fill(_) => 2,
            Self::Copy(_, HostSide::Neither) => 3,
            Self::Copy(_, HostSide::From) => 4,
            Self::Copy(_, HostSide::To) => 5,
            Self::Record(_) => 6,
            Self::Wait(_) => 7,
            Self::Host(_) => 8,
            Self::Words(_) => 9,
            Self::ArrayCopy(copy) => copy.number(),
            Self::Conditional(_) => CONDITIONAL,
        }
    }
}

impl<'a> Wire<'a> for GraphWork<'a> {
    fn size(&self) -> usize {
        1 + match self {
            Self::Empty => 0,
            Self::Kernel(launch) => launch.size(),
            Self::Fill(memset) => memset.size(),
            Self::Copy(copy, _) => copy.size(),
            Self::Record(event) | Self::Wait(event) => event.size(),
            Self::Host(function) => function.size(),
            Self::Words(ops) => ops.size(),
            Self::ArrayCopy(copy) => copy.size(),
            Self::Conditional(conditional) => conditional.size(),
        }
    }
    fn put(&self, writer: &mut Writer<'_>) {
        self.number().put(writer);
        match self {
            Self::Empty => {}
            Self::Kernel(launch) => launch.put(writer),
            Self::Fill(memset) => memset.put(writer),
            Self::Copy(copy, _) => copy.put(writer),
            Self::Record(event) | Self::Wait(event) => event.put(writer),
            Self::Host(function) => function.put(writer),
            Self::Words(ops) => ops.put(writer),
            Self::ArrayCopy(copy) => copy.put(writer),
            Self::Conditional(conditional) => conditional.put(writer),
        }
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(match u8::take(reader)? {
            0 => Self::Empty,
            1 => Self::Kernel(Launch::take(reader)?),
            2 => Self::Fill(Memset::take(reader)?),
            3 => Self::Copy(CopyBox::take(reader)?, HostSide::Neither),
            4 => Self::Copy(CopyBox::take(reader)?, HostSide::From),
            5 => Self::Copy(CopyBox::take(reader)?, HostSide::To),
            6 => Self::Record(EventHandle::take(reader)?),
            7 => Self::Wait(EventHandle::take(reader)?),
            8 => Self::Host(u64::take(reader)?),
            9 => Self::Words(Vec::take(reader)?),
            CONDITIONAL => Self::Conditional(Conditional::take(reader)?),
            other => Self::ArrayCopy(ArrayCopy::take(other, reader)?),
        })
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphNode<'a> {
    /// Where it runs.
    pub context: ContextId,
    /// Where it is.
    pub body: Body,
    /// What it waits for, once each.
    pub needs: Vec<GraphEdge>,
    /// What it does.
    pub work: GraphWork<'a>,
}

impl GraphNode<'_> {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str =
        "GraphNode{context:ContextId,body:Body,needs:Vec<GraphEdge>,work:GraphWork}*";
}

impl<'a> Wire<'a> for GraphNode<'a> {
    fn size(&self) -> usize {
        self.context.size() + self.body.size() + self.needs.size() + self.work.size()
    }
    fn put(&self, writer: &mut Writer<'_>) {
        self.context.put(writer);
        self.body.put(writer);
        self.needs.put(writer);
        self.work.put(writer);
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            context: ContextId::take(reader)?,
            body: Body::take(reader)?,
            needs: Vec::take(reader)?,
            work: GraphWork::take(reader)?,
        })
    }
}

/// The nodes that an upload holds, one after the other.
/// # Errors
/// 1 for what is no graph: a node that waits for a later one, for itself or for one of another body, or runs in another context than the
/// node whose body it is in; bytes that no guest sends; 2 for more than
/// [`NODES_MAX`] nodes and bodies.
pub fn parse(bytes: &[u8]) -> CuResult<Vec<GraphNode<'_>>> {
    let mut reader = Reader::new(bytes);
    let mut bodies = 0;
    let mut nodes = Vec::new();
    while reader.left() > 0 {
        if nodes.len() >= NODES_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let node = GraphNode::take(&mut reader).map_err(|_| CuError::INVALID_VALUE)?;
        node.body.check(&node, &nodes)?;
        bodies += node.work.bodies();
        if bodies >= (NODES_MAX - nodes.len()) as u64 {
            return Err(CuError::OUT_OF_MEMORY);
        }
        nodes.push(node);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
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
}
