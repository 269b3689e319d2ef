//! A containerd whose shim is the local one, and what must be left of its node at the end.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};
pub use vgpu_contract::mock::until;
use vgpu_contract::{
    left,
    mock::{Containerd as Mock, Runtime},
};

/// The shim, and what it has to lie beside.
pub const PROGRAMS: [&str; 2] =
    [env!("CARGO_BIN_EXE_containerd-shim-vgpulocal-v1"), env!("CARGO_BIN_EXE_guest-local")];

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
        Containerd::of(PROGRAMS[0].into()).await
    }

    /// Whose shim lies there.
    pub async fn of(program: PathBuf) -> Self {
        Containerd(Mock::new(Runtime::Local { program }).await)
    }

    /// The UUIDs of the lives that the shim has on disk.
    pub fn lives(&self) -> Vec<String> {
        left::lives(&self.node())
    }

    /// The cgroup of the only domain.
    pub fn cgroup(&self) -> PathBuf {
        let lives = self.lives();
        let [uuid] = &lives[..] else { panic!("one pod: {lives:?}") };
        left::cgroup_of(uuid).expect("the domain has a cgroup")
    }

    /// No domain, process, cgroup, mount or file is left of a node that had these lives.
    pub async fn assert_nothing_left(&self, lives: &[String]) {
        left::assert_nothing(self.dir.path(), &self.node(), lives).await;
    }
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
