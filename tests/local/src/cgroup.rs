//! The cgroup of a domain: all processes of its guest, whoever started them. Frozen, it is a domain that is paused.
//!
//! Files and their formats: Linux `Documentation/admin-guide/cgroup-v2.rst`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use uuid::Uuid;

/// Killed processes end at once, unless the kernel holds them.
const END_LIMIT: Duration = Duration::from_secs(10);
const END_PAUSE: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug)]
pub struct DomainCgroup(PathBuf);

/// Where this machine has cgroup2, beside version 1 or alone. Source: `proc_pid_mountinfo(5)`.
///
/// # Errors
/// It has none.
pub fn hierarchy() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let place = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        (kind.starts_with("cgroup2 ") && fields.next()? == "/").then(|| fields.next().map(PathBuf::from))?
    };
    mounts.lines().find_map(place).ok_or_else(|| io::Error::other("this machine has no cgroup2"))
}

impl DomainCgroup {
    /// Of a domain, made or not.
    ///
    /// # Errors
    /// As [`hierarchy`].
    pub fn of(uuid: Uuid) -> io::Result<Self> {
        Ok(DomainCgroup(hierarchy()?.join(format!("vgpu-local-{uuid}"))))
    }

    /// Makes it, so that who enters stops.
    ///
    /// # Errors
    /// mkdir(2)'s.
    pub fn make_frozen(&self) -> io::Result<()> {
        fs::create_dir(&self.0)?;
        self.write("cgroup.freeze", "1")
    }

    /// Moves a process into it.
    ///
    /// # Errors
    /// One of the two is gone.
    pub fn take(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Lets its processes run.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> io::Result<()> {
        self.write("cgroup.freeze", "0")
    }

    /// Its first process: the only one until it is thawed.
    ///
    /// # Errors
    /// It is gone or empty.
    pub fn first(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs"))?;
        let first = text.lines().next().and_then(|line| line.parse().ok());
        first.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether a process is in it or below it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.0.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            // A cgroup that is being removed answers with the latter.
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Kills all its processes and waits for their end. None is no error.
    ///
    /// # Errors
    /// The kernel holds one.
    pub fn kill(&self) -> io::Result<()> {
        let begun = Instant::now();
        while self.is_populated()? {
            match self.write("cgroup.kill", "1") {
                Err(error) if !is_gone(&error) => return Err(error),
                _ if begun.elapsed() > END_LIMIT => return Err(io::ErrorKind::TimedOut.into()),
                _ => thread::sleep(END_PAUSE),
            }
        }
        Ok(())
    }

    /// Removes it, with those that its guest made. Gone already is no error.
    ///
    /// # Errors
    /// Something still is in it.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.0)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn remove(cgroup: &Path) -> io::Result<()> {
    let below = match fs::read_dir(cgroup) {
        Err(error) if is_gone(&error) => return Ok(()),
        listed => listed?,
    };
    for entry in below {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    match fs::remove_dir(cgroup) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}
