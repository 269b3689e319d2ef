//! What a pod leaves on a node while it lives: domains, processes, mounts, sockets, files, network links, xenstore nodes, cgroups,
//! containers, gpu-proxy's zones and the device memory in use.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::command::{SOON, run};

/// All traces at one moment, each a line that says its kind and name.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    lines: BTreeSet<String>,
    /// Tools that should have told and failed: nobody knows what is there.
    unseen: Vec<String>,
}

const VGPUCTL: &str = "/usr/bin/vgpuctl";
/// Directories whose entries come and go with pods.
const FILES: &[&str] = &[
    "/run/vgpu",
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/containerd/s",
    "/run/containerd/fifo",
];
/// Directories of a containerd namespace, which are kept for the next pod.
const KEPT: &[&str] = &[
    "/sys/fs/cgroup/default",
    "/run/containerd/io.containerd.runtime.v2.task/default",
    "/run/vgpu/sandboxes",
    "/run/vgpu/shared",
];
/// The xenstore directory that has this domain in it, whatever else is there.
const DOMAINS: &str = "/local/domain";
/// Xenstore directories with one entry a domain (or a device).
const XENSTORE: &[&str] = &[DOMAINS, "/local/domain/0/backend", "/local/domain/0/device", "/vm", "/libxl"];

impl Traces {
    /// What is there now.
    pub fn now() -> Self {
        let (mut lines, mut unseen) = (BTreeSet::new(), Vec::new());
        lines.extend(processes().into_iter().map(|process| process.line()));
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        lines
            .extend(mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(|at| format!("mount {at}")));
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let named = sockets.lines().filter_map(|line| line.split_whitespace().nth(7));
        lines.extend(named.map(|path| format!("socket {path}")));
        let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        lines.extend(links.map(|link| format!("network link {}", link.file_name().display())));
        for dir in FILES {
            add_files(&mut lines, Path::new(dir), 3);
        }
        add_cgroups(&mut lines, Path::new("/sys/fs/cgroup"));
        for dir in XENSTORE {
            unseen.extend(add_xenstore(&mut lines, dir, if dir.ends_with("backend") { 2 } else { 1 }).err());
        }
        // Not tasks: each has a directory among FILES, and every ctr costs a second of emulation.
        for what in ["containers", "snapshots"] {
            match told(&["ctr", what, "ls"]) {
                Ok(listed) => {
                    let names = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
                    lines.extend(names.map(|name| format!("{what} {name}")));
                }
                Err(why) => unseen.push(why),
            }
        }
        let listed = zones().unwrap_or_else(|why| {
            unseen.push(why);
            Vec::new()
        });
        for zone in listed {
            lines.insert(format!("zone {}", zone.id));
            if zone.device_memory != "0 B" {
                lines.insert(format!("device-memory {} of zone {}", zone.device_memory, zone.id));
            }
        }
        Self { lines, unseen }
    }

    /// What is here and not in `before`, and what could not be looked at.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.lines.difference(&before.lines).chain(&self.unseen).cloned().collect()
    }
}

/// A zone, as `vgpuctl ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub id: String,
    /// In use by its workers: a number and a unit.
    pub device_memory: String,
}

/// What a tool tells, or that it failed.
fn told(line: &[&str]) -> Result<String, String> {
    let ended = run(line, SOON);
    if ended.code == Some(0) {
        return Ok(ended.text());
    }
    Err(format!("(not known: {} failed: {})", line.join(" "), ended.complaint().trim()))
}

/// The zones that gpu-proxy has. None where it does not run, which its process shows.
pub fn zones() -> Result<Vec<Zone>, String> {
    if !processes().iter().any(Process::is_supervisor) {
        return Ok(Vec::new());
    }
    let listed = told(&[VGPUCTL, "ps"])?;
    // Behind the heading a line a zone; those of its grants and workers are indented.
    let lines = listed.lines().skip(1).filter(|line| !line.starts_with(' '));
    Ok(lines.filter_map(zone).collect())
}

/// `ZONE DOMAIN STATE NUMBER UNIT …`
fn zone(line: &str) -> Option<Zone> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some(Zone { id: (*words.first()?).into(), device_memory: words.get(3..5)?.join(" ") })
}

/// A process of Dom0. The start time tells it from a later one with the same id.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub start_ticks: u64,
    pub words: Vec<String>,
}

impl Process {
    fn line(&self) -> String {
        // One that was restarted is the same.
        if self.is_supervisor() || self.is_containerd() {
            return format!("process {}, the node's", self.program());
        }
        format!("process {} (started at {}) {}", self.pid, self.start_ticks, self.words.join(" "))
    }

    /// The gpu-proxy that is no worker.
    pub fn is_supervisor(&self) -> bool {
        self.program() == "gpu-proxy" && self.words.len() == 1
    }

    /// The node's own; that of a story has a configuration.
    pub fn is_containerd(&self) -> bool {
        self.program() == "containerd" && self.words.len() == 1
    }

    /// The program's file name.
    pub fn program(&self) -> &str {
        self.words[0].rsplit('/').next().unwrap_or_default()
    }
}

/// All processes but kernel threads, zombies, and ourselves with our children.
pub fn processes() -> Vec<Process> {
    let own = std::process::id();
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all = ids.filter_map(process);
    all.filter(|process| process.pid != own && process.parent != own).collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces; the fields behind it are counted from "state". Source: proc_pid_stat(5).
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = line
        .strip_suffix(b"\0")
        .unwrap_or(&line)
        .split(|&b| b == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    if line.is_empty() {
        return None;
    }
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        words,
    })
}

fn add_files(lines: &mut BTreeSet<String>, dir: &Path, depth: u32) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.path().display().to_string();
        if !KEPT.contains(&name.as_str()) {
            lines.insert(format!("file {name}"));
        }
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_files(lines, &entry.path(), depth - 1);
        }
    }
}

fn add_cgroups(lines: &mut BTreeSet<String>, dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let name = path.to_string_lossy().into_owned();
        if !KEPT.contains(&name.as_str()) {
            lines.insert(format!("cgroup {name}"));
        }
        add_cgroups(lines, &path);
    }
}

fn add_xenstore(lines: &mut BTreeSet<String>, dir: &str, depth: u32) -> Result<(), String> {
    let listed = match told(&["xenstore-list", dir]) {
        // The same answer for one that is not there: all of these but the domains may be.
        Err(why) if dir != DOMAINS && why.contains("could not list path") => return Ok(()),
        listed => listed?,
    };
    for name in listed.lines() {
        let path = format!("{dir}/{name}");
        // A kind of device that no domain has any more is an empty directory, of no harm.
        if depth == 1 {
            lines.insert(format!("xenstore {path}"));
        } else {
            add_xenstore(lines, &path, depth - 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_failed_is_left_behind_even_if_it_failed_before() {
        assert_eq!(told(&["echo", "a line"]).expect("it works"), "a line\n");
        let why = told(&["sh", "-c", "echo a line; echo nobody listens >&2; exit 1"]).expect_err("exit 1");
        assert!(why.contains("nobody listens"), "{why}");
        let blind = Traces { lines: BTreeSet::from(["zone a".into()]), unseen: vec![why.clone()] };
        assert_eq!(blind.since(&blind), [why]);
    }
}
