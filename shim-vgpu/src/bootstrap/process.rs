//! The server's process: detached from containerd, with the bound socket as its stdin.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::OwnedFd,
        unix::{net::UnixListener, process::CommandExt, process::parent_id},
    },
    process::{Command, Stdio},
};

use vgpu_codes::Code;

use super::Asked;
use crate::{
    args::Args,
    error::{OrFail, Result},
};

/// The highest that Linux knows. Source: `proc_pid_oom_score_adj(5)`.
const OOM_SCORE_MAX: i32 = 1000;

/// Starts the server. It outlives us and containerd.
///
/// The listener becomes its stdin: no descriptor has to be kept open across exec by hand. stdout and stderr are closed to it, since
/// containerd reads ours to their end.
///
/// # Errors
/// [`Code::HostFailure`] if the program can't be run.
pub fn spawn(listener: UnixListener, args: &Args, asked: &Asked) -> Result<()> {
    let program =
        std::env::current_exe().or_fail(Code::HostFailure, || "cannot find our own program".into())?;
    let mut command = Command::new(program);
    command
        .args(["-namespace", &args.namespace, "-id", &args.id, "-address", &asked.containerd])
        .args(asked.debug.then_some("-debug"))
        .args(asked.config.iter().flat_map(|path| [OsStr::new("-config"), path.as_os_str()]))
        .arg("serve")
        .env("TTRPC_ADDRESS", &asked.events)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let child = command.spawn().or_fail(Code::HostFailure, || "cannot start the shim's server".into())?;
    // A convenience of the node: without it the shim is only as likely to be killed as containerd.
    let _ = raise_oom_score(child.id());
    Ok(())
}

/// The shim is to be killed before its parent, containerd.
fn raise_oom_score(child: u32) -> std::io::Result<()> {
    let parent = fs::read_to_string(format!("/proc/{}/oom_score_adj", parent_id()))?;
    let score = parent.trim().parse::<i32>().unwrap_or(0).saturating_add(1).min(OOM_SCORE_MAX);
    fs::write(format!("/proc/{child}/oom_score_adj"), score.to_string())
}
