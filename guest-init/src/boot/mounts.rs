//! The guest's own mounts.

use std::{
    ffi::CString,
    fs,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::{
    cgroup,
    error::{During, Result},
};

struct Mount {
    kind: &'static str,
    place: &'static str,
    flags: MountFlags,
    data: &'static str,
}

/// How long the share's device may take to appear.
const SHARE_LIMIT: Duration = Duration::from_secs(30);
const SHARE_PAUSE: Duration = Duration::from_millis(20);

/// Of the share: what the node put there must not become the guest's devices. Set-user-id programs are for the containers, as with any
/// runtime, where neither a volume's options nor no_new_privs say otherwise; nothing of the share is executed outside of them. The node's
/// side of the share is mounted without.
pub const SHARE_FLAGS: MountFlags = MountFlags::NODEV;

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In this order: each place exists by then, or is made.
const MOUNTS: &[Mount] = &[
    Mount { kind: "proc", place: "/proc", flags: SAFE, data: "" },
    Mount { kind: "sysfs", place: "/sys", flags: SAFE, data: "" },
    Mount { kind: "devtmpfs", place: "/dev", flags: MountFlags::NOSUID, data: "mode=0755" },
    Mount {
        kind: "devpts",
        place: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "mode=0620,gid=5,ptmxmode=0666",
    },
    Mount {
        kind: "tmpfs",
        place: "/dev/shm",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=1777",
    },
    Mount { kind: "mqueue", place: "/dev/mqueue", flags: SAFE, data: "" },
    Mount {
        kind: "tmpfs",
        place: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=0755",
    },
    Mount {
        kind: "tmpfs",
        place: "/tmp",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: "mode=1777",
    },
    Mount { kind: "cgroup2", place: cgroup::MOUNT, flags: SAFE, data: "" },
];

/// /dev/fd and its kin: names of the shells.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts what a Linux system has, and lets cgroups below the root use every controller.
/// # Errors
/// Names the mount.
pub fn all() -> Result<()> {
    for Mount { kind, place, flags, data } in MOUNTS {
        at(kind, kind, place, *flags, data)?;
    }
    for (target, link) in LINKS {
        // There already: fine.
        let _ = symlink(target, link);
    }
    // The library makes each container's tree a slave of this one; a private root keeps them apart.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).during(|| "make the mounts private".into())?;
    delegate_controllers()
}

/// The share of the pod. `tag` is the 9p device's.
///
/// cache=mmap: as `none` for names, attributes, reads and writes (the shim adds bind mounts, and the node writes into volumes, while the
/// guest lives), but files can be mapped shared and writable (README, "Mapped files"). msize: 512 KiB a request, or every read costs a
/// round trip for each 4 KiB.
/// # Errors
/// As mount(2), when the device has not come within [`SHARE_LIMIT`]; it waits as long as the backend does not answer.
pub fn share(tag: &str, place: &str) -> Result<()> {
    let end = Instant::now() + SHARE_LIMIT;
    loop {
        match at(
            tag,
            "9p",
            place,
            SHARE_FLAGS,
            "trans=xen,version=9p2000.L,msize=524288,cache=mmap,access=client",
        ) {
            // The transport knows no device of this tag: its backend may still be starting.
            Err(_) if Instant::now() < end => thread::sleep(SHARE_PAUSE),
            result => return result,
        }
    }
}

fn at(source: &str, kind: &str, place: &str, flags: MountFlags, data: &str) -> Result<()> {
    fs::create_dir_all(place).during(|| format!("make {place}"))?;
    // Our own constants: they hold no NUL.
    let data = CString::new(data).unwrap_or_default();
    mount(source, place, kind, flags, Some(data.as_c_str())).during(|| format!("mount {kind} at {place}"))
}

/// Every controller of the root, for the cgroups below it. Those that a kernel lacks are left out by not being listed.
fn delegate_controllers() -> Result<()> {
    let root = Path::new(cgroup::MOUNT);
    let controllers = root.join("cgroup.controllers");
    let list = fs::read_to_string(&controllers).during(|| format!("read {}", controllers.display()))?;
    for controller in list.split_whitespace() {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
            .during(|| format!("delegate the controller {controller}"))?;
    }
    Ok(())
}
