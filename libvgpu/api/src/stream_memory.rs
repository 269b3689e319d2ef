//! Reads and writes of device memory in the order of a stream: `cuStreamWaitValue*`, `cuStreamWriteValue*`, `cuStreamBatchMemOp`.

use crate::memory::DevicePtr;
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// Operations of one call at most. Source: cuda.h, `cuStreamBatchMemOp`.
pub const OPS_MAX: usize = 255;

/// What an operation does with the word at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryOpKind {
    /// Writes it.
    Write = 0,
    /// Waits until it is the value or after it, in a circle.
    WaitGreaterOrEqual = 1,
    /// Waits until it is the value.
    WaitEqual = 2,
    /// Waits until it has a bit of the value.
    WaitAnd = 3,
    /// Waits until it and the value both lack a bit.
    WaitNor = 4,
    /// Nothing may be seen of what comes after before what comes before. Its address and value mean nothing.
    Barrier = 5,
}

impl MemoryOpKind {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str =
        "MemoryOpKind{Write,WaitGreaterOrEqual,WaitEqual,WaitAnd,WaitNor,Barrier}";

    /// The wait of `CUstreamWaitValue_flags`.
    #[must_use]
    pub const fn wait_of_flags(flags: u32) -> Option<Self> {
        match flags {
            0 => Some(Self::WaitGreaterOrEqual),
            1 => Some(Self::WaitEqual),
            2 => Some(Self::WaitAnd),
            3 => Some(Self::WaitNor),
            _ => None,
        }
    }
}

impl Wire<'_> for MemoryOpKind {
    fn size(&self) -> usize {
        4
    }
    fn put(&self, writer: &mut Writer<'_>) {
        (*self as u32).put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match u32::take(reader)? {
            0 => Self::Write,
            1 => Self::WaitGreaterOrEqual,
            2 => Self::WaitEqual,
            3 => Self::WaitAnd,
            4 => Self::WaitNor,
            5 => Self::Barrier,
            _ => return Err(WireError::BadValue("memory operation")),
        })
    }
}

wire_struct! {
    /// One operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MemoryOp {
        /// What it does.
        pub kind: MemoryOpKind,
        /// The word: aligned to its size.
        pub at: DevicePtr,
        /// 4 or 8. Of a barrier: 0 for the system, 1 for the device alone.
        pub bytes: u32,
        /// In its low bytes.
        pub value: u64,
    }
}

impl MemoryOp {
    /// Whether a wait is over when the word is `word`. What waits for nothing is.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "words of 4 bytes are meant")]
    pub fn is_met(&self, word: u64) -> bool {
        let narrow = self.bytes == 4;
        let mask = if narrow { u64::from(u32::MAX) } else { u64::MAX };
        let (word, value) = (word & mask, self.value & mask);
        match self.kind {
            MemoryOpKind::Write | MemoryOpKind::Barrier => true,
            MemoryOpKind::WaitGreaterOrEqual if narrow => {
                (word as u32).wrapping_sub(value as u32).cast_signed() >= 0
            }
            MemoryOpKind::WaitGreaterOrEqual => word.wrapping_sub(value).cast_signed() >= 0,
            MemoryOpKind::WaitEqual => word == value,
            MemoryOpKind::WaitAnd => word & value != 0,
            MemoryOpKind::WaitNor => !(word | value) & mask != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_slice, to_vec};

    fn op(kind: MemoryOpKind, bytes: u32, value: u64) -> MemoryOp {
        MemoryOp { kind, at: DevicePtr(64), bytes, value }
    }

    #[test]
    fn operations_come_back_whole() {
        let ops = vec![op(MemoryOpKind::Write, 8, u64::MAX), op(MemoryOpKind::Barrier, 1, 0)];
        assert_eq!(from_slice(&to_vec(&ops)), Ok(ops));
        assert!(from_slice::<MemoryOpKind>(&to_vec(&6_u32)).is_err());
    }

    #[test]
    fn waits_end_as_documented() {
        use MemoryOpKind::{WaitAnd, WaitEqual, WaitGreaterOrEqual, WaitNor, Write};
        for (kind, bytes, value, word, met) in [
            (WaitGreaterOrEqual, 4, 5, 5, true),
            (WaitGreaterOrEqual, 4, 5, 4, false),
            (WaitGreaterOrEqual, 4, 0xffff_ffff, 3, true),
            (WaitGreaterOrEqual, 8, 0xffff_ffff, 3, false),
            (WaitGreaterOrEqual, 8, u64::MAX, 3, true),
            (WaitEqual, 4, 7, 7, true),
            (WaitEqual, 8, 7, 0x1_0000_0007, false),
            (WaitAnd, 4, 6, 2, true),
            (WaitAnd, 4, 6, 1, false),
            (WaitNor, 4, 0xffff_0000, 0x0000_ffff, false),
            (WaitNor, 4, 0xffff_0000, 0x0000_fffe, true),
            (WaitNor, 8, u64::MAX, 0, false),
            (Write, 4, 0, 1, true),
        ] {
            assert_eq!(op(kind, bytes, value).is_met(word), met, "{kind:?} {value:#x} by {word:#x}");
        }
    }
}
