//! The share served by Debian's QEMU as a Xen 9pfs backend, started by hand: with QEMU ≥ 10 xl can't.
//!
//! The nodes have to be there before QEMU starts and the domain runs, with their permissions in the same transaction: a frontend that
//! looks between the two is stuck for good.

use std::{
    ffi::OsStr,
    fs, io,
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
use rustix::process::{Pid, Resource, Rlimit};
use uuid::Uuid;
use vgpu_agent_api::wire::SHARE_TAG;
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
/// Its guest decides how much memory it takes, by open files for one. So it goes long before the shim and containerd, of which it would
/// have the score. Source: `proc_pid_oom_score_adj(5)`.
const OOM_SCORE: i32 = 500;
/// It needs 22 MiB (measured). But stacks that are hardly touched count too: 64 threads with 8 MiB and 128 requests with 1 MiB. Beyond
/// this it aborts. Source: `getrlimit(2)`, `RLIMIT_DATA`; QEMU `thread-pool-max`, `hw/9pfs/9p.h`, `MAX_REQ`.
const DATA_BYTES_MAX: u64 = 1 << 30;

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
        let started = bound(&child).and_then(|()| self.await_ready(domid, &mut child));
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

    fn end(&self, uuid: Uuid, process: Option<Process>) -> Result<()> {
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
        Ok(())
    }

    fn detach(&self, domid: u16, uuid: Uuid) -> Result<()> {
        let path = format!("/local/domain/0/backend/9pfs/{domid}");
        self.xen.remove_if_ours(domid, uuid, |xenstore| xenstore.remove(&path))
    }
}

/// What a guest can make it take of Dom0.
fn bound(child: &Child) -> Result<()> {
    let bound = || -> io::Result<()> {
        let limit = Rlimit { current: Some(DATA_BYTES_MAX), maximum: Some(DATA_BYTES_MAX) };
        // None would mean this process.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        rustix::process::prlimit(Some(pid), Resource::Data, limit)?;
        fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE.to_string())
    };
    bound().or_fail(Code::ShareFailed, || "cannot bound the memory of the share's backend".into())
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
    let front_nodes = [("backend", back.as_str()), ("backend-id", "0"), ("state", "1"), ("tag", SHARE_TAG)];
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_guest_cannot_make_its_backend_take_the_nodes_memory() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qemu");
        fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let qemu = Qemu::new(program, Arc::default());
        let mut child = qemu.spawn(1, Uuid::nil()).unwrap();
        let bounded = bound(&child);
        let told = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
        let (limits, score) = (told("limits"), told("oom_score_adj"));
        child.kill().unwrap();
        child.wait().unwrap();
        bounded.unwrap();
        assert_eq!(score.trim(), "500");
        let data = limits.lines().find_map(|line| line.strip_prefix("Max data size")).unwrap();
        let data: Vec<&str> = data.split_whitespace().collect();
        assert_eq!(data, ["1073741824", "1073741824", "bytes"]);
    }
}
