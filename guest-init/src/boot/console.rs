//! PID 1's own words go to the domain's console, with the kernel's time stamps beside them.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::{During, Result};

/// Makes the console this program's stdio, so that a panic and [`say`] are heard. It does not block: nobody may read it at the other end,
/// and PID 1 waits for nobody.
/// # Errors
/// There is no console device.
pub fn open() -> Result<()> {
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/console")
        .during(|| "open /dev/console".into())?;
    dup2_stdin(&console).during(|| "use the console as stdin".into())?;
    dup2_stdout(&console).during(|| "use the console as stdout".into())?;
    dup2_stderr(&console).during(|| "use the console as stderr".into())
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves out [`say`]'s lines. For tests.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// A line on the console, with the guest's uptime. A console that is full or gone is no reason to stop.
pub fn say(line: impl std::fmt::Display) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let _ =
        writeln!(std::io::stderr(), "[{:5}.{:06}] guest-init: {line}", uptime.tv_sec, uptime.tv_nsec / 1000);
}
