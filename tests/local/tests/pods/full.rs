//! A node whose file system is full, or becomes so: what fails says so, and everything can be taken away.

use std::{
    ffi::CString,
    fs::{self, File},
    path::PathBuf,
};

use containerd_shim_protos::api::CreateTaskResponse;
use rustix::{
    fs::{FallocateFlags, StatVfs, fallocate, statvfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use serde_json::json;
use tempfile::TempDir;

use crate::containerd::{Containerd, PROGRAMS};

/// Of the file system: room for a bundle with busybox, and for what a node keeps of a pod.
const MIB: usize = 16;
const FILES: u64 = 400;
/// More than a pod's files and folders are, and more than their bytes fill.
const ENOUGH: u64 = 80;
/// Bytes that are left are left by the page.
const PAGE: u64 = 4096;

/// What a file system runs out of.
#[derive(Clone, Copy, Debug)]
enum Of {
    Bytes,
    Files,
}

/// A file system of its own for a containerd and its node.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new() -> Disk {
        let dir = TempDir::new_in(crate::place()).unwrap();
        let size = CString::new(format!("size={MIB}m,nr_inodes={FILES}")).unwrap();
        mount("disk", dir.path(), "tmpfs", MountFlags::empty(), &*size).unwrap();
        Disk { dir }
    }

    fn free(&self) -> StatVfs {
        statvfs(self.dir.path()).unwrap()
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    /// Leaves room for so many pages or files.
    fn fill(&self, of: Of, leave: u64) {
        fs::create_dir(self.ballast()).unwrap();
        match of {
            Of::Bytes => {
                let file = File::create(self.ballast().join("bytes")).unwrap();
                let taken = self.free().f_bfree.saturating_sub(leave) * PAGE;
                fallocate(&file, FallocateFlags::empty(), 0, taken).unwrap();
            }
            Of::Files => {
                let taken = self.free().f_ffree.saturating_sub(leave);
                (0..taken)
                    .for_each(|name| drop(File::create(self.ballast().join(name.to_string())).unwrap()));
            }
        }
    }

    fn clear(&self) {
        fs::remove_dir_all(self.ballast()).unwrap();
    }

    async fn containerd(&self) -> Containerd {
        Containerd::at(self.dir.path(), PROGRAMS[0].into()).await
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.dir.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_node_has_no_room_any_more_ends_as_any_other() {
    for of in [Of::Bytes, Of::Files] {
        let disk = Disk::new();
        let containerd = disk.containerd().await;
        // Beside the disk, which is full at the end.
        let told = TempDir::new().unwrap();
        let noting = format!("echo ended >> {}/told", told.path().display());
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", noting]});
        let kind = |kind: &str| json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "a"});
        containerd.bundle("a", "exec sleep 1000", |spec| {
            spec["annotations"] = kind("sandbox");
            spec["hooks"] = json!({"poststop": [hook, hook]});
        });
        containerd.bundle("b", "exec sleep 1000", |spec| {
            spec["annotations"] = kind("container");
            spec["hooks"] = json!({"poststart": [hook], "poststop": [hook]});
        });
        let shim = containerd.start("a").await;
        containerd.create(&shim, "a").await;
        containerd.start("b").await;
        let _: CreateTaskResponse = shim.call("Create", &containerd.asked("b")).await.unwrap();
        let lives = containerd.lives();
        disk.fill(of, 0);
        shim.begin("b").await;

        let mut exec = containerd.asked_exec("a", "e", "exit 3", |_| {});
        // No new files for its outputs.
        (exec.stdout, exec.stderr) = (String::new(), String::new());
        shim.exec(&exec).await;
        shim.begin_exec("a", "e").await;
        assert_eq!((shim.wait_exec("a", "e").await, shim.delete_exec("a", "e").await), (3, 3));
        for id in ["b", "a"] {
            shim.signal(id, 9).await;
            assert_eq!((shim.wait(id).await, shim.delete(id).await), (137, 137));
        }
        shim.shut_down().await;
        containerd.delete("a");
        assert_eq!(fs::read_to_string(told.path().join("told")).unwrap(), "ended\n".repeat(4));
        containerd.assert_nothing_left(&lives).await;
        disk.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_where_there_is_no_room_leaves_nothing() {
    for of in [Of::Bytes, Of::Files] {
        let disk = Disk::new();
        let containerd = disk.containerd().await;
        let told = TempDir::new().unwrap();
        let noting = format!("echo ended >> {}/told", told.path().display());
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", noting]});
        containerd.bundle("a", "exec sleep 1000", |spec| spec["hooks"] = json!({"poststop": [hook, hook]}));
        let shim = containerd.start("a").await;
        containerd.create(&shim, "a").await;
        let lives = containerd.lives();
        disk.fill(of, 0);
        shim.kill().await;
        containerd.delete("a");
        containerd.delete("a");
        containerd.assert_nothing_left(&lives).await;
        assert_eq!(fs::read_to_string(told.path().join("told")).unwrap(), "ended\n".repeat(2));
        disk.clear();
    }
}

/// Whichever write it is that finds no room.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_without_room_says_so_and_leaves_nothing() {
    for of in [Of::Bytes, Of::Files] {
        let (disk, mut refused) = (Disk::new(), 0);
        let containerd = disk.containerd().await;
        for leave in 0..ENOUGH {
            let id = format!("a{leave}");
            containerd.bundle(&id, "exit 7", |_| {});
            let shim = containerd.start(&id).await;
            disk.fill(of, leave);
            let created = shim.call::<_, CreateTaskResponse>("Create", &containerd.asked(&id)).await;
            let lives = containerd.lives();
            if let Err(error) = &created {
                refused += 1;
                let text = error.to_string();
                // Without Xen the guest's own memory is in here, too, and who dies of that says nothing.
                let says = ["No space left on device", "VGPU-303", "VGPU-305"];
                let says = says.iter().any(|words| text.contains(words));
                assert!(says, "{of:?}, room for {leave}: {text}");
            }
            disk.clear();
            if created.is_ok() {
                shim.begin(&id).await;
                assert_eq!((shim.wait(&id).await, shim.delete(&id).await), (7, 7));
            }
            shim.shut_down().await;
            containerd.delete(&id);
            containerd.assert_nothing_left(&lives).await;
            containerd.remove_bundle(&id);
            if created.is_ok() {
                break;
            }
        }
        println!("{of:?}: refused with room for 0 to {refused} more");
        assert!(0 < refused && refused < ENOUGH, "{of:?}: {refused}");
    }
}
