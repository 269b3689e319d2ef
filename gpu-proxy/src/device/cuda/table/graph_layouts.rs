//! Nodes and edges of graphs, byte for byte as in cuda.h.

use std::ffi::{c_int, c_uint};

use super::layouts::{Address, HostFn, Ptr, StreamOp};

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[repr(C)]
#[derive(Debug)]
pub struct KernelParams {
    /// What runs.
    pub function: Ptr,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: u32,
    /// A pointer to each parameter.
    pub params: *mut Ptr,
    /// Or the packed block.
    pub extra: *mut Ptr,
    /// In place of `function`.
    pub kernel: Ptr,
    /// Of `kernel`.
    pub context: Ptr,
}
const _: () = assert!(size_of::<KernelParams>() == 72);

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Debug)]
pub struct FillParams {
    /// Where.
    pub at: Address,
    /// Bytes from a row to the next.
    pub pitch: usize,
    /// The element.
    pub value: u32,
    /// 1, 2 or 4.
    pub element_bytes: u32,
    /// Elements of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}
const _: () = assert!(size_of::<FillParams>() == 40);

/// `CUDA_HOST_NODE_PARAMS`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HostParams {
    pub function: HostFn,
    pub data: Ptr,
}

/// `CUDA_BATCH_MEM_OP_NODE_PARAMS_v1`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WordsParams {
    pub context: Ptr,
    pub count: c_uint,
    pub ops: *mut StreamOp,
    pub flags: c_uint,
}

/// `CUgraphNodeParams` of a conditional node.
#[repr(C)]
#[derive(Debug)]
pub struct ConditionalParams {
    /// `CUgraphNodeType`.
    pub kind: c_int,
    /// Zeros.
    pub reserved: [c_int; 3],
    /// The number of its value.
    pub handle: u64,
    /// `CUgraphConditionalNodeType`.
    pub flavor: c_uint,
    /// How many bodies.
    pub bodies: c_uint,
    /// The driver's list of them.
    pub graphs: *const Ptr,
    /// Where it runs.
    pub context: Ptr,
    /// Zeros.
    pub rest: [u64; 26],
}
const _: () = assert!(size_of::<ConditionalParams>() == 256);

/// `CUgraphEdgeData`.
#[repr(C)]
#[derive(Debug)]
pub struct EdgeData {
    /// When the first node lets go.
    pub from_port: u8,
    /// What of the second waits.
    pub to_port: u8,
    /// `CUgraphDependencyType`.
    pub kind: u8,
    /// Zeros.
    pub reserved: [u8; 5],
}
const _: () = assert!(size_of::<EdgeData>() == 8);

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Debug)]
pub struct UpdateInfo {
    /// `CUgraphExecUpdateResult`.
    pub result: c_int,
    /// The node that does not fit.
    pub node: Ptr,
    /// What it waits for.
    pub from: Ptr,
}
const _: () = assert!(size_of::<UpdateInfo>() == 24);
