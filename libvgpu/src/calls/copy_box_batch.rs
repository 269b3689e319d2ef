//! Many boxes copied by one call, each as `cuMemcpy3DAsync` copies it; what else holds for batches: `copy_batch.rs`. Sizes are in
//! elements: of the array, or bytes where there is none.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult};

use super::copy::Returns;
use super::copy_array::ARRAY;
use super::copy_batch::{DURING_CALL, NO_COPY, stream_of};
use super::copy_box::{Copy3d, Side3d, copy};
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::Entered;

/// `CU_MEMORYTYPE_UNIFIED`.
const UNIFIED: u32 = 4;
/// `CUmemcpy3DOperandType`: a pointer, an array.
const POINTER: u32 = 1;
const OF_ARRAY: u32 = 2;

/// `CUmemcpy3DOperand`. The words: an address, elements of a row, rows of a layer, a hint; or an array, and where in it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Operand {
    kind: u32,
    words: [usize; 4],
}
const _: () = assert!(size_of::<Operand>() == 40);

/// `CUDA_MEMCPY3D_BATCH_OP`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BoxOp {
    src: Operand,
    dst: Operand,
    extent: [usize; 3],
    /// `CUmemcpySrcAccessOrder`.
    access_order: u32,
    /// `CUmemcpyFlags`: a hint.
    flags: u32,
}
const _: () = assert!(size_of::<BoxOp>() == 112);

impl Operand {
    /// Bytes of an element of its array, if it is one.
    fn element(&self, entered: Entered) -> CuResult<Option<usize>> {
        match self.kind {
            POINTER => Ok(None),
            OF_ARRAY => {
                let array = entered.process.arrays.used(self.words[0] as u64)?;
                let bytes = entered.process.arrays.arrays.get(array)?.shape.element()?.bytes();
                usize::try_from(bytes).map(Some).map_err(|_| CuError::INVALID_VALUE)
            }
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    fn side(&self, [width, height, _]: [usize; 3], element: usize) -> CuResult<Side3d> {
        let bytes = |elements: usize| elements.checked_mul(element).ok_or(CuError::INVALID_VALUE);
        let [first, x, y, z] = self.words;
        if self.kind == OF_ARRAY {
            let side = Copy3d::side((true, 0));
            return Ok(Side3d { memory_type: ARRAY, array: first as u64, x_bytes: bytes(x)?, y, z, ..side });
        }
        let (row, rows) = (if x == 0 { width } else { x }, if y == 0 { height } else { y });
        if row < width || rows < height {
            return Err(CuError::INVALID_VALUE);
        }
        let side = Copy3d::side((true, first as u64));
        Ok(Side3d { memory_type: UNIFIED, pitch: bytes(row)?, height: rows, ..side })
    }
}

impl BoxOp {
    fn copy(&self, entered: Entered) -> CuResult<Copy3d> {
        let Self { src, dst, extent, access_order, flags } = *self;
        if extent.contains(&0) || !matches!(access_order, 1..=3) || flags > 1 {
            return Err(CuError::INVALID_VALUE);
        }
        let element = match (src.element(entered)?, dst.element(entered)?) {
            (None, None) => 1,
            (Some(from), Some(to)) if from != to => return Err(CuError::INVALID_VALUE),
            (Some(bytes), _) | (_, Some(bytes)) => bytes,
        };
        let [width, height, depth] = extent;
        let width_bytes = width.checked_mul(element).ok_or(CuError::INVALID_VALUE)?;
        Ok(Copy3d {
            src: src.side(extent, element)?,
            dst: dst.side(extent, element)?,
            width_bytes,
            height,
            depth,
        })
    }
}

/// `failed` gets the place of the copy that was refused, or [`NO_COPY`].
fn batch(
    (count, ops): (usize, In<BoxOp>),
    failed: Option<Out<usize>>,
    flags: u64,
    stream: Raw,
    mode: Mode,
) -> CuResult<()> {
    let tell = |place: usize| {
        if let Some(failed) = failed {
            failed.set_if_wanted(place);
        }
    };
    let (entered, stream) = stream_of(stream, mode)
        .and_then(|begun| if count == 0 || flags != 0 { Err(CuError::INVALID_VALUE) } else { Ok(begun) })
        .inspect_err(|_| tell(NO_COPY))?;
    (0..count).try_for_each(|i| {
        let one = || {
            let op = ops.at(i)?;
            let what = op.copy(entered)?;
            let returns = if op.access_order == DURING_CALL {
                // A node would read the source later.
                entered.process.graphs.refuses(entered, stream)?;
                Returns::Read
            } else {
                Returns::AtOnce
            };
            copy(entered, &what, stream, returns)
        };
        one().inspect_err(|_| tell(i))
    })
}

export! {
    fn cuMemcpy3DBatchAsync | cuMemcpy3DBatchAsync_ptsz(
        mode, count: usize, ops: In<BoxOp>, failed: Out<usize>, flags: u64, stream: Raw,
    ) {
        batch((count, ops), Some(failed), flags, stream, mode)
    }

    fn cuMemcpy3DBatchAsync_v2 | cuMemcpy3DBatchAsync_v2_ptsz(
        mode, count: usize, ops: In<BoxOp>, flags: u64, stream: Raw,
    ) {
        batch((count, ops), None, flags, stream, mode)
    }
}
