//! A container's stand-in on this host: a process of the pid that we report for it, in namespaces of the shape that the container's own have in
//! the guest. Clients make paths of a pid, `/proc/<pid>/ns/net`, and write them into the specs of later containers.
//!
//! It does nothing but wait for the end of its standard input, which the shim alone can write to: so it ends with the shim, however that ends,
//! and nothing is left of it that a new process would have to know. Each is the first process of a pid namespace: two that share one in the
//! guest do not share it here, where the first one's end would be the other's.
//!
//! Only a SIGKILL ends one, or a shim: being the first of its namespace, it gets no other signal of this host. Somebody may send that, or the
//! kernel, for want of memory. A pid that was told cannot be given to another process, and one that is nobody's may become anybody's. So it is
//! what it would be with runc, a kill of the container's init: the guest is told to do that (`pod/death.rs`), and the
//! container ends with 137.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;
use vgpu_codes::Code;
use vgpu_netlink::{Namespace, Rtnetlink};

use crate::{
    error::{Error, OrFail, Result},
    process,
    share::Process,
    spec::namespaces::{Joined, Kind},
};

/// The first link of each network namespace. Source: Linux, `include/net/net_namespace.h`, `LOOPBACK_IFINDEX`.
const LOOPBACK: u32 = 1;
/// Of the thread that asks. Source: `namespaces(7)`.
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// The verb `hold`: waits for the end of standard input.
///
/// # Errors
/// It cannot be read.
pub fn hold() -> Result<()> {
    let waited = io::copy(&mut io::stdin(), &mut io::sink());
    waited.map(drop).or_fail(Code::HostFailure, || "cannot wait for the end of the input".into())
}

/// See the module. Ends when it is dropped.
#[derive(Debug)]
pub struct Holder {
    process: Process,
    /// It did not join one.
    own_network: bool,
    child: Mutex<Option<Child>>,
}

impl Holder {
    /// Has `command`, which waits for the end of its input, wait in namespaces of its own and those that are joined. Gives that of its network,
    /// which a path by its pid may not lead to later. Blocks.
    ///
    /// # Errors
    /// [`Code::HostResource`] if the host can't have one more.
    pub fn begin(mut command: Command, joined: Joined) -> Result<(Holder, Namespace)> {
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let own_network = !joined.files.contains_key(&Kind::Network);
        // A child gets the namespaces of the thread that makes it: no thread of ours shall have these.
        let spawning = thread::Builder::new().name("holder".into()).spawn(move || {
            enter(&joined.files)?;
            if own_network {
                // As runc has it: who looks there finds a loopback that works.
                Rtnetlink::open()?.set_up(LOOPBACK, true)?;
            }
            let network = Namespace::open(Path::new(OF_THIS_THREAD))?;
            Ok((command.spawn()?, network))
        });
        let spawned =
            spawning.and_then(|thread| thread.join().map_err(|_| io::Error::other("it panicked"))?);
        let what = || "cannot make the holder of a container".to_owned();
        let (mut child, network) = spawned.or_fail(Code::HostResource, what)?;
        match Process::of(child.id()) {
            Some(process) => Ok((Holder { process, own_network, child: Mutex::new(Some(child)) }, network)),
            None => {
                let ended = child.wait().or_fail(Code::HostResource, what)?;
                Err(Error::new(Code::HostResource, format!("{}: it ended at once ({ended})", what())))
            }
        }
    }

    /// What is reported for the container, also after its end.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Where others find its network namespace, if that was made for it: they put a network into it.
    pub fn own_network(&self) -> Option<PathBuf> {
        self.own_network.then(|| Kind::Network.path(self.process.pid).into())
    }

    /// Resolves at its end, whoever makes it.
    ///
    /// # Errors
    /// If it can't be watched.
    pub fn ended(&self) -> io::Result<oneshot::Receiver<()>> {
        self.process.end()
    }

    /// Ends it, so that its pid is nobody's; the kernel first ends who else is in its pid namespace. Blocks for as long as the kernel takes to end a process that waits, which is 1 s at most: from
    /// then on a thread waits for it.
    pub fn end(&self) {
        if let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            process::kill_child("holder", child);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

/// Has this thread's children in these namespaces, and in new ones of the other kinds.
fn enter(joined: &BTreeMap<Kind, File>) -> io::Result<()> {
    for kind in Kind::ALL {
        let flag = match kind {
            Kind::Network => CloneFlags::CLONE_NEWNET,
            Kind::Pid => CloneFlags::CLONE_NEWPID,
            Kind::Ipc => CloneFlags::CLONE_NEWIPC,
            Kind::Uts => CloneFlags::CLONE_NEWUTS,
        };
        match joined.get(&kind).filter(|_| kind != Kind::Pid) {
            Some(file) => setns(file, flag)?,
            None => unshare(flag)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A process in its pid namespace whose parent, here outside, does not wait for it: the kernel does not let the first one go before.
    #[test]
    fn one_that_ends_late_keeps_nobody_and_is_waited_for() {
        let (holder, _) = Holder::begin(Command::new("cat"), Joined::default()).unwrap();
        let pid = holder.process().pid;
        let entering = thread::spawn(move || {
            let namespace = File::open(Kind::Pid.path(pid)).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWPID).unwrap();
            Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
        });
        let mut visitor = entering.join().unwrap();
        let begun = Instant::now();
        holder.end();
        assert!(begun.elapsed() >= process::KILL_LIMIT, "it ended in time");
        let there = PathBuf::from(format!("/proc/{pid}"));
        assert!(there.exists());
        visitor.wait().unwrap();
        while there.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it stays a zombie");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
