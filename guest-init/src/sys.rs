//! The system calls that need `unsafe`: this module alone may use it.
#![allow(unsafe_code, reason = "each block states why it is sound; everything else here forbids it")]

use std::{fs::File, io};

use tokio::io::unix::AsyncFd;

/// Watches a file for readiness. It must not block: set O_NONBLOCK before.
/// # Errors
/// The kind of file cannot be watched.
pub fn watch(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: `File` owns its descriptor and gives the same one for as long as it lives; `AsyncFd` keeps it, and hands out only
    // shared references, through which it cannot be replaced or closed.
    Ok(unsafe { AsyncFd::register(file) }?)
}

/// Sends a signal by number, real-time signals included (systemd's SIGRTMIN+3 is a usual stop signal).
/// # Errors
/// ESRCH: no such process. EINVAL: no such signal.
pub fn kill(pid: i32, signal: u32) -> io::Result<()> {
    // 0 and negative pids mean groups: never what a caller here means.
    let signal = i32::try_from(signal).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends `signal` to every process but PID 1.
/// # Errors
/// None is left.
pub fn kill_everything(signal: rustix::process::Signal) -> io::Result<()> {
    // SAFETY: as in `kill`. The caller is PID 1 of a guest, so "everything" is this pod and nothing else.
    if unsafe { libc::kill(-1, signal.as_raw()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
