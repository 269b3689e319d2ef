//! Huge pages: those of the guest's kernel, as many as the limits of its containers, one file system for all containers that have it. The kernel here
//! is this machine's.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use containerd_shim_protos::api::CreateTaskResponse;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};
use vgpu_inside::verbs::mmap_shared;

use crate::{
    containerd::{Containerd, PROGRAMS, until},
    volumes::root,
};

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// Who holds its lock may change the machine's pool.
const TURN: &str = "/tmp/vgpu-local-huge-pages";

/// The machine's pool, as it was when this ends. A guest's ends with its kernel.
struct Pool {
    _turn: File,
    before: u64,
}

impl Pool {
    /// None where this kernel has no such pages, or no three of them.
    fn take() -> Option<Pool> {
        let turn = File::create(TURN).unwrap();
        turn.lock().unwrap();
        let before = fs::read_to_string(POOL).ok()?.trim().parse().ok()?;
        let pool = Pool { _turn: turn, before };
        fs::write(POOL, (before + 3).to_string()).ok().filter(|()| pages() == before + 3)?;
        fs::write(POOL, before.to_string()).ok()?;
        Some(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(POOL, self.before.to_string());
    }
}

fn pages() -> u64 {
    fs::read_to_string(POOL).unwrap().trim().parse().unwrap()
}

/// An `emptyDir` whose medium is `HugePages`, as kubelet mounts it.
struct Folder<'a>(&'a Path);

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

fn asks(folder: &Path, kind: &str, limit_mib: u64) -> impl Fn(&mut Value) {
    let mount = json!({"destination": "/huge", "type": "bind", "source": folder, "options": ["rbind", "rprivate", "rw"]});
    let limits = json!([{"pageSize": "2MB", "limit": limit_mib << 20}, {"pageSize": "1GB", "limit": 0}, {"pageSize": "8MB", "limit": 0}]);
    let pod = json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod"});
    move |spec| {
        spec["mounts"].as_array_mut().unwrap().push(mount.clone());
        spec["linux"]["resources"]["hugepageLimits"] = limits.clone();
        spec["annotations"] = pod.clone();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_have_the_guests_huge_pages_as_many_as_their_limits() {
    let Some(pool) = Pool::take() else {
        println!("NOT TRIED: {}: this machine's kernel gives no three huge pages of 2 MiB", file!());
        return;
    };
    // What holds each container to its own is a controller of cgroup version 2, which this machine may not have.
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("containerd-shim-vgpulocal-v1");
    let words = format!("#!/bin/sh\nVGPU_LOCAL_LIMITS=none exec {} \"$@\"\n", PROGRAMS[0]);
    fs::write(&program, words).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let containerd = Containerd::of(program).await;
    let node = containerd.dir.path().join("huge");
    fs::create_dir(&node).unwrap();
    mount("huge", &node, "hugetlbfs", MountFlags::empty(), Some(c"pagesize=2M")).unwrap();
    let folder = Folder(&node);
    let before = pool.before;
    containerd.bundle("pod", "echo there; exec sleep 1000", asks(&node, "sandbox", 4));
    containerd.bundle("app", "echo there; exec sleep 1000", asks(&node, "container", 2));
    containerd.bundle("odd", "true", |spec| {
        asks(&node, "container", 2)(spec);
        spec["linux"]["resources"]["hugepageLimits"][2]["limit"] = 1.into();
    });
    let shim = containerd.start("pod").await;
    for id in ["pod", "app"] {
        containerd.start(id).await;
        containerd.create(&shim, id).await;
        until("it runs", || containerd.output(id) == "there\n", || containerd.output(id)).await;
    }
    let lives = containerd.lives();
    assert_eq!(pages(), before + 3);

    let [pod, app] = ["pod", "app"].map(|id| root(&containerd, id).join("huge/file"));
    mmap_shared(&pod).unwrap();
    assert_eq!(fs::metadata(&app).unwrap().len(), 2 << 20, "it is one for both");
    assert_eq!(fs::read_dir(&node).unwrap().count(), 0, "it is not the node's");

    containerd.start("odd").await;
    let refused = shim.call::<_, CreateTaskResponse>("Create", &containerd.asked("odd")).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("linux.resources.hugepageLimits: this guest has no pages of 8MB"), "{said}");
    containerd.delete("odd");
    assert_eq!(pages(), before + 3, "nothing of it is left");

    fs::remove_file(&pod).unwrap();
    shim.signal("app", 9).await;
    assert_eq!((shim.wait("app").await, shim.delete("app").await), (137, 137));
    until("its pages are ordinary memory again", || pages() == before + 2, || pages().to_string()).await;
    shim.signal("pod", 9).await;
    assert_eq!((shim.wait("pod").await, shim.delete("pod").await), (137, 137));
    shim.shut_down().await;
    drop(folder);
    containerd.assert_nothing_left(&lives).await;
}
