//! Copies with arrays: from and to host memory in pieces of rows without gaps, between places of the device as one record. Those that
//! a capture takes are nodes (`copy_node.rs`).

use vgpu_api::symbols::Mode;
use vgpu_api::{
    ArrayPlace, ArrayShape, BoxSide, CuError, CuResult, DevicePtr, Extent, LinearPlace, Stream, ask,
};

use super::copy::{Returns, is_mapped, wait, wait_if_seen};
use super::copy_box::{Copy3d, Rows, Side3d, with};
use super::copy_node::captured;
use crate::abi::{Raw, Span, export};
use crate::core::contexts::Entered;

/// `CU_MEMORYTYPE_ARRAY`.
pub const ARRAY: u32 = 3;
/// Up to here bytes travel in the record.
const INLINE_BYTES: u64 = 32 * 1024;
/// What the worker takes of staging at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Rows of the program's own memory.
#[derive(Clone, Copy, Debug)]
struct HostRows {
    start: u64,
    /// Bytes from a row to the next, from a slice to the next.
    pitch: u64,
    slice: u64,
}

/// An array and where in it.
#[derive(Clone, Copy, Debug)]
struct Target {
    place: ArrayPlace,
    shape: ArrayShape,
}

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
enum Side {
    Host(HostRows),
    Device(LinearPlace),
    Array(Target),
}

/// Whether a side of a copy is an array.
pub fn is_array(side: &Side3d) -> bool {
    side.memory_type == ARRAY
}

/// The context of a side: an array knows its own.
pub fn context_of(entered: Entered, side: &Side3d) -> CuResult<Raw> {
    if !is_array(side) {
        return Ok(side.context);
    }
    let array = entered.process.arrays.used(side.array)?;
    let known = entered.process.arrays.arrays.get(array)?;
    Ok(Raw(known.context.handle().raw()))
}

/// A copy with an array on one side or both.
pub fn copy(entered: Entered, what: &Copy3d, stream: Stream, returns: Returns) -> CuResult<()> {
    check_levels(what)?;
    let size = what.extent();
    let (src, dst) = (side(entered, &what.src, what)?, side(entered, &what.dst, what)?);
    run(entered, (dst, src), size, stream, returns)
}

fn side(entered: Entered, side: &Side3d, copy: &Copy3d) -> CuResult<Side> {
    if is_array(side) {
        return of_array(entered, side).map(Side::Array);
    }
    let rows = Rows::of(entered, side, copy)?;
    Ok(if rows.on_device {
        // A slice is so many rows.
        let height = rows.slice.checked_div(rows.pitch).unwrap_or(0);
        Side::Device(LinearPlace { at: DevicePtr(rows.start), pitch: rows.pitch, height })
    } else {
        Side::Host(HostRows { start: rows.start, pitch: rows.pitch, slice: rows.slice })
    })
}

fn of_array(entered: Entered, side: &Side3d) -> CuResult<Target> {
    target(entered, side.array, [side.x_bytes, side.y, side.z])
}

/// That a copy with an array names no level: those are arrays of their own.
/// # Errors
/// 1.
pub fn check_levels(what: &Copy3d) -> CuResult<()> {
    let names_one = what.src.level != 0 || what.dst.level != 0;
    let with_array = is_array(&what.src) || is_array(&what.dst);
    if names_one && with_array { Err(CuError::INVALID_VALUE) } else { Ok(()) }
}

/// Where in an array a copy begins that fits in there.
/// # Errors
/// 1, 400.
pub fn place(entered: Entered, side: &Side3d, size: Extent) -> CuResult<ArrayPlace> {
    let Target { place, shape } = of_array(entered, side)?;
    shape.check_box(place.corner(), size).map(|()| place)
}

fn target(entered: Entered, array: u64, [x_bytes, y, z]: [usize; 3]) -> CuResult<Target> {
    let array = entered.process.arrays.used(array)?;
    let known = entered.process.arrays.arrays.get(array)?;
    let place = ArrayPlace { array, x_bytes: x_bytes as u64, y: y as u64, z: z as u64 };
    Ok(Target { place, shape: known.shape })
}

fn run(
    entered: Entered,
    (dst, src): (Side, Side),
    size: Extent,
    stream: Stream,
    returns: Returns,
) -> CuResult<()> {
    for side in [dst, src] {
        if let Side::Array(target) = side {
            target.shape.check_box(target.place.corner(), size)?;
        }
    }
    let on_device = |side: Side| match side {
        Side::Array(target) => Ok(BoxSide::Array(target.place)),
        Side::Device(place) => Ok(BoxSide::Linear(place)),
        // Two sides of host memory are no copy of this file.
        Side::Host(_) => Err(CuError::INVALID_VALUE),
    };
    if size.is_empty() {
        return Ok(());
    }
    match (dst, src) {
        (Side::Array(to), Side::Host(from)) => {
            let pinned = is_mapped(entered, from.start);
            if pinned {
                // What the device still has to write there comes first: the bytes are taken over now.
                ask::cuStreamSynchronize(&entered.process.channel, entered.context, stream)?;
            }
            to_array(entered, to, from, size, stream)?;
            if pinned { wait(entered, stream, returns) } else { Ok(()) }
        }
        (Side::Host(to), Side::Array(from)) => to_host(entered, to, from, size, stream),
        (dst, src) => {
            let (channel, context) = (&entered.process.channel, entered.context);
            ask::vgpuCopyBox(channel, context, on_device(dst)?, on_device(src)?, size, stream)?;
            match dst {
                Side::Device(place) => wait_if_seen(entered, place.at.0, stream, returns),
                _ => Ok(()),
            }
        }
    }
}

fn to_array(entered: Entered, to: Target, from: HostRows, size: Extent, stream: Stream) -> CuResult<()> {
    let (channel, context) = (&entered.process.channel, entered.context);
    let mut buffer = Vec::new();
    if size.bytes().is_some_and(|bytes| bytes <= INLINE_BYTES) {
        let bytes = from.gather([0; 3], size, &mut buffer)?;
        return ask::vgpuArrayWrite(channel, context, to.place, size, bytes, stream);
    }
    let room = channel.staging()?;
    for (corner, piece) in size.pieces(to.shape.element()?.bytes(), PIECE_BYTES.min(room.len() as u64)) {
        let staged = room.put(from.gather(corner, piece, &mut buffer)?)?;
        ask::vgpuArrayWriteStaged(channel, context, to.place.further(corner), piece, staged, stream)?;
    }
    Ok(())
}

fn to_host(entered: Entered, to: HostRows, from: Target, size: Extent, stream: Stream) -> CuResult<()> {
    let (channel, context) = (&entered.process.channel, entered.context);
    let room = channel.staging()?;
    let mut buffer = Vec::new();
    for (corner, piece) in size.pieces(from.shape.element()?.bytes(), PIECE_BYTES.min(room.len() as u64)) {
        let bytes = length(piece)?;
        ask::vgpuArrayReadStaged(
            channel,
            context,
            room.part(bytes),
            from.place.further(corner),
            piece,
            stream,
        )?;
        if let Some(start) = to.whole(corner, piece)? {
            room.get(Span::at_address(start).write(bytes)?)?;
            continue;
        }
        buffer.resize(bytes, 0);
        room.get(&mut buffer)?;
        let row_bytes = length(Extent { height: 1, depth: 1, ..piece })?;
        for (start, row) in to.rows(corner, piece).zip(buffer.chunks_exact(row_bytes)) {
            Span::at_address(start?).write(row_bytes)?.copy_from_slice(row);
        }
    }
    // A kernel's fault before the copy is this call's to tell.
    channel.take_error()
}

/// Bytes of a piece, which is no larger than a room.
fn length(piece: Extent) -> CuResult<usize> {
    piece.bytes().and_then(|bytes| usize::try_from(bytes).ok()).ok_or(CuError::INVALID_VALUE)
}

impl HostRows {
    fn at(self, [x, y, z]: [u64; 3]) -> CuResult<u64> {
        let rows = self.slice.checked_mul(z).zip(self.pitch.checked_mul(y));
        let offset = rows.and_then(|(slices, rows)| slices.checked_add(rows)?.checked_add(x));
        offset.and_then(|offset| self.start.checked_add(offset)).ok_or(CuError::INVALID_VALUE)
    }

    /// Where a piece starts, if its rows have no gaps.
    fn whole(self, corner: [u64; 3], piece: Extent) -> CuResult<Option<u64>> {
        let rows = piece.height == 1 && piece.depth == 1 || self.pitch == piece.width_bytes;
        let slices = piece.depth == 1 || piece.width_bytes.checked_mul(piece.height) == Some(self.slice);
        if rows && slices { self.at(corner).map(Some) } else { Ok(None) }
    }

    /// Where each row of a piece starts.
    fn rows(self, [x, y, z]: [u64; 3], piece: Extent) -> impl Iterator<Item = CuResult<u64>> {
        (z..z.saturating_add(piece.depth)).flat_map(move |slice| {
            (y..y.saturating_add(piece.height)).map(move |row| self.at([x, row, slice]))
        })
    }

    /// A piece without gaps: as it lies there, or in `buffer`.
    fn gather(self, corner: [u64; 3], piece: Extent, buffer: &mut Vec<u8>) -> CuResult<&[u8]> {
        let bytes = length(piece)?;
        if let Some(start) = self.whole(corner, piece)? {
            return Span::at_address(start).read(bytes);
        }
        let row_bytes = length(Extent { height: 1, depth: 1, ..piece })?;
        buffer.clear();
        buffer.reserve(bytes);
        for start in self.rows(corner, piece) {
            buffer.extend_from_slice(Span::at_address(start?).read(row_bytes)?);
        }
        Ok(buffer)
    }
}

/// A copy of one row, with an array of one dimension or the first row of another.
fn line(dst: Side3d, src: Side3d, bytes: usize, given: Option<Raw>, mode: Mode) -> CuResult<()> {
    let (entered, stream) = with(given, mode)?;
    let what = Copy3d { src, dst, width_bytes: bytes, height: 1, depth: 1 };
    let sides = (side(entered, &what.dst, &what)?, side(entered, &what.src, &what)?);
    if bytes > 0 && captured(entered, stream, || what)? {
        return Ok(());
    }
    run(entered, sides, what.extent(), stream, Returns::of(given))
}

fn row(bytes: usize) -> Extent {
    Extent { width_bytes: bytes as u64, height: 1, depth: 1 }
}

fn on_host(memory: Span) -> Side3d {
    Copy3d::side((false, memory.address()))
}

fn on_device(address: DevicePtr) -> Side3d {
    Copy3d::side((true, address.0))
}

fn in_array(array: Raw, offset: usize) -> Side3d {
    Side3d { memory_type: ARRAY, array: array.0, x_bytes: offset, ..Copy3d::side((true, 0)) }
}

/// The elements need not be of one format, but of one size.
fn between(dst: (Raw, usize), src: (Raw, usize), bytes: usize, mode: Mode) -> CuResult<()> {
    let (entered, stream) = with(None, mode)?;
    let (to, from) = (target(entered, dst.0.0, [dst.1, 0, 0])?, target(entered, src.0.0, [src.1, 0, 0])?);
    if to.shape.element()?.bytes() != from.shape.element()?.bytes() {
        return Err(CuError::INVALID_VALUE);
    }
    run(entered, (Side::Array(to), Side::Array(from)), row(bytes), stream, Returns::of(None))
}

export! {
    fn cuMemcpyHtoA_v2 | cuMemcpyHtoA_v2_ptds(mode, array: Raw, offset: usize, src: Span, bytes: usize) {
        line(in_array(array, offset), on_host(src), bytes, None, mode)
    }

    fn cuMemcpyHtoAAsync_v2 | cuMemcpyHtoAAsync_v2_ptsz(
        mode, array: Raw, offset: usize, src: Span, bytes: usize, stream: Raw,
    ) {
        line(in_array(array, offset), on_host(src), bytes, Some(stream), mode)
    }

    fn cuMemcpyAtoH_v2 | cuMemcpyAtoH_v2_ptds(mode, dst: Span, array: Raw, offset: usize, bytes: usize) {
        line(on_host(dst), in_array(array, offset), bytes, None, mode)
    }

    fn cuMemcpyAtoHAsync_v2 | cuMemcpyAtoHAsync_v2_ptsz(
        mode, dst: Span, array: Raw, offset: usize, bytes: usize, stream: Raw,
    ) {
        line(on_host(dst), in_array(array, offset), bytes, Some(stream), mode)
    }

    fn cuMemcpyDtoA_v2 | cuMemcpyDtoA_v2_ptds(mode, array: Raw, offset: usize, src: DevicePtr, bytes: usize) {
        line(in_array(array, offset), on_device(src), bytes, None, mode)
    }

    fn cuMemcpyAtoD_v2 | cuMemcpyAtoD_v2_ptds(mode, dst: DevicePtr, array: Raw, offset: usize, bytes: usize) {
        line(on_device(dst), in_array(array, offset), bytes, None, mode)
    }

    fn cuMemcpyAtoA_v2 | cuMemcpyAtoA_v2_ptds(
        mode, dst: Raw, dst_offset: usize, src: Raw, src_offset: usize, bytes: usize,
    ) {
        between((dst, dst_offset), (src, src_offset), bytes, mode)
    }
}
