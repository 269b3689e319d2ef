//! Pods from containerd's first call to their last trace, on this machine alone: the shim's and guest-init's code is what a node runs.

mod containerd;
mod forward;
mod full;
mod guest;
mod hooks;
mod huge;
mod inside;
mod logger;
mod network;
mod own_network;
mod sandbox;
mod shared;
mod volumes;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::PathBuf,
    time::{Duration, Instant},
};

use containerd::{Containerd, until};
use containerd_shim_protos::api::CreateTaskResponse;
use guest::{cgroup, kill, pid_1, stop};
use serde_json::json;

/// Of the containerds and their nodes.
fn place() -> PathBuf {
    env::temp_dir()
}

/// Moments of a call, from its begin on, in milliseconds: close to each other at first, so that one of a busy machine has not hundreds.
fn moments(step: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0), move |at| Some(at + step.max(at / 8)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_leaves_nothing() {
    let containerd = Containerd::new().await;
    let volume = containerd.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    containerd.bundle("a", "hostname; echo $$; echo written > /tmp/volume/file; exit 7", |spec| {
        let mount =
            json!({"destination": "/tmp/volume", "type": "bind", "source": volume, "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    assert_eq!(shim.wait("a").await, 7);
    assert_eq!(shim.delete("a").await, 7);
    assert_eq!(containerd.output("a"), "inside\n1\n");
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "written\n");
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
    assert_eq!(containerd.topics(), ["create", "start", "exit", "delete"]);
}

/// Elsewhere nothing of it would be masked or read-only: its owner could have the guest's kernel run a program as PID 1 is.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_proc_leads_elsewhere_is_refused() {
    let containerd = Containerd::new().await;
    containerd.bundle("a", "exit 0", |_| {});
    let proc = containerd.bundle_of("a").join("rootfs/proc");
    fs::remove_dir(&proc).unwrap();
    symlink("none/../elsewhere", &proc).unwrap();
    let shim = containerd.start("a").await;
    let refused = shim.call::<_, CreateTaskResponse>("Create", &containerd.asked("a")).await;
    assert!(refused.unwrap_err().to_string().contains("proc"));
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&[]).await;
}

/// What the shim mounts for it reaches a guest that has long begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_container_runs_in_the_same_guest() {
    let containerd = Containerd::new().await;
    let pod =
        |kind: &str| json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod"});
    containerd.bundle("pod", "exec sleep 1000", |spec| spec["annotations"] = pod("sandbox"));
    containerd.bundle("app", "echo app; exit 3", |spec| spec["annotations"] = pod("container"));
    let shim = containerd.start("pod").await;
    containerd.create(&shim, "pod").await;
    let (cgroup, lives) = (cgroup(&containerd), containerd.lives());
    assert_eq!(containerd.start("app").await.pid, shim.pid);
    containerd.create(&shim, "app").await;
    assert_eq!((shim.wait("app").await, shim.delete("app").await), (3, 3));
    assert_eq!(containerd.output("app"), "app\n");
    assert!(!cgroup.join("vgpu/app").exists() && cgroup.join("vgpu/pod").exists());
    shim.signal("pod", 9).await;
    assert_eq!((shim.wait("pod").await, shim.delete("pod").await), (137, 137));
    shim.shut_down().await;
    containerd.assert_nothing_left(&lives).await;
}

/// As a kernel that panics: PID 1 is killed, and the shim hears of it by the domain's end alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_guest_is_the_exit_of_its_tasks() {
    let containerd = Containerd::new().await;
    containerd.bundle("a", "exec sleep 1000", |_| {});
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    kill(pid_1(&cgroup(&containerd)));
    assert_eq!((shim.wait("a").await, shim.delete("a").await), (137, 137));
    shim.shut_down().await;
    containerd.assert_nothing_left(&lives).await;
    assert_eq!(containerd.topics(), ["create", "start", "exit", "delete"]);
}

/// As a kernel that hangs: what `shim.kill_timeout_s` says is how long a SIGKILL takes then.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_stopped_is_ended_in_five_seconds() {
    let containerd = Containerd::new().await;
    containerd.bundle("a", "exec sleep 1000", |_| {});
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let (cgroup, lives) = (cgroup(&containerd), containerd.lives());
    stop(pid_1(&cgroup));
    let killed = Instant::now();
    shim.signal("a", 9).await;
    assert_eq!(shim.wait("a").await, 137);
    let told = || containerd.topics() == ["create", "start", "exit"];
    until("the exit is told", told, || format!("{:?}", containerd.topics())).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert_eq!(
        fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default(),
        "",
        "it was told before it was dead"
    );
    assert_eq!(shim.delete("a").await, 137);
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_from_disk_ends_the_local_domain() {
    let containerd = Containerd::new().await;
    containerd.bundle("a", "echo there; exec sleep 1000", |_| {});
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let (cgroup, lives) = (cgroup(&containerd), containerd.lives());
    let procs = || fs::read_to_string(cgroup.join("vgpu/a/cgroup.procs")).unwrap_or_default();
    until("the container runs", || containerd.output("a") == "there\n", procs).await;
    shim.kill().await;
    assert_eq!(procs().lines().count(), 1, "the domain ended with its shim");
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
}

/// containerd may have lost it at once, with or without a Create on its way to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_was_asked_for_nothing_ends_with_its_delete() {
    let containerd = Containerd::new().await;
    containerd.bundle("a", "exec sleep 1000", |_| {});
    containerd.start("a").await;
    containerd.delete("a");
    containerd.assert_nothing_left(&[]).await;
}

/// Of each moment of a Create, what is on disk is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_during_a_create_leaves_nothing_to_its_delete() {
    let containerd = Containerd::new().await;
    let mut guests = 0;
    for milliseconds in moments(5) {
        containerd.bundle("a", "exec sleep 1000", |_| {});
        let shim = containerd.start("a").await;
        let create = containerd.create(&shim, "a");
        let created = tokio::time::timeout(Duration::from_millis(milliseconds), create).await.is_ok();
        shim.kill().await;
        let lives = containerd.lives();
        guests += usize::from(containerd.node().join("domains/1").exists());
        containerd.delete("a");
        containerd.assert_nothing_left(&lives).await;
        containerd.remove_bundle("a");
        if created {
            break;
        }
    }
    assert!(guests > 1, "none was killed while there was a domain");
}
