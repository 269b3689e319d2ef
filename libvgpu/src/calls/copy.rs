//! Copies between host and device.
//!
//! Of pageable memory (`copy_pageable.rs`) a copy to the host waits for its bytes; one to the device returns when the source may be used
//! again: what CUDA promises.
//!
//! Pinned memory that the device reaches (`host_memory.rs`) is copied by its address: one record, nothing is staged, and only the calls
//! that are no `Async` wait.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, DevicePtr, Stream, ask};

use super::copy_box::Copy3d;
use super::copy_node::captured;
use super::copy_pageable::{INLINE_BYTES, to_device, to_host};
use super::host_memory::mapped;
use crate::abi::{Raw, Span, export};
use crate::core::contexts::{Entered, enter};
use crate::core::process::Process;
use crate::core::streams::resolve;

/// When a call that copies pinned memory returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Before its copy is done: an `Async` one.
    AtOnce,
    /// When its source may be changed.
    Read,
    /// When its copy is done, for every stream to see: one that is not `Async`.
    Done,
}

impl Returns {
    /// Of a call that has a stream, and of one that has none.
    pub fn of(stream: Option<Raw>) -> Self {
        if stream.is_some() { Self::AtOnce } else { Self::Done }
    }
}

/// Whether the device reaches host memory at an address.
#[inline]
pub fn is_mapped(entered: Entered, address: u64) -> bool {
    mapped(entered.process, address).is_some()
}

/// Between two addresses that the device reaches, at least one of which is pinned memory.
pub fn reached(entered: Entered, dst: u64, src: u64, bytes: usize, stream: Stream) -> CuResult<()> {
    owned(entered, DevicePtr(dst), bytes as u64)?;
    owned(entered, DevicePtr(src), bytes as u64)?;
    if bytes == 0 {
        return Ok(());
    }
    let side = |address| (is_device(entered.process, address), address);
    if captured(entered, stream, || Copy3d::line(side(dst), side(src), bytes))? {
        return Ok(());
    }
    let (dst, src) = (DevicePtr(dst), DevicePtr(src));
    ask::cuMemcpyAsync(&entered.process.channel, entered.context, dst, src, bytes as u64, stream)
}

/// Waits for what a stream holds, for a call that returns when its copy is done.
pub fn wait(entered: Entered, stream: Stream, returns: Returns) -> CuResult<()> {
    if returns == Returns::AtOnce {
        return Ok(());
    }
    synchronize(entered, stream)
}

/// Waits for what a stream holds, and tells of an error of an earlier call.
pub fn synchronize(entered: Entered, stream: Stream) -> CuResult<()> {
    ask::cuStreamSynchronize(&entered.process.channel, entered.context, stream)?;
    entered.told()
}

/// As [`wait`], where a call has written at `dst`: the program may read pinned and managed memory at once, and no other of the device's.
pub fn wait_if_seen(entered: Entered, dst: u64, stream: Stream, returns: Returns) -> CuResult<()> {
    if returns == Returns::Done && is_mapped(entered, dst) { wait(entered, stream, returns) } else { Ok(()) }
}

/// Host memory of any kind to the device. What fits a record is taken over at once where no more is promised than that the source may be
/// changed. A copy of pinned memory that is not `Async` has reached the device when its call returns. Source: CUDA Driver API, "API
/// synchronization behavior".
fn host_to_device(
    entered: Entered,
    dst: DevicePtr,
    src: Span,
    bytes: usize,
    stream: Stream,
    returns: Returns,
) -> CuResult<()> {
    let taken_over = returns == Returns::Read && bytes <= INLINE_BYTES;
    if !taken_over && is_mapped(entered, src.address()) {
        reached(entered, dst.0, src.address(), bytes, stream)?;
        return wait(entered, stream, returns);
    }
    to_device(entered, dst, src.read(bytes)?, stream)?;
    wait_if_seen(entered, dst.0, stream, returns)
}

/// The device to host memory of any kind.
fn device_to_host(
    entered: Entered,
    dst: Span,
    src: DevicePtr,
    bytes: usize,
    stream: Stream,
    returns: Returns,
) -> CuResult<()> {
    if is_mapped(entered, dst.address()) {
        reached(entered, dst.address(), src.0, bytes, stream)?;
        return wait(entered, stream, returns);
    }
    to_host(entered, dst.write(bytes)?, src, stream)
}

/// Device to device.
pub fn on_device(
    entered: Entered,
    dst: DevicePtr,
    src: DevicePtr,
    bytes: usize,
    stream: Stream,
) -> CuResult<()> {
    owned(entered, dst, bytes as u64)?;
    owned(entered, src, bytes as u64)?;
    if bytes == 0 {
        return Ok(());
    }
    if captured(entered, stream, || Copy3d::line((true, dst.0), (true, src.0), bytes))? {
        return Ok(());
    }
    ask::cuMemcpyDtoDAsync_v2(&entered.process.channel, entered.context, dst, src, bytes as u64, stream)
}

/// That bytes at an address of an allocation, global or pinned piece lie within it, or within mapped pieces in a row: the common mistake
/// stays synchronous. The worker checks everything again.
pub fn owned(entered: Entered, address: DevicePtr, bytes: u64) -> CuResult<()> {
    let process = entered.process;
    let inside = process
        .device_memory
        .covers(address.0, bytes)
        .or_else(|| mapped(process, address.0).map(|range| bytes <= range.bytes - (address.0 - range.start)));
    match inside {
        Some(false) => Err(CuError::INVALID_VALUE),
        // What a graph is to allocate belongs into captures only.
        None if process.graphs.is_capturing() && process.graph_memory.holds(address.0) => Ok(()),
        None if is_device(process, address.0) => Err(CuError::INVALID_VALUE),
        _ => Ok(()),
    }
}

/// Whether an address is the device's. Reserved ones where nothing is mapped are no host memory either.
pub fn is_device(process: &Process, address: u64) -> bool {
    process.device_memory.find(address).is_some()
        || process.virtual_memory.reservation(address).is_some()
        || process.graph_memory.holds(address)
}

/// `cuMemcpy`: the addresses say which way.
pub fn unified(
    entered: Entered,
    dst: u64,
    src: u64,
    bytes: usize,
    stream: Stream,
    returns: Returns,
) -> CuResult<()> {
    let is_device = |address| is_device(entered.process, address);
    match (is_device(dst), is_device(src)) {
        (true, true) => on_device(entered, DevicePtr(dst), DevicePtr(src), bytes, stream),
        (true, false) => {
            host_to_device(entered, DevicePtr(dst), Span::at_address(src), bytes, stream, returns)
        }
        (false, true) => {
            device_to_host(entered, Span::at_address(dst), DevicePtr(src), bytes, stream, returns)
        }
        (false, false) if is_mapped(entered, dst) && is_mapped(entered, src) => {
            reached(entered, dst, src, bytes, stream)?;
            wait(entered, stream, returns)
        }
        (false, false) if bytes == 0 => Ok(()),
        (false, false) => {
            // With pinned memory on one side a node can do it.
            if captured(entered, stream, || Copy3d::line((false, dst), (false, src), bytes))? {
                return Ok(());
            }
            ask::cuStreamSynchronize(&entered.process.channel, entered.context, stream)?;
            // Through a buffer: the ranges may overlap.
            let copy = Span::at_address(src).read(bytes)?.to_vec();
            Span::at_address(dst).write(bytes)?.copy_from_slice(&copy);
            Ok(())
        }
    }
}

/// Two contexts that a copy names. All devices share their addresses, so they say no more than is known; whether they are of one device.
/// # Errors
/// 201.
pub fn of_one_device(entered: Entered, dst_context: Raw, src_context: Raw) -> CuResult<bool> {
    let contexts = &entered.process.contexts;
    let device = |raw: Raw| contexts.device_of(contexts.named(raw.0)?);
    Ok(device(dst_context)? == device(src_context)?)
}

/// Before a copy between two devices that is not `Async`: in the order of all that both contexts do. Source: CUDA Driver API,
/// `cuMemcpyPeer`.
pub fn wait_for_both(entered: Entered, contexts: [Raw; 2]) -> CuResult<()> {
    for raw in contexts {
        let context = entered.process.contexts.named(raw.0)?;
        ask::cuCtxSynchronize(&entered.process.channel, context)?;
    }
    entered.told()
}

/// The call's context and its default stream, for which it waits.
fn default(mode: Mode) -> CuResult<(Entered, Stream)> {
    let entered = enter()?;
    let stream = resolve(entered, 0, mode)?;
    entered.process.graphs.may_wait(entered, stream)?;
    Ok((entered, stream))
}

fn with(stream: Raw, mode: Mode) -> CuResult<(Entered, Stream)> {
    let entered = enter()?;
    Ok((entered, resolve(entered, stream.0, mode)?))
}

export! {
    fn cuMemcpyHtoD_v2 | cuMemcpyHtoD_v2_ptds(mode, dst: DevicePtr, src: Span, bytes: usize) {
        let (entered, stream) = default(mode)?;
        host_to_device(entered, dst, src, bytes, stream, Returns::Done)
    }

    fn cuMemcpyHtoDAsync_v2 | cuMemcpyHtoDAsync_v2_ptsz(mode, dst: DevicePtr, src: Span, bytes: usize, stream: Raw) {
        let (entered, stream) = with(stream, mode)?;
        host_to_device(entered, dst, src, bytes, stream, Returns::AtOnce)
    }

    fn cuMemcpyDtoH_v2 | cuMemcpyDtoH_v2_ptds(mode, dst: Span, src: DevicePtr, bytes: usize) {
        let (entered, stream) = default(mode)?;
        device_to_host(entered, dst, src, bytes, stream, Returns::Done)
    }

    fn cuMemcpyDtoHAsync_v2 | cuMemcpyDtoHAsync_v2_ptsz(mode, dst: Span, src: DevicePtr, bytes: usize, stream: Raw) {
        let (entered, stream) = with(stream, mode)?;
        device_to_host(entered, dst, src, bytes, stream, Returns::AtOnce)
    }

    fn cuMemcpyDtoD_v2 | cuMemcpyDtoD_v2_ptds(mode, dst: DevicePtr, src: DevicePtr, bytes: usize) {
        let (entered, stream) = default(mode)?;
        on_device(entered, dst, src, bytes, stream)?;
        wait_if_seen(entered, dst.0, stream, Returns::Done)
    }

    fn cuMemcpyDtoDAsync_v2 | cuMemcpyDtoDAsync_v2_ptsz(
        mode, dst: DevicePtr, src: DevicePtr, bytes: usize, stream: Raw,
    ) {
        let (entered, stream) = with(stream, mode)?;
        on_device(entered, dst, src, bytes, stream)
    }

    fn cuMemcpyPeer | cuMemcpyPeer_ptds(
        mode, dst: DevicePtr, dst_context: Raw, src: DevicePtr, src_context: Raw, bytes: usize,
    ) {
        let (entered, stream) = default(mode)?;
        if of_one_device(entered, dst_context, src_context)? {
            on_device(entered, dst, src, bytes, stream)?;
            return wait_if_seen(entered, dst.0, stream, Returns::Done);
        }
        wait_for_both(entered, [dst_context, src_context])?;
        on_device(entered, dst, src, bytes, stream)?;
        wait(entered, stream, Returns::Done)
    }

    fn cuMemcpyPeerAsync | cuMemcpyPeerAsync_ptsz(
        mode, dst: DevicePtr, dst_context: Raw, src: DevicePtr, src_context: Raw, bytes: usize, stream: Raw,
    ) {
        let (entered, stream) = with(stream, mode)?;
        of_one_device(entered, dst_context, src_context)?;
        on_device(entered, dst, src, bytes, stream)
    }

    fn cuMemcpy | cuMemcpy_ptds(mode, dst: u64, src: u64, bytes: usize) {
        let (entered, stream) = default(mode)?;
        unified(entered, dst, src, bytes, stream, Returns::Done)
    }

    fn cuMemcpyAsync | cuMemcpyAsync_ptsz(mode, dst: u64, src: u64, bytes: usize, stream: Raw) {
        let (entered, stream) = with(stream, mode)?;
        unified(entered, dst, src, bytes, stream, Returns::AtOnce)
    }
}
