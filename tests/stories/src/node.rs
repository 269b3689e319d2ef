//! The fixture of all stories: this node, as it was before the story.

use std::fs;
use std::time::Duration;

use crate::command::{SOON, must, run, until};
use crate::pod::{Pod, Running, START};
use crate::traces::{Process, Traces, processes};

/// Everything of a pod is to be gone so soon after its end. On hardware the promise is 5 s; emulation is some ten times slower.
const GONE_WITHIN: Duration = Duration::from_secs(40);

/// The node a story plays on.
#[derive(Debug)]
pub struct Node {
    before: Traces,
}

impl Node {
    /// A node on which this is there before the story.
    pub fn with(before: Traces) -> Self {
        Self { before }
    }

    /// What was there before the story.
    pub fn before(&self) -> &Traces {
        &self.before
    }

    /// Starts a pod and does not wait for it.
    pub fn start(&self, pod: Pod) -> Running {
        Running::start(pod)
    }

    /// Nothing of what the story's pods had is there: domains, shims, workers, mounts, sockets, files, xenstore nodes, cgroups,
    /// containers. Returns what is there.
    pub fn assert_nothing_left(&self) -> Traces {
        let mut left = Vec::new();
        let clean = until(GONE_WITHIN, || {
            let now = Traces::now();
            left = now.since(&self.before);
            left.is_empty().then_some(now)
        });
        clean.unwrap_or_else(|| {
            panic!("left behind after {} s:\n    {}", GONE_WITHIN.as_secs(), left.join("\n    "))
        })
    }

    /// The domains but Dom0, by id.
    pub fn domains(&self) -> Vec<u32> {
        let listed = must(&["xl", "list"]);
        let ids = listed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
        ids.filter(|&id| id != 0).collect()
    }

    /// The memory of one in MiB, as Xen has it.
    pub fn memory_mib(&self, domain: u32) -> u64 {
        shown(&["xl", "list", &domain.to_string()], 2)
    }

    /// How many virtual CPUs of one its guest has started, as Xen sees it.
    pub fn cpus(&self, domain: u32) -> u64 {
        shown(&["xl", "list", &domain.to_string()], 3)
    }

    /// The most CPU time that Xen gives one, in hundredths of a CPU; 0: there is no such bound.
    pub fn cap_percent(&self, domain: u32) -> u64 {
        shown(&["xl", "sched-credit2", "-d", &domain.to_string()], 3)
    }

    /// Makes a guest hang.
    pub fn pause(&self, domain: u32) {
        let id = domain.to_string();
        must(&["xl", "pause", &id]);
        // xl pause succeeds whatever Xen has answered.
        let listed = must(&["xl", "list", &id]);
        let state = listed.lines().nth(1).and_then(|line| line.split_whitespace().nth(4));
        assert!(state.is_some_and(|state| state.contains('p')), "domain {id} is not paused: {listed}");
    }

    /// The gpu-proxy that is no worker.
    pub fn supervisor(&self) -> u32 {
        let found = processes().into_iter().find(Process::is_supervisor);
        found.expect("gpu-proxy runs").pid
    }

    /// The workers of gpu-proxy: one a guest process.
    pub fn workers(&self) -> Vec<Process> {
        let mut workers = self.processes_of("gpu-proxy");
        workers.retain(|process| process.words.get(1).is_some_and(|word| word == "worker"));
        workers
    }

    /// Workers end by themselves, whoever served them: before a new gpu-proxy's cgroup is emptied, which would end them too.
    pub fn assert_no_worker_within(&self, limit: Duration) {
        let ended = until(limit, || self.workers().is_empty().then_some(()));
        assert!(ended.is_some(), "workers are left: {:?}", self.workers());
    }

    /// Ends containerd at once.
    pub fn kill_containerd(&self) {
        let found = self.processes_of("containerd");
        assert!(!found.is_empty(), "no containerd is there");
        found.iter().for_each(|process| kill_9(process.pid));
        let gone = until(SOON, || self.processes_of("containerd").is_empty().then_some(()));
        assert!(gone.is_some(), "kill -9 works");
    }

    /// The processes of one program.
    pub fn processes_of(&self, program: &str) -> Vec<Process> {
        processes().into_iter().filter(|process| process.program() == program).collect()
    }
}

/// Starts containerd, as systemd's Restart=always does, and waits until it serves.
pub fn start_containerd() {
    // It outlives us.
    must(&["sh", "-c", "setsid containerd >> /tmp/containerd.log 2>&1 < /dev/null &"]);
    let serves = until(START, || (run(&["ctr", "version"], SOON).code == Some(0)).then_some(()));
    assert!(serves.is_some(), "containerd does not serve");
}

/// Ends a process at once.
pub fn kill_9(pid: u32) {
    must(&["kill", "-9", &pid.to_string()]);
}

/// The ends of the logs that tell why a story failed.
pub fn recent_logs() -> String {
    let mut text = String::new();
    let consoles =
        fs::read_dir("/var/log/xen/console").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = consoles.collect();
    files.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
    let newest = files.split_off(files.len().saturating_sub(2));
    let daemons = ["/var/log/vgpu/gpu-proxy.log", "/tmp/containerd.log"].map(std::path::PathBuf::from);
    for path in newest.into_iter().chain(daemons) {
        let Ok(log) = fs::read(&path) else { continue };
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(12)..];
        text.push_str(&format!("    --- {}\n    {}\n", path.display(), tail.join("\n    ")));
    }
    text
}

/// Removes by force what a failed story left, so that the next one is not blamed for it.
pub fn clean_up(before: &Traces) {
    if !processes().iter().any(Process::is_containerd) {
        start_containerd();
    }
    for line in Traces::now().since(before) {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("process"), Some(pid)) => drop(run(&["kill", "-9", pid], SOON)),
            (Some("xenstore"), Some(path)) => {
                if let Some(id) = path.strip_prefix("/local/domain/").filter(|id| id.parse::<u32>().is_ok()) {
                    run(&["xl", "destroy", id], SOON);
                } else {
                    run(&["xenstore-rm", path], SOON);
                }
            }
            (Some("containers"), Some(name)) => {
                run(&["ctr", "task", "rm", "-f", name], SOON);
                run(&["ctr", "container", "rm", name], SOON);
            }
            (Some("snapshots"), Some(name)) => drop(run(&["ctr", "snapshots", "rm", name], SOON)),
            (Some("network"), Some("link")) => {
                drop(run(&["ip", "link", "delete", words.next().unwrap_or_default()], SOON));
            }
            (Some("mount"), Some(path)) => drop(run(&["umount", "-l", path], SOON)),
            _ => {}
        }
    }
}

/// A number in the last line that a tool of Xen prints, by its column from 0.
fn shown(command: &[&str], column: usize) -> u64 {
    let listed = must(command);
    let number = listed.lines().last().and_then(|line| line.split_whitespace().nth(column)?.parse().ok());
    number.unwrap_or_else(|| panic!("{command:?} printed {listed}"))
}
