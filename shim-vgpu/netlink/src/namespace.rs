//! A network namespace by its path, entered by a thread that ends there: no other thread of the process notices.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// Tells one namespace from another while either is held. Source: namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Of the file system of namespaces.
    pub device: u64,
    /// In it.
    pub inode: u64,
}

/// See the module. It is there as long as this is.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The one at `path`: a bind mount of a namespace, or a file in some `/proc/<pid>/ns`.
    /// # Errors
    /// open(2)'s. That it is a namespace shows when it is entered.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A fifo in its place must not keep us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(Namespace(rustix::fs::open(path, flags, Mode::empty())?.into()))
    }

    /// Which it is.
    /// # Errors
    /// fstat(2)'s.
    pub fn id(&self) -> io::Result<Id> {
        let file = self.0.metadata()?;
        Ok(Id { device: file.dev(), inode: file.ino() })
    }

    /// Another hold on it.
    /// # Errors
    /// dup(2)'s.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Namespace)
    }

    /// Does `work` in it.
    /// # Errors
    /// It is no network namespace, or no thread is to be had.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let entered = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            })?;
            entered.join().map_err(|_| io::Error::other("the thread in the network namespace panicked"))?
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
