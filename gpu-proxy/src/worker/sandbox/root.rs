//! A root directory with nothing in it.

use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// A directory that every system has, to mount on for a moment.
const STEPPING_STONE: &str = "/tmp";

/// Makes an empty, read-only directory the root of this mount namespace.
///
/// # Errors
/// What the system says; then the root is as it was.
pub fn make_empty() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::mount("vgpu-worker", STEPPING_STONE, "tmpfs", flags, c"size=4k,nr_inodes=2,mode=0555")?;
    rustix::process::chdir(STEPPING_STONE)?;
    // Both names are the new root: the old one then lies over it, and is taken away.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, c"")?)
}
