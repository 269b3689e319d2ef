//! What the mount namespace of a worker of NVIDIA's driver has to do with the node's. The node is a user and a mount namespace of the
//! test's own, made by `unshare`: a process of many threads, which a test is, cannot make them for itself.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use gpu_proxy::device::DeviceKind;
use gpu_proxy::worker::sandbox;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Who a child is: the test program is started again in both of them.
const ROLE: &str = "VGPU_TEST_MOUNTS";
/// Where a pod's file system is mounted.
const POD: &str = "VGPU_TEST_POD";
const NEW_ROOT: [&str; 3] = ["--user", "--map-root-user", "--mount"];

fn as_child(program: &Path, role: &str, pod: &Path, namespaces: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(program);
    command
        .args(["--exact", "--ignored", "child", "--test-threads=1", "--nocapture"])
        .env(ROLE, role)
        .env(POD, pod);
    command
}

/// Not a test of its own: what the children do.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let role = std::env::var(ROLE).unwrap();
    let pod = std::env::var(POD).unwrap();
    if role == "node" { node(Path::new(&pod)) } else { worker(&pod) }
}

/// How often something is mounted at `path` in this namespace.
fn mounted_at(path: &str) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.split(' ').nth(4) == Some(path)).count()
}

fn node(pod: &Path) {
    mount("pod", pod, "tmpfs", MountFlags::empty(), c"").unwrap();
    let name = pod.to_str().unwrap();
    let procs = mounted_at("/proc");
    let namespaces = [NEW_ROOT.as_slice(), &["--pid", "--fork", "--propagation", "unchanged"]].concat();
    let mut worker = as_child(&std::env::current_exe().unwrap(), "worker", pod, &namespaces);
    let mut worker = worker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(worker.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut hear = |wanted: &str| {
        let line = said.find(|line| line.starts_with("worker: "));
        assert_eq!(line.as_deref(), Some(wanted));
    };
    hear("worker: sees 1");
    assert_eq!((mounted_at(name), mounted_at("/proc")), (1, procs), "its own /proc is seen outside");

    unmount(pod, UnmountFlags::empty()).unwrap();

    worker.stdin.take().unwrap().write_all(b"x").unwrap();
    hear("worker: sees 0");
    assert!(worker.wait().unwrap().success());
}

fn worker(pod: &str) {
    let gaps = sandbox::strip(DeviceKind::Cuda, true, None, false).unwrap();
    assert!(!gaps.iter().any(|gap| gap.contains("/proc")), "{gaps:?}");
    println!("\nworker: sees {}", mounted_at(pod));
    std::io::stdin().read_exact(&mut [0]).unwrap();
    println!("\nworker: sees {}", mounted_at(pod));
}

#[test]
fn a_worker_of_nvidias_driver_keeps_no_mount_that_the_node_has_taken_away() {
    if !Command::new("unshare").args(NEW_ROOT).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("NOT TRIED: {}: no user and mount namespaces can be made here", file!());
        return;
    }
    let (programs, pod) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Root of a user namespace is nobody in the home of a user whom it does not map.
    let program = programs.path().join("mounts");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let namespaces = [NEW_ROOT.as_slice(), &["--propagation", "shared"]].concat();
    let ended = as_child(&program, "node", pod.path(), &namespaces).output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{text}");
    // Or the child was no test at all.
    assert!(text.contains("1 passed"), "{text}");
}
