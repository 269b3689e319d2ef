//! What a worker sees of the file system: nothing, or, with NVIDIA's driver, the node's with a `/proc` of the worker's own.

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
    leave_the_nodes_mounts()?;
    rustix::mount::mount("vgpu-worker", STEPPING_STONE, "tmpfs", flags, c"size=4k,nr_inodes=2,mode=0555")?;
    rustix::process::chdir(STEPPING_STONE)?;
    // Both names are the new root: the old one then lies over it, and is taken away.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, c"")?)
}

/// Mounts a `/proc` of this pid namespace over the node's. NVIDIA's driver looks itself up there by its process id, which in the
/// node's `/proc` is another process; `cuInit` gives 304 then (seen with 580.159.04).
///
/// # Errors
/// What the system says; then `/proc` is as it was.
pub fn own_proc() -> io::Result<()> {
    leave_the_nodes_mounts()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("proc", "/proc", "proc", flags, c"")?)
}

/// From here on nothing that is mounted here is seen outside. The node's own unmounts still reach this copy: a worker that lives shall
/// not keep other pods' file systems in use.
fn leave_the_nodes_mounts() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}
