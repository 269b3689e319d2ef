//! Containers by the OCI runtime specification, applied by youki's `libcontainer`.
//!
//! The library forks, changes namespaces and its own working directory, so it runs in a single-threaded process of its own:
//! guest-init executes itself as `guest-init oci REQUEST ANSWER_FILE`. [`run`] is that call seen from PID 1, [`helper`] is the other
//! side, [`adapt`] makes a spec of the node fit the guest, [`shared`] has it share what other containers have, [`process`] what its process says and [`resources`] its limits, [`destinations`] says where mounts go, [`tmpfs`] has covered folders keep their modes,
//! [`workdir`] makes the working directory, [`command`] finds and executes the
//! container's program under its [`seccomp`] profile.

pub mod adapt;
pub mod command;
pub mod destinations;
pub mod helper;
pub mod pause;
pub mod process;
pub mod resources;
pub mod seccomp;
pub mod shared;
pub mod tmpfs;
pub mod workdir;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    error::{During, GuestError, Result},
    sys::{self, SIGKILL},
    task::host::Host,
};

/// How long a helper that was killed may take to be gone.
const KILLED_LIMIT: Duration = Duration::from_secs(2);

/// What PID 1 asks of the helper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Makes the container's init process and lets it wait for [`Request::Start`]. Leaves its pid for [`take_pid`].
    Create {
        /// The container's id.
        id: String,
        /// A directory with the adapted `config.json`.
        bundle: PathBuf,
        /// Where the library keeps its state.
        state: PathBuf,
        /// A unix socket that takes the pty's master, if the process has a terminal.
        console: Option<PathBuf>,
        /// A file with the OCI `linux.seccomp` object, if the container has a profile.
        seccomp: Option<PathBuf>,
    },
    /// Lets the init process execute its program.
    Start {
        /// The container's id.
        id: String,
        /// As in [`Request::Create`].
        state: PathBuf,
    },
    /// Runs one more process in a running container. Leaves its pid for [`take_pid`].
    Exec {
        /// The container's id.
        id: String,
        /// As in [`Request::Create`].
        state: PathBuf,
        /// A file with the OCI `process` object.
        process: PathBuf,
        /// As in [`Request::Create`].
        console: Option<PathBuf>,
        /// As in [`Request::Create`].
        seccomp: Option<PathBuf>,
    },
}

impl Request {
    fn operation(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create the container",
            Self::Start { .. } => "start the container",
            Self::Exec { .. } => "exec in the container",
        }
    }
}

/// What the helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// The command cannot be executed.
    CommandMissing(String),
    /// Anything else.
    Failed(String),
}

/// The helper's standard streams, which become the container's.
#[derive(Debug)]
pub struct Streams {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
}

impl Streams {
    /// All three are /dev/null.
    pub fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

/// Serves this program's own calls of itself, by its arguments: `oci REQUEST ANSWER_FILE`, `workdir ROOT DIRECTORY WHY`. Gives the exit code,
/// or none for other arguments.
pub fn serve(args: &[&str]) -> Option<u8> {
    match *args {
        ["oci", request, answer] => Some(helper::main(request, Path::new(answer))),
        ["workdir", root, directory, why] => {
            Some(workdir::main(Path::new(root), Path::new(directory), Path::new(why)))
        }
        _ => None,
    }
}

/// Runs the helper to its end.
/// # Errors
/// What the helper answered, that it ended without an answer, or that it did not end. A process that it made lives on then.
pub async fn run(host: &Host, request: &Request, answer_file: &Path, streams: Streams) -> Result<()> {
    let operation = request.operation();
    let text = serde_json::to_string(request)
        .map_err(|error| GuestError::Oci { operation, text: error.to_string() })?;
    let program = &host.layout.program;
    let mut command = Command::new(program);
    command.arg("oci").arg(text).arg(answer_file);
    command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
    let (helper, mut exited) =
        host.reaper.spawn(&mut command).during(|| format!("start {}", program.display()))?;
    // The command holds our copies of the container's stdio: an output must end with the container, not with this function.
    drop(command);
    let limit = host.layout.helper_limit;
    let Ok(exited) = timeout(limit, &mut exited).await else {
        // Its exit was not told, so it was not reaped and the pid is still its own.
        let _ = sys::kill(helper.id().cast_signed(), SIGKILL);
        // From here on it starts nothing more, even if a share that does not answer holds it in a system call.
        let _ = timeout(KILLED_LIMIT, exited).await;
        let _ = std::fs::remove_file(answer_file);
        return Err(GuestError::Oci {
            operation,
            text: format!("its helper did not end within {} s", limit.as_secs()),
        });
    };
    let exit = exited.map_err(|_| GuestError::Oci { operation, text: "the reaper is gone".into() })?;

    let answer = std::fs::read(answer_file);
    let _ = std::fs::remove_file(answer_file);
    match answer.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        Some(Answer::Done) => Ok(()),
        Some(Answer::CommandMissing(text)) => Err(GuestError::CommandMissing(text)),
        Some(Answer::Failed(text)) => Err(GuestError::Oci { operation, text }),
        None => Err(GuestError::Oci {
            operation,
            text: format!("its helper ended with status {} and no answer", exit.status),
        }),
    }
}

/// Where the library leaves the pid of the process that it makes, before that executes anything of the container.
fn pid_file(answer_file: &Path) -> PathBuf {
    answer_file.with_extension("pid")
}

/// The process that a helper made, in the guest's root pid namespace, also if the helper failed later.
pub fn take_pid(answer_file: &Path) -> Option<i32> {
    let file = pid_file(answer_file);
    let text = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(file);
    text.ok()?.parse().ok()
}
