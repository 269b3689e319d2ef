//! A process's pid as another process knows it: gpu-proxy has the guest's own, programs see those of their container.

use std::{
    fs,
    path::{Path, PathBuf},
};

use vgpu_zone_api::guest::facts::ProcessFacts;

/// `/proc` of the guest. Source: `proc_pid_status(5)`, NSpid; `pid_namespaces(7)`.
#[derive(Debug)]
pub struct Pids {
    proc: PathBuf,
}

impl Pids {
    /// That of PID 1.
    pub fn of_this_guest() -> Self {
        Self::at("/proc")
    }

    fn at(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into() }
    }

    /// Gives processes the pids by which `asker` knows them. Those that it cannot see, and those that are gone, are left out.
    pub fn translate(&self, asker: u32, processes: &mut Vec<ProcessFacts>) {
        let Some(sight) = self.namespace(asker) else { return processes.clear() };
        processes.retain_mut(|process| {
            let known = self.innermost(process.pid, &sight);
            known.inspect(|pid| process.pid = *pid).is_some()
        });
    }

    /// The pid in its own namespace, if that is `sight`.
    fn innermost(&self, pid: u32, sight: &Path) -> Option<u32> {
        if self.namespace(pid)? != sight {
            return None;
        }
        let status = fs::read_to_string(self.proc.join(pid.to_string()).join("status")).ok()?;
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        pids.split_whitespace().next_back()?.parse().ok()
    }

    fn namespace(&self, pid: u32) -> Option<PathBuf> {
        fs::read_link(self.proc.join(pid.to_string()).join("ns/pid")).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A /proc with processes: pid, namespace, pids from the outermost namespace to its own.
    fn proc(processes: &[(u32, &str, &str)]) -> (tempfile::TempDir, Pids) {
        let dir = tempfile::tempdir().unwrap();
        for (pid, namespace, pids) in processes {
            let process = dir.path().join(pid.to_string());
            fs::create_dir_all(process.join("ns")).unwrap();
            symlink(format!("pid:[{namespace}]"), process.join("ns/pid")).unwrap();
            fs::write(process.join("status"), format!("Name:\tx\nNSpid:\t{pids}\nNSsid:\t1\n")).unwrap();
        }
        let pids = Pids::at(dir.path());
        (dir, pids)
    }

    fn translated(pids: &Pids, asker: u32, told: &[u32]) -> Vec<u32> {
        let process = |pid: &u32| ProcessFacts { device: 0, pid: *pid, used_bytes: 0 };
        let mut processes = told.iter().map(process).collect();
        pids.translate(asker, &mut processes);
        processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn a_container_sees_its_own_processes_by_its_own_pids() {
        let (_dir, pids) = proc(&[
            (100, "7", "100\t1"),
            (101, "7", "101\t12"),
            (102, "8", "102\t1"),
            (103, "7", "103\t13"),
            (9, "1", "9"),
        ]);
        assert_eq!(translated(&pids, 103, &[100, 101, 102, 9, 555]), [1, 12]);
        assert_eq!(translated(&pids, 102, &[100, 102]), [1]);
        assert_eq!(translated(&pids, 9, &[9, 100]), [9]);
        assert!(translated(&pids, 444, &[100]).is_empty(), "an asker that is gone sees nobody");
    }

    #[test]
    fn processes_of_this_machine_are_found() {
        let own = std::process::id();
        assert_eq!(translated(&Pids::of_this_guest(), own, &[own]).len(), 1);
    }
}
