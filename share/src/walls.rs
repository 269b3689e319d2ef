//! What a server takes from itself, so that a guest that broke it has the guest's own share and nothing else of the node: namespaces, a
//! root file system of two directories, five capabilities, the system calls of [`calls`], bounds of memory and descriptors.
//!
//! Two steps: [`Walls::begin`] while there is one thread, before anything is opened; [`Walls::close`] when the guest's pages are mapped,
//! before a byte of it is read. A measure that fails ends the server: none is dropped in silence.

pub mod calls;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

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
/// Its guest decides how much memory the server takes. So it goes long before the shim and containerd, of which it would have the score.
/// Source: `proc_pid_oom_score_adj(5)`.
const OOM_SCORE: &str = "500";
/// A message each way and what is made of it, 8192 fids, extended attributes: some 6 MiB. Source: `getrlimit(2)`, `RLIMIT_DATA`.
const DATA_BYTES_MAX: u64 = 64 << 20;
/// Beside those of fids: the standard ones, the rings' and the event channel's, the root's, what a request opens for its own time.
const OTHER_DESCRIPTORS: u64 = 64;
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
        fs::write("/proc/self/oom_score_adj", OOM_SCORE)?;
        let fids = u64::try_from(limits.fids_max).unwrap_or(u64::MAX);
        limit(Resource::Nofile, fids.saturating_mul(2).saturating_add(OTHER_DESCRIPTORS))?;
        limit(Resource::Data, DATA_BYTES_MAX)?;
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
        rustix::mount::mount("vgpu-root", STEPPING_STONE, "tmpfs", flags, c"size=4k,nr_inodes=4,mode=0555")?;
        let at = |name: &str| Path::new(STEPPING_STONE).join(name);
        for name in [SHARE, "proc"] {
            rustix::fs::mkdir(at(name), Mode::RUSR | Mode::XUSR)?;
        }
        let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&export));
        rustix::mount::mount_bind_recursive(&*from, at(SHARE))?;
        // Files are opened through /proc/self/fd. Of the rest of the node's there is nothing: no settings of the kernel, no other process.
        rustix::mount::mount("proc", at("proc"), "proc", flags, c"subset=pid,hidepid=ptraceable")?;
        rustix::mount::mount_remount(STEPPING_STONE, flags | MountFlags::RDONLY, c"")?;
        Ok(Self(()))
    }

    /// Closes them and returns the share's directory.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Other`]: there is another thread, which would stay outside.
    pub fn close(self) -> io::Result<OwnedFd> {
        if fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other("there is more than one thread"));
        }
        rustix::process::chdir(STEPPING_STONE)?;
        // Both names are the new root: the old one then lies over it, and is taken away.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, Path::new("/").join(SHARE), flags, Mode::empty())?;
        // A mode is what the guest says.
        rustix::process::umask(Mode::empty());
        drop_capabilities()?;
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        calls::apply().map_err(io::Error::other)?;
        Ok(root)
    }
}

fn limit(what: Resource, value: u64) -> io::Result<()> {
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
