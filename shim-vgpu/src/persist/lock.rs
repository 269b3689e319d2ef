//! One `delete` at a time for a sandbox: containerd starts one for each of its containers, all at once. And one at a time who has a
//! container's hooks run.
//!
//! The lock is flock(2) on the folder itself, the record's or that of the hooks, so that nothing is left of it when the folder goes.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{fs::FlockOperation, io::Errno};
use vgpu_codes::Code;

use super::Store;
use crate::error::{Error, OrFail, Result};

/// Between two tries.
const POLL: Duration = Duration::from_millis(10);

/// While it lives, nobody else has the folder's lock.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held: closing it unlocks")] File);

impl Store {
    /// Waits for the sandbox's lock, for `limit` at most. None if there is no record's folder, and so nothing to guard.
    ///
    /// # Errors
    /// [`Code::HostFailure`], also when another process keeps it.
    pub fn lock(&self, limit: Duration) -> Result<Option<Lock>> {
        lock(&self.0, limit)
    }
}

/// Waits for a folder's lock, for `limit` at most. None if there is no such folder.
///
/// # Errors
/// [`Code::HostFailure`], also when somebody keeps it.
pub(super) fn lock(path: &Path, limit: Duration) -> Result<Option<Lock>> {
    let what = || format!("cannot lock {}", path.display());
    let deadline = Instant::now() + limit;
    loop {
        match try_lock(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(None) => {}
            tried => return tried.or_fail(Code::HostFailure, what),
        }
        if Instant::now() >= deadline {
            let held = format!("{}: it has been held elsewhere for {} s", what(), limit.as_secs_f32());
            return Err(Error::new(Code::HostFailure, held));
        }
        thread::sleep(POLL);
    }
}

/// The folder's lock; none if somebody has it.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if there is no such folder.
pub(super) fn try_lock(path: &Path) -> io::Result<Option<Lock>> {
    let folder = File::open(path)?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        // Else it was removed by who had the lock, and perhaps made anew.
        Ok(()) => Ok(names(path, &folder)?.then_some(Lock(folder))),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the path still names this folder.
fn names(path: &Path, folder: &File) -> io::Result<bool> {
    let opened = folder.metadata()?;
    match path.metadata() {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(false),
        named => named.map(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn one_at_a_time_and_nothing_is_left_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("state"));
        assert!(store.lock(SHORT).unwrap().is_none(), "nothing to guard");
        assert!(!dir.path().join("state").exists());
        store.point_from(dir.path()).unwrap();
        let lock = store.lock(SHORT).unwrap().unwrap();
        assert_eq!(store.lock(SHORT).unwrap_err().code(), Some(Code::HostFailure));
        drop(lock);
        let lock = store.lock(SHORT).unwrap().unwrap();
        assert_eq!(dir.path().join("state").read_dir().unwrap().count(), 0);
        store.remove().unwrap();
        drop(lock);
    }

    #[test]
    fn who_waited_for_a_folder_that_went_finds_nothing_or_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("state"));
        for again in [false, true] {
            store.point_from(dir.path()).unwrap();
            let lock = store.lock(SHORT).unwrap().unwrap();
            let other = store.clone();
            let waiting = thread::spawn(move || other.lock(LONG).unwrap());
            thread::sleep(SHORT);
            assert!(!waiting.is_finished());
            if again {
                // Without a moment at which there is none.
                let next = dir.path().join("next");
                std::fs::create_dir(&next).unwrap();
                std::fs::rename(next, dir.path().join("state")).unwrap();
            } else {
                store.remove().unwrap();
            }
            drop(lock);
            assert_eq!(waiting.join().unwrap().is_some(), again);
        }
    }
}
