//! Collects every child's exit status, as PID 1 has to: its own helpers, containers, and orphans that were given to it.
//!
//! One task waits for SIGCHLD and reaps with `waitpid(-1)`; whoever wants a status claims the pid. The rule: nobody else in this program
//! waits for a child, so `Child::wait` and `tokio::process` have no place here.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::sys::{self, SIGKILL};

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + the signal that killed it, as runc says it.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

/// Resolves when the process ends. An error means that the reaper is gone.
pub type Exited = oneshot::Receiver<Exit>;

/// The one reaper of this program.
#[derive(Debug, Default)]
pub struct Reaper {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<i32, oneshot::Sender<Exit>>,
    /// Exits of pids that nobody waits for, kept only while somebody is about to claim one.
    early: HashMap<i32, Exit>,
    expecting: usize,
}

/// While this lives, no exit is lost: a pid that becomes known late can still be claimed.
#[derive(Debug)]
pub struct Expecting {
    reaper: Arc<Reaper>,
}

/// A process whose exit is told to one claimer.
#[derive(Debug)]
pub struct Claimed {
    /// Its end.
    pub exited: Exited,
    /// Names it, for signals: a pid may belong to another process once it was reaped. None: it had ended already.
    pub pidfd: Option<OwnedFd>,
}

impl Reaper {
    /// Starts the task that reaps. Call once, inside the runtime.
    /// # Errors
    /// The signal handler cannot be installed.
    pub fn start() -> io::Result<Arc<Self>> {
        let reaper = Arc::new(Self::default());
        let mut child_signal = signal(SignalKind::child())?;
        let task = Arc::clone(&reaper);
        tokio::spawn(async move {
            loop {
                task.reap();
                if child_signal.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Starts a program. Its exit cannot be missed, nor reaped by std when the start fails.
    /// # Errors
    /// As `Command::spawn`.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Exited)> {
        let mut table = self.lock();
        let child = command.spawn()?;
        let (sender, exited) = oneshot::channel();
        table.waiting.insert(child.id().cast_signed(), sender);
        Ok((child, exited))
    }

    /// Announces that a pid will be claimed which is not known yet.
    pub fn expect(self: &Arc<Self>) -> Expecting {
        self.lock().expecting += 1;
        Expecting { reaper: Arc::clone(self) }
    }

    fn reap(&self) {
        let mut table = self.lock();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(status) = shell_status(status) else { continue };
            let exit = Exit { status, at: SystemTime::now() };
            let pid = pid.as_raw_nonzero().get();
            if let Some(waiting) = table.waiting.remove(&pid) {
                // Nobody listens any more: fine.
                let _ = waiting.send(exit);
            } else if table.expecting > 0 {
                table.early.insert(pid, exit);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is consistent between any two statements: a panic elsewhere must not stop the reaping.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    /// SIGKILL, for a process of which nobody is to hear.
    pub fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It fails for one that ended by itself.
            let _ = sys::signal(pidfd.as_fd(), SIGKILL);
        }
    }
}

impl Expecting {
    /// The exit of `pid`, a child of this program, also if it ended already.
    /// # Errors
    /// Descriptors are used up: then it is killed, since nobody could do that later.
    pub fn claim(&self, pid: i32) -> io::Result<Claimed> {
        let (sender, exited) = oneshot::channel();
        let mut table = self.reaper.lock();
        if let Some(exit) = table.early.remove(&pid) {
            let _ = sender.send(exit);
            return Ok(Claimed { exited, pidfd: None });
        }
        // Nobody reaps while the table is locked: the pid is this process's, running or a zombie.
        let name = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(name, PidfdFlags::empty()).inspect_err(|_| {
            let _ = sys::kill(pid, SIGKILL);
        })?;
        table.waiting.insert(pid, sender);
        Ok(Claimed { exited, pidfd: Some(pidfd) })
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut table = self.reaper.lock();
        table.expecting -= 1;
        if table.expecting == 0 {
            table.early.clear();
        }
    }
}

/// `None` for a process that only stopped or continued.
fn shell_status(status: WaitStatus) -> Option<u32> {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))?;
    u32::try_from(code).ok()
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    /// One test, since only one reaper may live in a process.
    #[tokio::test]
    async fn statuses_are_exact_and_none_is_lost() {
        let reaper = Reaper::start().unwrap();
        let (_, seven) = reaper.spawn(&mut sh("exit 7")).unwrap();
        let (_, killed) = reaper.spawn(&mut sh("kill -KILL $$")).unwrap();
        assert_eq!(seven.await.unwrap().status, 7);
        assert_eq!(killed.await.unwrap().status, 137);

        let expecting = reaper.expect();
        #[expect(clippy::zombie_processes, reason = "the reaper waits for it: that is the test")]
        let late = sh("exit 3").spawn().unwrap();
        let (_, marker) = reaper.spawn(&mut sh("sleep 0.2")).unwrap();
        marker.await.unwrap();
        let claimed = expecting.claim(late.id().cast_signed()).unwrap();
        assert!(claimed.pidfd.is_none(), "its pid may be another's by now");
        assert_eq!(claimed.exited.await.unwrap().status, 3, "it ended before it was claimed");

        #[expect(clippy::zombie_processes, reason = "the reaper waits for it: that is the test")]
        let sleeper = Command::new("sleep").arg("100").spawn().unwrap();
        let claimed = expecting.claim(sleeper.id().cast_signed()).unwrap();
        let pidfd = claimed.pidfd.unwrap();
        sys::signal(pidfd.as_fd(), 15).unwrap();
        assert_eq!(claimed.exited.await.unwrap().status, 143);
        let gone = sys::signal(pidfd.as_fd(), 15).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH), "and never another process");
        assert!(reaper.spawn(&mut Command::new("/no/such/program")).is_err());

        #[expect(clippy::zombie_processes, reason = "the reaper waits for it: that is the test")]
        let unseen = Command::new("sleep").arg("100").spawn().unwrap();
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: limit.maximum }).unwrap();
        let refused = expecting.claim(unseen.id().cast_signed());
        setrlimit(Resource::Nofile, limit).unwrap();
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        let claimed = expecting.claim(unseen.id().cast_signed()).unwrap();
        assert_eq!(claimed.exited.await.unwrap().status, 137, "nobody else could have ended it");
    }
}
