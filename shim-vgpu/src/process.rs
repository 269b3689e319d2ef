//! Processes that may be another one by now: each is known by id and start time.

use std::{fs, io, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::share::Process;

/// The start time of `pid`, or none if it is gone or a zombie. Source: `proc_pid_stat(5)`.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold blanks and brackets; what follows the last bracket does not.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    // State was field 3; the start time is field 22.
    fields.nth(18)?.parse().ok()
}

impl Process {
    /// The living process `pid`.
    pub fn of(pid: u32) -> Option<Process> {
        let pid = i32::try_from(pid).ok()?;
        start_ticks(pid).map(|start_ticks| Process { pid, start_ticks })
    }

    /// Whether it still is that process.
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// SIGKILL, without a chance of meeting another process of the same id. Gone already is no error.
    ///
    /// # Errors
    /// kill(2)'s.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let held = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(held) => held,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // Asked while the descriptor holds the id.
        if !self.is_alive() {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(&held, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The process with `word` among its arguments, if there is one.
pub fn with_argument(word: &str) -> Option<Process> {
    let folders = fs::read_dir("/proc").ok()?;
    folders.flatten().find_map(|folder| {
        let pid: u32 = folder.file_name().to_str()?.parse().ok()?;
        let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
        line.split(|&byte| byte == 0).any(|argument| argument == word.as_bytes()).then(|| Process::of(pid))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_found_by_an_argument_and_killed_once() {
        let word = format!("vgpu-test-{}", std::process::id());
        let mut child =
            Command::new("sh").args(["-c", "read line", &word]).stdin(Stdio::piped()).spawn().unwrap();
        // Its arguments appear a moment after exec.
        let found = (0..1000).find_map(|_| with_argument(&word)).unwrap();
        assert_eq!(found.pid, i32::try_from(child.id()).unwrap());
        found.kill().unwrap();
        child.wait().unwrap();
        assert!(!found.is_alive());
        found.kill().unwrap();
    }

    #[test]
    fn another_process_of_the_same_id_is_spared() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = Process::of(child.id()).unwrap();
        other.start_ticks += 1;
        other.kill().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
