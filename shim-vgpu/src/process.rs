//! Processes that may be another one by now: each is known by id and start time.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags, Signal},
    time::ClockId,
};

use tokio::{net::unix::pipe, sync::oneshot};

use crate::share::Process;

/// A process that was killed ends at once, unless the kernel holds it (a file system that does not answer).
const END_LIMIT: Duration = Duration::from_secs(1);
/// Of the times in /proc. Source: `time(7)`, Linux `include/asm-generic/param.h`, `USER_HZ`.
const TICKS_PER_SECOND: u64 = 100;
/// For a child that was killed.
pub const KILL_LIMIT: Duration = Duration::from_secs(1);

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

    /// Whether it is this process.
    pub fn is_this(&self) -> bool {
        Process::of(std::process::id()).as_ref() == Some(self)
    }

    /// Whether it still is that process.
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// How long ago it began; what the node slept counts.
    pub fn age(&self) -> Duration {
        let now = rustix::time::clock_gettime(ClockId::Boottime);
        let begun = Duration::from_millis(self.start_ticks.saturating_mul(1000 / TICKS_PER_SECOND));
        Duration::try_from(now).unwrap_or_default().saturating_sub(begun)
    }

    /// SIGKILL, without a chance of meeting another process of the same id; waits for its end, since until then it may start others.
    /// Gone already is no error.
    ///
    /// # Errors
    /// kill(2)'s.
    pub fn kill(&self) -> io::Result<()> {
        self.end_by(|held, _| rustix::process::pidfd_send_signal(held, Signal::KILL))
    }

    /// The same for its whole process group, which it leads: with it goes what it has started.
    ///
    /// # Errors
    /// kill(2)'s.
    pub fn kill_group(&self) -> io::Result<()> {
        // The group is its own while it is there.
        self.end_by(|_, leader| rustix::process::kill_process_group(leader, Signal::KILL))
    }

    fn end_by(&self, kill: impl FnOnce(&OwnedFd, Pid) -> rustix::io::Result<()>) -> io::Result<()> {
        let (Some(held), Some(pid)) = (self.hold()?, Pid::from_raw(self.pid)) else { return Ok(()) };
        match kill(&held, pid) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            // One that the kernel holds starts nothing either.
            Ok(()) => is_over_within(&held, END_LIMIT).map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it ends within `limit`.
    ///
    /// # Errors
    /// If it can't be watched.
    pub fn ends_within(&self, limit: Duration) -> io::Result<bool> {
        self.hold()?.map_or(Ok(true), |held| is_over_within(&held, limit))
    }

    /// Resolves at its end; at once if it is gone already.
    ///
    /// # Errors
    /// If it can't be watched.
    pub fn end(&self) -> io::Result<oneshot::Receiver<()>> {
        let (ended, end) = oneshot::channel();
        if let Some(held) = self.hold()? {
            // No pipe, but waited for like one: it can be read, as poll(2) has it, when the process has ended. tokio's way for other
            // descriptors is unsafe code.
            let held = pipe::Receiver::from_owned_fd_unchecked(held)?;
            tokio::spawn(async move {
                let _ = held.readable().await;
                drop(ended);
            });
        }
        Ok(end)
    }

    /// A descriptor that stays this process's; none if it is gone.
    fn hold(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // Asked while the descriptor holds the id.
            Ok(held) => Ok(self.is_alive().then_some(held)),
            // Invalid: the id is no process's any more, but still names the group of a child that it left.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs a program to its end and returns what it wrote, as [`Command::output`] does.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] if it was not over within `limit`; it is killed then.
pub fn output_within(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let ended = ends_within(&child, limit);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended? {
        // What it started may hold the pipes for longer: nobody waits for that.
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(Output { status, stdout: collected(stdout)?, stderr: collected(stderr)? })
}

/// Whether a child that was not waited for yet ends within `limit`.
///
/// # Errors
/// If it can't be watched.
pub fn ends_within(child: &Child, limit: Duration) -> io::Result<bool> {
    // Not reaped yet, so the id is its own.
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return Ok(false) };
    let held = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    is_over_within(&held, limit)
}

/// Of a pidfd, which can be read when its process has ended.
fn is_over_within(held: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        match rustix::event::poll(&mut [PollFd::new(held, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return Ok(ended? > 0),
        }
    }
}

/// SIGKILL, and waits for the end of a child of that name: for 1 s, which one that the kernel does not hold never takes; then a thread waits,
/// so that nobody else does.
pub fn kill_child(name: &str, mut child: Child) {
    // An error of either means that it is gone.
    let _ = child.kill();
    if ends_within(&child, KILL_LIMIT).is_ok_and(|ended| ended) {
        let _ = child.wait();
        return;
    }
    log::warn!("the {name} {} was killed and has not ended within {} s", child.id(), KILL_LIMIT.as_secs());
    let waiting = thread::Builder::new().name(format!("{name}'s end")).spawn(move || child.wait());
    if let Err(error) = waiting {
        log::warn!("nobody waits for its end: {error}");
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        stream.map_or(Ok(0), |mut stream| stream.read_to_end(&mut all)).map(|_| all)
    })
}

fn collected(reader: JoinHandle<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
    reader.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
}

/// The bytes of a process's name that the kernel keeps. Source: Linux `include/linux/sched.h`, `TASK_COMM_LEN` without its end.
const NAME_BYTES_MAX: usize = 15;

/// The first process of a group whose standard input is the memory file of this name. Source: `proc_pid_fd(5)`.
pub fn with_input(name: &str) -> Option<Process> {
    let input = format!("/memfd:{name} (deleted)");
    let leads = |pid: &u32| {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::getpgid(Some(pid)) == Ok(pid))
    };
    let has_it =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|link| link == Path::new(&input));
    all().filter(has_it).filter(leads).find_map(Process::of)
}

/// The ids of all processes.
fn all() -> impl Iterator<Item = u32> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok())
}

/// The processes that run `program` with `words` among their arguments, in this order and without others between them; not this one.
pub fn with_arguments(program: &Path, words: &[&OsStr]) -> Vec<Process> {
    let found = all().filter(|pid| *pid != std::process::id() && is_named(*pid, program));
    found.filter(|pid| has_arguments(*pid, words)).filter_map(Process::of).collect()
}

/// Whether it may run `program`. Asked first: another one's arguments are its memory, and reading them waits while its memory is locked,
/// for a process that hangs in the kernel without end.
fn is_named(pid: u32, program: &Path) -> bool {
    let wanted = program.file_name().unwrap_or_default().as_bytes();
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.strip_suffix(b"\n").is_some_and(|name| name == &wanted[..wanted.len().min(NAME_BYTES_MAX)])
}

fn has_arguments(pid: u32, words: &[&OsStr]) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
    let mut places = arguments.windows(words.len());
    places.any(|place| place.iter().zip(words).all(|(argument, word)| *argument == word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use std::time::Instant;

    #[test]
    fn a_process_is_found_by_an_argument_and_killed_once() {
        let word = format!("vgpu-test-{}", std::process::id());
        let mut child =
            Command::new("sh").args(["-c", "read line", &word]).stdin(Stdio::piped()).spawn().unwrap();
        // Its arguments appear a moment after exec.
        let words = ["read line", &word].map(OsStr::new);
        let sh = Path::new("/bin/sh");
        let found = (0..1000).find_map(|_| with_arguments(sh, &words).pop()).unwrap();
        assert_eq!(found.pid, i32::try_from(child.id()).unwrap());
        assert_eq!(with_arguments(sh, &["sh", &word].map(OsStr::new)), [], "not in this order");
        assert_eq!(with_arguments(Path::new("xl"), &words), [], "another program's arguments are not read");
        found.kill().unwrap();
        assert!(!found.is_alive());
        child.wait().unwrap();
        found.kill().unwrap();
    }

    /// xl may be a script, and who serves the share may have a name that is longer than what the kernel keeps.
    #[test]
    fn a_script_of_a_long_name_is_found_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("a-share-server-of-ours");
        fs::write(&script, "#!/bin/sh\nread line\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        let word = format!("vgpu-test-name-{}", std::process::id());
        let mut child = Command::new(&script).arg(&word).stdin(Stdio::piped()).spawn().unwrap();
        let words = [script.as_os_str(), OsStr::new(&word)];
        let found = (0..1000).find_map(|_| with_arguments(&script, &words).pop()).unwrap();
        assert_eq!(found.pid, i32::try_from(child.id()).unwrap());
        found.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_left_a_child_in_its_group_is_gone() {
        use std::os::unix::process::CommandExt;

        let mut leader = Command::new("sh");
        leader.args(["-c", "sleep 60 > /dev/null 2>&1 & echo $!"]).process_group(0).stdout(Stdio::piped());
        let leader = leader.spawn().unwrap();
        let gone = Process { pid: i32::try_from(leader.id()).unwrap(), start_ticks: 0 };
        let said = leader.wait_with_output().unwrap().stdout;
        let child: u32 = String::from_utf8(said).unwrap().trim().parse().unwrap();
        gone.kill().unwrap();
        Process::of(child).unwrap().kill().unwrap();
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let (begun, limit) = (Instant::now(), Duration::from_millis(100));
        let hangs = output_within(Command::new("sh").args(["-c", "sleep 5 & wait"]), limit).unwrap_err();
        assert_eq!(hangs.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(4), "its child was waited for");
        let ends = output_within(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            Duration::from_secs(60),
        );
        let ends = ends.unwrap();
        assert_eq!(
            (ends.status.code(), &*ends.stdout, &*ends.stderr),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
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
