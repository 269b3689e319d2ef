//! Many ranges of managed memory by one call, to be prefetched or discarded. cuda.h lets a batch run only where all devices have
//! attribute 89, which none has here (`managed.rs`): so a batch is checked, and then gives what each of its prefetches would, 101.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, DevicePtr};

use super::copy_batch::stream_of;
use super::managed::{is_place, pages};
use super::virtual_memory::Location;
use crate::abi::{In, Raw, export};
use crate::core::streams::context_of;
use crate::log::say;

/// Where ranges go: each place with the first range that goes there.
struct Places {
    places: In<Location>,
    first: In<usize>,
    count: usize,
}

impl Places {
    /// That the first range has a place, and each further place a later range.
    fn check(&self, ranges: usize) -> CuResult<()> {
        if self.count == 0 || self.count > ranges {
            return Err(CuError::INVALID_VALUE);
        }
        let mut least = 0;
        for i in 0..self.count {
            let (place, first) = (self.places.at(i)?, self.first.at(i)?);
            let begins = if i == 0 { first == 0 } else { (least..ranges).contains(&first) };
            if !begins || !is_place(place) {
                return Err(CuError::INVALID_VALUE);
            }
            least = first + 1;
        }
        Ok(())
    }
}

/// `places`: none for what is only discarded. Source: cuda.h of CUDA 13.0, `cuMemPrefetchBatchAsync`.
fn batch(
    (at, bytes, count): (In<DevicePtr>, In<usize>, usize),
    places: Option<Places>,
    flags: u64,
    stream: Raw,
    mode: Mode,
) -> CuResult<()> {
    let (entered, stream) = stream_of(stream, mode)?;
    context_of(entered, stream)?;
    if count == 0 || flags != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    if let Some(places) = places {
        places.check(count)?;
    }
    (0..count).try_for_each(|i| pages(entered, at.at(i)?, bytes.at(i)?).map(|_| ()))?;
    say!("managed memory is neither prefetched nor discarded: it stays in host memory (attribute 89 is 0)");
    Err(CuError::INVALID_DEVICE)
}

export! {
    fn cuMemPrefetchBatchAsync | cuMemPrefetchBatchAsync_ptsz(
        mode, at: In<DevicePtr>, bytes: In<usize>, count: usize, places: In<Location>, first: In<usize>, place_count: usize,
        flags: u64, stream: Raw,
    ) {
        batch((at, bytes, count), Some(Places { places, first, count: place_count }), flags, stream, mode)
    }

    fn cuMemDiscardBatchAsync | cuMemDiscardBatchAsync_ptsz(
        mode, at: In<DevicePtr>, bytes: In<usize>, count: usize, flags: u64, stream: Raw,
    ) {
        batch((at, bytes, count), None, flags, stream, mode)
    }

    fn cuMemDiscardAndPrefetchBatchAsync | cuMemDiscardAndPrefetchBatchAsync_ptsz(
        mode, at: In<DevicePtr>, bytes: In<usize>, count: usize, places: In<Location>, first: In<usize>, place_count: usize,
        flags: u64, stream: Raw,
    ) {
        batch((at, bytes, count), Some(Places { places, first, count: place_count }), flags, stream, mode)
    }
}
