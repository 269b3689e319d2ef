//! The grant's memory as the workers of one container share it: a page of words. A worker asks it before it allocates
//! ([`Quota::charge`]); whether it may submit it asks a page of its own (`turn.rs`).
//!
//! ```text
//! 0 limit bytes u64 | 8 1: workers of earlier releases may submit | 16 left bytes u64 | 64 + 8·slot: bytes in use by that worker, u64; 500 slots
//! ```
//! The supervisor writes the limit and what is left of memory whose maker has it no more while a worker of this grant does
//! (`supervisor/shared.rs`), and zeroes the slot of a worker that ended. A worker writes its own slot. A worker
//! that was taken over can write all of it: the page belongs to its own container's grant, and whoever rules a worker reaches
//! the driver anyhow. So the supervisor takes nothing from it but figures for people.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vgpu_api::{CuError, CuResult};

use crate::shared_page::SharedPage;

/// Bytes of the page.
pub const PAGE_BYTES: usize = 4096;
/// Workers that one container may have at once.
pub const SLOTS: usize = 500;

const LIMIT: usize = 0;
/// Where workers of earlier releases look whether they may submit.
const MAY_SUBMIT: usize = 1;
const LEFT: usize = 2;
const FIRST_SLOT: usize = 8;

/// The page, as the supervisor sees it.
#[derive(Clone, Debug)]
pub struct Grant {
    page: Arc<SharedPage>,
    /// Ours: the word in the page may be a hostile worker's.
    limit_bytes: Arc<AtomicU64>,
    /// Ours, as above.
    left_bytes: Arc<AtomicU64>,
}

impl Grant {
    /// Over a fresh page of zeros: nothing is used.
    #[must_use]
    pub fn new(page: Arc<SharedPage>, limit_bytes: u64) -> Self {
        let grant = Self { page, limit_bytes: Arc::default(), left_bytes: Arc::default() };
        grant.set_limit(limit_bytes);
        grant.page.store(MAY_SUBMIT, 1);
        grant
    }

    /// Changes the limit. Below what is in use it only stops further allocations.
    pub fn set_limit(&self, bytes: u64) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
        self.page.store(LIMIT, bytes);
    }

    /// Whether both are of one page.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.page, &other.page)
    }

    /// Bytes that the worker in `slot` says it uses; never more than the grant, whatever it says.
    #[must_use]
    pub fn used_bytes(&self, slot: usize) -> u64 {
        self.page.load(FIRST_SLOT + slot).min(self.limit_bytes.load(Ordering::Relaxed))
    }

    /// Counts `bytes` that no worker's slot does.
    pub fn add_left(&self, bytes: u64) {
        let left = self.left_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.page.store(LEFT, left.saturating_add(bytes));
    }

    /// Counts `bytes` no longer that [`Grant::add_left`] did.
    pub fn remove_left(&self, bytes: u64) {
        let left = self.left_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.page.store(LEFT, left.saturating_sub(bytes));
    }

    /// As [`Grant::add_left`], if the grant has room for it. As with [`Quota::charge`], of two that race for the last bytes at least one sees
    /// the other's claim.
    ///
    /// # Errors
    /// 2.
    pub fn add_left_within(&self, bytes: u64) -> CuResult<()> {
        self.add_left(bytes);
        let used = (0..SLOTS).fold(self.left_bytes(), |sum, slot| sum.saturating_add(self.used_bytes(slot)));
        if used > self.limit_bytes.load(Ordering::Relaxed) {
            self.remove_left(bytes);
            return Err(CuError::OUT_OF_MEMORY);
        }
        Ok(())
    }

    /// What [`Grant::add_left`] counts.
    #[must_use]
    pub fn left_bytes(&self) -> u64 {
        self.left_bytes.load(Ordering::Relaxed)
    }

    /// The worker in `slot` is gone, and its memory with it.
    pub fn clear(&self, slot: usize) {
        self.page.store(FIRST_SLOT + slot, 0);
    }
}

/// The page, as one worker sees it.
#[derive(Debug)]
pub struct Quota {
    page: SharedPage,
    slot: usize,
    /// Ours: the shared word is only written, so that nobody makes us count wrong.
    used_bytes: u64,
}

impl Quota {
    /// Over the page of the container's grant. `None` for a slot that does not exist.
    #[must_use]
    pub fn new(page: SharedPage, slot: usize) -> Option<Self> {
        (slot < SLOTS).then_some(Self { page, slot, used_bytes: 0 })
    }

    /// Counts `bytes` before they are allocated.
    ///
    /// # Errors
    /// Exactly 2, `CUDA_ERROR_OUT_OF_MEMORY`, when the container's workers together would use more than the grant.
    pub fn charge(&mut self, bytes: u64) -> CuResult<()> {
        let wanted = self.used_bytes.checked_add(bytes).ok_or(CuError::OUT_OF_MEMORY)?;
        // Written first, then summed: of two workers that race for the last bytes at least one sees the other's claim.
        self.page.store(FIRST_SLOT + self.slot, wanted);
        if self.total_bytes() > self.page.load(LIMIT) {
            self.page.store(FIRST_SLOT + self.slot, self.used_bytes);
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.used_bytes = wanted;
        Ok(())
    }

    /// Counts `bytes` no longer.
    pub fn release(&mut self, bytes: u64) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        self.page.store(FIRST_SLOT + self.slot, self.used_bytes);
    }

    /// The grant in bytes.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.page.load(LIMIT)
    }

    /// What is left of the grant.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.limit_bytes().saturating_sub(self.total_bytes())
    }

    fn total_bytes(&self) -> u64 {
        (0..SLOTS)
            .fold(self.page.load(LEFT), |sum, slot| sum.saturating_add(self.page.load(FIRST_SLOT + slot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(limit_bytes: u64) -> (Grant, Quota, Quota) {
        let page = SharedPage::create().unwrap();
        let (one, two) = (SharedPage::map(page.fd()).unwrap(), SharedPage::map(page.fd()).unwrap());
        let grant = Grant::new(Arc::new(page), limit_bytes);
        (grant, Quota::new(one, 0).unwrap(), Quota::new(two, SLOTS - 1).unwrap())
    }

    #[test]
    fn two_workers_share_one_grant_to_the_last_byte() {
        let (grant, mut one, mut two) = two(100);
        assert_eq!(one.charge(60), Ok(()));
        assert_eq!(two.charge(41), Err(CuError::OUT_OF_MEMORY));
        assert_eq!(two.charge(40), Ok(()));
        assert_eq!((one.free_bytes(), grant.used_bytes(0), grant.used_bytes(SLOTS - 1)), (0, 60, 40));
        one.release(60);
        assert_eq!(two.charge(60), Ok(()));
    }

    #[test]
    fn the_dead_use_nothing_and_a_limit_may_change() {
        let (grant, mut one, mut two) = two(100);
        one.charge(100).unwrap();
        grant.clear(0);
        two.charge(100).unwrap();
        grant.set_limit(50);
        assert_eq!((two.free_bytes(), two.charge(1)), (0, Err(CuError::OUT_OF_MEMORY)));
        assert_eq!(two.charge(u64::MAX), Err(CuError::OUT_OF_MEMORY));
    }

    #[test]
    fn a_worker_that_writes_the_page_as_it_likes_says_no_more_than_its_grant() {
        let (grant, one, _) = two(100);
        one.page.store(LIMIT, u64::MAX);
        one.page.store(FIRST_SLOT, u64::MAX);
        assert_eq!(grant.used_bytes(0), 100);
    }
}
