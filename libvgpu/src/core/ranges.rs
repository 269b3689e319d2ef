//! Ranges of addresses that this process owns: device memory, pinned host memory. Answers pointer queries in the guest.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vgpu_api::ContextId;

/// One allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Address of the first byte.
    pub start: u64,
    /// Length.
    pub bytes: u64,
    /// Whose it is.
    pub context: ContextId,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`: no two allocations of a process have the same.
    pub id: u64,
    /// The flags it was made with (host memory).
    pub flags: u32,
}

/// A set of disjoint ranges.
#[derive(Debug, Default)]
pub struct Ranges {
    by_start: RwLock<BTreeMap<u64, Range>>,
}

impl Ranges {
    pub const fn new() -> Self {
        Self { by_start: RwLock::new(BTreeMap::new()) }
    }

    /// Adds an allocation.
    pub fn insert(&self, start: u64, bytes: u64, context: ContextId, flags: u32) {
        static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.write().insert(start, Range { start, bytes, context, id, flags });
    }

    /// Takes out the allocation that starts at `start`.
    pub fn remove(&self, start: u64) -> Option<Range> {
        self.write().remove(&start)
    }

    /// The allocation that holds the byte at `address`.
    pub fn find(&self, address: u64) -> Option<Range> {
        let ranges = self.read();
        let (_, range) = ranges.range(..=address).next_back()?;
        (address - range.start < range.bytes.max(1)).then_some(*range)
    }

    /// Whether any byte of the range belongs to an allocation.
    pub fn overlaps(&self, start: u64, bytes: u64) -> bool {
        let ranges = self.read();
        let before = ranges.range(..start.saturating_add(bytes)).next_back();
        before.is_some_and(|(_, range)| range.start.saturating_add(range.bytes) > start)
    }

    /// Forgets the allocations of a context that ended.
    pub fn forget(&self, context: ContextId) {
        self.write().retain(|_, range| range.context != context);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Range>> {
        self.by_start.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Range>> {
        self.by_start.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_range_that_holds_it() {
        let ranges = Ranges::new();
        ranges.insert(100, 10, ContextId(1), 0);
        ranges.insert(200, 10, ContextId(2), 0);
        assert_eq!(ranges.find(99), None);
        assert_eq!(ranges.find(109).map(|range| range.start), Some(100));
        assert_eq!(ranges.find(110), None);
        assert!(ranges.overlaps(105, 1) && ranges.overlaps(90, 11) && ranges.overlaps(0, 300));
        assert!(!ranges.overlaps(110, 90));
        ranges.forget(ContextId(1));
        assert_eq!(
            (ranges.find(100), ranges.find(205).map(|range| range.context)),
            (None, Some(ContextId(2)))
        );
    }
}
