//! An arena between two domains, a chunk ([`CHUNK_BYTES`]) at a time.
//!
//! ```text
//! guest: GrantedChunks::grant(n) ── 512 references ──▶ supervisor: Gntdev::record ── index ──▶ worker: ChunkWindow::place(n)
//! ```
//! The worker keeps the whole window free of anything else from its start and puts chunks into it by `mmap` alone. Nothing is taken back
//! singly: the chunks of a channel end with its worker and with the gntdev that recorded them, and only then may the guest drop
//! [`GrantedChunks`], for nothing else keeps their pages (`dmabuf.rs`).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::OFlags;
use rustix::mm::ProtFlags;

use super::dmabuf::{dmabuf_of, import};
use super::error::XenError;
use super::ioctl::open;
use super::map::Span;
use super::metrics::COUNTERS;
use super::table::gntdev as g;
use super::{DomId, GrantRef, domain};
use crate::arena::{CHUNK_BYTES, CHUNK_PAGES, WINDOW};
use crate::region::Region;

/// Guest side: the chunks of an arena that were granted.
#[derive(Debug)]
pub struct GrantedChunks {
    /// Closing it ends all grants.
    device: OwnedFd,
    memory: OwnedFd,
    to: DomId,
    granted: Vec<Option<Vec<GrantRef>>>,
}

impl GrantedChunks {
    /// None yet, of an arena of `bytes`, whose memory is sealed against shrinking and not against writing.
    ///
    /// # Errors
    /// No such device; [`XenError::NeedsIommuSoft`].
    pub fn new(to: DomId, memory: OwnedFd, bytes: u64) -> Result<Self, XenError> {
        if domain::is_pv_without_bounce_buffers() {
            return Err(XenError::NeedsIommuSoft);
        }
        let chunks = usize::try_from(bytes / CHUNK_BYTES as u64).map_err(|_| XenError::NoPages)?;
        Ok(Self { device: open(g::PATH, OFlags::empty())?, memory, to, granted: vec![None; chunks] })
    }

    /// Grants a chunk, once: who asks again is told the same.
    ///
    /// # Errors
    /// [`XenError::NoPages`]: the arena has no such chunk. `ENOSPC`: the grant table is full. No memory for its holes.
    pub fn grant(&mut self, chunk: u32) -> Result<&[GrantRef], XenError> {
        let place = self.granted.get_mut(chunk as usize).ok_or(XenError::NoPages)?;
        if place.is_none() {
            let dmabuf = dmabuf_of(&self.memory, u64::from(chunk) * CHUNK_BYTES as u64, CHUNK_BYTES)?;
            #[expect(clippy::cast_possible_truncation, reason = "512")]
            let refs = import(&self.device, &dmabuf, self.to, CHUNK_PAGES as u32)?;
            *place = Some(refs);
        }
        Ok(place.as_deref().unwrap_or_default())
    }
}

impl Drop for GrantedChunks {
    fn drop(&mut self) {
        let refs = self.granted.iter().flatten().map(|refs| refs.len() as u64).sum();
        COUNTERS.pages_granted.sub(refs);
    }
}

/// Backend side: the addresses at which the guest's process has its arena, of which chunks are put in place one by one.
#[derive(Debug)]
pub struct ChunkWindow {
    span: Span,
    placed: AtomicU64,
}

impl ChunkWindow {
    /// Keeps `bytes` from [`WINDOW`] on free of anything else.
    ///
    /// # Errors
    /// `EEXIST`: something is mapped there.
    pub fn reserve(bytes: u64) -> io::Result<Arc<Self>> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Arc::new(Self { span: Span::reserve(Some(WINDOW), bytes)?, placed: AtomicU64::new(0) }))
    }

    /// The window as a region. A byte of a chunk that is not in place yet must not be reached: it kills who does.
    pub fn region(self: &Arc<Self>) -> Region {
        // SAFETY: the region keeps the window, and with it whatever is mapped there. A chunk that is not in place can be neither read
        // nor written; one that is was granted for both.
        unsafe { Region::from_raw_parts(self.span.base(), self.span.len(), Box::new(Arc::clone(self))) }
    }

    /// Puts what `gntdev` recorded at `index` in the place of a chunk, which nobody reaches yet.
    ///
    /// # Errors
    /// A reference is wrong, or this domain can map no more. The place is as it was.
    pub fn place(&self, chunk: u32, gntdev: BorrowedFd<'_>, index: u64) -> io::Result<()> {
        let at_bytes = chunk as usize * CHUNK_BYTES;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let placed = self.span.place(at_bytes, gntdev, index, CHUNK_BYTES, protection);
        if let Err(error) = placed {
            // A mapping that fails may have left a hole where the reservation was.
            self.span.reserve_again(at_bytes, CHUNK_BYTES);
            return Err(error);
        }
        COUNTERS.pages_mapped.add(CHUNK_PAGES as u64);
        COUNTERS.maps.add(1);
        self.placed.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl Drop for ChunkWindow {
    fn drop(&mut self) {
        COUNTERS.pages_mapped.sub(self.placed.load(Relaxed) * CHUNK_PAGES as u64);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::region::{PAGE_BYTES, sealed_memory};

    /// A memfd stands for what a gntdev recorded: all that a worker does with it is `mmap`.
    #[test]
    fn a_chunk_in_its_place_is_the_peers_pages_and_a_failed_one_leaves_the_place_as_it_was() {
        let _alone = crate::arena::ALONE.lock().unwrap();
        let window = ChunkWindow::reserve(4 * CHUNK_BYTES as u64).unwrap();
        assert!(ChunkWindow::reserve(CHUNK_BYTES as u64).is_err(), "it is taken");
        let region = window.region();
        assert_eq!((region.base().addr().get(), region.len()), (WINDOW, 4 * CHUNK_BYTES));
        let memory = sealed_memory("chunks", 2 * CHUNK_BYTES).unwrap();
        let theirs = Region::map(&memory, 2 * CHUNK_BYTES).unwrap();
        theirs.write(CHUNK_BYTES + 5, b"theirs");
        let index = CHUNK_BYTES as u64;

        // One past the window, and one whose file cannot be mapped for writing.
        assert!(window.place(4, memory.as_fd(), index).is_err());
        let unwritable = std::fs::File::open("/dev/null").unwrap();
        assert!(window.place(2, unwritable.as_fd(), 0).is_err());
        let busy = Span::reserve(Some(WINDOW + 2 * CHUNK_BYTES), PAGE_BYTES);
        assert!(busy.is_err(), "the place of a chunk that failed is kept free");

        window.place(2, memory.as_fd(), index).unwrap();
        let mut seen = [0; 6];
        region.read(2 * CHUNK_BYTES + 5, &mut seen);
        assert_eq!(&seen, b"theirs");
        drop(window);
        region.read(2 * CHUNK_BYTES + 5, &mut seen);
        drop(region);
        assert!(ChunkWindow::reserve(CHUNK_BYTES as u64).is_ok(), "it is free again");
    }
}
