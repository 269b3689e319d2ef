//! Standard streams of a process: byte streams to the shim on one side, pipes or a pty on the other.
//!
//! [`StreamSource`] opens what a request names; [`pump`] moves the bytes; [`pty`] is a terminal's master. What must hold: a slow
//! reader stops the writer (each pump holds one buffer and no more), and an output stream ends only after everything that was written to it
//! has been delivered. Not here: how a stream crosses domains (`agent/streams.rs`, idm).

pub mod pty;
pub mod pump;

use std::{io, os::fd::OwnedFd, process::Stdio};

use rustix::fs::Uid;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::unix::pipe,
};

use crate::{
    error::{During, Result},
    oci::Streams,
};

/// A stream to the shim: data one way, and an end that can be told (`shutdown`).
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Opens the streams that Create and Exec name.
pub trait StreamSource: Send + Sync {
    /// Takes the stream `name`. Each can be taken once.
    /// # Errors
    /// The name is unknown or taken.
    fn take(&self, name: &str) -> Result<Box<dyn ByteStream>>;
}

/// The names in a request; empty means none.
#[derive(Clone, Debug, Default)]
pub struct StdioNames {
    /// The process's standard input.
    pub stdin: String,
    /// Its standard output; with a terminal, its only output.
    pub stdout: String,
    /// Its standard error; unused with a terminal.
    pub stderr: String,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// The opened streams of one process.
#[derive(Default)]
pub struct Opened {
    stdin: Option<Box<dyn ByteStream>>,
    stdout: Option<Box<dyn ByteStream>>,
    stderr: Option<Box<dyn ByteStream>>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = [self.stdin.is_some(), self.stdout.is_some(), self.stderr.is_some()];
        f.debug_tuple("Opened").field(&open).finish()
    }
}

/// Takes every named stream.
/// # Errors
/// As [`StreamSource::take`].
pub fn open(source: &dyn StreamSource, names: &StdioNames) -> Result<Opened> {
    let take = |name: &str| (!name.is_empty()).then(|| source.take(name)).transpose();
    Ok(Opened {
        stdin: take(&names.stdin)?,
        stdout: take(&names.stdout)?,
        stderr: if names.terminal { None } else { take(&names.stderr)? },
    })
}

/// The running pumps of one process.
#[derive(Debug, Default)]
pub struct Pumps {
    input: Option<tokio::task::JoinHandle<()>>,
    outputs: Vec<tokio::task::JoinHandle<()>>,
}

impl Pumps {
    /// The process is gone: its input has no reader any more.
    pub fn stop_input(&mut self) {
        if let Some(input) = self.input.take() {
            input.abort();
        }
    }

    /// Resolves when every output has been delivered and ended.
    pub async fn drained(&mut self) {
        for output in self.outputs.drain(..) {
            // A pump that was aborted has nothing to deliver.
            let _ = output.await;
        }
    }
}

impl Drop for Pumps {
    /// Whoever drops them has waited long enough: a grandchild may hold an output for ever.
    fn drop(&mut self) {
        self.stop_input();
        self.outputs.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Pipes for a process without a terminal: its ends, and the pumps' ends to be started by [`Pipes::start`].
#[derive(Debug)]
pub struct Pipes {
    opened: Opened,
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Pipes {
    /// Makes a pipe for each opened stream, which belongs to the user `owner`; /dev/null for the others.
    /// # Errors
    /// Descriptors are used up.
    pub fn make(opened: Opened, owner: u32) -> Result<(Self, Streams)> {
        let mut streams = Streams::null();
        let mut pipes = Self { opened, stdin: None, stdout: None, stderr: None };
        if pipes.opened.stdin.is_some() {
            let (read, write) = pipe_of(owner).during(|| "make a pipe".into())?;
            pipes.stdin = Some(pipe::Sender::from_owned_fd(write).during(|| "watch a pipe".into())?);
            streams.stdin = Stdio::from(read);
        }
        if pipes.opened.stdout.is_some() {
            let (reader, end) = output_pipe(owner).during(|| "make a pipe".into())?;
            (pipes.stdout, streams.stdout) = (Some(reader), end);
        }
        if pipes.opened.stderr.is_some() {
            let (reader, end) = output_pipe(owner).during(|| "make a pipe".into())?;
            (pipes.stderr, streams.stderr) = (Some(reader), end);
        }
        Ok((pipes, streams))
    }

    /// Starts to move bytes.
    pub fn start(self) -> Pumps {
        let input = self.opened.stdin.zip(self.stdin);
        let outputs = [self.opened.stdout.zip(self.stdout), self.opened.stderr.zip(self.stderr)];
        Pumps {
            input: input.map(|(from, to)| tokio::spawn(pump::input(from, to))),
            outputs: outputs
                .into_iter()
                .flatten()
                .map(|(to, from)| tokio::spawn(pump::output(from, to)))
                .collect(),
        }
    }
}

/// Starts to move bytes between a terminal and its streams.
pub fn start_terminal(opened: Opened, master: &pty::Master) -> Pumps {
    Pumps {
        input: opened.stdin.map(|from| tokio::spawn(pump::terminal_input(from, master.clone()))),
        outputs: opened.stdout.map(|to| tokio::spawn(pump::output(master.clone(), to))).into_iter().collect(),
    }
}

fn output_pipe(owner: u32) -> io::Result<(pipe::Receiver, Stdio)> {
    let (read, write) = pipe_of(owner)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, Stdio::from(write)))
}

/// A pipe whose both ends `owner` may open again through /proc/self/fd.
fn pipe_of(owner: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // One inode for both.
    rustix::fs::fchown(&write, Some(Uid::from_raw(owner)), None)?;
    Ok((read, write))
}
