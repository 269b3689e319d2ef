//! One run of the tests at a time in a checkout: another one would build what this one plays, and throw its logs away.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Context, Result};

/// Held until it is dropped, or its process has ended, however.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes that of a directory. While another process has it, `wait` is told which, and then it is waited for.
    pub fn take(dir: &Path, wait: impl FnOnce(&str)) -> Result<Self> {
        let path = dir.join("lock");
        let about = |what: &str| format!("cannot {what} {}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(&path).context(|| about("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                wait(fs::read_to_string(&path).unwrap_or_default().trim());
                file.lock().context(|| about("lock"))?;
            }
            Err(TryLockError::Error(cause)) => return Err(cause).context(|| about("lock")),
        }
        fs::write(&path, std::process::id().to_string()).context(|| about("write"))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::cache::remove_tree;
    use crate::paths;

    #[test]
    fn the_second_run_names_the_first_and_waits_for_its_end() {
        let dir = paths::scratch().expect("scratch").join("lock-test");
        remove_tree(&dir).expect("removed");
        fs::create_dir_all(&dir).expect("made");
        let first = Lock::take(&dir, |_| panic!("nobody has it")).expect("taken");
        let (told, hears) = channel();
        let second = thread::spawn({
            let dir = dir.clone();
            let wait = move |holder: &str| told.send(holder.to_owned()).expect("heard");
            move || Lock::take(&dir, wait).expect("taken")
        });
        assert_eq!(hears.recv().expect("it waits"), std::process::id().to_string());
        assert!(!second.is_finished(), "the first has it");
        drop(first);
        drop(second.join().expect("taken"));
        Lock::take(&dir, |_| panic!("nobody has it")).expect("taken again");
    }
}
