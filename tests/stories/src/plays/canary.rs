//! The judge's own test: a run in which nothing could be found left behind would prove nothing.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::Story;
use crate::command::must;
use crate::node::{Node, kill_9};
use crate::pod::{BUSYBOX, Runtime};
use crate::traces::{Traces, processes};

/// The story.
pub fn stories() -> Vec<Story> {
    let play = Box::new(what_is_left_behind_is_noticed);
    vec![Story {
        name: "canary_what_is_left_behind_is_noticed".into(),
        skip: None,
        limit: Duration::from_secs(200),
        play,
    }]
}

fn what_is_left_behind_is_noticed(node: &Node) {
    fs::create_dir_all("/run/vgpu/canary").expect("/run is writable");
    must(&["mount", "-t", "tmpfs", "canary", "/run/vgpu/canary"]);
    must(&["mkdir", "/sys/fs/cgroup/canary"]);
    must(&["ip", "link", "add", "canary", "type", "bridge"]);
    must(&["xenstore-write", "/local/domain/0/backend/canary/999", "1"]);
    must(&["ctr", "containers", "create", "--runtime", Runtime::Runc.name(), BUSYBOX, "canary"]);
    let socket = UnixListener::bind("/run/vgpu/canary/socket").expect("a file system of our own");
    // Not our child: its parent has ended.
    must(&["sh", "-c", "setsid sleep 987 > /dev/null 2>&1 &"]);

    let left = Traces::now().since(node.before());

    drop(socket); // or its file system stays
    for process in processes().iter().filter(|process| process.words == ["sleep", "987"]) {
        kill_9(process.pid);
    }
    must(&["umount", "/run/vgpu/canary"]);
    must(&["rmdir", "/run/vgpu/canary", "/sys/fs/cgroup/canary"]);
    must(&["ip", "link", "delete", "canary"]);
    must(&["xenstore-rm", "/local/domain/0/backend/canary"]);
    must(&["ctr", "containers", "rm", "canary"]);
    for trace in [
        "file /run/vgpu/canary",
        "mount /run/vgpu/canary",
        "cgroup /sys/fs/cgroup/canary",
        "network link canary",
        "xenstore /local/domain/0/backend/canary/999",
        "socket /run/vgpu/canary/socket",
        "containers canary",
        "snapshots canary",
        " sleep 987",
    ] {
        assert!(left.iter().any(|line| line.ends_with(trace)), "'{trace}' was not noticed in: {left:#?}");
    }
}
