//! A root file system that containers can leave.
//!
//! The kernel starts PID 1 on the initramfs, and `pivot_root` refuses to leave that (Linux, `Documentation/filesystems/ramfs-rootfs-initramfs.rst`).
//! A bind mount of the initramfs, moved over it, is an ordinary mount with the same files: nothing is copied.

use std::{env, fs};

use rustix::mount::{MountFlags, mount_bind, mount_move, mount_remount};

use crate::error::{During, Result};

const PLACE: &str = "/.root";

/// Makes the bind mount the root of this process and its children. Before any other mount, which would stay below.
/// # Errors
/// Names the step.
pub fn leave_initramfs() -> Result<()> {
    fs::create_dir_all(PLACE).during(|| format!("make {PLACE}"))?;
    mount_bind("/", PLACE).during(|| format!("bind / to {PLACE}"))?;
    env::set_current_dir(PLACE).during(|| format!("enter {PLACE}"))?;
    mount_move(".", "/").during(|| "move the bind mount to /".into())?;
    rustix::process::chroot(".").during(|| "change the root".into())?;
    env::set_current_dir("/").during(|| "enter /".into())
}

/// From now on nobody changes what is in the initramfs: this program, which each OCI helper executes in reach of a container, and the
/// libraries that containers have bound. After every other mount is made: their places must exist.
/// # Errors
/// As mount(2).
pub fn seal() -> Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
    mount_remount("/", flags, "").during(|| "make the root read-only".into())
}
