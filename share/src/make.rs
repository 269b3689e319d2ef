//! New objects. Each has the owner and the mode that the guest says; one that cannot get them is taken away again.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::name::Name;
use crate::node::Node;

/// Whose a new object is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    user: Uid,
    group: Gid,
}

impl Owner {
    /// `user` is who the attach was for. Both may be "none", which is nobody who can own something.
    pub(crate) fn new(user: u32, group: u32) -> Result<Self, Errno> {
        let (Some(user), Some(group)) = (self::user(user), self::group(group)) else {
            return Err(Errno::INVAL);
        };
        Ok(Owner { user, group })
    }
}

/// The kernel takes the last number for "leave it".
pub(crate) fn user(id: u32) -> Option<Uid> {
    (id != u32::MAX).then(|| Uid::from_raw(id))
}

pub(crate) fn group(id: u32) -> Option<Gid> {
    (id != u32::MAX).then(|| Gid::from_raw(id))
}

/// A new file, open; or, unless it has to be new, the plain file that is there.
pub(crate) fn file(
    parent: &Arc<Node>,
    name: Name<'_>,
    flags: OFlags,
    (mode, owner): (u32, Owner),
    must_be_new: bool,
) -> Result<(Node, OwnedFd), Errno> {
    match parent.make_file(name, flags, plain(mode)) {
        Ok(open) => {
            let node = parent.made(&open);
            Ok((finish((parent, name, AtFlags::empty()), node, Some(mode), owner)?, open))
        }
        Err(Errno::EXIST) if !must_be_new => {
            let node = parent.child(name)?;
            if node.kind() == FileType::Directory {
                return Err(Errno::ISDIR);
            }
            let open = node.open(flags)?;
            Ok((node, open))
        }
        Err(errno) => Err(errno),
    }
}

pub(crate) fn directory(parent: &Arc<Node>, name: Name<'_>, mode: u32, owner: Owner) -> Result<Node, Errno> {
    rustix::fs::mkdirat(parent.fd(), name.bytes(), plain(mode))?;
    finish((parent, name, AtFlags::REMOVEDIR), parent.child(name), Some(mode), owner)
}

/// A fifo, a socket, an empty file. Devices are not made: the guest opens its own, and what the host's numbers mean is not the guest's
/// to say.
pub(crate) fn special(parent: &Arc<Node>, name: Name<'_>, mode: u32, owner: Owner) -> Result<Node, Errno> {
    let kind = match FileType::from_raw_mode(mode) {
        kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
        FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::mknodat(parent.fd(), name.bytes(), kind, plain(mode), 0)?;
    finish((parent, name, AtFlags::empty()), parent.child(name), Some(mode), owner)
}

/// `target` is never followed here: any bytes that the kernel takes.
pub(crate) fn symlink(
    parent: &Arc<Node>,
    name: Name<'_>,
    target: &[u8],
    owner: Owner,
) -> Result<Node, Errno> {
    rustix::fs::symlinkat(target, parent.fd(), name.bytes())?;
    finish((parent, name, AtFlags::empty()), parent.child(name), None, owner)
}

/// Another name for `node`.
pub(crate) fn link(parent: &Node, name: Name<'_>, node: &Node) -> Result<(), Errno> {
    rustix::fs::linkat(CWD, node.path(), parent.fd(), name.bytes(), AtFlags::SYMLINK_FOLLOW)
}

/// Mode bits as `chmod(2)` takes them.
pub(crate) fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// Without set-user-id and its kin, until the owner is right.
fn plain(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}

/// What was made at `place` gets its owner and mode, or goes again: the guest is told that it was not made.
fn finish(
    place: (&Node, Name<'_>, AtFlags),
    made: Result<Node, Errno>,
    mode: Option<u32>,
    owner: Owner,
) -> Result<Node, Errno> {
    let finished = made.and_then(|node| {
        own(&node, Some(owner.user), Some(owner.group))?;
        mode.map_or(Ok(()), |mode| chmod(&node, mode))?;
        Ok(node)
    });
    finished.inspect_err(|_| {
        let (parent, name, removal) = place;
        // It is told of the first failure. What is left after a second one is its own to remove.
        let _ = rustix::fs::unlinkat(parent.fd(), name.bytes(), removal);
    })
}

pub(crate) fn own(node: &Node, user: Option<Uid>, group: Option<Gid>) -> Result<(), Errno> {
    rustix::fs::chownat(node.fd(), c"", user, group, AtFlags::EMPTY_PATH)
}

/// Not of a link, which has none.
pub(crate) fn chmod(node: &Node, mode: u32) -> Result<(), Errno> {
    if node.kind() == FileType::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::fs::chmodat(CWD, node.path(), permissions(mode), AtFlags::empty())
}
