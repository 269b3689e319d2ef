//! The staging area: what is too long for a record or a reply. The submitter hands out its parts; a record names one by offset and length.

use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::replies::Replies;
use crate::error::{ChannelError, Peer};
use crate::region::Region;

/// Parts are multiples of this many bytes.
const BLOCK_BYTES: usize = 64 << 10;
/// How often a thread that waits for room looks whether it waits in vain.
const LOOK: Duration = Duration::from_millis(1);

/// The submitter's account of the area. Private: the peer has no say in it.
#[derive(Debug)]
pub(super) struct Staging {
    region: Arc<Region>,
    start: usize,
    /// Whether each block is in use.
    used: Mutex<Vec<bool>>,
    freed: Condvar,
}

/// A part of the staging area. Free again when dropped.
#[derive(Debug)]
pub struct Chunk<'a> {
    staging: &'a Staging,
    first: usize,
    blocks: usize,
    bytes: usize,
}

impl Staging {
    pub(super) fn new(region: Arc<Region>, start: usize, bytes: usize) -> Self {
        let used = vec![false; bytes / BLOCK_BYTES];
        Self { region, start, used: Mutex::new(used), freed: Condvar::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().len() * BLOCK_BYTES
    }

    /// Takes a part; `None` when there was none by the deadline, or before `stop`.
    pub(super) fn take(
        &self,
        bytes: usize,
        deadline: Option<Instant>,
        stop: impl Fn() -> bool,
    ) -> Option<Chunk<'_>> {
        let blocks = bytes.div_ceil(BLOCK_BYTES).max(1);
        let mut used = self.lock();
        loop {
            // First fit.
            if let Some(first) = used.windows(blocks).position(|window| !window.contains(&true)) {
                used[first..first + blocks].fill(true);
                return Some(Chunk { staging: self, first, blocks, bytes });
            }
            let now = Instant::now();
            if stop() || deadline.is_some_and(|at| at <= now) {
                return None;
            }
            used = match self.freed.wait_timeout(used, LOOK) {
                Ok((used, _)) => used,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunk<'_> {
    /// Where it starts in the staging area, in bytes: what a record says.
    #[expect(clippy::cast_possible_truncation, reason = "a region has at most 64 MiB")]
    pub fn offset(&self) -> u32 {
        (self.first * BLOCK_BYTES) as u32
    }

    /// Its length in bytes, as asked for.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it was asked for with no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Copies `from` to byte `at` of it.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn write(&self, at: usize, from: &[u8]) {
        assert!(at <= self.bytes && from.len() <= self.bytes - at, "outside of the chunk");
        self.staging.region.write(self.place() + at, from);
    }

    /// Copies from byte `at` of it.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn read(&self, at: usize, to: &mut [u8]) {
        assert!(at <= self.bytes && to.len() <= self.bytes - at, "outside of the chunk");
        self.staging.region.read(self.place() + at, to);
    }

    fn place(&self) -> usize {
        self.staging.start + self.first * BLOCK_BYTES
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        self.staging.lock()[self.first..self.first + self.blocks].fill(false);
        self.staging.freed.notify_all();
    }
}

/// The consumer's view of the staging area: every offset and length is the peer's word and checked.
#[derive(Debug, Clone)]
pub struct StagingView {
    region: Arc<Region>,
    start: usize,
    bytes: usize,
    peer: Peer,
    replies: Replies,
}

impl StagingView {
    pub(super) fn new(region: Arc<Region>, start: usize, bytes: usize, peer: Peer, replies: Replies) -> Self {
        Self { region, start, bytes, peer, replies }
    }

    /// Wakes the peer if it sleeps: something that one of its threads waits for was written ([`super::Submitter::wait_until`]).
    ///
    /// # Errors
    /// Those of the doorbell.
    pub fn wake(&self) -> Result<(), ChannelError> {
        self.replies.ring_if_asleep()
    }

    /// Copies `to.len()` bytes at `offset` out. The peer may write them meanwhile.
    ///
    /// # Errors
    /// [`ChannelError::PeerStaging`].
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), ChannelError> {
        let at = self.check(offset, to.len())?;
        self.region.read(at, to);
        Ok(())
    }

    /// Copies `from` to `offset`.
    ///
    /// # Errors
    /// [`ChannelError::PeerStaging`].
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), ChannelError> {
        let at = self.check(offset, from.len())?;
        self.region.write(at, from);
        Ok(())
    }

    /// The address of `bytes` at `offset`, for a driver's own copies. The peer may write them at any time; valid as long as this view.
    ///
    /// # Errors
    /// [`ChannelError::PeerStaging`].
    pub fn address(&self, offset: u64, bytes: usize) -> Result<NonNull<u8>, ChannelError> {
        let at = self.check(offset, bytes)?;
        // `at` is inside of the mapping, which does not reach around the end of the address space.
        Ok(self.region.base().map_addr(|base| base.saturating_add(at)))
    }

    /// The whole area: its address and length in bytes, to be registered for DMA.
    pub fn whole(&self) -> (NonNull<u8>, usize) {
        (self.region.base().map_addr(|base| base.saturating_add(self.start)), self.bytes)
    }

    fn check(&self, offset: u64, bytes: usize) -> Result<usize, ChannelError> {
        let outside = ChannelError::PeerStaging {
            peer: self.peer,
            offset,
            bytes: bytes as u64,
            limit: self.bytes as u64,
        };
        let Ok(at) = usize::try_from(offset) else { return Err(outside) };
        if at > self.bytes || bytes > self.bytes - at {
            return Err(outside);
        }
        Ok(self.start + at)
    }
}
