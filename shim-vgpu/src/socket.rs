//! The socket of a pod's shim, told from the next one at the same path, which may have its inode.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use serde::{Deserialize, Serialize};

use crate::bootstrap;

/// See the module.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    path: PathBuf,
    inode: u64,
    changed: (i64, i64),
}

impl Socket {
    /// As the bundle names it, if there is one.
    pub fn of(bundle: &Path) -> Option<Socket> {
        Socket::at(bootstrap::socket_of(bundle)?)
    }

    fn at(path: PathBuf) -> Option<Socket> {
        let there = fs::symlink_metadata(&path).ok()?;
        Some(Socket { path, inode: there.ino(), changed: (there.ctime(), there.ctime_nsec()) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes that of a shim that was killed.
    pub fn remove_if_stale(&self) {
        if self.connect() == Err(Errno::CONNREFUSED) && self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether a shim serves it, and not the next one of the same name.
    pub fn is_served(&self) -> bool {
        self.connect().is_ok() && self.is_there()
    }

    /// Asked without waiting: a shim that hangs takes nobody in, but is there.
    fn connect(&self) -> rustix::io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        net::connect(&socket, &SocketAddrUnix::new(&self.path)?)
    }

    fn is_there(&self) -> bool {
        Socket::at(self.path.clone()).as_ref() == Some(self)
    }
}
