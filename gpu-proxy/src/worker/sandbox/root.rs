//! What a worker sees of the file system: nothing, or, with NVIDIA's driver, the node's with a `/proc` of the worker's own.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// A directory that every system has, to mount on for a moment.
const STEPPING_STONE: &str = "/tmp";

/// Of every file system that is mounted here.
const NOTHING_RUNS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Makes an empty, read-only directory the root of this mount namespace.
///
/// # Errors
/// What the system says; then the root is as it was.
pub fn make_empty() -> io::Result<()> {
    replace(c"size=4k,nr_inodes=2,mode=0555")?;
    Ok(rustix::mount::mount_remount("/", NOTHING_RUNS | MountFlags::RDONLY, c"")?)
}

/// Makes a new file system in memory the root of this mount namespace, which keeps nothing else that is mounted in use.
///
/// # Errors
/// What the system says; then the root is as it was.
pub fn replace(options: &CStr) -> io::Result<()> {
    leave_the_nodes_mounts()?;
    rustix::mount::mount("vgpu-root", STEPPING_STONE, "tmpfs", NOTHING_RUNS, options)?;
    rustix::process::chdir(STEPPING_STONE)?;
    // Both names are the new root: the old one then lies over it, and is taken away.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Covers a directory of the node with an empty one that has one folder, where nobody in this namespace can write or mount anything.
///
/// # Errors
/// What the system says; then the directory is as it was, or empty.
pub fn cover(place: &Path, folder: &str) -> io::Result<()> {
    rustix::mount::mount("vgpu-cover", place, "tmpfs", NOTHING_RUNS, c"size=4k,nr_inodes=2,mode=0555")?;
    rustix::fs::mkdir(place.join(folder), Mode::RUSR | Mode::XUSR)?;
    Ok(rustix::mount::mount_remount(place, NOTHING_RUNS | MountFlags::RDONLY, c"")?)
}

/// Mounts a `/proc` of this pid namespace over the node's. NVIDIA's driver looks itself up there by its process id, which in the
/// node's `/proc` is another process; `cuInit` gives 304 then (seen with 580.159.04).
///
/// # Errors
/// What the system says; then `/proc` is as it was.
pub fn own_proc() -> io::Result<()> {
    leave_the_nodes_mounts()?;
    Ok(rustix::mount::mount("proc", "/proc", "proc", NOTHING_RUNS, c"")?)
}

/// From here on nothing that is mounted here is seen outside. The node's own unmounts still reach this copy: a worker that lives shall
/// not keep other pods' file systems in use.
fn leave_the_nodes_mounts() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}
