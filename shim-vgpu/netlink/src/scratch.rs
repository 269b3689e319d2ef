//! A network namespace of a test's own, gone with it.

use std::{
    io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{Namespace, Rtnetlink, netfilter::making};

/// Of tables for both IPs. Source: Linux, `include/uapi/linux/netfilter.h`, `NFPROTO_INET`.
const INET: u8 = 1;

/// See the module. A process that waits for the end of its input holds it.
#[derive(Debug)]
pub struct Scratch {
    holder: Child,
    namespace: Namespace,
}

impl Scratch {
    /// A new one, with a loopback that is down.
    /// # Errors
    /// This is not root, or there is no unshare(1).
    pub fn new() -> io::Result<Self> {
        let mut command = Command::new("unshare");
        let holder = command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let ours = Namespace::open("/proc/self/ns/net".as_ref())?.id()?;
        let path = path(&holder);
        loop {
            let namespace = Namespace::open(&path)?;
            if namespace.id()? != ours {
                return Ok(Scratch { holder, namespace });
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where it is, for a spec.
    pub fn path(&self) -> PathBuf {
        path(&self.holder)
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Does `work` in it.
    /// # Panics
    /// It cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(work).expect("a namespace of our own can be entered")
    }

    /// A table of nft of this name, with one rule.
    /// # Errors
    /// The kernel's.
    pub fn add_rule(&self, table: &str) -> io::Result<()> {
        self.enter(|| making::make(INET, table, "out", None, 1))
    }

    /// A wire to another one: links of these names at its ends, both up, with no addresses.
    /// # Errors
    /// The kernel's.
    pub fn wire(&self, name: &str, other: &Scratch, far_name: &str) -> io::Result<()> {
        self.enter(|| {
            let mut netlink = Rtnetlink::open()?;
            netlink.add_veth(name, "far")?;
            let far = netlink.link("far")?.ok_or(io::ErrorKind::NotFound)?.index;
            netlink.move_to(far, other.namespace())?;
            put_up(&mut netlink, name)
        })?;
        other.enter(|| {
            let mut netlink = Rtnetlink::open()?;
            let far = netlink.link("far")?.ok_or(io::ErrorKind::NotFound)?.index;
            netlink.rename(far, far_name)?;
            put_up(&mut netlink, far_name)
        })
    }
}

fn put_up(netlink: &mut Rtnetlink, name: &str) -> io::Result<()> {
    let index = netlink.link(name)?.ok_or(io::ErrorKind::NotFound)?.index;
    netlink.no_own_addresses(index)?;
    netlink.set_up(index, true)
}

fn path(holder: &Child) -> PathBuf {
    format!("/proc/{}/ns/net", holder.id()).into()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
