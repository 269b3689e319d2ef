//! Volumes that kubelet changes while a pod has them: who watches in a container is told, as on a node.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{Gid, OFlags, Uid, chown};
use serde_json::{Value, json};
use vgpu_inside::{volume::Volume, watch::Watcher};

use crate::{
    containerd::{Containerd, until},
    guest::{cgroup, pid_1},
};

/// A pod's ConfigMap on the node.
fn config_map(containerd: &Containerd) -> PathBuf {
    let folder = containerd.dir.path().join("pods/uid/volumes/kubernetes.io~configmap/config");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// As CRI asks for it.
fn mounted(source: &PathBuf) -> impl Fn(&mut Value) {
    let mount = json!({"destination": "/config", "type": "bind", "source": source, "options": ["rbind", "rprivate", "ro"]});
    move |spec| spec["mounts"].as_array_mut().unwrap().push(mount.clone())
}

/// The root of a container that has one process, as that sees it.
pub fn root(containerd: &Containerd, id: &str) -> PathBuf {
    let procs = fs::read_to_string(cgroup(containerd).join("vgpu").join(id).join("cgroup.procs")).unwrap();
    format!("/proc/{}/root", procs.trim()).into()
}

/// Two containers of a pod have it, with the owners and modes that kubelet gives it for an `fsGroup`.
#[tokio::test(flavor = "multi_thread")]
async fn programs_are_told_of_a_volume_that_kubelet_changes() {
    let containerd = Containerd::new().await;
    let folder = config_map(&containerd);
    let volume = Volume::at(&folder);
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    volume.write("one", &[("key", b"first"), ("gone", b""), ("deep/er/key", &binary)]).unwrap();
    chown(folder.join("..one/key"), Some(Uid::from_raw(1000)), Some(Gid::from_raw(2000))).unwrap();
    chown(&folder, None, Some(Gid::from_raw(2000))).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o2770)).unwrap();
    let pod =
        |kind: &str| json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod"});
    let script = "touch /config/x 2>/dev/null || echo refused; stat -c '%u %g %a' /config /config/..data/key; exec sleep 1000";
    containerd.bundle("pod", script, |spec| {
        mounted(&folder)(spec);
        spec["annotations"] = pod("sandbox");
    });
    containerd.bundle("app", "echo there; exec sleep 1000", |spec| {
        mounted(&folder)(spec);
        spec["annotations"] = pod("container");
    });
    let shim = containerd.start("pod").await;
    for id in ["pod", "app"] {
        containerd.start(id).await;
        containerd.create(&shim, id).await;
    }
    let lives = containerd.lives();
    until(
        "both run",
        || containerd.output("pod").ends_with("644\n") && containerd.output("app") == "there\n",
        || containerd.output("pod"),
    )
    .await;
    assert_eq!(containerd.output("pod"), "refused\n0 2000 2770\n1000 2000 644\n");

    let roots = ["pod", "app"].map(|id| root(&containerd, id));
    for root in &roots {
        assert_eq!(fs::read(root.join("config/deep/er/key")).unwrap(), binary);
    }
    for root in &roots {
        until("it is as the last one", || names(&root.join("config")) == names(&folder), String::new).await;
        let watched = [root.join("config"), root.join("config/key")];
        let [ours, right] =
            [&watched, &[folder.clone(), folder.join("key")]].map(|paths| Watcher::of(paths).unwrap());
        let version = if root == &roots[0] { "two" } else { "three" };
        volume.write(version, &[("key", version.as_bytes()), ("new", b"")]).unwrap();
        let mut seen = Vec::new();
        let right = right.seen().unwrap();
        let told = || {
            seen.extend(ours.seen().unwrap());
            seen.len() >= right.len()
        };
        until("it is told", told, || format!("{right:#?}")).await;
        assert_eq!(seen, right);
        assert_eq!(fs::read_to_string(root.join("config/key")).unwrap(), version);
        assert!(!root.join("config/gone").exists());
    }
    // One goes, the other is told as before.
    shim.signal("app", 9).await;
    assert_eq!((shim.wait("app").await, shim.delete("app").await), (137, 137));
    volume.write("four", &[("key", b"four")]).unwrap();
    let read = || fs::read_to_string(roots[0].join("config/key")).unwrap_or_default();
    until("it is told", || read() == "four", read).await;
    shim.signal("pod", 9).await;
    assert_eq!((shim.wait("pod").await, shim.delete("pod").await), (137, 137));
    shim.shut_down().await;
    containerd.assert_nothing_left(&lives).await;
}

/// It is a bind of the share then, as one that is no volume of kubelet's: as fresh, and nobody is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_too_large_is_fresh_all_the_same() {
    let containerd = Containerd::new().await;
    let folder = config_map(&containerd);
    let volume = Volume::at(&folder);
    volume.write("one", &[("large", &vec![1; 5 << 20]), ("key", b"first")]).unwrap();
    let script = "echo there; until grep -q second /config/key; do sleep 0.1; done; cat /file";
    containerd.bundle("a", script, |spec| {
        mounted(&folder)(spec);
        // As a subPath has it.
        let file = json!({"destination": "/file", "type": "bind", "source": folder.join("..one/key"), "options": ["rbind", "ro"]});
        spec["mounts"].as_array_mut().unwrap().push(file);
    });
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    until("it runs", || containerd.output("a") == "there\n", || containerd.output("a")).await;
    volume.write("two", &[("key", b"second")]).unwrap();
    assert_eq!((shim.wait("a").await, shim.delete("a").await), (0, 0));
    assert_eq!(containerd.output("a"), "there\nfirst", "a file of it is never another");
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
}

/// The guest keeps nothing of a container that has ended, nor does the shim: a descriptor, a mount, memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_volume_takes_ends_with_its_container() {
    let containerd = Containerd::new().await;
    let folder = config_map(&containerd);
    Volume::at(&folder).write("one", &[("key", b"first")]).unwrap();
    let pod =
        |kind: &str| json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod"});
    containerd.bundle("pod", "exec sleep 1000", |spec| spec["annotations"] = pod("sandbox"));
    let shim = containerd.start("pod").await;
    containerd.create(&shim, "pod").await;
    let (lives, guest) = (containerd.lives(), pid_1(&cgroup(&containerd)));
    let watches = || descriptors(shim.pid, "inotify");
    let taken = || {
        let mounts = fs::read_to_string(format!("/proc/{guest}/mounts")).unwrap_or_default();
        let copies = mounts.lines().filter(|line| line.starts_with("volume ")).count();
        (watches(), copies, descriptors(guest, "/volumes/"))
    };
    assert_eq!(taken(), (0, 0, 0));
    for id in ["one", "two"] {
        containerd.bundle(id, "cat /config/key; exec sleep 1000", |spec| {
            mounted(&folder)(spec);
            spec["annotations"] = pod("container");
        });
        containerd.start(id).await;
        containerd.create(&shim, id).await;
        until("it runs", || containerd.output(id) == "first", || containerd.output(id)).await;
        assert_eq!(watches(), 1);
        shim.signal(id, 9).await;
        assert_eq!((shim.wait(id).await, shim.delete(id).await), (137, 137));
        until("nothing is left of it", || taken() == (0, 0, 0), || format!("{:?}", taken())).await;
        containerd.delete(id);
    }
    shim.signal("pod", 9).await;
    assert_eq!((shim.wait("pod").await, shim.delete("pod").await), (137, 137));
    shim.shut_down().await;
    containerd.assert_nothing_left(&lives).await;
}

/// Its copy is as it was then, and the shim says why: no event is lost, and the next version that fits is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_becomes_too_large_is_told_in_the_shims_log() {
    let containerd = Containerd::new().await;
    let folder = config_map(&containerd);
    let volume = Volume::at(&folder);
    volume.write("one", &[("key", b"first")]).unwrap();
    let script = "echo there; until grep -q third /config/key; do grep -e first -e third /config/key || exit 1; sleep 0.1; done";
    containerd.bundle("a", script, mounted(&folder));
    let shim = containerd.start("a").await;
    let mut log = OpenOptions::new();
    log.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let mut log = log.open(containerd.bundle_of("a").join("log")).unwrap();
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    until("it runs", || containerd.output("a").starts_with("there"), || containerd.output("a")).await;
    volume.write("two", &[("large", &vec![1; 9 << 20]), ("key", b"second")]).unwrap();
    let mut said = String::new();
    let mut tellings = || {
        // There is nothing for now, or there was nothing more.
        let _ = log.read_to_string(&mut said);
        let words = "show what the volume at /config is now: it takes more than the 4096 KiB";
        said.lines().filter(|line| line.contains("level=warn") && line.contains(words)).count()
    };
    until("it is told", || tellings() > 0, String::new).await;
    volume.write("three", &[("key", b"third")]).unwrap();
    assert_eq!((shim.wait("a").await, shim.delete("a").await), (0, 0));
    shim.shut_down().await;
    containerd.assert_nothing_left(&lives).await;
}

/// What is in a folder.
fn names(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// How many of a process lead to what has these words in its name.
fn descriptors(pid: i32, words: &str) -> usize {
    let listed = Command::new("ls").args(["-l", &format!("/proc/{pid}/fd")]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(words)).count()
}
