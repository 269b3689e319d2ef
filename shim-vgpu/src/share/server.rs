//! The share served by `share-server`, our own back end of Xen's 9pfs (`share/`): one process a pod.
//!
//! The nodes have to be there before it starts and the domain runs, with their permissions in the same transaction: a front end that
//! looks between the two is stuck for good. What a guest can make it take of Dom0 is the server's own measure.

use std::{
    ffi::OsStr,
    io::{self, Read as _},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use idm::xen::{
    DomId,
    xenstore::{Permissions, Store as _, XsError},
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;
use uuid::Uuid;
use vgpu_agent_api::wire::SHARE_TAG;
use vgpu_codes::Code;

use super::{Backend, Process};
use crate::{
    error::{Error, OrFail, Result, blocking},
    process,
    xen::{XenLink, nodes::write_side},
};

/// Its start under emulation on a busy machine; on hardware it takes milliseconds.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What it says when the guest may start.
const READY: &[u8] = b"ready\n";
/// Bytes of its last words that are kept.
const WORDS_MAX: u64 = 4096;

/// One server a pod.
#[derive(Debug)]
pub struct ShareServer {
    program: PathBuf,
    xen: Arc<XenLink>,
}

impl ShareServer {
    /// `program` is `share-server` as it is installed.
    pub fn new(program: PathBuf, xen: Arc<XenLink>) -> Self {
        ShareServer { program, xen }
    }

    fn start(&self, domid: u16, uuid: Uuid, export: &Path) -> Result<Process> {
        let mut child = Command::new(&self.program)
            .args([name(uuid), domid.to_string()])
            .arg(export)
            // Nothing of ours that a guest who takes it over could read: an environment may have a proxy's password.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Not in our group: a signal for the shim's is not for it.
            .process_group(0)
            .spawn()
            .or_fail(Code::ShareFailed, || {
                format!("cannot start {} (shim.share_server)", self.program.display())
            })?;
        let ready = is_ready(&mut child, START_LIMIT);
        if let (Ok(true), Some(process)) = (&ready, Process::of(child.id())) {
            let end = match process.end() {
                Ok(end) => end,
                Err(error) => {
                    process::kill_child("share's server", child);
                    return Err(Error::caused(Code::ShareFailed, "cannot watch the share's server", error));
                }
            };
            // Reaped when it ends, so that its id stays its own until then.
            tokio::spawn(async move {
                let _ = end.await;
                if let Ok(Some(why)) = blocking(move || Ok(why_it_ended(&mut child))).await {
                    log::error!("the share of domain {domid} has ended: {why}");
                }
            });
            return Ok(process);
        }
        let _ = child.kill();
        let what = match ready {
            Ok(true) => "ended at once".to_owned(),
            Ok(false) => format!("was not ready within {} s", START_LIMIT.as_secs()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => last_words(&mut child),
            Err(error) => error.to_string(),
        };
        let _ = child.wait();
        Err(Error::new(Code::ShareFailed, format!("{}: {what}", self.program.display())))
    }
}

/// Waits until it says that the guest may start; false: it does not within `limit`.
fn is_ready(child: &mut Child, limit: Duration) -> io::Result<bool> {
    let Some(mut said) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let deadline = Instant::now() + limit;
    let (mut word, mut read) = ([0; READY.len()], 0);
    while read < word.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(&said, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(0) => return Ok(false),
            Ok(_) => {}
        }
        match said.read(&mut word[read..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    if word == READY {
        Ok(true)
    } else {
        Err(io::Error::other("it says something else than that it is ready"))
    }
}

/// What it says until its end, which is waited for.
fn last_words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(WORDS_MAX).read_to_end(&mut words);
    }
    let _ = child.wait();
    String::from_utf8_lossy(&words).trim_end().to_owned()
}

/// Waits for its end. None: it was killed, as we kill it. What its walls have ended says nothing itself, but by which signal it went.
fn why_it_ended(child: &mut Child) -> Option<String> {
    let words = last_words(child);
    // Waited for already, and kept.
    match child.wait() {
        Ok(status) if status.signal() == Some(Signal::KILL.as_raw()) => None,
        Ok(status) => Some(format!("{status}: {words}")),
        Err(_) => Some(words),
    }
}

impl Backend for ShareServer {
    fn attach(&self, domid: u16, uuid: Uuid, export: &Path) -> Result<Process> {
        let what = || format!("cannot write the share's nodes for domain {domid}");
        let guest = DomId::new(domid).ok_or_else(|| Error::new(Code::ShareFailed, what()))?;
        let xenstore = self.xen.xenstore()?;
        xenstore.transaction(|nodes| write_nodes(nodes, guest)).or_fail(Code::ShareFailed, what)?;
        self.start(domid, uuid, export)
    }

    fn end(&self, uuid: Uuid, process: Option<Process>) -> Result<()> {
        // Not recorded, but perhaps started: its first argument names the domain's UUID.
        let name = name(uuid);
        let words = [OsStr::new(&name)];
        let servers =
            process.map_or_else(|| process::with_arguments(&self.program, &words), |known| vec![known]);
        for server in servers {
            server.kill().or_fail(Code::HostFailure, || {
                format!("cannot end the share's server, process {}", server.pid)
            })?;
        }
        Ok(())
    }

    fn detach(&self, domid: u16, uuid: Uuid) -> Result<()> {
        let path = format!("/local/domain/0/backend/9pfs/{domid}");
        self.xen.remove_if_ours(domid, uuid, |xenstore| xenstore.remove(&path))
    }
}

fn name(uuid: Uuid) -> String {
    format!("vgpu-share-{uuid}")
}

fn backend(domid: u16) -> String {
    format!("/local/domain/0/backend/9pfs/{domid}/0")
}

/// Both sides of the device in one transaction. Source: `xen/docs/misc/9pfs.pandoc`. Where on the host the share lies is no node, as it is
/// with libxl's QEMU: the guest reads them all.
fn write_nodes(nodes: &impl idm::xen::xenstore::Store, guest: DomId) -> Result<(), XsError> {
    let domid = guest.get();
    let (back, front) = (backend(domid), format!("/local/domain/{domid}/device/9pfs/0"));
    let back_nodes =
        [("frontend", front.as_str()), ("frontend-id", &domid.to_string()), ("online", "1"), ("state", "1")];
    let front_nodes = [("backend", back.as_str()), ("backend-id", "0"), ("state", "1"), ("tag", SHARE_TAG)];
    write_side(nodes, &back, &back_nodes, &Permissions::owned(DomId::DOM0, guest))?;
    write_side(nodes, &front, &front_nodes, &Permissions::owned(guest, DomId::DOM0))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{FileType, Mode};

    use super::*;

    /// A program that does what `script` says in the server's place.
    fn server(dir: &Path, script: &str) -> ShareServer {
        let program = dir.join("share-server");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        ShareServer::new(program, Arc::default())
    }

    #[tokio::test]
    async fn a_server_that_is_ready_is_found_by_its_domain_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("wait"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let server = server(dir.path(), "echo ready; read line < \"$3/wait\"");
        let uuid = Uuid::from_u128(0x1234_5678 << 64 | u128::from(std::process::id()));
        let process = server.start(7, uuid, dir.path()).unwrap();
        assert!(process.is_alive());
        // Not nil, which is the other tests'.
        server.end(Uuid::max(), None).unwrap();
        assert!(process.is_alive(), "another pod's");
        server.end(uuid, None).unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn a_server_that_its_walls_have_ended_is_told_from_one_that_we_ended() {
        let why = |script: &str| {
            let mut shell = Command::new("sh");
            why_it_ended(&mut shell.args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap())
        };
        assert_eq!(why("kill -KILL $$"), None);
        let walls = why("kill -SYS $$").unwrap();
        assert!(walls.contains("SIGSYS"), "{walls}");
        let said = why("echo the guest broke the protocol >&2; exit 1").unwrap();
        assert!(said.contains("status: 1") && said.ends_with(": the guest broke the protocol"), "{said}");
    }

    #[test]
    fn a_server_has_nothing_of_our_environment() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), "echo \"cargo is <$CARGO_PKG_NAME>, we are in $(pwd)\" >&2; exit 1");
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let error = server.start(7, Uuid::nil(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("cargo is <>, we are in /"), "{error}");
    }

    #[test]
    fn a_server_that_says_half_a_word_is_not_waited_for() {
        for (script, ready) in [
            ("printf no; exec sleep 60", false),
            ("printf rea; sleep 0.1; printf 'dy\\n'; exec sleep 60", true),
        ] {
            let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let said = is_ready(&mut child, if ready { START_LIMIT } else { Duration::from_millis(300) });
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(said.unwrap(), ready, "{script}");
        }
    }

    #[test]
    fn why_a_server_does_not_start_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for (script, said) in [
            ("echo no such domain >&2; exit 1", "no such domain"),
            ("echo hello; exec sleep 60", "something else than that it is ready"),
        ] {
            let error = server(dir.path(), script).start(7, Uuid::nil(), dir.path()).unwrap_err().to_string();
            assert!(error.contains(said), "{script}: {error}");
        }
        let error = ShareServer::new(dir.path().join("none"), Arc::default());
        let error = error.start(7, Uuid::nil(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("shim.share_server"), "{error}");
    }
}
