//! What NVIDIA's driver has compiled of a container's PTX is kept for the container's next processes, as it keeps it in a home's
//! `.nv/ComputeCache`: in memory, in a file system of the container's own that its workers have at one place. Start at [`Keeper::attach`].
//!
//! They are mounted in a mount namespace that nobody but one thread here has. A worker gets a mount of its own of it when it serves, behind its
//! closed door: before, it shall read nothing that a guest may have made. So the node sees nothing of them, and with the supervisor, however it
//! ends, they are gone. The rule: nobody here opens anything in them. Their pages count where the worker does that writes them.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use tokio::sync::oneshot;
use vgpu_config::Proxy;

use super::Supervisor;
use super::running::{Running, Wanted};
use super::spawn::{self, Namespaces};
use crate::device::DeviceKind;
use crate::worker::sandbox::{CODE_FOLDER, CODE_PARENT, root};

/// Source: Linux `include/uapi/linux/magic.h`.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
/// A file or folder for each so many bytes: what they cost beside their pages is bounded, too.
const BYTES_PER_FILE: u64 = 16 << 10;
/// For the keeper to attach one. It is one thread for all: where something holds it up, workers serve without.
const ATTACH_LIMIT: Duration = Duration::from_secs(2);
/// Workers that may wait for it, those that have given up included. Each costs a descriptor.
const WAITING_MAX: usize = 256;
/// What whoever runs gpu-proxy can do where nothing can be kept.
const OR_WITHOUT: &str = "with proxy.code_cache_max_mib = 0 nothing is to be kept";

/// Nothing is opened through a link, and nothing is run.
const FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOSYMFOLLOW)
    .union(MountFlags::NOATIME);

/// The thread that has them mounted.
#[derive(Debug)]
pub(super) struct Keeper {
    tasks: mpsc::Sender<Task>,
    next: AtomicU64,
    waiting: Arc<AtomicUsize>,
    bytes: u64,
}

/// One of those that wait for it.
#[derive(Debug)]
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    /// `None` beside too many others.
    fn among(all: &Arc<AtomicUsize>) -> Option<Self> {
        let before = all.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(Arc::clone(all));
        (before < WAITING_MAX).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// That of one container. Made when a worker gets it first; dropped, it goes with the last worker that has it.
#[derive(Debug, Default)]
pub(super) struct CodeCache(OnceLock<Made>);

#[derive(Debug)]
struct Made {
    /// Never given twice.
    number: u64,
    tasks: mpsc::Sender<Task>,
}

#[derive(Debug)]
enum Task {
    Attach {
        number: u64,
        owner: u32,
        pidfd: Arc<OwnedFd>,
        answer: oneshot::Sender<io::Result<()>>,
        /// Until it is done.
        _waiting: Waiting,
    },
    End(u64),
}

impl Supervisor {
    /// Who keeps what is compiled for such a process. Workers of an earlier wire have no place for it.
    pub(super) fn keeps_code(&self, wanted: &Wanted) -> Option<&Keeper> {
        self.code.as_ref().filter(|_| wanted.program.is_none())
    }

    /// Gives a worker that serves what was compiled for its container. Nobody is refused for want of it.
    pub(super) async fn attach_code(&self, running: &Running) {
        let cache = self.zones().code_of(running.worker());
        let (Some(keeper), Some((cache, owner)), true) = (&self.code, cache, running.code) else { return };
        if let Err(error) = keeper.attach(&cache, owner, &running.pidfd).await {
            self.warn([format!("a worker keeps nothing of what it compiles: {error} ({OR_WITHOUT})")]);
        }
    }
}

/// Where the driver keeps what it compiles. Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
pub(super) fn environment(code: Option<&Keeper>) -> Vec<String> {
    let Some(keeper) = code else { return vec!["CUDA_CACHE_DISABLE=1".into()] };
    vec![
        format!("CUDA_CACHE_PATH={CODE_PARENT}/{CODE_FOLDER}"),
        format!("CUDA_CACHE_MAXSIZE={}", keeper.used_bytes_max()),
    ]
}

impl Keeper {
    /// The one of this configuration, or why there is none although it is wanted. The soft device compiles in its worker's memory.
    pub(super) fn wanted(
        proxy: &Proxy,
        device: DeviceKind,
        namespaces: Namespaces,
    ) -> (Option<Self>, Option<String>) {
        if device != DeviceKind::Cuda || proxy.code_cache_max_mib == 0 {
            return (None, None);
        }
        let started = if rustix::process::geteuid().is_root() && namespaces.of_mounts() {
            Self::start(proxy.code_cache_max_mib << 20)
        } else {
            Err(io::Error::other(
                "it takes a gpu-proxy that is root and a kernel that gives workers mount namespaces",
            ))
        };
        match started {
            Ok(keeper) => (Some(keeper), None),
            Err(error) => (None, Some(format!("each process compiles its PTX anew: {error} ({OR_WITHOUT})"))),
        }
    }

    /// Each cache may have so many `bytes`.
    fn start(bytes: u64) -> io::Result<Self> {
        let (tasks, orders) = mpsc::channel();
        let (tell, started) = mpsc::channel();
        thread::Builder::new().name("code-caches".into()).spawn(move || {
            // Whoever starts it waits for either.
            match own_namespace() {
                Ok(own) => {
                    let _ = tell.send(Ok(()));
                    keep(&own, bytes, &orders);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { tasks, next: AtomicU64::new(1), waiting: Arc::default(), bytes })
    }

    /// How much NVIDIA's driver may be told to keep: files take whole pages, and have an index beside them.
    fn used_bytes_max(&self) -> u64 {
        self.bytes / 4 * 3
    }

    /// Mounts the container's in the namespace of a worker, which runs as `owner`.
    ///
    /// # Errors
    /// What the system says, or that the keeper is busy.
    async fn attach(&self, cache: &CodeCache, owner: u32, pidfd: &Arc<OwnedFd>) -> io::Result<()> {
        let Made { number, tasks } = cache.0.get_or_init(|| Made {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            tasks: self.tasks.clone(),
        });
        let (answer, attached) = oneshot::channel();
        let gone =
            || io::Error::other("the thread that keeps it has ended: a new start of gpu-proxy has one");
        let busy = || io::Error::new(io::ErrorKind::TimedOut, "the thread that keeps it is held up");
        let _waiting = Waiting::among(&self.waiting).ok_or_else(busy)?;
        let task = Task::Attach { number: *number, owner, pidfd: Arc::clone(pidfd), answer, _waiting };
        tasks.send(task).map_err(|_| gone())?;
        let attached = tokio::time::timeout(ATTACH_LIMIT, attached).await.map_err(|_| busy())?;
        attached.map_err(|_| gone())?
    }
}

impl Drop for CodeCache {
    fn drop(&mut self) {
        if let Some(Made { number, tasks }) = self.0.get() {
            // A keeper that is gone has none.
            let _ = tasks.send(Task::End(*number));
        }
    }
}

/// Makes this thread's own, with an empty root, and names it.
fn own_namespace() -> io::Result<OwnedFd> {
    spawn::own_mounts()?;
    // There is no /proc behind the next line.
    let own = File::open("/proc/thread-self/ns/mnt")?;
    root::replace(c"size=64k,mode=0700")?;
    Ok(own.into())
}

/// Until nobody can ask any more.
fn keep(own: &OwnedFd, bytes: u64, orders: &mpsc::Receiver<Task>) {
    for task in orders {
        match task {
            Task::Attach { number, owner, pidfd, answer, _waiting } => {
                let attached = lend(number, owner, bytes).and_then(|lent| attach(&lent, &pidfd));
                // Without our own namespace there is nothing more to do here, or to be undone.
                let back =
                    rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount));
                let is_back = back.is_ok();
                // Who asked may have given up.
                let _ = answer.send(attached.and(back.map_err(io::Error::from)));
                if !is_back {
                    return;
                }
            }
            Task::End(number) => {
                // One that could not be made is not there.
                let _ = rustix::mount::unmount(place(number), UnmountFlags::DETACH);
                let _ = fs::remove_dir(place(number));
            }
        }
    }
}

fn place(number: u64) -> String {
    format!("/{number}")
}

/// A mount of the cache, mounted nowhere. The first time the cache is made.
fn lend(number: u64, owner: u32, bytes: u64) -> io::Result<OwnedFd> {
    let place = place(number);
    match fs::create_dir(&place) {
        Ok(()) => {
            let files = bytes / BYTES_PER_FILE;
            let options = format!("size={bytes},nr_inodes={files},mode=0700,uid={owner},gid={owner}");
            let options = CString::new(options)?;
            let mounted = rustix::mount::mount("vgpu-code", &place, "tmpfs", FLAGS, options.as_c_str());
            mounted.map_err(|error| {
                let _ = fs::remove_dir(&place);
                said("a file system in memory cannot be mounted")(error)
            })?;
        }
        Err(there) if there.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let alone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, &place, alone).map_err(said("its mount cannot be cloned"))
}

/// What was tried, before what the system says.
fn said(what: &str) -> impl Fn(Errno) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Puts it in its place for a worker. The place is on a file system that the worker made before its sandbox, and cannot change: what else has
/// that name is the node's.
fn attach(lent: &OwnedFd, pidfd: &OwnedFd) -> io::Result<()> {
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::MOUNT)
        .map_err(said("a worker's mounts cannot be entered"))?;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(CWD, CODE_PARENT, folder, Mode::empty());
    let parent = parent.map_err(said("a worker has no place for it"))?;
    if !is_cover(&parent)? {
        return Err(io::Error::other("a worker has not covered the place for it"));
    }
    let place = rustix::fs::openat(&parent, CODE_FOLDER, folder, Mode::empty());
    let place = place.map_err(said("a worker has no place for it"))?;
    let themselves = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(lent, c"", &place, c"", themselves)
        .map_err(said("it cannot be put in its place"))
}

/// Whether it is as a worker makes it: in memory, and read-only.
fn is_cover(parent: &OwnedFd) -> io::Result<bool> {
    let is_in_memory = rustix::fs::fstatfs(parent)?.f_type == TMPFS_MAGIC;
    Ok(is_in_memory && rustix::fs::fstatvfs(parent)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests;
