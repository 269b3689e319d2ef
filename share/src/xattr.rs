//! Extended attributes: the user's own, ACLs and file capabilities. `trusted.` ones and those of the host's security modules are the
//! host's (an overlay's upper layer keeps its whiteouts there): neither told nor taken.

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::budget::{Budget, Room};
use crate::node::Node;

/// Source: `linux/limits.h`, `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 10;
/// `XATTR_NAME_MAX`.
const NAME_BYTES_MAX: usize = 255;
const NAMES: [&[u8]; 3] = [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
const PREFIX: &[u8] = b"user.";

/// A name that the guest may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, Errno> {
        if bytes.contains(&0) {
            return Err(Errno::INVAL);
        }
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Errno::RANGE);
        }
        if is_theirs(bytes) { Ok(Name(bytes.to_vec())) } else { Err(Errno::OPNOTSUPP) }
    }
}

fn is_theirs(name: &[u8]) -> bool {
    NAMES.contains(&name) || (name.starts_with(PREFIX) && name.len() > PREFIX.len())
}

/// The value.
pub(crate) fn get(node: &Node, name: &Name) -> Result<Vec<u8>, Errno> {
    read(|buffer| rustix::fs::getxattr(node.path(), &name.0[..], buffer))
}

/// The names that the guest may use, each with a NUL behind it.
pub(crate) fn list(node: &Node) -> Result<Vec<u8>, Errno> {
    let all = read(|buffer| rustix::fs::listxattr(node.path(), buffer))?;
    let theirs = all
        .split_inclusive(|byte| *byte == 0)
        .filter(|name| name.split_last().is_some_and(|(_, name)| is_theirs(name)));
    Ok(theirs.flatten().copied().collect())
}

fn read(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; VALUE_BYTES_MAX];
    let length = call(&mut value)?;
    value.truncate(length);
    value.shrink_to_fit();
    Ok(value)
}

/// A value that comes in pieces, and is set when its fid is clunked.
#[derive(Debug)]
pub(crate) struct NewValue {
    name: Name,
    size: usize,
    flags: XattrFlags,
    value: Vec<u8>,
    _room: Room,
}

impl NewValue {
    pub(crate) fn new(name: &[u8], size: u64, flags: u32, budget: &Budget) -> Result<Self, Errno> {
        let name = Name::new(name)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= VALUE_BYTES_MAX).ok_or(Errno::RANGE)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let flags = if (XattrFlags::CREATE | XattrFlags::REPLACE).contains(flags) {
            flags
        } else {
            return Err(Errno::INVAL);
        };
        Ok(NewValue { name, size, flags, value: Vec::new(), _room: budget.take(size).ok_or(Errno::NOMEM)? })
    }

    /// One piece after the other, and no byte more than was said.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let begins_here = usize::try_from(offset) == Ok(self.value.len());
        if !begins_here || data.len() > self.size - self.value.len() {
            return Err(Errno::INVAL);
        }
        self.value.extend_from_slice(data);
        Ok(())
    }

    /// Linux's client removes by replacing with nothing.
    pub(crate) fn set(&self, node: &Node) -> Result<(), Errno> {
        if self.value.len() != self.size {
            return Err(Errno::INVAL);
        }
        if self.size == 0 && self.flags == XattrFlags::REPLACE {
            return rustix::fs::removexattr(node.path(), &self.name.0[..]);
        }
        rustix::fs::setxattr(node.path(), &self.name.0[..], &self.value, self.flags)
    }
}

/// A value, or the list of names, as it was when it was asked for.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) bytes: Vec<u8>,
    _room: Room,
}

impl Value {
    /// Without a name: the list.
    pub(crate) fn read(node: &Node, name: &[u8], budget: &Budget) -> Result<Self, Errno> {
        let bytes = if name.is_empty() { list(node)? } else { get(node, &Name::new(name)?)? };
        let room = budget.take(bytes.len()).ok_or(Errno::NOMEM)?;
        Ok(Value { bytes, _room: room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_own_names_pass() {
        for good in [&b"user.a"[..], b"security.capability", b"system.posix_acl_access"] {
            assert_eq!(Name::new(good), Ok(Name(good.to_vec())));
        }
        for bad in [
            &b"trusted.overlay.opaque"[..],
            b"user.",
            b"security.selinux",
            b"system.nfs4_acl",
            b"usera",
            b"x",
        ] {
            assert_eq!(Name::new(bad), Err(Errno::OPNOTSUPP), "{bad:?}");
        }
        assert_eq!(Name::new(b"user.a\0"), Err(Errno::INVAL));
        assert_eq!(Name::new(&[b'u'; 256]), Err(Errno::RANGE));
    }

    #[test]
    fn a_new_value_is_written_in_order_and_within_its_size() {
        let budget = Budget::new(100);
        let mut value = NewValue::new(b"user.a", 5, 0, &budget).unwrap();
        value.write(0, b"abc").unwrap();
        assert_eq!(value.write(2, b"x"), Err(Errno::INVAL));
        assert_eq!(value.write(u64::MAX, b"x"), Err(Errno::INVAL));
        assert_eq!(value.write(3, b"def"), Err(Errno::INVAL));
        value.write(3, b"de").unwrap();
        assert_eq!(value.value, b"abcde");
        for (size, flags, errno) in
            [(1 << 40, 0, Errno::RANGE), (65537, 0, Errno::RANGE), (1, 4, Errno::INVAL)]
        {
            assert_eq!(NewValue::new(b"user.a", size, flags, &budget).unwrap_err(), errno);
        }
    }
}
