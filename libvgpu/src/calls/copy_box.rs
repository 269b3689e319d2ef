//! Pitched copies of two and three dimensions, row by row. Those with an array are in `copy_array.rs`, nodes of graphs in
//! `copy_node.rs`.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, DevicePtr, Stream, ask};

use super::copy::{Returns, is_device, is_mapped, of_one_device, on_device, reached, wait, wait_for_both};
use super::copy_array;
use super::copy_node::captured;
use super::copy_pageable::{to_device, to_host};
use crate::abi::{In, Raw, Span, export};
use crate::core::contexts::{Entered, enter};
use crate::core::streams::resolve;

/// Bytes that rows to the host are read with at once, and that this library allocates for a copy at most.
const GATHER_BYTES: usize = 1 << 20;

/// `CUmemorytype`: host, device.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// One side of `CUDA_MEMCPY2D`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Side2d {
    x_bytes: usize,
    y: usize,
    /// `CUmemorytype`: 1 host, 2 device, 3 array, 4 unified.
    memory_type: u32,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

/// `CUDA_MEMCPY2D_v2`, 128 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Copy2d {
    src: Side2d,
    dst: Side2d,
    width_bytes: usize,
    height: usize,
}
const _: () = assert!(size_of::<Copy2d>() == 128);

/// One side of `CUDA_MEMCPY3D` and of `CUDA_MEMCPY3D_PEER`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Side3d {
    pub x_bytes: usize,
    pub y: usize,
    pub z: usize,
    pub level: usize,
    pub memory_type: u32,
    pub host: u64,
    pub device: u64,
    pub array: u64,
    /// Of a peer copy; else it means nothing.
    pub context: Raw,
    pub pitch: usize,
    /// Rows of a slice; not looked at when there is one slice.
    pub height: usize,
}

/// `CUDA_MEMCPY3D_v2` and `CUDA_MEMCPY3D_PEER_v1`, 200 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Copy3d {
    pub(super) src: Side3d,
    pub(super) dst: Side3d,
    pub(super) width_bytes: usize,
    pub(super) height: usize,
    pub(super) depth: usize,
}
const _: () = assert!(size_of::<Copy3d>() == 200);

impl From<Side2d> for Side3d {
    fn from(side: Side2d) -> Self {
        let Side2d { x_bytes, y, memory_type, host, device, array, pitch } = side;
        let (z, level, context, height) = (0, 0, Raw(0), 0);
        Self { x_bytes, y, z, level, memory_type, host, device, array, context, pitch, height }
    }
}

impl From<Copy2d> for Copy3d {
    fn from(copy: Copy2d) -> Self {
        let Copy2d { src, dst, width_bytes, height } = copy;
        Self { src: src.into(), dst: dst.into(), width_bytes, height, depth: 1 }
    }
}

impl Copy3d {
    /// Bytes in one row; a side is device memory or the program's, and an address there.
    pub fn line(dst: (bool, u64), src: (bool, u64), bytes: usize) -> Self {
        Self { src: Self::side(src), dst: Self::side(dst), width_bytes: bytes, height: 1, depth: 1 }
    }

    /// A side of one row.
    pub fn side((on_device, address): (bool, u64)) -> Side3d {
        Side3d {
            x_bytes: 0,
            y: 0,
            z: 0,
            level: 0,
            memory_type: if on_device { DEVICE } else { HOST },
            host: if on_device { 0 } else { address },
            device: if on_device { address } else { 0 },
            array: 0,
            context: Raw(0),
            pitch: 0,
            height: 0,
        }
    }
}

/// Where the rows of a side lie.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub on_device: bool,
    /// Host memory that the device reaches, as which side it was given.
    pinned: bool,
    pub start: u64,
    /// Bytes from a row to the next, rows and bytes from a slice to the next.
    pub pitch: u64,
    pub slice_rows: u64,
    pub slice: u64,
}

impl Rows {
    pub fn of(entered: Entered, side: &Side3d, copy: &Copy3d) -> CuResult<Self> {
        let (on_device, base) = match side.memory_type {
            HOST => (false, side.host),
            DEVICE => (true, side.device),
            4 => (is_device(entered.process, side.device), side.device),
            _ => return Err(CuError::INVALID_VALUE),
        };
        let pitch = if side.pitch == 0 { copy.width_bytes } else { side.pitch };
        let rows = if copy.depth == 1 && side.height == 0 { copy.height } else { side.height };
        let inside =
            |start: usize, size: usize, limit: usize| start.checked_add(size).is_some_and(|end| end <= limit);
        if !inside(side.x_bytes, copy.width_bytes, pitch)
            || (copy.depth > 1 && !inside(side.y, copy.height, rows))
        {
            return Err(CuError::INVALID_VALUE);
        }
        let slice = (pitch as u64).checked_mul(rows as u64).ok_or(CuError::INVALID_VALUE)?;
        let corner = at(slice, side.z).zip(at(pitch as u64, side.y));
        let corner =
            corner.and_then(|(slices, rows)| slices.checked_add(rows)?.checked_add(side.x_bytes as u64));
        let start = corner.and_then(|corner| base.checked_add(corner)).ok_or(CuError::INVALID_VALUE)?;
        let pinned = is_mapped(entered, base);
        let slice_rows = rows as u64;
        Ok(Self { on_device, pinned, start, pitch: pitch as u64, slice_rows, slice })
    }

    /// Whether the device reaches them by their address.
    pub(super) fn is_reached(&self) -> bool {
        self.on_device || self.pinned
    }

    pub(super) fn row(self, z: usize, y: usize) -> CuResult<u64> {
        at(self.slice, z)
            .zip(at(self.pitch, y))
            .and_then(|(slices, rows)| self.start.checked_add(slices)?.checked_add(rows))
            .ok_or(CuError::INVALID_VALUE)
    }
}

fn at(step: u64, number: usize) -> Option<u64> {
    step.checked_mul(number as u64)
}

pub fn copy(entered: Entered, what: &Copy3d, stream: Stream, returns: Returns) -> CuResult<()> {
    if what.extent().is_empty() {
        return Ok(());
    }
    if captured(entered, stream, || *what)? {
        return Ok(());
    }
    if copy_array::is_array(&what.src) || copy_array::is_array(&what.dst) {
        return copy_array::copy(entered, what, stream, returns);
    }
    let (src, dst) = (Rows::of(entered, &what.src, what)?, Rows::of(entered, &what.dst, what)?);
    let by_address = (src.pinned || dst.pinned) && src.is_reached() && dst.is_reached();
    if !src.on_device && !dst.on_device && !by_address {
        // What the device still has to write there comes first.
        ask::cuStreamSynchronize(&entered.process.channel, entered.context, stream)?;
    }
    // Rows that follow each other on both sides are one.
    let packed = |rows: Rows| rows.pitch == what.width_bytes as u64;
    let (height, row_bytes) = if packed(src) && packed(dst) {
        (1, what.width_bytes.checked_mul(what.height).ok_or(CuError::INVALID_VALUE)?)
    } else {
        (what.height, what.width_bytes)
    };
    for z in 0..what.depth {
        if src.on_device && !dst.on_device && !by_address && gathers(src.pitch, row_bytes, height) {
            gather(entered, dst, src, z, (row_bytes, height), stream)?;
            continue;
        }
        for y in 0..height {
            if by_address {
                reached(entered, dst.row(z, y)?, src.row(z, y)?, row_bytes, stream)?;
                continue;
            }
            row(
                entered,
                (dst.on_device, dst.row(z, y)?),
                (src.on_device, src.row(z, y)?),
                row_bytes,
                stream,
            )?;
        }
    }
    if by_address || dst.pinned { wait(entered, stream, returns) } else { Ok(()) }
}

/// Whether at least two rows and the gap between them are read with one question, and the gap is no longer than a row. A program's
/// sizes are not checked yet: whatever they are, what is gathered fits [`GATHER_BYTES`].
fn gathers(pitch: u64, row_bytes: usize, height: usize) -> bool {
    height > 1 && pitch <= GATHER_BYTES as u64 / 2 && pitch <= (row_bytes as u64).saturating_mul(2)
}

/// Rows of the device to host memory, many with one question, and the gaps between them too: a question costs more than they do.
fn gather(
    entered: Entered,
    dst: Rows,
    src: Rows,
    z: usize,
    (row_bytes, height): (usize, usize),
    stream: Stream,
) -> CuResult<()> {
    let pitch = usize::try_from(src.pitch).map_err(|_| CuError::INVALID_VALUE)?;
    let at_once = (GATHER_BYTES / pitch).clamp(1, height);
    let mut buffer = vec![0; (at_once - 1) * pitch + row_bytes];
    for first in (0..height).step_by(at_once) {
        let rows = at_once.min(height - first);
        let span = buffer.get_mut(..(rows - 1) * pitch + row_bytes).ok_or(CuError::UNKNOWN)?;
        to_host(entered, span, DevicePtr(src.row(z, first)?), stream)?;
        for (y, row) in span.chunks(pitch).enumerate() {
            let place = Span::at_address(dst.row(z, first + y)?).write(row_bytes)?;
            place.copy_from_slice(row.get(..row_bytes).ok_or(CuError::UNKNOWN)?);
        }
    }
    Ok(())
}

fn row(entered: Entered, dst: (bool, u64), src: (bool, u64), bytes: usize, stream: Stream) -> CuResult<()> {
    match (dst.0, src.0) {
        (true, true) => on_device(entered, DevicePtr(dst.1), DevicePtr(src.1), bytes, stream),
        (true, false) => to_device(entered, DevicePtr(dst.1), Span::at_address(src.1).read(bytes)?, stream),
        (false, true) => to_host(entered, Span::at_address(dst.1).write(bytes)?, DevicePtr(src.1), stream),
        (false, false) => {
            // By way of memory of ours, since both may be the same; in pieces, since the size is the program's.
            for done in (0..bytes).step_by(GATHER_BYTES) {
                let count = GATHER_BYTES.min(bytes - done);
                let piece = Span::at_address(src.1 + done as u64).read(count)?.to_vec();
                Span::at_address(dst.1 + done as u64).write(count)?.copy_from_slice(&piece);
            }
            Ok(())
        }
    }
}

/// The stream of a copy; `None`: the default one, and the call waits.
pub fn with(stream: Option<Raw>, mode: Mode) -> CuResult<(Entered, Stream)> {
    let entered = enter()?;
    let resolved = resolve(entered, stream.map_or(0, |raw| raw.0), mode)?;
    if stream.is_none() {
        entered.process.graphs.may_wait(entered, resolved)?;
    }
    Ok((entered, resolved))
}

fn two(what: In<Copy2d>, given: Option<Raw>, mode: Mode) -> CuResult<()> {
    let (entered, stream) = with(given, mode)?;
    copy(entered, &what.get()?.into(), stream, Returns::of(given))
}

fn three(what: In<Copy3d>, given: Option<Raw>, mode: Mode) -> CuResult<()> {
    let (entered, stream) = with(given, mode)?;
    copy(entered, &what.get()?, stream, Returns::of(given))
}

fn peer(what: In<Copy3d>, given: Option<Raw>, mode: Mode) -> CuResult<()> {
    let (entered, stream) = with(given, mode)?;
    let what = what.get()?;
    let contexts = [copy_array::context_of(entered, &what.dst)?, copy_array::context_of(entered, &what.src)?];
    if of_one_device(entered, contexts[0], contexts[1])? {
        return copy(entered, &what, stream, Returns::of(given));
    }
    if copy_array::is_array(&what.src) || copy_array::is_array(&what.dst) {
        return Err(CuError::NOT_SUPPORTED);
    }
    let returns = Returns::of(given);
    if returns == Returns::Done {
        wait_for_both(entered, contexts)?;
    }
    copy(entered, &what, stream, returns)?;
    wait(entered, stream, returns)
}

export! {
    fn cuMemcpy2D_v2 | cuMemcpy2D_v2_ptds(mode, what: In<Copy2d>) {
        two(what, None, mode)
    }

    fn cuMemcpy2DUnaligned_v2 | cuMemcpy2DUnaligned_v2_ptds(mode, what: In<Copy2d>) {
        two(what, None, mode)
    }

    fn cuMemcpy2DAsync_v2 | cuMemcpy2DAsync_v2_ptsz(mode, what: In<Copy2d>, stream: Raw) {
        two(what, Some(stream), mode)
    }

    fn cuMemcpy3D_v2 | cuMemcpy3D_v2_ptds(mode, what: In<Copy3d>) {
        three(what, None, mode)
    }

    fn cuMemcpy3DAsync_v2 | cuMemcpy3DAsync_v2_ptsz(mode, what: In<Copy3d>, stream: Raw) {
        three(what, Some(stream), mode)
    }

    fn cuMemcpy3DPeer | cuMemcpy3DPeer_ptds(mode, what: In<Copy3d>) {
        peer(what, None, mode)
    }

    fn cuMemcpy3DPeerAsync | cuMemcpy3DPeerAsync_ptsz(mode, what: In<Copy3d>, stream: Raw) {
        peer(what, Some(stream), mode)
    }
}
