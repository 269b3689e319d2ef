//! A containerd whose shim is the local one, and what must be left of its node at the end.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};
pub use vgpu_contract::mock::until;
use vgpu_contract::mock::{Containerd as Mock, Runtime};

/// See the module.
pub struct Containerd(Mock);

impl Deref for Containerd {
    type Target = Mock;

    fn deref(&self) -> &Mock {
        &self.0
    }
}

impl Containerd {
    pub async fn new() -> Self {
        let program = env!("CARGO_BIN_EXE_containerd-shim-vgpulocal-v1").into();
        Containerd(Mock::new(Runtime::Local { program }).await)
    }

    /// The UUIDs of the lives that the shim has on disk.
    pub fn lives(&self) -> Vec<String> {
        let lives = fs::read_dir(self.node().join("sandboxes")).into_iter().flatten().flatten();
        let names = lives.map(|life| life.file_name().into_string().unwrap());
        names.map(|name| name.rsplit('+').next().unwrap().to_owned()).collect()
    }

    /// The cgroup of the only domain.
    pub fn cgroup(&self) -> PathBuf {
        let lives = self.lives();
        let [uuid] = &lives[..] else { panic!("one pod: {lives:?}") };
        cgroup_of(uuid).expect("the domain has a cgroup")
    }

    /// No domain, process, cgroup, mount or file is left of a node that had these lives.
    pub async fn assert_nothing_left(&self, lives: &[String]) {
        let dir = self.dir.path().to_str().unwrap();
        let left = || {
            let folders = ["domains", "devices", "shared", "sandboxes"].map(|name| self.node().join(name));
            let mut left: Vec<PathBuf> = folders
                .iter()
                .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
                .map(|entry| entry.path())
                .collect();
            left.extend(lives.iter().filter_map(|uuid| cgroup_of(uuid)));
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            left.extend(mounts.lines().filter(|line| line.contains(dir)).map(PathBuf::from));
            left.extend(processes(dir));
            left
        };
        // `delete` may go on after its answer.
        until("nothing is left", || left().is_empty(), || format!("{:?}", left())).await;
    }
}

fn cgroup_of(uuid: &str) -> Option<PathBuf> {
    let name = format!("vgpu-local-{uuid}");
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|place| Path::new(place).join(&name));
    places.into_iter().find(|place| place.exists())
}

/// The guest's first process, by its pid here. Source: `proc_pid_status(5)`, `NSpid`.
pub fn pid_1(cgroup: &Path) -> i32 {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    let is_first = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        inside.is_some_and(|pids| pids.split_whitespace().nth(1) == Some("1"))
    };
    pids.lines().find(|pid| is_first(pid)).expect("the guest has a PID 1").parse().unwrap()
}

/// SIGKILL.
pub fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

/// SIGSTOP.
pub fn stop(pid: i32) {
    signal(pid, Signal::STOP);
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The processes that have a word in their environment or among their arguments, as all of a node have its folder; not this one.
fn processes(word: &str) -> Vec<PathBuf> {
    let has = |path: PathBuf| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let others = all.filter(|path| !path.ends_with(std::process::id().to_string()));
    others.filter(|path| has(path.join("environ")) || has(path.join("cmdline"))).collect()
}
