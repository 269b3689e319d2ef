//! The only guest of a containerd, from outside.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use vgpu_contract::left;

use crate::containerd::Containerd;

/// Its domain's cgroup.
pub fn cgroup(containerd: &Containerd) -> PathBuf {
    let lives = containerd.lives();
    let [uuid] = &lives[..] else { panic!("one pod: {lives:?}") };
    left::cgroup_of(uuid).expect("the domain has a cgroup")
}

/// Its first process, by its pid here.
pub fn pid_1(cgroup: &Path) -> i32 {
    left::pid_1(cgroup).expect("the guest has a PID 1")
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
