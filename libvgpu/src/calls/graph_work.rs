//! What a node is given: each kind's parameters, by themselves or as `CUgraphNodeParams`, and the work that they make.
//!
//! Not offered, 801: external semaphores. Conditional nodes: `graph_conditional.rs`.

use vgpu_api::launch::LaunchShape;
use vgpu_api::stream_memory::OPS_MAX;
use vgpu_api::{CuError, CuResult, DevicePtr, EventHandle, ImageKind, Memset, Stream};

use super::copy_box::Copy3d;
use super::copy_node::BoxNode;
use super::launch;
use super::stream_memory::{Op, of_all};
use crate::abi::{In, Raw, Span};
use crate::core::contexts::{Entered, enter, enter_with};
use crate::core::graphs::{HostCall, Kernel, Words, Work};
use crate::core::host_functions::{HostFn, HostFunction};
use crate::core::process::process;

/// `CUDA_KERNEL_NODE_PARAMS_v1`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KernelParams {
    pub function: Raw,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: u64,
    pub extra: u64,
}
const _: () = assert!(size_of::<KernelParams>() == 56);

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KernelParams2 {
    pub first: KernelParams,
    /// In place of the function.
    pub kernel: Raw,
    /// Of the kernel.
    pub context: Raw,
}
const _: () = assert!(size_of::<KernelParams2>() == 72);

impl From<KernelParams> for KernelParams2 {
    fn from(first: KernelParams) -> Self {
        Self { first, kernel: Raw(0), context: Raw(0) }
    }
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FillParams {
    pub at: DevicePtr,
    pub pitch: usize,
    pub value: u32,
    pub element_bytes: u32,
    pub width: usize,
    pub height: usize,
}
const _: () = assert!(size_of::<FillParams>() == 40);

/// `CUDA_HOST_NODE_PARAMS` and its second version.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HostParams {
    pub function: Option<HostFn>,
    pub data: u64,
}
const _: () = assert!(size_of::<HostParams>() == 16);

/// `CUDA_BATCH_MEM_OP_NODE_PARAMS_v1` and its second version.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WordsParams {
    pub context: Raw,
    pub count: u32,
    pub ops: u64,
    pub flags: u32,
}
const _: () = assert!(size_of::<WordsParams>() == 32);

/// `CUgraphNodeType`s that are offered.
const KERNEL: u32 = 0;
const MEMCPY: u32 = 1;
const MEMSET: u32 = 2;
const HOST: u32 = 3;
const GRAPH: u32 = 4;
const EMPTY: u32 = 5;
const WAIT: u32 = 6;
const RECORD: u32 = 7;
/// Memory is given where a node is made, by `graph_memory.rs`.
pub const ALLOC: u32 = 10;
pub const FREE: u32 = 11;
const WORDS: u32 = 12;
/// The last of them all.
pub const CONDITIONAL: u32 = 13;
/// `CUgraphNodeParams`: where the kind's own parameters begin.
pub const UNION: usize = 16;
/// `CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE`.
pub const MOVE: u32 = 1;

/// A list whose address is in a structure.
pub fn array<T: Copy>(address: u64) -> In<T> {
    // SAFETY: the program lends the array for the call, by CUDA's contract; null is refused or skipped by who reads it.
    unsafe { In::from_raw(Span::at_address(address).address() as *const T) }
}

/// A context that a node names; null is the current one.
pub fn entered_with(context: Raw) -> CuResult<Entered> {
    if context.0 == 0 {
        return enter();
    }
    let process = process()?;
    enter_with(process, process.contexts.named(context.0)?)
}

/// A kernel's node, without attributes.
pub fn kernel_of(given: &KernelParams2) -> CuResult<Kernel> {
    let KernelParams2 { first, kernel, context } = *given;
    let raw = if first.function.0 == 0 { kernel } else { first.function };
    let entered = entered_with(context)?;
    entered.process.images.with_function(raw.0, |function, image, known| {
        let KernelParams { grid, block, shared_bytes, params, extra, .. } = first;
        launch::check(entered, &launch::plain(grid, block, shared_bytes, Raw(0)), known)?;
        let context = match image.kind {
            ImageKind::Module => image.context,
            ImageKind::Library => entered.context,
        };
        let shape = LaunchShape { function, stream: Stream::Legacy, grid, block, shared_bytes };
        launch::with_params(known, array(params), array(extra), |bytes| {
            Ok(launch::kernel(&shape, known, bytes, context))
        })
    })
}

/// A copy's node.
pub fn copy_of(given: &Copy3d, context: Raw) -> CuResult<Work> {
    let entered = entered_with(context)?;
    Ok(Work::Copy(Box::new(BoxNode::new(entered, given, entered.context)?)))
}

/// A set's node.
pub fn fill_of(given: FillParams, context: Raw) -> CuResult<Work> {
    let entered = entered_with(context)?;
    Ok(Work::Fill(memset_of(given)?, entered.context))
}

fn memset_of(given: FillParams) -> CuResult<Memset> {
    let FillParams { at, pitch, value, element_bytes, width, height } = given;
    let row = (width as u64).checked_mul(element_bytes.into()).ok_or(CuError::INVALID_VALUE)?;
    let element = element_bytes.max(1) as usize;
    let fits = height <= 1 || (row <= pitch as u64 && pitch.is_multiple_of(element));
    let aligned = matches!(element_bytes, 1 | 2 | 4) && at.0.is_multiple_of(element_bytes.into());
    if !fits || !aligned || width == 0 || height == 0 {
        return Err(CuError::INVALID_VALUE);
    }
    Ok(Memset {
        dst: at,
        pitch: pitch as u64,
        element_bytes,
        value,
        width: width as u64,
        rows: height as u64,
    })
}

/// The node of a batch of memory operations. It names its context.
pub fn words_of(given: WordsParams) -> CuResult<Work> {
    let count = given.count as usize;
    if given.context.0 == 0 || given.flags != 0 || count > OPS_MAX {
        return Err(CuError::INVALID_VALUE);
    }
    let context = entered_with(given.context)?.context;
    let ops: In<Op> = array(given.ops);
    let given: Box<[Op]> = (0..count).map(|i| ops.at(i)).collect::<CuResult<_>>()?;
    Ok(Work::Words(Words { context, ops: of_all(&given)?, given }))
}

/// A function's node.
pub fn host_of(given: HostParams) -> CuResult<Work> {
    let function = given.function.ok_or(CuError::INVALID_VALUE)?;
    let function = HostFunction::Plain { function, data: given.data };
    Ok(Work::Host(HostCall { function, number: None }))
}

/// An event that exists.
pub fn event_of(raw: u64) -> CuResult<EventHandle> {
    let process = process()?;
    if raw == 0 {
        return Err(CuError::INVALID_VALUE);
    }
    let event = EventHandle::check(raw)?;
    process.events.get(event)?;
    Ok(event)
}

/// The work of a `CUgraphNodeParams`, but that of a child graph.
pub fn work_of(given: In<u8>) -> CuResult<Work> {
    match given.cast::<u32>(0).get()? {
        KERNEL => Ok(Work::Kernel(Box::new(kernel_of(&given.cast::<KernelParams2>(UNION).get()?)?))),
        // Flags, a reserved word, the context, the copy.
        MEMCPY => copy_of(&given.cast::<Copy3d>(UNION + 16).get()?, given.cast::<Raw>(UNION + 8).get()?),
        MEMSET => {
            let context = given.cast::<Raw>(UNION + size_of::<FillParams>()).get()?;
            fill_of(given.cast::<FillParams>(UNION).get()?, context)
        }
        WORDS => words_of(given.cast::<WordsParams>(UNION).get()?),
        HOST => host_of(given.cast::<HostParams>(UNION).get()?),
        EMPTY => Ok(Work::Empty),
        WAIT => Ok(Work::Wait(event_of(given.cast::<u64>(UNION).get()?)?)),
        RECORD => Ok(Work::Record(event_of(given.cast::<u64>(UNION).get()?)?)),
        other if other <= CONDITIONAL => Err(CuError::NOT_SUPPORTED),
        _ => Err(CuError::INVALID_VALUE),
    }
}

/// The child graph of a `CUgraphNodeParams`, if it is one of those.
pub fn child_of(given: In<u8>) -> CuResult<Option<Raw>> {
    let is_child = given.cast::<u32>(0).get()? == GRAPH;
    if is_child { given.cast::<Raw>(UNION).get().map(Some) } else { Ok(None) }
}
