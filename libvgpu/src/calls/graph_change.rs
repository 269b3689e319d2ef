//! Changes of graphs that can be launched: one node's parameters, all of them by an update, what is switched off.

use vgpu_api::graph::Body;
use vgpu_api::{CuError, CuResult, GraphExecHandle, ask};

use super::copy_box::Copy3d;
use super::graph_exec::existing;
use super::graph_work::{
    FillParams, HostParams, KernelParams, KernelParams2, WordsParams, child_of, copy_of, event_of, fill_of,
    host_of, kernel_of, words_of, work_of,
};
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::Entered;
use crate::core::exec::{Held, List, Listed, name, with_work};
use crate::core::graphs::{Choice, Work};
use crate::core::slab::lock;

/// `CUgraphExecUpdateResultInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UpdateInfo {
    result: u32,
    error_node: u64,
    error_from: u64,
}
const _: () = assert!(size_of::<UpdateInfo>() == 24);

/// `CUgraphExecUpdateResult`.
mod update {
    pub const SUCCESS: u32 = 0;
    pub const ERROR: u32 = 1;
    pub const TOPOLOGY: u32 = 2;
    pub const NODE_TYPE: u32 = 3;
    pub const PARAMETERS: u32 = 5;
    pub const ATTRIBUTES: u32 = 8;
}
/// Gives a node of the list another work of its kind.
fn put_work(
    entered: Entered,
    handle: GraphExecHandle,
    list: &mut List,
    place: u32,
    mut work: Work,
) -> CuResult<()> {
    let node = list.nodes.get_mut(place as usize).ok_or(CuError::UNKNOWN)?;
    // Attributes are not changed by parameters.
    if let (Work::Kernel(new), Work::Kernel(old)) = (&mut work, &node.work) {
        new.attributes.clone_from(&old.attributes);
    }
    if differs(node, &work)?.is_some() {
        return Err(CuError::INVALID_VALUE);
    }
    name(entered.process, &mut work)?;
    let old = std::mem::replace(&mut node.work, work);
    let fits = if node.host().is_some() { list.check_hosts() } else { Ok(()) };
    let node = list.nodes.get_mut(place as usize).ok_or(CuError::UNKNOWN)?;
    let (channel, context) = (&entered.process.channel, entered.context);
    let set = fits.and_then(|()| {
        with_work(&node.work, |wire| ask::vgpuGraphNodeSet(channel, context, handle, place, wire))
    });
    if set.is_err() {
        node.work = old;
    }
    set
}

/// Why a work cannot take a node's place: a `CUgraphExecUpdateResult`.
fn differs(node: &Listed, work: &Work) -> CuResult<Option<u32>> {
    if node.work.number() != work.number() {
        return Ok(Some(update::NODE_TYPE));
    }
    // The worker knows whether numbers stand for each other.
    if let (Work::Choice(old), Work::Choice(new)) = (&node.work, work) {
        let shape = |of: &Choice| (of.conditional.flavor, of.conditional.bodies);
        return Ok((shape(old) != shape(new)).then_some(update::PARAMETERS));
    }
    let same_side = with_work(work, |wire| Ok(wire.number() == node.number))?;
    let bytes = |work: &Work| with_work(work, |wire| Ok(wire.host_bytes()));
    let same_context = match work {
        Work::Kernel(kernel) => kernel.context == node.context,
        Work::Fill(_, context) => *context == node.context,
        Work::Copy(copy) => copy.context == node.context,
        Work::Words(words) => words.context == node.context,
        _ => true,
    };
    // The worker's buffer of a copy's host side keeps its size.
    if !same_side || !same_context || bytes(work)? != bytes(&node.work)? {
        return Ok(Some(update::PARAMETERS));
    }
    let amount = |work: &Work| match work {
        Work::Alloc(alloc) => alloc.bytes,
        Work::Words(words) => words.ops.len() as u64,
        _ => 0,
    };
    if amount(work) != amount(&node.work) {
        return Ok(Some(update::PARAMETERS));
    }
    let together = |work: &Work| matches!(work, Work::Kernel(kernel) if kernel.is_cooperative());
    Ok((together(work) != together(&node.work)).then_some(update::ATTRIBUTES))
}

fn set(exec: Raw, node: Raw, work: impl FnOnce(&Listed) -> CuResult<Work>) -> CuResult<()> {
    let (entered, handle, exec) = existing(exec)?;
    let mut list = exec.lock();
    let place = list.place(node.0)?;
    let old = list.nodes.get(place as usize).ok_or(CuError::UNKNOWN)?;
    let work = work(old)?;
    // cuda.h, `cuGraphExecMemcpyNodeSetParams`: copies of one row only.
    let has_rows = |work: &Work| matches!(work, Work::Copy(copy) if copy.has_rows());
    if has_rows(&work) || has_rows(&old.work) {
        return Err(CuError::INVALID_VALUE);
    }
    put_work(entered, handle, &mut list, place, work)
}

/// The nodes of a child graph get what those of another of its shape do.
fn set_child(exec: Raw, node: Raw, child: Raw) -> CuResult<()> {
    let (entered, handle, exec) = existing(exec)?;
    let process = entered.process;
    let (new, references) = {
        let inner = process.graphs.lock();
        let child = inner.named(child.0)?;
        (List::of(process, &inner, child, entered.context)?, inner.references(child))
    };
    let mut list = exec.lock();
    let (end, count) = (list.place(node.0)? as usize, new.nodes.len());
    // Its nodes lie between the two empty ones that are the child's.
    let first = end.checked_sub(count + 1).ok_or(CuError::INVALID_VALUE)?;
    let is_edge = |place: usize| list.nodes.get(place).is_some_and(|of| of.number == 0 && of.node == node.0);
    if !is_edge(first) || !is_edge(end) {
        return Err(CuError::INVALID_VALUE);
    }
    let first = u32::try_from(first).map_err(|_| CuError::UNKNOWN)?;
    for (new, old) in new.nodes.iter().zip(list.nodes.iter().skip(first as usize + 1)) {
        let moved = new.needs.iter().map(|edge| (edge.from + first + 1, edge.kind));
        let moved: Vec<_> = if new.needs.is_empty() { vec![(first, 0)] } else { moved.collect() };
        let same = new.body == Body::NONE && old.needs.iter().map(|edge| (edge.from, edge.kind)).eq(moved);
        if !same || differs(old, &new.work)?.is_some() {
            return Err(CuError::INVALID_VALUE);
        }
    }
    for (place, new) in (first + 1..).zip(new.nodes) {
        put_work(entered, handle, &mut list, place, new.work)?;
    }
    exec.lent.replace_child(node.0, references);
    Ok(())
}

fn set_any(exec: Raw, node: Raw, given: In<u8>) -> CuResult<()> {
    if let Some(child) = child_of(given)? {
        return set_child(exec, node, child);
    }
    let work = work_of(given)?;
    set(exec, node, |_| Ok(work))
}

/// The context of a node, as a program would name it.
fn context_of(node: &Listed) -> Raw {
    Raw(node.context.handle().raw())
}

/// What keeps a list from taking another's place.
fn misfit(old: &List, new: &List) -> CuResult<Option<UpdateInfo>> {
    let info = |result, error_node, error_from| Some(UpdateInfo { result, error_node, error_from });
    if old.nodes.len() != new.nodes.len() {
        return Ok(info(update::TOPOLOGY, 0, 0));
    }
    for (old, node) in old.nodes.iter().zip(&new.nodes) {
        if let Some(result) = differs(old, &node.work)? {
            return Ok(info(result, node.node, 0));
        }
        if old.context != node.context || old.body != node.body {
            return Ok(info(update::PARAMETERS, node.node, 0));
        }
        if old.needs != node.needs {
            let other = node.needs.iter().find(|edge| !old.needs.contains(edge));
            let from = other.and_then(|edge| new.nodes.get(edge.from as usize)).map_or(0, |from| from.node);
            return Ok(info(update::TOPOLOGY, node.node, from));
        }
    }
    Ok(None)
}

fn update(exec: Raw, graph: Raw) -> (CuResult<()>, UpdateInfo) {
    let info = |result| UpdateInfo { result, error_node: 0, error_from: 0 };
    match try_update(exec, graph) {
        Ok(None) => (Ok(()), info(update::SUCCESS)),
        Ok(Some(misfit)) => (Err(CuError::GRAPH_EXEC_UPDATE_FAILURE), misfit),
        Err(CuError::GRAPH_EXEC_UPDATE_FAILURE) => {
            (Err(CuError::GRAPH_EXEC_UPDATE_FAILURE), info(update::PARAMETERS))
        }
        Err(error) => (Err(error), info(update::ERROR)),
    }
}

fn try_update(exec: Raw, graph: Raw) -> CuResult<Option<UpdateInfo>> {
    let (entered, handle, exec) = existing(exec)?;
    let process = entered.process;
    let (new, held, references) = {
        let mut inner = process.graphs.lock();
        let graph = inner.named(graph.0)?;
        let new = List::of(process, &inner, graph, entered.context)?;
        let held = Held::of(&mut inner, graph, Some(&lock(&exec.held)))?;
        (new, held, inner.references(graph))
    };
    let mut list = exec.lock();
    if let Some(misfit) = misfit(&list, &new)? {
        return Ok(Some(misfit));
    }
    let own = lock(&exec.held).backings.clone();
    let held = held.backed(&own)?;
    let upload = process.images.upload(entered, &new.to_bytes()?)?;
    ask::vgpuGraphUpdate(&process.channel, entered.context, handle, upload)?;
    for (old, new) in list.nodes.iter_mut().zip(new.nodes) {
        old.work = new.work;
    }
    // Before anybody can launch the new nodes.
    let before = std::mem::replace(&mut *lock(&exec.held), held);
    exec.lent.replace(references);
    drop(list);
    drop(before);
    Ok(None)
}

/// A node that can be switched: a kernel, a copy, a set.
fn switchable(list: &List, node: Raw) -> CuResult<u32> {
    let place = list.place(node.0)?;
    match list.nodes.get(place as usize).map(|node| &node.work) {
        Some(Work::Kernel(_) | Work::Copy(_) | Work::Fill(..)) => Ok(place),
        _ => Err(CuError::INVALID_VALUE),
    }
}

export! {
    fn cuGraphExecUpdate(exec: Raw, graph: Raw, error_node: Out<u64>, result: Out<u32>) {
        let (updated, info) = update(exec, graph);
        error_node.set_if_wanted(info.error_node);
        result.set_if_wanted(info.result);
        updated
    }

    fn cuGraphExecUpdate_v2(exec: Raw, graph: Raw, out: Out<UpdateInfo>) {
        let (updated, info) = update(exec, graph);
        out.set_if_wanted(info);
        updated
    }

    fn cuGraphExecKernelNodeSetParams(exec: Raw, node: Raw, given: In<KernelParams>) {
        let kernel = kernel_of(&given.get()?.into())?;
        set(exec, node, |_| Ok(Work::Kernel(Box::new(kernel))))
    }

    fn cuGraphExecKernelNodeSetParams_v2(exec: Raw, node: Raw, given: In<KernelParams2>) {
        let kernel = kernel_of(&given.get()?)?;
        set(exec, node, |_| Ok(Work::Kernel(Box::new(kernel))))
    }

    fn cuGraphExecMemcpyNodeSetParams(exec: Raw, node: Raw, given: In<Copy3d>, context: Raw) {
        let given = given.get()?;
        set(exec, node, |old| copy_of(&given, if context.0 == 0 { context_of(old) } else { context }))
    }

    fn cuGraphExecMemsetNodeSetParams(exec: Raw, node: Raw, given: In<FillParams>, context: Raw) {
        let given = given.get()?;
        set(exec, node, |old| fill_of(given, if context.0 == 0 { context_of(old) } else { context }))
    }

    fn cuGraphExecChildGraphNodeSetParams(exec: Raw, node: Raw, child: Raw) {
        set_child(exec, node, child)
    }

    fn cuGraphExecEventRecordNodeSetEvent(exec: Raw, node: Raw, event: Raw) {
        let event = event_of(event.0)?;
        set(exec, node, |_| Ok(Work::Record(event)))
    }

    fn cuGraphExecEventWaitNodeSetEvent(exec: Raw, node: Raw, event: Raw) {
        let event = event_of(event.0)?;
        set(exec, node, |_| Ok(Work::Wait(event)))
    }

    /// As many operations as before, in a context that is named.
    fn cuGraphExecBatchMemOpNodeSetParams(exec: Raw, node: Raw, given: In<WordsParams>) {
        let work = words_of(given.get()?)?;
        set(exec, node, |_| Ok(work))
    }

    fn cuGraphExecHostNodeSetParams(exec: Raw, node: Raw, given: In<HostParams>) {
        let work = host_of(given.get()?)?;
        set(exec, node, |_| Ok(work))
    }

    fn cuGraphExecNodeSetParams(exec: Raw, node: Raw, given: In<u8>) {
        set_any(exec, node, given)
    }

    fn cuGraphNodeSetEnabled(exec: Raw, node: Raw, enabled: u32) {
        let (entered, handle, exec) = existing(exec)?;
        let mut list = exec.lock();
        let place = switchable(&list, node)?;
        ask::vgpuGraphNodeEnable(&entered.process.channel, entered.context, handle, place, enabled != 0)?;
        if enabled == 0 { list.disabled.insert(place) } else { list.disabled.remove(&place) };
        Ok(())
    }

    fn cuGraphNodeGetEnabled(exec: Raw, node: Raw, out: Out<u32>) {
        let (_, _, exec) = existing(exec)?;
        let list = exec.lock();
        let place = switchable(&list, node)?;
        out.set((!list.disabled.contains(&place)).into())
    }
}
