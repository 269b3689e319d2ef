//! Workers are born here: in their own user, namespaces and cgroup, with one socket and nothing else. Start at [`Spawner::spawn`].
//!
//! A thread of its own does it, and lives as long as the supervisor: the kernel ties a child's death signal to the thread that
//! made it, not to the process. What workers are born with is found out once, before the first of them: [`probe`].

#[expect(unsafe_code, reason = "clone3 and what its child may call")]
mod raw;

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::sync::oneshot;

use super::process::kill;
use raw::{Birth, Child};

pub use raw::own_mounts;

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
}

/// The namespaces that every worker gets. Settled once, by [`probe`]: a birth that cannot have them fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// Whether workers have a mount namespace of their own.
    #[must_use]
    pub fn of_mounts(self) -> bool {
        self.0 != 0
    }
}

/// What this machine and our rights allow.
#[derive(Debug)]
pub struct Probed {
    /// For all births.
    pub namespaces: Namespaces,
    /// Whether a worker can be born into the cgroup.
    pub cgroup: bool,
    /// What is missing, one sentence each.
    pub gaps: Vec<String>,
}

/// Finds out what workers can be born with, by births that go no further. What is found counts for good: a machine that is short of
/// something later, by a guest's doing perhaps, shall not make a worker's walls lower.
///
/// # Errors
/// There can be no worker at all.
pub fn probe(uid: Option<u32>, cgroup: Option<OwnedFd>) -> io::Result<Probed> {
    let (program, null) = (own_program()?, null()?);
    let mut order = Order { program: None, uid, cgroup, environment: Vec::new() };
    let mut gaps = Vec::new();
    let born = |order: &Order, namespaces| {
        conceive(&program, &null, order, namespaces).map(|(newborn, _give)| end(&newborn))
    };
    if order.cgroup.is_some()
        && let Err(refused) = born(&order, Namespaces(0))
    {
        gaps.push(format!("workers have no cgroup: {refused}"));
        order.cgroup = None;
    }
    let cgroup = order.cgroup.is_some();
    for (namespaces, lack) in [
        (NAMESPACES | USER, "workers have no user namespace"),
        (NAMESPACES, "workers have no mount, pid, net and ipc namespaces"),
    ] {
        let namespaces = Namespaces(namespaces);
        match born(&order, namespaces) {
            Ok(()) => return Ok(Probed { namespaces, cgroup, gaps }),
            Err(refused) => gaps.push(format!("{lack}: {refused}")),
        }
    }
    born(&order, Namespaces(0))?;
    Ok(Probed { namespaces: Namespaces(0), cgroup, gaps })
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
    pub fn start(namespaces: Namespaces) -> io::Result<Self> {
        let (program, null) = (own_program()?, null()?);
        let (tasks, orders) = mpsc::channel::<Task>();
        thread::Builder::new().name("spawner".into()).spawn(move || {
            for (order, answer) in orders {
                let program = order.program.as_deref().unwrap_or(&program);
                // Whoever asks waits (`Supervisor::start_worker`), but at the supervisor's end: then the worker dies with it.
                let _ = answer.send(spawn(program, &null, &order, namespaces));
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

fn own_program() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/self/exe")?.into())
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().write(true).open("/dev/null")?.into())
}

fn spawn(program: &OwnedFd, null: &OwnedFd, order: &Order, namespaces: Namespaces) -> io::Result<Newborn> {
    let (newborn, give) = conceive(program, null, order, namespaces)?;
    if let Err(error) = rustix::io::write(&give, &[1]) {
        end(&newborn);
        return Err(error.into());
    }
    Ok(newborn)
}

/// A worker that has all it is to be born with, and waits for a byte of the second.
fn conceive(
    program: &OwnedFd,
    null: &OwnedFd,
    order: &Order,
    Namespaces(namespaces): Namespaces,
) -> io::Result<(Newborn, OwnedFd)> {
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
        give: give.as_fd(),
        id: if with_user { Some(0) } else { order.uid },
        arguments: &[c"gpu-proxy", c"worker"],
        environment: &environment,
    })?;
    let newborn = Newborn { pid: pid.unsigned_abs(), pidfd, socket: ours, log };
    let mapped = if with_user { map_user(pid, order.uid) } else { Ok(()) };
    if let Err(error) = mapped.and_then(|()| offer_to_oom_killer(pid)) {
        end(&newborn);
        return Err(error);
    }
    Ok((newborn, give))
}

/// Ends a worker that nobody else knows of, and reaps it.
fn end(newborn: &Newborn) {
    kill(&newborn.pidfd);
    let _ = waitid(WaitId::PidFd(newborn.pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// When memory runs out, workers go before anything of the node.
fn offer_to_oom_killer(pid: i32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    /// No id at all: no map may have it, whoever writes it. Source: `user_namespaces(7)`.
    const NOBODY: u32 = u32::MAX;

    fn yes(uid: Option<u32>) -> Order {
        let program = Some(Arc::new(File::open("/usr/bin/yes").unwrap().into()));
        Order { program, uid, cgroup: None, environment: Vec::new() }
    }

    fn own_uid() -> Option<u32> {
        rustix::process::geteuid().is_root().then_some(790_000)
    }

    fn has_ended(newborn: &Newborn) -> bool {
        let mut watched = [PollFd::new(&newborn.pidfd, PollFlags::IN)];
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        poll(&mut watched, Some(&limit)).unwrap() == 1
    }

    /// Whether it waits already: only then is it tied to who made it. Source: `proc_pid_stat(5)`, the state behind the name.
    fn sleeps(newborn: &Newborn) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", newborn.pid)).unwrap().contains(") S ")
    }

    #[tokio::test]
    async fn a_birth_that_cannot_have_its_user_is_refused_and_the_next_one_works() {
        let Probed { namespaces, gaps, .. } = probe(own_uid(), None).unwrap();
        if namespaces.0 & USER == 0 {
            eprintln!("NOT TRIED: {}: there are no user namespaces here: {gaps:?}", file!());
            return;
        }
        let spawner = Spawner::start(namespaces).unwrap();
        let refused = tokio::time::timeout(LIMIT, spawner.spawn(yes(Some(NOBODY)))).await;
        assert!(refused.expect("the spawner hangs").is_err());
        let born = tokio::time::timeout(LIMIT, spawner.spawn(yes(own_uid()))).await;
        let born = born.expect("the spawner hangs").unwrap();
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", born.pid)).unwrap();
        assert_eq!(score.trim(), "1000");
        end(&born);
    }

    #[tokio::test]
    async fn a_birth_that_cannot_have_its_cgroup_is_refused() {
        let Probed { namespaces, .. } = probe(own_uid(), None).unwrap();
        let spawner = Spawner::start(namespaces).unwrap();
        let no_cgroup = Some(File::open("/").unwrap().into());
        let refused = spawner.spawn(Order { cgroup: no_cgroup, ..yes(own_uid()) }).await;
        assert!(refused.is_err());
        assert!(!probe(own_uid(), Some(File::open("/").unwrap().into())).unwrap().cgroup);
    }

    #[test]
    fn a_child_that_is_never_let_go_ends_with_the_pipe() {
        let (program, null) = (own_program().unwrap(), null().unwrap());
        let (newborn, give) = conceive(&program, &null, &yes(None), Namespaces(0)).unwrap();
        drop(give);
        let ended = has_ended(&newborn);
        end(&newborn);
        assert!(ended, "it waits for itself");
    }

    #[test]
    fn a_child_that_waits_ends_with_the_thread_that_made_it() {
        let (program, null) = (own_program().unwrap(), null().unwrap());
        let made = thread::spawn(move || {
            let made = conceive(&program, &null, &yes(None), Namespaces(0)).unwrap();
            while !sleeps(&made.0) {
                thread::yield_now();
            }
            made
        });
        let (newborn, give) = made.join().unwrap();
        let ended = has_ended(&newborn);
        end(&newborn);
        drop(give);
        assert!(ended, "it outlives its maker");
    }
}
