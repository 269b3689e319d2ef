//! A container's cgroup (version 2): its processes, statistics, freezer and memory events. Limits are written by `libcontainer`.
//!
//! Files and their formats: Linux `Documentation/admin-guide/cgroup-v2.rst`.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_shim_protos::cgroups_v2::metrics::{CPUStat, MemoryEvents, MemoryStat, Metrics, PidsStat};
use protobuf::MessageField;

/// Where the guest mounts cgroup2.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// The parent of all containers' cgroups.
const PARENT: &str = "/vgpu";

/// A container's cgroup, absolute below the mount.
pub fn of_container(id: &str) -> PathBuf {
    Path::new(PARENT).join(id)
}

/// Together two seconds: SIGKILL takes effect when the process next leaves the kernel, and a 9p request may hold it there.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// One cgroup directory.
#[derive(Clone, Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// The cgroup at `path`, absolute below the mount.
    pub fn new(path: &Path) -> Self {
        Self { directory: Path::new(MOUNT).join(path.strip_prefix("/").unwrap_or(path)) }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    #[cfg(test)]
    fn at(directory: &Path) -> Self {
        Self { directory: directory.into() }
    }

    /// The pids in it, in the guest's root pid namespace.
    /// # Errors
    /// It does not exist.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let text = fs::read_to_string(self.directory.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// SIGKILL to every process in it and below it.
    /// # Errors
    /// It does not exist.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.kill"), "1")
    }

    /// Stops or continues all its processes. [`Cgroup::is_frozen`] says when it is done.
    /// # Errors
    /// It does not exist.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })
    }

    /// Whether every process is stopped.
    /// # Errors
    /// It does not exist.
    pub fn is_frozen(&self) -> io::Result<bool> {
        Ok(self.flat("cgroup.events")?.get("frozen") == Some(&1))
    }

    /// The file that changes when the kernel kills for memory; it can be watched.
    pub fn memory_events_file(&self) -> PathBuf {
        self.directory.join("memory.events")
    }

    /// Kills what is left in it and removes it. It may be gone already.
    /// # Errors
    /// A process of it does not die within two seconds.
    pub async fn remove(&self) -> io::Result<()> {
        let mut tries = 0;
        loop {
            let killed = self.kill();
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if tries == REMOVE_TRIES => return Err(killed.err().unwrap_or(error)),
                Err(_) => tokio::time::sleep(REMOVE_PAUSE).await,
                Ok(()) => return Ok(()),
            }
            tries += 1;
        }
    }

    /// How often the kernel killed a process of it because of its memory limit.
    /// # Errors
    /// It does not exist.
    pub fn oom_kills(&self) -> io::Result<u64> {
        Ok(self.flat("memory.events")?.get("oom_kill").copied().unwrap_or(0))
    }

    /// The statistics, as containerd's CRI wants them (`io.containerd.cgroups.v2.Metrics`).
    /// # Errors
    /// It does not exist.
    pub fn metrics(&self) -> io::Result<Metrics> {
        let mut metrics = Metrics::new();
        metrics.pids = MessageField::some(self.pids_stat()?);
        metrics.cpu = MessageField::some(self.cpu_stat()?);
        metrics.memory = MessageField::some(self.memory_stat()?);
        metrics.memory_events = MessageField::some(self.memory_events()?);
        Ok(metrics)
    }

    fn pids_stat(&self) -> io::Result<PidsStat> {
        let mut stat = PidsStat::new();
        stat.current = self.single("pids.current")?;
        stat.limit = self.single("pids.max")?;
        Ok(stat)
    }

    fn cpu_stat(&self) -> io::Result<CPUStat> {
        let values = self.flat("cpu.stat")?;
        let get = |key: &str| values.get(key).copied().unwrap_or(0);
        let mut stat = CPUStat::new();
        stat.usage_usec = get("usage_usec");
        stat.user_usec = get("user_usec");
        stat.system_usec = get("system_usec");
        stat.nr_periods = get("nr_periods");
        stat.nr_throttled = get("nr_throttled");
        stat.throttled_usec = get("throttled_usec");
        Ok(stat)
    }

    fn memory_stat(&self) -> io::Result<MemoryStat> {
        let values = self.flat("memory.stat")?;
        let get = |key: &str| values.get(key).copied().unwrap_or(0);
        let mut stat = MemoryStat::new();
        stat.usage = self.single("memory.current")?;
        stat.usage_limit = self.single("memory.max")?;
        stat.anon = get("anon");
        stat.file = get("file");
        stat.kernel_stack = get("kernel_stack");
        stat.slab = get("slab");
        stat.sock = get("sock");
        stat.shmem = get("shmem");
        stat.file_mapped = get("file_mapped");
        stat.file_dirty = get("file_dirty");
        stat.file_writeback = get("file_writeback");
        stat.anon_thp = get("anon_thp");
        stat.inactive_anon = get("inactive_anon");
        stat.active_anon = get("active_anon");
        stat.inactive_file = get("inactive_file");
        stat.active_file = get("active_file");
        stat.unevictable = get("unevictable");
        stat.slab_reclaimable = get("slab_reclaimable");
        stat.slab_unreclaimable = get("slab_unreclaimable");
        stat.pgfault = get("pgfault");
        stat.pgmajfault = get("pgmajfault");
        Ok(stat)
    }

    fn memory_events(&self) -> io::Result<MemoryEvents> {
        let values = self.flat("memory.events")?;
        let get = |key: &str| values.get(key).copied().unwrap_or(0);
        let mut events = MemoryEvents::new();
        events.low = get("low");
        events.high = get("high");
        events.max = get("max");
        events.oom = get("oom");
        events.oom_kill = get("oom_kill");
        Ok(events)
    }

    /// A file of one number; "max" is the largest.
    fn single(&self, file: &str) -> io::Result<u64> {
        let text = fs::read_to_string(self.directory.join(file))?;
        Ok(text.trim().parse().unwrap_or(u64::MAX))
    }

    /// A file of lines "key number".
    fn flat(&self, file: &str) -> io::Result<HashMap<String, u64>> {
        let text = fs::read_to_string(self.directory.join(file))?;
        let pair = |line: &str| {
            line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
        };
        Ok(text.lines().filter_map(pair).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_become_metrics() {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cgroup.procs", "1\n23\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("cpu.stat", "usage_usec 10\nuser_usec 7\nsystem_usec 3\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "1048576\n"),
            ("memory.stat", "anon 1024\nfile 2048\n"),
            ("memory.events", "low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\n"),
        ] {
            fs::write(directory.path().join(file), text).unwrap();
        }
        let cgroup = Cgroup::at(directory.path());
        let metrics = cgroup.metrics().unwrap();
        assert_eq!(cgroup.pids().unwrap(), [1, 23]);
        assert_eq!(metrics.pids.limit, u64::MAX);
        assert_eq!(metrics.cpu.user_usec, 7);
        assert_eq!((metrics.memory.usage, metrics.memory.anon), (4096, 1024));
        assert_eq!(cgroup.oom_kills().unwrap(), 1);
        assert!(Cgroup::new(Path::new("/vgpu/no-such")).metrics().is_err());
    }
}
