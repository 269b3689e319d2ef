//! A container's hooks on disk: those of its end that are still to be begun, and the one that runs.
//!
//! ```text
//! <life>/hooks/<container>/   from before its first hook runs until after its last one has; whoever runs one holds its lock
//!   0, 1, …                   a hook of the end and what it is told; it goes before the hook is begun, so that nobody begins it again
//!   running                   which process the last begun hook is, and for how long it may run; written over in its place
//! ```
//! All the room is taken when the container is made: a node that is full keeps nothing from its end.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;
use vgpu_codes::Code;

use super::{
    Store,
    lock::{Lock, lock, try_lock},
    private_folder, replace,
};
use crate::{
    error::{OrFail, Result},
    process,
    share::Process,
    spec::hooks::{Hook, Hooks, Kind},
};

/// Below the record's folder.
const FOLDER: &str = "hooks";
const RUNNING: &str = "running";
/// What is written there, blanks included: more than a [`Running`] ever has, as a test here shows.
const RUNNING_BYTES: usize = 256;

/// Where a container's hooks are noted, if it has some.
#[derive(Debug, Clone)]
pub struct HookNotes {
    /// The life that the container is of.
    pub store: Store,
    /// Whose they are.
    pub container: String,
}

/// A hook that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Of these.
    pub kind: Kind,
    /// The first process of its group. None before it is begun: one that is found by its input then, was.
    pub process: Option<Process>,
    /// What [`Running::input_name`] is made of.
    pub input: Uuid,
    /// From its begin on.
    pub limit_s: u64,
}

impl Running {
    /// What its standard input is called, which no other process has. Source: `memfd_create(2)`.
    pub fn input_name(&self) -> String {
        format!("vgpu-hook-{}", self.input)
    }

    /// How long `process`, which is it, may still run, or as long as poll(2) can wait.
    pub fn time_left(&self, process: &Process) -> Duration {
        Duration::from_secs(self.limit_s.min(u32::MAX.into())).saturating_sub(process.age())
    }
}

/// A hook of the end, with what it is told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The program.
    pub hook: Hook,
    /// The container's state, without its status.
    pub state: Map<String, Value>,
}

impl Store {
    /// The notes of one container.
    pub fn hooks_of(&self, container: &str) -> HookNotes {
        HookNotes { store: self.clone(), container: container.into() }
    }

    /// The notes of all containers that have some.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn hooks(&self) -> Result<Vec<HookNotes>> {
        let folder = self.0.join(FOLDER);
        let what = || format!("cannot list {}", folder.display());
        let entries = match fs::read_dir(&folder) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.or_fail(Code::HostFailure, what)?,
        };
        let named = entries.map(|entry| Ok(self.hooks_of(&entry?.file_name().to_string_lossy())));
        named.collect::<io::Result<_>>().or_fail(Code::HostFailure, what)
    }

    /// Removes the record's folder when all that it names was taken away, but not before the last hook has run: who has run that one does it then.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn settle(&self) -> Result<()> {
        let folder = self.0.join(FOLDER);
        match fs::remove_dir(&folder) {
            Err(left) if left.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).or_fail(Code::HostFailure, || format!("cannot remove {}", folder.display()))
            }
            _ => self.remove(),
        }
    }
}

impl HookNotes {
    fn folder(&self) -> PathBuf {
        self.store.0.join(FOLDER).join(&self.container)
    }

    /// Notes those of the end, and takes the room for one that runs: nothing for a container without hooks, all or nothing for others.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn make(&self, hooks: &Hooks) -> Result<()> {
        if hooks.is_empty() {
            return Ok(());
        }
        let folder = self.folder();
        private_folder(&folder)?;
        let made = || -> io::Result<()> {
            replace(&folder.join(RUNNING), &[b' '; RUNNING_BYTES])?;
            for (number, hook) in hooks.of(Kind::Poststop).iter().enumerate() {
                let left = Left { hook: hook.clone(), state: hooks.state.clone() };
                replace(&folder.join(number.to_string()), &serde_json::to_vec(&left)?)?;
            }
            Ok(())
        };
        made()
            .or_fail(Code::HostFailure, || format!("cannot note the hooks of container {}", self.container))
            .inspect_err(|_| {
                // None has run yet, so none is owed.
                let _ = fs::remove_dir_all(&folder);
            })
    }

    /// The container's turn to have hooks run, as soon as nobody else has it; none if it has none, or none any more.
    ///
    /// # Errors
    /// [`Code::HostFailure`], also when somebody has it for longer than `limit`.
    pub fn turn(&self, limit: Duration) -> Result<Option<Turn<'_>>> {
        let lock = lock(&self.folder(), limit)?;
        Ok(lock.map(|lock| Turn { notes: self, _lock: lock }))
    }

    /// The hook that runs though nobody has the turn: who had it begun was killed.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn orphan(&self) -> Result<Option<(Running, Process)>> {
        match try_lock(&self.folder()) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
            tried => {
                let lock = tried
                    .or_fail(Code::HostFailure, || format!("cannot lock {}", self.folder().display()))?;
                Ok(lock.and_then(|lock| Turn { notes: self, _lock: lock }.running()))
            }
        }
    }
}

/// While it lives, nobody else has hooks of this container run.
#[derive(Debug)]
pub struct Turn<'a> {
    notes: &'a HookNotes,
    _lock: Lock,
}

impl Turn<'_> {
    /// Notes a hook that is about to be begun, or was.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&self, running: &Running) -> io::Result<()> {
        let mut words = serde_json::to_vec(running)?;
        words.resize(RUNNING_BYTES, b' ');
        File::options().write(true).open(self.notes.folder().join(RUNNING))?.write_all(&words)
    }

    /// The hook that was begun last, if it still runs, and its process.
    pub fn running(&self) -> Option<(Running, Process)> {
        let words = fs::read(self.notes.folder().join(RUNNING)).ok()?;
        let running: Running = serde_json::from_slice(&words).ok()?;
        let process = running.process.or_else(|| process::with_input(&running.input_name()));
        process.filter(Process::is_alive).map(|process| (running, process))
    }

    /// Takes out the next one of the end.
    ///
    /// # Errors
    /// [`Code::HostFailure`]: it must not be begun then.
    pub fn take(&self) -> Result<Option<Left>> {
        let folder = self.notes.folder();
        let what = || format!("cannot take out a hook of container {}", self.notes.container);
        let Some(file) = first(&folder).or_fail(Code::HostFailure, what)? else { return Ok(None) };
        let words = fs::read(&file).or_fail(Code::HostFailure, what)?;
        let taken = || -> io::Result<()> {
            fs::remove_file(&file)?;
            File::open(&folder)?.sync_all()
        };
        taken().or_fail(Code::HostFailure, what)?;
        serde_json::from_slice(&words).map(Some).or_fail(Code::HostFailure, what)
    }

    /// The last one has run.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn end(self) -> Result<()> {
        let folder = self.notes.folder();
        fs::remove_dir_all(&folder)
            .or_fail(Code::HostFailure, || format!("cannot remove {}", folder.display()))
    }
}

/// By its number.
fn first(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<usize>().ok()));
    }
    Ok(numbers.into_iter().min().map(|number| folder.join(number.to_string())))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Whoever waits for it, and however late: its shim has waited for it before.
    #[test]
    fn the_time_of_a_running_hook_runs_from_its_begin() {
        let begun = std::time::Instant::now();
        // It ends with its input.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let running =
            |limit_s| Running { kind: Kind::Poststop, process: Some(process), input: Uuid::max(), limit_s };
        let (long, short) = (Duration::from_secs(1000), running(1));
        while !short.time_left(&process).is_zero() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it has its time for ever");
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = running(1000).time_left(&process);
        // Of a tick the kernel tells the begin.
        let most = begun.elapsed() + Duration::from_millis(20);
        assert!(left <= long - Duration::from_secs(1) && left >= long - most, "{left:?} of {long:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn the_room_for_a_running_hook_holds_the_longest_words() {
        let process = Some(Process { pid: i32::MIN, start_ticks: u64::MAX });
        for kind in Kind::ALL {
            let running = Running { kind, process, input: Uuid::max(), limit_s: u64::MAX };
            let words = serde_json::to_vec(&running).unwrap();
            assert!(words.len() <= RUNNING_BYTES, "{}", String::from_utf8_lossy(&words));
        }
    }
}
