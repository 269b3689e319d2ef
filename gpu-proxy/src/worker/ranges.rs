//! The allocation map: which device addresses are this process's. With unified addressing a driver takes a host address of the
//! worker as well as a device's, so nothing goes to it that is not inside one range here.

use std::collections::BTreeMap;

use vgpu_api::{ContextId, CuError, CuResult, DevicePtr};

/// What a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `cuMemAlloc` in this context: may be freed.
    Alloc(ContextId),
    /// A variable of an image: goes with it.
    Global,
    /// Pages of the arena: the guest's host memory, for every context.
    Arena,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    bytes: u64,
    charged_bytes: u64,
    origin: Origin,
}

/// A range that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Where it began.
    pub address: u64,
    /// What was counted for it.
    pub charged_bytes: u64,
}

/// Ranges by address. They do not overlap: each is memory that the device gave out.
#[derive(Debug, Default)]
pub struct Ranges {
    by_address: BTreeMap<u64, Range>,
}

impl Ranges {
    /// Adds memory that the device gave out and for which the quota counted `charged_bytes`.
    pub fn insert(&mut self, address: u64, bytes: u64, charged_bytes: u64, origin: Origin) {
        self.by_address.insert(address, Range { bytes, charged_bytes, origin });
    }

    /// Checks that `bytes` bytes from `at` lie inside one range. Zero bytes are always inside.
    ///
    /// # Errors
    /// 1, `CUDA_ERROR_INVALID_VALUE`.
    pub fn check(&self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        if bytes == 0 {
            return Ok(());
        }
        let inside = self.by_address.range(..=at.0).next_back().is_some_and(|(start, range)| {
            let offset = at.0 - start;
            offset < range.bytes && bytes <= range.bytes - offset
        });
        if inside { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    /// The context of the allocation that starts at `at`, which may be freed.
    ///
    /// # Errors
    /// 1 if none starts there, or it is a variable of an image.
    pub fn owner(&self, at: DevicePtr) -> CuResult<ContextId> {
        match self.by_address.get(&at.0) {
            Some(Range { origin: Origin::Alloc(context), .. }) => Ok(*context),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    /// Whether no byte of `bytes` from `at` on belongs to a range.
    pub fn is_apart(&self, at: DevicePtr, bytes: u64) -> bool {
        let end = at.0.saturating_add(bytes);
        let before = self.by_address.range(..end).next_back();
        before.is_none_or(|(start, range)| start.saturating_add(range.bytes) <= at.0)
    }

    /// Whether a part of the arena starts at `at`.
    pub fn is_arena(&self, at: DevicePtr) -> bool {
        self.by_address.get(&at.0).is_some_and(|range| range.origin == Origin::Arena)
    }

    /// Takes the range that starts at `address` out of the map; what was counted for it.
    pub fn remove(&mut self, address: u64) -> Option<u64> {
        self.by_address.remove(&address).map(|range| range.charged_bytes)
    }

    /// Takes out all allocations of a context.
    pub fn remove_context(&mut self, context: ContextId) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.by_address.retain(|&address, range| {
            let goes = range.origin == Origin::Alloc(context);
            if goes {
                ended.push(Ended { address, charged_bytes: range.charged_bytes });
            }
            !goes
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: ContextId = ContextId(1);

    #[test]
    fn only_what_lies_inside_one_range_passes() {
        let mut ranges = Ranges::default();
        ranges.insert(0x1000, 0x100, 0x200, Origin::Alloc(C));
        ranges.insert(0x1100, 0x100, 0x200, Origin::Global);
        for (at, bytes, ok) in [
            (0x1000, 0x100, true),
            (0x10ff, 1, true),
            (0x10ff, 2, false),
            (0xfff, 1, false),
            (0x1100, 0x100, true),
            (0x1200, 1, false),
            (0x1001, u64::MAX, false),
            (u64::MAX, 1, false),
            (0, 0, true),
        ] {
            assert_eq!(ranges.check(DevicePtr(at), bytes).is_ok(), ok, "{bytes} at {at:#x}");
        }
    }

    #[test]
    fn a_part_of_the_arena_is_apart_from_all_else_belongs_to_no_context_and_is_not_freed() {
        let mut ranges = Ranges::default();
        ranges.insert(0x1000, 0x1000, 0, Origin::Arena);
        ranges.insert(0x4000, 0x1000, 0x1000, Origin::Alloc(C));
        for (at, bytes, apart) in [
            (0x2000, 0x2000, true),
            (0, 0x1000, true),
            (0x5000, u64::MAX, true),
            (0x2000, 0x2001, false),
            (0, 0x1001, false),
            (0x1800, 1, false),
            (0, u64::MAX, false),
        ] {
            assert_eq!(ranges.is_apart(DevicePtr(at), bytes), apart, "{bytes:#x} at {at:#x}");
        }
        assert!(ranges.is_arena(DevicePtr(0x1000)));
        assert!(!ranges.is_arena(DevicePtr(0x1001)) && !ranges.is_arena(DevicePtr(0x4000)));
        assert_eq!(ranges.owner(DevicePtr(0x1000)), Err(CuError::INVALID_VALUE));
        assert_eq!(ranges.remove_context(C).len(), 1);
        assert!(ranges.check(DevicePtr(0x1000), 0x1000).is_ok());
    }

    #[test]
    fn only_the_start_of_an_allocation_is_freed_and_a_context_takes_its_own_along() {
        let mut ranges = Ranges::default();
        ranges.insert(0x1000, 0x100, 0x200, Origin::Alloc(C));
        ranges.insert(0x2000, 0x100, 0x200, Origin::Global);
        assert_eq!(ranges.owner(DevicePtr(0x1001)), Err(CuError::INVALID_VALUE));
        assert_eq!(ranges.owner(DevicePtr(0x2000)), Err(CuError::INVALID_VALUE));
        assert_eq!(ranges.owner(DevicePtr(0x1000)), Ok(C));
        assert_eq!(ranges.remove_context(C), [Ended { address: 0x1000, charged_bytes: 0x200 }]);
        assert!(ranges.check(DevicePtr(0x1000), 1).is_err());
        assert!(ranges.check(DevicePtr(0x2000), 1).is_ok());
    }
}
