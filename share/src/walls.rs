//! What a server takes from itself, so that a guest that broke it has the guest's own share and nothing else of the node: namespaces, a
//! root file system of the share and this process's descriptors, five capabilities, the system calls of [`calls`], bounds of memory and descriptors.
//!
//! Two steps: [`Walls::begin`] while there is one thread, before anything is opened; [`Walls::close`] when the guest's pages are mapped,
//! before a byte of it is read. A measure that fails ends the server: none is dropped in silence.

pub mod calls;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::session::Limits;

/// A directory that every system has, to put the new root together on.
const STEPPING_STONE: &str = "/tmp";
/// In the new root: the share.
const SHARE: &str = "share";
/// And this process's descriptors, through which files are opened. Nothing else of `/proc`: the memory of whoever runs the program can be
/// rewritten there, and what another process of user 0 without capabilities has open, or has as its root, is ours to use.
const DESCRIPTORS: &str = "proc/self/fd";
/// Its guest decides how much memory the server takes. So it goes long before the shim and containerd, of which it would have the score.
/// Source: `proc_pid_oom_score_adj(5)`.
const OOM_SCORE: &str = "500";
/// A message each way and what is made of it, 8192 fids, 32768 nodes, extended attributes: some 10 MiB. Source: `getrlimit(2)`, `RLIMIT_DATA`.
const DATA_BYTES_MAX: u64 = 64 << 20;
/// Those, the program, the rings, and what the C library reserves for a second thread. `RLIMIT_DATA` counts no shared memory, of which a
/// server that is taken over could fill the node.
const ADDRESS_BYTES_MAX: u64 = 256 << 20;
/// Beside those of fids: the standard ones, the rings' and the event channel's, the root's, what a request opens for its own time.
const OTHER_DESCRIPTORS: u64 = 64;
/// For what a thread that was joined still does in the kernel: who joins it is woken before it is gone. Source: Linux `kernel/exit.c`,
/// `do_exit`.
const THREAD_END_LIMIT: Duration = Duration::from_secs(5);
/// Files of any owner, as the guest's root has them; owners; set-group-id bits that stay; file capabilities.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);

/// The walls, half built.
#[derive(Debug)]
pub struct Walls(());

impl Walls {
    /// Leaves the node's namespaces but those of users and of processes, and prepares a root that holds `export`, a directory, with all
    /// that is mounted below it, now or later. The node's paths are still there.
    ///
    /// # Errors
    /// What the system says: not root, no such directory.
    pub fn begin(export: &Path, limits: &Limits) -> io::Result<Self> {
        close_inherited()?;
        fs::write("/proc/self/oom_score_adj", OOM_SCORE)?;
        let held = limits.nodes_max.saturating_add(limits.fids_max);
        limit(Resource::Nofile, u64::try_from(held).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS))?;
        limit(Resource::Data, DATA_BYTES_MAX)?;
        limit(Resource::As, ADDRESS_BYTES_MAX)?;
        limit(Resource::Core, 0)?;
        nix::sched::unshare(
            CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWCGROUP,
        )?;
        // Nothing that is mounted here is seen outside; what the shim mounts in the share, and takes away, comes here.
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        // Opened first: it may lie below the stepping stone.
        let export =
            rustix::fs::open(export, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("vgpu-root", STEPPING_STONE, "tmpfs", flags, c"size=4k,nr_inodes=5,mode=0555")?;
        let at = |name: &str| Path::new(STEPPING_STONE).join(name);
        for name in [SHARE, "proc", "proc/self", DESCRIPTORS] {
            rustix::fs::mkdir(at(name), Mode::RUSR | Mode::XUSR)?;
        }
        let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&export));
        rustix::mount::mount_bind_recursive(&*from, at(SHARE))?;
        rustix::mount::mount_bind(Path::new("/").join(DESCRIPTORS), at(DESCRIPTORS))?;
        rustix::mount::mount_remount(at(DESCRIPTORS), MountFlags::BIND | MountFlags::RDONLY | flags, "")?;
        rustix::mount::mount_remount(STEPPING_STONE, flags | MountFlags::RDONLY, c"")?;
        Ok(Self(()))
    }

    /// Closes them and returns the share's directory.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Other`]: there is another thread, which would stay outside.
    pub fn close(self) -> io::Result<OwnedFd> {
        await_one_thread(|| Ok(fs::read_dir("/proc/self/task")?.count()), THREAD_END_LIMIT)?;
        rustix::process::chdir(STEPPING_STONE)?;
        // Both names are the new root: the old one then lies over it, and is taken away.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, Path::new("/").join(SHARE), flags, Mode::empty())?;
        // A mode is what the guest says.
        rustix::process::umask(Mode::empty());
        // First: from when it has no more capabilities than another guest's server, that one could look in.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        drop_capabilities()?;
        rustix::thread::set_no_new_privs(true)?;
        calls::apply().map_err(io::Error::other)?;
        Ok(root)
    }
}

/// Closes all but the standard descriptors. Whoever started us may have left others open, which are not for who takes us over.
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for number in open.into_iter().filter(|number| *number > 2) {
        match nix::unistd::close(number) {
            // The listing's own, which is over.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// By what `count` says, now or until the limit.
fn await_one_thread(mut count: impl FnMut() -> io::Result<usize>, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    while count()? != 1 {
        if Instant::now() >= end {
            return Err(io::Error::other("there is more than one thread"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Or what this process may have at most, if that is less.
fn limit(what: Resource, value: u64) -> io::Result<()> {
    let value = rustix::process::getrlimit(what).maximum.map_or(value, |most| most.min(value));
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    Ok(rustix::process::setrlimit(what, limit)?)
}

/// Those that the kernel has and are not in [`CAPABILITIES`]: of this thread, and of anything that it could become.
fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for capability in (CapabilitySet::all() - CAPABILITIES).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A kernel that is older than the list knows fewer.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: CAPABILITIES, permitted: CAPABILITIES, inheritable };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_about_to_be_gone_is_waited_for_and_no_other() {
        let mut counts = [3, 2, 1].into_iter();
        await_one_thread(|| Ok(counts.next().unwrap()), THREAD_END_LIMIT).unwrap();
        assert_eq!(counts.next(), None);
        let stays = await_one_thread(|| Ok(2), Duration::from_millis(5)).unwrap_err();
        assert_eq!(stays.kind(), io::ErrorKind::Other);
    }
}
