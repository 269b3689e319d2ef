//! Device addresses, staging ranges, memory figures.

use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};
use crate::{CuError, CuResult};

/// A device address: the worker's own virtual address, the one value of the driver that programs see, since kernels embed it.
/// The worker checks it against its allocation map in every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// The address `bytes` further, `None` past the end of the address space.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }
}

impl Wire<'_> for DevicePtr {
    #[inline]
    fn size(&self) -> usize {
        8
    }
    #[inline]
    fn put(&self, writer: &mut Writer<'_>) {
        self.0.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        u64::take(reader).map(Self)
    }
}

wire_struct! {
    /// A part of the channel's staging area: bulk bytes travel there. An offset, never a pointer; the worker compares it with
    /// the size that it mapped itself. The guest leaves the range alone until the call's reply.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Staged {
        /// Bytes from the start of the staging area.
        pub offset: u64,
        /// Length in bytes.
        pub len: u64,
    }
}

impl Staged {
    /// The range in a staging area of `size` bytes, if it lies inside.
    #[must_use]
    pub fn range(self, size: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        let end = start.checked_add(usize::try_from(self.len).ok()?)?;
        (end <= size).then_some(start..end)
    }
}

wire_struct! {
    /// A word of the arena in which the guest sees that a copy is done.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CopyWord {
        /// Where it is: a multiple of 8.
        pub at: DevicePtr,
        /// What is written to its low half. The high half is 0, or the code of the error for which there was no copy.
        pub count: u32,
    }
}

wire_struct! {
    /// `cuMemGetInfo`: what the zone may still take and its grant.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MemInfo {
        /// Bytes.
        pub free: u64,
        /// Bytes.
        pub total: u64,
    }
}

wire_struct! {
    /// All the `cuMemset*`: rows of equal elements.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Memset {
        /// Where the first row starts.
        pub dst: DevicePtr,
        /// Bytes from one row to the next; not looked at when there is one row.
        pub pitch: u64,
        /// 1, 2 or 4.
        pub element_bytes: u32,
        /// The element, in its low bytes.
        pub value: u32,
        /// Elements of a row.
        pub width: u64,
        /// Number of rows.
        pub rows: u64,
    }
}

impl Memset {
    /// Bytes from its first to its last; 0 for a set of nothing.
    /// # Errors
    /// 1 for elements that are not aligned or of no size that there is, rows that overlap, and what no memory can hold.
    pub fn span(&self) -> CuResult<u64> {
        let Self { dst, pitch, element_bytes, width, rows, .. } = *self;
        let element = u64::from(element_bytes);
        let bytes = || {
            let row = width.checked_mul(element)?;
            let apart = if rows > 1 { pitch.checked_mul(rows - 1)? } else { 0 };
            let rows_fit = rows <= 1 || (row <= pitch && pitch.is_multiple_of(element));
            let aligned = matches!(element, 1 | 2 | 4) && dst.0.is_multiple_of(element);
            (aligned && rows_fit).then_some(row)?.checked_add(apart)
        };
        if rows == 0 || width == 0 { Ok(0) } else { bytes().ok_or(CuError::INVALID_VALUE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sets_span_is_from_its_first_byte_to_its_last() {
        let set = Memset { dst: DevicePtr(64), pitch: 32, element_bytes: 4, value: 1, width: 3, rows: 2 };
        assert_eq!(set.span(), Ok(44));
        assert_eq!(Memset { rows: 1, pitch: 0, ..set }.span(), Ok(12), "one row has no pitch");
        assert_eq!(Memset { width: 0, dst: DevicePtr(1), ..set }.span(), Ok(0));
        let wrong = [
            Memset { dst: DevicePtr(66), ..set },
            Memset { pitch: 8, ..set },
            Memset { pitch: 30, ..set },
            Memset { element_bytes: 3, ..set },
            Memset { width: u64::MAX, ..set },
            Memset { rows: u64::MAX, ..set },
        ];
        assert_eq!(wrong.map(|set| set.span()), [Err(CuError::INVALID_VALUE); 6]);
    }

    #[test]
    fn a_staged_range_must_lie_inside() {
        assert_eq!(Staged { offset: 8, len: 8 }.range(16), Some(8..16));
        assert_eq!(Staged { offset: 9, len: 8 }.range(16), None);
        assert_eq!(Staged { offset: u64::MAX, len: 2 }.range(16), None);
    }
}
