//! PID 1's own words go to the domain's console, with the kernel's time stamps beside them.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
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

/// Lines that a container causes as often as it likes: a few in each second are said, the rest is counted. The console is kept on the node.
#[derive(Debug, Default)]
pub struct Bounded(Mutex<Window>);

impl Bounded {
    const WINDOW: Duration = Duration::from_secs(1);
    const LINES_MAX: u32 = 4;

    /// As [`say`], or not at all.
    pub fn say(&self, line: impl std::fmt::Display) {
        let window = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match window.admit(Instant::now()) {
            Some(0) => say(line),
            Some(left_out) => say(format_args!("{line} ({left_out} lines were left out before)")),
            None => {}
        }
    }
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    said: u32,
    left_out: u32,
}

impl Window {
    /// Whether a line may be said now, and how many were left out since the last one.
    fn admit(&mut self, now: Instant) -> Option<u32> {
        if self.began.is_none_or(|began| now.duration_since(began) >= Bounded::WINDOW) {
            (self.began, self.said) = (Some(now), 0);
        }
        if self.said == Bounded::LINES_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_becomes_a_few_and_a_count() {
        let (mut window, began) = (Window::default(), Instant::now());
        let mut admitted = |millis: u64| window.admit(began + Duration::from_millis(millis));
        let flood: Vec<_> = (0..1000).filter_map(&mut admitted).collect();
        assert_eq!(flood, [0; 4], "one second");
        assert_eq!(admitted(1000), Some(996), "the next one says what was left out");
        assert_eq!([admitted(1001), admitted(1002), admitted(1003)], [Some(0); 3]);
        assert_eq!(admitted(1999), None);
        assert_eq!(admitted(60_000), Some(1));
    }
}
