//! Nodes of graphs: each kind's parameters, given one by one or as `CUgraphNodeParams`.
//!
//! Not offered, 801: host functions, external semaphores, memory nodes, batches of memory operations, conditional nodes.

use vgpu_api::launch::{LaunchShape, attribute};
use vgpu_api::{
    ContextId, CuError, CuResult, DevicePtr, EventHandle, GraphHandle, ImageKind, LaunchAttribute, Memset,
    Stream,
};

use super::capture::{needs_of, no_edges};
use super::copy_box::{BoxNode, Copy3d};
use super::launch;
use crate::abi::{In, Out, Raw, Span, export};
use crate::core::contexts::{Entered, enter, enter_with};
use crate::core::graphs::{Edge, Inner, Kernel, Owner, Work};
use crate::core::process::process;

/// `CUDA_KERNEL_NODE_PARAMS_v1`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KernelParams {
    function: Raw,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: u64,
    extra: u64,
}
const _: () = assert!(size_of::<KernelParams>() == 56);

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KernelParams2 {
    first: KernelParams,
    /// In place of the function.
    kernel: Raw,
    /// Of the kernel.
    context: Raw,
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
    at: DevicePtr,
    pitch: usize,
    value: u32,
    element_bytes: u32,
    width: usize,
    height: usize,
}
const _: () = assert!(size_of::<FillParams>() == 40);

/// `CUgraphNodeType`s that are offered.
const KERNEL: u32 = 0;
const MEMCPY: u32 = 1;
const MEMSET: u32 = 2;
const GRAPH: u32 = 4;
const EMPTY: u32 = 5;
const WAIT: u32 = 6;
const RECORD: u32 = 7;
/// The last of them all: conditional nodes.
const LAST: u32 = 13;
/// `CUgraphNodeParams`: where the kind's own parameters begin.
const UNION: usize = 16;
/// `CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE`.
const MOVE: u32 = 1;

fn array(address: u64) -> In<u64> {
    // SAFETY: the program lends the array for the call, by CUDA's contract; null is refused or skipped by who reads it.
    unsafe { In::from_raw(Span::at_address(address).address() as *const u64) }
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
        EMPTY => Ok(Work::Empty),
        WAIT => Ok(Work::Wait(event_of(given.cast::<u64>(UNION).get()?)?)),
        RECORD => Ok(Work::Record(event_of(given.cast::<u64>(UNION).get()?)?)),
        other if other <= LAST => Err(CuError::NOT_SUPPORTED),
        _ => Err(CuError::INVALID_VALUE),
    }
}

/// The child graph of a `CUgraphNodeParams`, if it is one of those.
pub fn child_of(given: In<u8>) -> CuResult<Option<Raw>> {
    let is_child = given.cast::<u32>(0).get()? == GRAPH;
    if is_child { given.cast::<Raw>(UNION).get().map(Some) } else { Ok(None) }
}

fn child(inner: &mut Inner, parent: GraphHandle, raw: Raw, is_moved: bool) -> CuResult<Work> {
    let graph = inner.named(raw.0)?;
    if graph == parent {
        return Err(CuError::INVALID_VALUE);
    }
    if !is_moved {
        return Ok(Work::Child(inner.copy(graph, Owner::Another)?));
    }
    let moved = inner.graph(graph)?;
    if moved.owner != Owner::Program || moved.captured || inner.holds(graph, parent) {
        return Err(CuError::INVALID_VALUE);
    }
    Ok(Work::Child(graph))
}

/// What a new node waits for: nodes, edges, how many.
type Needs = (In<u64>, In<Edge>, usize);

fn add(
    out: Out<u64>,
    graph: Raw,
    (nodes, edges, count): Needs,
    work: impl FnOnce(&mut Inner, GraphHandle) -> CuResult<Work>,
) -> CuResult<()> {
    let process = process()?;
    out.wanted()?;
    let mut inner = process.graphs.lock();
    let handle = inner.named(graph.0)?;
    let needs = needs_of(&inner, handle, nodes, edges, count)?;
    let work = work(&mut inner, handle)?;
    out.set(inner.add(handle, needs, work)?.raw())
}

fn add_kernel(
    out: Out<u64>,
    graph: Raw,
    nodes: In<u64>,
    count: usize,
    given: &KernelParams2,
) -> CuResult<()> {
    let kernel = kernel_of(given)?;
    add(out, graph, (nodes, no_edges(), count), |_, _| Ok(Work::Kernel(Box::new(kernel))))
}

fn add_any(out: Out<u64>, graph: Raw, needs: Needs, given: In<u8>) -> CuResult<()> {
    match child_of(given)? {
        Some(raw) => {
            let is_moved = given.cast::<u32>(UNION + 8).get()? == MOVE;
            add(out, graph, needs, |inner, parent| child(inner, parent, raw, is_moved))
        }
        None => {
            let work = work_of(given)?;
            add(out, graph, needs, |_, _| Ok(work))
        }
    }
}

/// Runs `body` with a kernel's node, to look at or to change.
fn with_kernel<T>(node: Raw, body: impl FnOnce(&mut Kernel) -> CuResult<T>) -> CuResult<T> {
    match &mut process()?.graphs.lock().node_mut(node.0)?.work {
        Work::Kernel(kernel) => body(kernel),
        _ => Err(CuError::INVALID_VALUE),
    }
}

fn shown(kernel: &Kernel) -> KernelParams {
    let Kernel { function, grid, block, shared_bytes, params, .. } = kernel;
    let (function, params) = (Raw(function.raw()), params.addresses());
    KernelParams { function, grid: *grid, block: *block, shared_bytes: *shared_bytes, params, extra: 0 }
}

fn set_kernel(node: Raw, given: &KernelParams2) -> CuResult<()> {
    let new = kernel_of(given)?;
    with_kernel(node, |kernel| {
        let attributes = std::mem::take(&mut kernel.attributes);
        *kernel = Kernel { attributes, ..new };
        Ok(())
    })
}

/// Puts a work of the same kind in a node's place.
fn set(node: Raw, work: Work) -> CuResult<()> {
    let mut inner = process()?.graphs.lock();
    let place = &mut inner.node_mut(node.0)?.work;
    if place.number() != work.number() {
        return Err(CuError::INVALID_VALUE);
    }
    *place = match (work, &*place) {
        (Work::Kernel(new), Work::Kernel(old)) => {
            Work::Kernel(Box::new(Kernel { attributes: old.attributes.clone(), ..*new }))
        }
        (work, _) => work,
    };
    Ok(())
}

fn set_any(node: Raw, given: In<u8>) -> CuResult<()> {
    if child_of(given)?.is_some() {
        return Err(CuError::NOT_SUPPORTED);
    }
    set(node, work_of(given)?)
}

/// What a kernel's node may be given. 13, updates from the device, is not offered.
fn is_attribute(id: u32) -> CuResult<()> {
    match id {
        attribute::ACCESS_POLICY_WINDOW
        | attribute::COOPERATIVE
        | attribute::CLUSTER_DIMENSION
        | attribute::CLUSTER_SCHEDULING_POLICY
        | attribute::PRIORITY
        | attribute::MEM_SYNC_DOMAIN_MAP
        | attribute::MEM_SYNC_DOMAIN
        | attribute::PREFERRED_CLUSTER_DIMENSION
        | attribute::PREFERRED_SHARED_MEMORY_CARVEOUT
        | attribute::NVLINK_UTIL_CENTRIC_SCHEDULING => Ok(()),
        13 => Err(CuError::NOT_SUPPORTED),
        _ => Err(CuError::INVALID_VALUE),
    }
}

fn event(node: Raw, of: impl Fn(&Work) -> Option<EventHandle>) -> CuResult<u64> {
    let inner = process()?.graphs.lock();
    of(&inner.node(node.0)?.1.work).map(EventHandle::raw).ok_or(CuError::INVALID_VALUE)
}

/// The context of a node that has one, as the program would name it.
fn context_of(work: &Work) -> Raw {
    match work {
        Work::Fill(_, context) => raw_context(*context),
        Work::Copy(copy) => raw_context(copy.context),
        _ => Raw(0),
    }
}

fn raw_context(context: ContextId) -> Raw {
    Raw(context.handle().raw())
}

fn context_of_node(node: Raw) -> CuResult<Raw> {
    let inner = process()?.graphs.lock();
    inner.node(node.0).map(|(_, node)| context_of(&node.work))
}

export! {
    fn cuGraphAddKernelNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<KernelParams>) {
        add_kernel(out, graph, nodes, count, &given.get()?.into())
    }

    fn cuGraphAddKernelNode_v2(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<KernelParams2>) {
        add_kernel(out, graph, nodes, count, &given.get()?)
    }

    fn cuGraphAddMemcpyNode(
        out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<Copy3d>, context: Raw,
    ) {
        let work = copy_of(&given.get()?, context)?;
        add(out, graph, (nodes, no_edges(), count), |_, _| Ok(work))
    }

    fn cuGraphAddMemsetNode(
        out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<FillParams>, context: Raw,
    ) {
        let work = fill_of(given.get()?, context)?;
        add(out, graph, (nodes, no_edges(), count), |_, _| Ok(work))
    }

    fn cuGraphAddEmptyNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize) {
        add(out, graph, (nodes, no_edges(), count), |_, _| Ok(Work::Empty))
    }

    fn cuGraphAddChildGraphNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, of: Raw) {
        add(out, graph, (nodes, no_edges(), count), |inner, parent| child(inner, parent, of, false))
    }

    fn cuGraphAddEventRecordNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, event: Raw) {
        let event = event_of(event.0)?;
        add(out, graph, (nodes, no_edges(), count), |_, _| Ok(Work::Record(event)))
    }

    fn cuGraphAddEventWaitNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, event: Raw) {
        let event = event_of(event.0)?;
        add(out, graph, (nodes, no_edges(), count), |_, _| Ok(Work::Wait(event)))
    }

    fn cuGraphAddNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<u8>) {
        add_any(out, graph, (nodes, no_edges(), count), given)
    }

    fn cuGraphAddNode_v2(out: Out<u64>, graph: Raw, nodes: In<u64>, edges: In<Edge>, count: usize, given: In<u8>) {
        add_any(out, graph, (nodes, edges, count), given)
    }

    fn cuGraphKernelNodeGetParams(node: Raw, out: Out<KernelParams>) {
        with_kernel(node, |kernel| out.set(shown(kernel)))
    }

    fn cuGraphKernelNodeGetParams_v2(node: Raw, out: Out<KernelParams2>) {
        with_kernel(node, |kernel| {
            // One handle is both: cudart finds its kernels by the second.
            let first = shown(kernel);
            out.set(KernelParams2 { first, kernel: first.function, context: raw_context(kernel.context) })
        })
    }

    fn cuGraphKernelNodeSetParams(node: Raw, given: In<KernelParams>) {
        set_kernel(node, &given.get()?.into())
    }

    fn cuGraphKernelNodeSetParams_v2(node: Raw, given: In<KernelParams2>) {
        set_kernel(node, &given.get()?)
    }

    /// One that was never set is zeros.
    fn cuGraphKernelNodeGetAttribute(node: Raw, id: u32, out: Out<[u8; 64]>) {
        is_attribute(id)?;
        with_kernel(node, |kernel| {
            let set = kernel.attributes.iter().find(|each| each.id == id);
            out.set(set.map_or([0; 64], |each| each.value))
        })
    }

    fn cuGraphKernelNodeSetAttribute(node: Raw, id: u32, given: In<[u8; 64]>) {
        is_attribute(id)?;
        let value = given.get()?;
        with_kernel(node, |kernel| {
            kernel.attributes.retain(|each| each.id != id);
            kernel.attributes.push(LaunchAttribute { id, value });
            Ok(())
        })
    }

    fn cuGraphKernelNodeCopyAttributes(to: Raw, from: Raw) {
        let attributes = with_kernel(from, |kernel| Ok(kernel.attributes.clone()))?;
        with_kernel(to, |kernel| {
            kernel.attributes = attributes;
            Ok(())
        })
    }

    fn cuGraphMemcpyNodeGetParams(node: Raw, out: Out<Copy3d>) {
        match &process()?.graphs.lock().node(node.0)?.1.work {
            Work::Copy(copy) => out.set(copy.given),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    fn cuGraphMemcpyNodeSetParams(node: Raw, given: In<Copy3d>) {
        set(node, copy_of(&given.get()?, context_of_node(node)?)?)
    }

    fn cuGraphMemsetNodeGetParams(node: Raw, out: Out<FillParams>) {
        match process()?.graphs.lock().node(node.0)?.1.work {
            Work::Fill(memset, _) => {
                let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
                let Memset { dst, pitch, element_bytes, value, width, rows } = memset;
                let (pitch, width, height) = (size(pitch), size(width), size(rows));
                out.set(FillParams { at: dst, pitch, value, element_bytes, width, height })
            }
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    fn cuGraphMemsetNodeSetParams(node: Raw, given: In<FillParams>) {
        set(node, fill_of(given.get()?, context_of_node(node)?)?)
    }

    fn cuGraphEventRecordNodeGetEvent(node: Raw, out: Out<u64>) {
        out.set(event(node, |work| if let Work::Record(event) = work { Some(*event) } else { None })?)
    }

    fn cuGraphEventRecordNodeSetEvent(node: Raw, event: Raw) {
        set(node, Work::Record(event_of(event.0)?))
    }

    fn cuGraphEventWaitNodeGetEvent(node: Raw, out: Out<u64>) {
        out.set(event(node, |work| if let Work::Wait(event) = work { Some(*event) } else { None })?)
    }

    fn cuGraphEventWaitNodeSetEvent(node: Raw, event: Raw) {
        set(node, Work::Wait(event_of(event.0)?))
    }

    fn cuGraphNodeSetParams(node: Raw, given: In<u8>) {
        set_any(node, given)
    }
}
