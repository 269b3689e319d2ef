//! `binary://`: a program that reads what a process writes, as containerd's shim for runc starts one.
//!
//! `binary:///program?key=value` runs `/program key value`. Its descriptors 3 and 4 are stdout and stderr of the process; by its 5 it says that
//! it is ready: it closes it, or writes a byte, which `binary-v2://` wants. Its environment is `CONTAINER_ID`, that of an exec for an exec, and
//! `CONTAINER_NAMESPACE`. Source: containerd, `docs/`, "Logging"; its shim for runc, `NewBinaryIO`.

use std::{
    ffi::OsString,
    io::{self, PipeReader, Read},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, Signal},
};
use tokio::net::unix::pipe;
use vgpu_codes::Code;

use super::url::Url;
use crate::{
    error::{Error, OrFail, Result},
    process::{ends_within, kill_child},
};

const STDOUT: i32 = 3;
const STDERR: i32 = 4;
const READY: i32 = 5;

/// For one that first connects somewhere. Runc's shim would wait without end.
const READY_LIMIT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// For what is still in the pipes, when nobody writes any more. Runc's shim would interrupt it there.
const REST_LIMIT: Duration = Duration::from_secs(2);
/// Between SIGTERM and SIGKILL, as with runc's shim.
const END_LIMIT: Duration = Duration::from_secs(12);

/// What a URL says of a logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// It must say that it is ready by a byte.
    says_so: bool,
}

/// Whose output it is.
#[derive(Debug, Clone)]
pub struct Whose {
    /// Of the container, or of the exec.
    pub id: String,
    /// containerd's.
    pub namespace: String,
}

/// A logger that runs. Dropped, when nobody writes to it any more, it is ended, which may take [`REST_LIMIT`] and [`END_LIMIT`].
#[derive(Debug)]
pub struct Logger {
    /// There until it is ended.
    child: Option<Child>,
    /// A logger that is gone too early lets its process wait, as runc's does: nothing is lost unseen, and nobody gets a SIGPIPE.
    _ends: [PipeReader; 2],
}

impl Binary {
    /// What stands behind `binary://`, or `binary-v2://`, where `says_so`.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] if it is no URL, or its path is not absolute.
    pub fn parse(text: &str, rest: &str, says_so: bool) -> Result<Self> {
        let url = Url::parse(text, rest)?;
        if !url.path.is_absolute() {
            return Err(Error::new(Code::SpecInvalid, format!("{text}: the program has no absolute path")));
        }
        let mut given = Vec::<(OsString, OsString)>::new();
        for (key, value) in url.query {
            // Of a key's values the first is taken.
            if given.iter().all(|(earlier, _)| *earlier != key) {
                given.push((key, value));
            }
        }
        let arguments = given.into_iter().flat_map(|(key, value)| [key, value]).collect();
        Ok(Binary { program: url.path, arguments, says_so })
    }

    /// Starts it, waits until it is ready, and returns it with the ends to write to: of stdout, and of stderr. Inside the runtime.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if it can't be started, does not become ready, or does not in [`READY_LIMIT`].
    pub fn start(self, whose: &Whose) -> Result<(Logger, [pipe::Sender; 2])> {
        let name = self.program.display().to_string();
        let failed = |what: &str| format!("the logger {name} {what}");
        let (logger, ready, ends) =
            self.spawn(whose).or_fail(Code::HostFailure, || failed("cannot be started"))?;
        match is_ready(ready, self.says_so) {
            Ok(true) => {}
            Ok(false) => return Err(Error::new(Code::HostFailure, failed("did not become ready"))),
            Err(error) => return Err(Error::caused(Code::HostFailure, failed("cannot be heard"), error)),
        }
        let [stdout, stderr] = ends
            .map(|end| pipe::Sender::from_owned_fd(end).or_fail(Code::HostFailure, || failed("has no pipe")));
        Ok((logger, [stdout?, stderr?]))
    }

    fn spawn(&self, whose: &Whose) -> io::Result<(Logger, PipeReader, [OwnedFd; 2])> {
        let (stdout, to_stdout) = io::pipe()?;
        let (stderr, to_stderr) = io::pipe()?;
        let (ready, says_ready) = io::pipe()?;
        let ends = [stdout.try_clone()?, stderr.try_clone()?];
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear();
        command.env("CONTAINER_ID", &whose.id).env("CONTAINER_NAMESPACE", &whose.namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let given = [(stdout.into(), STDOUT), (stderr.into(), STDERR), (says_ready.into(), READY)];
        let given = given.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(given.into()).map_err(io::Error::other)?;
        // With the command go our ends of what it was given.
        let child = command.spawn()?;
        Ok((Logger { child: Some(child), _ends: ends }, ready, [to_stdout.into(), to_stderr.into()]))
    }
}

/// Whether it says that it is; one that has ended without a word does so, too, unless a byte is wanted.
fn is_ready(mut said: PipeReader, by_byte: bool) -> io::Result<bool> {
    loop {
        match rustix::event::poll(&mut [PollFd::new(&said, PollFlags::IN)], Some(&READY_LIMIT)) {
            Err(rustix::io::Errno::INTR) => {}
            heard if heard? == 0 => return Ok(false),
            _ => return Ok(said.read(&mut [0])? > 0 || !by_byte),
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let ends = |limit| matches!(ends_within(&child, limit), Ok(true));
        let mut ended = ends(REST_LIMIT);
        if !ended {
            // Not waited for yet, so the id is its own.
            let asked = rustix::process::kill_process(Pid::from_child(&child), Signal::TERM);
            ended = asked.is_ok() && ends(END_LIMIT);
        }
        if ended {
            let _ = child.wait();
        } else {
            log::warn!("a logger (pid {}) did not end when it was asked to, and is killed", child.id());
            kill_child("logger", child);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Instant};

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn whose() -> Whose {
        Whose { id: "one".into(), namespace: "k8s.io".into() }
    }

    fn binary(text: &str) -> Result<Binary> {
        Binary::parse(text, text.strip_prefix("binary://").unwrap(), false)
    }

    /// A script as a logger, in `dir`.
    fn script(dir: &Path, lines: &str) -> Binary {
        let path = dir.join("logger");
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        binary(&format!("binary://{}?dir={}", path.display(), dir.display())).unwrap()
    }

    async fn logged(dir: &Path, binary: Binary) -> String {
        let (logger, [mut stdout, mut stderr]) = binary.start(&whose()).unwrap();
        stdout.write_all(b"out\n").await.unwrap();
        stderr.write_all(b"err\n").await.unwrap();
        drop((stdout, stderr));
        drop(logger);
        fs::read_to_string(dir.join("log")).unwrap()
    }

    #[test]
    fn a_url_is_a_program_and_pairs_of_arguments() {
        let read = binary("binary:///bin/a%20b?id=a+b&none&x=%2f&id=again").unwrap();
        assert_eq!(read.program, Path::new("/bin/a b"));
        assert_eq!(read.arguments, ["id", "a b", "none", "", "x", "/"]);
        for wrong in ["binary://name", "binary://", "binary:///a?b=%zz", "binary:///%"] {
            assert_eq!(binary(wrong).unwrap_err().code(), Some(Code::SpecInvalid), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_logger_has_both_outputs_its_names_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let logs =
            "exec > $2/log; exec 5>&-; cat <&3; cat <&4; env | grep -v '^PWD\\|^SHLVL\\|^_=' | sort; echo $@";
        let said = logged(dir.path(), script(dir.path(), logs)).await;
        let dir = dir.path().display();
        assert_eq!(said, format!("out\nerr\nCONTAINER_ID=one\nCONTAINER_NAMESPACE=k8s.io\ndir {dir}\n"));
    }

    #[tokio::test]
    async fn a_logger_that_does_not_end_is_asked_to() {
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let logs = "trap 'echo asked > $2/log; exit' TERM; exec 5>&-; while :; do sleep 0.01; done";
        assert_eq!(logged(dir.path(), script(dir.path(), logs)).await, "asked\n");
        assert!(begun.elapsed() < END_LIMIT, "it was killed");
    }

    #[tokio::test]
    async fn one_that_is_not_there_or_says_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let said = binary("binary:///no/such").unwrap().start(&whose()).unwrap_err().to_string();
        assert!(said.contains("/no/such cannot be started"), "{said}");
        let silent = |says_so| Binary { says_so, ..script(dir.path(), "exit 1") };
        assert!(silent(false).start(&whose()).is_ok(), "as with runc's shim");
        let said = silent(true).start(&whose()).unwrap_err().to_string();
        assert!(said.contains("did not become ready"), "{said}");
        let says = Binary { says_so: true, ..script(dir.path(), "echo >&5") };
        assert!(says.start(&whose()).is_ok());
    }
}
