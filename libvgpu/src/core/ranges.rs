//! Ranges of addresses that this process owns: device memory, pinned host memory. Answers pointer queries in the guest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vgpu_api::ContextId;

/// Device memory that is a variable of an image: nobody frees it.
pub const GLOBAL: u32 = 1;

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
    /// The flags it was made with (host memory), [`GLOBAL`] (device memory).
    pub flags: u32,
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
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
        self.write().insert(start, Range { start, bytes, context, id: next_id(), flags });
    }

    /// Takes out the allocation that starts at `start`, if it is one that `wanted` says.
    pub fn remove(&self, start: u64, wanted: impl Fn(&Range) -> bool) -> Option<Range> {
        let mut ranges = self.write();
        ranges.get(&start).filter(|range| wanted(range))?;
        ranges.remove(&start)
    }

    /// The allocation that holds the byte at `address`.
    pub fn find(&self, address: u64) -> Option<Range> {
        let ranges = self.read();
        let (_, range) = ranges.range(..=address).next_back()?;
        (address - range.start < range.bytes.max(1)).then_some(*range)
    }

    /// Adds a range if no byte of it belongs to an allocation; whether it did.
    pub fn insert_apart(&self, start: u64, bytes: u64, context: ContextId, flags: u32) -> bool {
        let mut ranges = self.write();
        let before = ranges.range(..start.saturating_add(bytes)).next_back();
        if before.is_some_and(|(_, range)| range.start.saturating_add(range.bytes) > start) {
            return false;
        }
        ranges.insert(start, Range { start, bytes, context, id: next_id(), flags });
        true
    }

    /// Takes out the allocations of a context that ended.
    pub fn forget(&self, context: ContextId) -> Vec<Range> {
        let mut forgotten = Vec::new();
        self.write().retain(|_, range| {
            if range.context == context {
                forgotten.push(*range);
            }
            range.context != context
        });
        forgotten
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
        let apart = |start, bytes| ranges.insert_apart(start, bytes, ContextId(1), 0);
        assert!(!apart(105, 1) && !apart(90, 11) && !apart(0, 300));
        assert!(apart(110, 90), "it fits between them");
        assert_eq!(ranges.remove(200, |range| range.flags == GLOBAL), None);
        assert_eq!(ranges.forget(ContextId(1)).len(), 2);
        assert_eq!(
            (ranges.find(100), ranges.find(205).map(|range| range.context)),
            (None, Some(ContextId(2)))
        );
    }
}
