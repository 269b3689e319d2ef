//! What a device may do with mapped memory.

use crate::wire::{Reader, Wire, WireError, Writer};

/// `CUmemAccess_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Access {
    /// Nothing: what a mapping starts with.
    #[default]
    None = 0,
    /// Read it.
    Read = 1,
    /// Read and write it.
    ReadWrite = 3,
}

impl Access {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str = "Access{None=0,Read=1,ReadWrite=3}";

    /// From the flags that a program gives.
    #[must_use]
    pub const fn of_flags(flags: u32) -> Option<Self> {
        match flags {
            0 => Some(Self::None),
            1 => Some(Self::Read),
            3 => Some(Self::ReadWrite),
            _ => None,
        }
    }
}

impl Wire<'_> for Access {
    fn size(&self) -> usize {
        4
    }
    fn put(&self, writer: &mut Writer<'_>) {
        (*self as u32).put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Self::of_flags(u32::take(reader)?).ok_or(WireError::BadValue("CUmemAccess_flags"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_slice, to_vec};

    #[test]
    fn access_comes_back_and_no_other_flags_pass() {
        for access in [Access::None, Access::Read, Access::ReadWrite] {
            assert_eq!(from_slice(&to_vec(&access)), Ok(access));
        }
        assert!(from_slice::<Access>(&to_vec(&2_u32)).is_err());
        assert_eq!(Access::of_flags(4), None);
    }
}
