//! What must not be left of a containerd's directory and of the local shim's node in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::mock::until;

/// The UUIDs of the lives that the local shim has on disk.
pub fn lives(node: &Path) -> Vec<String> {
    let lives = fs::read_dir(node.join("sandboxes")).into_iter().flatten().flatten();
    let names = lives.map(|life| life.file_name().to_string_lossy().into_owned());
    names.map(|name| name.rsplit('+').next().unwrap_or_default().to_owned()).collect()
}

/// No domain, process, cgroup, mount, socket or file is left of a node in `dir` that had these lives.
///
/// # Panics
/// Something is.
pub async fn assert_nothing(dir: &Path, node: &Path, lives: &[String]) {
    let left = || of(dir, node, lives);
    // `delete` may go on after its answer.
    until("nothing is left", || left().is_empty(), || format!("{:?}", left())).await;
}

/// What there is of a node in `dir` that had these lives, but for its folders: processes where there is nothing else.
///
/// # Panics
/// /proc is not mounted.
pub fn of(dir: &Path, node: &Path, lives: &[String]) -> Vec<PathBuf> {
    let word = word(dir);
    let mut left = Vec::new();
    for entry in below(node) {
        let is_folder = entry.is_dir();
        left.extend(if is_folder { below(&entry) } else { vec![entry] });
    }
    left.extend(lives.iter().filter_map(|uuid| cgroup_of(uuid)));
    let lines = |file: &str| fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mounts = lines("/proc/self/mountinfo");
    left.extend(mounts.lines().filter(|line| line.contains(&word)).map(PathBuf::from));
    let (sockets, ours) = (lines("/proc/net/unix"), format!("{}/", node.display()));
    left.extend(sockets.lines().filter(|line| line.contains(&ours)).map(PathBuf::from));
    // Last: it takes a look at every process of the machine.
    if left.is_empty() {
        left.extend(processes(&word).into_iter().map(|process| process.join(line(&process))));
    }
    left
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The cgroup of a local domain.
pub fn cgroup_of(uuid: &str) -> Option<PathBuf> {
    let name = format!("vgpu-local-{uuid}");
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|place| Path::new(place).join(&name));
    places.into_iter().find(|place| place.exists())
}

/// The first process of a local domain's guest, by its pid here. Source: `proc_pid_status(5)`, `NSpid`.
pub fn pid_1(cgroup: &Path) -> Option<i32> {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    let is_first = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        inside.is_some_and(|pids| pids.split_whitespace().nth(1) == Some("1"))
    };
    pids.lines().find(|pid| is_first(pid))?.parse().ok()
}

/// Ends what is left of local domains. Says how many there were.
pub fn end_domains(lives: &[String]) -> usize {
    let left: Vec<_> = lives.iter().filter_map(|uuid| cgroup_of(uuid)).collect();
    for cgroup in &left {
        eprintln!("ended {}: {:?}", cgroup.display(), fs::write(cgroup.join("cgroup.kill"), "1"));
        remove_empty(cgroup);
    }
    left.len()
}

/// With those below it, as far as they have no processes.
fn remove_empty(cgroup: &Path) {
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|below| below.path().is_dir()) {
        remove_empty(&below.path());
    }
    // One that has is there at the next look.
    let _ = fs::remove_dir(cgroup);
}

/// Ends the processes that are left of a directory and have a word among their arguments. Says how many there were.
pub fn end(dir: &Path, argument: &str) -> usize {
    let mut left = processes(&word(dir));
    left.retain(|process| line(process).contains(argument));
    for process in &left {
        let pid = process.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        eprintln!("ended {}: {:?}", line(process), pid.map(|pid| kill_process(pid, Signal::KILL)));
    }
    left.len()
}

/// A process's arguments.
fn line(process: &Path) -> String {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// A directory's name is in each mount of what is below it, whatever its path is in there.
fn word(dir: &Path) -> String {
    dir.file_name().expect("a directory of its own").to_string_lossy().into_owned()
}

/// The processes, but this one, that have a word in their environment, among their arguments or in mounts of their own, as all of a node have
/// its folder's name. What this process sees mounted every other one here sees, too.
fn processes(word: &str) -> Vec<PathBuf> {
    let has = |path: PathBuf| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    let all = fs::read_dir("/proc").expect("it is mounted").flatten().map(|entry| entry.path());
    let numbers =
        all.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit()));
    let others = numbers.filter(|path| !path.ends_with(std::process::id().to_string()));
    let mounts = |path: &Path| fs::read_link(path.join("ns/mnt")).ok();
    let ours = mounts(Path::new("/proc/self"));
    let files = |path: &Path| match mounts(path) {
        Some(its) if Some(&its) != ours.as_ref() => ["environ", "cmdline", "mountinfo"].as_slice(),
        _ => &["environ", "cmdline"],
    };
    others.filter(|path| files(path).iter().any(|file| has(path.join(file)))).collect()
}
