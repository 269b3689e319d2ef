//! The socket of a pod's shim, told from the next one at the same path, which may have its inode.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use serde::{Deserialize, Serialize};

use crate::bootstrap;

/// Between two looks at who holds it.
const PAUSE: Duration = Duration::from_millis(10);

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

    /// Removes that of a shim that was killed. So long is waited for what else may hold it: a process that was about to execute another program
    /// when the shim was killed has its sockets until then.
    pub fn remove_if_stale(&self, limit: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < limit && self.is_served() {
            thread::sleep(PAUSE);
        }
        if self.connect() == Err(Errno::CONNREFUSED) && self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether a shim serves it, and not the next one of the same name.
    pub fn is_served(&self) -> bool {
        matches!(self.connect(), Ok(()) | Err(Errno::AGAIN)) && self.is_there()
    }

    /// Asked without waiting: a shim that hangs takes nobody in, but is there. [`Errno::AGAIN`]: so many wait that it is not asked any more. Source: `connect(2)`.
    fn connect(&self) -> rustix::io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        net::connect(&socket, &SocketAddrUnix::new(&self.path)?)
    }

    fn is_there(&self) -> bool {
        Socket::at(self.path.clone()).as_ref() == Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_shim_that_takes_nobody_in_any_more_serves_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        // So many wait and no more.
        net::listen(&listener, 0).unwrap();
        let socket = Socket::at(path.clone()).unwrap();
        while socket.connect().is_ok() {}
        assert_eq!(socket.connect(), Err(Errno::AGAIN));
        assert!(socket.is_served());
        socket.remove_if_stale(Duration::ZERO);
        assert!(path.exists());
        drop(listener);
        assert!(!socket.is_served());
    }

    #[test]
    fn the_socket_of_a_killed_shim_goes_when_the_last_one_lets_go_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (shims, childs) = {
            let listener = UnixListener::bind(&path).unwrap();
            (listener.try_clone().unwrap(), listener)
        };
        fs::write(dir.path().join("address"), format!("unix://{}", path.display())).unwrap();
        let socket = Socket::of(dir.path()).unwrap();
        socket.remove_if_stale(Duration::ZERO);
        assert!(path.exists(), "a shim that lives serves it");
        drop(shims);
        let executes = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(childs);
        });
        socket.remove_if_stale(Duration::from_secs(60));
        assert!(!path.exists());
        executes.join().unwrap();
    }
}
