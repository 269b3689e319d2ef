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
mod tests;
