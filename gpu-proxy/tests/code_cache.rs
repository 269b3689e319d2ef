//! What NVIDIA's driver keeps of what it compiles, from a guest's load to the next process: real workers of the `cuda` device with a
//! driver of the test's own, over the local socket.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{C, Guest, Proxy, alive, until};
use tempfile::{NamedTempFile, TempDir};
use vgpu_api::handle::NewHandle;
use vgpu_api::{CuError, ImageHandle, ImageKind, Staged, ask};
use vgpu_zone_api::shim::WorkerInfo;

/// Room for this driver's context, which counts as NVIDIA's does.
const GRANT_MIB: &str = "2048";
const CACHE_MIB: u64 = 8;

/// gpu-proxy where there seems to be a driver, with two zones. `None`: the test cannot have mounts of its own.
fn start(cache_mib: u64) -> Option<(Proxy, [TempDir; 1], NamedTempFile)> {
    let namespace = ["unshare", "--mount", "--propagation", "private"];
    let may = rustix::process::geteuid().is_root()
        && Command::new(namespace[0])
            .args(&namespace[1..])
            .arg("true")
            .status()
            .is_ok_and(|done| done.success());
    if !may {
        eprintln!("NOT TRIED: {}: only root keeps what is compiled", file!());
        return None;
    }
    let driver = driver();
    let config = NamedTempFile::new().unwrap();
    let text = format!("[proxy]\nscrub_canary = false\ncode_cache_max_mib = {cache_mib}\n");
    fs::write(config.path(), text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(namespace[0]);
    command.args(&namespace[1..]).args([
        "sh",
        "-c",
        "mount -t tmpfs driver /proc/driver && mkdir /proc/driver/nvidia && : > /proc/driver/nvidia/version && exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_gpu-proxy"),
        "--device",
        "cuda",
        "--memory-mib",
        GRANT_MIB,
        "--config",
    ]);
    command.arg(config.path()).env("LD_LIBRARY_PATH", driver.path());
    for number in 0..2 {
        command.arg("--local").arg(common::socket_of(&dir, number));
    }
    Some((Proxy::run_in(command, dir), [driver], config))
}

/// The driver of the other tests, with a cache.
fn driver() -> TempDir {
    let source = include_str!("data/driver.c").replace("ZERO(cuModuleLoadDataEx)", "");
    let folder = tempfile::tempdir().unwrap();
    // Its reader is another user.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("fake.c"), include_str!("data/cache.c").to_owned() + &source).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", "libcuda.so.1", "fake.c"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .status();
    assert!(built.unwrap().success());
    folder
}

/// What comes of a load of such a text.
fn load(guest: &Guest, number: u32, words: &str) -> Result<u64, CuError> {
    let text = format!(".version 9.0\n.target sm_90\n.address_size 64\n// {words}\n");
    let upload = number + 1;
    ask::vgpuUpload(guest, C, upload, text.len() as u64, 0, text.as_bytes()).unwrap();
    let room = guest.channel.stage(4096, None).unwrap();
    let out = Staged { offset: room.offset().into(), len: 4096 };
    let image = NewHandle(ImageHandle::new(0, number.into()));
    ask::vgpuImageLoad(guest, C, image, ImageKind::Module, upload, false, out)
}

/// The worker that serves beside these, in any zone.
fn worker(proxy: &Proxy, others: &[u32]) -> WorkerInfo {
    let all = proxy.list().zones.into_iter().flat_map(|zone| zone.workers);
    let serving: Vec<_> =
        all.filter(|worker| worker.guest_pid != 0 && !others.contains(&worker.pid)).collect();
    assert_eq!(serving.len(), 1, "{serving:?}");
    serving[0].clone()
}

/// Whether any thread of the machine has this file system.
fn lives(device: &str) -> bool {
    let tasks = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| fs::read_dir(process.path().join("task")).ok());
    tasks.flatten().flatten().any(|task| {
        let mounts = fs::read_to_string(task.path().join("mountinfo")).unwrap_or_default();
        mounts.contains(device)
    })
}

/// The mount of what is compiled, as the worker's namespace has it.
fn mount_of(worker: &WorkerInfo) -> Option<String> {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", worker.pid)).unwrap();
    let mut own = mounts.lines().filter(|line| line.contains("vgpu-code")).map(str::to_owned);
    let one = own.next();
    assert_eq!(own.next(), None, "{mounts}");
    one
}

/// What the driver has noted, as the worker sees it.
fn index(worker: &WorkerInfo) -> String {
    fs::read_to_string(format!("/proc/{}/root/media/code/index", worker.pid)).unwrap()
}

#[test]
fn what_was_compiled_is_found_by_the_next_process_and_by_no_other_zones() {
    let Some((proxy, _driver, _config)) = start(CACHE_MIB) else { return };
    let first = proxy.guest();
    load(&first, 0, "a kernel").unwrap();
    let one = worker(&proxy, &[]);
    assert_eq!(index(&one), "made ");
    drop(first);
    until("its worker has ended", || !alive(one.pid));

    // The next one waits already: what its container's last process left is nothing for it to read before its door is closed.
    let waits = || {
        proxy
            .list()
            .zones
            .into_iter()
            .flat_map(|zone| zone.workers)
            .find(|worker| worker.ahead && worker.pid != 0)
    };
    until("a worker waits", || waits().is_some_and(|worker| common::status(worker.pid, "NoNewPrivs") == "1"));
    assert_eq!(mount_of(&waits().unwrap()), None);

    let second = proxy.guest();
    load(&second, 0, "a kernel").unwrap();
    load(&second, 1, "another").unwrap();
    let two = worker(&proxy, &[]);
    assert_ne!(one.pid, two.pid);
    assert_eq!(index(&two), "made found made ");

    let neighbour = proxy.guest_of_zone(1);
    load(&neighbour, 0, "a kernel").unwrap();
    assert_eq!(
        (index(&worker(&proxy, &[two.pid])), index(&two)),
        ("made ".into(), "made found made ".into())
    );
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("vgpu-code"), "the node sees it");
    drop((second, neighbour));
    proxy.stop();
}

#[test]
fn a_worker_keeps_there_what_fits_and_writes_nowhere_else() {
    let Some((proxy, _driver, _config)) = start(CACHE_MIB) else { return };
    let guest = proxy.guest();
    for (number, words) in (0..).zip(["nothing runs", "nowhere else", "it is full", "and works on"]) {
        assert_eq!(load(&guest, number, words).err(), None, "{words}");
    }
    let worker = worker(&proxy, &[]);
    let mount = mount_of(&worker).unwrap();
    for part in [" /media/code ", "nosuid", "nodev", "noexec", &format!("size={}k", CACHE_MIB << 10)] {
        assert!(mount.contains(part), "{part}: {mount}");
    }
    assert!(!Path::new("/tmp/planted").exists());
    drop(guest);
    proxy.stop();
}

#[test]
fn a_supervisor_that_is_killed_leaves_nothing() {
    let Some((mut proxy, _driver, _config)) = start(CACHE_MIB) else { return };
    let guest = proxy.guest();
    load(&guest, 0, "a kernel").unwrap();
    let worker = worker(&proxy, &[]);
    let own = mount_of(&worker).unwrap();
    // The third field is no other file system's, wherever it is mounted. Source: `proc_pid_mountinfo(5)`.
    let device = format!(" {} ", own.split(' ').nth(2).unwrap());
    assert!(lives(&device), "its keeper has it, too");
    proxy.child.kill().unwrap();
    proxy.child.wait().unwrap();
    until("its worker has ended", || !alive(worker.pid));
    until("nobody has it any more", || !lives(&device));
}

#[test]
fn where_nothing_is_to_be_kept_the_driver_is_told_so() {
    let Some((proxy, _driver, _config)) = start(0) else { return };
    let guest = proxy.guest();
    // Else it would want a place.
    load(&guest, 0, "a kernel").unwrap();
    let worker = worker(&proxy, &[]);
    assert_eq!(mount_of(&worker), None);
    let environment = fs::read_to_string(format!("/proc/{}/environ", worker.pid)).unwrap();
    assert!(environment.contains("CUDA_CACHE_DISABLE=1") && !environment.contains("CUDA_CACHE_PATH"));
    drop(guest);
    proxy.stop();
}
