//! Copies of a graph with an array on one side or both. What is on which side never changes of a node, so it is part of its kind.

use crate::array::{ArrayPlace, BoxSide, Extent, LinearPlace};
use crate::graph::HostSide;
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

wire_struct! {
    /// An array and device memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ArrayAndMemory {
        /// Where in the array.
        pub array: ArrayPlace,
        /// Where the rows lie.
        pub memory: LinearPlace,
        /// How much.
        pub size: Extent,
    }
}

wire_struct! {
    /// Two arrays, which may be the same.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TwoArrays {
        /// Where the box goes.
        pub to: ArrayPlace,
        /// Where it comes from.
        pub from: ArrayPlace,
        /// How much.
        pub size: Extent,
    }
}

wire_struct! {
    /// An array and the program's own memory, whose bytes travel apart, packed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ArrayAndHost {
        /// Where in the array.
        pub array: ArrayPlace,
        /// How much.
        pub size: Extent,
    }
}

/// A copy with an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayCopy {
    /// Memory to array.
    FromMemory(ArrayAndMemory),
    /// Array to memory.
    ToMemory(ArrayAndMemory),
    /// Array to array.
    Between(TwoArrays),
    /// Host to array.
    FromHost(ArrayAndHost),
    /// Array to host.
    ToHost(ArrayAndHost),
}

impl ArrayCopy {
    /// Of its first kind; the others follow.
    pub(super) const FIRST: u8 = 10;

    /// A copy with these sides, of which the program's own memory is `None`. `None` for one without an array.
    #[must_use]
    pub const fn of(to: Option<BoxSide>, from: Option<BoxSide>, size: Extent) -> Option<Self> {
        use BoxSide::{Array, Linear};
        Some(match (to, from) {
            (Some(Array(array)), Some(Linear(memory))) => {
                Self::FromMemory(ArrayAndMemory { array, memory, size })
            }
            (Some(Linear(memory)), Some(Array(array))) => {
                Self::ToMemory(ArrayAndMemory { array, memory, size })
            }
            (Some(Array(to)), Some(Array(from))) => Self::Between(TwoArrays { to, from, size }),
            (Some(Array(array)), None) => Self::FromHost(ArrayAndHost { array, size }),
            (None, Some(Array(array))) => Self::ToHost(ArrayAndHost { array, size }),
            _ => return None,
        })
    }

    /// Where it goes and where it comes from; `None` for the program's own memory.
    #[must_use]
    pub const fn sides(&self) -> (Option<BoxSide>, Option<BoxSide>) {
        use BoxSide::{Array, Linear};
        match self {
            Self::FromMemory(copy) => (Some(Array(copy.array)), Some(Linear(copy.memory))),
            Self::ToMemory(copy) => (Some(Linear(copy.memory)), Some(Array(copy.array))),
            Self::Between(copy) => (Some(Array(copy.to)), Some(Array(copy.from))),
            Self::FromHost(copy) => (Some(Array(copy.array)), None),
            Self::ToHost(copy) => (None, Some(Array(copy.array))),
        }
    }

    /// How much is copied.
    #[must_use]
    pub const fn extent(&self) -> Extent {
        match self {
            Self::FromMemory(copy) | Self::ToMemory(copy) => copy.size,
            Self::Between(copy) => copy.size,
            Self::FromHost(copy) | Self::ToHost(copy) => copy.size,
        }
    }

    /// Which side is the program's own memory.
    #[must_use]
    pub const fn host_side(&self) -> HostSide {
        match self {
            Self::FromHost(_) => HostSide::From,
            Self::ToHost(_) => HostSide::To,
            _ => HostSide::Neither,
        }
    }

    pub(super) const fn number(&self) -> u8 {
        Self::FIRST
            + match self {
                Self::FromMemory(_) => 0,
                Self::ToMemory(_) => 1,
                Self::Between(_) => 2,
                Self::FromHost(_) => 3,
                Self::ToHost(_) => 4,
            }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::FromMemory(copy) | Self::ToMemory(copy) => copy.size(),
            Self::Between(copy) => copy.size(),
            Self::FromHost(copy) | Self::ToHost(copy) => copy.size(),
        }
    }

    pub(super) fn put(&self, writer: &mut Writer<'_>) {
        match self {
            Self::FromMemory(copy) | Self::ToMemory(copy) => copy.put(writer),
            Self::Between(copy) => copy.put(writer),
            Self::FromHost(copy) | Self::ToHost(copy) => copy.put(writer),
        }
    }

    pub(super) fn take(number: u8, reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match number.checked_sub(Self::FIRST) {
            Some(0) => Self::FromMemory(ArrayAndMemory::take(reader)?),
            Some(1) => Self::ToMemory(ArrayAndMemory::take(reader)?),
            Some(2) => Self::Between(TwoArrays::take(reader)?),
            Some(3) => Self::FromHost(ArrayAndHost::take(reader)?),
            Some(4) => Self::ToHost(ArrayAndHost::take(reader)?),
            _ => return Err(WireError::BadValue("kind of a graph's node")),
        })
    }
}
