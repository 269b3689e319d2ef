//! The channel's staging area, where bulk bytes travel. The guest may change it at any time: bytes are copied, never borrowed.

use idm::record::StagingView;
use vgpu_api::{CuError, CuResult, Staged};

/// Bytes copied between staging and the device at once, through a buffer that only the worker sees.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The staging area of one channel. Offsets are below [`Staging::len`]; it is the caller who checks.
pub trait Staging: Send + Sync {
    /// Its size in bytes, our own constant.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies out.
    fn read(&self, offset: usize, into: &mut [u8]);
    /// Copies in.
    fn write(&self, offset: usize, from: &[u8]);
    /// Wakes the guest, one of whose threads waits for a word that was written.
    fn wake(&self);
}

impl Staging for StagingView {
    fn len(&self) -> usize {
        self.whole().1
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let copied = StagingView::read(self, offset as u64, into);
        debug_assert!(copied.is_ok(), "the caller checks ranges");
    }

    fn write(&self, offset: usize, from: &[u8]) {
        let copied = StagingView::write(self, offset as u64, from);
        debug_assert!(copied.is_ok(), "the caller checks ranges");
    }

    fn wake(&self) {
        // A guest that cannot be rung is gone: the channel's end tells.
        let _ = StagingView::wake(self);
    }
}

/// Writes as much of `bytes` as `to` holds.
///
/// # Errors
/// 1 if `to` is not inside the area.
pub fn put(staging: &dyn Staging, to: Staged, bytes: &[u8]) -> CuResult<()> {
    let range = to.range(staging.len()).ok_or(CuError::INVALID_VALUE)?;
    let length = range.len().min(bytes.len());
    staging.write(range.start, &bytes[..length]);
    Ok(())
}

/// Walks `range` in pieces: offset in staging, offset from the start, length.
pub fn pieces(range: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize, usize)> {
    let bytes = range.len();
    (0..bytes).step_by(CHUNK_BYTES).map(move |at| (range.start + at, at, CHUNK_BYTES.min(bytes - at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_once() {
        let range = 5..(5 + 2 * CHUNK_BYTES + 7);
        let pieces: Vec<_> = pieces(range).collect();
        assert_eq!(
            pieces,
            [
                (5, 0, CHUNK_BYTES),
                (5 + CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES),
                (5 + 2 * CHUNK_BYTES, 2 * CHUNK_BYTES, 7)
            ]
        );
        assert_eq!(super::pieces(9..9).count(), 0);
    }
}
