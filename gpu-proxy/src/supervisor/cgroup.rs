//! Cgroups (version 2) of workers: `<base>/pod<uid>/worker-<n>`, with `pod<uid>` as one whole component, so that the usual GPU
//! exporters find the pod. Source: Linux `Documentation/admin-guide/cgroup-v2.rst`.
//!
//! The base is the service's own cgroup if systemd delegated it (the supervisor then moves itself into a leaf, for the kernel wants
//! processes in leaves only), else `/vgpu-proxy/<pid>-<start time>-<number>`: a pid is given again. What an earlier supervisor left behind is
//! removed at start.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Processes and threads of one worker: NVIDIA's driver starts about ten, a launch of the soft device eight.
const PIDS_MAX: u64 = 256;
/// Those of all workers of a zone together.
const ZONE_PIDS_MAX: u64 = 1024;
/// A zone's workers together may use as much host memory as so many of them alone, and half of the machine's at most.
const ZONE_MEMORY_WORKERS: u64 = 4;
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Supervisors without a delegated cgroup meet here.
const SHARED: &str = "vgpu-proxy";

/// Where workers' cgroups are made.
#[derive(Debug)]
pub struct Cgroups {
    base: PathBuf,
    /// The supervisor's own folder, to be removed with it; not a delegated one.
    own: bool,
    /// The controllers that this machine has. Their limits are set, or a worker is not made.
    controllers: Vec<&'static str>,
    memory_max_bytes: u64,
    zone_memory_max_bytes: u64,
}

/// The cgroup of one worker. Removed when dropped, once its processes are gone.
#[derive(Debug)]
pub struct WorkerCgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Finds or makes the base, and removes what was left there. The second is what will be missing, one sentence each.
    ///
    /// # Errors
    /// No cgroup can be made at all: then workers run without.
    pub fn prepare(memory_max_bytes: u64) -> io::Result<(Self, Vec<String>)> {
        let root = mount_point()?;
        let mine = own_path()?;
        let delegated = is_delegated(&root, &mine);
        let base = if delegated {
            let base = root.join(&mine);
            let leaf = base.join("supervisor");
            fs::create_dir_all(&leaf)?;
            fs::write(leaf.join("cgroup.procs"), "0")?;
            base
        } else {
            let shared = root.join(SHARED);
            remove_orphans(&shared);
            let base = shared.join(own_name()?);
            // First: nobody takes away a shared folder that somebody is in, and with it what is enabled there.
            make(&base)?;
            let _ = enable_controllers(&root);
            let _ = enable_controllers(&shared);
            base
        };
        remove_pods(&base);
        let missing = enable_controllers(&base);
        let gaps =
            missing.iter().map(|name| format!("workers have no limit of {name}: no such cgroup controller"));
        let gaps = gaps.collect();
        let controllers = CONTROLLERS.into_iter().filter(|name| !missing.contains(name)).collect();
        let zone_memory_max_bytes = zone_memory_max_bytes(memory_max_bytes, machine_memory_bytes());
        Ok((Self { base, own: !delegated, controllers, memory_max_bytes, zone_memory_max_bytes }, gaps))
    }

    /// A cgroup for worker `number` of the pod. `pod_uid` has been checked: letters, digits and `-` only.
    ///
    /// # Errors
    /// What the system says. A limit that cannot be set is an error: a worker without it is none.
    pub fn worker(&self, pod_uid: &str, number: u64) -> io::Result<WorkerCgroup> {
        let pod = self.base.join(format!("pod{pod_uid}"));
        fs::create_dir_all(&pod)?;
        self.limit(&pod, "memory.max", self.zone_memory_max_bytes)?;
        self.limit(&pod, "pids.max", ZONE_PIDS_MAX)?;
        for name in &self.controllers {
            set(&pod.join("cgroup.subtree_control"), &format!("+{name}"))?;
        }
        let worker = WorkerCgroup { path: pod.join(format!("worker-{number}")) };
        fs::create_dir_all(&worker.path)?;
        self.limit(&worker.path, "memory.max", self.memory_max_bytes)?;
        self.limit(&worker.path, "pids.max", PIDS_MAX)?;
        match self.limit(&worker.path, "memory.swap.max", 0) {
            // A kernel that does not count swap has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            set => set?,
        }
        Ok(worker)
    }

    /// Nothing where the machine lacks the controller: that was said as a gap.
    fn limit(&self, folder: &Path, file: &str, value: u64) -> io::Result<()> {
        let controller = file.split('.').next().unwrap_or_default();
        if self.controllers.contains(&controller) {
            return set(&folder.join(file), &value.to_string());
        }
        Ok(())
    }

    /// Removes the cgroup of a pod that has no workers left.
    pub fn remove_pod(&self, pod_uid: &str) {
        let _ = fs::remove_dir(self.base.join(format!("pod{pod_uid}")));
    }

    /// Removes all that was made here, once no worker is left.
    pub fn remove_all(&self) {
        remove_pods(&self.base);
        if self.own {
            let _ = fs::remove_dir(&self.base);
            // Stays while another supervisor is in it.
            let _ = self.base.parent().map(fs::remove_dir);
        }
    }
}

#[cfg(test)]
impl Cgroups {
    /// Of a machine without controllers, below any folder.
    pub fn without_controllers(base: &Path) -> Self {
        let base = base.to_owned();
        Self { base, own: false, controllers: Vec::new(), memory_max_bytes: 0, zone_memory_max_bytes: 0 }
    }
}

impl WorkerCgroup {
    /// To be born in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.path)?.into())
    }
}

impl Drop for WorkerCgroup {
    fn drop(&mut self) {
        remove_leaf(&self.path);
    }
}

/// A supervisor that ends takes away the folder that all meet in while nobody is in it: so perhaps just before ours is, or while the one
/// that another made is looked at.
fn make(base: &Path) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, NotFound};
    for _ in 0..100 {
        match fs::create_dir_all(base) {
            Err(error) if matches!(error.kind(), AlreadyExists | NotFound) => {}
            done => return done,
        }
    }
    fs::create_dir_all(base)
}

/// Ends what is left in a leaf and removes it. A process that was just killed may take a moment to leave.
fn remove_leaf(path: &Path) {
    for _ in 0..50 {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let _ = fs::write(path.join("cgroup.kill"), "1");
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => return,
        }
    }
    log::warn!("the cgroup {} still has processes", path.display());
}

fn children(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn remove_pods(base: &Path) {
    let is_pod =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pod"));
    for pod in children(base).filter(is_pod) {
        children(&pod).for_each(|worker| remove_leaf(&worker));
        let _ = fs::remove_dir(pod);
    }
}

/// Removes the folders of supervisors that are gone.
fn remove_orphans(shared: &Path) {
    for base in children(shared) {
        let Some(name) = base.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(pid) = name.split('-').next().and_then(|pid| pid.parse().ok()) else { continue };
        let lives = identity(pid).is_ok_and(|living| {
            name.strip_prefix(&living).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        if !lives {
            remove_pods(&base);
            let _ = fs::remove_dir(base);
        }
    }
}

/// A supervisor's own: tests have several in one process.
fn own_name() -> io::Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Ok(format!("{}-{}", identity(std::process::id())?, NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A process's number and when it started, in ticks since boot. Source: `proc_pid_stat(5)`, the twentieth field after the name.
fn identity(pid: u32) -> io::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let start = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(19));
    Ok(format!("{pid}-{}", start.ok_or(io::ErrorKind::InvalidData)?))
}

/// Enables each controller for the children of `path`; those that were refused.
fn enable_controllers(path: &Path) -> Vec<&'static str> {
    let file = path.join("cgroup.subtree_control");
    CONTROLLERS.into_iter().filter(|name| fs::write(&file, format!("+{name}")).is_err()).collect()
}

fn zone_memory_max_bytes(worker_bytes: u64, machine_bytes: u64) -> u64 {
    worker_bytes.saturating_mul(ZONE_MEMORY_WORKERS).min(machine_bytes / 2)
}

fn machine_memory_bytes() -> u64 {
    let machine = rustix::system::sysinfo();
    machine.totalram.saturating_mul(machine.mem_unit.into())
}

/// Writes a file of a cgroup, which is there or fails.
fn set(file: &Path, value: &str) -> io::Result<()> {
    let written =
        File::options().write(true).open(file).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}

/// Where version 2 is mounted. Source: `proc_pid_mountinfo(5)`: the mount point is the fifth field, the type follows ` - `.
fn mount_point() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let v2 =
        mounts.lines().find(|line| line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("cgroup2 ")));
    v2.and_then(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cgroups of version 2 are not mounted"))
}

/// Whether the cgroup was made for this process: a start by systemd has a number in the environment, and the service's cgroup has nobody
/// else in it. The number alone is inherited by all that a service or a login starts. Source: `systemd.exec(5)`.
fn is_delegated(root: &Path, mine: &Path) -> bool {
    let alone = || {
        let members = fs::read_to_string(root.join(mine).join("cgroup.procs"));
        members.is_ok_and(|members| members.trim() == std::process::id().to_string())
    };
    mine != Path::new("") && std::env::var_os("INVOCATION_ID").is_some() && alone()
}

/// This process's cgroup below the mount point, without its leading `/`.
fn own_path() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_worker_whose_limit_cannot_be_set_is_not_made() {
        let base = tempfile::tempdir().unwrap();
        let with = |controllers| Cgroups { controllers, ..Cgroups::without_controllers(base.path()) };
        // A machine without the controllers: nothing to set.
        drop(with(vec![]).worker("a", 1).unwrap());
        // One that has them, and no file to write: this is no cgroup.
        for controllers in [vec!["memory"], vec!["pids"], vec!["cpu"]] {
            assert!(with(controllers.clone()).worker("a", 1).is_err(), "{controllers:?}");
        }
        assert!(!base.path().join("poda/worker-1").exists(), "the failed one's folder is left");
    }

    #[test]
    fn a_zone_may_use_four_workers_memory_and_never_more_than_half_the_machines() {
        assert_eq!(zone_memory_max_bytes(4 * GIB, 64 * GIB), 16 * GIB);
        assert_eq!(zone_memory_max_bytes(4 * GIB, 24 * GIB), 12 * GIB);
        assert_eq!(zone_memory_max_bytes(u64::MAX, 24 * GIB), 12 * GIB);
        assert!(machine_memory_bytes() > GIB / 4);
    }

    #[test]
    fn what_a_dead_supervisor_left_goes_even_if_its_number_lives_again() {
        let shared = tempfile::tempdir().unwrap();
        let living = [(); 2].map(|()| shared.path().join(own_name().unwrap()));
        assert_ne!(living[0], living[1], "a process can have two");
        // The first process is alive, and did not start at the end of time.
        let dead = ["1-99999999999-0", "4194304-5-0"].map(|name| shared.path().join(name));
        for base in dead.iter().chain(&living) {
            fs::create_dir_all(base.join("poda-1/worker-1")).unwrap();
        }
        remove_orphans(shared.path());
        assert_eq!(living.map(|base| base.join("poda-1/worker-1").exists()), [true, true]);
        assert_eq!(dead.map(|base| base.exists()), [false, false]);
    }

    #[test]
    fn a_supervisor_that_ends_takes_no_folder_from_one_that_starts() {
        let shared = tempfile::tempdir().unwrap();
        let shared = shared.path().join(SHARED);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let base = shared.join(number.to_string());
                scope.spawn(move || {
                    for _ in 0..300 {
                        make(&base).unwrap();
                        fs::remove_dir(&base).unwrap();
                        let _ = base.parent().map(fs::remove_dir);
                    }
                });
            }
        });
    }
}
