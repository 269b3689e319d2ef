//! A copy as a graph's node: between device memory, arrays and the program's own memory.

use vgpu_api::graph::{self, ArrayCopy, CopyBox, GraphWork, HostSide};
use vgpu_api::{ArrayPlace, BoxSide, ContextId, CuError, CuResult, DevicePtr, Extent, LinearPlace, Stream};

use super::copy_array::{self, is_array};
use super::copy_box::{Copy3d, Rows, Side3d};
use crate::abi::Span;
use crate::core::contexts::Entered;
use crate::core::graphs::Work;
use crate::core::streams;

/// A copy as a graph's node.
#[derive(Clone, Copy, Debug)]
pub struct BoxNode {
    /// As the program gave it.
    pub given: Copy3d,
    pub context: ContextId,
    dst: Side,
    src: Side,
}

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
enum Side {
    Rows(Rows),
    Array(ArrayPlace),
}

impl Side {
    fn of(entered: Entered, side: &Side3d, copy: &Copy3d) -> CuResult<Self> {
        if is_array(side) {
            return copy_array::place(entered, side, copy.extent()).map(Self::Array);
        }
        Rows::of(entered, side, copy).map(Self::Rows)
    }

    /// The rows, if only the program reaches them.
    fn host(&self) -> Option<&Rows> {
        match self {
            Self::Rows(rows) if !rows.is_reached() => Some(rows),
            _ => None,
        }
    }

    /// As a side of a copy with an array; `None` for what only the program reaches.
    fn on_device(&self) -> Option<BoxSide> {
        match self {
            Self::Array(place) => Some(BoxSide::Array(*place)),
            Self::Rows(rows) if rows.is_reached() => {
                let (at, pitch, height) = (DevicePtr(rows.start), rows.pitch, rows.slice_rows);
                Some(BoxSide::Linear(LinearPlace { at, pitch, height }))
            }
            Self::Rows(_) => None,
        }
    }

    /// As a side of a copy without arrays. Where the program's own rows lie is not told.
    fn rows(&self) -> Option<graph::Rows> {
        match self {
            Self::Array(_) => None,
            Self::Rows(rows) => {
                let start = DevicePtr(if rows.is_reached() { rows.start } else { 0 });
                Some(graph::Rows { start, pitch: rows.pitch, slice_rows: rows.slice_rows })
            }
        }
    }
}

impl Copy3d {
    pub(super) fn extent(&self) -> Extent {
        let Self { width_bytes, height, depth, .. } = *self;
        Extent { width_bytes: width_bytes as u64, height: height as u64, depth: depth as u64 }
    }
}

impl BoxNode {
    /// # Errors
    /// 1 for what is no copy; 400 for an array that is none; 801 for one that has no side that the device reaches.
    pub fn new(entered: Entered, what: &Copy3d, context: ContextId) -> CuResult<Self> {
        if what.extent().is_empty() {
            return Err(CuError::INVALID_VALUE);
        }
        copy_array::check_levels(what)?;
        let (src, dst) = (Side::of(entered, &what.src, what)?, Side::of(entered, &what.dst, what)?);
        if src.host().is_some() && dst.host().is_some() {
            return Err(CuError::NOT_SUPPORTED);
        }
        Ok(Self { given: *what, context, dst, src })
    }

    /// Whether it copies more than one row.
    pub fn has_rows(&self) -> bool {
        self.given.height > 1 || self.given.depth > 1
    }

    /// Whether one side is memory that only the program reaches.
    pub fn is_host(&self) -> bool {
        self.host().is_some()
    }

    /// Whether it copies to memory that only the program reaches.
    pub fn is_to_host(&self) -> bool {
        self.dst.host().is_some()
    }

    /// As it travels.
    pub fn on_the_wire(&self) -> CuResult<GraphWork<'static>> {
        if let (Some(to), Some(from)) = (self.dst.rows(), self.src.rows()) {
            let side = match (self.src.host(), self.dst.host()) {
                (Some(_), _) => HostSide::From,
                (_, Some(_)) => HostSide::To,
                _ => HostSide::Neither,
            };
            let Extent { width_bytes: width, height, depth } = self.given.extent();
            return Ok(GraphWork::Copy(CopyBox { width, height, depth, to, from }, side));
        }
        let copy = ArrayCopy::of(self.dst.on_device(), self.src.on_device(), self.given.extent());
        copy.map(GraphWork::ArrayCopy).ok_or(CuError::UNKNOWN)
    }

    fn host(&self) -> Option<&Rows> {
        self.src.host().or(self.dst.host())
    }

    /// The first and the end of the program's memory that it touches.
    pub fn host_span(&self) -> Option<(u64, u64)> {
        let host = self.host()?;
        let last = host.row(self.given.depth - 1, self.given.height - 1).ok()?;
        Some((host.start, last.saturating_add(self.given.width_bytes as u64)))
    }

    /// Bytes of a row, and the program's side of each row: where it lies, and where when all are packed. Rows that follow each
    /// other are one.
    /// # Errors
    /// 1 past the end of the address space.
    pub fn host_rows(&self) -> CuResult<(usize, Vec<(Span, u64)>)> {
        let host = self.host().ok_or(CuError::INVALID_VALUE)?;
        let Copy3d { width_bytes, height, depth, .. } = self.given;
        let (width, height) = if host.pitch == width_bytes as u64 {
            (width_bytes.checked_mul(height).ok_or(CuError::INVALID_VALUE)?, 1)
        } else {
            (width_bytes, height)
        };
        let rows = (0..depth).flat_map(|z| (0..height).map(move |y| (z, y)));
        let placed = rows.enumerate().map(|(number, (z, y))| {
            let packed = (number as u64).checked_mul(width as u64).ok_or(CuError::INVALID_VALUE)?;
            Ok((Span::at_address(host.row(z, y)?), packed))
        });
        Ok((width, placed.collect::<CuResult<_>>()?))
    }
}

/// Whether a capture has taken the copy.
#[inline]
pub fn captured(entered: Entered, stream: Stream, what: impl FnOnce() -> Copy3d) -> CuResult<bool> {
    entered.process.graphs.captured(entered, stream, |_| {
        let context = streams::context_of(entered, stream)?;
        match BoxNode::new(entered, &what(), context) {
            // Between two places of the program: this library copies, and would do so once.
            Err(CuError::NOT_SUPPORTED) => Err(CuError::STREAM_CAPTURE_UNSUPPORTED),
            other => Ok(Work::Copy(Box::new(other?))),
        }
    })
}
