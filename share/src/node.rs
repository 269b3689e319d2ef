//! One object of the share, held by a descriptor that only names it (`O_PATH`).
//!
//! A node is what it was when it was found, whoever renames or replaces its names meanwhile. A step down is one `openat2` of one name,
//! which follows no link of any kind; a step up goes to the node from which this one was found, never to the kernel's `..`: so nothing
//! above the root can be reached. Mounts below the root are the share, too, and are crossed.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::budget::{Budget, Room};
use crate::name::Name;
use crate::qid::ObjectId;

/// Steps below the root: a path of `PATH_MAX` bytes has no more. A node keeps those above it.
const DEPTH_MAX: u32 = 2048;
/// Source: `openat2(2)`.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);

#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
    id: ObjectId,
    kind: FileType,
    depth: u32,
    parent: Option<Arc<Node>>,
    /// Of one node.
    room: Room,
}

impl Node {
    /// The root is what `directory` is, however it was opened. It and all that is found below are of these `nodes`.
    pub(crate) fn root(directory: OwnedFd, nodes: &Budget) -> Result<Self, Errno> {
        let node = Node::new(directory, None, nodes.take(1).ok_or(Errno::NFILE)?)?;
        if node.kind == FileType::Directory { Ok(node) } else { Err(Errno::NOTDIR) }
    }

    fn new(fd: OwnedFd, parent: Option<Arc<Node>>, room: Room) -> Result<Self, Errno> {
        let stat = stat(fd.as_fd())?;
        let depth = parent.as_ref().map_or(0, |parent| parent.depth + 1);
        if depth > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(Node { fd, id: ObjectId::new(&stat), kind: kind(&stat), depth, parent, room })
    }

    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }

    pub(crate) fn kind(&self) -> FileType {
        self.kind
    }

    /// For calls that take a directory and a [`Name`], or the object itself as an empty path.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The object called `name`: of a symbolic link, the link.
    pub(crate) fn child(self: &Arc<Self>, name: Name<'_>) -> Result<Node, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let room = self.room.another().ok_or(Errno::NFILE)?;
        let fd = rustix::fs::openat2(&self.fd, name.bytes(), flags, Mode::empty(), RESOLVE)?;
        Node::new(fd, Some(Arc::clone(self)), room)
    }

    /// Where this one was found. The root's is the root.
    pub(crate) fn parent(self: &Arc<Self>) -> Arc<Node> {
        Arc::clone(self.parent.as_ref().unwrap_or(self))
    }

    pub(crate) fn stat(&self) -> Result<Statx, Errno> {
        stat(self.fd())
    }

    /// A path that leads to the object and no further, for calls that take no `O_PATH` descriptor.
    pub(crate) fn path(&self) -> String {
        path_of(self.fd())
    }

    /// Opens it anew. Only plain files and directories: anything else would be a device or a peer of this host's, might block, and is
    /// the guest kernel's own matter.
    pub(crate) fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.kind {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::openat(CWD, self.path(), flags, Mode::empty())
    }

    /// Makes a plain file called `name`, which must not be there, and opens it.
    pub(crate) fn make_file(&self, name: Name<'_>, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | new | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::openat2(&self.fd, name.bytes(), flags, mode, RESOLVE)
    }

    /// The node of a file that was made here. By its descriptor: its name may be another's meanwhile.
    pub(crate) fn made(self: &Arc<Self>, open: &OwnedFd) -> Result<Node, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let room = self.room.another().ok_or(Errno::NFILE)?;
        let fd = rustix::fs::openat(CWD, path_of(open.as_fd()), flags, Mode::empty())?;
        Node::new(fd, Some(Arc::clone(self)), room)
    }
}

impl Drop for Node {
    /// Not by recursion: a guest decides how deep it is.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut last) = next.and_then(Arc::into_inner) {
            next = last.parent.take();
        }
    }
}

pub(crate) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

fn stat(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    stat_at(fd, b"", AtFlags::EMPTY_PATH)
}

/// What is known of the entry `name` of a directory; nothing is opened, and no link followed.
pub(crate) fn stat_at(directory: BorrowedFd<'_>, name: &[u8], more: AtFlags) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | more;
    rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn path_of(fd: BorrowedFd<'_>) -> String {
    let mut path = String::from("/proc/self/fd/");
    // A String takes all that is written.
    let _ = write!(path, "{}", fd.as_raw_fd());
    path
}
