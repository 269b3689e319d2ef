//! Cgroups (version 2) of workers: `<base>/pod<uid>/worker-<n>`, with `pod<uid>` as one whole component, so that the usual GPU
//! exporters find the pod. Source: Linux `Documentation/admin-guide/cgroup-v2.rst`.
//!
//! The base is the service's own cgroup if systemd delegated it (the supervisor then moves itself into a leaf, for the kernel wants
//! processes in leaves only), else `/vgpu-proxy/<pid>-<start time>`: a number is given again. What an earlier supervisor left behind is
//! removed at start.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Processes and threads of one worker: NVIDIA's driver starts about ten, a launch of the soft device eight.
const PIDS_MAX: u32 = 256;
/// A zone's workers together may use as much host memory as so many of them alone.
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
    memory_max_bytes: u64,
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
        let delegated = rustix::process::getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == 1)
            && std::env::var_os("INVOCATION_ID").is_some()
            && mine != Path::new("");
        let base = if delegated {
            let base = root.join(&mine);
            let leaf = base.join("supervisor");
            fs::create_dir_all(&leaf)?;
            fs::write(leaf.join("cgroup.procs"), "0")?;
            base
        } else {
            let shared = root.join(SHARED);
            fs::create_dir_all(&shared)?;
            remove_orphans(&shared);
            let _ = enable_controllers(&root);
            let _ = enable_controllers(&shared);
            shared.join(identity(std::process::id())?)
        };
        fs::create_dir_all(&base)?;
        remove_pods(&base);
        let missing = enable_controllers(&base);
        let gaps =
            missing.iter().map(|name| format!("workers have no limit of {name}: no such cgroup controller"));
        Ok((Self { base, own: !delegated, memory_max_bytes }, gaps.collect()))
    }

    /// A cgroup for worker `number` of the pod. `pod_uid` has been checked: letters, digits and `-` only.
    ///
    /// # Errors
    /// What the system says.
    pub fn worker(&self, pod_uid: &str, number: u64) -> io::Result<WorkerCgroup> {
        let pod = self.base.join(format!("pod{pod_uid}"));
        fs::create_dir_all(&pod)?;
        enable_controllers(&pod);
        let zone_bytes = self.memory_max_bytes.saturating_mul(ZONE_MEMORY_WORKERS);
        // Absent where the controller is: said once, as a gap.
        let _ = fs::write(pod.join("memory.max"), zone_bytes.to_string());
        let path = pod.join(format!("worker-{number}"));
        fs::create_dir_all(&path)?;
        let _ = fs::write(path.join("memory.max"), self.memory_max_bytes.to_string());
        let _ = fs::write(path.join("memory.swap.max"), "0");
        let _ = fs::write(path.join("pids.max"), PIDS_MAX.to_string());
        Ok(WorkerCgroup { path })
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
        if identity(pid).ok().as_deref() != Some(name) {
            remove_pods(&base);
            let _ = fs::remove_dir(base);
        }
    }
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

/// Where version 2 is mounted. Source: `proc_pid_mountinfo(5)`: the mount point is the fifth field, the type follows ` - `.
fn mount_point() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let v2 =
        mounts.lines().find(|line| line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("cgroup2 ")));
    v2.and_then(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cgroups of version 2 are not mounted"))
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

    #[test]
    fn what_a_dead_supervisor_left_goes_even_if_its_number_lives_again() {
        let shared = tempfile::tempdir().unwrap();
        let living = shared.path().join(identity(std::process::id()).unwrap());
        // The first process is alive, and did not start at the end of time.
        let dead = [shared.path().join("1-99999999999"), shared.path().join("4194304-5")];
        for base in dead.iter().chain([&living]) {
            fs::create_dir_all(base.join("poda-1/worker-1")).unwrap();
        }
        remove_orphans(shared.path());
        assert!(living.join("poda-1/worker-1").exists());
        assert_eq!(dead.map(|base| base.exists()), [false, false]);
    }
}
