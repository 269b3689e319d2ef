//! All the `cuMemset*`: one record each. Those without a stream wait where the program can read at once: in pinned memory.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuResult, DevicePtr, Memset, ask};

use super::copy::{Returns, owned, wait_if_seen};
use crate::abi::{Raw, export};
use crate::core::contexts::enter;
use crate::core::graphs::Work;
use crate::core::streams::{self, resolve};

fn row(
    mode: Mode,
    dst: DevicePtr,
    element_bytes: u32,
    value: u32,
    width: usize,
    stream: Option<Raw>,
) -> CuResult<()> {
    fill(mode, Memset { dst, pitch: 0, element_bytes, value, width: width as u64, rows: 1 }, stream)
}

fn rows(
    mode: Mode,
    dst: DevicePtr,
    pitch: usize,
    (element_bytes, value): (u32, u32),
    (width, rows): (usize, usize),
    stream: Option<Raw>,
) -> CuResult<()> {
    let memset =
        Memset { dst, pitch: pitch as u64, element_bytes, value, width: width as u64, rows: rows as u64 };
    fill(mode, memset, stream)
}

fn fill(mode: Mode, memset: Memset, given: Option<Raw>) -> CuResult<()> {
    let entered = enter()?;
    let stream = resolve(entered, given.map_or(0, |raw| raw.0), mode)?;
    let bytes = memset.span()?;
    if bytes == 0 {
        return Ok(());
    }
    owned(entered, memset.dst, bytes)?;
    let graphs = &entered.process.graphs;
    if graphs.captured(entered, stream, |_| Ok(Work::Fill(memset, streams::context_of(entered, stream)?)))? {
        return Ok(());
    }
    ask::vgpuMemset(&entered.process.channel, entered.context, memset, stream)?;
    // Source: CUDA Driver API, "API synchronization behavior": asynchronous, except when the target is pinned or managed memory.
    wait_if_seen(entered, memset.dst.0, stream, Returns::of(given))
}

export! {
    fn cuMemsetD8_v2 | cuMemsetD8_v2_ptds(mode, dst: DevicePtr, value: u8, count: usize) {
        row(mode, dst, 1, value.into(), count, None)
    }
    fn cuMemsetD16_v2 | cuMemsetD16_v2_ptds(mode, dst: DevicePtr, value: u16, count: usize) {
        row(mode, dst, 2, value.into(), count, None)
    }
    fn cuMemsetD32_v2 | cuMemsetD32_v2_ptds(mode, dst: DevicePtr, value: u32, count: usize) {
        row(mode, dst, 4, value, count, None)
    }
    fn cuMemsetD8Async | cuMemsetD8Async_ptsz(mode, dst: DevicePtr, value: u8, count: usize, stream: Raw) {
        row(mode, dst, 1, value.into(), count, Some(stream))
    }
    fn cuMemsetD16Async | cuMemsetD16Async_ptsz(mode, dst: DevicePtr, value: u16, count: usize, stream: Raw) {
        row(mode, dst, 2, value.into(), count, Some(stream))
    }
    fn cuMemsetD32Async | cuMemsetD32Async_ptsz(mode, dst: DevicePtr, value: u32, count: usize, stream: Raw) {
        row(mode, dst, 4, value, count, Some(stream))
    }
    fn cuMemsetD2D8_v2 | cuMemsetD2D8_v2_ptds(mode, dst: DevicePtr, pitch: usize, value: u8, width: usize, height: usize) {
        rows(mode, dst, pitch, (1, value.into()), (width, height), None)
    }
    fn cuMemsetD2D16_v2 | cuMemsetD2D16_v2_ptds(mode, dst: DevicePtr, pitch: usize, value: u16, width: usize, height: usize) {
        rows(mode, dst, pitch, (2, value.into()), (width, height), None)
    }
    fn cuMemsetD2D32_v2 | cuMemsetD2D32_v2_ptds(mode, dst: DevicePtr, pitch: usize, value: u32, width: usize, height: usize) {
        rows(mode, dst, pitch, (4, value), (width, height), None)
    }
    fn cuMemsetD2D8Async | cuMemsetD2D8Async_ptsz(
        mode, dst: DevicePtr, pitch: usize, value: u8, width: usize, height: usize, stream: Raw,
    ) {
        rows(mode, dst, pitch, (1, value.into()), (width, height), Some(stream))
    }
    fn cuMemsetD2D16Async | cuMemsetD2D16Async_ptsz(
        mode, dst: DevicePtr, pitch: usize, value: u16, width: usize, height: usize, stream: Raw,
    ) {
        rows(mode, dst, pitch, (2, value.into()), (width, height), Some(stream))
    }
    fn cuMemsetD2D32Async | cuMemsetD2D32Async_ptsz(
        mode, dst: DevicePtr, pitch: usize, value: u32, width: usize, height: usize, stream: Raw,
    ) {
        rows(mode, dst, pitch, (4, value), (width, height), Some(stream))
    }
}
