//! The share served by Debian's QEMU as a Xen 9pfs backend, started by hand: with QEMU ≥ 10 xl can't (testbed.md "9p share").
//!
//! The nodes have to be there before QEMU starts and the domain runs, with their permissions in the same transaction: a frontend that
//! looks between the two is stuck for good (xen.md 3.4).

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use idm::xen::{
    DomId,
    xenstore::{Permissions, Store as _, XsError},
};
use uuid::Uuid;
use vgpu_codes::Code;

use super::{Backend, Process};
use crate::{
    error::{Error, OrFail, Result},
    process,
    xen::XenLink,
};

/// QEMU's start under emulation on a busy machine; on hardware it takes 50 ms.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// xenbus InitWait: the backend waits for its frontend. Source: `xen/include/public/io/xenbus.h`.
const INIT_WAIT: u32 = 2;
/// The guest's mount tag.
const TAG: &str = "share0";

/// One QEMU a pod.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    xen: Arc<XenLink>,
}

impl Qemu {
    /// `program` is Debian's `/usr/libexec/xen-qemu-system-i386`.
    pub fn new(program: PathBuf, xen: Arc<XenLink>) -> Self {
        Qemu { program, xen }
    }

    fn spawn(&self, domid: u16, uuid: Uuid) -> Result<Child> {
        Command::new(&self.program)
            .args([
                "-xen-domid",
                &domid.to_string(),
                "-xen-attach",
                "-M",
                "xenpv",
                "-m",
                "1",
                "-name",
                &name(uuid),
            ])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in our group: a signal for the shim's is not for it.
            .process_group(0)
            .spawn()
            .or_fail(Code::ShareFailed, || {
                format!("cannot start {} (shim.share_backend)", self.program.display())
            })
    }

    /// Waits until QEMU waits for the guest.
    fn await_ready(&self, domid: u16, child: &mut Child) -> Result<()> {
        let xenstore = self.xen.xenstore()?;
        let state = format!("{}/state", backend(domid));
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if xenstore.read_decimal(&state, 8).is_ok_and(|state| state == INIT_WAIT) {
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Error::new(
                    Code::ShareFailed,
                    format!("{} ended at once: {status}", self.program.display()),
                ));
            }
            if Instant::now() >= deadline {
                return Err(Error::new(
                    Code::ShareFailed,
                    format!("{} did not connect within {} s", self.program.display(), START_LIMIT.as_secs()),
                ));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Backend for Qemu {
    fn attach(&self, domid: u16, uuid: Uuid, export: &Path) -> Result<Process> {
        let what = || format!("cannot write the share's nodes for domain {domid}");
        let guest = DomId::new(domid).ok_or_else(|| Error::new(Code::ShareFailed, what()))?;
        let xenstore = self.xen.xenstore()?;
        xenstore
            .transaction(|nodes| write_nodes(nodes, guest, &export.to_string_lossy()))
            .or_fail(Code::ShareFailed, what)?;
        let mut child = self.spawn(domid, uuid)?;
        let started = self.await_ready(domid, &mut child);
        let process = Process::of(child.id());
        if started.is_ok()
            && let Some(process) = process
        {
            // Reaped when it ends, so that its id stays its own until then.
            std::thread::spawn(move || child.wait());
            return Ok(process);
        }
        let _ = child.kill();
        let _ = child.wait();
        started.and(Err(Error::new(Code::ShareFailed, format!("{} ended at once", self.program.display()))))
    }

    fn detach(&self, domid: Option<u16>, uuid: Uuid, process: Option<Process>) -> Result<()> {
        // Not recorded, but perhaps started: it carries the domain's UUID in its name.
        let name = name(uuid);
        let words = ["-name", &name].map(OsStr::new);
        let backends =
            process.map_or_else(|| process::with_arguments(&self.program, &words), |known| vec![known]);
        for qemu in backends {
            qemu.kill().or_fail(Code::HostFailure, || {
                format!("cannot end the share's backend, process {}", qemu.pid)
            })?;
        }
        match domid {
            Some(domid) => {
                let path = format!("/local/domain/0/backend/9pfs/{domid}");
                self.xen.remove_if_ours(domid, uuid, |xenstore| xenstore.remove(&path))
            }
            None => Ok(()),
        }
    }
}

fn name(uuid: Uuid) -> String {
    format!("vgpu-share-{uuid}")
}

fn backend(domid: u16) -> String {
    format!("/local/domain/0/backend/9pfs/{domid}/0")
}

/// Both sides of the device in one transaction. Source: `xen/docs/misc/9pfs.pandoc`; libxl's layout.
fn write_nodes(nodes: &impl idm::xen::xenstore::Store, guest: DomId, export: &str) -> Result<(), XsError> {
    let domid = guest.get();
    let (back, front) = (backend(domid), format!("/local/domain/{domid}/device/9pfs/0"));
    let back_nodes = [
        ("frontend", front.as_str()),
        ("frontend-id", &domid.to_string()),
        ("online", "1"),
        ("state", "1"),
        ("path", export),
        ("security_model", "none"),
    ];
    let front_nodes = [("backend", back.as_str()), ("backend-id", "0"), ("state", "1"), ("tag", TAG)];
    write_side(nodes, &back, &back_nodes, &Permissions::owned(DomId::DOM0, guest))?;
    write_side(nodes, &front, &front_nodes, &Permissions::owned(guest, DomId::DOM0))
}

fn write_side(
    nodes: &impl idm::xen::xenstore::Store,
    dir: &str,
    values: &[(&str, &str)],
    permissions: &Permissions,
) -> Result<(), XsError> {
    nodes.mkdir(dir)?;
    nodes.set_permissions(dir, permissions)?;
    values.iter().try_for_each(|(key, value)| {
        let path = format!("{dir}/{key}");
        nodes.write(&path, value)?;
        nodes.set_permissions(&path, permissions)
    })
}
