//! Device addresses, staging ranges, memory figures.

use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_range_must_lie_inside() {
        assert_eq!(Staged { offset: 8, len: 8 }.range(16), Some(8..16));
        assert_eq!(Staged { offset: 9, len: 8 }.range(16), None);
        assert_eq!(Staged { offset: u64::MAX, len: 2 }.range(16), None);
    }
}
