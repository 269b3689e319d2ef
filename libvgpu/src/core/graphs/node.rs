//! Nodes: what they do and what they wait for.

use vgpu_api::launch::attribute;
use vgpu_api::{ContextId, EventHandle, FunctionHandle, GraphHandle, LaunchAttribute, MemoryOp, Memset};

use std::sync::Arc;

use super::conditional::Choice;
use crate::calls::copy_node::BoxNode;
use crate::calls::pool::PoolProperties;
use crate::calls::stream_memory::Op;
use crate::calls::virtual_memory::AccessOf;
use crate::core::graph_memory::Space;
use crate::core::host_functions::{HostFunction, Number};

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
    Host(HostCall),
    Alloc(Box<Alloc>),
    /// What was allocated at this address.
    Free(u64),
    Words(Words),
    /// A conditional node.
    Choice(Box<Choice>),
}

impl Work {
    /// `CUgraphNodeType`.
    pub fn number(&self) -> u32 {
        match self {
            Self::Kernel(_) => 0,
            Self::Copy(_) => 1,
            Self::Fill(..) => 2,
            Self::Host(_) => 3,
            Self::Child(_) => 4,
            Self::Empty => 5,
            Self::Wait(_) => 6,
            Self::Record(_) => 7,
            Self::Alloc(_) => 10,
            Self::Free(_) => 11,
            Self::Words(_) => 12,
            Self::Choice(_) => 13,
        }
    }

    /// Graphs that belong to it.
    pub fn graphs(&self) -> Vec<GraphHandle> {
        match self {
            Self::Child(child) => vec![*child],
            Self::Choice(choice) => choice.bodies.to_vec(),
            _ => Vec::new(),
        }
    }

    /// As in `CU_GRAPH_NODE_TYPE_…`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel(_) => "KERNEL",
            Self::Copy(_) => "MEMCPY",
            Self::Fill(..) => "MEMSET",
            Self::Host(_) => "HOST",
            Self::Child(_) => "GRAPH",
            Self::Empty => "EMPTY",
            Self::Wait(_) => "WAIT_EVENT",
            Self::Record(_) => "EVENT_RECORD",
            Self::Alloc(_) => "MEM_ALLOC",
            Self::Free(_) => "MEM_FREE",
            Self::Words(_) => "BATCH_MEM_OP",
            Self::Choice(_) => "CONDITIONAL",
        }
    }
}

/// Memory that a launch allocates.
#[derive(Clone, Debug)]
pub struct Alloc {
    pub address: u64,
    pub bytes: u64,
    /// Where the address is from.
    pub space: Arc<Space>,
    pub properties: PoolProperties,
    pub access: Box<[AccessOf]>,
}

/// Words of memory that are written and waited for.
#[derive(Clone, Debug)]
pub struct Words {
    pub context: ContextId,
    pub ops: Vec<MemoryOp>,
    /// As the program has them.
    pub given: Box<[Op]>,
}

/// A function of the program. It has a number in what can be launched.
#[derive(Clone, Debug)]
pub struct HostCall {
    pub function: HostFunction,
    pub number: Option<Arc<Number>>,
}

impl HostCall {
    /// What the worker calls it; 0 in a graph by itself.
    pub fn number(&self) -> u64 {
        self.number.as_ref().map_or(0, |number| number.number())
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
    pub(super) addresses: Box<[u64]>,
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
