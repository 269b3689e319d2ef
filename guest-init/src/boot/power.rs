//! The end of the guest.

use std::{thread, time::Duration};

use rustix::{process::Signal, system::RebootCommand};

/// For killed processes to close their files before the last sync.
const KILL_PAUSE: Duration = Duration::from_millis(50);

/// Kills every other process, writes what is cached to the share, ends the domain. Does not return in a guest.
pub fn off() -> ! {
    // To every process but PID 1 and kernel threads (kill(2), pid -1): only PID 1 of a guest may mean that.
    if rustix::process::getpid().is_init() {
        let _ = crate::sys::kill_everything(Signal::KILL);
        thread::sleep(KILL_PAUSE);
        rustix::fs::sync();
        let _ = rustix::system::reboot(RebootCommand::PowerOff);
    }
    // Reached only where reboot(2) is refused: the end of PID 1 makes the kernel panic, and Xen then ends the domain.
    std::process::exit(1)
}

/// From now on a panic of any thread is told on the console and ends the guest: the shim sees the domain die, which it handles.
/// A guest whose PID 1 is half alive it could not tell from a slow one.
pub fn off_at_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        off()
    }));
}
