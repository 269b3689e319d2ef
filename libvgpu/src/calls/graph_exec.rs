//! Graphs that can be launched: instantiate, change, launch, end. A launch is one queued record, unless some of the graph's copies are
//! from or to the program's own memory: that is read before and written after, and the call waits.

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, GraphExecHandle, Stream, ask};

use std::sync::Arc;

use super::copy_node::BoxNode;
use crate::abi::{Out, Raw, export};
use crate::core::contexts::{Entered, current, enter};
use crate::core::exec::{Exec, Held, List};
use crate::core::graph_memory::Freed;
use crate::core::graphs::Owner;
use crate::core::process::process;
use crate::core::slab::lock;
use crate::core::streams::{context_of, resolve};
use crate::core::user_objects::Lent;

/// `CUgraphInstantiate_flags`: free what was not freed, upload, launches from the device, priorities.
const AUTO_FREE: u64 = 1;
const UPLOAD: u64 = 2;
const DEVICE_LAUNCH: u64 = 4;
const PRIORITIES: u64 = 8;

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct InstantiateParams {
    flags: u64,
    stream: Raw,
    error_node: u64,
    result: u32,
}
const _: () = assert!(size_of::<InstantiateParams>() == 32);
/// `CUgraphInstantiateResult`.
mod result {
    pub const SUCCESS: u32 = 0;
    pub const ERROR: u32 = 1;
    /// `CUDA_GRAPH_INSTANTIATE_CONDITIONAL_HANDLE_UNUSED`.
    pub const HANDLE_UNUSED: u32 = 5;
}

fn has_unused_numbers(graph: Raw) -> bool {
    process().is_ok_and(|process| {
        let inner = process.graphs.lock();
        inner.named(graph.0).is_ok_and(|graph| inner.check_numbers(graph).is_err())
    })
}

fn instantiate(graph: Raw, flags: u64) -> CuResult<(Entered, GraphExecHandle)> {
    let entered = enter()?;
    let (process, context) = (entered.process, entered.context);
    if flags & !(AUTO_FREE | UPLOAD | DEVICE_LAUNCH | PRIORITIES) != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    if flags & DEVICE_LAUNCH != 0 {
        let both = flags & AUTO_FREE != 0;
        return Err(if both { CuError::INVALID_VALUE } else { CuError::NOT_SUPPORTED });
    }
    let (list, held, references) = {
        let mut inner = process.graphs.lock();
        let graph = inner.named(graph.0)?;
        // As NVIDIA's driver 580: a child graph runs with its parent only.
        if inner.graph(graph)?.owner == Owner::Another {
            return Err(CuError::NOT_SUPPORTED);
        }
        inner.check_numbers(graph)?;
        let list = List::of(process, &inner, graph, context)?;
        (list, Held::of(&mut inner, graph, None)?, inner.references(graph))
    };
    let bytes = list.to_bytes()?;
    let exec = Exec::new(flags & !UPLOAD, list, context, held.backed(&[])?, Lent::new(process, references));
    let handle: GraphExecHandle = process.execs.insert(None);
    let made = process.images.upload(entered, &bytes).and_then(|upload| {
        ask::vgpuGraphInstantiate(&process.channel, context, NewHandle(handle), upload, flags & !UPLOAD)
    });
    match made {
        Ok(()) => process.execs.set(handle, Some(Arc::new(exec)))?,
        Err(error) => {
            process.execs.end(handle, |_| ())?;
            process.channel.take_error()?;
            return Err(error);
        }
    }
    Ok((entered, handle))
}

fn instantiate_plain(out: Out<u64>, graph: Raw, flags: u64) -> CuResult<()> {
    out.wanted()?;
    if flags & UPLOAD != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    out.set(instantiate(graph, flags)?.1.raw())
}

fn instantiate_logged(
    out: Out<u64>,
    graph: Raw,
    error_node: Out<u64>,
    log: Out<u8>,
    log_bytes: usize,
) -> CuResult<()> {
    error_node.set_if_wanted(0);
    if log_bytes > 0 && log.wanted().is_ok() {
        log.set(0)?;
    }
    instantiate_plain(out, graph, 0)
}

fn instantiate_with(out: Out<u64>, graph: Raw, params: Out<InstantiateParams>, mode: Mode) -> CuResult<()> {
    out.wanted()?;
    let nothing = InstantiateParams { flags: 0, stream: Raw(0), error_node: 0, result: 0 };
    let given = params.replace(nothing)?;
    let made = upload_stream(&given, mode).and_then(|stream| {
        let (entered, handle) = instantiate(graph, given.flags)?;
        if let Some(stream) = stream {
            ask::cuGraphUpload(&entered.process.channel, entered.context, handle, stream)?;
        }
        Ok(handle)
    });
    let result = match made {
        Ok(_) => result::SUCCESS,
        Err(_) if has_unused_numbers(graph) => result::HANDLE_UNUSED,
        Err(_) => result::ERROR,
    };
    params.set(InstantiateParams { error_node: 0, result, ..given })?;
    out.set(made?.raw())
}

/// Where it is to be uploaded, looked at before anything is made: what the program is not told of it could never end.
fn upload_stream(given: &InstantiateParams, mode: Mode) -> CuResult<Option<Stream>> {
    if given.flags & UPLOAD == 0 {
        return Ok(None);
    }
    let entered = enter()?;
    let stream = resolve(entered, given.stream.0, mode)?;
    entered.process.graphs.refuses(entered, stream)?;
    Ok(Some(stream))
}

pub fn existing(raw: Raw) -> CuResult<(Entered, GraphExecHandle, Arc<Exec>)> {
    let entered = enter()?;
    let handle = GraphExecHandle::check(raw.0)?;
    let exec = entered.process.execs.get(handle)?.ok_or(CuError::INVALID_HANDLE)?;
    Ok((entered, handle, exec))
}

fn launch(raw: Raw, stream: Raw, mode: Mode) -> CuResult<()> {
    let (entered, handle, exec) = existing(raw)?;
    let stream = resolve(entered, stream.0, mode)?;
    // As NVIDIA's driver 580: no capture takes a launch, in any mode.
    entered.process.graphs.refuses(entered, stream)?;
    exec.lent.launch(|| context_of(entered, stream))?;
    if exec.hosts.is_empty() && exec.calls.is_empty() && !exec.has_memory {
        return ask::cuGraphLaunch(&entered.process.channel, entered.context, handle, stream);
    }
    // Held all the while: nobody else's launch or change of the graph is between this one's parts.
    let list = exec.lock();
    let numbers = list.numbers(&exec.calls);
    // Memory counts as allocated once nothing but the worker's end can keep the launch from being queued.
    let queue = || {
        let freed =
            if exec.has_memory { with_memory(entered, &exec, &list, stream)? } else { Freed::default() };
        let send = || ask::cuGraphLaunch(&entered.process.channel, entered.context, handle, stream);
        let queued = entered.process.host_functions.expecting(&numbers, send);
        drop(freed);
        queued
    };
    if exec.hosts.is_empty() {
        return queue();
    }
    launch_with_host(entered, handle, &exec, &list, stream, queue)
}

/// Notes what a launch allocates and frees; the stream waits for what used the memory before.
fn with_memory(entered: Entered, exec: &Exec, list: &List, stream: Stream) -> CuResult<Freed> {
    let (held, context) = (lock(&exec.held), context_of(entered, stream)?);
    let frees_first = exec.flags & AUTO_FREE != 0;
    let memory = &entered.process.graph_memory;
    let freed = memory.launch(entered.process, (&held.backings, context), list.steps(), frees_first)?;
    held.backings.iter().try_for_each(|backing| backing.wait_in(entered, stream))?;
    Ok(freed)
}

fn launch_with_host(
    entered: Entered,
    handle: GraphExecHandle,
    exec: &Exec,
    list: &List,
    stream: Stream,
    queue: impl FnOnce() -> CuResult<()>,
) -> CuResult<()> {
    let (channel, context) = (&entered.process.channel, entered.context);
    let copies = |to_host: bool| {
        let enabled = exec.hosts.iter().filter(|place| !list.disabled.contains(place));
        let copies = enabled.filter_map(|place| Some((*place, list.nodes.get(*place as usize)?.host()?)));
        copies.filter(move |(_, copy)| copy.is_to_host() == to_host)
    };
    for (place, copy) in copies(false) {
        put(entered, handle, place, copy)?;
    }
    queue()?;
    ask::cuStreamSynchronize(channel, context, stream)?;
    channel.take_error()?;
    copies(true).try_for_each(|(place, copy)| get(entered, handle, place, copy))
}

fn put(entered: Entered, handle: GraphExecHandle, place: u32, copy: &BoxNode) -> CuResult<()> {
    let (channel, context) = (&entered.process.channel, entered.context);
    let room = channel.staging()?;
    let (row_bytes, rows) = copy.host_rows()?;
    for (row, mut at) in rows {
        for chunk in row.read(row_bytes)?.chunks(room.len()) {
            let staged = room.put(chunk)?;
            ask::vgpuGraphHostPut(channel, context, handle, place, at, staged)?;
            at += staged.len;
        }
    }
    Ok(())
}

fn get(entered: Entered, handle: GraphExecHandle, place: u32, copy: &BoxNode) -> CuResult<()> {
    let (channel, context) = (&entered.process.channel, entered.context);
    let room = channel.staging()?;
    let (row_bytes, rows) = copy.host_rows()?;
    for (row, mut at) in rows {
        for chunk in row.write(row_bytes)?.chunks_mut(room.len()) {
            let staged = room.part(chunk.len());
            ask::vgpuGraphHostGet(channel, context, handle, place, at, staged)?;
            room.get(chunk)?;
            at += staged.len;
        }
    }
    Ok(())
}

export! {
    fn cuGraphInstantiate(out: Out<u64>, graph: Raw, error_node: Out<u64>, log: Out<u8>, log_bytes: usize) {
        instantiate_logged(out, graph, error_node, log, log_bytes)
    }

    fn cuGraphInstantiate_v2(out: Out<u64>, graph: Raw, error_node: Out<u64>, log: Out<u8>, log_bytes: usize) {
        instantiate_logged(out, graph, error_node, log, log_bytes)
    }

    fn cuGraphInstantiateWithFlags(out: Out<u64>, graph: Raw, flags: u64) {
        instantiate_plain(out, graph, flags)
    }

    fn cuGraphInstantiateWithParams | cuGraphInstantiateWithParams_ptsz(
        mode, out: Out<u64>, graph: Raw, params: Out<InstantiateParams>,
    ) {
        instantiate_with(out, graph, params, mode)
    }

    fn cuGraphExecGetFlags(exec: Raw, out: Out<u64>) {
        out.set(existing(exec)?.2.flags)
    }

    fn cuGraphUpload | cuGraphUpload_ptsz(mode, exec: Raw, stream: Raw) {
        let (entered, handle, _) = existing(exec)?;
        let stream = resolve(entered, stream.0, mode)?;
        entered.process.graphs.refuses(entered, stream)?;
        ask::cuGraphUpload(&entered.process.channel, entered.context, handle, stream)
    }

    fn cuGraphLaunch | cuGraphLaunch_ptsz(mode, exec: Raw, stream: Raw) {
        launch(exec, stream, mode)
    }

    fn cuGraphExecDestroy(exec: Raw) {
        let process = process()?;
        process.graphs.may_be_unsafe()?;
        let handle = GraphExecHandle::check(exec.0)?;
        process.execs.end(handle, |_| ask::cuGraphExecDestroy(&process.channel, current(), GoneHandle(handle)))??;
        process.channel.take_error()
    }
}
