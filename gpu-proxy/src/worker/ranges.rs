//! The allocation map: which addresses a device reaches for this process. With unified addressing a driver takes a host address of the
//! worker as well as a device's, so nothing goes to it that is not inside one range here.
//!
//! Mapped memory (`cuMemMap`) stands here as far as the device may touch it. Neighbours of one kind are one range, and an access
//! may span several in a row: a program maps pieces and uses them as one.

use std::collections::BTreeMap;

use vgpu_api::{ContextId, CuError, CuResult, DevicePtr};

/// What a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `cuMemAlloc` in this context: may be freed.
    Alloc(ContextId),
    /// A variable of an image on this device: goes with it.
    Global(u32),
    /// Pages of the arena: the guest's host memory, for every context.
    Arena,
    /// Another process's, mapped for a context: it is closed, not freed.
    Opened,
    /// Given out by the pool of this number: may be freed.
    Pooled(u64),
    /// Mapped memory that the device may touch.
    Mapped {
        /// Else it may only be read.
        writable: bool,
    },
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

    /// Checks that `bytes` bytes from `at` can be read: they lie inside one range, or mapped ones in a row. Zero bytes are always
    /// inside.
    ///
    /// # Errors
    /// 1, `CUDA_ERROR_INVALID_VALUE`.
    pub fn check(&self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        self.check_all(at, bytes, |_| true)
    }

    /// As [`Ranges::check`], and that they can be written.
    ///
    /// # Errors
    /// 1.
    pub fn check_write(&self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        self.check_all(at, bytes, |origin| origin != Origin::Mapped { writable: false })
    }

    fn check_all(&self, at: DevicePtr, bytes: u64, allowed: impl Fn(Origin) -> bool) -> CuResult<()> {
        let (mut at, mut left) = (at.0, bytes);
        while left > 0 {
            let (start, range) = self.by_address.range(..=at).next_back().ok_or(CuError::INVALID_VALUE)?;
            let here = range.bytes.saturating_sub(at - start);
            let goes_on = matches!(range.origin, Origin::Mapped { .. });
            // A range that follows is asked for only behind a mapped one, and has to be one itself.
            let follows = left == bytes || goes_on;
            if here == 0 || !follows || !allowed(range.origin) || (here < left && !goes_on) {
                return Err(CuError::INVALID_VALUE);
            }
            left = left.saturating_sub(here);
            at = at.saturating_add(here);
        }
        Ok(())
    }

    /// What starts at `at`.
    ///
    /// # Errors
    /// 1 if nothing does that may be freed.
    pub fn freeable(&self, at: DevicePtr) -> CuResult<Origin> {
        match self.by_address.get(&at.0).map(|range| range.origin) {
            Some(origin @ (Origin::Alloc(_) | Origin::Pooled(_))) => Ok(origin),
            _ => Err(CuError::INVALID_VALUE),
        }
    }

    /// What holds the byte at `at`.
    pub fn origin(&self, at: DevicePtr) -> Option<Origin> {
        let (start, range) = self.by_address.range(..=at.0).next_back()?;
        (at.0 - start < range.bytes).then_some(range.origin)
    }

    /// How long what starts at `at` is; 0 if nothing does.
    pub fn length(&self, at: DevicePtr) -> u64 {
        self.by_address.get(&at.0).map_or(0, |range| range.bytes)
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

    /// Lets mapped memory be touched. Only mapped memory lies there: the caller knows its reservations.
    pub fn open(&mut self, start: u64, bytes: u64, writable: bool) {
        self.shut(start, bytes);
        let origin = Origin::Mapped { writable };
        let (mut first, mut end) = (start, start.saturating_add(bytes));
        let before = self.by_address.range(..start).next_back();
        if let Some((&address, range)) = before
            && range.origin == origin
            && address + range.bytes == start
        {
            first = address;
        }
        if let Some(range) = self.by_address.get(&end)
            && range.origin == origin
        {
            let bytes = range.bytes;
            self.by_address.remove(&end);
            end = end.saturating_add(bytes);
        }
        self.insert(first, end - first, 0, origin);
    }

    /// Keeps mapped memory from being touched.
    pub fn shut(&mut self, start: u64, bytes: u64) {
        let end = start.saturating_add(bytes);
        while let Some((&address, &range)) = self.by_address.range(..end).next_back() {
            let range_end = address.saturating_add(range.bytes);
            if range_end <= start || !matches!(range.origin, Origin::Mapped { .. }) {
                return;
            }
            self.by_address.remove(&address);
            if address < start {
                self.insert(address, start - address, 0, range.origin);
            }
            if range_end > end {
                self.insert(end, range_end - end, 0, range.origin);
            }
        }
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
        ranges.insert(0x1100, 0x100, 0x200, Origin::Global(0));
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
            assert_eq!(ranges.check_write(DevicePtr(at), bytes).is_ok(), ok, "{bytes} at {at:#x}");
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
        assert_eq!(ranges.freeable(DevicePtr(0x1000)), Err(CuError::INVALID_VALUE));
        assert_eq!(ranges.remove_context(C).len(), 1);
        assert!(ranges.check_write(DevicePtr(0x1000), 0x1000).is_ok());
        // Parts are no row: a driver takes no copy across two of them.
        ranges.insert(0x2000, 0x1000, 0, Origin::Arena);
        ranges.open(0x3000, 0x1000, true);
        assert!(ranges.check(DevicePtr(0x1800), 0x1000).is_err());
        assert!(ranges.check(DevicePtr(0x2800), 0x1000).is_err());
    }

    #[test]
    fn only_the_start_of_an_allocation_is_freed_and_a_context_takes_its_own_along() {
        let mut ranges = Ranges::default();
        ranges.insert(0x1000, 0x100, 0x200, Origin::Alloc(C));
        ranges.insert(0x2000, 0x100, 0x200, Origin::Global(0));
        ranges.insert(0x3000, 0x100, 0, Origin::Pooled(4));
        ranges.open(0x4000, 0x100, true);
        let freeable = |at| ranges.freeable(DevicePtr(at));
        assert_eq!(freeable(0x1001), Err(CuError::INVALID_VALUE));
        assert_eq!(freeable(0x2000), Err(CuError::INVALID_VALUE));
        assert_eq!(freeable(0x4000), Err(CuError::INVALID_VALUE));
        assert_eq!((freeable(0x1000), freeable(0x3000)), (Ok(Origin::Alloc(C)), Ok(Origin::Pooled(4))));
        assert_eq!(ranges.remove_context(C), [Ended { address: 0x1000, charged_bytes: 0x200 }]);
        assert!(ranges.check(DevicePtr(0x1000), 1).is_err());
        assert!(ranges.check(DevicePtr(0x2000), 1).is_ok());
        assert!(ranges.check(DevicePtr(0x3000), 0x100).is_ok());
    }

    /// Every way to open and shut pieces, against a list of bytes.
    #[test]
    fn mapped_pieces_in_a_row_are_one_and_a_hole_is_refused() {
        const COUNT: usize = 8;
        const PIECES: u64 = COUNT as u64;
        let (mut ranges, mut pieces) = (Ranges::default(), [None; COUNT]);
        ranges.insert(1 << 20, 0x1000, 0, Origin::Alloc(C));
        let base = (1 << 20) + 0x1000;
        let mut random = 1_u64;
        for _ in 0..3000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (first, what) = ((random >> 33) % PIECES, (random >> 40) % 3);
            let count = 1 + (random >> 50) % (PIECES - first);
            let (start, bytes) = (base + first * 0x100, count * 0x100);
            let state = match what {
                0 => None,
                writable => Some(writable == 2),
            };
            match state {
                None => ranges.shut(start, bytes),
                Some(writable) => ranges.open(start, bytes, writable),
            }
            for place in first..first + count {
                pieces[usize::try_from(place).unwrap()] = state;
            }
            for from in 0..PIECES {
                for to in from + 1..=PIECES {
                    let (at, bytes) = (DevicePtr(base + from * 0x100 + 1), (to - from) * 0x100 - 2);
                    let those = &pieces[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
                    assert_eq!(ranges.check(at, bytes).is_ok(), those.iter().all(Option::is_some));
                    let writable = those.iter().all(|piece| *piece == Some(true));
                    assert_eq!(ranges.check_write(at, bytes).is_ok(), writable);
                }
            }
            // The allocation before them is not part of the row, nor is what lies behind.
            assert!(ranges.check(DevicePtr(base - 1), 2).is_err());
            assert!(ranges.check(DevicePtr(base + PIECES * 0x100 - 1), 2).is_err());
        }
        assert!(ranges.by_address.len() <= 1 + pieces.len());
    }
}
