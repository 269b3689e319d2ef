//! Many copies by one call, each as `cuMemcpyAsync` makes it. They are in the order of the stream and of the list, which is more
//! than CUDA promises. Sources in pageable memory are taken over before the call returns, which every access order allows; pinned
//! ones are read in the order of the stream, but for copies whose source is only there during the call: they are waited for, and no
//! capture takes them (900). Batches of boxes: `copy_box_batch.rs`.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, Stream};

use super::copy::{Returns, unified};
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::{Entered, enter};
use crate::core::streams::resolve;

/// `CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL`.
pub const DURING_CALL: u32 = 2;
/// In place of a copy's: what was wrong is none of them alone. `SIZE_MAX`.
pub const NO_COPY: usize = usize::MAX;

/// `CUmemcpyAttributes`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CopyAttributes {
    /// `CUmemcpySrcAccessOrder`: stream, during the call, any.
    access_order: u32,
    /// Of managed memory.
    _location_hints: [u32; 4],
    /// `CUmemcpyFlags`: a hint.
    flags: u32,
}
const _: () = assert!(size_of::<CopyAttributes>() == 24);

/// Copies from one list of addresses to another, and where in the list which attributes begin.
struct Batch {
    to: In<u64>,
    from: In<u64>,
    sizes: In<usize>,
    count: usize,
    attributes: In<CopyAttributes>,
    first: In<usize>,
    attribute_count: usize,
}

impl Batch {
    fn check(&self) -> CuResult<()> {
        if self.count == 0 || self.attribute_count == 0 || self.attribute_count > self.count {
            return Err(CuError::INVALID_VALUE);
        }
        let mut least = 0;
        for i in 0..self.attribute_count {
            let (attributes, first) = (self.attributes.at(i)?, self.first.at(i)?);
            let begins = if i == 0 { first == 0 } else { first >= least && first < self.count };
            if !begins || !matches!(attributes.access_order, 1..=3) || attributes.flags > 1 {
                return Err(CuError::INVALID_VALUE);
            }
            least = first + 1;
        }
        Ok(())
    }

    /// `failed` gets the place of the copy that was refused, or [`NO_COPY`]. Source: cuda.h of CUDA 12.8, `cuMemcpyBatchAsync`.
    fn copy(&self, failed: Option<Out<usize>>, stream: Raw, mode: Mode) -> CuResult<()> {
        let tell = |place: usize| {
            if let Some(failed) = failed {
                failed.set_if_wanted(place);
            }
        };
        let (entered, stream) = self.begun(stream, mode).inspect_err(|_| tell(NO_COPY))?;
        let mut attribute = 0;
        (0..self.count).try_for_each(|i| {
            let mut one = || {
                let returns = self.returns(i, &mut attribute)?;
                if returns == Returns::Read {
                    // A node would read the source later.
                    entered.process.graphs.refuses(entered, stream)?;
                }
                let bytes = self.sizes.at(i)?;
                if bytes == 0 {
                    return Err(CuError::INVALID_VALUE);
                }
                unified(entered, self.to.at(i)?, self.from.at(i)?, bytes, stream, returns)
            };
            one().inspect_err(|_| tell(i))
        })
    }

    /// Where the copies go, if they could.
    fn begun(&self, stream: Raw, mode: Mode) -> CuResult<(Entered, Stream)> {
        let begun = stream_of(stream, mode)?;
        self.check().map(|()| begun)
    }

    /// What the attributes of a copy say; `last` are those of the copy before.
    fn returns(&self, copy: usize, last: &mut usize) -> CuResult<Returns> {
        while *last + 1 < self.attribute_count && self.first.at(*last + 1)? <= copy {
            *last += 1;
        }
        let during_call = self.attributes.at(*last)?.access_order == DURING_CALL;
        Ok(if during_call { Returns::Read } else { Returns::AtOnce })
    }
}

/// The stream of a batch, which is not the legacy one.
/// # Errors
/// 1, 400.
pub fn stream_of(stream: Raw, mode: Mode) -> CuResult<(Entered, Stream)> {
    let entered = enter()?;
    let stream = resolve(entered, stream.0, mode)?;
    if stream == Stream::Legacy { Err(CuError::INVALID_VALUE) } else { Ok((entered, stream)) }
}

export! {
    fn cuMemcpyBatchAsync | cuMemcpyBatchAsync_ptsz(
        mode, to: In<u64>, from: In<u64>, sizes: In<usize>, count: usize, attributes: In<CopyAttributes>,
        first: In<usize>, attribute_count: usize, failed: Out<usize>, stream: Raw,
    ) {
        Batch { to, from, sizes, count, attributes, first, attribute_count }.copy(Some(failed), stream, mode)
    }

    fn cuMemcpyBatchAsync_v2 | cuMemcpyBatchAsync_v2_ptsz(
        mode, to: In<u64>, from: In<u64>, sizes: In<usize>, count: usize, attributes: In<CopyAttributes>,
        first: In<usize>, attribute_count: usize, stream: Raw,
    ) {
        Batch { to, from, sizes, count, attributes, first, attribute_count }.copy(None, stream, mode)
    }
}
