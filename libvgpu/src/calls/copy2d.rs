//! Pitched copies, row by row. Arrays (texture memory) are not supported yet.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, DevicePtr, Stream, ask};

use super::copy::{to_device, to_host};
use crate::abi::{In, Raw, Span, export};
use crate::core::contexts::{Entered, enter};
use crate::core::streams::resolve;

/// One side of `CUDA_MEMCPY2D`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Side {
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
    src: Side,
    dst: Side,
    width_bytes: usize,
    height: usize,
}
const _: () = assert!(size_of::<Copy2d>() == 128);

/// Where the rows of a side lie.
#[derive(Clone, Copy, Debug)]
struct Rows {
    on_device: bool,
    start: u64,
    pitch: u64,
}

impl Rows {
    fn of(entered: Entered, side: Side, width_bytes: usize) -> CuResult<Self> {
        let (on_device, base) = match side.memory_type {
            1 => (false, side.host),
            2 => (true, side.device),
            4 => (entered.process.device_memory.find(side.device).is_some(), side.device),
            3 => return Err(CuError::NOT_SUPPORTED),
            _ => return Err(CuError::INVALID_VALUE),
        };
        let pitch = if side.pitch == 0 { width_bytes } else { side.pitch };
        if side.x_bytes.checked_add(width_bytes).is_none_or(|end| end > pitch) {
            return Err(CuError::INVALID_VALUE);
        }
        let first =
            (side.y as u64).checked_mul(pitch as u64).and_then(|rows| rows.checked_add(side.x_bytes as u64));
        let start = first.and_then(|first| base.checked_add(first)).ok_or(CuError::INVALID_VALUE)?;
        Ok(Self { on_device, start, pitch: pitch as u64 })
    }

    fn row(self, number: usize) -> CuResult<u64> {
        (number as u64)
            .checked_mul(self.pitch)
            .and_then(|offset| self.start.checked_add(offset))
            .ok_or(CuError::INVALID_VALUE)
    }
}

fn copy(what: In<Copy2d>, stream: u64, mode: Mode) -> CuResult<()> {
    let entered = enter()?;
    let stream = resolve(entered, stream, mode)?;
    let what = what.get()?;
    if what.width_bytes == 0 || what.height == 0 {
        return Ok(());
    }
    let src = Rows::of(entered, what.src, what.width_bytes)?;
    let dst = Rows::of(entered, what.dst, what.width_bytes)?;
    let packed = |rows: Rows| rows.pitch == what.width_bytes as u64;
    if packed(src) && packed(dst) {
        let bytes = what.width_bytes.checked_mul(what.height).ok_or(CuError::INVALID_VALUE)?;
        return one(entered, (dst, dst.start), (src, src.start), bytes, stream);
    }
    for number in 0..what.height {
        one(entered, (dst, dst.row(number)?), (src, src.row(number)?), what.width_bytes, stream)?;
    }
    Ok(())
}

fn one(entered: Entered, dst: (Rows, u64), src: (Rows, u64), bytes: usize, stream: Stream) -> CuResult<()> {
    match (dst.0.on_device, src.0.on_device) {
        (true, true) => {
            let (dst, src) = (DevicePtr(dst.1), DevicePtr(src.1));
            ask::cuMemcpyDtoDAsync_v2(
                &entered.process.channel,
                entered.context,
                dst,
                src,
                bytes as u64,
                stream,
            )
        }
        (true, false) => to_device(entered, DevicePtr(dst.1), Span::at_address(src.1).read(bytes)?, stream),
        (false, true) => to_host(entered, Span::at_address(dst.1).write(bytes)?, DevicePtr(src.1), stream),
        (false, false) => {
            let row = Span::at_address(src.1).read(bytes)?.to_vec();
            Span::at_address(dst.1).write(bytes)?.copy_from_slice(&row);
            Ok(())
        }
    }
}

export! {
    fn cuMemcpy2D_v2 | cuMemcpy2D_v2_ptds(mode, what: In<Copy2d>) {
        copy(what, 0, mode)
    }

    fn cuMemcpy2DUnaligned_v2 | cuMemcpy2DUnaligned_v2_ptds(mode, what: In<Copy2d>) {
        copy(what, 0, mode)
    }

    fn cuMemcpy2DAsync_v2 | cuMemcpy2DAsync_v2_ptsz(mode, what: In<Copy2d>, stream: Raw) {
        copy(what, stream.0, mode)
    }
}
