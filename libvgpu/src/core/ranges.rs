//! Ranges of addresses that this process owns: device memory, pinned host memory. Answers pointer queries in the guest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vgpu_api::ContextId;

/// Device memory that is a variable of an image: nobody frees it.
pub const GLOBAL: u32 = 1;
/// Device memory that is mapped: it is unmapped, not freed.
pub const MAPPED: u32 = 2;
/// Device memory of a pool.
pub const POOLED: u32 = 4;
/// Device memory that a launch of a graph allocated.
pub const GRAPH: u32 = 8;
/// Device memory of another process that was opened: it is closed, not freed.
pub const OPENED: u32 = 16;

/// Where device memory comes from that belongs to no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The ordinal of its device.
    pub device: u32,
    /// Its memory's handle or its pool's.
    pub handle: u64,
}

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
    /// The flags it was made with (host memory), [`GLOBAL`], [`MAPPED`], [`POOLED`], [`GRAPH`], [`OPENED`] (device memory).
    pub flags: u32,
    /// Of mapped memory, a pool's and a graph's.
    pub home: Option<Home>,
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
        self.write().insert(start, Range { start, bytes, context, id: next_id(), flags, home: None });
    }

    /// Adds device memory that belongs to no context.
    pub fn insert_home(&self, start: u64, bytes: u64, flags: u32, home: Home) {
        let context = ContextId::NONE;
        self.write().insert(start, Range { start, bytes, context, id: next_id(), flags, home: Some(home) });
    }

    /// Takes out the allocation that starts at `start`, if it is one that `wanted` says.
    pub fn remove(&self, start: u64, wanted: impl Fn(&Range) -> bool) -> Option<Range> {
        let mut ranges = self.write();
        ranges.get(&start).filter(|range| wanted(range))?;
        ranges.remove(&start)
    }

    /// Whether there is an allocation of this [`Range::id`].
    pub fn has(&self, id: u64) -> bool {
        self.read().values().any(|range| range.id == id)
    }

    /// The allocation that holds the byte at `address`.
    pub fn find(&self, address: u64) -> Option<Range> {
        let ranges = self.read();
        let (_, range) = ranges.range(..=address).next_back()?;
        (address - range.start < range.bytes.max(1)).then_some(*range)
    }

    /// Whether `bytes` bytes from `address` lie in one allocation, or in mapped pieces in a row. `None`: `address` is in nothing.
    pub fn covers(&self, address: u64, bytes: u64) -> Option<bool> {
        let ranges = self.read();
        let (mut at, mut left) = (address, bytes);
        loop {
            let found = ranges.range(..=at).next_back().map(|(_, range)| *range);
            let found = found.filter(|range| at - range.start < range.bytes.max(1));
            let first = at == address;
            let Some(range) = found.filter(|range| first || range.flags == MAPPED) else {
                return if first { None } else { Some(false) };
            };
            let here = range.bytes - (at - range.start);
            if left <= here {
                return Some(true);
            }
            if range.flags != MAPPED || here == 0 {
                return Some(false);
            }
            (at, left) = (at + here, left - here);
        }
    }

    /// Adds a range if no byte of it belongs to an allocation; whether it did.
    pub fn insert_apart(&self, start: u64, bytes: u64, context: ContextId, flags: u32) -> bool {
        let mut ranges = self.write();
        let before = ranges.range(..start.saturating_add(bytes)).next_back();
        if before.is_some_and(|(_, range)| range.start.saturating_add(range.bytes) > start) {
            return false;
        }
        ranges.insert(start, Range { start, bytes, context, id: next_id(), flags, home: None });
        true
    }

    /// Takes out the allocations of a context that ended.
    pub fn forget(&self, context: ContextId) -> Vec<Range> {
        let mut forgotten = Vec::new();
        self.write().retain(|_, range| {
            let goes = range.context == context && range.home.is_none();
            if goes {
                forgotten.push(*range);
            }
            !goes
        });
        forgotten
    }

    /// Takes out what the pools of a device gave.
    pub fn forget_pooled(&self, device: u32) {
        let of =
            |range: &Range| range.flags == POOLED && range.home.is_some_and(|home| home.device == device);
        self.write().retain(|_, range| !of(range));
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

    #[test]
    fn mapped_pieces_in_a_row_are_used_as_one_and_only_a_pools_memory_goes_with_its_device() {
        let ranges = Ranges::new();
        let home = Home { device: 1, handle: 7 };
        for start in [100, 110, 130] {
            ranges.insert_home(start, 10, MAPPED, home);
        }
        ranges.insert(120, 10, ContextId(1), 0);
        ranges.insert_home(200, 10, POOLED, home);
        for (address, bytes, covered) in [
            (100, 20, Some(true)),
            (119, 1, Some(true)),
            (105, 16, Some(false)),
            (120, 11, Some(false)),
            (139, 2, Some(false)),
            (140, 1, None),
            (200, 11, Some(false)),
            (100, u64::MAX, Some(false)),
        ] {
            assert_eq!(ranges.covers(address, bytes), covered, "{bytes} at {address}");
        }
        ranges.forget(ContextId::NONE);
        ranges.forget_pooled(0);
        assert_eq!(ranges.find(200).and_then(|range| range.home), Some(home));
        ranges.forget_pooled(1);
        assert_eq!((ranges.find(200), ranges.find(100).is_some()), (None, true));
    }
}
