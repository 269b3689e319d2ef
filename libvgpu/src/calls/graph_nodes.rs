//! Nodes of graphs: how they are added, looked at and changed. Their parameters: `graph_work.rs`.

use vgpu_api::launch::attribute;
use vgpu_api::{ContextId, CuError, CuResult, EventHandle, GraphHandle, LaunchAttribute, Memset};

use super::capture::{needs_of, no_edges};
use super::copy_box::Copy3d;
use super::graph_conditional::add_conditional;
use super::graph_memory::{ADDRESS, AllocParams, Wanted, add_alloc, add_free, tell};
use super::graph_work::{
    ALLOC, CONDITIONAL, FREE, FillParams, HostParams, KernelParams, KernelParams2, MOVE, UNION, WordsParams,
    child_of, copy_of, event_of, fill_of, host_of, kernel_of, words_of, work_of,
};
use crate::abi::{In, Out, Raw, export};
use crate::core::graphs::{Edge, HostCall, Inner, Kernel, Need, Owner, Words, Work};
use crate::core::host_functions::HostFunction;
use crate::core::process::process;

fn child(inner: &mut Inner, parent: GraphHandle, raw: Raw, is_moved: bool) -> CuResult<Work> {
    let graph = inner.named(raw.0)?;
    if graph == parent {
        return Err(CuError::INVALID_VALUE);
    }
    // One that chooses what runs is no child. Source: cuda.h, `CU_GRAPH_NODE_TYPE_CONDITIONAL`.
    if inner.graph(graph)?.owner == Owner::Another || inner.chooses(graph) {
        return Err(CuError::NOT_SUPPORTED);
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
pub type Needs = (In<u64>, In<Edge>, usize);

/// Adds a node to a graph, whose work is made of what it waits for.
pub fn add(
    out: Out<u64>,
    graph: Raw,
    (nodes, edges, count): Needs,
    work: impl FnOnce(&mut Inner, GraphHandle, &[Need]) -> CuResult<Work>,
) -> CuResult<()> {
    let process = process()?;
    out.wanted()?;
    let mut inner = process.graphs.lock();
    let handle = inner.named(graph.0)?;
    let needs = needs_of(&inner, handle, nodes, edges, count)?;
    let work = work(&mut inner, handle, &needs)?;
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
    add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(Work::Kernel(Box::new(kernel))))
}

fn add_any(out: Out<u64>, graph: Raw, needs: Needs, given: In<u8>) -> CuResult<()> {
    match given.cast::<u32>(0).get()? {
        ALLOC => {
            let wanted = Wanted::of(&given.cast::<AllocParams>(UNION).get()?)?;
            return add_alloc(out, graph, needs, wanted, |address| tell(given, UNION + ADDRESS, address));
        }
        CONDITIONAL => return add_conditional(out, graph, needs, given),
        FREE => return add_free(out, graph, needs, given.cast::<u64>(UNION).get()?),
        _ => {}
    }
    match child_of(given)? {
        Some(raw) => {
            let is_moved = given.cast::<u32>(UNION + 8).get()? == MOVE;
            add(out, graph, needs, |inner, parent, _| child(inner, parent, raw, is_moved))
        }
        None => {
            let work = work_of(given)?;
            add(out, graph, needs, |_, _, _| Ok(work))
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
        add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(work))
    }

    fn cuGraphAddMemsetNode(
        out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<FillParams>, context: Raw,
    ) {
        let work = fill_of(given.get()?, context)?;
        add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(work))
    }

    fn cuGraphAddEmptyNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize) {
        add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(Work::Empty))
    }

    fn cuGraphAddChildGraphNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, of: Raw) {
        add(out, graph, (nodes, no_edges(), count), |inner, parent, _| child(inner, parent, of, false))
    }

    fn cuGraphAddEventRecordNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, event: Raw) {
        let event = event_of(event.0)?;
        add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(Work::Record(event)))
    }

    fn cuGraphAddEventWaitNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, event: Raw) {
        let event = event_of(event.0)?;
        add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(Work::Wait(event)))
    }

    fn cuGraphAddHostNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<HostParams>) {
        let work = host_of(given.get()?)?;
        add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(work))
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

    /// One that was never set is zeros, but for the domains of default and remote work: 0 and 1.
    fn cuGraphKernelNodeGetAttribute(node: Raw, id: u32, out: Out<[u8; 64]>) {
        is_attribute(id)?;
        let mut plain = [0; 64];
        plain[1] = u8::from(id == attribute::MEM_SYNC_DOMAIN_MAP);
        with_kernel(node, |kernel| {
            let set = kernel.attributes.iter().find(|each| each.id == id);
            out.set(set.map_or(plain, |each| each.value))
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

    fn cuGraphAddBatchMemOpNode(out: Out<u64>, graph: Raw, nodes: In<u64>, count: usize, given: In<WordsParams>) {
        let work = words_of(given.get()?)?;
        add(out, graph, (nodes, no_edges(), count), |_, _, _| Ok(work))
    }

    fn cuGraphBatchMemOpNodeGetParams(node: Raw, out: Out<WordsParams>) {
        match &process()?.graphs.lock().node(node.0)?.1.work {
            Work::Words(Words { context, given, .. }) => out.set(WordsParams {
                context: raw_context(*context),
                count: u32::try_from(given.len()).map_err(|_| CuError::UNKNOWN)?,
                // Good while the node lives and is not changed.
                ops: given.as_ptr().expose_provenance() as u64,
                flags: 0,
            }),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    fn cuGraphBatchMemOpNodeSetParams(node: Raw, given: In<WordsParams>) {
        set(node, words_of(given.get()?)?)
    }

    fn cuGraphHostNodeGetParams(node: Raw, out: Out<HostParams>) {
        match &process()?.graphs.lock().node(node.0)?.1.work {
            Work::Host(HostCall { function: HostFunction::Plain { function, data }, .. }) => {
                out.set(HostParams { function: Some(*function), data: *data })
            }
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    fn cuGraphHostNodeSetParams(node: Raw, given: In<HostParams>) {
        set(node, host_of(given.get()?)?)
    }

    fn cuGraphNodeSetParams(node: Raw, given: In<u8>) {
        set_any(node, given)
    }
}
