//! One `delete` at a time for a sandbox: containerd starts one for each of its containers, all at once.
//!
//! The lock is flock(2) on the record's folder itself, so that nothing is left of it when the folder goes.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    thread,
    time::{Duration, Instant},
};

use rustix::{fs::FlockOperation, io::Errno};
use vgpu_codes::Code;

use super::Store;
use crate::error::{Error, OrFail, Result};

/// Between two tries.
const POLL: Duration = Duration::from_millis(10);

/// While it lives, no other process has the sandbox's lock.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held: closing it unlocks")] File);

impl Store {
    /// Waits for the sandbox's lock, for `limit` at most. None if there is no record's folder, and so nothing to guard.
    ///
    /// # Errors
    /// [`Code::HostFailure`], also when another process keeps it.
    pub fn lock(&self, limit: Duration) -> Result<Option<Lock>> {
        let what = || format!("cannot lock {}", self.0.display());
        let deadline = Instant::now() + limit;
        loop {
            let folder = match File::open(&self.0) {
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened.or_fail(Code::HostFailure, what)?,
            };
            match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                // Else it was removed by who had the lock, and perhaps made anew.
                Ok(()) if self.is(&folder).or_fail(Code::HostFailure, what)? => {
                    return Ok(Some(Lock(folder)));
                }
                Ok(()) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(error).or_fail(Code::HostFailure, what),
            }
            if Instant::now() >= deadline {
                let held = format!("{}: another process has held it for {} s", what(), limit.as_secs_f32());
                return Err(Error::new(Code::HostFailure, held));
            }
            thread::sleep(POLL);
        }
    }

    /// Whether the path still names this folder.
    fn is(&self, folder: &File) -> io::Result<bool> {
        let opened = folder.metadata()?;
        match self.0.metadata() {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(false),
            named => named.map(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        }
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
