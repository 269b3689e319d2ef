//! Workers are born here: in their own user, namespaces and cgroup, with one socket and nothing else. Start at [`Spawner::spawn`].
//!
//! A thread of its own does it, and lives as long as the supervisor: the kernel ties a child's death signal to the thread that
//! made it, not to the process.

mod raw;

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::sync::oneshot;

use raw::{Birth, Child};

/// Every kind of namespace but the user's.
const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS)
        as u64;
const USER: u64 = libc::CLONE_NEWUSER as u64;

/// What a worker is born with.
#[derive(Debug)]
pub struct Order {
    /// Another program than this one.
    pub program: Option<Arc<OwnedFd>>,
    /// The user that it runs as; `None`: the supervisor's own, when it is not root.
    pub uid: Option<u32>,
    /// Its cgroup.
    pub cgroup: Option<OwnedFd>,
    /// Its environment: `NAME=value`.
    pub environment: Vec<CString>,
}

/// A worker that was born. It has not been told what to do.
#[derive(Debug)]
pub struct Newborn {
    /// Its number here.
    pub pid: u32,
    /// Becomes readable when it has ended; it is then to be reaped.
    pub pidfd: OwnedFd,
    /// Our end of its socket.
    pub socket: OwnedFd,
    /// Our end of its standard error.
    pub log: OwnedFd,
    /// Whether it has namespaces of its own.
    pub namespaces: bool,
    /// What could not be given to it.
    pub gaps: Vec<String>,
}

type Task = (Order, oneshot::Sender<io::Result<Newborn>>);

/// The thread that makes workers.
#[derive(Debug, Clone)]
pub struct Spawner {
    tasks: mpsc::Sender<Task>,
}

impl Spawner {
    /// Starts the thread. Workers are this very program, as it is now: opened once, so that a new file in its place changes nothing.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        let program: OwnedFd = File::open("/proc/self/exe")?.into();
        let null: OwnedFd = File::options().write(true).open("/dev/null")?.into();
        let (tasks, orders) = mpsc::channel::<Task>();
        thread::Builder::new().name("spawner".into()).spawn(move || {
            for (order, answer) in orders {
                let program = order.program.as_deref().unwrap_or(&program);
                // Whoever asks waits (`Supervisor::start_worker`), but at the supervisor's end: then the worker dies with it.
                let _ = answer.send(spawn(program, &null, &order));
            }
            // No more orders can come, but the workers die with this thread: it stays.
            loop {
                thread::park();
            }
        })?;
        Ok(Self { tasks })
    }

    /// Makes a worker.
    ///
    /// # Errors
    /// What the system says.
    pub async fn spawn(&self, order: Order) -> io::Result<Newborn> {
        let (answer, newborn) = oneshot::channel();
        let gone = || io::Error::other("the spawner is gone");
        self.tasks.send((order, answer)).map_err(|_| gone())?;
        newborn.await.map_err(|_| gone())?
    }
}

/// Tries with all namespaces, then without a user namespace, then without any: what this machine and our rights allow.
fn spawn(program: &OwnedFd, null: &OwnedFd, order: &Order) -> io::Result<Newborn> {
    let mut gaps = Vec::new();
    match spawn_with(program, null, order, NAMESPACES | USER) {
        Err(refused) if is_refusal(&refused) => {
            gaps.push(format!("workers have no user namespace: {refused}"));
        }
        born => return born,
    }
    match spawn_with(program, null, order, NAMESPACES) {
        Err(refused) if is_refusal(&refused) => {
            gaps.push(format!("workers have no mount, pid, net and ipc namespaces: {refused}"));
        }
        born => return born.map(|born| Newborn { gaps, ..born }),
    }
    spawn_with(program, null, order, 0).map(|born| Newborn { gaps, ..born })
}

/// Not allowed here, not known to this kernel, or too many.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EINVAL | libc::ENOSPC | libc::EUSERS | libc::ENOSYS)
    )
}

fn spawn_with(program: &OwnedFd, null: &OwnedFd, order: &Order, namespaces: u64) -> io::Result<Newborn> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (go, give) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (log, its_log) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let with_user = namespaces & USER != 0;
    let environment: Vec<&CStr> = order.environment.iter().map(CString::as_c_str).collect();
    let Child { pid, pidfd } = raw::birth(&Birth {
        namespaces,
        cgroup: order.cgroup.as_ref().map(AsFd::as_fd),
        program: program.as_fd(),
        socket: theirs.as_fd(),
        null: null.as_fd(),
        log: its_log.as_fd(),
        go: go.as_fd(),
        id: if with_user { Some(0) } else { order.uid },
        arguments: &[c"gpu-proxy", c"worker"],
        environment: &environment,
    })?;
    let newborn = Newborn {
        pid: pid.unsigned_abs(),
        pidfd,
        socket: ours,
        log,
        namespaces: namespaces != 0,
        gaps: Vec::new(),
    };
    let mapped = if with_user { map_user(pid, order.uid) } else { Ok(()) };
    if mapped.and_then(|()| Ok(rustix::io::write(&give, &[1])?)).is_err() {
        // It reads the end of the pipe and ends; it is reaped here since nobody else knows of it.
        drop((give, newborn));
        let _ = rustix::process::waitpid(
            rustix::process::Pid::from_raw(pid),
            rustix::process::WaitOptions::empty(),
        );
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(newborn)
}

/// One user and one group: root of the namespace is the zone's user outside, and there is nobody else.
fn map_user(pid: i32, uid: Option<u32>) -> io::Result<()> {
    let (user, group) = match uid {
        Some(uid) => (uid, uid),
        None => {
            // Without root, groups can only be mapped by those who cannot drop them. Source: `user_namespaces(7)`.
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    };
    fs::write(format!("/proc/{pid}/gid_map"), format!("0 {group} 1"))?;
    fs::write(format!("/proc/{pid}/uid_map"), format!("0 {user} 1"))
}
